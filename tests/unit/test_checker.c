/* The history checker on planted anomalies: each must be found, and nothing
 * else; clean histories must pass; mutations of clean ones must not. Cases of
 * Jepsen's own kafka tests are here with numbers for its keywords (keys :x 1,
 * :y 2; values :a 1 and so on). */
#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/prng.h"
#include "jepsen/checker.h"
#include "jepsen/edn.h"

static const struct check_config JEPSENS = {false, false, true};
static const struct check_config OURS = {true, true, true};

/* "P TYPE F VALUE" or "P TYPE F VALUE|MORE" to an EDN line. */
static void feed_line(struct checker *c, const char *line, size_t n, int index)
{
    char text[4096], type[16], f[16], process[16], value[2048], more[2048] = "";
    struct edn_ops ops = {0};
    struct check_op op;
    char copy[4096];
    char *bar;
    int at = 0;

    ck_assert_uint_lt(n, sizeof copy);
    memcpy(copy, line, n);
    copy[n] = '\0';
    ck_assert_int_ge(sscanf(copy, "%15s %15s %15s %n", process, type, f, &at),
                     3);
    snprintf(value, sizeof value, "%s", copy + at);
    bar = strchr(value, '|');
    if (bar != NULL) {
        snprintf(more, sizeof more, ", %s", bar + 1);
        *bar = '\0';
    }
    snprintf(text, sizeof text,
             "{:index %d, :time %d, :type :%s, :process %s, :f :%s, "
             ":value %s%s}\n",
             index, index * 1000, type, process, f,
             *value == '\0' ? "nil" : value, more);
    ck_assert_msg(edn_op_read(&ops, text, strlen(text), &op), "%s", text);
    ck_assert_int_eq(op.index, index);
    checker_add(c, &op);
    edn_ops_free(&ops);
}

static struct checker *checked(const struct check_config *config,
                               const char *history)
{
    struct checker *c = checker_new(config);
    int index = 0;

    while (*history != '\0') {
        size_t n = strcspn(history, "\n");

        if (n > 0)
            feed_line(c, history, n, index++);
        history += n + (history[n] == '\n');
    }
    return c;
}

/* What was found, as "duplicate 1, unseen 2 allowed"; ends with "valid" or
 * "invalid". `c` is freed. */
static const char *verdict(struct checker *c)
{
    static char text[2048];
    const struct check_result *r = checker_finish(c);
    size_t n = 0;

    for (int a = 0; a < CHECK_ANOMALY_COUNT; a++) {
        if (r->counts[a] == 0)
            continue;
        n += (size_t)snprintf(text + n, sizeof text - n, "%s %" PRIu64 "%s, ",
                              check_anomaly_name((enum check_anomaly)a),
                              r->counts[a],
                              r->counts[a] == r->allowed[a] ? " allowed" : "");
    }
    snprintf(text + n, sizeof text - n, "%s", r->valid ? "valid" : "invalid");
    checker_free(c);
    return text;
}

#define EXPECT(config, history, wanted) \
    ck_assert_str_eq(verdict(checked(&(config), history)), wanted)

/* ---- clean
 * -------------------------------------------------------------------- */

START_TEST(test_clean__is_valid)
{
    EXPECT(OURS,
           "0 invoke assign [1 2]\n"
           "0 ok assign [1 2]\n"
           "0 invoke send [[:send 1 1] [:send 1 2] [:send 2 9]]\n"
           "0 ok send [[:send 1 [0 1]] [:send 1 [1 2]] [:send 2 [0 9]]]\n"
           ":nemesis info kill [1 2]\n"
           "0 invoke poll [[:poll]]\n"
           "0 ok poll [[:poll {1 [[0 1] [1 2]], 2 [[0 9]]}]]\n"
           "0 invoke latest [1 2]\n"
           "0 ok latest {1 2, 2 1}\n"
           "0 invoke commit {1 2}\n"
           "0 ok commit {1 2}\n"
           "0 invoke committed [1 2]\n"
           "0 ok committed {1 2, 2 -1}\n"
           "0 invoke crash\n"
           "0 info crash\n"
           "8 invoke assign [1]|:seek-to-beginning? true\n"
           "8 ok assign [1]|:seek-to-beginning? true\n"
           "8 invoke poll [[:poll]]\n"
           "8 ok poll [[:poll {1 [[0 1] [1 2]]}]]\n",
           "valid");
}
END_TEST

START_TEST(test_empty__proves_nothing)
{
    EXPECT(OURS, "0 invoke assign [1]\n0 ok assign [1]\n", "empty 1, invalid");
    EXPECT(OURS, "", "empty 1, invalid");
}
END_TEST

START_TEST(test_malformed__is_told)
{
    EXPECT(OURS,
           "0 ok send [[:send 1 [0 1]]]\n"
           "1 invoke poll [[:poll]]\n1 ok poll [[:poll {1 [[0 1]]}]]\n",
           "malformed 1, invalid");
    EXPECT(OURS,
           "0 invoke send [[:send 1 1]]\n0 invoke send [[:send 1 2]]\n"
           "0 ok send [[:send 1 [0 2]]]\n"
           "1 invoke poll [[:poll]]\n1 ok poll [[:poll {1 [[0 2]]}]]\n",
           "malformed 1, invalid");
    EXPECT(OURS, /* a value is sent twice */
           "0 invoke send [[:send 1 1]]\n0 ok send [[:send 1 [0 1]]]\n"
           "0 invoke send [[:send 1 1]]\n0 ok send [[:send 1 [0 1]]]\n"
           "1 invoke poll [[:poll]]\n1 ok poll [[:poll {1 [[0 1]]}]]\n",
           "nonmonotonic-send 1, malformed 1, invalid");
}
END_TEST

/* ---- one log ----------------------------------------------------------------
 */

START_TEST(test_inconsistent_offsets__of_acknowledged_sends)
{
    EXPECT(JEPSENS,
           "379 invoke send [[:send 11 641]]\n"
           "379 ok send [[:send 11 [537 641]]]\n"
           "363 invoke send [[:send 11 645]]\n"
           "363 ok send [[:send 11 [537 645]]]\n"
           "0 invoke poll [[:poll]]\n"
           "0 ok poll [[:poll {11 [[537 641]]}]]\n"
           "1 invoke poll [[:poll]]\n"
           "1 ok poll [[:poll {11 [[537 645]]}]]\n",
           "inconsistent-offsets 1, invalid");
}
END_TEST

START_TEST(test_inconsistent_offsets__info_counts_when_proven)
{
#define CONFLICT                                  \
    "0 invoke send [[:send 1 1] [:send 2 1]]\n"   \
    "0 info send [[:send 1 [0 1]] [:send 2 1]]\n" \
    "1 invoke send [[:send 1 2]]\n"               \
    "1 ok send [[:send 1 [0 2]]]\n"               \
    "2 invoke poll [[:poll]]\n"

    EXPECT(JEPSENS, CONFLICT "2 ok poll [[:poll {1 [[0 2]]}]]\n", "valid");
    EXPECT(JEPSENS, CONFLICT "2 ok poll [[:poll {1 [[0 2]], 2 [[5 1]]}]]\n",
           "inconsistent-offsets 1, lost-write 1, invalid");
    /* where no transactions run, the offset was an acknowledgement */
    EXPECT(OURS, CONFLICT "2 ok poll [[:poll {1 [[0 2]]}]]\n",
           "inconsistent-offsets 1, lost-write 1, unseen 1, invalid");
}
END_TEST

START_TEST(test_duplicate__at_two_offsets)
{
    EXPECT(JEPSENS,
           "0 invoke send [[:send 1 1]]\n0 ok send [[:send 1 [1 1]]]\n"
           "1 invoke send [[:send 1 2]]\n1 info send [[:send 1 2]]\n"
           "2 invoke poll [[:poll]]\n"
           "2 ok poll [[:poll {1 [[2 2] [3 1]]}]]\n",
           "duplicate 1, ack-offset-differs 1, invalid");
}
END_TEST

START_TEST(test_duplicate__whatever_the_hash)
{
    struct checker *c = checker_new(&JEPSENS);
    char line[128];

    for (int v = 0, i = 0; v < 10; v++, i += 4) {
        snprintf(line, sizeof line, "0 invoke send [[:send 1 %d]]", v);
        feed_line(c, line, strlen(line), i);
        snprintf(line, sizeof line, "0 ok send [[:send 1 [0 %d]]]", v);
        feed_line(c, line, strlen(line), i + 1);
        snprintf(line, sizeof line, "1 invoke poll [[:poll]]");
        feed_line(c, line, strlen(line), i + 2);
        snprintf(line, sizeof line, "1 ok poll [[:poll {1 [[1 %d]]}]]", v);
        feed_line(c, line, strlen(line), i + 3);
    }
    ck_assert_ptr_nonnull(
        strstr(verdict(c), "inconsistent-offsets 2, duplicate 10, "));
}
END_TEST

START_TEST(test_duplicate__polls_of_aborted_operations_count)
{
    EXPECT(JEPSENS,
           "0 invoke send [[:send 1 0]]\n0 ok send [[:send 1 [1 0]]]\n"
           "0 invoke send [[:send 1 1]]\n0 fail send [[:send 1 [2 1]]]\n"
           "1 invoke poll [[:poll]]\n"
           "1 fail poll [[:poll {1 [[11 0] [12 1]]}]]\n",
           "duplicate 1, unseen 1, ack-offset-differs 1, empty 1, invalid");
}
END_TEST

START_TEST(test_gap__nobody_can_read_an_offset)
{
#define HOLE                                                     \
    "0 invoke send [[:send 1 1]]\n0 ok send [[:send 1 [0 1]]]\n" \
    "0 invoke send [[:send 1 2]]\n0 ok send [[:send 1 [3 2]]]\n" \
    "1 invoke poll [[:poll]]\n1 ok poll [[:poll {1 [[0 1] [3 2]]}]]\n"

    EXPECT(OURS, HOLE, "gap 1, invalid");
    EXPECT(JEPSENS, HOLE, "valid");
    EXPECT(OURS, /* the beginning is missing */
           "0 invoke send [[:send 1 1]]\n0 ok send [[:send 1 [2 1]]]\n"
           "1 invoke poll [[:poll]]\n1 ok poll [[:poll {1 [[2 1]]}]]\n",
           "gap 1, invalid");
}
END_TEST

/* ---- values
 * ------------------------------------------------------------------- */

START_TEST(test_lost_write__below_what_was_read)
{
    EXPECT(JEPSENS,
           "0 invoke send [[:send 1 1]]\n0 ok send [[:send 1 [0 1]]]\n"
           "0 invoke send [[:send 1 2] [:send 1 4]]\n"
           "0 ok send [[:send 1 [1 2]] [:send 1 [3 4]]]\n"
           "1 invoke send [[:send 1 3]]\n1 info send [[:send 1 3]]\n"
           "0 invoke poll [[:poll]]\n0 ok poll [[:poll {1 [[2 3]]}]]\n",
           "lost-write 2, unseen 3, int-send-skip 1 allowed, invalid");
}
END_TEST

START_TEST(test_lost_write__behind_inconsistent_offsets)
{
    EXPECT(JEPSENS,
           "0 invoke send [[:send 1 1]]\n0 ok send [[:send 1 [0 1]]]\n"
           "0 invoke send [[:send 1 2] [:send 1 3]]\n"
           "0 ok send [[:send 1 [0 2]] [:send 1 [2 3]]]\n"
           "0 invoke poll [[:poll]]\n"
           "0 ok poll [[:poll {1 [[0 2] [2 3]]}]]\n",
           "inconsistent-offsets 1, lost-write 1, unseen 1, invalid");
}
END_TEST

START_TEST(test_lost_write__one_read_proves_the_whole_send)
{
#define ATOMIC                                                   \
    "0 invoke send [[:send 1 1] [:send 2 2]]\n"                  \
    "0 info send [[:send 1 1] [:send 2 [0 2]]]\n"                \
    "1 invoke send [[:send 2 3]]\n1 info send [[:send 2 3]]\n"   \
    "3 invoke poll [[:poll]]\n3 ok poll [[:poll {2 [[1 3]]}]]\n" \
    "4 invoke send [[:send 9 1]]\n4 ok send [[:send 9 [0 1]]]\n" \
    "4 invoke poll [[:poll]]\n4 ok poll [[:poll {9 [[0 1]]}]]\n"

    EXPECT(JEPSENS, ATOMIC, "valid");
    EXPECT(JEPSENS,
           ATOMIC "2 invoke poll [[:poll]]\n2 ok poll [[:poll {1 [[0 1]]}]]\n",
           "lost-write 1, invalid");
}
END_TEST

START_TEST(test_unseen__at_the_end)
{
#define AT_END                                      \
    "0 invoke send [[:send 1 1] [:send 1 2]]\n"     \
    "0 ok send [[:send 1 [0 1]] [:send 1 [1 2]]]\n" \
    "0 invoke poll [[:poll]]\n0 ok poll [[:poll {1 [[0 1]]}]]\n"
    static const struct check_config partial = {true, true, false};

    EXPECT(OURS, AT_END, "unseen 1, invalid");
    EXPECT(partial, AT_END, "unseen 1 allowed, valid");
    EXPECT(OURS,
           AT_END "0 invoke poll [[:poll]]\n0 ok poll [[:poll {1 [[1 2]]}]]\n",
           "valid");
    /* a poll that failed has shown it to nobody */
    EXPECT(OURS,
           AT_END
           "0 invoke poll [[:poll]]\n0 fail poll [[:poll {1 [[1 2]]}]]\n",
           "unseen 1, invalid");
}
END_TEST

START_TEST(test_unseen__known_offset_of_a_send_that_half_failed)
{
    EXPECT(OURS,
           "0 invoke send [[:send 1 1] [:send 1 2]]\n"
           "0 info send [[:send 1 [0 1]] [:send 1 2]]\n"
           "0 invoke send [[:send 2 1]]\n0 ok send [[:send 2 [0 1]]]\n"
           "0 invoke poll [[:poll]]\n0 ok poll [[:poll {2 [[0 1]]}]]\n",
           "unseen 1, invalid");
}
END_TEST

START_TEST(test_g1a__failed_write_is_read)
{
    EXPECT(JEPSENS,
           "0 invoke send [[:send 1 2] [:send 2 3]]\n"
           "0 fail send [[:send 1 2] [:send 2 3]]\n"
           "2 invoke send [[:send 3 1]]\n2 ok send [[:send 3 [0 1]]]\n"
           "1 invoke poll [[:poll]]\n"
           "1 ok poll [[:poll {1 [[0 2]], 3 [[0 1]]}]]\n",
           "G1a 1, invalid");
}
END_TEST

START_TEST(test_precommitted_read__own_write)
{
    EXPECT(JEPSENS,
           "0 invoke txn [[:send 1 1] [:poll]]\n"
           "0 ok txn [[:send 1 [0 1]] [:poll {1 [[0 1]]}]]\n",
           "precommitted-read 1, invalid");
}
END_TEST

START_TEST(test_phantom__nobody_sent_it)
{
    EXPECT(OURS,
           "0 invoke send [[:send 1 1]]\n0 ok send [[:send 1 [0 1]]]\n"
           "1 invoke poll [[:poll]]\n"
           "1 ok poll [[:poll {1 [[0 1] [1 77]]}]]\n",
           "phantom 1, invalid");
    EXPECT(OURS, /* sent to another key */
           "0 invoke send [[:send 1 1]]\n0 ok send [[:send 1 [0 1]]]\n"
           "1 invoke poll [[:poll]]\n"
           "1 ok poll [[:poll {1 [[0 1]], 2 [[0 1]]}]]\n",
           "phantom 1, invalid");
    EXPECT(OURS, /* a send that never came back may be read */
           "0 invoke send [[:send 1 1]]\n0 ok send [[:send 1 [0 1]]]\n"
           "2 invoke send [[:send 1 5]]\n"
           "1 invoke poll [[:poll]]\n"
           "1 ok poll [[:poll {1 [[0 1] [1 5]]}]]\n",
           "valid");
}
END_TEST

START_TEST(test_torn__content_is_damaged)
{
    EXPECT(OURS,
           "0 invoke send [[:send 1 1]]\n0 ok send [[:send 1 [0 1]]]\n"
           "1 invoke poll [[:poll]]\n"
           "1 ok poll [[:poll {1 [[0 1]]}]]|:torn [[1 1]]\n",
           "torn 1, invalid");
}
END_TEST

START_TEST(test_ack_offset_differs__read_elsewhere)
{
    EXPECT(OURS,
           "0 invoke send [[:send 1 1]]\n0 ok send [[:send 1 [1 1]]]\n"
           "1 invoke poll [[:poll]]\n1 ok poll [[:poll {1 [[0 1]]}]]\n",
           "duplicate 1, ack-offset-differs 1, invalid");
}
END_TEST

/* ---- order of polls
 * ------------------------------------------------------------- */

#define POLLS_1_2_3                           \
    "0 invoke poll [[:poll]]\n"               \
    "0 ok poll [[:poll {1 [[1 1] [2 2]]}]]\n" \
    "1 invoke poll [[:poll]]\n"               \
    "1 ok poll [[:poll {1 [[3 3]]}]]\n"
#define POLL_4 "0 invoke poll [[:poll]]\n0 ok poll [[:poll {1 [[4 4]]}]]\n"
#define WRITE_6_POLL_7                                                \
    "2 invoke send [[:send 1 6]]\n2 ok send [[:send 1 [6 6]]]\n"      \
    "0 invoke poll [[:poll]]\n0 ok poll [[:poll {1 [[7 7]]}]]\n"      \
    "3 invoke send [[:send 1 1] [:send 1 2] [:send 1 3] [:send 1 4] " \
    "[:send 1 7]]\n"                                                  \
    "3 info send [[:send 1 1] [:send 1 2] [:send 1 3] [:send 1 4] "   \
    "[:send 1 7]]\n"
#define MOVE(f, keys) "0 invoke " f " " keys "\n0 ok " f " " keys "\n"

START_TEST(test_poll_skip__between_polls)
{
    EXPECT(JEPSENS, POLLS_1_2_3 POLL_4 WRITE_6_POLL_7,
           "lost-write 1, unseen 1, poll-skip 2, int-send-skip 1 allowed, "
           "invalid");
}
END_TEST

START_TEST(test_poll_skip__an_assignment_begins_anew)
{
    static const char rest[] =
        "lost-write 1, unseen 1, int-send-skip 1 allowed, invalid";

    EXPECT(JEPSENS,
           POLLS_1_2_3 MOVE("subscribe", "[2]") POLL_4 MOVE("assign", "[2]")
               WRITE_6_POLL_7,
           rest);
    EXPECT(JEPSENS,
           POLLS_1_2_3 MOVE("assign", "[1 2]") POLL_4 MOVE("assign", "[1 2]")
               WRITE_6_POLL_7,
           "lost-write 1, unseen 1, poll-skip 2, int-send-skip 1 allowed, "
           "invalid");
    /* others of the group may have read what a subscriber does not see */
    EXPECT(JEPSENS,
           POLLS_1_2_3 MOVE("subscribe", "[1 2]")
               POLL_4 MOVE("subscribe", "[1 2]") WRITE_6_POLL_7,
           "lost-write 1, unseen 1, poll-skip 2 allowed, "
           "int-send-skip 1 allowed, invalid");
}
END_TEST

#define SIX_SENT                                                      \
    "0 invoke send [[:send 1 0] [:send 1 1] [:send 1 2] [:send 1 3] " \
    "[:send 1 4] [:send 1 5]]\n"                                      \
    "0 ok send [[:send 1 [0 0]] [:send 1 [1 1]] [:send 1 [2 2]] "     \
    "[:send 1 [3 3]] [:send 1 [4 4]] [:send 1 [5 5]]]\n"              \
    "9 invoke poll [[:poll]]\n"                                       \
    "9 ok poll [[:poll {1 [[0 0] [1 1] [2 2] [3 3] [4 4] [5 5]]}]]\n" \
    "1 invoke txn [[:poll]]\n1 ok txn [[:poll {1 [[0 0]]}]]\n"        \
    "1 invoke txn [[:poll]]\n1 fail txn [[:poll {1 [[1 1] [2 2]]}]]\n"

START_TEST(test_poll_skip__what_aborts_rewinds)
{
    EXPECT(JEPSENS,
           SIX_SENT
           "1 invoke txn [[:poll]]\n1 info txn [[:poll {1 [[1 1] [2 2]]}]]\n"
           "1 invoke txn [[:poll]]\n1 ok txn [[:poll {1 [[1 1] [2 2]]}]]\n",
           "valid");
    EXPECT(JEPSENS,
           SIX_SENT
           "1 invoke txn [[:poll]]\n1 fail txn [[:poll {1 [[3 3] [4 4]]}]]\n"
           "1 invoke txn [[:poll]]\n1 ok txn [[:poll {1 [[5 5]]}]]\n",
           "poll-skip 2, invalid");
    EXPECT(JEPSENS,
           SIX_SENT
           "1 invoke txn [[:poll]]\n1 info txn [[:poll {1 [[3 3] [4 4]]}]]\n",
           "poll-skip 1, invalid");
}
END_TEST

#define FOUR_SENT                                                       \
    "5 invoke send [[:send 1 1] [:send 1 2] [:send 1 3] [:send 1 4]]\n" \
    "5 ok send [[:send 1 1] [:send 1 2] [:send 1 3] [:send 1 4]]\n"
#define POLL_123                \
    "0 invoke poll [[:poll]]\n" \
    "0 ok poll [[:poll {1 [[1 1] [2 2] [3 3]]}]]\n"
#define POLL_234                \
    "0 invoke poll [[:poll]]\n" \
    "0 ok poll [[:poll {1 [[2 2] [3 3] [4 4]]}]]\n"

START_TEST(test_nonmonotonic_poll__goes_back)
{
    EXPECT(JEPSENS, FOUR_SENT POLL_123 POLL_234,
           "nonmonotonic-poll 1, invalid");
    EXPECT(JEPSENS, FOUR_SENT POLL_123 MOVE("subscribe", "[2]") POLL_234,
           "valid");
    EXPECT(JEPSENS, FOUR_SENT POLL_123 MOVE("assign", "[2]") POLL_234, "valid");
    EXPECT(JEPSENS, FOUR_SENT POLL_123 MOVE("assign", "[1 2]") POLL_234,
           "nonmonotonic-poll 1, invalid");
    EXPECT(JEPSENS, FOUR_SENT POLL_123 MOVE("subscribe", "[1 2]") POLL_234,
           "nonmonotonic-poll 1 allowed, valid");
    EXPECT(JEPSENS,
           FOUR_SENT POLL_123
           "0 invoke assign [1]\n"
           "0 ok assign [1]|:seek-to-beginning? true\n" POLL_234,
           "valid");
}
END_TEST

#define THREE_SENT                                               \
    "1 invoke send [[:send 1 1] [:send 1 2] [:send 1 4]]\n"      \
    "1 info send [[:send 1 1] [:send 1 2] [:send 1 4]]\n"        \
    "8 invoke send [[:send 9 1]]\n8 ok send [[:send 9 [0 1]]]\n" \
    "8 invoke poll [[:poll]]\n8 ok poll [[:poll {9 [[0 1]]}]]\n"

START_TEST(test_int_poll_skip__within_one_poll)
{
    EXPECT(JEPSENS,
           THREE_SENT
           "0 invoke poll [[:poll]]\n"
           "0 ok poll [[:poll {1 [[1 1] [4 4]]}]]\n"
           "3 invoke poll [[:poll] [:poll]]\n"
           "3 ok poll [[:poll {1 [[1 1]]}] [:poll {1 [[4 4]]}]]\n"
           "4 invoke poll [[:poll]]\n4 ok poll [[:poll {1 [[2 2]]}]]\n",
           "int-poll-skip 2, invalid");
    EXPECT(
        JEPSENS,
        THREE_SENT
        "0 invoke poll [[:poll]]\n"
        "0 ok poll [[:poll {1 [[1 1] [4 4]]}]]|:rebalance-log [{:keys [1]}]\n"
        "4 invoke poll [[:poll]]\n4 ok poll [[:poll {1 [[2 2]]}]]\n",
        "valid");
}
END_TEST

START_TEST(test_int_nonmonotonic_poll__within_one_poll)
{
    EXPECT(JEPSENS,
           THREE_SENT
           "2 invoke poll [[:poll]]\n"
           "2 ok poll [[:poll {1 [[3 4] [1 1]]}]]\n"
           "4 invoke poll [[:poll] [:poll]]\n"
           "4 ok poll [[:poll {1 [[2 2] [3 4]]}] [:poll {1 [[3 4]]}]]\n",
           "int-nonmonotonic-poll 2, invalid");
}
END_TEST

/* ---- order of sends
 * ------------------------------------------------------------- */

START_TEST(test_int_send__order_within_one_send)
{
    EXPECT(JEPSENS,
           "0 invoke send [[:send 1 1] [:send 1 3]]\n"
           "0 ok send [[:send 1 [1 1]] [:send 1 3]]\n"
           "1 invoke send [[:send 1 2]]\n1 info send [[:send 1 2]]\n"
           "2 invoke poll [[:poll]]\n"
           "2 ok poll [[:poll {1 [[1 1] [2 2] [3 3]]}]]\n",
           "int-send-skip 1 allowed, valid");
    EXPECT(JEPSENS,
           "0 invoke send [[:send 1 3] [:send 1 1]]\n"
           "0 ok send [[:send 1 [3 3]] [:send 1 [1 1]]]\n"
           "0 invoke send [[:send 2 4] [:send 2 2]]\n"
           "0 info send [[:send 2 4] [:send 2 2]]\n"
           "1 invoke send [[:send 2 3]]\n1 info send [[:send 2 3]]\n"
           "2 invoke poll [[:poll]]\n"
           "2 ok poll [[:poll {2 [[2 2] [3 3] [4 4]], 1 [[1 1] [3 3]]}]]\n",
           "int-nonmonotonic-send 2, invalid");
}
END_TEST

#define SENT_3_4                                \
    "0 invoke send [[:send 1 3] [:send 1 4]]\n" \
    "0 ok send [[:send 1 [3 3]] [:send 1 [4 4]]]\n"
#define SENT_1_2                                \
    "0 invoke send [[:send 1 1] [:send 1 2]]\n" \
    "0 ok send [[:send 1 [1 1]] [:send 1 [2 2]]]\n"
#define READ_1_4                \
    "7 invoke poll [[:poll]]\n" \
    "7 ok poll [[:poll {1 [[1 1] [2 2] [3 3] [4 4]]}]]\n"

START_TEST(test_nonmonotonic_send__goes_back)
{
    EXPECT(JEPSENS, SENT_3_4 SENT_1_2 READ_1_4, "nonmonotonic-send 1, invalid");
    EXPECT(JEPSENS, SENT_3_4 MOVE("subscribe", "[2]") SENT_1_2 READ_1_4,
           "valid");
    EXPECT(JEPSENS,
           SENT_3_4
           "0 invoke assign [2]\n0 info assign [2]\n" SENT_1_2 READ_1_4,
           "valid");
    EXPECT(JEPSENS, SENT_3_4 MOVE("assign", "[1 2]") SENT_1_2 READ_1_4,
           "nonmonotonic-send 1, invalid");
}
END_TEST

/* ---- what must be current
 * -------------------------------------------------------- */

#define ONE_SENT                                    \
    "0 invoke send [[:send 1 1] [:send 1 2]]\n"     \
    "0 ok send [[:send 1 [0 1]] [:send 1 [1 2]]]\n" \
    "0 invoke poll [[:poll]]\n"                     \
    "0 ok poll [[:poll {1 [[0 1] [1 2]]}]]\n"

START_TEST(test_stale_latest__below_what_was_known)
{
    EXPECT(OURS, ONE_SENT "1 invoke latest [1]\n1 ok latest {1 1}\n",
           "stale-latest 1, invalid");
    EXPECT(OURS, /* asked before */
           "1 invoke latest [1]\n" ONE_SENT "1 ok latest {1 0}\n", "valid");
    EXPECT(OURS, /* below an answer before */
           ONE_SENT
           "1 invoke latest [1]\n1 ok latest {1 9}\n"
           "2 invoke latest [1]\n2 ok latest {1 8}\n",
           "stale-latest 1, invalid");
    EXPECT(OURS, ONE_SENT "1 invoke latest [1]\n1 info latest [1]\n", "valid");
}
END_TEST

#define COMMIT(offset) \
    "1 invoke commit {1 " offset "}\n1 ok commit {1 " offset "}\n"
#define COMMITTED(offset) \
    "2 invoke committed [1]\n2 ok committed {1 " offset "}\n"

START_TEST(test_committed_back__overwritten_or_never_written)
{
    static const char bad[] = "committed-back 1, invalid";

    EXPECT(OURS, ONE_SENT COMMIT("1") COMMIT("2") COMMITTED("1"), bad);
    EXPECT(OURS, ONE_SENT COMMIT("1") COMMITTED("-1"), bad);
    EXPECT(OURS, ONE_SENT COMMIT("1") COMMITTED("2"), bad);
    EXPECT(OURS, ONE_SENT COMMITTED("0"), bad);
    EXPECT(OURS, ONE_SENT COMMITTED("-1") COMMIT("1") COMMITTED("1"), "valid");
    EXPECT(OURS, /* refused for certain */
           ONE_SENT
           "1 invoke commit {1 2}\n1 fail commit {1 2}\n" COMMITTED("2"),
           bad);
}
END_TEST

START_TEST(test_committed_back__unknown_outcomes)
{
    static const char bad[] = "committed-back 1, invalid";
#define UNKNOWN(offset) \
    "3 invoke commit {1 " offset "}\n3 info commit {1 " offset "}\n"

    EXPECT(OURS, ONE_SENT COMMIT("1") UNKNOWN("2") COMMITTED("1"), "valid");
    EXPECT(OURS, ONE_SENT COMMIT("1") UNKNOWN("2") COMMITTED("2"), "valid");
    /* a late one may overwrite what came after it */
    EXPECT(OURS, ONE_SENT UNKNOWN("1") COMMIT("2") COMMITTED("1"), "valid");
    /* once it was seen it has happened, and can be overwritten */
    EXPECT(OURS,
           ONE_SENT COMMIT("1") UNKNOWN("2") COMMITTED("2") COMMITTED("1"),
           bad);
    EXPECT(OURS,
           ONE_SENT UNKNOWN("1") COMMITTED("1") COMMIT("2") COMMITTED("1"),
           bad);
    /* during a read both are right */
    EXPECT(OURS,
           ONE_SENT COMMIT("1") "2 invoke committed [1]\n" COMMIT(
               "2") "2 ok committed {1 1}\n",
           "valid");
    EXPECT(OURS,
           ONE_SENT COMMIT("1") "2 invoke committed [1]\n" COMMIT(
               "2") "2 ok committed {1 2}\n",
           "valid");
}
END_TEST

/* ---- mutations of clean histories
 * ------------------------------------------------ */

#define KEYS 3
#define OPS 60
#define VALUES_MAX 4

/* A clean history of a perfect log: sends of several values, polls by two
 * readers, a last full read. What `mutation` spoils is anything that must be
 * noticed; `at` chooses where. */
enum mutation {
    CLEAN,
    DROP_RECORD, /* the log forgets an acknowledged value */
    TWICE,       /* ... holds it twice */
    SWAP,        /* ... exchanges two neighbours after one was read */
    RELABEL,     /* an ok send becomes fail */
    TRUNCATE,    /* the last full read ends early */
    FOREIGN,     /* a value nobody sent */
    MUTATIONS,
};

struct world {
    int64_t log[KEYS][OPS * VALUES_MAX];
    int64_t n[KEYS];
    int64_t next_value;
    int64_t index;
    struct checker *c;
    enum mutation mutation;
    int64_t victim; /* number of the send that is spoilt */
    int64_t sends;
    bool spoilt;
};

static void world_op(struct world *w, int64_t process, enum check_f f,
                     enum check_type type, const struct check_mop *mops,
                     size_t n)
{
    struct check_op op = {.index = w->index,
                          .time_ns = w->index,
                          .process = process,
                          .type = type,
                          .f = f,
                          .mops = mops,
                          .n_mops = n};

    w->index++;
    checker_add(w->c, &op);
}

static void world_send(struct world *w, struct prng *p)
{
    struct check_mop mops[VALUES_MAX];
    int64_t key = (int64_t)prng_below(p, KEYS);
    size_t n = 1 + prng_below(p, VALUES_MAX);
    bool victim = w->sends++ == w->victim;
    enum check_type type = CHECK_OK;

    for (size_t i = 0; i < n; i++)
        mops[i] = (struct check_mop){CHECK_MOP_SEND, key, ++w->next_value, -1};
    world_op(w, 0, CHECK_SEND, CHECK_INVOKE, mops, n);
    for (size_t i = 0; i < n; i++) {
        mops[i].offset = w->n[key];
        w->log[key][w->n[key]++] = mops[i].value;
    }
    if (victim && w->mutation == RELABEL) {
        type = CHECK_FAIL;
        for (size_t i = 0; i < n; i++)
            mops[i].offset = -1;
        w->spoilt = true;
    }
    world_op(w, 0, CHECK_SEND, type, mops, n);
    if (!victim)
        return;
    if (w->mutation == DROP_RECORD) {
        w->n[key]--;
        w->spoilt = true;
    } else if (w->mutation == TWICE) {
        w->log[key][w->n[key]++] = w->next_value;
        w->spoilt = true;
    } else if (w->mutation == FOREIGN) {
        w->log[key][w->n[key]++] = 1000000;
        w->spoilt = true;
    } else if (w->mutation == SWAP && n >= 2) {
        w->log[key][w->n[key] - 1] = w->next_value - 1;
        w->log[key][w->n[key] - 2] = w->next_value;
        w->spoilt = true;
    }
}

static void world_poll(struct world *w, int64_t process, int64_t *at,
                       int64_t key, int64_t end)
{
    struct check_mop mops[OPS * VALUES_MAX + OPS];
    size_t n = 0;

    world_op(w, process, CHECK_POLL, CHECK_INVOKE, NULL, 0);
    for (; *at < end; ++*at)
        mops[n++] =
            (struct check_mop){CHECK_MOP_POLL, key, w->log[key][*at], *at};
    world_op(w, process, CHECK_POLL, CHECK_OK, mops, n);
}

static void world_run(struct world *w, uint64_t seed)
{
    int64_t at[2][KEYS] = {{0}}, from_begin[KEYS] = {0};
    struct prng p;

    prng_seed(&p, seed);
    w->c = checker_new(&OURS);
    w->victim = (int64_t)prng_below(&p, 10);
    for (int i = 0; i < OPS; i++) {
        int64_t key = (int64_t)prng_below(&p, KEYS);
        int reader = (int)prng_below(&p, 2);

        if (prng_below(&p, 2) == 0)
            world_send(w, &p);
        else
            world_poll(w, 1 + reader, &at[reader][key], key, w->n[key]);
    }
    for (int64_t key = 0; key < KEYS; key++) {
        int64_t end = w->n[key];

        if (w->mutation == TRUNCATE && end > at[0][key] && end > at[1][key]) {
            end--;
            w->spoilt = true;
        }
        world_poll(w, 9, &from_begin[key], key, end);
    }
}

START_TEST(test_mutations__are_all_noticed)
{
    for (int m = CLEAN; m < MUTATIONS; m++) {
        int spoilt = 0;

        for (uint64_t seed = 1; seed <= 300; seed++) {
            struct world w = {.mutation = (enum mutation)m};
            bool valid;

            world_run(&w, seed);
            valid = checker_finish(w.c)->valid;
            checker_free(w.c);
            ck_assert_msg(valid == !w.spoilt, "mutation %d, seed %d: %s", m,
                          (int)seed, valid ? "valid" : "invalid");
            spoilt += w.spoilt;
        }
        if (m != CLEAN)
            ck_assert_int_ge(spoilt, 100);
    }
}
END_TEST

/* A million operations must not take a minute; they take seconds. */
START_TEST(test_million__operations)
{
    struct checker *c = checker_new(&OURS);
    struct check_mop mops[8];
    struct check_op op = {.mops = mops};
    const struct check_result *r;
    int64_t next = 0, index = 0;

    for (int64_t i = 0; i < 1000000; i++) {
        int64_t key = i % 100;
        bool send = (i / 100) % 2 == 0;

        op.process = key;
        op.f = send ? CHECK_SEND : CHECK_POLL;
        op.n_mops = 8;
        for (int64_t j = 0; j < 8; j++)
            mops[j] = (struct check_mop){send ? CHECK_MOP_SEND : CHECK_MOP_POLL,
                                         key, i / 200 * 8 + j, i / 200 * 8 + j};
        op.type = CHECK_INVOKE;
        op.index = index++;
        if (!send)
            op.n_mops = 0;
        checker_add(c, &op);
        op.n_mops = 8;
        op.type = CHECK_OK;
        op.index = index++;
        checker_add(c, &op);
        next += send ? 8 : 0;
    }
    r = checker_finish(c);
    ck_assert_int_eq((int64_t)r->acknowledged, next);
    ck_assert(r->valid);
    checker_free(c);
}
END_TEST

/* ---- text
 * -------------------------------------------------------------------- */

START_TEST(test_edn__odd_but_right)
{
    static const char line[] =
        "#jepsen.history.Op{:process 3 :type :ok,:f :txn "
        ":error [:a \"b}\\\"]\" {:c #{1 2}}] :value ([:send 5 [nil 17]]) "
        ":index 9 :time 12}";
    static const char vector[] =
        "#jepsen.history.Op{:process 3 :type :ok,:f :txn "
        ":error [:a \"b}\\\"]\" {:c #{1 2}}] :value [[:send 5 [nil 17]]] "
        ":index 9 :time 12 :extra -4.5e3}";
    struct edn_ops ops = {0};
    struct check_op op;

    ck_assert(!edn_op_read(&ops, line, strlen(line), &op));
    ck_assert(edn_op_read(&ops, vector, strlen(vector), &op));
    ck_assert_int_eq(op.index, 9);
    ck_assert_int_eq(op.process, 3);
    ck_assert_int_eq(op.type, CHECK_OK);
    ck_assert_int_eq(op.f, CHECK_TXN);
    ck_assert_uint_eq(op.n_mops, 1);
    ck_assert_int_eq(op.mops[0].key, 5);
    ck_assert_int_eq(op.mops[0].offset, -1);
    ck_assert_int_eq(op.mops[0].value, 17);
    edn_ops_free(&ops);
}
END_TEST

START_TEST(test_edn__cut_anywhere_is_refused)
{
    static const char line[] =
        "{:index 9, :time 12, :type :ok, :process 1, :f :poll, :value "
        "[[:poll {1 [[0 1] [1 2]]}]], :rebalance-log [{:keys [1 2]}]}";
    struct edn_ops ops = {0};
    struct check_op op;

    ck_assert(edn_op_read(&ops, line, strlen(line), &op));
    ck_assert_uint_eq(op.n_rebalanced, 2);
    for (size_t n = 0; n < strlen(line); n++) {
        char *copy = mem_alloc(n + 1); /* so that reading on is noticed */

        memcpy(copy, line, n);
        ck_assert_msg(!edn_op_read(&ops, copy, n, &op), "%zu", n);
        mem_free(copy);
    }
    edn_ops_free(&ops);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("checker");
    TCase *tc = tcase_create("checker");
    SRunner *r;
    int failed;

    tcase_set_timeout(tc, 60);
    suite_add_tcase(s, tc);
    tcase_add_test(tc, test_clean__is_valid);
    tcase_add_test(tc, test_empty__proves_nothing);
    tcase_add_test(tc, test_malformed__is_told);
    tcase_add_test(tc, test_inconsistent_offsets__of_acknowledged_sends);
    tcase_add_test(tc, test_inconsistent_offsets__info_counts_when_proven);
    tcase_add_test(tc, test_duplicate__at_two_offsets);
    tcase_add_test(tc, test_duplicate__whatever_the_hash);
    tcase_add_test(tc, test_duplicate__polls_of_aborted_operations_count);
    tcase_add_test(tc, test_gap__nobody_can_read_an_offset);
    tcase_add_test(tc, test_lost_write__below_what_was_read);
    tcase_add_test(tc, test_lost_write__behind_inconsistent_offsets);
    tcase_add_test(tc, test_lost_write__one_read_proves_the_whole_send);
    tcase_add_test(tc, test_unseen__at_the_end);
    tcase_add_test(tc, test_unseen__known_offset_of_a_send_that_half_failed);
    tcase_add_test(tc, test_g1a__failed_write_is_read);
    tcase_add_test(tc, test_precommitted_read__own_write);
    tcase_add_test(tc, test_phantom__nobody_sent_it);
    tcase_add_test(tc, test_torn__content_is_damaged);
    tcase_add_test(tc, test_ack_offset_differs__read_elsewhere);
    tcase_add_test(tc, test_poll_skip__between_polls);
    tcase_add_test(tc, test_poll_skip__an_assignment_begins_anew);
    tcase_add_test(tc, test_poll_skip__what_aborts_rewinds);
    tcase_add_test(tc, test_nonmonotonic_poll__goes_back);
    tcase_add_test(tc, test_int_poll_skip__within_one_poll);
    tcase_add_test(tc, test_int_nonmonotonic_poll__within_one_poll);
    tcase_add_test(tc, test_int_send__order_within_one_send);
    tcase_add_test(tc, test_nonmonotonic_send__goes_back);
    tcase_add_test(tc, test_stale_latest__below_what_was_known);
    tcase_add_test(tc, test_committed_back__overwritten_or_never_written);
    tcase_add_test(tc, test_committed_back__unknown_outcomes);
    tcase_add_test(tc, test_mutations__are_all_noticed);
    tcase_add_test(tc, test_million__operations);
    tcase_add_test(tc, test_edn__odd_but_right);
    tcase_add_test(tc, test_edn__cut_anywhere_is_refused);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
