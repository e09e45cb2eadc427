/* Messages between brokers: frames of our own with a CRC (peer_frame.h);
 * messages of all groups batched per loop turn; requests and responses (RPC)
 * for everything that is not Raft; failure detection per broker.
 *
 * Connections: every broker dials every peer, from each shard, once for each
 * lane: main (Raft messages, small RPCs), and bulk (RPC_CATCHUP,
 * RPC_CLIENT_REQUEST), so that large bodies never delay the former. On a
 * connection the dialling side sends hello, pings, Raft messages and requests;
 * the accepting side sends only what answers them: hello's answer, pongs,
 * responses. So a call lives and dies with the connection it was sent on, a
 * seed can be called before it knows us, and no two dialled connections ever
 * have to agree which of them is to be used. Shard s dials the peer's shard
 * s modulo the peer's number of shards.
 *
 * Threads: one transport a shard, all calls on its shard's thread.
 * Each shard detects failures on its own connections and tells its own ops.
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
    uint32_t ping_ms;    /* 100 */
    uint32_t silence_ms; /* 600: peer is down */
    /* Per connection; beyond it Raft messages are dropped and calls answered
     * ERR_BUSY. One message is always taken when nothing is queued. */
    uint64_t queue_bytes_max;
    /* Where peers dial this broker; told in the hello, so that a broker that
     * is dialled by one it does not know can dial back. NULL: not told. */
    const char *address;
};

/* What is asked of the owner. */
struct transport_ops {
    /* Who may talk to us: called for each hello, and for each answer to ours
     * (on shard 0 for the former). ERR_OK or a refusal with a sentence in
     * `why`. Before it the transport itself refuses another protocol version,
     * another cluster (both ids known) and our own node id with another
     * directory. NULL: all others are welcome. */
    enum err (*admit)(void *arg, const struct uuid *cluster, node_id node,
                      const struct uuid *directory, char *why, size_t why_size);
    /* A peer became reachable: hellos were accepted in both directions and
     * there are signs of life. Or it is certainly gone (told only after
     * peer_up, once): nothing was heard for silence_ms; or a connection was
     * lost and the next one refused; or it was restarted. A time in which this
     * process itself did not run is not counted as silence. May be NULL. */
    void (*peer_up)(void *arg, node_id node);
    void (*peer_down)(void *arg, node_id node);
};

/* `ops` must live as long as the transport. */
struct transport *transport_new(const struct transport_options *options,
                                const struct transport_ops *ops, void *arg);
/* Closes everything. Calls not yet answered are never called back. All shards'
 * transports are to be freed together, when their loops are quiet; requests
 * may still be answered afterwards (nothing is sent). */
void transport_free(struct transport *transport);
/* Another address to be told in hellos (see options). */
void transport_set_address(struct transport *transport, const char *address);
void transport_set_cluster(struct transport *transport,
                           const struct uuid *cluster);
/* Shards of this broker, by number, so that an incoming message for a group of
 * another shard is posted there. */
void transport_set_shards(struct transport *transport,
                          struct transport *const *shards, unsigned n);
/* Incoming connections are accepted by shard 0's listener and handed on. */
MUST_USE enum err transport_listen(struct transport *transport,
                                   const char *address);
/* "host:port" really listened on; "" when not listening. */
const char *transport_listen_address(const struct transport *transport);
/* Keeps trying to connect to a peer ("host:port"), with backoff 50..1000 ms;
 * a changed address reconnects. A peer that only connected by itself is
 * forgotten when it was gone for 10 s. */
void transport_set_peer(struct transport *transport, node_id node,
                        const char *address);
/* Closes all connections with it; peer_down is not called. */
void transport_remove_peer(struct transport *transport, node_id node);
/* It is none of us any more: forgotten when it is gone, at once if it is. When
 * it connects again it is let in like anybody. */
void transport_forget_peer(struct transport *transport, node_id node);
/* True for ourselves. */
bool transport_peer_is_up(const struct transport *transport, node_id node);
/* A peer whose node id is not known yet (a seed): connected by address; the
 * hello's answer tells who it is, and from then on it is that peer. Adding a
 * seed twice does nothing. A seed may be this broker itself. */
void transport_add_seed(struct transport *transport, const char *address);
/* The node id of a seed, -1 while it is not known. */
node_id transport_seed_node(const struct transport *transport,
                            const char *address);
/* Why the newest attempt to connect failed or was refused, as a sentence; ""
 * when it did not or nothing is known. Valid until control returns to the
 * loop. */
const char *transport_refusal(const struct transport *transport, node_id node);
const char *transport_seed_refusal(const struct transport *transport,
                                   const char *address);
/* The newest attempt to connect to the seed was heard, and refused. */
bool transport_seed_refuses(const struct transport *transport,
                            const char *address);
/* A seed that answered, the last time it did, as a broker of another cluster.
 */
bool transport_seed_is_foreign(const struct transport *transport,
                               const char *address);

/* RPC. Kinds are a registry in one place so that two rooms never collide. */
enum rpc_kind {
    RPC_FORMATION = 1, /* metadata: who are you, are you empty, which seeds */
    RPC_METADATA_PROPOSE, /* metadata: to the metadata leader */
    RPC_BROKER_HEARTBEAT, /* metadata: liveness, applied index, leadership
                             reports */
    RPC_CLIENT_REQUEST,   /* net: a client's request forwarded, body as on the
                             wire */
    RPC_CATCHUP,          /* raft: segment transfer */
    RPC_COORDINATOR,      /* coordinator */
    RPC_KIND_COUNT
};
#define RPC_SIZE_MAX (64u << 20)

/* An incoming request. Answer exactly once, at once or later. The body is
 * valid until the handler returns. Requests are served by shard 0's handlers,
 * whichever shard called, except RPC_CATCHUP, whose body begins with the group
 * id (16 bytes of topic, 4 of partition little-endian) and which is served by
 * the shard of that group. Without a handler: ERR_NOT_READY. */
struct rpc_request;
typedef void (*rpc_handler)(void *arg, struct rpc_request *request,
                            node_id from, const uint8_t *body, size_t size);
void transport_serve(struct transport *transport, enum rpc_kind kind,
                     rpc_handler handler, void *arg);
void rpc_respond(struct rpc_request *request, enum err status, const void *body,
                 size_t size); /* body is copied; frees request */

/* Calls a peer. The body is copied. `cb` comes exactly once, never inside this
 * call: the peer's status and body (valid until cb returns), ERR_UNREACHABLE
 * (not connected; connection lost or answer not sendable: outcome unknown),
 * ERR_TIMEOUT (outcome unknown), ERR_BUSY (our queue to it is full: not sent;
 * or too many requests wait there: not done), ERR_TOO_LARGE (not sent). A
 * call to oneself works too. The call may be freed or used again in `cb`. */
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
/* `cb` will not be called; the outcome is unknown. Cancelling a call that was
 * called back does nothing. */
void transport_cancel(struct transport *transport, struct rpc_call *call);

/* ---- Numbers ------------------------------------------------------------- */
struct transport_peer_stats {
    node_id node; /* -1: a seed not known yet */
    bool up;
    uint64_t bytes_sent, bytes_received;
    uint64_t raft_sent, raft_received, raft_dropped;
    uint64_t calls, calls_failed; /* failed: no answer of the peer */
    uint64_t connects;            /* hellos accepted by it, both lanes */
    uint64_t queued_bytes;        /* now, both lanes */
    uint32_t rtt_us;              /* of the newest ping; 0: none yet */
};
/* Fills at most `max`, in the order in which peers became known; returns how
 * many there are. */
size_t transport_stats(const struct transport *transport,
                       struct transport_peer_stats *out, size_t max);

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
/* On the shard of the group; the body is valid until the handler returns. */
typedef void (*transport_raft_handler)(void *arg, node_id from,
                                       const struct group_id *group,
                                       const uint8_t *body, size_t size);
void transport_set_raft_handler(struct transport *transport,
                                transport_raft_handler handler, void *arg);

#endif
