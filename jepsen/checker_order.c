/* The order in which one process sends and polls, against the order of the
 * log: within one operation, and from one operation to the next. A process is
 * followed from its first operation to its last; what it knows of a key stays
 * in the key's scratch fields while the stamp is its own. */
#include "jepsen/checker_impl.h"

struct walk {
    struct checker *c;
    enum check_mop_kind kind; /* polls or sends */
    uint64_t stamp_process;   /* of this process, since its last assignment */
    uint64_t stamp_op;
    bool subscribed;
};

/* Steps from one value to another in the log; 1 where it is not known. */
static int64_t steps(const struct checker *c, uint32_t from, uint32_t to)
{
    int64_t a = c->values[from].position, b = c->values[to].position;

    return a < 0 || b < 0 ? 1 : b - a;
}

static bool is_rebalanced(const struct checker *c, const struct check__op *o,
                          uint32_t key)
{
    const uint32_t *list = c->lists + o->keys_at + o->n_keys;

    for (uint32_t i = 0; i < o->n_rebalanced; i++) {
        if (list[i] == key)
            return true;
    }
    return false;
}

static void found(struct walk *w, enum check_anomaly a, uint32_t from,
                  uint32_t to, uint32_t op_from, uint32_t op_to, bool allowed)
{
    struct checker *c = w->c;
    struct check_finding f = check__finding(a, c, c->values[to].key);

    f.value = c->values[from].value;
    f.value_other = c->values[to].value;
    f.offset = c->values[from].offset;
    f.offset_other = c->values[to].offset;
    f.delta = steps(c, from, to);
    f.ops[0] = check__index(c, op_from);
    f.ops[1] = op_from == op_to ? -1 : check__index(c, op_to);
    f.allowed = allowed;
    check__found(c, f);
}

/* Two values of one operation, one after the other. */
static void judge_inside(struct walk *w, uint32_t op, uint32_t from,
                         uint32_t to)
{
    int64_t delta = steps(w->c, from, to);
    bool polls = w->kind == CHECK_MOP_POLL;

    if (polls && is_rebalanced(w->c, &w->c->ops[op], w->c->values[to].key))
        return;
    if (delta > 1) /* others' records come between one's own */
        found(w, polls ? CHECK_INT_POLL_SKIP : CHECK_INT_SEND_SKIP, from, to,
              op, op, !polls);
    if (delta < 1)
        found(w,
              polls ? CHECK_INT_NONMONOTONIC_POLL : CHECK_INT_NONMONOTONIC_SEND,
              from, to, op, op, false);
}

/* The last value of an operation before, and the first one of this. */
static void judge_between(struct walk *w, uint32_t op,
                          const struct check__key *k, uint32_t to)
{
    int64_t delta = steps(w->c, k->state, to);
    bool polls = w->kind == CHECK_MOP_POLL;
    bool allowed = polls && w->subscribed;

    if (polls && is_rebalanced(w->c, &w->c->ops[op], w->c->values[to].key))
        allowed = true;
    if (delta > 1 && polls)
        found(w, CHECK_POLL_SKIP, k->state, to, k->state_op, op, allowed);
    if (delta < 1)
        found(w, polls ? CHECK_NONMONOTONIC_POLL : CHECK_NONMONOTONIC_SEND,
              k->state, to, k->state_op, op, allowed);
}

static void walk_values(struct walk *w, uint32_t op)
{
    struct checker *c = w->c;
    const struct check__op *o = &c->ops[op];

    w->stamp_op++;
    for (uint32_t j = 0; j < o->n_mops; j++) {
        const struct check__mop *m = &c->mops[o->mops_at + j];
        struct check__key *k = &c->keys[m->key];

        if (m->kind != w->kind)
            continue;
        if (k->stamp_op == w->stamp_op)
            judge_inside(w, op, k->last, m->value);
        else if (k->stamp_process == w->stamp_process &&
                 !(w->kind == CHECK_MOP_SEND && o->type == CHECK_FAIL))
            judge_between(w, op, k, m->value);
        k->stamp_op = w->stamp_op;
        k->last = m->value;
    }
}

/* After an operation, its last values are the state of the process. */
static void walk_state(struct walk *w, uint32_t op)
{
    struct checker *c = w->c;
    const struct check__op *o = &c->ops[op];
    bool moves = o->type == CHECK_OK ||
                 (w->kind == CHECK_MOP_SEND && o->type == CHECK_INFO);

    for (uint32_t j = 0; moves && j < o->n_mops; j++) {
        const struct check__mop *m = &c->mops[o->mops_at + j];
        struct check__key *k = &c->keys[m->key];

        if (m->kind != w->kind)
            continue;
        k->stamp_process = w->stamp_process;
        k->state = k->last;
        k->state_op = op;
    }
}

/* A new assignment keeps what is known of its keys only. */
static void walk_assign(struct walk *w, const struct check__op *o)
{
    struct checker *c = w->c;
    uint64_t before = w->stamp_process++;

    w->subscribed = o->f == CHECK_SUBSCRIBE;
    if (o->seek && w->kind == CHECK_MOP_POLL)
        return;
    for (uint32_t i = 0; i < o->n_keys; i++) {
        struct check__key *k = &c->keys[c->lists[o->keys_at + i]];

        if (k->stamp_process == before)
            k->stamp_process = w->stamp_process;
    }
}

static bool concerns(const struct walk *w, const struct check__op *o)
{
    if (o->f == CHECK_TXN)
        return true;
    return o->f == (w->kind == CHECK_MOP_POLL ? CHECK_POLL : CHECK_SEND);
}

static void walk_op(struct walk *w, uint32_t op)
{
    const struct check__op *o = &w->c->ops[op];

    if (o->type == CHECK_INVOKE)
        return;
    if (o->f == CHECK_ASSIGN || o->f == CHECK_SUBSCRIBE) {
        if (o->type != CHECK_FAIL)
            walk_assign(w, o);
    } else if (concerns(w, o)) {
        walk_values(w, op);
        walk_state(w, op);
    }
}

static void walk_all(struct checker *c, enum check_mop_kind kind)
{
    struct walk w = {.c = c, .kind = kind};

    for (size_t k = 0; k < c->n_keys; k++)
        c->keys[k].stamp_op = c->keys[k].stamp_process = 0;
    for (size_t p = 0; p < c->n_processes; p++) {
        w.stamp_process++;
        w.subscribed = false;
        for (size_t i = c->process_at[p]; i < c->process_at[p + 1]; i++)
            walk_op(&w, c->by_process[i]);
    }
}

void check__polls_judge(struct checker *c)
{
    walk_all(c, CHECK_MOP_POLL);
}

void check__sends_judge(struct checker *c)
{
    walk_all(c, CHECK_MOP_SEND);
}
