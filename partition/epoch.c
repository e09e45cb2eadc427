#include "partition/epoch.h"

#include "base/assert.h"
#include "base/limits.h"
#include "base/mem.h"

void epochs_free(struct epochs *es)
{
    mem_free(es->starts);
    memset(es, 0, sizeof *es);
}

static void epochs_drop_oldest(struct epochs *es, uint32_t n)
{
    memmove(es->starts, es->starts + n, (es->count - n) * sizeof *es->starts);
    es->count -= n;
}

void epochs_append(struct epochs *es, int32_t epoch, log_index index,
                   kafka_offset offset)
{
    if (es->count > 0 && es->starts[es->count - 1].epoch >= epoch) {
        ASSERT(es->starts[es->count - 1].epoch == epoch);
        return;
    }
    if (es->count == LIMIT_EPOCHS) {
        epochs_drop_oldest(es, 1);
    }
    if (es->count == es->capacity) {
        es->capacity = es->capacity == 0 ? 4 : es->capacity * 2;
        es->starts = mem_realloc(es->starts, es->capacity * sizeof *es->starts);
    }
    es->starts[es->count++] = (struct epoch_start){epoch, index, offset};
}

void epochs_truncate(struct epochs *es, log_index first)
{
    while (es->count > 0 && es->starts[es->count - 1].index.v >= first.v) {
        es->count--;
    }
}

void epochs_trim(struct epochs *es, kafka_offset offset)
{
    uint32_t n = 0;
    while (n + 1 < es->count && es->starts[n + 1].offset.v <= offset.v) {
        n++;
    }
    if (n > 0) {
        epochs_drop_oldest(es, n);
    }
}

bool epochs_end(const struct epochs *es, int32_t epoch, kafka_offset end,
                int32_t *found, kafka_offset *found_end)
{
    uint32_t i = es->count;
    while (i > 0 && es->starts[i - 1].epoch > epoch) {
        i--;
    }
    if (i == 0) {
        return false;
    }
    *found = es->starts[i - 1].epoch;
    *found_end = i == es->count ? end : es->starts[i].offset;
    return true;
}

int32_t epochs_at(const struct epochs *es, kafka_offset offset)
{
    for (uint32_t i = es->count; i > 0; i--) {
        if (es->starts[i - 1].offset.v <= offset.v) {
            return es->starts[i - 1].epoch;
        }
    }
    return -1;
}
