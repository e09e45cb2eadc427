/* Big-endian numbers in memory, as the wire and our files have them. */
#ifndef PARTITION_BYTES_H
#define PARTITION_BYTES_H

#include <stdint.h>
#include <string.h>

static inline uint16_t get_u16(const uint8_t *p)
{
    return (uint16_t)((p[0] << 8) | p[1]);
}
static inline uint32_t get_u32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return __builtin_bswap32(v);
}
static inline uint64_t get_u64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return __builtin_bswap64(v);
}
static inline int16_t get_i16(const uint8_t *p)
{
    return (int16_t)get_u16(p);
}
static inline int32_t get_i32(const uint8_t *p)
{
    return (int32_t)get_u32(p);
}
static inline int64_t get_i64(const uint8_t *p)
{
    return (int64_t)get_u64(p);
}

static inline void put_u16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}
static inline void put_u32(uint8_t *p, uint32_t v)
{
    v = __builtin_bswap32(v);
    memcpy(p, &v, sizeof v);
}
static inline void put_u64(uint8_t *p, uint64_t v)
{
    v = __builtin_bswap64(v);
    memcpy(p, &v, sizeof v);
}
static inline void put_i16(uint8_t *p, int16_t v)
{
    put_u16(p, (uint16_t)v);
}
static inline void put_i32(uint8_t *p, int32_t v)
{
    put_u32(p, (uint32_t)v);
}
static inline void put_i64(uint8_t *p, int64_t v)
{
    put_u64(p, (uint64_t)v);
}

#endif
