/* One handler per API, and the few things they share. A handler decodes the
 * request, works on the shards that own what it names, and answers once. */
#ifndef NET_API_API_H
#define NET_API_API_H

#include "net/request.h"
#include "net/shard.h"

void api_produce(struct request *rq);
void api_fetch(struct request *rq);
void api_list_offsets(struct request *rq);
void api_metadata(struct request *rq);
void api_api_versions(struct request *rq);
void api_offset_for_leader_epoch(struct request *rq);
void api_create_topics(struct request *rq);
void api_delete_topics(struct request *rq);
void api_create_partitions(struct request *rq);
void api_describe_configs(struct request *rq);
void api_alter_configs(struct request *rq);
void api_incremental_alter_configs(struct request *rq);
void api_describe_cluster(struct request *rq);
void api_find_coordinator(struct request *rq);
void api_init_producer_id(struct request *rq);
void api_join_group(struct request *rq);
void api_sync_group(struct request *rq);
void api_heartbeat(struct request *rq);
void api_leave_group(struct request *rq);
void api_offset_commit(struct request *rq);
void api_offset_fetch(struct request *rq);
void api_describe_groups(struct request *rq);
void api_list_groups(struct request *rq);
void api_delete_groups(struct request *rq);

void api_delete_records(struct request *rq);
void api_describe_producers(struct request *rq);
void api_describe_log_dirs(struct request *rq);
void api_alter_replica_log_dirs(struct request *rq);
void api_describe_topic_partitions(struct request *rq);
void api_list_config_resources(struct request *rq);
void api_describe_acls(struct request *rq);
void api_create_acls(struct request *rq);
void api_delete_acls(struct request *rq);
void api_describe_quorum(struct request *rq);
void api_elect_leaders(struct request *rq);
void api_alter_partition_reassignments(struct request *rq);
void api_list_partition_reassignments(struct request *rq);
void api_describe_client_quotas(struct request *rq);
void api_alter_client_quotas(struct request *rq);
void api_offset_delete(struct request *rq);
void api_describe_user_scram_credentials(struct request *rq);
void api_unregister_broker(struct request *rq);

/* Kinds of resources that have a configuration. */
enum api_resource {
    API_RESOURCE_TOPIC = 2,
    API_RESOURCE_BROKER = 4,
    API_RESOURCE_BROKER_LOGGER = 8,
    API_RESOURCE_CLIENT_METRICS = 16,
    API_RESOURCE_GROUP = 32
};

/* Zeroed memory that lives as long as the request. */
void *api_alloc(struct request *rq, size_t count, size_t size);
/* A NUL-terminated copy of a text of the wire, and the other way round. */
char *api_cstr(struct request *rq, struct wire_str s);
struct wire_str api_copy(struct request *rq, const char *s);
static inline struct text api_text(struct wire_str s)
{
    return (struct text){.p = s.p, .n = s.n};
}
static inline struct wire_str api_wire(struct text s)
{
    return (struct wire_str){.p = s.p, .n = s.n};
}

/* The topic by name, or by id where the id is not zero. Gives NONE and the
 * topic, UNKNOWN_TOPIC_OR_PARTITION or UNKNOWN_TOPIC_ID. */
enum kafka_error api_find_topic(const struct broker_shard *s,
                                struct wire_str name, const struct uuid *id,
                                const struct image_topic **topic);
/* The same with one of its partitions: also UNKNOWN_TOPIC_OR_PARTITION when it
 * has no such. */
enum kafka_error api_find_partition(const struct broker_shard *s,
                                    struct wire_str name, const struct uuid *id,
                                    int32_t partition,
                                    const struct image_topic **topic);
/* Kafka's rule for topic names. */
bool api_topic_name_valid(struct wire_str name);
/* A topic that has a configuration: NONE, INVALID_TOPIC_EXCEPTION,
 * UNKNOWN_TOPIC_OR_PARTITION. */
enum kafka_error api_topic_resource(const struct broker_shard *s,
                                    struct wire_str name);
/* What may be done to a topic where nothing is forbidden: a bit each. */
#define API_TOPIC_OPERATIONS 3576
/* A partition as Metadata and DescribeTopicPartitions tell of it; the lists
 * live as long as the request. */
struct api_partition_state {
    enum kafka_error error; /* LEADER_NOT_AVAILABLE, or NONE */
    node_id leader;         /* -1: none */
    int32_t leader_epoch;
    int32_t *replicas, *isr, *offline;
    int n_replicas, n_isr, n_offline;
};
void api_partition_state(struct request *rq, const struct image_topic *topic,
                         int32_t index, struct api_partition_state *out);
/* Where the client of this request reaches a broker: its address for the
 * listener that the client came by. The text lives as long as the request. */
struct api_address {
    struct wire_str host;
    int32_t port;
};
struct api_address api_address_of(struct request *rq,
                                  const struct image_broker *broker);
/* The broker by its number; false when unknown. */
bool api_endpoint(const struct broker_shard *s, node_id node,
                  const struct image_broker **out);

/* Who leads a partition instead, for answers that say so (KIP-951). */
struct api_leader {
    node_id node;
    int32_t epoch;
    const struct image_broker *broker; /* of the shard's image */
};
/* False when no leader is known, or not how clients reach it. */
bool api_leader_hint(const struct broker_shard *s, const struct group_id *id,
                     struct api_leader *out);
/* A timeout as a client gave it; below zero is none at all. */
uint32_t api_timeout_ms(int32_t given);

/* Calls `then` on shard 0's thread, later `back` at home: for everything that
 * goes through the metadata. */
struct api_metadata_step {
    struct shard_task task;
    struct request *rq;
    void (*then)(struct api_metadata_step *step, struct metadata *m);
    void (*back)(struct api_metadata_step *step);
    struct metadata_call call;
    struct arena arena; /* what shard 0 adds to the request's */
    /* copied at the end of the call, so that they outlive it */
    struct metadata_topic_result *results;
    int n_results;
};
void api_metadata_begin(struct request *rq, struct api_metadata_step *step);
/* Back at home: what came of item i, as clients are told; *message: null when
 * there is nothing to say. */
int16_t api_metadata_result(const struct api_metadata_step *step, int i,
                            struct wire_str *message);
/* To be given as call->cb: copies the results and goes home. */
void api_metadata_done(struct metadata_call *call);

#endif
