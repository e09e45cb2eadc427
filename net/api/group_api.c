#include "net/api/group_api.h"

enum kafka_error group_api_locate(struct request *rq, struct wire_str group,
                                  int32_t *index, struct broker_shard **owner)
{
    struct broker_shard *s = rq->shard;
    const struct image_topic *topic =
        image_topic(s->image, OFFSETS_TOPIC, strlen(OFFSETS_TOPIC));
    if (topic == NULL) {
        return KAFKA_COORDINATOR_NOT_AVAILABLE;
    }
    *index = coordinator_partition_of(api_text(group), topic->n_partitions);
    struct group_id id = {.topic = topic->id, .partition = *index};
    *owner = shard_owner(s, &id);
    return KAFKA_NONE;
}

static void step_start(struct shard_task *task)
{
    struct group_step *step = task->arg;
    step->start(step, task->to->coordinator);
}

static void step_finish(struct shard_task *task)
{
    struct group_step *step = task->arg;
    arena_move(&step->rq->arena, &step->arena);
    step->back(step);
}

void group_api_begin(struct request *rq, struct group_step *step,
                     struct broker_shard *owner)
{
    step->rq = rq;
    arena_init(&step->arena, 0);
    step->task = (struct shard_task){
        .start = step_start, .finish = step_finish, .arg = step};
    shard_task_begin(&step->task, rq->shard, owner);
}

void group_api_run(struct request *rq, struct group_step *step,
                   struct wire_str group, int32_t *index,
                   enum kafka_error *error)
{
    struct broker_shard *owner = NULL;
    step->rq = rq;
    *error = group_api_locate(rq, group, index, &owner);
    if (*error != KAFKA_NONE) {
        step->back(step);
        return;
    }
    group_api_begin(rq, step, owner);
}

void *group_api_alloc(struct group_step *step, size_t count, size_t size)
{
    return arena_array(&step->arena, count, size);
}

struct wire_str group_api_keep(struct group_step *step, struct text t)
{
    if (t.n < 0) {
        return WIRE_NULL_STR;
    }
    size_t n = (size_t)t.n;
    return (struct wire_str){
        .p = arena_copy(&step->arena, n == 0 ? "" : t.p, n), .n = t.n};
}

struct wire_bytes group_api_keep_bytes(struct group_step *step, struct blob b)
{
    if (b.n <= 0) {
        return (struct wire_bytes){.p = NULL, .n = 0};
    }
    return (struct wire_bytes){.p = arena_copy(&step->arena, b.p, (size_t)b.n),
                               .n = b.n};
}
