/* The guards that make libraft 0.15.0 safe: one visible table (guard.c), each
 * rule with its reason, what it does, and a directed test that fails without
 * it (tests/unit/test_guard.c). */
#ifndef RAFT_GUARD_H
#define RAFT_GUARD_H

#include "raft/group_impl.h"

enum guard_id {
    GUARD_NOOP = 1,     /* G1 */
    GUARD_ACK = 2,      /* G2 */
    GUARD_DRAIN = 3,    /* G3 */
    GUARD_CAMPAIGN = 4, /* G4 */
    GUARD_VOTE = 5,     /* G5 */
    GUARD_PACING = 6,   /* G6 */
    GUARD_INPUT = 7,    /* G7 */
    GUARD_STORAGE = 8,  /* G8 */
    GUARD_PRE_VOTE = 9, /* G9 */
    GUARD_CLIP = 10,    /* G10 */
    GUARD_REJECT = 11,  /* G11 */
    GUARD_PROOF = 12    /* G12 */
};
#define GUARD_ALL 0xffffffffu
#define GUARD_BIT(id) (1u << (id))

enum guard_verdict { GUARD_PASS, GUARD_HOLD, GUARD_DROP };

/* Refuses (false, with a log line) a libraft other than the one this layer was
 * written for. */
bool guard_library_ok(void);

/* Tests only: rules whose bit is 0 are off. */
void guard_set_mask(struct raft_host *host, uint32_t mask);
static inline bool guard_on(const struct group *group, enum guard_id id)
{
    return (group->host->guard_mask & GUARD_BIT(id)) != 0;
}

/* May this message reach the core now, later, or never? */
enum guard_verdict guard_recv(struct group *group, const struct message *m);
/* Last preparations before it does; false: drop it after all. An append's
 * entries may be cut at the front. */
bool guard_deliver(struct group *group, struct message *m,
                   struct message_entry **entries);
void guard_delivered(struct group *group);
/* A message the core sends; may be changed. False: it is not sent. */
bool guard_send(struct group *group, struct message *m);
/* May the core be ticked? */
bool guard_tick(struct group *group);
/* May the core hear that its oldest append is durable? */
bool guard_complete(struct group *group);
/* After the core ran: things to be mended or begun. True: the core was called
 * again. */
bool guard_after(struct group *group);

#endif
