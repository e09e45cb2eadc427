#include "raft/handle.h"

#include <string.h>

#include "base/assert.h"
#include "base/mem.h"

void entry_table_init(struct entry_table *table, uint64_t first)
{
    memset(table, 0, sizeof *table);
    table->first = first;
}

static void slot_drop(struct entry_slot *slot)
{
    if (slot->place.chunk != NULL)
        wal_place_drop(&slot->place);
    memset(slot, 0, sizeof *slot);
}

void entry_table_free(struct entry_table *table)
{
    entry_table_truncate(table, table->first);
    mem_free(table->slots);
    table->slots = NULL;
    table->size = 0;
}

static void table_grow(struct entry_table *table)
{
    uint32_t size = table->size == 0 ? 16 : table->size * 2;
    struct entry_slot *slots = mem_zalloc(size * sizeof *slots);

    for (uint32_t i = 0; i < table->count; i++) {
        uint64_t index = table->first + i;

        slots[index & (size - 1)] = table->slots[index & (table->size - 1)];
    }
    mem_free(table->slots);
    table->slots = slots;
    table->size = size;
}

void entry_table_push(struct entry_table *table, uint64_t term,
                      enum entry_type type, const struct wal_place *place)
{
    struct entry_slot *slot;

    if (table->count == table->size)
        table_grow(table);
    slot = &table->slots[entry_table_next(table) & (table->size - 1)];
    slot->term = term;
    slot->bytes_before = table->bytes;
    slot->place = *place;
    slot->type = (uint8_t)type;
    table->bytes += place->size;
    table->count++;
}

void entry_table_truncate(struct entry_table *table, uint64_t index)
{
    while (table->count > 0 && entry_table_next(table) > index) {
        struct entry_slot *slot =
            entry_table_at(table, entry_table_next(table) - 1);

        table->bytes = slot->bytes_before;
        slot_drop(slot);
        table->count--;
    }
}

void entry_table_evict(struct entry_table *table, uint64_t index)
{
    while (table->count > 0 && table->first <= index) {
        slot_drop(entry_table_at(table, table->first));
        table->first++;
        table->count--;
    }
}

static uint64_t bytes_upto(const struct entry_table *table, uint64_t index)
{
    const struct entry_slot *slot;

    if (table->count == 0)
        return table->bytes;
    if (index + 1 < table->first)
        index = table->first - 1;
    slot = entry_table_at(table, index + 1);
    return slot != NULL ? slot->bytes_before : table->bytes;
}

uint64_t entry_table_bytes(const struct entry_table *table, uint64_t after,
                           uint64_t upto)
{
    return upto > after ? bytes_upto(table, upto) - bytes_upto(table, after)
                        : 0;
}
