#include "net/api/partition_api.h"

enum kafka_error partition_api_find(enum kafka_error error,
                                    const struct image_topic *topic,
                                    int32_t index, struct group_id *id)
{
    if (error != KAFKA_NONE) {
        return error;
    }
    if (index < 0 || index >= topic->n_partitions) {
        return KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
    }
    *id = (struct group_id){.topic = topic->id, .partition = index};
    return KAFKA_NONE;
}

void partition_fan_begin(struct partition_fan *fan, struct request *rq,
                         void (*done)(struct partition_fan *fan))
{
    fan->rq = rq;
    fan->done = done;
    fan->outstanding = 1; /* until partition_fan_end */
}

void partition_fan_end(struct partition_fan *fan)
{
    if (--fan->outstanding == 0) {
        fan->done(fan);
    }
}

static void step_start(struct shard_task *task)
{
    struct partition_step *step = task->arg;
    step->start(step, shard_find_partition(task->to, &step->id));
}

static void step_finish(struct shard_task *task)
{
    struct partition_step *step = task->arg;
    struct partition_fan *fan = step->fan;
    arena_move(&fan->rq->arena, &step->arena);
    step->back(step);
    partition_fan_end(fan);
}

void partition_step_begin(struct partition_fan *fan,
                          struct partition_step *step,
                          const struct group_id *id,
                          void (*start)(struct partition_step *step,
                                        struct partition *p),
                          void (*back)(struct partition_step *step))
{
    struct broker_shard *s = fan->rq->shard;
    step->fan = fan;
    step->id = *id;
    step->start = start;
    step->back = back;
    arena_init(&step->arena, 0);
    step->task = (struct shard_task){
        .start = step_start, .finish = step_finish, .arg = step};
    fan->outstanding++;
    shard_task_begin(&step->task, s, shard_owner(s, id));
}
