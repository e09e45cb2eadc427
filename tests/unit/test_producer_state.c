/* Producer state, leader epochs and side slots: pure. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/prng.h"
#include "partition/epoch.h"
#include "partition/producer_state.h"
#include "partition/segment.h"

static struct batch_header batch(int64_t pid, int epoch, int32_t sequence,
                                 int32_t n, int64_t offset)
{
    return (struct batch_header){.base_offset = {offset},
                                 .producer_id = pid,
                                 .producer_epoch = (int16_t)epoch,
                                 .base_sequence = sequence,
                                 .last_offset_delta = n - 1,
                                 .max_timestamp = offset * 10,
                                 .record_count = n};
}

static void append(struct producers *ps, struct batch_header h)
{
    producers_append(ps, &h);
}

static void apply(struct producers *ps, struct batch_header h)
{
    producers_apply(ps, &h, 1000);
}

static enum kafka_error check(const struct producers *ps, struct batch_header h)
{
    struct producer_batch original;
    return producers_check(ps, &h, &original);
}

START_TEST(test_producers__five_batches)
{
    struct producers *ps = producers_new();
    for (int i = 0; i < 7; i++) {
        ck_assert_int_eq(check(ps, batch(1, 0, i * 2, 2, i * 2)), KAFKA_NONE);
        append(ps, batch(1, 0, i * 2, 2, i * 2));
    }
    for (int i = 0; i < 7; i++) {
        struct batch_header h = batch(1, 0, i * 2, 2, 99);
        struct producer_batch original = {0};
        enum kafka_error error = producers_check(ps, &h, &original);
        ck_assert_int_eq(error, i < 2 ? KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER
                                      : KAFKA_DUPLICATE_SEQUENCE_NUMBER);
        if (i >= 2) {
            ck_assert_int_eq(original.last_offset.v, i * 2 + 1);
            ck_assert_int_eq(original.offset_delta, 1);
        }
    }
    ck_assert_int_eq(check(ps, batch(1, 0, 12, 1, 0)),
                     KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER);
    producers_free(ps);
}
END_TEST

START_TEST(test_producers__epochs_and_wrap)
{
    struct producers *ps = producers_new();
    append(ps, batch(1, 3, INT32_MAX - 1, 2, 0)); /* ends at 2^31-1 */
    ck_assert_int_eq(check(ps, batch(1, 3, 0, 1, 0)), KAFKA_NONE);
    ck_assert_int_eq(check(ps, batch(1, 3, 1, 1, 0)),
                     KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER);
    append(ps, batch(1, 3, 0, 1, 2));
    ck_assert_int_eq(check(ps, batch(1, 2, 1, 1, 0)),
                     KAFKA_INVALID_PRODUCER_EPOCH);
    ck_assert_int_eq(check(ps, batch(1, 4, 1, 1, 0)),
                     KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER);
    ck_assert_int_eq(check(ps, batch(1, 4, 0, 1, 0)), KAFKA_NONE);
    append(ps, batch(1, 4, 0, 1, 3));
    /* the old epoch's batches are no duplicates any more */
    ck_assert_int_eq(check(ps, batch(1, 3, 0, 1, 0)),
                     KAFKA_INVALID_PRODUCER_EPOCH);
    /* a batch that wraps inside is recognised */
    append(ps, batch(2, 0, INT32_MAX, 3, 4));
    ck_assert_int_eq(check(ps, batch(2, 0, INT32_MAX, 3, 4)),
                     KAFKA_DUPLICATE_SEQUENCE_NUMBER);
    ck_assert_int_eq(check(ps, batch(2, 0, 2, 1, 0)), KAFKA_NONE);
    ck_assert_int_eq(check(ps, batch(-1, -1, -1, 1, 0)), KAFKA_NONE);
    producers_free(ps);
}
END_TEST

START_TEST(test_producers__truncation)
{
    struct producers *ps = producers_new();
    append(ps, batch(1, 0, 0, 1, 0));
    apply(ps, batch(1, 0, 0, 1, 0));
    append(ps, batch(1, 0, 1, 1, 1));
    append(ps, batch(1, 0, 2, 1, 2));
    append(ps, batch(2, 0, 0, 1, 3));
    producers_truncate(ps);
    ck_assert_uint_eq(producers_count(ps), 1);
    append(ps, batch(1, 0, 1, 1, 1)); /* what was left */
    ck_assert_int_eq(check(ps, batch(1, 0, 0, 1, 0)),
                     KAFKA_DUPLICATE_SEQUENCE_NUMBER);
    ck_assert_int_eq(check(ps, batch(1, 0, 1, 1, 0)),
                     KAFKA_DUPLICATE_SEQUENCE_NUMBER);
    ck_assert_int_eq(check(ps, batch(1, 0, 3, 1, 0)),
                     KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER);
    ck_assert_int_eq(check(ps, batch(1, 0, 2, 1, 0)), KAFKA_NONE);
    producers_free(ps);
}
END_TEST

START_TEST(test_producers__snapshot)
{
    struct producers *ps = producers_new(), *copy = producers_new();
    struct buffer b = {0}, again = {0};
    for (int i = 0; i < 20; i++) {
        append(ps, batch(i % 3, 0, i / 3, 1, i));
        apply(ps, batch(i % 3, 0, i / 3, 1, i));
    }
    append(ps, batch(7, 0, 0, 1, 30)); /* not applied: not in it */
    producers_save(ps, &b);
    ck_assert_int_eq(producers_load(copy, b.data, b.size, 0), ERR_OK);
    producers_save(copy, &again);
    ck_assert_uint_eq(b.size, again.size);
    ck_assert_mem_eq(b.data, again.data, b.size);
    ck_assert_int_eq(check(copy, batch(1, 0, 6, 1, 0)),
                     KAFKA_DUPLICATE_SEQUENCE_NUMBER);
    ck_assert_int_eq(check(copy, batch(1, 0, 8, 1, 0)),
                     KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER);
    for (size_t at = 0; at < b.size; at++) {
        struct producers *bad = producers_new();
        b.data[at] ^= 1;
        ck_assert_int_eq(producers_load(bad, b.data, b.size, 0), ERR_CORRUPT);
        ck_assert_int_eq(producers_load(bad, b.data, at, 0), ERR_CORRUPT);
        ck_assert_uint_eq(producers_count(bad), 0);
        b.data[at] ^= 1;
        producers_free(bad);
    }
    buffer_free(&b);
    buffer_free(&again);
    producers_free(ps);
    producers_free(copy);
}
END_TEST

START_TEST(test_producers__expiry)
{
    struct producers *ps = producers_new();
    struct producer_expiry out[4];
    append(ps, batch(1, 0, 0, 1, 0));
    apply(ps, batch(1, 0, 0, 1, 0));
    append(ps, batch(2, 0, 0, 1, 1));
    ck_assert_uint_eq(producers_expired(ps, 1000, out, 4), 0);
    ck_assert_uint_eq(producers_expired(ps, 1001, out, 4), 1);
    ck_assert_int_eq(out[0].producer_id, 1);
    append(ps, batch(1, 0, 1, 1, 2));
    apply(ps, batch(1, 0, 1, 1, 2));
    producers_expire(ps, &out[0]); /* it has written meanwhile */
    ck_assert_int_eq(check(ps, batch(1, 0, 5, 1, 0)),
                     KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER);
    ck_assert_uint_eq(producers_expired(ps, 1001, out, 4), 1);
    producers_expire(ps, &out[0]);
    ck_assert_int_eq(check(ps, batch(1, 0, 5, 1, 0)), KAFKA_NONE);
    producers_free(ps);
}
END_TEST

START_TEST(test_epochs__table)
{
    struct epochs es = {0};
    int32_t epoch;
    kafka_offset end, log_end = {100};
    ck_assert(!epochs_end(&es, 5, log_end, &epoch, &end));
    epochs_append(&es, 2, (log_index){2}, (kafka_offset){0});
    epochs_append(&es, 2, (log_index){3}, (kafka_offset){1});
    epochs_append(&es, 5, (log_index){10}, (kafka_offset){40});
    epochs_append(&es, 6, (log_index){20}, (kafka_offset){40});
    epochs_append(&es, 9, (log_index){30}, (kafka_offset){70});
    ck_assert(!epochs_end(&es, 1, log_end, &epoch, &end));
    ck_assert(epochs_end(&es, 2, log_end, &epoch, &end));
    ck_assert_int_eq(end.v, 40);
    ck_assert(epochs_end(&es, 8, log_end, &epoch, &end));
    ck_assert_int_eq(epoch, 6);
    ck_assert_int_eq(end.v, 70);
    ck_assert(epochs_end(&es, 9, log_end, &epoch, &end));
    ck_assert_int_eq(end.v, 100);
    ck_assert_int_eq(epochs_at(&es, (kafka_offset){39}), 2);
    ck_assert_int_eq(epochs_at(&es, (kafka_offset){40}), 6);
    epochs_truncate(&es, (log_index){25});
    ck_assert_int_eq(epochs_at(&es, (kafka_offset){90}), 6);
    epochs_trim(&es, (kafka_offset){40});
    ck_assert_uint_eq(es.count, 1);
    ck_assert_int_eq(es.starts[0].epoch, 6);
    for (int i = 0; i < 3 * LIMIT_EPOCHS; i++) {
        epochs_append(&es, 100 + i, (log_index){100 + (uint64_t)i},
                      (kafka_offset){100 + i});
    }
    ck_assert_uint_eq(es.count, LIMIT_EPOCHS);
    epochs_free(&es);
}
END_TEST

START_TEST(test_side__slots_round_trip_and_damage)
{
    uint8_t slot[SIDE_SLOT];
    struct side_entry e = {.type = ENTRY_DATA,
                           .size = 4711,
                           .index = {1u << 30},
                           .term = {77},
                           .base_offset = {INT64_C(1) << 40},
                           .position = 99,
                           .head_crc = 1,
                           .payload_crc = 2,
                           .chain = 3,
                           .producer_id = 4,
                           .producer_epoch = 5,
                           .attributes = 6,
                           .base_sequence = 7,
                           .last_offset_delta = 8,
                           .record_count = 9,
                           .max_timestamp = 10,
                           .running_max = 11},
                      back;
    side_entry_write(&e, slot);
    memset(&back, 0, sizeof back);
    ck_assert_int_eq(side_entry_read(slot, &back), ERR_OK);
    ck_assert_int_eq(back.size, 4711);
    ck_assert_int_eq(back.base_offset.v, INT64_C(1) << 40);
    ck_assert_int_eq(back.running_max, 11);
    ck_assert_int_eq(back.last_offset_delta, 8);
    for (size_t at = 0; at < SIDE_SLOT; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            slot[at] ^= (uint8_t)(1u << bit);
            ck_assert_int_eq(side_entry_read(slot, &back), ERR_CORRUPT);
            slot[at] ^= (uint8_t)(1u << bit);
        }
    }
    struct side_head head = {{5}, {6}, {{{1}}, 2}, 9, 0}, head_back;
    side_head_write(&head, slot);
    ck_assert_int_eq(side_head_read(slot, &head_back), ERR_OK);
    ck_assert_int_eq(head_back.group.partition, 2);
    ck_assert_uint_eq(head_back.chain, 9);
    const uint8_t *bytes;
    uint32_t size, distance;
    side_continuation_write((const uint8_t *)"hello", 5, 3, slot);
    ck_assert_int_eq(side_continuation_read(slot, &bytes, &size, &distance),
                     ERR_OK);
    ck_assert_uint_eq(size, 5);
    ck_assert_uint_eq(distance, 3);
    ck_assert_mem_eq(bytes, "hello", 5);
    ck_assert_uint_eq(side_slots(ENTRY_DATA, 1000), 1);
    ck_assert_uint_eq(side_slots(ENTRY_NOOP, 0), 1);
    ck_assert_uint_eq(side_slots(ENTRY_CONFIG, 88), 2);
    ck_assert_uint_eq(side_slots(ENTRY_CONFIG, 89), 3);
}
END_TEST

START_TEST(test_side__chain_tells_histories_apart)
{
    uint64_t a =
        side_chain(0, (log_index){2}, (raft_term_t){1}, ENTRY_NOOP, 0, 0);
    ck_assert_uint_ne(
        a, side_chain(0, (log_index){2}, (raft_term_t){2}, ENTRY_NOOP, 0, 0));
    ck_assert_uint_ne(
        a, side_chain(0, (log_index){3}, (raft_term_t){1}, ENTRY_NOOP, 0, 0));
    ck_assert_uint_ne(
        a, side_chain(1, (log_index){2}, (raft_term_t){1}, ENTRY_NOOP, 0, 0));
    ck_assert_uint_ne(
        a, side_chain(0, (log_index){2}, (raft_term_t){1}, ENTRY_DATA, 0, 0));
    ck_assert_uint_ne(
        a, side_chain(0, (log_index){2}, (raft_term_t){1}, ENTRY_NOOP, 0, 1));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("producer_state");
    TCase *tc = tcase_create("producer_state");
    tcase_add_test(tc, test_producers__five_batches);
    tcase_add_test(tc, test_producers__epochs_and_wrap);
    tcase_add_test(tc, test_producers__truncation);
    tcase_add_test(tc, test_producers__snapshot);
    tcase_add_test(tc, test_producers__expiry);
    tcase_add_test(tc, test_epochs__table);
    tcase_add_test(tc, test_side__slots_round_trip_and_damage);
    tcase_add_test(tc, test_side__chain_tells_histories_apart);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
