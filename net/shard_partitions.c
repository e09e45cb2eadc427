/* The partitions of a shard: opened, configured and closed as the metadata's
 * image says. */
#include <stdio.h>
#include <string.h>
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
    if (image_topic_by_id(sp->shard->image, &sp->id.topic) == NULL) {
        return; /* about to be deleted */
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

/* ---- one partition ------------------------------------------------------- */
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

void shard_partition_delete(struct broker_shard *s, const struct group_id *id)
{
    shard_leader_forget(s, id);
    struct shard_partition *sp = NULL;
    HASH_FIND(hh, s->partitions, id, sizeof *id, sp);
    if (sp == NULL) {
        return;
    }
    HASH_DEL(s->partitions, sp);
    if (sp->offsets_topic) {
        coordinator_partition_closed(s->coordinator, sp->partition,
                                     id->partition);
    }
    partition_delete(sp->partition); /* frees sp by closed */
}

/* ---- a few at a time ----------------------------------------------------- */
/* Opening or deleting thousands at once would keep the loop from its peers for
 * so long that they took us for dead: a few are done, the rest by a timer. */
#define AT_ONCE 64
#define PAUSE_MS 1

struct shard_opening {
    struct shard_opening *prev, *next;
    struct uuid topic;
    int32_t at, end;
    struct image_topic *deleted; /* own copy; NULL: the image has it */
};

static void opening_end(struct broker_shard *s, struct shard_opening *o)
{
    DL_DELETE(s->opening, o);
    if (o->deleted != NULL) {
        mem_free(o->deleted->name);
        mem_free(o->deleted->partitions);
        mem_free(o->deleted);
    }
    mem_free(o);
}

/* Of a deleted topic those that are not open are opened too: their files may be
 * there from before this start, and whoever owns them removes them. */
static void opening_step(struct broker_shard *s, struct shard_opening *o)
{
    const struct image_topic *topic =
        o->deleted != NULL ? o->deleted
                           : image_topic_by_id(s->image, &o->topic);
    ASSERT(topic != NULL);
    int32_t end = o->end - o->at > AT_ONCE ? o->at + AT_ONCE : o->end;
    struct partition_config config = shard_topic_settings(s, topic);
    for (; o->at < end; o->at++) {
        open_partition(s, topic, o->at, &config);
        if (o->deleted != NULL) {
            struct group_id id = {.topic = o->topic, .partition = o->at};
            shard_partition_delete(s, &id);
        }
    }
    if (o->at == o->end) {
        opening_end(s, o);
    }
}

/* Nothing is to be opened any more: who waits for that hears of it. */
static void openings_over(struct broker_shard *s)
{
    struct env_post *post = s->opened;
    s->opened = NULL;
    if (post != NULL) {
        env_post(s->env, post);
    }
}

/* The oldest goes on, and the timer with the rest. */
static void openings_go_on(struct broker_shard *s)
{
    opening_step(s, s->opening);
    if (s->opening != NULL) {
        env_timer_start(&s->opening_timer, PAUSE_MS);
    } else {
        openings_over(s);
    }
}

static void opening_timer(struct env_timer *timer)
{
    openings_go_on(timer->arg);
}

static void opening_begin(struct broker_shard *s,
                          const struct image_topic *topic, int32_t first,
                          struct image_topic *deleted)
{
    struct shard_opening *o = mem_zalloc(sizeof *o);
    o->topic = topic->id;
    o->at = first;
    o->end = topic->n_partitions;
    o->deleted = deleted;
    bool waits = s->opening != NULL; /* in their order */
    DL_APPEND(s->opening, o);
    if (!waits) {
        openings_go_on(s);
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
    openings_over(s);
}

void shard_partitions_when_open(struct broker_shard *s, struct env_post *post)
{
    ASSERT(s->opened == NULL);
    s->opened = post;
    if (s->opening == NULL) {
        openings_over(s);
    }
}

/* ---- what the image says ------------------------------------------------- */
void shard_partitions_open(struct broker_shard *s,
                           const struct image_topic *topic, int32_t first)
{
    if (!s->closing) {
        opening_begin(s, topic, first, NULL);
    }
}

/* Its name and replicas: what opening needs. */
static struct image_topic *topic_copy(const struct image_topic *topic)
{
    struct image_topic *copy = mem_zalloc(sizeof *copy);
    size_t size = (size_t)topic->n_partitions * sizeof *copy->partitions;
    copy->id = topic->id;
    copy->name = mem_strdup(topic->name);
    copy->internal = topic->internal;
    copy->n_partitions = topic->n_partitions;
    copy->partitions = mem_alloc(size);
    memcpy(copy->partitions, topic->partitions, size);
    return copy;
}

void shard_partitions_delete(struct broker_shard *s,
                             const struct image_topic *topic)
{
    struct shard_opening *o = NULL;
    struct shard_opening *next = NULL;
    DL_FOREACH_SAFE(s->opening, o, next)
    {
        if (uuid_equal(&o->topic, &topic->id)) {
            opening_end(s, o);
        }
    }
    if (s->opening == NULL) {
        env_timer_stop(&s->opening_timer);
    }
    coordinator_topic_deleted(s->coordinator, topic->name);
    if (!s->closing) { /* else at the next start, as what a crash left */
        opening_begin(s, topic, 0, topic_copy(topic));
    }
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
