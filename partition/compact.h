/* Compaction of closed segments: of each key the newest record stays. This is
 * the half that works on files, on workers, with input nobody changes;
 * compaction.c plans and switches.
 *
 * As Kafka's cleaner, and each replica by itself: first the keys of what is not
 * compacted yet are put into a map (of bounded memory: if it is full, the rest
 * waits for the next run), then all segments up to there are copied without the
 * records that the map knows a newer one of. Offsets, batches' headers and
 * sequences stay; a batch without records goes, unless it is the last one of a
 * living producer. What is gone leaves gaps in the side file (side.h), so
 * index, offset and chain at a segment's end are what they were.
 *
 * Tombstones: a batch in which one is left gets a time written into it
 * (KIP-534) when all older records of its keys are gone; after that time the
 * next run takes the tombstone out too. What is newer than the map's end is not
 * touched.
 *
 * Batches of transactions and control batches are copied as they are, and their
 * records take no others out: which of them count only their markers tell.
 *
 * Files are written under a new generation and are durable, the side file's
 * head last, before anything names them. */
#ifndef PARTITION_COMPACT_H
#define PARTITION_COMPACT_H

#include "partition/offset_map.h"
#include "partition/segment.h"

struct compact_producer {
    int64_t id;
    kafka_offset last_offset;
};

struct compact_output; /* the segment being written */

struct compact {
    /* given */
    struct env *env;
    const char *dir;
    struct group_id group;
    uint64_t id; /* of this run, for side_head; not 0 */
    int64_t now_ms, delete_retention_ms;
    kafka_offset from; /* compacted up to here before */
    kafka_offset to;   /* the map's end: moved back when it is full */
    struct compact_producer *producers; /* by id */
    size_t n_producers;
    struct offset_map *map;
    /* Copies what a peer has (refetch.c): nothing is taken out, of its entries
     * those up to `last` are taken, where the chain is `chain` and the next
     * offset `to`. The output has this head, which is left to the caller to
     * write. */
    bool verbatim;
    struct side_head head;
    log_index last;
    uint64_t chain;
    /* the segment being read */
    struct segment_view view;
    uint64_t slot; /* where to go on; 0: at its beginning */
    bool full;     /* the scan ended before its end */
    struct compact_output *out;
    uint64_t bytes_read;
};

/* One step reads about this much, then other work has its turn. */
#define COMPACT_STEP_BYTES ((uint64_t)4 << 20)

/* Puts the keys of the segment's next batches into the map. *done: at its end,
 * or nothing more fits. ERR_CORRUPT, ERR_IO. */
MUST_USE enum err compact_scan(struct compact *c, bool *done);
/* Copies the next batches of the segment to the output, which is made at the
 * first call, with this base and generation. */
MUST_USE enum err compact_copy(struct compact *c, kafka_offset base,
                               uint32_t generation, bool *done);
/* The output is complete: durable on return. */
MUST_USE enum err compact_finish(struct compact *c);
/* The head of what would follow the output. */
struct side_head compact_next_head(const struct compact *c);
/* What the output holds so far. */
struct segment compact_result(const struct compact *c);
/* Did it become something else than its segments were? */
bool compact_changed(const struct compact *c);
/* Closes the output; `keep`: its files stay. */
void compact_output_end(struct compact *c, bool keep);
/* Producers and map; the output must have ended. */
void compact_free(struct compact *c);

#endif
