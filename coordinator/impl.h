/* What the files of coordinator/ share. */
#ifndef COORDINATOR_IMPL_H
#define COORDINATOR_IMPL_H

#include "base/hash.h"
#include "base/mem.h"

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
    int64_t submitted_ms; /* of a newer commit on its way, wall clock */
    struct bytes key;     /* topic, NUL, partition */
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
    struct env_timer timer;    /* of the rebalance, or of the missing syncs */
    uint64_t join_deadline_ms; /* of the first rebalance's extension */
    bool initial_delay, new_joiner;
    uint32_t n_joined;                /* members with a parked join */
    int32_t plan_generation;          /* whose plan was submitted last */
    int64_t state_since_ms;           /* wall clock */
    struct committed_offset *offsets; /* uthash */
    UT_hash_handle hh;
};

/* A partition of __consumer_offsets that is or was led here. Writes and the
 * reads of loading outlive its entry in the coordinator's table: each holds a
 * reference. Once `closed`, neither `c` nor `partition` may be touched. */
struct group_partition {
    struct coordinator *c;
    int32_t index; /* key */
    int refs;      /* the table's, each write's, the read's */
    struct partition *partition;
    int32_t epoch;
    bool leading, live, closed;
    /* loading, in steps with the loop's other work between them */
    struct partition_fetch fetch;
    struct env_timer load;
    kafka_offset load_at;
    int32_t load_epoch; /* in which the fetch was begun */
    bool fetching;
    struct classic_group *groups; /* uthash */
    UT_hash_handle hh;
};

struct coordinator {
    struct coordinator_options options;
    struct group_partition *partitions; /* uthash */
    struct env_timer sweep;
    bool stopped;
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
/* Copies, valid until the callback returns. */
struct text answer_text(struct answer *a, struct text t);
struct blob answer_blob(struct answer *a, struct blob b);
/* At the end of the turn; or at once, from a callback of the loop. Takes it
 * over. */
void answer_send(struct coordinator *c, struct answer *a);
void answer_now(struct answer *a);

/* The live partition, or why it is not: NOT_COORDINATOR,
 * COORDINATOR_LOAD_IN_PROGRESS. */
enum kafka_error partition_live(struct coordinator *c, int32_t index,
                                struct group_partition **out);
struct classic_group *classic_group_find(struct group_partition *gp,
                                         struct text id);
struct classic_group *classic_group_make(struct group_partition *gp,
                                         struct text id);
void classic_group_free(struct classic_group *g);

/* One committed write: a batch, and what to do when it is committed or not.
 * `error` is NONE, NOT_COORDINATOR, COORDINATOR_NOT_AVAILABLE or
 * INVALID_COMMIT_OFFSET_SIZE (larger than the log takes). `done` comes once,
 * never inside the submit, also when the partition is gone: what `gp` says is
 * to be asked first. */
struct group_write {
    struct partition_produce produce;
    struct batch_builder batch;
    struct group_partition *gp;
    struct env_deferred failed;
    void (*done)(struct group_write *w, enum kafka_error error);
    void *arg;
    int32_t generation; /* the writer's own */
};
struct group_write *group_write_new(struct group_partition *gp);
void group_write_submit(struct group_write *w);
void group_write_free(struct group_write *w); /* of one not submitted */

/* ---- classic_group.c: states and rebalances ------------------------------ */
struct env *classic_group_env(const struct classic_group *g);
const char *classic_group_state(const struct classic_group *g);
void classic_group_timer_init(struct classic_group *g);
/* Without any member and pending member; what is parked is answered `why`. */
void classic_group_drop(struct classic_group *g, enum kafka_error why);
/* A group that only gave out ids nobody used: frees it. */
void classic_group_forget_unused(struct classic_group *g);
void classic_group_restore(struct classic_group *g,
                           const struct group_record *record);
/* Adds what the group is now; or writes just that. */
void classic_group_record(struct classic_group *g, struct batch_builder *b);
void classic_group_write(struct classic_group *g,
                         void (*done)(struct group_write *w,
                                      enum kafka_error error),
                         void *arg);
/* The leader's assignments for this generation; all parked syncs are answered
 * when they are committed. */
void classic_group_plan(struct classic_group *g,
                        const struct coordinator_sync *req);
/* Every member must join again (not when that is so already). */
void classic_group_prepare(struct classic_group *g);
/* Somebody joined: begins a rebalance, or goes on with the one under way. */
void classic_group_rebalance(struct classic_group *g);
/* Ends the joining if everybody is there. */
void classic_group_maybe_complete(struct classic_group *g);
/* The member is gone; what it has parked is answered UNKNOWN_MEMBER_ID. */
void classic_group_remove(struct classic_group *g, struct group_member *m);

/* ---- member.c ------------------------------------------------------------ */
struct group_member *group_member_find(struct classic_group *g, struct text id);
struct group_member *group_member_by_instance(struct classic_group *g,
                                              struct text instance);
bool group_member_leads(const struct group_member *m);
struct group_member *group_member_add(struct classic_group *g, struct text id,
                                      struct text instance);
void group_member_free(struct group_member *m); /* nothing is parked */
void group_member_update(struct group_member *m,
                         const struct coordinator_join *req);
/* Same protocols with the same metadata? */
bool group_member_matches(const struct group_member *m,
                          const struct coordinator_join *req);
struct text group_member_subscription(const struct group_member *m,
                                      const struct bytes *protocol);
/* A whole session from now. */
void group_member_touch(struct group_member *m);
void group_member_park(struct group_member *m, struct coordinator_join *req);
struct coordinator_join *group_member_unpark(struct group_member *m);
/* Answers what is parked. */
void group_member_dismiss(struct group_member *m, enum kafka_error why);
struct pending_member *pending_member_find(struct classic_group *g,
                                           struct text id);
void pending_member_add(struct classic_group *g, struct text id,
                        int32_t timeout_ms);
void pending_member_free(struct pending_member *p);
/* Each member votes for the first of its protocols that all members know; the
 * one with most votes wins. NULL when nothing is common. */
const struct bytes *classic_group_vote(struct classic_group *g);
/* Does it know a protocol that all members, `except` this one, know? */
bool classic_group_supports(struct classic_group *g,
                            const struct coordinator_join *req,
                            const struct group_member *except);

/* ---- answer.c: to JoinGroup and SyncGroup, later ------------------------- */
void join_fill_error(struct answer *a, enum kafka_error error,
                     struct text member_id);
void join_error(struct coordinator *c, struct coordinator_join *req,
                enum kafka_error error, struct text member_id);
/* The outcome of this generation for one member; not sent yet. */
struct answer *join_answer(struct group_member *m, struct coordinator_join *req,
                           bool with_members);
void join_ok(struct group_member *m, struct coordinator_join *req);
void sync_error(struct coordinator *c, struct coordinator_sync *req,
                enum kafka_error error);
void sync_ok(struct group_member *m, struct coordinator_sync *req);

/* ---- classic_sync.c ------------------------------------------------------ */
/* UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID; `g` may be NULL. */
enum kafka_error group_member_check(struct classic_group *g, struct text id,
                                    struct text instance,
                                    struct group_member **out);
/* May this be committed? `g` may be NULL. */
enum kafka_error classic_group_check_commit(
    struct classic_group *g, const struct coordinator_commit *req);

void group_partition_ref(struct group_partition *gp);
void group_partition_unref(struct group_partition *gp);

/* offsets.c */
void offset_apply(struct group_partition *gp, const struct offset_record *o,
                  bool tombstone);
void offsets_free(struct classic_group *g);
void offsets_expire(struct group_partition *gp);

#endif
