/* What libraft carries instead of entries, and where the entries really are.
 *
 * The core never looks into a command, so it is given a handle of 16 bytes;
 * the bytes lie in the log buffer and are found by index in the group's entry
 * table. (A configuration is the exception: the core decodes it, so its entry
 * carries the real bytes.) */
#ifndef RAFT_HANDLE_H
#define RAFT_HANDLE_H

#include "raft/wal.h"

struct handle {
    uint32_t size;
    uint32_t crc;
    uint8_t type; /* enum entry_type */
    uint8_t zero[7];
};

/* One entry of the window that is in memory. */
struct entry_slot {
    uint64_t term;
    uint64_t bytes_before; /* payload of all earlier ones in this incarnation */
    struct wal_place place;
    uint8_t type; /* enum entry_type */
};

/* The window: a ring of slots for the indexes first .. first + count - 1. */
struct entry_table {
    struct entry_slot *slots;
    uint32_t size; /* power of two, or 0 */
    uint32_t count;
    uint64_t first;
    uint64_t bytes; /* bytes_before of the next one */
};

/* An empty window whose next entry is `first`. */
void entry_table_init(struct entry_table *table, uint64_t first);
/* Drops all references and the memory. */
void entry_table_free(struct entry_table *table);
/* Adds the entry after the last; takes over the place's reference. */
void entry_table_push(struct entry_table *table, uint64_t term,
                      enum entry_type type, const struct wal_place *place);
/* Drops the entries from `index` on / up to `index`. */
void entry_table_truncate(struct entry_table *table, uint64_t index);
void entry_table_evict(struct entry_table *table, uint64_t index);

static inline uint64_t entry_table_next(const struct entry_table *table)
{
    return table->first + table->count;
}

/* The slot of an index, NULL when it is not in the window. */
static inline struct entry_slot *entry_table_at(const struct entry_table *table,
                                                uint64_t index)
{
    if (index < table->first || index - table->first >= table->count)
        return NULL;
    return &table->slots[index & (table->size - 1)];
}

/* Bytes of payload in (after, upto]; indexes outside the window count as its
 * nearest end. */
uint64_t entry_table_bytes(const struct entry_table *table, uint64_t after,
                           uint64_t upto);

#endif
