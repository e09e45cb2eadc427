/* Damage in what is settled: found by reads and by a background scrub, never
 * served, repaired in place from peers.
 *
 * One segment at a time is looked through on a worker, slot by slot of its side
 * file, batch by batch. What is damaged is fetched by identity, from any
 * replica that has it (group_fetch):
 *   a batch         by log index; its side entry says length and checksums
 *   slots           one by one by log index; the chain from the last good slot
 *                   proves each, position and running maximum are our own
 *   the side head   from a replica with a segment of the same name; the chain
 *                   into the first entry proves it when it is looked at again
 * and written durably in its place; then the segment is looked through again.
 * What no replica has stays as it is, is not served, and is tried again later.
 *
 * Segments that were compacted may be other bytes on every replica: a batch is
 * repaired where a peer has the same one, not rewritten or rewritten to the
 * same bytes. For other damage in them all of the range is taken over from a
 * peer (refetch.c). */
#include "base/assert.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/mem.h"
#include "partition/bytes.h"
#include "partition/partition_impl.h"
#include "raft/catchup.h"

#define ITEMS_MAX 64
#define STEP_BYTES ((uint64_t)1 << 20) /* looked at by one work */
/* After what could not be fetched, doubled up to AGAIN_MAX_MS while it cannot:
 * who reads at a peer holds a lease there for 30 s, during which neither
 * retention nor compaction goes on. */
#define AGAIN_MS 10000
#define AGAIN_MAX_MS 40000
#define ROUNDS_MAX 1000 /* of one segment, ITEMS_MAX repairs each */
#define SCRUB_TICK_MS 250
#define WINDOW_BYTES ((size_t)64 << 10)
/* Partitions looked at in one tick for something to scrub. */
#define SCRUB_LOOKS 256

enum damage_kind { DAMAGE_BATCH, DAMAGE_SLOTS, DAMAGE_HEAD };

struct damage {
    enum damage_kind kind;
    log_index first;
    struct side_entry entry; /* BATCH */
    uint64_t slot_from, slot_to;
    /* SLOTS: of the log before `first` */
    uint64_t chain, position;
    int64_t running_max;
};

/* Bytes of a file read ahead; a segment of small batches would be read by two
 * calls a batch. Filled and used within one work. */
struct window {
    uint8_t *bytes; /* WINDOW_BYTES, or NULL */
    uint64_t at;
    size_t size;
};

/* Where looking through a segment stands. */
struct scan {
    struct window log, side;
    uint64_t slot; /* 0: at its head */
    log_index next;
    bool chain_known;
    uint64_t chain, position;
    int64_t running_max;
    uint64_t bytes; /* read by this work */
    bool over;
};

struct repair {
    struct partition *partition;
    struct segment_view view;
    struct env_work work;
    bool working, stopped, scrubs, taken;
    struct scan scan;
    enum err status;
    struct damage items[ITEMS_MAX];
    size_t n_items, at;
    uint64_t rounds, repaired, failed;
    struct group_fetch fetch;
    /* the item under way */
    log_index index;
    uint64_t chain, position;
    int64_t running_max;
    struct side_entry entry;
    struct buffer bytes;
};

static void item_next(struct repair *r);

/* ---- looking through a segment, on a worker ------------------------------ */
static struct damage *damage_add(struct repair *r, enum damage_kind kind)
{
    const struct scan *s = &r->scan;
    ASSERT(r->n_items < ITEMS_MAX);
    r->items[r->n_items] = (struct damage){.kind = kind,
                                           .first = s->next,
                                           .slot_from = s->slot,
                                           .chain = s->chain,
                                           .position = s->position,
                                           .running_max = s->running_max};
    return &r->items[r->n_items++];
}

/* The bytes of `file` at `at`, valid until the next call with this window;
 * fewer than `size` where it ends. `size` is at most WINDOW_BYTES. */
static enum err window_read(struct window *w, struct env_file *file,
                            uint64_t at, size_t size, const uint8_t **out,
                            size_t *got)
{
    ASSERT(size <= WINDOW_BYTES);
    if (at < w->at || at + size > w->at + w->size) {
        if (w->bytes == NULL) {
            w->bytes = mem_alloc(WINDOW_BYTES);
        }
        w->at = at;
        w->size = 0;
        enum err e = env_file_pread(file, w->bytes, WINDOW_BYTES, at, &w->size);
        if (e != ERR_OK) {
            w->size = 0;
            return e;
        }
    }
    *out = w->bytes + (at - w->at);
    *got = w->size - (size_t)(at - w->at);
    *got = *got < size ? *got : size;
    return ERR_OK;
}

static void window_drop(struct window *w)
{
    mem_free(w->bytes);
    *w = (struct window){0};
}

/* Zeros where the file is too short. */
static enum err read_slot(struct repair *r, uint64_t slot,
                          uint8_t bytes[SIDE_SLOT])
{
    size_t got = 0;
    const uint8_t *from;
    enum err e =
        window_read(&r->scan.side, r->view.side.file,
                    slot == 0 ? 0 : side_offset(slot), SIDE_SLOT, &from, &got);
    if (e == ERR_OK) {
        memcpy(bytes, from, got);
    }
    memset(bytes + got, 0, SIDE_SLOT - got);
    r->scan.bytes += SIDE_SLOT;
    return e;
}

/* Files that are missing are made again, empty. */
static enum err open_files(struct repair *r)
{
    static const char *const suffix[] = {"log", "side"};
    struct segment_view *v = &r->view;
    enum err e = segment_view_open(v, true);
    for (int k = 0; k < 2 && e == ERR_CORRUPT; k++) {
        struct env_file *file;
        char path[LIMIT_PATH];
        segment_file(path, v->dir, &v->segment, suffix[k]);
        e = env_file_open(v->env, path,
                          ENV_FILE_READ | ENV_FILE_WRITE | ENV_FILE_CREATE,
                          &file);
        if (e == ERR_OK) {
            env_file_close(file);
            e = env_dir_sync(v->env, v->dir);
        }
        e = e == ERR_OK ? segment_view_open(v, true) : e;
    }
    return e;
}

static enum err scan_head(struct repair *r)
{
    struct scan *s = &r->scan;
    uint8_t bytes[SIDE_SLOT];
    struct side_head head;
    enum err e = read_slot(r, 0, bytes);
    if (e != ERR_OK) {
        return e;
    }
    s->slot = 1;
    s->position = 0;
    s->running_max = -1;
    if (side_head_read(bytes, &head) == ERR_OK &&
        head.base.v == r->view.segment.base.v &&
        group_id_equal(&head.group, &r->partition->id)) {
        s->next = head.first;
        s->chain = head.chain;
        s->chain_known = true;
    } else {
        damage_add(r, DAMAGE_HEAD);
        s->over = true; /* then once more */
    }
    return ERR_OK;
}

static bool entry_fits(const struct repair *r, const struct side_entry *e)
{
    const struct scan *s = &r->scan;
    if (e->position != s->position ||
        (e->type == ENTRY_DATA &&
         (e->size < BATCH_HEADER_SIZE ||
          e->position + e->size > r->view.segment.bytes)) ||
        s->slot + side_slots(e->type, e->size) > r->view.segment.slots) {
        return false;
    }
    if (r->view.segment.compaction != 0) {
        return e->index.v >= s->next.v;
    }
    return e->index.v == s->next.v &&
           (!s->chain_known || side_chain(s->chain, e->index, e->term, e->type,
                                          e->size, e->payload_crc) == e->chain);
}

/* Slots from here on are no entry: up to the next one that is. */
static enum err scan_slots(struct repair *r)
{
    struct scan *s = &r->scan;
    struct damage *d = damage_add(r, DAMAGE_SLOTS);
    uint8_t bytes[SIDE_SLOT];
    struct side_entry e;
    enum err status = ERR_OK;
    while (++s->slot < r->view.segment.slots && status == ERR_OK) {
        status = read_slot(r, s->slot, bytes);
        if (status == ERR_OK && side_entry_read(bytes, &e) == ERR_OK &&
            e.index.v > s->next.v &&
            e.index.v - s->next.v <= s->slot - d->slot_from) {
            s->next = e.index;
            s->position = e.position;
            s->running_max = e.running_max;
            s->chain_known = false;
            break;
        }
    }
    d->slot_to = s->slot;
    return status;
}

static enum err scan_content(struct repair *r, const struct side_entry *e)
{
    struct scan *s = &r->scan;
    uint64_t slots = side_slots(e->type, e->size);
    uint8_t *bytes = NULL;
    size_t got = 0;
    enum err status;
    if (e->type != ENTRY_DATA) {
        status = segment_read_payload(&r->view, s->slot, e, &bytes);
        if (status == ERR_OK) {
            mem_free(bytes);
        } else if (status == ERR_CORRUPT) {
            damage_add(r, DAMAGE_SLOTS)->slot_to = s->slot + slots;
            status = ERR_OK;
        }
        s->bytes += slots * SIDE_SLOT;
        return status;
    }
    const uint8_t *batch;
    if (e->size <= WINDOW_BYTES) {
        status = window_read(&s->log, r->view.log.file, e->position, e->size,
                             &batch, &got);
    } else {
        batch = bytes = mem_alloc(e->size);
        status =
            env_file_pread(r->view.log.file, bytes, e->size, e->position, &got);
    }
    if (status == ERR_OK && (got < e->size || !segment_batch_is(batch, e))) {
        damage_add(r, DAMAGE_BATCH)->entry = *e;
    }
    s->bytes += e->size;
    mem_free(bytes);
    return status;
}

static enum err scan_entry(struct repair *r)
{
    struct scan *s = &r->scan;
    uint8_t bytes[SIDE_SLOT];
    struct side_entry e;
    enum err status = read_slot(r, s->slot, bytes);
    if (status != ERR_OK) {
        return status;
    }
    if (side_entry_read(bytes, &e) != ERR_OK || !entry_fits(r, &e)) {
        return scan_slots(r);
    }
    if (r->view.segment.compaction != 0) {
        s->next = e.index;
    }
    status = scan_content(r, &e);
    s->next.v++;
    s->chain = e.chain;
    s->chain_known = true;
    s->position += e.type == ENTRY_DATA ? e.size : 0;
    s->running_max = e.running_max;
    s->slot += side_slots(e.type, e.size);
    return status;
}

static void scan_run(struct env_work *work)
{
    struct repair *r = work->arg;
    struct scan *s = &r->scan;
    s->bytes = 0;
    r->status = open_files(r);
    if (r->status == ERR_OK && s->slot == 0) {
        r->status = scan_head(r);
    }
    while (r->status == ERR_OK && !s->over && s->bytes < STEP_BYTES &&
           r->n_items < ITEMS_MAX) {
        s->over = s->slot >= r->view.segment.slots;
        if (!s->over) {
            r->status = scan_entry(r);
        }
    }
    window_drop(&s->log);
    window_drop(&s->side);
}

/* ---- the end ------------------------------------------------------------- */
/* Counted, so that a shard of many partitions need not look at each. */
static void set_wanted(struct partition *p, bool wanted)
{
    if (p->repair_wanted != wanted) {
        p->repair_wanted = wanted;
        p->shard->repairs_wanted += wanted ? 1u : -1u;
    }
}

static void repair_free(struct repair *r)
{
    struct partition *p = r->partition;
    p->repair = NULL;
    if (p->shard->scrubbing == p) {
        p->shard->scrubbing = NULL;
    }
    if (r->taken) {
        partition_view_give(p, &r->view);
    }
    buffer_free(&r->bytes);
    mem_free(r);
    partition_unref(p);
}

void repair_again(struct partition *p, kafka_offset offset)
{
    uint64_t wait = (uint64_t)AGAIN_MS << p->repairs_failed;
    p->repair_at_ms =
        env_now_ms(p->env) + (wait < AGAIN_MAX_MS ? wait : AGAIN_MAX_MS);
    p->repairs_failed += wait < AGAIN_MAX_MS;
    p->repair_offset = offset;
    set_wanted(p, true);
}

void repair_succeeded(struct partition *p)
{
    p->repairs_failed = 0;
    p->damage_told = false;
}

static void repair_end(struct repair *r)
{
    struct partition *p = r->partition;
    if (r->failed > 0 && r->status == ERR_OK &&
        refetch_begin(p, &r->view.segment)) {
        /* it tells */
    } else if (r->failed > 0 || r->status != ERR_OK) {
        repair_again(p, r->view.segment.base);
        log_error("partition",
                  "%s: segment %lld is damaged and could not be repaired now: "
                  "%llu ranges repaired, %llu not%s%s; they are not served",
                  p->name, (long long)r->view.segment.base.v,
                  (unsigned long long)r->repaired,
                  (unsigned long long)r->failed,
                  r->status == ERR_OK ? "" : ", ",
                  r->status == ERR_OK ? "" : err_text(r->status));
    } else if (r->repaired > 0) {
        repair_succeeded(p);
        log_info("partition",
                 "%s: segment %lld repaired: %llu damaged ranges fetched from "
                 "peers",
                 p->name, (long long)r->view.segment.base.v,
                 (unsigned long long)r->repaired);
    }
    repair_free(r);
}

void repair_forget(struct partition *p)
{
    ASSERT(p->repair == NULL);
    set_wanted(p, false);
    if (p->shard->scrub_at == &p->link) {
        p->shard->scrub_at = p->link.next;
    }
}

void repair_stop(struct partition *p)
{
    struct repair *r = p->repair;
    set_wanted(p, false);
    if (r == NULL) {
        return;
    }
    group_fetch_cancel(&r->fetch);
    if (r->working) {
        r->stopped = true; /* the rest when the worker is done */
    } else {
        repair_free(r);
    }
}

/* ---- works --------------------------------------------------------------- */
static void scan_done(struct env_work *work);

static void submit(struct repair *r, void (*run)(struct env_work *work),
                   void (*done)(struct env_work *work))
{
    r->working = true;
    partition_work(r->partition->env, &r->work, run, done, r);
}

static void scan_done(struct env_work *work)
{
    struct repair *r = work->arg;
    struct partition *p = r->partition;
    r->working = false;
    p->shard->scrub_debt += r->scan.bytes;
    if (r->stopped) {
        repair_free(r);
    } else if (r->status != ERR_OK) {
        repair_end(r);
    } else if (r->n_items > 0) {
        partition_tell_damage(p, r->view.segment.base);
        r->at = 0;
        item_next(r);
    } else if (r->scan.over) {
        repair_end(r);
    } else if (!r->scrubs) {
        submit(r, scan_run, scan_done);
    } /* else goes on with the next tick */
}

static void write_run(struct env_work *work)
{
    struct repair *r = work->arg;
    const struct damage *d = &r->items[r->at];
    struct iovec iov = {r->bytes.data, r->bytes.size};
    bool log = d->kind == DAMAGE_BATCH;
    uint64_t at = log                      ? d->entry.position
                  : d->kind == DAMAGE_HEAD ? 0
                                           : side_offset(d->slot_from);
    r->status = env_file_pwritev(log ? r->view.log.file : r->view.side.file,
                                 &iov, 1, at, true);
}

static void write_done(struct env_work *work)
{
    struct repair *r = work->arg;
    r->working = false;
    if (r->stopped) {
        repair_free(r);
        return;
    }
    if (r->status == ERR_IO) {
        env_fatal(r->partition->env, "cannot write a repaired segment in %s",
                  r->partition->dir);
    }
    r->repaired += r->status == ERR_OK;
    r->failed += r->status != ERR_OK;
    r->status = ERR_OK;
    r->at++;
    item_next(r);
}

/* ---- fetching what is damaged -------------------------------------------- */
static void item_failed(struct repair *r)
{
    r->failed++;
    r->at++;
    item_next(r);
}

static void ask(struct repair *r, uint64_t file, uint64_t offset, uint32_t size,
                bool (*check)(struct group_fetch *f, const uint8_t *bytes),
                void (*cb)(struct group_fetch *f, enum err status,
                           const uint8_t *bytes))
{
    r->fetch = (struct group_fetch){
        .range = {file, offset, size}, .check = check, .cb = cb, .arg = r};
    if (size == 0 || size > CATCHUP_RANGE_MAX || r->partition->group == NULL ||
        !group_fetch(r->partition->group, &r->fetch)) {
        item_failed(r);
    }
}

static uint64_t entry_file(log_index index)
{
    return index.v * 4 + 3;
}

static void take_bytes(struct group_fetch *f, enum err status,
                       const uint8_t *bytes)
{
    struct repair *r = f->arg;
    if (status != ERR_OK) {
        item_failed(r);
        return;
    }
    buffer_clear(&r->bytes);
    buffer_append(&r->bytes, bytes, f->range.size);
    submit(r, write_run, write_done);
}

static bool is_batch(const struct side_entry *e, const uint8_t *bytes)
{
    return crc32c(0, bytes, e->size) == e->payload_crc &&
           segment_batch_is(bytes, e);
}

static bool check_batch(struct group_fetch *f, const uint8_t *bytes)
{
    const struct repair *r = f->arg;
    return is_batch(&r->items[r->at].entry, bytes);
}

/* A batch that is more than a message holds comes in pieces, from whom has it
 * whole; it is checked when all are there. */
static bool check_piece(struct group_fetch *f, const uint8_t *bytes)
{
    (void)f, (void)bytes;
    return true;
}

static void piece_next(struct repair *r);

static void take_piece(struct group_fetch *f, enum err status,
                       const uint8_t *bytes)
{
    struct repair *r = f->arg;
    const struct side_entry *e = &r->items[r->at].entry;
    if (status != ERR_OK) {
        item_failed(r);
        return;
    }
    buffer_append(&r->bytes, bytes, f->range.size);
    if (r->bytes.size < e->size) {
        piece_next(r);
    } else if (is_batch(e, r->bytes.data)) {
        submit(r, write_run, write_done);
    } else {
        item_failed(r);
    }
}

static void piece_next(struct repair *r)
{
    const struct side_entry *e = &r->items[r->at].entry;
    size_t left = e->size - r->bytes.size;
    ask(r, entry_file(e->index), r->bytes.size,
        (uint32_t)(left < CATCHUP_RANGE_MAX ? left : CATCHUP_RANGE_MAX),
        check_piece, take_piece);
}

static void batch_ask(struct repair *r, const struct side_entry *e)
{
    buffer_clear(&r->bytes);
    if (e->size > LIMIT_ENTRY_BYTES) {
        item_failed(r); /* there is none as large */
    } else if (e->size <= CATCHUP_RANGE_MAX) {
        ask(r, entry_file(e->index), 0, e->size, check_batch, take_bytes);
    } else {
        piece_next(r);
    }
}

static bool check_head(struct group_fetch *f, const uint8_t *bytes)
{
    const struct repair *r = f->arg;
    struct side_head head;
    return side_head_read(bytes, &head) == ERR_OK && head.compaction == 0 &&
           head.base.v == r->view.segment.base.v &&
           group_id_equal(&head.group, &r->partition->id);
}

static void slot_next(struct repair *r);

static bool check_slot(struct group_fetch *f, const uint8_t *bytes)
{
    const struct repair *r = f->arg;
    struct side_entry e;
    return side_entry_read(bytes, &e) == ERR_OK && e.index.v == r->index.v &&
           side_chain(r->chain, e.index, e.term, e.type, e.size,
                      e.payload_crc) == e.chain;
}

static void slot_add(struct repair *r, const uint8_t slot[SIDE_SLOT])
{
    buffer_append(&r->bytes, slot, SIDE_SLOT);
}

/* The entry is complete: on with the next, or all is there. */
static void slot_over(struct repair *r)
{
    const struct damage *d = &r->items[r->at];
    uint64_t have = r->bytes.size / SIDE_SLOT, all = d->slot_to - d->slot_from;
    r->chain = r->entry.chain;
    r->position += r->entry.type == ENTRY_DATA ? r->entry.size : 0;
    r->running_max = r->entry.running_max;
    r->index.v++;
    if (have > all) {
        item_failed(r);
    } else if (have == all) {
        submit(r, write_run, write_done);
    } else {
        slot_next(r);
    }
}

static bool check_payload(struct group_fetch *f, const uint8_t *bytes)
{
    const struct repair *r = f->arg;
    return crc32c(0, bytes, r->entry.size) == r->entry.payload_crc;
}

static void take_payload(struct group_fetch *f, enum err status,
                         const uint8_t *bytes)
{
    struct repair *r = f->arg;
    uint32_t back = 1;
    if (status != ERR_OK) {
        item_failed(r);
        return;
    }
    for (uint32_t at = 0; at < r->entry.size; back++) {
        uint8_t slot[SIDE_SLOT];
        uint32_t n = r->entry.size - at;
        n = n < SIDE_CONTINUATION_BYTES ? n : SIDE_CONTINUATION_BYTES;
        side_continuation_write(bytes + at, n, back, slot);
        slot_add(r, slot);
        at += n;
    }
    slot_over(r);
}

static void take_slot(struct group_fetch *f, enum err status,
                      const uint8_t *bytes)
{
    struct repair *r = f->arg;
    uint8_t slot[SIDE_SLOT];
    if (status != ERR_OK || side_entry_read(bytes, &r->entry) != ERR_OK) {
        item_failed(r);
        return;
    }
    r->entry.position = r->position;
    if (r->entry.max_timestamp > r->running_max) {
        r->running_max = r->entry.max_timestamp;
    }
    r->entry.running_max = r->running_max;
    side_entry_write(&r->entry, slot);
    slot_add(r, slot);
    if (r->entry.type != ENTRY_DATA && r->entry.size > 0) {
        ask(r, entry_file(r->index), 0, r->entry.size, check_payload,
            take_payload);
    } else {
        slot_over(r);
    }
}

static void slot_next(struct repair *r)
{
    ask(r, entry_file(r->index), REPAIR_SLOT_AT, SIDE_SLOT, check_slot,
        take_slot);
}

/* All items were tried: once more, until nothing is damaged or nothing more can
 * be had. */
static void round_over(struct repair *r)
{
    if (r->failed > 0 || ++r->rounds > ROUNDS_MAX) {
        repair_end(r);
        return;
    }
    r->n_items = r->at = 0;
    r->scan = (struct scan){0};
    r->scrubs = false;
    if (r->partition->shard->scrubbing == r->partition) {
        r->partition->shard->scrubbing = NULL; /* another one may */
    }
    submit(r, scan_run, scan_done);
}

static void item_next(struct repair *r)
{
    if (r->at == r->n_items) {
        round_over(r);
        return;
    }
    const struct damage *d = &r->items[r->at];
    bool compacted = r->view.segment.compaction != 0;
    if (d->kind == DAMAGE_BATCH) {
        batch_ask(r, &d->entry);
    } else if (d->kind == DAMAGE_HEAD && !compacted) {
        ask(r, (uint64_t)r->view.segment.base.v * 4 + 1, 0, SIDE_SLOT,
            check_head, take_bytes);
    } else if (d->kind == DAMAGE_SLOTS && !compacted) {
        r->index = d->first;
        r->chain = d->chain;
        r->position = d->position;
        r->running_max = d->running_max;
        buffer_clear(&r->bytes);
        slot_next(r);
    } else {
        item_failed(r);
    }
}

/* ---- beginning ----------------------------------------------------------- */
static void begin(struct partition *p, size_t segment, bool scrubs)
{
    struct repair *r = mem_zalloc(sizeof *r);
    set_wanted(p, false);
    r->partition = p;
    r->scrubs = scrubs;
    if (scrubs) {
        p->shard->scrubbing = p;
    }
    r->taken = true;
    partition_view_take(p, segment, &r->view);
    p->repair = r;
    partition_ref(p);
    submit(r, scan_run, scan_done);
}

static bool may_begin(const struct partition *p)
{
    return p->repair == NULL && p->refetch == NULL && p->group != NULL &&
           !p->closed && !p->deleting && p->settled.slots > 0 &&
           env_now_ms(p->env) >= p->repair_at_ms;
}

void repair_found(struct partition *p, kafka_offset offset)
{
    if (p->repair != NULL && !p->repair->scrubs) {
        return; /* what it does not find is found by the next read */
    }
    set_wanted(p, true);
    p->repair_offset = offset;
    if (may_begin(p)) {
        begin(p, partition_segment_find(p, offset), false);
    }
}

/* The next segment of this partition, the one behind the last; false: it has
 * none more. */
static bool scrub_partition(struct partition *p)
{
    size_t n = partition_segment_count(p);
    if (!may_begin(p) || n == 0) {
        return false;
    }
    size_t i =
        p->scrub_next.v == 0 ? 0 : partition_segment_find(p, p->scrub_next);
    if (i >= n || partition_segment_at(p, i).end.v < p->scrub_next.v ||
        p->scrub_next.v >= p->settled.next.v) {
        p->scrub_next.v = 0;
        return false;
    }
    int64_t end = partition_segment_at(p, i).end.v;
    p->scrub_next.v = end > p->scrub_next.v ? end : p->settled.next.v;
    begin(p, i, true);
    return true;
}

/* Those that a read found damaged, or that could not be repaired then. */
static void begin_wanted(struct partition_shard *shard)
{
    uint32_t left = shard->repairs_wanted;
    for (struct partition_link *l = shard->partitions.next;
         left > 0 && l != &shard->partitions; l = l->next) {
        struct partition *p = LINK_OF(struct partition, link, l);
        if (!p->repair_wanted) {
            continue;
        }
        left--;
        if (may_begin(p)) {
            begin(p, partition_segment_find(p, p->repair_offset), false);
        }
    }
}

/* The next segment of all: of the same partition, or of the one that was opened
 * after it, round and round. A few partitions are looked at a time. */
static void scrub_next(struct partition_shard *shard)
{
    struct partition_link *l = shard->scrub_at;
    for (int i = 0; i < SCRUB_LOOKS; i++, l = l->next) {
        if (l == NULL || l == &shard->partitions) {
            l = shard->partitions.next;
        }
        if (l == &shard->partitions) {
            return; /* there is none */
        }
        if (scrub_partition(LINK_OF(struct partition, link, l))) {
            break;
        }
    }
    shard->scrub_at = l;
}

void repair_scrub(struct partition_shard *shard)
{
    uint64_t allowed = shard->options.scrub_bytes_per_s * SCRUB_TICK_MS / 1000;
    struct repair *r =
        shard->scrubbing == NULL ? NULL : shard->scrubbing->repair;
    shard->scrub_debt -=
        shard->scrub_debt < allowed ? shard->scrub_debt : allowed;
    begin_wanted(shard);
    if (shard->scrub_debt > 0) {
        return;
    }
    if (r == NULL) {
        if (allowed > 0) {
            scrub_next(shard);
        }
    } else if (!r->working && r->n_items == 0) {
        submit(r, scan_run, scan_done);
    }
}

/* ---- a peer asks --------------------------------------------------------- */
struct repair_serving {
    struct partition *partition;
    struct segment *segments;
    size_t n;
    log_index index;
    bool slot;
};

/* The segment with this entry: the last whose first entry is not behind. */
static enum err serve_find(const struct repair_serving *s,
                           struct segment_view *v)
{
    size_t low = 0, high = s->n;
    while (low + 1 < high) {
        size_t middle = (low + high) / 2;
        struct side_head head;
        v->segment = s->segments[middle];
        enum err e = segment_view_open(v, false);
        e = e == ERR_OK ? segment_read_head(v, &head) : e;
        segment_view_close(v);
        if (e != ERR_OK) {
            return e;
        }
        if (head.first.v <= s->index.v) {
            low = middle;
        } else {
            high = middle;
        }
    }
    v->segment = s->segments[low];
    return segment_view_open(v, true);
}

/* A piece of a large batch, out of one that is whole. */
static enum err serve_piece(struct segment_view *v, const struct side_entry *e,
                            struct catchup_job *job)
{
    size_t got = 0;
    if (e->size > LIMIT_ENTRY_BYTES || job->range.offset >= e->size ||
        job->range.size > e->size - job->range.offset) {
        return ERR_NOT_FOUND;
    }
    uint8_t *batch = mem_alloc(e->size);
    enum err status =
        env_file_pread(v->log.file, batch, e->size, e->position, &got);
    if (status == ERR_OK && (got < e->size || !segment_batch_is(batch, e))) {
        status = ERR_CORRUPT;
    }
    if (status == ERR_OK) {
        memcpy(job->data, batch + job->range.offset, job->range.size);
    }
    mem_free(batch);
    return status;
}

static enum err serve_entry(const struct repair_serving *s,
                            struct segment_view *v, struct catchup_job *job)
{
    struct side_entry e;
    uint64_t slot;
    uint8_t *payload = NULL;
    size_t got = 0;
    enum err status = segment_find_index(v, s->index, &slot, &e);
    if (status == ERR_OK && s->slot) {
        side_entry_write(&e, job->data);
        return ERR_OK;
    }
    if (status == ERR_OK && e.type == ENTRY_DATA && e.size != job->range.size) {
        return serve_piece(v, &e, job);
    }
    if (status != ERR_OK || e.size != job->range.size ||
        job->range.offset != 0) {
        return status == ERR_OK ? ERR_NOT_FOUND : status;
    }
    if (e.type == ENTRY_DATA) {
        status =
            env_file_pread(v->log.file, job->data, e.size, e.position, &got);
        return status == ERR_OK &&
                       (got < e.size || !segment_batch_is(job->data, &e))
                   ? ERR_CORRUPT
                   : status;
    }
    status = segment_read_payload(v, slot, &e, &payload);
    if (status == ERR_OK) {
        memcpy(job->data, payload, e.size);
        mem_free(payload);
    }
    return status;
}

static enum err serve_run(struct catchup_job *job)
{
    const struct repair_serving *s = job->arg;
    struct segment_view v = {.env = s->partition->env,
                             .dir = s->partition->dir};
    enum err e = serve_find(s, &v);
    if (e == ERR_OK) {
        e = serve_entry(s, &v, job);
    }
    segment_view_close(&v);
    return e;
}

enum err repair_serve_begin(struct partition *p, struct catchup_job *job)
{
    bool slot = job->range.offset == REPAIR_SLOT_AT;
    size_t n = partition_segment_count(p);
    if ((slot && job->range.size != SIDE_SLOT) || n == 0) {
        return ERR_NOT_FOUND;
    }
    struct repair_serving *s = mem_zalloc(sizeof *s);
    s->partition = p;
    s->index.v = job->range.file >> 2;
    s->slot = slot;
    s->n = n;
    s->segments = mem_alloc(n * sizeof *s->segments);
    for (size_t i = 0; i < n; i++) {
        s->segments[i] = partition_segment_at(p, i);
    }
    partition_ref(p);
    job->run = serve_run;
    job->arg = s;
    return ERR_OK;
}

void repair_serve_end(struct catchup_job *job)
{
    struct repair_serving *s = job->arg;
    struct partition *p = s->partition;
    mem_free(s->segments);
    mem_free(s);
    partition_unref(p);
}
