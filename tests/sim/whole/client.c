/* A simulated Kafka client: connections to brokers, requests by the product's
 * own codec with a version drawn per API, answers matched in order, time-outs,
 * metadata. What a client wants is decided by the actors above it. */
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/assert.h"
#include "base/buffer.h"
#include "base/mem.h"
#include "schema/api_versions.h"
#include "schema/header.h"
#include "schema/metadata.h"
#include "tests/sim/whole/impl.h"

/* The bytes of a request, until the stream is done with them. */
struct sent {
    struct env_write write;
    size_t size;
    uint8_t bytes[];
};

struct pending {
    struct pending *next;
    int32_t correlation;
    int16_t api_key;
    int version;
    unsigned starts;
    uint64_t asked_ns;
    answer_cb cb;
    void *arg;
    struct client_conn *conn;
    struct sent *sent; /* NULL: given to the stream, some may have left */
};

struct client_conn {
    struct client *client;
    int broker;
    struct env_stream *stream;
    bool connected, closing;
    struct pending *first, **last; /* not answered, in order */
    struct env_timer timeout;
    struct buffer in;
    uint8_t piece[8192];
};

/* ---- topics and parts ---------------------------------------------------- */
int part_topic(int part)
{
    return part / TOPIC_PARTITIONS_MAX;
}

int part_index(int part)
{
    return part % TOPIC_PARTITIONS_MAX;
}

int part_of(int topic, int index)
{
    return topic * TOPIC_PARTITIONS_MAX + index;
}

void topic_name(int topic, char out[16])
{
    snprintf(out, 16, "t%d", topic);
}

int topic_find(struct wire_str name)
{
    if (name.n == 2 && name.p[0] == 't' && name.p[1] >= '0' &&
        name.p[1] < '0' + TOPICS_MAX) {
        return name.p[1] - '0';
    }
    return -1;
}

int topic_find_id(const struct client *c, const struct uuid *id)
{
    for (int t = 0; t < TOPICS_MAX; t++) {
        if (!uuid_is_zero(id) && uuid_equal(&c->topic_ids[t], id)) {
            return t;
        }
    }
    return -1;
}

/* ---- answers ------------------------------------------------------------- */
static void pending_end(struct pending *p, enum fate fate, int broker,
                        const void *response)
{
    struct answer a = {
        .fate = fate,
        .api_key = p->api_key,
        .version = p->version,
        .broker = broker,
        .starts = p->starts,
        .asked_ns = p->asked_ns,
        .response = response,
    };
    p->conn->client->n_pending--;
    p->cb(p->arg, &a);
}

static void pending_free(struct pending *p)
{
    mem_free(p->sent);
    mem_free(p);
}

static void conn_close(struct client_conn *conn)
{
    if (!conn->closing) {
        conn->closing = true;
        conn->client->conns[conn->broker] = NULL;
        env_timer_stop(&conn->timeout);
        env_stream_close(conn->stream);
    }
}

/* One whole answer at the front of what arrived. */
static void take_answer(struct client_conn *conn, const uint8_t *frame,
                        size_t size)
{
    struct client *c = conn->client;
    struct sim *sim = c->world->sim;
    struct pending *p = conn->first;
    struct wire_reader r;
    struct response_header header;
    struct arena arena;
    if (p == NULL) {
        sim_fail(sim, "%s: an answer to nothing from b%d", c->name,
                 conn->broker);
    }
    conn->first = p->next;
    if (conn->first == NULL) {
        conn->last = &conn->first;
    }
    const struct codec_api *api = codec_api_find(p->api_key);
    wire_reader_init(&r, frame, size);
    response_header_decode(&r, codec_response_header(api, p->version), NULL,
                           &header);
    if (header.correlation_id != p->correlation) {
        sim_fail(sim, "%s: answer %d from b%d where %d was expected", c->name,
                 header.correlation_id, conn->broker, p->correlation);
    }
    arena_init(&arena, 0);
    void *response = arena_zalloc(&arena, api->response->body->size);
    codec_decode(api->response, &r, p->version, &arena, response);
    if (r.err != ERR_OK || wire_left(&r) != 0) {
        sim_fail(sim, "%s: answer to %s v%d cannot be read: %s, %zu left",
                 c->name, api->name, p->version, err_name(r.err),
                 wire_left(&r));
    }
    c->world->result.requests++;
    pending_end(p, FATE_ANSWERED, conn->broker, response);
    arena_free(&arena);
    pending_free(p);
}

static void take_answers(struct client_conn *conn)
{
    size_t at = 0;
    while (conn->in.size - at >= 4 && !conn->closing) {
        struct wire_reader r;
        wire_reader_init(&r, conn->in.data + at, 4);
        size_t size = (size_t)wire_read_i32(&r);
        if (size > 64u << 20) {
            sim_fail(conn->client->world->sim, "a frame of %zu bytes", size);
        }
        if (conn->in.size - at < size + 4) {
            break;
        }
        at += size + 4;
        take_answer(conn, conn->in.data + at - size, size);
    }
    buffer_consume(&conn->in, at);
}

/* ---- one connection ------------------------------------------------------ */
static void written(struct env_write *w, enum err status)
{
    (void)status;
    mem_free(w->arg);
}

static void conn_write(struct client_conn *conn, struct pending *p)
{
    struct sent *sent = p->sent;
    struct iovec iov = {sent->bytes, sent->size};
    p->sent = NULL;
    sent->write = (struct env_write){.cb = written, .arg = sent};
    env_stream_write(conn->stream, &sent->write, &iov, 1);
}

static void conn_connected(struct env_stream *stream, enum err status)
{
    struct client_conn *conn = env_stream_arg(stream);
    if (status != ERR_OK || conn->closing) {
        return; /* closed comes next */
    }
    conn->connected = true;
    for (struct pending *p = conn->first; p != NULL; p = p->next) {
        conn_write(conn, p);
    }
}

static struct iovec conn_alloc(struct env_stream *stream)
{
    struct client_conn *conn = env_stream_arg(stream);
    return (struct iovec){conn->piece, sizeof conn->piece};
}

static void conn_read(struct env_stream *stream, size_t size, enum err status)
{
    struct client_conn *conn = env_stream_arg(stream);
    if (status != ERR_OK) {
        conn_close(conn);
        return;
    }
    buffer_append(&conn->in, conn->piece, size);
    take_answers(conn);
}

static void conn_closed(struct env_stream *stream)
{
    struct client_conn *conn = env_stream_arg(stream);
    struct client *c = conn->client;
    struct pending *p = conn->first;
    env_timer_stop(&conn->timeout);
    if (c->conns[conn->broker] == conn) {
        c->conns[conn->broker] = NULL;
    }
    conn->first = NULL;
    while (p != NULL) {
        struct pending *next = p->next;
        pending_end(p, p->sent == NULL ? FATE_UNKNOWN : FATE_NOT_SENT,
                    conn->broker, NULL);
        pending_free(p);
        p = next;
    }
    buffer_free(&conn->in);
    mem_free(conn);
}

static const struct env_stream_ops conn_ops = {conn_connected, conn_alloc,
                                               conn_read, conn_closed};

/* The oldest request is not answered in time: the connection is given up. */
static void conn_timeout(struct env_timer *timer)
{
    struct client_conn *conn = timer->arg;
    uint64_t now = sim_now_ns(conn->client->world->sim);
    uint64_t patience = conn->client->request_ms * SIM_MS;
    if (conn->first == NULL) {
        return;
    }
    if (now >= conn->first->asked_ns + patience) {
        conn_close(conn);
        return;
    }
    env_timer_start(timer,
                    (conn->first->asked_ns + patience - now) / SIM_MS + 1);
}

static struct client_conn *conn_to(struct client *c, int broker)
{
    struct client_conn *conn = c->conns[broker];
    char address[32];
    if (conn != NULL) {
        return conn;
    }
    conn = mem_zalloc(sizeof *conn);
    conn->client = c;
    conn->broker = broker;
    conn->last = &conn->first;
    env_timer_init(c->env, &conn->timeout, conn_timeout, conn);
    snprintf(address, sizeof address, "b%d:9092", broker);
    c->conns[broker] = conn;
    conn->stream = env_stream_connect(c->env, address, &conn_ops, conn);
    return conn;
}

static void encode(struct pending *p, const struct codec_api *api,
                   const struct client *c, const void *request)
{
    struct wire_writer w;
    struct request_header h = {p->api_key, (int16_t)p->version, p->correlation,
                               wire_str_of(c->name)};
    wire_writer_init(&w, 0);
    wire_write_i32(&w, 0);
    request_header_encode(&w, &h, codec_request_header(api, p->version));
    codec_encode(api->request, &w, request, p->version);
    wire_patch_i32(&w, 0, (int32_t)w.size - 4);
    p->sent = mem_alloc(sizeof *p->sent + w.size);
    p->sent->size = w.size;
    wire_writer_copy(&w, p->sent->bytes);
    wire_writer_free(&w);
}

void client_ask(struct client *c, int broker, int16_t api_key,
                const void *request, answer_cb cb, void *arg)
{
    struct client_conn *conn = conn_to(c, broker);
    struct pending *p = mem_zalloc(sizeof *p);
    *p = (struct pending){
        .correlation = ++c->next_correlation,
        .api_key = api_key,
        .version = c->version[api_key],
        .starts = sim_node_starts(c->world->brokers[broker].node),
        .asked_ns = sim_now_ns(c->world->sim),
        .cb = cb,
        .arg = arg,
        .conn = conn,
    };
    encode(p, codec_api_find(api_key), c, request);
    *conn->last = p;
    conn->last = &p->next;
    c->n_pending++;
    if (!env_timer_running(&conn->timeout)) {
        env_timer_start(&conn->timeout, c->request_ms + 1);
    }
    if (conn->connected) {
        conn_write(conn, p);
    }
}

/* ---- metadata ------------------------------------------------------------ */
int client_any_broker(struct client *c)
{
    return (int)prng_below(&c->prng, (uint64_t)c->world->plan.n_brokers);
}

bool client_has_ids(const struct client *c)
{
    for (int t = 0; t < c->world->plan.n_topics; t++) {
        if (uuid_is_zero(&c->topic_ids[t])) {
            return false;
        }
    }
    return c->world->plan.keyed.n_partitions == 0 ||
           !uuid_is_zero(&c->topic_ids[KEYED_TOPIC]);
}

static void learn_partition(struct client *c, int topic,
                            const struct metadata_response_partition *in)
{
    if (in->partition_index < 0 ||
        in->partition_index >= TOPIC_PARTITIONS_MAX) {
        sim_fail(c->world->sim, "%s: partition %d of t%d", c->name,
                 in->partition_index, topic);
    }
    struct client_part *part = &c->parts[part_of(topic, in->partition_index)];
    /* as clients do: what is older than what one knows is not believed */
    if (in->leader_epoch >= 0 && in->leader_epoch < part->epoch) {
        return;
    }
    part->epoch = in->leader_epoch;
    part->leader = in->leader_id - 1;
}

static void refresh_done(void *arg, const struct answer *a)
{
    struct client *c = arg;
    c->refreshing = false;
    if (a->fate == FATE_ANSWERED) {
        const struct metadata_response *in = a->response;
        c->controller = in->controller_id - 1;
        for (int i = 0; i < in->n_topics; i++) {
            int topic = topic_find(in->topics[i].name);
            if (topic < 0 || in->topics[i].error_code != KAFKA_NONE) {
                continue;
            }
            c->topic_ids[topic] = in->topics[i].topic_id;
            for (int k = 0; k < in->topics[i].n_partitions; k++) {
                learn_partition(c, topic, &in->topics[i].partitions[k]);
            }
        }
    } else {
        c->refresh_again = true;
    }
    if (c->refreshed != NULL) {
        c->refreshed(c);
    }
    if (c->refresh_again) {
        client_refresh(c);
    }
}

static void refresh_now(struct env_timer *timer)
{
    struct client *c = timer->arg;
    struct metadata_request q;
    metadata_request_init(&q);
    q.n_topics = c->version[API_METADATA] == 0 ? 0 : -1; /* all */
    q.allow_auto_topic_creation = false;
    c->refreshing = true;
    c->refresh_again = false;
    client_ask(c, client_any_broker(c), API_METADATA, &q, refresh_done, c);
}

void client_refresh(struct client *c)
{
    if (c->refreshing || env_timer_running(&c->refresh_timer)) {
        c->refresh_again = c->refreshing;
        return;
    }
    env_timer_start(&c->refresh_timer, prng_between(&c->prng, 5, 60));
}

bool fetch_again_later(enum kafka_error e)
{
    return e == KAFKA_NOT_LEADER_OR_FOLLOWER ||
           e == KAFKA_UNKNOWN_TOPIC_OR_PARTITION ||
           e == KAFKA_LEADER_NOT_AVAILABLE || e == KAFKA_OFFSET_NOT_AVAILABLE ||
           e == KAFKA_FENCED_LEADER_EPOCH || e == KAFKA_UNKNOWN_LEADER_EPOCH ||
           e == KAFKA_KAFKA_STORAGE_ERROR || e == KAFKA_UNKNOWN_TOPIC_ID ||
           e == KAFKA_REPLICA_NOT_AVAILABLE;
}

/* ---- making one ---------------------------------------------------------- */
static void draw_versions(struct client *c)
{
    for (int k = 0; k < API_KEYS; k++) {
        const struct codec_api *api = codec_api_find((int16_t)k);
        if (api == NULL || api->offer_min < 0) {
            c->version[k] = -1;
            continue;
        }
        uint64_t low =
            (uint64_t)(api->serve_min > api->offer_min ? api->serve_min
                                                       : api->offer_min);
        uint64_t high = (uint64_t)api->offer_max;
        c->version[k] = prng_chance(&c->prng, 1, 2)
                            ? (int)high
                            : (int)prng_between(&c->prng, low, high);
    }
    if (c->version[API_METADATA] < 10) { /* no topic ids */
        if (c->version[API_PRODUCE] > 12) {
            c->version[API_PRODUCE] = 12;
        }
        if (c->version[API_FETCH] > 12) {
            c->version[API_FETCH] = 12;
        }
        if (c->version[API_OFFSET_COMMIT] > 9) {
            c->version[API_OFFSET_COMMIT] = 9;
        }
        if (c->version[API_OFFSET_FETCH] > 9) {
            c->version[API_OFFSET_FETCH] = 9;
        }
    }
}

/* Within the node, at each of its starts. */
struct client_boot {
    struct client *client;
    sim_boot boot;
};

static void client_boots(struct env *env, void *arg)
{
    struct client_boot *b = arg;
    struct client *c = b->client;
    c->env = env;
    env_timer_init(env, &c->refresh_timer, refresh_now, c);
    b->boot(env, c);
}

void client_add(struct world *w, struct client *c, const char *name,
                sim_boot boot, void *actor)
{
    struct client_boot *b = calloc(1, sizeof *b);
    c->world = w;
    c->actor = actor;
    c->request_ms = w->plan.request_ms;
    snprintf(c->name, sizeof c->name, "%s", name);
    prng_seed(&c->prng, prng_next(sim_prng(w->sim)));
    draw_versions(c);
    for (int i = 0; i < PARTS_MAX; i++) {
        c->parts[i] = (struct client_part){-1, -1};
    }
    b->client = c;
    b->boot = boot;
    c->boot = b;
    c->node = sim_node_add(w->sim, name, 1);
    sim_node_start(c->node, client_boots, b);
}

void client_share(struct client *c, const struct client *owner)
{
    memset(c, 0, sizeof *c);
    c->world = owner->world;
    c->node = owner->node;
    c->env = owner->env;
    c->request_ms = owner->request_ms;
    snprintf(c->name, sizeof c->name, "%s", owner->name);
    memcpy(c->version, owner->version, sizeof c->version);
    prng_seed(&c->prng, prng_next(sim_prng(c->world->sim)));
    env_timer_init(c->env, &c->refresh_timer, refresh_now, c);
}

void client_drop(struct client *c)
{
    free(c->boot);
    c->boot = NULL;
}
