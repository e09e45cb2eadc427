/* Bytes from other replicas for what is damaged here. */
#include "raft/catchup_impl.h"
#include "raft/peer_frame.h"
#include "raft/wal_format.h"

#define FETCH_TIMEOUT_MS 10000

static void fetch_answered(struct rpc_call *call, enum err status,
                           const uint8_t *body, size_t size);

static void fetch_next(struct group_fetch *f)
{
    struct group *g = f->group;
    uint8_t body[CATCHUP_REQUEST_HEAD + 20];

    if (f->peer >= (f->only > 0 ? f->only : g->n_peers)) {
        f->cb(f, ERR_NOT_FOUND, NULL);
        return;
    }
    peer_group_id_write(&g->creation.id, body);
    body[20] = CATCHUP_READ;
    le_put64(body + 21, f->range.file);
    le_put64(body + 29, f->range.offset);
    le_put32(body + 37, f->range.size);
    f->calling = true;
    f->call = (struct rpc_call){.cb = fetch_answered, .arg = f};
    transport_call(g->host->options.transport, g->peers[f->peer].node,
                   RPC_CATCHUP, body, sizeof body, FETCH_TIMEOUT_MS, &f->call);
}

static void fetch_answered(struct rpc_call *call, enum err status,
                           const uint8_t *body, size_t size)
{
    struct group_fetch *f = call->arg;

    f->calling = false;
    if (status == ERR_OK && size == f->range.size && f->check(f, body)) {
        f->cb(f, ERR_OK, body);
        return;
    }
    f->peer++;
    fetch_next(f);
}

bool group_fetch(struct group *g, struct group_fetch *f)
{
    if (g->life != GROUP_OPEN || g->n_peers == 0 || f->only > g->n_peers ||
        g->host->options.transport == NULL)
        return false;
    f->group = g;
    f->peer = f->only > 0 ? f->only - 1 : 0;
    fetch_next(f);
    return true;
}

void group_fetch_cancel(struct group_fetch *f)
{
    if (f->calling)
        transport_cancel(f->group->host->options.transport, &f->call);
    f->calling = false;
}
