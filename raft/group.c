#include "raft/group.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "raft/catchup_impl.h"
#include "raft/guard.h"
#include "raft/io.h"
#include "raft/proof.h"
#include "raft/rest.h"

/* A follower heard within this time is alive. */
#define ALIVE_MS 2000
/* In sync: at the end of the log, as it was then, within this time. */
#define CAUGHT_UP_MS 10000
/* The preferred replica is fit for this long before it gets the leadership. */
#define PREFERRED_MS 3000
/* A follower that was at the end so lately is waited for: entries it needs stay
 * in memory, though producers have to wait. */
#define HOLD_MS 3000
#define TRANSFER_MS 2000
#define TIMEOUT_NOW_MS 100
/* A leader this young greets replicas that have not answered it yet. */
#define GREET_MS 3000

/* ---- looking ------------------------------------------------------------- */

/* Starts far from zero: libraft takes 0 for "never". */
uint64_t group_now(const struct group *g)
{
    return env_now_ms(g->host->env) + 1000000;
}

int group_rank(const struct group *g, replica_id id)
{
    int i = 0;

    while (i < g->creation.n_replicas && g->creation.replicas[i].id != id)
        i++;
    return i;
}

node_id group_node_of(const struct group *g, replica_id id)
{
    int rank = group_rank(g, id);

    return rank < g->creation.n_replicas ? g->creation.replicas[rank].node : -1;
}

struct group_peer *group_peer(struct group *g, replica_id id)
{
    for (int i = 0; i < g->n_peers; i++)
        if (g->peers[i].id == id)
            return &g->peers[i];
    return NULL;
}

uint64_t group_term_at(const struct group *g, uint64_t index)
{
    /* the core's function only reads */
    struct raft_log *log = (struct raft_log *)(uintptr_t)&g->raft.log;

    return index == 0 ? 0 : logTermOf(log, index);
}

bool group_is_voter(const struct raft_configuration *config, replica_id id)
{
    for (unsigned i = 0; i < config->n; i++)
        if (config->servers[i].id == id)
            return config->servers[i].role == RAFT_VOTER;
    return false;
}

static uint64_t last_index(const struct group *g)
{
    return entry_table_next(&g->table) - 1;
}

void group_view(const struct group *g, uint64_t index, struct group_entry *out)
{
    const struct entry_slot *slot = entry_table_at(&g->table, index);

    ASSERT(slot != NULL);
    out->index.v = index;
    out->term.v = slot->term;
    out->type = (enum entry_type)slot->type;
    out->payload = slot->place.payload;
    out->size = slot->place.size;
    out->crc = slot->place.crc;
    out->chunk = slot->place.chunk;
}

static void config_from_slot(const struct entry_slot *slot, uint64_t index,
                             struct group_config *out)
{
    out->index = index;
    out->term = slot->term;
    out->data = (uint8_t *)(uintptr_t)slot->place.payload;
    out->size = slot->place.size;
}

void group_config_at(const struct group *g, uint64_t index,
                     struct group_config *out)
{
    uint64_t at = index < last_index(g) ? index : last_index(g);

    *out = g->config;
    for (; at > g->config.index && at >= g->table.first; at--) {
        const struct entry_slot *slot = entry_table_at(&g->table, at);

        if (slot != NULL && slot->type == ENTRY_CONFIG) {
            config_from_slot(slot, at, out);
            return;
        }
    }
}

/* ---- beginning and end --------------------------------------------------- */

static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf,
                     void **result)
{
    (void)fsm, (void)buf;
    *result = NULL; /* applying is done after the core has returned */
    return 0;
}

static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[],
                        unsigned *n_bufs)
{
    (void)fsm, (void)bufs, (void)n_bufs;
    return RAFT_BUSY;
}

static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    (void)fsm;
    raft_free(buf->base);
    return 0;
}

static void init_genesis(struct group *g)
{
    struct wal_place place = {0};

    g->genesis = io_config_encode(&g->creation, &g->genesis_size);
    g->config.index = g->config.term = 1;
    g->config.size = g->genesis_size;
    g->config.data = mem_alloc(g->genesis_size);
    memcpy(g->config.data, g->genesis, g->genesis_size);
    place.payload = g->genesis;
    place.size = g->genesis_size;
    place.crc = crc32c(0, g->genesis, g->genesis_size);
    entry_table_init(&g->table, 1);
    entry_table_push(&g->table, 1, ENTRY_CONFIG, &place);
    g->appended = g->applied = g->durable = 1;
    g->settled = g->settled_term = 1;
    g->term = 1;
}

struct group *group_new(struct raft_host *host,
                        const struct group_creation *creation)
{
    struct group *g = mem_zalloc(sizeof *g);

    g->host = host;
    g->creation = *creation;
    g->flipped_role = -1;
    g->role.leader = -1;
    g->reads_tail = &g->reads;
    g->fsm.version = 1;
    g->fsm.data = g;
    g->fsm.apply = fsm_apply;
    g->fsm.snapshot = fsm_snapshot;
    g->fsm.restore = fsm_restore;
    snprintf(g->address, sizeof g->address, "%llu",
             (unsigned long long)creation->self);
    for (int i = 0; i < creation->n_replicas; i++)
        if (creation->replicas[i].id != creation->self)
            g->peers[g->n_peers++] = (struct group_peer){
                .id = creation->replicas[i].id,
                .node = creation->replicas[i].node,
            };
    io_init(g);
    init_genesis(g);
    return g;
}

void group_recover(struct group *g, const struct group_found *found)
{
    g->term = found->term;
    g->vote = found->vote;
    if (found->settled <= 1)
        return; /* entry 1 is there by creation */
    entry_table_free(&g->table);
    entry_table_init(&g->table, found->settled + 1);
    g->settled = found->settled;
    g->settled_term = found->settled_term;
    g->appended = g->applied = g->durable = found->settled;
    mem_free(g->config.data);
    g->config = found->config;
    g->config.data = mem_alloc(found->config.size);
    memcpy(g->config.data, found->config.data, found->config.size);
    mem_free(g->blob);
    g->blob_size = found->blob_size;
    g->blob = mem_alloc(found->blob_size);
    if (found->blob_size > 0)
        memcpy(g->blob, found->blob, found->blob_size);
}

bool group_recover_entry(struct group *g, uint64_t index, uint64_t term,
                         enum entry_type type, const struct wal_place *place)
{
    const struct entry_slot *last =
        entry_table_at(&g->table, entry_table_next(&g->table) - 1);
    struct raft_configuration config;

    if (index != entry_table_next(&g->table) ||
        term < (last != NULL ? last->term : g->settled_term))
        return false;
    if (type == ENTRY_CONFIG) {
        if (!io_config_decode(place->payload, place->size, &config))
            return false;
        raft_configuration_close(&config);
    }
    entry_table_push(&g->table, term, type, place);
    return true;
}

void group_forget(struct group *g)
{
    struct group fresh = {.creation = g->creation};

    init_genesis(&fresh);
    entry_table_free(&g->table);
    mem_free(g->genesis);
    mem_free(g->config.data);
    mem_free(g->blob);
    g->genesis = fresh.genesis;
    g->genesis_size = fresh.genesis_size;
    g->table = fresh.table;
    g->config = fresh.config;
    g->blob = NULL;
    g->blob_size = 0;
    g->appended = g->applied = g->durable = 1;
    g->settled = g->settled_term = 1;
}

void group_free(struct group *g)
{
    kept_clear(&g->held);
    kept_clear(&g->gated);
    entry_table_free(&g->table);
    mem_free(g->appends.items);
    mem_free(g->sends);
    mem_free(g->genesis);
    mem_free(g->config.data);
    mem_free(g->blob);
    mem_free(g);
}

static void core_configure(struct group *g)
{
    const struct raft_host_options *o = &g->host->options;

    g->raft.tracer = &NoopTracer;
    g->raft.data = g;
    raft_set_election_timeout(&g->raft, o->election_ms);
    raft_set_heartbeat_timeout(&g->raft, o->heartbeat_ms);
    raft_set_snapshot_threshold(&g->raft, UINT32_MAX);
    raft_set_pre_vote(&g->raft, true);
}

void group_start(struct group *g)
{
    int rv;

    rv = raft_init(&g->raft, &g->io, &g->fsm, g->creation.self, g->address);
    ASSERT(rv == 0);
    core_configure(g);
    g->in_core++;
    rv = raft_start(&g->raft);
    g->in_core--;
    ASSERT(rv == 0); /* what is loaded was checked by recovery */
    g->life = GROUP_OPEN;
    /* followers are quick to hear a first candidate */
    group_activate(g, g->host->options.tick_ms * 4u);
    group_want_turn(g);
}

static void note_uncommitted(struct group *g);

static void core_closed(struct raft *r)
{
    (void)r;
}

static void fail_reads(struct group *g, enum err status)
{
    while (g->reads != NULL) {
        struct group_read *read = g->reads;

        g->reads = read->next;
        if (g->reads == NULL)
            g->reads_tail = &g->reads;
        read->cb(read, status);
    }
}

void group_stop(struct group *g)
{
    proof_cancel(g);
    if (g->life != GROUP_OPEN)
        return;
    rest_wake(g);
    g->life = GROUP_CLOSING;
    if (g->transfer_to != 0)
        g->host->transfers--;
    g->transfer_to = 0;
    g->in_core++;
    raft_close(&g->raft, core_closed);
    g->in_core--;
    note_uncommitted(g);
    fail_reads(g, ERR_NOT_LEADER);
}

uint64_t group_cut(struct group *g, uint64_t first)
{
    uint64_t position;

    ASSERT(g->appends.count == 0 && first > g->settled);
    log_info("raft",
             "entries dropped partition=%d from=%llu reason=\"they "
             "contradict what is committed\"",
             (int)g->creation.id.partition, (unsigned long long)first);
    group_stop(g);
    entry_table_truncate(&g->table, first);
    position = g->host->backend.append_truncate(
        g->host->backend_arg, &g->creation.id, (log_index){first});
    if (g->durable >= first)
        g->durable = first - 1;
    if (g->appended >= first) {
        g->appended = first - 1;
        if (g->truncated == 0 || g->truncated > first)
            g->truncated = first;
    }
    group_start(g);
    return position;
}

/* ---- telling the state machine ------------------------------------------- */

static void notify_log(struct group *g)
{
    if (g->truncated != 0) {
        uint64_t first = g->truncated;

        g->truncated = 0;
        g->ops->truncated(g->sm, (log_index){first});
    }
    while (g->life == GROUP_OPEN && g->appended < last_index(g)) {
        struct group_entry entry;

        group_view(g, ++g->appended, &entry);
        g->ops->appended(g->sm, &entry);
    }
}

static void notify_durable(struct group *g)
{
    uint64_t was = g->durable;
    const struct entry_slot *slot;

    if (g->durable + 1 < g->table.first)
        g->durable = g->table.first - 1;
    while ((slot = entry_table_at(&g->table, g->durable + 1)) != NULL &&
           slot->place.position <= g->host->durable)
        g->durable++;
    if (g->durable != was)
        g->ops->durable(g->sm, (log_index){g->durable});
}

static void notify_applied(struct group *g)
{
    bool any = false;

    while (g->life == GROUP_OPEN && g->applied < g->raft.last_applied) {
        struct group_entry entry;

        group_view(g, ++g->applied, &entry);
        g->ops->applied(g->sm, &entry);
        any = true;
    }
    if (any && g->life == GROUP_OPEN)
        settle_mark(g);
}

static struct group_role role_now(const struct group *g)
{
    const struct raft *r = &g->raft;
    struct group_role role = {.term = {r->current_term}, .leader = -1};

    if (r->state == RAFT_LEADER) {
        role.is_leader = true;
        role.leader = g->host->options.node;
        role.ready = g->barrier_term == r->current_term
                         ? g->applied >= g->noop
                         : !guard_on(g, GUARD_NOOP);
        role.noop.v = role.ready ? g->noop : 0;
    } else if (r->state == RAFT_FOLLOWER &&
               r->follower_state.current_leader.id != 0) {
        role.leader = group_node_of(g, r->follower_state.current_leader.id);
    }
    return role;
}

static bool role_equal(const struct group_role *a, const struct group_role *b)
{
    return a->term.v == b->term.v && a->leader == b->leader &&
           a->is_leader == b->is_leader && a->ready == b->ready;
}

static void notify_role(struct group *g)
{
    struct group_role role = role_now(g);

    if (role_equal(&role, &g->role))
        return;
    g->role = role;
    if (!role.is_leader && g->transfer_to != 0) {
        g->transfer_to = 0;
        g->host->transfers--;
    }
    g->ops->role_changed(g->sm, &role);
    g->again = true;
}

/* ---- linearizable reads -------------------------------------------------- */

static bool round_confirmed(struct group *g, uint64_t round)
{
    const struct raft_configuration *c = &g->raft.configuration;
    unsigned voters = 0, confirmed = 0;

    for (unsigned i = 0; i < c->n; i++) {
        const struct group_peer *peer = group_peer(g, c->servers[i].id);

        if (c->servers[i].role != RAFT_VOTER)
            continue;
        voters++;
        confirmed += c->servers[i].id == g->creation.self ||
                     (peer != NULL && peer->ack_round >= round);
    }
    return confirmed > voters / 2;
}

static void notify_reads(struct group *g)
{
    if (g->reads != NULL && g->raft.state != RAFT_LEADER) {
        fail_reads(g, ERR_NOT_LEADER);
        return;
    }
    while (g->reads != NULL && g->life == GROUP_OPEN) {
        struct group_read *read = g->reads;

        if (read->round == 0 || g->applied < read->need.v ||
            !round_confirmed(g, read->round))
            return;
        g->reads = read->next;
        if (g->reads == NULL)
            g->reads_tail = &g->reads;
        read->cb(read, ERR_OK);
    }
}

void group_read_barrier(struct group *g, struct group_read *read)
{
    uint64_t need = g->raft.commit_index;

    if (g->raft.state == RAFT_LEADER)
        rest_wake(g);
    /* an older leader's commits are all below our no-op */
    if (g->raft.state == RAFT_LEADER && g->noop > need)
        need = g->noop;
    read->next = NULL;
    read->round = 0;
    read->need.v = need;
    *g->reads_tail = read;
    g->reads_tail = &read->next;
    group_want_turn(g);
}

/* ---- going on ------------------------------------------------------------ */

/* A leadership of this replica begins: nothing is known of the others yet. */
static void check_leadership(struct group *g)
{
    if (g->raft.state != RAFT_LEADER) {
        for (int i = 0; i < g->n_peers; i++)
            g->peers[i].parked_next = 0;
        return;
    }
    if (g->leader_term == g->raft.current_term)
        return;
    g->leader_term = g->raft.current_term;
    rest_wake(g);
    g->leader_since_ms = group_now(g);
    group_activate(g, GREET_MS);
    g->noop = 0;
    g->told_commit = 0;
    g->preferred_since_ms = 0;
    for (int i = 0; i < g->n_peers; i++)
        g->peers[i] = (struct group_peer){
            .id = g->peers[i].id,
            .node = g->peers[i].node,
            .target = last_index(g),
            .since_ms = group_now(g),
        };
}

static bool complete_appends(struct group *g)
{
    bool any = false;

    while (io_append_ready(g) && guard_complete(g)) {
        io_complete_append(g);
        any = true;
    }
    return any;
}

static bool deliver_held(struct group *g);

/* The core takes a commit index only as far as it has stored, and forgets the
 * rest: without this a follower would learn of the newest commits with the next
 * heartbeat. */
static bool follow_commit(struct group *g)
{
    struct raft *r = &g->raft;
    uint64_t upto =
        g->commit_heard < r->last_stored ? g->commit_heard : r->last_stored;

    if (r->state != RAFT_FOLLOWER || g->commit_term != r->current_term ||
        upto <= r->commit_index)
        return false;
    r->commit_index = upto;
    g->in_core++;
    replicationApply(r);
    g->in_core--;
    return true;
}

/* Keeps the window small: what is settled and not wanted by a follower that
 * keeps up leaves memory. */
static void shrink_window(struct group *g)
{
    uint64_t upto;

    if (g->table.count <= LIMIT_RAFT_ENTRIES / 2)
        return;
    upto = last_index(g) - LIMIT_RAFT_ENTRIES / 4;
    if (upto > g->settled)
        upto = g->settled;
    if (g->table.count < LIMIT_RAFT_ENTRIES && group_is_held(g, upto))
        return;
    if (upto >= g->table.first)
        group_evict(g, upto);
}

void group_run(struct group *g)
{
    if (g->running || g->life != GROUP_OPEN) {
        g->again = true;
        return;
    }
    ASSERT(g->in_core == 0);
    g->running = true;
    do {
        g->again = io_complete_sends(g);
        io_open_gate(g);
        g->again |= complete_appends(g);
        g->again |= follow_commit(g);
        g->again |= deliver_held(g);
        if (g->raft.state == RAFT_UNAVAILABLE)
            env_fatal(g->host->env, "raft group failed: %s",
                      raft_errmsg(&g->raft));
        check_leadership(g);
        g->again |= guard_after(g);
        notify_log(g);
        notify_durable(g);
        proof_check(g);
        notify_applied(g);
        if (g->life == GROUP_OPEN)
            notify_role(g);
        notify_reads(g);
    } while (g->again && g->life == GROUP_OPEN);
    g->running = false;
    note_uncommitted(g);
    if (g->life != GROUP_OPEN) {
        raft_host_want_turn(g->host); /* deleted from inside a callback */
        return;
    }
    shrink_window(g);
    if (g->raft.state == RAFT_LEADER && !g->untold &&
        g->told_commit < g->raft.commit_index)
        group_want_turn(g);
}

/* Followers hear of commits at once (the host says when that is), not with the
 * next heartbeat; often an append that leaves earlier has told them. */
static void tell_commit(struct group *g)
{
    const struct raft *r = &g->raft;

    g->told_commit = r->commit_index;
    for (unsigned i = 0; i < r->configuration.n; i++) {
        const struct raft_progress *p = &r->leader_state.progress[i];
        struct group_peer *peer = group_peer(g, r->configuration.servers[i].id);
        uint64_t sent;

        if (peer == NULL || p->state != PROGRESS_PIPELINE)
            continue;
        sent =
            peer->parked_next != 0 ? peer->parked_next - 1 : p->next_index - 1;
        if (sent > r->commit_index)
            sent = r->commit_index;
        /* Not before it has stored that far: the core commits no further than
         * what is stored, and would hear of it again only by a heartbeat. Its
         * append result brings us back here (note_match). */
        if (sent > p->match_index)
            sent = p->match_index;
        if (peer->sent_commit < sent)
            io_send_empty(g, peer, true);
    }
}

static void begin_round(struct group *g)
{
    bool any = false;

    for (struct group_read *r = g->reads; r != NULL; r = r->next) {
        if (r->round != 0)
            continue;
        r->round = g->round + 1;
        any = true;
    }
    if (!any)
        return;
    g->round++;
    for (int i = 0; i < g->n_peers; i++)
        if (group_is_voter(&g->raft.configuration, g->peers[i].id))
            io_send_empty(g, &g->peers[i], false);
}

void group_turn_end(struct group *g)
{
    group_run(g);
    if (g->life != GROUP_OPEN || g->raft.state != RAFT_LEADER)
        return;
    if (g->told_commit < g->raft.commit_index && !g->untold &&
        raft_host_may_tell(g->host, g))
        tell_commit(g);
    if (g->reads != NULL) {
        begin_round(g);
        notify_reads(g); /* a lone voter needs nobody */
    }
}

/* ---- messages ------------------------------------------------------------ */

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
        peer->target = last_index(g);
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

static bool deliver_held(struct group *g)
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

/* ---- proposing ----------------------------------------------------------- */

static void apply_done(struct raft_apply *req, int status, void *result)
{
    (void)status, (void)result; /* commit and role are watched instead */
    mem_free(req);
}

/* What is not known to be committed, after something changed. */
static void note_uncommitted(struct group *g)
{
    const struct raft *r = &g->raft;
    uint64_t bytes =
        g->life == GROUP_OPEN
            ? entry_table_bytes(&g->table, r->commit_index, last_index(g))
            : 0;

    if (bytes < g->uncommitted && g->host->room_head != NULL) {
        g->host->room_due = true;
        raft_host_want_turn(g->host);
    }
    g->host->uncommitted += bytes - g->uncommitted;
    g->uncommitted = bytes;
}

/* What does not commit is bounded, for each group and for all of them: a leader
 * must leave room in its log for what it follows, or brokers that lead
 * different groups could wait for each other. One entry is always allowed. */
static bool uncommitted_allowed(struct group *g, uint64_t size)
{
    uint64_t all = g->host->uncommitted_max;

    if (g->uncommitted > 0 &&
        g->uncommitted + size > LIMIT_RAFT_UNCOMMITTED_BYTES)
        return false;
    return g->host->uncommitted == 0 || g->host->uncommitted + size <= all;
}

static enum err propose_allowed(struct group *g, uint64_t size)
{
    if (g->life != GROUP_OPEN || g->raft.state != RAFT_LEADER)
        return ERR_NOT_LEADER;
    if (!g->role.ready || g->role.term.v != g->raft.current_term ||
        g->transfer_to != 0)
        return ERR_NOT_READY;
    if (size > g->host->entry_bytes_max)
        return ERR_TOO_LARGE;
    if (last_index(g) >= g->settled + LIMIT_RAFT_ENTRIES) {
        g->wanted = g->host->settle_wanted = true;
        return ERR_BUSY;
    }
    if (g->table.count >= LIMIT_RAFT_ENTRIES)
        return ERR_BUSY; /* held by a follower */
    if (!uncommitted_allowed(g, size))
        return ERR_BUSY;
    return g->host->backend.reserve(g->host->backend_arg, size, 1) ? ERR_OK
                                                                   : ERR_BUSY;
}

enum err group_propose(struct group *g, enum entry_type type,
                       const struct iovec *payload, int n_payload,
                       log_index *out)
{
    struct raft_buffer buf = {.len = sizeof(struct handle)};
    struct raft_apply *req;
    struct handle *handle;
    uint64_t size = 0;
    enum err e;
    int rv;

    ASSERT(type == ENTRY_DATA || type == ENTRY_CONTROL);
    ASSERT(g->in_core == 0);
    for (int i = 0; i < n_payload; i++)
        size += payload[i].iov_len;
    e = propose_allowed(g, size);
    if (e != ERR_OK)
        return e;
    rest_wake(g);
    handle = raft_calloc(1, sizeof *handle);
    handle->size = (uint32_t)size;
    handle->type = (uint8_t)type;
    buf.base = handle;
    req = mem_alloc(sizeof *req);
    g->propose_iov = payload;
    g->propose_n = n_payload;
    g->reserved_bytes = size;
    g->reserved_records = 1;
    g->in_core++;
    rv = raft_apply(&g->raft, req, &buf, 1, apply_done);
    g->in_core--;
    ASSERT(rv == 0 && g->reserved_records == 0);
    g->propose_iov = NULL;
    out->v = last_index(g);
    note_uncommitted(g);
    notify_log(g);
    g->again = true;
    group_want_turn(g);
    return ERR_OK;
}

/* ---- leadership ---------------------------------------------------------- */

void group_leader_gone(struct group *g)
{
    struct raft *r = &g->raft;
    uint64_t random = env_random(g->host->env);
    unsigned rank = (unsigned)group_rank(g, g->creation.self);

    if (g->life != GROUP_OPEN || r->state != RAFT_FOLLOWER)
        return;
    r->follower_state.current_leader.id = 0;
    r->follower_state.randomized_election_timeout =
        50 + 80 * (rank < 3 ? rank : 3) + (unsigned)(random % 40);
    r->election_timer_start = group_now(g);
    g->urgent_until_ms = group_now(g) + 3000;
    group_activate(g, 3000);
    group_run(g);
}

void group_campaign_in(struct group *g, uint64_t ms)
{
    struct raft *r = &g->raft;
    unsigned rank = (unsigned)group_rank(g, g->creation.self);

    if (g->life != GROUP_OPEN || r->state != RAFT_FOLLOWER)
        return;
    r->follower_state.randomized_election_timeout =
        (unsigned)ms + 300 * rank +
        (ms == 0 ? 0 : (unsigned)(env_random(g->host->env) % 100));
    r->election_timer_start = group_now(g);
    g->urgent_until_ms = group_now(g) + ms + 3000;
    group_activate(g, ms + 3000);
    if (ms == 0)
        group_tick(g);
}

static struct group_peer *best_target(struct group *g)
{
    struct group_peer *best = NULL;

    for (int i = 0; i < g->n_peers; i++) {
        struct group_peer *peer = &g->peers[i];

        if (!group_is_voter(&g->raft.configuration, peer->id) ||
            peer->heard_ms == 0 || raft_host_is_down(g->host, peer->node) ||
            group_now(g) - peer->heard_ms > ALIVE_MS)
            continue;
        if (best == NULL || peer->match > best->match)
            best = peer;
    }
    return best;
}

bool group_is_handing_over(const struct group *g)
{
    return g->transfer_to != 0;
}

enum err group_transfer(struct group *g, node_id target)
{
    struct group_peer *to = NULL;

    if (g->life != GROUP_OPEN || g->raft.state != RAFT_LEADER)
        return ERR_NOT_LEADER;
    if (g->transfer_to != 0)
        return ERR_BUSY;
    rest_wake(g);
    for (int i = 0; i < g->n_peers; i++)
        if (g->peers[i].node == target &&
            group_is_voter(&g->raft.configuration, g->peers[i].id))
            to = &g->peers[i];
    if (target < 0)
        to = best_target(g);
    if (to == NULL)
        return ERR_NOT_FOUND;
    g->transfer_to = to->id;
    g->transfer_until_ms = group_now(g) + TRANSFER_MS;
    g->transfer_sent_ms = 0;
    g->host->transfers++;
    group_activate(g, TRANSFER_MS);
    group_want_turn(g);
    return ERR_OK;
}

/* Sends TimeoutNow when the target has everything, and again until the
 * leadership is gone or the time is over (the core would do it once). */
static void transfer_tick(struct group *g)
{
    struct group_peer *to = group_peer(g, g->transfer_to);
    uint64_t now = group_now(g);

    if (g->transfer_to == 0)
        return;
    if (to == NULL || now > g->transfer_until_ms) {
        g->transfer_to = 0;
        g->host->transfers--;
        return;
    }
    if (to->match < last_index(g) || g->raft.last_stored < last_index(g) ||
        now - g->transfer_sent_ms < TIMEOUT_NOW_MS)
        return;
    g->transfer_sent_ms = now;
    io_send_timeout_now(g, to);
}

/* The first replica leads when it can. */
static void preferred_tick(struct group *g)
{
    struct group_peer *to = group_peer(g, g->creation.replicas[0].id);
    uint64_t now = group_now(g);
    bool fit;

    if (to == NULL || g->transfer_to != 0)
        return;
    fit = group_is_voter(&g->raft.configuration, to->id) && to->heard_ms != 0 &&
          now - to->heard_ms < ALIVE_MS &&
          to->match + LIMIT_RAFT_APPEND_ENTRIES >= last_index(g) &&
          !raft_host_is_down(g->host, to->node);
    if (!fit || g->preferred_since_ms == 0) {
        g->preferred_since_ms = fit ? now : 0;
        return;
    }
    if (now - g->preferred_since_ms < PREFERRED_MS || !g->role.ready ||
        g->host->transfers >= LIMIT_RAFT_TRANSFERS || g->host->stopping)
        return;
    g->preferred_since_ms = now;
    if (group_transfer(g, to->node) != ERR_OK)
        return; /* later then */
}

/* A replica that was not there yet when the leadership began (a group being
 * created, a broker just starting) need not wait for a heartbeat: while the
 * leader is young it greets, at every tick, whom it has not heard. */
static void greet_tick(struct group *g)
{
    struct raft *r = &g->raft;

    for (unsigned i = 0; i < r->configuration.n; i++) {
        struct group_peer *peer = group_peer(g, r->configuration.servers[i].id);

        if (peer != NULL && peer->heard_ms == 0 &&
            group_now(g) < g->leader_since_ms + GREET_MS)
            r->leader_state.progress[i].last_send = 0;
    }
}

/* Where nothing is to be told, heartbeats may be rare: thousands of idle groups
 * cost little, and brokers watch each other anyway. */
static bool pace_heartbeats(struct group *g)
{
    const struct raft_host_options *o = &g->host->options;
    uint32_t rare = 2 * o->heartbeat_ms;
    bool idle = rare <= o->election_ms / 2 && g->transfer_to == 0 &&
                g->raft.commit_index == last_index(g);

    for (int i = 0; i < g->n_peers && idle; i++)
        idle = g->peers[i].match == last_index(g);
    raft_set_heartbeat_timeout(&g->raft, idle ? rare : o->heartbeat_ms);
    return idle;
}

bool group_is_restless(const struct group *g)
{
    const struct raft *r = &g->raft;

    if (g->life != GROUP_OPEN)
        return false;
    if (r->state == RAFT_FOLLOWER)
        return r->follower_state.current_leader.id == 0;
    if (r->state != RAFT_LEADER || g->transfer_to != 0 || !g->role.ready)
        return true;
    for (int i = 0; i < g->n_peers; i++)
        if (g->peers[i].heard_ms == 0)
            return true;
    return false;
}

void group_tick(struct group *g)
{
    bool slow;

    if (g->life != GROUP_OPEN || g->resting)
        return;
    proof_tick(g);
    /* a follower only looks whether its leader is silent for long */
    slow = g->raft.state == RAFT_FOLLOWER && !g->proof.missing;
    if (g->raft.state == RAFT_LEADER)
        slow = pace_heartbeats(g) && g->role.ready;
    g->host->pace[g->slot] = slow ? PACE_HALF : PACE_ALL;
    if (g->raft.state == RAFT_LEADER)
        greet_tick(g);
    if (guard_tick(g)) {
        g->in_core++;
        g->core_tick(&g->io);
        g->in_core--;
    }
    if (g->raft.state == RAFT_LEADER) {
        preferred_tick(g);
        transfer_tick(g);
        rest_consider(g);
    }
    if (g->raft.state == RAFT_CANDIDATE)
        group_activate(g, g->host->options.tick_ms * 2u);
    group_run(g);
}

/* ---- memory -------------------------------------------------------------- */

bool group_is_held(const struct group *g, uint64_t upto)
{
    uint64_t now = group_now(g);

    if (g->life != GROUP_OPEN || g->raft.state != RAFT_LEADER)
        return false;
    for (int i = 0; i < g->n_peers; i++) {
        const struct group_peer *peer = &g->peers[i];
        uint64_t since = peer->caught_up_ms > peer->since_ms
                             ? peer->caught_up_ms
                             : peer->since_ms;

        if (peer->match >= upto)
            continue;
        if (now < peer->hold_until_ms && peer->hold_index < upto)
            return true;
        if (!peer->behind && peer->heard_ms != 0 &&
            now - peer->heard_ms < ALIVE_MS && now - since < HOLD_MS)
            return true;
    }
    return false;
}

void group_evict(struct group *g, uint64_t upto)
{
    struct raft_log *log = &g->raft.log;
    uint64_t snapshot = log->snapshot.last_index;

    ASSERT(g->in_core == 0 && upto <= g->settled);
    if (upto < g->table.first)
        return;
    if (snapshot < upto)
        snapshot = upto;
    logSnapshot(log, snapshot, (unsigned)(snapshot - upto));
    entry_table_evict(&g->table, upto);
    ASSERT(log->offset + 1 == g->table.first);
    g->ops->evicted(g->sm, (log_index){upto});
}

/* ---- the public rest ----------------------------------------------------- */

const struct group_id *group_id(const struct group *g)
{
    return &g->creation.id;
}

const struct group_creation *group_creation(const struct group *g)
{
    return &g->creation;
}

struct group_role group_role(const struct group *g)
{
    return g->role;
}

log_index group_commit_index(const struct group *g)
{
    uint64_t commit = g->raft.commit_index;

    /* the core forgets it when it is started again, the group does not */
    return (log_index){commit > g->applied ? commit : g->applied};
}

log_index group_last_index(const struct group *g)
{
    return (log_index){last_index(g)};
}

log_index group_settled_index(const struct group *g)
{
    return (log_index){g->settled};
}

log_index group_durable_index(const struct group *g)
{
    return (log_index){g->durable};
}

bool group_entry_at(const struct group *g, log_index index,
                    struct group_entry *out)
{
    if (entry_table_at(&g->table, index.v) == NULL)
        return false;
    group_view(g, index.v, out);
    return true;
}

static void replica_state(const struct group *g, replica_id id,
                          struct group_replica_state *out)
{
    uint64_t now = group_now(g);
    const struct group_peer *peer =
        group_peer((struct group *)(uintptr_t)g, id);

    out->id = id;
    out->node = group_node_of(g, id);
    if (id == g->creation.self) {
        out->match.v = g->durable;
        out->caught_up = g->raft.state == RAFT_LEADER;
        out->reachable = true;
    } else if (peer != NULL && g->raft.state == RAFT_LEADER) {
        out->match.v = peer->match;
        out->reachable = peer->heard_ms != 0 &&
                         (g->resting || now - peer->heard_ms < ALIVE_MS) &&
                         !raft_host_is_down(g->host, peer->node);
        out->caught_up =
            peer->caught_up_ms != 0 &&
            (g->resting || now - peer->caught_up_ms < CAUGHT_UP_MS) &&
            out->reachable;
    }
}

int group_replicas(const struct group *g,
                   struct group_replica_state out[GROUP_REPLICAS_MAX])
{
    const struct raft_configuration *c = &g->raft.configuration;
    int n = 0;

    for (unsigned i = 0; i < c->n && n < GROUP_REPLICAS_MAX; i++) {
        memset(&out[n], 0, sizeof out[n]);
        replica_state(g, c->servers[i].id, &out[n++]);
    }
    return n;
}
