/* Record batches: building, reading, validation, stamping, codecs, and damage
 * at every byte. */
#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/prng.h"
#include "partition/batch.h"
#include "partition/bytes.h"

static const struct batch_limits usual = {
    .max_message_bytes = 1048588,
    .segment_bytes = 1 << 30,
    .timestamp_before_max_ms = INT64_MAX,
    .timestamp_after_max_ms = 3600000,
    .now_ms = 1700000000000,
    .api_version = 11,
};

/* Three records: key and headers; null key; null value. */
static void fill(struct batch_builder *b)
{
    struct record_header headers[] = {
        {(const uint8_t *)"trace", 5, (const uint8_t *)"12", 2},
        {(const uint8_t *)"none", 4, NULL, -1}};
    batch_builder_add(b, usual.now_ms, "k1", 2, "first", 5, headers, 2);
    batch_builder_add(b, usual.now_ms + 5, NULL, -1, "second", 6, NULL, 0);
    batch_builder_add(b, usual.now_ms + 2, "k3", 2, NULL, -1, NULL, 0);
}

static uint8_t *made(enum batch_codec codec, size_t *size)
{
    struct batch_builder b;
    const uint8_t *batch;
    batch_builder_init(&b, codec);
    fill(&b);
    ck_assert_int_eq(batch_builder_finish(&b, &batch, size), ERR_OK);
    uint8_t *copy = mem_alloc(*size);
    memcpy(copy, batch, *size);
    batch_builder_free(&b);
    return copy;
}

static void make_crc(uint8_t *batch, size_t size)
{
    put_u32(batch + 17, batch_crc(batch, size));
}

static enum kafka_error verdict_of(const uint8_t *batch, size_t size,
                                   const struct batch_limits *limits)
{
    struct batch_verdict v;
    batch_validate(batch, size, limits, &v);
    ck_assert((v.error == KAFKA_NONE) == (v.message == NULL));
    return v.error;
}

static void check_records(const uint8_t *batch, size_t size)
{
    struct batch_records r;
    struct batch_record record;
    struct record_header header;
    ck_assert_int_eq(batch_records_open(&r, batch, size, 1 << 20), ERR_OK);
    ck_assert(batch_records_next(&r, &record));
    ck_assert_int_eq(record.timestamp, usual.now_ms);
    ck_assert_int_eq(record.key_size, 2);
    ck_assert_mem_eq(record.value, "first", 5);
    ck_assert_int_eq(record.n_headers, 2);
    const uint8_t *at = record.headers;
    ck_assert(batch_record_header(&record, &at, &header));
    ck_assert_mem_eq(header.key, "trace", 5);
    ck_assert_mem_eq(header.value, "12", 2);
    ck_assert(batch_record_header(&record, &at, &header));
    ck_assert_int_eq(header.value_size, -1);
    ck_assert(!batch_record_header(&record, &at, &header));
    ck_assert(batch_records_next(&r, &record));
    ck_assert_ptr_null(record.key);
    ck_assert_int_eq(record.timestamp, usual.now_ms + 5);
    ck_assert(batch_records_next(&r, &record));
    ck_assert_int_eq(record.value_size, -1);
    ck_assert_int_eq(record.offset_delta, 2);
    ck_assert(!batch_records_next(&r, &record));
    ck_assert_int_eq(r.status, ERR_OK);
    ck_assert(!batch_records_next(&r, &record));
    batch_records_close(&r);
}

START_TEST(test_batch__build_and_read)
{
    size_t size;
    uint8_t *batch = made((enum batch_codec)_i, &size);
    struct batch_header h;
    ck_assert(batch_is_whole(batch, size));
    ck_assert_int_eq(batch_header_read(batch, size, &h), ERR_OK);
    ck_assert_int_eq(h.record_count, 3);
    ck_assert_int_eq(h.max_timestamp, usual.now_ms + 5);
    ck_assert_int_eq(batch_codec(&h), _i);
    check_records(batch, size);
    ck_assert_int_eq(verdict_of(batch, size, &usual), KAFKA_NONE);
    mem_free(batch);
}
END_TEST

/* PROTOCOL.md 3.15: null key, value "a": 69 bytes. */
START_TEST(test_batch__golden_bytes)
{
    struct batch_builder b;
    const uint8_t *batch;
    size_t size;
    static const uint8_t record[] = {0x0e, 0, 0, 0, 0x01, 0x02, 0x61, 0};
    batch_builder_init(&b, CODEC_NONE);
    batch_builder_add(&b, 1, NULL, -1, "a", 1, NULL, 0);
    ck_assert_int_eq(batch_builder_finish(&b, &batch, &size), ERR_OK);
    ck_assert_uint_eq(size, 69);
    ck_assert_mem_eq(batch + 61, record, sizeof record);
    batch_builder_free(&b);
}
END_TEST

/* Any changed byte of a batch under the CRC, or of length, magic and CRC, is
 * noticed; base offset too, as a client must send 0; the leader epoch is free.
 */
START_TEST(test_batch__damage_at_every_byte)
{
    size_t size;
    uint8_t *batch = made((enum batch_codec)_i, &size);
    for (size_t at = 0; at < size; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            batch[at] ^= (uint8_t)(1u << bit);
            enum kafka_error error = verdict_of(batch, size, &usual);
            if (at >= 12 && at < 16) {
                ck_assert_int_eq(error, KAFKA_NONE);
            } else {
                ck_assert_int_ne(error, KAFKA_NONE);
            }
            if (at >= BATCH_CRC_FROM) {
                ck_assert_int_eq(error, KAFKA_CORRUPT_MESSAGE);
                ck_assert(!batch_is_whole(batch, size));
            }
            batch[at] ^= (uint8_t)(1u << bit);
        }
    }
    for (size_t cut = 0; cut < size; cut++) {
        uint8_t *piece = mem_alloc(cut);
        memcpy(piece, batch, cut);
        ck_assert_int_ne(verdict_of(piece, cut, &usual), KAFKA_NONE);
        mem_free(piece);
    }
    mem_free(batch);
}
END_TEST

/* Damage that carries a right CRC: never read beyond the end, never endless. */
START_TEST(test_batch__lies_with_a_right_crc)
{
    size_t size;
    struct prng prng;
    prng_seed(&prng, (uint64_t)_i + 7);
    struct batch_limits limits = usual;
    limits.needs_keys = true;
    for (int round = 0; round < 3000; round++) {
        uint8_t *batch = made((enum batch_codec)(round % 5), &size);
        for (uint64_t n = prng_between(&prng, 1, 4); n > 0; n--) {
            size_t at = prng_between(&prng, BATCH_CRC_FROM, size - 1);
            batch[at] = (uint8_t)prng_next(&prng);
        }
        make_crc(batch, size);
        struct batch_verdict v;
        batch_validate(batch, size, &limits, &v);
        mem_free(batch);
    }
}
END_TEST

static void set_i16(uint8_t *batch, size_t at, int v)
{
    put_i16(batch + at, (int16_t)v);
}

START_TEST(test_batch__refusals)
{
    size_t size;
    uint8_t *batch = made(CODEC_NONE, &size);
    uint8_t *copy = mem_alloc(size + 1);
    struct batch_limits limits = usual;
#define FRESH() memcpy(copy, batch, size)
#define EXPECT(error)     \
    make_crc(copy, size); \
    ck_assert_int_eq(verdict_of(copy, size, &limits), (error))
    FRESH();
    set_i16(copy, 21, BATCH_TRANSACTIONAL);
    EXPECT(KAFKA_INVALID_TXN_STATE);
    FRESH();
    set_i16(copy, 21, BATCH_CONTROL | BATCH_TRANSACTIONAL);
    EXPECT(KAFKA_INVALID_RECORD);
    FRESH();
    set_i16(copy, 21, 5);
    EXPECT(KAFKA_UNSUPPORTED_COMPRESSION_TYPE);
    FRESH();
    set_i16(copy, 21, CODEC_ZSTD);
    limits.api_version = 6;
    EXPECT(KAFKA_UNSUPPORTED_COMPRESSION_TYPE);
    limits = usual;
    FRESH();
    set_i16(copy, 21, BATCH_APPEND_TIME);
    EXPECT(KAFKA_INVALID_TIMESTAMP);
    limits.append_time = true;
    EXPECT(KAFKA_NONE);
    limits = usual;
    FRESH();
    put_i64(copy + 43, 7);
    EXPECT(KAFKA_INVALID_RECORD);
    set_i16(copy, 51, 0);
    put_i32(copy + 53, 0);
    EXPECT(KAFKA_NONE);
    FRESH();
    put_i32(copy + 57, 2);
    EXPECT(KAFKA_INVALID_RECORD);
    put_i32(copy + 23, 1);
    EXPECT(KAFKA_INVALID_RECORD);
    put_i32(copy + 57, 4);
    put_i32(copy + 23, 3);
    EXPECT(KAFKA_INVALID_RECORD);
    put_i32(copy + 57, 0);
    put_i32(copy + 23, -1);
    EXPECT(KAFKA_INVALID_RECORD);
    FRESH();
    put_i64(copy, 1);
    EXPECT(KAFKA_INVALID_RECORD);
    FRESH();
    limits.max_message_bytes = (int32_t)size - 1;
    EXPECT(KAFKA_MESSAGE_TOO_LARGE);
    limits.max_message_bytes = (int32_t)size;
    EXPECT(KAFKA_NONE);
    limits.segment_bytes = (int32_t)size - 1;
    EXPECT(KAFKA_RECORD_LIST_TOO_LARGE);
    limits = usual;
    limits.timestamp_after_max_ms = 4;
    EXPECT(KAFKA_INVALID_TIMESTAMP);
    limits.timestamp_after_max_ms = 5;
    EXPECT(KAFKA_NONE);
    limits.now_ms += 1000;
    limits.timestamp_before_max_ms = 999;
    EXPECT(KAFKA_INVALID_TIMESTAMP);
    limits = usual;
    copy[16] = 1;
    ck_assert_int_eq(verdict_of(copy, size, &limits), KAFKA_INVALID_RECORD);
    FRESH();
    copy[size] = 0;
    ck_assert_int_eq(verdict_of(copy, size + 1, &limits), KAFKA_INVALID_RECORD);
    mem_free(copy);
    mem_free(batch);
}
END_TEST

START_TEST(test_batch__keys_of_compacted_topics)
{
    size_t size;
    uint8_t *batch = made((enum batch_codec)_i, &size);
    struct batch_limits limits = usual;
    struct batch_verdict v;
    limits.needs_keys = true;
    batch_validate(batch, size, &limits, &v);
    ck_assert_int_eq(v.error, KAFKA_INVALID_RECORD);
    ck_assert_int_eq(v.bad_record, 1);
    int32_t bad[2] = {-1, -1};
    ck_assert_int_eq(batch_bad_records(batch, size, &limits, bad, 2), 1);
    ck_assert_int_eq(bad[0], 1);
    limits.now_ms += 1000;
    limits.timestamp_before_max_ms = 999;
    ck_assert_int_eq(batch_bad_records(batch, size, &limits, NULL, 0), 2);
    ck_assert_int_eq(batch_bad_records(batch, size, &limits, bad, 1), 2);
    ck_assert_int_eq(bad[0], 0);
    ck_assert_int_eq(bad[1], -1);
    mem_free(batch);
}
END_TEST

START_TEST(test_batch__stamp)
{
    size_t size;
    uint8_t *batch = made(CODEC_LZ4, &size);
    uint8_t header[BATCH_HEADER_SIZE];
    struct batch_header h;
    batch_stamp(batch, size, (kafka_offset){4711}, 3, -1, usual.now_ms + 5,
                header);
    ck_assert_mem_eq(header + 16, batch + 16, BATCH_HEADER_SIZE - 16);
    memcpy(batch, header, sizeof header);
    ck_assert(batch_is_whole(batch, size));
    batch_stamp(batch, size, (kafka_offset){4711}, 3, 99, 0, header);
    memcpy(batch, header, sizeof header);
    ck_assert(batch_is_whole(batch, size));
    ck_assert_int_eq(batch_header_read(batch, size, &h), ERR_OK);
    ck_assert_int_eq(h.base_offset.v, 4711);
    ck_assert_int_eq(h.leader_epoch, 3);
    ck_assert_int_eq(h.max_timestamp, 99);
    ck_assert_int_eq(h.attributes, CODEC_LZ4 | BATCH_APPEND_TIME);
    struct batch_records r;
    struct batch_record record;
    ck_assert_int_eq(batch_records_open(&r, batch, size, 1 << 20), ERR_OK);
    ck_assert(batch_records_next(&r, &record));
    ck_assert_int_eq(record.timestamp, 99);
    batch_records_close(&r);
    mem_free(batch);
}
END_TEST

/* A client that wrote a wrong maximum timestamp is corrected. */
START_TEST(test_batch__max_timestamp_corrected)
{
    size_t size;
    uint8_t *batch = made(CODEC_NONE, &size);
    struct batch_verdict v;
    uint8_t header[BATCH_HEADER_SIZE];
    put_i64(batch + 35, usual.now_ms + 1);
    make_crc(batch, size);
    batch_validate(batch, size, &usual, &v);
    ck_assert_int_eq(v.error, KAFKA_NONE);
    ck_assert_int_eq(v.max_timestamp, usual.now_ms + 5);
    batch_stamp(batch, size, (kafka_offset){0}, 1, -1, v.max_timestamp, header);
    memcpy(batch, header, sizeof header);
    ck_assert(batch_is_whole(batch, size));
    ck_assert_int_eq(get_i64(batch + 35), usual.now_ms + 5);
    mem_free(batch);
}
END_TEST

START_TEST(test_batch__sequence_wraps)
{
    ck_assert_int_eq(sequence_add(5, 3), 8);
    ck_assert_int_eq(sequence_add(INT32_MAX, 1), 0);
    ck_assert_int_eq(sequence_add(INT32_MAX - 1, 4), 2);
}
END_TEST

/* ---- codecs -------------------------------------------------------------- */
static void fill_text(uint8_t *data, size_t size)
{
    struct prng prng;
    prng_seed(&prng, 1);
    for (size_t i = 0; i < size; i++) {
        data[i] = (uint8_t)('a' + prng_below(&prng, 4));
    }
}

START_TEST(test_compress__round_trip_and_bound)
{
    static const size_t sizes[] = {0, 1, 100, 32768, 32769, 300000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = sizes[i];
        uint8_t *in = mem_alloc(n);
        struct buffer packed = {0}, plain = {0};
        fill_text(in, n);
        enum batch_codec codec = (enum batch_codec)_i;
        ck_assert_int_eq(compress_pack(codec, in, n, &packed), ERR_OK);
        ck_assert_int_eq(
            compress_unpack(codec, packed.data, packed.size, n, &plain),
            ERR_OK);
        ck_assert_uint_eq(plain.size, n);
        ck_assert(n == 0 || memcmp(plain.data, in, n) == 0);
        buffer_clear(&plain);
        if (n > 0) {
            ck_assert_int_eq(
                compress_unpack(codec, packed.data, packed.size, n - 1, &plain),
                ERR_TOO_LARGE);
            ck_assert_uint_le(plain.size, n);
        }
        buffer_free(&packed);
        buffer_free(&plain);
        mem_free(in);
    }
}
END_TEST

/* Cut or changed input gives an error or other bytes, never more than asked,
 * never a read beyond the end. */
START_TEST(test_compress__damage)
{
    uint8_t in[600];
    struct buffer packed = {0}, plain = {0};
    enum batch_codec codec = (enum batch_codec)_i;
    fill_text(in, sizeof in);
    ck_assert_int_eq(compress_pack(codec, in, sizeof in, &packed), ERR_OK);
    for (size_t cut = 0; cut < packed.size; cut++) {
        uint8_t *piece = mem_alloc(cut);
        memcpy(piece, packed.data, cut);
        buffer_clear(&plain);
        enum err status = compress_unpack(codec, piece, cut, 1000, &plain);
        if (status == ERR_OK) { /* xerial may end between its blocks */
            ck_assert_int_eq(codec, CODEC_SNAPPY);
            ck_assert_uint_eq(plain.size, 0);
        }
        mem_free(piece);
    }
    for (size_t at = 0; at < packed.size; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            packed.data[at] ^= (uint8_t)(1u << bit);
            buffer_clear(&plain);
            enum err status =
                compress_unpack(codec, packed.data, packed.size, 1000, &plain);
            ck_assert(status == ERR_OK || status == ERR_INVALID ||
                      status == ERR_TOO_LARGE);
            ck_assert_uint_le(plain.size, 1001);
            packed.data[at] ^= (uint8_t)(1u << bit);
        }
    }
    buffer_free(&packed);
    buffer_free(&plain);
}
END_TEST

START_TEST(test_compress__bare_snappy_and_bombs)
{
    static const uint8_t bare[] = {5, 4 << 2, 'h', 'e', 'l', 'l', 'o'};
    static const uint8_t bomb[] = {0xff, 0xff, 0xff, 0xff, 0x0f, 0};
    struct buffer plain = {0};
    ck_assert_int_eq(
        compress_unpack(CODEC_SNAPPY, bare, sizeof bare, 100, &plain), ERR_OK);
    ck_assert_uint_eq(plain.size, 5);
    ck_assert_mem_eq(plain.data, "hello", 5);
    ck_assert_int_eq(
        compress_unpack(CODEC_SNAPPY, bomb, sizeof bomb, 1 << 20, &plain),
        ERR_TOO_LARGE);
    ck_assert_str_eq(compress_name(4), "zstd");
    ck_assert_str_eq(compress_name(7), "unknown");
    buffer_free(&plain);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("batch");
    TCase *tc = tcase_create("batch");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, test_batch__build_and_read, 0, 5);
    tcase_add_test(tc, test_batch__golden_bytes);
    tcase_add_loop_test(tc, test_batch__damage_at_every_byte, 0, 5);
    tcase_add_loop_test(tc, test_batch__lies_with_a_right_crc, 0, 4);
    tcase_add_test(tc, test_batch__refusals);
    tcase_add_loop_test(tc, test_batch__keys_of_compacted_topics, 0, 5);
    tcase_add_test(tc, test_batch__stamp);
    tcase_add_test(tc, test_batch__max_timestamp_corrected);
    tcase_add_test(tc, test_batch__sequence_wraps);
    tcase_add_loop_test(tc, test_compress__round_trip_and_bound, 0, 5);
    tcase_add_loop_test(tc, test_compress__damage, 1, 5);
    tcase_add_test(tc, test_compress__bare_snappy_and_bombs);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
