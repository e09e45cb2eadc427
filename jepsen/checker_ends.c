/* Answers that must be current. The end of a log (ListOffsets) is never below
 * what was known when it was asked for. A committed offset is a register: what
 * is read was written, and not overwritten before the read began. */
#include "base/assert.h"
#include "base/mem.h"
#include "jepsen/checker_impl.h"

/* ---- ends of logs
 * ------------------------------------------------------------ */

static void know_end(struct checker *c, uint32_t key, int64_t end)
{
    if (end > c->keys[key].end)
        c->keys[key].end = end;
}

/* What a completed operation proves of the ends of logs. */
static void learn(struct checker *c, const struct check__op *o)
{
    for (uint32_t j = 0; j < o->n_mops; j++) {
        const struct check__mop *m = &c->mops[o->mops_at + j];

        if (m->offset < 0)
            continue;
        if (m->kind == CHECK_MOP_POLL)
            know_end(c, m->key, m->offset + 1);
        else if (m->kind == CHECK_MOP_SEND &&
                 (c->values[m->value].flags & ACKED) != 0)
            know_end(c, m->key, m->offset + 1);
        else if (o->f == CHECK_LATEST && o->type == CHECK_OK)
            know_end(c, m->key, m->offset);
    }
}

/* Keeps what is known now in the question itself. */
static void latest_asked(struct checker *c, const struct check__op *o)
{
    for (uint32_t j = 0; j < o->n_mops; j++) {
        struct check__mop *m = &c->mops[o->mops_at + j];

        m->offset = c->keys[m->key].end;
    }
}

static void latest_told(struct checker *c, const struct check__op *o)
{
    const struct check__op *asked;

    if (o->type != CHECK_OK || o->invoke == CHECK_NONE)
        return;
    asked = &c->ops[o->invoke];
    for (uint32_t j = 0; j < o->n_mops; j++) {
        const struct check__mop *m = &c->mops[o->mops_at + j];

        for (uint32_t i = 0; i < asked->n_mops; i++) {
            const struct check__mop *q = &c->mops[asked->mops_at + i];
            struct check_finding f =
                check__finding(CHECK_STALE_LATEST, c, m->key);

            if (q->key != m->key || m->offset >= q->offset)
                continue;
            f.offset = m->offset;
            f.offset_other = q->offset;
            f.ops[0] = asked->index;
            f.ops[1] = o->index;
            check__found(c, f);
        }
    }
}

/* ---- committed offsets ----------------------------------------------------
 */

static uint32_t commit_add(struct checker *c, uint32_t key, int64_t offset,
                           uint32_t invoked, uint32_t done)
{
    c->commits = check__room(c->commits, &c->cap_commits, c->n_commits,
                             sizeof *c->commits);
    c->commits[c->n_commits] = (struct check__commit){
        .offset = offset,
        .invoked = invoked,
        .done = done,
        .removed = CHECK_NONE,
        .next = c->keys[key].commits,
    };
    return c->keys[key].commits = (uint32_t)c->n_commits++;
}

/* At the first mention of a key nothing is committed. */
static void commits_begin(struct checker *c, uint32_t key)
{
    if (c->keys[key].commits == CHECK_NONE)
        commit_add(c, key, -1, 0, 0);
}

/* From `now` on, `by` hides everything that was done before it began. */
static void overwrite(struct checker *c, uint32_t key, uint32_t by,
                      uint32_t now)
{
    uint32_t *link = &c->keys[key].commits;

    while (*link != CHECK_NONE) {
        struct check__commit *x = &c->commits[*link];

        if (x->removed == CHECK_NONE && x->done != CHECK_NONE &&
            x->done < c->commits[by].invoked && *link != by)
            x->removed = now;
        if (x->removed != CHECK_NONE && c->keys[key].open_reads == 0)
            *link = x->next;
        else
            link = &x->next;
    }
}

static void commit_asked(struct checker *c, uint32_t op)
{
    const struct check__op *o = &c->ops[op];

    for (uint32_t j = 0; j < o->n_mops; j++) {
        struct check__mop *m = &c->mops[o->mops_at + j];

        commits_begin(c, m->key);
        m->value = commit_add(c, m->key, m->offset, op, CHECK_NONE);
    }
}

static void commit_told(struct checker *c, uint32_t op)
{
    const struct check__op *o = &c->ops[op];

    if (o->invoke == CHECK_NONE || o->type == CHECK_INFO)
        return;
    for (uint32_t j = 0; j < c->ops[o->invoke].n_mops; j++) {
        const struct check__mop *m = &c->mops[c->ops[o->invoke].mops_at + j];

        if (o->type == CHECK_FAIL) {
            c->commits[m->value].removed = 0;
            continue;
        }
        c->commits[m->value].done = op;
        overwrite(c, m->key, m->value, op);
    }
}

static void committed_asked(struct checker *c, const struct check__op *o)
{
    for (uint32_t j = 0; j < o->n_mops; j++) {
        commits_begin(c, c->mops[o->mops_at + j].key);
        c->keys[c->mops[o->mops_at + j].key].open_reads++;
    }
}

/* The commit that a read from `asked` on may have seen; the only one, or
 * none of several. */
static bool commit_seen(const struct checker *c, const struct check__mop *m,
                        uint32_t asked, uint32_t *only)
{
    int n = 0;

    for (uint32_t i = c->keys[m->key].commits; i != CHECK_NONE;
         i = c->commits[i].next) {
        const struct check__commit *x = &c->commits[i];

        if (x->offset != m->offset ||
            (x->removed != CHECK_NONE && x->removed <= asked))
            continue;
        *only = i;
        n++;
    }
    if (n != 1)
        *only = CHECK_NONE;
    return n > 0;
}

static void committed_read(struct checker *c, uint32_t op,
                           const struct check__mop *m)
{
    const struct check__op *o = &c->ops[op];
    struct check_finding f = check__finding(CHECK_COMMITTED_BACK, c, m->key);
    uint32_t only;

    if (commit_seen(c, m, o->invoke, &only)) {
        if (only == CHECK_NONE)
            return;
        if (c->commits[only].done == CHECK_NONE)
            c->commits[only].done = op; /* now it is known */
        overwrite(c, m->key, only, op);
        return;
    }
    f.offset = m->offset;
    for (uint32_t i = c->keys[m->key].commits; i != CHECK_NONE;
         i = c->commits[i].next) {
        const struct check__commit *x = &c->commits[i];

        if (x->done == CHECK_NONE || x->removed != CHECK_NONE)
            continue;
        f.offset_other = x->offset;
        f.ops[0] = check__index(c, x->done);
        break;
    }
    f.ops[1] = o->index;
    check__found(c, f);
}

static void committed_told(struct checker *c, uint32_t op)
{
    const struct check__op *o = &c->ops[op];
    const struct check__op *asked;

    if (o->invoke == CHECK_NONE)
        return;
    asked = &c->ops[o->invoke];
    for (uint32_t j = 0; o->type == CHECK_OK && j < o->n_mops; j++) {
        commits_begin(c, c->mops[o->mops_at + j].key);
        committed_read(c, op, &c->mops[o->mops_at + j]);
    }
    for (uint32_t j = 0; j < asked->n_mops; j++)
        c->keys[c->mops[asked->mops_at + j].key].open_reads--;
}

/* ---- */

static void asked(struct checker *c, uint32_t op)
{
    const struct check__op *o = &c->ops[op];

    if (o->f == CHECK_LATEST)
        latest_asked(c, o);
    else if (o->f == CHECK_COMMIT)
        commit_asked(c, op);
    else if (o->f == CHECK_COMMITTED)
        committed_asked(c, o);
}

static void told(struct checker *c, uint32_t op)
{
    const struct check__op *o = &c->ops[op];

    if (o->f == CHECK_LATEST)
        latest_told(c, o);
    else if (o->f == CHECK_COMMIT)
        commit_told(c, op);
    else if (o->f == CHECK_COMMITTED)
        committed_told(c, op);
    learn(c, o);
}

void check__ends_judge(struct checker *c)
{
    for (uint32_t i = 0; i < c->n_ops; i++) {
        if (c->ops[i].type == CHECK_INVOKE)
            asked(c, i);
        else
            told(c, i);
    }
}
