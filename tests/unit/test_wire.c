/* The wire's primitives, and base/arena. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/mem.h"
#include "base/wire.h"

START_TEST(test_arena__aligned_and_kept)
{
    struct arena a;
    arena_init(&a, 0);
    char *first = arena_strdup(&a, "hello");
    for (size_t size = 0; size < 5000; size += 37) {
        uint8_t *p = arena_alloc(&a, size);
        ck_assert_uint_eq((uintptr_t)p % 16, 0);
        memset(p, 0xff, size);
    }
    ck_assert_str_eq(first, "hello");
    ck_assert_str_eq(arena_printf(&a, "%s %d", first, 7), "hello 7");
    arena_free(&a);
    ck_assert_uint_eq(a.used, 0);
}
END_TEST

START_TEST(test_arena__limit_is_for_try_only)
{
    struct arena a;
    arena_init(&a, 1000);
    ck_assert_ptr_nonnull(arena_try_alloc(&a, 900));
    ck_assert_ptr_null(arena_try_alloc(&a, 200));
    ck_assert_ptr_null(arena_try_alloc(&a, SIZE_MAX / 2));
    ck_assert_ptr_nonnull(arena_alloc(&a, 2000));
    arena_free(&a);
    ck_assert_uint_eq(a.limit, 1000);
}
END_TEST

START_TEST(test_arena__moved_into_another)
{
    struct arena a, b;
    size_t bytes = 0;
    char *texts[40];
    arena_init(&a, 0);
    arena_init(&b, 0);
    arena_move(&a, &b); /* nothing */
    for (int i = 0; i < 40; i++) {
        arena_alloc(&b, (size_t)i * 500);
        texts[i] = arena_printf(&b, "text %d", i);
        arena_alloc(i % 3 == 0 ? &a : &b, 100);
        if (i % 7 == 6) {
            bytes = a.used + b.used;
            arena_move(&a, &b);
            ck_assert_uint_eq(a.used, bytes);
            ck_assert_uint_eq(b.used, 0);
        }
    }
    arena_move(&a, &b);
    for (int i = 0; i < 40; i++) {
        char want[16];
        snprintf(want, sizeof want, "text %d", i);
        ck_assert_str_eq(texts[i], want);
    }
    arena_free(&b); /* has nothing of it any more */
    arena_free(&a);
}
END_TEST

static void expect(struct wire_writer *w, const void *bytes, size_t size)
{
    uint8_t *flat = mem_alloc(w->size);
    wire_writer_copy(w, flat);
    ck_assert_uint_eq(w->size, size);
    ck_assert_mem_eq(flat, bytes, size);
    mem_free(flat);
    wire_writer_free(w);
    wire_writer_init(w, 0);
}

START_TEST(test_wire__numbers)
{
    struct wire_writer w;
    wire_writer_init(&w, 0);
    wire_write_i16(&w, -2);
    wire_write_u16(&w, 65535);
    wire_write_i32(&w, 0x01020304);
    wire_write_i64(&w, -3);
    wire_write_f64(&w, 1.5);
    wire_write_bool(&w, true);
    static const uint8_t want[] = {
        0xff, 0xfe, 0xff, 0xff, 1,    2, 3, 4, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xfd, 0x3f, 0xf8, 0, 0, 0, 0,    0,    0,    1};
    struct wire_reader r;
    wire_reader_init(&r, want, sizeof want);
    ck_assert_int_eq(wire_read_i16(&r), -2);
    ck_assert_int_eq(wire_read_u16(&r), 65535);
    ck_assert_int_eq(wire_read_i32(&r), 0x01020304);
    ck_assert_int_eq(wire_read_i64(&r), -3);
    ck_assert(wire_read_f64(&r) == 1.5);
    ck_assert(wire_read_bool(&r));
    ck_assert_int_eq(r.err, ERR_OK);
    ck_assert_int_eq(wire_read_i8(&r), 0);
    ck_assert_int_eq(r.err, ERR_INVALID);
    expect(&w, want, sizeof want);
}
END_TEST

START_TEST(test_wire__varints)
{
    static const struct {
        uint32_t v;
        const char *bytes;
        size_t size;
    } t[] = {{0, "\0", 1},
             {127, "\x7f", 1},
             {128, "\x80\x01", 2},
             {300, "\xac\x02", 2},
             {UINT32_MAX, "\xff\xff\xff\xff\x0f", 5}};
    struct wire_writer w;
    wire_writer_init(&w, 0);
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct wire_reader r;
        wire_reader_init(&r, t[i].bytes, t[i].size);
        ck_assert_uint_eq(wire_read_uvarint(&r), t[i].v);
        ck_assert_int_eq(r.err, ERR_OK);
        wire_write_uvarint(&w, t[i].v);
        ck_assert_uint_eq(wire_uvarint_size(t[i].v), t[i].size);
        expect(&w, t[i].bytes, t[i].size);
    }
    wire_write_varint(&w, -1);
    wire_write_varint(&w, 64);
    wire_write_varlong(&w, INT64_MIN);
    static const uint8_t want[] = {1,    0x80, 1,    0xff, 0xff, 0xff, 0xff,
                                   0xff, 0xff, 0xff, 0xff, 0xff, 0x01};
    struct wire_reader r;
    wire_reader_init(&r, want, sizeof want);
    ck_assert_int_eq(wire_read_varint(&r), -1);
    ck_assert_int_eq(wire_read_varint(&r), 64);
    ck_assert_int_eq(wire_read_varlong(&r), INT64_MIN);
    ck_assert_int_eq(r.err, ERR_OK);
    expect(&w, want, sizeof want);
}
END_TEST

START_TEST(test_wire__varints_too_long)
{
    static const char *bad[] = {"\xff\xff\xff\xff\x1f", "\x80\x80\x80\x80\x80",
                                "\xff\xff"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct wire_reader r;
        wire_reader_init(&r, bad[i], strlen(bad[i]));
        ck_assert_uint_eq(wire_read_uvarint(&r), 0);
        ck_assert_int_eq(r.err, ERR_INVALID);
    }
}
END_TEST

START_TEST(test_wire__null_only_where_allowed)
{
    static const uint8_t null16[] = {0xff, 0xff},
                         null32[] = {255, 255, 255, 255};
    struct wire_reader r;
    wire_reader_init(&r, null16, 2);
    ck_assert_int_eq(wire_read_string(&r, false, true).n, -1);
    ck_assert_int_eq(r.err, ERR_OK);
    wire_reader_init(&r, null16, 2);
    ck_assert_int_eq(wire_read_string(&r, false, false).n, 0);
    ck_assert_int_eq(r.err, ERR_INVALID);
    wire_reader_init(&r, null32, 4);
    ck_assert_int_eq(wire_read_bytes(&r, false, true).n, -1);
    wire_reader_init(&r, "\0", 1);
    ck_assert_int_eq(wire_read_bytes(&r, true, true).n, -1);
    ck_assert_int_eq(r.err, ERR_OK);
    wire_reader_init(&r, "\0", 1);
    wire_read_bytes(&r, true, false);
    ck_assert_int_eq(r.err, ERR_INVALID);
    wire_reader_init(&r, "\xff\xfe", 2); /* -2 is no length at all */
    wire_read_string(&r, false, true);
    ck_assert_int_eq(r.err, ERR_INVALID);
    struct wire_writer w;
    wire_writer_init(&w, 0);
    wire_write_string(&w, WIRE_NULL_STR, true, false);
    wire_write_string(&w, WIRE_NULL_STR, true, true);
    wire_write_string(&w, WIRE_NULL_STR, false, false);
    expect(&w, "\x01\x00\x00\x00", 4);
}
END_TEST

START_TEST(test_wire__counts_beyond_the_frame)
{
    uint8_t frame[12] = {0, 0, 0, 2};
    struct wire_reader r;
    wire_reader_init(&r, frame, 12);
    ck_assert_int_eq(wire_read_count(&r, false, false, 4), 2);
    wire_reader_init(&r, frame, 11);
    ck_assert_int_eq(wire_read_count(&r, false, false, 4), 0);
    ck_assert_int_eq(r.err, ERR_INVALID);
    static const uint8_t huge[] = {0x7f, 255, 255, 255, 0, 0};
    wire_reader_init(&r, huge, sizeof huge);
    wire_read_count(&r, false, true, 1);
    ck_assert_int_eq(r.err, ERR_INVALID);
    static const uint8_t huge_compact[] = {255, 255, 255, 255, 15, 0};
    wire_reader_init(&r, huge_compact, sizeof huge_compact);
    wire_read_count(&r, true, true, 1);
    ck_assert_int_eq(r.err, ERR_INVALID);
}
END_TEST

START_TEST(test_wire__gather_keeps_order_and_copies_nothing)
{
    static uint8_t a[1000], b[2000], tiny[3] = {7, 7, 7};
    memset(a, 'a', sizeof a);
    memset(b, 'b', sizeof b);
    struct iovec pieces[] = {{a, sizeof a}, {b, sizeof b}, {tiny, 3}};
    struct wire_records records = {.n = 3003, .n_iov = 3, .iov = pieces};
    struct wire_writer w;
    wire_writer_init(&w, 0);
    wire_write_i32(&w, 0);
    wire_write_records(&w, &records, false, true);
    wire_write_i8(&w, 5);
    wire_patch_i32(&w, 0, (int32_t)w.size - 4);
    struct iovec iov[8];
    int n = wire_writer_iov(&w, iov, 8);
    ck_assert_int_eq(n, 4);
    ck_assert_uint_eq(iov[0].iov_len, 8);
    ck_assert_ptr_eq(iov[1].iov_base, a);
    ck_assert_ptr_eq(iov[2].iov_base, b);
    ck_assert_mem_eq(iov[3].iov_base, "\7\7\7\5", 4);
    uint8_t flat[3012];
    ck_assert_uint_eq(w.size, sizeof flat);
    wire_writer_copy(&w, flat);
    ck_assert_mem_eq(flat,
                     "\0\0\x0b\xc0\0\0\x0b\xbb"
                     "aaa",
                     11);
    ck_assert_mem_eq(flat + 3008, "\7\7\7\5", 4);
    wire_writer_free(&w);
}
END_TEST

START_TEST(test_wire__unknown_tags_are_skipped)
{
    struct wire_reader r;
    wire_reader_init(&r, "\x02\x00\x01x\x07\x02yz!", 10);
    wire_skip_tags(&r);
    ck_assert_int_eq(wire_read_i8(&r), '!');
    wire_reader_init(&r, "\x02\x00\x01x\x07\x09yz", 8);
    wire_skip_tags(&r);
    ck_assert_int_eq(r.err, ERR_INVALID);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wire");
    TCase *tc = tcase_create("wire");
    tcase_add_test(tc, test_arena__aligned_and_kept);
    tcase_add_test(tc, test_arena__limit_is_for_try_only);
    tcase_add_test(tc, test_arena__moved_into_another);
    tcase_add_test(tc, test_wire__numbers);
    tcase_add_test(tc, test_wire__varints);
    tcase_add_test(tc, test_wire__varints_too_long);
    tcase_add_test(tc, test_wire__null_only_where_allowed);
    tcase_add_test(tc, test_wire__counts_beyond_the_frame);
    tcase_add_test(tc, test_wire__gather_keeps_order_and_copies_nothing);
    tcase_add_test(tc, test_wire__unknown_tags_are_skipped);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
