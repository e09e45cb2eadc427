/* Swarm: what a seed decides about cluster, load and faults. Each seed draws
 * its own sizes and its own set of faults, so that rare things meet. */
#include <stdio.h>
#include <string.h>

#include "tests/sim/whole/impl.h"

static const char *const fault_names[FAULT_KINDS] = {
    "crash", "crash-all", "cut-one", "cut-both",  "isolate",   "reset",
    "delay", "pause",     "stall",   "slow-disk", "disk-full", "disk-error",
    "clock", "stop",      "heal",    "reshard",   "rot",
};

static void add(struct plan *p, const char *key, uint64_t value)
{
    size_t n = strlen(p->properties);
    snprintf(p->properties + n, sizeof p->properties - n, "%s=%llu\n", key,
             (unsigned long long)value);
}

static uint64_t one_of(struct prng *rng, const uint64_t *values, int n)
{
    return values[prng_below(rng, (uint64_t)n)];
}
#define ONE_OF(rng, ...)                         \
    one_of(rng, (const uint64_t[]){__VA_ARGS__}, \
           (int)(sizeof((uint64_t[]){__VA_ARGS__}) / 8))

/* Small sizes, so that files and buffers go round within minutes. */
static void draw_properties(struct plan *p, struct prng *rng)
{
    uint64_t file = ONE_OF(rng, 1, 1, 2, 4);
    add(p, "wal.file.bytes", file << 20);
    add(p, "wal.bytes.max", (file * ONE_OF(rng, 4, 6, 16)) << 20);
    uint64_t buffer = ONE_OF(rng, 4, 8, 16) << 20;
    add(p, "log.buffer.bytes", buffer);
    p->memory_max = p->n_shards * (buffer + (48 << 20));
    add(p, "settle.interval.ms", ONE_OF(rng, 100, 500, 2000));
    add(p, "settle.bytes", ONE_OF(rng, 4096, 16384, 65536));
    uint64_t batch = (uint64_t)p->records_max * (uint64_t)(p->value_max + 80);
    uint64_t segment = ONE_OF(rng, 16384, 65536, 1 << 20);
    add(p, "log.segment.bytes", segment > batch ? segment : batch + 1000);
    add(p, "log.index.interval.bytes", ONE_OF(rng, 1, 4096));
    add(p, "offsets.topic.num.partitions", ONE_OF(rng, 1, 2, 5));
    add(p, "group.initial.rebalance.delay.ms", ONE_OF(rng, 0, 300, 3000));
    add(p, "group.min.session.timeout.ms", 1000);
    add(p, "log.scrub.max.bytes.per.second", ONE_OF(rng, 5000, 20000, 100000));
    add(p, "open.files.max", ONE_OF(rng, 16, 64, 1024));
    add(p, "auto.create.topics.enable", 0);
    char *zero = strstr(p->properties, "enable=0");
    memcpy(zero + 7, "false\n", 7);
}

static void draw_topics(struct plan *p, struct prng *rng)
{
    p->n_topics = (int)prng_between(rng, 1, 3);
    for (int i = 0; i < p->n_topics; i++) {
        p->n_partitions[i] = (int)prng_between(rng, 1, 6);
        p->replication[i] = prng_chance(rng, 1, 8) ? 1 : 3;
        if (p->n_brokers >= 5 && prng_chance(rng, 1, 3)) {
            p->replication[i] = 5;
        }
    }
}

/* What time costs grows with the connections between shards of brokers, which
 * are never silent: many of them, and it is shorter. */
static uint64_t draw_chaos_s(const struct plan *p, struct prng *rng)
{
    int links = p->n_brokers * (p->n_brokers - 1) * (int)p->n_shards;
    uint64_t s = links <= 6    ? 1300
                 : links <= 12 ? 900
                 : links <= 20 ? 700
                 : links <= 60 ? 400
                               : 250;
    return s * ONE_OF(rng, 80, 100, 120) / 100;
}

static void draw_faults(struct plan *p, struct prng *rng)
{
    static const uint64_t paces[] = {300, 1000, 3000, 6000};
    uint64_t chaos_s = draw_chaos_s(p, rng);
    p->chaos_ns = chaos_s * SIM_S;
    for (int k = 0; k <= FAULT_HEAL; k++) {
        if (prng_chance(rng, 1, 2)) {
            p->faults |= UINT32_C(1) << k;
        }
    }
    if (prng_chance(rng, 3, 4)) {
        p->faults |= UINT32_C(1) << FAULT_CRASH;
    }
    p->faults |= UINT32_C(1) << FAULT_HEAL;
    p->fault_ms_max = one_of(rng, paces, 4);
    if (p->fault_ms_max > chaos_s * 1000 / 150) {
        p->fault_ms_max = chaos_s * 1000 / 150; /* all must find their time */
    }
    p->fault_ms_min = p->fault_ms_max / 10;
    p->storm_faults = (int)ONE_OF(rng, 3, 8, 20);
    p->n_storms = (int)prng_between(rng, 100, 160) / p->storm_faults + 1;
    p->heals_after = prng_chance(rng, 2, 3);
}

/* One broker's disk rots: a minority of the replicas of every record, if none
 * has a single one. */
static void draw_rot(struct plan *p)
{
    p->faults |= UINT32_C(1) << FAULT_ROT;
    for (int i = 0; i < p->n_topics; i++) {
        p->replication[i] = p->replication[i] < 3 ? 3 : p->replication[i];
    }
}

/* Numbers of their own: what else a seed decides does not change with them. */
static void draw_actors(struct plan *p, uint64_t seed)
{
    struct prng rng;
    prng_seed(&rng, seed * 7927 + 5);
    p->n_groups = (int)ONE_OF(&rng, 0, 1, 1, 2);
    p->n_members = (int)prng_between(&rng, 1, GROUP_MEMBERS_MAX);
    p->n_admins = (int)ONE_OF(&rng, 0, 1, 1, 2);
    if (prng_chance(&rng, 1, 3)) {
        p->faults |= UINT32_C(1) << FAULT_RESHARD;
        p->memory_max = p->memory_max / p->n_shards * 3;
    }
    p->rotten = (int)prng_below(&rng, (uint64_t)p->n_brokers);
    if (prng_chance(&rng, 1, 3)) {
        draw_rot(p);
    }
}

/* One seed in three has a compacted topic. Numbers of its own, too. */
static void draw_keyed(struct plan *p, uint64_t seed)
{
    static const char *const ratios[] = {"0.01", "0.3", "0.5"};
    struct keyed_plan *k = &p->keyed;
    struct prng rng;
    prng_seed(&rng, seed * 7933 + 7);
    if (!prng_chance(&rng, 1, 3)) {
        return;
    }
    k->n_partitions = (int)prng_between(&rng, 1, KEYED_PARTITIONS_MAX);
    k->replication = p->n_brokers >= 5 && prng_chance(&rng, 1, 3) ? 5 : 3;
    k->n_writers = (int)prng_between(&rng, 1, 2);
    k->n_readers = (int)prng_between(&rng, 1, KEY_READERS_MAX);
    k->n_keys = (int)ONE_OF(&rng, 3, 20, KEYS_MAX);
    k->deletes = prng_chance(&rng, 1, 4);
    k->retention_ms = (int64_t)ONE_OF(&rng, 30000, 300000);
    k->tombstone_ms =
        (int64_t)ONE_OF(&rng, 0, 0, 2000, 30000, 180000, 86400000, 86400000);
    k->lag_ms = (int64_t)ONE_OF(&rng, 0, 0, 5000, 60000);
    k->segment_bytes = (int64_t)ONE_OF(&rng, 4096, 4096, 8192, 32768);
    k->segment_ms = (int64_t)ONE_OF(&rng, 5000, 30000, 604800000);
    k->dirty_ratio = ratios[prng_below(&rng, 3)];
    /* every replica is read */
    size_t n = strlen(p->properties);
    snprintf(p->properties + n, sizeof p->properties - n,
             "replica.selector.class=org.apache.kafka.common.replica."
             "RackAwareReplicaSelector\n");
}

void plan_make(struct plan *p, const struct whole_options *o)
{
    struct prng rng;
    memset(p, 0, sizeof *p);
    prng_seed(&rng, o->seed * 7919 + 3);
    p->n_brokers = (int)ONE_OF(&rng, 3, 3, 3, 3, 4, 5, 5);
    if (p->n_brokers == 5 && o->seed % 2 == 1) {
        p->n_brokers += 1 + (int)(o->seed / 2 % 2);
    }
    p->n_shards = (unsigned)ONE_OF(&rng, 1, 1, 2, 3);
    draw_topics(p, &rng);
    p->n_idempotent = (int)prng_between(&rng, 1, 3);
    p->n_plain = (int)prng_between(&rng, 0, 1);
    p->n_consumers = (int)prng_between(&rng, 1, 3);
    p->records_max = (int)ONE_OF(&rng, 1, 5, 20, 50);
    p->value_max = (int)ONE_OF(&rng, 40, 1000, 20000);
    if (p->records_max * p->value_max > 200000) {
        p->value_max = 200000 / p->records_max; /* of one batch */
    }
    p->produce_ms = ONE_OF(&rng, 20, 100, 500);
    p->n_records = ONE_OF(&rng, 3000, 6000, 12000);
    p->drizzle = prng_chance(&rng, 1, 2);
    p->in_flight = (int)ONE_OF(&rng, 1, 3, 5, 5);
    p->fetch_ms = ONE_OF(&rng, 300, 800, 1500);
    p->delay_ns = ONE_OF(&rng, 100, 200, 1000, 5000) * SIM_US;
    p->request_ms = (uint32_t)ONE_OF(&rng, 2000, 5000, 30000);
    draw_faults(p, &rng);
    draw_properties(p, &rng);
    draw_actors(p, o->seed);
    if (!o->no_keys) {
        draw_keyed(p, o->seed);
    }
    p->faults &= ~o->faults_off;
    p->n_groups = o->no_groups ? 0 : p->n_groups;
    p->n_admins = o->no_admins ? 0 : p->n_admins;
    /* Cut short, it is the beginning of the whole seed, event for event. */
    p->stop_ns = p->chaos_ns;
    if (o->chaos_s_max != 0 && p->stop_ns > o->chaos_s_max * SIM_S) {
        p->stop_ns = o->chaos_s_max * SIM_S;
    }
    if (o->clients_max > 0) {
        int most = o->clients_max;
        p->n_idempotent = p->n_idempotent < most ? p->n_idempotent : most;
        p->n_plain = 0;
        p->n_consumers = p->n_consumers < most ? p->n_consumers : most;
        p->n_members = p->n_members < most ? p->n_members : most;
        p->n_admins = p->n_admins < most ? p->n_admins : most;
        struct keyed_plan *k = &p->keyed;
        k->n_writers = k->n_writers < most ? k->n_writers : most;
        k->n_readers = k->n_readers < most ? k->n_readers : most;
    }
}

int whole_fault_find(const char *name, size_t size)
{
    for (int k = 0; k < FAULT_KINDS; k++) {
        if (k != FAULT_HEAL && strlen(fault_names[k]) == size &&
            memcmp(fault_names[k], name, size) == 0) {
            return k;
        }
    }
    return -1;
}

static void keyed_print(const struct keyed_plan *k)
{
    if (k->n_partitions == 0) {
        return;
    }
    printf(
        " %s %dx%d (%d keys, %d writers, %d readers, segments of %lld B or "
        "%lld ms, ratio %s, lag %lld ms, tombstones %lld ms",
        k->deletes ? "compact,delete" : "compact", k->n_partitions,
        k->replication, k->n_keys, k->n_writers, k->n_readers,
        (long long)k->segment_bytes, (long long)k->segment_ms, k->dirty_ratio,
        (long long)k->lag_ms, (long long)k->tombstone_ms);
    if (k->deletes) {
        printf(", retention %lld ms", (long long)k->retention_ms);
    }
    printf(")");
}

void plan_print(const struct plan *p)
{
    printf("%d brokers of %u shards, topics", p->n_brokers, p->n_shards);
    for (int i = 0; i < p->n_topics; i++) {
        printf(" %dx%d", p->n_partitions[i], p->replication[i]);
    }
    keyed_print(&p->keyed);
    printf(
        ", %d+%d producers, %d consumers, %d groups of %d, %d admins, %llu s, "
        "%d storms "
        "of %d faults every %llu ms:",
        p->n_idempotent, p->n_plain, p->n_consumers, p->n_groups,
        p->n_groups == 0 ? 0 : p->n_members, p->n_admins,
        (unsigned long long)(p->chaos_ns / SIM_S), p->n_storms, p->storm_faults,
        (unsigned long long)p->fault_ms_max);
    for (int k = 0; k < FAULT_KINDS; k++) {
        if (p->faults & UINT32_C(1) << k) {
            printf(" %s", fault_names[k]);
        }
    }
    printf("\n");
}
