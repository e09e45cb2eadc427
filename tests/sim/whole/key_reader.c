/* A reader of the compacted topic: each partition from the beginning to the
 * end, again and again, from whoever leads or from one replica, which keys.c
 * judges. In the end every replica is read once more. */
#include <stdio.h>

#include "base/mem.h"
#include "schema/fetch.h"
#include "tests/sim/whole/impl.h"

#define PASS_MS 60000 /* longer than that a replica may be down */

struct read_part {
    struct key_pass *pass;
    int broker; /* it is read from; -1: from whoever leads */
    bool in_flight, newest;
    bool looks_low; /* where it begins is asked for */
    uint64_t not_before_ns, until_ns;
    uint32_t done; /* brokers read after all was written */
};

struct key_reader {
    struct client client;
    struct read_part parts[KEYED_PARTITIONS_MAX];
    struct env_timer timer;
};

struct key_request {
    struct key_reader *reader;
    int index;
};

static bool all_written(struct world *w)
{
    bool all = w->phase == PHASE_LIVENESS && brokers_ready(w);
    for (int i = 0; all && i < w->n_producers; i++) {
        all = producer_done(w->producers[i]);
    }
    return all;
}

static void pass_end(struct read_part *part)
{
    key_pass_free(part->pass);
    part->pass = NULL;
    part->looks_low = false;
}

/* ---- which --------------------------------------------------------------- */
/* One that is not read yet in the end; else any. -1: none is known. */
static int choose_replica(struct key_reader *r, int index)
{
    struct world *w = r->client.world;
    int replicas[BROKERS_MAX], left[BROKERS_MAX], n_left = 0;
    int n =
        probe_replicas(w, &r->client.topic_ids[KEYED_TOPIC], index, replicas);
    for (int i = 0; i < n; i++) {
        if (!(r->parts[index].done & UINT32_C(1) << replicas[i])) {
            left[n_left++] = replicas[i];
        }
    }
    if (n_left == 0) {
        return n == 0 ? -1 : replicas[prng_below(&r->client.prng, (uint64_t)n)];
    }
    return left[prng_below(&r->client.prng, (uint64_t)n_left)];
}

static void pass_begin(struct key_reader *r, int index)
{
    struct world *w = r->client.world;
    struct read_part *part = &r->parts[index];
    bool newest = all_written(w);
    part->done = newest ? part->done : 0;
    part->newest = newest;
    part->broker = newest || prng_chance(&r->client.prng, 1, 2)
                       ? choose_replica(r, index)
                       : -1;
    part->until_ns = sim_now_ns(w->sim) + PASS_MS * SIM_MS;
    part->pass = key_pass_new(w, index, part->broker >= 0);
}

/* ---- answers ------------------------------------------------------------- */
/* In a storm more often than in calm. */
static uint64_t pause_ns(struct key_reader *r)
{
    const struct world *w = r->client.world;
    uint64_t most = w->phase != PHASE_CHAOS ? 100
                    : nemesis_load(w)       ? 8000
                                            : 90000;
    return prng_between(&r->client.prng, 1, most) * SIM_MS;
}

static void take_batches(struct key_reader *r, int index,
                         const struct fetch_response_partition *in, int broker)
{
    struct world *w = r->client.world;
    struct read_part *part = &r->parts[index];
    size_t size = in->records.n > 0 ? (size_t)in->records.n : 0;
    if (!key_pass_take(part->pass, broker, in->high_watermark,
                       in->log_start_offset, in->records.p, size)) {
        if (size == 0) {
            part->not_before_ns = sim_now_ns(w->sim) + 100 * SIM_MS;
        }
        return;
    }
    if (part->newest && part->broker >= 0 && key_pass_is_clean(part->pass) &&
        key_pass_position(part->pass) >= keys_end(w, index)) {
        part->done |= UINT32_C(1) << part->broker;
    }
    pass_end(part);
    part->not_before_ns = sim_now_ns(w->sim) + pause_ns(r);
}

/* Later, or another one. */
static void read_failed(struct key_reader *r, int index)
{
    struct world *w = r->client.world;
    struct read_part *part = &r->parts[index];
    if (part->looks_low || sim_now_ns(w->sim) > part->until_ns) {
        pass_end(part);
    }
    part->not_before_ns =
        sim_now_ns(w->sim) + prng_between(&r->client.prng, 50, 500) * SIM_MS;
    client_refresh(&r->client);
}

static void take_partition(struct key_reader *r, int index,
                           const struct fetch_response_partition *in,
                           const struct answer *a)
{
    struct world *w = r->client.world;
    struct read_part *part = &r->parts[index];
    enum kafka_error e = (enum kafka_error)in->error_code;
    if (e == KAFKA_NONE && part->looks_low) {
        keys_begin_at(w, index, in->log_start_offset);
        pass_end(part);
    } else if (e == KAFKA_NONE) {
        take_batches(r, index, in, a->broker);
    } else if (e == KAFKA_OFFSET_OUT_OF_RANGE && w->plan.keyed.deletes) {
        part->looks_low = true;
    } else if (fetch_again_later(e)) {
        read_failed(r, index);
    } else {
        sim_fail(w->sim, "%s t%d-%d at %lld: %s", r->client.name, KEYED_TOPIC,
                 index, (long long)key_pass_position(part->pass),
                 kafka_error_name(in->error_code));
    }
}

static void read_on(struct key_reader *r);

static void fetch_done(void *arg, const struct answer *a)
{
    struct key_request *rq = arg;
    struct key_reader *r = rq->reader;
    const struct fetch_response *in = a->response;
    r->parts[rq->index].in_flight = false;
    if (a->fate == FATE_ANSWERED && in->n_responses == 1 &&
        in->responses[0].n_partitions == 1) {
        take_partition(r, rq->index, &in->responses[0].partitions[0], a);
    } else {
        read_failed(r, rq->index);
    }
    mem_free(rq);
    read_on(r);
}

/* ---- asking -------------------------------------------------------------- */
static void fetch(struct key_reader *r, int index, int broker)
{
    struct read_part *part = &r->parts[index];
    struct client *c = &r->client;
    struct key_request *rq = mem_zalloc(sizeof *rq);
    struct fetch_request_partition p = {
        .partition = index,
        .current_leader_epoch = -1,
        .fetch_offset = part->looks_low ? keys_end(c->world, index)
                                        : key_pass_position(part->pass),
        .last_fetched_epoch = -1,
        .log_start_offset = -1,
        .partition_max_bytes = (int32_t)prng_between(&c->prng, 1, 1 << 15),
        .high_watermark = INT64_MAX,
    };
    struct fetch_request_topic topic = {.topic_id = c->topic_ids[KEYED_TOPIC],
                                        .partitions = &p,
                                        .n_partitions = 1};
    struct fetch_request q;
    fetch_request_init(&q);
    q.max_wait_ms = 0;
    q.topics = &topic;
    q.n_topics = 1;
    q.rack_id = part->broker < 0 ? WIRE_STR("") : WIRE_STR("any");
    rq->reader = r;
    rq->index = index;
    part->in_flight = true;
    client_ask(c, broker, API_FETCH, &q, fetch_done, rq);
}

static void read_on(struct key_reader *r)
{
    struct world *w = r->client.world;
    uint64_t now = sim_now_ns(w->sim);
    if (uuid_is_zero(&r->client.topic_ids[KEYED_TOPIC])) {
        client_refresh(&r->client);
        return;
    }
    for (int i = 0; i < w->plan.keyed.n_partitions; i++) {
        struct read_part *part = &r->parts[i];
        if (part->in_flight || part->not_before_ns > now) {
            continue;
        }
        if (part->pass == NULL) {
            pass_begin(r, i);
        }
        int broker = part->broker >= 0 && !part->looks_low
                         ? part->broker
                         : r->client.parts[part_of(KEYED_TOPIC, i)].leader;
        if (broker < 0) {
            client_refresh(&r->client);
        } else {
            fetch(r, i, broker);
        }
    }
}

static void tick(struct env_timer *timer)
{
    struct key_reader *r = timer->arg;
    read_on(r);
    env_timer_start(timer, r->client.world->phase == PHASE_CHAOS ? 500 : 50);
}

static void boot(struct env *env, void *arg)
{
    struct client *c = arg;
    struct key_reader *r = c->actor;
    env_timer_init(env, &r->timer, tick, r);
    env_timer_start(&r->timer, 1);
    client_refresh(c);
}

/* ---- for the world ------------------------------------------------------- */
void key_reader_add(struct world *w, int at)
{
    static const int16_t newest[] = {API_METADATA, API_FETCH};
    struct key_reader *r = calloc(1, sizeof *r);
    char name[16];
    snprintf(name, sizeof name, "k%d", at);
    w->key_readers[at] = r;
    w->n_key_readers = at + 1;
    client_add(w, &r->client, name, boot, r);
    for (size_t i = 0; i < sizeof newest / sizeof newest[0]; i++) {
        r->client.version[newest[i]] = codec_api_find(newest[i])->offer_max;
    }
}

bool key_reader_done(const struct key_reader *r)
{
    const struct world *w = r->client.world;
    int replicas[BROKERS_MAX];
    for (int i = 0; i < w->plan.keyed.n_partitions; i++) {
        int n =
            probe_replicas(w, &r->client.topic_ids[KEYED_TOPIC], i, replicas);
        for (int k = 0; k < n; k++) {
            if (!(r->parts[i].done & UINT32_C(1) << replicas[k])) {
                return false;
            }
        }
    }
    return true;
}

void key_reader_print(const struct key_reader *r)
{
    const struct world *w = r->client.world;
    for (int i = 0; i < w->plan.keyed.n_partitions; i++) {
        const struct read_part *part = &r->parts[i];
        fprintf(
            stderr,
            "%s t%d-%d: at %lld of %lld, from b%d, in flight %d, replicas "
            "read in the end: %x\n",
            r->client.name, KEYED_TOPIC, i,
            part->pass == NULL ? -1 : (long long)key_pass_position(part->pass),
            (long long)keys_end(w, i), part->broker, part->in_flight,
            part->done);
    }
}

struct sim_node *key_reader_node(const struct key_reader *r)
{
    return r->client.node;
}

void key_reader_free(struct key_reader *r)
{
    client_drop(&r->client);
    for (int i = 0; i < KEYED_PARTITIONS_MAX; i++) {
        key_pass_free(r->parts[i].pass);
    }
    free(r);
}
