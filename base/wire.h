/* The primitive types of Kafka's wire: big endian, read from a frame with a
 * sticky error, written to a gather list. What is read points into the frame:
 * nothing is copied, so the frame must outlive it. */
#ifndef BASE_WIRE_H
#define BASE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/types.h"

/* Text that is not NUL-terminated; n == -1 is null, all zero is empty. */
struct wire_str {
    const char *p;
    int32_t n;
};
struct wire_bytes {
    const uint8_t *p;
    int32_t n; /* -1: null */
};
/* Record batches: one piece at `p` (n_iov == 0, always so when decoded), or
 * the pieces of `iov`; `n` is their total in bytes, -1 is null. When encoding,
 * the memory is referenced, not copied. */
struct wire_records {
    const uint8_t *p;
    int32_t n;
    int n_iov;
    const struct iovec *iov;
};

#define WIRE_NULL_STR ((struct wire_str){NULL, -1})
#define WIRE_STR(literal) ((struct wire_str){"" literal, sizeof literal - 1})

/* View of a C string (NULL gives null). */
static inline struct wire_str wire_str_of(const char *s)
{
    return s == NULL ? WIRE_NULL_STR : (struct wire_str){s, (int32_t)strlen(s)};
}
static inline bool wire_str_equal(struct wire_str a, struct wire_str b)
{
    return a.n == b.n && (a.n <= 0 || memcmp(a.p, b.p, (size_t)a.n) == 0);
}
static inline bool wire_str_is(struct wire_str a, const char *s)
{
    return wire_str_equal(a, wire_str_of(s));
}

/* ---- reading ------------------------------------------------------------ */
/* After an error every read gives zero and p == end; err tells the first. */
struct wire_reader {
    const uint8_t *p;
    const uint8_t *end;
    enum err err;
};

void wire_reader_init(struct wire_reader *r, const void *data, size_t size);
/* Remembers the first error and stops all reading. */
void wire_fail(struct wire_reader *r, enum err err);
static inline size_t wire_left(const struct wire_reader *r)
{
    return (size_t)(r->end - r->p);
}

bool wire_read_bool(struct wire_reader *r);
int8_t wire_read_i8(struct wire_reader *r);
int16_t wire_read_i16(struct wire_reader *r);
uint16_t wire_read_u16(struct wire_reader *r);
int32_t wire_read_i32(struct wire_reader *r);
int64_t wire_read_i64(struct wire_reader *r);
double wire_read_f64(struct wire_reader *r);
struct uuid wire_read_uuid(struct wire_reader *r);
/* Unsigned varint of at most 32 bits; ERR_INVALID when longer. */
uint32_t wire_read_uvarint(struct wire_reader *r);
/* Zigzag varints as in records. */
int32_t wire_read_varint(struct wire_reader *r);
int64_t wire_read_varlong(struct wire_reader *r);
/* The next `n` bytes; NULL (and ERR_INVALID) when there are fewer. */
const uint8_t *wire_read_raw(struct wire_reader *r, size_t n);
/* `compact`: the length as unsigned varint of n + 1, else int16 (strings) or
 * int32 (bytes). Null where it is not allowed is ERR_INVALID. */
struct wire_str wire_read_string(struct wire_reader *r, bool compact,
                                 bool nullable);
struct wire_bytes wire_read_bytes(struct wire_reader *r, bool compact,
                                  bool nullable);
/* Count of an array whose elements take at least `element_min` (> 0) bytes;
 * a count that the rest of the frame cannot hold is ERR_INVALID. -1: null. */
int32_t wire_read_count(struct wire_reader *r, bool compact, bool nullable,
                        size_t element_min);
/* Skips a section of tagged fields of which none is known. */
void wire_skip_tags(struct wire_reader *r);

/* ---- writing ------------------------------------------------------------ */
struct wire_ref {
    size_t at; /* own bytes before it */
    struct iovec iov;
};
/* Own bytes in one growing buffer, and references to memory of others that is
 * to be sent between them; that memory stays the caller's. */
struct wire_writer {
    uint8_t *own;
    size_t n_own;
    size_t cap_own;
    struct wire_ref *refs;
    int n_refs;
    int cap_refs;
    size_t size; /* of everything written */
};

/* Makes room for `reserve` own bytes (0 is fine: it grows). */
void wire_writer_init(struct wire_writer *w, size_t reserve);
void wire_writer_free(struct wire_writer *w);

void wire_write_bool(struct wire_writer *w, bool v);
void wire_write_i8(struct wire_writer *w, int8_t v);
void wire_write_i16(struct wire_writer *w, int16_t v);
void wire_write_u16(struct wire_writer *w, uint16_t v);
void wire_write_i32(struct wire_writer *w, int32_t v);
void wire_write_i64(struct wire_writer *w, int64_t v);
void wire_write_f64(struct wire_writer *w, double v);
void wire_write_uuid(struct wire_writer *w, const struct uuid *v);
void wire_write_uvarint(struct wire_writer *w, uint32_t v);
void wire_write_varint(struct wire_writer *w, int32_t v);
void wire_write_varlong(struct wire_writer *w, int64_t v);
void wire_write_raw(struct wire_writer *w, const void *data, size_t n);
/* Small pieces are copied, others referenced until wire_writer_free. */
void wire_write_ref(struct wire_writer *w, const void *data, size_t n);
/* A string longer than 32767 bytes is cut there, as no client reads more.
 * Null where it is not allowed is written as empty. */
void wire_write_string(struct wire_writer *w, struct wire_str s, bool compact,
                       bool nullable);
void wire_write_bytes(struct wire_writer *w, struct wire_bytes b, bool compact,
                      bool nullable);
void wire_write_records(struct wire_writer *w, const struct wire_records *rec,
                        bool compact, bool nullable);
void wire_write_count(struct wire_writer *w, int32_t n, bool compact,
                      bool nullable);
/* Overwrites four own bytes at `at`, written before any reference. */
void wire_patch_i32(struct wire_writer *w, size_t at, int32_t v);

/* Sizes of what the calls above write. */
size_t wire_uvarint_size(uint32_t v);
size_t wire_string_size(struct wire_str s, bool compact, bool nullable);
size_t wire_bytes_size(int32_t n, bool compact, bool nullable);
size_t wire_count_size(int32_t n, bool compact, bool nullable);

/* The gather list: at most 2 * n_refs + 1 pieces. Gives how many `iov` got
 * (never more than `max`, which must suffice). Valid until the next write. */
int wire_writer_iov(const struct wire_writer *w, struct iovec *iov, int max);
/* Copies everything to `out`, which has room for w->size bytes. */
void wire_writer_copy(const struct wire_writer *w, void *out);

#endif
