/* The codecs of record batches, whole section in, whole section out. Pure;
 * output is bounded, since a few bytes of input may claim gigabytes. */
#ifndef PARTITION_COMPRESS_H
#define PARTITION_COMPRESS_H

#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/err.h"

/* Attribute bits 0-2 of a batch. */
enum batch_codec {
    CODEC_NONE = 0,
    CODEC_GZIP = 1,
    CODEC_SNAPPY = 2, /* xerial framing; a bare block is read too */
    CODEC_LZ4 = 3,    /* lz4 frame */
    CODEC_ZSTD = 4,
};

/* "none", "gzip", ...; "unknown" for a number that is no codec. Static. */
const char *compress_name(int codec);

/* Appends the plain bytes to `out`. ERR_INVALID: damaged or incomplete input;
 * ERR_TOO_LARGE: more than `limit` bytes would come out; ERR_UNSUPPORTED: no
 * such codec. On error `out` may have grown. */
MUST_USE enum err compress_unpack(enum batch_codec codec, const uint8_t *in,
                                  size_t size, size_t limit,
                                  struct buffer *out);
/* Appends the compressed bytes to `out`. ERR_UNSUPPORTED, ERR_INVALID. */
MUST_USE enum err compress_pack(enum batch_codec codec, const uint8_t *in,
                                size_t size, struct buffer *out);

#endif
