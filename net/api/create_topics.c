#include <stdio.h>

#include "net/api/api.h"
#include "net/throttle.h"
#include "schema/create_topics.h"

struct create_call {
    struct request *rq;
    struct create_topics_request in;
    struct api_metadata_step step;
    struct metadata_new_topic *topics;
};

static void topic_from_wire(struct request *rq,
                            const struct create_topics_request_topic *in,
                            struct metadata_new_topic *out)
{
    out->name = api_cstr(rq, in->name);
    out->n_partitions = in->num_partitions;
    out->replication_factor = in->replication_factor;
    struct metadata_assignment *assignments =
        api_alloc(rq, (size_t)in->n_assignments, sizeof *assignments);
    for (int i = 0; i < in->n_assignments; i++) {
        assignments[i].partition = in->assignments[i].partition_index;
        assignments[i].nodes = in->assignments[i].broker_ids;
        assignments[i].n_nodes = in->assignments[i].n_broker_ids;
    }
    out->assignments = assignments;
    out->n_assignments = in->n_assignments;
    struct image_config *configs =
        api_alloc(rq, (size_t)in->n_configs, sizeof *configs);
    for (int i = 0; i < in->n_configs; i++) {
        configs[i].name = api_cstr(rq, in->configs[i].name);
        configs[i].value = in->configs[i].value.n < 0
                               ? NULL
                               : api_cstr(rq, in->configs[i].value);
    }
    out->configs = configs;
    out->n_configs = in->n_configs;
    out->internal = false;
}

/* The effective configuration of the topic, as v5+ tells it; of one that is
 * not made (only validated) as it would be. */
static void answer_configs(struct request *rq,
                           const struct create_topics_request_topic *in,
                           const struct image_topic *topic,
                           struct create_topics_response_topic *out)
{
    const struct config_key *keys = NULL;
    int n = config_keys(CONFIG_TOPIC, &keys);
    out->configs = api_alloc(rq, (size_t)n, sizeof *out->configs);
    out->n_configs = 0;
    for (int i = 0; i < n; i++) {
        int source = 5;
        if (config_key_is_gone(&keys[i]) &&
            (topic == NULL ||
             image_topic_config(topic, keys[i].name) == NULL)) {
            continue;
        }
        const char *value = config_topic_effective(
            rq->shard->image, topic, broker_static_config(rq->shard->broker),
            broker_node(rq->shard->broker), &keys[i], &source);
        for (int k = 0; topic == NULL && k < in->n_configs; k++) {
            if (wire_str_is(in->configs[k].name, keys[i].name)) {
                value = api_cstr(rq, in->configs[k].value);
                source = 1;
            }
        }
        out->configs[out->n_configs++] = (struct create_topics_response_config){
            .name = wire_str_of(keys[i].name),
            .value = api_copy(rq, value),
            .config_source = (int8_t)source,
        };
    }
}

static void create_back(struct api_metadata_step *step)
{
    struct create_call *call = step->rq->handler_data;
    struct request *rq = call->rq;
    const struct create_topics_request *in = &call->in;
    struct create_topics_response out;
    create_topics_response_init(&out);
    out.topics = api_alloc(rq, (size_t)in->n_topics, sizeof *out.topics);
    out.n_topics = in->n_topics;
    for (int i = 0; i < in->n_topics; i++) {
        struct create_topics_response_topic *to = &out.topics[i];
        to->name = in->topics[i].name;
        to->num_partitions = -1;
        to->replication_factor = -1;
        to->error_code = api_metadata_result(step, i, &to->error_message);
        if (to->error_code != KAFKA_NONE) {
            continue;
        }
        const struct metadata_topic_result *r = &step->results[i];
        to->topic_id = r->id;
        to->num_partitions = r->n_partitions;
        to->replication_factor = r->replication_factor;
        answer_configs(rq, &in->topics[i],
                       image_topic_by_id(rq->shard->image, &r->id), to);
    }
    request_respond(rq, &create_topics_response_message, &out);
}

/* Partitions that are asked for; of topics that exist, none. */
static int64_t partitions_of(const struct create_call *call)
{
    const struct broker_shard *s = call->rq->shard;
    int64_t n = 0;
    for (int i = 0; i < call->in.n_topics; i++) {
        const struct metadata_new_topic *t = &call->topics[i];
        if (image_topic(s->image, t->name, strlen(t->name)) != NULL) {
            continue;
        }
        n += t->n_assignments > 0 ? t->n_assignments
             : t->n_partitions > 0
                 ? t->n_partitions
                 : broker_config_int(broker_static_config(s->broker),
                                     "num.partitions");
    }
    return n;
}

static void create_start(struct api_metadata_step *step, struct metadata *m)
{
    struct create_call *call = step->rq->handler_data;
    metadata_create_topics(m, call->topics, call->in.n_topics,
                           call->in.validate_only,
                           api_timeout_ms(call->in.timeout_ms), &step->call);
}

void api_create_topics(struct request *rq)
{
    struct create_call *call = api_alloc(rq, 1, sizeof *call);
    call->rq = rq;
    rq->handler_data = call;
    if (!request_decode(rq, &create_topics_request_message, &call->in)) {
        return;
    }
    call->topics =
        api_alloc(rq, (size_t)call->in.n_topics, sizeof *call->topics);
    for (int i = 0; i < call->in.n_topics; i++) {
        topic_from_wire(rq, &call->in.topics[i], &call->topics[i]);
    }
    call->step.then = create_start;
    call->step.back = create_back;
    if (call->in.validate_only) {
        api_metadata_begin(rq, &call->step);
    } else {
        throttle_mutation(rq, &call->step, partitions_of(call), 6);
    }
}
