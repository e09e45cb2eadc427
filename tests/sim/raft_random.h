/* Random schedules over the laboratory: messages lost, repeated and out of
 * order, disks that are slow, crashes, cuts, and then time to heal. */
#ifndef TESTS_RAFT_RANDOM_H
#define TESTS_RAFT_RANDOM_H

#include "tests/sim/raft_lab.h"

struct raft_random_result {
    const char *violation; /* NULL: none */
    uint64_t committed;
};

/* Plays one schedule of `steps` with `n` replicas from a seed. */
struct raft_random_result raft_random_play(uint64_t seed, int n, int steps,
                                           uint32_t guards);

#endif
