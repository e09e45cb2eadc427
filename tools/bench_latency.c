/* One process produces at a steady rate and consumes the same records: the
 * time each is under way, and until it is acknowledged. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench.h"
#include "tools/client.h"
#include "tools/progress.h"

#define DRAIN_MS 10000 /* for what is still under way at the end */

const struct cli_option bench_latency_options[] = {
    CLI_CLIENT_OPTIONS,
    CLI_OUTPUT_OPTION,
    {"records", 'n', "COUNT", "how many records (default 10000)"},
    {"size", 's', "BYTES", "of a record's value (default 1024)"},
    {"rate", 'r', "PER-SECOND", "records a second (default 1000)"},
    {"acks", 0, "0|1|all", "when a record counts as written (default all)"},
    CLI_WAIT_OPTION,
    {0}};
const char bench_latency_more[] =
    "The producer does not linger (-X linger.ms=N changes that).\n";

/* What every record begins with. */
struct stamp {
    uint64_t run; /* tells ours from what else is in the topic */
    int64_t number;
};

struct series {
    int64_t n;
    uint32_t *us;
};

struct run {
    const struct cli *cli;
    rd_kafka_t *producer, *consumer;
    uint64_t id;
    int64_t wanted, failed;
    int64_t *sent_ns; /* by number */
    struct series acked, consumed;
    rd_kafka_resp_err_t error;
};

static void note(struct run *run, struct series *series, int64_t number)
{
    int64_t us = (bench_now_ns() - run->sent_ns[number]) / 1000;
    if (series->n < run->wanted) {
        series->us[series->n++] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
    }
}

static void on_acked(rd_kafka_t *rk, const rd_kafka_message_t *m, void *arg)
{
    struct run *run = arg;
    (void)rk;
    if (m->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        run->error = m->err;
        run->failed++;
        return;
    }
    int64_t number = (int64_t)(intptr_t)m->_private;
    if (number >= 0) {
        note(run, &run->acked, number);
    }
}

static void take(struct run *run, int timeout_ms)
{
    rd_kafka_message_t *m = rd_kafka_consumer_poll(run->consumer, timeout_ms);
    struct stamp stamp;
    if (m == NULL) {
        return;
    }
    if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR && m->len >= sizeof stamp) {
        memcpy(&stamp, m->payload, sizeof stamp);
        if (stamp.run == run->id && stamp.number >= 0 &&
            stamp.number < run->wanted) {
            note(run, &run->consumed, stamp.number);
        }
    }
    rd_kafka_message_destroy(m);
}

static int send_one(struct run *run, int64_t number, char *value, size_t size)
{
    struct stamp stamp = {.run = run->id, .number = number};
    memcpy(value, &stamp, sizeof stamp);
    run->sent_ns[number] = bench_now_ns();
    rd_kafka_resp_err_t err = rd_kafka_producev(
        run->producer, RD_KAFKA_V_TOPIC(cli_argument(run->cli, 0)),
        RD_KAFKA_V_VALUE(value, size), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
        RD_KAFKA_V_OPAQUE((void *)(intptr_t)number), RD_KAFKA_V_END);
    return err == RD_KAFKA_RESP_ERR_NO_ERROR
               ? EXIT_DONE
               : client_fail(run->cli, err, "Cannot produce", NULL);
}

/* One record to every partition: the client finds its leaders first. */
static int warm_up(struct run *run)
{
    rd_kafka_topic_partition_list_t *list = NULL;
    rd_kafka_resp_err_t err = rd_kafka_assignment(run->consumer, &list);
    for (int i = 0; err == RD_KAFKA_RESP_ERR_NO_ERROR && i < list->cnt; i++) {
        struct stamp stamp = {.run = 0};
        err = rd_kafka_producev(
            run->producer, RD_KAFKA_V_TOPIC(list->elems[i].topic),
            RD_KAFKA_V_PARTITION(list->elems[i].partition),
            RD_KAFKA_V_VALUE(&stamp, sizeof stamp),
            RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
            RD_KAFKA_V_OPAQUE((void *)(intptr_t)-1), RD_KAFKA_V_END);
    }
    if (list != NULL) {
        rd_kafka_topic_partition_list_destroy(list);
    }
    if (err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        err = rd_kafka_flush(run->producer, client_timeout_ms(run->cli));
    }
    return err == RD_KAFKA_RESP_ERR_NO_ERROR
               ? EXIT_DONE
               : client_fail(run->cli, err, "Cannot produce", NULL);
}

static int drive(struct run *run, size_t size, int64_t rate)
{
    char *value = bench_value(size);
    struct progress progress;
    progress_begin(&progress, run->wanted, true,
                   cli_output(run->cli) == OUTPUT_JSON);
    int64_t begun = bench_now_ns();
    int status = EXIT_DONE;
    for (int64_t i = 0; i < run->wanted && status == EXIT_DONE;) {
        if (i * 1000000000 / rate > bench_now_ns() - begun) {
            take(run, 0);
            rd_kafka_poll(run->producer, 0);
            progress_step(&progress, run->consumed.n, run->consumed.n);
            continue;
        }
        status = send_one(run, i++, value, size);
    }
    int64_t end = bench_now_ns() + (int64_t)DRAIN_MS * 1000000;
    while (status == EXIT_DONE && bench_now_ns() < end &&
           (run->acked.n + run->failed < run->wanted ||
            run->consumed.n < run->acked.n)) {
        take(run, 1);
        rd_kafka_poll(run->producer, 0);
    }
    progress_end(&progress);
    free(value);
    return status;
}

static void report_one(const struct run *run, const char *what,
                       struct series *s, bool last)
{
    static const double marks[] = {50, 95, 99, 99.9, 100};
    static const char *const names[] = {"p50", "p95", "p99", "p99.9", "max"};
    static const char *const keys[] = {"p50", "p95", "p99", "p99_9", "max"};
    bool json = cli_output(run->cli) == OUTPUT_JSON;
    bench_sort(s->us, s->n);
    if (json) {
        printf("\"%s\":{\"records\":%lld", what, (long long)s->n);
    } else {
        printf("%-12s %8lld records", what, (long long)s->n);
    }
    for (size_t i = 0; i < sizeof marks / sizeof *marks && s->n > 0; i++) {
        printf(json ? ",\"%s_ms\":%.3f" : ", %s %.2f ms",
               json ? keys[i] : names[i],
               bench_percentile(s->us, s->n, marks[i]));
    }
    printf(json ? "}%s" : "\n%s", json && !last ? "," : "");
}

static int report(struct run *run)
{
    bool json = cli_output(run->cli) == OUTPUT_JSON;
    printf("%s", json ? "{" : "");
    report_one(run, "acknowledged", &run->acked, false);
    report_one(run, "consumed", &run->consumed, true);
    printf("%s", json ? "}\n" : "");
    if (run->failed > 0) {
        return client_fail(run->cli, run->error, "Some records failed", NULL);
    }
    if (run->consumed.n < run->wanted) {
        return cli_fail(run->cli, EXIT_PARTLY,
                        "%lld of %lld records were not consumed in time.",
                        (long long)(run->wanted - run->consumed.n),
                        (long long)run->wanted);
    }
    return EXIT_DONE;
}

static rd_kafka_t *make_producer(struct run *run)
{
    const struct cli *cli = run->cli;
    rd_kafka_conf_t *conf = client_conf(cli);
    client_set(cli, conf, "linger.ms", "0");
    client_set_acks(cli, conf);
    rd_kafka_conf_set_dr_msg_cb(conf, on_acked);
    rd_kafka_conf_set_opaque(conf, run);
    return client_new(cli, RD_KAFKA_PRODUCER, conf);
}

/* At the ends of all partitions, and reading there. */
static int begin_reading(struct run *run)
{
    rd_kafka_conf_t *conf = client_conf(run->cli);
    client_set(run->cli, conf, "group.id", "flotilla-bench");
    client_set(run->cli, conf, "enable.auto.commit", "false");
    client_set(run->cli, conf, "enable.partition.eof", "true");
    client_set(run->cli, conf, "allow.auto.create.topics", "false");
    client_set(run->cli, conf, "fetch.wait.max.ms", "500");
    run->consumer = client_new(run->cli, RD_KAFKA_CONSUMER, conf);
    int status = EXIT_FAILED;
    if (run->consumer == NULL ||
        !client_reach(run->cli, run->consumer, &status)) {
        return status;
    }
    rd_kafka_poll_set_consumer(run->consumer);
    status = bench_assign(run->cli, run->consumer, RD_KAFKA_OFFSET_END);
    rd_kafka_topic_partition_list_t *list = NULL;
    if (status != EXIT_DONE || rd_kafka_assignment(run->consumer, &list) !=
                                   RD_KAFKA_RESP_ERR_NO_ERROR) {
        return status == EXIT_DONE ? EXIT_FAILED : status;
    }
    int left = list->cnt;
    rd_kafka_topic_partition_list_destroy(list);
    int64_t end =
        bench_now_ns() + (int64_t)client_timeout_ms(run->cli) * 1000000;
    while (left > 0 && bench_now_ns() < end) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(run->consumer, 100);
        if (m != NULL) {
            left -= m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF;
            rd_kafka_message_destroy(m);
        }
    }
    return left == 0
               ? EXIT_DONE
               : cli_fail(run->cli, EXIT_TIMED_OUT,
                          "The ends of %d partitions were not reached.", left);
}

int bench_latency_run(struct cli *cli)
{
    struct run run = {.cli = cli,
                      .id = (uint64_t)bench_now_ns(),
                      .wanted = cli_number(cli, "records", 10000, 1, 10000000)};
    size_t size =
        (size_t)cli_number(cli, "size", 1024, sizeof(struct stamp), 100000000);
    int64_t rate = cli_number(cli, "rate", 1000, 1, 1000000);
    cli_output(cli);
    int status = begin_reading(&run);
    run.producer = status == EXIT_DONE ? make_producer(&run) : NULL;
    if (run.producer != NULL) {
        size_t n = (size_t)run.wanted;
        run.sent_ns = calloc(n, sizeof *run.sent_ns);
        run.acked.us = calloc(n, sizeof(uint32_t));
        run.consumed.us = calloc(n, sizeof(uint32_t));
        status = warm_up(&run);
        if (status == EXIT_DONE) {
            status = drive(&run, size, rate);
        }
        if (status == EXIT_DONE) {
            status = report(&run);
        }
        rd_kafka_destroy(run.producer);
        free(run.sent_ns);
        free(run.acked.us);
        free(run.consumed.us);
    }
    if (run.consumer != NULL) {
        rd_kafka_consumer_close(run.consumer);
        rd_kafka_destroy(run.consumer);
    }
    return status;
}
