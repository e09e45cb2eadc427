/* The partitions of a shard: opened, configured and closed as the metadata's
 * image says. */
#include <stdio.h>
#include <utlist.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/broker_impl.h"

static void partition_role_told(void *arg, struct partition *p,
                                const struct group_role *role)
{
    struct shard_partition *sp = arg;
    if (sp->offsets_topic) {
        coordinator_role_changed(sp->shard->coordinator, p, sp->id.partition,
                                 role);
    }
    if (role->is_leader && !role->ready) {
        return; /* not usable yet; told again when it is */
    }
    shard_leader_tell(sp->shard, &sp->id, role->leader, (int32_t)role->term.v);
}

static void partition_applied_told(void *arg, struct partition *p,
                                   kafka_offset base, const uint8_t *batch,
                                   uint32_t size)
{
    struct shard_partition *sp = arg;
    coordinator_applied(sp->shard->coordinator, p, sp->id.partition, base,
                        batch, size);
}

static void partition_closed_told(void *arg, struct partition *p)
{
    struct shard_partition *sp = arg;
    if (sp->offsets_topic) {
        coordinator_partition_closed(sp->shard->coordinator, p,
                                     sp->id.partition);
    }
    /* In a stop, other shards' connections may still ask for it. */
    struct shard_partition *found = NULL;
    HASH_FIND(hh, sp->shard->partitions, &sp->id, sizeof sp->id, found);
    if (found == sp) {
        HASH_DEL(sp->shard->partitions, sp);
    }
    mem_free(sp);
}

static const struct partition_ops partition_callbacks = {
    .role_changed = partition_role_told,
    .closed = partition_closed_told,
};
static const struct partition_ops offsets_partition_callbacks = {
    .role_changed = partition_role_told,
    .applied = partition_applied_told,
    .closed = partition_closed_told,
};

/* ---- opening ------------------------------------------------------------- */
static void open_partition(struct broker_shard *s,
                           const struct image_topic *topic, int32_t index,
                           const struct partition_config *config)
{
    struct broker *b = s->broker;
    const struct image_partition *ip = &topic->partitions[index];
    struct group_creation creation = {
        .id = {.topic = topic->id, .partition = index},
        .directory = b->identity.directory,
        .n_replicas = ip->n_replicas,
    };
    for (int i = 0; i < ip->n_replicas; i++) {
        creation.replicas[i] = ip->replicas[i];
        if (ip->replicas[i].node == b->identity.node) {
            creation.self = ip->replicas[i].id;
        }
    }
    if (creation.self == 0 || shard_owner(s, &creation.id) != s ||
        shard_find_partition(s, &creation.id) != NULL) {
        return;
    }
    struct shard_partition *sp = mem_zalloc(sizeof *sp);
    sp->id = creation.id;
    sp->shard = s;
    sp->offsets_topic = strcmp(topic->name, OFFSETS_TOPIC) == 0;
    char name[TOPIC_NAME_MAX + 16];
    snprintf(name, sizeof name, "%s-%d", topic->name, (int)index);
    HASH_ADD(hh, s->partitions, id, sizeof sp->id, sp);
    enum err e = partition_open(
        s->partitions_of, &creation, name, config,
        sp->offsets_topic ? &offsets_partition_callbacks : &partition_callbacks,
        sp, &sp->partition);
    if (e != ERR_OK) {
        log_error("broker", "partition %s cannot be opened here: %s", name,
                  err_text(e));
        HASH_DEL(s->partitions, sp);
        mem_free(sp);
        return;
    }
    /* what it knew at once, before `partition` was set */
    struct group_role role = partition_role(sp->partition);
    partition_role_told(sp, sp->partition, &role);
}

/* Opening thousands at once would keep the loop from its peers for so long that
 * they took us for dead: a few are opened at a time, the rest by a timer. */
#define OPEN_AT_ONCE 64
#define OPEN_PAUSE_MS 1

struct shard_opening {
    struct shard_opening *prev, *next;
    struct uuid topic;
    int32_t at, end;
};

static void opening_end(struct broker_shard *s, struct shard_opening *o)
{
    DL_DELETE(s->opening, o);
    mem_free(o);
}

/* Opens up to `most` of these; true when that were all. */
static bool open_some(struct broker_shard *s, struct shard_opening *o,
                      const struct image_topic *topic, int32_t most)
{
    int32_t end = o->end - o->at > most ? o->at + most : o->end;
    struct partition_config config = shard_topic_settings(s, topic);
    for (; o->at < end; o->at++) {
        open_partition(s, topic, o->at, &config);
    }
    return o->at == o->end;
}

static void opening_timer(struct env_timer *timer)
{
    struct broker_shard *s = timer->arg;
    struct shard_opening *o = s->opening;
    /* a topic that is deleted has nothing left here */
    const struct image_topic *topic = image_topic_by_id(s->image, &o->topic);
    ASSERT(topic != NULL);
    if (open_some(s, o, topic, OPEN_AT_ONCE)) {
        opening_end(s, o);
    }
    if (s->opening != NULL) {
        env_timer_start(timer, OPEN_PAUSE_MS);
    }
}

void shard_partitions_open(struct broker_shard *s,
                           const struct image_topic *topic, int32_t first)
{
    if (s->closing) {
        return;
    }
    struct shard_opening *o = mem_zalloc(sizeof *o);
    o->topic = topic->id;
    o->at = first;
    o->end = topic->n_partitions;
    bool waits = s->opening != NULL; /* in their order */
    DL_APPEND(s->opening, o);
    if (!waits && open_some(s, o, topic, OPEN_AT_ONCE)) {
        opening_end(s, o);
    } else if (!waits) {
        env_timer_start(&s->opening_timer, OPEN_PAUSE_MS);
    }
}

void shard_partitions_init(struct broker_shard *s)
{
    env_timer_init(s->env, &s->opening_timer, opening_timer, s);
}

void shard_partitions_stop(struct broker_shard *s)
{
    s->closing = true;
    env_timer_stop(&s->opening_timer);
    while (s->opening != NULL) {
        opening_end(s, s->opening);
    }
}

/* What is still to be opened is, so that its files are found and removed. */
static void open_rest(struct broker_shard *s, const struct image_topic *topic)
{
    struct shard_opening *o = NULL;
    struct shard_opening *next = NULL;
    DL_FOREACH_SAFE(s->opening, o, next)
    {
        if (uuid_equal(&o->topic, &topic->id)) {
            open_some(s, o, topic, INT32_MAX);
            opening_end(s, o);
        }
    }
    if (s->opening == NULL) {
        env_timer_stop(&s->opening_timer);
    }
}

/* ---- closing, other settings --------------------------------------------- */
void shard_partitions_delete(struct broker_shard *s,
                             const struct image_topic *topic)
{
    open_rest(s, topic);
    for (int32_t i = 0; i < topic->n_partitions; i++) {
        struct group_id id = {.topic = topic->id, .partition = i};
        shard_leader_forget(s, &id);
        struct shard_partition *sp = NULL;
        HASH_FIND(hh, s->partitions, &id, sizeof id, sp);
        if (sp == NULL) {
            continue;
        }
        HASH_DEL(s->partitions, sp);
        if (sp->offsets_topic) {
            coordinator_partition_closed(s->coordinator, sp->partition, i);
        }
        partition_delete(sp->partition); /* frees sp by closed */
    }
    coordinator_topic_deleted(s->coordinator, topic->name);
}

void shard_partitions_configure(struct broker_shard *s,
                                const struct image_topic *topic)
{
    struct partition_config config = shard_topic_settings(s, topic);
    for (int32_t i = 0; i < topic->n_partitions; i++) {
        struct group_id id = {.topic = topic->id, .partition = i};
        struct partition *p = shard_find_partition(s, &id);
        if (p != NULL) {
            partition_configure(p, &config);
        }
    }
}
