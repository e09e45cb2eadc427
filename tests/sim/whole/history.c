/* The history of the simulated clients, for the checker of histories
 * (jepsen/checker.h), which looks for anomalies by rules of its own. Written
 * down as things happen, judged when the seed is over.
 *
 * A batch of an idempotent producer is one send from its first attempt to its
 * acknowledgement, and its number is the process. Plain producers may store a
 * record twice, so what is theirs is left out. */
#include <stdio.h>
#include <string.h>

#include "jepsen/checker.h"
#include "tests/sim/whole/impl.h"

struct history_op {
    uint64_t time_ns;
    int64_t process;
    enum check_type type;
    enum check_f f;
    size_t mops, n_mops;
};

struct history {
    struct history_op *ops;
    size_t n_ops, ops_size;
    struct check_mop *mops;
    size_t n_mops, mops_size;
    size_t poll_from; /* mops of the poll that is being written */
};

static struct history *history_of(struct world *w)
{
    if (w->history == NULL) {
        w->history = calloc(1, sizeof *w->history);
    }
    return w->history;
}

static void add_mop(struct history *h, struct check_mop mop)
{
    if (h->n_mops == h->mops_size) {
        h->mops_size = h->mops_size == 0 ? 1024 : h->mops_size * 2;
        h->mops = realloc(h->mops, h->mops_size * sizeof *h->mops);
    }
    h->mops[h->n_mops++] = mop;
}

/* With the mops from `from` on. */
static void add_op(struct world *w, int64_t process, enum check_type type,
                   enum check_f f, size_t from)
{
    struct history *h = history_of(w);
    if (h->n_ops == h->ops_size) {
        h->ops_size = h->ops_size == 0 ? 1024 : h->ops_size * 2;
        h->ops = realloc(h->ops, h->ops_size * sizeof *h->ops);
    }
    h->ops[h->n_ops++] =
        (struct history_op){.time_ns = sim_now_ns(w->sim) - SIM_EPOCH_NS,
                            .process = process,
                            .type = type,
                            .f = f,
                            .mops = from,
                            .n_mops = h->n_mops - from};
}

static void send(struct world *w, enum check_type type, record_id first, int n,
                 int64_t base)
{
    struct history *h = history_of(w);
    size_t from = h->n_mops;
    if (!producer_is_idempotent(w, record_producer(first))) {
        return;
    }
    for (int i = 0; i < n; i++) {
        add_mop(h, (struct check_mop){CHECK_MOP_SEND, record_part(first),
                                      (int64_t)first + i,
                                      base < 0 ? -1 : base + i});
    }
    add_op(w, (int64_t)first, type, CHECK_SEND, from);
}

void history_sent(struct world *w, record_id first, int n)
{
    send(w, CHECK_INVOKE, first, n, -1);
}

void history_acked(struct world *w, record_id first, int n, int64_t base)
{
    send(w, CHECK_OK, first, n, base);
}

void history_read(struct world *w, int part, int64_t offset, record_id id)
{
    if (producer_is_idempotent(w, record_producer(id))) {
        add_mop(history_of(w),
                (struct check_mop){CHECK_MOP_POLL, part, (int64_t)id, offset});
    }
}

void history_poll_begin(struct world *w)
{
    history_of(w)->poll_from = history_of(w)->n_mops;
}

void history_poll_end(struct world *w, int process)
{
    struct history *h = history_of(w);
    if (h->n_mops > h->poll_from) {
        add_op(w, process, CHECK_INVOKE, CHECK_POLL, h->n_mops);
        add_op(w, process, CHECK_OK, CHECK_POLL, h->poll_from);
    }
}

void history_seek(struct world *w, int process)
{
    struct history *h = history_of(w);
    add_op(w, process, CHECK_INVOKE, CHECK_ASSIGN, h->n_mops);
    add_op(w, process, CHECK_OK, CHECK_ASSIGN, h->n_mops);
}

/* ---- the end ------------------------------------------------------------- */
static void print(const struct history *h, const struct check_finding *f)
{
    fprintf(stderr, "%s: t%d-%d, record %llx, %llx, offset %lld, %lld\n",
            check_anomaly_name(f->anomaly), part_topic((int)f->key),
            part_index((int)f->key), (unsigned long long)f->value,
            (unsigned long long)f->value_other, (long long)f->offset,
            (long long)f->offset_other);
    for (int i = 0; i < 2; i++) {
        if (f->ops[i] >= 0 && (size_t)f->ops[i] < h->n_ops) {
            const struct history_op *op = &h->ops[f->ops[i]];
            fprintf(stderr, "  at %.6f process %llx\n",
                    (double)op->time_ns / 1e9, (unsigned long long)op->process);
        }
    }
}

void history_check(struct world *w)
{
    struct history *h = history_of(w);
    struct check_config config = {.offsets_are_acks = true,
                                  .gapless = w->plan.n_plain == 0,
                                  .drained = true};
    struct checker *c = checker_new(&config);
    for (size_t i = 0; i < h->n_ops; i++) {
        const struct history_op *op = &h->ops[i];
        struct check_op in = {.index = (int64_t)i,
                              .time_ns = (int64_t)op->time_ns,
                              .process = op->process,
                              .type = op->type,
                              .f = op->f,
                              .mops = h->mops + op->mops,
                              .n_mops = op->n_mops,
                              .seek = op->f == CHECK_ASSIGN};
        checker_add(c, &in);
    }
    const struct check_result *r = checker_finish(c);
    w->result.checked += r->ops;
    if (!r->valid && w->result.acknowledged > 0) {
        const struct check_finding *first = NULL;
        for (size_t i = 0; i < r->n_findings; i++) {
            if (!r->findings[i].allowed) {
                print(h, &r->findings[i]);
                first = first == NULL ? &r->findings[i] : first;
            }
        }
        sim_fail(
            w->sim, "the history: %s",
            first == NULL ? "not valid" : check_anomaly_name(first->anomaly));
    }
    checker_free(c);
}

void history_free(struct world *w)
{
    if (w->history != NULL) {
        free(w->history->ops);
        free(w->history->mops);
        free(w->history);
    }
}
