/* Included by the test programs that use it. */
#include "tests/sim/raft_lab_impl.h"
#include "tests/sim/raft_random.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/prng.h"

enum action {
    ACT_DELIVER,
    ACT_SYNC,
    ACT_TICK,
    ACT_PROPOSE,
    ACT_CUT,
    ACT_HEAL,
    ACT_CRASH,
    ACT_UP,
    ACT_TRANSFER,
    ACT_READ,
    ACT_PEER_DOWN,
    ACT_EVICT,
    ACT_COUNT
};
static const uint32_t base_weights[ACT_COUNT] = {
    [ACT_DELIVER] = 450, [ACT_SYNC] = 150,    [ACT_TICK] = 80,
    [ACT_PROPOSE] = 120, [ACT_CUT] = 12,      [ACT_HEAL] = 12,
    [ACT_CRASH] = 4,     [ACT_UP] = 10,       [ACT_TRANSFER] = 2,
    [ACT_READ] = 10,     [ACT_PEER_DOWN] = 3, [ACT_EVICT] = 6,
};

struct play_read {
    struct group_read read;
    struct play *play;
    uint64_t need; /* newest entry applied anywhere when it was asked */
    int at;
};

struct play {
    struct lab *lab;
    struct prng prng;
    uint32_t weights[ACT_COUNT], sum;
    int proposals;
    uint64_t step_ms;
};

static uint32_t below(struct play *p, uint32_t n)
{
    return (uint32_t)prng_below(&p->prng, n);
}

/* Each seed prefers other kinds of trouble. */
static void weigh(struct play *p)
{
    for (int i = 0; i < ACT_COUNT; i++) {
        static const uint32_t factor[] = {1, 2, 4, 8, 8, 8};

        p->weights[i] =
            base_weights[i] * factor[below(p, 6)] / (below(p, 3) == 0 ? 8 : 4);
        if (p->weights[i] == 0)
            p->weights[i] = 1;
        p->sum += p->weights[i];
    }
}

static enum action pick(struct play *p)
{
    uint32_t y = below(p, p->sum);
    int i = 0;

    while (y >= p->weights[i])
        y -= p->weights[i++];
    return (enum action)i;
}

static void deliver_some(struct play *p, bool lossy)
{
    struct lab *lab = p->lab;
    struct lab_message **at = &lab->messages, *m;
    uint32_t count = 0, k;

    for (m = lab->messages; m != NULL; m = m->next)
        count++;
    if (count == 0)
        return;
    k = below(p, 10) == 0 ? below(p, count) : below(p, count < 4 ? count : 4);
    while (k-- > 0)
        at = &(*at)->next;
    m = *at;
    if (lossy && below(p, 20) == 0) { /* twice */
        struct lab_message *copy = mem_alloc(sizeof *copy + m->size);

        memcpy(copy, m, sizeof *copy + m->size);
        copy->next = NULL;
        *lab->tail = copy;
        lab->tail = &copy->next;
    }
    *at = m->next;
    if (*at == NULL)
        lab->tail = at;
    if (lossy && below(p, 50) == 0)
        mem_free(m);
    else
        lab_hand(lab, m);
}

static void read_done(struct group_read *read, enum err status)
{
    struct play_read *r = read->arg;

    if (status == ERR_OK && r->play->lab->nodes[r->at].applied < r->need &&
        r->play->lab->violation == NULL)
        r->play->lab->violation = "a read missed an applied entry";
    mem_free(r);
}

static void ask_read(struct play *p, int at)
{
    struct play_read *r;

    if (p->lab->nodes[at].host == NULL ||
        lab_raft(p->lab, at)->state != RAFT_LEADER)
        return;
    r = mem_zalloc(sizeof *r);
    r->play = p;
    r->at = at;
    r->need = p->lab->newest_applied;
    r->read.cb = read_done;
    r->read.arg = r;
    group_read_barrier(p->lab->nodes[at].group, &r->read);
    lab_turn(p->lab);
}

static void evict_some(struct play *p, int at)
{
    struct lab_node *n = &p->lab->nodes[at];
    uint64_t upto;

    if (n->host == NULL || n->applied < 10)
        return;
    /* what everybody has, as if it were settled: there is no transfer here */
    upto = n->applied;
    for (int i = 0; i < p->lab->n; i++) {
        uint64_t has = 0;
        struct lab_node *o = &p->lab->nodes[i];

        if (o->host == NULL)
            return;
        has = o->applied;
        if (has < upto)
            upto = has;
    }
    if (upto < 8)
        return;
    upto -= below(p, 6);
    if (upto > n->group->settled)
        n->group->settled = upto;
    group_evict(n->group, upto);
}

static void act(struct play *p, enum action action, bool final)
{
    struct lab *lab = p->lab;
    int i = (int)below(p, (uint32_t)lab->n), j;
    char text[12];

    switch (action) {
        case ACT_DELIVER:
            deliver_some(p, !final);
            break;
        case ACT_SYNC:
            lab_sync_one(lab, i);
            break;
        case ACT_TICK:
            lab_pass(lab, below(p, (uint32_t)p->step_ms));
            lab_tick(lab, i);
            break;
        case ACT_PROPOSE:
            i = lab_leader(lab);
            snprintf(text, sizeof text, "c%d", p->proposals);
            if (i >= 0 && lab_propose(lab, i, text) == ERR_OK)
                p->proposals++;
            break;
        case ACT_CUT:
            j = (int)below(p, (uint32_t)lab->n);
            if (!final && j != i)
                lab->cut[i][j] = lab->cut[j][i] = below(p, 2) == 0;
            break;
        case ACT_HEAL:
            memset(lab->cut, 0, sizeof lab->cut);
            break;
        case ACT_CRASH:
            if (!final)
                lab_crash(lab, i, below(p, 4));
            break;
        case ACT_UP:
            lab_up(lab, i);
            break;
        case ACT_TRANSFER:
            j = lab_leader(lab);
            if (!final && j >= 0 &&
                group_transfer(lab->nodes[j].group, i) == ERR_OK)
                lab_turn(lab);
            break;
        case ACT_READ:
            ask_read(p, i);
            break;
        case ACT_PEER_DOWN:
            j = (int)below(p, (uint32_t)lab->n);
            if (lab->nodes[i].host != NULL && !final && j != i) {
                raft_host_peer_down(lab->nodes[i].host, j);
                raft_host_peer_up(lab->nodes[i].host, j);
                lab_turn(lab);
            }
            break;
        case ACT_EVICT:
            evict_some(p, i);
            break;
        case ACT_COUNT:
            break;
    }
}

/* What a leader counts is there: a follower of the same term has durably, up
 * to where the leader believes it, the leader's own entries. */
static void check_matches(struct lab *lab)
{
    for (int i = 0; i < lab->n; i++) {
        const struct group *g =
            lab->nodes[i].host != NULL ? lab->nodes[i].group : NULL;

        if (g != NULL && g->raft.state == RAFT_CANDIDATE &&
            group_durable_index(g).v <
                raft_last_index((struct raft *)(uintptr_t)&g->raft) &&
            lab->violation == NULL)
            lab->violation = "a candidate advertises what is not durable";
        for (int k = 0;
             g != NULL && g->raft.state == RAFT_LEADER && k < g->n_peers; k++) {
            const struct group_peer *peer = &g->peers[k];
            const struct lab_node *n = &lab->nodes[peer->node];
            const struct group *f = n->host != NULL ? n->group : NULL;
            const struct entry_slot *ours, *theirs;

            if (f == NULL || f->raft.current_term != g->raft.current_term)
                continue;
            ours = entry_table_at(&g->table, peer->match);
            theirs = entry_table_at(&f->table, peer->match);
            if (lab->violation == NULL &&
                (group_durable_index(f).v < peer->match ||
                 (ours != NULL && theirs != NULL &&
                  ours->term != theirs->term)))
                lab->violation = "a leader counts what a follower has not";
        }
    }
}

static bool converged(struct lab *lab)
{
    int leader = lab_leader(lab);

    if (leader < 0 || lab_raft(lab, leader)->commit_index !=
                          raft_last_index(lab_raft(lab, leader)))
        return false;
    for (int i = 0; i < lab->n; i++)
        if (lab->nodes[i].applied != lab->nodes[leader].applied)
            return false;
    return true;
}

static void heal(struct play *p)
{
    struct lab *lab = p->lab;

    memset(lab->cut, 0, sizeof lab->cut);
    for (int i = 0; i < lab->n; i++)
        lab_up(lab, i);
    for (int k = 0; k < 2000 && lab->violation == NULL; k++) {
        if (converged(lab))
            return;
        lab_run(lab, 50);
    }
    if (lab->violation == NULL)
        lab->violation = "no convergence 100 s after healing";
}

struct raft_random_result raft_random_play(uint64_t seed, int n, int steps,
                                           uint32_t guards)
{
    struct play play = {0};
    struct raft_random_result result = {0};

    prng_seed(&play.prng, seed);
    weigh(&play);
    play.step_ms = 200 + 200 * (seed % 4);
    play.lab = lab_new(n, seed, guards);
    for (int i = 0; i < steps && play.lab->violation == NULL; i++) {
        act(&play, pick(&play), i > steps * 4 / 5);
        check_matches(play.lab);
    }
    if (play.lab->violation == NULL)
        heal(&play);
    result.violation = play.lab->violation;
    result.committed = play.lab->newest_applied;
    lab_free(play.lab);
    return result;
}
