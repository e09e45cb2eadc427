/* DeleteRecords: the log start of each partition is moved by its leader, as a
 * control entry that every replica applies. */
#include "net/api/partition_api.h"
#include "schema/delete_records.h"

struct delete_part {
    struct partition_step step;
    struct partition_delete_records delete;
    struct delete_records_response_partition *out;
};

struct delete_call {
    struct partition_fan fan;
    struct delete_records_request in;
    struct delete_records_response out;
};

static void deleted(struct partition_delete_records *req)
{
    struct delete_part *part = req->arg;
    shard_task_end(&part->step.task);
}

static void part_start(struct partition_step *step, struct partition *p)
{
    struct delete_part *part = (struct delete_part *)step;
    if (p == NULL) {
        part->delete.error = KAFKA_NOT_LEADER_OR_FOLLOWER;
        shard_task_end(&step->task);
        return;
    }
    partition_delete_records(p, &part->delete);
}

static void part_back(struct partition_step *step)
{
    struct delete_part *part = (struct delete_part *)step;
    part->out->error_code = (int16_t)part->delete.error;
    if (part->delete.error == KAFKA_NONE) {
        part->out->low_watermark = part->delete.low_watermark.v;
    }
}

static void respond(struct partition_fan *fan)
{
    struct delete_call *call = (struct delete_call *)fan;
    request_respond(fan->rq, &delete_records_response_message, &call->out);
}

static void part_begin(struct delete_call *call,
                       const struct image_topic *topic, enum kafka_error error,
                       const struct delete_records_request_partition *in,
                       struct delete_records_response_partition *out)
{
    struct group_id id;
    out->partition_index = in->partition_index;
    out->low_watermark = -1;
    error = partition_api_find(error, topic, in->partition_index, &id);
    if (error == KAFKA_NONE && topic->internal) {
        error = KAFKA_INVALID_TOPIC_EXCEPTION;
    }
    if (error != KAFKA_NONE) {
        out->error_code = (int16_t)error;
        return;
    }
    struct delete_part *part = api_alloc(call->fan.rq, 1, sizeof *part);
    part->out = out;
    part->delete = (struct partition_delete_records){
        .before = {in->offset}, .cb = deleted, .arg = part};
    partition_step_begin(&call->fan, &part->step, &id, part_start, part_back);
}

void api_delete_records(struct request *rq)
{
    struct delete_call *call = api_alloc(rq, 1, sizeof *call);
    if (!request_decode(rq, &delete_records_request_message, &call->in)) {
        return;
    }
    const struct delete_records_request *in = &call->in;
    struct delete_records_response *out = &call->out;
    delete_records_response_init(out);
    out->topics = api_alloc(rq, (size_t)in->n_topics, sizeof *out->topics);
    out->n_topics = in->n_topics;
    partition_fan_begin(&call->fan, rq, respond);
    for (int t = 0; t < in->n_topics; t++) {
        const struct delete_records_request_topic *ti = &in->topics[t];
        struct delete_records_response_topic *to = &out->topics[t];
        const struct image_topic *topic = NULL;
        enum kafka_error e = api_find_topic(rq->shard, ti->name, NULL, &topic);
        to->name = ti->name;
        to->partitions =
            api_alloc(rq, (size_t)ti->n_partitions, sizeof *to->partitions);
        to->n_partitions = ti->n_partitions;
        for (int p = 0; p < ti->n_partitions; p++) {
            part_begin(call, topic, e, &ti->partitions[p], &to->partitions[p]);
        }
    }
    partition_fan_end(&call->fan);
}
