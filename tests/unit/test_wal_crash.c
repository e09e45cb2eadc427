/* The write-ahead log under crashes at random moments, each with another fate
 * of what was not synced. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/wal_model.h"

static struct model m;

static enum sim_crash random_crash(void)
{
    static const enum sim_crash how[] = {SIM_KILL, SIM_DROP_ALL, SIM_KEEP_ALL,
                                         SIM_RANDOM, SIM_TORN};
    return how[prng_below(&m.prng, 5)];
}

static void run_seed(uint64_t seed, uint64_t *begun, uint64_t *relogged,
                     uint64_t *moved)
{
    model_begin(&m, seed);
    ck_assert_int_eq(model_open(&m), ERR_OK);
    for (int round = 0; round < 12; round++) {
        uint64_t steps = prng_below(&m.prng, 200);
        for (int k = 0; k < MODEL_GROUPS; k++) {
            m.stuck[k] = prng_below(&m.prng, 8) == 0;
        }
        for (uint64_t k = 0; k < steps; k++) {
            model_work(&m);
            model_run_us(&m, prng_below(&m.prng, 20) == 0
                                 ? 8000
                                 : prng_below(&m.prng, 600));
        }
        *begun += m.files_begun;
        *relogged += m.relogged;
        if (prng_below(&m.prng, 8) == 0) {
            model_restart(&m);
        } else {
            model_crash(&m, random_crash());
        }
        enum err e = model_open(&m);
        if (e != ERR_OK) {
            sim_fail(m.sim, "cannot open: %s", err_text(e));
        }
    }
    *moved += m.moved;
    model_end(&m);
}

START_TEST(test_wal_crash__seeds)
{
    const char *first = getenv("SEED");
    uint64_t from = first != NULL ? strtoull(first, NULL, 10) : 1;
    const char *count = getenv("SEEDS");
    uint64_t to = count != NULL   ? from + strtoull(count, NULL, 10) - 1
                  : first != NULL ? from
                                  : 150;
    uint64_t begun = 0, relogged = 0, moved = 0;
    for (uint64_t seed = from; seed <= to; seed++) {
        run_seed(seed, &begun, &relogged, &moved);
    }
    if (first == NULL) {
        run_seed(5550, &begun, &relogged, &moved); /* a size not durable */
    }
    printf("files begun %llu, bytes logged again %llu, entries moved %llu\n",
           (unsigned long long)begun, (unsigned long long)relogged,
           (unsigned long long)moved);
    if (first == NULL) {
        ck_assert_uint_gt(begun, 1000);
        ck_assert_uint_gt(relogged, 10000);
        ck_assert_uint_gt(moved, 1000);
    }
}
END_TEST

static void begin_group(struct env *env, void *arg)
{
    const int *group = arg;
    (void)env;
    model_create(&m, *group);
    for (int k = 0; k < 8 && *group == 1; k++) {
        model_entry(&m, 1, 2000);
    }
}

static void flow(struct env *env, void *arg)
{
    (void)env, (void)arg;
    model_settle(&m, 0);
    for (int k = 0; k < 3 && !m.wait_room; k++) {
        model_entry(&m, 0, 1500);
    }
}

/* Until what group 1 holds has just been queued to be logged again. */
static void run_to_relog(void)
{
    struct wal_stats stats = {.bytes_relogged = 0};
    int group = 1;
    model_begin(&m, 5);
    m.calm = true;
    m.stuck[1] = true;
    m.options.file_bytes = 128 << 10;
    m.options.bytes_max = 4 * 128 << 10;
    m.options.buffer_bytes_max = 64 << 10;
    ck_assert_int_eq(model_open(&m), ERR_OK);
    sim_node_call(m.node, 0, begin_group, &group);
    group = 0;
    sim_node_call(m.node, 0, begin_group, &group);
    for (int k = 0; k < 2000 && stats.bytes_relogged == 0; k++) {
        model_run_us(&m, 1500);
        sim_node_call(m.node, 0, flow, NULL);
        wal_stats(m.wal, &stats);
    }
    ck_assert_uint_gt(stats.bytes_relogged, 16000);
}

/* Crashes after every event while entries are logged again. */
START_TEST(test_wal_crash__while_logging_again)
{
    static const enum sim_crash how[] = {SIM_DROP_ALL, SIM_KEEP_ALL, SIM_TORN};
    for (int k = 0; k < 3 * 40; k++) {
        run_to_relog();
        for (int event = 0; event < k / 3; event++) {
            sim_step(m.sim);
        }
        model_crash(&m, how[k % 3]);
        ck_assert_int_eq(model_open(&m), ERR_OK);
        model_end(&m);
    }
}
END_TEST

/* Opening, for the first time and again, is cut off at its n-th operation. */
START_TEST(test_wal_crash__while_it_opens)
{
    /* (A failed sync would be for good, even over restarts.) */
    const int kinds = SIM_DISK_READ | SIM_DISK_WRITE | SIM_DISK_NAME;
    int cut = 0;
    for (uint64_t seed = 0; seed < 300; seed++) {
        model_begin(&m, seed);
        for (int round = 0; round < 3; round++) {
            sim_disk_fail_nth(m.node, kinds, 1 + prng_below(&m.prng, 40));
            enum err e = model_open(&m);
            if (e != ERR_OK && e != ERR_IO) {
                sim_fail(m.sim, "cannot open: %s", err_text(e));
            }
            cut += e != ERR_OK;
            sim_disk_fail_nth(m.node, kinds, 0);
            if (e != ERR_OK) {
                model_crash(&m, random_crash());
                e = model_open(&m);
                if (e != ERR_OK) {
                    sim_fail(m.sim, "cannot open: %s", err_text(e));
                }
            }
            for (int k = 0; k < 5; k++) {
                model_work(&m);
                model_run_us(&m, prng_below(&m.prng, 600));
            }
            model_crash(&m, random_crash());
        }
        model_end(&m);
    }
    ck_assert_int_gt(cut, 150);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wal_crash");
    TCase *tcase = tcase_create("wal_crash");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, test_wal_crash__seeds);
    tcase_add_test(tcase, test_wal_crash__while_logging_again);
    tcase_add_test(tcase, test_wal_crash__while_it_opens);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
