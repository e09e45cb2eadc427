/* The client listener: accepts on shard 0 and spreads the connections over the
 * shards. */
#ifndef NET_LISTENER_H
#define NET_LISTENER_H

#include "base/env.h"

struct broker_shard;
struct listener;

/* ERR_BUSY: the port is in use. */
MUST_USE enum err listener_open(struct broker_shard *first, const char *address,
                                const char *name, struct listener **out);
const char *listener_address(const struct listener *listener);
void listener_close(struct listener *listener);

#endif
