/* An administrator with a few topics of its own: makes and deletes them under
 * the same names again and again, adds partitions, alters their configuration,
 * writes to them, deletes records, and asks any broker what is there. It alone
 * changes its topics, one thing at a time, so it knows what is true.
 *
 * A change without an answer may become true late. Its topic is left alone
 * until nothing of it can be under way any more, and is then deleted: whatever
 * happened, a topic of that name is gone afterwards. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "partition/batch.h"
#include "schema/create_partitions.h"
#include "schema/create_topics.h"
#include "schema/delete_records.h"
#include "schema/delete_topics.h"
#include "schema/describe_configs.h"
#include "schema/fetch.h"
#include "schema/incremental_alter_configs.h"
#include "schema/list_groups.h"
#include "schema/metadata.h"
#include "schema/produce.h"
#include "tests/sim/whole/impl.h"

#define SLOTS 3
#define RECORDS_MAX 400 /* written to one topic */
#define PARTITIONS_MAX 4
#define CHANGE_MS 5000
/* A request is held back by the network for 20 s at most, waits in a paused
 * broker, and is given up by the cluster after CHANGE_MS. */
#define UNSURE_NS (60 * SIM_S)
#define KEY "retention.ms"
#define KEY_BASE INT64_C(1000000000000) /* never reached */

/* A topic id that was seen, and whose name it is. */
struct id_seen {
    struct uuid id;
    int slot;   /* -1: none of this administrator */
    bool asked; /* its deletion was asked for */
    bool dead;  /* and acknowledged */
};

/* One topic name. */
struct slot {
    char name[16];
    bool here;          /* there is such a topic */
    uint64_t unsure_ns; /* a change had no answer: not touched until then */
    bool unsure;
    bool strangers; /* creations without an answer: ids nobody was told */
    struct uuid id;
    int64_t incarnation, n_changes;
    int partitions, leader; /* leader of partition 0; -1: not known */
    int64_t value;          /* of KEY; -1: the default */
    /* the broker that told the newest change has applied it */
    int sure_broker; /* -1: none */
    unsigned sure_starts;
    /* partition 0 */
    int64_t n_written, acked_end;
    int64_t low, low_maybe;       /* start of the log; perhaps */
    int64_t acked[RECORDS_MAX];   /* by offset: number + 1 */
    int64_t offsets[RECORDS_MAX]; /* by number: offset + 1 */
    int64_t read_at;
    bool read_all;                   /* in the finale */
    uint32_t shown_by, described_by; /* in the finale: brokers */
};

enum job {
    JOB_NONE,
    JOB_CREATE,
    JOB_CREATE_AGAIN, /* of a name that is there */
    JOB_DELETE,
    JOB_GROW,
    JOB_ALTER,
    JOB_WRITE,
    JOB_TRIM,
    JOB_LOOK,
    JOB_DESCRIBE,
    JOB_READ,
    JOB_GROUPS,
};

struct admin {
    struct client client;
    int at;
    struct slot slots[SLOTS];
    struct id_seen *ids;
    size_t n_ids;
    enum job job; /* under way */
    int on;       /* slot of it */
    int asked;    /* broker */
    bool calm;    /* then */
    int64_t arg;  /* of it */
    int led_by;   /* when it was asked: the broker, -1 nobody for sure */
    uint64_t led_term;
    uint64_t clean_ns; /* files of deleted topics are looked for again */
    int left_at;       /* broker that has one */
    char left[256];
    struct env_timer timer;
};

#define FAIL(a, s, format, ...)                                          \
    sim_fail((a)->client.world->sim, "%s %s: " format, (a)->client.name, \
             (s)->name, __VA_ARGS__)

/* ---- ids ----------------------------------------------------------------- */
static struct id_seen *id_find(const struct admin *a, const struct uuid *id)
{
    for (size_t i = 0; i < a->n_ids; i++) {
        if (uuid_equal(&a->ids[i].id, id)) {
            return &a->ids[i];
        }
    }
    return NULL;
}

static void id_add(struct admin *a, const struct uuid *id, int slot, bool dead)
{
    if (a->n_ids % 64 == 0) {
        a->ids = realloc(a->ids, (a->n_ids + 64) * sizeof *a->ids);
    }
    a->ids[a->n_ids++] = (struct id_seen){*id, slot, dead, dead};
}

static void slot_gone(struct admin *a, int at)
{
    struct slot *s = &a->slots[at];
    for (size_t i = 0; i < a->n_ids; i++) {
        a->ids[i].dead |= a->ids[i].slot == at;
    }
    s->here = s->unsure = false;
}

static void slot_made(struct admin *a, int at, const struct uuid *id)
{
    struct slot *s = &a->slots[at];
    const struct id_seen *seen = id_find(a, id);
    if (uuid_is_zero(id) || seen != NULL) {
        FAIL(a, s, "was made with an id that %s",
             seen == NULL ? "is none" : "there was before");
    }
    id_add(a, id, at, false);
    s->here = true;
    s->id = *id;
    s->leader = -1;
    s->n_written = s->acked_end = s->low = s->low_maybe = s->read_at = 0;
    memset(s->acked, 0, sizeof s->acked);
    memset(s->offsets, 0, sizeof s->offsets);
}

/* ---- what the end of a change means -------------------------------------- */
static bool is_unsure(enum kafka_error e)
{
    return e == KAFKA_REQUEST_TIMED_OUT || e == KAFKA_NOT_CONTROLLER;
}

static void change_unsure(struct admin *a)
{
    struct slot *s = &a->slots[a->on];
    s->unsure = true;
    s->unsure_ns = sim_now_ns(a->client.world->sim) + UNSURE_NS;
    s->strangers |= a->job == JOB_CREATE || a->job == JOB_CREATE_AGAIN;
}

/* What it answered now, it knows. */
static void change_sure(struct admin *a, const struct answer *answer)
{
    struct slot *s = &a->slots[a->on];
    s->sure_broker = answer->broker;
    s->sure_starts = answer->starts;
    a->client.world->result.admin_changes++;
}

/* True: it is done, as it should be. */
static bool change_end(struct admin *a, const struct answer *answer,
                       enum kafka_error e, enum kafka_error also)
{
    struct slot *s = &a->slots[a->on];
    if (answer->fate == FATE_NOT_SENT) {
        return false;
    }
    if (answer->fate == FATE_UNKNOWN || is_unsure(e)) {
        change_unsure(a);
        return false;
    }
    if (e != KAFKA_NONE && e != also) {
        FAIL(a, s, "job %d: %s", (int)a->job, kafka_error_name((int16_t)e));
    }
    change_sure(a, answer);
    return true;
}

/* In calm little is done; in a storm much, in bursts, and about as much from
 * one fault to the next in every seed. */
static uint64_t pause_ms(struct admin *a)
{
    const struct world *w = a->client.world;
    uint64_t most = 50;
    if (w->phase == PHASE_CHAOS && w->storm.faults_left == 0) {
        return prng_between(&a->client.prng, 200, 10000);
    }
    if (w->phase == PHASE_CHAOS && prng_chance(&a->client.prng, 1, 4) &&
        w->plan.fault_ms_max / 4 > most) {
        most = w->plan.fault_ms_max / 4;
    }
    return prng_between(&a->client.prng, 1, most);
}

static void job_done(struct admin *a)
{
    a->job = JOB_NONE;
    env_timer_start(&a->timer, pause_ms(a));
}

static void ask(struct admin *a, int broker, int16_t api, const void *q,
                answer_cb cb)
{
    a->asked = broker;
    a->calm = nemesis_calm(a->client.world);
    client_ask(&a->client, broker, api, q, cb, a);
}

/* Nothing was wrong since it was asked for: all brokers are live, and have it
 * when the answer is there. */
static void check_everywhere(const struct admin *a, const struct slot *s)
{
    if (a->calm && nemesis_calm(a->client.world)) {
        probe_topic_everywhere(a->client.world, s->name, s->partitions);
    }
}

/* ---- CreateTopics and DeleteTopics --------------------------------------- */
static void create_done(void *arg, const struct answer *answer)
{
    struct admin *a = arg;
    struct slot *s = &a->slots[a->on];
    const struct create_topics_response *in = answer->response;
    enum kafka_error e = KAFKA_NONE;
    if (answer->fate == FATE_ANSWERED) {
        if (in->n_topics != 1 || !wire_str_is(in->topics[0].name, s->name)) {
            FAIL(a, s, "%d answers to a creation", in->n_topics);
        }
        e = (enum kafka_error)in->topics[0].error_code;
    }
    if (change_end(a, answer, e, KAFKA_NONE)) {
        slot_made(a, a->on, &in->topics[0].topic_id);
        check_everywhere(a, s);
    }
    job_done(a);
}

static void create_again_done(void *arg, const struct answer *answer)
{
    struct admin *a = arg;
    const struct create_topics_response *in = answer->response;
    enum kafka_error e = KAFKA_NONE;
    if (answer->fate == FATE_ANSWERED) {
        e = (enum kafka_error)in->topics[0].error_code;
        if (e == KAFKA_NONE) {
            FAIL(a, &a->slots[a->on], "was made twice, by b%d", answer->broker);
        }
    }
    change_end(a, answer, e, KAFKA_TOPIC_ALREADY_EXISTS);
    job_done(a);
}

/* Its name is taken: nothing may come of it. */
static void create_again(struct admin *a, struct slot *s)
{
    struct create_topics_request q;
    struct create_topics_request_topic t = {0};
    create_topics_request_init(&q);
    t.name = wire_str_of(s->name);
    t.num_partitions = 1;
    t.replication_factor = 3;
    q.topics = &t;
    q.n_topics = 1;
    q.timeout_ms = CHANGE_MS;
    ask(a, client_any_broker(&a->client), API_CREATE_TOPICS, &q,
        create_again_done);
}

static void create(struct admin *a, struct slot *s)
{
    struct create_topics_request q;
    struct create_topics_request_topic t = {0};
    struct create_topics_request_config config;
    struct prng *rng = &a->client.prng;
    char value[24];
    create_topics_request_init(&q);
    s->incarnation++;
    s->partitions = (int)prng_between(rng, 1, 2);
    s->value = -1;
    t.name = wire_str_of(s->name);
    t.num_partitions = s->partitions;
    bool rots = a->client.world->plan.faults & UINT32_C(1) << FAULT_ROT;
    t.replication_factor = prng_chance(rng, 1, 6) && !rots ? 1 : 3;
    if (prng_chance(rng, 1, 2)) {
        s->value = KEY_BASE + ++s->n_changes;
        snprintf(value, sizeof value, "%lld", (long long)s->value);
        config.name = WIRE_STR(KEY);
        config.value = wire_str_of(value);
        t.configs = &config;
        t.n_configs = 1;
    }
    q.topics = &t;
    q.n_topics = 1;
    q.timeout_ms = CHANGE_MS;
    ask(a, client_any_broker(&a->client), API_CREATE_TOPICS, &q, create_done);
}

static void delete_done(void *arg, const struct answer *answer)
{
    struct admin *a = arg;
    struct slot *s = &a->slots[a->on];
    const struct delete_topics_response *in = answer->response;
    enum kafka_error e = KAFKA_NONE;
    if (answer->fate == FATE_ANSWERED) {
        if (in->n_responses != 1 ||
            (!wire_str_is(in->responses[0].name, s->name) &&
             !uuid_equal(&in->responses[0].topic_id, &s->id))) {
            FAIL(a, s, "%d answers to a deletion", in->n_responses);
        }
        e = (enum kafka_error)in->responses[0].error_code;
    }
    if (change_end(a, answer, e,
                   a->arg ? KAFKA_UNKNOWN_TOPIC_OR_PARTITION : KAFKA_NONE)) {
        slot_gone(a, a->on);
    }
    job_done(a);
}

/* By its id when it is known; a->arg: it may not be there. */
static void delete (struct admin *a, struct slot *s)
{
    struct delete_topics_request q;
    struct delete_topics_request_topic t = {WIRE_NULL_STR, {{0}}};
    struct wire_str name = wire_str_of(s->name);
    a->arg = s->unsure;
    for (size_t i = 0; i < a->n_ids; i++) {
        a->ids[i].asked |= a->ids[i].slot == a->on;
    }
    delete_topics_request_init(&q);
    if (s->unsure || prng_chance(&a->client.prng, 1, 2)) {
        t.name = name;
    } else {
        t.topic_id = s->id;
    }
    q.topics = &t;
    q.n_topics = 1;
    q.topic_names = &name;
    q.n_topic_names = 1;
    q.timeout_ms = CHANGE_MS;
    ask(a, client_any_broker(&a->client), API_DELETE_TOPICS, &q, delete_done);
}

/* ---- CreatePartitions and IncrementalAlterConfigs ------------------------ */
static void grow_done(void *arg, const struct answer *answer)
{
    struct admin *a = arg;
    struct slot *s = &a->slots[a->on];
    const struct create_partitions_response *in = answer->response;
    enum kafka_error e = KAFKA_NONE;
    if (answer->fate == FATE_ANSWERED) {
        if (in->n_results != 1 || !wire_str_is(in->results[0].name, s->name)) {
            FAIL(a, s, "%d answers about partitions", in->n_results);
        }
        e = (enum kafka_error)in->results[0].error_code;
    }
    if (change_end(a, answer, e, KAFKA_NONE)) {
        s->partitions++;
        check_everywhere(a, s);
    }
    job_done(a);
}

static void grow(struct admin *a, struct slot *s)
{
    struct create_partitions_request q;
    struct create_partitions_request_topic t = {wire_str_of(s->name),
                                                s->partitions + 1, NULL, -1};
    create_partitions_request_init(&q);
    q.topics = &t;
    q.n_topics = 1;
    q.timeout_ms = CHANGE_MS;
    ask(a, client_any_broker(&a->client), API_CREATE_PARTITIONS, &q, grow_done);
}

static void alter_done(void *arg, const struct answer *answer)
{
    struct admin *a = arg;
    struct slot *s = &a->slots[a->on];
    const struct incremental_alter_configs_response *in = answer->response;
    enum kafka_error e = KAFKA_NONE;
    if (answer->fate == FATE_ANSWERED) {
        if (in->n_responses != 1 ||
            !wire_str_is(in->responses[0].resource_name, s->name)) {
            FAIL(a, s, "%d answers to a configuration", in->n_responses);
        }
        e = (enum kafka_error)in->responses[0].error_code;
    }
    if (change_end(a, answer, e, KAFKA_NONE)) {
        s->value = a->arg;
    }
    job_done(a);
}

static void alter(struct admin *a, struct slot *s)
{
    struct incremental_alter_configs_request q;
    struct incremental_alter_configs_request_resource r = {0};
    struct incremental_alter_configs_request_config c;
    char value[24];
    incremental_alter_configs_request_init(&q);
    a->arg =
        prng_chance(&a->client.prng, 1, 5) ? -1 : KEY_BASE + ++s->n_changes;
    snprintf(value, sizeof value, "%lld", (long long)a->arg);
    c.name = WIRE_STR(KEY);
    c.config_operation = a->arg < 0; /* DELETE is 1 */
    c.value = a->arg < 0 ? WIRE_NULL_STR : wire_str_of(value);
    r.resource_type = 2;
    r.resource_name = wire_str_of(s->name);
    r.configs = &c;
    r.n_configs = 1;
    q.resources = &r;
    q.n_resources = 1;
    ask(a, client_any_broker(&a->client), API_INCREMENTAL_ALTER_CONFIGS, &q,
        alter_done);
}

/* ---- records ------------------------------------------------------------- */
/* What may be told while leaders come and go, and brokers lag. */
static bool is_passing(const struct slot *s, enum kafka_error e)
{
    (void)s;
    return e == KAFKA_NOT_LEADER_OR_FOLLOWER ||
           e == KAFKA_UNKNOWN_TOPIC_OR_PARTITION ||
           e == KAFKA_UNKNOWN_TOPIC_ID || e == KAFKA_LEADER_NOT_AVAILABLE ||
           e == KAFKA_REQUEST_TIMED_OUT || e == KAFKA_NOT_ENOUGH_REPLICAS ||
           e == KAFKA_NOT_ENOUGH_REPLICAS_AFTER_APPEND ||
           e == KAFKA_KAFKA_STORAGE_ERROR || e == KAFKA_OFFSET_NOT_AVAILABLE ||
           e == KAFKA_REPLICA_NOT_AVAILABLE ||
           e == KAFKA_INCONSISTENT_TOPIC_ID || e == KAFKA_FENCED_LEADER_EPOCH ||
           e == KAFKA_UNKNOWN_LEADER_EPOCH;
}

static void write_acked(struct admin *a, struct slot *s, int64_t base)
{
    for (int64_t i = 0; i < a->arg; i++) {
        int64_t number = s->n_written - a->arg + i;
        if (base < 0 || base + i >= RECORDS_MAX ||
            (s->acked[base + i] != 0 && s->acked[base + i] != number + 1)) {
            FAIL(a, s, "record %lld was acknowledged at offset %lld",
                 (long long)number, (long long)(base + i));
        }
        s->acked[base + i] = number + 1;
        s->offsets[number] = base + i + 1;
        if (s->acked_end < base + i + 1) {
            s->acked_end = base + i + 1;
        }
    }
}

static void write_done(void *arg, const struct answer *answer)
{
    struct admin *a = arg;
    struct slot *s = &a->slots[a->on];
    if (answer->fate == FATE_ANSWERED) {
        const struct produce_response *in = answer->response;
        const struct produce_response_partition *p =
            &in->responses[0].partition_responses[0];
        enum kafka_error e = (enum kafka_error)p->error_code;
        if (e == KAFKA_NONE) {
            write_acked(a, s, p->base_offset);
        } else if (!is_passing(s, e)) {
            FAIL(a, s, "writing: %s", kafka_error_name((int16_t)e));
        } else {
            s->leader = -1;
        }
    } else {
        s->leader = -1;
    }
    job_done(a);
}

static void write_some(struct admin *a, struct slot *s)
{
    struct batch_builder b;
    struct produce_request q;
    struct produce_request_partition part = {0};
    struct produce_request_topic topic = {0};
    const uint8_t *bytes = NULL;
    size_t size = 0;
    int64_t value[3];
    a->arg = (int64_t)prng_between(&a->client.prng, 1, 5);
    batch_builder_init(&b, CODEC_NONE);
    b.producer_id = -1;
    b.producer_epoch = -1;
    b.base_sequence = -1;
    for (int64_t i = 0; i < a->arg; i++) {
        value[0] = a->at * SLOTS + a->on;
        value[1] = s->incarnation;
        value[2] = s->n_written++;
        batch_builder_add(&b, env_wall_ms(a->client.env), NULL, -1,
                          (const uint8_t *)value, sizeof value, NULL, 0);
    }
    if (batch_builder_finish(&b, &bytes, &size) != ERR_OK) {
        FAIL(a, s, "a batch cannot be %s", "built");
    }
    produce_request_init(&q);
    q.transactional_id = WIRE_NULL_STR;
    q.acks = -1;
    q.timeout_ms = CHANGE_MS;
    part.records.p = bytes;
    part.records.n = (int32_t)size;
    topic.name = wire_str_of(s->name);
    topic.topic_id = s->id;
    topic.partition_data = &part;
    topic.n_partition_data = 1;
    q.topic_data = &topic;
    q.n_topic_data = 1;
    ask(a, s->leader, API_PRODUCE, &q, write_done);
    batch_builder_free(&b);
}

static void trim_done(void *arg, const struct answer *answer)
{
    struct admin *a = arg;
    struct slot *s = &a->slots[a->on];
    enum kafka_error e = KAFKA_REQUEST_TIMED_OUT;
    int64_t low = -1;
    if (answer->fate == FATE_ANSWERED) {
        const struct delete_records_response *in = answer->response;
        e = (enum kafka_error)in->topics[0].partitions[0].error_code;
        low = in->topics[0].partitions[0].low_watermark;
    }
    if (e == KAFKA_NONE) {
        if (low < a->arg || low < s->low || low > s->low_maybe) {
            FAIL(a, s,
                 "records before %lld are deleted, the log begins at %lld",
                 (long long)a->arg, (long long)low);
        }
        s->low = low;
        a->client.world->result.admin_changes++;
    } else if (!is_passing(s, e)) {
        FAIL(a, s, "deleting records: %s", kafka_error_name((int16_t)e));
    } else {
        s->leader = -1;
    }
    job_done(a);
}

static void trim(struct admin *a, struct slot *s)
{
    struct delete_records_request q;
    struct delete_records_request_partition p;
    struct delete_records_request_topic t;
    a->arg = (int64_t)prng_between(&a->client.prng, (uint64_t)s->low,
                                   (uint64_t)s->acked_end);
    if (s->low_maybe < a->arg) {
        s->low_maybe = a->arg;
    }
    p.partition_index = 0;
    p.offset = a->arg;
    t.name = wire_str_of(s->name);
    t.partitions = &p;
    t.n_partitions = 1;
    delete_records_request_init(&q);
    q.topics = &t;
    q.n_topics = 1;
    q.timeout_ms = CHANGE_MS;
    ask(a, s->leader, API_DELETE_RECORDS, &q, trim_done);
}

static void read_record(struct admin *a, struct slot *s, int64_t offset,
                        const struct batch_record *record)
{
    int64_t value[3] = {-1, -1, -1};
    if (record->value_size == sizeof value) {
        memcpy(value, record->value, sizeof value);
    }
    if (value[0] != a->at * SLOTS + a->on || value[1] != s->incarnation ||
        value[2] < 0 || value[2] >= s->n_written) {
        FAIL(a, s,
             "topic number %lld: offset %lld holds record %lld of topic number "
             "%lld of %lld",
             (long long)s->incarnation, (long long)offset, (long long)value[2],
             (long long)value[1], (long long)value[0]);
    }
    if (offset != s->read_at || offset < s->low || offset >= RECORDS_MAX) {
        FAIL(a, s, "offset %lld is read at %lld, the log begins at %lld",
             (long long)offset, (long long)s->read_at, (long long)s->low);
    }
    if ((s->acked[offset] != 0 && s->acked[offset] != value[2] + 1) ||
        (s->offsets[value[2]] != 0 && s->offsets[value[2]] != offset + 1)) {
        FAIL(a, s, "offset %lld: record %lld, not %lld; it was at %lld",
             (long long)offset, (long long)value[2],
             (long long)s->acked[offset] - 1,
             (long long)s->offsets[value[2]] - 1);
    }
    s->acked[offset] = value[2] + 1;
    s->offsets[value[2]] = offset + 1;
    s->read_at = offset + 1;
}

static void note_leader(struct admin *a, const struct slot *s)
{
    a->led_term = probe_leader(a->client.world, &s->id, 0, &a->led_by);
}

/* Who answered led the partition all the time, and knew what was committed
 * before, so nothing acknowledged is unknown to it. One that is cut off may be
 * deposed, and tell what was. */
static bool is_newest(const struct admin *a, const struct slot *s,
                      const struct answer *answer)
{
    int leader = -1;
    uint64_t term = probe_leader(a->client.world, &s->id, 0, &leader);
    return term == a->led_term && a->led_by == answer->broker &&
           leader == answer->broker;
}

static void read_batches(struct admin *a, struct slot *s,
                         const struct fetch_response_partition *in, bool newest)
{
    const uint8_t *p = in->records.p;
    size_t left = in->records.n > 0 ? (size_t)in->records.n : 0;
    struct batch_header h;
    struct batch_records records;
    struct batch_record record;
    while (left > 0 && batch_header_read(p, left, &h) == ERR_OK &&
           batch_size(&h) <= left && batch_is_whole(p, batch_size(&h)) &&
           batch_records_open(&records, p, batch_size(&h), 1 << 20) == ERR_OK) {
        while (batch_records_next(&records, &record)) {
            int64_t offset = h.base_offset.v + record.offset_delta;
            if (offset >= s->read_at) {
                read_record(a, s, offset, &record);
            }
        }
        batch_records_close(&records);
        p += batch_size(&h);
        left -= batch_size(&h);
    }
    if (left != 0) {
        FAIL(a, s, "%zu bytes that are no batch", left);
    }
    if (s->read_at >= in->high_watermark) {
        if (s->read_at < s->acked_end && !newest) {
            return; /* it was deposed, and does not know it yet */
        }
        if (s->read_at < s->acked_end) {
            FAIL(a, s, "the log ends at %lld, acknowledged was %lld",
                 (long long)s->read_at, (long long)s->acked_end);
        }
        s->read_all = true;
    }
}

static void read_done(void *arg, const struct answer *answer)
{
    struct admin *a = arg;
    struct slot *s = &a->slots[a->on];
    if (answer->fate != FATE_ANSWERED) {
        s->leader = -1;
        job_done(a);
        return;
    }
    const struct fetch_response *in = answer->response;
    const struct fetch_response_partition *p = &in->responses[0].partitions[0];
    enum kafka_error e = (enum kafka_error)p->error_code;
    if (e == KAFKA_NONE) {
        bool newest = is_newest(a, s, answer);
        if (answer->version >= 5 && ((newest && p->log_start_offset < s->low) ||
                                     p->log_start_offset > s->low_maybe)) {
            FAIL(a, s, "the log begins at %lld, not at %lld to %lld",
                 (long long)p->log_start_offset, (long long)s->low,
                 (long long)s->low_maybe);
        }
        read_batches(a, s, p, newest);
    } else if (e == KAFKA_OFFSET_OUT_OF_RANGE) {
        if (s->read_at >= s->low_maybe && s->read_at <= s->acked_end &&
            is_newest(a, s, answer)) {
            FAIL(a, s, "offset %lld is out of range, %lld to %lld are there",
                 (long long)s->read_at, (long long)s->low_maybe,
                 (long long)s->acked_end);
        }
        s->read_at = s->low_maybe;
    } else if (!is_passing(s, e)) {
        FAIL(a, s, "reading: %s", kafka_error_name((int16_t)e));
    } else {
        s->leader = -1;
    }
    job_done(a);
}

static void read_some(struct admin *a, struct slot *s)
{
    struct fetch_request q;
    struct fetch_request_partition p = {.partition = 0,
                                        .current_leader_epoch = -1,
                                        .fetch_offset = s->read_at,
                                        .last_fetched_epoch = -1,
                                        .log_start_offset = -1,
                                        .partition_max_bytes = 4096,
                                        .high_watermark = INT64_MAX};
    struct fetch_request_topic t = {.topic = wire_str_of(s->name),
                                    .topic_id = s->id,
                                    .partitions = &p,
                                    .n_partitions = 1};
    note_leader(a, s);
    fetch_request_init(&q);
    q.max_wait_ms = 0;
    q.topics = &t;
    q.n_topics = 1;
    ask(a, s->leader, API_FETCH, &q, read_done);
}

/* ---- what brokers show --------------------------------------------------- */
/* It must know all that was acknowledged: it said so itself, or all is well. */
static bool is_sure(const struct admin *a, const struct slot *s,
                    const struct answer *answer)
{
    return !s->unsure &&
           (a->client.world->finale || (s->sure_broker == answer->broker &&
                                        s->sure_starts == answer->starts));
}

static const struct metadata_response_topic *shown(
    const struct metadata_response *in, const char *name)
{
    for (int i = 0; i < in->n_topics; i++) {
        if (wire_str_is(in->topics[i].name, name)) {
            return &in->topics[i];
        }
    }
    return NULL;
}

static void look_at_id(struct admin *a, int slot,
                       const struct metadata_response_topic *t)
{
    struct slot *s = &a->slots[slot];
    const struct id_seen *seen = id_find(a, &t->topic_id);
    if (seen != NULL && seen->slot != slot) {
        FAIL(a, s, "has the id of %s",
             seen->slot < 0 ? "a topic of others" : a->slots[seen->slot].name);
    }
    if (seen == NULL) {
        if (!s->strangers) {
            FAIL(a, s, "has an id that nobody was told, %d partitions",
                 t->n_partitions);
        }
        id_add(a, &t->topic_id, slot, !s->unsure);
    }
}

static void look_at_slot(struct admin *a, int slot,
                         const struct metadata_response *in,
                         const struct answer *answer)
{
    struct slot *s = &a->slots[slot];
    const struct metadata_response_topic *t = shown(in, s->name);
    if (t != NULL) {
        look_at_id(a, slot, t);
    }
    bool same = t != NULL && s->here && uuid_equal(&t->topic_id, &s->id);
    s->leader =
        same && t->n_partitions > 0 ? t->partitions[0].leader_id - 1 : -1;
    if (!is_sure(a, s, answer)) {
        return;
    }
    if (s->here != (t != NULL) || (t != NULL && !same)) {
        FAIL(a, s, "b%d %s, it was %s", answer->broker,
             t == NULL ? "does not have it"
             : s->here ? "has another one"
                       : "has it still",
             s->here ? "made" : "deleted");
    }
    if (t != NULL && t->n_partitions != s->partitions) {
        FAIL(a, s, "b%d has %d partitions of %d", answer->broker,
             t->n_partitions, s->partitions);
    }
    s->shown_by |= a->client.world->finale ? UINT32_C(1) << answer->broker : 0;
}

static int slot_of(const struct admin *a, struct wire_str name)
{
    for (int i = 0; i < SLOTS; i++) {
        if (wire_str_is(name, a->slots[i].name)) {
            return i;
        }
    }
    return -1;
}

/* Topics of others have ids of their own. */
static void look_at_others(struct admin *a, const struct metadata_response *in)
{
    for (int i = 0; i < in->n_topics; i++) {
        if (slot_of(a, in->topics[i].name) >= 0) {
            continue;
        }
        const struct id_seen *seen = id_find(a, &in->topics[i].topic_id);
        if (seen != NULL && seen->slot >= 0) {
            FAIL(a, &a->slots[seen->slot], "%.*s has its id",
                 (int)in->topics[i].name.n, in->topics[i].name.p);
        }
        if (seen == NULL) {
            id_add(a, &in->topics[i].topic_id, -1, false);
        }
    }
}

static void look_done(void *arg, const struct answer *answer)
{
    struct admin *a = arg;
    if (answer->fate == FATE_ANSWERED) {
        look_at_others(a, answer->response);
        for (int i = 0; i < SLOTS; i++) {
            look_at_slot(a, i, answer->response, answer);
        }
    }
    job_done(a);
}

static void look(struct admin *a, int broker)
{
    struct metadata_request q;
    metadata_request_init(&q);
    q.n_topics = -1;
    q.allow_auto_topic_creation = false;
    ask(a, broker, API_METADATA, &q, look_done);
}

static void look_at_value(struct admin *a, const struct answer *answer,
                          const struct describe_configs_response_result *in)
{
    struct slot *s = &a->slots[a->on];
    enum kafka_error e = (enum kafka_error)in->error_code;
    int64_t value = 0;
    if (e != KAFKA_NONE) {
        if (e != KAFKA_UNKNOWN_TOPIC_OR_PARTITION ||
            (is_sure(a, s, answer) && s->here)) {
            FAIL(a, s, "its configuration at b%d: %s", answer->broker,
                 kafka_error_name((int16_t)e));
        }
        return;
    }
    if (in->n_configs != 1 || !wire_str_is(in->configs[0].name, KEY)) {
        FAIL(a, s, "%d keys of its configuration", in->n_configs);
    }
    for (int32_t i = 0; i < in->configs[0].value.n; i++) {
        value = value * 10 + in->configs[0].value.p[i] - '0';
    }
    bool set = value >= KEY_BASE;
    if (set && value > KEY_BASE + s->n_changes) {
        FAIL(a, s, "its configuration is %lld", (long long)value);
    }
    if (is_sure(a, s, answer) && s->here &&
        (set ? value != s->value : s->value >= 0)) {
        FAIL(a, s, "b%d: the configuration is %lld, not %lld", answer->broker,
             (long long)value, (long long)s->value);
    }
}

static void describe_done(void *arg, const struct answer *answer)
{
    struct admin *a = arg;
    if (answer->fate == FATE_ANSWERED) {
        const struct describe_configs_response *in = answer->response;
        look_at_value(a, answer, &in->results[0]);
        if (a->client.world->finale) {
            a->slots[a->on].described_by |= UINT32_C(1) << answer->broker;
        }
    }
    job_done(a);
}

static void describe(struct admin *a, struct slot *s, int broker)
{
    struct describe_configs_request q;
    struct wire_str key = WIRE_STR(KEY);
    struct describe_configs_request_resource r = {2, wire_str_of(s->name), &key,
                                                  1};
    describe_configs_request_init(&q);
    q.resources = &r;
    q.n_resources = 1;
    ask(a, broker, API_DESCRIBE_CONFIGS, &q, describe_done);
}

static void groups_done(void *arg, const struct answer *answer)
{
    struct admin *a = arg;
    const struct list_groups_response *in = answer->response;
    for (int i = 0; answer->fate == FATE_ANSWERED && i < in->n_groups; i++) {
        struct wire_str id = in->groups[i].group_id;
        if (id.n != 7 || memcmp(id.p, "group-", 6) != 0 ||
            id.p[6] - '0' >= a->client.world->plan.n_groups) {
            sim_fail(a->client.world->sim, "%s: there is a group %.*s",
                     a->client.name, (int)id.n, id.p);
        }
    }
    job_done(a);
}

static void list_groups(struct admin *a)
{
    struct list_groups_request q;
    list_groups_request_init(&q);
    ask(a, client_any_broker(&a->client), API_LIST_GROUPS, &q, groups_done);
}

/* ---- what it does next --------------------------------------------------- */
static void start(struct admin *a, enum job job, int slot)
{
    struct slot *s = &a->slots[slot];
    int broker = client_any_broker(&a->client);
    a->job = job;
    a->on = slot;
    if (job == JOB_CREATE || job == JOB_CREATE_AGAIN || job == JOB_DELETE ||
        job == JOB_GROW || job == JOB_ALTER) {
        s->sure_broker = -1;
    }
    switch (job) {
        case JOB_NONE:
            break;
        case JOB_CREATE:
            create(a, s);
            break;
        case JOB_CREATE_AGAIN:
            create_again(a, s);
            break;
        case JOB_DELETE:
            delete (a, s);
            break;
        case JOB_GROW:
            grow(a, s);
            break;
        case JOB_ALTER:
            alter(a, s);
            break;
        case JOB_WRITE:
            write_some(a, s);
            break;
        case JOB_TRIM:
            trim(a, s);
            break;
        case JOB_LOOK:
            /* who just said that all is done is asked first */
            look(a, s->sure_broker >= 0 && prng_chance(&a->client.prng, 1, 2)
                        ? s->sure_broker
                        : broker);
            break;
        case JOB_DESCRIBE:
            describe(a, s,
                     s->sure_broker >= 0 && prng_chance(&a->client.prng, 1, 2)
                         ? s->sure_broker
                         : broker);
            break;
        case JOB_READ:
            read_some(a, s);
            break;
        case JOB_GROUPS:
            list_groups(a);
            break;
    }
}

static enum job pick(struct admin *a, const struct slot *s)
{
    uint64_t n = prng_below(&a->client.prng, 20);
    if (s->unsure) {
        return sim_now_ns(a->client.world->sim) < s->unsure_ns ? JOB_LOOK
                                                               : JOB_DELETE;
    }
    if (n < 4) {
        return JOB_LOOK;
    }
    if (!s->here) {
        return n < 6 ? JOB_DESCRIBE : JOB_CREATE;
    }
    if (n < 6) {
        return n == 4 ? JOB_CREATE_AGAIN : JOB_DESCRIBE;
    }
    if (n < 8) {
        return JOB_ALTER;
    }
    if (n == 8) {
        return s->partitions < PARTITIONS_MAX ? JOB_GROW : JOB_GROUPS;
    }
    if (n == 9) {
        return JOB_DELETE;
    }
    if (s->leader < 0) {
        return JOB_LOOK;
    }
    if (n < 15) {
        return s->n_written + 5 < RECORDS_MAX ? JOB_WRITE : JOB_READ;
    }
    return n == 15 && s->acked_end > s->low ? JOB_TRIM : JOB_READ;
}

/* Everything is well: each broker must show all as it is. Gives whether there
 * is something left to do. */
static bool finale(struct admin *a)
{
    uint32_t all = (UINT32_C(1) << a->client.world->plan.n_brokers) - 1;
    for (int i = 0; i < SLOTS; i++) {
        struct slot *s = &a->slots[i];
        enum job job = s->unsure                ? JOB_DELETE
                       : s->shown_by != all     ? JOB_LOOK
                       : !s->here               ? JOB_NONE
                       : s->described_by != all ? JOB_DESCRIBE
                       : s->read_all            ? JOB_NONE
                       : s->leader < 0          ? JOB_LOOK
                                                : JOB_READ;
        if (job != JOB_NONE) {
            start(a, job, i);
            return true;
        }
    }
    return false;
}

static void tick(struct env_timer *timer)
{
    struct admin *a = timer->arg;
    const struct world *w = a->client.world;
    env_timer_start(timer, 200 + pause_ms(a));
    if (a->job != JOB_NONE) {
        return;
    }
    if (w->phase == PHASE_CHAOS) {
        int slot = (int)prng_below(&a->client.prng, SLOTS);
        start(a, pick(a, &a->slots[slot]), slot);
        return;
    }
    for (int i = 0; i < SLOTS; i++) { /* first of all no doubts are left */
        struct slot *s = &a->slots[i];
        if (s->unsure && sim_now_ns(w->sim) >= s->unsure_ns) {
            start(a, JOB_DELETE, i);
            return;
        }
    }
    if (w->finale) {
        finale(a);
    }
    env_timer_start(timer, 100);
}

/* Within the finale: forget what was read before. */
static void read_again(struct admin *a)
{
    for (int i = 0; i < SLOTS; i++) {
        a->slots[i].read_at = a->slots[i].low;
        a->slots[i].read_all = false;
    }
}

/* ---- for the world ------------------------------------------------------- */
static void boot(struct env *env, void *arg)
{
    struct client *c = arg;
    struct admin *a = c->actor;
    env_timer_init(env, &a->timer, tick, a);
    env_timer_start(&a->timer, 1);
}

void admin_add(struct world *w, int at)
{
    static const int16_t newest[] = {API_METADATA, API_CREATE_TOPICS,
                                     API_DELETE_TOPICS, API_FETCH, API_PRODUCE};
    struct admin *a = calloc(1, sizeof *a);
    char name[16];
    snprintf(name, sizeof name, "admin%d", at);
    a->at = at;
    for (int i = 0; i < SLOTS; i++) {
        snprintf(a->slots[i].name, sizeof a->slots[i].name, "a%d-%d", at, i);
        a->slots[i].sure_broker = a->slots[i].leader = -1;
    }
    w->admins[at] = a;
    w->n_admins = at + 1;
    client_add(w, &a->client, name, boot, a);
    for (size_t i = 0; i < sizeof newest / sizeof newest[0]; i++) {
        a->client.version[newest[i]] = codec_api_find(newest[i])->offer_max;
    }
    a->client.request_ms = CHANGE_MS + 5000;
}

bool admin_sure(const struct admin *a)
{
    for (int i = 0; i < SLOTS; i++) {
        if (a->slots[i].unsure) {
            return false;
        }
    }
    return a->job == JOB_NONE;
}

void admin_finale(struct admin *a)
{
    read_again(a);
}

bool admins_delete(const struct world *w, const struct uuid *topic)
{
    bool strangers = false, others = false;
    for (int i = 0; i < w->n_admins; i++) {
        const struct admin *a = w->admins[i];
        const struct id_seen *seen = id_find(a, topic);
        if (seen != NULL && seen->slot >= 0) {
            return seen->asked;
        }
        others |= seen != NULL;
        for (int k = 0; k < SLOTS; k++) {
            strangers |= a->slots[k].strangers;
        }
    }
    return strangers && !others; /* its creation had no answer */
}

static void check_path(void *arg, const char *path, uint64_t size)
{
    struct admin *a = arg;
    char id[UUID_TEXT_SIZE];
    (void)size;
    for (size_t i = 0; i < a->n_ids; i++) {
        uuid_format(&a->ids[i].id, id);
        if (a->ids[i].dead && strstr(path, id) != NULL) {
            if (a->left[0] == '\0') {
                snprintf(a->left, sizeof a->left, "%s", path);
            }
        }
    }
}

/* Files of deleted topics are gone, sooner or later. */
static bool is_clean(struct admin *a)
{
    struct world *w = a->client.world;
    if (sim_now_ns(w->sim) < a->clean_ns) {
        return false; /* it costs much */
    }
    a->clean_ns = sim_now_ns(w->sim) + SIM_S;
    a->left[0] = '\0';
    for (int i = 0; i < w->plan.n_brokers && a->left[0] == '\0'; i++) {
        a->left_at = i;
        sim_disk_list(w->brokers[i].node, check_path, a);
    }
    if (a->left[0] == '\0') {
        a->clean_ns = 0;
    }
    return a->left[0] == '\0';
}

bool admin_done(struct admin *a)
{
    uint32_t all = (UINT32_C(1) << a->client.world->plan.n_brokers) - 1;
    for (int i = 0; i < SLOTS; i++) {
        const struct slot *s = &a->slots[i];
        if (s->unsure || s->shown_by != all ||
            (s->here && (s->described_by != all || !s->read_all))) {
            return false;
        }
    }
    return a->job == JOB_NONE && is_clean(a);
}

void admin_print(const struct admin *a)
{
    for (int i = 0; i < SLOTS; i++) {
        const struct slot *s = &a->slots[i];
        fprintf(stderr,
                "%s: here %d, unsure %d, leader b%d, read %lld of %lld from "
                "%lld, shown by %x, described by %x\n",
                s->name, s->here, s->unsure, s->leader, (long long)s->read_at,
                (long long)s->acked_end, (long long)s->low, s->shown_by,
                s->described_by);
    }
    if (a->left[0] != '\0') {
        fprintf(stderr, "b%d still has %s\n", a->left_at, a->left);
    }
}

struct sim_node *admin_node(const struct admin *a)
{
    return a->client.node;
}

void admin_free(struct admin *a)
{
    client_drop(&a->client);
    free(a->ids);
    free(a);
}
