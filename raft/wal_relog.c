/* Entries that hold the oldest file although nothing settles them (they do not
 * commit, or settling is stuck) are logged again in the newest file, from the
 * log buffer, which has all that is not settled. */
#include "base/assert.h"
#include "base/log.h"
#include "raft/wal_internal.h"

/* A truncation (or deletion, first = 0) that comes later than `order`. */
struct relog_cut {
    struct group_id group;
    uint64_t first;
    uint64_t order;
};
struct relog {
    struct wal *wal;
    uint64_t generation; /* of the file to be freed */
    struct relog_cut *cuts;
    uint32_t n_cuts;
    uint64_t bytes;
    bool append;
};

typedef void (*relog_visit)(struct relog *relog, const struct log_run *run,
                            const struct wal_frame *frame, uint64_t order);

/* Visits the frames in the buffer that were there when it began, in the order
 * of the log. Appending meanwhile is fine. */
static void relog_walk(struct relog *relog, relog_visit visit)
{
    uint64_t order = 0;
    uint64_t last_id = relog->wal->buffer->newest->id;
    uint32_t last_fill = relog->wal->buffer->newest->fill;
    struct log_chunk *chunk = relog->wal->buffer->oldest;
    for (; chunk != NULL && chunk->id <= last_id; chunk = chunk->next) {
        uint32_t end = chunk->id == last_id ? last_fill : chunk->fill;
        for (uint32_t k = 0; k < chunk->n_runs; k++) {
            struct log_run run = chunk->runs[k];
            for (uint32_t at = run.from; at < run.to && at < end;) {
                struct wal_frame frame;
                at += (uint32_t)wal_frame_peek(chunk->data + at, &frame);
                visit(relog, &run, &frame, order++);
            }
        }
    }
}

static void visit_cut(struct relog *relog, const struct log_run *run,
                      const struct wal_frame *frame, uint64_t order)
{
    (void)run;
    if (frame->type != WAL_FRAME_TRUNCATE && frame->type != WAL_FRAME_DELETE) {
        return;
    }
    size_t n = relog->n_cuts + (size_t)1;
    relog->cuts = mem_realloc(relog->cuts, n * sizeof *relog->cuts);
    relog->cuts[relog->n_cuts++] = (struct relog_cut){
        frame->group, frame->type == WAL_FRAME_DELETE ? 0 : frame->index,
        order};
}

static bool is_cut(const struct relog *relog, const struct wal_frame *frame,
                   uint64_t order)
{
    for (uint32_t k = 0; k < relog->n_cuts; k++) {
        const struct relog_cut *cut = &relog->cuts[k];
        if (cut->order > order && cut->first <= frame->index &&
            memcmp(&cut->group, &frame->group, sizeof cut->group) == 0) {
            return true;
        }
    }
    return false;
}

static void visit_entry(struct relog *relog, const struct log_run *run,
                        const struct wal_frame *frame, uint64_t order)
{
    struct wal *wal = relog->wal;
    if (frame->type != WAL_FRAME_ENTRY || run->generation > relog->generation) {
        return; /* of a newer file, or a copy */
    }
    struct wal_group *group = wal_group_find(wal, &frame->group);
    if (group == NULL || frame->index <= group->settled.v ||
        is_cut(relog, frame, order)) {
        return;
    }
    relog->bytes += wal_frame_bytes(frame->size);
    if (relog->append) {
        union {
            const void *in;
            void *out;
        } p = {frame->payload};
        struct iovec iov = {p.out, frame->size};
        wal->relogging = true;
        wal_append_frame(wal, frame, &iov, 1, NULL);
        wal->relogging = false;
        wal_pin(group, NULL, wal_file_current(wal), (log_index){frame->index});
    }
}

void wal_relog(struct wal *wal)
{
    struct wal_file *oldest = wal->used[0];
    if (wal->n_used < 2 || wal->buffer->newest == NULL ||
        wal_file_is_settled(oldest)) {
        return;
    }
    struct relog relog = {.wal = wal, .generation = oldest->generation};
    uint64_t most = wal->options.file_bytes / 2;
    relog_walk(&relog, visit_cut);
    relog_walk(&relog, visit_entry);
    if (relog.bytes <= most) {
        log_info("wal", "logging again what is not settled file=%u bytes=%llu",
                 oldest->number, (unsigned long long)relog.bytes);
        wal->bytes_relogged += relog.bytes;
        relog.append = true;
        relog_walk(&relog, visit_entry);
        wal_pins_clear(&oldest->pins);
    } else {
        wal->over_asked = true;
    }
    mem_free(relog.cuts);
}
