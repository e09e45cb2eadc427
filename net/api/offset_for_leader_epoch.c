#include "net/api/api.h"
#include "schema/offset_for_leader_epoch.h"

struct epoch_call;

struct epoch_part {
    struct shard_task task;
    struct epoch_call *call;
    struct group_id id;
    int32_t current_leader_epoch, epoch;
    struct offset_for_leader_epoch_response_partition *out;
};

struct epoch_call {
    struct request *rq;
    struct offset_for_leader_epoch_request in;
    struct offset_for_leader_epoch_response out;
    int outstanding;
};

static void call_part_ended(struct epoch_call *call)
{
    if (--call->outstanding == 0) {
        request_respond(call->rq, &offset_for_leader_epoch_response_message,
                        &call->out);
    }
}

static void part_start(struct shard_task *task)
{
    struct epoch_part *part = task->arg;
    struct partition *p = shard_find_partition(task->to, &part->id);
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
    shard_task_end(task);
}

static void part_ended(struct shard_task *task)
{
    struct epoch_part *part = task->arg;
    call_part_ended(part->call);
}

static void part_begin(
    struct epoch_call *call, const struct image_topic *topic,
    enum kafka_error error,
    const struct offset_for_leader_epoch_request_partition *in,
    struct offset_for_leader_epoch_response_partition *out)
{
    struct request *rq = call->rq;
    out->partition = in->partition;
    out->leader_epoch = -1;
    out->end_offset = -1;
    if (error == KAFKA_NONE &&
        (in->partition < 0 || in->partition >= topic->n_partitions)) {
        error = KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
    }
    if (error != KAFKA_NONE) {
        out->error_code = (int16_t)error;
        return;
    }
    struct epoch_part *part = api_alloc(rq, 1, sizeof *part);
    part->call = call;
    part->out = out;
    part->current_leader_epoch = in->current_leader_epoch;
    part->epoch = in->leader_epoch;
    part->id =
        (struct group_id){.topic = topic->id, .partition = in->partition};
    part->task = (struct shard_task){
        .start = part_start, .finish = part_ended, .arg = part};
    call->outstanding++;
    shard_task_begin(&part->task, rq->shard, shard_owner(rq->shard, &part->id));
}

void api_offset_for_leader_epoch(struct request *rq)
{
    struct epoch_call *call = api_alloc(rq, 1, sizeof *call);
    call->rq = rq;
    if (!request_decode(rq, &offset_for_leader_epoch_request_message,
                        &call->in)) {
        return;
    }
    const struct offset_for_leader_epoch_request *in = &call->in;
    struct offset_for_leader_epoch_response *out = &call->out;
    offset_for_leader_epoch_response_init(out);
    out->topics = api_alloc(rq, (size_t)in->n_topics, sizeof *out->topics);
    out->n_topics = in->n_topics;
    call->outstanding = 1;
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
    call_part_ended(call);
}
