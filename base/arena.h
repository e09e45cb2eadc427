/* A bump allocator: what one request needs comes in a few large pieces and
 * goes back at once. Memory is mem_alloc's. Not shared between threads, but
 * may be handed from one to another with its request. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stddef.h>

struct arena_chunk;

struct arena {
    struct arena_chunk *chunk; /* newest; NULL: nothing taken yet */
    size_t used;               /* bytes handed out, alignment included */
    size_t limit;              /* for arena_try_alloc; 0 is none */
};

/* Takes no memory yet. `limit` bounds what arena_try_alloc hands out. */
void arena_init(struct arena *a, size_t limit);
/* Gives everything back; the arena is then as after arena_init. */
void arena_free(struct arena *a);
/* What `from` has handed out belongs to `to` from now on, whose limit is not
 * asked; `from` is empty. */
void arena_move(struct arena *to, struct arena *from);

/* `size` bytes, aligned for any object, undefined content; never NULL. The
 * caller has bounded `size` and how often it asks. */
void *arena_alloc(struct arena *a, size_t size);
void *arena_zalloc(struct arena *a, size_t size);
/* `count` zeroed elements of `size` bytes; for sizes from our own state. */
void *arena_array(struct arena *a, size_t count, size_t size);
/* For sizes that come from the network: NULL when `limit` would be passed. */
void *arena_try_alloc(struct arena *a, size_t size);
/* Copies of bytes, and of a C string with its NUL. */
void *arena_copy(struct arena *a, const void *data, size_t size);
char *arena_strdup(struct arena *a, const char *s);
/* printf into the arena; NUL-terminated. */
char *arena_printf(struct arena *a, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
