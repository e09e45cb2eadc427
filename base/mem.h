/* All memory of the program comes from here, so that the simulator can drop
 * everything a crashed broker held and fault tests can fail the n-th call.
 * Containers (uthash) and libraft are pointed here too. */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

/* Like malloc/calloc/realloc/free, but exhaustion of memory ends the process
 * with a message: data-plane memory is bounded by limits.h and reserved
 * beforehand, so running out is not a state to carry on in. size 0 is allowed
 * and gives a unique pointer. Never NULL. */
void *mem_alloc(size_t size);
void *mem_zalloc(size_t size);
void *mem_realloc(void *p, size_t size);
void mem_free(void *p);
char *mem_strdup(const char *s);
/* `align` a power of two; freed by mem_free_aligned. */
void *mem_alloc_aligned(size_t align, size_t size);
void mem_free_aligned(void *p);

/* An arena groups allocations so that they can be dropped together. With an
 * arena entered (per thread), allocations belong to it; memory of an arena may
 * be freed singly from anywhere. Only the simulator uses arenas; without one,
 * the calls above are plain malloc with a one-word header. */
struct mem_arena;
struct mem_arena *mem_arena_new(void);
/* Gives the arena entered before; NULL: none. */
struct mem_arena *mem_arena_enter(struct mem_arena *arena);
/* Frees all blocks of the arena, and itself. */
void mem_arena_drop(struct mem_arena *arena);
size_t mem_arena_bytes(const struct mem_arena *arena);

/* ---- fault tests --------------------------------------------------------- */
/* Called first when memory is exhausted, so that the simulator can end the node
 * as the process would end; when it returns (or is NULL) the process aborts. */
void mem_set_exhausted_hook(void (*hook)(size_t size));
/* The n-th allocation of the arena from now on fails (n >= 1; 0 takes it
 * back). */
void mem_arena_fail_nth(struct mem_arena *arena, uint64_t n);
/* How many there were so far. */
uint64_t mem_arena_allocations(const struct mem_arena *arena);

#endif
