/* Client connections, over real sockets on loopback: order, bounds, ends. The
 * handlers here keep requests until the test answers them. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/env_uv.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/codec.h"
#include "net/connection.h"
#include "net/request.h"
#include "schema/api_versions.h"
#include "schema/apis.h"
#include "schema/fetch.h"
#include "schema/header.h"
#include "schema/heartbeat.h"
#include "schema/produce.h"

#define REQUEST_MAX (1 << 20)

static struct env *env;
static struct connections *all;
static struct connections_options options;
static struct env_listener *listening;
static struct env_timer poll_timer;

/* ---- handlers ----------------------------------------------------------- */
#define KEPT_MAX 1024
static struct request *kept[KEPT_MAX];
static unsigned n_kept, n_begun, n_released, n_abandoned;
static char client_id[32], client_host[32];
static bool answer_at_once;
static char last_line[LIMIT_LOG_LINE];

static void on_release(struct request *rq)
{
    (void)rq;
    n_released++;
}

static void on_abandoned(struct request *rq)
{
    (void)rq;
    n_abandoned++;
}

static void heartbeat(struct request *rq, int error)
{
    struct heartbeat_response a;
    heartbeat_response_init(&a);
    a.error_code = (int16_t)error;
    request_respond(rq, &heartbeat_response_message, &a);
}

static void handle(struct request *rq)
{
    n_begun++;
    snprintf(client_id, sizeof client_id, "%.*s", (int)rq->client_id.n,
             rq->client_id.p);
    snprintf(client_host, sizeof client_host, "%s", rq->client_host);
    rq->release = on_release;
    rq->abandoned = on_abandoned;
    if (answer_at_once && rq->api_key == API_HEARTBEAT) {
        heartbeat(rq, 0);
        return;
    }
    ck_assert_uint_lt(n_kept, KEPT_MAX);
    kept[n_kept++] = rq;
}

static bool has_handler(int16_t key)
{
    return key == API_PRODUCE || key == API_FETCH || key == API_HEARTBEAT ||
           key == API_API_VERSIONS;
}

static bool costly;

static bool is_costly(const struct request *rq)
{
    return costly && rq->api_key == API_HEARTBEAT;
}

static void keep_line(void *arg, enum log_level level, const char *component,
                      const char *line)
{
    (void)arg;
    (void)level;
    (void)component;
    snprintf(last_line, sizeof last_line, "%s", line);
}

/* ---- a client ----------------------------------------------------------- */
struct client {
    struct env_stream *stream;
    struct env_write writes[64];
    unsigned n_writes;
    struct buffer in;
    size_t taken; /* bytes of `in` already looked at */
    bool connected, closed, deaf;
    uint8_t piece[65536];
};

static void client_connected(struct env_stream *s, enum err status)
{
    ((struct client *)env_stream_arg(s))->connected = status == ERR_OK;
}

static struct iovec client_alloc(struct env_stream *s)
{
    struct client *c = env_stream_arg(s);
    return (struct iovec){c->piece, c->deaf ? 0 : sizeof c->piece};
}

static void client_read(struct env_stream *s, size_t size, enum err status)
{
    struct client *c = env_stream_arg(s);
    if (status != ERR_OK) {
        env_stream_close(s);
        return;
    }
    buffer_append(&c->in, c->piece, size);
}

static void client_closed(struct env_stream *s)
{
    ((struct client *)env_stream_arg(s))->closed = true;
}

static const struct env_stream_ops client_ops = {client_connected, client_alloc,
                                                 client_read, client_closed};

static void client_open(struct client *c)
{
    memset(c, 0, sizeof *c);
    c->stream = env_stream_connect(env, env_listener_address(listening),
                                   &client_ops, c);
}

static void written(struct env_write *w, enum err status)
{
    (void)status;
    mem_free(w->arg);
}

static void client_send(struct client *c, const void *data, size_t size)
{
    struct env_write *w = &c->writes[c->n_writes++ % 64];
    uint8_t *copy = mem_alloc(size);
    memcpy(copy, data, size);
    *w = (struct env_write){.cb = written, .arg = copy};
    struct iovec iov = {copy, size};
    env_stream_write(c->stream, w, &iov, 1);
}

/* Frame of a request; mem_free is the caller's. */
static uint8_t *frame_of(int16_t key, int16_t version, int32_t correlation,
                         const void *body, size_t *size)
{
    const struct codec_api *api = codec_api_find(key);
    struct wire_writer w;
    wire_writer_init(&w, 0);
    wire_write_i32(&w, 0);
    struct request_header h = {key, version, correlation, WIRE_STR("me")};
    request_header_encode(&w, &h, codec_request_header(api, version));
    codec_encode(api->request, &w, body, version);
    wire_patch_i32(&w, 0, (int32_t)w.size - 4);
    uint8_t *flat = mem_alloc(w.size);
    wire_writer_copy(&w, flat);
    *size = w.size;
    wire_writer_free(&w);
    return flat;
}

static void send_heartbeat(struct client *c, int32_t correlation)
{
    struct heartbeat_request q;
    heartbeat_request_init(&q);
    size_t size;
    uint8_t *flat = frame_of(API_HEARTBEAT, 4, correlation, &q, &size);
    client_send(c, flat, size);
    mem_free(flat);
}

static void send_fetch(struct client *c, int32_t correlation)
{
    struct fetch_request q;
    fetch_request_init(&q);
    size_t size;
    uint8_t *flat = frame_of(API_FETCH, 12, correlation, &q, &size);
    client_send(c, flat, size);
    mem_free(flat);
}

/* A produce request with `bytes` of records. */
static uint8_t *produce_frame(int32_t correlation, size_t bytes, size_t *size)
{
    uint8_t *records = mem_alloc(bytes);
    memset(records, 'r', bytes);
    struct produce_request_partition p = {
        .records = {.p = records, .n = (int32_t)bytes}};
    struct produce_request_topic t = {
        .name = WIRE_STR("t"), .partition_data = &p, .n_partition_data = 1};
    struct produce_request q;
    produce_request_init(&q);
    q.topic_data = &t;
    q.n_topic_data = 1;
    uint8_t *flat = frame_of(API_PRODUCE, 7, correlation, &q, size);
    mem_free(records);
    return flat;
}

/* Correlation id of the next whole answer, -1: there is none (yet). */
static int32_t next_answer(struct client *c, const uint8_t **body, size_t *size)
{
    struct wire_reader r;
    wire_reader_init(&r, c->in.data + c->taken, c->in.size - c->taken);
    int32_t n = wire_read_i32(&r);
    int32_t correlation = wire_read_i32(&r);
    if (r.err != ERR_OK || wire_left(&r) < (size_t)n - 4) {
        return -1;
    }
    *body = r.p;
    *size = (size_t)n - 4;
    c->taken += (size_t)n + 4;
    return correlation;
}

static void expect_answer(struct client *c, int32_t correlation)
{
    const uint8_t *body;
    size_t size;
    ck_assert_int_eq(next_answer(c, &body, &size), correlation);
}

/* ---- the loop ----------------------------------------------------------- */
static bool (*until)(void *arg);
static void *until_arg;
static uint64_t until_ms;
static bool until_met;

static void poll_condition(struct env_timer *timer)
{
    until_met = until != NULL && until(until_arg);
    if (until_met || env_now_ms(env) >= until_ms) {
        env_uv_stop(env);
    } else {
        env_timer_start(timer, 1);
    }
}

/* Runs until the condition holds, 5 s at most. */
static void run_until(bool (*condition)(void *arg), void *arg)
{
    until = condition;
    until_arg = arg;
    until_ms = env_now_ms(env) + 5000;
    env_timer_start(&poll_timer, 0);
    env_uv_run(env);
    ck_assert_msg(until_met, "waited in vain");
}

static void run_ms(uint64_t ms)
{
    until = NULL;
    until_ms = env_now_ms(env) + ms;
    env_timer_start(&poll_timer, 0);
    env_uv_run(env);
}

static bool is_true(void *arg)
{
    return *(bool *)arg;
}

struct at_least {
    const unsigned *counter;
    unsigned n;
};

static bool has_at_least(void *arg)
{
    const struct at_least *a = arg;
    return *a->counter >= a->n;
}

static void wait_kept(unsigned n)
{
    run_until(has_at_least, &(struct at_least){&n_kept, n});
}

static bool has_bytes(void *arg)
{
    struct client *c = arg;
    return c->in.size > c->taken;
}

static bool has_no_connection(void *arg)
{
    (void)arg;
    return connections_count(all) == 0;
}

static void accepted(void *arg, struct env_stream *stream)
{
    (void)arg;
    connections_adopt(all, stream, "PLAINTEXT");
}

static void start_with(uint32_t idle_ms, size_t memory)
{
    options = (struct connections_options){
        .env = env,
        .dispatch = handle,
        .has_handler = has_handler,
        .is_costly = is_costly,
        .request_max_bytes = REQUEST_MAX,
        .idle_max_ms = idle_ms,
        .connections_max = 8,
        .memory_max = memory,
    };
    all = connections_new_with(&options);
}

static struct client one, two;

static void setup(void)
{
    n_kept = n_begun = n_released = n_abandoned = 0;
    answer_at_once = false;
    last_line[0] = '\0';
    log_set_sink(keep_line, NULL);
    env = env_uv_new(NULL);
    env_timer_init(env, &poll_timer, poll_condition, NULL);
    ck_assert_int_eq(env_listen(env, "127.0.0.1:0", accepted, NULL, &listening),
                     ERR_OK);
    start_with(0, 16 << 20);
    client_open(&one);
    run_until(is_true, &one.connected);
}

static void set_true(void *arg)
{
    *(bool *)arg = true;
}

static void teardown(void)
{
    for (unsigned i = 0; i < n_kept; i++) {
        if (kept[i] != NULL) {
            request_no_response(kept[i]);
        }
    }
    bool closed = false;
    connections_close(all, 100, set_true, &closed);
    run_until(is_true, &closed);
    ck_assert_uint_eq(connections_memory(all), 0);
    ck_assert_uint_eq(n_released, n_begun);
    connections_free(all);
    run_ms(5);
    buffer_free(&one.in);
    buffer_free(&two.in);
    env_uv_free(env);
    log_set_sink(NULL, NULL);
}

static void restart_with(uint32_t idle_ms, size_t memory)
{
    env_stream_close(one.stream);
    run_until(has_no_connection, NULL);
    bool closed = false;
    connections_close(all, 0, set_true, &closed);
    run_until(is_true, &closed);
    connections_free(all);
    start_with(idle_ms, memory);
    buffer_free(&one.in);
    client_open(&one);
    run_until(is_true, &one.connected);
}

static void answer(unsigned i)
{
    struct request *rq = kept[i];
    kept[i] = NULL;
    if (rq->api_key == API_HEARTBEAT) {
        heartbeat(rq, (int)i);
    } else {
        request_no_response(rq);
    }
}

/* ---- tests -------------------------------------------------------------- */
START_TEST(test_answers__in_order_of_requests)
{
    send_heartbeat(&one, 10);
    send_heartbeat(&one, 11);
    send_heartbeat(&one, 12);
    wait_kept(3);
    ck_assert_str_eq(client_id, "me");
    ck_assert_str_eq(client_host, "127.0.0.1");
    answer(2);
    answer(1);
    run_ms(20);
    ck_assert_uint_eq(one.in.size, 0);
    answer(0);
    run_until(has_bytes, &one);
    run_ms(5);
    expect_answer(&one, 10);
    expect_answer(&one, 11);
    expect_answer(&one, 12);
    ck_assert_uint_eq(n_released, 3);
}
END_TEST

START_TEST(test_frames__byte_by_byte)
{
    struct heartbeat_request q;
    heartbeat_request_init(&q);
    answer_at_once = true;
    size_t size;
    uint8_t *flat = frame_of(API_HEARTBEAT, 4, 7, &q, &size);
    for (size_t i = 0; i < size; i++) {
        client_send(&one, flat + i, 1);
        run_ms(2);
    }
    mem_free(flat);
    run_until(has_bytes, &one);
    expect_answer(&one, 7);
}
END_TEST

START_TEST(test_frames__long_one_arrives_whole_between_others)
{
    answer_at_once = true;
    size_t size;
    uint8_t *flat = produce_frame(2, 700000, &size);
    send_heartbeat(&one, 1);
    client_send(&one, flat, size);
    send_heartbeat(&one, 3);
    run_until(has_at_least, &(struct at_least){&n_begun, 3});
    struct request *rq = kept[0];
    ck_assert_int_eq(rq->api_key, API_PRODUCE);
    struct produce_request q;
    ck_assert(request_decode(rq, &produce_request_message, &q));
    const struct wire_records *r = &q.topic_data[0].partition_data[0].records;
    ck_assert_int_eq(r->n, 700000);
    for (int32_t i = 0; i < r->n; i++) {
        ck_assert_int_eq(r->p[i], 'r');
    }
    kept[0] = NULL;
    request_no_response(rq); /* acks=0: not a byte */
    mem_free(flat);
    run_until(has_bytes, &one);
    run_ms(5);
    expect_answer(&one, 1);
    expect_answer(&one, 3);
    ck_assert_uint_eq(one.taken, one.in.size);
}
END_TEST

static void expect_closed_with(struct client *c, const char *words)
{
    run_until(is_true, &c->closed);
    ck_assert_msg(strstr(last_line, words) != NULL, "%s", last_line);
    run_until(has_no_connection, NULL);
}

START_TEST(test_ends__size_that_cannot_be)
{
    client_send(&one, "\xff\xff\xff\xff", 4);
    expect_closed_with(&one, "no request");
}
END_TEST

START_TEST(test_ends__larger_than_allowed)
{
    client_send(&one, "\x00\x10\x00\x01", 4);
    expect_closed_with(&one, "socket.request.max.bytes");
}
END_TEST

START_TEST(test_ends__another_protocol)
{
    client_send(&one, "GET / HTTP/1.1\r\n", 16);
    expect_closed_with(&one, "HTTP");
    client_open(&two);
    run_until(is_true, &two.connected);
    client_send(&two, "\x16\x03\x01\x02\x00\x01", 6);
    expect_closed_with(&two, "TLS");
}
END_TEST

START_TEST(test_ends__malformed_header_after_an_answer)
{
    send_heartbeat(&one, 1);
    /* client_id longer than the frame */
    client_send(&one, "\0\0\0\x0a\0\x0c\0\x04\0\0\0\x02\x7f\xff", 14);
    wait_kept(1);
    ck_assert(!one.closed);
    answer(0);
    expect_closed_with(&one, "malformed");
    expect_answer(&one, 1);
}
END_TEST

START_TEST(test_ends__malformed_body)
{
    client_send(&one, "\0\0\0\x0a\0\x0c\0\0\0\0\0\x02\xff\xff", 14);
    wait_kept(1);
    struct heartbeat_request q;
    struct request *rq = kept[0];
    kept[0] = NULL;
    ck_assert(!request_decode(rq, &heartbeat_request_message, &q));
    expect_closed_with(&one, "malformed");
}
END_TEST

START_TEST(test_ends__unknown_api_and_version)
{
    client_send(&one, "\0\0\0\x08\0\x04\0\0\0\0\0\x02", 12);
    expect_closed_with(&one, "not offered");
    client_open(&two);
    run_until(is_true, &two.connected);
    client_send(&two, "\0\0\0\x08\0\x00\0\x02\0\0\0\x02", 12); /* Produce v2 */
    expect_closed_with(&two, "not served");
    ck_assert_ptr_nonnull(strstr(last_line, "api_version=2"));
    ck_assert_uint_eq(n_begun, 0);
}
END_TEST

START_TEST(test_api_versions__unknown_version_is_answered_in_v0)
{
    client_send(&one, "\0\0\0\x08\0\x12\0\x63\0\0\0\x09", 12);
    run_until(has_bytes, &one);
    static const char want[] =
        "\0\0\0\x10\0\0\0\x09\0\x23\0\0\0\x01\0\x12\0\0\0\x05";
    ck_assert_uint_eq(one.in.size, 20);
    ck_assert_mem_eq(one.in.data, want, 20);
    ck_assert(!one.closed);
}
END_TEST

START_TEST(test_bounds__requests_in_flight)
{
    for (int i = 0; i < 1000; i++) {
        send_heartbeat(&one, i);
        if (i % 20 == 19) {
            run_ms(1);
        }
    }
    run_ms(20);
    ck_assert_uint_eq(n_begun, LIMIT_REQUESTS_IN_FLIGHT);
    /* what cannot be begun is not even read, but for the last piece */
    size_t each = connections_memory(all) / LIMIT_REQUESTS_IN_FLIGHT;
    ck_assert_uint_lt(each, 1000);
    for (unsigned i = 0; i < 1000; i++) {
        wait_kept(i + 1);
        answer(i);
    }
    run_ms(20);
    for (int i = 0; i < 1000; i++) {
        expect_answer(&one, i);
    }
}
END_TEST

START_TEST(test_bounds__fetch_waits_until_all_before_is_answered)
{
    send_heartbeat(&one, 1);
    send_fetch(&one, 2);
    send_fetch(&one, 3);
    send_heartbeat(&one, 4);
    run_ms(20);
    ck_assert_uint_eq(n_begun, 1);
    answer(0);
    wait_kept(2);
    run_ms(10);
    ck_assert_uint_eq(n_begun, 2);
    struct fetch_response f;
    fetch_response_init(&f);
    struct request *rq = kept[1];
    kept[1] = NULL;
    request_respond(rq, &fetch_response_message, &f);
    wait_kept(4);
    ck_assert_int_eq(kept[2]->api_key, API_FETCH);
}
END_TEST

/* A fetch answered with `n` pieces of other memory. */
static void answer_fetch(struct request *rq, struct iovec *iov, int n,
                         size_t piece)
{
    static uint8_t memory[65536];
    for (int i = 0; i < n; i++) {
        memory[0] = 'p';
        iov[i] = (struct iovec){memory, piece};
    }
    struct fetch_response_partition *p = arena_zalloc(&rq->arena, sizeof *p);
    p->records = (struct wire_records){
        .n = (int32_t)(piece * (size_t)n), .n_iov = n, .iov = iov};
    struct fetch_response_topic *t = arena_zalloc(&rq->arena, sizeof *t);
    t->partitions = p;
    t->n_partitions = 1;
    struct fetch_response f;
    fetch_response_init(&f);
    f.responses = t;
    f.n_responses = 1;
    request_respond(rq, &fetch_response_message, &f);
}

static bool has_three_megabytes(void *arg)
{
    return ((struct client *)arg)->in.size > 3000 * 1000;
}

START_TEST(test_writes__more_pieces_than_one_write_takes)
{
    static struct iovec iov[3000];
    send_fetch(&one, 5);
    wait_kept(1);
    struct request *rq = kept[0];
    kept[0] = NULL;
    answer_fetch(rq, iov, 3000, 1000);
    send_heartbeat(&one, 6);
    wait_kept(2);
    answer(1);
    run_until(has_three_megabytes, &one);
    run_ms(10);
    const uint8_t *body;
    size_t size;
    ck_assert_int_eq(next_answer(&one, &body, &size), 5);
    ck_assert_uint_gt(size, 3000000);
    expect_answer(&one, 6);
    ck_assert_uint_eq(n_released, 2);
}
END_TEST

START_TEST(test_bounds__reader_that_does_not_read)
{
    static struct iovec iov[400];
    one.deaf = true;
    send_fetch(&one, 1);
    wait_kept(1);
    struct request *rq = kept[0];
    kept[0] = NULL;
    answer_fetch(rq, iov, 400, 65536); /* more than the kernel takes */
    run_ms(10);
    for (int i = 2; i < 50; i++) {
        send_heartbeat(&one, i);
    }
    run_ms(30);
    ck_assert_uint_eq(n_begun, 1); /* nothing is begun meanwhile */
    one.deaf = false;
    env_stream_resume(one.stream);
    wait_kept(49);
}
END_TEST

START_TEST(test_ends__peer_gone_while_a_request_is_under_way)
{
    send_heartbeat(&one, 1);
    send_heartbeat(&one, 2);
    wait_kept(2);
    env_stream_close(one.stream);
    run_until(has_at_least, &(struct at_least){&n_abandoned, 2});
    ck_assert_uint_eq(connections_count(all), 1); /* they are still out */
    answer(1);
    run_ms(5);
    ck_assert_uint_eq(n_released, 1);
    answer(0);
    run_until(has_no_connection, NULL);
    ck_assert_uint_eq(n_released, 2);
}
END_TEST

START_TEST(test_ends__idle)
{
    restart_with(100, 16 << 20);
    uint64_t from = env_now_ms(env);
    run_until(is_true, &one.closed);
    ck_assert_uint_ge(env_now_ms(env) - from, 90);
}
END_TEST

START_TEST(test_ends__not_idle_while_a_request_waits)
{
    restart_with(100, 16 << 20);
    send_heartbeat(&one, 1);
    wait_kept(1);
    run_ms(300);
    ck_assert(!one.closed);
}
END_TEST

/* A client that has to wait gets its answer at once; nothing behind it is begun
 * for so long, neither what was read nor what comes; nor is it taken for idle.
 */
START_TEST(test_mute__answered_at_once_then_not_read)
{
    restart_with(100, 16 << 20);
    send_heartbeat(&one, 1);
    wait_kept(1);
    kept[0]->throttle_ms = 1000;
    uint64_t from = env_now_ms(env);
    answer(0);
    send_heartbeat(&one, 2);
    run_until(has_bytes, &one);
    ck_assert_uint_lt(env_now_ms(env) - from, 900);
    expect_answer(&one, 1);
    send_heartbeat(&one, 3);
    run_ms(150);
    ck_assert_uint_eq(n_begun, 1);
    ck_assert(!one.closed);
    wait_kept(3);
    ck_assert_uint_ge(env_now_ms(env) - from, 999);
    answer(1);
    answer(2);
}
END_TEST

/* A frame of which half is there is read on, as its memory may be wanted; it is
 * not begun. */
START_TEST(test_mute__middle_of_a_frame)
{
    size_t size;
    uint8_t *flat = produce_frame(2, 300000, &size);
    send_heartbeat(&one, 1);
    wait_kept(1);
    client_send(&one, flat, size / 2);
    run_ms(20);
    kept[0]->throttle_ms = 1000;
    answer(0);
    client_send(&one, flat + size / 2, size - size / 2);
    run_ms(100);
    ck_assert_uint_ge(connections_memory(all), size);
    ck_assert_uint_eq(n_begun, 1);
    wait_kept(2);
    answer(1);
    mem_free(flat);
}
END_TEST

/* What may cost a wait is begun alone: the wait that the one before it was told
 * is known by then. */
START_TEST(test_mute__one_at_a_time_with_a_quota)
{
    send_heartbeat(&one, 1);
    send_heartbeat(&one, 2);
    wait_kept(2);
    costly = true;
    send_heartbeat(&one, 3);
    client_open(&two);
    run_until(is_true, &two.connected);
    send_heartbeat(&two, 1); /* another connection */
    wait_kept(3);
    answer(0);
    run_ms(20);
    ck_assert_uint_eq(n_begun, 3);
    kept[1]->throttle_ms = 200;
    uint64_t from = env_now_ms(env);
    answer(1);
    wait_kept(4);
    ck_assert_uint_ge(env_now_ms(env) - from, 199);
    answer(2);
    answer(3);
    costly = false;
}
END_TEST

START_TEST(test_memory__half_frames_hold_little)
{
    /* announces 1 MiB, sends 10 bytes of it */
    client_send(&one,
                "\x00\x10\x00\x00"
                "0123456789",
                14);
    run_ms(20);
    ck_assert_uint_le(connections_memory(all), 16384);
    ck_assert_uint_gt(connections_memory(all), 0);
    env_stream_close(one.stream);
    run_until(has_no_connection, NULL);
    ck_assert_uint_eq(connections_memory(all), 0);
}
END_TEST

START_TEST(test_memory__used_up_stops_reading_until_some_returns)
{
    restart_with(0, 400000);
    size_t size;
    uint8_t *flat = produce_frame(1, 300000, &size);
    client_open(&two);
    run_until(is_true, &two.connected);
    client_send(&one, flat, size);
    wait_kept(1);
    client_send(&one, flat, size); /* the holder goes on beyond the limit */
    wait_kept(2);
    client_send(&two, flat, size);
    send_heartbeat(&one, 9);
    run_ms(30);
    ck_assert_uint_eq(n_begun, 2);
    ck_assert_uint_lt(connections_memory(all), 700000);
    answer(0);
    answer(1);
    wait_kept(4);
    mem_free(flat);
}
END_TEST

START_TEST(test_bounds__connections)
{
    static struct client more[8];
    for (int i = 0; i < 8; i++) {
        client_open(&more[i]);
    }
    run_until(is_true, &more[7].closed);
    ck_assert_uint_eq(connections_count(all), 8);
    for (int i = 0; i < 7; i++) {
        env_stream_close(more[i].stream);
    }
    run_ms(5);
}
END_TEST

START_TEST(test_stop__answers_what_is_under_way)
{
    bool closed = false;
    send_heartbeat(&one, 1);
    wait_kept(1);
    connections_close(all, 3000, set_true, &closed);
    send_heartbeat(&one, 2); /* not begun any more */
    run_ms(20);
    ck_assert(!closed);
    answer(0);
    run_until(is_true, &closed);
    run_until(is_true, &one.closed);
    expect_answer(&one, 1);
    ck_assert_uint_eq(n_begun, 1);
    connections_free(all);
    start_with(0, 1000);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("connection");
    TCase *tc = tcase_create("connection");
    tcase_set_timeout(tc, 20);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_answers__in_order_of_requests);
    tcase_add_test(tc, test_frames__byte_by_byte);
    tcase_add_test(tc, test_frames__long_one_arrives_whole_between_others);
    tcase_add_test(tc, test_ends__size_that_cannot_be);
    tcase_add_test(tc, test_ends__larger_than_allowed);
    tcase_add_test(tc, test_ends__another_protocol);
    tcase_add_test(tc, test_ends__malformed_header_after_an_answer);
    tcase_add_test(tc, test_ends__malformed_body);
    tcase_add_test(tc, test_ends__unknown_api_and_version);
    tcase_add_test(tc, test_api_versions__unknown_version_is_answered_in_v0);
    tcase_add_test(tc, test_bounds__requests_in_flight);
    tcase_add_test(tc, test_bounds__fetch_waits_until_all_before_is_answered);
    tcase_add_test(tc, test_writes__more_pieces_than_one_write_takes);
    tcase_add_test(tc, test_bounds__reader_that_does_not_read);
    tcase_add_test(tc, test_ends__peer_gone_while_a_request_is_under_way);
    tcase_add_test(tc, test_ends__idle);
    tcase_add_test(tc, test_ends__not_idle_while_a_request_waits);
    tcase_add_test(tc, test_mute__answered_at_once_then_not_read);
    tcase_add_test(tc, test_mute__middle_of_a_frame);
    tcase_add_test(tc, test_mute__one_at_a_time_with_a_quota);
    tcase_add_test(tc, test_memory__half_frames_hold_little);
    tcase_add_test(tc, test_memory__used_up_stops_reading_until_some_returns);
    tcase_add_test(tc, test_bounds__connections);
    tcase_add_test(tc, test_stop__answers_what_is_under_way);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
