/* Client quotas as the image holds them: which clients one is for, how such
 * clients are named there, and which quota counts for a client. */
#ifndef METADATA_QUOTA_H
#define METADATA_QUOTA_H

#include "base/wire.h"
#include "metadata/image.h"

/* Longest name of a user or client, in bytes, that a quota can be for: a
 * record's text has 16 bits of length, and a byte may take three there. */
#define QUOTA_NAME_MAX 1024
/* Room for quota_entity_write, with NUL. */
#define QUOTA_ENTITY_TEXT (2 * 3 * QUOTA_NAME_MAX + 24)

/* Clients by user, by client id, or by both. A name that is empty stands for
 * all that have no quota of their own (Kafka's "default"). */
struct quota_entity {
    bool has_user, has_client;
    struct wire_str user, client;
};

/* The entity as the image names it: "user=NAME", "client-id=NAME" or
 * "user=NAME,client-id=NAME", all bytes but letters, digits, '.', '_' and '-'
 * of a name as %XX. False: a name is too long, or there is neither part. */
bool quota_entity_write(const struct quota_entity *entity,
                        char out[QUOTA_ENTITY_TEXT]);
/* The other way round; the names are decoded into `names`, which
 * has room for as many bytes as the text. False: nothing that
 * quota_entity_write gives. */
bool quota_entity_read(const char *text, struct quota_entity *out, char *names);

enum quota_kind {
    QUOTA_PRODUCE,  /* bytes of requests a second */
    QUOTA_FETCH,    /* bytes of answers a second */
    QUOTA_REQUEST,  /* percent of a thread's time */
    QUOTA_MUTATION, /* partitions created and deleted a second */
    QUOTA_KINDS
};
/* The configuration key of a kind of quota (CONFIG_CLIENT). */
const char *quota_key(enum quota_kind kind);

/* What counts for a client: its limit, and with whom it shares it. */
struct quota_match {
    double limit;
    bool by_user;   /* all clients of the user share it ... */
    bool by_client; /* ... all connections of the client id; both: of both */
};
/* Finds the quota of this kind that is nearest to the client, in Kafka's order:
 * user and client id, user and default client id, user; the same of the default
 * user; client id, default client id. False: there is none. A client id that is
 * null counts as an empty one, which only defaults are for. */
bool quota_find(const struct image *image, struct wire_str user,
                struct wire_str client, enum quota_kind kind,
                struct quota_match *out);

#endif
