#include "net/fetch_session.h"

#include <string.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/mem.h"

/* Sessions unused, or there, for this long may be evicted (as in Kafka). */
#define EVICTION_MS 120000
/* Topic ids came with this version of Fetch. */
#define VERSION_IDS 13

struct fetch_sessions {
    struct env *env;
    uint32_t slots_max;
    size_t n_parts; /* of all sessions */
    struct fetch_session *by_id;
};

struct fetch_sessions *fetch_sessions_new(struct env *env, uint32_t slots_max)
{
    struct fetch_sessions *cache = mem_zalloc(sizeof *cache);
    cache->env = env;
    cache->slots_max = slots_max;
    return cache;
}

uint32_t fetch_sessions_count(const struct fetch_sessions *cache)
{
    return HASH_COUNT(cache->by_id);
}

/* ---- partitions of a session --------------------------------------------- */
static void part_remove(struct fetch_session *s, struct fetch_session_part *p)
{
    HASH_DEL(s->parts, p);
    s->cache->n_parts--;
    mem_free(p);
}

/* Writes the key; its size. `key` has room for 4 + 16 or 4 + the name. */
static size_t key_make(const struct fetch_session *s,
                       const struct wire_str *topic,
                       const struct uuid *topic_id, int32_t partition,
                       uint8_t *key)
{
    size_t n = topic->n > 0 ? (size_t)topic->n : 0;
    memcpy(key, &partition, sizeof partition);
    if (s->with_ids) {
        memcpy(key + 4, topic_id->b, sizeof topic_id->b);
        return 4 + sizeof topic_id->b;
    }
    if (n > 0) {
        memcpy(key + 4, topic->p, n);
    }
    return 4 + n;
}

/* Longer names are no topics: their partitions are not kept. */
#define KEY_MAX (4 + 255)

static bool key_fits(const struct fetch_session *s,
                     const struct wire_str *topic)
{
    return s->with_ids || topic->n <= KEY_MAX - 4;
}

struct fetch_session_part *fetch_session_find(struct fetch_session *s,
                                              const struct wire_str *topic,
                                              const struct uuid *topic_id,
                                              int32_t partition)
{
    uint8_t key[KEY_MAX];
    struct fetch_session_part *p = NULL;
    if (key_fits(s, topic)) {
        size_t n = key_make(s, topic, topic_id, partition, key);
        HASH_FIND(hh, s->parts, key, n, p);
    }
    return p;
}

/* False: there is no room for more. */
static bool part_set(struct fetch_session *s,
                     const struct fetch_request_topic *topic,
                     const struct fetch_request_partition *in)
{
    struct fetch_session_part *p =
        fetch_session_find(s, &topic->topic, &topic->topic_id, in->partition);
    if (p != NULL) {
        p->in = *in;
        return true;
    }
    if (!key_fits(s, &topic->topic) ||
        s->cache->n_parts >= LIMIT_FETCH_SESSION_PARTITIONS) {
        return false;
    }
    uint8_t key[KEY_MAX];
    size_t n = key_make(s, &topic->topic, &topic->topic_id, in->partition, key);
    p = mem_zalloc(sizeof *p + n);
    p->in = *in;
    p->topic_id = topic->topic_id;
    p->high_watermark = p->last_stable = p->log_start = -1;
    p->key_size = n;
    memcpy(p->key, key, n);
    if (!s->with_ids) {
        p->topic = (struct wire_str){.p = (const char *)p->key + 4,
                                     .n = (int32_t)(p->key_size - 4)};
    }
    HASH_ADD(hh, s->parts, key, p->key_size, p);
    s->cache->n_parts++;
    return true;
}

static bool parts_set(struct fetch_session *s, const struct fetch_request *in)
{
    for (int t = 0; t < in->n_topics; t++) {
        const struct fetch_request_topic *topic = &in->topics[t];
        for (int i = 0; i < topic->n_partitions; i++) {
            if (!part_set(s, topic, &topic->partitions[i])) {
                return false;
            }
        }
    }
    return true;
}

static void parts_forget(struct fetch_session *s,
                         const struct fetch_request *in)
{
    for (int t = 0; t < in->n_forgotten_topics_data; t++) {
        const struct fetch_request_forgotten_topic *topic =
            &in->forgotten_topics_data[t];
        for (int i = 0; i < topic->n_partitions; i++) {
            struct fetch_session_part *p = fetch_session_find(
                s, &topic->topic, &topic->topic_id, topic->partitions[i]);
            if (p != NULL) {
                part_remove(s, p);
            }
        }
    }
}

/* ---- sessions ------------------------------------------------------------ */
static void session_unref(struct fetch_session *s)
{
    ASSERT(s->refs > 0);
    if (--s->refs > 0) {
        return;
    }
    struct fetch_session_part *p = NULL;
    struct fetch_session_part *next = NULL;
    HASH_ITER(hh, s->parts, p, next)
    {
        part_remove(s, p);
    }
    mem_free(s);
}

static void session_close(struct fetch_session *s)
{
    if (s->cached) {
        s->cached = false;
        HASH_DEL(s->cache->by_id, s);
        session_unref(s);
    }
}

static struct fetch_session *session_find(const struct fetch_sessions *cache,
                                          int32_t id)
{
    struct fetch_session *s = NULL;
    HASH_FIND(hh, cache->by_id, &id, sizeof id, s);
    return s;
}

void fetch_sessions_free(struct fetch_sessions *cache)
{
    struct fetch_session *s = NULL;
    struct fetch_session *next = NULL;
    if (cache == NULL) {
        return;
    }
    HASH_ITER(hh, cache->by_id, s, next)
    {
        session_close(s);
    }
    ASSERT(cache->n_parts == 0);
    mem_free(cache);
}

/* Makes room for a session of `size` partitions. */
static bool evict(struct fetch_sessions *cache, size_t size)
{
    uint64_t now = env_now_ms(cache->env);
    struct fetch_session *oldest = cache->by_id;
    struct fetch_session *least = NULL;
    if (oldest == NULL) {
        return false;
    }
    if (now - oldest->used_ms > EVICTION_MS) {
        session_close(oldest);
        return true;
    }
    for (struct fetch_session *s = cache->by_id; s != NULL; s = s->hh.next) {
        if (now - s->created_ms > EVICTION_MS &&
            (least == NULL || s->size < least->size)) {
            least = s;
        }
    }
    if (least == NULL || least->size >= size) {
        return false;
    }
    session_close(least);
    return true;
}

static size_t request_size(const struct fetch_request *in)
{
    size_t n = 0;
    for (int t = 0; t < in->n_topics; t++) {
        n += (size_t)in->topics[t].n_partitions;
    }
    return n;
}

static int32_t id_new(struct fetch_sessions *cache)
{
    int32_t id = 0;
    do {
        id = (int32_t)(env_random(cache->env) & INT32_MAX);
    } while (id == FETCH_SESSION_NONE || session_find(cache, id) != NULL);
    return id;
}

static int32_t epoch_next(int32_t epoch)
{
    return epoch == INT32_MAX ? 1 : epoch + 1;
}

/* ---- requests ------------------------------------------------------------ */
static void refuse(struct fetch_context *out, enum kafka_error error)
{
    out->kind = FETCH_REFUSED;
    out->error = error;
}

static void incremental(struct fetch_sessions *cache,
                        const struct fetch_request *in, int16_t version,
                        struct fetch_context *out)
{
    struct fetch_session *s = session_find(cache, in->session_id);
    if (s == NULL) {
        refuse(out, KAFKA_FETCH_SESSION_ID_NOT_FOUND);
        return;
    }
    if (s->epoch != in->session_epoch) {
        refuse(out, KAFKA_INVALID_FETCH_SESSION_EPOCH);
        return;
    }
    if (s->with_ids != (version >= VERSION_IDS)) {
        refuse(out, KAFKA_FETCH_SESSION_TOPIC_ID_ERROR);
        return;
    }
    if (!parts_set(s, in)) {
        session_close(s); /* too much: it begins anew */
        refuse(out, KAFKA_FETCH_SESSION_ID_NOT_FOUND);
        return;
    }
    parts_forget(s, in);
    if (s->parts == NULL) {
        session_close(s);
        out->kind = FETCH_PLAIN;
        return;
    }
    s->epoch = epoch_next(s->epoch);
    s->used_ms = env_now_ms(cache->env);
    HASH_DEL(cache->by_id, s); /* to the end: used last */
    HASH_ADD(hh, cache->by_id, id, sizeof s->id, s);
    s->refs++;
    out->kind = FETCH_INCREMENTAL;
    out->session = s;
    out->epoch = s->epoch;
}

void fetch_context_begin(struct fetch_sessions *cache,
                         const struct fetch_request *in, int16_t version,
                         struct fetch_context *out)
{
    *out = (struct fetch_context){.kind = FETCH_PLAIN, .error = KAFKA_NONE};
    if (in->session_epoch != FETCH_EPOCH_NONE &&
        in->session_epoch != FETCH_EPOCH_FIRST) {
        incremental(cache, in, version, out);
        return;
    }
    if (in->session_id != FETCH_SESSION_NONE) {
        struct fetch_session *s = session_find(cache, in->session_id);
        if (s != NULL) {
            session_close(s);
        }
    }
    if (in->session_epoch == FETCH_EPOCH_FIRST) {
        out->kind = FETCH_FULL;
    }
}

int32_t fetch_context_open(struct fetch_sessions *cache,
                           const struct fetch_request *in, int16_t version,
                           struct fetch_context *ctx)
{
    size_t size = request_size(in);
    if (size == 0 || (fetch_sessions_count(cache) >= cache->slots_max &&
                      (cache->slots_max == 0 || !evict(cache, size)))) {
        return FETCH_SESSION_NONE;
    }
    struct fetch_session *s = mem_zalloc(sizeof *s);
    s->cache = cache;
    s->refs = 1;
    s->id = id_new(cache);
    s->epoch = epoch_next(FETCH_EPOCH_FIRST);
    s->with_ids = version >= VERSION_IDS;
    s->size = size;
    s->created_ms = s->used_ms = env_now_ms(cache->env);
    if (!parts_set(s, in)) {
        session_unref(s);
        return FETCH_SESSION_NONE;
    }
    s->cached = true;
    HASH_ADD(hh, cache->by_id, id, sizeof s->id, s);
    s->refs++;
    ctx->session = s;
    return s->id;
}

void fetch_context_end(struct fetch_context *ctx)
{
    if (ctx->session != NULL) {
        session_unref(ctx->session);
        ctx->session = NULL;
    }
}

bool fetch_session_told(struct fetch_session *s,
                        struct fetch_session_part *part,
                        const struct fetch_response_partition *out)
{
    bool news = out->error_code != KAFKA_NONE || out->records.n > 0 ||
                out->high_watermark != part->high_watermark ||
                out->last_stable_offset != part->last_stable ||
                out->log_start_offset != part->log_start ||
                out->preferred_read_replica >= 0 ||
                out->diverging_epoch.epoch >= 0;
    part->high_watermark =
        out->error_code != KAFKA_NONE ? -1 : out->high_watermark;
    part->last_stable = out->last_stable_offset;
    part->log_start = out->log_start_offset;
    if (out->records.n > 0) {
        HASH_DEL(s->parts, part);
        HASH_ADD(hh, s->parts, key, part->key_size, part);
    }
    return news;
}
