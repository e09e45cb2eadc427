/* Damage in segments that replicas need not have the same bytes of, since one
 * of them has compacted there: what a peer has of the range takes its place.
 *
 *   ask      a peer's segments over the range, one after the other
 *   receive  side files and batches of these, into files without a head
 *   ask again whether they are still the same: all was of one state then
 *   copy     what lies in the range, every batch checked, into new segments; at
 *            its end index and chain must be ours
 *   ready    waits until the list of closed segments may be replaced
 *   switch   the new segments' heads, then the new list: from here on they
 *            count; the old ones go when their last reader is done
 *
 * A peer that does not have it, or has damage in it too, is followed by the
 * next one. A crash before the switch leaves files that no list names.
 *
 * Which range. What is at stake is a tombstone that one of the two has dropped
 * already while the other still has an older record of its key: put side by
 * side they bring the record back. So everything is taken over from the log's
 * beginning to the end of the last segment that compaction has made (or to the
 * end of the damaged one): then whatever we dropped tombstones in is theirs,
 * and what is behind has all its records. A segment alone is enough if we have
 * no older records of what is in it (it lies within what we have compacted) and
 * they have compacted as far as any of ours was: then no record of theirs is
 * one that only our tombstones took back. What a peer has taken out because of
 * a newer record is no loss: that one is committed, and we have it or get it.
 *
 * Where neither has compacted all replicas have the same bytes, and repair.c
 * does it entry by entry. */
#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "partition/bytes.h"
#include "partition/compact.h"
#include "partition/partition_impl.h"
#include "raft/catchup.h"

/* Segments of a peer over one range: as many as a transfer can name. */
#define SEGMENTS_MAX (CATCHUP_MANIFEST_MAX / 64)

enum phase { BEGIN, ASK, RECEIVE, ASK_AGAIN, COPY, FINISH, READY, SWITCH };

/* The head of a segment of ours, if it can be read. */
struct edge {
    struct segment segment;
    struct side_head head;
    bool known;
};

struct told { /* by a peer, of one of its segments */
    struct segment segment;
    kafka_offset compacted;
};

struct output {
    struct segment segment;
    struct side_head head;
};

struct refetch {
    struct partition *partition;
    struct env_work work;
    bool working, stopped;
    enum phase phase;
    enum err status;
    /* ours: from the first to the last that must be replaced */
    struct segment *inputs;
    size_t n_inputs, damaged_at;
    struct edge damaged, behind_damaged, behind_all;
    kafka_offset reached; /* ours may have lost tombstones up to here */
    /* theirs */
    int peer; /* counted from 1 */
    struct group_fetch fetch;
    struct told *told;
    struct segment *theirs; /* the same as the files received here */
    size_t n_theirs, capacity, at;
    kafka_offset compacted; /* by them */
    bool alone;             /* the damaged segment alone is replaced */
    bool side;              /* its side file is being received, else the log */
    uint64_t offset;
    struct buffer bytes;
    /* the copy */
    struct compact c;
    uint32_t generation;
    bool step_done;
    struct output *outputs;
    size_t n_outputs;
    struct segment *list;
    size_t n_list;
    kafka_offset compacted_then;
};

static void next(struct refetch *r);

/* ---- the end ------------------------------------------------------------- */
static void leave_run(struct env_work *work)
{
    struct refetch *r = work->arg;
    compact_output_end(&r->c, false);
    compact_free(&r->c);
}

static void leave_done(struct env_work *work)
{
    struct refetch *r = work->arg;
    struct partition *p = r->partition;
    p->refetch = NULL;
    p->shard->refetching = NULL;
    buffer_free(&r->bytes);
    mem_free(r->inputs);
    mem_free(r->told);
    mem_free(r->theirs);
    mem_free(r->outputs);
    mem_free(r->list);
    mem_free(r);
    partition_unref(p);
}

/* Files that count for nothing, or nothing more. */
static void forget_files(struct refetch *r)
{
    struct partition *p = r->partition;
    if (!p->closed && r->phase >= RECEIVE && r->n_theirs > 0) {
        segments_remove(p, r->theirs, r->n_theirs);
    }
    for (size_t i = 0; i < r->n_outputs && !p->closed; i++) {
        segments_remove(p, &r->outputs[i].segment, 1);
    }
    r->n_theirs = r->n_outputs = 0;
}

static void leave(struct refetch *r)
{
    ASSERT(!r->working);
    forget_files(r);
    r->stopped = r->working = true;
    partition_work(r->partition->env, &r->work, leave_run, leave_done, r);
}

static void give_up(struct refetch *r, enum err why)
{
    struct partition *p = r->partition;
    if (!p->closed) {
        repair_again(p, r->damaged.segment.base);
        log_error("partition",
                  "%s: segment %lld is damaged and cannot be replaced by what "
                  "other replicas have now (%s); it is tried again, what is "
                  "damaged is not served",
                  p->name, (long long)r->damaged.segment.base.v, err_text(why));
    }
    leave(r);
}

void refetch_stop(struct partition *p)
{
    struct refetch *r = p->refetch;
    if (r == NULL || r->stopped) {
        return;
    }
    /* no state is restored while the list is replaced: what it names stays */
    ASSERT(p->closed || !p->switching);
    group_fetch_cancel(&r->fetch);
    if (r->working) {
        r->stopped = true; /* the rest when the worker is done */
    } else {
        leave(r);
    }
}

/* ---- works --------------------------------------------------------------- */
/* Opened by themselves: the cache belongs to the shard's thread. */
static struct segment_view view_of(const struct refetch *r,
                                   const struct segment *s)
{
    return (struct segment_view){
        .env = r->partition->env, .dir = r->partition->dir, .segment = *s};
}

static void edge_read(const struct refetch *r, struct edge *edge)
{
    struct segment_view v = view_of(r, &edge->segment);
    edge->known = segment_view_open(&v, false) == ERR_OK &&
                  segment_read_head(&v, &edge->head) == ERR_OK &&
                  group_id_equal(&edge->head.group, &r->partition->id);
    segment_view_close(&v);
}

static enum err begin_work(struct refetch *r)
{
    edge_read(r, &r->damaged);
    edge_read(r, &r->behind_damaged);
    edge_read(r, &r->behind_all);
    return ERR_OK;
}

static enum err receive_work(struct refetch *r)
{
    char path[LIMIT_PATH];
    struct env *env = r->partition->env;
    struct env_file *file;
    struct iovec iov = {r->bytes.data, r->bytes.size};
    int flags = ENV_FILE_READ | ENV_FILE_WRITE | ENV_FILE_CREATE;
    segment_file(path, r->partition->dir, &r->theirs[r->at],
                 r->side ? "side" : "log");
    enum err e = env_file_open(env, path, flags, &file);
    if (e == ERR_OK) {
        e = iov.iov_len == 0
                ? ERR_OK
                : env_file_pwritev(file, &iov, 1, r->offset, false);
        env_file_close(file);
    }
    return e;
}

static enum err copy_work(struct refetch *r)
{
    struct compact *c = &r->c;
    c->view = view_of(r, &r->theirs[r->at]);
    enum err e = compact_copy(c, c->head.base, r->generation, &r->step_done);
    segment_view_close(&c->view);
    if (e != ERR_OK) {
        compact_output_end(c, false);
    }
    return e;
}

static const struct edge *behind(const struct refetch *r)
{
    return r->alone ? &r->behind_damaged : &r->behind_all;
}

static enum err finish_work(struct refetch *r)
{
    struct compact *c = &r->c;
    enum err e = compact_finish(c);
    struct side_head end = compact_next_head(c);
    const struct side_head *ours = &behind(r)->head;
    struct output *o = &r->outputs[r->n_outputs];
    o->segment = compact_result(c);
    o->head = c->head;
    o->head.compaction = c->id;
    c->head = end;
    compact_output_end(c, e == ERR_OK);
    r->n_outputs += e == ERR_OK;
    if (e == ERR_OK && r->at == r->n_theirs &&
        (end.first.v != ours->first.v || end.chain != ours->chain ||
         end.base.v != ours->base.v)) {
        e = ERR_CORRUPT; /* it does not end as ours does */
    }
    return e;
}

/* Heads only now, all at once: a list that is made again from the files takes
 * those that have one. */
static enum err switch_work(struct refetch *r)
{
    struct partition *p = r->partition;
    enum err e = ERR_OK;
    for (size_t i = 0; i < r->n_outputs && e == ERR_OK; i++) {
        uint8_t slot[SIDE_SLOT];
        struct iovec iov = {slot, sizeof slot};
        struct segment_view v = view_of(r, &r->outputs[i].segment);
        side_head_write(&r->outputs[i].head, slot);
        e = segment_view_open(&v, false);
        e = e == ERR_OK ? env_file_pwritev(v.side.file, &iov, 1, 0, true) : e;
        segment_view_close(&v);
    }
    return e == ERR_OK ? manifest_write(p->env, p->dir, r->list, r->n_list,
                                        r->compacted_then)
                       : e;
}

static void work_run(struct env_work *work)
{
    struct refetch *r = work->arg;
    switch (r->phase) {
        case BEGIN:
            r->status = begin_work(r);
            break;
        case RECEIVE:
            r->status = receive_work(r);
            break;
        case COPY:
            r->status = copy_work(r);
            break;
        case FINISH:
            r->status = finish_work(r);
            break;
        case SWITCH:
            r->status = switch_work(r);
            break;
        case ASK:
        case ASK_AGAIN:
        case READY:
            UNREACHABLE("not for workers");
    }
}

static void work_done(struct env_work *work);

static void submit(struct refetch *r)
{
    r->working = true;
    partition_work(r->partition->env, &r->work, work_run, work_done, r);
}

/* ---- asking for their segments ------------------------------------------- */
static void peer_ask(struct refetch *r, bool alone)
{
    forget_files(r);
    r->phase = ASK;
    r->at = 0;
    r->alone = alone;
    if (behind(r)->known) {
        next(r);
    } else {
        give_up(r, ERR_CORRUPT); /* what is behind is repaired first */
    }
}

static void peer_next(struct refetch *r)
{
    r->peer++;
    peer_ask(r, r->damaged.known && r->behind_damaged.known &&
                    r->damaged.segment.end.v <= r->partition->compacted.v);
}

/* What is checked is checked when all is there. */
static bool any_bytes(struct group_fetch *f, const uint8_t *bytes)
{
    (void)f, (void)bytes;
    return true;
}

static void fetch(struct refetch *r, uint64_t file, uint64_t offset,
                  uint32_t size,
                  void (*cb)(struct group_fetch *f, enum err status,
                             const uint8_t *bytes))
{
    struct partition *p = r->partition;
    r->fetch = (struct group_fetch){.range = {file, offset, size},
                                    .check = any_bytes,
                                    .cb = cb,
                                    .arg = r,
                                    .only = r->peer};
    if (p->group == NULL || !group_fetch(p->group, &r->fetch)) {
        give_up(r, r->status == ERR_OK ? ERR_NOT_FOUND : r->status);
    }
}

static kafka_offset range_from(const struct refetch *r)
{
    return r->alone ? r->damaged.segment.base : r->partition->settled_log_start;
}

/* The first that is to be asked for next. */
static kafka_offset asked(const struct refetch *r)
{
    return r->at == 0 ? range_from(r) : r->told[r->at - 1].segment.end;
}

static bool told_read(const struct refetch *r, const uint8_t *at,
                      struct told *out)
{
    struct segment *s = &out->segment;
    *out = (struct told){.segment = {.base = {get_i64(at)},
                                     .end = {get_i64(at + 8)},
                                     .bytes = get_u64(at + 16),
                                     .slots = get_u64(at + 24),
                                     .compaction = get_u64(at + 32)},
                         .compacted = {get_i64(at + 40)}};
    return s->base.v >= 0 && s->end.v > asked(r).v && s->slots >= 2 &&
           s->slots <= INT64_MAX / (2 * SIDE_SLOT) && s->bytes <= INT64_MAX &&
           (r->at == 0 ? s->base.v <= asked(r).v : s->base.v == asked(r).v);
}

static bool told_all(const struct refetch *r)
{
    return r->at > 0 && asked(r).v >= behind(r)->segment.base.v;
}

static bool told_same(const struct told *a, const struct told *b)
{
    /* One that is being written to may have grown. */
    return a->segment.base.v == b->segment.base.v &&
           a->segment.compaction == b->segment.compaction &&
           a->segment.bytes <= b->segment.bytes &&
           a->segment.slots <= b->segment.slots;
}

static void told_add(struct refetch *r, const struct told *told)
{
    if (r->at == r->capacity) {
        r->capacity = r->capacity == 0 ? 8 : r->capacity * 2;
        r->told = mem_realloc(r->told, r->capacity * sizeof *r->told);
    }
    r->told[r->at++] = *told;
}

/* Some of it was compacted, here or there; else it is not for us. */
static bool compacted_somewhere(const struct refetch *r)
{
    const struct segment *ours = &r->damaged.segment;
    bool found = ours->compaction != 0;
    for (size_t i = 0; i < r->at && !found; i++) {
        const struct segment *s = &r->told[i].segment;
        found = s->compaction != 0 && s->base.v < ours->end.v &&
                s->end.v > ours->base.v;
    }
    return found;
}

static void receive_begin(struct refetch *r)
{
    struct partition *p = r->partition;
    if (!compacted_somewhere(r)) {
        peer_next(r);
        return;
    }
    mem_free(r->theirs);
    mem_free(r->outputs);
    r->n_theirs = r->at;
    r->theirs = mem_alloc(r->n_theirs * sizeof *r->theirs);
    r->outputs = mem_alloc(r->n_theirs * sizeof *r->outputs);
    for (size_t i = 0; i < r->n_theirs; i++) {
        r->theirs[i] = r->told[i].segment;
        r->theirs[i].generation = p->next_generation++;
    }
    r->phase = RECEIVE;
    r->at = 0;
    r->side = true;
    r->offset = 0;
    next(r);
}

static void take_told(struct group_fetch *f, enum err status,
                      const uint8_t *bytes)
{
    struct refetch *r = f->arg;
    struct told told;
    r->status = status;
    if (status != ERR_OK || !told_read(r, bytes, &told) ||
        r->at == SEGMENTS_MAX) {
        peer_next(r);
    } else if (r->phase == ASK_AGAIN) {
        if (r->at < r->n_theirs && told_same(&r->told[r->at], &told)) {
            r->at++;
            next(r);
        } else {
            peer_next(r); /* compacted meanwhile */
        }
    } else if (r->alone && told.compacted.v < r->reached.v) {
        peer_ask(r, false);
    } else {
        if (r->at == 0 || told.compacted.v < r->compacted.v) {
            r->compacted = told.compacted;
        }
        told_add(r, &told);
        next(r);
    }
}

static void ask(struct refetch *r)
{
    if (r->phase == ASK ? told_all(r) : r->at == r->n_theirs) {
        if (r->phase == ASK) {
            receive_begin(r);
        } else {
            r->phase = COPY;
            r->at = 0;
            r->c.slot = 0;
            r->generation = r->partition->next_generation++;
            next(r);
        }
        return;
    }
    fetch(r, (uint64_t)asked(r).v * 4 + 3, REFETCH_SEGMENT_AT,
          REFETCH_SEGMENT_SIZE, take_told);
}

/* ---- receiving ----------------------------------------------------------- */
/* Of their first segment; files here have none. */
static void take_head(struct refetch *r, const uint8_t *bytes)
{
    struct side_head *head = &r->c.head;
    if (r->alone) {
        *head = r->damaged.head;
    } else if (side_head_read(bytes, head) != ERR_OK ||
               head->base.v != r->theirs[0].base.v ||
               !group_id_equal(&head->group, &r->partition->id)) {
        r->status = ERR_CORRUPT;
        peer_next(r);
        return;
    }
    r->offset = side_offset(1);
    next(r);
}

static void take_range(struct group_fetch *f, enum err status,
                       const uint8_t *bytes)
{
    struct refetch *r = f->arg;
    r->status = status;
    if (status != ERR_OK) {
        peer_next(r);
    } else if (r->side && r->offset == 0) {
        take_head(r, bytes);
    } else {
        buffer_clear(&r->bytes);
        buffer_append(&r->bytes, bytes, f->range.size);
        submit(r);
    }
}

/* A range is written: on behind it. */
static void received(struct refetch *r)
{
    const struct segment *s = &r->theirs[r->at];
    r->offset += r->bytes.size;
    if (r->side && r->offset >= side_offset(s->slots)) {
        r->side = false;
        r->offset = 0;
        buffer_clear(&r->bytes);
        if (s->bytes == 0) {
            submit(r); /* an empty file */
            return;
        }
    } else if (!r->side && r->offset >= s->bytes) {
        r->side = true;
        r->offset = side_offset(1);
        r->at++;
    }
    next(r);
}

static void receive(struct refetch *r)
{
    if (r->at == r->n_theirs) {
        r->phase = ASK_AGAIN;
        r->at = 0;
        next(r);
        return;
    }
    const struct segment *s = &r->theirs[r->at];
    uint64_t left = (r->side ? side_offset(s->slots) : s->bytes) - r->offset;
    uint32_t size = r->side && r->offset == 0  ? SIDE_SLOT
                    : left < CATCHUP_RANGE_MAX ? (uint32_t)left
                                               : CATCHUP_RANGE_MAX;
    fetch(r, (uint64_t)s->base.v * 4 + (r->side ? 1 : 0), r->offset, size,
          take_range);
}

/* ---- copying ------------------------------------------------------------- */
static void copy(struct refetch *r)
{
    struct compact *c = &r->c;
    c->last.v = behind(r)->head.first.v - 1;
    c->chain = behind(r)->head.chain;
    c->to = behind(r)->head.base;
    submit(r);
}

/* One of theirs is copied: the next one goes into the same file, if there is
 * room. */
static void copied(struct refetch *r)
{
    uint64_t room = (uint64_t)r->partition->config.segment_bytes;
    r->at++;
    r->c.slot = 0;
    if (r->at == r->n_theirs ||
        compact_result(&r->c).bytes + r->theirs[r->at].bytes > room) {
        r->phase = FINISH;
    }
    next(r);
}

static void finished(struct refetch *r)
{
    if (r->at == r->n_theirs) {
        r->phase = READY;
    } else {
        r->phase = COPY;
        r->generation = r->partition->next_generation++;
    }
    next(r);
}

/* ---- the switch ---------------------------------------------------------- */
static bool may_switch(const struct partition *p)
{
    return !p->settling && !p->switching && !p->leased && p->transfer == NULL &&
           p->n_retired == 0;
}

/* Those of ours that are replaced. */
static const struct segment *replaced(const struct refetch *r, size_t *n)
{
    *n = r->alone ? 1 : r->n_inputs;
    return r->alone ? &r->inputs[r->damaged_at] : r->inputs;
}

/* False: those to be replaced are not in the list any more. */
static bool list_make(struct refetch *r)
{
    const struct partition *p = r->partition;
    size_t n, m = p->n_closed_segments;
    const struct segment *old = replaced(r, &n);
    size_t i = segments_listed_at(p, &old[0]);
    bool found = i < m && n <= m - i;
    for (size_t j = 0; found && j < n; j++) {
        found = segments_listed_at(p, &old[j]) == i + j;
    }
    if (!found || (!r->alone && i != 0)) {
        return false;
    }
    mem_free(r->list);
    r->list = mem_alloc((m + r->n_outputs) * sizeof *r->list);
    r->n_list = 0;
    for (size_t j = 0; j < i; j++) {
        r->list[r->n_list++] = p->closed_segments[j];
    }
    for (size_t j = 0; j < r->n_outputs; j++) {
        r->list[r->n_list++] = r->outputs[j].segment;
    }
    for (size_t j = i + n; j < m; j++) {
        r->list[r->n_list++] = p->closed_segments[j];
    }
    return true;
}

static void ready(struct refetch *r)
{
    struct partition *p = r->partition;
    int64_t to = behind(r)->segment.base.v;
    if (!may_switch(p)) {
        return; /* refetch_poll */
    }
    if (!list_make(r)) {
        give_up(r, ERR_NOT_READY); /* retention took some */
        return;
    }
    r->compacted_then = p->compacted;
    if (!r->alone) {
        r->compacted_then.v = r->compacted.v < to ? r->compacted.v : to;
    }
    r->phase = SWITCH;
    p->switching = true;
    submit(r);
}

/* The new list is durable. */
static void switched(struct refetch *r)
{
    struct partition *p = r->partition;
    size_t n;
    const struct segment *from = replaced(r, &n);
    struct segment *old = mem_alloc(n * sizeof *old);
    memcpy(old, from, n * sizeof *old);
    segments_adopt(p, r->list, r->n_list, r->compacted_then);
    r->list = NULL;
    r->n_outputs = 0; /* they stay */
    segments_retire(p, old, n);
    retention_remove(p);
    repair_succeeded(p);
    log_info("partition",
             "%s: segment %lld was damaged: offsets %lld to %lld are now as "
             "another replica has them",
             p->name, (long long)r->damaged.segment.base.v,
             (long long)range_from(r).v, (long long)behind(r)->head.base.v - 1);
    leave(r);
}

/* ---- the way through it -------------------------------------------------- */
static void next(struct refetch *r)
{
    if (r->partition->closed) {
        leave(r);
        return;
    }
    switch (r->phase) {
        case ASK:
        case ASK_AGAIN:
            ask(r);
            break;
        case RECEIVE:
            receive(r);
            break;
        case COPY:
            copy(r);
            break;
        case BEGIN:
        case FINISH:
            submit(r);
            break;
        case READY:
            ready(r);
            break;
        case SWITCH:
            UNREACHABLE("a switch is on a worker");
    }
}

static void work_failed(struct refetch *r)
{
    if (r->status == ERR_CORRUPT) {
        peer_next(r); /* they have damage there too */
    } else {
        give_up(r, r->status);
    }
}

static void step_done(struct refetch *r)
{
    switch (r->phase) {
        case BEGIN:
            peer_next(r);
            break;
        case RECEIVE:
            received(r);
            break;
        case COPY:
            if (r->step_done) {
                copied(r);
            } else {
                next(r);
            }
            break;
        case FINISH:
            finished(r);
            break;
        case SWITCH:
            switched(r);
            break;
        case ASK:
        case ASK_AGAIN:
        case READY:
            UNREACHABLE("not for workers");
    }
}

static void work_done(struct env_work *work)
{
    struct refetch *r = work->arg;
    struct partition *p = r->partition;
    r->working = false;
    if (r->phase == SWITCH) {
        segments_written(p, r->status);
    }
    if (r->stopped || p->closed) {
        leave(r);
    } else if (r->status != ERR_OK) {
        work_failed(r);
    } else {
        step_done(r);
    }
}

/* ---- from outside -------------------------------------------------------- */
void refetch_poll(struct partition *p)
{
    struct refetch *r = p->refetch;
    if (r != NULL && !r->working && r->phase == READY) {
        next(r);
    }
}

/* Up to the last one that must be replaced if all are. Behind what we have
 * compacted all of them are: one by one each would bring the beginning again.
 */
static void take_inputs(struct refetch *r, size_t damaged_at)
{
    struct partition *p = r->partition;
    size_t last = 0;
    r->reached = p->compacted;
    for (size_t i = 0; i < p->n_closed_segments; i++) {
        const struct segment *s = &p->closed_segments[i];
        if (s->compaction != 0) {
            last = i;
            r->reached.v = s->end.v > r->reached.v ? s->end.v : r->reached.v;
        }
    }
    if (last < damaged_at) {
        last = p->n_closed_segments - 1;
    }
    r->damaged_at = damaged_at;
    r->n_inputs = last + 1;
    r->inputs = mem_alloc(r->n_inputs * sizeof *r->inputs);
    memcpy(r->inputs, p->closed_segments, r->n_inputs * sizeof *r->inputs);
    r->damaged.segment = r->inputs[damaged_at];
    r->behind_damaged.segment = partition_segment_at(p, damaged_at + 1);
    r->behind_all.segment = partition_segment_at(p, last + 1);
}

bool refetch_begin(struct partition *p, const struct segment *damaged)
{
    size_t at = segments_listed_at(p, damaged);
    if (at == p->n_closed_segments || p->closed || p->group == NULL ||
        p->refetch != NULL || p->shard->refetching != NULL ||
        p->compaction != NULL || p->transfer != NULL || p->switching) {
        return false;
    }
    struct refetch *r = mem_zalloc(sizeof *r);
    r->partition = p;
    take_inputs(r, at);
    r->c.env = p->env;
    r->c.dir = p->dir;
    r->c.group = p->id;
    r->c.id = env_random(p->env) | 1;
    r->c.verbatim = true;
    p->refetch = r;
    p->shard->refetching = p;
    partition_ref(p);
    next(r);
    return true;
}

/* ---- a peer asks --------------------------------------------------------- */
struct answer {
    uint8_t bytes[REFETCH_SEGMENT_SIZE];
};

static enum err answer_run(struct catchup_job *job)
{
    memcpy(job->data, ((struct answer *)job->arg)->bytes, REFETCH_SEGMENT_SIZE);
    return ERR_OK;
}

enum err refetch_serve_begin(struct partition *p, struct catchup_job *job)
{
    kafka_offset offset = {(int64_t)(job->range.file >> 2)};
    size_t n = partition_segment_count(p);
    if (job->range.size != REFETCH_SEGMENT_SIZE || n == 0 || p->switching) {
        return ERR_NOT_FOUND;
    }
    struct segment s =
        partition_segment_at(p, partition_segment_find(p, offset));
    if (offset.v < s.base.v || offset.v >= s.end.v) {
        return ERR_NOT_FOUND;
    }
    struct answer *a = mem_zalloc(sizeof *a);
    put_i64(a->bytes, s.base.v);
    put_i64(a->bytes + 8, s.end.v);
    put_u64(a->bytes + 16, s.bytes);
    put_u64(a->bytes + 24, s.slots);
    put_u64(a->bytes + 32, s.compaction);
    put_i64(a->bytes + 40, p->compacted.v);
    job->run = answer_run;
    job->arg = a;
    return ERR_OK;
}

void refetch_serve_end(struct catchup_job *job)
{
    mem_free(job->arg);
}
