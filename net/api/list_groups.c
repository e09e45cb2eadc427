/* ListGroups: the groups coordinated by this broker, over all its shards. */
#include <strings.h>

#include "net/api/group_api.h"
#include "schema/list_groups.h"

#define FIRST_ROOM 64

struct list_call;

struct list_lane {
    struct group_step step;
    struct list_call *call;
    struct list_groups_response_group *groups;
    int n, room;
    enum kafka_error error;
};

struct list_call {
    struct request *rq;
    struct list_groups_request in;
    struct list_lane *lanes;
    unsigned n_lanes;
    int outstanding;
};

static bool filtered(const struct wire_str *filter, int n, struct wire_str v)
{
    for (int i = 0; i < n; i++) {
        if (filter[i].n == v.n &&
            strncasecmp(filter[i].p, v.p, (size_t)v.n) == 0) {
            return false;
        }
    }
    return n > 0;
}

/* Runs on the lane's shard. */
static void list_one(void *arg, const struct coordinator_group_view *v)
{
    struct list_lane *lane = arg;
    struct list_call *call = lane->call;
    if (filtered(call->in.states_filter, call->in.n_states_filter,
                 api_wire(v->state)) ||
        filtered(call->in.types_filter, call->in.n_types_filter,
                 WIRE_STR("classic"))) {
        return;
    }
    if (lane->n == lane->room) {
        lane->room = lane->room == 0 ? FIRST_ROOM : lane->room * 2;
        struct list_groups_response_group *more =
            group_api_alloc(&lane->step, (size_t)lane->room, sizeof *more);
        if (lane->n > 0) {
            memcpy(more, lane->groups, (size_t)lane->n * sizeof *more);
        }
        lane->groups = more;
    }
    struct group_step *step = &lane->step;
    lane->groups[lane->n++] = (struct list_groups_response_group){
        .group_id = group_api_keep(step, v->group_id),
        .protocol_type = group_api_keep(step, v->protocol_type),
        .group_state = group_api_keep(step, v->state),
        .group_type = WIRE_STR("classic"),
    };
}

static void list_start(struct group_step *step, struct coordinator *c)
{
    struct list_lane *lane = (struct list_lane *)step;
    lane->error = coordinator_list(c, list_one, lane);
    shard_task_end(&step->task);
}

static void respond(struct list_call *call)
{
    struct request *rq = call->rq;
    struct list_groups_response out;
    list_groups_response_init(&out);
    int n = 0;
    for (unsigned i = 0; i < call->n_lanes; i++) {
        n += call->lanes[i].n;
        if (call->lanes[i].error != KAFKA_NONE) {
            out.error_code = (int16_t)call->lanes[i].error;
        }
    }
    out.groups = api_alloc(rq, (size_t)n, sizeof *out.groups);
    for (unsigned i = 0; i < call->n_lanes; i++) {
        for (int k = 0; k < call->lanes[i].n; k++) {
            out.groups[out.n_groups++] = call->lanes[i].groups[k];
        }
    }
    request_respond(rq, &list_groups_response_message, &out);
}

/* One shard after the other. */
static void list_back(struct group_step *step)
{
    struct list_lane *lane = (struct list_lane *)step;
    struct list_call *call = lane->call;
    unsigned next = (unsigned)(lane - call->lanes) + 1;
    if (next == call->n_lanes) {
        respond(call);
        return;
    }
    group_api_begin(call->rq, &call->lanes[next].step,
                    broker_shard(call->rq->shard->broker, next));
}

void api_list_groups(struct request *rq)
{
    struct list_call *call = api_alloc(rq, 1, sizeof *call);
    call->rq = rq;
    if (!request_decode(rq, &list_groups_request_message, &call->in)) {
        return;
    }
    call->n_lanes = broker_n_shards(rq->shard->broker);
    call->lanes = api_alloc(rq, call->n_lanes, sizeof *call->lanes);
    for (unsigned i = 0; i < call->n_lanes; i++) {
        call->lanes[i].call = call;
        call->lanes[i].step.start = list_start;
        call->lanes[i].step.back = list_back;
    }
    group_api_begin(rq, &call->lanes[0].step,
                    broker_shard(rq->shard->broker, 0));
}
