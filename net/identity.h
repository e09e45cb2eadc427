/* Who this data directory is: node id and directory id, given once. */
#ifndef NET_IDENTITY_H
#define NET_IDENTITY_H

#include "base/env.h"
#include "base/types.h"

struct identity {
    node_id node;
    struct uuid directory; /* random, new with every new directory */
};
/* Reads DIR/broker.properties or makes it durably. ERR_REFUSED with a sentence
 * when the directory belongs to another node or cannot be understood. */
MUST_USE enum err identity_open(struct env *env, const char *dir, node_id node,
                                struct identity *out, char *why,
                                size_t why_size);

#endif
