/* The metadata group on one, three and four simulated brokers: formation,
 * registration, liveness, changes while brokers die and links are cut. Every
 * broker has a raft host with real groups; partitions have a state machine
 * that does nothing but report who leads. Times are virtual. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "metadata/identity.h"
#include "metadata/metadata.h"
#include "tests/sim/sim_env.h"

#define BROKERS_MAX 4
#define PARTITIONS_MAX 400
#define AWAY_CHANGES 10000

static struct sim *sim;

struct partition {
    struct broker *b;
    struct group *group;
    struct group_id id;
    bool gone;
};

struct broker {
    struct sim_node *node;
    node_id id;
    const char *seeds;
    /* of its newest life */
    struct env *env;
    struct transport *t;
    struct raft_host *host;
    struct metadata *m;
    enum err started;
    bool ready;
    uint64_t ready_ns;
    char refused[512];
    struct env_deferred deferred;
    struct group_id wanted[PARTITIONS_MAX];
    int n_wanted;
    struct partition *partitions[PARTITIONS_MAX];
    int n_partitions;
};

/* Brokers of a known node id with another directory are not even heard. */
static bool strict;
static struct broker brokers[BROKERS_MAX];
static int n_brokers;

/* ---- partitions ---------------------------------------------------------- */
static enum err p_restore(void *sm, log_index settled, raft_term_t term,
                          const uint8_t *blob, uint32_t size)
{
    (void)sm, (void)settled, (void)term, (void)blob, (void)size;
    return ERR_OK;
}
static void p_entry(void *sm, const struct group_entry *entry)
{
    (void)sm, (void)entry;
}
static void p_index(void *sm, log_index index)
{
    (void)sm, (void)index;
}
static void p_role(void *sm, const struct group_role *role)
{
    struct partition *p = sm;
    if (role->is_leader && role->ready) {
        metadata_report_leader(p->b->m, &p->id, p->b->id,
                               (int32_t)role->term.v);
    }
}
static enum err p_settle(struct settle_job *job)
{
    (void)job;
    return ERR_OK;
}
static bool p_settle_begin(void *sm, struct settle_job *job)
{
    (void)sm;
    job->run = p_settle;
    return true;
}
static void p_settled(void *sm, struct settle_job *job)
{
    (void)sm, (void)job;
}
static void p_closed(void *sm)
{
    struct partition *p = sm;
    p->group = NULL;
}
static const struct group_ops partition_ops = {.restore = p_restore,
                                               .appended = p_entry,
                                               .truncated = p_index,
                                               .applied = p_entry,
                                               .durable = p_index,
                                               .role_changed = p_role,
                                               .evicted = p_index,
                                               .settle_begin = p_settle_begin,
                                               .settled = p_settled,
                                               .closed = p_closed};

static struct partition *partition_new(struct broker *b,
                                       const struct group_id *id)
{
    struct partition *p = mem_zalloc(sizeof *p);
    p->b = b;
    p->id = *id;
    ck_assert_int_lt(b->n_partitions, PARTITIONS_MAX);
    b->partitions[b->n_partitions++] = p;
    return p;
}

static void partition_make(struct broker *b, const struct group_id *id)
{
    const struct image_topic *t =
        image_topic_by_id(metadata_image(b->m), &id->topic);
    struct group_creation c = {.id = *id};
    if (t == NULL || raft_host_find(b->host, id) != NULL) {
        return;
    }
    const struct image_partition *ip = &t->partitions[id->partition];
    c.directory = image_broker(metadata_image(b->m), b->id)->directory;
    c.n_replicas = ip->n_replicas;
    for (int k = 0; k < ip->n_replicas; k++) {
        c.replicas[k] = ip->replicas[k];
        if (ip->replicas[k].node == b->id) {
            c.self = ip->replicas[k].id;
        }
    }
    if (c.self != 0) {
        struct partition *p = partition_new(b, id);
        ck_assert_int_eq(
            raft_host_create(b->host, &c, &partition_ops, p, &p->group),
            ERR_OK);
    }
}

/* Outside of the group's callbacks. */
static void do_wanted(struct env_deferred *d)
{
    struct broker *b = d->arg;
    for (int i = 0; i < b->n_wanted; i++) {
        partition_make(b, &b->wanted[i]);
    }
    b->n_wanted = 0;
}

static void want(struct broker *b, const struct image_topic *t, int32_t first)
{
    for (int32_t i = first; i < t->n_partitions; i++) {
        ck_assert_int_lt(b->n_wanted, PARTITIONS_MAX);
        b->wanted[b->n_wanted++] = (struct group_id){t->id, i};
    }
    env_defer(b->env, &b->deferred);
}

/* ---- a broker ------------------------------------------------------------ */
static void on_changed(void *arg, const struct image_change *change)
{
    struct broker *b = arg;
    if (change->kind == IMAGE_TOPIC_CREATED) {
        want(b, change->topic, 0);
    } else if (change->kind == IMAGE_PARTITIONS_ADDED) {
        want(b, change->topic, change->partition);
    }
}

static void on_ready(void *arg)
{
    struct broker *b = arg;
    ck_assert(!b->ready);
    b->ready = true;
    b->ready_ns = sim_now_ns(sim);
}

static void on_refused(void *arg, const char *sentence)
{
    struct broker *b = arg;
    snprintf(b->refused, sizeof b->refused, "%s", sentence);
}

static const struct metadata_ops metadata_ops = {
    .changed = on_changed, .ready = on_ready, .refused = on_refused};

static enum err on_admit(void *arg, const struct uuid *cluster, node_id node,
                         const struct uuid *directory, char *why,
                         size_t why_size)
{
    struct broker *b = arg;
    if (strict && b->m != NULL) {
        const struct image_broker *known =
            image_broker(metadata_image(b->m), node);
        if (known != NULL && !uuid_equal(&known->directory, directory)) {
            snprintf(why, why_size, "another data directory");
            return ERR_REFUSED;
        }
    }
    return b->m == NULL
               ? ERR_OK
               : metadata_admit(b->m, cluster, node, directory, why, why_size);
}
static void on_peer_up(void *arg, node_id node)
{
    struct broker *b = arg;
    raft_host_peer_up(b->host, node);
    if (b->m != NULL) {
        metadata_peer_changed(b->m, node);
    }
}
static void on_peer_down(void *arg, node_id node)
{
    struct broker *b = arg;
    raft_host_peer_down(b->host, node);
    if (b->m != NULL) {
        metadata_peer_changed(b->m, node);
    }
}
static const struct transport_ops transport_ops = {on_admit, on_peer_up,
                                                   on_peer_down};

static void reopen(void *arg, const struct group_creation *creation)
{
    struct broker *b = arg;
    if (!group_id_equal(&creation->id, &GROUP_METADATA)) {
        partition_new(b, &creation->id);
    }
}

static void boot(struct env *env, void *arg)
{
    struct broker *b = arg;
    struct identity identity;
    char address[32], why[400];
    snprintf(address, sizeof address, "b%d:9000", b->id);
    b->env = env;
    b->m = NULL;
    b->ready = false;
    b->refused[0] = '\0';
    b->n_wanted = b->n_partitions = 0;
    b->deferred = (struct env_deferred){.cb = do_wanted, .arg = b};
    b->started =
        identity_load(env, "data", b->id, NULL, &identity, why, sizeof why);
    if (b->started != ERR_OK) {
        snprintf(b->refused, sizeof b->refused, "%s", why);
        return;
    }
    const struct transport_options to = {.env = env,
                                         .n_shards = 1,
                                         .node = b->id,
                                         .directory = identity.directory,
                                         .ping_ms = 100,
                                         .silence_ms = 600,
                                         .queue_bytes_max = 8u << 20,
                                         .address = address};
    b->t = transport_new(&to, &transport_ops, b);
    transport_set_shards(b->t, &b->t, 1);
    const struct raft_host_options ho = {.env = env,
                                         .dir = "data/shard-0",
                                         .node = b->id,
                                         .directory = identity.directory,
                                         .transport = b->t,
                                         .tick_ms = 50,
                                         .heartbeat_ms = 500,
                                         .election_ms = 2500,
                                         .log_buffer_bytes = 8u << 20,
                                         .wal_file_bytes = 4u << 20,
                                         .wal_bytes_max = 64u << 20,
                                         .settle_ms = 500,
                                         .settle_bytes = 65536};
    b->started = raft_host_new(&ho, &b->host);
    ck_assert_int_eq(b->started, ERR_OK);
    ck_assert_int_eq(transport_listen(b->t, address), ERR_OK);
    const struct metadata_options mo = {.env = env,
                                        .host = b->host,
                                        .transport = b->t,
                                        .dir = "data",
                                        .node = b->id,
                                        .directory = identity.directory,
                                        .seeds = b->seeds,
                                        .peer_address = address,
                                        .advertised_host = "localhost",
                                        .advertised_port = 9091 + b->id,
                                        .heartbeat_ms = 200,
                                        .session_ms = 3000,
                                        .num_partitions = 1,
                                        .default_replication_factor = 1,
                                        .producer_id_block = 1000};
    b->started = metadata_new(&mo, &metadata_ops, b, &b->m);
    if (b->started != ERR_OK) {
        return;
    }
    raft_host_recovered(b->host, reopen, b);
    for (int i = 0; i < b->n_partitions; i++) {
        struct partition *p = b->partitions[i];
        ck_assert_int_eq(
            raft_host_open(b->host, &p->id, &partition_ops, p, &p->group),
            ERR_OK);
    }
}

static void lose_log(struct env *env, void *arg)
{
    ck_assert_int_eq(env_dir_remove(env, "data/shard-0"), ERR_OK);
    boot(env, arg);
}

static struct broker *add(node_id id, const char *seeds)
{
    struct broker *b = &brokers[n_brokers++];
    char name[8];
    memset(b, 0, sizeof *b);
    snprintf(name, sizeof name, "b%d", id);
    b->id = id;
    b->seeds = seeds;
    b->node = sim_node_add(sim, name, 1);
    return b;
}

static void start(struct broker *b)
{
    sim_node_start(b->node, boot, b);
}

/* ---- waiting ------------------------------------------------------------- */
static bool all_ready(void *arg)
{
    (void)arg;
    for (int i = 0; i < n_brokers; i++) {
        if (sim_node_up(brokers[i].node) && !brokers[i].ready) {
            return false;
        }
    }
    return true;
}

static void wait_ready(uint64_t ns)
{
    if (!sim_run_while_not(sim, all_ready, NULL, ns)) {
        for (int i = 0; i < n_brokers; i++) {
            printf(
                "broker %d: up %d started %s ready %d refused '%s' "
                "waiting '%s'\n",
                brokers[i].id, sim_node_up(brokers[i].node),
                err_name(brokers[i].started), brokers[i].ready,
                brokers[i].refused,
                brokers[i].m == NULL ? "" : metadata_waiting_for(brokers[i].m));
        }
        ck_abort_msg("not ready in time");
    }
}

static bool is_refused(void *arg)
{
    struct broker *b = arg;
    return b->refused[0] != '\0';
}

static void three(void)
{
    add(1, "b1:9000,b2:9000,b3:9000");
    add(2, "b3:9000, b1:9000,b2:9000");
    add(3, "b2:9000,b3:9000,b1:9000");
    for (int i = 0; i < 3; i++) {
        start(&brokers[i]);
    }
    sim_run_for(sim, SIM_MS);
    wait_ready(10 * SIM_S);
}

static struct broker *metadata_leader_broker(void)
{
    for (int i = 0; i < n_brokers; i++) {
        if (sim_node_up(brokers[i].node) && brokers[i].m != NULL &&
            metadata_is_leader(brokers[i].m)) {
            return &brokers[i];
        }
    }
    return NULL;
}

static struct broker *a_follower(void)
{
    for (int i = 0; i < n_brokers; i++) {
        if (sim_node_up(brokers[i].node) && !metadata_is_leader(brokers[i].m)) {
            return &brokers[i];
        }
    }
    return NULL;
}

/* ---- calls --------------------------------------------------------------- */
struct asked {
    struct broker *b;
    struct metadata_call call;
    struct metadata_new_topic topic;
    struct metadata_topic_ref ref;
    node_id ref_node;
    char name[32];
    uint32_t timeout_ms;
    bool done;
    enum kafka_error error;
    struct metadata_topic_result result;
    uint64_t begun_ns, done_ns;
};

static void on_answer(struct metadata_call *call)
{
    struct asked *a = call->arg;
    ck_assert(!a->done);
    a->done = true;
    a->done_ns = sim_now_ns(sim);
    a->error = call->error;
    memset(&a->result, 0, sizeof a->result);
    if (call->n_results > 0) {
        a->result = call->results[0];
    }
}

static void ask_create(struct env *env, void *arg)
{
    struct asked *a = arg;
    (void)env;
    metadata_create_topics(a->b->m, &a->topic, 1, false, a->timeout_ms,
                           &a->call);
}
static void ask_delete(struct env *env, void *arg)
{
    struct asked *a = arg;
    (void)env;
    metadata_delete_topics(a->b->m, &a->ref, 1, a->timeout_ms, &a->call);
}
static void ask_ids(struct env *env, void *arg)
{
    struct asked *a = arg;
    (void)env;
    metadata_allocate_producer_ids(a->b->m, a->timeout_ms, &a->call);
}
static void ask_sync(struct env *env, void *arg)
{
    struct asked *a = arg;
    (void)env;
    metadata_sync(a->b->m, a->timeout_ms, &a->call);
}

static void begin(struct asked *a, struct broker *b,
                  void (*fn)(struct env *env, void *arg))
{
    a->b = b;
    a->call.cb = on_answer;
    a->call.arg = a;
    a->done = false;
    a->begun_ns = sim_now_ns(sim);
    if (a->timeout_ms == 0) {
        a->timeout_ms = 10000;
    }
    sim_node_call(b->node, 0, fn, a);
}

static bool is_done(void *arg)
{
    const struct asked *a = arg;
    return a->done;
}

static void finish(struct asked *a)
{
    if (!sim_run_while_not(sim, is_done, a, 30 * SIM_S)) {
        ck_abort_msg("no answer");
    }
}

static void begin_create(struct asked *a, struct broker *b, const char *name,
                         int32_t partitions, int16_t factor)
{
    uint32_t timeout_ms = a->timeout_ms;
    memset(a, 0, sizeof *a);
    a->timeout_ms = timeout_ms;
    snprintf(a->name, sizeof a->name, "%s", name);
    a->topic = (struct metadata_new_topic){.name = a->name,
                                           .n_partitions = partitions,
                                           .replication_factor = factor};
    begin(a, b, ask_create);
}

static void create(struct asked *a, struct broker *b, const char *name,
                   int32_t partitions, int16_t factor)
{
    begin_create(a, b, name, partitions, factor);
    finish(a);
    ck_assert_int_eq(a->error, KAFKA_NONE);
}

/* Every broker that is up has the topic, with all its leaders. */
static void assert_usable(const char *name, int32_t partitions)
{
    for (int i = 0; i < n_brokers; i++) {
        if (!sim_node_up(brokers[i].node)) {
            continue;
        }
        const struct image_topic *t =
            image_topic(metadata_image(brokers[i].m), name, strlen(name));
        ck_assert_msg(t != NULL, "broker %d lacks %s", brokers[i].id, name);
        ck_assert_int_eq(t->n_partitions, partitions);
        for (int32_t p = 0; p < partitions; p++) {
            ck_assert_msg(t->partitions[p].leader >= 0,
                          "broker %d: %s-%d has no leader", brokers[i].id, name,
                          p);
        }
    }
}

static void setup(void)
{
    sim = sim_new(1);
    n_brokers = 0;
    strict = false;
    sim_set_verbose(sim, getenv("SIM_VERBOSE") != NULL);
}

static void teardown(void)
{
    sim_free(sim);
}

/* ---- one broker ---------------------------------------------------------- */
START_TEST(test_alone__forms_at_once)
{
    struct asked a = {0};
    struct broker *b = add(7, NULL);
    start(b);
    sim_run_for(sim, SIM_MS);
    wait_ready(SIM_S);
    ck_assert_uint_lt(b->ready_ns - SIM_EPOCH_NS, 300 * SIM_MS);
    create(&a, b, "one", 3, 1);
    ck_assert_int_eq(a.result.error, KAFKA_NONE);
    assert_usable("one", 3);
    create(&a, b, "one", 3, 1);
    ck_assert_int_eq(a.result.error, KAFKA_TOPIC_ALREADY_EXISTS);
    struct uuid cluster = *metadata_cluster_id(b->m);
    ck_assert(!uuid_is_zero(&cluster));
    ck_assert(uuid_equal(&cluster, image_cluster_id(metadata_image(b->m))));

    sim_run_for(sim, 3 * SIM_S);
    sim_node_crash(b->node, SIM_DROP_ALL);
    sim_node_restart(b->node);
    sim_run_for(sim, SIM_MS);
    wait_ready(5 * SIM_S);
    assert_usable("one", 3);
    ck_assert(uuid_equal(&cluster, metadata_cluster_id(b->m)));
}
END_TEST

START_TEST(test_alone__own_name_as_seed)
{
    struct broker *b = add(1, "b1:9000");
    start(b);
    sim_run_for(sim, SIM_MS);
    wait_ready(SIM_S);
}
END_TEST

START_TEST(test_start__refusals)
{
    struct broker *b = add(1, "a:1,b:1,c:1,d:1,e:1,f:1,g:1,h:1");
    start(b);
    sim_run_for(sim, SIM_S);
    ck_assert_int_eq(b->started, ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(b->refused, "at most 7"));

    b = add(2, "");
    start(b);
    sim_run_for(sim, SIM_S);
    ck_assert(b->ready);
    sim_node_crash(b->node, SIM_KILL);
    b->id = 3; /* the same directory, another node id */
    sim_node_restart(b->node);
    sim_run_for(sim, SIM_S);
    ck_assert_ptr_nonnull(strstr(b->refused, "belongs to node id 2"));
}
END_TEST

/* ---- formation ----------------------------------------------------------- */
START_TEST(test_formation__waits_for_the_last)
{
    add(1, "b1:9000,b2:9000,b3:9000");
    add(2, "b3:9000,b2:9000,b1:9000");
    add(3, "b1:9000,b2:9000,b3:9000");
    start(&brokers[0]);
    start(&brokers[1]);
    sim_run_for(sim, 20 * SIM_S);
    ck_assert(!brokers[0].ready && !brokers[1].ready);
    ck_assert_ptr_nonnull(
        strstr(metadata_waiting_for(brokers[0].m), "b3:9000"));
    ck_assert_ptr_null(strstr(metadata_waiting_for(brokers[0].m), "b2:9000"));
    start(&brokers[2]);
    sim_run_for(sim, SIM_MS);
    wait_ready(3 * SIM_S);
    for (int i = 0; i < 3; i++) {
        ck_assert(uuid_equal(metadata_cluster_id(brokers[0].m),
                             metadata_cluster_id(brokers[i].m)));
        ck_assert_str_eq(metadata_waiting_for(brokers[i].m), "");
    }
}
END_TEST

START_TEST(test_formation__is_quick)
{
    three();
    for (int i = 0; i < 3; i++) {
        ck_assert_uint_lt(brokers[i].ready_ns - SIM_EPOCH_NS, 700 * SIM_MS);
    }
}
END_TEST

/* A broker dies at every stage of forming; the cluster forms all the same. */
START_TEST(test_formation__crashes)
{
    static const int at_ms[] = {1, 20, 60, 80, 100, 120, 150, 200, 300};
    for (size_t i = 0; i < sizeof at_ms / sizeof *at_ms; i++) {
        sim_free(sim);
        sim = sim_new(100 + i);
        n_brokers = 0;
        add(1, "b1:9000,b2:9000,b3:9000");
        add(2, "b1:9000,b2:9000,b3:9000");
        add(3, "b1:9000,b2:9000,b3:9000");
        for (int k = 0; k < 3; k++) {
            start(&brokers[k]);
        }
        sim_run_for(sim, (uint64_t)at_ms[i] * SIM_MS);
        sim_node_crash(brokers[i % 3].node, SIM_RANDOM);
        sim_run_for(sim, SIM_S);
        sim_node_restart(brokers[i % 3].node);
        sim_run_for(sim, SIM_MS);
        wait_ready(20 * SIM_S);
        ck_assert(uuid_equal(metadata_cluster_id(brokers[0].m),
                             metadata_cluster_id(brokers[1].m)));
        ck_assert(uuid_equal(metadata_cluster_id(brokers[0].m),
                             metadata_cluster_id(brokers[2].m)));
    }
}
END_TEST

START_TEST(test_formation__outsider_is_refused)
{
    three();
    struct broker *b = add(4, "b1:9000,b2:9000,b3:9000,b4:9000");
    start(b);
    ck_assert(sim_run_while_not(sim, is_refused, b, 5 * SIM_S));
    ck_assert_ptr_nonnull(strstr(b->refused, "1, 2, 3 without node 4"));
}
END_TEST

START_TEST(test_formation__not_among_its_seeds)
{
    add(1, "b2:9000");
    add(2, "b2:9000,b3:9000");
    start(&brokers[0]);
    start(&brokers[1]);
    ck_assert(sim_run_while_not(sim, is_refused, &brokers[0], 5 * SIM_S));
    ck_assert_ptr_nonnull(
        strstr(brokers[0].refused, "none of the seeds is this broker"));
}
END_TEST

START_TEST(test_formation__other_seeds_named)
{
    add(1, "b1:9000,b2:9000");
    add(2, "b1:9000,b2:9000,b3:9000");
    start(&brokers[0]);
    start(&brokers[1]);
    sim_run_for(sim, 5 * SIM_S);
    ck_assert(!brokers[0].ready && !brokers[1].ready);
    ck_assert_ptr_nonnull(
        strstr(metadata_waiting_for(brokers[0].m), "find all its seeds"));
    add(3, "b1:9000,b2:9000,b3:9000");
    start(&brokers[2]);
    sim_run_for(sim, 5 * SIM_S);
    ck_assert(!brokers[0].ready && !brokers[1].ready && !brokers[2].ready);
    ck_assert_ptr_nonnull(
        strstr(metadata_waiting_for(brokers[0].m), "same seeds"));
}
END_TEST

/* ---- directories --------------------------------------------------------- */
START_TEST(test_wiped_directory__is_refused)
{
    struct asked a = {0};
    three();
    sim_node_crash(brokers[2].node, SIM_KILL);
    sim_disk_wipe(brokers[2].node);
    sim_node_restart(brokers[2].node);
    ck_assert(sim_run_while_not(sim, is_refused, &brokers[2], 10 * SIM_S));
    ck_assert_ptr_nonnull(
        strstr(brokers[2].refused, "belongs to another data directory"));
    ck_assert(!brokers[2].ready);
    ck_assert_ptr_null(metadata_group(brokers[2].m));
    sim_node_crash(brokers[2].node, SIM_KILL);
    create(&a, &brokers[0], "still", 1, 3);
    ck_assert_int_eq(a.result.error, KAFKA_NONE);
}
END_TEST

START_TEST(test_wiped_directory__is_not_heard)
{
    strict = true;
    three();
    sim_node_crash(brokers[2].node, SIM_KILL);
    sim_disk_wipe(brokers[2].node);
    sim_node_restart(brokers[2].node);
    ck_assert(sim_run_while_not(sim, is_refused, &brokers[2], 10 * SIM_S));
    ck_assert_ptr_nonnull(
        strstr(brokers[2].refused, "refused: another data directory"));
    ck_assert_ptr_null(metadata_group(brokers[2].m));
}
END_TEST

/* A directory of another cluster than the seeds' is refused, and a seed that
 * went over to another cluster keeps nobody away. */
START_TEST(test_directory_of_another_cluster__is_refused)
{
    struct broker *b = add(4, NULL);
    start(b);
    sim_run_for(sim, 2 * SIM_S);
    ck_assert(b->ready);
    sim_node_crash(b->node, SIM_KILL);
    for (int i = 1; i <= 3; i++) {
        start(add(i, i == 1 ? "b1:9000" : "b2:9000,b3:9000"));
    }
    sim_run_for(sim, 3 * SIM_S);
    ck_assert(brokers[1].ready && brokers[2].ready && brokers[3].ready);
    b->seeds = "b2:9000,b3:9000";
    sim_node_restart(b->node);
    ck_assert(sim_run_while_not(sim, is_refused, b, 5 * SIM_S));
    ck_assert_ptr_nonnull(strstr(b->refused, "belongs to cluster"));
    ck_assert(!b->ready);
    sim_node_crash(b->node, SIM_KILL);

    sim_node_crash(brokers[3].node, SIM_KILL);
    brokers[3].seeds = "b2:9000,b3:9000,b1:9000";
    sim_node_restart(brokers[3].node);
    sim_run_for(sim, 3 * SIM_S);
    ck_assert(brokers[3].ready);
}
END_TEST

/* The metadata log is gone, the identity is not: no vote with an empty log. */
START_TEST(test_lost_log__is_refused)
{
    three();
    sim_node_crash(brokers[1].node, SIM_KILL);
    sim_node_start(brokers[1].node, lose_log, &brokers[1]);
    sim_run_for(sim, SIM_S);
    ck_assert_int_eq(brokers[1].started, ERR_LOST);
    ck_assert_ptr_nonnull(
        strstr(brokers[1].refused, "the metadata log of the data directory"));
}
END_TEST

/* ---- changes ------------------------------------------------------------- */
START_TEST(test_create__usable_everywhere_when_answered)
{
    struct asked a = {0};
    three();
    sim_run_for(sim, SIM_S);
    create(&a, a_follower(), "orders", 12, 3);
    ck_assert_int_eq(a.result.error, KAFKA_NONE);
    assert_usable("orders", 12);
    printf("create of 12 partitions: %.1f ms (virtual)\n",
           (double)(a.done_ns - a.begun_ns) / (double)SIM_MS);
    ck_assert_uint_lt(a.done_ns - a.begun_ns, 50 * SIM_MS);
    /* leaders are spread */
    const struct image_topic *t =
        image_topic(metadata_image(brokers[0].m), "orders", 6);
    int leads[4] = {0};
    for (int i = 0; i < 12; i++) {
        leads[t->partitions[i].leader]++;
    }
    ck_assert_int_eq(leads[1], 4);
    ck_assert_int_eq(leads[2], 4);

    a.ref = (struct metadata_topic_ref){.name = a.name};
    begin(&a, &brokers[2], ask_delete);
    finish(&a);
    ck_assert_int_eq(a.result.error, KAFKA_NONE);
    for (int i = 0; i < 3; i++) {
        ck_assert_ptr_null(
            image_topic(metadata_image(brokers[i].m), "orders", 6));
    }
}
END_TEST

START_TEST(test_create__broker_dead_not_fenced)
{
    struct asked a = {0};
    three();
    sim_node_crash(brokers[2].node, SIM_KILL);
    create(&a, &brokers[1], "soon", 6, 3);
    ck_assert_int_eq(a.result.error, KAFKA_NONE);
    assert_usable("soon", 6);
    printf("create with a broker just killed: %.1f ms (virtual)\n",
           (double)(a.done_ns - a.begun_ns) / (double)SIM_MS);
    ck_assert_uint_lt(a.done_ns - a.begun_ns, SIM_S);
    /* long dead: nobody waits any more */
    sim_run_for(sim, 8 * SIM_S);
    ck_assert(!image_broker(metadata_image(brokers[0].m), 3)->live);
    create(&a, &brokers[1], "later", 6, 3);
    ck_assert_uint_lt(a.done_ns - a.begun_ns, 50 * SIM_MS);
    assert_usable("later", 6);
    /* it comes back, has its replicas, and is live again */
    sim_node_restart(brokers[2].node);
    sim_run_for(sim, SIM_MS);
    wait_ready(5 * SIM_S);
    sim_run_for(sim, SIM_S);
    assert_usable("later", 6);
    ck_assert(image_broker(metadata_image(brokers[0].m), 3)->live);
    ck_assert_int_ge(brokers[2].n_partitions, 12);
}
END_TEST

/* The leader dies at any moment of a creation: it is done once, and the
 * answer says so. */
START_TEST(test_create__leader_killed)
{
    for (int i = 0; i < 24; i++) {
        struct asked a = {.timeout_ms = 20000};
        sim_free(sim);
        sim = sim_new(500 + (uint64_t)i);
        sim_set_verbose(sim, getenv("SIM_VERBOSE") != NULL);
        n_brokers = 0;
        three();
        sim_run_for(sim, SIM_S);
        struct broker *leader = metadata_leader_broker();
        begin_create(&a, a_follower(), "t", 3, 3);
        sim_run_for(sim, (uint64_t)i * 400 * SIM_US);
        sim_node_crash(leader->node, SIM_RANDOM);
        finish(&a);
        ck_assert_int_eq(a.error, KAFKA_NONE);
        ck_assert_msg(a.result.error == KAFKA_NONE, "run %d: %s", i,
                      a.result.message);
        assert_usable("t", 3);
        sim_node_restart(leader->node);
        sim_run_for(sim, SIM_MS);
        wait_ready(10 * SIM_S);
        sim_run_for(sim, 2 * SIM_S);
        assert_usable("t", 3);
    }
}
END_TEST

START_TEST(test_create__no_majority_times_out)
{
    struct asked a = {.timeout_ms = 2000};
    three();
    sim_run_for(sim, SIM_S);
    struct broker *b = a_follower();
    for (int i = 0; i < 3; i++) {
        if (&brokers[i] != b) {
            sim_node_crash(brokers[i].node, SIM_KILL);
        }
    }
    begin_create(&a, b, "t", 1, 1);
    finish(&a);
    ck_assert_int_eq(a.error, KAFKA_REQUEST_TIMED_OUT);
    ck_assert_uint_lt(a.done_ns - a.begun_ns, 3 * SIM_S);
}
END_TEST

static void ask_unregister(struct env *env, void *arg)
{
    struct asked *a = arg;
    (void)env;
    metadata_unregister(a->b->m, a->ref_node, a->timeout_ms, &a->call);
}

static bool is_fenced(void *arg)
{
    const struct broker *b = arg;
    const struct image_broker *known =
        image_broker(metadata_image(metadata_leader_broker()->m), b->id);
    return known != NULL && !known->live;
}

static bool is_live_everywhere(void *arg)
{
    const struct broker *b = arg;
    bool live = true;
    for (int i = 0; i < n_brokers; i++) {
        const struct image_broker *known =
            image_broker(metadata_image(brokers[i].m), b->id);
        live = live && known != NULL && known->live;
    }
    return live;
}

/* It ran all the time, and could not be reached: when it can be again it is one
 * of the cluster again. */
START_TEST(test_unregistered__registers_anew)
{
    three();
    sim_run_for(sim, SIM_S);
    struct broker *b = a_follower();
    struct asked a = {.ref_node = b->id};
    for (int i = 0; i < 3; i++) {
        if (&brokers[i] != b) {
            sim_net_cut_both(sim, b->node, brokers[i].node);
        }
    }
    ck_assert(sim_run_while_not(sim, is_fenced, b, 30 * SIM_S));
    begin(&a, metadata_leader_broker(), ask_unregister);
    finish(&a);
    ck_assert_int_eq(a.error, KAFKA_NONE);
    ck_assert(!is_live_everywhere(b));
    sim_net_heal_all(sim);
    ck_assert(sim_run_while_not(sim, is_live_everywhere, b, 30 * SIM_S));
    sim_run_for(sim, 2 * SIM_S);
    ck_assert(is_live_everywhere(b));
    struct asked made = {0};
    create(&made, b, "t", 3, 3);
}
END_TEST

static void stop_calls(struct env *env, void *arg)
{
    struct broker *b = arg;
    (void)env;
    metadata_stop_calls(b->m);
    metadata_stop_calls(b->m);
}

/* A broker that is being stopped answers what nobody else can any more. */
START_TEST(test_stop__calls_do_not_wait)
{
    struct asked a = {0}, later = {0};
    three();
    sim_run_for(sim, SIM_S);
    struct broker *b = a_follower();
    for (int i = 0; i < 3; i++) {
        if (&brokers[i] != b) {
            sim_node_crash(brokers[i].node, SIM_KILL);
        }
    }
    begin_create(&a, b, "t", 1, 1);
    sim_run_for(sim, SIM_S);
    ck_assert(!a.done);
    sim_node_call(b->node, 0, stop_calls, b);
    begin_create(&later, b, "u", 1, 1);
    sim_run_for(sim, 10 * SIM_MS);
    ck_assert(a.done && later.done);
    ck_assert_int_eq(a.error, KAFKA_REQUEST_TIMED_OUT);
    ck_assert_int_eq(later.error, KAFKA_REQUEST_TIMED_OUT);
}
END_TEST

START_TEST(test_restart__of_all)
{
    struct asked a = {0};
    three();
    create(&a, &brokers[0], "kept", 4, 3);
    sim_run_for(sim, 2 * SIM_S);
    for (int i = 0; i < 20; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%d", i);
        create(&a, &brokers[i % 3], name, 1, 3);
    }
    for (int i = 0; i < 3; i++) {
        sim_node_crash(brokers[i].node, SIM_DROP_ALL);
    }
    for (int i = 0; i < 3; i++) {
        sim_node_restart(brokers[i].node);
    }
    sim_run_for(sim, SIM_MS);
    wait_ready(20 * SIM_S);
    sim_run_for(sim, 5 * SIM_S);
    assert_usable("kept", 4);
    assert_usable("t19", 1);
    for (int i = 0; i < 3; i++) {
        for (int k = 1; k <= 3; k++) {
            ck_assert(image_broker(metadata_image(brokers[i].m), k)->live);
        }
    }
}
END_TEST

START_TEST(test_producer_ids__unique)
{
    int64_t seen[9];
    three();
    for (int i = 0; i < 9; i++) {
        struct asked a = {0};
        begin(&a, &brokers[i % 3], ask_ids);
        finish(&a);
        ck_assert_int_eq(a.error, KAFKA_NONE);
        seen[i] = a.call.first_id;
        ck_assert_int_eq((int)(seen[i] % 1000), 0);
        for (int k = 0; k < i; k++) {
            ck_assert(seen[k] != seen[i]);
        }
    }
}
END_TEST

START_TEST(test_sync__sees_what_was_committed)
{
    struct asked a = {0}, s = {0};
    three();
    struct broker *leader = metadata_leader_broker();
    struct broker *far = a_follower();
    /* what the follower has not applied yet, sync waits for */
    sim_net_delay(sim, leader->node, far->node, 30 * SIM_MS, 40 * SIM_MS);
    a.timeout_ms = 5000;
    begin_create(&a, leader, "fresh", 1, 1);
    sim_run_for(sim, 20 * SIM_MS);
    ck_assert_ptr_nonnull(image_topic(metadata_image(leader->m), "fresh", 5));
    begin(&s, far, ask_sync);
    finish(&s);
    ck_assert_int_eq(s.error, KAFKA_NONE);
    ck_assert_ptr_nonnull(image_topic(metadata_image(far->m), "fresh", 5));
    /* and it tells of the quorum, as the leader sees it */
    const struct metadata_quorum *q = &s.call.quorum;
    ck_assert_int_eq(q->n_voters, 3);
    ck_assert_int_eq(image_broker(metadata_image(far->m), q->leader)->node,
                     metadata_leader(leader->m));
    ck_assert_uint_gt(q->committed.v, 0);
    for (int i = 0; i < q->n_voters; i++) {
        const struct metadata_voter *v = &q->voters[i];
        ck_assert_uint_gt(v->end.v, 0);
        ck_assert_int_gt(v->heard_ms, 0);
        ck_assert(v->node != q->leader || v->caught_up_ms == v->heard_ms);
        ck_assert(uuid_equal(
            &v->directory,
            &image_broker(metadata_image(far->m), v->node)->directory));
    }
}
END_TEST

/* A broker that was away longer than the leader's log reaches back gets the
 * snapshot, and goes on from there. */
START_TEST(test_away_for_long__gets_the_snapshot)
{
    struct asked a = {0};
    three();
    create(&a, &brokers[0], "before", 2, 3);
    create(&a, &brokers[0], "gone", 1, 3);
    sim_run_for(sim, 2 * SIM_S);
    sim_node_crash(brokers[2].node, SIM_KILL);
    sim_run_for(sim, 5 * SIM_S);
    a.ref = (struct metadata_topic_ref){.name = a.name};
    begin(&a, &brokers[1], ask_delete);
    finish(&a);
    create(&a, &brokers[0], "after", 2, 3);
    for (int i = 0; i < AWAY_CHANGES; i++) {
        struct asked ids = {0};
        begin(&ids, &brokers[i % 2], ask_ids);
        finish(&ids);
        ck_assert_int_eq(ids.error, KAFKA_NONE);
    }
    sim_run_for(sim, 3 * SIM_S);
    sim_node_restart(brokers[2].node);
    sim_run_for(sim, SIM_MS);
    wait_ready(20 * SIM_S);
    sim_run_for(sim, 2 * SIM_S);
    assert_usable("after", 2);
    assert_usable("before", 2);
    for (int i = 0; i < 3; i++) {
        const struct image *image = metadata_image(brokers[i].m);
        ck_assert_ptr_null(image_topic(image, "gone", 4));
        ck_assert_int_eq((int)image_next_producer_id(image),
                         AWAY_CHANGES * 1000);
    }
    /* and it takes part again */
    create(&a, &brokers[2], "again", 3, 3);
    assert_usable("again", 3);
}
END_TEST

/* The same seed, the same run. */
START_TEST(test_runs_are_deterministic)
{
    uint64_t hashes[2];
    for (int i = 0; i < 2; i++) {
        struct asked a = {0};
        sim_free(sim);
        sim = sim_new(4711);
        n_brokers = 0;
        three();
        create(&a, &brokers[1], "t", 6, 3);
        sim_node_crash(brokers[0].node, SIM_RANDOM);
        sim_run_for(sim, 2 * SIM_S);
        hashes[i] = sim_hash(sim);
    }
    ck_assert_uint_eq(hashes[0], hashes[1]);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("metadata_cluster");
    TCase *c = tcase_create("cluster");
    tcase_set_timeout(c, 120);
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, test_alone__forms_at_once);
    tcase_add_test(c, test_alone__own_name_as_seed);
    tcase_add_test(c, test_start__refusals);
    tcase_add_test(c, test_formation__waits_for_the_last);
    tcase_add_test(c, test_formation__is_quick);
    tcase_add_test(c, test_formation__crashes);
    tcase_add_test(c, test_formation__outsider_is_refused);
    tcase_add_test(c, test_formation__not_among_its_seeds);
    tcase_add_test(c, test_formation__other_seeds_named);
    tcase_add_test(c, test_wiped_directory__is_refused);
    tcase_add_test(c, test_wiped_directory__is_not_heard);
    tcase_add_test(c, test_directory_of_another_cluster__is_refused);
    tcase_add_test(c, test_lost_log__is_refused);
    tcase_add_test(c, test_create__usable_everywhere_when_answered);
    tcase_add_test(c, test_create__broker_dead_not_fenced);
    tcase_add_test(c, test_create__leader_killed);
    tcase_add_test(c, test_create__no_majority_times_out);
    tcase_add_test(c, test_stop__calls_do_not_wait);
    tcase_add_test(c, test_unregistered__registers_anew);
    tcase_add_test(c, test_restart__of_all);
    tcase_add_test(c, test_producer_ids__unique);
    tcase_add_test(c, test_sync__sees_what_was_committed);
    tcase_add_test(c, test_away_for_long__gets_the_snapshot);
    tcase_add_test(c, test_runs_are_deterministic);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
