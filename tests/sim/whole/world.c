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
    return w->n_producers + w->n_consumers + w->n_members + w->n_admins;
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
    return admin_node(w->admins[n - w->n_members]);
}

/* ---- topics -------------------------------------------------------------- */
static void create_next(struct world *w);

static void create_done(void *arg, const struct answer *a)
{
    struct world *w = arg;
    if (a->fate == FATE_ANSWERED) {
        const struct create_topics_response *in = a->response;
        int16_t e = in->n_topics == 1 ? in->topics[0].error_code : -1;
        if (e == KAFKA_NONE || e == KAFKA_TOPIC_ALREADY_EXISTS) {
            w->n_parts_of[w->n_created] = w->plan.n_partitions[w->n_created];
            w->n_created++;
            if (e == KAFKA_NONE) {
                char name[16];
                topic_name(w->n_created - 1, name);
                probe_topic_everywhere(w, name,
                                       w->plan.n_partitions[w->n_created - 1]);
            }
        } else if (e != KAFKA_REQUEST_TIMED_OUT && e != KAFKA_NOT_CONTROLLER) {
            sim_fail(w->sim, "creating a topic: %s", kafka_error_name(e));
        }
    }
    create_next(w);
}

static void create_next(struct world *w)
{
    struct create_topics_request q;
    struct create_topics_request_topic t = {0};
    char name[16];
    if (w->n_created == w->plan.n_topics) {
        return;
    }
    topic_name(w->n_created, name);
    create_topics_request_init(&q);
    t.name = wire_str_of(name);
    t.num_partitions = w->plan.n_partitions[w->n_created];
    t.replication_factor = (int16_t)w->plan.replication[w->n_created];
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
    return w->n_created == w->plan.n_topics;
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
        producer_add(w, i, i < w->plan.n_idempotent);
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
    groups_free(w);
    history_free(w);
    client_drop(&w->setup);
    free(w);
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
    sim_on_event(w->sim, probe_event, w);
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
