/* Record batches as a client writes and reads them: plain, one at a time.
 * Source: Kafka's record batch, magic 2. */
#ifndef JEPSEN_BATCHES_H
#define JEPSEN_BATCHES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

/* One batch with a record for each value of a key. */
void batch_of_values(struct buffer *out, int64_t key, const int64_t *values,
                     size_t n);

enum batch_state {
    BATCH_RECORD, /* `offset` and `value` are set */
    BATCH_TORN,   /* what stands at `offset` is damaged */
    BATCH_END,
};

/* Goes through fetched bytes; a cut batch at their end is left out. */
struct batches {
    const uint8_t *p, *end; /* of all */
    const uint8_t *at, *batch_end;
    int64_t key;
    int64_t base_offset;
    int32_t left;
};

void batches_begin(struct batches *b, const uint8_t *data, size_t size,
                   int64_t key);
enum batch_state batches_next(struct batches *b, int64_t *offset,
                              int64_t *value);

#endif
