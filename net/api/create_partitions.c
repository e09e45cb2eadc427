#include "net/api/api.h"
#include "net/throttle.h"
#include "schema/create_partitions.h"

struct more_call {
    struct request *rq;
    struct create_partitions_request in;
    struct api_metadata_step step;
    struct metadata_more_partitions *topics;
};

static void more_back(struct api_metadata_step *step)
{
    struct more_call *call = step->rq->handler_data;
    struct request *rq = call->rq;
    struct create_partitions_response out;
    create_partitions_response_init(&out);
    out.results = api_alloc(rq, (size_t)call->in.n_topics, sizeof *out.results);
    out.n_results = call->in.n_topics;
    for (int i = 0; i < call->in.n_topics; i++) {
        struct create_partitions_response_result *to = &out.results[i];
        to->name = call->in.topics[i].name;
        to->error_code = api_metadata_result(step, i, &to->error_message);
    }
    request_respond(rq, &create_partitions_response_message, &out);
}

static int64_t partitions_of(const struct more_call *call)
{
    int64_t n = 0;
    for (int i = 0; i < call->in.n_topics; i++) {
        const struct metadata_more_partitions *t = &call->topics[i];
        const struct image_topic *topic =
            image_topic(call->rq->shard->image, t->name, strlen(t->name));
        n += topic != NULL && t->count > topic->n_partitions
                 ? t->count - topic->n_partitions
                 : 0;
    }
    return n;
}

static void more_start(struct api_metadata_step *step, struct metadata *m)
{
    struct more_call *call = step->rq->handler_data;
    metadata_create_partitions(
        m, call->topics, call->in.n_topics, call->in.validate_only,
        api_timeout_ms(call->in.timeout_ms), &step->call);
}

void api_create_partitions(struct request *rq)
{
    struct more_call *call = api_alloc(rq, 1, sizeof *call);
    call->rq = rq;
    rq->handler_data = call;
    if (!request_decode(rq, &create_partitions_request_message, &call->in)) {
        return;
    }
    call->topics =
        api_alloc(rq, (size_t)call->in.n_topics, sizeof *call->topics);
    for (int i = 0; i < call->in.n_topics; i++) {
        const struct create_partitions_request_topic *ti = &call->in.topics[i];
        struct metadata_more_partitions *to = &call->topics[i];
        to->name = api_cstr(rq, ti->name);
        to->count = ti->count;
        to->n_assignments = ti->n_assignments < 0 ? 0 : ti->n_assignments;
        struct metadata_assignment *a =
            api_alloc(rq, (size_t)to->n_assignments, sizeof *a);
        for (int k = 0; k < to->n_assignments; k++) {
            a[k].partition = k;
            a[k].nodes = ti->assignments[k].broker_ids;
            a[k].n_nodes = ti->assignments[k].n_broker_ids;
        }
        if (ti->n_assignments == 0) {
            /* given, yet empty: as good as one that names nobody */
            a = api_alloc(rq, 1, sizeof *a);
            to->n_assignments = 1;
        }
        to->assignments = a;
    }
    call->step.then = more_start;
    call->step.back = more_back;
    if (call->in.validate_only) {
        api_metadata_begin(rq, &call->step);
    } else {
        throttle_mutation(rq, &call->step, partitions_of(call), 3);
    }
}
