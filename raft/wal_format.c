#include "raft/wal_format.h"

#include "base/crc32c.h"

static void flush_header_write(uint8_t *flush, const struct wal_flush_header *h)
{
    le_put32(flush + WAL_FLUSH_AT_MAGIC, WAL_FLUSH_MAGIC);
    le_put16(flush + WAL_FLUSH_AT_VERSION, WAL_VERSION);
    le_put16(flush + WAL_FLUSH_AT_HEADER, WAL_FLUSH_HEADER);
    le_put64(flush + WAL_FLUSH_AT_LOG_ID, h->log_id);
    le_put64(flush + WAL_FLUSH_AT_GENERATION, h->generation);
    le_put64(flush + WAL_FLUSH_AT_OLDEST, h->oldest);
    le_put64(flush + WAL_FLUSH_AT_CHECKPOINT, h->checkpoint);
    le_put64(flush + WAL_FLUSH_AT_POSITION, h->position);
    le_put64(flush + WAL_FLUSH_AT_PREV_POSITION, h->prev_position);
    le_put32(flush + WAL_FLUSH_AT_PREV_CRC, h->prev_crc);
    le_put32(flush + WAL_FLUSH_AT_FRAMES, h->n_frames);
    le_put32(flush + WAL_FLUSH_AT_LENGTH, h->length);
    le_put64(flush + WAL_FLUSH_AT_ZERO, 0);
}

uint32_t wal_flush_seal(uint8_t *flush, const struct wal_flush_header *h)
{
    flush_header_write(flush, h);
    uint32_t crc = crc32c(0, flush, WAL_FLUSH_AT_CRC);
    crc = crc32c(crc, flush + WAL_FLUSH_HEADER, h->length - WAL_FLUSH_HEADER);
    le_put32(flush + WAL_FLUSH_AT_CRC, crc);
    return crc;
}

uint32_t wal_flush_seal_known(uint8_t *flush, const struct wal_flush_header *h,
                              uint32_t behind)
{
    flush_header_write(flush, h);
    uint32_t crc = crc32c_join(crc32c(0, flush, WAL_FLUSH_AT_CRC), behind,
                               h->length - WAL_FLUSH_HEADER);
    le_put32(flush + WAL_FLUSH_AT_CRC, crc);
    return crc;
}

bool wal_flush_read(const uint8_t *block, struct wal_flush_header *out)
{
    if (le_get32(block + WAL_FLUSH_AT_MAGIC) != WAL_FLUSH_MAGIC ||
        le_get16(block + WAL_FLUSH_AT_VERSION) != WAL_VERSION ||
        le_get16(block + WAL_FLUSH_AT_HEADER) != WAL_FLUSH_HEADER) {
        return false;
    }
    *out = (struct wal_flush_header){
        .log_id = le_get64(block + WAL_FLUSH_AT_LOG_ID),
        .generation = le_get64(block + WAL_FLUSH_AT_GENERATION),
        .oldest = le_get64(block + WAL_FLUSH_AT_OLDEST),
        .checkpoint = le_get64(block + WAL_FLUSH_AT_CHECKPOINT),
        .position = le_get64(block + WAL_FLUSH_AT_POSITION),
        .prev_position = le_get64(block + WAL_FLUSH_AT_PREV_POSITION),
        .prev_crc = le_get32(block + WAL_FLUSH_AT_PREV_CRC),
        .n_frames = le_get32(block + WAL_FLUSH_AT_FRAMES),
        .length = le_get32(block + WAL_FLUSH_AT_LENGTH),
        .crc = le_get32(block + WAL_FLUSH_AT_CRC),
    };
    return out->n_frames > 0 && out->length >= WAL_BLOCK &&
           out->length % WAL_BLOCK == 0;
}

bool wal_flush_check(const uint8_t *flush, const struct wal_flush_header *h)
{
    uint32_t crc = crc32c(0, flush, WAL_FLUSH_AT_CRC);
    crc = crc32c(crc, flush + WAL_FLUSH_HEADER, h->length - WAL_FLUSH_HEADER);
    return crc == h->crc;
}

static uint32_t frame_crc(const uint8_t *frame, uint64_t generation,
                          uint64_t position)
{
    uint8_t where[16];
    le_put64(where, generation);
    le_put64(where + 8, position);
    return crc32c(crc32c(0, where, sizeof where), frame + WAL_FRAME_AT_TYPE,
                  WAL_FRAME_HEADER - WAL_FRAME_AT_TYPE);
}

void wal_frame_write(uint8_t *out, const struct wal_frame *frame,
                     uint64_t generation, uint64_t position)
{
    out[WAL_FRAME_AT_TYPE] = (uint8_t)frame->type;
    out[WAL_FRAME_AT_ENTRY_TYPE] = frame->entry_type;
    le_put16(out + WAL_FRAME_AT_ZERO, 0);
    memcpy(out + WAL_FRAME_AT_TOPIC, frame->group.topic.b, 16);
    le_put32(out + WAL_FRAME_AT_PARTITION, (uint32_t)frame->group.partition);
    le_put32(out + WAL_FRAME_AT_SIZE, frame->size);
    le_put64(out + WAL_FRAME_AT_INDEX, frame->index);
    le_put64(out + WAL_FRAME_AT_TERM, frame->term);
    le_put32(out + WAL_FRAME_AT_PAYLOAD_CRC, frame->payload_crc);
    le_put32(out + WAL_FRAME_AT_ZERO2, 0);
    le_put32(out + WAL_FRAME_AT_CRC, frame_crc(out, generation, position));
    memset(out + WAL_FRAME_HEADER + frame->size, 0,
           wal_align(frame->size, WAL_FRAME_ALIGN) - frame->size);
}

uint64_t wal_frame_peek(const uint8_t *data, struct wal_frame *out)
{
    *out = (struct wal_frame){
        .type = (enum wal_frame_type)data[WAL_FRAME_AT_TYPE],
        .entry_type = data[WAL_FRAME_AT_ENTRY_TYPE],
        .group.partition = (int32_t)le_get32(data + WAL_FRAME_AT_PARTITION),
        .size = le_get32(data + WAL_FRAME_AT_SIZE),
        .index = le_get64(data + WAL_FRAME_AT_INDEX),
        .term = le_get64(data + WAL_FRAME_AT_TERM),
        .payload_crc = le_get32(data + WAL_FRAME_AT_PAYLOAD_CRC),
        .payload = data + WAL_FRAME_HEADER,
    };
    memcpy(out->group.topic.b, data + WAL_FRAME_AT_TOPIC, 16);
    return wal_frame_bytes(out->size);
}

bool wal_frame_head_read(const uint8_t *data, uint64_t generation,
                         uint64_t position, struct wal_frame *out)
{
    if (le_get32(data + WAL_FRAME_AT_CRC) !=
        frame_crc(data, generation, position)) {
        return false;
    }
    wal_frame_peek(data, out);
    return out->type >= WAL_FRAME_ENTRY && out->type <= WAL_FRAME_ATTEST;
}

uint64_t wal_frame_read(const uint8_t *data, uint64_t size, uint64_t generation,
                        uint64_t position, struct wal_frame *out)
{
    if (size < WAL_FRAME_HEADER || le_get32(data + WAL_FRAME_AT_CRC) !=
                                       frame_crc(data, generation, position)) {
        return 0;
    }
    uint64_t length = wal_frame_peek(data, out);
    if (length > size || out->type < WAL_FRAME_ENTRY ||
        out->type > WAL_FRAME_ATTEST ||
        crc32c(0, out->payload, out->size) != out->payload_crc) {
        return 0;
    }
    return length;
}

uint32_t wal_create_encode(const struct group_creation *creation,
                           uint8_t out[WAL_CREATE_BYTES_MAX])
{
    uint8_t *p = out;
    memcpy(p, creation->directory.b, 16);
    le_put64(p + 16, creation->self);
    le_put32(p + 24, (uint32_t)creation->n_replicas);
    p += 28;
    for (int k = 0; k < creation->n_replicas; k++) {
        le_put64(p, creation->replicas[k].id);
        le_put32(p + 8, (uint32_t)creation->replicas[k].node);
        p += 12;
    }
    return (uint32_t)(p - out);
}

bool wal_create_decode(const uint8_t *data, uint32_t size,
                       struct group_creation *creation)
{
    if (size < 28) {
        return false;
    }
    uint32_t n = le_get32(data + 24);
    if (n > GROUP_REPLICAS_MAX || size != 28 + 12 * n) {
        return false;
    }
    memcpy(creation->directory.b, data, 16);
    creation->self = le_get64(data + 16);
    creation->n_replicas = (int)n;
    for (uint32_t k = 0; k < n; k++) {
        const uint8_t *p = data + 28 + 12 * k;
        creation->replicas[k].id = le_get64(p);
        creation->replicas[k].node = (node_id)le_get32(p + 8);
    }
    return true;
}

void wal_meta_encode(const struct wal_meta *meta, uint8_t *out)
{
    size_t size = wal_meta_bytes(meta->n_files);
    le_put32(out, WAL_META_MAGIC);
    le_put16(out + 4, WAL_VERSION);
    le_put16(out + 6, 0);
    le_put64(out + 8, meta->log_id);
    le_put32(out + 16, meta->n_files);
    le_put32(out + 20, 0);
    le_put64(out + 24, meta->made_ms);
    for (uint32_t k = 0; k < meta->n_files; k++) {
        le_put64(out + WAL_META_HEADER + (size_t)8 * k, meta->bytes[k]);
    }
    le_put32(out + size - 4, crc32c(0, out, size - 4));
}

bool wal_meta_decode(const uint8_t *data, size_t size, struct wal_meta *out,
                     uint64_t *bytes)
{
    if (size < wal_meta_bytes(0) || le_get32(data) != WAL_META_MAGIC ||
        le_get16(data + 4) != WAL_VERSION) {
        return false;
    }
    uint32_t n = le_get32(data + 16);
    if (n > WAL_FILES_MAX || size != wal_meta_bytes(n) ||
        crc32c(0, data, size - 4) != le_get32(data + size - 4)) {
        return false;
    }
    for (uint32_t k = 0; k < n; k++) {
        bytes[k] = le_get64(data + WAL_META_HEADER + (size_t)8 * k);
    }
    *out = (struct wal_meta){.log_id = le_get64(data + 8),
                             .made_ms = le_get64(data + 24),
                             .n_files = n,
                             .bytes = bytes};
    return true;
}
