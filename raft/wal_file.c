/* The log's files: made once, filled with zeros, written again and again. */
#include <stdio.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "raft/wal_internal.h"

#define FILL_STEP ((size_t)1 << 20)
/* With no space on the device another file is tried again after this. */
#define FILL_AGAIN_MS 1000
/* A log that was never used to this point needs no second file yet. */
#define FILL_AFTER_BYTES ((uint64_t)256 << 10)

void wal_file_path(const char *dir, uint32_t number, char out[512])
{
    int n = snprintf(out, 512, "%s/wal-%08u.log", dir, number);
    ASSERT(n > 0 && n < 512);
}

struct wal_file *wal_file_add(struct wal *wal, struct env_file *file,
                              uint64_t bytes)
{
    ASSERT(wal->n_files < WAL_FILES_MAX && bytes % WAL_BLOCK == 0);
    struct wal_file *added = mem_zalloc(sizeof *added);
    size_t n = wal->n_files + (size_t)1;
    added->number = wal->n_files + 1;
    added->bytes = bytes;
    added->made = bytes;
    added->file = file;
    added->state = WAL_FILE_FREE;
    wal->files = mem_realloc(wal->files, n * sizeof(struct wal_file *));
    wal->used = mem_realloc(wal->used, n * sizeof(struct wal_file *));
    wal->files[wal->n_files++] = added;
    wal->bytes_total += bytes;
    return added;
}

void wal_file_drop_last(struct wal *wal)
{
    struct wal_file *file = wal->files[--wal->n_files];
    ASSERT(file->state == WAL_FILE_FREE);
    wal->bytes_total -= file->bytes;
    env_file_close(file->file);
    mem_free(file->pins.v);
    mem_free(file);
}

void wal_files_close(struct wal *wal)
{
    for (uint32_t k = 0; k < wal->n_files; k++) {
        struct wal_file *file = wal->files[k];
        env_file_close(file->file);
        mem_free(file->pins.v);
        mem_free(file);
    }
    mem_free(wal->files);
    mem_free(wal->used);
    wal->files = wal->used = NULL;
    wal->n_files = wal->n_used = 0;
    wal->bytes_total = 0;
}

struct wal_file *wal_file_current(const struct wal *wal)
{
    ASSERT(wal->n_used > 0);
    return wal->used[wal->n_used - 1];
}

uint64_t wal_file_limit(const struct wal_file *file)
{
    return file->bytes > 2 * WAL_BLOCK ? file->bytes - 2 * WAL_BLOCK : 0;
}

uint32_t wal_files_free(const struct wal *wal)
{
    uint32_t n = 0;
    for (uint32_t k = 0; k < wal->n_files; k++) {
        n += wal->files[k]->state == WAL_FILE_FREE;
    }
    return n;
}

void wal_file_use(struct wal *wal, struct wal_file *file, uint64_t generation)
{
    ASSERT(file->state == WAL_FILE_FREE);
    ASSERT(generation > wal->generation);
    file->state = WAL_FILE_USED;
    file->generation = generation;
    wal_pins_clear(&file->pins);
    wal->used[wal->n_used++] = file;
    wal->generation = generation;
    wal->file_at = 0;
}

/* The free file with the lowest number that has room for `bytes`. */
static struct wal_file *free_file(const struct wal *wal, uint64_t bytes)
{
    struct wal_file *best = NULL;
    for (uint32_t k = 0; k < wal->n_files; k++) {
        struct wal_file *file = wal->files[k];
        if (file->state != WAL_FILE_FREE) {
            continue;
        }
        if (bytes <= wal_file_limit(file)) {
            return file;
        }
        best = best == NULL || best->bytes < file->bytes ? file : best;
    }
    return best;
}

bool wal_file_switch(struct wal *wal, uint64_t bytes)
{
    struct wal_file *file = free_file(wal, wal->begin_bytes + bytes);
    ASSERT(!wal->beginning && wal->open == NULL);
    if (file == NULL) {
        return false;
    }
    /* Overwriting it must be safe whatever of it tears. */
    ASSERT(file->generation < wal->oldest_durable);
    if (file->bytes > wal->options.file_bytes) { /* it had grown */
        wal->bytes_total -= file->bytes - wal->options.file_bytes;
        file->bytes = wal->options.file_bytes;
    }
    wal_file_use(wal, file, wal->generation + 1);
    wal->files_begun++;
    wal->beginning = true;
    wal->ops.file_begins(wal->arg);
    wal->beginning = false;
    wal->begin_bytes = wal_file_end(wal);
    wal->relog_wanted = wal_files_free(wal) == 0 && !wal_fill_possible(wal);
    wal_turn_defer(wal);
    return true;
}

bool wal_file_is_settled(struct wal_file *file)
{
    struct wal_pins *pins = &file->pins;
    for (; pins->done < pins->n; pins->done++) {
        const struct wal_pin *pin = &pins->v[pins->done];
        if (pin->group != NULL && pin->group->settled.v < pin->upto.v) {
            return false;
        }
    }
    return true;
}

void wal_files_retire(struct wal *wal)
{
    bool any = false;
    while (wal->n_used > 1 && wal_file_is_settled(wal->used[0])) {
        wal->used[0]->state = WAL_FILE_RETIRED;
        wal_pins_clear(&wal->used[0]->pins);
        wal->n_used--;
        memmove(wal->used, wal->used + 1, wal->n_used * sizeof *wal->used);
        any = true;
    }
    if (any) {
        /* A header may say so only when all that was logged meanwhile
         * (repeated entries, truncations, the newer copies of terms) is
         * durable. */
        wal->oldest_wanted = wal->used[0]->generation;
        wal->oldest_after = wal->next_position - 1;
        wal->checkpoint_wanted = wal->checkpoint_seq;
    }
}

void wal_files_free_below(struct wal *wal, uint64_t oldest)
{
    for (uint32_t k = 0; k < wal->n_files; k++) {
        struct wal_file *file = wal->files[k];
        if (file->state == WAL_FILE_RETIRED && file->generation < oldest) {
            file->state = WAL_FILE_FREE;
            wal_room_changed(wal);
        }
    }
}

/* ---- another file -------------------------------------------------------- */
bool wal_fill_possible(const struct wal *wal)
{
    return wal->fill != NULL ||
           (!wal->fill_wait && wal->n_files < WAL_FILES_MAX &&
            wal->bytes_total + wal->options.file_bytes <=
                wal->options.bytes_max);
}

/* Fills with zeros, on a worker or blocking. */
static enum err fill_zeros(struct env_file *file, uint64_t from, uint64_t bytes)
{
    void *zeros = mem_alloc_aligned(WAL_BLOCK, FILL_STEP);
    enum err e = ERR_OK;
    memset(zeros, 0, FILL_STEP);
    for (uint64_t at = from; at < bytes && e == ERR_OK;) {
        uint64_t rest = bytes - at;
        struct iovec iov = {zeros, rest < FILL_STEP ? rest : FILL_STEP};
        e = env_file_pwritev(file, &iov, 1, at, false);
        at += iov.iov_len;
    }
    mem_free_aligned(zeros);
    return e == ERR_OK ? env_file_sync(file) : e;
}

/* What a file of this name holds is none of the log's: it would count once the
 * file is named. */
static enum err file_empty(struct env_file *file)
{
    uint64_t size = 0;
    enum err e = env_file_size(file, &size);
    return e == ERR_OK && size > 0 ? env_file_truncate(file, 0) : e;
}

static enum err fill_file(struct env *env, const char *dir, const char *path,
                          uint64_t bytes, struct env_file **out)
{
    enum err e = env_file_open(
        env, path,
        ENV_FILE_READ | ENV_FILE_WRITE | ENV_FILE_CREATE | ENV_FILE_DIRECT,
        out);
    if (e != ERR_OK) {
        *out = NULL;
        return e;
    }
    e = file_empty(*out);
    if (e == ERR_OK) {
        e = fill_zeros(*out, 0, bytes);
    }
    if (e == ERR_OK) {
        e = env_dir_sync(env, dir); /* before wal.meta names it */
    }
    if (e != ERR_OK) {
        env_file_close(*out);
        *out = NULL;
        if (env_file_unlink(env, path) != ERR_OK) {
            log_warn("wal", "cannot remove %s", path);
        }
    }
    return e;
}

/* What wal.meta says when file `number` (0: none) has `bytes`. */
static uint8_t *meta_make(const struct wal *wal, uint32_t number,
                          uint64_t bytes, size_t *size)
{
    uint32_t n = wal->n_files + (number > wal->n_files);
    uint64_t *sizes = mem_alloc(sizeof *sizes * (n + (size_t)1));
    for (uint32_t k = 0; k < n; k++) {
        sizes[k] = k + 1 == number ? bytes : wal->files[k]->made;
    }
    struct wal_meta meta = {.log_id = wal->log_id,
                            .made_ms = wal->made_ms,
                            .n_files = n,
                            .bytes = sizes};
    *size = wal_meta_bytes(n);
    uint8_t *out = mem_alloc(*size);
    wal_meta_encode(&meta, out);
    mem_free(sizes);
    return out;
}

void wal_meta_path(const char *dir, char out[512])
{
    int n = snprintf(out, 512, "%s/wal.meta", dir);
    ASSERT(n > 0 && n < 512);
}

enum err wal_meta_write(struct wal *wal)
{
    char path[512];
    size_t size;
    uint8_t *bytes = meta_make(wal, 0, 0, &size);
    wal_meta_path(wal->dir, path);
    enum err e = env_file_write_whole(wal->env, path, bytes, size);
    mem_free(bytes);
    return e;
}

enum err wal_file_make_first(struct wal *wal)
{
    char path[512];
    struct env_file *file;
    uint64_t bytes = wal_align(wal->options.file_bytes / 2, WAL_BLOCK);
    bytes =
        bytes < LIMIT_WAL_FIRST_FILE_BYTES ? bytes : LIMIT_WAL_FIRST_FILE_BYTES;
    wal_file_path(wal->dir, 1, path);
    enum err e = fill_file(wal->env, wal->dir, path, bytes, &file);
    if (e != ERR_OK) {
        return e;
    }
    wal_file_add(wal, file, bytes);
    return wal_meta_write(wal);
}

static void fill_run(struct env_work *work)
{
    struct wal_fill *fill = work->arg;
    if (fill->extends != NULL) {
        fill->status =
            fill_zeros(fill->extends->file, fill->extends->bytes, fill->bytes);
    } else {
        fill->status = fill_file(work->env, fill->dir, fill->path, fill->bytes,
                                 &fill->file);
    }
    if (fill->status == ERR_OK) {
        fill->status = env_file_write_whole(work->env, fill->meta_path,
                                            fill->meta, fill->meta_size);
    }
}

static void fill_ok(struct wal *wal, struct wal_fill *fill)
{
    if (wal->fill_told) {
        wal->fill_told = false;
        log_info("wal", "there is space for another log file again path=%s",
                 fill->path);
    }
    if (fill->extends == NULL) {
        wal_file_add(wal, fill->file, fill->bytes);
    } else {
        wal->bytes_total += fill->bytes - fill->extends->bytes;
        fill->extends->bytes = fill->bytes;
        fill->extends->made = fill->bytes;
    }
}

static void fill_failed(struct wal *wal, struct wal_fill *fill)
{
    if (fill->file != NULL) {
        env_file_close(fill->file);
    }
    if (fill->status != ERR_NOSPACE) {
        env_fatal(wal->env, "cannot make log file %s: %s", fill->path,
                  err_text(fill->status));
    }
    /* Room comes by recycling, or when space does; tried again and again, told
     * once. */
    if (!wal->fill_told) {
        log_warn("wal",
                 "no space for another log file: what is there is used again "
                 "as it settles, writing may have to wait; make room path=%s "
                 "bytes=%llu",
                 fill->path, (unsigned long long)fill->bytes);
    }
    wal->fill_told = true;
    wal->fill_wait = true;
    wal->relog_wanted = wal_files_free(wal) == 0;
    if (!wal->closing) {
        env_timer_start(&wal->fill_timer, FILL_AGAIN_MS);
    }
}

static void fill_done(struct env_work *work)
{
    struct wal_fill *fill = work->arg;
    struct wal *wal = fill->wal;
    if (fill->status == ERR_OK) {
        fill_ok(wal, fill);
    } else {
        fill_failed(wal, fill);
    }
    if (fill->extends != NULL) {
        fill->extends->state = WAL_FILE_FREE;
    }
    wal->fill = NULL;
    mem_free(fill->meta);
    mem_free(fill);
    if (wal->closing) {
        wal_close_step(wal);
    } else {
        wal_room_changed(wal);
        wal_turn_defer(wal);
    }
}

static bool fill_needed(const struct wal *wal)
{
    if (wal->n_files == 1 && !wal->fill_asked &&
        wal->file_at < FILL_AFTER_BYTES &&
        wal->file_at < wal->files[0]->bytes / 4) {
        return false;
    }
    for (uint32_t k = 0; k < wal->n_files; k++) {
        if (wal->files[k]->state != WAL_FILE_USED) {
            return false;
        }
    }
    return true;
}

/* The small first file, when it is free and not needed soon. */
static struct wal_file *fill_extends(const struct wal *wal)
{
    const struct wal_file *current = wal_file_current(wal);
    uint64_t full = wal->options.file_bytes;
    if (current->bytes < full || wal->file_at > current->bytes / 2) {
        return NULL;
    }
    for (uint32_t k = 0; k < wal->n_files; k++) {
        struct wal_file *file = wal->files[k];
        if (file->state == WAL_FILE_FREE && file->bytes < full &&
            wal->bytes_total - file->bytes + full <= wal->options.bytes_max) {
            return file;
        }
    }
    return NULL;
}

static void fill_begin(struct wal *wal, struct wal_file *extends)
{
    uint32_t number = extends != NULL ? extends->number : wal->n_files + 1;
    struct wal_fill *fill = mem_zalloc(sizeof *fill);
    fill->wal = wal;
    fill->extends = extends;
    fill->bytes = wal->options.file_bytes;
    fill->meta = meta_make(wal, number, fill->bytes, &fill->meta_size);
    wal_file_path(wal->dir, number, fill->path);
    wal_meta_path(wal->dir, fill->meta_path);
    memcpy(fill->dir, wal->dir, sizeof fill->dir);
    fill->work = (struct env_work){
        .run = fill_run, .done = fill_done, .arg = fill, .env = wal->env};
    wal->fill = fill;
    env_work_submit(wal->env, ENV_POOL_IO, &fill->work);
}

void wal_fill_maybe(struct wal *wal)
{
    if (wal->fill != NULL || wal->fill_wait) {
        return;
    }
    struct wal_file *extends = fill_extends(wal);
    if (extends != NULL) {
        extends->state = WAL_FILE_FILLING;
        fill_begin(wal, extends);
    } else if (wal_fill_possible(wal) && fill_needed(wal)) {
        wal->fill_asked = false;
        fill_begin(wal, NULL);
    }
}

void wal_fill_again(struct env_timer *timer)
{
    struct wal *wal = timer->arg;
    wal->fill_wait = false;
    wal_turn_defer(wal);
}
