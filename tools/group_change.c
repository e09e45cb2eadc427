#include "tools/group_change.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "tools/client.h"
#include "tools/output.h"
#include "tools/where.h"

/* ---- delete -------------------------------------------------------------- */
const struct cli_option group_delete_options[] = {CLI_CLIENT_OPTIONS,
                                                  CLI_CONFIRM_OPTIONS,
                                                  CLI_OUTPUT_OPTION,
                                                  CLI_WAIT_OPTION,
                                                  {0}};

static int report_deleted(const struct cli *cli, rd_kafka_event_t *event,
                          json_t *rows)
{
    size_t n;
    size_t failed = 0;
    int status = EXIT_DONE;
    const rd_kafka_group_result_t **results =
        rd_kafka_DeleteGroups_result_groups(
            rd_kafka_event_DeleteGroups_result(event), &n);
    for (size_t i = 0; i < n; i++) {
        const char *name = rd_kafka_group_result_name(results[i]);
        const rd_kafka_error_t *error = rd_kafka_group_result_error(results[i]);
        if (error == NULL) {
            output_deleted(rows, "group", name, true);
            continue;
        }
        char what[300];
        snprintf(what, sizeof what, "Group %s was not deleted", name);
        status =
            rd_kafka_error_code(error) == RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND
                ? client_no_group(cli, name)
                : client_fail(cli, rd_kafka_error_code(error), what,
                              rd_kafka_error_string(error));
        failed++;
    }
    return failed > 0 && failed < n ? EXIT_PARTLY : status;
}

static int delete_groups(const struct cli *cli, rd_kafka_t *rk, json_t *rows)
{
    struct client_call call;
    int status;
    size_t n = (size_t)cli_n_arguments(cli);
    rd_kafka_DeleteGroup_t **groups = mem_alloc(n * sizeof *groups);
    for (size_t i = 0; i < n; i++) {
        groups[i] = rd_kafka_DeleteGroup_new(cli_argument(cli, (int)i));
    }
    client_call_begin(cli, rk, RD_KAFKA_ADMIN_OP_DELETEGROUPS, &call);
    rd_kafka_DeleteGroups(rk, groups, n, call.options, call.queue);
    rd_kafka_event_t *event = client_call_wait(cli, &call, &status);
    if (event != NULL) {
        status = report_deleted(cli, event, rows);
    }
    client_call_end(&call);
    rd_kafka_DeleteGroup_destroy_array(groups, n);
    mem_free(groups);
    return status;
}

static const rd_kafka_ConsumerGroupListing_t *find_group(
    rd_kafka_event_t *event, const char *name)
{
    size_t n;
    const rd_kafka_ConsumerGroupListing_t **groups =
        rd_kafka_ListConsumerGroups_result_valid(
            rd_kafka_event_ListConsumerGroups_result(event), &n);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(rd_kafka_ConsumerGroupListing_group_id(groups[i]), name) ==
            0) {
            return groups[i];
        }
    }
    return NULL;
}

/* Which of them there are, and without members. */
static int dry_delete_groups(const struct cli *cli, rd_kafka_t *rk,
                             json_t *rows)
{
    struct client_call call;
    int status;
    int failed = 0;
    int n = cli_n_arguments(cli);
    client_call_begin(cli, rk, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPS, &call);
    rd_kafka_ListConsumerGroups(rk, call.options, call.queue);
    rd_kafka_event_t *event = client_call_wait(cli, &call, &status);
    for (int i = 0; event != NULL && i < n; i++) {
        const char *name = cli_argument(cli, i);
        const rd_kafka_ConsumerGroupListing_t *group = find_group(event, name);
        if (group == NULL) {
            status = client_no_group(cli, name);
            failed++;
        } else if (rd_kafka_ConsumerGroupListing_state(group) !=
                   RD_KAFKA_CONSUMER_GROUP_STATE_EMPTY) {
            status = cli_fail(cli, EXIT_FAILED,
                              "Group %s would not be deleted: it has members, "
                              "which must be stopped before.",
                              name);
            failed++;
        } else {
            output_deleted(rows, "group", name, false);
        }
    }
    client_call_end(&call);
    return failed > 0 && failed < n ? EXIT_PARTLY : status;
}

int group_delete_run(struct cli *cli)
{
    cli_output(cli);
    cli_distinct(cli);
    if (!cli_confirmed(cli, "Delete %d group(s) with their offsets?",
                       cli_n_arguments(cli))) {
        return EXIT_REFUSED;
    }
    return client_delete(cli, "group", dry_delete_groups, delete_groups);
}

/* ---- reset-offsets ------------------------------------------------------- */
const struct cli_option group_reset_offsets_options[] = {
    CLI_CLIENT_OPTIONS,
    {"to", 0, "WHERE", WHERE_WORDS},
    {"shift-by", 0, "COUNT", "from what is committed, may be negative"},
    {"topic", 't', "NAME", "only this one (default: all it has committed)"},
    {"partition", 'p', "NUMBER", "only this one of --topic (may be repeated)"},
    CLI_CONFIRM_OPTIONS,
    CLI_OUTPUT_OPTION,
    CLI_WAIT_OPTION,
    {0}};
const char group_reset_offsets_more[] = WHERE_TIMES
    "The group must have no members at that time. Examples:\n"
    "  flotilla group reset-offsets billing --to beginning --dry-run\n"
    "  flotilla group reset-offsets billing --topic orders --shift-by -100\n";

/* What the group has committed; NULL: *status, a sentence was printed. */
static rd_kafka_topic_partition_list_t *committed(const struct cli *cli,
                                                  rd_kafka_t *rk, int *status)
{
    struct client_call call;
    rd_kafka_topic_partition_list_t *list = NULL;
    rd_kafka_ListConsumerGroupOffsets_t *wanted =
        rd_kafka_ListConsumerGroupOffsets_new(cli_argument(cli, 0), NULL);
    client_call_begin(cli, rk, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS,
                      &call);
    rd_kafka_ListConsumerGroupOffsets(rk, &wanted, 1, call.options, call.queue);
    rd_kafka_event_t *event = client_call_wait(cli, &call, status);
    if (event != NULL) {
        size_t n;
        const rd_kafka_group_result_t *r =
            rd_kafka_ListConsumerGroupOffsets_result_groups(
                rd_kafka_event_ListConsumerGroupOffsets_result(event), &n)[0];
        const rd_kafka_error_t *error = rd_kafka_group_result_error(r);
        if (error == NULL) {
            list = rd_kafka_topic_partition_list_copy(
                rd_kafka_group_result_partitions(r));
            rd_kafka_topic_partition_list_sort(list, NULL, NULL);
        } else {
            *status = client_fail(cli, rd_kafka_error_code(error),
                                  "The group's offsets cannot be read",
                                  rd_kafka_error_string(error));
        }
    }
    client_call_end(&call);
    rd_kafka_ListConsumerGroupOffsets_destroy(wanted);
    return list;
}

static int64_t committed_at(const rd_kafka_topic_partition_list_t *list,
                            const rd_kafka_topic_partition_t *p)
{
    for (int i = 0; i < list->cnt; i++) {
        if (list->elems[i].partition == p->partition &&
            strcmp(list->elems[i].topic, p->topic) == 0) {
            return list->elems[i].offset;
        }
    }
    return -1;
}

static int shift(const struct cli *cli, rd_kafka_t *rk,
                 const rd_kafka_topic_partition_list_t *before,
                 rd_kafka_topic_partition_list_t *list)
{
    int64_t by = cli_number(cli, "shift-by", 0, INT64_MIN, INT64_MAX);
    for (int i = 0; i < list->cnt; i++) {
        rd_kafka_topic_partition_t *p = &list->elems[i];
        rd_kafka_topic_partition_list_t *one =
            rd_kafka_topic_partition_list_new(1);
        int64_t at = committed_at(before, p);
        int64_t to = at < 0 ? 0 : at + by;
        rd_kafka_topic_partition_list_add(one, p->topic, p->partition);
        int status = where_resolve(
            cli, rk, (struct where){.kind = WHERE_AT, .n = to < 0 ? 0 : to},
            one);
        p->offset = one->elems[0].offset;
        rd_kafka_topic_partition_list_destroy(one);
        if (status != EXIT_DONE) {
            return status;
        }
    }
    return EXIT_DONE;
}

static int print_reset(const struct cli *cli,
                       const rd_kafka_topic_partition_list_t *before,
                       const rd_kafka_topic_partition_list_t *after)
{
    static const struct output_column columns[] = {
        {"TOPIC", "topic", false, false},
        {"PARTITION", "partition", true, false},
        {"BEFORE", "before", true, false},
        {"AFTER", "after", true, false},
        {0}};
    json_t *rows = json_array();
    int status = EXIT_DONE;
    int failed = 0;
    for (int i = 0; i < after->cnt; i++) {
        const rd_kafka_topic_partition_t *p = &after->elems[i];
        int64_t was = committed_at(before, p);
        if (p->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
            char what[300];
            snprintf(what, sizeof what, "%.200s/%d was not reset", p->topic,
                     (int)p->partition);
            status = client_fail(cli, p->err, what, NULL);
            failed++;
            continue;
        }
        json_array_append_new(
            rows, json_pack("{s:s, s:i, s:o, s:I}", "topic", p->topic,
                            "partition", (int)p->partition, "before",
                            was < 0 ? json_null() : json_integer(was), "after",
                            (json_int_t)p->offset));
    }
    if (cli_output(cli) == OUTPUT_JSON) {
        output_json(rows);
    } else if (failed < after->cnt) {
        output_table(cli, rows, columns);
    }
    json_decref(rows);
    return failed > 0 && failed < after->cnt ? EXIT_PARTLY : status;
}

static int alter_offsets(const struct cli *cli, rd_kafka_t *rk,
                         const rd_kafka_topic_partition_list_t *before,
                         const rd_kafka_topic_partition_list_t *list)
{
    struct client_call call;
    int status;
    rd_kafka_AlterConsumerGroupOffsets_t *wanted =
        rd_kafka_AlterConsumerGroupOffsets_new(cli_argument(cli, 0), list);
    client_call_begin(cli, rk, RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS,
                      &call);
    rd_kafka_AlterConsumerGroupOffsets(rk, &wanted, 1, call.options,
                                       call.queue);
    rd_kafka_event_t *event = client_call_wait(cli, &call, &status);
    if (event != NULL) {
        size_t n;
        const rd_kafka_group_result_t *r =
            rd_kafka_AlterConsumerGroupOffsets_result_groups(
                rd_kafka_event_AlterConsumerGroupOffsets_result(event), &n)[0];
        const rd_kafka_error_t *error = rd_kafka_group_result_error(r);
        status =
            error == NULL
                ? print_reset(cli, before, rd_kafka_group_result_partitions(r))
                : client_fail(cli, rd_kafka_error_code(error),
                              "The offsets were not reset; are all members "
                              "stopped?",
                              rd_kafka_error_string(error));
    }
    client_call_end(&call);
    rd_kafka_AlterConsumerGroupOffsets_destroy(wanted);
    return status;
}

static int reset(const struct cli *cli, rd_kafka_t *rk)
{
    int status;
    rd_kafka_topic_partition_list_t *before = committed(cli, rk, &status);
    if (before == NULL) {
        return status;
    }
    const char *topic = cli_value(cli, "topic", NULL);
    rd_kafka_topic_partition_list_t *list =
        topic == NULL ? rd_kafka_topic_partition_list_copy(before)
                      : where_partitions(cli, rk, topic, &status);
    if (list != NULL && list->cnt == 0) {
        status = cli_fail(cli, EXIT_NOT_FOUND,
                          "Group %s has committed nothing at %s; --topic names "
                          "where it shall begin.",
                          cli_argument(cli, 0), client_addresses(cli));
    } else if (list != NULL) {
        status =
            cli_has(cli, "shift-by")
                ? shift(cli, rk, before, list)
                : where_resolve(cli, rk, where_option(cli, "to", ""), list);
        if (status == EXIT_DONE) {
            status = cli_has(cli, "dry-run")
                         ? print_reset(cli, before, list)
                         : alter_offsets(cli, rk, before, list);
        }
    }
    rd_kafka_topic_partition_list_destroy(before);
    if (list != NULL) {
        rd_kafka_topic_partition_list_destroy(list);
    }
    return status;
}

int group_reset_offsets_run(struct cli *cli)
{
    int status = EXIT_FAILED;
    if (cli_has(cli, "to") == cli_has(cli, "shift-by")) {
        cli_usage(cli, "Expected one of --to and --shift-by.");
    }
    if (cli_has(cli, "partition") && !cli_has(cli, "topic")) {
        cli_usage(cli, "--partition needs --topic.");
    }
    if (cli_has(cli, "to")) {
        where_option(cli, "to", "");
    }
    cli_number(cli, "shift-by", 0, INT64_MIN, INT64_MAX);
    cli_output(cli);
    if (!cli_confirmed(cli, "Change what group %s has read?",
                       cli_argument(cli, 0))) {
        return EXIT_REFUSED;
    }
    rd_kafka_t *rk = client_admin(cli);
    if (rk != NULL && client_reach(cli, rk, &status)) {
        status = reset(cli, rk);
    }
    if (rk != NULL) {
        rd_kafka_destroy(rk);
    }
    return status;
}
