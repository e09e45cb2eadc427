/* What the fuzz targets share. A target is one file, fuzz_NAME.c, with
 * LLVMFuzzerTestOneInput and fuzz_seeds. An input is what the target says at
 * its head; checksums are made right inside the target where the input's first
 * byte asks for it, so that mutations get behind them. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "tests/sim/sim_env.h"

/* Decodes one input; must not assert, leak or touch what is not its own. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Gives samples of the real thing to fuzz_seed. */
void fuzz_seeds(void);
void fuzz_seed(const char *name, const void *data, size_t size);

/* Something is wrong with the product: ends the process as a crash. */
#define FUZZ_CHECK(cond) \
    ((cond) ? (void)0 : fuzz_failed(__FILE__, __LINE__, #cond))
_Noreturn void fuzz_failed(const char *file, int line, const char *what);

/* ---- reading an input: behind its end everything is zero ----------------- */
struct fuzz_in {
    const uint8_t *p;
    size_t left;
};
uint64_t fuzz_uint(struct fuzz_in *in, int n_bytes); /* little-endian */
/* The next `n` bytes, or as many as there are; *got of them. */
const uint8_t *fuzz_bytes(struct fuzz_in *in, size_t n, size_t *got);
/* A copy that ends where the memory ends, so that reading beyond is seen. */
uint8_t *fuzz_copy(const uint8_t *data, size_t size);

/* ---- files --------------------------------------------------------------- */
/* An input that is a directory: u8 number of files, then u8 number of a name
 * and u32 size for each, then until the end pieces: u8 file, u16 block of 4096
 * bytes, u16 length, bytes. What no piece says is zero. */
#define FUZZ_FILES_MAX 8
#define FUZZ_FILE_BYTES ((uint32_t)1 << 20)
struct fuzz_file {
    const char *path;
    uint8_t *data; /* NULL: there is none */
    size_t size;
};
struct fuzz_disk {
    struct fuzz_file files[FUZZ_FILES_MAX];
};
/* `paths`: of the numbers, the last NULL. */
void fuzz_disk_read(struct fuzz_disk *disk, struct fuzz_in *in,
                    const char *const *paths);
struct fuzz_file *fuzz_disk_file(struct fuzz_disk *disk, const char *path);
/* Writes the files into the environment of a node. */
void fuzz_disk_store(const struct fuzz_disk *disk, struct env *env);
void fuzz_disk_free(struct fuzz_disk *disk);
/* Appends to `out` what fuzz_disk_read makes the node's files of. */
void fuzz_disk_write(struct buffer *out, struct sim_node *node,
                     const char *const *paths);

/* ---- checksums made right ------------------------------------------------ */
/* Lengths and CRCs of the batches one behind the other. */
void fuzz_repair_batches(uint8_t *data, size_t size, bool length_too);
/* CRCs of flushes and frames, and the chain of the flushes of one file, whose
 * predecessor has *prev_position and *prev_crc. */
void fuzz_repair_wal(uint8_t *file, size_t size, uint64_t *prev_position,
                     uint32_t *prev_crc);
void fuzz_repair_wal_meta(uint8_t *data, size_t size);
/* CRC over all before it, in the last four bytes. */
void fuzz_repair_end_le(uint8_t *data, size_t size);
void fuzz_repair_end_be(uint8_t *data, size_t size);
/* A metadata snapshot: head and body. */
void fuzz_repair_snapshot(uint8_t *data, size_t size);
/* Frames between brokers, one behind the other. */
void fuzz_repair_peer(uint8_t *data, size_t size);
/* CRCs of the payloads of an append message. */
void fuzz_repair_append(uint8_t *data, size_t size);
void fuzz_repair_side(uint8_t *data, size_t size);

#endif
