#include "tools/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_WAIT_S 30
#define SILENCE_MS 2000 /* people want to know then what is waited for */

/* -X bootstrap.servers=..., as Kafka's users may have it; NULL: not given. */
static const char *property_addresses(const struct cli *cli)
{
    static const char key[] = "bootstrap.servers=";
    const char *text;
    const char *found = NULL;
    for (int i = 0; (text = cli_value_at(cli, "property", i)) != NULL; i++) {
        if (strncmp(text, key, sizeof key - 1) == 0) {
            found = text + sizeof key - 1;
        }
    }
    return found;
}

const char *client_addresses(const struct cli *cli)
{
    const char *env = getenv("FLOTILLA_BOOTSTRAP_SERVER");
    const char *otherwise = property_addresses(cli);
    if (otherwise == NULL) {
        otherwise = env != NULL && env[0] != '\0' ? env : "localhost:9092";
    }
    return cli_value(cli, "bootstrap-server", otherwise);
}

int client_timeout_ms(const struct cli *cli)
{
    return (int)cli_number(cli, "wait", DEFAULT_WAIT_S, 1, 86400) * 1000;
}

void client_set(const struct cli *cli, rd_kafka_conf_t *conf,
                const char *property, const char *value)
{
    char why[512];
    if (rd_kafka_conf_set(conf, property, value, why, sizeof why) !=
        RD_KAFKA_CONF_OK) {
        cli_usage(cli, "%s", why);
    }
}

/* librdkafka's own lines are for its debugging (-X debug=…). */
static void on_log(const rd_kafka_t *rk, int level, const char *fac,
                   const char *text)
{
    (void)rk;
    if (level >= 7) {
        fprintf(stderr, "%s: %s\n", fac, text);
    }
}

/* The newest reason why a broker cannot be reached. Written by the thread that
 * polls, read by the same one. */
static char newest_reason[256];

/* "sasl_..://host:port/bootstrap: Connect to ... failed: Connection refused
 * (after 0ms in state CONNECT)": what the connection says is kept. */
static void on_error(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
    (void)rk;
    (void)opaque;
    if (err == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
        return;
    }
    const char *begin = strstr(reason, ": ");
    begin = begin != NULL ? begin + 2 : reason;
    const char *end = strstr(begin, " (after ");
    int n = (int)(end != NULL ? (size_t)(end - begin) : strlen(begin));
    snprintf(newest_reason, sizeof newest_reason, "%.*s", n, begin);
}

rd_kafka_conf_t *client_conf(const struct cli *cli)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set_log_cb(conf, on_log);
    rd_kafka_conf_set_error_cb(conf, on_error);
    client_set(cli, conf, "bootstrap.servers", client_addresses(cli));
    client_set(cli, conf, "client.id", "flotilla");
    return conf;
}

/* -X goes before what a command sets; -b before both. */
static void set_properties(const struct cli *cli, rd_kafka_conf_t *conf)
{
    const char *text;
    for (int i = 0; (text = cli_value_at(cli, "property", i)) != NULL; i++) {
        char key[256];
        const char *value =
            cli_key_value(cli, "property", text, key, sizeof key);
        if (strcmp(key, "bootstrap.servers") != 0) {
            client_set(cli, conf, key, value);
        }
    }
}

rd_kafka_t *client_new(const struct cli *cli, rd_kafka_type_t type,
                       rd_kafka_conf_t *conf)
{
    char why[512];
    set_properties(cli, conf);
    rd_kafka_t *rk = rd_kafka_new(type, conf, why, sizeof why);
    if (rk == NULL) {
        rd_kafka_conf_destroy(conf);
        cli_fail(cli, EXIT_FAILED, "Cannot make a client: %s.", why);
    }
    return rk;
}

rd_kafka_t *client_admin(const struct cli *cli)
{
    /* a consumer: a producer's requests for metadata create topics */
    return client_new(cli, RD_KAFKA_CONSUMER, client_conf(cli));
}

static int status_of(rd_kafka_resp_err_t err)
{
    switch ((int)err) {
        case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
        case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
        case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
        case RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND:
            return EXIT_NOT_FOUND;
        case RD_KAFKA_RESP_ERR__TIMED_OUT:
        case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE:
        case RD_KAFKA_RESP_ERR__MSG_TIMED_OUT:
        case RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT:
            return EXIT_TIMED_OUT;
        default:
            return EXIT_FAILED;
    }
}

int client_fail(const struct cli *cli, rd_kafka_resp_err_t err,
                const char *what, const char *detail)
{
    if (detail == NULL || detail[0] == '\0') {
        detail = rd_kafka_err2str(err);
    }
    int n = (int)strlen(detail);
    n -= n > 0 && detail[n - 1] == '.'; /* the sentence goes on */
    return cli_fail(cli, status_of(err), "%s: %.*s (%s, %d; asked %s).", what,
                    n, detail, rd_kafka_err2name(err), (int)err,
                    client_addresses(cli));
}

static int unreachable(const struct cli *cli, int status, const char *why)
{
    return cli_fail(cli, status,
                    "No broker answers at %s (%s). Is one running there? "
                    "Another address is given by -b or "
                    "FLOTILLA_BOOTSTRAP_SERVER.",
                    client_addresses(cli), why);
}

/* Why nobody answers: what the connection says, else the library. */
static const char *reason_of(rd_kafka_t *rk, rd_kafka_resp_err_t err)
{
    rd_kafka_poll(rk, 0); /* calls on_error */
    return newest_reason[0] != '\0' ? newest_reason : rd_kafka_err2str(err);
}

static const struct rd_kafka_metadata *ask(const struct cli *cli,
                                           rd_kafka_t *rk, int all_topics,
                                           int *status)
{
    const struct rd_kafka_metadata *metadata = NULL;
    int left = client_timeout_ms(cli);
    int first = left < SILENCE_MS ? left : SILENCE_MS;
    rd_kafka_resp_err_t err =
        rd_kafka_metadata(rk, all_topics, NULL, &metadata, first);
    left -= first;
    if (left > 0 && (err == RD_KAFKA_RESP_ERR__TRANSPORT ||
                     err == RD_KAFKA_RESP_ERR__TIMED_OUT)) {
        cli_fail(cli, EXIT_DONE,
                 "No broker answers at %s yet (%s); asking for %d s more "
                 "(--wait).",
                 client_addresses(cli), reason_of(rk, err), left / 1000);
        err = rd_kafka_metadata(rk, all_topics, NULL, &metadata, left);
    }
    if (err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        *status = EXIT_DONE;
        return metadata;
    }
    *status = unreachable(cli, status_of(err), reason_of(rk, err));
    return NULL;
}

const struct rd_kafka_metadata *client_metadata(const struct cli *cli,
                                                rd_kafka_t *rk, int *status)
{
    return ask(cli, rk, 1, status);
}

bool client_reach(const struct cli *cli, rd_kafka_t *rk, int *status)
{
    const struct rd_kafka_metadata *metadata = ask(cli, rk, 0, status);
    if (metadata != NULL) {
        rd_kafka_metadata_destroy(metadata);
    }
    return metadata != NULL;
}

int client_delete(struct cli *cli, const char *kind, client_deleting dry,
                  client_deleting really)
{
    int status = EXIT_FAILED;
    rd_kafka_t *rk = client_admin(cli);
    if (rk != NULL && client_reach(cli, rk, &status)) {
        json_t *rows = json_array();
        status = (cli_has(cli, "dry-run") ? dry : really)(cli, rk, rows);
        output_deletions(cli, rows, kind);
        json_decref(rows);
    }
    if (rk != NULL) {
        rd_kafka_destroy(rk);
    }
    return status;
}

const struct rd_kafka_metadata_topic *client_find_topic(
    const struct rd_kafka_metadata *metadata, const char *name)
{
    for (int i = 0; i < metadata->topic_cnt; i++) {
        if (strcmp(metadata->topics[i].topic, name) == 0) {
            return &metadata->topics[i];
        }
    }
    return NULL;
}

int client_no_topic(const struct cli *cli, const char *name)
{
    return cli_fail(cli, EXIT_NOT_FOUND,
                    "There is no topic %s at %s; `flotilla topic list` shows "
                    "those there are.",
                    name, client_addresses(cli));
}

int client_no_group(const struct cli *cli, const char *name)
{
    return cli_fail(cli, EXIT_NOT_FOUND,
                    "There is no group %s at %s; `flotilla group list` shows "
                    "those there are.",
                    name, client_addresses(cli));
}

void client_set_acks(const struct cli *cli, rd_kafka_conf_t *conf)
{
    const char *acks = cli_value(cli, "acks", "all");
    bool all = strcmp(acks, "all") == 0 || strcmp(acks, "-1") == 0;
    if (!all && strcmp(acks, "0") != 0 && strcmp(acks, "1") != 0) {
        cli_usage(cli, "--acks %s: expected 0, 1 or all.", acks);
    }
    client_set(cli, conf, "acks", acks);
    client_set(cli, conf, "enable.idempotence", all ? "true" : "false");
}

void client_call_begin(const struct cli *cli, rd_kafka_t *rk,
                       rd_kafka_admin_op_t op, struct client_call *call)
{
    char why[256];
    call->queue = rd_kafka_queue_new(rk);
    call->options = rd_kafka_AdminOptions_new(rk, op);
    call->event = NULL;
    /* some calls have no operation time-out; then this is refused */
    (void)rd_kafka_AdminOptions_set_operation_timeout(
        call->options, client_timeout_ms(cli), why, sizeof why);
    (void)rd_kafka_AdminOptions_set_request_timeout(
        call->options, client_timeout_ms(cli), why, sizeof why);
}

rd_kafka_event_t *client_call_wait(const struct cli *cli,
                                   struct client_call *call, int *status)
{
    call->event =
        rd_kafka_queue_poll(call->queue, client_timeout_ms(cli) + 5000);
    *status = EXIT_DONE;
    if (call->event == NULL) {
        *status = cli_fail(cli, EXIT_TIMED_OUT, "No answer from %s.",
                           client_addresses(cli));
        return NULL;
    }
    rd_kafka_resp_err_t err = rd_kafka_event_error(call->event);
    if (err == RD_KAFKA_RESP_ERR__TIMED_OUT ||
        err == RD_KAFKA_RESP_ERR__TRANSPORT) {
        *status = unreachable(cli, EXIT_TIMED_OUT,
                              rd_kafka_event_error_string(call->event));
        return NULL;
    }
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        *status = client_fail(cli, err, "The request failed",
                              rd_kafka_event_error_string(call->event));
        return NULL;
    }
    return call->event;
}

void client_call_end(struct client_call *call)
{
    if (call->event != NULL) {
        rd_kafka_event_destroy(call->event);
    }
    rd_kafka_AdminOptions_destroy(call->options);
    rd_kafka_queue_destroy(call->queue);
}
