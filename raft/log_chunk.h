/* The log buffer: chunks of aligned memory that are the image of the
 * write-ahead log's tail, the source for peers and the cache that fetches at
 * the tail read from. Internal to the log; others see log_chunk_ref and
 * log_chunk_unref in raft/group.h.
 *
 * Chunks are used first in, first out. The buffer holds one reference to each
 * chunk until it is evicted; flushes, entries in a group's window, sends and
 * fetches hold others. A chunk is free again when the last reference drops,
 * and counts against the bound until then. Free chunks are used again last in,
 * first out, so that an idle broker touches few pages; what the load does not
 * need any more goes back to the system slowly. */
#ifndef RAFT_LOG_CHUNK_H
#define RAFT_LOG_CHUNK_H

#include "raft/group.h"
#include "raft/wal_pins.h"

/* Frames lie in [from, to) of a chunk, of this generation of a log file.
 * LOG_RUN_COPIES: entries logged again, whose originals hold an older chunk;
 * these hold none. */
#define LOG_RUN_COPIES UINT64_MAX
struct log_run {
    uint32_t from, to;
    uint64_t generation;
};

struct log_buffer;
struct log_chunk {
    uint8_t *data; /* aligned to blocks */
    uint32_t size; /* bytes, whole blocks */
    uint32_t fill; /* bytes in use */
    uint32_t refs;
    uint32_t lent;        /* of these, lent */
    uint64_t id;          /* only grows; 0 is never used */
    struct wal_pins pins; /* groups whose entries lie here */
    struct log_run *runs;
    uint32_t n_runs, runs_capacity;
    struct log_buffer *buffer;
    struct log_chunk *next; /* younger, or next free one */
};

struct log_buffer {
    uint32_t chunk_bytes; /* of an ordinary chunk */
    uint64_t bytes_live;  /* of chunks that are referenced */
    uint64_t bytes_lent;  /* of these, lent to somebody */
    uint64_t next_id;
    struct log_chunk *oldest, *newest;
    struct log_chunk *free;
    uint32_t n_free;
    uint32_t n_free_least; /* since the last trim */
    uint32_t n_live;
    bool closed;
    void (*released)(void *arg); /* a chunk became free */
    void *arg;
};

struct log_buffer *log_buffer_new(uint32_t chunk_bytes,
                                  void (*released)(void *arg), void *arg);
/* Drops the buffer's own references; what others still hold lives on, the
 * last of them frees the buffer. */
void log_buffer_close(struct log_buffer *buffer);
/* A new youngest chunk with room for at least `bytes`, one reference being
 * the buffer's. */
struct log_chunk *log_buffer_add(struct log_buffer *buffer, uint64_t bytes);
/* Drops the buffer's reference to the chunk after `before`; NULL: to the
 * oldest. */
void log_buffer_drop(struct log_buffer *buffer, struct log_chunk *before);
/* Gives half of the free chunks that were not used since the last call back to
 * the system, but for `keep`. */
void log_buffer_trim(struct log_buffer *buffer, uint32_t keep);
/* Begins a run of frames at the chunk's fill, or goes on with the last one. */
struct log_run *log_chunk_run(struct log_chunk *chunk, uint32_t from,
                              uint64_t generation);

#endif
