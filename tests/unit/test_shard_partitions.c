/* Topics of hundreds of partitions on one broker: their replicas are opened and
 * deleted a few at a time, also when a topic goes before all of them are open,
 * or the process ends in between, or they are found at a start and no topic has
 * them. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/broker_impl.h"
#include "raft/group_impl.h"
#include "tests/unit/unit_broker.h"

#define PARTITIONS 300
/* Of a shard, in one turn of its loop. */
#define AT_ONCE 64

static struct sim *sim;
static struct unit_broker unit;
static int n_before, worst;

static int n_open(void)
{
    return (int)HASH_COUNT(broker_shard(unit.broker, 0)->partitions);
}

/* Replicas that the log knows, without the metadata's. */
static int n_groups(void)
{
    return (int)broker_shard(unit.broker, 0)->host->n_groups - 1;
}

static int (*watched)(void);

static void watch(void *arg, struct sim_node *n)
{
    (void)arg;
    if (n == unit.node && unit.ready) {
        int now = watched();
        worst = abs(now - n_before) > worst ? abs(now - n_before) : worst;
        n_before = now;
    }
}

static void begin_with(unsigned shards)
{
    sim = sim_new(1);
    unit = (struct unit_broker){
        .n_shards = shards,
        .properties =
            "node.id=1\nlisteners=PLAINTEXT://b:9092\npeer.listener=b:9093\n"
            "log.dirs=/data\n"};
    n_before = worst = 0;
    watched = n_open;
    sim_on_event(sim, watch, NULL);
    unit_broker_start(sim, "b", &unit);
    ck_assert(sim_run_while_not(sim, unit_broker_is_ready, &unit, 20 * SIM_S));
}

static void begin(void)
{
    begin_with(1);
}

static void crash_and_restart(void)
{
    sim_node_crash(unit.node, SIM_KILL);
    sim_node_restart(unit.node);
    ck_assert(sim_run_while_not(sim, unit_broker_is_ready, &unit, 20 * SIM_S));
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
    metadata_create_topics(broker_metadata(unit.broker), &topic, 1, false,
                           10000, &call);
}

static struct metadata_call second;

static void call_delete(struct env *env, void *arg)
{
    static const struct metadata_topic_ref topic = {.name = "t"};
    (void)env, (void)arg;
    second = (struct metadata_call){.cb = on_called};
    metadata_delete_topics(broker_metadata(unit.broker), &topic, 1, 10000,
                           &second);
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
    sim_node_call(unit.node, 0, call_create, NULL);
    ck_assert(sim_run_while_not(sim, is_open, &until, 20 * SIM_S));
}

static void check_all_gone(void)
{
    sim_run_for(sim, 5 * SIM_S);
    ck_assert_int_eq(n_open(), 0);
    ck_assert_int_eq(n_groups(), 0);
    ck_assert_ptr_null(broker_shard(unit.broker, 0)->opening);
    ck_assert_ptr_null(broker_shard(unit.broker, 0)->leaders);
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
    sim_node_call(unit.node, 0, call_delete, NULL);
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
    sim_node_call(unit.node, 0, call_delete, NULL);
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
    sim_node_call(unit.node, 0, call_delete, NULL);
    ck_assert(sim_run_while_not(sim, is_gone, &some, 20 * SIM_S));
    ck_assert_int_gt(n_open(), 0);
    crash_and_restart();
    check_all_gone();
    crash_and_restart();
    check_all_gone();
    sim_free(sim);
}
END_TEST

static const struct image_topic *topic_of(unsigned shard)
{
    return image_topic(broker_shard(unit.broker, shard)->image, "t", 1);
}

/* Shard 0 knows that the topic is deleted, shard 1 does not. */
static bool is_between(void *arg)
{
    (void)arg;
    return topic_of(0) == NULL && topic_of(1) != NULL;
}

static void call_tell(struct env *env, void *arg)
{
    const struct group_id *id = arg;
    (void)env;
    shard_leader_tell(broker_shard(unit.broker, 1), id, 1, 1);
}

/* Who leads is told from shard to shard, each of which hears of the deletion by
 * itself: nothing stays of what comes later. */
START_TEST(test_shard_partitions__leaders_are_forgotten)
{
    begin_with(3);
    sim_node_call(unit.node, 0, call_create, NULL);
    sim_run_for(sim, SIM_S);
    struct group_id id = {.topic = topic_of(1)->id, .partition = 7};
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_ptr_nonnull(
            shard_leader_find(broker_shard(unit.broker, i), &id));
    }
    sim_node_call(unit.node, 0, call_delete, NULL);
    ck_assert(sim_run_while_not(sim, is_between, NULL, 20 * SIM_S));
    sim_node_call(unit.node, 1, call_tell, &id);
    sim_run_for(sim, SIM_S);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_ptr_null(broker_shard(unit.broker, i)->partitions);
        ck_assert_ptr_null(broker_shard(unit.broker, i)->leaders);
    }
    sim_free(sim);
}
END_TEST

/* ---- what was left behind ------------------------------------------------ */
static struct group_creation left[PARTITIONS];

/* Replicas of a topic that the metadata never had, with these numbers. */
static void note_replicas(void)
{
    const struct image *image = broker_shard(unit.broker, 0)->image;
    const struct image_topic *t = image_topic(image, "t", 1);
    ck_assert_ptr_nonnull(t);
    for (int i = 0; i < PARTITIONS; i++) {
        left[i] = (struct group_creation){
            .id = {.topic = {{9}}, .partition = i},
            .directory = image_broker(image, 1)->directory,
            .self = t->partitions[i].replicas[0].id,
            .n_replicas = 1,
            .replicas = {t->partitions[i].replicas[0]}};
    }
}

static enum err l_restore(void *sm, log_index settled, raft_term_t term,
                          const uint8_t *blob, uint32_t size)
{
    (void)sm, (void)settled, (void)term, (void)blob, (void)size;
    return ERR_OK;
}
static void l_entry(void *sm, const struct group_entry *entry)
{
    (void)sm, (void)entry;
}
static void l_index(void *sm, log_index index)
{
    (void)sm, (void)index;
}
static void l_role(void *sm, const struct group_role *role)
{
    (void)sm, (void)role;
}

static void call_leave(struct env *env, void *arg)
{
    static const struct group_ops ops = {.restore = l_restore,
                                         .appended = l_entry,
                                         .truncated = l_index,
                                         .applied = l_entry,
                                         .durable = l_index,
                                         .role_changed = l_role,
                                         .evicted = l_index};
    char dir[128], path[160], topic[UUID_TEXT_SIZE];
    (void)arg;
    uuid_format(&left[0].id.topic, topic);
    for (int i = 0; i < PARTITIONS; i++) {
        struct group *g = NULL;
        snprintf(dir, sizeof dir, "/data/partitions/gone-%d.%s.%llu", i, topic,
                 (unsigned long long)left[i].self);
        snprintf(path, sizeof path, "%s/file", dir);
        ck_assert_int_eq(env_dir_make(env, dir), ERR_OK);
        ck_assert_int_eq(env_file_write_whole(env, path, "x", 1), ERR_OK);
        ck_assert_int_eq(raft_host_create(broker_shard(unit.broker, 0)->host,
                                          &left[i], &ops, NULL, &g),
                         ERR_OK);
    }
}

static int n_dirs;
static void note_dir(void *arg, const char *path, uint64_t size)
{
    (void)arg, (void)size;
    n_dirs += strstr(path, "/partitions/gone-") != NULL;
}

static int count_dirs(void)
{
    n_dirs = 0;
    sim_disk_list(unit.node, note_dir, NULL);
    return n_dirs;
}

/* Replicas of which the metadata only knows that their numbers were given out:
 * they go as others do, a few in a turn. */
START_TEST(test_shard_partitions__left_behind)
{
    int none = 0;
    begin();
    create(PARTITIONS);
    sim_run_for(sim, SIM_S);
    note_replicas();
    sim_node_call(unit.node, 0, call_delete, NULL);
    ck_assert(sim_run_while_not(sim, is_gone, &none, 20 * SIM_S));
    check_all_gone();
    sim_node_call(unit.node, 0, call_leave, NULL);
    sim_run_for(sim, 100 * SIM_MS);
    ck_assert_int_eq(n_groups(), PARTITIONS);
    ck_assert_int_eq(count_dirs(), PARTITIONS);
    watched = n_groups;
    n_before = PARTITIONS;
    worst = 0;
    crash_and_restart();
    ck_assert_int_gt(worst, 0);
    ck_assert_int_le(worst, AT_ONCE);
    check_all_gone();
    ck_assert_int_eq(count_dirs(), 0);
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
    tcase_add_test(c, test_shard_partitions__leaders_are_forgotten);
    tcase_add_test(c, test_shard_partitions__left_behind);
    suite_add_tcase(suite, c);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
