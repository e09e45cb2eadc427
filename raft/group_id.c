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

/* Stable for ever: the CRC of topic id and partition (little-endian) modulo
 * the number of shards. */
unsigned group_id_shard(const struct group_id *id, unsigned n_shards)
{
    ASSERT(n_shards > 0);
    if (group_id_equal(id, &GROUP_METADATA))
        return 0;
    uint32_t v = (uint32_t)id->partition;
    uint8_t p[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16),
                    (uint8_t)(v >> 24)};
    uint32_t crc = crc32c(0, id->topic.b, sizeof id->topic.b);
    return crc32c(crc, p, sizeof p) % n_shards;
}
