/* The cluster's metadata as every broker holds it: brokers, topics,
 * configuration, leadership; versioned by the index of the metadata log entry
 * last applied. A pure state machine: image_apply of the same records gives
 * the same image everywhere; each shard has a copy of its own, const to
 * readers. */
#ifndef METADATA_IMAGE_H
#define METADATA_IMAGE_H

#include "base/kafka_error.h"
#include "raft/group.h"

#define TOPIC_NAME_MAX 249
/* Kafka's rule: [a-zA-Z0-9._-]{1,249}, neither "." nor "..". */
bool topic_name_is_valid(const char *name, size_t size);

struct image_broker {
    node_id node;
    struct uuid directory;
    char *host; /* advertised to clients */
    int32_t port;
    char *peer_address; /* "host:port" of the peer listener */
    char *rack;         /* NULL: none */
    char *listeners;    /* of every listener "NAME://host:port", with commas;
                         * NULL: host and port are for all */
    bool live;          /* false: fenced (no heartbeat) */
    uint64_t epoch;     /* index of its newest registration */
};

struct image_partition {
    int n_replicas;
    struct group_replica
        replicas[GROUP_REPLICAS_MAX]; /* first: preferred leader */
    node_id leader;                   /* as recorded; -1 none */
    int32_t leader_epoch;             /* never goes back */
};

struct image_config {
    char *name;
    char *value;
};

/* What a configuration is of. */
enum config_scope { CONFIG_TOPIC, CONFIG_BROKER, CONFIG_GROUP, CONFIG_CLIENT };

/* A group, or clients (metadata/quota.h says how they are named), that
 * something is set for. */
struct image_resource {
    enum config_scope scope; /* CONFIG_GROUP, CONFIG_CLIENT */
    char *name;
    int n_configs;
    struct image_config *configs; /* at least one, sorted by name */
};

struct image_topic {
    struct uuid id;
    char *name;
    bool internal;
    int32_t n_partitions;
    struct image_partition *partitions;
    int n_configs;
    struct image_config *configs; /* overrides only, sorted by name */
};

struct image;
struct image *image_new(void);
void image_free(struct image *image);

/* What one record changed; pointers into the image, valid during the call. */
enum image_change_kind {
    IMAGE_CLUSTER,
    IMAGE_BROKER,
    IMAGE_TOPIC_CREATED,
    IMAGE_TOPIC_DELETED,
    IMAGE_PARTITIONS_ADDED,
    IMAGE_TOPIC_CONFIG,
    IMAGE_BROKER_CONFIG,
    IMAGE_LEADER
};
struct image_change {
    enum image_change_kind kind;
    const struct image_broker *broker; /* BROKER: NULL of one that is gone */
    node_id node;                      /* BROKER: whose */
    const struct image_topic *topic;   /* deleted: still readable in the call */
    int32_t partition; /* LEADER; PARTITIONS_ADDED: first new one */
};
typedef void (*image_change_fn)(void *arg, const struct image_change *change);
/* Applies one committed entry of the metadata log (a batch of records). Never
 * fails on what the leader proposed; ERR_CORRUPT on malformed bytes. */
MUST_USE enum err image_apply(struct image *image, log_index index,
                              const uint8_t *record, size_t size,
                              image_change_fn changed, void *arg);
/* The whole image as records that rebuild it (snapshot). */
void image_dump(const struct image *image,
                void (*each)(void *arg, const uint8_t *record, size_t size),
                void *arg);

log_index image_version(const struct image *image);
const struct uuid *image_cluster_id(const struct image *image);
/* Brokers sorted by node id; topics sorted by name. */
int image_brokers(const struct image *image,
                  const struct image_broker *const **out);
const struct image_broker *image_broker(const struct image *image,
                                        node_id node);
/* Where clients that came by this listener reach the broker; the first address
 * if it advertises none for it. `host` points into the broker's text, without
 * brackets, and is `host_size` long. */
void image_broker_address(const struct image_broker *broker,
                          const char *listener, const char **host,
                          int32_t *host_size, int32_t *port);
int image_topics(const struct image *image,
                 const struct image_topic *const **out);
const struct image_topic *image_topic(const struct image *image,
                                      const char *name, size_t n);
const struct image_topic *image_topic_by_id(const struct image *image,
                                            const struct uuid *id);
const char *image_topic_config(const struct image_topic *topic,
                               const char *name);
/* Cluster-wide (node -1) and per-broker dynamic configuration overrides. */
const char *image_broker_config(const struct image *image, node_id node,
                                const char *name);

/* Next in the list of cluster-wide (node -1) or a broker's overrides; names
 * sorted. How many there are. */
int image_broker_configs(const struct image *image, node_id node,
                         const struct image_config **out);
/* All of one scope (CONFIG_GROUP, CONFIG_CLIENT), sorted by name; how many. */
int image_resources(const struct image *image, enum config_scope scope,
                    const struct image_resource **out);
/* One of them; NULL: nothing is set for it. */
const struct image_resource *image_resource(const struct image *image,
                                            enum config_scope scope,
                                            const char *name);
/* What is set for it; NULL: nothing. */
const char *image_resource_config(const struct image *image,
                                  enum config_scope scope, const char *name,
                                  const char *key);
/* The next replica id to give out; ids below were given, even if their topic
 * is gone. */
replica_id image_next_replica(const struct image *image);
int64_t image_next_producer_id(const struct image *image);
/* What a change with this request id was answered, when it is remembered:
 * the index of its entry (0: not known) and the answer's bytes. */
log_index image_request(const struct image *image, const struct uuid *request,
                        const uint8_t **answer, uint32_t *size);

#endif
