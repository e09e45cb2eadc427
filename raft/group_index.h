/* The groups of a host by id. Looked up for every message that arrives, so an
 * entry is found with one look at a compact table and one at the group: open
 * addressing, half full at most. */
#ifndef RAFT_GROUP_INDEX_H
#define RAFT_GROUP_INDEX_H

#include "raft/group.h"

struct group_index_slot {
    struct group *group; /* NULL: free */
    uint32_t hash;
};

/* All zero at first. */
struct group_index {
    struct group_index_slot *slots;
    uint32_t size; /* a power of two, or 0 */
    uint32_t count;
};

/* NULL: there is none. */
struct group *group_index_find(const struct group_index *index,
                               const struct group_id *id);
/* Its id must not be there yet, and must not change. */
void group_index_add(struct group_index *index, struct group *group);
/* It must be there. */
void group_index_remove(struct group_index *index, const struct group *group);
void group_index_free(struct group_index *index);

#endif
