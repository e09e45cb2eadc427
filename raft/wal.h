/* The shared write-ahead log of one shard: entries, truncations, terms, votes
 * and creations of all its groups become durable together, one write a loop
 * turn. See DESIGN rules of the store 2, 3, 4, 5 and 10; wal_format.h has the
 * bytes.
 *
 * Appending copies a record into the log buffer: reference-counted, aligned
 * chunks that are the exact image of what is written (O_DIRECT, durable) to
 * the log's files. Files are zero-filled once and recycled for ever.
 *
 * Positions: every record gets a position that only grows and is never used
 * twice over the life of the directory; `durable` speaks of positions. */
#ifndef RAFT_WAL_H
#define RAFT_WAL_H

#include "raft/group.h"

struct wal;

struct wal_options {
    struct env *env;
    const char *dir;
    uint64_t file_bytes;       /* of one file; the first one is small */
    uint64_t bytes_max;        /* of all files */
    uint64_t buffer_bytes_max; /* of the log buffer; at most bytes_max / 4 is
                                * used, 16 MiB until load asks for more */
    bool must_exist; /* this log was made before; ERR_LOST if it is missing */
    /* What the newest readable checkpoint says of this log; all zero when
     * there is none. A log that does not fit it is ERR_CORRUPT. */
    struct wal_expect {
        uint64_t log_id;         /* 0: any */
        uint64_t checkpoint_seq; /* 0: no checkpoint */
        uint64_t position;       /* was durable when it was written */
        bool lost;     /* there was a newer one, which cannot be read: entries
                        * may be missing before those that are found */
        bool unproven; /* it has a group that cannot prove its log: entries of
                        * before may be found that do not follow */
    } expect;
};

/* Where an entry's payload lies. */
struct wal_place {
    const uint8_t *payload;
    uint32_t size;
    uint32_t crc;
    struct log_chunk *chunk; /* one reference is the caller's */
    uint64_t position;
};
void wal_place_drop(struct wal_place *place);

struct wal_ops {
    /* All records up to `position` are durable. On the shard's thread. */
    void (*durable)(void *arg, uint64_t position);
    /* A new file begins: the owner must append, now, for every group it has,
     * its creation or deletion, term and vote and newest configuration
     * (rule 2). There is always room for that. */
    void (*file_begins)(void *arg);
    /* The oldest file should be recycled but still holds entries of these
     * groups that are not settled: settle them soon. */
    void (*wants_settled)(void *arg, const struct group_id *group,
                          log_index upto);
    /* A chunk of the log buffer shall be recycled: it holds entries of this
     * group up to `upto`, all settled; drop them from memory (the core's
     * window, the state machine's references) before returning. False: not
     * yet (not settled). Called from wal_reserve and at the end of a turn
     * only. */
    bool (*evict)(void *arg, const struct group_id *group, log_index upto);
    /* Room was made after a refused reserve. */
    void (*room)(void *arg);
    /* An entry that holds a chunk nearly alone, because its group does not
     * settle, was copied: it lies at `place` from now on, whose reference is
     * the owner's; the owner drops the old place. Its position is the one it
     * had (place->position is 0). At the end of a turn only. NULL: entries
     * stay where they are. */
    void (*moved)(void *arg, const struct group_id *group, log_index index,
                  const struct wal_place *place);
};

/* What recovery found of one group, in the order of the log, after truncations
 * were applied: entries from the checkpoint's settled + 1 on. */
struct wal_recovered_entry {
    log_index index;
    raft_term_t term;
    enum entry_type type;
    struct wal_place place;
};
struct wal_recovered_group {
    struct group_id id;
    bool created; /* a creation record was found */
    bool deleted;
    /* Its creation is damaged and in no checkpoint; the rest is as if it were
     * there, the newest term and vote among it. */
    bool unmade;
    struct group_creation creation;
    raft_term_t term;
    replica_id vote;
    log_index first; /* of entries[0]; settled + 1. Entry 1 of a created group
                      * is the creation itself, no record: at least 2 then */
    uint64_t n_entries;
    struct wal_recovered_entry *entries;
    /* Damage: entries after these are missing, or some before them that are
     * not settled (then n_entries is 0); the log reached this term and index,
     * or further if the index is UINT64_MAX. 0: nothing is missing. */
    raft_term_t lost_term;
    uint64_t lost_index;
    /* newest configuration at or below the last entry, when the log has one
     * (payload of an ENTRY_CONFIG entry, or wal_append_config) */
    log_index config_index;
    uint8_t *config;
    uint32_t config_size;
};
/* Before recovery the owner says what is settled (from the checkpoint), so
 * that only the tail is kept; a group the checkpoint does not know: 0.
 * `*self` is preset to 0; the owner sets it to the replica id that the
 * checkpoint names for this group, so that what is settled is not taken for
 * that of a later replica of the same group (0: whichever). */
typedef log_index (*wal_settled_fn)(void *arg, const struct group_id *group,
                                    replica_id *self);

/* Opens or makes the log in `dir` and recovers it (blocking). A torn last
 * flush is discarded whole unless it was attested; any other damage is
 * ERR_CORRUPT with a log line naming file and position, and nothing is
 * changed. */
MUST_USE enum err wal_open(const struct wal_options *options,
                           const struct wal_ops *ops, void *arg,
                           wal_settled_fn settled, struct wal **out);
/* The recovered groups; ownership of the array's contents passes to the
 * caller, who frees it by wal_recovered_free (places it took over excepted). */
struct wal_recovered_group *wal_recovered(struct wal *wal, size_t *n);
void wal_recovered_free(struct wal_recovered_group *groups, size_t n);

/* A random number, made with the log. */
uint64_t wal_log_id(const struct wal *wal);
/* True when the log was recovered whole or the directory was brand new (no
 * log, no checkpoint expected): what it does not know, it never knew. */
bool wal_was_whole(const struct wal *wal);
/* True when this open made the log: the owner must know by other means that
 * the directory was never used before. */
bool wal_is_new(const struct wal *wal);
/* Bound of the log buffer: what was asked for, or less where files are small.
 */
uint64_t wal_buffer_bytes_max(const struct wal *wal);
/* Largest payload of one entry. */
uint32_t wal_entry_bytes_max(const struct wal *wal);

/* Rule 4: reserve first. True: the next appends of together at most `bytes`
 * payload in `records` records cannot fail. False: ops->room tells when to try
 * again. Terms, votes, no-ops, creations have a reserve of their own and never
 * need this. A reservation is used up by appends or given back. */
bool wal_reserve(struct wal *wal, uint64_t bytes, uint32_t records);
void wal_unreserve(struct wal *wal, uint64_t bytes, uint32_t records);

/* Appends; return the record's position. The payload is copied. */
uint64_t wal_append_entry(struct wal *wal, const struct group_id *group,
                          log_index index, raft_term_t term,
                          enum entry_type type, const struct iovec *payload,
                          int n_payload, struct wal_place *out);
uint64_t wal_append_truncate(struct wal *wal, const struct group_id *group,
                             log_index first);
uint64_t wal_append_term(struct wal *wal, const struct group_id *group,
                         raft_term_t term, replica_id vote);
uint64_t wal_append_create(struct wal *wal,
                           const struct group_creation *creation);
/* The group's entries lose their hold on log and buffer at once: whoever still
 * reads them must hold a reference to their chunk. */
uint64_t wal_append_delete(struct wal *wal, const struct group_id *group);
/* A configuration repeated at the beginning of a file. */
uint64_t wal_append_config(struct wal *wal, const struct group_id *group,
                           log_index index, raft_term_t term,
                           const void *config, uint32_t size);

/* Writes what is queued, if no write is in flight (else when it ends). Called
 * once at the end of a loop turn; appending defers it by itself. */
void wal_flush(struct wal *wal);
uint64_t wal_position(const struct wal *wal); /* of the last record */
uint64_t wal_durable_position(const struct wal *wal);
/* The device is full and so is the log: nothing becomes durable until there is
 * space. Reserving is refused (`room` follows), but what is appended without
 * asking gathers in memory: the owner should append nothing. */
bool wal_waits_for_space(const struct wal *wal);
/* Checkpoint `seq` is durable; called before the wal_settled that follow from
 * it. The log remembers the newest checkpoint its recycling relied on. */
void wal_checkpointed(struct wal *wal, uint64_t seq);
/* For a log that begins behind checkpoint `seq`, which is durable: what the
 * log does not hold is settled there. Before the first append. */
void wal_relies_on(struct wal *wal, uint64_t seq);
/* Everything of the group up to `index` is settled by a durable checkpoint. */
void wal_settled(struct wal *wal, const struct group_id *group,
                 log_index index);

/* Before anything else of the group is appended: what is settled cannot be
 * used, and nothing but entry 1 counts any more. Logged as a truncation at
 * entry 1, which no other truncation reaches: until a checkpoint knows of it,
 * recovery says that the group's log is lost. */
void wal_unsettled(struct wal *wal, const struct group_id *group);

struct wal_stats {
    uint64_t flushes, bytes_written, bytes_buffered, files, file_bytes;
    uint64_t files_begun;    /* switches to another file, recycled or new */
    uint64_t bytes_relogged; /* entries logged again to free a file */
    uint64_t entries_moved;  /* within the log buffer */
};
void wal_stats(const struct wal *wal, struct wal_stats *out);
/* Waits for the write in flight, attests, closes the files. */
void wal_close(struct wal *wal, void (*closed)(void *arg), void *arg);

#endif
