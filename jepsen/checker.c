#include "jepsen/checker.h"

#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "jepsen/checker_impl.h"

static const char *const names[] = {
#define X(name, text, what) text,
    CHECK_ANOMALIES(X)
#undef X
};
static const char *const texts[] = {
#define X(name, text, what) what,
    CHECK_ANOMALIES(X)
#undef X
};

const char *check_anomaly_name(enum check_anomaly a)
{
    return names[a];
}

const char *check_anomaly_text(enum check_anomaly a)
{
    return texts[a];
}

void *check__room(void *p, size_t *cap, size_t n, size_t size)
{
    if (n < *cap)
        return p;
    *cap = *cap == 0 ? 64 : *cap * 2;
    return mem_realloc(p, *cap * size);
}

void check__found(struct checker *c, struct check_finding f)
{
    struct check_result *r = &c->result;

    if (f.allowed)
        r->allowed[f.anomaly]++;
    if (r->counts[f.anomaly]++ >= CHECK_CASES_MAX)
        return;
    r->findings = check__room(r->findings, &c->cap_findings, r->n_findings,
                              sizeof *r->findings);
    r->findings[r->n_findings++] = f;
}

struct check_finding check__finding(enum check_anomaly a,
                                    const struct checker *c, uint32_t key)
{
    return (struct check_finding){
        .anomaly = a,
        .key = key == CHECK_NONE ? -1 : c->keys[key].key,
        .value = -1,
        .value_other = -1,
        .offset = -1,
        .offset_other = -1,
        .delta = -1,
        .ops = {-1, -1},
    };
}

/* ---- numbers for keys, values, processes ----------------------------------
 */

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t x = a * 0x9e3779b97f4a7c15u ^ (b + 0x7f4a7c15u);

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

enum table_kind {
    OF_KEYS,
    OF_VALUES,
    OF_PROCESSES,
};

static uint64_t hash_of(const struct checker *c, enum table_kind kind,
                        uint32_t i)
{
    switch (kind) {
        case OF_KEYS:
            return mix(1, (uint64_t)c->keys[i].key);
        case OF_VALUES:
            return mix(2 + (uint64_t)c->values[i].key,
                       (uint64_t)c->values[i].value);
        case OF_PROCESSES:
            return mix(1, (uint64_t)c->processes[i].process);
    }
    UNREACHABLE("kind of table");
}

static void table_grow(const struct checker *c, struct check__table *t,
                       enum table_kind kind)
{
    size_t size = t->slots == NULL ? 256 : (t->mask + 1) * 2;
    struct check__table new = {
        .slots = mem_alloc(size * sizeof *new.slots),
        .mask = size - 1,
        .n = t->n,
    };

    memset(new.slots, 0xff, size * sizeof *new.slots);
    for (size_t i = 0; t->slots != NULL && i <= t->mask; i++) {
        size_t at;

        if (t->slots[i] == CHECK_NONE)
            continue;
        at = hash_of(c, kind, t->slots[i]) & new.mask;
        while (new.slots[at] != CHECK_NONE)
            at = (at + 1) & new.mask;
        new.slots[at] = t->slots[i];
    }
    mem_free(t->slots);
    *t = new;
}

static uint32_t key_of(struct checker *c, int64_t key)
{
    struct check__table *t = &c->table_keys;
    size_t at;

    if (t->slots == NULL || t->n * 2 > t->mask)
        table_grow(c, t, OF_KEYS);
    at = mix(1, (uint64_t)key) & t->mask;
    for (; t->slots[at] != CHECK_NONE; at = (at + 1) & t->mask) {
        if (c->keys[t->slots[at]].key == key)
            return t->slots[at];
    }
    c->keys = check__room(c->keys, &c->cap_keys, c->n_keys, sizeof *c->keys);
    c->keys[c->n_keys] = (struct check__key){
        .key = key,
        .max_read = -1,
        .commits = CHECK_NONE,
        .last = CHECK_NONE,
        .state = CHECK_NONE,
        .state_op = CHECK_NONE,
    };
    t->n++;
    return t->slots[at] = (uint32_t)c->n_keys++;
}

static uint32_t value_of(struct checker *c, uint32_t key, int64_t value)
{
    struct check__table *t = &c->table_values;
    size_t at;

    if (t->slots == NULL || t->n * 2 > t->mask)
        table_grow(c, t, OF_VALUES);
    at = mix(2 + (uint64_t)key, (uint64_t)value) & t->mask;
    for (; t->slots[at] != CHECK_NONE; at = (at + 1) & t->mask) {
        const struct check__value *v = &c->values[t->slots[at]];

        if (v->value == value && v->key == key)
            return t->slots[at];
    }
    c->values =
        check__room(c->values, &c->cap_values, c->n_values, sizeof *c->values);
    c->values[c->n_values] = (struct check__value){
        .value = value,
        .key = key,
        .writer = CHECK_NONE,
        .reader = CHECK_NONE,
        .more = CHECK_NONE,
        .offset = -1,
        .acked_at = -1,
        .position = -1,
        .position_first = -1,
        .position_last = -1,
    };
    t->n++;
    return t->slots[at] = (uint32_t)c->n_values++;
}

static uint32_t process_of(struct checker *c, int64_t process)
{
    struct check__table *t = &c->table_processes;
    size_t at;

    if (t->slots == NULL || t->n * 2 > t->mask)
        table_grow(c, t, OF_PROCESSES);
    at = mix(1, (uint64_t)process) & t->mask;
    for (; t->slots[at] != CHECK_NONE; at = (at + 1) & t->mask) {
        if (c->processes[t->slots[at]].process == process)
            return t->slots[at];
    }
    c->processes = check__room(c->processes, &c->cap_processes, c->n_processes,
                               sizeof *c->processes);
    c->processes[c->n_processes] = (struct check__process){
        .process = process,
        .open = CHECK_NONE,
    };
    t->n++;
    return t->slots[at] = (uint32_t)c->n_processes++;
}

/* ---- feeding ---------------------------------------------------------------
 */

struct checker *checker_new(const struct check_config *config)
{
    struct checker *c = mem_zalloc(sizeof *c);

    c->config = *config;
    return c;
}

static void list_add(struct checker *c, int64_t key)
{
    c->lists =
        check__room(c->lists, &c->cap_lists, c->n_lists, sizeof *c->lists);
    c->lists[c->n_lists++] = key_of(c, key);
}

static void mop_add(struct checker *c, const struct check_mop *mop,
                    bool names_value)
{
    struct check__mop *m;

    c->mops = check__room(c->mops, &c->cap_mops, c->n_mops, sizeof *c->mops);
    m = &c->mops[c->n_mops++];
    *m = (struct check__mop){
        .kind = (uint8_t)mop->kind,
        .key = key_of(c, mop->key),
        .value = CHECK_NONE,
        .offset = mop->offset,
    };
    if (names_value)
        m->value = value_of(c, m->key, mop->value);
}

/* Copies an operation; gives its number. */
static uint32_t op_add(struct checker *c, const struct check_op *op,
                       uint32_t process)
{
    struct check__op *o;

    c->ops = check__room(c->ops, &c->cap_ops, c->n_ops, sizeof *c->ops);
    o = &c->ops[c->n_ops];
    *o = (struct check__op){
        .index = op->index,
        .time_ns = op->time_ns,
        .process = process,
        .type = (uint8_t)op->type,
        .f = (uint8_t)op->f,
        .seek = op->seek,
        .invoke = CHECK_NONE,
        .mops_at = c->n_mops,
        .n_mops = (uint32_t)op->n_mops,
        .n_keys = (uint32_t)op->n_keys,
        .n_rebalanced = (uint32_t)op->n_rebalanced,
        .keys_at = c->n_lists,
    };
    for (size_t i = 0; i < op->n_mops; i++) {
        enum check_mop_kind kind = op->mops[i].kind;

        mop_add(c, &op->mops[i],
                kind == CHECK_MOP_SEND || kind == CHECK_MOP_POLL);
    }
    for (size_t i = 0; i < op->n_keys; i++)
        list_add(c, op->keys[i]);
    for (size_t i = 0; i < op->n_rebalanced; i++)
        list_add(c, op->rebalanced[i]);
    return (uint32_t)c->n_ops++;
}

static void malformed(struct checker *c, const struct check_op *op)
{
    struct check_finding f = check__finding(CHECK_MALFORMED, c, CHECK_NONE);

    f.ops[0] = op->index;
    check__found(c, f);
}

void checker_add(struct checker *c, const struct check_op *op)
{
    uint32_t process, number;
    struct check__process *p;

    if (op->process < 0)
        return;
    process = process_of(c, op->process);
    number = op_add(c, op, process);
    p = &c->processes[process];
    if (op->type == CHECK_INVOKE) {
        if (p->open != CHECK_NONE)
            malformed(c, op);
        p->open = number;
        return;
    }
    if (p->open == CHECK_NONE || c->ops[p->open].f != op->f)
        malformed(c, op);
    c->ops[number].invoke = p->open;
    p->open = CHECK_NONE;
}

/* What never came back may have happened. */
static void close_open(struct checker *c)
{
    size_t n = c->n_ops;

    for (size_t i = 0; i < n; i++) {
        struct check__op o = c->ops[i];

        if (o.type != CHECK_INVOKE || c->processes[o.process].open != i)
            continue;
        o.type = CHECK_INFO;
        o.invoke = (uint32_t)i;
        c->processes[o.process].open = CHECK_NONE;
        c->ops = check__room(c->ops, &c->cap_ops, c->n_ops, sizeof *c->ops);
        c->ops[c->n_ops++] = o;
    }
}

/* Sorts the operations by process, keeping their order. */
static void index_processes(struct checker *c)
{
    size_t *at = mem_zalloc((c->n_processes + 2) * sizeof *at);

    for (size_t i = 0; i < c->n_ops; i++)
        at[c->ops[i].process + 2]++;
    for (size_t p = 2; p < c->n_processes + 2; p++)
        at[p] += at[p - 1];
    c->by_process = mem_alloc((c->n_ops + 1) * sizeof *c->by_process);
    for (size_t i = 0; i < c->n_ops; i++)
        c->by_process[at[c->ops[i].process + 1]++] = (uint32_t)i;
    c->process_at = at;
}

static void figures(struct checker *c)
{
    struct check_result *r = &c->result;

    for (size_t i = 0; i < c->n_ops; i++)
        r->ops += c->ops[i].type != CHECK_INVOKE;
    for (size_t i = 0; i < c->n_values; i++) {
        r->sent += c->values[i].writer != CHECK_NONE;
        r->acknowledged += (c->values[i].flags & ACKED) != 0;
        r->read += (c->values[i].flags & READ_OK) != 0;
    }
    r->keys = c->n_keys;
    if (r->acknowledged == 0 || r->read == 0)
        check__found(c, check__finding(CHECK_EMPTY, c, CHECK_NONE));
    r->valid = true;
    for (int a = 0; a < CHECK_ANOMALY_COUNT; a++) {
        if (r->counts[a] > r->allowed[a])
            r->valid = false;
    }
}

const struct check_result *checker_finish(struct checker *c)
{
    ASSERT(c->process_at == NULL);
    close_open(c);
    index_processes(c);
    check__log_build(c);
    check__log_judge(c);
    check__values_judge(c);
    check__polls_judge(c);
    check__sends_judge(c);
    check__ends_judge(c);
    figures(c);
    return &c->result;
}

void checker_free(struct checker *c)
{
    if (c == NULL)
        return;
    mem_free(c->ops);
    mem_free(c->mops);
    mem_free(c->lists);
    mem_free(c->keys);
    mem_free(c->values);
    mem_free(c->processes);
    mem_free(c->more);
    mem_free(c->commits);
    mem_free(c->table_keys.slots);
    mem_free(c->table_values.slots);
    mem_free(c->table_processes.slots);
    mem_free(c->log);
    mem_free(c->log_at);
    mem_free(c->by_process);
    mem_free(c->process_at);
    mem_free(c->result.findings);
    mem_free(c);
}
