/* The composition root: one broker made of its shards. `tools/` runs it over
 * env_uv, the simulator over its own env; both start here. */
#ifndef NET_BROKER_H
#define NET_BROKER_H

#include "metadata/config_keys.h"
#include "metadata/metadata.h"

struct broker;

#define BROKER_SHARDS_MAX 64

struct broker_options {
    unsigned n_shards;
    struct env
        *envs[BROKER_SHARDS_MAX];       /* one per shard, running or about to */
    const struct broker_config *config; /* lives as long as the broker */
    /* Called on shard 0. */
    void (*ready)(void *arg, struct broker *broker); /* accepts requests */
    /* Cannot run: one sentence for the user. Nothing runs on afterwards; the
     * process should end with a non-zero status. */
    void (*failed)(void *arg, const char *sentence);
    void (*stopped)(void *arg); /* after broker_stop */
    void *arg;
};

/* Begins to start on shard 0's thread (call it there, or before its loop
 * runs). Everything else is told by the callbacks. */
struct broker *broker_start(const struct broker_options *options);
/* Hands leaderships over, flushes and stops, on shard 0's thread. A second
 * call hurries. */
void broker_stop(struct broker *broker);
void broker_free(struct broker *broker); /* after stopped */

/* What a waiting start waits for, for people ("waits for seed b2:9093"). */
const char *broker_waiting_for(const struct broker *broker);
/* "host:port" clients can use, once ready. */
const char *broker_address(const struct broker *broker);

#endif
