/* Connections of clients on one shard: frames in, requests out to the
 * handlers, responses back in the order of the requests.
 *
 * Way of the data: bytes are read into one piece of memory shared by all
 * connections or, while a long frame is being read, straight to where the
 * frame will lie; whole frames become requests (net/frame), which are begun in
 * order; answers wait for their turn and leave in one gathered write per
 * connection and loop turn.
 *
 * What bounds memory: request.memory.bytes for the requests of all connections
 * and the answers to them, LIMIT_REQUESTS_IN_FLIGHT and LIMIT_CONNECTION_OUTPUT
 * for each; see memory.h for the whole.
 * A connection at a bound is not read, or its next request is not begun, until
 * there is room. A request that may be answered with much (Fetch) is begun
 * only when all before it are answered and taken. */
#ifndef NET_CONNECTION_H
#define NET_CONNECTION_H

#include "base/env.h"
#include "net/request.h"

struct connections;

/* With the limits of the broker's configuration; requests go to
 * request_dispatch. */
struct connections *connections_new(struct broker_shard *shard);

struct connections_options {
    struct broker_shard *shard; /* for the requests */
    struct env *env;
    void (*dispatch)(struct request *rq); /* as request_dispatch */
    bool (*has_handler)(int16_t api_key); /* as request_has_handler */
    /* Is begun only when nothing before it on its connection is under way (as
     * throttle_concerns). NULL: none is. */
    bool (*is_costly)(const struct request *rq);
    uint32_t request_max_bytes; /* socket.request.max.bytes */
    uint32_t idle_max_ms;       /* connections.max.idle.ms; 0: for ever */
    uint32_t connections_max;   /* beyond it new ones are closed at once */
    size_t memory_max;          /* bytes of all requests and answers */
    /* Does somebody wait for memory that answers hold beside that (fetched
     * data)? Asked once a second. NULL: never. */
    bool (*is_short)(struct broker_shard *shard);
};
/* The same with options of one's own, for tests. */
struct connections *connections_new_with(
    const struct connections_options *options);

/* A stream that was accepted (and moved to this shard); `listener` is the name
 * of the listener it came by, static. */
void connections_adopt(struct connections *c, struct env_stream *stream,
                       const char *listener);
/* Stops reading requests, answers what is under way (at most `ms`), closes all,
 * then calls back: later, once, when every request is answered. */
void connections_close(struct connections *c, uint32_t ms,
                       void (*closed)(void *arg), void *arg);
void connections_free(struct connections *c);

unsigned connections_count(const struct connections *c);
/* Bytes of requests and answers held, against memory_max. */
size_t connections_memory(const struct connections *c);

#endif
