/* Messages between brokers: one connection per direction, pair of brokers and
 * shard; frames of our own with a CRC; messages of all groups batched per loop
 * turn; requests and responses (RPC) for everything that is not Raft; failure
 * detection per broker.
 *
 * Frame and hello carry a version. A hello names cluster id (zero while a
 * cluster forms), node id, directory id, shard and shard count; a peer of
 * another cluster, or a known node id with another directory, is refused with
 * a sentence. */
#ifndef RAFT_TRANSPORT_H
#define RAFT_TRANSPORT_H

#include "raft/group.h"

struct transport;

struct transport_options {
    struct env *env;
    unsigned shard, n_shards;
    node_id node;
    struct uuid directory;
    uint32_t ping_ms;          /* 100 */
    uint32_t silence_ms;       /* 600: peer is down */
    uint64_t queue_bytes_max;  /* per peer; beyond it Raft messages are dropped */
};

/* What is asked of the owner. */
struct transport_ops {
    /* Who may talk to us: called for each hello. ERR_OK or a refusal with a
     * sentence in `why`. */
    enum err (*admit)(void *arg, const struct uuid *cluster, node_id node,
                      const struct uuid *directory, char *why, size_t why_size);
    /* A peer became reachable or is certainly gone. */
    void (*peer_up)(void *arg, node_id node);
    void (*peer_down)(void *arg, node_id node);
};

struct transport *transport_new(const struct transport_options *options,
                                const struct transport_ops *ops, void *arg);
void transport_free(struct transport *transport);
void transport_set_cluster(struct transport *transport, const struct uuid *cluster);
/* Shards of this broker, by number, so that an incoming message for a group of
 * another shard is posted there. */
void transport_set_shards(struct transport *transport,
                          struct transport *const *shards, unsigned n);
/* Incoming connections are accepted by shard 0's listener and handed on. */
MUST_USE enum err transport_listen(struct transport *transport,
                                   const char *address);
/* Keeps trying to connect to a peer ("host:port"), with backoff 50..1000 ms;
 * a changed address reconnects. */
void transport_set_peer(struct transport *transport, node_id node,
                        const char *address);
void transport_remove_peer(struct transport *transport, node_id node);
bool transport_peer_is_up(const struct transport *transport, node_id node);
/* A peer whose node id is not known yet (a seed): connected by address; the
 * hello's answer tells who it is. */
void transport_add_seed(struct transport *transport, const char *address);

/* RPC. Kinds are a registry in one place so that two rooms never collide. */
enum rpc_kind {
    RPC_FORMATION = 1,     /* metadata: who are you, are you empty, which seeds */
    RPC_METADATA_PROPOSE,  /* metadata: to the metadata leader */
    RPC_BROKER_HEARTBEAT,  /* metadata: liveness, applied index, leadership reports */
    RPC_CLIENT_REQUEST,    /* net: a client's request forwarded, body as on the wire */
    RPC_CATCHUP,           /* raft: segment transfer */
    RPC_COORDINATOR,       /* coordinator */
    RPC_KIND_COUNT
};
#define RPC_SIZE_MAX (64u << 20)

/* An incoming request. Answer exactly once, at once or later. */
struct rpc_request;
typedef void (*rpc_handler)(void *arg, struct rpc_request *request,
                            node_id from, const uint8_t *body, size_t size);
void transport_serve(struct transport *transport, enum rpc_kind kind,
                     rpc_handler handler, void *arg);
void rpc_respond(struct rpc_request *request, enum err status, const void *body,
                 size_t size); /* body is copied; frees request */

/* Calls a peer. The body is copied. `cb` comes exactly once, never inside this
 * call: the peer's status and body, ERR_UNREACHABLE (not connected, connection
 * lost: outcome unknown), or ERR_TIMEOUT. A call to oneself works too. */
struct rpc_call {
    void (*cb)(struct rpc_call *call, enum err status, const uint8_t *body,
               size_t size);
    void *arg;
    /* private */
    uint64_t id;
    node_id node;
    void *impl;
};
void transport_call(struct transport *transport, node_id node,
                    enum rpc_kind kind, const void *body, size_t size,
                    uint32_t timeout_ms, struct rpc_call *call);
/* The same to a seed by address, before its node id is known. */
void transport_call_seed(struct transport *transport, const char *address,
                         enum rpc_kind kind, const void *body, size_t size,
                         uint32_t timeout_ms, struct rpc_call *call);
void transport_cancel(struct transport *transport, struct rpc_call *call);

/* ---- Raft messages (used by raft/io only) -------------------------------- */
/* Bytes referenced by an outgoing message: part copied, part pinned chunks. */
struct transport_piece {
    const uint8_t *data;
    size_t size;
    struct log_chunk *chunk; /* pinned until sent; NULL: copied at once */
};
/* Queues one group message; sent with the turn's others in one gathered write.
 * Silently dropped when the peer is not connected or its queue is full
 * (returns false): Raft recovers. */
bool transport_send_raft(struct transport *transport, node_id node,
                         const struct group_id *group,
                         const struct transport_piece *pieces, int n_pieces);
typedef void (*transport_raft_handler)(void *arg, node_id from,
                                       const struct group_id *group,
                                       const uint8_t *body, size_t size);
void transport_set_raft_handler(struct transport *transport,
                                transport_raft_handler handler, void *arg);

#endif
