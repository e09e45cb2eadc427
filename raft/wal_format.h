/* The bytes of the write-ahead log, little-endian. Pure functions; nothing
 * here does I/O.
 *
 * A log is a directory with wal.meta and the files wal-00000001.log, ... A file
 * is filled with zeros once and then written from its beginning again and
 * again; each lap is a *generation*, a number that only grows over all files
 * of the log. A file is a sequence of *flushes*; a flush is a header and
 * *frames*, padded with zeros to blocks of 4096 bytes. Each flush names the
 * one before it, also across files, so the live files in the order of their
 * generations are one chain.
 *
 * Flush header
 *    0  u32  magic "FLWF"
 *    4  u16  version of the format, 1
 *    6  u16  bytes of this header, 80
 *    8  u64  log id, random, made with the log
 *   16  u64  generation of the file
 *   24  u64  oldest generation that recovery needs
 *   32  u64  checkpoint: newest one that `oldest` relies on
 *   40  u64  position of the first frame; frame k has this + k
 *   48  u64  position of the first frame of the previous flush; 0: none
 *   56  u32  CRC of the previous flush; 0: none
 *   60  u32  number of frames, at least 1
 *   64  u32  length in bytes with header and padding, in whole blocks
 *   68  u32  zero
 *   72  u32  zero
 *   76  u32  CRC-32C over everything else of the flush, padding included
 *
 * Frame, at multiples of 8
 *    0  u32  CRC-32C over generation (u64), position (u64) and bytes 4..55
 *    4  u8   enum wal_frame_type
 *    5  u8   enum entry_type of an entry, else zero
 *    6  u16  zero
 *    8  16B  topic id of the group
 *   24  i32  partition of the group
 *   28  u32  bytes of payload
 *   32  u64  index
 *   40  u64  term
 *   48  u32  CRC-32C of the payload
 *   52  u32  zero
 *   56       payload, padded with zeros to a multiple of 8
 *
 * A position is never used twice: after a restart, positions go on at the next
 * multiple of 2^32, so a frame of a discarded flush is never mistaken.
 *
 * A flush is submitted only when the one before it is durable. So a valid
 * flush proves that all before it were whole, and only the last one can be
 * torn. An *attestation* is a flush of its own holding one frame that names
 * the flush before it, written when the log falls idle: it makes damage in
 * what was last told from a torn write. */
#ifndef RAFT_WAL_FORMAT_H
#define RAFT_WAL_FORMAT_H

#include "raft/group.h"

#define WAL_BLOCK ENV_BLOCK_SIZE
#define WAL_VERSION 1
#define WAL_FLUSH_MAGIC 0x46574c46u /* "FLWF" */
#define WAL_FLUSH_HEADER 80
#define WAL_FRAME_HEADER 56
#define WAL_FRAME_ALIGN 8
/* Positions jump to the next multiple at every start. */
#define WAL_POSITION_STEP ((uint64_t)1 << 32)

enum wal_flush_offset {
    WAL_FLUSH_AT_MAGIC = 0,
    WAL_FLUSH_AT_VERSION = 4,
    WAL_FLUSH_AT_HEADER = 6,
    WAL_FLUSH_AT_LOG_ID = 8,
    WAL_FLUSH_AT_GENERATION = 16,
    WAL_FLUSH_AT_OLDEST = 24,
    WAL_FLUSH_AT_CHECKPOINT = 32,
    WAL_FLUSH_AT_POSITION = 40,
    WAL_FLUSH_AT_PREV_POSITION = 48,
    WAL_FLUSH_AT_PREV_CRC = 56,
    WAL_FLUSH_AT_FRAMES = 60,
    WAL_FLUSH_AT_LENGTH = 64,
    WAL_FLUSH_AT_ZERO = 68,
    WAL_FLUSH_AT_CRC = 76
};

enum wal_frame_offset {
    WAL_FRAME_AT_CRC = 0,
    WAL_FRAME_AT_TYPE = 4,
    WAL_FRAME_AT_ENTRY_TYPE = 5,
    WAL_FRAME_AT_ZERO = 6,
    WAL_FRAME_AT_TOPIC = 8,
    WAL_FRAME_AT_PARTITION = 24,
    WAL_FRAME_AT_SIZE = 28,
    WAL_FRAME_AT_INDEX = 32,
    WAL_FRAME_AT_TERM = 40,
    WAL_FRAME_AT_PAYLOAD_CRC = 48,
    WAL_FRAME_AT_ZERO2 = 52
};

_Static_assert(WAL_FLUSH_AT_CRC + 4 == WAL_FLUSH_HEADER, "flush header");
_Static_assert(WAL_FRAME_AT_ZERO2 + 4 == WAL_FRAME_HEADER, "frame header");
_Static_assert(WAL_FLUSH_HEADER % WAL_FRAME_ALIGN == 0, "first frame");
_Static_assert(WAL_FRAME_HEADER % WAL_FRAME_ALIGN == 0, "payload");
_Static_assert(sizeof(struct group_id) == 20, "used as a key: no padding");

/* The numbers are in files: never change or reuse one. */
enum wal_frame_type {
    WAL_FRAME_ENTRY = 1,    /* payload: the entry's */
    WAL_FRAME_TRUNCATE = 2, /* entries from `index` on are gone */
    WAL_FRAME_TERM = 3,     /* `term`; `index` is the vote (replica id) */
    WAL_FRAME_CREATE = 4,   /* payload: creation, see below */
    WAL_FRAME_DELETE = 5,
    WAL_FRAME_CONFIG = 6, /* payload: the configuration of `index`, `term` */
    WAL_FRAME_ATTEST = 7  /* no group; `index` is the position, `term` the CRC
                           * of the flush before this one */
};

/* Payload of a creation: directory 16 B, own replica id u64, number of
 * replicas u32, then per replica id u64 and node i32. */
#define WAL_CREATE_BYTES_MAX (28 + 12 * GROUP_REPLICAS_MAX)

static inline uint64_t wal_align(uint64_t bytes, uint64_t to)
{
    return (bytes + to - 1) / to * to;
}
/* Bytes of a frame with a payload of `size`. */
static inline uint64_t wal_frame_bytes(uint64_t size)
{
    return WAL_FRAME_HEADER + wal_align(size, WAL_FRAME_ALIGN);
}

struct wal_flush_header {
    uint64_t log_id;
    uint64_t generation;
    uint64_t oldest;
    uint64_t checkpoint;
    uint64_t position;
    uint64_t prev_position;
    uint32_t prev_crc;
    uint32_t n_frames;
    uint32_t length;
    uint32_t crc;
};

struct wal_frame {
    enum wal_frame_type type;
    uint8_t entry_type;
    struct group_id group;
    uint32_t size;
    uint64_t index;
    uint64_t term;
    uint32_t payload_crc;
    const uint8_t *payload;
};

/* Writes the header at the beginning of a flush whose frames and padding are
 * in place, and its CRC; gives the CRC. */
uint32_t wal_flush_seal(uint8_t *flush, const struct wal_flush_header *header);
/* The same, where the CRC-32C of all behind the header is known. */
uint32_t wal_flush_seal_known(uint8_t *flush,
                              const struct wal_flush_header *header,
                              uint32_t behind);
/* Reads the header of a block; false when it is none of this format (magic,
 * version, sizes). Says nothing about the content. */
bool wal_flush_read(const uint8_t *block, struct wal_flush_header *out);
/* True when all header->length bytes are what was sealed. */
bool wal_flush_check(const uint8_t *flush,
                     const struct wal_flush_header *header);

/* Writes frame header and padding; frame->size bytes of payload lie already
 * at out + WAL_FRAME_HEADER. */
void wal_frame_write(uint8_t *out, const struct wal_frame *frame,
                     uint64_t generation, uint64_t position);
/* Reads a frame of at most `size` bytes; gives its length, 0 when it is
 * damaged or not of this generation and position. Checks the payload too. */
uint64_t wal_frame_read(const uint8_t *data, uint64_t size, uint64_t generation,
                        uint64_t position, struct wal_frame *out);
/* Reads a frame's header alone; the payload may be damaged. False: it is not
 * one of this generation and position. */
bool wal_frame_head_read(const uint8_t *data, uint64_t generation,
                         uint64_t position, struct wal_frame *out);
/* Reads a frame from memory that is known to be good. */
uint64_t wal_frame_peek(const uint8_t *data, struct wal_frame *out);

uint32_t wal_create_encode(const struct group_creation *creation,
                           uint8_t out[WAL_CREATE_BYTES_MAX]);
/* False when the bytes are no creation. creation->id is left alone. */
bool wal_create_decode(const uint8_t *data, uint32_t size,
                       struct group_creation *creation);

/* ---- wal.meta ------------------------------------------------------------ */
/* Which log this is and which files it has; written whole, atomically, before
 * a new file is used, so that a lost file is noticed.
 *    0  u32 magic "FLWM"   4  u16 version   6  u16 zero
 *    8  u64 log id        16  u32 number of files, wal-1 .. wal-n
 *   20  u32 zero          24  u64 time of making, wall clock ms
 *   32  per file u64 bytes; then u32 CRC-32C of all before */
#define WAL_META_MAGIC 0x4d574c46u
#define WAL_META_HEADER 32
#define WAL_FILES_MAX 4096

struct wal_meta {
    uint64_t log_id;
    uint64_t made_ms;
    uint32_t n_files;
    const uint64_t *bytes;
};
static inline size_t wal_meta_bytes(uint32_t n_files)
{
    return WAL_META_HEADER + (size_t)8 * n_files + 4;
}
void wal_meta_encode(const struct wal_meta *meta, uint8_t *out);
/* `bytes` has room for WAL_FILES_MAX. */
bool wal_meta_decode(const uint8_t *data, size_t size, struct wal_meta *out,
                     uint64_t *bytes);

/* ---- little-endian numbers ----------------------------------------------- */
static inline void le_put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}
static inline void le_put32(uint8_t *p, uint32_t v)
{
    le_put16(p, (uint16_t)v);
    le_put16(p + 2, (uint16_t)(v >> 16));
}
static inline void le_put64(uint8_t *p, uint64_t v)
{
    le_put32(p, (uint32_t)v);
    le_put32(p + 4, (uint32_t)(v >> 32));
}
static inline uint16_t le_get16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}
static inline uint32_t le_get32(const uint8_t *p)
{
    return le_get16(p) | (uint32_t)le_get16(p + 2) << 16;
}
static inline uint64_t le_get64(const uint8_t *p)
{
    return le_get32(p) | (uint64_t)le_get32(p + 4) << 32;
}

#endif
