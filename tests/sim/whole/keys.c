/* What is true of the compacted topic, and what may be missing of it.
 *
 * A reading from the beginning to the end sees of each replica what Kafka's
 * compaction promises, and nothing else may be missing:
 *   - a record is gone only if there is a newer one of its key below the high
 *     watermark of then, and not before min.compaction.lag.ms;
 *   - the newest record of a key is there, or it is a tombstone of at least
 *     delete.retention.ms;
 *   - a replica that has no tombstone any more has nothing that it took back;
 *   - with cleanup.policy=delete too, what is older than retention.ms may go.
 * What is there has the offset, time, sequence and content that it was
 * acknowledged with, in order, with leader epochs that never go back.
 *
 * Where brokers' clocks jump their ages are of no use, but for those that are
 * longer than any jump. */
#include <stdlib.h>
#include <string.h>

#include "partition/batch.h"
#include "tests/sim/whole/impl.h"

/* Two clocks of brokers differ by this much at most, where they jump. */
#define JUMPS_MS INT64_C(7200000)
/* So often one after the other a replica may show a record without the
 * tombstone that took it back: both may go while it is read, or all of it may
 * be replaced by what a peer has. */
#define BACK_MAX 2

struct key_stream { /* one writer's records in one partition */
    struct key_record *records;
    uint64_t n, size;
};

/* A record that was there without its tombstone. */
struct key_back {
    int64_t offset, taken;
    int times;
};

struct key_part {
    record_id *log; /* by offset: acknowledged or read; 0: not known */
    bool *gone;     /* it was missing once */
    int64_t size;
    int64_t end, acked_end; /* newest known, newest acknowledged, + 1 */
    int64_t low;            /* the highest beginning that was told */
    struct key_back backs[BROKERS_MAX]; /* by its last reading alone */
};

struct keys {
    struct key_part parts[KEYED_PARTITIONS_MAX];
    struct key_stream streams[PRODUCERS_MAX][KEYED_PARTITIONS_MAX];
};

#define FAIL(w, index, offset, format, ...)                               \
    sim_fail((w)->sim, "t%d-%d offset %lld: " format, KEYED_TOPIC, index, \
             (long long)(offset), __VA_ARGS__)

/* ---- keys ---------------------------------------------------------------- */
int key_bytes(int key, char out[KEY_BYTES_MAX])
{
    int n = 1 + key * 7 % 24;
    memset(out, 'k', (size_t)n);
    memcpy(out + n, &key, sizeof key);
    return n + (int)sizeof key;
}

int key_draw(const struct world *w, struct prng *rng)
{
    int n = w->plan.keyed.n_keys;
    return (int)prng_below(rng, (uint64_t)(prng_chance(rng, 1, 2) ? 3 : n));
}

static int key_of(const struct batch_record *record)
{
    char expected[KEY_BYTES_MAX];
    int key;
    if (record->key_size < (int)sizeof key ||
        record->key_size > KEY_BYTES_MAX) {
        return -1;
    }
    memcpy(&key, record->key + record->key_size - sizeof key, sizeof key);
    return key >= 0 && key < KEYS_MAX &&
                   key_bytes(key, expected) == record->key_size &&
                   memcmp(expected, record->key, (size_t)record->key_size) == 0
               ? key
               : -1;
}

/* ---- what was written ---------------------------------------------------- */
static struct keys *keys_of(struct world *w)
{
    if (w->keys == NULL) {
        w->keys = calloc(1, sizeof *w->keys);
    }
    return w->keys;
}

static struct key_stream *stream_of(struct world *w, record_id id)
{
    int producer = record_producer(id), part = record_part(id);
    if (producer < 0 || producer >= w->n_producers || part >= PARTS_MAX ||
        part_topic(part) != KEYED_TOPIC ||
        part_index(part) >= w->plan.keyed.n_partitions) {
        sim_fail(w->sim, "record %llx is of nobody", (unsigned long long)id);
    }
    return &keys_of(w)->streams[producer][part_index(part)];
}

void keys_made(struct world *w, record_id id, const struct key_record *record)
{
    struct key_stream *s = stream_of(w, id);
    if (s->n == s->size) {
        s->size = s->size == 0 ? 64 : s->size * 2;
        s->records = realloc(s->records, s->size * sizeof *s->records);
    }
    if (record_r(id) != s->n) {
        sim_fail(w->sim, "record %llx is made as the %llu-th",
                 (unsigned long long)id, (unsigned long long)s->n);
    }
    s->records[s->n] = *record;
    s->records[s->n++].made_ns = sim_now_ns(w->sim);
}

/* NULL: it was never sent. */
static struct key_record *record_of(struct world *w, record_id id)
{
    struct key_stream *s = stream_of(w, id);
    return record_r(id) < s->n && s->records[record_r(id)].sent_ns != 0
               ? &s->records[record_r(id)]
               : NULL;
}

void keys_sent(struct world *w, record_id first, int n)
{
    struct key_stream *s = stream_of(w, first);
    for (int i = 0; i < n; i++) {
        struct key_record *record = &s->records[record_r(first) + (uint64_t)i];
        if (record->sent_ns == 0) {
            record->sent_ns = sim_now_ns(w->sim);
        }
    }
}

static void part_grow(struct key_part *p, int64_t offset)
{
    int64_t size = p->size == 0 ? 256 : p->size;
    while (size <= offset) {
        size *= 2;
    }
    if (size == p->size) {
        return;
    }
    p->log = realloc(p->log, (size_t)size * sizeof *p->log);
    p->gone = realloc(p->gone, (size_t)size * sizeof *p->gone);
    memset(p->log + p->size, 0, (size_t)(size - p->size) * sizeof *p->log);
    memset(p->gone + p->size, 0, (size_t)(size - p->size) * sizeof *p->gone);
    p->size = size;
}

/* This record lies at this offset, now and for ever. */
static struct key_record *place(struct world *w, int index, int64_t offset,
                                record_id id)
{
    struct key_part *p = &keys_of(w)->parts[index];
    struct key_record *record = record_of(w, id);
    if (offset < 0 || offset > 1 << 30 || record == NULL ||
        part_index(record_part(id)) != index) {
        FAIL(w, index, offset, "a phantom, record %llx",
             (unsigned long long)id);
    }
    part_grow(p, offset);
    if ((p->log[offset] != 0 && p->log[offset] != id) ||
        (record->offset >= 0 && record->offset != offset)) {
        FAIL(w, index, offset,
             "holds record %llx and record %llx, which was at %lld",
             (unsigned long long)p->log[offset], (unsigned long long)id,
             (long long)record->offset);
    }
    p->log[offset] = id;
    record->offset = offset;
    p->end = p->end > offset ? p->end : offset + 1;
    return record;
}

void keys_acked(struct world *w, record_id first, int n, int64_t base)
{
    int index = part_index(record_part(first));
    struct key_part *p = &keys_of(w)->parts[index];
    for (int i = 0; i < n; i++) {
        struct key_record *record =
            place(w, index, base + i, first + (uint64_t)i);
        w->result.acknowledged += !record->acked;
        record->acked = true;
    }
    if (p->acked_end < base + n) {
        p->acked_end = base + n;
    }
}

int64_t keys_end(const struct world *w, int index)
{
    return w->keys == NULL ? 0 : w->keys->parts[index].end;
}

int64_t keys_low(const struct world *w, int index)
{
    return w->keys == NULL ? 0 : w->keys->parts[index].low;
}

/* ---- the beginning ------------------------------------------------------- */
static int64_t jumps_ms(const struct world *w)
{
    return w->plan.faults & UINT32_C(1) << FAULT_CLOCK ? JUMPS_MS : 0;
}

/* By the time when it was told that it is gone. */
static bool is_aged(const struct world *w, uint64_t from_ns, uint64_t to_ns,
                    int64_t ms)
{
    int64_t age = to_ns > from_ns ? (int64_t)((to_ns - from_ns) / SIM_MS) : 0;
    return age + 1 + jumps_ms(w) >= ms;
}

/* What lay from one offset up to another is deleted: was it old, or superseded?
 */
static void check_retired(struct world *w, int index, int64_t from, int64_t to)
{
    const struct key_part *p = &keys_of(w)->parts[index];
    bool newer[KEYS_MAX] = {false};
    for (int64_t o = p->end - 1; o >= from; o--) {
        const struct key_record *record =
            p->log[o] == 0 ? NULL : record_of(w, p->log[o]);
        if (record == NULL) {
            return; /* nobody told yet whether it is a newer one */
        }
        if (o < to && !newer[record->key] && !record->tombstone &&
            !is_aged(w, record->made_ns, sim_now_ns(w->sim),
                     w->plan.keyed.retention_ms)) {
            FAIL(w, index, o, "the log begins at %lld, though it is young",
                 (long long)to);
        }
        newer[record->key] = true;
    }
}

void keys_begin_at(struct world *w, int index, int64_t low)
{
    struct key_part *p = &keys_of(w)->parts[index];
    if (low < 0 || (low > 0 && !w->plan.keyed.deletes)) {
        FAIL(w, index, low, "the log begins there, %s",
             w->plan.keyed.deletes ? "it is said" : "though none is deleted");
    }
    if (low > p->low) {
        check_retired(w, index, p->low, low);
        p->low = low;
    }
}

void keys_finish(struct world *w)
{
    for (int i = 0; w->keys != NULL && i < w->plan.keyed.n_partitions; i++) {
        const struct key_part *p = &w->keys->parts[i];
        for (int64_t o = 0; o < p->end; o++) {
            if (p->log[o] == 0 || !record_of(w, p->log[o])->acked) {
                FAIL(w, i, o, "nobody knows it of %lld", (long long)p->end);
            }
        }
    }
}

void keys_free(struct world *w)
{
    if (w->keys == NULL) {
        return;
    }
    for (int i = 0; i < KEYED_PARTITIONS_MAX; i++) {
        free(w->keys->parts[i].log);
        free(w->keys->parts[i].gone);
        for (int k = 0; k < PRODUCERS_MAX; k++) {
            free(w->keys->streams[k][i].records);
        }
    }
    free(w->keys);
}

/* ---- one reading --------------------------------------------------------- */
struct key_answer {
    uint64_t ns;
    int64_t watermark;
    int broker;
};

/* What became known of an offset, by which answer. */
struct key_look {
    bool there;
    uint32_t answer;
};

struct key_pass {
    struct world *world;
    int index;
    bool replica;
    int64_t from, position;
    int64_t low, watermark; /* the highest ones that were told */
    int32_t epoch;
    struct key_answer *answers;
    uint32_t n_answers, answers_size;
    struct key_look *looks; /* by offset, up to the position */
    int64_t looks_size;
    bool clean;
};

struct key_pass *key_pass_new(struct world *w, int index, bool replica)
{
    struct key_pass *p = calloc(1, sizeof *p);
    p->world = w;
    p->index = index;
    p->replica = replica;
    p->from = p->position = keys_low(w, index);
    p->epoch = -1;
    return p;
}

int64_t key_pass_position(const struct key_pass *p)
{
    return p->position;
}

bool key_pass_is_clean(const struct key_pass *p)
{
    return p->clean;
}

void key_pass_free(struct key_pass *p)
{
    if (p != NULL) {
        free(p->answers);
        free(p->looks);
        free(p);
    }
}

/* Offsets up to this one are not there, by the newest answer. */
static void pass_skip(struct key_pass *p, int64_t to)
{
    if (to > p->looks_size) {
        p->looks_size = to * 2;
        p->looks = realloc(p->looks, (size_t)p->looks_size * sizeof *p->looks);
    }
    for (; p->position < to; p->position++) {
        p->looks[p->position] = (struct key_look){false, p->n_answers - 1};
    }
}

static record_id number_of(const struct batch_record *record)
{
    const uint8_t *at = record->headers;
    struct record_header header;
    record_id id = 0;
    if (record->n_headers == 1 && batch_record_header(record, &at, &header) &&
        header.key_size == 1 && header.value_size == sizeof id) {
        memcpy(&id, header.value, sizeof id);
    }
    return id;
}

static bool value_is(record_id id, const struct batch_record *record)
{
    uint8_t value[1024];
    if (record->value == NULL) {
        return true; /* whether it may be none is looked at elsewhere */
    }
    if (record->value_size < RECORD_VALUE_MIN ||
        record->value_size > (int32_t)sizeof value) {
        return false;
    }
    record_value(id, value, record->value_size);
    return memcmp(value, record->value, (size_t)record->value_size) == 0;
}

static void pass_record(struct key_pass *p, const struct batch_header *h,
                        const struct batch_record *record)
{
    struct world *w = p->world;
    int64_t offset = h->base_offset.v + record->offset_delta;
    record_id id = number_of(record);
    if (offset < p->position) {
        return; /* the batch began before */
    }
    const struct key_record *made = place(w, p->index, offset, id);
    if (key_of(record) != made->key ||
        (record->value == NULL) != made->tombstone || !value_is(id, record) ||
        record->timestamp != made->timestamp_ms) {
        FAIL(w, p->index, offset, "record %llx has changed",
             (unsigned long long)id);
    }
    if ((uint64_t)sequence_add(h->base_sequence, record->offset_delta) !=
        record_r(id)) {
        FAIL(w, p->index, offset, "record %llx has sequence %d",
             (unsigned long long)id,
             sequence_add(h->base_sequence, record->offset_delta));
    }
    pass_skip(p, offset + 1);
    p->looks[offset].there = true;
    w->result.read++;
}

static void pass_batch(struct key_pass *p, const uint8_t *batch,
                       const struct batch_header *h)
{
    struct world *w = p->world;
    struct batch_records records;
    struct batch_record record;
    int32_t delta = -1;
    if (!batch_is_whole(batch, batch_size(h)) ||
        batch_records_open(&records, batch, batch_size(h), 64 << 20) !=
            ERR_OK) {
        FAIL(w, p->index, h->base_offset.v, "a bad batch of %zu bytes",
             batch_size(h));
    }
    if (h->leader_epoch < p->epoch) {
        FAIL(w, p->index, h->base_offset.v, "epoch %d after %d",
             h->leader_epoch, p->epoch);
    }
    p->epoch = h->leader_epoch;
    while (batch_records_next(&records, &record)) {
        if (record.offset_delta <= delta ||
            record.offset_delta > h->last_offset_delta) {
            FAIL(w, p->index, h->base_offset.v, "record %d after %d",
                 record.offset_delta, delta);
        }
        delta = record.offset_delta;
        pass_record(p, h, &record);
    }
    if (records.status != ERR_OK) {
        FAIL(w, p->index, h->base_offset.v, "bad records of %d",
             h->record_count);
    }
    batch_records_close(&records);
    pass_skip(p, batch_last_offset(h).v + 1);
}

static void pass_batches(struct key_pass *p, const uint8_t *at, size_t left)
{
    struct world *w = p->world;
    int64_t end = -1, watermark = p->answers[p->n_answers - 1].watermark;
    while (left > 0) {
        struct batch_header h;
        if (batch_header_read(at, left, &h) != ERR_OK ||
            batch_size(&h) > left) {
            FAIL(w, p->index, p->position, "half a batch, %zu bytes", left);
        }
        if (h.base_offset.v <= end || batch_last_offset(&h).v >= watermark) {
            FAIL(w, p->index, h.base_offset.v,
                 "a batch up to %lld behind %lld, the high watermark is %lld",
                 (long long)batch_last_offset(&h).v, (long long)end,
                 (long long)watermark);
        }
        end = batch_last_offset(&h).v;
        pass_batch(p, at, &h);
        at += batch_size(&h);
        left -= batch_size(&h);
    }
}

/* ---- what may be missing ------------------------------------------------- */
/* Of a key, from the end of what was read down to where one looks. */
struct key_seen {
    int64_t next;  /* the oldest record so far; -1: none */
    int64_t taken; /* the newest, a tombstone, was missing; -1: no */
    bool there;    /* there was one of them */
};

struct judge {
    struct key_pass *pass;
    struct key_seen keys[KEYS_MAX];
    int64_t unknown; /* the lowest offset so far that nobody told; -1: none */
};

/* Superseded by what is at this offset. */
static void check_lag(const struct key_pass *p, int64_t offset,
                      const struct key_record *record,
                      const struct key_answer *answer)
{
    struct world *w = p->world;
    if (offset >= p->low &&
        !is_aged(w, record->made_ns, answer->ns, w->plan.keyed.lag_ms)) {
        FAIL(w, p->index, offset, "b%d compacted it after %llu ms",
             answer->broker,
             (unsigned long long)((answer->ns - record->made_ns) / SIM_MS));
    }
}

/* Nothing newer of its key was known then: why is it not there? */
static void check_newest(struct judge *j, int64_t offset,
                         const struct key_record *record,
                         const struct key_answer *answer)
{
    struct key_pass *p = j->pass;
    struct world *w = p->world;
    struct key_seen *seen = &j->keys[record->key];
    if (!record->tombstone ||
        !is_aged(w, record->sent_ns, answer->ns, w->plan.keyed.tombstone_ms)) {
        FAIL(w, p->index, offset,
             "%s of key %d is not there at b%d, high watermark %lld; the next "
             "one of its key is at %lld",
             record->tombstone ? "a young tombstone" : "the newest record",
             record->key, answer->broker, (long long)answer->watermark,
             (long long)seen->next);
    }
    if (seen->next < 0) {
        seen->taken = offset;
    }
}

static bool may_have_retired(const struct key_pass *p, int64_t offset,
                             const struct key_record *record,
                             const struct key_answer *answer)
{
    const struct keyed_plan *k = &p->world->plan.keyed;
    return k->deletes && offset < p->low &&
           is_aged(p->world, record->made_ns, answer->ns, k->retention_ms);
}

static void check_missing(struct judge *j, int64_t offset,
                          const struct key_record *record)
{
    struct key_pass *p = j->pass;
    struct world *w = p->world;
    const struct key_answer *answer = &p->answers[p->looks[offset].answer];
    struct key_part *part = &w->keys->parts[p->index];
    int64_t next = j->keys[record->key].next;
    if (may_have_retired(p, offset, record, answer)) {
        return;
    }
    if (next >= 0 && next < answer->watermark) {
        check_lag(p, offset, record, answer);
    } else if (j->unknown < 0 || j->unknown >= answer->watermark) {
        check_newest(j, offset, record, answer);
    } /* else: the one that took its place may be one that nobody told yet */
    w->result.compacted += !part->gone[offset];
    part->gone[offset] = true;
}

/* It is there, though a tombstone of its key that is gone took it back. */
static void came_back(struct judge *j, int64_t offset, int64_t taken)
{
    struct key_pass *p = j->pass;
    struct world *w = p->world;
    int broker = p->answers[p->looks[offset].answer].broker;
    struct key_back *back = &w->keys->parts[p->index].backs[broker];
    if (!p->replica || !p->clean) {
        return; /* replicas compact by themselves; one is enough */
    }
    p->clean = false;
    if (back->times == 0 || back->offset != offset || back->taken != taken) {
        *back = (struct key_back){offset, taken, 0};
    }
    if (++back->times > BACK_MAX) {
        FAIL(w, p->index, offset,
             "is there at b%d: its tombstone at %lld is gone", broker,
             (long long)taken);
    }
}

static void pass_judge(struct key_pass *p)
{
    struct world *w = p->world;
    struct key_part *part = &keys_of(w)->parts[p->index];
    struct judge j = {.pass = p, .unknown = -1};
    for (int k = 0; k < KEYS_MAX; k++) {
        j.keys[k] = (struct key_seen){.next = -1, .taken = -1};
    }
    p->clean = true;
    for (int64_t o = p->position - 1; o >= p->from; o--) {
        if (o >= part->size || part->log[o] == 0) {
            j.unknown = o;
            continue;
        }
        const struct key_record *record = record_of(w, part->log[o]);
        struct key_seen *seen = &j.keys[record->key];
        if (!p->looks[o].there) {
            check_missing(&j, o, record);
        } else {
            if (!seen->there && seen->taken >= 0) {
                came_back(&j, o, seen->taken);
            }
            seen->there = true;
        }
        seen->next = o;
    }
    if (p->replica && p->clean) {
        part->backs[p->answers[0].broker].times = 0;
    }
    w->result.passes++;
}

bool key_pass_take(struct key_pass *p, int broker, int64_t watermark,
                   int64_t log_start, const uint8_t *batches, size_t size)
{
    struct world *w = p->world;
    if (p->n_answers == p->answers_size) {
        p->answers_size = p->answers_size == 0 ? 32 : p->answers_size * 2;
        p->answers = realloc(p->answers, p->answers_size * sizeof *p->answers);
    }
    p->answers[p->n_answers++] =
        (struct key_answer){sim_now_ns(w->sim), watermark, broker};
    keys_begin_at(w, p->index, log_start);
    p->low = p->low > log_start ? p->low : log_start;
    p->watermark = p->watermark > watermark ? p->watermark : watermark;
    pass_batches(p, batches, size);
    if (p->position < p->watermark) {
        return false;
    }
    pass_judge(p);
    return true;
}
