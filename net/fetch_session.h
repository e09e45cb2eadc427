/* Fetch sessions (KIP-227): a consumer names its partitions once, then only
 * what changes; the broker answers only what is new. Each shard keeps those of
 * its own connections: who comes back on a connection of another shard is told
 * that the session is not known and begins a new one, as after a restart.
 *
 * Bounded: by slots (this shard's part of max.incremental.fetch.session.cache
 * .slots) and by partitions. Where there is no room, a new session takes the
 * place of one that was not used for two minutes, or, of those that are that
 * old, of the smallest if that is smaller; else the client gets none and goes
 * on without, which the protocol allows. Source: KIP-227, KIP-516. */
#ifndef NET_FETCH_SESSION_H
#define NET_FETCH_SESSION_H

#include "base/env.h"
#include "base/hash.h"
#include "base/kafka_error.h"
#include "base/wire.h"
#include "schema/fetch.h"

#define FETCH_SESSION_NONE 0
#define FETCH_EPOCH_NONE (-1) /* no session, or the end of one */
#define FETCH_EPOCH_FIRST 0   /* begin one */

/* A partition of a session. */
struct fetch_session_part {
    /* as the client last said */
    struct fetch_request_partition in;
    /* as it was last told; -1: not yet, or with an error */
    int64_t high_watermark, last_stable, log_start;
    struct uuid topic_id;  /* sessions with ids */
    struct wire_str topic; /* sessions with names; behind the key */
    UT_hash_handle hh;     /* in the order in which they are served */
    size_t key_size;
    uint8_t key[]; /* partition, then id or name */
};

struct fetch_session {
    int32_t id, epoch; /* epoch: that of the next request */
    bool with_ids;
    bool cached; /* false: closed or evicted, a request still uses it */
    uint32_t refs;
    uint64_t created_ms, used_ms;
    struct fetch_session_part *parts;
    size_t size; /* as of its beginning: what eviction goes by */
    struct fetch_sessions *cache;
    UT_hash_handle hh; /* longest unused first */
};

struct fetch_sessions;
struct fetch_sessions *fetch_sessions_new(struct env *env, uint32_t slots_max);
void fetch_sessions_free(struct fetch_sessions *cache);
uint32_t fetch_sessions_count(const struct fetch_sessions *cache);

/* What a request is about. */
enum fetch_kind {
    FETCH_PLAIN,       /* no session: answer all it names */
    FETCH_FULL,        /* the same, and begin a session with it */
    FETCH_INCREMENTAL, /* answer what is new of the session's partitions */
    FETCH_REFUSED      /* answer the error alone */
};
struct fetch_context {
    enum fetch_kind kind;
    enum kafka_error error;
    struct fetch_session *session; /* FETCH_INCREMENTAL: with a reference */
    int32_t epoch; /* the session's, unless another request used it */
};
/* Finds out, closes what the request closes, and brings the session up to date
 * with what it says. Ends with fetch_context_end. */
void fetch_context_begin(struct fetch_sessions *cache,
                         const struct fetch_request *in, int16_t version,
                         struct fetch_context *out);
/* The session's new partitions, before FETCH_FULL is answered: the id to
 * answer, or FETCH_SESSION_NONE. The caller then tells it what was answered by
 * fetch_session_told for each. The session has a reference in `ctx`. */
int32_t fetch_context_open(struct fetch_sessions *cache,
                           const struct fetch_request *in, int16_t version,
                           struct fetch_context *ctx);
void fetch_context_end(struct fetch_context *ctx);

/* The part a request's partition belongs to; NULL: none. */
struct fetch_session_part *fetch_session_find(struct fetch_session *s,
                                              const struct wire_str *topic,
                                              const struct uuid *topic_id,
                                              int32_t partition);
/* Whether this answer says something new of the partition; remembers it. What
 * had records goes to the end, so that everything has its turn. */
bool fetch_session_told(struct fetch_session *s,
                        struct fetch_session_part *part,
                        const struct fetch_response_partition *out);

#endif
