#include "net/api/group_api.h"
#include "schema/sync_group.h"

struct sync_call {
    struct group_step step;
    struct sync_group_request in;
    struct coordinator_sync sync;
    struct sync_group_response out;
};

static void respond(struct group_step *step)
{
    struct sync_call *call = (struct sync_call *)step;
    request_respond(step->rq, &sync_group_response_message, &call->out);
}

static void synced(struct coordinator_sync *sync)
{
    struct sync_call *call = sync->arg;
    struct group_step *step = &call->step;
    call->out.error_code = (int16_t)sync->error;
    call->out.protocol_type = group_api_keep(step, sync->out_protocol_type);
    call->out.protocol_name = group_api_keep(step, sync->out_protocol_name);
    if (sync->assignment.n > 0) {
        call->out.assignment.p = arena_copy(&step->arena, sync->assignment.p,
                                            (size_t)sync->assignment.n);
        call->out.assignment.n = sync->assignment.n;
    }
    shard_task_end(&call->step.task);
}

static void sync_start(struct group_step *step, struct coordinator *c)
{
    struct sync_call *call = (struct sync_call *)step;
    coordinator_sync(c, &call->sync);
}

void api_sync_group(struct request *rq)
{
    struct sync_call *call = api_alloc(rq, 1, sizeof *call);
    if (!request_decode(rq, &sync_group_request_message, &call->in)) {
        return;
    }
    const struct sync_group_request *in = &call->in;
    sync_group_response_init(&call->out);
    struct coordinator_assignment *assignments =
        api_alloc(rq, (size_t)in->n_assignments, sizeof *assignments);
    for (int i = 0; i < in->n_assignments; i++) {
        assignments[i].member_id = api_text(in->assignments[i].member_id);
        assignments[i].assignment =
            (struct blob){.p = in->assignments[i].assignment.p,
                          .n = in->assignments[i].assignment.n};
    }
    call->sync = (struct coordinator_sync){
        .api_version = rq->api_version,
        .group_id = api_text(in->group_id),
        .member_id = api_text(in->member_id),
        .instance_id = api_text(in->group_instance_id),
        .protocol_type = api_text(in->protocol_type),
        .protocol_name = api_text(in->protocol_name),
        .generation_id = in->generation_id,
        .n_assignments = in->n_assignments,
        .assignments = assignments,
        .cb = synced,
        .arg = call,
    };
    struct broker_shard *owner = NULL;
    enum kafka_error e =
        group_api_locate(rq, in->group_id, &call->sync.index, &owner);
    if (rq->api_version >= 5 &&
        (in->protocol_type.n < 0 || in->protocol_name.n < 0)) {
        e = KAFKA_INCONSISTENT_GROUP_PROTOCOL;
    }
    if (e != KAFKA_NONE) {
        call->out.error_code = (int16_t)e;
        request_respond(rq, &sync_group_response_message, &call->out);
        return;
    }
    call->step.start = sync_start;
    call->step.back = respond;
    group_api_begin(rq, &call->step, owner);
}
