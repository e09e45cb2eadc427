/* ListOffsets: each partition answers on its shard; "latest" is linearizable.
 */
#include "net/api/partition_api.h"
#include "schema/list_offsets.h"

struct list_part {
    struct partition_step step;
    struct partition_list_offset list;
    struct list_offsets_response_partition *out;
};

struct list_call {
    struct partition_fan fan;
    struct list_offsets_request in;
    struct list_offsets_response out;
};

static void respond(struct partition_fan *fan)
{
    struct list_call *call = (struct list_call *)fan;
    request_respond(fan->rq, &list_offsets_response_message, &call->out);
}

static void part_back(struct partition_step *step)
{
    struct list_part *part = (struct list_part *)step;
    const struct partition_list_offset *list = &part->list;
    part->out->error_code = (int16_t)list->error;
    if (list->error == KAFKA_NONE) {
        part->out->offset = list->offset.v;
        part->out->timestamp = list->found_timestamp;
        part->out->leader_epoch = list->leader_epoch;
    }
}

static void part_found(struct partition_list_offset *list)
{
    struct list_part *part = list->arg;
    shard_task_end(&part->step.task);
}

static void part_start(struct partition_step *step, struct partition *p)
{
    struct list_part *part = (struct list_part *)step;
    if (p == NULL) {
        part->list.error = KAFKA_NOT_LEADER_OR_FOLLOWER;
        shard_task_end(&step->task);
        return;
    }
    partition_list_offset(p, &part->list);
}

static void part_begin(struct list_call *call, const struct image_topic *topic,
                       enum kafka_error error,
                       const struct list_offsets_request_partition *in,
                       struct list_offsets_response_partition *out)
{
    struct request *rq = call->fan.rq;
    struct group_id id;
    out->partition_index = in->partition_index;
    out->timestamp = -1;
    out->offset = -1;
    out->leader_epoch = -1;
    error = partition_api_find(error, topic, in->partition_index, &id);
    if (error != KAFKA_NONE) {
        out->error_code = (int16_t)error;
        return;
    }
    struct list_part *part = api_alloc(rq, 1, sizeof *part);
    part->out = out;
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
    partition_step_begin(&call->fan, &part->step, &id, part_start, part_back);
}

/* How often each partition is named, up to twice: that is refused. */
static uint8_t *count_named(struct request *rq,
                            const struct list_offsets_request_topic *in,
                            const struct image_topic *topic)
{
    uint8_t *times = api_alloc(rq, (size_t)topic->n_partitions, 1);
    for (int i = 0; i < in->n_partitions; i++) {
        int32_t index = in->partitions[i].partition_index;
        if (index >= 0 && index < topic->n_partitions && times[index] < 2) {
            times[index]++;
        }
    }
    return times;
}

void api_list_offsets(struct request *rq)
{
    struct list_call *call = api_alloc(rq, 1, sizeof *call);
    if (!request_decode(rq, &list_offsets_request_message, &call->in)) {
        return;
    }
    const struct list_offsets_request *in = &call->in;
    struct list_offsets_response *out = &call->out;
    list_offsets_response_init(out);
    out->topics = api_alloc(rq, (size_t)in->n_topics, sizeof *out->topics);
    out->n_topics = in->n_topics;
    partition_fan_begin(&call->fan, rq, respond);
    for (int t = 0; t < in->n_topics; t++) {
        const struct list_offsets_request_topic *ti = &in->topics[t];
        struct list_offsets_response_topic *to = &out->topics[t];
        to->name = ti->name;
        to->partitions =
            api_alloc(rq, (size_t)ti->n_partitions, sizeof *to->partitions);
        to->n_partitions = ti->n_partitions;
        const struct image_topic *topic = NULL;
        enum kafka_error e = api_find_topic(rq->shard, ti->name, NULL, &topic);
        uint8_t *times = e == KAFKA_NONE ? count_named(rq, ti, topic) : NULL;
        for (int p = 0; p < ti->n_partitions; p++) {
            int32_t index = ti->partitions[p].partition_index;
            bool twice = times != NULL && index >= 0 &&
                         index < topic->n_partitions && times[index] > 1;
            part_begin(call, topic, twice ? KAFKA_INVALID_REQUEST : e,
                       &ti->partitions[p], &to->partitions[p]);
        }
    }
    partition_fan_end(&call->fan);
}
