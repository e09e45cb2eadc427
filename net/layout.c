#include "net/layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/mem.h"
#include "raft/reshard.h"

#define FILE_NAME "shards"
#define FILE_BYTES_MAX 256
#define FILE_FORMAT "shards=%u\nlap=%u\n"
#define CRC_FORMAT "crc32c=%08x\n" /* of the lines before */
#define SENTENCE_SIZE 1024

/* ---- reading ------------------------------------------------------------- */
/* "shard-3" or "shard-3.1"; the lap is 0 where none is named. */
static bool name_read(const char *name, unsigned *shard, unsigned *lap)
{
    char end;
    *lap = 0;
    return sscanf(name, "shard-%u%c", shard, &end) == 1 ||
           sscanf(name, "shard-%u.%u%c", shard, lap, &end) == 2;
}

static void file_path(const char *dir, char out[LAYOUT_PATH_MAX])
{
    snprintf(out, LAYOUT_PATH_MAX, "%s/" FILE_NAME, dir);
}

static int file_text(const struct layout *layout, char out[FILE_BYTES_MAX])
{
    int n = snprintf(out, FILE_BYTES_MAX, FILE_FORMAT, layout->n_shards,
                     layout->lap);
    return n + snprintf(out + n, FILE_BYTES_MAX - (size_t)n, CRC_FORMAT,
                        crc32c(0, out, (size_t)n));
}

/* What the directories' names say, where the file is damaged. */
struct names {
    unsigned n, highest, lap;
    bool mixed;
};

static void names_one(void *arg, const char *name)
{
    struct names *names = arg;
    unsigned shard;
    unsigned lap;
    if (!name_read(name, &shard, &lap)) {
        return;
    }
    names->mixed = names->mixed || (names->n > 0 && lap != names->lap);
    names->lap = lap;
    names->highest = shard > names->highest ? shard : names->highest;
    names->n++;
}

/* They must be those of one lap, none missing. */
static enum err names_read(struct env *env, const char *dir, struct layout *out)
{
    struct names names = {0};
    enum err e = env_dir_list(env, dir, names_one, &names);
    if (e != ERR_OK) {
        return e;
    }
    if (names.n == 0 || names.mixed || names.highest + 1 != names.n) {
        return ERR_CORRUPT;
    }
    out->n_shards = names.n;
    out->lap = names.lap;
    log_warn("shards",
             "damaged: %s/" FILE_NAME "; its directories say %u shards", dir,
             out->n_shards);
    return layout_record(env, dir, out);
}

static enum err file_read(struct env *env, const char *dir, struct layout *out)
{
    char path[LAYOUT_PATH_MAX];
    char text[FILE_BYTES_MAX + 1];
    char again[FILE_BYTES_MAX];
    void *bytes = NULL;
    size_t size = 0;
    file_path(dir, path);
    enum err e = env_file_read_whole(env, path, FILE_BYTES_MAX, &bytes, &size);
    if (e != ERR_OK) {
        return e == ERR_TOO_LARGE ? ERR_CORRUPT : e;
    }
    memcpy(text, bytes, size);
    text[size] = '\0';
    mem_free(bytes);
    int n = sscanf(text, FILE_FORMAT, &out->n_shards, &out->lap);
    (void)file_text(out, again);
    return n == 2 && out->n_shards > 0 && strcmp(text, again) == 0
               ? ERR_OK
               : ERR_CORRUPT;
}

enum err layout_read(struct env *env, const char *dir, struct layout *out)
{
    *out = (struct layout){0};
    enum err e = file_read(env, dir, out);
    if (e == ERR_CORRUPT) {
        e = names_read(env, dir, out);
    }
    out->recorded = e == ERR_OK;
    return e == ERR_NOT_FOUND ? ERR_OK : e;
}

enum err layout_record(struct env *env, const char *dir, struct layout *layout)
{
    char path[LAYOUT_PATH_MAX];
    char text[FILE_BYTES_MAX];
    int n = file_text(layout, text);
    file_path(dir, path);
    enum err e = env_file_write_whole(env, path, text, (size_t)n);
    layout->recorded = e == ERR_OK;
    return e;
}

void layout_shard_dir(const struct layout *layout, const char *dir,
                      unsigned shard, char out[LAYOUT_PATH_MAX])
{
    if (layout->lap == 0) {
        snprintf(out, LAYOUT_PATH_MAX, "%s/shard-%u", dir, shard);
    } else {
        snprintf(out, LAYOUT_PATH_MAX, "%s/shard-%u.%u", dir, shard,
                 layout->lap);
    }
}

/* ---- directories of other laps ------------------------------------------- */
struct sweep {
    struct env *env;
    const char *dir;
    const struct layout *layout;
    enum err status;
};

static void sweep_one(void *arg, const char *name)
{
    struct sweep *sweep = arg;
    unsigned shard;
    unsigned lap;
    char path[LAYOUT_PATH_MAX];
    if (!name_read(name, &shard, &lap) || lap == sweep->layout->lap) {
        return;
    }
    snprintf(path, sizeof path, "%s/%s", sweep->dir, name);
    enum err e = env_dir_remove(sweep->env, path);
    if (e != ERR_OK) {
        sweep->status = e;
    }
}

static enum err sweep(struct env *env, const char *dir,
                      const struct layout *layout)
{
    struct sweep s = {.env = env, .dir = dir, .layout = layout};
    enum err e = env_dir_list(env, dir, sweep_one, &s);
    if (e == ERR_OK && s.status == ERR_OK) {
        e = env_dir_sync(env, dir);
    }
    return e == ERR_OK ? s.status : e;
}

/* ---- another number ------------------------------------------------------ */
struct adopt {
    struct layout_options options;
    char dir[LAYOUT_PATH_MAX - 64];
    struct layout old, next;
    void (*done)(void *arg, const struct layout *layout, const char *sentence);
    void *arg;
};

static void adopt_end(struct adopt *a, const struct layout *layout,
                      const char *sentence)
{
    a->done(a->arg, layout, sentence);
    mem_free(a);
}

static void adopt_failed(struct adopt *a, enum err e, const char *what)
{
    char sentence[SENTENCE_SIZE];
    snprintf(sentence, sizeof sentence, "The data directory %.700s %s: %s.",
             a->dir, what, err_text(e));
    adopt_end(a, NULL, sentence);
}

static void not_moved(struct adopt *a, enum err e)
{
    char sentence[SENTENCE_SIZE];
    snprintf(sentence, sizeof sentence,
             "The data in %.600s was written with %u shards and cannot be "
             "moved to %u: %s%s; nothing was changed. Set shards=%u%s.",
             a->dir, a->old.n_shards, a->next.n_shards, err_text(e),
             e == ERR_CORRUPT ? " (the lines above say where)" : "",
             a->old.n_shards,
             e == ERR_NOSPACE ? ", start and stop once, and try again" : "");
    adopt_end(a, NULL, sentence);
}

static void moved(void *arg, enum err status)
{
    struct adopt *a = arg;
    struct env *env = a->options.env;
    if (status != ERR_OK) {
        if (sweep(env, a->dir, &a->old) != ERR_OK) {
            log_warn("shards", "what was begun in %s is left behind", a->dir);
        }
        not_moved(a, status);
        return;
    }
    enum err e = layout_record(env, a->dir, &a->next);
    if (e != ERR_OK) {
        not_moved(a, e);
        return;
    }
    e = sweep(env, a->dir, &a->next);
    if (e != ERR_OK) {
        log_warn("shards", "old logs in %s are left until the next start: %s",
                 a->dir, err_text(e));
    }
    log_info("shards", "%s: %u shards are %u now", a->dir, a->old.n_shards,
             a->next.n_shards);
    adopt_end(a, &a->next, NULL);
}

static void move(struct adopt *a)
{
    unsigned n_from = a->old.n_shards;
    unsigned n_to = a->next.n_shards;
    char(*paths)[LAYOUT_PATH_MAX] = mem_alloc((n_from + n_to) * sizeof *paths);
    const char **names = mem_alloc((n_from + n_to) * sizeof *names);
    for (unsigned i = 0; i < n_from + n_to; i++) {
        bool old = i < n_from;
        layout_shard_dir(old ? &a->old : &a->next, a->dir, old ? i : i - n_from,
                         paths[i]);
        names[i] = paths[i];
    }
    const struct layout_options *o = &a->options;
    struct reshard_options options = {
        .env = o->env,
        .from = names,
        .n_from = n_from,
        .to = names + n_from,
        .n_to = n_to,
        .log_buffer_bytes = o->log_buffer_bytes,
        .wal_file_bytes = o->wal_file_bytes,
        .wal_bytes_max = o->wal_bytes_max,
    };
    reshard_start(&options, moved, a);
    mem_free(names);
    mem_free(paths);
}

void layout_adopt(const struct layout_options *options,
                  void (*done)(void *arg, const struct layout *layout,
                               const char *sentence),
                  void *arg)
{
    struct adopt *a = mem_zalloc(sizeof *a);
    ASSERT(strlen(options->dir) < sizeof a->dir);
    a->options = *options;
    snprintf(a->dir, sizeof a->dir, "%s", options->dir);
    a->done = done;
    a->arg = arg;
    enum err e = layout_read(options->env, a->dir, &a->old);
    if (e != ERR_OK) {
        adopt_failed(a, e, "has a file `" FILE_NAME "` that cannot be used");
        return;
    }
    e = sweep(options->env, a->dir, &a->old);
    if (e != ERR_OK) {
        adopt_failed(a, e, "cannot be used");
        return;
    }
    a->next =
        (struct layout){.n_shards = options->n_shards, .lap = a->old.lap + 1};
    if (!a->old.recorded) {
        a->next.lap = 0;
        adopt_end(a, &a->next, NULL);
    } else if (a->old.n_shards == options->n_shards) {
        adopt_end(a, &a->old, NULL);
    } else {
        move(a);
    }
}
