/* A whole broker in the simulated world, and what clients send it. Input: a
 * sequence of steps, each u8 what:
 *   0..5 a request whose fields are chosen by the bytes that follow: u8 API, u8
 *        version, then a byte for each field (values that mean something to
 *        the broker, see `fill`)
 *   6    a request with any body: u8 API, u8 version, u16 size, bytes
 *   7    any bytes on the connection: u16 size, bytes
 * and then u8 how long to wait. Every answer must be readable, none may come
 * without a question; afterwards the broker must serve others and stop. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "net/broker.h"
#include "net/request.h"
#include "net/shard.h"
#include "partition/batch.h"
#include "schema/apis.h"
#include "schema/api_versions.h"
#include "schema/header.h"
#include "tests/fuzz/fuzz.h"

#define STEPS_MAX 24
#define ASKED_MAX 64

struct world;

/* One connection of the client, one request after the other without waiting. */
struct client {
    struct world *world;
    struct env_stream *stream;
    struct env_write writes[STEPS_MAX];
    void *bytes[STEPS_MAX];
    int n_writes;
    struct asked {
        const struct codec_api *api;
        int version;
    } asked[ASKED_MAX]; /* by correlation id */
    struct buffer in;
    uint8_t piece[4096];
    bool raw; /* bytes were sent of which nobody knows what they ask */
    bool closed;
    int n_answers;
};

struct world {
    struct sim *sim;
    struct sim_node *node, *host;
    struct broker *broker;
    bool ready, stopped;
    struct client client;
    struct fuzz_in in;
};

/* ---- the broker ---------------------------------------------------------- */
static void on_ready(void *arg, struct broker *broker)
{
    struct world *w = arg;
    (void)broker;
    w->ready = true;
}
static void on_failed(void *arg, const char *sentence)
{
    struct world *w = arg;
    sim_fail(w->sim, "cannot run: %s", sentence);
}
static void on_stopped(void *arg)
{
    struct world *w = arg;
    w->stopped = true;
}

static void boot(struct env *env, void *arg)
{
    struct world *w = arg;
    struct broker_config *config = broker_config_new();
    static const char text[] =
        "node.id=1\nlisteners=PLAINTEXT://b:9092\n"
        "peer.listener=b:9093\nlog.dirs=/data\nlog.segment.bytes=4096\n"
        "offsets.topic.num.partitions=1\nshards=1\n"
        "offsets.topic.replication.factor=1\nwal.bytes.max=16777216\nwal.file."
        "bytes=4194304\n"
        "group.initial.rebalance.delay.ms=100\n";
    char why[512] = "";
    struct broker_options options = {.n_shards = 1,
                                     .envs = {env},
                                     .ready = on_ready,
                                     .failed = on_failed,
                                     .stopped = on_stopped,
                                     .arg = w};
    if (broker_config_parse(config, text, sizeof text - 1, "fuzz", NULL, why,
                            sizeof why) != ERR_OK ||
        broker_config_validate(config, why, sizeof why) != ERR_OK) {
        sim_fail(w->sim, "configuration: %s", why);
    }
    options.config = config;
    w->broker = broker_start(&options);
}

static void call_stop(struct env *env, void *arg)
{
    struct world *w = arg;
    (void)env;
    broker_stop(w->broker);
}

static bool is_ready(void *arg)
{
    return ((struct world *)arg)->ready;
}
static bool is_stopped(void *arg)
{
    return ((struct world *)arg)->stopped;
}

/* ---- the client ---------------------------------------------------------- */
static void on_written(struct env_write *write, enum err status)
{
    (void)status;
    mem_free(write->arg);
}

/* With FUZZ_TRACE in the environment: what is said, for people. */
static void trace(const char *arrow, const struct codec_message *m,
                  const void *message, int version)
{
    if (getenv("FUZZ_TRACE") != NULL) {
        char text[4000];
        codec_print(m, message, version, text, sizeof text);
        fprintf(stderr, "%s %s v%d %s\n", arrow, m->name, version, text);
    }
}

static void on_answer(struct client *c, const uint8_t *frame, size_t size)
{
    struct wire_reader r;
    struct arena a;
    wire_reader_init(&r, frame, size);
    int32_t correlation = wire_read_i32(&r);
    if (r.err != ERR_OK || correlation < 0 || correlation >= ASKED_MAX ||
        c->asked[correlation].api == NULL) {
        if (!c->raw) {
            sim_fail(c->world->sim, "an answer to nothing: %d", correlation);
        }
        return;
    }
    const struct codec_api *api = c->asked[correlation].api;
    int version = c->asked[correlation].version;
    c->asked[correlation].api = NULL;
    c->n_answers++;
    if (!codec_api_served(api, version)) {
        return; /* ApiVersions answers as every client can read it */
    }
    if (codec_response_header(api, version) == 1) {
        wire_skip_tags(&r);
    }
    void *out = mem_alloc(api->response->body->size);
    arena_init(&a, 1 << 26);
    codec_decode(api->response, &r, version, &a, out);
    if (r.err != ERR_OK || wire_left(&r) != 0) {
        sim_fail(c->world->sim, "answer of %s v%d cannot be read", api->name,
                 version);
    }
    trace(" ->", api->response, out, version);
    arena_free(&a);
    mem_free(out);
}

static struct iovec on_alloc(struct env_stream *stream)
{
    struct client *c = env_stream_arg(stream);
    return (struct iovec){c->piece, sizeof c->piece};
}

static void on_read(struct env_stream *stream, size_t size, enum err status)
{
    struct client *c = env_stream_arg(stream);
    if (status != ERR_OK) {
        c->closed = true;
        env_stream_close(stream);
        return;
    }
    buffer_append(&c->in, c->piece, size);
    while (c->in.size >= 4) {
        struct wire_reader r;
        wire_reader_init(&r, c->in.data, 4);
        int32_t n = wire_read_i32(&r);
        if (n < 0) {
            sim_fail(c->world->sim, "a frame of %d bytes", n);
        }
        if (c->in.size - 4 < (size_t)n) {
            break;
        }
        on_answer(c, c->in.data + 4, (size_t)n);
        buffer_consume(&c->in, 4 + (size_t)n);
    }
}

static void on_connected(struct env_stream *stream, enum err status)
{
    struct client *c = env_stream_arg(stream);
    if (status != ERR_OK) {
        sim_fail(c->world->sim, "not accepted");
    }
}
static void on_closed(struct env_stream *stream)
{
    struct client *c = env_stream_arg(stream);
    c->closed = true;
    c->stream = NULL;
}
static const struct env_stream_ops client_ops = {on_connected, on_alloc,
                                                 on_read, on_closed};

static void connect_client(struct env *env, void *arg)
{
    struct world *w = arg;
    struct client *c = &w->client;
    memset(c, 0, sizeof *c);
    c->world = w;
    c->stream = env_stream_connect(env, "b:9092", &client_ops, c);
}

static void send_bytes(struct client *c, const struct wire_writer *writer)
{
    if (c->closed || c->stream == NULL || c->n_writes == STEPS_MAX) {
        return;
    }
    struct env_write *write = &c->writes[c->n_writes++];
    struct iovec iov = {mem_alloc(writer->size), writer->size};
    wire_writer_copy(writer, iov.iov_base);
    write->cb = on_written;
    write->arg = iov.iov_base;
    env_stream_write(c->stream, write, &iov, 1);
}

/* Header of a request; the size comes last. */
static void begin_frame(struct client *c, struct wire_writer *w,
                        const struct codec_api *api, int version)
{
    struct request_header header;
    int32_t correlation = c->n_writes;
    request_header_init(&header);
    header.request_api_key = api->key;
    header.request_api_version = (int16_t)version;
    header.correlation_id = correlation;
    header.client_id = wire_str_of("fuzz");
    wire_writer_init(w, 256);
    wire_write_i32(w, 0);
    request_header_encode(w, &header, codec_request_header(api, version));
    c->asked[correlation] = (struct asked){api, version};
}

/* ---- requests that mean something ---------------------------------------- */
static const char *const words[] = {"t",
                                    "t2",
                                    "g",
                                    "consumer",
                                    "range",
                                    "m",
                                    "tx",
                                    "retention.ms",
                                    "cleanup.policy",
                                    "compact",
                                    "1",
                                    "__consumer_offsets",
                                    "delete",
                                    "segment.bytes",
                                    "100",
                                    "consumer-fuzz-1"};

static struct wire_str choose_word(uint64_t byte)
{
    static char longer[300];
    if (byte < 200) {
        return wire_str_of(words[byte % 16]);
    }
    if (byte < 220) {
        return WIRE_NULL_STR;
    }
    memset(longer, 'x', sizeof longer);
    longer[0] = '/';
    return byte < 240 ? WIRE_STR("")
                      : (struct wire_str){longer, (int32_t)(byte * 18 % 300)};
}

static int64_t choose_number(struct fuzz_in *in)
{
    static const int64_t numbers[] = {
        0,         1,          2,         -1,        -2,       3,
        5,         100,        1000,      6000,      -3,       1 << 20,
        INT32_MAX, INT32_MIN,  INT64_MAX, INT64_MIN, 65536,    32767,
        10,        1000000000, 300000,    45000,     INT8_MIN, 4};
    uint64_t byte = fuzz_uint(in, 1);
    return byte < 192   ? numbers[byte % 24]
           : byte < 250 ? (int64_t)byte - 192
                        : (int64_t)fuzz_uint(in, 8);
}

/* A batch as a producer makes it. */
static struct wire_records choose_records(struct fuzz_in *in, struct arena *a)
{
    struct batch_builder b;
    const uint8_t *batch;
    size_t size;
    uint64_t byte = fuzz_uint(in, 1), n = 1 + fuzz_uint(in, 1) % 12;
    if (byte == 255) {
        return (struct wire_records){.n = -1};
    }
    batch_builder_init(&b, (enum batch_codec)(byte % 5));
    if (byte & 32) {
        b.producer_id = (int64_t)fuzz_uint(in, 1) % 4;
        b.producer_epoch = (int16_t)(fuzz_uint(in, 1) % 3);
        b.base_sequence = (int32_t)(fuzz_uint(in, 1) % 16);
        b.attributes = byte & 64 ? BATCH_TRANSACTIONAL : 0;
    }
    for (uint64_t i = 0; i < n; i++) {
        batch_builder_add(&b, 1000000 + (int64_t)i * 10, "key", i % 3 ? 3 : -1,
                          "value of some length", i % 4 ? 20 : -1, NULL, 0);
    }
    struct wire_records records = {.n = -1};
    if (batch_builder_finish(&b, &batch, &size) == ERR_OK) {
        uint8_t *copy = arena_copy(a, batch, size);
        if (byte & 128) {
            copy[fuzz_uint(in, 2) % size] ^= (uint8_t)fuzz_uint(in, 1);
            fuzz_repair_batches(copy, size, false);
        }
        records.p = copy;
        records.n = (int32_t)size;
    }
    batch_builder_free(&b);
    return records;
}

static void choose_uuid(struct world *w, uint64_t byte, struct uuid *id)
{
    memset(id, 0, sizeof *id);
    const struct image_topic *t =
        image_topic(broker_shard(w->broker, 0)->image, "t", 1);
    if (byte < 160 && t != NULL) {
        *id = t->id;
    } else if (byte >= 200) {
        id->b[3] = (uint8_t)byte;
    }
}

static void fill(struct world *w, const struct codec_struct *s, int version,
                 struct arena *a, void *out, int depth);

static void fill_value(struct world *w, const struct codec_field *f,
                       int version, struct arena *a, void *at, int depth)
{
    struct fuzz_in *in = &w->in;
    switch ((enum codec_kind)f->kind) {
        case CODEC_BOOL:
            *(bool *)at = fuzz_uint(in, 1) & 1;
            break;
        case CODEC_I8:
            *(int8_t *)at = (int8_t)choose_number(in);
            break;
        case CODEC_I16:
            *(int16_t *)at = (int16_t)choose_number(in);
            break;
        case CODEC_U16:
            *(uint16_t *)at = (uint16_t)choose_number(in);
            break;
        case CODEC_I32:
            *(int32_t *)at = (int32_t)choose_number(in);
            break;
        case CODEC_I64:
            *(int64_t *)at = choose_number(in);
            break;
        case CODEC_F64:
            *(double *)at = (double)choose_number(in);
            break;
        case CODEC_UUID:
            choose_uuid(w, fuzz_uint(in, 1), at);
            break;
        case CODEC_STRING:
            *(struct wire_str *)at = choose_word(fuzz_uint(in, 1));
            break;
        case CODEC_BYTES: {
            struct wire_str s = choose_word(fuzz_uint(in, 1));
            *(struct wire_bytes *)at =
                (struct wire_bytes){(const uint8_t *)s.p, s.n};
            break;
        }
        case CODEC_RECORDS:
            *(struct wire_records *)at = choose_records(in, a);
            break;
        case CODEC_STRUCT:
            fill(w, f->type, version, a, at, depth + 1);
            break;
    }
}

static size_t value_size(const struct codec_field *f)
{
    static const size_t sizes[] = {
        [CODEC_BOOL] = sizeof(bool),
        [CODEC_I8] = 1,
        [CODEC_I16] = 2,
        [CODEC_U16] = 2,
        [CODEC_I32] = 4,
        [CODEC_I64] = 8,
        [CODEC_F64] = sizeof(double),
        [CODEC_UUID] = sizeof(struct uuid),
        [CODEC_STRING] = sizeof(struct wire_str),
        [CODEC_BYTES] = sizeof(struct wire_bytes),
        [CODEC_RECORDS] = sizeof(struct wire_records),
    };
    return f->kind == CODEC_STRUCT ? f->type->size : sizes[f->kind];
}

/* `out` holds the defaults. */
static void fill(struct world *w, const struct codec_struct *s, int version,
                 struct arena *a, void *out, int depth)
{
    for (int i = 0; i < s->n_fields; i++) {
        const struct codec_field *f = &s->fields[i];
        char *at = (char *)out + f->offset;
        if (!codec_in(f->present, version) || w->in.left == 0 ||
            (f->tag >= 0 && fuzz_uint(&w->in, 1) % 4 != 0)) {
            continue;
        }
        if (!f->array && !f->pointer) {
            fill_value(w, f, version, a, at, depth);
            continue;
        }
        uint64_t byte = fuzz_uint(&w->in, 1);
        int32_t n = f->pointer ? (byte & 1) : (int32_t)(byte % 3);
        void *elements = n == 0 ? NULL : arena_zalloc(a, 3 * value_size(f));
        for (int32_t k = 0; k < n; k++) {
            fill_value(w, f, version, a,
                       (char *)elements + (size_t)k * value_size(f), depth);
        }
        memcpy(at, &elements, sizeof elements);
        if (f->array) {
            *(int32_t *)(void *)((char *)out + f->count_offset) =
                byte >= 250 ? -1 : n;
        }
    }
}

/* By key, or another one that has a handler. */
static const struct codec_api *choose_api(uint64_t key)
{
    int count = 0;
    if (request_has_handler((int16_t)key)) {
        return codec_api_find((int16_t)key);
    }
    for (int i = 0; i < codec_n_apis; i++) {
        count += request_has_handler(codec_apis[i].key);
    }
    for (int i = 0, k = (int)(key % (uint64_t)count); i < codec_n_apis; i++) {
        if (request_has_handler(codec_apis[i].key) && k-- == 0) {
            return &codec_apis[i];
        }
    }
    return NULL;
}

static int choose_version(const struct codec_api *api, uint64_t byte)
{
    int top =
        codec_api_served(api, api->serve_max) ? api->serve_max : api->offer_max;
    return byte == 255
               ? api->serve_max + 1
               : top - (int)(byte % (uint64_t)(top - api->serve_min + 1));
}

/* ---- steps --------------------------------------------------------------- */
static void step_filled(struct world *w)
{
    struct client *c = &w->client;
    const struct codec_api *api = choose_api(fuzz_uint(&w->in, 1));
    int version = choose_version(api, fuzz_uint(&w->in, 1));
    struct wire_writer writer;
    struct arena a;
    if (version > api->serve_max || version > api->request->last) {
        version = api->request->last;
    }
    arena_init(&a, 0);
    void *body = arena_zalloc(&a, api->request->body->size);
    codec_init(api->request, body);
    fill(w, api->request->body, version, &a, body, 0);
    trace("<-", api->request, body, version);
    begin_frame(c, &writer, api, version);
    codec_encode(api->request, &writer, body, version);
    wire_patch_i32(&writer, 0, (int32_t)writer.size - 4);
    send_bytes(c, &writer);
    wire_writer_free(&writer);
    arena_free(&a);
}

static void step_body(struct world *w)
{
    const struct codec_api *api = choose_api(fuzz_uint(&w->in, 1));
    int version = choose_version(api, fuzz_uint(&w->in, 1));
    struct wire_writer writer;
    size_t n;
    begin_frame(&w->client, &writer, api, version);
    const uint8_t *bytes = fuzz_bytes(&w->in, fuzz_uint(&w->in, 2), &n);
    wire_write_raw(&writer, bytes, n);
    wire_patch_i32(&writer, 0, (int32_t)writer.size - 4);
    send_bytes(&w->client, &writer);
    wire_writer_free(&writer);
}

static void step_raw(struct world *w)
{
    struct wire_writer writer;
    size_t n;
    const uint8_t *bytes = fuzz_bytes(&w->in, fuzz_uint(&w->in, 2), &n);
    wire_writer_init(&writer, 0);
    wire_write_raw(&writer, bytes, n);
    w->client.raw = true;
    if (n > 0) {
        send_bytes(&w->client, &writer);
    }
    wire_writer_free(&writer);
}

static void step(struct env *env, void *arg)
{
    struct world *w = arg;
    uint64_t what = fuzz_uint(&w->in, 1) % 8;
    (void)env;
    if (w->client.closed || w->client.n_writes == STEPS_MAX) {
        return;
    }
    if (what <= 5) {
        step_filled(w);
    } else if (what == 6) {
        step_body(w);
    } else {
        step_raw(w);
    }
}

static void ask_versions(struct env *env, void *arg)
{
    struct world *w = arg;
    const struct codec_api *api = codec_api_find(API_API_VERSIONS);
    struct api_versions_request body;
    struct wire_writer writer;
    (void)env;
    api_versions_request_init(&body);
    begin_frame(&w->client, &writer, api, 0);
    codec_encode(api->request, &writer, &body, 0);
    wire_patch_i32(&writer, 0, (int32_t)writer.size - 4);
    send_bytes(&w->client, &writer);
    wire_writer_free(&writer);
}

static bool is_answered(void *arg)
{
    return ((struct world *)arg)->client.n_answers > 0;
}

static void drop_client(struct env *env, void *arg)
{
    struct world *w = arg;
    (void)env;
    buffer_free(&w->client.in);
    if (w->client.stream != NULL) {
        env_stream_close(w->client.stream);
    }
}

static void play(struct world *w)
{
    static const uint32_t waits_ms[] = {0, 1, 1, 5, 5, 50, 200, 3000};
    sim_node_call(w->host, 0, connect_client, w);
    sim_run_for(w->sim, SIM_MS);
    for (int i = 0; i < STEPS_MAX && w->in.left > 0; i++) {
        sim_node_call(w->host, 0, step, w);
        sim_run_for(w->sim, waits_ms[fuzz_uint(&w->in, 1) % 8] * SIM_MS);
    }
    sim_run_for(w->sim, 500 * SIM_MS);
    sim_node_call(w->host, 0, drop_client, w);
    sim_run_for(w->sim, SIM_MS);
    sim_node_call(w->host, 0, connect_client, w);
    sim_node_call(w->host, 0, ask_versions, w);
    if (!sim_run_while_not(w->sim, is_answered, w, 5 * SIM_S)) {
        sim_fail(w->sim, "others are not served any more");
    }
    sim_node_call(w->host, 0, drop_client, w);
    sim_node_call(w->node, 0, call_stop, w);
    if (!sim_run_while_not(w->sim, is_stopped, w, 120 * SIM_S)) {
        sim_fail(w->sim, "does not stop");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world w = {.in = {data, size}};
    w.sim = sim_new(1);
    w.node = sim_node_add(w.sim, "b", 1);
    w.host = sim_node_add(w.sim, "clients", 1);
    sim_net_delay(w.sim, NULL, NULL, 1000, 1000);
    sim_node_start(w.host, NULL, NULL);
    sim_node_start(w.node, boot, &w);
    if (!sim_run_while_not(w.sim, is_ready, &w, 30 * SIM_S)) {
        sim_fail(w.sim, "not ready");
    }
    play(&w);
    sim_free(w.sim);
    return 0;
}

/* ---- samples ------------------------------------------------------------- */
/* A session for each API: a topic first, then the request, a few times. */
static void seed(const struct codec_api *api)
{
    /* Metadata v4 of "t", which makes it; Produce v9 to it, acks -1 */
    static const uint8_t first[] = {0,           API_METADATA,
                                    9,           1,
                                    0,           1,
                                    6,           0,
                                    API_PRODUCE, 4,
                                    200,         3,
                                    9,           1,
                                    0,           1,
                                    0,           0,
                                    5,           0,
                                    1,           5};
    uint8_t bytes[200];
    struct prng prng;
    prng_seed(&prng, (uint64_t)api->key + 1);
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)prng_below(&prng, 3);
    }
    memcpy(bytes, first, sizeof first);
    for (size_t at = sizeof first; at + 40 < sizeof bytes; at += 40) {
        bytes[at] = 0;
        bytes[at + 1] = (uint8_t)api->key;
        bytes[at + 2] = (uint8_t)(at % 5);
    }
    fuzz_seed(api->name, bytes, sizeof bytes);
}

void fuzz_seeds(void)
{
    for (int i = 0; i < codec_n_apis; i++) {
        if (request_has_handler(codec_apis[i].key)) {
            seed(&codec_apis[i]);
        }
    }
}
