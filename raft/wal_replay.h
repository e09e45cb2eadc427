/* What the frames of a log, taken in order, say of each group. Internal to
 * recovery; does no I/O itself. */
#ifndef RAFT_WAL_REPLAY_H
#define RAFT_WAL_REPLAY_H

#include "raft/wal_internal.h"

struct replay_config {
    uint64_t index;
    uint8_t *bytes;
    uint32_t size;
};

struct replay_group {
    struct group_id id;
    log_index checkpoint_settled;
    replica_id checkpoint_self;
    bool created, deleted;
    bool unmade; /* see wal_recovered_group */
    struct group_creation creation;
    raft_term_t term;
    replica_id vote;
    log_index settled; /* of this life of the group */
    /* Entries base .. last; index 0: a hole. Recovery may begin above
     * settled + 1 and find what is missing logged again later, or deleted. */
    uint64_t base, last;
    /* Highest entry known to have been here whose bytes are damaged; 0: none */
    uint64_t faulty_index, faulty_term;
    /* What damage took away: see wal_recovered_group. */
    uint64_t lost_index, lost_term;
    uint64_t heard; /* position of its newest creation or term */
    struct wal_recovered_entry *entries;
    uint64_t capacity;
    struct replay_config *configs; /* by index, rising */
    uint32_t n_configs;
    UT_hash_handle hh;
};

struct replay {
    struct wal *wal;
    wal_settled_fn settled;
    uint64_t entries_max; /* more cannot lie in the files */
    struct replay_group *groups;
    /* Damage was found: what is missing is not a contradiction. */
    bool damaged;
    uint64_t unknown;          /* records of which nothing is known */
    uint64_t unknown_position; /* of the newest of them */
    char why[256];             /* after ERR_CORRUPT */
};

/* One frame of `file`, in the order of the log. ERR_CORRUPT when it
 * contradicts what came before. */
MUST_USE enum err replay_frame(struct replay *replay, struct wal_file *file,
                               const struct wal_frame *frame,
                               const uint8_t *bytes, uint64_t position);
/* A frame of which only the header is known: its payload is damaged. */
MUST_USE enum err replay_faulty(struct replay *replay, struct wal_file *file,
                                const struct wal_frame *frame,
                                uint64_t position);
/* All frames were given: checks that nothing is missing and hands the groups
 * to the log. */
MUST_USE enum err replay_finish(struct replay *replay);
void replay_free(struct replay *replay);

#endif
