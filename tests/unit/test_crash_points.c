/* Crash points of the store. N states (1000), or the one that REPLAY names;
 * LOAD runs one load only. `make crash-points`. */
#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/unit/crash_load_store.h"
#include "tests/unit/crash_points.h"

static const struct crash_load *const all[] = {&crash_load_log,
                                               &crash_load_store};

START_TEST(test_crash_points)
{
    const struct crash_load *loads[2];
    const char *only = getenv("LOAD"), *replay = getenv("REPLAY");
    const char *count = getenv("N");
    int n_loads = 0;
    for (int k = 0; k < 2; k++) {
        if (only == NULL || *only == '\0' || strcmp(only, all[k]->name) == 0) {
            loads[n_loads++] = all[k];
        }
    }
    if (replay != NULL && *replay != '\0') {
        crash_points_replay(loads, n_loads, replay);
    }
    time_t began = time(NULL);
    struct crash_totals t = crash_points_run(
        loads, n_loads, count != NULL ? strtoull(count, NULL, 10) : 1000);
    uint64_t seconds = (uint64_t)(time(NULL) - began) + 1;
    printf("%" PRIu64 " crash states at %" PRIu64 " file operations, %" PRIu64
           " bad (%" PRIu64 " equal ones left out; %" PRIu64 " a second)\n",
           t.states, t.operations, t.bad, t.same, t.states / seconds);
    ck_assert_uint_eq(t.bad, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("crash_points");
    TCase *tcase = tcase_create("crash_points");
    tcase_set_timeout(tcase, 3600);
    tcase_add_test(tcase, test_crash_points);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
