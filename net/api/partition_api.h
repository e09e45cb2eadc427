/* What the handlers of requests about partitions share: each partition's part
 * of a request is done on the shard that owns it, all of them at once, and the
 * answer goes out when the last one is back. */
#ifndef NET_API_PARTITION_API_H
#define NET_API_PARTITION_API_H

#include "net/api/api.h"

struct partition_fan {
    struct request *rq;
    void (*done)(struct partition_fan *fan); /* at home, once: answers */
    int outstanding;
};

/* One partition's part. `start` runs on its shard with the replica, or NULL if
 * this broker has none, and must end with shard_task_end(&step->task); `back`
 * runs at home. */
struct partition_step {
    struct shard_task task;
    struct partition_fan *fan;
    struct group_id id;
    struct arena arena; /* for what `start` and its callbacks allocate */
    void (*start)(struct partition_step *step, struct partition *p);
    void (*back)(struct partition_step *step);
};

/* The partition by topic and number; error is what the topic's lookup gave.
 * NONE, the same error, or UNKNOWN_TOPIC_OR_PARTITION. */
enum kafka_error partition_api_find(enum kafka_error error,
                                    const struct image_topic *topic,
                                    int32_t index, struct group_id *id);
void partition_fan_begin(struct partition_fan *fan, struct request *rq,
                         void (*done)(struct partition_fan *fan));
/* fan, start and back are set here; `step` lives as long as the request. */
void partition_step_begin(struct partition_fan *fan,
                          struct partition_step *step,
                          const struct group_id *id,
                          void (*start)(struct partition_step *step,
                                        struct partition *p),
                          void (*back)(struct partition_step *step));
/* No further parts come: `done` follows the last one, or at once. */
void partition_fan_end(struct partition_fan *fan);

#endif
