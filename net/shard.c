#include "net/shard.h"

#include "base/assert.h"
#include "base/mem.h"

struct partition *shard_find_partition(struct broker_shard *s,
                                       const struct group_id *id)
{
    struct shard_partition *sp = NULL;
    HASH_FIND(hh, s->partitions, id, sizeof *id, sp);
    return sp == NULL ? NULL : sp->partition;
}

void shard_leader_of(const struct broker_shard *s,
                     const struct image_topic *topic, int32_t partition,
                     node_id *leader, int32_t *epoch)
{
    ASSERT(partition >= 0 && partition < topic->n_partitions);
    const struct image_partition *recorded = &topic->partitions[partition];
    *leader = recorded->leader;
    *epoch = recorded->leader_epoch;
    struct group_id id = {.topic = topic->id, .partition = partition};
    struct shard_leader *known = NULL;
    HASH_FIND(hh, s->leaders, &id, sizeof id, known);
    if (known != NULL && known->epoch >= recorded->leader_epoch) {
        *leader = known->leader;
        *epoch = known->epoch;
        return;
    }
    const struct image_broker *b = image_broker(s->image, *leader);
    if (b == NULL || !b->live) {
        *leader = -1; /* fenced: clients ask again until another leads */
    }
}

bool shard_is_short(struct broker_shard *s)
{
    unsigned n = broker_n_shards(s->broker);
    for (unsigned i = 0; i < n; i++) {
        const struct broker_shard *other = broker_shard(s->broker, i);
        if (other->partitions_of != NULL &&
            partition_shard_is_short(other->partitions_of)) {
            return true;
        }
    }
    return false;
}

static void task_start(struct env_post *post)
{
    struct shard_task *task = post->arg;
    task->start(task);
}

static void task_finish(struct env_post *post)
{
    struct shard_task *task = post->arg;
    task->finish(task);
}

void shard_task_begin(struct shard_task *task, struct broker_shard *home,
                      struct broker_shard *to)
{
    task->home = home;
    task->to = to;
    if (home == to) {
        task->start(task);
        return;
    }
    task->post = (struct env_post){.cb = task_start, .arg = task};
    env_post(to->env, &task->post);
}

void shard_task_end(struct shard_task *task)
{
    if (task->home == task->to) {
        task->finish(task);
        return;
    }
    task->post = (struct env_post){.cb = task_finish, .arg = task};
    env_post(task->home->env, &task->post);
}

struct broker_shard *shard_owner(struct broker_shard *s,
                                 const struct group_id *id)
{
    return broker_shard(s->broker,
                        group_id_shard(id, broker_n_shards(s->broker)));
}
