/* The whole store of one broker: host, write-ahead log, votes, checkpoints, and
 * three partitions with segments that roll, side files, lists of segments,
 * snapshots of producers, deleted records; one of them is deleted and made
 * again. Its replicas are alone in their groups, so what is durable is
 * committed, and a recovery must find
 *   - every batch that was acknowledged, at its offset, the same bytes;
 *   - none that was not sent, none that an earlier recovery did not have;
 *   - no lower term, settled index, log start than were told;
 *   - producers whose next batch is taken and whose last one is a duplicate;
 *   - files in which `flotilla log verify` finds no damage.
 * Included by one test program: other ones bring a host of their own. */
#ifndef TESTS_UNIT_CRASH_LOAD_STORE_H
#define TESTS_UNIT_CRASH_LOAD_STORE_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "partition/batch.h"
#include "partition/bytes.h"
#include "partition/dump.h"
#include "partition/partition.h"
#include "raft/transport.h"
#include "tests/unit/crash_points.h"

#define PARTS 3
#define SHORT_LIVED 2 /* the one that is deleted */
#define BATCHES 4000

struct sent {
    struct partition_produce req;
    struct batch_builder builder;
    int part;
    int64_t base; /* where it must be */
    int32_t sequence, n;
    uint32_t crc; /* of all but the base offset, as far as it is kept */
    bool acked, gone, failed;
};

struct part {
    struct partition *p;
    bool wanted; /* it was created, and not asked to be deleted */
    bool deleting;
    int64_t incarnation; /* topics are never used twice */
    struct sent *sent[BATCHES];
    int n_sent;
    int64_t end;      /* offset of the next batch */
    int32_t sequence; /* of the next batch */
    int64_t start_told, start_asked;
    uint64_t settled_told;
    int64_t term_told;
    struct partition_delete_records deletion;
    bool deletes;
};

static struct {
    struct sim *sim;
    struct sim_node *node;
    struct prng prng;
    struct transport *transport;
    struct raft_host *host;
    struct partition_shard *shard;
    struct part parts[PARTS];
    uint64_t n_acked;
    enum err status;
} w;

/* ---- the broker ---------------------------------------------------------- */
static enum err admit(void *arg, const struct uuid *cluster, node_id node,
                      const struct uuid *directory, char *why, size_t why_size)
{
    (void)arg, (void)cluster, (void)node, (void)directory;
    (void)why, (void)why_size;
    return ERR_OK;
}

static void peer_changed(void *arg, node_id node)
{
    (void)arg, (void)node;
}

static void part_closed(void *arg, struct partition *p)
{
    struct part *part = arg;
    (void)p;
    part->p = NULL;
    if (part->deleting) {
        part->deleting = false;
        part->wanted = false;
    }
}

static struct group_creation creation_of(int k)
{
    struct group_creation creation = {
        .id = {{{7, (uint8_t)w.parts[k].incarnation}}, k},
        .directory = {{9}},
        .self = 1,
        .n_replicas = 1,
        .replicas = {{.id = 1, .node = 0}}};
    return creation;
}

static void open_part(int k)
{
    static const struct partition_config config = {
        .cleanup_delete = true,
        .retention_ms = -1,
        .retention_bytes = -1,
        .segment_bytes = 6000,
        .segment_ms = INT64_MAX,
        .max_message_bytes = 1 << 20,
        .timestamp_before_max_ms = INT64_MAX,
        .timestamp_after_max_ms = INT64_MAX,
        .min_insync_replicas = 1,
        .producer_id_expiration_ms = 86400000,
    };
    char name[16];
    struct part *part = &w.parts[k];
    struct group_creation creation = creation_of(k);
    struct partition_ops ops = {.closed = part_closed};
    snprintf(name, sizeof name, "t-%d", k);
    enum err e =
        partition_open(w.shard, &creation, name, &config, &ops, part, &part->p);
    w.status = e == ERR_OK ? w.status : e;
}

static void boot(struct env *env, void *arg)
{
    static const struct transport_ops ops = {admit, peer_changed, peer_changed};
    struct transport_options transport = {.env = env,
                                          .n_shards = 1,
                                          .directory = {{9}},
                                          .ping_ms = 100,
                                          .silence_ms = 600,
                                          .queue_bytes_max = 1 << 20};
    (void)arg;
    w.status = ERR_OK;
    w.transport = transport_new(&transport, &ops, NULL);
    struct raft_host_options host = {.env = env,
                                     .dir = "raft",
                                     .directory = transport.directory,
                                     .transport = w.transport,
                                     .tick_ms = 50,
                                     .heartbeat_ms = 500,
                                     .election_ms = 2500,
                                     .log_buffer_bytes = 64 << 10,
                                     .wal_file_bytes = 64 << 10,
                                     .wal_bytes_max = 256 << 10,
                                     .settle_ms = 5,
                                     .settle_bytes = 2000};
    w.status = raft_host_new(&host, &w.host);
    if (w.status != ERR_OK) {
        return;
    }
    struct partition_shard_options shard = {.env = env,
                                            .host = w.host,
                                            .dir = "topics",
                                            .open_files_max = 8,
                                            .read_bytes_max = 1 << 20};
    w.shard = partition_shard_new(&shard);
    for (int k = 0; k < PARTS && w.status == ERR_OK; k++) {
        if (w.parts[k].wanted) {
            open_part(k);
        }
    }
}

static bool all_ready(void *arg)
{
    (void)arg;
    for (int k = 0; k < PARTS; k++) {
        struct part *part = &w.parts[k];
        if (part->wanted && !part->deleting &&
            (part->p == NULL || !partition_role(part->p).ready)) {
            return false;
        }
    }
    return true;
}

/* ---- produce ------------------------------------------------------------- */
static void produced(struct partition_produce *req)
{
    struct sent *s = req->arg;
    if (req->error != KAFKA_NONE) {
        s->failed = true;
        sim_note(w.sim, "part %d: batch at %d refused: error %d", s->part,
                 (int)s->base, (int)req->error);
        return;
    }
    ck_assert_int_eq(req->base_offset.v, s->base);
    s->acked = true;
    w.n_acked++;
}

static void call_produce(struct env *env, void *arg)
{
    struct sent *s = arg;
    (void)env;
    partition_produce(w.parts[s->part].p, &s->req);
}

static void send(int k)
{
    struct part *part = &w.parts[k];
    if (part->n_sent == BATCHES || part->p == NULL ||
        !partition_role(part->p).ready) {
        return;
    }
    struct sent *s = calloc(1, sizeof *s);
    const uint8_t *bytes;
    size_t size;
    uint8_t value[3000];
    size_t value_size = 20 + prng_below(&w.prng, 300);
    if (prng_below(&w.prng, 12) == 0) {
        value_size = 1900; /* a batch fits a segment */
    }
    memset(value, (int)(part->n_sent & 0xff), sizeof value);
    *s = (struct sent){.part = k,
                       .base = part->end,
                       .sequence = part->sequence,
                       .n = 1 + (int32_t)prng_below(&w.prng, 3)};
    batch_builder_init(&s->builder, CODEC_NONE);
    s->builder.producer_id = 100 + k;
    s->builder.producer_epoch = 0;
    s->builder.base_sequence = s->sequence;
    for (int i = 0; i < s->n; i++) {
        put_i64(value, part->n_sent);
        batch_builder_add(&s->builder, 1000 + part->n_sent, NULL, -1, value,
                          (int32_t)value_size, NULL, 0);
    }
    ck_assert_int_eq(batch_builder_finish(&s->builder, &bytes, &size), ERR_OK);
    s->crc = crc32c(0, bytes + 21, size - 21);
    s->req = (struct partition_produce){.batch = bytes,
                                        .size = (uint32_t)size,
                                        .acks = -1,
                                        .api_version = 11,
                                        .cb = produced,
                                        .arg = s};
    part->sent[part->n_sent++] = s;
    part->end += s->n;
    part->sequence += s->n;
    sim_node_call(w.node, 0, call_produce, s);
}

/* ---- what is there ------------------------------------------------------- */
struct reading {
    struct partition_fetch req;
    struct part *part;
    int64_t start, next;
    int at; /* in part->sent */
    bool waiting;
};

static void read_batch(struct reading *r, const uint8_t *at, size_t size,
                       const struct batch_header *h)
{
    struct part *part = r->part;
    while (r->at < part->n_sent &&
           (part->sent[r->at]->gone ||
            part->sent[r->at]->base + part->sent[r->at]->n <= r->next)) {
        r->at++;
    }
    ck_assert_int_lt(r->at, part->n_sent); /* else it was invented */
    const struct sent *s = part->sent[r->at];
    ck_assert(batch_is_whole(at, size));
    ck_assert_int_eq(h->base_offset.v, s->base);
    ck_assert(s->base == r->next || r->next == r->start);
    ck_assert_uint_eq(crc32c(0, at + 21, size - 21), s->crc);
    r->next = s->base + s->n;
}

static void read_batches(struct reading *r)
{
    ck_assert_int_eq(r->req.error, KAFKA_NONE);
    for (int i = 0; i < r->req.n_iov; i++) {
        const uint8_t *at = r->req.iov[i].iov_base;
        size_t left = r->req.iov[i].iov_len;
        while (left > 0) {
            struct batch_header h;
            ck_assert_int_eq(batch_header_read(at, left, &h), ERR_OK);
            read_batch(r, at, batch_size(&h), &h);
            left -= batch_size(&h);
            at += batch_size(&h);
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
                                      .max_bytes = 1 << 20,
                                      .at_least_one = true,
                                      .current_leader_epoch = -1,
                                      .last_fetched_epoch = -1,
                                      .cb = read_cb,
                                      .arg = r};
    r->waiting = true;
    if (partition_fetch(r->part->p, &r->req)) {
        read_batches(r);
    }
}

/* Batches that did not survive are gone for good. */
static void adopt_end(struct part *part)
{
    int64_t end = partition_high_watermark(part->p).v;
    for (int i = 0; i < part->n_sent; i++) {
        struct sent *s = part->sent[i];
        if (!s->gone && s->base >= end) {
            ck_assert(!s->acked);
            s->gone = true;
        } else if (!s->gone) {
            s->acked = true; /* it is committed now */
        }
    }
    part->end = 0;
    part->sequence = 0;
    for (int i = 0; i < part->n_sent; i++) {
        const struct sent *s = part->sent[i];
        if (!s->gone) {
            part->end = s->base + s->n;
            part->sequence = s->sequence + s->n;
        }
    }
    ck_assert_int_eq(part->end, end);
}

static void note_promises(struct part *part)
{
    if (part->p == NULL || !partition_role(part->p).ready) {
        return;
    }
    const struct group *g = partition_group(part->p);
    part->settled_told = group_settled_index(g).v;
    part->term_told = (int64_t)partition_role(part->p).term.v;
}

static void check_part(struct part *part)
{
    const struct group *g = partition_group(part->p);
    int64_t start = partition_log_start(part->p).v;
    ck_assert_uint_ge(group_settled_index(g).v, part->settled_told);
    ck_assert_int_gt((int64_t)partition_role(part->p).term.v, part->term_told);
    ck_assert_int_ge(start, part->start_told);
    ck_assert_int_le(start, part->start_asked);
    part->start_told = start;
    part->deletes = false;
    adopt_end(part);
    struct reading r = {.part = part, .start = start, .next = start};
    while (r.next < part->end) {
        int64_t was = r.next;
        sim_node_call(w.node, 0, call_fetch, &r);
        while (r.waiting) {
            ck_assert(sim_step(w.sim));
        }
        ck_assert_int_gt(r.next, was);
    }
    note_promises(part);
}

/* The last batch again is a duplicate, the next one goes behind it. */
static void check_producer(int k)
{
    struct part *part = &w.parts[k];
    struct sent *last = NULL;
    uint64_t acked = w.n_acked;
    for (int i = part->n_sent - 1; i >= 0 && last == NULL; i--) {
        last = part->sent[i]->gone ? NULL : part->sent[i];
    }
    if (last != NULL) {
        sim_node_call(w.node, 0, call_produce, last);
        acked++;
    }
    send(k);
    sim_run_for(w.sim, 50 * SIM_MS);
    if (w.n_acked != acked + 1) {
        sim_fail(w.sim, "part %d: a batch at %d is not acknowledged", k,
                 (int)part->end);
    }
    ck_assert(last == NULL || !last->failed);
    ck_assert_int_eq(partition_high_watermark(part->p).v, part->end);
}

static void told_damage(void *arg, const char *file, const char *sentence)
{
    (void)arg;
    sim_fail(w.sim, "damage in %s: %s", file, sentence);
}

static void told_batch(void *arg, const struct dump_batch *batch)
{
    (void)arg;
    ck_assert(batch->crc_ok && batch->side_ok);
}

struct verify {
    int part;
    enum err status;
};

static void verify_dir(struct env *env, void *arg)
{
    static const struct dump_ops ops = {.batch = told_batch,
                                        .damage = told_damage};
    struct verify *v = arg;
    char path[200], topic[UUID_TEXT_SIZE];
    struct dump_summary sum;
    struct group_creation creation = creation_of(v->part);
    uuid_format(&creation.id.topic, topic);
    snprintf(path, sizeof path, "topics/t-%d.%s.1", v->part, topic);
    v->status = partition_dump(env, path, &ops, NULL, &sum);
}

/* The node is starting: everything must be as promised. */
static void check_all(void)
{
    bool ready = sim_run_while_not(w.sim, all_ready, NULL, 20 * SIM_S);
    if (w.status != ERR_OK) {
        sim_fail(w.sim, "cannot open: %s", err_text(w.status));
    }
    if (!ready) {
        sim_fail(w.sim, "no leader within 20 s");
    }
    for (int k = 0; k < PARTS; k++) {
        struct verify v = {.part = k};
        if (w.parts[k].wanted && !w.parts[k].deleting) {
            check_part(&w.parts[k]);
            sim_node_call(w.node, 0, verify_dir, &v);
            ck_assert(v.status == ERR_OK || v.status == ERR_NOT_FOUND);
        }
    }
}

static void boot_again(void)
{
    for (int k = 0; k < PARTS; k++) {
        struct part *part = &w.parts[k];
        part->p = NULL;
        if (part->deleting) { /* the metadata says so still */
            part->deleting = false;
            part->wanted = false;
        }
    }
    sim_node_restart(w.node);
    sim_run_for(w.sim, SIM_MS);
}

/* ---- the script ---------------------------------------------------------- */
static void deleted(struct partition_delete_records *req)
{
    struct part *part = req->arg;
    part->deletes = false;
    if (req->error == KAFKA_NONE) {
        part->start_told = req->low_watermark.v;
    }
}

static void call_delete_records(struct env *env, void *arg)
{
    struct part *part = arg;
    (void)env;
    partition_delete_records(part->p, &part->deletion);
}

static void delete_records(struct part *part)
{
    if (part->deletes || part->p == NULL || !partition_role(part->p).ready) {
        return;
    }
    int64_t start = partition_log_start(part->p).v;
    int64_t end = partition_high_watermark(part->p).v;
    int64_t to =
        start + (int64_t)prng_below(&w.prng, (uint64_t)(end - start) + 1);
    part->deletion = (struct partition_delete_records){
        .before = {to}, .cb = deleted, .arg = part};
    part->deletes = true;
    part->start_asked = to > part->start_asked ? to : part->start_asked;
    sim_node_call(w.node, 0, call_delete_records, part);
}

static void part_forget(struct part *part)
{
    for (int i = 0; i < part->n_sent; i++) {
        batch_builder_free(&part->sent[i]->builder);
        free(part->sent[i]);
    }
    int64_t incarnation = part->incarnation;
    memset(part, 0, sizeof *part);
    part->incarnation = incarnation;
}

static void call_make(struct env *env, void *arg)
{
    struct part *part = arg;
    (void)env;
    open_part((int)(part - w.parts));
}

static void call_delete(struct env *env, void *arg)
{
    struct part *part = arg;
    (void)env;
    partition_delete(part->p);
}

static void make_or_delete(struct part *part)
{
    if (!part->wanted) {
        part_forget(part);
        part->incarnation++;
        part->wanted = true;
        sim_node_call(w.node, 0, call_make, part);
    } else if (part->p != NULL && !part->deleting && part->n_sent > 20) {
        part->deleting = true;
        sim_node_call(w.node, 0, call_delete, part);
    }
}

static void step(void)
{
    uint64_t dice = prng_below(&w.prng, 100);
    int k = (int)prng_below(&w.prng, PARTS);
    if (dice < 4) {
        delete_records(&w.parts[k]);
    } else if (dice < 8) {
        make_or_delete(&w.parts[SHORT_LIVED]);
    } else if (w.parts[k].wanted && !w.parts[k].deleting) {
        for (uint64_t n = 1 + prng_below(&w.prng, 4); n > 0; n--) {
            send(k);
        }
    }
    sim_run_for(w.sim, prng_below(&w.prng, 3000) * SIM_US);
    for (k = 0; k < PARTS; k++) {
        note_promises(&w.parts[k]);
    }
}

static void run(uint64_t seed)
{
    static const enum sim_crash how[] = {SIM_KILL, SIM_DROP_ALL, SIM_KEEP_ALL,
                                         SIM_RANDOM, SIM_TORN};
    memset(&w, 0, sizeof w);
    w.sim = sim_new(seed);
    sim_set_verbose(w.sim, getenv("SIM_VERBOSE") != NULL);
    prng_seed(&w.prng, seed * 33);
    w.node = sim_node_add(w.sim, "a", 1);
    for (int k = 0; k < PARTS; k++) {
        w.parts[k].wanted = k != SHORT_LIVED;
    }
    crash_points_watch(w.node);
    sim_node_start(w.node, boot, NULL);
    for (int round = 0; round < 10 && !crash_points_done(); round++) {
        check_all();
        for (int k = 0; k < 25 && !crash_points_done(); k++) {
            step();
        }
        sim_node_crash(w.node, how[prng_below(&w.prng, 5)]);
        boot_again();
    }
    sim_free(w.sim);
    for (int k = 0; k < PARTS; k++) {
        part_forget(&w.parts[k]);
    }
}

static void judge(void)
{
    boot_again();
    check_all();
    sim_node_crash(w.node, SIM_DROP_ALL);
    boot_again();
    check_all();
    for (int k = 0; k < PARTS; k++) {
        if (w.parts[k].wanted && !w.parts[k].deleting) {
            check_producer(k);
        }
    }
}

static uint64_t promised(void)
{
    uint64_t sum = w.n_acked;
    for (int k = 0; k < PARTS; k++) {
        const struct part *part = &w.parts[k];
        sum = sum * 1000003 + (uint64_t)part->start_told * 7 +
              part->settled_told + (uint64_t)part->term_told * 77 +
              (part->wanted ? 13 : 0) + (part->deleting ? 29 : 0);
    }
    return sum;
}

const struct crash_load crash_load_store = {"store", run, judge, promised};

#endif
