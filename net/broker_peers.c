/* Other brokers: who is let in, and every shard is told who is up. */
#include <stdio.h>

#include "base/mem.h"
#include "net/broker_impl.h"

static enum err peer_admit(void *arg, const struct uuid *cluster, node_id node,
                           const struct uuid *directory, char *why,
                           size_t why_size)
{
    struct broker_shard *s = arg;
    struct broker *b = s->broker;
    if (node == b->identity.node &&
        !uuid_equal(directory, &b->identity.directory)) {
        snprintf(why, why_size,
                 "node.id %d is already used by a running broker (%s); give "
                 "this broker another node.id",
                 (int)node, b->addresses.peer_advertised);
        return ERR_REFUSED;
    }
    if (s->index == 0 && b->metadata != NULL) {
        return metadata_admit(b->metadata, cluster, node, directory, why,
                              why_size);
    }
    const struct image_broker *known = image_broker(s->image, node);
    if (known != NULL && !uuid_equal(&known->directory, directory)) {
        snprintf(why, why_size, "node.id %d has another data directory",
                 (int)node); /* shard 0 tells the whole story */
        return ERR_REFUSED;
    }
    return ERR_OK;
}

struct peer_news {
    struct env_post post;
    struct broker_shard *shard;
    node_id node;
    bool up;
};

static void peer_news_arrived(struct env_post *post)
{
    struct peer_news *news = post->arg;
    struct raft_host *host = news->shard->host; /* NULL: stopped */
    if (host != NULL && news->up) {
        raft_host_peer_up(host, news->node);
    } else if (host != NULL) {
        raft_host_peer_down(host, news->node);
    }
    mem_free(news);
}

static void peer_tell(struct broker *b, node_id node, bool up)
{
    for (unsigned i = 0; i < b->options.n_shards; i++) {
        if (b->shards[i] == NULL) {
            continue;
        }
        struct peer_news *news = mem_zalloc(sizeof *news);
        news->post = (struct env_post){.cb = peer_news_arrived, .arg = news};
        news->shard = b->shards[i];
        news->node = node;
        news->up = up;
        env_post(b->shards[i]->env, &news->post);
    }
}

static void peer_changed(struct broker_shard *s, node_id node, bool up)
{
    peer_tell(s->broker, node, up);
    if (s->index == 0 && s->broker->metadata != NULL) {
        metadata_peer_changed(s->broker->metadata, node);
    }
}

static void peer_up(void *arg, node_id node)
{
    peer_changed(arg, node, true);
}

static void peer_down(void *arg, node_id node)
{
    peer_changed(arg, node, false);
}

const struct transport_ops broker_transport_ops = {
    .admit = peer_admit, .peer_up = peer_up, .peer_down = peer_down};
