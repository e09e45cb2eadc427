/* Reads that must be current: answered when a majority has confirmed, in this
 * term, a round that began after they came. */
#include "raft/group_impl.h"

#include "raft/io.h"
#include "raft/rest.h"

void group_fail_reads(struct group *g, enum err status)
{
    while (g->reads != NULL) {
        struct group_read *read = g->reads;

        g->reads = read->next;
        if (g->reads == NULL)
            g->reads_tail = &g->reads;
        read->cb(read, status);
    }
}

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

void group_answer_reads(struct group *g)
{
    if (g->reads != NULL && g->raft.state != RAFT_LEADER) {
        group_fail_reads(g, ERR_NOT_LEADER);
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

void group_begin_round(struct group *g)
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
