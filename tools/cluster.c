#include "tools/cluster.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/client.h"
#include "tools/output.h"
#include "tools/probe.h"

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

static json_t *status_json(rd_kafka_t *rk, const struct rd_kafka_metadata *m)
{
    char *id = rd_kafka_clusterid(rk, 1000);
    int32_t controller = rd_kafka_controllerid(rk, 1000);
    struct totals sum = count_all(m);
    json_t *all = json_pack(
        "{s:s?, s:i, s:i, s:i, s:i, s:i, s:o}", "cluster", id, "controller",
        (int)controller, "topics", m->topic_cnt, "partitions", sum.partitions,
        "leaderless", sum.leaderless, "under_replicated", sum.under_replicated,
        "brokers", broker_rows(m, controller));
    rd_kafka_mem_free(rk, id);
    return all;
}

int cluster_status_run(struct cli *cli)
{
    int status = EXIT_FAILED;
    cli_output(cli);
    rd_kafka_t *rk = client_admin(cli);
    const struct rd_kafka_metadata *m =
        rk != NULL ? client_metadata(cli, rk, &status) : NULL;
    if (m != NULL) {
        json_t *all = status_json(rk, m);
        print_status(cli, all);
        json_decref(all);
        rd_kafka_metadata_destroy(m);
    }
    if (rk != NULL) {
        rd_kafka_destroy(rk);
    }
    return status;
}

/* ---- health -------------------------------------------------------------- */

#define HEALTH_AGAIN_MS 500
#define PROBE_MS 5000  /* a broker that needs longer is not well */
#define EXAMPLES_MAX 3 /* partitions named in a reason */

const struct cli_option cluster_health_options[] = {
    CLI_CLIENT_OPTIONS,
    {"until-healthy", 0, NULL, "ask again until it is, or --wait is over"},
    CLI_OUTPUT_OPTION,
    CLI_WAIT_OPTION,
    {0}};
const char cluster_health_more[] =
    "Healthy is: a controller, every broker that holds replicas up and "
    "answering at\nthe address it tells clients, every partition with a leader "
    "and all its replicas\nin sync. Exit status 0 when it is, 1 when not, 124 "
    "when it did not become so in\ntime. Example, for scripts that restart "
    "brokers:\n"
    "  flotilla cluster health --until-healthy --wait 120\n";

__attribute__((format(printf, 2, 3))) static void add_reason(json_t *reasons,
                                                             const char *format,
                                                             ...)
{
    char text[600];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    json_array_append_new(reasons, json_string(text));
}

static bool is_bad(const struct rd_kafka_metadata_partition *p, bool leaderless)
{
    return leaderless ? p->leader < 0 : p->isr_cnt < p->replica_cnt;
}

/* "7 partitions have no leader: orders/3, orders/9, ..." */
static void add_partitions(json_t *reasons, const struct rd_kafka_metadata *m,
                           bool leaderless, const char *what)
{
    char names[400] = "";
    int n = 0;
    for (int t = 0; t < m->topic_cnt; t++) {
        for (int i = 0; i < m->topics[t].partition_cnt; i++) {
            size_t used = strlen(names);
            if (!is_bad(&m->topics[t].partitions[i], leaderless)) {
                continue;
            }
            if (n++ < EXAMPLES_MAX) {
                snprintf(names + used, sizeof names - used, "%s%.100s/%d",
                         n > 1 ? ", " : "", m->topics[t].topic,
                         m->topics[t].partitions[i].id);
            }
        }
    }
    if (n > 0) {
        add_reason(reasons, "%d partition%s %s: %s%s", n, n == 1 ? "" : "s",
                   what, names, n > EXAMPLES_MAX ? ", ..." : "");
    }
}

/* The cluster takes a while to see that one is gone; and it does not see
 * whether clients reach one by the address that it tells them. */
static void add_silent(json_t *reasons, json_t *broker, int timeout_ms)
{
    char address[300], why[256];
    struct probe probe;
    const char *host = json_string_value(json_object_get(broker, "host"));
    bool v6 = strchr(host, ':') != NULL;
    snprintf(address, sizeof address, "%s%.250s%s:%d", v6 ? "[" : "", host,
             v6 ? "]" : "",
             (int)json_integer_value(json_object_get(broker, "port")));
    if (!probe_broker(address, timeout_ms, &probe, why, sizeof why)) {
        add_reason(reasons, "broker %d does not answer (%s)",
                   (int)json_integer_value(json_object_get(broker, "node")),
                   why);
    }
}

static json_t *reasons_of(const struct cli *cli,
                          const struct rd_kafka_metadata *m, json_t *all)
{
    json_t *reasons = json_array();
    size_t i;
    json_t *row;
    if (json_integer_value(json_object_get(all, "controller")) < 0) {
        add_reason(reasons, "there is no controller");
    }
    json_array_foreach(json_object_get(all, "brokers"), i, row)
    {
        if (strcmp(json_string_value(json_object_get(row, "state")), "up") !=
            0) {
            add_reason(reasons, "broker %d is down",
                       (int)json_integer_value(json_object_get(row, "node")));
        } else {
            int wait = client_timeout_ms(cli);
            add_silent(reasons, row, wait < PROBE_MS ? wait : PROBE_MS);
        }
    }
    add_partitions(reasons, m, true, "without a leader");
    add_partitions(reasons, m, false, "with replicas that are not in sync");
    return reasons;
}

static void print_health(const struct cli *cli, json_t *all)
{
    size_t i;
    json_t *reason;
    json_t *reasons = json_object_get(all, "reasons");
    if (cli_output(cli) == OUTPUT_JSON) {
        output_json(all);
        return;
    }
    if (json_array_size(reasons) == 0) {
        printf("healthy: %d brokers up, %d partitions, all replicas in sync\n",
               (int)json_array_size(json_object_get(all, "brokers")),
               (int)json_integer_value(json_object_get(all, "partitions")));
    }
    json_array_foreach(reasons, i, reason)
    {
        printf("not healthy: %s\n", json_string_value(reason));
    }
}

/* NULL: nobody answers; *status, and a sentence was printed. */
static json_t *health(const struct cli *cli, rd_kafka_t *rk, int *status)
{
    const struct rd_kafka_metadata *m = client_metadata(cli, rk, status);
    if (m == NULL) {
        return NULL;
    }
    json_t *all = status_json(rk, m);
    json_t *reasons = reasons_of(cli, m, all);
    bool healthy = json_array_size(reasons) == 0;
    json_object_set_new(all, "healthy", json_boolean(healthy));
    json_object_set_new(all, "reasons", reasons);
    *status = healthy ? EXIT_DONE : EXIT_FAILED;
    rd_kafka_metadata_destroy(m);
    return all;
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* A cluster that is being started is waited for in silence. */
static void await_answer(const struct cli *cli, rd_kafka_t *rk, int64_t end)
{
    const struct rd_kafka_metadata *m = NULL;
    while (cli_has(cli, "until-healthy") && now_ms() < end &&
           rd_kafka_metadata(rk, 0, NULL, &m, HEALTH_AGAIN_MS) !=
               RD_KAFKA_RESP_ERR_NO_ERROR) {
        rd_kafka_poll(rk, HEALTH_AGAIN_MS);
    }
    if (m != NULL) {
        rd_kafka_metadata_destroy(m);
    }
}

int cluster_health_run(struct cli *cli)
{
    int status = EXIT_FAILED;
    int64_t end = now_ms() + client_timeout_ms(cli);
    cli_output(cli);
    rd_kafka_t *rk = client_admin(cli);
    if (rk == NULL) {
        return status;
    }
    await_answer(cli, rk, end);
    json_t *all = health(cli, rk, &status);
    while (all != NULL && status != EXIT_DONE &&
           cli_has(cli, "until-healthy")) {
        if (now_ms() > end) {
            status = EXIT_TIMED_OUT;
            break;
        }
        rd_kafka_poll(rk, HEALTH_AGAIN_MS);
        json_decref(all);
        all = health(cli, rk, &status);
    }
    if (all != NULL) {
        print_health(cli, all);
        json_decref(all);
    }
    rd_kafka_destroy(rk);
    return status;
}
