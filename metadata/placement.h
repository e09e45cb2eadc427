/* Where replicas go. Pure: the same brokers and loads give the same answer.
 *
 * The first replica of a partition is its preferred leader; leaders are spread
 * evenly within a topic, then over the cluster; replicas over racks, then over
 * brokers. Every registered broker is a candidate, as in Kafka, but one that
 * is not usable now (fenced, or cannot be reached) is never chosen to lead,
 * and only chosen at all where its rack has no usable one left. */
#ifndef METADATA_PLACEMENT_H
#define METADATA_PLACEMENT_H

#include "metadata/image.h"

struct placement_broker {
    node_id node;
    const char *rack; /* NULL: none; all such brokers are one rack */
    bool usable;
    /* What it holds already; kept up by placement_make and placement_count. */
    int64_t leaders, replicas;
    /* private */
    int64_t topic_leaders, topic_replicas;
};

/* Counts a partition that exists. */
void placement_count(struct placement_broker *brokers, int n_brokers,
                     const struct image_partition *partition);
/* Chooses `n_replicas` brokers for each of `n` new partitions of a topic that
 * has `n_held` already (`held`, NULL when none); replica ids are left 0.
 * ERR_REFUSED: fewer brokers than replicas, or none of them usable; nothing is
 * changed then. */
MUST_USE enum err placement_make(struct placement_broker *brokers,
                                 int n_brokers,
                                 const struct image_partition *held,
                                 int32_t n_held, int n_replicas, int32_t n,
                                 struct image_partition *out);

#endif
