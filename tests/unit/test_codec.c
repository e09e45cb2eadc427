/* The generated messages: golden bytes, every message at every version there
 * and back, cut and damaged input. */
#include <check.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/codec.h"
#include "schema/api_versions.h"
#include "schema/apis.h"
#include "schema/consumer_group_heartbeat.h"
#include "schema/consumer_offsets.h"
#include "schema/fetch.h"
#include "schema/header.h"
#include "schema/metadata.h"
#include "schema/offset_fetch.h"
#include "schema/produce.h"
#include "tests/unit/codec_random.h"

static struct arena arena;

static void setup(void)
{
    arena_init(&arena, 1 << 24);
}

static void teardown(void)
{
    arena_free(&arena);
}

static uint8_t *flatten(struct wire_writer *w, size_t *size)
{
    uint8_t *flat = arena_alloc(&arena, w->size);
    wire_writer_copy(w, flat);
    *size = w->size;
    wire_writer_free(w);
    return flat;
}

static uint8_t *encode(const struct codec_message *m, const void *in,
                       int version, size_t *size)
{
    struct wire_writer w;
    wire_writer_init(&w, 0);
    codec_encode(m, &w, in, version);
    ck_assert_uint_eq(w.size, codec_size(m, in, version));
    return flatten(&w, size);
}

START_TEST(test_golden__api_versions_request_v4)
{
    static const char bytes[] =
        "\x00\x12\x00\x04\x01\x02\x03\x04\x00\x0a"
        "producer-1"
        "\x00"
        "\x12"
        "apache-kafka-java"
        "\x06"
        "4.0.0"
        "\x00";
    struct wire_reader r;
    struct request_header h;
    struct api_versions_request q;
    wire_reader_init(&r, bytes, sizeof bytes - 1);
    request_header_decode(&r, 2, &arena, &h);
    api_versions_request_decode(&r, 4, &arena, &q);
    ck_assert_int_eq(r.err, ERR_OK);
    ck_assert_uint_eq(wire_left(&r), 0);
    ck_assert_int_eq(h.request_api_key, API_API_VERSIONS);
    ck_assert_int_eq(h.request_api_version, 4);
    ck_assert_int_eq(h.correlation_id, 0x01020304);
    ck_assert(wire_str_is(h.client_id, "producer-1"));
    ck_assert(wire_str_is(q.client_software_name, "apache-kafka-java"));
    ck_assert(wire_str_is(q.client_software_version, "4.0.0"));
    struct wire_writer w;
    wire_writer_init(&w, 0);
    request_header_encode(&w, &h, 2);
    api_versions_request_encode(&w, &q, 4);
    size_t size;
    uint8_t *flat = flatten(&w, &size);
    ck_assert_uint_eq(size, sizeof bytes - 1);
    ck_assert_mem_eq(flat, bytes, size);
}
END_TEST

START_TEST(test_golden__api_versions_unsupported)
{
    struct api_versions_response_api_key key = {
        .api_key = 18, .min_version = 0, .max_version = 5};
    struct api_versions_response a;
    api_versions_response_init(&a);
    a.error_code = 35;
    a.api_keys = &key;
    a.n_api_keys = 1;
    size_t size;
    uint8_t *flat = encode(&api_versions_response_message, &a, 0, &size);
    ck_assert_uint_eq(size, 12);
    ck_assert_mem_eq(flat, "\x00\x23\x00\x00\x00\x01\x00\x12\x00\x00\x00\x05",
                     12);
}
END_TEST

START_TEST(test_golden__api_versions_response_v3)
{
    struct api_versions_response_api_key keys[] = {
        {.api_key = 0, .min_version = 0, .max_version = 13},
        {.api_key = 18, .min_version = 0, .max_version = 5}};
    struct api_versions_response_supported_feature feature = {
        .name = WIRE_STR("f"), .min_version = 1, .max_version = 2};
    struct api_versions_response a;
    api_versions_response_init(&a);
    a.api_keys = keys;
    a.n_api_keys = 2;
    a.supported_features = &feature;
    a.n_supported_features = 1;
    a.finalized_features_epoch = -1; /* the default: not written */
    static const uint8_t want[] = {0,  0, 3, 0, 0,   0, 0, 0, 13, 0, 0,
                                   18, 0, 0, 0, 5,   0, 0, 0, 0,  0, 1,
                                   0,  8, 2, 2, 'f', 0, 1, 0, 2,  0};
    size_t size;
    uint8_t *flat = encode(&api_versions_response_message, &a, 3, &size);
    ck_assert_uint_eq(size, sizeof want);
    ck_assert_mem_eq(flat, want, size);
}
END_TEST

START_TEST(test_golden__nullable_struct)
{
    struct consumer_group_heartbeat_response a, back;
    consumer_group_heartbeat_response_init(&a);
    size_t size;
    uint8_t *flat =
        encode(&consumer_group_heartbeat_response_message, &a, 0, &size);
    /* throttle, error, message, member id, epoch, interval, assignment, tags */
    ck_assert_mem_eq(flat, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xff\0", 18);
    ck_assert_uint_eq(size, 18);
    struct consumer_group_heartbeat_response_assignment assignment;
    memset(&assignment, 0, sizeof assignment);
    a.assignment = &assignment;
    flat = encode(&consumer_group_heartbeat_response_message, &a, 0, &size);
    ck_assert_uint_eq(size, 20);
    ck_assert_mem_eq(flat + 16, "\x01\x01\0\0", 4);
    struct wire_reader r;
    wire_reader_init(&r, flat, size);
    consumer_group_heartbeat_response_decode(&r, 0, &arena, &back);
    ck_assert_int_eq(r.err, ERR_OK);
    ck_assert_ptr_nonnull(back.assignment);
    ck_assert_int_eq(back.assignment->n_topic_partitions, 0);
}
END_TEST

START_TEST(test_golden__nullable_struct_in_a_tag)
{
    struct consumer_group_member_metadata_value_classic_member_metadata m;
    struct consumer_group_member_metadata_value v;
    const struct codec_message *message =
        &consumer_group_member_metadata_value_message;
    consumer_group_member_metadata_value_init(&v);
    v.rebalance_timeout_ms = -1;
    v.instance_id.n = v.rack_id.n = v.subscribed_topic_regex.n = 0;
    v.server_assignor.n = 0;
    size_t size; /* bytes as Kafka's class writes them */
    uint8_t *flat = encode(message, &v, 0, &size);
    static const char start[] = "\1\1\1\1\1\1\xff\xff\xff\xff\1";
    ck_assert_uint_eq(size, 15);
    ck_assert_mem_eq(flat, start, 11);
    ck_assert_mem_eq(flat + 11, "\x01\x00\x01\x00", 4);
    memset(&m, 0, sizeof m);
    v.classic_member_metadata = &m; /* all defaults is the default */
    flat = encode(message, &v, 0, &size);
    ck_assert_uint_eq(size, 12);
    struct wire_reader r;
    wire_reader_init(&r, flat, size);
    consumer_group_member_metadata_value_decode(&r, 0, &arena, &v);
    ck_assert_int_eq(r.err, ERR_OK);
    ck_assert_ptr_nonnull(v.classic_member_metadata);
    v.classic_member_metadata->session_timeout_ms = 5;
    flat = encode(message, &v, 0, &size);
    ck_assert_uint_eq(size, 21);
    ck_assert_mem_eq(flat + 11, "\x01\x00\x07\x01\0\0\0\x05\x01\x00", 10);
}
END_TEST

START_TEST(test_decode__unknown_tags_skipped_known_kept)
{
    /* fetch v12 with cluster_id (tag 0) and an unknown tag 9 */
    struct fetch_request q, back;
    fetch_request_init(&q);
    q.cluster_id = WIRE_STR("abc");
    size_t size;
    uint8_t *flat = encode(&fetch_request_message, &q, 12, &size);
    /* ... 01 | 00 04 | 04 'a' 'b' 'c' */
    ck_assert_mem_eq(flat + size - 7,
                     "\x01\x00\x04\x04"
                     "abc",
                     7);
    uint8_t more[64];
    memcpy(more, flat, size);
    more[size - 7] = 2;
    memcpy(more + size, "\x09\x02zz", 4);
    struct wire_reader r;
    wire_reader_init(&r, more, size + 4);
    fetch_request_decode(&r, 12, &arena, &back);
    ck_assert_int_eq(r.err, ERR_OK);
    ck_assert_uint_eq(wire_left(&r), 0);
    ck_assert(wire_str_is(back.cluster_id, "abc"));
    ck_assert_int_eq(back.max_bytes, 0x7fffffff);
    /* a tag longer or shorter than its field */
    more[size - 5] = 3;
    wire_reader_init(&r, more, size + 4);
    fetch_request_decode(&r, 12, &arena, &back);
    ck_assert_int_eq(r.err, ERR_INVALID);
    more[size - 7] = 1;
    more[size - 5] = 8;
    wire_reader_init(&r, more, size + 4);
    fetch_request_decode(&r, 12, &arena, &back);
    ck_assert_int_eq(r.err, ERR_INVALID);
}
END_TEST

START_TEST(test_decode__defaults_where_absent)
{
    struct wire_reader r;
    struct metadata_request q;
    wire_reader_init(&r, "\xff\xff\xff\xff", 4);
    metadata_request_decode(&r, 1, &arena, &q);
    ck_assert_int_eq(r.err, ERR_OK);
    ck_assert_int_eq(q.n_topics, -1);
    ck_assert(q.allow_auto_topic_creation);
    wire_reader_init(&r, "\xff\xff\xff\xff", 4);
    metadata_request_decode(&r, 0, &arena, &q); /* not nullable in v0 */
    ck_assert_int_eq(r.err, ERR_INVALID);
    wire_reader_init(&r, "", 0);
    metadata_request_decode(&r, 99, &arena, &q);
    ck_assert_int_eq(r.err, ERR_UNSUPPORTED);
}
END_TEST

START_TEST(test_decode__records_are_views)
{
    static const uint8_t batch[300] = {1, 2, 3};
    struct produce_request_partition p = {
        .index = 3, .records = {.p = batch, .n = sizeof batch}};
    struct produce_request_topic t = {
        .name = WIRE_STR("t"), .partition_data = &p, .n_partition_data = 1};
    struct produce_request q, back;
    produce_request_init(&q);
    q.topic_data = &t;
    q.n_topic_data = 1;
    size_t size;
    uint8_t *flat = encode(&produce_request_message, &q, 9, &size);
    struct wire_reader r;
    wire_reader_init(&r, flat, size);
    produce_request_decode(&r, 9, &arena, &back);
    ck_assert_int_eq(r.err, ERR_OK);
    const struct wire_records *got =
        &back.topic_data[0].partition_data[0].records;
    ck_assert_int_eq(got->n, 300);
    ck_assert(got->p > flat && got->p + 300 <= flat + size);
    ck_assert_mem_eq(got->p, batch, 300);
    ck_assert_int_eq(back.transactional_id.n, -1);
}
END_TEST

START_TEST(test_decode__memory_is_bounded)
{
    /* A million empty topics: the arena's limit stops it. */
    size_t n = 1000000;
    uint8_t *frame = mem_zalloc(4 + n * 2);
    frame[1] = 0x0f, frame[2] = 0x42, frame[3] = 0x40;
    struct wire_reader r;
    struct metadata_request q;
    wire_reader_init(&r, frame, 4 + n * 2);
    arena.limit = 1 << 20;
    metadata_request_decode(&r, 4, &arena, &q);
    ck_assert_int_eq(r.err, ERR_TOO_LARGE);
    ck_assert_uint_le(arena.used, 1 << 20);
    mem_free(frame);
}
END_TEST

/* Every version of one message: random content there and back. */
static void there_and_back(const struct codec_message *m, int version,
                           struct prng *rng)
{
    void *in = arena_zalloc(&arena, m->body->size);
    void *out = arena_zalloc(&arena, m->body->size);
    codec_random(m, version, rng, &arena, in);
    size_t size, again;
    uint8_t *flat = encode(m, in, version, &size);
    struct wire_reader r;
    wire_reader_init(&r, flat, size);
    codec_decode(m, &r, version, &arena, out);
    ck_assert_msg(r.err == ERR_OK, "%s v%d: %s", m->name, version,
                  err_name(r.err));
    ck_assert_uint_eq(wire_left(&r), 0);
    uint8_t *flat_again = encode(m, out, version, &again);
    ck_assert_uint_eq(size, again);
    ck_assert_mem_eq(flat, flat_again, size);
    static char text[2][1 << 16];
    size_t length = codec_print(m, in, version, text[0], sizeof text[0]);
    ck_assert_uint_lt(length, sizeof text[0]);
    codec_print(m, out, version, text[1], sizeof text[1]);
    ck_assert_str_eq(text[0], text[1]);
}

START_TEST(test_every_message__there_and_back)
{
    struct prng rng;
    prng_seed(&rng, 1);
    ck_assert_int_gt(codec_n_messages, 200);
    for (int i = 0; i < codec_n_messages; i++) {
        const struct codec_message *m = codec_messages[i];
        for (int v = m->first; v <= m->last; v++) {
            for (int round = 0; round < 8; round++) {
                there_and_back(m, v, &rng);
                arena_free(&arena);
            }
        }
    }
}
END_TEST

START_TEST(test_every_message__cut_anywhere_is_an_error)
{
    struct prng rng;
    prng_seed(&rng, 2);
    for (int i = 0; i < codec_n_messages; i++) {
        const struct codec_message *m = codec_messages[i];
        for (int v = m->first; v <= m->last; v++) {
            void *in = arena_zalloc(&arena, m->body->size);
            void *out = arena_zalloc(&arena, m->body->size);
            codec_random(m, v, &rng, &arena, in);
            size_t size;
            uint8_t *flat = encode(m, in, v, &size);
            for (size_t cut = 0; cut < size; cut++) {
                /* memory of just that size, so that a reader that goes
                 * beyond it is caught by the sanitizer */
                uint8_t *piece = mem_alloc(cut);
                memcpy(piece, flat, cut);
                struct wire_reader r;
                wire_reader_init(&r, piece, cut);
                codec_decode(m, &r, v, &arena, out);
                ck_assert_msg(r.err == ERR_INVALID, "%s v%d cut at %zu of %zu",
                              m->name, v, cut, size);
                mem_free(piece);
            }
            arena_free(&arena);
        }
    }
}
END_TEST

START_TEST(test_every_message__damage_never_crashes)
{
    struct prng rng;
    prng_seed(&rng, 3);
    static char text[4096];
    for (int i = 0; i < codec_n_messages; i++) {
        const struct codec_message *m = codec_messages[i];
        for (int v = m->first; v <= m->last; v++) {
            void *in = arena_zalloc(&arena, m->body->size);
            void *out = arena_zalloc(&arena, m->body->size);
            codec_random(m, v, &rng, &arena, in);
            size_t size;
            uint8_t *flat = encode(m, in, v, &size);
            for (int round = 0; round < 20 && size > 0; round++) {
                flat[prng_below(&rng, size)] = (uint8_t)prng_next(&rng);
                struct wire_reader r;
                wire_reader_init(&r, flat, size);
                codec_decode(m, &r, v, &arena, out);
                codec_print(m, out, v, text, sizeof text);
            }
            arena_free(&arena);
        }
    }
}
END_TEST

START_TEST(test_every_message__huge_counts_take_no_memory)
{
    static const uint8_t frame[64] = {0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                      0xff, 0x7f, 0xff, 0xff, 0xff, 0x0f};
    for (int i = 0; i < codec_n_messages; i++) {
        const struct codec_message *m = codec_messages[i];
        for (int v = m->first; v <= m->last; v++) {
            void *out = mem_alloc(m->body->size);
            for (size_t from = 0; from < 13; from++) {
                struct wire_reader r;
                wire_reader_init(&r, frame + from, sizeof frame - from);
                codec_decode(m, &r, v, &arena, out);
                ck_assert_uint_lt(arena.used, 100000);
                arena_free(&arena);
            }
            mem_free(out);
        }
    }
}
END_TEST

START_TEST(test_apis__table)
{
    const struct codec_api *api = codec_api_find(API_PRODUCE);
    ck_assert_int_eq(api->offer_min, 0);
    ck_assert_int_eq(api->serve_min, 3);
    ck_assert_int_eq(api->serve_max, 13);
    ck_assert_int_eq(codec_request_header(api, 8), 1);
    ck_assert_int_eq(codec_request_header(api, 9), 2);
    ck_assert_int_eq(codec_response_header(api, 9), 1);
    api = codec_api_find(API_API_VERSIONS);
    ck_assert_int_eq(codec_request_header(api, 3), 2);
    ck_assert_int_eq(codec_response_header(api, 5), 0);
    api = codec_api_find(API_SASL_HANDSHAKE);
    ck_assert_int_eq(codec_request_header(api, 1), 1);
    ck_assert_ptr_null(codec_api_find(4));
    ck_assert_ptr_null(codec_api_find(-1));
    ck_assert_ptr_null(codec_api_find(INT16_MAX));
    for (int i = 1; i < codec_n_apis; i++) {
        ck_assert_int_lt(codec_apis[i - 1].key, codec_apis[i].key);
        ck_assert_ptr_eq(codec_api_find(codec_apis[i].key), &codec_apis[i]);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("codec");
    TCase *tc = tcase_create("codec");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_golden__api_versions_request_v4);
    tcase_add_test(tc, test_golden__api_versions_unsupported);
    tcase_add_test(tc, test_golden__api_versions_response_v3);
    tcase_add_test(tc, test_golden__nullable_struct);
    tcase_add_test(tc, test_golden__nullable_struct_in_a_tag);
    tcase_add_test(tc, test_decode__unknown_tags_skipped_known_kept);
    tcase_add_test(tc, test_decode__defaults_where_absent);
    tcase_add_test(tc, test_decode__records_are_views);
    tcase_add_test(tc, test_decode__memory_is_bounded);
    tcase_add_test(tc, test_every_message__there_and_back);
    tcase_add_test(tc, test_every_message__cut_anywhere_is_an_error);
    tcase_add_test(tc, test_every_message__damage_never_crashes);
    tcase_add_test(tc, test_every_message__huge_counts_take_no_memory);
    tcase_add_test(tc, test_apis__table);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
