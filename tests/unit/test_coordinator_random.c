/* Random clients, right and wrong ones, over a coordinator whose leadership
 * comes and goes, beside a model of what they were told:
 *
 * - every request is answered exactly once, and all are in the end;
 * - in one generation of one leadership all have the same leader and protocol,
 *   and only the leader is shown the members;
 * - a member gets from SyncGroup what this generation's leader planned for it;
 * - who was told of a newer generation's existence cannot commit in an old one;
 * - once clients behave and the broker stays, every group becomes stable;
 * - what was committed and acknowledged is never lost and never goes back: a
 *   fetch gives the newest acknowledged offset or a newer one that was sent. */
#include "partition/partition_impl.h"
#include "tests/unit/coordinator_world.h"

#define N_CLIENTS 10
#define N_GROUPS 3
#define N_PARTITIONS 4
#define N_ASKS 4096
#define STEPS 3000

struct client {
    int group;
    bool is_static;
    struct ask *join; /* the last, under way or answered */
    struct ask *sync; /* under way */
    char member[NAME_MAX_BYTES];
    struct ask *joined; /* what it believes to be in */
};

struct generation {
    unsigned leadership;
    int group, number;
    char leader[NAME_MAX_BYTES], protocol[64];
    bool shown; /* the members, to the leader */
};

static struct prng *prng;
static struct client clients[N_CLIENTS];
static struct generation *generations;
static int n_generations;
static struct ask *asks[N_ASKS * 4];
static unsigned ask_leadership[N_ASKS * 4];
static int64_t ask_value[N_ASKS * 4]; /* of a commit; least of a fetch */
static int ask_known[N_ASKS * 4];     /* newest generation known at the call */
static int n_asks, n_seen;
static unsigned leadership;
static bool leading, behave;
static int64_t acked[N_GROUPS][N_PARTITIONS], sent;
static int newest[N_GROUPS]; /* told in this leadership */

static const char *group_name(int i)
{
    static const char *const names[N_GROUPS] = {"one", "two", "three"};
    return names[i];
}

static int group_number(const char *name)
{
    int i = 0;
    while (strcmp(group_name(i), name) != 0) {
        i++;
    }
    return i;
}

static void remember(struct ask *a, int64_t value)
{
    ck_assert_int_lt(n_asks, N_ASKS * 4);
    ask_leadership[n_asks] = leadership;
    ask_value[n_asks] = value;
    ask_known[n_asks] = newest[group_number(a->group)];
    asks[n_asks++] = a;
}

static struct generation *generation_of(const struct ask *a, unsigned of)
{
    int group = group_number(a->group);
    for (int i = n_generations - 1; i >= 0; i--) {
        struct generation *g = &generations[i];
        if (g->leadership == of && g->group == group &&
            g->number == a->generation) {
            return g;
        }
    }
    struct generation *g = &generations[n_generations++];
    ck_assert_int_lt(n_generations, N_ASKS);
    *g = (struct generation){
        .leadership = of, .group = group, .number = a->generation};
    set(g->leader, sizeof g->leader, a->leader);
    set(g->protocol, sizeof g->protocol, a->protocol);
    return g;
}

/* ---- what answers must say ----------------------------------------------- */
static void check_join(const struct ask *a, unsigned of)
{
    if (a->error != KAFKA_NONE) {
        ck_assert_int_eq(a->n_members, 0);
        return;
    }
    int group = group_number(a->group);
    struct generation *g = generation_of(a, of);
    ck_assert_str_eq(g->protocol, a->protocol);
    if (a->n_members > 0) {
        ck_assert_str_eq(a->out_member, a->leader);
        bool itself = false;
        for (int i = 0; i < a->n_members; i++) {
            itself = itself || strcmp(a->members[i].id, a->out_member) == 0;
        }
        ck_assert(itself);
    }
    /* A static leader's new id takes the old one's place. */
    if (a->instance[0] == '\0' && a->n_members > 0) {
        ck_assert_str_eq(g->leader, a->out_member);
        g->shown = true;
    }
    if (of == leadership && a->generation > newest[group]) {
        newest[group] = a->generation;
    }
}

static void check_sync(const struct ask *a)
{
    char planned[64];
    if (a->error != KAFKA_NONE || a->assignment[0] == '\0' ||
        a->instance[0] != '\0') {
        return; /* of a static member: planned for an earlier id */
    }
    snprintf(planned, sizeof planned, "%d/%.50s", (int)a->sync.generation_id,
             a->member);
    ck_assert_str_eq(a->assignment, planned);
}

static void check_commit(const struct ask *a, int i)
{
    int group = group_number(a->group);
    int64_t *best = &acked[group][a->commits[0].partition];
    if (a->error != KAFKA_NONE) {
        return;
    }
    if (a->commit.generation_id >= 0) {
        ck_assert_msg(a->commit.generation_id >= ask_known[i],
                      "generation %d committed, %d was known",
                      (int)a->commit.generation_id, ask_known[i]);
    }
    *best = ask_value[i] > *best ? ask_value[i] : *best;
}

static void check_fetch(const struct ask *a, int i)
{
    if (a->error == KAFKA_NONE) {
        ck_assert_int_ge(a->fetched[0].offset, ask_value[i]);
        ck_assert_int_le(a->fetched[0].offset, sent);
    }
}

static void check(const struct ask *a, int i)
{
    switch (a->kind) {
        case JOIN:
            check_join(a, ask_leadership[i]);
            break;
        case SYNC:
            check_sync(a);
            break;
        case COMMIT:
            check_commit(a, i);
            break;
        case FETCH:
            check_fetch(a, i);
            break;
        case LEAVE:
        case DESCRIBE:
        case OFFSET_DELETE:
            break; /* not asked here */
        case DELETE:
            break;
    }
}

/* Answers that came, each looked at once, in the order of asking. */
static void look(void)
{
    for (int i = n_seen; i < n_asks; i++) {
        if (asks[i] == NULL || asks[i]->done == 0) {
            continue;
        }
        check(asks[i], i);
        asks[i] = NULL; /* its client may still look at it */
    }
    while (n_seen < n_asks && asks[n_seen] == NULL) {
        n_seen++;
    }
}

/* ---- clients ------------------------------------------------------------- */
static void client_join(struct client *c, int number)
{
    char instance[16];
    snprintf(instance, sizeof instance, "static%d", number);
    int version = (int)prng_below(prng, 10);
    version = c->is_static && version < 5 ? 9 : version;
    struct ask *a = join_new(
        group_name(c->group), c->member, c->is_static ? instance : NULL,
        version, prng_chance(prng, 1, 4) ? "sticky,range" : "range,sticky",
        prng_chance(prng, 1, 6) ? "changed" : "topics");
    a->join.session_timeout_ms = 3000 + (int32_t)prng_below(prng, 5000);
    a->join.rebalance_timeout_ms = 4000 + (int32_t)prng_below(prng, 5000);
    remember(a, 0);
    ask_send(a);
    c->join = a;
}

static void client_after_join(struct client *c)
{
    const struct ask *a = c->join;
    switch ((int)a->error) {
        case KAFKA_NONE:
        case KAFKA_MEMBER_ID_REQUIRED:
            set(c->member, sizeof c->member, a->out_member);
            break;
        case KAFKA_UNKNOWN_MEMBER_ID:
        case KAFKA_FENCED_INSTANCE_ID:
            c->member[0] = '\0';
            break;
        default:
            break;
    }
    c->joined = a->error == KAFKA_NONE ? c->join : NULL;
    c->join = NULL;
    if (c->joined != NULL && (behave || !prng_chance(prng, 1, 20))) {
        c->sync = sync_as(c->joined);
        remember(c->sync, 0);
    }
}

static void client_commit(struct client *c)
{
    int32_t partition = (int32_t)prng_below(prng, N_PARTITIONS);
    int generation = c->joined == NULL ? -1 : c->joined->generation;
    const char *member = c->joined == NULL ? "" : c->joined->out_member;
    if (c->joined != NULL && prng_chance(prng, 1, 8)) {
        generation -= (int)prng_below(prng, 3);
        generation = generation < 0 ? 0 : generation;
    }
    struct ask *a = commit_new(group_name(c->group), member, generation, "t",
                               partition, ++sent);
    remember(a, sent);
    ask_send(a);
}

static void client_step(struct client *c, int number)
{
    if (c->join != NULL) {
        if (c->join->done) {
            client_after_join(c);
        } else if (prng_chance(prng, 1, 40)) {
            c->join = NULL; /* gave up; the answer may come any time */
        }
        return;
    }
    if (c->sync != NULL && c->sync->done) {
        if (c->sync->error != KAFKA_NONE) {
            c->joined = NULL;
        }
        c->sync = NULL;
    }
    uint64_t what = prng_below(prng, 100);
    if (c->joined == NULL) {
        if (what < 50) {
            client_join(c, number);
        } else if (what < 55) {
            client_commit(c);
        }
    } else if (what < 55) {
        enum kafka_error e = heartbeat(c->joined);
        if (e == KAFKA_UNKNOWN_MEMBER_ID || e == KAFKA_FENCED_INSTANCE_ID) {
            c->member[0] = '\0';
        }
        if (e != KAFKA_NONE && !prng_chance(prng, 1, 4)) {
            c->joined = NULL;
        }
    } else if (what < 85) {
        client_commit(c);
    } else if (what < 88) {
        remember(leave_as(group_name(c->group), c->member, NULL), 0);
        c->joined = NULL;
        c->member[0] = '\0';
    } else if (what < 90) {
        client_join(c, number);
    } else if (what < 92) {
        c->member[0] = '\0'; /* restarted: another process */
        c->joined = NULL;
        c->sync = NULL;
    }
}

static void fetch_step(void)
{
    int group = (int)prng_below(prng, N_GROUPS);
    int32_t partition = (int32_t)prng_below(prng, N_PARTITIONS);
    int64_t least = acked[group][partition] > 0 ? acked[group][partition] : -1;
    struct ask *a = fetch(group_name(group), "t", partition);
    remember(a, least);
}

/* ---- the world ----------------------------------------------------------- */
static void crashed(void)
{
    for (int i = n_seen; i < n_asks; i++) {
        asks[i] = NULL; /* went with the broker: nobody answers */
    }
    n_seen = n_asks;
    for (int i = 0; i < N_CLIENTS; i++) {
        clients[i].join = clients[i].sync = NULL;
    }
}

static void world_step(void)
{
    static const enum sim_crash how[] = {SIM_KILL, SIM_DROP_ALL, SIM_KEEP_ALL,
                                         SIM_RANDOM, SIM_TORN};
    uint64_t what = prng_below(prng, 1000);
    if (what < 5) {
        leading = !leading;
        (leading ? gain_leadership : lose_leadership)();
        leadership++;
        memset(newest, 0, sizeof newest);
    } else if (what < 15) {
        hold_commit(!w.host->hold_commit);
    } else if (what < 20) {
        settle_and_evict();
    } else if (what < 23) {
        look();
        crashed();
        restart(how[prng_below(prng, 5)]);
        leading = true;
        leadership++;
        memset(newest, 0, sizeof newest);
    } else if (!leading && what < 200) {
        leading = true;
        leadership++;
        memset(newest, 0, sizeof newest);
        gain_leadership();
    }
}

/* A client as it should be: joins until it is in, then heartbeats. */
static void client_behave(struct client *c, int number)
{
    char instance[16];
    snprintf(instance, sizeof instance, "static%d", number);
    if (c->join != NULL && c->join->done) {
        client_after_join(c);
    } else if (c->sync != NULL && c->sync->done) {
        c->joined = c->sync->error == KAFKA_NONE ? c->joined : NULL;
        c->sync = NULL;
    } else if (c->join == NULL && c->sync == NULL && c->joined == NULL) {
        c->join = join_as(group_name(c->group), c->member,
                          c->is_static ? instance : NULL, 5);
        remember(c->join, 0);
    } else if (c->join == NULL && c->sync == NULL) {
        enum kafka_error e = heartbeat(c->joined);
        if (e == KAFKA_UNKNOWN_MEMBER_ID || e == KAFKA_FENCED_INSTANCE_ID) {
            c->member[0] = '\0';
        }
        c->joined = e == KAFKA_NONE ? c->joined : NULL;
    }
}

static void all_become_stable(void)
{
    for (int i = 0; i < N_CLIENTS; i++) { /* they start anew */
        clients[i].joined = clients[i].join = clients[i].sync = NULL;
        clients[i].member[0] = '\0';
    }
    for (int ms = 0; ms < 60000; ms += 300) {
        for (int i = 0; i < N_CLIENTS; i++) {
            client_behave(&clients[i], i);
        }
        run_ms(300);
        look();
    }
    for (int i = 0; i < N_CLIENTS; i++) {
        ck_assert_ptr_nonnull(clients[i].joined);
        ck_assert_int_eq(heartbeat(clients[i].joined), KAFKA_NONE);
    }
    for (int g = 0; g < N_GROUPS; g++) {
        ck_assert_str_eq(state_of(group_name(g)), "Stable");
    }
}

static int n_ok(void)
{
    int n = 0;
    for (int g = 0; g < N_GROUPS; g++) {
        for (int p = 0; p < N_PARTITIONS; p++) {
            n += acked[g][p] > 0;
        }
    }
    return n;
}

START_TEST(test_coordinator_random__beside_model)
{
    segment_bytes = _i % 4 == 3 ? 0 : 2000;
    world_begin((uint64_t)_i * 7919 + 1, _i % 2 == 0 ? 0 : 500);
    prng = sim_prng(w.sim);
    if (_i % 3 == 1) { /* many writes are on their way */
        sim_disk_latency(w.node, 0, 40 * SIM_MS, 120 * SIM_MS);
    }
    generations = calloc(N_ASKS, sizeof *generations);
    leading = true;
    for (int i = 0; i < N_CLIENTS; i++) {
        clients[i].group = i % N_GROUPS;
        clients[i].is_static = i >= 7;
    }
    for (int step = 0; step < STEPS; step++) {
        int who = (int)prng_below(prng, N_CLIENTS);
        client_step(&clients[who], who);
        if (prng_chance(prng, 1, 10)) {
            fetch_step();
        }
        world_step();
        run_ms(prng_below(prng, 150));
        look();
    }
    /* The end: everything that is under way comes to an answer. */
    if (w.host->hold_commit) {
        hold_commit(false);
    }
    if (!leading) {
        leading = true;
        gain_leadership();
    }
    run_ms(60000);
    look();
    ck_assert_int_eq(n_seen, n_asks);
    behave = true;
    all_become_stable();
    for (int g = 0; g < N_GROUPS; g++) {
        for (int p = 0; p < N_PARTITIONS; p++) {
            int64_t v = committed(group_name(g), "t", p);
            ck_assert(acked[g][p] == 0 || v >= acked[g][p]);
        }
    }
    ck_assert_int_ge(n_ok(), 8); /* or nothing was tried */
    ck_assert_int_ge(n_generations, 20);
    ck_assert(segment_bytes == 0 || w.p->compacted.v > 0);
    world_end();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("coordinator_random");
    TCase *tc = tcase_create("coordinator_random");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, test_coordinator_random__beside_model, 0, 16);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
