/* Fault loops: allocation number 1, 2, 3, ... fails, and the same with every
 * kind of file operation, and with a disk that fills up, while a broker starts,
 * creates a topic, takes batches, is read, settles and stops. Each time it ends
 * itself, refuses, or goes on; it never fails an assert, and when it is started
 * again without the fault everything that was acknowledged is there. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "partition/batch.h"
#include "schema/apis.h"
#include "schema/delete_topics.h"
#include "schema/fetch.h"
#include "schema/header.h"
#include "schema/metadata.h"
#include "schema/produce.h"
#include "tests/sim/sim_env.h"
#include "tests/unit/in_child.h"
#include "tests/unit/unit_broker.h"

#define BATCHES 12
/* Faults of each kind that are tried, spread over all there could be. */
#define TRIES 60

static struct sim *sim;
static struct sim_node *node, *host;
static bool down;
static int n_fatal, n_refused;

/* ---- the broker ---------------------------------------------------------- */
static void on_failed(struct unit_broker *b, const char *sentence)
{
    (void)sentence;
    n_refused++;
    down = true;
    sim_node_crash(b->node, SIM_KILL);
}
static struct unit_broker unit = {
    .properties =
        "node.id=1\nlisteners=PLAINTEXT://b:9092\npeer.listener=b:9093\n"
        "log.dirs=/data\nshards=1\nlog.segment.bytes=4096\n"
        "wal.bytes.max=16777216\nwal.file.bytes=4194304\n"
        "settle.interval.ms=100\n",
    .failed = on_failed};

static void on_fatal(void *arg, struct sim_node *n, const char *line)
{
    (void)arg;
    ck_assert_ptr_eq(n, node);
    ck_assert_uint_gt(strlen(line), 0);
    n_fatal++;
    down = true;
}

/* ---- a client: one request, one answer ----------------------------------- */
static struct env_stream *stream;
static struct env_write write_req;
static uint8_t *sent;
static uint8_t piece[4096], answer[65536];
static size_t n_answer;
static bool closed;

static struct iovec on_alloc(struct env_stream *s)
{
    (void)s;
    return (struct iovec){piece, sizeof piece};
}
static void on_read(struct env_stream *s, size_t size, enum err status)
{
    if (status != ERR_OK) {
        env_stream_close(s);
        return;
    }
    ck_assert_uint_le(n_answer + size, sizeof answer);
    memcpy(answer + n_answer, piece, size);
    n_answer += size;
}
static void on_connected(struct env_stream *s, enum err status)
{
    (void)s, (void)status;
}
static void on_closed(struct env_stream *s)
{
    (void)s;
    closed = true;
    stream = NULL;
}
static const struct env_stream_ops client_ops = {on_connected, on_alloc,
                                                 on_read, on_closed};
static void on_written(struct env_write *w, enum err status)
{
    (void)w, (void)status;
    mem_free(sent);
}

struct ask {
    const struct codec_message *request;
    int16_t key;
    int version;
    const void *body;
};

static void call_ask(struct env *env, void *arg)
{
    const struct ask *ask = arg;
    struct wire_writer w;
    struct request_header h = {ask->key, (int16_t)ask->version, 1,
                               WIRE_STR("t")};
    if (stream == NULL) {
        stream = env_stream_connect(env, "b:9092", &client_ops, NULL);
    }
    closed = false;
    wire_writer_init(&w, 0);
    wire_write_i32(&w, 0);
    request_header_encode(
        &w, &h, codec_request_header(codec_api_find(ask->key), ask->version));
    codec_encode(ask->request, &w, ask->body, ask->version);
    wire_patch_i32(&w, 0, (int32_t)w.size - 4);
    sent = mem_alloc(w.size);
    wire_writer_copy(&w, sent);
    struct iovec iov = {sent, w.size};
    write_req.cb = on_written;
    env_stream_write(stream, &write_req, &iov, 1);
    wire_writer_free(&w);
    n_answer = 0;
}

static bool is_answered(void *arg)
{
    struct wire_reader r;
    (void)arg;
    wire_reader_init(&r, answer, n_answer);
    return closed || down ||
           (n_answer >= 4 && n_answer - 4 >= (size_t)wire_read_i32(&r));
}

static void call_close(struct env *env, void *arg)
{
    (void)env, (void)arg;
    if (stream != NULL) {
        env_stream_close(stream);
    }
}

/* False: no answer came. `out` lives as long as `a` and until the next call. */
static bool ask(const struct codec_message *request,
                const struct codec_message *response, int16_t key, int version,
                const void *body, struct arena *a, void *out)
{
    struct ask what = {request, key, version, body};
    struct wire_reader r;
    sim_node_call(host, 0, call_ask, &what);
    if (!sim_run_while_not(sim, is_answered, NULL, 5 * SIM_S) || closed ||
        down) {
        sim_node_call(host, 0, call_close, NULL);
        sim_run_for(sim, 10 * SIM_MS);
        return false;
    }
    wire_reader_init(&r, answer + 8, n_answer - 8);
    if (codec_response_header(codec_api_find(key), version) == 1) {
        wire_skip_tags(&r);
    }
    codec_decode(response, &r, version, a, out);
    ck_assert_int_eq(r.err, ERR_OK);
    return true;
}

static bool topic_delete(void)
{
    struct wire_str name = WIRE_STR("t");
    struct delete_topics_request q;
    struct delete_topics_response r;
    struct arena a;
    arena_init(&a, 0);
    delete_topics_request_init(&q);
    q.topic_names = &name;
    q.n_topic_names = 1;
    q.timeout_ms = 5000;
    bool ok =
        ask(&delete_topics_request_message, &delete_topics_response_message,
            API_DELETE_TOPICS, 1, &q, &a, &r) &&
        r.n_responses == 1 && r.responses[0].error_code == 0;
    arena_free(&a);
    return ok;
}

/* Makes the topic when it is not there. */
static bool topic_is_there(void)
{
    struct metadata_request_topic topic = {.name = WIRE_STR("t")};
    struct metadata_request q;
    struct metadata_response r;
    struct arena a;
    arena_init(&a, 0);
    metadata_request_init(&q);
    q.topics = &topic;
    q.n_topics = 1;
    q.allow_auto_topic_creation = true;
    bool ok = ask(&metadata_request_message, &metadata_response_message,
                  API_METADATA, 4, &q, &a, &r) &&
              r.n_topics == 1 && r.topics[0].error_code == 0;
    arena_free(&a);
    return ok;
}

/* Gives the offset, or -1 when it was not acknowledged. */
static int64_t produce(int number)
{
    struct batch_builder b;
    struct produce_request_partition p = {.index = 0};
    struct produce_request_topic t = {
        .name = WIRE_STR("t"), .partition_data = &p, .n_partition_data = 1};
    struct produce_request q;
    struct produce_response r;
    struct arena a;
    const uint8_t *batch;
    size_t size;
    char value[500];
    arena_init(&a, 0);
    memset(value, 'v', sizeof value);
    snprintf(value, sizeof value, "value-%d", number);
    batch_builder_init(&b, CODEC_NONE);
    batch_builder_add(&b, 1000 + number, NULL, -1, value, sizeof value, NULL,
                      0);
    ck_assert_int_eq(batch_builder_finish(&b, &batch, &size), ERR_OK);
    p.records = (struct wire_records){.p = batch, .n = (int32_t)size};
    produce_request_init(&q);
    q.acks = -1;
    q.timeout_ms = 2000;
    q.topic_data = &t;
    q.n_topic_data = 1;
    int64_t offset = -1;
    if (ask(&produce_request_message, &produce_response_message, API_PRODUCE, 3,
            &q, &a, &r) &&
        r.responses[0].partition_responses[0].error_code == 0) {
        offset = r.responses[0].partition_responses[0].base_offset;
    }
    batch_builder_free(&b);
    arena_free(&a);
    return offset;
}

/* The number of the batch at this offset; -1: it cannot be had. */
static int fetch(int64_t offset)
{
    struct fetch_request_partition p = {.partition = 0,
                                        .current_leader_epoch = -1,
                                        .fetch_offset = offset,
                                        .partition_max_bytes = 1};
    struct fetch_request_topic t = {
        .topic = WIRE_STR("t"), .partitions = &p, .n_partitions = 1};
    struct fetch_request q;
    struct fetch_response r;
    struct arena a;
    int number = -1;
    arena_init(&a, 0);
    fetch_request_init(&q);
    q.max_wait_ms = 100;
    q.min_bytes = 1;
    q.topics = &t;
    q.n_topics = 1;
    if (ask(&fetch_request_message, &fetch_response_message, API_FETCH, 4, &q,
            &a, &r) &&
        r.n_responses == 1 && r.responses[0].partitions[0].error_code == 0) {
        const struct wire_records *got = &r.responses[0].partitions[0].records;
        struct batch_records reader;
        struct batch_record record;
        if (got->n > 0) {
            struct batch_header h;
            ck_assert_int_eq(batch_header_read(got->p, (size_t)got->n, &h),
                             ERR_OK);
            ck_assert_int_eq(h.base_offset.v, offset);
            ck_assert_int_eq(
                batch_records_open(&reader, got->p, batch_size(&h), 10000),
                ERR_OK);
            ck_assert(batch_records_next(&reader, &record));
            ck_assert_int_eq(
                sscanf((const char *)record.value, "value-%d", &number), 1);
            batch_records_close(&reader);
        }
    }
    arena_free(&a);
    return number;
}

/* ---- the story ----------------------------------------------------------- */
static int64_t acknowledged[BATCHES];

static bool is_ready(void *arg)
{
    (void)arg;
    return unit.ready || down;
}
static bool is_stopped(void *arg)
{
    (void)arg;
    return unit.stopped || down;
}

static void begin(void)
{
    sim = sim_new(1);
    sim_on_fatal(sim, on_fatal, NULL);
    node = unit.node = sim_node_add(sim, "b", 1);
    host = sim_node_add(sim, "h", 1);
    sim_net_delay(sim, NULL, NULL, 1000, 1000);
    sim_node_start(host, NULL, NULL);
    unit.ready = unit.stopped = down = false;
    stream = NULL;
    for (int i = 0; i < BATCHES; i++) {
        acknowledged[i] = -1;
    }
}

/* Whatever goes wrong on the way. */
static void live(void)
{
    (void)sim_run_while_not(sim, is_ready, NULL, 20 * SIM_S);
    for (int i = 0; i < 3 && !down && !topic_is_there(); i++) {
    }
    for (int i = 0; i < BATCHES && !down; i++) {
        acknowledged[i] = produce(i);
        if (acknowledged[i] >= 0 && !down) {
            int seen = fetch(acknowledged[i]);
            ck_assert(seen == i || seen == -1);
        }
        if (i % 4 == 3) {
            sim_run_for(sim, 300 * SIM_MS); /* settles */
        }
    }
    if (!down) {
        unit_broker_stop(&unit);
        (void)sim_run_while_not(sim, is_stopped, NULL, 60 * SIM_S);
    }
}

/* Without the fault: everything is there, and goes on. */
static void live_again(void)
{
    sim_node_fail_nth_allocation(node, 0);
    sim_disk_fail_nth(node, 15, 0);
    sim_disk_capacity(node, 0);
    if (sim_node_up(node)) {
        sim_node_crash(node, SIM_KILL);
    }
    unit.ready = unit.stopped = down = false;
    sim_node_call(host, 0, call_close, NULL);
    sim_run_for(sim, 100 * SIM_MS);
    sim_node_restart(node);
    if (!sim_run_while_not(sim, is_ready, NULL, 60 * SIM_S) || down) {
        sim_fail(sim, "it does not start again");
    }
    if (!topic_is_there()) {
        sim_fail(sim, "the topic cannot be had");
    }
    for (int i = 0; i < BATCHES; i++) {
        if (acknowledged[i] >= 0 && fetch(acknowledged[i]) != i) {
            sim_fail(sim, "acknowledged batch %d is not at %lld", i,
                     (long long)acknowledged[i]);
        }
    }
    if (produce(99) < 0) {
        sim_fail(sim, "nothing can be written any more");
    }
    sim_free(sim);
}

static int n_acknowledged(void)
{
    int n = 0;
    for (int i = 0; i < BATCHES; i++) {
        n += acknowledged[i] >= 0;
    }
    return n;
}

static uint64_t tries(void)
{
    const char *n = getenv("TRIES");
    return n != NULL ? strtoull(n, NULL, 10) : TRIES;
}

START_TEST(test_loop__allocations)
{
    uint64_t all, step;
    begin();
    sim_node_start(node, unit_broker_boot, &unit);
    live();
    all = sim_node_allocations(node);
    ck_assert_int_eq(n_acknowledged(), BATCHES);
    live_again();
    ck_assert_uint_gt(all, 500);
    step = all / tries() + 1;
    n_fatal = 0;
    int tried = 0;
    for (uint64_t n = 1; n <= all; n += n < 50 ? 1 : step) {
        tried++;
        begin();
        sim_node_fail_nth_allocation(node, n);
        sim_node_start(node, unit_broker_boot, &unit);
        live();
        live_again();
    }
    printf("%llu allocations, %d ended the broker\n", (unsigned long long)all,
           n_fatal);
    ck_assert_int_gt(n_fatal, tried / 2);
}
END_TEST

static void loop_disk(int kinds)
{
    uint64_t all, step;
    begin();
    sim_node_start(node, unit_broker_boot, &unit);
    live();
    all = sim_disk_ops(node, kinds);
    ck_assert_int_eq(n_acknowledged(), BATCHES);
    live_again();
    ck_assert_uint_gt(all, 3);
    step = all / tries() + 1;
    n_fatal = n_refused = 0;
    for (uint64_t n = 1; n <= all; n += step) {
        begin();
        sim_disk_fail_nth(node, kinds, n);
        sim_node_start(node, unit_broker_boot, &unit);
        live();
        live_again();
    }
    printf("%llu operations of kind %d, %d ended the broker, %d were refused\n",
           (unsigned long long)all, kinds, n_fatal, n_refused);
    ck_assert_int_gt(n_fatal + n_refused, 0);
}

START_TEST(test_loop__reads)
{
    loop_disk(SIM_DISK_READ);
}
END_TEST
START_TEST(test_loop__writes)
{
    loop_disk(SIM_DISK_WRITE);
}
END_TEST
START_TEST(test_loop__syncs)
{
    loop_disk(SIM_DISK_SYNC);
}
END_TEST
START_TEST(test_loop__names)
{
    loop_disk(SIM_DISK_NAME);
}
END_TEST

/* The same while a broker with data starts. */
static void loop_restart(int kinds)
{
    for (uint64_t n = 1; n < 200; n++) {
        begin();
        sim_node_start(node, unit_broker_boot, &unit);
        live();
        ck_assert_int_eq(n_acknowledged(), BATCHES);
        sim_node_crash(node, SIM_DROP_ALL);
        unit.ready = unit.stopped = down = false;
        sim_node_call(host, 0, call_close, NULL);
        if (kinds == 0) {
            sim_node_fail_nth_allocation(node, n * n);
        } else {
            sim_disk_fail_nth(node, kinds, n);
        }
        uint64_t before = kinds == 0 ? 0 : sim_disk_ops(node, kinds);
        sim_node_restart(node);
        (void)sim_run_while_not(sim, is_ready, NULL, 20 * SIM_S);
        /* a failing read may be survived: what cannot be read has a copy */
        bool hit = kinds == 0 ? down : sim_disk_ops(node, kinds) - before >= n;
        live_again();
        if (!hit) {
            ck_assert_uint_gt(n, 3);
            return;
        }
    }
}
START_TEST(test_loop__restart)
{
    static const int kinds[] = {0, SIM_DISK_READ, SIM_DISK_WRITE, SIM_DISK_SYNC,
                                SIM_DISK_NAME};
    loop_restart(kinds[_i]);
}
END_TEST

START_TEST(test_loop__disk_fills_up)
{
    for (uint64_t size = 1; size < 12; size++) {
        begin();
        /* the first file of the log has 4 MiB */
        sim_disk_capacity(node, size * size * 100000);
        sim_node_start(node, unit_broker_boot, &unit);
        live();
        live_again();
    }
    for (uint64_t more = 0; more < 20000; more += 700) {
        begin();
        sim_node_start(node, unit_broker_boot, &unit);
        (void)sim_run_while_not(sim, is_ready, NULL, 20 * SIM_S);
        ck_assert(topic_is_there());
        sim_disk_capacity(node, (uint64_t)4 * 1024 * 1024 + more);
        live();
        live_again();
    }
}
END_TEST

/* ---- what a deleted topic leaves ----------------------------------------- */
static int n_left;
static void note_left(void *arg, const char *path, uint64_t size)
{
    (void)arg, (void)size;
    n_left += strstr(path, "partitions/t-0.") != NULL;
}

static int files_left(void)
{
    n_left = 0;
    sim_disk_list(node, note_left, NULL);
    return n_left;
}

static char dir_deleted[200]; /* of a replica whose topic is deleted */

static void note_dir(void *arg, const char *path, uint64_t size)
{
    (void)arg, (void)size;
    if (strstr(path, "partitions/t-0.") != NULL) {
        snprintf(dir_deleted, sizeof dir_deleted, "%s", path);
        *strrchr(dir_deleted, '/') = '\0';
    }
}

static void make_orphan(struct env *env, void *arg)
{
    const char *const dirs[] = {
        dir_deleted, "/data/partitions/stray-7.AAAAAAAAAAAAAAAAAAAAEg.1000000",
        "/data/partitions/stray-8.AAAAAAAAAAAAAAAAAAAAIg.0",
        "/data/partitions/mine", "/data/partitions/no.topic.1"};
    char path[300];
    (void)arg;
    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
        ck_assert_int_eq(env_dir_make(env, dirs[i]), ERR_OK);
        snprintf(path, sizeof path, "%s/00000000000000000000.log", dirs[i]);
        ck_assert_int_eq(env_file_write_whole(env, path, "x", 1), ERR_OK);
    }
}

static int n_gone, n_kept, n_marks;
static void note_orphan(void *arg, const char *path, uint64_t size)
{
    (void)arg, (void)size;
    n_gone += strncmp(path, dir_deleted, strlen(dir_deleted)) == 0;
    n_marks += strstr(path, "/stray") != NULL &&
               strcmp(strrchr(path, '/'), "/stray") == 0;
    n_kept += strstr(path, "partitions/stray-") != NULL;
    n_kept += strstr(path, "partitions/mine") != NULL ||
              strstr(path, "partitions/no.topic.1") != NULL;
}

static void crash_and_restart(enum sim_crash how)
{
    sim_node_crash(node, how);
    unit.ready = unit.stopped = down = false;
    sim_node_call(host, 0, call_close, NULL);
    sim_run_for(sim, 100 * SIM_MS);
    sim_node_restart(node);
    ck_assert(sim_run_while_not(sim, is_ready, NULL, 60 * SIM_S) && !down);
    sim_run_for(sim, 2 * SIM_S);
}

/* A broker with a topic and records in it. */
static void begin_with_records(void)
{
    begin();
    sim_node_start(node, unit_broker_boot, &unit);
    (void)sim_run_while_not(sim, is_ready, NULL, 20 * SIM_S);
    ck_assert(topic_is_there());
    for (int i = 0; i < BATCHES; i++) {
        ck_assert_int_ge(produce(i), 0);
    }
    sim_run_for(sim, SIM_S);
}

/* The process ends at any time after a topic was deleted: nothing of it is left
 * a while after the next start, and the next topic of the name is whole. */
START_TEST(test_loop__deleted_topic)
{
    static const enum sim_crash how[] = {SIM_KILL, SIM_DROP_ALL, SIM_KEEP_ALL};
    int n_swept = 0;
    for (uint64_t us = 0; us < 20000; us += us < 3000 ? 100 : 1000) {
        begin_with_records();
        ck_assert_int_gt(files_left(), 0);
        ck_assert(topic_delete());
        sim_run_for(sim, us * SIM_US);
        n_swept += files_left() > 0;
        crash_and_restart(how[us / 100 % 3]);
        ck_assert_int_eq(files_left(), 0);
        ck_assert(topic_is_there()); /* it is made again */
        ck_assert_int_eq(produce(1), 0);
        sim_free(sim);
    }
    ck_assert_int_gt(n_swept, 0);
}
END_TEST

/* A directory of a topic that was deleted goes. One whose replica the metadata
 * has never known is kept, and marked; whatever else is there stays. */
START_TEST(test_loop__directory_of_no_topic)
{
    begin_with_records();
    sim_disk_list(node, note_dir, NULL);
    ck_assert_str_ne(dir_deleted, "");
    ck_assert(topic_delete());
    sim_run_for(sim, 500 * SIM_MS);
    ck_assert(topic_is_there());
    for (int i = 0; i < BATCHES; i++) {
        ck_assert_int_ge(produce(i), 0);
    }
    /* Settled, and not yet expired: the records are from 1970. */
    sim_run_for(sim, SIM_S);
    int n = files_left();
    ck_assert_int_gt(n, 0);
    sim_node_call(node, 0, make_orphan, NULL);
    for (int i = 0; i < 2; i++) {
        crash_and_restart(SIM_KEEP_ALL);
        n_gone = n_kept = n_marks = 0;
        sim_disk_list(node, note_orphan, NULL);
        ck_assert_int_eq(n_gone, 0);
        ck_assert_int_eq(n_marks, 2);
        ck_assert_int_eq(n_kept, 6); /* with the marks */
        ck_assert_int_ge(files_left(), n);
    }
    ck_assert_int_eq(fetch(3), 3);
    sim_free(sim);
}
END_TEST

/* ---- every byte of the small files --------------------------------------- */
static struct {
    char path[200];
    uint64_t size;
} small[8];
static int n_small;

static void note_small(void *arg, const char *path, uint64_t size)
{
    (void)arg;
    if (size > 0 && n_small < 8 &&
        (strstr(path, "meta.properties") != NULL ||
         strcmp(strrchr(path, '/'), "/shards") == 0)) {
        snprintf(small[n_small].path, sizeof small[0].path, "%s", path);
        small[n_small++].size = size;
    }
}

static void check_acknowledged(void)
{
    ck_assert(topic_is_there());
    for (int i = 0; i < BATCHES; i++) {
        ck_assert_int_eq(fetch(acknowledged[i]), i);
    }
    ck_assert_int_ge(produce(99), 0);
}

struct small_damage {
    const char *path;
    uint64_t at;
    size_t zeros; /* or one bit */
};

/* Starts with all that it had (1), or refuses with a sentence and starts again
 * when the byte is back (0). */
static int judge_small_damage(void *arg)
{
    const struct small_damage *d = arg;
    ck_assert(d->zeros > 0
                  ? sim_disk_zero(node, d->path, d->at, d->zeros)
                  : sim_disk_flip(node, d->path, d->at, d->at * 5 % 8));
    sim_node_restart(node);
    ck_assert(sim_run_while_not(sim, is_ready, NULL, 60 * SIM_S));
    bool refused = down;
    if (refused && d->zeros == 0) {
        ck_assert(sim_disk_flip(node, d->path, d->at, d->at * 5 % 8));
        unit.ready = down = false;
        sim_node_restart(node);
        ck_assert(sim_run_while_not(sim, is_ready, NULL, 60 * SIM_S) && !down);
    }
    if (!down) {
        check_acknowledged();
    }
    return refused ? 0 : 1;
}

static bool small_damaged(const char *path, uint64_t at, size_t zeros)
{
    struct small_damage d = {path, at, zeros};
    int started = in_child(judge_small_damage, &d);
    ck_assert_msg(started >= 0, "%s: byte %llu", path, (unsigned long long)at);
    return started == 1;
}

START_TEST(test_loop__bytes_of_small_files)
{
    begin();
    sim_node_start(node, unit_broker_boot, &unit);
    live();
    ck_assert_int_eq(n_acknowledged(), BATCHES);
    sim_node_crash(node, SIM_DROP_ALL);
    unit.ready = unit.stopped = down = false;
    sim_node_call(host, 0, call_close, NULL);
    sim_run_for(sim, 100 * SIM_MS);
    n_small = 0;
    sim_disk_list(node, note_small, NULL);
    ck_assert_int_ge(n_small, 3);
    for (int i = 0; i < n_small; i++) {
        int n_started = 0;
        for (uint64_t at = 0; at < small[i].size; at++) {
            n_started += small_damaged(small[i].path, at, 0);
        }
        printf("%s: %llu bytes flipped, %d times it started all the same\n",
               small[i].path, (unsigned long long)small[i].size, n_started);
        (void)small_damaged(small[i].path, 0, 512);
    }
    sim_free(sim);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fault_loops");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, test_loop__allocations);
    tcase_add_test(tc, test_loop__reads);
    tcase_add_test(tc, test_loop__writes);
    tcase_add_test(tc, test_loop__syncs);
    tcase_add_test(tc, test_loop__names);
    tcase_add_loop_test(tc, test_loop__restart, 0, 5);
    tcase_add_test(tc, test_loop__disk_fills_up);
    suite_add_tcase(suite, tc);
    TCase *deleted = tcase_create("deleted");
    tcase_set_timeout(deleted, 300);
    tcase_add_test(deleted, test_loop__deleted_topic);
    tcase_add_test(deleted, test_loop__directory_of_no_topic);
    suite_add_tcase(suite, deleted);
    TCase *bytes = tcase_create("every_byte");
    tcase_set_timeout(bytes, 900);
    tcase_add_test(bytes, test_loop__bytes_of_small_files);
    suite_add_tcase(suite, bytes);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
