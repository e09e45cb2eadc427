/* Which groups hold a log file or a chunk of the log buffer, and up to which
 * index: it can be used again when all of that is settled. Internal. */
#ifndef RAFT_WAL_PINS_H
#define RAFT_WAL_PINS_H

#include "raft/group.h"

struct wal_group;

struct wal_pin {
    struct wal_group *group; /* NULL: holds nothing any more */
    log_index first, upto;
};
struct wal_pins {
    struct wal_pin *v;
    uint32_t n, capacity;
    uint32_t done; /* those before hold nothing any more */
};

/* The entry lies here. `*slot` is where the group's pin was last time; set to
 * where it is. `known`: *slot speaks of these pins. */
void wal_pins_note(struct wal_pins *pins, struct wal_group *group,
                   log_index index, bool known, uint32_t *slot);
/* Entries of the group from `first` on are gone; 0: all. */
void wal_pins_truncate(struct wal_pins *pins, const struct wal_group *group,
                       log_index first);
/* Forgets all, keeps the memory of a small list. */
void wal_pins_clear(struct wal_pins *pins);

#endif
