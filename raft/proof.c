#include "raft/proof.h"

#include "base/assert.h"
#include "base/log.h"
#include "raft/catchup_impl.h"
#include "raft/io.h"
#include "raft/peer_frame.h"
#include "raft/wal.h"
#include "raft/wal_format.h"

#define ASK_MS 500
#define ASK_TIMEOUT_MS 5000
#define ANSWER_BYTES                                         \
    24 /* u64 term, u64 term and u64 index of the last entry \
        */

static bool reaches(uint64_t term, uint64_t index, uint64_t other_term,
                    uint64_t other_index)
{
    return term > other_term || (term == other_term && index >= other_index);
}

static void say(const struct group *g, const char *what)
{
    char topic[UUID_TEXT_SIZE];

    uuid_format(&g->creation.id.topic, topic);
    log_warn("raft", "%s topic=%s partition=%d settled=%llu last=%llu", what,
             topic, (int)g->creation.id.partition,
             (unsigned long long)g->settled, (unsigned long long)group_last(g));
}

void proof_withhold(struct group *g, uint64_t term, uint64_t index)
{
    struct group_proof *p = &g->proof;

    if (!p->missing) {
        p->missing = true;
        p->term = p->index = 0;
        p->own_term = g->term;
    }
    if (reaches(term, index, p->term, p->index)) {
        p->term = term;
        p->index = index;
    }
    p->unknown = p->unknown || index == PROOF_UNKNOWN;
    say(g,
        "a replica cannot prove its log: it does not vote until it has what "
        "its peers have");
}

void proof_check(struct group *g)
{
    struct group_proof *p = &g->proof;
    uint64_t term;

    if (!p->missing || p->unknown || g->life != GROUP_OPEN)
        return;
    term = g->durable == g->settled ? g->settled_term
                                    : group_term_at(g, g->durable);
    if (!reaches(term, g->durable, p->term, p->index))
        return;
    p->missing = false;
    proof_cancel(g);
    say(g, "a replica has proven its log again");
}

void proof_cancel(struct group *g)
{
    if (g->proof.asking)
        transport_cancel(g->host->options.transport, &g->proof.ask);
    g->proof.asking = false;
}

static void answered(struct rpc_call *call, enum err status,
                     const uint8_t *body, size_t size)
{
    struct group *g = call->arg;
    struct group_proof *p = &g->proof;

    p->asking = false;
    if (status != ERR_OK || size != ANSWER_BYTES || !p->missing ||
        le_get64(body) < p->own_term)
        return; /* asked again */
    p->unknown = false;
    p->term = le_get64(body + 8);
    p->index = le_get64(body + 16);
    proof_check(g);
}

void proof_tick(struct group *g)
{
    struct group_proof *p = &g->proof;
    uint8_t body[CATCHUP_REQUEST_HEAD];

    if (!p->missing || !p->unknown || p->asking || g->life != GROUP_OPEN ||
        g->host->options.transport == NULL || g->role.leader < 0 ||
        g->role.is_leader || group_now(g) < p->again_ms)
        return;
    p->again_ms = group_now(g) + ASK_MS;
    p->asking = true;
    p->ask = (struct rpc_call){.cb = answered, .arg = g};
    peer_group_id_write(&g->creation.id, body);
    body[20] = CATCHUP_LAST;
    transport_call(g->host->options.transport, g->role.leader, RPC_CATCHUP,
                   body, sizeof body, ASK_TIMEOUT_MS, &p->ask);
}

void proof_serve(struct group *g, struct rpc_request *request)
{
    uint8_t body[ANSWER_BYTES];
    uint64_t last = group_last(g);

    if (g->raft.state != RAFT_LEADER) {
        rpc_respond(request, ERR_NOT_LEADER, NULL, 0);
        return;
    }
    le_put64(body, g->raft.current_term);
    le_put64(body + 8, group_term_at(g, last));
    le_put64(body + 16, last);
    rpc_respond(request, ERR_OK, body, sizeof body);
}

bool proof_reset(struct group *g)
{
    const struct entry_slot *last = entry_table_at(&g->table, group_last(g));
    uint64_t index = last != NULL ? group_last(g) : g->settled;
    uint64_t term = last != NULL ? last->term : g->settled_term;

    ASSERT(g->life == GROUP_FOUND);
    if (io_is_only_voter(g) || g->n_peers == 0)
        return false;
    group_forget(g);
    if (g->host->wal != NULL)
        wal_unsettled(g->host->wal, &g->creation.id);
    proof_withhold(g, term, index);
    return true;
}
