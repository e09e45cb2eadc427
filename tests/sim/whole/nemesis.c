/* Faults, from the world's own random numbers, one after the other. What was
 * acknowledged must survive all of them: synced bytes are lost, or read wrong,
 * on one broker at most. */
#include <stdio.h>
#include <string.h>

#include "base/limits.h"
#include "tests/sim/whole/impl.h"

static struct whole_broker *any_broker(struct world *w)
{
    return &w->brokers[prng_below(&w->prng, (uint64_t)w->plan.n_brokers)];
}

/* Brokers and, now and then, a client. */
static struct sim_node *any_node(struct world *w)
{
    uint64_t n = (uint64_t)actors(w);
    if (n == 0 || prng_chance(&w->prng, 3, 4)) {
        return any_broker(w)->node;
    }
    n = prng_below(&w->prng, n);
    return actor_node(w, (int)n);
}

static enum sim_crash any_crash(struct world *w)
{
    static const enum sim_crash kinds[] = {SIM_KILL, SIM_DROP_ALL, SIM_KEEP_ALL,
                                           SIM_RANDOM, SIM_TORN};
    return kinds[prng_below(&w->prng, 5)];
}

static uint64_t some_ns(struct world *w, uint64_t low_ms, uint64_t high_ms)
{
    return prng_between(&w->prng, low_ms, high_ms) * SIM_MS;
}

static bool crash_one(struct world *w, struct whole_broker *b)
{
    if (!sim_node_up(b->node)) {
        return false;
    }
    broker_crash(b, any_crash(w));
    broker_restart_later(b, prng_chance(&w->prng, 1, 6)
                                ? some_ns(w, 5000, 20000)
                                : some_ns(w, 10, 4000));
    return true;
}

/* Instead of now, when a broker compacts next. */
static bool ambush(struct world *w)
{
    if (w->plan.keyed.n_partitions == 0 || !prng_chance(&w->prng, 1, 2)) {
        return false;
    }
    w->storm.ambush = true;
    return true;
}

/* Now and then it stays away until its peers have compacted, and lost from
 * memory, what it lacks. */
static void ambushed(void *arg)
{
    struct whole_broker *b = arg;
    struct world *w = b->world;
    if (!sim_node_up(b->node)) {
        return;
    }
    w->storm.struck_ns = sim_now_ns(w->sim);
    w->result.faults++;
    broker_crash(b, any_crash(w));
    broker_restart_later(b, prng_chance(&w->prng, 1, 2)
                                ? some_ns(w, 10000, 40000)
                                : some_ns(w, 10, 4000));
}

/* Somewhere within it: its works take some 100 us each. As long as what a storm
 * does is not over. */
void nemesis_ambush(struct world *w, struct sim_node *node)
{
    uint64_t now = sim_now_ns(w->sim);
    if (!w->storm.ambush || w->phase != PHASE_CHAOS || now >= w->storm.to_ns) {
        w->storm.ambush = false;
        return;
    }
    for (int i = 0; i < w->plan.n_brokers; i++) {
        struct whole_broker *b = &w->brokers[i];
        if (b->node == node && sim_node_up(node) && probe_compacts(b)) {
            w->storm.ambush = false;
            sim_at(w->sim, now + prng_below(&w->prng, 10 * SIM_MS), ambushed,
                   b);
        }
    }
}

static bool reshard(struct world *w, struct whole_broker *b)
{
    if (!crash_one(w, b)) {
        return false;
    }
    b->n_shards = (unsigned)prng_between(&w->prng, 1, 3);
    return true;
}

static bool crash_all(struct world *w)
{
    enum sim_crash how = any_crash(w);
    if (!prng_chance(&w->prng, 1, 3)) {
        return false;
    }
    for (int i = 0; i < w->plan.n_brokers; i++) {
        struct whole_broker *b = &w->brokers[i];
        broker_crash(b, prng_chance(&w->prng, 1, 2) ? how : any_crash(w));
        broker_restart_later(b, some_ns(w, 10, 3000));
    }
    return true;
}

static void isolate(struct world *w, struct whole_broker *b)
{
    for (int i = 0; i < w->plan.n_brokers; i++) {
        if (i != b->at) {
            sim_net_cut_both(w->sim, b->node, w->brokers[i].node);
        }
    }
}

static void calm_network(void *arg)
{
    struct world *w = arg;
    sim_net_delay(w->sim, NULL, NULL, 50 * SIM_US, w->plan.delay_ns);
}

static void calm_disk(void *arg)
{
    struct whole_broker *b = arg;
    sim_disk_latency(b->node, 100 * SIM_US, 50 * SIM_US, 500 * SIM_US);
}

static void empty_disk(void *arg)
{
    sim_disk_capacity(((struct whole_broker *)arg)->node, 0);
}

static void add_size(void *arg, const char *path, uint64_t size)
{
    (void)path;
    *(uint64_t *)arg += size;
}

static void fill_disk(struct world *w, struct whole_broker *b)
{
    uint64_t used = 0;
    sim_disk_list(b->node, add_size, &used);
    b->may_fail = true;
    sim_disk_capacity(b->node, used + prng_between(&w->prng, 0, 1 << 20));
    sim_at(w->sim, sim_now_ns(w->sim) + some_ns(w, 500, 10000), empty_disk, b);
}

static void fail_disk(struct world *w, struct whole_broker *b)
{
    static const int kinds[] = {SIM_DISK_WRITE, SIM_DISK_SYNC,
                                SIM_DISK_WRITE | SIM_DISK_SYNC, SIM_DISK_NAME};
    int kind = kinds[prng_below(&w->prng, 4)];
    b->may_fail = true;
    sim_disk_fail_nth(b->node, kind, prng_between(&w->prng, 1, 50));
}

/* ---- rot ----------------------------------------------------------------- */
struct rot_choice {
    struct world *w;
    struct whole_broker *b;
    unsigned n; /* files seen that may be taken */
    char path[LIMIT_PATH];
    uint64_t size;
};

/* The number of a log's file; 0: it is none. */
static unsigned wal_number(const char *path)
{
    const char *name = strstr(path, "/wal-");
    return name == NULL ? 0 : (unsigned)strtoul(name + 5, NULL, 10);
}

struct wal_newer {
    const char *path;
    unsigned n; /* files of the same log that are newer */
};

static void count_newer(void *arg, const char *path, uint64_t size)
{
    struct wal_newer *c = arg;
    size_t dir = (size_t)(strrchr(c->path, '/') - c->path);
    (void)size;
    c->n += strncmp(path, c->path, dir) == 0 &&
            wal_number(path) > wal_number(c->path);
}

/* Each file that may be taken is the one with the same chance. */
static void choose(struct rot_choice *c, const char *path, uint64_t size)
{
    if (size > 0 && prng_below(&c->w->prng, ++c->n) == 0) {
        snprintf(c->path, sizeof c->path, "%s", path);
        c->size = size;
    }
}

static void choose_partitions(void *arg, const char *path, uint64_t size)
{
    if (strstr(path, "/partitions/") != NULL) {
        choose(arg, path, size);
    }
}

static void choose_keyed(void *arg, const char *path, uint64_t size)
{
    char dir[32];
    snprintf(dir, sizeof dir, "/t%d-", KEYED_TOPIC);
    if (strstr(path, "/partitions/") != NULL && strstr(path, dir) != NULL) {
        choose(arg, path, size);
    }
}

/* Of the log's end nothing may be known yet that was written after its sync:
 * only what is before can be told from a flush that was torn. The newest file
 * may be one that was made in advance. */
static void choose_log(void *arg, const char *path, uint64_t size)
{
    struct rot_choice *c = arg;
    struct wal_newer newer = {.path = path};
    if (wal_number(path) > 0) {
        sim_disk_list(c->b->node, count_newer, &newer);
    }
    if (strstr(path, "/checkpoint-") != NULL || newer.n >= 2) {
        choose(c, path, size);
    }
}

static bool rot_partitions(struct world *w, struct whole_broker *b)
{
    struct rot_choice c = {.w = w, .b = b};
    bool keyed = w->plan.keyed.n_partitions > 0 && prng_chance(&w->prng, 1, 2);
    sim_disk_list(b->node, keyed ? choose_keyed : choose_partitions, &c);
    if (c.n == 0) {
        return false;
    }
    if (prng_chance(&w->prng, 1, 2)) { /* once; counted when it is read */
        sim_disk_rot_read(b->node, c.path, prng_between(&w->prng, 1, 5));
        return false;
    }
    uint64_t at = prng_below(&w->prng, c.size);
    unsigned bit = (unsigned)prng_below(&w->prng, 8);
    sim_note(w->sim, "b%d: byte %llu of %s rots", b->at, (unsigned long long)at,
             c.path);
    w->result.rot++;
    return sim_disk_flip(b->node, c.path, at, bit);
}

/* Its next start reads one of its own files wrong, once. */
static bool rot_log(struct world *w, struct whole_broker *b)
{
    struct rot_choice c = {.w = w, .b = b};
    if (!crash_one(w, b)) {
        return false;
    }
    sim_disk_list(b->node, choose_log, &c);
    if (c.n > 0) {
        sim_note(w->sim, "b%d: a read of %s will be wrong", b->at, c.path);
        sim_disk_rot_read(b->node, c.path, prng_between(&w->prng, 1, 3));
        b->doubted = sim_node_starts(b->node) + 1;
    }
    return true;
}

static bool rot(struct world *w)
{
    struct whole_broker *b = &w->brokers[w->plan.rotten];
    return prng_chance(&w->prng, 2, 3) ? rot_partitions(w, b) : rot_log(w, b);
}

bool nemesis_rots(const struct world *w, int broker)
{
    return w->plan.faults & UINT32_C(1) << FAULT_ROT &&
           broker == w->plan.rotten;
}

/* False: it had no effect. */
static bool strike_with(struct world *w, enum fault_kind kind)
{
    struct whole_broker *b = any_broker(w);
    struct sim_node *other = NULL;
    uint64_t now = sim_now_ns(w->sim);
    /* drawn one after the other: compilers choose the order of arguments */
    uint64_t some[3];
    switch (kind) {
        case FAULT_CRASH:
            return !ambush(w) && crash_one(w, b);
        case FAULT_CRASH_ALL:
            return crash_all(w);
        case FAULT_CUT_ONE:
            other = any_node(w);
            sim_net_cut(w->sim, other, b->node);
            return other != b->node;
        case FAULT_CUT_BOTH:
            other = any_node(w);
            sim_net_cut_both(w->sim, other, b->node);
            return other != b->node;
        case FAULT_ISOLATE:
            isolate(w, b);
            return true;
        case FAULT_RESET:
            other = any_node(w);
            if (sim_net_connections(w->sim, other, b->node) == 0) {
                return false;
            }
            sim_net_reset(w->sim, other, b->node);
            return true;
        case FAULT_DELAY:
            some[0] = some_ns(w, 0, 30);
            some[1] = some_ns(w, 10, 100);
            sim_net_delay(w->sim, NULL, NULL, some[0], some[1]);
            sim_at(w->sim, now + some_ns(w, 100, 10000), calm_network, w);
            return true;
        case FAULT_PAUSE:
            if (!sim_node_up(b->node)) {
                return false;
            }
            sim_node_pause(b->node, now + some_ns(w, 50, 8000));
            return true;
        case FAULT_STALL:
            sim_disk_stall(b->node, now + some_ns(w, 10, 5000));
            return true;
        case FAULT_SLOW_DISK:
            some[0] = some_ns(w, 1, 20);
            some[1] = some_ns(w, 1, 20);
            some[2] = some_ns(w, 1, 100);
            sim_disk_latency(b->node, some[0], some[1], some[2]);
            sim_at(w->sim, now + some_ns(w, 1000, 20000), calm_disk, b);
            return true;
        case FAULT_DISK_FULL:
            fill_disk(w, b);
            return true;
        case FAULT_DISK_ERROR:
            if (!sim_node_up(b->node)) {
                return false;
            }
            fail_disk(w, b);
            return true;
        case FAULT_CLOCK:
            sim_node_set_wall_offset_ms(
                b->node, (int64_t)prng_between(&w->prng, 0, 7200000) - 3600000);
            return true;
        case FAULT_STOP:
            return broker_stop_cleanly(b);
        case FAULT_RESHARD:
            return reshard(w, b);
        case FAULT_ROT:
            return rot(w);
        case FAULT_HEAL:
            sim_net_heal_all(w->sim);
            return false; /* no fault */
        case FAULT_KINDS:
            return false;
    }
    return false;
}

/* ---- storms -------------------------------------------------------------- */
#define LOAD_AFTER_NS (15 * SIM_S) /* at most, behind the last fault */

static void storm_begin(void *arg);

/* Each storm has its share of the time of chaos; one that took longer makes
 * the next one follow at once. */
static void storm_next(struct world *w)
{
    uint64_t share = w->plan.chaos_ns / (uint64_t)w->plan.n_storms;
    uint64_t now = sim_now_ns(w->sim);
    uint64_t at = w->storm.began_ns + (uint64_t)w->storm.n * share +
                  prng_below(&w->prng, share / 4 + 1);
    if (w->storm.n < w->plan.n_storms) {
        sim_at(w->sim, at > now ? at : now + SIM_S, storm_begin, w);
    }
}

/* Of those that the seed has. */
static enum fault_kind any_fault(struct world *w)
{
    int kinds[FAULT_KINDS];
    uint64_t n = 0;
    for (int k = 0; k < FAULT_KINDS; k++) {
        if (w->plan.faults & UINT32_C(1) << k) {
            kinds[n++] = k;
        }
    }
    return (enum fault_kind)kinds[prng_below(&w->prng, n)];
}

static void strike(void *arg)
{
    struct world *w = arg;
    uint64_t now = sim_now_ns(w->sim);
    if (w->phase != PHASE_CHAOS) {
        return;
    }
    w->storm.struck_ns = now;
    if (w->storm.faults_left == 0) {
        if (w->plan.heals_after) {
            sim_net_heal_all(w->sim);
        }
        w->storm.to_ns = now + LOAD_AFTER_NS;
        storm_next(w);
        return;
    }
    enum fault_kind kind = any_fault(w);
    sim_note(w->sim, "fault %d", (int)kind);
    if (strike_with(w, kind)) {
        w->storm.faults_left--;
        w->result.faults++;
    }
    if (prng_chance(&w->prng, 1, 4)) {
        sim_net_heal_all(w->sim);
    }
    sim_at(w->sim, now + some_ns(w, w->plan.fault_ms_min, w->plan.fault_ms_max),
           strike, w);
}

static void storm_begin(void *arg)
{
    struct world *w = arg;
    w->storm.n++;
    w->storm.faults_left = w->plan.storm_faults;
    w->storm.to_ns = UINT64_MAX;
    strike(w);
}

bool nemesis_load(const struct world *w)
{
    uint64_t share =
        w->plan.n_records * (uint64_t)w->storm.n / (uint64_t)w->plan.n_storms;
    return w->phase == PHASE_CHAOS && sim_now_ns(w->sim) < w->storm.to_ns &&
           w->storm.n_records < share;
}

/* Longer than any fault lasts, a broker that comes back included. */
#define CALM_AFTER_NS (45 * SIM_S)

bool nemesis_calm(struct world *w)
{
    if (w->phase == PHASE_CHAOS && w->storm.n > 0 &&
        (w->storm.faults_left > 0 || !w->plan.heals_after ||
         sim_now_ns(w->sim) < w->storm.struck_ns + CALM_AFTER_NS)) {
        return false;
    }
    for (int i = 0; i < w->plan.n_brokers; i++) {
        if (w->brokers[i].may_fail || nemesis_rots(w, i)) {
            return false;
        }
    }
    return w->phase != PHASE_LIVENESS && brokers_ready(w);
}

void nemesis_start(struct world *w)
{
    w->storm.began_ns = sim_now_ns(w->sim);
    storm_next(w);
}

/* From here on everything works. */
void nemesis_heal(struct world *w)
{
    sim_note(w->sim, "healing");
    sim_net_heal_all(w->sim);
    calm_network(w);
    for (int i = 0; i < w->plan.n_brokers; i++) {
        struct whole_broker *b = &w->brokers[i];
        sim_disk_fail_nth(b->node, 15, 0);
        sim_disk_rot_end(b->node);
        sim_disk_capacity(b->node, 0);
        calm_disk(b);
        sim_node_set_wall_offset_ms(b->node, 0);
        broker_restart_now(b);
    }
}
