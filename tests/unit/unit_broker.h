/* A broker on a node of the simulated world, started as a program would. */
#ifndef TESTS_UNIT_UNIT_BROKER_H
#define TESTS_UNIT_UNIT_BROKER_H

#include "net/broker.h"
#include "tests/sim/sim_env.h"

struct unit_broker {
    const char *properties; /* its server.properties */
    unsigned n_shards;      /* 0: one */
    bool ends;              /* its node is down once it is stopped */
    /* It cannot run, for this reason. NULL: that fails the test. */
    void (*failed)(struct unit_broker *b, const char *sentence);
    struct sim_node *node;
    /* of its newest start */
    struct broker *broker;
    bool ready, stopped;
};

/* The boot function of sim_node_start; `unit_broker` is its argument. */
void unit_broker_boot(struct env *env, void *unit_broker);
/* Adds a node of this name and starts it. */
void unit_broker_start(struct sim *sim, const char *name,
                       struct unit_broker *b);
/* broker_stop, which comes back at once; `stopped` tells its end. */
void unit_broker_stop(struct unit_broker *b);
/* For sim_run_while_not. */
bool unit_broker_is_ready(void *unit_broker);
bool unit_broker_is_stopped(void *unit_broker);

#endif
