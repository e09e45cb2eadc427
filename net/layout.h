/* Where the shards of a data directory keep their logs, and how it comes to
 * have another number of them.
 *
 * A directory begins with shard-0, shard-1, ... When a broker is started with
 * another number, the logs are moved (raft/reshard.h) into shard-0.1,
 * shard-1.1, ...: the next lap. The file says which lap counts; until it does,
 * the old one does. Directories of another lap are removed at a start. */
#ifndef NET_LAYOUT_H
#define NET_LAYOUT_H

#include "base/env.h"

#define LAYOUT_PATH_MAX 4096

struct layout {
    unsigned n_shards; /* 0: a new directory */
    unsigned lap;      /* 0 as long as the number never changed */
    bool recorded;     /* in the file: every log must be there */
};

/* What the directory says; one that does not exist, or was never started
 * whole, is new. ERR_CORRUPT: the file `shards` is damaged; ERR_IO. */
MUST_USE enum err layout_read(struct env *env, const char *dir,
                              struct layout *out);
/* The directory of one shard. */
void layout_shard_dir(const struct layout *layout, const char *dir,
                      unsigned shard, char out[LAYOUT_PATH_MAX]);

struct layout_options {
    struct env *env;
    const char *dir;
    unsigned n_shards;
    uint64_t log_buffer_bytes, wal_file_bytes, wal_bytes_max; /* of a shard */
};
/* Decides where the shards' directories are; moves what an old data directory
 * has to `n_shards`. `done` is told once, perhaps at once, on this thread: the
 * layout that counts now, or NULL and a sentence; then nothing was changed. */
void layout_adopt(const struct layout_options *options,
                  void (*done)(void *arg, const struct layout *layout,
                               const char *sentence),
                  void *arg);
/* Durably writes the file: the logs of all shards are made. */
MUST_USE enum err layout_record(struct env *env, const char *dir,
                                struct layout *layout);

#endif
