#include "base/mem.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

/* Before every block stands a head. A block of an arena has its links in front
 * of the head, and so has every aligned block.
 *
 *   plain:    [head]payload          arena:    [links][head]payload
 *   aligned:  ...[links][head]payload                                   */
struct mem_head {
    struct mem_arena *arena;
    size_t size; /* of the payload */
};

struct mem_links {
    struct mem_links *prev, *next; /* ring of the arena */
    void *memory;                  /* as malloc gave it */
    void *unused;                  /* keeps the payload aligned to 16 */
};

struct mem_arena {
    struct mem_links blocks; /* ring */
    size_t bytes;
    uint64_t n, fail_at; /* allocations so far; the one that fails, or 0 */
};

/* Fresh and freed memory of an arena holds these, so that reading what was
 * never written gives the same wrong result in every run. */
#define MEM_FRESH 0xa5
#define MEM_FREED 0xdd

_Static_assert(sizeof(struct mem_head) == 16, "payload stays aligned to 16");
_Static_assert(sizeof(struct mem_links) % 16 == 0,
               "payload stays aligned to 16");

static _Thread_local struct mem_arena *arena_now;

static void (*exhausted_hook)(size_t size);

static _Noreturn void mem_exhausted(size_t size)
{
    if (exhausted_hook != NULL) {
        exhausted_hook(size);
    }
    fprintf(stderr, "out of memory: %zu bytes could not be allocated\n", size);
    abort();
}

static struct mem_head *head_of(void *p)
{
    return (struct mem_head *)p - 1;
}

static struct mem_links *links_of(struct mem_head *head)
{
    return (struct mem_links *)(void *)head - 1;
}

static void arena_add(struct mem_arena *arena, struct mem_head *head)
{
    struct mem_links *links = links_of(head);
    links->next = &arena->blocks;
    links->prev = arena->blocks.prev;
    links->prev->next = links;
    links->next->prev = links;
    arena->bytes += head->size;
}

static void arena_remove(struct mem_head *head)
{
    struct mem_links *links = links_of(head);
    ASSERT(head->arena->bytes >= head->size);
    links->prev->next = links->next;
    links->next->prev = links->prev;
    head->arena->bytes -= head->size;
}

/* Fills in the head of a new block and gives its payload. */
static void *block_begin(struct mem_head *head, size_t size)
{
    head->arena = arena_now;
    head->size = size;
    if (arena_now != NULL) {
        arena_add(arena_now, head);
        memset(head + 1, MEM_FRESH, size);
    }
    return head + 1;
}

/* True: this allocation is the one that shall fail. */
static bool fails_now(void)
{
    return arena_now != NULL && ++arena_now->n == arena_now->fail_at;
}

void *mem_alloc(size_t size)
{
    size_t front = sizeof(struct mem_head) +
                   (arena_now == NULL ? 0 : sizeof(struct mem_links));
    char *memory =
        size > PTRDIFF_MAX - front || fails_now() ? NULL : malloc(front + size);
    if (memory == NULL) {
        mem_exhausted(size);
    }
    void *payload = memory + front;
    if (arena_now != NULL) {
        links_of(head_of(payload))->memory = memory;
    }
    return block_begin(head_of(payload), size);
}

void *mem_zalloc(size_t size)
{
    if (arena_now == NULL && size <= PTRDIFF_MAX - sizeof(struct mem_head)) {
        /* calloc knows which pages are zero already. */
        struct mem_head *head = calloc(1, sizeof *head + size);
        if (head == NULL) {
            mem_exhausted(size);
        }
        return block_begin(head, size);
    }
    void *p = mem_alloc(size);
    memset(p, 0, size);
    return p;
}

void mem_free(void *p)
{
    if (p == NULL) {
        return;
    }
    struct mem_head *head = head_of(p);
    if (head->arena == NULL) {
        free(head);
        return;
    }
    arena_remove(head);
    memset(p, MEM_FREED, head->size);
    free(links_of(head)->memory);
}

void *mem_realloc(void *p, size_t size)
{
    if (p == NULL) {
        return mem_alloc(size);
    }
    struct mem_head *head = head_of(p);
    if (head->arena == NULL && arena_now == NULL) {
        head = size > PTRDIFF_MAX - sizeof *head
                   ? NULL
                   : realloc(head, sizeof *head + size);
        if (head == NULL) {
            mem_exhausted(size);
        }
        head->size = size;
        return head + 1;
    }
    void *moved = mem_alloc(size);
    memcpy(moved, p, head->size < size ? head->size : size);
    mem_free(p);
    return moved;
}

char *mem_strdup(const char *s)
{
    size_t size = strlen(s) + 1;
    return memcpy(mem_alloc(size), s, size);
}

void *mem_alloc_aligned(size_t align, size_t size)
{
    size_t front = sizeof(struct mem_links) + sizeof(struct mem_head);
    void *memory = NULL;
    ASSERT(align != 0 && (align & (align - 1)) == 0);
    if (align < 16) {
        align = 16;
    }
    front = (front + align - 1) & ~(align - 1);
    if (size > PTRDIFF_MAX - front || fails_now() ||
        posix_memalign(&memory, align, front + size) != 0) {
        mem_exhausted(size);
    }
    void *payload = (char *)memory + front;
    struct mem_head *head = head_of(payload);
    links_of(head)->memory = memory;
    return block_begin(head, size);
}

void mem_free_aligned(void *p)
{
    if (p == NULL) {
        return;
    }
    struct mem_head *head = head_of(p);
    if (head->arena != NULL) {
        arena_remove(head);
        memset(p, MEM_FREED, head->size);
    }
    free(links_of(head)->memory);
}

struct mem_arena *mem_arena_new(void)
{
    struct mem_arena *arena = malloc(sizeof *arena);
    if (arena == NULL) {
        mem_exhausted(sizeof *arena);
    }
    arena->blocks.prev = arena->blocks.next = &arena->blocks;
    arena->bytes = 0;
    arena->n = arena->fail_at = 0;
    return arena;
}

struct mem_arena *mem_arena_enter(struct mem_arena *arena)
{
    struct mem_arena *previous = arena_now;
    arena_now = arena;
    return previous;
}

void mem_arena_drop(struct mem_arena *arena)
{
    if (arena == NULL) {
        return;
    }
    if (arena_now == arena) {
        arena_now = NULL;
    }
    while (arena->blocks.next != &arena->blocks) {
        struct mem_links *links = arena->blocks.next;
        struct mem_head *head = (struct mem_head *)(void *)(links + 1);
        arena_remove(head);
        memset(head + 1, MEM_FREED, head->size);
        free(links->memory);
    }
    free(arena);
}

size_t mem_arena_bytes(const struct mem_arena *arena)
{
    return arena->bytes;
}

void mem_set_exhausted_hook(void (*hook)(size_t size))
{
    exhausted_hook = hook;
}

void mem_arena_fail_nth(struct mem_arena *arena, uint64_t n)
{
    arena->fail_at = n == 0 ? 0 : arena->n + n;
}

uint64_t mem_arena_allocations(const struct mem_arena *arena)
{
    return arena->n;
}
