/* Entries in memory, in a ring that grows by doubling: no allocation for an
 * entry once it is as large as the window it holds. */
#include "base/assert.h"
#include "base/mem.h"
#include "partition/partition_impl.h"

#define RING_FIRST 8
/* An emptied ring larger than this gives its memory back. */
#define RING_KEEP 1024

struct log_entry *ring_at(const struct log_ring *ring, uint32_t i)
{
    return &ring->entries[(ring->head + i) & (ring->capacity - 1)];
}

struct group_entry ring_view(const struct partition *p, uint32_t i)
{
    struct group_entry view;
    ASSERT(i < p->ring.count);
    ASSERT(group_entry_at(p->group, (log_index){p->ring.first.v + i}, &view));
    return view;
}

static void ring_grow(struct log_ring *ring)
{
    uint32_t capacity = ring->capacity == 0 ? RING_FIRST : ring->capacity * 2;
    struct log_entry *entries = mem_alloc(capacity * sizeof *entries);
    ASSERT(capacity > ring->capacity);
    for (uint32_t i = 0; i < ring->count; i++) {
        entries[i] = *ring_at(ring, i);
    }
    mem_free(ring->entries);
    ring->entries = entries;
    ring->capacity = capacity;
    ring->head = 0;
}

struct log_entry *ring_push(struct log_ring *ring, log_index index)
{
    if (ring->count == ring->capacity) {
        ring_grow(ring);
    }
    if (ring->count == 0) {
        ring->first = index;
    }
    ASSERT(ring->first.v + ring->count == index.v);
    return ring_at(ring, ring->count++);
}

void ring_pop_front(struct log_ring *ring)
{
    ASSERT(ring->count > 0);
    ring->head = (ring->head + 1) & (ring->capacity - 1);
    ring->count--;
    ring->first.v++;
    if (ring->count == 0 && ring->capacity > RING_KEEP) {
        mem_free(ring->entries);
        ring->entries = NULL;
        ring->capacity = ring->head = 0;
    }
}

void ring_pop_back(struct log_ring *ring)
{
    ASSERT(ring->count > 0);
    ring->count--;
}

uint32_t ring_find(const struct log_ring *ring, log_index index)
{
    if (ring->count == 0 || index.v < ring->first.v ||
        index.v - ring->first.v >= ring->count) {
        return ring->count;
    }
    return (uint32_t)(index.v - ring->first.v);
}

uint32_t ring_find_offset(const struct log_ring *ring, kafka_offset offset)
{
    uint32_t low = 0, high = ring->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct log_entry *e = ring_at(ring, middle);
        if (e->base_offset.v + e->last_delta >= offset.v) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    while (low < ring->count && ring_at(ring, low)->type != ENTRY_DATA) {
        low++;
    }
    return low;
}
