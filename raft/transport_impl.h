/* What the files of the transport share: transport.c (the whole, messages of
 * Raft, other shards), transport_peer.c (dialling, hellos, who is up),
 * transport_rpc.c (calls and requests). */
#ifndef RAFT_TRANSPORT_IMPL_H
#define RAFT_TRANSPORT_IMPL_H

#include "raft/peer_conn.h"

#include "base/hash.h"
#include "base/limits.h"
#include "base/mem.h"
#include <utlist.h>
#include <stdatomic.h>

/* Dialling: idle -> waiting (backoff) -> dialling (connect and hello) -> up. */
enum link_state { LINK_IDLE, LINK_WAITING, LINK_DIALLING, LINK_UP };

struct rpc_waiting;

/* Our own connection to a peer, one for each lane. */
struct link {
    struct peer *peer;
    enum peer_lane lane;
    enum link_state state;
    struct peer_conn *conn; /* when dialling or up */
    struct env_timer timer; /* backoff; limit of dialling */
    uint32_t backoff_ms;    /* of the next attempt; 0: at once */
    bool ping_sent;         /* and not answered */
    uint64_t up_ms;         /* when it was last up */
    uint64_t sent, sent_ms; /* bytes sent, when that last grew */
    uint64_t incarnation;   /* of the newest accepted hello; 0: none */
    struct rpc_waiting *calls;
};

/* A connection that was dialled by a peer. */
struct incoming {
    UT_hash_handle hh; /* in transport.incoming, by serial */
    struct transport *t;
    uint64_t serial;
    struct peer_conn *conn;
    struct peer *peer; /* NULL before its hello */
    enum peer_lane lane;
    uint32_t shard; /* of the peer */
    uint64_t since_ms;
    uint32_t pending; /* requests not yet answered */
};

struct peer {
    UT_hash_handle hh;        /* in transport.known, by node */
    struct peer *prev, *next; /* in transport.peers */
    struct transport *t;
    node_id node; /* -1: a seed not known yet */
    char address[LIMIT_ADDRESS];
    bool told;     /* by transport_set_peer */
    bool unwanted; /* by transport_forget_peer, though it may be a seed */
    struct link links[LANE_COUNT];
    unsigned n_incoming;  /* connections it dialled, main lane */
    uint32_t n_shards;    /* of the peer; 0: not known */
    uint64_t heard_ms;    /* newest sign of life */
    uint64_t incoming_ms; /* main lane: when it was last there */
    bool up;
    bool foreign; /* its newest answer named another cluster */
    bool refused; /* `why` is its own: it answered no */
    char why[PEER_WHY_SIZE + LIMIT_ADDRESS];
    uint64_t logged_ms; /* when `why` was last logged; 0: never */
    struct transport_peer_stats stats;
};

struct seed {
    struct seed *prev, *next;
    char address[LIMIT_ADDRESS];
    node_id node;      /* -1: not known */
    struct peer *peer; /* while not known */
};

/* peer_up or peer_down, to be told at the end of the turn. */
struct peer_event {
    struct peer_event *prev, *next;
    node_id node;
    bool up;
};

struct rpc_server {
    rpc_handler handler;
    void *arg;
};

struct transport {
    struct env *env;
    struct transport_options options;
    const struct transport_ops *ops;
    void *arg;
    char address[LIMIT_ADDRESS];
    struct uuid cluster;
    uint64_t incarnation;
    struct transport *const *shards;
    unsigned n_shards; /* of `shards` */
    struct env_listener *listener;

    struct peer *known; /* hash by node */
    struct peer *peers; /* all, in the order they were made */
    unsigned n_peers;
    struct seed *seeds;
    struct incoming *incoming; /* hash by serial */
    uint64_t next_serial;

    struct env_timer tick;
    uint64_t ticked_ms; /* when the timer last fired */
    uint64_t awake_ms;  /* since when this process has run without a stall */
    struct peer_event *events;

    transport_raft_handler raft_handler;
    void *raft_arg;
    atomic_size_t posted_bytes; /* Raft messages on their way to other shards */

    struct rpc_server servers[RPC_KIND_COUNT];
    struct rpc_waiting *waiting;  /* hash by id */
    struct rpc_waiting *done;     /* to be called back */
    struct rpc_request *requests; /* being served here */
    struct rpc_request *local;    /* of ourselves, to be served */
    uint64_t next_call;
    struct env_deferred deferred;
    bool deferring, freed;
};

/* transport_peer.c */
struct peer *peer_find(const struct transport *t, node_id node);
struct peer *peer_new(struct transport *t, node_id node, const char *address);
void peer_set_address(struct peer *peer, const char *address);
void peer_free(struct peer *peer);
struct seed *seed_find(const struct transport *t, const char *address);
void peers_tick(struct transport *t);
void peers_tell(struct transport *t);
void peers_free(struct transport *t);
void incoming_accept(void *arg, struct env_stream *stream);

/* transport.c */
/* A Raft frame arrived on this shard. */
void raft_received(struct transport *t, node_id from, const uint8_t *body,
                   size_t size);

/* transport_rpc.c */
void rpc_request_received(struct incoming *in, const struct peer_frame *frame,
                          const uint8_t *body);
void rpc_response_received(struct link *link, const struct peer_frame *frame,
                           const uint8_t *body);
/* The connection of the link is gone: its calls fail with ERR_UNREACHABLE. */
void rpc_link_lost(struct link *link);
/* At the end of a turn: local requests, callbacks. */
void rpc_deferred(struct transport *t);
void rpc_free(struct transport *t);
void transport_defer(struct transport *t);

#endif
