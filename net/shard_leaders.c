/* The leaders of partitions that this broker knows by itself. A role change is
 * told to every shard, so that each answers Metadata by the newest the broker
 * knows. */
#include "base/assert.h"
#include "base/mem.h"
#include "net/broker_impl.h"

struct shard_leader *shard_leader_find(const struct broker_shard *s,
                                       const struct group_id *id)
{
    struct shard_leader *known = NULL;
    HASH_FIND(hh, s->leaders, id, sizeof *id, known);
    return known;
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
    const struct shard_leader *known = shard_leader_find(s, &id);
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

/* ---- learning ------------------------------------------------------------ */
struct leader_news {
    struct env_post post;
    struct broker_shard *shard;
    struct group_id id;
    node_id leader;
    int32_t epoch;
    log_index version; /* of the image in which the topic was there */
};

static void leader_learn(struct broker_shard *s, const struct group_id *id,
                         node_id leader, int32_t epoch)
{
    struct shard_leader *known = shard_leader_find(s, id);
    if (known == NULL) {
        if (leader < 0) {
            return;
        }
        known = mem_zalloc(sizeof *known);
        known->id = *id;
        known->leader = leader;
        known->epoch = epoch;
        HASH_ADD(hh, s->leaders, id, sizeof known->id, known);
    } else if (leader < 0) {
        known->leader = -1; /* the epoch stays: it never goes back */
        return;
    } else if (epoch >= known->epoch) {
        known->leader = leader;
        known->epoch = epoch;
    }
    /* told by the leader alone, and when it is ready: a follower hears of it
     * a moment before it can append */
    if (s->index == 0 && s->broker->metadata != NULL &&
        leader == s->broker->identity.node) {
        metadata_report_leader(s->broker->metadata, id, leader, epoch);
    }
}

void shard_leader_forget(struct broker_shard *s, const struct group_id *id)
{
    struct shard_leader *known = shard_leader_find(s, id);
    if (known != NULL) {
        HASH_DEL(s->leaders, known);
        mem_free(known);
    }
}

static void leader_news_arrived(struct env_post *post)
{
    struct leader_news *news = post->arg;
    const struct image *image = news->shard->image;
    bool deleted = image_version(image).v > news->version.v &&
                   image_topic_by_id(image, &news->id.topic) == NULL;
    if (!deleted) { /* else nobody would forget it any more */
        leader_learn(news->shard, &news->id, news->leader, news->epoch);
    }
    mem_free(news);
}

void shard_leader_tell(struct broker_shard *from, const struct group_id *id,
                       node_id leader, int32_t epoch)
{
    struct broker *b = from->broker;
    for (unsigned i = 0; i < b->options.n_shards; i++) {
        if (i == from->index) {
            leader_learn(from, id, leader, epoch);
            continue;
        }
        struct leader_news *news = mem_zalloc(sizeof *news);
        news->post = (struct env_post){.cb = leader_news_arrived, .arg = news};
        news->shard = b->shards[i];
        news->id = *id;
        news->leader = leader;
        news->epoch = epoch;
        news->version = image_version(from->image);
        env_post(b->shards[i]->env, &news->post);
    }
}

void shard_leaders_free(struct broker_shard *s)
{
    struct shard_leader *known = NULL;
    struct shard_leader *next = NULL;
    HASH_ITER(hh, s->leaders, known, next)
    {
        HASH_DEL(s->leaders, known);
        mem_free(known);
    }
}
