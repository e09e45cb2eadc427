/* Crash points: a scripted load runs once on a simulated disk; at every single
 * operation that changes the disk the process forks, once for each fate that
 * the un-synced writes may have, and each child crashes the node right there,
 * recovers, and judges what it finds against the load's model. Only disk states
 * that differ (from what was promised, too) are recovered and counted. As many
 * children as there are processors (or JOBS) judge at the same time.
 *
 * A state is named by seven numbers, printed when it is bad:
 *   load seed operation how under_way fate names
 * REPLAY="..." plays exactly that one, without forking. */
#ifndef TESTS_UNIT_CRASH_POINTS_H
#define TESTS_UNIT_CRASH_POINTS_H

#include "tests/sim/sim_env.h"

struct crash_load {
    const char *name;
    /* Makes a world, calls crash_points_watch, runs the script (ends early
     * when crash_points_done), frees the world. */
    void (*run)(uint64_t seed);
    /* In a child: the node is down. Starts it, recovers, judges; a failed
     * check ends the process by a status that is not 0. */
    void (*judge)(void);
    /* A number that tells different promises apart. */
    uint64_t (*promised)(void);
};

struct crash_totals {
    uint64_t operations, states, same, bad;
};

void crash_points_watch(struct sim_node *node);
bool crash_points_done(void);
/* Runs load after load, seed after seed, until `n` states were judged. */
struct crash_totals crash_points_run(const struct crash_load *const *loads,
                                     int n_loads, uint64_t n);
/* Plays the state that REPLAY names. */
void crash_points_replay(const struct crash_load *const *loads, int n_loads,
                         const char *replay);

extern const struct crash_load crash_load_log;   /* the write-ahead log */
extern const struct crash_load crash_load_store; /* host and partitions */

#endif
