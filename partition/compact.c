#include "partition/compact.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/mem.h"

/* Read at once, and written at once. */
#define READ_BYTES ((size_t)1 << 20)
#define WRITE_BYTES ((size_t)1 << 20)

struct compact_output {
    struct segment segment; /* as it will be */
    struct env_file *log, *side;
    struct buffer bytes, slots; /* not yet written */
    uint64_t bytes_at, slots_at;
    struct side_head head; /* written last */
    log_index last;
    uint64_t chain;
    struct side_entry gap; /* gone > 0: not yet written */
    struct batch_rewriter rewriter;
    bool changed;
};

/* ---- reading ------------------------------------------------------------- */
/* Entries of the segment in order, batches with their bytes. */
struct source {
    struct segment_view *view;
    struct side_cursor cursor;
    uint8_t *data;
    size_t size, at;
    uint64_t bytes; /* read so far */
};

/* ERR_NOT_FOUND at the end. *batch: NULL for what is no batch. */
static enum err source_next(struct source *s, struct side_entry *e,
                            const uint8_t **batch)
{
    kafka_offset bad;
    *batch = NULL;
    enum err status = side_cursor_next(s->view, &s->cursor, e);
    if (status != ERR_OK || e->type != ENTRY_DATA) {
        return status;
    }
    if (s->at == s->size) {
        mem_free(s->data);
        s->at = s->size = 0;
        status = segment_read(s->view, s->cursor.next - 1, READ_BYTES, true,
                              &s->data, &s->size, &bad);
        if (status == ERR_OK && s->size == 0) {
            status = ERR_CORRUPT;
        }
    }
    if (status == ERR_OK && e->size > s->size - s->at) {
        status = ERR_CORRUPT; /* the read ended at a damaged batch */
    }
    if (status == ERR_OK) {
        *batch = s->data + s->at;
        s->at += e->size;
        s->bytes += e->size;
    }
    return status;
}

static void source_close(struct source *s)
{
    mem_free(s->data);
    side_cursor_free(&s->cursor);
}

/* ---- the map ------------------------------------------------------------- */
/* Whether a batch's records count is told by markers elsewhere, or it is one.
 */
static bool stands_apart(int16_t attributes)
{
    return (attributes & (BATCH_TRANSACTIONAL | BATCH_CONTROL)) != 0;
}

/* False: the map is full. */
static bool scan_batch(struct compact *c, const struct side_entry *e,
                       const uint8_t *batch, enum err *status)
{
    struct batch_records r;
    struct batch_record record;
    bool fits = true;
    if (stands_apart(e->attributes) || e->record_count == 0) {
        return true;
    }
    *status = batch_records_open(&r, batch, e->size, LIMIT_BATCH_PLAIN);
    while (*status == ERR_OK && fits && batch_records_next(&r, &record)) {
        kafka_offset offset = {e->base_offset.v + record.offset_delta};
        if (record.key != NULL && offset.v >= c->from.v) {
            fits = offset_map_put(c->map, record.key, (size_t)record.key_size,
                                  offset);
        }
    }
    batch_records_close(&r);
    /* Bytes that a client compressed wrongly: nobody can read them, so they
     * take nothing out and stay as they are. */
    *status = ERR_OK;
    return fits;
}

/* Everything is in the map up to this batch. A first batch that alone is too
 * much for it is passed over: of its keys some records stay that need not. */
static void scan_full(struct compact *c, const struct side_entry *e)
{
    c->full = true;
    c->to = e->base_offset;
    if (c->to.v <= c->from.v) {
        c->to.v = side_last_offset(e).v + 1;
    }
}

enum err compact_scan(struct compact *c, bool *done)
{
    struct source s = {.view = &c->view, .cursor = {.next = c->slot}};
    struct side_entry e;
    const uint8_t *batch;
    enum err status = segment_view_open(&c->view, true);
    *done = false;
    if (status == ERR_OK && c->slot == 0 &&
        c->view.segment.base.v < c->from.v) {
        status = segment_find_offset(&c->view, c->from, &s.cursor.next, &e);
    }
    while (status == ERR_OK && s.bytes < COMPACT_STEP_BYTES && !c->full) {
        status = source_next(&s, &e, &batch);
        if (status == ERR_OK && batch != NULL &&
            !scan_batch(c, &e, batch, &status)) {
            scan_full(c, &e);
        }
    }
    c->slot = s.cursor.next;
    c->bytes_read += s.bytes;
    source_close(&s);
    *done = status == ERR_NOT_FOUND || c->full;
    return status == ERR_NOT_FOUND ? ERR_OK : status;
}

/* ---- the output ---------------------------------------------------------- */
static enum err output_file(struct compact *c, const char *suffix,
                            struct env_file **out)
{
    char path[LIMIT_PATH];
    segment_file(path, c->dir, &c->out->segment, suffix);
    enum err status = env_file_open(
        c->env, path, ENV_FILE_READ | ENV_FILE_WRITE | ENV_FILE_CREATE, out);
    return status == ERR_OK ? env_file_truncate(*out, 0) : status;
}

static enum err output_begin(struct compact *c, kafka_offset base,
                             uint32_t generation)
{
    struct compact_output *o = c->out = mem_zalloc(sizeof *o);
    o->segment = (struct segment){.base = base,
                                  .end = base,
                                  .slots = 1,
                                  .max_timestamp = -1,
                                  .generation = generation,
                                  .compaction = c->id};
    o->slots_at = 1;
    enum err status = output_file(c, "log", &o->log);
    if (status == ERR_OK) {
        status = output_file(c, "side", &o->side);
    }
    if (c->verbatim) {
        o->head = c->head;
    } else if (status == ERR_OK) {
        status = segment_read_head(&c->view, &o->head);
    }
    o->head.compaction = c->id;
    o->last.v = o->head.first.v - 1;
    o->chain = o->head.chain;
    return status;
}

static enum err output_flush(struct compact_output *o)
{
    enum err status = ERR_OK;
    if (o->bytes.size > 0) {
        struct iovec iov = {o->bytes.data, o->bytes.size};
        status = env_file_pwritev(o->log, &iov, 1, o->bytes_at, false);
    }
    if (status == ERR_OK && o->slots.size > 0) {
        struct iovec iov = {o->slots.data, o->slots.size};
        status =
            env_file_pwritev(o->side, &iov, 1, side_offset(o->slots_at), false);
    }
    o->bytes_at += o->bytes.size;
    o->slots_at += o->slots.size / SIDE_SLOT;
    buffer_clear(&o->bytes);
    buffer_clear(&o->slots);
    return status;
}

static void output_slot(struct compact_output *o, struct side_entry *e)
{
    e->position = o->segment.bytes;
    e->running_max = o->segment.max_timestamp;
    side_entry_write(e, buffer_reserve(&o->slots, SIDE_SLOT));
    buffer_added(&o->slots, SIDE_SLOT);
    o->segment.slots++;
}

static void output_gap(struct compact_output *o)
{
    if (o->gap.gone > 0) {
        output_slot(o, &o->gap);
        o->gap.gone = 0;
    }
}

/* The entry is not copied. */
static void output_skip(struct compact_output *o, const struct side_entry *e)
{
    uint64_t gone = o->gap.gone + (e->gone > 0 ? e->gone : 1);
    o->gap = (struct side_entry){
        .type = ENTRY_NOOP,
        .gone = gone,
        .index = e->index,
        .term = e->term,
        .base_offset = {side_last_offset(e).v + 1},
        .chain = e->chain,
        .producer_id = -1,
        .producer_epoch = -1,
        .base_sequence = -1,
        .last_offset_delta = -1,
        .max_timestamp = -1,
    };
}

static enum err output_batch(struct compact_output *o, struct side_entry *e,
                             const uint8_t *batch)
{
    output_gap(o);
    if (e->max_timestamp > o->segment.max_timestamp) {
        o->segment.max_timestamp = e->max_timestamp;
    }
    output_slot(o, e);
    buffer_append(&o->bytes, batch, e->size);
    o->segment.bytes += e->size;
    return o->bytes.size + o->slots.size >= WRITE_BYTES ? output_flush(o)
                                                        : ERR_OK;
}

/* ---- copying ------------------------------------------------------------- */
/* Of what stays of a batch. */
struct outcome {
    int32_t kept, all;
    bool tombstones; /* some stay */
    bool unmarked;   /* and have no horizon yet */
    bool readable;
};

static bool has_horizon(const struct batch_header *h)
{
    return (h->attributes & BATCH_DELETE_HORIZON) != 0;
}

static bool record_stays(const struct compact *c, const struct batch_header *h,
                         const struct batch_record *record)
{
    kafka_offset offset = {h->base_offset.v + record->offset_delta};
    if (record->key == NULL) {
        return false; /* as Kafka: what has no key has no place here */
    }
    if (offset_map_get(c->map, record->key, (size_t)record->key_size).v >
        offset.v) {
        return false;
    }
    return record->value != NULL || offset.v >= c->to.v || !has_horizon(h) ||
           c->now_ms < h->base_timestamp;
}

static struct outcome batch_look(const struct compact *c, const uint8_t *batch,
                                 size_t size)
{
    struct batch_records r;
    struct batch_record record;
    struct outcome o = {0};
    enum err status = batch_records_open(&r, batch, size, LIMIT_BATCH_PLAIN);
    while (status == ERR_OK && batch_records_next(&r, &record)) {
        o.all++;
        if (record_stays(c, &r.header, &record)) {
            bool tombstone = record.value == NULL;
            int64_t offset = r.header.base_offset.v + record.offset_delta;
            o.kept++;
            o.tombstones = o.tombstones || tombstone;
            o.unmarked = o.unmarked || (tombstone && offset < c->to.v &&
                                        !has_horizon(&r.header));
        }
    }
    o.readable = status == ERR_OK && r.status == ERR_OK;
    batch_records_close(&r);
    return o;
}

static int by_id(const void *a, const void *b)
{
    const struct compact_producer *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

/* The last batch of a producer that is remembered? */
static bool producer_needs(const struct compact *c, const struct side_entry *e)
{
    struct compact_producer key = {.id = e->producer_id};
    if (e->producer_id < 0 || c->n_producers == 0) {
        return false;
    }
    const struct compact_producer *found = bsearch(
        &key, c->producers, c->n_producers, sizeof *c->producers, by_id);
    return found != NULL && found->last_offset.v == side_last_offset(e).v;
}

/* Writes what stays; false: it cannot be told anew. */
static bool batch_make(struct compact *c, const uint8_t *batch, size_t size,
                       int64_t horizon, const uint8_t **out, size_t *out_size)
{
    struct batch_rewriter *w = &c->out->rewriter;
    struct batch_records r;
    struct batch_record record;
    bool good =
        batch_records_open(&r, batch, size, LIMIT_BATCH_PLAIN) == ERR_OK;
    batch_rewrite_begin(w, &r.header, horizon);
    while (good && batch_records_next(&r, &record)) {
        if (record_stays(c, &r.header, &record)) {
            good = batch_rewrite_keep(w, &record);
        }
    }
    good = good && batch_rewrite_finish(w, out, out_size) == ERR_OK;
    batch_records_close(&r);
    return good;
}

/* Sets what the side file says of a rewritten batch. */
static void describe(struct side_entry *e, const uint8_t *batch, size_t size)
{
    struct batch_header h;
    ASSERT(batch_header_read(batch, size, &h) == ERR_OK);
    e->size = (uint32_t)size;
    e->rewritten = true;
    e->head_crc = crc32c(0, batch, BATCH_CRC_FROM);
    e->payload_crc = crc32c(0, batch, size);
    e->attributes = h.attributes;
    e->record_count = h.record_count;
    e->max_timestamp = h.record_count == 0 ? -1 : h.max_timestamp;
}

static void note_horizon(struct compact_output *o, const uint8_t *batch,
                         size_t size)
{
    struct batch_header h;
    ASSERT(batch_header_read(batch, size, &h) == ERR_OK);
    if (has_horizon(&h) &&
        (o->segment.horizon == 0 || h.base_timestamp < o->segment.horizon)) {
        o->segment.horizon = h.base_timestamp > 0 ? h.base_timestamp : 1;
    }
}

static enum err copy_batch(struct compact *c, struct side_entry *e,
                           const uint8_t *batch)
{
    struct compact_output *o = c->out;
    if (c->verbatim) {
        note_horizon(o, batch, e->size);
        return output_batch(o, e, batch);
    }
    if (stands_apart(e->attributes)) {
        return output_batch(o, e, batch);
    }
    struct outcome outcome = batch_look(c, batch, e->size);
    size_t size = e->size;
    if (outcome.readable && outcome.kept == 0 && !producer_needs(c, e)) {
        o->changed = true;
        output_skip(o, e);
        return ERR_OK;
    }
    int64_t horizon = -1;
    if (outcome.unmarked &&
        !__builtin_add_overflow(c->now_ms, c->delete_retention_ms, &horizon)) {
        outcome.all++; /* something is to be written */
    }
    if (outcome.readable && outcome.kept < outcome.all &&
        batch_make(c, batch, e->size, horizon, &batch, &size)) {
        o->changed = true;
        describe(e, batch, size);
    }
    if (outcome.tombstones) {
        note_horizon(o, batch, size);
    }
    return output_batch(o, e, batch);
}

static enum err copy_entry(struct compact *c, struct side_entry *e,
                           const uint8_t *batch)
{
    struct compact_output *o = c->out;
    enum err status = ERR_OK;
    if (!side_follows(e, o->last, o->chain)) {
        return ERR_CORRUPT;
    }
    o->last = e->index;
    o->chain = e->chain;
    if (batch != NULL) {
        status = copy_batch(c, e, batch);
    } else {
        o->changed = o->changed || e->gone == 0;
        output_skip(o, e);
    }
    o->segment.end.v = side_last_offset(e).v + 1;
    return status;
}

/* All that is wanted of what a peer has is copied. */
static bool copied_all(const struct compact *c)
{
    return c->verbatim && c->out->last.v == c->last.v;
}

/* False: nothing of this entry is wanted. A gap of the peer's may reach across
 * the beginning and the end of what is; its term then is that of its end, which
 * nobody asks for. */
static bool crop(const struct compact *c, struct side_entry *e)
{
    log_index have = c->out->last;
    uint64_t before = e->index.v - e->gone;
    if (!c->verbatim) {
        return true;
    }
    if (e->index.v <= have.v) {
        return false;
    }
    if (e->gone > 0 && before <= have.v) {
        if (e->index.v > c->last.v) {
            e->index = c->last;
            e->chain = c->chain;
            e->base_offset = c->to;
        }
        e->gone = e->index.v - have.v;
    }
    return true;
}

enum err compact_copy(struct compact *c, kafka_offset base, uint32_t generation,
                      bool *done)
{
    struct source s = {.view = &c->view, .cursor = {.next = c->slot}};
    struct side_entry e;
    const uint8_t *batch;
    enum err status = segment_view_open(&c->view, true);
    *done = false;
    if (status == ERR_OK && c->out == NULL) {
        status = output_begin(c, base, generation);
    }
    while (status == ERR_OK && s.bytes < COMPACT_STEP_BYTES && !copied_all(c)) {
        status = source_next(&s, &e, &batch);
        if (status == ERR_OK && crop(c, &e)) {
            status = copy_entry(c, &e, batch);
        }
    }
    c->slot = s.cursor.next;
    c->bytes_read += s.bytes;
    source_close(&s);
    *done = status == ERR_NOT_FOUND || (status == ERR_OK && copied_all(c));
    return *done ? ERR_OK : status;
}

/* ---- the end ------------------------------------------------------------- */
enum err compact_finish(struct compact *c)
{
    struct compact_output *o = c->out;
    uint8_t slot[SIDE_SLOT];
    struct iovec iov = {slot, sizeof slot};
    output_gap(o);
    enum err status = output_flush(o);
    if (status == ERR_OK) {
        status = env_file_sync(o->log);
    }
    if (status == ERR_OK) {
        status = env_file_sync(o->side);
    }
    if (status == ERR_OK && !c->verbatim) {
        side_head_write(&o->head, slot);
        status = env_file_pwritev(o->side, &iov, 1, 0, true);
    }
    return status == ERR_OK ? env_dir_sync(c->env, c->dir) : status;
}

struct side_head compact_next_head(const struct compact *c)
{
    struct side_head head = c->out->head;
    head.base = c->out->segment.end;
    head.first.v = c->out->last.v + 1;
    head.chain = c->out->chain;
    return head;
}

struct segment compact_result(const struct compact *c)
{
    return c->out->segment;
}

bool compact_changed(const struct compact *c)
{
    return c->out->changed;
}

void compact_output_end(struct compact *c, bool keep)
{
    struct compact_output *o = c->out;
    char path[LIMIT_PATH];
    if (o == NULL) {
        return;
    }
    if (o->log != NULL) {
        env_file_close(o->log);
    }
    if (o->side != NULL) {
        env_file_close(o->side);
    }
    if (!keep) { /* a failure is no loss: the next start removes them */
        segment_file(path, c->dir, &o->segment, "side");
        (void)!env_file_unlink(c->env, path);
        segment_file(path, c->dir, &o->segment, "log");
        (void)!env_file_unlink(c->env, path);
    }
    batch_rewriter_free(&o->rewriter);
    buffer_free(&o->bytes);
    buffer_free(&o->slots);
    mem_free(o);
    c->out = NULL;
}

void compact_free(struct compact *c)
{
    ASSERT(c->out == NULL);
    offset_map_free(c->map);
    mem_free(c->producers);
    c->map = NULL;
    c->producers = NULL;
    c->n_producers = 0;
}
