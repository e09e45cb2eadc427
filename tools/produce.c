#include "tools/produce.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/client.h"

const struct cli_option produce_options[] = {
    CLI_CLIENT_OPTIONS,
    {"file", 'l', "FILE", "read lines from it, not from standard input"},
    {"key-separator", 'K', "TEXT", "what ends the key of a line"},
    {"header", 'H', "NAME=VALUE", "a header of every record"},
    {"partition", 'p', "NUMBER", "of every record (default: by key)"},
    {"null", 'Z', NULL, "an empty value or key is null"},
    {"acks", 0, "0|1|all", "when a record counts as written (default all)"},
    {"compression", 'z', "CODEC", "none, gzip, snappy, lz4 or zstd"},
    {"verbose", 'v', NULL, "print partition and offset of every record"},
    CLI_WAIT_OPTION,
    {0}};

const char produce_more[] =
    "Every line is a record; the producer is idempotent unless --acks says "
    "less\nthan all. Example:\n"
    "  echo 'k1:hello' | flotilla produce greetings -K :\n";

struct producing {
    const struct cli *cli;
    rd_kafka_t *rk;
    rd_kafka_topic_t *topic;
    rd_kafka_headers_t *headers; /* NULL: none */
    int32_t partition;
    const char *separator;
    bool null, verbose;
    int64_t delivered, failed;
    rd_kafka_resp_err_t error; /* the first */
};

static void on_delivered(rd_kafka_t *rk, const rd_kafka_message_t *m, void *arg)
{
    struct producing *p = arg;
    (void)rk;
    if (m->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        p->error = p->failed++ == 0 ? m->err : p->error;
        return;
    }
    p->delivered++;
    if (p->verbose) {
        printf("%d %lld\n", (int)m->partition, (long long)m->offset);
    }
}

static rd_kafka_headers_t *read_headers(const struct cli *cli)
{
    rd_kafka_headers_t *headers = NULL;
    const char *text;
    for (int i = 0; (text = cli_value_at(cli, "header", i)) != NULL; i++) {
        char name[256];
        const char *value =
            cli_key_value(cli, "header", text, name, sizeof name);
        if (headers == NULL) {
            headers = rd_kafka_headers_new(8);
        }
        rd_kafka_header_add(headers, name, -1, value, -1);
    }
    return headers;
}

/* One record; waits while the queue is full. */
static void send_line(struct producing *p, char *line, size_t n)
{
    char *key = NULL, *value = line;
    size_t key_n = 0;
    char *sep = p->separator != NULL ? strstr(line, p->separator) : NULL;
    if (sep != NULL) {
        key = line;
        key_n = (size_t)(sep - line);
        value = sep + strlen(p->separator);
        n -= (size_t)(value - line);
    }
    if (p->null && key_n == 0) {
        key = NULL;
    }
    if (p->null && n == 0) {
        value = NULL;
    }
    for (;;) {
        rd_kafka_headers_t *headers =
            p->headers != NULL ? rd_kafka_headers_copy(p->headers) : NULL;
        rd_kafka_resp_err_t err = rd_kafka_producev(
            p->rk, RD_KAFKA_V_RKT(p->topic), RD_KAFKA_V_PARTITION(p->partition),
            RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
            RD_KAFKA_V_KEY(key, key_n), RD_KAFKA_V_VALUE(value, n),
            RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_END);
        if (err == RD_KAFKA_RESP_ERR_NO_ERROR) {
            return;
        }
        if (headers != NULL) {
            rd_kafka_headers_destroy(headers);
        }
        if (err != RD_KAFKA_RESP_ERR__QUEUE_FULL) {
            p->error = p->failed++ == 0 ? err : p->error;
            return;
        }
        rd_kafka_poll(p->rk, 100);
    }
}

static bool send_lines(struct producing *p, FILE *from)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    while ((n = getline(&line, &room, from)) >= 0) {
        if (n > 0 && line[n - 1] == '\n') {
            line[--n] = '\0';
        }
        send_line(p, line, (size_t)n);
        rd_kafka_poll(p->rk, 0);
    }
    free(line);
    return ferror(from) == 0;
}

static int finish(struct producing *p)
{
    rd_kafka_resp_err_t err = rd_kafka_flush(p->rk, client_timeout_ms(p->cli));
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return cli_fail(p->cli, EXIT_TIMED_OUT,
                        "%lld records are written, %d are not answered for "
                        "yet; asked %s.",
                        (long long)p->delivered, rd_kafka_outq_len(p->rk),
                        client_addresses(p->cli));
    }
    if (p->failed == 0) {
        return EXIT_DONE;
    }
    char what[128];
    snprintf(what, sizeof what, "%lld records are written, %lld are not",
             (long long)p->delivered, (long long)p->failed);
    int status = client_fail(p->cli, p->error, what, NULL);
    return p->delivered > 0 ? EXIT_PARTLY : status;
}

static rd_kafka_t *make_producer(struct producing *p)
{
    const struct cli *cli = p->cli;
    rd_kafka_conf_t *conf = client_conf(cli);
    const char *acks = cli_value(cli, "acks", "all");
    bool all = strcmp(acks, "all") == 0 || strcmp(acks, "-1") == 0;
    client_set(cli, conf, "acks", acks);
    client_set(cli, conf, "enable.idempotence", all ? "true" : "false");
    client_set(cli, conf, "compression.codec",
               cli_value(cli, "compression", "none"));
    client_set(cli, conf, "queue.buffering.max.ms", "5");
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivered);
    rd_kafka_conf_set_opaque(conf, p);
    return client_new(cli, RD_KAFKA_PRODUCER, conf);
}

int produce_run(struct cli *cli)
{
    struct producing p = {
        .cli = cli,
        .partition = (int32_t)cli_number(cli, "partition",
                                         RD_KAFKA_PARTITION_UA, 0, INT32_MAX),
        .separator = cli_value(cli, "key-separator", NULL),
        .null = cli_has(cli, "null"),
        .verbose = cli_has(cli, "verbose")};
    const char *path = cli_value(cli, "file", NULL);
    FILE *from = path != NULL ? fopen(path, "r") : stdin;
    if (from == NULL) {
        return cli_fail(cli, EXIT_FAILED, "Cannot read %s: %s.", path,
                        strerror(errno));
    }
    int status = EXIT_FAILED;
    p.headers = read_headers(cli);
    p.rk = make_producer(&p);
    /* a broker must be there before lines are swallowed */
    if (p.rk != NULL && client_reach(cli, p.rk, &status)) {
        /* made beforehand, it asks for its leaders at once and not at
         * librdkafka's next look at unknown topics, a second later */
        p.topic = rd_kafka_topic_new(p.rk, cli_argument(cli, 0), NULL);
        bool read = send_lines(&p, from);
        status = finish(&p);
        if (!read) {
            status = cli_fail(cli, EXIT_PARTLY, "Cannot read on: %s.",
                              strerror(errno));
        }
        rd_kafka_topic_destroy(p.topic);
    }
    if (p.rk != NULL) {
        rd_kafka_destroy(p.rk);
    }
    if (p.headers != NULL) {
        rd_kafka_headers_destroy(p.headers);
    }
    if (path != NULL) {
        fclose(from);
    }
    return status;
}
