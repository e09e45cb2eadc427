/* A shard's checkpoint: bytes, the two files kept, damage. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "raft/checkpoint.h"
#include "tests/sim/sim_env.h"

static struct sim *sim;
static struct sim_node *node;
static struct env *env;

static void setup(void)
{
    sim = sim_new(3);
    node = sim_node_add(sim, "one", 1);
    sim_node_start(node, NULL, NULL);
    env = sim_env(node, 0);
    ck_assert_int_eq(env_dir_make(env, "/d"), ERR_OK);
}

static void teardown(void)
{
    sim_free(sim);
}

static struct group_id id_of(int k)
{
    struct group_id id = {.partition = k};
    id.topic.b[15] = 1;
    return id;
}

static void *example(uint64_t seq, size_t *size)
{
    struct checkpoint_group groups[3] = {{.settled = {0}}};
    struct checkpoint c = {.seq = seq,
                           .log_id = 77,
                           .position = 1000 + seq,
                           .n_groups = 3,
                           .groups = groups};
    for (int k = 0; k < 3; k++) {
        groups[k].creation =
            (struct group_creation){.id = id_of(k), .self = 5, .n_replicas = k};
        groups[k].settled.v = 10 * seq + (uint64_t)k;
        groups[k].settled_term.v = 3;
        groups[k].term.v = 4;
        groups[k].vote = 5;
        groups[k].config_index.v = 2;
        groups[k].config = (const uint8_t *)"config";
        groups[k].config_size = 6;
        groups[k].blob = (const uint8_t *)"blobblob";
        groups[k].blob_size = (uint32_t)k * 4;
    }
    return checkpoint_encode(&c, size);
}

static void save(uint64_t seq)
{
    size_t size;
    void *bytes = example(seq, &size);
    ck_assert_int_eq(checkpoint_save(env, "/d", seq, bytes, size), ERR_OK);
    mem_free(bytes);
}

START_TEST(test_checkpoint__round_trip)
{
    size_t size;
    struct checkpoint c;
    void *bytes = example(9, &size);
    ck_assert_int_eq(checkpoint_decode(bytes, size, &c), ERR_OK);
    ck_assert_uint_eq(c.seq, 9);
    ck_assert_uint_eq(c.log_id, 77);
    ck_assert_uint_eq(c.position, 1009);
    ck_assert_uint_eq(c.n_groups, 3);
    struct group_id id = id_of(2), none = id_of(4);
    const struct checkpoint_group *g = checkpoint_find(&c, &id);
    ck_assert_ptr_nonnull(g);
    ck_assert_uint_eq(g->settled.v, 92);
    ck_assert_uint_eq(g->blob_size, 8);
    ck_assert_mem_eq(g->blob, "blobblob", 8);
    ck_assert_mem_eq(g->config, "config", 6);
    ck_assert_int_eq(g->creation.n_replicas, 2);
    ck_assert_ptr_null(checkpoint_find(&c, &none));
    checkpoint_free(&c);
}
END_TEST

START_TEST(test_checkpoint__every_byte_counts_and_every_cut)
{
    size_t size;
    struct checkpoint c;
    uint8_t *bytes = example(9, &size);
    for (size_t k = 0; k < size; k++) {
        bytes[k] ^= 0x40;
        ck_assert_int_ne(checkpoint_decode(bytes, size, &c), ERR_OK);
        bytes[k] ^= 0x40;
        ck_assert_int_eq(checkpoint_decode(bytes, k, &c), ERR_CORRUPT);
    }
    mem_free(bytes);
}
END_TEST

static void count_name(void *arg, const char *name)
{
    (void)name;
    ++*(int *)arg;
}

START_TEST(test_checkpoint__two_are_kept_and_the_newest_readable_is_used)
{
    struct checkpoint c;
    int n = 0;
    ck_assert_int_eq(checkpoint_load(env, "/d", &c), ERR_NOT_FOUND);
    for (uint64_t seq = 1; seq <= 12; seq++) {
        save(seq);
    }
    ck_assert_int_eq(env_dir_list(env, "/d", count_name, &n), ERR_OK);
    ck_assert_int_eq(n, 2);
    ck_assert_int_eq(checkpoint_load(env, "/d", &c), ERR_OK);
    ck_assert_uint_eq(c.seq, 12);
    checkpoint_free(&c);
    ck_assert(sim_disk_flip(node, "/d/checkpoint-00000000000000000012", 99, 1));
    ck_assert_int_eq(checkpoint_load(env, "/d", &c), ERR_OK);
    ck_assert_uint_eq(c.seq, 11);
    checkpoint_free(&c);
    ck_assert(sim_disk_flip(node, "/d/checkpoint-00000000000000000011", 50, 1));
    ck_assert_int_eq(checkpoint_load(env, "/d", &c), ERR_CORRUPT);
}
END_TEST

START_TEST(test_checkpoint__survives_power_loss)
{
    struct checkpoint c;
    save(1);
    ck_assert_int_eq(env_dir_sync(env, "/"), ERR_OK);
    save(2);
    sim_node_crash(node, SIM_DROP_ALL);
    sim_node_restart(node);
    env = sim_env(node, 0);
    ck_assert_int_eq(checkpoint_load(env, "/d", &c), ERR_OK);
    ck_assert_uint_eq(c.seq, 2);
    checkpoint_free(&c);
}
END_TEST

START_TEST(test_checkpoint__no_space_leaves_the_old_ones)
{
    struct checkpoint c;
    size_t size;
    save(1);
    save(2);
    sim_disk_capacity(node, 1);
    void *bytes = example(3, &size);
    ck_assert_int_eq(checkpoint_save(env, "/d", 3, bytes, size), ERR_NOSPACE);
    mem_free(bytes);
    ck_assert_int_eq(checkpoint_load(env, "/d", &c), ERR_OK);
    ck_assert_uint_eq(c.seq, 2);
    checkpoint_free(&c);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("checkpoint");
    TCase *tcase = tcase_create("checkpoint");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_checkpoint__round_trip);
    tcase_add_test(tcase, test_checkpoint__every_byte_counts_and_every_cut);
    tcase_add_test(
        tcase, test_checkpoint__two_are_kept_and_the_newest_readable_is_used);
    tcase_add_test(tcase, test_checkpoint__survives_power_loss);
    tcase_add_test(tcase, test_checkpoint__no_space_leaves_the_old_ones);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
