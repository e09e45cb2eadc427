#include "jepsen/edn.h"

#include <string.h>

#include "base/mem.h"

/* Nesting that is followed when something is skipped. */
#define DEPTH_MAX 64

struct text {
    const char *p;
    const char *end;
    bool bad;
};

struct word {
    const char *p;
    size_t n;
};

static bool is_space(char c)
{
    return c == ' ' || c == ',' || c == '\t' || c == '\n' || c == '\r';
}

static bool ends_word(char c)
{
    return is_space(c) || strchr("()[]{}\"", c) != NULL;
}

/* The next character that says something; 0 at the end. */
static char peek(struct text *t)
{
    while (t->p < t->end && is_space(*t->p))
        t->p++;
    return t->p < t->end ? *t->p : '\0';
}

static bool take(struct text *t, char c)
{
    if (peek(t) != c)
        return false;
    t->p++;
    return true;
}

static void expect(struct text *t, char c)
{
    if (!take(t, c))
        t->bad = true;
}

static struct word word(struct text *t)
{
    struct word w;

    peek(t);
    w.p = t->p;
    while (t->p < t->end && *t->p != '\0' && !ends_word(*t->p))
        t->p++;
    w.n = (size_t)(t->p - w.p);
    if (w.n == 0)
        t->bad = true;
    return w;
}

static bool word_is(struct word w, const char *s)
{
    return w.n == strlen(s) && memcmp(w.p, s, w.n) == 0;
}

/* A whole number; -1 for nil. */
static int64_t number(struct text *t)
{
    struct word w = word(t);
    bool minus = w.n > 1 && w.p[0] == '-';
    int64_t x = 0;

    if (word_is(w, "nil"))
        return -1;
    for (size_t i = minus; i < w.n; i++) {
        if (w.p[i] < '0' || w.p[i] > '9' || __builtin_mul_overflow(x, 10, &x) ||
            __builtin_add_overflow(x, w.p[i] - '0', &x)) {
            t->bad = true;
            return -1;
        }
    }
    return minus ? -x : x;
}

static void skip_string(struct text *t)
{
    expect(t, '"');
    while (t->p < t->end && *t->p != '"')
        t->p += *t->p == '\\' ? 2 : 1;
    if (t->p >= t->end) {
        t->p = t->end;
        t->bad = true;
        return;
    }
    t->p++;
}

/* One value of any kind. */
static void skip(struct text *t, int depth)
{
    char c = peek(t);

    if (depth > DEPTH_MAX) {
        t->bad = true;
    } else if (c == '"') {
        skip_string(t);
    } else if (c == '(' || c == '[' || c == '{') {
        char close = c == '(' ? ')' : c == '[' ? ']' : '}';

        t->p++;
        while (!t->bad && !take(t, close))
            skip(t, depth + 1);
    } else if (c == '#') { /* a set, or a tag before a value */
        t->p++;
        if (peek(t) != '{' && peek(t) != '"')
            word(t);
        skip(t, depth + 1);
    } else {
        word(t);
    }
}

/* ---- operations -----------------------------------------------------------
 */

static void *room(void *p, size_t *cap, size_t n, size_t size)
{
    if (n < *cap)
        return p;
    *cap = *cap == 0 ? 16 : *cap * 2;
    return mem_realloc(p, *cap * size);
}

static void add_mop(struct edn_ops *ops, struct check_mop m)
{
    ops->mops = room(ops->mops, &ops->cap_mops, ops->n_mops, sizeof m);
    ops->mops[ops->n_mops++] = m;
}

/* k v], or k [offset v]] */
static void read_send(struct edn_ops *ops, struct text *t)
{
    struct check_mop m = {.kind = CHECK_MOP_SEND, .offset = -1};

    m.key = number(t);
    if (take(t, '[')) {
        m.offset = number(t);
        m.value = number(t);
        expect(t, ']');
    } else {
        m.value = number(t);
    }
    expect(t, ']');
    add_mop(ops, m);
}

/* ], or {k [[offset v] ...] ...}] */
static void read_poll(struct edn_ops *ops, struct text *t)
{
    struct check_mop m = {.kind = CHECK_MOP_POLL};

    if (take(t, ']'))
        return;
    expect(t, '{');
    while (!t->bad && !take(t, '}')) {
        m.key = number(t);
        expect(t, '[');
        while (!t->bad && !take(t, ']')) {
            expect(t, '[');
            m.offset = number(t);
            m.value = number(t);
            expect(t, ']');
            add_mop(ops, m);
        }
    }
    expect(t, ']');
}

static void read_mops(struct edn_ops *ops, struct text *t)
{
    expect(t, '[');
    while (!t->bad && !take(t, ']')) {
        struct word w;

        expect(t, '[');
        w = word(t);
        if (word_is(w, ":send"))
            read_send(ops, t);
        else if (word_is(w, ":poll"))
            read_poll(ops, t);
        else
            t->bad = true;
    }
}

/* {k offset ...}, or keys alone */
static void read_offsets(struct edn_ops *ops, struct text *t)
{
    struct check_mop m = {.kind = CHECK_MOP_AT, .offset = -1};
    bool map = peek(t) == '{';

    t->p++;
    while (!t->bad && peek(t) != '}' && peek(t) != ']' && peek(t) != ')') {
        m.key = number(t);
        if (map)
            m.offset = number(t);
        add_mop(ops, m);
    }
    expect(t, *t->p);
}

static void read_keys(struct text *t, int64_t **keys, size_t *n, size_t *cap)
{
    take(t, '#');
    if (peek(t) != '[' && peek(t) != '(' && peek(t) != '{') {
        skip(t, 0);
        return;
    }
    t->p++;
    while (!t->bad && strchr("])}", peek(t)) == NULL) {
        *keys = room(*keys, cap, *n, sizeof **keys);
        (*keys)[(*n)++] = number(t);
    }
    t->p += t->p < t->end;
}

/* [{:keys [k ...] ...} ...] */
static void read_rebalances(struct edn_ops *ops, struct text *t)
{
    t->p++;
    while (!t->bad && peek(t) == '{') {
        t->p++;
        while (!t->bad && !take(t, '}')) {
            if (word_is(word(t), ":keys"))
                read_keys(t, &ops->rebalanced, &ops->n_rebalanced,
                          &ops->cap_rebalanced);
            else
                skip(t, 0);
        }
    }
    t->p += t->p < t->end;
}

/* [[k offset] ...] */
static void read_torn(struct edn_ops *ops, struct text *t)
{
    struct check_mop m = {.kind = CHECK_MOP_TORN};

    expect(t, '[');
    while (!t->bad && !take(t, ']')) {
        expect(t, '[');
        m.key = number(t);
        m.offset = number(t);
        expect(t, ']');
        add_mop(ops, m);
    }
}

static enum check_f f_of(struct word w)
{
    static const struct {
        const char *name;
        enum check_f f;
    } fs[] = {
        {":send", CHECK_SEND},
        {":poll", CHECK_POLL},
        {":txn", CHECK_TXN},
        {":assign", CHECK_ASSIGN},
        {":subscribe", CHECK_SUBSCRIBE},
        {":commit", CHECK_COMMIT},
        {":committed", CHECK_COMMITTED},
        {":latest", CHECK_LATEST},
    };

    for (size_t i = 0; i < sizeof fs / sizeof fs[0]; i++) {
        if (word_is(w, fs[i].name))
            return fs[i].f;
    }
    return CHECK_OTHER;
}

static enum check_type type_of(struct text *t, struct word w)
{
    if (word_is(w, ":invoke"))
        return CHECK_INVOKE;
    if (word_is(w, ":ok"))
        return CHECK_OK;
    if (word_is(w, ":fail"))
        return CHECK_FAIL;
    if (!word_is(w, ":info"))
        t->bad = true;
    return CHECK_INFO;
}

static void read_process(struct text *t, struct check_op *op)
{
    if (peek(t) != ':') {
        op->process = number(t);
        return;
    }
    word(t);
    op->process = -1;
}

struct places { /* of what can be read when :f is known */
    const char *value;
    const char *rebalances;
    const char *torn;
};

static void read_field(struct text *t, struct check_op *op, struct places *at)
{
    struct word w = word(t);

    peek(t);
    if (word_is(w, ":index")) {
        op->index = number(t);
    } else if (word_is(w, ":time")) {
        op->time_ns = number(t);
    } else if (word_is(w, ":type")) {
        op->type = type_of(t, word(t));
    } else if (word_is(w, ":f")) {
        op->f = f_of(word(t));
    } else if (word_is(w, ":process")) {
        read_process(t, op);
    } else if (word_is(w, ":seek-to-beginning?")) {
        op->seek = word_is(word(t), "true");
    } else {
        if (word_is(w, ":value"))
            at->value = t->p;
        else if (word_is(w, ":rebalance-log"))
            at->rebalances = t->p;
        else if (word_is(w, ":torn"))
            at->torn = t->p;
        skip(t, 0);
    }
}

static void read_value(struct edn_ops *ops, struct text *t,
                       const struct check_op *op)
{
    if (peek(t) == 'n') /* nil */
        return;
    switch (op->f) {
        case CHECK_SEND:
        case CHECK_POLL:
        case CHECK_TXN:
            read_mops(ops, t);
            break;
        case CHECK_ASSIGN:
        case CHECK_SUBSCRIBE:
            read_keys(t, &ops->keys, &ops->n_keys, &ops->cap_keys);
            break;
        case CHECK_COMMIT:
        case CHECK_COMMITTED:
        case CHECK_LATEST:
            read_offsets(ops, t);
            break;
        case CHECK_OTHER:
            break;
    }
}

static bool read_rest(struct edn_ops *ops, struct text *t,
                      const struct check_op *op, const struct places *at)
{
    const char *end = t->end;

    if (at->value != NULL) {
        *t = (struct text){at->value, end, false};
        read_value(ops, t, op);
    }
    if (!t->bad && at->rebalances != NULL && *at->rebalances == '[') {
        *t = (struct text){at->rebalances, end, false};
        read_rebalances(ops, t);
    }
    if (!t->bad && at->torn != NULL) {
        *t = (struct text){at->torn, end, false};
        read_torn(ops, t);
    }
    return !t->bad;
}

bool edn_op_read(struct edn_ops *ops, const char *line, size_t n,
                 struct check_op *op)
{
    struct text t = {line, line + n, false};
    struct places at = {NULL, NULL, NULL};

    *op = (struct check_op){.index = -1, .f = CHECK_OTHER, .process = -2};
    ops->n_mops = ops->n_keys = ops->n_rebalanced = 0;
    if (peek(&t) == '#')
        word(&t);
    expect(&t, '{');
    while (!t.bad && !take(&t, '}'))
        read_field(&t, op, &at);
    if (t.bad || op->process == -2)
        return false;
    if (op->process >= 0 && !read_rest(ops, &t, op, &at))
        return false;
    op->mops = ops->mops;
    op->n_mops = ops->n_mops;
    op->keys = ops->keys;
    op->n_keys = ops->n_keys;
    op->rebalanced = ops->rebalanced;
    op->n_rebalanced = ops->n_rebalanced;
    return true;
}

void edn_ops_free(struct edn_ops *ops)
{
    mem_free(ops->mops);
    mem_free(ops->keys);
    mem_free(ops->rebalanced);
    *ops = (struct edn_ops){0};
}
