/* Raft groups over the simulated world: brokers with a log and a transport
 * each, groups with a small state machine that keeps files, a workload, a
 * nemesis, and an oracle that sees everything and checks
 *
 *   - Raft's five safety properties (election safety, leader append-only, log
 *     matching, leader completeness, state machine safety),
 *   - the rules of the store (durable >= applied >= settled; settled files
 *     agree with the checkpoint after every restart),
 *   - that what was acknowledged is there in the end, on every replica, and
 *     that no linearizable read misses an acknowledged entry.
 *
 * Other simulations build on it: they bring their own state machine by
 * cluster_options.machine. */
#ifndef TESTS_SIM_RAFT_CLUSTER_H
#define TESTS_SIM_RAFT_CLUSTER_H

#include "raft/group.h"
#include "raft/transport.h"
#include "tests/sim/sim_env.h"

#define CLUSTER_NODES_MAX 5
#define CLUSTER_GROUPS_MAX 64

struct cluster;

struct cluster_options {
    uint64_t seed;
    int n_nodes;       /* 1 .. CLUSTER_NODES_MAX */
    int n_groups;      /* 1 .. CLUSTER_GROUPS_MAX */
    uint64_t chaos_ns; /* how long the nemesis acts */
    bool no_nemesis;   /* only the workload */
    bool verbose;
    uint32_t guards; /* mask of raft/guard.h */
    uint32_t payload_max;
    /* sizes of the log; 0: small ones, so that files and buffer go round */
    uint64_t wal_file_bytes, wal_bytes_max, log_buffer_bytes;
};

struct cluster_result {
    uint64_t hash, events;
    uint64_t acknowledged, applied, elections, restarts, reads, transfers;
};

/* Runs one seed. A violation ends the process with the trace (sim_fail). */
struct cluster_result cluster_run(const struct cluster_options *options);

#endif
