/* The printer of base/codec.h. */
#include "base/codec.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

struct printer {
    char *out;
    size_t size;
    size_t length;
    int version;
};

__attribute__((format(printf, 2, 3))) static void put(struct printer *p,
                                                      const char *format, ...)
{
    size_t left = p->length < p->size ? p->size - p->length : 0;
    va_list args;
    va_start(args, format);
    int n =
        vsnprintf(left == 0 ? NULL : p->out + p->length, left, format, args);
    va_end(args);
    p->length += n < 0 ? 0 : (size_t)n;
}

static void put_text(struct printer *p, struct wire_str s)
{
    if (s.n < 0) {
        put(p, "null");
        return;
    }
    put(p, "\"");
    for (int32_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '"' || c == '\\') {
            put(p, "\\%c", c);
        } else if (c < 0x20 || c == 0x7f) {
            put(p, "\\u%04x", c);
        } else {
            put(p, "%c", c);
        }
    }
    put(p, "\"");
}

static void put_bytes(struct printer *p, int32_t n)
{
    if (n < 0) {
        put(p, "null");
    } else {
        put(p, "\"%" PRId32 " bytes\"", n);
    }
}

static void put_struct(struct printer *p, const struct codec_struct *s,
                       const void *in);

static void put_value(struct printer *p, const struct codec_field *f,
                      const void *v)
{
    char text[UUID_TEXT_SIZE];
    switch ((enum codec_kind)f->kind) {
        case CODEC_BOOL:
            put(p, *(const bool *)v ? "true" : "false");
            return;
        case CODEC_I8:
            put(p, "%d", *(const int8_t *)v);
            return;
        case CODEC_I16:
            put(p, "%d", *(const int16_t *)v);
            return;
        case CODEC_U16:
            put(p, "%d", *(const uint16_t *)v);
            return;
        case CODEC_I32:
            put(p, "%" PRId32, *(const int32_t *)v);
            return;
        case CODEC_I64:
            put(p, "%" PRId64, *(const int64_t *)v);
            return;
        case CODEC_F64:
            put(p, "%.17g", *(const double *)v);
            return;
        case CODEC_UUID:
            uuid_format(v, text);
            put(p, "\"%s\"", text);
            return;
        case CODEC_STRING:
            put_text(p, *(const struct wire_str *)v);
            return;
        case CODEC_BYTES:
            put_bytes(p, ((const struct wire_bytes *)v)->n);
            return;
        case CODEC_RECORDS:
            put_bytes(p, ((const struct wire_records *)v)->n);
            return;
        case CODEC_STRUCT:
            put_struct(p, f->type, v);
            return;
    }
}

static void put_array(struct printer *p, const struct codec_field *f,
                      const void *in)
{
    const uint8_t *elements;
    int32_t n;
    memcpy(&elements, (const uint8_t *)in + f->offset, sizeof elements);
    memcpy(&n, (const uint8_t *)in + f->count_offset, sizeof n);
    if (n < 0) {
        put(p, "null");
        return;
    }
    size_t size = codec_element_size(f);
    put(p, "[");
    for (int32_t i = 0; i < n; i++) {
        put(p, i == 0 ? "" : ",");
        put_value(p, f, elements + (size_t)i * size);
    }
    put(p, "]");
}

static void put_field(struct printer *p, const struct codec_field *f,
                      const void *in)
{
    const void *v = (const uint8_t *)in + f->offset;
    if (f->array) {
        put_array(p, f, in);
        return;
    }
    if (f->pointer) {
        memcpy(&v, v, sizeof v);
        if (v == NULL) {
            put(p, "null");
            return;
        }
    }
    put_value(p, f, v);
}

static void put_struct(struct printer *p, const struct codec_struct *s,
                       const void *in)
{
    const char *comma = "";
    put(p, "{");
    for (int i = 0; i < s->n_fields; i++) {
        const struct codec_field *f = &s->fields[i];
        if (codec_in(f->present, p->version)) {
            put(p, "%s\"%s\":", comma, f->name);
            put_field(p, f, in);
            comma = ",";
        }
    }
    put(p, "}");
}

size_t codec_print(const struct codec_message *m, const void *in, int version,
                   char *out, size_t size)
{
    struct printer p = {out, size, 0, version};
    out[0] = '\0';
    put_struct(&p, m->body, in);
    return p.length;
}
