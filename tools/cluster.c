#include "tools/cluster.h"

#include <stdio.h>
#include <stdlib.h>

#include "tools/client.h"
#include "tools/output.h"

const struct cli_option cluster_status_options[] = {
    CLI_CLIENT_OPTIONS, CLI_OUTPUT_OPTION, CLI_WAIT_OPTION, {0}};

struct totals {
    int partitions, leaderless, under_replicated;
};

/* How many partitions `node` leads and holds; both counted over all topics. */
static void count_node(const struct rd_kafka_metadata *m, int32_t node,
                       int *leads, int *replicas)
{
    *leads = *replicas = 0;
    for (int t = 0; t < m->topic_cnt; t++) {
        for (int i = 0; i < m->topics[t].partition_cnt; i++) {
            const struct rd_kafka_metadata_partition *p =
                &m->topics[t].partitions[i];
            *leads += p->leader == node;
            for (int r = 0; r < p->replica_cnt; r++) {
                *replicas += p->replicas[r] == node;
            }
        }
    }
}

static struct totals count_all(const struct rd_kafka_metadata *m)
{
    struct totals sum = {0, 0, 0};
    for (int t = 0; t < m->topic_cnt; t++) {
        for (int i = 0; i < m->topics[t].partition_cnt; i++) {
            const struct rd_kafka_metadata_partition *p =
                &m->topics[t].partitions[i];
            sum.partitions++;
            sum.leaderless += p->leader < 0;
            sum.under_replicated += p->isr_cnt < p->replica_cnt;
        }
    }
    return sum;
}

static int compare_brokers(const void *a, const void *b)
{
    const struct rd_kafka_metadata_broker *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

static bool is_listed(const struct rd_kafka_metadata *m, json_t *rows,
                      int32_t node)
{
    size_t i;
    json_t *row;
    for (int b = 0; b < m->broker_cnt; b++) {
        if (m->brokers[b].id == node) {
            return true;
        }
    }
    json_array_foreach(rows, i, row)
    {
        if (json_integer_value(json_object_get(row, "node")) == node) {
            return true;
        }
    }
    return false;
}

/* Brokers that are told of no more, but hold replicas: they are down. */
static void add_down(const struct rd_kafka_metadata *m, json_t *rows)
{
    for (int t = 0; t < m->topic_cnt; t++) {
        for (int i = 0; i < m->topics[t].partition_cnt; i++) {
            const struct rd_kafka_metadata_partition *p =
                &m->topics[t].partitions[i];
            for (int r = 0; r < p->replica_cnt; r++) {
                int leads, replicas;
                if (is_listed(m, rows, p->replicas[r])) {
                    continue;
                }
                count_node(m, p->replicas[r], &leads, &replicas);
                json_array_append_new(
                    rows, json_pack("{s:i, s:s, s:n, s:n, s:b, s:i, s:i}",
                                    "node", p->replicas[r], "state", "down",
                                    "host", "port", "controller", 0, "leads",
                                    leads, "replicas", replicas));
            }
        }
    }
}

static json_t *broker_rows(const struct rd_kafka_metadata *m,
                           int32_t controller)
{
    json_t *rows = json_array();
    qsort(m->brokers, (size_t)m->broker_cnt, sizeof *m->brokers,
          compare_brokers);
    for (int i = 0; i < m->broker_cnt; i++) {
        const struct rd_kafka_metadata_broker *b = &m->brokers[i];
        int leads, replicas;
        count_node(m, b->id, &leads, &replicas);
        json_array_append_new(
            rows, json_pack("{s:i, s:s, s:s, s:i, s:b, s:i, s:i}", "node",
                            b->id, "state", "up", "host", b->host, "port",
                            b->port, "controller", b->id == controller, "leads",
                            leads, "replicas", replicas));
    }
    add_down(m, rows);
    return rows;
}

static void print_status(const struct cli *cli, json_t *status)
{
    static const struct output_column columns[] = {
        {"NODE", "node", true, false},
        {"STATE", "state", false, false},
        {"HOST", "host", false, false},
        {"PORT", "port", true, false},
        {"CONTROLLER", "controller", false, false},
        {"LEADS", "leads", true, false},
        {"REPLICAS", "replicas", true, false},
        {0}};
    if (cli_output(cli) == OUTPUT_JSON) {
        output_json(status);
        return;
    }
    const char *id = json_string_value(json_object_get(status, "cluster"));
    printf(
        "cluster %s: %d topics, %d partitions, %d without a leader, %d "
        "under-replicated\n\n",
        id != NULL ? id : "-",
        (int)json_integer_value(json_object_get(status, "topics")),
        (int)json_integer_value(json_object_get(status, "partitions")),
        (int)json_integer_value(json_object_get(status, "leaderless")),
        (int)json_integer_value(json_object_get(status, "under_replicated")));
    output_table(cli, json_object_get(status, "brokers"), columns);
}

int cluster_status_run(struct cli *cli)
{
    int status = EXIT_FAILED;
    cli_output(cli);
    rd_kafka_t *rk = client_admin(cli);
    const struct rd_kafka_metadata *m =
        rk != NULL ? client_metadata(cli, rk, &status) : NULL;
    if (m != NULL) {
        char *id = rd_kafka_clusterid(rk, 1000);
        int32_t controller = rd_kafka_controllerid(rk, 1000);
        struct totals sum = count_all(m);
        json_t *all = json_pack(
            "{s:s?, s:i, s:i, s:i, s:i, s:i, s:o}", "cluster", id, "controller",
            (int)controller, "topics", m->topic_cnt, "partitions",
            sum.partitions, "leaderless", sum.leaderless, "under_replicated",
            sum.under_replicated, "brokers", broker_rows(m, controller));
        print_status(cli, all);
        json_decref(all);
        rd_kafka_mem_free(rk, id);
        rd_kafka_metadata_destroy(m);
    }
    if (rk != NULL) {
        rd_kafka_destroy(rk);
    }
    return status;
}
