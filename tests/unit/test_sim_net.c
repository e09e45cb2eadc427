/* The simulated network: streams between nodes, cuts, resets, crashes. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "tests/sim/sim_env.h"

enum { BULK = 3 << 20 };

/* One side of a connection. It lives outside of the nodes, so that the test
 * can look at it after a crash. */
struct side {
    struct env *env;
    struct env_stream *stream;
    uint8_t *bytes;
    size_t size, room;
    bool echo, paused, hold_accept, storm;
    bool connected, closed;
    enum err connect_status, read_status;
    int reads, writes_ok, writes_failed, accepts, in_call;
    char address[64];
};

static struct sim *sim;
static struct sim_node *a, *b;
static struct side server, client;
static uint8_t *bulk;

static void side_connected(struct env_stream *stream, enum err status)
{
    struct side *side = env_stream_arg(stream);
    ck_assert_int_eq(side->in_call, 0);
    side->connected = true;
    side->connect_status = status;
}

static struct iovec side_alloc(struct env_stream *stream)
{
    struct side *side = env_stream_arg(stream);
    size_t left = BULK * 2 - side->size;
    size_t room = side->room < left ? side->room : left;
    return (struct iovec){side->bytes + side->size, side->paused ? 0 : room};
}

static void side_written(struct env_write *req, enum err status)
{
    struct side *side = req->arg;
    ck_assert_int_eq(side->in_call, 0);
    if (status == ERR_OK) {
        side->writes_ok++;
    } else {
        side->writes_failed++;
    }
    mem_free(req);
}

static void side_write(struct side *side, const void *data, size_t size)
{
    struct env_write *req = mem_zalloc(sizeof *req);
    struct iovec iov[2] = {
        {(void *)(uintptr_t)data, size / 2},
        {(uint8_t *)(uintptr_t)data + size / 2, size - size / 2}};
    req->cb = side_written;
    req->arg = side;
    side->in_call++;
    env_stream_write(side->stream, req, iov, 2);
    side->in_call--;
}

static void side_read(struct env_stream *stream, size_t size, enum err status)
{
    struct side *side = env_stream_arg(stream);
    ck_assert_int_eq(side->read_status, ERR_OK);
    if (status != ERR_OK) {
        ck_assert_uint_eq(size, 0);
        side->read_status = status;
        env_stream_close(stream);
        env_stream_close(stream);
        return;
    }
    side->reads++;
    if (side->storm) {
        side_write(side, "hello", 5);
    } else if (side->echo) {
        side_write(side, side->bytes + side->size, size);
    }
    side->size = side->storm ? 0 : side->size + size;
}

static void side_closed(struct env_stream *stream)
{
    struct side *side = env_stream_arg(stream);
    ck_assert(!side->closed);
    side->closed = true;
    side->stream = NULL;
}

static const struct env_stream_ops side_ops = {
    .connected = side_connected,
    .alloc = side_alloc,
    .read = side_read,
    .closed = side_closed,
};

static void side_accept(void *arg, struct env_stream *stream)
{
    struct side *side = arg;
    side->accepts++;
    side->stream = stream;
    ck_assert_int_eq(strncmp(env_stream_peer(stream), "a:", 2), 0);
    if (!side->hold_accept) {
        env_stream_start(stream, &side_ops, side);
    }
}

static void boot_server(struct env *env, void *arg)
{
    struct env_listener *listener;
    struct side *side = arg;
    side->env = env;
    ck_assert_int_eq(
        env_listen(env, "0.0.0.0:9092", side_accept, side, &listener), ERR_OK);
    snprintf(side->address, sizeof side->address, "%s",
             env_listener_address(listener));
    ck_assert_int_eq(env_listen(env, "b:9092", side_accept, side, &listener),
                     ERR_BUSY);
}

static void side_reset(struct side *side)
{
    uint8_t *bytes = side->bytes;
    memset(side, 0, sizeof *side);
    side->bytes = bytes;
    side->room = 65536;
}

static void begin(uint64_t seed)
{
    sim = sim_new(seed);
    a = sim_node_add(sim, "a", 1);
    b = sim_node_add(sim, "b", 2);
    side_reset(&server);
    side_reset(&client);
    sim_node_start(a, NULL, NULL);
    sim_node_start(b, boot_server, &server);
    sim_run_for(sim, SIM_MS);
}

static void setup(void)
{
    server.bytes = mem_alloc(2 * BULK);
    client.bytes = mem_alloc(2 * BULK);
    bulk = mem_alloc(BULK);
    for (size_t i = 0; i < BULK; i++) {
        bulk[i] = (uint8_t)(i * 31 + (i >> 10));
    }
    begin(7);
}

static void teardown(void)
{
    sim_free(sim);
    mem_free(server.bytes);
    mem_free(client.bytes);
    mem_free(bulk);
}

static void connect_to(struct env *env, void *arg)
{
    client.env = env;
    client.stream = env_stream_connect(env, arg, &side_ops, &client);
    ck_assert(!client.connected);
}

static void connect_client(const char *address)
{
    side_reset(&client);
    sim_node_call(a, 0, connect_to, (void *)(uintptr_t)address);
}

static void write_bulk(struct env *env, void *arg)
{
    (void)env;
    side_write(arg, bulk, BULK);
}

static void write_hello(struct env *env, void *arg)
{
    (void)env;
    side_write(arg, "hello", 5);
}

static void close_side(struct env *env, void *arg)
{
    struct side *side = arg;
    (void)env;
    env_stream_close(side->stream);
    env_stream_close(side->stream);
    ck_assert(!side->closed);
}

START_TEST(test_net__there_and_back)
{
    server.echo = true;
    connect_client("b:9092");
    for (int i = 0; i < 2; i++) { /* before it is connected */
        sim_node_call(a, 0, i == 0 ? write_bulk : write_hello, &client);
    }
    ck_assert_int_eq(client.writes_ok, 0);
    sim_run_for(sim, 10 * SIM_S);
    ck_assert_int_eq(client.connect_status, ERR_OK);
    ck_assert_uint_eq(server.size, BULK + 5);
    ck_assert_uint_eq(client.size, BULK + 5);
    ck_assert_mem_eq(client.bytes, bulk, BULK);
    ck_assert_mem_eq(client.bytes + BULK, "hello", 5);
    ck_assert_int_eq(client.writes_ok, 2);
    ck_assert_int_gt(server.reads, 30); /* split at random */
    ck_assert_uint_eq(sim_net_connections(sim, a, b), 1);
    sim_node_call(a, 0, close_side, &client);
    sim_run_for(sim, SIM_S);
    ck_assert(client.closed && server.closed);
    ck_assert_int_eq(server.read_status, ERR_CLOSED);
    ck_assert_int_eq(client.read_status, ERR_OK);
    ck_assert_int_eq(server.writes_failed, 0);
    ck_assert_uint_eq(sim_net_connections(sim, a, b), 0);
}
END_TEST

START_TEST(test_net__backpressure)
{
    server.paused = true;
    connect_client("b:9092");
    sim_node_call(a, 0, write_bulk, &client);
    sim_node_call(a, 0, write_hello, &client);
    sim_run_for(sim, SIM_S);
    ck_assert(client.connected);
    ck_assert_int_eq(client.writes_ok, 0); /* the window is full */
    ck_assert_uint_eq(server.size, 0);
    server.paused = false;
    env_stream_resume(server.stream);
    env_stream_resume(server.stream);
    sim_run_for(sim, SIM_S);
    ck_assert_uint_eq(server.size, BULK + 5);
    ck_assert_int_eq(client.writes_ok, 2);
}
END_TEST

START_TEST(test_net__refused_unknown_malformed)
{
    static const struct {
        const char *address;
        enum err status;
    } cases[] = {{"b:9093", ERR_REFUSED},
                 {"nobody:1", ERR_UNREACHABLE},
                 {"nonsense", ERR_INVALID},
                 {"b:99999", ERR_INVALID}};
    for (int i = 0; i < 4; i++) {
        connect_client(cases[i].address);
        sim_node_call(a, 0, write_hello, &client);
        sim_run_for(sim, SIM_S);
        ck_assert_int_eq(client.connect_status, cases[i].status);
        ck_assert_int_eq(client.writes_failed, 1);
        ck_assert(client.closed);
    }
    connect_client("b:9092");
    sim_node_call(a, 0, close_side, &client);
    sim_run_for(sim, SIM_S);
    ck_assert(client.closed && !client.connected); /* closed before it was */
}
END_TEST

START_TEST(test_net__cut_holds_back_and_heal_delivers)
{
    server.echo = true;
    connect_client("b:9092");
    sim_run_for(sim, SIM_S);
    sim_net_cut(sim, a, b); /* one way */
    sim_node_call(a, 0, write_hello, &client);
    sim_node_call(b, 0, write_hello, &server);
    sim_run_for(sim, 10 * SIM_S);
    ck_assert_uint_eq(server.size, 0);
    ck_assert_uint_eq(client.size, 5); /* the other way works */
    sim_net_heal(sim, a, b);
    sim_run_for(sim, 5 * SIM_S);
    ck_assert_uint_eq(server.size, 5);
    ck_assert_uint_eq(client.size, 10);
    ck_assert_int_eq(client.read_status, ERR_OK);
}
END_TEST

START_TEST(test_net__cut_for_long_resets_the_sender_only)
{
    connect_client("b:9092");
    sim_run_for(sim, SIM_S);
    sim_net_cut_both(sim, a, b);
    sim_node_call(a, 0, write_hello, &client);
    sim_run_for(sim, SIM_TCP_TIMEOUT_NS + SIM_S);
    ck_assert_int_eq(client.read_status, ERR_IO);
    ck_assert(client.closed);
    ck_assert_int_eq(server.read_status, ERR_OK); /* half-open */
    sim_net_heal_all(sim);
    sim_run_for(sim, SIM_S);
    ck_assert_int_eq(server.read_status, ERR_OK);
    sim_node_call(b, 0, write_hello, &server);
    sim_run_for(sim, SIM_S);
    ck_assert_int_eq(server.read_status, ERR_IO); /* learns it by writing */
    ck_assert_uint_eq(server.size, 0);
}
END_TEST

START_TEST(test_net__connect_through_a_cut_times_out)
{
    sim_net_cut(sim, b, a);
    connect_client("b:9092");
    sim_run_for(sim, SIM_CONNECT_TIMEOUT_NS - SIM_S);
    ck_assert(!client.connected);
    sim_run_for(sim, 2 * SIM_S);
    ck_assert_int_eq(client.connect_status, ERR_TIMEOUT);
    ck_assert(client.closed);
}
END_TEST

START_TEST(test_net__reset_is_told_to_both)
{
    connect_client("b:9092");
    sim_run_for(sim, SIM_S);
    sim_net_cut(sim, a, b);
    sim_node_call(a, 0, write_bulk, &client);
    sim_net_reset(sim, a, b);
    sim_run_for(sim, SIM_S);
    ck_assert_int_eq(client.read_status, ERR_IO);
    ck_assert_int_eq(server.read_status, ERR_IO);
    ck_assert_int_eq(client.writes_failed, 1);
    ck_assert(client.closed && server.closed);
}
END_TEST

START_TEST(test_net__killed_peer_resets_and_refuses_then_serves_again)
{
    connect_client("b:9092");
    sim_run_for(sim, SIM_S);
    sim_node_crash(b, SIM_KILL);
    ck_assert(!server.closed);
    sim_run_for(sim, SIM_S);
    ck_assert_int_eq(client.read_status, ERR_IO);
    connect_client("b:9092");
    sim_run_for(sim, SIM_S);
    ck_assert_int_eq(client.connect_status, ERR_REFUSED);
    side_reset(&server);
    sim_node_restart(b);
    sim_run_for(sim, SIM_S);
    connect_client(server.address);
    sim_run_for(sim, SIM_S);
    ck_assert_int_eq(client.connect_status, ERR_OK);
    ck_assert_int_eq(server.accepts, 1);
}
END_TEST

/* After power loss the peer is either told at once or met with silence. */
START_TEST(test_net__power_loss_is_told_or_silent)
{
    int told = 0, silent = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        sim_free(sim);
        begin(seed);
        connect_client("b:9092");
        sim_run_for(sim, SIM_S);
        sim_node_crash(b, SIM_DROP_ALL);
        sim_run_for(sim, SIM_S);
        told += client.closed;
        silent += !client.closed;
        if (!client.closed) {
            sim_node_call(a, 0, write_hello, &client);
            sim_run_for(sim, SIM_S);
            ck_assert(!client.closed);
            if (seed % 2 == 0) { /* it comes back and knows nothing */
                sim_node_restart(b);
                sim_run_for(sim, 5 * SIM_S);
            } else {
                sim_run_for(sim, SIM_TCP_TIMEOUT_NS);
            }
            ck_assert_int_eq(client.read_status, ERR_IO);
        }
    }
    ck_assert_int_gt(told, 3);
    ck_assert_int_gt(silent, 3);
}
END_TEST

static void start_late(struct env *env, void *arg)
{
    struct side *side = arg;
    (void)env;
    env_stream_start(side->stream, &side_ops, side);
}

START_TEST(test_net__accepted_stream_is_started_later)
{
    server.hold_accept = true;
    connect_client("b:9092");
    sim_node_call(a, 0, write_hello, &client);
    sim_run_for(sim, SIM_S);
    ck_assert_int_eq(server.accepts, 1);
    ck_assert_uint_eq(server.size, 0);
    sim_node_call(b, 0, start_late, &server);
    sim_run_for(sim, SIM_S);
    ck_assert_uint_eq(server.size, 5);
    sim_node_call(a, 0, close_side, &client);
    sim_run_for(sim, SIM_S);
    /* Reset before it is started. */
    side_reset(&server);
    server.hold_accept = true;
    connect_client("b:9092");
    sim_run_for(sim, SIM_S);
    sim_net_reset(sim, a, b);
    sim_run_for(sim, SIM_S);
    sim_node_call(b, 0, start_late, &server);
    sim_run_for(sim, SIM_S);
    ck_assert_int_eq(server.read_status, ERR_IO);
    ck_assert(server.closed);
}
END_TEST

static struct env *accepted_on;
static void accept_moved(void *arg, struct env_stream *stream)
{
    accepted_on = sim_env(b, 1);
    side_accept(arg, stream);
}

static void accept_to_move(void *arg, struct env_stream *stream)
{
    env_stream_move(stream, sim_env(b, 1), accept_moved, arg);
}

static void listen_to_move(struct env *env, void *arg)
{
    struct env_listener *listener;
    ck_assert_int_eq(env_listen(env, "b:0", accept_to_move, arg, &listener),
                     ERR_OK);
    snprintf(server.address, sizeof server.address, "%s",
             env_listener_address(listener));
}

START_TEST(test_net__move_to_another_shard)
{
    accepted_on = NULL;
    server.echo = true;
    sim_node_call(b, 0, listen_to_move, &server);
    connect_client(server.address);
    sim_node_call(a, 0, write_hello, &client);
    sim_run_for(sim, SIM_S);
    ck_assert_ptr_nonnull(accepted_on);
    ck_assert_ptr_eq(accepted_on, sim_env(b, 1));
    ck_assert_uint_eq(client.size, 5);
}
END_TEST

START_TEST(test_net__delay_and_bandwidth)
{
    sim_net_delay(sim, NULL, NULL, 100 * SIM_MS, 0);
    connect_client("b:9092");
    sim_run_for(sim, 199 * SIM_MS);
    ck_assert(!client.connected);
    sim_run_for(sim, 2 * SIM_MS);
    ck_assert(client.connected);
    sim_net_bandwidth(sim, 1 << 20); /* 3 MB take 3 s */
    sim_node_call(a, 0, write_bulk, &client);
    sim_run_for(sim, 2900 * SIM_MS);
    ck_assert_uint_lt(server.size, BULK);
    sim_run_for(sim, 300 * SIM_MS);
    ck_assert_uint_eq(server.size, BULK);
}
END_TEST

static void accept_in_storm(void *arg, struct env_stream *stream)
{
    struct side *side = mem_zalloc(sizeof *side); /* gone with the node */
    (void)arg;
    side->bytes = mem_alloc(65536);
    side->room = 65536;
    side->storm = true;
    side->stream = stream;
    env_stream_start(stream, &side_ops, side);
}

static void boot_in_storm(struct env *env, void *arg)
{
    struct env_listener *listener;
    ck_assert_int_eq(env_listen(env, "b:7", accept_in_storm, arg, &listener),
                     ERR_OK);
}

/* Everything at once, for many seeds: no assert, and the same hash. */
static uint64_t storm(uint64_t seed)
{
    sim_free(sim);
    begin(seed);
    sim_node_crash(b, SIM_KILL);
    sim_node_start(b, boot_in_storm, NULL);
    for (int i = 0; i < 60; i++) {
        struct prng *prng = sim_prng(sim);
        if (sim_node_up(a) && (client.stream == NULL || client.closed)) {
            connect_client("b:7");
            sim_node_call(a, 0, write_bulk, &client);
        }
        sim_run_for(sim, prng_below(prng, 3 * SIM_S));
        ck_assert_uint_le(client.size, BULK);
        switch (prng_below(prng, 7)) {
            case 0:
                sim_net_cut(sim, a, b);
                break;
            case 1:
                sim_net_cut(sim, b, a);
                break;
            case 2:
                sim_net_heal_all(sim);
                break;
            case 3:
                sim_net_reset(sim, a, b);
                break;
            case 4:
                sim_node_pause(b, sim_now_ns(sim) + SIM_S);
                break;
            case 5:
                sim_node_crash(b, SIM_RANDOM);
                sim_run_for(sim, prng_below(prng, SIM_S));
                sim_node_restart(b);
                break;
            default:
                sim_node_crash(a, SIM_RANDOM);
                client.stream = NULL;
                sim_run_for(sim, prng_below(prng, SIM_S));
                sim_node_restart(a);
                break;
        }
    }
    return sim_hash(sim);
}

START_TEST(test_net__storm)
{
    for (uint64_t seed = 0; seed < 30; seed++) {
        uint64_t hash = storm(seed);
        if (seed % 10 == 0) {
            ck_assert_uint_eq(hash, storm(seed));
            ck_assert_uint_ne(hash, storm(seed + 1000));
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sim_net");
    TCase *tc = tcase_create("sim_net");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, test_net__there_and_back);
    tcase_add_test(tc, test_net__backpressure);
    tcase_add_test(tc, test_net__refused_unknown_malformed);
    tcase_add_test(tc, test_net__cut_holds_back_and_heal_delivers);
    tcase_add_test(tc, test_net__cut_for_long_resets_the_sender_only);
    tcase_add_test(tc, test_net__connect_through_a_cut_times_out);
    tcase_add_test(tc, test_net__reset_is_told_to_both);
    tcase_add_test(tc,
                   test_net__killed_peer_resets_and_refuses_then_serves_again);
    tcase_add_test(tc, test_net__power_loss_is_told_or_silent);
    tcase_add_test(tc, test_net__accepted_stream_is_started_later);
    tcase_add_test(tc, test_net__move_to_another_shard);
    tcase_add_test(tc, test_net__delay_and_bandwidth);
    tcase_add_test(tc, test_net__storm);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
