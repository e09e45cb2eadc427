/* Reading and writing the metadata room's own bytes: integers in network
 * order, strings and blobs with their length before them. Reading is bounds
 * checked with a sticky error: after the first fault everything reads as zero
 * and codec_ok is false. */
#ifndef METADATA_CODEC_H
#define METADATA_CODEC_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/assert.h"
#include "base/buffer.h"
#include "base/types.h"

/* Text inside the bytes being read, not NUL-terminated; s NULL: null. */
struct text {
    const char *s;
    uint32_t size;
};

/* ---- writing ------------------------------------------------------------- */
static inline void codec_put_uint(struct buffer *b, uint64_t v, int n_bytes)
{
    uint8_t bytes[8];
    for (int i = 0; i < n_bytes; i++) {
        bytes[i] = (uint8_t)(v >> (8 * (n_bytes - 1 - i)));
    }
    buffer_append(b, bytes, (size_t)n_bytes);
}
static inline void codec_put_u8(struct buffer *b, uint8_t v)
{
    codec_put_uint(b, v, 1);
}
static inline void codec_put_u16(struct buffer *b, uint16_t v)
{
    codec_put_uint(b, v, 2);
}
static inline void codec_put_u32(struct buffer *b, uint32_t v)
{
    codec_put_uint(b, v, 4);
}
static inline void codec_put_i32(struct buffer *b, int32_t v)
{
    codec_put_uint(b, (uint32_t)v, 4);
}
static inline void codec_put_u64(struct buffer *b, uint64_t v)
{
    codec_put_uint(b, v, 8);
}
static inline void codec_put_bool(struct buffer *b, bool v)
{
    codec_put_uint(b, v ? 1 : 0, 1);
}
static inline void codec_put_uuid(struct buffer *b, const struct uuid *id)
{
    buffer_append(b, id->b, sizeof id->b);
}
#define CODEC_TEXT_NULL 0xffffu
/* NULL or at most 65534 bytes; the caller has checked the length. */
static inline void codec_put_text(struct buffer *b, const char *s)
{
    size_t n = s == NULL ? 0 : strlen(s);
    ASSERT(n < CODEC_TEXT_NULL);
    codec_put_u16(b, s == NULL ? (uint16_t)CODEC_TEXT_NULL : (uint16_t)n);
    buffer_append(b, s == NULL ? "" : s, n);
}
static inline void codec_put_blob(struct buffer *b, const void *data,
                                  uint32_t size)
{
    codec_put_u32(b, size);
    buffer_append(b, data, size);
}

/* ---- reading ------------------------------------------------------------- */
struct reader {
    const uint8_t *at;
    size_t left;
    bool bad;
};

static inline struct reader codec_reader(const uint8_t *data, size_t size)
{
    return (struct reader){.at = data, .left = size, .bad = false};
}
static inline bool codec_ok(const struct reader *r)
{
    return !r->bad;
}
/* True when all was read, without a fault. */
static inline bool codec_done(const struct reader *r)
{
    return !r->bad && r->left == 0;
}
/* The next `size` bytes, or NULL. */
static inline const uint8_t *codec_take(struct reader *r, size_t size)
{
    if (r->bad || size > r->left) {
        r->bad = true;
        return NULL;
    }
    const uint8_t *at = r->at;
    r->at += size;
    r->left -= size;
    return at;
}
static inline uint64_t codec_get_uint(struct reader *r, int n_bytes)
{
    const uint8_t *at = codec_take(r, (size_t)n_bytes);
    uint64_t v = 0;
    for (int i = 0; at != NULL && i < n_bytes; i++) {
        v = (v << 8) | at[i];
    }
    return v;
}
static inline uint8_t codec_get_u8(struct reader *r)
{
    return (uint8_t)codec_get_uint(r, 1);
}
static inline uint16_t codec_get_u16(struct reader *r)
{
    return (uint16_t)codec_get_uint(r, 2);
}
static inline uint32_t codec_get_u32(struct reader *r)
{
    return (uint32_t)codec_get_uint(r, 4);
}
static inline int32_t codec_get_i32(struct reader *r)
{
    return (int32_t)codec_get_uint(r, 4);
}
static inline uint64_t codec_get_u64(struct reader *r)
{
    return codec_get_uint(r, 8);
}
/* Anything but 0 and 1 is a fault, so that each value has one spelling. */
static inline bool codec_get_bool(struct reader *r)
{
    uint8_t v = codec_get_u8(r);
    if (v > 1) {
        r->bad = true;
    }
    return v == 1;
}
static inline struct uuid codec_get_uuid(struct reader *r)
{
    struct uuid id = {{0}};
    const uint8_t *at = codec_take(r, sizeof id.b);
    if (at != NULL) {
        memcpy(id.b, at, sizeof id.b);
    }
    return id;
}
static inline struct text codec_get_text_or_null(struct reader *r)
{
    uint16_t size = codec_get_u16(r);
    if (r->bad || size == CODEC_TEXT_NULL) {
        return (struct text){NULL, 0};
    }
    const uint8_t *at = codec_take(r, size);
    /* A NUL inside would be cut off by every C string made of it. */
    if (at != NULL && memchr(at, '\0', size) != NULL) {
        r->bad = true;
    }
    return r->bad ? (struct text){NULL, 0}
                  : (struct text){(const char *)at, size};
}
/* As above, but null is a fault. */
static inline struct text codec_get_text(struct reader *r)
{
    struct text t = codec_get_text_or_null(r);
    if (t.s == NULL) {
        r->bad = true;
    }
    return t;
}
static inline const uint8_t *codec_get_blob(struct reader *r, uint32_t *size)
{
    *size = codec_get_u32(r);
    const uint8_t *at = codec_take(r, *size);
    if (at == NULL) {
        *size = 0;
    }
    return at;
}
/* A count of things that take at least `least` bytes each and are at most
 * `most`: never larger than what the bytes left can hold, so that memory may
 * be allocated by it. */
static inline uint32_t codec_get_count(struct reader *r, size_t least,
                                       uint32_t most)
{
    uint32_t n = codec_get_u32(r);
    if (n > most || n > r->left / least) {
        r->bad = true;
        return 0;
    }
    return n;
}
/* Copy with a NUL, mem_free is the caller's; NULL of null. */
char *text_copy(struct text t);
bool text_is(struct text t, const char *s);

#endif
