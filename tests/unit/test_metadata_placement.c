/* Placement of replicas, and the bytes of changes. */
#include <check.h>

#include "base/mem.h"
#include "metadata/change.h"
#include "metadata/placement.h"

#define N 60

static void brokers_init(struct placement_broker *b, int n)
{
    memset(b, 0, (size_t)n * sizeof *b);
    for (int i = 0; i < n; i++) {
        b[i].node = i + 1;
        b[i].usable = true;
    }
}

static void assert_distinct(const struct image_partition *p)
{
    for (int i = 0; i < p->n_replicas; i++) {
        for (int k = 0; k < i; k++) {
            ck_assert_int_ne(p->replicas[i].node, p->replicas[k].node);
        }
    }
}

START_TEST(test_placement__spreads_evenly)
{
    struct placement_broker b[5];
    struct image_partition p[N];
    int leads[6] = {0}, holds[6] = {0}, second[6] = {0};
    brokers_init(b, 5);
    ck_assert_int_eq(placement_make(b, 5, NULL, 0, 3, N, p), ERR_OK);
    for (int i = 0; i < N; i++) {
        ck_assert_int_eq(p[i].n_replicas, 3);
        assert_distinct(&p[i]);
        leads[p[i].replicas[0].node]++;
        for (int k = 0; k < 3; k++) {
            holds[p[i].replicas[k].node]++;
        }
        if (p[i].replicas[0].node == 1) {
            second[p[i].replicas[1].node]++;
        }
    }
    for (int i = 1; i <= 5; i++) {
        ck_assert_int_eq(leads[i], N / 5);
        ck_assert_int_eq(holds[i], N * 3 / 5);
    }
    /* who takes over from a dead leader is more than one broker */
    int heirs = 0;
    for (int i = 2; i <= 5; i++) {
        heirs += second[i] > 0;
    }
    ck_assert_int_ge(heirs, 2);
}
END_TEST

START_TEST(test_placement__three_of_three)
{
    struct placement_broker b[3];
    struct image_partition p[12];
    int second[4] = {0};
    brokers_init(b, 3);
    ck_assert_int_eq(placement_make(b, 3, NULL, 0, 3, 12, p), ERR_OK);
    for (int i = 0; i < 12; i++) {
        if (p[i].replicas[0].node == 1) {
            second[p[i].replicas[1].node]++;
        }
    }
    ck_assert_int_eq(second[2], 2);
    ck_assert_int_eq(second[3], 2);
}
END_TEST

/* Topics of one partition spread over the cluster by what is there. */
START_TEST(test_placement__counts_what_is_held)
{
    struct placement_broker b[3];
    struct image_partition p;
    int leads[4] = {0};
    brokers_init(b, 3);
    for (int i = 0; i < 9; i++) {
        ck_assert_int_eq(placement_make(b, 3, NULL, 0, 1, 1, &p), ERR_OK);
        leads[p.replicas[0].node]++;
    }
    ck_assert_int_eq(leads[1], 3);
    ck_assert_int_eq(leads[2], 3);
    ck_assert_int_eq(leads[3], 3);
    struct image_partition other = {.n_replicas = 1, .replicas = {{7, 2}}};
    brokers_init(b, 3);
    placement_count(b, 3, &other);
    ck_assert_int_eq(b[1].leaders, 1);
    ck_assert_int_eq(placement_make(b, 3, NULL, 0, 1, 1, &p), ERR_OK);
    ck_assert_int_ne(p.replicas[0].node, 2);
}
END_TEST

START_TEST(test_placement__racks)
{
    struct placement_broker b[6];
    struct image_partition p[N];
    brokers_init(b, 6);
    for (int i = 0; i < 6; i++) {
        b[i].rack = i < 2 ? "a" : i < 4 ? "b" : "c";
    }
    ck_assert_int_eq(placement_make(b, 6, NULL, 0, 3, N, p), ERR_OK);
    for (int i = 0; i < N; i++) {
        int racks = 0;
        for (int k = 0; k < 3; k++) {
            racks |= 1 << ((p[i].replicas[k].node - 1) / 2);
        }
        ck_assert_int_eq(racks, 7);
    }
}
END_TEST

/* A broker that is down counts and gets replicas, but does not lead. */
START_TEST(test_placement__broker_down)
{
    struct placement_broker b[4];
    struct image_partition p[N];
    brokers_init(b, 3);
    b[1].usable = false;
    ck_assert_int_eq(placement_make(b, 3, NULL, 0, 3, N, p), ERR_OK);
    for (int i = 0; i < N; i++) {
        ck_assert_int_ne(p[i].replicas[0].node, 2);
        assert_distinct(&p[i]);
    }
    brokers_init(b, 4);
    b[1].usable = false;
    ck_assert_int_eq(placement_make(b, 4, NULL, 0, 3, N, p), ERR_OK);
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < 3; k++) {
            ck_assert_int_ne(p[i].replicas[k].node, 2);
        }
    }
}
END_TEST

START_TEST(test_placement__refuses)
{
    struct placement_broker b[3];
    struct image_partition p;
    brokers_init(b, 3);
    ck_assert_int_eq(placement_make(b, 3, NULL, 0, 4, 1, &p), ERR_REFUSED);
    b[0].usable = b[1].usable = b[2].usable = false;
    ck_assert_int_eq(placement_make(b, 3, NULL, 0, 1, 1, &p), ERR_REFUSED);
}
END_TEST

/* ---- bytes of changes ---------------------------------------------------- */
static char *const NULL_VALUE = NULL;

static void encode_create(struct buffer *b)
{
    const node_id nodes[] = {1, 2};
    const struct metadata_assignment a = {
        .partition = 0, .n_nodes = 2, .nodes = nodes};
    char name[] = "retention.ms", value[] = "5";
    const struct image_config configs[] = {{name, value}, {name, NULL_VALUE}};
    const struct metadata_new_topic t = {.name = "orders",
                                         .n_partitions = -1,
                                         .replication_factor = -1,
                                         .n_assignments = 1,
                                         .assignments = &a,
                                         .n_configs = 2,
                                         .configs = configs,
                                         .internal = true};
    const struct change c = {.kind = CHANGE_CREATE_TOPICS,
                             .request = {{1, 2}},
                             .timeout_ms = 77,
                             .validate_only = true,
                             .n = 1,
                             .u.create = &t};
    change_encode(b, &c);
}

START_TEST(test_change__round_trip)
{
    struct buffer b = {0}, again = {0};
    struct change c;
    encode_create(&b);
    ck_assert_int_eq(change_decode(b.data, b.size, &c), ERR_OK);
    ck_assert_int_eq(c.kind, CHANGE_CREATE_TOPICS);
    ck_assert_str_eq(c.u.create[0].name, "orders");
    ck_assert_int_eq(c.u.create[0].assignments[0].nodes[1], 2);
    ck_assert_ptr_null(c.u.create[0].configs[1].value);
    change_encode(&again, &c);
    ck_assert_uint_eq(again.size, b.size);
    ck_assert_mem_eq(again.data, b.data, b.size);
    change_free(&c);
    buffer_free(&b);
    buffer_free(&again);
}
END_TEST

START_TEST(test_change__damaged)
{
    struct buffer b = {0};
    struct change c;
    encode_create(&b);
    for (size_t n = 0; n < b.size; n++) {
        uint8_t *exact = mem_alloc(n);
        memcpy(exact, b.data, n);
        ck_assert_int_eq(change_decode(exact, n, &c), ERR_INVALID);
        mem_free(exact);
    }
    for (size_t i = 0; i < b.size; i++) {
        for (int bit = 0; bit < 8; bit++) {
            b.data[i] ^= (uint8_t)(1 << bit);
            if (change_decode(b.data, b.size, &c) == ERR_OK) {
                change_free(&c);
            }
            b.data[i] ^= (uint8_t)(1 << bit);
        }
    }
    buffer_free(&b);
}
END_TEST

START_TEST(test_change_answer__round_trip)
{
    struct metadata_topic_result result = {.error = KAFKA_INVALID_CONFIG,
                                           .message = "no",
                                           .id = {{3}},
                                           .n_partitions = 4,
                                           .replication_factor = 3};
    struct change_answer a = {.index = {9},
                              .error = KAFKA_UNKNOWN_SERVER_ERROR,
                              .sentence = "because",
                              .first_id = 1000,
                              .n_results = 1,
                              .results = &result};
    struct change_answer got;
    struct buffer b = {0};
    change_answer_encode(&b, &a);
    ck_assert_int_eq(change_answer_decode(b.data, b.size, &got), ERR_OK);
    ck_assert_uint_eq(got.index.v, 9);
    ck_assert_int_eq(got.error, KAFKA_UNKNOWN_SERVER_ERROR);
    ck_assert_str_eq(got.sentence, "because");
    ck_assert_int_eq(got.results[0].error, KAFKA_INVALID_CONFIG);
    ck_assert_str_eq(got.results[0].message, "no");
    change_answer_free(&got);
    for (size_t n = 0; n < b.size; n++) {
        ck_assert_int_eq(change_answer_decode(b.data, n, &got), ERR_INVALID);
    }
    buffer_free(&b);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("metadata_placement");
    TCase *c = tcase_create("placement");
    tcase_add_test(c, test_placement__spreads_evenly);
    tcase_add_test(c, test_placement__three_of_three);
    tcase_add_test(c, test_placement__counts_what_is_held);
    tcase_add_test(c, test_placement__racks);
    tcase_add_test(c, test_placement__broker_down);
    tcase_add_test(c, test_placement__refuses);
    tcase_add_test(c, test_change__round_trip);
    tcase_add_test(c, test_change__damaged);
    tcase_add_test(c, test_change_answer__round_trip);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
