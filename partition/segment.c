#include "partition/segment.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/mem.h"
#include "partition/bytes.h"
#include "partition/tail.h"

void segment_path(char *path, const char *dir, int64_t number,
                  const char *suffix)
{
    int n =
        snprintf(path, LIMIT_PATH, "%s/%020" PRId64 ".%s", dir, number, suffix);
    ASSERT(n > 0 && n < LIMIT_PATH);
}

void segment_file(char *path, const char *dir, const struct segment *segment,
                  const char *suffix)
{
    char with[SEGMENT_SUFFIX_MAX + 16];
    if (segment->generation == 0) {
        segment_path(path, dir, segment->base.v, suffix);
        return;
    }
    snprintf(with, sizeof with, "%" PRIu32 ".%s", segment->generation, suffix);
    segment_path(path, dir, segment->base.v, with);
}

bool segment_name_parse(const char *name, int64_t *number, uint32_t *generation,
                        char suffix[SEGMENT_SUFFIX_MAX])
{
    int end = 0;
    *generation = 0;
    if (sscanf(name, "%20" SCNd64 ".%" SCNu32 ".%15[a-z]%n", number, generation,
               suffix, &end) == 3) {
        return *generation > 0 && name[end] == '\0';
    }
    *generation = 0;
    return sscanf(name, "%20" SCNd64 ".%15[a-z]%n", number, suffix, &end) ==
               2 &&
           name[end] == '\0';
}

static enum err open_file(struct env *env, const char *dir, kafka_offset base,
                          const char *suffix, int flags, struct env_file **out)
{
    char path[LIMIT_PATH];
    segment_path(path, dir, base.v, suffix);
    return env_file_open(env, path, flags, out);
}

/* ---- settling ------------------------------------------------------------ */
/* Batches go past the page cache, in whole blocks gathered in `stage`: its
 * first bytes are those of the last block that are settled already, its last
 * block is filled up with zeros. Slots are small: they go through it. */
struct writer {
    struct settle *s;
    struct env_file *log, *side;
    uint8_t *stage;
    size_t fill;        /* bytes in it */
    size_t written;     /* of them in the file already */
    uint64_t log_from;  /* position of stage[0], a block's */
    uint64_t side_from; /* slot of slots[0] */
    struct buffer slots;
};

/* Slots gathered until they are written. */
#define WRITER_SLOTS_BYTES ((size_t)64 << 10)

/* Writes the stage; what fills no block stays in it, at its beginning. */
static enum err writer_flush_log(struct writer *w)
{
    size_t rest = w->fill % ENV_BLOCK_SIZE;
    size_t whole = w->fill - rest;
    struct iovec iov = {w->stage, whole + (rest > 0 ? ENV_BLOCK_SIZE : 0)};
    enum err status = ERR_OK;
    if (w->fill == w->written) {
        return ERR_OK;
    }
    memset(w->stage + w->fill, 0, iov.iov_len - w->fill);
    status = env_file_pwritev(w->log, &iov, 1, w->log_from, false);
    if (whole > 0) {
        memcpy(w->stage, w->stage + whole, rest);
    }
    w->log_from += whole;
    w->fill = w->written = rest;
    return status;
}

static enum err writer_put(struct writer *w, const uint8_t *data, size_t size)
{
    enum err status = ERR_OK;
    while (size > 0 && status == ERR_OK) {
        size_t room = SETTLE_SCRATCH - w->fill;
        size_t n = size < room ? size : room;
        memcpy(w->stage + w->fill, data, n);
        w->fill += n;
        data += n;
        size -= n;
        if (w->fill == SETTLE_SCRATCH) {
            status = writer_flush_log(w);
        }
    }
    return status;
}

static enum err writer_flush_side(struct writer *w)
{
    enum err status = ERR_OK;
    if (w->slots.size > 0) {
        struct iovec iov = {w->slots.data, w->slots.size};
        status = env_file_pwritev(w->side, &iov, 1, side_offset(w->side_from),
                                  false);
    }
    w->side_from = w->s->to.slots;
    buffer_clear(&w->slots);
    return status;
}

static enum err writer_flush(struct writer *w)
{
    enum err status = writer_flush_log(w);
    return status == ERR_OK ? writer_flush_side(w) : status;
}

static uint8_t *writer_slot(struct writer *w)
{
    uint8_t *slot = buffer_reserve(&w->slots, SIDE_SLOT);
    buffer_added(&w->slots, SIDE_SLOT);
    w->s->to.slots++;
    return slot;
}

/* An earlier try may have left more behind; a closed segment ends where it
 * ends. */
static enum err cut_file(struct env_file *file, uint64_t size)
{
    uint64_t now;
    enum err status = env_file_size(file, &now);
    if (status == ERR_OK && now > size) {
        status = env_file_truncate(file, size);
    }
    return status;
}

/* Closes the active segment: its bytes become durable here, since the host
 * syncs the last one only. */
static enum err writer_close_segment(struct writer *w)
{
    struct settle *s = w->s;
    enum err status = writer_flush(w);
    if (status == ERR_OK) {
        status = cut_file(w->log, s->to.position);
    }
    if (status == ERR_OK) {
        status = cut_file(w->side, side_offset(s->to.slots));
    }
    if (status == ERR_OK) {
        status = env_file_sync(w->log);
    }
    if (status == ERR_OK) {
        status = env_file_sync(w->side);
    }
    if (status != ERR_OK) {
        return status;
    }
    s->closed[s->n_closed++] =
        (struct segment){.base = s->to.base,
                         .end = s->to.next,
                         .bytes = s->to.position,
                         .slots = s->to.slots,
                         .max_timestamp = s->to.running_max};
    if (w->log == s->new_log) {
        env_file_close(s->new_log);
        env_file_close(s->new_side);
        s->new_log = s->new_side = NULL;
    }
    return ERR_OK;
}

static enum err writer_begin_segment(struct writer *w,
                                     const struct settle_entry *e)
{
    struct settle *s = w->s;
    int flags = ENV_FILE_READ | ENV_FILE_WRITE | ENV_FILE_CREATE;
    s->to.base = s->to.next;
    s->to.position = 0;
    s->to.slots = 0;
    s->to.running_max = -1;
    s->to.first_timestamp = -1;
    s->created = true;
    enum err status = open_file(s->env, s->dir, s->to.base, "log",
                                flags | ENV_FILE_DIRECT, &s->new_log);
    if (status == ERR_OK) {
        status =
            open_file(s->env, s->dir, s->to.base, "side", flags, &s->new_side);
    }
    if (status != ERR_OK) {
        return status;
    }
    w->log = s->new_log;
    w->side = s->new_side;
    w->log_from = 0;
    w->fill = w->written = 0;
    w->side_from = 1;
    struct side_head head = {s->to.base, e->index, s->group, s->to.chain, 0};
    uint8_t slot[SIDE_SLOT];
    struct iovec iov = {slot, sizeof slot};
    side_head_write(&head, slot);
    s->to.slots = 1;
    return env_file_pwritev(s->new_side, &iov, 1, 0, false);
}

/* Opens the active segment's files if the cache did not have them, and fetches
 * the beginning of the block that is gone on with. */
static enum err writer_resume(struct writer *w)
{
    struct settle *s = w->s;
    enum err status = ERR_OK;
    int flags = ENV_FILE_READ | ENV_FILE_WRITE;
    if (s->log.file == NULL) {
        status = open_file(s->env, s->dir, s->from.base, "log",
                           flags | ENV_FILE_DIRECT, &s->log.file);
    }
    if (status == ERR_OK && s->side.file == NULL) {
        status = open_file(s->env, s->dir, s->from.base, "side", flags,
                           &s->side.file);
    }
    w->log = s->log.file;
    w->side = s->side.file;
    w->fill = w->written = s->from.position % ENV_BLOCK_SIZE;
    w->log_from = s->from.position - w->fill;
    w->side_from = s->from.slots;
    if (status == ERR_OK) {
        status = tail_load(w->log, w->side, &s->from, w->stage);
    }
    return status;
}

static void entry_describe_batch(const struct settle_entry *e,
                                 struct side_entry *out)
{
    struct batch_header h;
    /* It was read when it was appended. */
    ASSERT(batch_header_read(e->payload, e->size, &h) == ERR_OK);
    out->base_offset = h.base_offset;
    out->head_crc = crc32c(0, e->payload, BATCH_CRC_FROM);
    out->producer_id = h.producer_id;
    out->producer_epoch = h.producer_epoch;
    out->attributes = h.attributes;
    out->base_sequence = h.base_sequence;
    out->last_offset_delta = h.last_offset_delta;
    out->record_count = h.record_count;
    out->max_timestamp = h.max_timestamp;
}

static void writer_continue(struct writer *w, const struct settle_entry *e)
{
    uint32_t back = 1;
    for (uint32_t at = 0; at < e->size; back++) {
        uint32_t n = e->size - at;
        n = n < SIDE_CONTINUATION_BYTES ? n : SIDE_CONTINUATION_BYTES;
        side_continuation_write(e->payload + at, n, back, writer_slot(w));
        at += n;
    }
}

static enum err writer_add(struct writer *w, const struct settle_entry *e)
{
    struct log_state *to = &w->s->to;
    enum err status = ERR_OK;
    struct side_entry out = {
        .type = e->type,
        .size = e->size,
        .index = e->index,
        .term = e->term,
        .base_offset = to->next,
        .position = to->position,
        .payload_crc = e->crc,
        .producer_id = -1,
        .producer_epoch = -1,
        .base_sequence = -1,
        .last_offset_delta = -1,
        .max_timestamp = -1,
    };
    ASSERT(e->index.v == to->index.v + 1);
    to->chain =
        side_chain(to->chain, e->index, e->term, e->type, e->size, e->crc);
    out.chain = to->chain;
    if (e->type == ENTRY_DATA) {
        entry_describe_batch(e, &out);
        ASSERT(out.base_offset.v == to->next.v);
        if (to->position == 0) {
            to->first_timestamp = out.max_timestamp;
        }
        if (out.max_timestamp > to->running_max) {
            to->running_max = out.max_timestamp;
        }
        status = writer_put(w, e->payload, e->size);
        to->position += e->size;
        to->bytes += e->size;
        to->next.v = side_last_offset(&out).v + 1;
    }
    out.running_max = to->running_max;
    side_entry_write(&out, writer_slot(w));
    if (e->type != ENTRY_DATA) {
        writer_continue(w, e);
    }
    to->index = e->index;
    if (status == ERR_OK && w->slots.size >= WRITER_SLOTS_BYTES) {
        status = writer_flush_side(w);
    }
    return status;
}

static enum err settle_entries(struct writer *w)
{
    struct settle *s = w->s;
    enum err status = ERR_OK;
    if (s->from.slots == 0) {
        status = writer_begin_segment(w, &s->entries[0]);
    } else {
        status = writer_resume(w);
    }
    for (size_t i = 0; i < s->n_entries && status == ERR_OK; i++) {
        if (s->entries[i].roll) {
            status = writer_close_segment(w);
            if (status == ERR_OK) {
                status = writer_begin_segment(w, &s->entries[i]);
            }
        }
        if (status == ERR_OK) {
            status = writer_add(w, &s->entries[i]);
        }
    }
    return status == ERR_OK ? writer_flush(w) : status;
}

static enum err settle_snapshot(struct settle *s)
{
    char path[LIMIT_PATH];
    if (!s->snapshot_due) {
        return ERR_OK;
    }
    s->to.snapshot_slot = s->to.slots;
    s->to.snapshot_index.v = 0;
    s->to.snapshot_bytes = s->snapshot.size;
    if (s->snapshot.size == 0) {
        return ERR_OK;
    }
    s->to.snapshot_index = s->to.index;
    segment_path(path, s->dir, (int64_t)s->to.index.v, "producers");
    return env_file_write_whole(s->env, path, s->snapshot.data,
                                s->snapshot.size);
}

enum err settle_write(struct settle *s)
{
    struct writer *w = mem_zalloc(sizeof *w);
    enum err status = ERR_OK;
    ASSERT(s->n_entries > 0);
    w->s = s;
    w->stage = s->scratch;
    s->to = s->from;
    s->to.tail_area = !s->from.tail_area;
    s->n_closed = s->n_closed_before;
    if (s->make_dir) {
        status = env_dir_make(s->env, s->dir);
    }
    if (status == ERR_OK) {
        status = settle_entries(w);
    }
    if (status == ERR_OK) {
        ASSERT(w->fill == s->to.position % ENV_BLOCK_SIZE);
        status = tail_save(w->side, &s->to, w->stage);
    }
    if (status == ERR_OK && s->n_closed > s->n_closed_before) {
        status = manifest_write(s->env, s->dir, s->closed, s->n_closed,
                                s->compacted);
    }
    if (status == ERR_OK) {
        status = settle_snapshot(s);
    }
    if (status != ERR_OK && s->new_log != NULL) {
        env_file_close(s->new_log);
        s->new_log = NULL;
    }
    if (status != ERR_OK && s->new_side != NULL) {
        env_file_close(s->new_side);
        s->new_side = NULL;
    }
    buffer_free(&w->slots);
    mem_free(w);
    return status;
}

/* ---- reading ------------------------------------------------------------- */
enum err segment_view_open(struct segment_view *v, bool need_log)
{
    enum err status = ERR_OK;
    int flags = ENV_FILE_READ | ENV_FILE_WRITE;
    char path[LIMIT_PATH];
    if (v->side.file == NULL) {
        segment_file(path, v->dir, &v->segment, "side");
        status = env_file_open(v->env, path, flags, &v->side.file);
    }
    if (status == ERR_OK && need_log && v->log.file == NULL) {
        flags |= v->past_cache ? ENV_FILE_DIRECT : 0;
        segment_file(path, v->dir, &v->segment, "log");
        status = env_file_open(v->env, path, flags, &v->log.file);
    }
    /* Files that a checkpoint names and that are gone are damage. */
    return status == ERR_NOT_FOUND ? ERR_CORRUPT : status;
}

static enum err read_whole(struct env_file *file, void *to, size_t size,
                           uint64_t at)
{
    size_t got;
    enum err status = env_file_pread(file, to, size, at, &got);
    if (status == ERR_OK && got < size) {
        status = ERR_CORRUPT;
    }
    return status;
}

void segment_view_close(struct segment_view *v)
{
    if (v->log.file != NULL) {
        env_file_close(v->log.file);
        v->log.file = NULL;
    }
    if (v->side.file != NULL) {
        env_file_close(v->side.file);
        v->side.file = NULL;
    }
}

/* The entry that slot `*slot` belongs to; moves *slot to its first slot. */
static enum err read_entry(struct segment_view *v, uint64_t *slot,
                           struct side_entry *out)
{
    uint8_t bytes[SIDE_SLOT];
    const uint8_t *data;
    uint32_t size, back;
    enum err status =
        read_whole(v->side.file, bytes, SIDE_SLOT, side_offset(*slot));
    if (status == ERR_OK && bytes[0] == SIDE_CONTINUATION) {
        status = side_continuation_read(bytes, &data, &size, &back);
        if (status == ERR_OK && back >= *slot) {
            status = ERR_CORRUPT;
        }
        if (status == ERR_OK) {
            *slot -= back;
            status =
                read_whole(v->side.file, bytes, SIDE_SLOT, side_offset(*slot));
        }
    }
    return status == ERR_OK ? side_entry_read(bytes, out) : status;
}

/* Bisection over [from, slots): the first entry for which `reached` holds,
 * which holds for all entries behind it too. */
static enum err bisect(struct segment_view *v, uint64_t from,
                       bool (*reached)(const struct side_entry *e, int64_t key),
                       int64_t key, uint64_t *slot, struct side_entry *out)
{
    uint64_t low = from, high = v->segment.slots;
    bool found = false;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        struct side_entry e;
        enum err status = read_entry(v, &middle, &e);
        if (status != ERR_OK) {
            return status;
        }
        if (reached(&e, key)) {
            found = true;
            *slot = middle;
            *out = e;
            high = middle;
        } else {
            low = middle + side_slots(e.type, e.size);
        }
    }
    return found ? ERR_OK : ERR_NOT_FOUND;
}

enum err segment_find_index(struct segment_view *v, log_index index,
                            uint64_t *slot, struct side_entry *out)
{
    uint64_t low = 1, high = v->segment.slots;
    bool found = false;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2, end = middle;
        struct side_entry e;
        enum err status = read_entry(v, &middle, &e);
        if (status == ERR_CORRUPT) {
            high = end; /* behind what was written whole */
        } else if (status != ERR_OK) {
            return status;
        } else if (e.index.v >= index.v) {
            found = e.index.v == index.v;
            *slot = middle;
            *out = e;
            high = middle;
        } else {
            low = middle + side_slots(e.type, e.size);
        }
    }
    return found ? ERR_OK : ERR_NOT_FOUND;
}

enum err segment_read_head(struct segment_view *v, struct side_head *out)
{
    uint8_t slot[SIDE_SLOT];
    enum err status = read_whole(v->side.file, slot, SIDE_SLOT, 0);
    if (status == ERR_OK) {
        status = side_head_read(slot, out);
    }
    if (status == ERR_OK && out->base.v != v->segment.base.v) {
        status = ERR_CORRUPT;
    }
    return status;
}

static bool reached_offset(const struct side_entry *e, int64_t offset)
{
    /* No batch: base offset is the next one, so its predecessor counts. */
    return side_last_offset(e).v >= offset;
}

static bool reached_timestamp(const struct side_entry *e, int64_t timestamp)
{
    return e->running_max >= timestamp;
}

/* From the entry found on, the first one that is a batch and, with `timestamp`
 * >= 0, is itself that young. */
static enum err skip_to_batch(struct segment_view *v, int64_t timestamp,
                              uint64_t *slot, struct side_entry *out)
{
    struct side_cursor c = {.next = *slot};
    enum err status;
    do {
        status = side_cursor_next(v, &c, out);
        *slot = c.next - side_slots(out->type, out->size);
    } while (status == ERR_OK &&
             (out->type != ENTRY_DATA || out->max_timestamp < timestamp));
    side_cursor_free(&c);
    return status;
}

enum err segment_find_offset(struct segment_view *v, kafka_offset offset,
                             uint64_t *slot, struct side_entry *out)
{
    enum err status = bisect(v, 1, reached_offset, offset.v, slot, out);
    if (status == ERR_OK && out->type != ENTRY_DATA) {
        status = skip_to_batch(v, INT64_MIN, slot, out);
    }
    return status;
}

enum err segment_find_timestamp(struct segment_view *v, uint64_t from,
                                int64_t timestamp, uint64_t *slot,
                                struct side_entry *out)
{
    enum err status = bisect(v, from, reached_timestamp, timestamp, slot, out);
    if (status == ERR_OK &&
        (out->type != ENTRY_DATA || out->max_timestamp < timestamp)) {
        status = skip_to_batch(v, timestamp, slot, out);
    }
    return status;
}

/* Slots read ahead at a time. */
#define CURSOR_SLOTS 256

static enum err cursor_fill(struct segment_view *v, struct side_cursor *c)
{
    uint64_t n = v->segment.slots - c->next;
    if (c->slots == NULL) {
        c->slots = mem_alloc((size_t)CURSOR_SLOTS * SIDE_SLOT);
    }
    c->from = c->next;
    c->count = n < CURSOR_SLOTS ? n : CURSOR_SLOTS;
    return read_whole(v->side.file, c->slots, (size_t)c->count * SIDE_SLOT,
                      side_offset(c->from));
}

enum err side_cursor_next(struct segment_view *v, struct side_cursor *c,
                          struct side_entry *out)
{
    enum err status = ERR_OK;
    if (c->next == 0) {
        c->next = 1;
    }
    if (c->next >= v->segment.slots) {
        return ERR_NOT_FOUND;
    }
    if (c->next < c->from || c->next >= c->from + c->count) {
        status = cursor_fill(v, c);
    }
    if (status == ERR_OK) {
        status =
            side_entry_read(c->slots + (c->next - c->from) * SIDE_SLOT, out);
    }
    if (status == ERR_OK) {
        c->next += side_slots(out->type, out->size);
    }
    return status;
}

void side_cursor_free(struct side_cursor *c)
{
    mem_free(c->slots);
    c->slots = NULL;
    c->count = 0;
}

/* Batches that one read checks; more are read by the next fetch. */
#define READ_BATCHES 4096

struct read_plan {
    uint32_t n;
    uint64_t from, bytes;
    uint32_t capacity;
    struct side_entry *entries;
};

static void plan_add(struct read_plan *plan, const struct side_entry *e)
{
    if (plan->n == plan->capacity) {
        plan->capacity = plan->capacity == 0 ? 64 : plan->capacity * 2;
        plan->entries =
            mem_realloc(plan->entries, plan->capacity * sizeof *plan->entries);
    }
    plan->entries[plan->n++] = *e;
    plan->bytes += e->size;
}

static enum err plan_make(struct segment_view *v, uint64_t slot,
                          size_t max_bytes, bool at_least_one,
                          struct read_plan *plan)
{
    struct side_cursor c = {.next = slot};
    struct side_entry e;
    enum err status = ERR_OK;
    while (plan->n < READ_BATCHES) {
        status = side_cursor_next(v, &c, &e);
        if (status != ERR_OK) {
            break;
        }
        if (e.type != ENTRY_DATA) {
            continue;
        }
        if (plan->n == 0) {
            plan->from = e.position;
        }
        if (plan->bytes + e.size > max_bytes &&
            !(at_least_one && plan->n == 0)) {
            break;
        }
        if (e.position != plan->from + plan->bytes ||
            e.position + e.size > v->segment.bytes ||
            e.size < BATCH_HEADER_SIZE) {
            status = ERR_CORRUPT;
            break;
        }
        plan_add(plan, &e);
    }
    side_cursor_free(&c);
    return plan->n > 0 || status == ERR_NOT_FOUND ? ERR_OK : status;
}

bool segment_batch_is(const uint8_t *batch, const struct side_entry *e)
{
    return crc32c(0, batch, BATCH_CRC_FROM) == e->head_crc &&
           batch_is_whole(batch, e->size) && get_i64(batch) == e->base_offset.v;
}

/* Whole blocks around what is wanted; *data is inside. */
static enum err read_blocks(struct env_file *file, const struct read_plan *plan,
                            uint8_t **memory, uint8_t **data)
{
    uint64_t before = plan->from % ENV_BLOCK_SIZE,
             wanted = before + plan->bytes;
    uint64_t blocks = (wanted + ENV_BLOCK_SIZE - 1) / ENV_BLOCK_SIZE;
    size_t got;
    *memory = mem_alloc((blocks + 1) * ENV_BLOCK_SIZE);
    uintptr_t odd = (uintptr_t)*memory % ENV_BLOCK_SIZE;
    uint8_t *block = *memory + (odd == 0 ? 0 : ENV_BLOCK_SIZE - odd);
    enum err status = env_file_pread(file, block, blocks * ENV_BLOCK_SIZE,
                                     plan->from - before, &got);
    *data = block + before;
    return status == ERR_OK && got < wanted ? ERR_CORRUPT : status;
}

/* How many bytes of what was read are the batches of the plan. */
static enum err check_batches(const struct read_plan *plan, const uint8_t *data,
                              size_t *size, kafka_offset *bad)
{
    for (uint32_t i = 0; i < plan->n; i++) {
        if (!segment_batch_is(data + *size, &plan->entries[i])) {
            *bad = plan->entries[i].base_offset;
            return i == 0 ? ERR_CORRUPT : ERR_OK;
        }
        *size += plan->entries[i].size;
    }
    return ERR_OK;
}

static enum err read_batches(struct segment_view *v, uint64_t slot,
                             size_t max_bytes, bool at_least_one,
                             uint8_t **memory, uint8_t **data, size_t *size,
                             kafka_offset *bad)
{
    struct read_plan plan = {0};
    *memory = *data = NULL;
    *size = 0;
    bad->v = -1;
    enum err status = plan_make(v, slot, max_bytes, at_least_one, &plan);
    if (status == ERR_OK && plan.n > 0) {
        if (v->past_cache) {
            status = read_blocks(v->log.file, &plan, memory, data);
        } else {
            *memory = *data = mem_alloc(plan.bytes);
            status = read_whole(v->log.file, *data, plan.bytes, plan.from);
        }
        bad->v = status == ERR_CORRUPT ? plan.entries[0].base_offset.v : -1;
    }
    if (status == ERR_OK) {
        status = check_batches(&plan, *data, size, bad);
    }
    mem_free(plan.entries);
    if (*size == 0) {
        mem_free(*memory);
        *memory = *data = NULL;
    }
    return status;
}

enum err segment_read(struct segment_view *v, uint64_t slot, size_t max_bytes,
                      bool at_least_one, uint8_t **data, size_t *size,
                      kafka_offset *bad)
{
    uint8_t *memory;
    ASSERT(!v->past_cache);
    return read_batches(v, slot, max_bytes, at_least_one, &memory, data, size,
                        bad);
}

enum err segment_read_direct(struct segment_view *v, uint64_t slot,
                             size_t max_bytes, bool at_least_one,
                             uint8_t **memory, uint8_t **data, size_t *size,
                             kafka_offset *bad)
{
    ASSERT(v->past_cache);
    return read_batches(v, slot, max_bytes, at_least_one, memory, data, size,
                        bad);
}

enum err segment_read_payload(struct segment_view *v, uint64_t slot,
                              const struct side_entry *e, uint8_t **data)
{
    uint64_t slots = side_slots(e->type, e->size) - 1;
    ASSERT(e->type != ENTRY_DATA);
    if (slot + 1 + slots > v->segment.slots) {
        return ERR_CORRUPT;
    }
    *data = mem_alloc(e->size);
    for (uint64_t i = 0, at = 0; i < slots; i++) {
        uint8_t bytes[SIDE_SLOT];
        const uint8_t *piece;
        uint32_t size, back;
        enum err status = read_whole(v->side.file, bytes, SIDE_SLOT,
                                     side_offset(slot + 1 + i));
        if (status == ERR_OK) {
            status = side_continuation_read(bytes, &piece, &size, &back);
        }
        if (status == ERR_OK && (back != i + 1 || size > e->size - at)) {
            status = ERR_CORRUPT;
        }
        if (status != ERR_OK) {
            mem_free(*data);
            return status;
        }
        memcpy(*data + at, piece, size);
        at += size;
    }
    if (crc32c(0, *data, e->size) != e->payload_crc) {
        mem_free(*data);
        return ERR_CORRUPT;
    }
    return ERR_OK;
}
