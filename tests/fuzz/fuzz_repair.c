/* Checksums made right in bytes that may be anything. */
#include <string.h>

#include "base/crc32c.h"
#include "partition/batch.h"
#include "partition/bytes.h"
#include "partition/side.h"
#include "raft/message.h"
#include "raft/peer_frame.h"
#include "raft/wal_format.h"
#include "tests/fuzz/fuzz.h"

void fuzz_repair_batches(uint8_t *data, size_t size, bool length_too)
{
    for (size_t at = 0; size - at > BATCH_HEADER_SIZE;) {
        size_t left = size - at, n = left;
        uint32_t length = get_u32(data + at + 8);
        if (!length_too && length >= BATCH_HEADER_SIZE - BATCH_LOG_OVERHEAD &&
            length < left - BATCH_LOG_OVERHEAD) {
            n = length + (size_t)BATCH_LOG_OVERHEAD;
        }
        put_u32(data + at + 8, (uint32_t)n - BATCH_LOG_OVERHEAD);
        data[at + 16] = BATCH_MAGIC;
        put_u32(data + at + 17, batch_crc(data + at, n));
        at += n;
    }
}

/* One flush at `flush`; gives its length, 0 when there is none. */
static size_t repair_flush(uint8_t *flush, size_t size, uint64_t *prev_position,
                           uint32_t *prev_crc)
{
    struct wal_flush_header h;
    if (size < WAL_BLOCK || !wal_flush_read(flush, &h) || h.length > size ||
        h.length < WAL_FLUSH_HEADER) {
        return 0;
    }
    size_t at = WAL_FLUSH_HEADER;
    for (uint32_t k = 0; k < h.n_frames && h.length - at > WAL_FRAME_HEADER;
         k++) {
        struct wal_frame f;
        uint64_t length = wal_frame_peek(flush + at, &f);
        if (length > h.length - at) {
            break;
        }
        wal_frame_write(flush + at, &f, h.generation, h.position + k);
        at += (size_t)length;
    }
    if (*prev_position != 0) {
        h.prev_position = *prev_position;
        h.prev_crc = *prev_crc;
    }
    *prev_crc = wal_flush_seal(flush, &h);
    *prev_position = h.position;
    return h.length;
}

void fuzz_repair_wal(uint8_t *file, size_t size, uint64_t *prev_position,
                     uint32_t *prev_crc)
{
    for (size_t at = 0, n; at < size; at += n) {
        n = repair_flush(file + at, size - at, prev_position, prev_crc);
        if (n == 0) {
            return;
        }
    }
}

void fuzz_repair_end_le(uint8_t *data, size_t size)
{
    if (size >= 4) {
        le_put32(data + size - 4, crc32c(0, data, size - 4));
    }
}

void fuzz_repair_end_be(uint8_t *data, size_t size)
{
    if (size >= 4) {
        put_u32(data + size - 4, crc32c(0, data, size - 4));
    }
}

void fuzz_repair_wal_meta(uint8_t *data, size_t size)
{
    fuzz_repair_end_le(data, size);
}

void fuzz_repair_snapshot(uint8_t *data, size_t size)
{
    if (size >= 32) {
        put_u64(data + 16, size - 32);
        put_u32(data + 24, crc32c(0, data + 32, size - 32));
        put_u32(data + 28, crc32c(0, data, 28));
    }
}

void fuzz_repair_peer(uint8_t *data, size_t size)
{
    for (size_t at = 0; size - at >= PEER_FRAME_HEADER;) {
        size_t body = le_get32(data + at + 4);
        if (body > size - at - PEER_FRAME_HEADER) {
            body = size - at - PEER_FRAME_HEADER;
            le_put32(data + at + 4, (uint32_t)body);
        }
        le_put32(data + at + 20,
                 crc32c(0, data + at + PEER_FRAME_HEADER, body));
        le_put32(data + at + 24, crc32c(0, data + at, 24));
        at += PEER_FRAME_HEADER + body;
    }
}

void fuzz_repair_append(uint8_t *data, size_t size)
{
    if (size < MESSAGE_HEAD_MAX || data[1] != MESSAGE_APPEND) {
        return;
    }
    uint64_t n = le_get32(data + 4), left = size - MESSAGE_HEAD_MAX;
    if (n > left / MESSAGE_ENTRY_SIZE) {
        return;
    }
    uint8_t *head = data + MESSAGE_HEAD_MAX;
    uint8_t *payload = head + n * MESSAGE_ENTRY_SIZE;
    left -= n * MESSAGE_ENTRY_SIZE;
    for (; n > 0; n--, head += MESSAGE_ENTRY_SIZE) {
        uint32_t bytes = le_get32(head + 8);
        if (bytes > left) {
            return;
        }
        le_put32(head + 12, crc32c(0, payload, bytes));
        payload += bytes;
        left -= bytes;
    }
}

void fuzz_repair_side(uint8_t *data, size_t size)
{
    if (size >= SIDE_SLOT) {
        put_u32(data + 100, crc32c(0, data, 100));
    }
    for (size_t at = SIDE_SLOTS_AT; at + SIDE_SLOT <= size; at += SIDE_SLOT) {
        if (data[at] != 0) {
            put_u32(data + at + 100, crc32c(0, data + at, 100));
        }
    }
}
