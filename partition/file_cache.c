#include "partition/file_cache.h"

#include "base/assert.h"
#include "base/hash.h"
#include "base/mem.h"

struct cached_file {
    struct file_key key;
    struct env_file *file; /* NULL: being opened by a job, or never was */
    uint32_t refs;
    bool forgotten;
    UT_hash_handle hh; /* in order of last use, oldest first */
};

struct file_cache {
    struct env *env;
    uint32_t open_max;
    struct cached_file *files;
};

struct file_cache *file_cache_new(struct env *env, uint32_t open_max)
{
    struct file_cache *cache = mem_zalloc(sizeof *cache);
    ASSERT(open_max > 0);
    cache->env = env;
    cache->open_max = open_max;
    return cache;
}

void file_cache_free(struct file_cache *cache)
{
    struct cached_file *f, *next;
    HASH_ITER(hh, cache->files, f, next)
    {
        ASSERT(f->refs == 0);
        HASH_DEL(cache->files, f);
        if (f->file != NULL) {
            env_file_close(f->file);
        }
        mem_free(f);
    }
    mem_free(cache);
}

/* Closing on a worker; outlives the cache if need be. */
struct closing {
    struct env_work work;
    struct env_file *file;
};

static void closing_run(struct env_work *work)
{
    struct closing *c = work->arg;
    env_file_close(c->file);
}

static void closing_done(struct env_work *work)
{
    mem_free(work->arg);
}

static void close_later(struct file_cache *cache, struct env_file *file)
{
    struct closing *c = mem_zalloc(sizeof *c);
    c->file = file;
    c->work.run = closing_run;
    c->work.done = closing_done;
    c->work.arg = c;
    env_work_submit(cache->env, ENV_POOL_IO, &c->work);
}

static void drop(struct file_cache *cache, struct cached_file *f)
{
    ASSERT(f->refs == 0);
    HASH_DEL(cache->files, f);
    if (f->file != NULL) {
        close_later(cache, f->file);
    }
    mem_free(f);
}

/* Drops the longest unused until the bound holds again. */
static void shrink(struct file_cache *cache)
{
    struct cached_file *f, *next;
    if (HASH_COUNT(cache->files) <= cache->open_max) {
        return;
    }
    HASH_ITER(hh, cache->files, f, next)
    {
        if (f->refs == 0) {
            drop(cache, f);
            if (HASH_COUNT(cache->files) <= cache->open_max) {
                return;
            }
        }
    }
}

void file_cache_take(struct file_cache *cache, const struct file_key *key,
                     struct file_use *use)
{
    struct cached_file *f;
    HASH_FIND(hh, cache->files, key, sizeof *key, f);
    if (f == NULL) {
        f = mem_zalloc(sizeof *f);
        f->key = *key;
    } else {
        HASH_DEL(cache->files, f);
    }
    HASH_ADD(hh, cache->files, key, sizeof f->key, f);
    f->refs++;
    use->cached = f;
    use->file = use->had = f->file;
    shrink(cache);
}

void file_cache_give(struct file_cache *cache, struct file_use *use)
{
    struct cached_file *f = use->cached;
    if (f == NULL) {
        return;
    }
    ASSERT(f->refs > 0);
    f->refs--;
    if (use->file != use->had && use->file != NULL) {
        if (f->file == NULL) {
            f->file = use->file;
        } else {
            close_later(cache, use->file);
        }
    }
    use->cached = NULL;
    use->file = use->had = NULL;
    if (f->refs == 0 && (f->forgotten || f->file == NULL)) {
        drop(cache, f);
    } else {
        shrink(cache);
    }
}

void file_cache_forget(struct file_cache *cache, uint64_t owner, int64_t base)
{
    struct cached_file *f, *next;
    HASH_ITER(hh, cache->files, f, next)
    {
        if (f->key.owner != owner || (base >= 0 && f->key.base != base)) {
            continue;
        }
        if (f->refs == 0) {
            drop(cache, f);
        } else {
            f->forgotten = true;
        }
    }
}
