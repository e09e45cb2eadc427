/* What the handlers of group requests share: finding the coordinator's shard
 * and carrying one request to it. */
#ifndef NET_API_GROUP_API_H
#define NET_API_GROUP_API_H

#include "net/api/api.h"

/* The partition of __consumer_offsets that the group belongs to and the shard
 * that owns it. NONE, COORDINATOR_NOT_AVAILABLE (no such topic yet), or
 * NOT_COORDINATOR (no replica here). */
enum kafka_error group_api_locate(struct request *rq, struct wire_str group,
                                  int32_t *index, struct broker_shard **owner);

/* One group request under way: `start` runs at the coordinator's shard and
 * must end with shard_task_end(&step->task), `back` runs at home. */
struct group_step {
    struct shard_task task;
    struct request *rq;
    struct arena arena; /* of what `start` and its callbacks allocate: the
                         * request's own stays with its shard */
    void (*start)(struct group_step *step, struct coordinator *c);
    void (*back)(struct group_step *step);
};
void group_api_begin(struct request *rq, struct group_step *step,
                     struct broker_shard *owner);
/* A request about one group: finds its coordinator (`index`, as
 * group_api_locate tells it) and carries the request there; `error` and at once
 * `back` if there is none. */
void group_api_run(struct request *rq, struct group_step *step,
                   struct wire_str group, int32_t *index,
                   enum kafka_error *error);

/* For the coordinator's shard: zeroed memory that lives as long as the request,
 * and copies of what the coordinator shows during its callback. */
void *group_api_alloc(struct group_step *step, size_t count, size_t size);
struct wire_str group_api_keep(struct group_step *step, struct text t);
struct wire_bytes group_api_keep_bytes(struct group_step *step, struct blob b);

#endif
