/* ListConfigResources: what DescribeConfigs can be asked about. Version 0 was
 * about client metrics alone, of which there are none. */
#include <stdio.h>

#include "net/api/api.h"
#include "schema/list_config_resources.h"

static const int8_t all_types[] = {
    API_RESOURCE_TOPIC, API_RESOURCE_BROKER, API_RESOURCE_BROKER_LOGGER,
    API_RESOURCE_CLIENT_METRICS, API_RESOURCE_GROUP};

static bool wanted(const struct list_config_resources_request *in, int8_t type)
{
    for (int i = 0; i < in->n_resource_types; i++) {
        if (in->resource_types[i] == type) {
            return true;
        }
    }
    return in->n_resource_types <= 0;
}

static bool known(int8_t type)
{
    return memchr(all_types, type, sizeof all_types) != NULL;
}

static void add(struct list_config_resources_response *out,
                struct wire_str name, int8_t type)
{
    out->config_resources[out->n_config_resources++] =
        (struct list_config_resources_response_config_resource){
            .resource_name = name, .resource_type = type};
}

static void add_topics(struct request *rq,
                       struct list_config_resources_response *out)
{
    const struct image_topic *const *topics = NULL;
    int n = image_topics(rq->shard->image, &topics);
    for (int i = 0; i < n; i++) {
        add(out, wire_str_of(topics[i]->name), API_RESOURCE_TOPIC);
    }
}

static void add_brokers(struct request *rq,
                        struct list_config_resources_response *out, int8_t type)
{
    const struct image_broker *const *brokers = NULL;
    int n = image_brokers(rq->shard->image, &brokers);
    for (int i = 0; i < n; i++) {
        char id[16];
        snprintf(id, sizeof id, "%d", brokers[i]->node);
        if (brokers[i]->live) {
            add(out, api_copy(rq, id), type);
        }
    }
}

/* Groups that something is set for. */
static void add_groups(struct request *rq,
                       struct list_config_resources_response *out)
{
    const struct image_resource *groups = NULL;
    int n = image_resources(rq->shard->image, CONFIG_GROUP, &groups);
    for (int i = 0; i < n; i++) {
        add(out, wire_str_of(groups[i].name), API_RESOURCE_GROUP);
    }
}

void api_list_config_resources(struct request *rq)
{
    struct list_config_resources_request in;
    struct list_config_resources_response out;
    const struct image_topic *const *topics = NULL;
    const struct image_broker *const *brokers = NULL;
    const struct image_resource *groups = NULL;
    if (!request_decode(rq, &list_config_resources_request_message, &in)) {
        return;
    }
    list_config_resources_response_init(&out);
    for (int i = 0; i < in.n_resource_types; i++) {
        if (!known(in.resource_types[i])) {
            out.error_code = KAFKA_UNSUPPORTED_VERSION;
            request_respond(rq, &list_config_resources_response_message, &out);
            return;
        }
    }
    int n = image_topics(rq->shard->image, &topics) +
            2 * image_brokers(rq->shard->image, &brokers) +
            image_resources(rq->shard->image, CONFIG_GROUP, &groups);
    out.config_resources =
        api_alloc(rq, (size_t)n, sizeof *out.config_resources);
    if (rq->api_version > 0 && wanted(&in, API_RESOURCE_TOPIC)) {
        add_topics(rq, &out);
    }
    if (rq->api_version > 0 && wanted(&in, API_RESOURCE_BROKER)) {
        add_brokers(rq, &out, API_RESOURCE_BROKER);
    }
    if (rq->api_version > 0 && wanted(&in, API_RESOURCE_BROKER_LOGGER)) {
        add_brokers(rq, &out, API_RESOURCE_BROKER_LOGGER);
    }
    if (rq->api_version > 0 && wanted(&in, API_RESOURCE_GROUP)) {
        add_groups(rq, &out);
    }
    request_respond(rq, &list_config_resources_response_message, &out);
}
