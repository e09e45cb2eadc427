#include "net/api/group_api.h"
#include "schema/join_group.h"

struct join_call {
    struct group_step step;
    struct join_group_request in;
    struct coordinator_join join;
    struct join_group_response out;
};

static void respond(struct group_step *step)
{
    struct join_call *call = (struct join_call *)step;
    request_respond(step->rq, &join_group_response_message, &call->out);
}

static void joined(struct coordinator_join *join)
{
    struct join_call *call = join->arg;
    struct group_step *step = &call->step;
    struct join_group_response *out = &call->out;
    out->error_code = (int16_t)join->error;
    out->generation_id = join->generation_id;
    out->protocol_type = group_api_keep(step, join->out_protocol_type);
    out->protocol_name = group_api_keep(step, join->protocol_name);
    if (out->protocol_name.n < 0 && step->rq->api_version < 7) {
        out->protocol_name = WIRE_STR("");
    }
    out->leader = group_api_keep(step, join->leader);
    out->member_id = group_api_keep(step, join->out_member_id);
    out->skip_assignment = join->skip_assignment;
    out->members =
        group_api_alloc(step, (size_t)join->n_members, sizeof *out->members);
    out->n_members = join->n_members;
    for (int i = 0; i < join->n_members; i++) {
        out->members[i].member_id =
            group_api_keep(step, join->members[i].member_id);
        out->members[i].group_instance_id =
            group_api_keep(step, join->members[i].instance_id);
        out->members[i].metadata =
            group_api_keep_bytes(step, join->members[i].metadata);
    }
    shard_task_end(&call->step.task);
}

static void join_start(struct group_step *step, struct coordinator *c)
{
    struct join_call *call = (struct join_call *)step;
    coordinator_join(c, &call->join);
}

void api_join_group(struct request *rq)
{
    struct join_call *call = api_alloc(rq, 1, sizeof *call);
    if (!request_decode(rq, &join_group_request_message, &call->in)) {
        return;
    }
    const struct join_group_request *in = &call->in;
    join_group_response_init(&call->out);
    struct coordinator_protocol *protocols =
        api_alloc(rq, (size_t)in->n_protocols, sizeof *protocols);
    for (int i = 0; i < in->n_protocols; i++) {
        protocols[i].name = api_text(in->protocols[i].name);
        protocols[i].metadata = (struct blob){.p = in->protocols[i].metadata.p,
                                              .n = in->protocols[i].metadata.n};
    }
    call->join = (struct coordinator_join){
        .api_version = rq->api_version,
        .group_id = api_text(in->group_id),
        .member_id = api_text(in->member_id),
        .instance_id = api_text(in->group_instance_id),
        .protocol_type = api_text(in->protocol_type),
        .client_id = api_text(rq->client_id),
        .client_host = api_text(
            wire_str_of(arena_printf(&rq->arena, "/%s", rq->client_host))),
        .reason = api_text(in->reason),
        .session_timeout_ms = in->session_timeout_ms,
        .rebalance_timeout_ms = in->rebalance_timeout_ms < 0
                                    ? in->session_timeout_ms
                                    : in->rebalance_timeout_ms,
        .n_protocols = in->n_protocols,
        .protocols = protocols,
        .cb = joined,
        .arg = call,
        .generation_id = -1,
    };
    struct broker_shard *owner = NULL;
    enum kafka_error e =
        group_api_locate(rq, in->group_id, &call->join.index, &owner);
    if (e != KAFKA_NONE) {
        call->out.error_code = (int16_t)e;
        call->out.member_id = in->member_id;
        call->out.protocol_name =
            rq->api_version >= 7 ? WIRE_NULL_STR : WIRE_STR("");
        request_respond(rq, &join_group_response_message, &call->out);
        return;
    }
    call->step.start = join_start;
    call->step.back = respond;
    group_api_begin(rq, &call->step, owner);
}
