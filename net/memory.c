#include "net/memory.h"

#include "base/limits.h"
#include "raft/catchup.h"

static uint64_t bytes_of(const struct broker_config *c, const char *key)
{
    int64_t v = broker_config_int(c, key);
    return v < 0 ? 0 : (uint64_t)v;
}

uint64_t memory_lent_max(const struct broker_config *c)
{
    uint64_t quarter = bytes_of(c, "log.buffer.bytes") / 4;
    uint64_t reads = bytes_of(c, "read.memory.bytes");
    return quarter < reads ? quarter : reads;
}

uint64_t memory_bound(const struct broker_config *c, unsigned n_shards,
                      unsigned n_peers, uint64_t n_connections,
                      uint64_t n_partitions)
{
    uint64_t shard = bytes_of(c, "request.memory.bytes") +
                     bytes_of(c, "socket.request.max.bytes") +
                     LIMIT_REQUEST_DECODED + bytes_of(c, "log.buffer.bytes") +
                     LIMIT_LOG_CHUNKS_FREE * LIMIT_LOG_CHUNK_BYTES +
                     2 * bytes_of(c, "read.memory.bytes") +
                     LIMIT_FETCH_SESSION_PARTITIONS * MEMORY_SESSION +
                     (LIMIT_CATCHUP_FETCHES + LIMIT_CATCHUP_READS) *
                         (uint64_t)CATCHUP_RANGE_MAX;
    uint64_t peer = 2 * bytes_of(c, "peer.queue.bytes");
    return MEMORY_PROCESS + n_shards * shard + n_peers * peer +
           n_connections * MEMORY_CONNECTION + n_partitions * MEMORY_PARTITION;
}
