#include "tools/topic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tools/client.h"
#include "tools/config_verbs.h"
#include "tools/output.h"

/* ---- create -------------------------------------------------------------- */

const struct cli_option topic_create_options[] = {
    CLI_CLIENT_OPTIONS,
    {"partitions", 'p', "COUNT", "how many (default: num.partitions)"},
    {"replicas", 'r', "COUNT", "of each (default: default.replication.factor)"},
    {"config", 'c', "KEY=VALUE", "configuration of the topic"},
    {"if-not-exists", 0, NULL, "be content when it exists already"},
    {"dry-run", 0, NULL, "only check whether it would be created"},
    CLI_OUTPUT_OPTION,
    CLI_WAIT_OPTION,
    {0}};

static rd_kafka_NewTopic_t *new_topic(const struct cli *cli)
{
    char why[256];
    const char *name = cli_argument(cli, 0);
    int partitions = (int)cli_number(cli, "partitions", -1, 1, 100000);
    int replicas = (int)cli_number(cli, "replicas", -1, 1, 9);
    rd_kafka_NewTopic_t *topic =
        rd_kafka_NewTopic_new(name, partitions, replicas, why, sizeof why);
    if (topic == NULL) {
        cli_usage(cli, "%s: %s.", name, why);
    }
    const char *text;
    for (int i = 0; (text = cli_value_at(cli, "config", i)) != NULL; i++) {
        char key[256];
        const char *value = cli_key_value(cli, "config", text, key, sizeof key);
        rd_kafka_NewTopic_set_config(topic, key, value);
    }
    return topic;
}

static int print_created(const struct cli *cli, bool existed)
{
    const char *name = cli_argument(cli, 0);
    bool dry = cli_has(cli, "dry-run");
    if (cli_output(cli) == OUTPUT_JSON) {
        json_t *row =
            json_pack("{s:s, s:b}", "topic", name, "created", !dry && !existed);
        output_json(row);
        json_decref(row);
    } else {
        printf("%s %s\n", name,
               existed ? "exists already"
               : dry   ? "would be created"
                       : "created");
    }
    return EXIT_DONE;
}

static int created(const struct cli *cli, rd_kafka_event_t *event)
{
    size_t n;
    const rd_kafka_topic_result_t **results =
        rd_kafka_CreateTopics_result_topics(
            rd_kafka_event_CreateTopics_result(event), &n);
    rd_kafka_resp_err_t err = rd_kafka_topic_result_error(results[0]);
    if (err == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS &&
        cli_has(cli, "if-not-exists")) {
        return print_created(cli, true);
    }
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        char what[300];
        snprintf(what, sizeof what, "Topic %s was not created",
                 cli_argument(cli, 0));
        return client_fail(cli, err, what,
                           rd_kafka_topic_result_error_string(results[0]));
    }
    return print_created(cli, false);
}

int topic_create_run(struct cli *cli)
{
    rd_kafka_NewTopic_t *topic = new_topic(cli);
    cli_output(cli);
    rd_kafka_t *rk = client_admin(cli);
    int status = EXIT_FAILED;
    if (rk != NULL && client_reach(cli, rk, &status)) {
        struct client_call call;
        char why[256];
        client_call_begin(cli, rk, RD_KAFKA_ADMIN_OP_CREATETOPICS, &call);
        rd_kafka_AdminOptions_set_validate_only(
            call.options, cli_has(cli, "dry-run"), why, sizeof why);
        rd_kafka_CreateTopics(rk, &topic, 1, call.options, call.queue);
        rd_kafka_event_t *event = client_call_wait(cli, &call, &status);
        if (event != NULL) {
            status = created(cli, event);
        }
        client_call_end(&call);
    }
    if (rk != NULL) {
        rd_kafka_destroy(rk);
    }
    rd_kafka_NewTopic_destroy(topic);
    return status;
}

/* ---- list ---------------------------------------------------------------- */

const struct cli_option topic_list_options[] = {
    CLI_CLIENT_OPTIONS,
    {"all", 'a', NULL, "internal topics as well"},
    CLI_OUTPUT_OPTION,
    CLI_WAIT_OPTION,
    {0}};

static json_t *topic_row(const struct rd_kafka_metadata_topic *t)
{
    int replicas = t->partition_cnt > 0 ? t->partitions[0].replica_cnt : 0;
    int leaderless = 0, under = 0;
    for (int i = 0; i < t->partition_cnt; i++) {
        leaderless += t->partitions[i].leader < 0;
        under += t->partitions[i].isr_cnt < t->partitions[i].replica_cnt;
    }
    return json_pack("{s:s, s:i, s:i, s:i, s:i}", "topic", t->topic,
                     "partitions", t->partition_cnt, "replicas", replicas,
                     "leaderless", leaderless, "under_replicated", under);
}

static int compare_topics(const void *a, const void *b)
{
    const struct rd_kafka_metadata_topic *x = a, *y = b;
    return strcmp(x->topic, y->topic);
}

int topic_list_run(struct cli *cli)
{
    static const struct output_column columns[] = {
        {"NAME", "topic", false, false},
        {"PARTITIONS", "partitions", true, false},
        {"REPLICAS", "replicas", true, false},
        {"LEADERLESS", "leaderless", true, true},
        {"UNDER-REPLICATED", "under_replicated", true, true},
        {0}};
    int status = EXIT_FAILED;
    enum cli_output form = cli_output(cli);
    rd_kafka_t *rk = client_admin(cli);
    const struct rd_kafka_metadata *m =
        rk != NULL ? client_metadata(cli, rk, &status) : NULL;
    if (m != NULL) {
        json_t *rows = json_array();
        qsort(m->topics, (size_t)m->topic_cnt, sizeof *m->topics,
              compare_topics);
        for (int i = 0; i < m->topic_cnt; i++) {
            bool internal = strncmp(m->topics[i].topic, "__", 2) == 0;
            if (!internal || cli_has(cli, "all")) {
                json_array_append_new(rows, topic_row(&m->topics[i]));
            }
        }
        if (form == OUTPUT_JSON) {
            output_json(rows);
        } else {
            output_table(cli, rows, columns);
        }
        json_decref(rows);
        rd_kafka_metadata_destroy(m);
    }
    if (rk != NULL) {
        rd_kafka_destroy(rk);
    }
    return status;
}

/* ---- describe ------------------------------------------------------------ */

const struct cli_option topic_describe_options[] = {
    CLI_CLIENT_OPTIONS,
    {"all", 'a', NULL, "configuration at its default as well"},
    CLI_OUTPUT_OPTION,
    CLI_WAIT_OPTION,
    {0}};

static json_t *numbers(const int32_t *list, int n)
{
    json_t *array = json_array();
    for (int i = 0; i < n; i++) {
        json_array_append_new(array, json_integer(list[i]));
    }
    return array;
}

static json_t *partition_row(const struct cli *cli, rd_kafka_t *rk,
                             const char *topic,
                             const struct rd_kafka_metadata_partition *p)
{
    int64_t low = -1, high = -1;
    json_t *row =
        json_pack("{s:i, s:i, s:o, s:o}", "partition", p->id, "leader",
                  p->leader, "replicas", numbers(p->replicas, p->replica_cnt),
                  "in_sync", numbers(p->isrs, p->isr_cnt));
    rd_kafka_resp_err_t err =
        p->leader < 0
            ? RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE
            : rd_kafka_query_watermark_offsets(rk, topic, p->id, &low, &high,
                                               client_timeout_ms(cli));
    bool known = err == RD_KAFKA_RESP_ERR_NO_ERROR;
    json_object_set_new(row, "start", known ? json_integer(low) : json_null());
    json_object_set_new(row, "end", known ? json_integer(high) : json_null());
    return row;
}

static json_t *config_rows(const struct cli *cli, rd_kafka_event_t *event)
{
    size_t n, n_entries;
    const rd_kafka_ConfigResource_t **resources =
        rd_kafka_DescribeConfigs_result_resources(
            rd_kafka_event_DescribeConfigs_result(event), &n);
    json_t *rows = json_array();
    const rd_kafka_ConfigEntry_t **entries =
        rd_kafka_ConfigResource_configs(resources[0], &n_entries);
    for (size_t i = 0; i < n_entries; i++) {
        rd_kafka_ConfigSource_t source =
            rd_kafka_ConfigEntry_source(entries[i]);
        if (source != RD_KAFKA_CONFIG_SOURCE_DYNAMIC_TOPIC_CONFIG &&
            !cli_has(cli, "all")) {
            continue;
        }
        json_array_append_new(
            rows, json_pack("{s:s, s:s?, s:s}", "key",
                            rd_kafka_ConfigEntry_name(entries[i]), "value",
                            rd_kafka_ConfigEntry_value(entries[i]), "source",
                            config_source_name((int)source)));
    }
    return rows;
}

static json_t *describe_configs(const struct cli *cli, rd_kafka_t *rk,
                                int *status)
{
    struct client_call call;
    json_t *rows = NULL;
    rd_kafka_ConfigResource_t *resource = rd_kafka_ConfigResource_new(
        RD_KAFKA_RESOURCE_TOPIC, cli_argument(cli, 0));
    client_call_begin(cli, rk, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, &call);
    rd_kafka_DescribeConfigs(rk, &resource, 1, call.options, call.queue);
    rd_kafka_event_t *event = client_call_wait(cli, &call, status);
    if (event != NULL) {
        rows = config_rows(cli, event);
    }
    client_call_end(&call);
    rd_kafka_ConfigResource_destroy(resource);
    return rows;
}

static void print_description(const struct cli *cli, json_t *topic)
{
    static const struct output_column partitions[] = {
        {"PARTITION", "partition", true, false},
        {"LEADER", "leader", true, false},
        {"REPLICAS", "replicas", false, false},
        {"IN-SYNC", "in_sync", false, false},
        {"START", "start", true, false},
        {"END", "end", true, false},
        {0}};
    static const struct output_column configs[] = {
        {"KEY", "key", false, false},
        {"VALUE", "value", false, false},
        {"SOURCE", "source", false, false},
        {0}};
    if (cli_output(cli) == OUTPUT_JSON) {
        output_json(topic);
        return;
    }
    printf("%s: acks=all is synced to disk on a majority of the replicas\n\n",
           json_string_value(json_object_get(topic, "topic")));
    output_table(cli, json_object_get(topic, "partitions"), partitions);
    json_t *rows = json_object_get(topic, "configs");
    if (json_array_size(rows) > 0) {
        printf("\n");
        output_table(cli, rows, configs);
    }
}

static int describe(const struct cli *cli, rd_kafka_t *rk,
                    const struct rd_kafka_metadata *m)
{
    const char *name = cli_argument(cli, 0);
    const struct rd_kafka_metadata_topic *t = client_find_topic(m, name);
    if (t == NULL) {
        return client_no_topic(cli, name);
    }
    int status;
    json_t *configs = describe_configs(cli, rk, &status);
    if (configs == NULL) {
        return status;
    }
    json_t *rows = json_array();
    for (int i = 0; i < t->partition_cnt; i++) {
        json_array_append_new(rows,
                              partition_row(cli, rk, name, &t->partitions[i]));
    }
    json_t *topic = json_pack("{s:s, s:o, s:o}", "topic", name, "partitions",
                              rows, "configs", configs);
    print_description(cli, topic);
    json_decref(topic);
    return EXIT_DONE;
}

int topic_describe_run(struct cli *cli)
{
    int status = EXIT_FAILED;
    cli_output(cli);
    rd_kafka_t *rk = client_admin(cli);
    const struct rd_kafka_metadata *m =
        rk != NULL ? client_metadata(cli, rk, &status) : NULL;
    if (m != NULL) {
        status = describe(cli, rk, m);
        rd_kafka_metadata_destroy(m);
    }
    if (rk != NULL) {
        rd_kafka_destroy(rk);
    }
    return status;
}

/* ---- delete -------------------------------------------------------------- */

const struct cli_option topic_delete_options[] = {
    CLI_CLIENT_OPTIONS,
    {"internal", 0, NULL, "topics of the cluster's own as well"},
    CLI_CONFIRM_OPTIONS,
    CLI_OUTPUT_OPTION,
    CLI_WAIT_OPTION,
    {0}};

static int report_deleted(const struct cli *cli, rd_kafka_event_t *event,
                          json_t *rows)
{
    size_t n;
    const rd_kafka_topic_result_t **results =
        rd_kafka_DeleteTopics_result_topics(
            rd_kafka_event_DeleteTopics_result(event), &n);
    int status = EXIT_DONE;
    size_t failed = 0;
    for (size_t i = 0; i < n; i++) {
        const char *name = rd_kafka_topic_result_name(results[i]);
        rd_kafka_resp_err_t err = rd_kafka_topic_result_error(results[i]);
        if (err == RD_KAFKA_RESP_ERR_NO_ERROR) {
            output_deleted(rows, "topic", name, true);
            continue;
        }
        char what[300];
        snprintf(what, sizeof what, "Topic %s was not deleted", name);
        status =
            err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
                ? client_no_topic(cli, name)
                : client_fail(cli, err, what,
                              rd_kafka_topic_result_error_string(results[i]));
        failed++;
    }
    return failed > 0 && failed < n ? EXIT_PARTLY : status;
}

static int delete_topics(const struct cli *cli, rd_kafka_t *rk, json_t *rows)
{
    size_t n = (size_t)cli_n_arguments(cli);
    rd_kafka_DeleteTopic_t **topics = mem_alloc(n * sizeof *topics);
    for (size_t i = 0; i < n; i++) {
        topics[i] = rd_kafka_DeleteTopic_new(cli_argument(cli, (int)i));
    }
    struct client_call call;
    int status;
    client_call_begin(cli, rk, RD_KAFKA_ADMIN_OP_DELETETOPICS, &call);
    rd_kafka_DeleteTopics(rk, topics, n, call.options, call.queue);
    rd_kafka_event_t *event = client_call_wait(cli, &call, &status);
    if (event != NULL) {
        status = report_deleted(cli, event, rows);
    }
    client_call_end(&call);
    rd_kafka_DeleteTopic_destroy_array(topics, n);
    mem_free(topics);
    return status;
}

static int dry_delete(const struct cli *cli, rd_kafka_t *rk, json_t *rows)
{
    int status;
    int failed = 0;
    const struct rd_kafka_metadata *m = client_metadata(cli, rk, &status);
    if (m == NULL) {
        return status;
    }
    for (int i = 0; i < cli_n_arguments(cli); i++) {
        const char *name = cli_argument(cli, i);
        if (client_find_topic(m, name) == NULL) {
            status = client_no_topic(cli, name);
            failed++;
        } else {
            output_deleted(rows, "topic", name, false);
        }
    }
    rd_kafka_metadata_destroy(m);
    return failed > 0 && failed < cli_n_arguments(cli) ? EXIT_PARTLY : status;
}

/* Groups keep their offsets in such a topic: who deletes it means it. */
static bool internal_is_meant(const struct cli *cli)
{
    for (int i = 0; i < cli_n_arguments(cli); i++) {
        const char *name = cli_argument(cli, i);
        if (strncmp(name, "__", 2) == 0 && !cli_has(cli, "internal")) {
            cli_fail(cli, EXIT_REFUSED,
                     "Nothing was deleted: %s is a topic of the cluster's own, "
                     "in which, for one, groups keep their offsets; --internal "
                     "deletes it all the same.",
                     name);
            return false;
        }
    }
    return true;
}

int topic_delete_run(struct cli *cli)
{
    cli_output(cli);
    cli_distinct(cli);
    if (!internal_is_meant(cli) ||
        !cli_confirmed(cli, "Delete %d topic(s) and all their records?",
                       cli_n_arguments(cli))) {
        return EXIT_REFUSED;
    }
    return client_delete(cli, "topic", dry_delete, delete_topics);
}
