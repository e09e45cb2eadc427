#include "raft/group_index.h"

#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "raft/group_impl.h"

#define SIZE_FIRST 16u

/* Ids of topics are random, or few and fixed. */
static uint32_t id_hash(const struct group_id *id)
{
    uint64_t word[2], mixed;

    memcpy(word, id->topic.b, sizeof word);
    mixed = word[0] ^ (word[1] * UINT64_C(0x9e3779b97f4a7c15)) ^
            ((uint64_t)(uint32_t)id->partition * UINT64_C(0xc2b2ae3d27d4eb4f));
    mixed ^= mixed >> 32;
    mixed *= UINT64_C(0xff51afd7ed558ccd);
    return (uint32_t)(mixed >> 32);
}

struct group *group_index_find(const struct group_index *index,
                               const struct group_id *id)
{
    uint32_t mask = index->size - 1, hash;

    if (index->size == 0)
        return NULL;
    hash = id_hash(id);
    for (uint32_t at = hash & mask;; at = (at + 1) & mask) {
        const struct group_index_slot *slot = &index->slots[at];

        if (slot->group == NULL)
            return NULL;
        if (slot->hash == hash && group_id_equal(&slot->group->creation.id, id))
            return slot->group;
    }
}

static void put(struct group_index *index, struct group_index_slot new)
{
    uint32_t mask = index->size - 1, at = new.hash &mask;

    while (index->slots[at].group != NULL)
        at = (at + 1) & mask;
    index->slots[at] = new;
}

static void grow(struct group_index *index)
{
    struct group_index old = *index;

    index->size = old.size == 0 ? SIZE_FIRST : old.size * 2;
    index->slots = mem_zalloc(index->size * sizeof *index->slots);
    for (uint32_t i = 0; i < old.size; i++)
        if (old.slots[i].group != NULL)
            put(index, old.slots[i]);
    mem_free(old.slots);
}

void group_index_add(struct group_index *index, struct group *group)
{
    if (index->size < 2 * (index->count + 1))
        grow(index);
    put(index, (struct group_index_slot){group, id_hash(&group->creation.id)});
    index->count++;
}

void group_index_remove(struct group_index *index, const struct group *group)
{
    uint32_t mask = index->size - 1;
    uint32_t hole = id_hash(&group->creation.id) & mask;

    ASSERT(index->count > 0);
    while (index->slots[hole].group != group) {
        ASSERT(index->slots[hole].group != NULL);
        hole = (hole + 1) & mask;
    }
    /* Those behind move up if they may lie in the hole. */
    for (uint32_t at = (hole + 1) & mask; index->slots[at].group != NULL;
         at = (at + 1) & mask) {
        uint32_t home = index->slots[at].hash & mask;

        if (((at - home) & mask) >= ((at - hole) & mask)) {
            index->slots[hole] = index->slots[at];
            hole = at;
        }
    }
    index->slots[hole].group = NULL;
    index->count--;
}

void group_index_free(struct group_index *index)
{
    mem_free(index->slots);
    *index = (struct group_index){0};
}
