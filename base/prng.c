#include "base/prng.h"

#include "base/assert.h"

/* Source: D. Blackman and S. Vigna, "Scrambled linear pseudorandom number
 * generators" (2021): xoshiro256**; splitmix64 fills the state. */
static uint64_t splitmix(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static uint64_t rotate_left(uint64_t x, int by)
{
    return (x << by) | (x >> (64 - by));
}

void prng_seed(struct prng *p, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        p->s[i] = splitmix(&seed);
    }
}

uint64_t prng_next(struct prng *p)
{
    uint64_t *s = p->s;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

uint64_t prng_below(struct prng *p, uint64_t bound)
{
    ASSERT(bound > 0);
    uint64_t reject = (0 - bound) % bound; /* 2^64 mod bound */
    for (;;) {
        uint64_t x = prng_next(p);
        if (x >= reject) {
            return x % bound;
        }
    }
}

uint64_t prng_between(struct prng *p, uint64_t low, uint64_t high)
{
    ASSERT(low <= high && high - low < UINT64_MAX);
    return low + prng_below(p, high - low + 1);
}

bool prng_chance(struct prng *p, uint64_t parts, uint64_t whole)
{
    return prng_below(p, whole) < parts;
}
