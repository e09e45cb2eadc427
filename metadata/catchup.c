/* Transfer of the metadata snapshot to a broker that was away longer than the
 * leader's window (raft/catchup.h). The manifest is the reference of one
 * snapshot file; its bytes are fetched into `metadata.received`, checked as a
 * whole, and renamed.
 *
 * manifest: u8 version (1), u64 index, u64 size of the body, u32 CRC of the
 * body: the same as the checkpoint's blob. */
#include <stdio.h>

#include "base/assert.h"
#include "base/mem.h"
#include "metadata/metadata_impl.h"
#include "raft/catchup.h"

#define RECEIVED_NAME "metadata.received"

/* What a worker needs; owned by the job. */
struct transfer {
    struct env *env;
    char path[LIMIT_PATH];
};

struct finishing {
    struct env *env;
    char *dir;
    struct snapshot_ref ref;
    struct settle_job *job;
};

static struct transfer *transfer_new(struct metadata *m)
{
    struct transfer *t = mem_zalloc(sizeof *t);
    t->env = m->env;
    return t;
}

static uint64_t file_size(const struct snapshot_ref *ref)
{
    return ref->index.v == 0 ? 0 : ref->size + SNAPSHOT_HEAD;
}

/* ---- leader -------------------------------------------------------------- */
static enum err manifest_make(void *sm, log_index settled, struct buffer *out)
{
    struct metadata *m = sm;
    uint8_t bytes[SNAPSHOT_BLOB];
    ASSERT(m->snapshot.index.v <= settled.v);
    snapshot_blob_write(&m->snapshot, bytes);
    buffer_append(out, bytes, sizeof bytes);
    return ERR_OK;
}

static void lease(void *sm, bool held)
{
    struct metadata *m = sm;
    m->leased = held;
}

static enum err read_run(struct catchup_job *job)
{
    struct transfer *t = job->arg;
    struct env_file *file;
    size_t got = 0;
    enum err e = env_file_open(t->env, t->path, ENV_FILE_READ, &file);
    if (e != ERR_OK) {
        return e;
    }
    e = env_file_pread(file, job->data, job->range.size, job->range.offset,
                       &got);
    env_file_close(file);
    return e == ERR_OK && got != job->range.size ? ERR_NOT_FOUND : e;
}

static enum err read_begin(void *sm, struct catchup_job *job)
{
    struct metadata *m = sm;
    if (job->range.file == 0 || job->range.file > m->applied.v) {
        return ERR_NOT_FOUND;
    }
    struct transfer *t = transfer_new(m);
    snapshot_path(m->options.dir, (log_index){job->range.file}, t->path);
    job->arg = t;
    job->run = read_run;
    return ERR_OK;
}

static void job_end(void *sm, struct catchup_job *job)
{
    (void)sm;
    mem_free(job->arg);
    job->arg = NULL;
}

/* ---- follower ------------------------------------------------------------ */
static enum err receive_begin(void *sm, log_index index, raft_term_t term,
                              const uint8_t *manifest, size_t size)
{
    struct metadata *m = sm;
    struct snapshot_ref ref;
    (void)term;
    if (snapshot_blob_read(manifest, size, &ref) != ERR_OK ||
        ref.index.v > index.v) {
        return ERR_INVALID;
    }
    if (ref.index.v != m->receiving.index.v || ref.crc != m->receiving.crc ||
        ref.size != m->receiving.size) {
        m->receiving = ref;
        m->received = 0;
        m->receive_next = 0;
    }
    return ERR_OK;
}

static bool receive_next(void *sm, struct catchup_range *out)
{
    struct metadata *m = sm;
    uint64_t left = file_size(&m->receiving) - m->receive_next;
    if (left == 0) {
        return false;
    }
    out->file = m->receiving.index.v;
    out->offset = m->receive_next;
    out->size = left < CATCHUP_RANGE_MAX ? (uint32_t)left : CATCHUP_RANGE_MAX;
    m->receive_next += out->size;
    return true;
}

static void receive_progress(const void *sm, uint64_t *left, uint64_t *all)
{
    const struct metadata *m = sm;
    *all = file_size(&m->receiving);
    *left = *all - m->received;
}

static enum err write_run(struct catchup_job *job)
{
    struct transfer *t = job->arg;
    struct env_file *file;
    struct iovec iov = {job->data, job->range.size};
    enum err e =
        env_file_open(t->env, t->path, ENV_FILE_WRITE | ENV_FILE_CREATE, &file);
    if (e != ERR_OK) {
        return e;
    }
    e = env_file_pwritev(file, &iov, 1, job->range.offset, false);
    env_file_close(file);
    return e;
}

static void received_path(const char *dir, char path[LIMIT_PATH])
{
    snprintf(path, LIMIT_PATH, "%s/%s", dir, RECEIVED_NAME);
}

static enum err write_begin(void *sm, struct catchup_job *job)
{
    struct metadata *m = sm;
    struct transfer *t = transfer_new(m);
    received_path(m->options.dir, t->path);
    job->arg = t;
    job->run = write_run;
    return ERR_OK;
}

static void write_end(void *sm, struct catchup_job *job)
{
    struct metadata *m = sm;
    if (m != NULL && job->status == ERR_OK &&
        job->range.file == m->receiving.index.v) {
        m->received += job->range.size;
    }
    job_end(sm, job);
}

static enum err check_batch(void *arg, const uint8_t *batch, size_t size)
{
    return image_apply(arg, (log_index){1}, batch, size, NULL, NULL);
}

/* Reads what was received, checks all of it, and gives it its name. A file of
 * an earlier transfer may have been longer: it is cut. */
static enum err finish_run(struct settle_job *job)
{
    struct finishing *f = job->arg;
    char from[LIMIT_PATH], to[LIMIT_PATH];
    void *data = NULL;
    size_t size = 0;
    if (f->ref.index.v == 0) {
        return ERR_OK;
    }
    received_path(f->dir, from);
    snapshot_path(f->dir, f->ref.index, to);
    enum err e = env_file_read_whole(
        f->env, from, LIMIT_METADATA_SNAPSHOT + SNAPSHOT_HEAD, &data, &size);
    if (e != ERR_OK) {
        return e;
    }
    struct image *image = image_new();
    e = size < file_size(&f->ref)
            ? ERR_CORRUPT
            : snapshot_parse(data, (size_t)file_size(&f->ref), &f->ref,
                             check_batch, image);
    image_free(image);
    mem_free(data);
    struct env_file *file = NULL;
    if (e == ERR_OK) {
        e = env_file_open(f->env, from, ENV_FILE_WRITE, &file);
    }
    if (e == ERR_OK) {
        e = env_file_truncate(file, file_size(&f->ref));
    }
    if (e == ERR_OK) {
        e = env_file_rename(f->env, from, to);
    }
    if (e == ERR_OK) {
        job->files[0] = file;
        job->n_files = 1;
        job->dirs[0] = f->dir;
        job->n_dirs = 1;
    } else if (file != NULL) {
        env_file_close(file);
    }
    return e;
}

static void receive_finish(void *sm, struct settle_job *job)
{
    struct metadata *m = sm;
    struct finishing *f = mem_zalloc(sizeof *f);
    f->env = m->env;
    f->dir = mem_strdup(m->options.dir);
    f->ref = m->receiving;
    f->job = job;
    m->finishing = f;
    snapshot_blob_write(&f->ref, job->blob);
    job->blob_size = SNAPSHOT_BLOB;
    job->run = finish_run;
    job->arg = f;
}

static void receive_end(void *sm, bool switched)
{
    struct metadata *m = sm;
    struct finishing *f = m->finishing;
    (void)switched; /* `restore` takes the new snapshot's name over */
    if (f != NULL) {
        if (f->job->n_files == 1) {
            env_file_close(f->job->files[0]);
            f->job->n_files = 0;
        }
        mem_free(f->dir);
        mem_free(f);
        m->finishing = NULL;
    }
    memset(&m->receiving, 0, sizeof m->receiving);
    m->received = 0;
    m->receive_next = 0;
}

const struct catchup_ops metadata_catchup_ops = {
    .manifest_make = manifest_make,
    .lease = lease,
    .read_begin = read_begin,
    .read_end = job_end,
    .receive_begin = receive_begin,
    .receive_next = receive_next,
    .receive_progress = receive_progress,
    .write_begin = write_begin,
    .write_end = write_end,
    .receive_finish = receive_finish,
    .receive_end = receive_end,
};
