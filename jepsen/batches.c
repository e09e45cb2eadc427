#include "jepsen/batches.h"

#include <string.h>
#include <time.h>

#include "base/crc32c.h"
#include "base/wire.h"
#include "jepsen/load.h"

#define HEADER 61
#define CRC_AT 17
#define CRC_FROM 21
#define OVERHEAD 12

static void write_record(struct wire_writer *w, int32_t delta,
                         const uint8_t *value, size_t n)
{
    struct wire_writer body;
    uint8_t bytes[RECORD_MAX + 64];

    wire_writer_init(&body, sizeof bytes);
    wire_write_i8(&body, 0);      /* attributes */
    wire_write_varlong(&body, 0); /* timestamp */
    wire_write_varint(&body, delta);
    wire_write_varint(&body, -1); /* no key */
    wire_write_varint(&body, (int32_t)n);
    wire_write_raw(&body, value, n);
    wire_write_varint(&body, 0); /* headers */
    wire_writer_copy(&body, bytes);
    wire_write_varint(w, (int32_t)body.size);
    wire_write_raw(w, bytes, body.size);
    wire_writer_free(&body);
}

static int64_t wall_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void batch_of_values(struct buffer *out, int64_t key, const int64_t *values,
                     size_t n)
{
    struct wire_writer w;
    uint8_t record[RECORD_MAX];
    int64_t now = wall_ms();
    uint8_t *bytes;
    uint32_t crc;

    wire_writer_init(&w, 4096);
    wire_write_i64(&w, 0);
    wire_write_i32(&w, 0);  /* length */
    wire_write_i32(&w, -1); /* leader epoch */
    wire_write_i8(&w, 2);
    wire_write_i32(&w, 0); /* CRC */
    wire_write_i16(&w, 0);
    wire_write_i32(&w, (int32_t)n - 1);
    wire_write_i64(&w, now);
    wire_write_i64(&w, now);
    wire_write_i64(&w, -1); /* no producer id: never sent twice */
    wire_write_i16(&w, -1);
    wire_write_i32(&w, -1);
    wire_write_i32(&w, (int32_t)n);
    for (size_t i = 0; i < n; i++)
        write_record(&w, (int32_t)i, record,
                     record_write(record, key, values[i]));
    wire_patch_i32(&w, 8, (int32_t)w.size - OVERHEAD);
    buffer_clear(out);
    bytes = buffer_reserve(out, w.size);
    wire_writer_copy(&w, bytes);
    crc = crc32c(0, bytes + CRC_FROM, w.size - CRC_FROM);
    for (int i = 0; i < 4; i++)
        bytes[CRC_AT + i] = (uint8_t)(crc >> (24 - 8 * i));
    buffer_added(out, w.size);
    wire_writer_free(&w);
}

void batches_begin(struct batches *b, const uint8_t *data, size_t size,
                   int64_t key)
{
    *b = (struct batches){.p = data, .end = data + size, .key = key};
}

/* The next batch; BATCH_RECORD when it is one to read. */
static enum batch_state batch_open(struct batches *b, int64_t *offset)
{
    struct wire_reader r;
    int32_t length;
    uint32_t crc;
    int16_t attributes;

    wire_reader_init(&r, b->p, (size_t)(b->end - b->p));
    *offset = b->base_offset = wire_read_i64(&r);
    length = wire_read_i32(&r);
    if (r.err != ERR_OK || length < HEADER - OVERHEAD ||
        wire_left(&r) < (size_t)length)
        return r.err == ERR_OK && length < HEADER - OVERHEAD ? BATCH_TORN
                                                             : BATCH_END;
    b->batch_end = b->p + OVERHEAD + length;
    wire_read_i32(&r);
    wire_read_i8(&r);
    crc = (uint32_t)wire_read_i32(&r);
    if (crc !=
        crc32c(0, b->p + CRC_FROM, (size_t)(b->batch_end - b->p) - CRC_FROM))
        return BATCH_TORN;
    attributes = wire_read_i16(&r);
    b->left = 0;
    if ((attributes & 0x27) == 0) { /* plain data */
        wire_read_raw(&r, 4 + 8 + 8 + 8 + 2 + 4);
        b->left = wire_read_i32(&r);
        b->at = r.p;
    }
    b->p = b->batch_end;
    return BATCH_RECORD;
}

static enum batch_state record_next(struct batches *b, int64_t *offset,
                                    int64_t *value)
{
    struct wire_reader r;
    const uint8_t *content;
    int32_t length, n;

    wire_reader_init(&r, b->at, (size_t)(b->batch_end - b->at));
    length = wire_read_varint(&r);
    b->at = r.p + length;
    b->left--;
    wire_read_i8(&r);
    wire_read_varlong(&r);
    *offset = b->base_offset + wire_read_varint(&r);
    n = wire_read_varint(&r);
    if (n > 0)
        wire_read_raw(&r, (size_t)n);
    n = wire_read_varint(&r);
    content = n > 0 ? wire_read_raw(&r, (size_t)n) : NULL;
    if (r.err != ERR_OK || content == NULL || b->at > b->batch_end ||
        length < 0) {
        b->left = 0;
        return BATCH_TORN;
    }
    return record_read(content, (size_t)n, b->key, value) ? BATCH_RECORD
                                                          : BATCH_TORN;
}

enum batch_state batches_next(struct batches *b, int64_t *offset,
                              int64_t *value)
{
    while (b->left == 0) {
        enum batch_state s = b->p < b->end ? batch_open(b, offset) : BATCH_END;

        if (s == BATCH_TORN)
            b->p = b->end;
        if (s != BATCH_RECORD)
            return s;
    }
    return record_next(b, offset, value);
}
