/* Fetch: batches from the log buffer while they are there (references, no
 * copy), else read from segments by a worker into memory of its own, each batch
 * checked before it is served. What is compacted is read from the segments even
 * where the log buffer still has it as it was written. Who reads a backlog on
 * and on finds the next piece read already. */
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "partition/partition_impl.h"

/* What an answer keeps alive, in one piece of memory with its iovecs. */
struct fetch_pins {
    struct partition_shard *shard;
    uint8_t *memory; /* read from a file, or NULL */
    uint64_t budget; /* of shard->read_bytes */
    uint32_t n_chunks;
    struct log_chunk **chunks;
    struct iovec iov[];
};

/* A read of a file, waiting or under way; or read ahead, p->ahead. */
struct fetch_read {
    struct env_work work;
    struct partition_link link; /* in shard->reads, or shard->aheads */
    struct partition *partition;
    struct partition_fetch *req; /* NULL: read ahead, nobody asked for it yet */
    struct segment_view view;
    struct env_timer unwanted; /* read ahead */
    uint64_t budget;
    kafka_offset offset;
    size_t max_bytes;
    size_t limit;      /* of the answer */
    bool at_least_one; /* of the read; its worker looks at it */
    bool follows;      /* its reader comes back at once for what comes next */
    bool ready;        /* read ahead and waiting */
    uint8_t *memory, *data; /* the one holds the other */
    size_t size;            /* of what is answered */
    size_t held;            /* of what was read */
    kafka_offset end;       /* behind what is answered */
    kafka_offset bad;
    enum err status;
};

static void aheads_give_up(struct partition_shard *shard);

/* ---- from memory --------------------------------------------------------- */
/* The entry in memory that answers for this offset; the ring's count: a segment
 * does. */
static uint32_t memory_find(const struct partition *p, kafka_offset offset)
{
    if (offset.v < p->compacted.v) {
        return p->ring.count;
    }
    uint32_t at = ring_find_offset(&p->ring, offset);
    return at < p->ring.count &&
                   ring_at(&p->ring, at)->base_offset.v <= offset.v
               ? at
               : p->ring.count;
}

/* How many entries from place `from` on belong to the answer. */
static uint32_t memory_extent(const struct partition *p,
                              const struct partition_fetch *req, uint32_t from,
                              uint32_t *batches)
{
    int64_t limit = partition_limit(p, req->isolation).v, bytes = 0;
    uint32_t at = from;
    *batches = 0;
    for (; at < p->ring.count && *batches < LIMIT_FETCH_PIECES; at++) {
        const struct log_entry *e = ring_at(&p->ring, at);
        if (e->type != ENTRY_DATA) {
            continue;
        }
        if (e->base_offset.v + e->last_delta >= limit) {
            break;
        }
        if (bytes + e->size > req->max_bytes &&
            !(*batches == 0 && req->at_least_one)) {
            break;
        }
        bytes += e->size;
        (*batches)++;
    }
    return at;
}

static struct fetch_pins *pins_new(struct partition_shard *shard, uint32_t n)
{
    struct fetch_pins *pins =
        mem_alloc(sizeof *pins + n * (sizeof(struct iovec) + sizeof(void *)));
    *pins = (struct fetch_pins){.shard = shard};
    pins->chunks = (struct log_chunk **)(void *)(pins->iov + n);
    return pins;
}

/* False: too much of the log buffer is lent already. */
static bool pin_chunk(struct fetch_pins *pins, struct log_chunk *chunk)
{
    /* Neighbours mostly lie in the same chunk. */
    if (chunk == NULL ||
        (pins->n_chunks > 0 && pins->chunks[pins->n_chunks - 1] == chunk)) {
        return true;
    }
    if (!log_chunk_is_lent(chunk) &&
        log_chunk_lent_bytes(chunk) >= pins->shard->options.lent_bytes_max) {
        pins->shard->is_short = true;
        return false;
    }
    log_chunk_lend(chunk);
    pins->chunks[pins->n_chunks++] = chunk;
    return true;
}

/* Some batches from place `from` on in memory of their own, as what clients
 * that do not take their answers hold of the log buffer must not grow: a little
 * only, and nothing when the memory of reads is used up as well. */
static void fetch_copies(struct partition *p, struct partition_fetch *req,
                         uint32_t from, uint32_t end)
{
    struct partition_shard *shard = p->shard;
    size_t size = 0;
    uint32_t at = from;
    for (; at < end; at++) {
        const struct log_entry *e = ring_at(&p->ring, at);
        size_t more = e->type == ENTRY_DATA ? e->size : 0;
        if (size > 0 && size + more > LIMIT_FETCH_READ_SHORT) {
            break;
        }
        size += more;
    }
    if (shard->read_bytes + size > shard->options.read_bytes_max) {
        aheads_give_up(shard);
    }
    if (shard->read_bytes > 0 &&
        shard->read_bytes + size > 2 * shard->options.read_bytes_max) {
        return;
    }
    struct fetch_pins *pins = pins_new(shard, 1);
    pins->memory = mem_alloc(size);
    pins->budget = size;
    shard->read_bytes += size;
    uint8_t *to = pins->memory;
    for (uint32_t k = from; k < at; k++) {
        struct group_entry view = ring_view(p, k);
        if (view.type == ENTRY_DATA) {
            memcpy(to, view.payload, view.size);
            to += view.size;
        }
    }
    ASSERT(to == pins->memory + size);
    pins->iov[0] = (struct iovec){pins->memory, size};
    req->n_iov = 1;
    req->bytes = (int32_t)size;
    req->pins = pins;
    req->iov = pins->iov;
}

static void fetch_memory(struct partition *p, struct partition_fetch *req,
                         uint32_t from)
{
    uint32_t n, end = memory_extent(p, req, from, &n);
    if (n == 0) {
        return;
    }
    struct fetch_pins *pins = pins_new(p->shard, n);
    for (uint32_t at = from; at < end; at++) {
        const struct log_entry *e = ring_at(&p->ring, at);
        if (e->type == ENTRY_DATA) {
            struct group_entry view = ring_view(p, at);
            if (!pin_chunk(pins, view.chunk)) {
                break;
            }
            pins->iov[req->n_iov++] =
                (struct iovec){(void *)(uintptr_t)view.payload, view.size};
            req->bytes += (int32_t)view.size;
        }
    }
    if (req->n_iov == 0) {
        mem_free(pins);
        fetch_copies(p, req, from, end);
        return;
    }
    req->pins = pins;
    req->iov = pins->iov;
}

/* ---- from files ---------------------------------------------------------- */
/* The offset behind the batches that were read, and found whole. */
static kafka_offset batches_end(const uint8_t *data, size_t size,
                                kafka_offset from)
{
    struct batch_header head;
    kafka_offset end = from;
    for (size_t at = 0;
         at < size && batch_header_read(data + at, size - at, &head) == ERR_OK;
         at += batch_size(&head)) {
        end.v = batch_last_offset(&head).v + 1;
    }
    return end;
}

static void read_run(struct env_work *work)
{
    struct fetch_read *r = work->arg;
    struct side_entry e;
    uint64_t slot;
    r->bad = r->offset;
    r->status = segment_view_open(&r->view, true);
    if (r->status == ERR_OK) {
        r->status = segment_find_offset(&r->view, r->offset, &slot, &e);
    }
    if (r->status == ERR_OK && r->view.past_cache) {
        r->status =
            segment_read_direct(&r->view, slot, r->max_bytes, r->at_least_one,
                                &r->memory, &r->data, &r->size, &r->bad);
    } else if (r->status == ERR_OK) {
        r->status = segment_read(&r->view, slot, r->max_bytes, r->at_least_one,
                                 &r->data, &r->size, &r->bad);
        r->memory = r->data;
    }
    r->end = batches_end(r->data, r->size, r->offset);
    r->held = r->size;
}

static void fetch_describe(const struct partition *p,
                           struct partition_fetch *req)
{
    req->high_watermark = p->high_watermark;
    req->last_stable = partition_last_stable(p);
    req->log_start = p->log_start;
}

static void fetch_refuse(struct partition_fetch *req, enum kafka_error error)
{
    req->error = error;
    req->high_watermark.v = req->last_stable.v = req->log_start.v = -1;
}

static void read_drop(struct fetch_read *r)
{
    r->partition->shard->read_bytes -= r->budget;
    mem_free(r->memory);
}

static void read_keep(struct fetch_read *r)
{
    struct partition_fetch *req = r->req;
    struct partition_shard *shard = r->partition->shard;
    struct fetch_pins *pins = pins_new(shard, 1);
    pins->memory = r->memory;
    pins->budget = r->held; /* a first batch may be larger than was asked */
    shard->read_bytes = shard->read_bytes - r->budget + r->held;
    pins->iov[0] = (struct iovec){r->data, r->size};
    req->pins = pins;
    req->iov = pins->iov;
    req->n_iov = 1;
    req->bytes = (int32_t)r->size;
}

/* What was read ahead for another answer may be too much for this one. */
static void read_fit(struct fetch_read *r)
{
    size_t size = 0;
    struct batch_header head;
    if (r->size <= r->limit) {
        return;
    }
    while (size < r->size) {
        enum err status =
            batch_header_read(r->data + size, r->size - size, &head);
        ASSERT(status == ERR_OK); /* it was found whole */
        if (size + batch_size(&head) > r->limit &&
            !(size == 0 && r->req->at_least_one)) {
            break;
        }
        size += batch_size(&head);
    }
    if (size < r->size) {
        r->size = size;
        r->end = batches_end(r->data, size, r->offset);
        r->bad.v = -1; /* it lies behind */
    }
}

/* The read is done: what it gave becomes the answer. */
static void read_answer(struct fetch_read *r)
{
    struct partition *p = r->partition;
    read_fit(r);
    fetch_describe(p, r->req);
    if (p->closed || r->offset.v < p->log_start.v) {
        /* Given up or removed while it was read. */
        read_drop(r);
        fetch_refuse(r->req, p->closed ? KAFKA_NOT_LEADER_OR_FOLLOWER
                                       : KAFKA_OFFSET_OUT_OF_RANGE);
    } else if (r->status != ERR_OK) {
        read_drop(r);
        partition_tell_damage(p, r->bad);
        fetch_refuse(r->req, KAFKA_KAFKA_STORAGE_ERROR);
    } else if (r->size == 0) {
        read_drop(r);
    } else {
        read_keep(r);
        if (r->bad.v >= 0) {
            partition_tell_damage(p, r->bad);
        }
    }
}

/* Who reads a backlog reads it once mostly, at more than the page cache is
 * worth: finding and filling its pages costs more than the reading. So what is
 * read for the first time goes past it, in large pieces, and what is read again
 * right after (there are several consumers) through it. */
static bool is_first_read(const struct fetch_read *r)
{
    const struct partition *p = r->partition;
    return r->max_bytes >= LIMIT_FETCH_READ_CACHED &&
           (r->offset.v < p->read_from.v || r->offset.v >= p->read_to.v);
}

static void read_remember(const struct fetch_read *r)
{
    struct partition *p = r->partition;
    if (r->offset.v != p->read_to.v) {
        p->read_from = r->offset;
    }
    p->read_to = r->end;
    p->read_ms = env_now_ms(p->env);
}

static void read_segment(struct fetch_read *r);
static void read_done(struct env_work *work);

/* ---- reading ahead ------------------------------------------------------- */
static void ahead_drop(struct fetch_read *a)
{
    a->partition->ahead = NULL;
    env_timer_stop(&a->unwanted);
    link_remove(&a->link);
    read_drop(a);
    mem_free(a);
}

static void ahead_unwanted(struct env_timer *timer)
{
    struct fetch_read *a = timer->arg;
    struct partition_shard *shard = a->partition->shard;
    ahead_drop(a);
    fetch_next_waiting(shard);
}

/* For those who ask now. */
static void aheads_give_up(struct partition_shard *shard)
{
    while (!list_empty(&shard->aheads)) {
        ahead_drop(LINK_OF(struct fetch_read, link, shard->aheads.next));
    }
}

void fetch_closed(struct partition *p)
{
    struct partition_shard *shard = p->shard;
    if (p->ahead != NULL && p->ahead->ready) {
        ahead_drop(p->ahead);
        fetch_next_waiting(shard);
    }
}

/* After an answer that its reader comes back from at once: the next piece, as
 * large as was asked for, if it lies in the files and half of the memory of
 * reads is not in use. */
static void ahead_begin(const struct fetch_read *r)
{
    struct partition *p = r->partition;
    struct partition_shard *shard = p->shard;
    size_t max = r->limit < LIMIT_FETCH_READ ? r->limit : LIMIT_FETCH_READ;
    if (!r->follows || !r->view.past_cache || p->ahead != NULL || p->closed ||
        max < LIMIT_FETCH_READ_CACHED || r->size == 0 ||
        !list_empty(&shard->reads) ||
        shard->read_bytes + max > shard->options.read_bytes_max / 2 ||
        r->end.v < p->log_start.v || r->end.v >= p->settled.next.v ||
        memory_find(p, r->end) < p->ring.count) {
        return;
    }
    struct fetch_read *a = mem_zalloc(sizeof *a);
    a->partition = p;
    a->offset = r->end;
    a->max_bytes = a->budget = max;
    a->at_least_one = true;
    env_timer_init(p->env, &a->unwanted, ahead_unwanted, a);
    shard->read_bytes += a->budget;
    p->ahead = a;
    partition_ref(p);
    partition_view_take_direct(p, partition_segment_find(p, a->offset),
                               &a->view);
    partition_work(p->env, &a->work, read_run, read_done, a);
}

/* Nobody asked for it meanwhile. */
static void ahead_done(struct fetch_read *a)
{
    struct partition *p = a->partition;
    struct partition_shard *shard = p->shard;
    if (p->closed || a->status != ERR_OK || a->size == 0 ||
        !list_empty(&shard->reads)) {
        ahead_drop(a);
        fetch_next_waiting(shard);
        return;
    }
    shard->read_bytes = shard->read_bytes - a->budget + a->held;
    a->budget = a->held;
    a->ready = true;
    link_add(&shard->aheads, &a->link);
    env_timer_start(&a->unwanted, LIMIT_FETCH_AHEAD_MS);
}

static bool ahead_has_for(const struct fetch_read *a,
                          const struct partition_fetch *req)
{
    struct batch_header head;
    return req->at_least_one || !a->ready ||
           (batch_header_read(a->data, a->size, &head) == ERR_OK &&
            (int64_t)batch_size(&head) <= req->max_bytes);
}

/* True: the request is answered by what was read ahead, at once or when that
 * is done. */
static bool ahead_take(struct partition *p, struct partition_fetch *req,
                       bool *at_once)
{
    struct fetch_read *a = p->ahead;
    if (a == NULL || a->offset.v != req->offset.v || !ahead_has_for(a, req)) {
        return false;
    }
    p->ahead = NULL;
    a->req = req;
    a->limit = req->max_bytes > 0 ? (size_t)req->max_bytes : 0;
    a->follows = true;
    *at_once = a->ready;
    if (a->ready) {
        env_timer_stop(&a->unwanted);
        link_remove(&a->link);
        read_answer(a);
        read_remember(a);
        ahead_begin(a);
        mem_free(a);
    }
    return true;
}

/* ---- reading ------------------------------------------------------------- */

/* Compaction took away everything from there to the segment's end: what comes
 * next may lie in the next segment (true: it is read) or in memory. */
static bool read_behind_gap(struct fetch_read *r)
{
    struct partition *p = r->partition;
    struct partition_fetch *req = r->req;
    r->offset = r->view.segment.end;
    uint32_t at = memory_find(p, r->offset);
    if (at == p->ring.count && r->offset.v < p->settled.next.v) {
        read_segment(r);
        return true;
    }
    read_drop(r);
    fetch_describe(p, req);
    if (at < p->ring.count &&
        r->offset.v < partition_limit(p, req->isolation).v) {
        fetch_memory(p, req, at);
    }
    return false;
}

static void read_done(struct env_work *work)
{
    struct fetch_read *r = work->arg;
    struct partition *p = r->partition;
    struct partition_fetch *req = r->req;
    bool gap = r->status == ERR_NOT_FOUND && r->view.segment.compaction != 0 &&
               !p->closed && r->offset.v >= p->log_start.v;
    partition_view_give(p, &r->view);
    if (req == NULL) {
        ahead_done(r);
        partition_unref(p);
        return;
    }
    if (!gap) {
        read_answer(r);
    } else if (read_behind_gap(r)) {
        return;
    }
    if (!gap && r->view.past_cache && r->size > 0) {
        read_remember(r);
        ahead_begin(r);
    }
    mem_free(r);
    req->cb(req);
    fetch_next_waiting(p->shard);
    partition_unref(p);
}

/* Takes memory for a read: all that was asked for, or when that is used up
 * little, up to twice the bound. One read is always allowed. */
static bool read_reserve(struct fetch_read *r)
{
    struct partition_shard *shard = r->partition->shard;
    uint64_t max = shard->options.read_bytes_max;
    if (shard->read_bytes + r->max_bytes > max) {
        aheads_give_up(shard);
    }
    if (shard->read_bytes > 0 && shard->read_bytes + r->max_bytes > max) {
        if (r->max_bytes > LIMIT_FETCH_READ_SHORT) {
            r->max_bytes = LIMIT_FETCH_READ_SHORT;
        }
        shard->is_short = true;
        if (shard->read_bytes + r->max_bytes > 2 * max) {
            return false;
        }
    }
    r->budget = r->max_bytes;
    shard->read_bytes += r->budget;
    return true;
}

static void read_segment(struct fetch_read *r)
{
    struct partition *p = r->partition;
    ASSERT(partition_segment_count(p) > 0); /* not in memory: settled */
    size_t i = partition_segment_find(p, r->offset);
    if (is_first_read(r)) {
        partition_view_take_direct(p, i, &r->view);
    } else {
        partition_view_take(p, i, &r->view);
    }
    partition_work(p->env, &r->work, read_run, read_done, r);
}

/* Begins a read if the memory for it is there. */
static bool read_begin(struct fetch_read *r)
{
    if (!read_reserve(r)) {
        return false;
    }
    read_segment(r);
    return true;
}

void fetch_next_waiting(struct partition_shard *shard)
{
    while (!list_empty(&shard->reads)) {
        struct fetch_read *r =
            LINK_OF(struct fetch_read, link, shard->reads.next);
        link_remove(&r->link);
        if (!read_begin(r)) {
            link_add(shard->reads.next, &r->link);
            return;
        }
    }
}

/* True: it is answered. It was read ahead; or there is no memory for it, and it
 * does not wait: whoever asks for more beside what it has holds memory that
 * others wait for, and they what it would wait for. */
static bool fetch_file(struct partition *p, struct partition_fetch *req)
{
    bool at_once;
    if (ahead_take(p, req, &at_once)) {
        return at_once;
    }
    struct fetch_read *r = mem_zalloc(sizeof *r);
    int32_t max =
        req->max_bytes < LIMIT_FETCH_READ ? req->max_bytes : LIMIT_FETCH_READ;
    r->partition = p;
    r->req = req;
    r->offset = req->offset;
    r->max_bytes = max > 0 ? (size_t)max : 0;
    r->limit = r->max_bytes;
    r->at_least_one = req->at_least_one;
    r->follows = req->offset.v == p->read_to.v && req->offset.v > 0 &&
                 env_now_ms(p->env) - p->read_ms <= LIMIT_FETCH_AHEAD_MS;
    partition_ref(p);
    if (list_empty(&p->shard->reads) && read_begin(r)) {
        return false;
    }
    if (!req->at_least_one) {
        mem_free(r);
        partition_unref(p);
        return true;
    }
    link_add(&p->shard->reads, &r->link);
    return false;
}

/* ---- fetch --------------------------------------------------------------- */
/* A replica's or careful consumer's check that its log is ours so far. */
static void check_divergence(const struct partition *p,
                             struct partition_fetch *req)
{
    int32_t epoch;
    kafka_offset end;
    if (req->last_fetched_epoch < 0) {
        return;
    }
    if (epochs_end(&p->epochs, req->last_fetched_epoch, p->end, &epoch, &end) &&
        (epoch < req->last_fetched_epoch || end.v < req->offset.v)) {
        req->diverging_epoch = epoch;
        req->diverging_end = end;
    }
}

static enum kafka_error fetch_check(const struct partition *p,
                                    const struct partition_fetch *req)
{
    struct group_role role = partition_role(p);
    enum kafka_error error =
        partition_check_epoch(p, req->current_leader_epoch);
    if (error != KAFKA_NONE) {
        return error;
    }
    if (p->closed || (!role.is_leader && !req->from_follower_ok)) {
        return KAFKA_NOT_LEADER_OR_FOLLOWER;
    }
    if (req->offset.v < p->log_start.v) {
        return KAFKA_OFFSET_OUT_OF_RANGE;
    }
    if (req->offset.v > p->end.v) {
        /* A follower may simply not have it yet. */
        return role.is_leader ? KAFKA_OFFSET_OUT_OF_RANGE
                              : KAFKA_OFFSET_NOT_AVAILABLE;
    }
    return KAFKA_NONE;
}

/* An end below what a client has read is hard to believe: a leader that was
 * stopped for a while may not know yet that others went on. Consumers begin
 * anew somewhere else when they hear of it, so it is said only by a leader that
 * a majority has confirmed since. */
static void end_confirmed(struct group_read *read, enum err status)
{
    struct partition_fetch *req = read->arg;
    struct partition *p = req->partition;
    fetch_describe(p, req);
    if (status != ERR_OK || p->closed) {
        fetch_refuse(req, KAFKA_NOT_LEADER_OR_FOLLOWER);
    } else if (req->offset.v > p->end.v) {
        fetch_refuse(req, KAFKA_OFFSET_OUT_OF_RANGE);
    } else {
        req->error = KAFKA_NONE; /* nothing yet */
    }
    req->cb(req);
    partition_unref(p);
}

static void confirm_end(struct partition *p, struct partition_fetch *req)
{
    partition_ref(p);
    req->barrier = (struct group_read){.cb = end_confirmed, .arg = req};
    group_read_barrier(p->group, &req->barrier);
}

bool partition_fetch(struct partition *p, struct partition_fetch *req)
{
    req->partition = p;
    req->pins = NULL;
    req->iov = NULL;
    req->n_iov = 0;
    req->bytes = 0;
    req->diverging_epoch = -1;
    req->diverging_end.v = -1;
    fetch_describe(p, req);
    req->error = fetch_check(p, req);
    if (req->error == KAFKA_OFFSET_OUT_OF_RANGE && req->offset.v > p->end.v) {
        confirm_end(p, req);
        return false;
    }
    if (req->error != KAFKA_NONE) {
        fetch_refuse(req, req->error);
        return true;
    }
    check_divergence(p, req);
    if (req->diverging_epoch >= 0 ||
        req->offset.v >= partition_limit(p, req->isolation).v ||
        (req->max_bytes <= 0 && !req->at_least_one)) {
        return true;
    }
    uint32_t at = memory_find(p, req->offset);
    if (at < p->ring.count) {
        fetch_memory(p, req, at);
        return true;
    }
    return fetch_file(p, req);
}

bool partition_shard_is_short(const struct partition_shard *shard)
{
    return shard->is_short;
}

void partition_fetch_release(struct partition_fetch *req)
{
    struct fetch_pins *pins = req->pins;
    if (pins == NULL) {
        return;
    }
    for (uint32_t i = 0; i < pins->n_chunks; i++) {
        log_chunk_return(pins->chunks[i]);
    }
    mem_free(pins->memory);
    pins->shard->read_bytes -= pins->budget;
    if (list_empty(&pins->shard->reads)) {
        pins->shard->is_short = false; /* the next one finds out */
    }
    req->pins = NULL;
    req->iov = NULL;
    req->n_iov = 0;
    if (pins->budget > 0) {
        fetch_next_waiting(pins->shard);
    }
    mem_free(pins);
}

int64_t partition_available(const struct partition *p, kafka_offset offset,
                            int8_t isolation, int64_t max)
{
    kafka_offset limit = partition_limit(p, isolation);
    if (offset.v >= limit.v || offset.v < p->log_start.v) {
        return 0;
    }
    uint32_t at = memory_find(p, offset);
    if (at == p->ring.count) {
        return max; /* in files: certainly enough to be worth an answer */
    }
    int64_t bytes = (int64_t)(p->applied_bytes - ring_at(&p->ring, at)->bytes);
    return bytes < max ? bytes : max;
}
