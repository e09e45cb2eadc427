/* How much memory a broker may take, summed up in one place. Each part is
 * bounded where it is used; what follows only adds them. With the defaults and
 * one shard this is about 1 GiB, nearly all of it taken under load only.
 *
 *   requests   request.memory.bytes: frames, read or being read, what they
 *              decode to, answers that are not taken; beyond it one frame that
 *              is in the middle (socket.request.max.bytes) and one request
 *              being decoded
 *   log        log.buffer.bytes: what is not settled, and the cache at the
 * tail; chunks that fetched answers or peers hold count as long as they do.
 * Answers hold at most as much as `memory_lent_max` says reads
 * read.memory.bytes, twice at most: file reads and copies of fetched data,
 * until the client took them catch-up   ranges on their way to others and from
 * others peers      peer.queue.bytes, two lanes a connection, a partition, the
 * process itself: measured (make memory-test)
 *
 * All but the peers and the process once for each shard. */
#ifndef NET_MEMORY_H
#define NET_MEMORY_H

#include "metadata/config_keys.h"

/* of one partition in a fetch session */
#define MEMORY_SESSION ((uint64_t)200)
#define MEMORY_PROCESS ((uint64_t)48 << 20)
#define MEMORY_CONNECTION ((uint64_t)8 << 10)
#define MEMORY_PARTITION ((uint64_t)16 << 10)

/* Bytes of the log buffer that answers to fetches may hold: a quarter, so that
 * clients which do not take them never stop producers. */
uint64_t memory_lent_max(const struct broker_config *c);
/* Bound in bytes, with so many shards and other brokers, idle connections and
 * partitions. */
uint64_t memory_bound(const struct broker_config *c, unsigned n_shards,
                      unsigned n_peers, uint64_t n_connections,
                      uint64_t n_partitions);

#endif
