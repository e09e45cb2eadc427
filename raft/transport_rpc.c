/* Calls to peers and requests from them. A request is known by the shard, the
 * serial of the connection (0: this broker itself) and the caller's id, so
 * that an answer that comes too late finds nothing instead of something else.
 */
#include "raft/transport_impl.h"

#include "base/assert.h"
#include "base/log.h"

/* ---- calls --------------------------------------------------------------- */

struct rpc_waiting {
    UT_hash_handle hh; /* in transport.waiting, by id, until done */
    struct rpc_waiting *prev, *next; /* in link.calls or transport.done */
    struct transport *t;
    struct rpc_call *call;
    struct link *link; /* NULL: to ourselves, or done */
    struct env_timer timer;
    uint64_t id;
    bool done;
    enum err status;
    uint8_t *body; /* of a done one */
    size_t size;
};

/* Takes it out of the tables: neither answer nor timeout will come. */
static void waiting_settle(struct rpc_waiting *w)
{
    if (w->done)
        return;
    w->done = true;
    env_timer_stop(&w->timer);
    HASH_DEL(w->t->waiting, w);
    if (w->link != NULL) {
        DL_DELETE(w->link->calls, w);
        w->link = NULL;
    }
}

/* Calls back now. */
static void waiting_call_back(struct rpc_waiting *w, enum err status,
                              const uint8_t *body, size_t size)
{
    struct rpc_call *call = w->call;
    call->impl = NULL;
    uint8_t *own = w->body;
    mem_free(w);
    call->cb(call, status, body, size);
    mem_free(own);
}

/* Calls back at the end of the turn, with a copy of the body. */
static void waiting_finish(struct rpc_waiting *w, enum err status,
                           const void *body, size_t size)
{
    waiting_settle(w);
    w->status = status;
    if (size > 0) {
        w->body = mem_alloc(size);
        memcpy(w->body, body, size);
        w->size = size;
    }
    DL_APPEND(w->t->done, w);
    transport_defer(w->t);
}

static void waiting_timed_out(struct env_timer *timer)
{
    struct rpc_waiting *w = timer->arg;
    if (w->link != NULL)
        w->link->peer->stats.calls_failed++;
    waiting_settle(w);
    waiting_call_back(w, ERR_TIMEOUT, NULL, 0);
}

static struct rpc_waiting *waiting_new(struct transport *t,
                                       struct rpc_call *call,
                                       uint32_t timeout_ms)
{
    struct rpc_waiting *w = mem_zalloc(sizeof *w);
    w->t = t;
    w->call = call;
    w->id = ++t->next_call;
    env_timer_init(t->env, &w->timer, waiting_timed_out, w);
    env_timer_start(&w->timer, timeout_ms);
    HASH_ADD(hh, t->waiting, id, sizeof w->id, w);
    call->id = w->id;
    call->impl = w;
    return w;
}

static enum peer_lane lane_of(enum rpc_kind kind)
{
    switch (kind) {
        case RPC_CATCHUP:
        case RPC_CLIENT_REQUEST:
            return LANE_BULK;
        case RPC_FORMATION:
        case RPC_METADATA_PROPOSE:
        case RPC_BROKER_HEARTBEAT:
        case RPC_COORDINATOR:
        case RPC_KIND_COUNT:
            break;
    }
    return LANE_MAIN;
}

static void call_self(struct rpc_waiting *w, enum rpc_kind kind,
                      const void *body, size_t size);

/* To a peer; NULL: nobody we know. */
static void call_peer(struct transport *t, struct peer *peer,
                      enum rpc_kind kind, const void *body, size_t size,
                      struct rpc_waiting *w)
{
    if (size > RPC_SIZE_MAX) {
        waiting_finish(w, ERR_TOO_LARGE, NULL, 0);
        return;
    }
    if (peer == NULL) {
        waiting_finish(w, ERR_UNREACHABLE, NULL, 0);
        return;
    }
    struct link *link = &peer->links[lane_of(kind)];
    peer->stats.calls++;
    if (link->state != LINK_UP) {
        peer->stats.calls_failed++;
        waiting_finish(w, ERR_UNREACHABLE, NULL, 0);
        return;
    }
    uint64_t queued = peer_conn_queued(link->conn);
    if (queued > 0 && queued >= t->options.queue_bytes_max) {
        peer->stats.calls_failed++;
        waiting_finish(w, ERR_BUSY, NULL, 0);
        return;
    }
    w->link = link;
    DL_APPEND(link->calls, w);
    struct transport_piece piece = {.data = body, .size = size};
    peer_conn_send(link->conn, PEER_RPC_REQUEST, w->id, (uint16_t)kind, &piece,
                   1);
}

void transport_call(struct transport *transport, node_id node,
                    enum rpc_kind kind, const void *body, size_t size,
                    uint32_t timeout_ms, struct rpc_call *call)
{
    call->node = node;
    struct rpc_waiting *w = waiting_new(transport, call, timeout_ms);
    if (node == transport->options.node)
        call_self(w, kind, body, size);
    else
        call_peer(transport, peer_find(transport, node), kind, body, size, w);
}

void transport_call_seed(struct transport *transport, const char *address,
                         enum rpc_kind kind, const void *body, size_t size,
                         uint32_t timeout_ms, struct rpc_call *call)
{
    struct seed *seed = seed_find(transport, address);
    if (seed != NULL && seed->node >= 0) {
        transport_call(transport, seed->node, kind, body, size, timeout_ms,
                       call);
        return;
    }
    call->node = -1;
    struct rpc_waiting *w = waiting_new(transport, call, timeout_ms);
    call_peer(transport, seed != NULL ? seed->peer : NULL, kind, body, size, w);
}

void transport_cancel(struct transport *transport, struct rpc_call *call)
{
    struct rpc_waiting *w = call->impl;
    if (w == NULL)
        return;
    ASSERT(w->call == call && w->t == transport);
    if (w->done)
        DL_DELETE(transport->done, w);
    waiting_settle(w);
    call->impl = NULL;
    mem_free(w->body);
    mem_free(w);
}

void rpc_response_received(struct link *link, const struct peer_frame *frame,
                           const uint8_t *body)
{
    struct rpc_waiting *w;
    HASH_FIND(hh, link->peer->t->waiting, &frame->id, sizeof frame->id, w);
    if (w == NULL || w->link != link)
        return; /* too late */
    enum err status =
        frame->code < ERR_COUNT ? (enum err)frame->code : ERR_INVALID;
    waiting_settle(w);
    waiting_call_back(w, status, body, frame->size);
}

void rpc_link_lost(struct link *link)
{
    while (link->calls != NULL) {
        link->peer->stats.calls_failed++;
        waiting_finish(link->calls, ERR_UNREACHABLE, NULL, 0);
    }
}

/* ---- requests ------------------------------------------------------------ */

struct rpc_request {
    struct rpc_request *prev, *next; /* in serving->requests or t->local */
    struct env_post post;            /* to the serving shard */
    struct transport *serving;       /* NULL: it is freed */
    struct transport *origin;        /* the shard of the connection */
    uint64_t serial, id;
    uint16_t kind;
    node_id from;
    size_t size; /* of a copied body */
    uint8_t body[];
};

/* An answer on its way back to the shard of the connection. */
struct answer {
    struct env_post post;
    struct transport *origin;
    uint64_t serial, id;
    enum err status;
    size_t size;
    uint8_t body[];
};

/* On the origin's shard. */
static void answer_deliver(struct transport *t, uint64_t serial, uint64_t id,
                           enum err status, const void *body, size_t size)
{
    if (serial == 0) {
        struct rpc_waiting *w;
        HASH_FIND(hh, t->waiting, &id, sizeof id, w);
        if (w != NULL && w->link == NULL)
            waiting_finish(w, status, body, size);
        return;
    }
    struct incoming *in;
    HASH_FIND(hh, t->incoming, &serial, sizeof serial, in);
    if (in == NULL)
        return; /* the caller knows */
    ASSERT(in->pending > 0);
    in->pending--;
    uint64_t queued = peer_conn_queued(in->conn);
    if (size > RPC_SIZE_MAX) {
        status = ERR_TOO_LARGE;
        size = 0;
    } else if (size > LIMIT_PEER_BLOCK && queued > 0 &&
               queued >= t->options.queue_bytes_max) {
        status = ERR_UNREACHABLE; /* done, but it cannot be told */
        size = 0;
    }
    struct transport_piece piece = {.data = body, .size = size};
    peer_conn_send(in->conn, PEER_RPC_RESPONSE, id, (uint16_t)status, &piece,
                   size > 0 ? 1 : 0);
}

static void answer_posted(struct env_post *post)
{
    struct answer *a = post->arg;
    if (!a->origin->freed)
        answer_deliver(a->origin, a->serial, a->id, a->status, a->body,
                       a->size);
    mem_free(a);
}

static void answer(struct transport *from, struct transport *origin,
                   uint64_t serial, uint64_t id, enum err status,
                   const void *body, size_t size)
{
    if (from == origin) {
        answer_deliver(origin, serial, id, status, body, size);
        return;
    }
    if (size > RPC_SIZE_MAX) {
        status = ERR_TOO_LARGE;
        size = 0;
    }
    struct answer *a = mem_alloc(sizeof *a + size);
    a->post = (struct env_post){.cb = answer_posted, .arg = a};
    a->origin = origin;
    a->serial = serial;
    a->id = id;
    a->status = status;
    a->size = size;
    if (size > 0)
        memcpy(a->body, body, size);
    env_post(origin->env, &a->post);
}

void rpc_respond(struct rpc_request *request, enum err status, const void *body,
                 size_t size)
{
    struct transport *t = request->serving;
    if (t != NULL) {
        DL_DELETE(t->requests, request);
        answer(t, request->origin, request->serial, request->id, status, body,
               size);
    }
    mem_free(request);
}

/* On the serving shard. */
static void request_serve(struct rpc_request *request, const uint8_t *body,
                          size_t size)
{
    struct transport *t = request->serving;
    DL_APPEND(t->requests, request);
    uint16_t kind = request->kind;
    if (kind == 0 || kind >= RPC_KIND_COUNT)
        rpc_respond(request, ERR_UNSUPPORTED, NULL, 0);
    else if (t->servers[kind].handler == NULL)
        rpc_respond(request, ERR_NOT_READY, NULL, 0);
    else
        t->servers[kind].handler(t->servers[kind].arg, request, request->from,
                                 body, size);
}

static void request_posted(struct env_post *post)
{
    struct rpc_request *request = post->arg;
    if (request->serving->freed)
        mem_free(request);
    else
        request_serve(request, request->body, request->size);
}

static struct rpc_request *request_new(struct transport *origin,
                                       uint64_t serial, uint64_t id,
                                       uint16_t kind, node_id from,
                                       const void *body, size_t size)
{
    struct rpc_request *request = mem_zalloc(sizeof *request + size);
    request->origin = origin;
    request->serial = serial;
    request->id = id;
    request->kind = kind;
    request->from = from;
    request->size = size;
    if (size > 0)
        memcpy(request->body, body, size);
    return request;
}

/* The shard that serves such a request; NULL: there is none. */
static struct transport *serving_shard(struct transport *t, uint16_t kind,
                                       const uint8_t *body, size_t size)
{
    if (t->n_shards <= 1)
        return t;
    if (kind != RPC_CATCHUP)
        return t->shards[0];
    if (size < PEER_GROUP_ID_SIZE)
        return NULL;
    struct group_id group;
    peer_group_id_read(body, &group);
    return t->shards[group_id_shard(&group, t->n_shards)];
}

static void request_route(struct transport *t, uint64_t serial, uint64_t id,
                          uint16_t kind, node_id from, const uint8_t *body,
                          size_t size)
{
    struct transport *serving = serving_shard(t, kind, body, size);
    if (serving == NULL) {
        answer_deliver(t, serial, id, ERR_INVALID, NULL, 0);
        return;
    }
    bool here = serving == t;
    struct rpc_request *request =
        request_new(t, serial, id, kind, from, body, here ? 0 : size);
    request->serving = serving;
    if (here) {
        request_serve(request, body, size);
        return;
    }
    request->post = (struct env_post){.cb = request_posted, .arg = request};
    env_post(serving->env, &request->post);
}

void rpc_request_received(struct incoming *in, const struct peer_frame *frame,
                          const uint8_t *body)
{
    in->pending++;
    if (in->pending > LIMIT_RPC_PENDING) {
        answer_deliver(in->t, in->serial, frame->id, ERR_BUSY, NULL, 0);
        return;
    }
    request_route(in->t, in->serial, frame->id, frame->code, in->peer->node,
                  body, frame->size);
}

/* A call to ourselves becomes a request at the end of the turn. */
static void call_self(struct rpc_waiting *w, enum rpc_kind kind,
                      const void *body, size_t size)
{
    struct transport *t = w->t;
    if (size > RPC_SIZE_MAX) {
        waiting_finish(w, ERR_TOO_LARGE, NULL, 0);
        return;
    }
    struct rpc_request *request =
        request_new(t, 0, w->id, (uint16_t)kind, t->options.node, body, size);
    DL_APPEND(t->local, request);
    transport_defer(t);
}

void transport_serve(struct transport *transport, enum rpc_kind kind,
                     rpc_handler handler, void *arg)
{
    ASSERT(kind > 0 && kind < RPC_KIND_COUNT);
    transport->servers[kind] = (struct rpc_server){handler, arg};
}

/* ---- turn and end -------------------------------------------------------- */

void rpc_deferred(struct transport *t)
{
    while (t->local != NULL) {
        struct rpc_request *r = t->local;
        DL_DELETE(t->local, r);
        request_route(t, 0, r->id, r->kind, r->from, r->body, r->size);
        mem_free(r);
    }
    while (t->done != NULL) {
        struct rpc_waiting *w = t->done;
        DL_DELETE(t->done, w);
        waiting_call_back(w, w->status, w->body, w->size);
    }
}

static void waiting_drop(struct rpc_waiting *w)
{
    mem_free(w->body);
    mem_free(w);
}

void rpc_free(struct transport *t)
{
    while (t->waiting != NULL) {
        struct rpc_waiting *w = t->waiting;
        waiting_settle(w);
        waiting_drop(w);
    }
    while (t->done != NULL) {
        struct rpc_waiting *w = t->done;
        DL_DELETE(t->done, w);
        waiting_drop(w);
    }
    while (t->local != NULL) {
        struct rpc_request *r = t->local;
        DL_DELETE(t->local, r);
        mem_free(r);
    }
    while (t->requests != NULL) {
        struct rpc_request *r = t->requests;
        DL_DELETE(t->requests, r);
        r->serving = NULL;
    }
}
