#include "net/api/api.h"
#include "net/throttle.h"
#include "schema/delete_topics.h"

struct delete_call {
    struct request *rq;
    struct delete_topics_request in;
    struct api_metadata_step step;
    struct metadata_topic_ref *refs;
    struct wire_str *names; /* resolved before the topics go */
    int n;
};

static void delete_back(struct api_metadata_step *step)
{
    struct delete_call *call = step->rq->handler_data;
    struct request *rq = call->rq;
    struct delete_topics_response out;
    delete_topics_response_init(&out);
    out.responses = api_alloc(rq, (size_t)call->n, sizeof *out.responses);
    out.n_responses = call->n;
    for (int i = 0; i < call->n; i++) {
        struct delete_topics_response_response *to = &out.responses[i];
        to->name = call->names[i];
        to->topic_id = call->refs[i].id;
        to->error_code = api_metadata_result(step, i, &to->error_message);
        if (i < step->n_results && !uuid_is_zero(&step->results[i].id)) {
            to->topic_id = step->results[i].id;
        }
    }
    request_respond(rq, &delete_topics_response_message, &out);
}

static int64_t partitions_of(const struct delete_call *call)
{
    const struct image *image = call->rq->shard->image;
    int64_t n = 0;
    for (int i = 0; i < call->n; i++) {
        const struct metadata_topic_ref *ref = &call->refs[i];
        const struct image_topic *topic =
            ref->name != NULL ? image_topic(image, ref->name, strlen(ref->name))
                              : image_topic_by_id(image, &ref->id);
        n += topic == NULL ? 0 : topic->n_partitions;
    }
    return n;
}

static void delete_start(struct api_metadata_step *step, struct metadata *m)
{
    struct delete_call *call = step->rq->handler_data;
    metadata_delete_topics(m, call->refs, call->n,
                           api_timeout_ms(call->in.timeout_ms), &step->call);
}

void api_delete_topics(struct request *rq)
{
    struct delete_call *call = api_alloc(rq, 1, sizeof *call);
    call->rq = rq;
    rq->handler_data = call;
    if (!request_decode(rq, &delete_topics_request_message, &call->in)) {
        return;
    }
    const struct delete_topics_request *in = &call->in;
    bool structs = rq->api_version >= 6;
    call->n = structs ? in->n_topics : in->n_topic_names;
    call->refs = api_alloc(rq, (size_t)call->n, sizeof *call->refs);
    call->names = api_alloc(rq, (size_t)call->n, sizeof *call->names);
    for (int i = 0; i < call->n; i++) {
        struct wire_str name =
            structs ? in->topics[i].name : in->topic_names[i];
        call->names[i] = name;
        if (structs) {
            call->refs[i].id = in->topics[i].topic_id;
        }
        if (name.n >= 0) {
            call->refs[i].name = api_cstr(rq, name);
            continue;
        }
        const struct image_topic *topic =
            image_topic_by_id(rq->shard->image, &call->refs[i].id);
        call->names[i] =
            topic == NULL ? WIRE_NULL_STR : api_copy(rq, topic->name);
    }
    call->step.then = delete_start;
    call->step.back = delete_back;
    if (!broker_config_bool(broker_static_config(rq->shard->broker),
                            "delete.topic.enable")) {
        call->step.call.error = KAFKA_TOPIC_DELETION_DISABLED;
        call->step.rq = rq;
        delete_back(&call->step);
        return;
    }
    throttle_mutation(rq, &call->step, partitions_of(call), 5);
}
