#include "tools/topic_change.h"

#include <stdio.h>

#include "tools/client.h"
#include "tools/output.h"
#include "tools/where.h"

/* ---- add-partitions ------------------------------------------------------ */
const struct cli_option topic_add_partitions_options[] = {
    CLI_CLIENT_OPTIONS,
    {"by", 0, "COUNT", "how many more"},
    {"to", 0, "COUNT", "how many it shall have then"},
    {"dry-run", 0, NULL, "only check whether they would be added"},
    CLI_OUTPUT_OPTION,
    CLI_WAIT_OPTION,
    {0}};
const char topic_add_partitions_more[] =
    "A key may go to another partition than before. Example:\n"
    "  flotilla topic add-partitions orders --to 12\n";

static int partitions_of(const struct cli *cli, rd_kafka_t *rk, int *status)
{
    const struct rd_kafka_metadata *m = client_metadata(cli, rk, status);
    const struct rd_kafka_metadata_topic *t =
        m == NULL ? NULL : client_find_topic(m, cli_argument(cli, 0));
    int n = t == NULL ? 0 : t->partition_cnt;
    if (m != NULL && t == NULL) {
        *status = client_no_topic(cli, cli_argument(cli, 0));
    }
    if (m != NULL) {
        rd_kafka_metadata_destroy(m);
    }
    return n;
}

static int print_added(const struct cli *cli, int before, int after)
{
    const char *name = cli_argument(cli, 0);
    bool dry = cli_has(cli, "dry-run");
    if (cli_output(cli) == OUTPUT_JSON) {
        json_t *row = json_pack("{s:s, s:i, s:i, s:b}", "topic", name, "before",
                                before, "after", after, "done", !dry);
        output_json(row);
        json_decref(row);
    } else {
        printf("%s: %d partitions %s %d\n", name, before,
               dry ? "would be" : "are now", after);
    }
    return EXIT_DONE;
}

static int add_partitions(const struct cli *cli, rd_kafka_t *rk, int before,
                          int after)
{
    char why[256];
    int status;
    rd_kafka_NewPartitions_t *wanted = rd_kafka_NewPartitions_new(
        cli_argument(cli, 0), (size_t)after, why, sizeof why);
    if (wanted == NULL) {
        cli_usage(cli, "%s: %s.", cli_argument(cli, 0), why);
    }
    struct client_call call;
    client_call_begin(cli, rk, RD_KAFKA_ADMIN_OP_CREATEPARTITIONS, &call);
    rd_kafka_AdminOptions_set_validate_only(
        call.options, cli_has(cli, "dry-run"), why, sizeof why);
    rd_kafka_CreatePartitions(rk, &wanted, 1, call.options, call.queue);
    rd_kafka_event_t *event = client_call_wait(cli, &call, &status);
    if (event != NULL) {
        size_t n;
        const rd_kafka_topic_result_t *r =
            rd_kafka_CreatePartitions_result_topics(
                rd_kafka_event_CreatePartitions_result(event), &n)[0];
        rd_kafka_resp_err_t err = rd_kafka_topic_result_error(r);
        status = err == RD_KAFKA_RESP_ERR_NO_ERROR
                     ? print_added(cli, before, after)
                     : client_fail(cli, err, "No partition was added",
                                   rd_kafka_topic_result_error_string(r));
    }
    client_call_end(&call);
    rd_kafka_NewPartitions_destroy(wanted);
    return status;
}

int topic_add_partitions_run(struct cli *cli)
{
    int64_t by = cli_number(cli, "by", 0, 1, 100000);
    int64_t to = cli_number(cli, "to", 0, 1, 100000);
    int status = EXIT_FAILED;
    if ((by == 0) == (to == 0)) {
        cli_usage(cli, "Expected one of --by and --to.");
    }
    cli_output(cli);
    rd_kafka_t *rk = client_admin(cli);
    int before = rk == NULL ? 0 : partitions_of(cli, rk, &status);
    if (before > 0) {
        status = add_partitions(cli, rk, before,
                                to > 0 ? (int)to : before + (int)by);
    }
    if (rk != NULL) {
        rd_kafka_destroy(rk);
    }
    return status;
}

/* ---- trim ---------------------------------------------------------------- */
const struct cli_option topic_trim_options[] = {
    CLI_CLIENT_OPTIONS,
    {"before", 0, "WHERE", "delete what lies before: " WHERE_WORDS},
    {"partition", 'p', "NUMBER", "only this one (may be repeated)"},
    CLI_CONFIRM_OPTIONS,
    CLI_OUTPUT_OPTION,
    CLI_WAIT_OPTION,
    {0}};
const char topic_trim_more[] = WHERE_TIMES
    "BEFORE and START are the first offset kept, before and after; OFFSETS how "
    "far\nit goes. Examples, everything older than a day, or than a moment:\n"
    "  flotilla topic trim orders --before @-1d --dry-run\n"
    "  flotilla topic trim orders --before @2026-11-21T13:30 --yes\n";

/* What is asked for: from where to where each partition's start goes. */
static json_t *trim_row(const rd_kafka_topic_partition_t *p, int64_t before,
                        bool done)
{
    json_int_t removed = p->offset > before ? p->offset - before : 0;
    return json_pack("{s:s, s:i, s:I, s:I, s:I, s:b}", "topic", p->topic,
                     "partition", (int)p->partition, "before",
                     (json_int_t)before, "start", (json_int_t)p->offset,
                     "offsets", removed, "trimmed", (int)done);
}

static int64_t start_of(const rd_kafka_topic_partition_list_t *starts,
                        const rd_kafka_topic_partition_t *p)
{
    for (int i = 0; i < starts->cnt; i++) {
        if (starts->elems[i].partition == p->partition) {
            return starts->elems[i].offset;
        }
    }
    return p->offset;
}

/* One sentence however many partitions fail: they mostly do so alike. */
static int tell_failed(const struct cli *cli,
                       const rd_kafka_topic_partition_list_t *list, int failed)
{
    char what[300];
    for (int i = 0; i < list->cnt; i++) {
        const rd_kafka_topic_partition_t *p = &list->elems[i];
        if (p->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
            continue;
        }
        if (p->err == RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION ||
            p->err == RD_KAFKA_RESP_ERR_POLICY_VIOLATION) {
            return cli_fail(cli, EXIT_REFUSED,
                            "Topic %s is not trimmed by hand: it is the "
                            "cluster's own, or compacted only "
                            "(cleanup.policy) (%s, %d; asked %s).",
                            p->topic, rd_kafka_err2name(p->err), (int)p->err,
                            client_addresses(cli));
        }
        if (failed == 1) {
            snprintf(what, sizeof what, "Partition %d was not trimmed",
                     (int)p->partition);
        } else {
            snprintf(what, sizeof what,
                     "%d of %d partitions were not trimmed, partition %d for "
                     "one",
                     failed, list->cnt, (int)p->partition);
        }
        return client_fail(cli, p->err, what, NULL);
    }
    return EXIT_DONE;
}

static int print_trimmed(const struct cli *cli,
                         const rd_kafka_topic_partition_list_t *starts,
                         const rd_kafka_topic_partition_list_t *list)
{
    static const struct output_column columns[] = {
        {"TOPIC", "topic", false, false},
        {"PARTITION", "partition", true, false},
        {"BEFORE", "before", true, false},
        {"START", "start", true, false},
        {"OFFSETS", "offsets", true, false},
        {"TRIMMED", "trimmed", false, false},
        {0}};
    json_t *rows = json_array();
    int failed = 0;
    for (int i = 0; i < list->cnt; i++) {
        const rd_kafka_topic_partition_t *p = &list->elems[i];
        if (p->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
            failed++;
            continue;
        }
        json_array_append_new(
            rows, trim_row(p, start_of(starts, p), !cli_has(cli, "dry-run")));
    }
    if (cli_output(cli) == OUTPUT_JSON) {
        output_json(rows);
    } else if (failed < list->cnt) {
        output_table(cli, rows, columns);
    }
    json_decref(rows);
    int status = tell_failed(cli, list, failed);
    return failed > 0 && failed < list->cnt ? EXIT_PARTLY : status;
}

static int trim(const struct cli *cli, rd_kafka_t *rk,
                const rd_kafka_topic_partition_list_t *starts,
                const rd_kafka_topic_partition_list_t *list)
{
    struct client_call call;
    int status;
    rd_kafka_DeleteRecords_t *wanted = rd_kafka_DeleteRecords_new(list);
    client_call_begin(cli, rk, RD_KAFKA_ADMIN_OP_DELETERECORDS, &call);
    rd_kafka_DeleteRecords(rk, &wanted, 1, call.options, call.queue);
    rd_kafka_event_t *event = client_call_wait(cli, &call, &status);
    if (event != NULL) {
        status = print_trimmed(cli, starts,
                               rd_kafka_DeleteRecords_result_offsets(
                                   rd_kafka_event_DeleteRecords_result(event)));
    }
    client_call_end(&call);
    rd_kafka_DeleteRecords_destroy(wanted);
    return status;
}

static int trim_to(const struct cli *cli, rd_kafka_t *rk, struct where where)
{
    int status;
    rd_kafka_topic_partition_list_t *list =
        where_partitions(cli, rk, cli_argument(cli, 0), &status);
    if (list == NULL) {
        return status;
    }
    rd_kafka_topic_partition_list_t *starts =
        rd_kafka_topic_partition_list_copy(list);
    status =
        where_resolve(cli, rk, (struct where){.kind = WHERE_BEGINNING}, starts);
    if (status == EXIT_DONE) {
        status = where_resolve(cli, rk, where, list);
    }
    if (status == EXIT_DONE) {
        status = cli_has(cli, "dry-run") ? print_trimmed(cli, starts, list)
                                         : trim(cli, rk, starts, list);
    }
    rd_kafka_topic_partition_list_destroy(starts);
    rd_kafka_topic_partition_list_destroy(list);
    return status;
}

int topic_trim_run(struct cli *cli)
{
    int status = EXIT_FAILED;
    if (!cli_has(cli, "before")) {
        cli_usage(cli, "Expected --before " WHERE_WORDS ".");
    }
    struct where where = where_option(cli, "before", "");
    cli_output(cli);
    if (!cli_confirmed(cli, "Delete the records of %s before %s?",
                       cli_argument(cli, 0), cli_value(cli, "before", ""))) {
        return EXIT_REFUSED;
    }
    rd_kafka_t *rk = client_admin(cli);
    if (rk != NULL && client_reach(cli, rk, &status)) {
        status = trim_to(cli, rk, where);
    }
    if (rk != NULL) {
        rd_kafka_destroy(rk);
    }
    return status;
}
