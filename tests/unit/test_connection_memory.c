/* Memory of connections in the simulated world: clients that send halves of
 * frames, or never take their answers, hold no more than the bound, and others
 * are served beside them. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "net/connection.h"
#include "schema/apis.h"
#include "schema/header.h"
#include "schema/heartbeat.h"
#include "schema/list_groups.h"
#include "tests/sim/sim_env.h"

#define MEMORY_MAX 4000000
#define BAD 100
#define GROUPS 100
#define GROUP_NAME 500

static struct sim *sim;
static struct sim_node *server, *host;
static struct connections *all;
static bool is_short;

/* ---- the server: short answers, and some of 50 KB ------------------------ */
static void handle(struct request *rq)
{
    if (rq->api_key == API_LIST_GROUPS) {
        static char name[GROUP_NAME];
        struct list_groups_response a;
        list_groups_response_init(&a);
        memset(name, 'x', sizeof name);
        a.groups = arena_zalloc(&rq->arena, GROUPS * sizeof *a.groups);
        a.n_groups = GROUPS;
        for (int i = 0; i < GROUPS; i++) {
            a.groups[i].group_id = (struct wire_str){name, sizeof name};
        }
        request_respond(rq, &list_groups_response_message, &a);
        return;
    }
    struct heartbeat_response a;
    heartbeat_response_init(&a);
    request_respond(rq, &heartbeat_response_message, &a);
}
static bool has_handler(int16_t key)
{
    return key == API_HEARTBEAT || key == API_LIST_GROUPS;
}
static bool ask_short(struct broker_shard *shard)
{
    (void)shard;
    return is_short;
}
static void accepted(void *arg, struct env_stream *stream)
{
    (void)arg;
    connections_adopt(all, stream, "PLAINTEXT");
}
static void boot_server(struct env *env, void *arg)
{
    struct connections_options o = {
        .env = env,
        .dispatch = handle,
        .has_handler = has_handler,
        .request_max_bytes = 100 << 20,
        .idle_max_ms = 600000,
        .connections_max = 1000,
        .memory_max = MEMORY_MAX,
        .is_short = ask_short,
    };
    struct env_listener *l;
    (void)arg;
    all = connections_new_with(&o);
    ck_assert_int_eq(env_listen(env, "server:9092", accepted, NULL, &l),
                     ERR_OK);
}

/* ---- clients ------------------------------------------------------------- */
struct client {
    struct env *env;
    struct env_stream *stream;
    struct env_timer timer;
    void (*act)(struct client *c);
    bool deaf, gone;
    int32_t n_sent;
    uint64_t asked_ms, longest_ms;
    size_t n_read, asked_bytes; /* of the answer */
    uint8_t piece[4096];
};
static struct client bad[BAD], good;

struct sent {
    struct env_write write;
    uint8_t bytes[];
};
static void sent(struct env_write *w, enum err status)
{
    (void)status;
    mem_free(w->arg);
}
static void send_bytes(struct client *c, const void *data, size_t size)
{
    struct sent *s = mem_alloc(sizeof *s + size);
    memcpy(s->bytes, data, size);
    s->write = (struct env_write){.cb = sent, .arg = s};
    struct iovec iov = {s->bytes, size};
    env_stream_write(c->stream, &s->write, &iov, 1);
}
static void send_request(struct client *c, int16_t key)
{
    const struct codec_api *api = codec_api_find(key);
    uint8_t bytes[256], body[128];
    struct wire_writer w;
    struct request_header h = {key, 2, c->n_sent++, WIRE_STR("client")};
    ck_assert_uint_le(api->request->body->size, sizeof body);
    codec_init(api->request, body);
    wire_writer_init(&w, 0);
    wire_write_i32(&w, 0);
    request_header_encode(&w, &h, codec_request_header(api, 2));
    codec_encode(api->request, &w, body, 2);
    wire_patch_i32(&w, 0, (int32_t)w.size - 4);
    ck_assert_uint_le(w.size, sizeof bytes);
    wire_writer_copy(&w, bytes);
    send_bytes(c, bytes, w.size);
    wire_writer_free(&w);
}

/* Announces 90 MB, sends 30 KB of it, then a byte now and then. */
static void act_half(struct client *c)
{
    static uint8_t bytes[30000] = {5, 0xa0, 0, 0};
    send_bytes(c, bytes, c->n_sent++ == 0 ? sizeof bytes : 1);
    env_timer_start(&c->timer, 500);
}
/* Asks for much and does not read. */
static void act_deaf(struct client *c)
{
    for (int i = 0; i < 100; i++) {
        send_request(c, API_LIST_GROUPS);
    }
}
/* The same with no more than it may ask for. */
static void act_few(struct client *c)
{
    for (int i = 0; i < 10; i++) {
        send_request(c, API_LIST_GROUPS);
    }
}
/* Asks for little, one after the other. */
static void act_good(struct client *c)
{
    c->asked_ms = env_now_ms(c->env);
    send_request(c, API_HEARTBEAT);
}
/* Asks for much, and takes it. */
static void act_greedy(struct client *c)
{
    c->asked_ms = env_now_ms(c->env);
    send_request(c, API_LIST_GROUPS);
}

static void on_timer(struct env_timer *timer)
{
    struct client *c = timer->arg;
    if (!c->gone) {
        c->act(c);
    }
}
static void connected(struct env_stream *s, enum err status)
{
    struct client *c = env_stream_arg(s);
    ck_assert_int_eq(status, ERR_OK);
    env_timer_start(&c->timer, 0);
}
static struct iovec on_alloc(struct env_stream *s)
{
    struct client *c = env_stream_arg(s);
    return (struct iovec){c->piece, c->deaf ? 0 : sizeof c->piece};
}
static void on_read(struct env_stream *s, size_t size, enum err status)
{
    struct client *c = env_stream_arg(s);
    if (status != ERR_OK) {
        env_stream_close(s);
        return;
    }
    c->n_read += size;
    if (c == &good && c->n_read >= c->asked_bytes) {
        uint64_t ms = env_now_ms(c->env) - c->asked_ms;
        c->n_read = 0;
        c->longest_ms = ms > c->longest_ms ? ms : c->longest_ms;
        env_timer_start(&c->timer, 20);
    }
}
static void on_closed(struct env_stream *s)
{
    struct client *c = env_stream_arg(s);
    c->gone = true;
    env_timer_stop(&c->timer);
}
static const struct env_stream_ops client_ops = {connected, on_alloc, on_read,
                                                 on_closed};

static void open_client(struct env *env, struct client *c,
                        void (*act)(struct client *c))
{
    memset(c, 0, sizeof *c);
    c->env = env;
    c->act = act;
    c->deaf = act == act_deaf || act == act_few;
    c->asked_bytes = act == act_greedy ? GROUPS * GROUP_NAME : 1;
    env_timer_init(env, &c->timer, on_timer, c);
    c->stream = env_stream_connect(env, "server:9092", &client_ops, c);
}
static void boot_good(struct env *env, void *arg)
{
    (void)arg;
    open_client(env, &good, act_good);
}
static void boot_halves(struct env *env, void *arg)
{
    boot_good(env, arg);
    for (int i = 0; i < BAD; i++) {
        open_client(env, &bad[i], act_half);
    }
}
static void boot_deaf(struct env *env, void *arg)
{
    boot_good(env, arg);
    for (int i = 0; i < BAD; i++) {
        open_client(env, &bad[i], act_deaf);
    }
}
static void on_come(struct env_timer *timer)
{
    struct client *c = timer->arg;
    for (int i = 0; i < BAD; i++) {
        open_client(c->env, &bad[i], act_deaf);
    }
}
static void boot_greedy_then_deaf(struct env *env, void *arg)
{
    static struct env_timer come;
    (void)arg;
    open_client(env, &good, act_greedy);
    env_timer_init(env, &come, on_come, &good);
    env_timer_start(&come, 5000);
}
static void boot_few(struct env *env, void *arg)
{
    boot_good(env, arg);
    open_client(env, &bad[0], act_few);
}

static void start_world(sim_boot boot)
{
    is_short = false;
    sim = sim_new(3);
    server = sim_node_add(sim, "server", 1);
    host = sim_node_add(sim, "host", 1);
    sim_node_start(server, boot_server, NULL);
    sim_run_for(sim, SIM_MS);
    sim_node_start(host, boot, NULL);
}

static unsigned n_gone(void)
{
    unsigned n = 0;
    for (int i = 0; i < BAD; i++) {
        n += bad[i].gone;
    }
    return n;
}

/* Runs, and gives the most memory there was. */
static size_t run_ms(int ms)
{
    size_t most = 0;
    for (int i = 0; i < ms; i++) {
        sim_run_for(sim, SIM_MS);
        size_t now = connections_memory(all);
        most = now > most ? now : most;
    }
    return most;
}

START_TEST(test_memory__halves_stop_nobody)
{
    start_world(boot_halves);
    /* one frame may go on beyond the limit, by fourfold steps */
    ck_assert_uint_le(run_ms(20000), MEMORY_MAX + (256 << 10));
    ck_assert(!good.gone);
    ck_assert_uint_lt(good.longest_ms, 1000);
    ck_assert_int_gt(good.n_sent, 300);
    /* those that brought too little lost their memory */
    ck_assert_uint_gt(n_gone(), BAD / 2);
    sim_free(sim);
}
END_TEST

START_TEST(test_memory__answers_that_nobody_takes)
{
    start_world(boot_deaf);
    /* one answer beyond the bound */
    ck_assert_uint_le(run_ms(60000), MEMORY_MAX + (128 << 10));
    ck_assert(!good.gone);
    ck_assert_int_gt(good.n_sent, 300);
    ck_assert_uint_lt(good.longest_ms, 100);
    /* (those who wait for the others' memory stay) */
    ck_assert_uint_lt(connections_count(all), BAD);
    sim_free(sim);
}
END_TEST

START_TEST(test_memory__long_answers_for_who_takes_them)
{
    start_world(boot_greedy_then_deaf);
    ck_assert_uint_le(run_ms(60000), MEMORY_MAX + (128 << 10));
    ck_assert(!good.gone);
    ck_assert_int_gt(good.n_sent, 300);
    ck_assert_uint_lt(good.longest_ms, 1000);
    sim_free(sim);
}
END_TEST

/* What an answer was made of is let go while the answer waits. */
START_TEST(test_memory__answers_hold_their_own_bytes)
{
    start_world(boot_few);
    size_t most = run_ms(1000);
    ck_assert_uint_gt(most, 256 << 10);
    ck_assert_uint_lt(connections_memory(all),
                      10 * (GROUPS * GROUP_NAME * 4 / 3 + 2000));
    sim_free(sim);
}
END_TEST

/* Memory of fetched data is short: who does not take an answer must go, and
 * only then. */
START_TEST(test_memory__wanted_elsewhere)
{
    start_world(boot_few);
    run_ms(15000);
    ck_assert_uint_eq(connections_count(all), 2);
    is_short = true;
    run_ms(5000);
    ck_assert_uint_eq(connections_count(all), 1);
    ck_assert(!good.gone);
    sim_free(sim);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("connection_memory");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, test_memory__halves_stop_nobody);
    tcase_add_test(tc, test_memory__answers_that_nobody_takes);
    tcase_add_test(tc, test_memory__long_answers_for_who_takes_them);
    tcase_add_test(tc, test_memory__answers_hold_their_own_bytes);
    tcase_add_test(tc, test_memory__wanted_elsewhere);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
