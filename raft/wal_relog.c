/* Entries that hold the oldest file although nothing settles them (they do not
 * commit, or settling is stuck) are logged again in the newest file, from the
 * log buffer, which has all that is not settled.
 *
 * Which frames of a chunk are alive follows from its pins: of a group, those
 * within [first, upto] that are not settled; where an index was written twice
 * (truncated in between), the later one. */
#include <stdlib.h>

#include "base/assert.h"
#include "base/log.h"
#include "raft/wal_internal.h"

struct relog_entry {
    struct wal_group *group;
    uint64_t index;
    uint32_t at; /* frame in the chunk */
};
struct relog_list {
    struct relog_entry *v;
    size_t n, capacity;
};

/* What the chunk's pins say, where a frame can find it. */
static void pins_mark(struct log_chunk *chunk)
{
    for (uint32_t k = 0; k < chunk->pins.n; k++) {
        const struct wal_pin *pin = &chunk->pins.v[k];
        if (pin->group != NULL) {
            pin->group->marked_chunk = chunk->id;
            pin->group->marked_first = pin->first.v;
            pin->group->marked_upto = pin->upto.v;
        }
    }
}

static void file_mark(const struct wal_file *file)
{
    for (uint32_t k = 0; k < file->pins.n; k++) {
        const struct wal_pin *pin = &file->pins.v[k];
        if (pin->group != NULL) {
            pin->group->marked_file = file->generation;
            pin->group->file_first = pin->first.v;
            pin->group->file_upto = pin->upto.v;
        }
    }
}

static bool is_alive(const struct wal_group *group,
                     const struct log_chunk *chunk, const struct wal_file *file,
                     uint64_t index)
{
    return group != NULL && index > group->settled.v &&
           group->marked_chunk == chunk->id && index >= group->marked_first &&
           index <= group->marked_upto &&
           group->marked_file == file->generation &&
           index >= group->file_first && index <= group->file_upto;
}

static void list_add(struct relog_list *list, struct relog_entry entry)
{
    if (list->n == list->capacity) {
        list->capacity = list->capacity * 2 + 64;
        list->v = mem_realloc(list->v, list->capacity * sizeof *list->v);
    }
    list->v[list->n++] = entry;
}

static int by_entry(const void *a, const void *b)
{
    const struct relog_entry *x = a, *y = b;
    int c = memcmp(&x->group->id, &y->group->id, sizeof x->group->id);
    if (c != 0) {
        return c;
    }
    if (x->index != y->index) {
        return x->index < y->index ? -1 : 1;
    }
    return x->at < y->at ? -1 : x->at > y->at;
}

/* Entries of the chunk that hold the file, by group and index. */
static void chunk_alive(struct wal *wal, struct log_chunk *chunk,
                        const struct wal_file *file, struct relog_list *list)
{
    struct wal_frame frame;
    size_t n = 0;
    list->n = 0;
    pins_mark(chunk);
    for (uint32_t k = 0; k < chunk->n_runs; k++) {
        const struct log_run *run = &chunk->runs[k];
        for (uint32_t at = run->from;
             at < run->to && run->generation <= file->generation;) {
            uint32_t frame_at = at;
            at += (uint32_t)wal_frame_peek(chunk->data + at, &frame);
            struct wal_group *group = frame.type == WAL_FRAME_ENTRY
                                          ? wal_group_find(wal, &frame.group)
                                          : NULL;
            if (is_alive(group, chunk, file, frame.index)) {
                list_add(list,
                         (struct relog_entry){group, frame.index, frame_at});
            }
        }
    }
    if (list->n == 0) {
        return;
    }
    qsort(list->v, list->n, sizeof *list->v, by_entry);
    for (size_t k = 0; k < list->n; k++) {
        bool again = k + 1 < list->n &&
                     list->v[k].group == list->v[k + 1].group &&
                     list->v[k].index == list->v[k + 1].index;
        if (!again) {
            list->v[n++] = list->v[k];
        }
    }
    list->n = n;
}

static void relog_one(struct wal *wal, const struct log_chunk *chunk,
                      const struct relog_entry *entry)
{
    struct wal_frame frame;
    wal_frame_peek(chunk->data + entry->at, &frame);
    union {
        const void *in;
        void *out;
    } p = {frame.payload};
    struct iovec iov = {p.out, frame.size};
    wal->relogging = true;
    wal_append_frame(wal, &frame, &iov, 1, NULL);
    wal->relogging = false;
    wal_pin(entry->group, NULL, wal_file_current(wal),
            (log_index){entry->index});
}

/* Bytes of all that holds the file; logs it again if asked. */
static uint64_t relog_all(struct wal *wal, const struct wal_file *file,
                          bool append)
{
    struct relog_list list = {NULL, 0, 0};
    uint64_t bytes = 0, last = wal->buffer->newest->id;
    struct log_chunk *chunk = wal->buffer->oldest;
    file_mark(file);
    for (; chunk != NULL && chunk->id <= last; chunk = chunk->next) {
        chunk_alive(wal, chunk, file, &list);
        for (size_t k = 0; k < list.n; k++) {
            bytes += wal_frame_bytes(
                le_get32(chunk->data + list.v[k].at + WAL_FRAME_AT_SIZE));
            if (append) {
                relog_one(wal, chunk, &list.v[k]);
            }
        }
    }
    mem_free(list.v);
    return bytes;
}

void wal_relog(struct wal *wal)
{
    struct wal_file *oldest = wal->used[0];
    if (wal->n_used < 2 || wal->buffer->newest == NULL ||
        wal_file_is_settled(oldest)) {
        return;
    }
    /* It should fit into what is left of the newest file. What is not settled
     * is at most half a file (the buffer's bound), so this frees more than it
     * takes, if not in this file then in those behind it. */
    uint64_t limit = wal_file_limit(wal_file_current(wal));
    uint64_t end = wal_file_end(wal);
    uint64_t most = limit > end ? limit - end : 0;
    uint64_t bytes = relog_all(wal, oldest, false);
    if (wal_record_bytes(wal, bytes, 0) > most && !wal->relog_forced) {
        wal->over_asked = true;
        return;
    }
    log_debug("wal", "logging again what is not settled file=%u bytes=%llu",
              oldest->number, (unsigned long long)bytes);
    wal->bytes_relogged += bytes;
    relog_all(wal, oldest, true);
    wal_pins_clear(&oldest->pins);
}
