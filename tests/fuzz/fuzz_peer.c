/* What brokers say to each other. Input: u8 flags (1: CRCs made right), u8 what
 * the bytes are: 0 a connection's frames, given to a listening transport and to
 * its readers directly, 1 a hello, 2 a message of Raft, 3 a change of the
 * metadata, 4 its answer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/mem.h"
#include "metadata/change.h"
#include "raft/message.h"
#include "raft/peer_frame.h"
#include "raft/wal_format.h"
#include "tests/fuzz/fuzz.h"

/* ---- single decoders ----------------------------------------------------- */
static void read_hello(const uint8_t *data, size_t size)
{
    struct peer_hello hello, again;
    uint8_t out[PEER_HELLO_MAX];
    if (peer_hello_read(data, size, &hello) == ERR_OK) {
        size_t n = peer_hello_write(&hello, out);
        FUZZ_CHECK(peer_hello_read(out, n, &again) == ERR_OK);
        FUZZ_CHECK(strcmp(again.address, hello.address) == 0 &&
                   strcmp(again.why, hello.why) == 0 &&
                   again.node == hello.node);
    }
}

static void read_message(const uint8_t *data, size_t size)
{
    struct message m;
    if (message_decode(data, size, &m) != ERR_OK || m.type != MESSAGE_APPEND ||
        m.n_entries == 0) {
        return;
    }
    struct message_entry *entries = mem_alloc(m.n_entries * sizeof *entries);
    if (message_decode_entries(data, size, &m, entries) == ERR_OK) {
        for (uint32_t i = 0; i < m.n_entries; i++) {
            FUZZ_CHECK(crc32c(0, entries[i].payload, entries[i].size) ==
                       entries[i].crc);
        }
    }
    mem_free(entries);
}

static void read_change(const uint8_t *data, size_t size)
{
    struct change change, second;
    struct buffer b = {0}, again = {0};
    if (change_decode(data, size, &change) != ERR_OK) {
        return;
    }
    change_encode(&b, &change);
    FUZZ_CHECK(change_decode(b.data, b.size, &second) == ERR_OK);
    change_encode(&again, &second);
    FUZZ_CHECK(again.size == b.size && memcmp(b.data, again.data, b.size) == 0);
    change_free(&second);
    change_free(&change);
    buffer_free(&b);
    buffer_free(&again);
}

static void read_answer(const uint8_t *data, size_t size)
{
    struct change_answer answer;
    struct buffer b = {0};
    if (change_answer_decode(data, size, &answer) == ERR_OK) {
        change_answer_encode(&b, &answer);
        change_answer_free(&answer);
    }
    buffer_free(&b);
}

/* ---- a connection -------------------------------------------------------- */
struct world {
    struct transport *transport;
    const uint8_t *bytes;
    size_t size;
    struct env_stream *stream;
    struct env_write write;
};

static void on_raft(void *arg, node_id from, const struct group_id *group,
                    const uint8_t *body, size_t size)
{
    (void)arg, (void)from, (void)group;
    read_message(body, size);
}

static void on_call(void *arg, struct rpc_request *request, node_id from,
                    const uint8_t *body, size_t size)
{
    (void)arg, (void)from;
    read_change(body, size);
    rpc_respond(request, ERR_OK, body, size < 64 ? size : 64);
}

static void boot_server(struct env *env, void *arg)
{
    struct world *w = arg;
    struct transport_options options = {
        .env = env,
        .node = 1,
        .directory = {{1}},
        .n_shards = 1,
        .address = "server:9093",
    };
    static const struct transport_ops ops = {0};
    w->transport = transport_new(&options, &ops, NULL);
    transport_set_shards(w->transport, &w->transport, 1);
    transport_set_raft_handler(w->transport, on_raft, NULL);
    for (int kind = 1; kind < RPC_KIND_COUNT; kind++) {
        transport_serve(w->transport, (enum rpc_kind)kind, on_call, NULL);
    }
    FUZZ_CHECK(transport_listen(w->transport, "server:9093") == ERR_OK);
}

static void on_written(struct env_write *write, enum err status)
{
    (void)write, (void)status;
}
static void on_connected(struct env_stream *stream, enum err status)
{
    struct world *w = env_stream_arg(stream);
    struct iovec iov = {(void *)(uintptr_t)w->bytes, w->size};
    FUZZ_CHECK(status == ERR_OK);
    w->write.cb = on_written;
    env_stream_write(stream, &w->write, &iov, 1);
}
static struct iovec on_alloc(struct env_stream *stream)
{
    static uint8_t piece[4096];
    (void)stream;
    return (struct iovec){piece, sizeof piece};
}
static void on_read(struct env_stream *stream, size_t size, enum err status)
{
    (void)size;
    if (status != ERR_OK) {
        env_stream_close(stream);
    }
}
static void on_closed(struct env_stream *stream)
{
    (void)stream;
}
static const struct env_stream_ops client_ops = {on_connected, on_alloc,
                                                 on_read, on_closed};

static void boot_client(struct env *env, void *arg)
{
    struct world *w = arg;
    w->stream = env_stream_connect(env, "server:9093", &client_ops, w);
}

static void connection(const uint8_t *data, size_t size)
{
    struct world w = {.bytes = data, .size = size};
    struct sim *sim = sim_new(1);
    struct sim_node *server = sim_node_add(sim, "server", 1);
    struct sim_node *client = sim_node_add(sim, "client", 1);
    sim_net_delay(sim, NULL, NULL, 1000, 1000);
    sim_node_start(server, boot_server, &w);
    sim_run_for(sim, SIM_MS);
    sim_node_start(client, boot_client, &w);
    sim_run_for(sim, 300 * SIM_MS);
    sim_free(sim);
}

static void frames(const uint8_t *data, size_t size)
{
    for (size_t at = 0; size - at >= PEER_FRAME_HEADER;) {
        struct peer_frame f;
        const char *why;
        if (peer_frame_read(data + at, &f, &why) != ERR_OK) {
            return;
        }
        const uint8_t *body = data + at + PEER_FRAME_HEADER;
        if (f.size > size - at - PEER_FRAME_HEADER ||
            !peer_frame_body_intact(&f, body)) {
            return;
        }
        at += PEER_FRAME_HEADER + f.size;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, size};
    uint64_t flags = fuzz_uint(&in, 1), what = fuzz_uint(&in, 1) % 5;
    uint8_t *bytes = fuzz_copy(in.p, in.left);
    if (flags & 1 && what == 0) {
        fuzz_repair_peer(bytes, in.left);
    } else if (flags & 1 && what == 2) {
        fuzz_repair_append(bytes, in.left);
    }
    switch (what) {
        case 0:
            frames(bytes, in.left);
            connection(bytes, in.left);
            break;
        case 1:
            read_hello(bytes, in.left);
            break;
        case 2:
            read_message(bytes, in.left);
            break;
        case 3:
            read_change(bytes, in.left);
            break;
        default:
            read_answer(bytes, in.left);
            break;
    }
    free(bytes);
    return 0;
}

/* ---- samples ------------------------------------------------------------- */
static void seed(const char *name, uint8_t what, const void *bytes, size_t n)
{
    struct buffer b = {0};
    uint8_t head[2] = {1, what};
    buffer_append(&b, head, 2);
    buffer_append(&b, bytes, n);
    fuzz_seed(name, b.data, b.size);
    buffer_free(&b);
}

static void frame(struct buffer *b, enum peer_kind kind, uint64_t id,
                  uint16_t code, const void *body, size_t size)
{
    struct peer_frame f = {kind, (uint32_t)size, id, code,
                           crc32c(0, body, size)};
    uint8_t head[PEER_FRAME_HEADER];
    peer_frame_write(&f, head);
    buffer_append(b, head, sizeof head);
    buffer_append(b, body, size);
}

static size_t append_message(uint8_t *out, uint32_t n)
{
    struct message m = {.type = MESSAGE_APPEND,
                        .from = 2,
                        .to = 1,
                        .term = 4,
                        .prev_index = 7,
                        .prev_term = 4,
                        .commit = 6,
                        .round = 3,
                        .n_entries = n};
    size_t at = message_encode(&m, out);
    for (uint32_t i = 0; i < n; i++, at += MESSAGE_ENTRY_SIZE) {
        struct message_entry e = {.term = 4,
                                  .size = 5,
                                  .crc = crc32c(0, "hello", 5),
                                  .type = ENTRY_DATA};
        message_encode_entry(&e, out + at);
    }
    for (uint32_t i = 0; i < n; i++, at += 5) {
        memcpy(out + at, "hello", 5);
    }
    return at;
}

static void seed_messages(void)
{
    uint8_t out[512];
    char name[32];
    for (int type = 2; type <= 6; type++) {
        struct message m = {.type = (enum message_type)type,
                            .from = 2,
                            .to = 1,
                            .term = 4,
                            .last_index = 9,
                            .last_term = 3};
        snprintf(name, sizeof name, "message-%d", type);
        seed(name, 2, out, message_encode(&m, out));
    }
    seed("append-0", 2, out, append_message(out, 0));
    seed("append-3", 2, out, append_message(out, 3));
}

static void seed_changes(void)
{
    struct buffer b = {0};
    struct metadata_new_topic topic = {
        .name = "lines", .n_partitions = 3, .replication_factor = 1};
    struct change create = {.kind = CHANGE_CREATE_TOPICS,
                            .request = {{5}},
                            .timeout_ms = 1000,
                            .n = 1,
                            .u.create = &topic};
    struct change broker = {.kind = CHANGE_REGISTER,
                            .request = {{6}},
                            .timeout_ms = 1000,
                            .u.broker = {.node = 2,
                                         .directory = {{9}},
                                         .host = (char[]){"b2"},
                                         .port = 9092,
                                         .peer_address = (char[]){"b2:9093"}}};
    struct change ids = {.kind = CHANGE_PRODUCER_IDS,
                         .request = {{7}},
                         .timeout_ms = 9,
                         .u.producer_ids = 1000};
    const struct change *all[] = {&create, &broker, &ids};
    for (int i = 0; i < 3; i++) {
        char name[32];
        buffer_clear(&b);
        change_encode(&b, all[i]);
        snprintf(name, sizeof name, "change-%d", i);
        seed(name, 3, b.data, b.size);
    }
    struct metadata_topic_result results[1] = {{0}};
    struct change_answer answer = {
        .index = {5}, .first_id = 3, .n_results = 1, .results = results};
    buffer_clear(&b);
    change_answer_encode(&b, &answer);
    seed("answer", 4, b.data, b.size);
    buffer_free(&b);
}

void fuzz_seeds(void)
{
    struct peer_hello hello = {.version = PEER_VERSION,
                               .lane = LANE_MAIN,
                               .accepted = true,
                               .n_shards = 1,
                               .node = 2,
                               .directory = {{2}},
                               .incarnation = 5,
                               .address = "client:9093"};
    uint8_t out[PEER_HELLO_MAX], body[512] = {7};
    size_t n = peer_hello_write(&hello, out);
    struct buffer b = {0};
    seed("hello", 1, out, n);
    frame(&b, PEER_HELLO, 0, 0, out, n);
    frame(&b, PEER_PING, 3, 0, NULL, 0);
    frame(&b, PEER_RAFT, 0, 0, body, 20 + append_message(body + 20, 2));
    frame(&b, PEER_RPC_REQUEST, 9, RPC_BROKER_HEARTBEAT, body, 30);
    seed("frames", 0, b.data, b.size);
    hello.lane = LANE_BULK;
    buffer_clear(&b);
    frame(&b, PEER_HELLO, 0, 0, out, peer_hello_write(&hello, out));
    frame(&b, PEER_RPC_REQUEST, 1, RPC_CATCHUP, body, 60);
    frame(&b, PEER_RPC_REQUEST, 2, RPC_FORMATION, NULL, 0);
    frame(&b, PEER_RPC_RESPONSE, 2, 0, body, 5);
    seed("frames-bulk", 0, b.data, b.size);
    buffer_free(&b);
    seed_messages();
    seed_changes();
}
