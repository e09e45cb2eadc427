/* DescribeConfigs for topics, groups and brokers: effective values with their
 * source and synonyms. A broker's configuration is asked of that broker. */
#include <stdio.h>
#include <stdlib.h>

#include "net/api/api.h"
#include "schema/describe_configs.h"

enum {
    SOURCE_TOPIC = 1,
    SOURCE_DYNAMIC_BROKER = 2,
    SOURCE_DYNAMIC_DEFAULT = 3,
    SOURCE_STATIC = 4,
    SOURCE_DEFAULT = 5,
    SOURCE_GROUP = 8
};

struct describe {
    struct request *rq;
    const struct describe_configs_request *in;
    const struct describe_configs_request_resource *resource;
    struct describe_configs_response_result *out;
};

static bool asked_for(const struct describe_configs_request_resource *r,
                      const char *name)
{
    if (r->n_configuration_keys <= 0) {
        return true;
    }
    for (int i = 0; i < r->n_configuration_keys; i++) {
        if (wire_str_is(r->configuration_keys[i], name)) {
            return true;
        }
    }
    return false;
}

static void add_synonym(struct describe_configs_response_config *c,
                        struct request *rq, const char *name, const char *value,
                        int source)
{
    c->synonyms[c->n_synonyms++] = (struct describe_configs_response_synonym){
        .name = wire_str_of(name),
        .value = api_copy(rq, value),
        .source = (int8_t)source,
    };
}

/* Where the broker's value of `key` comes from, best first; the first one is
 * effective. */
static void broker_synonyms(struct describe *d, const char *key,
                            struct describe_configs_response_config *c)
{
    struct request *rq = d->rq;
    const struct broker *b = rq->shard->broker;
    const struct image *image = rq->shard->image;
    const struct broker_config *config = broker_static_config(b);
    const char *v = image_broker_config(image, broker_node(b), key);
    if (v != NULL) {
        add_synonym(c, rq, key, v, SOURCE_DYNAMIC_BROKER);
    }
    v = image_broker_config(image, -1, key);
    if (v != NULL) {
        add_synonym(c, rq, key, v, SOURCE_DYNAMIC_DEFAULT);
    }
    /* also set by another name, as broker.id by node.id */
    if (strcmp(broker_config_source(config, key), "default") != 0) {
        add_synonym(c, rq, key, broker_config_get(config, key), SOURCE_STATIC);
    }
    const struct config_key *k = config_key_find(CONFIG_BROKER, key);
    if (k != NULL && k->default_value != NULL) {
        add_synonym(c, rq, key, k->default_value, SOURCE_DEFAULT);
    }
}

/* The group's own value, and the broker's or the key's default. */
static void group_synonyms(struct describe *d, const struct config_key *key,
                           struct describe_configs_response_config *c)
{
    struct request *rq = d->rq;
    const char *group = api_cstr(rq, d->resource->resource_name);
    const char *v =
        image_resource_config(rq->shard->image, CONFIG_GROUP, group, key->name);
    if (v != NULL) {
        add_synonym(c, rq, key->name, v, SOURCE_GROUP);
    }
    if (key->synonym != NULL &&
        config_key_find(CONFIG_BROKER, key->synonym) != NULL) {
        broker_synonyms(d, key->synonym, c);
        return;
    }
    add_synonym(c, rq, key->synonym == NULL ? key->name : key->synonym,
                key->default_value, SOURCE_DEFAULT);
}

static void describe_key(struct describe *d, const struct config_key *key,
                         const struct image_topic *topic)
{
    struct request *rq = d->rq;
    struct describe_configs_response_config *c =
        &d->out->configs[d->out->n_configs++];
    *c = (struct describe_configs_response_config){
        .name = wire_str_of(key->name),
        .value = WIRE_NULL_STR,
        .read_only = topic == NULL && key->read_only,
        .config_source = SOURCE_DEFAULT,
        .is_sensitive = key->type == CONFIG_PASSWORD,
        .synonyms = api_alloc(rq, 6, sizeof *c->synonyms),
        .config_type = (int8_t)key->type,
        .documentation = d->in->include_documentation ? wire_str_of(key->doc)
                                                      : WIRE_NULL_STR,
    };
    const char *value = NULL;
    int source = SOURCE_DEFAULT;
    if (topic != NULL) {
        const char *override = image_topic_config(topic, key->name);
        if (override != NULL) {
            add_synonym(c, rq, key->name, override, SOURCE_TOPIC);
        }
        if (key->synonym != NULL) {
            broker_synonyms(d, key->synonym, c);
        }
        value = config_topic_effective(
            rq->shard->image, topic, broker_static_config(rq->shard->broker),
            broker_node(rq->shard->broker), key, &source);
        c->value = api_copy(rq, value);
        c->config_source = (int8_t)source;
    } else {
        if (key->scope == CONFIG_GROUP) {
            group_synonyms(d, key, c);
        } else {
            broker_synonyms(d, key->name, c);
        }
        if (c->n_synonyms > 0) {
            c->value = c->synonyms[0].value;
            c->config_source = c->synonyms[0].source;
        }
    }
    if (c->is_sensitive) {
        c->value = WIRE_NULL_STR;
    }
    if (!d->in->include_synonyms) {
        c->n_synonyms = 0;
    }
}

static void describe_all(struct describe *d, enum config_scope scope,
                         const struct image_topic *topic)
{
    const struct config_key *keys = NULL;
    int n = config_keys(scope, &keys);
    d->out->configs = api_alloc(d->rq, (size_t)n, sizeof *d->out->configs);
    for (int i = 0; i < n; i++) {
        bool hidden = topic != NULL && config_key_is_gone(&keys[i]) &&
                      image_topic_config(topic, keys[i].name) == NULL;
        if (!hidden && asked_for(d->resource, keys[i].name)) {
            describe_key(d, &keys[i], topic);
        }
    }
}

static void describe_error(struct describe *d, enum kafka_error error,
                           struct wire_str message)
{
    d->out->error_code = (int16_t)error;
    d->out->error_message = message;
}

/* "" (the cluster-wide default): only what was set dynamically. */
static void describe_cluster_default(struct describe *d)
{
    const struct config_key *keys = NULL;
    int n = config_keys(CONFIG_BROKER, &keys);
    d->out->configs = api_alloc(d->rq, (size_t)n, sizeof *d->out->configs);
    for (int i = 0; i < n; i++) {
        const char *v =
            image_broker_config(d->rq->shard->image, -1, keys[i].name);
        if (v == NULL || !asked_for(d->resource, keys[i].name)) {
            continue;
        }
        d->out->configs[d->out->n_configs++] =
            (struct describe_configs_response_config){
                .name = wire_str_of(keys[i].name),
                .value = api_copy(d->rq, v),
                .config_source = SOURCE_DYNAMIC_DEFAULT,
                .config_type = (int8_t)keys[i].type,
                .documentation = WIRE_NULL_STR,
            };
    }
}

static void describe_broker(struct describe *d)
{
    struct wire_str name = d->resource->resource_name;
    if (name.n <= 0) {
        describe_cluster_default(d);
        return;
    }
    char *text = api_cstr(d->rq, name);
    char *end = NULL;
    long id = strtol(text, &end, 10);
    if (*end != '\0' || id < 0) {
        describe_error(d, KAFKA_INVALID_REQUEST,
                       WIRE_STR("A broker resource is named by its id."));
        return;
    }
    if (id != broker_node(d->rq->shard->broker)) {
        char why[160];
        snprintf(why, sizeof why,
                 "Unexpected broker id, expected %d or empty string, but "
                 "received %ld",
                 (int)broker_node(d->rq->shard->broker), id);
        describe_error(d, KAFKA_INVALID_REQUEST, api_copy(d->rq, why));
        return;
    }
    describe_all(d, CONFIG_BROKER, NULL);
}

static void describe_topic(struct describe *d)
{
    struct wire_str name = d->resource->resource_name;
    const struct image_topic *topic = NULL;
    enum kafka_error e = api_topic_resource(d->rq->shard, name);
    if (e != KAFKA_NONE) {
        describe_error(d, e, WIRE_NULL_STR);
        return;
    }
    (void)api_find_topic(d->rq->shard, name, NULL, &topic);
    describe_all(d, CONFIG_TOPIC, topic);
}

/* Groups and client metrics: any name will do. Of the latter there are none. */
static void describe_named(struct describe *d)
{
    if (d->resource->resource_name.n <= 0) {
        describe_error(d, KAFKA_INVALID_REQUEST,
                       WIRE_STR("The resource needs a name."));
        return;
    }
    if (d->resource->resource_type == API_RESOURCE_GROUP) {
        describe_all(d, CONFIG_GROUP, NULL);
    }
}

void api_describe_configs(struct request *rq)
{
    struct describe_configs_request in;
    if (!request_decode(rq, &describe_configs_request_message, &in)) {
        return;
    }
    struct describe_configs_response out;
    describe_configs_response_init(&out);
    out.results = api_alloc(rq, (size_t)in.n_resources, sizeof *out.results);
    out.n_results = in.n_resources;
    for (int i = 0; i < in.n_resources; i++) {
        struct describe d = {.rq = rq,
                             .in = &in,
                             .resource = &in.resources[i],
                             .out = &out.results[i]};
        d.out->resource_type = d.resource->resource_type;
        d.out->resource_name = d.resource->resource_name;
        d.out->error_message = WIRE_NULL_STR;
        switch (d.resource->resource_type) {
            case API_RESOURCE_TOPIC:
                describe_topic(&d);
                break;
            case API_RESOURCE_BROKER:
                describe_broker(&d);
                break;
            case API_RESOURCE_GROUP:
            case API_RESOURCE_CLIENT_METRICS:
                describe_named(&d);
                break;
            default:
                describe_error(&d, KAFKA_INVALID_REQUEST,
                               WIRE_STR("Resources of this type have no "
                                        "configuration here."));
        }
    }
    request_respond(rq, &describe_configs_response_message, &out);
}
