/* The window of entries that a group keeps in memory. */
#include "raft/group_impl.h"

#include "base/assert.h"

/* A follower that was at the end so lately is waited for: entries it needs stay
 * in memory, though producers have to wait. */
#define HOLD_MS 3000

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
            now - peer->heard_ms < GROUP_ALIVE_MS && now - since < HOLD_MS)
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

void group_shrink_window(struct group *g)
{
    uint64_t upto;

    if (g->table.count <= LIMIT_RAFT_ENTRIES / 2)
        return;
    upto = group_last(g) - LIMIT_RAFT_ENTRIES / 4;
    if (upto > g->settled)
        upto = g->settled;
    if (g->table.count < LIMIT_RAFT_ENTRIES && group_is_held(g, upto))
        return;
    if (upto >= g->table.first)
        group_evict(g, upto);
}
