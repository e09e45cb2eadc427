/* Who leads: elections, hand-overs, the preferred replica; and a group's tick,
 * which drives them. */
#include "raft/group_impl.h"

#include "raft/guard.h"
#include "raft/io.h"
#include "raft/proof.h"
#include "raft/rest.h"

/* The preferred replica is fit for this long before it gets the leadership. */
#define PREFERRED_MS 3000
/* Elections follow each other quickly for this long after somebody went or came
 * back; then rarely, there is no majority to be had. */
#define URGENT_MS 3000
#define TRANSFER_MS 2000
#define TIMEOUT_NOW_MS 100

/* Until the next election when all who can vote are thought to be there. */
static unsigned soon_ms(const struct group *g)
{
    unsigned rank = (unsigned)group_rank(g, g->creation.self);

    return 50 + 80 * (rank < 3 ? rank : 3) +
           (unsigned)(env_random(g->host->env) % 40);
}

static void elect_soon(struct group *g)
{
    struct raft *r = &g->raft;

    if (r->state == RAFT_FOLLOWER)
        r->follower_state.randomized_election_timeout = soon_ms(g);
    else
        r->candidate_state.randomized_election_timeout = soon_ms(g);
    r->election_timer_start = group_now(g);
    g->urgent_until_ms = group_now(g) + URGENT_MS;
    group_activate(g, URGENT_MS);
}

void group_leader_gone(struct group *g)
{
    struct raft *r = &g->raft;

    if (g->life != GROUP_OPEN || r->state != RAFT_FOLLOWER)
        return;
    r->follower_state.current_leader.id = 0;
    elect_soon(g);
    group_run(g);
}

void group_peer_back(struct group *g, node_id node)
{
    const struct raft *r = &g->raft;
    bool leaderless =
        r->state == RAFT_CANDIDATE ||
        (r->state == RAFT_FOLLOWER && r->follower_state.current_leader.id == 0);

    if (g->life != GROUP_OPEN || !leaderless ||
        group_now(g) < g->urgent_until_ms)
        return; /* elections come soon by themselves */
    for (int i = 0; i < g->n_peers; i++)
        if (g->peers[i].node == node) {
            elect_soon(g);
            return;
        }
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
            group_now(g) - peer->heard_ms > GROUP_ALIVE_MS)
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
 * leadership is gone or the time is over (the core would do it once). Nothing
 * is appended meanwhile, so one that goes down is not waited for. */
static void transfer_tick(struct group *g)
{
    struct group_peer *to = group_peer(g, g->transfer_to);
    uint64_t now = group_now(g);

    if (g->transfer_to == 0)
        return;
    if (to == NULL || now > g->transfer_until_ms ||
        raft_host_is_down(g->host, to->node)) {
        g->transfer_to = 0;
        g->host->transfers--;
        return;
    }
    if (to->match < group_last(g) || g->raft.last_stored < group_last(g) ||
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
          now - to->heard_ms < GROUP_ALIVE_MS &&
          to->match + LIMIT_RAFT_APPEND_ENTRIES >= group_last(g) &&
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
            group_now(g) < g->leader_since_ms + GROUP_GREET_MS)
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
                g->raft.commit_index == group_last(g);

    for (int i = 0; i < g->n_peers && idle; i++)
        idle = g->peers[i].match == group_last(g);
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
