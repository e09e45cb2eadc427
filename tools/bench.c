#include "tools/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/client.h"
#include "tools/progress.h"

#define POLL_MS 100
#define GAPS_MAX 4096
#define SILENCE_MS 10000 /* a consumer that gets nothing for so long ends */

const struct cli_option bench_produce_options[] = {
    CLI_CLIENT_OPTIONS,
    CLI_OUTPUT_OPTION,
    {"records", 'n', "COUNT", "how many records (default 100000)"},
    {"size", 's', "BYTES", "of a record's value (default 1024)"},
    {"rate", 'r', "PER-SECOND", "at most so many a second (default: all out)"},
    {"acks", 0, "0|1|all", "when a record counts as written (default all)"},
    CLI_WAIT_OPTION,
    {0}};

const struct cli_option bench_consume_options[] = {
    CLI_CLIENT_OPTIONS,
    CLI_OUTPUT_OPTION,
    {"records", 'n', "COUNT", "end after so many (default 100000)"},
    CLI_WAIT_OPTION,
    {0}};

const char bench_produce_more[] =
    "A latency is the time from handing a record to the client until it is\n"
    "acknowledged. Client properties: -X batch.size=262144 -X linger.ms=0.\n";

struct load {
    const struct cli *cli;
    int64_t wanted, acked, failed;
    int64_t last_ack_ns, longest_gap_ns;
    /* by partition, for those with a number below GAPS_MAX */
    int64_t *partition_ack_ns, partition_gap_ns;
    uint32_t *latencies_us; /* in the order of acknowledgement */
    rd_kafka_resp_err_t error;
    struct progress progress;
};

int64_t bench_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void gap(int64_t *last_ns, int64_t *longest_ns, int64_t now)
{
    if (*last_ns != 0 && now - *last_ns > *longest_ns) {
        *longest_ns = now - *last_ns;
    }
    *last_ns = now;
}

static void on_acked(rd_kafka_t *rk, const rd_kafka_message_t *m, void *arg)
{
    struct load *load = arg;
    (void)rk;
    if (m->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        load->error = m->err;
        load->failed++;
        return;
    }
    int64_t now = bench_now_ns();
    int64_t begun = (int64_t)(intptr_t)m->_private;
    int64_t us = (now - begun) / 1000;
    load->latencies_us[load->acked++] =
        us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
    gap(&load->last_ack_ns, &load->longest_gap_ns, now);
    if (m->partition >= 0 && m->partition < GAPS_MAX) {
        gap(&load->partition_ack_ns[m->partition], &load->partition_gap_ns,
            now);
    }
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

void bench_sort(uint32_t *latencies, int64_t n)
{
    qsort(latencies, (size_t)n, sizeof *latencies, by_size);
}

double bench_percentile(const uint32_t *sorted, int64_t n, double p)
{
    int64_t at = (int64_t)((double)n * p / 100.0);
    return sorted[at < n ? at : n - 1] / 1000.0;
}

char *bench_value(size_t size)
{
    char *value = malloc(size);
    for (size_t i = 0; i < size; i++) { /* not to be guessed by a disk */
        value[i] = (char)('!' + (i * 2654435761u >> 7) % 90);
    }
    return value;
}

/* Also while the last records are on their way. */
static rd_kafka_resp_err_t flush(struct load *load, rd_kafka_t *rk)
{
    int64_t end =
        bench_now_ns() + (int64_t)client_timeout_ms(load->cli) * 1000000;
    rd_kafka_resp_err_t err;
    do {
        err = rd_kafka_flush(rk, POLL_MS);
        progress_step(&load->progress, load->acked, load->acked);
    } while (err == RD_KAFKA_RESP_ERR__TIMED_OUT && bench_now_ns() < end);
    return err;
}

static int send_all(struct load *load, rd_kafka_t *rk, const char *value,
                    size_t size, int64_t rate)
{
    int64_t begun = bench_now_ns();
    for (int64_t i = 0; i < load->wanted;) {
        int64_t now = bench_now_ns();
        if (rate > 0 && i > (now - begun) * rate / 1000000000) {
            rd_kafka_poll(rk, 1);
            continue;
        }
        rd_kafka_resp_err_t err = rd_kafka_producev(
            rk, RD_KAFKA_V_TOPIC(cli_argument(load->cli, 0)),
            RD_KAFKA_V_VALUE((void *)(uintptr_t)value, size),
            RD_KAFKA_V_MSGFLAGS(0), RD_KAFKA_V_OPAQUE((void *)(intptr_t)now),
            RD_KAFKA_V_END);
        if (err == RD_KAFKA_RESP_ERR__QUEUE_FULL) {
            rd_kafka_poll(rk, 10);
            continue;
        }
        if (err != RD_KAFKA_RESP_ERR_NO_ERROR) {
            return client_fail(load->cli, err, "Cannot produce", NULL);
        }
        i++;
        rd_kafka_poll(rk, 0);
        progress_step(&load->progress, load->acked, load->acked);
    }
    return EXIT_DONE;
}

static void report_produce(struct load *load, size_t size, double seconds)
{
    int64_t n = load->acked;
    uint32_t *l = load->latencies_us;
    double rate = (double)n / seconds;
    double mb = rate * (double)size / 1e6;
    bench_sort(l, n);
    double p50 = bench_percentile(l, n, 50), p95 = bench_percentile(l, n, 95);
    double p99 = bench_percentile(l, n, 99),
           p999 = bench_percentile(l, n, 99.9);
    double gap_ms = (double)load->longest_gap_ns / 1e6;
    double partition_gap_ms = (double)load->partition_gap_ns / 1e6;
    if (cli_output(load->cli) == OUTPUT_JSON) {
        printf(
            "{\"records\":%lld,\"failed\":%lld,\"seconds\":%.3f,"
            "\"records_per_second\":%.0f,\"mb_per_second\":%.2f,"
            "\"p50_ms\":%.3f,\"p95_ms\":%.3f,\"p99_ms\":%.3f,"
            "\"p99_9_ms\":%.3f,\"longest_gap_ms\":%.3f,"
            "\"longest_partition_gap_ms\":%.3f}\n",
            (long long)n, (long long)load->failed, seconds, rate, mb, p50, p95,
            p99, p999, gap_ms, partition_gap_ms);
        return;
    }
    printf(
        "%lld records in %.2f s: %.0f records/s, %.1f MB/s\n"
        "latency ms: p50 %.2f, p95 %.2f, p99 %.2f, p99.9 %.2f; longest "
        "time between two acknowledgements %.1f, of any one partition %.1f\n",
        (long long)n, seconds, rate, mb, p50, p95, p99, p999, gap_ms,
        partition_gap_ms);
}

int bench_produce_run(struct cli *cli)
{
    struct load load = {
        .cli = cli,
        .wanted = cli_number(cli, "records", 100000, 1, 1000000000)};
    size_t size = (size_t)cli_number(cli, "size", 1024, 1, 100000000);
    int64_t rate = cli_number(cli, "rate", 0, 0, 100000000);
    rd_kafka_conf_t *conf = client_conf(cli);
    client_set_acks(cli, conf);
    rd_kafka_conf_set_dr_msg_cb(conf, on_acked);
    rd_kafka_conf_set_opaque(conf, &load);
    rd_kafka_t *rk = client_new(cli, RD_KAFKA_PRODUCER, conf);
    int status = EXIT_FAILED;
    if (rk == NULL || !client_reach(cli, rk, &status)) {
        return status;
    }
    char *value = bench_value(size);
    load.latencies_us = calloc((size_t)load.wanted, sizeof(uint32_t));
    load.partition_ack_ns = calloc(GAPS_MAX, sizeof(int64_t));
    progress_begin(&load.progress, load.wanted, true,
                   cli_output(cli) == OUTPUT_JSON);
    int64_t begun = bench_now_ns();
    status = send_all(&load, rk, value, size, rate);
    if (status == EXIT_DONE && flush(&load, rk) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        status = cli_fail(cli, EXIT_TIMED_OUT,
                          "%lld records are acknowledged, the others not in "
                          "time; asked %s.",
                          (long long)load.acked, client_addresses(cli));
    }
    double seconds = (double)(bench_now_ns() - begun) / 1e9;
    progress_end(&load.progress);
    if (load.acked > 0) {
        report_produce(&load, size, seconds);
    }
    if (status == EXIT_DONE && load.failed > 0) {
        status = client_fail(cli, load.error, "Some records failed", NULL);
    }
    rd_kafka_destroy(rk);
    free(load.latencies_us);
    free(load.partition_ack_ns);
    free(value);
    return status;
}

int bench_assign(const struct cli *cli, rd_kafka_t *rk, int64_t offset)
{
    const struct rd_kafka_metadata *md = NULL;
    rd_kafka_topic_t *rkt = rd_kafka_topic_new(rk, cli_argument(cli, 0), NULL);
    rd_kafka_resp_err_t err =
        rd_kafka_metadata(rk, 0, rkt, &md, client_timeout_ms(cli));
    rd_kafka_topic_destroy(rkt);
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR || md->topic_cnt != 1 ||
        md->topics[0].err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return client_fail(cli,
                           err != RD_KAFKA_RESP_ERR_NO_ERROR
                               ? err
                               : RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
                           "Cannot find the topic", NULL);
    }
    rd_kafka_topic_partition_list_t *list =
        rd_kafka_topic_partition_list_new(md->topics[0].partition_cnt);
    for (int i = 0; i < md->topics[0].partition_cnt; i++) {
        rd_kafka_topic_partition_list_add(list, cli_argument(cli, 0), i)
            ->offset = offset;
    }
    rd_kafka_assign(rk, list);
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_metadata_destroy(md);
    return EXIT_DONE;
}

static void report_consume(const struct cli *cli, int64_t n, int64_t bytes,
                           double seconds)
{
    double rate = (double)n / seconds;
    double mb = (double)bytes / seconds / 1e6;
    if (cli_output(cli) == OUTPUT_JSON) {
        printf(
            "{\"records\":%lld,\"seconds\":%.3f,"
            "\"records_per_second\":%.0f,\"mb_per_second\":%.2f}\n",
            (long long)n, seconds, rate, mb);
        return;
    }
    printf("%lld records in %.2f s: %.0f records/s, %.1f MB/s\n", (long long)n,
           seconds, rate, mb);
}

int bench_consume_run(struct cli *cli)
{
    int64_t wanted = cli_number(cli, "records", 100000, 1, 1000000000);
    rd_kafka_conf_t *conf = client_conf(cli);
    client_set(cli, conf, "group.id", "flotilla-bench");
    client_set(cli, conf, "enable.auto.commit", "false");
    client_set(cli, conf, "allow.auto.create.topics", "false");
    rd_kafka_t *rk = client_new(cli, RD_KAFKA_CONSUMER, conf);
    int status = EXIT_FAILED;
    if (rk == NULL || !client_reach(cli, rk, &status)) {
        return status;
    }
    rd_kafka_poll_set_consumer(rk);
    status = bench_assign(cli, rk, RD_KAFKA_OFFSET_BEGINNING);
    struct progress progress;
    progress_begin(&progress, wanted, true, cli_output(cli) == OUTPUT_JSON);
    int64_t n = 0, bytes = 0, begun = bench_now_ns(), last = begun;
    while (status == EXIT_DONE && n < wanted &&
           bench_now_ns() - last < (int64_t)SILENCE_MS * 1000000) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(rk, POLL_MS);
        if (m == NULL) {
            continue;
        }
        if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
            begun = n == 0 ? bench_now_ns() : begun;
            n++;
            bytes += (int64_t)(m->len + m->key_len);
            last = bench_now_ns();
            progress_step(&progress, n, n);
        }
        rd_kafka_message_destroy(m);
    }
    progress_end(&progress);
    if (status == EXIT_DONE) {
        report_consume(cli, n, bytes, (double)(last - begun) / 1e9);
        if (n < wanted) {
            status = cli_fail(cli, EXIT_PARTLY,
                              "Only %lld of %lld records were there.",
                              (long long)n, (long long)wanted);
        }
    }
    rd_kafka_consumer_close(rk);
    rd_kafka_destroy(rk);
    return status;
}
