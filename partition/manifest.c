/* The list of closed segments, so that a start opens none of them. Derived: the
 * side files tell the same, and are asked when the list is missing or does not
 * join the active segment without a gap.
 *
 * File `segments`, big-endian: u16 version 1, u16 zero, u32 count; per segment
 * i64 base, i64 end, u64 bytes, u64 slots, i64 maximum timestamp; u32 CRC-32C
 * of all before. */
#include <inttypes.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/mem.h"
#include "partition/bytes.h"
#include "partition/segment.h"

#define MANIFEST_VERSION 1
#define MANIFEST_HEAD 8
#define MANIFEST_SEGMENT 40

static void manifest_path(char *path, const char *dir)
{
    int n = snprintf(path, LIMIT_PATH, "%s/segments", dir);
    ASSERT(n > 0 && n < LIMIT_PATH);
}

enum err manifest_write(struct env *env, const char *dir,
                        const struct segment *segments, size_t n)
{
    char path[LIMIT_PATH];
    size_t size = MANIFEST_HEAD + n * MANIFEST_SEGMENT + 4;
    uint8_t *bytes = mem_zalloc(size), *to = bytes + MANIFEST_HEAD;
    put_u16(bytes, MANIFEST_VERSION);
    put_u32(bytes + 4, (uint32_t)n);
    for (size_t i = 0; i < n; i++, to += MANIFEST_SEGMENT) {
        put_i64(to, segments[i].base.v);
        put_i64(to + 8, segments[i].end.v);
        put_u64(to + 16, segments[i].bytes);
        put_u64(to + 24, segments[i].slots);
        put_i64(to + 32, segments[i].max_timestamp);
    }
    put_u32(to, crc32c(0, bytes, size - 4));
    manifest_path(path, dir);
    enum err status = env_file_write_whole(env, path, bytes, size);
    mem_free(bytes);
    return status;
}

struct segment_list {
    struct segment *segments;
    size_t n, capacity;
};

static void list_add(struct segment_list *list, const struct segment *s)
{
    if (list->n == list->capacity) {
        list->capacity = list->capacity == 0 ? 8 : list->capacity * 2;
        list->segments = mem_realloc(list->segments,
                                     list->capacity * sizeof *list->segments);
    }
    list->segments[list->n++] = *s;
}

/* True when the list is whole and joins the active segment. */
static bool manifest_parse(const uint8_t *bytes, size_t size,
                           kafka_offset active, struct segment_list *list)
{
    int64_t end = -1;
    if (size < MANIFEST_HEAD + 4 || get_u16(bytes) != MANIFEST_VERSION ||
        get_u32(bytes + size - 4) != crc32c(0, bytes, size - 4) ||
        (size - MANIFEST_HEAD - 4) / MANIFEST_SEGMENT != get_u32(bytes + 4)) {
        return false;
    }
    const uint8_t *at = bytes + MANIFEST_HEAD;
    for (uint32_t n = get_u32(bytes + 4); n > 0; n--, at += MANIFEST_SEGMENT) {
        struct segment s = {{get_i64(at)},
                            {get_i64(at + 8)},
                            get_u64(at + 16),
                            get_u64(at + 24),
                            get_i64(at + 32)};
        if (s.base.v >= active.v) {
            break;
        }
        if (end >= 0 && s.base.v != end) {
            return false;
        }
        end = s.end.v;
        list_add(list, &s);
    }
    return end < 0 || end == active.v;
}

/* ---- from the side files ------------------------------------------------- */
struct bases {
    kafka_offset active;
    int64_t *list; /* ascending, up to the active one */
    size_t n, capacity;
};

static void add_base(void *arg, const char *name)
{
    struct bases *b = arg;
    int64_t base;
    int end = 0;
    if (sscanf(name, "%20" SCNd64 ".side%n", &base, &end) != 1 || end != 25 ||
        name[end] != '\0' || base > b->active.v) {
        return;
    }
    if (b->n == b->capacity) {
        b->capacity = b->capacity == 0 ? 8 : b->capacity * 2;
        b->list = mem_realloc(b->list, b->capacity * sizeof *b->list);
    }
    b->list[b->n++] = base;
}

/* Looks for the end of segment `base` in front of `next`, and makes it the next
 * `next`. ERR_NOT_FOUND: it does not end there, it is left over. */
static enum err probe(struct env *env, const char *dir, int64_t base,
                      struct side_head *next, struct segment *out)
{
    struct segment_view v = {
        .env = env, .dir = dir, .segment = {.base = {base}}};
    struct side_entry last;
    struct side_head head;
    uint64_t size, slot;
    enum err status = segment_view_open(&v, false);
    if (status == ERR_OK) {
        status = env_file_size(v.side.file, &size);
    }
    if (status == ERR_OK) {
        v.segment.slots = side_slots_in(size);
        status = segment_read_head(&v, &head);
    }
    if (status == ERR_OK) {
        status = segment_find_index(&v, (log_index){next->first.v - 1}, &slot,
                                    &last);
    }
    if (status == ERR_OK && (last.chain != next->chain ||
                             side_last_offset(&last).v + 1 != next->base.v)) {
        status = ERR_NOT_FOUND;
    }
    if (status == ERR_OK) {
        *out = (struct segment){
            {base},
            next->base,
            last.position + (last.type == ENTRY_DATA ? last.size : 0),
            slot + side_slots(last.type, last.size),
            last.running_max};
        *next = head;
    }
    segment_view_close(&v);
    return status == ERR_CORRUPT ? ERR_NOT_FOUND : status;
}

static enum err active_head(struct env *env, const char *dir,
                            kafka_offset active, struct side_head *out)
{
    struct segment_view v = {
        .env = env, .dir = dir, .segment = {.base = active}};
    enum err status = segment_view_open(&v, false);
    if (status == ERR_OK) {
        status = segment_read_head(&v, out);
    }
    segment_view_close(&v);
    return status;
}

static void list_reverse(struct segment_list *list)
{
    for (size_t i = 0; i < list->n / 2; i++) {
        struct segment s = list->segments[i];
        list->segments[i] = list->segments[list->n - 1 - i];
        list->segments[list->n - 1 - i] = s;
    }
}

/* From the active segment back: each must end where the next begins. */
static enum err manifest_rebuild(struct env *env, const char *dir,
                                 kafka_offset active, struct segment_list *list)
{
    struct bases b = {.active = active};
    struct side_head next;
    enum err status = active_head(env, dir, active, &next);
    list->n = 0;
    if (status == ERR_OK) {
        status = env_dir_list(env, dir, add_base, &b);
    }
    for (size_t i = b.n; i > 0 && status == ERR_OK; i--) {
        struct segment s;
        if (b.list[i - 1] < next.base.v) {
            status = probe(env, dir, b.list[i - 1], &next, &s);
            if (status == ERR_OK) {
                list_add(list, &s);
            } else if (status == ERR_NOT_FOUND) {
                status = ERR_OK;
            }
        }
    }
    mem_free(b.list);
    list_reverse(list);
    return status;
}

enum err manifest_load(struct env *env, const char *dir, kafka_offset active,
                       struct segment **out, size_t *n)
{
    char path[LIMIT_PATH];
    struct segment_list list = {0};
    void *bytes;
    size_t size;
    manifest_path(path, dir);
    enum err status =
        env_file_read_whole(env, path, LIMIT_MANIFEST_BYTES, &bytes, &size);
    bool good = false;
    if (status == ERR_OK) {
        good = manifest_parse(bytes, size, active, &list);
        mem_free(bytes);
    } else if (status != ERR_NOT_FOUND) {
        return status;
    }
    if (!good) {
        status = manifest_rebuild(env, dir, active, &list);
        if (status != ERR_OK) {
            mem_free(list.segments);
            return status;
        }
    }
    *out = list.segments;
    *n = list.n;
    return ERR_OK;
}
