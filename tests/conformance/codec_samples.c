/* Random messages of every kind and version, encoded: a line each, "name
 * version hex", on stdout. Kafka's own classes read them (SchemaBytes.java).
 * usage: codec_samples [seed] */
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/codec.h"
#include "schema/apis.h"
#include "tests/unit/codec_random.h"

#define ROUNDS 5

static void sample(const struct codec_message *m, int version, struct prng *rng)
{
    struct arena arena;
    arena_init(&arena, 0);
    void *in = arena_zalloc(&arena, m->body->size);
    codec_random(m, version, rng, &arena, in);
    struct wire_writer w;
    wire_writer_init(&w, 0);
    codec_encode(m, &w, in, version);
    uint8_t *flat = arena_alloc(&arena, w.size);
    wire_writer_copy(&w, flat);
    printf("%s %d ", m->name, version);
    for (size_t i = 0; i < w.size; i++) {
        printf("%02x", flat[i]);
    }
    printf("\n");
    wire_writer_free(&w);
    arena_free(&arena);
}

int main(int argc, char **argv)
{
    struct prng rng;
    prng_seed(&rng, argc > 1 ? strtoull(argv[1], NULL, 10) : 1);
    for (int i = 0; i < codec_n_messages; i++) {
        const struct codec_message *m = codec_messages[i];
        for (int v = m->first; v <= m->last; v++) {
            for (int round = 0; round < ROUNDS; round++) {
                sample(m, v, &rng);
            }
        }
    }
    return 0;
}
