/* Messages of the group's other replicas: checked, room for their entries
 * reserved, given to the core in its own form; those that may not reach it yet
 * are held. */
#include "raft/group_impl.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "raft/catchup_impl.h"
#include "raft/guard.h"
#include "raft/io.h"
#include "raft/rest.h"

/* Reserves room for what the first `n` entries of an append would add to the
 * log. */
static bool reserve_first(struct group *g, const struct message *m,
                          const struct message_entry *entries, uint32_t n)
{
    uint64_t bytes = 0;
    uint32_t records = 0;

    for (uint32_t i = 0; i < n; i++) {
        const struct message_entry *e = &entries[i];
        const struct entry_slot *slot =
            entry_table_at(&g->table, m->prev_index + 1 + i);

        if (records == 0 && slot != NULL && slot->term == e->term)
            continue;
        if (e->size > g->host->entry_bytes_max)
            return false; /* this broker's log is made for smaller ones */
        bytes += e->size;
        records++;
    }
    if (records > 0 &&
        !g->host->backend.reserve(g->host->backend_arg, bytes, records))
        return false;
    g->reserved_bytes = bytes;
    g->reserved_records = records;
    return true;
}

/* Cuts an append after its first `n` entries. */
static void cut_append(struct message *m, uint32_t n)
{
    m->n_entries = n;
    if (m->commit > m->prev_index + n)
        m->commit = m->prev_index + n; /* S13 */
}

/* Rule 4: room first. An append is cut to what there is room for; false when
 * that is nothing. */
static bool reserve_append(struct group *g, struct message *m,
                           const struct message_entry *entries)
{
    uint32_t n = m->n_entries;

    if (m->term < g->raft.current_term || n == 0)
        return true;
    if (m->prev_index + n > g->settled + LIMIT_RAFT_ENTRIES) {
        g->wanted = g->host->settle_wanted = true;
        return false;
    }
    while (n > 0 && !reserve_first(g, m, entries, n))
        n /= 2;
    if (n > 0)
        cut_append(m, n);
    return n > 0;
}

static void unreserve(struct group *g)
{
    if (g->reserved_records != 0 || g->reserved_bytes != 0)
        g->host->backend.unreserve(g->host->backend_arg, g->reserved_bytes,
                                   g->reserved_records);
    g->reserved_bytes = g->reserved_records = 0;
}

/* The core's form of an append's entries: one array and one batch of handles,
 * both the core's to free. */
static struct raft_entry *core_entries(const struct message *m,
                                       const struct message_entry *entries)
{
    struct raft_entry *out;
    uint8_t *batch;
    size_t size = 1, at = 0;

    if (m->n_entries == 0)
        return NULL;
    for (uint32_t i = 0; i < m->n_entries; i++)
        size += entries[i].type == ENTRY_CONFIG ? entries[i].size
                                                : sizeof(struct handle);
    out = raft_malloc(m->n_entries * sizeof *out);
    batch = raft_malloc(size);
    for (uint32_t i = 0; i < m->n_entries; i++) {
        const struct message_entry *e = &entries[i];
        bool config = e->type == ENTRY_CONFIG;
        struct handle handle = {e->size, e->crc, e->type, {0}};
        size_t length = config ? e->size : sizeof handle;

        out[i].term = e->term;
        out[i].type = config                  ? RAFT_CHANGE
                      : e->type == ENTRY_NOOP ? RAFT_BARRIER
                                              : RAFT_COMMAND;
        out[i].buf.base = batch + at;
        out[i].buf.len = length;
        out[i].batch = batch;
        memcpy(batch + at, config ? (const void *)e->payload : &handle, length);
        at += length;
    }
    return out;
}

static void core_message(const struct message *m,
                         const struct message_entry *entries,
                         struct raft_message *out)
{
    memset(out, 0, sizeof *out);
    switch (m->type) {
        case MESSAGE_APPEND:
            out->type = RAFT_IO_APPEND_ENTRIES;
            out->append_entries.term = m->term;
            out->append_entries.prev_log_index = m->prev_index;
            out->append_entries.prev_log_term = m->prev_term;
            out->append_entries.leader_commit = m->commit;
            out->append_entries.n_entries = m->n_entries;
            out->append_entries.entries = core_entries(m, entries);
            break;
        case MESSAGE_APPEND_RESULT:
            out->type = RAFT_IO_APPEND_ENTRIES_RESULT;
            out->append_entries_result.term = m->term;
            out->append_entries_result.rejected = m->rejected;
            out->append_entries_result.last_log_index = m->last_index;
            break;
        case MESSAGE_VOTE:
            out->type = RAFT_IO_REQUEST_VOTE;
            out->request_vote.term = m->term;
            out->request_vote.candidate_id = m->from;
            out->request_vote.last_log_index = m->last_index;
            out->request_vote.last_log_term = m->last_term;
            out->request_vote.disrupt_leader =
                (m->flags & MESSAGE_DISRUPT) != 0;
            out->request_vote.pre_vote = (m->flags & MESSAGE_PRE_VOTE) != 0;
            break;
        case MESSAGE_VOTE_RESULT:
            out->type = RAFT_IO_REQUEST_VOTE_RESULT;
            out->request_vote_result.term = m->term;
            out->request_vote_result.vote_granted =
                (m->flags & MESSAGE_GRANTED) != 0;
            out->request_vote_result.pre_vote =
                TO_RAFT_TRIBOOL((m->flags & MESSAGE_PRE_VOTE) != 0);
            break;
        case MESSAGE_TIMEOUT_NOW:
            out->type = RAFT_IO_TIMEOUT_NOW;
            out->timeout_now.term = m->term;
            out->timeout_now.last_log_index = m->last_index;
            out->timeout_now.last_log_term = m->last_term;
            break;
        case MESSAGE_OFFER:
            UNREACHABLE("an offer is not for the core");
    }
}

/* Notes what a message tells beside what the core sees. */
static void note_before(struct group *g, const struct message *m)
{
    struct group_peer *peer = group_peer(g, m->from);

    if (m->type == MESSAGE_APPEND && m->term >= g->raft.current_term) {
        if (m->term > g->seen_term)
            g->seen_round = 0;
        g->seen_term = m->term;
        if (m->round > g->seen_round)
            g->seen_round = m->round;
    }
    if (m->type == MESSAGE_APPEND_RESULT && peer != NULL &&
        g->raft.state == RAFT_LEADER && m->term == g->raft.current_term) {
        peer->heard_ms = group_now(g);
        if (m->round > peer->ack_round)
            peer->ack_round = m->round;
    }
}

/* What the leader of this term said is committed, of what it shares with us. */
static void note_commit(struct group *g, const struct message *m)
{
    uint64_t end = m->prev_index + m->n_entries;

    if (m->type != MESSAGE_APPEND || m->term != g->raft.current_term ||
        g->raft.state != RAFT_FOLLOWER ||
        group_term_at(g, m->prev_index) != m->prev_term)
        return;
    if (g->commit_term != m->term)
        g->commit_heard = 0;
    g->commit_term = m->term;
    if (end > m->commit)
        end = m->commit;
    if (end > g->commit_heard)
        g->commit_heard = end;
}

static void note_match(struct group *g, replica_id from)
{
    const struct raft *r = &g->raft;
    struct group_peer *peer = group_peer(g, from);
    uint64_t match = 0;

    if (r->state != RAFT_LEADER || peer == NULL)
        return;
    for (unsigned i = 0; i < r->configuration.n; i++)
        if (r->configuration.servers[i].id == from)
            match = r->leader_state.progress[i].match_index;
    if (match > peer->match && g->host->room_head != NULL) {
        g->host->room_due = true;
        raft_host_want_turn(g->host);
    }
    peer->match = match;
    if (peer->sent_commit < r->commit_index)
        g->told_commit = 0; /* it may be told now */
    if (peer->behind && match >= r->log.offset) {
        peer->behind = false;
        peer->since_ms = group_now(g);
    }
    if (peer->match >= peer->target) {
        peer->caught_up_ms = group_now(g);
        peer->target = group_last(g);
    }
}

/* How many of the entries can be taken without room being reserved: those that
 * are here already; no-ops and configurations, which have room of their own;
 * and one that replaces others, since room comes from those. */
static uint32_t entries_without_room(const struct group *g,
                                     const struct message *m,
                                     const struct message_entry *entries)
{
    uint32_t n = 0;
    bool fresh = false; /* the log ends before this one */

    for (; n < m->n_entries; n++) {
        const struct entry_slot *slot =
            entry_table_at(&g->table, m->prev_index + 1 + n);

        if (entries[n].size > g->host->entry_bytes_max)
            return 0;
        if (!fresh && slot != NULL && slot->term == entries[n].term)
            continue;
        if (!fresh && slot != NULL && slot->term != entries[n].term)
            return n + 1;
        fresh = true;
        if (entries[n].type != ENTRY_NOOP && entries[n].type != ENTRY_CONFIG)
            return n;
    }
    return n;
}

/* There is no room for the entries. Who leads, what is committed, and that the
 * entries would not fit to the log anyway, the core must hear nevertheless: the
 * room may depend on it. */
static void strip_entries(struct group *g, struct message *m,
                          const struct message_entry *entries)
{
    uint32_t keep = entries_without_room(g, m, entries);

    g->unreserved = keep > 0;
    if (keep == 0)
        m->flags |= MESSAGE_QUIET;
    cut_append(m, keep);
}

static void deliver(struct group *g, struct message *m, const uint8_t *body,
                    size_t size)
{
    struct message_entry *entries = g->host->entries;
    struct raft_message in;
    char address[24];

    if (m->type == MESSAGE_APPEND && m->n_entries > 0 &&
        catchup_blocks_entries(g))
        return;
    if (m->type == MESSAGE_APPEND &&
        message_decode_entries(body, size, m, entries) != ERR_OK)
        return;
    if (guard_deliver(g, m, &entries)) {
        if (m->type == MESSAGE_APPEND && !reserve_append(g, m, entries))
            strip_entries(g, m, entries);
        note_before(g, m);
        core_message(m, entries, &in);
        snprintf(address, sizeof address, "%llu", (unsigned long long)m->from);
        in.server_id = m->from;
        in.server_address = address;
        g->in_append = m->type == MESSAGE_APPEND;
        g->quiet = (m->flags & MESSAGE_QUIET) != 0;
        g->rests = rest_fits(g, m);
        g->append_end = m->prev_index + m->n_entries;
        g->staged = m->type == MESSAGE_APPEND ? entries : NULL;
        g->staged_first = m->prev_index + 1;
        g->staged_n = m->n_entries;
        g->in_core++;
        g->core_recv(&g->io, &in);
        g->in_core--;
        g->in_append = false;
        if (g->rests)
            rest_begin(g);
        g->rests = false;
        note_commit(g, m);
        g->staged = NULL;
        g->unreserved = false;
        unreserve(g);
        note_match(g, m->from);
    }
    guard_delivered(g);
}

static bool held_from(const struct group *g, node_id node)
{
    for (const struct kept_message *k = g->held.head; k != NULL; k = k->next)
        if (k->node == node)
            return true;
    return false;
}

static void hold(struct group *g, node_id node, const uint8_t *body,
                 size_t size)
{
    if (g->held.count < LIMIT_RAFT_HELD &&
        g->held.bytes + size <= LIMIT_RAFT_HELD_BYTES)
        kept_push(&g->held, node, body, size);
}

bool group_receive_held(struct group *g)
{
    struct kept_queue old = g->held;
    struct kept_message *k;
    bool any = false;

    memset(&g->held, 0, sizeof g->held);
    while ((k = kept_pop(&old)) != NULL) {
        struct message m;
        enum guard_verdict verdict = GUARD_DROP;

        if (message_decode(k->body, k->size, &m) == ERR_OK)
            verdict = held_from(g, k->node) ? GUARD_HOLD : guard_recv(g, &m);
        if (verdict == GUARD_HOLD) {
            kept_link(&g->held, k);
            continue;
        }
        if (verdict == GUARD_PASS) {
            deliver(g, &m, k->body, k->size);
            any = true;
        }
        mem_free(k);
    }
    return any;
}

void group_receive(struct group *g, node_id from, const uint8_t *body,
                   size_t size)
{
    struct message m;
    enum guard_verdict verdict;

    if (g->life != GROUP_OPEN || message_decode(body, size, &m) != ERR_OK)
        return;
    if (m.to != g->creation.self || group_node_of(g, m.from) != from)
        return; /* another incarnation's, or one we do not know */
    if (m.type == MESSAGE_OFFER) {
        catchup_offered(g, &m);
        return;
    }
    rest_heard(g, &m);
    verdict = g->running || held_from(g, from) ? GUARD_HOLD : guard_recv(g, &m);
    if (verdict == GUARD_HOLD)
        hold(g, from, body, size);
    if (verdict == GUARD_PASS)
        deliver(g, &m, body, size);
    group_run(g);
}
