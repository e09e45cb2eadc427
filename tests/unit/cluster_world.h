/* One partition on three brokers: real hosts, write-ahead logs and transports
 * in the simulator, a producer and a reader. Included by one test program. */
#ifndef TESTS_UNIT_CLUSTER_WORLD_H
#define TESTS_UNIT_CLUSTER_WORLD_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "partition/bytes.h"
#include "partition/dump.h"
#include "partition/partition_impl.h"
#include "raft/transport.h"
#include "tests/sim/sim_env.h"

#define N 3
#define IN_FLIGHT 5

struct node {
    struct sim_node *sim_node;
    int id;
    struct transport *transport;
    struct raft_host *host;
    struct partition_shard *shard;
    struct partition *p, *other;
    bool refused; /* its log is damaged beyond proof */
};

static struct sim *sim;
static struct node nodes[N];
static struct partition_config config;
static bool small_buffer;
static uint64_t scrub;    /* bytes a second */
static bool settles_late; /* all stays in the write-ahead log */
static bool may_refuse;   /* a node may refuse to start, or end itself */
static bool with_other;   /* a second partition, on the same log */

/* A compacted partition: value i has this key, and some are tombstones. The
 * first values have keys of their own, of which some are taken back later and
 * the others stay, so that the log's beginning is not empty. */
#define KEYS_OFTEN 40
#define KEYS_ONCE 60
#define KEYS_TAKEN_BACK 25
#define KEYS (KEYS_OFTEN + KEYS_ONCE)
static bool keyed;
static bool takes_back(int64_t value)
{
    return value >= KEYS_ONCE && value % 9 == 0;
}
static int key_of(int64_t value)
{
    if (value < KEYS_ONCE) {
        return KEYS_OFTEN + (int)value;
    }
    if (takes_back(value)) {
        return KEYS_OFTEN + (int)(value / 9 % KEYS_TAKEN_BACK);
    }
    return (int)(((uint64_t)value * 0x9e3779b97f4a7c15u >> 40) % KEYS_OFTEN);
}
static bool is_tombstone(int64_t value)
{
    return keyed &&
           (takes_back(value) || (value >= KEYS_ONCE && value % 7 == 3));
}

static enum err admit(void *arg, const struct uuid *cluster, node_id node,
                      const struct uuid *directory, char *why, size_t why_size)
{
    (void)arg, (void)cluster, (void)node, (void)directory;
    (void)why, (void)why_size;
    return ERR_OK;
}

static void peer_up(void *arg, node_id node)
{
    raft_host_peer_up(((struct node *)arg)->host, node);
}

static void peer_down(void *arg, node_id node)
{
    raft_host_peer_down(((struct node *)arg)->host, node);
}

static const struct transport_ops peer_ops = {admit, peer_up, peer_down};

static void boot(struct env *env, void *arg)
{
    struct node *n = arg;
    char address[32];
    struct transport_options transport = {
        .env = env,
        .n_shards = 1,
        .node = n->id,
        .directory = {{(uint8_t)(n->id + 1)}},
        .ping_ms = 100,
        .silence_ms = 600,
        .queue_bytes_max = 4 << 20,
    };
    n->p = NULL;
    n->transport = transport_new(&transport, &peer_ops, n);
    struct raft_host_options host = {
        .env = env,
        .dir = "raft",
        .node = n->id,
        .directory = transport.directory,
        .transport = n->transport,
        .tick_ms = 50,
        .heartbeat_ms = 500,
        .election_ms = 2500,
        .log_buffer_bytes = small_buffer ? 4 << 20 : 16 << 20,
        .wal_file_bytes = small_buffer ? 4 << 20 : 16 << 20,
        .wal_bytes_max = 64 << 20,
        .settle_ms = settles_late ? 3600000 : 200,
        .settle_bytes = settles_late ? 1 << 20 : 65536,
    };
    enum err e = raft_host_new(&host, &n->host);
    if (e != ERR_OK && may_refuse) {
        n->refused = true;
        return;
    }
    ck_assert_int_eq(e, ERR_OK);
    struct partition_shard_options shard = {.env = env,
                                            .host = n->host,
                                            .dir = "topics",
                                            .open_files_max = 8,
                                            .read_bytes_max = 4 << 20,
                                            .scrub_bytes_per_s = scrub};
    n->shard = partition_shard_new(&shard);
    struct group_creation creation = {.id = {{{7}}, 3},
                                      .directory = transport.directory,
                                      .self = (replica_id)n->id + 1,
                                      .n_replicas = N};
    for (int i = 0; i < N; i++) {
        creation.replicas[i] = (struct group_replica){(replica_id)i + 1, i};
    }
    struct partition_ops ops = {0};
    e = partition_open(n->shard, &creation, "t-3", &config, &ops, NULL, &n->p);
    if (e == ERR_LOST && may_refuse) { /* no record of its creation is left */
        n->p = NULL;
        n->refused = true;
        return;
    }
    ck_assert_int_eq(e, ERR_OK);
    if (with_other) {
        creation.id.partition = 4;
        ck_assert_int_eq(partition_open(n->shard, &creation, "t-4", &config,
                                        &ops, NULL, &n->other),
                         ERR_OK);
    }
    snprintf(address, sizeof address, "n%d:1", n->id);
    ck_assert_int_eq(transport_listen(n->transport, address), ERR_OK);
    for (int i = 0; i < N; i++) {
        snprintf(address, sizeof address, "n%d:1", i);
        transport_set_peer(n->transport, i, address);
    }
}

static void world_begin(uint64_t seed)
{
    sim = sim_new(seed);
    sim_set_verbose(sim, getenv("SIM_VERBOSE") != NULL);
    small_buffer = false;
    keyed = settles_late = with_other = may_refuse = false;
    scrub = 0;
    config = (struct partition_config){
        .cleanup_delete = true,
        .retention_ms = -1,
        .retention_bytes = -1,
        .segment_bytes = 300000,
        .segment_ms = INT64_MAX,
        .max_message_bytes = 1 << 20,
        .timestamp_before_max_ms = INT64_MAX,
        .timestamp_after_max_ms = INT64_MAX,
        .min_insync_replicas = 1,
        .producer_id_expiration_ms = 86400000,
    };
}

static void world_start(void)
{
    for (int i = 0; i < N; i++) {
        char name[8];
        snprintf(name, sizeof name, "n%d", i);
        nodes[i] = (struct node){.id = i};
        nodes[i].sim_node = sim_node_add(sim, name, 1);
        sim_node_start(nodes[i].sim_node, boot, &nodes[i]);
    }
    sim_run_for(sim, 2 * SIM_S);
}

static struct node *leader(void)
{
    struct node *found = NULL;
    for (int i = 0; i < N; i++) {
        if (!sim_node_up(nodes[i].sim_node) || nodes[i].p == NULL) {
            continue;
        }
        struct group_role role = partition_role(nodes[i].p);
        if (role.is_leader && role.ready) {
            found = &nodes[i];
        }
    }
    return found;
}

static void crash(struct node *n, enum sim_crash how)
{
    n->p = n->other = NULL;
    sim_node_crash(n->sim_node, how);
}

/* ---- the producer -------------------------------------------------------- */
/* Idempotent: keeps some batches in flight, in order, sends all that are not
 * acknowledged again when one fails or its broker is gone. Value i of the log
 * is i, so that what is read tells its place. */
struct sent {
    struct partition_produce req;
    struct batch_builder builder;
    struct node *node;
    unsigned start; /* of the node it went to */
    bool waiting, done;
    int64_t value;
    int64_t base; /* acknowledged; -1 not yet */
};

static struct {
    struct sent *batches[20000];
    int first, n; /* first not acknowledged */
    int64_t value;
    size_t size; /* of a value */
    uint64_t retries;
} producer;

static void sent_cb(struct partition_produce *req)
{
    struct sent *s = req->arg;
    s->waiting = false;
    s->done = true;
}

static void call_produce(struct env *env, void *arg)
{
    struct sent *s = arg;
    (void)env;
    partition_produce(s->node->p, &s->req);
}

static struct sent *batch_new(int n)
{
    struct sent *s = calloc(1, sizeof *s);
    const uint8_t *bytes;
    size_t size;
    uint8_t *value = calloc(1, producer.size);
    s->base = -1;
    s->value = producer.value;
    batch_builder_init(&s->builder, CODEC_NONE);
    s->builder.producer_id = 77;
    s->builder.producer_epoch = 0;
    s->builder.base_sequence = (int32_t)producer.value;
    for (int i = 0; i < n; i++) {
        char key[8];
        int key_size = snprintf(key, sizeof key, "%d", key_of(producer.value));
        bool tombstone = is_tombstone(producer.value);
        put_i64(value, producer.value++);
        batch_builder_add(&s->builder, 1000, keyed ? key : NULL,
                          keyed ? key_size : -1, tombstone ? NULL : value,
                          tombstone ? -1 : (int32_t)producer.size, NULL, 0);
    }
    free(value);
    ck_assert_int_eq(batch_builder_finish(&s->builder, &bytes, &size), ERR_OK);
    s->req.batch = bytes;
    s->req.size = (uint32_t)size;
    s->req.acks = -1;
    s->req.api_version = 11;
    s->req.cb = sent_cb;
    s->req.arg = s;
    return s;
}

static bool lost(const struct sent *s)
{
    return s->waiting && (!sim_node_up(s->node->sim_node) ||
                          sim_node_starts(s->node->sim_node) != s->start);
}

static void look_at(struct sent *s)
{
    if (lost(s)) {
        s->waiting = false;
        producer.retries++;
    } else if (s->done && s->base < 0) {
        s->done = false;
        if (s->req.error == KAFKA_NONE) {
            ck_assert_int_eq(s->req.base_offset.v, s->value);
            s->base = s->req.base_offset.v;
        } else {
            ck_assert(s->req.error == KAFKA_NOT_LEADER_OR_FOLLOWER ||
                      s->req.error == KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER ||
                      s->req.error == KAFKA_REQUEST_TIMED_OUT);
            producer.retries++;
        }
    }
}

/* Acknowledged up to `n` batches, or the time is over. */
static bool produce_until(int n, uint64_t seconds)
{
    uint64_t end = sim_now_ns(sim) + seconds * SIM_S;
    while (producer.first < n && sim_now_ns(sim) < end) {
        bool idle = true;
        while (producer.n < n && producer.n - producer.first < IN_FLIGHT) {
            struct sent *s = batch_new(1 + producer.n % 3);
            producer.batches[producer.n++] = s;
        }
        for (int i = producer.first; i < producer.n; i++) {
            look_at(producer.batches[i]);
            idle = idle && !producer.batches[i]->waiting;
        }
        /* Sent again only when none is under way, so that order holds. */
        struct node *l = leader();
        for (int i = producer.first; idle && l != NULL && i < producer.n; i++) {
            struct sent *s = producer.batches[i];
            if (s->base < 0) {
                s->node = l;
                s->start = sim_node_starts(l->sim_node);
                s->waiting = true;
                sim_node_call(l->sim_node, 0, call_produce, s);
            }
        }
        sim_run_for(sim, 2 * SIM_MS);
        while (producer.first < producer.n &&
               producer.batches[producer.first]->base >= 0) {
            producer.first++;
        }
    }
    return producer.first >= n;
}

static void producer_begin(size_t size)
{
    memset(&producer, 0, sizeof producer);
    producer.size = size;
}

static void producer_end(void)
{
    for (int i = 0; i < producer.n; i++) {
        batch_builder_free(&producer.batches[i]->builder);
        free(producer.batches[i]);
    }
}

/* ---- the reader ---------------------------------------------------------- */
struct reading {
    struct partition_fetch req;
    struct node *node;
    int64_t next, end;
    bool waiting;
    uint64_t digest;
    int64_t newest[KEYS]; /* value of each key; -1 none or a tombstone */
    int records;
};

static void read_record(struct reading *r, const struct batch_header *h,
                        const struct batch_record *record)
{
    int64_t offset = h->base_offset.v + record->offset_delta;
    r->newest[key_of(offset)] = record->value == NULL ? -1 : offset;
    r->records++;
    if (is_tombstone(offset)) {
        ck_assert_int_eq(record->value_size, -1);
    } else {
        ck_assert_int_eq(get_i64(record->value), offset);
    }
}

static int storage_errors; /* answers that damage was found */

static void read_batches(struct reading *r)
{
    if (r->req.error == KAFKA_KAFKA_STORAGE_ERROR) {
        storage_errors++;
        partition_fetch_release(&r->req);
        r->waiting = false;
        return;
    }
    ck_assert_int_eq(r->req.error, KAFKA_NONE);
    for (int i = 0; i < r->req.n_iov; i++) {
        const uint8_t *at = r->req.iov[i].iov_base;
        size_t left = r->req.iov[i].iov_len;
        while (left > 0) {
            struct batch_records records;
            struct batch_record record;
            struct batch_header h;
            ck_assert_int_eq(batch_header_read(at, left, &h), ERR_OK);
            size_t size = batch_size(&h);
            ck_assert(batch_is_whole(at, size));
            if (!keyed) {
                ck_assert_int_eq(h.base_offset.v, r->next);
            }
            ck_assert_int_eq(batch_records_open(&records, at, size, 1 << 20),
                             ERR_OK);
            while (batch_records_next(&records, &record)) {
                read_record(r, &h, &record);
            }
            r->next = batch_last_offset(&h).v + 1;
            batch_records_close(&records);
            r->digest = r->digest * 31 + dump_digest(at, size);
            at += size;
            left -= size;
        }
    }
    partition_fetch_release(&r->req);
    r->waiting = false;
}

static void read_cb(struct partition_fetch *req)
{
    read_batches(req->arg);
}

static void call_fetch(struct env *env, void *arg)
{
    struct reading *r = arg;
    (void)env;
    r->req = (struct partition_fetch){.offset = {r->next},
                                      .max_bytes = 100000,
                                      .at_least_one = true,
                                      .current_leader_epoch = -1,
                                      .last_fetched_epoch = -1,
                                      .from_follower_ok = true,
                                      .cb = read_cb,
                                      .arg = r};
    r->waiting = true;
    if (partition_fetch(r->node->p, &r->req)) {
        read_batches(r);
    }
}

/* All batches from `from` to the high watermark of this replica. */
static void read_all(struct node *n, int64_t from, struct reading *r)
{
    *r = (struct reading){.node = n, .next = from};
    for (int i = 0; i < KEYS; i++) {
        r->newest[i] = -1;
    }
    int waits = 0;
    int64_t end = partition_high_watermark(n->p).v;
    while (r->next < end) {
        int64_t was = r->next;
        sim_node_call(n->sim_node, 0, call_fetch, r);
        while (r->waiting) {
            ck_assert(sim_step(sim));
        }
        if (r->next == was) { /* damage: it is repaired soon */
            ck_assert_int_lt(++waits, 200);
            sim_run_for(sim, 100 * SIM_MS);
        }
    }
}

/* The digest of them. */
static uint64_t read_replica(struct node *n, int64_t from)
{
    struct reading r;
    read_all(n, from, &r);
    return r.digest;
}

static bool all_equal(void *arg)
{
    (void)arg;
    for (int i = 0; i < N; i++) {
        if (nodes[i].p == NULL ||
            partition_high_watermark(nodes[i].p).v != producer.value) {
            return false;
        }
    }
    return true;
}

static void check_replicas(void)
{
    ck_assert(sim_run_while_not(sim, all_equal, NULL, 120 * SIM_S));
    int64_t from = 0;
    for (int i = 0; i < N; i++) {
        int64_t start = partition_log_start(nodes[i].p).v;
        from = start > from ? start : from;
    }
    uint64_t digest = read_replica(&nodes[0], from);
    for (int i = 1; i < N; i++) {
        ck_assert_uint_eq(read_replica(&nodes[i], from), digest);
    }
}

/* ---- a compacted partition ----------------------------------------------- */
static void whole_batch(void *arg, const struct dump_batch *b)
{
    (void)arg;
    ck_assert(b->crc_ok && b->side_ok);
}

/* Every replica tells the table that was produced, and its files are whole;
 * the most records that one of them has. */
static int check_tables(void)
{
    static const struct dump_ops ops = {.batch = whole_batch};
    int64_t newest[KEYS];
    int most = 0;
    ck_assert(sim_run_while_not(sim, all_equal, NULL, 120 * SIM_S));
    memset(newest, 0xff, sizeof newest);
    for (int64_t v = 0; v < producer.value; v++) {
        newest[key_of(v)] = is_tombstone(v) ? -1 : v;
    }
    for (int i = 0; i < N; i++) {
        struct reading r;
        struct dump_summary sum;
        read_all(&nodes[i], partition_log_start(nodes[i].p).v, &r);
        for (int key = 0; key < KEYS; key++) {
            ck_assert_int_eq(r.newest[key], newest[key]);
        }
        most = r.records > most ? r.records : most;
        if (nodes[i].p->settled.slots > 0) {
            ck_assert_int_eq(partition_dump(nodes[i].p->env, nodes[i].p->dir,
                                            &ops, NULL, &sum),
                             ERR_OK);
            ck_assert_uint_eq(sum.damaged, 0);
        }
    }
    return most;
}

#endif
