/* Groups and hosts in the laboratory: proposing, leadership, reads, flow. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "raft/host_store.h"
#include "tests/sim/raft_lab_impl.h"

enum { A, B, C };

static struct lab *lab;

static void setup(void)
{
    lab = lab_new(3, 1, GUARD_ALL);
    lab_elect(lab, A);
    lab_settle(lab);
    lab_run(lab, 600);
}

static void teardown(void)
{
    ck_assert_msg(lab->violation == NULL, "%s", lab->violation);
    lab_free(lab);
}

static struct group *group(int at)
{
    return lab->nodes[at].group;
}

/* ---- proposing
 * ---------------------------------------------------------------- */

START_TEST(ready_after_noop)
{
    struct group_role role = group_role(group(A));

    ck_assert(role.is_leader && role.ready);
    ck_assert_uint_eq(role.term.v, 2);
    ck_assert_uint_eq(role.noop.v, 2);
    ck_assert_int_eq(group_role(group(B)).leader, A);
    ck_assert_int_eq(lab_propose(lab, B, "x"), ERR_NOT_LEADER);
}
END_TEST

START_TEST(not_ready_before_noop)
{
    lab_crash(lab, A, 0);
    lab_elect(lab, B);
    while (lab_raft(lab, B)->state != RAFT_LEADER)
        if (!lab_deliver(lab, -1, -1, 0)) {
            lab_sync(lab, B);
            lab_sync(lab, C);
        }
    ck_assert_int_eq(lab_propose(lab, B, "x"), ERR_NOT_READY);
    lab_settle(lab);
    ck_assert_int_eq(lab_propose(lab, B, "x"), ERR_OK);
}
END_TEST

START_TEST(no_room)
{
    lab->nodes[A].full = true;
    ck_assert_int_eq(lab_propose(lab, A, "x"), ERR_BUSY);
    ck_assert_uint_eq(group_last_index(group(A)).v, 2);
    lab->nodes[A].full = false;
    ck_assert_int_eq(lab_propose(lab, A, "x"), ERR_OK);
    ck_assert_int_eq(lab_propose_bytes(lab, A, (size_t)LIMIT_ENTRY_BYTES + 1),
                     ERR_TOO_LARGE);
}
END_TEST

START_TEST(uncommitted_is_bounded)
{
    size_t size = (size_t)(LIMIT_RAFT_UNCOMMITTED_BYTES / 4);
    int n = 0;

    lab->cut[A][B] = lab->cut[A][C] = true;
    while (n < 100 && lab_propose_bytes(lab, A, size) == ERR_OK)
        n++;
    ck_assert_int_eq(n, 4);
    memset(lab->cut, 0, sizeof lab->cut);
    lab_run(lab, 1500);
    ck_assert_int_eq(lab_propose_bytes(lab, A, size), ERR_OK);
}
END_TEST

/* A follower without room takes nothing, says so by silence, and goes on. */
START_TEST(follower_without_room)
{
    lab->nodes[B].full = true;
    ck_assert_int_eq(lab_propose(lab, A, "x"), ERR_OK);
    lab_settle(lab);
    ck_assert_uint_eq(group_last_index(group(B)).v, 2);
    ck_assert_uint_eq(group_commit_index(group(A)).v, 3); /* by C */
    lab->nodes[B].full = false;
    lab_run(lab, 1500);
    ck_assert_uint_eq(lab->nodes[B].applied, 3);
}
END_TEST

/* Who made a commit hears of it in the same exchange; who stores the entry
 * later hears soon, and not with a heartbeat. */
START_TEST(commit_is_told_at_once)
{
    lab_run(lab, 200); /* nothing was told lately */
    ck_assert_int_eq(lab_propose(lab, A, "x"), ERR_OK);
    lab_settle(lab); /* no time passes */
    ck_assert_uint_eq(lab->nodes[B].applied, 3);
    lab_pass(lab, LIMIT_RAFT_TELL_MS);
    lab_turn(lab);
    lab_settle(lab);
    ck_assert_uint_eq(lab->nodes[C].applied, 3);
    ck_assert_uint_eq(lab->nodes[A].told_durable, 3);
}
END_TEST

/* Those that follow it closely are told together, and before a heartbeat. */
START_TEST(commits_are_told_together)
{
    lab_run(lab, 200);
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(lab_propose(lab, A, "x"), ERR_OK);
        lab_settle(lab); /* no time passes */
        ck_assert_uint_eq(group_commit_index(group(A)).v, (uint64_t)(3 + i));
    }
    /* the appends told of those before them */
    ck_assert_uint_eq(lab->nodes[B].applied, 5);
    ck_assert_uint_eq(lab->nodes[C].applied, 5);
    lab_pass(lab, LIMIT_RAFT_TELL_MS);
    lab_turn(lab);
    lab_settle(lab);
    ck_assert_uint_eq(lab->nodes[B].applied, 6);
    ck_assert_uint_eq(lab->nodes[C].applied, 6);
}
END_TEST

/* acks=1 hears of its disk before the core does (pacing holds that back). */
START_TEST(durable_before_commit)
{
    lab->cut[A][B] = lab->cut[A][C] = true;
    ck_assert_int_eq(lab_propose(lab, A, "x"), ERR_OK);
    ck_assert_int_eq(lab_propose(lab, A, "y"), ERR_OK);
    lab_sync(lab, A);
    ck_assert_uint_eq(lab->nodes[A].told_durable, 4);
    ck_assert_uint_eq(lab->nodes[A].applied, 2);
}
END_TEST

/* ---- leadership
 * ----------------------------------------------------------------- */

START_TEST(fails_over_quickly)
{
    int ms = 0;

    lab_crash(lab, A, 0);
    raft_host_peer_down(lab->nodes[B].host, A);
    raft_host_peer_down(lab->nodes[C].host, A);
    while (lab_leader(lab) < 0 && ms < 3000) {
        lab_run(lab, 50);
        ms += 50;
    }
    ck_assert_int_le(ms, 350);
}
END_TEST

/* Nobody can be elected for a long time; when a vote can be had again it is
 * asked for soon, not at the end of a time-out. */
START_TEST(elects_when_a_vote_is_back)
{
    for (unsigned seed = 0; seed < 20; seed++) {
        int ms = 0;

        lab_crash(lab, A, 0);
        lab_crash(lab, C, 0);
        raft_host_peer_down(lab->nodes[B].host, A);
        raft_host_peer_down(lab->nodes[B].host, C);
        lab_run(lab, 10000 + 37 * seed);
        ck_assert_int_eq(lab_leader(lab), -1);
        lab_up(lab, C);
        raft_host_peer_up(lab->nodes[B].host, C);
        while (lab_leader(lab) < 0 && ms < 5000) {
            lab_run(lab, 50);
            ms += 50;
        }
        ck_assert_int_le(ms, 500);
        lab_up(lab, A);
        raft_host_peer_up(lab->nodes[B].host, A);
        lab_run(lab, 10000);
    }
}
END_TEST

START_TEST(leadership_returns)
{
    lab_crash(lab, A, 0);
    lab_run(lab, 8000);
    ck_assert_int_ne(lab_leader(lab), A);
    ck_assert_int_ne(lab_leader(lab), -1);
    lab_up(lab, A);
    lab_run(lab, 8000);
    ck_assert_int_eq(lab_leader(lab), A);
    ck_assert(group_role(group(A)).ready);
}
END_TEST

START_TEST(transfers)
{
    ck_assert_int_eq(group_transfer(group(B), A), ERR_NOT_LEADER);
    ck_assert_int_eq(group_transfer(group(A), C), ERR_OK);
    ck_assert_int_eq(group_transfer(group(A), B), ERR_BUSY);
    ck_assert_int_eq(lab_propose(lab, A, "x"), ERR_NOT_READY);
    lab_run(lab, 200);
    ck_assert_int_eq(lab_leader(lab), C);
}
END_TEST

/* The message may be lost: it is sent again; when the target does not take
 * over in time, the leader goes on. */
START_TEST(transfer_is_lost)
{
    ck_assert_int_eq(group_transfer(group(A), C), ERR_OK);
    lab_pass(lab, 50);
    lab_tick(lab, A);
    ck_assert(lab_drop(lab, A, C, MESSAGE_TIMEOUT_NOW));
    for (int i = 0; i < 4; i++) {
        lab_pass(lab, 50);
        lab_tick(lab, A);
    }
    ck_assert_ptr_nonnull(lab_find(lab, A, C, MESSAGE_TIMEOUT_NOW));
    for (int i = 0; i < 60; i++) {
        lab_drop_all(lab, A, C, MESSAGE_TIMEOUT_NOW);
        lab_run(lab, 0);
        lab_pass(lab, 50);
        lab_tick(lab, A);
        lab_drop_all(lab, A, C, MESSAGE_TIMEOUT_NOW);
        lab_settle(lab);
    }
    ck_assert_int_eq(lab_leader(lab), A);
    ck_assert_int_eq(lab_propose(lab, A, "x"), ERR_OK);
}
END_TEST

/* A target that goes down is not waited for: nothing can be appended meanwhile.
 */
START_TEST(transfer_to_one_that_goes)
{
    ck_assert_int_eq(group_transfer(group(A), C), ERR_OK);
    lab_crash(lab, C, 0);
    raft_host_peer_down(lab->nodes[A].host, C);
    lab_run(lab, 100);
    ck_assert(!group_is_handing_over(group(A)));
    ck_assert_int_eq(lab_leader(lab), A);
    ck_assert_int_eq(lab_propose(lab, A, "x"), ERR_OK);
}
END_TEST

START_TEST(in_sync_replicas)
{
    struct group_replica_state r[GROUP_REPLICAS_MAX];

    ck_assert_int_eq(group_replicas(group(A), r), 3);
    for (int i = 0; i < 3; i++)
        ck_assert(r[i].caught_up && r[i].reachable);
    lab_crash(lab, C, 0);
    for (int i = 0; i < 30; i++)
        ck_assert_int_eq(lab_propose(lab, A, "x"), ERR_OK);
    lab_run(lab, 12000);
    ck_assert_int_eq(group_replicas(group(A), r), 3);
    ck_assert(r[0].caught_up && r[1].caught_up);
    ck_assert(!r[2].caught_up && !r[2].reachable);
}
END_TEST

/* ---- reads
 * ------------------------------------------------------------------------ */

static enum err read_status;
static int reads;

static void read_done(struct group_read *read, enum err status)
{
    (void)read;
    read_status = status;
    reads++;
}

START_TEST(read_needs_a_round)
{
    struct group_read read = {.cb = read_done};

    reads = 0;
    lab_propose(lab, A, "x");
    lab_settle(lab);
    group_read_barrier(group(A), &read);
    ck_assert_int_eq(reads, 0);
    lab_turn(lab);
    ck_assert_int_eq(reads, 0); /* nobody answered yet */
    lab_settle(lab);
    ck_assert_int_eq(reads, 1);
    ck_assert_int_eq(read_status, ERR_OK);
}
END_TEST

/* One who was deposed and does not know confirms nothing. */
START_TEST(read_at_a_stale_leader)
{
    struct group_read read = {.cb = read_done};

    reads = 0;
    lab->cut[A][B] = lab->cut[B][A] = true;
    lab->cut[A][C] = lab->cut[C][A] = true;
    lab_elect(lab, B);
    lab_settle(lab);
    ck_assert_int_eq(lab_raft(lab, A)->state, RAFT_LEADER);
    group_read_barrier(group(A), &read);
    lab_run(lab, 1000);
    ck_assert_int_eq(reads, 0);
    memset(lab->cut, 0, sizeof lab->cut);
    lab_run(lab, 2000);
    ck_assert_int_eq(reads, 1);
    ck_assert_int_eq(read_status, ERR_NOT_LEADER);
}
END_TEST

START_TEST(read_at_a_follower)
{
    struct group_read read = {.cb = read_done};

    reads = 0;
    group_read_barrier(group(B), &read);
    lab_turn(lab);
    ck_assert_int_eq(reads, 1);
    ck_assert_int_eq(read_status, ERR_NOT_LEADER);
}
END_TEST

/* ---- one replica
 * -------------------------------------------------------------------- */

START_TEST(alone)
{
    struct lab *one = lab_new(1, 1, GUARD_ALL);
    uint64_t term;

    lab_settle(one);
    ck_assert_int_eq(lab_propose(one, A, "x"), ERR_OK);
    lab_settle(one);
    ck_assert_uint_eq(one->nodes[A].applied, 3);
    term = one->nodes[A].group->role.term.v;
    lab_crash(one, A, 0);
    lab_up(one, A);
    lab_settle(one);
    /* a new term for each incarnation: no two entries of one term differ */
    ck_assert_uint_gt(one->nodes[A].group->role.term.v, term);
    ck_assert_uint_eq(one->nodes[A].applied, 4);
    ck_assert(one->violation == NULL);
    lab_free(one);
}
END_TEST

/* ---- vote and term must be durable before anybody hears of them
 * ----------------------- */

START_TEST(votes_wait_for_the_disk)
{
    lab_crash(lab, A, 0);
    lab_elect(lab, B);
    lab_deliver(lab, B, C, MESSAGE_VOTE);
    lab_deliver(lab, C, B, MESSAGE_VOTE_RESULT);
    /* B voted for itself in term 3, and nobody hears of it */
    ck_assert_uint_eq(lab_raft(lab, B)->current_term, 3);
    lab_drop_all(lab, B, A, 0);
    ck_assert_ptr_null(lab_find(lab, B, C, MESSAGE_VOTE));
    lab_sync(lab, B);
    ck_assert_ptr_nonnull(lab_find(lab, B, C, MESSAGE_VOTE));
    lab_deliver(lab, B, C, MESSAGE_VOTE);
    ck_assert_uint_eq(lab_raft(lab, C)->voted_for, B + 1);
    ck_assert_ptr_null(lab_find(lab, C, B, MESSAGE_VOTE_RESULT));
    lab_sync(lab, C);
    ck_assert_ptr_nonnull(lab_find(lab, C, B, MESSAGE_VOTE_RESULT));
}
END_TEST

START_TEST(results_wait_for_the_disk)
{
    lab_propose(lab, A, "x");
    lab_deliver(lab, A, B, MESSAGE_APPEND);
    ck_assert_ptr_null(lab_find(lab, B, A, MESSAGE_APPEND_RESULT));
    lab_sync(lab, B);
    ck_assert_ptr_nonnull(lab_find(lab, B, A, MESSAGE_APPEND_RESULT));
}
END_TEST

/* A term that was only heard of, without a vote or an entry in it. */
START_TEST(terms_survive)
{
    struct message m = {.type = MESSAGE_APPEND_RESULT,
                        .from = C + 1,
                        .to = A + 1,
                        .term = lab_raft(lab, A)->current_term + 7,
                        .rejected = 1};

    lab_forge(lab, C, A, &m, NULL);
    ck_assert_uint_eq(lab_raft(lab, A)->current_term, m.term);
    lab_sync(lab, A);
    lab_crash(lab, A, 0);
    lab_up(lab, A);
    ck_assert_uint_eq(lab_raft(lab, A)->current_term, m.term);
    ck_assert_uint_eq(lab_raft(lab, A)->voted_for, 0);
}
END_TEST

static int n_restored;

static enum err count_restore(void *sm, log_index index, raft_term_t term,
                              const uint8_t *blob, uint32_t size)
{
    (void)sm, (void)index, (void)term, (void)blob, (void)size;
    n_restored++;
    return ERR_IO;
}

/* A replica is made anew only where its creation says: another directory may
 * have lost one that voted. */
START_TEST(made_in_its_own_directory_only)
{
    static const struct group_ops ops = {.restore = count_restore};
    struct group_creation c = *group_creation(group(A));
    struct group *made;

    c.id.partition++;
    ck_assert_int_eq(
        raft_host_create(lab->nodes[A].host, &c, &ops, NULL, &made), ERR_IO);
    ck_assert_int_eq(n_restored, 1);
    c.directory.b[0] ^= 1;
    ck_assert_int_eq(
        raft_host_create(lab->nodes[A].host, &c, &ops, NULL, &made), ERR_LOST);
    ck_assert_int_eq(n_restored, 1);
}
END_TEST

/* A topic that is made while a broker stops: its log may be closed already. */
START_TEST(closing_hosts_make_nothing)
{
    static const struct group_ops ops = {.restore = count_restore};
    struct group_creation c = *group_creation(group(A));
    struct group *made;

    c.id.partition++;
    n_restored = 0;
    lab->nodes[A].host->closing = true;
    ck_assert_int_eq(
        raft_host_create(lab->nodes[A].host, &c, &ops, NULL, &made),
        ERR_CLOSED);
    lab->nodes[A].host->closing = false;
    ck_assert_int_eq(n_restored, 0);
}
END_TEST

static void delete_found(void *arg, const struct group_creation *creation)
{
    struct raft_host *host = arg;
    ck_assert_int_eq(
        raft_host_delete(host, raft_host_find(host, &creation->id)), ERR_OK);
}

/* What recovery found may be deleted while it is listed: none is missed. */
START_TEST(deleted_while_listed)
{
    struct raft_host *host = lab->nodes[A].host;
    struct group_creation c = *group_creation(group(A));
    uint32_t before = host->n_groups;

    for (int i = 0; i < 5; i++) {
        c.id.partition++;
        raft_host_add(host, group_new(host, &c));
    }
    raft_host_recovered(host, delete_found, host);
    ck_assert_uint_eq(host->n_groups, before);
    lab_run(lab, 100);
}
END_TEST

/* A topic that is deleted while a broker stops: its groups are closed already,
 * and wait for what is under way. */
START_TEST(closing_hosts_delete_nothing)
{
    struct raft_host *host = lab->nodes[A].host;

    host->closing = true;
    raft_host_close_all(host);
    ck_assert_uint_eq(host->n_groups, 0);
    ck_assert_ptr_nonnull(host->dead);
    ck_assert_int_eq(raft_host_delete(host, host->dead), ERR_CLOSED);
    ck_assert_uint_eq(host->n_groups, 0);
    ck_assert_ptr_null(host->dead->next_dead);
    host->closing = false;
    env_turn_end(&lab->env); /* it is buried */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("group");
    TCase *tc = tcase_create("laboratory");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, ready_after_noop);
    tcase_add_test(tc, not_ready_before_noop);
    tcase_add_test(tc, no_room);
    tcase_add_test(tc, uncommitted_is_bounded);
    tcase_add_test(tc, follower_without_room);
    tcase_add_test(tc, commit_is_told_at_once);
    tcase_add_test(tc, commits_are_told_together);
    tcase_add_test(tc, durable_before_commit);
    tcase_add_test(tc, fails_over_quickly);
    tcase_add_test(tc, elects_when_a_vote_is_back);
    tcase_add_test(tc, leadership_returns);
    tcase_add_test(tc, transfers);
    tcase_add_test(tc, transfer_is_lost);
    tcase_add_test(tc, transfer_to_one_that_goes);
    tcase_add_test(tc, in_sync_replicas);
    tcase_add_test(tc, read_needs_a_round);
    tcase_add_test(tc, read_at_a_stale_leader);
    tcase_add_test(tc, read_at_a_follower);
    tcase_add_test(tc, alone);
    tcase_add_test(tc, votes_wait_for_the_disk);
    tcase_add_test(tc, results_wait_for_the_disk);
    tcase_add_test(tc, terms_survive);
    tcase_add_test(tc, made_in_its_own_directory_only);
    tcase_add_test(tc, closing_hosts_make_nothing);
    tcase_add_test(tc, deleted_while_listed);
    tcase_add_test(tc, closing_hosts_delete_nothing);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
