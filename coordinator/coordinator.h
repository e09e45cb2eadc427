/* Group coordinator of one shard: classic consumer groups and committed
 * offsets. The coordinator of a group is the leader of its partition of
 * __consumer_offsets; its durable state is the replay of that partition's
 * committed batches (Kafka's own record formats), so tools that read the topic
 * work. All calls on the shard that owns the partition of the group.
 *
 * Decisions are pure functions of event and state; replies wait until what
 * they depend on is committed. Texts are views (not NUL-terminated), valid as
 * the caller says; the coordinator copies what it keeps. */
#ifndef COORDINATOR_COORDINATOR_H
#define COORDINATOR_COORDINATOR_H

#include "metadata/metadata.h"
#include "partition/partition.h"

#define OFFSETS_TOPIC "__consumer_offsets"

struct text {
    const char *p;
    int32_t n; /* -1: null */
};
struct blob {
    const uint8_t *p;
    int32_t n; /* -1: null */
};

struct coordinator;
struct coordinator_options {
    struct env *env;
    const struct image *image;           /* of this shard, for topic checks */
    uint32_t initial_rebalance_delay_ms; /* group.initial.rebalance.delay.ms */
    uint32_t session_timeout_min_ms, session_timeout_max_ms;
    uint32_t group_size_max;
    int64_t offsets_retention_ms;
    int32_t offset_metadata_bytes_max;
};
struct coordinator *coordinator_new(const struct coordinator_options *options);
/* The broker stops: everything parked is answered NOT_COORDINATOR, so that
 * clients look for the next coordinator; from here on so is everything. */
void coordinator_stop(struct coordinator *c);
/* Answers what is parked; after the partitions' last callbacks, or before
 * their next. */
void coordinator_free(struct coordinator *c);

/* Java's String.hashCode over the group id (UTF-8), & 0x7fffffff, % n. */
int32_t coordinator_partition_of(struct text key, int32_t n_partitions);

/* Wiring, called by the owner of the partitions of __consumer_offsets: a
 * committed batch was applied; the role changed; the partition is gone or about
 * to be deleted (from here on nothing is asked of it; what is parked is
 * answered NOT_COORDINATOR). Telling it twice is fine. */
void coordinator_applied(struct coordinator *c, struct partition *p,
                         int32_t index, kafka_offset base, const uint8_t *batch,
                         uint32_t size);
void coordinator_role_changed(struct coordinator *c, struct partition *p,
                              int32_t index, const struct group_role *role);
void coordinator_partition_closed(struct coordinator *c, struct partition *p,
                                  int32_t index);

/* ---- requests -------------------------------------------------------------
 * Each is caller-owned and answered once by `cb`, never inside the call;
 * inputs must live until cb, outputs live until cb returns. `index` is the
 * partition of __consumer_offsets; errors COORDINATOR_LOAD_IN_PROGRESS,
 * NOT_COORDINATOR are given here too. */
struct coordinator_member {
    struct text member_id, instance_id; /* instance null: dynamic */
    struct blob metadata; /* subscription, by the chosen protocol */
    struct blob assignment;
    struct text client_id, client_host;
};
struct coordinator_join {
    int32_t index;
    int16_t api_version;
    struct text group_id, member_id, instance_id, protocol_type;
    struct text client_id, client_host, reason;
    int32_t session_timeout_ms, rebalance_timeout_ms;
    int n_protocols;
    const struct coordinator_protocol {
        struct text name;
        struct blob metadata;
    } * protocols;
    void (*cb)(struct coordinator_join *req);
    void *arg;
    /* out */
    enum kafka_error error;
    int32_t generation_id;
    struct text out_protocol_type, protocol_name, leader, out_member_id;
    bool skip_assignment;
    int n_members; /* only for the leader */
    const struct coordinator_member *members;
    void *impl; /* private */
};
void coordinator_join(struct coordinator *c, struct coordinator_join *req);

struct coordinator_sync {
    int32_t index;
    int16_t api_version;
    struct text group_id, member_id, instance_id, protocol_type, protocol_name;
    int32_t generation_id;
    int n_assignments;
    const struct coordinator_assignment {
        struct text member_id;
        struct blob assignment;
    } * assignments;
    void (*cb)(struct coordinator_sync *req);
    void *arg;
    enum kafka_error error;
    struct text out_protocol_type, out_protocol_name;
    struct blob assignment;
    void *impl;
};
void coordinator_sync(struct coordinator *c, struct coordinator_sync *req);

/* Heartbeat answers at once. */
enum kafka_error coordinator_heartbeat(struct coordinator *c, int32_t index,
                                       struct text group_id,
                                       struct text member_id,
                                       struct text instance_id,
                                       int32_t generation_id);

struct coordinator_leave {
    int32_t index;
    int16_t api_version;
    struct text group_id;
    int n_members;
    const struct coordinator_leaving {
        struct text member_id, instance_id, reason;
    } * members;
    enum kafka_error *member_errors; /* n_members, the caller's, filled */
    void (*cb)(struct coordinator_leave *req);
    void *arg;
    enum kafka_error error;
    void *impl;
};
void coordinator_leave(struct coordinator *c, struct coordinator_leave *req);

struct coordinator_commit {
    int32_t index;
    int16_t api_version;
    struct text group_id, member_id, instance_id;
    int32_t generation_id; /* -1 with member "" : simple commit */
    int n_offsets;
    struct coordinator_commit_offset {
        struct text topic;    /* name */
        struct uuid topic_id; /* zero: not known */
        int32_t partition;
        kafka_offset offset;
        int32_t leader_epoch;
        struct text metadata;
        enum kafka_error
            error; /* out; may be preset by the caller (then skipped) */
    } * offsets;
    void (*cb)(struct coordinator_commit *req);
    void *arg;
    enum kafka_error error; /* of the request as a whole */
    void *impl;
};
void coordinator_commit(struct coordinator *c, struct coordinator_commit *req);

struct coordinator_fetched_offset {
    struct text topic;
    int32_t partition;
    kafka_offset offset; /* -1: none */
    int32_t leader_epoch;
    struct text metadata;
    enum kafka_error error;
};
struct coordinator_fetch {
    int32_t index;
    int16_t api_version;
    struct text group_id, member_id;
    int32_t member_epoch;     /* -1: not given */
    bool require_stable, all; /* all: every committed offset */
    int n_offsets; /* asked (not all): topic, partition in; rest out */
    struct coordinator_fetched_offset
        *offsets; /* all: out, the coordinator's, until cb returns */
    void (*cb)(struct coordinator_fetch *req);
    void *arg;
    enum kafka_error error;
    struct group_read barrier; /* private: linearizable */
    void *impl;
};
void coordinator_fetch(struct coordinator *c, struct coordinator_fetch *req);

struct coordinator_group_view {
    enum kafka_error error;
    struct text group_id, state, protocol_type, protocol;
    int n_members;
    const struct coordinator_member *members;
};
/* Linearizable view of one group; strings live until the callback returns. */
struct coordinator_describe {
    int32_t index;
    int16_t api_version;
    struct text group_id;
    void (*cb)(struct coordinator_describe *req);
    void *arg;
    struct coordinator_group_view view;
    struct group_read barrier;
    void *impl;
};
void coordinator_describe(struct coordinator *c,
                          struct coordinator_describe *req);
/* Calls `each` for every group coordinated by this shard now (in the order
 * in which they came).
 * COORDINATOR_LOAD_IN_PROGRESS when a partition led here is still loading. */
enum kafka_error coordinator_list(
    struct coordinator *c,
    void (*each)(void *arg, const struct coordinator_group_view *view),
    void *arg);
/* Deletes an Empty group and its offsets: NON_EMPTY_GROUP, GROUP_ID_NOT_FOUND.
 */
struct coordinator_delete {
    int32_t index;
    struct text group_id;
    void (*cb)(struct coordinator_delete *req);
    void *arg;
    enum kafka_error error;
    void *impl;
};
void coordinator_delete(struct coordinator *c, struct coordinator_delete *req);
/* Deletes single offsets: GROUP_ID_NOT_FOUND, NON_EMPTY_GROUP (members that are
 * not consumers); for one of them GROUP_SUBSCRIBED_TO_TOPIC. What was not
 * committed is deleted already. */
struct coordinator_offset_delete {
    int32_t index;
    struct text group_id;
    int n_offsets;
    struct coordinator_deleted_offset {
        struct text topic;
        int32_t partition;
        enum kafka_error error; /* out; may be preset (then skipped) */
    } * offsets;
    void (*cb)(struct coordinator_offset_delete *req);
    void *arg;
    enum kafka_error error;
    void *impl;
};
void coordinator_offset_delete(struct coordinator *c,
                               struct coordinator_offset_delete *req);
/* A topic was deleted: its offsets are dropped (tombstones by the leader). */
void coordinator_topic_deleted(struct coordinator *c, const char *topic);

#endif
