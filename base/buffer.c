#include "base/buffer.h"

#include <string.h>

#include "base/assert.h"
#include "base/mem.h"

#define BUFFER_FIRST 64 /* bytes of the first allocation */

void buffer_init(struct buffer *b)
{
    memset(b, 0, sizeof *b);
}

void buffer_free(struct buffer *b)
{
    mem_free(b->data);
    buffer_init(b);
}

uint8_t *buffer_reserve(struct buffer *b, size_t more)
{
    ASSERT(b->size <= b->capacity);
    if (b->capacity - b->size < more) {
        size_t capacity = b->capacity == 0 ? BUFFER_FIRST : b->capacity;
        ASSERT(more <= SIZE_MAX / 4 && b->size <= SIZE_MAX / 4);
        while (capacity - b->size < more) {
            capacity *= 2;
        }
        b->data = mem_realloc(b->data, capacity);
        b->capacity = capacity;
    }
    return b->data == NULL ? NULL : b->data + b->size;
}

void buffer_added(struct buffer *b, size_t size)
{
    ASSERT(size <= b->capacity - b->size);
    b->size += size;
}

void buffer_append(struct buffer *b, const void *data, size_t size)
{
    if (size > 0) {
        memcpy(buffer_reserve(b, size), data, size);
        b->size += size;
    }
}

void buffer_consume(struct buffer *b, size_t size)
{
    ASSERT(size <= b->size);
    if (size > 0) {
        memmove(b->data, b->data + size, b->size - size);
        b->size -= size;
    }
}

void buffer_clear(struct buffer *b)
{
    b->size = 0;
}

uint8_t *buffer_take(struct buffer *b, size_t *size)
{
    uint8_t *data = b->data;
    *size = b->size;
    buffer_init(b);
    return data;
}

struct chunk_pool {
    size_t chunk_size, align;
    uint32_t chunks_max, keep;
    uint32_t used, kept;
    struct chunk *unused;
};

struct chunk_pool *chunk_pool_new(size_t chunk_size, size_t align,
                                  uint32_t chunks_max, uint32_t keep)
{
    struct chunk_pool *pool = mem_zalloc(sizeof *pool);
    ASSERT(chunk_size > 0);
    pool->chunk_size = chunk_size;
    pool->align = align;
    pool->chunks_max = chunks_max;
    pool->keep = keep;
    return pool;
}

static void chunk_destroy(struct chunk *chunk)
{
    mem_free_aligned(chunk->data);
    mem_free(chunk);
}

void chunk_pool_free(struct chunk_pool *pool)
{
    ASSERT(pool->used == 0);
    while (pool->unused != NULL) {
        struct chunk *chunk = pool->unused;
        pool->unused = chunk->next;
        chunk_destroy(chunk);
    }
    mem_free(pool);
}

struct chunk *chunk_new(struct chunk_pool *pool)
{
    struct chunk *chunk = pool->unused;
    if (pool->used == pool->chunks_max) {
        return NULL;
    }
    if (chunk != NULL) {
        pool->unused = chunk->next;
        pool->kept--;
    } else {
        chunk = mem_zalloc(sizeof *chunk);
        chunk->data = mem_alloc_aligned(pool->align, pool->chunk_size);
        chunk->pool = pool;
    }
    pool->used++;
    chunk->next = NULL;
    chunk->size = 0;
    chunk->refs = 1;
    return chunk;
}

struct chunk *chunk_ref(struct chunk *chunk)
{
    ASSERT(chunk->refs > 0 && chunk->refs < UINT32_MAX);
    chunk->refs++;
    return chunk;
}

void chunk_unref(struct chunk *chunk)
{
    if (chunk == NULL) {
        return;
    }
    ASSERT(chunk->refs > 0);
    if (--chunk->refs > 0) {
        return;
    }
    struct chunk_pool *pool = chunk->pool;
    ASSERT(pool->used > 0);
    pool->used--;
    if (pool->kept == pool->keep) {
        chunk_destroy(chunk);
        return;
    }
    chunk->next = pool->unused;
    pool->unused = chunk;
    pool->kept++;
}

uint32_t chunk_pool_used(const struct chunk_pool *pool)
{
    return pool->used;
}
