/* ListOffsets. What must be current waits for a read barrier; what must look
 * into batches does so on a worker: closed segments are told by their maximum
 * timestamp, then one side file is bisected, then one batch is read. */
#include "base/assert.h"
#include "base/mem.h"
#include "partition/partition_impl.h"

#define TIMESTAMP_LATEST (-1)
#define TIMESTAMP_EARLIEST (-2)
#define TIMESTAMP_MAX (-3)
#define TIMESTAMP_EARLIEST_LOCAL (-4)
#define TIMESTAMP_LAST_TIERED (-5)
#define TIMESTAMP_EARLIEST_PENDING (-6)

/* The search for the first record at or after a time: in a file, or in one
 * batch in memory. */
struct offset_search {
    int64_t timestamp;
    /* The greatest timestamp is looked for: it is at least `low` (-1: none was
     * found yet) and below `high`. */
    bool newest;
    int64_t low, high;
    struct {
        int64_t timestamp;
        kafka_offset offset;
        int32_t epoch;
    } best;
    kafka_offset from; /* records below do not count */
    kafka_offset upto; /* end of what is being looked at; then it goes on */
    bool in_file;
    struct segment_view view;
    const uint8_t *batch;
    uint32_t size;
    struct log_chunk *chunk;
    /* found */
    enum err status;
    int64_t found_timestamp;
    kafka_offset offset;
    int32_t epoch;
};

static void answer(struct partition_list_offset *req, enum kafka_error error)
{
    req->error = error;
    if (error != KAFKA_NONE) {
        req->offset.v = req->found_timestamp = -1;
        req->leader_epoch = -1;
    }
    link_add(&req->partition->offsets_done, &req->link);
    partition_turn_later(req->partition);
}

static void answer_offset(struct partition_list_offset *req,
                          kafka_offset offset)
{
    const struct partition *p = req->partition;
    req->found_timestamp = -1;
    req->offset = offset;
    req->leader_epoch = epochs_at(&p->epochs, offset);
    answer(req, KAFKA_NONE);
}

/* Nothing was found. */
static void answer_none(struct partition_list_offset *req)
{
    req->found_timestamp = req->offset.v = -1;
    req->leader_epoch = -1;
    answer(req, KAFKA_NONE);
}

void list_offset_turn(struct partition *p)
{
    while (!list_empty(&p->offsets_done)) {
        struct partition_list_offset *req =
            LINK_OF(struct partition_list_offset, link, p->offsets_done.next);
        link_remove(&req->link);
        req->cb(req);
    }
}

/* ---- search -------------------------------------------------------------- */
/* First record of the batch that counts; ERR_NOT_FOUND if there is none. */
static enum err search_batch(struct offset_search *s, const uint8_t *batch,
                             size_t size)
{
    struct batch_records r;
    struct batch_record record;
    enum err status = batch_records_open(&r, batch, size, LIMIT_BATCH_PLAIN);
    enum err found = ERR_NOT_FOUND;
    while (status == ERR_OK && found == ERR_NOT_FOUND &&
           batch_records_next(&r, &record)) {
        kafka_offset offset = {r.header.base_offset.v + record.offset_delta};
        if (record.timestamp >= s->timestamp && offset.v >= s->from.v) {
            s->found_timestamp = record.timestamp;
            s->offset = offset;
            s->epoch = r.header.leader_epoch;
            found = ERR_OK;
        }
    }
    if (status != ERR_OK || (found != ERR_OK && r.status != ERR_OK)) {
        /* The client's compressed bytes are not what they should be; that was
         * not looked at when they were produced. The batch as a whole counts.
         */
        s->found_timestamp = r.header.max_timestamp;
        s->offset.v = r.header.base_offset.v < s->from.v
                          ? s->from.v
                          : r.header.base_offset.v;
        s->epoch = r.header.leader_epoch;
        found = ERR_OK;
    }
    batch_records_close(&r);
    return found;
}

static enum err search_slot(struct offset_search *s, uint64_t slot)
{
    uint8_t *data;
    size_t size;
    kafka_offset bad;
    enum err status = segment_read(&s->view, slot, 0, true, &data, &size, &bad);
    if (status == ERR_OK && data == NULL) {
        status = ERR_CORRUPT;
    }
    if (status == ERR_OK) {
        status = search_batch(s, data, size);
        mem_free(data);
    }
    return status;
}

static enum err search_segment(struct offset_search *s)
{
    struct side_entry e;
    uint64_t slot = 1;
    enum err status = segment_view_open(&s->view, true);
    if (status == ERR_OK) {
        status = segment_find_offset(&s->view, s->from, &slot, &e);
    }
    while (status == ERR_OK) {
        status =
            segment_find_timestamp(&s->view, slot, s->timestamp, &slot, &e);
        if (status != ERR_OK) {
            break;
        }
        status = search_slot(s, slot);
        if (status != ERR_NOT_FOUND) {
            break;
        }
        slot += side_slots(e.type, e.size); /* only records below `from` */
        status = slot < s->view.segment.slots ? ERR_OK : ERR_NOT_FOUND;
    }
    return status;
}

static void search_run(struct env_work *work)
{
    struct partition_list_offset *req = work->arg;
    struct offset_search *s = req->search;
    s->status =
        s->in_file ? search_segment(s) : search_batch(s, s->batch, s->size);
}

static void search_done(struct env_work *work);

static void search_submit(struct partition_list_offset *req)
{
    partition_work(req->partition->env, &req->work, search_run, search_done,
                   req);
}

/* Looks into the first segment that may have it; false if none does. */
static bool search_files(struct partition_list_offset *req)
{
    struct partition *p = req->partition;
    struct offset_search *s = req->search;
    size_t n = partition_segment_count(p);
    if (s->from.v >= p->settled.next.v) {
        return false;
    }
    for (size_t i = partition_segment_find(p, s->from); i < n; i++) {
        struct segment segment = partition_segment_at(p, i);
        if (segment.max_timestamp >= s->timestamp && segment.bytes > 0) {
            s->in_file = true;
            s->upto = i + 1 < n ? partition_segment_at(p, i + 1).base
                                : p->settled.next;
            partition_view_take(p, i, &s->view);
            search_submit(req);
            return true;
        }
    }
    s->from = p->settled.next;
    return false;
}

/* Looks into the first batch in memory that may have it. */
static bool search_memory(struct partition_list_offset *req)
{
    struct partition *p = req->partition;
    struct offset_search *s = req->search;
    int64_t limit = partition_limit(p, req->isolation).v;
    for (uint32_t i = ring_find_offset(&p->ring, s->from); i < p->ring.count;
         i++) {
        const struct log_entry *e = ring_at(&p->ring, i);
        if (e->type != ENTRY_DATA || e->max_timestamp < s->timestamp) {
            continue;
        }
        s->upto.v = e->base_offset.v + e->last_delta + 1;
        if (s->upto.v > limit) {
            return false;
        }
        s->in_file = false;
        struct group_entry view = ring_view(p, i);
        s->batch = view.payload;
        s->size = view.size;
        s->chunk = view.chunk;
        if (s->chunk != NULL) {
            log_chunk_ref(s->chunk);
        }
        search_submit(req);
        return true;
    }
    return false;
}

/* Goes on from `from`: first in files, then in memory. */
static bool search_from(struct partition_list_offset *req, kafka_offset from)
{
    const struct partition *p = req->partition;
    req->search->from = from.v > p->log_start.v ? from : p->log_start;
    return search_files(req) || search_memory(req);
}

static void search_end(struct partition_list_offset *req)
{
    partition_unref(req->partition);
    mem_free(req->search);
    req->search = NULL;
}

static void search_answer(struct partition_list_offset *req, bool found)
{
    const struct offset_search *s = req->search;
    if (found) {
        req->found_timestamp = s->best.timestamp;
        req->offset = s->best.offset;
        req->leader_epoch = s->best.epoch;
        answer(req, KAFKA_NONE);
    } else {
        answer_none(req);
    }
    search_end(req);
}

/* All was looked at for this timestamp. The greatest one is known from the
 * segments, but may be that of a record that was deleted: then the greatest of
 * the others is bisected. */
static void search_ended(struct partition_list_offset *req, bool found)
{
    struct offset_search *s = req->search;
    do {
        if (found) {
            s->best.timestamp = s->found_timestamp;
            s->best.offset = s->offset;
            s->best.epoch = s->epoch;
            s->low = s->found_timestamp;
        } else {
            s->high = s->timestamp;
        }
        uint64_t between = (uint64_t)s->high - (uint64_t)s->low;
        if (!s->newest || s->low >= s->high || between < 2) {
            search_answer(req, s->newest ? s->low >= 0 : found);
            return;
        }
        s->timestamp = s->low + (int64_t)(between / 2);
        found = false;
    } while (!search_from(req, req->partition->log_start));
}

static void search_done(struct env_work *work)
{
    struct partition_list_offset *req = work->arg;
    struct partition *p = req->partition;
    struct offset_search *s = req->search;
    if (s->in_file) {
        partition_view_give(p, &s->view);
    } else if (s->chunk != NULL) {
        log_chunk_unref(s->chunk);
    }
    if (s->status == ERR_OK) {
        search_ended(req, true);
        return;
    }
    if (s->status == ERR_NOT_FOUND) {
        if (!search_from(req, s->upto)) {
            search_ended(req, false);
        }
        return;
    }
    if (s->status == ERR_CORRUPT) {
        partition_tell_damage(p, s->view.segment.base);
    }
    answer(req, KAFKA_KAFKA_STORAGE_ERROR);
    search_end(req);
}

/* The greatest timestamp below the limit; -1: there is no batch. */
static int64_t newest_timestamp(const struct partition *p, int8_t isolation)
{
    int64_t newest = -1, limit = partition_limit(p, isolation).v;
    for (size_t i = 0; i < partition_segment_count(p); i++) {
        struct segment s = partition_segment_at(p, i);
        newest = s.max_timestamp > newest ? s.max_timestamp : newest;
    }
    for (uint32_t i = 0; i < p->ring.count; i++) {
        const struct log_entry *e = ring_at(&p->ring, i);
        if (e->type == ENTRY_DATA && e->base_offset.v + e->last_delta < limit &&
            e->max_timestamp > newest) {
            newest = e->max_timestamp;
        }
    }
    return newest;
}

static void search(struct partition_list_offset *req, int64_t timestamp,
                   bool newest)
{
    struct partition *p = req->partition;
    if (p->log_start.v == p->high_watermark.v) {
        answer_none(req);
        return;
    }
    req->search = mem_zalloc(sizeof *req->search);
    req->search->timestamp = timestamp;
    req->search->newest = newest;
    req->search->low = -1;
    req->search->high = timestamp == INT64_MAX ? timestamp : timestamp + 1;
    partition_ref(p);
    if (!search_from(req, p->log_start)) {
        search_ended(req, false);
    }
}

/* ---- request ------------------------------------------------------------- */
/* Everything committed before the request is applied here now. */
static void after_barrier(struct group_read *read, enum err status)
{
    struct partition_list_offset *req = read->arg;
    struct partition *p = req->partition;
    if (status != ERR_OK || p->closed) {
        answer(req, KAFKA_NOT_LEADER_OR_FOLLOWER);
    } else if (req->timestamp == TIMESTAMP_LATEST) {
        answer_offset(req, partition_limit(p, req->isolation));
        /* Consumers compare it with the epoch they know. */
        req->leader_epoch = p->leader_epoch;
    } else if (req->timestamp == TIMESTAMP_MAX) {
        search(req, newest_timestamp(p, req->isolation), true);
    } else {
        search(req, req->timestamp, false);
    }
    partition_unref(p);
}

/* From which version of ListOffsets on a special timestamp is known. */
static int special_version(int64_t timestamp)
{
    switch (timestamp) {
        case TIMESTAMP_LATEST:
        case TIMESTAMP_EARLIEST:
            return 0;
        case TIMESTAMP_MAX:
            return 7;
        case TIMESTAMP_EARLIEST_LOCAL:
            return 8;
        case TIMESTAMP_LAST_TIERED:
            return 9;
        case TIMESTAMP_EARLIEST_PENDING:
            return 11;
        default:
            return timestamp >= 0 ? 0 : INT32_MAX;
    }
}

static enum kafka_error check(const struct partition *p,
                              const struct partition_list_offset *req)
{
    struct group_role role = partition_role(p);
    if (special_version(req->timestamp) > req->api_version) {
        return KAFKA_UNSUPPORTED_VERSION;
    }
    enum kafka_error error =
        partition_check_epoch(p, req->current_leader_epoch);
    if (error != KAFKA_NONE) {
        return error;
    }
    if (!role.is_leader) {
        return KAFKA_NOT_LEADER_OR_FOLLOWER;
    }
    if (!role.ready) {
        return req->api_version >= 5 ? KAFKA_OFFSET_NOT_AVAILABLE
                                     : KAFKA_LEADER_NOT_AVAILABLE;
    }
    return KAFKA_NONE;
}

void partition_list_offset(struct partition *p,
                           struct partition_list_offset *req)
{
    req->partition = p;
    req->search = NULL;
    req->found_timestamp = req->offset.v = -1;
    req->leader_epoch = -1;
    enum kafka_error error = check(p, req);
    if (error != KAFKA_NONE) {
        answer(req, error);
    } else if (req->timestamp == TIMESTAMP_EARLIEST ||
               req->timestamp == TIMESTAMP_EARLIEST_LOCAL) {
        answer_offset(req, p->log_start);
    } else if (req->timestamp == TIMESTAMP_LAST_TIERED ||
               req->timestamp == TIMESTAMP_EARLIEST_PENDING) {
        answer_none(req);
    } else {
        partition_ref(p);
        req->barrier.cb = after_barrier;
        req->barrier.arg = req;
        group_read_barrier(p->group, &req->barrier);
    }
}
