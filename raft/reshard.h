/* Moves the groups of a data directory to another number of shards: rule of
 * the store 9. Every old log is recovered whole; what each group has that is
 * not settled, its creation, term and vote are logged in the new place, what
 * is settled goes into the new place's first checkpoint. The old logs are left
 * as they are: whoever calls this makes the new ones count, and removes the
 * old ones after that. */
#ifndef RAFT_RESHARD_H
#define RAFT_RESHARD_H

#include "raft/group.h"

struct reshard_options {
    struct env *env;
    const char *const *from; /* directories of the old shards, in order */
    unsigned n_from;
    const char *const *to; /* of the new ones: none of them exists */
    unsigned n_to;
    uint64_t log_buffer_bytes, wal_file_bytes, wal_bytes_max; /* of a shard */
};

/* Reads blocking, writes in the background; `done` is told once, on this
 * thread: ERR_OK when everything is durable in the new directories;
 * ERR_NOSPACE when a new log cannot hold what is not settled (a broker that is
 * stopped by SIGTERM leaves nearly nothing), or the disk is full; ERR_CORRUPT
 * or ERR_LOST after a log line that names the place; ERR_IO. The strings are
 * copied. */
void reshard_start(const struct reshard_options *options,
                   void (*done)(void *arg, enum err status), void *arg);

#endif
