/* Damage before the log's end: what can still be read of flushes that are not
 * valid. Each frame has checksums of its own, apart for what it says and for
 * its payload, over the position it must have; so most of a damaged flush is as
 * good as ever, of an entry whose bytes are gone index and term remain, and of
 * a frame whose own words are gone it is known at least where it was and how
 * long. Internal to recovery; no I/O. */
#ifndef RAFT_WAL_SALVAGE_H
#define RAFT_WAL_SALVAGE_H

#include "raft/wal_replay.h"

/* A damaged region of a file: what lies between two valid flushes. */
struct salvage {
    struct replay *replay; /* NULL: only look */
    struct wal_file *file;
    uint64_t log_id;
    const uint8_t *data;
    uint64_t size;
    uint64_t position;                   /* of the first record, 0: not known */
    const struct wal_flush_header *next; /* the valid flush behind it */
    uint64_t kept, faulty, unknown;      /* out: records */
};
/* ERR_CORRUPT as replay_frame. */
MUST_USE enum err wal_salvage(struct salvage *salvage);

#endif
