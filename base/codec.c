#include "base/codec.h"

#include "base/assert.h"

/* What stays the same while one message is worked on. */
struct context {
    int version;
    bool flexible;
    struct arena *arena;
};

static const size_t kind_sizes[] = {
    [CODEC_BOOL] = sizeof(bool),
    [CODEC_I8] = 1,
    [CODEC_I16] = 2,
    [CODEC_U16] = 2,
    [CODEC_I32] = 4,
    [CODEC_I64] = 8,
    [CODEC_F64] = 8,
    [CODEC_UUID] = 16,
    [CODEC_STRING] = sizeof(struct wire_str),
    [CODEC_BYTES] = sizeof(struct wire_bytes),
    [CODEC_RECORDS] = sizeof(struct wire_records),
};

/* Fewest bytes of one element on the wire: the least length of those that
 * have one is the compact form's single byte. */
static const size_t kind_min[] = {
    [CODEC_BOOL] = 1,  [CODEC_I8] = 1,      [CODEC_I16] = 2,
    [CODEC_U16] = 2,   [CODEC_I32] = 4,     [CODEC_I64] = 8,
    [CODEC_F64] = 8,   [CODEC_UUID] = 16,   [CODEC_STRING] = 1,
    [CODEC_BYTES] = 1, [CODEC_RECORDS] = 1,
};

size_t codec_element_size(const struct codec_field *f)
{
    return f->kind == CODEC_STRUCT ? f->type->size : kind_sizes[f->kind];
}

static size_t element_min(const struct codec_field *f)
{
    return f->kind == CODEC_STRUCT ? f->type->element_min : kind_min[f->kind];
}

static void *at(void *object, size_t offset)
{
    return (uint8_t *)object + offset;
}

static const void *at_const(const void *object, size_t offset)
{
    return (const uint8_t *)object + offset;
}

/* Pointer stored in a field, whatever it points to. */
static void *get_pointer(const void *object, const struct codec_field *f)
{
    void *p;
    memcpy(&p, at_const(object, f->offset), sizeof p);
    return p;
}

static void set_pointer(void *object, const struct codec_field *f, void *p)
{
    memcpy(at(object, f->offset), &p, sizeof p);
}

static int32_t get_count(const void *object, const struct codec_field *f)
{
    int32_t n;
    memcpy(&n, at_const(object, f->count_offset), sizeof n);
    return n;
}

static void set_count(void *object, const struct codec_field *f, int32_t n)
{
    memcpy(at(object, f->count_offset), &n, sizeof n);
}

/* ---- defaults ----------------------------------------------------------- */
static void init_struct(const struct codec_struct *s, void *out);

/* Sets a zeroed field to its default. */
static void init_field(const struct codec_field *f, void *object)
{
    void *p = at(object, f->offset);
    if (f->array) {
        set_count(object, f, (int32_t)f->initial);
        return;
    }
    switch ((enum codec_kind)f->kind) {
        case CODEC_BOOL:
            *(bool *)p = f->initial != 0;
            return;
        case CODEC_I8:
            *(int8_t *)p = (int8_t)f->initial;
            return;
        case CODEC_I16:
        case CODEC_U16:
            *(uint16_t *)p = (uint16_t)f->initial;
            return;
        case CODEC_I32:
            *(int32_t *)p = (int32_t)f->initial;
            return;
        case CODEC_I64:
            *(int64_t *)p = f->initial;
            return;
        case CODEC_F64:
            *(double *)p = (double)f->initial;
            return;
        case CODEC_UUID:
            return;
        case CODEC_STRING:
            ((struct wire_str *)p)->n = (int32_t)f->initial;
            return;
        case CODEC_BYTES:
            ((struct wire_bytes *)p)->n = (int32_t)f->initial;
            return;
        case CODEC_RECORDS:
            ((struct wire_records *)p)->n = (int32_t)f->initial;
            return;
        case CODEC_STRUCT:
            if (!f->pointer) {
                init_struct(f->type, p);
            }
            return;
    }
}

static void init_struct(const struct codec_struct *s, void *out)
{
    memset(out, 0, s->size);
    for (int i = 0; i < s->n_fields; i++) {
        const struct codec_field *f = &s->fields[i];
        if (f->initial != 0 || f->kind == CODEC_STRUCT) {
            init_field(f, out);
        }
    }
}

void codec_init(const struct codec_message *m, void *out)
{
    init_struct(m->body, out);
}

static bool is_default(const struct codec_field *f, const void *object);

static bool is_default_struct(const struct codec_struct *s, const void *in)
{
    for (int i = 0; i < s->n_fields; i++) {
        if (!is_default(&s->fields[i], in)) {
            return false;
        }
    }
    return true;
}

static bool is_default(const struct codec_field *f, const void *object)
{
    const void *p = at_const(object, f->offset);
    if (f->array) {
        return get_count(object, f) == f->initial;
    }
    switch ((enum codec_kind)f->kind) {
        case CODEC_BOOL:
            return *(const bool *)p == (f->initial != 0);
        case CODEC_I8:
            return *(const int8_t *)p == f->initial;
        case CODEC_I16:
            return *(const int16_t *)p == f->initial;
        case CODEC_U16:
            return *(const uint16_t *)p == f->initial;
        case CODEC_I32:
            return *(const int32_t *)p == f->initial;
        case CODEC_I64:
            return *(const int64_t *)p == f->initial;
        case CODEC_F64: {
            uint64_t bits;
            memcpy(&bits, p, sizeof bits);
            return bits == 0;
        }
        case CODEC_UUID:
            return uuid_is_zero(p);
        case CODEC_STRING:
            return ((const struct wire_str *)p)->n == f->initial;
        case CODEC_BYTES:
            return ((const struct wire_bytes *)p)->n == f->initial;
        case CODEC_RECORDS:
            return ((const struct wire_records *)p)->n == f->initial;
        case CODEC_STRUCT:
            if (f->pointer) {
                p = get_pointer(object, f);
                if (p == NULL || f->initial != 0) {
                    return p == NULL && f->initial != 0;
                }
            }
            return is_default_struct(f->type, p);
    }
    UNREACHABLE("kind of a field");
}

/* ---- decoding ----------------------------------------------------------- */
static void decode_struct(const struct codec_struct *s, struct wire_reader *r,
                          const struct context *c, void *out);

/* One value, or one element of an array, into zeroed memory. */
static void decode_value(const struct codec_field *f, struct wire_reader *r,
                         const struct context *c, void *p)
{
    bool nullable = codec_in(f->nullable, c->version) && !f->array;
    bool compact = c->flexible && !f->plain;
    switch ((enum codec_kind)f->kind) {
        case CODEC_BOOL:
            *(bool *)p = wire_read_bool(r);
            return;
        case CODEC_I8:
            *(int8_t *)p = wire_read_i8(r);
            return;
        case CODEC_I16:
            *(int16_t *)p = wire_read_i16(r);
            return;
        case CODEC_U16:
            *(uint16_t *)p = wire_read_u16(r);
            return;
        case CODEC_I32:
            *(int32_t *)p = wire_read_i32(r);
            return;
        case CODEC_I64:
            *(int64_t *)p = wire_read_i64(r);
            return;
        case CODEC_F64:
            *(double *)p = wire_read_f64(r);
            return;
        case CODEC_UUID:
            *(struct uuid *)p = wire_read_uuid(r);
            return;
        case CODEC_STRING:
            *(struct wire_str *)p = wire_read_string(r, compact, nullable);
            return;
        case CODEC_BYTES:
            *(struct wire_bytes *)p = wire_read_bytes(r, compact, nullable);
            return;
        case CODEC_RECORDS: {
            struct wire_bytes b = wire_read_bytes(r, compact, nullable);
            *(struct wire_records *)p =
                (struct wire_records){.p = b.p, .n = b.n};
            return;
        }
        case CODEC_STRUCT:
            decode_struct(f->type, r, c, p);
            return;
    }
}

/* Memory for decoded elements; NULL after an error. */
static void *take(struct wire_reader *r, const struct context *c, size_t size)
{
    void *p = arena_try_alloc(c->arena, size);
    if (p == NULL) {
        wire_fail(r, ERR_TOO_LARGE);
        return NULL;
    }
    return memset(p, 0, size);
}

static void decode_array(const struct codec_field *f, struct wire_reader *r,
                         const struct context *c, void *object)
{
    int32_t n = wire_read_count(
        r, c->flexible, codec_in(f->nullable, c->version), element_min(f));
    if (n <= 0) {
        set_count(object, f, n);
        return;
    }
    size_t size = codec_element_size(f);
    uint8_t *elements = take(r, c, (size_t)n * size);
    if (elements == NULL) {
        return;
    }
    set_pointer(object, f, elements);
    for (int32_t i = 0; i < n && r->err == ERR_OK; i++) {
        decode_value(f, r, c, elements + (size_t)i * size);
        set_count(object, f, i + 1);
    }
}

/* A byte says whether it is null: negative, or in a tag 0. */
static void decode_pointer(const struct codec_field *f, struct wire_reader *r,
                           const struct context *c, void *object)
{
    int8_t present = wire_read_i8(r);
    set_pointer(object, f, NULL);
    if (present < 0 || (f->tag >= 0 && present == 0)) {
        return;
    }
    void *p = r->err == ERR_OK ? take(r, c, f->type->size) : NULL;
    if (p != NULL) {
        decode_struct(f->type, r, c, p);
        set_pointer(object, f, p);
    }
}

static void decode_field(const struct codec_field *f, struct wire_reader *r,
                         const struct context *c, void *object)
{
    if (f->array) {
        decode_array(f, r, c, object);
    } else if (f->pointer) {
        decode_pointer(f, r, c, object);
    } else {
        decode_value(f, r, c, at(object, f->offset));
    }
}

static const struct codec_field *find_tag(const struct codec_struct *s,
                                          uint32_t tag, int version)
{
    for (int i = s->n_plain; i < s->n_fields; i++) {
        const struct codec_field *f = &s->fields[i];
        if ((uint32_t)f->tag == tag && codec_in(f->present, version)) {
            return f;
        }
    }
    return NULL;
}

static void decode_tags(const struct codec_struct *s, struct wire_reader *r,
                        const struct context *c, void *out)
{
    uint32_t n = wire_read_uvarint(r);
    for (uint32_t i = 0; i < n && r->err == ERR_OK; i++) {
        uint32_t tag = wire_read_uvarint(r);
        uint32_t size = wire_read_uvarint(r);
        const uint8_t *p = wire_read_raw(r, size);
        const struct codec_field *f = find_tag(s, tag, c->version);
        if (p == NULL || f == NULL) {
            continue;
        }
        struct wire_reader inner;
        wire_reader_init(&inner, p, size);
        decode_field(f, &inner, c, out);
        if (inner.err == ERR_OK && wire_left(&inner) != 0) {
            wire_fail(&inner, ERR_INVALID);
        }
        if (inner.err != ERR_OK) {
            wire_fail(r, inner.err);
        }
    }
}

/* Default of a field that is absent, or may be overwritten by its tag. */
static void init_decoded(const struct codec_field *f, struct wire_reader *r,
                         const struct context *c, void *object)
{
    if (f->pointer && f->initial == 0 && codec_in(f->present, c->version)) {
        void *p = take(r, c, f->type->size);
        if (p != NULL) {
            init_struct(f->type, p);
            set_pointer(object, f, p);
        }
    } else {
        init_field(f, object);
    }
}

/* `out` is zeroed. */
static void decode_struct(const struct codec_struct *s, struct wire_reader *r,
                          const struct context *c, void *out)
{
    for (int i = 0; i < s->n_fields; i++) {
        const struct codec_field *f = &s->fields[i];
        if (f->tag < 0 && codec_in(f->present, c->version)) {
            decode_field(f, r, c, out);
        } else {
            init_decoded(f, r, c, out);
        }
    }
    if (c->flexible) {
        decode_tags(s, r, c, out);
    }
}

void codec_decode(const struct codec_message *m, struct wire_reader *r,
                  int version, struct arena *a, void *out)
{
    struct context c = {version, version >= m->flexible, a};
    memset(out, 0, m->body->size);
    if (version < m->first || version > m->last) {
        wire_fail(r, ERR_UNSUPPORTED);
        return;
    }
    decode_struct(m->body, r, &c, out);
}

/* ---- sizes -------------------------------------------------------------- */
static size_t size_struct(const struct codec_struct *s, const struct context *c,
                          const void *in);

static size_t size_value(const struct codec_field *f, const struct context *c,
                         const void *p)
{
    bool nullable = codec_in(f->nullable, c->version) && !f->array;
    bool compact = c->flexible && !f->plain;
    switch ((enum codec_kind)f->kind) {
        case CODEC_BOOL:
        case CODEC_I8:
        case CODEC_I16:
        case CODEC_U16:
        case CODEC_I32:
        case CODEC_I64:
        case CODEC_F64:
        case CODEC_UUID:
            return kind_min[f->kind];
        case CODEC_STRING:
            return wire_string_size(*(const struct wire_str *)p, compact,
                                    nullable);
        case CODEC_BYTES:
            return wire_bytes_size(((const struct wire_bytes *)p)->n, compact,
                                   nullable);
        case CODEC_RECORDS:
            return wire_bytes_size(((const struct wire_records *)p)->n, compact,
                                   nullable);
        case CODEC_STRUCT:
            return size_struct(f->type, c, p);
    }
    UNREACHABLE("kind of a field");
}

static size_t size_field(const struct codec_field *f, const struct context *c,
                         const void *object)
{
    if (f->array) {
        int32_t n = get_count(object, f);
        size_t size =
            wire_count_size(n, c->flexible, codec_in(f->nullable, c->version));
        const uint8_t *elements = get_pointer(object, f);
        for (int32_t i = 0; i < n; i++) {
            size +=
                size_value(f, c, elements + (size_t)i * codec_element_size(f));
        }
        return size;
    }
    if (f->pointer) {
        const void *p = get_pointer(object, f);
        return 1 + (p == NULL ? 0 : size_struct(f->type, c, p));
    }
    return size_value(f, c, at_const(object, f->offset));
}

static bool tag_written(const struct codec_field *f, const struct context *c,
                        const void *object)
{
    return codec_in(f->present, c->version) && !is_default(f, object);
}

static size_t size_tags(const struct codec_struct *s, const struct context *c,
                        const void *in)
{
    size_t size = 0;
    uint32_t n = 0;
    for (int i = s->n_plain; i < s->n_fields; i++) {
        const struct codec_field *f = &s->fields[i];
        if (tag_written(f, c, in)) {
            size_t inner = size_field(f, c, in);
            size += wire_uvarint_size((uint32_t)f->tag) +
                    wire_uvarint_size((uint32_t)inner) + inner;
            n++;
        }
    }
    return size + wire_uvarint_size(n);
}

static size_t size_struct(const struct codec_struct *s, const struct context *c,
                          const void *in)
{
    size_t size = c->flexible ? size_tags(s, c, in) : 0;
    for (int i = 0; i < s->n_plain; i++) {
        if (codec_in(s->fields[i].present, c->version)) {
            size += size_field(&s->fields[i], c, in);
        }
    }
    return size;
}

size_t codec_size(const struct codec_message *m, const void *in, int version)
{
    struct context c = {version, version >= m->flexible, NULL};
    return size_struct(m->body, &c, in);
}

ptrdiff_t codec_field_place(const struct codec_message *m, const void *in,
                            int version, const char *name)
{
    struct context c = {version, version >= m->flexible, NULL};
    size_t place = 0;
    for (int i = 0; i < m->body->n_plain; i++) {
        const struct codec_field *f = &m->body->fields[i];
        if (!codec_in(f->present, version)) {
            continue;
        }
        if (strcmp(f->name, name) == 0) {
            return (ptrdiff_t)place;
        }
        place += size_field(f, &c, in);
    }
    return -1;
}

/* ---- encoding ----------------------------------------------------------- */
static void encode_struct(const struct codec_struct *s, struct wire_writer *w,
                          const struct context *c, const void *in);

static void encode_value(const struct codec_field *f, struct wire_writer *w,
                         const struct context *c, const void *p)
{
    bool nullable = codec_in(f->nullable, c->version) && !f->array;
    bool compact = c->flexible && !f->plain;
    switch ((enum codec_kind)f->kind) {
        case CODEC_BOOL:
            wire_write_bool(w, *(const bool *)p);
            return;
        case CODEC_I8:
            wire_write_i8(w, *(const int8_t *)p);
            return;
        case CODEC_I16:
            wire_write_i16(w, *(const int16_t *)p);
            return;
        case CODEC_U16:
            wire_write_u16(w, *(const uint16_t *)p);
            return;
        case CODEC_I32:
            wire_write_i32(w, *(const int32_t *)p);
            return;
        case CODEC_I64:
            wire_write_i64(w, *(const int64_t *)p);
            return;
        case CODEC_F64:
            wire_write_f64(w, *(const double *)p);
            return;
        case CODEC_UUID:
            wire_write_uuid(w, p);
            return;
        case CODEC_STRING:
            wire_write_string(w, *(const struct wire_str *)p, compact,
                              nullable);
            return;
        case CODEC_BYTES:
            wire_write_bytes(w, *(const struct wire_bytes *)p, compact,
                             nullable);
            return;
        case CODEC_RECORDS:
            wire_write_records(w, p, compact, nullable);
            return;
        case CODEC_STRUCT:
            encode_struct(f->type, w, c, p);
            return;
    }
}

static void encode_pointer(const struct codec_field *f, struct wire_writer *w,
                           const struct context *c, const void *object)
{
    const void *p = get_pointer(object, f);
    wire_write_i8(w, p != NULL ? 1 : f->tag >= 0 ? 0 : -1);
    if (p != NULL) {
        encode_struct(f->type, w, c, p);
    }
}

static void encode_field(const struct codec_field *f, struct wire_writer *w,
                         const struct context *c, const void *object)
{
    if (f->array) {
        int32_t n = get_count(object, f);
        wire_write_count(w, n, c->flexible, codec_in(f->nullable, c->version));
        const uint8_t *elements = get_pointer(object, f);
        for (int32_t i = 0; i < n; i++) {
            encode_value(f, w, c, elements + (size_t)i * codec_element_size(f));
        }
    } else if (f->pointer) {
        encode_pointer(f, w, c, object);
    } else {
        encode_value(f, w, c, at_const(object, f->offset));
    }
}

static void encode_tags(const struct codec_struct *s, struct wire_writer *w,
                        const struct context *c, const void *in)
{
    uint32_t n = 0;
    for (int i = s->n_plain; i < s->n_fields; i++) {
        n += tag_written(&s->fields[i], c, in) ? 1 : 0;
    }
    wire_write_uvarint(w, n);
    for (int i = s->n_plain; i < s->n_fields && n > 0; i++) {
        const struct codec_field *f = &s->fields[i];
        if (tag_written(f, c, in)) {
            wire_write_uvarint(w, (uint32_t)f->tag);
            wire_write_uvarint(w, (uint32_t)size_field(f, c, in));
            encode_field(f, w, c, in);
        }
    }
}

static void encode_struct(const struct codec_struct *s, struct wire_writer *w,
                          const struct context *c, const void *in)
{
    for (int i = 0; i < s->n_plain; i++) {
        if (codec_in(s->fields[i].present, c->version)) {
            encode_field(&s->fields[i], w, c, in);
        }
    }
    if (c->flexible) {
        encode_tags(s, w, c, in);
    }
}

void codec_encode(const struct codec_message *m, struct wire_writer *w,
                  const void *in, int version)
{
    struct context c = {version, version >= m->flexible, NULL};
    ASSERT(m->first <= version && version <= m->last);
    encode_struct(m->body, w, &c, in);
}

/* ---- the table of APIs -------------------------------------------------- */
const struct codec_api *codec_api_find(int16_t key)
{
    int low = 0, high = codec_n_apis;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (codec_apis[middle].key < key) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < codec_n_apis && codec_apis[low].key == key ? &codec_apis[low]
                                                            : NULL;
}

bool codec_api_served(const struct codec_api *api, int version)
{
    return api != NULL && version >= api->serve_min &&
           version <= api->serve_max && version <= api->offer_max;
}

int codec_request_header(const struct codec_api *api, int version)
{
    return version >= api->flexible ? 2 : 1;
}

int codec_response_header(const struct codec_api *api, int version)
{
    /* ApiVersions answers clients of any age, also those that cannot read a
     * flexible header; so it never uses one. */
    return api->key == 18 || version < api->flexible ? 0 : 1;
}
