#include "raft/group.h"

#include "base/assert.h"
#include "base/crc32c.h"

const struct group_id GROUP_METADATA = {
    .topic = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}},
    .partition = 0,
};

bool group_id_equal(const struct group_id *a, const struct group_id *b)
{
    return a->partition == b->partition && uuid_equal(&a->topic, &b->topic);
}

/* Stable for ever: the partitions of a topic go round the shards, beginning at
 * the CRC of the topic's id. */
unsigned group_id_shard(const struct group_id *id, unsigned n_shards)
{
    ASSERT(n_shards > 0);
    if (group_id_equal(id, &GROUP_METADATA))
        return 0;
    uint64_t first = crc32c(0, id->topic.b, sizeof id->topic.b);
    return (unsigned)((first + (uint32_t)id->partition) % n_shards);
}
