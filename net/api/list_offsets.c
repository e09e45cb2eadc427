/* ListOffsets: each partition answers on its shard; "latest" is linearizable.
 */
#include "net/api/api.h"
#include "schema/list_offsets.h"

struct list_call;

struct list_part {
    struct shard_task task;
    struct partition_list_offset list;
    struct list_call *call;
    struct group_id id;
    struct list_offsets_response_partition *out;
};

struct list_call {
    struct request *rq;
    struct list_offsets_request in;
    struct list_offsets_response out;
    int outstanding;
};

static void call_part_ended(struct list_call *call)
{
    if (--call->outstanding == 0) {
        request_respond(call->rq, &list_offsets_response_message, &call->out);
    }
}

static void part_ended(struct shard_task *task)
{
    struct list_part *part = task->arg;
    const struct partition_list_offset *list = &part->list;
    part->out->error_code = (int16_t)list->error;
    if (list->error == KAFKA_NONE) {
        part->out->offset = list->offset.v;
        part->out->timestamp = list->found_timestamp;
        part->out->leader_epoch = list->leader_epoch;
    }
    call_part_ended(part->call);
}

static void part_found(struct partition_list_offset *list)
{
    struct list_part *part = list->arg;
    shard_task_end(&part->task);
}

static void part_start(struct shard_task *task)
{
    struct list_part *part = task->arg;
    struct partition *p = shard_find_partition(task->to, &part->id);
    if (p == NULL) {
        part->list.error = KAFKA_NOT_LEADER_OR_FOLLOWER;
        shard_task_end(task);
        return;
    }
    partition_list_offset(p, &part->list);
}

/* Lowest version that knows a special timestamp. */
static bool timestamp_known(int64_t timestamp, int16_t version)
{
    switch (timestamp) {
        case -3:
            return version >= 7;
        case -4:
            return version >= 8;
        case -5:
            return version >= 9;
        case -6:
            return version >= 11;
        default:
            return timestamp >= -2;
    }
}

static void part_begin(struct list_call *call, const struct image_topic *topic,
                       enum kafka_error error,
                       const struct list_offsets_request_partition *in,
                       struct list_offsets_response_partition *out)
{
    struct request *rq = call->rq;
    out->partition_index = in->partition_index;
    out->timestamp = -1;
    out->offset = -1;
    out->leader_epoch = -1;
    if (error == KAFKA_NONE && (in->partition_index < 0 ||
                                in->partition_index >= topic->n_partitions)) {
        error = KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
    }
    if (error == KAFKA_NONE &&
        !timestamp_known(in->timestamp, rq->api_version)) {
        error = KAFKA_UNSUPPORTED_VERSION;
    }
    if (error != KAFKA_NONE) {
        out->error_code = (int16_t)error;
        return;
    }
    struct list_part *part = api_alloc(rq, 1, sizeof *part);
    part->call = call;
    part->out = out;
    part->id =
        (struct group_id){.topic = topic->id, .partition = in->partition_index};
    part->list = (struct partition_list_offset){
        .timestamp = in->timestamp,
        .isolation = call->in.isolation_level,
        .current_leader_epoch = in->current_leader_epoch,
        .api_version = rq->api_version,
        .cb = part_found,
        .arg = part,
        .offset = {-1},
        .found_timestamp = -1,
        .leader_epoch = -1,
    };
    part->task = (struct shard_task){
        .start = part_start, .finish = part_ended, .arg = part};
    call->outstanding++;
    shard_task_begin(&part->task, rq->shard, shard_owner(rq->shard, &part->id));
}

void api_list_offsets(struct request *rq)
{
    struct list_call *call = api_alloc(rq, 1, sizeof *call);
    call->rq = rq;
    if (!request_decode(rq, &list_offsets_request_message, &call->in)) {
        return;
    }
    const struct list_offsets_request *in = &call->in;
    struct list_offsets_response *out = &call->out;
    list_offsets_response_init(out);
    out->topics = api_alloc(rq, (size_t)in->n_topics, sizeof *out->topics);
    out->n_topics = in->n_topics;
    call->outstanding = 1;
    for (int t = 0; t < in->n_topics; t++) {
        const struct list_offsets_request_topic *ti = &in->topics[t];
        struct list_offsets_response_topic *to = &out->topics[t];
        to->name = ti->name;
        to->partitions =
            api_alloc(rq, (size_t)ti->n_partitions, sizeof *to->partitions);
        to->n_partitions = ti->n_partitions;
        const struct image_topic *topic = NULL;
        enum kafka_error e = api_find_topic(rq->shard, ti->name, NULL, &topic);
        for (int p = 0; p < ti->n_partitions; p++) {
            part_begin(call, topic, e, &ti->partitions[p], &to->partitions[p]);
        }
    }
    call_part_ended(call);
}
