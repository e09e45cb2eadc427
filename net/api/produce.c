/* Produce: each partition's batch goes to the shard that owns the partition;
 * the answer leaves when all are decided, in the order of the request. */
#include "base/limits.h"
#include "net/api/api.h"
#include "schema/produce.h"

struct produce_call;

struct produce_part {
    struct shard_task task;
    struct shard_task cancel;
    struct partition_produce produce;
    struct produce_call *call;
    struct group_id id;
    struct produce_response_partition *out;
    bool done;     /* on the owner's shard: decided */
    bool canceled; /* on the owner's shard: given up for time */
};

struct produce_call {
    struct request *rq;
    struct produce_request in;
    struct produce_response out;
    struct produce_part *parts;
    int n_parts;
    int outstanding; /* tasks under way */
    int32_t n_record_errors;
    struct env_timer timer;
    bool timer_on;
};

static struct wire_str produce_text(const char *s)
{
    return wire_str_of(s);
}

static void part_error(struct produce_response_partition *out,
                       enum kafka_error error, const char *message)
{
    out->error_code = (int16_t)error;
    out->base_offset = -1;
    out->log_append_time_ms = -1;
    out->log_start_offset = -1;
    out->error_message = produce_text(message);
}

/* Tells the client who leads instead, so that it need not ask (KIP-951). */
static void hint_leader(struct produce_call *call, struct produce_part *part)
{
    struct api_leader to;
    if (!api_leader_hint(call->rq->shard, &part->id, &to)) {
        return;
    }
    part->out->current_leader.leader_id = to.node;
    part->out->current_leader.leader_epoch = to.epoch;
    struct produce_response *out = &call->out;
    for (int i = 0; i < out->n_node_endpoints; i++) {
        if (out->node_endpoints[i].node_id == to.node) {
            return;
        }
    }
    if (out->node_endpoints == NULL) {
        out->node_endpoints = api_alloc(call->rq, (size_t)call->n_parts,
                                        sizeof *out->node_endpoints);
    }
    struct api_address address = api_address_of(call->rq, to.broker);
    out->node_endpoints[out->n_node_endpoints++] =
        (struct produce_response_node_endpoint){
            .node_id = to.node,
            .host = address.host,
            .port = address.port,
            .rack = api_copy(call->rq, to.broker->rack),
        };
}

/* Names every record that was refused: a client fails these for what they are
 * and the others of the batch only for being with them. */
static void name_bad_records(struct produce_part *part)
{
    const struct partition_produce *p = &part->produce;
    struct produce_response_partition *out = part->out;
    struct request *rq = part->call->rq;
    int32_t n = batch_bad_records(p->batch, p->size, &p->limits, NULL, 0);
    int32_t left = LIMIT_RECORD_ERRORS - part->call->n_record_errors;
    n = n < left ? n : left;
    part->call->n_record_errors += n;
    int32_t *index = api_alloc(rq, (size_t)n, sizeof *index);
    (void)batch_bad_records(p->batch, p->size, &p->limits, index, n);
    out->record_errors = api_alloc(rq, (size_t)n, sizeof *out->record_errors);
    out->n_record_errors = n;
    for (int32_t i = 0; i < n; i++) {
        out->record_errors[i].batch_index = index[i];
        out->record_errors[i].batch_index_error_message =
            produce_text(p->message);
    }
}

static void part_answer(struct produce_part *part)
{
    const struct partition_produce *p = &part->produce;
    struct produce_response_partition *out = part->out;
    if (p->error != KAFKA_NONE) {
        part_error(out, p->error, p->message);
        if (p->bad_record >= 0) {
            name_bad_records(part);
        }
        if (p->error == KAFKA_NOT_LEADER_OR_FOLLOWER) {
            hint_leader(part->call, part);
        }
        return;
    }
    out->base_offset = p->base_offset.v;
    out->log_append_time_ms = p->log_append_time_ms;
    out->log_start_offset = p->log_start.v;
}

static void call_finish(struct produce_call *call)
{
    struct request *rq = call->rq;
    if (call->timer_on) {
        env_timer_stop(&call->timer);
    }
    for (int i = 0; i < call->n_parts; i++) {
        part_answer(&call->parts[i]);
    }
    if (call->in.acks != 0) {
        request_respond(rq, &produce_response_message, &call->out);
        return;
    }
    for (int t = 0; t < call->out.n_responses; t++) {
        const struct produce_response_topic *topic = &call->out.responses[t];
        for (int p = 0; p < topic->n_partition_responses; p++) {
            if (topic->partition_responses[p].error_code != 0) {
                request_close(rq, "a produce with acks=0 failed");
                return;
            }
        }
    }
    request_no_response(rq);
}

static void task_ended(struct shard_task *task)
{
    struct produce_part *part = task->arg;
    if (--part->call->outstanding == 0) {
        call_finish(part->call);
    }
}

static void part_decided(struct partition_produce *produce)
{
    struct produce_part *part = produce->arg;
    part->done = true;
    shard_task_end(&part->task);
}

static void part_start(struct shard_task *task)
{
    struct produce_part *part = task->arg;
    struct partition *p = shard_find_partition(task->to, &part->id);
    if (p == NULL) {
        part->produce.error = KAFKA_NOT_LEADER_OR_FOLLOWER;
        part->done = true;
        shard_task_end(task);
        return;
    }
    partition_produce(p, &part->produce);
}

static void part_cancel(struct shard_task *task)
{
    struct produce_part *part = task->arg;
    if (!part->done) {
        partition_produce_cancel(&part->produce);
        part->done = true;
        part->produce.error = KAFKA_REQUEST_TIMED_OUT;
        part->produce.message =
            "not committed within the request's time-out; "
            "it may still be committed";
        shard_task_end(&part->task);
    }
    shard_task_end(task);
}

static void call_timed_out(struct env_timer *timer)
{
    struct produce_call *call = timer->arg;
    call->outstanding += call->n_parts;
    for (int i = 0; i < call->n_parts; i++) {
        struct produce_part *part = &call->parts[i];
        part->cancel = (struct shard_task){
            .start = part_cancel, .finish = task_ended, .arg = part};
        shard_task_begin(&part->cancel, call->rq->shard,
                         shard_owner(call->rq->shard, &part->id));
    }
}

/* Checks what needs no partition; fills the part or the answer. */
static void part_prepare(struct produce_call *call,
                         const struct produce_request_topic *topic_in,
                         const struct image_topic *topic,
                         enum kafka_error error,
                         const struct produce_request_partition *in,
                         struct produce_response_partition *out)
{
    struct request *rq = call->rq;
    (void)topic_in;
    out->index = in->index;
    out->log_append_time_ms = -1;
    out->log_start_offset = -1;
    out->error_message = WIRE_NULL_STR;
    out->current_leader.leader_id = -1;
    out->current_leader.leader_epoch = -1;
    const char *message = NULL;
    if (error == KAFKA_NONE &&
        (in->index < 0 || in->index >= topic->n_partitions)) {
        error = KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
    } else if (call->in.acks < -1 || call->in.acks > 1) {
        error = KAFKA_INVALID_REQUIRED_ACKS;
    } else if (error == KAFKA_NONE && call->in.transactional_id.n >= 0) {
        error = KAFKA_INVALID_TXN_STATE;
        message = "transactions are not supported yet";
    } else if (error == KAFKA_NONE && topic->internal &&
               !wire_str_is(rq->client_id, "__admin_client")) {
        error = KAFKA_INVALID_TOPIC_EXCEPTION;
        message = "internal topics cannot be written to";
    } else if (error == KAFKA_NONE && in->records.n <= 0) {
        error = KAFKA_INVALID_RECORD;
        message = "no record batch";
    }
    if (error != KAFKA_NONE) {
        part_error(out, error, message);
        return;
    }
    struct produce_part *part = &call->parts[call->n_parts++];
    part->call = call;
    part->out = out;
    part->id = (struct group_id){.topic = topic->id, .partition = in->index};
    part->produce = (struct partition_produce){
        .batch = in->records.p,
        .size = (uint32_t)in->records.n,
        .acks = call->in.acks,
        .api_version = rq->api_version,
        .cb = part_decided,
        .arg = part,
        .bad_record = -1,
        .base_offset = {-1},
        .log_append_time_ms = -1,
        .log_start = {-1},
    };
    part->task = (struct shard_task){
        .start = part_start, .finish = task_ended, .arg = part};
}

static void call_prepare(struct produce_call *call)
{
    struct request *rq = call->rq;
    const struct produce_request *in = &call->in;
    struct produce_response *out = &call->out;
    size_t n = 0;
    for (int t = 0; t < in->n_topic_data; t++) {
        n += (size_t)in->topic_data[t].n_partition_data;
    }
    call->parts = api_alloc(rq, n, sizeof *call->parts);
    out->responses =
        api_alloc(rq, (size_t)in->n_topic_data, sizeof *out->responses);
    out->n_responses = in->n_topic_data;
    for (int t = 0; t < in->n_topic_data; t++) {
        const struct produce_request_topic *ti = &in->topic_data[t];
        struct produce_response_topic *to = &out->responses[t];
        to->name = ti->name;
        to->topic_id = ti->topic_id;
        to->partition_responses = api_alloc(rq, (size_t)ti->n_partition_data,
                                            sizeof *to->partition_responses);
        to->n_partition_responses = ti->n_partition_data;
        const struct image_topic *topic = NULL;
        enum kafka_error e =
            api_find_topic(rq->shard, ti->name, &ti->topic_id, &topic);
        if (e != KAFKA_NONE && rq->api_version >= 13) {
            e = KAFKA_UNKNOWN_TOPIC_ID; /* also of no id at all */
        }
        for (int p = 0; p < ti->n_partition_data; p++) {
            part_prepare(call, ti, topic, e, &ti->partition_data[p],
                         &to->partition_responses[p]);
        }
    }
}

void api_produce(struct request *rq)
{
    struct produce_call *call = api_alloc(rq, 1, sizeof *call);
    call->rq = rq;
    if (!request_decode(rq, &produce_request_message, &call->in)) {
        return;
    }
    produce_response_init(&call->out);
    call_prepare(call);
    call->outstanding = call->n_parts + 1;
    if (call->n_parts > 0 && call->in.acks != 0) {
        env_timer_init(rq->shard->env, &call->timer, call_timed_out, call);
        env_timer_start(&call->timer, call->in.timeout_ms < 0
                                          ? 0
                                          : (uint64_t)call->in.timeout_ms);
        call->timer_on = true;
    }
    for (int i = 0; i < call->n_parts; i++) {
        shard_task_begin(&call->parts[i].task, rq->shard,
                         shard_owner(rq->shard, &call->parts[i].id));
    }
    if (--call->outstanding == 0) {
        call_finish(call);
    }
}
