/* After each event: what can go on goes on, and the state machine is told, in
 * one order, what the core has decided. At the end of a turn followers hear of
 * commits and reads begin their round. */
#include "raft/group_impl.h"

#include "base/assert.h"
#include "raft/guard.h"
#include "raft/io.h"
#include "raft/proof.h"
#include "raft/rest.h"

/* ---- telling the state machine ------------------------------------------- */

void group_notify_log(struct group *g)
{
    if (g->truncated != 0) {
        uint64_t first = g->truncated;

        g->truncated = 0;
        g->ops->truncated(g->sm, (log_index){first});
    }
    while (g->life == GROUP_OPEN && g->appended < group_last(g)) {
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

/* ---- going on ------------------------------------------------------------ */

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
    group_activate(g, GROUP_GREET_MS);
    g->noop = 0;
    g->told_commit = 0;
    g->preferred_since_ms = 0;
    for (int i = 0; i < g->n_peers; i++)
        g->peers[i] = (struct group_peer){
            .id = g->peers[i].id,
            .node = g->peers[i].node,
            .target = group_last(g),
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
        g->again |= group_receive_held(g);
        if (g->raft.state == RAFT_UNAVAILABLE)
            env_fatal(g->host->env, "raft group failed: %s",
                      raft_errmsg(&g->raft));
        check_leadership(g);
        g->again |= guard_after(g);
        group_notify_log(g);
        notify_durable(g);
        proof_check(g);
        notify_applied(g);
        if (g->life == GROUP_OPEN)
            notify_role(g);
        group_answer_reads(g);
    } while (g->again && g->life == GROUP_OPEN);
    g->running = false;
    group_note_uncommitted(g);
    if (g->life != GROUP_OPEN) {
        raft_host_want_turn(g->host); /* deleted from inside a callback */
        return;
    }
    group_shrink_window(g);
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

void group_turn_end(struct group *g)
{
    group_run(g);
    if (g->life != GROUP_OPEN || g->raft.state != RAFT_LEADER)
        return;
    if (g->told_commit < g->raft.commit_index && !g->untold &&
        raft_host_may_tell(g->host, g))
        tell_commit(g);
    if (g->reads != NULL) {
        group_begin_round(g);
        group_answer_reads(g); /* a lone voter needs nobody */
    }
}
