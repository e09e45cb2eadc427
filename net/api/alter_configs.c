/* AlterConfigs (the whole set is replaced) and IncrementalAlterConfigs. What
 * depends on what is set now waits until this broker knows what the controller
 * does: it may lag behind a change that was answered elsewhere. */
#include <stdio.h>
#include <stdlib.h>

#include "net/api/api.h"
#include "schema/alter_configs.h"
#include "schema/incremental_alter_configs.h"

#define SYNC_WAIT_MS 5000

enum { OP_SET = 0, OP_DELETE = 1, OP_APPEND = 2, OP_SUBTRACT = 3 };

struct alter_call {
    struct request *rq;
    struct api_metadata_step step;
    bool incremental, validate_only;
    struct incremental_alter_configs_request some; /* incremental */
    struct alter_configs_request whole;
    enum kafka_error unsynced; /* what is set now is not known */
    int n;                     /* resources asked */
    struct alter_one {
        int8_t type;
        struct wire_str name;
        enum kafka_error error; /* decided here */
        const char *message;
        int sent; /* place among the changes, -1 */
    } * each;
    struct metadata_config_change *changes;
    int n_changes;
};

static void respond_one(struct alter_call *call, int i, int16_t *code,
                        struct wire_str *message)
{
    const struct alter_one *a = &call->each[i];
    *code = (int16_t)a->error;
    *message = wire_str_of(a->message);
    if (a->error == KAFKA_NONE && a->sent >= 0) {
        *code = api_metadata_result(&call->step, a->sent, message);
    }
}

static void respond_incremental(struct alter_call *call)
{
    struct request *rq = call->rq;
    struct incremental_alter_configs_response out;
    incremental_alter_configs_response_init(&out);
    out.responses = api_alloc(rq, (size_t)call->n, sizeof *out.responses);
    out.n_responses = call->n;
    for (int i = 0; i < call->n; i++) {
        out.responses[i].resource_type = call->each[i].type;
        out.responses[i].resource_name = call->each[i].name;
        respond_one(call, i, &out.responses[i].error_code,
                    &out.responses[i].error_message);
    }
    request_respond(rq, &incremental_alter_configs_response_message, &out);
}

static void respond_whole(struct alter_call *call)
{
    struct request *rq = call->rq;
    struct alter_configs_response out;
    alter_configs_response_init(&out);
    out.responses = api_alloc(rq, (size_t)call->n, sizeof *out.responses);
    out.n_responses = call->n;
    for (int i = 0; i < call->n; i++) {
        out.responses[i].resource_type = call->each[i].type;
        out.responses[i].resource_name = call->each[i].name;
        respond_one(call, i, &out.responses[i].error_code,
                    &out.responses[i].error_message);
    }
    request_respond(rq, &alter_configs_response_message, &out);
}

static void respond(struct alter_call *call)
{
    if (call->incremental) {
        respond_incremental(call);
    } else {
        respond_whole(call);
    }
}

static void alter_back(struct api_metadata_step *step)
{
    respond(step->rq->handler_data);
}

static void alter_start(struct api_metadata_step *step, struct metadata *m)
{
    struct alter_call *call = step->rq->handler_data;
    metadata_alter_configs(m, call->changes, call->n_changes,
                           call->validate_only, 30000, &step->call);
}

static void refuse(struct alter_one *a, enum kafka_error error,
                   const char *message)
{
    a->error = error;
    a->message = message;
}

/* Takes back what change_for gave. */
static void withdraw(struct alter_call *call, struct alter_one *a,
                     enum kafka_error error, const char *message)
{
    refuse(a, error, message);
    call->n_changes--;
    a->sent = -1;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool names_a_key_twice(struct request *rq,
                              const struct image_config *configs, int n)
{
    const char **names = api_alloc(rq, (size_t)n, sizeof(const char *));
    for (int i = 0; i < n; i++) {
        names[i] = configs[i].name;
    }
    qsort(names, (size_t)n, sizeof(const char *), by_name);
    for (int i = 1; i < n; i++) {
        if (strcmp(names[i - 1], names[i]) == 0) {
            return true;
        }
    }
    return false;
}

static int by_resource(const void *a, const void *b)
{
    const struct alter_one *x = *(struct alter_one *const *)a;
    const struct alter_one *y = *(struct alter_one *const *)b;
    int32_t n = x->name.n < y->name.n ? x->name.n : y->name.n;
    if (x->type != y->type) {
        return x->type - y->type;
    }
    int r = n > 0 ? memcmp(x->name.p, y->name.p, (size_t)n) : 0;
    return r != 0 ? r : (x->name.n > y->name.n) - (x->name.n < y->name.n);
}

/* Refuses what is named more than once. */
static void refuse_twice(struct alter_call *call)
{
    struct alter_one **order =
        api_alloc(call->rq, (size_t)call->n, sizeof(struct alter_one *));
    for (int i = 0; i < call->n; i++) {
        order[i] = &call->each[i];
    }
    qsort(order, (size_t)call->n, sizeof(struct alter_one *), by_resource);
    for (int i = 1; i < call->n; i++) {
        if (by_resource(&order[i - 1], &order[i]) == 0) {
            const char *why = "A resource is named more than once.";
            refuse(order[i - 1], KAFKA_INVALID_REQUEST, why);
            refuse(order[i], KAFKA_INVALID_REQUEST, why);
        }
    }
}

static enum config_scope scope_of(const struct metadata_config_change *c)
{
    return c->topic != NULL      ? CONFIG_TOPIC
           : c->resource != NULL ? c->scope
                                 : CONFIG_BROKER;
}

/* Finds what the resource is; NULL after refusing it. */
static struct metadata_config_change *change_for(struct alter_call *call,
                                                 struct alter_one *a)
{
    struct request *rq = call->rq;
    struct metadata_config_change *c = &call->changes[call->n_changes];
    if (a->error != KAFKA_NONE) {
        return NULL;
    }
    memset(c, 0, sizeof *c);
    char *name = api_cstr(rq, a->name);
    if (a->type == API_RESOURCE_TOPIC) {
        /* whether there is such a topic the controller says: this broker may
         * lag behind */
        if (!api_topic_name_valid(a->name)) {
            refuse(a,
                   a->name.n == 0 ? KAFKA_INVALID_REQUEST
                                  : KAFKA_INVALID_TOPIC_EXCEPTION,
                   NULL);
            return NULL;
        }
        c->topic = name;
    } else if (a->type == API_RESOURCE_BROKER) {
        char *end = NULL;
        long id = name[0] == '\0' ? -1 : strtol(name, &end, 10);
        if (end != NULL && (*end != '\0' || id < 0)) {
            refuse(a, KAFKA_INVALID_REQUEST,
                   "A broker resource is named by its id.");
            return NULL;
        }
        c->node = (node_id)id;
    } else if (a->type == API_RESOURCE_GROUP) {
        if (a->name.n <= 0) {
            refuse(a, KAFKA_INVALID_REQUEST,
                   "Default group resources are not allowed.");
            return NULL;
        }
        c->resource = name;
        c->scope = CONFIG_GROUP;
    } else {
        refuse(a, KAFKA_INVALID_REQUEST,
               "Only topics, brokers and groups have configurations here.");
        return NULL;
    }
    a->sent = call->n_changes++;
    return c;
}

static const char *current_value(struct alter_call *call,
                                 const struct metadata_config_change *c,
                                 const char *key)
{
    struct broker_shard *s = call->rq->shard;
    if (c->resource != NULL) {
        return image_resource_config(s->image, c->scope, c->resource, key);
    }
    if (c->topic == NULL) {
        const char *value = image_broker_config(s->image, c->node, key);
        const struct config_key *k = config_key_find(CONFIG_BROKER, key);
        /* as Kafka does: what is not set stands for the key's default */
        return value == NULL && k != NULL ? k->default_value : value;
    }
    const struct image_topic *t =
        image_topic(s->image, c->topic, strlen(c->topic));
    const struct config_key *k = config_key_find(CONFIG_TOPIC, key);
    int source = 0;
    if (t == NULL || k == NULL) {
        return NULL;
    }
    return config_topic_effective(s->image, t, broker_static_config(s->broker),
                                  broker_node(s->broker), k, &source);
}

static bool list_has(const char *list, const char *item)
{
    size_t n = strlen(item);
    for (const char *p = list; p != NULL && *p != '\0';) {
        size_t k = strcspn(p, ",");
        if (k == n && memcmp(p, item, n) == 0) {
            return true;
        }
        p += k + (p[k] == ',');
    }
    return false;
}

/* The list `have` with the items of `items` added, or taken away. */
static char *list_change(struct request *rq, const char *have,
                         const char *items, bool add)
{
    size_t room = strlen(have) + strlen(items) + 2;
    char *out = api_alloc(rq, 1, room);
    const char *from = add ? have : NULL;
    snprintf(out, room, "%s", from == NULL ? "" : from);
    const char *walk = add ? items : have;
    for (const char *p = walk; *p != '\0';) {
        size_t k = strcspn(p, ",");
        char *item = api_alloc(rq, 1, k + 1);
        memcpy(item, p, k);
        bool keep = add ? !list_has(out, item) : !list_has(items, item);
        if (k > 0 && keep) {
            size_t n = strlen(out);
            snprintf(out + n, room - n, "%s%s", n > 0 ? "," : "", item);
        }
        p += k + (p[k] == ',');
    }
    return out;
}

static void alter_incremental_one(
    struct alter_call *call, struct alter_one *a,
    const struct incremental_alter_configs_request_resource *in)
{
    struct request *rq = call->rq;
    struct metadata_config_change *c = change_for(call, a);
    if (c == NULL) {
        return;
    }
    struct image_config *configs =
        api_alloc(rq, (size_t)in->n_configs, sizeof *configs);
    for (int i = 0; i < in->n_configs; i++) {
        int8_t op = in->configs[i].config_operation;
        configs[i].name = api_cstr(rq, in->configs[i].name);
        configs[i].value = in->configs[i].value.n < 0 || op == OP_DELETE
                               ? NULL
                               : api_cstr(rq, in->configs[i].value);
        const struct config_key *k =
            config_key_find(scope_of(c), configs[i].name);
        bool list_op = op == OP_APPEND || op == OP_SUBTRACT;
        if (op < OP_SET || op > OP_SUBTRACT) {
            refuse(a, KAFKA_INVALID_REQUEST, "Unknown operation.");
        } else if (list_op && (k == NULL || k->type != CONFIG_LIST)) {
            refuse(a, KAFKA_INVALID_CONFIG,
                   "APPEND and SUBTRACT are for lists only.");
        } else if (op != OP_DELETE && configs[i].value == NULL) {
            refuse(a, KAFKA_INVALID_REQUEST, "A value is needed.");
        } else if (list_op) {
            const char *have = current_value(call, c, configs[i].name);
            configs[i].value = list_change(rq, have == NULL ? "" : have,
                                           configs[i].value, op == OP_APPEND);
        }
    }
    if (a->error == KAFKA_NONE &&
        names_a_key_twice(rq, configs, in->n_configs)) {
        refuse(a, KAFKA_INVALID_REQUEST, "A key is named more than once.");
    }
    if (a->error != KAFKA_NONE) {
        withdraw(call, a, a->error, a->message);
        return;
    }
    c->configs = configs;
    c->n_configs = in->n_configs;
}

/* What is set for the resource itself; NULL: nothing. */
static const char *set_value(const struct image *image,
                             const struct metadata_config_change *c,
                             const char *key)
{
    if (c->topic != NULL) {
        const struct image_topic *t =
            image_topic(image, c->topic, strlen(c->topic));
        return t == NULL ? NULL : image_topic_config(t, key);
    }
    return c->resource != NULL
               ? image_resource_config(image, c->scope, c->resource, key)
               : image_broker_config(image, c->node, key);
}

/* Everything that is overridden now and not named becomes default. */
static void alter_whole_one(struct alter_call *call, struct alter_one *a,
                            const struct alter_configs_request_resource *in)
{
    struct request *rq = call->rq;
    struct metadata_config_change *c = change_for(call, a);
    if (c == NULL) {
        return;
    }
    const struct config_key *keys = NULL;
    int n_keys = config_keys(scope_of(c), &keys);
    struct image_config *configs =
        api_alloc(rq, (size_t)(in->n_configs + n_keys), sizeof *configs);
    int n = 0;
    for (int i = 0; i < in->n_configs; i++) {
        configs[n].name = api_cstr(rq, in->configs[i].name);
        configs[n++].value = in->configs[i].value.n < 0
                                 ? NULL
                                 : api_cstr(rq, in->configs[i].value);
    }
    for (int i = 0; i < n_keys; i++) {
        const char *set = set_value(rq->shard->image, c, keys[i].name);
        bool named = false;
        for (int k = 0; k < in->n_configs; k++) {
            named = named || wire_str_is(in->configs[k].name, keys[i].name);
        }
        if (set != NULL && !named) {
            configs[n].name = arena_strdup(&rq->arena, keys[i].name);
            configs[n++].value = NULL;
        }
    }
    for (int i = 0; i < in->n_configs; i++) {
        if (configs[i].value == NULL) {
            withdraw(call, a, KAFKA_INVALID_REQUEST,
                     "Null value not supported for configs.");
            return;
        }
    }
    if (names_a_key_twice(rq, configs, in->n_configs)) {
        withdraw(call, a, KAFKA_INVALID_REQUEST,
                 "A key is named more than once.");
        return;
    }
    c->configs = configs;
    c->n_configs = n;
}

static void call_begin(struct alter_call *call)
{
    const struct incremental_alter_configs_request *some = &call->some;
    const struct alter_configs_request *whole = &call->whole;
    bool inc = call->incremental;
    call->validate_only = inc ? some->validate_only : whole->validate_only;
    call->n = inc ? some->n_resources : whole->n_resources;
    size_t n = (size_t)call->n;
    call->each = api_alloc(call->rq, n, sizeof *call->each);
    call->changes = api_alloc(call->rq, n, sizeof *call->changes);
    for (int i = 0; i < call->n; i++) {
        struct alter_one *a = &call->each[i];
        a->type = inc ? some->resources[i].resource_type
                      : whole->resources[i].resource_type;
        a->name = inc ? some->resources[i].resource_name
                      : whole->resources[i].resource_name;
        a->sent = -1;
        if (call->unsynced != KAFKA_NONE) {
            refuse(a, call->unsynced,
                   "This broker could not learn from the controller what is "
                   "set now.");
        }
    }
}

static void call_go(struct alter_call *call)
{
    if (call->n_changes == 0) {
        respond(call);
        return;
    }
    call->step =
        (struct api_metadata_step){.then = alter_start, .back = alter_back};
    api_metadata_begin(call->rq, &call->step);
}

static void alter(struct alter_call *call)
{
    call_begin(call);
    refuse_twice(call);
    for (int i = 0; i < call->n; i++) {
        struct alter_one *a = &call->each[i];
        if (call->incremental) {
            alter_incremental_one(call, a, &call->some.resources[i]);
        } else {
            alter_whole_one(call, a, &call->whole.resources[i]);
        }
    }
    call_go(call);
}

static void sync_start(struct api_metadata_step *step, struct metadata *m)
{
    metadata_sync(m, SYNC_WAIT_MS, &step->call);
}

static void sync_back(struct api_metadata_step *step)
{
    struct alter_call *call = step->rq->handler_data;
    call->unsynced = step->call.error;
    alter(call);
}

static void sync_first(struct alter_call *call)
{
    call->step =
        (struct api_metadata_step){.then = sync_start, .back = sync_back};
    api_metadata_begin(call->rq, &call->step);
}

/* Does a new value depend on the one that is set? */
static bool changes_lists(const struct incremental_alter_configs_request *in)
{
    for (int i = 0; i < in->n_resources; i++) {
        for (int k = 0; k < in->resources[i].n_configs; k++) {
            int8_t op = in->resources[i].configs[k].config_operation;
            if (op == OP_APPEND || op == OP_SUBTRACT) {
                return true;
            }
        }
    }
    return false;
}

void api_incremental_alter_configs(struct request *rq)
{
    struct alter_call *call = api_alloc(rq, 1, sizeof *call);
    call->rq = rq;
    call->incremental = true;
    rq->handler_data = call;
    if (!request_decode(rq, &incremental_alter_configs_request_message,
                        &call->some)) {
        return;
    }
    if (changes_lists(&call->some)) {
        sync_first(call);
    } else {
        alter(call);
    }
}

void api_alter_configs(struct request *rq)
{
    struct alter_call *call = api_alloc(rq, 1, sizeof *call);
    call->rq = rq;
    rq->handler_data = call;
    if (request_decode(rq, &alter_configs_request_message, &call->whole)) {
        sync_first(call);
    }
}
