/* Reads the files of one partition offline, for `flotilla log dump` and
 * `flotilla log verify`: everything that settled, in order, each batch with a
 * digest of its bytes, so that replicas can be compared by offset (of a
 * compacted topic only what none of them has compacted yet: each does that by
 * itself). What is still only in the write-ahead log is not seen. Changes
 * nothing. */
#ifndef PARTITION_DUMP_H
#define PARTITION_DUMP_H

#include "partition/side.h"

struct dump_batch {
    const char *file;  /* name of the .log file */
    uint64_t position; /* in it */
    uint32_t size;
    struct batch_header header;
    log_index index; /* 0: no side file */
    raft_term_t term;
    bool crc_ok;     /* the batch's own CRC */
    bool side_ok;    /* what the side file says of it is so; true without */
    uint64_t digest; /* of all its bytes */
    const uint8_t *bytes; /* during the call; NULL when not readable */
};

struct dump_ops {
    void (*batch)(void *arg, const struct dump_batch *batch);
    /* An entry that is no batch; may be NULL. */
    void (*entry)(void *arg, const struct side_entry *entry);
    /* A sentence about damage, for people; may be NULL. */
    void (*damage)(void *arg, const char *file, const char *sentence);
};

struct dump_summary {
    uint64_t segments, batches, records, bytes, others, damaged;
    uint64_t gone;           /* entries that compaction took out */
    kafka_offset first, end; /* -1, -1 when there is nothing */
    uint64_t chain; /* at the last entry; equal on replicas of the same log,
                     * also where they compacted it differently */
    log_index last;
    bool tail_left; /* bytes behind the end that do not make entries:
                     * a settling that was cut off, no damage */
};

/* `path` is a partition's directory or one .log file. Blocking. ERR_NOT_FOUND:
 * there is no segment; ERR_IO. Damage is no error: it is counted and told. */
MUST_USE enum err partition_dump(struct env *env, const char *path,
                                 const struct dump_ops *ops, void *arg,
                                 struct dump_summary *out);

/* The digest of dump_batch: 64 bits over all bytes. */
uint64_t dump_digest(const uint8_t *bytes, size_t size);

#endif
