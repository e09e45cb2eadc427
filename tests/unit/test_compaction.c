/* Compaction of one partition over a group of one replica: what a reader may
 * rely on (the newest value of each key, offsets, sequences), tombstones, the
 * bound of the map, and a crash after every step. */
#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "partition/compact.h"
#include "partition/dump.h"
#include "partition/partition_impl.h"
#include "tests/sim/sim_env.h"
#include "tests/unit/fake_group.h"

#define DATA "/data"
#define KEYS_MAX 3000
#define KEYS 40
#define RECORDS 20000

struct world {
    struct sim *sim;
    struct sim_node *node;
    struct partition_config config;
    struct raft_host *host;
    struct partition_shard *shard;
    struct partition *p;
    enum err open_status;
};
static struct world w;

/* What was produced: record i is the one at offset i. */
struct model_record {
    int key;
    bool tombstone;
    int64_t timestamp;
};
static struct {
    struct model_record records[RECORDS];
    int64_t end;
    int32_t sequence[4]; /* of producers 1..3 */
    int64_t last_base[4];
    int32_t last_n[4];
} model;

static void on_partition_closed(void *arg, struct partition *p)
{
    (void)arg;
    (void)p;
    w.p = NULL;
}

static void boot(struct env *env, void *arg)
{
    struct raft_host_options raft = {.env = env, .dir = DATA "/raft"};
    struct partition_shard_options options = {.env = env,
                                              .dir = DATA "/topics",
                                              .open_files_max = 8,
                                              .read_bytes_max = 1 << 20,
                                              .compaction_bytes = 1};
    struct group_creation creation = {.id = {{{7}}, 3}, .self = 5};
    struct partition_ops ops = {.closed = on_partition_closed};
    (void)arg;
    w.p = NULL;
    ck_assert_int_eq(raft_host_new(&raft, &w.host), ERR_OK);
    options.host = w.host;
    w.shard = partition_shard_new(&options);
    w.open_status = partition_open(w.shard, &creation, "table-3", &w.config,
                                   &ops, NULL, &w.p);
    if (w.open_status == ERR_OK) {
        fake_lead(w.host, true);
    }
}

static void world_begin(uint64_t seed)
{
    memset(&w, 0, sizeof w);
    memset(&model, 0, sizeof model);
    w.sim = sim_new(seed);
    w.node = sim_node_add(w.sim, "a", 1);
    w.config = (struct partition_config){
        .cleanup_compact = true,
        .retention_ms = -1,
        .retention_bytes = -1,
        .segment_bytes = 4000,
        .segment_ms = INT64_MAX,
        .max_message_bytes = 1 << 20,
        .timestamp_before_max_ms = INT64_MAX,
        .timestamp_after_max_ms = INT64_MAX,
        .min_insync_replicas = 1,
        .producer_id_expiration_ms = 86400000,
        .min_cleanable_dirty_ratio = 0.2,
        .delete_retention_ms = 30000,
    };
    sim_node_start(w.node, boot, NULL);
    sim_run_for(w.sim, 100 * SIM_MS);
    ck_assert_int_eq(w.open_status, ERR_OK);
}

static void world_end(void)
{
    sim_free(w.sim);
}

static void call_settle(struct env *env, void *arg)
{
    (void)env;
    (void)fake_settle(arg);
}

static void call_evict(struct env *env, void *arg)
{
    (void)env;
    fake_evict(arg, (log_index){UINT64_MAX});
}

/* Settled, and still in memory. */
static void settle_only(void)
{
    sim_node_call(w.node, 0, call_settle, w.host);
    sim_run_for(w.sim, 100 * SIM_MS);
}

static void settle(void)
{
    settle_only();
    sim_node_call(w.node, 0, call_evict, w.host);
    sim_run_for(w.sim, SIM_MS);
}

/* ---- produce ------------------------------------------------------------- */
static struct {
    struct partition_produce req;
    bool done;
} sent;

static void produced_cb(struct partition_produce *req)
{
    (void)req;
    sent.done = true;
}

static void call_produce(struct env *env, void *arg)
{
    (void)env;
    (void)arg;
    partition_produce(w.p, &sent.req);
}

static int value_of(int64_t offset, char out[64])
{
    return snprintf(out, 64, "value of offset %lld %.*s", (long long)offset,
                    (int)(offset % 20), "aaaaaaaaaaaaaaaaaaaa");
}

static void build(struct batch_builder *b, int64_t from, int n, int pid,
                  int32_t sequence, enum batch_codec codec)
{
    const uint8_t *bytes;
    size_t size;
    batch_builder_init(b, codec);
    if (pid > 0) {
        b->producer_id = pid;
        b->producer_epoch = 0;
        b->base_sequence = sequence;
    }
    for (int i = 0; i < n; i++) {
        const struct model_record *r = &model.records[from + i];
        struct record_header header = {(const uint8_t *)"h", 1,
                                       (const uint8_t *)"12", 2};
        char key[16], value[64];
        int key_size = snprintf(key, sizeof key, "key-%d", r->key);
        int value_size = value_of(from + i, value);
        batch_builder_add(b, r->timestamp, key, key_size,
                          r->tombstone ? NULL : value,
                          r->tombstone ? -1 : value_size, &header, i % 2);
    }
    ck_assert_int_eq(batch_builder_finish(b, &bytes, &size), ERR_OK);
    sent.req = (struct partition_produce){.batch = bytes,
                                          .size = (uint32_t)size,
                                          .acks = -1,
                                          .api_version = 11,
                                          .cb = produced_cb};
    sent.done = false;
}

static int64_t wall_ms(void)
{
    return env_wall_ms(w.p->env);
}

static void produce(int n, int keys, int pid, enum batch_codec codec,
                    int tombstones_in_100)
{
    struct prng *prng = sim_prng(w.sim);
    struct batch_builder b;
    ASSERT(pid < (int)(sizeof model.sequence / sizeof *model.sequence));
    ck_assert_int_lt(model.end + n, RECORDS);
    for (int i = 0; i < n; i++) {
        model.records[model.end + i] = (struct model_record){
            .key = (int)prng_below(prng, (uint64_t)keys),
            .tombstone = prng_below(prng, 100) < (uint64_t)tombstones_in_100,
            .timestamp = wall_ms() - 100 + i};
    }
    build(&b, model.end, n, pid, pid > 0 ? model.sequence[pid] : -1, codec);
    sim_node_call(w.node, 0, call_produce, NULL);
    sim_run_for(w.sim, 20 * SIM_MS);
    ck_assert(sent.done);
    ck_assert_int_eq(sent.req.error, KAFKA_NONE);
    ck_assert_int_eq(sent.req.base_offset.v, model.end);
    if (pid > 0) {
        model.last_base[pid] = model.end;
        model.last_n[pid] = n;
        model.sequence[pid] += n;
    }
    model.end += n;
    batch_builder_free(&b);
}

static void produce_some(int batches, int keys)
{
    struct prng *prng = sim_prng(w.sim);
    for (int i = 0; i < batches; i++) {
        produce(1 + (int)prng_below(prng, 6), keys, (int)prng_below(prng, 4),
                (enum batch_codec)prng_below(prng, 5), 15);
    }
}

/* Every producer's last batch, sent again, is still recognised. */
static void check_producers(void)
{
    for (int pid = 1; pid <= 3; pid++) {
        struct batch_builder b;
        if (model.last_n[pid] == 0) {
            continue;
        }
        build(&b, model.last_base[pid], model.last_n[pid], pid,
              model.sequence[pid] - model.last_n[pid], CODEC_NONE);
        sim_node_call(w.node, 0, call_produce, NULL);
        sim_run_for(w.sim, 20 * SIM_MS);
        ck_assert(sent.done);
        ck_assert_int_eq(sent.req.error, KAFKA_NONE);
        ck_assert_int_eq(sent.req.base_offset.v, model.last_base[pid]);
        batch_builder_free(&b);
    }
}

/* ---- read ---------------------------------------------------------------- */
static struct {
    struct partition_fetch req;
    bool done;
    int64_t next;
    int64_t seen[KEYS_MAX]; /* newest offset of each key; -1 none */
    int64_t producer[4];    /* last offset of its newest batch */
    int records, batches, empty, tombstones;
    int twice; /* records below `compacted` whose key came before */
} reading;

static void read_batch(const uint8_t *at, size_t size)
{
    struct batch_records r;
    struct batch_record record;
    struct batch_header h;
    ck_assert(batch_is_whole(at, size));
    ck_assert_int_eq(batch_header_read(at, size, &h), ERR_OK);
    ck_assert_int_ge(batch_last_offset(&h).v, reading.next);
    ck_assert_int_lt(batch_last_offset(&h).v, model.end);
    ck_assert_int_eq(batch_records_open(&r, at, size, 1 << 20), ERR_OK);
    while (batch_records_next(&r, &record)) {
        int64_t offset = h.base_offset.v + record.offset_delta;
        const struct model_record *m = &model.records[offset];
        char key[16], value[64];
        int n = snprintf(key, sizeof key, "key-%d", m->key);
        ck_assert_int_eq(record.key_size, n);
        ck_assert_mem_eq(record.key, key, (size_t)n);
        ck_assert_int_eq(record.timestamp, m->timestamp);
        if (m->tombstone) {
            ck_assert_int_eq(record.value_size, -1);
            reading.tombstones++;
        } else {
            n = value_of(offset, value);
            ck_assert_int_eq(record.value_size, n);
            ck_assert_mem_eq(record.value, value, (size_t)n);
        }
        if (record.n_headers > 0) {
            const uint8_t *header_at = record.headers;
            struct record_header header;
            ck_assert(batch_record_header(&record, &header_at, &header));
            ck_assert_mem_eq(header.value, "12", 2);
        }
        if (reading.seen[m->key] >= 0 && offset < w.p->compacted.v) {
            reading.twice++;
        }
        reading.seen[m->key] = offset;
        reading.records++;
    }
    ck_assert_int_eq(r.status, ERR_OK);
    batch_records_close(&r);
    if (h.producer_id > 0) {
        reading.producer[h.producer_id] = batch_last_offset(&h).v;
    }
    reading.batches++;
    reading.empty += h.record_count == 0;
    reading.next = batch_last_offset(&h).v + 1;
}

static void read_answer(void)
{
    ck_assert_int_eq(reading.req.error, KAFKA_NONE);
    for (int i = 0; i < reading.req.n_iov; i++) {
        const uint8_t *at = reading.req.iov[i].iov_base;
        size_t left = reading.req.iov[i].iov_len;
        while (left > 0) {
            struct batch_header h;
            ck_assert_int_eq(batch_header_read(at, left, &h), ERR_OK);
            read_batch(at, batch_size(&h));
            at += batch_size(&h);
            left -= batch_size(&h);
        }
    }
    partition_fetch_release(&reading.req);
    reading.done = true;
}

static void fetch_cb(struct partition_fetch *req)
{
    (void)req;
    read_answer();
}

static void call_fetch(struct env *env, void *arg)
{
    (void)env;
    (void)arg;
    reading.req = (struct partition_fetch){.offset = {reading.next},
                                           .max_bytes = 3000,
                                           .at_least_one = true,
                                           .current_leader_epoch = -1,
                                           .last_fetched_epoch = -1,
                                           .cb = fetch_cb};
    if (partition_fetch(w.p, &reading.req)) {
        read_answer();
    }
}

/* Reads all: what is read is what was produced, at its offset, and leads to the
 * same table. */
static void check_table(void)
{
    static int64_t newest[KEYS_MAX];
    memset(&reading, 0, sizeof reading);
    for (int i = 0; i < KEYS_MAX; i++) {
        reading.seen[i] = newest[i] = -1;
    }
    reading.next = partition_log_start(w.p).v;
    ck_assert_int_eq(partition_high_watermark(w.p).v, model.end);
    while (reading.next < model.end) {
        int64_t was = reading.next;
        reading.done = false;
        sim_node_call(w.node, 0, call_fetch, NULL);
        while (!reading.done) {
            ck_assert(sim_step(w.sim));
        }
        ck_assert_int_gt(reading.next, was);
    }
    for (int64_t i = partition_log_start(w.p).v; i < model.end; i++) {
        newest[model.records[i].key] = i;
    }
    for (int pid = 1; pid <= 3; pid++) {
        int64_t last = model.last_base[pid] + model.last_n[pid] - 1;
        if (model.last_n[pid] > 0 && last >= partition_log_start(w.p).v) {
            ck_assert_int_eq(reading.producer[pid], last);
        }
    }
    for (int i = 0; i < KEYS_MAX; i++) {
        if (newest[i] < 0) {
            ck_assert_int_eq(reading.seen[i], -1);
        } else if (reading.seen[i] != newest[i]) {
            ck_assert(model.records[newest[i]].tombstone);
            ck_assert_int_eq(reading.seen[i], -1);
        }
    }
}

static void batch_check(void *arg, const struct dump_batch *b)
{
    (void)arg;
    ck_assert(b->crc_ok);
    ck_assert(b->side_ok);
}

/* The files as `flotilla log verify` sees them. */
static struct dump_summary verify(void)
{
    static const struct dump_ops ops = {.batch = batch_check};
    struct dump_summary sum;
    ck_assert_int_eq(partition_dump(w.p->env, w.p->dir, &ops, NULL, &sum),
                     ERR_OK);
    ck_assert_uint_eq(sum.damaged, 0);
    ck_assert_uint_eq(sum.last.v, w.p->settled.index.v);
    ck_assert_uint_eq(sum.chain, w.p->settled.chain);
    return sum;
}

static bool at_rest(void *arg)
{
    (void)arg;
    return w.shard->compacting == NULL && w.p->n_retired == 0 &&
           w.p->removals == 0;
}

/* Runs until maintenance was there and everything it began has ended. */
static void compact_all(void)
{
    sim_run_for(w.sim, 5100 * SIM_MS);
    ck_assert(sim_run_while_not(w.sim, at_rest, NULL, 60 * SIM_S));
}

static void crash(enum sim_crash how)
{
    sim_node_crash(w.node, how);
    sim_node_restart(w.node);
    sim_run_for(w.sim, 100 * SIM_MS);
    ck_assert_int_eq(w.open_status, ERR_OK);
}

/* ---- tests --------------------------------------------------------------- */
START_TEST(test_compaction__newest_stay)
{
    world_begin(1);
    produce_some(200, KEYS);
    settle();
    check_table();
    size_t before = w.p->n_closed_segments;
    int records = reading.records;
    ck_assert_uint_gt(before, 5);
    compact_all();
    check_table();
    ck_assert_int_gt(w.p->compacted.v, 0);
    ck_assert_int_eq(reading.twice, 0);
    ck_assert_int_lt(reading.records, records / 3);
    ck_assert_uint_lt(w.p->n_closed_segments, before);
    ck_assert_uint_gt(verify().gone, 100);
    check_producers();
    /* More of it: what is compacted and what is new become one again. */
    produce_some(200, KEYS);
    settle();
    compact_all();
    check_table();
    ck_assert_int_eq(reading.twice, 0);
    verify();
    crash(SIM_DROP_ALL);
    check_table();
    check_producers();
    ck_assert_int_eq(reading.twice, 0);
    world_end();
}
END_TEST

/* What is still in memory as it was written is read compacted all the same. */
START_TEST(test_compaction__in_memory)
{
    world_begin(11);
    produce_some(200, KEYS);
    settle_only();
    uint32_t in_memory = w.p->ring.count;
    check_table();
    int records = reading.records;
    compact_all();
    ck_assert_uint_eq(w.p->ring.count, in_memory);
    check_table();
    ck_assert_int_gt(w.p->compacted.v, 0);
    ck_assert_int_eq(reading.twice, 0);
    ck_assert_int_lt(reading.records, records / 3);
    check_producers();
    produce_some(50, KEYS);
    check_table();
    ck_assert_int_eq(reading.twice, 0);
    ck_assert_int_gt(partition_available(w.p, partition_log_start(w.p), 0, 100),
                     0);
    world_end();
}
END_TEST

START_TEST(test_compaction__tombstones)
{
    world_begin(2);
    for (int i = 0; i < 30; i++) {
        produce(5, KEYS, 0, CODEC_NONE, 0);
    }
    for (int i = 0; i < 30; i++) {
        produce(5, KEYS, 0, i % 2 == 0 ? CODEC_NONE : CODEC_LZ4, 100);
    }
    for (int i = 0; i < 60; i++) { /* so that those are in closed segments */
        produce(4, 1, 0, CODEC_NONE, 0);
    }
    settle();
    compact_all();
    check_table();
    ck_assert_int_eq(reading.twice, 0);
    ck_assert_int_gt(reading.tombstones, 20);
    int64_t newest[KEYS];
    memcpy(newest, reading.seen, sizeof newest);
    sim_run_for(w.sim, 15 * SIM_S);
    check_table();
    ck_assert_int_gt(reading.tombstones, 20);
    /* Their time is over, and nothing new was written. */
    sim_run_for(w.sim, 30 * SIM_S);
    ck_assert(sim_run_while_not(w.sim, at_rest, NULL, 60 * SIM_S));
    check_table();
    ck_assert_int_eq(reading.tombstones, 0);
    for (int key = 1; key < KEYS; key++) {
        if (newest[key] >= 0 && model.records[newest[key]].tombstone) {
            ck_assert_int_eq(reading.seen[key], -1);
        }
    }
    crash(SIM_DROP_ALL);
    check_table();
    ck_assert_int_eq(reading.tombstones, 0);
    verify();
    world_end();
}
END_TEST

START_TEST(test_compaction__ratio_and_lag)
{
    world_begin(3);
    w.config.min_compaction_lag_ms = 60000;
    partition_configure(w.p, &w.config);
    produce_some(100, KEYS);
    settle();
    compact_all();
    ck_assert_int_eq(w.p->compacted.v, 0); /* too young */
    sim_run_for(w.sim, 60 * SIM_S);
    compact_all();
    int64_t compacted = w.p->compacted.v;
    ck_assert_int_gt(compacted, 0);
    w.config.min_compaction_lag_ms = 0;
    w.config.min_cleanable_dirty_ratio = 0.99;
    w.config.delete_retention_ms = INT64_MAX;
    partition_configure(w.p, &w.config);
    produce_some(50, KEYS);
    settle();
    compact_all();
    ck_assert_int_eq(w.p->compacted.v, compacted);
    w.config.max_compaction_lag_ms = 20000;
    partition_configure(w.p, &w.config);
    sim_run_for(w.sim, 90 * SIM_S);
    ck_assert_int_gt(w.p->compacted.v, compacted);
    check_table();
    ck_assert_int_eq(reading.twice, 0);
    ck_assert_uint_eq(verify().damaged, 0);
    /* Not where the policy does not say so. */
    w.config.cleanup_compact = false;
    w.config.cleanup_delete = true;
    partition_configure(w.p, &w.config);
    compacted = w.p->compacted.v;
    produce_some(100, KEYS);
    settle();
    sim_run_for(w.sim, 90 * SIM_S);
    ck_assert_int_eq(w.p->compacted.v, compacted);
    world_end();
}
END_TEST

START_TEST(test_offset_map__grows_up_to_its_bound)
{
    static const uint64_t secret[2] = {1, 2};
    struct offset_map *map = offset_map_new(0, secret);
    char key[32];
    int n = 0;
    for (; n < 100000; n++) {
        int size = snprintf(key, sizeof key, "k%d", n);
        if (!offset_map_put(map, key, (size_t)size, (kafka_offset){n})) {
            break;
        }
    }
    ck_assert_int_gt(n, 500);
    ck_assert_int_lt(n, 1024);
    ck_assert_int_eq(offset_map_get(map, "k7", 2).v, 7);
    ck_assert(offset_map_put(map, "k7", 2, (kafka_offset){5000}));
    ck_assert_int_eq(offset_map_get(map, "k7", 2).v, 5000);
    ck_assert_int_eq(offset_map_get(map, "other", 5).v, -1);
    ck_assert_uint_eq(offset_map_count(map), (uint64_t)n);
    offset_map_free(map);
    map = offset_map_new(1 << 20, secret);
    for (n = 0; n < 30000; n++) {
        int size = snprintf(key, sizeof key, "k%d", n);
        ck_assert(offset_map_put(map, key, (size_t)size, (kafka_offset){n}));
    }
    for (n = 0; n < 30000; n++) {
        int size = snprintf(key, sizeof key, "k%d", n);
        ck_assert_int_eq(offset_map_get(map, key, (size_t)size).v, n);
    }
    offset_map_free(map);
}
END_TEST

/* More keys than there is memory for: several runs, each a bit further, and no
 * tombstone goes while there is something that it takes back. */
START_TEST(test_compaction__several_runs)
{
    world_begin(4);
    w.config.min_cleanable_dirty_ratio = 0;
    w.config.delete_retention_ms = 0;
    partition_configure(w.p, &w.config);
    for (int i = 0; i < 400; i++) {
        produce(6, KEYS_MAX, 0, CODEC_NONE, 0);
    }
    for (int i = 0; i < 400; i++) {
        produce(6, KEYS_MAX, 0, CODEC_NONE, 70);
    }
    for (int i = 0; i < 40; i++) {
        produce(6, 1, 0, CODEC_NONE, 0);
    }
    settle();
    int64_t last = 0;
    int runs = 0;
    for (int i = 0; i < 100 && runs < 4; i++) {
        compact_all();
        check_table();
        ck_assert_int_eq(reading.twice, 0);
        ck_assert_int_ge(w.p->compacted.v, last);
        runs += w.p->compacted.v > last;
        last = w.p->compacted.v;
    }
    ck_assert_int_ge(runs, 4);
    sim_run_for(w.sim, 300 * SIM_S);
    check_table();
    ck_assert_int_eq(reading.twice, 0);
    ck_assert_int_lt(reading.tombstones, 100);
    verify();
    world_end();
}
END_TEST

static struct segment_view held;
static void call_hold(struct env *env, void *arg)
{
    (void)env;
    if (arg != NULL) {
        partition_view_take(w.p, 0, &held);
    } else {
        partition_view_give(w.p, &held);
    }
}

/* Who began to read before the switch finds the files, however late. */
START_TEST(test_compaction__reader_under_way)
{
    world_begin(5);
    produce_some(150, KEYS);
    settle();
    memset(&held, 0, sizeof held);
    sim_node_call(w.node, 0, call_hold, &w);
    sim_run_for(w.sim, 20 * SIM_S);
    ck_assert_uint_gt(w.p->n_retired, 0);
    check_table(); /* others read what is new, and their files may go */
    ck_assert_uint_gt(w.p->n_retired, 0);
    struct side_cursor c = {0};
    struct side_entry e;
    int n = 0;
    ck_assert_int_eq(segment_view_open(&held, true), ERR_OK);
    while (side_cursor_next(&held, &c, &e) == ERR_OK) {
        ck_assert_uint_eq(e.gone, 0);
        n++;
    }
    side_cursor_free(&c);
    ck_assert_int_gt(n, 5);
    sim_node_call(w.node, 0, call_hold, NULL);
    sim_run_for(w.sim, 20 * SIM_S);
    ck_assert(at_rest(NULL));
    check_table();
    ck_assert_int_eq(reading.twice, 0);
    verify();
    world_end();
}
END_TEST

/* A run that is cut off after any number of steps of the simulator leaves a log
 * that says the same, and the next one finishes it. */
START_TEST(test_compaction__crash_after_every_step)
{
    static const enum sim_crash how[] = {SIM_KILL, SIM_DROP_ALL, SIM_KEEP_ALL,
                                         SIM_RANDOM, SIM_TORN};
    bool ended = false;
    for (int steps = 1; !ended; steps++) {
        world_begin(100 + (uint64_t)_i);
        produce_some(60, 10);
        settle();
        ck_assert(w.shard->compacting == NULL);
        while (w.shard->compacting == NULL) {
            ck_assert(sim_step(w.sim));
        }
        for (int i = 0; i < steps; i++) {
            ck_assert(sim_step(w.sim));
        }
        ended = w.shard->compacting == NULL;
        crash(how[(steps + _i) % 5]);
        check_table();
        check_producers();
        verify();
        compact_all();
        check_table();
        ck_assert_int_eq(reading.twice, 0);
        check_producers();
        crash(how[(steps + _i + 1) % 5]);
        check_table();
        world_end();
    }
}
END_TEST

/* Everything at random: produce, settle, time, crashes, the list of segments
 * lost. */
START_TEST(test_compaction__random)
{
    static const enum sim_crash how[] = {SIM_KILL, SIM_DROP_ALL, SIM_KEEP_ALL,
                                         SIM_RANDOM, SIM_TORN};
    world_begin(1000 + (uint64_t)_i);
    struct prng *prng = sim_prng(w.sim);
    w.config.cleanup_delete = _i % 3 == 0;
    w.config.retention_bytes = _i % 3 == 0 ? 20000 : -1;
    w.config.delete_retention_ms = 10000;
    partition_configure(w.p, &w.config);
    for (int round = 0; round < 40; round++) {
        switch (prng_below(prng, 6)) {
            case 0:
            case 1:
                produce_some(1 + (int)prng_below(prng, 40), KEYS);
                break;
            case 2:
                settle();
                break;
            case 3:
                sim_run_for(w.sim, prng_below(prng, 20000) * SIM_MS);
                break;
            case 4:
                sim_run_for(w.sim, prng_below(prng, 100) * SIM_MS);
                if (prng_chance(prng, 1, 4)) {
                    char path[LIMIT_PATH];
                    snprintf(path, sizeof path, "%s/segments", w.p->dir);
                    (void)!env_file_unlink(w.p->env, path);
                }
                crash(how[prng_below(prng, 5)]);
                break;
            default:
                check_table();
                break;
        }
    }
    check_table();
    check_producers();
    settle();
    verify();
    compact_all();
    check_table();
    crash(SIM_DROP_ALL);
    check_table();
    check_producers();
    world_end();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("compaction");
    TCase *tc = tcase_create("compaction");
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, test_compaction__newest_stay);
    tcase_add_test(tc, test_compaction__in_memory);
    tcase_add_test(tc, test_compaction__tombstones);
    tcase_add_test(tc, test_compaction__ratio_and_lag);
    tcase_add_test(tc, test_offset_map__grows_up_to_its_bound);
    tcase_add_test(tc, test_compaction__several_runs);
    tcase_add_test(tc, test_compaction__reader_under_way);
    tcase_add_loop_test(tc, test_compaction__crash_after_every_step, 0, 5);
    tcase_add_loop_test(tc, test_compaction__random, 0, 40);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
