/* Damage on one of three brokers that is down: it starts, repairs itself from
 * its peers, and has what they have; and it does not vote before. */
#include "tests/unit/cluster_world.h"

#include "raft/group_impl.h"
#include "raft/guard.h"

struct files {
    char paths[200][200];
    uint64_t sizes[200];
    int n;
};
static struct files files;

static void note_file(void *arg, const char *path, uint64_t size)
{
    const char *part = arg;
    bool segment = strcmp(part, ".log") == 0;
    if (strstr(path, part) != NULL && size > 0 &&
        (!segment || strstr(path, "topics/") != NULL)) {
        ck_assert_int_lt(files.n, 200);
        snprintf(files.paths[files.n], 200, "%s", path);
        files.sizes[files.n++] = size;
    }
}

/* Two bytes in every file whose path contains `part`. */
static int flip_two(struct node *n, const char *part, struct prng *prng)
{
    files.n = 0;
    sim_disk_list(n->sim_node, note_file, (void *)(uintptr_t)part);
    for (int i = 0; i < files.n; i++) {
        for (int k = 0; k < 2; k++) {
            ck_assert(sim_disk_flip(n->sim_node, files.paths[i],
                                    prng_below(prng, files.sizes[i]),
                                    (unsigned)prng_below(prng, 8)));
        }
    }
    return files.n;
}

static bool proven(void *arg)
{
    struct node *n = arg;
    return n->p != NULL && !partition_group(n->p)->proof.missing;
}

static void run_damage(uint64_t seed, const char *part, bool unproven)
{
    world_begin(seed);
    struct prng *prng = sim_prng(sim);
    producer_begin(1000);
    world_start();
    ck_assert(produce_until(600, 60));
    sim_run_for(sim, 3 * SIM_S);
    struct node *victim = &nodes[prng_below(prng, N)];
    crash(victim, SIM_DROP_ALL);
    ck_assert_int_gt(flip_two(victim, part, prng), 0);
    sim_node_restart(victim->sim_node);
    sim_run_for(sim, 3 * SIM_MS);
    ck_assert(victim->p != NULL);
    if (unproven) {
        ck_assert(!proven(victim));
    }
    ck_assert(produce_until(producer.n + 100, 60));
    check_replicas();
    ck_assert(sim_run_while_not(sim, proven, victim, 30 * SIM_S));
    /* It counts again: with it and one other the log goes on. */
    for (int i = 0; i < N; i++) {
        if (&nodes[i] != victim) {
            crash(&nodes[i], SIM_DROP_ALL);
            break;
        }
    }
    ck_assert(produce_until(producer.n + 100, 60));
    for (int i = 0; i < N; i++) {
        if (!sim_node_up(nodes[i].sim_node)) {
            sim_node_restart(nodes[i].sim_node);
        }
    }
    check_replicas();
    producer_end();
    sim_free(sim);
}

START_TEST(test_repair__checkpoints)
{
    run_damage((uint64_t)_i + 1, "checkpoint-", true);
}
END_TEST

START_TEST(test_repair__producers)
{
    run_damage((uint64_t)_i + 1, ".producers", false);
}
END_TEST

START_TEST(test_repair__segment_lists)
{
    run_damage((uint64_t)_i + 1, "/segments", false);
}
END_TEST

START_TEST(test_repair__side_files)
{
    run_damage((uint64_t)_i + 1, ".side", false);
}
END_TEST

START_TEST(test_repair__segments)
{
    run_damage((uint64_t)_i + 1, ".log", false);
}
END_TEST

START_TEST(test_repair__log_files)
{
    run_damage((uint64_t)_i + 1, "raft/wal-", false);
}
END_TEST

START_TEST(test_repair__list_of_log_files)
{
    run_damage((uint64_t)_i + 1, "raft/wal.meta", false);
}
END_TEST

static bool somebody_leads(void *arg)
{
    (void)arg;
    return leader() != NULL;
}

/* Acknowledged by two: the leader, which is down now, and one that lost all it
 * had. With the third, which never had it, it must not elect anybody. */
static bool elects_without_proof(bool guarded)
{
    world_begin(7);
    producer_begin(1000);
    world_start();
    ck_assert(produce_until(300, 60));
    sim_run_for(sim, 3 * SIM_S);
    struct node *first = leader();
    ck_assert(first != NULL);
    struct node *lost = &nodes[(first->id + 1) % N];
    struct node *late = &nodes[(first->id + 2) % N];
    crash(late, SIM_DROP_ALL);
    ck_assert(produce_until(producer.n + 100, 60));
    sim_run_for(sim, 3 * SIM_S);
    crash(lost, SIM_DROP_ALL);
    crash(first, SIM_DROP_ALL);
    files.n = 0;
    sim_disk_list(lost->sim_node, note_file, (void *)(uintptr_t) ".side");
    for (int i = 0; i < files.n; i++) { /* the heads */
        ck_assert(sim_disk_flip(lost->sim_node, files.paths[i], 9, 1));
    }
    sim_node_restart(lost->sim_node);
    sim_node_restart(late->sim_node);
    sim_run_for(sim, SIM_MS);
    ck_assert(!proven(lost));
    if (!guarded) {
        guard_set_mask(lost->host, GUARD_ALL & ~GUARD_BIT(GUARD_PROOF));
    }
    bool elected = sim_run_while_not(sim, somebody_leads, NULL, 20 * SIM_S);
    if (guarded) {
        sim_node_restart(first->sim_node);
        ck_assert(produce_until(producer.n + 20, 60));
        check_replicas();
        ck_assert(sim_run_while_not(sim, proven, lost, 30 * SIM_S));
    }
    producer_end();
    sim_free(sim);
    return elected;
}

START_TEST(test_repair__no_vote_without_proof)
{
    ck_assert(!elects_without_proof(true));
    ck_assert(elects_without_proof(false)); /* that is what the rule is for */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("repair");
    TCase *tc = tcase_create("repair");
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, test_repair__checkpoints, 0, 6);
    tcase_add_loop_test(tc, test_repair__producers, 0, 4);
    tcase_add_loop_test(tc, test_repair__segment_lists, 0, 4);
    tcase_add_loop_test(tc, test_repair__side_files, 0, 6);
    tcase_add_loop_test(tc, test_repair__segments, 0, 6);
    tcase_add_loop_test(tc, test_repair__log_files, 0, 4);
    tcase_add_loop_test(tc, test_repair__list_of_log_files, 0, 4);
    tcase_add_test(tc, test_repair__no_vote_without_proof);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
