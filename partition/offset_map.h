/* The newest offset of each key, for compaction: a table of bounded memory that
 * keeps 128-bit hashes in place of keys. The hash is SipHash-2-4 with a secret
 * key made anew for each run, so nobody can choose keys that are taken for one
 * another; by chance two of a billion keys are with probability 2^-69. */
#ifndef PARTITION_OFFSET_MAP_H
#define PARTITION_OFFSET_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/types.h"

struct offset_map;

/* Memory of one key. */
#define OFFSET_MAP_SLOT 24

/* Grows with its keys up to `bytes_max` (while it grows, half of that more). */
struct offset_map *offset_map_new(size_t bytes_max, const uint64_t secret[2]);
void offset_map_free(struct offset_map *map); /* NULL is fine */
/* `offset` is at least as large as any put before. False: full, not put (a key
 * that is there always finds its place). */
bool offset_map_put(struct offset_map *map, const void *key, size_t size,
                    kafka_offset offset);
/* -1: not there. */
kafka_offset offset_map_get(const struct offset_map *map, const void *key,
                            size_t size);
uint64_t offset_map_count(const struct offset_map *map);

#endif
