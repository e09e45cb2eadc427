/* The open segment files of one shard, bounded. Opening, reading and closing
 * are blocking and happen on workers; the cache itself is the shard's thread's.
 * So a job takes what is open along, opens the rest by itself, and hands what
 * it opened back when it is done. */
#ifndef PARTITION_FILE_CACHE_H
#define PARTITION_FILE_CACHE_H

#include "base/env.h"

/* FILE_LOG goes through the page cache, FILE_LOG_DIRECT past it. */
enum file_kind { FILE_LOG, FILE_SIDE, FILE_LOG_DIRECT };

struct file_key {
    uint64_t owner; /* number of the partition in the shard */
    int64_t base;   /* offset in the segment's name */
    uint32_t kind;  /* enum file_kind */
    uint32_t generation;
};

struct file_cache;
struct file_cache *file_cache_new(struct env *env, uint32_t open_max);
/* No file may be in use. Closes what is open (blocking). */
void file_cache_free(struct file_cache *cache);

/* A file taken along by a job. */
struct file_use {
    struct env_file *file; /* NULL: not open, the worker opens it */
    /* private */
    struct cached_file *cached;
    struct env_file *had;
};
void file_cache_take(struct file_cache *cache, const struct file_key *key,
                     struct file_use *use);
/* The job is done; what it opened stays open for the next one. NULL use->file
 * when opening failed. */
void file_cache_give(struct file_cache *cache, struct file_use *use);
/* The files of a segment are about to be removed, or all of a partition when
 * `base` is -1: closed as soon as nobody uses them. */
void file_cache_forget(struct file_cache *cache, uint64_t owner, int64_t base);

#endif
