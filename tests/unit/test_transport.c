/* The transport in the simulated network: exchange, loss, silence, bounds,
 * calls, damage, hellos, shards. Times are virtual. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "raft/peer_frame.h"
#include "tests/sim/sim_env.h"

#define BROKERS 3
#define SHARDS_MAX 3

static struct sim *sim;

/* What a test knows of a broker; the transports die with the node. */
struct broker {
    struct sim_node *node;
    node_id id;
    unsigned n_shards;
    uint8_t directory; /* its first byte */
    uint8_t cluster;   /* its first byte; 0: none */
    uint64_t queue_max;
    bool alone;    /* knows nobody at boot */
    node_id shuns; /* does not admit; -1: nobody */
    struct transport *t[SHARDS_MAX];
    int ups, downs;
    uint64_t up_ns, down_ns; /* the newest */
    node_id up_node, down_node;
    int messages;
    unsigned on_shard; /* of the newest message */
    size_t bytes;
    struct rpc_request *kept; /* of a request that is not answered */
};

static struct broker brokers[BROKERS + 1];

static void address_of(int i, char out[32])
{
    snprintf(out, 32, "b%d:9000", i);
}

/* ---- a broker ------------------------------------------------------------ */

static enum err on_admit(void *arg, const struct uuid *cluster, node_id node,
                         const struct uuid *directory, char *why,
                         size_t why_size)
{
    struct broker *b = arg;
    (void)cluster;
    (void)directory;
    if (node != b->shuns)
        return ERR_OK;
    snprintf(why, why_size, "broker %d was removed", node);
    return ERR_REFUSED;
}

static void on_up(void *arg, node_id node)
{
    struct broker *b = arg;
    b->ups++;
    b->up_node = node;
    b->up_ns = sim_now_ns(sim);
}

static void on_down(void *arg, node_id node)
{
    struct broker *b = arg;
    b->downs++;
    b->down_node = node;
    b->down_ns = sim_now_ns(sim);
}

static const struct transport_ops ops = {on_admit, on_up, on_down};

struct raft_arg {
    struct broker *b;
    unsigned shard;
};

static void on_raft(void *arg, node_id from, const struct group_id *group,
                    const uint8_t *body, size_t size)
{
    struct raft_arg *r = arg;
    (void)from;
    (void)group;
    for (size_t i = 0; i < size; i += 97)
        ck_assert_uint_eq(body[i], (uint8_t)(i * 7));
    r->b->messages++;
    r->b->bytes += size;
    r->b->on_shard = r->shard;
}

static void on_echo(void *arg, struct rpc_request *request, node_id from,
                    const uint8_t *body, size_t size)
{
    (void)arg;
    (void)from;
    rpc_respond(request, ERR_OK, body, size);
}

static void on_keep(void *arg, struct rpc_request *request, node_id from,
                    const uint8_t *body, size_t size)
{
    struct broker *b = arg;
    (void)from;
    (void)body;
    (void)size;
    b->kept = request;
}

/* Answers with the number of the shard it came to. */
static void on_which_shard(void *arg, struct rpc_request *request, node_id from,
                           const uint8_t *body, size_t size)
{
    struct raft_arg *r = arg;
    uint8_t shard = (uint8_t)r->shard;
    (void)from;
    (void)body;
    (void)size;
    rpc_respond(request, ERR_OK, &shard, 1);
}

static void boot_shard(struct broker *b, unsigned shard)
{
    struct transport_options options = {
        .env = sim_env(b->node, shard),
        .shard = shard,
        .n_shards = b->n_shards,
        .node = b->id,
        .directory = {{b->directory}},
        .queue_bytes_max = b->queue_max,
    };
    struct uuid cluster = {{b->cluster}};
    struct raft_arg *r = mem_alloc(sizeof *r);
    *r = (struct raft_arg){b, shard};
    struct transport *t = transport_new(&options, &ops, b);
    b->t[shard] = t;
    transport_set_cluster(t, &cluster);
    transport_set_raft_handler(t, on_raft, r);
    transport_serve(t, RPC_COORDINATOR, on_echo, b);
    transport_serve(t, RPC_FORMATION, on_keep, b);
    transport_serve(t, RPC_METADATA_PROPOSE, on_which_shard, r);
    transport_serve(t, RPC_CATCHUP, on_which_shard, r);
}

static void boot(struct env *env, void *arg)
{
    struct broker *b = arg;
    char address[32];
    (void)env;
    struct transport **all = mem_zalloc(SHARDS_MAX * sizeof *all);
    for (unsigned i = 0; i < b->n_shards; i++)
        boot_shard(b, i);
    memcpy(all, b->t, sizeof b->t);
    address_of((int)(b - brokers), address);
    for (unsigned s = 0; s < b->n_shards; s++) {
        transport_set_shards(b->t[s], all, b->n_shards);
        transport_set_address(b->t[s], address);
        for (int i = 0; i < BROKERS && !b->alone; i++) {
            address_of(i, address);
            transport_set_peer(b->t[s], i, address);
            address_of((int)(b - brokers), address);
        }
    }
    ck_assert_int_eq(transport_listen(b->t[0], address), ERR_OK);
}

static struct broker *broker_add(int i)
{
    char name[8];
    struct broker *b = &brokers[i];
    snprintf(name, sizeof name, "b%d", i);
    *b = (struct broker){
        .id = i,
        .n_shards = 1,
        .directory = (uint8_t)(i + 1),
        .queue_max = 1 << 20,
        .shuns = -1,
    };
    return b;
}

static void broker_start(struct broker *b)
{
    char name[8];
    snprintf(name, sizeof name, "b%d", (int)(b - brokers));
    b->node = sim_node_add(sim, name, b->n_shards);
    sim_node_start(b->node, boot, b);
}

static void setup(void)
{
    sim = sim_new(1);
    for (int i = 0; i < BROKERS; i++)
        broker_add(i);
    broker_add(BROKERS);
}

static void start_all(void)
{
    for (int i = 0; i < BROKERS; i++)
        broker_start(&brokers[i]);
    sim_run_for(sim, 300 * SIM_MS);
    for (int i = 0; i < BROKERS; i++) {
        ck_assert_int_eq(brokers[i].ups, 2 * (int)brokers[i].n_shards);
        ck_assert_int_eq(brokers[i].downs, 0);
    }
}

static void teardown(void)
{
    sim_free(sim);
}

/* ---- acting as a broker -------------------------------------------------- */

struct sending {
    struct broker *from;
    unsigned shard;
    node_id to;
    struct group_id group;
    size_t size;
    int times, sent;
};

static void do_send(struct env *env, void *arg)
{
    struct sending *s = arg;
    (void)env;
    uint8_t *body = mem_alloc(s->size);
    for (size_t i = 0; i < s->size; i++)
        body[i] = (uint8_t)(i * 7);
    struct transport_piece piece = {.data = body, .size = s->size};
    for (int i = 0; i < s->times; i++)
        s->sent += transport_send_raft(s->from->t[s->shard], s->to, &s->group,
                                       &piece, 1);
    mem_free(body);
}

static int send_raft(struct broker *from, node_id to, size_t size, int times)
{
    struct sending s = {from, 0, to, GROUP_METADATA, size, times, 0};
    sim_node_call(from->node, 0, do_send, &s);
    return s.sent;
}

struct answered {
    struct rpc_call call;
    struct broker *from;
    unsigned shard;
    node_id to;
    const char *seed;
    enum rpc_kind kind;
    const uint8_t *body;
    size_t body_size;
    uint32_t timeout_ms;
    int times, calls;
    enum err status;
    size_t size;
    uint64_t ns;
    uint8_t first, last;
};

static void on_answer(struct rpc_call *call, enum err status,
                      const uint8_t *body, size_t size)
{
    struct answered *a = call->arg;
    a->calls++;
    a->status = status;
    a->size = size;
    a->ns = sim_now_ns(sim);
    a->first = size > 0 ? body[0] : 0;
    a->last = size > 0 ? body[size - 1] : 0;
}

static void do_call(struct env *env, void *arg)
{
    struct answered *a = arg;
    (void)env;
    a->call = (struct rpc_call){.cb = on_answer, .arg = a};
    if (a->seed != NULL)
        transport_call_seed(a->from->t[a->shard], a->seed, a->kind, a->body,
                            a->body_size, a->timeout_ms, &a->call);
    else
        transport_call(a->from->t[a->shard], a->to, a->kind, a->body,
                       a->body_size, a->timeout_ms, &a->call);
    ck_assert_int_eq(a->calls, 0);
}

static void begin_call(struct answered *a, struct broker *from, node_id to,
                       enum rpc_kind kind)
{
    a->from = from;
    a->to = to;
    a->kind = kind;
    if (a->timeout_ms == 0)
        a->timeout_ms = 1000;
    sim_node_call(from->node, a->shard, do_call, a);
}

static bool is_answered(void *arg)
{
    return ((struct answered *)arg)->calls > 0;
}

static enum err ask(struct answered *a, struct broker *from, node_id to,
                    enum rpc_kind kind)
{
    begin_call(a, from, to, kind);
    sim_run_while_not(sim, is_answered, a, 30 * SIM_S);
    ck_assert_int_eq(a->calls, 1);
    return a->status;
}

static void do_cancel(struct env *env, void *arg)
{
    struct answered *a = arg;
    (void)env;
    transport_cancel(a->from->t[a->shard], &a->call);
}

struct reading {
    struct broker *b;
    node_id node;
    const char *seed;
    struct transport_peer_stats stats;
    char why[600];
    bool refuses; /* the seed */
};

static void do_read(struct env *env, void *arg)
{
    struct reading *r = arg;
    struct transport_peer_stats stats[8];
    struct transport *t = r->b->t[0];
    (void)env;
    size_t n = transport_stats(t, stats, 8);
    for (size_t i = 0; i < n; i++)
        if (stats[i].node == r->node)
            r->stats = stats[i];
    snprintf(r->why, sizeof r->why, "%s",
             r->seed != NULL ? transport_seed_refusal(t, r->seed)
                             : transport_refusal(t, r->node));
    r->refuses = r->seed != NULL && transport_seed_refuses(t, r->seed);
}

static struct reading read_of(struct broker *b, node_id node)
{
    struct reading r = {.b = b, .node = node};
    sim_node_call(b->node, 0, do_read, &r);
    return r;
}

static bool is_up_again(void *arg)
{
    struct broker *b = arg;
    return b->ups > 2 && b->up_ns > b->down_ns;
}

static bool is_down(void *arg)
{
    return ((struct broker *)arg)->downs > 0;
}

/* ---- exchange and loss --------------------------------------------------- */

START_TEST(test_exchange__in_both_directions)
{
    start_all();
    ck_assert_int_eq(send_raft(&brokers[0], 1, 100, 10), 10);
    ck_assert_int_eq(send_raft(&brokers[1], 0, 70000, 3), 3);
    ck_assert_int_eq(send_raft(&brokers[1], 1, 10, 1), 0); /* no such peer */
    ck_assert_int_eq(send_raft(&brokers[1], 9, 10, 1), 0);
    sim_run_for(sim, 50 * SIM_MS);
    ck_assert_int_eq(brokers[1].messages, 10);
    ck_assert_uint_eq(brokers[1].bytes, 1000);
    ck_assert_int_eq(brokers[0].messages, 3);
    ck_assert_uint_eq(brokers[0].bytes, 210000);
    ck_assert_int_eq(brokers[2].messages, 0);
    struct reading r = read_of(&brokers[0], 1);
    ck_assert_uint_eq(r.stats.raft_sent, 10);
    ck_assert_uint_eq(r.stats.raft_received, 3);
    ck_assert_uint_gt(r.stats.rtt_us, 0);
    ck_assert_uint_eq(r.stats.queued_bytes, 0);
}
END_TEST

START_TEST(test_reset__is_healed_at_once_and_nobody_is_down)
{
    start_all();
    struct answered a = {0};
    begin_call(&a, &brokers[0], 1, RPC_FORMATION); /* never answered */
    sim_run_for(sim, 10 * SIM_MS);
    sim_net_reset(sim, brokers[0].node, brokers[1].node);
    sim_run_for(sim, 100 * SIM_MS);
    ck_assert_int_eq(a.calls, 1);
    ck_assert_int_eq(a.status, ERR_UNREACHABLE);
    ck_assert_int_eq(send_raft(&brokers[0], 1, 100, 1), 1);
    ck_assert_int_eq(send_raft(&brokers[1], 0, 100, 1), 1);
    sim_run_for(sim, 50 * SIM_MS);
    ck_assert_int_eq(brokers[0].messages, 1);
    ck_assert_int_eq(brokers[1].messages, 1);
    ck_assert_int_eq(brokers[0].downs + brokers[1].downs, 0);
    ck_assert_uint_eq(
        sim_net_connections(sim, brokers[0].node, brokers[1].node),
        2 * LANE_COUNT);
    /* the answer of a call that is gone goes nowhere */
    rpc_respond(brokers[1].kept, ERR_OK, NULL, 0);
    sim_run_for(sim, 50 * SIM_MS);
    ck_assert_int_eq(a.calls, 1);
}
END_TEST

static void expect_down(struct broker *b, node_id node, uint64_t from_ns)
{
    ck_assert_int_eq(b->downs, 1);
    ck_assert_int_eq(b->down_node, node);
    ck_assert_uint_ge(b->down_ns - from_ns, 500 * SIM_MS);
    ck_assert_uint_le(b->down_ns - from_ns, 800 * SIM_MS);
}

START_TEST(test_cut__is_found_by_silence_and_heals)
{
    start_all();
    uint64_t cut_ns = sim_now_ns(sim);
    sim_net_cut_both(sim, brokers[0].node, brokers[1].node);
    sim_net_cut_both(sim, brokers[0].node, brokers[2].node);
    sim_run_for(sim, 3 * SIM_S);
    expect_down(&brokers[1], 0, cut_ns);
    expect_down(&brokers[2], 0, cut_ns);
    ck_assert_int_eq(brokers[0].downs, 2);
    ck_assert_int_eq(send_raft(&brokers[0], 1, 10, 1), 0);
    struct answered a = {0};
    ck_assert_int_eq(ask(&a, &brokers[0], 1, RPC_COORDINATOR), ERR_UNREACHABLE);
    uint64_t heal_ns = sim_now_ns(sim);
    sim_net_heal_all(sim);
    ck_assert(sim_run_while_not(sim, is_up_again, &brokers[1], 5 * SIM_S));
    ck_assert_uint_le(sim_now_ns(sim) - heal_ns, 2500 * SIM_MS);
    sim_run_for(sim, 3 * SIM_S);
    ck_assert_int_eq(brokers[0].ups, 4);
    ck_assert_int_eq(brokers[0].downs, 2);
    ck_assert_int_eq(send_raft(&brokers[0], 1, 100, 1), 1);
    sim_run_for(sim, 50 * SIM_MS);
    ck_assert_int_eq(brokers[1].messages, 1);
}
END_TEST

START_TEST(test_cut_one_way__is_found_by_both)
{
    start_all();
    uint64_t cut_ns = sim_now_ns(sim);
    sim_net_cut(sim, brokers[0].node, brokers[1].node);
    sim_run_for(sim, 3 * SIM_S);
    expect_down(&brokers[1], 0, cut_ns);
    ck_assert_int_eq(brokers[0].downs, 1);
    sim_net_heal_all(sim);
    sim_run_for(sim, 5 * SIM_S);
    ck_assert_int_eq(brokers[0].ups, 3);
    ck_assert_int_eq(brokers[1].ups, 3);
}
END_TEST

START_TEST(test_pause__is_found_by_silence_but_the_paused_blames_nobody)
{
    start_all();
    uint64_t begin = sim_now_ns(sim);
    sim_node_pause(brokers[2].node, begin + 5 * SIM_S);
    sim_run_for(sim, 4 * SIM_S);
    expect_down(&brokers[0], 2, begin);
    expect_down(&brokers[1], 2, begin);
    sim_run_for(sim, 4 * SIM_S);
    ck_assert_int_eq(brokers[0].ups, 3);
    ck_assert_int_eq(brokers[1].ups, 3);
    ck_assert_int_eq(brokers[2].downs, 0);
    ck_assert_uint_le(brokers[0].up_ns - (begin + 5 * SIM_S), 1500 * SIM_MS);
}
END_TEST

START_TEST(test_short_pause__is_no_failure)
{
    start_all();
    sim_node_pause(brokers[2].node, sim_now_ns(sim) + 400 * SIM_MS);
    sim_run_for(sim, 3 * SIM_S);
    ck_assert_int_eq(brokers[0].downs + brokers[1].downs + brokers[2].downs, 0);
}
END_TEST

START_TEST(test_kill__is_found_by_refusal_and_return_is_seen)
{
    start_all();
    uint64_t kill_ns = sim_now_ns(sim);
    sim_node_crash(brokers[2].node, SIM_KILL);
    ck_assert(sim_run_while_not(sim, is_down, &brokers[0], 5 * SIM_S));
    ck_assert_uint_le(sim_now_ns(sim) - kill_ns, 100 * SIM_MS);
    sim_run_for(sim, 2 * SIM_S);
    sim_node_restart(brokers[2].node);
    sim_run_for(sim, 300 * SIM_MS); /* its own dialling ends our backoff */
    ck_assert_int_eq(brokers[0].ups, 3);
    ck_assert_int_eq(brokers[0].downs, 1);
}
END_TEST

START_TEST(test_restart__is_told_even_when_quick)
{
    start_all();
    sim_node_crash(brokers[2].node, SIM_KILL);
    sim_node_restart(brokers[2].node);
    sim_run_for(sim, 2 * SIM_S);
    ck_assert_int_eq(brokers[0].downs, 1);
    ck_assert_int_eq(brokers[0].ups, 3);
    ck_assert_int_eq(brokers[1].downs, 1);
    ck_assert_int_eq(brokers[1].ups, 3);
}
END_TEST

/* ---- bounds -------------------------------------------------------------- */

START_TEST(test_queue__is_bounded)
{
    start_all();
    sim_net_bandwidth(sim, 1 << 20);
    int sent = send_raft(&brokers[0], 1, 100 << 10, 50);
    ck_assert_int_ge(sent, 9);
    ck_assert_int_le(sent, 11);
    struct reading r = read_of(&brokers[0], 1);
    ck_assert_uint_eq(r.stats.raft_dropped, (uint64_t)(50 - sent));
    ck_assert_uint_le(r.stats.queued_bytes, (1 << 20) + 1000);
    struct answered a = {.timeout_ms = 10000};
    sim_run_for(sim, 10 * SIM_MS);
    send_raft(&brokers[0], 1, 5 << 10, 50); /* to the brim */
    send_raft(&brokers[0], 1, 1, 5000);
    ck_assert_int_eq(ask(&a, &brokers[0], 1, RPC_COORDINATOR), ERR_OK);
    sim_run_for(sim, 5 * SIM_S);
    ck_assert_int_ge(brokers[1].messages, sent);
    ck_assert_int_eq(brokers[0].downs + brokers[1].downs, 0);
    r = read_of(&brokers[0], 1);
    ck_assert_uint_eq(r.stats.queued_bytes, 0);
    /* what is larger than the bound passes when nothing is queued */
    ck_assert_int_eq(send_raft(&brokers[0], 1, 2 << 20, 2), 1);
    struct answered busy = {.timeout_ms = 10000};
    ck_assert_int_eq(ask(&busy, &brokers[0], 1, RPC_COORDINATOR), ERR_BUSY);
    sim_run_for(sim, 5 * SIM_S);
    ck_assert_int_eq(send_raft(&brokers[0], 1, 100, 1), 1);
}
END_TEST

START_TEST(test_bulk__does_not_delay_messages)
{
    start_all();
    sim_net_bandwidth(sim, 4 << 20);
    struct answered a = {.timeout_ms = 20000, .body_size = 8 << 20};
    uint8_t *body = calloc(1, a.body_size);
    a.body = body;
    begin_call(&a, &brokers[0], 1, RPC_CLIENT_REQUEST);
    ck_assert_int_eq(send_raft(&brokers[0], 1, 100, 1), 1);
    sim_run_for(sim, 50 * SIM_MS);
    ck_assert_int_eq(brokers[1].messages, 1);
    ck_assert_int_eq(a.calls, 0);
    sim_run_for(sim, 10 * SIM_S);
    ck_assert_int_eq(a.status, ERR_NOT_READY); /* nobody serves it */
    ck_assert_int_eq(brokers[0].downs + brokers[1].downs, 0);
    free(body);
}
END_TEST

/* ---- calls --------------------------------------------------------------- */

START_TEST(test_call__answers_of_all_sizes)
{
    start_all();
    static const size_t sizes[] = {0, 1, 20, 4096, 100000, 10 << 20};
    uint8_t *body = calloc(1, 10 << 20);
    for (int i = 0; i < 6; i++) {
        for (node_id to = 0; to < 2; to++) { /* itself, another */
            struct answered a = {.body = body, .body_size = sizes[i]};
            if (sizes[i] > 0) {
                body[0] = 0x11;
                body[sizes[i] - 1] = 0x22;
            }
            ck_assert_int_eq(ask(&a, &brokers[0], to, RPC_COORDINATOR), ERR_OK);
            ck_assert_uint_eq(a.size, sizes[i]);
            if (sizes[i] > 1)
                ck_assert(a.first == 0x11 && a.last == 0x22);
        }
    }
    free(body);
}
END_TEST

START_TEST(test_call__times_out_and_the_late_answer_is_ignored)
{
    start_all();
    for (node_id to = 0; to < 2; to++) {
        struct answered a = {.timeout_ms = 250};
        uint64_t begin = sim_now_ns(sim);
        ck_assert_int_eq(ask(&a, &brokers[0], to, RPC_FORMATION), ERR_TIMEOUT);
        ck_assert_uint_ge(a.ns - begin, 250 * SIM_MS);
        ck_assert_uint_le(a.ns - begin, 270 * SIM_MS);
        ck_assert_ptr_nonnull(brokers[to].kept);
        rpc_respond(brokers[to].kept, ERR_OK, NULL, 0);
        sim_run_for(sim, 100 * SIM_MS);
        ck_assert_int_eq(a.calls, 1);
    }
}
END_TEST

START_TEST(test_call__cancelled_is_never_called_back)
{
    start_all();
    for (node_id to = 0; to < 3; to++) {
        struct answered a = {.timeout_ms = 250};
        begin_call(&a, &brokers[0], to < 2 ? to : 7, RPC_COORDINATOR);
        sim_node_call(brokers[0].node, 0, do_cancel, &a);
        sim_run_for(sim, SIM_S);
        /* to itself and to nobody it was answered in its own turn */
        ck_assert_int_eq(a.calls, to == 1 ? 0 : 1);
    }
}
END_TEST

START_TEST(test_call__unknown_kind_unknown_peer_too_large)
{
    start_all();
    struct answered a = {0}, b = {0}, c = {0};
    ck_assert_int_eq(ask(&a, &brokers[0], 7, RPC_COORDINATOR), ERR_UNREACHABLE);
    ck_assert_int_eq(ask(&b, &brokers[0], 1, (enum rpc_kind)99),
                     ERR_UNSUPPORTED);
    uint8_t *body = calloc(1, RPC_SIZE_MAX + 1);
    c.body = body;
    c.body_size = (size_t)RPC_SIZE_MAX + 1;
    ck_assert_int_eq(ask(&c, &brokers[0], 1, RPC_COORDINATOR), ERR_TOO_LARGE);
    free(body);
}
END_TEST

START_TEST(test_call__too_many_wait_there)
{
    start_all();
    static struct answered a[LIMIT_RPC_PENDING + 2];
    memset(a, 0, sizeof a);
    for (int i = 0; i < LIMIT_RPC_PENDING + 2; i++) {
        a[i].timeout_ms = 60000;
        begin_call(&a[i], &brokers[0], 1, RPC_FORMATION); /* never answered */
    }
    sim_run_for(sim, SIM_S);
    for (int i = 0; i < LIMIT_RPC_PENDING; i++)
        ck_assert_int_eq(a[i].calls, 0);
    for (int i = LIMIT_RPC_PENDING; i < LIMIT_RPC_PENDING + 2; i++)
        ck_assert_int_eq(a[i].status, ERR_BUSY);
    /* one is answered: there is room for one */
    rpc_respond(brokers[1].kept, ERR_OK, NULL, 0);
    struct answered b = {.timeout_ms = 100};
    sim_run_for(sim, 10 * SIM_MS);
    ck_assert_int_eq(ask(&b, &brokers[0], 1, RPC_FORMATION), ERR_TIMEOUT);
}
END_TEST

START_TEST(test_call__fails_when_the_peer_dies)
{
    start_all();
    struct answered a = {.timeout_ms = 60000};
    begin_call(&a, &brokers[0], 1, RPC_FORMATION);
    sim_run_for(sim, 20 * SIM_MS);
    sim_node_crash(brokers[1].node, SIM_KILL);
    sim_run_for(sim, SIM_S);
    ck_assert_int_eq(a.calls, 1);
    ck_assert_int_eq(a.status, ERR_UNREACHABLE);
}
END_TEST

/* ---- seeds and hellos ---------------------------------------------------- */

struct seeding {
    struct broker *b;
    const char *address;
    node_id node;
};

static void do_add_seed(struct env *env, void *arg)
{
    struct seeding *s = arg;
    (void)env;
    transport_add_seed(s->b->t[0], s->address);
    s->node = transport_seed_node(s->b->t[0], s->address);
}

static node_id seed(struct broker *b, const char *address)
{
    struct seeding s = {b, address, -1};
    sim_node_call(b->node, 0, do_add_seed, &s);
    return s.node;
}

START_TEST(test_seed__becomes_the_peer_and_can_be_called)
{
    brokers[0].alone = brokers[1].alone = true;
    brokers[1].id = 41;
    broker_start(&brokers[0]);
    broker_start(&brokers[1]);
    sim_run_for(sim, 10 * SIM_MS);
    ck_assert_int_eq(seed(&brokers[0], "b0:9000"), -1); /* itself */
    ck_assert_int_eq(seed(&brokers[0], "b1:9000"), -1);
    struct answered early = {.seed = "b1:9000"};
    ck_assert_int_eq(ask(&early, &brokers[0], 0, RPC_COORDINATOR),
                     ERR_UNREACHABLE);
    sim_run_for(sim, 500 * SIM_MS);
    ck_assert_int_eq(seed(&brokers[0], "b0:9000"), 0);
    ck_assert_int_eq(seed(&brokers[0], "b1:9000"), 41);
    ck_assert_int_eq(brokers[0].ups, 1);
    ck_assert_int_eq(brokers[0].up_node, 41);
    ck_assert_int_eq(brokers[1].ups, 1); /* it learned from the hello */
    ck_assert_int_eq(brokers[1].up_node, 0);
    struct answered a = {.seed = "b1:9000"}, self = {.seed = "b0:9000"};
    ck_assert_int_eq(ask(&a, &brokers[0], 0, RPC_COORDINATOR), ERR_OK);
    ck_assert_int_eq(ask(&self, &brokers[0], 0, RPC_COORDINATOR), ERR_OK);
    ck_assert_uint_eq(
        sim_net_connections(sim, brokers[0].node, brokers[1].node),
        2 * LANE_COUNT);
}
END_TEST

static void expect_refusal(struct broker *b, node_id node, const char *part)
{
    struct reading r = read_of(b, node);
    if (strstr(r.why, part) == NULL)
        ck_abort_msg("\"%s\" is not in \"%s\"", part, r.why);
}

START_TEST(test_hello__another_cluster_is_refused)
{
    brokers[0].cluster = brokers[1].cluster = 7;
    brokers[2].cluster = 8;
    for (int i = 0; i < BROKERS; i++)
        broker_start(&brokers[i]);
    sim_run_for(sim, 2 * SIM_S);
    ck_assert_int_eq(brokers[0].ups, 1);
    ck_assert_int_eq(brokers[0].up_node, 1);
    ck_assert_int_eq(brokers[2].ups, 0);
    expect_refusal(&brokers[0], 2, "belongs to cluster");
    expect_refusal(&brokers[2], 0, "belongs to cluster");
    expect_refusal(&brokers[2], 0, "refused");
    ck_assert_str_eq(read_of(&brokers[0], 1).why, "");
}
END_TEST

START_TEST(test_hello__a_second_broker_with_a_node_id_is_refused)
{
    start_all();
    struct broker *twin = &brokers[BROKERS];
    twin->id = 0; /* but another directory */
    broker_start(twin);
    sim_run_for(sim, 2 * SIM_S);
    ck_assert_int_eq(seed(twin, "b0:9000"), -1);
    sim_run_for(sim, SIM_S);
    struct reading r = {.b = twin, .node = -1, .seed = "b0:9000"};
    sim_node_call(twin->node, 0, do_read, &r);
    ck_assert_ptr_nonnull(strstr(r.why, "node.id 0"));
    ck_assert(r.refuses);
    ck_assert_int_eq(brokers[0].downs, 0);
    /* one that is not there does not refuse */
    sim_node_crash(brokers[0].node, SIM_KILL);
    sim_run_for(sim, 3 * SIM_S);
    sim_node_call(twin->node, 0, do_read, &r);
    ck_assert_ptr_null(strstr(r.why, "node.id 0"));
    ck_assert_str_ne(r.why, "");
    ck_assert(!r.refuses);
}
END_TEST

START_TEST(test_hello__whom_the_owner_does_not_admit_is_refused)
{
    brokers[0].shuns = 2;
    for (int i = 0; i < BROKERS; i++)
        broker_start(&brokers[i]);
    sim_run_for(sim, 2 * SIM_S);
    ck_assert_int_eq(brokers[0].ups, 1);
    ck_assert_int_eq(brokers[2].ups, 1);
    expect_refusal(&brokers[2], 0, "broker 2 was removed");
    expect_refusal(&brokers[0], 2, "broker 2 was removed");
}
END_TEST

struct pointing {
    struct broker *b;
    node_id node;
    const char *address;
};

static void do_set_peer(struct env *env, void *arg)
{
    struct pointing *p = arg;
    (void)env;
    if (p->address != NULL)
        transport_set_peer(p->b->t[0], p->node, p->address);
    else
        transport_remove_peer(p->b->t[0], p->node);
}

START_TEST(test_peer__wrong_address_is_told_and_a_new_one_reconnects)
{
    start_all();
    struct pointing p = {&brokers[0], 2, "b1:9000"};
    sim_node_call(brokers[0].node, 0, do_set_peer, &p);
    sim_run_for(sim, SIM_S);
    expect_refusal(&brokers[0], 2, "broker 1 answers where broker 2");
    ck_assert_int_eq(brokers[0].downs, 1);
    p.address = "b2:9000";
    sim_node_call(brokers[0].node, 0, do_set_peer, &p);
    sim_run_for(sim, SIM_S);
    ck_assert_int_eq(brokers[0].ups, 3);
    ck_assert_str_eq(read_of(&brokers[0], 2).why, "");
    p.address = NULL;
    struct answered a = {.timeout_ms = 30000};
    begin_call(&a, &brokers[0], 2, RPC_FORMATION);
    brokers[0].shuns = 2;
    sim_node_call(brokers[0].node, 0, do_set_peer, &p);
    sim_run_for(sim, SIM_S);
    ck_assert_int_eq(a.status, ERR_UNREACHABLE);
    ck_assert_int_eq(brokers[0].downs, 1);
    ck_assert_uint_eq(read_of(&brokers[0], 2).stats.connects, 0);
}
END_TEST

static bool knows(struct broker *b, node_id node)
{
    return read_of(b, node).stats.connects > 0;
}

static void do_forget_peer(struct env *env, void *arg)
{
    struct pointing *p = arg;
    (void)env;
    transport_forget_peer(p->b->t[0], p->node);
}

/* Nobody named it to us: when it is gone for long it is not dialled any more.
 */
START_TEST(test_peer__that_came_by_itself_is_forgotten)
{
    brokers[0].alone = true;
    broker_start(&brokers[0]);
    broker_start(&brokers[1]);
    broker_start(&brokers[2]);
    sim_run_for(sim, SIM_S);
    ck_assert_int_eq(brokers[0].ups, 2);
    seed(&brokers[0], "b2:9000"); /* as a seed it is named */
    sim_run_for(sim, SIM_S);
    sim_node_crash(brokers[1].node, SIM_KILL);
    sim_node_crash(brokers[2].node, SIM_KILL);
    sim_run_for(sim, 5 * SIM_S);
    ck_assert(knows(&brokers[0], 1));
    sim_run_for(sim, 10 * SIM_S);
    ck_assert(!knows(&brokers[0], 1));
    ck_assert_int_eq(brokers[0].downs, 2);
    ck_assert(knows(&brokers[0], 2));
    sim_node_restart(brokers[1].node);
    sim_run_for(sim, SIM_S);
    ck_assert_int_eq(brokers[0].ups, 3);
    ck_assert_int_eq(brokers[0].up_node, 1);
}
END_TEST

/* Also one that was named, and is not a member any more. */
START_TEST(test_peer__that_is_no_member_is_forgotten_when_it_is_gone)
{
    start_all();
    struct pointing p = {&brokers[0], 2, NULL};
    sim_node_call(brokers[0].node, 0, do_forget_peer, &p);
    sim_run_for(sim, 20 * SIM_S);
    ck_assert_int_eq(brokers[0].downs, 0); /* as long as it is there it stays */
    ck_assert(knows(&brokers[0], 2));
    sim_node_crash(brokers[1].node, SIM_KILL);
    sim_node_crash(brokers[2].node, SIM_KILL);
    sim_run_for(sim, 20 * SIM_S);
    ck_assert(!knows(&brokers[0], 2));
    ck_assert(knows(&brokers[0], 1));
    p.node = 1;
    sim_node_call(brokers[0].node, 0, do_forget_peer, &p); /* it is gone */
    ck_assert(!knows(&brokers[0], 1));
    sim_node_restart(brokers[2].node);
    sim_run_for(sim, SIM_S);
    ck_assert_int_eq(brokers[0].ups, 3);
    ck_assert_int_eq(brokers[0].up_node, 2);
}
END_TEST

/* ---- damage -------------------------------------------------------------- */

/* A stranger that sends bytes and notes how the connection ends. */
struct stranger {
    const uint8_t *bytes;
    size_t size;
    struct env_write write;
    struct env_stream *stream;
    uint8_t in[4096];
    size_t got;
    bool ended;
};

static void stranger_written(struct env_write *req, enum err status)
{
    (void)req;
    (void)status;
}

static void stranger_connected(struct env_stream *stream, enum err status)
{
    struct stranger *s = env_stream_arg(stream);
    union {
        const uint8_t *in;
        uint8_t *out;
    } p = {.in = s->bytes};
    struct iovec iov = {p.out, s->size};
    ck_assert_int_eq(status, ERR_OK);
    s->write = (struct env_write){.cb = stranger_written};
    env_stream_write(stream, &s->write, &iov, 1);
}

static struct iovec stranger_alloc(struct env_stream *stream)
{
    struct stranger *s = env_stream_arg(stream);
    return (struct iovec){s->in + s->got, sizeof s->in - s->got};
}

static void stranger_read(struct env_stream *stream, size_t size,
                          enum err status)
{
    struct stranger *s = env_stream_arg(stream);
    s->got += size;
    if (status != ERR_OK) {
        s->ended = true;
        env_stream_close(stream);
    }
}

static void stranger_closed(struct env_stream *stream)
{
    struct stranger *s = env_stream_arg(stream);
    s->stream = NULL;
}

static const struct env_stream_ops stranger_ops = {
    stranger_connected, stranger_alloc, stranger_read, stranger_closed};

static void do_stranger(struct env *env, void *arg)
{
    struct stranger *s = arg;
    s->stream = env_stream_connect(env, "b0:9000", &stranger_ops, s);
}

/* Sends bytes to broker 0; true when it closes the connection in that time. */
static bool is_closed_on(struct sim_node *from, struct stranger *s,
                         const uint8_t *bytes, size_t size, uint64_t ms)
{
    *s = (struct stranger){.bytes = bytes, .size = size};
    sim_node_call(from, 0, do_stranger, s);
    sim_run_for(sim, ms * SIM_MS);
    return s->ended;
}

static size_t frame_write(uint8_t *out, enum peer_kind kind, const void *body,
                          size_t size, uint32_t crc)
{
    struct peer_frame f = {kind, (uint32_t)size, 1, 1, crc};
    peer_frame_write(&f, out);
    if (size > 0)
        memcpy(out + PEER_FRAME_HEADER, body, size);
    return PEER_FRAME_HEADER + size;
}

#include "base/crc32c.h"

static size_t hello_frame(uint8_t *out)
{
    struct peer_hello hello = {.version = PEER_VERSION,
                               .lane = LANE_MAIN,
                               .n_shards = 1,
                               .node = 77,
                               .directory = {{9}}};
    uint8_t body[PEER_HELLO_MAX];
    size_t size = peer_hello_write(&hello, body);
    return frame_write(out, PEER_HELLO, body, size, crc32c(0, body, size));
}

START_TEST(test_damage__closes_the_connection_and_nothing_else)
{
    start_all();
    struct sim_node *node = sim_node_add(sim, "stranger", 1);
    sim_node_start(node, NULL, NULL);
    sim_run_for(sim, SIM_MS);
    static uint8_t bytes[8192];
    static struct stranger s;
    size_t n = hello_frame(bytes);
    /* a good hello is answered, and then silence is closed after a while */
    ck_assert(!is_closed_on(node, &s, bytes, n, 5000));
    ck_assert_uint_gt(s.got, PEER_FRAME_HEADER);
    sim_run_for(sim, 10 * SIM_S);
    ck_assert(s.ended);
    /* any bit of it flipped is not */
    for (size_t bit = 0; bit < 8 * n; bit += 37) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        ck_assert(is_closed_on(node, &s, bytes, n, 20));
        ck_assert_uint_eq(s.got, 0);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    /* garbage, silence, a message before the hello, a huge first frame */
    static const uint8_t garbage[] = "GET / HTTP/1.1\r\nHost: b0:9000\r\n\r\n";
    ck_assert(is_closed_on(node, &s, garbage, sizeof garbage - 1, 20));
    ck_assert(is_closed_on(node, &s, bytes, 10, 3500));
    uint8_t other[64];
    size_t m = frame_write(other, PEER_RAFT, "x", 1, crc32c(0, "x", 1));
    ck_assert(is_closed_on(node, &s, other, m, 20));
    struct peer_frame huge = {PEER_RPC_REQUEST, RPC_SIZE_MAX, 1, 1, 0};
    peer_frame_write(&huge, other);
    ck_assert(is_closed_on(node, &s, other, PEER_FRAME_HEADER, 20));
    /* after the hello: a damaged body, a kind that is not for it, too large */
    m = frame_write(bytes + n, PEER_RAFT, "x", 1, crc32c(0, "y", 1));
    ck_assert(is_closed_on(node, &s, bytes, n + m, 20));
    m = frame_write(bytes + n, PEER_PONG, NULL, 0, 0);
    ck_assert(is_closed_on(node, &s, bytes, n + m, 20));
    huge.size = RPC_SIZE_MAX + 1;
    peer_frame_write(&huge, bytes + n);
    ck_assert(is_closed_on(node, &s, bytes, n + PEER_FRAME_HEADER, 20));
    /* a short message is ignored, a request of unknown kind answered */
    m = frame_write(bytes + n, PEER_RAFT, "x", 1, crc32c(0, "x", 1));
    ck_assert(!is_closed_on(node, &s, bytes, n + m, 20));
    ck_assert_int_eq(brokers[0].messages, 0);
    ck_assert_int_eq(brokers[0].downs, 0);
    ck_assert_int_eq(send_raft(&brokers[1], 0, 100, 1), 1);
    sim_run_for(sim, 20 * SIM_MS);
    ck_assert_int_eq(brokers[0].messages, 1);
}
END_TEST

/* ---- shards -------------------------------------------------------------- */

static struct group_id group_on(unsigned shard, unsigned n_shards)
{
    struct group_id id = {{{5}}, 0};
    while (group_id_shard(&id, n_shards) != shard)
        id.partition++;
    return id;
}

static void expect_shard(struct broker *from, unsigned from_shard, node_id to,
                         enum rpc_kind kind, const struct group_id *group,
                         unsigned expected)
{
    uint8_t body[PEER_GROUP_ID_SIZE];
    struct answered a = {
        .shard = from_shard, .body = body, .body_size = sizeof body};
    peer_group_id_write(group, body);
    ck_assert_int_eq(ask(&a, from, to, kind), ERR_OK);
    ck_assert_uint_eq(a.first, expected);
}

START_TEST(test_shards__messages_and_requests_find_theirs)
{
    brokers[0].n_shards = 2;
    brokers[1].n_shards = 3;
    start_all();
    for (int to = 0; to < BROKERS; to++) {
        unsigned n = brokers[to].n_shards;
        for (int from = 0; from < BROKERS; from++) {
            for (unsigned s = 0; s < brokers[from].n_shards; s++) {
                struct group_id group = group_on(s % n, n);
                struct sending m = {&brokers[from], s, to, group, 100, 1, 0};
                if (from != to) {
                    sim_node_call(brokers[from].node, s, do_send, &m);
                    ck_assert_int_eq(m.sent, 1);
                    int before = brokers[to].messages;
                    sim_run_for(sim, 20 * SIM_MS);
                    ck_assert_int_eq(brokers[to].messages, before + 1);
                    ck_assert_uint_eq(brokers[to].on_shard, s % n);
                }
                expect_shard(&brokers[from], s, to, RPC_CATCHUP, &group, s % n);
                expect_shard(&brokers[from], s, to, RPC_METADATA_PROPOSE,
                             &group, 0);
            }
        }
    }
    struct answered a = {
        .shard = 1, .body = (const uint8_t *)"x", .body_size = 1};
    ck_assert_int_eq(ask(&a, &brokers[0], 1, RPC_CATCHUP), ERR_INVALID);
    int downs = brokers[0].downs + brokers[2].downs;
    ck_assert_int_eq(downs, 0);
    sim_node_crash(brokers[1].node, SIM_KILL);
    sim_run_for(sim, 2 * SIM_S);
    ck_assert_int_eq(brokers[0].downs, 2); /* each shard tells */
    ck_assert_int_eq(brokers[2].downs, 1);
}
END_TEST

/* ---- frames -------------------------------------------------------------- */

START_TEST(test_hello__round_trip_and_truncation)
{
    struct peer_hello a = {.version = 3,
                           .lane = LANE_BULK,
                           .accepted = true,
                           .shard = 4,
                           .n_shards = 5,
                           .node = 0x7fffffff,
                           .cluster = {{1, 2, 3}},
                           .directory = {{4, 5, 6}},
                           .incarnation = UINT64_MAX,
                           .address = "host:1",
                           .why = "because"},
                      b;
    uint8_t body[PEER_HELLO_MAX];
    size_t size = peer_hello_write(&a, body);
    ck_assert_int_eq(peer_hello_read(body, size, &b), ERR_OK);
    ck_assert_uint_eq(b.version, 3);
    ck_assert_int_eq(b.lane, LANE_BULK);
    ck_assert(b.accepted && b.shard == 4 && b.n_shards == 5);
    ck_assert_int_eq(b.node, 0x7fffffff);
    ck_assert(uuid_equal(&a.cluster, &b.cluster));
    ck_assert(uuid_equal(&a.directory, &b.directory));
    ck_assert_uint_eq(b.incarnation, UINT64_MAX);
    ck_assert_str_eq(b.address, "host:1");
    ck_assert_str_eq(b.why, "because");
    for (size_t i = 0; i < size; i++)
        ck_assert_int_eq(peer_hello_read(body, i, &b), ERR_INVALID);
    /* a later version may append */
    ck_assert_int_eq(peer_hello_read(body, size + 8, &b), ERR_OK);
}
END_TEST

START_TEST(test_frame__a_flipped_bit_is_found)
{
    uint8_t body[40] = {1, 2, 3}, header[PEER_FRAME_HEADER];
    struct peer_frame f = {PEER_RPC_RESPONSE, sizeof body, 0x0102030405060708,
                           ERR_FENCED, crc32c(0, body, sizeof body)},
                      g;
    const char *why;
    peer_frame_write(&f, header);
    ck_assert_int_eq(peer_frame_read(header, &g, &why), ERR_OK);
    ck_assert(g.kind == f.kind && g.size == f.size && g.id == f.id &&
              g.code == f.code && peer_frame_body_intact(&g, body));
    for (size_t bit = 0; bit < 8 * sizeof header; bit++) {
        header[bit / 8] ^= (uint8_t)(1 << bit % 8);
        ck_assert_int_ne(peer_frame_read(header, &g, &why), ERR_OK);
        header[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t bit = 0; bit < 8 * sizeof body; bit++) {
        body[bit / 8] ^= (uint8_t)(1 << bit % 8);
        ck_assert(!peer_frame_body_intact(&f, body));
        body[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("transport");
    TCase *tc = tcase_create("sim");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, test_exchange__in_both_directions);
    tcase_add_test(tc, test_reset__is_healed_at_once_and_nobody_is_down);
    tcase_add_test(tc, test_cut__is_found_by_silence_and_heals);
    tcase_add_test(tc, test_cut_one_way__is_found_by_both);
    tcase_add_test(
        tc, test_pause__is_found_by_silence_but_the_paused_blames_nobody);
    tcase_add_test(tc, test_short_pause__is_no_failure);
    tcase_add_test(tc, test_kill__is_found_by_refusal_and_return_is_seen);
    tcase_add_test(tc, test_restart__is_told_even_when_quick);
    tcase_add_test(tc, test_queue__is_bounded);
    tcase_add_test(tc, test_bulk__does_not_delay_messages);
    tcase_add_test(tc, test_call__answers_of_all_sizes);
    tcase_add_test(tc, test_call__times_out_and_the_late_answer_is_ignored);
    tcase_add_test(tc, test_call__cancelled_is_never_called_back);
    tcase_add_test(tc, test_call__unknown_kind_unknown_peer_too_large);
    tcase_add_test(tc, test_call__too_many_wait_there);
    tcase_add_test(tc, test_call__fails_when_the_peer_dies);
    tcase_add_test(tc, test_seed__becomes_the_peer_and_can_be_called);
    tcase_add_test(tc, test_hello__another_cluster_is_refused);
    tcase_add_test(tc, test_hello__a_second_broker_with_a_node_id_is_refused);
    tcase_add_test(tc, test_hello__whom_the_owner_does_not_admit_is_refused);
    tcase_add_test(tc,
                   test_peer__wrong_address_is_told_and_a_new_one_reconnects);
    tcase_add_test(tc, test_peer__that_came_by_itself_is_forgotten);
    tcase_add_test(tc,
                   test_peer__that_is_no_member_is_forgotten_when_it_is_gone);
    tcase_add_test(tc, test_damage__closes_the_connection_and_nothing_else);
    tcase_add_test(tc, test_shards__messages_and_requests_find_theirs);
    tcase_add_test(tc, test_hello__round_trip_and_truncation);
    tcase_add_test(tc, test_frame__a_flipped_bit_is_found);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
