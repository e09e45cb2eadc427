#include "jepsen/reading.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

/* Keys of the last reading that are read at a time. */
#define ENDS_AT_ONCE 16

void reading_init(struct reading *r, struct worker *w, struct history *h)
{
    *r = (struct reading){.w = w, .h = h};
}

void reading_free(struct reading *r)
{
    buffer_free(&r->polled);
    buffer_free(&r->torn);
}

struct place *reading_place(struct reading *r, int64_t key)
{
    for (size_t i = 0; i < r->n_places; i++) {
        if (r->places[i].key == key)
            return &r->places[i];
    }
    return NULL;
}

void reading_assign(struct reading *r, const int64_t *keys, size_t n)
{
    struct place places[2 * OP_KEYS_MAX];

    for (size_t i = 0; i < n; i++) {
        const struct place *before = reading_place(r, keys[i]);

        places[i] = before != NULL
                        ? *before
                        : (struct place){.key = keys[i], .leader = -1};
    }
    memcpy(r->places, places, n * sizeof *places);
    r->n_places = n;
}

void reading_put_keys(struct reading *r)
{
    history_begin(r->h);
    history_put(r->h, "[");
    for (size_t i = 0; i < r->n_places; i++)
        history_put(r->h, "%" PRId64 " ", r->places[i].key);
    history_put(r->h, "]");
}

void reading_poll_begin(struct reading *r)
{
    buffer_clear(&r->polled);
    buffer_clear(&r->torn);
    history_begin(r->h);
    history_put(r->h, "[[:poll]]");
    history_op(r->h, r->w->process, "invoke", "poll", "");
}

void reading_record(struct reading *r, int64_t key, int64_t offset,
                    int64_t value)
{
    struct polled p = {key, offset, value};

    buffer_append(&r->polled, &p, sizeof p);
}

void reading_torn(struct reading *r, int64_t key, int64_t offset)
{
    char text[64];
    int n =
        snprintf(text, sizeof text, "[%" PRId64 " %" PRId64 "] ", key, offset);

    buffer_append(&r->torn, text, (size_t)n);
}

/* The map of a poll: records by key, each key's in the order they came. */
static void put_polled(struct reading *r, struct polled *p, size_t n)
{
    history_begin(r->h);
    history_put(r->h, "[[:poll {");
    for (size_t i = 0; i < n; i++) {
        int64_t key = p[i].key;

        if (key < 0)
            continue; /* it was put with an earlier one */
        history_put(r->h, "%" PRId64 " [", key);
        for (size_t j = i; j < n; j++) {
            if (p[j].key != key)
                continue;
            p[j].key = -1;
            history_put(r->h, "[%" PRId64 " %" PRId64 "]", p[j].offset,
                        p[j].value);
        }
        history_put(r->h, "]");
    }
    history_put(r->h, "}]]");
}

size_t reading_poll_end(struct reading *r, const char *more)
{
    size_t n = r->polled.size / sizeof(struct polled);
    struct buffer all = {0};

    put_polled(r, (struct polled *)(void *)r->polled.data, n);
    buffer_append(&all, more, strlen(more));
    if (r->torn.size > 0) {
        buffer_append(&all, ", :torn [", 9);
        buffer_append(&all, r->torn.data, r->torn.size);
        buffer_append(&all, "]", 1);
    }
    buffer_append(&all, "", 1);
    history_op(r->h, r->w->process, "ok", "poll", (const char *)all.data);
    buffer_free(&all);
    return n;
}

void reading_crash(struct reading *r)
{
    history_begin(r->h);
    history_op(r->h, r->w->process, "invoke", "crash", "");
    history_op(r->h, r->w->process, "info", "crash", "");
}

/* ---- the last reading -----------------------------------------------------
 */

static bool some_to_ends(struct reading *r, const struct reading_ops *ops,
                         void *arg, const int64_t *keys, const int64_t *ends,
                         size_t n)
{
    size_t left = n;

    r->n_places = 0;
    ops->assign(arg, keys, n);
    for (size_t i = 0; i < n; i++)
        r->places[i].end = ends[i];
    while (left > 0 && !atomic_load(&r->w->load->stop)) {
        ops->poll(arg);
        left = 0;
        for (size_t i = 0; i < n; i++)
            left += r->places[i].next < r->places[i].end;
    }
    for (size_t i = 0; i < n; i++) {
        if (r->places[i].next < r->places[i].end)
            printf("unread: key %" PRId64 " from %" PRId64 " to %" PRId64 "\n",
                   r->places[i].key, r->places[i].next, r->places[i].end);
    }
    return left == 0;
}

bool reading_to_ends(struct reading *r, const struct reading_ops *ops,
                     void *arg)
{
    struct ends e;
    bool ok = ends_read(r->w->load->ends, &e);

    for (size_t i = 0; ok && i < e.n; i += ENDS_AT_ONCE) {
        size_t some = e.n - i < ENDS_AT_ONCE ? e.n - i : ENDS_AT_ONCE;

        ok = some_to_ends(r, ops, arg, e.keys + i, e.ends + i, some);
        ops->next(arg);
    }
    ends_free(&e);
    return ok;
}
