/* Partitions of __consumer_offsets led here: loading their state by reading
 * the log once, following what is committed afterwards, and the writes. A
 * partition that is only followed costs nothing: state is built on becoming
 * its leader. */
#include "base/assert.h"
#include "base/log.h"
#include "coordinator/impl.h"

#define LOAD_BYTES (1 << 20)
#define LOAD_RETRY_MS 100
#define SWEEP_MS 600000

void bytes_set(struct bytes *b, const void *p, int32_t n)
{
    char *copy = NULL;
    if (n >= 0) {
        copy = mem_alloc((size_t)n + 1);
        if (n > 0) {
            memcpy(copy, p, (size_t)n);
        }
        copy[n] = '\0';
    }
    mem_free(b->p);
    b->p = copy;
    b->n = n < 0 ? -1 : n;
}

void bytes_free(struct bytes *b)
{
    mem_free(b->p);
    b->p = NULL;
    b->n = -1;
}

bool text_equal(struct text a, struct text b)
{
    return a.n == b.n && (a.n <= 0 || memcmp(a.p, b.p, (size_t)a.n) == 0);
}

bool bytes_is(const struct bytes *b, struct text t)
{
    return text_equal(bytes_text(b), t);
}

/* ---- answers ------------------------------------------------------------- */
void answer_now(struct answer *a)
{
    a->fire(a);
    arena_free(&a->arena);
    mem_free(a);
}

static void answer_fire(struct env_deferred *d)
{
    answer_now(d->arg);
}

struct answer *answer_new(struct coordinator *c, void *req,
                          void (*fire)(struct answer *a))
{
    (void)c;
    struct answer *a = mem_zalloc(sizeof *a);
    arena_init(&a->arena, 0);
    a->deferred = (struct env_deferred){.cb = answer_fire, .arg = a};
    a->fire = fire;
    a->req = req;
    return a;
}

struct text answer_text(struct answer *a, struct text t)
{
    if (t.n > 0) {
        t.p = arena_copy(&a->arena, t.p, (size_t)t.n);
    }
    return t;
}

struct blob answer_blob(struct answer *a, struct blob b)
{
    if (b.n > 0) {
        b.p = arena_copy(&a->arena, b.p, (size_t)b.n);
    }
    return b;
}

void answer_send(struct coordinator *c, struct answer *a)
{
    env_defer(c->options.env, &a->deferred);
}

/* ---- groups -------------------------------------------------------------- */
struct classic_group *classic_group_find(struct group_partition *gp,
                                         struct text id)
{
    struct classic_group *g = NULL;
    if (id.n >= 0) { /* offsets may be kept for the empty name */
        HASH_FIND(hh, gp->groups, id.n == 0 ? "" : id.p, (size_t)id.n, g);
    }
    return g;
}

struct classic_group *classic_group_make(struct group_partition *gp,
                                         struct text id)
{
    struct classic_group *g = classic_group_find(gp, id);
    if (g != NULL) {
        return g;
    }
    g = mem_zalloc(sizeof *g);
    g->owner = gp;
    bytes_set(&g->id, id.p, id.n);
    bytes_set(&g->protocol_type, "", 0);
    bytes_set(&g->protocol, NULL, -1);
    bytes_set(&g->leader, NULL, -1);
    g->state = GROUP_EMPTY;
    classic_group_timer_init(g);
    g->state_since_ms = env_wall_ms(gp->c->options.env);
    HASH_ADD_KEYPTR(hh, gp->groups, g->id.p, (size_t)g->id.n, g);
    return g;
}

void classic_group_free(struct classic_group *g)
{
    classic_group_drop(g, KAFKA_NOT_COORDINATOR);
    offsets_free(g);
    HASH_DEL(g->owner->groups, g);
    bytes_free(&g->id);
    bytes_free(&g->protocol_type);
    bytes_free(&g->protocol);
    bytes_free(&g->leader);
    mem_free(g);
}

static void groups_drop(struct group_partition *gp)
{
    while (gp->groups != NULL) {
        classic_group_free(gp->groups);
    }
}

/* ---- partitions ---------------------------------------------------------- */
static struct group_partition *partition_of(struct coordinator *c,
                                            int32_t index)
{
    struct group_partition *gp = NULL;
    HASH_FIND(hh, c->partitions, &index, sizeof index, gp);
    return gp;
}

enum kafka_error partition_live(struct coordinator *c, int32_t index,
                                struct group_partition **out)
{
    struct group_partition *gp = partition_of(c, index);
    if (gp == NULL || !gp->leading) {
        return KAFKA_NOT_COORDINATOR;
    }
    *out = gp;
    return gp->live ? KAFKA_NONE : KAFKA_COORDINATOR_LOAD_IN_PROGRESS;
}

static void apply_group(void *arg, const struct group_record *record,
                        bool tombstone)
{
    struct group_partition *gp = arg;
    struct classic_group *g = classic_group_find(gp, record->group_id);
    if (tombstone && g != NULL) {
        if (!gp->live) {
            classic_group_drop(g, KAFKA_UNKNOWN_MEMBER_ID);
        }
        /* who came meanwhile keeps it */
        if (g->members == NULL && g->pending == NULL && g->offsets == NULL) {
            classic_group_free(g);
        }
    }
    if (tombstone || gp->live) {
        return; /* live: our own write, what it says is here already */
    }
    classic_group_restore(classic_group_make(gp, record->group_id), record);
}

static void apply_offset(void *arg, const struct offset_record *o,
                         bool tombstone)
{
    offset_apply(arg, o, tombstone);
}

static void apply_batch(struct group_partition *gp, const uint8_t *batch,
                        size_t size)
{
    struct records_reader reader = {
        .arg = gp, .group = apply_group, .offset = apply_offset};
    if (records_read(batch, size, &reader) != ERR_OK) {
        log_error("coordinator",
                  "a record of " OFFSETS_TOPIC
                  " partition %d cannot be read "
                  "and is passed over",
                  (int)gp->index);
    }
}

void coordinator_applied(struct coordinator *c, struct partition *p,
                         int32_t index, kafka_offset base, const uint8_t *batch,
                         uint32_t size)
{
    (void)p;
    (void)base;
    struct group_partition *gp = partition_of(c, index);
    if (gp != NULL && gp->live) {
        apply_batch(gp, batch, size);
    }
}

void group_partition_ref(struct group_partition *gp)
{
    ASSERT(gp->refs > 0);
    gp->refs++;
}

void group_partition_unref(struct group_partition *gp)
{
    ASSERT(gp->refs > 0);
    if (--gp->refs == 0) {
        ASSERT(gp->closed && gp->groups == NULL);
        mem_free(gp);
    }
}

/* ---- loading ------------------------------------------------------------- */
static void load_went_live(struct group_partition *gp)
{
    gp->live = true;
    struct classic_group *g = NULL;
    struct classic_group *next = NULL;
    HASH_ITER(hh, gp->groups, g, next)
    {
        struct group_member *m = NULL;
        struct group_member *next_member = NULL;
        HASH_ITER(hh, g->members, m, next_member)
        {
            group_member_touch(m); /* a whole session from now */
        }
    }
    if (gp->groups != NULL) {
        log_info("coordinator", "coordinates groups of partition %d groups=%u",
                 (int)gp->index, HASH_COUNT(gp->groups));
    }
}

/* False: nothing could be read of what the fetch gave. */
static bool load_apply(struct group_partition *gp)
{
    struct partition_fetch *f = &gp->fetch;
    kafka_offset was = gp->load_at;
    size_t left = (size_t)f->bytes;
    struct buffer whole = {0};
    for (int i = 0; i < f->n_iov; i++) {
        buffer_append(&whole, f->iov[i].iov_base, f->iov[i].iov_len);
    }
    const uint8_t *at = whole.data;
    struct batch_header h;
    while (left > 0 && batch_header_read(at, left, &h) == ERR_OK &&
           batch_size(&h) <= left) {
        if ((h.attributes & BATCH_CONTROL) == 0) {
            apply_batch(gp, at, batch_size(&h));
        }
        gp->load_at.v = batch_last_offset(&h).v + 1;
        at += batch_size(&h);
        left -= batch_size(&h);
    }
    buffer_free(&whole);
    return gp->load_at.v > was.v;
}

static void load_fetched(struct group_partition *gp)
{
    bool ok = gp->fetch.error == KAFKA_NONE;
    gp->fetching = false;
    if (gp->leading && !gp->live) {
        /* Retention may have moved the log's start, a file may be unreadable
         * now: nobody is served from half a state, it is tried again. */
        ok = ok && (gp->load_epoch != gp->epoch || load_apply(gp));
        env_timer_start(&gp->load, ok ? 0 : LOAD_RETRY_MS);
    }
    partition_fetch_release(&gp->fetch);
}

static void load_fetched_later(struct partition_fetch *f)
{
    struct group_partition *gp = f->arg;
    load_fetched(gp);
    group_partition_unref(gp);
}

static void load_step(struct env_timer *timer)
{
    struct group_partition *gp = timer->arg;
    ASSERT(gp->leading && !gp->live && !gp->closed);
    if (gp->fetching) {
        return; /* of an earlier leadership; goes on when it is back */
    }
    kafka_offset start = partition_log_start(gp->partition);
    if (gp->load_at.v < start.v) {
        gp->load_at = start;
    }
    if (gp->load_at.v >= partition_high_watermark(gp->partition).v) {
        load_went_live(gp);
        return;
    }
    gp->fetch = (struct partition_fetch){
        .offset = gp->load_at,
        .max_bytes = LOAD_BYTES,
        .at_least_one = true,
        .current_leader_epoch = -1,
        .last_fetched_epoch = -1,
        .cb = load_fetched_later,
        .arg = gp,
    };
    gp->load_epoch = gp->epoch;
    gp->fetching = true;
    group_partition_ref(gp);
    if (partition_fetch(gp->partition, &gp->fetch)) {
        load_fetched_later(&gp->fetch);
    }
}

static struct group_partition *partition_make(struct coordinator *c,
                                              struct partition *p,
                                              int32_t index)
{
    struct group_partition *gp = mem_zalloc(sizeof *gp);
    gp->c = c;
    gp->index = index;
    gp->refs = 1;
    gp->partition = p;
    env_timer_init(c->options.env, &gp->load, load_step, gp);
    HASH_ADD(hh, c->partitions, index, sizeof gp->index, gp);
    return gp;
}

static void partition_close(struct group_partition *gp)
{
    gp->leading = false;
    gp->live = false;
    gp->closed = true;
    groups_drop(gp);
    env_timer_stop(&gp->load);
    HASH_DEL(gp->c->partitions, gp);
    group_partition_unref(gp);
}

void coordinator_role_changed(struct coordinator *c, struct partition *p,
                              int32_t index, const struct group_role *role)
{
    bool leads = role->is_leader && role->ready;
    struct group_partition *gp = partition_of(c, index);
    if (gp != NULL && gp->partition != p) { /* of a topic made anew */
        partition_close(gp);
        gp = NULL;
    }
    if (gp == NULL) {
        if (!leads || c->stopped) {
            return;
        }
        gp = partition_make(c, p, index);
    }
    int32_t epoch = (int32_t)role->term.v;
    if (leads && gp->leading && gp->epoch == epoch) {
        return;
    }
    gp->leading = leads;
    gp->live = false;
    gp->epoch = epoch;
    gp->load_at.v = 0;
    groups_drop(gp);
    env_timer_stop(&gp->load);
    if (leads) {
        env_timer_start(&gp->load, 0);
    }
}

void coordinator_partition_closed(struct coordinator *c, struct partition *p,
                                  int32_t index)
{
    struct group_partition *gp = partition_of(c, index);
    if (gp != NULL && gp->partition == p) {
        partition_close(gp);
    }
}

/* ---- writes -------------------------------------------------------------- */
struct group_write *group_write_new(struct group_partition *gp)
{
    struct group_write *w = mem_zalloc(sizeof *w);
    w->gp = gp;
    group_partition_ref(gp);
    batch_builder_init(&w->batch, CODEC_NONE);
    return w;
}

static enum kafka_error write_error(enum kafka_error e)
{
    switch ((int)e) {
        case KAFKA_NONE:
            return e;
        case KAFKA_NOT_LEADER_OR_FOLLOWER:
        case KAFKA_KAFKA_STORAGE_ERROR:
            return KAFKA_NOT_COORDINATOR;
        case KAFKA_MESSAGE_TOO_LARGE:
        case KAFKA_RECORD_LIST_TOO_LARGE:
            return KAFKA_INVALID_COMMIT_OFFSET_SIZE;
        default:
            return KAFKA_COORDINATOR_NOT_AVAILABLE;
    }
}

void group_write_free(struct group_write *w)
{
    batch_builder_free(&w->batch);
    group_partition_unref(w->gp);
    mem_free(w);
}

static void write_end(struct group_write *w, enum kafka_error error)
{
    w->done(w, error);
    group_write_free(w);
}

static void write_produced(struct partition_produce *p)
{
    struct group_write *w = p->arg;
    write_end(w, write_error(p->error));
}

static void write_failed(struct env_deferred *d)
{
    write_end(d->arg, KAFKA_INVALID_COMMIT_OFFSET_SIZE);
}

void group_write_submit(struct group_write *w)
{
    const uint8_t *batch = NULL;
    size_t size = 0;
    if (batch_builder_finish(&w->batch, &batch, &size) != ERR_OK) {
        w->failed = (struct env_deferred){.cb = write_failed, .arg = w};
        env_defer(w->gp->c->options.env, &w->failed);
        return;
    }
    w->produce = (struct partition_produce){
        .batch = batch,
        .size = (uint32_t)size,
        .acks = -1,
        .api_version = 9,
        .cb = write_produced,
        .arg = w,
    };
    partition_produce(w->gp->partition, &w->produce);
}

/* ---- the whole ----------------------------------------------------------- */
static void sweep(struct env_timer *timer)
{
    struct coordinator *c = timer->arg;
    struct group_partition *gp = NULL;
    struct group_partition *next = NULL;
    HASH_ITER(hh, c->partitions, gp, next)
    {
        if (gp->live) {
            offsets_expire(gp);
        }
    }
    env_timer_start(&c->sweep, SWEEP_MS);
}

struct coordinator *coordinator_new(const struct coordinator_options *options)
{
    struct coordinator *c = mem_zalloc(sizeof *c);
    c->options = *options;
    env_timer_init(options->env, &c->sweep, sweep, c);
    env_timer_start(&c->sweep, SWEEP_MS);
    return c;
}

void coordinator_stop(struct coordinator *c)
{
    c->stopped = true;
    env_timer_stop(&c->sweep);
    while (c->partitions != NULL) {
        partition_close(c->partitions);
    }
}

void coordinator_free(struct coordinator *c)
{
    coordinator_stop(c);
    mem_free(c);
}

/* UTF-16 units of the UTF-8 text, as Java hashes them. */
int32_t coordinator_partition_of(struct text key, int32_t n_partitions)
{
    ASSERT(n_partitions > 0);
    uint32_t h = 0;
    for (int32_t i = 0; i < key.n;) {
        uint32_t b = (uint8_t)key.p[i];
        int more = b >= 0xf0 ? 3 : b >= 0xe0 ? 2 : b >= 0xc0 ? 1 : 0;
        uint32_t code = more == 3   ? b & 0x07
                        : more == 2 ? b & 0x0f
                        : more == 1 ? b & 0x1f
                                    : b;
        i++;
        for (; more > 0 && i < key.n; more--, i++) {
            code = (code << 6) | ((uint8_t)key.p[i] & 0x3fu);
        }
        if (code >= 0x10000) {
            code -= 0x10000;
            h = 31 * h + (0xd800 + (code >> 10));
            code = 0xdc00 + (code & 0x3ff);
        }
        h = 31 * h + code;
    }
    return (int32_t)((h & 0x7fffffff) % (uint32_t)n_partitions);
}

enum kafka_error coordinator_list(
    struct coordinator *c,
    void (*each)(void *arg, const struct coordinator_group_view *view),
    void *arg)
{
    enum kafka_error e = KAFKA_NONE;
    struct group_partition *gp = NULL;
    struct group_partition *next = NULL;
    HASH_ITER(hh, c->partitions, gp, next)
    {
        if (gp->leading && !gp->live) {
            e = KAFKA_COORDINATOR_LOAD_IN_PROGRESS;
            continue;
        }
        struct classic_group *g = NULL;
        struct classic_group *next_group = NULL;
        HASH_ITER(hh, gp->groups, g, next_group)
        {
            const char *state = classic_group_state(g);
            struct coordinator_group_view v = {
                .group_id = bytes_text(&g->id),
                .state = {.p = state, .n = (int32_t)strlen(state)},
                .protocol_type = bytes_text(&g->protocol_type),
            };
            each(arg, &v);
        }
    }
    return e;
}
