/* Finds out what the log's files hold. Reads only; nothing is changed unless
 * all of it is understood.
 *
 *   1. wal.meta says which files there must be.
 *   2. The first flush of each file gives its generation; the last flush of
 *      the newest file says how far back recovery must go.
 *   3. From there on, file by file, each flush must name the one before it.
 *   4. What follows the last valid flush is torn only if no valid flush lies
 *      behind it. */
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "raft/wal_replay.h"
#include "raft/wal_salvage.h"

#define READ_STEP ((size_t)1 << 20)
/* A flush is at most this long, so no flush hides in a longer run of zeros. */
#define FLUSH_BYTES_MAX ((size_t)LIMIT_WAL_ENTRY_BYTES + LIMIT_LOG_CHUNK_BYTES)

/* Damage is looked through as far as that. */
#define SALVAGE_BYTES_MAX (4 * FLUSH_BYTES_MAX)

/* A window of one file. */
struct reader {
    struct wal_file *file;
    uint64_t from;
    size_t have;
    size_t capacity;
    uint8_t *data;
};

struct last_flush {
    bool any;
    struct wal_flush_header header;
    uint64_t end; /* of it in its file */
};

struct recover {
    struct wal *wal;
    struct reader reader;
    struct replay replay;
    struct last_flush last;
    uint32_t n_names;
    bool meta_found;
    bool meta_lost; /* it is there and cannot be read */
    bool unmade;    /* then: the last file is too short to hold anything */
    /* No valid flush lies at or behind it. */
    const struct wal_file *end_file;
    uint64_t end_at;
};

static enum err damaged(const struct recover *r, const struct wal_file *file,
                        uint64_t at, const char *why)
{
    log_error("wal",
              "damaged: %s/wal-%08u.log at byte %llu (after position %llu): "
              "%s; nothing was changed",
              r->wal->dir, file->number, (unsigned long long)at,
              (unsigned long long)(r->last.any ? r->last.header.position +
                                                     r->last.header.n_frames - 1
                                               : 0),
              why);
    return ERR_CORRUPT;
}

/* ---- reading ------------------------------------------------------------- */
/* Bytes [at, at + size) of the file, whole blocks within it; valid until the
 * next call. */
static enum err read_at(struct recover *r, struct wal_file *file, uint64_t at,
                        size_t size, const uint8_t **out)
{
    struct reader *reader = &r->reader;
    ASSERT(at + size <= file->bytes);
    if (reader->file != file || at < reader->from ||
        at + size > reader->from + reader->have) {
        uint64_t rest = file->bytes - at;
        size_t want = size > READ_STEP ? size : READ_STEP;
        want = want > rest ? (size_t)rest : want;
        if (reader->capacity < want) {
            mem_free_aligned(reader->data);
            reader->data = mem_alloc_aligned(WAL_BLOCK, want);
            reader->capacity = want;
        }
        reader->file = NULL;
        size_t got = 0;
        enum err e = env_file_pread(file->file, reader->data, want, at, &got);
        if (e != ERR_OK || got < size) {
            log_error("wal", "cannot read %s/wal-%08u.log at byte %llu: %s",
                      r->wal->dir, file->number, (unsigned long long)at,
                      e == ERR_OK ? "it is too short" : err_text(e));
            return e == ERR_OK ? ERR_CORRUPT : e;
        }
        reader->file = file;
        reader->from = at;
        reader->have = got;
    }
    *out = reader->data + (at - reader->from);
    return ERR_OK;
}

/* A valid flush of this log at `at`? `*why` says why not. */
static enum err flush_at(struct recover *r, struct wal_file *file, uint64_t at,
                         struct wal_flush_header *header, const uint8_t **data,
                         const char **why)
{
    *why = NULL;
    enum err e = read_at(r, file, at, WAL_BLOCK, data);
    if (e != ERR_OK) {
        return e;
    }
    if (!wal_flush_read(*data, header)) {
        *why = "no flush header";
    } else if (header->log_id != r->wal->log_id) {
        *why = "a flush of another log";
    } else if (header->length > file->bytes - at ||
               header->length > FLUSH_BYTES_MAX) {
        *why = "a flush longer than possible";
    }
    if (*why != NULL) {
        return ERR_OK;
    }
    e = read_at(r, file, at, header->length, data);
    if (e == ERR_OK && !wal_flush_check(*data, header)) {
        *why = "wrong checksum of a flush";
    }
    return e;
}

static bool is_zero(const uint8_t *block)
{
    return block[0] == 0 && memcmp(block, block + 1, WAL_BLOCK - 1) == 0;
}

/* Looks for a valid flush of at least this generation; *found is its offset
 * or UINT64_MAX. */
static enum err find_later(struct recover *r, struct wal_file *file,
                           uint64_t at, uint64_t generation, uint64_t *found)
{
    uint64_t zeros = 0;
    *found = UINT64_MAX;
    for (; at + WAL_BLOCK <= file->bytes && zeros <= FLUSH_BYTES_MAX;
         at += WAL_BLOCK) {
        struct wal_flush_header header;
        const uint8_t *data;
        const char *why;
        enum err e = read_at(r, file, at, WAL_BLOCK, &data);
        if (e != ERR_OK) {
            return e;
        }
        zeros = is_zero(data) ? zeros + WAL_BLOCK : 0;
        if (!wal_flush_read(data, &header) || header.log_id != r->wal->log_id ||
            header.generation < generation) {
            continue;
        }
        e = flush_at(r, file, at, &header, &data, &why);
        if (e != ERR_OK) {
            return e;
        }
        if (why == NULL) {
            *found = at;
            return ERR_OK;
        }
    }
    return ERR_OK;
}

/* ---- flushes ------------------------------------------------------------- */
static enum err replay_flush(struct recover *r, struct wal_file *file,
                             uint64_t at, const struct wal_flush_header *header,
                             const uint8_t *data)
{
    uint64_t from = WAL_FLUSH_HEADER;
    for (uint32_t k = 0; k < header->n_frames; k++) {
        struct wal_frame frame;
        uint64_t position = header->position + k;
        uint64_t length = wal_frame_read(data + from, header->length - from,
                                         header->generation, position, &frame);
        if (length == 0) {
            return damaged(r, file, at + from, "a damaged frame");
        }
        enum err e =
            replay_frame(&r->replay, file, &frame, data + from, position);
        if (e != ERR_OK) {
            return damaged(r, file, at + from, r->replay.why);
        }
        from += length;
    }
    return ERR_OK;
}

static const char *chain_fault(const struct last_flush *last,
                               const struct wal_flush_header *header)
{
    if (!last->any) {
        return NULL;
    }
    if (header->prev_position != last->header.position ||
        header->prev_crc != last->header.crc) {
        return "a flush that does not follow the one before it";
    }
    if (header->position < last->header.position + last->header.n_frames ||
        header->generation < last->header.generation ||
        header->oldest < last->header.oldest ||
        header->checkpoint < last->header.checkpoint) {
        return "a flush whose numbers go back";
    }
    return NULL;
}

/* What is damaged between here and a valid flush behind it, `end` bytes from
 * the file's beginning. */
static enum err salvage_region(struct recover *r, struct wal_file *file,
                               uint64_t at, uint64_t end,
                               const struct wal_flush_header *next, bool replay)
{
    const struct last_flush *last = &r->last;
    struct salvage s = {
        .replay = replay ? &r->replay : NULL,
        .file = file,
        .log_id = r->wal->log_id,
        .size = end - at,
        .position =
            last->any ? last->header.position + last->header.n_frames : 0,
        .next = next,
    };
    if (s.size > SALVAGE_BYTES_MAX) {
        return damaged(r, file, at, "too much of it");
    }
    r->replay.damaged = true;
    enum err e = read_at(r, file, at, s.size, &s.data);
    if (e == ERR_OK) {
        e = wal_salvage(&s);
    }
    if (e == ERR_CORRUPT) {
        return damaged(r, file, at, r->replay.why);
    }
    if (e == ERR_OK && replay) {
        log_error("wal",
                  "damaged: %s/wal-%08u.log at bytes %llu to %llu: of its "
                  "records %llu are good, %llu have damaged content, %llu are "
                  "lost; what is missing is fetched from peers",
                  r->wal->dir, file->number, (unsigned long long)at,
                  (unsigned long long)end, (unsigned long long)s.kept,
                  (unsigned long long)s.faulty, (unsigned long long)s.unknown);
    }
    return e;
}

/* The flush that file begins with does not follow the last valid one of the
 * file before: that one has a damaged end. */
static enum err salvage_end(struct recover *r, struct wal_file *before,
                            const struct wal_flush_header *next, bool replay)
{
    uint64_t end = r->last.end;
    if (before == NULL || !replay) {
        return ERR_OK;
    }
    while (end < before->bytes && end - r->last.end < SALVAGE_BYTES_MAX) {
        const uint8_t *block;
        enum err e = read_at(r, before, end, WAL_BLOCK, &block);
        if (e != ERR_OK) {
            return e;
        }
        if (end > r->last.end && is_zero(block)) {
            break;
        }
        end += WAL_BLOCK;
    }
    return salvage_region(r, before, r->last.end, end, next, replay);
}

/* Does the flush follow the last valid one, over damage in between? */
static bool follows_damage(const struct last_flush *last,
                           const struct wal_flush_header *header)
{
    return !last->any ||
           (header->prev_position >= last->header.position &&
            header->position >= last->header.position + last->header.n_frames &&
            header->generation >= last->header.generation &&
            header->oldest >= last->header.oldest);
}

/* No valid flush at `at`: is there one behind it? Remembers where there was
 * none. */
static enum err find_behind(struct recover *r, struct wal_file *file,
                            uint64_t at, uint64_t *found)
{
    *found = UINT64_MAX;
    if (r->end_file == file && r->end_at == at) {
        return ERR_OK;
    }
    enum err e = find_later(r, file, at, file->generation, found);
    if (e == ERR_OK && *found == UINT64_MAX) {
        r->end_file = file;
        r->end_at = at;
    }
    return e;
}

/* Follows the flushes of one file from its beginning. */
static enum err walk_file(struct recover *r, struct wal_file *before,
                          struct wal_file *file, bool replay)
{
    uint64_t at = 0;
    bool gap = false; /* damage lies before `at` */
    while (at + WAL_BLOCK <= file->bytes) {
        struct wal_flush_header header;
        const uint8_t *data;
        const char *why;
        enum err e = flush_at(r, file, at, &header, &data, &why);
        if (e != ERR_OK) {
            return e;
        }
        if (why != NULL || header.generation != file->generation) {
            uint64_t found;
            e = find_behind(r, file, at, &found);
            if (e != ERR_OK || found == UINT64_MAX) {
                return e;
            }
            e = flush_at(r, file, found, &header, &data, &why);
            if (e == ERR_OK && header.generation != file->generation) {
                /* A lap begins at the file's beginning, so later ones lie in
                 * front of older ones: what it began with was never written. */
                return damaged(r, file, found, "a flush of a later lap");
            }
            if (e == ERR_OK) {
                e = salvage_region(r, file, at, found, &header, replay);
            }
            if (e != ERR_OK) {
                return e;
            }
            at = found;
            gap = true;
            continue;
        }
        why = chain_fault(&r->last, &header);
        if (why != NULL && at == 0 && follows_damage(&r->last, &header)) {
            e = salvage_end(r, before, &header, replay);
            if (e != ERR_OK) {
                return e;
            }
            gap = true;
            e = flush_at(r, file, at, &header, &data, &why);
            if (e != ERR_OK || why != NULL) {
                return e == ERR_OK ? ERR_CORRUPT : e;
            }
        }
        if (gap && follows_damage(&r->last, &header)) {
            why = NULL;
        }
        gap = false;
        if (why != NULL) {
            return damaged(r, file, at, why);
        }
        if (replay) {
            e = replay_flush(r, file, at, &header, data);
            if (e != ERR_OK) {
                return e;
            }
        }
        at += header.length;
        r->last = (struct last_flush){true, header, at};
    }
    return ERR_OK;
}

/* ---- files --------------------------------------------------------------- */
static void note_name(void *arg, const char *name)
{
    struct recover *r = arg;
    size_t n = strlen(name);
    if (strcmp(name, "wal.meta") == 0) {
        r->meta_found = true;
    } else if (n > 8 && strncmp(name, "wal-", 4) == 0 &&
               strcmp(name + n - 4, ".log") == 0) {
        r->n_names++;
    }
}

/* One that wal.meta does not name may be missing: ERR_NOT_FOUND. */
static enum err file_open(struct recover *r, uint32_t number, uint64_t bytes,
                          bool named)
{
    char path[512];
    struct env_file *file;
    uint64_t size = 0;
    wal_file_path(r->wal->dir, number, path);
    enum err e =
        env_file_open(r->wal->env, path,
                      ENV_FILE_READ | ENV_FILE_WRITE | ENV_FILE_DIRECT, &file);
    if (e == ERR_NOT_FOUND && !named) {
        return e;
    }
    if (e != ERR_OK) {
        log_error("wal", "log file %s: %s", path,
                  e == ERR_NOT_FOUND ? "it is missing; the log is not whole"
                                     : err_text(e));
        return e == ERR_NOT_FOUND ? ERR_CORRUPT : e;
    }
    e = env_file_size(file, &size);
    if (e == ERR_OK && r->meta_lost && size < WAL_BLOCK) {
        r->unmade = true; /* it was being made: as if it were not there */
        env_file_close(file);
        return ERR_OK;
    }
    if (e == ERR_OK && (size < bytes || r->unmade)) {
        log_error("wal", "log file %s has %llu bytes and should have %llu",
                  path, (unsigned long long)size, (unsigned long long)bytes);
        e = ERR_CORRUPT;
    }
    if (e != ERR_OK) {
        env_file_close(file);
        return e;
    }
    /* What is beyond wal.meta's size may not be durable. */
    wal_file_add(r->wal, file, size - size % WAL_BLOCK)->made = bytes;
    return ERR_OK;
}

static enum err meta_read(struct recover *r, uint32_t *n, uint64_t *bytes)
{
    char path[512];
    void *data = NULL;
    size_t size = 0;
    struct wal_meta meta;
    wal_meta_path(r->wal->dir, path);
    enum err e = env_file_read_whole(
        r->wal->env, path, wal_meta_bytes(WAL_FILES_MAX), &data, &size);
    if (e != ERR_OK) {
        log_error("wal", "cannot read %s: %s", path, err_text(e));
        return e == ERR_TOO_LARGE ? ERR_CORRUPT : e;
    }
    if (!wal_meta_decode(data, size, &meta, bytes) || meta.n_files == 0) {
        log_error("wal", "damaged: %s; it is made again from the log files",
                  path);
        mem_free(data);
        *n = r->n_names;
        r->meta_lost = true;
        memset(bytes, 0, sizeof *bytes * WAL_FILES_MAX);
        return *n > 0 && *n <= WAL_FILES_MAX ? ERR_OK : ERR_CORRUPT;
    }
    mem_free(data);
    r->wal->log_id = meta.log_id;
    r->wal->made_ms = meta.made_ms;
    *n = meta.n_files;
    return ERR_OK;
}

/* The files from index `from` on are about to be named by a new wal.meta. If
 * only the process died while one was being made, its length and its name may
 * not be durable yet: a power loss would leave a name with nothing behind. */
static enum err files_make_durable(struct wal *wal, uint32_t from)
{
    for (uint32_t k = from; k < wal->n_files; k++) {
        enum err e = env_file_sync(wal->files[k]->file);
        if (e != ERR_OK) {
            return e;
        }
        wal->files[k]->made = wal->files[k]->bytes;
    }
    return env_dir_sync(wal->env, wal->dir);
}

/* The log's id as the first flushes of its files have it. A flush of another
 * log counts as damage later. */
static enum err log_id_find(struct recover *r)
{
    struct wal *wal = r->wal;
    for (uint32_t k = 0; k < wal->n_files; k++) {
        struct wal_flush_header header;
        struct wal_file *file = wal->files[k];
        const uint8_t *data;
        if (wal->log_id != 0 || file->bytes < WAL_BLOCK) {
            continue;
        }
        enum err e = read_at(r, file, 0, WAL_BLOCK, &data);
        if (e == ERR_OK && wal_flush_read(data, &header) &&
            header.length <= file->bytes && header.length <= FLUSH_BYTES_MAX) {
            e = read_at(r, file, 0, header.length, &data);
            if (e == ERR_OK && wal_flush_check(data, &header)) {
                wal->log_id = header.log_id;
            }
        }
        if (e != ERR_OK) {
            return e;
        }
    }
    wal->made_ms = (uint64_t)env_wall_ms(wal->env);
    if (wal->log_id != 0) {
        return files_make_durable(wal, 0);
    }
    log_error("wal", "no file of the log in %s begins with a whole flush",
              wal->dir);
    return ERR_CORRUPT;
}

/* The generation of a file: in its first flush, or, where that one is damaged
 * (or torn, with the content of earlier generations behind it), in the next
 * valid one. 0: none. */
static enum err generation_read(struct recover *r, struct wal_file *file)
{
    struct wal_flush_header header;
    const uint8_t *data;
    const char *why;
    uint64_t found = UINT64_MAX;
    file->generation = 0;
    if (file->bytes < WAL_BLOCK) {
        return ERR_OK;
    }
    enum err e = flush_at(r, file, 0, &header, &data, &why);
    if (e == ERR_OK && why != NULL) {
        e = find_later(r, file, WAL_BLOCK, 1, &found);
        if (e == ERR_OK && found != UINT64_MAX) {
            e = flush_at(r, file, found, &header, &data, &why);
        }
    }
    file->generation = e == ERR_OK && why == NULL ? header.generation : 0;
    return e;
}

/* Files that wal.meta does not name: one that was being made when the process
 * ended holds nothing of this log. Where one does, wal.meta is older than the
 * log, and all files count. */
static enum err extras_open(struct recover *r, uint32_t n)
{
    struct wal *wal = r->wal;
    uint32_t used = n;
    enum err e = ERR_OK;
    for (uint32_t k = n; k < r->n_names && e == ERR_OK; k++) {
        e = file_open(r, k + 1, 0, false);
        if (e == ERR_NOT_FOUND) {
            e = ERR_OK;
            break;
        }
        if (e == ERR_OK) {
            e = generation_read(r, wal->files[k]);
        }
        if (e == ERR_OK && wal->files[k]->generation != 0) {
            used = k + 1;
        }
    }
    if (e != ERR_OK) {
        return e;
    }
    r->reader.file = NULL;
    while (wal->n_files > used) {
        wal_file_drop_last(wal);
    }
    if (used > n) {
        log_error("wal",
                  "damaged: %s/wal.meta is older than the log: it names %u of "
                  "its %u files; it is made again from them",
                  wal->dir, n, used);
        e = files_make_durable(wal, n);
    }
    return e;
}

static enum err files_open(struct recover *r)
{
    uint64_t *bytes = mem_alloc(sizeof *bytes * WAL_FILES_MAX);
    uint32_t n = 0;
    enum err e = meta_read(r, &n, bytes);
    for (uint32_t k = 0; k < n && e == ERR_OK; k++) {
        e = file_open(r, k + 1, bytes[k], true);
    }
    mem_free(bytes);
    if (e == ERR_OK) {
        e = r->meta_lost ? log_id_find(r) : extras_open(r, n);
    }
    return e;
}

static int by_generation(const void *a, const void *b)
{
    const struct wal_file *const *x = a, *const *y = b;
    if ((*x)->generation != (*y)->generation) {
        return (*x)->generation < (*y)->generation ? -1 : 1;
    }
    return (*x)->number < (*y)->number ? -1 : 1;
}

/* Files with a generation, in its order. */
static enum err files_order(struct recover *r, struct wal_file **v, uint32_t *n)
{
    struct wal *wal = r->wal;
    *n = 0;
    for (uint32_t k = 0; k < wal->n_files; k++) {
        enum err e = generation_read(r, wal->files[k]);
        if (e != ERR_OK) {
            return e;
        }
        if (wal->files[k]->generation != 0) {
            v[(*n)++] = wal->files[k];
        }
    }
    qsort(v, *n, sizeof(struct wal_file *), by_generation);
    for (uint32_t k = 1; k < *n; k++) {
        if (v[k]->generation == v[k - 1]->generation) {
            return damaged(r, v[k], 0, "two files have the same generation");
        }
    }
    return ERR_OK;
}

static enum err check_expected(struct recover *r)
{
    const struct wal_expect *expect = &r->wal->options.expect;
    const struct wal_flush_header *last = &r->last.header;
    uint64_t position = r->last.any ? last->position + last->n_frames - 1 : 0;
    if (expect->log_id != 0 && expect->log_id != r->wal->log_id) {
        log_error("wal", "the checkpoint in %s is of another log", r->wal->dir);
        return ERR_CORRUPT;
    }
    if (position < expect->position) {
        log_error("wal",
                  "the log in %s ends at position %llu, but %llu was durable",
                  r->wal->dir, (unsigned long long)position,
                  (unsigned long long)expect->position);
        return ERR_CORRUPT;
    }
    if (r->last.any && last->checkpoint > expect->checkpoint_seq &&
        !expect->lost) {
        log_error("wal",
                  "the log in %s relies on checkpoint %llu, the newest that "
                  "can be read is %llu",
                  r->wal->dir, (unsigned long long)last->checkpoint,
                  (unsigned long long)expect->checkpoint_seq);
        return ERR_CORRUPT;
    }
    return ERR_OK;
}

/* ---- the chain ----------------------------------------------------------- */
/* The files recovery needs: v[*from] .. v[n - 1]. */
static enum err find_oldest(struct recover *r, struct wal_file **v, uint32_t n,
                            uint32_t *from)
{
    enum err e = walk_file(r, NULL, v[n - 1], false);
    if (e != ERR_OK) {
        return e;
    }
    ASSERT(r->last.any);
    uint64_t oldest = r->last.header.oldest;
    e = check_expected(r);
    for (*from = 0; *from < n && v[*from]->generation < oldest;) {
        (*from)++;
    }
    if (e == ERR_OK && (*from == n || v[*from]->generation != oldest)) {
        log_error("wal",
                  "the log in %s is not whole: no file has generation %llu",
                  r->wal->dir, (unsigned long long)oldest);
        e = ERR_CORRUPT;
    }
    return e;
}

static enum err walk_chain(struct recover *r, struct wal_file **v, uint32_t n)
{
    struct wal *wal = r->wal;
    r->last = (struct last_flush){.any = false};
    for (uint32_t k = 0; k < n; k++) {
        wal_file_use(wal, v[k], v[k]->generation);
        r->replay.entries_max += v[k]->bytes / WAL_FRAME_HEADER;
    }
    for (uint32_t k = 0; k < n; k++) {
        enum err e = walk_file(r, k > 0 ? v[k - 1] : NULL, v[k], true);
        if (e != ERR_OK) {
            return e;
        }
    }
    return ERR_OK;
}

/* Goes on behind the last valid flush. */
static enum err continue_log(struct recover *r)
{
    struct wal *wal = r->wal;
    const struct wal_flush_header *last = &r->last.header;
    uint64_t position = last->position + last->n_frames - 1;
    wal->file_at = r->last.end;
    wal->prev_position = last->position;
    wal->prev_crc = last->crc;
    wal->durable = position;
    wal->next_position = (position / WAL_POSITION_STEP + 1) * WAL_POSITION_STEP;
    wal->oldest = wal->oldest_wanted = last->oldest;
    wal->checkpoint = wal->checkpoint_wanted = last->checkpoint;
    wal->checkpoint_seq = wal->options.expect.checkpoint_seq;
    wal->begin_bytes = 512 * (uint64_t)HASH_COUNT(r->replay.groups);
    /* The last flush, and the name of wal.meta, may not be durable yet if only
     * the process died. */
    enum err e = env_file_sync(wal_file_current(wal)->file);
    return e == ERR_OK ? wal_meta_write(wal) : e;
}

static enum err recover_files(struct recover *r)
{
    struct wal *wal = r->wal;
    uint32_t n = 0, from = 0;
    struct wal_file **v =
        mem_alloc(sizeof(struct wal_file *) * (wal->n_files + (size_t)1));
    enum err e = files_order(r, v, &n);
    if (e == ERR_OK && n == 0) {
        e = check_expected(r);
        if (e == ERR_OK) {
            wal_file_use(wal, wal->files[0], 1);
            wal->next_position = 1;
            wal->oldest = wal->oldest_wanted = 1;
        }
    } else if (e == ERR_OK) {
        e = find_oldest(r, v, n, &from);
        if (e == ERR_OK) {
            e = walk_chain(r, v + from, n - from);
        }
        if (e == ERR_OK) {
            e = replay_finish(&r->replay);
            if (e != ERR_OK) {
                e = damaged(r, v[n - 1], r->last.end, r->replay.why);
            }
        }
        if (e == ERR_OK) {
            e = continue_log(r);
        }
    }
    mem_free(v);
    return e;
}

/* ---- a new log ----------------------------------------------------------- */
/* Does the file hold anything that looks like a flush? */
static enum err file_is_blank(struct recover *r, struct wal_file *file,
                              bool *blank)
{
    *blank = true;
    for (uint64_t at = 0; at + WAL_BLOCK <= file->bytes && *blank;
         at += WAL_BLOCK) {
        struct wal_flush_header header;
        const uint8_t *data;
        enum err e = read_at(r, file, at, WAL_BLOCK, &data);
        if (e != ERR_OK) {
            return e;
        }
        *blank = !wal_flush_read(data, &header);
    }
    return ERR_OK;
}

/* A first start that was cut off leaves a first file, of zeros at most, and no
 * wal.meta. */
static enum err check_unmade(struct recover *r)
{
    struct wal *wal = r->wal;
    bool blank = r->n_names <= 1;
    enum err e = ERR_OK;
    if (r->n_names == 1) {
        e = file_open(r, 1, 0, true);
        if (e == ERR_OK) {
            e = file_is_blank(r, wal->files[0], &blank);
        }
        if (e == ERR_OK) {
            wal_files_close(wal);
        }
    }
    if (e == ERR_OK && (!blank || wal->options.expect.log_id != 0 ||
                        wal->options.expect.checkpoint_seq != 0)) {
        log_error("wal", "%s/wal.meta is missing; the log is not whole",
                  wal->dir);
        e = ERR_CORRUPT;
    }
    return e;
}

static enum err make_log(struct recover *r)
{
    struct wal *wal = r->wal;
    enum err e = check_unmade(r);
    if (e == ERR_OK && wal->options.must_exist) {
        log_error("wal",
                  "there is no log in %s, but there was one: what it held is "
                  "lost",
                  wal->dir);
        e = ERR_LOST;
    }
    if (e != ERR_OK) {
        return e;
    }
    r->reader.file = NULL;
    while (wal->log_id == 0) {
        wal->log_id = env_random(wal->env);
    }
    wal->made_ms = (uint64_t)env_wall_ms(wal->env);
    wal->is_new = true;
    return wal_file_make_first(wal);
}

enum err wal_recover(struct wal *wal, wal_settled_fn settled)
{
    struct recover r = {.wal = wal};
    r.replay.wal = wal;
    r.replay.damaged = wal->options.expect.lost;
    r.replay.settled = settled;
    enum err e = env_dir_make(wal->env, wal->dir);
    if (e == ERR_OK) {
        e = env_dir_list(wal->env, wal->dir, note_name, &r);
    }
    if (e == ERR_OK) {
        e = r.meta_found ? files_open(&r) : make_log(&r);
    }
    if (e == ERR_CORRUPT && r.meta_lost && wal->log_id == 0) {
        /* Nothing says which log it is: it may never have held anything. */
        wal_files_close(wal);
        r.meta_lost = r.unmade = false;
        e = make_log(&r);
    }
    if (e == ERR_OK) {
        e = recover_files(&r);
    }
    replay_free(&r.replay);
    mem_free_aligned(r.reader.data);
    return e;
}
