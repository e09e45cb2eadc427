/* InitProducerId without a transactional id: any broker answers from its
 * block of ids, granted by the metadata group; each shard has one. */
#include "base/mem.h"
#include "net/api/api.h"
#include "schema/init_producer_id.h"

#define BLOCK_WAIT_MS 5000

struct producer_id_wait {
    struct request *rq;
    struct producer_id_wait *next;
};

/* A shard's call for a new block; it is not the request's, as many wait. */
struct block_call {
    struct shard_task task;
    struct metadata_call call;
    int64_t first;
    int32_t size;
    enum kafka_error error;
};

static void respond(struct request *rq, enum kafka_error error, int64_t id)
{
    struct init_producer_id_response out;
    init_producer_id_response_init(&out);
    out.error_code = (int16_t)error;
    out.producer_id = error == KAFKA_NONE ? id : -1;
    out.producer_epoch = error == KAFKA_NONE ? 0 : -1;
    request_respond(rq, &init_producer_id_response_message, &out);
}

static void ask_block(struct broker_shard *s);

static void serve_waits(struct broker_shard *s, enum kafka_error error)
{
    while (s->producer_id_waits != NULL &&
           (error != KAFKA_NONE || s->producer_id_next < s->producer_id_end)) {
        struct producer_id_wait *w = s->producer_id_waits;
        s->producer_id_waits = w->next;
        struct request *rq = w->rq;
        respond(rq, error, error == KAFKA_NONE ? s->producer_id_next++ : -1);
    }
    if (s->producer_id_waits != NULL) {
        ask_block(s);
    }
}

static void block_back(struct shard_task *task)
{
    struct block_call *b = task->arg;
    struct broker_shard *s = task->home;
    enum kafka_error error = b->error;
    if (error == KAFKA_NONE) {
        s->producer_id_next = b->first;
        s->producer_id_end = b->first + b->size;
    }
    mem_free(b);
    serve_waits(s, error);
}

static void block_granted(struct metadata_call *call)
{
    struct block_call *b = call->arg;
    b->first = call->first_id;
    b->size = 1000;
    /* retriable for clients whatever it was: the next try may do */
    b->error = call->error == KAFKA_NONE ? KAFKA_NONE
                                         : KAFKA_COORDINATOR_NOT_AVAILABLE;
    shard_task_end(&b->task);
}

static void block_start(struct shard_task *task)
{
    struct block_call *b = task->arg;
    b->call.cb = block_granted;
    b->call.arg = b;
    metadata_allocate_producer_ids(broker_metadata(task->to->broker),
                                   BLOCK_WAIT_MS, &b->call);
}

static void ask_block(struct broker_shard *s)
{
    struct block_call *b = mem_zalloc(sizeof *b);
    b->task = (struct shard_task){
        .start = block_start, .finish = block_back, .arg = b};
    shard_task_begin(&b->task, s, broker_shard(s->broker, 0));
}

void api_init_producer_id(struct request *rq)
{
    struct init_producer_id_request in;
    if (!request_decode(rq, &init_producer_id_request_message, &in)) {
        return;
    }
    struct broker_shard *s = rq->shard;
    if (in.transactional_id.n == 0 ||
        (in.producer_id == -1) != (in.producer_epoch == -1)) {
        respond(rq, KAFKA_INVALID_REQUEST, -1);
        return;
    }
    if (in.transactional_id.n >= 0) {
        /* transactions come later; refused for good, not to be retried */
        respond(rq, KAFKA_TRANSACTIONAL_ID_AUTHORIZATION_FAILED, -1);
        return;
    }
    if (s->producer_id_waits == NULL &&
        s->producer_id_next < s->producer_id_end) {
        respond(rq, KAFKA_NONE, s->producer_id_next++);
        return;
    }
    bool first = s->producer_id_waits == NULL;
    struct producer_id_wait *w = api_alloc(rq, 1, sizeof *w);
    w->rq = rq;
    struct producer_id_wait **end = &s->producer_id_waits;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = w;
    if (first) {
        ask_block(s);
    }
}
