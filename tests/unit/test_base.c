/* Units of base/ that need no environment: errors, ids, checksums, memory,
 * buffers, random numbers, log. */
#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buffer.h"
#include "base/crc32c.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/prng.h"
#include "base/types.h"

START_TEST(test_err__names_and_texts)
{
    ck_assert_str_eq(err_name(ERR_OK), "ERR_OK");
    ck_assert_str_eq(err_name(ERR_LOST), "ERR_LOST");
    ck_assert_str_eq(err_text(ERR_NOSPACE), "no space left on device");
}
END_TEST

START_TEST(test_assert__aborts)
{
    ASSERT(1 + 1 == 3);
}
END_TEST

static void exit_with_seven(void *arg, const char *file, int line,
                            const char *what)
{
    (void)file;
    (void)line;
    exit(strcmp(what, "arg == NULL") == 0 ? *(int *)arg : 1);
}

START_TEST(test_assert__hook_comes_first)
{
    int seven = 7;
    void *arg = &seven;
    assert_set_hook(exit_with_seven, arg);
    ASSERT(arg == NULL);
}
END_TEST

START_TEST(test_crc32c__known_values)
{
    uint8_t zeros[32] = {0};
    ck_assert_uint_eq(crc32c(0, "123456789", 9), 0xe3069283);
    ck_assert_uint_eq(crc32c(0, zeros, 32), 0x8a9136aa); /* RFC 3720 B.4 */
    ck_assert_uint_eq(crc32c(0, "", 0), 0);
    ck_assert_uint_eq(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
    for (size_t at = 0; at <= 9; at++) {
        const char *all = "123456789";
        ck_assert_uint_eq(crc32c_join(crc32c(0, all, at),
                                      crc32c(0, all + at, 9 - at), 9 - at),
                          0xe3069283);
    }
    static const uint8_t many[100000] = {1, 2, 3};
    ck_assert_uint_eq(crc32c_join(crc32c(0, "12", 2),
                                  crc32c(0, many, sizeof many), sizeof many),
                      crc32c(crc32c(0, "12", 2), many, sizeof many));
}
END_TEST

START_TEST(test_uuid__text_and_back)
{
    struct uuid id, back;
    char text[UUID_TEXT_SIZE];
    for (int i = 0; i < 16; i++) {
        id.b[i] = (uint8_t)(0xff - i * 17);
    }
    uuid_format(&id, text);
    ck_assert_uint_eq(strlen(text), 22);
    ck_assert_str_eq(text, "_-7dzLuqmYh3ZlVEMyIRAA");
    ck_assert(uuid_parse(text, &back));
    ck_assert(uuid_equal(&id, &back));
    memset(&id, 0, sizeof id);
    uuid_format(&id, text);
    ck_assert_str_eq(text, "AAAAAAAAAAAAAAAAAAAAAA");
    ck_assert(uuid_is_zero(&id));
}
END_TEST

START_TEST(test_uuid__refuses_what_is_none)
{
    struct uuid id;
    ck_assert(!uuid_parse("", &id));
    ck_assert(!uuid_parse("AAAAAAAAAAAAAAAAAAAAA", &id));
    ck_assert(!uuid_parse("AAAAAAAAAAAAAAAAAAAAAAA", &id));
    ck_assert(!uuid_parse("AAAAAAAAAAAAAAAAAAAAA+", &id));
    ck_assert(!uuid_parse("AAAAAAAAAAAAAAAAAAAAAB", &id)); /* stray bits */
    ck_assert(uuid_parse("AAAAAAAAAAAAAAAAAAAAAQ", &id));
    ck_assert_uint_eq(id.b[15], 1);
}
END_TEST

START_TEST(test_mem__plain)
{
    char *p = mem_strdup("ten bytes");
    p = mem_realloc(p, 100000);
    ck_assert_str_eq(p, "ten bytes");
    mem_free(p);
    mem_free(NULL);
    uint8_t *z = mem_zalloc(1000);
    for (int i = 0; i < 1000; i++) {
        ck_assert_uint_eq(z[i], 0);
    }
    mem_free(z);
    for (size_t align = 1; align <= 65536; align *= 2) {
        uint8_t *a = mem_alloc_aligned(align, 4096);
        ck_assert_uint_eq((uintptr_t)a % align, 0);
        memset(a, 1, 4096);
        mem_free_aligned(a);
    }
    void *empty = mem_alloc(0), *other = mem_alloc(0);
    ck_assert_ptr_ne(empty, other);
    mem_free(empty);
    mem_free(other);
}
END_TEST

START_TEST(test_mem__arena_counts_and_drops)
{
    struct mem_arena *arena = mem_arena_new();
    void *outside = mem_alloc(10);
    ck_assert_ptr_null(mem_arena_enter(arena));
    uint8_t *p = mem_alloc(100);
    ck_assert_uint_eq(p[0], 0xa5);
    ck_assert_uint_eq(p[99], 0xa5);
    ck_assert_uint_eq(((uintptr_t)p) % 16, 0);
    uint8_t *a = mem_alloc_aligned(4096, 4096);
    ck_assert_uint_eq((uintptr_t)a % 4096, 0);
    ck_assert_uint_eq(mem_arena_bytes(arena), 4196);
    memset(p, 7, 100);
    p = mem_realloc(p, 200);
    ck_assert_uint_eq(p[99], 7);
    ck_assert_uint_eq(p[100], 0xa5);
    uint8_t *z = mem_zalloc(50);
    ck_assert_uint_eq(z[49], 0);
    mem_free(outside);
    ck_assert_ptr_eq(mem_arena_enter(NULL), arena);
    ck_assert_uint_eq(mem_arena_bytes(arena), 4346);
    mem_free(p); /* singly, from outside */
    mem_free_aligned(a);
    ck_assert_uint_eq(mem_arena_bytes(arena), 50);
    mem_arena_enter(arena);
    (void)mem_alloc_aligned(4096, 10);
    (void)mem_strdup("dropped with the arena");
    mem_arena_enter(NULL);
    mem_arena_drop(arena);
}
END_TEST

START_TEST(test_buffer__grows_and_consumes)
{
    struct buffer b;
    uint8_t expected[3000];
    size_t size;
    buffer_init(&b);
    for (size_t i = 0; i < sizeof expected; i++) {
        expected[i] = (uint8_t)(i * 7);
        buffer_append(&b, &expected[i], 1);
    }
    ck_assert_uint_eq(b.size, sizeof expected);
    ck_assert_mem_eq(b.data, expected, sizeof expected);
    buffer_consume(&b, 1000);
    ck_assert_uint_eq(b.size, 2000);
    ck_assert_mem_eq(b.data, expected + 1000, 2000);
    memcpy(buffer_reserve(&b, 10), "0123456789", 10);
    buffer_added(&b, 10);
    uint8_t *taken = buffer_take(&b, &size);
    ck_assert_uint_eq(size, 2010);
    ck_assert_mem_eq(taken + 2000, "0123456789", 10);
    ck_assert_uint_eq(b.size, 0);
    mem_free(taken);
    buffer_free(&b);
}
END_TEST

START_TEST(test_chunk__bound_and_reuse)
{
    struct chunk_pool *pool = chunk_pool_new(4096, 4096, 2, 1);
    struct chunk *a = chunk_new(pool), *b = chunk_new(pool);
    ck_assert_ptr_nonnull(b);
    ck_assert_ptr_null(chunk_new(pool));
    ck_assert_uint_eq((uintptr_t)a->data % 4096, 0);
    chunk_ref(a);
    chunk_unref(a);
    ck_assert_uint_eq(chunk_pool_used(pool), 2);
    a->size = 5;
    chunk_unref(a);
    chunk_unref(b);
    ck_assert_uint_eq(chunk_pool_used(pool), 0);
    ck_assert_ptr_eq(chunk_new(pool), a);
    ck_assert_uint_eq(a->size, 0);
    chunk_unref(a);
    chunk_pool_free(pool);
}
END_TEST

START_TEST(test_prng__same_seed_same_numbers)
{
    struct prng a, b, c;
    uint64_t differ = 0, seen[5] = {0};
    prng_seed(&a, 42);
    prng_seed(&b, 42);
    prng_seed(&c, 43);
    for (int i = 0; i < 1000; i++) {
        uint64_t x = prng_next(&a);
        ck_assert_uint_eq(x, prng_next(&b));
        differ += x != prng_next(&c);
        seen[prng_between(&a, 10, 14) - 10]++;
        prng_between(&b, 10, 14);
    }
    ck_assert_uint_eq(differ, 1000);
    for (int i = 0; i < 5; i++) {
        ck_assert_uint_gt(seen[i], 150);
    }
}
END_TEST

static void keep_line(void *arg, enum log_level level, const char *component,
                      const char *line)
{
    struct buffer *b = arg;
    ck_assert_int_eq(level, LOG_WARN);
    ck_assert_str_eq(component, "test");
    buffer_clear(b);
    buffer_append(b, line, strlen(line) + 1);
}

START_TEST(test_log__cut_and_filtered)
{
    struct buffer b;
    char longer[3000];
    buffer_init(&b);
    log_set_sink(keep_line, &b);
    log_set_level(LOG_WARN);
    log_info("test", "below the level");
    ck_assert_uint_eq(b.size, 0);
    log_warn("test", "hello n=%d", 1);
    ck_assert_str_eq((char *)b.data, "hello n=1");
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    log_warn("test", "%s", longer);
    ck_assert_uint_eq(b.size, LIMIT_LOG_LINE);
    log_set_sink(NULL, NULL);
    buffer_free(&b);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("base");
    TCase *tc = tcase_create("base");
    tcase_add_test(tc, test_err__names_and_texts);
    tcase_add_test_raise_signal(tc, test_assert__aborts, 6);
    tcase_add_exit_test(tc, test_assert__hook_comes_first, 7);
    tcase_add_test(tc, test_crc32c__known_values);
    tcase_add_test(tc, test_uuid__text_and_back);
    tcase_add_test(tc, test_uuid__refuses_what_is_none);
    tcase_add_test(tc, test_mem__plain);
    tcase_add_test(tc, test_mem__arena_counts_and_drops);
    tcase_add_test(tc, test_buffer__grows_and_consumes);
    tcase_add_test(tc, test_chunk__bound_and_reuse);
    tcase_add_test(tc, test_prng__same_seed_same_numbers);
    tcase_add_test(tc, test_log__cut_and_filtered);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
