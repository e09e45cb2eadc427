/* Three brokers of two shards; one is stopped. Whatever else happens, it ends
 * soon: it waits for nothing that can only come when it is gone. */
#include <check.h>
#include <stdio.h>

#include "net/shard.h"
#include "tests/unit/unit_broker.h"

#define BROKERS 3
#define SHARDS 2
#define PARTITIONS 150
/* From the signal to the end. */
#define SOON (1 * SIM_S)
/* When a hand-over fails: it is given up after 2 s. */
#define LATE (3 * SIM_S)

static struct sim *sim;
static struct unit_broker units[BROKERS];
static char properties[BROKERS][256];

static bool all_ready(void *arg)
{
    bool ready = true;
    (void)arg;
    for (int i = 0; i < BROKERS; i++) {
        ready = ready && units[i].ready;
    }
    return ready;
}

static void begin(uint64_t seed)
{
    sim = sim_new(seed);
    for (int i = 0; i < BROKERS; i++) {
        char name[8];
        snprintf(name, sizeof name, "b%d", i);
        snprintf(properties[i], sizeof properties[i],
                 "node.id=%d\nlisteners=PLAINTEXT://b%d:9092\n"
                 "peer.listener=b%d:9093\nlog.dirs=/data\nshards=%d\n"
                 "seeds=b0:9093,b1:9093,b2:9093\n",
                 i + 1, i, i, SHARDS);
        units[i] = (struct unit_broker){
            .properties = properties[i], .n_shards = SHARDS, .ends = true};
        unit_broker_start(sim, name, &units[i]);
    }
    ck_assert(sim_run_while_not(sim, all_ready, NULL, 60 * SIM_S));
}

/* ---- a change of the metadata, asked of one broker ----------------------- */
struct change {
    struct unit_broker *at;
    struct metadata_call call;
    bool done;
};

static void on_done(struct metadata_call *call)
{
    struct change *change = call->arg;
    change->done = true;
}

static bool is_done(void *arg)
{
    return ((struct change *)arg)->done;
}

static void call_create(struct env *env, void *arg)
{
    static const struct metadata_new_topic topic = {
        .name = "t", .n_partitions = PARTITIONS, .replication_factor = 3};
    struct change *change = arg;
    (void)env;
    change->call = (struct metadata_call){.cb = on_done, .arg = change};
    metadata_create_topics(broker_metadata(change->at->broker), &topic, 1,
                           false, 20000, &change->call);
}

static void call_delete(struct env *env, void *arg)
{
    static const struct metadata_topic_ref topic = {.name = "t"};
    struct change *change = arg;
    (void)env;
    change->call = (struct metadata_call){.cb = on_done, .arg = change};
    metadata_delete_topics(broker_metadata(change->at->broker), &topic, 1,
                           20000, &change->call);
}

static void create(struct unit_broker *at)
{
    struct change made = {.at = at};
    sim_node_call(at->node, 0, call_create, &made);
    ck_assert(sim_run_while_not(sim, is_done, &made, 20 * SIM_S));
    ck_assert_int_eq(made.call.error, KAFKA_NONE);
}

/* ---- the stop ------------------------------------------------------------ */
static void check_ends_in(struct unit_broker *b, uint64_t ns)
{
    uint64_t begun = sim_now_ns(sim);
    (void)sim_run_while_not(sim, unit_broker_is_stopped, b, 30 * SIM_S);
    ck_assert(b->stopped);
    ck_assert_uint_le(sim_now_ns(sim) - begun, ns);
}

/* The others delete their replicas of the topic: nobody is there to take the
 * leaderships. */
START_TEST(test_broker_stop__topic_is_deleted_meanwhile)
{
    for (uint64_t us = 0; us < 12000; us += 500) {
        begin(us + 1);
        create(&units[0]);
        sim_run_for(sim, SIM_S);
        struct change gone = {.at = &units[1]};
        sim_node_call(units[1].node, 0, call_delete, &gone);
        sim_run_for(sim, us * SIM_US);
        unit_broker_stop(&units[0]);
        check_ends_in(&units[0], SOON);
        sim_free(sim);
    }
}
END_TEST

/* All are stopped: who should take a leadership over may have closed it. */
START_TEST(test_broker_stop__all_at_once)
{
    for (uint64_t seed = 1; seed <= 10; seed++) {
        begin(seed);
        create(&units[0]);
        sim_run_for(sim, SIM_S);
        for (int i = 0; i < BROKERS; i++) {
            unit_broker_stop(&units[i]);
        }
        for (int i = 0; i < BROKERS; i++) {
            check_ends_in(&units[i], LATE);
        }
        sim_free(sim);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("broker_stop");
    TCase *c = tcase_create("broker_stop");
    tcase_set_timeout(c, 300);
    tcase_add_test(c, test_broker_stop__topic_is_deleted_meanwhile);
    tcase_add_test(c, test_broker_stop__all_at_once);
    suite_add_tcase(suite, c);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
