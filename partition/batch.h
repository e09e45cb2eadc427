/* Kafka's record batch, magic 2, as it travels and as segments hold it. Pure
 * functions over bytes; nothing here allocates but the reader of compressed
 * records and the builder.
 *
 *   offset size  field                  in the CRC
 *        0    8  base offset            no   set at append
 *        8    4  length after this      no
 *       12    4  leader epoch           no   set at append
 *       16    1  magic, 2               no
 *       17    4  CRC-32C of 21..end     no
 *       21    2  attributes             yes  0-2 codec, 3 append time,
 *                                            4 transactional, 5 control,
 *                                            6 delete horizon
 *       23    4  last offset delta      yes
 *       27    8  base timestamp         yes
 *       35    8  max timestamp          yes
 *       43    8  producer id, -1 none   yes
 *       51    2  producer epoch         yes
 *       53    4  base sequence, -1      yes
 *       57    4  record count           yes
 *       61       records, one compressed section
 *
 * Source: PROTOCOL.md section 2. */
#ifndef PARTITION_BATCH_H
#define PARTITION_BATCH_H

#include <stdbool.h>

#include "base/kafka_error.h"
#include "base/types.h"
#include "partition/compress.h"

#define BATCH_HEADER_SIZE 61
#define BATCH_LOG_OVERHEAD 12 /* base offset and length */
#define BATCH_CRC_FROM 21     /* first byte the CRC covers */
#define BATCH_MAGIC 2

#define BATCH_CODEC_MASK 0x07
#define BATCH_APPEND_TIME 0x08
#define BATCH_TRANSACTIONAL 0x10
#define BATCH_CONTROL 0x20
#define BATCH_DELETE_HORIZON 0x40

struct batch_header {
    kafka_offset base_offset;
    int32_t length; /* bytes after the length field */
    int32_t leader_epoch;
    int8_t magic;
    uint32_t crc;
    int16_t attributes;
    int32_t last_offset_delta;
    int64_t base_timestamp, max_timestamp;
    int64_t producer_id;
    int16_t producer_epoch;
    int32_t base_sequence;
    int32_t record_count;
};

/* Reads the 61 bytes. ERR_INVALID when `size` is below 61 or the length field
 * is below 49 (or, counted with its 12 bytes, does not fit an int32); nothing
 * else is checked. */
MUST_USE enum err batch_header_read(const uint8_t *data, size_t size,
                                    struct batch_header *out);
/* Writes all fields back into 61 bytes, the CRC as the struct has it. */
void batch_header_write(const struct batch_header *header, uint8_t *data);

static inline size_t batch_size(const struct batch_header *header)
{
    return (size_t)header->length + BATCH_LOG_OVERHEAD;
}
static inline int batch_codec(const struct batch_header *header)
{
    return header->attributes & BATCH_CODEC_MASK;
}
static inline kafka_offset batch_last_offset(const struct batch_header *header)
{
    return (kafka_offset){header->base_offset.v + header->last_offset_delta};
}
/* Sequences wrap from 2^31-1 to 0. */
static inline int32_t sequence_add(int32_t sequence, int32_t n)
{
    return (int32_t)(((uint32_t)sequence + (uint32_t)n) & INT32_MAX);
}

/* The CRC over bytes 21..size; `size` >= 61. */
uint32_t batch_crc(const uint8_t *batch, size_t size);
/* A whole batch of exactly `size` bytes whose CRC is right? For bytes that
 * come from a file or a peer. */
bool batch_is_whole(const uint8_t *batch, size_t size);

/* ---- validation at produce ----------------------------------------------- */
struct batch_limits {
    int32_t max_message_bytes; /* of the batch with its 12 bytes */
    int32_t segment_bytes;
    bool needs_keys;  /* the topic is compacted */
    bool append_time; /* LogAppendTime: client's timestamps do not matter */
    int64_t timestamp_before_max_ms, timestamp_after_max_ms;
    int64_t now_ms;      /* wall clock */
    int16_t api_version; /* of Produce; below 7 there is no zstd */
};

struct batch_verdict {
    enum kafka_error error;
    const char *message;   /* static; NULL without error */
    int32_t bad_record;    /* index within the batch; -1: none */
    int64_t max_timestamp; /* the true one where records were walked */
    struct batch_header header;
};

/* Decides whether a client's batch may be appended, exactly once per batch,
 * with one pass of CRC. Uncompressed records are walked; compressed ones only
 * where keys are needed, decompressed to at most LIMIT_BATCH_PLAIN. */
void batch_validate(const uint8_t *batch, size_t size,
                    const struct batch_limits *limits,
                    struct batch_verdict *out);

/* The records that batch_validate, having refused the batch for a record of it
 * (bad_record >= 0), would refuse one by one: their indexes, ascending, the
 * first `max` of them into `out`. Gives how many there are. */
int32_t batch_bad_records(const uint8_t *batch, size_t size,
                          const struct batch_limits *limits, int32_t *out,
                          int32_t max);

/* Writes into `header` (61 bytes) the batch's header as it will be stored:
 * base offset and leader epoch, and when `append_time_ms` >= 0 the
 * LogAppendTime bit, that maximum timestamp and the CRC made new; else when
 * `max_timestamp` differs from the batch's, that and the CRC. The records are
 * not changed. `batch` was validated. */
void batch_stamp(const uint8_t *batch, size_t size, kafka_offset base_offset,
                 int32_t leader_epoch, int64_t append_time_ms,
                 int64_t max_timestamp, uint8_t header[BATCH_HEADER_SIZE]);

/* ---- records ------------------------------------------------------------- */
struct batch_record {
    int64_t timestamp; /* absolute; the batch's max with LogAppendTime */
    int32_t offset_delta;
    const uint8_t *key; /* NULL: null */
    int32_t key_size;   /* -1: null */
    const uint8_t *value;
    int32_t value_size; /* -1: null */
    int32_t n_headers;
    const uint8_t *headers; /* as encoded: batch_record_header reads them */
    size_t headers_size;
};

struct batch_records {
    struct batch_header header;
    enum err status; /* after _next gave false: ERR_OK at the true end */
    /* private */
    const uint8_t *at, *end;
    int32_t left;
    struct buffer plain;
};

/* Begins to read the records of a whole batch, decompressing to at most
 * `limit` bytes. `batch` must live as long as the reader. Always followed by
 * batch_records_close. ERR_INVALID, ERR_TOO_LARGE, ERR_UNSUPPORTED. */
MUST_USE enum err batch_records_open(struct batch_records *r,
                                     const uint8_t *batch, size_t size,
                                     size_t limit);
/* The next record; false at the end or when the bytes are malformed. What it
 * points to lives as long as the reader and the batch. */
bool batch_records_next(struct batch_records *r, struct batch_record *out);
void batch_records_close(struct batch_records *r);

struct record_header {
    const uint8_t *key; /* never null */
    int32_t key_size;
    const uint8_t *value;
    int32_t value_size; /* -1: null */
};
/* The header at *at (begin with record->headers), moved behind it; false at
 * the end. The headers were checked when the record was read. */
bool batch_record_header(const struct batch_record *record, const uint8_t **at,
                         struct record_header *out);

/* ---- building ------------------------------------------------------------ */
/* All zero but `codec` and the producer's fields is ready; or _init. */
struct batch_builder {
    enum batch_codec codec;
    int64_t producer_id; /* -1: none */
    int16_t producer_epoch;
    int32_t base_sequence;
    int16_t attributes; /* more bits: control, transactional */
    /* private */
    struct buffer records;
    struct buffer out;
    int32_t count;
    int64_t base_timestamp, max_timestamp;
};

void batch_builder_init(struct batch_builder *b, enum batch_codec codec);
void batch_builder_free(struct batch_builder *b);
/* Adds a record; size -1 is null. Everything is copied. */
void batch_builder_add(struct batch_builder *b, int64_t timestamp_ms,
                       const void *key, int32_t key_size, const void *value,
                       int32_t value_size, const struct record_header *headers,
                       int32_t n_headers);
/* Bytes of records so far, not compressed. */
size_t batch_builder_bytes(const struct batch_builder *b);
/* The finished batch, base offset 0, leader epoch -1; lives in the builder
 * until the next call on it. The builder begins anew with the next add. At
 * least one record was added. */
MUST_USE enum err batch_builder_finish(struct batch_builder *b,
                                       const uint8_t **batch, size_t *size);

/* ---- taking records out -------------------------------------------------- */
/* A batch made of some records of another: offsets, sequences, producer,
 * leader epoch, codec and kind of timestamp stay; what the records make true
 * (count, maximum timestamp, CRC) is new. All zero is ready. */
struct batch_rewriter {
    /* private */
    struct batch_header header;
    int64_t newest;
    struct buffer records, out;
};

/* Begins with the original's header. `horizon` >= 0 is written in as the time
 * from which tombstones of the batch may go (bit 6; the base timestamp then is
 * this time, and the records' count from it); -1: as the original has it. */
void batch_rewrite_begin(struct batch_rewriter *w,
                         const struct batch_header *original, int64_t horizon);
/* Keeps this record of the original. False: its timestamp cannot be told from
 * the new base; the batch must stay as it is. */
MUST_USE bool batch_rewrite_keep(struct batch_rewriter *w,
                                 const struct batch_record *record);
/* The new batch, which may hold no record; lives until the next begin. */
MUST_USE enum err batch_rewrite_finish(struct batch_rewriter *w,
                                       const uint8_t **batch, size_t *size);
void batch_rewriter_free(struct batch_rewriter *w);

#endif
