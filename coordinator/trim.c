/* Keeping the log of a partition of __consumer_offsets short, so that loading
 * it stays quick: when it is many times longer than the state it tells, the
 * leader writes the whole state once more and then moves the log's start to
 * where that begins.
 *
 * Why nothing is lost: it begins only when no write is on its way, so the
 * tables are exactly what the log says, and all of the state's batches are
 * appended in one turn, so every later write comes behind them. Only when all
 * are committed does the start move; a leader that fails before that leaves a
 * longer log with the same meaning. */
#include "base/assert.h"
#include "base/log.h"
#include "coordinator/impl.h"

/* Records in the log before it is worth it: some MB, well below a second of
 * loading. */
#define TRIM_RECORDS_MIN 50000
/* ... and how many times more than the state has. */
#define TRIM_FACTOR 4
/* Bytes of one batch; and how many of them at once, half of what a partition
 * lets wait for room. A state of more than 32 MB is left alone. */
#define TRIM_BATCH_BYTES ((size_t)256 << 10)
#define TRIM_BATCHES 128
/* After a try that came to nothing: records until the next. */
#define TRIM_AGAIN 1000

static int64_t live_records(const struct group_partition *gp)
{
    int64_t n = 0;
    for (struct classic_group *g = gp->groups; g != NULL; g = g->hh.next) {
        n += 1 + (int64_t)HASH_COUNT(g->offsets);
    }
    return n;
}

/* A group that rebalances is not what its record would say. */
static bool all_at_rest(const struct group_partition *gp)
{
    for (struct classic_group *g = gp->groups; g != NULL; g = g->hh.next) {
        if (g->state != GROUP_EMPTY && g->state != GROUP_STABLE) {
            return false;
        }
    }
    return true;
}

static void trim_end(struct group_partition *gp)
{
    gp->trimming = false;
    gp->trim_next.v = partition_end(gp->partition).v + TRIM_AGAIN;
}

static void trim_start_moved(struct partition_delete_records *req)
{
    struct group_partition *gp = req->arg;
    if (!gp->closed) {
        trim_end(gp);
        log_info("coordinator",
                 "shortened the log of partition %d start=%lld error=%d",
                 (int)gp->index, (long long)req->low_watermark.v,
                 (int)req->error);
    }
    group_partition_unref(gp);
}

/* All of the state is written, or some of it not. */
static void trim_written(struct group_partition *gp)
{
    if (gp->closed) {
        return;
    }
    if (gp->trim_failed || !gp->live || gp->trim_epoch != gp->epoch) {
        trim_end(gp);
        return;
    }
    gp->trim_request = (struct partition_delete_records){
        .before = gp->trim_from,
        .compacts = true,
        .cb = trim_start_moved,
        .arg = gp,
    };
    group_partition_ref(gp);
    partition_delete_records(gp->partition, &gp->trim_request);
}

static void batch_written(struct group_write *w, enum kafka_error error)
{
    struct group_partition *gp = w->gp;
    ASSERT(gp->trimming && gp->trim_left > 0);
    if (error != KAFKA_NONE) {
        gp->trim_failed = true;
    } else if (w->arg != NULL) { /* the first */
        gp->trim_from = w->produce.base_offset;
    }
    if (--gp->trim_left == 0) {
        trim_written(gp);
    }
}

/* ---- the state, as batches ------------------------------------------------
 */
struct batches {
    struct group_partition *gp;
    struct group_write *writes[TRIM_BATCHES];
    int n;
    bool full;
};

static struct batch_builder *batches_room(struct batches *b)
{
    struct group_write *w = b->n == 0 ? NULL : b->writes[b->n - 1];
    if (w == NULL || batch_builder_bytes(&w->batch) > TRIM_BATCH_BYTES) {
        if (b->n == TRIM_BATCHES) {
            b->full = true;
            return NULL;
        }
        w = b->writes[b->n++] = group_write_new(b->gp);
        w->done = batch_written;
        w->arg = b->n == 1 ? b->gp : NULL;
    }
    return &w->batch;
}

static void add_offset(struct batches *b, const struct classic_group *g,
                       const struct committed_offset *o)
{
    struct offset_record r = {
        .group_id = bytes_text(&g->id),
        .topic = bytes_text(&o->topic),
        .partition = o->partition,
        .offset = o->offset,
        .leader_epoch = o->leader_epoch,
        .metadata = bytes_text(&o->metadata),
        .commit_timestamp_ms = o->commit_timestamp_ms,
    };
    struct batch_builder *builder = batches_room(b);
    if (builder != NULL) {
        records_add_offset(builder, env_wall_ms(b->gp->c->options.env), &r,
                           false);
    }
}

static void add_group(struct batches *b, struct classic_group *g)
{
    if (g->generation > 0) { /* else it is there by its offsets only */
        struct batch_builder *builder = batches_room(b);
        if (builder != NULL) {
            classic_group_record(g, builder);
        }
    }
    for (struct committed_offset *o = g->offsets; o != NULL && !b->full;
         o = o->hh.next) {
        add_offset(b, g, o);
    }
}

static void trim_begin(struct group_partition *gp)
{
    struct batches b = {.gp = gp};
    for (struct classic_group *g = gp->groups; g != NULL && !b.full;
         g = g->hh.next) {
        add_group(&b, g);
    }
    if (b.full || b.n == 0) {
        for (int i = 0; i < b.n; i++) {
            group_write_free(b.writes[i]);
        }
        trim_end(gp);
        return;
    }
    gp->trimming = true;
    gp->trim_failed = false;
    gp->trim_epoch = gp->epoch;
    gp->trim_left = b.n;
    for (int i = 0; i < b.n; i++) {
        group_write_submit(b.writes[i]);
    }
}

void coordinator_trim(struct group_partition *gp)
{
    if (!gp->live || gp->trimming || gp->n_writes > 0) {
        return;
    }
    kafka_offset end = partition_end(gp->partition);
    int64_t start = partition_log_start(gp->partition).v;
    int64_t least = gp->c->options.trim_records_min;
    least = least == 0 ? TRIM_RECORDS_MIN : least;
    if (end.v - start < least || end.v < gp->trim_next.v) {
        return;
    }
    gp->trim_next.v = end.v + TRIM_AGAIN;
    int64_t live = live_records(gp);
    if (end.v - start < TRIM_FACTOR * live) {
        gp->trim_next.v = start + TRIM_FACTOR * live;
    } else if (all_at_rest(gp)) {
        trim_begin(gp);
    }
}
