/* The workload by our own client, which sees every error code: sends whose
 * outcome is known as exactly as the answer tells, polls from positions it
 * keeps itself, ends of logs, committed offsets. Nothing is tried twice. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/kafka_error.h"
#include "base/mem.h"
#include "jepsen/batches.h"
#include "jepsen/history.h"
#include "jepsen/load.h"
#include "jepsen/reading.h"
#include "jepsen/wire_client.h"
#include "schema/apis.h"
#include "schema/fetch.h"
#include "schema/find_coordinator.h"
#include "schema/list_offsets.h"
#include "schema/metadata.h"
#include "schema/offset_commit.h"
#include "schema/offset_fetch.h"
#include "schema/produce.h"

#define PRODUCE_VERSION 9
#define FETCH_VERSION 12
#define LIST_OFFSETS_VERSION 7
#define METADATA_VERSION 9
#define FIND_COORDINATOR_VERSION 4
#define OFFSET_COMMIT_VERSION 8
#define OFFSET_FETCH_VERSION 8
#define GROUP WIRE_STR("jepsen-wire")
#define FETCH_WAIT_MS 100
#define FETCH_BYTES 65536
#define LATEST (-1)
#define SENDS_MAX 8 /* values of one operation */

struct wire {
    struct worker *w;
    struct history h;
    struct wire_client c;
    struct arena arena;
    struct buffer batch;
    struct reading r;
    int32_t leader;      /* the probe's; -1: not known */
    int32_t coordinator; /* -1: not known */
    char more[200];      /* what is said of the operation besides */
};

static void note(struct wire *x, const char *what, const char *text)
{
    snprintf(x->more, sizeof x->more, ", :error [:%s \"%s\"]", what, text);
}

static void note_leader(struct wire *x, int32_t id)
{
    size_t n = strlen(x->more);

    snprintf(x->more + n, sizeof x->more - n, ", :leader %" PRId32, id);
}

/* ---- finding brokers --------------------------------------------------------
 */

static struct wire_broker *any_broker(struct wire *x)
{
    size_t n = (size_t)x->c.n_bootstrap;

    return &x->c.bootstrap[prng_below(&x->w->prng, n)];
}

/* The leader of a key now; NULL: none is known. Makes the topic. */
static struct wire_broker *leader_of(struct wire *x, int64_t key)
{
    struct metadata_request_topic topic = {0};
    struct metadata_request request;
    struct metadata_response r;
    char name[TOPIC_MAX];
    int32_t partition;

    key_topic(key, name, &partition);
    topic.name = wire_str_of(name);
    metadata_request_init(&request);
    request.topics = &topic;
    request.n_topics = 1;
    request.allow_auto_topic_creation = key < KEY_STEADY;
    if (wire_call(&x->c, any_broker(x), API_METADATA, METADATA_VERSION,
                  &request, &x->arena, &r) != WIRE_ANSWERED) {
        note(x, "net", "no metadata");
        return NULL;
    }
    for (int i = 0; i < r.n_brokers; i++)
        wire_client_learn(&x->c, r.brokers[i].node_id, r.brokers[i].host,
                          r.brokers[i].port);
    for (int i = 0; i < r.n_topics; i++) {
        for (int j = 0; j < r.topics[i].n_partitions; j++) {
            struct wire_broker *b;

            if (r.topics[i].partitions[j].partition_index != partition)
                continue;
            b = wire_client_broker(&x->c, r.topics[i].partitions[j].leader_id);
            if (b == NULL)
                note(x, "metadata", "no leader");
            return b;
        }
    }
    return NULL;
}

static struct wire_broker *coordinator_of(struct wire *x)
{
    struct wire_str key = GROUP;
    struct find_coordinator_request request;
    struct find_coordinator_response r;

    if (x->coordinator >= 0)
        return wire_client_broker(&x->c, x->coordinator);
    find_coordinator_request_init(&request);
    request.coordinator_keys = &key;
    request.n_coordinator_keys = 1;
    if (wire_call(&x->c, any_broker(x), API_FIND_COORDINATOR,
                  FIND_COORDINATOR_VERSION, &request, &x->arena,
                  &r) != WIRE_ANSWERED ||
        r.n_coordinators != 1 || r.coordinators[0].error_code != 0)
        return NULL;
    wire_client_learn(&x->c, r.coordinators[0].node_id, r.coordinators[0].host,
                      r.coordinators[0].port);
    x->coordinator = r.coordinators[0].node_id;
    return wire_client_broker(&x->c, x->coordinator);
}

/* ---- processes
 * ---------------------------------------------------------------- */

/* The outcome of an operation is unknown, or the client crashed: another
 * process goes on with new connections, from the beginning. */
static void new_process(struct wire *x)
{
    wire_client_close(&x->c);
    x->w->process += PROCESS_STRIDE;
    x->r.n_places = 0;
    x->coordinator = -1;
}

static void op_begin(struct wire *x)
{
    arena_free(&x->arena);
    arena_init(&x->arena, (size_t)32 << 20);
    x->more[0] = '\0';
}

static void assign(struct wire *x, const int64_t *keys, size_t n)
{
    reading_assign(&x->r, keys, n);
    reading_put_keys(&x->r);
    history_op(&x->h, x->w->process, "invoke", "assign", "");
    history_op(&x->h, x->w->process, "ok", "assign", "");
}

static void op_assign(struct wire *x)
{
    int64_t keys[8];
    size_t n = worker_keys(x->w, keys, 8);

    if (x->w->load->steady > 0 && n < 8 && prng_chance(&x->w->prng, 1, 4))
        keys[n++] = KEY_STEADY + (int64_t)prng_below(
                                     &x->w->prng, (uint64_t)x->w->load->steady);
    assign(x, keys, n);
}

static void op_crash(struct wire *x)
{
    reading_crash(&x->r);
    new_process(x);
}

/* ---- send
 * --------------------------------------------------------------------- */

/* Codes after which nothing can have been appended. */
static bool is_definite(int16_t code)
{
    switch (code) {
        case KAFKA_UNKNOWN_TOPIC_OR_PARTITION:
        case KAFKA_INVALID_TOPIC_EXCEPTION:
        case KAFKA_CORRUPT_MESSAGE:
        case KAFKA_MESSAGE_TOO_LARGE:
        case KAFKA_RECORD_LIST_TOO_LARGE:
        case KAFKA_NOT_ENOUGH_REPLICAS:
        case KAFKA_INVALID_RECORD:
        case KAFKA_INVALID_REQUEST:
        case KAFKA_INVALID_TIMESTAMP:
        case KAFKA_POLICY_VIOLATION:
            return true;
        default:
            return false;
    }
}

/* `b` is the leader, as far as one is known. */
static enum wire_outcome produce(struct wire *x, struct wire_broker *b,
                                 int64_t key, int16_t *code, int64_t *offset)
{
    char name[TOPIC_MAX];
    struct produce_request_partition p = {0};
    struct produce_request_topic t = {.partition_data = &p,
                                      .n_partition_data = 1};
    struct produce_request request;
    struct produce_response r;
    enum wire_outcome outcome;

    if (b == NULL)
        return WIRE_UNSENT;
    key_topic(key, name, &p.index);
    t.name = wire_str_of(name);
    p.records =
        (struct wire_records){.p = x->batch.data, .n = (int32_t)x->batch.size};
    produce_request_init(&request);
    request.acks = -1;
    request.timeout_ms = x->c.timeout_ms;
    request.topic_data = &t;
    request.n_topic_data = 1;
    outcome = wire_call(&x->c, b, API_PRODUCE, PRODUCE_VERSION, &request,
                        &x->arena, &r);
    if (outcome != WIRE_ANSWERED)
        return outcome;
    if (r.n_responses != 1 || r.responses[0].n_partition_responses != 1)
        return WIRE_UNKNOWN;
    *code = r.responses[0].partition_responses[0].error_code;
    *offset = r.responses[0].partition_responses[0].base_offset;
    return WIRE_ANSWERED;
}

static void put_sends(struct wire *x, int64_t key, const int64_t *values,
                      size_t n, int64_t offset)
{
    history_begin(&x->h);
    history_put(&x->h, "[");
    for (size_t i = 0; i < n; i++)
        history_put_send(&x->h, key, values[i],
                         offset < 0 ? -1 : offset + (int64_t)i);
    history_put(&x->h, "]");
}

/* Sends `n` new values, at most SENDS_MAX, to `key`; gives the type of the
 * outcome. */
static const char *send_values(struct wire *x, int64_t key, size_t n,
                               struct wire_broker *(*leader)(struct wire *x,
                                                             int64_t key))
{
    int64_t values[SENDS_MAX] = {0}, offset = -1;
    int16_t code = 0;
    struct wire_broker *b;
    enum wire_outcome outcome;
    const char *type;

    for (size_t i = 0; i < n; i++)
        values[i] = worker_value(x->w);
    batch_of_values(&x->batch, key, values, n);
    put_sends(x, key, values, n, -1);
    history_op(&x->h, x->w->process, "invoke", "send", "");
    b = leader(x, key);
    outcome = produce(x, b, key, &code, &offset);
    type = outcome == WIRE_UNSENT    ? "fail"
           : outcome == WIRE_UNKNOWN ? "info"
           : code == 0               ? "ok"
           : is_definite(code)       ? "fail"
                                     : "info";
    if (outcome == WIRE_ANSWERED && code != 0)
        note(x, "code", kafka_error_name(code));
    else if (outcome == WIRE_UNKNOWN)
        note(x, "net", "no answer");
    else if (outcome == WIRE_UNSENT && b != NULL)
        note(x, "net", "no connection");
    if (b != NULL)
        note_leader(x, b->id);
    if (code == 0 && outcome == WIRE_ANSWERED)
        put_sends(x, key, values, n, offset);
    history_op(&x->h, x->w->process, type, "send", x->more);
    return type;
}

static void op_send(struct wire *x)
{
    size_t n = 1 + prng_below(&x->w->prng, SENDS_MAX);

    if (strcmp(send_values(x, worker_key(x->w), n, leader_of), "info") == 0)
        new_process(x);
}

/* ---- poll
 * --------------------------------------------------------------------- */

static void poll_records(struct wire *x, struct place *place,
                         const uint8_t *data, size_t size)
{
    struct batches b;
    int64_t offset, value;
    enum batch_state state;

    batches_begin(&b, data, size, place->key);
    while ((state = batches_next(&b, &offset, &value)) != BATCH_END) {
        if (offset < place->next)
            continue; /* the batch begins before */
        if (state == BATCH_TORN)
            reading_torn(&x->r, place->key, offset);
        else
            reading_record(&x->r, place->key, offset, value);
        place->next = offset + 1;
    }
}

static void poll_partition(struct wire *x, struct place *place,
                           const struct fetch_response_partition *p)
{
    if (p->error_code != 0) {
        place->leader = -1;
        note(x, "code", kafka_error_name(p->error_code));
    }
    if (p->error_code == KAFKA_OFFSET_OUT_OF_RANGE)
        fprintf(stderr,
                "SUSPECT fetch of key %" PRId64 " at %" PRId64
                ": OFFSET_OUT_OF_RANGE (log from %" PRId64
                ", high watermark %" PRId64 ")\n",
                place->key, place->next, p->log_start_offset,
                p->high_watermark);
    if (p->error_code == 0 && p->records.n > 0)
        poll_records(x, place, p->records.p, (size_t)p->records.n);
}

static void poll_answer(struct wire *x, const struct fetch_response *r)
{
    for (int i = 0; i < r->n_responses; i++) {
        const struct fetch_response_topic *t = &r->responses[i];

        for (int j = 0; j < t->n_partitions; j++) {
            const struct fetch_response_partition *p = &t->partitions[j];
            struct place *place = reading_place(
                &x->r, key_of_topic(t->topic.p, (size_t)t->topic.n,
                                    p->partition_index));

            if (place != NULL)
                poll_partition(x, place, p);
        }
    }
}

/* One Fetch of all places led by `leader`. */
static void poll_leader(struct wire *x, int32_t leader)
{
    struct wire_broker *b = wire_client_broker(&x->c, leader);
    struct fetch_request request;
    struct fetch_response r;
    size_t n = x->r.n_places;
    struct fetch_request_topic *topics =
        arena_array(&x->arena, n, sizeof *topics);
    int n_topics = 0;

    for (size_t i = 0; i < n; i++) {
        char *name = arena_alloc(&x->arena, TOPIC_MAX);
        struct fetch_request_partition *p =
            arena_array(&x->arena, n, sizeof *p);
        int32_t partition;
        int at;

        if (x->r.places[i].leader != leader)
            continue;
        key_topic(x->r.places[i].key, name, &partition);
        for (at = 0; at < n_topics; at++) {
            if (wire_str_is(topics[at].topic, name))
                break;
        }
        if (at == n_topics) {
            topics[n_topics++] = (struct fetch_request_topic){
                .topic = wire_str_of(name), .partitions = p};
        }
        topics[at].partitions[topics[at].n_partitions++] =
            (struct fetch_request_partition){
                .partition = partition,
                .current_leader_epoch = -1,
                .fetch_offset = x->r.places[i].next,
                .last_fetched_epoch = -1,
                .log_start_offset = -1,
                .partition_max_bytes = FETCH_BYTES,
                .high_watermark = INT64_MAX};
    }
    fetch_request_init(&request);
    request.max_wait_ms = FETCH_WAIT_MS;
    request.min_bytes = 1;
    request.max_bytes = 8 * FETCH_BYTES;
    request.topics = topics;
    request.n_topics = n_topics;
    if (b != NULL && wire_call(&x->c, b, API_FETCH, FETCH_VERSION, &request,
                               &x->arena, &r) == WIRE_ANSWERED) {
        poll_answer(x, &r);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (x->r.places[i].leader == leader)
            x->r.places[i].leader = -1;
    }
    note(x, "net", "no answer");
}

static void poll_all(struct wire *x)
{
    for (size_t i = 0; i < x->r.n_places; i++) {
        struct wire_broker *b;

        if (x->r.places[i].leader >= 0)
            continue;
        b = leader_of(x, x->r.places[i].key);
        if (b != NULL)
            x->r.places[i].leader = b->id;
    }
    for (size_t i = 0; i < x->r.n_places; i++) {
        bool first = x->r.places[i].leader >= 0;

        for (size_t j = 0; j < i; j++)
            first = first && x->r.places[j].leader != x->r.places[i].leader;
        if (first)
            poll_leader(x, x->r.places[i].leader);
    }
}

static void op_poll(struct wire *x)
{
    op_begin(x);
    reading_poll_begin(&x->r);
    poll_all(x);
    (void)reading_poll_end(&x->r, x->more);
}

/* ---- ends of logs, committed offsets
 * ----------------------------------------- */

static int64_t ask_latest(struct wire *x, int64_t key)
{
    char name[TOPIC_MAX];
    struct list_offsets_request_partition p = {.current_leader_epoch = -1,
                                               .timestamp = LATEST};
    struct list_offsets_request_topic t = {.partitions = &p, .n_partitions = 1};
    struct list_offsets_request request;
    struct list_offsets_response r;
    struct wire_broker *b = leader_of(x, key);

    if (b == NULL)
        return -1;
    key_topic(key, name, &p.partition_index);
    t.name = wire_str_of(name);
    list_offsets_request_init(&request);
    request.replica_id = -1;
    request.topics = &t;
    request.n_topics = 1;
    if (wire_call(&x->c, b, API_LIST_OFFSETS, LIST_OFFSETS_VERSION, &request,
                  &x->arena, &r) != WIRE_ANSWERED ||
        r.n_topics != 1 || r.topics[0].n_partitions != 1 ||
        r.topics[0].partitions[0].error_code != 0)
        return -1;
    return r.topics[0].partitions[0].offset;
}

static void op_latest(struct wire *x)
{
    int64_t key = x->w->load->steady > 0 && prng_chance(&x->w->prng, 1, 2)
                      ? KEY_STEADY
                      : worker_key(x->w);
    int64_t end;

    history_begin(&x->h);
    history_put(&x->h, "[%" PRId64 "]", key);
    history_op(&x->h, x->w->process, "invoke", "latest", "");
    end = ask_latest(x, key);
    history_begin(&x->h);
    if (end >= 0)
        history_put(&x->h, "{%" PRId64 " %" PRId64 "}", key, end);
    history_op(&x->h, x->w->process, end >= 0 ? "ok" : "fail", "latest", "");
}

/* -> "ok", "fail" or "info". */
static const char *commit(struct wire *x, int64_t key, int64_t offset)
{
    char name[TOPIC_MAX];
    struct offset_commit_request_partition p = {
        .committed_offset = offset,
        .committed_leader_epoch = -1,
        .committed_metadata = WIRE_NULL_STR};
    struct offset_commit_request_topic t = {.partitions = &p,
                                            .n_partitions = 1};
    struct offset_commit_request request;
    struct offset_commit_response r;
    struct wire_broker *b = coordinator_of(x);
    enum wire_outcome outcome;
    int16_t code;

    if (b == NULL)
        return "fail";
    key_topic(key, name, &p.partition_index);
    t.name = wire_str_of(name);
    offset_commit_request_init(&request);
    request.group_id = GROUP;
    request.topics = &t;
    request.n_topics = 1;
    outcome = wire_call(&x->c, b, API_OFFSET_COMMIT, OFFSET_COMMIT_VERSION,
                        &request, &x->arena, &r);
    if (outcome != WIRE_ANSWERED) {
        x->coordinator = -1;
        return outcome == WIRE_UNSENT ? "fail" : "info";
    }
    if (r.n_topics != 1 || r.topics[0].n_partitions != 1)
        return "info";
    code = r.topics[0].partitions[0].error_code;
    if (code == 0)
        return "ok";
    x->coordinator = -1;
    note(x, "code", kafka_error_name(code));
    return "info";
}

/* Offsets of one thread's own key, so that commits do not race. */
static int64_t own_key(const struct wire *x)
{
    return (int64_t)x->w->number % KEYS_ACTIVE;
}

static void op_commit(struct wire *x)
{
    int64_t key = own_key(x), offset = x->w->values;
    const char *type;

    history_begin(&x->h);
    history_put(&x->h, "{%" PRId64 " %" PRId64 "}", key, offset);
    history_op(&x->h, x->w->process, "invoke", "commit", "");
    type = commit(x, key, offset);
    history_op(&x->h, x->w->process, type, "commit", x->more);
    if (strcmp(type, "info") == 0)
        new_process(x);
}

/* False: no answer. */
static bool ask_committed(struct wire *x, int64_t key, int64_t *offset)
{
    char name[TOPIC_MAX];
    int32_t partition;
    struct offset_fetch_request_group_topic t = {
        .partition_indexes = &partition, .n_partition_indexes = 1};
    struct offset_fetch_request_group g = {.group_id = GROUP,
                                           .member_id = WIRE_NULL_STR,
                                           .member_epoch = -1,
                                           .topics = &t,
                                           .n_topics = 1};
    struct offset_fetch_request request;
    struct offset_fetch_response r;
    struct wire_broker *b = coordinator_of(x);

    if (b == NULL)
        return false;
    key_topic(key, name, &partition);
    t.name = wire_str_of(name);
    offset_fetch_request_init(&request);
    request.groups = &g;
    request.n_groups = 1;
    if (wire_call(&x->c, b, API_OFFSET_FETCH, OFFSET_FETCH_VERSION, &request,
                  &x->arena, &r) != WIRE_ANSWERED ||
        r.n_groups != 1 || r.groups[0].error_code != 0 ||
        r.groups[0].n_topics != 1 || r.groups[0].topics[0].n_partitions != 1 ||
        r.groups[0].topics[0].partitions[0].error_code != 0) {
        x->coordinator = -1;
        return false;
    }
    *offset = r.groups[0].topics[0].partitions[0].committed_offset;
    return true;
}

static void op_committed(struct wire *x)
{
    int64_t key =
        (int64_t)prng_below(&x->w->prng, (uint64_t)x->w->load->threads);
    int64_t offset = -1;
    bool ok;

    key %= KEYS_ACTIVE;
    history_begin(&x->h);
    history_put(&x->h, "[%" PRId64 "]", key);
    history_op(&x->h, x->w->process, "invoke", "committed", "");
    ok = ask_committed(x, key, &offset);
    if (ok) {
        history_begin(&x->h);
        history_put(&x->h, "{%" PRId64 " %" PRId64 "}", key, offset);
    }
    history_op(&x->h, x->w->process, ok ? "ok" : "fail", "committed", "");
}

/* ---- a thread
 * ----------------------------------------------------------------- */

static bool wire_begin(struct wire *x, struct worker *w)
{
    char name[40];

    *x = (struct wire){.w = w, .leader = -1, .coordinator = -1};
    reading_init(&x->r, w, &x->h);
    snprintf(name, sizeof name, "wire-%" PRId64, w->process);
    arena_init(&x->arena, 0);
    wire_client_init(&x->c, w->load->bootstrap);
    return history_open(&x->h, w->load->dir, name);
}

static void wire_end(struct wire *x)
{
    wire_client_close(&x->c);
    history_close(&x->h);
    reading_free(&x->r);
    arena_free(&x->arena);
    buffer_free(&x->batch);
}

static void op_any(struct wire *x)
{
    uint64_t dice = prng_below(&x->w->prng, 100);

    op_begin(x);
    if (worker_crashes(x->w))
        op_crash(x);
    else if (x->r.n_places == 0 || dice < 2)
        op_assign(x);
    else if (dice < 46)
        op_send(x);
    else if (dice < 90)
        op_poll(x);
    else if (dice < 94)
        op_latest(x);
    else if (dice < 97)
        op_commit(x);
    else
        op_committed(x);
}

bool wire_run(struct worker *w)
{
    struct wire x;

    if (!wire_begin(&x, w))
        return false;
    while (!atomic_load(&w->load->stop)) {
        op_any(&x);
        usleep(1000 * (unsigned)prng_below(&w->prng, 10));
    }
    wire_end(&x);
    return true;
}

/* ---- the probe: one record after the other to one partition of `steady`, with
 * little patience, so that a time without acknowledgements can be told from a
 * client's own waiting. */
#define PROBE_EVERY_MS 200
#define PROBE_ASK_MS 300 /* connect, ask who leads */
#define PROBE_ANSWER_MS 1500

/* The one that was found, until it fails. */
static struct wire_broker *probe_leader(struct wire *x, int64_t key)
{
    struct wire_broker *b = wire_client_broker(&x->c, x->leader);

    if (b != NULL)
        return b;
    x->c.timeout_ms = PROBE_ASK_MS;
    b = leader_of(x, key);
    x->c.timeout_ms = PROBE_ANSWER_MS;
    if (b != NULL)
        x->leader = b->id;
    return b;
}

bool wire_probe(struct worker *w)
{
    int64_t key = KEY_STEADY + w->number;
    struct wire x;

    if (!wire_begin(&x, w))
        return false;
    x.c.connect_ms = PROBE_ASK_MS;
    x.c.timeout_ms = PROBE_ANSWER_MS;
    while (!atomic_load(&w->load->stop)) {
        const char *type;

        op_begin(&x);
        type = send_values(&x, key, 1, probe_leader);
        if (strcmp(type, "ok") != 0)
            x.leader = -1;
        if (strcmp(type, "info") == 0)
            w->process += PROCESS_STRIDE;
        usleep(1000 * PROBE_EVERY_MS);
    }
    wire_end(&x);
    return true;
}

/* ---- the last reading
 * ----------------------------------------------------------- */

static void final_assign(void *arg, const int64_t *keys, size_t n)
{
    assign(arg, keys, n);
}

static void final_poll(void *arg)
{
    op_poll(arg);
}

static void final_next(void *arg)
{
    ((struct wire *)arg)->w->process += PROCESS_STRIDE;
}

bool wire_final(struct worker *w)
{
    static const struct reading_ops ops = {final_assign, final_poll,
                                           final_next};
    struct wire x;
    bool ok = wire_begin(&x, w) && reading_to_ends(&x.r, &ops, &x);

    wire_end(&x);
    return ok;
}

bool wire_ask(struct worker *w)
{
    struct ends e;
    struct wire x;
    size_t got = 0;
    bool ok = ends_read(w->load->ends, &e) && wire_begin(&x, w);

    while (ok && got < e.n && !atomic_load(&w->load->stop)) {
        int64_t end;

        op_begin(&x);
        end = ask_latest(&x, e.keys[got]);
        if (end < 0) {
            usleep(100000);
            continue;
        }
        printf("%" PRId64 " %" PRId64 "\n", e.keys[got++], end);
    }
    for (size_t i = got; i < e.n; i++)
        fprintf(stderr, "no answer: key %" PRId64 "\n", e.keys[i]);
    ok = ok && got == e.n;
    if (e.n > 0)
        wire_end(&x);
    ends_free(&e);
    return ok;
}
