/* Random content for any message of the schema. */
#ifndef TESTS_UNIT_CODEC_RANDOM_H
#define TESTS_UNIT_CODEC_RANDOM_H

#include "base/prng.h"
#include "base/codec.h"

/* Fills `out` with what `version` can carry; fields absent there get their
 * default. Arrays, strings and bytes come from `a`. */
void codec_random(const struct codec_message *m, int version, struct prng *rng,
                  struct arena *a, void *out);

#endif
