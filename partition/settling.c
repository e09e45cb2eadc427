/* Settling and coming back: what is applied goes into segments; the shard's
 * checkpoint names what is there; a start reads the checkpoint and what came
 * after the last snapshot of producer state, nothing else.
 *
 * The blob in the checkpoint, big-endian:
 *    0 u16 version 1         2 u16 number of epochs   4 u32 tail area
 *    8 i64 log start        16 i64 next offset       24 u64 bytes ever
 *   32 u64 chain            40 i64 active base       48 u64 its .log bytes
 *   56 u64 its side slots   64 i64 its running maximum timestamp
 *   72 i64 its first timestamp
 *   80 u64 snapshot index   88 u64 snapshot slot    96 u64 its bytes
 *  104 per epoch: i32 epoch, u64 first index, i64 first offset */
#include <inttypes.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "partition/bytes.h"
#include "partition/partition_impl.h"
#include "partition/tail.h"

#define BLOB_VERSION 1
#define BLOB_HEAD 104
#define BLOB_EPOCH 20
_Static_assert(BLOB_HEAD + LIMIT_EPOCHS * BLOB_EPOCH <= SETTLE_BLOB_MAX,
               "epochs fit the checkpoint");

/* ---- the blob ------------------------------------------------------------ */
uint32_t settled_encode(const struct log_state *s, kafka_offset log_start,
                        const struct epochs *epochs,
                        uint8_t blob[SETTLE_BLOB_MAX])
{
    uint16_t n = 0;
    uint8_t *to = blob + BLOB_HEAD;
    memset(blob, 0, BLOB_HEAD);
    for (uint32_t i = 0; i < epochs->count; i++) {
        const struct epoch_start *e = &epochs->starts[i];
        if (e->index.v > s->index.v) {
            break;
        }
        put_i32(to, e->epoch);
        put_u64(to + 4, e->index.v);
        put_i64(to + 12, e->offset.v);
        to += BLOB_EPOCH;
        n++;
    }
    put_u16(blob, BLOB_VERSION);
    put_u16(blob + 2, n);
    put_u32(blob + 4, s->tail_area ? 1 : 0);
    put_i64(blob + 8, log_start.v);
    put_i64(blob + 16, s->next.v);
    put_u64(blob + 24, s->bytes);
    put_u64(blob + 32, s->chain);
    put_i64(blob + 40, s->base.v);
    put_u64(blob + 48, s->position);
    put_u64(blob + 56, s->slots);
    put_i64(blob + 64, s->running_max);
    put_i64(blob + 72, s->first_timestamp);
    put_u64(blob + 80, s->snapshot_index.v);
    put_u64(blob + 88, s->snapshot_slot);
    put_u64(blob + 96, s->snapshot_bytes);
    return (uint32_t)(to - blob);
}

/* The table of epochs as it can be of a log that ends at (s->index, term). */
static bool epochs_fit(const struct log_state *s, raft_term_t term,
                       const struct epochs *epochs)
{
    for (uint32_t i = 0; i < epochs->count; i++) {
        const struct epoch_start *e = &epochs->starts[i];
        uint64_t index = i > 0 ? e[-1].index.v : 0;
        int64_t offset = i > 0 ? e[-1].offset.v : 0;
        if ((uint64_t)e->epoch > term.v || e->index.v <= index ||
            e->index.v > s->index.v || e->offset.v < offset ||
            e->offset.v > s->next.v) {
            return false;
        }
    }
    return true;
}

enum err settled_decode(const uint8_t *blob, uint32_t size, raft_term_t term,
                        struct log_state *s, kafka_offset *log_start,
                        struct epochs *epochs)
{
    if (size < BLOB_HEAD) {
        return ERR_CORRUPT;
    }
    if (get_u16(blob) != BLOB_VERSION) {
        return ERR_UNSUPPORTED;
    }
    uint16_t n = get_u16(blob + 2);
    if (size != (uint32_t)BLOB_HEAD + (uint32_t)n * BLOB_EPOCH) {
        return ERR_CORRUPT;
    }
    s->tail_area = get_u32(blob + 4) != 0;
    log_start->v = get_i64(blob + 8);
    s->next.v = get_i64(blob + 16);
    s->bytes = get_u64(blob + 24);
    s->chain = get_u64(blob + 32);
    s->base.v = get_i64(blob + 40);
    s->position = get_u64(blob + 48);
    s->slots = get_u64(blob + 56);
    s->running_max = get_i64(blob + 64);
    s->first_timestamp = get_i64(blob + 72);
    s->snapshot_index.v = get_u64(blob + 80);
    s->snapshot_slot = get_u64(blob + 88);
    s->snapshot_bytes = get_u64(blob + 96);
    int32_t newest = -1;
    for (const uint8_t *at = blob + BLOB_HEAD; n > 0; n--, at += BLOB_EPOCH) {
        if (get_i32(at) <= newest) {
            return ERR_CORRUPT;
        }
        newest = get_i32(at);
        epochs_append(epochs, newest, (log_index){get_u64(at + 4)},
                      (kafka_offset){get_i64(at + 12)});
    }
    if (log_start->v < 0 || s->next.v < log_start->v || s->base.v < 0 ||
        s->base.v > s->next.v || s->snapshot_slot > s->slots ||
        (s->slots == 0 && s->next.v > log_start->v) ||
        !epochs_fit(s, term, epochs)) {
        return ERR_CORRUPT;
    }
    return ERR_OK;
}

/* ---- restore ------------------------------------------------------------- */
/* Removes what the checkpoint does not name: left over by a settling or a
 * removal that did not come to its end. */
static void remove_leftover(void *arg, const char *name)
{
    struct partition *p = arg;
    int64_t number;
    uint32_t generation;
    char suffix[SEGMENT_SUFFIX_MAX];
    bool wanted = false;
    if (!segment_name_parse(name, &number, &generation, suffix)) {
        return;
    }
    if (strcmp(suffix, "producers") == 0) {
        wanted = (uint64_t)number == p->settled.snapshot_index.v;
    } else {
        for (size_t i = 0; i < partition_segment_count(p) && !wanted; i++) {
            struct segment s = partition_segment_at(p, i);
            wanted = s.base.v == number && s.generation == generation;
        }
    }
    if (!wanted) {
        char path[LIMIT_PATH];
        struct segment s = {.base = {number}, .generation = generation};
        segment_file(path, p->dir, &s, suffix);
        (void)!env_file_unlink(p->env, path);
    }
}

/* The active segment's end must be what the checkpoint says. */
static enum err check_active(struct partition *p)
{
    struct segment_view v = {
        .env = p->env,
        .dir = p->dir,
        .segment = partition_segment_at(p, p->n_closed_segments)};
    uint64_t log_size, side_size;
    struct side_head head;
    enum err status = segment_view_open(&v, true);
    if (status == ERR_OK) {
        status = env_file_size(v.log.file, &log_size);
    }
    if (status == ERR_OK) {
        status = env_file_size(v.side.file, &side_size);
    }
    if (status == ERR_OK && (log_size < p->settled.position ||
                             side_slots_in(side_size) < p->settled.slots)) {
        status = ERR_CORRUPT;
    }
    if (status == ERR_OK) {
        status = tail_repair(v.log.file, v.side.file, &p->settled, p->name);
    }
    if (status == ERR_OK) {
        status = segment_read_head(&v, &head);
    }
    if (status == ERR_OK && !group_id_equal(&head.group, &p->id)) {
        status = ERR_CORRUPT;
    }
    segment_view_close(&v);
    return status;
}

static enum err load_snapshot(struct partition *p)
{
    char path[LIMIT_PATH];
    void *data;
    size_t size;
    if (p->settled.snapshot_index.v == 0) {
        return ERR_OK;
    }
    segment_path(path, p->dir, (int64_t)p->settled.snapshot_index.v,
                 "producers");
    enum err status =
        env_file_read_whole(p->env, path, LIMIT_PRODUCERS_BYTES, &data, &size);
    if (status == ERR_OK) {
        status = producers_load(p->producers, data, size, env_now_ms(p->env));
        mem_free(data);
    }
    return status == ERR_NOT_FOUND ? ERR_CORRUPT : status;
}

/* Producers since the snapshot, from the side file, expiry included. */
static enum err load_producers(struct partition *p)
{
    struct segment_view v = {
        .env = p->env,
        .dir = p->dir,
        .segment = partition_segment_at(p, p->n_closed_segments)};
    struct side_cursor c = {.next = p->settled.snapshot_slot};
    struct side_entry e;
    enum err status = load_snapshot(p);
    if (status == ERR_OK) {
        status = segment_view_open(&v, false);
    }
    while (status == ERR_OK) {
        status = side_cursor_next(&v, &c, &e);
        if (status == ERR_OK && e.type == ENTRY_DATA) {
            struct batch_header h;
            side_entry_header(&e, &h);
            producers_apply(p->producers, &h, env_now_ms(p->env));
        } else if (status == ERR_OK && e.type == ENTRY_CONTROL) {
            uint8_t *payload;
            status = segment_read_payload(
                &v, c.next - side_slots(e.type, e.size), &e, &payload);
            if (status == ERR_OK) {
                control_apply(p, payload, e.size);
                mem_free(payload);
            }
        }
    }
    side_cursor_free(&c);
    segment_view_close(&v);
    return status == ERR_NOT_FOUND ? ERR_OK : status;
}

/* Bytes read at a time when all settled batches are applied again. */
#define REPLAY_BYTES ((size_t)1 << 20)

static void replay_bytes(struct partition *p, const uint8_t *data, size_t size)
{
    while (size > 0) {
        struct batch_header h;
        /* It was checked when it was read. */
        ASSERT(batch_header_read(data, size, &h) == ERR_OK);
        if (batch_last_offset(&h).v >= p->told.v) {
            p->ops.applied(p->arg, p, h.base_offset, data,
                           (uint32_t)batch_size(&h));
        }
        data += batch_size(&h);
        size -= batch_size(&h);
    }
}

static enum err replay_segment(struct partition *p, size_t i)
{
    struct segment_view v = {
        .env = p->env, .dir = p->dir, .segment = partition_segment_at(p, i)};
    struct side_entry e;
    uint64_t slot;
    kafka_offset from = p->told, bad;
    enum err status = segment_view_open(&v, true);
    while (status == ERR_OK) {
        uint8_t *data;
        size_t size;
        status = segment_find_offset(&v, from, &slot, &e);
        if (status == ERR_OK) {
            status =
                segment_read(&v, slot, REPLAY_BYTES, true, &data, &size, &bad);
        }
        if (status == ERR_OK && bad.v >= 0) {
            status = ERR_CORRUPT;
            mem_free(data);
        }
        if (status == ERR_OK) {
            size_t last = 0;
            struct batch_header h;
            for (size_t at = 0; at < size; at += batch_size(&h)) {
                ASSERT(batch_header_read(data + at, size - at, &h) == ERR_OK);
                last = at;
            }
            ASSERT(batch_header_read(data + last, size - last, &h) == ERR_OK);
            from.v = batch_last_offset(&h).v + 1;
            replay_bytes(p, data, size);
            p->told = from;
            mem_free(data);
        }
    }
    segment_view_close(&v);
    return status == ERR_NOT_FOUND ? ERR_OK : status;
}

/* The owner builds its state from all batches: those settled come from the
 * segments, as far as it has not been told of them before a transfer. */
static enum err replay(struct partition *p)
{
    enum err status = ERR_OK;
    if (p->told.v < p->log_start.v) {
        p->told = p->log_start;
    }
    for (size_t i = 0; i < partition_segment_count(p) && status == ERR_OK;
         i++) {
        status = replay_segment(p, i);
    }
    return status;
}

static enum err restore_files(struct partition *p)
{
    enum err status;
    if (p->settled.slots == 0) {
        return ERR_OK;
    }
    status = manifest_load(p->env, p->dir, p->settled.base, &p->closed_segments,
                           &p->n_closed_segments, &p->compacted);
    if (status != ERR_OK) {
        return status;
    }
    for (size_t i = 0; i < p->n_closed_segments; i++) {
        const struct segment *s = &p->closed_segments[i];
        if (s->generation >= p->next_generation) {
            p->next_generation = s->generation + 1;
        }
        /* The list may be that of a transfer which came to nothing: what never
         * was compacted is looked at again. */
        if (s->compaction == 0 && s->base.v < p->compacted.v) {
            p->compacted = s->base;
        }
    }
    if (p->compacted.v > p->settled.base.v) {
        p->compacted = p->settled.base;
    }
    p->dir_made = true;
    if (partition_segment_at(p, 0).base.v > p->log_start.v) {
        return ERR_CORRUPT; /* a segment is missing */
    }
    /* Closed segments below the log start are gone or about to. */
    size_t n = 0;
    while (n < p->n_closed_segments &&
           partition_segment_at(p, n + 1).base.v <= p->log_start.v) {
        n++;
    }
    closed_segments_drop(p, n);
    status = env_dir_list(p->env, p->dir, remove_leftover, p);
    if (status == ERR_OK) {
        status = check_active(p);
    }
    return status;
}

/* Forgets everything: a new state is about to be restored. */
static void reset(struct partition *p)
{
    repair_stop(p);
    refetch_stop(p);
    while (p->ring.count > 0) {
        ring_pop_back(&p->ring);
    }
    epochs_free(&p->epochs);
    producers_free(p->producers);
    p->producers = producers_new();
    mem_free(p->closed_segments);
    p->closed_segments = NULL;
    p->n_closed_segments = 0;
    file_cache_forget(p->shard->files, p->number, -1);
    p->compacted.v = 0;
    memset(&p->settled, 0, sizeof p->settled);
    p->settled.running_max = p->settled.first_timestamp = -1;
    p->log_start.v = 0;
}

enum err settled_restore(void *sm, log_index settled, raft_term_t term,
                         const uint8_t *blob, uint32_t size)
{
    struct partition *p = sm;
    enum err status = ERR_OK;
    reset(p);
    p->settled.index = settled;
    if (size > 0) {
        status = settled_decode(blob, size, term, &p->settled, &p->log_start,
                                &p->epochs);
        if (status == ERR_OK) {
            status = restore_files(p);
        }
    }
    p->settled_log_start = p->log_start;
    p->last = p->applied = settled;
    p->end = p->high_watermark = p->settled.next;
    p->end_bytes = p->applied_bytes = p->settled.bytes;
    if (status == ERR_OK && p->settled.slots > 0) {
        status = load_producers(p);
    }
    if (status == ERR_OK && p->ops.applied != NULL) {
        status = replay(p);
    }
    if (status != ERR_OK) {
        log_error("partition", "%s: the settled log in %s cannot be used: %s",
                  p->name, p->dir, err_text(status));
        status = status == ERR_IO ? ERR_IO : ERR_CORRUPT;
    }
    return status;
}

/* ---- settle -------------------------------------------------------------- */
struct settle_context {
    struct settle settle;
    struct partition *partition;
    kafka_offset log_start; /* at the job's end */
    struct epochs epochs;   /* a copy, for the worker */
};

/* How old a segment may become, by its records' timestamps. The jitter is the
 * same on every replica. */
static int64_t segment_age_max(const struct partition *p, kafka_offset base)
{
    const struct partition_config *c = &p->config;
    int64_t age = c->segment_ms;
    if (c->cleanup_compact && c->max_compaction_lag_ms > 0 &&
        c->max_compaction_lag_ms < age) {
        age = c->max_compaction_lag_ms;
    }
    int64_t jitter = c->segment_jitter_ms < age ? c->segment_jitter_ms : age;
    if (jitter > 0) {
        uint64_t seed = side_chain((uint64_t)base.v, (log_index){1},
                                   (raft_term_t){(uint64_t)p->id.partition},
                                   ENTRY_NOOP, p->id.topic.b[0], 0);
        age -= (int64_t)(seed % (uint64_t)jitter);
    }
    return age;
}

/* Where segments begin: decided here, so that the worker only writes. */
static void plan_rolls(struct partition *p, struct settle *s)
{
    uint64_t position = s->from.position;
    int64_t first = s->from.first_timestamp;
    /* What lies below the log's start as a whole: closed, so that it can go. */
    bool wanted = s->from.position > 0 && p->log_start.v >= s->from.next.v;
    int64_t age_max = segment_age_max(p, s->from.base);
    for (size_t i = 0; i < s->n_entries; i++) {
        struct settle_entry *e = &s->entries[i];
        const struct log_entry *in =
            ring_at(&p->ring, ring_find(&p->ring, e->index));
        if (e->type != ENTRY_DATA) {
            continue;
        }
        bool full = position + e->size > (uint64_t)p->config.segment_bytes;
        bool old = first >= 0 && in->max_timestamp - first > age_max;
        if (position > 0 && (full || old || wanted)) {
            e->roll = true;
            wanted = false;
            position = 0;
            s->n_closed++; /* room for it */
        }
        if (position == 0) {
            first = in->max_timestamp;
            age_max = segment_age_max(p, in->base_offset);
        }
        position += e->size;
    }
}

static void plan_entries(struct partition *p, struct settle *s)
{
    s->n_entries = (size_t)(p->applied.v - p->settled.index.v);
    s->entries = mem_zalloc(s->n_entries * sizeof *s->entries);
    for (size_t i = 0; i < s->n_entries; i++) {
        log_index index = {p->settled.index.v + 1 + i};
        uint32_t at = ring_find(&p->ring, index);
        ASSERT(at < p->ring.count); /* not settled: in memory */
        const struct log_entry *e = ring_at(&p->ring, at);
        struct group_entry view = ring_view(p, at);
        s->entries[i] = (struct settle_entry){
            .index = index,
            .term = e->term,
            .type = e->type,
            .size = e->size,
            .crc = e->crc,
            .payload = view.payload,
            .chunk = view.chunk,
        };
        if (view.chunk != NULL) {
            log_chunk_ref(view.chunk);
        }
    }
}

static void plan_snapshot(struct partition *p, struct settle *s)
{
    bool rolls = s->n_closed > s->n_closed_before;
    uint64_t slots = s->from.slots + s->n_entries;
    if (!rolls && s->from.slots > 0 &&
        slots - s->from.snapshot_slot < LIMIT_PRODUCER_SLOTS) {
        return;
    }
    s->snapshot_due = true;
    if (producers_count(p->producers) > 0) {
        producers_save(p->producers, &s->snapshot);
    }
}

static enum err settle_run(struct settle_job *job)
{
    struct settle_context *c = job->arg;
    struct settle *s = &c->settle;
    s->scratch = job->scratch;
    enum err status = settle_write(s);
    if (status != ERR_OK) {
        return status;
    }
    job->n_files = job->n_dirs = 0;
    job->files[job->n_files++] = s->new_log != NULL ? s->new_log : s->log.file;
    job->files[job->n_files++] =
        s->new_side != NULL ? s->new_side : s->side.file;
    if (s->created) {
        job->dirs[job->n_dirs++] = s->dir;
    }
    job->blob_size =
        settled_encode(&s->to, c->log_start, &c->epochs, job->blob);
    return ERR_OK;
}

bool settle_begin(void *sm, struct settle_job *job)
{
    struct partition *p = sm;
    ASSERT(p->transfer == NULL); /* files are being received */
    if (p->settling || p->switching || p->applied.v == p->settled.index.v) {
        return false;
    }
    struct settle_context *c = mem_zalloc(sizeof *c);
    struct settle *s = &c->settle;
    c->partition = p;
    c->log_start = p->log_start;
    s->env = p->env;
    s->dir = p->dir;
    s->group = p->id;
    s->make_dir = !p->dir_made;
    s->from = p->settled;
    plan_entries(p, s);
    s->n_closed = s->n_closed_before = p->n_closed_segments;
    s->compacted = p->compacted;
    plan_rolls(p, s);
    plan_snapshot(p, s);
    s->closed = mem_alloc((s->n_closed + 1) * sizeof *s->closed);
    for (size_t i = 0; i < s->n_closed_before; i++) {
        s->closed[i] = p->closed_segments[i];
    }
    for (uint32_t i = 0; i < p->epochs.count; i++) {
        epochs_append(&c->epochs, p->epochs.starts[i].epoch,
                      p->epochs.starts[i].index, p->epochs.starts[i].offset);
    }
    if (s->from.slots > 0) {
        struct file_key key = {p->number, s->from.base.v, FILE_LOG_DIRECT, 0};
        file_cache_take(p->shard->files, &key, &s->log);
        key.kind = FILE_SIDE;
        file_cache_take(p->shard->files, &key, &s->side);
    }
    job->upto = p->applied;
    job->run = settle_run;
    job->arg = c;
    p->settling = true;
    partition_ref(p);
    return true;
}

/* Files that a roll made go to the cache under their own segment. */
static void keep_new_files(struct partition *p, struct settle *s)
{
    struct file_key key = {p->number, s->to.base.v, FILE_LOG_DIRECT, 0};
    struct file_use use;
    if (s->new_log == NULL) {
        return;
    }
    file_cache_take(p->shard->files, &key, &use);
    use.file = s->new_log;
    file_cache_give(p->shard->files, &use);
    key.kind = FILE_SIDE;
    file_cache_take(p->shard->files, &key, &use);
    use.file = s->new_side;
    file_cache_give(p->shard->files, &use);
}

/* The snapshot that the new checkpoint does not name any more. */
struct old_snapshot {
    struct env_work work;
    struct env *env;
    char path[LIMIT_PATH];
};

static void old_snapshot_run(struct env_work *work)
{
    struct old_snapshot *o = work->arg;
    (void)!env_file_unlink(o->env, o->path);
}

static void old_snapshot_done(struct env_work *work)
{
    mem_free(work->arg);
}

static void remove_old_snapshot(struct partition *p, log_index old)
{
    /* One that a replica may be reading goes at the next start. */
    if (old.v == 0 || old.v == p->settled.snapshot_index.v || p->leased) {
        return;
    }
    struct old_snapshot *o = mem_zalloc(sizeof *o);
    o->env = p->env;
    segment_path(o->path, p->dir, (int64_t)old.v, "producers");
    partition_work(p->env, &o->work, old_snapshot_run, old_snapshot_done, o);
}

static void settle_adopt(struct partition *p, struct settle_context *c)
{
    struct settle *s = &c->settle;
    log_index old = p->settled.snapshot_index;
    p->settled = s->to;
    p->settled_log_start = c->log_start;
    p->dir_made = true;
    if (s->n_closed > s->n_closed_before) {
        mem_free(p->closed_segments);
        p->closed_segments = s->closed;
        p->n_closed_segments = s->n_closed;
        s->closed = NULL;
    }
    keep_new_files(p, s);
    remove_old_snapshot(p, old);
    retention_remove(p);
}

void settle_end(void *sm, struct settle_job *job)
{
    struct partition *p = sm;
    struct settle_context *c = job->arg;
    struct settle *s = &c->settle;
    file_cache_give(p->shard->files, &s->log);
    file_cache_give(p->shard->files, &s->side);
    if (job->status == ERR_OK) {
        settle_adopt(p, c);
    }
    for (size_t i = 0; i < s->n_entries; i++) {
        if (s->entries[i].chunk != NULL) {
            log_chunk_unref(s->entries[i].chunk);
        }
    }
    mem_free(s->entries);
    mem_free(s->closed);
    buffer_free(&s->snapshot);
    epochs_free(&c->epochs);
    mem_free(c);
    p->settling = false;
    compaction_poll(p);
    partition_unref(p);
}
