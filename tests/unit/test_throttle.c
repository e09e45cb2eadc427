/* Rates of clients with quotas, by Kafka's arithmetic. */
#include <check.h>
#include <stdio.h>

#include "base/limits.h"
#include "base/mem.h"
#include "net/quota.h"

static struct quotas *q;
static const struct quota_windows eleven = {11, 1000};

static void setup(void)
{
    q = quotas_new(eleven, eleven);
}

static void teardown(void)
{
    quotas_free(q);
}

static const struct wire_str CLIENT = {"c", 1};

static uint32_t use(enum quota_kind kind, uint64_t now_ms, double limit,
                    double amount)
{
    struct quota_use u = {.on = true,
                          .match = {.limit = limit, .by_client = true},
                          .amount = amount};
    quotas_use(q, kind, CLIENT, now_ms, &u);
    return u.throttle_ms;
}

/* Ten windows' worth is free at once; what is beyond it takes as long as the
 * limit needs for it. */
START_TEST(test_rate__burst_then_wait)
{
    ck_assert_uint_eq(use(QUOTA_PRODUCE, 5000, 1000, 10000), 0);
    ck_assert_uint_eq(use(QUOTA_PRODUCE, 5000, 1000, 500), 500);
    ck_assert_uint_eq(use(QUOTA_PRODUCE, 5000, 1000, 500), 1000);
    /* in the window after next all of that is in the past 11 s still */
    uint32_t wait = use(QUOTA_PRODUCE, 7500, 1000, 1);
    ck_assert(wait >= 501 && wait <= 502); /* rounded up */
    /* and when its window is too old, nothing is left but this */
    ck_assert_uint_eq(use(QUOTA_PRODUCE, 16000, 1000, 1), 0);
}
END_TEST

/* A client that sends as fast as it may, and waits as it is told, comes to its
 * limit. */
START_TEST(test_rate__long_run)
{
    uint64_t now = 1000;
    double sent = 0, sent_before = 0;
    while (now < 121000) {
        uint32_t wait = use(QUOTA_PRODUCE, now, 100000, 16384);
        sent += 16384;
        if (now < 21000) {
            sent_before = sent;
        }
        now += 1 + wait;
    }
    double rate = (sent - sent_before) / 100;
    ck_assert_msg(rate > 90000 && rate < 110000, "%f", rate);
}
END_TEST

START_TEST(test_rate__not_sent_not_counted)
{
    struct quota_use u = {.on = true,
                          .match = {.limit = 1000, .by_client = true},
                          .amount = 20000,
                          .take_back = true};
    quotas_use(q, QUOTA_FETCH, CLIENT, 1000, &u);
    ck_assert_uint_eq(u.throttle_ms, 10000);
    u.amount = 10000;
    quotas_use(q, QUOTA_FETCH, CLIENT, 1000, &u);
    ck_assert_uint_eq(u.throttle_ms, 0);
    ck_assert(quota_burst(eleven, 1000) > 9999 &&
              quota_burst(eleven, 1000) < 10001);
}
END_TEST

/* A percentage of a second's nanoseconds; never told to wait longer than a
 * window. */
START_TEST(test_request__percent_of_time)
{
    ck_assert_uint_eq(use(QUOTA_REQUEST, 1000, 50, 5e9), 0);
    ck_assert_uint_eq(use(QUOTA_REQUEST, 1000, 50, 1e8), 200);
    ck_assert_uint_eq(use(QUOTA_REQUEST, 1000, 50, 5e9), 1000);
}
END_TEST

START_TEST(test_mutation__tokens)
{
    struct quota_use u = {.on = true,
                          .match = {.limit = 2, .by_client = true},
                          .amount = 30,
                          .strict = true};
    quotas_use(q, QUOTA_MUTATION, CLIENT, 1000, &u); /* 22 are saved up */
    ck_assert(!u.refused && u.throttle_ms == 0);
    u.amount = 1;
    quotas_use(q, QUOTA_MUTATION, CLIENT, 1000, &u);
    ck_assert(u.refused);
    ck_assert_uint_eq(u.throttle_ms, 4000);
    quotas_use(q, QUOTA_MUTATION, CLIENT, 4999, &u);
    ck_assert(u.refused);
    quotas_use(q, QUOTA_MUTATION, CLIENT, 5000, &u);
    ck_assert(!u.refused);
    u.strict = false; /* older clients only wait */
    quotas_use(q, QUOTA_MUTATION, CLIENT, 5000, &u);
    ck_assert(!u.refused);
    ck_assert_uint_eq(u.throttle_ms, 1000);
}
END_TEST

/* Who shares what: a client id of its own, or the user all together. */
START_TEST(test_buckets__who_shares)
{
    struct quota_use u = {.on = true, .match = {.limit = 1, .by_client = true}};
    u.amount = 20;
    const struct wire_str other = {"d", 1};
    quotas_use(q, QUOTA_PRODUCE, CLIENT, 1000, &u);
    ck_assert_uint_gt(u.throttle_ms, 0);
    u.amount = 1;
    quotas_use(q, QUOTA_PRODUCE, other, 1000, &u);
    ck_assert_uint_eq(u.throttle_ms, 0);
    u.match.by_user = true;
    u.match.by_client = false;
    u.amount = 20;
    quotas_use(q, QUOTA_PRODUCE, CLIENT, 1000, &u);
    quotas_use(q, QUOTA_PRODUCE, other, 1000, &u);
    ck_assert_uint_eq(u.throttle_ms, 30000);
    quotas_use(q, QUOTA_FETCH, other, 1000, &u);
    ck_assert_uint_eq(u.throttle_ms, 10000);
}
END_TEST

/* Client ids without end: memory is bounded, the newest are known. */
START_TEST(test_buckets__bounded)
{
    struct mem_arena *arena = mem_arena_new();
    struct mem_arena *outer = mem_arena_enter(arena);
    size_t full = 0;
    for (int i = 0; i < 2 * LIMIT_QUOTA_CLIENTS; i++) {
        char id[24];
        int n = snprintf(id, sizeof id, "client-%06d", i);
        struct quota_use u = {
            .on = true, .match = {.limit = 1, .by_client = true}, .amount = 20};
        quotas_use(q, QUOTA_PRODUCE, (struct wire_str){id, n}, 1000, &u);
        if (i == LIMIT_QUOTA_CLIENTS) {
            full = mem_arena_bytes(arena);
        }
    }
    ck_assert_uint_gt(full, 0);
    ck_assert_uint_le(mem_arena_bytes(arena), full + (1 << 20));
    quotas_free(q);
    q = NULL;
    mem_arena_enter(outer);
    mem_arena_drop(arena);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("throttle");
    TCase *c = tcase_create("throttle");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, test_rate__burst_then_wait);
    tcase_add_test(c, test_rate__long_run);
    tcase_add_test(c, test_rate__not_sent_not_counted);
    tcase_add_test(c, test_request__percent_of_time);
    tcase_add_test(c, test_mutation__tokens);
    tcase_add_test(c, test_buckets__who_shares);
    tcase_add_test(c, test_buckets__bounded);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
