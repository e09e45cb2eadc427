/* What a group that does not settle (its entries do not commit, or settling is
 * stuck) holds: the oldest file, and chunks of the log buffer in which little
 * else is alive. Its entries are logged again in the newest file, and moved to
 * the newest chunk.
 *
 * Which frames of a chunk are alive follows from its pins: of a group, those
 * within [first, upto] that are not settled; where an index was written twice
 * (truncated in between), the later one. */
#include <stdlib.h>

#include "base/assert.h"
#include "base/log.h"
#include "raft/wal_internal.h"

/* A chunk is given up when at most this part of it is alive. */
#define MOVE_PART 4

struct relog_entry {
    struct wal_group *group;
    uint64_t index;
    uint32_t at; /* frame in the chunk */
    uint64_t generation;
};
struct relog_list {
    struct relog_entry *v;
    size_t n, capacity;
};

/* What the chunk's pins say, where a frame can find it. */
static void chunk_mark(struct wal *wal, const struct log_chunk *chunk)
{
    wal->mark++; /* older marks are void */
    for (uint32_t k = 0; k < chunk->pins.n; k++) {
        const struct wal_pin *pin = &chunk->pins.v[k];
        if (pin->group != NULL) {
            pin->group->marked = wal->mark;
            pin->group->marked_first = pin->first.v;
            pin->group->marked_upto = pin->upto.v;
        }
    }
}

static void file_mark(struct wal *wal, const struct wal_file *file)
{
    wal->file_mark++;
    for (uint32_t k = 0; k < file->pins.n; k++) {
        const struct wal_pin *pin = &file->pins.v[k];
        if (pin->group != NULL) {
            pin->group->file_marked = wal->file_mark;
            pin->group->file_first = pin->first.v;
            pin->group->file_upto = pin->upto.v;
        }
    }
}

static bool is_alive(const struct wal *wal, const struct wal_group *group,
                     const struct wal_file *file, uint64_t index)
{
    return group != NULL && index > group->settled.v &&
           group->marked == wal->mark && index >= group->marked_first &&
           index <= group->marked_upto &&
           (file == NULL ||
            (group->file_marked == wal->file_mark &&
             index >= group->file_first && index <= group->file_upto));
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

/* Entries of the chunk that are not settled and hold the file (NULL: any), by
 * group and index. */
static void chunk_alive(struct wal *wal, struct log_chunk *chunk,
                        const struct wal_file *file, struct relog_list *list)
{
    struct wal_frame frame;
    uint64_t newest = file != NULL ? file->generation : LOG_RUN_COPIES - 1;
    size_t n = 0;
    list->n = 0;
    chunk_mark(wal, chunk);
    for (uint32_t k = 0; k < chunk->n_runs; k++) {
        const struct log_run *run = &chunk->runs[k];
        for (uint32_t at = run->from;
             at < run->to && run->generation <= newest;) {
            uint32_t frame_at = at;
            at += (uint32_t)wal_frame_peek(chunk->data + at, &frame);
            struct wal_group *group = frame.type == WAL_FRAME_ENTRY
                                          ? wal_group_find(wal, &frame.group)
                                          : NULL;
            if (is_alive(wal, group, file, frame.index)) {
                list_add(list, (struct relog_entry){group, frame.index,
                                                    frame_at, run->generation});
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

static uint64_t list_bytes(const struct log_chunk *chunk,
                           const struct relog_list *list)
{
    uint64_t bytes = 0;
    for (size_t k = 0; k < list->n; k++) {
        bytes += wal_frame_bytes(
            le_get32(chunk->data + list->v[k].at + WAL_FRAME_AT_SIZE));
    }
    return bytes;
}

/* Bytes of all that holds the file; logs it again if asked. */
static uint64_t relog_all(struct wal *wal, const struct wal_file *file,
                          bool append)
{
    struct relog_list list = {NULL, 0, 0};
    uint64_t bytes = 0, last = wal->buffer->newest->id;
    struct log_chunk *chunk = wal->buffer->oldest;
    file_mark(wal, file);
    for (; chunk != NULL && chunk->id <= last; chunk = chunk->next) {
        chunk_alive(wal, chunk, file, &list);
        bytes += list_bytes(chunk, &list);
        for (size_t k = 0; k < list.n && append; k++) {
            relog_one(wal, chunk, &list.v[k]);
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
     * is at most a quarter of the log (the buffer's bound), so this frees more
     * than it takes, if not in this file then in those behind it. */
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

/* ---- within the log buffer ----------------------------------------------- */
/* Copies a frame behind what the newest chunk holds; no flush is open. */
static void move_one(struct wal *wal, const struct log_chunk *from,
                     const struct relog_entry *entry)
{
    struct wal_frame frame;
    uint64_t length = wal_frame_peek(from->data + entry->at, &frame);
    struct log_chunk *to = wal->buffer->newest;
    if (to->size - to->fill < length) {
        to = log_buffer_add(wal->buffer, length);
    }
    uint32_t at = to->fill;
    memcpy(to->data + at, from->data + entry->at, length);
    to->fill += (uint32_t)length;
    log_chunk_run(to, at, entry->generation)->to = to->fill;
    wal_pin(entry->group, to, NULL, (log_index){entry->index});
    log_chunk_ref(to);
    struct wal_place place = {.payload = to->data + at + WAL_FRAME_HEADER,
                              .size = frame.size,
                              .crc = frame.payload_crc,
                              .chunk = to};
    struct group_id id = entry->group->id;
    wal->entries_moved++;
    wal->ops.moved(wal->arg, &id, (log_index){entry->index}, &place);
}

/* The next chunk worth looking at: something in it is settled. */
static struct log_chunk *move_candidate(struct wal *wal)
{
    struct log_chunk *chunk = wal->buffer->oldest;
    for (; chunk != wal->buffer->newest; chunk = chunk->next) {
        uint32_t held = 0;
        for (uint32_t k = 0; k < chunk->pins.n; k++) {
            const struct wal_pin *pin = &chunk->pins.v[k];
            held += pin->group != NULL && pin->group->settled.v < pin->upto.v;
        }
        if (chunk->id > wal->moved_from && held > 0 && held < chunk->pins.n) {
            return chunk;
        }
    }
    return NULL;
}

void wal_move(struct wal *wal)
{
    struct relog_list list = {NULL, 0, 0};
    if (wal->ops.moved == NULL || wal->buffer->newest == NULL) {
        return;
    }
    struct log_chunk *chunk = move_candidate(wal);
    if (chunk == NULL) {
        wal->moved_from = 0;
        return;
    }
    wal->moved_from = chunk->id;
    chunk_alive(wal, chunk, NULL, &list);
    if (list_bytes(chunk, &list) <= chunk->size / MOVE_PART) {
        wal_open_end(wal);
        log_chunk_ref(chunk); /* while its entries let go of it */
        for (size_t k = 0; k < list.n; k++) {
            move_one(wal, chunk, &list.v[k]);
        }
        for (uint32_t k = 0; k < chunk->pins.n; k++) {
            struct wal_pin *pin = &chunk->pins.v[k];
            if (pin->group != NULL && pin->group->settled.v < pin->upto.v) {
                pin->group = NULL;
            }
        }
        log_chunk_unref(chunk);
        wal->evict_due = true;
        wal_room_changed(wal);
    }
    mem_free(list.v);
}
