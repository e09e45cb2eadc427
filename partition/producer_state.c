#include "partition/producer_state.h"

#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/hash.h"
#include "base/mem.h"
#include "partition/bytes.h"

struct state {
    int16_t epoch;
    int16_t count; /* of batches, oldest first */
    struct producer_batch batches[PRODUCER_BATCHES];
};

struct producer {
    int64_t id;
    uint64_t seen_ms;
    uint32_t pending; /* batches appended and not applied */
    bool known;       /* has an applied state */
    struct state applied;
    struct state appended; /* true only while pending > 0 */
    UT_hash_handle hh;
};

struct producers {
    struct producer *by_id;
};

struct producers *producers_new(void)
{
    return mem_zalloc(sizeof(struct producers));
}

static void producers_clear(struct producers *ps)
{
    struct producer *p, *next;
    HASH_ITER(hh, ps->by_id, p, next)
    {
        HASH_DEL(ps->by_id, p);
        mem_free(p);
    }
}

void producers_free(struct producers *ps)
{
    producers_clear(ps);
    mem_free(ps);
}

size_t producers_count(const struct producers *ps)
{
    return HASH_COUNT(ps->by_id);
}

static struct producer *producer_find(const struct producers *ps, int64_t id)
{
    struct producer *p;
    HASH_FIND(hh, ps->by_id, &id, sizeof id, p);
    return p;
}

static struct producer *producer_get(struct producers *ps, int64_t id)
{
    struct producer *p = producer_find(ps, id);
    if (p == NULL) {
        p = mem_zalloc(sizeof *p);
        p->id = id;
        HASH_ADD(hh, ps->by_id, id, sizeof p->id, p);
    }
    return p;
}

static const struct state *producer_newest(const struct producer *p)
{
    return p->pending > 0 ? &p->appended : &p->applied;
}

static int32_t last_sequence_of(const struct batch_header *h)
{
    return sequence_add(h->base_sequence, h->last_offset_delta);
}

static const struct producer_batch *state_duplicate(
    const struct state *s, const struct batch_header *h)
{
    if (s->epoch != h->producer_epoch) {
        return NULL;
    }
    for (int i = 0; i < s->count; i++) {
        if (s->batches[i].first_sequence == h->base_sequence &&
            s->batches[i].last_sequence == last_sequence_of(h)) {
            return &s->batches[i];
        }
    }
    return NULL;
}

bool producers_known(const struct producers *ps, int64_t producer_id)
{
    const struct producer *p = producer_find(ps, producer_id);
    return p != NULL && (p->pending > 0 || p->known);
}

enum kafka_error producers_check(const struct producers *ps,
                                 const struct batch_header *h,
                                 struct producer_batch *original)
{
    const struct producer *p = producer_find(ps, h->producer_id);
    if (h->producer_id < 0 || !producers_known(ps, h->producer_id)) {
        return KAFKA_NONE; /* KIP-360: the unknown may begin anywhere */
    }
    const struct state *s = producer_newest(p);
    const struct producer_batch *same = state_duplicate(s, h);
    if (same != NULL) {
        *original = *same;
        return KAFKA_DUPLICATE_SEQUENCE_NUMBER;
    }
    if (h->producer_epoch < s->epoch) {
        return KAFKA_INVALID_PRODUCER_EPOCH;
    }
    if (h->producer_epoch > s->epoch) {
        return h->base_sequence == 0 ? KAFKA_NONE
                                     : KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER;
    }
    if (s->count > 0 &&
        h->base_sequence !=
            sequence_add(s->batches[s->count - 1].last_sequence, 1)) {
        return KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER;
    }
    return KAFKA_NONE;
}

static void state_add(struct state *s, const struct batch_header *h)
{
    if (s->epoch != h->producer_epoch) {
        s->count = 0;
        s->epoch = h->producer_epoch;
    }
    if (s->count == PRODUCER_BATCHES) {
        memmove(s->batches, s->batches + 1,
                sizeof s->batches - sizeof s->batches[0]);
        s->count--;
    }
    s->batches[s->count++] = (struct producer_batch){
        .first_sequence = h->base_sequence,
        .last_sequence = last_sequence_of(h),
        .offset_delta = h->last_offset_delta,
        .last_offset = batch_last_offset(h),
        .timestamp = h->max_timestamp,
    };
}

void producers_append(struct producers *ps, const struct batch_header *h)
{
    if (h->producer_id < 0) {
        return;
    }
    struct producer *p = producer_get(ps, h->producer_id);
    if (p->pending == 0) {
        p->appended = p->applied;
    }
    p->pending++;
    state_add(&p->appended, h);
}

void producers_apply(struct producers *ps, const struct batch_header *h,
                     uint64_t now_ms)
{
    if (h->producer_id < 0) {
        return;
    }
    struct producer *p = producer_get(ps, h->producer_id);
    state_add(&p->applied, h);
    p->known = true;
    p->seen_ms = now_ms;
    if (p->pending > 0) {
        p->pending--;
    }
}

void producers_truncate(struct producers *ps)
{
    struct producer *p, *next;
    HASH_ITER(hh, ps->by_id, p, next)
    {
        p->pending = 0;
        if (!p->known) {
            HASH_DEL(ps->by_id, p);
            mem_free(p);
        }
    }
}

/* ---- expiry -------------------------------------------------------------- */
size_t producers_expired(const struct producers *ps, uint64_t before_ms,
                         struct producer_expiry *out, size_t max)
{
    size_t n = 0;
    for (const struct producer *p = ps->by_id; p != NULL && n < max;
         p = p->hh.next) {
        if (p->known && p->pending == 0 && p->seen_ms < before_ms) {
            out[n].producer_id = p->id;
            out[n++].last_offset =
                p->applied.batches[p->applied.count - 1].last_offset;
        }
    }
    return n;
}

void producers_expire(struct producers *ps, const struct producer_expiry *e)
{
    struct producer *p = producer_find(ps, e->producer_id);
    if (p == NULL || !p->known ||
        p->applied.batches[p->applied.count - 1].last_offset.v !=
            e->last_offset.v) {
        return;
    }
    if (p->pending > 0) {
        /* What is appended behind keeps its own view; applying it later makes
         * the producer known anew, as on every replica. */
        p->known = false;
        memset(&p->applied, 0, sizeof p->applied);
        return;
    }
    HASH_DEL(ps->by_id, p);
    mem_free(p);
}

/* ---- snapshots ----------------------------------------------------------- */
/* version u16, zero u16, count u32; per producer: id i64, epoch i16, batches
 * u16, per batch: first i32, last i32, delta i32, last offset i64, timestamp
 * i64; at the end CRC-32C u32 of all before. */
#define SNAPSHOT_VERSION 1
#define SNAPSHOT_HEAD 8
#define SNAPSHOT_PRODUCER 12
#define SNAPSHOT_BATCH 28

static void save_producer(const struct producer *p, struct buffer *out)
{
    uint8_t *to = buffer_reserve(
        out, SNAPSHOT_PRODUCER + PRODUCER_BATCHES * SNAPSHOT_BATCH);
    put_i64(to, p->id);
    put_i16(to + 8, p->applied.epoch);
    put_i16(to + 10, p->applied.count);
    to += SNAPSHOT_PRODUCER;
    for (int i = 0; i < p->applied.count; i++, to += SNAPSHOT_BATCH) {
        const struct producer_batch *b = &p->applied.batches[i];
        put_i32(to, b->first_sequence);
        put_i32(to + 4, b->last_sequence);
        put_i32(to + 8, b->offset_delta);
        put_i64(to + 12, b->last_offset.v);
        put_i64(to + 20, b->timestamp);
    }
    buffer_added(out,
                 SNAPSHOT_PRODUCER + (size_t)p->applied.count * SNAPSHOT_BATCH);
}

void producers_save(const struct producers *ps, struct buffer *out)
{
    size_t from = out->size;
    uint32_t n = 0;
    uint8_t head[SNAPSHOT_HEAD] = {0}, crc[4];
    put_u16(head, SNAPSHOT_VERSION);
    buffer_append(out, head, sizeof head);
    for (const struct producer *p = ps->by_id; p != NULL; p = p->hh.next) {
        if (p->known) {
            save_producer(p, out);
            n++;
        }
    }
    put_u32(out->data + from + 4, n);
    put_u32(crc, crc32c(0, out->data + from, out->size - from));
    buffer_append(out, crc, sizeof crc);
}

static bool load_producer(struct producers *ps, const uint8_t **at,
                          const uint8_t *end, uint64_t now_ms)
{
    if (end - *at < SNAPSHOT_PRODUCER) {
        return false;
    }
    int64_t id = get_i64(*at);
    int16_t epoch = get_i16(*at + 8), count = get_i16(*at + 10);
    *at += SNAPSHOT_PRODUCER;
    if (id < 0 || count < 1 || count > PRODUCER_BATCHES ||
        end - *at < count * SNAPSHOT_BATCH || producer_find(ps, id) != NULL) {
        return false;
    }
    struct producer *p = producer_get(ps, id);
    p->known = true;
    p->seen_ms = now_ms;
    p->applied.epoch = epoch;
    p->applied.count = count;
    for (int i = 0; i < count; i++, *at += SNAPSHOT_BATCH) {
        p->applied.batches[i] = (struct producer_batch){
            .first_sequence = get_i32(*at),
            .last_sequence = get_i32(*at + 4),
            .offset_delta = get_i32(*at + 8),
            .last_offset = {get_i64(*at + 12)},
            .timestamp = get_i64(*at + 20),
        };
    }
    return true;
}

enum err producers_load(struct producers *ps, const uint8_t *data, size_t size,
                        uint64_t now_ms)
{
    ASSERT(ps->by_id == NULL);
    if (size < SNAPSHOT_HEAD + 4 || get_u16(data) != SNAPSHOT_VERSION ||
        get_u32(data + size - 4) != crc32c(0, data, size - 4)) {
        return ERR_CORRUPT;
    }
    const uint8_t *at = data + SNAPSHOT_HEAD, *end = data + size - 4;
    for (uint32_t n = get_u32(data + 4); n > 0; n--) {
        if (!load_producer(ps, &at, end, now_ms)) {
            producers_clear(ps);
            return ERR_CORRUPT;
        }
    }
    if (at != end) {
        producers_clear(ps);
        return ERR_CORRUPT;
    }
    return ERR_OK;
}

void producers_each(const struct producers *ps,
                    void (*each)(void *arg, int64_t producer_id, int16_t epoch,
                                 const struct producer_batch *last),
                    void *arg)
{
    for (const struct producer *p = ps->by_id; p != NULL; p = p->hh.next) {
        if (p->known) {
            each(arg, p->id, p->applied.epoch,
                 &p->applied.batches[p->applied.count - 1]);
        }
    }
}
