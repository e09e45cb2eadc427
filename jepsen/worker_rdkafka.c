/* The workload by librdkafka, as users have it: idempotent producers and
 * consumers, by assignment or as members of a group. A send that librdkafka
 * gave up is :info whatever it says, since an attempt before may have worked.
 */
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "jepsen/history.h"
#include "jepsen/load.h"
#include "jepsen/reading.h"

#define GROUP "jepsen-rdkafka"
#define POLL_MS 100
#define POLL_RECORDS 400
#define STEADY_SENDS 16
#define LAST_WAIT_NS 20000000000

struct sent { /* one record on its way */
    int64_t key;
    int64_t value;
    int64_t offset; /* -1: not acknowledged */
    bool told;
    struct flight *flight;
};

struct flight { /* the records of one operation */
    struct sent sends[OP_SENDS_MAX];
    size_t n;
    size_t left; /* not told yet */
};

struct rd {
    struct worker *w;
    struct history h;
    rd_kafka_t *producer;
    rd_kafka_t *consumer;
    bool subscribes;
    struct reading r;
    struct buffer rebalanced; /* keys, since the last poll */
};

/* ---- clients ----------------------------------------------------------------
 */

static void set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
    char why[256];

    if (rd_kafka_conf_set(conf, name, value, why, sizeof why) !=
        RD_KAFKA_CONF_OK) {
        fprintf(stderr, "%s\n", why);
        exit(2);
    }
}

static void on_error(rd_kafka_t *rk, int err, const char *reason, void *arg)
{
    (void)arg;
    if (err == RD_KAFKA_RESP_ERR__FATAL) {
        char why[256];

        err = rd_kafka_fatal_error(rk, why, sizeof why);
        fprintf(stderr, "fatal: %s: %s\n", rd_kafka_err2name(err), why);
    }
    (void)reason;
}

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *m, void *arg)
{
    struct sent *s = m->_private;

    (void)rk;
    (void)arg;
    s->told = true;
    s->flight->left--;
    if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR)
        s->offset = m->offset;
}

static rd_kafka_conf_t *conf_new(struct rd *x)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();

    set(conf, "bootstrap.servers", x->w->load->bootstrap);
    set(conf, "reconnect.backoff.max.ms", "500");
    set(conf, "topic.metadata.refresh.interval.ms", "5000");
    set(conf, "topic.metadata.propagation.max.ms", "3000");
    set(conf, "socket.timeout.ms", "4000");
    set(conf, "socket.connection.setup.timeout.ms", "1500");
    set(conf, "log_level", "0");
    rd_kafka_conf_set_error_cb(conf, on_error);
    rd_kafka_conf_set_opaque(conf, x);
    return conf;
}

static rd_kafka_t *client_new(rd_kafka_type_t type, rd_kafka_conf_t *conf)
{
    char why[256];
    rd_kafka_t *rk = rd_kafka_new(type, conf, why, sizeof why);

    if (rk == NULL) {
        fprintf(stderr, "%s\n", why);
        exit(2);
    }
    return rk;
}

static rd_kafka_t *producer_new(struct rd *x)
{
    rd_kafka_conf_t *conf = conf_new(x);

    set(conf, "enable.idempotence", "true");
    set(conf, "acks", "all");
    set(conf, "retries", "1000");
    set(conf, "linger.ms", "2");
    /* A message that times out makes librdkafka begin a new epoch, under which
     * it sends again what it still has of other partitions, though a broker may
     * have that already: a duplicate that no broker can know. Whole producers
     * are given up instead (flight_wait). */
    set(conf, "message.timeout.ms", "300000");
    set(conf, "request.timeout.ms", "3000");
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    return client_new(RD_KAFKA_PRODUCER, conf);
}

static void on_rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t err,
                         rd_kafka_topic_partition_list_t *list, void *arg)
{
    struct rd *x = arg;

    for (int i = 0; i < list->cnt; i++) {
        char text[32];
        int64_t key =
            key_of_topic(list->elems[i].topic, strlen(list->elems[i].topic),
                         list->elems[i].partition);
        int n = snprintf(text, sizeof text, "%" PRId64 " ", key);

        buffer_append(&x->rebalanced, text, (size_t)n);
    }
    if (err == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS)
        rd_kafka_assign(rk, list);
    else
        rd_kafka_assign(rk, NULL);
}

static rd_kafka_t *consumer_new(struct rd *x)
{
    rd_kafka_conf_t *conf = conf_new(x);
    rd_kafka_t *rk;

    set(conf, "group.id", GROUP);
    set(conf, "enable.auto.commit", "false");
    /* an assigned position that is refused must be seen */
    set(conf, "auto.offset.reset", x->subscribes ? "earliest" : "error");
    set(conf, "session.timeout.ms", "6000");
    set(conf, "heartbeat.interval.ms", "300");
    set(conf, "fetch.wait.max.ms", "100");
    set(conf, "fetch.error.backoff.ms", "100");
    set(conf, "isolation.level", "read_committed");
    set(conf, "allow.auto.create.topics", "true");
    if (x->subscribes)
        rd_kafka_conf_set_rebalance_cb(conf, on_rebalance);
    rk = client_new(RD_KAFKA_CONSUMER, conf);
    rd_kafka_poll_set_consumer(rk);
    return rk;
}

static void clients_open(struct rd *x, bool produces, bool consumes)
{
    if (produces)
        x->producer = producer_new(x);
    if (consumes)
        x->consumer = consumer_new(x);
    x->r.n_places = 0;
}

/* Like a crash when `hard`: a member does not leave its group. */
static void clients_close(struct rd *x, bool hard)
{
    if (x->producer != NULL) {
        rd_kafka_purge(x->producer, RD_KAFKA_PURGE_F_QUEUE |
                                        RD_KAFKA_PURGE_F_INFLIGHT |
                                        RD_KAFKA_PURGE_F_NON_BLOCKING);
        rd_kafka_flush(x->producer, 1000);
        rd_kafka_destroy_flags(x->producer,
                               RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    }
    if (x->consumer != NULL)
        rd_kafka_destroy_flags(x->consumer,
                               hard ? RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE : 0);
    x->producer = x->consumer = NULL;
}

static void new_process(struct rd *x)
{
    bool produces = x->producer != NULL, consumes = x->consumer != NULL;

    clients_close(x, prng_chance(&x->w->prng, 1, 2));
    x->w->process += PROCESS_STRIDE;
    clients_open(x, produces, consumes);
}

/* ---- send
 * --------------------------------------------------------------------- */

static void flight_add(struct flight *f, int64_t key, int64_t value)
{
    f->sends[f->n++] =
        (struct sent){.key = key, .value = value, .offset = -1, .flight = f};
}

static void flight_put(struct rd *x, const struct flight *f)
{
    history_begin(&x->h);
    history_put(&x->h, "[");
    for (size_t i = 0; i < f->n; i++)
        history_put_send(&x->h, f->sends[i].key, f->sends[i].value,
                         f->sends[i].offset);
    history_put(&x->h, "]");
}

/* Hands all records to librdkafka; those it does not take are told at once. */
static void flight_start(struct rd *x, struct flight *f)
{
    uint8_t record[RECORD_MAX];

    f->left = f->n;
    for (size_t i = 0; i < f->n; i++) {
        struct sent *s = &f->sends[i];
        char topic[TOPIC_MAX];
        int32_t partition;
        size_t n = record_write(record, s->key, s->value);

        key_topic(s->key, topic, &partition);
        if (rd_kafka_producev(
                x->producer, RD_KAFKA_V_TOPIC(topic),
                RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_VALUE(record, n),
                RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_OPAQUE(s),
                RD_KAFKA_V_END) != RD_KAFKA_RESP_ERR_NO_ERROR) {
            s->told = true;
            f->left--;
        }
    }
}

static bool flight_all_ok(const struct flight *f)
{
    for (size_t i = 0; i < f->n; i++) {
        if (f->sends[i].offset < 0)
            return false;
    }
    return true;
}

/* Waits for all; in the end librdkafka is made to give up. */
static void flight_wait(struct rd *x, struct flight *f)
{
    int64_t until = now_ns() + LAST_WAIT_NS;

    while (f->left > 0) {
        rd_kafka_poll(x->producer, 50);
        if (now_ns() > until)
            rd_kafka_purge(x->producer,
                           RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    }
}

static void op_send(struct rd *x)
{
    struct flight f = {.n = 0};
    size_t n = 1 + prng_below(&x->w->prng, 4);
    bool ok;

    for (size_t i = 0; i < n; i++)
        flight_add(&f, worker_key(x->w), worker_value(x->w));
    flight_put(x, &f);
    history_op(&x->h, x->w->process, "invoke", "send", "");
    flight_start(x, &f);
    flight_wait(x, &f);
    flight_put(x, &f);
    ok = flight_all_ok(&f);
    history_op(&x->h, x->w->process, ok ? "ok" : "info", "send", "");
    if (!ok)
        new_process(x);
}

/* ---- assign, subscribe
 * --------------------------------------------------------- */

/* Topics have two partitions, and a subscription is one to both. */
static size_t with_siblings(int64_t *keys, size_t n)
{
    size_t all = n;

    for (size_t i = 0; i < n; i++) {
        bool known = false;

        for (size_t j = 0; j < all; j++)
            known |= keys[j] == (keys[i] ^ 1);
        if (!known)
            keys[all++] = keys[i] ^ 1;
    }
    return all;
}

static bool apply_places(struct rd *x)
{
    rd_kafka_topic_partition_list_t *list =
        rd_kafka_topic_partition_list_new((int)x->r.n_places);
    rd_kafka_resp_err_t err;

    for (size_t i = 0; i < x->r.n_places; i++) {
        char topic[TOPIC_MAX];
        int32_t partition;

        key_topic(x->r.places[i].key, topic, &partition);
        if (!x->subscribes)
            rd_kafka_topic_partition_list_add(list, topic, partition)->offset =
                x->r.places[i].next;
        else if (rd_kafka_topic_partition_list_find(
                     list, topic, RD_KAFKA_PARTITION_UA) == NULL)
            rd_kafka_topic_partition_list_add(list, topic,
                                              RD_KAFKA_PARTITION_UA);
    }
    err = x->subscribes ? rd_kafka_subscribe(x->consumer, list)
                        : rd_kafka_assign(x->consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
    return err == RD_KAFKA_RESP_ERR_NO_ERROR;
}

static void place_all(struct rd *x, const int64_t *keys, size_t n)
{
    const char *f = x->subscribes ? "subscribe" : "assign";
    bool ok;

    reading_assign(&x->r, keys, n);
    reading_put_keys(&x->r);
    history_op(&x->h, x->w->process, "invoke", f, "");
    ok = apply_places(x);
    reading_put_keys(&x->r);
    history_op(&x->h, x->w->process, ok ? "ok" : "info", f, "");
    if (!ok)
        new_process(x);
}

static void op_place(struct rd *x)
{
    int64_t keys[16];
    size_t n = worker_keys(x->w, keys, 6);

    if (x->subscribes)
        n = with_siblings(keys, n);
    place_all(x, keys, n);
}

/* ---- poll
 * --------------------------------------------------------------------- */

static void poll_one(struct rd *x, const rd_kafka_message_t *m)
{
    const char *topic = m->rkt == NULL ? "" : rd_kafka_topic_name(m->rkt);
    int64_t key = key_of_topic(topic, strlen(topic), m->partition), value;
    struct place *place = reading_place(&x->r, key);

    if (m->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET && !x->subscribes)
        fprintf(stderr,
                "SUSPECT librdkafka: position of key %" PRId64
                " is out of range: %s\n",
                key, rd_kafka_message_errstr(m));
    if (m->err != RD_KAFKA_RESP_ERR_NO_ERROR)
        return;
    if (place != NULL)
        place->next = m->offset + 1;
    if (record_read(m->payload, m->len, key, &value))
        reading_record(&x->r, key, m->offset, value);
    else
        reading_torn(&x->r, key, m->offset);
}

static void poll_many(struct rd *x)
{
    int64_t until = now_ns() + POLL_MS * 1000000;

    for (int n = 0; n < POLL_RECORDS; n++) {
        int64_t left = (until - now_ns()) / 1000000;
        rd_kafka_message_t *m =
            rd_kafka_consumer_poll(x->consumer, left > 0 ? (int)left : 0);

        if (m == NULL)
            break;
        poll_one(x, m);
        rd_kafka_message_destroy(m);
    }
}

static void op_poll(struct rd *x)
{
    struct buffer more = {0};
    size_t n;

    buffer_clear(&x->rebalanced);
    reading_poll_begin(&x->r);
    poll_many(x);
    if (x->rebalanced.size > 0) {
        buffer_append(&more, ", :rebalance-log [{:keys [", 26);
        buffer_append(&more, x->rebalanced.data, x->rebalanced.size);
        buffer_append(&more, "]}]", 3);
    }
    buffer_append(&more, "", 1);
    n = reading_poll_end(&x->r, (const char *)more.data);
    buffer_free(&more);
    if (x->subscribes && n > 0)
        rd_kafka_commit(x->consumer, NULL, 1);
}

/* ---- threads
 * ------------------------------------------------------------------ */

static bool rd_begin(struct rd *x, struct worker *w, bool subscribes,
                     bool produces, bool consumes)
{
    char name[40];

    *x = (struct rd){.w = w, .subscribes = subscribes};
    reading_init(&x->r, w, &x->h);
    snprintf(name, sizeof name, "rdkafka-%" PRId64, w->process);
    if (!history_open(&x->h, w->load->dir, name))
        return false;
    clients_open(x, produces, consumes);
    return true;
}

static void rd_end(struct rd *x)
{
    clients_close(x, false);
    history_close(&x->h);
    buffer_free(&x->rebalanced);
    reading_free(&x->r);
}

static void op_crash(struct rd *x)
{
    reading_crash(&x->r);
    new_process(x);
}

bool rdkafka_run(struct worker *w, bool subscribes)
{
    struct rd x;

    if (!rd_begin(&x, w, subscribes, true, true))
        return false;
    while (!atomic_load(&w->load->stop)) {
        uint64_t dice = prng_below(&w->prng, 100);

        if (worker_crashes(w))
            op_crash(&x);
        else if (x.r.n_places == 0 || dice < 3)
            op_place(&x);
        else if (dice < 51)
            op_send(&x);
        else
            op_poll(&x);
    }
    rd_end(&x);
    return true;
}

bool rdkafka_steady_consume(struct worker *w, bool subscribes)
{
    int64_t keys[OP_KEYS_MAX];
    size_t n = (size_t)w->load->steady;
    struct rd x;

    if (!rd_begin(&x, w, subscribes, false, true))
        return false;
    for (size_t i = 0; i < n; i++)
        keys[i] = KEY_STEADY + (int64_t)i;
    while (!atomic_load(&w->load->stop)) {
        /* only subscribers crash: another one would read all again */
        if (subscribes && worker_crashes(w))
            op_crash(&x);
        else if (x.r.n_places == 0)
            place_all(&x, keys, n);
        else
            op_poll(&x);
    }
    rd_end(&x);
    return true;
}

/* ---- the steady producer
 * -------------------------------------------------------- */

struct lane { /* one partition: one operation under way at a time */
    struct flight flight;
    int64_t process;
    int64_t due_ns;
    bool busy;
};

static void lane_start(struct rd *x, struct lane *l, int64_t key)
{
    l->flight.n = 0;
    for (int i = 0; i < STEADY_SENDS; i++)
        flight_add(&l->flight, key, worker_value(x->w));
    flight_put(x, &l->flight);
    history_op(&x->h, l->process, "invoke", "send", "");
    flight_start(x, &l->flight);
    l->busy = true;
}

static void lane_done(struct rd *x, struct lane *l)
{
    bool ok = flight_all_ok(&l->flight);

    flight_put(x, &l->flight);
    history_op(&x->h, l->process, ok ? "ok" : "info", "send", "");
    if (!ok)
        l->process += PROCESS_STRIDE;
    l->busy = false;
}

/* A producer that gave up for good is replaced; all it had was told. */
static void steady_renew(struct rd *x, struct lane *lanes, int n)
{
    char why[128];

    if (rd_kafka_fatal_error(x->producer, why, sizeof why) ==
        RD_KAFKA_RESP_ERR_NO_ERROR)
        return;
    for (int i = 0; i < n; i++) {
        if (!lanes[i].busy)
            continue;
        flight_wait(x, &lanes[i].flight);
        lane_done(x, &lanes[i]);
    }
    clients_close(x, true);
    clients_open(x, true, false);
}

bool rdkafka_steady_produce(struct worker *w)
{
    int n = w->load->steady;
    struct lane *lanes = mem_zalloc((size_t)n * sizeof *lanes);
    int64_t every_ns = (int64_t)STEADY_SENDS * n * 1000000000 /
                       (w->load->steady_rate > 0 ? w->load->steady_rate : 1);
    struct rd x;

    if (!rd_begin(&x, w, false, true, false))
        return false;
    for (int i = 0; i < n; i++)
        lanes[i].process = w->process + i; /* numbers are left free for it */
    while (!atomic_load(&w->load->stop)) {
        rd_kafka_poll(x.producer, 2);
        for (int i = 0; i < n; i++) {
            struct lane *l = &lanes[i];

            if (l->busy && l->flight.left == 0)
                lane_done(&x, l);
            if (!l->busy && now_ns() >= l->due_ns) {
                l->due_ns = now_ns() + every_ns;
                lane_start(&x, l, KEY_STEADY + i);
            }
        }
        steady_renew(&x, lanes, n);
    }
    for (int i = 0; i < n; i++) {
        if (!lanes[i].busy)
            continue;
        flight_wait(&x, &lanes[i].flight);
        lane_done(&x, &lanes[i]);
    }
    rd_end(&x);
    mem_free(lanes);
    return true;
}

/* ---- the last reading
 * ----------------------------------------------------------- */

static void final_assign(void *arg, const int64_t *keys, size_t n)
{
    place_all(arg, keys, n);
}

static void final_poll(void *arg)
{
    op_poll(arg);
}

static void final_next(void *arg)
{
    new_process(arg);
}

bool rdkafka_final(struct worker *w)
{
    static const struct reading_ops ops = {final_assign, final_poll,
                                           final_next};
    struct rd x;
    bool ok =
        rd_begin(&x, w, false, false, true) && reading_to_ends(&x.r, &ops, &x);

    rd_end(&x);
    return ok;
}
