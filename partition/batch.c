#include "partition/batch.h"

#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/limits.h"
#include "partition/bytes.h"

_Static_assert(BATCH_HEADER_SIZE == 57 + 4, "header ends with the count");
#define LENGTH_MIN (BATCH_HEADER_SIZE - BATCH_LOG_OVERHEAD)

enum err batch_header_read(const uint8_t *data, size_t size,
                           struct batch_header *out)
{
    if (size < BATCH_HEADER_SIZE) {
        return ERR_INVALID;
    }
    out->base_offset.v = get_i64(data);
    out->length = get_i32(data + 8);
    out->leader_epoch = get_i32(data + 12);
    out->magic = (int8_t)data[16];
    out->crc = get_u32(data + 17);
    out->attributes = get_i16(data + 21);
    out->last_offset_delta = get_i32(data + 23);
    out->base_timestamp = get_i64(data + 27);
    out->max_timestamp = get_i64(data + 35);
    out->producer_id = get_i64(data + 43);
    out->producer_epoch = get_i16(data + 51);
    out->base_sequence = get_i32(data + 53);
    out->record_count = get_i32(data + 57);
    if (out->length < LENGTH_MIN ||
        out->length > INT32_MAX - BATCH_LOG_OVERHEAD) {
        return ERR_INVALID;
    }
    return ERR_OK;
}

void batch_header_write(const struct batch_header *h, uint8_t *data)
{
    put_i64(data, h->base_offset.v);
    put_i32(data + 8, h->length);
    put_i32(data + 12, h->leader_epoch);
    data[16] = (uint8_t)h->magic;
    put_u32(data + 17, h->crc);
    put_i16(data + 21, h->attributes);
    put_i32(data + 23, h->last_offset_delta);
    put_i64(data + 27, h->base_timestamp);
    put_i64(data + 35, h->max_timestamp);
    put_i64(data + 43, h->producer_id);
    put_i16(data + 51, h->producer_epoch);
    put_i32(data + 53, h->base_sequence);
    put_i32(data + 57, h->record_count);
}

uint32_t batch_crc(const uint8_t *batch, size_t size)
{
    ASSERT(size >= BATCH_HEADER_SIZE);
    return crc32c(0, batch + BATCH_CRC_FROM, size - BATCH_CRC_FROM);
}

bool batch_is_whole(const uint8_t *batch, size_t size)
{
    struct batch_header h;
    return batch_header_read(batch, size, &h) == ERR_OK &&
           batch_size(&h) == size && h.magic == BATCH_MAGIC &&
           batch_crc(batch, size) == h.crc;
}

/* ---- records ------------------------------------------------------------- */
/* Zigzag varint of at most 64 bits; false when it does not end in time. */
static bool read_varlong(const uint8_t **at, const uint8_t *end, int64_t *out)
{
    uint64_t v = 0;
    const uint8_t *p = *at;
    for (unsigned shift = 0; shift < 64 && p < end; shift += 7) {
        uint8_t byte = *p++;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            *at = p;
            *out = (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
            return true;
        }
    }
    return false;
}

static bool read_varint(const uint8_t **at, const uint8_t *end, int32_t *out)
{
    int64_t v;
    if (!read_varlong(at, end, &v) || v < INT32_MIN || v > INT32_MAX) {
        return false;
    }
    *out = (int32_t)v;
    return true;
}

/* Length and that many bytes; -1 gives NULL. */
static bool read_bytes(const uint8_t **at, const uint8_t *end,
                       const uint8_t **data, int32_t *size)
{
    if (!read_varint(at, end, size) || *size < -1) {
        return false;
    }
    *data = NULL;
    if (*size >= 0) {
        if (*size > end - *at) {
            return false;
        }
        *data = *at;
        *at += *size;
    }
    return true;
}

static bool read_record_header(const uint8_t **at, const uint8_t *end,
                               struct record_header *out)
{
    return read_bytes(at, end, &out->key, &out->key_size) &&
           out->key_size >= 0 &&
           read_bytes(at, end, &out->value, &out->value_size);
}

/* One record; false when its bytes do not make one. */
static bool read_record(const uint8_t **at, const uint8_t *end,
                        struct batch_record *out)
{
    int32_t length;
    if (!read_varint(at, end, &length) || length < 1 || length > end - *at) {
        return false;
    }
    end = *at + length;
    (*at)++; /* the record's attributes; no bit has a meaning */
    if (!read_varlong(at, end, &out->timestamp) ||
        !read_varint(at, end, &out->offset_delta) ||
        !read_bytes(at, end, &out->key, &out->key_size) ||
        !read_bytes(at, end, &out->value, &out->value_size) ||
        !read_varint(at, end, &out->n_headers) || out->n_headers < 0) {
        return false;
    }
    out->headers = *at;
    for (int32_t i = 0; i < out->n_headers; i++) {
        struct record_header header;
        if (!read_record_header(at, end, &header)) {
            return false;
        }
    }
    out->headers_size = (size_t)(*at - out->headers);
    return *at == end;
}

bool batch_record_header(const struct batch_record *record, const uint8_t **at,
                         struct record_header *out)
{
    const uint8_t *end = record->headers + record->headers_size;
    return *at < end && read_record_header(at, end, out);
}

enum err batch_records_open(struct batch_records *r, const uint8_t *batch,
                            size_t size, size_t limit)
{
    memset(r, 0, sizeof *r);
    r->status = batch_header_read(batch, size, &r->header);
    if (r->status == ERR_OK && batch_size(&r->header) != size) {
        r->status = ERR_INVALID;
    }
    if (r->status != ERR_OK) {
        return r->status;
    }
    const uint8_t *section = batch + BATCH_HEADER_SIZE;
    size_t section_size = size - BATCH_HEADER_SIZE;
    int codec = batch_codec(&r->header);
    r->left = r->header.record_count;
    if (codec == CODEC_NONE || r->left == 0) {
        r->at = section;
        r->end = section + section_size;
        return ERR_OK;
    }
    if (codec > CODEC_ZSTD) {
        r->status = ERR_UNSUPPORTED;
        return r->status;
    }
    r->status = compress_unpack((enum batch_codec)codec, section, section_size,
                                limit, &r->plain);
    if (r->status == ERR_OK && r->plain.size > 0) {
        r->at = r->plain.data;
        r->end = r->plain.data + r->plain.size;
    }
    return r->status;
}

bool batch_records_next(struct batch_records *r, struct batch_record *out)
{
    if (r->status != ERR_OK) {
        return false;
    }
    if (r->left <= 0 || !read_record(&r->at, r->end, out)) {
        r->status = r->left == 0 && r->at == r->end ? ERR_OK : ERR_INVALID;
        r->left = r->status == ERR_OK ? 0 : -1;
        return false;
    }
    r->left--;
    if ((r->header.attributes & BATCH_APPEND_TIME) != 0) {
        out->timestamp = r->header.max_timestamp;
    } else if (__builtin_add_overflow(out->timestamp, r->header.base_timestamp,
                                      &out->timestamp)) {
        r->status = ERR_INVALID;
        return false;
    }
    return true;
}

void batch_records_close(struct batch_records *r)
{
    buffer_free(&r->plain);
}

/* ---- validation ---------------------------------------------------------- */
static bool refuse(struct batch_verdict *out, enum kafka_error error,
                   const char *message)
{
    out->error = error;
    out->message = message;
    return false;
}

static bool refuse_record(struct batch_verdict *out, enum kafka_error error,
                          int32_t record, const char *message)
{
    out->bad_record = record;
    return refuse(out, error, message);
}

static bool timestamp_fits(int64_t timestamp, const struct batch_limits *limits)
{
    int64_t age;
    if (timestamp == -1) {
        return true; /* the client gave none */
    }
    if (__builtin_sub_overflow(limits->now_ms, timestamp, &age)) {
        return false;
    }
    return age <= limits->timestamp_before_max_ms &&
           -age <= limits->timestamp_after_max_ms;
}

/* What the header alone tells, before the CRC is paid for. */
static bool validate_frame(const uint8_t *batch, size_t size,
                           const struct batch_limits *limits,
                           struct batch_verdict *out)
{
    struct batch_header *h = &out->header;
    if (size >= 17 && batch[16] != BATCH_MAGIC) {
        return refuse(out,
                      batch[16] < BATCH_MAGIC ? KAFKA_INVALID_RECORD
                                              : KAFKA_CORRUPT_MESSAGE,
                      "Only record batches of magic 2 are accepted");
    }
    if (batch_header_read(batch, size, h) != ERR_OK) {
        return refuse(out, KAFKA_INVALID_RECORD,
                      "Record batch is shorter than its header");
    }
    if (batch_size(h) < size) {
        return refuse(out, KAFKA_INVALID_RECORD,
                      "Exactly one record batch per partition is accepted");
    }
    if (batch_size(h) > size) {
        return refuse(out, KAFKA_INVALID_RECORD, "Record batch is cut off");
    }
    if (size > (size_t)limits->max_message_bytes) {
        return refuse(out, KAFKA_MESSAGE_TOO_LARGE,
                      "Record batch is larger than max.message.bytes");
    }
    if (size > (size_t)limits->segment_bytes) {
        return refuse(out, KAFKA_RECORD_LIST_TOO_LARGE,
                      "Record batch is larger than segment.bytes");
    }
    return true;
}

static bool validate_header(const struct batch_limits *limits,
                            struct batch_verdict *out)
{
    const struct batch_header *h = &out->header;
    int codec = batch_codec(h);
    if ((h->attributes & BATCH_CONTROL) != 0) {
        return refuse(out, KAFKA_INVALID_RECORD,
                      "Clients may not write control records");
    }
    if ((h->attributes & BATCH_TRANSACTIONAL) != 0) {
        return refuse(out, KAFKA_INVALID_TXN_STATE,
                      "Transactions are not supported");
    }
    if (codec > CODEC_ZSTD) {
        return refuse(out, KAFKA_UNSUPPORTED_COMPRESSION_TYPE,
                      "Unknown compression codec");
    }
    if (codec == CODEC_ZSTD && limits->api_version < 7) {
        return refuse(out, KAFKA_UNSUPPORTED_COMPRESSION_TYPE,
                      "zstd needs Produce version 7 or newer");
    }
    if (h->base_offset.v != 0) {
        return refuse(out, KAFKA_INVALID_RECORD,
                      "Base offset of a produced batch must be 0");
    }
    if (h->record_count <= 0 || h->last_offset_delta != h->record_count - 1) {
        return refuse(out, KAFKA_INVALID_RECORD,
                      "Record count and last offset delta do not agree");
    }
    if (h->producer_id >= 0 &&
        (h->base_sequence < 0 || h->producer_epoch < 0)) {
        return refuse(out, KAFKA_INVALID_RECORD,
                      "A producer id needs an epoch and a base sequence");
    }
    if (h->producer_id < -1) {
        return refuse(out, KAFKA_INVALID_RECORD, "Invalid producer id");
    }
    return true;
}

static bool validate_timestamps(const struct batch_limits *limits,
                                struct batch_verdict *out)
{
    const struct batch_header *h = &out->header;
    if (limits->append_time) {
        return true;
    }
    if ((h->attributes & BATCH_APPEND_TIME) != 0) {
        return refuse(out, KAFKA_INVALID_TIMESTAMP,
                      "Producers may not set the timestamp type to "
                      "LogAppendTime");
    }
    if (!timestamp_fits(h->base_timestamp, limits) ||
        !timestamp_fits(h->max_timestamp, limits)) {
        return refuse(out, KAFKA_INVALID_TIMESTAMP,
                      "Timestamp is out of the range that "
                      "message.timestamp.before/after.max.ms allow");
    }
    return true;
}

static bool validate_record(const struct batch_record *record, int32_t i,
                            const struct batch_limits *limits,
                            struct batch_verdict *out)
{
    if (record->offset_delta != i) {
        return refuse_record(out, KAFKA_INVALID_RECORD, i,
                             "Offset deltas are not 0, 1, 2, ...");
    }
    if (limits->needs_keys && record->key == NULL) {
        return refuse_record(out, KAFKA_INVALID_RECORD, i,
                             "Compacted topic cannot accept message without "
                             "key in topic partition");
    }
    if (!limits->append_time && !timestamp_fits(record->timestamp, limits)) {
        return refuse_record(out, KAFKA_INVALID_TIMESTAMP, i,
                             "Timestamp is out of the range that "
                             "message.timestamp.before/after.max.ms allow");
    }
    return true;
}

static bool validate_records(const uint8_t *batch, size_t size,
                             const struct batch_limits *limits,
                             struct batch_verdict *out)
{
    struct batch_records r;
    struct batch_record record;
    int64_t newest = -1;
    bool good = true;
    enum err status = batch_records_open(&r, batch, size, LIMIT_BATCH_PLAIN);
    for (int32_t i = 0; good && batch_records_next(&r, &record); i++) {
        good = validate_record(&record, i, limits, out);
        newest = record.timestamp > newest ? record.timestamp : newest;
    }
    status = r.status;
    batch_records_close(&r);
    if (!good) {
        return false;
    }
    if (status == ERR_TOO_LARGE) {
        return refuse(out, KAFKA_MESSAGE_TOO_LARGE,
                      "Decompressed records are too large to be checked");
    }
    if (status != ERR_OK) {
        return refuse(out, KAFKA_INVALID_RECORD, "Records are malformed");
    }
    out->max_timestamp = newest;
    return true;
}

void batch_validate(const uint8_t *batch, size_t size,
                    const struct batch_limits *limits,
                    struct batch_verdict *out)
{
    memset(out, 0, sizeof *out);
    out->error = KAFKA_NONE;
    out->bad_record = -1;
    if (!validate_frame(batch, size, limits, out)) {
        return;
    }
    if (batch_crc(batch, size) != out->header.crc) {
        refuse(out, KAFKA_CORRUPT_MESSAGE, "CRC of the record batch is wrong");
        return;
    }
    out->max_timestamp = out->header.max_timestamp;
    if (!validate_header(limits, out) || !validate_timestamps(limits, out)) {
        return;
    }
    if (batch_codec(&out->header) == CODEC_NONE || limits->needs_keys) {
        (void)validate_records(batch, size, limits, out);
    }
}

int32_t batch_bad_records(const uint8_t *batch, size_t size,
                          const struct batch_limits *limits, int32_t *out,
                          int32_t max)
{
    struct batch_records r;
    struct batch_record record;
    struct batch_verdict verdict;
    int32_t n = 0;
    bool open =
        batch_records_open(&r, batch, size, LIMIT_BATCH_PLAIN) == ERR_OK;
    for (int32_t i = 0; open && batch_records_next(&r, &record); i++) {
        if (validate_record(&record, i, limits, &verdict)) {
            continue;
        }
        if (n < max) {
            out[n] = i;
        }
        n++;
    }
    batch_records_close(&r);
    return n;
}

void batch_stamp(const uint8_t *batch, size_t size, kafka_offset base_offset,
                 int32_t leader_epoch, int64_t append_time_ms,
                 int64_t max_timestamp, uint8_t header[BATCH_HEADER_SIZE])
{
    ASSERT(size >= BATCH_HEADER_SIZE && base_offset.v >= 0);
    memcpy(header, batch, BATCH_HEADER_SIZE);
    put_i64(header, base_offset.v);
    put_i32(header + 12, leader_epoch);
    int16_t attributes = get_i16(header + 21);
    int64_t newest = max_timestamp;
    if (append_time_ms >= 0) {
        attributes |= BATCH_APPEND_TIME;
        newest = append_time_ms;
    }
    if (attributes == get_i16(header + 21) && newest == get_i64(header + 35)) {
        return;
    }
    put_i16(header + 21, attributes);
    put_i64(header + 35, newest);
    uint32_t crc =
        crc32c(0, header + BATCH_CRC_FROM, BATCH_HEADER_SIZE - BATCH_CRC_FROM);
    put_u32(header + 17,
            crc32c(crc, batch + BATCH_HEADER_SIZE, size - BATCH_HEADER_SIZE));
}

/* ---- building ------------------------------------------------------------ */
#define VARLONG_MAX 10

static size_t put_varlong(uint8_t *to, int64_t value)
{
    uint64_t v = ((uint64_t)value << 1) ^ (uint64_t)(value >> 63);
    size_t n = 0;
    while (v >= 0x80) {
        to[n++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    to[n++] = (uint8_t)v;
    return n;
}

static void append_varlong(struct buffer *b, int64_t value)
{
    buffer_added(b, put_varlong(buffer_reserve(b, VARLONG_MAX), value));
}

static void append_bytes(struct buffer *b, const void *data, int32_t size)
{
    append_varlong(b, size);
    if (size > 0) {
        buffer_append(b, data, (size_t)size);
    }
}

void batch_builder_init(struct batch_builder *b, enum batch_codec codec)
{
    memset(b, 0, sizeof *b);
    b->codec = codec;
    b->producer_id = -1;
    b->producer_epoch = -1;
    b->base_sequence = -1;
}

void batch_builder_free(struct batch_builder *b)
{
    buffer_free(&b->records);
    buffer_free(&b->out);
}

void batch_builder_add(struct batch_builder *b, int64_t timestamp_ms,
                       const void *key, int32_t key_size, const void *value,
                       int32_t value_size, const struct record_header *headers,
                       int32_t n_headers)
{
    struct buffer body;
    static const uint8_t attributes = 0;
    if (b->count == 0) {
        buffer_clear(&b->records);
        b->base_timestamp = b->max_timestamp = timestamp_ms;
    }
    buffer_init(&body);
    buffer_append(&body, &attributes, 1);
    append_varlong(&body, timestamp_ms - b->base_timestamp);
    append_varlong(&body, b->count);
    append_bytes(&body, key, key_size);
    append_bytes(&body, value, value_size);
    append_varlong(&body, n_headers);
    for (int32_t i = 0; i < n_headers; i++) {
        append_bytes(&body, headers[i].key, headers[i].key_size);
        append_bytes(&body, headers[i].value, headers[i].value_size);
    }
    ASSERT(body.size <= INT32_MAX);
    append_varlong(&b->records, (int64_t)body.size);
    buffer_append(&b->records, body.data, body.size);
    buffer_free(&body);
    b->count++;
    if (timestamp_ms > b->max_timestamp) {
        b->max_timestamp = timestamp_ms;
    }
}

size_t batch_builder_bytes(const struct batch_builder *b)
{
    return b->count == 0 ? 0 : b->records.size;
}

enum err batch_builder_finish(struct batch_builder *b, const uint8_t **batch,
                              size_t *size)
{
    ASSERT(b->count > 0);
    buffer_clear(&b->out);
    buffer_reserve(&b->out, BATCH_HEADER_SIZE);
    buffer_added(&b->out, BATCH_HEADER_SIZE);
    enum err status =
        compress_pack(b->codec, b->records.data, b->records.size, &b->out);
    if (status != ERR_OK) {
        return status;
    }
    if (b->out.size > INT32_MAX) {
        return ERR_TOO_LARGE;
    }
    struct batch_header h = {
        .base_offset = {0},
        .length = (int32_t)(b->out.size - BATCH_LOG_OVERHEAD),
        .leader_epoch = -1,
        .magic = BATCH_MAGIC,
        .attributes = (int16_t)(b->attributes | (int16_t)b->codec),
        .last_offset_delta = b->count - 1,
        .base_timestamp = b->base_timestamp,
        .max_timestamp = b->max_timestamp,
        .producer_id = b->producer_id,
        .producer_epoch = b->producer_epoch,
        .base_sequence = b->base_sequence,
        .record_count = b->count,
    };
    batch_header_write(&h, b->out.data);
    put_u32(b->out.data + 17, batch_crc(b->out.data, b->out.size));
    b->count = 0;
    *batch = b->out.data;
    *size = b->out.size;
    return ERR_OK;
}

/* ---- taking records out -------------------------------------------------- */
void batch_rewrite_begin(struct batch_rewriter *w,
                         const struct batch_header *original, int64_t horizon)
{
    buffer_clear(&w->records);
    w->header = *original;
    w->header.record_count = 0;
    w->newest = -1;
    if (horizon >= 0) {
        w->header.attributes |= BATCH_DELETE_HORIZON;
        w->header.base_timestamp = horizon;
    }
}

bool batch_rewrite_keep(struct batch_rewriter *w,
                        const struct batch_record *record)
{
    static const uint8_t attributes = 0;
    uint8_t head[3 * VARLONG_MAX];
    int64_t delta;
    struct buffer *to = &w->records;
    if (__builtin_sub_overflow(record->timestamp, w->header.base_timestamp,
                               &delta)) {
        return false;
    }
    size_t n = put_varlong(head, delta);
    n += put_varlong(head + n, record->offset_delta);
    /* The length comes first, so it is counted before it is written. */
    uint8_t key_size[VARLONG_MAX], value_size[VARLONG_MAX];
    uint8_t count[VARLONG_MAX];
    size_t key_n = put_varlong(key_size, record->key_size);
    size_t value_n = put_varlong(value_size, record->value_size);
    size_t count_n = put_varlong(count, record->n_headers);
    size_t key = record->key_size > 0 ? (size_t)record->key_size : 0;
    size_t value = record->value_size > 0 ? (size_t)record->value_size : 0;
    size_t size =
        1 + n + key_n + key + value_n + value + count_n + record->headers_size;
    append_varlong(to, (int64_t)size);
    buffer_append(to, &attributes, 1);
    buffer_append(to, head, n);
    buffer_append(to, key_size, key_n);
    buffer_append(to, record->key, key);
    buffer_append(to, value_size, value_n);
    buffer_append(to, record->value, value);
    buffer_append(to, count, count_n);
    buffer_append(to, record->headers, record->headers_size);
    w->header.record_count++;
    if (record->timestamp > w->newest) {
        w->newest = record->timestamp;
    }
    return true;
}

enum err batch_rewrite_finish(struct batch_rewriter *w, const uint8_t **batch,
                              size_t *size)
{
    struct batch_header *h = &w->header;
    enum err status = ERR_OK;
    buffer_clear(&w->out);
    buffer_reserve(&w->out, BATCH_HEADER_SIZE);
    buffer_added(&w->out, BATCH_HEADER_SIZE);
    if (h->record_count == 0) {
        h->attributes &= ~BATCH_CODEC_MASK; /* nothing is compressed */
    } else {
        status = compress_pack((enum batch_codec)batch_codec(h),
                               w->records.data, w->records.size, &w->out);
        if ((h->attributes & BATCH_APPEND_TIME) == 0) {
            h->max_timestamp = w->newest;
        }
    }
    if (status == ERR_OK && w->out.size > INT32_MAX) {
        status = ERR_TOO_LARGE;
    }
    if (status != ERR_OK) {
        return status;
    }
    h->length = (int32_t)(w->out.size - BATCH_LOG_OVERHEAD);
    batch_header_write(h, w->out.data);
    h->crc = batch_crc(w->out.data, w->out.size);
    put_u32(w->out.data + 17, h->crc);
    *batch = w->out.data;
    *size = w->out.size;
    return ERR_OK;
}

void batch_rewriter_free(struct batch_rewriter *w)
{
    buffer_free(&w->records);
    buffer_free(&w->out);
}
