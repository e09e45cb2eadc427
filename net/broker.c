/* The composition root. Start, in order: identity of the data directory;
 * every shard recovers its log on its own thread; the peer listener opens;
 * the metadata group forms or is found; partitions are opened as the metadata
 * image names them; registered, the client listener opens and the broker is
 * ready. Any failure before that is one sentence through options->failed. */
#include "net/broker.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <utlist.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "metadata/config_listeners.h"
#include "metadata/identity.h"
#include "net/connection.h"
#include "net/fetch_session.h"
#include "net/layout.h"
#include "net/listener.h"
#include "net/memory.h"
#include "net/orphans.h"
#include "net/shard.h"
#include "net/throttle.h"

#define PATH_SIZE 4096
#define STOP_TRANSFER_MS 5000
#define STOP_POLL_MS 10
#define STOP_ANSWERS_MS 500
#define STOP_TRANSFERS_AT_ONCE 64

struct broker {
    struct broker_options options;
    const struct broker_config *config;
    struct env *env; /* of shard 0 */
    struct identity identity;
    struct layout layout; /* of the shards' directories */
    struct broker_shard *shards[BROKER_SHARDS_MAX];
    struct transport *transports[BROKER_SHARDS_MAX]; /* each sees all */
    unsigned n_up, n_stopped;
    struct metadata *metadata;
    struct throttle *throttle;
    struct listener *listeners[CONFIG_LISTENERS_MAX];
    struct config_listeners addresses;
    _Atomic node_id controller;
    struct env_deferred begin;
    _Atomic bool hurry;
    bool failed, ready, stopping;
    bool metadata_handed_over;
    char dir[PATH_SIZE - 256];
    char address[LIMIT_ADDRESS + 16];
    char waiting[512];
};

unsigned broker_n_shards(const struct broker *b)
{
    return b->options.n_shards;
}

struct broker_shard *broker_shard(const struct broker *b, unsigned index)
{
    ASSERT(index < b->options.n_shards);
    return b->shards[index];
}

const struct broker_config *broker_static_config(const struct broker *b)
{
    return b->config;
}

struct metadata *broker_metadata(const struct broker *b)
{
    return b->metadata;
}

struct throttle *broker_throttle(const struct broker *b)
{
    return b->throttle;
}

node_id broker_node(const struct broker *b)
{
    return b->identity.node;
}

node_id broker_controller(const struct broker *b)
{
    return atomic_load_explicit(&b->controller, memory_order_relaxed);
}

const char *broker_data_dir(const struct broker *b)
{
    return b->dir;
}

const char *broker_address(const struct broker *b)
{
    return b->address;
}

const char *broker_waiting_for(const struct broker *b)
{
    return b->metadata == NULL ? b->waiting : metadata_waiting_for(b->metadata);
}

static void fail(struct broker *b, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void fail(struct broker *b, const char *format, ...)
{
    if (b->failed) {
        return;
    }
    b->failed = true;
    char sentence[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    b->options.failed(b->options.arg, sentence);
}

/* ---- leaders known here -------------------------------------------------- */
/* A role change is told to every shard, so that each answers Metadata by the
 * newest the broker knows. */
struct leader_news {
    struct env_post post;
    struct broker_shard *shard;
    struct group_id id;
    node_id leader;
    int32_t epoch;
};

static void leader_learn(struct broker_shard *s, const struct group_id *id,
                         node_id leader, int32_t epoch)
{
    struct shard_leader *known = NULL;
    HASH_FIND(hh, s->leaders, id, sizeof *id, known);
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

static void leader_forget(struct broker_shard *s, const struct group_id *id)
{
    struct shard_leader *known = NULL;
    HASH_FIND(hh, s->leaders, id, sizeof *id, known);
    if (known != NULL) {
        HASH_DEL(s->leaders, known);
        mem_free(known);
    }
}

static void leader_news_arrived(struct env_post *post)
{
    struct leader_news *news = post->arg;
    leader_learn(news->shard, &news->id, news->leader, news->epoch);
    mem_free(news);
}

static void leader_tell(struct broker_shard *from, const struct group_id *id,
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
        env_post(b->shards[i]->env, &news->post);
    }
}

/* ---- partitions of a shard ----------------------------------------------- */
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
    leader_tell(sp->shard, &sp->id, role->leader, (int32_t)role->term.v);
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

static const char *effective(struct broker_shard *s,
                             const struct image_topic *topic, const char *name)
{
    int source = 0;
    const struct config_key *key = config_key_find(CONFIG_TOPIC, name);
    ASSERT(key != NULL);
    return config_topic_effective(s->image, topic, s->broker->config,
                                  broker_node(s->broker), key, &source);
}

static int64_t effective_int(struct broker_shard *s,
                             const struct image_topic *topic, const char *name)
{
    const char *v = effective(s, topic, name);
    return v == NULL ? -1 : strtoll(v, NULL, 10);
}

static double effective_double(struct broker_shard *s,
                               const struct image_topic *topic,
                               const char *name)
{
    const char *v = effective(s, topic, name);
    return v == NULL ? 0 : strtod(v, NULL);
}

static int32_t effective_i32(struct broker_shard *s,
                             const struct image_topic *topic, const char *name)
{
    int64_t v = effective_int(s, topic, name);
    return v > INT32_MAX ? INT32_MAX : v < -1 ? -1 : (int32_t)v;
}

static struct partition_config topic_settings(struct broker_shard *s,
                                              const struct image_topic *t)
{
    const char *policy = effective(s, t, "cleanup.policy");
    const char *stamp = effective(s, t, "message.timestamp.type");
    struct partition_config c = {
        .cleanup_delete = policy != NULL && strstr(policy, "delete") != NULL,
        .cleanup_compact = policy != NULL && strstr(policy, "compact") != NULL,
        .retention_ms = effective_int(s, t, "retention.ms"),
        .retention_bytes = effective_int(s, t, "retention.bytes"),
        .segment_bytes = effective_i32(s, t, "segment.bytes"),
        .segment_ms = effective_int(s, t, "segment.ms"),
        .segment_jitter_ms = effective_int(s, t, "segment.jitter.ms"),
        .index_interval_bytes = effective_i32(s, t, "index.interval.bytes"),
        .max_message_bytes = effective_i32(s, t, "max.message.bytes"),
        .timestamp_type = stamp != NULL && strcmp(stamp, "LogAppendTime") == 0
                              ? TIMESTAMP_APPEND
                              : TIMESTAMP_CREATE,
        .timestamp_before_max_ms =
            effective_int(s, t, "message.timestamp.before.max.ms"),
        .timestamp_after_max_ms =
            effective_int(s, t, "message.timestamp.after.max.ms"),
        .min_insync_replicas = effective_i32(s, t, "min.insync.replicas"),
        .producer_id_expiration_ms =
            broker_config_int(s->broker->config, "producer.id.expiration.ms"),
        .compaction_off =
            !broker_config_bool(s->broker->config, "log.cleaner.enable"),
        .min_cleanable_dirty_ratio =
            effective_double(s, t, "min.cleanable.dirty.ratio"),
        .delete_retention_ms = effective_int(s, t, "delete.retention.ms"),
        .min_compaction_lag_ms = effective_int(s, t, "min.compaction.lag.ms"),
        .max_compaction_lag_ms = effective_int(s, t, "max.compaction.lag.ms"),
    };
    if (strcmp(t->name, OFFSETS_TOPIC) == 0 &&
        c.segment_bytes > LIMIT_OFFSETS_SEGMENT) {
        c.segment_bytes = LIMIT_OFFSETS_SEGMENT;
    }
    return c;
}

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
    struct partition_config config = topic_settings(s, topic);
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

static void open_partitions(struct broker_shard *s,
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

static void openings_drop(struct broker_shard *s)
{
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

static void close_partitions(struct broker_shard *s,
                             const struct image_topic *topic)
{
    open_rest(s, topic);
    for (int32_t i = 0; i < topic->n_partitions; i++) {
        struct group_id id = {.topic = topic->id, .partition = i};
        leader_forget(s, &id);
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

static void configure_partitions(struct broker_shard *s,
                                 const struct image_topic *topic)
{
    struct partition_config config = topic_settings(s, topic);
    for (int32_t i = 0; i < topic->n_partitions; i++) {
        struct group_id id = {.topic = topic->id, .partition = i};
        struct partition *p = shard_find_partition(s, &id);
        if (p != NULL) {
            partition_configure(p, &config);
        }
    }
}

static void meet_broker(struct broker_shard *s, const struct image_broker *ib)
{
    if (ib->node == broker_node(s->broker)) {
        return;
    }
    transport_set_peer(s->transport, ib->node, ib->peer_address);
}

static void image_changed(void *arg, const struct image_change *change)
{
    struct broker_shard *s = arg;
    switch (change->kind) {
        case IMAGE_CLUSTER:
            transport_set_cluster(s->transport, image_cluster_id(s->image));
            break;
        case IMAGE_BROKER:
            if (change->broker != NULL) {
                meet_broker(s, change->broker);
            }
            break;
        case IMAGE_TOPIC_CREATED:
            open_partitions(s, change->topic, 0);
            break;
        case IMAGE_PARTITIONS_ADDED:
            open_partitions(s, change->topic, change->partition);
            break;
        case IMAGE_TOPIC_DELETED:
            close_partitions(s, change->topic);
            break;
        case IMAGE_TOPIC_CONFIG:
            configure_partitions(s, change->topic);
            break;
        case IMAGE_BROKER_CONFIG: {
            const struct image_topic *const *topics = NULL;
            int n = image_topics(s->image, &topics);
            for (int i = 0; i < n; i++) {
                configure_partitions(s, topics[i]);
            }
            break;
        }
        case IMAGE_LEADER:
            break;
    }
}

/* ---- every shard's copy of the image ------------------------------------- */
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

static void metadata_applied(void *arg, log_index index, const uint8_t *record,
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

static bool metadata_local_leader(void *arg, const struct group_id *group,
                                  node_id *leader, int32_t *epoch)
{
    struct broker *b = arg;
    struct shard_leader *known = NULL;
    HASH_FIND(hh, b->shards[0]->leaders, group, sizeof *group, known);
    if (known == NULL || known->leader < 0) {
        return false;
    }
    *leader = known->leader;
    *epoch = known->epoch;
    return true;
}

static void metadata_refused(void *arg, const char *sentence)
{
    fail(arg, "%s", sentence);
}

/* ---- peers --------------------------------------------------------------- */
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

static const struct transport_ops transport_callbacks = {
    .admit = peer_admit, .peer_up = peer_up, .peer_down = peer_down};

/* ---- start --------------------------------------------------------------- */
static void address_of(const char *host, int32_t port, char *out, size_t size)
{
    snprintf(out, size, strchr(host, ':') != NULL ? "[%s]:%d" : "%s:%d", host,
             (int)port);
}

/* Why it cannot be listened on an address, and what then helps. */
static const char *listen_why(enum err e)
{
    switch ((int)e) {
        case ERR_BUSY:
            return "the port is in use; stop what uses it";
        case ERR_UNREACHABLE:
            return "this machine has no such address; name one of its own";
        default:
            return err_text(e);
    }
}

static bool client_listen_one(struct broker *b, int i)
{
    const struct config_listener *l = &b->addresses.listen[i];
    char address[LIMIT_ADDRESS + 16];
    address_of(l->host[0] == '\0' ? "0.0.0.0" : l->host, l->port, address,
               sizeof address);
    enum err e =
        listener_open(b->shards[0], address, l->name, &b->listeners[i]);
    if (e != ERR_OK) {
        fail(b, "Cannot listen on %s: %s, or change `listeners`.", address,
             listen_why(e));
        return false;
    }
    return true;
}

static void partitions_dir(const struct broker *b, char out[PATH_SIZE])
{
    snprintf(out, PATH_SIZE, "%s/partitions", b->dir);
}

static void client_listen(struct broker *b)
{
    for (int i = 0; i < b->addresses.n; i++) {
        if (!client_listen_one(b, i)) {
            return;
        }
    }
    const struct config_listener *a = &b->addresses.advertised[0];
    address_of(a->host, a->port, b->address, sizeof b->address);
    b->ready = true;
    b->options.ready(b->options.arg, b);
}

static void metadata_ready(void *arg)
{
    struct broker *b = arg;
    atomic_store(&b->controller, metadata_leader(b->metadata));
    if (!b->ready && !b->failed && !b->stopping) {
        char partitions[PATH_SIZE];
        partitions_dir(b, partitions);
        orphans_sweep(b->shards[0], partitions);
        client_listen(b);
    }
}

static const struct metadata_ops metadata_callbacks = {
    .applied = metadata_applied,
    .ready = metadata_ready,
    .refused = metadata_refused,
    .local_leader = metadata_local_leader,
};

#define LISTENER_TEXT (CONFIG_LISTENER_NAME_MAX + LIMIT_ADDRESS + 16)

/* Every advertised address with the name of its listener. */
static const char *listeners_text(const struct broker *b, char *out,
                                  size_t size)
{
    size_t n = 0;
    out[0] = '\0';
    for (int i = 0; i < b->addresses.n; i++) {
        char address[LIMIT_ADDRESS + 16];
        const struct config_listener *a = &b->addresses.advertised[i];
        address_of(a->host, a->port, address, sizeof address);
        n += (size_t)snprintf(out + n, size - n, "%s%s://%s", i > 0 ? "," : "",
                              b->addresses.listen[i].name, address);
        ASSERT(n < size);
    }
    return out;
}

static void start_metadata(struct broker *b)
{
    struct broker_shard *s = b->shards[0];
    const struct broker_config *c = b->config;
    enum err e = transport_listen(s->transport, b->addresses.peer_listen);
    if (e != ERR_OK) {
        fail(b,
             "cannot listen for other brokers on %s: %s, or change "
             "`peer.listener`",
             b->addresses.peer_listen, listen_why(e));
        return;
    }
    char listeners[CONFIG_LISTENERS_MAX * LISTENER_TEXT];
    struct metadata_options options = {
        .listeners = b->addresses.n < 2
                         ? NULL
                         : listeners_text(b, listeners, sizeof listeners),
        .env = b->env,
        .host = s->host,
        .transport = s->transport,
        .dir = b->dir,
        .node = b->identity.node,
        .directory = b->identity.directory,
        .seeds = broker_config_get(c, "seeds"),
        .peer_address = b->addresses.peer_advertised,
        .advertised_host = b->addresses.advertised[0].host,
        .advertised_port = b->addresses.advertised[0].port,
        .rack = broker_config_get(c, "broker.rack"),
        .heartbeat_ms = 200,
        .session_ms = 3000,
        .num_partitions = (int32_t)broker_config_int(c, "num.partitions"),
        .default_replication_factor =
            (int16_t)broker_config_int(c, "default.replication.factor"),
        .producer_id_block = 1000,
    };
    e = metadata_new(&options, &metadata_callbacks, b, &b->metadata);
    if (e != ERR_OK) {
        fail(b, "the cluster's metadata in %s cannot be used: %s", b->dir,
             err_text(e));
    }
}

struct shard_start {
    struct env_post post;
    struct broker_shard *shard;
    enum err status;
};

static void shard_is_up(struct env_post *post)
{
    struct shard_start *start = post->arg;
    struct broker *b = start->shard->broker;
    enum err e = start->status;
    mem_free(start);
    if (e != ERR_OK) {
        fail(b,
             "the data in %s cannot be used: %s (the lines above say where); "
             "nothing was changed",
             b->dir, err_text(e));
        return;
    }
    if (++b->n_up == b->options.n_shards) {
        e = b->layout.recorded ? ERR_OK
                               : layout_record(b->env, b->dir, &b->layout);
        if (e != ERR_OK) {
            fail(b, "the data directory %s cannot be written: %s", b->dir,
                 err_text(e));
            return;
        }
        for (unsigned i = 0; i < b->n_up; i++) {
            b->transports[i] = b->shards[i]->transport;
        }
        for (unsigned i = 0; i < b->n_up; i++) {
            transport_set_shards(b->transports[i], b->transports, b->n_up);
        }
        start_metadata(b);
    }
}

static enum err shard_open(struct broker_shard *s)
{
    struct broker *b = s->broker;
    const struct broker_config *c = b->config;
    char dir[PATH_SIZE], partitions[PATH_SIZE];
    layout_shard_dir(&b->layout, b->dir, s->index, dir);
    partitions_dir(b, partitions);
    enum err e = env_dir_make(s->env, dir);
    if (e == ERR_OK) {
        e = env_dir_make(s->env, partitions);
    }
    if (e != ERR_OK) {
        return e;
    }
    struct transport_options to = {
        .env = s->env,
        .shard = s->index,
        .n_shards = b->options.n_shards,
        .node = b->identity.node,
        .directory = b->identity.directory,
        .ping_ms = (uint32_t)broker_config_int(c, "peer.ping.interval.ms"),
        .silence_ms = (uint32_t)broker_config_int(c, "peer.silence.ms"),
        .queue_bytes_max = (uint64_t)broker_config_int(c, "peer.queue.bytes"),
        .address = b->addresses.peer_advertised,
    };
    s->transport = transport_new(&to, &transport_callbacks, s);
    struct raft_host_options ho = {
        .env = s->env,
        .dir = dir,
        .log_must_exist = b->layout.recorded,
        .shard = s->index,
        .node = b->identity.node,
        .directory = b->identity.directory,
        .transport = s->transport,
        .tick_ms = 50,
        .heartbeat_ms =
            (uint32_t)broker_config_int(c, "raft.heartbeat.interval.ms"),
        .rest_ms = (uint32_t)broker_config_int(c, "raft.rest.after.ms"),
        .election_ms =
            (uint32_t)broker_config_int(c, "raft.election.timeout.ms"),
        .log_buffer_bytes = (uint64_t)broker_config_int(c, "log.buffer.bytes"),
        .wal_file_bytes = (uint64_t)broker_config_int(c, "wal.file.bytes"),
        .wal_bytes_max = (uint64_t)broker_config_int(c, "wal.bytes.max"),
        .settle_ms = (uint32_t)broker_config_int(c, "settle.interval.ms"),
        .settle_bytes = (uint32_t)broker_config_int(c, "settle.bytes"),
    };
    env_timer_init(s->env, &s->opening_timer, opening_timer, s);
    e = raft_host_new(&ho, &s->host);
    if (e != ERR_OK) {
        return e;
    }
    struct partition_shard_options po = {
        .env = s->env,
        .host = s->host,
        .dir = partitions,
        .open_files_max = (uint32_t)broker_config_int(c, "open.files.max"),
        .read_bytes_max = (uint64_t)broker_config_int(c, "read.memory.bytes"),
        .lent_bytes_max = memory_lent_max(c),
        .scrub_bytes_per_s =
            (uint64_t)broker_config_int(c, "log.scrub.max.bytes.per.second"),
    };
    s->partitions_of = partition_shard_new(&po);
    struct coordinator_options co = {
        .env = s->env,
        .image = s->image,
        .initial_rebalance_delay_ms =
            (uint32_t)broker_config_int(c, "group.initial.rebalance.delay.ms"),
        .session_timeout_min_ms =
            (uint32_t)broker_config_int(c, "group.min.session.timeout.ms"),
        .session_timeout_max_ms =
            (uint32_t)broker_config_int(c, "group.max.session.timeout.ms"),
        .group_size_max = (uint32_t)broker_config_int(c, "group.max.size"),
        .offsets_retention_ms =
            broker_config_int(c, "offsets.retention.minutes") * 60000,
        .offset_metadata_bytes_max =
            (int32_t)broker_config_int(c, "offset.metadata.max.bytes"),
    };
    s->coordinator = coordinator_new(&co);
    s->connections = connections_new(s);
    uint32_t slots = (uint32_t)broker_config_int(
        c, "max.incremental.fetch.session.cache.slots");
    s->fetch_sessions =
        fetch_sessions_new(s->env, (slots + s->broker->options.n_shards - 1) /
                                       s->broker->options.n_shards);
    s->up = true;
    return ERR_OK;
}

static void shard_begin(struct env_post *post)
{
    struct shard_start *start = post->arg;
    struct broker_shard *s = start->shard;
    start->status = shard_open(s);
    start->post = (struct env_post){.cb = shard_is_up, .arg = start};
    env_post(s->broker->env, &start->post);
}

/* Reads the listeners. Who starts the broker wrote the machine's name where one
 * is told to others; without it (tests) it is localhost. False after fail. */
static bool read_listeners(struct broker *b)
{
    struct config_listeners *l = &b->addresses;
    char why[512];
    if (config_listeners_read(b->config, l, why, sizeof why) != ERR_OK) {
        fail(b, "%s", why);
        return false;
    }
    for (int i = 0; i < l->n; i++) {
        if (l->advertised[i].host[0] == '\0') {
            snprintf(l->advertised[i].host, sizeof l->advertised[i].host,
                     "localhost");
        }
    }
    if (l->peer_advertised[0] == ':') {
        char port[16];
        snprintf(port, sizeof port, "%.15s", l->peer_advertised);
        snprintf(l->peer_advertised, sizeof l->peer_advertised, "localhost%s",
                 port);
    }
    return true;
}

/* The first directory of log.dirs (log.dir); one is used. */
static bool open_data_dir(struct broker *b)
{
    const char *dirs = broker_config_get(b->config, "log.dirs");
    if (dirs == NULL || dirs[0] == '\0') {
        dirs = broker_config_get(b->config, "log.dir");
    }
    size_t n = strcspn(dirs, ",");
    if (n >= sizeof b->dir) {
        fail(b, "`log.dirs` is too long a path");
        return false;
    }
    memcpy(b->dir, dirs, n);
    b->dir[n] = '\0';
    enum err e = env_dir_make(b->env, b->dir);
    if (e != ERR_OK) {
        fail(b, "the data directory %s cannot be made: %s", b->dir,
             err_text(e));
        return false;
    }
    e = env_dir_lock(b->env, b->dir);
    if (e != ERR_OK) {
        fail(b,
             e == ERR_BUSY ? "the data directory %s is in use by another "
                             "running broker; stop that one or change log.dirs"
                           : "the data directory %s cannot be locked",
             b->dir);
        return false;
    }
    char why[1024];
    node_id node = (node_id)broker_config_int(b->config, "node.id");
    e = identity_load(b->env, b->dir, node, NULL, &b->identity, why,
                      sizeof why);
    if (e != ERR_OK) {
        fail(b, "%s", why);
        return false;
    }
    return true;
}

/* The shards' directories are known: each begins on its own thread. */
static void layout_known(void *arg, const struct layout *layout,
                         const char *sentence)
{
    struct broker *b = arg;
    if (layout == NULL) {
        fail(b, "%s", sentence);
        return;
    }
    b->layout = *layout;
    if (!layout->recorded && b->identity.state == IDENTITY_FORMED) {
        fail(b,
             "The data directory %s has lost its file `shards`, and perhaps "
             "more; restore it, or replace this broker's disk by an empty one "
             "under a new node.id.",
             b->dir);
        return;
    }
    for (unsigned i = 0; i < b->options.n_shards; i++) {
        struct broker_shard *s = mem_zalloc(sizeof *s);
        s->broker = b;
        s->index = i;
        s->env = b->options.envs[i];
        s->own_image = image_new();
        s->image = s->own_image;
        b->shards[i] = s;
    }
    for (unsigned i = 0; i < b->options.n_shards; i++) {
        struct shard_start *start = mem_zalloc(sizeof *start);
        start->shard = b->shards[i];
        start->post = (struct env_post){.cb = shard_begin, .arg = start};
        env_post(b->shards[i]->env, &start->post);
    }
}

static void begin(struct env_deferred *d)
{
    struct broker *b = d->arg;
    const struct broker_config *c = b->config;
    if (!read_listeners(b) || !open_data_dir(b)) {
        return;
    }
    struct layout_options options = {
        .env = b->env,
        .dir = b->dir,
        .n_shards = b->options.n_shards,
        .log_buffer_bytes = (uint64_t)broker_config_int(c, "log.buffer.bytes"),
        .wal_file_bytes = (uint64_t)broker_config_int(c, "wal.file.bytes"),
        .wal_bytes_max = (uint64_t)broker_config_int(c, "wal.bytes.max"),
    };
    layout_adopt(&options, layout_known, b);
}

/* For people who size a machine, and for the test of it. */
static void tell_memory(const struct broker *b)
{
    char seed[LIMIT_ADDRESS];
    int n = 0;
    while (config_seed(b->config, n, seed)) {
        n++;
    }
    log_info(
        "net",
        "memory is bounded bytes_max=%llu and for each connection %llu, "
        "for each partition %llu",
        (unsigned long long)memory_bound(b->config, b->options.n_shards,
                                         n > 1 ? (unsigned)n - 1 : 0, 0, 0),
        (unsigned long long)MEMORY_CONNECTION,
        (unsigned long long)MEMORY_PARTITION);
}

struct broker *broker_start(const struct broker_options *options)
{
    ASSERT(options->n_shards >= 1 && options->n_shards <= BROKER_SHARDS_MAX);
    struct broker *b = mem_zalloc(sizeof *b);
    b->options = *options;
    b->config = options->config;
    b->throttle = throttle_new(b->config);
    b->env = options->envs[0];
    atomic_init(&b->controller, -1);
    atomic_init(&b->hurry, false);
    snprintf(b->waiting, sizeof b->waiting, "recovers its log");
    tell_memory(b);
    b->begin = (struct env_deferred){.cb = begin, .arg = b};
    env_defer(b->env, &b->begin);
    return b;
}

/* ---- stop ---------------------------------------------------------------- */
/* Each shard by itself: hand the leaderships over, few at a time; answer what
 * is under way; flush and close. Then shard 0 tells the owner. */
struct shard_stop {
    struct env_post post;
    struct env_timer timer;
    struct broker_shard *shard;
    uint64_t deadline_ms;
};

static void shard_stopped(struct env_post *post)
{
    struct shard_stop *stop = post->arg;
    struct broker *b = stop->shard->broker;
    stop->shard->stopped = true;
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

static void shard_connections_closed(void *arg)
{
    struct shard_stop *stop = arg;
    raft_host_stop(stop->shard->host, STOP_TRANSFER_MS, shard_host_stopped,
                   stop);
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

/* How many groups of this shard wait for another leader. */
static int hand_over(struct broker_shard *s)
{
    int waiting = 0;
    int begun = 0;
    struct shard_partition *sp = NULL;
    struct shard_partition *next = NULL;
    HASH_ITER(hh, s->partitions, sp, next)
    {
        waiting += hand_over_one(partition_group(sp->partition),
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
    coordinator_stop(s->coordinator); /* parked joins would be waited for */
    connections_close(s->connections, STOP_ANSWERS_MS, shard_connections_closed,
                      stop);
}

static void shard_stop_begin(struct env_post *post)
{
    struct shard_stop *stop = post->arg;
    struct broker_shard *s = stop->shard;
    stop->deadline_ms = env_now_ms(s->env) + STOP_TRANSFER_MS;
    s->closing = true;
    env_timer_stop(&s->opening_timer);
    openings_drop(s);
    env_timer_init(s->env, &stop->timer, shard_stop_step, stop);
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
        stop->post = (struct env_post){.cb = shard_stop_begin, .arg = stop};
        env_post(b->shards[i]->env, &stop->post);
    }
}

static void shard_free(struct broker_shard *s)
{
    struct shard_leader *known = NULL;
    struct shard_leader *next = NULL;
    HASH_ITER(hh, s->leaders, known, next)
    {
        HASH_DEL(s->leaders, known);
        mem_free(known);
    }
    openings_drop(s);
    if (s->connections != NULL) {
        connections_free(s->connections);
    }
    fetch_sessions_free(s->fetch_sessions);
    if (s->coordinator != NULL) {
        coordinator_free(s->coordinator);
    }
    if (s->partitions_of != NULL) {
        partition_shard_free(s->partitions_of);
    }
    if (s->transport != NULL) {
        transport_free(s->transport);
    }
    image_free(s->own_image);
    mem_free(s);
}

void broker_free(struct broker *b)
{
    if (b->metadata != NULL) {
        metadata_free(b->metadata);
    }
    for (unsigned i = 0; i < b->options.n_shards; i++) {
        if (b->shards[i] != NULL) {
            shard_free(b->shards[i]);
        }
    }
    throttle_free(b->throttle);
    mem_free(b);
}
