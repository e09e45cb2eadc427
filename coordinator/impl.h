/* What the files of coordinator/ share. */
#ifndef COORDINATOR_IMPL_H
#define COORDINATOR_IMPL_H

#include "base/mem.h"
#define uthash_malloc(size) mem_alloc(size)
#define uthash_free(p, size) mem_free(p)
#include <uthash.h>

#include "base/arena.h"
#include "base/env.h"
#include "coordinator/coordinator.h"
#include "coordinator/records.h"

/* Owned bytes. */
struct bytes {
    char *p; /* NULL: null */
    int32_t n;
};
void bytes_set(struct bytes *b, const void *p, int32_t n); /* n < 0: null */
void bytes_free(struct bytes *b);
static inline struct text bytes_text(const struct bytes *b)
{
    return (struct text){.p = b->p, .n = b->p == NULL ? -1 : b->n};
}
static inline struct blob bytes_blob(const struct bytes *b)
{
    return (struct blob){.p = (const uint8_t *)b->p,
                         .n = b->p == NULL ? 0 : b->n};
}
bool bytes_is(const struct bytes *b, struct text t);
bool text_equal(struct text a, struct text b);
static inline bool text_empty(struct text t)
{
    return t.n <= 0;
}
#define TEXT(literal) ((struct text){.p = "" literal, .n = sizeof literal - 1})

enum group_state {
    GROUP_EMPTY,
    GROUP_PREPARING,  /* PreparingRebalance: members are asked to join again */
    GROUP_COMPLETING, /* CompletingRebalance: the leader's plan is awaited */
    GROUP_STABLE
};

struct member_protocol {
    struct bytes name, metadata;
};

struct group_member {
    struct classic_group *group;
    struct bytes id; /* key */
    struct bytes instance_id, client_id, client_host;
    int32_t session_timeout_ms, rebalance_timeout_ms;
    int n_protocols;
    struct member_protocol *protocols;
    struct bytes assignment;
    struct coordinator_join *join; /* parked */
    struct coordinator_sync *sync; /* parked */
    bool synced;                   /* in this generation */
    struct env_timer session;
    UT_hash_handle hh;
};

/* A member id given out with MEMBER_ID_REQUIRED, not used yet. */
struct pending_member {
    struct classic_group *group;
    struct bytes id; /* key */
    struct env_timer expiry;
    UT_hash_handle hh;
};

struct committed_offset {
    struct bytes topic;
    int32_t partition;
    kafka_offset offset;
    int32_t leader_epoch;
    struct bytes metadata;
    int64_t commit_timestamp_ms;
    struct bytes key; /* topic, NUL, partition */
    UT_hash_handle hh;
};

struct classic_group {
    struct group_partition *owner;
    struct bytes id; /* key */
    enum group_state state;
    int32_t generation;
    struct bytes protocol_type, protocol, leader;
    struct group_member *members; /* uthash, in the order of joining */
    struct pending_member *pending;
    struct env_timer timer; /* of the rebalance, or of the missing syncs */
    uint64_t join_deadline_ms; /* of the first rebalance's extension */
    bool initial_delay, new_joiner;
    bool writing;              /* the plan is being committed */
    int64_t state_since_ms;    /* wall clock */
    struct committed_offset *offsets; /* uthash */
    UT_hash_handle hh;
};

/* A partition of __consumer_offsets led here. */
struct group_partition {
    struct coordinator *c;
    int32_t index; /* key */
    struct partition *partition;
    int32_t epoch;
    bool leading, live, closed;
    /* loading */
    struct partition_fetch fetch;
    struct env_deferred load;
    struct env_timer load_retry;
    kafka_offset load_at;
    bool fetching;
    struct classic_group *groups; /* uthash */
    UT_hash_handle hh;
};

struct coordinator {
    struct coordinator_options options;
    struct group_partition *partitions; /* uthash */
    struct env_timer sweep;
};

/* An answer on its way: outputs are copied into `arena`, the caller's callback
 * comes at the end of the turn. */
struct answer {
    struct env_deferred deferred;
    struct arena arena;
    void (*fire)(struct answer *a);
    void *req;
};
struct answer *answer_new(struct coordinator *c, void *req,
                          void (*fire)(struct answer *a));
struct text answer_text(struct answer *a, struct text t);
struct blob answer_blob(struct answer *a, struct blob b);
void answer_send(struct coordinator *c, struct answer *a);

/* The live partition, or why it is not: NOT_COORDINATOR,
 * COORDINATOR_LOAD_IN_PROGRESS. */
enum kafka_error partition_live(struct coordinator *c, int32_t index,
                                struct group_partition **out);
struct classic_group *group_find(struct group_partition *gp, struct text id);
struct classic_group *group_make(struct group_partition *gp, struct text id);
void classic_group_free(struct classic_group *g);

/* One committed write: a batch, and what to do when it is committed or not.
 * `error` is NONE, NOT_COORDINATOR, COORDINATOR_NOT_AVAILABLE,
 * REQUEST_TIMED_OUT, MESSAGE_TOO_LARGE. Takes over the builder. */
struct group_write {
    struct partition_produce produce;
    struct batch_builder batch;
    struct group_partition *gp;
    struct env_deferred failed;
    void (*done)(struct group_write *w, enum kafka_error error);
    void *arg;
    /* the writer's own */
    struct classic_group *group;
    int32_t generation;
};
struct group_write *group_write_new(struct group_partition *gp);
void group_write_submit(struct group_write *w);

/* classic_group.c */
void group_timer_init(struct classic_group *g);
void group_member_free(struct group_member *m);
void group_drop_members(struct classic_group *g, enum kafka_error why);
void group_restore(struct classic_group *g, const struct group_record *record);
const char *group_state_name(const struct classic_group *g);
struct text member_subscription_of(const struct group_member *m,
                                   const struct bytes *protocol);
void group_write_record(struct classic_group *g, struct batch_builder *b,
                        int64_t now_ms);
void group_member_touch(struct group_member *m);
/* May a member with this id act in this generation? For commits. */
enum kafka_error group_check_member(struct classic_group *g, struct text member,
                                    struct text instance, int32_t generation);

/* offsets.c */
void offset_apply(struct group_partition *gp, const struct offset_record *o,
                  bool tombstone);
void offsets_free(struct classic_group *g);
void offsets_expire(struct group_partition *gp);

#endif
