/* The coordinator of classic groups: joining, rebalances, static members,
 * commits; what is left of it after a change of leaders, a crash, a close. */
#include "tests/unit/coordinator_world.h"

#define OK KAFKA_NONE

/* A group of n members in Stable; gives their joins (freed by the caller). */
static void group_stable(const char *group, int n, struct ask **joined)
{
    struct ask *syncs[MEMBERS_MAX];
    for (int i = 0; i < n; i++) {
        joined[i] = join(group, "");
    }
    run_ms(w.options.initial_rebalance_delay_ms * 2 + 100);
    for (int i = 0; i < n; i++) {
        ck_assert_int_eq(joined[i]->done, 1);
        ck_assert_int_eq(joined[i]->error, OK);
        syncs[i] = sync_as(joined[i]);
    }
    for (int i = 0; i < n; i++) {
        ck_assert_int_eq(outcome(syncs[i]), OK);
    }
    ck_assert_str_eq(state_of(group), "Stable");
}

static void free_all(struct ask **asks, int n)
{
    for (int i = 0; i < n; i++) {
        ck_assert_int_eq(asks[i]->done, 1);
        free(asks[i]);
    }
}

static struct ask *leader_of(struct ask **joined, int n)
{
    for (int i = 0; i < n; i++) {
        if (joined[i]->n_members > 0) {
            return joined[i];
        }
    }
    return NULL;
}

/* ---- hashing ------------------------------------------------------------- */
START_TEST(test_coordinator__partition_of)
{
    /* as Java's String.hashCode has them */
    ck_assert_int_eq(coordinator_partition_of(txt("my-group"), 50), 36);
    ck_assert_int_eq(coordinator_partition_of(txt("g1"), 50), 42);
    ck_assert_int_eq(coordinator_partition_of(txt(""), 50), 0);
    ck_assert_int_eq(coordinator_partition_of(txt("gr\xc3\xbc\xc3\x9f"
                                                  "e"),
                                              50),
                     23);
    ck_assert_int_eq(
        coordinator_partition_of(txt("\xe6\x97\xa5\xe6\x9c\xac"), 50), 47);
    ck_assert_int_eq(coordinator_partition_of(txt("a\xf0\x9f\x98\x80"
                                                  "b"),
                                              50),
                     44);
}
END_TEST

/* ---- joining ------------------------------------------------------------- */
START_TEST(test_coordinator__one_member)
{
    world_begin(1, 3000);
    struct ask *j = join("g", "");
    run_ms(2990);
    ck_assert_int_eq(j->done, 0); /* others may come */
    ck_assert_str_eq(state_of("g"), "PreparingRebalance");
    run_ms(100);
    ck_assert_int_eq(j->done, 1);
    ck_assert_int_eq(j->error, OK);
    ck_assert_int_eq(j->generation, 1);
    ck_assert_str_eq(j->leader, j->out_member);
    ck_assert_int_eq(strncmp(j->out_member, "client-", 7), 0);
    ck_assert_str_eq(j->protocol, "range");
    ck_assert_str_eq(j->protocol_type, "consumer");
    ck_assert_int_eq(j->n_members, 1);
    ck_assert_str_eq(j->members[0].metadata, "topics");
    ck_assert_int_eq(heartbeat(j), OK);
    struct ask *s = sync_as(j);
    run_ms(20);
    ck_assert_int_eq(s->error, OK);
    ck_assert_int_eq(strncmp(s->assignment, "1/client-", 9), 0);
    ck_assert_int_eq(heartbeat(j), OK);
    struct ask *d = describe("g");
    run_ms(20);
    ck_assert_str_eq(d->state, "Stable");
    ck_assert_str_eq(d->protocol, "range");
    ck_assert_int_eq(d->n_members, 1);
    ck_assert_str_eq(d->members[0].assignment, s->assignment);
    ck_assert_int_eq(outcome(leave_as("g", j->out_member, NULL)), OK);
    ck_assert_str_eq(state_of("g"), "Empty");
    ck_assert_int_eq(heartbeat(j), KAFKA_UNKNOWN_MEMBER_ID);
    ck_assert_int_eq(outcome(leave_as("g", j->out_member, NULL)),
                     KAFKA_UNKNOWN_MEMBER_ID);
    free(j);
    free(s);
    free(d);
    world_end();
}
END_TEST

START_TEST(test_coordinator__refused)
{
    world_begin(2, 0);
    struct ask *a = join_new("", "", NULL, 5, "range", "t");
    ask_send(a);
    ck_assert_int_eq(outcome(a), KAFKA_INVALID_GROUP_ID);
    a = join_new("g", "", NULL, 5, "range", "t");
    a->join.session_timeout_ms = 999;
    ask_send(a);
    ck_assert_int_eq(outcome(a), KAFKA_INVALID_SESSION_TIMEOUT);
    a = join_new("g", "", NULL, 5, "range", "t");
    a->join.session_timeout_ms = 1800001;
    ask_send(a);
    ck_assert_int_eq(outcome(a), KAFKA_INVALID_SESSION_TIMEOUT);
    a = join_new("g", "", NULL, 5, "", "t");
    ask_send(a);
    ck_assert_int_eq(outcome(a), KAFKA_INCONSISTENT_GROUP_PROTOCOL);
    a = join_new("g", "", NULL, 5, "range", "t");
    a->join.index = INDEX + 1;
    ask_send(a);
    ck_assert_int_eq(outcome(a), KAFKA_NOT_COORDINATOR);
    ck_assert_int_eq(outcome(join("g", "stranger")), KAFKA_UNKNOWN_MEMBER_ID);
    ck_assert_str_eq(state_of("g"), "");
    struct ask *j[1];
    group_stable("g", 1, j);
    a = join_new("g", "", NULL, 3, "other", "t");
    ask_send(a);
    ck_assert_int_eq(outcome(a), KAFKA_INCONSISTENT_GROUP_PROTOCOL);
    a = join_new("g", "", NULL, 3, "range", "t");
    a->join.protocol_type = txt("connect");
    ask_send(a);
    ck_assert_int_eq(outcome(a), KAFKA_INCONSISTENT_GROUP_PROTOCOL);
    ck_assert_int_eq(outcome(join("g", "stranger")), KAFKA_UNKNOWN_MEMBER_ID);
    ck_assert_str_eq(state_of("g"), "Stable");
    free_all(j, 1);
    world_end();
}
END_TEST

START_TEST(test_coordinator__member_id_required)
{
    world_begin(3, 0);
    struct ask *a = join_as("g", "", NULL, 5);
    run_ms(20);
    ck_assert_int_eq(a->error, KAFKA_MEMBER_ID_REQUIRED);
    ck_assert_int_eq(a->generation, -1);
    ck_assert_str_eq(state_of("g"), "Empty");
    struct ask *b = join_as("g", a->out_member, NULL, 5);
    run_ms(20);
    ck_assert_int_eq(b->error, OK);
    ck_assert_str_eq(b->out_member, a->out_member);
    ck_assert_int_eq(outcome(sync_as(b)), OK);
    /* an id that nobody uses is forgotten after a session, and a rebalance
     * that waits for it goes on */
    struct ask *late = join_as("g", "", NULL, 5);
    run_ms(20);
    ck_assert_int_eq(late->error, KAFKA_MEMBER_ID_REQUIRED);
    ck_assert_int_eq(heartbeat(b), OK);
    struct ask *again = join("g", b->out_member); /* the leader rejoins */
    run_ms(5000);
    ck_assert_int_eq(again->done, 0);
    run_ms(SESSION_MS - 5000);
    ck_assert_int_eq(again->done, 1);
    ck_assert_int_eq(again->generation, 2);
    ck_assert_int_eq(outcome(join_as("g", late->out_member, NULL, 5)),
                     KAFKA_UNKNOWN_MEMBER_ID);
    /* leaving with such an id takes it back */
    struct ask *c = join_as("h", "", NULL, 5);
    run_ms(20);
    ck_assert_str_eq(state_of("h"), "Empty");
    ck_assert_int_eq(outcome(leave_as("h", c->out_member, NULL)), OK);
    ck_assert_str_eq(state_of("h"), ""); /* never used */
    free(a);
    free(b);
    free(late);
    free(again);
    free(c);
    world_end();
}
END_TEST

START_TEST(test_coordinator__several_members)
{
    int n = _i;
    struct ask *j[MEMBERS_MAX];
    struct ask *s[MEMBERS_MAX];
    world_begin(4, 1000);
    for (int i = 0; i < n; i++) {
        j[i] = join("g", "");
        run_ms(100);
    }
    /* Extended while they came: 1000, then once more. */
    run_ms(2000);
    struct ask *leader = leader_of(j, n);
    ck_assert_ptr_nonnull(leader);
    ck_assert_ptr_eq(leader, j[0]); /* the first that came */
    for (int i = 0; i < n; i++) {
        ck_assert_int_eq(j[i]->done, 1);
        ck_assert_int_eq(j[i]->error, OK);
        ck_assert_int_eq(j[i]->generation, 1);
        ck_assert_str_eq(j[i]->leader, leader->out_member);
        ck_assert_int_eq(j[i]->n_members, i == 0 ? n : 0);
    }
    /* Followers wait for the leader's plan. */
    for (int i = n - 1; i >= 0; i--) {
        ck_assert_str_eq(state_of("g"), "CompletingRebalance");
        s[i] = sync_as(j[i]);
        ck_assert_int_eq(s[i]->done, 0);
    }
    run_ms(20);
    for (int i = 0; i < n; i++) {
        char expected[64];
        snprintf(expected, sizeof expected, "1/%.50s", j[i]->out_member);
        ck_assert_int_eq(s[i]->done, 1);
        ck_assert_int_eq(s[i]->error, OK);
        ck_assert_str_eq(s[i]->assignment, expected);
    }
    ck_assert_str_eq(state_of("g"), "Stable");
    /* Who asks again gets the same. */
    ck_assert_int_eq(outcome(sync_as(j[n - 1])), OK);
    free_all(j, n);
    free_all(s, n);
    world_end();
}
END_TEST

START_TEST(test_coordinator__delay_is_bounded)
{
    struct ask *j[MEMBERS_MAX];
    int n = 0;
    world_begin(5, 3000);
    for (; n < 12; n++) { /* somebody new in each delay, for ever */
        j[n] = join("g", "");
        run_ms(2000);
    }
    ck_assert_int_eq(j[0]->done, 1);
    ck_assert_int_eq(j[0]->generation, 1);
    int in_first = 0;
    for (int i = 0; i < n; i++) {
        in_first += j[i]->done && j[i]->generation == 1;
    }
    ck_assert_int_eq(in_first, j[0]->n_members);
    ck_assert_int_ge(in_first, REBALANCE_MS / 2000 - 1);
    ck_assert_int_lt(in_first, 12);
    world_end();
    free_all(j, n); /* the last ones by the end */
}
END_TEST

START_TEST(test_coordinator__vote)
{
    struct ask *j[3];
    world_begin(6, 100);
    j[0] = join_new("g", "", NULL, 3, "a,b,c", "m");
    j[1] = join_new("g", "", NULL, 3, "c,b", "m");
    j[2] = join_new("g", "", NULL, 3, "x,b,c", "m");
    for (int i = 0; i < 3; i++) {
        ask_send(j[i]);
    }
    run_ms(500);
    for (int i = 0; i < 3; i++) { /* b: two of three */
        ck_assert_int_eq(j[i]->done, 1);
        ck_assert_str_eq(j[i]->protocol, "b");
    }
    free_all(j, 3);
    world_end();
}
END_TEST

START_TEST(test_coordinator__size_limit)
{
    struct ask *j[2];
    world_begin(7, 0);
    w.options.group_size_max = 2;
    restart(SIM_KEEP_ALL);
    group_stable("g", 2, j);
    struct ask *third = join_as("g", "", NULL, 5);
    ck_assert_int_eq(outcome(third), KAFKA_GROUP_MAX_SIZE_REACHED);
    ck_assert_int_eq(outcome(join("g", "")), KAFKA_GROUP_MAX_SIZE_REACHED);
    /* the two themselves may come again, also by ids first */
    struct ask *again = join("g", j[0]->out_member);
    struct ask *other = join("g", j[1]->out_member);
    ck_assert_int_eq(outcome(again), OK);
    ck_assert_int_eq(outcome(other), OK);
    struct ask *a = join_as("h", "", NULL, 5);
    struct ask *b = join_as("h", "", NULL, 5);
    run_ms(20);
    struct ask *a2 = join_as("h", a->out_member, NULL, 5);
    struct ask *b2 = join_as("h", b->out_member, NULL, 5);
    run_ms(100);
    ck_assert_int_eq(a2->done + b2->done, 2);
    ck_assert_int_eq(a2->error, OK);
    ck_assert_int_eq(b2->error, OK);
    free(a);
    free(b);
    free(a2);
    free(b2);
    free_all(j, 2);
    world_end();
}
END_TEST

/* ---- rebalances ---------------------------------------------------------- */
START_TEST(test_coordinator__join_rebalances)
{
    struct ask *j[2], *k[3], *s[3];
    world_begin(10, 100);
    group_stable("g", 2, j);
    k[2] = join("g", "");
    run_ms(20);
    ck_assert_int_eq(heartbeat(j[0]), KAFKA_REBALANCE_IN_PROGRESS);
    ck_assert_int_eq(outcome(sync_as(j[0])), KAFKA_REBALANCE_IN_PROGRESS);
    k[0] = join("g", j[0]->out_member);
    run_ms(1000);
    ck_assert_int_eq(k[0]->done + k[2]->done, 0); /* not everybody yet */
    k[1] = join("g", j[1]->out_member);
    run_ms(20);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(k[i]->done, 1);
        ck_assert_int_eq(k[i]->generation, 2);
        ck_assert_str_eq(k[i]->leader, j[0]->out_member); /* kept */
    }
    ck_assert_int_eq(k[0]->n_members, 3);
    /* generations are checked */
    ck_assert_int_eq(heartbeat(j[1]), KAFKA_ILLEGAL_GENERATION);
    ck_assert_int_eq(outcome(sync_as(j[1])), KAFKA_ILLEGAL_GENERATION);
    ck_assert_int_eq(outcome(commit("g", j[1]->out_member, 1, "t", 0, 5)),
                     KAFKA_ILLEGAL_GENERATION);
    struct ask *wrong = sync_new(k[1]);
    wrong->sync.protocol_name = txt("other");
    ask_send(wrong);
    ck_assert_int_eq(outcome(wrong), KAFKA_INCONSISTENT_GROUP_PROTOCOL);
    for (int i = 0; i < 3; i++) {
        s[i] = sync_as(k[i]);
    }
    run_ms(20);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(s[i]->error, OK);
        ck_assert_int_eq(heartbeat(k[i]), OK);
    }
    /* a follower that joins unchanged learns the generation, no more */
    struct ask *same = join("g", k[1]->out_member);
    run_ms(20);
    ck_assert_int_eq(same->error, OK);
    ck_assert_int_eq(same->generation, 2);
    ck_assert_str_eq(state_of("g"), "Stable");
    /* with a new subscription it has everybody rebalance */
    struct ask *changed =
        join_new("g", k[1]->out_member, NULL, 3, "range", "others");
    ask_send(changed);
    ck_assert_str_eq(state_of("g"), "PreparingRebalance");
    free(same);
    ck_assert_int_eq(changed->done, 0);
    lose_leadership();
    ck_assert_int_eq(outcome(changed), KAFKA_NOT_COORDINATOR);
    free_all(j, 2);
    free_all(k, 3);
    free_all(s, 3);
    world_end();
}
END_TEST

START_TEST(test_coordinator__session_expiry)
{
    struct ask *j[3], *k[2];
    world_begin(11, 100);
    group_stable("g", 3, j);
    for (int t = 0; t < 12; t++) { /* the third is silent */
        run_ms(1000);
        enum kafka_error e = heartbeat(j[0]);
        ck_assert_int_eq(e, heartbeat(j[1]));
        ck_assert_int_eq(e, t * 1000 + 1000 < SESSION_MS - 200
                                ? OK
                                : KAFKA_REBALANCE_IN_PROGRESS);
    }
    ck_assert_int_eq(heartbeat(j[2]), KAFKA_UNKNOWN_MEMBER_ID);
    k[0] = join("g", j[0]->out_member);
    k[1] = join("g", j[1]->out_member);
    run_ms(20);
    ck_assert_int_eq(k[0]->generation, 2);
    ck_assert_int_eq(k[0]->n_members, 2);
    /* all are silent: the group is empty */
    run_ms(3 * SESSION_MS + REBALANCE_MS);
    ck_assert_str_eq(state_of("g"), "Empty");
    free_all(j, 3);
    free_all(k, 2);
    world_end();
}
END_TEST

/* Who waits for a rebalance or a plan does not heartbeat and is not expired;
 * who does not come back in time is left behind. */
START_TEST(test_coordinator__rebalance_timeout)
{
    struct ask *j[2];
    world_begin(12, 100);
    group_stable("g", 2, j);
    struct ask *k = join("g", j[0]->out_member);
    for (uint64_t t = 0; t < REBALANCE_MS - 1000; t += 1000) {
        run_ms(1000);
        ck_assert_int_eq(k->done, 0);
        ck_assert_int_eq(heartbeat(j[1]), KAFKA_REBALANCE_IN_PROGRESS);
    }
    run_ms(1500);
    ck_assert_int_eq(k->done, 1);
    ck_assert_int_eq(k->generation, 2);
    ck_assert_int_eq(k->n_members, 1);
    ck_assert_int_eq(heartbeat(j[1]), KAFKA_UNKNOWN_MEMBER_ID);
    ck_assert_int_eq(outcome(sync_as(k)), OK);
    free(k);
    free_all(j, 2);
    world_end();
}
END_TEST

START_TEST(test_coordinator__sync_timeout)
{
    struct ask *j[2];
    world_begin(13, 100);
    j[0] = join("g", "");
    j[1] = join("g", "");
    run_ms(400);
    ck_assert_int_eq(j[0]->n_members, 2);
    struct ask *s = sync_as(j[1]); /* the leader never sends its plan */
    for (uint64_t t = 0; t < REBALANCE_MS - 1000; t += 1000) {
        run_ms(1000);
        ck_assert_int_eq(heartbeat(j[0]), OK); /* it is alive otherwise */
        ck_assert_int_eq(s->done, 0);
    }
    run_ms(2000);
    ck_assert_int_eq(s->done, 1);
    ck_assert_int_eq(s->error, KAFKA_REBALANCE_IN_PROGRESS);
    ck_assert_int_eq(heartbeat(j[0]), KAFKA_UNKNOWN_MEMBER_ID);
    struct ask *k = join("g", j[1]->out_member);
    run_ms(20);
    ck_assert_int_eq(k->generation, 2);
    ck_assert_int_eq(k->n_members, 1);
    ck_assert_int_eq(outcome(sync_as(k)), OK);
    /* everybody synced: the same timer does nothing more */
    for (uint64_t t = 0; t < REBALANCE_MS + 2000; t += 1000) {
        run_ms(1000);
        ck_assert_int_eq(heartbeat(k), OK);
    }
    free(s);
    free(k);
    free_all(j, 2);
    world_end();
}
END_TEST

/* The plan is on its way to the log when somebody joins, and the next leader's
 * plan is not lost behind it. */
START_TEST(test_coordinator__rebalance_while_plan_is_written)
{
    struct ask *j[2], *k[3], *s[3];
    world_begin(14, 100);
    j[0] = join("g", "");
    j[1] = join("g", "");
    run_ms(400);
    hold_commit(true);
    s[0] = sync_as(j[0]);
    s[1] = sync_as(j[1]);
    run_ms(100);
    ck_assert_int_eq(s[0]->done + s[1]->done, 0);
    k[2] = join("g", "");
    run_ms(20);
    ck_assert_int_eq(outcome(s[0]), KAFKA_REBALANCE_IN_PROGRESS);
    ck_assert_int_eq(outcome(s[1]), KAFKA_REBALANCE_IN_PROGRESS);
    k[0] = join("g", j[0]->out_member);
    k[1] = join("g", j[1]->out_member);
    run_ms(20);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(k[i]->generation, 2);
        s[i] = sync_as(k[i]);
    }
    run_ms(100);
    ck_assert_int_eq(s[0]->done + s[1]->done + s[2]->done, 0);
    hold_commit(false);
    run_ms(100);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(s[i]->done, 1);
        ck_assert_int_eq(s[i]->error, OK);
        ck_assert_int_eq(strncmp(s[i]->assignment, "2/", 2), 0);
    }
    ck_assert_str_eq(state_of("g"), "Stable");
    free_all(j, 2);
    free_all(k, 3);
    free_all(s, 3);
    world_end();
}
END_TEST

START_TEST(test_coordinator__asked_twice)
{
    struct ask *j[2];
    world_begin(15, 100);
    struct ask *a = join("g", "");
    struct ask *b = join("g", "");
    run_ms(400);
    /* a sync, then the same again: the first is answered */
    struct ask *s1 = sync_as(b);
    struct ask *s2 = sync_as(b);
    ck_assert_int_eq(outcome(s1), KAFKA_REBALANCE_IN_PROGRESS);
    ck_assert_int_eq(s2->done, 0);
    ck_assert_int_eq(outcome(sync_as(a)), OK);
    ck_assert_int_eq(outcome(s2), OK);
    /* the leader joins, then again */
    j[0] = join("g", a->out_member);
    j[1] = join("g", a->out_member);
    ck_assert_int_eq(outcome(j[0]), KAFKA_REBALANCE_IN_PROGRESS);
    ck_assert_int_eq(j[1]->done, 0);
    struct ask *k = join("g", b->out_member);
    ck_assert_int_eq(outcome(k), OK);
    ck_assert_int_eq(j[1]->done, 1);
    /* its answer was lost: it asks again in CompletingRebalance */
    struct ask *lost = join("g", a->out_member);
    run_ms(20);
    ck_assert_int_eq(lost->generation, 2);
    ck_assert_int_eq(lost->n_members, 2);
    free(lost);
    free(a);
    free(b);
    free(j[1]);
    world_end();
}
END_TEST

START_TEST(test_coordinator__leave)
{
    struct ask *j[3], *k[2];
    world_begin(16, 100);
    group_stable("g", 3, j);
    ck_assert_int_eq(outcome(leave_as("g", j[0]->out_member, NULL)), OK);
    ck_assert_int_eq(heartbeat(j[1]), KAFKA_REBALANCE_IN_PROGRESS);
    k[0] = join("g", j[1]->out_member);
    ck_assert_int_eq(k[0]->done, 0);
    /* the last one that is awaited leaves: it goes on at once */
    ck_assert_int_eq(outcome(leave_as("g", j[2]->out_member, NULL)), OK);
    ck_assert_int_eq(k[0]->done, 1);
    ck_assert_int_eq(k[0]->generation, 2);
    ck_assert_str_eq(k[0]->leader, j[1]->out_member); /* it follows */
    ck_assert_int_eq(outcome(leave_as("g", "nobody", NULL)),
                     KAFKA_UNKNOWN_MEMBER_ID);
    ck_assert_int_eq(outcome(leave_as("none", "nobody", NULL)),
                     KAFKA_UNKNOWN_MEMBER_ID);
    ck_assert_int_eq(outcome(leave_as("", "nobody", NULL)),
                     KAFKA_INVALID_GROUP_ID);
    /* leaving while it waits: both are answered */
    struct ask *again = join("g", "");
    ck_assert_int_eq(outcome(leave_as("g", j[1]->out_member, NULL)), OK);
    run_ms(20);
    ck_assert_int_eq(again->done, 1);
    ck_assert_int_eq(again->generation, 3);
    free(again);
    free(k[0]);
    free_all(j, 3);
    world_end();
}
END_TEST

/* ---- static members ------------------------------------------------------ */
static void static_stable(struct ask **j, int version)
{
    struct ask *s[2];
    j[0] = join_as("g", "", "one", version);
    j[1] = join_as("g", "", "two", version);
    run_ms(400);
    s[0] = sync_as(j[0]);
    s[1] = sync_as(j[1]);
    ck_assert_int_eq(outcome(s[0]), OK);
    ck_assert_int_eq(outcome(s[1]), OK);
    ck_assert_str_eq(j[0]->members[1].instance, "two");
}

START_TEST(test_coordinator__static_restart)
{
    struct ask *j[2];
    int version = _i;
    world_begin(20, 100);
    static_stable(j, version);
    /* both come back with new ids: no rebalance, the same assignments */
    struct ask *k = join_new("g", "", "one", version, "range", "changed");
    hold_commit(true);
    ask_send(k);
    run_ms(100);
    ck_assert_int_eq(k->done, 0); /* not before the id is committed */
    hold_commit(false);
    run_ms(20);
    ck_assert_int_eq(k->error, OK);
    ck_assert_int_eq(k->generation, 1);
    ck_assert_str_ne(k->out_member, j[0]->out_member);
    if (version >= 9) {
        ck_assert(k->skip);
        ck_assert_str_eq(k->leader, k->out_member);
        ck_assert_int_eq(k->n_members, 2);
    } else { /* must not believe that it is to make a plan */
        ck_assert(!k->skip);
        ck_assert_str_eq(k->leader, j[0]->out_member);
        ck_assert_int_eq(k->n_members, 0);
    }
    struct ask *s = sync_as(k);
    run_ms(20);
    ck_assert_int_eq(s->error, OK);
    ck_assert_int_eq(strncmp(s->assignment, "1/one-", 6), 0);
    ck_assert_int_eq(heartbeat(j[0]), KAFKA_FENCED_INSTANCE_ID);
    ck_assert_int_eq(outcome(sync_as(j[0])), KAFKA_FENCED_INSTANCE_ID);
    ck_assert_int_eq(outcome(join_as("g", j[0]->out_member, "one", version)),
                     KAFKA_FENCED_INSTANCE_ID);
    struct ask *c = commit_new("g", j[0]->out_member, 1, "t", 0, 9);
    c->commit.instance_id = txt("one");
    ask_send(c);
    ck_assert_int_eq(outcome(c), KAFKA_FENCED_INSTANCE_ID);
    ck_assert_int_eq(heartbeat(k), OK);
    ck_assert_int_eq(heartbeat(j[1]), OK);
    ck_assert_str_eq(state_of("g"), "Stable");
    /* the new id is known to the next leader of the partition */
    char *before = dump();
    lose_leadership();
    gain_leadership();
    run_ms(200);
    char *after = dump();
    ck_assert_str_eq(before, after);
    ck_assert_int_eq(heartbeat(k), OK);
    free(before);
    free(after);
    /* an administrator removes it by its instance */
    ck_assert_int_eq(outcome(leave_as("g", "other", "one")),
                     KAFKA_FENCED_INSTANCE_ID);
    ck_assert_int_eq(outcome(leave_as("g", "", "three")),
                     KAFKA_UNKNOWN_MEMBER_ID);
    ck_assert_int_eq(outcome(leave_as("g", "", "one")), OK);
    ck_assert_int_eq(heartbeat(j[1]), KAFKA_REBALANCE_IN_PROGRESS);
    free(s);
    free(k);
    free_all(j, 2);
    world_end();
}
END_TEST

START_TEST(test_coordinator__static_away)
{
    struct ask *j[2];
    world_begin(21, 100);
    static_stable(j, 5);
    /* another protocol than the chosen one: all must join */
    struct ask *k = join_new("g", "", "two", 5, "sticky,range", "m");
    ask_send(k);
    run_ms(20);
    ck_assert_int_eq(k->error, OK); /* range is still what all know */
    ck_assert_str_eq(state_of("g"), "Stable");
    /* a third dynamic one makes a rebalance; the static two stay away, and
     * stay members until their sessions end */
    struct ask *d = join("g", "");
    for (int t = 0; t < 5; t++) {
        run_ms(1000);
        heartbeat(k);
        heartbeat(j[0]);
    }
    ck_assert_int_eq(d->done, 0);
    run_ms(SESSION_MS - 1000);
    ck_assert_int_eq(d->done, 0);
    run_ms(2000);
    ck_assert_int_eq(d->done, 1);
    ck_assert_int_eq(d->n_members, 1);
    free(k);
    free(d);
    free_all(j, 2);
    world_end();
}
END_TEST

/* Sessions longer than rebalances: the static member that is away is planned
 * for, and finds its part when it comes back. */
START_TEST(test_coordinator__static_kept_through_rebalance)
{
    struct ask *j[2];
    world_begin(22, 100);
    j[0] = join_new("g", "", "one", 5, "range", "m");
    j[1] = join_new("g", "", "two", 5, "range", "m");
    for (int i = 0; i < 2; i++) {
        j[i]->join.session_timeout_ms = 120000;
        ask_send(j[i]);
    }
    run_ms(400);
    struct ask *s[2] = {sync_as(j[0]), sync_as(j[1])};
    ck_assert_int_eq(outcome(s[0]), OK);
    ck_assert_int_eq(outcome(s[1]), OK);
    struct ask *k = join_as("g", j[1]->out_member, "two", 5);
    struct ask *d = join("g", "");
    run_ms(REBALANCE_MS + 100);
    ck_assert_int_eq(k->done, 1);
    ck_assert_int_eq(k->generation, 2);
    ck_assert_str_eq(k->leader, k->out_member); /* it came, the leader not */
    ck_assert_int_eq(k->n_members, 3);
    s[0] = sync_as(d);
    ck_assert_int_eq(outcome(sync_as(k)), OK);
    ck_assert_int_eq(outcome(s[0]), OK);
    struct ask *back = join_as("g", "", "one", 5);
    run_ms(20);
    ck_assert_int_eq(back->error, OK);
    ck_assert_int_eq(back->generation, 2);
    struct ask *part = sync_as(back);
    run_ms(20);
    ck_assert_int_eq(strncmp(part->assignment, "2/one-", 6), 0);
    free(part);
    free(back);
    free(k);
    free(d);
    free_all(j, 2);
    world_end();
}
END_TEST

/* ---- commits ------------------------------------------------------------- */
START_TEST(test_coordinator__commits)
{
    struct ask *j[1];
    world_begin(30, 100);
    ck_assert_int_eq(committed("s", "t", 0), -1);
    ck_assert_int_eq(outcome(commit("s", "", -1, "t", 0, 7)), OK);
    ck_assert_int_eq(outcome(commit("s", "", -1, "t", 1, 8)), OK);
    ck_assert_int_eq(outcome(commit("s", "", -1, "a", 2, 9)), OK);
    ck_assert_int_eq(outcome(commit("s", "", -1, "t", 0, 5)), OK);
    ck_assert_int_eq(outcome(commit("", "", -1, "t", 0, 77)), OK);
    ck_assert_int_eq(committed("", "t", 0), 77);
    ck_assert_int_eq(committed("s", "t", 0), 5); /* a reset may go back */
    ck_assert_str_eq(state_of("s"), "Empty");
    struct ask *all = fetch("s", NULL, 0);
    run_ms(20);
    ck_assert_int_eq(all->n_fetched, 3);
    ck_assert_str_eq(all->fetched[0].topic, "a");
    ck_assert_int_eq(all->fetched[0].offset, 9);
    ck_assert_str_eq(all->fetched[1].metadata, "note");
    ck_assert_int_eq(all->fetched[2].partition, 1);
    free(all);
    /* who is no member, or of no generation */
    ck_assert_int_eq(outcome(commit("none", "m", 3, "t", 0, 1)),
                     KAFKA_ILLEGAL_GENERATION);
    struct ask *new_version = commit_new("none", "m", 3, "t", 0, 1);
    new_version->commit.api_version = 9;
    ask_send(new_version);
    ck_assert_int_eq(outcome(new_version), KAFKA_GROUP_ID_NOT_FOUND);
    ck_assert_int_eq(outcome(commit("none", "m", -1, "t", 0, 1)), OK);
    struct ask *first = join("g", "");
    run_ms(300);
    ck_assert_int_eq(outcome(commit("g", first->out_member, 1, "t", 0, 1)),
                     KAFKA_REBALANCE_IN_PROGRESS);
    ck_assert_int_eq(outcome(sync_as(first)), OK);
    ck_assert_int_eq(outcome(commit("g", first->out_member, 1, "t", 0, 1)), OK);
    ck_assert_int_eq(outcome(commit("g", "", -1, "t", 0, 2)),
                     KAFKA_UNKNOWN_MEMBER_ID);
    ck_assert_int_eq(outcome(commit("g", "other", 1, "t", 0, 2)),
                     KAFKA_UNKNOWN_MEMBER_ID);
    ck_assert_int_eq(outcome(commit("g", first->out_member, 2, "t", 0, 2)),
                     KAFKA_ILLEGAL_GENERATION);
    ck_assert_int_eq(outcome(commit("g", first->out_member, 0, "t", 0, 2)),
                     KAFKA_ILLEGAL_GENERATION);
    /* a commit is as good as a heartbeat */
    for (int t = 0; t < 15; t++) {
        run_ms(1000);
        ck_assert_int_eq(outcome(commit("g", first->out_member, 1, "t", 0, t)),
                         OK);
    }
    /* in PreparingRebalance the old generation may still commit */
    struct ask *other = join("g", "");
    ck_assert_int_eq(outcome(commit("g", first->out_member, 1, "t", 0, 99)),
                     OK);
    ck_assert_int_eq(committed("g", "t", 0), 99);
    free(first);
    run_ms(REBALANCE_MS);
    ck_assert_int_eq(other->done, 1);
    free(other);
    /* what is wrong with one offset does not touch the others */
    struct ask *c = commit_new("s", "", -1, "t", 0, 50);
    char long_text[4098];
    memset(long_text, 'x', sizeof long_text);
    c->commits[1] = c->commits[0];
    c->commits[1].partition = 1;
    c->commits[1].metadata = (struct text){long_text, 4097};
    c->commits[2] = c->commits[0];
    c->commits[2].partition = 2;
    c->commits[2].error = KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
    c->commit.n_offsets = 3;
    ask_send(c);
    run_ms(20);
    ck_assert_int_eq(c->commits[0].error, OK);
    ck_assert_int_eq(c->commits[1].error, KAFKA_OFFSET_METADATA_TOO_LARGE);
    ck_assert_int_eq(c->commits[2].error, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    ck_assert_int_eq(committed("s", "t", 0), 50);
    ck_assert_int_eq(committed("s", "t", 1), 8);
    ck_assert_int_eq(committed("s", "t", 2), -1);
    free(c);
    group_stable("last", 1, j);
    free_all(j, 1);
    world_end();
}
END_TEST

START_TEST(test_coordinator__commit_waits_and_is_told)
{
    world_begin(31, 100);
    ck_assert_int_eq(outcome(commit("s", "", -1, "t", 0, 7)), OK);
    hold_commit(true);
    struct ask *c = commit("s", "", -1, "t", 0, 8);
    run_ms(1000);
    ck_assert_int_eq(c->done, 0);
    ck_assert_int_eq(committed("s", "t", 0), 7);
    hold_commit(false);
    ck_assert_int_eq(outcome(c), OK);
    ck_assert_int_eq(committed("s", "t", 0), 8);
    /* leadership goes while it waits */
    hold_commit(true);
    c = commit("s", "", -1, "t", 0, 9);
    run_ms(100);
    lose_leadership();
    ck_assert_int_eq(outcome(c), KAFKA_NOT_COORDINATOR);
    ck_assert_int_eq(outcome(commit("s", "", -1, "t", 0, 9)),
                     KAFKA_NOT_COORDINATOR);
    ck_assert_int_eq(outcome(fetch("s", "t", 0)), KAFKA_NOT_COORDINATOR);
    w.host->hold_commit = false;
    gain_leadership();
    run_ms(100);
    ck_assert_int_eq(committed("s", "t", 0), 9); /* it was in the log */
    world_end();
}
END_TEST

/* ---- change of leaders --------------------------------------------------- */
START_TEST(test_coordinator__reload)
{
    struct ask *j[3], *e[2];
    world_begin(40, 100);
    group_stable("g", 3, j);
    ck_assert_int_eq(outcome(commit("g", j[0]->out_member, 1, "t", 0, 11)), OK);
    ck_assert_int_eq(outcome(commit("s", "", -1, "t", 4, 12)), OK);
    group_stable("e", 2, e);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(outcome(leave_as("e", e[i]->out_member, NULL)), OK);
    }
    ck_assert_int_eq(outcome(commit("d", "", -1, "t", 0, 1)), OK);
    ck_assert_int_eq(outcome(delete_group("d")), OK);
    char *before = dump();
    for (int how = 0; how < 4; how++) {
        if (how == 1) {
            settle_and_evict();
        }
        if (how < 2) {
            lose_leadership();
            run_ms(1);
            gain_leadership();
        } else {
            restart(how == 2 ? SIM_DROP_ALL : SIM_KILL);
        }
        run_ms(300);
        char *after = dump();
        ck_assert_str_eq(before, after);
        free(after);
        for (int i = 0; i < 3; i++) { /* members go on as if nothing was */
            ck_assert_int_eq(heartbeat(j[i]), OK);
        }
        ck_assert_int_eq(committed("g", "t", 0), 11);
        ck_assert_int_eq(committed("s", "t", 4), 12);
        ck_assert_str_eq(state_of("d"), "");
    }
    /* sessions began anew with the leadership */
    run_ms(SESSION_MS - 1500);
    ck_assert_int_eq(heartbeat(j[0]), OK);
    run_ms(2000);
    ck_assert_int_eq(heartbeat(j[0]), KAFKA_REBALANCE_IN_PROGRESS);
    free(before);
    free_all(j, 3);
    free_all(e, 2);
    world_end();
}
END_TEST

START_TEST(test_coordinator__loading)
{
    world_begin(41, 100);
    for (int i = 0; i < 200; i++) {
        ck_assert_int_eq(outcome(commit("s", "", -1, "t", i, i)), OK);
    }
    settle_and_evict();
    /* reads are slow: half a second each */
    sim_disk_latency(w.node, 500 * SIM_MS, 0, 0);
    lose_leadership();
    gain_leadership();
    run_ms(50);
    struct ask *j = join("g", "");
    ck_assert_int_eq(outcome(j), KAFKA_COORDINATOR_LOAD_IN_PROGRESS);
    ck_assert_int_eq(outcome(fetch("s", "t", 1)),
                     KAFKA_COORDINATOR_LOAD_IN_PROGRESS);
    ck_assert_int_eq(outcome(commit("s", "", -1, "t", 1, 1)),
                     KAFKA_COORDINATOR_LOAD_IN_PROGRESS);
    struct ask nobody = {.group = "g", .out_member = "m"};
    ck_assert_int_eq(heartbeat(&nobody), OK); /* they shall stay calm */
    /* lost and won again while the read is under way */
    lose_leadership();
    gain_leadership();
    run_ms(20000);
    for (int i = 0; i < 200; i++) {
        ck_assert_int_eq(committed("s", "t", i), i);
    }
    /* lost for good: nothing happens when the read comes back */
    lose_leadership();
    gain_leadership();
    run_ms(50);
    lose_leadership();
    run_ms(20000);
    ck_assert_int_eq(outcome(fetch("s", "t", 1)), KAFKA_NOT_COORDINATOR);
    world_end();
}
END_TEST

static void call_close(struct env *env, void *arg)
{
    (void)env;
    (void)arg;
    coordinator_partition_closed(w.c, w.p, INDEX);
    coordinator_partition_closed(w.c, w.p, INDEX); /* twice is fine */
}

static void call_just_stop(struct env *env, void *arg)
{
    (void)env;
    (void)arg;
    coordinator_stop(w.c);
}

static void call_delete_partition(struct env *env, void *arg)
{
    (void)env;
    (void)arg;
    coordinator_partition_closed(w.c, w.p, INDEX);
    partition_delete(w.p);
}

/* Closed with everything under way: all is answered, nothing is touched
 * afterwards (the sanitizers watch). */
START_TEST(test_coordinator__close_with_work_under_way)
{
    struct ask *j[2];
    world_begin(42, 100);
    group_stable("g", 2, j);
    struct ask *parked = join("g", "");
    struct ask *h = join("h", "");
    run_ms(400);
    hold_commit(true);
    struct ask *sync = sync_as(h);
    struct ask *c = commit("s", "", -1, "t", 1, 1);
    struct ask *d = delete_group("none");
    run_ms(50);
    struct ask *f = fetch("s", "t", 1);
    ck_assert_int_eq(parked->done + sync->done + c->done, 0);
    if (_i == 0) {
        sim_node_call(w.node, 0, call_close, NULL);
        ck_assert_int_eq(outcome(join("g", "")), KAFKA_NOT_COORDINATOR);
        hold_commit(false); /* the writes come back to a closed partition */
    } else {
        sim_node_call(w.node, 0, call_delete_partition, NULL);
    }
    ck_assert_int_eq(outcome(parked), KAFKA_NOT_COORDINATOR);
    ck_assert_int_eq(outcome(sync), KAFKA_NOT_COORDINATOR);
    ck_assert_int_eq(outcome(c), _i == 0 ? OK : KAFKA_NOT_COORDINATOR);
    ck_assert_int_ne(outcome(d), OK);
    outcome(f);
    run_ms(60000); /* no timer is left */
    free(h);
    free_all(j, 2);
    world_end();
}
END_TEST

START_TEST(test_coordinator__stop)
{
    struct ask *j[2];
    world_begin(44, 100);
    group_stable("g", 2, j);
    struct ask *parked = join("g", "");
    struct ask *c = commit("s", "", -1, "t", 1, 1);
    sim_node_call(w.node, 0, call_just_stop, NULL);
    ck_assert_int_eq(parked->done, 1);
    ck_assert_int_eq(outcome(parked), KAFKA_NOT_COORDINATOR);
    ck_assert_int_eq(outcome(c), OK); /* it was on its way */
    lose_leadership();
    gain_leadership();
    run_ms(100);
    ck_assert_int_eq(outcome(join("g", "")), KAFKA_NOT_COORDINATOR);
    free_all(j, 2);
    world_end();
}
END_TEST

START_TEST(test_coordinator__close_while_loading)
{
    world_begin(43, 100);
    ck_assert_int_eq(outcome(commit("s", "", -1, "t", 1, 1)), OK);
    settle_and_evict();
    sim_disk_latency(w.node, 500 * SIM_MS, 0, 0);
    lose_leadership();
    gain_leadership();
    run_ms(50);
    sim_node_call(w.node, 0, _i == 0 ? call_close : call_stop, NULL);
    run_ms(5000);
    if (_i == 0) {
        world_end();
    } else {
        sim_free(w.sim);
    }
}
END_TEST

static void commits(struct ask *j[2], int64_t *offset, int n)
{
    for (int i = 0; i < n; i++) {
        ck_assert_int_eq(
            outcome(commit("g", j[0]->out_member, 1, "t", 0, ++*offset)), OK);
        if (i % 20 == 0) {
            ck_assert_int_eq(heartbeat(j[0]), OK);
            ck_assert_int_eq(heartbeat(j[1]), OK);
        }
    }
}

/* The log is compacted; what is loaded from it is what was there. */
START_TEST(test_coordinator__log_compacted)
{
    struct ask *j[2];
    segment_bytes = 3000;
    world_begin(45, 100);
    segment_bytes = 0;
    group_stable("g", 2, j);
    ck_assert_int_eq(outcome(commit("s", "", -1, "t", 7, 70)), OK);
    ck_assert_int_eq(outcome(commit("old", "", -1, "t", 7, 70)), OK);
    ck_assert_int_eq(outcome(delete_group("old")), OK);
    int64_t offset = 0;
    for (int how = 0; how < 4; how++) {
        commits(j, &offset, 100);
        settle_and_evict();
        int64_t size = partition_size_bytes(w.p);
        for (int i = 0; i < 40; i++) { /* also until tombstones go */
            run_ms(500);
            ck_assert_int_eq(heartbeat(j[0]), OK);
            ck_assert_int_eq(heartbeat(j[1]), OK);
        }
        ck_assert_int_lt(partition_size_bytes(w.p), size / 2);
        ck_assert_int_eq(partition_log_start(w.p).v, 0);
        /* one more commit behind it */
        commits(j, &offset, 1);
        char *before = dump();
        if (how % 2 == 0) {
            lose_leadership();
            gain_leadership();
        } else {
            restart(how == 1 ? SIM_DROP_ALL : SIM_KILL);
        }
        run_ms(300);
        char *after = dump();
        ck_assert_str_eq(before, after);
        ck_assert_int_eq(heartbeat(j[0]), OK);
        ck_assert_int_eq(heartbeat(j[1]), OK);
        ck_assert_int_eq(committed("g", "t", 0), offset);
        ck_assert_int_eq(committed("s", "t", 7), 70);
        ck_assert_str_eq(state_of("old"), "");
        free(before);
        free(after);
    }
    world_end();
    free_all(j, 2);
}
END_TEST

/* ---- deleting and forgetting --------------------------------------------- */
/* A member subscribed to the topic "t" alone. */
static const char subscribed_to_t[] = "\0\1\0\0\0\1\0\1t\xff\xff\xff\xff";

static struct ask *join_subscribed(const char *group)
{
    struct ask *a = join_new(group, "", NULL, 3, "range", "");
    a->protocols[0].metadata = (struct blob){
        .p = (const uint8_t *)subscribed_to_t, .n = sizeof subscribed_to_t - 1};
    ask_send(a);
    run_ms(500);
    ck_assert_int_eq(a->done, 1);
    ck_assert_int_eq(outcome(sync_as(a)), OK);
    return a;
}

/* A working group's offsets expire where it reads no more. */
START_TEST(test_coordinator__expiry_of_unsubscribed)
{
    world_begin(48, 100);
    ck_assert_int_eq(outcome(commit("g", "", -1, "t", 0, 5)), OK);
    ck_assert_int_eq(outcome(commit("g", "", -1, "other", 0, 6)), OK);
    struct ask *a = join_subscribed("g");
    const uint64_t day = UINT64_C(86400000);
    for (uint64_t t = 0; t < 8 * day; t += 5000) {
        run_ms(5000);
        ck_assert_int_eq(heartbeat(a), OK);
        if (t == 6 * day) {
            ck_assert_int_eq(committed("g", "other", 0), 6);
            ck_assert_int_eq(
                outcome(commit("g", a->out_member, 1, "newer", 0, 7)), OK);
        }
    }
    ck_assert_int_eq(committed("g", "t", 0), 5);
    ck_assert_int_eq(committed("g", "other", 0), -1);
    ck_assert_int_eq(committed("g", "newer", 0), 7);
    ck_assert_str_eq(state_of("g"), "Stable");
    free(a);
    world_end();
}
END_TEST

/* Single offsets: of an empty group any, of consumers those of topics that
 * nobody subscribes to, of others none. */
START_TEST(test_coordinator__offset_delete)
{
    world_begin(49, 100);
    ck_assert_int_eq(outcome(offset_delete("", "t", 0)),
                     KAFKA_INVALID_GROUP_ID);
    ck_assert_int_eq(outcome(offset_delete("g", "t", 0)),
                     KAFKA_GROUP_ID_NOT_FOUND);
    ck_assert_int_eq(outcome(commit("g", "", -1, "t", 0, 5)), OK);
    ck_assert_int_eq(outcome(commit("g", "", -1, "t", 1, 6)), OK);
    ck_assert_int_eq(outcome(offset_delete("g", "t", 0)), OK);
    ck_assert_int_eq(outcome(offset_delete("g", "never", 0)), OK);
    ck_assert_int_eq(committed("g", "t", 0), -1);
    ck_assert_int_eq(committed("g", "t", 1), 6);
    ck_assert_int_eq(outcome(commit("g", "", -1, "other", 0, 7)), OK);
    struct ask *a = join_subscribed("g");
    ck_assert_int_eq(outcome(offset_delete("g", "t", 1)),
                     KAFKA_GROUP_SUBSCRIBED_TO_TOPIC);
    ck_assert_int_eq(outcome(offset_delete("g", "other", 0)), OK);
    ck_assert_int_eq(committed("g", "t", 1), 6);
    ck_assert_int_eq(committed("g", "other", 0), -1);
    struct ask *b = join_new("h", "", NULL, 3, "range", "t");
    b->join.protocol_type = txt("connect");
    ask_send(b);
    run_ms(500);
    ck_assert_int_eq(outcome(sync_as(b)), OK);
    ck_assert_int_eq(outcome(offset_delete("h", "t", 1)),
                     KAFKA_NON_EMPTY_GROUP);
    free(a);
    free(b);
    hold_commit(true);
    struct ask *late = offset_delete("g", "other", 1);
    run_ms(200);
    ck_assert_int_eq(late->done, 0); /* answered when it is committed */
    hold_commit(false);
    run_ms(200);
    ck_assert_int_eq(outcome(late), OK);
    lose_leadership();
    run_ms(1);
    ck_assert_int_eq(outcome(offset_delete("g", "t", 1)),
                     KAFKA_NOT_COORDINATOR);
    world_end();
}
END_TEST

START_TEST(test_coordinator__delete)
{
    struct ask *j[1];
    world_begin(50, 100);
    ck_assert_int_eq(outcome(delete_group("g")), KAFKA_GROUP_ID_NOT_FOUND);
    ck_assert_int_eq(outcome(delete_group("")), KAFKA_GROUP_ID_NOT_FOUND);
    ck_assert_int_eq(outcome(commit("", "", -1, "t", 0, 1)), OK);
    ck_assert_str_eq(state_of(""), "Empty");
    ck_assert_int_eq(outcome(delete_group("")), OK);
    group_stable("g", 1, j);
    ck_assert_int_eq(outcome(commit("g", j[0]->out_member, 1, "t", 0, 1)), OK);
    ck_assert_int_eq(outcome(delete_group("g")), KAFKA_NON_EMPTY_GROUP);
    ck_assert_int_eq(outcome(leave_as("g", j[0]->out_member, NULL)), OK);
    ck_assert_int_eq(outcome(delete_group("g")), OK);
    ck_assert_str_eq(state_of("g"), "");
    ck_assert_int_eq(committed("g", "t", 0), -1);
    /* many offsets: more than one batch of tombstones */
    for (int i = 0; i < 40; i++) {
        struct ask *c = commit_new("big", "", -1, "t", 0, i);
        char topic[240];
        memset(topic, 'x', sizeof topic);
        struct coordinator_commit_offset *o = calloc(100, sizeof *o);
        for (int k = 0; k < 100; k++) {
            o[k] = c->commits[0];
            o[k].topic = (struct text){topic, sizeof topic};
            o[k].partition = i * 100 + k;
        }
        c->commit.offsets = o;
        c->commit.n_offsets = 100;
        ask_send(c);
        ck_assert_int_eq(outcome(c), OK);
        free(o);
    }
    ck_assert_int_eq(outcome(delete_group("big")), OK);
    ck_assert_str_eq(state_of("big"), "");
    restart(SIM_KILL);
    ck_assert_str_eq(state_of("g"), "");
    ck_assert_str_eq(state_of("big"), "");
    free_all(j, 1);
    world_end();
}
END_TEST

/* Somebody joins while the deletion is on its way: it keeps its place. */
START_TEST(test_coordinator__join_while_deleted)
{
    world_begin(51, 100);
    ck_assert_int_eq(outcome(commit("g", "", -1, "t", 0, 1)), OK);
    hold_commit(true);
    struct ask *d = delete_group("g");
    struct ask *j = join("g", "");
    struct ask *id = join_as("k", "", NULL, 5);
    run_ms(400);
    ck_assert_int_eq(j->error, OK);
    struct ask *s = sync_as(j);
    hold_commit(false);
    ck_assert_int_eq(outcome(d), OK);
    ck_assert_int_eq(outcome(s), OK);
    ck_assert_int_eq(heartbeat(j), OK);
    ck_assert_int_eq(committed("g", "t", 0), -1);
    char *before = dump();
    lose_leadership();
    gain_leadership();
    run_ms(100);
    ck_assert_int_eq(heartbeat(j), OK);
    free(before);
    free(j);
    free(id);
    world_end();
}
END_TEST

START_TEST(test_coordinator__expiry)
{
    struct ask *j[1], *q[1];
    world_begin(52, 100);
    group_stable("g", 1, j);
    ck_assert_int_eq(outcome(commit("g", j[0]->out_member, 1, "t", 0, 1)), OK);
    ck_assert_int_eq(outcome(commit("s", "", -1, "t", 0, 2)), OK);
    ck_assert_int_eq(outcome(commit("s", "", -1, "t", 1, 3)), OK);
    group_stable("q", 1, q);
    ck_assert_int_eq(outcome(commit("q", q[0]->out_member, 1, "t", 0, 1)), OK);
    ck_assert_int_eq(outcome(leave_as("q", q[0]->out_member, NULL)), OK);
    const uint64_t day = UINT64_C(86400000);
    for (uint64_t t = 0; t < 6 * day; t += 5000) {
        run_ms(5000);
        ck_assert_int_eq(heartbeat(j[0]), OK);
    }
    ck_assert_int_eq(outcome(commit("s", "", -1, "t", 1, 4)), OK);
    for (uint64_t t = 0; t < 2 * day; t += 5000) {
        run_ms(5000);
        ck_assert_int_eq(heartbeat(j[0]), OK);
    }
    ck_assert_int_eq(committed("g", "t", 0), 1); /* it has a member */
    ck_assert_int_eq(committed("s", "t", 0), -1);
    ck_assert_int_eq(committed("s", "t", 1), 4);
    ck_assert_str_eq(state_of("q"), "");
    ck_assert_str_eq(state_of("s"), "Empty");
    /* a commit is on its way when the older one would expire */
    hold_commit(true);
    run_ms(5 * day - 3 * 600000);
    struct ask *c = commit("s", "", -1, "t", 1, 5);
    run_ms(3 * day);
    hold_commit(false);
    ck_assert_int_eq(outcome(c), OK);
    ck_assert_int_eq(committed("s", "t", 1), 5);
    free_all(j, 1);
    free_all(q, 1);
    world_end();
}
END_TEST

static void call_topic_deleted(struct env *env, void *arg)
{
    (void)env;
    coordinator_topic_deleted(w.c, arg);
}

START_TEST(test_coordinator__topic_deleted)
{
    static char topic[] = "t";
    world_begin(53, 100);
    ck_assert_int_eq(outcome(commit("s", "", -1, "t", 0, 2)), OK);
    ck_assert_int_eq(outcome(commit("s", "", -1, "t", 1, 3)), OK);
    ck_assert_int_eq(outcome(commit("s", "", -1, "u", 1, 4)), OK);
    sim_node_call(w.node, 0, call_topic_deleted, topic);
    run_ms(50);
    ck_assert_int_eq(committed("s", "t", 0), -1);
    ck_assert_int_eq(committed("s", "t", 1), -1);
    ck_assert_int_eq(committed("s", "u", 1), 4);
    restart(SIM_KILL);
    ck_assert_int_eq(committed("s", "t", 1), -1);
    ck_assert_int_eq(committed("s", "u", 1), 4);
    world_end();
}
END_TEST

/* ---- listing
 * ------------------------------------------------------------------------------
 */
static void list_add(void *arg, const struct coordinator_group_view *v)
{
    char *out = arg;
    dump_add(out, 256, "%.*s:%.*s:%.*s ", (int)v->group_id.n, v->group_id.p,
             (int)v->state.n, v->state.p, (int)v->protocol_type.n,
             v->protocol_type.p);
}

static void call_list(struct env *env, void *arg)
{
    (void)env;
    ck_assert_int_eq(coordinator_list(w.c, list_add, arg), OK);
}

START_TEST(test_coordinator__list)
{
    struct ask *j[1];
    char out[256] = "";
    world_begin(60, 100);
    group_stable("g", 1, j);
    ck_assert_int_eq(outcome(commit("s", "", -1, "t", 0, 2)), OK);
    sim_node_call(w.node, 0, call_list, out);
    ck_assert_str_eq(out, "g:Stable:consumer s:Empty: ");
    free_all(j, 1);
    world_end();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("coordinator");
    TCase *tc = tcase_create("coordinator");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, test_coordinator__partition_of);
    tcase_add_test(tc, test_coordinator__one_member);
    tcase_add_test(tc, test_coordinator__refused);
    tcase_add_test(tc, test_coordinator__member_id_required);
    tcase_add_loop_test(tc, test_coordinator__several_members, 1, 6);
    tcase_add_test(tc, test_coordinator__delay_is_bounded);
    tcase_add_test(tc, test_coordinator__vote);
    tcase_add_test(tc, test_coordinator__size_limit);
    tcase_add_test(tc, test_coordinator__join_rebalances);
    tcase_add_test(tc, test_coordinator__session_expiry);
    tcase_add_test(tc, test_coordinator__rebalance_timeout);
    tcase_add_test(tc, test_coordinator__sync_timeout);
    tcase_add_test(tc, test_coordinator__rebalance_while_plan_is_written);
    tcase_add_test(tc, test_coordinator__asked_twice);
    tcase_add_test(tc, test_coordinator__leave);
    tcase_add_loop_test(tc, test_coordinator__static_restart, 8, 10);
    tcase_add_test(tc, test_coordinator__static_away);
    tcase_add_test(tc, test_coordinator__static_kept_through_rebalance);
    tcase_add_test(tc, test_coordinator__commits);
    tcase_add_test(tc, test_coordinator__commit_waits_and_is_told);
    tcase_add_test(tc, test_coordinator__reload);
    tcase_add_test(tc, test_coordinator__loading);
    tcase_add_loop_test(tc, test_coordinator__close_with_work_under_way, 0, 2);
    tcase_add_test(tc, test_coordinator__stop);
    tcase_add_loop_test(tc, test_coordinator__close_while_loading, 0, 2);
    tcase_add_test(tc, test_coordinator__log_compacted);
    tcase_add_test(tc, test_coordinator__expiry_of_unsubscribed);
    tcase_add_test(tc, test_coordinator__offset_delete);
    tcase_add_test(tc, test_coordinator__delete);
    tcase_add_test(tc, test_coordinator__join_while_deleted);
    tcase_add_test(tc, test_coordinator__expiry);
    tcase_add_test(tc, test_coordinator__topic_deleted);
    tcase_add_test(tc, test_coordinator__list);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
