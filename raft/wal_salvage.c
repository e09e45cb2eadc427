#include "raft/wal_salvage.h"

#include "base/assert.h"

/* So many frames in a row may have lost their headers. */
#define SKIP_MAX 16
/* A longer frame is an entry or a configuration: no term, vote, creation. */
#define STATE_BYTES_MAX \
    (WAL_FRAME_HEADER + (WAL_CREATE_BYTES_MAX + WAL_FRAME_ALIGN - 1))

static uint64_t generation_of(const struct salvage *s)
{
    return s->file->generation;
}

/* A frame's own words at `at`, true for this position. */
static bool frame_at(const struct salvage *s, uint64_t at, uint64_t position,
                     struct wal_frame *out)
{
    return s->size - at >= WAL_FRAME_HEADER &&
           wal_frame_head_read(s->data + at, generation_of(s), position, out) &&
           wal_frame_bytes(out->size) <= s->size - at;
}

static bool all_zero(const uint8_t *p, uint64_t size)
{
    for (uint64_t k = 0; k < size; k++) {
        if (p[k] != 0) {
            return false;
        }
    }
    return true;
}

/* Records [position, position + n) are gone; together they took `bytes`, 0: not
 * known. */
static void lose(struct salvage *s, uint64_t position, uint64_t n,
                 uint64_t bytes)
{
    s->unknown += n;
    if (s->replay != NULL && n > 0) {
        s->replay->unknown += n;
        if (n > 1 || bytes <= STATE_BYTES_MAX) {
            s->replay->unknown_position = position + n - 1;
        }
    }
}

/* The length of a frame that was between the two; 0 when that is not known,
 * because a flush ends between them. */
static uint64_t gap_bytes(uint64_t from, uint64_t to)
{
    if (to % WAL_BLOCK == WAL_FLUSH_HEADER) {
        return 0;
    }
    return from % WAL_BLOCK == 0 ? to - from - WAL_FLUSH_HEADER : to - from;
}

/* Looks for the next frame whose words are good from `*at` on: the expected
 * one behind a flush's padding and header, or one of the next behind frames
 * that are gone. */
static bool resync(struct salvage *s, uint64_t *at)
{
    struct wal_frame frame;
    for (uint64_t to = *at; to + WAL_FRAME_HEADER <= s->size;
         to += WAL_FRAME_ALIGN) {
        for (uint64_t k = 0; k <= SKIP_MAX; k++) {
            if (frame_at(s, to, s->position + k, &frame)) {
                lose(s, s->position, k, gap_bytes(*at, to));
                *at = to;
                s->position += k;
                return true;
            }
        }
    }
    return false;
}

/* The process was started again in between: positions went on at a multiple of
 * the step, or where the flush before the next valid one begins. */
static bool resync_later(struct salvage *s, uint64_t *at)
{
    uint64_t was = s->position, from = *at;
    const uint64_t tries[] = {(was / WAL_POSITION_STEP + 1) * WAL_POSITION_STEP,
                              s->next->prev_position};
    for (size_t k = 0; k < sizeof tries / sizeof tries[0]; k++) {
        if (tries[k] <= was || tries[k] >= s->next->position) {
            continue;
        }
        s->position = tries[k];
        if (resync(s, at)) {
            return true;
        }
        s->position = was;
        *at = from;
    }
    return false;
}

static enum err take_frame(struct salvage *s, const struct wal_frame *frame,
                           const uint8_t *bytes, uint64_t position)
{
    struct wal_frame whole;
    bool good = wal_frame_read(bytes, wal_frame_bytes(frame->size),
                               generation_of(s), position, &whole) != 0;
    s->kept += good;
    s->faulty += !good;
    if (s->replay == NULL) {
        return ERR_OK;
    }
    return good ? replay_frame(s->replay, s->file, &whole, bytes, position)
                : replay_faulty(s->replay, s->file, frame, position);
}

enum err wal_salvage(struct salvage *s)
{
    uint64_t at = 0;
    enum err e = ERR_OK;
    if (s->position == 0) {
        s->position = s->next->prev_position;
    }
    while (e == ERR_OK && (resync(s, &at) || resync_later(s, &at))) {
        struct wal_frame frame;
        bool found = frame_at(s, at, s->position, &frame);
        ASSERT(found);
        e = take_frame(s, &frame, s->data + at, s->position);
        at += wal_frame_bytes(frame.size);
        s->position++;
    }
    if (s->next->position % WAL_POSITION_STEP != 0) {
        if (s->next->position > s->position) {
            lose(s, s->position, s->next->position - s->position, 0);
        }
    } else if (!all_zero(s->data + at, s->size - at)) {
        lose(s, s->position, 1, 0);
    }
    return e;
}
