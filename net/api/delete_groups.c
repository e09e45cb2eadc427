#include "net/api/group_api.h"
#include "schema/delete_groups.h"

struct delete_call;

struct delete_one {
    struct group_step step;
    struct delete_call *call;
    struct coordinator_delete delete;
    struct delete_groups_response_result *out;
};

struct delete_call {
    struct request *rq;
    struct delete_groups_request in;
    struct delete_groups_response out;
    int next; /* group to be asked */
};

static void call_go_on(struct delete_call *call);

static void deleted(struct coordinator_delete *d)
{
    struct delete_one *one = d->arg;
    one->out->error_code = (int16_t)d->error;
    shard_task_end(&one->step.task);
}

static void delete_start(struct group_step *step, struct coordinator *c)
{
    struct delete_one *one = (struct delete_one *)step;
    coordinator_delete(c, &one->delete);
}

static void delete_back(struct group_step *step)
{
    struct delete_one *one = (struct delete_one *)step;
    call_go_on(one->call);
}

/* One group after the other. */
static void call_go_on(struct delete_call *call)
{
    struct request *rq = call->rq;
    while (call->next < call->in.n_groups_names) {
        struct wire_str group = call->in.groups_names[call->next];
        struct delete_one *one = api_alloc(rq, 1, sizeof *one);
        struct broker_shard *owner = NULL;
        one->call = call;
        one->out = &call->out.results[call->next++];
        one->out->group_id = group;
        one->out->error_message = WIRE_NULL_STR;
        one->delete.group_id = api_text(group);
        one->delete.cb = deleted;
        one->delete.arg = one;
        enum kafka_error e =
            group_api_locate(rq, group, &one->delete.index, &owner);
        if (e != KAFKA_NONE) {
            one->out->error_code = (int16_t)e;
            continue;
        }
        one->step.start = delete_start;
        one->step.back = delete_back;
        group_api_begin(rq, &one->step, owner);
        return;
    }
    request_respond(rq, &delete_groups_response_message, &call->out);
}

void api_delete_groups(struct request *rq)
{
    struct delete_call *call = api_alloc(rq, 1, sizeof *call);
    call->rq = rq;
    if (!request_decode(rq, &delete_groups_request_message, &call->in)) {
        return;
    }
    int n = call->in.n_groups_names;
    delete_groups_response_init(&call->out);
    call->out.results = api_alloc(rq, (size_t)n, sizeof *call->out.results);
    call->out.n_results = n;
    call_go_on(call);
}
