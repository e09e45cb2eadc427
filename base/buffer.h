/* Bytes in memory: `buffer` grows and has one owner; `chunk` has a fixed size,
 * comes from a pool with a bound, and is shared by counting. */
#ifndef BASE_BUFFER_H
#define BASE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- buffer -------------------------------------------------------------- */
/* All zero is an empty buffer. `data` may move whenever the buffer grows. The
 * caller bounds what it appends. */
struct buffer {
    uint8_t *data;
    size_t size;
    size_t capacity;
};

void buffer_init(struct buffer *b);
/* Frees the memory; the buffer is empty and usable again. */
void buffer_free(struct buffer *b);
/* Makes room for `more` bytes behind those held and gives its place; the
 * caller fills it and calls buffer_added with what it used. */
uint8_t *buffer_reserve(struct buffer *b, size_t more);
void buffer_added(struct buffer *b, size_t size);
void buffer_append(struct buffer *b, const void *data, size_t size);
/* Drops the first `size` bytes, moving the rest to the front. */
void buffer_consume(struct buffer *b, size_t size);
/* Empties it and keeps the memory. */
void buffer_clear(struct buffer *b);
/* Gives the memory away: mem_free(result) is the caller's, the buffer is empty
 * (result NULL when it never held anything). */
uint8_t *buffer_take(struct buffer *b, size_t *size);

/* ---- chunks -------------------------------------------------------------- */
/* Counted by its shard's thread only: a chunk that another shard reads is
 * released by a message back. */
struct chunk_pool;
struct chunk {
    uint8_t *data; /* pool's `chunk_size` bytes, aligned as the pool says */
    size_t size;   /* bytes in use; the owner's to keep */
    /* private */
    uint32_t refs;
    struct chunk_pool *pool;
    struct chunk *next;
};

/* At most `chunks_max` chunks live at once; up to `keep` unused ones are kept
 * for the next. `align` is a power of two. */
struct chunk_pool *chunk_pool_new(size_t chunk_size, size_t align,
                                  uint32_t chunks_max, uint32_t keep);
/* Every chunk must have been released. */
void chunk_pool_free(struct chunk_pool *pool);
/* A chunk with one reference and size 0, or NULL when the bound is reached
 * (backpressure: wait until one is released). */
struct chunk *chunk_new(struct chunk_pool *pool);
struct chunk *chunk_ref(struct chunk *chunk);
void chunk_unref(struct chunk *chunk); /* NULL is fine */
uint32_t chunk_pool_used(const struct chunk_pool *pool);

#endif
