/* Whole brokers in one process: 3 to 7 complete brokers (net/broker.h, as the
 * program runs them) and clients that speak Kafka's wire to them, over the
 * simulated clock, disk and network. One seed decides everything: the shape of
 * the cluster, the load, the faults. See README.md beside this file. */
#ifndef TESTS_SIM_WHOLE_WHOLE_H
#define TESTS_SIM_WHOLE_WHOLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct whole_options {
    uint64_t seed;
    bool verbose;
    /* Shrinking: what a seed decided is cut down further. -1 / 0: as decided */
    int clients_max; /* of each kind */
    bool no_groups, no_admins, no_keys;
    uint32_t faults_off;  /* mask of enum fault_kind */
    uint64_t chaos_s_max; /* faults end after so many seconds */
    bool print_plan;
};

/* What was done and checked; summed over seeds. */
struct whole_result {
    uint64_t hash, events, sim_ns;
    uint64_t acknowledged, read, faults, restarts, requests;
    uint64_t commits, rebalances, admin_changes, elections;
    uint64_t everywhere; /* creations after which all brokers were looked at */
    uint64_t rot;        /* bytes that came back wrong from a disk */
    uint64_t checked;    /* operations in the histories */
    uint64_t compacted;  /* records that compaction was seen to take out */
    uint64_t passes;     /* readings of compacted partitions, to their ends */
    uint64_t broker_bytes_max; /* memory of one broker, the most at any time */
};

/* Which bit of faults_off has this name ("crash", as a plan prints it); -1:
 * there is none, or one that no world is without. */
int whole_fault_find(const char *name, size_t size);

/* Runs one seed to its end. A violation ends the process (sim_fail). */
struct whole_result whole_run(const struct whole_options *options);

#endif
