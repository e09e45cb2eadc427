#include "net/api/group_api.h"
#include "schema/leave_group.h"

struct leave_call {
    struct group_step step;
    struct leave_group_request in;
    struct coordinator_leave leave;
};

static void respond(struct group_step *step)
{
    struct leave_call *call = (struct leave_call *)step;
    struct request *rq = step->rq;
    const struct coordinator_leave *leave = &call->leave;
    struct leave_group_response out;
    leave_group_response_init(&out);
    out.error_code = (int16_t)leave->error;
    if (rq->api_version < 3) {
        if (leave->error == KAFKA_NONE) {
            out.error_code = (int16_t)leave->member_errors[0];
        }
        request_respond(rq, &leave_group_response_message, &out);
        return;
    }
    int n = leave->error == KAFKA_NONE ? leave->n_members : 0;
    out.members = api_alloc(rq, (size_t)n, sizeof *out.members);
    out.n_members = n;
    for (int i = 0; i < n; i++) {
        out.members[i].member_id = call->in.members[i].member_id;
        out.members[i].group_instance_id =
            call->in.members[i].group_instance_id;
        out.members[i].error_code = (int16_t)leave->member_errors[i];
    }
    request_respond(rq, &leave_group_response_message, &out);
}

static void left(struct coordinator_leave *leave)
{
    struct leave_call *call = leave->arg;
    shard_task_end(&call->step.task);
}

static void leave_start(struct group_step *step, struct coordinator *c)
{
    struct leave_call *call = (struct leave_call *)step;
    coordinator_leave(c, &call->leave);
}

void api_leave_group(struct request *rq)
{
    struct leave_call *call = api_alloc(rq, 1, sizeof *call);
    if (!request_decode(rq, &leave_group_request_message, &call->in)) {
        return;
    }
    const struct leave_group_request *in = &call->in;
    bool one = rq->api_version < 3;
    int n = one ? 1 : in->n_members;
    struct coordinator_leaving *members =
        api_alloc(rq, (size_t)n, sizeof *members);
    for (int i = 0; i < n; i++) {
        members[i].member_id =
            api_text(one ? in->member_id : in->members[i].member_id);
        members[i].instance_id =
            api_text(one ? WIRE_NULL_STR : in->members[i].group_instance_id);
        members[i].reason =
            api_text(one ? WIRE_NULL_STR : in->members[i].reason);
    }
    call->leave = (struct coordinator_leave){
        .api_version = rq->api_version,
        .group_id = api_text(in->group_id),
        .n_members = n,
        .members = members,
        .member_errors = api_alloc(rq, (size_t)n + 1, sizeof(enum kafka_error)),
        .cb = left,
        .arg = call,
    };
    call->step.start = leave_start;
    call->step.back = respond;
    group_api_run(rq, &call->step, in->group_id, &call->leave.index,
                  &call->leave.error);
}
