/* Transfer of settled segments to a replica that was away longer than the
 * leader's window (raft/catchup.h).
 *
 * Segments are the same bytes by offset on every replica, but may be cut at
 * other offsets, and each replica compacts its closed ones by itself. The
 * replica keeps its own up to the last of the leader's segments that begins at
 * or before its end and where its own log can be cut, the joint, and receives
 * that one and all behind it. (A compacted segment has no place to cut inside:
 * then the joint is further back.) If it has a segment of the joint's name
 * itself, not compacted, that is a beginning of the leader's and only the rest
 * is received, written behind what the running replica uses (bytes behind the
 * checkpoint do not exist for it, and what it may settle there meanwhile is the
 * same). Other names that collide, and all compacted segments, get a generation
 * of their own, so that nothing the running replica uses is touched.
 *
 * Before the switch a worker walks all that was received: chain, positions,
 * every batch. Then files and the list of segments are durable, and the host's
 * checkpoint with the new blob is the switch.
 *
 * Manifest, big-endian: u16 version 2, u16 zero, u32 size of the blob, the blob
 * of settling.c, i64 offset up to which it is compacted, u32 count, then per
 * segment (the active one last) i64 base, i64 end, u64 bytes, u64 slots, i64
 * maximum timestamp, u64 id of its compaction, i64 horizon.
 *
 * A file's number is base * 4 + what it is; of the snapshot of producer state
 * its log index * 4 + 2; of a single entry, log index * 4 + 3: its payload from
 * 0 on, its slot of the side file at REPAIR_SLOT_AT; of a segment asked for by
 * an offset in it, offset * 4 + 3: what it is at REFETCH_SEGMENT_AT. */
#include "raft/catchup.h"

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "partition/bytes.h"
#include "partition/partition_impl.h"
#include "partition/tail.h"

#define MANIFEST_VERSION 2
#define MANIFEST_HEAD 8
#define MANIFEST_COUNT 12
#define MANIFEST_SEGMENT 56

enum transfer_file {
    TRANSFER_LOG = 0,
    TRANSFER_SIDE = 1,
    TRANSFER_SNAPSHOT = 2,
    TRANSFER_ENTRY = 3, /* one entry, for repair (repair.c) */
};
static const char *const suffixes[] = {"log", "side", "producers"};

static uint64_t file_number(int64_t number, enum transfer_file kind)
{
    return (uint64_t)number * 4 + kind;
}

/* ---- leader -------------------------------------------------------------- */
static enum err manifest_make(void *sm, log_index settled, struct buffer *out)
{
    struct partition *p = sm;
    uint8_t blob[SETTLE_BLOB_MAX], head[MANIFEST_HEAD] = {0};
    uint8_t count[MANIFEST_COUNT];
    if (settled.v != p->settled.index.v || p->settled.slots == 0 ||
        p->switching) {
        return ERR_NOT_READY;
    }
    uint32_t size =
        settled_encode(&p->settled, p->settled_log_start, &p->epochs, blob);
    put_u16(head, MANIFEST_VERSION);
    put_u32(head + 4, size);
    buffer_append(out, head, sizeof head);
    buffer_append(out, blob, size);
    put_i64(count, p->compacted.v);
    put_u32(count + 8, (uint32_t)partition_segment_count(p));
    buffer_append(out, count, sizeof count);
    for (size_t i = 0; i < partition_segment_count(p); i++) {
        struct segment s = partition_segment_at(p, i);
        uint8_t to[MANIFEST_SEGMENT];
        put_i64(to, s.base.v);
        put_i64(to + 8, s.end.v);
        put_u64(to + 16, s.bytes);
        put_u64(to + 24, s.slots);
        put_i64(to + 32, s.max_timestamp);
        put_u64(to + 40, s.compaction);
        put_i64(to + 48, s.horizon);
        buffer_append(out, to, sizeof to);
    }
    return ERR_OK;
}

static void on_lease(void *sm, bool held)
{
    struct partition *p = sm;
    p->leased = held;
    if (!held) {
        retention_remove(p);
        compaction_poll(p);
    }
}

struct transfer_read {
    struct partition *partition;
    struct segment_view view;
    enum transfer_file kind;
    char path[LIMIT_PATH];
};

static enum err transfer_read_run(struct catchup_job *job)
{
    struct transfer_read *r = job->arg;
    struct env_file *file = NULL;
    size_t got;
    enum err status;
    if (r->kind == TRANSFER_SNAPSHOT) {
        status =
            env_file_open(r->partition->env, r->path, ENV_FILE_READ, &file);
    } else {
        status = segment_view_open(&r->view, r->kind == TRANSFER_LOG);
        file = r->kind == TRANSFER_LOG ? r->view.log.file : r->view.side.file;
    }
    if (status == ERR_OK) {
        status = env_file_pread(file, job->data, job->range.size,
                                job->range.offset, &got);
        if (status == ERR_OK && got < job->range.size) {
            status = ERR_NOT_FOUND;
        }
    }
    if (r->kind == TRANSFER_SNAPSHOT && file != NULL) {
        env_file_close(file);
    }
    return status;
}

/* The number of the closed or active segment of this name; count: none. */
static size_t segment_named(const struct partition *p, int64_t base)
{
    size_t n = partition_segment_count(p);
    size_t i = n == 0 ? 0 : partition_segment_find(p, (kafka_offset){base});
    return i < n && partition_segment_at(p, i).base.v == base ? i : n;
}

static bool range_within(const struct catchup_range *range, uint64_t size)
{
    return range->offset <= size && range->size <= size - range->offset;
}

static enum err read_begin(void *sm, struct catchup_job *job)
{
    struct partition *p = sm;
    enum transfer_file kind = (enum transfer_file)(job->range.file & 3);
    int64_t number = (int64_t)(job->range.file >> 2);
    size_t i = 0;
    if (kind == TRANSFER_ENTRY && job->range.offset == REFETCH_SEGMENT_AT) {
        return refetch_serve_begin(p, job);
    }
    if (kind == TRANSFER_ENTRY) {
        return repair_serve_begin(p, job);
    }
    if (kind == TRANSFER_SNAPSHOT) {
        if ((uint64_t)number != p->settled.snapshot_index.v ||
            !range_within(&job->range, p->settled.snapshot_bytes)) {
            return ERR_NOT_FOUND;
        }
    } else {
        i = segment_named(p, number);
        if (kind > TRANSFER_SIDE || i == partition_segment_count(p)) {
            return ERR_NOT_FOUND;
        }
        struct segment s = partition_segment_at(p, i);
        if (!range_within(&job->range, kind == TRANSFER_LOG
                                           ? s.bytes
                                           : side_offset(s.slots))) {
            return ERR_NOT_FOUND;
        }
    }
    struct transfer_read *r = mem_zalloc(sizeof *r);
    r->partition = p;
    r->kind = kind;
    if (kind == TRANSFER_SNAPSHOT) {
        segment_path(r->path, p->dir, number, suffixes[kind]);
    } else {
        partition_view_take(p, i, &r->view);
    }
    partition_ref(p);
    job->run = transfer_read_run;
    job->arg = r;
    return ERR_OK;
}

static void read_end(void *sm, struct catchup_job *job)
{
    struct transfer_read *r = job->arg;
    if ((job->range.file & 3) == TRANSFER_ENTRY &&
        job->range.offset == REFETCH_SEGMENT_AT) {
        refetch_serve_end(job);
        return;
    }
    if ((job->range.file & 3) == TRANSFER_ENTRY) {
        repair_serve_end(job);
        return;
    }
    struct partition *p = r->partition;
    (void)sm;
    partition_view_give(p, &r->view);
    mem_free(r);
    partition_unref(p);
}

/* ---- follower ------------------------------------------------------------ */
/* One file that is received: [from, size) of it, in order. */
struct transfer_part {
    uint64_t number;
    uint64_t from, size;
    uint64_t asked; /* given out up to here */
    uint64_t done;  /* written up to here, without a hole */
};

/* Ranges that were written while one before them was not: a few, since only a
 * few are under way. */
#define LATE_MAX 16

struct partition_transfer {
    struct log_state state; /* to come */
    kafka_offset log_start;
    struct epochs epochs;
    struct segment *segments; /* the leader's, with our generations */
    size_t n_segments;
    kafka_offset compacted;
    uint32_t generation; /* of files whose names would collide */
    size_t joint;        /* number of the first that is received */
    bool apart;          /* nothing of ours is kept */
    struct here {
        uint64_t bytes, slots;
    } * here; /* of each segment: what was there already */
    struct transfer_part *parts;
    size_t n_parts, at; /* at: the part being given out */
    struct catchup_range late[LATE_MAX];
    size_t n_late;
    /* receive_finish */
    struct partition *partition;
    struct segment *closed; /* the list to come */
    size_t n_closed;
    bool cut; /* the last of ours ends earlier than its file */
};

static void transfer_free(struct partition_transfer *t)
{
    if (t != NULL) {
        epochs_free(&t->epochs);
        mem_free(t->segments);
        mem_free(t->here);
        mem_free(t->parts);
        mem_free(t->closed);
        mem_free(t);
    }
}

static bool parse_segments(struct partition_transfer *t, const uint8_t *at,
                           size_t size)
{
    if (size < MANIFEST_COUNT ||
        (size - MANIFEST_COUNT) % MANIFEST_SEGMENT != 0 ||
        (size - MANIFEST_COUNT) / MANIFEST_SEGMENT != get_u32(at + 8) ||
        get_u32(at + 8) == 0) {
        return false;
    }
    t->compacted.v = get_i64(at);
    t->n_segments = get_u32(at + 8);
    t->segments = mem_alloc(t->n_segments * sizeof *t->segments);
    at += MANIFEST_COUNT;
    for (size_t i = 0; i < t->n_segments; i++, at += MANIFEST_SEGMENT) {
        struct segment *s = &t->segments[i];
        *s = (struct segment){.base = {get_i64(at)},
                              .end = {get_i64(at + 8)},
                              .bytes = get_u64(at + 16),
                              .slots = get_u64(at + 24),
                              .max_timestamp = get_i64(at + 32),
                              .compaction = get_u64(at + 40),
                              .horizon = get_i64(at + 48)};
        if (s->base.v < 0 || s->base.v > INT64_MAX / 4 - 1 ||
            s->end.v < s->base.v || s->slots < 2 || s->bytes > INT64_MAX ||
            s->slots > INT64_MAX / SIDE_SLOT ||
            (i > 0 &&
             (s->base.v != s[-1].end.v || s[-1].base.v == s[-1].end.v))) {
            return false;
        }
    }
    const struct segment *last = &t->segments[t->n_segments - 1];
    return last->base.v == t->state.base.v && last->end.v == t->state.next.v &&
           last->compaction == 0 && last->bytes == t->state.position &&
           last->slots == t->state.slots &&
           t->segments[0].base.v <= t->log_start.v;
}

static bool parse_manifest(struct partition_transfer *t, raft_term_t term,
                           const uint8_t *manifest, size_t size)
{
    if (size < MANIFEST_HEAD || get_u16(manifest) != MANIFEST_VERSION) {
        return false;
    }
    uint32_t blob = get_u32(manifest + 4);
    return blob <= size - MANIFEST_HEAD &&
           settled_decode(manifest + MANIFEST_HEAD, blob, term, &t->state,
                          &t->log_start, &t->epochs) == ERR_OK &&
           parse_segments(t, manifest + MANIFEST_HEAD + blob,
                          size - MANIFEST_HEAD - blob);
}

/* Can our log be cut at `offset`, in front of what the leader has from there
 * on? Not inside a compacted segment: the entry may be gone. */
static bool can_cut_at(const struct partition *p, kafka_offset offset)
{
    size_t n = partition_segment_count(p);
    if (n == 0) {
        return true;
    }
    struct segment s =
        partition_segment_at(p, partition_segment_find(p, offset));
    return s.base.v >= offset.v || s.end.v <= offset.v || s.compaction == 0;
}

/* Is ours a beginning of theirs, so that the rest may be written behind it? */
static bool begins(const struct segment *ours, const struct segment *theirs)
{
    return ours->compaction == theirs->compaction &&
           ours->bytes <= theirs->bytes && ours->slots <= theirs->slots;
}

/* Names for the files to be received: none that the running replica uses but of
 * those that go on in the same file. The active one, which is the last, has
 * generation 0; so has ours of its name if it was never compacted, and then it
 * cannot be longer. */
static bool choose_names(const struct partition *p,
                         struct partition_transfer *t)
{
    size_t n = partition_segment_count(p);
    t->here = mem_zalloc(t->n_segments * sizeof *t->here);
    for (size_t i = t->joint; i < t->n_segments; i++) {
        struct segment *theirs = &t->segments[i];
        size_t same = segment_named(p, theirs->base.v);
        struct segment ours = {.generation = 1};
        bool last = i + 1 == t->n_segments;
        if (same < n) {
            ours = partition_segment_at(p, same);
        }
        theirs->generation = 0;
        if (same < n && begins(&ours, theirs) &&
            (!last || ours.generation == 0)) {
            theirs->generation = ours.generation;
            t->here[i] = (struct here){ours.bytes, ours.slots};
        } else if (theirs->compaction != 0 || ours.generation == 0) {
            if (last) {
                return false; /* behind its own checkpoint: makes no sense */
            }
            theirs->generation = t->generation;
        }
    }
    return true;
}

/* Where the leader's log joins ours: in the segment of our last batch. One that
 * begins just behind it may follow on entries that are no batches, which lie
 * at the end of the segment before and which we may lack. False: nowhere. */
static bool find_joint(const struct partition *p, struct partition_transfer *t)
{
    t->joint = 0;
    while (t->joint + 1 < t->n_segments &&
           t->segments[t->joint + 1].base.v < p->settled.next.v) {
        t->joint++;
    }
    while (t->joint > 0 && !can_cut_at(p, t->segments[t->joint].base)) {
        t->joint--;
    }
    kafka_offset joint = t->segments[t->joint].base;
    t->apart = joint.v >= p->settled.next.v || !can_cut_at(p, joint);
    /* What the leader took out behind the joint may have been what made older
     * records of ours, in front of it, count no more. */
    if (t->compacted.v > joint.v && t->compacted.v > p->compacted.v) {
        t->joint = 0;
        t->apart = true;
    }
    if (!t->apart && p->compacted.v < t->compacted.v) {
        t->compacted = p->compacted;
    }
    return choose_names(p, t);
}

static void add_part(struct partition_transfer *t, uint64_t number,
                     uint64_t from, uint64_t size)
{
    if (from < size) {
        t->parts[t->n_parts++] =
            (struct transfer_part){number, from, size, from, from};
    }
}

static void plan_parts(struct partition_transfer *t)
{
    size_t n = t->n_segments - t->joint;
    t->parts = mem_zalloc((2 * n + 1) * sizeof *t->parts);
    for (size_t i = t->joint; i < t->n_segments; i++) {
        const struct segment *s = &t->segments[i];
        uint64_t bytes = t->here[i].bytes, slots = t->here[i].slots;
        add_part(t, file_number(s->base.v, TRANSFER_LOG), bytes, s->bytes);
        add_part(t, file_number(s->base.v, TRANSFER_SIDE),
                 slots == 0 ? 0 : side_offset(slots), side_offset(s->slots));
    }
    /* One of the same name is what we start from until the switch: it must not
     * be written over, and says the same. */
    const struct log_state *ours = &t->partition->settled;
    bool have = t->state.snapshot_index.v == ours->snapshot_index.v &&
                t->state.snapshot_bytes == ours->snapshot_bytes;
    if (t->state.snapshot_index.v != 0 && !have) {
        add_part(
            t,
            file_number((int64_t)t->state.snapshot_index.v, TRANSFER_SNAPSHOT),
            0, t->state.snapshot_bytes);
    }
}

/* The segment that a part is of; NULL: it is the snapshot. */
static const struct segment *part_segment(const struct partition_transfer *t,
                                          const struct transfer_part *part)
{
    for (size_t i = t->joint;
         i < t->n_segments && (part->number & 3) != TRANSFER_SNAPSHOT; i++) {
        if (t->segments[i].base.v == (int64_t)(part->number >> 2)) {
            return &t->segments[i];
        }
    }
    return NULL;
}

/* Both parts are of the same file, here and there? */
static bool same_file(const struct partition_transfer *t,
                      const struct transfer_part *part,
                      const struct partition_transfer *old,
                      const struct transfer_part *was)
{
    const struct segment *a = part_segment(t, part);
    const struct segment *b = part_segment(old, was);
    return part->number == was->number &&
           (a == NULL || b == NULL ? a == b
                                   : a->generation == b->generation &&
                                         a->compaction == b->compaction);
}

/* What was written for the manifest before needs no second time: files only
 * grow. */
static void take_over(struct partition_transfer *t,
                      const struct partition_transfer *old)
{
    for (size_t i = 0; i < t->n_parts; i++) {
        for (size_t k = 0; k < old->n_parts; k++) {
            struct transfer_part *part = &t->parts[i];
            const struct transfer_part *was = &old->parts[k];
            if (same_file(t, part, old, was) && was->from <= part->from &&
                was->done > part->from) {
                uint64_t done = was->done < part->size ? was->done : part->size;
                part->asked = part->done = done;
            }
        }
    }
}

static enum err receive_begin(void *sm, log_index index, raft_term_t term,
                              const uint8_t *manifest, size_t size)
{
    struct partition *p = sm;
    struct partition_transfer *t = mem_zalloc(sizeof *t);
    ASSERT(!p->settling); /* it would write over what is received */
    if (p->switching || p->n_retired > 0 || p->removals > 0) {
        mem_free(t);
        return ERR_NOT_READY; /* names are being given free */
    }
    t->partition = p;
    t->state.index = index;
    t->generation =
        p->transfer != NULL ? p->transfer->generation : p->next_generation++;
    if (!parse_manifest(t, term, manifest, size) ||
        t->state.next.v < p->settled.next.v || !find_joint(p, t)) {
        transfer_free(t);
        return ERR_CORRUPT;
    }
    plan_parts(t);
    if (p->transfer != NULL) {
        take_over(t, p->transfer);
        transfer_free(p->transfer);
    }
    p->transfer = t;
    return ERR_OK;
}

static bool receive_next(void *sm, struct catchup_range *out)
{
    struct partition_transfer *t = ((struct partition *)sm)->transfer;
    while (t->at < t->n_parts &&
           t->parts[t->at].asked == t->parts[t->at].size) {
        t->at++;
    }
    if (t->at == t->n_parts) {
        return false;
    }
    struct transfer_part *part = &t->parts[t->at];
    uint64_t left = part->size - part->asked;
    out->file = part->number;
    out->offset = part->asked;
    out->size = left < CATCHUP_RANGE_MAX ? (uint32_t)left : CATCHUP_RANGE_MAX;
    part->asked += out->size;
    return true;
}

static void receive_progress(const void *sm, uint64_t *left, uint64_t *all)
{
    const struct partition_transfer *t =
        ((const struct partition *)sm)->transfer;
    *left = *all = 0;
    for (size_t i = 0; t != NULL && i < t->n_parts; i++) {
        *left += t->parts[i].size - t->parts[i].done;
        *all += t->parts[i].size - t->parts[i].from;
    }
}

struct transfer_write {
    struct partition *partition;
    char path[LIMIT_PATH];
};

static enum err transfer_write_run(struct catchup_job *job)
{
    struct transfer_write *w = job->arg;
    struct env *env = w->partition->env;
    int flags = ENV_FILE_READ | ENV_FILE_WRITE | ENV_FILE_CREATE;
    struct env_file *file;
    struct iovec iov = {job->data, job->range.size};
    enum err status = env_file_open(env, w->path, flags, &file);
    if (status == ERR_NOT_FOUND) {
        status = env_dir_make(env, w->partition->dir);
        if (status == ERR_OK) {
            status = env_file_open(env, w->path, flags, &file);
        }
    }
    if (status == ERR_OK) {
        status = env_file_pwritev(file, &iov, 1, job->range.offset, false);
        env_file_close(file);
    }
    return status;
}

static enum err write_begin(void *sm, struct catchup_job *job)
{
    struct partition *p = sm;
    struct transfer_write *w = mem_zalloc(sizeof *w);
    const struct transfer_part part = {.number = job->range.file};
    const struct segment *s = part_segment(p->transfer, &part);
    w->partition = p;
    if (s == NULL && (job->range.file & 3) != TRANSFER_SNAPSHOT) {
        mem_free(w);
        return ERR_NOT_FOUND;
    }
    if (s != NULL) {
        segment_file(w->path, p->dir, s, suffixes[job->range.file & 3]);
    } else {
        segment_path(w->path, p->dir, (int64_t)(job->range.file >> 2),
                     suffixes[TRANSFER_SNAPSHOT]);
    }
    partition_ref(p);
    job->run = transfer_write_run;
    job->arg = w;
    return ERR_OK;
}

/* Takes over late ranges that the others have reached. */
static void part_reach(struct partition_transfer *t, struct transfer_part *part)
{
    for (size_t i = 0; i < t->n_late;) {
        if (t->late[i].file == part->number &&
            t->late[i].offset <= part->done) {
            uint64_t end = t->late[i].offset + t->late[i].size;
            part->done = end > part->done ? end : part->done;
            t->late[i] = t->late[--t->n_late];
            i = 0;
        } else {
            i++;
        }
    }
}

static void range_written(struct partition_transfer *t,
                          const struct catchup_range *range)
{
    for (size_t i = 0; i < t->n_parts; i++) {
        struct transfer_part *part = &t->parts[i];
        if (part->number == range->file) {
            if (t->n_late < LATE_MAX) {
                t->late[t->n_late++] = *range;
            }
            part_reach(t, part);
            return;
        }
    }
}

static void write_end(void *sm, struct catchup_job *job)
{
    struct transfer_write *w = job->arg;
    struct partition *p = w->partition;
    (void)sm;
    if (job->status == ERR_OK && p->transfer != NULL) {
        range_written(p->transfer, &job->range);
    }
    mem_free(w);
    partition_unref(p);
}

/* ---- the end of a transfer, on a worker ---------------------------------- */
/* Opened by itself: the cache belongs to the shard's thread. */
static struct segment_view view_of(const struct partition_transfer *t,
                                   const struct segment *s)
{
    return (struct segment_view){
        .env = t->partition->env, .dir = t->partition->dir, .segment = *s};
}

/* All batches from slot `slot` on are read and checked. */
static enum err verify_batches(struct segment_view *v, uint64_t slot)
{
    struct side_cursor c = {.next = slot};
    struct side_entry e;
    enum err status;
    while ((status = side_cursor_next(v, &c, &e)) == ERR_OK) {
        uint8_t *data;
        size_t size;
        kafka_offset bad;
        if (e.type != ENTRY_DATA) {
            continue;
        }
        status = segment_read(v, c.next - 1, CATCHUP_RANGE_MAX, true, &data,
                              &size, &bad);
        if (status == ERR_OK && (data == NULL || bad.v >= 0)) {
            status = ERR_CORRUPT;
        }
        /* Go on behind what was read. */
        size_t read = 0;
        for (; status == ERR_OK && read + e.size < size;) {
            read += e.size;
            do {
                status = side_cursor_next(v, &c, &e);
            } while (status == ERR_OK && e.type != ENTRY_DATA);
        }
        mem_free(data);
        if (status != ERR_OK) {
            break;
        }
    }
    side_cursor_free(&c);
    return status == ERR_NOT_FOUND ? ERR_OK : status;
}

/* Where a chain stands while segments are walked. */
struct walk {
    log_index index;
    uint64_t chain;
    kafka_offset next;
};

static enum err verify_chain(struct segment_view *v, struct walk *w)
{
    struct side_cursor c = {0};
    struct side_entry e;
    uint64_t position = 0;
    int64_t running = -1;
    enum err status;
    while ((status = side_cursor_next(v, &c, &e)) == ERR_OK) {
        running = e.max_timestamp > running ? e.max_timestamp : running;
        if (!side_follows(&e, w->index, w->chain) || e.position != position ||
            (e.gone == 0 && e.base_offset.v != w->next.v) ||
            e.base_offset.v < w->next.v || e.running_max != running) {
            status = ERR_CORRUPT;
            break;
        }
        w->index = e.index;
        w->chain = e.chain;
        w->next.v = side_last_offset(&e).v + 1;
        position += e.type == ENTRY_DATA ? e.size : 0;
    }
    side_cursor_free(&c);
    if (status == ERR_NOT_FOUND) {
        status = position == v->segment.bytes &&
                         w->next.v == v->segment.end.v &&
                         running == v->segment.max_timestamp
                     ? ERR_OK
                     : ERR_CORRUPT;
    }
    return status;
}

static enum err sync_view(struct segment_view *v)
{
    enum err status = env_file_sync(v->log.file);
    return status == ERR_OK ? env_file_sync(v->side.file) : status;
}

/* A segment without batches: nothing of its log was to be fetched, but the file
 * belongs to it. */
static enum err ensure_log(const struct partition_transfer *t,
                           const struct segment *segment)
{
    char path[LIMIT_PATH];
    struct env_file *file;
    enum err status;
    if (segment->bytes > 0) {
        return ERR_OK;
    }
    segment_file(path, t->partition->dir, segment, "log");
    status =
        env_file_open(t->partition->env, path,
                      ENV_FILE_READ | ENV_FILE_WRITE | ENV_FILE_CREATE, &file);
    if (status == ERR_OK) {
        env_file_close(file);
    }
    return status;
}

/* A transfer makes no copy of the tail on its way: it does now. */
static enum err save_tail(const struct partition_transfer *t,
                          const struct segment_view *v)
{
    uint8_t block[ENV_BLOCK_SIZE];
    size_t size = t->state.position % ENV_BLOCK_SIZE, got = 0;
    enum err status = env_file_pread(v->log.file, block, size,
                                     t->state.position - size, &got);
    if (status == ERR_OK && got < size) {
        status = ERR_CORRUPT;
    }
    return status == ERR_OK ? tail_save(v->side.file, &t->state, block)
                            : status;
}

/* One received segment; `w` is where the one before it ended. */
static enum err verify_segment(struct partition_transfer *t, size_t i,
                               struct walk *w)
{
    struct segment_view v = view_of(t, &t->segments[i]);
    struct side_head head;
    enum err status = ensure_log(t, &t->segments[i]);
    if (status == ERR_OK) {
        status = segment_view_open(&v, true);
    }
    if (status == ERR_OK) {
        status = segment_read_head(&v, &head);
    }
    if (status == ERR_OK && i == t->joint && w->index.v == 0) {
        *w = (struct walk){{head.first.v - 1}, head.chain, head.base};
    }
    if (status == ERR_OK &&
        (head.first.v != w->index.v + 1 || head.chain != w->chain ||
         head.base.v != w->next.v ||
         !group_id_equal(&head.group, &t->partition->id))) {
        status = ERR_CORRUPT;
    }
    if (status == ERR_OK) {
        status = verify_chain(&v, w);
    }
    if (status == ERR_OK) {
        uint64_t from = t->here[i].slots > 0 ? t->here[i].slots : 1;
        status = verify_batches(&v, from);
    }
    if (status == ERR_OK && i + 1 == t->n_segments) {
        status = save_tail(t, &v);
    }
    if (status == ERR_OK) {
        status = sync_view(&v);
    }
    segment_view_close(&v);
    return status;
}

/* Our last segment before the joint: where it ends there, by the joint's
 * head. */
static enum err cut_before_joint(struct partition_transfer *t,
                                 struct segment *ours, struct walk *w)
{
    struct segment_view joint = view_of(t, &t->segments[t->joint]);
    struct segment_view v = view_of(t, ours);
    struct side_head head;
    struct side_entry last;
    uint64_t slot = 0;
    enum err status = segment_view_open(&joint, false);
    if (status == ERR_OK) {
        status = segment_read_head(&joint, &head);
    }
    if (status == ERR_OK) {
        status = segment_view_open(&v, false);
    }
    if (status == ERR_OK) {
        status =
            segment_find_index(&v, (log_index){head.first.v - 1}, &slot, &last);
    }
    if (status == ERR_OK && (last.chain != head.chain ||
                             side_last_offset(&last).v + 1 != head.base.v)) {
        status = ERR_CORRUPT; /* not the same log at all */
    }
    if (status == ERR_OK) {
        t->cut = ours->slots != slot + side_slots(last.type, last.size);
        ours->end = head.base;
        ours->slots = slot + side_slots(last.type, last.size);
        ours->bytes = last.position + (last.type == ENTRY_DATA ? last.size : 0);
        ours->max_timestamp = last.running_max;
        *w = (struct walk){last.index, last.chain, head.base};
    }
    segment_view_close(&joint);
    segment_view_close(&v);
    return status == ERR_NOT_FOUND ? ERR_CORRUPT : status;
}

static enum err verify_snapshot(const struct partition_transfer *t)
{
    char path[LIMIT_PATH];
    void *data;
    size_t size;
    struct env_file *file;
    if (t->state.snapshot_index.v == 0) {
        return ERR_OK;
    }
    segment_path(path, t->partition->dir, (int64_t)t->state.snapshot_index.v,
                 "producers");
    enum err status = env_file_read_whole(t->partition->env, path,
                                          LIMIT_PRODUCERS_BYTES, &data, &size);
    if (status == ERR_OK) {
        struct producers *ps = producers_new();
        status = producers_load(ps, data, size, 0);
        producers_free(ps);
        mem_free(data);
    }
    if (status == ERR_OK) {
        status = env_file_open(t->partition->env, path,
                               ENV_FILE_READ | ENV_FILE_WRITE, &file);
    }
    if (status == ERR_OK) {
        status = env_file_sync(file);
        env_file_close(file);
    }
    return status;
}

static enum err finish_run(struct settle_job *job)
{
    struct partition_transfer *t = job->arg;
    struct walk w = {0};
    enum err status = ERR_OK;
    size_t n = t->n_closed;
    if (n > 0 && t->joint > 0) {
        ASSERT(t->closed[n - 1].base.v < t->segments[t->joint].base.v);
    }
    if (n > 0) {
        status = cut_before_joint(t, &t->closed[n - 1], &w);
    }
    for (size_t i = t->joint; i < t->n_segments && status == ERR_OK; i++) {
        status = verify_segment(t, i, &w);
        if (i + 1 < t->n_segments) {
            t->closed[n++] = t->segments[i];
        }
    }
    if (status == ERR_OK &&
        (w.index.v != t->state.index.v || w.chain != t->state.chain)) {
        status = ERR_CORRUPT;
    }
    if (status == ERR_OK) {
        status = verify_snapshot(t);
    }
    if (status == ERR_OK) {
        status = manifest_write(t->partition->env, t->partition->dir, t->closed,
                                n, t->compacted);
    }
    if (status == ERR_NOT_FOUND) {
        status = ERR_CORRUPT;
    }
    job->blob_size =
        settled_encode(&t->state, t->log_start, &t->epochs, job->blob);
    job->n_files = job->n_dirs = 0;
    job->dirs[job->n_dirs++] = t->partition->dir;
    return status;
}

static void receive_finish(void *sm, struct settle_job *job)
{
    struct partition *p = sm;
    struct partition_transfer *t = p->transfer;
    size_t n = partition_segment_count(p);
    mem_free(t->closed);
    t->closed = mem_zalloc((n + t->n_segments) * sizeof *t->closed);
    t->n_closed = 0;
    /* Ours up to the joint; none when the leader's log begins behind ours. */
    kafka_offset joint = t->segments[t->joint].base;
    if (!t->apart) {
        for (size_t i = 0; i < n; i++) {
            struct segment s = partition_segment_at(p, i);
            if (s.base.v < joint.v) {
                t->closed[t->n_closed++] = s;
            }
        }
    }
    /* The running replica's copy stays until the switch. */
    t->state.tail_area = !p->settled.tail_area;
    job->upto = t->state.index;
    job->run = finish_run;
    job->arg = t;
}

/* Cuts what lies behind a segment's new end: nobody reads it, but it would
 * look odd to who looks at the files. */
struct cutting {
    struct env_work work;
    struct partition *partition;
    struct segment segment;
};

static void cutting_run(struct env_work *work)
{
    struct cutting *c = work->arg;
    struct segment_view v = {.env = c->partition->env,
                             .dir = c->partition->dir,
                             .segment = c->segment};
    if (segment_view_open(&v, true) == ERR_OK) {
        (void)!env_file_truncate(v.log.file, c->segment.bytes);
        (void)!env_file_truncate(v.side.file, side_offset(c->segment.slots));
    }
    segment_view_close(&v);
}

static void cutting_done(struct env_work *work)
{
    struct cutting *c = work->arg;
    partition_unref(c->partition);
    mem_free(c);
}

static void cut_later(struct partition *p, const struct segment *s)
{
    struct cutting *c = mem_zalloc(sizeof *c);
    c->partition = p;
    c->segment = *s;
    partition_ref(p);
    partition_work(p->env, &c->work, cutting_run, cutting_done, c);
}

static void receive_end(void *sm, bool switched)
{
    struct partition *p = sm;
    if (switched && p->transfer->cut) {
        cut_later(p, &p->transfer->closed[p->transfer->n_closed - 1]);
    }
    transfer_free(p->transfer);
    p->transfer = NULL;
    if (switched) { /* the segments are about to be others */
        log_info("partition", "%s: caught up by transfer", p->name);
    } else {
        compaction_poll(p);
    }
}

const struct catchup_ops partition_catchup_ops = {
    .manifest_make = manifest_make,
    .lease = on_lease,
    .read_begin = read_begin,
    .read_end = read_end,
    .receive_begin = receive_begin,
    .receive_next = receive_next,
    .receive_progress = receive_progress,
    .write_begin = write_begin,
    .write_end = write_end,
    .receive_finish = receive_finish,
    .receive_end = receive_end,
};
