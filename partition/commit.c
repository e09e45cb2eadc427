/* What the group tells: entries appended, truncated, committed, durable; the
 * role. Nothing is answered from inside these calls: the end of the turn does,
 * once for all that the turn brought. */
#include "base/assert.h"
#include "partition/bytes.h"
#include "partition/partition_impl.h"

/* An election after a hand-over takes a few milliseconds, after a broker's
 * death a few hundred. */
#define LEADERLESS_MS 300

/* ---- append and truncate ------------------------------------------------- */
static void append_batch(struct partition *p, const struct group_entry *entry,
                         struct log_entry *e)
{
    struct batch_header h;
    if (batch_header_read(entry->payload, entry->size, &h) != ERR_OK ||
        batch_size(&h) != entry->size || h.base_offset.v != p->end.v ||
        h.last_offset_delta < 0) {
        env_fatal(p->env,
                  "%s: entry %llu is not the batch that belongs at offset "
                  "%lld: this replica's log differs from its leader's",
                  p->name, (unsigned long long)entry->index.v,
                  (long long)p->end.v);
    }
    e->last_delta = h.last_offset_delta;
    e->max_timestamp = h.max_timestamp;
    p->end.v += (int64_t)h.last_offset_delta + 1;
    p->end_bytes += entry->size;
    producers_append(p->producers, &h);
}

static void on_appended(void *sm, const struct group_entry *entry)
{
    struct partition *p = sm;
    ASSERT(entry->index.v == p->last.v + 1);
    struct log_entry *e = ring_push(&p->ring, entry->index);
    *e = (struct log_entry){
        .term = entry->term,
        .type = entry->type,
        .size = entry->size,
        .crc = entry->crc,
        .base_offset = p->end,
        .last_delta = -1,
        .max_timestamp = -1,
        .bytes = p->end_bytes,
    };
    p->last = entry->index;
    epochs_append(&p->epochs, (int32_t)entry->term.v, entry->index, p->end);
    if (entry->type == ENTRY_DATA) {
        append_batch(p, entry, e);
    }
}

static void entry_header(const struct partition *p, uint32_t i,
                         struct batch_header *h)
{
    struct group_entry e = ring_view(p, i);
    /* It was read when it was appended. */
    ASSERT(batch_header_read(e.payload, e.size, h) == ERR_OK);
}

/* The overlay of producers is made anew from what is left. */
static void producers_rebuild(struct partition *p)
{
    producers_truncate(p->producers);
    for (uint32_t i = 0; i < p->ring.count; i++) {
        const struct log_entry *e = ring_at(&p->ring, i);
        if (e->type == ENTRY_DATA && p->ring.first.v + i > p->applied.v) {
            struct batch_header h;
            entry_header(p, i, &h);
            producers_append(p->producers, &h);
        }
    }
}

static void fail_from(struct partition_link *list, log_index first)
{
    for (struct partition_link *l = list->next, *next; l != list; l = next) {
        struct partition_produce *req =
            LINK_OF(struct partition_produce, link, l);
        next = l->next;
        if (req->index.v >= first.v) {
            link_remove(l);
            produce_turn_away(req, KAFKA_NOT_LEADER_OR_FOLLOWER, NULL);
        }
    }
}

static void on_truncated(void *sm, log_index first)
{
    struct partition *p = sm;
    if (first.v > p->last.v) {
        return;
    }
    ASSERT(first.v > p->applied.v);
    while (p->ring.count > 0 && p->last.v >= first.v) {
        const struct log_entry *e = ring_at(&p->ring, p->ring.count - 1);
        p->end = e->base_offset;
        p->end_bytes = e->bytes;
        ring_pop_back(&p->ring);
        p->last.v--;
    }
    ASSERT(p->last.v == first.v - 1);
    epochs_truncate(&p->epochs, first);
    producers_rebuild(p);
    fail_from(&p->wait_commit, first);
    fail_from(&p->wait_durable, first);
}

/* ---- commit -------------------------------------------------------------- */
static void apply_batch(struct partition *p, const struct group_entry *entry)
{
    struct batch_header h;
    ASSERT(batch_header_read(entry->payload, entry->size, &h) == ERR_OK);
    ASSERT(h.base_offset.v == p->high_watermark.v);
    p->high_watermark.v = batch_last_offset(&h).v + 1;
    p->applied_bytes += entry->size;
    producers_apply(p->producers, &h, env_now_ms(p->env));
    if (p->ops.applied != NULL) {
        p->ops.applied(p->arg, p, h.base_offset, entry->payload, entry->size);
        p->told = p->high_watermark;
    }
    p->wake = true;
}

static void on_applied(void *sm, const struct group_entry *entry)
{
    struct partition *p = sm;
    ASSERT(entry->index.v == p->applied.v + 1);
    p->applied = entry->index;
    switch (entry->type) {
        case ENTRY_DATA:
            apply_batch(p, entry);
            break;
        case ENTRY_CONTROL:
            control_apply(p, entry->payload, entry->size);
            break;
        case ENTRY_NOOP:
        case ENTRY_CONFIG:
            break;
    }
    ASSERT(p->log_start.v <= p->high_watermark.v);
    ASSERT(p->high_watermark.v <= p->end.v);
    partition_turn_later(p);
}

static void on_durable(void *sm, log_index upto)
{
    struct partition *p = sm;
    (void)upto;
    if (!list_empty(&p->wait_durable)) {
        partition_turn_later(p);
    }
}

static void on_evicted(void *sm, log_index upto)
{
    struct partition *p = sm;
    ASSERT(upto.v <= p->applied.v);
    while (p->ring.count > 0 && p->ring.first.v <= upto.v) {
        ring_pop_front(&p->ring);
    }
}

/* ---- role ---------------------------------------------------------------- */
static void fail_all(struct partition_link *list, enum kafka_error error)
{
    while (!list_empty(list)) {
        struct partition_produce *req =
            LINK_OF(struct partition_produce, link, list->next);
        link_remove(&req->link);
        produce_turn_away(req, error, NULL);
    }
}

void partition_fail_waiting(struct partition *p, enum kafka_error error)
{
    fail_all(&p->wait_commit, error);
    fail_all(&p->wait_durable, error);
    fail_all(&p->wait_room, error);
    p->n_wait_room = 0;
    for (struct partition_link *l = p->deletes.next; l != &p->deletes;
         l = l->next) {
        LINK_OF(struct partition_delete_records, link, l)->error = error;
    }
    list_move(&p->deletes_done, &p->deletes);
    partition_turn_later(p);
}

void partition_leaderless(struct env_timer *timer)
{
    partition_fail_waiting(timer->arg, KAFKA_NOT_LEADER_OR_FOLLOWER);
}

static void on_role_changed(void *sm, const struct group_role *role)
{
    struct partition *p = sm;
    if (role->leader >= 0 && (int64_t)role->term.v > p->leader_epoch) {
        p->leader_epoch = (int32_t)role->term.v;
    }
    if (!role->is_leader && role->leader < 0) {
        /* The answer can soon name who leads now, which saves the client
         * asking (and waiting between its questions). */
        if (!env_timer_running(&p->leaderless)) {
            env_timer_start(&p->leaderless, LEADERLESS_MS);
        }
    } else if (!role->is_leader || role->term.v != p->led_term.v) {
        env_timer_stop(&p->leaderless);
        partition_fail_waiting(p, KAFKA_NOT_LEADER_OR_FOLLOWER);
    }
    p->led_term = role->is_leader ? role->term : (raft_term_t){0};
    p->wake = true;
    partition_turn_later(p);
    if (p->ops.role_changed != NULL) {
        p->ops.role_changed(p->arg, p, role);
    }
}

static void on_closed(void *sm)
{
    struct partition *p = sm;
    p->group = NULL;
    p->closed = true;
    if (p->room != NULL) {
        p->room->partition = NULL; /* the host may still call it */
        p->room = NULL;
    }
    p->wake = true;
    env_timer_stop(&p->leaderless);
    partition_fail_waiting(p, KAFKA_NOT_LEADER_OR_FOLLOWER);
    compaction_closed(p);
    repair_stop(p);
    refetch_stop(p);
    fetch_closed(p);
    partition_unref(p);
}

const struct group_ops partition_group_ops = {
    .restore = settled_restore,
    .appended = on_appended,
    .truncated = on_truncated,
    .applied = on_applied,
    .durable = on_durable,
    .role_changed = on_role_changed,
    .evicted = on_evicted,
    .settle_begin = settle_begin,
    .settled = settle_end,
    .catchup = &partition_catchup_ops,
    .closed = on_closed,
};
