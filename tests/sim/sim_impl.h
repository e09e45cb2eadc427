/* Shared by the files of the simulated environment. What the world itself
 * holds is allocated outside of every node (sim_zalloc and its kin). */
#ifndef SIM_SIM_IMPL_H
#define SIM_SIM_IMPL_H

#include <setjmp.h>
#include <stdio.h>

#include "base/env_impl.h"
#include "base/mem.h"
#include "tests/sim/sim_env.h"

#define SIM_SHARDS_MAX 16
#define SIM_TRACE_LINES 2000

struct sim_conn;
struct sim_disk;
struct sim_job;
struct sim_listener;

/* ---- events -------------------------------------------------------------- */
enum sim_event_kind {
    SIM_EVENT_HARNESS,
    SIM_EVENT_BOOT,
    SIM_EVENT_TIMER,
    SIM_EVENT_TURN,
    SIM_EVENT_POST,
    SIM_EVENT_JOB_START,
    SIM_EVENT_JOB_DONE,
    SIM_EVENT_SYN,
    SIM_EVENT_CONNECTED,
    SIM_EVENT_CONNECT_FAILED,
    SIM_EVENT_DELIVER,
    SIM_EVENT_RESET,
    SIM_EVENT_TCP_TIMEOUT,
    SIM_EVENT_STREAM_CLOSED,
    SIM_EVENT_MOVE,
};

struct sim_event {
    uint64_t time_ns;
    uint64_t number;
    enum sim_event_kind kind;
    void (*fire)(struct sim_event *event);
    void (*drop)(struct sim_event *event); /* instead of fire; may be NULL */
    struct sim *sim;
    struct sim_node *node; /* whose code it runs; NULL: of no node */
    unsigned incarnation;  /* of the node, which drops the others'; 0: any */
    void *arg;
    void *arg2;
    uint64_t value;
};

struct sim_env {
    struct env base;
    struct sim_node *node;
    unsigned shard;
    uint64_t timer_at_ns; /* of the event that fires timers; UINT64_MAX none */
    bool turn_scheduled;
    uint64_t post_last_ns;                /* posts stay in order */
    struct sim_job *log_first, *log_last; /* ENV_POOL_LOG, head runs */
};

struct sim_link {
    uint64_t min_ns, mean_ns;
    bool cut;
};

struct sim_node {
    struct sim *sim;
    char *name;
    unsigned id;
    unsigned n_shards;
    unsigned incarnation;
    unsigned starts;
    bool up;
    bool host_up; /* while the node is down: refuses instead of silence */
    bool crash_wanted;
    enum sim_crash crash_how;
    sim_boot boot;
    void *boot_arg;
    struct mem_arena *arena;
    uint64_t fail_allocation; /* of the next start; 0: none */
    struct sim_env *envs[SIM_SHARDS_MAX];
    struct sim_disk *disk;
    struct sim_job *jobs; /* started, not done; newest first */
    int64_t wall_offset_ms;
    uint64_t paused_until_ns;
    uint16_t next_port;
};

struct sim {
    uint64_t seed;
    uint64_t now_ns;
    uint64_t n_events;
    uint64_t next_number;
    uint64_t hash;
    struct prng prng; /* scheduling */
    struct prng net_prng;
    struct prng disk_prng;
    struct prng test_prng;
    struct sim_event *free_events; /* to be used again */
    struct sim_event **heap;
    size_t n_heap, heap_capacity;
    struct sim_node *nodes[SIM_NODES_MAX];
    unsigned n_nodes;
    struct sim_env *current; /* whose code runs */
    struct sim_job *job;     /* whose `run` runs */
    jmp_buf fatal_jump;
    char fatal_line[LIMIT_LOG_LINE];
    const struct sim_crash_point *crash_point; /* sim_crash_now */
    void (*on_fatal)(void *arg, struct sim_node *node, const char *line);
    void *on_fatal_arg;
    void (*on_event)(void *arg, struct sim_node *node);
    void *on_event_arg;
    char *trace[SIM_TRACE_LINES];
    uint64_t n_trace;
    bool verbose;
    /* network */
    struct sim_link links[SIM_NODES_MAX][SIM_NODES_MAX];
    uint64_t bandwidth;
    struct sim_conn *conns; /* oldest first */
    uint64_t n_conns;       /* ever */
    struct sim_listener *listeners;
};

void *sim_alloc(size_t size);
void *sim_zalloc(size_t size);
void *sim_realloc(void *p, size_t size);
char *sim_strdup(const char *s);

static inline struct sim_env *sim_env_of(const struct env *env)
{
    return (struct sim_env *)(uintptr_t)env;
}

/* A new event; the caller fills in arg, value and drop. With a node it dies
 * with the node's incarnation (unless the caller sets that to 0) and waits
 * while the node is paused. */
struct sim_event *sim_event_add(struct sim *sim, uint64_t time_ns,
                                enum sim_event_kind kind,
                                void (*fire)(struct sim_event *event),
                                struct sim_node *node);
void sim_hash_add(struct sim *sim, uint64_t value);
/* Exponential-like with that mean. */
uint64_t sim_random_ns(struct prng *prng, uint64_t mean_ns);
/* Runs code of a node; afterwards ends the turn, and the node when it asked
 * for that. false: the node is gone. */
bool sim_run_in(struct sim_env *env, void (*fn)(void *ctx), void *ctx,
                bool turn_end);

/* ---- works --------------------------------------------------------------- */
struct sim_job {
    struct sim_env *env;
    struct env_work *work;
    enum env_pool pool;
    unsigned n_ops;  /* operations that change the disk */
    unsigned n_open; /* of them in the journal */
    bool is_cut;     /* a crash comes after the first `cut` of them */
    unsigned cut;
    uint64_t cost_ns;
    struct sim_job *next;    /* in the log's queue */
    struct sim_job *running; /* in node->jobs */
};

/* ---- disk: sim_disk.c ---------------------------------------------------- */
struct sim_disk *sim_disk_new(struct sim_node *node);
void sim_disk_free(struct sim_disk *disk);
/* The job is done: what it synced is durable. */
void sim_disk_settle(struct sim_disk *disk, struct sim_job *job);
void sim_disk_crash(struct sim_disk *disk, enum sim_crash how);
/* Prepares sim_disk_crash at the newest operation. */
void sim_disk_cut(struct sim_disk *disk, const struct sim_crash_point *point);
uint64_t sim_disk_stalled_until(const struct sim_disk *disk);

enum err sim_file_open(struct env *env, const char *path, int flags,
                       struct env_file **out);
void sim_file_close(struct env_file *file);
enum err sim_file_pread(struct env_file *file, void *buf, size_t size,
                        uint64_t offset, size_t *got);
enum err sim_file_pwritev(struct env_file *file, const struct iovec *iov,
                          int n_iov, uint64_t offset, bool durable);
enum err sim_file_sync(struct env_file *file);
enum err sim_file_size(struct env_file *file, uint64_t *size);
enum err sim_file_truncate(struct env_file *file, uint64_t size);
enum err sim_file_rename(struct env *env, const char *from, const char *to);
enum err sim_file_unlink(struct env *env, const char *path);
enum err sim_dir_make_one(struct env *env, const char *path);
enum err sim_dir_sync(struct env *env, const char *path);
enum err sim_fs_sync(struct env *env, const char *path);
enum err sim_dir_remove(struct env *env, const char *path);
enum err sim_dir_list(struct env *env, const char *path,
                      void (*each)(void *arg, const char *name), void *arg);
enum err sim_fs_space(struct env *env, const char *path, uint64_t *total,
                      uint64_t *available);
enum err sim_dir_lock(struct env *env, const char *path);

/* ---- network: sim_net.c -------------------------------------------------- */
struct env_stream *sim_stream_connect(struct env *env, const char *address,
                                      const struct env_stream_ops *ops,
                                      void *arg);
void sim_stream_start(struct env_stream *stream);
void sim_stream_resume(struct env_stream *stream);
size_t sim_stream_unsent(const struct env_stream *stream);
void sim_stream_write(struct env_stream *stream, struct env_write *req,
                      const struct iovec *iov, int n_iov);
void sim_stream_close(struct env_stream *stream);
enum err sim_listen(struct env *env, const char *address, env_accept_cb accept,
                    void *arg, struct env_listener **out);
void sim_listener_close(struct env_listener *listener);
void sim_stream_move(struct env_stream *stream, struct env *to,
                     env_accept_cb accept, void *arg);
/* The node is gone; its peers learn it (host_up) or not. */
void sim_net_node_gone(struct sim_node *node);
/* Held bytes are sent again, a retransmission later. */
void sim_net_retry(struct sim *sim);
void sim_net_free(struct sim *sim);

#endif
