#include "raft/wal_replay.h"

#include <stdio.h>

#include "base/assert.h"
#include "base/types.h"

/* ---- groups -------------------------------------------------------------- */
static struct replay_group *group_get(struct replay *replay,
                                      const struct group_id *id)
{
    struct replay_group *group = NULL;
    HASH_FIND(hh, replay->groups, id, sizeof *id, group);
    if (group != NULL) {
        return group;
    }
    group = mem_zalloc(sizeof *group);
    group->id = *id;
    if (replay->settled != NULL) {
        group->checkpoint_settled =
            replay->settled(replay->wal->arg, id, &group->checkpoint_self);
    }
    group->settled = group->checkpoint_settled;
    HASH_ADD(hh, replay->groups, id, sizeof group->id, group);
    return group;
}

static enum err corrupt(struct replay *replay, const struct replay_group *group,
                        const char *what, uint64_t index)
{
    char text[UUID_TEXT_SIZE];
    uuid_format(&group->id.topic, text);
    snprintf(replay->why, sizeof replay->why, "group %s-%d: %s %llu", text,
             (int)group->id.partition, what, (unsigned long long)index);
    return ERR_CORRUPT;
}

/* ---- configurations ------------------------------------------------------ */
static void configs_drop(struct replay_group *group, uint64_t first)
{
    while (group->n_configs > 0 &&
           group->configs[group->n_configs - 1].index >= first) {
        mem_free(group->configs[--group->n_configs].bytes);
    }
}

static void configs_note(struct replay_group *group,
                         const struct wal_frame *frame)
{
    configs_drop(group, frame->index);
    size_t n = group->n_configs + (size_t)1;
    group->configs = mem_realloc(group->configs, n * sizeof *group->configs);
    struct replay_config *config = &group->configs[group->n_configs++];
    config->index = frame->index;
    config->size = frame->size;
    config->bytes = mem_alloc(frame->size);
    memcpy(config->bytes, frame->payload, frame->size);
}

/* ---- entries ------------------------------------------------------------- */
static struct wal_recovered_entry *slot_of(struct replay_group *group,
                                           uint64_t index)
{
    ASSERT(index >= group->base && index - group->base < group->capacity);
    return &group->entries[index - group->base];
}

static bool is_empty(const struct replay_group *group)
{
    return group->last < group->base || group->base == 0;
}

/* Makes a slot for `index`. False: more than the files can hold. */
static bool slots_reserve(struct replay *replay, struct replay_group *group,
                          uint64_t index)
{
    bool empty = is_empty(group);
    uint64_t base = empty || index < group->base ? index : group->base;
    uint64_t last = empty || index > group->last ? index : group->last;
    uint64_t n = last - base + 1;
    if (n > replay->entries_max) {
        return false;
    }
    if (n > group->capacity) {
        uint64_t capacity = group->capacity * 2 > n ? group->capacity * 2 : n;
        group->entries =
            mem_realloc(group->entries, capacity * sizeof *group->entries);
        memset(group->entries + group->capacity, 0,
               (capacity - group->capacity) * sizeof *group->entries);
        group->capacity = capacity;
    }
    if (!empty && base < group->base) {
        uint64_t shift = group->base - base;
        uint64_t held = group->last - group->base + 1;
        memmove(group->entries + shift, group->entries,
                held * sizeof *group->entries);
        memset(group->entries, 0, shift * sizeof *group->entries);
    }
    group->base = base;
    group->last = last;
    return true;
}

/* Drops entries from `first` on. */
static void entries_drop(struct replay_group *group, uint64_t first)
{
    if (is_empty(group)) {
        return;
    }
    for (uint64_t i = group->last; i >= first && i >= group->base; i--) {
        struct wal_recovered_entry *slot = slot_of(group, i);
        wal_place_drop(&slot->place);
        memset(slot, 0, sizeof *slot);
        group->last = i - 1;
    }
}

/* Copies a frame into the log buffer. */
static uint8_t *frame_keep(struct replay *replay, const struct wal_file *file,
                           const uint8_t *bytes, uint64_t length,
                           struct log_chunk **out)
{
    struct log_buffer *buffer = replay->wal->buffer;
    struct log_chunk *chunk = buffer->newest;
    if (chunk == NULL || chunk->size - chunk->fill < length) {
        chunk = log_buffer_add(buffer, length);
    }
    uint32_t from = chunk->fill;
    memcpy(chunk->data + from, bytes, length);
    chunk->fill += (uint32_t)length;
    log_chunk_run(chunk, from, file->generation)->to = chunk->fill;
    *out = chunk;
    return chunk->data + from;
}

static void replay_cut(struct replay *replay, struct replay_group *group,
                       uint64_t first);

static enum err replay_entry(struct replay *replay, struct replay_group *group,
                             struct wal_file *file,
                             const struct wal_frame *frame,
                             const uint8_t *bytes, uint64_t position)
{
    if (frame->index == 0 || frame->term == 0) {
        return corrupt(replay, group, "an entry without index or term", 0);
    }
    if (frame->entry_type == ENTRY_CONFIG) {
        configs_note(group, frame);
    }
    if (frame->index <= group->settled.v) {
        return ERR_OK;
    }
    if (!slots_reserve(replay, group, frame->index)) {
        return corrupt(replay, group, "entries are missing before",
                       frame->index);
    }
    struct wal_group *pinned = wal_group_get(replay->wal, &group->id);
    pinned->settled = group->settled;
    struct wal_recovered_entry *slot = slot_of(group, frame->index);
    if (slot->index.v != 0) {
        if (slot->term.v < frame->term && replay->damaged) {
            /* the record of the truncation is among what is damaged */
            replay_cut(replay, group, frame->index);
            return replay_entry(replay, group, file, frame, bytes, position);
        }
        if (slot->term.v != frame->term) {
            return corrupt(replay, group,
                           "two terms without a truncation at index",
                           frame->index);
        }
        wal_pin(pinned, NULL, file, slot->index);
        return ERR_OK;
    }
    struct log_chunk *chunk;
    const uint8_t *kept =
        frame_keep(replay, file, bytes, wal_frame_bytes(frame->size), &chunk);
    log_chunk_ref(chunk);
    *slot = (struct wal_recovered_entry){
        .index = {frame->index},
        .term = {frame->term},
        .type = (enum entry_type)frame->entry_type,
        .place = {.payload = kept + WAL_FRAME_HEADER,
                  .size = frame->size,
                  .crc = frame->payload_crc,
                  .chunk = chunk,
                  .position = position}};
    wal_pin(pinned, chunk, file, slot->index);
    return ERR_OK;
}

/* ---- the other frames ---------------------------------------------------- */
/* Entries from `first` on are gone; 0: the group is. */
static void replay_cut(struct replay *replay, struct replay_group *group,
                       uint64_t first)
{
    configs_drop(group, first);
    entries_drop(group, first);
    if (group->faulty_index >= first) {
        group->faulty_index = group->faulty_term = 0;
    }
    struct wal_group *pinned = wal_group_find(replay->wal, &group->id);
    if (pinned != NULL && first == 0) {
        wal_group_forget(replay->wal, pinned);
    } else if (pinned != NULL) {
        wal_group_truncate(replay->wal, pinned, (log_index){first});
    }
}

static enum err replay_term(struct replay *replay, struct replay_group *group,
                            const struct wal_frame *frame)
{
    if (frame->term < group->term.v) {
        return corrupt(replay, group, "the term goes back to", frame->term);
    }
    if (frame->term == group->term.v && group->vote != 0) {
        if (frame->index != 0 && frame->index != group->vote) {
            return corrupt(replay, group, "two votes in term", frame->term);
        }
        return ERR_OK;
    }
    group->term.v = frame->term;
    group->vote = frame->index;
    return ERR_OK;
}

static enum err replay_create(struct replay *replay, struct replay_group *group,
                              const struct wal_frame *frame)
{
    struct group_creation creation = {.id = group->id};
    if (!wal_create_decode(frame->payload, frame->size, &creation)) {
        return corrupt(replay, group, "a malformed creation of size",
                       frame->size);
    }
    bool other = group->deleted ||
                 (group->created && group->creation.self != creation.self);
    if (other) {
        replay_cut(replay, group, 0);
        group->term.v = 0;
        group->vote = 0;
    }
    bool same = group->checkpoint_self == creation.self ||
                (group->checkpoint_self == 0 && !other);
    log_index settled = {same ? group->checkpoint_settled.v : 0};
    if (settled.v == 0) {
        settled.v = 1; /* entry 1 is the creation itself */
    }
    if (settled.v > group->settled.v && !is_empty(group)) {
        /* The creation comes before any entry, see wal.h. */
        return corrupt(replay, group, "an entry before the creation",
                       group->last);
    }
    group->settled = settled;
    group->created = true;
    group->deleted = false;
    group->creation = creation;
    return ERR_OK;
}

/* The log reached this far. */
static void lost_note(struct replay_group *group, uint64_t term, uint64_t index)
{
    if (term > group->lost_term ||
        (term == group->lost_term && index > group->lost_index)) {
        group->lost_term = term;
        group->lost_index = index;
    }
}

enum err replay_frame(struct replay *replay, struct wal_file *file,
                      const struct wal_frame *frame, const uint8_t *bytes,
                      uint64_t position)
{
    if (frame->type == WAL_FRAME_ATTEST) {
        return ERR_OK;
    }
    struct replay_group *group = group_get(replay, &frame->group);
    switch (frame->type) {
        case WAL_FRAME_ENTRY:
            return replay_entry(replay, group, file, frame, bytes, position);
        case WAL_FRAME_TRUNCATE:
            replay_cut(replay, group, frame->index);
            if (frame->index == 1 &&
                position > replay->wal->options.expect.position) {
                lost_note(group, group->term.v, UINT64_MAX);
            }
            return ERR_OK;
        case WAL_FRAME_TERM:
            group->heard = position;
            return replay_term(replay, group, frame);
        case WAL_FRAME_CREATE:
            return replay_create(replay, group, frame);
        case WAL_FRAME_DELETE:
            replay_cut(replay, group, 0);
            group->deleted = true;
            group->created = false;
            return ERR_OK;
        case WAL_FRAME_CONFIG:
            configs_note(group, frame);
            return ERR_OK;
        case WAL_FRAME_ATTEST:
            return ERR_OK;
    }
    return corrupt(replay, group, "unknown frame type", frame->type);
}

/* Of the creation only the group's id is left, no more is gone. Whether it can
 * do without is seen in the end. */
static void creation_lose(struct replay *replay, struct replay_group *group,
                          uint64_t position)
{
    if (group->deleted) { /* it is a later replica's */
        replay_cut(replay, group, 0);
        group->term.v = 0;
        group->vote = 0;
        group->settled.v = 0;
        group->deleted = false;
        group->checkpoint_self = 0;
    } else if (group->checkpoint_self != 0) {
        replay->unknown++;
        replay->unknown_position = position;
    }
}

enum err replay_faulty(struct replay *replay, struct wal_file *file,
                       const struct wal_frame *frame, uint64_t position)
{
    struct replay_group *group = group_get(replay, &frame->group);
    if (frame->type == WAL_FRAME_CREATE && !group->created) {
        creation_lose(replay, group, position);
        return ERR_OK;
    }
    if (frame->type != WAL_FRAME_ENTRY) {
        /* A creation or a configuration: repeated at each file's beginning,
         * and in the checkpoint. */
        replay->unknown++;
        return ERR_OK;
    }
    if (frame->index <= group->settled.v) {
        return ERR_OK;
    }
    if (!is_empty(group) && frame->index <= group->last &&
        frame->index >= group->base &&
        slot_of(group, frame->index)->term.v == frame->term) {
        return ERR_OK; /* it was logged again: held already */
    }
    if (frame->term > group->faulty_term ||
        (frame->term == group->faulty_term &&
         frame->index > group->faulty_index)) {
        group->faulty_term = frame->term;
        group->faulty_index = frame->index;
    }
    struct wal_group *pinned = wal_group_get(replay->wal, &group->id);
    pinned->settled = group->settled;
    wal_pin(pinned, NULL, file, (log_index){frame->index});
    return ERR_OK;
}

/* ---- the end ------------------------------------------------------------- */
/* Entries from `first` on cannot be used: one is missing there. Their files
 * stay pinned. */
static void entries_lose(struct replay_group *group, uint64_t first)
{
    const struct wal_recovered_entry *last = slot_of(group, group->last);
    if (last->index.v != 0) {
        lost_note(group, last->term.v, group->last);
    } else {
        lost_note(group, group->term.v, UINT64_MAX);
    }
    entries_drop(group, first);
}

/* Without a creation, but with every vote that it gave? */
static bool is_unmade(const struct replay *replay,
                      const struct replay_group *group)
{
    return !group->created && !group->deleted && group->checkpoint_self == 0 &&
           replay->unknown_position <= group->heard;
}

static enum err group_check(struct replay *replay, struct replay_group *group)
{
    uint64_t term = 0, known = replay->wal->options.expect.position;
    group->unmade = is_unmade(replay, group);
    if (group->unmade) {
        group->settled.v = 1; /* entry 1 is the creation itself */
    }
    if ((group->created || group->unmade) && replay->unknown > 0) {
        lost_note(group, group->term.v, UINT64_MAX);
    }
    if (group->created && replay->unknown_position > known &&
        replay->unknown_position > group->heard) {
        return corrupt(replay, group,
                       "a term or a vote may be lost at position",
                       replay->unknown_position);
    }
    /* Damage now, or at an earlier start that went on behind it. */
    bool holes = replay->damaged || replay->wal->options.expect.unproven;
    bool filled = !is_empty(group) && group->faulty_index <= group->last &&
                  group->faulty_index >= group->base &&
                  slot_of(group, group->faulty_index)->index.v != 0;
    if (group->faulty_index > group->settled.v && !filled) {
        lost_note(group, group->faulty_term, group->faulty_index);
    }
    if (is_empty(group)) {
        return ERR_OK;
    }
    if (group->base != group->settled.v + 1) {
        if (holes) {
            entries_lose(group, group->base);
            return ERR_OK;
        }
        return corrupt(replay, group, "missing entry", group->settled.v + 1);
    }
    for (uint64_t i = group->base; i <= group->last; i++) {
        const struct wal_recovered_entry *slot = slot_of(group, i);
        if (slot->index.v == 0 && holes) {
            entries_lose(group, i);
            return ERR_OK;
        }
        if (slot->index.v == 0) {
            return corrupt(replay, group, "missing entry", i);
        }
        if (slot->term.v < term) {
            return corrupt(replay, group, "the term goes back at entry", i);
        }
        term = slot->term.v;
    }
    return ERR_OK;
}

static void group_give(struct replay_group *group,
                       struct wal_recovered_group *out)
{
    uint64_t last = is_empty(group) || group->last < group->settled.v
                        ? group->settled.v
                        : group->last;
    *out = (struct wal_recovered_group){.id = group->id,
                                        .created = group->created,
                                        .deleted = group->deleted,
                                        .unmade = group->unmade,
                                        .creation = group->creation,
                                        .term = group->term,
                                        .vote = group->vote,
                                        .first = {group->settled.v + 1},
                                        .n_entries = last - group->settled.v,
                                        .entries = group->entries,
                                        .lost_term = {group->lost_term},
                                        .lost_index = group->lost_index};
    configs_drop(group, last + 1);
    if (group->n_configs > 0) {
        struct replay_config *newest = &group->configs[group->n_configs - 1];
        out->config_index.v = newest->index;
        out->config = newest->bytes;
        out->config_size = newest->size;
        newest->bytes = NULL;
    }
    group->entries = NULL;
    group->capacity = 0;
    group->base = 0;
}

enum err replay_finish(struct replay *replay)
{
    struct wal *wal = replay->wal;
    struct replay_group *group, *next;
    size_t n = HASH_COUNT(replay->groups), k = 0;
    HASH_ITER(hh, replay->groups, group, next)
    {
        enum err e = group_check(replay, group);
        if (e != ERR_OK) {
            return e;
        }
    }
    wal->lacks = replay->unknown_position > wal->options.expect.position;
    wal->recovered = mem_zalloc(n * sizeof *wal->recovered);
    wal->n_recovered = n;
    HASH_ITER(hh, replay->groups, group, next)
    {
        group_give(group, &wal->recovered[k++]);
    }
    return ERR_OK;
}

void replay_free(struct replay *replay)
{
    struct replay_group *group, *next;
    HASH_ITER(hh, replay->groups, group, next)
    {
        entries_drop(group, 0);
        configs_drop(group, 0);
        mem_free(group->entries);
        mem_free(group->configs);
        HASH_DEL(replay->groups, group);
        mem_free(group);
    }
}
