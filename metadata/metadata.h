/* The metadata Raft group of this broker: formation, registration, liveness,
 * and the admin changes, on shard 0. Any broker accepts a change; it is
 * decided by the leader of the metadata group (forwarded over the transport)
 * and answered when it is done. */
#ifndef METADATA_METADATA_H
#define METADATA_METADATA_H

#include "metadata/image.h"
#include "raft/transport.h"

struct metadata;

struct metadata_options {
    struct env *env;
    struct raft_host *host;      /* of shard 0 */
    struct transport *transport; /* of shard 0 */
    const char *dir;             /* of this broker: meta files lie here */
    node_id node;
    struct uuid directory;
    const char *seeds;        /* peer addresses, "h:p,h:p"; NULL, "" or
                               * only oneself: a cluster of one; at most
                               * LIMIT_SEEDS. The same on each, in any
                               * order, under any name. */
    const char *peer_address; /* own, as others reach it */
    const char *advertised_host;
    int32_t advertised_port;
    const char *listeners; /* every "NAME://host:port", with commas; NULL: one
                            * address for all */
    const char *rack;      /* NULL: none */
    uint32_t heartbeat_ms; /* broker to metadata leader, 200 */
    uint32_t session_ms;   /* fenced after this silence, 3000 */
    /* defaults of new topics */
    int32_t num_partitions;
    int16_t default_replication_factor;
    int32_t producer_id_block; /* 1000 */
};

/* What is told to the owner. `changed` and `applied` are already called inside
 * metadata_new for what is loaded at start; *out is set before that. */
struct metadata_ops {
    /* A committed entry was applied to the image of shard 0 (metadata_image);
     * the owner applies it to the other shards' copies. In order; also called
     * for what is replayed or loaded at start (as records of a dump, all with
     * the index of the whole). */
    void (*applied)(void *arg, log_index index, const uint8_t *record,
                    size_t size);
    void (*changed)(void *arg, const struct image_change *change);
    /* The cluster formed (or was known) and this broker is registered and has
     * applied its own registration: it may serve. */
    void (*ready)(void *arg);
    /* This broker must not run: refused by the cluster (another directory,
     * another cluster, ...). The sentence goes to the user, the process ends.
     */
    void (*refused)(void *arg, const char *sentence);
    /* Is this partition's leader known here better than recorded? May be NULL;
     * reserved, reports (metadata_report_leader) are what counts today. */
    bool (*local_leader)(void *arg, const struct group_id *group,
                         node_id *leader, int32_t *epoch);
};

/* Reads the identity of the directory (metadata/identity.h), opens the metadata
 * group when it is known, else begins to form a cluster. `host` and `transport`
 * carry this node id and directory id; whoever owns them asks identity_load for
 * the latter first. Blocking, for the start. An error was told to
 * ops->refused as a sentence: ERR_REFUSED (another node's directory, too many
 * seeds), ERR_LOST (the metadata log is gone), ERR_CORRUPT, ERR_IO. Once the
 * cluster is known the transport is given its id (transport_set_cluster); other
 * shards' transports are the owner's (IMAGE_CLUSTER, metadata_cluster_id). */
MUST_USE enum err metadata_new(const struct metadata_options *options,
                               const struct metadata_ops *ops, void *arg,
                               struct metadata **out);
/* This broker is being stopped: calls in flight, and those that still come, are
 * answered KAFKA_REQUEST_TIMED_OUT, since what they wait for may wait for this
 * broker. Twice is fine. */
void metadata_stop_calls(struct metadata *m);
/* After the host has closed the metadata group. Calls in flight are dropped
 * without their callback. */
void metadata_free(struct metadata *m);
/* For transport_ops.admit: may this broker talk to us? A broker that belongs to
 * no cluster yet may always (it asks how to form one); one that calls itself
 * by a known node id but has another directory is refused with a sentence. */
MUST_USE enum err metadata_admit(const struct metadata *m,
                                 const struct uuid *cluster, node_id node,
                                 const struct uuid *directory, char *why,
                                 size_t why_size);
/* For transport_ops.peer_up and peer_down of shard 0: who waits for a broker
 * need not wait for one that is gone. */
void metadata_peer_changed(struct metadata *m, node_id node);
/* Zero while it is not known. */
const struct uuid *metadata_cluster_id(const struct metadata *m);
const struct image *metadata_image(const struct metadata *m);
node_id metadata_leader(const struct metadata *m); /* -1: none known */
bool metadata_is_leader(const struct metadata *m);
/* Text for people: whom a forming cluster waits for; "" when formed. */
const char *metadata_waiting_for(const struct metadata *m);
struct group *metadata_group(const struct metadata *m);

/* ---- changes --------------------------------------------------------------*/
struct metadata_new_topic {
    const char *name;
    int32_t n_partitions;       /* -1: default */
    int16_t replication_factor; /* -1: default */
    int n_assignments;          /* manual: partition i of n */
    const struct metadata_assignment {
        int32_t partition;
        int n_nodes;
        const node_id *nodes;
    } * assignments;
    int n_configs;
    const struct image_config *configs;
    bool internal;
};
struct metadata_topic_result {
    enum kafka_error error;
    char message[256]; /* "" when there is none */
    struct uuid id;
    int32_t n_partitions;
    int16_t replication_factor;
};
/* The Raft group of the metadata, as its leader sees it. */
struct metadata_quorum {
    node_id leader; /* -1: not asked for */
    int32_t epoch;
    log_index committed; /* everything up to here is */
    int n_voters;
    struct metadata_voter {
        node_id node;
        struct uuid directory; /* zero: not registered */
        log_index end;         /* of its log, as far as is known */
        int64_t heard_ms;      /* wall clock; -1: never */
        int64_t caught_up_ms;  /* wall clock; -1: not known */
    } voters[GROUP_REPLICAS_MAX];
};
/* One call in flight; the caller owns it and what it points to until cb. cb
 * never comes inside the call. */
struct metadata_call {
    void (*cb)(struct metadata_call *call);
    void *arg;
    /* out */
    enum kafka_error error; /* of the call as a whole: NONE,
                             * REQUEST_TIMED_OUT, NOT_CONTROLLER... */
    int n_results;
    struct metadata_topic_result *results; /* one per item, owned by the call,
                                            * freed after cb returns */
    int64_t first_id;                      /* metadata_allocate_producer_ids */
    struct metadata_quorum quorum;         /* metadata_sync */
    char sentence[256];                    /* metadata_unregister: why not */
    /* private */
    void *impl;
};
/* Creates topics; answered when each is usable on every live broker (its
 * leaders elected and known there), or the time-out passed. */
void metadata_create_topics(struct metadata *m,
                            const struct metadata_new_topic *topics, int n,
                            bool validate_only, uint32_t timeout_ms,
                            struct metadata_call *call);
/* By name, or by id where the name is NULL. */
struct metadata_topic_ref {
    const char *name;
    struct uuid id;
};
void metadata_delete_topics(struct metadata *m,
                            const struct metadata_topic_ref *topics, int n,
                            uint32_t timeout_ms, struct metadata_call *call);
struct metadata_more_partitions {
    const char *name;
    int32_t count; /* new total */
    int n_assignments;
    const struct metadata_assignment *assignments;
};
void metadata_create_partitions(struct metadata *m,
                                const struct metadata_more_partitions *topics,
                                int n, bool validate_only, uint32_t timeout_ms,
                                struct metadata_call *call);
/* Sets (value) or removes (NULL) overrides of a topic, else of a group or
 * clients (`resource` of `scope`), else of a broker (node >= 0, -1 the
 * cluster-wide default). */
struct metadata_config_change {
    const char *topic;
    const char *resource;
    enum config_scope scope; /* with a resource: CONFIG_GROUP, CONFIG_CLIENT */
    node_id node;
    int n_configs;
    const struct image_config *configs;
};
void metadata_alter_configs(struct metadata *m,
                            const struct metadata_config_change *changes, int n,
                            bool validate_only, uint32_t timeout_ms,
                            struct metadata_call *call);
/* A block of `producer_id_block` ids that nobody else gets. */
void metadata_allocate_producer_ids(struct metadata *m, uint32_t timeout_ms,
                                    struct metadata_call *call);
/* Forgets a broker that does not run: BROKER_ID_NOT_REGISTERED, or
 * INVALID_REQUEST of one that is live. It may come back and register anew. */
void metadata_unregister(struct metadata *m, node_id node, uint32_t timeout_ms,
                         struct metadata_call *call);
/* This broker's partition leads now (or lost its leader): reported to the
 * metadata leader in batches. Fire and forget; repeated until recorded. */
void metadata_report_leader(struct metadata *m, const struct group_id *group,
                            node_id leader, int32_t epoch);
/* Calls back when the image's version is at least what the metadata leader
 * has committed now (an unknown topic is looked up this way before it is
 * called unknown); and tells what that leader knows of the quorum. */
void metadata_sync(struct metadata *m, uint32_t timeout_ms,
                   struct metadata_call *call);

#endif
