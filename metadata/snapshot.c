#include "metadata/snapshot.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/limits.h"
#include "base/mem.h"
#include "metadata/codec.h"

static const char magic[8] = {'F', 'L', 'M', 'D', 'S', 'N', 'A', 'P'};

static void add_batch(void *arg, const uint8_t *batch, size_t size)
{
    codec_put_blob(arg, batch, (uint32_t)size);
}

void snapshot_make(const struct image *image, struct buffer *out,
                   struct snapshot_ref *ref)
{
    struct buffer head = {0};
    uint8_t room[SNAPSHOT_HEAD] = {0};
    ASSERT(out->size == 0);
    buffer_append(out, room, sizeof room);
    image_dump(image, add_batch, out);
    ref->index = image_version(image);
    ref->size = out->size - SNAPSHOT_HEAD;
    ref->crc = crc32c(0, out->data + SNAPSHOT_HEAD, (size_t)ref->size);
    buffer_append(&head, magic, sizeof magic);
    codec_put_u64(&head, ref->index.v);
    codec_put_u64(&head, ref->size);
    codec_put_u32(&head, ref->crc);
    codec_put_u32(&head, crc32c(0, head.data, head.size));
    ASSERT(head.size == SNAPSHOT_HEAD);
    memcpy(out->data, head.data, SNAPSHOT_HEAD);
    buffer_free(&head);
}

void snapshot_path(const char *dir, log_index index, char path[4096])
{
    snprintf(path, LIMIT_PATH, "%s/metadata-%llu.snapshot", dir,
             (unsigned long long)index.v);
}

void snapshot_blob_write(const struct snapshot_ref *ref,
                         uint8_t blob[SNAPSHOT_BLOB])
{
    struct buffer b = {0};
    codec_put_u8(&b, 1);
    codec_put_u64(&b, ref->index.v);
    codec_put_u64(&b, ref->size);
    codec_put_u32(&b, ref->crc);
    ASSERT(b.size == SNAPSHOT_BLOB);
    memcpy(blob, b.data, SNAPSHOT_BLOB);
    buffer_free(&b);
}

enum err snapshot_blob_read(const uint8_t *blob, size_t size,
                            struct snapshot_ref *out)
{
    struct reader r = codec_reader(blob, size);
    uint8_t version = codec_get_u8(&r);
    out->index.v = codec_get_u64(&r);
    out->size = codec_get_u64(&r);
    out->crc = codec_get_u32(&r);
    return codec_done(&r) && version == 1 &&
                   out->size <= LIMIT_METADATA_SNAPSHOT
               ? ERR_OK
               : ERR_CORRUPT;
}

/* ---- files --------------------------------------------------------------- */
struct removing {
    struct env *env;
    const char *dir;
    uint64_t keep[3];
};

/* Index in a snapshot's name; 0: another file. */
static uint64_t index_of_name(const char *name)
{
    static const char prefix[] = "metadata-";
    char *end;
    if (strncmp(name, prefix, sizeof prefix - 1) != 0) {
        return 0;
    }
    uint64_t index = strtoull(name + sizeof prefix - 1, &end, 10);
    return strcmp(end, ".snapshot") == 0 ? index : 0;
}

static void remove_old(void *arg, const char *name)
{
    const struct removing *r = arg;
    char path[LIMIT_PATH];
    uint64_t index = index_of_name(name);
    if (index == 0) {
        return;
    }
    for (int i = 0; i < 3; i++) {
        if (r->keep[i] == index) {
            return;
        }
    }
    snapshot_path(r->dir, (log_index){index}, path);
    (void)!env_file_unlink(r->env, path); /* tried again next time */
}

enum err snapshot_write(struct env *env, const char *dir,
                        const struct buffer *bytes,
                        const struct snapshot_ref *ref, const log_index *keep,
                        struct env_file **file)
{
    char path[LIMIT_PATH];
    enum err e = ERR_OK;
    *file = NULL;
    if (keep != NULL) {
        struct removing removing = {
            env, dir, {keep[0].v, keep[1].v, ref->index.v}};
        e = env_dir_list(env, dir, remove_old, &removing);
    }
    if (e != ERR_OK) {
        return e;
    }
    snapshot_path(dir, ref->index, path);
    e = env_file_open(env, path, ENV_FILE_WRITE | ENV_FILE_CREATE, file);
    if (e != ERR_OK) {
        return e;
    }
    /* What an attempt before left behind. */
    e = env_file_truncate(*file, 0);
    if (e == ERR_OK) {
        struct iovec iov = {bytes->data, bytes->size};
        e = env_file_pwritev(*file, &iov, 1, 0, false);
    }
    if (e != ERR_OK) {
        env_file_close(*file);
        *file = NULL;
    }
    return e;
}

enum err snapshot_parse(const uint8_t *data, size_t size,
                        const struct snapshot_ref *ref,
                        enum err (*each)(void *arg, const uint8_t *batch,
                                         size_t batch_size),
                        void *arg)
{
    struct reader r = codec_reader(data, size);
    const uint8_t *begin = codec_take(&r, sizeof magic);
    uint64_t index = codec_get_u64(&r);
    uint64_t body = codec_get_u64(&r);
    uint32_t crc = codec_get_u32(&r);
    uint32_t head_crc = codec_get_u32(&r);
    if (!codec_ok(&r) || memcmp(begin, magic, sizeof magic) != 0 ||
        crc32c(0, data, SNAPSHOT_HEAD - 4) != head_crc ||
        index != ref->index.v || body != ref->size || body != r.left ||
        crc != ref->crc || crc32c(0, r.at, r.left) != crc) {
        return ERR_CORRUPT;
    }
    enum err e = ERR_OK;
    while (e == ERR_OK && r.left > 0) {
        uint32_t n;
        const uint8_t *batch = codec_get_blob(&r, &n);
        e = batch == NULL ? ERR_CORRUPT : each(arg, batch, n);
    }
    return e;
}

enum err snapshot_read(
    struct env *env, const char *dir, const struct snapshot_ref *ref,
    enum err (*each)(void *arg, const uint8_t *batch, size_t size), void *arg)
{
    char path[LIMIT_PATH];
    void *data;
    size_t size;
    snapshot_path(dir, ref->index, path);
    enum err e = env_file_read_whole(
        env, path, LIMIT_METADATA_SNAPSHOT + SNAPSHOT_HEAD, &data, &size);
    if (e != ERR_OK) {
        return e;
    }
    e = snapshot_parse(data, size, ref, each, arg);
    mem_free(data);
    return e;
}
