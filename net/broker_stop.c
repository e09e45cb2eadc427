/* Stop: each shard by itself hands its leaderships over, few at a time; answers
 * what is under way; flushes and closes. Then shard 0 tells the owner.
 *
 * What would make it wait for nothing: a topic that is deleted meanwhile has no
 * replica elsewhere that could take the leadership, so ours goes as well; and a
 * change of the metadata may wait for this broker, which answers no more. */
#include "base/mem.h"
#include "net/broker_impl.h"
#include "net/connection.h"
#include "net/listener.h"
#include "net/orphans.h"

#define STOP_TRANSFER_MS 5000
#define STOP_POLL_MS 10
#define STOP_ANSWERS_MS 500
#define STOP_TRANSFERS_AT_ONCE 64

struct shard_stop {
    struct env_post post, closed_post;
    struct env_timer timer;
    struct broker_shard *shard;
    uint64_t deadline_ms;
    /* of shard 0 */
    struct env_timer answers;
    bool closed, late; /* its connections are; others need not be */
};

static void shard_stopped(struct env_post *post)
{
    struct shard_stop *stop = post->arg;
    struct broker *b = stop->shard->broker;
    stop->shard->stopped = true;
    if (b->first_stop == stop) {
        b->first_stop = NULL;
    }
    mem_free(stop);
    if (++b->n_stopped == b->options.n_shards) {
        b->options.stopped(b->options.arg);
    }
}

static void shard_partitions_gone(void *arg)
{
    struct shard_stop *stop = arg;
    stop->post = (struct env_post){.cb = shard_stopped, .arg = stop};
    env_post(stop->shard->broker->env, &stop->post);
}

static void shard_host_stopped(void *arg)
{
    struct shard_stop *stop = arg;
    stop->shard->host = NULL; /* freed with the stop */
    partition_shard_when_empty(stop->shard->partitions_of,
                               shard_partitions_gone, stop);
}

static void host_stop(struct shard_stop *stop)
{
    raft_host_stop(stop->shard->host, STOP_TRANSFER_MS, shard_host_stopped,
                   stop);
}

/* Requests of all shards may wait for the metadata, whose log is shard 0's: it
 * is closed when all connections are, or after a while. */
static void first_goes_on(struct broker *b)
{
    struct shard_stop *stop = b->first_stop;
    if (stop == NULL || !stop->closed ||
        (b->n_closed < b->options.n_shards && !stop->late)) {
        return;
    }
    stop->closed = false; /* once */
    env_timer_stop(&stop->answers);
    if (b->metadata != NULL) {
        metadata_stop_calls(b->metadata);
    }
    host_stop(stop);
}

static void answers_due(struct env_timer *timer)
{
    struct shard_stop *stop = timer->arg;
    struct broker *b = stop->shard->broker;
    stop->late = true;
    if (b->metadata != NULL) {
        metadata_stop_calls(b->metadata);
    }
    first_goes_on(b);
}

static void other_closed(struct env_post *post)
{
    struct broker *b = post->arg;
    b->n_closed++;
    first_goes_on(b);
}

static void shard_connections_closed(void *arg)
{
    struct shard_stop *stop = arg;
    struct broker *b = stop->shard->broker;
    if (stop->shard->index == 0) {
        stop->closed = true;
        b->n_closed++;
        first_goes_on(b);
        return;
    }
    stop->closed_post = (struct env_post){.cb = other_closed, .arg = b};
    env_post(b->env, &stop->closed_post);
    host_stop(stop);
}

/* Begins to hand a group over; true while it may still succeed. Each group is
 * handed over once: brokers that stop together would else pass it round. */
static bool hand_over_one(struct group *g, bool *handed_over, int *begun)
{
    if (!group_role(g).is_leader || group_creation(g)->n_replicas < 2) {
        return false;
    }
    if (*begun >= STOP_TRANSFERS_AT_ONCE) {
        return true;
    }
    enum err e = *handed_over ? ERR_BUSY : group_transfer(g, -1);
    if (*handed_over || e != ERR_OK) {
        /* under way; or it came back; or nobody is there to take it */
        return e == ERR_BUSY && group_is_handing_over(g);
    }
    *handed_over = true;
    *begun += 1;
    return true;
}

/* Led here, and the topic is deleted: few at a time, like all replicas. */
static bool delete_one(struct shard_partition *sp, int *begun)
{
    struct broker_shard *s = sp->shard;
    if (!group_role(partition_group(sp->partition)).is_leader ||
        image_topic_by_id(s->image, &sp->id.topic) != NULL) {
        return false;
    }
    if (*begun < STOP_TRANSFERS_AT_ONCE) {
        *begun += 1;
        shard_partition_delete(s, &sp->id);
    }
    return true;
}

/* How many groups of this shard wait for another leader, or to be deleted. */
static int hand_over(struct broker_shard *s)
{
    int waiting = 0;
    int begun = 0;
    struct shard_partition *sp = NULL;
    struct shard_partition *next = NULL;
    HASH_ITER(hh, s->partitions, sp, next)
    {
        waiting += delete_one(sp, &begun) ||
                   hand_over_one(partition_group(sp->partition),
                                 &sp->handed_over, &begun);
    }
    struct metadata *m = s->index == 0 ? s->broker->metadata : NULL;
    struct group *g = m == NULL ? NULL : metadata_group(m);
    if (g != NULL) {
        waiting += hand_over_one(g, &s->broker->metadata_handed_over, &begun);
    }
    return waiting;
}

static void shard_stop_step(struct env_timer *timer)
{
    struct shard_stop *stop = timer->arg;
    struct broker_shard *s = stop->shard;
    uint64_t now = env_now_ms(s->env);
    if (hand_over(s) > 0 && now < stop->deadline_ms &&
        !atomic_load(&s->broker->hurry)) {
        env_timer_start(&stop->timer, STOP_POLL_MS);
        return;
    }
    if (s->index == 0) {
        env_timer_start(&stop->answers, STOP_ANSWERS_MS);
    }
    coordinator_stop(s->coordinator); /* parked joins would be waited for */
    connections_close(s->connections, STOP_ANSWERS_MS, shard_connections_closed,
                      stop);
}

static void shard_stop_begin(struct env_post *post)
{
    struct shard_stop *stop = post->arg;
    struct broker_shard *s = stop->shard;
    stop->deadline_ms = env_now_ms(s->env) + STOP_TRANSFER_MS;
    shard_partitions_stop(s);
    orphans_leave(s);
    env_timer_init(s->env, &stop->timer, shard_stop_step, stop);
    env_timer_init(s->env, &stop->answers, answers_due, stop);
    shard_stop_step(&stop->timer);
}

void broker_stop(struct broker *b)
{
    if (b->stopping) {
        atomic_store(&b->hurry, true);
        return;
    }
    b->stopping = true;
    if (b->n_up < b->options.n_shards) {
        b->options.stopped(b->options.arg); /* nothing was begun */
        return;
    }
    for (int i = 0; i < b->addresses.n; i++) {
        if (b->listeners[i] != NULL) {
            listener_close(b->listeners[i]);
            b->listeners[i] = NULL;
        }
    }
    for (unsigned i = 0; i < b->options.n_shards; i++) {
        struct shard_stop *stop = mem_zalloc(sizeof *stop);
        stop->shard = b->shards[i];
        b->first_stop = i == 0 ? stop : b->first_stop;
        stop->post = (struct env_post){.cb = shard_stop_begin, .arg = stop};
        env_post(b->shards[i]->env, &stop->post);
    }
}
