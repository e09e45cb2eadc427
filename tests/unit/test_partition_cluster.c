/* One partition on three brokers: real hosts, write-ahead logs and transports
 * in the simulator. What was acknowledged is read back from every replica, at
 * its offset, whatever crashed; replicas hold the same bytes; a replica that
 * was away for long catches up by transfer. Of a compacted partition, which
 * every replica compacts by itself, all replicas tell the same table. */
#include "tests/unit/cluster_world.h"
#include "tests/unit/in_child.h"

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

static void call_hold(struct env *env, void *arg)
{
    struct reading *r = arg;
    (void)env;
    r->req = (struct partition_fetch){.offset = {r->next},
                                      .max_bytes = 1000,
                                      .at_least_one = true,
                                      .current_leader_epoch = -1,
                                      .last_fetched_epoch = -1,
                                      .arg = r};
    ck_assert(partition_fetch(r->node->p, &r->req)); /* from memory */
    ck_assert_int_eq(r->req.error, KAFKA_NONE);
}

static void call_let_go(struct env *env, void *arg)
{
    (void)env;
    partition_fetch_release(&((struct reading *)arg)->req);
}

/* Answers at the tail that nobody takes hold so much of the log buffer and not
 * more; then they get copies. */
START_TEST(test_cluster__tail_is_lent_within_bounds)
{
    enum { MOST = 1 << 20 };
    static struct reading held[200];
    struct node *n;
    int n_held = 0;

    world_begin(5);
    producer_begin(20000);
    world_start();
    ck_assert(produce_until(150, 60));
    n = leader();
    ck_assert_ptr_nonnull(n);
    n->shard->options.lent_bytes_max = MOST;
    for (int64_t at = 0; at < producer.value; at += 4) {
        held[n_held] = (struct reading){.node = n, .next = at};
        sim_node_call(n->sim_node, 0, call_hold, &held[n_held]);
        n_held++;
    }
    ck_assert(partition_shard_is_short(n->shard));
    ck_assert_uint_gt(n->shard->read_bytes, 0); /* copies */
    for (int i = 0; i < n_held; i++) {
        sim_node_call(n->sim_node, 0, call_let_go, &held[i]);
    }
    ck_assert_uint_eq(n->shard->read_bytes, 0);
    producer_end();
    sim_free(sim);
}
END_TEST

static void on_host_stopped(void *arg)
{
    *(bool *)arg = true;
}

static bool is_set(void *arg)
{
    return *(bool *)arg;
}

static bool host_stopped;

static void call_stop_and_delete(struct env *env, void *arg)
{
    struct node *n = arg;
    (void)env;
    raft_host_stop(n->host, 5000, on_host_stopped, &host_stopped);
    partition_delete(n->p);
    n->p = NULL;
}

/* The topic is deleted when its group is closed already, because its broker
 * stops: the replica is whole at the next start (and is deleted then). */
START_TEST(test_cluster__deleted_while_stopping)
{
    world_begin(6);
    producer_begin(2000);
    world_start();
    ck_assert(produce_until(60, 60));
    sim_run_for(sim, 5 * SIM_S); /* nothing is left to be settled */
    struct node *n = leader() == &nodes[1] ? &nodes[2] : &nodes[1];
    host_stopped = false;
    sim_node_call(n->sim_node, 0, call_stop_and_delete, n);
    ck_assert(sim_run_while_not(sim, is_set, &host_stopped, 10 * SIM_S));
    crash(n, SIM_KILL);
    sim_node_restart(n->sim_node);
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

static void keyed_begin(uint64_t seed)
{
    world_begin(seed);
    keyed = true;
    config.cleanup_delete = false;
    config.cleanup_compact = true;
    config.min_cleanable_dirty_ratio = 0.1;
    config.delete_retention_ms = 4000;
}

/* Kills and power losses at any time, while all replicas compact. */
START_TEST(test_cluster__compaction_and_kill)
{
    static const enum sim_crash how[] = {SIM_KILL, SIM_DROP_ALL, SIM_KEEP_ALL,
                                         SIM_RANDOM, SIM_TORN};
    keyed_begin((uint64_t)_i + 200);
    struct prng *prng = sim_prng(sim);
    config.segment_bytes = 30000;
    producer_begin(1000);
    world_start();
    ck_assert(produce_until(50, 20));
    for (int round = 0; round < 8; round++) {
        struct node *victim = &nodes[prng_below(prng, N)];
        (void)produce_until(producer.first + 500, 2);
        /* About when maintenance runs: compaction is under way. */
        sim_run_for(sim, 3 * SIM_S);
        for (int i = 0; i < 2000 && victim->shard->compacting == NULL; i++) {
            ck_assert(sim_step(sim));
        }
        sim_run_for(sim, prng_below(prng, 20000) * SIM_MS / 1000);
        crash(victim, how[prng_below(prng, 5)]);
        (void)produce_until(producer.first + 200, 1);
        sim_node_restart(victim->sim_node);
    }
    ck_assert(produce_until(producer.n, 30));
    (void)check_tables();
    sim_run_for(sim, 20 * SIM_S);
    ck_assert_int_lt(check_tables(), (int)producer.value / 4);
    producer_end();
    sim_free(sim);
}
END_TEST

/* A replica that was away gets segments that the leader has compacted, whatever
 * it has compacted itself. */
START_TEST(test_cluster__compaction_and_catch_up)
{
    keyed_begin((uint64_t)_i + 300);
    struct prng *prng = sim_prng(sim);
    small_buffer = true;
    config.segment_bytes = 200000 + 100000 * (_i % 3);
    if (_i % 4 == 3) {
        config.cleanup_delete = true;
        config.retention_bytes = 3000000;
    }
    producer_begin(20000);
    world_start();
    ck_assert(produce_until(40, 20));
    for (int round = 0; round < 4; round++) {
        struct node *away = leader() == &nodes[1] ? &nodes[2] : &nodes[1];
        sim_run_for(sim, prng_below(prng, 8000) * SIM_MS);
        crash(away, _i % 3 == 0 ? SIM_KILL : SIM_DROP_ALL);
        ck_assert(produce_until(producer.n + 250, 60));
        sim_run_for(sim, prng_below(prng, 20000) * SIM_MS);
        sim_node_restart(away->sim_node);
        if (round % 2 == 1) { /* in the middle of it */
            sim_run_for(sim, prng_below(prng, 1000) * SIM_MS);
            crash(away, SIM_RANDOM);
            sim_node_restart(away->sim_node);
        }
        ck_assert(produce_until(producer.n + 20, 60));
        if (_i % 4 != 3) {
            (void)check_tables();
        }
    }
    sim_run_for(sim, 60 * SIM_S); /* leases end */
    if (_i % 4 != 3) {
        ck_assert_int_lt(check_tables(), (int)producer.value / 4);
    }
    producer_end();
    sim_free(sim);
}
END_TEST

/* ---- faults while catching up -------------------------------------------- */
static struct node *faulty;
static bool fault_hit;

static void faulty_ended(void *arg, struct sim_node *n, const char *line)
{
    (void)arg, (void)line;
    ck_assert_ptr_eq(n, faulty->sim_node);
    fault_hit = true;
    faulty->p = NULL;
}

static bool caught_up_or_ended(void *arg)
{
    return fault_hit || all_equal(arg);
}

struct catch_up_fault {
    int kinds; /* of disk operations; 0: allocations */
    uint64_t n;
};

/* Operation or allocation number n of the replica that catches up fails; it
 * ends itself or goes on, and is whole after another start. Gives 0 when it has
 * caught up before its number n. */
static int judge_catch_up_fault(void *arg)
{
    const struct catch_up_fault *fault = arg;
    int kinds = fault->kinds;
    uint64_t n = fault->n;
    sim_on_fatal(sim, faulty_ended, NULL);
    sim_node_restart(faulty->sim_node);
    sim_run_for(sim, SIM_MS);
    uint64_t before = kinds == 0 ? sim_node_allocations(faulty->sim_node)
                                 : sim_disk_ops(faulty->sim_node, kinds);
    if (kinds == 0) {
        sim_node_fail_nth_allocation(faulty->sim_node, n);
    } else {
        sim_disk_fail_nth(faulty->sim_node, kinds, n);
    }
    bool caught_up =
        sim_run_while_not(sim, caught_up_or_ended, NULL, 120 * SIM_S);
    bool hit = fault_hit;
    if (!fault_hit) {
        uint64_t after = kinds == 0 ? sim_node_allocations(faulty->sim_node)
                                    : sim_disk_ops(faulty->sim_node, kinds);
        hit = after - before >= n;
        ck_assert(caught_up); /* survived, or the number was too large */
    }
    sim_node_fail_nth_allocation(faulty->sim_node, 0);
    sim_disk_fail_nth(faulty->sim_node, 15, 0);
    if (sim_node_up(faulty->sim_node)) {
        crash(faulty, SIM_DROP_ALL);
    }
    sim_node_restart(faulty->sim_node);
    ck_assert(produce_until(producer.n + 5, 60));
    check_replicas();
    return hit ? 1 : 0;
}

static bool catch_up_with_fault(int kinds, uint64_t n)
{
    struct catch_up_fault fault = {kinds, n};
    int hit = in_child(judge_catch_up_fault, &fault);
    ck_assert_msg(hit >= 0, "fault %d number %llu", kinds,
                  (unsigned long long)n);
    return hit == 1;
}

START_TEST(test_cluster__faults_while_catching_up)
{
    static const int kinds[] = {0, SIM_DISK_READ, SIM_DISK_WRITE, SIM_DISK_SYNC,
                                SIM_DISK_NAME};
    const char *tries = getenv("TRIES");
    uint64_t all = tries != NULL ? strtoull(tries, NULL, 10) : 12, hits = 0;
    world_begin(401);
    small_buffer = true;
    producer_begin(20000);
    world_start();
    ck_assert(produce_until(40, 20));
    sim_run_for(sim, SIM_S);
    faulty = leader() == &nodes[1] ? &nodes[2] : &nodes[1];
    crash(faulty, SIM_DROP_ALL);
    ck_assert(produce_until(producer.n + 250, 60));
    sim_run_for(sim, 8 * SIM_S);
    for (uint64_t n = 1, k = 0; k < all; k++) {
        if (!catch_up_with_fault(kinds[_i], n)) {
            break;
        }
        hits++;
        n += kinds[_i] == 0 ? 1 + n / 2 : 1 + n / 4;
    }
    ck_assert_uint_gt(hits, 2);
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
    tcase_add_loop_test(tc, test_cluster__compaction_and_kill, 0, 6);
    tcase_add_loop_test(tc, test_cluster__compaction_and_catch_up, 0, 8);
    suite_add_tcase(suite, tc);
    TCase *faults = tcase_create("faults");
    tcase_set_timeout(faults, 900);
    tcase_add_loop_test(faults, test_cluster__faults_while_catching_up, 0, 5);
    suite_add_tcase(suite, faults);
    TCase *lent = tcase_create("lent");
    tcase_set_timeout(lent, 300);
    tcase_add_test(lent, test_cluster__tail_is_lent_within_bounds);
    tcase_add_test(lent, test_cluster__deleted_while_stopping);
    suite_add_tcase(suite, lent);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
