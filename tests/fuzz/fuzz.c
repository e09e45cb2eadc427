#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);

static const char *seed_dir;

_Noreturn void fuzz_failed(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: %s does not hold\n", file, line, what);
    abort();
}

static void quiet(void *arg, enum log_level level, const char *component,
                  const char *line)
{
    (void)arg, (void)level, (void)component, (void)line;
}

/* With FUZZ_SEEDS=DIR in the environment: writes the samples and ends. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    log_set_sink(quiet, NULL);
    seed_dir = getenv("FUZZ_SEEDS");
    if (seed_dir != NULL) {
        fuzz_seeds();
        _exit(0);
    }
    return 0;
}

void fuzz_seed(const char *name, const void *data, size_t size)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", seed_dir, name);
    FILE *f = fopen(path, "wb");
    if (f == NULL || fwrite(data, 1, size, f) != size || fclose(f) != 0) {
        perror(path);
        _exit(1);
    }
}

/* ---- reading an input ---------------------------------------------------- */
uint64_t fuzz_uint(struct fuzz_in *in, int n_bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < n_bytes && in->left > 0; i++, in->left--) {
        v |= (uint64_t)*in->p++ << (8 * i);
    }
    return v;
}

const uint8_t *fuzz_bytes(struct fuzz_in *in, size_t n, size_t *got)
{
    const uint8_t *at = in->p;
    *got = n < in->left ? n : in->left;
    in->p += *got;
    in->left -= *got;
    return at;
}

uint8_t *fuzz_copy(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size == 0 ? 1 : size);
    FUZZ_CHECK(copy != NULL);
    if (size > 0) {
        memcpy(copy, data, size);
    }
    return copy;
}

/* ---- files --------------------------------------------------------------- */
#define BLOCK 4096u

static void read_piece(struct fuzz_disk *disk, struct fuzz_in *in)
{
    struct fuzz_file *f = &disk->files[fuzz_uint(in, 1) % FUZZ_FILES_MAX];
    size_t at = (size_t)fuzz_uint(in, 2) * BLOCK, n, got;
    n = (size_t)fuzz_uint(in, 2);
    const uint8_t *bytes = fuzz_bytes(in, n, &got);
    if (f->data != NULL && at < f->size && got > 0) {
        memcpy(f->data + at, bytes, got < f->size - at ? got : f->size - at);
    }
}

void fuzz_disk_read(struct fuzz_disk *disk, struct fuzz_in *in,
                    const char *const *paths)
{
    uint64_t n_paths = 0, n = fuzz_uint(in, 1) % (FUZZ_FILES_MAX + 1);
    memset(disk, 0, sizeof *disk);
    while (paths[n_paths] != NULL) {
        n_paths++;
    }
    for (uint64_t i = 0; i < n; i++) {
        struct fuzz_file *f = &disk->files[i];
        f->path = paths[fuzz_uint(in, 1) % n_paths];
        f->size = (size_t)fuzz_uint(in, 4) % (FUZZ_FILE_BYTES + 1);
        f->data = calloc(1, f->size + 1);
        FUZZ_CHECK(f->data != NULL);
    }
    while (in->left > 0) {
        read_piece(disk, in);
    }
}

struct fuzz_file *fuzz_disk_file(struct fuzz_disk *disk, const char *path)
{
    for (int i = FUZZ_FILES_MAX - 1; i >= 0; i--) { /* the last one counts */
        struct fuzz_file *f = &disk->files[i];
        if (f->data != NULL && strcmp(f->path, path) == 0) {
            return f;
        }
    }
    return NULL;
}

static void store(const struct fuzz_file *f, struct env *env)
{
    char dir[256];
    struct env_file *file;
    struct iovec iov = {f->data, f->size};
    snprintf(dir, sizeof dir, "%s", f->path);
    *strrchr(dir, '/') = '\0';
    FUZZ_CHECK(env_dir_make(env, dir) == ERR_OK);
    FUZZ_CHECK(env_file_open(env, f->path, ENV_FILE_WRITE | ENV_FILE_CREATE,
                             &file) == ERR_OK);
    FUZZ_CHECK(env_file_truncate(file, 0) == ERR_OK);
    FUZZ_CHECK(env_file_pwritev(file, &iov, 1, 0, false) == ERR_OK);
    FUZZ_CHECK(env_file_sync(file) == ERR_OK);
    env_file_close(file);
    FUZZ_CHECK(env_dir_sync(env, dir) == ERR_OK);
}

void fuzz_disk_store(const struct fuzz_disk *disk, struct env *env)
{
    for (int i = 0; i < FUZZ_FILES_MAX; i++) {
        if (disk->files[i].data != NULL) {
            store(&disk->files[i], env);
        }
    }
}

void fuzz_disk_free(struct fuzz_disk *disk)
{
    for (int i = 0; i < FUZZ_FILES_MAX; i++) {
        free(disk->files[i].data);
    }
}

/* Gives the length without the zeros at the end. */
static size_t stripped(const uint8_t *data, size_t size)
{
    while (size > 0 && data[size - 1] == 0) {
        size--;
    }
    return size;
}

static void put(struct buffer *out, uint64_t v, int n_bytes)
{
    for (int i = 0; i < n_bytes; i++, v >>= 8) {
        uint8_t byte = (uint8_t)v;
        buffer_append(out, &byte, 1);
    }
}

/* Blocks that are full hang together with the next one. */
static void write_pieces(struct buffer *out, uint64_t number,
                         const uint8_t *data, size_t size)
{
    for (size_t at = 0; at < size;) {
        size_t n = 0, from = at;
        do {
            size_t left = size - at < BLOCK ? size - at : BLOCK;
            size_t used = stripped(data + at, left);
            n = used > 0 ? at - from + used : n;
            at += left;
            if (used < BLOCK) {
                break;
            }
        } while (at < size && at - from + BLOCK < 65536);
        if (n > 0) {
            put(out, number, 1);
            put(out, from / BLOCK, 2);
            put(out, n, 2);
            buffer_append(out, data + from, n);
        }
    }
}

void fuzz_disk_write(struct buffer *out, struct sim_node *node,
                     const char *const *paths)
{
    uint8_t *data[FUZZ_FILES_MAX];
    int64_t sizes[FUZZ_FILES_MAX];
    uint64_t numbers[FUZZ_FILES_MAX], n = 0;
    for (uint64_t i = 0; paths[i] != NULL && n < FUZZ_FILES_MAX; i++) {
        void *bytes = NULL;
        int64_t size = sim_disk_durable(node, paths[i], &bytes);
        if (size >= 0) {
            data[n] = bytes;
            sizes[n] = size;
            numbers[n++] = i;
        }
    }
    put(out, n, 1);
    for (uint64_t i = 0; i < n; i++) {
        put(out, numbers[i], 1);
        put(out, (uint64_t)sizes[i], 4);
    }
    for (uint64_t i = 0; i < n; i++) {
        write_pieces(out, i, data[i], (size_t)sizes[i]);
        mem_free(data[i]);
    }
}
