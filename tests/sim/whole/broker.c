/* The brokers of the world: started as tools/server.c starts one, ended in
 * every way a process ends. */
#include "net/broker.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "tests/sim/whole/impl.h"

static void on_ready(void *arg, struct broker *broker)
{
    struct whole_broker *b = arg;
    (void)broker;
    b->ready = true;
    sim_note(b->world->sim, "ready");
}

/* The process would end with this sentence. */
static void on_failed(void *arg, const char *sentence)
{
    struct whole_broker *b = arg;
    if (!b->may_fail) {
        sim_fail(b->world->sim, "b%d cannot run: %s", b->at, sentence);
    }
    sim_note(b->world->sim, "cannot run: %s", sentence);
    b->ready = false;
    b->broker = NULL;
    sim_node_crash(b->node, SIM_KILL);
    broker_restart_later(b, 2 * SIM_S);
}

static void on_stopped(void *arg)
{
    struct whole_broker *b = arg;
    sim_note(b->world->sim, "stopped");
    b->ready = false;
    b->broker = NULL;
    sim_node_crash(b->node, SIM_KILL);
    broker_restart_later(b, prng_between(&b->world->prng, 10, 5000) * SIM_MS);
}

static struct broker_config *config_of(struct whole_broker *b)
{
    struct broker_config *config = broker_config_new();
    char text[4096], why[512] = "", seeds[256] = "";
    for (int i = 0; i < b->world->plan.n_brokers; i++) {
        size_t n = strlen(seeds);
        snprintf(seeds + n, sizeof seeds - n, "%sb%d:9093", i == 0 ? "" : ",",
                 i);
    }
    snprintf(text, sizeof text,
             "node.id=%d\nlisteners=PLAINTEXT://b%d:9092\n"
             "peer.listener=b%d:9093\nlog.dirs=/data\nseeds=%s\n%s",
             b->at + 1, b->at, b->at, seeds, b->world->plan.properties);
    struct config_problem_fn warn = {NULL, NULL};
    if (broker_config_parse(config, text, strlen(text), "simulator", &warn, why,
                            sizeof why) != ERR_OK ||
        broker_config_validate(config, why, sizeof why) != ERR_OK) {
        sim_fail(b->world->sim, "configuration: %s", why);
    }
    return config;
}

static void boot(struct env *env, void *arg)
{
    struct whole_broker *b = arg;
    struct broker_options options = {
        .n_shards = b->n_shards,
        .ready = on_ready,
        .failed = on_failed,
        .stopped = on_stopped,
        .arg = b,
    };
    (void)env;
    b->ready = b->stopping = false;
    options.config = config_of(b);
    for (unsigned i = 0; i < options.n_shards; i++) {
        options.envs[i] = sim_env(b->node, i);
    }
    b->broker = broker_start(&options);
}

void broker_add(struct world *w, int at)
{
    struct whole_broker *b = &w->brokers[at];
    char name[8];
    b->world = w;
    b->at = at;
    snprintf(name, sizeof name, "b%d", at);
    b->n_shards = w->plan.n_shards;
    b->node = sim_node_add(w->sim, name, w->plan.n_shards);
    sim_node_start(b->node, boot, b);
}

/* ---- ends and starts ----------------------------------------------------- */
void broker_crash(struct whole_broker *b, enum sim_crash how)
{
    if (sim_node_up(b->node)) {
        b->ready = false;
        b->broker = NULL;
        sim_node_crash(b->node, how);
    }
}

void broker_restart_now(struct whole_broker *b)
{
    if (sim_node_up(b->node)) {
        return;
    }
    b->world->result.restarts++;
    sim_disk_fail_nth(b->node, 15, 0);
    sim_disk_capacity(b->node, 0);
    b->may_fail = sim_node_starts(b->node) + 1 == b->doubted;
    sim_node_set_shards(b->node, b->n_shards);
    sim_node_restart(b->node);
}

static void restart_due(void *arg)
{
    broker_restart_now(arg);
}

void broker_restart_later(struct whole_broker *b, uint64_t ns)
{
    sim_at(b->world->sim, sim_now_ns(b->world->sim) + ns, restart_due, b);
}

static void do_stop(struct env *env, void *arg)
{
    struct whole_broker *b = arg;
    (void)env;
    broker_stop(b->broker);
}

bool broker_stop_cleanly(struct whole_broker *b)
{
    if (!sim_node_up(b->node) || !b->ready || b->stopping) {
        return false;
    }
    b->stopping = true;
    sim_node_call(b->node, 0, do_stop, b);
    return true;
}

/* Bytes of its disk were wrong: it may end itself rather than use them. */
static bool has_rotten(const struct whole_broker *b)
{
    const struct world *w = b->world;
    return nemesis_rots(w, b->at) &&
           w->result.rot + sim_disk_rotten(b->node) > 0;
}

/* env_fatal: right after a planted fault, and wrong otherwise. */
void broker_on_fatal(void *arg, struct sim_node *node, const char *line)
{
    struct world *w = arg;
    for (int i = 0; i < w->plan.n_brokers; i++) {
        struct whole_broker *b = &w->brokers[i];
        if (b->node != node) {
            continue;
        }
        if (!b->may_fail && !has_rotten(b)) {
            sim_fail(w->sim, "b%d ended itself: %s", i, line);
        }
        b->ready = false;
        b->broker = NULL;
        broker_restart_later(b, prng_between(&w->prng, 10, 5000) * SIM_MS);
        return;
    }
    sim_fail(w->sim, "a client ended itself: %s", line);
}

bool brokers_ready(void *world)
{
    struct world *w = world;
    for (int i = 0; i < w->plan.n_brokers; i++) {
        if (!sim_node_up(w->brokers[i].node) || !w->brokers[i].ready) {
            return false;
        }
    }
    return true;
}
