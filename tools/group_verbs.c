#include "tools/group_verbs.h"

#include <stdio.h>
#include <string.h>

#include "tools/client.h"
#include "tools/output.h"

const struct cli_option group_list_options[] = {
    CLI_CLIENT_OPTIONS, CLI_OUTPUT_OPTION, CLI_WAIT_OPTION, {0}};
const struct cli_option group_describe_options[] = {
    CLI_CLIENT_OPTIONS, CLI_OUTPUT_OPTION, CLI_WAIT_OPTION, {0}};

/* ---- list ---------------------------------------------------------------- */

static int list_groups(const struct cli *cli, rd_kafka_event_t *event)
{
    static const struct output_column columns[] = {
        {"GROUP", "group", false, false},
        {"STATE", "state", false, false},
        {0}};
    const rd_kafka_ListConsumerGroups_result_t *result =
        rd_kafka_event_ListConsumerGroups_result(event);
    size_t n, n_errors;
    const rd_kafka_ConsumerGroupListing_t **groups =
        rd_kafka_ListConsumerGroups_result_valid(result, &n);
    const rd_kafka_error_t **errors =
        rd_kafka_ListConsumerGroups_result_errors(result, &n_errors);
    json_t *rows = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(
            rows,
            json_pack("{s:s, s:s}", "group",
                      rd_kafka_ConsumerGroupListing_group_id(groups[i]),
                      "state",
                      rd_kafka_consumer_group_state_name(
                          rd_kafka_ConsumerGroupListing_state(groups[i]))));
    }
    if (cli_output(cli) == OUTPUT_JSON) {
        output_json(rows);
    } else {
        output_table(cli, rows, columns);
    }
    json_decref(rows);
    for (size_t i = 0; i < n_errors; i++) {
        client_fail(cli, rd_kafka_error_code(errors[i]),
                    "A broker did not list its groups",
                    rd_kafka_error_string(errors[i]));
    }
    return n_errors > 0 ? EXIT_PARTLY : EXIT_DONE;
}

int group_list_run(struct cli *cli)
{
    cli_output(cli);
    rd_kafka_t *rk = client_admin(cli);
    int status = EXIT_FAILED;
    if (rk == NULL || !client_reach(cli, rk, &status)) {
        return status;
    }
    struct client_call call;
    client_call_begin(cli, rk, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPS, &call);
    rd_kafka_ListConsumerGroups(rk, call.options, call.queue);
    rd_kafka_event_t *event = client_call_wait(cli, &call, &status);
    if (event != NULL) {
        status = list_groups(cli, event);
    }
    client_call_end(&call);
    rd_kafka_destroy(rk);
    return status;
}

/* ---- describe ------------------------------------------------------------ */

static json_t *member_row(const rd_kafka_MemberDescription_t *m)
{
    const rd_kafka_topic_partition_list_t *list =
        rd_kafka_MemberAssignment_partitions(
            rd_kafka_MemberDescription_assignment(m));
    json_t *partitions = json_array();
    for (int i = 0; list != NULL && i < list->cnt; i++) {
        char text[300];
        snprintf(text, sizeof text, "%s/%d", list->elems[i].topic,
                 (int)list->elems[i].partition);
        json_array_append_new(partitions, json_string(text));
    }
    return json_pack("{s:s, s:s?, s:s, s:s, s:o}", "member",
                     rd_kafka_MemberDescription_consumer_id(m), "instance",
                     rd_kafka_MemberDescription_group_instance_id(m), "client",
                     rd_kafka_MemberDescription_client_id(m), "host",
                     rd_kafka_MemberDescription_host(m), "partitions",
                     partitions);
}

static json_t *offset_row(const struct cli *cli, rd_kafka_t *rk,
                          const rd_kafka_topic_partition_t *p)
{
    int64_t low, high;
    json_t *row =
        json_pack("{s:s, s:i, s:I}", "topic", p->topic, "partition",
                  (int)p->partition, "committed", (json_int_t)p->offset);
    bool known = rd_kafka_query_watermark_offsets(
                     rk, p->topic, p->partition, &low, &high,
                     client_timeout_ms(cli)) == RD_KAFKA_RESP_ERR_NO_ERROR;
    int64_t from = p->offset < low ? low : p->offset;
    json_object_set_new(row, "end", known ? json_integer(high) : json_null());
    json_object_set_new(row, "lag",
                        known ? json_integer(high - from) : json_null());
    return row;
}

static bool has_row(json_t *rows, const char *topic, int partition)
{
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        if (json_integer_value(json_object_get(row, "partition")) ==
                partition &&
            strcmp(json_string_value(json_object_get(row, "topic")), topic) ==
                0) {
            return true;
        }
    }
    return false;
}

/* What members read but the group has not committed yet: everything there is
 * may be lag, so none is told. */
static void add_uncommitted(json_t *rows, const rd_kafka_MemberDescription_t *m)
{
    const rd_kafka_topic_partition_list_t *list =
        rd_kafka_MemberAssignment_partitions(
            rd_kafka_MemberDescription_assignment(m));
    for (int i = 0; list != NULL && i < list->cnt; i++) {
        const rd_kafka_topic_partition_t *p = &list->elems[i];
        if (!has_row(rows, p->topic, (int)p->partition)) {
            json_array_append_new(
                rows, json_pack("{s:s, s:i, s:n, s:n, s:n}", "topic", p->topic,
                                "partition", (int)p->partition, "committed",
                                "end", "lag"));
        }
    }
}

static json_int_t total_lag(json_t *rows)
{
    json_int_t sum = 0;
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        sum += json_integer_value(json_object_get(row, "lag"));
    }
    return sum;
}

/* Committed offsets of the group, all partitions; NULL after an error. */
static json_t *offset_rows(const struct cli *cli, rd_kafka_t *rk, int *status)
{
    rd_kafka_ListConsumerGroupOffsets_t *wanted =
        rd_kafka_ListConsumerGroupOffsets_new(cli_argument(cli, 0), NULL);
    struct client_call call;
    json_t *rows = NULL;
    client_call_begin(cli, rk, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS,
                      &call);
    rd_kafka_ListConsumerGroupOffsets(rk, &wanted, 1, call.options, call.queue);
    rd_kafka_event_t *event = client_call_wait(cli, &call, status);
    if (event != NULL) {
        size_t n;
        const rd_kafka_group_result_t **results =
            rd_kafka_ListConsumerGroupOffsets_result_groups(
                rd_kafka_event_ListConsumerGroupOffsets_result(event), &n);
        const rd_kafka_error_t *error = rd_kafka_group_result_error(results[0]);
        rd_kafka_topic_partition_list_t *list =
            rd_kafka_topic_partition_list_copy(
                rd_kafka_group_result_partitions(results[0]));
        rd_kafka_topic_partition_list_sort(list, NULL, NULL);
        if (error != NULL) {
            *status = client_fail(cli, rd_kafka_error_code(error),
                                  "The group's offsets cannot be read",
                                  rd_kafka_error_string(error));
        } else {
            rows = json_array();
        }
        for (int i = 0; rows != NULL && i < list->cnt; i++) {
            json_array_append_new(rows, offset_row(cli, rk, &list->elems[i]));
        }
        rd_kafka_topic_partition_list_destroy(list);
    }
    client_call_end(&call);
    rd_kafka_ListConsumerGroupOffsets_destroy(wanted);
    return rows;
}

static void print_group(const struct cli *cli, json_t *group)
{
    static const struct output_column members[] = {
        {"MEMBER", "member", false, false},
        {"INSTANCE", "instance", false, true},
        {"CLIENT", "client", false, false},
        {"HOST", "host", false, false},
        {"PARTITIONS", "partitions", false, false},
        {0}};
    static const struct output_column offsets[] = {
        {"TOPIC", "topic", false, false},
        {"PARTITION", "partition", true, false},
        {"COMMITTED", "committed", true, false},
        {"END", "end", true, false},
        {"LAG", "lag", true, false},
        {0}};
    if (cli_output(cli) == OUTPUT_JSON) {
        output_json(group);
        return;
    }
    printf("%s: %s, assignor %s, coordinator %d, lag %lld\n",
           json_string_value(json_object_get(group, "group")),
           json_string_value(json_object_get(group, "state")),
           json_string_value(json_object_get(group, "assignor")),
           (int)json_integer_value(json_object_get(group, "coordinator")),
           (long long)json_integer_value(json_object_get(group, "lag")));
    if (json_array_size(json_object_get(group, "members")) > 0) {
        printf("\n");
        output_table(cli, json_object_get(group, "members"), members);
    }
    if (json_array_size(json_object_get(group, "offsets")) > 0) {
        printf("\n");
        output_table(cli, json_object_get(group, "offsets"), offsets);
    }
}

static int describe_group(const struct cli *cli, rd_kafka_t *rk,
                          rd_kafka_event_t *event)
{
    size_t n;
    const rd_kafka_ConsumerGroupDescription_t *d =
        rd_kafka_DescribeConsumerGroups_result_groups(
            rd_kafka_event_DescribeConsumerGroups_result(event), &n)[0];
    const rd_kafka_error_t *error = rd_kafka_ConsumerGroupDescription_error(d);
    if (error != NULL) {
        return client_fail(cli, rd_kafka_error_code(error),
                           "The group cannot be described",
                           rd_kafka_error_string(error));
    }
    int status;
    json_t *offsets = offset_rows(cli, rk, &status);
    if (offsets == NULL) {
        return status;
    }
    rd_kafka_consumer_group_state_t state =
        rd_kafka_ConsumerGroupDescription_state(d);
    if (state == RD_KAFKA_CONSUMER_GROUP_STATE_DEAD &&
        json_array_size(offsets) == 0) {
        json_decref(offsets);
        return client_no_group(cli, cli_argument(cli, 0));
    }
    json_t *members = json_array();
    for (size_t i = 0; i < rd_kafka_ConsumerGroupDescription_member_count(d);
         i++) {
        json_array_append_new(
            members,
            member_row(rd_kafka_ConsumerGroupDescription_member(d, i)));
        add_uncommitted(offsets,
                        rd_kafka_ConsumerGroupDescription_member(d, i));
    }
    const rd_kafka_Node_t *node =
        rd_kafka_ConsumerGroupDescription_coordinator(d);
    const char *assignor =
        rd_kafka_ConsumerGroupDescription_partition_assignor(d);
    json_t *group = json_pack(
        "{s:s, s:s, s:s, s:i, s:I, s:o, s:o}", "group", cli_argument(cli, 0),
        "state", rd_kafka_consumer_group_state_name(state), "assignor",
        assignor != NULL && assignor[0] != '\0' ? assignor : "-", "coordinator",
        node != NULL ? (int)rd_kafka_Node_id(node) : -1, "lag",
        total_lag(offsets), "members", members, "offsets", offsets);
    print_group(cli, group);
    json_decref(group);
    return EXIT_DONE;
}

int group_describe_run(struct cli *cli)
{
    const char *name = cli_argument(cli, 0);
    cli_output(cli);
    rd_kafka_t *rk = client_admin(cli);
    int status = EXIT_FAILED;
    if (rk == NULL || !client_reach(cli, rk, &status)) {
        return status;
    }
    struct client_call call;
    client_call_begin(cli, rk, RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS, &call);
    rd_kafka_DescribeConsumerGroups(rk, &name, 1, call.options, call.queue);
    rd_kafka_event_t *event = client_call_wait(cli, &call, &status);
    if (event != NULL) {
        status = describe_group(cli, rk, event);
    }
    client_call_end(&call);
    rd_kafka_destroy(rk);
    return status;
}
