/* A producer that retries as librdkafka does: batches of a partition leave in
 * order, some in flight; what fails goes back in front of the rest, and nothing
 * leaves until all that was in flight is answered. Idempotent, or plain with
 * one batch in flight (then a retry may be stored twice). */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "partition/batch.h"
#include "schema/init_producer_id.h"
#include "schema/produce.h"
#include "tests/sim/whole/impl.h"

#define QUEUE_MAX 20
/* Of the compacted topic, whose segments are small. */
#define KEYED_RECORDS_MAX 10
#define KEYED_VALUE_MAX 300

struct outgoing {
    struct outgoing *next;
    uint64_t r;
    int n;
    bool in_flight, done;
    uint32_t size;
    uint8_t bytes[];
};

struct out_part {
    uint64_t next_r;
    int32_t next_sequence;
    struct outgoing *first, **last;
    int n_queued, n_in_flight;
    int in_flight_to; /* the broker that has those */
    uint64_t not_before_ns;
    bool drains; /* something failed: wait for the rest */
};

struct producer {
    struct client client;
    int at;
    bool idempotent, keyed, asking_id;
    int64_t producer_id; /* -1: not yet */
    int16_t epoch;
    enum batch_codec codec;
    struct out_part parts[PARTS_MAX];
    struct env_timer timer;
    int n_requests;
};

/* One request under way: which batch of which parts. */
#define REQUEST_PARTS 8
struct out_request {
    struct producer *producer;
    int n;
    int parts[REQUEST_PARTS];
    struct outgoing *batches[REQUEST_PARTS];
    bool answered[REQUEST_PARTS];
};

/* ---- results ------------------------------------------------------------- */
static void part_pop_done(struct out_part *part)
{
    while (part->first != NULL && part->first->done) {
        struct outgoing *o = part->first;
        part->first = o->next;
        if (part->first == NULL) {
            part->last = &part->first;
        }
        part->n_queued--;
        mem_free(o);
    }
}

static void batch_acked(struct producer *p, int part, struct outgoing *o,
                        int64_t base)
{
    struct world *w = p->client.world;
    if (base < 0) {
        sim_fail(w->sim, "p%d: acknowledged without an offset", p->at);
    }
    record_id first = record_make(p->at, part, o->r);
    if (p->keyed) {
        keys_acked(w, first, o->n, base);
    } else {
        oracle_acked(w, first, o->n, base);
    }
    o->done = true;
}

/* It is tried again, after what is in flight is answered. */
static void batch_failed(struct producer *p, int part)
{
    struct out_part *out = &p->parts[part];
    out->drains = true;
    out->not_before_ns = sim_now_ns(p->client.world->sim) +
                         prng_between(&p->client.prng, 20, 150) * SIM_MS;
    client_refresh(&p->client);
}

static bool is_retriable(enum kafka_error e)
{
    return e == KAFKA_NOT_LEADER_OR_FOLLOWER || e == KAFKA_REQUEST_TIMED_OUT ||
           e == KAFKA_UNKNOWN_TOPIC_OR_PARTITION ||
           e == KAFKA_LEADER_NOT_AVAILABLE || e == KAFKA_NOT_ENOUGH_REPLICAS ||
           e == KAFKA_NOT_ENOUGH_REPLICAS_AFTER_APPEND ||
           e == KAFKA_KAFKA_STORAGE_ERROR || e == KAFKA_UNKNOWN_TOPIC_ID ||
           e == KAFKA_INCONSISTENT_TOPIC_ID;
}

static void batch_answered(struct producer *p, int part, struct outgoing *o,
                           const struct produce_response_partition *in)
{
    struct world *w = p->client.world;
    enum kafka_error e = (enum kafka_error)in->error_code;
    if (e == KAFKA_NONE) {
        batch_acked(p, part, o, in->base_offset);
        return;
    }
    /* one before it failed; at the head of the queue it would mean that an
     * acknowledged one is gone */
    bool out_of_order =
        e == KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER && o != p->parts[part].first;
    if (!is_retriable(e) && !out_of_order) {
        sim_fail(w->sim, "p%d t%d-%d record %llu: %s", p->at, part_topic(part),
                 part_index(part), (unsigned long long)o->r,
                 kafka_error_name(in->error_code));
    }
    batch_failed(p, part);
}

static void produce(struct producer *p);

static int answer_topic(const struct producer *p,
                        const struct produce_response_topic *in, int version)
{
    return version >= 13 ? topic_find_id(&p->client, &in->topic_id)
                         : topic_find(in->name);
}

static void take_response(struct out_request *rq, const struct answer *a)
{
    struct producer *p = rq->producer;
    const struct produce_response *in = a->response;
    for (int t = 0; t < in->n_responses; t++) {
        int topic = answer_topic(p, &in->responses[t], a->version);
        for (int k = 0; k < in->responses[t].n_partition_responses; k++) {
            const struct produce_response_partition *rp =
                &in->responses[t].partition_responses[k];
            for (int i = 0; i < rq->n; i++) {
                if (topic >= 0 && rq->parts[i] == part_of(topic, rp->index)) {
                    rq->answered[i] = true;
                    batch_answered(p, rq->parts[i], rq->batches[i], rp);
                }
            }
        }
    }
    for (int i = 0; i < rq->n; i++) {
        if (!rq->answered[i]) {
            sim_fail(p->client.world->sim, "p%d: t%d-%d is not answered", p->at,
                     part_topic(rq->parts[i]), part_index(rq->parts[i]));
        }
    }
}

static void produce_done(void *arg, const struct answer *a)
{
    struct out_request *rq = arg;
    struct producer *p = rq->producer;
    p->n_requests--;
    if (a->fate == FATE_ANSWERED) {
        take_response(rq, a);
    }
    for (int i = 0; i < rq->n; i++) {
        struct out_part *part = &p->parts[rq->parts[i]];
        if (a->fate != FATE_ANSWERED) {
            batch_failed(p, rq->parts[i]);
        }
        rq->batches[i]->in_flight = false;
        part->n_in_flight--;
        if (part->n_in_flight == 0) {
            part->drains = false;
        }
        part_pop_done(part);
    }
    mem_free(rq);
    produce(p);
}

/* ---- sending ------------------------------------------------------------- */
static struct outgoing *next_of(struct producer *p, int part)
{
    struct out_part *out = &p->parts[part];
    int most = p->idempotent ? p->client.world->plan.in_flight : 1;
    if (out->first == NULL || out->drains || out->n_in_flight >= most ||
        out->not_before_ns > sim_now_ns(p->client.world->sim)) {
        return NULL;
    }
    /* As librdkafka waits for outstanding requests before it produces to a new
     * leader: that one may not know the producer, and let it begin anywhere. */
    if (out->n_in_flight > 0 &&
        out->in_flight_to != p->client.parts[part].leader) {
        return NULL;
    }
    /* Counted from the oldest that is not acknowledged, though others behind it
     * may be: brokers know the last five batches only. */
    int at = 0;
    for (struct outgoing *o = out->first; o != NULL && at < most;
         o = o->next, at++) {
        if (!o->in_flight && !o->done) {
            return o;
        }
    }
    return NULL;
}

static void send(struct producer *p, int leader, struct out_request *rq)
{
    struct produce_request_partition parts[REQUEST_PARTS];
    struct produce_request_topic topics[REQUEST_PARTS];
    char names[REQUEST_PARTS][16];
    struct produce_request q;
    produce_request_init(&q);
    q.acks = -1;
    q.timeout_ms = (int32_t)(p->client.request_ms * 3 / 4);
    q.topic_data = topics;
    q.n_topic_data = rq->n;
    for (int i = 0; i < rq->n; i++) {
        struct outgoing *o = rq->batches[i];
        int topic = part_topic(rq->parts[i]);
        topic_name(topic, names[i]);
        parts[i] = (struct produce_request_partition){
            .index = part_index(rq->parts[i]),
            .records = {.p = o->bytes, .n = (int32_t)o->size}};
        topics[i] = (struct produce_request_topic){
            .name = wire_str_of(names[i]),
            .topic_id = p->client.topic_ids[topic],
            .partition_data = &parts[i],
            .n_partition_data = 1};
        o->in_flight = true;
        p->parts[rq->parts[i]].n_in_flight++;
        p->parts[rq->parts[i]].in_flight_to = leader;
        record_id first = record_make(p->at, rq->parts[i], o->r);
        if (p->keyed) {
            keys_sent(p->client.world, first, o->n);
        } else {
            oracle_sent(p->client.world, first, o->n);
        }
    }
    p->n_requests++;
    client_ask(&p->client, leader, API_PRODUCE, &q, produce_done, rq);
}

/* Everything that may leave to one broker, a batch of each partition. */
static bool send_to(struct producer *p, int leader)
{
    struct out_request *rq = NULL;
    for (int part = 0; part < PARTS_MAX; part++) {
        struct outgoing *o = next_of(p, part);
        if (o == NULL || p->client.parts[part].leader != leader) {
            continue;
        }
        if (rq == NULL) {
            rq = mem_zalloc(sizeof *rq);
            rq->producer = p;
        }
        rq->parts[rq->n] = part;
        rq->batches[rq->n] = o;
        if (++rq->n == REQUEST_PARTS || prng_chance(&p->client.prng, 1, 3)) {
            break;
        }
    }
    if (rq == NULL) {
        return false;
    }
    send(p, leader, rq);
    return true;
}

static void id_done(void *arg, const struct answer *a)
{
    struct producer *p = arg;
    const struct init_producer_id_response *in = a->response;
    p->asking_id = false;
    if (a->fate == FATE_ANSWERED && in->error_code == KAFKA_NONE) {
        p->producer_id = in->producer_id;
        p->epoch = in->producer_epoch;
    }
}

static void ask_id(struct producer *p)
{
    struct init_producer_id_request q;
    init_producer_id_request_init(&q);
    q.transactional_id = WIRE_NULL_STR;
    p->asking_id = true;
    client_ask(&p->client, client_any_broker(&p->client), API_INIT_PRODUCER_ID,
               &q, id_done, p);
}

static void produce(struct producer *p)
{
    if (p->idempotent && p->producer_id < 0) {
        if (!p->asking_id) {
            ask_id(p);
        }
        return;
    }
    for (int i = 0; i < PARTS_MAX; i++) {
        const struct client_part *known = &p->client.parts[i];
        if (p->parts[i].first != NULL && known->leader < 0) {
            client_refresh(&p->client);
        }
    }
    if (p->client.version[API_PRODUCE] >= 13 && !client_has_ids(&p->client)) {
        client_refresh(&p->client);
        return;
    }
    for (int b = 0; b < p->client.world->plan.n_brokers; b++) {
        while (send_to(p, b)) {
        }
    }
}

/* ---- making records ------------------------------------------------------ */
static void add_record(struct producer *p, struct batch_builder *b,
                       record_id id)
{
    struct world *w = p->client.world;
    struct prng *rng = &p->client.prng;
    uint8_t *value =
        mem_alloc((size_t)w->plan.value_max + RECORD_VALUE_MIN + 60);
    int32_t len = (int32_t)prng_between(rng, RECORD_VALUE_MIN,
                                        prng_chance(rng, 1, 8)
                                            ? (uint64_t)w->plan.value_max
                                            : RECORD_VALUE_MIN + 60);
    record_value(id, value, len);
    batch_builder_add(b, env_wall_ms(p->client.env), NULL, -1, value, len, NULL,
                      0);
    mem_free(value);
}

/* With a key, and its number in a header: a tombstone has no value. */
static void add_keyed(struct producer *p, struct batch_builder *b, record_id id)
{
    struct world *w = p->client.world;
    struct prng *rng = &p->client.prng;
    char key[KEY_BYTES_MAX];
    uint8_t value[KEYED_VALUE_MAX], number[sizeof id];
    struct record_header header = {(const uint8_t *)"n", 1, number,
                                   sizeof number};
    struct key_record record = {.key = key_draw(w, rng), .offset = -1};
    record.tombstone = prng_chance(rng, 1, 4);
    record.timestamp_ms = env_wall_ms(p->client.env);
    int32_t len = (int32_t)prng_between(
        rng, RECORD_VALUE_MIN,
        prng_chance(rng, 1, 8) ? KEYED_VALUE_MAX : RECORD_VALUE_MIN + 60);
    memcpy(number, &id, sizeof id);
    record_value(id, value, len);
    keys_made(w, id, &record);
    batch_builder_add(b, record.timestamp_ms, key, key_bytes(record.key, key),
                      record.tombstone ? NULL : value,
                      record.tombstone ? -1 : len, &header, 1);
}

static uint64_t some_records(struct producer *p)
{
    uint64_t most = (uint64_t)p->client.world->plan.records_max;
    if (p->keyed && most > KEYED_RECORDS_MAX) {
        most = KEYED_RECORDS_MAX;
    }
    return prng_between(&p->client.prng, 1, most);
}

static void make_batch(struct producer *p, int part)
{
    struct world *w = p->client.world;
    struct out_part *out = &p->parts[part];
    struct batch_builder b;
    const uint8_t *bytes;
    size_t size;
    int n = (int)some_records(p);
    batch_builder_init(&b, p->codec);
    b.producer_id = p->idempotent ? p->producer_id : -1;
    b.producer_epoch = p->idempotent ? p->epoch : -1;
    b.base_sequence = p->idempotent ? out->next_sequence : -1;
    for (int i = 0; i < n; i++) {
        record_id id = record_make(p->at, part, out->next_r + (uint64_t)i);
        if (p->keyed) {
            add_keyed(p, &b, id);
        } else {
            add_record(p, &b, id);
        }
    }
    if (batch_builder_finish(&b, &bytes, &size) != ERR_OK) {
        sim_fail(w->sim, "a batch cannot be built");
    }
    struct outgoing *o = mem_zalloc(sizeof *o + size);
    o->r = out->next_r;
    o->n = n;
    o->size = (uint32_t)size;
    memcpy(o->bytes, bytes, size);
    batch_builder_free(&b);
    out->next_r += (uint64_t)n;
    w->storm.n_records += (uint64_t)n;
    out->next_sequence = sequence_add(out->next_sequence, n);
    *out->last = o;
    out->last = &o->next;
    out->n_queued++;
}

/* How many batches are to be made now. */
static uint64_t some_batches(struct producer *p)
{
    struct world *w = p->client.world;
    if (w->phase != PHASE_CHAOS || (p->idempotent && p->producer_id < 0)) {
        return 0;
    }
    if (nemesis_load(w)) {
        return prng_between(&p->client.prng, 1, 4);
    }
    return w->plan.drizzle && prng_chance(&p->client.prng, 1, 8);
}

static void make_some(struct producer *p)
{
    struct world *w = p->client.world;
    for (uint64_t k = some_batches(p); k > 0; k--) {
        int topic = p->keyed ? KEYED_TOPIC
                             : (int)prng_below(&p->client.prng,
                                               (uint64_t)w->plan.n_topics);
        int part = part_of(
            topic,
            (int)prng_below(&p->client.prng, (uint64_t)w->n_parts_of[topic]));
        if (p->parts[part].n_queued < QUEUE_MAX) {
            make_batch(p, part);
        }
    }
}

static void tick(struct env_timer *timer)
{
    struct producer *p = timer->arg;
    uint64_t ms = p->client.world->plan.produce_ms;
    make_some(p);
    produce(p);
    if (!nemesis_load(p->client.world)) {
        ms = producer_done(p) ? 2000 : 100; /* what is left is to be sent */
    }
    env_timer_start(timer, prng_between(&p->client.prng, 1, ms));
}

static void boot(struct env *env, void *arg)
{
    struct client *c = arg;
    struct producer *p = c->actor;
    env_timer_init(env, &p->timer, tick, p);
    env_timer_start(&p->timer, 1);
    client_refresh(c);
}

void producer_add(struct world *w, int at, enum producer_kind kind)
{
    struct producer *p = calloc(1, sizeof *p);
    char name[16];
    snprintf(name, sizeof name, "p%d", at);
    p->at = at;
    p->idempotent = kind != PRODUCER_PLAIN;
    p->keyed = kind == PRODUCER_KEYED;
    p->producer_id = -1;
    for (int i = 0; i < PARTS_MAX; i++) {
        p->parts[i].last = &p->parts[i].first;
    }
    w->producers[at] = p;
    w->n_producers = at + 1;
    client_add(w, &p->client, name, boot, p);
    p->codec = prng_chance(&p->client.prng, 1, 2)
                   ? CODEC_NONE
                   : (enum batch_codec)prng_below(&p->client.prng, 5);
    if (p->codec == CODEC_ZSTD && p->client.version[API_PRODUCE] < 7) {
        p->codec = CODEC_LZ4; /* there is no zstd before */
    }
}

bool producer_is_idempotent(const struct world *w, int at)
{
    return w->producers[at]->idempotent;
}

bool producer_done(const struct producer *p)
{
    for (int i = 0; i < PARTS_MAX; i++) {
        if (p->parts[i].first != NULL) {
            return false;
        }
    }
    return true;
}

void producer_print(const struct producer *p)
{
    for (int i = 0; i < PARTS_MAX; i++) {
        const struct out_part *out = &p->parts[i];
        if (out->first != NULL) {
            fprintf(stderr,
                    "p%d t%d-%d: %d queued, %d in flight, drains %d, head %llu,"
                    " leader b%d epoch %d\n",
                    p->at, part_topic(i), part_index(i), out->n_queued,
                    out->n_in_flight, out->drains,
                    (unsigned long long)out->first->r,
                    p->client.parts[i].leader, p->client.parts[i].epoch);
        }
    }
}

struct sim_node *producer_node(const struct producer *p)
{
    return p->client.node;
}

void producer_free(struct producer *p)
{
    client_drop(&p->client);
    free(p);
}
