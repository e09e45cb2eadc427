/* Records of the metadata log and the image they build. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/limits.h"
#include "base/mem.h"
#include "metadata/record.h"

static const struct uuid ORDERS = {{1, 2, 3}};
static const struct uuid DIRECTORY = {{9, 8, 7}};

static struct image_partition partition_of(uint64_t first_id)
{
    return (struct image_partition){
        .n_replicas = 3,
        .replicas = {{first_id, 2}, {first_id + 1, 1}, {first_id + 2, 3}},
        .leader = -1};
}

static void put_orders(struct buffer *b, struct uuid id, const char *name)
{
    struct image_partition p[2] = {partition_of(1), partition_of(4)};
    char n[300];
    char key1[] = "retention.ms", key2[] = "cleanup.policy";
    char value1[] = "1000", value2[] = "compact";
    struct image_config configs[2] = {{key1, value1}, {key2, value2}};
    snprintf(n, sizeof n, "%s", name);
    struct image_topic t = {.id = id,
                            .name = n,
                            .n_partitions = 2,
                            .partitions = p,
                            .n_configs = 2,
                            .configs = configs};
    record_put_topic(b, &t);
}

static void put_broker(struct buffer *b, node_id node, uint64_t epoch)
{
    char host[] = "localhost", peer[] = "localhost:9095", rack[] = "r1";
    struct image_broker broker = {.node = node,
                                  .directory = DIRECTORY,
                                  .host = host,
                                  .port = 9092,
                                  .peer_address = peer,
                                  .rack = node == 1 ? NULL : rack,
                                  .live = true,
                                  .epoch = epoch};
    record_put_broker(b, &broker);
}

static void put_listeners(struct buffer *b, node_id node)
{
    char listeners[] = "PLAINTEXT://out.side:9092,IN://[::1]:29092,I://i:1";
    struct image_broker broker = {.node = node, .listeners = listeners};
    record_put_broker_listeners(b, &broker);
}

struct changes {
    int n[IMAGE_LEADER + 1];
    node_id broker; /* of the newest change of one */
};
static void count_change(void *arg, const struct image_change *change)
{
    struct changes *c = arg;
    c->n[change->kind]++;
    if (change->kind == IMAGE_BROKER) {
        c->broker = change->node;
    }
}

static void apply(struct image *image, uint64_t index, struct buffer *b,
                  struct changes *c)
{
    ck_assert_int_eq(image_apply(image, (log_index){index}, b->data, b->size,
                                 c == NULL ? NULL : count_change, c),
                     ERR_OK);
    buffer_clear(b);
    record_batch_begin(b);
}

static struct image *sample(void)
{
    struct image *image = image_new();
    struct buffer b = {0};
    struct uuid cluster = {{42}};
    record_batch_begin(&b);
    record_put_cluster(&b, &cluster);
    put_broker(&b, 3, 0);
    put_listeners(&b, 3);
    put_broker(&b, 1, 0);
    put_broker(&b, 2, 0);
    apply(image, 2, &b, NULL);
    put_orders(&b, ORDERS, "orders");
    record_put_request(&b, &DIRECTORY, 0, "done", 4);
    apply(image, 5, &b, NULL);
    put_orders(&b, DIRECTORY, "a.first");
    record_put_broker_config(&b, -1, "log.retention.ms", "7");
    record_put_broker_config(&b, 2, "x", "y");
    record_put_config(&b, CONFIG_GROUP, "g", "k", "1");
    record_put_config(&b, CONFIG_CLIENT, "client-id=c", "k", "2");
    record_put_config(&b, CONFIG_GROUP, "ga", "k", "3");
    record_put_config(&b, CONFIG_GROUP, "b", "k", "4");
    record_put_leader(&b, &ORDERS, 1, 2, 3);
    record_put_counters(&b, 0, 1000);
    apply(image, 6, &b, NULL);
    buffer_free(&b);
    return image;
}

static void collect(void *arg, const uint8_t *record, size_t size)
{
    struct buffer *all = arg;
    codec_put_blob(all, record, (uint32_t)size);
}

static void load_one(void *arg, const uint8_t *record, size_t size)
{
    struct image *image = arg;
    ck_assert_int_eq(
        image_apply(image, (log_index){6}, record, size, NULL, NULL), ERR_OK);
}

static void assert_same(const struct image *a, const struct image *b)
{
    struct buffer one = {0}, two = {0};
    image_dump(a, collect, &one);
    image_dump(b, collect, &two);
    ck_assert_uint_eq(one.size, two.size);
    ck_assert_mem_eq(one.data, two.data, one.size);
    buffer_free(&one);
    buffer_free(&two);
}

START_TEST(test_image__lookups)
{
    struct image *image = sample();
    const struct image_broker *const *brokers;
    ck_assert_int_eq(image_brokers(image, &brokers), 3);
    ck_assert_int_eq(brokers[0]->node, 1);
    ck_assert_int_eq(brokers[2]->node, 3);
    ck_assert_ptr_null(brokers[0]->rack);
    ck_assert_uint_eq(brokers[1]->epoch, 2);
    const struct image_topic *const *topics;
    ck_assert_int_eq(image_topics(image, &topics), 2);
    ck_assert_str_eq(topics[0]->name, "a.first");
    const struct image_topic *t = image_topic(image, "orders", 6);
    ck_assert_ptr_eq(t, image_topic_by_id(image, &ORDERS));
    ck_assert_ptr_null(image_topic(image, "order", 5));
    ck_assert_str_eq(image_topic_config(t, "retention.ms"), "1000");
    ck_assert_str_eq(image_topic_config(t, "cleanup.policy"), "compact");
    ck_assert_ptr_null(image_topic_config(t, "retention"));
    ck_assert_str_eq(image_broker_config(image, -1, "log.retention.ms"), "7");
    ck_assert_ptr_null(image_broker_config(image, 1, "x"));
    ck_assert_int_eq(t->partitions[1].leader, 2);
    ck_assert_int_eq(t->partitions[1].leader_epoch, 3);
    ck_assert_uint_eq(image_next_replica(image), 7);
    ck_assert_int_eq((int)image_next_producer_id(image), 1000);
    const uint8_t *answer;
    uint32_t size;
    ck_assert_uint_eq(image_request(image, &DIRECTORY, &answer, &size).v, 5);
    ck_assert_mem_eq(answer, "done", 4);
    image_free(image);
}
END_TEST

START_TEST(test_image__dump_builds_the_same)
{
    struct image *image = sample();
    struct image *copy = image_new();
    image_dump(image, load_one, copy);
    assert_same(image, copy);
    ck_assert_uint_eq(image_version(copy).v, 6);
    ck_assert_uint_eq(image_next_replica(copy), 7);
    image_free(copy);
    image_free(image);
}
END_TEST

/* A dump over an older image: what it does not name goes. */
START_TEST(test_image__dump_over_older_image)
{
    struct image *image = sample();
    struct image *behind = sample();
    struct buffer b = {0};
    record_batch_begin(&b);
    record_put_topic_deleted(&b, &DIRECTORY);
    put_orders(&b, (struct uuid){{77}}, "new");
    record_put_broker_gone(&b, 1, image_broker(image, 1)->epoch);
    apply(image, 6, &b, NULL);
    image_dump(image, load_one, behind);
    assert_same(image, behind);
    ck_assert_ptr_null(image_broker(behind, 1));
    ck_assert_ptr_null(image_topic(behind, "a.first", 7));
    buffer_free(&b);
    image_free(behind);
    image_free(image);
}
END_TEST

START_TEST(test_image__leader_epoch_never_goes_back)
{
    struct image *image = sample();
    struct buffer b = {0};
    struct changes c = {0};
    record_batch_begin(&b);
    record_put_leader(&b, &ORDERS, 1, 1, 2);
    record_put_leader(&b, &ORDERS, 1, 1, 3);
    record_put_leader(&b, &ORDERS, 9, 1, 3);
    apply(image, 7, &b, &c);
    ck_assert_int_eq(c.n[IMAGE_LEADER], 0);
    const struct image_topic *t = image_topic_by_id(image, &ORDERS);
    ck_assert_int_eq(t->partitions[1].leader, 2);
    record_put_leader(&b, &ORDERS, 1, 1, 4);
    apply(image, 8, &b, &c);
    ck_assert_int_eq(c.n[IMAGE_LEADER], 1);
    ck_assert_int_eq(t->partitions[1].leader, 1);
    ck_assert_int_eq(t->partitions[1].leader_epoch, 4);
    buffer_free(&b);
    image_free(image);
}
END_TEST

START_TEST(test_image__liveness_is_of_one_registration)
{
    struct image *image = sample();
    struct buffer b = {0};
    record_batch_begin(&b);
    record_put_broker_live(&b, 2, 1, false);
    apply(image, 7, &b, NULL);
    ck_assert(image_broker(image, 2)->live);
    record_put_broker_live(&b, 2, 2, false);
    apply(image, 8, &b, NULL);
    ck_assert(!image_broker(image, 2)->live);
    buffer_free(&b);
    image_free(image);
}
END_TEST

static void assert_address(const struct image_broker *broker,
                           const char *listener, const char *want_host,
                           int32_t want_port)
{
    const char *host = NULL;
    int32_t n = 0, port = 0;
    image_broker_address(broker, listener, &host, &n, &port);
    ck_assert_int_eq(n, (int)strlen(want_host));
    ck_assert_mem_eq(host, want_host, (size_t)n);
    ck_assert_int_eq(port, want_port);
}

/* Clients are told the address of the listener that they came by. */
START_TEST(test_image__addresses_by_listener)
{
    struct image *image = sample();
    struct buffer b = {0};
    const struct image_broker *broker = image_broker(image, 3);
    assert_address(broker, "PLAINTEXT", "out.side", 9092);
    assert_address(broker, "IN", "::1", 29092);
    assert_address(broker, "I", "i", 1);
    assert_address(broker, "PLAIN", "localhost", 9092);
    assert_address(broker, "", "localhost", 9092);
    assert_address(broker, NULL, "localhost", 9092);
    assert_address(image_broker(image, 1), "IN", "localhost", 9092);
    record_batch_begin(&b);
    put_broker(&b, 3, 0); /* registers again, with one address */
    put_listeners(&b, 99);
    apply(image, 8, &b, NULL);
    assert_address(broker, "IN", "localhost", 9092);
    buffer_free(&b);
    image_free(image);
}
END_TEST

START_TEST(test_image__broker_forgotten)
{
    struct image *image = sample();
    struct changes c = {0};
    struct buffer b = {0};
    const struct image_broker *const *brokers;
    uint64_t epoch = image_broker(image, 2)->epoch;
    record_batch_begin(&b);
    record_put_broker_gone(&b, 2, epoch - 1); /* registered again since */
    record_put_broker_gone(&b, 77, epoch);
    apply(image, 8, &b, &c);
    ck_assert_ptr_nonnull(image_broker(image, 2));
    ck_assert_int_eq(c.n[IMAGE_BROKER], 0);
    record_put_broker_gone(&b, 2, epoch);
    apply(image, 9, &b, &c);
    ck_assert_ptr_null(image_broker(image, 2));
    ck_assert_int_eq(c.n[IMAGE_BROKER], 1);
    ck_assert_int_eq(c.broker, 2);
    ck_assert_int_eq(image_brokers(image, &brokers), 2);
    ck_assert_int_eq(brokers[0]->node, 1);
    ck_assert_int_eq(brokers[1]->node, 3);
    put_broker(&b, 2, 0); /* it may come back */
    apply(image, 10, &b, &c);
    ck_assert_int_eq(image_brokers(image, &brokers), 3);
    ck_assert_int_eq(brokers[1]->node, 2);
    buffer_free(&b);
    image_free(image);
}
END_TEST

START_TEST(test_image__changes_of_topics)
{
    struct image *image = sample();
    struct buffer b = {0};
    struct changes c = {0};
    struct image_partition p = partition_of(20);
    record_batch_begin(&b);
    record_put_partitions(&b, &ORDERS, 1, 1, &p); /* not the next: ignored */
    record_put_partitions(&b, &ORDERS, 2, 1, &p);
    record_put_topic_config(&b, &ORDERS, "retention.ms", NULL);
    record_put_topic_config(&b, &ORDERS, "a", "b");
    record_put_topic_deleted(&b, &DIRECTORY);
    put_orders(&b, (struct uuid){{5}}, "orders"); /* taken: ignored */
    apply(image, 7, &b, &c);
    const struct image_topic *t = image_topic(image, "orders", 6);
    ck_assert_int_eq(t->n_partitions, 3);
    ck_assert_ptr_null(image_topic_config(t, "retention.ms"));
    ck_assert_str_eq(image_topic_config(t, "a"), "b");
    ck_assert_int_eq(c.n[IMAGE_PARTITIONS_ADDED], 1);
    ck_assert_int_eq(c.n[IMAGE_TOPIC_DELETED], 1);
    ck_assert_int_eq(c.n[IMAGE_TOPIC_CREATED], 0);
    ck_assert_uint_eq(image_next_replica(image), 23);
    buffer_free(&b);
    image_free(image);
}
END_TEST

START_TEST(test_image__requests_are_bounded)
{
    struct image *image = image_new();
    struct buffer b = {0};
    record_batch_begin(&b);
    for (uint64_t i = 0; i < LIMIT_METADATA_REQUESTS + 10; i++) {
        struct uuid id = {{(uint8_t)i, (uint8_t)(i >> 8), 1}};
        record_put_request(&b, &id, i + 1, "x", 1);
    }
    apply(image, 3, &b, NULL);
    const uint8_t *answer;
    uint32_t size;
    struct uuid old = {{9, 0, 1}};
    struct uuid kept = {{10, 0, 1}};
    ck_assert_uint_eq(image_request(image, &old, &answer, &size).v, 0);
    ck_assert_uint_eq(image_request(image, &kept, &answer, &size).v, 11);
    buffer_free(&b);
    image_free(image);
}
END_TEST

/* Every truncation and every flipped byte is either refused, leaving the image
 * alone, or decodes to something within bounds. */
START_TEST(test_record__damaged_bytes)
{
    struct buffer b = {0};
    record_batch_begin(&b);
    put_orders(&b, ORDERS, "orders");
    put_broker(&b, 4, 9);
    put_listeners(&b, 4);
    record_put_broker_gone(&b, 4, 8);
    for (size_t n = 2; n < b.size; n++) {
        struct image *image = image_new();
        uint8_t *exact = mem_alloc(n);
        memcpy(exact, b.data, n);
        enum err e = image_apply(image, (log_index){1}, exact, n, NULL, NULL);
        const struct image_topic *const *topics;
        ck_assert(e == ERR_CORRUPT || image_topics(image, &topics) == 1);
        if (e == ERR_CORRUPT) {
            ck_assert_int_eq(image_topics(image, &topics), 0);
            ck_assert_uint_eq(image_version(image).v, 0);
        }
        mem_free(exact);
        image_free(image);
    }
    for (size_t i = 0; i < b.size; i++) {
        for (int bit = 0; bit < 8; bit++) {
            struct image *image = image_new();
            b.data[i] ^= (uint8_t)(1 << bit);
            (void)!image_apply(image, (log_index){1}, b.data, b.size, NULL,
                               NULL);
            b.data[i] ^= (uint8_t)(1 << bit);
            image_free(image);
        }
    }
    buffer_free(&b);
}
END_TEST

START_TEST(test_record__malformed_is_refused)
{
    struct image *image = image_new();
    const uint8_t wrong_format[] = {2};
    const uint8_t unknown_type[] = {1, 99, 0, 0, 0, 0};
    const uint8_t long_body[] = {1, 12, 0, 0, 0, 1, 0};
    const uint8_t huge_size[] = {1, 1, 0xff, 0xff, 0xff, 0xff, 0};
    const struct {
        const uint8_t *at;
        size_t size;
    } all[] = {{wrong_format, sizeof wrong_format},
               {unknown_type, sizeof unknown_type},
               {long_body, sizeof long_body},
               {huge_size, sizeof huge_size},
               {wrong_format, 0}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        ck_assert_int_eq(image_apply(image, (log_index){1}, all[i].at,
                                     all[i].size, NULL, NULL),
                         ERR_CORRUPT);
    }
    image_free(image);
}
END_TEST

/* The bytes on disk of a few records: a change here breaks every log. */
START_TEST(test_record__golden)
{
    struct buffer b = {0};
    record_batch_begin(&b);
    record_put_leader(&b, &ORDERS, 1, 2, 3);
    record_put_topic_config(&b, &ORDERS, "k", NULL);
    record_put_counters(&b, 7, 1000);
    record_put_broker_live(&b, 2, 258, true);
    static const uint8_t want[] = {
        1,   9, 0, 0, 0,  28, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0,   0,   0,
        0,   0, 0, 0, 0,  1,  0, 0, 0, 2, 0, 0, 0, 3, 7, 0, 0, 0,   21,  1,
        2,   3, 0, 0, 0,  0,  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 'k', 255, 255,
        10,  0, 0, 0, 16, 0,  0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0,   0,   3,
        232, 3, 0, 0, 0,  13, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 2,   1};
    ck_assert_uint_eq(b.size, sizeof want);
    ck_assert_mem_eq(b.data, want, sizeof want);
    buffer_clear(&b);
    record_batch_begin(&b);
    put_orders(&b, ORDERS, "o");
    static const uint8_t head[] = {
        1, 4, 0,   0, 0, 163, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 1, 'o', 0, 0, 0,   0, 2, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2};
    ck_assert_mem_eq(b.data, head, sizeof head);
    buffer_free(&b);
}
END_TEST

START_TEST(test_topic_name__rule)
{
    char longest[TOPIC_NAME_MAX + 2];
    memset(longest, 'a', sizeof longest);
    ck_assert(topic_name_is_valid("a", 1));
    ck_assert(topic_name_is_valid("A.b_c-9", 7));
    ck_assert(topic_name_is_valid("...", 3));
    ck_assert(topic_name_is_valid(longest, TOPIC_NAME_MAX));
    ck_assert(!topic_name_is_valid(longest, TOPIC_NAME_MAX + 1));
    ck_assert(!topic_name_is_valid("", 0));
    ck_assert(!topic_name_is_valid(".", 1));
    ck_assert(!topic_name_is_valid("..", 2));
    ck_assert(!topic_name_is_valid("a b", 3));
    ck_assert(!topic_name_is_valid("a/b", 3));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("metadata_image");
    TCase *c = tcase_create("image");
    tcase_add_test(c, test_image__lookups);
    tcase_add_test(c, test_image__dump_builds_the_same);
    tcase_add_test(c, test_image__dump_over_older_image);
    tcase_add_test(c, test_image__leader_epoch_never_goes_back);
    tcase_add_test(c, test_image__liveness_is_of_one_registration);
    tcase_add_test(c, test_image__addresses_by_listener);
    tcase_add_test(c, test_image__broker_forgotten);
    tcase_add_test(c, test_image__changes_of_topics);
    tcase_add_test(c, test_image__requests_are_bounded);
    tcase_add_test(c, test_record__damaged_bytes);
    tcase_add_test(c, test_record__malformed_is_refused);
    tcase_add_test(c, test_record__golden);
    tcase_add_test(c, test_topic_name__rule);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
