/* Encodes and decodes the messages of the wire by tables that are generated
 * from net/schema. Users include "schema/<api>.h" and call the typed functions
 * there (struct fetch_request, fetch_request_decode, ...); this is the one
 * interpreter behind all of them. */
#ifndef BASE_CODEC_H
#define BASE_CODEC_H

#include "base/arena.h"
#include "base/wire.h"

#define CODEC_VERSION_MAX 127 /* "and all later ones" */

enum codec_kind {
    CODEC_BOOL,
    CODEC_I8,
    CODEC_I16,
    CODEC_U16,
    CODEC_I32,
    CODEC_I64,
    CODEC_F64,
    CODEC_UUID,
    CODEC_STRING,
    CODEC_BYTES,
    CODEC_RECORDS,
    CODEC_STRUCT,
};

struct codec_range { /* of versions; first > last: none */
    int8_t first;
    int8_t last;
};

struct codec_field {
    const char *name;
    uint16_t offset;       /* of the value, or of the pointer to elements */
    uint16_t count_offset; /* arrays: of the int32_t count */
    uint8_t kind;          /* enum codec_kind */
    bool array;
    bool pointer; /* nullable struct: a pointer, NULL is null */
    bool plain;   /* never compact (client_id of the request header) */
    struct codec_range present;
    struct codec_range nullable;
    int8_t tag;                      /* -1: not tagged */
    const struct codec_struct *type; /* of CODEC_STRUCT */
    int64_t initial; /* default: a number, or -1 for null, 0 for empty (of a
                      * pointer: a struct of defaults) */
};

/* Fields in the order of the wire, tagged ones last by ascending tag. */
struct codec_struct {
    size_t size;        /* of the C struct */
    size_t element_min; /* fewest bytes it takes on the wire, at least 1 */
    uint16_t n_fields;
    uint16_t n_plain; /* how many are not tagged */
    const struct codec_field *fields;
};

struct codec_message {
    const char *name;
    int8_t first; /* versions that can be encoded and decoded */
    int8_t last;
    int8_t flexible; /* first flexible version; CODEC_VERSION_MAX: none */
    const struct codec_struct *body;
};

/* Sets every field of `out` to its default; all pointers to null. */
void codec_init(const struct codec_message *m, void *out);
/* Reads `out` (fields absent in `version` get their default). Arrays are
 * taken from `a` with arena_try_alloc; strings, bytes and records point into
 * the frame. Errors, in r->err: ERR_INVALID (malformed), ERR_UNSUPPORTED (no
 * such version), ERR_TOO_LARGE (limit of the arena); `out` can be printed and
 * dropped then, but not trusted. */
void codec_decode(const struct codec_message *m, struct wire_reader *r,
                  int version, struct arena *a, void *out);
/* Bytes that codec_encode writes. */
size_t codec_size(const struct codec_message *m, const void *in, int version);
/* Writes `in` in a version that the message has. Fields absent there are
 * skipped, null where it is not allowed becomes empty. Records of `in` are
 * referenced: they must live until the writer is freed. */
void codec_encode(const struct codec_message *m, struct wire_writer *w,
                  const void *in, int version);
/* Where in what codec_encode writes a field of the message itself begins; -1:
 * this version has none of that name. */
ptrdiff_t codec_field_place(const struct codec_message *m, const void *in,
                            int version, const char *name);
/* Writes {"field":value,...} of the fields that `version` has, as text with a
 * NUL, to `out` of `size` > 0 bytes; cut where it does not fit. Gives the
 * length of the whole text. Bytes are written as their count. */
size_t codec_print(const struct codec_message *m, const void *in, int version,
                   char *out, size_t size);

static inline bool codec_in(struct codec_range range, int version)
{
    return range.first <= version && version <= range.last;
}

/* The typed functions of one message. */
#define CODEC_DECLARE(X)                                                       \
    extern const struct codec_message X##_message;                             \
    static inline void X##_init(struct X *out)                                 \
    {                                                                          \
        codec_init(&X##_message, out);                                         \
    }                                                                          \
    static inline void X##_decode(struct wire_reader *r, int version,          \
                                  struct arena *a, struct X *out)              \
    {                                                                          \
        codec_decode(&X##_message, r, version, a, out);                        \
    }                                                                          \
    static inline size_t X##_size(const struct X *in, int version)             \
    {                                                                          \
        return codec_size(&X##_message, in, version);                          \
    }                                                                          \
    static inline void X##_encode(struct wire_writer *w, const struct X *in,   \
                                  int version)                                 \
    {                                                                          \
        codec_encode(&X##_message, w, in, version);                            \
    }                                                                          \
    static inline size_t X##_print(const struct X *in, int version, char *out, \
                                   size_t size)                                \
    {                                                                          \
        return codec_print(&X##_message, in, version, out, size);              \
    }

/* ---- the table of APIs (generated: schema/apis.h has the keys) ---------- */
/* Bytes in memory of the field's value, of an array's elements. */
size_t codec_element_size(const struct codec_field *field);

struct codec_api {
    int16_t key;
    const char *name;
    int8_t offer_min; /* what ApiVersions tells; -1: never offered */
    int8_t offer_max;
    int8_t serve_min; /* what can be decoded */
    int8_t serve_max;
    int8_t flexible; /* as in codec_message */
    bool now;        /* offered as soon as it has a handler */
    const struct codec_message *request;
    const struct codec_message *response;
};

/* Ascending by key. */
extern const struct codec_api codec_apis[];
extern const int codec_n_apis;
/* NULL: no such API in the schema. */
const struct codec_api *codec_api_find(int16_t key);
/* Whether requests of this version are served: it can be decoded and is not
 * beyond what is offered. `api` may be NULL. */
bool codec_api_served(const struct codec_api *api, int version);
/* Version of the request's header (1 or 2) and of the response's (0 or 1). */
int codec_request_header(const struct codec_api *api, int version);
int codec_response_header(const struct codec_api *api, int version);

#endif
