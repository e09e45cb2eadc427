/* The inside of a broker: for the files it is made of (broker*.c, shard*.c). */
#ifndef NET_BROKER_IMPL_H
#define NET_BROKER_IMPL_H

#include <stdatomic.h>

#include "metadata/config_listeners.h"
#include "metadata/identity.h"
#include "net/layout.h"
#include "net/shard.h"

#define BROKER_PATH_SIZE LAYOUT_PATH_MAX

struct broker {
    struct broker_options options;
    const struct broker_config *config;
    struct env *env; /* of shard 0 */
    struct identity identity;
    struct layout layout; /* of the shards' directories */
    struct broker_shard *shards[BROKER_SHARDS_MAX];
    struct transport *transports[BROKER_SHARDS_MAX]; /* each sees all */
    unsigned n_up, n_closed, n_stopped; /* shards: while it stops */
    struct shard_stop *first_stop;      /* shard 0's */
    struct metadata *metadata;
    struct throttle *throttle;
    struct listener *listeners[CONFIG_LISTENERS_MAX];
    struct config_listeners addresses;
    _Atomic node_id controller;
    struct env_deferred begin;
    _Atomic bool hurry;
    bool failed, ready, stopping;
    bool metadata_handed_over;
    char dir[BROKER_PATH_SIZE - 256];
    char address[LIMIT_ADDRESS + 16];
    char waiting[512];
};

/* ---- broker.c ------------------------------------------------------------ */
/* It cannot start: one sentence for the user. Only the first one counts. */
void broker_fail(struct broker *b, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The directory of all replicas. */
void broker_partitions_dir(const struct broker *b, char out[BROKER_PATH_SIZE]);

/* ---- broker_image.c ------------------------------------------------------ */
/* As metadata_ops says: a record was applied; to every shard's image too. Its
 * argument is the broker. */
void broker_image_apply(void *broker, log_index index, const uint8_t *record,
                        size_t size);

/* ---- broker_peers.c ------------------------------------------------------ */
/* What every shard's transport asks and tells; its argument is the shard. */
extern const struct transport_ops broker_transport_ops;

/* ---- shard_open.c -------------------------------------------------------- */
/* Makes what the shard works with; its log is recovered. On its thread. */
MUST_USE enum err shard_open(struct broker_shard *s);
/* After it stopped, or never was opened. */
void shard_free(struct broker_shard *s);

/* ---- shard_leaders.c ----------------------------------------------------- */
/* Tells all shards who leads a partition now; -1: nobody known. */
void shard_leader_tell(struct broker_shard *from, const struct group_id *id,
                       node_id leader, int32_t epoch);
void shard_leader_forget(struct broker_shard *s, const struct group_id *id);
/* NULL: none is known here. */
struct shard_leader *shard_leader_find(const struct broker_shard *s,
                                       const struct group_id *id);
void shard_leaders_free(struct broker_shard *s);

/* ---- shard_settings.c ---------------------------------------------------- */
/* What a topic's overrides, this broker's and its configuration come to. */
struct partition_config shard_topic_settings(struct broker_shard *s,
                                             const struct image_topic *topic);

/* ---- shard_partitions.c -------------------------------------------------- */
void shard_partitions_init(struct broker_shard *s);
/* Opens this shard's replicas of a topic from partition `first` on, a few at a
 * time. */
void shard_partitions_open(struct broker_shard *s,
                           const struct image_topic *topic, int32_t first);
/* The topic is deleted, and its replicas with it, a few at a time. */
void shard_partitions_delete(struct broker_shard *s,
                             const struct image_topic *topic);
/* One replica, at once; nothing where it is not open. */
void shard_partition_delete(struct broker_shard *s, const struct group_id *id);
/* The topic's settings, or what they fall back to, changed. */
void shard_partitions_configure(struct broker_shard *s,
                                const struct image_topic *topic);
/* Posts it to this shard when all that the image had so far are open, those of
 * deleted topics deleted; or no more will be. One waits at a time. */
void shard_partitions_when_open(struct broker_shard *s, struct env_post *post);
/* No more are opened, for good. */
void shard_partitions_stop(struct broker_shard *s);

#endif
