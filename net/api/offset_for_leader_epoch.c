#include "net/api/partition_api.h"
#include "schema/offset_for_leader_epoch.h"

struct epoch_part {
    struct partition_step step;
    int32_t current_leader_epoch, epoch;
    struct offset_for_leader_epoch_response_partition *out;
};

struct epoch_call {
    struct partition_fan fan;
    struct offset_for_leader_epoch_request in;
    struct offset_for_leader_epoch_response out;
};

static void respond(struct partition_fan *fan)
{
    struct epoch_call *call = (struct epoch_call *)fan;
    request_respond(fan->rq, &offset_for_leader_epoch_response_message,
                    &call->out);
}

static void part_start(struct partition_step *step, struct partition *p)
{
    struct epoch_part *part = (struct epoch_part *)step;
    kafka_offset end = {-1};
    int32_t found = -1;
    enum kafka_error e = KAFKA_NOT_LEADER_OR_FOLLOWER;
    if (p != NULL) {
        e = partition_offset_for_epoch(p, part->current_leader_epoch,
                                       part->epoch, &found, &end);
    }
    part->out->error_code = (int16_t)e;
    part->out->leader_epoch = e == KAFKA_NONE ? found : -1;
    part->out->end_offset = e == KAFKA_NONE ? end.v : -1;
    shard_task_end(&step->task);
}

static void part_back(struct partition_step *step)
{
    (void)step; /* all is in its place */
}

static void part_begin(
    struct epoch_call *call, const struct image_topic *topic,
    enum kafka_error error,
    const struct offset_for_leader_epoch_request_partition *in,
    struct offset_for_leader_epoch_response_partition *out)
{
    struct group_id id;
    out->partition = in->partition;
    out->leader_epoch = -1;
    out->end_offset = -1;
    error = partition_api_find(error, topic, in->partition, &id);
    if (error != KAFKA_NONE) {
        out->error_code = (int16_t)error;
        return;
    }
    struct epoch_part *part = api_alloc(call->fan.rq, 1, sizeof *part);
    part->out = out;
    part->current_leader_epoch = in->current_leader_epoch;
    part->epoch = in->leader_epoch;
    partition_step_begin(&call->fan, &part->step, &id, part_start, part_back);
}

void api_offset_for_leader_epoch(struct request *rq)
{
    struct epoch_call *call = api_alloc(rq, 1, sizeof *call);
    if (!request_decode(rq, &offset_for_leader_epoch_request_message,
                        &call->in)) {
        return;
    }
    const struct offset_for_leader_epoch_request *in = &call->in;
    struct offset_for_leader_epoch_response *out = &call->out;
    offset_for_leader_epoch_response_init(out);
    out->topics = api_alloc(rq, (size_t)in->n_topics, sizeof *out->topics);
    out->n_topics = in->n_topics;
    partition_fan_begin(&call->fan, rq, respond);
    for (int t = 0; t < in->n_topics; t++) {
        const struct offset_for_leader_epoch_request_topic *ti = &in->topics[t];
        struct offset_for_leader_epoch_response_topic *to = &out->topics[t];
        to->topic = ti->topic;
        to->partitions =
            api_alloc(rq, (size_t)ti->n_partitions, sizeof *to->partitions);
        to->n_partitions = ti->n_partitions;
        const struct image_topic *topic = NULL;
        enum kafka_error e = api_find_topic(rq->shard, ti->topic, NULL, &topic);
        for (int p = 0; p < ti->n_partitions; p++) {
            part_begin(call, topic, e, &ti->partitions[p], &to->partitions[p]);
        }
    }
    partition_fan_end(&call->fan);
}
