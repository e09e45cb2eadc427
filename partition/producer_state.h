/* What a partition knows of its idempotent producers: a pure function of the
 * log. Two layers: `applied`, of committed batches, the same on every replica;
 * `appended`, the same with the batches that are in the local log but not yet
 * applied, which is what a new batch is judged by (clients keep five requests
 * in flight). Truncation throws the second layer away; the owner appends what
 * is left again. Source: PROTOCOL.md 3.4; KIP-98, KIP-360. */
#ifndef PARTITION_PRODUCER_STATE_H
#define PARTITION_PRODUCER_STATE_H

#include "base/buffer.h"
#include "partition/batch.h"

/* Batches of one producer that are remembered to recognise what is sent again:
 * as many as clients may have in flight. */
#define PRODUCER_BATCHES 5

struct producer_batch {
    int32_t first_sequence, last_sequence;
    int32_t offset_delta; /* last offset - base offset */
    kafka_offset last_offset;
    int64_t timestamp; /* the batch's maximum */
};

struct producers; /* of one partition */
struct producers *producers_new(void);
void producers_free(struct producers *ps);
size_t producers_count(const struct producers *ps);

/* Has this producer anything in the log, appended or applied? */
bool producers_known(const struct producers *ps, int64_t producer_id);

/* Decides on a batch with a producer id, against everything appended.
 * KAFKA_NONE: may be appended; KAFKA_DUPLICATE_SEQUENCE_NUMBER: it is
 * `*original`, sent again; INVALID_PRODUCER_EPOCH, OUT_OF_ORDER_SEQUENCE_NUMBER
 * are answers. */
enum kafka_error producers_check(const struct producers *ps,
                                 const struct batch_header *header,
                                 struct producer_batch *original);
/* The batch is in the log at header->base_offset. Batches without producer id
 * are ignored here and below. */
void producers_append(struct producers *ps, const struct batch_header *header);
/* The oldest appended batch is applied; `now_ms` is this broker's clock, used
 * only to propose expiry. */
void producers_apply(struct producers *ps, const struct batch_header *header,
                     uint64_t now_ms);
/* Forgets everything appended that is not applied. */
void producers_truncate(struct producers *ps);

/* ---- expiry: proposed by the leader, applied by all ---------------------- */
struct producer_expiry {
    int64_t producer_id;
    kafka_offset last_offset; /* a later batch keeps the producer alive */
};
/* Up to `max` producers with nothing pending and not seen since `before_ms` of
 * producers_apply's clock. */
size_t producers_expired(const struct producers *ps, uint64_t before_ms,
                         struct producer_expiry *out, size_t max);
void producers_expire(struct producers *ps, const struct producer_expiry *e);

/* ---- snapshots of the applied layer -------------------------------------- */
/* Appends the bytes: version, count, producers, CRC; big-endian. */
void producers_save(const struct producers *ps, struct buffer *out);
/* Fills an empty state. ERR_CORRUPT: damaged; the state is then empty. */
MUST_USE enum err producers_load(struct producers *ps, const uint8_t *data,
                                 size_t size, uint64_t now_ms);

/* For inspection: calls `each` for every producer of the applied layer, in the
 * order they came. */
void producers_each(const struct producers *ps,
                    void (*each)(void *arg, int64_t producer_id, int16_t epoch,
                                 const struct producer_batch *last),
                    void *arg);

#endif
