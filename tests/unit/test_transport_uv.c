/* The transport over real sockets on loopback: several brokers in one loop,
 * and a broker of two shards on two threads. What needs a hostile network is
 * in test_transport.c. */
#include <check.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/env_uv.h"
#include "base/mem.h"
#include "raft/transport.h"

static struct env *env;

struct broker {
    struct transport *t;
    int ups, downs, messages;
    size_t bytes;
};

static void on_up(void *arg, node_id node)
{
    struct broker *b = arg;
    (void)node;
    b->ups++;
}

static void on_down(void *arg, node_id node)
{
    struct broker *b = arg;
    (void)node;
    b->downs++;
}

static const struct transport_ops ops = {.peer_up = on_up,
                                         .peer_down = on_down};

static void on_raft(void *arg, node_id from, const struct group_id *group,
                    const uint8_t *body, size_t size)
{
    struct broker *b = arg;
    (void)from;
    ck_assert(group_id_equal(group, &GROUP_METADATA));
    for (size_t i = 0; i < size; i += 101)
        ck_assert_uint_eq(body[i], (uint8_t)(i * 7));
    b->messages++;
    b->bytes += size;
}

/* Answers with the body, and ERR_FENCED as status. */
static void on_echo(void *arg, struct rpc_request *request, node_id from,
                    const uint8_t *body, size_t size)
{
    (void)arg;
    (void)from;
    rpc_respond(request, ERR_FENCED, body, size);
}

static void broker_start(struct broker *b, node_id node)
{
    struct transport_options options = {
        .env = env,
        .n_shards = 1,
        .node = node,
        .directory = {{(uint8_t)(node + 1)}},
        .queue_bytes_max = 1 << 20,
    };
    memset(b, 0, sizeof *b);
    b->t = transport_new(&options, &ops, b);
    ck_assert_int_eq(transport_listen(b->t, "127.0.0.1:0"), ERR_OK);
    transport_set_address(b->t, transport_listen_address(b->t));
    transport_set_raft_handler(b->t, on_raft, b);
    transport_serve(b->t, RPC_COORDINATOR, on_echo, b);
    transport_serve(b->t, RPC_CATCHUP, on_echo, b);
}

/* ---- running the loop until something holds ------------------------------ */

struct waiting {
    bool (*cond)(void *arg);
    void *arg;
    int turns;
    bool held;
};

static void poll_timer(struct env_timer *timer)
{
    struct waiting *w = timer->arg;
    w->held = w->cond(w->arg);
    if (w->held || --w->turns == 0)
        env_uv_stop(env);
    else
        env_timer_start(timer, 2);
}

static bool run_until(bool (*cond)(void *arg), void *arg)
{
    struct waiting w = {cond, arg, 5000, false};
    struct env_timer timer;
    env_timer_init(env, &timer, poll_timer, &w);
    env_timer_start(&timer, 1);
    env_uv_run(env);
    return w.held;
}

static bool is_up(void *arg)
{
    struct broker *b = arg;
    return b[0].ups > b[0].downs && b[1].ups > b[1].downs;
}

static bool has_message(void *arg)
{
    return ((struct broker *)arg)->messages > 0;
}

static bool went_down(void *arg)
{
    return ((struct broker *)arg)->downs > 0;
}

struct answered {
    struct rpc_call call;
    int calls;
    enum err status;
    size_t size;
    uint8_t first, last;
};

static void on_answer(struct rpc_call *call, enum err status,
                      const uint8_t *body, size_t size)
{
    struct answered *a = call->arg;
    a->calls++;
    a->status = status;
    a->size = size;
    if (size > 0) {
        a->first = body[0];
        a->last = body[size - 1];
    }
}

static bool is_answered(void *arg)
{
    return ((struct answered *)arg)->calls > 0;
}

static void ask(struct transport *t, node_id node, enum rpc_kind kind,
                size_t size, struct answered *a)
{
    uint8_t *body = mem_zalloc(size + 1);
    body[0] = 0x11;
    body[size > 0 ? size - 1 : 0] = 0x22;
    memset(a, 0, sizeof *a);
    a->call = (struct rpc_call){.cb = on_answer, .arg = a};
    transport_call(t, node, kind, body, size, 5000, &a->call);
    ck_assert_int_eq(a->calls, 0);
    mem_free(body);
}

static struct broker brokers[2];

static void setup(void)
{
    env = env_uv_new(NULL);
    broker_start(&brokers[0], 0);
    broker_start(&brokers[1], 1);
    /* only one knows the other; that one learns from its hello */
    transport_add_seed(brokers[0].t, transport_listen_address(brokers[1].t));
    ck_assert(run_until(is_up, brokers));
}

static bool never(void *arg)
{
    (void)arg;
    return false;
}

static void teardown(void)
{
    struct waiting w = {never, NULL, 3, false};
    struct env_timer timer;
    transport_free(brokers[0].t);
    transport_free(brokers[1].t);
    env_timer_init(env, &timer, poll_timer, &w);
    env_timer_start(&timer, 1);
    env_uv_run(env);
    env_uv_free(env);
}

START_TEST(test_exchange__messages_and_calls)
{
    struct broker *a = &brokers[0], *b = &brokers[1];
    ck_assert_int_eq(transport_seed_node(a->t, transport_listen_address(b->t)),
                     1);
    ck_assert(transport_peer_is_up(a->t, 1) && transport_peer_is_up(b->t, 0));
    uint8_t body[5000];
    for (size_t i = 0; i < sizeof body; i++)
        body[i] = (uint8_t)(i * 7);
    struct transport_piece pieces[2] = {{.data = body, .size = 2000},
                                        {.data = body + 2000, .size = 3000}};
    ck_assert(transport_send_raft(b->t, 0, &GROUP_METADATA, pieces, 2));
    ck_assert(run_until(has_message, a));
    ck_assert_uint_eq(a->bytes, 5000);

    struct answered answer;
    static const size_t sizes[] = {0, 1, 100, 70000, 10u << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int self = 0; self < 2; self++) {
            enum rpc_kind kind = i % 2 == 0 ? RPC_COORDINATOR : RPC_CATCHUP;
            ask(a->t, self ? 0 : 1, kind, sizes[i], &answer);
            ck_assert(run_until(is_answered, &answer));
            ck_assert_int_eq(answer.status, ERR_FENCED);
            ck_assert_uint_eq(answer.size, sizes[i]);
            if (sizes[i] > 1) {
                ck_assert_uint_eq(answer.first, 0x11);
                ck_assert_uint_eq(answer.last, 0x22);
            }
        }
    }
    struct transport_peer_stats stats[2];
    ck_assert_uint_eq(transport_stats(a->t, stats, 2), 1);
    ck_assert_uint_gt(stats[0].bytes_received, 20u << 19);
    ck_assert_uint_eq(stats[0].raft_received, 1);
    ck_assert_uint_eq(stats[0].calls, 5);
    ck_assert_uint_eq(stats[0].calls_failed, 0);
}
END_TEST

START_TEST(test_peer_down__when_it_is_gone)
{
    struct broker *a = &brokers[0], *b = &brokers[1];
    struct answered answer;
    ask(a->t, 1, RPC_FORMATION, 10, &answer); /* nobody serves it */
    ck_assert(run_until(is_answered, &answer));
    ck_assert_int_eq(answer.status, ERR_NOT_READY);
    transport_free(b->t);
    uint64_t begin = env_now_ms(env);
    ck_assert(run_until(went_down, a));
    ck_assert_uint_lt(env_now_ms(env) - begin, 300);
    ask(a->t, 1, RPC_COORDINATOR, 10, &answer);
    ck_assert(run_until(is_answered, &answer));
    ck_assert_int_eq(answer.status, ERR_UNREACHABLE);
    ck_assert_str_ne(transport_refusal(a->t, 1), "");
    ck_assert_int_eq(a->ups, 1);
    ck_assert_int_eq(a->downs, 1);
    broker_start(b, 1); /* for the teardown */
}
END_TEST

static void stall(struct env_timer *timer)
{
    uint64_t until = env_now_ns(env) + 900000000;
    while (env_now_ns(env) < until)
        ;
    *(bool *)timer->arg = true;
}

static bool is_set(void *arg)
{
    return *(bool *)arg;
}

START_TEST(test_stall__of_ourselves_is_nobodys_silence)
{
    struct env_timer timer;
    bool stalled = false;
    env_timer_init(env, &timer, stall, &stalled);
    env_timer_start(&timer, 20);
    ck_assert(run_until(is_set, &stalled));
    struct answered answer;
    for (int i = 0; i < 50; i++) { /* some ticks */
        ask(brokers[0].t, 1, RPC_COORDINATOR, 10, &answer);
        ck_assert(run_until(is_answered, &answer));
        ck_assert_int_eq(answer.status, ERR_FENCED);
    }
    ck_assert_int_eq(brokers[0].downs + brokers[1].downs, 0);
}
END_TEST

/* ---- two shards on two threads ------------------------------------------- */

static struct env *envs[2];

struct wide {
    struct transport *t[2];
    atomic_int ups[2], messages[2], served[2];
};

struct wide_shard {
    struct wide *b;
    unsigned shard;
};

static struct wide wides[2];
static struct wide_shard wide_shards[2][2];

static void wide_up(void *arg, node_id node)
{
    struct wide_shard *w = arg;
    (void)node;
    w->b->ups[w->shard]++;
}

static const struct transport_ops wide_ops = {.peer_up = wide_up};

static void wide_raft(void *arg, node_id from, const struct group_id *group,
                      const uint8_t *body, size_t size)
{
    struct wide_shard *w = arg;
    (void)from;
    (void)body;
    ck_assert_uint_eq(size, 100);
    ck_assert_uint_eq(group_id_shard(group, 2), w->shard);
    w->b->messages[w->shard]++;
}

static void wide_serve(void *arg, struct rpc_request *request, node_id from,
                       const uint8_t *body, size_t size)
{
    struct wide_shard *w = arg;
    (void)from;
    w->b->served[w->shard]++;
    rpc_respond(request, ERR_OK, body, size);
}

static void wide_new(int node)
{
    for (unsigned s = 0; s < 2; s++) {
        struct wide_shard *w = &wide_shards[node][s];
        struct transport_options options = {
            .env = envs[s],
            .shard = s,
            .n_shards = 2,
            .node = node,
            .directory = {{(uint8_t)(node + 1)}},
            .queue_bytes_max = 1 << 20,
        };
        *w = (struct wide_shard){&wides[node], s};
        wides[node].t[s] = transport_new(&options, &wide_ops, w);
        transport_set_raft_handler(wides[node].t[s], wide_raft, w);
        transport_serve(wides[node].t[s], RPC_COORDINATOR, wide_serve, w);
        transport_serve(wides[node].t[s], RPC_CATCHUP, wide_serve, w);
    }
    for (unsigned s = 0; s < 2; s++)
        transport_set_shards(wides[node].t[s], wides[node].t, 2);
    ck_assert_int_eq(transport_listen(wides[node].t[0], "127.0.0.1:0"), ERR_OK);
}

static bool wide_is_up(void *arg)
{
    (void)arg;
    return wides[0].ups[0] && wides[0].ups[1] && wides[1].ups[0] &&
           wides[1].ups[1];
}

/* Work of one shard of broker 1, towards both shards of broker 0. */
struct wide_work {
    struct env_post post;
    unsigned shard;
    struct rpc_call calls[4];
    atomic_int answers;
};

static void wide_answer(struct rpc_call *call, enum err status,
                        const uint8_t *body, size_t size)
{
    struct wide_work *w = call->arg;
    (void)body;
    ck_assert_int_eq(status, ERR_OK);
    ck_assert_uint_eq(size, 20);
    w->answers++;
}

static void wide_do(struct env_post *post)
{
    struct wide_work *w = post->arg;
    struct transport *t = wides[1].t[w->shard];
    uint8_t body[100] = {5};
    struct transport_piece piece = {.data = body, .size = sizeof body};
    for (int i = 0; i < 50; i++) {
        struct group_id group = {{{5}}, i};
        ck_assert(transport_send_raft(t, 0, &group, &piece, 1));
    }
    for (int i = 0; i < 4; i++) {
        body[16] = (uint8_t)i; /* the partition */
        w->calls[i] = (struct rpc_call){.cb = wide_answer, .arg = w};
        transport_call(t, 0, i < 2 ? RPC_CATCHUP : RPC_COORDINATOR, body, 20,
                       5000, &w->calls[i]);
    }
}

static struct wide_work works[2];

static bool wide_is_done(void *arg)
{
    (void)arg;
    return works[0].answers == 4 && works[1].answers == 4 &&
           wides[0].messages[0] + wides[0].messages[1] == 100;
}

START_TEST(test_shards__on_two_threads)
{
    envs[0] = env = env_uv_new(NULL);
    envs[1] = env_uv_new(NULL);
    wide_new(0);
    wide_new(1);
    for (int node = 0; node < 2; node++)
        for (unsigned s = 0; s < 2; s++)
            transport_set_peer(wides[node].t[s], 1 - node,
                               transport_listen_address(wides[1 - node].t[0]));
    env_uv_thread_start(envs[1]);
    ck_assert(run_until(wide_is_up, NULL));
    for (unsigned s = 0; s < 2; s++) {
        works[s].shard = s;
        works[s].post = (struct env_post){.cb = wide_do, .arg = &works[s]};
        env_post(envs[s], &works[s].post);
    }
    ck_assert(run_until(wide_is_done, NULL));
    /* partitions go round the shards; half of the messages each */
    ck_assert_int_eq(wides[0].messages[0], wides[0].messages[1]);
    /* catch-up on the group's shard, everything else on the first */
    ck_assert_int_eq(wides[0].served[1], 2);
    ck_assert_int_eq(wides[0].served[0], 6);
    env_uv_stop(envs[1]);
    env_uv_thread_join(envs[1]);
    env_uv_free(envs[0]);
    env_uv_free(envs[1]);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("transport_uv");
    TCase *tc = tcase_create("loopback");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 30);
    tcase_add_test(tc, test_exchange__messages_and_calls);
    tcase_add_test(tc, test_peer_down__when_it_is_gone);
    tcase_add_test(tc, test_stall__of_ourselves_is_nobodys_silence);
    suite_add_tcase(s, tc);
    tc = tcase_create("threads");
    tcase_set_timeout(tc, 30);
    tcase_add_test(tc, test_shards__on_two_threads);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
