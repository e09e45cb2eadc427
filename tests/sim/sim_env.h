/* A world in one process: nodes with shards, a disk and a network each, a
 * virtual clock, one queue of events ordered by (time, number), one seed. The
 * same seed and the same calls give the same run, event for event; sim_hash
 * tells whether two runs were the same.
 *
 * A test makes a world, adds nodes, gives each the function that boots it,
 * starts them and runs the clock; in between, or from sim_at, it crashes
 * nodes, cuts links and damages disks. Everything a node allocates through
 * base/mem.h belongs to it and is gone when it crashes; its disk stays. All
 * times are nanoseconds of the virtual clock, which starts at SIM_EPOCH_NS. */
#ifndef SIM_SIM_ENV_H
#define SIM_SIM_ENV_H

#include <stdbool.h>
#include <stdint.h>

#include "base/env.h"
#include "base/prng.h"

struct sim;
struct sim_node;

#define SIM_US UINT64_C(1000)
#define SIM_MS UINT64_C(1000000)
#define SIM_S UINT64_C(1000000000)
#define SIM_EPOCH_NS (UINT64_C(1000) * SIM_S)
#define SIM_NODES_MAX 64

/* ---- the world ----------------------------------------------------------- */
/* One world at a time: it takes over the log and the hook of asserts, so that
 * a failed assert prints the seed and the newest log lines and exits with 1. */
struct sim *sim_new(uint64_t seed);
void sim_free(struct sim *sim);
uint64_t sim_seed(const struct sim *sim);
uint64_t sim_now_ns(const struct sim *sim);
uint64_t sim_events(const struct sim *sim); /* fired so far */
/* Rolling hash over every event (number, node, kind, time, bytes) and every
 * log line. */
uint64_t sim_hash(const struct sim *sim);
/* Random numbers for the test itself. */
struct prng *sim_prng(struct sim *sim);
/* Log lines go to stderr as well as to the trace. */
void sim_set_verbose(struct sim *sim, bool verbose);
/* Adds a line to the trace. */
void sim_note(struct sim *sim, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* A violated invariant: prints it, the seed and the trace; exits with 1. */
_Noreturn void sim_fail(struct sim *sim, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void sim_trace_print(const struct sim *sim);

/* Fires the next event; false when there is none. */
bool sim_step(struct sim *sim);
/* Fires everything up to `time_ns`, which is the time afterwards. */
void sim_run_until(struct sim *sim, uint64_t time_ns);
void sim_run_for(struct sim *sim, uint64_t duration_ns);
/* Calls `cb` after each event with the node whose code ran (NULL: none's);
 * the node may be gone. For checks: it must change nothing. */
void sim_on_event(struct sim *sim, void (*cb)(void *arg, struct sim_node *node),
                  void *arg);
/* Runs until `cond` holds (asked after each event): true; or the duration is
 * over: false. */
bool sim_run_while_not(struct sim *sim, bool (*cond)(void *arg), void *arg,
                       uint64_t duration_ns);
/* Calls `cb` at that time (now, when it is past), outside of every node. */
void sim_at(struct sim *sim, uint64_t time_ns, void (*cb)(void *arg),
            void *arg);

/* ---- nodes --------------------------------------------------------------- */
/* Called once per start with shard 0's env, the node's memory entered; the
 * other shards are sim_env(node, i). */
typedef void (*sim_boot)(struct env *env, void *arg);
/* How many shards its next start has; it is down. */
void sim_node_set_shards(struct sim_node *node, unsigned n_shards);
/* `name` is the host part of its addresses. The node is down. */
struct sim_node *sim_node_add(struct sim *sim, const char *name,
                              unsigned n_shards);
struct sim_node *sim_node_of(struct env *env);
const char *sim_node_name(const struct sim_node *node);
/* Starts it, also after a crash: boots at the next event. `boot` may be NULL
 * (the test calls into it by sim_node_call). */
void sim_node_start(struct sim_node *node, sim_boot boot, void *arg);
/* The same with the boot function it had. */
void sim_node_restart(struct sim_node *node);
bool sim_node_up(const struct sim_node *node);
unsigned sim_node_starts(const struct sim_node *node);
/* NULL when the node is down. */
struct env *sim_env(struct sim_node *node, unsigned shard);
/* Runs `fn` as the node's shard: its memory entered, env_fatal allowed, the
 * turn ended afterwards. Not from inside a node. */
void sim_node_call(struct sim_node *node, unsigned shard,
                   void (*fn)(struct env *env, void *arg), void *arg);
/* Bytes the node holds. */
size_t sim_node_bytes(const struct sim_node *node);
/* Its n-th allocation from now on, or from its next start on when it is down,
 * fails, and ends it as env_fatal does. 0 takes it back. */
void sim_node_fail_nth_allocation(struct sim_node *node, uint64_t n);
/* Allocations since its start. */
uint64_t sim_node_allocations(const struct sim_node *node);
/* Added to the node's wall clock (its monotonic clock is the world's). */
void sim_node_set_wall_offset_ms(struct sim_node *node, int64_t offset_ms);

enum sim_crash {
    SIM_KILL,     /* the process ends; what it wrote stays in the page cache */
    SIM_DROP_ALL, /* power loss; nothing un-synced survives */
    SIM_KEEP_ALL, /* power loss; all writes had reached the disk */
    SIM_RANDOM,   /* power loss; each un-synced write kept, dropped or torn */
    SIM_TORN,     /* power loss; each un-synced write torn */
    SIM_SUBSET,   /* power loss; what sim_crash_point says */
};
/* Ends the node at once, or at the end of the event when called from inside
 * it. Of a work that runs on the disk, a random part happened. After SIM_KILL
 * peers see resets and refusals; after power loss either that or silence. */
void sim_node_crash(struct sim_node *node, enum sim_crash how);
/* Called, outside of the node, after env_fatal ended it (as SIM_KILL). NULL:
 * env_fatal fails the run. */
void sim_on_fatal(struct sim *sim,
                  void (*cb)(void *arg, struct sim_node *node,
                             const char *line),
                  void *arg);
/* Stops all turns of the node until then: a long pause (its disk and network
 * go on). */
void sim_node_pause(struct sim_node *node, uint64_t until_ns);

/* ---- network ------------------------------------------------------------- */
/* A listener is found by "name:port"; "localhost", "127.0.0.1" and "0.0.0.0"
 * are the node itself. Delays are exponential-like above the minimum. Nodes
 * may be NULL: all. */
void sim_net_delay(struct sim *sim, struct sim_node *from, struct sim_node *to,
                   uint64_t min_ns, uint64_t mean_ns);
/* Bytes per second of one connection; 0: no bound. */
void sim_net_bandwidth(struct sim *sim, uint64_t bytes_per_s);
/* Nothing passes from -> to any more: bytes are held back; they arrive after
 * heal, unless the sender gave up before (SIM_TCP_TIMEOUT_NS), which the other
 * side learns when it writes. */
#define SIM_TCP_TIMEOUT_NS (20 * SIM_S)
#define SIM_CONNECT_TIMEOUT_NS (5 * SIM_S)
void sim_net_cut(struct sim *sim, struct sim_node *from, struct sim_node *to);
void sim_net_heal(struct sim *sim, struct sim_node *from, struct sim_node *to);
void sim_net_cut_both(struct sim *sim, struct sim_node *a, struct sim_node *b);
void sim_net_heal_all(struct sim *sim);
/* Resets every connection between the two; bytes under way are lost. */
void sim_net_reset(struct sim *sim, struct sim_node *a, struct sim_node *b);
unsigned sim_net_connections(const struct sim *sim, const struct sim_node *a,
                             const struct sim_node *b);

/* ---- disk ---------------------------------------------------------------- */
/* Mean costs; 0 keeps what is set. */
void sim_disk_latency(struct sim_node *node, uint64_t read_ns,
                      uint64_t write_ns, uint64_t sync_ns);
/* No work that is on the disk, or comes to it, ends before then. */
void sim_disk_stall(struct sim_node *node, uint64_t until_ns);
/* Sum of file sizes allowed; 0: no bound. */
void sim_disk_capacity(struct sim_node *node, uint64_t bytes);
/* The n-th operation of these kinds from now on fails with ERR_IO (n >= 1; 0
 * takes it back). After a failed sync the writes it covered are never made
 * durable by a later one. */
enum sim_disk_kind {
    SIM_DISK_READ = 1,
    SIM_DISK_WRITE = 2, /* and truncate */
    SIM_DISK_SYNC = 4,
    SIM_DISK_NAME = 8, /* create, rename, unlink, directories */
};
void sim_disk_fail_nth(struct sim_node *node, int kinds, uint64_t n);
/* Operations of these kinds so far. */
uint64_t sim_disk_ops(const struct sim_node *node, int kinds);
/* Un-synced operations now. */
uint64_t sim_disk_unsynced(const struct sim_node *node);
/* Flips bit 0..7 of a byte, on the disk and in the page cache. false: no such
 * file or byte. */
bool sim_disk_flip(struct sim_node *node, const char *path, uint64_t offset,
                   unsigned bit);
/* The n-th read of this file from now on (n >= 1) that gives anything gives one
 * bit flipped; what lies on the disk stays as it is. false: no such file. */
bool sim_disk_rot_read(struct sim_node *node, const char *path, uint64_t n);
void sim_disk_rot_end(struct sim_node *node);
/* Reads so far that were answered so. */
uint64_t sim_disk_rotten(const struct sim_node *node);
/* A sector's worth (at most 4096 bytes) from there on reads as zeros, as far as
 * the file goes. false: no such file, or there are only zeros. */
bool sim_disk_zero(struct sim_node *node, const char *path, uint64_t offset,
                   size_t size);
/* What would survive SIM_DROP_ALL now. *size < 0 of a missing file. `data` is
 * the caller's to mem_free; NULL out-pointers are fine. */
int64_t sim_disk_durable(struct sim_node *node, const char *path, void **data);
/* Every file that exists now, sorted by path. */
void sim_disk_list(struct sim_node *node,
                   void (*each)(void *arg, const char *path, uint64_t size),
                   void *arg);
/* Empties the disk of a node that is down. */
void sim_disk_wipe(struct sim_node *node);

/* ---- crashes at chosen operations ---------------------------------------- */
/* Calls `cb` after each operation that changes the disk (SIM_DISK_READ never
 * comes), from inside the node's code: nothing may be done there but look,
 * fork the process, and sim_crash_now. NULL: not any more. */
void sim_disk_on_op(struct sim_node *node,
                    void (*cb)(void *arg, enum sim_disk_kind kind), void *arg);
/* Un-synced writes and truncations, and un-synced names; and whether the newest
 * operation is a write that is its own sync (it is not counted). */
void sim_disk_journal(const struct sim_node *node, uint64_t *data,
                      uint64_t *names, bool *newest_durable);
struct sim_crash_point {
    enum sim_crash how;
    bool under_way; /* the newest operation was not over */
    uint64_t seed;  /* of what is drawn, also how far other works were */
    uint64_t keep;  /* SIM_SUBSET: bit i: the i-th un-synced write survived */
    uint64_t names; /* SIM_SUBSET: so many un-synced names survived */
    /* Called outside of the node when it is down; must not return. */
    void (*after)(void *arg);
    void *arg;
};
/* From sim_disk_on_op's callback: the node ends at once, right at the newest
 * operation. */
_Noreturn void sim_crash_now(struct sim_node *node,
                             const struct sim_crash_point *point);
/* A digest of what is durable, names included. */
uint64_t sim_disk_digest(const struct sim_node *node);

#endif
