#include "tests/unit/crash_points.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"

#define SEEN (UINT64_C(1) << 20) /* slots of the table of states */
#define SUBSETS_MAX 3            /* all subsets of so many writes */
#define TORN 7
#define RANDOM 4
#define CHILD_SECONDS 60
#define BAD_MAX 5
#define JOBS_MAX 64
enum { CHILD_SAME = 77 };

/* A state being judged. */
struct job {
    pid_t child; /* 0: none */
    char name[160];
};

static struct {
    const struct crash_load *load;
    int load_number;
    uint64_t seed, operation;
    struct sim_node *node;
    struct crash_totals totals;
    uint64_t wanted;
    uint64_t *seen; /* shared with the children */
    bool replaying;
    uint64_t replay_operation;
    struct sim_crash_point point; /* of this child, or of the replay */
    struct job jobs[JOBS_MAX];
    int n_jobs, jobs_max;
} c;

bool crash_points_done(void)
{
    return c.totals.states >= c.wanted || c.totals.bad >= BAD_MAX;
}

/* Was this state judged before? Notes it. */
static bool seen_before(uint64_t digest)
{
    digest |= 1;
    for (uint64_t at = digest * 0x9e3779b97f4a7c15u >> 44;;
         at = (at + 1) % SEEN) {
        uint64_t is = 0;
        if (__atomic_compare_exchange_n(&c.seen[at], &is, digest, false,
                                        __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
            return false;
        }
        if (is == digest) {
            return true;
        }
    }
}

static void child_crashed(void *arg)
{
    (void)arg;
    uint64_t digest = sim_disk_digest(c.node) * 31 + c.load->promised() * 3 +
                      (uint64_t)c.load_number;
    if (!c.replaying && seen_before(digest)) {
        _exit(CHILD_SAME);
    }
    c.load->judge();
    if (c.replaying) {
        printf("this state is good\n");
        fflush(stdout);
    }
    _exit(0);
}

static void name_state(const struct sim_crash_point *p, char out[160])
{
    snprintf(out, 160, "%s %" PRIu64 " %" PRIu64 " %d %d %" PRIu64 " %" PRIu64,
             c.load->name, c.seed, c.operation, (int)p->how, p->under_way,
             p->how == SIM_SUBSET ? p->keep : p->seed, p->names);
}

static void job_ended(const struct job *job, int status)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) == CHILD_SAME) {
        c.totals.same++;
        return;
    }
    c.totals.states++;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        c.totals.bad++;
        printf("BAD crash state (%s %d): make crash-points REPLAY=\"%s\"\n",
               WIFSIGNALED(status) ? "signal" : "status",
               WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
               job->name);
    }
}

/* Waits until fewer than `n` states are being judged. */
static void jobs_wait(int n)
{
    while (c.n_jobs >= n && c.n_jobs > 0) {
        int status = 0;
        pid_t ended = waitpid(-1, &status, 0);
        ASSERT(ended > 0);
        for (int k = 0; k < JOBS_MAX; k++) {
            if (c.jobs[k].child == ended) {
                c.jobs[k].child = 0;
                c.n_jobs--;
                job_ended(&c.jobs[k], status);
            }
        }
    }
}

static void try_state(struct sim_crash_point p)
{
    struct job *job = c.jobs;
    jobs_wait(c.jobs_max);
    if (crash_points_done()) {
        return;
    }
    while (job->child != 0) {
        job++;
    }
    name_state(&p, job->name);
    fflush(stdout);
    fflush(stderr);
    pid_t child = fork();
    ASSERT(child >= 0);
    if (child == 0) {
        alarm(CHILD_SECONDS);
        c.point = p;
        c.point.after = child_crashed;
        sim_crash_now(c.node, &c.point);
    }
    job->child = child;
    c.n_jobs++;
}

/* Every fate of `data` un-synced writes and `names` un-synced names. */
static void try_fates(bool under_way, uint64_t data, uint64_t names)
{
    uint64_t subsets = data <= SUBSETS_MAX ? UINT64_C(1) << data : 0;
    struct sim_crash_point p = {.under_way = under_way, .how = SIM_KILL};
    try_state(p);
    p.how = SIM_DROP_ALL;
    try_state(p);
    if (data + names == 0) {
        return;
    }
    p.how = SIM_KEEP_ALL;
    try_state(p);
    p.how = SIM_SUBSET;
    for (p.keep = 0; p.keep < subsets; p.keep++) {
        for (p.names = 0; p.names <= names && p.names < 3; p.names++) {
            try_state(p);
        }
    }
    for (uint64_t k = 0; subsets == 0 && k < data && k < 8; k++) {
        p.names = (k + c.operation) % (names + 1);
        p.keep = UINT64_C(1) << k;
        try_state(p); /* one survived */
        p.keep = ~p.keep;
        try_state(p); /* one did not */
    }
    p.names = 0;
    p.keep = 0;
    for (uint64_t k = 0; k < TORN + RANDOM && data > 0; k++) {
        p.how = k < TORN ? SIM_TORN : SIM_RANDOM;
        p.seed = c.operation * 100 + k;
        try_state(p);
    }
}

static void on_op(void *arg, enum sim_disk_kind kind)
{
    uint64_t data, names;
    bool durable;
    (void)arg, (void)kind;
    c.operation++;
    c.totals.operations++;
    if (c.replaying) {
        if (c.operation == c.replay_operation) {
            c.point.after = child_crashed;
            sim_crash_now(c.node, &c.point);
        }
        return;
    }
    sim_disk_journal(c.node, &data, &names, &durable);
    try_fates(false, data, names);
    if (durable) { /* else its being under way makes no difference */
        try_fates(true, data + 1, names);
    }
}

void crash_points_watch(struct sim_node *node)
{
    c.node = node;
    sim_disk_on_op(node, on_op, NULL);
}

static void begin(void)
{
    memset(&c, 0, sizeof c);
    c.seen = mmap(NULL, SEEN * sizeof *c.seen, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT(c.seen != MAP_FAILED);
    const char *jobs = getenv("JOBS");
    long n =
        jobs != NULL ? strtol(jobs, NULL, 10) : sysconf(_SC_NPROCESSORS_ONLN);
    c.jobs_max = n < 1 ? 1 : n > JOBS_MAX ? JOBS_MAX : (int)n;
}

static void run_load(const struct crash_load *load, int number, uint64_t seed)
{
    c.load = load;
    c.load_number = number;
    c.seed = seed;
    c.operation = 0;
    load->run(seed);
    jobs_wait(1);
}

struct crash_totals crash_points_run(const struct crash_load *const *loads,
                                     int n_loads, uint64_t n)
{
    begin();
    for (uint64_t seed = 1; c.totals.states < n && c.totals.bad < BAD_MAX;
         seed++) {
        for (int k = 0; k < n_loads; k++) {
            uint64_t part = (n - c.totals.states) / (uint64_t)(n_loads - k);
            c.wanted = c.totals.states + (part < 5000 ? part : 5000);
            run_load(loads[k], k, seed);
        }
    }
    munmap(c.seen, SEEN * sizeof *c.seen);
    return c.totals;
}

void crash_points_replay(const struct crash_load *const *loads, int n_loads,
                         const char *replay)
{
    char name[32];
    uint64_t seed, operation, fate, names;
    int how, under_way;
    begin();
    c.replaying = true;
    c.wanted = 1;
    ASSERT(sscanf(replay,
                  "%31s %" SCNu64 " %" SCNu64 " %d %d %" SCNu64 " %" SCNu64,
                  name, &seed, &operation, &how, &under_way, &fate,
                  &names) == 7);
    c.replay_operation = operation;
    c.point = (struct sim_crash_point){.how = (enum sim_crash)how,
                                       .under_way = under_way != 0,
                                       .seed = fate,
                                       .keep = fate,
                                       .names = names};
    if (how == SIM_SUBSET) {
        c.point.seed = 0;
    }
    for (int k = 0; k < n_loads; k++) {
        if (strcmp(loads[k]->name, name) == 0) {
            run_load(loads[k], k, seed);
        }
    }
    ASSERT(false); /* there is no such operation */
}
