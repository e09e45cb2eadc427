/* Leader epoch (Raft term) -> first offset of that epoch, of one partition.
 * Ascending in epoch and offset; follows the appended log, so truncation rolls
 * it back. Pure. */
#ifndef PARTITION_EPOCH_H
#define PARTITION_EPOCH_H

#include "base/types.h"

struct epoch_start {
    int32_t epoch;
    log_index index;     /* of the first entry with this term */
    kafka_offset offset; /* next offset at that entry */
};

/* All zero is an empty table. */
struct epochs {
    struct epoch_start *starts;
    uint32_t count, capacity;
};

void epochs_free(struct epochs *es);
/* An entry of `epoch` was appended at `index` while the next offset is
 * `offset`; remembered when it is the first of its epoch. The oldest are
 * forgotten beyond LIMIT_EPOCHS. */
void epochs_append(struct epochs *es, int32_t epoch, log_index index,
                   kafka_offset offset);
void epochs_truncate(struct epochs *es, log_index first);
/* The log starts at `offset` now: epochs that ended before it are forgotten. */
void epochs_trim(struct epochs *es, kafka_offset offset);
/* The largest epoch <= `epoch` and where it ends: the next one's start, or
 * `end` for the newest. False: unknown. */
bool epochs_end(const struct epochs *es, int32_t epoch, kafka_offset end,
                int32_t *found, kafka_offset *found_end);
/* Epoch of the record at `offset`; -1 when it is not known. */
int32_t epochs_at(const struct epochs *es, kafka_offset offset);

#endif
