/* Clients with quotas are told to wait (KIP-219): what a request costs is
 * counted when it is answered, on shard 0, where the broker's `struct quotas`
 * is; the answer goes out at once, with the time to wait in it, and the
 * connection is not read for as long.
 *
 * Counted are the bytes of the bodies of Produce, the bytes of records in
 * answers to Fetch, the time that the shard of the connection spends on a
 * request (what other shards do for it is not known), and partitions created
 * and deleted. Clients without quotas cost a look-up in an empty table. */
#ifndef NET_THROTTLE_H
#define NET_THROTTLE_H

#include "net/quota.h"
#include "net/request.h"

struct api_metadata_step;
struct broker_config;

struct throttle *throttle_new(const struct broker_config *config);
void throttle_free(struct throttle *t);

/* Whether this request may cost its client a wait. Such a one is begun only
 * when those before it on its connection are answered, as in Kafka: with many
 * under way all would be taken before the first is told to wait. */
bool throttle_concerns(const struct request *rq);

/* Around a handler: how long it takes. */
void throttle_begin(struct request *rq);
void throttle_end(struct request *rq);
/* An answer (NULL: there is none, `frame` and `message` too) is ready. True:
 * it was taken, and is delivered when it is known how long the client must
 * wait; false: deliver it now. */
bool throttle_answer(struct request *rq, const struct codec_message *message,
                     const void *in, struct wire_writer *frame);

/* Counts a fetch before it is answered, once: of `bytes`. False: no quota is
 * concerned. True: `done` is called, now or later; then, if rq->throttle_ms is
 * not 0, the answer must be empty and tell that time. */
bool throttle_fetch(struct request *rq, int64_t bytes,
                    void (*done)(struct request *rq));
/* Most bytes that a fetch of this client may be answered with. */
int32_t throttle_fetch_max(const struct request *rq, int32_t most);

/* Begins `step` (api_metadata_begin) if the client may create or delete
 * `partitions` now. Else, from version `strict` of the API on, goes to
 * step->back with THROTTLING_QUOTA_EXCEEDED and no results; older clients are
 * only made to wait afterwards. */
void throttle_mutation(struct request *rq, struct api_metadata_step *step,
                       int64_t partitions, int16_t strict);

#endif
