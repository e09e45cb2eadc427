/* Appending and flushing. A record is copied into the open flush, which lies
 * in the newest chunk of the log buffer and already has its place in a file.
 * At the end of the loop turn the flush is sealed and written from there; what
 * comes while it is being written gathers in the next one. */
#include "raft/wal.h"

#include <stdio.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/limits.h"
#include "base/log.h"
#include "raft/wal_internal.h"

/* Milliseconds between two requests to settle the same file. */
#define ASK_AGAIN_MS 200
/* The owner would not let go of settled entries: asked again after this. Nor
 * is more than one chunk looked through for what to move out of it in so much
 * time. */
#define EVICT_AGAIN_MS 10
/* A write that found no space on the device is tried again after this. */
#define SPACE_AGAIN_MS 100
/* Checksums of flushes from this size on are joined from what is known. */
#define JOIN_BYTES (32u << 10)
/* Free chunks beyond those that are kept are looked at in this time. */
#define TRIM_MS 1000

static void turn_end(struct env_deferred *d);
static void attest_due(struct env_timer *timer);
static void close_step_due(struct env_deferred *d);

/* ---- groups -------------------------------------------------------------- */
struct wal_group *wal_group_find(struct wal *wal, const struct group_id *id)
{
    struct wal_group *group = NULL;
    HASH_FIND(hh, wal->groups, id, sizeof *id, group);
    return group;
}

struct wal_group *wal_group_get(struct wal *wal, const struct group_id *id)
{
    struct wal_group *group = wal_group_find(wal, id);
    if (group == NULL) {
        group = mem_zalloc(sizeof *group);
        group->id = *id;
        HASH_ADD(hh, wal->groups, id, sizeof group->id, group);
    }
    return group;
}

void wal_group_truncate(struct wal *wal, struct wal_group *group,
                        log_index first)
{
    wal->evict_due = true;
    for (uint32_t k = 0; k < wal->n_used; k++) {
        wal_pins_truncate(&wal->used[k]->pins, group, first);
    }
    for (struct log_chunk *c = wal->buffer->oldest; c != NULL; c = c->next) {
        wal_pins_truncate(&c->pins, group, first);
    }
}

void wal_group_forget(struct wal *wal, struct wal_group *group)
{
    wal_group_truncate(wal, group, (log_index){0});
    HASH_DEL(wal->groups, group);
    mem_free(group);
}

void wal_pin(struct wal_group *group, struct log_chunk *chunk,
             struct wal_file *file, log_index index)
{
    if (file != NULL) {
        wal_pins_note(&file->pins, group, index,
                      group->file_generation == file->generation,
                      &group->file_slot);
        group->file_generation = file->generation;
    }
    if (chunk != NULL) {
        wal_pins_note(&chunk->pins, group, index, group->chunk_id == chunk->id,
                      &group->chunk_slot);
        group->chunk_id = chunk->id;
    }
}

/* ---- log buffer ---------------------------------------------------------- */
static void chunk_released(void *arg)
{
    struct wal *wal = arg;
    wal_room_changed(wal);
    if (wal->buffer->n_free > LIMIT_LOG_CHUNKS_FREE && !wal->closing &&
        !env_timer_running(&wal->trim_timer)) {
        env_timer_start(&wal->trim_timer, TRIM_MS);
    }
}

/* Gives back chunks that the load does not need any more, slowly. */
static void trim_due(struct env_timer *timer)
{
    struct wal *wal = timer->arg;
    log_buffer_trim(wal->buffer, LIMIT_LOG_CHUNKS_FREE);
    if (wal->buffer->n_free > LIMIT_LOG_CHUNKS_FREE) {
        env_timer_start(&wal->trim_timer, TRIM_MS);
    }
}

static bool chunk_is_settled(const struct log_chunk *chunk)
{
    for (uint32_t k = chunk->pins.done; k < chunk->pins.n; k++) {
        const struct wal_pin *pin = &chunk->pins.v[k];
        if (pin->group != NULL && pin->group->settled.v < pin->upto.v) {
            return false;
        }
    }
    return true;
}

/* The owner lets go of all entries in a settled chunk? */
static bool chunk_let_go(struct wal *wal, struct log_chunk *chunk)
{
    struct wal_pins *pins = &chunk->pins;
    for (; pins->done < pins->n; pins->done++) {
        struct wal_pin *pin = &pins->v[pins->done];
        if (pin->group != NULL &&
            !wal->ops.evict(wal->arg, &pin->group->id, pin->upto)) {
            env_timer_start(&wal->room_timer, EVICT_AGAIN_MS);
            return false;
        }
        pin->group = NULL;
    }
    return true;
}

/* Drops the oldest chunk whose entries are all settled and that the owner lets
 * go of; a group that does not settle shall hold only its own chunks. */
static bool evict_one(struct wal *wal)
{
    struct log_chunk *before = NULL;
    if (!wal->evict_due) {
        return false; /* nothing was settled since it was tried */
    }
    struct log_chunk *chunk = wal->buffer->oldest;
    for (; chunk != wal->buffer->newest; chunk = chunk->next) {
        if (chunk_is_settled(chunk) && chunk_let_go(wal, chunk)) {
            log_buffer_drop(wal->buffer, before);
            return true;
        }
        before = chunk;
    }
    wal->evict_due = false;
    return false;
}

static uint32_t chunk_rest(const struct wal *wal)
{
    const struct log_chunk *chunk = wal->buffer->newest;
    if (chunk == NULL) {
        return 0;
    }
    return chunk->size - (uint32_t)wal_align(chunk->fill, WAL_BLOCK);
}

/* Bytes that must still be allocated for `need` more; 0: they fit. */
static uint64_t buffer_extra(const struct wal *wal, uint64_t need)
{
    if (need <= chunk_rest(wal)) {
        return 0;
    }
    return wal_align(need, wal->buffer->chunk_bytes);
}

/* Bytes in file and buffer, at most, for records of together `bytes`. */
uint64_t wal_record_bytes(const struct wal *wal, uint64_t bytes,
                          uint64_t records)
{
    uint64_t frames = bytes + records * (WAL_FRAME_HEADER + WAL_FRAME_ALIGN);
    uint64_t flushes = frames / wal->buffer->chunk_bytes + 1;
    return wal_align(frames, WAL_BLOCK) + flushes * 2 * WAL_BLOCK;
}

static bool buffer_has_room(struct wal *wal, uint64_t need)
{
    uint64_t extra = buffer_extra(wal, need);
    while (extra > 0 &&
           wal->buffer->bytes_live + extra > wal->options.buffer_bytes_max) {
        if (!evict_one(wal)) {
            return false;
        }
    }
    return true;
}

/* ---- reserving ----------------------------------------------------------- */
uint64_t wal_file_end(const struct wal *wal)
{
    const struct wal_flush *open = wal->open;
    return open == NULL
               ? wal->file_at
               : open->file_offset + wal_align(open->length, WAL_BLOCK);
}

/* Without touching what is kept for terms, votes and no-ops. */
static bool file_has_room(const struct wal *wal, uint64_t need)
{
    const struct wal_file *file = wal_file_current(wal);
    uint64_t kept = file->bytes / 8;
    kept = kept < LIMIT_LOG_CHUNK_BYTES ? kept : LIMIT_LOG_CHUNK_BYTES;
    if (wal_file_end(wal) + need + kept <= wal_file_limit(file)) {
        return true;
    }
    for (uint32_t k = 0; k < wal->n_files; k++) {
        if (wal->files[k]->state == WAL_FILE_FREE &&
            wal->begin_bytes + need + kept <= wal_file_limit(wal->files[k])) {
            return true;
        }
    }
    return false;
}

bool wal_reserve(struct wal *wal, uint64_t bytes, uint32_t records)
{
    ASSERT(!wal->closing);
    if (wal->no_space) {
        wal->room_wanted = true;
        return false;
    }
    uint64_t need = wal_record_bytes(wal, wal->reserved_bytes + bytes,
                                     wal->reserved_records + records);
    if (!buffer_has_room(wal, need)) {
        wal->room_wanted = true;
        wal->buffer_full = true;
        wal_turn_defer(wal);
        return false;
    }
    if (!file_has_room(wal, need)) {
        wal->room_wanted = true;
        wal->over_asked = true;
        wal->fill_asked = true;
        wal_turn_defer(wal);
        return false;
    }
    wal->reserved_bytes += bytes;
    wal->reserved_records += records;
    return true;
}

static void reserved_take(struct wal *wal, uint64_t bytes, uint64_t records)
{
    wal->reserved_bytes -=
        bytes < wal->reserved_bytes ? bytes : wal->reserved_bytes;
    wal->reserved_records -=
        records < wal->reserved_records ? records : wal->reserved_records;
}

void wal_unreserve(struct wal *wal, uint64_t bytes, uint32_t records)
{
    reserved_take(wal, bytes, records);
    wal_room_changed(wal);
}

void wal_room_changed(struct wal *wal)
{
    if (wal->room_wanted && !wal->closing) {
        wal->room_changed = true;
        wal_turn_defer(wal);
    }
}

static void room_due(struct env_timer *timer)
{
    struct wal *wal = timer->arg;
    wal->evict_due = true;
    wal_turn_defer(wal);
    wal_room_changed(wal);
}

/* ---- the open flush ------------------------------------------------------ */
static bool flush_fits(const struct wal_flush *flush, uint64_t need)
{
    return flush->chunk->fill + need <= flush->chunk->size &&
           flush->file_offset + wal_align(flush->length + need, WAL_BLOCK) <=
               wal_file_limit(flush->file);
}

/* Moves the open flush to the end of the queue. */
static void flush_seal(struct wal *wal)
{
    struct wal_flush *flush = wal->open;
    ASSERT(flush != NULL && flush->n_frames > 0);
    uint32_t length = (uint32_t)wal_align(flush->length, WAL_BLOCK);
    memset(flush->data + flush->length, 0, length - flush->length);
    flush->crc =
        crc32c(flush->crc, flush->data + flush->length, length - flush->length);
    flush->length = length;
    flush->chunk->fill = (uint32_t)(flush->data - flush->chunk->data) + length;
    wal->file_at = flush->file_offset + length;
    wal->open = NULL;
    *wal->queue_end = flush;
    wal->queue_end = &flush->next;
}

void wal_open_end(struct wal *wal)
{
    if (wal->open != NULL) {
        flush_seal(wal);
    }
}

/* Nothing above may fail any more: the file grows. */
static void file_grow(struct wal *wal, struct wal_file *file, uint64_t bytes)
{
    if (!wal->relogging) {
        log_warn("wal", "log file grows beyond its size file=%u bytes=%llu",
                 file->number, (unsigned long long)(file->bytes + bytes));
    }
    file->bytes += bytes;
    wal->bytes_total += bytes;
    wal->relog_wanted = wal->relog_forced = !wal->relogging;
}

/* Opens a flush with room for a frame of `need` bytes, or begins a file. */
static void flush_open(struct wal *wal, uint64_t need)
{
    ASSERT(wal->open == NULL);
    uint64_t bytes = wal_align(WAL_FLUSH_HEADER + need, WAL_BLOCK);
    struct wal_file *file = wal_file_current(wal);
    if (wal->file_at + bytes > wal_file_limit(file)) {
        if (!wal->beginning && wal_file_switch(wal, bytes)) {
            return;
        }
        file_grow(wal, file, wal->file_at + bytes - wal_file_limit(file));
    }
    if (chunk_rest(wal) < bytes) {
        log_buffer_add(wal->buffer, bytes);
        wal->evict_due = true; /* the one before it may hold nothing */
    }
    struct log_chunk *chunk = wal->buffer->newest;
    uint32_t from = (uint32_t)wal_align(chunk->fill, WAL_BLOCK);
    struct wal_flush *flush = mem_zalloc(sizeof *flush);
    log_chunk_ref(chunk);
    flush->chunk = chunk;
    flush->data = chunk->data + from;
    flush->length = WAL_FLUSH_HEADER;
    flush->position = wal->next_position;
    flush->file = file;
    flush->file_offset = wal->file_at;
    chunk->fill = from + WAL_FLUSH_HEADER;
    wal->open = flush;
}

static uint8_t *copy_payload(uint8_t *to, const struct iovec *iov, int n)
{
    for (int k = 0; k < n; k++) {
        if (iov[k].iov_len > 0) {
            memcpy(to, iov[k].iov_base, iov[k].iov_len);
            to += iov[k].iov_len;
        }
    }
    return to;
}

uint8_t *wal_append_frame(struct wal *wal, const struct wal_frame *frame,
                          const struct iovec *payload, int n_payload,
                          struct log_chunk **chunk)
{
    uint64_t need = wal_frame_bytes(frame->size);
    ASSERT(!wal->closing);
    while (wal->open == NULL || !flush_fits(wal->open, need)) {
        if (wal->open != NULL) {
            flush_seal(wal);
        }
        flush_open(wal, need);
    }
    struct wal_flush *flush = wal->open;
    uint8_t *out = flush->data + flush->length;
    const uint8_t *end =
        copy_payload(out + WAL_FRAME_HEADER, payload, n_payload);
    ASSERT(end == out + WAL_FRAME_HEADER + frame->size);
    struct wal_frame copy = *frame;
    copy.payload_crc = crc32c(0, out + WAL_FRAME_HEADER, frame->size);
    wal_frame_write(out, &copy, flush->file->generation, wal->next_position);
    wal->next_position++;
    flush->crc = crc32c(flush->crc, out, need);
    uint32_t from = flush->chunk->fill;
    flush->length += (uint32_t)need;
    flush->n_frames++;
    flush->chunk->fill += (uint32_t)need;
    uint64_t generation =
        wal->relogging ? LOG_RUN_COPIES : flush->file->generation;
    log_chunk_run(flush->chunk, from, generation)->to = flush->chunk->fill;
    if (chunk != NULL) {
        *chunk = flush->chunk;
    }
    wal_turn_defer(wal);
    return out;
}

/* ---- appending ----------------------------------------------------------- */
uint64_t wal_append_entry(struct wal *wal, const struct group_id *group,
                          log_index index, raft_term_t term,
                          enum entry_type type, const struct iovec *payload,
                          int n_payload, struct wal_place *out)
{
    size_t size = 0;
    for (int k = 0; k < n_payload; k++) {
        size += payload[k].iov_len;
    }
    ASSERT(size <= wal->entry_bytes_max);
    ASSERT(index.v > 0 && term.v > 0);
    struct wal_frame frame = {.type = WAL_FRAME_ENTRY,
                              .entry_type = (uint8_t)type,
                              .group = *group,
                              .size = (uint32_t)size,
                              .index = index.v,
                              .term = term.v};
    struct log_chunk *chunk;
    const uint8_t *at =
        wal_append_frame(wal, &frame, payload, n_payload, &chunk);
    reserved_take(wal, size, 1);
    wal_pin(wal_group_get(wal, group), chunk, wal_file_current(wal), index);
    if (out != NULL) {
        log_chunk_ref(chunk);
        *out =
            (struct wal_place){.payload = at + WAL_FRAME_HEADER,
                               .size = frame.size,
                               .crc = le_get32(at + WAL_FRAME_AT_PAYLOAD_CRC),
                               .chunk = chunk,
                               .position = wal->next_position - 1};
    }
    return wal->next_position - 1;
}

static uint64_t append_simple(struct wal *wal, struct wal_frame frame,
                              const void *payload)
{
    union {
        const void *in;
        void *out;
    } p = {payload};
    struct iovec iov = {p.out, frame.size};
    wal_append_frame(wal, &frame, &iov, 1, NULL);
    return wal->next_position - 1;
}

uint64_t wal_append_truncate(struct wal *wal, const struct group_id *group,
                             log_index first)
{
    uint64_t position = append_simple(
        wal,
        (struct wal_frame){
            .type = WAL_FRAME_TRUNCATE, .group = *group, .index = first.v},
        NULL);
    struct wal_group *known = wal_group_find(wal, group);
    if (known != NULL) {
        ASSERT(first.v > known->settled.v);
        wal_group_truncate(wal, known, first);
    }
    return position;
}

uint64_t wal_append_term(struct wal *wal, const struct group_id *group,
                         raft_term_t term, replica_id vote)
{
    return append_simple(wal,
                         (struct wal_frame){.type = WAL_FRAME_TERM,
                                            .group = *group,
                                            .index = vote,
                                            .term = term.v},
                         NULL);
}

uint64_t wal_append_create(struct wal *wal,
                           const struct group_creation *creation)
{
    uint8_t bytes[WAL_CREATE_BYTES_MAX];
    ASSERT(creation->n_replicas >= 0 &&
           creation->n_replicas <= GROUP_REPLICAS_MAX);
    return append_simple(
        wal,
        (struct wal_frame){.type = WAL_FRAME_CREATE,
                           .group = creation->id,
                           .size = wal_create_encode(creation, bytes)},
        bytes);
}

uint64_t wal_append_delete(struct wal *wal, const struct group_id *group)
{
    uint64_t position = append_simple(
        wal, (struct wal_frame){.type = WAL_FRAME_DELETE, .group = *group},
        NULL);
    struct wal_group *known = wal_group_find(wal, group);
    if (known != NULL) {
        wal_group_forget(wal, known);
    }
    return position;
}

uint64_t wal_append_config(struct wal *wal, const struct group_id *group,
                           log_index index, raft_term_t term,
                           const void *config, uint32_t size)
{
    return append_simple(wal,
                         (struct wal_frame){.type = WAL_FRAME_CONFIG,
                                            .group = *group,
                                            .size = size,
                                            .index = index.v,
                                            .term = term.v},
                         config);
}

void wal_place_drop(struct wal_place *place)
{
    if (place->chunk != NULL) {
        log_chunk_unref(place->chunk);
        place->chunk = NULL;
    }
}

/* ---- writing ------------------------------------------------------------- */
/* The header is complete once it is known what durable files may say. */
static struct wal_flush_header flush_header(struct wal *wal,
                                            struct wal_flush *flush)
{
    if (wal->oldest_wanted > wal->oldest && wal->durable >= wal->oldest_after) {
        wal->oldest = wal->oldest_wanted;
        wal->checkpoint = wal->checkpoint_wanted;
    }
    flush->oldest = wal->oldest;
    return (struct wal_flush_header){.log_id = wal->log_id,
                                     .generation = flush->file->generation,
                                     .oldest = wal->oldest,
                                     .checkpoint = wal->checkpoint,
                                     .position = flush->position,
                                     .prev_position = wal->prev_position,
                                     .prev_crc = wal->prev_crc,
                                     .n_frames = flush->n_frames,
                                     .length = flush->length};
}

/* On the log's thread, or blocking while the log opens. */
static enum err flush_write(const struct wal_flush *flush)
{
    struct iovec iov = {flush->data, flush->length};
    return env_file_pwritev(flush->file->file, &iov, 1, flush->file_offset,
                            true);
}

static void flush_run(struct env_work *work)
{
    struct wal *wal = work->arg;
    const struct wal_flush *flush = wal->queue;
    /* Reading a large one again on this core costs more than joining. */
    wal->work_crc =
        flush->chunk == NULL || flush->length < JOIN_BYTES
            ? wal_flush_seal(flush->data, &wal->work_header)
            : wal_flush_seal_known(flush->data, &wal->work_header, flush->crc);
    wal->work_status = flush_write(wal->queue);
}

static void flush_done(struct env_work *work);

static void flush_submit(struct wal *wal)
{
    struct wal_flush *flush = wal->queue;
    if (wal->in_flight || flush == NULL ||
        env_timer_running(&wal->space_timer)) {
        return;
    }
    wal->work_header = flush_header(wal, flush);
    wal->in_flight = true;
    env_timer_stop(&wal->attest_timer);
    wal->work = (struct env_work){
        .run = flush_run, .done = flush_done, .arg = wal, .env = wal->env};
    env_work_submit(wal->env, ENV_POOL_LOG, &wal->work);
}

/* The flush is on stable storage. */
static void flush_retire(struct wal *wal)
{
    struct wal_flush *flush = wal->queue;
    wal->queue = flush->next;
    if (wal->queue == NULL) {
        wal->queue_end = &wal->queue;
    }
    wal->n_flushes++;
    wal->bytes_written += flush->length;
    wal->durable = flush->position + flush->n_frames - 1;
    wal->attested = flush->chunk == NULL;
    wal->oldest_durable = flush->oldest;
    wal_files_free_below(wal, flush->oldest);
    if (flush->chunk != NULL) {
        log_chunk_unref(flush->chunk);
    }
    mem_free(flush);
}

static void space_due(struct env_timer *timer)
{
    flush_submit(timer->arg);
}

/* Nobody was told of what is queued: as if the process had died before. */
static void queue_drop(struct wal *wal)
{
    while (wal->queue != NULL) {
        struct wal_flush *flush = wal->queue;
        wal->queue = flush->next;
        if (flush->chunk != NULL) {
            log_chunk_unref(flush->chunk);
        }
        mem_free(flush);
    }
    wal->queue_end = &wal->queue;
    wal->attested = true;
}

/* The file had grown and the device is full. The flush goes to the same place
 * again until it fits; what comes meanwhile gathers behind it, and nothing of
 * it is told to be durable. */
static void flush_waits(struct wal *wal)
{
    if (!wal->no_space) {
        log_error(
            "wal",
            "no space on the device for log file %s/wal-%08u.log: nothing "
            "is logged until there is some",
            wal->dir, wal->queue->file->number);
    }
    wal->no_space = true;
    if (wal->closing) {
        wal_open_end(wal);
        queue_drop(wal);
        env_defer(wal->env, &wal->close_step);
    } else {
        env_timer_start(&wal->space_timer, SPACE_AGAIN_MS);
    }
}

static void flush_done(struct env_work *work)
{
    struct wal *wal = work->arg;
    if (wal->work_status == ERR_NOSPACE) {
        wal->in_flight = false;
        flush_waits(wal);
        return;
    }
    if (wal->no_space) {
        wal->no_space = false;
        log_info("wal", "there is space for log files again");
        wal_room_changed(wal);
    }
    if (wal->work_status != ERR_OK) {
        env_fatal(wal->env, "cannot write log file %s/wal-%08u.log at %llu: %s",
                  wal->dir, wal->queue->file->number,
                  (unsigned long long)wal->queue->file_offset,
                  err_text(wal->work_status));
    }
    wal->in_flight = false;
    wal->prev_crc = wal->work_crc;
    wal->prev_position = wal->queue->position;
    flush_retire(wal);
    wal_flush(wal); /* the disk shall not wait for the callback below */
    if (!wal->in_flight && !wal->attested && !wal->closing) {
        env_timer_start(&wal->attest_timer, LIMIT_WAL_ATTEST_MS);
    }
    wal->ops.durable(wal->arg, wal->durable);
    wal_turn_defer(wal);
    if (wal->closing) {
        env_defer(wal->env, &wal->close_step);
    }
}

void wal_flush(struct wal *wal)
{
    if (wal->in_flight) {
        return;
    }
    if (wal->queue == NULL && wal->open != NULL) {
        flush_seal(wal);
    }
    flush_submit(wal);
}

/* ---- attestation --------------------------------------------------------- */
static bool is_idle(const struct wal *wal)
{
    return !wal->in_flight && wal->queue == NULL && wal->open == NULL;
}

/* Queues a flush that names the last one; the log is idle. */
static void attest_queue(struct wal *wal)
{
    ASSERT(is_idle(wal));
    struct wal_file *file = wal_file_current(wal);
    if (wal->file_at + WAL_BLOCK > file->bytes) {
        file_grow(wal, file, WAL_BLOCK);
    }
    memset(wal->attest_block, 0, WAL_BLOCK);
    struct wal_frame frame = {.type = WAL_FRAME_ATTEST,
                              .index = wal->prev_position,
                              .term = wal->prev_crc,
                              .payload_crc = crc32c(0, "", 0)};
    wal_frame_write(wal->attest_block + WAL_FLUSH_HEADER, &frame,
                    file->generation, wal->next_position);
    struct wal_flush *flush = mem_zalloc(sizeof *flush);
    flush->data = wal->attest_block;
    flush->length = WAL_BLOCK;
    flush->n_frames = 1;
    flush->position = wal->next_position++;
    flush->file = file;
    flush->file_offset = wal->file_at;
    wal->file_at += WAL_BLOCK;
    *wal->queue_end = flush;
    wal->queue_end = &flush->next;
}

static void attest_due(struct env_timer *timer)
{
    struct wal *wal = timer->arg;
    if (is_idle(wal) && !wal->attested && !wal->closing) {
        attest_queue(wal);
        flush_submit(wal);
    }
}

enum err wal_attest_blocking(struct wal *wal)
{
    attest_queue(wal);
    struct wal_flush *flush = wal->queue;
    struct wal_flush_header header = flush_header(wal, flush);
    wal->prev_crc = wal_flush_seal(flush->data, &header);
    wal->prev_position = flush->position;
    enum err e = flush_write(flush);
    flush_retire(wal);
    return e;
}

/* ---- the end of a turn --------------------------------------------------- */
void wal_turn_defer(struct wal *wal)
{
    if (!wal->closing) {
        env_defer(wal->env, &wal->turn);
    }
}

/* Asks for the oldest file when half of them are in use, or a writer waits. */
static void ask_settled(struct wal *wal)
{
    uint32_t half = wal->files_max / 2 > 2 ? wal->files_max / 2 : 2;
    if (wal->n_used < 2 || (wal->n_used < half && !wal->over_asked)) {
        return;
    }
    struct wal_file *oldest = wal->used[0];
    uint64_t now = env_now_ms(wal->env);
    if (wal->asked_generation == oldest->generation &&
        now < wal->asked_ms + ASK_AGAIN_MS) {
        return;
    }
    wal->asked_generation = oldest->generation;
    wal->asked_ms = now;
    wal->over_asked = false;
    for (uint32_t k = oldest->pins.done; k < oldest->pins.n; k++) {
        struct wal_pin pin = oldest->pins.v[k];
        if (pin.group != NULL && pin.group->settled.v < pin.upto.v) {
            struct group_id id = pin.group->id;
            wal->ops.wants_settled(wal->arg, &id, pin.upto);
        }
    }
}

static void turn_end(struct env_deferred *d)
{
    struct wal *wal = d->arg;
    if (wal->closing) {
        return;
    }
    wal_files_retire(wal);
    ask_settled(wal);
    if (wal->relog_wanted) {
        wal->relog_wanted = false;
        wal_relog(wal);
        wal->relog_forced = false;
        wal_files_retire(wal);
    }
    wal_fill_maybe(wal);
    if (wal->buffer_full &&
        env_now_ms(wal->env) >= wal->moved_ms + EVICT_AGAIN_MS) {
        wal->buffer_full = false;
        wal->moved_ms = env_now_ms(wal->env);
        env_timer_start(&wal->room_timer, EVICT_AGAIN_MS);
        wal_move(wal);
    }
    while (wal->buffer->bytes_live > wal->buffer_bytes_low && evict_one(wal)) {
    }
    wal_flush(wal);
    if (is_idle(wal) && wal->oldest_wanted > wal->oldest) {
        attest_queue(wal); /* says that files are free */
        flush_submit(wal);
    }
    if (wal->room_wanted && wal->room_changed) {
        wal->room_wanted = false;
        wal->room_changed = false;
        wal->ops.room(wal->arg);
    }
}

/* ---- what the owner tells ------------------------------------------------ */
void wal_checkpointed(struct wal *wal, uint64_t seq)
{
    ASSERT(seq >= wal->checkpoint_seq);
    wal->checkpoint_seq = seq;
}

void wal_relies_on(struct wal *wal, uint64_t seq)
{
    ASSERT(wal->is_new);
    wal->checkpoint_seq = wal->checkpoint_wanted = wal->checkpoint = seq;
}

void wal_settled(struct wal *wal, const struct group_id *group, log_index index)
{
    struct wal_group *known = wal_group_find(wal, group);
    if (known == NULL || index.v <= known->settled.v) {
        return;
    }
    known->settled = index;
    wal->evict_due = true;
    wal_turn_defer(wal);
    wal_room_changed(wal);
}

void wal_unsettled(struct wal *wal, const struct group_id *group)
{
    struct wal_group *known = wal_group_find(wal, group);
    append_simple(wal,
                  (struct wal_frame){
                      .type = WAL_FRAME_TRUNCATE, .group = *group, .index = 1},
                  NULL);
    if (known != NULL) {
        known->settled.v = 1;
        wal_group_truncate(wal, known, (log_index){1});
    }
}

uint64_t wal_position(const struct wal *wal)
{
    return wal->next_position - 1;
}

uint64_t wal_durable_position(const struct wal *wal)
{
    return wal->durable;
}

bool wal_waits_for_space(const struct wal *wal)
{
    return wal->no_space;
}

uint64_t wal_log_id(const struct wal *wal)
{
    return wal->log_id;
}

bool wal_is_new(const struct wal *wal)
{
    return wal->is_new;
}

bool wal_was_whole(const struct wal *wal)
{
    return !wal->lacks;
}

uint64_t wal_buffer_bytes_max(const struct wal *wal)
{
    return wal->options.buffer_bytes_max;
}

uint32_t wal_entry_bytes_max(const struct wal *wal)
{
    return wal->entry_bytes_max;
}

void wal_stats(const struct wal *wal, struct wal_stats *out)
{
    *out = (struct wal_stats){.flushes = wal->n_flushes,
                              .bytes_written = wal->bytes_written,
                              .bytes_buffered = wal->buffer->bytes_live,
                              .files = wal->n_files,
                              .file_bytes = wal->bytes_total,
                              .files_begun = wal->files_begun,
                              .bytes_relogged = wal->bytes_relogged,
                              .entries_moved = wal->entries_moved};
}

/* ---- opening and closing ------------------------------------------------- */
static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Sizes that fit each other, whatever the owner asks for. */
static void sizes_settle(struct wal *wal)
{
    struct wal_options *o = &wal->options;
    uint64_t least = 8 * WAL_BLOCK;
    o->bytes_max = o->bytes_max < 4 * least ? 4 * least : o->bytes_max;
    o->file_bytes = min_u64(o->file_bytes, o->bytes_max / 4);
    o->file_bytes = o->file_bytes < least ? least : o->file_bytes;
    o->file_bytes -= o->file_bytes % WAL_BLOCK;
    o->buffer_bytes_max = min_u64(o->buffer_bytes_max, o->bytes_max / 4);
    o->buffer_bytes_max =
        o->buffer_bytes_max < least ? least : o->buffer_bytes_max;
    wal->files_max = (uint32_t)(o->bytes_max / o->file_bytes);
    uint64_t entry = min_u64(o->file_bytes / 4, o->buffer_bytes_max / 4);
    wal->entry_bytes_max = (uint32_t)min_u64(entry, LIMIT_WAL_ENTRY_BYTES);
}

static struct wal *wal_new(const struct wal_options *options,
                           const struct wal_ops *ops, void *arg)
{
    struct wal *wal = mem_zalloc(sizeof *wal);
    wal->env = options->env;
    wal->options = *options;
    wal->ops = *ops;
    wal->arg = arg;
    int n = snprintf(wal->dir, sizeof wal->dir, "%s", options->dir);
    ASSERT(n > 0 && (size_t)n < sizeof wal->dir - 32);
    wal->options.dir = wal->dir;
    sizes_settle(wal);
    uint64_t chunk =
        min_u64(LIMIT_LOG_CHUNK_BYTES, wal->options.buffer_bytes_max / 8);
    chunk = chunk < 2 * WAL_BLOCK ? 2 * WAL_BLOCK : chunk;
    chunk -= chunk % WAL_BLOCK;
    wal->buffer_bytes_low =
        min_u64(wal->options.buffer_bytes_max, LIMIT_LOG_BUFFER_LOW);
    wal->buffer = log_buffer_new((uint32_t)chunk, chunk_released, wal);
    wal->queue_end = &wal->queue;
    wal->evict_due = true;
    wal->attest_block = mem_alloc_aligned(WAL_BLOCK, WAL_BLOCK);
    wal->turn = (struct env_deferred){.cb = turn_end, .arg = wal};
    wal->close_step = (struct env_deferred){.cb = close_step_due, .arg = wal};
    env_timer_init(wal->env, &wal->attest_timer, attest_due, wal);
    env_timer_init(wal->env, &wal->fill_timer, wal_fill_again, wal);
    env_timer_init(wal->env, &wal->room_timer, room_due, wal);
    env_timer_init(wal->env, &wal->trim_timer, trim_due, wal);
    env_timer_init(wal->env, &wal->space_timer, space_due, wal);
    return wal;
}

enum err wal_open(const struct wal_options *options, const struct wal_ops *ops,
                  void *arg, wal_settled_fn settled, struct wal **out)
{
    struct wal *wal = wal_new(options, ops, arg);
    enum err e = wal_recover(wal, settled);
    if (e == ERR_OK) {
        /* Names the last flush found, so that what was read is durable and
         * what was discarded never comes back. */
        e = wal_attest_blocking(wal);
        if (e != ERR_OK) {
            log_error("wal", "cannot write the log in %s: %s", wal->dir,
                      err_text(e));
        }
    }
    if (e != ERR_OK) {
        wal_free(wal);
        return e;
    }
    *out = wal;
    return ERR_OK;
}

struct wal_recovered_group *wal_recovered(struct wal *wal, size_t *n)
{
    struct wal_recovered_group *groups = wal->recovered;
    *n = wal->n_recovered;
    wal->recovered = NULL;
    wal->n_recovered = 0;
    return groups;
}

void wal_recovered_free(struct wal_recovered_group *groups, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        for (uint64_t i = 0; i < groups[k].n_entries; i++) {
            wal_place_drop(&groups[k].entries[i].place);
        }
        mem_free(groups[k].entries);
        mem_free(groups[k].config);
    }
    mem_free(groups);
}

void wal_free(struct wal *wal)
{
    struct wal_group *group, *next;
    env_timer_stop(&wal->attest_timer);
    env_timer_stop(&wal->fill_timer);
    env_timer_stop(&wal->room_timer);
    env_timer_stop(&wal->trim_timer);
    env_timer_stop(&wal->space_timer);
    wal_recovered_free(wal->recovered, wal->n_recovered);
    wal->closing = true;
    log_buffer_close(wal->buffer);
    wal_files_close(wal);
    HASH_ITER(hh, wal->groups, group, next)
    {
        HASH_DEL(wal->groups, group);
        mem_free(group);
    }
    mem_free_aligned(wal->attest_block);
    mem_free(wal);
}

/* Goes on with closing whenever something ended. */
static void close_step_due(struct env_deferred *d)
{
    struct wal *wal = d->arg;
    if (wal->open != NULL && wal->queue == NULL) {
        flush_seal(wal);
    }
    flush_submit(wal);
    if (!is_idle(wal) || wal->fill != NULL) {
        return;
    }
    if (!wal->attested) {
        attest_queue(wal);
        flush_submit(wal);
        return;
    }
    void (*closed)(void *arg) = wal->closed;
    void *arg = wal->closed_arg;
    wal_free(wal);
    closed(arg);
}

void wal_close_step(struct wal *wal)
{
    env_defer(wal->env, &wal->close_step);
}

void wal_close(struct wal *wal, void (*closed)(void *arg), void *arg)
{
    ASSERT(!wal->closing);
    wal->closing = true;
    wal->closed = closed;
    wal->closed_arg = arg;
    env_timer_stop(&wal->attest_timer);
    env_timer_stop(&wal->fill_timer);
    env_timer_stop(&wal->room_timer);
    env_timer_stop(&wal->trim_timer);
    env_timer_stop(&wal->space_timer);
    wal_close_step(wal);
}
