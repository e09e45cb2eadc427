/* The leader's side of catch-up: offers, manifests, ranges. */
#include <utlist.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "raft/catchup_impl.h"
#include "raft/io.h"
#include "raft/peer_frame.h"
#include "raft/proof.h"
#include "raft/wal_format.h"

/* A follower that reads asks again within this time. */
#define LEASE_MS 30000
/* What follows the state that is complete there is kept so long for it. */
#define HOLD_MS 5000

/* ---- who is to be looked at -----------------------------------------------
 */

/* Few groups have a follower behind or a reader: the others are not looked at.
 */
void serve_watch(struct group *g)
{
    struct raft_host *host = g->host;

    if (g->serving)
        return;
    g->serving = true;
    if (host->n_serving == host->serving_size) {
        host->serving_size =
            host->serving_size == 0 ? 16 : host->serving_size * 2;
        host->serving = mem_realloc(host->serving,
                                    host->serving_size * sizeof *host->serving);
    }
    host->serving[host->n_serving++] = g;
}

/* ---- leases -------------------------------------------------------------- */

static void lease(struct group *g)
{
    g->lease_until_ms = group_now(g) + LEASE_MS;
    if (g->leased)
        return;
    g->leased = true;
    serve_watch(g);
    if (g->ops->catchup->lease != NULL)
        g->ops->catchup->lease(g->sm, true);
}

static void catchup_lease_check(struct group *g)
{
    if (!g->leased || group_now(g) < g->lease_until_ms)
        return;
    g->leased = false;
    if (g->ops->catchup->lease != NULL)
        g->ops->catchup->lease(g->sm, false);
}

/* ---- offers -------------------------------------------------------------- */

/* Also by a leader that cannot commit yet: what is settled was committed, and
 * its first commit may need the very follower that is behind. */
static void catchup_offer(struct group *g)
{
    if (g->life != GROUP_OPEN || g->raft.state != RAFT_LEADER ||
        g->ops->catchup == NULL || g->table.first == 1)
        return;
    for (int i = 0; i < g->n_peers; i++) {
        struct group_peer *peer = &g->peers[i];

        if (peer->behind && !raft_host_is_down(g->host, peer->node))
            io_send_offer(g, peer, g->settled, g->settled_term);
    }
}

static bool serve_wanted(const struct group *g)
{
    bool behind = false;

    for (int i = 0; i < g->n_peers; i++)
        behind = behind || g->peers[i].behind;
    return g->leased || (behind && g->raft.state == RAFT_LEADER);
}

void catchup_serve_tick(struct raft_host *host)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < host->n_serving; i++) {
        struct group *g = host->serving[i];

        catchup_offer(g);
        catchup_lease_check(g);
        g->serving = serve_wanted(g);
        if (g->serving)
            host->serving[kept++] = g;
    }
    host->n_serving = kept;
}

/* ---- manifests ----------------------------------------------------------- */

static void answer_go(struct group *g, struct rpc_request *request,
                      node_id from, uint64_t index)
{
    uint8_t body[CATCHUP_ANSWER_GO];

    for (int i = 0; i < g->n_peers; i++) {
        if (g->peers[i].node != from)
            continue;
        g->peers[i].hold_index = index;
        g->peers[i].hold_until_ms = group_now(g) + HOLD_MS;
    }
    le_put64(body, index);
    le_put64(body + 8, index <= g->settled ? g->settled_term : 0);
    rpc_respond(request, ERR_OK, body, sizeof body);
}

static void answer_manifest(struct group *g, struct rpc_request *request)
{
    struct buffer out;
    uint8_t *head;
    enum err e;

    buffer_init(&out);
    head = buffer_reserve(&out, CATCHUP_ANSWER_HEAD);
    le_put64(head, g->settled);
    le_put64(head + 8, g->settled_term);
    le_put64(head + 16, g->config.index);
    le_put64(head + 24, g->config.term);
    le_put32(head + 32, g->config.size);
    buffer_added(&out, CATCHUP_ANSWER_HEAD);
    buffer_append(&out, g->config.data, g->config.size);
    e = g->ops->catchup->manifest_make(g->sm, (log_index){g->settled}, &out);
    if (e == ERR_OK && out.size > CATCHUP_MANIFEST_MAX + CATCHUP_ANSWER_HEAD +
                                      (size_t)g->config.size)
        e = ERR_TOO_LARGE;
    rpc_respond(request, e, out.data, e == ERR_OK ? out.size : 0);
    buffer_free(&out);
}

static void serve_manifest(struct group *g, struct rpc_request *request,
                           node_id from, uint64_t have)
{
    if (g->raft.state != RAFT_LEADER) {
        rpc_respond(request, ERR_NOT_LEADER, NULL, 0);
        return;
    }
    lease(g);
    if (have != 0 && have <= g->settled && have + 1 >= g->table.first)
        answer_go(g, request, from, have);
    else
        answer_manifest(g, request);
}

/* ---- ranges -------------------------------------------------------------- */

struct serving {
    struct env_work work;
    struct group *group;
    struct rpc_request *request;
    struct catchup_job job;
};

static void serving_run(struct env_work *work)
{
    struct serving *s = work->arg;

    s->job.status = s->job.run(&s->job);
}

static void serving_done(struct env_work *work)
{
    struct serving *s = work->arg;
    struct group *g = s->group;
    struct raft_host *host = g->host;

    rpc_respond(s->request, s->job.status, s->job.data,
                s->job.status == ERR_OK ? s->job.range.size : 0);
    g->ops->catchup->read_end(g->sm, &s->job);
    host->catchup_reads--;
    if (--g->jobs == 0 && g->life == GROUP_CLOSING)
        raft_host_want_turn(host);
    mem_free(s->job.data);
    mem_free(s);
}

static void serve_read(struct group *g, struct rpc_request *request,
                       const struct catchup_range *range)
{
    struct raft_host *host = g->host;
    struct serving *s;
    enum err e;

    if (range->size == 0 || range->size > CATCHUP_RANGE_MAX ||
        range->offset > INT64_MAX) {
        rpc_respond(request, ERR_INVALID, NULL, 0);
        return;
    }
    if (host->catchup_reads >= LIMIT_CATCHUP_READS) {
        rpc_respond(request, ERR_BUSY, NULL, 0);
        return;
    }
    lease(g);
    s = mem_zalloc(sizeof *s);
    s->group = g;
    s->request = request;
    s->job.range = *range;
    e = g->ops->catchup->read_begin(g->sm, &s->job);
    if (e != ERR_OK) {
        rpc_respond(request, e, NULL, 0);
        mem_free(s);
        return;
    }
    s->job.data = mem_alloc(range->size);
    s->work =
        (struct env_work){.run = serving_run, .done = serving_done, .arg = s};
    host->catchup_reads++;
    g->jobs++;
    env_work_submit(host->env, ENV_POOL_IO, &s->work);
}

/* ---- requests ------------------------------------------------------------ */

static void serve(void *arg, struct rpc_request *request, node_id from,
                  const uint8_t *body, size_t size)
{
    struct raft_host *host = arg;
    const uint8_t *p = body + CATCHUP_REQUEST_HEAD;
    struct group_id id;
    struct group *g;

    if (size < CATCHUP_REQUEST_HEAD) {
        rpc_respond(request, ERR_INVALID, NULL, 0);
        return;
    }
    peer_group_id_read(body, &id);
    g = raft_host_find(host, &id);
    size -= CATCHUP_REQUEST_HEAD;
    if (g == NULL || g->life != GROUP_OPEN)
        rpc_respond(request, ERR_NOT_FOUND, NULL, 0);
    else if (body[20] == CATCHUP_LAST)
        proof_serve(g, request);
    else if (g->ops->catchup == NULL)
        rpc_respond(request, ERR_UNSUPPORTED, NULL, 0);
    else if (body[20] == CATCHUP_MANIFEST && size >= 8)
        serve_manifest(g, request, from, le_get64(p));
    else if (body[20] == CATCHUP_READ && size >= 20)
        serve_read(g, request,
                   &(struct catchup_range){.file = le_get64(p),
                                           .offset = le_get64(p + 8),
                                           .size = le_get32(p + 16)});
    else
        rpc_respond(request, ERR_INVALID, NULL, 0);
}

void catchup_serve_begin(struct raft_host *host)
{
    transport_serve(host->options.transport, RPC_CATCHUP, serve, host);
}
