#include "partition/compress.h"

#include <lz4frame.h>
#include <snappy-c.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "base/assert.h"
#include "partition/bytes.h"

/* Room made for output at a time; grows with what was already written. */
#define STEP_MIN ((size_t)16 << 10)
/* Sizes above are refused: the libraries count in 32 bits. */
#define INPUT_MAX ((size_t)1 << 30)

/* xerial's framing of snappy: this header, then blocks of (size, bytes). */
static const uint8_t xerial_magic[8] = {0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0};
#define XERIAL_HEADER 16
#define XERIAL_BLOCK ((size_t)32 << 10)

const char *compress_name(int codec)
{
    static const char *const names[] = {"none", "gzip", "snappy", "lz4",
                                        "zstd"};
    return codec >= 0 && codec <= CODEC_ZSTD ? names[codec] : "unknown";
}

/* Output under way: `base` is what the buffer held before. */
struct sink {
    struct buffer *out;
    size_t base, limit;
};

/* Room for the next piece of output, one byte beyond the limit at most, so
 * that too much output is seen. 0 when that byte is used. */
static size_t sink_room(struct sink *s, uint8_t **at)
{
    size_t done = s->out->size - s->base;
    size_t room = s->limit + 1 - done;
    size_t step = done < STEP_MIN ? STEP_MIN : done;
    if (done > s->limit) {
        return 0;
    }
    room = room < step ? room : step;
    *at = buffer_reserve(s->out, room);
    return room;
}

static bool sink_overflown(const struct sink *s)
{
    return s->out->size - s->base > s->limit;
}

static enum err gzip_decode(const uint8_t *in, size_t size, struct sink *s)
{
    z_stream z = {0};
    enum err status = ERR_INVALID;
    if (inflateInit2(&z, 15 + 16) != Z_OK) {
        return ERR_NOMEM;
    }
    z.next_in = (Bytef *)(uintptr_t)in;
    z.avail_in = (uInt)size;
    for (;;) {
        uint8_t *at;
        size_t room = sink_room(s, &at);
        if (room == 0) {
            status = ERR_TOO_LARGE;
            break;
        }
        z.next_out = at;
        z.avail_out = (uInt)room;
        int rv = inflate(&z, Z_NO_FLUSH);
        size_t made = room - z.avail_out;
        buffer_added(s->out, made);
        if (rv == Z_STREAM_END) {
            /* Another member may follow. */
            if (z.avail_in > 0 && inflateReset(&z) == Z_OK) {
                continue;
            }
            status = sink_overflown(s) ? ERR_TOO_LARGE : ERR_OK;
            break;
        }
        if (rv != Z_OK || (made == 0 && z.avail_in == 0)) {
            break;
        }
    }
    inflateEnd(&z);
    return status;
}

static enum err snappy_block(const uint8_t *in, size_t size, struct sink *s)
{
    size_t plain;
    if (snappy_uncompressed_length((const char *)in, size, &plain) !=
        SNAPPY_OK) {
        return ERR_INVALID;
    }
    if (plain > s->limit - (s->out->size - s->base)) {
        return ERR_TOO_LARGE;
    }
    /* A block of n bytes cannot give more than 64 bytes for every 2 or 3 of
     * input (a copy element); a length beyond that is a lie. */
    if (plain / 64 > size) {
        return ERR_INVALID;
    }
    uint8_t *at = buffer_reserve(s->out, plain + 1);
    if (snappy_uncompress((const char *)in, size, (char *)at, &plain) !=
        SNAPPY_OK) {
        return ERR_INVALID;
    }
    buffer_added(s->out, plain);
    return ERR_OK;
}

static enum err snappy_decode(const uint8_t *in, size_t size, struct sink *s)
{
    if (size < sizeof xerial_magic ||
        memcmp(in, xerial_magic, sizeof xerial_magic) != 0) {
        return snappy_block(in, size, s);
    }
    if (size < XERIAL_HEADER) {
        return ERR_INVALID;
    }
    size_t at = XERIAL_HEADER;
    while (at < size) {
        if (size - at < 4) {
            return ERR_INVALID;
        }
        size_t block = get_u32(in + at);
        at += 4;
        if (block > size - at) {
            return ERR_INVALID;
        }
        enum err status = snappy_block(in + at, block, s);
        if (status != ERR_OK) {
            return status;
        }
        at += block;
    }
    return ERR_OK;
}

static enum err lz4_decode(const uint8_t *in, size_t size, struct sink *s)
{
    LZ4F_dctx *d;
    enum err status = ERR_INVALID;
    if (LZ4F_isError(LZ4F_createDecompressionContext(&d, LZ4F_VERSION))) {
        return ERR_NOMEM;
    }
    for (;;) {
        uint8_t *at;
        size_t room = sink_room(s, &at), used = size;
        if (room == 0) {
            status = ERR_TOO_LARGE;
            break;
        }
        size_t rv = LZ4F_decompress(d, at, &room, in, &used, NULL);
        if (LZ4F_isError(rv)) {
            break;
        }
        buffer_added(s->out, room);
        in += used;
        size -= used;
        if (rv == 0 && size == 0) {
            status = sink_overflown(s) ? ERR_TOO_LARGE : ERR_OK;
            break;
        }
        if (room == 0 && used == 0) {
            break;
        }
    }
    LZ4F_freeDecompressionContext(d);
    return status;
}

static enum err zstd_decode(const uint8_t *in, size_t size, struct sink *s)
{
    ZSTD_DStream *d = ZSTD_createDStream();
    ZSTD_inBuffer from = {in, size, 0};
    enum err status = ERR_INVALID;
    if (d == NULL) {
        return ERR_NOMEM;
    }
    for (;;) {
        uint8_t *at;
        size_t room = sink_room(s, &at), before = from.pos;
        if (room == 0) {
            status = ERR_TOO_LARGE;
            break;
        }
        ZSTD_outBuffer to = {at, room, 0};
        size_t rv = ZSTD_decompressStream(d, &to, &from);
        if (ZSTD_isError(rv)) {
            break;
        }
        buffer_added(s->out, to.pos);
        if (rv == 0 && from.pos == from.size) {
            status = sink_overflown(s) ? ERR_TOO_LARGE : ERR_OK;
            break;
        }
        if (to.pos == 0 && from.pos == before) {
            break;
        }
    }
    ZSTD_freeDStream(d);
    return status;
}

enum err compress_unpack(enum batch_codec codec, const uint8_t *in, size_t size,
                         size_t limit, struct buffer *out)
{
    struct sink s = {out, out->size, limit};
    ASSERT(limit < INPUT_MAX);
    if (size > INPUT_MAX) {
        return ERR_TOO_LARGE;
    }
    switch (codec) {
        case CODEC_NONE:
            if (size > limit) {
                return ERR_TOO_LARGE;
            }
            buffer_append(out, in, size);
            return ERR_OK;
        case CODEC_GZIP:
            return gzip_decode(in, size, &s);
        case CODEC_SNAPPY:
            return snappy_decode(in, size, &s);
        case CODEC_LZ4:
            return lz4_decode(in, size, &s);
        case CODEC_ZSTD:
            return zstd_decode(in, size, &s);
    }
    return ERR_UNSUPPORTED;
}

static enum err gzip_encode(const uint8_t *in, size_t size, struct buffer *out)
{
    z_stream z = {0};
    if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 15 + 16, 8,
                     Z_DEFAULT_STRATEGY) != Z_OK) {
        return ERR_NOMEM;
    }
    size_t room = deflateBound(&z, size);
    z.next_in = (Bytef *)(uintptr_t)in;
    z.avail_in = (uInt)size;
    z.next_out = buffer_reserve(out, room);
    z.avail_out = (uInt)room;
    int rv = deflate(&z, Z_FINISH);
    deflateEnd(&z);
    if (rv != Z_STREAM_END) {
        return ERR_INVALID;
    }
    buffer_added(out, room - z.avail_out);
    return ERR_OK;
}

static enum err snappy_encode(const uint8_t *in, size_t size,
                              struct buffer *out)
{
    uint8_t header[XERIAL_HEADER];
    memcpy(header, xerial_magic, sizeof xerial_magic);
    put_u32(header + 8, 1);
    put_u32(header + 12, 1);
    buffer_append(out, header, sizeof header);
    for (size_t at = 0; at < size;) {
        size_t n = size - at < XERIAL_BLOCK ? size - at : XERIAL_BLOCK;
        size_t room = snappy_max_compressed_length(n);
        uint8_t *to = buffer_reserve(out, 4 + room);
        if (snappy_compress((const char *)in + at, n, (char *)to + 4, &room) !=
            SNAPPY_OK) {
            return ERR_INVALID;
        }
        put_u32(to, (uint32_t)room);
        buffer_added(out, 4 + room);
        at += n;
    }
    return ERR_OK;
}

static enum err lz4_encode(const uint8_t *in, size_t size, struct buffer *out)
{
    size_t room = LZ4F_compressFrameBound(size, NULL);
    size_t made =
        LZ4F_compressFrame(buffer_reserve(out, room), room, in, size, NULL);
    if (LZ4F_isError(made)) {
        return ERR_INVALID;
    }
    buffer_added(out, made);
    return ERR_OK;
}

static enum err zstd_encode(const uint8_t *in, size_t size, struct buffer *out)
{
    size_t room = ZSTD_compressBound(size);
    size_t made = ZSTD_compress(buffer_reserve(out, room), room, in, size, 3);
    if (ZSTD_isError(made)) {
        return ERR_INVALID;
    }
    buffer_added(out, made);
    return ERR_OK;
}

enum err compress_pack(enum batch_codec codec, const uint8_t *in, size_t size,
                       struct buffer *out)
{
    if (size > INPUT_MAX) {
        return ERR_TOO_LARGE;
    }
    switch (codec) {
        case CODEC_NONE:
            buffer_append(out, in, size);
            return ERR_OK;
        case CODEC_GZIP:
            return gzip_encode(in, size, out);
        case CODEC_SNAPPY:
            return snappy_encode(in, size, out);
        case CODEC_LZ4:
            return lz4_encode(in, size, out);
        case CODEC_ZSTD:
            return zstd_encode(in, size, out);
    }
    return ERR_UNSUPPORTED;
}
