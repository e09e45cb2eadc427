/* What the metadata leader decides: topics, configuration, registration. */
#include <check.h>
#include <stdio.h>

#include "base/limits.h"
#include "base/mem.h"
#include "metadata/decide.h"
#include "metadata/leadership.h"
#include "metadata/record.h"

static struct image *image;
static struct prng prng;
static struct decide d;
static uint64_t version;

static void apply(struct buffer *b)
{
    ck_assert_int_eq(image_apply(image, (log_index){++version}, b->data,
                                 b->size, NULL, NULL),
                     ERR_OK);
}

static void add_broker(node_id node, bool live)
{
    struct buffer b = {0};
    char host[] = "h", peer[] = "h:1";
    struct image_broker broker = {.node = node,
                                  .directory = {{(uint8_t)node}},
                                  .host = host,
                                  .port = 1,
                                  .peer_address = peer,
                                  .live = live};
    record_batch_begin(&b);
    record_put_broker(&b, &broker);
    apply(&b);
    buffer_free(&b);
}

static void setup(void)
{
    image = image_new();
    version = 1;
    prng_seed(&prng, 7);
    memset(&d, 0, sizeof d);
    for (node_id n = 1; n <= 3; n++) {
        add_broker(n, true);
    }
}

static void teardown(void)
{
    decide_free(&d);
    image_free(image);
}

/* Decides, applies what came of it. */
static struct metadata_topic_result *run(const struct change *c)
{
    decide_free(&d);
    decide_init(&d, image, &prng);
    decide_change(&d, c);
    if (d.records.size > 0) {
        apply(&d.records);
    }
    return d.answer.results;
}

static struct metadata_topic_result create(const struct metadata_new_topic *t)
{
    const struct change c = {
        .kind = CHANGE_CREATE_TOPICS, .n = 1, .u.create = t};
    return run(&c)[0];
}

static struct metadata_topic_result create_plain(const char *name,
                                                 int32_t partitions,
                                                 int16_t factor)
{
    const struct metadata_new_topic t = {
        .name = name, .n_partitions = partitions, .replication_factor = factor};
    return create(&t);
}

START_TEST(test_create__makes_what_was_asked)
{
    struct metadata_topic_result r = create_plain("orders", 6, 3);
    ck_assert_int_eq(r.error, KAFKA_NONE);
    ck_assert_int_eq(r.n_partitions, 6);
    ck_assert_int_eq(r.replication_factor, 3);
    const struct image_topic *t = image_topic(image, "orders", 6);
    ck_assert_ptr_nonnull(t);
    ck_assert(uuid_equal(&t->id, &r.id));
    ck_assert(!uuid_is_zero(&t->id));
    ck_assert_int_eq(t->n_partitions, 6);
    ck_assert_uint_eq(t->partitions[0].replicas[0].id, 1);
    ck_assert_uint_eq(t->partitions[5].replicas[2].id, 18);
    ck_assert_int_eq(t->partitions[0].leader, -1);
    ck_assert_int_eq(create_plain("d", -1, -1).n_partitions, 1);
}
END_TEST

START_TEST(test_create__codes)
{
    static const struct {
        const char *name;
        int32_t partitions;
        int16_t factor;
        enum kafka_error want;
    } cases[] = {
        {"orders", 1, 1, KAFKA_TOPIC_ALREADY_EXISTS},
        {"", 1, 1, KAFKA_INVALID_TOPIC_EXCEPTION},
        {"..", 1, 1, KAFKA_INVALID_TOPIC_EXCEPTION},
        {"a b", 1, 1, KAFKA_INVALID_TOPIC_EXCEPTION},
        {"a_b", 1, 1, KAFKA_INVALID_TOPIC_EXCEPTION}, /* collides: a.b */
        {"x", 0, 1, KAFKA_INVALID_PARTITIONS},
        {"x", -2, 1, KAFKA_INVALID_PARTITIONS},
        {"x", LIMIT_TOPIC_PARTITIONS + 1, 1, KAFKA_INVALID_PARTITIONS},
        {"x", 1, 0, KAFKA_INVALID_REPLICATION_FACTOR},
        {"x", 1, -2, KAFKA_INVALID_REPLICATION_FACTOR},
        {"x", 1, 4, KAFKA_INVALID_REPLICATION_FACTOR},
        {"x", 1, 3, KAFKA_NONE},
    };
    create_plain("orders", 1, 1);
    create_plain("a.b", 1, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct metadata_topic_result r =
            create_plain(cases[i].name, cases[i].partitions, cases[i].factor);
        ck_assert_msg(r.error == cases[i].want, "case %zu: %d %s", i, r.error,
                      r.message);
        ck_assert_int_eq(r.message[0] != '\0', cases[i].want != KAFKA_NONE);
    }
    const struct image_topic *const *topics;
    ck_assert_int_eq(image_topics(image, &topics), 3);
}
END_TEST

START_TEST(test_create__manual_assignments)
{
    const node_id one_two[] = {1, 2}, two_three[] = {2, 3}, unknown[] = {1, 9},
                  twice[] = {1, 1}, one[] = {1};
    struct metadata_assignment a[2] = {{1, 2, one_two}, {0, 2, two_three}};
    struct metadata_new_topic t = {.name = "m",
                                   .n_partitions = -1,
                                   .replication_factor = -1,
                                   .n_assignments = 2,
                                   .assignments = a};
    ck_assert_int_eq(create(&t).error, KAFKA_NONE);
    const struct image_topic *made = image_topic(image, "m", 1);
    ck_assert_int_eq(made->partitions[0].replicas[0].node, 2);
    ck_assert_int_eq(made->partitions[1].replicas[0].node, 1);
    t.name = "n";
    t.n_partitions = 2;
    ck_assert_int_eq(create(&t).error, KAFKA_INVALID_REQUEST);
    t.n_partitions = -1;
    const struct metadata_assignment wrong[][2] = {
        {{0, 2, one_two}, {0, 2, one_two}}, {{0, 2, one_two}, {2, 2, one_two}},
        {{0, 2, one_two}, {1, 2, unknown}}, {{0, 2, one_two}, {1, 2, twice}},
        {{0, 2, one_two}, {1, 1, one}},     {{0, 0, NULL}, {1, 0, NULL}},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        t.assignments = wrong[i];
        ck_assert_int_eq(create(&t).error, KAFKA_INVALID_REPLICA_ASSIGNMENT);
    }
}
END_TEST

START_TEST(test_create__several_in_one_request)
{
    const struct metadata_new_topic t[] = {
        {.name = "a", .n_partitions = 1, .replication_factor = 1},
        {.name = "b", .n_partitions = 1, .replication_factor = 1},
        {.name = "a", .n_partitions = 1, .replication_factor = 1},
        {.name = "c.d", .n_partitions = 1, .replication_factor = 1},
        {.name = "c_d", .n_partitions = 1, .replication_factor = 1}};
    const struct change c = {
        .kind = CHANGE_CREATE_TOPICS, .n = 5, .u.create = t};
    struct metadata_topic_result *r = run(&c);
    ck_assert_int_eq(r[0].error, KAFKA_INVALID_REQUEST);
    ck_assert_int_eq(r[1].error, KAFKA_NONE);
    ck_assert_int_eq(r[2].error, KAFKA_INVALID_REQUEST);
    ck_assert_int_eq(r[3].error, KAFKA_NONE);
    ck_assert_int_eq(r[4].error, KAFKA_INVALID_TOPIC_EXCEPTION);
    const struct image_topic *const *topics;
    ck_assert_int_eq(image_topics(image, &topics), 2);
    /* each leads one of the two */
    ck_assert_int_ne(topics[0]->partitions[0].replicas[0].node,
                     topics[1]->partitions[0].replicas[0].node);
}
END_TEST

START_TEST(test_create__validate_only)
{
    const struct metadata_new_topic t = {
        .name = "v", .n_partitions = 4, .replication_factor = 2};
    struct change c = {.kind = CHANGE_CREATE_TOPICS,
                       .validate_only = true,
                       .n = 1,
                       .u.create = &t};
    struct metadata_topic_result *r = run(&c);
    ck_assert_int_eq(r[0].error, KAFKA_NONE);
    ck_assert_int_eq(r[0].n_partitions, 4);
    ck_assert_uint_eq(d.records.size, 0);
    struct metadata_new_topic bad = t;
    bad.replication_factor = 5;
    c.u.create = &bad;
    ck_assert_int_eq(run(&c)[0].error, KAFKA_INVALID_REPLICATION_FACTOR);
}
END_TEST

static struct metadata_topic_result create_with(const char *key,
                                                const char *value)
{
    char k[64], v[64];
    snprintf(k, sizeof k, "%s", key);
    if (value != NULL) {
        snprintf(v, sizeof v, "%s", value);
    }
    const struct image_config config = {k, value == NULL ? NULL : v};
    const struct metadata_new_topic t = {.name = "c",
                                         .n_partitions = 1,
                                         .replication_factor = 1,
                                         .n_configs = 1,
                                         .configs = &config};
    return create(&t);
}

START_TEST(test_create__configs)
{
    struct metadata_topic_result r = create_with("retention.mss", "5");
    ck_assert_int_eq(r.error, KAFKA_INVALID_CONFIG);
    ck_assert_ptr_nonnull(strstr(r.message, "retention.mss"));
    r = create_with("retention.ms", "soon");
    ck_assert_int_eq(r.error, KAFKA_INVALID_CONFIG);
    ck_assert_ptr_nonnull(strstr(r.message, "retention.ms"));
    ck_assert_int_eq(create_with("retention.ms", NULL).error,
                     KAFKA_INVALID_CONFIG);
    ck_assert_int_eq(create_with("retention.ms", "5000").error, KAFKA_NONE);
    ck_assert_str_eq(
        image_topic_config(image_topic(image, "c", 1), "retention.ms"), "5000");
}
END_TEST

START_TEST(test_create__brokers_down)
{
    add_broker(2, false);
    ck_assert_int_eq(create_plain("a", 3, 3).error, KAFKA_NONE);
    const struct image_topic *t = image_topic(image, "a", 1);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_ne(t->partitions[i].replicas[0].node, 2);
    }
    add_broker(1, false);
    add_broker(3, false);
    /* who decides is cut off, or begins: it does not know who lives */
    ck_assert_int_eq(create_plain("b", 1, 3).error, KAFKA_NONE);
    ck_assert_int_eq(image_topic(image, "b", 1)->partitions[0].n_replicas, 3);
    ck_assert_int_eq(create_plain("c", 1, 4).error,
                     KAFKA_INVALID_REPLICATION_FACTOR);
}
END_TEST

START_TEST(test_delete)
{
    struct metadata_topic_result made = create_plain("a", 1, 1);
    create_plain("b", 1, 1);
    const struct metadata_topic_ref refs[] = {
        {.name = "b"}, {.name = "x"}, {.id = {{1, 2}}}, {.id = made.id}};
    const struct change c = {
        .kind = CHANGE_DELETE_TOPICS, .n = 4, .u.delete = refs};
    struct metadata_topic_result *r = run(&c);
    ck_assert_int_eq(r[0].error, KAFKA_NONE);
    ck_assert_int_eq(r[1].error, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    ck_assert_int_eq(r[2].error, KAFKA_UNKNOWN_TOPIC_ID);
    ck_assert_int_eq(r[3].error, KAFKA_NONE);
    const struct image_topic *const *topics;
    ck_assert_int_eq(image_topics(image, &topics), 0);
    /* replica ids are not given out again */
    create_plain("a", 1, 1);
    ck_assert_uint_eq(image_topic(image, "a", 1)->partitions[0].replicas[0].id,
                      3);
}
END_TEST

/* A topic is named in one way and once; else it stays. */
START_TEST(test_delete__badly_named)
{
    struct metadata_topic_result a = create_plain("a", 1, 1);
    struct metadata_topic_result b = create_plain("b", 1, 1);
    create_plain("c", 1, 1);
    const struct uuid other = {{1, 2}};
    const struct metadata_topic_ref refs[] = {
        {.name = "a", .id = a.id},
        {.name = NULL},
        {.name = "b"},
        {.id = b.id},
        {.id = other},
        {.id = other},
        {.name = "none"},
        {.name = "none"},
        {.name = "c"},
    };
    const struct change c = {.kind = CHANGE_DELETE_TOPICS,
                             .n = sizeof refs / sizeof *refs,
                             .u.delete = refs};
    struct metadata_topic_result *r = run(&c);
    for (int i = 0; i < c.n - 1; i++) {
        ck_assert_msg(r[i].error == KAFKA_INVALID_REQUEST, "%d: %d", i,
                      r[i].error);
    }
    ck_assert_int_eq(r[c.n - 1].error, KAFKA_NONE);
    ck_assert_ptr_nonnull(image_topic(image, "a", 1));
    ck_assert_ptr_nonnull(image_topic(image, "b", 1));
    ck_assert_ptr_null(image_topic(image, "c", 1));
}
END_TEST

START_TEST(test_unregister)
{
    struct change c = {.kind = CHANGE_UNREGISTER, .u.unregister = 9};
    run(&c);
    ck_assert_int_eq(d.answer.error, KAFKA_BROKER_ID_NOT_REGISTERED);
    c.u.unregister = 3;
    run(&c);
    ck_assert_int_eq(d.answer.error, KAFKA_INVALID_REQUEST);
    ck_assert_ptr_nonnull(strstr(d.answer.sentence, "running"));
    ck_assert_ptr_nonnull(image_broker(image, 3));
    add_broker(3, false);
    run(&c);
    ck_assert_int_eq(d.answer.error, KAFKA_NONE);
    ck_assert_ptr_null(image_broker(image, 3));
    run(&c);
    ck_assert_int_eq(d.answer.error, KAFKA_BROKER_ID_NOT_REGISTERED);
}
END_TEST

START_TEST(test_more_partitions)
{
    create_plain("a", 2, 2);
    struct metadata_more_partitions m = {.name = "a", .count = 2};
    struct change c = {.kind = CHANGE_CREATE_PARTITIONS, .n = 1, .u.more = &m};
    ck_assert_int_eq(run(&c)[0].error, KAFKA_INVALID_PARTITIONS);
    m.count = 5;
    ck_assert_int_eq(run(&c)[0].error, KAFKA_NONE);
    const struct image_topic *t = image_topic(image, "a", 1);
    ck_assert_int_eq(t->n_partitions, 5);
    ck_assert_int_eq(t->partitions[4].n_replicas, 2);
    ck_assert_uint_eq(t->partitions[4].replicas[1].id, 10);
    const node_id nodes[] = {3, 1};
    const struct metadata_assignment a = {0, 2, nodes};
    m.count = 7;
    m.n_assignments = 1;
    m.assignments = &a;
    ck_assert_int_eq(run(&c)[0].error, KAFKA_INVALID_REPLICA_ASSIGNMENT);
    m.count = 6;
    ck_assert_int_eq(run(&c)[0].error, KAFKA_NONE);
    ck_assert_int_eq(t->partitions[5].replicas[0].node, 3);
    m.name = "x";
    ck_assert_int_eq(run(&c)[0].error, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
}
END_TEST

START_TEST(test_alter_configs)
{
    create_plain("a", 1, 1);
    char key[] = "retention.ms", value[] = "9", wrong[] = "nine",
         unknown[] = "no.such.key", read_only[] = "node.id";
    const struct image_config set = {key, value}, remove = {key, NULL},
                              bad = {key, wrong}, none = {unknown, value},
                              fixed = {read_only, value};
    const struct metadata_config_change all[] = {
        {.topic = "a", .n_configs = 1, .configs = &set},
        {.topic = "x", .n_configs = 1, .configs = &set},
        {.topic = "a", .n_configs = 1, .configs = &bad},
        {.topic = "a", .n_configs = 1, .configs = &none},
        {.node = 9, .n_configs = 0},
        {.node = -1, .n_configs = 1, .configs = &fixed}};
    const enum kafka_error want[] = {KAFKA_NONE,
                                     KAFKA_UNKNOWN_TOPIC_OR_PARTITION,
                                     KAFKA_INVALID_CONFIG,
                                     KAFKA_INVALID_CONFIG,
                                     KAFKA_INVALID_REQUEST,
                                     KAFKA_INVALID_REQUEST};
    struct change c = {.kind = CHANGE_ALTER_CONFIGS, .n = 6, .u.configs = all};
    struct metadata_topic_result *r = run(&c);
    for (int i = 0; i < 6; i++) {
        ck_assert_msg(r[i].error == want[i], "%d: %s", i, r[i].message);
    }
    const struct image_topic *t = image_topic(image, "a", 1);
    ck_assert_str_eq(image_topic_config(t, key), "9");
    const struct metadata_config_change back = {
        .topic = "a", .n_configs = 1, .configs = &remove};
    c.n = 1;
    c.u.configs = &back;
    c.validate_only = true;
    run(&c);
    ck_assert_str_eq(image_topic_config(t, key), "9");
    c.validate_only = false;
    run(&c);
    ck_assert_ptr_null(image_topic_config(t, key));
}
END_TEST

/* Groups and clients have a configuration as soon as something is set. */
START_TEST(test_alter_configs__of_groups_and_clients)
{
    char key[] = "consumer.session.timeout.ms", value[] = "50000", low[] = "10",
         rate[] = "producer_byte_rate", half[] = "1.5",
         percent[] = "request_percentage", zero[] = "0";
    const struct image_config set = {key, value}, remove = {key, NULL},
                              bad = {key, low}, quota = {rate, value},
                              broken = {rate, half}, share = {percent, half},
                              none = {percent, zero};
    const struct metadata_config_change all[] = {{.resource = "g",
                                                  .scope = CONFIG_GROUP,
                                                  .n_configs = 1,
                                                  .configs = &set},
                                                 {.resource = "g",
                                                  .scope = CONFIG_GROUP,
                                                  .n_configs = 1,
                                                  .configs = &bad},
                                                 {.resource = "g",
                                                  .scope = CONFIG_GROUP,
                                                  .n_configs = 1,
                                                  .configs = &quota},
                                                 {.resource = "",
                                                  .scope = CONFIG_GROUP,
                                                  .n_configs = 1,
                                                  .configs = &set},
                                                 {.resource = "client-id=",
                                                  .scope = CONFIG_CLIENT,
                                                  .n_configs = 1,
                                                  .configs = &quota},
                                                 {.resource = "client-id=",
                                                  .scope = CONFIG_CLIENT,
                                                  .n_configs = 1,
                                                  .configs = &broken},
                                                 {.resource = "client-id=a",
                                                  .scope = CONFIG_CLIENT,
                                                  .n_configs = 1,
                                                  .configs = &share},
                                                 {.resource = "client-id=b",
                                                  .scope = CONFIG_CLIENT,
                                                  .n_configs = 1,
                                                  .configs = &none}};
    const enum kafka_error want[] = {
        KAFKA_NONE,           KAFKA_INVALID_CONFIG,
        KAFKA_INVALID_CONFIG, KAFKA_INVALID_REQUEST,
        KAFKA_NONE,           KAFKA_INVALID_REQUEST,
        KAFKA_NONE,           KAFKA_INVALID_REQUEST};
    struct change c = {.kind = CHANGE_ALTER_CONFIGS, .n = 8, .u.configs = all};
    struct buffer b = {0};
    change_encode(&b, &c);
    struct change sent;
    ck_assert_int_eq(change_decode(b.data, b.size, &sent), ERR_OK);
    struct metadata_topic_result *r = run(&sent);
    for (int i = 0; i < 8; i++) {
        ck_assert_msg(r[i].error == want[i], "%d: %s", i, r[i].message);
    }
    change_free(&sent);
    buffer_free(&b);
    ck_assert_str_eq(image_resource_config(image, CONFIG_GROUP, "g", key),
                     value);
    ck_assert_ptr_null(image_resource(image, CONFIG_CLIENT, "g"));
    const struct image_resource *found = NULL;
    ck_assert_int_eq(image_resources(image, CONFIG_CLIENT, &found), 2);
    ck_assert_str_eq(found[0].name, "client-id=");
    ck_assert_str_eq(found[1].name, "client-id=a");
    const struct metadata_config_change back = {.resource = "g",
                                                .scope = CONFIG_GROUP,
                                                .n_configs = 1,
                                                .configs = &remove};
    c.n = 1;
    c.u.configs = &back;
    run(&c);
    ck_assert_int_eq(image_resources(image, CONFIG_GROUP, &found), 0);
    ck_assert_ptr_null(image_resource(image, CONFIG_GROUP, "g"));
}
END_TEST

START_TEST(test_register)
{
    char host[] = "new", peer[] = "new:1";
    struct change c = {.kind = CHANGE_REGISTER};
    c.u.broker = (struct image_broker){.node = 2,
                                       .directory = {{2}},
                                       .host = host,
                                       .port = 5,
                                       .peer_address = peer};
    run(&c);
    ck_assert_int_eq(d.answer.error, KAFKA_NONE);
    ck_assert_str_eq(image_broker(image, 2)->host, "new");
    ck_assert_uint_eq(image_broker(image, 2)->epoch, version);
    ck_assert_ptr_null(image_broker(image, 2)->listeners);
    char listeners[] = "A://a:1,B://b:2";
    c.u.broker.listeners = listeners;
    run(&c);
    ck_assert_str_eq(image_broker(image, 2)->listeners, listeners);
    c.u.broker.directory.b[0] = 77;
    run(&c);
    ck_assert_int_ne(d.answer.error, KAFKA_NONE);
    ck_assert_ptr_nonnull(strstr(
        d.answer.sentence, "node id 2 belongs to another data directory"));
    ck_assert_uint_eq(d.records.size, 0);
}
END_TEST

START_TEST(test_producer_ids)
{
    const struct change c = {.kind = CHANGE_PRODUCER_IDS,
                             .u.producer_ids = 1000};
    run(&c);
    ck_assert_int_eq((int)d.answer.first_id, 0);
    run(&c);
    ck_assert_int_eq((int)d.answer.first_id, 1000);
}
END_TEST

/* ---- reports ------------------------------------------------------------- */
static int n_read;
static void count_report(void *arg, const struct leadership_report *report)
{
    (void)arg;
    (void)report;
    n_read++;
}

static int written(struct leadership *l, uint64_t now_ms)
{
    struct buffer b = {0};
    leadership_write(l, image, now_ms, &b);
    struct reader r = codec_reader(b.data, b.size);
    n_read = 0;
    ck_assert(leadership_read(&r, image, count_report, NULL));
    ck_assert(codec_done(&r));
    buffer_free(&b);
    return n_read;
}

START_TEST(test_leadership__reported_until_recorded)
{
    struct leadership *l = leadership_new();
    struct leadership_report r = {.leader = 2, .epoch = 3};
    ck_assert(!leadership_add(l, image, &r)); /* no such topic */
    r.group.topic = create_plain("a", 1, 3).id;
    ck_assert(leadership_add(l, image, &r));
    ck_assert(!leadership_add(l, image, &r));
    ck_assert_int_eq(written(l, 100), 1);
    ck_assert_int_eq(written(l, 200), 0); /* on its way */
    ck_assert_int_eq(written(l, 1100), 1);
    leadership_repeat(l);
    ck_assert_int_eq(written(l, 1110), 1);
    struct buffer b = {0};
    record_batch_begin(&b);
    record_put_leader(&b, &r.group.topic, 0, 2, 3);
    apply(&b);
    ck_assert_int_eq(written(l, 9000), 0);
    ck_assert(!leadership_add(l, image, &r));
    r.epoch = 2;
    ck_assert(!leadership_add(l, image, &r)); /* older */
    r.epoch = 4;
    ck_assert(leadership_add(l, image, &r));
    buffer_free(&b);
    leadership_free(l);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("metadata_topic");
    TCase *c = tcase_create("decide");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, test_create__makes_what_was_asked);
    tcase_add_test(c, test_create__codes);
    tcase_add_test(c, test_create__manual_assignments);
    tcase_add_test(c, test_create__several_in_one_request);
    tcase_add_test(c, test_create__validate_only);
    tcase_add_test(c, test_create__configs);
    tcase_add_test(c, test_create__brokers_down);
    tcase_add_test(c, test_delete);
    tcase_add_test(c, test_delete__badly_named);
    tcase_add_test(c, test_unregister);
    tcase_add_test(c, test_more_partitions);
    tcase_add_test(c, test_alter_configs);
    tcase_add_test(c, test_alter_configs__of_groups_and_clients);
    tcase_add_test(c, test_register);
    tcase_add_test(c, test_producer_ids);
    tcase_add_test(c, test_leadership__reported_until_recorded);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
