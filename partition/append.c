/* Produce: decide, stamp, propose; answer when durable or committed.
 *
 * Happy path: the batch is validated (one pass of CRC), judged by the
 * producer's state, its header copied and stamped, and proposed: the group
 * copies header and rest once into the log buffer and calls `appended`, which
 * moves the log's end. The request then waits in a list ordered by index until
 * the entry is durable (acks 1) or applied (acks -1).
 *
 * Failure modes: no room in the log (waits, in order, in a bounded queue, and
 * everything behind it too); leadership lost or the entry truncated
 * (NOT_LEADER_OR_FOLLOWER; the entry may still commit); too few replicas. */
#include "base/assert.h"
#include "base/mem.h"
#include "partition/partition_impl.h"

/* ---- answers ------------------------------------------------------------- */
static void produce_done(struct partition_produce *req)
{
    link_add(&req->partition->done, &req->link);
    partition_turn_later(req->partition);
}

void produce_fail(struct partition_produce *req, enum kafka_error error,
                  const char *message)
{
    req->error = error;
    req->message = message;
    req->base_offset.v = -1;
    req->log_append_time_ms = -1;
    req->log_start = req->partition->log_start;
    produce_done(req);
}

void produce_turn_away(struct partition_produce *req, enum kafka_error error,
                       const char *message)
{
    req->partition->turned_away = true;
    req->partition->turned_away_ms = env_now_ms(req->partition->env);
    produce_fail(req, error, message);
}

void produce_succeed(struct partition_produce *req)
{
    req->error = KAFKA_NONE;
    req->log_start = req->partition->log_start;
    produce_done(req);
}

static void finish_upto(struct partition_link *list, log_index upto)
{
    while (!list_empty(list)) {
        struct partition_produce *req =
            LINK_OF(struct partition_produce, link, list->next);
        if (req->index.v > upto.v) {
            return;
        }
        link_remove(&req->link);
        produce_succeed(req);
    }
}

void produce_finish_turn(struct partition *p)
{
    finish_upto(&p->wait_commit, p->applied);
    if (p->group != NULL && !list_empty(&p->wait_durable)) {
        finish_upto(&p->wait_durable, group_durable_index(p->group));
    }
    while (!list_empty(&p->done)) {
        struct partition_produce *req =
            LINK_OF(struct partition_produce, link, p->done.next);
        link_remove(&req->link);
        req->cb(req);
    }
}

/* Puts a request among those that wait, by index; nearly always last. */
static void wait_for(struct partition_link *list, struct partition_produce *req)
{
    struct partition_link *at = list->prev;
    while (at != list && LINK_OF(struct partition_produce, link, at)->index.v >
                             req->index.v) {
        at = at->prev;
    }
    link_add(at->next, &req->link);
}

static void wait_for_entry(struct partition *p, struct partition_produce *req)
{
    if (req->acks == -1) {
        if (req->index.v <= p->applied.v) {
            produce_succeed(req);
        } else {
            wait_for(&p->wait_commit, req);
        }
    } else if (req->index.v <= group_durable_index(p->group).v) {
        produce_succeed(req);
    } else {
        wait_for(&p->wait_durable, req);
    }
}

/* ---- decide -------------------------------------------------------------- */
/* A client has several requests under way. When the first is turned away, those
 * behind it may arrive when this broker takes records again: their gap is ours,
 * and the client sends all of them again, in order, when the answer to each is
 * one to be repeated. Told that its sequence is wrong, librdkafka would begin a
 * new epoch for all partitions and write what was under way to them twice. */
static bool gap_is_ours(const struct partition *p)
{
    return p->turned_away &&
           env_now_ms(p->env) - p->turned_away_ms < LIMIT_PRODUCE_GAP_MS;
}

static bool enough_replicas(struct partition *p)
{
    struct group_replica_state replicas[GROUP_REPLICAS_MAX];
    int reachable = 0;
    if (p->config.min_insync_replicas <= 1) {
        return true;
    }
    int n = group_replicas(p->group, replicas);
    for (int i = 0; i < n; i++) {
        reachable += replicas[i].reachable ? 1 : 0;
    }
    return reachable >= p->config.min_insync_replicas;
}

/* May this broker append now? */
static bool may_append(struct partition *p, struct partition_produce *req)
{
    struct group_role role = partition_role(p);
    if (!role.is_leader || !role.ready) {
        produce_turn_away(req, KAFKA_NOT_LEADER_OR_FOLLOWER, NULL);
        return false;
    }
    if (req->acks == -1 && !enough_replicas(p)) {
        produce_turn_away(
            req, KAFKA_NOT_ENOUGH_REPLICAS,
            "Fewer replicas are reachable than min.insync.replicas");
        return false;
    }
    return true;
}

/* The batch is in the log already: the original's answer, when it is as safe
 * as this request wants it. */
static void answer_duplicate(struct partition *p, struct partition_produce *req,
                             const struct producer_batch *original)
{
    uint32_t at = ring_find_offset(&p->ring, original->last_offset);
    req->base_offset.v = original->last_offset.v - original->offset_delta;
    req->log_append_time_ms =
        p->config.timestamp_type == TIMESTAMP_APPEND ? original->timestamp : -1;
    if (at == p->ring.count ||
        ring_at(&p->ring, at)->base_offset.v != req->base_offset.v) {
        ASSERT(original->last_offset.v < p->high_watermark.v);
        produce_succeed(req);
        return;
    }
    req->index.v = p->ring.first.v + at;
    wait_for_entry(p, req);
}

static const char *producer_message(enum kafka_error error)
{
    return error == KAFKA_INVALID_PRODUCER_EPOCH
               ? "A newer epoch of this producer has written here"
               : "Out of order sequence number";
}

/* ---- doubts -------------------------------------------------------------- */
/* A leader that was stopped for a while may not know yet that others went on,
 * and with them this producer. An idempotent producer gives up for good when
 * its sequence is refused, so that is said only by a leader that a majority has
 * confirmed since. */
struct produce_doubt {
    struct group_read read;
    struct partition *partition;
    struct partition_produce *req; /* NULL: cancelled */
};

static void doubt_resolved(struct group_read *read, enum err status)
{
    struct produce_doubt *doubt = read->arg;
    struct partition *p = doubt->partition;
    struct partition_produce *req = doubt->req;
    if (req != NULL) {
        req->doubt = NULL;
        if (status != ERR_OK || p->closed) {
            produce_fail(req, KAFKA_NOT_LEADER_OR_FOLLOWER, NULL);
        } else {
            produce_fail(req, KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER,
                         producer_message(KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER));
        }
    }
    mem_free(doubt);
    partition_unref(p);
}

static void confirm_sequence(struct partition *p, struct partition_produce *req)
{
    struct produce_doubt *doubt = mem_zalloc(sizeof *doubt);
    *doubt = (struct produce_doubt){.partition = p, .req = req};
    doubt->read = (struct group_read){.cb = doubt_resolved, .arg = doubt};
    req->doubt = doubt;
    partition_ref(p);
    group_read_barrier(p->group, &doubt->read);
}

/* ---- propose ------------------------------------------------------------- */
static enum err propose(struct partition *p, struct partition_produce *req)
{
    uint8_t header[BATCH_HEADER_SIZE];
    int64_t append_time =
        p->config.timestamp_type == TIMESTAMP_APPEND ? env_wall_ms(p->env) : -1;
    kafka_offset base = p->end;
    raft_term_t term = group_role(p->group).term;
    batch_stamp(req->batch, req->size, base, (int32_t)term.v, append_time,
                req->max_timestamp, header);
    struct iovec payload[] = {
        {header, sizeof header},
        {(void *)(uintptr_t)(req->batch + sizeof header),
         req->size - sizeof header},
    };
    enum err status =
        group_propose(p->group, ENTRY_DATA, payload, 2, &req->index);
    if (status == ERR_OK) {
        ASSERT(p->end.v > base.v);
        req->base_offset = base;
        req->log_append_time_ms = append_time;
    }
    return status;
}

static void refuse(struct partition_produce *req, enum err status)
{
    if (status == ERR_TOO_LARGE) {
        produce_fail(req, KAFKA_MESSAGE_TOO_LARGE,
                     "Record batch is larger than the log takes");
    } else if (status == ERR_NOSPACE) {
        produce_turn_away(req, KAFKA_REQUEST_TIMED_OUT, "The disk is full");
    } else { /* ERR_NOT_LEADER, ERR_NOT_READY */
        produce_turn_away(req, KAFKA_NOT_LEADER_OR_FOLLOWER, NULL);
    }
}

/* Judges and proposes a validated batch. False: there is no room. */
static bool append(struct partition *p, struct partition_produce *req)
{
    struct batch_header h;
    struct producer_batch original;
    if (!may_append(p, req)) {
        return true;
    }
    ASSERT(batch_header_read(req->batch, req->size, &h) == ERR_OK);
    if (h.producer_id >= 0) {
        enum kafka_error error = producers_check(p->producers, &h, &original);
        bool gap = error == KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER ||
                   (h.base_sequence > 0 &&
                    !producers_known(p->producers, h.producer_id));
        if (gap && gap_is_ours(p)) {
            produce_fail(req, KAFKA_NOT_LEADER_OR_FOLLOWER, NULL);
            return true;
        }
        if (error == KAFKA_DUPLICATE_SEQUENCE_NUMBER) {
            answer_duplicate(p, req, &original);
            return true;
        }
        if (error == KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER) {
            confirm_sequence(p, req);
            return true;
        }
        if (error != KAFKA_NONE) {
            produce_fail(req, error, producer_message(error));
            return true;
        }
    }
    enum err status = propose(p, req);
    bool hands_over = status == ERR_NOT_READY && group_role(p->group).is_leader;
    if (status == ERR_BUSY || hands_over) {
        return false; /* handing over: the next leader's name comes soon */
    }
    if (status == ERR_OK) {
        wait_for_entry(p, req);
    } else {
        refuse(req, status);
    }
    return true;
}

static void room_made(struct group_room_wait *wait);

static void ask_for_room(struct partition *p)
{
    if (p->room == NULL) {
        p->room = mem_zalloc(sizeof *p->room);
        p->room->partition = p;
        p->room->wait.room = room_made;
        p->room->wait.arg = p->room;
        raft_host_on_room(p->shard->options.host, &p->room->wait);
    }
}

static void wait_for_room(struct partition *p, struct partition_produce *req)
{
    if (p->n_wait_room == LIMIT_PRODUCE_WAITING) {
        produce_turn_away(req, KAFKA_REQUEST_TIMED_OUT,
                          "Too many requests wait for room in the log");
        return;
    }
    req->keeps = true;
    link_add(&p->wait_room, &req->link);
    p->n_wait_room++;
    ask_for_room(p);
}

static void room_made(struct group_room_wait *wait)
{
    struct produce_room *room = wait->arg;
    struct partition *p = room->partition;
    mem_free(room);
    if (p == NULL) {
        return;
    }
    p->room = NULL;
    while (!list_empty(&p->wait_room)) {
        struct partition_produce *req =
            LINK_OF(struct partition_produce, link, p->wait_room.next);
        link_remove(&req->link);
        p->n_wait_room--;
        if (!append(p, req)) {
            link_add(p->wait_room.next, &req->link);
            p->n_wait_room++;
            ask_for_room(p);
            return;
        }
    }
}

static bool validate(struct partition *p, struct partition_produce *req)
{
    const struct partition_config *c = &p->config;
    struct batch_limits limits = {
        .max_message_bytes = c->max_message_bytes,
        .segment_bytes = c->segment_bytes,
        .needs_keys = c->cleanup_compact,
        .append_time = c->timestamp_type == TIMESTAMP_APPEND,
        .timestamp_before_max_ms = c->timestamp_before_max_ms,
        .timestamp_after_max_ms = c->timestamp_after_max_ms,
        .now_ms = env_wall_ms(p->env),
        .api_version = req->api_version,
    };
    struct batch_verdict verdict;
    batch_validate(req->batch, req->size, &limits, &verdict);
    req->max_timestamp = verdict.max_timestamp;
    req->bad_record = verdict.bad_record;
    req->limits = limits;
    if (verdict.error != KAFKA_NONE) {
        produce_fail(req, verdict.error, verdict.message);
        return false;
    }
    return true;
}

void partition_produce(struct partition *p, struct partition_produce *req)
{
    req->partition = p;
    req->keeps = false;
    req->doubt = NULL;
    req->index.v = 0;
    req->message = NULL;
    req->bad_record = -1;
    req->link.next = req->link.prev = NULL;
    req->base_offset.v = -1;
    req->log_append_time_ms = -1;
    if (req->acks < -1 || req->acks > 1) {
        produce_fail(req, KAFKA_INVALID_REQUIRED_ACKS, NULL);
    } else if (may_append(p, req) && validate(p, req) &&
               (!list_empty(&p->wait_room) || !append(p, req))) {
        wait_for_room(p, req);
    }
}

void partition_produce_cancel(struct partition_produce *req)
{
    struct partition *p = req->partition;
    if (req->doubt != NULL) {
        req->doubt->req = NULL;
        req->doubt = NULL;
    }
    /* Those that wait for room are counted. */
    for (struct partition_link *l = p->wait_room.next; l != &p->wait_room;
         l = l->next) {
        if (l == &req->link) {
            p->n_wait_room--;
            break;
        }
    }
    link_remove(&req->link);
}
