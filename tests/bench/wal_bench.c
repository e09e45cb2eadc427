/* Closed loop over the write-ahead log on a real disk: GROUPS groups with K
 * entries outstanding each; what became durable is counted, settled at once
 * and appended again. Prints one line a case. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "base/assert.h"
#include "base/env_uv.h"
#include "base/mem.h"
#include "raft/wal.h"

#define GROUPS_MAX 1000
#define OUTSTANDING_MAX 8192
#define SAMPLES_MAX (1u << 22)

struct bench_case {
    uint32_t size;
    int groups, outstanding;
};
static const struct bench_case cases[] = {
    {1024, 1, 1},   {1024, 10, 1},  {1024, 100, 1},  {1024, 1000, 1},
    {1024, 100, 5}, {16384, 1, 1},  {16384, 10, 5},  {16384, 100, 1},
    {131072, 1, 1}, {131072, 1, 5}, {131072, 20, 5},
};

struct pending {
    int group;
    uint64_t index;
    uint64_t position;
    uint64_t since_ns;
};

struct bench {
    struct env *env;
    struct wal *wal;
    struct bench_case now;
    uint64_t until_ns, begin_ns;
    uint64_t next_index[GROUPS_MAX];
    struct pending pending[OUTSTANDING_MAX]; /* ring, by position */
    uint32_t head, n;
    uint64_t done;
    int refused[OUTSTANDING_MAX];
    uint32_t n_refused;
    uint8_t *payload;
    uint32_t *samples;
    uint32_t n_samples;
    struct env_timer start;
    bool stopping;
};

static struct group_id group_of(int k)
{
    struct group_id id = {.partition = k};
    id.topic.b[0] = 1;
    return id;
}

static void append(struct bench *b, int group)
{
    struct group_id id = group_of(group);
    struct iovec iov = {b->payload, b->now.size};
    if (!wal_reserve(b->wal, b->now.size, 1)) {
        b->refused[b->n_refused++] = group;
        return;
    }
    struct pending *p = &b->pending[(b->head + b->n++) % OUTSTANDING_MAX];
    p->group = group;
    p->index = b->next_index[group]++;
    p->since_ns = env_now_ns(b->env);
    p->position = wal_append_entry(b->wal, &id, (log_index){p->index},
                                   (raft_term_t){1}, ENTRY_DATA, &iov, 1, NULL);
}

static void on_closed(void *arg)
{
    struct bench *b = arg;
    env_uv_stop(b->env);
}

static void finish_if_over(struct bench *b)
{
    if (b->n + b->n_refused == 0 || !b->stopping) {
        return;
    }
    if (b->n == 0) {
        b->n_refused = 0;
    }
}

static void on_durable(void *arg, uint64_t position)
{
    struct bench *b = arg;
    uint64_t now = env_now_ns(b->env);
    static int again[OUTSTANDING_MAX];
    int n_again = 0;
    while (b->n > 0 && b->pending[b->head].position <= position) {
        struct pending p = b->pending[b->head];
        struct group_id id = group_of(p.group);
        b->head = (b->head + 1) % OUTSTANDING_MAX;
        b->n--;
        b->done++;
        if (b->n_samples < SAMPLES_MAX) {
            b->samples[b->n_samples++] = (uint32_t)(now - p.since_ns);
        }
        wal_settled(b->wal, &id, (log_index){p.index});
        again[n_again++] = p.group;
    }
    if (now >= b->until_ns && !b->stopping) {
        b->stopping = true;
    }
    for (int k = 0; k < n_again && !b->stopping; k++) {
        append(b, again[k]);
    }
    if (b->stopping && b->n == 0) {
        b->stopping = false;
        b->until_ns = UINT64_MAX;
        wal_close(b->wal, on_closed, b);
    }
    finish_if_over(b);
}

static void on_room(void *arg)
{
    struct bench *b = arg;
    uint32_t n = b->n_refused;
    static int again[OUTSTANDING_MAX];
    for (uint32_t k = 0; k < n; k++) {
        again[k] = b->refused[k];
    }
    b->n_refused = 0;
    for (uint32_t k = 0; k < n && !b->stopping; k++) {
        append(b, again[k]);
    }
}

static void on_file_begins(void *arg)
{
    (void)arg;
}
static void on_wants(void *arg, const struct group_id *group, log_index upto)
{
    (void)arg, (void)group, (void)upto;
}
static bool on_evict(void *arg, const struct group_id *group, log_index upto)
{
    (void)arg, (void)group, (void)upto;
    return true;
}

static void on_start(struct env_timer *timer)
{
    struct bench *b = timer->arg;
    b->begin_ns = env_now_ns(b->env);
    b->until_ns = b->begin_ns + 2000000000u;
    for (int k = 0; k < b->now.groups * b->now.outstanding; k++) {
        append(b, k % b->now.groups);
    }
}

static int by_value(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static double cpu_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void run_case(const char *dir, const struct bench_case *c)
{
    static struct bench b;
    struct wal_ops ops = {on_durable, on_file_begins, on_wants,
                          on_evict,   on_room,        NULL};
    memset(&b, 0, sizeof b);
    b.env = env_uv_new(NULL);
    b.now = *c;
    b.payload = mem_alloc(c->size);
    memset(b.payload, 'x', c->size);
    b.samples = mem_alloc(SAMPLES_MAX * sizeof *b.samples);
    for (int k = 0; k < GROUPS_MAX; k++) {
        b.next_index[k] = 1;
    }
    struct wal_options options = {.env = b.env,
                                  .dir = dir,
                                  .file_bytes = 64u << 20,
                                  .bytes_max = 256u << 20,
                                  .buffer_bytes_max = 16u << 20};
    if (env_dir_remove(b.env, dir) != ERR_OK) {
        fprintf(stderr, "(%s was not there)\n", dir);
    }
    uint64_t t0 = env_now_ns(b.env);
    if (wal_open(&options, &ops, &b, NULL, &b.wal) != ERR_OK) {
        fprintf(stderr, "cannot open the log in %s\n", dir);
        exit(1);
    }
    uint64_t opened = env_now_ns(b.env) - t0;
    struct wal_stats stats;
    double cpu = cpu_s();
    env_timer_init(b.env, &b.start, on_start, &b);
    env_timer_start(&b.start, 1);
    struct wal *wal = b.wal;
    (void)wal;
    env_uv_run(b.env);
    double seconds = 2.0;
    cpu = cpu_s() - cpu;
    (void)stats;
    qsort(b.samples, b.n_samples, sizeof *b.samples, by_value);
    printf(
        "%6u B x %4d groups x %d: %9.0f entries/s %7.1f MB/s  p50 %6u us "
        "p99 %6u us  cpu %3.0f %%  open %.1f ms\n",
        c->size, c->groups, c->outstanding, (double)b.done / seconds,
        (double)b.done * c->size / seconds / 1e6,
        b.n_samples > 0 ? b.samples[b.n_samples / 2] / 1000 : 0,
        b.n_samples > 0 ? b.samples[b.n_samples * 99ull / 100] / 1000 : 0,
        cpu / seconds * 100, (double)opened / 1e6);
    fflush(stdout);
    mem_free(b.payload);
    mem_free(b.samples);
    env_uv_free(b.env);
}

int main(int argc, char **argv)
{
    const char *dir = argc > 1 ? argv[1] : "build/wal-bench";
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        if (argc > 2 && (size_t)atoi(argv[2]) != k) {
            continue;
        }
        run_case(dir, &cases[k]);
    }
    return 0;
}
