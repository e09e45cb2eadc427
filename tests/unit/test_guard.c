/* One directed test for each guard: the same story is played twice, and its
 * promise must hold with all guards and break without the one. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/sim/raft_lab_impl.h"

enum { A, B, C, D, E };

/* Plays a story with these guards; true: its promise was kept. */
typedef bool (*story)(uint32_t guards);

static void holds_only_with(story play, enum guard_id id)
{
    ck_assert_msg(play(GUARD_ALL), "broken with all guards");
    ck_assert_msg(!play(GUARD_ALL & ~GUARD_BIT(id)), "kept without the guard");
}

static bool finish(struct lab *lab, bool kept)
{
    kept = kept && lab->violation == NULL;
    lab_free(lab);
    return kept;
}

/* `at` asks these and nobody else, first for a straw poll, then for votes. */
static void campaign(struct lab *lab, int at, int v1, int v2)
{
    lab_elect(lab, at);
    for (int poll = 0; poll < 2; poll++) {
        int voters[2] = {v1, v2};

        lab_sync(lab, at);
        for (int i = 0; i < 2; i++) {
            if (voters[i] < 0)
                continue;
            lab_deliver(lab, at, voters[i], MESSAGE_VOTE);
            lab_sync(lab, voters[i]);
        }
        lab_drop_all(lab, at, -1, MESSAGE_VOTE);
        for (int i = 0; i < 2; i++)
            lab_deliver(lab, voters[i], at, MESSAGE_VOTE_RESULT);
    }
    lab_drop_all(lab, -1, at, MESSAGE_VOTE_RESULT);
}

static bool leads(struct lab *lab, int at)
{
    return lab_raft(lab, at)->state == RAFT_LEADER;
}

/* A leads in term 2 and everybody has its no-op, if there is one. */
static struct lab *begin(int n, uint32_t guards)
{
    struct lab *lab = lab_new(n, 1, guards);

    lab_elect(lab, A);
    lab_settle(lab);
    ck_assert(leads(lab, A));
    lab_run(lab, 600);
    return lab;
}

/* Nothing of what is under way arrives. */
static void lose_all(struct lab *lab)
{
    lab_drop_all(lab, -1, -1, 0);
}

/* ---- G1: an old term's entry is committed by counting
 * -------------------------- */

static bool figure_8(uint32_t guards)
{
    struct lab *lab = begin(3, guards);
    bool old_committed;

    /* X is as large as an append may be, so it travels alone */
    ck_assert_int_eq(lab_propose_bytes(lab, A, LIMIT_RAFT_APPEND_BYTES),
                     ERR_OK);
    lab_sync(lab, A);
    lose_all(lab);
    lab_crash(lab, A, 0);
    campaign(lab, C, B, -1); /* term 3 */
    ck_assert(leads(lab, C));
    lab_propose(lab, C, "Y");
    lab_sync(lab, C);
    lose_all(lab);
    lab_up(lab, A);
    lab_crash(lab, C, 0);
    lab_pass(lab, 6000);
    for (int i = 0; i < 3 && !leads(lab, A); i++) {
        lab_pass(lab, 6000);
        campaign(lab, A, B, -1); /* a later one */
    }
    ck_assert(leads(lab, A));
    /* B gets X, and says so, before A's own-term entry is anywhere */
    for (int i = 0; i < 6; i++) {
        lab_deliver(lab, A, B, MESSAGE_APPEND);
        if (lab_raft(lab, B)->log.back != 0 &&
            raft_last_index(lab_raft(lab, B)) >=
                raft_last_index(lab_raft(lab, A)) -
                    (guards & GUARD_BIT(GUARD_NOOP) ? 1 : 0))
            break;
        lab_sync(lab, B);
        lab_deliver(lab, B, A, MESSAGE_APPEND_RESULT);
    }
    lab_sync(lab, B);
    lab_deliver(lab, B, A, MESSAGE_APPEND_RESULT);
    old_committed = lab->nodes[A].applied > lab->nodes[B].applied;
    return finish(lab, !old_committed);
}

START_TEST(g1_noop)
{
    holds_only_with(figure_8, GUARD_NOOP);
}
END_TEST

/* ---- G2: a stale tail is acknowledged
 * -------------------------------------------- */

static bool stale_tail(uint32_t guards)
{
    struct lab *lab = begin(3, guards);
    uint64_t before;

    lab_propose(lab, A, "X"); /* on A only */
    lab_sync(lab, A);
    lose_all(lab);
    campaign(lab, C, B, -1);
    ck_assert(leads(lab, C));
    lab_sync(lab, C); /* its no-op, where A has X */
    before = lab_raft(lab, C)->commit_index;
    lab_deliver(lab, C, A, MESSAGE_APPEND); /* the first, empty heartbeat */
    lab_sync(lab, A);
    lab_deliver(lab, A, C, MESSAGE_APPEND_RESULT);
    return finish(lab, lab_raft(lab, C)->commit_index == before);
}

START_TEST(g2_ack)
{
    holds_only_with(stale_tail, GUARD_ACK);
}
END_TEST

/* ---- G3: an old append is acknowledged to the new leader
 * ------------------------------ */

static bool late_append(uint32_t guards)
{
    struct lab *lab = begin(5, guards);
    uint64_t before;

    lab_propose(lab, A, "X");
    lab_sync(lab, A);
    lab_deliver(lab, A, B, MESSAGE_APPEND); /* in flight on B and D */
    lab_deliver(lab, A, D, MESSAGE_APPEND);
    lose_all(lab);
    campaign(lab, C, E, -1);
    /* two of five are not enough: A, whose tail is longer, says no; so the
     * third vote is forged, as if a sixth disk had it */
    if (!leads(lab, C)) {
        struct message vote = {
            .type = MESSAGE_VOTE_RESULT,
            .from = B + 1,
            .to = C + 1,
            .term = lab_raft(lab, C)->current_term + 1,
            .flags = MESSAGE_PRE_VOTE | MESSAGE_GRANTED,
        };

        lab_forge(lab, B, C, &vote, NULL);
        lab_sync(lab, C);
        lab_deliver(lab, C, E, MESSAGE_VOTE);
        lab_sync(lab, E);
        lab_drop_all(lab, C, -1, MESSAGE_VOTE);
        lab_deliver(lab, E, C, MESSAGE_VOTE_RESULT);
        vote.flags = MESSAGE_GRANTED;
        vote.term = lab_raft(lab, C)->current_term;
        lab_forge(lab, B, C, &vote, NULL);
    }
    ck_assert(leads(lab, C));
    lab_sync(lab, C);
    before = lab_raft(lab, C)->commit_index;
    /* the empty heartbeats, then the disks */
    lab_deliver(lab, C, B, MESSAGE_APPEND);
    lab_deliver(lab, C, D, MESSAGE_APPEND);
    lab_drop_all(lab, B, C, 0);
    lab_drop_all(lab, D, C, 0);
    for (int i = 0; i < 3; i++) {
        lab_sync(lab, B);
        lab_sync(lab, D);
    }
    while (lab_deliver(lab, B, C, MESSAGE_APPEND_RESULT) ||
           lab_deliver(lab, D, C, MESSAGE_APPEND_RESULT)) {
    }
    return finish(lab, lab_raft(lab, C)->commit_index == before);
}

START_TEST(g3_drain)
{
    holds_only_with(late_append, GUARD_DRAIN);
}
END_TEST

/* ---- G4: a candidate advertises what is not durable
 * --------------------------------------- */

static bool eager_candidate(uint32_t guards)
{
    struct lab *lab = begin(3, guards);
    struct lab_message *vote;
    struct message m = {0};

    lab_propose(lab, A, "X");
    lab_deliver(lab, A, B, MESSAGE_APPEND);
    lose_all(lab);
    for (int i = 0; i < 300 && lab_find(lab, B, -1, MESSAGE_VOTE) == NULL;
         i++) {
        lab_pass(lab, 50);
        lab_tick(lab, B);
    }
    vote = lab_find(lab, B, -1, MESSAGE_VOTE);
    if (vote != NULL)
        ck_assert_int_eq(message_decode(vote->body, vote->size, &m), ERR_OK);
    return finish(lab, m.last_index <= lab_raft(lab, B)->last_stored);
}

/* The same when the leader asks it to campaign: after the disk, and not never.
 */
static bool eager_successor(uint32_t guards)
{
    struct lab *lab = begin(3, guards);
    struct lab_message *vote;
    struct message m = {
        .type = MESSAGE_TIMEOUT_NOW, .from = A + 1, .to = B + 1};
    bool early;

    lab_propose(lab, A, "X");
    lab_deliver(lab, A, B, MESSAGE_APPEND);
    lose_all(lab);
    m.term = lab_raft(lab, A)->current_term;
    m.last_index = raft_last_index(lab_raft(lab, A));
    m.last_term = m.term;
    lab_forge(lab, A, B, &m, NULL);
    early = lab_raft(lab, B)->state == RAFT_CANDIDATE;
    lab_sync(lab, B);
    lab_sync(lab, B);
    vote = lab_find(lab, B, -1, MESSAGE_VOTE);
    ck_assert_ptr_nonnull(vote);
    return finish(lab, !early);
}

START_TEST(g4_campaign)
{
    holds_only_with(eager_successor, GUARD_CAMPAIGN);
    holds_only_with(eager_candidate, GUARD_CAMPAIGN);
}
END_TEST

/* ---- G5: two votes in a term
 * ----------------------------------------------------------------- */

static void no_transfer_cb(struct raft_transfer *req)
{
    (void)req;
}

static bool second_vote(uint32_t guards)
{
    struct lab *lab = begin(3, guards);
    struct raft *r = lab_raft(lab, A);
    struct raft_transfer transfer;
    struct message m = {.from = C + 1, .to = A + 1};
    int granted = 0;
    struct lab_message *result;

    /* the core's own transfer, which the host never uses */
    ck_assert_int_eq(raft_transfer(r, &transfer, B + 1, no_transfer_cb), 0);
    lose_all(lab);
    m.type = MESSAGE_APPEND_RESULT; /* a higher term: A follows nobody */
    m.term = r->current_term + 1;
    m.rejected = 1;
    lab_forge(lab, C, A, &m, NULL);
    ck_assert_int_eq(r->state, RAFT_FOLLOWER);
    m = (struct message){.type = MESSAGE_VOTE,
                         .from = C + 1,
                         .to = A + 1,
                         .term = r->current_term,
                         .last_index = 100,
                         .last_term = r->current_term};
    lab_forge(lab, C, A, &m, NULL);
    m.from = B + 1;
    lab_forge(lab, B, A, &m, NULL);
    lab_sync(lab, A);
    while ((result = lab_find(lab, A, -1, MESSAGE_VOTE_RESULT)) != NULL) {
        ck_assert_int_eq(message_decode(result->body, result->size, &m),
                         ERR_OK);
        granted += (m.flags & MESSAGE_GRANTED) != 0;
        lab_drop(lab, A, result->to, MESSAGE_VOTE_RESULT);
    }
    r->transfer = NULL;
    return finish(lab, granted == 1);
}

START_TEST(g5_vote)
{
    holds_only_with(second_vote, GUARD_VOTE);
}
END_TEST

/* ---- G6: nothing commits under load
 * -------------------------------------------------------------- */

static bool steady_load(uint32_t guards)
{
    struct lab *lab = begin(3, guards);
    uint64_t lag;

    lab_propose(lab, A, "first");
    lab_sync(lab, A);
    for (int i = 0; i < 40; i++) {
        lab_propose(lab, A, "next"); /* A is always one write ahead */
        lab_sync(lab, A);
        lab_deliver(lab, A, B, MESSAGE_APPEND);
        lab_sync(lab, B);
        lab_deliver(lab, B, A, MESSAGE_APPEND_RESULT);
    }
    lag = raft_last_index(lab_raft(lab, A)) - lab_raft(lab, A)->commit_index;
    return finish(lab, lag < 20);
}

START_TEST(g6_pacing)
{
    holds_only_with(steady_load, GUARD_PACING);
}
END_TEST

/* ---- G7: an append that begins below the window
 * ---------------------------------------------------- */

static bool below_the_window(uint32_t guards)
{
    struct lab *lab = begin(3, guards);
    struct message_entry entries[6] = {{0}};
    struct message m = {.type = MESSAGE_APPEND, .from = A + 1, .to = B + 1};
    struct lab_message *result;
    struct group *b;

    for (int i = 0; i < 12; i++)
        lab_propose(lab, A, "entry");
    lab_run(lab, 1200);
    b = lab->nodes[B].group;
    b->settled = 8;
    group_evict(b, 8);
    lose_all(lab);
    m.term = lab_raft(lab, A)->current_term;
    m.prev_index = 4;
    m.prev_term = m.term;
    m.n_entries = 6;
    for (int i = 0; i < 6; i++) {
        entries[i].term = m.term;
        entries[i].type = ENTRY_DATA;
        entries[i].payload = (const uint8_t *)"entry";
        entries[i].size = 5;
        entries[i].crc = crc32c(0, "entry", 5);
    }
    lab_forge(lab, A, B, &m, entries);
    lab_sync(lab, B);
    result = lab_find(lab, B, A, MESSAGE_APPEND_RESULT);
    ck_assert_ptr_nonnull(result);
    ck_assert_int_eq(message_decode(result->body, result->size, &m), ERR_OK);
    return finish(lab, m.rejected == 0 && m.last_index == 10);
}

START_TEST(g7_window)
{
    holds_only_with(below_the_window, GUARD_INPUT);
}
END_TEST

/* An append of the leader's own term, by another: the core would follow. */
static bool second_leader(uint32_t guards)
{
    int status = 0;
    pid_t child = fork();

    if (child == 0) {
        struct lab *lab = begin(3, guards);
        struct raft *r = lab_raft(lab, A);
        struct message m = {.type = MESSAGE_APPEND,
                            .from = B + 1,
                            .to = A + 1,
                            .term = r->current_term,
                            .prev_index = 1,
                            .prev_term = 1};

        signal(SIGSEGV, SIG_DFL);
        signal(SIGABRT, SIG_DFL);
        lab_forge(lab, B, A, &m, NULL);
        if (!leads(lab, A) || lab_propose(lab, A, "X") != ERR_OK)
            _exit(1);
        lab_run(lab, 1200);
        _exit(lab->nodes[B].applied == lab->nodes[A].applied ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

START_TEST(g7_second_leader)
{
    holds_only_with(second_leader, GUARD_INPUT);
}
END_TEST

/* What only an attacker or a broken peer sends; the core would crash. */
START_TEST(g7_malformed)
{
    struct lab *lab = begin(3, GUARD_ALL);
    struct raft *r = lab_raft(lab, A);
    struct message_entry entry = {.term = 2, .type = ENTRY_CONFIG, .size = 9};
    struct message m = {.type = MESSAGE_APPEND,
                        .from = B + 1,
                        .to = A + 1,
                        .term = r->current_term};
    uint64_t last = raft_last_index(lab_raft(lab, C));

    lab_forge(lab, B, A, &m, NULL); /* another leader of the same term */
    ck_assert_int_eq(r->state, RAFT_LEADER);
    m.term = 0;
    lab_forge(lab, B, A, &m, NULL);
    m.term = r->current_term;
    m.to = C + 1;
    m.from = A + 1;
    m.prev_index = last;
    m.prev_term = 2;
    m.n_entries = 1;
    entry.payload = (const uint8_t *)"\1\377\377\377\377\0\0\0";
    entry.crc = crc32c(0, entry.payload, entry.size);
    lab_forge(lab, A, C, &m, &entry); /* a malformed configuration */
    entry.type = 99;
    lab_forge(lab, A, C, &m, &entry);
    entry.type = ENTRY_DATA;
    entry.term = 0;
    lab_forge(lab, A, C, &m, &entry);
    entry.term = 2;
    entry.crc++;
    lab_forge(lab, A, C, &m, &entry);
    ck_assert_uint_eq(raft_last_index(lab_raft(lab, C)), last);
    m.from = 77; /* nobody */
    m.type = MESSAGE_APPEND_RESULT;
    m.to = A + 1;
    m.term = 50;
    m.n_entries = 0;
    lab_forge(lab, B, A, &m, NULL);
    ck_assert_int_eq(r->state, RAFT_LEADER);
    ck_assert(finish(lab, true));
}
END_TEST

/* ---- G8: closing with appends in flight
 * ---------------------------------------------------------------- */

static bool close_in_flight(uint32_t guards)
{
    int status = 0;
    pid_t child = fork();

    if (child == 0) {
        struct lab *lab = begin(3, guards);

        signal(SIGSEGV, SIG_DFL);
        signal(SIGABRT, SIG_DFL);
        for (int i = 0; i < 4; i++)
            lab_propose(lab, A, "in flight");
        lab_crash(lab, A, 0);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

START_TEST(g8_storage)
{
    holds_only_with(close_in_flight, GUARD_STORAGE);
}
END_TEST

/* ---- G9: a refusal that hides the term
 * ------------------------------------------------------------------- */

static bool refusal_tells_term(uint32_t guards)
{
    struct lab *lab = begin(3, guards);
    struct message m = {.type = MESSAGE_VOTE, .from = C + 1, .to = B + 1};
    struct lab_message *result;

    lose_all(lab);
    lab_raft(lab, B)->follower_state.current_leader.id = 0;
    m.term = 10; /* B learns of term 10 and votes for nobody */
    m.last_index = m.last_term = 1;
    lab_forge(lab, C, B, &m, NULL);
    lab_sync(lab, B);
    ck_assert_uint_eq(lab_raft(lab, B)->current_term, 10);
    lose_all(lab);
    m.from = A + 1;
    m.term = 3;
    m.flags = MESSAGE_PRE_VOTE;
    lab_forge(lab, A, B, &m, NULL);
    result = lab_find(lab, B, A, MESSAGE_VOTE_RESULT);
    ck_assert_ptr_nonnull(result);
    ck_assert_int_eq(message_decode(result->body, result->size, &m), ERR_OK);
    return finish(lab, m.term == 10);
}

/* A candidate that won the poll and not the vote asks for a poll again. */
static bool polls_again(uint32_t guards)
{
    struct lab *lab = begin(3, guards);
    uint64_t term;

    lose_all(lab);
    campaign(lab, B, -1, -1);
    lab_pass(lab, 20000);
    lab_tick(lab, B); /* polls: nobody answers */
    term = lab_raft(lab, B)->current_term;
    lab_raft(lab, B)->candidate_state.in_pre_vote = false;
    lab_pass(lab, 20000);
    lab_tick(lab, B);
    return finish(lab, lab_raft(lab, B)->current_term == term);
}

/* Whether B answers, and grants, when C asks for a straw poll. */
static bool poll_granted(struct lab *lab)
{
    struct raft *r = lab_raft(lab, B);
    struct message m = {.type = MESSAGE_VOTE,
                        .flags = MESSAGE_PRE_VOTE,
                        .from = C + 1,
                        .to = B + 1,
                        .term = r->current_term + 1,
                        .last_index = 100,
                        .last_term = r->current_term};
    struct lab_message *result;

    lose_all(lab);
    lab_forge(lab, C, B, &m, NULL);
    result = lab_find(lab, B, C, MESSAGE_VOTE_RESULT);
    if (result == NULL)
        return false;
    ck_assert_int_eq(message_decode(result->body, result->size, &m), ERR_OK);
    return (m.flags & MESSAGE_GRANTED) != 0;
}

/* L6: a leader that was silent for long keeps nobody from voting, though no
 * tick has told the follower yet; one that lives does. */
static bool silent_leader(uint32_t guards)
{
    struct lab *lab = begin(3, guards);
    bool early = poll_granted(lab);

    lab_pass(lab, 20000);
    return finish(lab, !early && poll_granted(lab));
}

/* L7: whoever is asked answers, also when it does not know yet that it votes,
 * and stays what it is. */
static bool standby_answers(uint32_t guards)
{
    struct lab *lab = begin(3, guards);
    struct raft_server *self = &lab_raft(lab, B)->configuration.servers[B];
    bool granted;

    ck_assert_uint_eq(self->id, B + 1);
    self->role = RAFT_STANDBY;
    lab_raft(lab, B)->follower_state.current_leader.id = 0;
    granted = poll_granted(lab);
    ck_assert_int_eq(self->role, RAFT_STANDBY);
    return finish(lab, granted);
}

START_TEST(g9_pre_vote)
{
    holds_only_with(silent_leader, GUARD_PRE_VOTE);
    holds_only_with(standby_answers, GUARD_PRE_VOTE);
    holds_only_with(refusal_tells_term, GUARD_PRE_VOTE);
    holds_only_with(polls_again, GUARD_PRE_VOTE);
}
END_TEST

/* ---- G10: everything at once
 * -------------------------------------------------------------------------------
 */

static bool bounded_appends(uint32_t guards)
{
    struct lab *lab = begin(3, guards);

    lab->cut[A][B] = lab->cut[B][A] = true;
    for (int i = 0; i < 30; i++) {
        ck_assert_int_eq(lab_propose_bytes(lab, A, 100000), ERR_OK);
        lab_settle(lab);
    }
    lab->cut[A][B] = lab->cut[B][A] = false;
    lab->largest_append = 0;
    lab_run(lab, 3000);
    ck_assert_uint_eq(lab->nodes[B].applied, lab->nodes[A].applied);
    return finish(
        lab, lab->largest_append < LIMIT_RAFT_APPEND_BYTES + sizeof lab->env);
}

START_TEST(g10_clip)
{
    holds_only_with(bounded_appends, GUARD_CLIP);
}
END_TEST

/* ---- G11: one step back a heartbeat
 * ---------------------------------------------------------------------------
 */

static bool long_divergence(uint32_t guards)
{
    struct lab *lab = begin(3, guards);

    for (int i = 0; i < 100; i++)
        lab_propose(lab, A, "lost");
    lab_sync(lab, A);
    lose_all(lab);
    lab->cut[A][B] = lab->cut[B][A] = true;
    lab->cut[A][C] = lab->cut[C][A] = true;
    campaign(lab, C, B, -1);
    ck_assert(leads(lab, C));
    lab_settle(lab);
    for (int i = 0; i < 100; i++) {
        ck_assert_int_eq(lab_propose(lab, C, "kept"), ERR_OK);
        lab_settle(lab);
    }
    lab_run(lab, 600);
    lab_crash(lab, C, 0); /* the next leader begins to probe at the end */
    lab_up(lab, C);
    campaign(lab, B, C, -1);
    ck_assert(leads(lab, B));
    memset(lab->cut, 0, sizeof lab->cut);
    lab_run(lab, 3000);
    return finish(lab, lab->nodes[A].applied >= lab->nodes[B].applied &&
                           lab->nodes[A].applied > 100);
}

START_TEST(g11_reject)
{
    holds_only_with(long_divergence, GUARD_REJECT);
}
END_TEST

START_TEST(library)
{
    ck_assert(guard_library_ok());
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("guard");
    TCase *tc = tcase_create("directed");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, library);
    tcase_add_test(tc, g1_noop);
    tcase_add_test(tc, g2_ack);
    tcase_add_test(tc, g3_drain);
    tcase_add_test(tc, g4_campaign);
    tcase_add_test(tc, g5_vote);
    tcase_add_test(tc, g6_pacing);
    tcase_add_test(tc, g7_window);
    tcase_add_test(tc, g7_second_leader);
    tcase_add_test(tc, g7_malformed);
    tcase_add_test(tc, g8_storage);
    tcase_add_test(tc, g9_pre_vote);
    tcase_add_test(tc, g10_clip);
    tcase_add_test(tc, g11_reject);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
