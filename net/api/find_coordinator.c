/* FindCoordinator: the leader of the group's partition of __consumer_offsets;
 * the topic is made at the first need. Transactions are not offered yet and
 * share groups neither: refused for good. */
#include <stdio.h>

#include "net/api/api.h"
#include "schema/find_coordinator.h"

#define CREATE_WAIT_MS 5000

struct find_call {
    struct request *rq;
    struct find_coordinator_request in;
    struct api_metadata_step step;
    struct metadata_new_topic topic;
    bool created;
};

static void find_one(struct request *rq, int8_t type, struct wire_str key,
                     struct find_coordinator_response_coordinator *out)
{
    struct broker_shard *s = rq->shard;
    out->key = key;
    out->node_id = -1;
    out->host = WIRE_STR("");
    out->port = -1;
    out->error_message = WIRE_NULL_STR;
    if (type != 0) {
        /* of the errors a producer takes for final, this is the one */
        out->error_code = type == 1
                              ? KAFKA_TRANSACTIONAL_ID_AUTHORIZATION_FAILED
                              : KAFKA_INVALID_REQUEST;
        out->error_message =
            type == 1 ? WIRE_STR("Transactions are not supported yet.")
                      : WIRE_STR("This kind of coordinator is not supported.");
        return;
    }
    const struct image_topic *topic =
        image_topic(s->image, OFFSETS_TOPIC, strlen(OFFSETS_TOPIC));
    if (topic == NULL) {
        out->error_code = KAFKA_COORDINATOR_NOT_AVAILABLE;
        return;
    }
    int32_t index =
        coordinator_partition_of(api_text(key), topic->n_partitions);
    node_id leader = -1;
    int32_t epoch = -1;
    shard_leader_of(s, topic, index, &leader, &epoch);
    const struct image_broker *b = NULL;
    if (leader < 0 || !api_endpoint(s, leader, &b)) {
        out->error_code = KAFKA_COORDINATOR_NOT_AVAILABLE;
        return;
    }
    out->node_id = leader;
    struct api_address address = api_address_of(rq, b);
    out->host = address.host;
    out->port = address.port;
}

static void answer(struct find_call *call)
{
    struct request *rq = call->rq;
    const struct find_coordinator_request *in = &call->in;
    struct find_coordinator_response out;
    find_coordinator_response_init(&out);
    if (rq->api_version < 4) {
        struct find_coordinator_response_coordinator one = {0};
        find_one(rq, in->key_type, in->key, &one);
        out.error_code = one.error_code;
        out.error_message = one.error_message;
        out.node_id = one.node_id;
        out.host = one.host;
        out.port = one.port;
    } else {
        out.coordinators = api_alloc(rq, (size_t)in->n_coordinator_keys,
                                     sizeof *out.coordinators);
        out.n_coordinators = in->n_coordinator_keys;
        for (int i = 0; i < in->n_coordinator_keys; i++) {
            find_one(rq, in->key_type, in->coordinator_keys[i],
                     &out.coordinators[i]);
        }
    }
    request_respond(rq, &find_coordinator_response_message, &out);
}

static void create_back(struct api_metadata_step *step)
{
    answer(step->rq->handler_data);
}

static void create_start(struct api_metadata_step *step, struct metadata *m)
{
    struct find_call *call = step->rq->handler_data;
    metadata_create_topics(m, &call->topic, 1, false, CREATE_WAIT_MS,
                           &step->call);
}

/* As many replicas as configured, fewer on a smaller cluster. */
static int16_t offsets_replicas(const struct broker_shard *s)
{
    const struct image_broker *const *brokers = NULL;
    int n = image_brokers(s->image, &brokers);
    int64_t wanted = broker_config_int(broker_static_config(s->broker),
                                       "offsets.topic.replication.factor");
    return (int16_t)(wanted < n ? wanted : n);
}

void api_find_coordinator(struct request *rq)
{
    struct find_call *call = api_alloc(rq, 1, sizeof *call);
    call->rq = rq;
    rq->handler_data = call;
    if (!request_decode(rq, &find_coordinator_request_message, &call->in)) {
        return;
    }
    struct broker_shard *s = rq->shard;
    if (call->in.key_type != 0 ||
        image_topic(s->image, OFFSETS_TOPIC, strlen(OFFSETS_TOPIC)) != NULL) {
        answer(call);
        return;
    }
    const struct broker_config *c = broker_static_config(s->broker);
    struct image_config *configs = api_alloc(rq, 2, sizeof *configs);
    configs[0].name = api_cstr(rq, WIRE_STR("cleanup.policy"));
    configs[0].value = api_cstr(rq, WIRE_STR("compact"));
    configs[1].name = api_cstr(rq, WIRE_STR("segment.bytes"));
    char bytes[24];
    snprintf(bytes, sizeof bytes, "%lld",
             (long long)broker_config_int(c, "offsets.topic.segment.bytes"));
    configs[1].value = arena_strdup(&rq->arena, bytes);
    call->topic = (struct metadata_new_topic){
        .name = OFFSETS_TOPIC,
        .n_partitions =
            (int32_t)broker_config_int(c, "offsets.topic.num.partitions"),
        .replication_factor = offsets_replicas(s),
        .n_configs = 2,
        .configs = configs,
        .internal = true,
    };
    call->step.then = create_start;
    call->step.back = create_back;
    api_metadata_begin(rq, &call->step);
}
