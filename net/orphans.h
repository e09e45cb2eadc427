/* What a crash left of replicas whose topic is deleted: the directory, when it
 * was cut off while its files were being removed, or the group, when the
 * deletion reached the metadata's disk and not this log's. What this metadata
 * never gave a replica id to was not deleted by it (say: it is an older copy,
 * or the directory is another cluster's): that is a stray, marked by a file
 * `stray` in it, told by a warning at every start, and kept. */
#ifndef NET_ORPHANS_H
#define NET_ORPHANS_H

#include "net/shard.h"

/* Once the metadata is caught up: what was there before this start and belongs
 * to a topic it does not know was deleted, since topic and replica ids are
 * never used twice and a replica is only made when its topic was applied here;
 * or it is a stray. Goes from shard to shard, a bounded piece of the work in
 * each turn of a loop, then removes the directories that none of them has a
 * partition for, on a worker. `partitions` is the directory of all replicas. On
 * the first shard's thread. */
void orphans_sweep(struct broker_shard *first, const char *partitions);
/* The shard stops: what could not be removed so far waits for the next start.
 */
void orphans_leave(struct broker_shard *s);

#endif
