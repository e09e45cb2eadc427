/* The write-ahead log alone: entries, truncations, terms and votes, creations
 * and deletions of some groups, files begun, recycled and logged again, beside
 * wal_model. */
#include <check.h>

#include "tests/unit/crash_points.h"
#include "tests/unit/wal_model.h"

static struct model m;

static void open_whole(void)
{
    enum err e = model_open(&m);
    if (e != ERR_OK) {
        sim_fail(m.sim, "cannot open: %s", err_text(e));
    }
}

static void work(int rounds)
{
    for (int k = 0; k < rounds; k++) {
        model_work(&m);
        model_run_us(
            &m, prng_below(&m.prng, 8) == 0 ? 6000 : prng_below(&m.prng, 600));
    }
}

static void run(uint64_t seed)
{
    static const enum sim_crash how[] = {SIM_KILL, SIM_DROP_ALL, SIM_KEEP_ALL,
                                         SIM_RANDOM, SIM_TORN};
    model_begin(&m, seed);
    crash_points_watch(m.node);
    open_whole();
    for (int round = 0; round < 40 && !crash_points_done(); round++) {
        for (int k = 0; k < MODEL_GROUPS; k++) {
            m.stuck[k] = prng_below(&m.prng, 8) == 0;
        }
        for (int k = 0; k < 20 && !crash_points_done(); k++) {
            work(2);
        }
        /* The story goes on from states after crashes too. */
        model_crash(&m, how[prng_below(&m.prng, 5)]);
        open_whole();
    }
    model_end(&m);
}

/* What was recovered is durable at once, and the log goes on. */
static void judge(void)
{
    m.wal = NULL;
    sim_node_restart(m.node);
    open_whole();
    model_crash(&m, SIM_DROP_ALL);
    open_whole();
    work(3);
    model_crash(&m, SIM_TORN);
    open_whole();
}

static uint64_t promised(void)
{
    return m.durable * 31 + m.seq;
}

const struct crash_load crash_load_log = {"log", run, judge, promised};
