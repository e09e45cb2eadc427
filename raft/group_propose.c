/* Entries of this replica's own, as leader, and what bounds them. */
#include "raft/group_impl.h"

#include "base/assert.h"
#include "raft/rest.h"

static void apply_done(struct raft_apply *req, int status, void *result)
{
    (void)status, (void)result; /* commit and role are watched instead */
    mem_free(req);
}

void group_note_uncommitted(struct group *g)
{
    const struct raft *r = &g->raft;
    uint64_t bytes =
        g->life == GROUP_OPEN
            ? entry_table_bytes(&g->table, r->commit_index, group_last(g))
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
    if (group_last(g) >= g->settled + LIMIT_RAFT_ENTRIES) {
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
    out->v = group_last(g);
    group_note_uncommitted(g);
    group_notify_log(g);
    g->again = true;
    group_want_turn(g);
    return ERR_OK;
}
