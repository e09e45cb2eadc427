/* One partition over a group of one replica in the simulated environment:
 * produce, fetch, settle, restart after crashes, idempotence, time look-ups,
 * retention, damage; and a long random run beside a model. */
#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "partition/partition.h"
#include "partition/bytes.h"
#include "partition/dump.h"
#include "partition/partition_impl.h"
#include "tests/sim/sim_env.h"
#include "tests/unit/fake_group.h"

#define DATA "/data"

struct world {
    struct sim *sim;
    struct sim_node *node;
    struct partition_config config;
    bool count_applied;
    /* of the running incarnation */
    struct raft_host *host;
    struct partition_shard *shard;
    struct partition *p;
    uint64_t n_applied;
    int64_t last_applied;
    int n_closed;
    enum err open_status;
};
static struct world w;

static void on_applied_batch(void *arg, struct partition *p, kafka_offset base,
                             const uint8_t *batch, uint32_t size)
{
    struct batch_header h;
    (void)arg;
    (void)p;
    ck_assert(batch_is_whole(batch, size));
    ck_assert_int_eq(batch_header_read(batch, size, &h), ERR_OK);
    ck_assert_int_eq(h.base_offset.v, base.v);
    if (w.n_applied > 0) {
        ck_assert_int_eq(base.v, w.last_applied + 1);
    }
    w.last_applied = batch_last_offset(&h).v;
    w.n_applied++;
}

static void on_partition_closed(void *arg, struct partition *p)
{
    (void)arg;
    (void)p;
    w.n_closed++;
    w.p = NULL;
}

static void boot(struct env *env, void *arg)
{
    struct raft_host_options raft = {.env = env, .dir = DATA "/raft"};
    struct partition_shard_options options = {.env = env,
                                              .dir = DATA "/topics",
                                              .open_files_max = 8,
                                              .read_bytes_max = 1 << 20};
    struct group_creation creation = {.id = {{{7}}, 3}, .self = 5};
    struct partition_ops ops = {
        .applied = w.count_applied ? on_applied_batch : NULL,
        .closed = on_partition_closed};
    (void)arg;
    w.n_applied = 0;
    w.p = NULL;
    ck_assert_int_eq(raft_host_new(&raft, &w.host), ERR_OK);
    options.host = w.host;
    w.shard = partition_shard_new(&options);
    w.open_status = partition_open(w.shard, &creation, "orders-3", &w.config,
                                   &ops, NULL, &w.p);
    if (w.open_status == ERR_OK) {
        fake_lead(w.host, true);
    }
}

static void world_begin(uint64_t seed)
{
    memset(&w, 0, sizeof w);
    w.sim = sim_new(seed);
    w.node = sim_node_add(w.sim, "a", 1);
    w.config = (struct partition_config){
        .cleanup_delete = true,
        .retention_ms = -1,
        .retention_bytes = -1,
        .segment_bytes = 1 << 30,
        .segment_ms = INT64_MAX,
        .max_message_bytes = 1 << 20,
        .timestamp_before_max_ms = INT64_MAX,
        .timestamp_after_max_ms = INT64_MAX,
        .min_insync_replicas = 1,
        .producer_id_expiration_ms = 86400000,
    };
    sim_node_start(w.node, boot, NULL);
    sim_run_for(w.sim, 100 * SIM_MS);
    ck_assert_int_eq(w.open_status, ERR_OK);
}

static void world_end(void)
{
    sim_free(w.sim);
}

static void run(void)
{
    sim_run_for(w.sim, 100 * SIM_MS);
}

static void crash(enum sim_crash how)
{
    sim_node_crash(w.node, how);
    sim_node_restart(w.node);
    run();
    ck_assert_int_eq(w.open_status, ERR_OK);
}

static void call_settle(struct env *env, void *arg)
{
    (void)env;
    (void)fake_settle(arg);
}

static void settle(void)
{
    sim_node_call(w.node, 0, call_settle, w.host);
    run();
}

static void call_evict(struct env *env, void *arg)
{
    (void)env;
    fake_evict(arg, (log_index){UINT64_MAX});
}

static void settle_and_evict(void)
{
    settle();
    sim_node_call(w.node, 0, call_evict, w.host);
}

/* ---- produce ------------------------------------------------------------- */
struct produced {
    struct partition_produce req;
    struct batch_builder builder;
    bool in_call, done;
};

static void produced_cb(struct partition_produce *req)
{
    struct produced *d = req->arg;
    ck_assert(!d->in_call && !d->done);
    d->done = true;
}

/* A batch of n records with this timestamp, values "value-<i>" padded. */
static struct produced *batch_new(int n, int64_t timestamp, size_t value_size,
                                  int64_t pid, int16_t epoch, int32_t sequence)
{
    struct produced *d = calloc(1, sizeof *d);
    const uint8_t *bytes;
    size_t size;
    char *value = malloc(value_size);
    memset(value, 'v', value_size);
    batch_builder_init(&d->builder, CODEC_NONE);
    d->builder.producer_id = pid;
    d->builder.producer_epoch = epoch;
    d->builder.base_sequence = sequence;
    for (int i = 0; i < n; i++) {
        batch_builder_add(&d->builder, timestamp + i, "k", 1, value,
                          (int32_t)value_size, NULL, 0);
    }
    ck_assert_int_eq(batch_builder_finish(&d->builder, &bytes, &size), ERR_OK);
    free(value);
    d->req.batch = bytes;
    d->req.size = (uint32_t)size;
    d->req.acks = -1;
    d->req.api_version = 11;
    d->req.cb = produced_cb;
    d->req.arg = d;
    return d;
}

static void batch_free(struct produced *d)
{
    batch_builder_free(&d->builder);
    free(d);
}

static void call_produce(struct env *env, void *arg)
{
    struct produced *d = arg;
    (void)env;
    d->in_call = true;
    partition_produce(w.p, &d->req);
    d->in_call = false;
}

static void send(struct produced *d)
{
    d->done = false;
    sim_node_call(w.node, 0, call_produce, d);
}

/* Produces and waits; the base offset. */
static int64_t produce(struct produced *d, enum kafka_error expected)
{
    send(d);
    run();
    ck_assert(d->done);
    ck_assert_int_eq(d->req.error, expected);
    int64_t base = d->req.base_offset.v;
    batch_free(d);
    return base;
}

static int64_t produce_plain(int n, int64_t timestamp, size_t value_size)
{
    return produce(batch_new(n, timestamp, value_size, -1, -1, -1), KAFKA_NONE);
}

static int64_t produce_as(int64_t pid, int16_t epoch, int32_t sequence, int n,
                          enum kafka_error expected)
{
    return produce(batch_new(n, 1000, 20, pid, epoch, sequence), expected);
}

/* ---- fetch --------------------------------------------------------------- */
struct fetched {
    struct partition_fetch req;
    bool at_once, done;
    enum kafka_error error;
    int64_t first, last; /* offsets of the batches; -1 none */
    int n_batches;
    int32_t bytes;
};

static void fetched_check(struct fetched *f)
{
    struct partition_fetch *req = &f->req;
    f->done = true;
    f->error = req->error;
    f->first = f->last = -1;
    f->n_batches = 0;
    f->bytes = req->bytes;
    int32_t bytes = 0;
    for (int i = 0; i < req->n_iov; i++) {
        const uint8_t *at = req->iov[i].iov_base;
        size_t left = req->iov[i].iov_len;
        while (left > 0) {
            struct batch_header h;
            ck_assert_int_eq(batch_header_read(at, left, &h), ERR_OK);
            ck_assert_uint_le(batch_size(&h), left);
            ck_assert(batch_is_whole(at, batch_size(&h)));
            if (f->n_batches > 0) {
                ck_assert_int_eq(h.base_offset.v, f->last + 1);
            } else {
                f->first = h.base_offset.v;
            }
            f->last = batch_last_offset(&h).v;
            f->n_batches++;
            bytes += (int32_t)batch_size(&h);
            at += batch_size(&h);
            left -= batch_size(&h);
        }
    }
    ck_assert_int_eq(bytes, req->bytes);
    ck_assert_int_lt(f->last,
                     w.p == NULL ? INT64_MAX : partition_high_watermark(w.p).v);
    partition_fetch_release(req);
    partition_fetch_release(req);
}

static void fetched_cb(struct partition_fetch *req)
{
    struct fetched *f = req->arg;
    ck_assert(!f->at_once);
    fetched_check(f);
}

static void call_fetch(struct env *env, void *arg)
{
    struct fetched *f = arg;
    (void)env;
    f->req.cb = fetched_cb;
    f->req.arg = f;
    if (partition_fetch(w.p, &f->req)) {
        f->at_once = true;
        fetched_check(f);
    }
}

static struct fetched fetch_req(int64_t offset, int32_t max)
{
    return (struct fetched){.req = {.offset = {offset},
                                    .max_bytes = max,
                                    .at_least_one = true,
                                    .current_leader_epoch = -1,
                                    .last_fetched_epoch = -1}};
}

static struct fetched fetch(int64_t offset, int32_t max)
{
    struct fetched f = fetch_req(offset, max);
    sim_node_call(w.node, 0, call_fetch, &f);
    run();
    ck_assert(f.done);
    return f;
}

/* Reads all from `from`; the number of batches. */
static int read_all(int64_t from, int64_t end, int32_t max)
{
    int n = 0;
    while (from < end) {
        struct fetched f = fetch(from, max);
        ck_assert_int_eq(f.error, KAFKA_NONE);
        ck_assert_int_gt(f.n_batches, 0);
        ck_assert_int_le(f.first, from);
        ck_assert_int_ge(f.last, from);
        from = f.last + 1;
        n += f.n_batches;
    }
    ck_assert_int_eq(from, end);
    return n;
}

/* ---- list offsets -------------------------------------------------------- */
struct listed {
    struct partition_list_offset req;
    bool in_call, done;
};

static void listed_cb(struct partition_list_offset *req)
{
    struct listed *l = req->arg;
    ck_assert(!l->in_call && !l->done);
    l->done = true;
}

static void call_list(struct env *env, void *arg)
{
    struct listed *l = arg;
    (void)env;
    l->in_call = true;
    partition_list_offset(w.p, &l->req);
    l->in_call = false;
}

static struct partition_list_offset list_at(int64_t timestamp, int16_t version)
{
    struct listed l = {.req = {.timestamp = timestamp,
                               .current_leader_epoch = -1,
                               .api_version = version,
                               .cb = listed_cb}};
    l.req.arg = &l;
    sim_node_call(w.node, 0, call_list, &l);
    run();
    ck_assert(l.done);
    return l.req;
}

static int64_t list_offset(int64_t timestamp)
{
    struct partition_list_offset req = list_at(timestamp, 11);
    ck_assert_int_eq(req.error, KAFKA_NONE);
    return req.offset.v;
}

/* ---- tests --------------------------------------------------------------- */
START_TEST(test_partition__produce_and_fetch)
{
    world_begin(1);
    ck_assert_int_eq(partition_high_watermark(w.p).v, 0);
    ck_assert_int_eq(produce_plain(3, 1000, 10), 0);
    ck_assert_int_eq(produce_plain(1, 1000, 10), 3);
    ck_assert_int_eq(partition_high_watermark(w.p).v, 4);
    struct fetched f = fetch(0, 1 << 20);
    ck_assert(f.at_once);
    ck_assert_int_eq(f.n_batches, 2);
    f = fetch(1, 1);
    ck_assert_int_eq(f.n_batches, 1);
    ck_assert_int_eq(f.first, 0);
    f = fetch(4, 1 << 20);
    ck_assert_int_eq(f.error, KAFKA_NONE);
    ck_assert_int_eq(f.n_batches, 0);
    ck_assert_int_eq(fetch(5, 1).error, KAFKA_OFFSET_OUT_OF_RANGE);
    ck_assert_int_eq(fetch(-1, 1).error, KAFKA_OFFSET_OUT_OF_RANGE);
    ck_assert_int_gt(partition_available(w.p, (kafka_offset){0}, 0, INT64_MAX),
                     61 * 2);
    ck_assert_int_eq(partition_available(w.p, (kafka_offset){4}, 0, INT64_MAX),
                     0);
    world_end();
}
END_TEST

static void call_hold_commit(struct env *env, void *arg)
{
    (void)env;
    (void)arg;
    w.host->hold_commit = true;
}

static void call_hold_flush(struct env *env, void *arg)
{
    (void)env;
    (void)arg;
    w.host->hold_flush = true;
}

static void call_release(struct env *env, void *arg)
{
    (void)env;
    (void)arg;
    fake_release(w.host);
}

/* acks 1 when durable, acks -1 when committed, nothing is read before. */
START_TEST(test_partition__acks)
{
    world_begin(2);
    struct produced *one = batch_new(1, 5, 5, -1, -1, -1);
    struct produced *all = batch_new(1, 5, 5, -1, -1, -1);
    one->req.acks = 1;
    sim_node_call(w.node, 0, call_hold_flush, NULL);
    sim_node_call(w.node, 0, call_hold_commit, NULL);
    send(one);
    send(all);
    run();
    ck_assert(!one->done && !all->done);
    w.host->hold_flush = false;
    struct produced *third = batch_new(1, 5, 5, -1, -1, -1);
    send(third);
    run();
    ck_assert(one->done && !all->done);
    ck_assert_int_eq(one->req.base_offset.v, 0);
    ck_assert_int_eq(partition_high_watermark(w.p).v, 0);
    struct fetched f = fetch(1, 1 << 20);
    ck_assert_int_eq(f.error, KAFKA_NONE);
    ck_assert_int_eq(f.n_batches, 0);
    sim_node_call(w.node, 0, call_release, NULL);
    run();
    /* below the high watermark, but not beyond it */
    sim_node_call(w.node, 0, call_hold_commit, NULL);
    struct produced *fourth = batch_new(2, 5, 5, -1, -1, -1);
    send(fourth);
    run();
    f = fetch(1, 1 << 20);
    ck_assert_int_eq(f.n_batches, 2);
    ck_assert_int_eq(f.last, 2);
    ck_assert_int_eq(list_offset(-1), 3);
    ck_assert_int_eq(list_offset(6), -1);
    sim_node_call(w.node, 0, call_release, NULL);
    run();
    ck_assert(fourth->done);
    batch_free(fourth);
    ck_assert(all->done && third->done);
    ck_assert_int_eq(all->req.base_offset.v, 1);
    ck_assert_int_eq(partition_high_watermark(w.p).v, 5);
    batch_free(one);
    batch_free(all);
    batch_free(third);
    struct produced *bad = batch_new(1, 5, 5, -1, -1, -1);
    bad->req.acks = 2;
    (void)produce(bad, KAFKA_INVALID_REQUIRED_ACKS);
    world_end();
}
END_TEST

/* Segments roll; what left memory comes from files, the same batches. */
START_TEST(test_partition__fetch_across_segments)
{
    world_begin(3);
    w.config.segment_bytes = 4000;
    partition_configure(w.p, &w.config);
    int64_t end = 0;
    for (int i = 0; i < 60; i++) {
        ck_assert_int_eq(produce_plain(1 + i % 4, 1000 + i, 100 + (size_t)i),
                         end);
        end += 1 + i % 4;
        if (i % 7 == 6) {
            settle();
        }
    }
    ck_assert_int_eq(read_all(0, end, 700), 60);
    settle_and_evict();
    ck_assert_uint_eq(w.p->ring.count, 0);
    ck_assert_uint_gt(partition_segment_count(w.p), 3);
    for (int64_t from = 0; from < end; from++) {
        struct fetched f = fetch(from, 1);
        ck_assert_int_eq(f.error, KAFKA_NONE);
        ck_assert_int_eq(f.n_batches, 1);
        ck_assert(!f.at_once);
        ck_assert(f.first <= from && from <= f.last);
    }
    ck_assert_int_eq(read_all(0, end, 700), 60);
    ck_assert_int_eq(read_all(0, end, 1 << 20), 60);
    (void)produce_plain(1, 1, 1);
    ck_assert_int_eq(read_all(0, end + 1, 1 << 20), 61);
    ck_assert_uint_eq(w.shard->read_bytes, 0);
    world_end();
}
END_TEST

/* Everything acknowledged is there after any crash, at its offset. */
START_TEST(test_partition__restart)
{
    static const enum sim_crash how[] = {SIM_KILL, SIM_DROP_ALL, SIM_KEEP_ALL,
                                         SIM_RANDOM, SIM_TORN};
    world_begin(4);
    w.config.segment_bytes = 3000;
    w.count_applied = true;
    crash(SIM_KILL);
    int64_t end = 0;
    int n = 0;
    for (int round = 0; round < 25; round++) {
        for (int i = 0; i < 5; i++) {
            ck_assert_int_eq(produce_plain(2, 1000 + i, 300), end);
            end += 2;
            n++;
        }
        if (round % 2 == 0) {
            settle();
        }
        struct produced *cut = batch_new(1, 1, 100, -1, -1, -1);
        if (round % 3 == 0) {
            sim_node_call(w.node, 0, call_settle, w.host);
            sim_run_for(w.sim, (uint64_t)round * 10 * SIM_US);
        }
        crash(how[round % 5]);
        batch_free(cut);
        ck_assert_int_eq(partition_high_watermark(w.p).v, end);
        ck_assert_uint_eq(w.n_applied, (uint64_t)n);
        ck_assert_int_eq(read_all(0, end, 2000), n);
        if (round % 4 == 1) {
            settle_and_evict();
            ck_assert_int_eq(read_all(0, end, 2000), n);
        }
    }
    world_end();
}
END_TEST

static void call_truncate(struct env *env, void *arg)
{
    (void)env;
    fake_lead(w.host, false);
    fake_truncate(w.host, *(log_index *)arg);
    w.host->hold_commit = false;
    fake_lead(w.host, true);
}

START_TEST(test_partition__idempotence)
{
    world_begin(5);
    int64_t first = produce_as(9, 0, 0, 3, KAFKA_NONE);
    int64_t second = produce_as(9, 0, 3, 2, KAFKA_NONE);
    ck_assert_int_eq(produce_as(9, 0, 0, 3, KAFKA_NONE), first);
    ck_assert_int_eq(produce_as(9, 0, 3, 2, KAFKA_NONE), second);
    (void)produce_as(9, 0, 4, 2, KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER);
    (void)produce_as(9, 0, 7, 1, KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER);
    ck_assert_int_eq(partition_high_watermark(w.p).v, 5);
    /* restart: from the log, then from segments, then from a snapshot */
    crash(SIM_DROP_ALL);
    ck_assert_int_eq(produce_as(9, 0, 3, 2, KAFKA_NONE), second);
    settle_and_evict();
    crash(SIM_DROP_ALL);
    ck_assert_int_eq(produce_as(9, 0, 0, 3, KAFKA_NONE), first);
    (void)produce_as(9, 0, 4, 1, KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER);
    (void)produce_as(9, 0, 5, 1, KAFKA_NONE);
    settle_and_evict();
    crash(SIM_DROP_ALL);
    ck_assert_int_eq(produce_as(9, 0, 0, 3, KAFKA_NONE), first);
    (void)produce_as(9, 0, 6, 1, KAFKA_NONE);
    /* a new epoch begins at 0 and fences the old */
    (void)produce_as(9, 1, 5, 1, KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER);
    (void)produce_as(9, 1, 0, 1, KAFKA_NONE);
    (void)produce_as(9, 0, 7, 1, KAFKA_INVALID_PRODUCER_EPOCH);
    /* who is not known may begin anywhere */
    (void)produce_as(10, 3, 77, 1, KAFKA_NONE);
    (void)produce_as(10, 3, 78, 1, KAFKA_NONE);
    world_end();
}
END_TEST

static void call_produce_cancel(struct env *env, void *arg)
{
    (void)env;
    call_produce(env, arg);
    partition_produce_cancel(&((struct produced *)arg)->req);
}

/* A leader that does not know yet that others went on must not make clients
 * give up or begin anew: what looks wrong to it may be right. */
START_TEST(test_partition__deposed_leader)
{
    world_begin(7);
    (void)produce_as(9, 0, 0, 1, KAFKA_NONE);
    w.host->deposed = true;
    (void)produce_as(9, 0, 3, 1, KAFKA_NOT_LEADER_OR_FOLLOWER);
    ck_assert_int_eq(fetch(5, 1).error, KAFKA_NOT_LEADER_OR_FOLLOWER);
    /* before the beginning is before it for everybody */
    ck_assert_int_eq(fetch(-1, 1).error, KAFKA_OFFSET_OUT_OF_RANGE);
    /* a client that gives up meanwhile is not answered */
    struct produced *d = batch_new(1, 1000, 20, 9, 0, 3);
    d->req.cb = NULL;
    sim_node_call(w.node, 0, call_produce_cancel, d);
    run();
    ck_assert(!d->done);
    batch_free(d);
    w.host->deposed = false;
    (void)produce_as(9, 0, 3, 1, KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER);
    ck_assert_int_eq(fetch(5, 1).error, KAFKA_OFFSET_OUT_OF_RANGE);
    (void)produce_as(9, 0, 1, 1, KAFKA_NONE);
    world_end();
}
END_TEST

static void call_follow(struct env *env, void *arg)
{
    (void)env;
    (void)arg;
    fake_lead(w.host, false);
}

static void call_lead(struct env *env, void *arg)
{
    (void)env;
    (void)arg;
    fake_lead(w.host, true);
}

/* The first of several requests comes before this broker leads, those behind it
 * after: the gap is no fault of the producer's, and so it is not called one. */
START_TEST(test_partition__gap_behind_one_turned_away)
{
    world_begin(8);
    (void)produce_as(9, 0, 0, 1, KAFKA_NONE);
    sim_node_call(w.node, 0, call_follow, NULL);
    run();
    (void)produce_as(9, 0, 1, 1, KAFKA_NOT_LEADER_OR_FOLLOWER);
    (void)produce_as(11, 0, 0, 1, KAFKA_NOT_LEADER_OR_FOLLOWER);
    sim_node_call(w.node, 0, call_lead, NULL);
    run();
    (void)produce_as(9, 0, 2, 1, KAFKA_NOT_LEADER_OR_FOLLOWER);
    /* one that is not known yet would be let begin in the middle */
    (void)produce_as(11, 0, 1, 1, KAFKA_NOT_LEADER_OR_FOLLOWER);
    (void)produce_as(9, 0, 1, 1, KAFKA_NONE);
    (void)produce_as(11, 0, 0, 1, KAFKA_NONE);
    (void)produce_as(9, 0, 2, 1, KAFKA_NONE);
    (void)produce_as(11, 0, 1, 1, KAFKA_NONE);
    /* for ever it is not taken for ours */
    (void)produce_as(9, 0, 9, 1, KAFKA_NOT_LEADER_OR_FOLLOWER);
    sim_run_for(w.sim, LIMIT_PRODUCE_GAP_MS * SIM_MS);
    (void)produce_as(9, 0, 9, 1, KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER);
    (void)produce_as(12, 0, 5, 1, KAFKA_NONE);
    world_end();
}
END_TEST

/* A duplicate of a batch that is not committed waits for the original; when
 * that is truncated, it may be produced again. */
START_TEST(test_partition__duplicate_and_truncation)
{
    world_begin(6);
    (void)produce_as(9, 0, 0, 1, KAFKA_NONE);
    w.host->hold_commit = true;
    struct produced *original = batch_new(2, 1000, 20, 9, 0, 1);
    struct produced *again = batch_new(2, 1000, 20, 9, 0, 1);
    struct produced *next = batch_new(1, 1000, 20, 9, 0, 3);
    send(original);
    log_index first = original->req.index;
    send(again);
    send(next);
    run();
    ck_assert(!original->done && !again->done && !next->done);
    ck_assert_int_eq(partition_end(w.p).v, 4);
    sim_node_call(w.node, 0, call_truncate, &first);
    run();
    ck_assert(original->done && again->done && next->done);
    ck_assert_int_eq(original->req.error, KAFKA_NOT_LEADER_OR_FOLLOWER);
    ck_assert_int_eq(again->req.error, KAFKA_NOT_LEADER_OR_FOLLOWER);
    ck_assert_int_eq(partition_high_watermark(w.p).v, 1);
    ck_assert_int_eq(partition_end(w.p).v, 1);
    batch_free(original);
    batch_free(again);
    batch_free(next);
    (void)produce_as(9, 0, 3, 1, KAFKA_NOT_LEADER_OR_FOLLOWER);
    ck_assert_int_eq(produce_as(9, 0, 1, 2, KAFKA_NONE), 1);
    w.host->hold_commit = true;
    struct produced *d = batch_new(1, 1000, 20, 9, 0, 3);
    again = batch_new(1, 1000, 20, 9, 0, 3);
    send(d);
    send(again);
    run();
    ck_assert(!d->done && !again->done);
    sim_node_call(w.node, 0, call_release, NULL);
    run();
    ck_assert(d->done && again->done);
    ck_assert_int_eq(d->req.base_offset.v, 3);
    ck_assert_int_eq(again->req.base_offset.v, 3);
    ck_assert_int_eq(partition_end(w.p).v, 4);
    batch_free(d);
    batch_free(again);
    world_end();
}
END_TEST

/* A term of which nothing is left after a truncation is no epoch. */
START_TEST(test_partition__truncated_epoch)
{
    int32_t epoch;
    kafka_offset end;
    world_begin(22);
    (void)produce_plain(2, 1, 1);
    int32_t first = partition_leader_epoch(w.p);
    w.host->hold_commit = true;
    sim_node_call(w.node, 0, call_lead, NULL);
    run();
    int32_t lost = partition_leader_epoch(w.p);
    log_index noop = w.p->last;
    sim_node_call(w.node, 0, call_truncate, &noop);
    run();
    (void)produce_plain(1, 1, 1);
    ck_assert_int_gt(lost, first);
    ck_assert_int_eq(partition_offset_for_epoch(w.p, -1, lost, &epoch, &end),
                     KAFKA_NONE);
    ck_assert_int_eq(epoch, first);
    ck_assert_int_eq(end.v, 2);
    world_end();
}
END_TEST

START_TEST(test_partition__role_and_epochs)
{
    int32_t epoch;
    kafka_offset end;
    world_begin(7);
    (void)produce_plain(2, 1, 1);
    int32_t old = partition_leader_epoch(w.p);
    sim_node_call(w.node, 0, call_follow, NULL);
    run();
    (void)produce(batch_new(1, 1, 1, -1, -1, -1), KAFKA_NOT_LEADER_OR_FOLLOWER);
    ck_assert_int_eq(fetch(0, 1).error, KAFKA_NOT_LEADER_OR_FOLLOWER);
    ck_assert_int_eq(list_at(-1, 11).error, KAFKA_NOT_LEADER_OR_FOLLOWER);
    struct fetched f = fetch_req(0, 100);
    f.req.from_follower_ok = true;
    sim_node_call(w.node, 0, call_fetch, &f);
    ck_assert_int_eq(f.n_batches, 1);
    f = fetch_req(7, 100);
    f.req.from_follower_ok = true;
    sim_node_call(w.node, 0, call_fetch, &f);
    ck_assert_int_eq(f.error, KAFKA_OFFSET_NOT_AVAILABLE);
    w.host->hold_commit = true;
    sim_node_call(w.node, 0, call_lead, NULL);
    run();
    ck_assert_int_eq(list_at(-1, 11).error, KAFKA_OFFSET_NOT_AVAILABLE);
    ck_assert_int_eq(list_at(-1, 4).error, KAFKA_LEADER_NOT_AVAILABLE);
    (void)produce(batch_new(1, 1, 1, -1, -1, -1), KAFKA_NOT_LEADER_OR_FOLLOWER);
    sim_node_call(w.node, 0, call_release, NULL);
    run();
    ck_assert_int_eq(produce_plain(3, 1, 1), 2);
    int32_t now = partition_leader_epoch(w.p);
    ck_assert_int_gt(now, old);
    f = fetch_req(0, 100);
    f.req.current_leader_epoch = old;
    sim_node_call(w.node, 0, call_fetch, &f);
    ck_assert_int_eq(f.error, KAFKA_FENCED_LEADER_EPOCH);
    f = fetch_req(0, 100);
    f.req.current_leader_epoch = now + 1;
    sim_node_call(w.node, 0, call_fetch, &f);
    ck_assert_int_eq(f.error, KAFKA_UNKNOWN_LEADER_EPOCH);
    ck_assert_int_eq(partition_offset_for_epoch(w.p, -1, old, &epoch, &end),
                     KAFKA_NONE);
    ck_assert_int_eq(epoch, old);
    ck_assert_int_eq(end.v, 2);
    ck_assert_int_eq(partition_offset_for_epoch(w.p, now, now, &epoch, &end),
                     KAFKA_NONE);
    ck_assert_int_eq(end.v, 5);
    ck_assert_int_eq(partition_offset_for_epoch(w.p, -1, 0, &epoch, &end),
                     KAFKA_NONE);
    ck_assert_int_eq(epoch, -1);
    /* the table outlives a restart */
    settle_and_evict();
    crash(SIM_DROP_ALL);
    ck_assert_int_eq(partition_offset_for_epoch(w.p, -1, old, &epoch, &end),
                     KAFKA_NONE);
    ck_assert_int_eq(end.v, 2);
    f = fetch_req(4, 100);
    f.req.last_fetched_epoch = old;
    sim_node_call(w.node, 0, call_fetch, &f);
    ck_assert_int_eq(f.req.diverging_epoch, old);
    ck_assert_int_eq(f.req.diverging_end.v, 2);
    world_end();
}
END_TEST

/* Times that go up and down; the same answers from memory, from files, and
 * partly from both. */
START_TEST(test_partition__list_offsets)
{
    static const int64_t times[] = {100, 300, 200, 50, 400, 400, 350, 10};
    world_begin(8);
    w.config.segment_bytes = 400;
    partition_configure(w.p, &w.config);
    ck_assert_int_eq(list_offset(-1), 0);
    ck_assert_int_eq(list_offset(-3), -1);
    ck_assert_int_eq(list_offset(0), -1);
    for (int i = 0; i < 8; i++) {
        (void)produce_plain(1, times[i], 100);
    }
    for (int pass = 0; pass < 3; pass++) {
        ck_assert_int_eq(list_offset(-1), 8 + 4 * pass);
        ck_assert_int_eq(list_offset(-2), 0);
        ck_assert_int_eq(list_offset(-4), 0);
        ck_assert_int_eq(list_offset(-5), -1);
        ck_assert_int_eq(list_offset(-6), -1);
        ck_assert_int_eq(list_offset(-3), 4);
        ck_assert_int_eq(list_offset(0), 0);
        ck_assert_int_eq(list_offset(100), 0);
        ck_assert_int_eq(list_offset(101), 1);
        ck_assert_int_eq(list_offset(300), 1);
        ck_assert_int_eq(list_offset(301), 4);
        ck_assert_int_eq(list_offset(400), 4);
        ck_assert_int_eq(list_offset(401), -1);
        struct partition_list_offset req = list_at(120, 11);
        ck_assert_int_eq(req.found_timestamp, 300);
        ck_assert_int_ge(req.leader_epoch, 1);
        settle_and_evict();
        /* within a batch: record 2 of 4 has 12 */
        ck_assert_int_eq(produce_plain(4, 10, 1), 8 + 4 * pass);
    }
    ck_assert_int_eq(list_at(-7, 11).error, KAFKA_UNSUPPORTED_VERSION);
    ck_assert_int_eq(list_at(-3, 6).error, KAFKA_UNSUPPORTED_VERSION);
    world_end();
}
END_TEST

struct deleted {
    struct partition_delete_records req;
    bool done;
};

static void deleted_cb(struct partition_delete_records *req)
{
    ((struct deleted *)req->arg)->done = true;
}

static void call_delete(struct env *env, void *arg)
{
    struct deleted *d = arg;
    (void)env;
    partition_delete_records(w.p, &d->req);
    ck_assert(!d->done);
}

static struct deleted delete_before(int64_t before)
{
    struct deleted d = {.req = {.before = {before}, .cb = deleted_cb}};
    d.req.arg = &d;
    sim_node_call(w.node, 0, call_delete, &d);
    run();
    ck_assert(d.done);
    return d;
}

/* The record with the greatest timestamp was deleted: the greatest of those
 * that are left, the first of them; in memory, in files, and in both. */
START_TEST(test_partition__list_newest_after_delete)
{
    static const int64_t times[] = {100, 900, 200, 500, 50, 500, 7, 7};
    static const int64_t want[] = {1, 1, 3, 3, 5, 5, 6, 7, -1};
    static const int64_t stamps[] = {900, 900, 500, 500, 500, 500, 7, 7, -1};
    world_begin(8);
    for (int i = 0; i < 8; i++) {
        if (i == (_i == 2 ? 4 : 8)) {
            settle_and_evict();
        }
        (void)produce_plain(1, times[i], 100);
    }
    if (_i == 1) {
        settle_and_evict();
    }
    for (int before = 0; before <= 8; before++) {
        ck_assert_int_eq(delete_before(before).req.error, KAFKA_NONE);
        struct partition_list_offset req = list_at(-3, 11);
        ck_assert_int_eq(req.error, KAFKA_NONE);
        ck_assert_int_eq(req.offset.v, want[before]);
        ck_assert_int_eq(req.found_timestamp, stamps[before]);
    }
    world_end();
}
END_TEST

static void count_file(void *arg, const char *path, uint64_t size)
{
    (void)size;
    size_t n = strlen(path);
    if (n > 4 && strcmp(path + n - 4, ".log") == 0) {
        (*(int *)arg)++;
    }
}

static int log_files(void)
{
    int n = 0;
    sim_disk_list(w.node, count_file, &n);
    return n;
}

START_TEST(test_partition__delete_records)
{
    world_begin(9);
    w.config.segment_bytes = 400;
    partition_configure(w.p, &w.config);
    for (int i = 0; i < 10; i++) {
        (void)produce_plain(2, 1000 + i, 100);
    }
    settle_and_evict();
    int files = log_files();
    ck_assert_int_ge(files, 9);
    ck_assert_int_eq(delete_before(21).req.error, KAFKA_OFFSET_OUT_OF_RANGE);
    struct deleted d = delete_before(7);
    ck_assert_int_eq(d.req.error, KAFKA_NONE);
    ck_assert_int_eq(d.req.low_watermark.v, 7);
    ck_assert_int_eq(fetch(6, 1).error, KAFKA_OFFSET_OUT_OF_RANGE);
    ck_assert_int_eq(fetch(7, 1).first, 6);
    ck_assert_int_eq(list_offset(-2), 7);
    ck_assert_int_eq(list_offset(0), 7);
    ck_assert_int_eq(log_files(), files);
    settle_and_evict();
    ck_assert_int_eq(log_files(), files - 3);
    ck_assert_int_eq(delete_before(3).req.low_watermark.v, 7);
    crash(SIM_DROP_ALL);
    ck_assert_int_eq(partition_log_start(w.p).v, 7);
    ck_assert_int_eq(log_files(), files - 3);
    ck_assert_int_eq(read_all(7, 20, 1000), 7);
    ck_assert_int_eq(delete_before(-1).req.low_watermark.v, 20);
    ck_assert_int_eq(fetch(20, 1).n_batches, 0);
    ck_assert_int_eq(list_offset(-3), -1);
    settle_and_evict();
    ck_assert_int_eq(log_files(), 1);
    ck_assert_int_eq(produce_plain(1, 1, 1), 20);
    world_end();
}
END_TEST

static void call_settled(struct env *env, void *arg)
{
    (void)env;
    (void)arg;
    w.host->hold_settled = false;
    fake_settle_done(&w.host->group->settle_work);
}

/* The log start moves while a settle is under way whose checkpoint does not say
 * so: no file goes that this checkpoint needs. */
START_TEST(test_partition__delete_while_settling)
{
    world_begin(23);
    w.config.segment_bytes = 400;
    partition_configure(w.p, &w.config);
    for (int i = 0; i < 10; i++) {
        (void)produce_plain(2, 1000 + i, 100);
    }
    settle_and_evict();
    (void)produce_plain(2, 1000, 100);
    int files = log_files();
    w.host->hold_settled = true;
    settle();
    ck_assert_int_eq(delete_before(12).req.low_watermark.v, 12);
    sim_node_call(w.node, 0, call_settled, NULL);
    run();
    ck_assert_int_ge(log_files(), files);
    crash(SIM_DROP_ALL);
    ck_assert_int_eq(partition_log_start(w.p).v, 12);
    ck_assert_int_eq(read_all(12, 22, 1000), 5);
    settle();
    ck_assert_int_lt(log_files(), files);
    crash(SIM_DROP_ALL);
    ck_assert_int_eq(read_all(12, 22, 1000), 5);
    world_end();
}
END_TEST

START_TEST(test_partition__retention)
{
    world_begin(10);
    int64_t now = 0;
    (void)now;
    w.config.segment_bytes = 400;
    w.config.retention_bytes = 1000;
    partition_configure(w.p, &w.config);
    for (int i = 0; i < 20; i++) {
        (void)produce_plain(1, INT64_C(4000000000000) + i, 200);
    }
    settle_and_evict();
    sim_run_for(w.sim, 20 * SIM_S);
    settle_and_evict();
    ck_assert_int_gt(partition_log_start(w.p).v, 10);
    ck_assert_int_lt(partition_log_start(w.p).v, 18);
    ck_assert_int_ge(partition_size_bytes(w.p), 1000);
    ck_assert_int_le(partition_size_bytes(w.p), 1600);
    w.config.retention_bytes = -1;
    w.config.retention_ms = 1000;
    partition_configure(w.p, &w.config);
    (void)produce_plain(1, 1000, 200);
    (void)produce_plain(1, 1000, 200);
    settle_and_evict();
    sim_run_for(w.sim, 20 * SIM_S);
    int64_t start = partition_log_start(w.p).v;
    ck_assert_int_lt(start, 20); /* a young segment protects all behind it */
    world_end();
}
END_TEST

START_TEST(test_partition__retention_by_time)
{
    world_begin(11);
    w.config.segment_bytes = 400;
    w.config.retention_ms = 1000;
    partition_configure(w.p, &w.config);
    for (int i = 0; i < 10; i++) {
        (void)produce_plain(1, 1000, 200);
    }
    settle_and_evict();
    sim_run_for(w.sim, 20 * SIM_S);
    /* all, also what is in the active segment */
    ck_assert_int_eq(partition_log_start(w.p).v, 10);
    settle_and_evict();
    ck_assert_int_eq(log_files(), 1);
    /* which is closed by the next batch, and then goes too */
    (void)produce_plain(1, INT64_C(4000000000000), 1);
    settle_and_evict();
    sim_run_for(w.sim, 20 * SIM_S);
    ck_assert_int_eq(partition_log_start(w.p).v, 10);
    settle_and_evict();
    ck_assert_int_eq(log_files(), 1);
    ck_assert_int_lt(partition_size_bytes(w.p), 200);
    crash(SIM_DROP_ALL);
    ck_assert_int_eq(partition_log_start(w.p).v, 10);
    ck_assert_int_eq(fetch(10, 1000).n_batches, 1);
    /* What is not old yet keeps the active segment. */
    (void)produce_plain(1, 1000, 1);
    settle_and_evict();
    sim_run_for(w.sim, 20 * SIM_S);
    ck_assert_int_eq(partition_log_start(w.p).v, 10);
    world_end();
}
END_TEST

START_TEST(test_partition__room)
{
    world_begin(12);
    struct produced *d[LIMIT_PRODUCE_WAITING + 1];
    w.host->busy = true;
    for (int i = 0; i <= LIMIT_PRODUCE_WAITING; i++) {
        d[i] = batch_new(1, 1, 1, 9, 0, i);
        send(d[i]);
    }
    run();
    ck_assert(d[LIMIT_PRODUCE_WAITING]->done);
    ck_assert_int_eq(d[LIMIT_PRODUCE_WAITING]->req.error,
                     KAFKA_REQUEST_TIMED_OUT);
    ck_assert(d[0]->req.keeps && !d[0]->done);
    /* Room may come before it is told; nobody overtakes those who wait. */
    w.host->busy = false;
    struct produced *late = batch_new(1, 1, 1, -1, -1, -1);
    partition_produce_cancel(&d[LIMIT_PRODUCE_WAITING - 1]->req);
    send(late);
    run();
    ck_assert(!late->done);
    fake_give_room(w.host);
    run();
    ck_assert(late->done);
    ck_assert_int_eq(late->req.base_offset.v, LIMIT_PRODUCE_WAITING - 1);
    batch_free(late);
    for (int i = 0; i <= LIMIT_PRODUCE_WAITING; i++) {
        ck_assert_int_eq(d[i]->done, i != LIMIT_PRODUCE_WAITING - 1);
        if (i < LIMIT_PRODUCE_WAITING - 1) {
            ck_assert_int_eq(d[i]->req.error, KAFKA_NONE);
            ck_assert_int_eq(d[i]->req.base_offset.v, i);
        }
        batch_free(d[i]);
    }
    world_end();
}
END_TEST

START_TEST(test_partition__min_insync)
{
    world_begin(13);
    w.config.min_insync_replicas = 2;
    partition_configure(w.p, &w.config);
    (void)produce(batch_new(1, 1, 1, -1, -1, -1), KAFKA_NOT_ENOUGH_REPLICAS);
    struct produced *d = batch_new(1, 1, 1, -1, -1, -1);
    d->req.acks = 1;
    (void)produce(d, KAFKA_NONE);
    w.host->n_reachable = 2;
    (void)produce(batch_new(1, 1, 1, -1, -1, -1), KAFKA_NONE);
    world_end();
}
END_TEST

static char *active_path(const char *suffix)
{
    static char path[LIMIT_PATH];
    segment_path(path, w.p->dir, w.p->settled.base.v, suffix);
    return path;
}

/* Rotten bytes are never served; what stands before them is. */
START_TEST(test_partition__damage)
{
    world_begin(14);
    for (int i = 0; i < 4; i++) {
        (void)produce_plain(1, 1000, 100);
    }
    settle_and_evict();
    uint64_t size = w.p->settled.position / 4;
    ck_assert(sim_disk_flip(w.node, active_path("log"), 2 * size + 13, 3));
    struct fetched f = fetch(0, 1 << 20);
    ck_assert_int_eq(f.error, KAFKA_NONE);
    ck_assert_int_eq(f.n_batches, 2);
    f = fetch(2, 1 << 20);
    ck_assert_int_eq(f.error, KAFKA_KAFKA_STORAGE_ERROR);
    ck_assert_int_eq(f.n_batches, 0);
    ck_assert_int_eq(fetch(3, 1 << 20).n_batches, 1);
    ck_assert(sim_disk_flip(w.node, active_path("log"), 2 * size + 13, 3));
    ck_assert_int_eq(fetch(0, 1 << 20).n_batches, 4);
    ck_assert(sim_disk_flip(w.node, active_path("log"), size + 100, 0));
    ck_assert_int_eq(fetch(1, 1 << 20).error, KAFKA_KAFKA_STORAGE_ERROR);
    ck_assert(
        sim_disk_flip(w.node, active_path("side"), side_offset(3) + 50, 0));
    ck_assert_int_ne(fetch(1, 1 << 20).error, KAFKA_NONE);
    world_end();
}
END_TEST

static enum err decode_epochs(const struct epoch_start *starts, uint32_t n,
                              uint64_t term)
{
    struct log_state state = {
        .index = {20}, .next = {9}, .base = {0}, .slots = 1};
    struct epochs in = {0}, out = {0};
    uint8_t blob[SETTLE_BLOB_MAX];
    kafka_offset log_start;
    for (uint32_t i = 0; i < n; i++) {
        epochs_append(&in, starts[i].epoch, starts[i].index, starts[i].offset);
    }
    uint32_t size = settled_encode(&state, (kafka_offset){0}, &in, blob);
    state = (struct log_state){.index = {15}};
    enum err e = settled_decode(blob, size, (raft_term_t){term}, &state,
                                &log_start, &out);
    epochs_free(&in);
    epochs_free(&out);
    return e;
}

/* The blob of a checkpoint is damaged when its epochs are not those of a log
 * that ends with this index and term: entries behind it could have lower ones.
 */
START_TEST(test_partition__epochs_of_a_blob)
{
    const struct epoch_start good[] = {
        {2, {2}, {0}}, {4, {7}, {5}}, {5, {15}, {9}}};
    const struct epoch_start index_goes_back[] = {{2, {7}, {0}}, {4, {7}, {5}}};
    const struct epoch_start index_beyond[] = {{2, {2}, {0}}, {4, {16}, {5}}};
    const struct epoch_start offset_goes_back[] = {{2, {2}, {5}},
                                                   {4, {7}, {4}}};
    const struct epoch_start offset_beyond[] = {{2, {2}, {0}}, {4, {7}, {10}}};
    ck_assert_int_eq(decode_epochs(good, 3, 5), ERR_OK);
    ck_assert_int_eq(decode_epochs(good, 3, 6), ERR_OK);
    ck_assert_int_eq(decode_epochs(good, 3, 4), ERR_CORRUPT);
    ck_assert_int_eq(decode_epochs(index_goes_back, 2, 5), ERR_CORRUPT);
    ck_assert_int_eq(decode_epochs(index_beyond, 2, 5), ERR_CORRUPT);
    ck_assert_int_eq(decode_epochs(offset_goes_back, 2, 5), ERR_CORRUPT);
    ck_assert_int_eq(decode_epochs(offset_beyond, 2, 5), ERR_CORRUPT);
}
END_TEST

/* Appending writes a file's last block again; when that is interrupted, what
 * was durable in it may be gone: a start puts it back from its copy. */
START_TEST(test_partition__torn_tail)
{
    world_begin(20);
    int64_t end = 0;
    for (int round = 0; round < 6; round++) {
        for (int i = 0; i < 3; i++) {
            (void)produce_plain(1, 1000, 700);
            end++;
        }
        settle();
        uint64_t log = w.p->settled.position;
        uint64_t side = side_offset(w.p->settled.slots);
        if (round % 3 == 1) { /* one more settle that comes to no checkpoint */
            (void)produce_plain(1, 1000, 700);
            end++;
            w.host->settle_status = ERR_NOSPACE;
            settle();
        }
        ck_assert(sim_disk_flip(w.node, active_path("log"), log - 5, 3));
        ck_assert(sim_disk_flip(w.node, active_path("side"), side - 5, 3));
        crash(round % 2 == 0 ? SIM_KILL : SIM_RANDOM);
        settle_and_evict();
        ck_assert_int_eq(read_all(0, end, 1 << 20), (int)end);
    }
    world_end();
}
END_TEST

/* ---- bound of reads ------------------------------------------------------ */
static void call_partition_delete(struct env *env, void *arg)
{
    (void)env;
    (void)arg;
    partition_delete(w.p);
}

static void held_cb(struct partition_fetch *req)
{
    *(bool *)req->arg = true;
}

static void call_hold(struct env *env, void *arg)
{
    (void)env;
    ck_assert(!partition_fetch(w.p, arg));
}

static void call_at_once(struct env *env, void *arg)
{
    (void)env;
    ck_assert(partition_fetch(w.p, arg));
}

static void call_release_fetch(struct env *env, void *arg)
{
    (void)env;
    partition_fetch_release(arg);
}

/* Answers that nobody takes use the memory of reads up: others get little, then
 * wait, and go on when one is released. */
START_TEST(test_partition__reads_are_bounded)
{
    enum { FETCHES = 64 };
    struct partition_fetch req[FETCHES];
    bool done[FETCHES] = {false};
    int n = 0;
    world_begin(21);
    for (int i = 0; i < 30; i++) {
        (void)produce_plain(1, 1000, 50000);
    }
    settle_and_evict();
    for (; n < FETCHES && (n == 0 || done[n - 1]); n++) {
        req[n] = (struct partition_fetch){.max_bytes = 1 << 20,
                                          .at_least_one = true,
                                          .current_leader_epoch = -1,
                                          .last_fetched_epoch = -1,
                                          .cb = held_cb,
                                          .arg = &done[n]};
        sim_node_call(w.node, 0, call_hold, &req[n]);
        run();
        ck_assert_uint_le(w.shard->read_bytes, 2 << 20);
        if (done[n]) {
            ck_assert_int_eq(req[n].error, KAFKA_NONE);
            ck_assert_int_ge(req[n].bytes, 50000);
            ck_assert(n == 0 || req[n].bytes < 100000);
        }
    }
    ck_assert_int_ge(n, 18);
    ck_assert_int_lt(n, FETCHES);
    /* who would only have more beside what it has gets nothing, at once */
    bool more_done = false;
    struct partition_fetch more = req[n - 1];
    more.at_least_one = false;
    more.arg = &more_done;
    sim_node_call(w.node, 0, call_at_once, &more);
    ck_assert(!more_done);
    ck_assert_int_eq(more.error, KAFKA_NONE);
    ck_assert_int_eq(more.bytes, 0);
    ck_assert(list_empty(&w.shard->reads) == false);
    ck_assert_ptr_eq(w.shard->reads.next, w.shard->reads.prev);
    sim_node_call(w.node, 0, call_release_fetch, &req[0]);
    run();
    ck_assert(done[n - 1]);
    for (int i = 1; i < n; i++) {
        sim_node_call(w.node, 0, call_release_fetch, &req[i]);
    }
    ck_assert_uint_eq(w.shard->read_bytes, 0);
    world_end();
}
END_TEST

/* A long read of what nobody has read goes past the page cache, the same again
 * through it; both give the same, whole batches at odd places. */
START_TEST(test_partition__read_once_and_again)
{
    struct fetched once, again;
    world_begin(22);
    for (int i = 0; i < 30; i++) {
        (void)produce_plain(1, 1000, 49999 + (size_t)i);
    }
    settle_and_evict();
    for (int64_t from = 0; from < 30; from = once.last + 1) {
        int64_t before = w.p->read_to.v;
        once = fetch(from, 400000);
        ck_assert_int_eq(w.p->read_from.v, 0);
        ck_assert_int_eq(w.p->read_to.v, once.last + 1);
        again = fetch(from, 400000);
        ck_assert_int_eq(w.p->read_to.v, once.last + 1);
        ck_assert_int_eq(before, from);
        ck_assert(!once.at_once && !again.at_once);
        ck_assert_int_eq(once.error, KAFKA_NONE);
        ck_assert_int_eq(once.n_batches, from < 28 ? 7 : 2);
        ck_assert_int_eq(again.n_batches, once.n_batches);
        ck_assert_int_eq(once.first, from);
        ck_assert_int_eq(again.last, once.last);
    }
    (void)fetch(9, 400000); /* somebody else, who is slower */
    ck_assert_int_eq(w.p->read_to.v, 30);
    (void)fetch(9, 1000); /* little is read ahead by the kernel */
    ck_assert_int_eq(w.p->read_to.v, 30);
    ck_assert_uint_eq(w.shard->read_bytes, 0);
    world_end();
}
END_TEST

/* Who reads on and on finds the next piece read already, as much of it as he
 * asks for; who does not come back, or when memory is short, does not. */
START_TEST(test_partition__read_ahead)
{
    const int32_t piece = 262144; /* five batches; two fit into half of 1 MiB */
    struct fetched f;
    bool done = false;
    world_begin(23);
    for (int i = 0; i < 60; i++) {
        (void)produce_plain(1, 1000, 49999 + (size_t)i);
    }
    settle_and_evict();
    ck_assert(!fetch(0, piece).at_once);
    ck_assert_ptr_null(w.p->ahead); /* he may never come back */
    ck_assert(!fetch(5, piece).at_once);
    for (int64_t from = 10; from < 30; from += 5) {
        ck_assert_ptr_nonnull(w.p->ahead);
        ck_assert_uint_gt(w.shard->read_bytes, 200000);
        ck_assert(!fetch(2, 60000).at_once); /* somebody else */
        f = fetch(from, piece);
        ck_assert(f.at_once);
        ck_assert_int_eq(f.first, from);
        ck_assert_int_eq(f.n_batches, 5);
        ck_assert_int_eq(w.p->read_from.v, 0);
        ck_assert_int_eq(w.p->read_to.v, from + 5);
    }
    /* less is asked for than was read ahead */
    f = fetch(30, 120000);
    ck_assert(f.at_once);
    ck_assert_int_eq(f.first, 30);
    ck_assert_int_eq(f.n_batches, 2);
    ck_assert_ptr_null(w.p->ahead); /* so little is not worth it */
    ck_assert_uint_eq(w.shard->read_bytes, 0);
    /* it is asked for while it is being read */
    (void)fetch(32, piece);
    struct fetched soon = fetch_req(37, piece), sooner = fetch_req(42, piece);
    sim_node_call(w.node, 0, call_fetch, &soon);
    ck_assert(soon.done && soon.at_once);
    ck_assert_ptr_nonnull(w.p->ahead);
    sim_node_call(w.node, 0, call_fetch, &sooner);
    ck_assert(!sooner.done);
    ck_assert_ptr_null(w.p->ahead);
    run();
    ck_assert(sooner.done);
    ck_assert_int_eq(sooner.first, 42);
    ck_assert_int_eq(sooner.n_batches, 5);
    /* he does not come back */
    ck_assert_ptr_nonnull(w.p->ahead);
    sim_run_for(w.sim, 1100 * SIM_MS);
    ck_assert_ptr_null(w.p->ahead);
    ck_assert_uint_eq(w.shard->read_bytes, 0);
    ck_assert(!fetch(47, piece).at_once);
    ck_assert_ptr_null(w.p->ahead);
    /* memory is short: who asks goes before */
    (void)fetch(54, piece); /* so that 0 is not what was just read */
    (void)fetch(0, piece);
    (void)fetch(5, piece);
    ck_assert_ptr_nonnull(w.p->ahead);
    struct partition_fetch hold = {.offset = {30},
                                   .max_bytes = 1 << 20,
                                   .at_least_one = true,
                                   .current_leader_epoch = -1,
                                   .last_fetched_epoch = -1,
                                   .cb = held_cb,
                                   .arg = &done};
    sim_node_call(w.node, 0, call_hold, &hold);
    ck_assert_ptr_null(w.p->ahead);
    run();
    ck_assert(done);
    ck_assert_int_gt(hold.bytes, 900000);
    sim_node_call(w.node, 0, call_release_fetch, &hold);
    /* it is closed with a piece read ahead */
    (void)fetch(10, piece);
    (void)fetch(15, piece);
    ck_assert_ptr_nonnull(w.p->ahead);
    sim_node_call(w.node, 0, call_partition_delete, NULL);
    run();
    ck_assert_int_eq(w.n_closed, 1);
    ck_assert_uint_eq(w.shard->read_bytes, 0);
    world_end();
}
END_TEST

/* A settle that fails for want of space is repeated, nothing is lost. */
START_TEST(test_partition__settle_repeated)
{
    world_begin(15);
    w.config.segment_bytes = 600;
    partition_configure(w.p, &w.config);
    int64_t end = 0;
    for (int i = 0; i < 30; i++) {
        (void)produce_plain(1, 1000, 100);
        end++;
        if (i % 3 == 0) {
            w.host->settle_status = ERR_NOSPACE;
            settle();
        }
        if (i % 5 == 0) {
            settle_and_evict();
        }
    }
    ck_assert_int_eq(read_all(0, end, 1 << 20), 30);
    settle_and_evict();
    crash(SIM_DROP_ALL);
    ck_assert_int_eq(read_all(0, end, 1 << 20), 30);
    /* the list of segments is derived */
    char path[LIMIT_PATH];
    snprintf(path, sizeof path, "%s/segments", w.p->dir);
    size_t n = partition_segment_count(w.p);
    ck_assert(sim_disk_flip(w.node, path, 20, 1));
    crash(SIM_KILL);
    ck_assert_uint_eq(partition_segment_count(w.p), n);
    ck_assert_int_eq(read_all(0, end, 1 << 20), 30);
    world_end();
}
END_TEST

static void on_emptied(void *arg)
{
    *(bool *)arg = true;
}

static void on_wake(struct partition_waiter *waiter)
{
    (*(int *)waiter->arg)++;
}

START_TEST(test_partition__delete_and_waiters)
{
    int woken = 0;
    struct partition_waiter waiter = {.wake = on_wake, .arg = &woken};
    world_begin(16);
    partition_wait(w.p, &waiter);
    run();
    ck_assert_int_eq(woken, 0);
    (void)produce_plain(1, 1, 1);
    ck_assert_int_eq(woken, 1);
    (void)produce_plain(1, 1, 1);
    ck_assert_int_eq(woken, 1);
    partition_wait(w.p, &waiter);
    partition_unwait(&waiter);
    partition_unwait(&waiter);
    (void)produce_plain(1, 1, 1);
    ck_assert_int_eq(woken, 1);
    settle_and_evict();
    ck_assert_int_eq(log_files(), 1);
    partition_wait(w.p, &waiter);
    w.host->hold_commit = true;
    struct produced *d = batch_new(1, 1, 1, -1, -1, -1);
    send(d);
    /* a worker removes its files: the shard is not empty before */
    bool emptied = false;
    partition_shard_when_empty(w.shard, on_emptied, &emptied);
    sim_disk_stall(w.node, sim_now_ns(w.sim) + 500 * SIM_MS);
    sim_node_call(w.node, 0, call_partition_delete, NULL);
    run();
    ck_assert(!emptied);
    sim_run_for(w.sim, 500 * SIM_MS);
    ck_assert(emptied);
    ck_assert_int_eq(woken, 2);
    ck_assert(d->done);
    ck_assert_int_eq(d->req.error, KAFKA_NOT_LEADER_OR_FOLLOWER);
    ck_assert_int_eq(w.n_closed, 1);
    ck_assert_int_eq(log_files(), 0);
    batch_free(d);
    world_end();
}
END_TEST

START_TEST(test_partition__append_time)
{
    world_begin(17);
    w.config.timestamp_type = TIMESTAMP_APPEND;
    partition_configure(w.p, &w.config);
    struct produced *d = batch_new(2, 5, 10, 9, 0, 0);
    send(d);
    run();
    ck_assert_int_eq(d->req.error, KAFKA_NONE);
    int64_t time = d->req.log_append_time_ms;
    ck_assert_int_gt(time, 1000);
    sim_run_for(w.sim, SIM_S);
    send(d);
    run();
    ck_assert_int_eq(d->req.base_offset.v, 0);
    ck_assert_int_eq(d->req.log_append_time_ms, time);
    ck_assert_int_eq(list_at(6, 11).found_timestamp, time);
    ck_assert_int_eq(fetch(0, 1000).n_batches, 1);
    batch_free(d);
    world_end();
}
END_TEST

START_TEST(test_partition__producers_expire)
{
    world_begin(18);
    w.config.producer_id_expiration_ms = 30000;
    partition_configure(w.p, &w.config);
    (void)produce_as(9, 0, 0, 1, KAFKA_NONE);
    (void)produce_as(10, 0, 0, 1, KAFKA_NONE);
    settle_and_evict();
    sim_run_for(w.sim, 20 * SIM_S);
    (void)produce_as(10, 0, 1, 1, KAFKA_NONE);
    sim_run_for(w.sim, 20 * SIM_S);
    ck_assert_uint_eq(producers_count(w.p->producers), 1);
    settle_and_evict();
    crash(SIM_DROP_ALL);
    ck_assert_uint_eq(producers_count(w.p->producers), 1);
    (void)produce_as(10, 0, 3, 1, KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER);
    (void)produce_as(9, 0, 7, 1, KAFKA_NONE);
    world_end();
}
END_TEST

struct dumped {
    struct dump_summary sum;
    int64_t next;
    int bad;
    uint64_t digests;
};

static void dumped_batch(void *arg, const struct dump_batch *b)
{
    struct dumped *d = arg;
    ck_assert_int_eq(b->header.base_offset.v, d->next);
    d->next = batch_last_offset(&b->header).v + 1;
    d->digests = d->digests * 31 + b->digest;
    d->bad += b->crc_ok && b->side_ok ? 0 : 1;
}

static void call_dump(struct env *env, void *arg)
{
    static const struct dump_ops ops = {.batch = dumped_batch};
    struct dumped *d = arg;
    ck_assert_int_eq(partition_dump(env, w.p->dir, &ops, d, &d->sum), ERR_OK);
}

static struct dumped dump(void)
{
    struct dumped d = {.next = 0};
    sim_node_call(w.node, 0, call_dump, &d);
    return d;
}

START_TEST(test_partition__dump)
{
    world_begin(19);
    w.config.segment_bytes = 600;
    partition_configure(w.p, &w.config);
    for (int i = 0; i < 12; i++) {
        (void)produce_plain(1 + i % 3, 1000, 100);
        if (i % 2 == 0) {
            settle();
        }
    }
    settle();
    struct dumped d = dump();
    ck_assert_uint_eq(d.sum.batches, 12);
    ck_assert_uint_eq(d.sum.records, 24);
    ck_assert_int_eq(d.sum.end.v, 24);
    ck_assert_uint_eq(d.sum.others, 1);
    ck_assert_uint_eq(d.sum.damaged, 0);
    ck_assert(!d.sum.tail_left);
    ck_assert_uint_eq(d.sum.chain, w.p->settled.chain);
    ck_assert_uint_eq(d.sum.last.v, w.p->settled.index.v);
    ck_assert_uint_eq(d.sum.segments, partition_segment_count(w.p));
    ck_assert(sim_disk_flip(w.node, active_path("log"), 100, 3));
    struct dumped bad = dump();
    ck_assert_uint_eq(bad.sum.damaged, 1);
    ck_assert_int_eq(bad.bad, 1);
    ck_assert_uint_ne(bad.digests, d.digests);
    ck_assert(sim_disk_flip(w.node, active_path("log"), 100, 3));
    /* the leader epoch is not in the batch's CRC, but in the side file's */
    ck_assert(sim_disk_flip(w.node, active_path("log"), 13, 3));
    ck_assert_uint_eq(dump().sum.damaged, 1);
    ck_assert(sim_disk_flip(w.node, active_path("log"), 13, 3));
    uint64_t slots = w.p->settled.slots;
    ck_assert(sim_disk_flip(w.node, active_path("side"),
                            side_offset(slots - 1) + 9, 3));
    ck_assert(dump().sum.tail_left);
    world_end();
}
END_TEST

/* ---- a long random run beside a model ------------------------------------ */
#define MODEL_BATCHES 4000
struct model {
    int64_t base[MODEL_BATCHES + 1]; /* [n] = end */
    int64_t time[MODEL_BATCHES];
    int n;
    int64_t start;
    int32_t sequence[3];
};
static struct model m;

static void model_produce(struct prng *prng)
{
    int records = (int)prng_between(prng, 1, 5);
    int64_t time = (int64_t)prng_below(prng, 1000) * 10;
    int who = (int)prng_below(prng, 4);
    struct produced *d =
        batch_new(records, time, prng_below(prng, 400), who < 3 ? who : -1,
                  who < 3 ? 0 : -1, who < 3 ? m.sequence[who] : -1);
    int64_t base = produce(d, KAFKA_NONE);
    ck_assert_int_eq(base, m.base[m.n]);
    if (who < 3) {
        m.sequence[who] += records;
        if (prng_chance(prng, 1, 4)) { /* sent again */
            d = batch_new(records, time, 10, who, 0, m.sequence[who] - records);
            ck_assert_int_eq(produce(d, KAFKA_NONE), base);
        }
    }
    m.time[m.n++] = time;
    m.base[m.n] = base + records;
}

static void model_fetch(struct prng *prng)
{
    int64_t end = m.base[m.n];
    int64_t from = (int64_t)prng_below(prng, (uint64_t)end + 2);
    struct fetched f = fetch(from, (int32_t)prng_below(prng, 5000));
    if (from > end || from < m.start) {
        ck_assert_int_eq(f.error, KAFKA_OFFSET_OUT_OF_RANGE);
        return;
    }
    ck_assert_int_eq(f.error, KAFKA_NONE);
    if (from == end) {
        ck_assert_int_eq(f.n_batches, 0);
        return;
    }
    int i = 0;
    while (m.base[i + 1] <= from) {
        i++;
    }
    ck_assert_int_eq(f.first, m.base[i]);
    ck_assert_int_eq(f.last, m.base[i + f.n_batches] - 1);
}

/* First offset at or after this time: record j of a batch has time + j. */
static int64_t model_list(int64_t time)
{
    for (int i = 0; i < m.n; i++) {
        for (int64_t o = m.base[i]; o < m.base[i + 1]; o++) {
            if (o >= m.start && m.time[i] + (o - m.base[i]) >= time) {
                return o;
            }
        }
    }
    return -1;
}

START_TEST(test_partition__random_beside_model)
{
    static const enum sim_crash how[] = {SIM_KILL, SIM_DROP_ALL, SIM_KEEP_ALL,
                                         SIM_RANDOM, SIM_TORN};
    world_begin((uint64_t)_i + 100);
    struct prng *prng = sim_prng(w.sim);
    memset(&m, 0, sizeof m);
    w.config.segment_bytes = (int32_t)prng_between(prng, 3000, 9000);
    partition_configure(w.p, &w.config);
    for (int step = 0; step < 1500; step++) {
        uint64_t what = prng_below(prng, 100);
        if (what < 45) {
            model_produce(prng);
        } else if (what < 80) {
            model_fetch(prng);
        } else if (what < 88) {
            int64_t time = (int64_t)prng_below(prng, 11000);
            ck_assert_int_eq(list_offset(time), model_list(time));
        } else if (what < 94) {
            settle();
        } else if (what < 97) {
            settle_and_evict();
        } else if (what < 98 && m.n > 0) {
            int64_t before =
                (int64_t)prng_below(prng, (uint64_t)m.base[m.n] + 1);
            m.start = before > m.start ? before : m.start;
            ck_assert_int_eq(delete_before(before).req.low_watermark.v,
                             m.start);
        } else if (what == 98) {
            if (prng_chance(prng, 1, 2)) {
                sim_node_call(w.node, 0, call_settle, w.host);
                sim_run_for(w.sim, prng_below(prng, 2000) * SIM_US);
            }
            crash(how[prng_below(prng, 5)]);
        }
        ck_assert_int_eq(partition_high_watermark(w.p).v, m.base[m.n]);
        ck_assert_int_eq(partition_log_start(w.p).v, m.start);
    }
    world_end();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("partition");
    TCase *tc = tcase_create("partition");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, test_partition__produce_and_fetch);
    tcase_add_test(tc, test_partition__acks);
    tcase_add_test(tc, test_partition__fetch_across_segments);
    tcase_add_test(tc, test_partition__restart);
    tcase_add_test(tc, test_partition__idempotence);
    tcase_add_test(tc, test_partition__deposed_leader);
    tcase_add_test(tc, test_partition__gap_behind_one_turned_away);
    tcase_add_test(tc, test_partition__duplicate_and_truncation);
    tcase_add_test(tc, test_partition__truncated_epoch);
    tcase_add_test(tc, test_partition__delete_while_settling);
    tcase_add_test(tc, test_partition__role_and_epochs);
    tcase_add_test(tc, test_partition__list_offsets);
    tcase_add_loop_test(tc, test_partition__list_newest_after_delete, 0, 3);
    tcase_add_test(tc, test_partition__delete_records);
    tcase_add_test(tc, test_partition__retention);
    tcase_add_test(tc, test_partition__retention_by_time);
    tcase_add_test(tc, test_partition__room);
    tcase_add_test(tc, test_partition__min_insync);
    tcase_add_test(tc, test_partition__damage);
    tcase_add_test(tc, test_partition__epochs_of_a_blob);
    tcase_add_test(tc, test_partition__torn_tail);
    tcase_add_test(tc, test_partition__reads_are_bounded);
    tcase_add_test(tc, test_partition__read_once_and_again);
    tcase_add_test(tc, test_partition__read_ahead);
    tcase_add_test(tc, test_partition__settle_repeated);
    tcase_add_test(tc, test_partition__delete_and_waiters);
    tcase_add_test(tc, test_partition__append_time);
    tcase_add_test(tc, test_partition__producers_expire);
    tcase_add_test(tc, test_partition__dump);
    tcase_add_loop_test(tc, test_partition__random_beside_model, 0, 8);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
