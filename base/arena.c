#include "base/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"

/* A first piece that holds most requests, then doubling up to where one more
 * allocation no longer matters. */
#define CHUNK_MIN 2048
#define CHUNK_MAX 262144
#define ALIGN 16

struct arena_chunk {
    struct arena_chunk *previous;
    size_t size; /* of data */
    size_t used;
    size_t pad;
    uint8_t data[];
};

void arena_init(struct arena *a, size_t limit)
{
    *a = (struct arena){.limit = limit};
}

void arena_free(struct arena *a)
{
    struct arena_chunk *c = a->chunk;
    while (c != NULL) {
        struct arena_chunk *previous = c->previous;
        mem_free(c);
        c = previous;
    }
    arena_init(a, a->limit);
}

void arena_move(struct arena *to, struct arena *from)
{
    struct arena_chunk *oldest = from->chunk;
    if (oldest == NULL) {
        return;
    }
    while (oldest->previous != NULL) {
        oldest = oldest->previous;
    }
    if (to->chunk == NULL) {
        to->chunk = from->chunk;
    } else { /* behind the newest, which is not full yet */
        oldest->previous = to->chunk->previous;
        to->chunk->previous = from->chunk;
    }
    to->used += from->used;
    arena_init(from, from->limit);
}

static struct arena_chunk *chunk_add(struct arena *a, size_t size)
{
    size_t want = a->chunk == NULL ? CHUNK_MIN : a->chunk->size * 2;
    if (want > CHUNK_MAX) {
        want = CHUNK_MAX;
    }
    if (want < size) {
        want = size;
    }
    struct arena_chunk *c = mem_alloc(sizeof *c + want);
    c->previous = a->chunk;
    c->size = want;
    c->used = 0;
    a->chunk = c;
    return c;
}

void *arena_alloc(struct arena *a, size_t size)
{
    ASSERT(size <= SIZE_MAX / 2);
    size = (size + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    struct arena_chunk *c = a->chunk;
    if (c == NULL || c->size - c->used < size) {
        c = chunk_add(a, size);
    }
    void *p = c->data + c->used;
    c->used += size;
    a->used += size;
    return p;
}

void *arena_zalloc(struct arena *a, size_t size)
{
    return memset(arena_alloc(a, size), 0, size);
}

void *arena_array(struct arena *a, size_t count, size_t size)
{
    ASSERT(size == 0 || count <= SIZE_MAX / 2 / size);
    return arena_zalloc(a, count * size);
}

void *arena_try_alloc(struct arena *a, size_t size)
{
    if (a->limit != 0 && (size > a->limit || a->used > a->limit - size)) {
        return NULL;
    }
    return arena_alloc(a, size);
}

void *arena_copy(struct arena *a, const void *data, size_t size)
{
    void *p = arena_alloc(a, size);
    if (size > 0) {
        memcpy(p, data, size);
    }
    return p;
}

char *arena_strdup(struct arena *a, const char *s)
{
    return arena_copy(a, s, strlen(s) + 1);
}

char *arena_printf(struct arena *a, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    ASSERT(n >= 0);
    char *p = arena_alloc(a, (size_t)n + 1);
    va_start(args, format);
    vsnprintf(p, (size_t)n + 1, format, args);
    va_end(args);
    return p;
}
