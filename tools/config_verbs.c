/* The requests are sent by wire_call: the client library replaces all of a
 * resource's keys where one shall be changed. */
#include "tools/config_verbs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/kafka_error.h"
#include "base/mem.h"
#include "schema/apis.h"
#include "schema/describe_configs.h"
#include "schema/incremental_alter_configs.h"
#include "tools/client.h"
#include "tools/output.h"
#include "tools/wire_call.h"

#define DESCRIBE_VERSION 4
#define ALTER_VERSION 1
#define KEYS_MAX 256
#define ANSWER_BYTES_MAX (16 << 20)

enum { OP_SET = 0, OP_DELETE = 1 };

#define ENTITY_OPTIONS                                                       \
    {"topic", 't', "NAME", "the configuration of a topic"},                  \
    {                                                                        \
        "node", 'n', "ID", "of one broker (default: what all brokers share)" \
    }

const struct cli_option config_get_options[] = {
    CLI_CLIENT_OPTIONS,
    ENTITY_OPTIONS,
    {"all", 'a', NULL, "also what is at its default"},
    CLI_OUTPUT_OPTION,
    CLI_WAIT_OPTION,
    {0}};
const struct cli_option config_set_options[] = {
    CLI_CLIENT_OPTIONS,
    ENTITY_OPTIONS,
    {"unset", 'u', "KEY", "back to the default"},
    {"dry-run", 0, NULL, "only check, and show what would change"},
    CLI_OUTPUT_OPTION,
    CLI_WAIT_OPTION,
    {0}};
const struct cli_option topic_alter_options[] = {
    CLI_CLIENT_OPTIONS,
    {"config", 'c', "KEY=VALUE", "configuration of the topic"},
    {"unset", 'u', "KEY", "back to the default"},
    {"dry-run", 0, NULL, "only check, and show what would change"},
    CLI_OUTPUT_OPTION,
    CLI_WAIT_OPTION,
    {0}};

const char config_get_more[] =
    "Without KEYs: those that were changed. -o wide says what each is for.\n"
    "Examples:\n"
    "  flotilla config get --topic orders retention.ms\n"
    "  flotilla config get --node 1 --all -o wide\n";
const char config_set_more[] =
    "Examples:\n"
    "  flotilla config set --topic orders retention.ms=3600000\n"
    "  flotilla config set log.retention.ms=86400000\n"
    "  flotilla config set --topic orders --unset retention.ms\n";

/* ---- the resource -------------------------------------------------------- */
enum { RESOURCE_TOPIC = 2, RESOURCE_BROKER = 4 }; /* Kafka's */

struct resource {
    int8_t type;
    char name[256];
    char text[300];      /* for people */
    char addresses[300]; /* of the one broker that knows; "": any does */
};

static struct resource topic_resource(const char *name)
{
    struct resource r = {.type = RESOURCE_TOPIC};
    snprintf(r.name, sizeof r.name, "%s", name);
    snprintf(r.text, sizeof r.text, "topic %s", name);
    return r;
}

static struct resource given_resource(const struct cli *cli)
{
    const char *topic = cli_value(cli, "topic", NULL);
    int64_t node = cli_number(cli, "node", -1, 0, INT32_MAX);
    if (topic != NULL && node >= 0) {
        cli_usage(cli, "--topic and --node exclude each other.");
    }
    if (topic != NULL) {
        return topic_resource(topic);
    }
    struct resource r = {.type = RESOURCE_BROKER};
    if (node < 0) {
        snprintf(r.text, sizeof r.text, "all brokers");
    } else {
        snprintf(r.name, sizeof r.name, "%lld", (long long)node);
        snprintf(r.text, sizeof r.text, "broker %s", r.name);
    }
    return r;
}

/* What one broker has, only that broker tells and changes. False: *status, a
 * sentence was printed. */
static bool find_broker(const struct cli *cli, struct resource *r, int *status)
{
    *status = EXIT_DONE;
    if (r->type != RESOURCE_BROKER || r->name[0] == '\0') {
        return true;
    }
    *status = EXIT_FAILED;
    rd_kafka_t *rk = client_admin(cli);
    const struct rd_kafka_metadata *m =
        rk != NULL ? client_metadata(cli, rk, status) : NULL;
    for (int i = 0; m != NULL && i < m->broker_cnt; i++) {
        const struct rd_kafka_metadata_broker *b = &m->brokers[i];
        bool v6 = strchr(b->host, ':') != NULL;
        if (b->id == atoi(r->name)) {
            snprintf(r->addresses, sizeof r->addresses, "%s%s%s:%d",
                     v6 ? "[" : "", b->host, v6 ? "]" : "", b->port);
        }
    }
    if (m != NULL && r->addresses[0] == '\0') {
        *status = cli_fail(cli, EXIT_NOT_FOUND,
                           "There is no %s up at %s; `flotilla cluster status` "
                           "shows those there are.",
                           r->text, client_addresses(cli));
    }
    if (m != NULL) {
        rd_kafka_metadata_destroy(m);
    }
    if (rk != NULL) {
        rd_kafka_destroy(rk);
    }
    return *status == EXIT_DONE;
}

static int refused(const struct cli *cli, const struct resource *r,
                   const char *what, int16_t code, struct wire_str message)
{
    if (code == KAFKA_UNKNOWN_TOPIC_OR_PARTITION && r->type == RESOURCE_TOPIC) {
        return client_no_topic(cli, r->name);
    }
    const char *text = message.n > 0 ? message.p : kafka_error_name(code);
    int n = message.n > 0 ? message.n : (int)strlen(text);
    n -= n > 0 && text[n - 1] == '.';
    return cli_fail(cli, EXIT_FAILED,
                    "The configuration of %s %s: %.*s (%s, %d).", r->text, what,
                    n, text, kafka_error_name(code), (int)code);
}

/* ---- asking -------------------------------------------------------------- */
struct answer {
    struct arena arena;
    void *frame;
    struct describe_configs_response response;
};

static void answer_free(struct answer *a)
{
    mem_free(a->frame);
    arena_free(&a->arena);
}

static bool call(const struct cli *cli, const struct resource *r, int16_t api,
                 int version, const void *request, struct arena *arena,
                 void *response, void **frame, int *status)
{
    char why[512];
    struct wire_call c = {.addresses = r->addresses[0] != '\0'
                                           ? r->addresses
                                           : client_addresses(cli),
                          .timeout_ms = client_timeout_ms(cli),
                          .api = api,
                          .version = version};
    arena_init(arena, ANSWER_BYTES_MAX);
    if (wire_call(&c, request, arena, response, frame, why, sizeof why)) {
        return true;
    }
    *status = cli_fail(cli, EXIT_FAILED,
                       "No broker answers (%s). Is one running there? Another "
                       "address is given by -b or FLOTILLA_BOOTSTRAP_SERVER.",
                       why);
    return false;
}

/* The configuration now; false: *status, a sentence was printed. */
static bool ask(const struct cli *cli, const struct resource *r,
                struct wire_str *keys, int n_keys, struct answer *out,
                int *status)
{
    struct describe_configs_request_resource resource = {
        .resource_type = r->type,
        .resource_name = wire_str_of(r->name),
        .configuration_keys = keys,
        .n_configuration_keys = n_keys > 0 ? n_keys : -1};
    struct describe_configs_request request = {.resources = &resource,
                                               .n_resources = 1,
                                               .include_synonyms = true,
                                               .include_documentation = true};
    *status = EXIT_DONE;
    if (!call(cli, r, API_DESCRIBE_CONFIGS, DESCRIBE_VERSION, &request,
              &out->arena, &out->response, &out->frame, status)) {
        answer_free(out);
        return false;
    }
    if (out->response.n_results != 1) {
        *status = cli_fail(cli, EXIT_FAILED, "The answer is not whole.");
    } else if (out->response.results[0].error_code != 0) {
        *status = refused(cli, r, "cannot be read",
                          out->response.results[0].error_code,
                          out->response.results[0].error_message);
    }
    if (*status != EXIT_DONE) {
        answer_free(out);
    }
    return *status == EXIT_DONE;
}

static const struct describe_configs_response_config *find(
    const struct answer *a, struct wire_str key)
{
    const struct describe_configs_response_result *r = &a->response.results[0];
    for (int i = 0; i < r->n_configs; i++) {
        if (wire_str_equal(r->configs[i].name, key)) {
            return &r->configs[i];
        }
    }
    return NULL;
}

/* ---- config get ---------------------------------------------------------- */
static json_t *json_str(struct wire_str s)
{
    return s.n < 0 ? json_null() : json_stringn(s.p, (size_t)s.n);
}

const char *config_source_name(int source)
{
    static const char *const names[] = {"unknown",
                                        "topic",
                                        "broker",
                                        "all brokers",
                                        "server.properties",
                                        "default",
                                        "broker logger",
                                        "client metrics",
                                        "group"};
    return source < 0 || (size_t)source >= sizeof names / sizeof *names
               ? "unknown"
               : names[source];
}

static const char *type_name(int8_t type)
{
    static const char *const names[] = {"unknown", "boolean", "string", "int",
                                        "short",   "long",    "double", "list",
                                        "class",   "password"};
    return type < 0 || (size_t)type >= sizeof names / sizeof *names
               ? "unknown"
               : names[type];
}

enum { SOURCE_DEFAULT = 5 };

static json_t *config_row(const struct describe_configs_response_config *c)
{
    json_t *synonyms = json_array();
    for (int i = 0; i < c->n_synonyms; i++) {
        json_array_append_new(
            synonyms,
            json_pack("{s:o, s:o, s:s}", "key", json_str(c->synonyms[i].name),
                      "value", json_str(c->synonyms[i].value), "source",
                      config_source_name(c->synonyms[i].source)));
    }
    return json_pack("{s:o, s:o, s:s, s:s, s:b, s:b, s:o, s:o}", "key",
                     json_str(c->name), "value", json_str(c->value), "source",
                     config_source_name(c->config_source), "type",
                     type_name(c->config_type), "read_only", c->read_only,
                     "sensitive", c->is_sensitive, "synonyms", synonyms,
                     "documentation", json_str(c->documentation));
}

static void print_configs(const struct cli *cli, json_t *rows)
{
    static const struct output_column columns[] = {
        {"KEY", "key", false, false},
        {"VALUE", "value", false, false},
        {"SOURCE", "source", false, false},
        {"TYPE", "type", false, true},
        {"READ-ONLY", "read_only", false, true},
        {"DOCUMENTATION", "documentation", false, true},
        {0}};
    if (cli_output(cli) == OUTPUT_JSON) {
        output_json(rows);
    } else {
        output_table(cli, rows, columns);
    }
}

static bool is_all_brokers(const struct resource *r)
{
    return r->type == RESOURCE_BROKER && r->name[0] == '\0';
}

static int no_key(const struct cli *cli, const struct resource *r,
                  const char *key)
{
    if (is_all_brokers(r)) {
        return cli_fail(cli, EXIT_NOT_FOUND,
                        "%s is not set for all brokers; `flotilla config get "
                        "--node ID %s` shows what one of them has.",
                        key, key);
    }
    return cli_fail(
        cli, EXIT_NOT_FOUND,
        "There is no key %s for %s; `flotilla config get --%s --all`"
        " shows those there are.",
        key, r->text, r->type == RESOURCE_TOPIC ? "topic NAME" : "node ID");
}

int config_get_run(struct cli *cli)
{
    struct resource r = given_resource(cli);
    struct answer a;
    int status;
    bool everything = cli_has(cli, "all") || cli_n_arguments(cli) > 0;
    struct wire_str keys[KEYS_MAX];
    int n_keys = cli_n_arguments(cli);
    cli_output(cli);
    if (n_keys > KEYS_MAX) {
        cli_usage(cli, "More than %d keys.", KEYS_MAX);
    }
    for (int i = 0; i < n_keys; i++) {
        keys[i] = wire_str_of(cli_argument(cli, i));
    }
    if (!find_broker(cli, &r, &status) ||
        !ask(cli, &r, keys, n_keys, &a, &status)) {
        return status;
    }
    for (int i = 0; i < n_keys; i++) {
        if (find(&a, keys[i]) == NULL) {
            status = no_key(cli, &r, cli_argument(cli, i));
        }
    }
    const struct describe_configs_response_result *found =
        &a.response.results[0];
    json_t *rows = json_array();
    for (int i = 0; i < found->n_configs; i++) {
        if (everything || found->configs[i].config_source != SOURCE_DEFAULT) {
            json_array_append_new(rows, config_row(&found->configs[i]));
        }
    }
    if (json_array_size(rows) > 0 || cli_output(cli) == OUTPUT_JSON) {
        print_configs(cli, rows);
    } else if (status == EXIT_DONE) {
        printf(is_all_brokers(&r)
                   ? "Nothing is set for all brokers; --node ID shows what one "
                     "of them has.\n"
                   : "Everything is at its default; --all shows it.\n");
    }
    json_decref(rows);
    answer_free(&a);
    return status;
}

/* ---- config set, topic alter --------------------------------------------- */
struct changes {
    int n;
    struct incremental_alter_configs_request_config list[KEYS_MAX];
};

static struct incremental_alter_configs_request_config *add_change(
    const struct cli *cli, struct changes *c)
{
    if (c->n == KEYS_MAX) {
        cli_usage(cli, "More than %d keys.", KEYS_MAX);
    }
    return &c->list[c->n++];
}

static void add_set(const struct cli *cli, struct changes *c, const char *text)
{
    const char *equals = strchr(text, '=');
    if (equals == NULL || equals == text) {
        cli_usage(cli, "%s: expected KEY=VALUE.", text);
    }
    *add_change(cli, c) = (struct incremental_alter_configs_request_config){
        .name = {text, (int32_t)(equals - text)},
        .config_operation = OP_SET,
        .value = wire_str_of(equals + 1)};
}

static void add_unsets(const struct cli *cli, struct changes *c)
{
    const char *text;
    for (int i = 0; (text = cli_value_at(cli, "unset", i)) != NULL; i++) {
        *add_change(cli, c) = (struct incremental_alter_configs_request_config){
            .name = wire_str_of(text),
            .config_operation = OP_DELETE,
            .value = WIRE_NULL_STR};
    }
}

static int send_changes(const struct cli *cli, const struct resource *r,
                        struct changes *c)
{
    struct incremental_alter_configs_request_resource resource = {
        .resource_type = r->type,
        .resource_name = wire_str_of(r->name),
        .configs = c->list,
        .n_configs = c->n};
    struct incremental_alter_configs_request request = {
        .resources = &resource,
        .n_resources = 1,
        .validate_only = cli_has(cli, "dry-run")};
    struct incremental_alter_configs_response response;
    struct arena arena;
    void *frame;
    int status = EXIT_DONE;
    if (call(cli, r, API_INCREMENTAL_ALTER_CONFIGS, ALTER_VERSION, &request,
             &arena, &response, &frame, &status)) {
        if (response.n_responses != 1) {
            status = cli_fail(cli, EXIT_FAILED, "The answer is not whole.");
        } else if (response.responses[0].error_code != 0) {
            status = refused(cli, r, "was not changed",
                             response.responses[0].error_code,
                             response.responses[0].error_message);
        }
    }
    mem_free(frame);
    arena_free(&arena);
    return status;
}

/* Before and after, as the server sees them; with --dry-run after is what was
 * asked for. */
static json_t *change_row(
    const struct answer *before, const struct answer *after,
    const struct incremental_alter_configs_request_config *change)
{
    const struct describe_configs_response_config *old =
        find(before, change->name);
    const struct describe_configs_response_config *now =
        after == NULL ? NULL : find(after, change->name);
    return json_pack("{s:o, s:o, s:o}", "key", json_str(change->name), "before",
                     old == NULL ? json_null() : json_str(old->value), "after",
                     now != NULL     ? json_str(now->value)
                     : after == NULL ? json_str(change->value)
                                     : json_null());
}

static void print_changes(const struct cli *cli, const struct answer *before,
                          const struct answer *after, const struct changes *c)
{
    static const struct output_column columns[] = {
        {"KEY", "key", false, false},
        {"BEFORE", "before", false, false},
        {"AFTER", "after", false, false},
        {0}};
    json_t *rows = json_array();
    for (int i = 0; i < c->n; i++) {
        json_array_append_new(rows, change_row(before, after, &c->list[i]));
    }
    if (cli_output(cli) == OUTPUT_JSON) {
        output_json(rows);
    } else {
        output_table(cli, rows, columns);
    }
    json_decref(rows);
}

/* Taking back a key that there is not is a slip: the server is silent about
 * it. What all brokers have is known by its changes alone. */
static int check_unsets(const struct cli *cli, const struct resource *r,
                        const struct answer *before)
{
    int status = EXIT_DONE;
    const char *key;
    for (int i = 0; (key = cli_value_at(cli, "unset", i)) != NULL; i++) {
        if (!is_all_brokers(r) && find(before, wire_str_of(key)) == NULL) {
            status = no_key(cli, r, key);
        }
    }
    return status;
}

static int change(const struct cli *cli, struct resource *r, struct changes *c)
{
    struct wire_str keys[KEYS_MAX];
    struct answer before;
    struct answer after;
    int status;
    for (int i = 0; i < c->n; i++) {
        keys[i] = c->list[i].name;
    }
    if (c->n == 0) {
        cli_usage(cli, "Nothing to change.");
    }
    cli_output(cli);
    if (!find_broker(cli, r, &status) ||
        !ask(cli, r, keys, c->n, &before, &status)) {
        return status;
    }
    status = check_unsets(cli, r, &before);
    if (status == EXIT_DONE) {
        status = send_changes(cli, r, c);
    }
    if (status == EXIT_DONE && cli_has(cli, "dry-run")) {
        print_changes(cli, &before, NULL, c);
    } else if (status == EXIT_DONE &&
               ask(cli, r, keys, c->n, &after, &status)) {
        print_changes(cli, &before, &after, c);
        answer_free(&after);
    }
    answer_free(&before);
    return status;
}

int config_set_run(struct cli *cli)
{
    struct resource r = given_resource(cli);
    struct changes c = {.n = 0};
    for (int i = 0; i < cli_n_arguments(cli); i++) {
        add_set(cli, &c, cli_argument(cli, i));
    }
    add_unsets(cli, &c);
    return change(cli, &r, &c);
}

int topic_alter_run(struct cli *cli)
{
    struct resource r = topic_resource(cli_argument(cli, 0));
    struct changes c = {.n = 0};
    const char *text;
    for (int i = 0; (text = cli_value_at(cli, "config", i)) != NULL; i++) {
        add_set(cli, &c, text);
    }
    add_unsets(cli, &c);
    return change(cli, &r, &c);
}
