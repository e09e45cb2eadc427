/* The logs that a history tells of: which value stands at which offset of
 * which key, and the dense places of the values (offsets without their holes).
 * Sends count where they are proven to have taken effect; polls always do, as
 * a broker must never hand out what may be taken back. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "jepsen/checker_impl.h"

/* Offsets kept of one value; a value that is everywhere is bad enough. */
#define OFFSETS_MAX 64

static bool is_data(const struct check__op *o)
{
    return o->type != CHECK_INVOKE &&
           (o->f == CHECK_SEND || o->f == CHECK_POLL || o->f == CHECK_TXN);
}

static void note_send(struct checker *c, uint32_t op,
                      const struct check__mop *m)
{
    const struct check__op *o = &c->ops[op];
    struct check__value *v = &c->values[m->value];

    if (v->writer != CHECK_NONE) { /* values are unique */
        struct check_finding f = check__finding(CHECK_MALFORMED, c, m->key);

        f.value = v->value;
        f.ops[0] = check__index(c, v->writer);
        f.ops[1] = o->index;
        check__found(c, f);
    }
    v->writer = op;
    v->flags |= o->type == CHECK_OK     ? WRITE_OK
                : o->type == CHECK_FAIL ? WRITE_FAIL
                                        : WRITE_INFO;
    if (o->type == CHECK_OK || (o->type == CHECK_INFO && m->offset >= 0 &&
                                c->config.offsets_are_acks)) {
        v->flags |= ACKED | COMMITTED_WRITE;
        v->acked_at = m->offset;
    }
}

static void note_poll(struct checker *c, uint32_t op,
                      const struct check__mop *m)
{
    struct check__value *v = &c->values[m->value];
    struct check__key *k = &c->keys[m->key];

    if (v->reader == CHECK_NONE)
        v->reader = op;
    v->flags |= READ_ANY;
    c->result.records_read++;
    if (c->ops[op].type != CHECK_OK)
        return;
    if ((v->flags & READ_OK) == 0)
        v->reader = op; /* an OK one shows it best */
    v->flags |= READ_OK;
    if (m->offset > k->max_read)
        k->max_read = m->offset;
}

/* Who wrote and who read each value. */
static void note_all(struct checker *c)
{
    for (uint32_t i = 0; i < c->n_ops; i++) {
        const struct check__op *o = &c->ops[i];

        for (uint32_t j = 0; is_data(o) && j < o->n_mops; j++) {
            const struct check__mop *m = &c->mops[o->mops_at + j];

            if (m->kind == CHECK_MOP_SEND)
                note_send(c, i, m);
            else if (m->kind == CHECK_MOP_POLL)
                note_poll(c, i, m);
        }
    }
}

/* Took the operation's sends effect for certain? One value that was read
 * proves it for all of them. */
static bool committed(const struct checker *c, const struct check__op *o)
{
    if (o->type != CHECK_INFO)
        return o->type == CHECK_OK;
    for (uint32_t j = 0; j < o->n_mops; j++) {
        const struct check__mop *m = &c->mops[o->mops_at + j];

        if (m->kind == CHECK_MOP_SEND &&
            (c->values[m->value].flags & READ_OK) != 0)
            return true;
    }
    return false;
}

static void log_add(struct checker *c, uint32_t value, int64_t offset)
{
    struct check__value *v = &c->values[value];
    int n = 0;

    if (offset < 0 || v->offset == offset)
        return;
    if (v->offset < 0) {
        v->offset = offset;
    } else {
        for (uint32_t i = v->more; i != CHECK_NONE; i = c->more[i].next) {
            if (c->more[i].offset == offset || ++n >= OFFSETS_MAX)
                return;
        }
        c->more =
            check__room(c->more, &c->cap_more, c->n_more, sizeof *c->more);
        c->more[c->n_more] = (struct check__more){offset, value, v->more};
        v->more = (uint32_t)c->n_more++;
    }
    c->log = check__room(c->log, &c->cap_log, c->n_log, sizeof *c->log);
    c->log[c->n_log++] = (struct check__entry){v->key, value, offset};
}

static void place_op(struct checker *c, const struct check__op *o)
{
    bool all = committed(c, o);

    for (uint32_t j = 0; j < o->n_mops; j++) {
        const struct check__mop *m = &c->mops[o->mops_at + j];

        if (m->kind == CHECK_MOP_POLL) {
            log_add(c, m->value, m->offset);
        } else if (m->kind == CHECK_MOP_SEND) {
            if (all)
                c->values[m->value].flags |= COMMITTED_WRITE;
            if (all || (c->values[m->value].flags & ACKED) != 0)
                log_add(c, m->value, m->offset);
        }
    }
}

static int by_key_offset(const void *a, const void *b)
{
    const struct check__entry *x = a, *y = b;

    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x->value < y->value ? -1 : x->value > y->value;
}

/* Dense places, one for each offset; of several values at one offset the
 * first one has it. */
static void number_places(struct checker *c, size_t begin, size_t end)
{
    int64_t place = -1;

    for (size_t i = begin; i < end; i++) {
        struct check__value *v = &c->values[c->log[i].value];
        bool first = i == begin || c->log[i].offset != c->log[i - 1].offset;

        place += first;
        if (first)
            v->position = place;
        if (v->position_first < 0)
            v->position_first = place;
        v->position_last = place;
    }
}

void check__log_build(struct checker *c)
{
    note_all(c);
    for (size_t i = 0; i < c->n_ops; i++) {
        if (is_data(&c->ops[i]))
            place_op(c, &c->ops[i]);
    }
    if (c->n_log > 0)
        qsort(c->log, c->n_log, sizeof *c->log, by_key_offset);
    c->log_at = mem_zalloc((c->n_keys + 1) * sizeof *c->log_at);
    for (size_t i = 0; i < c->n_log; i++)
        c->log_at[c->log[i].key + 1]++;
    for (size_t k = 0; k < c->n_keys; k++) {
        c->log_at[k + 1] += c->log_at[k];
        number_places(c, c->log_at[k], c->log_at[k + 1]);
    }
}

/* ---- a log by itself ------------------------------------------------------
 */

static uint32_t shower(const struct checker *c, uint32_t value)
{
    const struct check__value *v = &c->values[value];

    return v->writer != CHECK_NONE ? v->writer : v->reader;
}

static void judge_conflicts(struct checker *c, uint32_t key)
{
    const struct check__entry *log = c->log;

    for (size_t i = c->log_at[key] + 1; i < c->log_at[key + 1]; i++) {
        struct check_finding f =
            check__finding(CHECK_INCONSISTENT_OFFSETS, c, key);

        if (log[i].offset != log[i - 1].offset)
            continue;
        if (i > c->log_at[key] + 1 && log[i].offset == log[i - 2].offset)
            continue; /* told already */
        f.offset = log[i].offset;
        f.value = c->values[log[i - 1].value].value;
        f.value_other = c->values[log[i].value].value;
        f.ops[0] = check__index(c, shower(c, log[i - 1].value));
        f.ops[1] = check__index(c, shower(c, log[i].value));
        check__found(c, f);
    }
}

static void gap_found(struct checker *c, uint32_t key, int64_t from,
                      size_t next)
{
    struct check_finding f = check__finding(CHECK_GAP, c, key);

    f.offset = from;
    f.offset_other = c->log[next].offset - 1;
    f.value = c->values[c->log[next].value].value;
    f.ops[0] = check__index(c, c->values[c->log[next].value].reader);
    check__found(c, f);
}

static void judge_gaps(struct checker *c, uint32_t key)
{
    int64_t wanted = 0;

    for (size_t i = c->log_at[key]; i < c->log_at[key + 1]; i++) {
        if (c->log[i].offset > c->keys[key].max_read)
            break;
        if (c->log[i].offset > wanted)
            gap_found(c, key, wanted, i);
        wanted = c->log[i].offset + 1;
    }
}

void check__log_judge(struct checker *c)
{
    for (uint32_t k = 0; k < c->n_keys; k++) {
        judge_conflicts(c, k);
        if (c->config.gapless && c->config.drained)
            judge_gaps(c, k);
    }
}
