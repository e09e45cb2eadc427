/* The simulated environment keeps its own promises: virtual time, order,
 * determinism, works, the end of nodes. */
#include <check.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "tests/sim/sim_env.h"

static struct sim *sim;
static struct sim_node *node;
static char trace[512];

static void note(const char *what)
{
    strncat(trace, what, sizeof trace - strlen(trace) - 1);
}

static void setup(void)
{
    trace[0] = '\0';
    sim = sim_new(7);
    node = sim_node_add(sim, "one", 2);
    sim_node_start(node, NULL, NULL);
}

static void teardown(void)
{
    sim_free(sim);
}

/* ---- timers and turns ---------------------------------------------------- */
static void note_deferred(struct env_deferred *d)
{
    note(d->arg);
}

static struct env_deferred late = {.cb = note_deferred, .arg = "D"};

static void note_timer(struct env_timer *timer)
{
    note(timer->arg);
    if (strcmp(timer->arg, "b") == 0) {
        env_defer(timer->env, &late);
        env_defer(timer->env, &late);
    }
}

START_TEST(test_timers__fire_at_their_time_in_order)
{
    struct env *env = sim_env(node, 0);
    struct env_timer t[4];
    static char names[4][2] = {"a", "b", "c", "d"};
    for (int i = 0; i < 4; i++) {
        env_timer_init(env, &t[i], note_timer, names[i]);
    }
    env_timer_start(&t[2], 100);
    env_timer_start(&t[0], 50);
    env_timer_start(&t[1], 50);
    env_timer_start(&t[3], 10);
    env_timer_stop(&t[3]);
    sim_run_for(sim, 49 * SIM_MS);
    ck_assert_str_eq(trace, "");
    sim_run_for(sim, 1 * SIM_MS);
    ck_assert_str_eq(trace, "abD");
    sim_run_for(sim, 3600 * SIM_S);
    ck_assert_str_eq(trace, "abDc");
    ck_assert_uint_eq(env_now_ms(env),
                      SIM_EPOCH_NS / SIM_MS + 3600 * 1000 + 50);
    ck_assert_uint_eq(env_now_ns(env), sim_now_ns(sim));
}
END_TEST

/* Timers of a heap under random changes: each fires once, at its own time. */
enum { HEAP = 300 };
static struct {
    struct env_timer timer;
    uint64_t due_ms; /* 0: stopped */
} many[HEAP];
static int heap_fired;

static void on_heap_timer(struct env_timer *timer)
{
    uint64_t *due_ms = timer->arg;
    ck_assert_uint_eq(env_now_ms(timer->env), *due_ms);
    *due_ms = 0;
    heap_fired++;
}

static void heap_change(struct env *env, struct prng *prng)
{
    uint64_t i = prng_below(prng, HEAP);
    uint64_t delay_ms = 2 + prng_below(prng, 1000);
    if (prng_chance(prng, 1, 3)) {
        env_timer_stop(&many[i].timer);
        many[i].due_ms = 0;
    } else {
        env_timer_start(&many[i].timer, delay_ms);
        many[i].due_ms = env_now_ms(env) + delay_ms;
    }
}

START_TEST(test_timers__heap_under_random_changes)
{
    struct env *env = sim_env(node, 0);
    heap_fired = 0;
    for (int i = 0; i < HEAP; i++) {
        many[i].due_ms = 0;
        env_timer_init(env, &many[i].timer, on_heap_timer, &many[i].due_ms);
    }
    for (int i = 0; i < 20000; i++) {
        heap_change(env, sim_prng(sim));
        if (i % 10 == 0) {
            sim_run_for(sim, 7 * SIM_MS);
        }
    }
    sim_run_for(sim, 2 * SIM_S);
    for (int i = 0; i < HEAP; i++) {
        ck_assert_uint_eq(many[i].due_ms, 0);
    }
    ck_assert_int_gt(heap_fired, 1000);
}
END_TEST

START_TEST(test_defer__outside_of_an_event_runs_next)
{
    env_defer(sim_env(node, 1), &late);
    ck_assert_str_eq(trace, "");
    sim_run_for(sim, 0);
    ck_assert_str_eq(trace, "D");
}
END_TEST

static void note_at(void *arg)
{
    note(arg);
}

START_TEST(test_sim_at__and_wall_clock)
{
    struct env *env = sim_env(node, 0);
    int64_t wall_ms = env_wall_ms(env);
    sim_at(sim, sim_now_ns(sim) + 2 * SIM_S, note_at, "2");
    sim_at(sim, sim_now_ns(sim) + 1 * SIM_S, note_at, "1");
    sim_run_for(sim, 5 * SIM_S);
    ck_assert_str_eq(trace, "12");
    ck_assert_int_eq(env_wall_ms(env) - wall_ms, 5000);
    sim_node_set_wall_offset_ms(node, -100000);
    ck_assert_int_eq(env_wall_ms(env) - wall_ms, -95000);
}
END_TEST

/* ---- posts and works ----------------------------------------------------- */
static int posts_seen;
static void on_post(struct env_post *post)
{
    ck_assert_int_eq(*(int *)post->arg, posts_seen);
    posts_seen++;
}

START_TEST(test_post__in_order)
{
    static struct env_post posts[100];
    static int numbers[100];
    posts_seen = 0;
    for (int i = 0; i < 100; i++) {
        numbers[i] = i;
        posts[i] = (struct env_post){.cb = on_post, .arg = &numbers[i]};
        env_post(sim_env(node, 1), &posts[i]);
    }
    ck_assert_int_eq(posts_seen, 0);
    sim_run_for(sim, SIM_S);
    ck_assert_int_eq(posts_seen, 100);
}
END_TEST

static void run_note(struct env_work *work)
{
    note(work->arg);
}
static void done_note(struct env_work *work)
{
    note(work->arg);
    note(".");
}

START_TEST(test_work__log_pool_is_in_order)
{
    struct env *env = sim_env(node, 0);
    struct env_work w[3];
    static char names[3][2] = {"a", "b", "c"};
    for (int i = 0; i < 3; i++) {
        w[i] = (struct env_work){
            .run = run_note, .done = done_note, .arg = names[i]};
        env_work_submit(env, ENV_POOL_LOG, &w[i]);
    }
    ck_assert_str_eq(trace, "");
    sim_run_for(sim, SIM_S);
    ck_assert_str_eq(trace, "aa.bb.cc.");
}
END_TEST

START_TEST(test_work__gone_with_the_node)
{
    struct env_work w[3];
    for (int i = 0; i < 3; i++) {
        w[i] =
            (struct env_work){.run = run_note, .done = done_note, .arg = "x"};
        env_work_submit(sim_env(node, 0), i == 2 ? ENV_POOL_IO : ENV_POOL_LOG,
                        &w[i]);
    }
    sim_node_crash(node, SIM_RANDOM);
    sim_node_restart(node);
    sim_run_for(sim, SIM_S);
    ck_assert_str_eq(trace, "");
}
END_TEST

/* ---- nodes --------------------------------------------------------------- */
static int boots;
static struct env_timer *boot_timer;

static void tick(struct env_timer *timer)
{
    env_timer_start(timer, 10);
    (void)mem_alloc(100);
}

static void boot(struct env *env, void *arg)
{
    boots++;
    ck_assert_ptr_eq(arg, &boots);
    ck_assert_ptr_eq(sim_node_of(env), node);
    boot_timer = mem_alloc(sizeof *boot_timer);
    env_timer_init(env, boot_timer, tick, NULL);
    env_timer_start(boot_timer, 10);
}

static void crash_itself(struct env *env, void *arg)
{
    (void)arg;
    sim_node_crash(sim_node_of(env), SIM_KILL);
    note("still here");
}

START_TEST(test_node__memory_and_timers_end_with_it)
{
    boots = 0;
    sim_node_crash(node, SIM_KILL);
    ck_assert(!sim_node_up(node));
    ck_assert_ptr_null(sim_env(node, 0));
    sim_node_start(node, boot, &boots);
    sim_run_for(sim, SIM_S);
    ck_assert_int_eq(boots, 1);
    ck_assert_uint_ge(sim_node_bytes(node), 90 * 100);
    uint64_t events = sim_events(sim);
    sim_node_call(node, 0, crash_itself, NULL);
    ck_assert_str_eq(trace, "still here");
    ck_assert(!sim_node_up(node));
    ck_assert_uint_eq(sim_node_bytes(node), 0);
    sim_run_for(sim, SIM_S);
    ck_assert_uint_eq(sim_events(sim), events);
    sim_node_restart(node);
    sim_run_for(sim, SIM_S);
    ck_assert_int_eq(boots, 2);
    ck_assert_uint_eq(sim_node_starts(node), 3);
}
END_TEST

static void die(struct env_timer *timer)
{
    env_fatal(timer->env, "bad disk %d", 3);
}

static void plan_death(struct env *env, void *arg)
{
    struct env_timer *timer = mem_alloc(sizeof *timer);
    (void)arg;
    env_timer_init(env, timer, die, NULL);
    env_timer_start(timer, 5);
}

static void on_fatal(void *arg, struct sim_node *dead, const char *line)
{
    (void)arg;
    ck_assert_ptr_eq(dead, node);
    ck_assert(!sim_node_up(dead));
    note(line);
}

START_TEST(test_fatal__ends_the_node)
{
    sim_on_fatal(sim, on_fatal, NULL);
    sim_node_call(node, 0, plan_death, NULL);
    sim_run_for(sim, SIM_S);
    ck_assert_str_eq(trace, "bad disk 3");
    sim_node_restart(node);
    ck_assert(sim_node_up(node));
}
END_TEST

static void die_in_run(struct env_work *work)
{
    env_fatal(work->env, "no");
}

START_TEST(test_fatal__in_a_work)
{
    struct env_work work = {.run = die_in_run, .done = done_note};
    sim_on_fatal(sim, on_fatal, NULL);
    env_work_submit(sim_env(node, 0), ENV_POOL_LOG, &work);
    sim_run_for(sim, SIM_S);
    ck_assert_str_eq(trace, "no");
    sim_node_restart(node);
    sim_run_for(sim, SIM_S);
}
END_TEST

START_TEST(test_fatal__without_a_handler_fails_the_run)
{
    sim_node_call(node, 0, plan_death, NULL);
    sim_run_for(sim, SIM_S);
}
END_TEST

START_TEST(test_pause__puts_off)
{
    struct env_timer t[2];
    env_timer_init(sim_env(node, 0), &t[0], note_timer, "a");
    env_timer_init(sim_env(node, 0), &t[1], note_timer, "c");
    env_timer_start(&t[0], 10);
    env_timer_start(&t[1], 20);
    sim_node_pause(node, sim_now_ns(sim) + 3 * SIM_S);
    sim_run_for(sim, 2999 * SIM_MS);
    ck_assert_str_eq(trace, "");
    sim_run_for(sim, 2 * SIM_MS);
    ck_assert_str_eq(trace, "ac");
}
END_TEST

/* ---- determinism --------------------------------------------------------- */
static void noisy_tick(struct env_timer *timer)
{
    log_info("test", "tick %u", (unsigned)(env_random(timer->env) % 1000));
    env_timer_start(timer, env_random(timer->env) % 50);
}

static void noisy_boot(struct env *env, void *arg)
{
    (void)arg;
    for (int i = 0; i < 3; i++) {
        struct env_timer *timer = mem_alloc(sizeof *timer);
        env_timer_init(env, timer, noisy_tick, NULL);
        env_timer_start(timer, 1);
    }
}

static uint64_t noisy_run(uint64_t seed)
{
    struct sim *world = sim_new(seed);
    struct sim_node *nodes[3];
    static const char *const names[3] = {"a", "b", "c"};
    for (int i = 0; i < 3; i++) {
        nodes[i] = sim_node_add(world, names[i], 1);
        sim_node_start(nodes[i], noisy_boot, NULL);
    }
    for (int i = 0; i < 20; i++) {
        struct sim_node *victim = nodes[prng_below(sim_prng(world), 3)];
        sim_run_for(world, prng_below(sim_prng(world), SIM_S));
        sim_node_crash(victim, SIM_RANDOM);
        sim_node_restart(victim);
    }
    uint64_t hash = sim_hash(world);
    sim_free(world);
    return hash;
}

START_TEST(test_determinism__same_seed_same_hash)
{
    uint64_t first = noisy_run(1);
    void *shift = mem_alloc(12345); /* other addresses */
    ck_assert_uint_eq(first, noisy_run(1));
    ck_assert_uint_ne(first, noisy_run(2));
    mem_free(shift);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sim_env");
    TCase *tc = tcase_create("sim_env");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_timers__fire_at_their_time_in_order);
    tcase_add_test(tc, test_timers__heap_under_random_changes);
    tcase_add_test(tc, test_defer__outside_of_an_event_runs_next);
    tcase_add_test(tc, test_sim_at__and_wall_clock);
    tcase_add_test(tc, test_post__in_order);
    tcase_add_test(tc, test_work__log_pool_is_in_order);
    tcase_add_test(tc, test_work__gone_with_the_node);
    tcase_add_test(tc, test_node__memory_and_timers_end_with_it);
    tcase_add_test(tc, test_fatal__ends_the_node);
    tcase_add_test(tc, test_fatal__in_a_work);
    tcase_add_exit_test(tc, test_fatal__without_a_handler_fails_the_run, 1);
    tcase_add_test(tc, test_pause__puts_off);
    tcase_add_test(tc, test_determinism__same_seed_same_hash);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
