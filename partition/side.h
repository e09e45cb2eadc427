/* The side file of a segment: what the log knows of each entry, apart from the
 * entries' bytes, and the bytes of entries that are not batches. It is the
 * authority over the .log file (which has batches only, as on the wire), and
 * being slots of one size in order of index, offset and running maximum of
 * timestamps, it is the index too: found by bisection, nothing derived to keep
 * in step or to rebuild.
 *
 * File NNNNNNNNNNNNNNNNNNNN.side (base offset of the segment, 20 digits), all
 * big-endian: the head at 0; two places for copies of tails (tail.h) at 4096
 * and 16384; from 28672 on slots of 104 bytes, numbered from 1. In front, so
 * that writing one of these parts never touches a block of another.
 *
 *   head          0  u32 magic "FSID"   4  u16 version      6  u16 zero
 *                 8  i64 base offset   16  u64 index of the first entry
 *                24  topic id, 16 bytes                    40  i32 partition
 *                44  zero              48  u64 chain before the first entry
 *                56  u64 id of the compaction that made it, 0 none
 *                64  zero             100  u32 CRC-32C of bytes 0..99
 *   entry         0  u8 kind 1          1  u8 entry type    2  u16 flags
 *                 4  u32 payload size   8  u64 index       16  u64 term
 *                24  i64 base offset (not a batch: the next offset)
 *                32  u64 position in the .log (not a batch: where the next
 *                    batch goes)
 *                40  u32 CRC-32C of the batch's first 21 bytes, which its own
 *                    CRC leaves out (not a batch: 0)
 *                44  u32 CRC-32C of the whole payload
 *                48  u64 chain up to this entry
 *                56  i64 producer id   64  i16 producer epoch
 *                66  i16 attributes    68  i32 base sequence
 *                72  i32 last offset delta (not a batch: -1)
 *                76  i32 record count  80  i64 maximum timestamp, -1 none
 *                88  i64 the greatest of these in the segment so far
 *                96  zero             100  u32 CRC-32C of bytes 0..99
 *   continuation  0  u8 kind 2          1  zero             2  u16 bytes used
 *                 4  u32 distance back to its entry, in slots
 *                 8  88 bytes of the payload of an entry that is no batch
 *                96  zero             100  u32 CRC-32C of bytes 0..99
 *   gap           as an entry without payload, but kind 3; what is said of
 *                 index, term, next offset and chain is true behind the last
 *                 of the entries that are gone
 *                56  u64 how many they are
 *
 * Version 1 has neither gaps nor flags; compaction writes version 2. There a
 * batch that lost records (flag 1) is described as it is now: size and CRCs
 * are not those that the chain was made of. The chain stays what it was, so the
 * end of a compacted segment joins the next one as before.
 *
 * The chain is a 64-bit digest of index, term, type, size and payload CRC of
 * all entries since the first: two replicas that agree in it at one index
 * agree in everything before. */
#ifndef PARTITION_SIDE_H
#define PARTITION_SIDE_H

#include "partition/batch.h"
#include "raft/group.h"

#define SIDE_SLOT 104
#define SIDE_VERSION 1
#define SIDE_VERSION_COMPACTED 2
#define SIDE_TAILS_AT 4096
#define SIDE_TAIL_BYTES 12288
#define SIDE_SLOTS_AT (SIDE_TAILS_AT + 2 * SIDE_TAIL_BYTES)
#define SIDE_CONTINUATION_BYTES 88

/* Where slot n >= 1 begins; of the number of slots (the head counted as slot 0)
 * the size of the file. */
static inline uint64_t side_offset(uint64_t slot)
{
    return SIDE_SLOTS_AT + (slot - 1) * SIDE_SLOT;
}
/* Slots in a file of this size, the head counted; 0 when not even that. */
static inline uint64_t side_slots_in(uint64_t size)
{
    return size < SIDE_SLOTS_AT ? (size >= SIDE_SLOT ? 1 : 0)
                                : 1 + (size - SIDE_SLOTS_AT) / SIDE_SLOT;
}

enum side_kind {
    SIDE_HEAD = 0,
    SIDE_ENTRY = 1,
    SIDE_CONTINUATION = 2,
    SIDE_GAP = 3
};

struct side_head {
    kafka_offset base;
    log_index first;
    struct group_id group;
    uint64_t chain;
    uint64_t compaction; /* 0: the segment is as it was settled */
};

struct side_entry {
    enum entry_type type;
    bool rewritten; /* compaction took records out of this batch */
    uint64_t gone;  /* a gap: so many entries up to `index`; else 0. It looks
                     * like an entry that is no batch */
    uint32_t size;
    log_index index;
    raft_term_t term;
    kafka_offset base_offset;
    uint64_t position;
    uint32_t head_crc, payload_crc;
    uint64_t chain;
    int64_t producer_id;
    int16_t producer_epoch, attributes;
    int32_t base_sequence, last_offset_delta, record_count;
    int64_t max_timestamp, running_max;
};

void side_head_write(const struct side_head *head, uint8_t slot[SIDE_SLOT]);
MUST_USE enum err side_head_read(const uint8_t slot[SIDE_SLOT],
                                 struct side_head *out);
void side_entry_write(const struct side_entry *entry, uint8_t slot[SIDE_SLOT]);
MUST_USE enum err side_entry_read(const uint8_t slot[SIDE_SLOT],
                                  struct side_entry *out);
/* `size` <= 88 bytes of payload, `back` slots behind its entry. */
void side_continuation_write(const uint8_t *bytes, uint32_t size, uint32_t back,
                             uint8_t slot[SIDE_SLOT]);
/* ERR_CORRUPT for a slot that is none. */
MUST_USE enum err side_continuation_read(const uint8_t slot[SIDE_SLOT],
                                         const uint8_t **bytes, uint32_t *size,
                                         uint32_t *back);
/* Slots that an entry takes: one, and continuations if it is no batch. */
static inline uint64_t side_slots(enum entry_type type, uint32_t size)
{
    return type == ENTRY_DATA
               ? 1
               : 1 + ((uint64_t)size + SIDE_CONTINUATION_BYTES - 1) /
                         SIDE_CONTINUATION_BYTES;
}
/* Is `e` what follows the entry `last` where the chain is `chain`? Within what
 * compaction has changed, only the place in the order can be told. */
bool side_follows(const struct side_entry *e, log_index last, uint64_t chain);
static inline kafka_offset side_last_offset(const struct side_entry *e)
{
    return (kafka_offset){e->base_offset.v + e->last_offset_delta};
}
uint64_t side_chain(uint64_t chain, log_index index, raft_term_t term,
                    enum entry_type type, uint32_t size, uint32_t payload_crc);
/* The batch header as far as producer state needs it. */
void side_entry_header(const struct side_entry *e, struct batch_header *out);

#endif
