#include "base/wire.h"

#include <endian.h>

#include "base/assert.h"
#include "base/mem.h"

/* Below this many bytes a copy is cheaper than one more piece to gather. */
#define REF_MIN 256

/* ---- reading ------------------------------------------------------------ */
void wire_reader_init(struct wire_reader *r, const void *data, size_t size)
{
    r->p = data;
    r->end = r->p + size;
    r->err = ERR_OK;
}

void wire_fail(struct wire_reader *r, enum err err)
{
    ASSERT(err != ERR_OK);
    if (r->err == ERR_OK) {
        r->err = err;
    }
    r->p = r->end;
}

const uint8_t *wire_read_raw(struct wire_reader *r, size_t n)
{
    if (r->err != ERR_OK || wire_left(r) < n) {
        wire_fail(r, ERR_INVALID);
        return NULL;
    }
    const uint8_t *p = r->p;
    r->p += n;
    return p;
}

/* The next bytes, of a number, into `v`; false (and zero) when there are
 * fewer. After an error nothing is left, so it need not be asked for. */
static inline bool take(struct wire_reader *r, void *v, size_t n)
{
    if (__builtin_expect(wire_left(r) < n, 0)) {
        memset(v, 0, n);
        wire_fail(r, ERR_INVALID);
        return false;
    }
    memcpy(v, r->p, n);
    r->p += n;
    return true;
}

bool wire_read_bool(struct wire_reader *r)
{
    uint8_t v;
    take(r, &v, sizeof v);
    return v != 0;
}

int8_t wire_read_i8(struct wire_reader *r)
{
    int8_t v;
    take(r, &v, sizeof v);
    return v;
}

uint16_t wire_read_u16(struct wire_reader *r)
{
    uint16_t v;
    take(r, &v, sizeof v);
    return be16toh(v);
}

int16_t wire_read_i16(struct wire_reader *r)
{
    return (int16_t)wire_read_u16(r);
}

int32_t wire_read_i32(struct wire_reader *r)
{
    uint32_t v;
    take(r, &v, sizeof v);
    return (int32_t)be32toh(v);
}

int64_t wire_read_i64(struct wire_reader *r)
{
    uint64_t v;
    take(r, &v, sizeof v);
    return (int64_t)be64toh(v);
}

double wire_read_f64(struct wire_reader *r)
{
    int64_t bits = wire_read_i64(r);
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

struct uuid wire_read_uuid(struct wire_reader *r)
{
    struct uuid id;
    take(r, id.b, sizeof id.b);
    return id;
}

/* A varint of at most `bits` bits; ERR_INVALID when it has more. */
static uint64_t read_varint(struct wire_reader *r, unsigned bits)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < bits; shift += 7) {
        if (r->p == r->end) {
            break;
        }
        uint64_t b = *r->p++;
        uint64_t part = b & 0x7f;
        if (shift + 7 > bits && part >> (bits - shift) != 0) {
            break;
        }
        v |= part << shift;
        if ((b & 0x80) == 0) {
            return v;
        }
    }
    wire_fail(r, ERR_INVALID);
    return 0;
}

uint32_t wire_read_uvarint(struct wire_reader *r)
{
    if (r->p != r->end && *r->p < 0x80) {
        return *r->p++;
    }
    return (uint32_t)read_varint(r, 32);
}

int32_t wire_read_varint(struct wire_reader *r)
{
    uint32_t v = (uint32_t)read_varint(r, 32);
    return (int32_t)(v >> 1 ^ (0u - (v & 1)));
}

int64_t wire_read_varlong(struct wire_reader *r)
{
    uint64_t v = read_varint(r, 64);
    return (int64_t)(v >> 1 ^ (0ull - (v & 1)));
}

/* A length or count: -1 for null; anything impossible is ERR_INVALID. */
static int32_t read_length(struct wire_reader *r, bool compact, bool nullable,
                           bool is_short, size_t unit)
{
    int64_t n;
    if (compact) {
        n = (int64_t)wire_read_uvarint(r) - 1;
    } else {
        n = is_short ? wire_read_i16(r) : wire_read_i32(r);
    }
    if (r->err != ERR_OK) {
        return 0;
    }
    if (n == -1 && nullable) {
        return -1;
    }
    if (n < 0 || (uint64_t)n > wire_left(r) / unit || n > INT32_MAX) {
        wire_fail(r, ERR_INVALID);
        return 0;
    }
    return (int32_t)n;
}

struct wire_str wire_read_string(struct wire_reader *r, bool compact,
                                 bool nullable)
{
    int32_t n = read_length(r, compact, nullable, true, 1);
    if (n == -1) {
        return WIRE_NULL_STR;
    }
    const void *p = wire_read_raw(r, (size_t)n);
    return (struct wire_str){p, p == NULL ? 0 : n};
}

struct wire_bytes wire_read_bytes(struct wire_reader *r, bool compact,
                                  bool nullable)
{
    int32_t n = read_length(r, compact, nullable, false, 1);
    if (n == -1) {
        return (struct wire_bytes){NULL, -1};
    }
    const uint8_t *p = wire_read_raw(r, (size_t)n);
    return (struct wire_bytes){p, p == NULL ? 0 : n};
}

int32_t wire_read_count(struct wire_reader *r, bool compact, bool nullable,
                        size_t element_min)
{
    ASSERT(element_min > 0);
    return read_length(r, compact, nullable, false, element_min);
}

void wire_skip_tags(struct wire_reader *r)
{
    uint32_t n = wire_read_uvarint(r);
    for (uint32_t i = 0; i < n && r->err == ERR_OK; i++) {
        wire_read_uvarint(r);
        wire_read_raw(r, wire_read_uvarint(r));
    }
}

/* ---- writing ------------------------------------------------------------ */
void wire_writer_init(struct wire_writer *w, size_t reserve)
{
    *w = (struct wire_writer){.cap_own = reserve};
    if (reserve > 0) {
        w->own = mem_alloc(reserve);
    }
}

void wire_writer_free(struct wire_writer *w)
{
    mem_free(w->own);
    mem_free(w->refs);
    *w = (struct wire_writer){0};
}

static void own_grow(struct wire_writer *w, size_t n)
{
    size_t cap = w->cap_own < 128 ? 256 : w->cap_own * 2;
    while (cap - w->n_own < n) {
        cap *= 2;
    }
    w->own = mem_realloc(w->own, cap);
    w->cap_own = cap;
}

/* Room for `n` more own bytes, counted as written. */
static inline uint8_t *own_add(struct wire_writer *w, size_t n)
{
    if (__builtin_expect(w->cap_own - w->n_own < n, 0)) {
        own_grow(w, n);
    }
    uint8_t *p = w->own + w->n_own;
    w->n_own += n;
    w->size += n;
    return p;
}

void wire_write_bool(struct wire_writer *w, bool v)
{
    *own_add(w, 1) = v;
}

void wire_write_i8(struct wire_writer *w, int8_t v)
{
    *own_add(w, 1) = (uint8_t)v;
}

void wire_write_i16(struct wire_writer *w, int16_t v)
{
    wire_write_u16(w, (uint16_t)v);
}

void wire_write_u16(struct wire_writer *w, uint16_t v)
{
    uint16_t be = htobe16(v);
    memcpy(own_add(w, sizeof be), &be, sizeof be);
}

void wire_write_i32(struct wire_writer *w, int32_t v)
{
    uint32_t be = htobe32((uint32_t)v);
    memcpy(own_add(w, sizeof be), &be, sizeof be);
}

void wire_write_i64(struct wire_writer *w, int64_t v)
{
    uint64_t be = htobe64((uint64_t)v);
    memcpy(own_add(w, sizeof be), &be, sizeof be);
}

void wire_write_f64(struct wire_writer *w, double v)
{
    int64_t bits;
    memcpy(&bits, &v, sizeof bits);
    wire_write_i64(w, bits);
}

void wire_write_uuid(struct wire_writer *w, const struct uuid *v)
{
    wire_write_raw(w, v->b, sizeof v->b);
}

static void write_varint(struct wire_writer *w, uint64_t v)
{
    while (v >= 0x80) {
        *own_add(w, 1) = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    *own_add(w, 1) = (uint8_t)v;
}

void wire_write_uvarint(struct wire_writer *w, uint32_t v)
{
    write_varint(w, v);
}

void wire_write_varint(struct wire_writer *w, int32_t v)
{
    write_varint(w, ((uint32_t)v << 1) ^ (v < 0 ? UINT32_MAX : 0));
}

void wire_write_varlong(struct wire_writer *w, int64_t v)
{
    write_varint(w, ((uint64_t)v << 1) ^ (v < 0 ? UINT64_MAX : 0));
}

void wire_write_raw(struct wire_writer *w, const void *data, size_t n)
{
    if (n > 0) {
        memcpy(own_add(w, n), data, n);
    }
}

void wire_write_ref(struct wire_writer *w, const void *data, size_t n)
{
    if (n < REF_MIN) {
        wire_write_raw(w, data, n);
        return;
    }
    if (w->n_refs == w->cap_refs) {
        w->cap_refs = w->cap_refs == 0 ? 4 : w->cap_refs * 2;
        w->refs = mem_realloc(w->refs, (size_t)w->cap_refs * sizeof *w->refs);
    }
    /* struct iovec knows no const; nobody writes through it */
    void *base = (void *)(uintptr_t)data;
    w->refs[w->n_refs++] = (struct wire_ref){w->n_own, {base, n}};
    w->size += n;
}

static int32_t string_length(struct wire_str s)
{
    return s.n > INT16_MAX ? INT16_MAX : s.n;
}

/* `is_short`: an int16 when it is not compact. */
static void write_length(struct wire_writer *w, int32_t n, bool compact,
                         bool is_short)
{
    ASSERT(n >= -1);
    if (compact) {
        wire_write_uvarint(w, (uint32_t)n + 1);
    } else if (is_short) {
        wire_write_i16(w, (int16_t)n);
    } else {
        wire_write_i32(w, n);
    }
}

static int32_t null_or_empty(int32_t n, bool nullable)
{
    return n < 0 && !nullable ? 0 : n;
}

void wire_write_string(struct wire_writer *w, struct wire_str s, bool compact,
                       bool nullable)
{
    int32_t n = null_or_empty(string_length(s), nullable);
    write_length(w, n, compact, true);
    wire_write_raw(w, s.p, n < 0 ? 0 : (size_t)n);
}

void wire_write_bytes(struct wire_writer *w, struct wire_bytes b, bool compact,
                      bool nullable)
{
    int32_t n = null_or_empty(b.n, nullable);
    write_length(w, n, compact, false);
    wire_write_raw(w, b.p, n < 0 ? 0 : (size_t)n);
}

void wire_write_records(struct wire_writer *w, const struct wire_records *rec,
                        bool compact, bool nullable)
{
    int32_t n = null_or_empty(rec->n, nullable);
    write_length(w, n, compact, false);
    size_t before = w->size;
    if (n > 0 && rec->n_iov == 0) {
        wire_write_ref(w, rec->p, (size_t)n);
    }
    for (int i = 0; n > 0 && i < rec->n_iov; i++) {
        wire_write_ref(w, rec->iov[i].iov_base, rec->iov[i].iov_len);
    }
    ASSERT(w->size - before == (n < 0 ? 0 : (size_t)n));
}

void wire_write_count(struct wire_writer *w, int32_t n, bool compact,
                      bool nullable)
{
    write_length(w, null_or_empty(n, nullable), compact, false);
}

void wire_patch_i32(struct wire_writer *w, size_t at, int32_t v)
{
    ASSERT(at + 4 <= w->n_own && (w->n_refs == 0 || at < w->refs[0].at));
    uint32_t be = htobe32((uint32_t)v);
    memcpy(w->own + at, &be, sizeof be);
}

size_t wire_uvarint_size(uint32_t v)
{
    size_t n = 1;
    while (v >= 0x80) {
        v >>= 7;
        n++;
    }
    return n;
}

static size_t length_size(int32_t n, bool compact, size_t width)
{
    return compact ? wire_uvarint_size((uint32_t)n + 1) : width;
}

size_t wire_string_size(struct wire_str s, bool compact, bool nullable)
{
    int32_t n = null_or_empty(string_length(s), nullable);
    return length_size(n, compact, 2) + (n < 0 ? 0 : (size_t)n);
}

size_t wire_bytes_size(int32_t n, bool compact, bool nullable)
{
    n = null_or_empty(n, nullable);
    return length_size(n, compact, 4) + (n < 0 ? 0 : (size_t)n);
}

size_t wire_count_size(int32_t n, bool compact, bool nullable)
{
    return length_size(null_or_empty(n, nullable), compact, 4);
}

int wire_writer_iov(const struct wire_writer *w, struct iovec *iov, int max)
{
    int n = 0;
    size_t at = 0;
    for (int i = 0; i <= w->n_refs; i++) {
        size_t until = i < w->n_refs ? w->refs[i].at : w->n_own;
        if (until > at) {
            ASSERT(n < max);
            iov[n++] = (struct iovec){w->own + at, until - at};
            at = until;
        }
        if (i < w->n_refs) {
            ASSERT(n < max);
            iov[n++] = w->refs[i].iov;
        }
    }
    return n;
}

void wire_writer_copy(const struct wire_writer *w, void *out)
{
    uint8_t *to = out;
    size_t at = 0;
    for (int i = 0; i <= w->n_refs; i++) {
        size_t until = i < w->n_refs ? w->refs[i].at : w->n_own;
        if (until > at) {
            memcpy(to, w->own + at, until - at);
            to += until - at;
            at = until;
        }
        if (i < w->n_refs) {
            memcpy(to, w->refs[i].iov.iov_base, w->refs[i].iov.iov_len);
            to += w->refs[i].iov.iov_len;
        }
    }
}
