/* A group from its beginning to its end, and what others may ask it. What
 * happens meanwhile: group_run.c (after each event), group_receive.c,
 * group_propose.c, group_read.c, group_lead.c, group_window.c. */
#include "raft/group_impl.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "raft/guard.h"
#include "raft/io.h"
#include "raft/proof.h"
#include "raft/rest.h"

/* In sync: at the end of the log, as it was then, within this time. */
#define CAUGHT_UP_MS 10000

/* ---- looking ------------------------------------------------------------- */

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

uint64_t group_last(const struct group *g)
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
    uint64_t at = index < group_last(g) ? index : group_last(g);

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
    const struct entry_slot *last = entry_table_at(&g->table, group_last(g));
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

static void core_closed(struct raft *r)
{
    (void)r;
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
    group_note_uncommitted(g);
    group_fail_reads(g, ERR_NOT_LEADER);
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

/* ---- what others ask ----------------------------------------------------- */

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
    return (log_index){group_last(g)};
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
        out->reachable =
            peer->heard_ms != 0 &&
            (g->resting || now - peer->heard_ms < GROUP_ALIVE_MS) &&
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
