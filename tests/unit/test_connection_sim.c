/* Client connections in the simulated world: bytes split at random, resets,
 * slow answers, many seeds. Answers must come in order and whole; at the end
 * nothing is left. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/codec.h"
#include "net/connection.h"
#include "schema/apis.h"
#include "schema/header.h"
#include "schema/heartbeat.h"
#include "schema/produce.h"
#include "tests/sim/sim_env.h"

#define CLIENTS 12
#define REQUESTS 60
#define MEMORY_MAX 300000
#define RECORDS_MAX 120000

static struct sim *sim;
static struct sim_node *server, *host;
static struct connections *all;
static unsigned n_handled, n_released, n_alive;

/* ---- the server --------------------------------------------------------- */
struct work {
    struct request *rq;
    struct env_timer timer;
};

static uint8_t pattern(int32_t correlation, int32_t i)
{
    return (uint8_t)(correlation * 31 + i);
}

static void check_records(const struct request *rq,
                          const struct wire_records *r)
{
    for (int32_t i = 0; i < r->n; i++) {
        if (r->p[i] != pattern(rq->correlation_id, i)) {
            sim_fail(sim, "record byte %d of request %d", i,
                     rq->correlation_id);
        }
    }
}

static void released(struct request *rq)
{
    (void)rq;
    n_released++;
}

static void answer(struct env_timer *timer)
{
    struct work *w = timer->arg;
    struct request *rq = w->rq;
    mem_free(w);
    if (rq->api_key == API_HEARTBEAT) {
        struct heartbeat_response a;
        heartbeat_response_init(&a);
        request_respond(rq, &heartbeat_response_message, &a);
        return;
    }
    struct produce_request q;
    if (!request_decode(rq, &produce_request_message, &q)) {
        return;
    }
    check_records(rq, &q.topic_data[0].partition_data[0].records);
    if (q.acks == 0) {
        request_no_response(rq);
        return;
    }
    struct produce_response a;
    produce_response_init(&a);
    request_respond(rq, &produce_response_message, &a);
}

static void handle(struct request *rq)
{
    struct env *env = sim_env(server, 0);
    n_handled++;
    rq->release = released;
    struct work *w = mem_alloc(sizeof *w);
    w->rq = rq;
    env_timer_init(env, &w->timer, answer, w);
    env_timer_start(&w->timer, prng_below(sim_prng(sim), 20));
}

static bool has_handler(int16_t key)
{
    return key == API_PRODUCE || key == API_HEARTBEAT;
}

static void accepted(void *arg, struct env_stream *stream)
{
    (void)arg;
    connections_adopt(all, stream, "PLAINTEXT");
}

static void boot_server(struct env *env, void *arg)
{
    (void)arg;
    struct connections_options o = {
        .env = env,
        .dispatch = handle,
        .has_handler = has_handler,
        .request_max_bytes = 1 << 20,
        .idle_max_ms = 5000,
        .connections_max = 100,
        .memory_max = MEMORY_MAX,
    };
    all = connections_new_with(&o);
    struct env_listener *l;
    if (env_listen(env, "0.0.0.0:9092", accepted, NULL, &l) != ERR_OK) {
        sim_fail(sim, "listen");
    }
}

/* ---- clients ------------------------------------------------------------ */
struct client {
    struct env *env;
    struct env_stream *stream;
    struct env_timer timer;
    int32_t n_sent;
    int32_t expected[REQUESTS]; /* those that are answered */
    int n_expected, n_answered;
    struct buffer in;
    uint8_t piece[4096];
    bool gone;
};
static struct client clients[CLIENTS];

struct sent {
    struct env_write write;
    uint8_t bytes[];
};

static void sent(struct env_write *w, enum err status)
{
    (void)status;
    mem_free(w->arg);
}

static void send_request(struct client *c, int16_t key, const void *body)
{
    const struct codec_api *api = codec_api_find(key);
    int version = (int)prng_between(sim_prng(sim), 3, 4);
    int32_t correlation = c->n_sent++;
    struct wire_writer w;
    wire_writer_init(&w, 0);
    wire_write_i32(&w, 0);
    struct request_header h = {key, (int16_t)version, correlation,
                               WIRE_STR("client")};
    request_header_encode(&w, &h, codec_request_header(api, version));
    codec_encode(api->request, &w, body, version);
    wire_patch_i32(&w, 0, (int32_t)w.size - 4);
    struct sent *s = mem_alloc(sizeof *s + w.size);
    wire_writer_copy(&w, s->bytes);
    s->write = (struct env_write){.cb = sent, .arg = s};
    struct iovec iov = {s->bytes, w.size};
    env_stream_write(c->stream, &s->write, &iov, 1);
    wire_writer_free(&w);
}

static void send_produce(struct client *c)
{
    struct prng *rng = sim_prng(sim);
    int32_t n =
        (int32_t)prng_below(rng, prng_chance(rng, 1, 6) ? RECORDS_MAX : 500);
    uint8_t *records = mem_alloc((size_t)n + 1);
    for (int32_t i = 0; i < n; i++) {
        records[i] = pattern(c->n_sent, i);
    }
    struct produce_request_partition p = {.records = {.p = records, .n = n}};
    struct produce_request_topic t = {
        .name = WIRE_STR("t"), .partition_data = &p, .n_partition_data = 1};
    struct produce_request q;
    produce_request_init(&q);
    q.acks = prng_chance(rng, 1, 5) ? 0 : -1;
    q.topic_data = &t;
    q.n_topic_data = 1;
    if (q.acks != 0) {
        c->expected[c->n_expected++] = c->n_sent;
    }
    send_request(c, API_PRODUCE, &q);
    mem_free(records);
}

static void send_some(struct env_timer *timer)
{
    struct client *c = timer->arg;
    struct prng *rng = sim_prng(sim);
    if (c->gone) {
        return;
    }
    uint64_t n = prng_between(rng, 1, 8);
    for (uint64_t i = 0; i < n && c->n_sent < REQUESTS; i++) {
        if (prng_chance(rng, 1, 2)) {
            struct heartbeat_request q;
            heartbeat_request_init(&q);
            c->expected[c->n_expected++] = c->n_sent;
            send_request(c, API_HEARTBEAT, &q);
        } else {
            send_produce(c);
        }
    }
    if (c->n_sent < REQUESTS) {
        env_timer_start(timer, prng_below(rng, 30));
    }
}

static void client_connected(struct env_stream *s, enum err status)
{
    struct client *c = env_stream_arg(s);
    if (status == ERR_OK) {
        env_timer_start(&c->timer, 0);
    }
}

static struct iovec client_alloc(struct env_stream *s)
{
    struct client *c = env_stream_arg(s);
    return (struct iovec){c->piece, sizeof c->piece};
}

/* Whole answers at the front of what arrived. */
static void take_answers(struct client *c)
{
    for (;;) {
        struct wire_reader r;
        wire_reader_init(&r, c->in.data, c->in.size);
        int32_t size = wire_read_i32(&r);
        int32_t correlation = wire_read_i32(&r);
        if (r.err != ERR_OK || c->in.size - 4 < (size_t)size) {
            return;
        }
        if (c->n_answered >= c->n_expected ||
            correlation != c->expected[c->n_answered]) {
            sim_fail(sim, "answer %d is not the one expected", correlation);
        }
        c->n_answered++;
        buffer_consume(&c->in, (size_t)size + 4);
    }
}

static void client_read(struct env_stream *s, size_t size, enum err status)
{
    struct client *c = env_stream_arg(s);
    if (status != ERR_OK) {
        c->gone = true;
        env_stream_close(s);
        return;
    }
    buffer_append(&c->in, c->piece, size);
    take_answers(c);
}

static void client_closed(struct env_stream *s)
{
    ((struct client *)env_stream_arg(s))->gone = true;
    n_alive--;
}

static const struct env_stream_ops client_ops = {client_connected, client_alloc,
                                                 client_read, client_closed};

static void boot_clients(struct env *env, void *arg)
{
    (void)arg;
    for (int i = 0; i < CLIENTS; i++) {
        struct client *c = &clients[i];
        memset(c, 0, sizeof *c);
        c->env = env;
        env_timer_init(env, &c->timer, send_some, c);
        c->stream = env_stream_connect(env, "server:9092", &client_ops, c);
        n_alive++;
    }
}

static void close_one(struct env *env, void *arg)
{
    (void)env;
    struct client *c = arg;
    if (!c->gone) {
        c->gone = true;
        env_stream_close(c->stream);
    }
}

static void start_world(uint64_t seed)
{
    n_handled = n_released = n_alive = 0;
    sim = sim_new(seed);
    server = sim_node_add(sim, "server", 1);
    host = sim_node_add(sim, "host", 1);
    sim_node_start(server, boot_server, NULL);
    sim_run_for(sim, SIM_MS);
    sim_node_start(host, boot_clients, NULL);
}

static void end_world(void)
{
    /* idle connections are closed after 5 s */
    sim_run_for(sim, 20 * SIM_S);
    ck_assert_uint_eq(connections_count(all), 0);
    ck_assert_uint_eq(connections_memory(all), 0);
    ck_assert_uint_eq(n_released, n_handled);
    ck_assert_uint_eq(n_alive, 0);
    sim_free(sim);
}

START_TEST(test_world__everything_is_answered_in_order)
{
    start_world((uint64_t)_i + 1);
    for (int i = 0; i < 4000; i++) {
        sim_run_for(sim, SIM_MS);
        /* one frame may be read beyond the limit, and one piece of bytes */
        ck_assert_uint_le(connections_memory(all),
                          MEMORY_MAX + 4 * RECORDS_MAX + LIMIT_READ_PIECE);
    }
    for (int i = 0; i < CLIENTS; i++) {
        ck_assert_int_eq(clients[i].n_answered, clients[i].n_expected);
    }
    ck_assert_uint_eq(n_handled, CLIENTS * REQUESTS);
    end_world();
}
END_TEST

START_TEST(test_world__resets_leave_nothing_behind)
{
    start_world((uint64_t)_i + 1000);
    for (int i = 0; i < 300; i++) {
        sim_run_for(sim, SIM_MS);
        if (prng_chance(sim_prng(sim), 1, 30)) {
            struct client *c = &clients[prng_below(sim_prng(sim), CLIENTS)];
            sim_node_call(host, 0, close_one, c);
        }
        if (i == 150) {
            sim_net_reset(sim, server, host);
        }
    }
    end_world();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("connection_sim");
    TCase *tc = tcase_create("connection_sim");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, test_world__everything_is_answered_in_order, 0, 40);
    tcase_add_loop_test(tc, test_world__resets_leave_nothing_behind, 0, 40);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
