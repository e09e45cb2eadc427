/* A consumer by assign: every partition from the beginning, with long polls,
 * to the very end. Each record is checked against the oracle, each answer
 * against its high watermark. Members of groups read by it too: what they are
 * given, from where they say. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "partition/batch.h"
#include "schema/fetch.h"
#include "tests/sim/whole/impl.h"

/* The next record of a producer is not known: somebody else read before. */
#define ANY_RECORD UINT64_MAX

struct in_part {
    bool assigned;
    unsigned claim; /* a new number with every assignment */
    int64_t position;
    int32_t epoch; /* of the newest batch */
    bool in_flight;
    uint64_t not_before_ns;
    /* order of each producer's records */
    uint64_t next_r[PRODUCERS_MAX];
    /* high watermark told by a broker's incarnation */
    int64_t watermark[BROKERS_MAX];
    unsigned starts[BROKERS_MAX];
};

struct consumer {
    struct client client;
    const struct reader *reader; /* NULL: reads everything by itself */
    void *actor;
    int process; /* of the history */
    struct in_part parts[PARTS_MAX];
    int fetching[BROKERS_MAX];
    uint64_t not_before_ns[BROKERS_MAX]; /* after it did not answer */
    struct env_timer timer;
};

struct in_request {
    struct consumer *consumer;
    int broker;
    int n;
    int parts[PARTS_MAX];
    unsigned claims[PARTS_MAX];
};

static void read_record(struct consumer *c, int part, int64_t offset,
                        const struct batch_record *record)
{
    struct world *w = c->client.world;
    uint8_t expected[RECORD_VALUE_MIN];
    record_id id;
    if (record->value_size < RECORD_VALUE_MIN) {
        sim_fail(w->sim, "%s: t%d-%d offset %lld has another value",
                 c->client.name, part_topic(part), part_index(part),
                 (long long)offset);
    }
    memcpy(&id, record->value, sizeof id);
    uint8_t *value = mem_alloc((size_t)record->value_size);
    (void)expected;
    record_value(id, value, record->value_size);
    if (memcmp(value, record->value, (size_t)record->value_size) != 0) {
        sim_fail(w->sim, "%s: t%d-%d offset %lld: the bytes changed",
                 c->client.name, part_topic(part), part_index(part),
                 (long long)offset);
    }
    mem_free(value);
    oracle_read(w, part, offset, id);
    history_read(w, part, offset, id);
    int producer = record_producer(id);
    uint64_t *next = &c->parts[part].next_r[producer];
    if (producer_is_idempotent(w, producer) && *next != ANY_RECORD &&
        record_r(id) != *next) {
        sim_fail(w->sim, "%s: t%d-%d offset %lld: record %llu of p%d, not %llu",
                 c->client.name, part_topic(part), part_index(part),
                 (long long)offset, (unsigned long long)record_r(id), producer,
                 (unsigned long long)*next);
    }
    *next = record_r(id) + 1;
    if (c->reader != NULL) {
        c->reader->read(c->actor, part, offset);
    }
}

static void read_batch(struct consumer *c, int part, const uint8_t *batch,
                       size_t size, const struct batch_header *h)
{
    struct in_part *in = &c->parts[part];
    struct batch_records records;
    struct batch_record record;
    if (!batch_is_whole(batch, size) ||
        batch_records_open(&records, batch, size, 64 << 20) != ERR_OK) {
        sim_fail(c->client.world->sim, "%s: t%d-%d offset %lld: a bad batch",
                 c->client.name, part_topic(part), part_index(part),
                 (long long)h->base_offset.v);
    }
    if (h->leader_epoch < in->epoch) {
        sim_fail(c->client.world->sim,
                 "%s: t%d-%d offset %lld: epoch %d after %d", c->client.name,
                 part_topic(part), part_index(part),
                 (long long)h->base_offset.v, h->leader_epoch, in->epoch);
    }
    in->epoch = h->leader_epoch;
    while (batch_records_next(&records, &record)) {
        int64_t offset = h->base_offset.v + record.offset_delta;
        if (offset < in->position) {
            continue; /* the batch began before */
        }
        if (offset != in->position) {
            sim_fail(c->client.world->sim, "%s: t%d-%d: offset %lld after %lld",
                     c->client.name, part_topic(part), part_index(part),
                     (long long)offset, (long long)in->position);
        }
        read_record(c, part, offset, &record);
        in->position = offset + 1;
    }
    if (records.status != ERR_OK) {
        sim_fail(c->client.world->sim, "%s: bad records", c->client.name);
    }
    batch_records_close(&records);
}

static void read_batches(struct consumer *c, int part,
                         const struct fetch_response_partition *in)
{
    const uint8_t *p = in->records.p;
    size_t left = in->records.n > 0 ? (size_t)in->records.n : 0;
    while (left > 0) {
        struct batch_header h;
        if (batch_header_read(p, left, &h) != ERR_OK || batch_size(&h) > left) {
            sim_fail(c->client.world->sim, "%s: t%d-%d: half a batch",
                     c->client.name, part_topic(part), part_index(part));
        }
        if (batch_last_offset(&h).v >= in->high_watermark) {
            sim_fail(c->client.world->sim,
                     "%s: t%d-%d: offset %lld beyond high watermark %lld",
                     c->client.name, part_topic(part), part_index(part),
                     (long long)batch_last_offset(&h).v,
                     (long long)in->high_watermark);
        }
        read_batch(c, part, p, batch_size(&h), &h);
        p += batch_size(&h);
        left -= batch_size(&h);
    }
}

/* One broker's word about the high watermark never goes back. */
static void check_watermark(struct consumer *c, int part, int64_t watermark,
                            const struct answer *a)
{
    struct in_part *in = &c->parts[part];
    if (in->starts[a->broker] == a->starts &&
        watermark < in->watermark[a->broker]) {
        sim_fail(c->client.world->sim,
                 "%s: t%d-%d: b%d's high watermark %lld after %lld",
                 c->client.name, part_topic(part), part_index(part), a->broker,
                 (long long)watermark, (long long)in->watermark[a->broker]);
    }
    in->starts[a->broker] = a->starts;
    in->watermark[a->broker] = watermark;
}

static void take_partition(struct consumer *c, int part,
                           const struct fetch_response_partition *in,
                           const struct answer *a)
{
    enum kafka_error e = (enum kafka_error)in->error_code;
    if (e == KAFKA_NONE) {
        check_watermark(c, part, in->high_watermark, a);
        history_poll_begin(c->client.world);
        read_batches(c, part, in);
        history_poll_end(c->client.world, c->process);
        return;
    }
    if (!fetch_again_later(e)) {
        sim_fail(c->client.world->sim, "%s t%d-%d at %lld: %s", c->client.name,
                 part_topic(part), part_index(part),
                 (long long)c->parts[part].position,
                 kafka_error_name(in->error_code));
    }
    c->parts[part].not_before_ns =
        sim_now_ns(c->client.world->sim) +
        prng_between(&c->client.prng, 20, 150) * SIM_MS;
    client_refresh(&c->client);
}

static void fetch_all(struct consumer *c);

/* Still the assignment for which it was asked. */
static bool is_claimed(const struct in_request *rq, int part)
{
    const struct in_part *in = &rq->consumer->parts[part];
    for (int i = 0; i < rq->n; i++) {
        if (rq->parts[i] == part) {
            return in->assigned && in->claim == rq->claims[i];
        }
    }
    return false;
}

static void fetch_done(void *arg, const struct answer *a)
{
    struct in_request *rq = arg;
    struct consumer *c = rq->consumer;
    c->fetching[rq->broker]--;
    for (int i = 0; i < rq->n; i++) {
        if (c->parts[rq->parts[i]].claim == rq->claims[i]) {
            c->parts[rq->parts[i]].in_flight = false;
        }
    }
    if (a->fate == FATE_ANSWERED) {
        const struct fetch_response *in = a->response;
        if (in->error_code != KAFKA_NONE) {
            sim_fail(c->client.world->sim, "%s: fetch: %s", c->client.name,
                     kafka_error_name(in->error_code));
        }
        for (int t = 0; t < in->n_responses; t++) {
            int topic =
                a->version >= 13
                    ? topic_find_id(&c->client, &in->responses[t].topic_id)
                    : topic_find(in->responses[t].topic);
            for (int k = 0; topic >= 0 && k < in->responses[t].n_partitions;
                 k++) {
                const struct fetch_response_partition *from =
                    &in->responses[t].partitions[k];
                int part = part_of(topic, from->partition_index);
                if (is_claimed(rq, part)) {
                    take_partition(c, part, from, a);
                }
            }
        }
    } else {
        c->not_before_ns[rq->broker] =
            sim_now_ns(c->client.world->sim) +
            prng_between(&c->client.prng, 20, 500) * SIM_MS;
        client_refresh(&c->client);
    }
    mem_free(rq);
    fetch_all(c);
}

static void fetch_from(struct consumer *c, int broker)
{
    struct world *w = c->client.world;
    struct in_request *rq = mem_zalloc(sizeof *rq);
    struct fetch_request_partition parts[PARTS_MAX];
    struct fetch_request_topic topics[PARTS_MAX];
    char names[PARTS_MAX][16];
    struct fetch_request q;
    bool last = prng_chance(&c->client.prng, 1, 2);
    rq->consumer = c;
    rq->broker = broker;
    for (int t = 0; t < w->plan.n_topics; t++) {
        for (int k = 0; k < w->n_parts_of[t]; k++) {
            int part = part_of(t, k);
            struct in_part *in = &c->parts[part];
            if (!in->assigned || in->in_flight ||
                c->client.parts[part].leader != broker ||
                in->not_before_ns > sim_now_ns(w->sim)) {
                continue;
            }
            parts[rq->n] = (struct fetch_request_partition){
                .partition = k,
                .current_leader_epoch = last ? c->client.parts[part].epoch : -1,
                .fetch_offset = in->position,
                .last_fetched_epoch = -1,
                .log_start_offset = -1,
                .partition_max_bytes =
                    (int32_t)prng_between(&c->client.prng, 1, 1 << 20),
                .high_watermark = INT64_MAX,
            };
            topic_name(t, names[rq->n]);
            topics[rq->n] =
                (struct fetch_request_topic){.topic = wire_str_of(names[rq->n]),
                                             .topic_id = c->client.topic_ids[t],
                                             .partitions = &parts[rq->n],
                                             .n_partitions = 1};
            in->in_flight = true;
            rq->claims[rq->n] = in->claim;
            rq->parts[rq->n++] = part;
        }
    }
    if (rq->n == 0) {
        mem_free(rq);
        return;
    }
    fetch_request_init(&q);
    q.max_wait_ms = (int32_t)prng_between(&c->client.prng, 0, w->plan.fetch_ms);
    q.min_bytes = 1;
    q.max_bytes = (int32_t)prng_between(&c->client.prng, 1, 4 << 20);
    q.topics = topics;
    q.n_topics = rq->n;
    c->fetching[broker]++;
    client_ask(&c->client, broker, API_FETCH, &q, fetch_done, rq);
}

static void fetch_all(struct consumer *c)
{
    struct world *w = c->client.world;
    if (w->n_created < w->plan.n_topics) {
        return;
    }
    if (c->client.version[API_FETCH] >= 13 && !client_has_ids(&c->client)) {
        client_refresh(&c->client);
        return;
    }
    for (int t = 0; t < w->plan.n_topics; t++) {
        for (int k = 0; k < w->n_parts_of[t]; k++) {
            if (c->client.parts[part_of(t, k)].leader < 0) {
                client_refresh(&c->client);
            }
        }
    }
    for (int b = 0; b < w->plan.n_brokers; b++) {
        if (c->fetching[b] == 0 && c->not_before_ns[b] <= sim_now_ns(w->sim)) {
            fetch_from(c, b);
        }
    }
}

static void tick(struct env_timer *timer)
{
    struct consumer *c = timer->arg;
    fetch_all(c);
    env_timer_start(timer, prng_between(&c->client.prng, 50, 200));
}

static void boot(struct env *env, void *arg)
{
    struct client *client = arg;
    struct consumer *c = client->actor;
    env_timer_init(env, &c->timer, tick, c);
    env_timer_start(&c->timer, 1);
    client_refresh(client);
    if (c->reader != NULL) {
        c->reader->boot(env, c->actor);
    }
}

/* ---- what is read -------------------------------------------------------- */
struct consumer *consumer_new(struct world *w, const char *name,
                              const struct reader *reader, void *actor)
{
    struct consumer *c = calloc(1, sizeof *c);
    c->reader = reader;
    c->actor = actor;
    c->process = w->n_readers++;
    client_add(w, &c->client, name, boot, c);
    return c;
}

void consumer_add(struct world *w, int at)
{
    char name[16];
    snprintf(name, sizeof name, "c%d", at);
    w->consumers[at] = consumer_new(w, name, NULL, NULL);
    w->n_consumers = at + 1;
    for (int i = 0; i < PARTS_MAX; i++) {
        w->consumers[at]->parts[i].assigned = true;
    }
}

void consumer_assign(struct consumer *c, int part, int64_t position)
{
    struct in_part *in = &c->parts[part];
    history_seek(c->client.world, c->process);
    in->assigned = true;
    in->claim++;
    in->in_flight = false;
    in->position = position;
    in->epoch = 0;
    for (int i = 0; i < PRODUCERS_MAX; i++) {
        in->next_r[i] = ANY_RECORD;
    }
}

void consumer_revoke(struct consumer *c, int part)
{
    c->parts[part].assigned = false;
}

int64_t consumer_position(const struct consumer *c, int part)
{
    return c->parts[part].position;
}

struct client *consumer_client(struct consumer *c)
{
    return &c->client;
}

bool consumer_done(const struct consumer *c)
{
    const struct world *w = c->client.world;
    for (int i = 0; i < PARTS_MAX; i++) {
        if (c->parts[i].assigned &&
            c->parts[i].position < (int64_t)w->oracle.parts[i].seen_end) {
            return false;
        }
    }
    return true;
}

void consumer_print(const struct consumer *c)
{
    const struct world *w = c->client.world;
    for (int i = 0; i < PARTS_MAX; i++) {
        if (c->parts[i].assigned &&
            c->parts[i].position < (int64_t)w->oracle.parts[i].seen_end) {
            fprintf(stderr, "%s t%d-%d: at %lld of %llu, leader b%d epoch %d\n",
                    c->client.name, part_topic(i), part_index(i),
                    (long long)c->parts[i].position,
                    (unsigned long long)w->oracle.parts[i].seen_end,
                    c->client.parts[i].leader, c->client.parts[i].epoch);
        }
    }
}

struct sim_node *consumer_node(const struct consumer *c)
{
    return c->client.node;
}

void consumer_free(struct consumer *c)
{
    client_drop(&c->client);
    free(c);
}
