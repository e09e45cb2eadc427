#include "partition/offset_map.h"

#include <string.h>

#include "base/assert.h"
#include "base/mem.h"

/* Open addressing: beyond this share of the slots searching becomes slow. */
#define LOAD_PERCENT 85
#define SLOTS_MIN 1024

struct slot {
    uint64_t hash[2];
    int64_t offset; /* -1: free */
};
_Static_assert(sizeof(struct slot) == OFFSET_MAP_SLOT, "as the header says");

struct offset_map {
    uint64_t secret[2];
    uint64_t n_slots, slots_max, count;
    struct slot *slots;
};

/* ---- SipHash-2-4 with 128 bits (Aumasson, Bernstein 2012) ---------------- */
static inline uint64_t turn(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = turn(v[1], 13) ^ v[0];
    v[3] = turn(v[3], 16) ^ v[2];
    v[0] = turn(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = turn(v[1], 17) ^ v[2];
    v[3] = turn(v[3], 21) ^ v[0];
    v[2] = turn(v[2], 32);
}

static uint64_t load_le(const uint8_t *at, size_t n)
{
    uint64_t word = 0;
    for (size_t i = 0; i < n; i++) {
        word |= (uint64_t)at[i] << (8 * i);
    }
    return word;
}

static void sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_round(v);
    sip_round(v);
    v[0] ^= word;
}

static uint64_t sip_end(uint64_t v[4])
{
    for (int i = 0; i < 4; i++) {
        sip_round(v);
    }
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static void sip_hash(const uint64_t secret[2], const void *key, size_t size,
                     uint64_t out[2])
{
    const uint8_t *at = key;
    uint64_t v[4] = {
        secret[0] ^ 0x736f6d6570736575u, secret[1] ^ 0x646f72616e646f6du ^ 0xee,
        secret[0] ^ 0x6c7967656e657261u, secret[1] ^ 0x7465646279746573u};
    uint64_t last = (uint64_t)size << 56;
    for (; size >= 8; size -= 8, at += 8) {
        sip_word(v, load_le(at, 8));
    }
    sip_word(v, last | load_le(at, size));
    v[2] ^= 0xee;
    out[0] = sip_end(v);
    v[1] ^= 0xdd;
    out[1] = sip_end(v);
}

/* ---- the table ----------------------------------------------------------- */
static struct slot *slots_new(uint64_t n)
{
    struct slot *slots = mem_alloc((size_t)n * sizeof *slots);
    for (uint64_t i = 0; i < n; i++) {
        slots[i].offset = -1;
    }
    return slots;
}

struct offset_map *offset_map_new(size_t bytes_max, const uint64_t secret[2])
{
    struct offset_map *map = mem_zalloc(sizeof *map);
    map->slots_max = bytes_max / sizeof(struct slot);
    if (map->slots_max < SLOTS_MIN) {
        map->slots_max = SLOTS_MIN;
    }
    map->n_slots = SLOTS_MIN;
    map->secret[0] = secret[0];
    map->secret[1] = secret[1];
    map->slots = slots_new(map->n_slots);
    return map;
}

void offset_map_free(struct offset_map *map)
{
    if (map != NULL) {
        mem_free(map->slots);
        mem_free(map);
    }
}

/* The slot of this hash, or the free one where it belongs. */
static struct slot *find(const struct offset_map *map, const uint64_t hash[2])
{
    uint64_t i = hash[0] % map->n_slots;
    for (;;) {
        struct slot *s = &map->slots[i];
        if (s->offset < 0 || (s->hash[0] == hash[0] && s->hash[1] == hash[1])) {
            return s;
        }
        i = i + 1 == map->n_slots ? 0 : i + 1;
    }
}

/* Room for one key more; false when the bound is reached. */
static bool make_room(struct offset_map *map)
{
    if (map->count < map->n_slots * LOAD_PERCENT / 100) {
        return true;
    }
    if (map->n_slots == map->slots_max) {
        return false;
    }
    struct slot *old = map->slots;
    uint64_t n = map->n_slots;
    map->n_slots = n * 2 < map->slots_max ? n * 2 : map->slots_max;
    map->slots = slots_new(map->n_slots);
    for (uint64_t i = 0; i < n; i++) {
        if (old[i].offset >= 0) {
            *find(map, old[i].hash) = old[i];
        }
    }
    mem_free(old);
    return true;
}

bool offset_map_put(struct offset_map *map, const void *key, size_t size,
                    kafka_offset offset)
{
    uint64_t hash[2];
    ASSERT(offset.v >= 0);
    sip_hash(map->secret, key, size, hash);
    struct slot *s = find(map, hash);
    if (s->offset < 0) {
        if (!make_room(map)) {
            return false;
        }
        s = find(map, hash);
        s->hash[0] = hash[0];
        s->hash[1] = hash[1];
        map->count++;
    }
    s->offset = offset.v;
    return true;
}

kafka_offset offset_map_get(const struct offset_map *map, const void *key,
                            size_t size)
{
    uint64_t hash[2];
    sip_hash(map->secret, key, size, hash);
    return (kafka_offset){find(map, hash)->offset};
}

uint64_t offset_map_count(const struct offset_map *map)
{
    return map->count;
}
