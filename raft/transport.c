#include "raft/transport_impl.h"

#include <stdio.h>

#include "base/assert.h"
#include "base/log.h"

static void transport_tick(struct env_timer *timer)
{
    struct transport *t = timer->arg;
    peers_tick(t);
    env_timer_start(&t->tick, t->options.ping_ms);
}

static void transport_turn_end(struct env_deferred *d)
{
    struct transport *t = d->arg;
    t->deferring = false;
    if (t->freed) {
        mem_free(t);
        return;
    }
    peers_tell(t);
    rpc_deferred(t);
}

void transport_defer(struct transport *t)
{
    if (t->deferring)
        return;
    t->deferring = true;
    env_defer(t->env, &t->deferred);
}

struct transport *transport_new(const struct transport_options *options,
                                const struct transport_ops *ops, void *arg)
{
    ASSERT(options->n_shards > 0 && options->shard < options->n_shards);
    ASSERT(options->node >= 0);
    struct transport *t = mem_zalloc(sizeof *t);
    t->env = options->env;
    t->options = *options;
    if (t->options.ping_ms == 0)
        t->options.ping_ms = 100;
    if (t->options.silence_ms == 0)
        t->options.silence_ms = 600;
    t->ops = ops;
    t->arg = arg;
    t->incarnation = env_random(t->env) | 1;
    t->awake_ms = t->ticked_ms = env_now_ms(t->env);
    t->deferred = (struct env_deferred){.cb = transport_turn_end, .arg = t};
    transport_set_address(t, options->address != NULL ? options->address : "");
    env_timer_init(t->env, &t->tick, transport_tick, t);
    env_timer_start(&t->tick, t->options.ping_ms);
    return t;
}

void transport_free(struct transport *transport)
{
    if (transport == NULL)
        return;
    env_timer_stop(&transport->tick);
    if (transport->listener != NULL)
        env_listener_close(transport->listener);
    peers_free(transport);
    rpc_free(transport);
    transport->freed = true;
    if (!transport->deferring)
        mem_free(transport);
}

void transport_set_cluster(struct transport *transport,
                           const struct uuid *cluster)
{
    transport->cluster = *cluster;
}

void transport_set_address(struct transport *transport, const char *address)
{
    snprintf(transport->address, sizeof transport->address, "%s", address);
}

void transport_set_shards(struct transport *transport,
                          struct transport *const *shards, unsigned n)
{
    ASSERT(n == transport->options.n_shards);
    ASSERT(shards[transport->options.shard] == transport);
    transport->shards = shards;
    transport->n_shards = n;
}

enum err transport_listen(struct transport *transport, const char *address)
{
    ASSERT(transport->options.shard == 0 && transport->listener == NULL);
    return env_listen(transport->env, address, incoming_accept, transport,
                      &transport->listener);
}

const char *transport_listen_address(const struct transport *transport)
{
    return transport->listener != NULL
               ? env_listener_address(transport->listener)
               : "";
}

/* ---- peers --------------------------------------------------------------- */

void transport_set_peer(struct transport *transport, node_id node,
                        const char *address)
{
    if (node == transport->options.node)
        return;
    struct peer *peer = peer_find(transport, node);
    if (peer != NULL)
        peer_set_address(peer, address);
    else if (transport->n_peers < LIMIT_PEERS)
        peer = peer_new(transport, node, address);
    else
        log_error("transport", "no room for a peer node=%d", node);
    if (peer != NULL) {
        peer->told = true;
        peer->unwanted = false;
    }
}

void transport_remove_peer(struct transport *transport, node_id node)
{
    struct peer *peer = peer_find(transport, node);
    if (peer != NULL)
        peer_free(peer);
}

void transport_forget_peer(struct transport *transport, node_id node)
{
    struct peer *peer = peer_find(transport, node);
    if (peer == NULL)
        return;
    peer->told = false;
    peer->unwanted = true;
    if (!peer->up)
        peer_free(peer);
}

bool transport_peer_is_up(const struct transport *transport, node_id node)
{
    if (node == transport->options.node)
        return true;
    const struct peer *peer = peer_find(transport, node);
    return peer != NULL && peer->up;
}

void transport_add_seed(struct transport *transport, const char *address)
{
    if (seed_find(transport, address) != NULL)
        return;
    if (transport->n_peers >= LIMIT_PEERS) {
        log_error("transport", "no room for a seed address=%s", address);
        return;
    }
    struct seed *seed = mem_zalloc(sizeof *seed);
    snprintf(seed->address, sizeof seed->address, "%s", address);
    seed->node = -1;
    seed->peer = peer_new(transport, -1, address);
    DL_APPEND(transport->seeds, seed);
}

node_id transport_seed_node(const struct transport *transport,
                            const char *address)
{
    const struct seed *seed = seed_find(transport, address);
    return seed != NULL ? seed->node : -1;
}

const char *transport_refusal(const struct transport *transport, node_id node)
{
    const struct peer *peer = peer_find(transport, node);
    return peer != NULL ? peer->why : "";
}

/* NULL: it is none, or it is ourselves. */
static const struct peer *seed_peer(const struct transport *transport,
                                    const char *address)
{
    const struct seed *seed = seed_find(transport, address);
    if (seed == NULL)
        return NULL;
    return seed->node >= 0 ? peer_find(transport, seed->node) : seed->peer;
}

const char *transport_seed_refusal(const struct transport *transport,
                                   const char *address)
{
    const struct peer *peer = seed_peer(transport, address);
    return peer != NULL ? peer->why : "";
}

bool transport_seed_refuses(const struct transport *transport,
                            const char *address)
{
    const struct peer *peer = seed_peer(transport, address);
    return peer != NULL && peer->refused;
}

bool transport_seed_is_foreign(const struct transport *transport,
                               const char *address)
{
    const struct seed *seed = seed_find(transport, address);
    return seed != NULL && seed->peer != NULL && seed->peer->foreign;
}

static void stats_add(struct transport_peer_stats *stats,
                      const struct peer_conn *conn)
{
    stats->bytes_sent += peer_conn_bytes_sent(conn);
    stats->bytes_received += peer_conn_bytes_received(conn);
    stats->queued_bytes += peer_conn_queued(conn);
}

static void peer_stats(const struct peer *peer,
                       struct transport_peer_stats *out)
{
    *out = peer->stats;
    out->up = peer->up;
    for (int i = 0; i < LANE_COUNT; i++)
        if (peer->links[i].conn != NULL)
            stats_add(out, peer->links[i].conn);
    const struct incoming *in;
    for (in = peer->t->incoming; in != NULL; in = in->hh.next)
        if (in->peer == peer)
            stats_add(out, in->conn);
}

size_t transport_stats(const struct transport *transport,
                       struct transport_peer_stats *out, size_t max)
{
    size_t n = 0;
    const struct peer *peer;
    DL_FOREACH(transport->peers, peer)
    {
        if (n < max)
            peer_stats(peer, &out[n]);
        n++;
    }
    return n;
}

/* ---- messages of Raft ---------------------------------------------------- */

#define PIECES_MAX 320 /* of one message: its head, and each entry */

bool transport_send_raft(struct transport *transport, node_id node,
                         const struct group_id *group,
                         const struct transport_piece *pieces, int n_pieces)
{
    struct peer *peer = peer_find(transport, node);
    if (peer == NULL || peer->links[LANE_MAIN].state != LINK_UP) {
        if (peer != NULL)
            peer->stats.raft_dropped++;
        return false;
    }
    ASSERT(n_pieces <= PIECES_MAX);
    struct transport_piece all[PIECES_MAX + 1];
    uint8_t id[PEER_GROUP_ID_SIZE];
    peer_group_id_write(group, id);
    all[0] = (struct transport_piece){.data = id, .size = sizeof id};
    size_t size = PEER_FRAME_HEADER + PEER_GROUP_ID_SIZE;
    for (int i = 0; i < n_pieces; i++) {
        all[i + 1] = pieces[i];
        size += pieces[i].size;
    }
    struct peer_conn *conn = peer->links[LANE_MAIN].conn;
    uint64_t queued = peer_conn_queued(conn);
    if (size > PEER_RAFT_SIZE_MAX ||
        (queued > 0 && queued + size > transport->options.queue_bytes_max)) {
        peer->stats.raft_dropped++;
        return false;
    }
    peer->stats.raft_sent++;
    peer_conn_send(conn, PEER_RAFT, 0, 0, all, n_pieces + 1);
    return true;
}

void transport_set_raft_handler(struct transport *transport,
                                transport_raft_handler handler, void *arg)
{
    transport->raft_handler = handler;
    transport->raft_arg = arg;
}

/* A message on its way to another shard. */
struct raft_posted {
    struct env_post post;
    struct transport *from_shard, *to;
    struct group_id group;
    node_id from;
    size_t size;
    uint8_t body[];
};

static void raft_arrived(struct env_post *post)
{
    struct raft_posted *m = post->arg;
    struct transport *t = m->to;
    if (!t->freed && t->raft_handler != NULL)
        t->raft_handler(t->raft_arg, m->from, &m->group, m->body, m->size);
    atomic_fetch_sub(&m->from_shard->posted_bytes, m->size);
    mem_free(m);
}

static void raft_post(struct transport *t, struct transport *to, node_id from,
                      const struct group_id *group, const uint8_t *body,
                      size_t size)
{
    if (atomic_load(&t->posted_bytes) > t->options.queue_bytes_max)
        return; /* the other shard is slow: Raft recovers */
    struct raft_posted *m = mem_alloc(sizeof *m + size);
    m->post = (struct env_post){.cb = raft_arrived, .arg = m};
    m->from_shard = t;
    m->to = to;
    m->group = *group;
    m->from = from;
    m->size = size;
    if (size > 0)
        memcpy(m->body, body, size);
    atomic_fetch_add(&t->posted_bytes, size);
    env_post(to->env, &m->post);
}

void raft_received(struct transport *t, node_id from, const uint8_t *body,
                   size_t size)
{
    if (size < PEER_GROUP_ID_SIZE)
        return;
    struct group_id group;
    peer_group_id_read(body, &group);
    body += PEER_GROUP_ID_SIZE;
    size -= PEER_GROUP_ID_SIZE;
    struct transport *to = t;
    if (t->n_shards > 1)
        to = t->shards[group_id_shard(&group, t->n_shards)];
    if (to != t)
        raft_post(t, to, from, &group, body, size);
    else if (t->raft_handler != NULL)
        t->raft_handler(t->raft_arg, from, &group, body, size);
}
