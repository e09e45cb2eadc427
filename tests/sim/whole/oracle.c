/* What is true of the records: which offset each has, whatever was told to
 * whom. The first answer or read that names an offset decides it for good. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/whole/impl.h"

/* producer + 1: 8 bits; part: 8; r: 48 */
record_id record_make(int producer, int part, uint64_t r)
{
    return (uint64_t)(producer + 1) << 56 | (uint64_t)part << 48 | r;
}

int record_producer(record_id id)
{
    return (int)(id >> 56) - 1;
}

int record_part(record_id id)
{
    return (int)(id >> 48 & 0xff);
}

uint64_t record_r(record_id id)
{
    return id & ((UINT64_C(1) << 48) - 1);
}

void record_value(record_id id, uint8_t *value, int32_t size)
{
    uint64_t x = id * UINT64_C(0x9e3779b97f4a7c15) + (uint64_t)size;
    memcpy(value, &id, sizeof id);
    memcpy(value + 8, &size, sizeof size);
    for (int32_t i = 12; i < size; i++) {
        /* runs of the same byte, so that compression has something to do */
        if (i % 16 == 12) {
            x = x * UINT64_C(0xd1342543de82ef95) + 1;
        }
        value[i] = (uint8_t)(x >> 56);
    }
}

static struct oracle_stream *stream_of(struct world *w, record_id id)
{
    int producer = record_producer(id);
    int part = record_part(id);
    if (producer < 0 || producer >= w->n_producers || part >= PARTS_MAX) {
        sim_fail(w->sim, "record %llx is of nobody", (unsigned long long)id);
    }
    return &w->oracle.streams[producer][part];
}

static void stream_grow(struct oracle_stream *s, uint64_t r)
{
    uint64_t size = s->size == 0 ? 64 : s->size;
    while (size <= r) {
        size *= 2;
    }
    if (size == s->size) {
        return;
    }
    s->offset = realloc(s->offset, size * sizeof *s->offset);
    s->acked = realloc(s->acked, size);
    s->attempts = realloc(s->attempts, size * sizeof *s->attempts);
    s->copies = realloc(s->copies, size * sizeof *s->copies);
    for (uint64_t i = s->size; i < size; i++) {
        s->offset[i] = 0;
        s->acked[i] = 0;
        s->attempts[i] = s->copies[i] = 0;
    }
    s->size = size;
}

void oracle_sent(struct world *w, record_id first, int n)
{
    struct oracle_stream *s = stream_of(w, first);
    uint64_t r = record_r(first);
    stream_grow(s, r + (uint64_t)n);
    if (s->attempts[r] == 0) {
        history_sent(w, first, n);
    }
    for (int i = 0; i < n; i++) {
        s->attempts[r + (uint64_t)i]++;
    }
    if (s->n_made < r + (uint64_t)n) {
        s->n_made = r + (uint64_t)n;
    }
}

static void part_grow(struct oracle_part *p, uint64_t offset)
{
    uint64_t size = p->size == 0 ? 256 : p->size;
    while (size <= offset) {
        size *= 2;
    }
    if (size == p->size) {
        return;
    }
    p->log = realloc(p->log, size * sizeof *p->log);
    memset(p->log + p->size, 0, (size - p->size) * sizeof *p->log);
    p->size = size;
}

/* This record lies at this offset, now and for ever. */
static void place(struct world *w, int part, int64_t offset, record_id id)
{
    struct oracle_part *p = &w->oracle.parts[part];
    struct oracle_stream *s = stream_of(w, id);
    uint64_t r = record_r(id);
    if (offset < 0 || offset > 1 << 30) {
        sim_fail(w->sim, "t%d-%d: offset %lld", part_topic(part),
                 part_index(part), (long long)offset);
    }
    if (record_part(id) != part || r >= s->n_made) {
        sim_fail(w->sim, "t%d-%d offset %lld: a phantom, record %llx",
                 part_topic(part), part_index(part), (long long)offset,
                 (unsigned long long)id);
    }
    part_grow(p, (uint64_t)offset);
    if (p->log[offset] == id) {
        return;
    }
    if (p->log[offset] != 0) {
        sim_fail(w->sim, "t%d-%d offset %lld holds record %llx and record %llx",
                 part_topic(part), part_index(part), (long long)offset,
                 (unsigned long long)p->log[offset], (unsigned long long)id);
    }
    p->log[offset] = id;
    if (p->seen_end < (uint64_t)offset + 1) {
        p->seen_end = (uint64_t)offset + 1;
    }
    s->copies[r]++;
    if (s->copies[r] > s->attempts[r] ||
        (s->copies[r] > 1 && producer_is_idempotent(w, record_producer(id)))) {
        sim_fail(w->sim,
                 "t%d-%d: record %llx is at offset %lld and %lld: a duplicate",
                 part_topic(part), part_index(part), (unsigned long long)id,
                 (long long)s->offset[r] - 1, (long long)offset);
    }
    s->offset[r] = (uint64_t)offset + 1;
}

void oracle_acked(struct world *w, record_id first, int n, int64_t base)
{
    struct oracle_stream *s = stream_of(w, first);
    struct oracle_part *p = &w->oracle.parts[record_part(first)];
    if (!s->acked[record_r(first)]) {
        history_acked(w, first, n, base);
    }
    for (int i = 0; i < n; i++) {
        place(w, record_part(first), base + i, first + (uint64_t)i);
        uint64_t r = record_r(first) + (uint64_t)i;
        if (!s->acked[r]) {
            s->acked[r] = 1;
            s->n_acked++;
            w->result.acknowledged++;
        }
    }
    if (p->acked_end < (uint64_t)(base + n)) {
        p->acked_end = (uint64_t)(base + n);
    }
}

void oracle_read(struct world *w, int part, int64_t offset, record_id id)
{
    place(w, part, offset, id);
    w->result.read++;
}

/* All offsets are known: whoever read everything saw each; and what was
 * acknowledged has a place (place() saw to it that it is the right one). */
void oracle_finish(struct world *w)
{
    for (int i = 0; i < PARTS_MAX; i++) {
        const struct oracle_part *p = &w->oracle.parts[i];
        for (uint64_t o = 0; o < p->seen_end; o++) {
            if (p->log[o] == 0) {
                sim_fail(w->sim, "t%d-%d: nobody knows offset %llu",
                         part_topic(i), part_index(i), (unsigned long long)o);
            }
        }
    }
    for (int i = 0; i < w->n_producers; i++) {
        for (int k = 0; k < PARTS_MAX; k++) {
            const struct oracle_stream *s = &w->oracle.streams[i][k];
            if (s->n_acked != s->n_made) {
                sim_fail(w->sim,
                         "p%d t%d-%d: %llu of %llu records acknowledged", i,
                         part_topic(k), part_index(k),
                         (unsigned long long)s->n_acked,
                         (unsigned long long)s->n_made);
            }
        }
    }
}

void oracle_free(struct world *w)
{
    for (int i = 0; i < PARTS_MAX; i++) {
        free(w->oracle.parts[i].log);
        for (int k = 0; k < PRODUCERS_MAX; k++) {
            struct oracle_stream *s = &w->oracle.streams[k][i];
            free(s->offset);
            free(s->acked);
            free(s->attempts);
            free(s->copies);
        }
    }
}
