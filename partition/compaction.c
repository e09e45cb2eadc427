/* Compaction on the shard's side: which partition, its steps on workers, and
 * the switch. compact.h says what it does to the records.
 *
 *   scan    the segments not compacted yet, into the map of keys
 *   copy    all segments up to the map's end, oldest first; some become one
 *   finish  the new files are durable (or discarded: nothing was to be taken
 * out) ready   waits until the list of closed segments may be replaced: nothing
 * is being settled, sent to or received from another replica switch  the new
 * list is written: from here on the new files count retire  the old files go
 * when their last reader is done; then on with copy mark    all is copied: the
 * list once more, with how far it is compacted
 *
 * A crash before a switch leaves files that the list does not name, one behind
 * it those it no longer names; the next start removes both. What was begun is
 * given up when the list becomes another meanwhile (a transfer, retention). */
#include <stdlib.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "partition/compact.h"
#include "partition/partition_impl.h"

/* After a run that failed or found nothing to do. */
#define AGAIN_MS 60000

enum phase { SCAN, COPY, DISCARD, FINISH, READY, SWITCH, RETIRE, MARK, END };

struct compaction {
    struct partition *partition;
    struct env_work work;
    bool working; /* on a worker */
    enum phase phase;
    struct compact c;
    struct segment *inputs; /* closed ones, as they were at the beginning */
    size_t n_inputs, at;    /* at: being read */
    size_t first;           /* of those the output is made of, up to `at` */
    uint32_t generation;    /* of the output */
    bool step_done;
    enum err status;
    /* the switch */
    struct segment output;
    bool output_waits; /* its files are there and in no list */
    struct segment *list;
    size_t n_list;
    kafka_offset compacted;
    /* for people */
    uint64_t bytes_before, bytes_after;
    bool changed;
};

static void next(struct compaction *k);

/* ---- which --------------------------------------------------------------- */
/* How many closed segments may be compacted: those old enough. */
static size_t compactable(const struct partition *p, int64_t now_ms)
{
    size_t n = 0;
    while (n < p->n_closed_segments &&
           (p->config.min_compaction_lag_ms <= 0 ||
            p->closed_segments[n].max_timestamp <=
                now_ms - p->config.min_compaction_lag_ms)) {
        n++;
    }
    return n;
}

/* The share of bytes not compacted yet; 0: there is nothing to do, above 1: it
 * must be done whatever the share is. */
static double need(const struct partition *p, int64_t now_ms)
{
    uint64_t clean = 0, dirty = 0;
    bool due = false;
    size_t n = compactable(p, now_ms);
    for (size_t i = 0; i < n; i++) {
        const struct segment *s = &p->closed_segments[i];
        if (s->end.v > p->compacted.v) {
            dirty += s->bytes;
            due =
                due ||
                (p->config.max_compaction_lag_ms > 0 && s->max_timestamp >= 0 &&
                 now_ms - s->max_timestamp > p->config.max_compaction_lag_ms);
        } else {
            clean += s->bytes;
        }
        due = due || (s->horizon != 0 && s->horizon <= now_ms);
    }
    double share = dirty == 0 ? 0 : (double)dirty / (double)(clean + dirty);
    return due                                           ? 2 + share
           : share > p->config.min_cleanable_dirty_ratio ? share
                                                         : 0;
}

static bool may_begin(const struct partition *p)
{
    return p->config.cleanup_compact && !p->config.compaction_off &&
           p->n_closed_segments > 0 && p->group != NULL && !p->closed &&
           !p->leased && p->transfer == NULL && p->compaction == NULL &&
           p->n_retired == 0 && p->removals == 0 && p->refetch == NULL &&
           env_now_ms(p->env) >= p->compact_again_ms;
}

/* ---- begin and end ------------------------------------------------------- */
struct producer_list {
    struct compact_producer *list;
    size_t n;
};

static void add_producer(void *arg, int64_t producer_id, int16_t epoch,
                         const struct producer_batch *last)
{
    struct producer_list *l = arg;
    (void)epoch;
    l->list[l->n++] = (struct compact_producer){producer_id, last->last_offset};
}

static int by_id(const void *a, const void *b)
{
    const struct compact_producer *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static void take_producers(const struct partition *p, struct compact *c)
{
    struct producer_list l = {0};
    size_t n = producers_count(p->producers);
    if (n == 0) {
        return;
    }
    l.list = mem_alloc(n * sizeof *l.list);
    producers_each(p->producers, add_producer, &l);
    qsort(l.list, l.n, sizeof *l.list, by_id);
    c->producers = l.list;
    c->n_producers = l.n;
}

static void compaction_begin(struct partition *p)
{
    struct compaction *k = mem_zalloc(sizeof *k);
    struct compact *c = &k->c;
    int64_t now_ms = env_wall_ms(p->env);
    uint64_t secret[2] = {env_random(p->env), env_random(p->env)};
    k->partition = p;
    k->n_inputs = compactable(p, now_ms);
    k->inputs = mem_alloc(k->n_inputs * sizeof *k->inputs);
    memcpy(k->inputs, p->closed_segments, k->n_inputs * sizeof *k->inputs);
    c->env = p->env;
    c->dir = p->dir;
    c->group = p->id;
    c->id = env_random(p->env) | 1;
    c->now_ms = now_ms;
    c->delete_retention_ms = p->config.delete_retention_ms;
    c->from = p->compacted.v > p->log_start.v ? p->compacted : p->log_start;
    c->to = k->inputs[k->n_inputs - 1].end;
    size_t memory = p->shard->options.compaction_bytes;
    c->map =
        offset_map_new(memory == 0 ? LIMIT_COMPACTION_MAP : memory, secret);
    take_producers(p, c);
    for (size_t i = 0; i < k->n_inputs; i++) {
        k->bytes_before += k->inputs[i].bytes;
    }
    if (c->from.v > c->to.v) {
        c->from = c->to;
    }
    p->compaction = k;
    p->shard->compacting = p;
    partition_ref(p);
    k->phase = SCAN;
    next(k);
}

/* Files are closed and removed on a worker, which may outlive the partition. */
struct leaving {
    struct env_work work;
    struct partition *partition;
    struct compact c;
};

static void leaving_run(struct env_work *work)
{
    struct leaving *l = work->arg;
    compact_output_end(&l->c, false);
    compact_free(&l->c);
}

static void leaving_done(struct env_work *work)
{
    struct leaving *l = work->arg;
    partition_unref(l->partition);
    mem_free(l);
}

static void compaction_end(struct compaction *k)
{
    struct partition *p = k->partition;
    struct leaving *l = mem_zalloc(sizeof *l);
    ASSERT(!k->working);
    if (k->output_waits) {
        segments_remove(p, &k->output, 1);
    }
    l->partition = p;
    l->c = k->c;
    if (k->status != ERR_OK || !k->changed) {
        p->compact_again_ms = env_now_ms(p->env) + AGAIN_MS;
    }
    p->compaction = NULL;
    p->shard->compacting = NULL;
    mem_free(k->inputs);
    mem_free(k->list);
    mem_free(k);
    partition_work(p->env, &l->work, leaving_run, leaving_done, l);
}

static void give_up(struct compaction *k, enum err status)
{
    struct partition *p = k->partition;
    k->status = status;
    if (status == ERR_CORRUPT && !p->closed) {
        partition_tell_damage(p, k->inputs[k->at].base);
    } else if (status != ERR_OK && !p->closed) {
        log_warn("partition", "%s: compaction is given up for now: %s", p->name,
                 err_text(status));
    }
    compaction_end(k);
}

/* ---- steps --------------------------------------------------------------- */
static bool segment_same(const struct segment *a, const struct segment *b)
{
    return a->base.v == b->base.v && a->generation == b->generation &&
           a->end.v == b->end.v && a->bytes == b->bytes &&
           a->slots == b->slots && a->compaction == b->compaction;
}

size_t segments_listed_at(const struct partition *p, const struct segment *s)
{
    size_t i = 0;
    while (i < p->n_closed_segments &&
           !segment_same(&p->closed_segments[i], s)) {
        i++;
    }
    return i;
}

static void work_run(struct env_work *work)
{
    struct compaction *k = work->arg;
    struct compact *c = &k->c;
    switch (k->phase) {
        case SCAN:
            k->status = compact_scan(c, &k->step_done);
            break;
        case COPY:
            k->status = compact_copy(c, k->inputs[k->first].base, k->generation,
                                     &k->step_done);
            break;
        case DISCARD:
            compact_output_end(c, false);
            break;
        case FINISH:
            k->status = compact_finish(c);
            k->output = compact_result(c);
            compact_output_end(c, k->status == ERR_OK);
            break;
        case SWITCH:
        case MARK:
            k->status = manifest_write(c->env, c->dir, k->list, k->n_list,
                                       k->compacted);
            break;
        case READY:
        case RETIRE:
        case END:
            UNREACHABLE("not for workers");
    }
}

static void work_done(struct env_work *work);

static void submit(struct compaction *k)
{
    k->working = true;
    partition_ref(k->partition);
    partition_work(k->partition->env, &k->work, work_run, work_done, k);
}

/* Reads on in segment `at`; false: it is not there any more. */
static bool read_step(struct compaction *k)
{
    struct partition *p = k->partition;
    size_t i = segments_listed_at(p, &k->inputs[k->at]);
    if (i == p->n_closed_segments) {
        return false;
    }
    partition_view_take(p, i, &k->c.view);
    submit(k);
    return true;
}

/* The next output begins with segment `at`. */
static void copy_begin(struct compaction *k)
{
    k->phase = COPY;
    k->first = k->at;
    k->c.slot = 0;
    k->generation = k->partition->next_generation++;
    next(k);
}

static void scan_next(struct compaction *k)
{
    while (k->at < k->n_inputs && !k->c.full) {
        if (k->inputs[k->at].end.v > k->c.from.v && read_step(k)) {
            return;
        }
        k->at++;
        k->c.slot = 0;
    }
    k->at = 0;
    copy_begin(k);
}

static bool copy_wanted(const struct compaction *k, size_t i)
{
    return i < k->n_inputs && k->inputs[i].base.v < k->c.to.v;
}

static void copy_next(struct compaction *k)
{
    if (!copy_wanted(k, k->at)) {
        k->phase = MARK;
        next(k);
    } else if (!read_step(k)) {
        give_up(k, ERR_OK); /* retention took it: the next run goes on */
    }
}

/* A segment is copied: the next one goes into the same file, if there is room,
 * else the file is finished. */
static void copied(struct compaction *k)
{
    const struct partition *p = k->partition;
    struct segment out = compact_result(&k->c);
    k->at++;
    k->c.slot = 0;
    if (copy_wanted(k, k->at) && k->at - k->first < LIMIT_COMPACTION_SEGMENTS &&
        out.bytes + k->inputs[k->at].bytes <=
            (uint64_t)p->config.segment_bytes) {
        next(k);
        return;
    }
    k->bytes_after += out.bytes;
    if (k->at - k->first > 1 || compact_changed(&k->c)) {
        k->changed = true;
        k->phase = FINISH;
    } else {
        k->phase = DISCARD; /* it stays as it is */
    }
    next(k);
}

/* ---- the switch ---------------------------------------------------------- */
static bool may_switch(const struct partition *p)
{
    return !p->settling && !p->switching && !p->leased && p->transfer == NULL;
}

/* The list with the output in place of what it was made of; false: those are
 * not in it any more. */
static bool list_make(struct compaction *k, const struct segment *output)
{
    const struct partition *p = k->partition;
    size_t n = k->at - k->first,
           i = segments_listed_at(p, &k->inputs[k->first]);
    size_t m = p->n_closed_segments;
    if (n > m - i) {
        return false;
    }
    for (size_t j = 0; j < n; j++) {
        if (!segment_same(&p->closed_segments[i + j],
                          &k->inputs[k->first + j])) {
            return false;
        }
    }
    mem_free(k->list);
    k->n_list = m - n + 1;
    k->list = mem_alloc(k->n_list * sizeof *k->list);
    memcpy(k->list, p->closed_segments, i * sizeof *k->list);
    k->list[i] = *output;
    memcpy(k->list + i + 1, p->closed_segments + i + n,
           (m - i - n) * sizeof *k->list);
    return true;
}

static void switch_next(struct compaction *k)
{
    struct partition *p = k->partition;
    if (!may_switch(p)) {
        return; /* compaction_poll */
    }
    if (!list_make(k, &k->output)) {
        give_up(k, ERR_OK);
        return;
    }
    k->phase = SWITCH;
    k->compacted = p->compacted;
    p->switching = true;
    submit(k);
}

static void mark_next(struct compaction *k)
{
    struct partition *p = k->partition;
    if (!may_switch(p)) {
        return;
    }
    mem_free(k->list);
    k->n_list = p->n_closed_segments;
    k->list = mem_alloc((k->n_list + 1) * sizeof *k->list);
    memcpy(k->list, p->closed_segments, k->n_list * sizeof *k->list);
    k->compacted = p->compacted.v > k->c.to.v ? p->compacted : k->c.to;
    p->switching = true;
    submit(k);
}

void segments_written(struct partition *p, enum err status)
{
    p->switching = false;
    if (status != ERR_OK && status != ERR_NOSPACE) {
        env_fatal(p->env, "%s: the list of segments in %s: %s", p->name, p->dir,
                  err_text(status));
    }
}

void segments_adopt(struct partition *p, struct segment *list, size_t n,
                    kafka_offset compacted)
{
    mem_free(p->closed_segments);
    p->closed_segments = list;
    p->n_closed_segments = n;
    p->compacted = compacted;
}

/* The new list is durable. */
static void list_adopt(struct compaction *k)
{
    segments_adopt(k->partition, k->list, k->n_list, k->compacted);
    k->list = NULL;
}

static void switched(struct compaction *k)
{
    struct partition *p = k->partition;
    size_t n = k->at - k->first;
    struct segment *old = mem_alloc(n * sizeof *old);
    memcpy(old, k->inputs + k->first, n * sizeof *old);
    list_adopt(k);
    k->phase = RETIRE;
    k->output_waits = false;
    segments_retire(p, old, n);
    retention_remove(p);
    next(k);
}

static void marked(struct compaction *k)
{
    struct partition *p = k->partition;
    list_adopt(k);
    retention_remove(p);
    if (k->changed) {
        log_info("partition",
                 "%s: compacted up to offset %lld: %llu bytes became %llu, "
                 "%llu keys",
                 p->name, (long long)p->compacted.v,
                 (unsigned long long)k->bytes_before,
                 (unsigned long long)k->bytes_after,
                 (unsigned long long)offset_map_count(k->c.map));
    }
    k->phase = END;
    next(k);
}

/* ---- the way through it -------------------------------------------------- */
static void next(struct compaction *k)
{
    struct partition *p = k->partition;
    if (p->closed) {
        give_up(k, ERR_OK);
        return;
    }
    switch (k->phase) {
        case SCAN:
            scan_next(k);
            break;
        case COPY:
            copy_next(k);
            break;
        case FINISH:
        case DISCARD:
            submit(k);
            break;
        case READY:
            switch_next(k);
            break;
        case SWITCH:
            UNREACHABLE("a switch is on a worker");
        case RETIRE:
            if (p->n_retired == 0 && p->removals == 0) {
                copy_begin(k);
            }
            break;
        case MARK:
            mark_next(k);
            break;
        case END:
            compaction_end(k);
            break;
    }
}

static void step_done(struct compaction *k)
{
    switch (k->phase) {
        case SCAN:
            if (k->step_done) {
                k->at++;
                k->c.slot = 0;
            }
            next(k);
            break;
        case COPY:
            if (k->step_done) {
                copied(k);
            } else {
                next(k);
            }
            break;
        case FINISH:
            k->output_waits = true;
            k->phase = READY;
            next(k);
            break;
        case DISCARD:
            k->phase = RETIRE;
            next(k);
            break;
        case SWITCH:
            switched(k);
            break;
        case MARK:
            marked(k);
            break;
        case READY:
        case RETIRE:
        case END:
            UNREACHABLE("not for workers");
    }
}

static void work_done(struct env_work *work)
{
    struct compaction *k = work->arg;
    struct partition *p = k->partition;
    k->working = false;
    partition_view_give(p, &k->c.view);
    if (k->phase == SWITCH || k->phase == MARK) {
        segments_written(p, k->status);
    }
    if (k->status == ERR_CORRUPT &&
        segments_listed_at(p, &k->inputs[k->at]) == p->n_closed_segments) {
        k->status = ERR_OK; /* it was removed, not damaged */
        give_up(k, ERR_OK);
    } else if (k->status != ERR_OK) {
        give_up(k, k->status);
    } else {
        step_done(k);
    }
    partition_unref(p);
}

/* ---- from outside -------------------------------------------------------- */
void compaction_poll(struct partition *p)
{
    struct compaction *k = p->compaction;
    refetch_poll(p);
    if (k != NULL && !k->working) {
        next(k);
    }
}

void compaction_closed(struct partition *p)
{
    compaction_poll(p); /* else when the worker is done */
}

void compaction_consider(struct partition_shard *shard)
{
    struct partition *most = NULL;
    double most_need = 0;
    if (shard->refetching != NULL) {
        refetch_poll(shard->refetching);
    }
    if (shard->compacting != NULL) {
        compaction_poll(shard->compacting);
        return;
    }
    for (struct partition_link *l = shard->partitions.next;
         l != &shard->partitions; l = l->next) {
        struct partition *p = LINK_OF(struct partition, link, l);
        if (may_begin(p)) {
            double n = need(p, env_wall_ms(p->env));
            if (n > most_need) {
                most = p;
                most_need = n;
            }
        }
    }
    if (most != NULL) {
        compaction_begin(most);
    }
}
