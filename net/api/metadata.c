/* Metadata: answered from this shard's copy of the image and the newest
 * leaders known here. A topic that may be created on the fly is created and
 * waited for; a topic unknown here is looked up once at the metadata leader
 * before it is called unknown. */
#include "net/api/api.h"
#include "schema/metadata.h"

#define AUTO_CREATE_WAIT_MS 1000
#define SYNC_WAIT_MS 1000
#define CLUSTER_OPERATIONS 8096

struct metadata_call_state {
    struct request *rq;
    struct metadata_request in;
    struct api_metadata_step step;
    struct metadata_new_topic *missing;
    enum kafka_error *missing_errors;
    int n_missing;
    bool synced;
};

static void answer_brokers(struct request *rq, struct metadata_response *out)
{
    const struct image_broker *const *brokers = NULL;
    int n = image_brokers(rq->shard->image, &brokers);
    out->brokers = api_alloc(rq, (size_t)n, sizeof *out->brokers);
    for (int i = 0; i < n; i++) {
        if (!brokers[i]->live) {
            continue;
        }
        struct api_address address = api_address_of(rq, brokers[i]);
        out->brokers[out->n_brokers++] = (struct metadata_response_broker){
            .node_id = brokers[i]->node,
            .host = address.host,
            .port = address.port,
            .rack = wire_str_of(brokers[i]->rack),
        };
    }
}

static void answer_partition(struct request *rq,
                             const struct image_topic *topic, int32_t index,
                             struct metadata_response_partition *out)
{
    struct api_partition_state state;
    api_partition_state(rq, topic, index, &state);
    out->partition_index = index;
    out->leader_id = state.leader;
    out->leader_epoch = state.leader_epoch;
    out->error_code = (int16_t)state.error;
    out->replica_nodes = state.replicas;
    out->n_replica_nodes = state.n_replicas;
    out->isr_nodes = state.isr;
    out->n_isr_nodes = state.n_isr;
    out->offline_replicas = state.offline;
    out->n_offline_replicas = state.n_offline;
}

static void answer_topic(struct request *rq, const struct metadata_request *in,
                         const struct image_topic *topic,
                         struct metadata_response_topic *out)
{
    out->name = wire_str_of(topic->name);
    out->topic_id = topic->id;
    out->is_internal = topic->internal;
    out->topic_authorized_operations = in->include_topic_authorized_operations
                                           ? API_TOPIC_OPERATIONS
                                           : INT32_MIN;
    out->partitions =
        api_alloc(rq, (size_t)topic->n_partitions, sizeof *out->partitions);
    out->n_partitions = topic->n_partitions;
    for (int32_t p = 0; p < topic->n_partitions; p++) {
        answer_partition(rq, topic, p, &out->partitions[p]);
    }
}

static enum kafka_error created_error(const struct metadata_call_state *call,
                                      struct wire_str name)
{
    for (int i = 0; i < call->n_missing; i++) {
        if (call->missing_errors != NULL &&
            wire_str_is(name, call->missing[i].name)) {
            enum kafka_error e = call->missing_errors[i];
            return e == KAFKA_NONE || e == KAFKA_REQUEST_TIMED_OUT ||
                           e == KAFKA_TOPIC_ALREADY_EXISTS
                       ? KAFKA_LEADER_NOT_AVAILABLE
                       : e;
        }
    }
    return KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
}

/* Versions 10 and 11 have the field, but no search by it. */
static bool id_too_early(const struct metadata_call_state *call)
{
    bool early = call->rq->api_version >= 10 && call->rq->api_version < 12;
    for (int i = 0; early && i < call->in.n_topics; i++) {
        if (call->in.topics[i].name.n < 0 ||
            !uuid_is_zero(&call->in.topics[i].topic_id)) {
            return true;
        }
    }
    return false;
}

static void refuse_named(const struct metadata_request_topic *asked,
                         struct metadata_response_topic *out)
{
    out->name = asked->name.n < 0 ? WIRE_STR("") : asked->name;
    out->topic_id = asked->topic_id;
    out->error_code = KAFKA_INVALID_REQUEST;
    out->topic_authorized_operations = INT32_MIN;
}

static void answer_named(struct metadata_call_state *call,
                         const struct metadata_request_topic *asked,
                         struct metadata_response_topic *out)
{
    struct request *rq = call->rq;
    const struct image_topic *topic = NULL;
    out->topic_authorized_operations = INT32_MIN;
    enum kafka_error e =
        api_find_topic(rq->shard, asked->name, &asked->topic_id, &topic);
    if (e == KAFKA_NONE) {
        answer_topic(rq, &call->in, topic, out);
        return;
    }
    out->name = asked->name;
    out->topic_id = asked->topic_id;
    if (e == KAFKA_UNKNOWN_TOPIC_ID) {
        out->name = WIRE_NULL_STR;
    } else if (!api_topic_name_valid(asked->name)) {
        e = KAFKA_INVALID_TOPIC_EXCEPTION;
    } else {
        e = created_error(call, asked->name);
    }
    out->error_code = (int16_t)e;
}

static void answer(struct metadata_call_state *call)
{
    struct request *rq = call->rq;
    struct broker_shard *s = rq->shard;
    const struct metadata_request *in = &call->in;
    struct metadata_response out;
    metadata_response_init(&out);
    answer_brokers(rq, &out);
    char id[UUID_TEXT_SIZE];
    uuid_format(image_cluster_id(s->image), id);
    out.cluster_id = api_copy(rq, id);
    out.controller_id = broker_controller(s->broker);
    if (in->include_cluster_authorized_operations) {
        out.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    bool all = in->n_topics < 0 || (rq->api_version == 0 && in->n_topics == 0);
    if (all) {
        const struct image_topic *const *topics = NULL;
        int n = image_topics(s->image, &topics);
        out.topics = api_alloc(rq, (size_t)n, sizeof *out.topics);
        out.n_topics = n;
        for (int i = 0; i < n; i++) {
            answer_topic(rq, in, topics[i], &out.topics[i]);
        }
    } else {
        out.topics = api_alloc(rq, (size_t)in->n_topics, sizeof *out.topics);
        out.n_topics = in->n_topics;
        bool refused = id_too_early(call);
        for (int i = 0; i < in->n_topics; i++) {
            if (refused) {
                refuse_named(&in->topics[i], &out.topics[i]);
            } else {
                answer_named(call, &in->topics[i], &out.topics[i]);
            }
        }
    }
    request_respond(rq, &metadata_response_message, &out);
}

static void create_start(struct api_metadata_step *step, struct metadata *m)
{
    struct metadata_call_state *call = step->rq->handler_data;
    metadata_create_topics(m, call->missing, call->n_missing, false,
                           AUTO_CREATE_WAIT_MS, &step->call);
}

static void create_back(struct api_metadata_step *step)
{
    struct metadata_call_state *call = step->rq->handler_data;
    call->missing_errors = api_alloc(call->rq, (size_t)call->n_missing,
                                     sizeof *call->missing_errors);
    for (int i = 0; i < call->n_missing; i++) {
        call->missing_errors[i] = i < step->n_results
                                      ? step->results[i].error
                                      : KAFKA_LEADER_NOT_AVAILABLE;
    }
    answer(call);
}

static void sync_start(struct api_metadata_step *step, struct metadata *m)
{
    metadata_sync(m, SYNC_WAIT_MS, &step->call);
}

static void find_missing(struct metadata_call_state *call);

static void sync_back(struct api_metadata_step *step)
{
    struct metadata_call_state *call = step->rq->handler_data;
    call->synced = true;
    find_missing(call);
}

static bool already_missing(const struct metadata_call_state *call,
                            struct wire_str name)
{
    for (int i = 0; i < call->n_missing; i++) {
        if (wire_str_is(name, call->missing[i].name)) {
            return true;
        }
    }
    return false;
}

static bool may_create(const struct metadata_call_state *call)
{
    const struct broker_config *c =
        broker_static_config(call->rq->shard->broker);
    return (call->rq->api_version < 4 || call->in.allow_auto_topic_creation) &&
           broker_config_bool(c, "auto.create.topics.enable");
}

static void missing_add(struct metadata_call_state *call, struct wire_str name)
{
    struct request *rq = call->rq;
    struct metadata_new_topic *t = &call->missing[call->n_missing++];
    bool offsets = wire_str_is(name, OFFSETS_TOPIC);
    *t = (struct metadata_new_topic){
        .name = api_cstr(rq, name),
        .n_partitions = -1,
        .replication_factor = -1,
        .internal = offsets,
    };
}

static void find_missing(struct metadata_call_state *call)
{
    struct request *rq = call->rq;
    const struct metadata_request *in = &call->in;
    call->n_missing = 0;
    int n_unknown = 0;
    for (int i = 0; i < in->n_topics; i++) {
        const struct image_topic *topic = NULL;
        const struct metadata_request_topic *asked = &in->topics[i];
        if (api_find_topic(rq->shard, asked->name, &asked->topic_id, &topic) ==
            KAFKA_NONE) {
            continue;
        }
        n_unknown++;
        if (uuid_is_zero(&asked->topic_id) &&
            api_topic_name_valid(asked->name) &&
            !wire_str_is(asked->name, OFFSETS_TOPIC) &&
            !already_missing(call, asked->name)) {
            missing_add(call, asked->name);
        }
    }
    if (n_unknown > 0 && !call->synced) {
        call->step =
            (struct api_metadata_step){.then = sync_start, .back = sync_back};
        api_metadata_begin(rq, &call->step);
        return;
    }
    if (call->n_missing == 0 || !may_create(call)) {
        call->n_missing = 0;
        answer(call);
        return;
    }
    call->step =
        (struct api_metadata_step){.then = create_start, .back = create_back};
    api_metadata_begin(rq, &call->step);
}

void api_metadata(struct request *rq)
{
    struct metadata_call_state *call = api_alloc(rq, 1, sizeof *call);
    call->rq = rq;
    rq->handler_data = call;
    if (!request_decode(rq, &metadata_request_message, &call->in)) {
        return;
    }
    if (call->in.n_topics <= 0 || id_too_early(call)) {
        answer(call);
        return;
    }
    call->missing =
        api_alloc(rq, (size_t)call->in.n_topics, sizeof *call->missing);
    find_missing(call);
}
