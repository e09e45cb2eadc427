#include "net/shard.h"

struct partition *shard_find_partition(struct broker_shard *s,
                                       const struct group_id *id)
{
    struct shard_partition *sp = NULL;
    HASH_FIND(hh, s->partitions, id, sizeof *id, sp);
    return sp == NULL ? NULL : sp->partition;
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
