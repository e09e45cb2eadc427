#include "raft/io.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "raft/guard.h"
#include "raft/rest.h"

/* ---- queues -------------------------------------------------------------- */

void kept_link(struct kept_queue *queue, struct kept_message *kept)
{
    kept->next = NULL;
    if (queue->tail != NULL)
        queue->tail->next = kept;
    else
        queue->head = kept;
    queue->tail = kept;
    queue->count++;
    queue->bytes += kept->size;
}

void kept_push(struct kept_queue *queue, node_id node, const uint8_t *body,
               size_t size)
{
    struct kept_message *kept = mem_alloc(sizeof *kept + size);

    kept->node = node;
    kept->size = size;
    memcpy(kept->body, body, size);
    kept_link(queue, kept);
}

struct kept_message *kept_pop(struct kept_queue *queue)
{
    struct kept_message *kept = queue->head;

    if (kept == NULL)
        return NULL;
    queue->head = kept->next;
    if (queue->head == NULL)
        queue->tail = NULL;
    queue->count--;
    queue->bytes -= kept->size;
    return kept;
}

void kept_clear(struct kept_queue *queue)
{
    struct kept_message *kept;

    while ((kept = kept_pop(queue)) != NULL)
        mem_free(kept);
}

static void append_queue_push(struct append_queue *q, struct append_wait wait)
{
    if (q->count == q->size) {
        uint32_t size = q->size == 0 ? 8 : q->size * 2;
        struct append_wait *items = mem_alloc(size * sizeof *items);

        for (uint32_t i = 0; i < q->count; i++)
            items[i] = q->items[(q->head + i) & (q->size - 1)];
        mem_free(q->items);
        q->items = items;
        q->size = size;
        q->head = 0;
    }
    q->items[(q->head + q->count) & (q->size - 1)] = wait;
    q->count++;
}

static struct append_wait append_queue_pop(struct append_queue *q)
{
    struct append_wait wait = q->items[q->head];

    q->head = (q->head + 1) & (q->size - 1);
    q->count--;
    return wait;
}

static void sends_push(struct group *g, struct raft_io_send *req,
                       raft_io_send_cb cb)
{
    if (cb == NULL)
        return; /* TimeoutNow: the request may be gone before us (C5) */
    if (g->n_sends == g->sends_size) {
        g->sends_size = g->sends_size == 0 ? 4 : g->sends_size * 2;
        g->sends = mem_realloc(g->sends, g->sends_size * sizeof *g->sends);
    }
    g->sends[g->n_sends++] = (struct send_done){req, cb};
}

/* ---- configurations ------------------------------------------------------ */

static void put64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v = 0;

    for (int i = 7; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

uint8_t *io_config_encode(const struct group_creation *creation, uint32_t *size)
{
    size_t room = 9 + (size_t)creation->n_replicas * (8 + 24 + 1) + 8;
    uint8_t *data = mem_zalloc(room);
    size_t at = 9;

    data[0] = 1; /* libraft's encoding version */
    put64(data + 1, (uint64_t)creation->n_replicas);
    for (int i = 0; i < creation->n_replicas; i++) {
        put64(data + at, creation->replicas[i].id);
        at += 8;
        at += (size_t)snprintf((char *)data + at, 24, "%llu",
                               (unsigned long long)creation->replicas[i].id) +
              1;
        data[at++] = RAFT_VOTER;
    }
    *size = (uint32_t)((at + 7) & ~(size_t)7);
    return data;
}

static bool config_decode_server(const uint8_t *data, size_t size, size_t *at,
                                 struct raft_configuration *out)
{
    char address[24];
    uint64_t id;
    size_t length;
    const uint8_t *end;

    if (size - *at < 8)
        return false;
    id = get64(data + *at);
    *at += 8;
    end = memchr(data + *at, 0, size - *at);
    if (end == NULL)
        return false;
    length = (size_t)(end - (data + *at)) + 1;
    snprintf(address, sizeof address, "%llu", (unsigned long long)id);
    if (length != strlen(address) + 1 ||
        memcmp(data + *at, address, length) != 0)
        return false; /* ours are always the replica's id */
    *at += length;
    if (*at >= size || data[*at] > RAFT_SPARE || id == 0)
        return false;
    return raft_configuration_add(out, id, address, data[(*at)++]) == 0;
}

bool io_config_decode(const uint8_t *data, size_t size,
                      struct raft_configuration *out)
{
    size_t at = 9;
    uint64_t n;

    raft_configuration_init(out);
    if (size < 9 || data[0] != 1)
        return false;
    n = get64(data + 1);
    if (n == 0 || n > GROUP_REPLICAS_MAX)
        return false;
    for (uint64_t i = 0; i < n; i++) {
        if (!config_decode_server(data, size, &at, out)) {
            raft_configuration_close(out);
            raft_configuration_init(out);
            return false;
        }
    }
    return true;
}

/* ---- load ---------------------------------------------------------------- */

static struct raft_snapshot *load_snapshot(const struct group *g)
{
    struct raft_snapshot *s = raft_calloc(1, sizeof *s);

    s->index = g->settled;
    s->term = g->settled_term;
    if (!io_config_decode(g->config.data, g->config.size, &s->configuration))
        UNREACHABLE("a settled configuration is checked when it is read");
    s->configuration_index = g->config.index;
    s->n_bufs = 1;
    s->bufs = raft_calloc(1, sizeof *s->bufs);
    s->bufs[0].len = 8;
    s->bufs[0].base = raft_calloc(1, 8);
    return s;
}

static unsigned short core_type(uint8_t type)
{
    return type == ENTRY_NOOP     ? RAFT_BARRIER
           : type == ENTRY_CONFIG ? RAFT_CHANGE
                                  : RAFT_COMMAND;
}

/* The core's bytes for an entry: a handle, or a configuration itself. */
static size_t core_size(uint8_t type, uint32_t size)
{
    return type == ENTRY_CONFIG ? size : sizeof(struct handle);
}

static void core_fill(void *buf, uint8_t type, const uint8_t *payload,
                      uint32_t size, uint32_t crc)
{
    struct handle handle = {.size = size, .crc = crc, .type = type};

    if (type == ENTRY_CONFIG)
        memcpy(buf, payload, size);
    else
        memcpy(buf, &handle, sizeof handle);
}

static struct raft_entry *load_entries(const struct group *g)
{
    struct raft_entry *entries;

    if (g->table.count == 0)
        return NULL;
    entries = raft_calloc(g->table.count, sizeof *entries);
    for (uint32_t i = 0; i < g->table.count; i++) {
        const struct entry_slot *slot =
            entry_table_at(&g->table, g->table.first + i);
        struct raft_entry *e = &entries[i];

        e->term = slot->term;
        e->type = core_type(slot->type);
        e->buf.len = core_size(slot->type, slot->place.size);
        e->buf.base = raft_malloc(e->buf.len);
        core_fill(e->buf.base, slot->type, slot->place.payload,
                  slot->place.size, slot->place.crc);
    }
    return entries;
}

static void log_term(struct group *g)
{
    g->vote_position = g->host->backend.append_term(
        g->host->backend_arg, &g->creation.id, (raft_term_t){g->term}, g->vote);
    raft_host_wake_at(g->host, g, g->vote_position);
}

bool io_is_only_voter(const struct group *g)
{
    struct group_config newest;
    struct raft_configuration config;
    unsigned voters = 0;
    bool self;

    group_config_at(g, UINT64_MAX, &newest);
    if (newest.data == NULL ||
        !io_config_decode(newest.data, newest.size, &config))
        return false;
    for (unsigned i = 0; i < config.n; i++)
        voters += config.servers[i].role == RAFT_VOTER;
    self = group_is_voter(&config, g->creation.self);
    raft_configuration_close(&config);
    return self && voters == 1;
}

static int io_load(struct raft_io *io, raft_term *term, raft_id *voted_for,
                   struct raft_snapshot **snapshot, raft_index *start_index,
                   struct raft_entry *entries[], size_t *n_entries)
{
    struct group *g = io->impl;
    uint64_t newest = g->settled_term;
    const struct entry_slot *last = entry_table_at(&g->table, group_last(g));

    if (last != NULL && last->term > newest)
        newest = last->term;
    if (newest > g->term) {
        g->term = newest;
        g->vote = 0;
    }
    /* The core will elect itself without a new term (S12). */
    if (io_is_only_voter(g)) {
        g->term++;
        g->vote = g->creation.self;
        log_term(g);
    }
    *term = g->term;
    *voted_for = g->vote;
    *snapshot = g->table.first > 1 ? load_snapshot(g) : NULL;
    *start_index = g->table.first;
    *entries = load_entries(g);
    *n_entries = g->table.count;
    return 0;
}

/* ---- term and vote ------------------------------------------------------- */

static int io_set_term(struct raft_io *io, raft_term term)
{
    struct group *g = io->impl;

    g->term = term;
    g->vote = 0;
    log_term(g);
    return 0;
}

static int io_set_vote(struct raft_io *io, raft_id id)
{
    struct group *g = io->impl;

    g->vote = id;
    log_term(g);
    return 0;
}

/* ---- sending ------------------------------------------------------------- */

static bool gate_closed(const struct group *g)
{
    return g->gated.head != NULL || g->vote_position > g->host->durable;
}

static void send_pieces(struct group *g, node_id node, int n)
{
    g->host->backend.send(g->host->backend_arg, node, &g->creation.id,
                          g->host->pieces, n);
}

/* Sends a message without entries, or keeps it until the gate opens. */
static void send_small(struct group *g, const struct message *m, node_id node)
{
    uint8_t head[MESSAGE_HEAD_MAX];
    size_t size = message_encode(m, head);

    if (gate_closed(g)) {
        if (g->gated.count < LIMIT_RAFT_GATED)
            kept_push(&g->gated, node, head, size);
        return;
    }
    g->host->pieces[0] = (struct transport_piece){head, size, NULL};
    send_pieces(g, node, 1);
}

void io_open_gate(struct group *g)
{
    struct kept_message *kept;

    if (g->gated.head == NULL || g->vote_position > g->host->durable)
        return;
    while ((kept = kept_pop(&g->gated)) != NULL) {
        g->host->pieces[0] =
            (struct transport_piece){kept->body, kept->size, NULL};
        send_pieces(g, kept->node, 1);
        mem_free(kept);
    }
}

static void send_append(struct group *g, struct group_peer *peer,
                        const struct message *m)
{
    struct raft_host *host = g->host;
    int n = 1;
    size_t size;

    if (gate_closed(g))
        return; /* a lost append is an ordinary thing */
    size = message_encode(m, host->head);
    for (uint32_t i = 0; i < m->n_entries; i++) {
        const struct entry_slot *slot =
            entry_table_at(&g->table, m->prev_index + 1 + i);
        struct message_entry e;

        ASSERT(slot != NULL);
        e.term = slot->term;
        e.size = slot->place.size;
        e.crc = slot->place.crc;
        e.type = slot->type;
        message_encode_entry(&e, host->head + size);
        size += MESSAGE_ENTRY_SIZE;
        if (e.size > 0)
            host->pieces[n++] = (struct transport_piece){
                slot->place.payload, e.size, slot->place.chunk};
    }
    host->pieces[0] = (struct transport_piece){host->head, size, NULL};
    /* A message without entries has it commit what it has stored by now, of
     * which only `match` is known. */
    peer->sent_commit =
        m->n_entries == 0 && m->commit > peer->match ? peer->match : m->commit;
    peer->sent_ms = group_now(g);
    send_pieces(g, peer->node, n);
}

static struct message message_to(const struct group *g, enum message_type type,
                                 replica_id to)
{
    return (struct message){
        .type = type,
        .from = g->creation.self,
        .to = to,
        .term = g->raft.current_term,
    };
}

static void core_append(struct group *g, const struct raft_message *in)
{
    const struct raft_append_entries *a = &in->append_entries;
    struct message m = message_to(g, MESSAGE_APPEND, in->server_id);
    struct group_peer *peer = group_peer(g, in->server_id);

    m.term = a->term;
    m.prev_index = a->prev_log_index;
    m.prev_term = a->prev_log_term;
    m.commit = a->leader_commit;
    m.n_entries = a->n_entries;
    m.round = g->round;
    if (peer == NULL || !guard_send(g, &m))
        return;
    m.flags = rest_asks(g, &m) ? MESSAGE_REST : 0;
    send_append(g, peer, &m);
}

static void core_append_result(struct group *g, const struct raft_message *in)
{
    const struct raft_append_entries_result *a = &in->append_entries_result;
    struct message m = message_to(g, MESSAGE_APPEND_RESULT, in->server_id);

    m.term = a->term;
    m.rejected = a->rejected;
    m.last_index = a->last_log_index;
    m.round = g->seen_term == a->term ? g->seen_round : 0;
    if (!guard_send(g, &m))
        return;
    if (g->in_append && g->rests && a->rejected == 0)
        m.flags = MESSAGE_REST;
    if (g->in_append && g->quiet && a->rejected == 0)
        return;
    send_small(g, &m, group_node_of(g, in->server_id));
}

static void core_vote(struct group *g, const struct raft_message *in)
{
    const struct raft_request_vote *a = &in->request_vote;
    struct message m = message_to(g, MESSAGE_VOTE, in->server_id);

    m.term = a->term;
    m.last_index = a->last_log_index;
    m.last_term = a->last_log_term;
    m.flags = (uint8_t)((a->pre_vote ? MESSAGE_PRE_VOTE : 0) |
                        (a->disrupt_leader ? MESSAGE_DISRUPT : 0));
    if (guard_send(g, &m))
        send_small(g, &m, group_node_of(g, in->server_id));
}

static void core_vote_result(struct group *g, const struct raft_message *in)
{
    const struct raft_request_vote_result *a = &in->request_vote_result;
    struct message m = message_to(g, MESSAGE_VOTE_RESULT, in->server_id);
    bool pre = a->pre_vote == raft_tribool_true;

    m.term = a->term;
    m.flags = (uint8_t)((pre ? MESSAGE_PRE_VOTE : 0) |
                        (a->vote_granted ? MESSAGE_GRANTED : 0));
    if (guard_send(g, &m))
        send_small(g, &m, group_node_of(g, in->server_id));
}

static void core_timeout_now(struct group *g, const struct raft_message *in)
{
    struct message m = message_to(g, MESSAGE_TIMEOUT_NOW, in->server_id);

    m.term = in->timeout_now.term;
    m.last_index = in->timeout_now.last_log_index;
    m.last_term = in->timeout_now.last_log_term;
    send_small(g, &m, group_node_of(g, in->server_id));
}

/* Never fails and never calls back from inside (C1, C2). What is lost on the
 * way the core learns by rejects. */
static int io_send(struct raft_io *io, struct raft_io_send *req,
                   const struct raft_message *in, raft_io_send_cb cb)
{
    struct group *g = io->impl;

    sends_push(g, req, cb);
    if (group_node_of(g, in->server_id) < 0)
        return 0; /* unknown, perhaps garbage (S8) */
    switch (in->type) {
        case RAFT_IO_APPEND_ENTRIES:
            core_append(g, in);
            break;
        case RAFT_IO_APPEND_ENTRIES_RESULT:
            core_append_result(g, in);
            break;
        case RAFT_IO_REQUEST_VOTE:
            core_vote(g, in);
            break;
        case RAFT_IO_REQUEST_VOTE_RESULT:
            core_vote_result(g, in);
            break;
        case RAFT_IO_TIMEOUT_NOW:
            core_timeout_now(g, in);
            break;
        default:
            break;
    }
    return 0;
}

/* Where an append without entries may stand for this peer: just behind what
 * was last sent, if that is still in memory, else at the end of the log. */
static uint64_t empty_prev(struct group *g, const struct group_peer *peer,
                           const struct raft_progress *progress)
{
    uint64_t prev = peer->parked_next != 0 ? peer->parked_next - 1
                                           : progress->next_index - 1;

    if (prev == 0 || group_term_at(g, prev) == 0)
        prev = group_last(g);
    return prev;
}

void io_send_empty(struct group *g, struct group_peer *peer, bool quiet)
{
    struct raft *r = &g->raft;
    struct message m = message_to(g, MESSAGE_APPEND, peer->id);

    ASSERT(r->state == RAFT_LEADER);
    for (unsigned i = 0; i < r->configuration.n; i++) {
        const struct raft_progress *progress = &r->leader_state.progress[i];

        if (r->configuration.servers[i].id != peer->id)
            continue;
        m.prev_index = empty_prev(g, peer, progress);
        m.prev_term = group_term_at(g, m.prev_index);
        m.commit =
            r->commit_index < m.prev_index ? r->commit_index : m.prev_index;
        m.round = g->round;
        m.flags = rest_asks(g, &m) ? MESSAGE_REST : quiet ? MESSAGE_QUIET : 0;
        if (m.prev_term != 0)
            send_append(g, peer, &m);
        return;
    }
}

void io_send_offer(struct group *g, struct group_peer *peer, uint64_t index,
                   uint64_t term)
{
    struct message m = message_to(g, MESSAGE_OFFER, peer->id);

    m.last_index = index;
    m.last_term = term;
    send_small(g, &m, peer->node);
}

void io_send_matched(struct group *g, replica_id to, uint64_t index)
{
    struct message m = message_to(g, MESSAGE_APPEND_RESULT, to);

    m.last_index = index;
    send_small(g, &m, group_node_of(g, to));
}

void io_send_timeout_now(struct group *g, struct group_peer *peer)
{
    struct message m = message_to(g, MESSAGE_TIMEOUT_NOW, peer->id);

    m.last_index = group_last(g);
    m.last_term = group_term_at(g, m.last_index);
    send_small(g, &m, peer->node);
}

bool io_complete_sends(struct group *g)
{
    bool any = false;

    while (g->n_sends > 0) {
        struct send_done *sends = g->sends;
        uint32_t n = g->n_sends;

        g->sends = NULL;
        g->n_sends = g->sends_size = 0;
        g->in_core++;
        for (uint32_t i = 0; i < n; i++)
            sends[i].cb(sends[i].req, 0);
        g->in_core--;
        if (g->sends == NULL) {
            g->sends = sends;
            g->sends_size = n;
        } else {
            mem_free(sends);
        }
        any = true;
    }
    if (g->snapshot_get != NULL) {
        struct raft_io_snapshot_get *get = g->snapshot_get;

        g->snapshot_get = NULL;
        g->in_core++;
        g->snapshot_get_cb(get, NULL, RAFT_NOTFOUND);
        g->in_core--;
        any = true;
    }
    return any;
}

/* ---- appending ----------------------------------------------------------- */

/* The payload of the entry that is now to be appended. */
static int append_payload(struct group *g, uint64_t index,
                          const struct raft_entry *e, uint8_t *type,
                          struct iovec *one, const struct iovec **iov)
{
    const struct message_entry *staged;

    if (g->staged != NULL) {
        ASSERT(index >= g->staged_first &&
               index - g->staged_first < g->staged_n);
        staged = &g->staged[index - g->staged_first];
        *type = staged->type;
        one->iov_base = (void *)(uintptr_t)staged->payload;
        one->iov_len = staged->size;
        *iov = one;
        return staged->size > 0 ? 1 : 0;
    }
    switch (e->type) {
        case RAFT_BARRIER:
            *type = ENTRY_NOOP;
            *iov = one;
            return 0;
        case RAFT_CHANGE:
            *type = ENTRY_CONFIG;
            one->iov_base = e->buf.base;
            one->iov_len = e->buf.len;
            *iov = one;
            return 1;
        default:
            *type = ((const struct handle *)e->buf.base)->type;
            *iov = g->propose_iov;
            return g->propose_n;
    }
}

static uint64_t append_one(struct group *g, const struct raft_entry *e)
{
    struct raft_host *host = g->host;
    uint64_t index = entry_table_next(&g->table);
    struct wal_place place;
    struct iovec one = {0};
    const struct iovec *iov;
    uint8_t type;
    int n = append_payload(g, index, e, &type, &one, &iov);
    uint64_t position;

    position = host->backend.append_entry(
        host->backend_arg, &g->creation.id, (log_index){index},
        (raft_term_t){e->term}, (enum entry_type)type, iov, n, &place);
    /* a no-op or configuration of our own needs no reservation */
    if (!g->unreserved &&
        (g->staged != NULL || type == ENTRY_DATA || type == ENTRY_CONTROL)) {
        ASSERT(g->reserved_records > 0 && g->reserved_bytes >= place.size);
        g->reserved_records--;
        g->reserved_bytes -= place.size;
    }
    entry_table_push(&g->table, e->term, (enum entry_type)type, &place);
    return position;
}

static int io_append(struct raft_io *io, struct raft_io_append *req,
                     const struct raft_entry entries[], unsigned n,
                     raft_io_append_cb cb)
{
    struct group *g = io->impl;
    uint64_t position = 0;

    for (unsigned i = 0; i < n; i++)
        position = append_one(g, &entries[i]);
    append_queue_push(&g->appends, (struct append_wait){req, cb, position});
    raft_host_wake_at(g->host, g, position);
    return 0;
}

static int io_truncate(struct raft_io *io, raft_index index)
{
    struct group *g = io->impl;

    ASSERT(index > g->settled && index > g->applied);
    entry_table_truncate(&g->table, index);
    g->host->backend.append_truncate(g->host->backend_arg, &g->creation.id,
                                     (log_index){index});
    if (g->durable >= index)
        g->durable = index - 1;
    if (g->appended >= index) {
        g->appended = index - 1;
        if (g->truncated == 0 || g->truncated > index)
            g->truncated = index;
    }
    return 0;
}

bool io_append_ready(const struct group *g)
{
    return g->appends.count > 0 &&
           g->appends.items[g->appends.head].position <= g->host->durable;
}

void io_complete_append(struct group *g)
{
    struct append_wait wait = append_queue_pop(&g->appends);

    g->in_core++;
    wait.cb(wait.req, 0);
    g->in_core--;
}

/* ---- the rest of the contract -------------------------------------------- */

static int io_init_cb(struct raft_io *io, raft_id id, const char *address)
{
    (void)io, (void)id, (void)address;
    return 0;
}

static int io_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick,
                    raft_io_recv_cb recv)
{
    struct group *g = io->impl;

    (void)msecs;
    g->core_tick = tick;
    g->core_recv = recv;
    return 0;
}

/* Everything outstanding is given back first, appends as if they had succeeded
 * (C4: an error would make the core truncate what it no longer has). */
static void io_close(struct raft_io *io, raft_io_close_cb cb)
{
    struct group *g = io->impl;
    int status = guard_on(g, GUARD_STORAGE) ? 0 : RAFT_CANCELED;

    while (g->appends.count > 0) {
        struct append_wait wait = append_queue_pop(&g->appends);

        wait.cb(wait.req, status);
    }
    io_complete_sends(g);
    cb(io);
}

static int io_snapshot_put(struct raft_io *io, unsigned trailing,
                           struct raft_io_snapshot_put *req,
                           const struct raft_snapshot *snapshot,
                           raft_io_snapshot_put_cb cb)
{
    (void)io, (void)trailing, (void)req, (void)snapshot, (void)cb;
    UNREACHABLE("the core takes no snapshots of its own");
}

/* Answered before the turn ends (L8): there is nothing to install yet, the
 * core asks again after its time-out. */
static int io_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *req,
                           raft_io_snapshot_get_cb cb)
{
    struct group *g = io->impl;

    if (g->snapshot_get != NULL)
        return RAFT_BUSY;
    g->snapshot_get = req;
    g->snapshot_get_cb = cb;
    return 0;
}

static raft_time io_time(struct raft_io *io)
{
    return group_now(io->impl);
}

/* Election time-outs: spread by preference, so that the preferred replica is
 * mostly first and two seldom collide; short ones after a leader's broker was
 * found dead. */
static int io_random(struct raft_io *io, int min, int max)
{
    struct group *g = io->impl;
    uint64_t random = env_random(g->host->env);
    int n = g->creation.n_replicas > 0 ? g->creation.n_replicas : 1;
    int rank = group_rank(g, g->creation.self);
    int step = (max - min) / n;

    if (g->urgent_until_ms > group_now(g))
        return 150 + 100 * rank + (int)(random % 100);
    if (rank >= n || step <= 0)
        return min + (int)(random % (uint64_t)(max - min + 1));
    return min + step * rank + (int)(random % (uint64_t)step);
}

void io_init(struct group *g)
{
    g->io = (struct raft_io){
        .version = 1,
        .impl = g,
        .init = io_init_cb,
        .close = io_close,
        .load = io_load,
        .start = io_start,
        .set_term = io_set_term,
        .set_vote = io_set_vote,
        .send = io_send,
        .append = io_append,
        .truncate = io_truncate,
        .snapshot_put = io_snapshot_put,
        .snapshot_get = io_snapshot_get,
        .time = io_time,
        .random = io_random,
    };
}
