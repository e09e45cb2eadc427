/* What only the metadata leader decides. Each function is pure: from the image
 * and a change it makes the records that carry the change out and the answer
 * for each item; nothing is changed before the records are committed and
 * applied. An item that is refused adds no records and hinders no other. */
#ifndef METADATA_DECIDE_H
#define METADATA_DECIDE_H

#include "base/prng.h"
#include "metadata/change.h"
#include "metadata/placement.h"

struct decide {
    /* in */
    const struct image *image;
    struct prng *random;    /* ids of new topics */
    int32_t num_partitions; /* where a topic says -1 */
    int16_t replication_factor;
    /* Registered brokers, sorted by node, with what they hold (placement);
     * NULL when no change so far needed them. Owned, decide_free. */
    struct placement_broker *brokers;
    int n_brokers;
    bool (*usable)(void *arg, const struct image_broker *broker);
    void *usable_arg;
    int n_new_resources; /* groups and clients new in this change */
    /* out */
    struct buffer records; /* a batch; empty: nothing changes */
    struct change_answer answer;
    replica_id next_replica;
};

/* Zeroes `d` but for what is given; free with decide_free. */
void decide_init(struct decide *d, const struct image *image,
                 struct prng *random);
void decide_free(struct decide *d);
/* Any change but CHANGE_SYNC, by its kind. */
void decide_change(struct decide *d, const struct change *change);
/* Says what is wrong with an item. */
void decide_refuse(struct metadata_topic_result *result, enum kafka_error error,
                   const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The batch to add records to: begun when it is empty. */
struct buffer *decide_records(struct decide *d);

/* topic.c */
void decide_create_topics(struct decide *d, const struct change *change);
void decide_delete_topics(struct decide *d, const struct change *change);
void decide_create_partitions(struct decide *d, const struct change *change);
/* config.c */
void decide_alter_configs(struct decide *d, const struct change *change);
/* Checks overrides of a topic that is to be made. ERR_INVALID: `result` says
 * why. */
MUST_USE enum err decide_check_topic_configs(
    const struct image_config *configs, int n,
    struct metadata_topic_result *result);
/* broker.c */
void decide_register(struct decide *d, const struct change *change);
void decide_unregister(struct decide *d, const struct change *change);
/* producer ids, broker.c */
void decide_producer_ids(struct decide *d, const struct change *change);

/* The group of a new cluster gets its first record. */
void decide_cluster(struct decide *d, const struct uuid *cluster);

#endif
