/* The log's beginning: moved by DeleteRecords and by retention, which the
 * leader decides and every replica applies as a control entry, so that all
 * agree; files go after it, each replica by itself. Expiry of producers takes
 * the same way.
 *
 * Control entries: u16 version 1, u16 kind, then
 *   kind 1, log start:       i64 offset
 *   kind 2, forget producers: u32 count, each i64 producer id, i64 last offset
 * Big-endian. An entry of an unknown version or kind ends the process: this
 * broker is too old for the log. */
#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "partition/bytes.h"
#include "partition/partition_impl.h"

#define CONTROL_VERSION 1
#define CONTROL_LOG_START 1
#define CONTROL_FORGET 2
#define CONTROL_HEAD 4
/* Producers forgotten by one entry; the next round goes on. */
#define FORGET_MAX 256
#define FORGET_SIZE 16

#define MAINTENANCE_MS 5000

/* ---- apply --------------------------------------------------------------- */
static void apply_log_start(struct partition *p, kafka_offset offset)
{
    if (offset.v > p->high_watermark.v) {
        offset = p->high_watermark;
    }
    if (offset.v > p->log_start.v) {
        p->log_start = offset;
        epochs_trim(&p->epochs, offset);
    }
    p->wake = true;
}

static bool apply_forget(struct partition *p, const uint8_t *at, size_t size)
{
    if (size < 4 || (size - 4) / FORGET_SIZE < get_u32(at)) {
        return false;
    }
    uint32_t n = get_u32(at);
    at += 4;
    for (; n > 0; n--, at += FORGET_SIZE) {
        struct producer_expiry e = {get_i64(at), {get_i64(at + 8)}};
        producers_expire(p->producers, &e);
    }
    return true;
}

void control_apply(struct partition *p, const uint8_t *payload, uint32_t size)
{
    bool good = false;
    if (size >= CONTROL_HEAD && get_u16(payload) == CONTROL_VERSION) {
        const uint8_t *body = payload + CONTROL_HEAD;
        size_t rest = size - CONTROL_HEAD;
        switch (get_u16(payload + 2)) {
            case CONTROL_LOG_START:
                good = rest == 8;
                if (good) {
                    apply_log_start(p, (kafka_offset){get_i64(body)});
                }
                break;
            case CONTROL_FORGET:
                good = apply_forget(p, body, rest);
                break;
            default:
                break;
        }
    }
    if (!good) {
        env_fatal(p->env, "%s: a control entry of %u bytes is not understood",
                  p->name, size);
    }
}

static enum err propose_control(struct partition *p, uint16_t kind,
                                const void *body, size_t size, log_index *index)
{
    uint8_t head[CONTROL_HEAD];
    put_u16(head, CONTROL_VERSION);
    put_u16(head + 2, kind);
    struct iovec payload[] = {{head, sizeof head},
                              {(void *)(uintptr_t)body, size}};
    return group_propose(p->group, ENTRY_CONTROL, payload, 2, index);
}

static enum err propose_log_start(struct partition *p, kafka_offset offset,
                                  log_index *index)
{
    uint8_t body[8];
    put_i64(body, offset.v);
    return propose_control(p, CONTROL_LOG_START, body, sizeof body, index);
}

/* ---- DeleteRecords ------------------------------------------------------- */
static void delete_done(struct partition *p,
                        struct partition_delete_records *req,
                        enum kafka_error error)
{
    req->error = error;
    link_add(&p->deletes_done, &req->link);
    partition_turn_later(p);
}

static enum kafka_error delete_records(struct partition *p,
                                       struct partition_delete_records *req)
{
    struct group_role role = partition_role(p);
    if (!role.is_leader || !role.ready) {
        return KAFKA_NOT_LEADER_OR_FOLLOWER;
    }
    if (!p->config.cleanup_delete) {
        return KAFKA_POLICY_VIOLATION;
    }
    kafka_offset before = req->before.v == -1 ? p->high_watermark : req->before;
    if (before.v < 0 || before.v > p->high_watermark.v) {
        return KAFKA_OFFSET_OUT_OF_RANGE;
    }
    enum err status = propose_log_start(p, before, &req->index);
    if (status == ERR_BUSY || status == ERR_NOSPACE) {
        return KAFKA_REQUEST_TIMED_OUT;
    }
    return status == ERR_OK ? KAFKA_NONE : KAFKA_NOT_LEADER_OR_FOLLOWER;
}

static void delete_decided(struct partition *p,
                           struct partition_delete_records *req,
                           enum kafka_error error)
{
    if (error != KAFKA_NONE) {
        delete_done(p, req, error);
    } else {
        req->error = KAFKA_NONE;
        link_add(&p->deletes, &req->link);
    }
}

static void end_confirmed(struct group_read *read, enum err status)
{
    struct partition_delete_records *req = read->arg;
    struct partition *p = req->partition;
    delete_decided(p, req,
                   status == ERR_OK && !p->closed
                       ? delete_records(p, req)
                       : KAFKA_NOT_LEADER_OR_FOLLOWER);
    partition_unref(p);
}

void partition_delete_records(struct partition *p,
                              struct partition_delete_records *req)
{
    req->low_watermark.v = -1;
    req->partition = p;
    enum kafka_error error = delete_records(p, req);
    if (error == KAFKA_OFFSET_OUT_OF_RANGE && req->before.v >= 0) {
        partition_ref(p);
        req->barrier = (struct group_read){.cb = end_confirmed, .arg = req};
        group_read_barrier(p->group, &req->barrier);
        return;
    }
    delete_decided(p, req, error);
}

void delete_records_turn(struct partition *p)
{
    while (!list_empty(&p->deletes)) {
        struct partition_delete_records *req =
            LINK_OF(struct partition_delete_records, link, p->deletes.next);
        if (req->index.v > p->applied.v) {
            break;
        }
        link_remove(&req->link);
        link_add(&p->deletes_done, &req->link);
    }
    while (!list_empty(&p->deletes_done)) {
        struct partition_delete_records *req = LINK_OF(
            struct partition_delete_records, link, p->deletes_done.next);
        link_remove(&req->link);
        if (req->error == KAFKA_NONE) {
            req->low_watermark = p->log_start;
        }
        req->cb(req);
    }
}

/* ---- retention, decided by the leader ------------------------------------ */
static bool segment_expired(const struct partition *p, const struct segment *s,
                            int64_t now_ms)
{
    return p->config.retention_ms >= 0 && s->max_timestamp >= 0 &&
           now_ms - s->max_timestamp > p->config.retention_ms;
}

/* Compaction left nothing in it. */
static bool segment_empty(const struct segment *s)
{
    return s->compaction != 0 && s->bytes == 0;
}

/* Everything there is lies in the active segment or before, and is old. */
static bool active_expired(const struct partition *p, int64_t now_ms)
{
    if (p->settled.position == 0 || p->settled.next.v != p->end.v ||
        p->high_watermark.v != p->end.v) {
        return false;
    }
    struct segment s = partition_segment_at(p, p->n_closed_segments);
    return segment_expired(p, &s, now_ms);
}

/* Where the log shall start as time and size have it: at the beginning of a
 * segment, or behind all if all is old. */
static kafka_offset retention_start(struct partition *p)
{
    int64_t now_ms = env_wall_ms(p->env);
    uint64_t size = (uint64_t)partition_size_bytes(p);
    kafka_offset start = p->log_start;
    bool all = true;
    for (size_t i = 0; i < p->n_closed_segments && all; i++) {
        const struct segment *s = &p->closed_segments[i];
        bool large = p->config.retention_bytes >= 0 &&
                     size - s->bytes >= (uint64_t)p->config.retention_bytes;
        kafka_offset behind = partition_segment_at(p, i + 1).base;
        all = large || segment_empty(s) || segment_expired(p, s, now_ms);
        if (all) {
            size -= s->bytes;
            start = behind.v > start.v ? behind : start;
        }
    }
    return all && active_expired(p, now_ms) ? p->end : start;
}

static void retain(struct partition *p)
{
    log_index index;
    if (!p->config.cleanup_delete) {
        return;
    }
    kafka_offset start = retention_start(p);
    if (start.v > p->log_start.v &&
        propose_log_start(p, start, &index) == ERR_OK) {
        log_info("partition", "%s: retention moves the log start to %lld",
                 p->name, (long long)start.v);
    }
}

static void forget_producers(struct partition *p)
{
    struct producer_expiry expired[FORGET_MAX];
    uint8_t body[4 + FORGET_MAX * FORGET_SIZE];
    uint64_t now = env_now_ms(p->env);
    uint64_t age = (uint64_t)p->config.producer_id_expiration_ms;
    if (producers_count(p->producers) > LIMIT_PRODUCERS) {
        age = MAINTENANCE_MS;
    }
    if (producers_count(p->producers) == 0 || now < age) {
        return;
    }
    size_t n = producers_expired(p->producers, now - age, expired, FORGET_MAX);
    put_u32(body, (uint32_t)n);
    for (size_t i = 0; i < n; i++) {
        put_i64(body + 4 + i * FORGET_SIZE, expired[i].producer_id);
        put_i64(body + 4 + i * FORGET_SIZE + 8, expired[i].last_offset.v);
    }
    log_index index;
    if (n > 0) {
        /* If it is refused, the next round tries again. */
        (void)!propose_control(p, CONTROL_FORGET, body, 4 + n * FORGET_SIZE,
                               &index);
    }
}

void retention_run(struct env_timer *timer)
{
    struct partition_shard *shard = timer->arg;
    for (struct partition_link *l = shard->partitions.next;
         l != &shard->partitions; l = l->next) {
        struct partition *p = LINK_OF(struct partition, link, l);
        struct group_role role = partition_role(p);
        if (role.is_leader && role.ready) {
            retain(p);
            forget_producers(p);
        }
    }
    compaction_consider(shard);
    env_timer_start(timer, MAINTENANCE_MS);
}

/* ---- removal of files ---------------------------------------------------- */
struct removal {
    struct env_work work;
    struct partition *partition;
    size_t n;
    struct segment segments[];
};

static void removal_run(struct env_work *work)
{
    struct removal *r = work->arg;
    char path[LIMIT_PATH];
    for (size_t i = 0; i < r->n; i++) {
        /* Not synced, and a failure is no loss: at the next start whatever the
         * checkpoint does not name is removed. */
        segment_file(path, r->partition->dir, &r->segments[i], "log");
        (void)!env_file_unlink(r->partition->env, path);
        segment_file(path, r->partition->dir, &r->segments[i], "side");
        (void)!env_file_unlink(r->partition->env, path);
    }
}

static void removal_done(struct env_work *work)
{
    struct removal *r = work->arg;
    struct partition *p = r->partition;
    mem_free(r);
    ASSERT(p->removals > 0);
    p->removals--;
    compaction_poll(p);
    partition_unref(p);
}

void closed_segments_drop(struct partition *p, size_t n)
{
    p->n_closed_segments -= n;
    if (n > 0) {
        memmove(p->closed_segments, p->closed_segments + n,
                p->n_closed_segments * sizeof *p->closed_segments);
    }
}

void retention_remove(struct partition *p)
{
    size_t n = 0;
    while (n < p->n_closed_segments &&
           partition_segment_at(p, n + 1).base.v <= p->settled_log_start.v) {
        n++;
    }
    if (n == 0 || p->leased || p->switching) {
        return;
    }
    struct segment *gone = mem_alloc(n * sizeof *gone);
    memcpy(gone, p->closed_segments, n * sizeof *gone);
    closed_segments_drop(p, n);
    segments_remove(p, gone, n);
    mem_free(gone);
}

void segments_remove(struct partition *p, const struct segment *segments,
                     size_t n)
{
    struct removal *r = mem_zalloc(sizeof *r + n * sizeof r->segments[0]);
    r->partition = p;
    r->n = n;
    for (size_t i = 0; i < n; i++) {
        r->segments[i] = segments[i];
        file_cache_forget(p->shard->files, p->number, segments[i].base.v);
    }
    p->removals++;
    partition_ref(p);
    partition_work(p->env, &r->work, removal_run, removal_done, r);
}
