/* DescribeProducers: who writes to a partition with a producer id, as its
 * leader knows it. */
#include "net/api/partition_api.h"
#include "schema/describe_producers.h"

#define FIRST_ROOM 16

struct producers_part {
    struct partition_step step;
    struct describe_producers_response_partition *out;
    struct describe_producers_response_active_producer *found;
    int n, room;
    enum kafka_error error;
};

struct producers_call {
    struct partition_fan fan;
    struct describe_producers_request in;
    struct describe_producers_response out;
};

static void add_producer(void *arg, int64_t producer_id, int16_t epoch,
                         const struct producer_batch *last)
{
    struct producers_part *part = arg;
    if (part->n == part->room) {
        part->room = part->room == 0 ? FIRST_ROOM : part->room * 2;
        struct describe_producers_response_active_producer *more =
            arena_array(&part->step.arena, (size_t)part->room, sizeof *more);
        if (part->n > 0) {
            memcpy(more, part->found, (size_t)part->n * sizeof *more);
        }
        part->found = more;
    }
    part->found[part->n++] =
        (struct describe_producers_response_active_producer){
            .producer_id = producer_id,
            .producer_epoch = epoch,
            .last_sequence = last == NULL ? -1 : last->last_sequence,
            .last_timestamp = last == NULL ? -1 : last->timestamp,
            .coordinator_epoch = -1,
            .current_txn_start_offset = -1,
        };
}

static void part_start(struct partition_step *step, struct partition *p)
{
    struct producers_part *part = (struct producers_part *)step;
    part->error = KAFKA_NOT_LEADER_OR_FOLLOWER;
    if (p != NULL && partition_role(p).ready) {
        part->error = KAFKA_NONE;
        partition_each_producer(p, add_producer, part);
    }
    shard_task_end(&step->task);
}

static void part_back(struct partition_step *step)
{
    struct producers_part *part = (struct producers_part *)step;
    part->out->error_code = (int16_t)part->error;
    part->out->active_producers = part->found;
    part->out->n_active_producers = part->n;
}

static void respond(struct partition_fan *fan)
{
    struct producers_call *call = (struct producers_call *)fan;
    request_respond(fan->rq, &describe_producers_response_message, &call->out);
}

static void part_begin(struct producers_call *call,
                       const struct image_topic *topic, enum kafka_error error,
                       int32_t index,
                       struct describe_producers_response_partition *out)
{
    struct group_id id;
    out->partition_index = index;
    out->error_message = WIRE_NULL_STR;
    error = partition_api_find(error, topic, index, &id);
    if (error != KAFKA_NONE) {
        out->error_code = (int16_t)error;
        return;
    }
    struct producers_part *part = api_alloc(call->fan.rq, 1, sizeof *part);
    part->out = out;
    partition_step_begin(&call->fan, &part->step, &id, part_start, part_back);
}

void api_describe_producers(struct request *rq)
{
    struct producers_call *call = api_alloc(rq, 1, sizeof *call);
    if (!request_decode(rq, &describe_producers_request_message, &call->in)) {
        return;
    }
    const struct describe_producers_request *in = &call->in;
    struct describe_producers_response *out = &call->out;
    describe_producers_response_init(out);
    out->topics = api_alloc(rq, (size_t)in->n_topics, sizeof *out->topics);
    out->n_topics = in->n_topics;
    partition_fan_begin(&call->fan, rq, respond);
    for (int t = 0; t < in->n_topics; t++) {
        const struct describe_producers_request_topic *ti = &in->topics[t];
        struct describe_producers_response_topic *to = &out->topics[t];
        const struct image_topic *topic = NULL;
        enum kafka_error e = api_find_topic(rq->shard, ti->name, NULL, &topic);
        if (!api_topic_name_valid(ti->name)) {
            e = KAFKA_INVALID_TOPIC_EXCEPTION;
        }
        to->name = ti->name;
        to->partitions = api_alloc(rq, (size_t)ti->n_partition_indexes,
                                   sizeof *to->partitions);
        to->n_partitions = ti->n_partition_indexes;
        for (int p = 0; p < ti->n_partition_indexes; p++) {
            part_begin(call, topic, e, ti->partition_indexes[p],
                       &to->partitions[p]);
        }
    }
    partition_fan_end(&call->fan);
}
