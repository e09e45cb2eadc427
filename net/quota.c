#include "net/quota.h"

#include "base/assert.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/mem.h"

/* More than any burst. */
#define TOKENS_FULL 1e300

struct window {
    uint64_t since_ms;
    double sum;
};

/* Those that share a quota of one kind. */
struct bucket {
    UT_hash_handle hh; /* in order of last use */
    uint64_t used_ms;
    double tokens; /* QUOTA_MUTATION: what is left, below 0 when too much was
                    * taken */
    int newest;    /* of `windows`, a ring; -1: none yet */
    size_t key_size;
    uint8_t *key; /* behind the windows */
    struct window windows[];
};

struct quotas {
    struct quota_windows rates, mutations;
    struct bucket *buckets;
};

struct quotas *quotas_new(struct quota_windows rates,
                          struct quota_windows mutations)
{
    ASSERT(rates.n > 0 && rates.ms > 0 && mutations.n > 0 && mutations.ms > 0);
    struct quotas *q = mem_zalloc(sizeof *q);
    q->rates = rates;
    q->mutations = mutations;
    return q;
}

static void bucket_drop(struct quotas *q, struct bucket *b)
{
    HASH_DEL(q->buckets, b);
    mem_free(b);
}

void quotas_free(struct quotas *q)
{
    if (q == NULL) {
        return;
    }
    while (q->buckets != NULL) {
        bucket_drop(q, q->buckets);
    }
    mem_free(q);
}

/* Those that were silent so long that nothing of them counts any more; and the
 * longest silent when there are too many. */
static void drop_old(struct quotas *q, uint64_t now_ms)
{
    uint64_t rates = (uint64_t)q->rates.n * q->rates.ms;
    uint64_t mutations = (uint64_t)q->mutations.n * q->mutations.ms;
    uint64_t most = rates > mutations ? rates : mutations;
    while (q->buckets != NULL && now_ms - q->buckets->used_ms > 2 * most &&
           q->buckets->tokens >= 0) {
        bucket_drop(q, q->buckets);
    }
    if (HASH_COUNT(q->buckets) >= LIMIT_QUOTA_CLIENTS) {
        bucket_drop(q, q->buckets);
    }
}

static struct bucket *bucket_of(struct quotas *q, enum quota_kind kind,
                                struct wire_str client, uint64_t now_ms,
                                const struct quota_match *match)
{
    /* client ids that differ only behind so much are taken for one */
    uint8_t key[QUOTA_NAME_MAX + 2];
    size_t n = match->by_client && client.n > 0 ? (size_t)client.n : 0;
    n = n > QUOTA_NAME_MAX ? QUOTA_NAME_MAX : n;
    key[0] = (uint8_t)kind;
    key[1] = (uint8_t)((match->by_user ? 1 : 0) + (match->by_client ? 2 : 0));
    if (n > 0) {
        memcpy(key + 2, client.p, n);
    }
    n += 2;
    struct bucket *b = NULL;
    HASH_FIND(hh, q->buckets, key, n, b);
    if (b == NULL) {
        drop_old(q, now_ms);
        size_t windows = kind == QUOTA_MUTATION ? 0 : q->rates.n;
        b = mem_zalloc(sizeof *b + windows * sizeof b->windows[0] + n);
        b->newest = -1;
        b->tokens = kind == QUOTA_MUTATION ? TOKENS_FULL : 0;
        b->used_ms = now_ms;
        b->key = (uint8_t *)&b->windows[windows];
        b->key_size = n;
        memcpy(b->key, key, n);
    } else {
        HASH_DEL(q->buckets, b);
    }
    HASH_ADD_KEYPTR(hh, q->buckets, b->key, b->key_size, b);
    return b;
}

/* Whole milliseconds, rounded up. */
static uint32_t up(double ms)
{
    if (ms >= INT32_MAX) {
        return INT32_MAX;
    }
    uint32_t whole = (uint32_t)ms;
    return whole + (whole < ms ? 1 : 0);
}

/* ---- rates --------------------------------------------------------------- */
static void count(const struct quotas *q, struct bucket *b, uint64_t now_ms,
                  double amount)
{
    struct window *w = b->newest < 0 ? NULL : &b->windows[b->newest];
    if (w == NULL || now_ms - w->since_ms >= q->rates.ms) {
        b->newest = (b->newest + 1) % (int)q->rates.n;
        w = &b->windows[b->newest];
        *w = (struct window){.since_ms = now_ms};
    }
    w->sum += amount;
}

/* What was counted within the windows, and how long ago the oldest began, yet
 * at least as long as all but one of them together. */
static double measure(const struct quotas *q, const struct bucket *b,
                      uint64_t now_ms, double *ms)
{
    uint64_t span = (uint64_t)q->rates.n * q->rates.ms;
    uint64_t oldest = now_ms;
    double sum = 0;
    for (uint32_t i = 0; i < q->rates.n; i++) {
        const struct window *w = &b->windows[i];
        if (w->sum != 0 && now_ms - w->since_ms < span) {
            sum += w->sum;
            oldest = w->since_ms < oldest ? w->since_ms : oldest;
        }
    }
    uint64_t elapsed = now_ms - oldest;
    uint64_t least = q->rates.n - 1;
    uint64_t whole = elapsed / q->rates.ms;
    if (whole < least) {
        elapsed += (least - whole) * q->rates.ms;
    }
    *ms = elapsed < q->rates.ms ? q->rates.ms : (double)elapsed;
    return sum;
}

static void use_rate(struct quotas *q, enum quota_kind kind, struct bucket *b,
                     uint64_t now_ms, struct quota_use *use)
{
    /* of QUOTA_REQUEST: percent of a second's nanoseconds */
    double amount = kind == QUOTA_REQUEST ? use->amount / 1e7 : use->amount;
    double ms;
    b->used_ms = now_ms;
    count(q, b, now_ms, amount);
    double rate = measure(q, b, now_ms, &ms) * 1000;
    rate /= ms;
    if (rate <= use->match.limit) {
        return;
    }
    double wait = (rate - use->match.limit) / use->match.limit * ms;
    bool bounded = kind == QUOTA_REQUEST && wait > q->rates.ms;
    use->throttle_ms = up(bounded ? q->rates.ms : wait);
    if (use->take_back) {
        b->windows[b->newest].sum -= amount;
    }
}

/* ---- mutations ----------------------------------------------------------- */
/* Tokens come in steadily, and no more are saved up than a burst. */
static void use_tokens(struct quotas *q, struct bucket *b, uint64_t now_ms,
                       struct quota_use *use)
{
    double limit = use->match.limit;
    double most = limit * q->mutations.n * q->mutations.ms / 1000;
    b->tokens += (double)(now_ms - b->used_ms) * limit / 1000;
    b->tokens = b->tokens > most ? most : b->tokens;
    b->used_ms = now_ms;
    use->refused = use->strict && b->tokens < 0;
    if (!use->refused) {
        b->tokens -= use->amount;
    }
    if (b->tokens < 0 && (use->refused || !use->strict)) {
        use->throttle_ms = up(-b->tokens / limit * 1000);
    }
}

void quotas_use(struct quotas *q, enum quota_kind kind, struct wire_str client,
                uint64_t now_ms, struct quota_use *use)
{
    struct bucket *b = bucket_of(q, kind, client, now_ms, &use->match);
    use->refused = false;
    use->throttle_ms = 0;
    if (kind == QUOTA_MUTATION) {
        use_tokens(q, b, now_ms, use);
    } else {
        use_rate(q, kind, b, now_ms, use);
    }
}

double quota_burst(struct quota_windows rates, double limit)
{
    double windows = rates.n > 1 ? rates.n - 1 : 1;
    return limit * windows * rates.ms / 1000;
}
