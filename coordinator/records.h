/* The records of __consumer_offsets, in Kafka's own formats (generated codec):
 * an offset commit, a classic group, and their tombstones. */
#ifndef COORDINATOR_RECORDS_H
#define COORDINATOR_RECORDS_H

#include "coordinator/coordinator.h"
#include "partition/batch.h"

struct group_record {
    struct text group_id, protocol_type, protocol, leader; /* null: n = -1 */
    int32_t generation;
    int64_t timestamp_ms;
    int n_members;
    const struct group_record_member {
        struct text member_id, instance_id, client_id, client_host;
        int32_t session_timeout_ms, rebalance_timeout_ms;
        struct blob subscription, assignment;
    } * members;
};

struct offset_record {
    struct text group_id, topic;
    int32_t partition;
    kafka_offset offset;
    int32_t leader_epoch;
    struct text metadata;
    int64_t commit_timestamp_ms;
};

/* Add a record to a batch; with `tombstone` the value is null. */
void records_add_group(struct batch_builder *b, int64_t now_ms,
                       const struct group_record *group, bool tombstone);
void records_add_offset(struct batch_builder *b, int64_t now_ms,
                        const struct offset_record *offset, bool tombstone);

/* What the records of a batch say, in order; views into the batch, valid
 * during the call. Records of other types are passed over, and those of a
 * known type that cannot be read: then ERR_CORRUPT at the end. */
struct records_reader {
    void *arg;
    void (*group)(void *arg, const struct group_record *group, bool tombstone);
    void (*offset)(void *arg, const struct offset_record *offset,
                   bool tombstone);
};
MUST_USE enum err records_read(const uint8_t *batch, size_t size,
                               const struct records_reader *reader);

#endif
