/* One partition on three brokers: real hosts, write-ahead logs and transports
 * in the simulator. What was acknowledged is read back from every replica, at
 * its offset, whatever crashed; replicas hold the same bytes; a replica that
 * was away for long catches up by transfer. */
#include "tests/unit/cluster_world.h"

/* ---- tests --------------------------------------------------------------- */
START_TEST(test_cluster__produce_and_kill)
{
    static const enum sim_crash how[] = {SIM_KILL, SIM_DROP_ALL, SIM_KEEP_ALL,
                                         SIM_RANDOM, SIM_TORN};
    world_begin((uint64_t)_i + 1);
    struct prng *prng = sim_prng(sim);
    producer_begin(1000);
    world_start();
    ck_assert(produce_until(50, 20));
    for (int round = 0; round < 8; round++) {
        struct node *victim = &nodes[prng_below(prng, N)];
        if (prng_chance(prng, 1, 2) && leader() != NULL) {
            victim = leader();
        }
        (void)produce_until(producer.first + 1000, 1);
        crash(victim, how[prng_below(prng, 5)]);
        (void)produce_until(producer.first + 1000, 2);
        if (prng_chance(prng, 1, 3)) {
            for (int i = 0; i < N; i++) {
                if (sim_node_up(nodes[i].sim_node)) {
                    crash(&nodes[i], how[prng_below(prng, 5)]);
                }
            }
        }
        for (int i = 0; i < N; i++) {
            if (!sim_node_up(nodes[i].sim_node)) {
                sim_node_restart(nodes[i].sim_node);
            }
        }
    }
    ck_assert(produce_until(producer.n, 30));
    check_replicas();
    producer_end();
    sim_free(sim);
}
END_TEST

/* A follower away for longer than the window gets segments; its own are used
 * as far as they go; twice, with retention in between, and with crashes. */
START_TEST(test_cluster__catch_up)
{
    world_begin((uint64_t)_i + 50);
    struct prng *prng = sim_prng(sim);
    small_buffer = true;
    if (_i % 2 == 1) {
        config.retention_bytes = 3000000;
    }
    producer_begin(20000);
    world_start();
    ck_assert(produce_until(40, 20));
    for (int round = 0; round < 3; round++) {
        struct node *away = leader() == &nodes[1] ? &nodes[2] : &nodes[1];
        sim_run_for(sim, SIM_S);
        crash(away, _i % 3 == 0 ? SIM_KILL : SIM_DROP_ALL);
        ck_assert(produce_until(producer.n + 250, 60));
        sim_run_for(sim, 8 * SIM_S);
        sim_node_restart(away->sim_node);
        if (round == 1) { /* in the middle of it */
            sim_run_for(sim, prng_below(prng, 1000) * SIM_MS);
            crash(away, SIM_RANDOM);
            sim_node_restart(away->sim_node);
        }
        ck_assert(produce_until(producer.n + 20, 60));
        check_replicas();
    }
    producer_end();
    sim_free(sim);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("partition_cluster");
    TCase *tc = tcase_create("partition_cluster");
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, test_cluster__produce_and_kill, 0, 6);
    tcase_add_loop_test(tc, test_cluster__catch_up, 0, 4);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
