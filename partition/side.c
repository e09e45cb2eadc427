#include "partition/side.h"

#include "base/assert.h"
#include "base/crc32c.h"
#include "partition/bytes.h"

#define SIDE_MAGIC 0x46534944u
#define CRC_AT (SIDE_SLOT - 4)

_Static_assert(8 + SIDE_CONTINUATION_BYTES <= CRC_AT, "payload fits its slot");

static void slot_seal(uint8_t *slot)
{
    put_u32(slot + CRC_AT, crc32c(0, slot, CRC_AT));
}

static bool slot_is_whole(const uint8_t *slot)
{
    return get_u32(slot + CRC_AT) == crc32c(0, slot, CRC_AT);
}

void side_head_write(const struct side_head *head, uint8_t slot[SIDE_SLOT])
{
    memset(slot, 0, SIDE_SLOT);
    put_u32(slot, SIDE_MAGIC);
    put_u16(slot + 4,
            head->compaction == 0 ? SIDE_VERSION : SIDE_VERSION_COMPACTED);
    put_i64(slot + 8, head->base.v);
    put_u64(slot + 16, head->first.v);
    memcpy(slot + 24, head->group.topic.b, sizeof head->group.topic.b);
    put_i32(slot + 40, head->group.partition);
    put_u64(slot + 48, head->chain);
    put_u64(slot + 56, head->compaction);
    slot_seal(slot);
}

enum err side_head_read(const uint8_t slot[SIDE_SLOT], struct side_head *out)
{
    if (get_u32(slot) != SIDE_MAGIC || !slot_is_whole(slot)) {
        return ERR_CORRUPT;
    }
    if (get_u16(slot + 4) != SIDE_VERSION &&
        get_u16(slot + 4) != SIDE_VERSION_COMPACTED) {
        return ERR_UNSUPPORTED;
    }
    out->base.v = get_i64(slot + 8);
    out->first.v = get_u64(slot + 16);
    memcpy(out->group.topic.b, slot + 24, sizeof out->group.topic.b);
    out->group.partition = get_i32(slot + 40);
    out->chain = get_u64(slot + 48);
    out->compaction = get_u64(slot + 56);
    return ERR_OK;
}

void side_entry_write(const struct side_entry *e, uint8_t slot[SIDE_SLOT])
{
    memset(slot, 0, SIDE_SLOT);
    slot[0] = e->gone > 0 ? SIDE_GAP : SIDE_ENTRY;
    slot[1] = (uint8_t)e->type;
    put_u16(slot + 2, e->rewritten ? 1 : 0);
    put_u32(slot + 4, e->size);
    put_u64(slot + 8, e->index.v);
    put_u64(slot + 16, e->term.v);
    put_i64(slot + 24, e->base_offset.v);
    put_u64(slot + 32, e->position);
    put_u32(slot + 40, e->head_crc);
    put_u32(slot + 44, e->payload_crc);
    put_u64(slot + 48, e->chain);
    put_i64(slot + 56, e->producer_id);
    put_i16(slot + 64, e->producer_epoch);
    put_i16(slot + 66, e->attributes);
    put_i32(slot + 68, e->base_sequence);
    put_i32(slot + 72, e->last_offset_delta);
    put_i32(slot + 76, e->record_count);
    put_i64(slot + 80, e->max_timestamp);
    put_i64(slot + 88, e->running_max);
    if (e->gone > 0) {
        ASSERT(e->type == ENTRY_NOOP && e->size == 0);
        put_u64(slot + 56, e->gone);
    }
    slot_seal(slot);
}

enum err side_entry_read(const uint8_t slot[SIDE_SLOT], struct side_entry *out)
{
    bool gap = slot[0] == SIDE_GAP;
    if ((slot[0] != SIDE_ENTRY && !gap) || slot[1] < ENTRY_NOOP ||
        slot[1] > ENTRY_CONTROL || !slot_is_whole(slot)) {
        return ERR_CORRUPT;
    }
    out->gone = gap ? get_u64(slot + 56) : 0;
    if (gap && (slot[1] != ENTRY_NOOP || get_u32(slot + 4) != 0 ||
                out->gone == 0 || out->gone > get_u64(slot + 8))) {
        return ERR_CORRUPT;
    }
    out->type = (enum entry_type)slot[1];
    out->rewritten = get_u16(slot + 2) != 0;
    out->size = get_u32(slot + 4);
    out->index.v = get_u64(slot + 8);
    out->term.v = get_u64(slot + 16);
    out->base_offset.v = get_i64(slot + 24);
    out->position = get_u64(slot + 32);
    out->head_crc = get_u32(slot + 40);
    out->payload_crc = get_u32(slot + 44);
    out->chain = get_u64(slot + 48);
    out->producer_id = gap ? -1 : get_i64(slot + 56);
    out->producer_epoch = get_i16(slot + 64);
    out->attributes = get_i16(slot + 66);
    out->base_sequence = get_i32(slot + 68);
    out->last_offset_delta = get_i32(slot + 72);
    out->record_count = get_i32(slot + 76);
    out->max_timestamp = get_i64(slot + 80);
    out->running_max = get_i64(slot + 88);
    return ERR_OK;
}

void side_continuation_write(const uint8_t *bytes, uint32_t size, uint32_t back,
                             uint8_t slot[SIDE_SLOT])
{
    ASSERT(size <= SIDE_CONTINUATION_BYTES);
    memset(slot, 0, SIDE_SLOT);
    slot[0] = SIDE_CONTINUATION;
    put_u16(slot + 2, (uint16_t)size);
    put_u32(slot + 4, back);
    memcpy(slot + 8, bytes, size);
    slot_seal(slot);
}

enum err side_continuation_read(const uint8_t slot[SIDE_SLOT],
                                const uint8_t **bytes, uint32_t *size,
                                uint32_t *back)
{
    *size = get_u16(slot + 2);
    *back = get_u32(slot + 4);
    *bytes = slot + 8;
    if (slot[0] != SIDE_CONTINUATION || *size > SIDE_CONTINUATION_BYTES ||
        *back == 0 || !slot_is_whole(slot)) {
        return ERR_CORRUPT;
    }
    return ERR_OK;
}

/* A bijective mixer of 64 bits (the finaliser of splitmix64). */
static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

uint64_t side_chain(uint64_t chain, log_index index, raft_term_t term,
                    enum entry_type type, uint32_t size, uint32_t payload_crc)
{
    chain = mix(chain + index.v);
    chain = mix(chain ^ (term.v << 3) ^ (uint64_t)type);
    return mix(chain ^ ((uint64_t)size << 32) ^ payload_crc);
}

bool side_follows(const struct side_entry *e, log_index last, uint64_t chain)
{
    uint64_t entries = e->gone > 0 ? e->gone : 1;
    if (e->index.v != last.v + entries) {
        return false;
    }
    return e->gone > 0 || e->rewritten ||
           e->chain == side_chain(chain, e->index, e->term, e->type, e->size,
                                  e->payload_crc);
}

void side_entry_header(const struct side_entry *e, struct batch_header *out)
{
    memset(out, 0, sizeof *out);
    out->base_offset = e->base_offset;
    out->length = (int32_t)e->size - BATCH_LOG_OVERHEAD;
    out->leader_epoch = (int32_t)e->term.v;
    out->magic = BATCH_MAGIC;
    out->attributes = e->attributes;
    out->last_offset_delta = e->last_offset_delta;
    out->max_timestamp = e->max_timestamp;
    out->producer_id = e->producer_id;
    out->producer_epoch = e->producer_epoch;
    out->base_sequence = e->base_sequence;
    out->record_count = e->record_count;
}
