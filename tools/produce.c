#include "tools/produce.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/client.h"
#include "tools/output.h"
#include "tools/progress.h"

const struct cli_option produce_options[] = {
    CLI_CLIENT_OPTIONS,
    {"file", 'l', "FILE", "read lines from it, not from standard input"},
    {"key-separator", 'K', "TEXT", "what ends the key of a line"},
    {"header", 'H', "NAME=VALUE", "a header of every record"},
    {"partition", 'p', "NUMBER", "of every record (default: by key)"},
    {"json", 'j', NULL, "every line is a JSON object, as consume --json has"},
    {"null", 'Z', NULL, "an empty value or key is null"},
    {"acks", 0, "0|1|all", "when a record counts as written (default all)"},
    {"compression", 'z', "none|gzip|snappy|lz4|zstd",
     "how batches are packed (default none)"},
    {"verbose", 'v', NULL, "print partition and offset of every record"},
    CLI_WAIT_OPTION,
    {0}};

const char produce_more[] =
    "Every line is a record; the producer is idempotent unless --acks says "
    "less\nthan all. With --json the fields key, value, headers (a list of "
    "[name, value])\nand partition count, all may be missing; null is null, "
    "\"base64:...\" is bytes,\nanother JSON value is written as its text. "
    "What else consume --json has (topic,\noffset, timestamp) is passed over. "
    "Examples:\n"
    "  echo 'k1:hello' | flotilla produce greetings -K :\n"
    "  echo '{\"key\":\"k1\",\"value\":{\"n\":1}}' | flotilla produce "
    "greetings --json\n"
    "  flotilla consume greetings -e --json | flotilla produce copy --json\n";

struct producing {
    const struct cli *cli;
    rd_kafka_t *rk;
    rd_kafka_topic_t *topic;
    rd_kafka_headers_t *headers; /* NULL: none */
    int32_t partition;
    const char *separator;
    bool null, verbose, json;
    struct progress progress;
    int64_t read; /* bytes of the input */
    int64_t delivered, failed;
    rd_kafka_resp_err_t error; /* the first */
    char why[300];             /* a line is no record */
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

struct record {
    const void *key, *value;
    size_t key_n, value_n;
    rd_kafka_headers_t *headers; /* NULL: none; taken over by send_record */
    int32_t partition;
};

/* Waits while the queue is full. */
static void send_record(struct producing *p, const struct record *r)
{
    rd_kafka_resp_err_t err;
    do {
        err = rd_kafka_producev(
            p->rk, RD_KAFKA_V_RKT(p->topic), RD_KAFKA_V_PARTITION(r->partition),
            RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
            RD_KAFKA_V_KEY((void *)(uintptr_t)r->key, r->key_n),
            RD_KAFKA_V_VALUE((void *)(uintptr_t)r->value, r->value_n),
            RD_KAFKA_V_HEADERS(r->headers), RD_KAFKA_V_END);
        rd_kafka_poll(p->rk, err == RD_KAFKA_RESP_ERR__QUEUE_FULL ? 100 : 0);
    } while (err == RD_KAFKA_RESP_ERR__QUEUE_FULL);
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        if (r->headers != NULL) {
            rd_kafka_headers_destroy(r->headers);
        }
        p->error = p->failed++ == 0 ? err : p->error;
    }
}

static bool send_text(struct producing *p, char *line, size_t n)
{
    struct record r = {.value = line, .partition = p->partition};
    /* bytes, not text: there may be zeros */
    char *sep = p->separator != NULL
                    ? memmem(line, n, p->separator, strlen(p->separator))
                    : NULL;
    if (sep != NULL) {
        r.key = line;
        r.key_n = (size_t)(sep - line);
        r.value = sep + strlen(p->separator);
        n -= (size_t)((const char *)r.value - line);
    }
    r.value_n = n;
    if (p->null && r.key_n == 0) {
        r.key = NULL;
    }
    if (p->null && n == 0) {
        r.value = NULL;
    }
    r.headers = p->headers != NULL ? rd_kafka_headers_copy(p->headers) : NULL;
    send_record(p, &r);
    return true;
}

static bool add_header(const char *name, json_t *value, rd_kafka_headers_t *out)
{
    void *data = NULL;
    size_t n = 0;
    bool ok =
        name != NULL && value != NULL && output_bytes_read(value, &data, &n);
    if (ok) {
        rd_kafka_header_add(out, name, -1, data, data == NULL ? 0 : (ssize_t)n);
    }
    free(data);
    return ok;
}

/* A list of [name, value], or an object; false: it is something else. */
static bool json_headers(json_t *list, rd_kafka_headers_t *out)
{
    size_t i;
    const char *name;
    json_t *item;
    bool ok = list == NULL || json_is_array(list) || json_is_object(list);
    json_array_foreach(list, i, item)
    {
        ok = ok && json_array_size(item) == 2 &&
             add_header(json_string_value(json_array_get(item, 0)),
                        json_array_get(item, 1), out);
    }
    json_object_foreach(list, name, item)
    {
        ok = ok && add_header(name, item, out);
    }
    return ok;
}

/* A field that is meant, but written in another way, would be lost. */
static bool fields_known(json_t *object, char *why, size_t why_size)
{
    static const char known[] =
        " key value headers partition topic offset timestamp ";
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value)
    {
        char word[40];
        int n = snprintf(word, sizeof word, " %s ", name);
        if (n >= (int)sizeof word || strstr(known, word) == NULL) {
            snprintf(why, why_size,
                     "there is no field %.60s; those that count are key, "
                     "value, headers and partition",
                     name);
            return false;
        }
    }
    return true;
}

/* Reads the fields into `r`; `key` and `value` are the caller's to free. False:
 * `why`. */
static bool read_json(json_t *object, struct record *r, void **key,
                      void **value, char *why, size_t why_size)
{
    json_t *k = json_object_get(object, "key");
    json_t *v = json_object_get(object, "value");
    json_t *partition = json_object_get(object, "partition");
    if (!json_is_object(object)) {
        snprintf(why, why_size, "it is no JSON object");
        return false;
    }
    if (!fields_known(object, why, why_size)) {
        return false;
    }
    const char *wrong =
        k != NULL && !output_bytes_read(k, key, &r->key_n)       ? "key"
        : v != NULL && !output_bytes_read(v, value, &r->value_n) ? "value"
        : partition != NULL && (!json_is_integer(partition) ||
                                json_integer_value(partition) < 0 ||
                                json_integer_value(partition) > INT32_MAX)
            ? "partition"
        : !json_headers(json_object_get(object, "headers"), r->headers)
            ? "headers"
            : NULL;
    if (wrong != NULL) {
        snprintf(why, why_size, "its %s cannot be read", wrong);
        return false;
    }
    r->key = *key;
    r->value = *value;
    if (r->partition == RD_KAFKA_PARTITION_UA && partition != NULL) {
        r->partition = (int32_t)json_integer_value(partition);
    }
    return true;
}

static bool send_json(struct producing *p, char *line, size_t n)
{
    void *key = NULL, *value = NULL;
    json_error_t error;
    if (strspn(line, " \t\r") == n) {
        return true; /* an empty line is no record */
    }
    json_t *object = json_loadb(line, n, JSON_DECODE_ANY, &error);
    struct record r = {.partition = p->partition};
    r.headers = p->headers != NULL ? rd_kafka_headers_copy(p->headers)
                                   : rd_kafka_headers_new(4);
    bool ok = object != NULL;
    if (!ok) {
        snprintf(p->why, sizeof p->why, "%s, at its byte %d", error.text,
                 error.position);
    }
    ok = ok && read_json(object, &r, &key, &value, p->why, sizeof p->why);
    if (ok) {
        send_record(p, &r);
    } else {
        rd_kafka_headers_destroy(r.headers);
    }
    free(key);
    free(value);
    json_decref(object);
    return ok;
}

/* How far the input has been read, when it is a file. */
static void begin_progress(struct producing *p, FILE *from)
{
    struct stat st;
    bool known = fstat(fileno(from), &st) == 0 && S_ISREG(st.st_mode);
    bool typed = isatty(fileno(from)) || (p->verbose && isatty(STDOUT_FILENO));
    progress_begin(&p->progress, known ? (int64_t)st.st_size : -1, !typed,
                   false);
}

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signo)
{
    (void)signo;
    interrupted = 1;
}

/* Ctrl-C ends the input, what was read is written; a second one ends all. */
static void catch_interrupts(void)
{
    struct sigaction act = {.sa_handler = on_interrupt,
                            .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
}

/* False: a line cannot be read, or is no record; a sentence was printed. */
static bool send_lines(struct producing *p, FILE *from)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    bool ok = true;
    long long number = 0;
    begin_progress(p, from);
    catch_interrupts();
    while (ok && !interrupted && (n = getline(&line, &room, from)) >= 0) {
        number++;
        p->read += n;
        if (n > 0 && line[n - 1] == '\n') {
            line[--n] = '\0';
        }
        ok = p->json ? send_json(p, line, (size_t)n)
                     : send_text(p, line, (size_t)n);
        progress_step(&p->progress, p->read, p->delivered);
    }
    free(line);
    if (!ok) {
        cli_fail(p->cli, EXIT_FAILED,
                 "Line %lld is no record (%s); it and those after it are not "
                 "written.",
                 number, p->why);
    } else if (ferror(from) != 0 && !interrupted) {
        cli_fail(p->cli, EXIT_FAILED, "Cannot read on: %s.", strerror(errno));
        ok = false;
    }
    return ok;
}

static int finish(struct producing *p)
{
    rd_kafka_resp_err_t err = rd_kafka_flush(p->rk, client_timeout_ms(p->cli));
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return cli_fail(p->cli, EXIT_TIMED_OUT,
                        "%lld records are written, %d are not answered for "
                        "yet; asked %s for %d s (--wait). Is there room on the "
                        "brokers' disks, and are most of them up (`flotilla "
                        "cluster health`)?",
                        (long long)p->delivered, rd_kafka_outq_len(p->rk),
                        client_addresses(p->cli),
                        client_timeout_ms(p->cli) / 1000);
    }
    if (p->failed == 0) {
        return EXIT_DONE;
    }
    char what[128];
    snprintf(what, sizeof what, "%lld of %lld records were not written",
             (long long)p->failed, (long long)(p->failed + p->delivered));
    int status = client_fail(p->cli, p->error, what, NULL);
    if (p->error == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE) {
        cli_fail(p->cli, status,
                 "How large a record may be: message.max.bytes of the client "
                 "(-X, default 1000000) and max.message.bytes of the topic "
                 "(`flotilla config get --topic %s max.message.bytes`).",
                 cli_argument(p->cli, 0));
    }
    return p->delivered > 0 ? EXIT_PARTLY : status;
}

static rd_kafka_t *make_producer(struct producing *p)
{
    const struct cli *cli = p->cli;
    rd_kafka_conf_t *conf = client_conf(cli);
    client_set_acks(cli, conf);
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
        .verbose = cli_has(cli, "verbose"),
        .json = cli_has(cli, "json")};
    if (cli_argument(cli, 0)[0] == '\0') {
        cli_usage(cli, "Expected the name of a topic.");
    }
    if (p.separator != NULL && p.separator[0] == '\0') {
        cli_usage(cli, "--key-separator: expected a text.");
    }
    if (p.json && (p.separator != NULL || p.null)) {
        cli_usage(cli, "--json says key and null by itself.");
    }
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
        progress_end(&p.progress);
        if (!read) {
            status = p.delivered > 0 ? EXIT_PARTLY : EXIT_FAILED;
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
