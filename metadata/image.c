#include "metadata/image.h"

#include <stdlib.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/mem.h"
#include "metadata/record.h"

/* A topic with its place in the tables; `topic` first, so that a pointer to
 * one is a pointer to the other. */
struct topic_node {
    struct image_topic topic;
    bool stale; /* not named yet by the dump being loaded */
    UT_hash_handle by_name;
    UT_hash_handle by_id;
};

struct broker_node {
    struct image_broker broker;
    bool stale;
    UT_hash_handle hh;
};

struct node_configs { /* of one broker, or of all (-1) */
    node_id node;
    int n_configs;
    struct image_config *configs;
};

struct request {
    struct uuid id;
    log_index index;
    uint8_t *answer;
    uint32_t size;
    UT_hash_handle hh; /* in order of insertion, as uthash keeps it */
};

struct image {
    log_index version;
    struct uuid cluster;
    struct topic_node *by_name;
    struct topic_node *by_id;
    const struct image_topic **topics; /* sorted by name */
    int n_topics, topics_capacity;
    struct broker_node *brokers_by_node;
    const struct image_broker **brokers; /* sorted by node */
    int n_brokers, brokers_capacity;
    struct node_configs *configs; /* sorted by node */
    int n_configs;
    struct image_resource *resources; /* sorted by scope and name */
    int n_resources;
    uint64_t next_replica;
    uint64_t next_producer;
    struct request *requests;
    size_t request_bytes;
};

/* What an apply works with. */
struct applying {
    struct image *image;
    log_index index;
    image_change_fn changed;
    void *arg;
};

struct image *image_new(void)
{
    struct image *image = mem_zalloc(sizeof *image);
    image->next_replica = 1;
    return image;
}

static void configs_free(struct image_config *configs, int n)
{
    for (int i = 0; i < n; i++) {
        mem_free(configs[i].name);
        mem_free(configs[i].value);
    }
    mem_free(configs);
}

static void topic_node_free(struct topic_node *node)
{
    configs_free(node->topic.configs, node->topic.n_configs);
    mem_free(node->topic.partitions);
    mem_free(node->topic.name);
    mem_free(node);
}

static void broker_texts_free(struct image_broker *broker)
{
    mem_free(broker->host);
    mem_free(broker->peer_address);
    mem_free(broker->rack);
    mem_free(broker->listeners);
}

static void requests_clear(struct image *image)
{
    struct request *at, *next;
    HASH_ITER(hh, image->requests, at, next)
    {
        HASH_DEL(image->requests, at);
        mem_free(at->answer);
        mem_free(at);
    }
    image->request_bytes = 0;
}

static void node_configs_clear(struct image *image)
{
    for (int i = 0; i < image->n_configs; i++) {
        configs_free(image->configs[i].configs, image->configs[i].n_configs);
    }
    mem_free(image->configs);
    image->configs = NULL;
    image->n_configs = 0;
}

static void resources_clear(struct image *image)
{
    for (int i = 0; i < image->n_resources; i++) {
        configs_free(image->resources[i].configs,
                     image->resources[i].n_configs);
        mem_free(image->resources[i].name);
    }
    mem_free(image->resources);
    image->resources = NULL;
    image->n_resources = 0;
}

void image_free(struct image *image)
{
    if (image == NULL) {
        return;
    }
    struct topic_node *topic, *topic_next;
    HASH_CLEAR(by_id, image->by_id);
    HASH_ITER(by_name, image->by_name, topic, topic_next)
    {
        HASH_DELETE(by_name, image->by_name, topic);
        topic_node_free(topic);
    }
    struct broker_node *broker, *broker_next;
    HASH_ITER(hh, image->brokers_by_node, broker, broker_next)
    {
        HASH_DEL(image->brokers_by_node, broker);
        broker_texts_free(&broker->broker);
        mem_free(broker);
    }
    requests_clear(image);
    node_configs_clear(image);
    resources_clear(image);
    mem_free(image->topics);
    mem_free(image->brokers);
    mem_free(image);
}

/* ---- reading ------------------------------------------------------------- */
log_index image_version(const struct image *image)
{
    return image->version;
}

const struct uuid *image_cluster_id(const struct image *image)
{
    return &image->cluster;
}

int image_brokers(const struct image *image,
                  const struct image_broker *const **out)
{
    *out = image->brokers;
    return image->n_brokers;
}

static struct broker_node *broker_find(const struct image *image, node_id node)
{
    struct broker_node *found;
    HASH_FIND(hh, image->brokers_by_node, &node, sizeof node, found);
    return found;
}

const struct image_broker *image_broker(const struct image *image, node_id node)
{
    struct broker_node *found = broker_find(image, node);
    return found == NULL ? NULL : &found->broker;
}

int image_topics(const struct image *image,
                 const struct image_topic *const **out)
{
    *out = image->topics;
    return image->n_topics;
}

static struct topic_node *topic_by_name(const struct image *image,
                                        const char *name, size_t n)
{
    struct topic_node *found;
    HASH_FIND(by_name, image->by_name, name, n, found);
    return found;
}

static struct topic_node *topic_by_id(const struct image *image,
                                      const struct uuid *id)
{
    struct topic_node *found;
    HASH_FIND(by_id, image->by_id, id, sizeof *id, found);
    return found;
}

const struct image_topic *image_topic(const struct image *image,
                                      const char *name, size_t n)
{
    struct topic_node *found = topic_by_name(image, name, n);
    return found == NULL ? NULL : &found->topic;
}

const struct image_topic *image_topic_by_id(const struct image *image,
                                            const struct uuid *id)
{
    struct topic_node *found = topic_by_id(image, id);
    return found == NULL ? NULL : &found->topic;
}

/* ---- looking in what is sorted ------------------------------------------- */
/* Place of `key` among n, or where it belongs; *found tells. `order` compares
 * the one at `at` with it. */
static int place_of(int n, int (*order)(const void *key, int at),
                    const void *key, bool *found)
{
    int low = 0;
    int high = n;
    while (low < high) {
        int mid = low + (high - low) / 2;
        int o = order(key, mid);
        if (o == 0) {
            *found = true;
            return mid;
        }
        if (o < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    *found = false;
    return low;
}

static int text_order(const char *s, struct text name)
{
    size_t n = strlen(s);
    int o = memcmp(s, name.s, n < name.size ? n : name.size);
    return o != 0 ? o : (n > name.size) - (n < name.size);
}

struct config_sought {
    const struct image_config *configs;
    struct text name;
};
static int config_at(const void *key, int at)
{
    const struct config_sought *k = key;
    return text_order(k->configs[at].name, k->name);
}

static int config_place(const struct image_config *configs, int n,
                        struct text name, bool *found)
{
    const struct config_sought key = {configs, name};
    return place_of(n, config_at, &key, found);
}

struct resource_sought {
    const struct image *image;
    enum config_scope scope;
    struct text name; /* NULL: in front of all of the scope */
};
static int resource_at(const void *key, int at)
{
    const struct resource_sought *k = key;
    const struct image_resource *r = &k->image->resources[at];
    if (r->scope != k->scope) {
        return r->scope > k->scope ? 1 : -1;
    }
    return k->name.s == NULL ? 1 : text_order(r->name, k->name);
}

static int resource_place(const struct image *image, enum config_scope scope,
                          struct text name, bool *found)
{
    const struct resource_sought key = {image, scope, name};
    return place_of(image->n_resources, resource_at, &key, found);
}

struct topic_sought {
    const struct image *image;
    struct text name;
};
static int topic_at(const void *key, int at)
{
    const struct topic_sought *k = key;
    return text_order(k->image->topics[at]->name, k->name);
}

static int topics_place(const struct image *image, const char *name)
{
    const struct topic_sought key = {image, {name, (uint32_t)strlen(name)}};
    bool found;
    return place_of(image->n_topics, topic_at, &key, &found);
}

static const char *config_value(const struct image_config *configs, int n,
                                const char *name)
{
    const struct text text = {name, (uint32_t)strlen(name)};
    bool found;
    int at = config_place(configs, n, text, &found);
    return found ? configs[at].value : NULL;
}

const char *image_topic_config(const struct image_topic *topic,
                               const char *name)
{
    return config_value(topic->configs, topic->n_configs, name);
}

static struct node_configs *node_configs_find(const struct image *image,
                                              node_id node)
{
    for (int i = 0; i < image->n_configs; i++) {
        if (image->configs[i].node == node) {
            return &image->configs[i];
        }
    }
    return NULL;
}

const char *image_broker_config(const struct image *image, node_id node,
                                const char *name)
{
    const struct node_configs *of = node_configs_find(image, node);
    return of == NULL ? NULL : config_value(of->configs, of->n_configs, name);
}

int image_broker_configs(const struct image *image, node_id node,
                         const struct image_config **out)
{
    const struct node_configs *of = node_configs_find(image, node);
    *out = of == NULL ? NULL : of->configs;
    return of == NULL ? 0 : of->n_configs;
}

int image_resources(const struct image *image, enum config_scope scope,
                    const struct image_resource **out)
{
    const struct text none = {NULL, 0};
    bool found;
    int first = resource_place(image, scope, none, &found);
    int n = first == image->n_resources
                ? 0
                : resource_place(image, (enum config_scope)(scope + 1), none,
                                 &found) -
                      first;
    *out = n == 0 ? NULL : &image->resources[first];
    return n;
}

const struct image_resource *image_resource(const struct image *image,
                                            enum config_scope scope,
                                            const char *name)
{
    const struct text text = {name, (uint32_t)strlen(name)};
    bool found;
    int at = resource_place(image, scope, text, &found);
    return found ? &image->resources[at] : NULL;
}

const char *image_resource_config(const struct image *image,
                                  enum config_scope scope, const char *name,
                                  const char *key)
{
    const struct image_resource *r = image_resource(image, scope, name);
    return r == NULL ? NULL : config_value(r->configs, r->n_configs, key);
}

replica_id image_next_replica(const struct image *image)
{
    return image->next_replica;
}

int64_t image_next_producer_id(const struct image *image)
{
    return (int64_t)image->next_producer;
}

log_index image_request(const struct image *image, const struct uuid *request,
                        const uint8_t **answer, uint32_t *size)
{
    struct request *found;
    HASH_FIND(hh, image->requests, request, sizeof *request, found);
    if (found == NULL) {
        return (log_index){0};
    }
    *answer = found->answer;
    *size = found->size;
    return found->index;
}

/* ---- applying ------------------------------------------------------------ */
static void changed(const struct applying *a, enum image_change_kind kind,
                    const struct image_broker *broker,
                    const struct image_topic *topic, int32_t partition)
{
    if (a->changed != NULL) {
        const struct image_change change = {
            .kind = kind,
            .broker = broker,
            .node = broker != NULL ? broker->node : -1,
            .topic = topic,
            .partition = partition};
        a->changed(a->arg, &change);
    }
}

static void apply_broker(const struct applying *a, const struct record *r)
{
    struct image *image = a->image;
    struct broker_node *node = broker_find(image, r->u.broker.node);
    if (node == NULL) {
        node = mem_zalloc(sizeof *node);
        node->broker.node = r->u.broker.node;
        HASH_ADD(hh, image->brokers_by_node, broker.node,
                 sizeof node->broker.node, node);
        if (image->n_brokers == image->brokers_capacity) {
            image->brokers_capacity = 2 * image->brokers_capacity + 4;
            image->brokers =
                mem_realloc(image->brokers, (size_t)image->brokers_capacity *
                                                sizeof *image->brokers);
        }
        int at = image->n_brokers++;
        while (at > 0 && image->brokers[at - 1]->node > node->broker.node) {
            image->brokers[at] = image->brokers[at - 1];
            at--;
        }
        image->brokers[at] = &node->broker;
    }
    broker_texts_free(&node->broker);
    node->stale = false;
    node->broker.directory = r->u.broker.directory;
    node->broker.host = text_copy(r->u.broker.host);
    node->broker.port = r->u.broker.port;
    node->broker.peer_address = text_copy(r->u.broker.peer_address);
    node->broker.rack = text_copy(r->u.broker.rack);
    node->broker.listeners = NULL;
    node->broker.live = r->u.broker.live;
    node->broker.epoch =
        r->u.broker.epoch == 0 ? a->index.v : r->u.broker.epoch;
    changed(a, IMAGE_BROKER, &node->broker, NULL, -1);
}

static void apply_broker_live(const struct applying *a, const struct record *r)
{
    struct broker_node *node = broker_find(a->image, r->u.broker.node);
    if (node == NULL || node->broker.epoch != r->u.broker.epoch ||
        node->broker.live == r->u.broker.live) {
        return; /* meant another registration than the newest */
    }
    node->broker.live = r->u.broker.live;
    changed(a, IMAGE_BROKER, &node->broker, NULL, -1);
}

/* Follows the broker's registration. */
static void apply_broker_listeners(const struct applying *a,
                                   const struct record *r)
{
    struct broker_node *node = broker_find(a->image, r->u.listeners.node);
    if (node != NULL) {
        mem_free(node->broker.listeners);
        node->broker.listeners = text_copy(r->u.listeners.listeners);
    }
}

static void broker_remove(const struct applying *a, struct broker_node *node)
{
    struct image *image = a->image;
    int at = 0;
    while (image->brokers[at] != &node->broker) {
        at++;
        ASSERT(at < image->n_brokers);
    }
    image->n_brokers--;
    memmove(&image->brokers[at], &image->brokers[at + 1],
            (size_t)(image->n_brokers - at) * sizeof *image->brokers);
    HASH_DEL(image->brokers_by_node, node);
    if (a->changed != NULL) {
        const struct image_change change = {
            .kind = IMAGE_BROKER, .node = node->broker.node, .partition = -1};
        a->changed(a->arg, &change);
    }
    broker_texts_free(&node->broker);
    mem_free(node);
}

static void apply_broker_gone(const struct applying *a, const struct record *r)
{
    struct broker_node *node = broker_find(a->image, r->u.broker.node);
    if (node != NULL && node->broker.epoch == r->u.broker.epoch) {
        broker_remove(a, node);
    }
}

/* Replica ids seen are given out. */
static void note_replicas(struct image *image, const struct image_partition *p,
                          int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        for (int k = 0; k < p[i].n_replicas; k++) {
            if (p[i].replicas[k].id >= image->next_replica) {
                image->next_replica = p[i].replicas[k].id + 1;
            }
        }
    }
}

static int config_order(const void *a, const void *b)
{
    const struct image_config *x = a;
    const struct image_config *y = b;
    return strcmp(x->name, y->name);
}

/* Takes partitions and configs of the record over into the topic. */
static void topic_fill(struct image_topic *topic, struct record *r)
{
    mem_free(topic->partitions);
    configs_free(topic->configs, topic->n_configs);
    topic->internal = r->u.topic.internal;
    topic->n_partitions = r->u.topic.n_partitions;
    topic->partitions = r->u.topic.partitions;
    r->u.topic.partitions = NULL;
    topic->configs = NULL;
    topic->n_configs = 0;
    if (r->u.topic.n_configs > 0) {
        topic->configs =
            mem_zalloc((size_t)r->u.topic.n_configs * sizeof *topic->configs);
    }
    for (int i = 0; i < r->u.topic.n_configs; i++) {
        topic->configs[i].name = text_copy(r->u.topic.configs[i].name);
        topic->configs[i].value = text_copy(r->u.topic.configs[i].value);
    }
    topic->n_configs = r->u.topic.n_configs;
    if (topic->n_configs > 1) {
        qsort(topic->configs, (size_t)topic->n_configs, sizeof *topic->configs,
              config_order);
    }
}

static void topic_insert(struct image *image, struct topic_node *node)
{
    HASH_ADD_KEYPTR(by_name, image->by_name, node->topic.name,
                    strlen(node->topic.name), node);
    HASH_ADD(by_id, image->by_id, topic.id, sizeof node->topic.id, node);
    if (image->n_topics == image->topics_capacity) {
        image->topics_capacity = 2 * image->topics_capacity + 16;
        image->topics =
            mem_realloc(image->topics,
                        (size_t)image->topics_capacity * sizeof *image->topics);
    }
    int at = topics_place(image, node->topic.name);
    memmove(&image->topics[at + 1], &image->topics[at],
            (size_t)(image->n_topics - at) * sizeof *image->topics);
    image->topics[at] = &node->topic;
    image->n_topics++;
}

static void topic_remove(const struct applying *a, struct topic_node *node)
{
    struct image *image = a->image;
    int at = topics_place(image, node->topic.name);
    ASSERT(at < image->n_topics && image->topics[at] == &node->topic);
    image->n_topics--;
    memmove(&image->topics[at], &image->topics[at + 1],
            (size_t)(image->n_topics - at) * sizeof *image->topics);
    HASH_DELETE(by_name, image->by_name, node);
    HASH_DELETE(by_id, image->by_id, node);
    changed(a, IMAGE_TOPIC_DELETED, NULL, &node->topic, -1);
    topic_node_free(node);
}

/* A topic named by a dump that is held already: only what differs is told. */
static void topic_replace(const struct applying *a, struct topic_node *node,
                          struct record *r)
{
    struct image_topic *topic = &node->topic;
    int32_t n_before = topic->n_partitions;
    struct image_partition *before = topic->partitions;
    topic->partitions = NULL;
    topic_fill(topic, r);
    node->stale = false;
    if (topic->n_partitions > n_before) {
        changed(a, IMAGE_PARTITIONS_ADDED, NULL, topic, n_before);
    }
    changed(a, IMAGE_TOPIC_CONFIG, NULL, topic, -1);
    for (int32_t i = 0; i < n_before && i < topic->n_partitions; i++) {
        if (topic->partitions[i].leader != before[i].leader ||
            topic->partitions[i].leader_epoch != before[i].leader_epoch) {
            changed(a, IMAGE_LEADER, NULL, topic, i);
        }
    }
    mem_free(before);
}

static void apply_topic(const struct applying *a, struct record *r)
{
    struct image *image = a->image;
    note_replicas(image, r->u.topic.partitions, r->u.topic.n_partitions);
    struct topic_node *same = topic_by_id(image, &r->u.topic.id);
    if (same != NULL) {
        if (same->stale && text_is(r->u.topic.name, same->topic.name)) {
            topic_replace(a, same, r);
        }
        return;
    }
    struct topic_node *namesake =
        topic_by_name(image, r->u.topic.name.s, r->u.topic.name.size);
    if (namesake != NULL) {
        if (!namesake->stale) {
            return; /* the name is taken; the leader never proposes this */
        }
        topic_remove(a, namesake);
    }
    struct topic_node *node = mem_zalloc(sizeof *node);
    node->topic.id = r->u.topic.id;
    node->topic.name = text_copy(r->u.topic.name);
    topic_fill(&node->topic, r);
    topic_insert(image, node);
    changed(a, IMAGE_TOPIC_CREATED, NULL, &node->topic, -1);
}

static void apply_partitions(const struct applying *a, const struct record *r)
{
    struct topic_node *node = topic_by_id(a->image, &r->u.topic.id);
    note_replicas(a->image, r->u.topic.partitions, r->u.topic.n_partitions);
    if (node == NULL || node->topic.n_partitions != r->u.topic.first ||
        r->u.topic.n_partitions > LIMIT_TOPIC_PARTITIONS - r->u.topic.first) {
        return;
    }
    struct image_topic *topic = &node->topic;
    size_t total = (size_t)(topic->n_partitions + r->u.topic.n_partitions);
    topic->partitions =
        mem_realloc(topic->partitions, total * sizeof *topic->partitions);
    memcpy(&topic->partitions[topic->n_partitions], r->u.topic.partitions,
           (size_t)r->u.topic.n_partitions * sizeof *topic->partitions);
    topic->n_partitions = (int32_t)total;
    changed(a, IMAGE_PARTITIONS_ADDED, NULL, topic, r->u.topic.first);
}

/* Sets or removes one override; bounded by LIMIT_TOPIC_CONFIGS. */
static void configs_change(struct image_config **configs, int *n,
                           struct text name, struct text value)
{
    bool found;
    int at = config_place(*configs, *n, name, &found);
    if (found && value.s != NULL) {
        mem_free((*configs)[at].value);
        (*configs)[at].value = text_copy(value);
    } else if (found) {
        mem_free((*configs)[at].name);
        mem_free((*configs)[at].value);
        (*n)--;
        memmove(&(*configs)[at], &(*configs)[at + 1],
                (size_t)(*n - at) * sizeof **configs);
    } else if (value.s != NULL && *n < LIMIT_TOPIC_CONFIGS) {
        *configs = mem_realloc(*configs, (size_t)(*n + 1) * sizeof **configs);
        memmove(&(*configs)[at + 1], &(*configs)[at],
                (size_t)(*n - at) * sizeof **configs);
        (*configs)[at].name = text_copy(name);
        (*configs)[at].value = text_copy(value);
        (*n)++;
    }
}

static void apply_topic_config(const struct applying *a, const struct record *r)
{
    struct topic_node *node = topic_by_id(a->image, &r->u.config.topic);
    if (node != NULL) {
        configs_change(&node->topic.configs, &node->topic.n_configs,
                       r->u.config.name, r->u.config.value);
        changed(a, IMAGE_TOPIC_CONFIG, NULL, &node->topic, -1);
    }
}

static struct node_configs *node_configs_make(struct image *image, node_id node)
{
    struct node_configs *found = node_configs_find(image, node);
    if (found != NULL) {
        return found;
    }
    image->configs = mem_realloc(
        image->configs, (size_t)(image->n_configs + 1) * sizeof *found);
    int at = image->n_configs++;
    while (at > 0 && image->configs[at - 1].node > node) {
        image->configs[at] = image->configs[at - 1];
        at--;
    }
    image->configs[at] = (struct node_configs){.node = node};
    return &image->configs[at];
}

static void apply_broker_config(const struct applying *a,
                                const struct record *r)
{
    node_id node = r->u.config.node;
    struct node_configs *of = node_configs_make(a->image, node);
    configs_change(&of->configs, &of->n_configs, r->u.config.name,
                   r->u.config.value);
    changed(a, IMAGE_BROKER_CONFIG, image_broker(a->image, node), NULL, -1);
}

/* One that nothing is set for any more is gone. */
static void apply_config(const struct applying *a, const struct record *r)
{
    struct image *image = a->image;
    bool found;
    int at =
        resource_place(image, r->u.config.scope, r->u.config.resource, &found);
    if (!found && (r->u.config.value.s == NULL ||
                   image->n_resources >= LIMIT_CONFIG_RESOURCES)) {
        return;
    }
    if (!found) {
        image->resources =
            mem_realloc(image->resources, (size_t)(image->n_resources + 1) *
                                              sizeof *image->resources);
        memmove(&image->resources[at + 1], &image->resources[at],
                (size_t)(image->n_resources - at) * sizeof *image->resources);
        image->n_resources++;
        image->resources[at] =
            (struct image_resource){.scope = r->u.config.scope,
                                    .name = text_copy(r->u.config.resource)};
    }
    struct image_resource *of = &image->resources[at];
    configs_change(&of->configs, &of->n_configs, r->u.config.name,
                   r->u.config.value);
    if (of->n_configs == 0) {
        configs_free(of->configs, 0);
        mem_free(of->name);
        image->n_resources--;
        memmove(&image->resources[at], &image->resources[at + 1],
                (size_t)(image->n_resources - at) * sizeof *image->resources);
    }
}

static void apply_leader(const struct applying *a, const struct record *r)
{
    struct topic_node *node = topic_by_id(a->image, &r->u.leader.topic);
    if (node == NULL || r->u.leader.partition >= node->topic.n_partitions) {
        return; /* deleted meanwhile */
    }
    struct image_partition *p = &node->topic.partitions[r->u.leader.partition];
    if (r->u.leader.epoch < p->leader_epoch ||
        (r->u.leader.epoch == p->leader_epoch && p->leader >= 0)) {
        return; /* a term has one leader, and terms never go back */
    }
    p->leader = r->u.leader.leader;
    p->leader_epoch = r->u.leader.epoch;
    changed(a, IMAGE_LEADER, NULL, &node->topic, r->u.leader.partition);
}

static void request_drop_oldest(struct image *image)
{
    struct request *oldest = image->requests;
    HASH_DEL(image->requests, oldest);
    image->request_bytes -= oldest->size;
    mem_free(oldest->answer);
    mem_free(oldest);
}

static void apply_request(const struct applying *a, const struct record *r)
{
    struct image *image = a->image;
    struct request *request;
    HASH_FIND(hh, image->requests, &r->u.request.id, sizeof r->u.request.id,
              request);
    if (request != NULL) {
        return;
    }
    request = mem_zalloc(sizeof *request);
    request->id = r->u.request.id;
    request->index.v =
        r->u.request.index == 0 ? a->index.v : r->u.request.index;
    request->size = r->u.request.size;
    request->answer = mem_alloc(request->size);
    if (request->size > 0) {
        memcpy(request->answer, r->u.request.answer, request->size);
    }
    HASH_ADD(hh, image->requests, id, sizeof request->id, request);
    image->request_bytes += request->size;
    while (HASH_COUNT(image->requests) > LIMIT_METADATA_REQUESTS ||
           image->request_bytes > LIMIT_METADATA_ANSWERS) {
        request_drop_oldest(image);
    }
}

static void apply_dump_begin(struct image *image)
{
    for (int i = 0; i < image->n_topics; i++) {
        topic_by_id(image, &image->topics[i]->id)->stale = true;
    }
    for (int i = 0; i < image->n_brokers; i++) {
        broker_find(image, image->brokers[i]->node)->stale = true;
    }
    node_configs_clear(image);
    resources_clear(image);
    requests_clear(image);
}

/* What the dump did not name is gone. */
static void apply_dump_end(const struct applying *a)
{
    struct image *image = a->image;
    for (int i = image->n_topics; i-- > 0;) {
        struct topic_node *node = topic_by_id(image, &image->topics[i]->id);
        if (node->stale) {
            topic_remove(a, node);
        }
    }
    for (int i = image->n_brokers; i-- > 0;) {
        struct broker_node *node = broker_find(image, image->brokers[i]->node);
        if (node->stale) {
            broker_remove(a, node);
        }
    }
    changed(a, IMAGE_BROKER_CONFIG, NULL, NULL, -1);
}

static void apply_record(const struct applying *a, struct record *r)
{
    struct image *image = a->image;
    switch (r->type) {
        case RECORD_CLUSTER:
            image->cluster = r->u.cluster;
            changed(a, IMAGE_CLUSTER, NULL, NULL, -1);
            break;
        case RECORD_BROKER:
            apply_broker(a, r);
            break;
        case RECORD_BROKER_LIVE:
            apply_broker_live(a, r);
            break;
        case RECORD_BROKER_LISTENERS:
            apply_broker_listeners(a, r);
            break;
        case RECORD_BROKER_GONE:
            apply_broker_gone(a, r);
            break;
        case RECORD_TOPIC:
            apply_topic(a, r);
            break;
        case RECORD_TOPIC_DELETED: {
            struct topic_node *node = topic_by_id(image, &r->u.topic.id);
            if (node != NULL) {
                topic_remove(a, node);
            }
            break;
        }
        case RECORD_PARTITIONS:
            apply_partitions(a, r);
            break;
        case RECORD_TOPIC_CONFIG:
            apply_topic_config(a, r);
            break;
        case RECORD_BROKER_CONFIG:
            apply_broker_config(a, r);
            break;
        case RECORD_CONFIG:
            apply_config(a, r);
            break;
        case RECORD_LEADER:
            apply_leader(a, r);
            break;
        case RECORD_COUNTERS:
            if (r->u.counters.next_replica > image->next_replica) {
                image->next_replica = r->u.counters.next_replica;
            }
            if (r->u.counters.next_producer > image->next_producer) {
                image->next_producer = r->u.counters.next_producer;
            }
            break;
        case RECORD_REQUEST:
            apply_request(a, r);
            break;
        case RECORD_DUMP_BEGIN:
            apply_dump_begin(image);
            break;
        case RECORD_DUMP_END:
            apply_dump_end(a);
            break;
    }
}

/* All of a batch is decoded before any of it is applied: damaged bytes leave
 * the image as it was. */
static enum err batch_check(const uint8_t *batch, size_t size)
{
    struct reader r;
    enum err e = record_batch_open(&r, batch, size);
    while (e == ERR_OK && r.left > 0) {
        struct record record;
        e = record_next(&r, &record);
        if (e == ERR_OK) {
            record_free(&record);
        }
    }
    return e;
}

enum err image_apply(struct image *image, log_index index,
                     const uint8_t *record, size_t size,
                     image_change_fn changed_fn, void *arg)
{
    ASSERT(index.v >= image->version.v);
    enum err e = batch_check(record, size);
    if (e != ERR_OK) {
        return e;
    }
    image->version = index;
    const struct applying a = {image, index, changed_fn, arg};
    struct reader r;
    e = record_batch_open(&r, record, size);
    while (e == ERR_OK && r.left > 0) {
        struct record one;
        e = record_next(&r, &one);
        ASSERT(e == ERR_OK);
        apply_record(&a, &one);
        record_free(&one);
    }
    return e;
}

/* ---- addresses ----------------------------------------------------------- */
/* "host:port" or "[host]:port" up to `end`. */
static void address_split(const char *at, const char *end, const char **host,
                          int32_t *host_size, int32_t *port)
{
    const char *colon = end;
    while (colon > at && colon[-1] != ':') {
        colon--;
    }
    *port = (int32_t)strtol(colon, NULL, 10);
    const char *host_end = colon > at ? colon - 1 : at;
    if (host_end - at >= 2 && at[0] == '[' && host_end[-1] == ']') {
        at++;
        host_end--;
    }
    *host = at;
    *host_size = (int32_t)(host_end - at);
}

void image_broker_address(const struct image_broker *broker,
                          const char *listener, const char **host,
                          int32_t *host_size, int32_t *port)
{
    size_t n = listener == NULL ? 0 : strlen(listener);
    const char *at = broker->listeners == NULL ? "" : broker->listeners;
    while (n > 0 && *at != '\0') {
        const char *end = at + strcspn(at, ",");
        if ((size_t)(end - at) > n + 3 && memcmp(at, listener, n) == 0 &&
            memcmp(at + n, "://", 3) == 0) {
            address_split(at + n + 3, end, host, host_size, port);
            return;
        }
        at = *end == ',' ? end + 1 : end;
    }
    *host = broker->host;
    *host_size = (int32_t)strlen(broker->host);
    *port = broker->port;
}

/* ---- dumping ------------------------------------------------------------- */
struct dumping {
    struct buffer batch;
    void (*each)(void *arg, const uint8_t *record, size_t size);
    void *arg;
};

static struct buffer *dump_next(struct dumping *d)
{
    buffer_clear(&d->batch);
    record_batch_begin(&d->batch);
    return &d->batch;
}

static void dump_emit(struct dumping *d)
{
    d->each(d->arg, d->batch.data, d->batch.size);
}

static void dump_configs(const struct image *image, struct dumping *d)
{
    for (int i = 0; i < image->n_configs; i++) {
        const struct node_configs *of = &image->configs[i];
        for (int k = 0; k < of->n_configs; k++) {
            record_put_broker_config(dump_next(d), of->node,
                                     of->configs[k].name, of->configs[k].value);
            dump_emit(d);
        }
    }
}

static void dump_resources(const struct image *image, struct dumping *d)
{
    for (int i = 0; i < image->n_resources; i++) {
        const struct image_resource *of = &image->resources[i];
        for (int k = 0; k < of->n_configs; k++) {
            record_put_config(dump_next(d), of->scope, of->name,
                              of->configs[k].name, of->configs[k].value);
            dump_emit(d);
        }
    }
}

static void dump_requests(const struct image *image, struct dumping *d)
{
    struct request *at, *next;
    HASH_ITER(hh, image->requests, at, next)
    {
        record_put_request(dump_next(d), &at->id, at->index.v, at->answer,
                           at->size);
        dump_emit(d);
    }
}

void image_dump(const struct image *image,
                void (*each)(void *arg, const uint8_t *record, size_t size),
                void *arg)
{
    struct dumping d = {.each = each, .arg = arg};
    buffer_init(&d.batch);
    struct buffer *b = dump_next(&d);
    record_put_dump_begin(b);
    if (!uuid_is_zero(&image->cluster)) {
        record_put_cluster(b, &image->cluster);
    }
    record_put_counters(b, image->next_replica, image->next_producer);
    dump_emit(&d);
    for (int i = 0; i < image->n_brokers; i++) {
        record_put_broker(dump_next(&d), image->brokers[i]);
        if (image->brokers[i]->listeners != NULL) {
            record_put_broker_listeners(&d.batch, image->brokers[i]);
        }
        dump_emit(&d);
    }
    dump_configs(image, &d);
    dump_resources(image, &d);
    for (int i = 0; i < image->n_topics; i++) {
        record_put_topic(dump_next(&d), image->topics[i]);
        dump_emit(&d);
    }
    dump_requests(image, &d);
    record_put_dump_end(dump_next(&d));
    dump_emit(&d);
    buffer_free(&d.batch);
}
