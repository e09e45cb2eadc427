/* One seed from beginning to end: the cluster forms, topics are made, clients
 * work while faults happen (safety), faults end and everything must come to
 * rest (liveness), the oracle is asked whether all is there. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "schema/create_topics.h"
#include "tests/sim/whole/impl.h"

#define FORM_NS (60 * SIM_S)
#define CREATE_NS (60 * SIM_S)
#define FINALE_NS (60 * SIM_S)
#define LIVENESS_NS (180 * SIM_S)

int actors(const struct world *w)
{
    return w->n_producers + w->n_consumers + w->n_members + w->n_admins +
           w->n_key_readers;
}

struct sim_node *actor_node(const struct world *w, int n)
{
    if (n < w->n_producers) {
        return producer_node(w->producers[n]);
    }
    n -= w->n_producers;
    if (n < w->n_consumers) {
        return consumer_node(w->consumers[n]);
    }
    n -= w->n_consumers;
    if (n < w->n_members) {
        return member_node(w->members[n]);
    }
    n -= w->n_members;
    if (n < w->n_admins) {
        return admin_node(w->admins[n]);
    }
    return key_reader_node(w->key_readers[n - w->n_admins]);
}

/* ---- topics -------------------------------------------------------------- */
static void create_next(struct world *w);

static int topics_wanted(const struct world *w)
{
    return w->plan.n_topics + (w->plan.keyed.n_partitions > 0);
}

/* The compacted one is the last that is made. */
static int topic_made_as(const struct world *w, int nth)
{
    return nth < w->plan.n_topics ? nth : KEYED_TOPIC;
}

static int partitions_wanted(const struct world *w, int topic)
{
    return topic == KEYED_TOPIC ? w->plan.keyed.n_partitions
                                : w->plan.n_partitions[topic];
}

static void create_done(void *arg, const struct answer *a)
{
    struct world *w = arg;
    if (a->fate == FATE_ANSWERED) {
        const struct create_topics_response *in = a->response;
        int16_t e = in->n_topics == 1 ? in->topics[0].error_code : -1;
        if (e == KAFKA_NONE || e == KAFKA_TOPIC_ALREADY_EXISTS) {
            int topic = topic_made_as(w, w->n_created++);
            w->n_parts_of[topic] = partitions_wanted(w, topic);
            if (e == KAFKA_NONE) {
                char name[16];
                topic_name(topic, name);
                probe_topic_everywhere(w, name, w->n_parts_of[topic]);
            }
        } else if (e != KAFKA_REQUEST_TIMED_OUT && e != KAFKA_NOT_CONTROLLER) {
            sim_fail(w->sim, "creating a topic: %s", kafka_error_name(e));
        }
    }
    create_next(w);
}

#define KEYED_CONFIGS 8
struct keyed_configs {
    struct create_topics_request_config list[KEYED_CONFIGS];
    char values[KEYED_CONFIGS][24];
    int n;
};

static void config_add(struct keyed_configs *c, const char *name, int64_t value)
{
    snprintf(c->values[c->n], sizeof c->values[0], "%lld", (long long)value);
    c->list[c->n] = (struct create_topics_request_config){
        wire_str_of(name), wire_str_of(c->values[c->n])};
    c->n++;
}

static void keyed_configure(const struct keyed_plan *k, struct keyed_configs *c)
{
    c->n = 0;
    config_add(c, "segment.bytes", k->segment_bytes);
    config_add(c, "segment.ms", k->segment_ms);
    config_add(c, "delete.retention.ms", k->tombstone_ms);
    config_add(c, "min.compaction.lag.ms", k->lag_ms);
    config_add(c, "retention.ms", k->retention_ms);
    c->list[c->n++] = (struct create_topics_request_config){
        wire_str_of("cleanup.policy"),
        wire_str_of(k->deletes ? "compact,delete" : "compact")};
    c->list[c->n++] = (struct create_topics_request_config){
        wire_str_of("min.cleanable.dirty.ratio"), wire_str_of(k->dirty_ratio)};
}

static void create_next(struct world *w)
{
    struct create_topics_request q;
    struct create_topics_request_topic t = {0};
    struct keyed_configs configs;
    char name[16];
    if (w->n_created == topics_wanted(w)) {
        return;
    }
    int topic = topic_made_as(w, w->n_created);
    topic_name(topic, name);
    create_topics_request_init(&q);
    t.name = wire_str_of(name);
    t.num_partitions = partitions_wanted(w, topic);
    t.replication_factor = (int16_t)w->plan.replication[topic];
    if (topic == KEYED_TOPIC) {
        keyed_configure(&w->plan.keyed, &configs);
        t.replication_factor = (int16_t)w->plan.keyed.replication;
        t.configs = configs.list;
        t.n_configs = configs.n;
    }
    q.topics = &t;
    q.n_topics = 1;
    q.timeout_ms = 10000;
    client_ask(&w->setup, client_any_broker(&w->setup), API_CREATE_TOPICS, &q,
               create_done, w);
}

static void setup_boot(struct env *env, void *arg)
{
    struct client *c = arg;
    (void)env;
    create_next(c->world);
}

static bool topics_made(void *arg)
{
    const struct world *w = arg;
    return w->n_created == topics_wanted(w);
}

/* ---- the end ------------------------------------------------------------- */
static bool all_done(void *arg)
{
    struct world *w = arg;
    char why[256];
    if (!brokers_ready(w)) {
        return false;
    }
    for (int i = 0; i < w->n_producers; i++) {
        if (!producer_done(w->producers[i])) {
            return false;
        }
    }
    for (int i = 0; i < w->n_consumers; i++) {
        if (!consumer_done(w->consumers[i])) {
            return false;
        }
    }
    for (int i = 0; i < w->plan.n_groups; i++) {
        if (!group_done(w, i)) {
            return false;
        }
    }
    for (int i = 0; i < w->n_admins; i++) {
        if (!admin_sure(w->admins[i])) {
            return false;
        }
    }
    for (int i = 0; i < w->n_key_readers; i++) {
        if (!key_reader_done(w->key_readers[i])) {
            return false;
        }
    }
    return probe_converged(w, why, sizeof why);
}

static bool admins_done(void *arg)
{
    struct world *w = arg;
    for (int i = 0; i < w->n_admins; i++) {
        if (!admin_done(w->admins[i])) {
            return false;
        }
    }
    return true;
}

static void explain(struct world *w)
{
    char why[256] = "";
    for (int i = 0; i < w->plan.n_brokers; i++) {
        fprintf(stderr, "b%d: up %d, ready %d\n", i,
                sim_node_up(w->brokers[i].node), w->brokers[i].ready);
    }
    for (int i = 0; i < w->n_producers; i++) {
        producer_print(w->producers[i]);
    }
    for (int i = 0; i < w->n_consumers; i++) {
        consumer_print(w->consumers[i]);
    }
    for (int i = 0; i < w->n_members; i++) {
        member_print(w->members[i]);
    }
    for (int i = 0; i < w->plan.n_groups; i++) {
        group_print(w, i);
    }
    for (int i = 0; i < w->n_admins; i++) {
        admin_print(w->admins[i]);
    }
    for (int i = 0; i < w->n_key_readers; i++) {
        key_reader_print(w->key_readers[i]);
    }
    if (!probe_converged(w, why, sizeof why)) {
        fprintf(stderr, "replicas: %s\n", why);
    }
}

/* Asks now and then only: the condition costs more than an event. */
static bool run_until(struct world *w, bool (*cond)(void *arg), uint64_t ns)
{
    uint64_t until = sim_now_ns(w->sim) + ns;
    while (!cond(w)) {
        if (sim_now_ns(w->sim) >= until) {
            return false;
        }
        sim_run_for(w->sim, 50 * SIM_MS);
    }
    return true;
}

/* ---- one seed ------------------------------------------------------------ */
static void begin_keyed(struct world *w)
{
    for (int i = 0; i < w->plan.keyed.n_writers; i++) {
        producer_add(w, w->n_producers, PRODUCER_KEYED);
    }
    for (int i = 0; i < w->plan.keyed.n_readers; i++) {
        key_reader_add(w, i);
    }
}

static void begin(struct world *w)
{
    for (int i = 0; i < w->plan.n_brokers; i++) {
        broker_add(w, i);
    }
    if (!run_until(w, brokers_ready, FORM_NS)) {
        explain(w);
        sim_fail(w->sim, "the cluster did not form");
    }
    client_add(w, &w->setup, "setup", setup_boot, NULL);
    if (!run_until(w, topics_made, CREATE_NS)) {
        sim_fail(w->sim, "topics were not made");
    }
    for (int i = 0; i < w->plan.n_idempotent + w->plan.n_plain; i++) {
        producer_add(
            w, i,
            i < w->plan.n_idempotent ? PRODUCER_IDEMPOTENT : PRODUCER_PLAIN);
    }
    for (int i = 0; i < w->plan.n_consumers; i++) {
        consumer_add(w, i);
    }
    for (int i = 0; i < w->plan.n_groups * w->plan.n_members; i++) {
        member_add(w, i, i % w->plan.n_groups);
    }
    for (int i = 0; i < w->plan.n_admins; i++) {
        admin_add(w, i);
    }
    if (w->plan.keyed.n_partitions > 0) {
        begin_keyed(w);
    }
}

static void finish(struct world *w)
{
    w->phase = PHASE_LIVENESS;
    nemesis_heal(w);
    sim_run_for(w->sim, SIM_S);
    if (!run_until(w, all_done, LIVENESS_NS)) {
        explain(w);
        sim_fail(w->sim, "not at rest %llu s after the last fault",
                 (unsigned long long)(LIVENESS_NS / SIM_S));
    }
    w->finale = true;
    for (int i = 0; i < w->n_admins; i++) {
        admin_finale(w->admins[i]);
    }
    if (!run_until(w, admins_done, FINALE_NS)) {
        explain(w);
        sim_fail(w->sim, "topics are not as they were made");
    }
    oracle_finish(w);
    keys_finish(w);
    history_check(w);
}

static void world_free(struct world *w)
{
    probe_free(w->probe);
    sim_free(w->sim);
    oracle_free(w);
    for (int i = 0; i < w->n_producers; i++) {
        producer_free(w->producers[i]);
    }
    for (int i = 0; i < w->n_consumers; i++) {
        consumer_free(w->consumers[i]);
    }
    for (int i = 0; i < w->n_members; i++) {
        member_free(w->members[i]);
    }
    for (int i = 0; i < w->n_admins; i++) {
        admin_free(w->admins[i]);
    }
    for (int i = 0; i < w->n_key_readers; i++) {
        key_reader_free(w->key_readers[i]);
    }
    keys_free(w);
    groups_free(w);
    history_free(w);
    client_drop(&w->setup);
    free(w);
}

static void on_event(void *arg, struct sim_node *node)
{
    probe_event(arg, node);
    nemesis_ambush(arg, node);
}

struct whole_result whole_run(const struct whole_options *options)
{
    struct world *w = calloc(1, sizeof *w);
    struct whole_result result;
    w->options = *options;
    plan_make(&w->plan, options);
    if (options->print_plan) {
        plan_print(&w->plan);
    }
    w->sim = sim_new(options->seed);
    prng_seed(&w->prng, options->seed * 104729 + 11);
    sim_set_verbose(w->sim, options->verbose);
    sim_on_fatal(w->sim, broker_on_fatal, w);
    sim_net_delay(w->sim, NULL, NULL, 50 * SIM_US, w->plan.delay_ns);
    w->probe = probe_new(w);
    sim_on_event(w->sim, on_event, w);
    begin(w);
    w->phase = PHASE_CHAOS;
    nemesis_start(w);
    sim_run_for(w->sim, w->plan.stop_ns);
    finish(w);
    uint64_t rotten = sim_disk_rotten(w->brokers[w->plan.rotten].node);
    w->result.rot += rotten;
    w->result.faults += rotten;
    w->result.hash = sim_hash(w->sim);
    w->result.events = sim_events(w->sim);
    w->result.sim_ns = sim_now_ns(w->sim) - SIM_EPOCH_NS;
    result = w->result;
    world_free(w);
    return result;
}
