#include "tools/consume.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "tools/client.h"
#include "tools/output.h"
#include "tools/progress.h"
#include "tools/where.h"

const struct cli_option consume_options[] = {
    CLI_CLIENT_OPTIONS,
    {"offset", 'o', "WHERE", WHERE_WORDS " (default beginning)"},
    {"partition", 'p', "NUMBER", "only this one"},
    {"exit", 'e', NULL, "end when everything there is has been read"},
    {"count", 'n', "COUNT", "end after this many records"},
    {"group", 'g', "GROUP", "read as a member of this group and commit"},
    {"format", 'f', "FORMAT", "of a record (default '%v\\n')"},
    {"json", 'j', NULL, "one JSON object a line"},
    CLI_WAIT_OPTION,
    {0}};

const char consume_more[] =
    "FORMAT knows %k key, %v value, %t topic, %p partition, %o offset,\n"
    "%T timestamp in milliseconds, %h headers, %%, \\n, \\t, \\\\. A null is "
    "printed as\nnothing.\n" WHERE_TIMES
    "With --group, --offset is beginning or end: where a group begins that "
    "has\ncommitted nothing. Examples:\n"
    "  flotilla consume orders -o -5 -e\n"
    "  flotilla consume orders -o @-1h -e -f '%p %o %k %v\\n'\n"
    "  flotilla consume orders -g billing\n";

#define COMMIT_S 5 /* a group's offsets, so often */

struct consuming {
    const struct cli *cli;
    rd_kafka_t *rk;
    const char *topic;
    const char *format;
    bool json, exit_at_end;
    int64_t left; /* records; -1: no limit */
    int64_t n;    /* records printed */
    struct progress progress;
    bool ended;
    bool assigned;      /* this member has got its share, maybe nothing */
    double committed_s; /* when offsets were last committed */
    /* partitions read, and which of them have been at their end */
    int n_partitions;
    int32_t *partitions;
    bool *at_end;
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signo)
{
    (void)signo;
    interrupted = 1;
}

/* ---- printing ------------------------------------------------------------ */

static json_t *headers_json(const rd_kafka_message_t *m)
{
    rd_kafka_headers_t *headers;
    json_t *list = json_array();
    if (rd_kafka_message_headers(m, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return list;
    }
    const char *name;
    const void *value;
    size_t size;
    for (size_t i = 0;
         rd_kafka_header_get_all(headers, i, &name, &value, &size) ==
         RD_KAFKA_RESP_ERR_NO_ERROR;
         i++) {
        json_array_append_new(
            list, json_pack("[s, o]", name, output_bytes(value, size)));
    }
    return list;
}

static void print_json(const struct consuming *c, const rd_kafka_message_t *m)
{
    json_t *record = json_pack(
        "{s:s, s:i, s:I, s:I, s:o, s:o, s:o}", "topic", c->topic, "partition",
        (int)m->partition, "offset", (json_int_t)m->offset, "timestamp",
        (json_int_t)rd_kafka_message_timestamp(m, NULL), "key",
        output_bytes(m->key, m->key_len), "value",
        output_bytes(m->payload, m->len), "headers", headers_json(m));
    json_dumpf(record, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(record);
}

static void print_headers(const rd_kafka_message_t *m)
{
    rd_kafka_headers_t *headers;
    const char *name;
    const void *value;
    size_t size;
    if (rd_kafka_message_headers(m, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return;
    }
    for (size_t i = 0;
         rd_kafka_header_get_all(headers, i, &name, &value, &size) ==
         RD_KAFKA_RESP_ERR_NO_ERROR;
         i++) {
        printf("%s%s=%.*s", i > 0 ? "," : "", name, (int)size,
               value != NULL ? (const char *)value : "");
    }
}

static void print_bytes(const void *data, size_t size)
{
    if (data != NULL) {
        fwrite(data, 1, size, stdout);
    }
}

static void print_verb(const struct consuming *c, const rd_kafka_message_t *m,
                       char verb)
{
    switch (verb) {
        case 'k':
            print_bytes(m->key, m->key_len);
            return;
        case 'v':
        case 's':
            print_bytes(m->payload, m->len);
            return;
        case 't':
            fputs(c->topic, stdout);
            return;
        case 'p':
            printf("%d", (int)m->partition);
            return;
        case 'o':
            printf("%" PRId64, m->offset);
            return;
        case 'T':
            printf("%" PRId64, rd_kafka_message_timestamp(m, NULL));
            return;
        case 'h':
            print_headers(m);
            return;
        default:
            putchar(verb);
            return;
    }
}

static void print_record(const struct consuming *c, const rd_kafka_message_t *m)
{
    if (c->json) {
        print_json(c, m);
        return;
    }
    for (const char *f = c->format; *f != '\0'; f++) {
        if (*f == '%' && f[1] != '\0') {
            print_verb(c, m, *++f);
        } else if (*f == '\\' && f[1] != '\0') {
            f++;
            putchar(*f == 'n' ? '\n' : *f == 't' ? '\t' : *f);
        } else {
            putchar(*f);
        }
    }
}

static void check_format(const struct consuming *c)
{
    for (const char *f = c->format; *f != '\0'; f++) {
        if (*f == '%' && (f[1] == '\0' || strchr("kvstpoTh%", f[1]) == NULL)) {
            if (f[1] == '\0') {
                cli_usage(c->cli, "--format %s: what ends in %% needs %%%%.",
                          c->format);
            }
            cli_usage(c->cli, "--format %s: there is no %%%c.", c->format,
                      f[1]);
        }
        f += *f == '%';
    }
}

/* ---- where to begin ------------------------------------------------------ */

static int find_partitions(struct consuming *c)
{
    int status;
    const struct rd_kafka_metadata *m = client_metadata(c->cli, c->rk, &status);
    if (m == NULL) {
        return status;
    }
    const struct rd_kafka_metadata_topic *t = client_find_topic(m, c->topic);
    int64_t only = cli_number(c->cli, "partition", -1, 0, INT32_MAX);
    if (t == NULL) {
        status = client_no_topic(c->cli, c->topic);
    } else if (only >= t->partition_cnt) {
        status = cli_fail(c->cli, EXIT_NOT_FOUND,
                          "Topic %s has %d partitions, so there is no %d.",
                          c->topic, t->partition_cnt, (int)only);
    } else {
        c->n_partitions = only >= 0 ? 1 : t->partition_cnt;
        c->partitions =
            mem_zalloc((size_t)c->n_partitions * sizeof *c->partitions);
        c->at_end = mem_zalloc((size_t)c->n_partitions * sizeof *c->at_end);
        for (int i = 0; i < c->n_partitions; i++) {
            c->partitions[i] = only >= 0 ? (int32_t)only : (int32_t)i;
        }
    }
    rd_kafka_metadata_destroy(m);
    return status;
}

/* ---- reading ------------------------------------------------------------- */

/* Marks a partition whose end was reached, though more may come then: what is
 * written all the time would never end. True when all that are read have been
 * at theirs. */
static bool reached_end(struct consuming *c, int32_t partition)
{
    bool all = true;
    for (int i = 0; i < c->n_partitions; i++) {
        if (c->partitions[i] == partition) {
            c->at_end[i] = true;
        }
        all = all && c->at_end[i];
    }
    return all;
}

/* Handles one message; true: the end. */
static bool take(struct consuming *c, const rd_kafka_message_t *m, int *status)
{
    if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
        return reached_end(c, m->partition) && c->exit_at_end;
    }
    if (m->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        char what[300];
        snprintf(what, sizeof what, "Partition %d of %s cannot be read",
                 (int)m->partition, c->topic);
        *status = client_fail(c->cli, m->err, what, rd_kafka_message_errstr(m));
        return true;
    }
    print_record(c, m);
    c->n++;
    progress_step(&c->progress, c->n, c->n);
    if (ferror(stdout) != 0 && cli_output_fails()) {
        *status = EXIT_FAILED;
        return true;
    }
    return c->left > 0 && --c->left == 0;
}

/* How many records there are to read, for people who wait; -1: no end. */
static int64_t count_wanted(const struct consuming *c, rd_kafka_t *rk,
                            const rd_kafka_topic_partition_list_t *from)
{
    rd_kafka_topic_partition_list_t *ends =
        rd_kafka_topic_partition_list_copy(from);
    rd_kafka_topic_partition_list_t *begins =
        rd_kafka_topic_partition_list_copy(from);
    int64_t sum = 0;
    struct where where = where_option(c->cli, "offset", "beginning");
    bool known = c->exit_at_end &&
                 where_resolve(c->cli, rk, (struct where){.kind = WHERE_END},
                               ends) == EXIT_DONE &&
                 where_resolve(c->cli, rk, where, begins) == EXIT_DONE;
    for (int i = 0; known && i < ends->cnt; i++) {
        sum += ends->elems[i].offset - begins->elems[i].offset;
    }
    rd_kafka_topic_partition_list_destroy(ends);
    rd_kafka_topic_partition_list_destroy(begins);
    return c->left > 0 && (!known || c->left < sum) ? c->left
           : known                                  ? sum
                                                    : -1;
}

static void begin_progress(struct consuming *c,
                           const rd_kafka_topic_partition_list_t *from)
{
    bool shown = isatty(STDERR_FILENO) && !isatty(STDOUT_FILENO);
    int64_t total =
        shown && from != NULL ? count_wanted(c, c->rk, from) : c->left;
    progress_begin(&c->progress, total, shown, false);
}

/* An offset that a partition does not have is moved to the nearest that it
 * has; the one partition that is named should have it. */
static int resolve(struct consuming *c, struct where where,
                   rd_kafka_topic_partition_list_t *list)
{
    int status = EXIT_DONE;
    if (where.kind == WHERE_TIME || where.kind == WHERE_AT) {
        status = where_resolve(c->cli, c->rk, where, list);
    }
    if (status == EXIT_DONE && where.kind == WHERE_AT &&
        cli_has(c->cli, "partition") && list->elems[0].offset != where.n) {
        bool gone = list->elems[0].offset > where.n;
        int32_t partition = list->elems[0].partition;
        long long at = (long long)list->elems[0].offset;
        if (!gone) {
            return cli_fail(c->cli, EXIT_NOT_FOUND,
                            "Partition %d of %s has no offset %lld: it ends "
                            "at %lld.",
                            (int)partition, c->topic, (long long)where.n, at);
        }
        cli_fail(c->cli, EXIT_DONE,
                 "What was before offset %lld of partition %d is deleted; "
                 "reading begins there.",
                 at, (int)partition);
    }
    return status;
}

/* From now on Ctrl-C, or a reader who has enough, ends in order: a member
 * leaves its group. A second one ends at once. */
static void catch_interrupts(void)
{
    struct sigaction act = {.sa_handler = on_interrupt,
                            .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* All partitions, without a group. */
static int read_plain(struct consuming *c)
{
    struct where where = where_option(c->cli, "offset", "beginning");
    rd_kafka_topic_partition_list_t *list =
        rd_kafka_topic_partition_list_new(c->n_partitions);
    for (int i = 0; i < c->n_partitions; i++) {
        rd_kafka_topic_partition_list_add(list, c->topic, c->partitions[i])
            ->offset = where_logical(where);
    }
    int status = resolve(c, where, list);
    if (status == EXIT_DONE) {
        begin_progress(c, list);
    }
    rd_kafka_queue_t *queue = rd_kafka_queue_new(c->rk);
    rd_kafka_topic_t *topic = rd_kafka_topic_new(c->rk, c->topic, NULL);
    int started = 0;
    for (; status == EXIT_DONE && started < list->cnt; started++) {
        if (rd_kafka_consume_start_queue(topic, list->elems[started].partition,
                                         list->elems[started].offset,
                                         queue) != 0) {
            status = client_fail(c->cli, rd_kafka_last_error(),
                                 "Reading cannot begin", NULL);
        }
    }
    bool end = status != EXIT_DONE;
    catch_interrupts();
    while (!end && !interrupted) {
        rd_kafka_message_t *m = rd_kafka_consume_queue(queue, 100);
        if (m == NULL) {
            end = cli_output_fails();
            continue;
        }
        end = take(c, m, &status);
        rd_kafka_message_destroy(m);
    }
    for (int i = 0; i < started; i++) {
        rd_kafka_consume_stop(topic, list->elems[i].partition);
    }
    rd_kafka_topic_destroy(topic);
    rd_kafka_queue_destroy(queue);
    rd_kafka_topic_partition_list_destroy(list);
    return status;
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* What is printed has reached the reader before it counts as read. */
static int commit_printed(struct consuming *c, bool wait)
{
    if (cli_output_fails()) {
        return EXIT_FAILED;
    }
    c->committed_s = now_s();
    rd_kafka_resp_err_t err = rd_kafka_commit(c->rk, NULL, !wait);
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR &&
        err != RD_KAFKA_RESP_ERR__NO_OFFSET) {
        return client_fail(c->cli, err, "Offsets were not committed", NULL);
    }
    return EXIT_DONE;
}

/* Which partitions this member has now. */
static void on_assigned(rd_kafka_t *rk, rd_kafka_resp_err_t err,
                        rd_kafka_topic_partition_list_t *list, void *arg)
{
    struct consuming *c = arg;
    bool assign = err == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
    if (!assign && c->n_partitions > 0 && !c->ended) {
        (void)commit_printed(c, true);
    }
    c->n_partitions = 0;
    c->assigned = assign;
    if (assign && list->cnt > 0) {
        c->partitions = mem_realloc(c->partitions,
                                    (size_t)list->cnt * sizeof *c->partitions);
        c->at_end =
            mem_realloc(c->at_end, (size_t)list->cnt * sizeof *c->at_end);
        c->n_partitions = list->cnt;
    }
    for (int i = 0; i < c->n_partitions; i++) {
        c->partitions[i] = list->elems[i].partition;
        c->at_end[i] = false;
    }
    rd_kafka_assign(rk, assign ? list : NULL);
}

static bool take_as_member(struct consuming *c, rd_kafka_message_t *m,
                           int *status)
{
    if (m == NULL) {
        return cli_output_fails() ||
               (c->exit_at_end && c->assigned && c->n_partitions == 0);
    }
    bool end = take(c, m, status);
    if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR && ferror(stdout) == 0) {
        rd_kafka_offset_store(m->rkt, m->partition, m->offset);
    }
    if (!end && now_s() - c->committed_s > COMMIT_S) {
        *status = commit_printed(c, false);
    }
    return end || *status != EXIT_DONE;
}

static int read_as_member(struct consuming *c)
{
    rd_kafka_topic_partition_list_t *topics =
        rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(topics, c->topic, RD_KAFKA_PARTITION_UA);
    rd_kafka_poll_set_consumer(c->rk);
    rd_kafka_resp_err_t err = rd_kafka_subscribe(c->rk, topics);
    rd_kafka_topic_partition_list_destroy(topics);
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return client_fail(c->cli, err, "The group cannot be joined", NULL);
    }
    int status = EXIT_DONE;
    bool end = false;
    begin_progress(c, NULL);
    c->committed_s = now_s();
    catch_interrupts();
    while (!end && !interrupted) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(c->rk, 100);
        end = take_as_member(c, m, &status);
        if (m != NULL) {
            rd_kafka_message_destroy(m);
        }
    }
    int committed = commit_printed(c, true);
    c->ended = true;
    rd_kafka_consumer_close(c->rk);
    return status == EXIT_DONE ? committed : status;
}

static rd_kafka_t *make_consumer(struct consuming *c)
{
    const char *group = cli_value(c->cli, "group", NULL);
    rd_kafka_conf_t *conf = client_conf(c->cli);
    /* retention may take what is read next: what is left is read then */
    client_set(c->cli, conf, "auto.offset.reset", "earliest");
    client_set(c->cli, conf, "enable.partition.eof", "true");
    client_set(c->cli, conf, "allow.auto.create.topics", "false");
    if (group != NULL) {
        bool end =
            where_option(c->cli, "offset", "beginning").kind == WHERE_END;
        client_set(c->cli, conf, "group.id", group);
        client_set(c->cli, conf, "enable.auto.commit", "false");
        client_set(c->cli, conf, "enable.auto.offset.store", "false");
        client_set(c->cli, conf, "auto.offset.reset",
                   end ? "latest" : "earliest");
        rd_kafka_conf_set_rebalance_cb(conf, on_assigned);
        rd_kafka_conf_set_opaque(conf, c);
    }
    return client_new(c->cli, RD_KAFKA_CONSUMER, conf);
}

static void check_group(const struct cli *cli)
{
    const char *group = cli_value(cli, "group", NULL);
    struct where where = where_option(cli, "offset", "beginning");
    if (group == NULL) {
        return;
    }
    if (group[0] == '\0') {
        cli_usage(cli, "--group: expected a name.");
    }
    if (cli_has(cli, "partition")) {
        cli_usage(cli,
                  "--group and --partition exclude each other: a group shares "
                  "all partitions among its members.");
    }
    if (where.kind != WHERE_BEGINNING && where.kind != WHERE_END) {
        cli_usage(cli,
                  "--group takes beginning or end for --offset; `flotilla group"
                  " reset-offsets` puts a group elsewhere.");
    }
}

int consume_run(struct cli *cli)
{
    struct consuming c = {.cli = cli,
                          .topic = cli_argument(cli, 0),
                          .format = cli_value(cli, "format", "%v\\n"),
                          .json = cli_has(cli, "json"),
                          .exit_at_end = cli_has(cli, "exit"),
                          .left = cli_number(cli, "count", -1, 1, INT64_MAX)};
    check_format(&c);
    check_group(cli);
    if (c.json && cli_has(cli, "format")) {
        cli_usage(cli, "--json and --format exclude each other.");
    }
    c.rk = make_consumer(&c);
    if (c.rk == NULL) {
        return EXIT_FAILED;
    }
    int status = find_partitions(&c);
    if (status == EXIT_DONE && cli_has(cli, "group")) {
        c.n_partitions = 0;
        status = read_as_member(&c);
    } else if (status == EXIT_DONE) {
        status = read_plain(&c);
    }
    progress_end(&c.progress);
    rd_kafka_destroy(c.rk);
    mem_free(c.partitions);
    mem_free(c.at_end);
    return status;
}
