/* Random schedules must not break Raft's promises, and must break them when a
 * guard is missing: the first shows that the guards hold, the second that these
 * schedules would show it if they did not. */
#include <check.h>
#include <stdlib.h>

#include "tests/sim/raft_random_impl.h"

#define SEEDS 400
#define STEPS 4000

static void play_all(int n, uint64_t seeds)
{
    uint64_t committed = 0;

    for (uint64_t seed = 1; seed <= seeds; seed++) {
        struct raft_random_result r =
            raft_random_play(seed, n, STEPS, GUARD_ALL);

        ck_assert_msg(r.violation == NULL, "seed %llu: %s",
                      (unsigned long long)seed, r.violation);
        committed += r.committed;
    }
    ck_assert_uint_gt(committed, seeds * 20);
}

START_TEST(three_replicas)
{
    play_all(3, SEEDS);
}
END_TEST

START_TEST(five_replicas)
{
    play_all(5, SEEDS / 2);
}
END_TEST

START_TEST(one_replica)
{
    play_all(1, SEEDS / 4);
}
END_TEST

static bool found_without(enum guard_id id)
{
    for (uint64_t seed = 1; seed <= 2000; seed++)
        if (raft_random_play(seed, 3, STEPS, GUARD_ALL & ~GUARD_BIT(id))
                .violation != NULL)
            return true;
    return false;
}

START_TEST(missing_noop_is_found)
{
    ck_assert(found_without(GUARD_NOOP));
}
END_TEST

START_TEST(missing_ack_clamp_is_found)
{
    ck_assert(found_without(GUARD_ACK));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("raft_random");
    TCase *tc = tcase_create("schedules");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, three_replicas);
    tcase_add_test(tc, five_replicas);
    tcase_add_test(tc, one_replica);
    tcase_add_test(tc, missing_noop_is_found);
    tcase_add_test(tc, missing_ack_clamp_is_found);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
