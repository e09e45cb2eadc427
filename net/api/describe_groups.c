#include "net/api/group_api.h"
#include "schema/describe_groups.h"

#define GROUP_OPERATIONS 3400

struct describe_call;

struct describe_one {
    struct group_step step;
    struct describe_call *call;
    struct coordinator_describe describe;
    struct describe_groups_response_group *out;
};

struct describe_call {
    struct request *rq;
    struct describe_groups_request in;
    struct describe_groups_response out;
    int next; /* group to be asked */
};

static void call_go_on(struct describe_call *call);

static void group_error(struct request *rq, enum kafka_error error,
                        struct describe_groups_response_group *out)
{
    out->group_state = WIRE_STR("");
    out->protocol_type = WIRE_STR("");
    out->protocol_data = WIRE_STR("");
    out->error_message = WIRE_NULL_STR;
    out->error_code = (int16_t)error;
    if (error == KAFKA_GROUP_ID_NOT_FOUND) { /* before 6: a dead group */
        out->group_state = WIRE_STR("Dead");
        out->error_code = rq->api_version >= 6 ? (int16_t)error : 0;
        out->error_message = WIRE_STR("The group does not exist.");
    }
}

static void described(struct coordinator_describe *d)
{
    struct describe_one *one = d->arg;
    struct group_step *step = &one->step;
    struct describe_groups_response_group *out = one->out;
    const struct coordinator_group_view *v = &d->view;
    if (v->error != KAFKA_NONE) {
        group_error(step->rq, v->error, out);
        shard_task_end(&one->step.task);
        return;
    }
    out->error_message = WIRE_NULL_STR;
    out->group_state = group_api_keep(step, v->state);
    out->protocol_type = group_api_keep(step, v->protocol_type);
    out->protocol_data = group_api_keep(step, v->protocol);
    if (one->call->in.include_authorized_operations) {
        out->authorized_operations = GROUP_OPERATIONS;
    }
    out->members =
        group_api_alloc(step, (size_t)v->n_members, sizeof *out->members);
    out->n_members = v->n_members;
    for (int i = 0; i < v->n_members; i++) {
        const struct coordinator_member *m = &v->members[i];
        out->members[i] = (struct describe_groups_response_member){
            .member_id = group_api_keep(step, m->member_id),
            .group_instance_id = group_api_keep(step, m->instance_id),
            .client_id = group_api_keep(step, m->client_id),
            .client_host = group_api_keep(step, m->client_host),
            .member_metadata = group_api_keep_bytes(step, m->metadata),
            .member_assignment = group_api_keep_bytes(step, m->assignment),
        };
    }
    shard_task_end(&one->step.task);
}

static void describe_start(struct group_step *step, struct coordinator *c)
{
    struct describe_one *one = (struct describe_one *)step;
    coordinator_describe(c, &one->describe);
}

static void describe_back(struct group_step *step)
{
    struct describe_one *one = (struct describe_one *)step;
    call_go_on(one->call);
}

/* One group after the other. */
static void call_go_on(struct describe_call *call)
{
    struct request *rq = call->rq;
    while (call->next < call->in.n_groups) {
        struct wire_str group = call->in.groups[call->next];
        struct describe_groups_response_group *out =
            &call->out.groups[call->next++];
        struct describe_one *one = api_alloc(rq, 1, sizeof *one);
        struct broker_shard *owner = NULL;
        out->group_id = group;
        out->authorized_operations = INT32_MIN;
        one->call = call;
        one->out = out;
        one->describe.group_id = api_text(group);
        one->describe.api_version = rq->api_version;
        one->describe.cb = described;
        one->describe.arg = one;
        enum kafka_error e =
            group_api_locate(rq, group, &one->describe.index, &owner);
        if (e != KAFKA_NONE) {
            group_error(rq, e, out);
            continue;
        }
        one->step.start = describe_start;
        one->step.back = describe_back;
        group_api_begin(rq, &one->step, owner);
        return;
    }
    request_respond(rq, &describe_groups_response_message, &call->out);
}

void api_describe_groups(struct request *rq)
{
    struct describe_call *call = api_alloc(rq, 1, sizeof *call);
    call->rq = rq;
    if (!request_decode(rq, &describe_groups_request_message, &call->in)) {
        return;
    }
    int n = call->in.n_groups;
    describe_groups_response_init(&call->out);
    call->out.groups = api_alloc(rq, (size_t)n, sizeof *call->out.groups);
    call->out.n_groups = n;
    call_go_on(call);
}
