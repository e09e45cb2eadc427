#include "raft/log_chunk.h"

#include "base/assert.h"
#include "base/mem.h"
#include "raft/wal_format.h"

struct log_buffer *log_buffer_new(uint32_t chunk_bytes,
                                  void (*released)(void *arg), void *arg)
{
    ASSERT(chunk_bytes > 0 && chunk_bytes % WAL_BLOCK == 0);
    struct log_buffer *buffer = mem_zalloc(sizeof *buffer);
    buffer->chunk_bytes = chunk_bytes;
    buffer->next_id = 1;
    buffer->released = released;
    buffer->arg = arg;
    return buffer;
}

static void chunk_free(struct log_chunk *chunk)
{
    mem_free(chunk->pins.v);
    mem_free(chunk->runs);
    mem_free_aligned(chunk->data);
    mem_free(chunk);
}

static void buffer_free_if_done(struct log_buffer *buffer)
{
    if (buffer->closed && buffer->n_live == 0) {
        ASSERT(buffer->free == NULL && buffer->bytes_live == 0);
        mem_free(buffer);
    }
}

/* The last reference is gone. */
static void chunk_release(struct log_chunk *chunk)
{
    struct log_buffer *buffer = chunk->buffer;
    ASSERT(buffer->bytes_live >= chunk->size && buffer->n_live > 0);
    buffer->bytes_live -= chunk->size;
    buffer->n_live--;
    if (buffer->closed || chunk->size != buffer->chunk_bytes) {
        chunk_free(chunk);
    } else {
        chunk->next = buffer->free;
        buffer->free = chunk;
        buffer->n_free++;
    }
    if (buffer->closed) {
        buffer_free_if_done(buffer);
    } else {
        buffer->released(buffer->arg);
    }
}

void log_chunk_ref(struct log_chunk *chunk)
{
    ASSERT(chunk->refs > 0 && chunk->refs < UINT32_MAX);
    chunk->refs++;
}

void log_chunk_unref(struct log_chunk *chunk)
{
    ASSERT(chunk->refs > 0);
    if (--chunk->refs == 0) {
        chunk_release(chunk);
    }
}

void log_chunk_lend(struct log_chunk *chunk)
{
    log_chunk_ref(chunk);
    if (chunk->lent++ == 0) {
        chunk->buffer->bytes_lent += chunk->size;
    }
}

void log_chunk_return(struct log_chunk *chunk)
{
    ASSERT(chunk->lent > 0);
    if (--chunk->lent == 0) {
        ASSERT(chunk->buffer->bytes_lent >= chunk->size);
        chunk->buffer->bytes_lent -= chunk->size;
    }
    log_chunk_unref(chunk);
}

bool log_chunk_is_lent(const struct log_chunk *chunk)
{
    return chunk->lent > 0;
}

uint64_t log_chunk_lent_bytes(const struct log_chunk *chunk)
{
    return chunk->buffer->bytes_lent;
}

void log_buffer_close(struct log_buffer *buffer)
{
    while (buffer->free != NULL) {
        struct log_chunk *chunk = buffer->free;
        buffer->free = chunk->next;
        chunk_free(chunk);
    }
    buffer->n_free = 0;
    buffer->closed = true;
    buffer->n_live++; /* keeps the buffer until the loop is over */
    while (buffer->oldest != NULL) {
        log_buffer_drop(buffer, NULL);
    }
    buffer->n_live--;
    buffer_free_if_done(buffer);
}

struct log_chunk *log_buffer_add(struct log_buffer *buffer, uint64_t bytes)
{
    ASSERT(!buffer->closed);
    bytes = wal_align(bytes, WAL_BLOCK);
    ASSERT(bytes <= UINT32_MAX);
    struct log_chunk *chunk = NULL;
    if (bytes <= buffer->chunk_bytes) {
        bytes = buffer->chunk_bytes;
        chunk = buffer->free;
    }
    if (chunk != NULL) {
        buffer->free = chunk->next;
        buffer->n_free--;
        if (buffer->n_free_least > buffer->n_free) {
            buffer->n_free_least = buffer->n_free;
        }
        wal_pins_clear(&chunk->pins);
        chunk->n_runs = 0;
        chunk->fill = 0;
    } else {
        chunk = mem_zalloc(sizeof *chunk);
        chunk->size = (uint32_t)bytes;
        chunk->data = mem_alloc_aligned(WAL_BLOCK, bytes);
        chunk->buffer = buffer;
    }
    chunk->refs = 1;
    chunk->id = buffer->next_id++;
    chunk->next = NULL;
    if (buffer->newest != NULL) {
        buffer->newest->next = chunk;
    } else {
        buffer->oldest = chunk;
    }
    buffer->newest = chunk;
    buffer->bytes_live += chunk->size;
    buffer->n_live++;
    return chunk;
}

void log_buffer_drop(struct log_buffer *buffer, struct log_chunk *before)
{
    struct log_chunk *chunk = before != NULL ? before->next : buffer->oldest;
    ASSERT(chunk != NULL);
    if (before != NULL) {
        before->next = chunk->next;
    } else {
        buffer->oldest = chunk->next;
    }
    if (buffer->newest == chunk) {
        buffer->newest = before;
    }
    chunk->next = NULL;
    wal_pins_clear(&chunk->pins);
    log_chunk_unref(chunk);
}

void log_buffer_trim(struct log_buffer *buffer, uint32_t keep)
{
    uint32_t idle = buffer->n_free_least;
    uint32_t n = idle > keep ? (idle - keep + 1) / 2 : 0;
    for (; n > 0; n--) {
        struct log_chunk *chunk = buffer->free;
        buffer->free = chunk->next;
        buffer->n_free--;
        chunk_free(chunk);
    }
    buffer->n_free_least = buffer->n_free;
}

struct log_run *log_chunk_run(struct log_chunk *chunk, uint32_t from,
                              uint64_t generation)
{
    if (chunk->n_runs > 0) {
        struct log_run *last = &chunk->runs[chunk->n_runs - 1];
        if (last->generation == generation && last->to == from) {
            return last;
        }
    }
    if (chunk->n_runs == chunk->runs_capacity) {
        chunk->runs_capacity = chunk->runs_capacity * 2 + 8;
        chunk->runs = mem_realloc(chunk->runs,
                                  chunk->runs_capacity * sizeof *chunk->runs);
    }
    struct log_run *run = &chunk->runs[chunk->n_runs++];
    *run = (struct log_run){from, from, generation};
    return run;
}
