/* What the metadata applied: every shard's copy of the image, and what a change
 * of it asks of the shard. */
#include <string.h>

#include "base/mem.h"
#include "net/broker_impl.h"

/* One that was unregistered is not dialled any more once it is gone; when it is
 * started again it dials, and is dialled back. */
static void meet_broker(struct broker_shard *s,
                        const struct image_change *change)
{
    if (change->node == broker_node(s->broker)) {
        return;
    }
    if (change->broker != NULL) {
        transport_set_peer(s->transport, change->node,
                           change->broker->peer_address);
    } else {
        transport_forget_peer(s->transport, change->node);
    }
}

static void image_changed(void *arg, const struct image_change *change)
{
    struct broker_shard *s = arg;
    switch (change->kind) {
        case IMAGE_CLUSTER:
            transport_set_cluster(s->transport, image_cluster_id(s->image));
            break;
        case IMAGE_BROKER:
            meet_broker(s, change);
            break;
        case IMAGE_TOPIC_CREATED:
            shard_partitions_open(s, change->topic, 0);
            break;
        case IMAGE_PARTITIONS_ADDED:
            shard_partitions_open(s, change->topic, change->partition);
            break;
        case IMAGE_TOPIC_DELETED:
            shard_partitions_delete(s, change->topic);
            break;
        case IMAGE_TOPIC_CONFIG:
            shard_partitions_configure(s, change->topic);
            break;
        case IMAGE_BROKER_CONFIG: {
            const struct image_topic *const *topics = NULL;
            int n = image_topics(s->image, &topics);
            for (int i = 0; i < n; i++) {
                shard_partitions_configure(s, topics[i]);
            }
            break;
        }
        case IMAGE_LEADER:
            break;
    }
}

struct image_news {
    struct env_post post;
    struct broker_shard *shard;
    log_index index;
    size_t size;
    uint8_t record[];
};

static void image_news_arrived(struct env_post *post)
{
    struct image_news *news = post->arg;
    struct broker_shard *s = news->shard;
    if (image_apply(s->own_image, news->index, news->record, news->size,
                    image_changed, s) != ERR_OK) {
        env_fatal(s->env,
                  "a metadata record that shard 0 applied cannot be "
                  "applied on shard %u",
                  s->index);
    }
    mem_free(news);
}

void broker_image_apply(void *arg, log_index index, const uint8_t *record,
                        size_t size)
{
    struct broker *b = arg;
    struct broker_shard *first = b->shards[0];
    if (image_apply(first->own_image, index, record, size, image_changed,
                    first) != ERR_OK) {
        env_fatal(b->env, "a metadata record cannot be applied");
    }
    for (unsigned i = 1; i < b->options.n_shards; i++) {
        struct image_news *news = mem_alloc(sizeof *news + size);
        news->post = (struct env_post){.cb = image_news_arrived, .arg = news};
        news->shard = b->shards[i];
        news->index = index;
        news->size = size;
        memcpy(news->record, record, size);
        env_post(b->shards[i]->env, &news->post);
    }
    if (b->metadata != NULL) {
        atomic_store_explicit(&b->controller, metadata_leader(b->metadata),
                              memory_order_relaxed);
    }
}
