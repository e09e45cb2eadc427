/* Topics of hundreds of partitions on one broker: their replicas are opened and
 * deleted a few at a time, also when a topic goes before all of them are open,
 * or the process ends in between. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "net/shard.h"
#include "raft/group_impl.h"
#include "tests/sim/sim_env.h"

#define PARTITIONS 300
/* Of a shard, in one turn of its loop. */
#define AT_ONCE 64

static struct sim *sim;
static struct sim_node *node;
static struct broker *broker;
static bool ready;
static int n_before, worst;

/* ---- the broker ---------------------------------------------------------- */
static void on_ready(void *arg, struct broker *b)
{
    (void)arg, (void)b;
    ready = true;
}

static void on_failed(void *arg, const char *sentence)
{
    (void)arg;
    ck_abort_msg("%s", sentence);
}

static void boot(struct env *env, void *arg)
{
    static const char text[] =
        "node.id=1\nlisteners=PLAINTEXT://b:9092\npeer.listener=b:9093\n"
        "log.dirs=/data\nshards=1\n";
    char why[256] = "";
    struct broker_config *config = broker_config_new();
    struct broker_options options = {.n_shards = 1,
                                     .envs = {env},
                                     .config = config,
                                     .ready = on_ready,
                                     .failed = on_failed};
    (void)arg;
    ck_assert_int_eq(broker_config_parse(config, text, sizeof text - 1, "test",
                                         NULL, why, sizeof why),
                     ERR_OK);
    broker = broker_start(&options);
}

static int n_open(void)
{
    return (int)HASH_COUNT(broker_shard(broker, 0)->partitions);
}

/* Replicas that the log knows, without the metadata's. */
static int n_groups(void)
{
    return (int)broker_shard(broker, 0)->host->n_groups - 1;
}

static void watch(void *arg, struct sim_node *n)
{
    (void)arg;
    if (n == node && ready) {
        int now = n_open();
        worst = abs(now - n_before) > worst ? abs(now - n_before) : worst;
        n_before = now;
    }
}

static bool is_ready(void *arg)
{
    (void)arg;
    return ready;
}

static void begin(void)
{
    sim = sim_new(1);
    node = sim_node_add(sim, "b", 1);
    ready = false;
    n_before = worst = 0;
    sim_on_event(sim, watch, NULL);
    sim_node_start(node, boot, NULL);
    ck_assert(sim_run_while_not(sim, is_ready, NULL, 20 * SIM_S));
}

static void crash_and_restart(void)
{
    ready = false;
    sim_node_crash(node, SIM_KILL);
    sim_node_restart(node);
    ck_assert(sim_run_while_not(sim, is_ready, NULL, 20 * SIM_S));
    sim_run_for(sim, 2 * SIM_S);
}

/* ---- its topic ----------------------------------------------------------- */
static struct metadata_call call;

static void on_called(struct metadata_call *c)
{
    (void)c;
}

static void call_create(struct env *env, void *arg)
{
    static const struct metadata_new_topic topic = {
        .name = "t", .n_partitions = PARTITIONS, .replication_factor = 1};
    (void)env, (void)arg;
    call = (struct metadata_call){.cb = on_called};
    metadata_create_topics(broker_metadata(broker), &topic, 1, false, 10000,
                           &call);
}

static struct metadata_call second;

static void call_delete(struct env *env, void *arg)
{
    static const struct metadata_topic_ref topic = {.name = "t"};
    (void)env, (void)arg;
    second = (struct metadata_call){.cb = on_called};
    metadata_delete_topics(broker_metadata(broker), &topic, 1, 10000, &second);
}

static bool is_open(void *arg)
{
    return n_open() >= *(const int *)arg;
}

static bool is_gone(void *arg)
{
    return n_open() <= *(const int *)arg;
}

static void create(int until)
{
    sim_node_call(node, 0, call_create, NULL);
    ck_assert(sim_run_while_not(sim, is_open, &until, 20 * SIM_S));
}

static void check_all_gone(void)
{
    sim_run_for(sim, 5 * SIM_S);
    ck_assert_int_eq(n_open(), 0);
    ck_assert_int_eq(n_groups(), 0);
    ck_assert_ptr_null(broker_shard(broker, 0)->opening);
    ck_assert_ptr_null(broker_shard(broker, 0)->leaders);
}

START_TEST(test_shard_partitions__a_few_at_a_time)
{
    int none = 0;
    begin();
    create(PARTITIONS);
    ck_assert_int_gt(worst, 0);
    ck_assert_int_le(worst, AT_ONCE);
    sim_run_for(sim, SIM_S);
    worst = 0;
    sim_node_call(node, 0, call_delete, NULL);
    ck_assert(sim_run_while_not(sim, is_gone, &none, 20 * SIM_S));
    ck_assert_int_gt(worst, 0);
    ck_assert_int_le(worst, AT_ONCE);
    check_all_gone();
    create(PARTITIONS); /* the name is free again */
    sim_free(sim);
}
END_TEST

/* What was not open yet is not opened for long. */
START_TEST(test_shard_partitions__deleted_while_opening)
{
    begin();
    create(1);
    ck_assert_int_lt(n_open(), PARTITIONS);
    sim_node_call(node, 0, call_delete, NULL);
    check_all_gone();
    ck_assert_int_le(worst, AT_ONCE);
    sim_free(sim);
}
END_TEST

/* The deletion was committed; this process ends before all are deleted, or
 * finds it in the log while it opens them again. */
START_TEST(test_shard_partitions__ended_while_deleting)
{
    int some = PARTITIONS - 1;
    begin();
    create(PARTITIONS);
    sim_run_for(sim, SIM_S);
    sim_node_call(node, 0, call_delete, NULL);
    ck_assert(sim_run_while_not(sim, is_gone, &some, 20 * SIM_S));
    ck_assert_int_gt(n_open(), 0);
    crash_and_restart();
    check_all_gone();
    crash_and_restart();
    check_all_gone();
    sim_free(sim);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("shard_partitions");
    TCase *c = tcase_create("shard_partitions");
    tcase_set_timeout(c, 300);
    tcase_add_test(c, test_shard_partitions__a_few_at_a_time);
    tcase_add_test(c, test_shard_partitions__deleted_while_opening);
    tcase_add_test(c, test_shard_partitions__ended_while_deleting);
    suite_add_tcase(suite, c);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
