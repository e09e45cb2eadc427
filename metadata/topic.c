/* Topics: creation, deletion, more partitions. Codes and their order follow
 * what Kafka's controller answers (PROTOCOL facts of CreateTopics,
 * CreatePartitions and DeleteTopics). */
#include <stdio.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/mem.h"
#include "metadata/decide.h"
#include "metadata/record.h"

/* ---- names of one request ------------------------------------------------ */
struct seen_name {
    const char *name; /* key; or the bytes of an id */
    size_t size;
    int times;
    UT_hash_handle hh;
};

static struct seen_name *seen_find(struct seen_name *seen, const void *name,
                                   size_t size)
{
    struct seen_name *found;
    HASH_FIND(hh, seen, name, size, found);
    return found;
}

static void seen_add(struct seen_name **seen, const void *name, size_t size)
{
    struct seen_name *s = seen_find(*seen, name, size);
    if (s == NULL) {
        s = mem_zalloc(sizeof *s);
        s->name = name;
        s->size = size;
        HASH_ADD_KEYPTR(hh, *seen, s->name, s->size, s);
    }
    s->times++;
}

static bool seen_twice(struct seen_name *seen, const void *name, size_t size)
{
    return seen_find(seen, name, size)->times > 1;
}

static void seen_free(struct seen_name *seen)
{
    struct seen_name *s, *next;
    HASH_ITER(hh, seen, s, next)
    {
        HASH_DEL(seen, s);
        mem_free(s);
    }
}

/* ---- brokers ------------------------------------------------------------- */
/* Fills d->brokers from the image: who is registered, and what each holds. */
static void load_brokers(struct decide *d)
{
    const struct image_broker *const *brokers;
    const struct image_topic *const *topics;
    int n_usable = 0;
    if (d->brokers != NULL) {
        return;
    }
    d->n_brokers = image_brokers(d->image, &brokers);
    d->brokers = mem_zalloc((size_t)d->n_brokers * sizeof *d->brokers);
    for (int i = 0; i < d->n_brokers; i++) {
        d->brokers[i].node = brokers[i]->node;
        d->brokers[i].rack = brokers[i]->rack;
        d->brokers[i].usable = d->usable == NULL
                                   ? brokers[i]->live
                                   : d->usable(d->usable_arg, brokers[i]);
        n_usable += d->brokers[i].usable;
    }
    /* Who decides was cut off, or has only just begun to: it does not know, and
     * a majority of those it does not see has to agree anyway. */
    for (int i = 0; i < d->n_brokers && n_usable == 0; i++) {
        d->brokers[i].usable = true;
    }
    int n = image_topics(d->image, &topics);
    for (int i = 0; i < n; i++) {
        for (int32_t p = 0; p < topics[i]->n_partitions; p++) {
            placement_count(d->brokers, d->n_brokers,
                            &topics[i]->partitions[p]);
        }
    }
}

static void give_replica_ids(struct decide *d, struct image_partition *p,
                             int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        for (int k = 0; k < p[i].n_replicas; k++) {
            p[i].replicas[k].id = d->next_replica++;
        }
    }
}

/* ---- manual assignments -------------------------------------------------- */
static enum err check_assignment(const struct decide *d,
                                 const struct metadata_assignment *a,
                                 int32_t partition, int n_replicas,
                                 struct metadata_topic_result *result)
{
    if (a->n_nodes == 0) {
        decide_refuse(result, KAFKA_INVALID_REPLICA_ASSIGNMENT,
                      "The manual partition assignment of partition %d names "
                      "no broker.",
                      partition);
        return ERR_INVALID;
    }
    if (a->n_nodes != n_replicas) {
        decide_refuse(result, KAFKA_INVALID_REPLICA_ASSIGNMENT,
                      "The manual partition assignment includes a partition "
                      "with %d replica(s), but this is not consistent with "
                      "others, which have %d replica(s).",
                      a->n_nodes, n_replicas);
        return ERR_INVALID;
    }
    if (a->n_nodes > GROUP_REPLICAS_MAX) {
        decide_refuse(result, KAFKA_INVALID_REPLICA_ASSIGNMENT,
                      "A partition has at most %d replicas.",
                      GROUP_REPLICAS_MAX);
        return ERR_INVALID;
    }
    bool usable = false;
    for (int k = 0; k < a->n_nodes; k++) {
        const struct image_broker *broker = image_broker(d->image, a->nodes[k]);
        if (broker == NULL) {
            decide_refuse(result, KAFKA_INVALID_REPLICA_ASSIGNMENT,
                          "The manual partition assignment includes broker "
                          "%d, but no such broker is registered.",
                          a->nodes[k]);
            return ERR_INVALID;
        }
        usable = usable || broker->live;
        for (int j = 0; j < k; j++) {
            if (a->nodes[j] == a->nodes[k]) {
                decide_refuse(result, KAFKA_INVALID_REPLICA_ASSIGNMENT,
                              "The manual partition assignment includes the "
                              "broker %d more than once.",
                              a->nodes[k]);
                return ERR_INVALID;
            }
        }
    }
    if (!usable) {
        decide_refuse(result, KAFKA_INVALID_REPLICA_ASSIGNMENT,
                      "All brokers of the manual partition assignment of "
                      "partition %d are fenced.",
                      partition);
        return ERR_INVALID;
    }
    return ERR_OK;
}

static void assign(struct image_partition *p,
                   const struct metadata_assignment *a)
{
    memset(p, 0, sizeof *p);
    p->leader = -1;
    p->n_replicas = a->n_nodes;
    for (int k = 0; k < a->n_nodes; k++) {
        p->replicas[k].node = a->nodes[k];
    }
}

/* Partitions 0..n-1 named once each, in any order. */
static enum err manual_partitions(const struct decide *d,
                                  const struct metadata_new_topic *t,
                                  struct image_partition *out,
                                  struct metadata_topic_result *result)
{
    bool *named = mem_zalloc((size_t)t->n_assignments * sizeof *named);
    enum err e = ERR_OK;
    for (int i = 0; i < t->n_assignments && e == ERR_OK; i++) {
        const struct metadata_assignment *a = &t->assignments[i];
        if (a->partition < 0 || a->partition >= t->n_assignments ||
            named[a->partition]) {
            decide_refuse(result, KAFKA_INVALID_REPLICA_ASSIGNMENT,
                          "Partitions of a manual assignment must be a "
                          "consecutive 0-based sequence, each named once.");
            e = ERR_INVALID;
            break;
        }
        named[a->partition] = true;
        e = check_assignment(d, a, a->partition, t->assignments[0].n_nodes,
                             result);
        if (e == ERR_OK) {
            assign(&out[a->partition], a);
        }
    }
    mem_free(named);
    return e;
}

/* ---- creation ------------------------------------------------------------ */
/* Two names that are equal once '.' and '_' are the same: metrics of clients
 * cannot tell them apart. */
static bool names_collide(const char *a, const char *b)
{
    for (; *a != '\0' && *b != '\0'; a++, b++) {
        char x = *a == '.' ? '_' : *a;
        char y = *b == '.' ? '_' : *b;
        if (x != y) {
            return false;
        }
    }
    return *a == *b;
}

static const char *find_collision(const struct decide *d, const char *name)
{
    const struct image_topic *const *topics;
    if (strpbrk(name, "._") == NULL) {
        return NULL;
    }
    int n = image_topics(d->image, &topics);
    for (int i = 0; i < n; i++) {
        if (names_collide(topics[i]->name, name)) {
            return topics[i]->name;
        }
    }
    return NULL;
}

static enum err check_name(const struct decide *d, const char *name,
                           struct metadata_topic_result *result)
{
    if (!topic_name_is_valid(name, strlen(name))) {
        decide_refuse(result, KAFKA_INVALID_TOPIC_EXCEPTION,
                      "Topic name '%.100s' is illegal: it must have 1 to %d "
                      "characters out of a-z, A-Z, 0-9, '.', '_' and '-', and "
                      "be neither '.' nor '..'.",
                      name, TOPIC_NAME_MAX);
        return ERR_INVALID;
    }
    if (image_topic(d->image, name, strlen(name)) != NULL) {
        decide_refuse(result, KAFKA_TOPIC_ALREADY_EXISTS,
                      "Topic '%.200s' already exists.", name);
        return ERR_INVALID;
    }
    const char *other = find_collision(d, name);
    if (other != NULL) {
        decide_refuse(result, KAFKA_INVALID_TOPIC_EXCEPTION,
                      "Topic '%.90s' collides with existing topic: %.90s", name,
                      other);
        return ERR_INVALID;
    }
    return ERR_OK;
}

/* How many partitions and replicas: checked, with defaults put in. */
static enum err check_counts(const struct decide *d,
                             const struct metadata_new_topic *t,
                             int32_t *n_partitions, int *n_replicas,
                             struct metadata_topic_result *result)
{
    if (t->n_assignments > 0) {
        if (t->n_partitions != -1 || t->replication_factor != -1) {
            decide_refuse(result, KAFKA_INVALID_REQUEST,
                          "With a manual partition assignment, number of "
                          "partitions and replication factor must be -1.");
            return ERR_INVALID;
        }
        *n_partitions = t->n_assignments;
        *n_replicas = t->assignments[0].n_nodes;
        return ERR_OK;
    }
    *n_partitions = t->n_partitions == -1 ? d->num_partitions : t->n_partitions;
    *n_replicas = t->replication_factor == -1 ? d->replication_factor
                                              : t->replication_factor;
    if (*n_replicas <= 0) {
        decide_refuse(result, KAFKA_INVALID_REPLICATION_FACTOR,
                      "Replication factor must be larger than 0, or -1 to use "
                      "the default value.");
        return ERR_INVALID;
    }
    if (*n_partitions <= 0 || *n_partitions > LIMIT_TOPIC_PARTITIONS) {
        decide_refuse(result, KAFKA_INVALID_PARTITIONS,
                      "Number of partitions was set to an invalid value %d: "
                      "it must be from 1 to %d, or -1 to use the default "
                      "value.",
                      *n_partitions, LIMIT_TOPIC_PARTITIONS);
        return ERR_INVALID;
    }
    return ERR_OK;
}

/* Automatic placement of `n` partitions behind those of `held` (or NULL). */
static enum err place(struct decide *d, const struct image_topic *held,
                      int n_replicas, int32_t n, struct image_partition *out,
                      struct metadata_topic_result *result)
{
    load_brokers(d);
    if (n_replicas > d->n_brokers || n_replicas > GROUP_REPLICAS_MAX) {
        decide_refuse(result, KAFKA_INVALID_REPLICATION_FACTOR,
                      "Unable to replicate the partition %d time(s): The "
                      "target replication factor of %d cannot be reached "
                      "because only %d broker(s) are registered%s.",
                      n_replicas, n_replicas, d->n_brokers,
                      n_replicas > GROUP_REPLICAS_MAX
                          ? ", and 9 replicas are the most"
                          : "");
        return ERR_INVALID;
    }
    return placement_make(
        d->brokers, d->n_brokers, held == NULL ? NULL : held->partitions,
        held == NULL ? 0 : held->n_partitions, n_replicas, n, out);
}

static struct uuid random_id(struct decide *d)
{
    struct uuid id;
    do {
        uint64_t high = prng_next(d->random);
        uint64_t low = prng_next(d->random);
        memcpy(&id.b[0], &high, 8);
        memcpy(&id.b[8], &low, 8);
        /* Clients' tools take an id that begins with '-' for an option; the
         * first 16 numbers are reserved. */
    } while (id.b[0] >> 2 == 62 || image_topic_by_id(d->image, &id) != NULL ||
             id.b[0] == 0);
    return id;
}

static char *name_copy(const char *name)
{
    return mem_strdup(name);
}

static void put_topic(struct decide *d, const struct metadata_new_topic *t,
                      const struct uuid *id, int32_t n_partitions,
                      struct image_partition *partitions)
{
    /* The last value given for a key counts. */
    struct image_config *configs =
        mem_zalloc((size_t)t->n_configs * sizeof *configs);
    int n = 0;
    for (int i = 0; i < t->n_configs; i++) {
        int at = 0;
        while (at < n && strcmp(configs[at].name, t->configs[i].name) != 0) {
            at++;
        }
        configs[at] = t->configs[i];
        n += at == n;
    }
    struct image_topic topic = {.id = *id,
                                .name = name_copy(t->name),
                                .internal = t->internal,
                                .n_partitions = n_partitions,
                                .partitions = partitions,
                                .n_configs = n,
                                .configs = configs};
    record_put_topic(decide_records(d), &topic);
    mem_free(topic.name);
    mem_free(configs);
}

static void create_one(struct decide *d, const struct metadata_new_topic *t,
                       bool validate_only, struct metadata_topic_result *result)
{
    int32_t n_partitions;
    int n_replicas;
    if (check_name(d, t->name, result) != ERR_OK ||
        decide_check_topic_configs(t->configs, t->n_configs, result) !=
            ERR_OK ||
        check_counts(d, t, &n_partitions, &n_replicas, result) != ERR_OK) {
        return;
    }
    struct image_partition *partitions =
        mem_zalloc((size_t)n_partitions * sizeof *partitions);
    enum err e =
        t->n_assignments > 0
            ? manual_partitions(d, t, partitions, result)
            : place(d, NULL, n_replicas, n_partitions, partitions, result);
    if (e == ERR_OK) {
        result->n_partitions = n_partitions;
        result->replication_factor = (int16_t)n_replicas;
    }
    if (e == ERR_OK && !validate_only) {
        result->id = random_id(d);
        give_replica_ids(d, partitions, n_partitions);
        put_topic(d, t, &result->id, n_partitions, partitions);
    }
    mem_free(partitions);
}

/* Of names of this request that collide with each other, the first is made. */
static const char *collides_with_earlier(const struct change *change, int i,
                                         const struct decide *d)
{
    const char *name = change->u.create[i].name;
    if (strpbrk(name, "._") == NULL) {
        return NULL;
    }
    for (int k = 0; k < i; k++) {
        if (d->answer.results[k].error == KAFKA_NONE &&
            names_collide(change->u.create[k].name, name)) {
            return change->u.create[k].name;
        }
    }
    return NULL;
}

void decide_create_topics(struct decide *d, const struct change *change)
{
    struct seen_name *seen = NULL;
    for (int i = 0; i < change->n; i++) {
        const char *name = change->u.create[i].name;
        seen_add(&seen, name, strlen(name));
    }
    for (int i = 0; i < change->n; i++) {
        const struct metadata_new_topic *t = &change->u.create[i];
        struct metadata_topic_result *result = &d->answer.results[i];
        if (seen_twice(seen, t->name, strlen(t->name))) {
            decide_refuse(result, KAFKA_INVALID_REQUEST,
                          "Duplicate topic name.");
            continue;
        }
        const char *other = collides_with_earlier(change, i, d);
        if (other != NULL) {
            decide_refuse(result, KAFKA_INVALID_TOPIC_EXCEPTION,
                          "Topic '%.90s' collides with topic: %.90s", t->name,
                          other);
            continue;
        }
        create_one(d, t, change->validate_only, result);
    }
    seen_free(seen);
}

/* ---- deletion ------------------------------------------------------------ */
static const void *ref_key(const struct metadata_topic_ref *t,
                           const struct image_topic *found, size_t *size)
{
    if (found == NULL && t->name != NULL) {
        *size = strlen(t->name);
        return t->name;
    }
    *size = sizeof t->id;
    return found == NULL ? &t->id : &found->id;
}

static void seen_add_ref(struct seen_name **seen,
                         const struct metadata_topic_ref *t,
                         const struct image_topic *found)
{
    size_t size;
    const void *key = ref_key(t, found, &size);
    seen_add(seen, key, size);
}

static bool seen_ref_twice(struct seen_name *seen,
                           const struct metadata_topic_ref *t,
                           const struct image_topic *found)
{
    size_t size;
    const void *key = ref_key(t, found, &size);
    return seen_twice(seen, key, size);
}

void decide_delete_topics(struct decide *d, const struct change *change)
{
    struct seen_name *seen = NULL; /* by id, or by name if unknown */
    const struct image_topic **found =
        mem_zalloc((size_t)change->n * sizeof(const struct image_topic *));
    for (int i = 0; i < change->n; i++) {
        const struct metadata_topic_ref *t = &change->u.delete[i];
        found[i] = t->name != NULL
                       ? image_topic(d->image, t->name, strlen(t->name))
                       : image_topic_by_id(d->image, &t->id);
        seen_add_ref(&seen, t, found[i]);
    }
    for (int i = 0; i < change->n; i++) {
        struct metadata_topic_result *result = &d->answer.results[i];
        bool by_name = change->u.delete[i].name != NULL;
        bool has_id = !uuid_is_zero(&change->u.delete[i].id);
        if (by_name == has_id) {
            decide_refuse(result, KAFKA_INVALID_REQUEST,
                          by_name ? "You may not specify both topic name and "
                                    "topic id."
                                  : "Neither topic name nor id were "
                                    "specified.");
        } else if (seen_ref_twice(seen, &change->u.delete[i], found[i])) {
            decide_refuse(result, KAFKA_INVALID_REQUEST,
                          "The topic is named more than once.");
        } else if (found[i] == NULL) {
            decide_refuse(result,
                          by_name ? KAFKA_UNKNOWN_TOPIC_OR_PARTITION
                                  : KAFKA_UNKNOWN_TOPIC_ID,
                          by_name ? "This server does not host this "
                                    "topic-partition."
                                  : "This server does not host this topic ID.");
        } else {
            result->id = found[i]->id;
            record_put_topic_deleted(decide_records(d), &found[i]->id);
        }
    }
    seen_free(seen);
    mem_free(found);
}

/* ---- more partitions ----------------------------------------------------- */
static enum err check_more(const struct image_topic *topic,
                           const struct metadata_more_partitions *m,
                           struct metadata_topic_result *result)
{
    if (m->count <= topic->n_partitions) {
        decide_refuse(result, KAFKA_INVALID_PARTITIONS,
                      "The topic %.100s currently has %d partition(s); %d "
                      "would not be an increase.",
                      topic->name, topic->n_partitions, m->count);
        return ERR_INVALID;
    }
    if (m->count > LIMIT_TOPIC_PARTITIONS) {
        decide_refuse(result, KAFKA_INVALID_PARTITIONS,
                      "A topic has at most %d partitions.",
                      LIMIT_TOPIC_PARTITIONS);
        return ERR_INVALID;
    }
    int more = m->count - topic->n_partitions;
    if (m->n_assignments > 0 && m->n_assignments != more) {
        decide_refuse(result, KAFKA_INVALID_REPLICA_ASSIGNMENT,
                      "Attempted to add %d additional partition(s), but only "
                      "%d assignment(s) were specified.",
                      more, m->n_assignments);
        return ERR_INVALID;
    }
    return ERR_OK;
}

static void add_partitions(struct decide *d, const struct image_topic *topic,
                           const struct metadata_more_partitions *m,
                           bool validate_only,
                           struct metadata_topic_result *result)
{
    if (check_more(topic, m, result) != ERR_OK) {
        return;
    }
    int32_t more = m->count - topic->n_partitions;
    int n_replicas = topic->partitions[0].n_replicas;
    struct image_partition *partitions =
        mem_zalloc((size_t)more * sizeof *partitions);
    enum err e = ERR_OK;
    for (int i = 0; i < m->n_assignments && e == ERR_OK; i++) {
        /* In the order of the new partitions, whatever number they carry. */
        e = check_assignment(d, &m->assignments[i], topic->n_partitions + i,
                             n_replicas, result);
        if (e == ERR_OK) {
            assign(&partitions[i], &m->assignments[i]);
        }
    }
    if (m->n_assignments == 0) {
        e = place(d, topic, n_replicas, more, partitions, result);
    }
    if (e == ERR_OK) {
        result->id = topic->id;
        result->n_partitions = m->count;
        result->replication_factor = (int16_t)n_replicas;
    }
    if (e == ERR_OK && !validate_only) {
        give_replica_ids(d, partitions, more);
        record_put_partitions(decide_records(d), &topic->id,
                              topic->n_partitions, more, partitions);
    }
    mem_free(partitions);
}

void decide_create_partitions(struct decide *d, const struct change *change)
{
    struct seen_name *seen = NULL;
    for (int i = 0; i < change->n; i++) {
        const char *name = change->u.more[i].name;
        seen_add(&seen, name, strlen(name));
    }
    for (int i = 0; i < change->n; i++) {
        const struct metadata_more_partitions *m = &change->u.more[i];
        struct metadata_topic_result *result = &d->answer.results[i];
        const struct image_topic *topic =
            image_topic(d->image, m->name, strlen(m->name));
        if (seen_twice(seen, m->name, strlen(m->name))) {
            decide_refuse(result, KAFKA_INVALID_REQUEST,
                          "Duplicate topic name.");
        } else if (topic == NULL) {
            decide_refuse(result, KAFKA_UNKNOWN_TOPIC_OR_PARTITION,
                          "This server does not host this topic-partition.");
        } else {
            add_partitions(d, topic, m, change->validate_only, result);
        }
    }
    seen_free(seen);
}
