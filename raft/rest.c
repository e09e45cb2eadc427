#include "raft/rest.h"

#include "base/assert.h"
#include "raft/io.h"
#include "raft/transport.h"

/* A follower that rests and hears nothing for this long (its leader asks at
 * least three times meanwhile) wakes up. */
#define REST_SILENCE_MS 100000
/* A leader asks only who was heard lately. */
#define HEARD_MS 2500

static bool node_is_up(const struct group *g, node_id node)
{
    const struct transport *t = g->host->options.transport;

    return !raft_host_is_down(g->host, node) &&
           (t == NULL || transport_peer_is_up(t, node));
}

/* Nothing is under way, on any replica's side of it. */
static bool nothing_to_do(const struct group *g)
{
    const struct raft *r = &g->raft;
    uint64_t last = group_last(g);

    return g->life == GROUP_OPEN && group_now(g) >= g->active_until_ms &&
           !g->proof.missing && r->commit_index == last &&
           r->last_stored == last && g->applied == last &&
           g->appends.count == 0 && g->held.head == NULL &&
           g->gated.head == NULL && g->reads == NULL &&
           g->vote_position <= g->host->durable && g->transfer == NULL;
}

static bool leader_may_rest(const struct group *g)
{
    const struct raft *r = &g->raft;
    uint64_t now = group_now(g);

    if (g->host->options.rest_ms == 0 || g->host->stopping ||
        r->state != RAFT_LEADER || !g->role.ready || !nothing_to_do(g) ||
        g->transfer_to != 0 || g->creation.replicas[0].id != g->creation.self ||
        g->told_commit < r->commit_index || r->leader_state.change != NULL ||
        r->leader_state.promotee_id != 0 ||
        r->configuration.n != (unsigned)g->n_peers + 1)
        return false;
    for (int i = 0; i < g->n_peers; i++) {
        const struct group_peer *peer = &g->peers[i];

        if (!group_is_voter(&r->configuration, peer->id) ||
            peer->match != r->commit_index || peer->behind ||
            peer->parked_next != 0 || !node_is_up(g, peer->node) ||
            peer->heard_ms == 0 || now - peer->heard_ms > HEARD_MS)
            return false;
    }
    return true;
}

static void ask_all(struct group *g)
{
    g->rest_round = ++g->round;
    for (int i = 0; i < g->n_peers; i++)
        io_send_empty(g, &g->peers[i], false);
}

static void set_resting(struct group *g)
{
    g->resting = true;
    g->host->pace[g->slot] = PACE_RESTING;
}

static void consider_resting(struct group *g)
{
    if (g->rest_round == 0 || g->rest_round != g->round || !leader_may_rest(g))
        return;
    for (int i = 0; i < g->n_peers; i++)
        if (g->peers[i].rest_round != g->rest_round)
            return;
    set_resting(g);
}

void rest_consider(struct group *g)
{
    uint64_t now = group_now(g);

    if (!leader_may_rest(g)) {
        g->rest_since_ms = g->rest_round = 0;
        return;
    }
    if (g->rest_since_ms == 0 || g->rest_index != group_last(g) ||
        (g->rest_round != g->round && g->rest_round != 0)) {
        g->rest_since_ms = now;
        g->rest_index = group_last(g);
        g->rest_round = 0;
    }
    if (now - g->rest_since_ms < g->host->options.rest_ms)
        return;
    if (g->rest_round == 0) /* later heartbeats ask too (rest_asks) */
        ask_all(g);
    consider_resting(g); /* a lone replica asks nobody */
}

bool rest_asks(const struct group *g, const struct message *m)
{
    return g->rest_round != 0 && g->rest_round == g->round &&
           m->n_entries == 0 && m->commit == group_last(g) &&
           m->prev_index == m->commit;
}

bool rest_fits(const struct group *g, const struct message *m)
{
    const struct raft *r = &g->raft;
    uint64_t last = group_last(g);

    return m->type == MESSAGE_APPEND && (m->flags & MESSAGE_REST) != 0 &&
           m->n_entries == 0 && m->prev_index == last && m->commit == last &&
           m->term == r->current_term && r->state == RAFT_FOLLOWER &&
           r->follower_state.current_leader.id == m->from &&
           g->role.leader == group_node_of(g, m->from) && g->durable == last &&
           nothing_to_do(g) && node_is_up(g, g->role.leader);
}

void rest_begin(struct group *g)
{
    const struct raft *r = &g->raft;

    if (r->state == RAFT_FOLLOWER && r->follower_state.current_leader.id != 0 &&
        nothing_to_do(g))
        set_resting(g);
}

/* As if the time of rest had not been. */
static void go_on(struct group *g)
{
    struct raft *r = &g->raft;
    uint64_t now = group_now(g);

    g->resting = false;
    g->host->pace[g->slot] = PACE_ALL;
    r->election_timer_start = now;
    if (r->state != RAFT_LEADER)
        return;
    for (int i = 0; i < g->n_peers; i++)
        g->peers[i].heard_ms = g->peers[i].caught_up_ms = now;
}

void rest_wake(struct group *g)
{
    struct raft *r = &g->raft;

    g->rest_since_ms = g->rest_round = 0;
    if (!g->resting)
        return;
    go_on(g);
    if (r->state != RAFT_LEADER)
        return;
    for (unsigned i = 0; i < r->configuration.n; i++)
        r->leader_state.progress[i].last_send = 0; /* with the next tick */
}

/* What an idle leader hears: nothing new. */
static bool is_usual(const struct group *g, const struct message *m)
{
    return m->type == MESSAGE_APPEND_RESULT && !g->resting &&
           m->term == g->raft.current_term && m->rejected == 0 &&
           m->last_index == group_last(g);
}

static void rest_told(struct group *g, const struct message *m)
{
    struct group_peer *peer = group_peer(g, m->from);

    if (peer == NULL || g->raft.state != RAFT_LEADER ||
        m->term != g->raft.current_term || m->rejected != 0 ||
        m->last_index != group_last(g))
        return;
    peer->rest_round = m->round;
    consider_resting(g);
}

void rest_heard(struct group *g, const struct message *m)
{
    if (m->type == MESSAGE_APPEND_RESULT && (m->flags & MESSAGE_REST) != 0)
        rest_told(g, m);
    else if (!rest_fits(g, m) && !is_usual(g, m))
        rest_wake(g);
}

void rest_peer_down(struct group *g, node_id node)
{
    bool concerned = g->raft.state != RAFT_LEADER && g->role.leader == node;

    if (!g->resting)
        return;
    for (int i = 0; i < g->n_peers && g->raft.state == RAFT_LEADER; i++)
        concerned = concerned || g->peers[i].node == node;
    if (concerned)
        rest_wake(g);
}

void rest_look(struct group *g)
{
    ASSERT(g->resting);
    if (g->raft.state == RAFT_LEADER) {
        go_on(g); /* rests again when all have answered */
        ask_all(g);
        consider_resting(g);
    } else if (group_now(g) - g->raft.election_timer_start > REST_SILENCE_MS) {
        rest_wake(g);
    }
}
