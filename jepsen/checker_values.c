/* What can be said of each value by itself: lost, unseen, duplicate, phantom,
 * read though it failed, acknowledged elsewhere; and of each operation. */
#include "base/mem.h"
#include "jepsen/checker_impl.h"

static struct check_finding of_value(const struct checker *c,
                                     enum check_anomaly a, uint32_t value)
{
    const struct check__value *v = &c->values[value];
    struct check_finding f = check__finding(a, c, v->key);

    f.value = v->value;
    f.offset = v->offset;
    f.ops[0] = check__index(c, v->writer);
    f.ops[1] = check__index(c, v->reader);
    return f;
}

/* For each key the highest place that an OK poll proves to be readable. */
static int64_t *bounds(const struct checker *c, uint32_t **proof)
{
    int64_t *bound = mem_alloc((c->n_keys + 1) * sizeof *bound);

    *proof = mem_alloc((c->n_keys + 1) * sizeof **proof);
    for (size_t k = 0; k < c->n_keys; k++) {
        bound[k] = -1;
        (*proof)[k] = CHECK_NONE;
    }
    for (uint32_t i = 0; i < c->n_values; i++) {
        const struct check__value *v = &c->values[i];

        if ((v->flags & READ_OK) == 0 || v->position_first <= bound[v->key])
            continue;
        bound[v->key] = v->position_first;
        (*proof)[v->key] = v->reader;
    }
    return bound;
}

static void judge_lost(struct checker *c)
{
    uint32_t *proof;
    int64_t *bound = bounds(c, &proof);

    for (uint32_t i = 0; i < c->n_values; i++) {
        const struct check__value *v = &c->values[i];
        struct check_finding f;

        if ((v->flags & READ_OK) != 0 || v->position_last < 0 ||
            v->position_last > bound[v->key] ||
            (v->flags & COMMITTED_WRITE) == 0)
            continue;
        f = of_value(c, CHECK_LOST_WRITE, i);
        f.ops[1] = check__index(c, proof[v->key]);
        check__found(c, f);
    }
    mem_free(bound);
    mem_free(proof);
}

static void judge_duplicate(struct checker *c, uint32_t value)
{
    const struct check__value *v = &c->values[value];
    struct check_finding f = of_value(c, CHECK_DUPLICATE, value);

    f.offset_other = c->more[v->more].offset;
    check__found(c, f);
}

static void judge_value(struct checker *c, uint32_t i)
{
    const struct check__value *v = &c->values[i];
    struct check_finding f;

    if (v->more != CHECK_NONE)
        judge_duplicate(c, i);
    if ((v->flags & READ_ANY) != 0 && v->writer == CHECK_NONE)
        check__found(c, of_value(c, CHECK_PHANTOM, i));
    if ((v->flags & READ_OK) != 0 && (v->flags & WRITE_FAIL) != 0)
        check__found(c, of_value(c, CHECK_G1A, i));
    if ((v->flags & ACKED) != 0 && (v->flags & READ_OK) == 0) {
        f = of_value(c, CHECK_UNSEEN, i);
        f.allowed = !c->config.drained;
        check__found(c, f);
    }
}

/* A read of a value somewhere else than where it was acknowledged. */
static void judge_moved(struct checker *c, uint32_t op,
                        const struct check__mop *m)
{
    struct check__value *v = &c->values[m->value];
    struct check_finding f;

    if (v->acked_at < 0 || m->offset < 0 || m->offset == v->acked_at ||
        (v->flags & MOVED_TOLD) != 0)
        return;
    v->flags |= MOVED_TOLD;
    f = of_value(c, CHECK_ACK_OFFSET_DIFFERS, m->value);
    f.offset = v->acked_at;
    f.offset_other = m->offset;
    f.ops[1] = check__index(c, op);
    check__found(c, f);
}

/* Did the operation read what it sent itself? */
static void judge_own(struct checker *c, uint32_t op,
                      const struct check__mop *m)
{
    const struct check__value *v = &c->values[m->value];
    struct check_finding f;

    if (v->writer != op)
        return;
    f = of_value(c, CHECK_PRECOMMITTED_READ, m->value);
    f.ops[1] = check__index(c, op);
    check__found(c, f);
}

static void judge_torn(struct checker *c, uint32_t op,
                       const struct check__mop *m)
{
    struct check_finding f = check__finding(CHECK_TORN, c, m->key);

    f.offset = m->offset;
    f.ops[0] = check__index(c, op);
    check__found(c, f);
}

static void judge_op(struct checker *c, uint32_t op)
{
    const struct check__op *o = &c->ops[op];

    for (uint32_t j = 0; j < o->n_mops; j++) {
        const struct check__mop *m = &c->mops[o->mops_at + j];

        if (m->kind == CHECK_MOP_TORN)
            judge_torn(c, op, m);
        if (m->kind != CHECK_MOP_POLL)
            continue;
        judge_moved(c, op, m);
        judge_own(c, op, m);
    }
}

void check__values_judge(struct checker *c)
{
    judge_lost(c);
    for (uint32_t i = 0; i < c->n_values; i++)
        judge_value(c, i);
    for (uint32_t i = 0; i < c->n_ops; i++) {
        if (c->ops[i].type != CHECK_INVOKE)
            judge_op(c, i);
    }
}
