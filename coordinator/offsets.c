/* Committed offsets: commit, fetch, delete, expiry; and the view of a group. A
 * commit is decided at once and answered when its records are committed; the
 * table is changed only by what was committed. */
#include "base/limits.h"
#include "coordinator/impl.h"

/* Bytes of tombstones in one batch, far below what the log takes. */
#define FORGET_BYTES ((size_t)256 << 10)

/* ---- the table ----------------------------------------------------------- */
/* Topic, NUL, partition: names of topics have no NUL. */
static void offset_key(struct bytes *key, struct text topic, int32_t partition)
{
    size_t n = topic.n < 0 ? 0 : (size_t)topic.n;
    key->n = (int32_t)(n + 1 + sizeof partition);
    key->p = mem_alloc((size_t)key->n);
    memcpy(key->p, n == 0 ? "" : topic.p, n);
    key->p[n] = '\0';
    memcpy(key->p + n + 1, &partition, sizeof partition);
}

static struct committed_offset *offset_find(struct classic_group *g,
                                            struct text topic,
                                            int32_t partition)
{
    struct bytes key = {0};
    struct committed_offset *o = NULL;
    if (g == NULL || g->offsets == NULL) {
        return NULL;
    }
    offset_key(&key, topic, partition);
    HASH_FIND(hh, g->offsets, key.p, (size_t)key.n, o);
    bytes_free(&key);
    return o;
}

static void offset_free(struct classic_group *g, struct committed_offset *o)
{
    HASH_DEL(g->offsets, o);
    bytes_free(&o->topic);
    bytes_free(&o->metadata);
    bytes_free(&o->key);
    mem_free(o);
}

void offsets_free(struct classic_group *g)
{
    while (g->offsets != NULL) {
        offset_free(g, g->offsets);
    }
}

void offset_apply(struct group_partition *gp, const struct offset_record *r,
                  bool tombstone)
{
    struct classic_group *g = classic_group_find(gp, r->group_id);
    if (g == NULL) {
        if (tombstone || r->group_id.n < 0) {
            return;
        }
        g = classic_group_make(gp, r->group_id);
    }
    struct committed_offset *o = offset_find(g, r->topic, r->partition);
    if (tombstone) {
        if (o != NULL) {
            offset_free(g, o);
        }
        return;
    }
    if (o == NULL) {
        o = mem_zalloc(sizeof *o);
        bytes_set(&o->topic, r->topic.p, r->topic.n);
        o->partition = r->partition;
        offset_key(&o->key, r->topic, r->partition);
        HASH_ADD_KEYPTR(hh, g->offsets, o->key.p, (size_t)o->key.n, o);
    }
    o->offset = r->offset;
    o->leader_epoch = r->leader_epoch;
    bytes_set(&o->metadata, r->metadata.p,
              r->metadata.n < 0 ? 0 : r->metadata.n);
    o->commit_timestamp_ms = r->commit_timestamp_ms;
}

/* ---- commit -------------------------------------------------------------- */
static void commit_fire(struct answer *a)
{
    struct coordinator_commit *req = a->req;
    req->cb(req);
}

static void commit_written(struct group_write *w, enum kafka_error error)
{
    struct coordinator_commit *req = w->arg;
    if (error == KAFKA_NONE) {
        req->cb(req);
        return;
    }
    for (int i = 0; i < req->n_offsets; i++) {
        if (req->offsets[i].error == KAFKA_NONE) {
            req->offsets[i].error = error;
        }
    }
    req->cb(req);
}

static enum kafka_error commit_check(struct coordinator *c,
                                     struct coordinator_commit *req,
                                     struct group_partition **gp)
{
    enum kafka_error e = partition_live(c, req->index, gp);
    if (e != KAFKA_NONE) {
        return e;
    }
    return classic_group_check_commit(classic_group_find(*gp, req->group_id),
                                      req);
}

/* Adds one offset to the batch, or says why not. */
static bool commit_add(struct coordinator *c, struct group_write *w,
                       const struct coordinator_commit *req,
                       struct coordinator_commit_offset *o, int64_t now)
{
    if (o->error != KAFKA_NONE) {
        return false;
    }
    if (o->metadata.n > c->options.offset_metadata_bytes_max) {
        o->error = KAFKA_OFFSET_METADATA_TOO_LARGE;
        return false;
    }
    struct offset_record r = {
        .group_id = req->group_id,
        .topic = o->topic,
        .partition = o->partition,
        .offset = o->offset,
        .leader_epoch = o->leader_epoch,
        .metadata = o->metadata.n < 0 ? TEXT("") : o->metadata,
        .commit_timestamp_ms = now,
    };
    records_add_offset(&w->batch, now, &r, false);
    struct committed_offset *older = offset_find(
        classic_group_find(w->gp, req->group_id), o->topic, o->partition);
    if (older != NULL) {
        older->submitted_ms = now; /* it must not expire behind this one */
    }
    return true;
}

void coordinator_commit(struct coordinator *c, struct coordinator_commit *req)
{
    struct group_partition *gp = NULL;
    req->error = commit_check(c, req, &gp);
    if (req->error != KAFKA_NONE) {
        answer_send(c, answer_new(c, req, commit_fire));
        return;
    }
    int64_t now = env_wall_ms(c->options.env);
    struct group_write *w = group_write_new(gp);
    int n = 0;
    for (int i = 0; i < req->n_offsets; i++) {
        n += commit_add(c, w, req, &req->offsets[i], now);
    }
    if (n == 0) {
        group_write_free(w);
        answer_send(c, answer_new(c, req, commit_fire));
        return;
    }
    w->done = commit_written;
    w->arg = req;
    group_write_submit(w);
}

/* ---- fetch --------------------------------------------------------------- */
static int by_topic(const void *a, const void *b)
{
    const struct coordinator_fetched_offset *x = a;
    const struct coordinator_fetched_offset *y = b;
    int32_t n = x->topic.n < y->topic.n ? x->topic.n : y->topic.n;
    int r = n > 0 ? memcmp(x->topic.p, y->topic.p, (size_t)n) : 0;
    if (r == 0) {
        r = (x->topic.n > y->topic.n) - (x->topic.n < y->topic.n);
    }
    return r != 0
               ? r
               : (x->partition > y->partition) - (x->partition < y->partition);
}

static void fill(struct coordinator_fetched_offset *out,
                 const struct committed_offset *o)
{
    out->offset.v = o == NULL ? -1 : o->offset.v;
    out->leader_epoch = o == NULL ? -1 : o->leader_epoch;
    out->metadata = o == NULL ? TEXT("") : bytes_text(&o->metadata);
    out->error = KAFKA_NONE;
}

static void fetch_all(struct classic_group *g, struct coordinator_fetch *req)
{
    size_t n = g == NULL ? 0 : HASH_COUNT(g->offsets);
    struct coordinator_fetched_offset *out = mem_zalloc(n * sizeof *out + 1);
    size_t i = 0;
    for (struct committed_offset *o = g == NULL ? NULL : g->offsets; o != NULL;
         o = o->hh.next) {
        out[i].topic = bytes_text(&o->topic);
        out[i].partition = o->partition;
        fill(&out[i++], o);
    }
    qsort(out, n, sizeof *out, by_topic);
    req->offsets = out;
    req->n_offsets = (int)n;
    req->cb(req);
    mem_free(out);
}

static void fetch_confirmed(struct group_read *read, enum err status)
{
    struct coordinator_fetch *req = read->arg;
    struct coordinator *c = req->impl;
    struct group_partition *gp = NULL;
    req->error = status == ERR_OK ? partition_live(c, req->index, &gp)
                                  : KAFKA_NOT_COORDINATOR;
    if (req->error != KAFKA_NONE) {
        req->cb(req);
        return;
    }
    struct classic_group *g = classic_group_find(gp, req->group_id);
    if (req->all) {
        fetch_all(g, req);
        return;
    }
    for (int i = 0; i < req->n_offsets; i++) {
        struct coordinator_fetched_offset *o = &req->offsets[i];
        fill(o, offset_find(g, o->topic, o->partition));
    }
    req->cb(req);
}

static void fetch_fire(struct answer *a)
{
    struct coordinator_fetch *req = a->req;
    req->cb(req);
}

void coordinator_fetch(struct coordinator *c, struct coordinator_fetch *req)
{
    struct group_partition *gp = NULL;
    req->error = partition_live(c, req->index, &gp);
    if (req->error != KAFKA_NONE) {
        answer_send(c, answer_new(c, req, fetch_fire));
        return;
    }
    req->impl = c;
    req->barrier = (struct group_read){.cb = fetch_confirmed, .arg = req};
    group_read_barrier(partition_group(gp->partition), &req->barrier);
}

/* ---- describe ------------------------------------------------------------ */
static void describe_fire(struct answer *a)
{
    struct coordinator_describe *req = a->req;
    req->cb(req);
}

static void describe_group(struct classic_group *g,
                           struct coordinator_describe *req)
{
    size_t n = HASH_COUNT(g->members);
    struct coordinator_member *members = mem_zalloc(n * sizeof *members + 1);
    bool stable = g->state == GROUP_STABLE;
    int i = 0;
    for (struct group_member *m = g->members; m != NULL; m = m->hh.next) {
        struct text sub =
            stable ? group_member_subscription(m, &g->protocol) : TEXT("");
        members[i++] = (struct coordinator_member){
            .member_id = bytes_text(&m->id),
            .instance_id = bytes_text(&m->instance_id),
            .metadata = {.p = (const uint8_t *)sub.p, .n = sub.n},
            .assignment = bytes_blob(&m->assignment),
            .client_id = bytes_text(&m->client_id),
            .client_host = bytes_text(&m->client_host),
        };
    }
    const char *state = classic_group_state(g);
    struct text protocol = bytes_text(&g->protocol);
    req->view = (struct coordinator_group_view){
        .error = KAFKA_NONE,
        .group_id = bytes_text(&g->id),
        .state = {.p = state, .n = (int32_t)strlen(state)},
        .protocol_type = bytes_text(&g->protocol_type),
        .protocol = stable && protocol.n >= 0 ? protocol : TEXT(""),
        .n_members = i,
        .members = members,
    };
    req->cb(req);
    mem_free(members);
}

static void describe_confirmed(struct group_read *read, enum err status)
{
    struct coordinator_describe *req = read->arg;
    struct group_partition *gp = NULL;
    req->view.error = status == ERR_OK
                          ? partition_live(req->impl, req->index, &gp)
                          : KAFKA_NOT_COORDINATOR;
    struct classic_group *g = req->view.error == KAFKA_NONE
                                  ? classic_group_find(gp, req->group_id)
                                  : NULL;
    if (req->view.error == KAFKA_NONE && g == NULL) {
        req->view.error = KAFKA_GROUP_ID_NOT_FOUND;
    }
    if (req->view.error != KAFKA_NONE) {
        req->cb(req);
        return;
    }
    describe_group(g, req);
}

void coordinator_describe(struct coordinator *c,
                          struct coordinator_describe *req)
{
    struct group_partition *gp = NULL;
    memset(&req->view, 0, sizeof req->view);
    /* The group "" has offsets only, of clients that name none. */
    req->view.error = req->group_id.n < 0 ? KAFKA_INVALID_GROUP_ID
                                          : partition_live(c, req->index, &gp);
    if (req->view.error != KAFKA_NONE) {
        answer_send(c, answer_new(c, req, describe_fire));
        return;
    }
    req->impl = c;
    req->barrier = (struct group_read){.cb = describe_confirmed, .arg = req};
    group_read_barrier(partition_group(gp->partition), &req->barrier);
}

/* ---- forgetting ---------------------------------------------------------- */
/* Tombstones for what is to be forgotten of one group, in as many batches as
 * needed. */
struct forgetting {
    struct classic_group *g;
    struct group_write *w; /* being filled, or NULL */
    int64_t now;
};

static void write_forgotten(struct group_write *w, enum kafka_error error)
{
    (void)w; /* not committed: tried again at the next sweep */
    (void)error;
}

static struct batch_builder *forgetting_batch(struct forgetting *f)
{
    if (f->w != NULL && batch_builder_bytes(&f->w->batch) > FORGET_BYTES) {
        group_write_submit(f->w);
        f->w = NULL;
    }
    if (f->w == NULL) {
        f->w = group_write_new(f->g->owner);
        f->w->done = write_forgotten;
    }
    return &f->w->batch;
}

static void forget_offset(struct forgetting *f,
                          const struct committed_offset *o)
{
    struct offset_record r = {.group_id = bytes_text(&f->g->id),
                              .topic = bytes_text(&o->topic),
                              .partition = o->partition};
    records_add_offset(forgetting_batch(f), f->now, &r, true);
}

static void forget_group(struct forgetting *f)
{
    struct group_record r = {.group_id = bytes_text(&f->g->id)};
    records_add_group(forgetting_batch(f), f->now, &r, true);
}

static void forgetting_end(struct forgetting *f)
{
    if (f->w != NULL) {
        group_write_submit(f->w);
    }
}

static void delete_fire(struct answer *a)
{
    struct coordinator_delete *req = a->req;
    req->cb(req);
}

static void delete_written(struct group_write *w, enum kafka_error error)
{
    struct coordinator_delete *req = w->arg;
    req->error = error == KAFKA_NONE || error == KAFKA_NOT_COORDINATOR
                     ? error
                     : KAFKA_COORDINATOR_NOT_AVAILABLE;
    req->cb(req);
}

void coordinator_delete(struct coordinator *c, struct coordinator_delete *req)
{
    struct group_partition *gp = NULL;
    req->error = req->group_id.n < 0 ? KAFKA_INVALID_GROUP_ID
                                     : partition_live(c, req->index, &gp);
    struct classic_group *g =
        req->error == KAFKA_NONE ? classic_group_find(gp, req->group_id) : NULL;
    if (req->error == KAFKA_NONE && g == NULL) {
        req->error = KAFKA_GROUP_ID_NOT_FOUND;
    } else if (g != NULL && g->state != GROUP_EMPTY) {
        req->error = KAFKA_NON_EMPTY_GROUP;
    }
    if (req->error != KAFKA_NONE) {
        answer_send(c, answer_new(c, req, delete_fire));
        return;
    }
    struct forgetting f = {.g = g, .now = env_wall_ms(c->options.env)};
    for (struct committed_offset *o = g->offsets; o != NULL; o = o->hh.next) {
        forget_offset(&f, o);
    }
    forget_group(&f); /* the last record: when it is there, all are */
    f.w->done = delete_written;
    f.w->arg = req;
    forgetting_end(&f);
}

/* ---- deletion of single offsets ------------------------------------------ */
/* Does the subscription (version, then names of topics) name the topic? What
 * cannot be read may name anything. */
static bool subscription_names(struct text subscription, struct text topic)
{
    const uint8_t *at = (const uint8_t *)subscription.p;
    size_t left = subscription.n < 0 ? 0 : (size_t)subscription.n;
    if (left < 6) {
        return true;
    }
    uint32_t n = (uint32_t)at[2] << 24 | (uint32_t)at[3] << 16 |
                 (uint32_t)at[4] << 8 | (uint32_t)at[5];
    at += 6;
    left -= 6;
    for (uint32_t i = 0; i < n; i++) {
        size_t size = left < 2 ? 0 : (size_t)at[0] << 8 | at[1];
        if (left < 2 + size) {
            return true;
        }
        if (text_equal(
                (struct text){.p = (const char *)at + 2, .n = (int32_t)size},
                topic)) {
            return true;
        }
        at += 2 + size;
        left -= 2 + size;
    }
    return false;
}

static bool group_subscribes(struct classic_group *g, struct text topic)
{
    for (struct group_member *m = g->members; m != NULL; m = m->hh.next) {
        if (g->protocol.p == NULL ||
            subscription_names(group_member_subscription(m, &g->protocol),
                               topic)) {
            return true;
        }
    }
    return false;
}

static void offset_delete_fire(struct answer *a)
{
    struct coordinator_offset_delete *req = a->req;
    req->cb(req);
}

static void offset_delete_written(struct group_write *w, enum kafka_error error)
{
    struct coordinator_offset_delete *req = w->arg;
    req->error = error == KAFKA_NONE || error == KAFKA_NOT_COORDINATOR
                     ? error
                     : KAFKA_COORDINATOR_NOT_AVAILABLE;
    req->cb(req);
}

static enum kafka_error offset_delete_check(
    struct coordinator *c, const struct coordinator_offset_delete *req,
    struct classic_group **g)
{
    struct group_partition *gp = NULL;
    if (req->group_id.n <= 0) {
        return KAFKA_INVALID_GROUP_ID;
    }
    enum kafka_error e = partition_live(c, req->index, &gp);
    if (e != KAFKA_NONE) {
        return e;
    }
    *g = classic_group_find(gp, req->group_id);
    if (*g == NULL) {
        return KAFKA_GROUP_ID_NOT_FOUND;
    }
    bool consumers = bytes_is(&(*g)->protocol_type, TEXT("consumer"));
    return (*g)->state == GROUP_EMPTY || consumers ? KAFKA_NONE
                                                   : KAFKA_NON_EMPTY_GROUP;
}

void coordinator_offset_delete(struct coordinator *c,
                               struct coordinator_offset_delete *req)
{
    struct classic_group *g = NULL;
    req->error = offset_delete_check(c, req, &g);
    struct forgetting f = {.g = g, .now = env_wall_ms(c->options.env)};
    for (int i = 0; req->error == KAFKA_NONE && i < req->n_offsets; i++) {
        struct coordinator_deleted_offset *o = &req->offsets[i];
        if (o->error != KAFKA_NONE) {
            continue;
        }
        if (group_subscribes(g, o->topic)) {
            o->error = KAFKA_GROUP_SUBSCRIBED_TO_TOPIC;
            continue;
        }
        /* Also where none is known: one may be on its way. */
        struct offset_record r = {.group_id = req->group_id,
                                  .topic = o->topic,
                                  .partition = o->partition};
        records_add_offset(forgetting_batch(&f), f.now, &r, true);
    }
    if (f.w == NULL) {
        answer_send(c, answer_new(c, req, offset_delete_fire));
        return;
    }
    f.w->done = offset_delete_written;
    f.w->arg = req;
    forgetting_end(&f);
}

/* Offsets that nobody committed for long enough, and groups without any. Those
 * of a group that had members count from when it became empty at the
 * earliest. */
static void group_expire(struct classic_group *g, int64_t before, int64_t now)
{
    struct forgetting f = {.g = g, .now = now};
    bool all = true;
    bool rested = g->state_since_ms <= before;
    if (g->protocol_type.n > 0 && !rested) {
        return;
    }
    for (struct committed_offset *o = g->offsets; o != NULL; o = o->hh.next) {
        if (o->commit_timestamp_ms <= before && o->submitted_ms <= before) {
            forget_offset(&f, o);
        } else {
            all = false;
        }
    }
    if (all && (rested || g->offsets != NULL)) {
        forget_group(&f);
    }
    forgetting_end(&f);
}

/* Consumers that work: offsets of topics they do not subscribe to any more. */
static void group_expire_unsubscribed(struct classic_group *g, int64_t before,
                                      int64_t now)
{
    struct forgetting f = {.g = g, .now = now};
    for (struct committed_offset *o = g->offsets; o != NULL; o = o->hh.next) {
        if (o->commit_timestamp_ms <= before && o->submitted_ms <= before &&
            !group_subscribes(g, bytes_text(&o->topic))) {
            forget_offset(&f, o);
        }
    }
    forgetting_end(&f);
}

void offsets_expire(struct group_partition *gp)
{
    int64_t now = env_wall_ms(gp->c->options.env);
    int64_t before = now - gp->c->options.offsets_retention_ms;
    struct classic_group *g = NULL;
    struct classic_group *next = NULL;
    HASH_ITER(hh, gp->groups, g, next)
    {
        if (g->state == GROUP_EMPTY && g->pending == NULL) {
            group_expire(g, before, now);
        } else if (g->state == GROUP_STABLE &&
                   bytes_is(&g->protocol_type, TEXT("consumer"))) {
            group_expire_unsubscribed(g, before, now);
        }
    }
}

void coordinator_topic_deleted(struct coordinator *c, const char *topic)
{
    struct text name = {.p = topic, .n = (int32_t)strlen(topic)};
    int64_t now = env_wall_ms(c->options.env);
    struct group_partition *gp = NULL;
    struct group_partition *next_gp = NULL;
    HASH_ITER(hh, c->partitions, gp, next_gp)
    {
        struct classic_group *g = NULL;
        struct classic_group *next = NULL;
        HASH_ITER(hh, gp->groups, g, next)
        {
            struct forgetting f = {.g = g, .now = now};
            for (struct committed_offset *o = g->offsets; gp->live && o != NULL;
                 o = o->hh.next) {
                if (bytes_is(&o->topic, name)) {
                    forget_offset(&f, o);
                }
            }
            forgetting_end(&f);
        }
    }
}
