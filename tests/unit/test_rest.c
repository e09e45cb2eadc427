/* Groups that rest: when they begin, that they cost nothing, what wakes them,
 * and that nobody is left without a leader. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "raft/rest.h"
#include "tests/sim/raft_lab_impl.h"

enum { A, B, C };

#define REST_MS 1000
#define LOOK_MS 32000 /* as hosts look at those that rest */

static struct lab *lab;

static struct group *group(int at)
{
    return lab->nodes[at].group;
}

static void allow_rest(int at)
{
    lab->nodes[at].host->options.rest_ms = REST_MS;
}

static int n_resting(void)
{
    int n = 0;

    for (int i = 0; i < 3; i++)
        n += lab->nodes[i].host != NULL && group(i)->resting;
    return n;
}

/* As lab_run, with a look at those that rest. */
static void run(uint64_t ms)
{
    for (uint64_t t = 0; t < ms; t += 50) {
        lab_run(lab, 50);
        for (int i = 0; i < 3 && lab->now % LOOK_MS < 50; i++)
            if (lab->nodes[i].host != NULL && group(i)->resting)
                rest_look(group(i));
        lab_settle(lab);
    }
}

static void setup(void)
{
    lab = lab_new(3, 1, GUARD_ALL);
    lab_elect(lab, A);
    lab_settle(lab);
    for (int i = 0; i < 3; i++)
        allow_rest(i);
    run(6000);
    ck_assert_int_eq(n_resting(), 3);
}

static void teardown(void)
{
    ck_assert_msg(lab->violation == NULL, "%s", lab->violation);
    lab_free(lab);
}

static void gone(int at)
{
    lab_crash(lab, at, 0);
    for (int i = 0; i < 3; i++)
        if (i != at)
            raft_host_peer_down(lab->nodes[i].host, at);
}

START_TEST(says_nothing)
{
    uint64_t before = lab->n_messages;
    struct group_replica_state r[GROUP_REPLICAS_MAX];

    run(25000);
    /* but for one round of the backstop */
    ck_assert_uint_le(lab->n_messages - before, 4);
    ck_assert_int_eq(n_resting(), 3);
    ck_assert_int_eq(lab_leader(lab), A);
    ck_assert_int_eq(group_replicas(group(A), r), 3);
    for (int i = 0; i < 3; i++)
        ck_assert(r[i].reachable && r[i].caught_up);
}
END_TEST

START_TEST(stays_for_hours)
{
    uint64_t term = group_role(group(A)).term.v;

    run(3600000);
    ck_assert_int_eq(n_resting(), 3);
    ck_assert_uint_eq(group_role(group(A)).term.v, term);
}
END_TEST

START_TEST(a_proposal_wakes)
{
    run(30000);
    ck_assert_int_eq(lab_propose(lab, A, "x"), ERR_OK);
    ck_assert(!group(A)->resting);
    lab_settle(lab);
    run(50);
    for (int i = 0; i < 3; i++)
        ck_assert_uint_eq(lab->nodes[i].applied, 3);
    run(500);
    ck_assert_int_eq(n_resting(), 0);
    ck_assert_int_eq(lab_leader(lab), A);
    run(5000);
    ck_assert_int_eq(n_resting(), 3);
}
END_TEST

/* An answer that comes after the leader went on means nothing any more. */
START_TEST(an_old_answer_does_not_count)
{
    struct lab_message *old;

    ck_assert_int_eq(lab_propose(lab, A, "x"), ERR_OK);
    lab_settle(lab);
    for (int i = 0; i < 100; i++) {
        lab_pass(lab, 50);
        lab_tick(lab, A);
        lab_turn(lab);
        while (lab_deliver(lab, A, B, 0) || lab_deliver(lab, A, C, 0))
            lab_turn(lab);
        if (group(B)->resting && group(C)->resting)
            break;
        lab_settle(lab);
    }
    ck_assert(group(B)->resting && !group(A)->resting);
    old = lab_find(lab, B, A, MESSAGE_APPEND_RESULT);
    ck_assert_ptr_nonnull(old);
    ck_assert_int_eq(lab_propose(lab, A, "y"), ERR_OK);
    lab_deliver(lab, B, A, MESSAGE_APPEND_RESULT);
    lab_deliver(lab, C, A, MESSAGE_APPEND_RESULT);
    ck_assert(!group(A)->resting);
    lab_settle(lab);
    ck_assert_uint_eq(lab->nodes[B].applied, 4);
    ck_assert(!group(B)->resting);
}
END_TEST

static int reads;

static void read_done(struct group_read *read, enum err status)
{
    (void)read;
    ck_assert_int_eq(status, ERR_OK);
    reads++;
}

START_TEST(a_read_needs_a_round)
{
    struct group_read read = {.cb = read_done};

    reads = 0;
    group_read_barrier(group(A), &read);
    lab_turn(lab);
    ck_assert_int_eq(reads, 0);
    lab_settle(lab);
    ck_assert_int_eq(reads, 1);
}
END_TEST

START_TEST(leadership_is_handed_over)
{
    ck_assert_int_eq(group_transfer(group(A), C), ERR_OK);
    run(200);
    ck_assert_int_eq(lab_leader(lab), C);
}
END_TEST

START_TEST(the_leaders_broker_is_gone)
{
    int ms = 0;

    run(20000);
    gone(A);
    while (lab_leader(lab) < 0 && ms < 3000) {
        run(50);
        ms += 50;
    }
    ck_assert_int_le(ms, 350);
    run(20000); /* one is away: nobody rests */
    ck_assert_int_eq(n_resting(), 0);
    lab_up(lab, A);
    allow_rest(A);
    for (int i = B; i <= C; i++)
        raft_host_peer_up(lab->nodes[i].host, A);
    run(20000);
    ck_assert_int_eq(lab_leader(lab), A);
    ck_assert_int_eq(n_resting(), 3);
}
END_TEST

START_TEST(a_followers_broker_is_gone)
{
    struct group_replica_state r[GROUP_REPLICAS_MAX];

    gone(C);
    ck_assert(!group(A)->resting);
    ck_assert_int_eq(group_replicas(group(A), r), 3);
    ck_assert(r[B].reachable && !r[C].reachable);
    run(20000);
    ck_assert_int_eq(lab_leader(lab), A);
    ck_assert_int_eq(n_resting(), 0);
}
END_TEST

/* The leader steps down while its broker runs on: nobody tells the followers,
 * who believe in it. It asks for their votes itself. */
START_TEST(the_leader_steps_down)
{
    struct message m = {
        .type = MESSAGE_APPEND_RESULT, .from = B + 1, .to = A + 1, .term = 9};

    lab_forge(lab, B, A, &m, NULL);
    lab_settle(lab);
    ck_assert_int_eq(lab_raft(lab, A)->state, RAFT_FOLLOWER);
    ck_assert(group(B)->resting && group(C)->resting);
    run(10000);
    ck_assert_int_eq(lab_leader(lab), A);
    ck_assert(group_role(group(A)).ready);
    ck_assert_int_eq(n_resting(), 3);
}
END_TEST

/* It is never heard again, though its broker is there: the backstop. */
START_TEST(the_leader_is_mute)
{
    for (int i = B; i <= C; i++)
        lab->cut[A][i] = lab->cut[i][A] = true;
    run(150000);
    ck_assert(group_role(group(B)).is_leader || group_role(group(C)).is_leader);
}
END_TEST

/* One that is awake alone asks for votes: it gets none, and all rest again. */
START_TEST(one_wakes_alone)
{
    uint64_t term = group_role(group(A)).term.v;

    group_activate(group(C), 200);
    ck_assert(!group(C)->resting);
    run(20000);
    ck_assert_int_eq(lab_leader(lab), A);
    ck_assert_uint_eq(group_role(group(A)).term.v, term);
    ck_assert_int_eq(n_resting(), 3);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("rest");
    TCase *tc = tcase_create("laboratory");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, says_nothing);
    tcase_add_test(tc, stays_for_hours);
    tcase_add_test(tc, a_proposal_wakes);
    tcase_add_test(tc, an_old_answer_does_not_count);
    tcase_add_test(tc, a_read_needs_a_round);
    tcase_add_test(tc, leadership_is_handed_over);
    tcase_add_test(tc, the_leaders_broker_is_gone);
    tcase_add_test(tc, a_followers_broker_is_gone);
    tcase_add_test(tc, the_leader_steps_down);
    tcase_add_test(tc, the_leader_is_mute);
    tcase_add_test(tc, one_wakes_alone);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
