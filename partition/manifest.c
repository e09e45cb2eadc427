/* The list of closed segments, so that a start opens none of them; where
 * compaction replaced segments it says which files count: replacing the list is
 * the switch. When it is missing or does not join the active segment without a
 * gap, the side files are asked: those of a compaction that came to its end are
 * as good as what they replace, and others have no head.
 *
 * File `segments`, big-endian: u16 version 2, u16 zero, u32 count, i64 offset
 * up to which the log is compacted; per segment i64 base, i64 end, u64 bytes,
 * u64 slots, i64 maximum timestamp, u32 generation, u32 zero, u64 id of its
 * compaction, i64 horizon; u32 CRC-32C of all before. Version 1 is the same
 * without what compaction needs. */
#include <inttypes.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/mem.h"
#include "partition/bytes.h"
#include "partition/segment.h"

#define MANIFEST_VERSION 2
#define MANIFEST_HEAD 16
#define MANIFEST_SEGMENT 64
#define MANIFEST_1_HEAD 8
#define MANIFEST_1_SEGMENT 40

static void manifest_path(char *path, const char *dir)
{
    int n = snprintf(path, LIMIT_PATH, "%s/segments", dir);
    ASSERT(n > 0 && n < LIMIT_PATH);
}

enum err manifest_write(struct env *env, const char *dir,
                        const struct segment *segments, size_t n,
                        kafka_offset compacted)
{
    char path[LIMIT_PATH];
    size_t size = MANIFEST_HEAD + n * MANIFEST_SEGMENT + 4;
    uint8_t *bytes = mem_zalloc(size), *to = bytes + MANIFEST_HEAD;
    put_u16(bytes, MANIFEST_VERSION);
    put_u32(bytes + 4, (uint32_t)n);
    put_i64(bytes + 8, compacted.v);
    for (size_t i = 0; i < n; i++, to += MANIFEST_SEGMENT) {
        put_i64(to, segments[i].base.v);
        put_i64(to + 8, segments[i].end.v);
        put_u64(to + 16, segments[i].bytes);
        put_u64(to + 24, segments[i].slots);
        put_i64(to + 32, segments[i].max_timestamp);
        put_u32(to + 40, segments[i].generation);
        put_u64(to + 48, segments[i].compaction);
        put_i64(to + 56, segments[i].horizon);
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
                           kafka_offset active, struct segment_list *list,
                           kafka_offset *compacted)
{
    int64_t end = -1;
    size_t head = MANIFEST_HEAD, each = MANIFEST_SEGMENT;
    if (size < MANIFEST_1_HEAD + 4 ||
        get_u32(bytes + size - 4) != crc32c(0, bytes, size - 4)) {
        return false;
    }
    bool first_version = get_u16(bytes) == 1;
    if (first_version) {
        head = MANIFEST_1_HEAD;
        each = MANIFEST_1_SEGMENT;
    } else if (get_u16(bytes) != MANIFEST_VERSION) {
        return false;
    }
    if (size < head + 4 || (size - head - 4) / each != get_u32(bytes + 4)) {
        return false;
    }
    compacted->v = first_version ? 0 : get_i64(bytes + 8);
    const uint8_t *at = bytes + head;
    for (uint32_t n = get_u32(bytes + 4); n > 0; n--, at += each) {
        struct segment s = {.base = {get_i64(at)},
                            .end = {get_i64(at + 8)},
                            .bytes = get_u64(at + 16),
                            .slots = get_u64(at + 24),
                            .max_timestamp = get_i64(at + 32)};
        if (!first_version) {
            s.generation = get_u32(at + 40);
            s.compaction = get_u64(at + 48);
            s.horizon = get_i64(at + 56);
        }
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
struct candidate {
    kafka_offset base;
    uint32_t generation;
};

struct candidates {
    kafka_offset active;
    struct candidate *list; /* by base, up to the active one */
    size_t n, capacity;
};

static void add_candidate(void *arg, const char *name)
{
    struct candidates *c = arg;
    struct candidate found;
    char suffix[SEGMENT_SUFFIX_MAX];
    if (!segment_name_parse(name, &found.base.v, &found.generation, suffix) ||
        strcmp(suffix, "side") != 0 || found.base.v > c->active.v) {
        return;
    }
    if (c->n == c->capacity) {
        c->capacity = c->capacity == 0 ? 8 : c->capacity * 2;
        c->list = mem_realloc(c->list, c->capacity * sizeof *c->list);
    }
    c->list[c->n++] = found;
}

/* Looks for the end of a segment in front of `next`, and makes it the next
 * `next`. ERR_NOT_FOUND: it does not end there, it is left over. */
static enum err probe(struct env *env, const char *dir,
                      const struct candidate *candidate, struct side_head *next,
                      struct segment *out)
{
    struct segment_view v = {.env = env,
                             .dir = dir,
                             .segment = {.base = candidate->base,
                                         .generation = candidate->generation}};
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
            .base = candidate->base,
            .end = next->base,
            .bytes = last.position + (last.type == ENTRY_DATA ? last.size : 0),
            .slots = slot + side_slots(last.type, last.size),
            .max_timestamp = last.running_max,
            .generation = candidate->generation,
            .compaction = head.compaction,
            .horizon = head.compaction != 0 ? 1 : 0}; /* look soon */
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

/* The segment in front of `next`: one made by compaction that reaches back the
 * furthest, else as it was settled. */
static enum err probe_all(struct env *env, const char *dir,
                          const struct candidates *c, struct side_head *next,
                          struct segment *out)
{
    enum err status = ERR_NOT_FOUND;
    for (size_t i = 0; i < c->n && status == ERR_NOT_FOUND; i++) {
        if (c->list[i].base.v < next->base.v && c->list[i].generation > 0) {
            status = probe(env, dir, &c->list[i], next, out);
        }
    }
    for (size_t i = c->n; i > 0 && status == ERR_NOT_FOUND; i--) {
        if (c->list[i - 1].base.v < next->base.v &&
            c->list[i - 1].generation == 0) {
            status = probe(env, dir, &c->list[i - 1], next, out);
        }
    }
    return status;
}

/* From the active segment back: each must end where the next begins. */
static enum err manifest_rebuild(struct env *env, const char *dir,
                                 kafka_offset active, struct segment_list *list)
{
    struct candidates c = {.active = active};
    struct side_head next;
    enum err status = active_head(env, dir, active, &next);
    list->n = 0;
    if (status == ERR_OK) {
        status = env_dir_list(env, dir, add_candidate, &c);
    }
    while (status == ERR_OK) {
        struct segment s;
        status = probe_all(env, dir, &c, &next, &s);
        if (status == ERR_OK) {
            list_add(list, &s);
        }
    }
    mem_free(c.list);
    list_reverse(list);
    return status == ERR_NOT_FOUND ? ERR_OK : status;
}

static enum err read_manifest(struct env *env, const char *dir, void **bytes,
                              size_t *size)
{
    char path[LIMIT_PATH];
    manifest_path(path, dir);
    return env_file_read_whole(env, path, LIMIT_MANIFEST_BYTES, bytes, size);
}

enum err manifest_read(struct env *env, const char *dir, struct segment **out,
                       size_t *n)
{
    struct segment_list list = {0};
    kafka_offset compacted;
    void *bytes;
    size_t size;
    enum err status = read_manifest(env, dir, &bytes, &size);
    if (status == ERR_OK) {
        (void)manifest_parse(bytes, size, (kafka_offset){INT64_MAX}, &list,
                             &compacted);
        mem_free(bytes);
        status = list.n == 0 ? ERR_NOT_FOUND : ERR_OK;
    }
    *out = list.segments;
    *n = list.n;
    return status;
}

enum err manifest_load(struct env *env, const char *dir, kafka_offset active,
                       struct segment **out, size_t *n, kafka_offset *compacted)
{
    struct segment_list list = {0};
    void *bytes;
    size_t size;
    enum err status = read_manifest(env, dir, &bytes, &size);
    bool good = false;
    if (status == ERR_OK) {
        good = manifest_parse(bytes, size, active, &list, compacted);
        mem_free(bytes);
    } else if (status != ERR_NOT_FOUND) {
        return status;
    }
    if (!good) {
        compacted->v = 0;
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
