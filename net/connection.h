/* Connections of clients on one shard: frames in, requests out to the
 * handlers, responses back in order. */
#ifndef NET_CONNECTION_H
#define NET_CONNECTION_H

#include "base/env.h"
#include "net/request.h"

struct connections;

struct connections *connections_new(struct broker_shard *shard);
/* A stream that was accepted (and moved to this shard); `listener` is the name
 * of the listener it came by, static. */
void connections_adopt(struct connections *c, struct env_stream *stream,
                       const char *listener);
/* Stops reading requests, answers what is under way (at most `ms`), closes all,
 * then calls back. */
void connections_close(struct connections *c, uint32_t ms,
                       void (*closed)(void *arg), void *arg);
void connections_free(struct connections *c);

#endif
