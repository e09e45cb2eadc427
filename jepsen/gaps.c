#include "jepsen/gaps.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/hash.h"
#include "base/mem.h"

/* Shown one by one up to so many keys. */
#define SHOWN_MAX 40

struct key_acks {
    int64_t key;
    int64_t *at_ns;
    size_t n, cap;
    UT_hash_handle hh;
};

struct window {
    int64_t from_ns, to_ns;
};

struct gaps {
    int64_t keys_from;
    struct key_acks *keys; /* in the order of their first acknowledgement */
    struct window *windows;
    size_t n_windows, cap_windows;
};

struct gaps *gaps_new(int64_t keys_from)
{
    struct gaps *g = mem_zalloc(sizeof *g);

    g->keys_from = keys_from;
    return g;
}

bool gaps_windows_read(struct gaps *g, const char *path)
{
    FILE *f = fopen(path, "r");
    struct window w;

    if (f == NULL)
        return false;
    while (fscanf(f, "%" SCNd64 " %" SCNd64, &w.from_ns, &w.to_ns) == 2) {
        if (g->n_windows == g->cap_windows) {
            g->cap_windows = g->cap_windows * 2 + 16;
            g->windows =
                mem_realloc(g->windows, g->cap_windows * sizeof *g->windows);
        }
        g->windows[g->n_windows++] = w;
    }
    fclose(f);
    return true;
}

static void ack_add(struct gaps *g, int64_t key, int64_t at_ns)
{
    struct key_acks *k;

    HASH_FIND(hh, g->keys, &key, sizeof key, k);
    if (k == NULL) {
        k = mem_zalloc(sizeof *k);
        k->key = key;
        HASH_ADD(hh, g->keys, key, sizeof k->key, k);
    }
    if (k->n > 0 && k->at_ns[k->n - 1] == at_ns)
        return;
    if (k->n == k->cap) {
        k->cap = k->cap * 2 + 64;
        k->at_ns = mem_realloc(k->at_ns, k->cap * sizeof *k->at_ns);
    }
    k->at_ns[k->n++] = at_ns;
}

void gaps_add(struct gaps *g, const struct check_op *op)
{
    if (op->process < 0 || (op->type != CHECK_OK && op->type != CHECK_INFO))
        return;
    for (size_t i = 0; i < op->n_mops; i++) {
        if (op->mops[i].kind == CHECK_MOP_SEND && op->mops[i].offset >= 0 &&
            op->mops[i].key >= g->keys_from)
            ack_add(g, op->mops[i].key, op->time_ns);
    }
}

/* The longest time without an acknowledgement in one window. */
static int64_t longest_in(const struct key_acks *k, struct window w,
                          int64_t *since)
{
    int64_t last = w.from_ns, longest = 0;

    for (size_t i = 0; i <= k->n; i++) {
        int64_t at = i < k->n && k->at_ns[i] < w.to_ns ? k->at_ns[i] : w.to_ns;

        if (at <= last)
            continue;
        if (at - last > longest) {
            longest = at - last;
            *since = last;
        }
        last = at;
    }
    return longest;
}

void gaps_show(const struct gaps *g)
{
    int64_t longest_all = 0, since_all = 0, key_all = -1;
    int shown = 0;

    printf("longest time without an acknowledgement while a majority lives\n");
    for (const struct key_acks *k = g->keys; k != NULL; k = k->hh.next) {
        int64_t longest = 0, since = 0;

        for (size_t i = 0; i < g->n_windows; i++) {
            int64_t at = 0, gap = longest_in(k, g->windows[i], &at);

            if (gap > longest) {
                longest = gap;
                since = at;
            }
        }
        if (shown++ < SHOWN_MAX)
            printf("  key %-6lld %6.2f s (at %.1f s; %zu moments)\n",
                   (long long)k->key, (double)longest / 1e9,
                   (double)since / 1e9, k->n);
        if (longest > longest_all) {
            longest_all = longest;
            since_all = since;
            key_all = k->key;
        }
    }
    printf("longest gap   %.2f s (key %lld, at %.1f s)\n",
           (double)longest_all / 1e9, (long long)key_all,
           (double)since_all / 1e9);
}

void gaps_free(struct gaps *g)
{
    struct key_acks *k, *next;

    HASH_ITER(hh, g->keys, k, next)
    {
        HASH_DEL(g->keys, k);
        mem_free(k->at_ns);
        mem_free(k);
    }
    mem_free(g->windows);
    mem_free(g);
}
