#include "tests/unit/unit_broker.h"

#include <check.h>
#include <string.h>

static void on_ready(void *arg, struct broker *broker)
{
    struct unit_broker *b = arg;
    (void)broker;
    b->ready = true;
}

static void on_failed(void *arg, const char *sentence)
{
    struct unit_broker *b = arg;
    ck_assert_uint_gt(strlen(sentence), 0);
    if (b->failed == NULL) {
        ck_abort_msg("%s", sentence);
    }
    b->failed(b, sentence);
}

static void on_stopped(void *arg)
{
    struct unit_broker *b = arg;
    b->stopped = true;
    if (b->ends) {
        sim_node_crash(b->node, SIM_KILL);
    }
}

void unit_broker_boot(struct env *env, void *arg)
{
    struct unit_broker *b = arg;
    char why[256] = "";
    struct broker_config *config = broker_config_new();
    struct broker_options options = {
        .n_shards = b->n_shards == 0 ? 1 : b->n_shards,
        .config = config,
        .ready = on_ready,
        .failed = on_failed,
        .stopped = on_stopped,
        .arg = b};
    (void)env;
    b->ready = b->stopped = false;
    ck_assert_int_eq(
        broker_config_parse(config, b->properties, strlen(b->properties),
                            "test", NULL, why, sizeof why),
        ERR_OK);
    ck_assert_int_eq(broker_config_validate(config, why, sizeof why), ERR_OK);
    for (unsigned i = 0; i < options.n_shards; i++) {
        options.envs[i] = sim_env(b->node, i);
    }
    b->broker = broker_start(&options);
}

void unit_broker_start(struct sim *sim, const char *name, struct unit_broker *b)
{
    b->node = sim_node_add(sim, name, b->n_shards == 0 ? 1 : b->n_shards);
    sim_node_start(b->node, unit_broker_boot, b);
}

static void call_stop(struct env *env, void *arg)
{
    struct unit_broker *b = arg;
    (void)env;
    broker_stop(b->broker);
}

void unit_broker_stop(struct unit_broker *b)
{
    sim_node_call(b->node, 0, call_stop, b);
}

bool unit_broker_is_ready(void *arg)
{
    return ((struct unit_broker *)arg)->ready;
}

bool unit_broker_is_stopped(void *arg)
{
    return ((struct unit_broker *)arg)->stopped;
}
