/* The settled log of one partition in files: `.log` segments of batches only,
 * each with its side file (side.h), in a directory of the partition's own.
 *
 *   NNNNNNNNNNNNNNNNNNNN.log       batches, byte for byte as on the wire
 *   NNNNNNNNNNNNNNNNNNNN.side      slots, see side.h
 *   NNNNNNNNNNNNNNNNNNNN.G.log     the same of a segment made by compaction
 *   NNNNNNNNNNNNNNNNNNNN.G.side    (or received), with its generation G > 0
 *   NNNNNNNNNNNNNNNNNNNN.producers snapshot of producer state at log index N
 *   segments                       the closed segments: which generations
 *                                  count, and what they hold
 *
 * Segments are only appended to, and closed ones replaced as a whole by
 * compaction (compact.h). What counts is what the checkpoint names
 * (struct log_state): bytes beyond are left over from a settling that did not
 * come to its end and are written again, at the same place, from the log.
 * Functions here block and run on workers, with input that nobody changes. */
#ifndef PARTITION_SEGMENT_H
#define PARTITION_SEGMENT_H

#include "base/buffer.h"
#include "base/limits.h"
#include "partition/file_cache.h"
#include "partition/side.h"

/* The settled log up to one index, as a checkpoint names it. */
struct log_state {
    log_index index;   /* settled; 1 for a new group */
    kafka_offset next; /* offset after the last batch */
    uint64_t bytes;    /* of all batches ever, also deleted ones */
    uint64_t chain;    /* side_chain at index */
    /* the active segment; slots 0: there is none yet */
    kafka_offset base;
    uint64_t position;       /* bytes of the .log */
    uint64_t slots;          /* of the side file, with its head */
    int64_t running_max;     /* greatest timestamp in it, -1 none */
    int64_t first_timestamp; /* maximum timestamp of its first batch */
    bool tail_area;          /* which of its copies of the tail is true */
    /* newest snapshot of producer state: holds all up to slot `snapshot_slot`
     * of the active segment; index 0: no file, there was no producer then */
    log_index snapshot_index;
    uint64_t snapshot_slot, snapshot_bytes;
};

/* A segment that is no longer written. */
struct segment {
    kafka_offset base; /* its name */
    kafka_offset end;  /* behind its last batch: where the next one begins */
    uint64_t bytes;    /* of the .log */
    uint64_t slots;
    int64_t max_timestamp; /* -1: none */
    uint32_t generation;   /* part of its files' names; the active one: 0 */
    uint64_t compaction;   /* id of what made it; 0: as it was settled */
    int64_t horizon; /* earliest time its tombstones may go; 0: it has none
                      * that wait */
};

/* The files of one segment: "DIR/NNNNNNNNNNNNNNNNNNNN[.GENERATION].SUFFIX". */
void segment_file(char *path, const char *dir, const struct segment *segment,
                  const char *suffix);
/* Takes such a name (or one of segment_path) apart; false: it is another's. */
#define SEGMENT_SUFFIX_MAX 16
bool segment_name_parse(const char *name, int64_t *number, uint32_t *generation,
                        char suffix[SEGMENT_SUFFIX_MAX]);
/* Writes "DIR/NNNNNNNNNNNNNNNNNNNN.SUFFIX"; `path` has LIMIT_PATH bytes. */
void segment_path(char *path, const char *dir, int64_t number,
                  const char *suffix);

/* ---- settling ------------------------------------------------------------ */
struct settle_entry {
    log_index index;
    raft_term_t term;
    enum entry_type type;
    bool roll; /* a new segment begins with this batch */
    uint32_t size, crc;
    const uint8_t *payload;
    struct log_chunk *chunk; /* pinned by the job; may be NULL */
};

/* One job: entries are written behind `from`; `to` is what then is true. */
struct settle {
    struct env *env;
    const char *dir;
    struct group_id group;
    bool make_dir; /* the directory is not there yet */
    struct log_state from, to;
    struct settle_entry *entries;
    size_t n_entries;
    /* snapshot of producer state at the last entry; empty: none is due */
    struct buffer snapshot;
    bool snapshot_due; /* also when empty: no producer is known */
    /* closed segments, those closed by this job are added */
    struct segment *closed;
    size_t n_closed, n_closed_before;
    kafka_offset compacted;    /* for the list */
    struct file_use log, side; /* of from.base, taken along; log is direct */
    struct env_file *new_log, *new_side; /* of to.base, when it rolled */
    bool created;     /* files were made: the directory must be synced */
    uint8_t *scratch; /* SETTLE_SCRATCH bytes aligned to blocks */
};

/* Writes the job's entries; the active segment's files are not yet synced (the
 * host does it), those of segments that were closed are, and so are manifest
 * and snapshot. ERR_NOSPACE: may be tried again as it was. */
MUST_USE enum err settle_write(struct settle *s);

/* ---- reading ------------------------------------------------------------- */
/* One segment up to where it is settled. */
struct segment_view {
    struct env *env;
    const char *dir;
    struct segment segment;    /* for the active one: as far as settled */
    struct file_use log, side; /* opened here when they are not */
    bool past_cache;           /* log is for segment_read_direct only */
    uint32_t era;              /* private to partition.c; 0: not taken */
};
/* Are these e->size bytes the batch that the entry names, unharmed? */
bool segment_batch_is(const uint8_t *batch, const struct side_entry *e);
MUST_USE enum err segment_view_open(struct segment_view *v, bool need_log);

/* The batch that holds `offset`, or the first one behind it. ERR_NOT_FOUND:
 * all batches of the segment are before. ERR_CORRUPT, ERR_IO. */
MUST_USE enum err segment_find_offset(struct segment_view *v,
                                      kafka_offset offset, uint64_t *slot,
                                      struct side_entry *out);
/* The first batch at slot `from` or later whose maximum timestamp is at least
 * `timestamp`. ERR_NOT_FOUND. */
MUST_USE enum err segment_find_timestamp(struct segment_view *v, uint64_t from,
                                         int64_t timestamp, uint64_t *slot,
                                         struct side_entry *out);
/* The entry with this index. What is behind the last whole entry is taken for
 * nothing. ERR_NOT_FOUND. */
MUST_USE enum err segment_find_index(struct segment_view *v, log_index index,
                                     uint64_t *slot, struct side_entry *out);
MUST_USE enum err segment_read_head(struct segment_view *v,
                                    struct side_head *out);
/* Walks over entries: sets *slot to the next entry's; ERR_NOT_FOUND at the
 * end. `cache` holds slots read ahead; all zero at first. */
struct side_cursor {
    uint64_t next;
    uint64_t from, count; /* slots in `slots` */
    uint8_t *slots;       /* side_cursor_free */
};
MUST_USE enum err side_cursor_next(struct segment_view *v,
                                   struct side_cursor *c,
                                   struct side_entry *out);
void side_cursor_free(struct side_cursor *c);

/* Reads whole batches from the entry at `slot` on, at most `max_bytes` (but
 * one at least if `at_least_one`), each checked against its CRC and its side
 * entry. *data is mem_alloc'ed (NULL when nothing fits). A damaged batch ends
 * the read; ERR_CORRUPT when it is the first, `bad` is then its offset. */
MUST_USE enum err segment_read(struct segment_view *v, uint64_t slot,
                               size_t max_bytes, bool at_least_one,
                               uint8_t **data, size_t *size, kafka_offset *bad);
/* The same past the page cache, of a view with past_cache: *data lies somewhere
 * in *memory, which is mem_alloc'ed. For long reads of what will hardly be read
 * again: pages need not be found for it, nor filled. */
MUST_USE enum err segment_read_direct(struct segment_view *v, uint64_t slot,
                                      size_t max_bytes, bool at_least_one,
                                      uint8_t **memory, uint8_t **data,
                                      size_t *size, kafka_offset *bad);
/* The payload of an entry that is no batch, at `slot`. mem_free(*data). */
MUST_USE enum err segment_read_payload(struct segment_view *v, uint64_t slot,
                                       const struct side_entry *e,
                                       uint8_t **data);

/* Closes what segment_view_open opened, of a view without cache. */
void segment_view_close(struct segment_view *v);

/* ---- the list of closed segments (manifest.c) ---------------------------- */
/* Replaces the file `segments`; durable on return. Up to `compacted` there is
 * one record of each key at most. */
MUST_USE enum err manifest_write(struct env *env, const char *dir,
                                 const struct segment *segments, size_t n,
                                 kafka_offset compacted);
/* The closed segments below `active`, from the file, or if that is missing or
 * damaged or does not fit, from the side files themselves (`compacted` is 0
 * then). mem_free(*out). */
MUST_USE enum err manifest_load(struct env *env, const char *dir,
                                kafka_offset active, struct segment **out,
                                size_t *n, kafka_offset *compacted);
/* What the file says and nothing else: for inspection. */
MUST_USE enum err manifest_read(struct env *env, const char *dir,
                                struct segment **out, size_t *n);

#endif
