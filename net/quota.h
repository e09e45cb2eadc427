/* How much of their quotas clients have used up, and how long they are to
 * wait: what a broker measures, whatever the shard of the connection. One
 * `struct quotas` a broker, on shard 0; net/throttle carries requests there. */
#ifndef NET_QUOTA_H
#define NET_QUOTA_H

#include "base/types.h"
#include "metadata/quota.h"

struct quotas;

struct quota_windows {
    uint32_t n;  /* quota.window.num, and the controller's */
    uint32_t ms; /* quota.window.size.seconds */
};

/* Rates are measured over `rates`; of QUOTA_MUTATION a client may save up what
 * `mutations` have together. */
struct quotas *quotas_new(struct quota_windows rates,
                          struct quota_windows mutations);
void quotas_free(struct quotas *q);

/* One use of a quota by a client, and what came of it. */
struct quota_use {
    bool on; /* there is a quota of this kind for the client */
    struct quota_match match;
    /* bytes; of QUOTA_REQUEST nanoseconds, of QUOTA_MUTATION partitions */
    double amount;
    bool take_back; /* not counted when it is too much: it will not be sent */
    bool strict;    /* of QUOTA_MUTATION: refused, not counted, when nothing
                     * is left */
    /* out */
    bool refused;
    uint32_t throttle_ms; /* 0: all is well */
};
/* Counts what a client did now and tells how long it must wait so that its rate
 * is the limit again (Kafka's arithmetic: the rate is what happened in the
 * windows, the youngest of which is not whole, by their length). */
void quotas_use(struct quotas *q, enum quota_kind kind, struct wire_str client,
                uint64_t now_ms, struct quota_use *use);

/* What a rate may have reached at most at once: a fetch is not longer. */
double quota_burst(struct quota_windows rates, double limit);

#endif
