/* Pseudo-random numbers: xoshiro256**, seeded by splitmix64. Not for secrets.
 */
#ifndef BASE_PRNG_H
#define BASE_PRNG_H

#include <stdbool.h>
#include <stdint.h>

struct prng {
    uint64_t s[4];
};

/* The same seed gives the same numbers everywhere. */
void prng_seed(struct prng *p, uint64_t seed);
uint64_t prng_next(struct prng *p);
/* Evenly in 0 .. bound-1; bound > 0. */
uint64_t prng_below(struct prng *p, uint64_t bound);
/* Evenly in low .. high, both included. */
uint64_t prng_between(struct prng *p, uint64_t low, uint64_t high);
/* True `parts` times in `whole`. */
bool prng_chance(struct prng *p, uint64_t parts, uint64_t whole);

#endif
