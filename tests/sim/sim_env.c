/* The simulated world: clock, events, nodes, works, log.
 *
 * Happy path of an event: take the earliest from the heap, set the clock to
 * it, add it to the hash, fire it; when it runs a node's code, the node's
 * memory is entered, the turn ended and the memory left again. Failure modes:
 * env_fatal inside a node jumps back here and the node is ended; a failed
 * assert prints seed and trace and ends the process. */
#include "tests/sim/sim_env.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "tests/sim/sim_impl.h"

#define WALL_BASE_MS INT64_C(1700000000000) /* of the virtual clock's zero */
#define TURN_COST_NS (1 * SIM_US) /* so that no loop stands still in time */

/* ---- memory of the world ------------------------------------------------- */
void *sim_alloc(size_t size)
{
    struct mem_arena *was = mem_arena_enter(NULL);
    void *p = mem_alloc(size);
    mem_arena_enter(was);
    return p;
}

void *sim_zalloc(size_t size)
{
    return memset(sim_alloc(size), 0, size);
}

void *sim_realloc(void *p, size_t size)
{
    struct mem_arena *was = mem_arena_enter(NULL);
    p = mem_realloc(p, size);
    mem_arena_enter(was);
    return p;
}

char *sim_strdup(const char *s)
{
    size_t size = strlen(s) + 1;
    return memcpy(sim_alloc(size), s, size);
}

/* ---- hash, random, trace ------------------------------------------------- */
void sim_hash_add(struct sim *sim, uint64_t value)
{
    uint64_t h = sim->hash ^ value;
    h *= 0x9e3779b97f4a7c15;
    h ^= h >> 29;
    h *= 0xbf58476d1ce4e5b9;
    sim->hash = h ^ (h >> 32);
}

uint64_t sim_random_ns(struct prng *prng, uint64_t mean_ns)
{
    uint64_t r = prng_next(prng);
    uint64_t halvings = (uint64_t)__builtin_clzll(r | (1 << 20));
    return mean_ns * (halvings * 1024 + (r & 1023)) / 1536;
}

static void trace_add(struct sim *sim, const char *line)
{
    char **slot = &sim->trace[sim->n_trace++ % SIM_TRACE_LINES];
    char text[LIMIT_LOG_LINE + 128];
    uint64_t at_us = (sim->now_ns - SIM_EPOCH_NS) / SIM_US;
    snprintf(text, sizeof text, "%llu.%06llu %s %s",
             (unsigned long long)(at_us / 1000000),
             (unsigned long long)(at_us % 1000000),
             sim->current == NULL ? "-" : sim->current->node->name, line);
    mem_free(*slot);
    *slot = sim_strdup(text);
    sim_hash_add(sim, crc32c(0, text, strlen(text)));
    if (sim->verbose) {
        fprintf(stderr, "%s\n", text);
    }
}

static void on_log(void *arg, enum log_level level, const char *component,
                   const char *line)
{
    static const char *const names[] = {"debug", "info", "WARN", "ERROR"};
    char text[LIMIT_LOG_LINE + 64];
    snprintf(text, sizeof text, "%s %s: %s", names[level], component, line);
    trace_add(arg, text);
}

void sim_note(struct sim *sim, const char *format, ...)
{
    char text[LIMIT_LOG_LINE];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    trace_add(sim, text);
}

void sim_trace_print(const struct sim *sim)
{
    uint64_t from =
        sim->n_trace > SIM_TRACE_LINES ? sim->n_trace - SIM_TRACE_LINES : 0;
    if (sim->verbose) {
        return; /* they are there already */
    }
    for (uint64_t i = from; i < sim->n_trace; i++) {
        fprintf(stderr, "%s\n", sim->trace[i % SIM_TRACE_LINES]);
    }
}

static _Noreturn void sim_end(const struct sim *sim)
{
    sim_trace_print(sim);
    fprintf(stderr, "failed: seed %llu event %llu hash %016llx\n",
            (unsigned long long)sim->seed, (unsigned long long)sim->n_events,
            (unsigned long long)sim->hash);
    exit(1);
}

void sim_fail(struct sim *sim, const char *format, ...)
{
    char text[LIMIT_LOG_LINE];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    sim_note(sim, "VIOLATION %s", text);
    sim_end(sim);
}

static void on_assert(void *arg, const char *file, int line, const char *what)
{
    struct sim *sim = arg;
    sim_note(sim, "ASSERT %s:%d: %s", file, line, what);
    sim_end(sim);
}

/* ---- the queue of events: a binary heap ---------------------------------- */
static bool event_before(const struct sim_event *a, const struct sim_event *b)
{
    return a->time_ns != b->time_ns ? a->time_ns < b->time_ns
                                    : a->number < b->number;
}

static void heap_push(struct sim *sim, struct sim_event *event)
{
    if (sim->n_heap == sim->heap_capacity) {
        sim->heap_capacity = sim->heap_capacity * 2 + 256;
        sim->heap =
            sim_realloc(sim->heap, sim->heap_capacity * sizeof sim->heap[0]);
    }
    size_t at = sim->n_heap++;
    while (at > 0 && event_before(event, sim->heap[(at - 1) / 2])) {
        sim->heap[at] = sim->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    sim->heap[at] = event;
}

static struct sim_event *heap_pop(struct sim *sim)
{
    struct sim_event *first = sim->heap[0];
    struct sim_event *last = sim->heap[--sim->n_heap];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child + 1 < sim->n_heap &&
            event_before(sim->heap[child + 1], sim->heap[child])) {
            child++;
        }
        if (child >= sim->n_heap || !event_before(sim->heap[child], last)) {
            break;
        }
        sim->heap[at] = sim->heap[child];
        at = child;
    }
    sim->heap[at] = last;
    return first;
}

struct sim_event *sim_event_add(struct sim *sim, uint64_t time_ns,
                                enum sim_event_kind kind,
                                void (*fire)(struct sim_event *event),
                                struct sim_node *node)
{
    struct sim_event *event = sim->free_events;
    if (event == NULL) {
        event = sim_alloc(sizeof *event);
    } else {
        sim->free_events = event->arg;
    }
    *event = (struct sim_event){0};
    event->time_ns = time_ns > sim->now_ns ? time_ns : sim->now_ns;
    event->number = ++sim->next_number;
    event->kind = kind;
    event->fire = fire;
    event->sim = sim;
    event->node = node;
    event->incarnation = node == NULL ? 0 : node->incarnation;
    heap_push(sim, event);
    return event;
}

/* ---- running a node's code ----------------------------------------------- */
static void node_end(struct sim_node *node, enum sim_crash how);

static void node_end_if_wanted(struct sim_node *node)
{
    if (node->crash_wanted) {
        node->crash_wanted = false;
        node_end(node, node->crash_how);
    }
}

/* env_fatal jumped out of the node. */
static void node_died(struct sim *sim, struct sim_node *node)
{
    sim->current = NULL;
    sim->job = NULL;
    mem_arena_enter(NULL);
    node->crash_wanted = false;
    if (sim->crash_point != NULL) {
        node_end(node, sim->crash_point->how);
        sim->crash_point->after(sim->crash_point->arg);
        ASSERT(false); /* it must not return */
    }
    if (sim->on_fatal == NULL) {
        sim_fail(sim, "node %s ended itself: %s", node->name, sim->fatal_line);
    }
    node_end(node, SIM_KILL);
    sim->on_fatal(sim->on_fatal_arg, node, sim->fatal_line);
}

bool sim_run_in(struct sim_env *env, void (*fn)(void *ctx), void *ctx,
                bool turn_end)
{
    struct sim_node *node = env->node;
    struct sim *sim = node->sim;
    unsigned incarnation = node->incarnation;
    ASSERT(sim->current == NULL && node->up);
    sim->current = env;
    mem_arena_enter(node->arena);
    if (setjmp(sim->fatal_jump) != 0) {
        node_died(sim, node);
        return false;
    }
    fn(ctx);
    if (turn_end) {
        env_turn_end(&env->base);
    }
    mem_arena_enter(NULL);
    sim->current = NULL;
    node_end_if_wanted(node);
    return node->up && node->incarnation == incarnation;
}

/* ---- the table of operations --------------------------------------------- */
static uint64_t op_now_ns(const struct env *env)
{
    return sim_env_of(env)->node->sim->now_ns;
}

static uint64_t op_now_ms(const struct env *env)
{
    return op_now_ns(env) / SIM_MS;
}

static int64_t op_wall_ms(const struct env *env)
{
    return WALL_BASE_MS + (int64_t)op_now_ms(env) +
           sim_env_of(env)->node->wall_offset_ms;
}

static void op_fatal(struct env *env, const char *line)
{
    struct sim *sim = sim_env_of(env)->node->sim;
    if (sim->current == NULL || sim->current->node != sim_env_of(env)->node) {
        sim_fail(sim, "env_fatal outside of a node: %s", line);
    }
    snprintf(sim->fatal_line, sizeof sim->fatal_line, "%s", line);
    longjmp(sim->fatal_jump, 1);
}

/* Runs one of env_impl.h's functions in the node. */
static void call_timers(void *ctx)
{
    env_timers_fire(ctx);
}

static void call_nothing(void *ctx)
{
    (void)ctx;
}

static void op_timers_changed(struct env *env);

static void fire_timers(struct sim_event *event)
{
    struct sim_env *env = event->arg;
    if (env->timer_at_ns != event->time_ns) {
        return; /* an earlier one has fired them */
    }
    env->timer_at_ns = UINT64_MAX;
    if (sim_run_in(env, call_timers, env, true)) {
        op_timers_changed(&env->base);
    }
}

static void op_timers_changed(struct env *base)
{
    struct sim_env *env = sim_env_of(base);
    struct sim *sim = env->node->sim;
    uint64_t due_ms;
    ASSERT(sim->job == NULL); /* a work's `run` has no timers */
    if (!env_timers_due(base, &due_ms)) {
        return;
    }
    uint64_t due_ns =
        due_ms < UINT64_MAX / SIM_MS ? due_ms * SIM_MS : UINT64_MAX - 1;
    if (due_ns < sim->now_ns + TURN_COST_NS) {
        due_ns = sim->now_ns + TURN_COST_NS;
    }
    if (due_ns < env->timer_at_ns) {
        env->timer_at_ns = due_ns;
        sim_event_add(sim, due_ns, SIM_EVENT_TIMER, fire_timers, env->node)
            ->arg = env;
    }
}

static void fire_turn(struct sim_event *event)
{
    struct sim_env *env = event->arg;
    env->turn_scheduled = false;
    sim_run_in(env, call_nothing, NULL, true);
}

static void op_deferred(struct env *base)
{
    struct sim_env *env = sim_env_of(base);
    struct sim *sim = env->node->sim;
    ASSERT(sim->job == NULL);
    if (sim->current == env || env->turn_scheduled) {
        return;
    }
    env->turn_scheduled = true;
    sim_event_add(sim, sim->now_ns, SIM_EVENT_TURN, fire_turn, env->node)->arg =
        env;
}

static void call_post(void *ctx)
{
    struct env_post *msg = ctx;
    msg->cb(msg);
}

static void fire_post(struct sim_event *event)
{
    sim_run_in(event->arg, call_post, event->arg2, true);
}

static void op_post(struct env *to, struct env_post *msg)
{
    struct sim_env *env = sim_env_of(to);
    struct sim *sim = env->node->sim;
    uint64_t at = sim->now_ns + prng_between(&sim->prng, 1, 20) * SIM_US;
    ASSERT(sim->job == NULL);
    ASSERT(sim->current == NULL || sim->current->node == env->node);
    env->post_last_ns = at > env->post_last_ns ? at : env->post_last_ns;
    struct sim_event *event = sim_event_add(
        sim, env->post_last_ns, SIM_EVENT_POST, fire_post, env->node);
    event->arg = env;
    event->arg2 = msg;
}

/* ---- works --------------------------------------------------------------- */
static void job_schedule(struct sim_job *job);

static void job_forget(struct sim_job *job)
{
    struct sim_job **at = &job->env->node->jobs;
    while (*at != job) {
        at = &(*at)->running;
    }
    *at = job->running;
}

static void call_done(void *ctx)
{
    struct env_work *work = ctx;
    work->done(work);
}

static void fire_job_done(struct sim_event *event)
{
    struct sim_job *job = event->arg;
    struct sim_env *env = job->env;
    struct sim_node *node = env->node;
    uint64_t stalled_until = sim_disk_stalled_until(node->disk);
    if (stalled_until > event->sim->now_ns) {
        sim_event_add(event->sim, stalled_until, SIM_EVENT_JOB_DONE,
                      fire_job_done, node)
            ->arg = job;
        return;
    }
    job_forget(job);
    sim_disk_settle(node->disk, job);
    if (job->pool == ENV_POOL_LOG) {
        ASSERT(env->log_first == job);
        env->log_first = job->next;
        if (env->log_first != NULL) {
            job_schedule(env->log_first);
        }
    }
    struct env_work *work = job->work;
    mem_free(job);
    sim_run_in(env, call_done, work, true);
}

static void call_run(void *ctx)
{
    struct env_work *work = ctx;
    work->run(work);
}

static void fire_job_start(struct sim_event *event)
{
    struct sim_job *job = event->arg;
    struct sim *sim = event->sim;
    struct sim_node *node = job->env->node;
    job->running = node->jobs;
    node->jobs = job;
    sim->job = job;
    bool goes_on = sim_run_in(job->env, call_run, job->work, false);
    sim->job = NULL;
    if (goes_on) {
        sim_event_add(sim, sim->now_ns + TURN_COST_NS + job->cost_ns,
                      SIM_EVENT_JOB_DONE, fire_job_done, node)
            ->arg = job;
    }
}

static void drop_job(struct sim_event *event)
{
    mem_free(event->arg);
}

static void job_schedule(struct sim_job *job)
{
    struct sim *sim = job->env->node->sim;
    uint64_t at = sim->now_ns + prng_between(&sim->prng, 1, 20) * SIM_US;
    struct sim_event *event = sim_event_add(sim, at, SIM_EVENT_JOB_START,
                                            fire_job_start, job->env->node);
    event->arg = job;
    /* The log's works are in its queue, which is freed with the node. */
    event->drop = job->pool == ENV_POOL_IO ? drop_job : NULL;
}

static void op_work_submit(struct env *base, enum env_pool pool,
                           struct env_work *work)
{
    struct sim_env *env = sim_env_of(base);
    struct sim_job *job = sim_zalloc(sizeof *job);
    ASSERT(env->node->sim->job == NULL);
    job->env = env;
    job->work = work;
    job->pool = pool;
    if (pool == ENV_POOL_LOG) {
        if (env->log_first != NULL) {
            env->log_last->next = job;
            env->log_last = job;
            return; /* starts when the one before it is done */
        }
        env->log_first = env->log_last = job;
    }
    job_schedule(job);
}

static const struct env_ops sim_ops = {
    .now_ms = op_now_ms,
    .now_ns = op_now_ns,
    .wall_ms = op_wall_ms,
    .fatal = op_fatal,
    .timers_changed = op_timers_changed,
    .deferred = op_deferred,
    .post = op_post,
    .work_submit = op_work_submit,
    .file_open = sim_file_open,
    .file_close = sim_file_close,
    .file_pread = sim_file_pread,
    .file_pwritev = sim_file_pwritev,
    .file_sync = sim_file_sync,
    .file_size = sim_file_size,
    .file_truncate = sim_file_truncate,
    .file_rename = sim_file_rename,
    .file_unlink = sim_file_unlink,
    .dir_make_one = sim_dir_make_one,
    .dir_sync = sim_dir_sync,
    .fs_sync = sim_fs_sync,
    .dir_remove = sim_dir_remove,
    .dir_list = sim_dir_list,
    .fs_space = sim_fs_space,
    .dir_lock = sim_dir_lock,
    .stream_connect = sim_stream_connect,
    .stream_start = sim_stream_start,
    .stream_resume = sim_stream_resume,
    .stream_unsent = sim_stream_unsent,
    .stream_write = sim_stream_write,
    .stream_close = sim_stream_close,
    .listen = sim_listen,
    .listener_close = sim_listener_close,
    .stream_move = sim_stream_move,
};

/* ---- nodes --------------------------------------------------------------- */
struct sim_node *sim_node_add(struct sim *sim, const char *name,
                              unsigned n_shards)
{
    struct sim_node *node = sim_zalloc(sizeof *node);
    ASSERT(sim->n_nodes < SIM_NODES_MAX);
    ASSERT(n_shards >= 1 && n_shards <= SIM_SHARDS_MAX);
    node->sim = sim;
    node->name = sim_strdup(name);
    node->id = sim->n_nodes;
    node->n_shards = n_shards;
    node->host_up = true;
    node->disk = sim_disk_new(node);
    sim->nodes[sim->n_nodes++] = node;
    return node;
}

void sim_node_set_shards(struct sim_node *node, unsigned n_shards)
{
    ASSERT(!node->up);
    ASSERT(n_shards >= 1 && n_shards <= SIM_SHARDS_MAX);
    node->n_shards = n_shards;
}

struct sim_node *sim_node_of(struct env *env)
{
    return sim_env_of(env)->node;
}

const char *sim_node_name(const struct sim_node *node)
{
    return node->name;
}

bool sim_node_up(const struct sim_node *node)
{
    return node->up;
}

unsigned sim_node_starts(const struct sim_node *node)
{
    return node->starts;
}

struct env *sim_env(struct sim_node *node, unsigned shard)
{
    ASSERT(shard < node->n_shards);
    return node->up ? &node->envs[shard]->base : NULL;
}

static void env_begin(struct sim_node *node, unsigned shard)
{
    struct sim_env *env = sim_zalloc(sizeof *env);
    env_base_init(&env->base, &sim_ops, prng_next(&node->sim->prng));
    env->node = node;
    env->shard = shard;
    env->timer_at_ns = UINT64_MAX;
    node->envs[shard] = env;
}

static void call_boot(void *ctx)
{
    struct sim_node *node = ctx;
    node->boot(&node->envs[0]->base, node->boot_arg);
}

static void fire_boot(struct sim_event *event)
{
    struct sim_node *node = event->node;
    if (node->boot != NULL) {
        sim_run_in(node->envs[0], call_boot, node, true);
    }
}

void sim_node_start(struct sim_node *node, sim_boot boot, void *arg)
{
    ASSERT(!node->up);
    node->boot = boot;
    node->boot_arg = arg;
    node->up = true;
    node->crash_wanted = false;
    node->incarnation++;
    node->starts++;
    node->arena = mem_arena_new();
    mem_arena_fail_nth(node->arena, node->fail_allocation);
    node->fail_allocation = 0;
    node->paused_until_ns = 0;
    for (unsigned i = 0; i < node->n_shards; i++) {
        env_begin(node, i);
    }
    sim_event_add(node->sim, node->sim->now_ns, SIM_EVENT_BOOT, fire_boot,
                  node);
    sim_net_retry(node->sim);
}

void sim_node_restart(struct sim_node *node)
{
    sim_node_start(node, node->boot, node->boot_arg);
}

struct call {
    void (*fn)(struct env *env, void *arg);
    struct env *env;
    void *arg;
};

static void call_fn(void *ctx)
{
    struct call *call = ctx;
    call->fn(call->env, call->arg);
}

void sim_node_call(struct sim_node *node, unsigned shard,
                   void (*fn)(struct env *env, void *arg), void *arg)
{
    struct call call = {fn, sim_env(node, shard), arg};
    ASSERT(call.env != NULL);
    sim_run_in(node->envs[shard], call_fn, &call, true);
}

void sim_node_fail_nth_allocation(struct sim_node *node, uint64_t n)
{
    node->fail_allocation = 0;
    if (node->arena != NULL) {
        mem_arena_fail_nth(node->arena, n);
    } else {
        node->fail_allocation = n;
    }
}

uint64_t sim_node_allocations(const struct sim_node *node)
{
    return node->arena == NULL ? 0 : mem_arena_allocations(node->arena);
}

size_t sim_node_bytes(const struct sim_node *node)
{
    return node->arena == NULL ? 0 : mem_arena_bytes(node->arena);
}

void sim_node_set_wall_offset_ms(struct sim_node *node, int64_t offset_ms)
{
    node->wall_offset_ms = offset_ms;
}

void sim_node_pause(struct sim_node *node, uint64_t until_ns)
{
    node->paused_until_ns = until_ns;
}

void sim_on_fatal(struct sim *sim,
                  void (*cb)(void *arg, struct sim_node *node,
                             const char *line),
                  void *arg)
{
    sim->on_fatal = cb;
    sim->on_fatal_arg = arg;
}

void sim_on_event(struct sim *sim, void (*cb)(void *arg, struct sim_node *node),
                  void *arg)
{
    sim->on_event = cb;
    sim->on_event_arg = arg;
}

void sim_crash_now(struct sim_node *node, const struct sim_crash_point *point)
{
    struct sim *sim = node->sim;
    ASSERT(sim->current != NULL && sim->current->node == node);
    sim_disk_cut(node->disk, point);
    sim->crash_point = point;
    longjmp(sim->fatal_jump, 1);
}

/* Works that wait for the log's thread; the running ones are in node->jobs. */
static void jobs_free(struct sim_node *node, struct sim_env *env)
{
    while (env->log_first != NULL) {
        struct sim_job *job = env->log_first;
        bool running = false;
        for (struct sim_job *j = node->jobs; j != NULL; j = j->running) {
            running = running || j == job;
        }
        env->log_first = job->next;
        if (!running) {
            mem_free(job);
        }
    }
}

static void node_end(struct sim_node *node, enum sim_crash how)
{
    static const char *const names[] = {"kill",   "drop-all", "keep-all",
                                        "random", "torn",     "subset"};
    struct sim *sim = node->sim;
    ASSERT(node->up && sim->current == NULL);
    sim_note(sim, "node %s ends: %s", node->name, names[how]);
    node->host_up = how == SIM_KILL || prng_chance(&sim->prng, 1, 2);
    sim_disk_crash(node->disk, how);
    for (unsigned i = 0; i < node->n_shards; i++) {
        jobs_free(node, node->envs[i]);
    }
    while (node->jobs != NULL) {
        struct sim_job *job = node->jobs;
        node->jobs = job->running;
        mem_free(job);
    }
    node->up = false;
    sim_net_node_gone(node);
    for (unsigned i = 0; i < node->n_shards; i++) {
        env_base_free(&node->envs[i]->base);
        mem_free(node->envs[i]);
        node->envs[i] = NULL;
    }
    if (sim->crash_point == NULL) { /* else this process ends soon */
        mem_arena_drop(node->arena);
    }
    node->arena = NULL;
}

void sim_node_crash(struct sim_node *node, enum sim_crash how)
{
    if (!node->up) {
        return;
    }
    struct sim *sim = node->sim;
    if (sim->current == NULL) {
        node_end(node, how);
    } else {
        ASSERT(sim->current->node == node); /* others: from sim_at */
        node->crash_wanted = true;
        node->crash_how = how;
    }
}

/* ---- the world ----------------------------------------------------------- */
/* Memory is exhausted: a process would end. */
static struct sim *memory_sim;
static void on_exhausted(size_t size)
{
    struct sim *sim = memory_sim;
    if (sim != NULL && sim->current != NULL) {
        snprintf(sim->fatal_line, sizeof sim->fatal_line,
                 "out of memory: %zu bytes could not be allocated", size);
        longjmp(sim->fatal_jump, 1);
    }
}

struct sim *sim_new(uint64_t seed)
{
    struct sim *sim = sim_zalloc(sizeof *sim);
    sim->seed = seed;
    sim->now_ns = SIM_EPOCH_NS;
    prng_seed(&sim->prng, seed);
    prng_seed(&sim->net_prng, prng_next(&sim->prng));
    prng_seed(&sim->disk_prng, prng_next(&sim->prng));
    prng_seed(&sim->test_prng, prng_next(&sim->prng));
    sim_net_delay(sim, NULL, NULL, 50 * SIM_US, 200 * SIM_US);
    log_set_sink(on_log, sim);
    assert_set_hook(on_assert, sim);
    memory_sim = sim;
    mem_set_exhausted_hook(on_exhausted);
    return sim;
}

static void event_free(struct sim_event *event, bool fired)
{
    if (!fired && event->drop != NULL) {
        event->drop(event);
    }
    event->arg = event->sim->free_events;
    event->sim->free_events = event;
}

void sim_free(struct sim *sim)
{
    for (unsigned i = 0; i < sim->n_nodes; i++) {
        if (sim->nodes[i]->up) {
            node_end(sim->nodes[i], SIM_KILL);
        }
    }
    while (sim->n_heap > 0) {
        event_free(heap_pop(sim), false);
    }
    while (sim->free_events != NULL) {
        struct sim_event *event = sim->free_events;
        sim->free_events = event->arg;
        mem_free(event);
    }
    sim_net_free(sim);
    for (unsigned i = 0; i < sim->n_nodes; i++) {
        sim_disk_free(sim->nodes[i]->disk);
        mem_free(sim->nodes[i]->name);
        mem_free(sim->nodes[i]);
    }
    for (int i = 0; i < SIM_TRACE_LINES; i++) {
        mem_free(sim->trace[i]);
    }
    log_set_sink(NULL, NULL);
    assert_set_hook(NULL, NULL);
    memory_sim = NULL;
    mem_set_exhausted_hook(NULL);
    mem_free(sim->heap);
    mem_free(sim);
}

uint64_t sim_seed(const struct sim *sim)
{
    return sim->seed;
}

uint64_t sim_now_ns(const struct sim *sim)
{
    return sim->now_ns;
}

uint64_t sim_events(const struct sim *sim)
{
    return sim->n_events;
}

uint64_t sim_hash(const struct sim *sim)
{
    return sim->hash;
}

struct prng *sim_prng(struct sim *sim)
{
    return &sim->test_prng;
}

void sim_set_verbose(struct sim *sim, bool verbose)
{
    sim->verbose = verbose;
}

/* Whether the event is to be fired now; a paused node's is put off. */
static bool event_admit(struct sim *sim, struct sim_event *event)
{
    struct sim_node *node = event->node;
    if (node == NULL) {
        return true;
    }
    if (event->incarnation != 0 &&
        (!node->up || event->incarnation != node->incarnation)) {
        event_free(event, false);
        return false;
    }
    if (node->up && node->paused_until_ns > event->time_ns &&
        event->kind != SIM_EVENT_JOB_START) {
        event->time_ns = node->paused_until_ns;
        event->number = ++sim->next_number;
        if (event->kind == SIM_EVENT_TIMER) {
            struct sim_env *env = event->arg;
            env->timer_at_ns = event->time_ns;
        }
        heap_push(sim, event);
        return false;
    }
    return true;
}

bool sim_step(struct sim *sim)
{
    while (sim->n_heap > 0) {
        struct sim_event *event = heap_pop(sim);
        sim->now_ns = event->time_ns;
        if (!event_admit(sim, event)) {
            continue;
        }
        sim->n_events++;
        sim_hash_add(sim, event->number);
        sim_hash_add(sim, event->time_ns);
        sim_hash_add(sim, (uint64_t)event->kind << 32 |
                              (event->node == NULL ? 0 : event->node->id + 1));
        event->fire(event);
        if (sim->on_event != NULL) {
            sim->on_event(sim->on_event_arg, event->node);
        }
        event_free(event, true);
        return true;
    }
    return false;
}

void sim_run_until(struct sim *sim, uint64_t time_ns)
{
    while (sim->n_heap > 0 && sim->heap[0]->time_ns <= time_ns) {
        sim_step(sim);
    }
    if (sim->now_ns < time_ns) {
        sim->now_ns = time_ns;
    }
}

void sim_run_for(struct sim *sim, uint64_t duration_ns)
{
    sim_run_until(sim, sim->now_ns + duration_ns);
}

bool sim_run_while_not(struct sim *sim, bool (*cond)(void *arg), void *arg,
                       uint64_t duration_ns)
{
    uint64_t until_ns = sim->now_ns + duration_ns;
    while (!cond(arg)) {
        if (sim->n_heap == 0 || sim->heap[0]->time_ns > until_ns) {
            sim_run_until(sim, until_ns);
            return cond(arg);
        }
        sim_step(sim);
    }
    return true;
}

static void fire_harness(struct sim_event *event)
{
    void (*cb)(void *arg) = *(void (**)(void *))event->arg2;
    cb(event->arg);
    mem_free(event->arg2);
}

static void drop_harness(struct sim_event *event)
{
    mem_free(event->arg2);
}

void sim_at(struct sim *sim, uint64_t time_ns, void (*cb)(void *arg), void *arg)
{
    struct sim_event *event =
        sim_event_add(sim, time_ns, SIM_EVENT_HARNESS, fire_harness, NULL);
    event->arg = arg;
    event->arg2 = sim_alloc(sizeof cb);
    event->drop = drop_harness;
    memcpy(event->arg2, &cb, sizeof cb);
}
