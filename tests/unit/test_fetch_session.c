/* Fetch sessions: what opens, continues, ends and refuses one; what is told;
 * order; bounds and eviction. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "net/fetch_session.h"
#include "tests/sim/sim_env.h"

static struct sim *sim;
static struct env *the_env;
static struct fetch_sessions *cache;
static uint32_t slots;

static void boot(struct env *env, void *arg)
{
    (void)arg;
    the_env = env;
    cache = fetch_sessions_new(env, slots);
}

static void world_begin(uint32_t slots_max)
{
    slots = slots_max;
    sim = sim_new(1);
    sim_node_start(sim_node_add(sim, "a", 1), boot, NULL);
    sim_run_for(sim, 10 * SIM_MS);
}

static void world_end(void)
{
    fetch_sessions_free(cache);
    sim_free(sim);
}

/* A request for partitions [from, to) of topic `id`. */
static struct fetch_request request(int32_t session, int32_t epoch, uint8_t id,
                                    int32_t from, int32_t to)
{
    static struct fetch_request_partition partitions[64];
    static struct fetch_request_topic topic;
    memset(partitions, 0, sizeof partitions);
    for (int32_t i = from; i < to; i++) {
        partitions[i - from].partition = i;
        partitions[i - from].fetch_offset = 100 + i;
    }
    topic = (struct fetch_request_topic){.topic = WIRE_STR("orders"),
                                         .topic_id = {{id}},
                                         .partitions = partitions,
                                         .n_partitions = to - from};
    return (struct fetch_request){.session_id = session,
                                  .session_epoch = epoch,
                                  .topics = &topic,
                                  .n_topics = from == to ? 0 : 1};
}

static int32_t open_session(int16_t version, uint8_t id, int32_t n)
{
    struct fetch_request in = request(0, FETCH_EPOCH_FIRST, id, 0, n);
    struct fetch_context ctx;
    fetch_context_begin(cache, &in, version, &ctx);
    ck_assert_int_eq(ctx.kind, FETCH_FULL);
    int32_t session = fetch_context_open(cache, &in, version, &ctx);
    fetch_context_end(&ctx);
    return session;
}

static enum kafka_error go_on(int32_t session, int32_t epoch, int16_t version,
                              struct fetch_context *ctx)
{
    struct fetch_request in = request(session, epoch, 1, 0, 0);
    fetch_context_begin(cache, &in, version, ctx);
    return ctx->error;
}

static int order[64], n_order;
static void read_order(struct fetch_session *s)
{
    n_order = 0;
    for (struct fetch_session_part *p = s->parts; p != NULL; p = p->hh.next) {
        order[n_order++] = p->in.partition;
    }
}

START_TEST(test_session__life)
{
    for (int16_t version = 12; version <= 13; version++) {
        struct fetch_context ctx;
        world_begin(10);
        int32_t id = open_session(version, 1, 3);
        ck_assert_int_gt(id, 0);
        ck_assert_uint_eq(fetch_sessions_count(cache), 1);
        ck_assert_int_eq(go_on(id, 1, version, &ctx), KAFKA_NONE);
        ck_assert_int_eq(ctx.kind, FETCH_INCREMENTAL);
        read_order(ctx.session);
        ck_assert_int_eq(n_order, 3);
        ck_assert_int_eq(ctx.session->parts->in.fetch_offset, 100);
        fetch_context_end(&ctx);
        /* The same epoch again, one too far, another id, another kind. */
        ck_assert_int_eq(go_on(id, 1, version, &ctx),
                         KAFKA_INVALID_FETCH_SESSION_EPOCH);
        ck_assert_int_eq(go_on(id, 3, version, &ctx),
                         KAFKA_INVALID_FETCH_SESSION_EPOCH);
        ck_assert_int_eq(go_on(id + 1, 2, version, &ctx),
                         KAFKA_FETCH_SESSION_ID_NOT_FOUND);
        ck_assert_int_eq(go_on(id, 2, version == 12 ? 13 : 12, &ctx),
                         KAFKA_FETCH_SESSION_TOPIC_ID_ERROR);
        /* Added and forgotten. */
        struct fetch_request in = request(id, 2, 1, 2, 5);
        int32_t gone[] = {0, 9};
        struct fetch_request_forgotten_topic forgotten = {
            .topic = WIRE_STR("orders"),
            .topic_id = {{1}},
            .partitions = gone,
            .n_partitions = 2};
        in.forgotten_topics_data = &forgotten;
        in.n_forgotten_topics_data = 1;
        fetch_context_begin(cache, &in, version, &ctx);
        ck_assert_int_eq(ctx.kind, FETCH_INCREMENTAL);
        read_order(ctx.session);
        ck_assert_int_eq(n_order, 4);
        ck_assert_int_eq(order[0], 1);
        ck_assert_int_eq(order[3], 4);
        fetch_context_end(&ctx);
        /* All forgotten: it ends, and nothing is left to be answered. */
        in = request(id, 3, 1, 0, 0);
        int32_t all[] = {1, 2, 3, 4};
        forgotten.partitions = all;
        forgotten.n_partitions = 4;
        in.forgotten_topics_data = &forgotten;
        in.n_forgotten_topics_data = 1;
        fetch_context_begin(cache, &in, version, &ctx);
        ck_assert_int_eq(ctx.kind, FETCH_PLAIN);
        ck_assert_uint_eq(fetch_sessions_count(cache), 0);
        world_end();
    }
}
END_TEST

START_TEST(test_session__ends_by_a_full_request)
{
    struct fetch_context ctx;
    world_begin(10);
    int32_t id = open_session(13, 1, 3);
    /* A session in use lives until its request is answered. */
    struct fetch_context using;
    ck_assert_int_eq(go_on(id, 1, 13, &using), KAFKA_NONE);
    ck_assert_int_eq(go_on(id, FETCH_EPOCH_NONE, 13, &ctx), KAFKA_NONE);
    ck_assert_int_eq(ctx.kind, FETCH_PLAIN);
    ck_assert_uint_eq(fetch_sessions_count(cache), 0);
    read_order(using.session);
    ck_assert_int_eq(n_order, 3);
    fetch_context_end(&using);
    ck_assert_int_eq(go_on(id, 2, 13, &ctx), KAFKA_FETCH_SESSION_ID_NOT_FOUND);
    /* The next one in its place. */
    id = open_session(13, 1, 3);
    struct fetch_request in = request(id, FETCH_EPOCH_FIRST, 1, 0, 2);
    fetch_context_begin(cache, &in, 13, &ctx);
    ck_assert_int_eq(ctx.kind, FETCH_FULL);
    ck_assert_uint_eq(fetch_sessions_count(cache), 0);
    ck_assert_int_ne(fetch_context_open(cache, &in, 13, &ctx), 0);
    fetch_context_end(&ctx);
    world_end();
}
END_TEST

static struct fetch_response_partition answer(int64_t high_watermark,
                                              int32_t bytes)
{
    return (struct fetch_response_partition){
        .high_watermark = high_watermark,
        .last_stable_offset = high_watermark,
        .preferred_read_replica = -1,
        .diverging_epoch = {.epoch = -1, .end_offset = -1},
        .records = {.n = bytes}};
}

START_TEST(test_session__what_is_new)
{
    struct fetch_context ctx;
    world_begin(10);
    int32_t id = open_session(13, 1, 3);
    ck_assert_int_eq(go_on(id, 1, 13, &ctx), KAFKA_NONE);
    struct fetch_session *s = ctx.session;
    struct fetch_session_part *p = s->parts;
    struct fetch_response_partition a = answer(5, 0);
    ck_assert(fetch_session_told(s, p, &a));
    ck_assert(!fetch_session_told(s, p, &a));
    a.high_watermark = 6;
    ck_assert(fetch_session_told(s, p, &a));
    ck_assert(!fetch_session_told(s, p, &a));
    a.log_start_offset = 2;
    ck_assert(fetch_session_told(s, p, &a));
    ck_assert(!fetch_session_told(s, p, &a));
    a.preferred_read_replica = 2;
    ck_assert(fetch_session_told(s, p, &a));
    ck_assert(fetch_session_told(s, p, &a));
    a.preferred_read_replica = -1;
    a.diverging_epoch.epoch = 1;
    ck_assert(fetch_session_told(s, p, &a));
    a.diverging_epoch.epoch = -1;
    ck_assert(!fetch_session_told(s, p, &a));
    /* An error each time; and when it is over, that too. */
    struct fetch_response_partition bad = answer(-1, 0);
    bad.error_code = KAFKA_UNKNOWN_TOPIC_ID;
    ck_assert(fetch_session_told(s, p, &bad));
    ck_assert(fetch_session_told(s, p, &bad));
    ck_assert(fetch_session_told(s, p, &a));
    ck_assert(!fetch_session_told(s, p, &a));
    read_order(s);
    ck_assert_int_eq(order[0], 0);
    /* Records: always, and the others have their turn first then. */
    a.records.n = 100;
    ck_assert(fetch_session_told(s, p, &a));
    ck_assert(fetch_session_told(s, p, &a));
    read_order(s);
    ck_assert_int_eq(order[0], 1);
    ck_assert_int_eq(order[2], 0);
    fetch_context_end(&ctx);
    world_end();
}
END_TEST

START_TEST(test_session__bounds)
{
    struct fetch_context ctx;
    world_begin(2);
    int32_t a = open_session(13, 1, 3);
    int32_t b = open_session(13, 2, 5);
    ck_assert_int_ne(a, 0);
    ck_assert_int_ne(b, 0);
    ck_assert_int_eq(open_session(13, 3, 60), 0); /* both are young */
    sim_run_for(sim, 100 * SIM_S);
    ck_assert_int_eq(go_on(a, 1, 13, &ctx), KAFKA_NONE);
    fetch_context_end(&ctx);
    ck_assert_int_eq(go_on(b, 1, 13, &ctx), KAFKA_NONE);
    fetch_context_end(&ctx);
    sim_run_for(sim, 100 * SIM_S);
    /* Old, but both in use: the smaller one goes, for a larger one only. */
    ck_assert_int_eq(open_session(13, 3, 3), 0);
    int32_t c = open_session(13, 3, 4);
    ck_assert_int_ne(c, 0);
    ck_assert_int_eq(go_on(a, 2, 13, &ctx), KAFKA_FETCH_SESSION_ID_NOT_FOUND);
    ck_assert_int_eq(go_on(b, 2, 13, &ctx), KAFKA_NONE);
    fetch_context_end(&ctx);
    /* Not used for long: it goes for any. */
    sim_run_for(sim, 121 * SIM_S);
    ck_assert_int_eq(go_on(c, 1, 13, &ctx), KAFKA_NONE);
    fetch_context_end(&ctx);
    ck_assert_int_ne(open_session(13, 4, 1), 0);
    ck_assert_int_eq(go_on(b, 3, 13, &ctx), KAFKA_FETCH_SESSION_ID_NOT_FOUND);
    ck_assert_uint_eq(fetch_sessions_count(cache), 2);
    world_end();
    world_begin(0);
    ck_assert_int_eq(open_session(13, 1, 3), 0);
    world_end();
}
END_TEST

START_TEST(test_session__epoch_wraps)
{
    struct fetch_context ctx;
    world_begin(2);
    int32_t id = open_session(13, 1, 3);
    ck_assert_int_eq(go_on(id, 1, 13, &ctx), KAFKA_NONE);
    ctx.session->epoch = INT32_MAX;
    fetch_context_end(&ctx);
    ck_assert_int_eq(go_on(id, INT32_MAX, 13, &ctx), KAFKA_NONE);
    fetch_context_end(&ctx);
    ck_assert_int_eq(go_on(id, 1, 13, &ctx), KAFKA_NONE);
    fetch_context_end(&ctx);
    world_end();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fetch_session");
    TCase *tc = tcase_create("fetch_session");
    tcase_add_test(tc, test_session__life);
    tcase_add_test(tc, test_session__ends_by_a_full_request);
    tcase_add_test(tc, test_session__what_is_new);
    tcase_add_test(tc, test_session__bounds);
    tcase_add_test(tc, test_session__epoch_wraps);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
