/* The records of the metadata log: what an entry of the metadata group holds.
 *
 * An entry is a batch: one byte of format (1), then records until its end.
 * A record is one byte of type, four of size, and a body of that size.
 * Integers are in network order; a text is two bytes of length (65535: null)
 * and its bytes; a uuid is 16 raw bytes; a boolean is one byte, 0 or 1.
 *
 *  1 CLUSTER       uuid cluster
 *  2 BROKER        i32 node, uuid directory, text host, i32 port, text peer
 *                  address, text rack (or null), bool live, u64 epoch (0: the
 *                  index of the entry)
 *  3 BROKER_LIVE   i32 node, u64 epoch, bool live; only of that epoch
 *  4 TOPIC         uuid id, text name, bool internal, partitions, configs
 *  5 TOPIC_DELETED uuid id
 *  6 PARTITIONS    uuid id, i32 first, partitions
 *  7 TOPIC_CONFIG  uuid id, text name, text value (null: removed)
 *  8 BROKER_CONFIG i32 node (-1: all), text name, text value (null: removed)
 *  9 LEADER        uuid id, i32 partition, i32 leader, i32 epoch
 * 10 COUNTERS      u64 next replica id, u64 next producer id; never back
 * 11 REQUEST       uuid request, u64 index (0: of the entry), blob answer
 * 12 DUMP_BEGIN    -: what the dump does not name is gone at its end
 * 13 DUMP_END      -
 * 14 BROKER_LISTENERS i32 node, text listeners; behind its BROKER
 * 15 BROKER_GONE   i32 node, u64 epoch; only of that epoch
 * 16 CONFIG        u8 scope (2 group, 3 client), text resource, text name,
 *                  text value (null: removed)
 *
 * partitions: u32 count; each: u8 count of replicas, each u64 id and i32
 * node; i32 leader, i32 epoch. configs: u32 count; each text name, text value.
 *
 * A change of a body takes a new type; an unknown type or format is an error,
 * never skipped, for a replica that skips has another state than the others. */
#ifndef METADATA_RECORD_H
#define METADATA_RECORD_H

#include "base/buffer.h"
#include "metadata/codec.h"
#include "metadata/image.h"

#define RECORD_FORMAT 1

enum record_type {
    RECORD_CLUSTER = 1,
    RECORD_BROKER = 2,
    RECORD_BROKER_LIVE = 3,
    RECORD_TOPIC = 4,
    RECORD_TOPIC_DELETED = 5,
    RECORD_PARTITIONS = 6,
    RECORD_TOPIC_CONFIG = 7,
    RECORD_BROKER_CONFIG = 8,
    RECORD_LEADER = 9,
    RECORD_COUNTERS = 10,
    RECORD_REQUEST = 11,
    RECORD_DUMP_BEGIN = 12,
    RECORD_DUMP_END = 13,
    RECORD_BROKER_LISTENERS = 14,
    RECORD_BROKER_GONE = 15,
    RECORD_CONFIG = 16
};

struct record_config {
    struct text name;
    struct text value;
};

/* A decoded record; texts point into its bytes. */
struct record {
    enum record_type type;
    union {
        struct uuid cluster;
        struct {
            node_id node;
            struct uuid directory;
            struct text host, peer_address, rack;
            int32_t port;
            bool live;
            uint64_t epoch;
        } broker; /* BROKER_LIVE: node, epoch and live; GONE: the first two */
        struct {
            node_id node;
            struct text listeners;
        } listeners;
        struct {
            struct uuid id;
            struct text name;
            bool internal;
            int32_t first; /* PARTITIONS */
            int32_t n_partitions;
            struct image_partition *partitions; /* owned */
            int n_configs;
            struct record_config *configs; /* owned */
        } topic; /* PARTITIONS: id, first, partitions; DELETED: id */
        struct {
            struct uuid topic;
            node_id node;
            enum config_scope scope; /* CONFIG alone has it, */
            struct text resource;    /* and this */
            struct text name, value;
        } config;
        struct {
            struct uuid topic;
            int32_t partition;
            node_id leader;
            int32_t epoch;
        } leader;
        struct {
            uint64_t next_replica;
            uint64_t next_producer;
        } counters;
        struct {
            struct uuid id;
            uint64_t index;
            const uint8_t *answer;
            uint32_t size;
        } request;
    } u;
};

/* ---- writing: each appends one record to a batch ------------------------- */
/* Must come first: writes the format byte. */
void record_batch_begin(struct buffer *b);
void record_put_cluster(struct buffer *b, const struct uuid *cluster);
void record_put_broker(struct buffer *b, const struct image_broker *broker);
void record_put_broker_live(struct buffer *b, node_id node, uint64_t epoch,
                            bool live);
void record_put_broker_listeners(struct buffer *b,
                                 const struct image_broker *broker);
void record_put_broker_gone(struct buffer *b, node_id node, uint64_t epoch);
void record_put_topic(struct buffer *b, const struct image_topic *topic);
void record_put_topic_deleted(struct buffer *b, const struct uuid *id);
void record_put_partitions(struct buffer *b, const struct uuid *id,
                           int32_t first, int32_t n,
                           const struct image_partition *partitions);
void record_put_topic_config(struct buffer *b, const struct uuid *id,
                             const char *name, const char *value);
void record_put_broker_config(struct buffer *b, node_id node, const char *name,
                              const char *value);
void record_put_config(struct buffer *b, enum config_scope scope,
                       const char *resource, const char *name,
                       const char *value);
void record_put_leader(struct buffer *b, const struct uuid *topic,
                       int32_t partition, node_id leader, int32_t epoch);
void record_put_counters(struct buffer *b, uint64_t next_replica,
                         uint64_t next_producer);
void record_put_request(struct buffer *b, const struct uuid *id, uint64_t index,
                        const void *answer, uint32_t size);
void record_put_dump_begin(struct buffer *b);
void record_put_dump_end(struct buffer *b);

/* ---- reading ------------------------------------------------------------- */
/* Goes behind the format byte. ERR_CORRUPT. */
MUST_USE enum err record_batch_open(struct reader *r, const uint8_t *batch,
                                    size_t size);
/* Takes the next record; record_free is the caller's when ERR_OK. All of it is
 * checked that can be without an image. ERR_CORRUPT. */
MUST_USE enum err record_next(struct reader *r, struct record *out);
void record_free(struct record *record);

#endif
