#include "net/api/api.h"
#include "schema/unregister_broker.h"

#define UNREGISTER_WAIT_MS 30000

struct unregister_call {
    struct unregister_broker_request in;
    struct api_metadata_step step;
};

static void unregister_back(struct api_metadata_step *step)
{
    struct request *rq = step->rq;
    struct unregister_broker_response out;
    unregister_broker_response_init(&out);
    out.error_code = (int16_t)step->call.error;
    out.error_message = step->call.sentence[0] == '\0'
                            ? WIRE_NULL_STR
                            : api_copy(rq, step->call.sentence);
    request_respond(rq, &unregister_broker_response_message, &out);
}

static void unregister_start(struct api_metadata_step *step, struct metadata *m)
{
    struct unregister_call *call = step->rq->handler_data;
    metadata_unregister(m, call->in.broker_id, UNREGISTER_WAIT_MS, &step->call);
}

void api_unregister_broker(struct request *rq)
{
    struct unregister_call *call = api_alloc(rq, 1, sizeof *call);
    rq->handler_data = call;
    if (!request_decode(rq, &unregister_broker_request_message, &call->in)) {
        return;
    }
    call->step.then = unregister_start;
    call->step.back = unregister_back;
    api_metadata_begin(rq, &call->step);
}
