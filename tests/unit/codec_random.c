#include "tests/unit/codec_random.h"

struct context {
    int version;
    struct prng *rng;
    struct arena *a;
};

static void *place(void *object, size_t offset)
{
    return (uint8_t *)object + offset;
}

/* Numbers at the edges and in between. */
static uint64_t some_number(struct prng *rng)
{
    static const uint64_t edges[] = {0, 1, UINT64_MAX, 1ull << 63, INT64_MAX};
    if (prng_chance(rng, 1, 4)) {
        return edges[prng_below(rng, sizeof edges / sizeof edges[0])];
    }
    return prng_next(rng) >> prng_below(rng, 64);
}

static uint8_t *some_bytes(struct context *c, int32_t n, bool text)
{
    uint8_t *p = arena_alloc(c->a, (size_t)n + 1);
    for (int32_t i = 0; i < n; i++) {
        uint64_t r = prng_next(c->rng);
        p[i] = (uint8_t)(text ? 'a' + r % 26 : r);
    }
    return p;
}

/* Mostly short, now and then longer than a one-byte varint says. */
static int32_t some_length(struct context *c, bool nullable)
{
    if (nullable && prng_chance(c->rng, 1, 4)) {
        return -1;
    }
    return (int32_t)prng_below(c->rng, prng_chance(c->rng, 1, 16) ? 400 : 12);
}

static void random_struct(const struct codec_struct *s, struct context *c,
                          void *out);

static void random_value(const struct codec_field *f, struct context *c,
                         void *p)
{
    bool nullable = codec_in(f->nullable, c->version) && !f->array;
    uint64_t number = some_number(c->rng);
    int32_t n;
    switch ((enum codec_kind)f->kind) {
        case CODEC_BOOL:
            *(bool *)p = number & 1;
            return;
        case CODEC_I8:
            *(uint8_t *)p = (uint8_t)number;
            return;
        case CODEC_I16:
        case CODEC_U16:
            *(uint16_t *)p = (uint16_t)number;
            return;
        case CODEC_I32:
            *(uint32_t *)p = (uint32_t)number;
            return;
        case CODEC_I64:
            *(uint64_t *)p = number;
            return;
        case CODEC_F64:
            *(double *)p = (double)number / 8;
            return;
        case CODEC_UUID:
            memcpy(p, some_bytes(c, 16, false), 16);
            return;
        case CODEC_STRING:
            n = some_length(c, nullable);
            *(struct wire_str *)p = (struct wire_str){
                n < 0 ? NULL : (char *)some_bytes(c, n, true), n};
            return;
        case CODEC_BYTES:
            n = some_length(c, nullable);
            *(struct wire_bytes *)p =
                (struct wire_bytes){n < 0 ? NULL : some_bytes(c, n, false), n};
            return;
        case CODEC_RECORDS:
            n = some_length(c, nullable);
            *(struct wire_records *)p = (struct wire_records){
                .p = n < 0 ? NULL : some_bytes(c, n, false), .n = n};
            return;
        case CODEC_STRUCT:
            random_struct(f->type, c, p);
            return;
    }
}

static size_t element_size(const struct codec_field *f)
{
    switch ((enum codec_kind)f->kind) {
        case CODEC_BOOL:
        case CODEC_I8:
            return 1;
        case CODEC_I16:
        case CODEC_U16:
            return 2;
        case CODEC_I32:
            return 4;
        case CODEC_I64:
        case CODEC_F64:
            return 8;
        case CODEC_UUID:
            return 16;
        case CODEC_STRING:
            return sizeof(struct wire_str);
        case CODEC_BYTES:
            return sizeof(struct wire_bytes);
        case CODEC_RECORDS:
            return sizeof(struct wire_records);
        case CODEC_STRUCT:
            return f->type->size;
    }
    return 0;
}

static void random_array(const struct codec_field *f, struct context *c,
                         void *object)
{
    int32_t n = (int32_t)prng_below(c->rng, 4);
    if (codec_in(f->nullable, c->version) && prng_chance(c->rng, 1, 4)) {
        n = -1;
    }
    void *elements = NULL;
    if (n > 0) {
        elements = arena_array(c->a, (size_t)n, element_size(f));
    }
    for (int32_t i = 0; i < n; i++) {
        random_value(f, c, place(elements, (size_t)i * element_size(f)));
    }
    memcpy(place(object, f->offset), &elements, sizeof elements);
    memcpy(place(object, f->count_offset), &n, sizeof n);
}

/* `out` holds zeroes; the outermost struct holds its defaults. */
static void random_struct(const struct codec_struct *s, struct context *c,
                          void *out)
{
    struct codec_message m = {.body = s};
    codec_init(&m, out);
    for (int i = 0; i < s->n_fields; i++) {
        const struct codec_field *f = &s->fields[i];
        if (!codec_in(f->present, c->version) ||
            (f->tag >= 0 && prng_chance(c->rng, 1, 3))) {
            continue;
        }
        if (f->array) {
            random_array(f, c, out);
        } else if (f->pointer) {
            if (prng_chance(c->rng, 2, 3)) {
                void *p = arena_zalloc(c->a, f->type->size);
                random_struct(f->type, c, p);
                memcpy(place(out, f->offset), &p, sizeof p);
            }
        } else {
            random_value(f, c, place(out, f->offset));
        }
    }
}

void codec_random(const struct codec_message *m, int version, struct prng *rng,
                  struct arena *a, void *out)
{
    struct context c = {version, rng, a};
    random_struct(m->body, &c, out);
}
