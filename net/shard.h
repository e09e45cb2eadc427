/* One shard of a broker as the handlers see it, and how work is carried to the
 * shard that owns a partition and back. */
#ifndef NET_SHARD_H
#define NET_SHARD_H

#include "base/hash.h"
#include "coordinator/coordinator.h"
#include "net/broker.h"

struct broker_shard;

struct shard_partition {
    struct group_id id; /* key */
    struct partition *partition;
    struct broker_shard *shard;
    bool offsets_topic;
    bool handed_over; /* while stopping */
    UT_hash_handle hh;
};

/* The newest leader of a partition that this broker knows by itself; newer
 * than what the metadata recorded, or equal. */
struct shard_leader {
    struct group_id id; /* key */
    node_id leader;
    int32_t epoch;
    UT_hash_handle hh;
};

struct broker_shard {
    struct broker *broker;
    unsigned index;
    struct env *env;
    struct transport *transport;
    struct raft_host *host;
    struct partition_shard *partitions_of;
    struct image *own_image;   /* shards > 0 */
    const struct image *image; /* what the handlers read */
    struct coordinator *coordinator;
    struct shard_partition *partitions; /* uthash */
    struct shard_leader *leaders;       /* uthash */
    /* partitions to be opened or deleted, oldest first */
    struct shard_opening *opening;
    struct env_timer opening_timer;
    struct env_post *opened;         /* shard_partitions_when_open */
    bool closing;                    /* no more of them */
    struct orphans *orphans;         /* that could not be removed yet */
    struct connections *connections; /* net/connection */
    struct fetch_sessions *fetch_sessions;
    /* producer ids of InitProducerId */
    int64_t producer_id_next, producer_id_end;
    struct producer_id_wait *producer_id_waits;
    bool up, stopped;
};

unsigned broker_n_shards(const struct broker *b);
struct broker_shard *broker_shard(const struct broker *b, unsigned index);
const struct broker_config *broker_static_config(const struct broker *b);
/* Changes go through here on shard 0 only; use shard_task to get there. */
struct metadata *broker_metadata(const struct broker *b);
struct throttle *broker_throttle(const struct broker *b);
node_id broker_node(const struct broker *b);
/* Where the broker keeps its data. */
const char *broker_data_dir(const struct broker *b);
/* Newest known controller, readable on every shard. */
node_id broker_controller(const struct broker *b);

/* Fetches of some shard of the broker are short of memory. */
bool shard_is_short(struct broker_shard *s);
/* NULL: no replica of it is on this broker. On its own shard only. */
struct partition *shard_find_partition(struct broker_shard *s,
                                       const struct group_id *id);
/* Leader and epoch to tell clients: the newer of recorded and known here. */
void shard_leader_of(const struct broker_shard *s,
                     const struct image_topic *topic, int32_t partition,
                     node_id *leader, int32_t *epoch);

/* Carries work to another shard and back. `start` runs on `to`, at once when
 * it is the home shard; when the work is done it calls shard_task_end, and
 * `finish` runs at home (at once when it is the same shard). Input must not
 * change meanwhile. */
struct shard_task {
    void (*start)(struct shard_task *task);
    void (*finish)(struct shard_task *task);
    void *arg;
    struct broker_shard *home, *to;
    struct env_post post; /* private */
};
void shard_task_begin(struct shard_task *task, struct broker_shard *home,
                      struct broker_shard *to);
void shard_task_end(struct shard_task *task);
struct broker_shard *shard_owner(struct broker_shard *s,
                                 const struct group_id *id);

#endif
