/* Who this broker is, kept in `meta.properties` of its directory: node id, the
 * random id of the directory, and once it is known the cluster with the brokers
 * it was formed of. Written before anything may depend on it. */
#ifndef METADATA_IDENTITY_H
#define METADATA_IDENTITY_H

#include "base/env.h"
#include "base/limits.h"
#include "base/types.h"

enum identity_state {
    IDENTITY_EMPTY,   /* no cluster yet */
    IDENTITY_FORMING, /* decided; its metadata log may not be durable yet */
    IDENTITY_FORMED   /* its metadata log was durable: it must be there */
};

/* A broker the cluster was formed of. */
struct identity_member {
    node_id node;
    struct uuid directory;
    char address[LIMIT_ADDRESS]; /* of its peer listener, then */
};

struct identity {
    node_id node;
    struct uuid directory;
    enum identity_state state;
    struct uuid cluster; /* zero while EMPTY */
    int n_members;
    struct identity_member members[LIMIT_SEEDS]; /* sorted by node */
};

/* Reads the file of `dir`; where there is none, begins one durably, with
 * `directory` or, when that is NULL or zero, a random id. Blocking, for the
 * start. ERR_REFUSED: the directory belongs to another node id; ERR_CORRUPT,
 * ERR_IO; `why` is a sentence then. */
MUST_USE enum err identity_load(struct env *env, const char *dir, node_id node,
                                const struct uuid *directory,
                                struct identity *out, char *why,
                                size_t why_size);
/* Replaces the file, durably; blocking, also for workers. */
MUST_USE enum err identity_save(struct env *env, const char *dir,
                                const struct identity *identity);
/* The id of the cluster these members form: the same on each of them. */
struct uuid identity_cluster_of(const struct identity_member *members, int n);
/* NULL: not a member. */
const struct identity_member *identity_member_find(
    const struct identity *identity, node_id node);

#endif
