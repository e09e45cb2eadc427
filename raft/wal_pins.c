#include "raft/wal_pins.h"

#include "base/assert.h"
#include "base/mem.h"

/* A list that grew larger is given back when it is cleared. */
#define KEEP 64

void wal_pins_note(struct wal_pins *pins, struct wal_group *group,
                   log_index index, bool known, uint32_t *slot)
{
    if (known && *slot < pins->n && pins->v[*slot].group == group) {
        struct wal_pin *pin = &pins->v[*slot];
        pin->first.v = index.v < pin->first.v ? index.v : pin->first.v;
        pin->upto.v = index.v > pin->upto.v ? index.v : pin->upto.v;
        return;
    }
    if (pins->n == pins->capacity) {
        pins->capacity = pins->capacity * 2 + 4;
        pins->v = mem_realloc(pins->v, pins->capacity * sizeof *pins->v);
    }
    *slot = pins->n;
    pins->v[pins->n++] = (struct wal_pin){group, index, index};
}

void wal_pins_truncate(struct wal_pins *pins, const struct wal_group *group,
                       log_index first)
{
    /* A group may have two pins when the first was given up meanwhile. */
    for (uint32_t k = 0; k < pins->n; k++) {
        struct wal_pin *pin = &pins->v[k];
        if (pin->group != group || pin->upto.v < first.v) {
            continue;
        }
        if (first.v <= pin->first.v) {
            pin->group = NULL;
        } else {
            pin->upto.v = first.v - 1;
        }
    }
}

void wal_pins_clear(struct wal_pins *pins)
{
    if (pins->capacity > KEEP) {
        mem_free(pins->v);
        pins->v = NULL;
        pins->capacity = 0;
    }
    pins->n = 0;
    pins->done = 0;
}
