#include "net/api/group_api.h"
#include "schema/heartbeat.h"

struct heartbeat_call {
    struct group_step step;
    struct heartbeat_request in;
    int32_t index;
    enum kafka_error error;
};

static void respond(struct group_step *step)
{
    struct heartbeat_call *call = (struct heartbeat_call *)step;
    struct heartbeat_response out;
    heartbeat_response_init(&out);
    out.error_code = (int16_t)call->error;
    request_respond(step->rq, &heartbeat_response_message, &out);
}

static void beat(struct group_step *step, struct coordinator *c)
{
    struct heartbeat_call *call = (struct heartbeat_call *)step;
    call->error = coordinator_heartbeat(
        c, call->index, api_text(call->in.group_id),
        api_text(call->in.member_id), api_text(call->in.group_instance_id),
        call->in.generation_id);
    shard_task_end(&step->task);
}

void api_heartbeat(struct request *rq)
{
    struct heartbeat_call *call = api_alloc(rq, 1, sizeof *call);
    if (!request_decode(rq, &heartbeat_request_message, &call->in)) {
        return;
    }
    call->step.start = beat;
    call->step.back = respond;
    group_api_run(rq, &call->step, call->in.group_id, &call->index,
                  &call->error);
}
