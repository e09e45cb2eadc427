/* The metadata image as a file, `metadata-<index>.snapshot`: what the metadata
 * group settles into.
 *
 *   0  8 bytes "FLMDSNAP"     16  u64 size of the body
 *   8  u64 index              24  u32 CRC-32C of the body
 *                             28  u32 CRC-32C of the 28 bytes before
 *  32  the body: batches of records that image_dump gives, each behind four
 *      bytes of its size
 *
 * Integers in network order. The checkpoint's blob names the file: u8 version
 * (1), u64 index, u64 size of the body, u32 CRC of the body. The file before
 * the newest is kept, for the checkpoint before the newest. */
#ifndef METADATA_SNAPSHOT_H
#define METADATA_SNAPSHOT_H

#include "base/buffer.h"
#include "base/env.h"
#include "metadata/image.h"

#define SNAPSHOT_HEAD 32
#define SNAPSHOT_BLOB 21

struct snapshot_ref {
    log_index index; /* 0: the image was empty, there is no file */
    uint64_t size;   /* of the body */
    uint32_t crc;
};

/* The whole file's bytes for this image; sets `ref`. */
void snapshot_make(const struct image *image, struct buffer *out,
                   struct snapshot_ref *ref);
void snapshot_path(const char *dir, log_index index, char path[4096]);
void snapshot_blob_write(const struct snapshot_ref *ref,
                         uint8_t blob[SNAPSHOT_BLOB]);
/* ERR_CORRUPT */
MUST_USE enum err snapshot_blob_read(const uint8_t *blob, size_t size,
                                     struct snapshot_ref *out);
/* Writes the file's bytes; *file is to be synced and closed by the caller.
 * Removes snapshots other than the two of `keep` and this one first (NULL:
 * none). For workers. */
MUST_USE enum err snapshot_write(struct env *env, const char *dir,
                                 const struct buffer *bytes,
                                 const struct snapshot_ref *ref,
                                 const log_index *keep, struct env_file **file);
/* Reads the file `ref` names and gives each batch to `each`, after all of it
 * was checked. ERR_CORRUPT, ERR_IO, ERR_NOT_FOUND. */
MUST_USE enum err snapshot_read(
    struct env *env, const char *dir, const struct snapshot_ref *ref,
    enum err (*each)(void *arg, const uint8_t *batch, size_t size), void *arg);
/* Checks the bytes of a whole file against `ref` and gives each batch. */
MUST_USE enum err snapshot_parse(
    const uint8_t *data, size_t size, const struct snapshot_ref *ref,
    enum err (*each)(void *arg, const uint8_t *batch, size_t size), void *arg);

#endif
