/* Groups with nothing to do rest: no heartbeats, no ticks, so that ten thousand
 * of them cost nothing while they are idle. Brokers watch each other anyway.
 *
 * A leader whose group was idle for rest_ms (everything stored, committed and
 * known everywhere, all replicas heard, their brokers up) asks with its next
 * appends without entries (MESSAGE_REST, in a read round of its own). A
 * follower for which the same holds rests when it has answered so; the leader
 * when all of them have, in that round. A follower that rests believes in its
 * leader as long as the leader's broker is up.
 *
 * Whatever happens to a group wakes it: a proposal, a read, a hand-over, any
 * other message, the broker of its leader (of a replica, for the leader) gone.
 * Who wakes begins with a fresh election time-out. Safety does not depend on
 * any of it, only when an election is tried does.
 *
 * As a backstop a resting leader asks again every half a minute, and a follower
 * that has not been asked for REST_SILENCE_MS wakes up. */
#ifndef RAFT_REST_H
#define RAFT_REST_H

#include "raft/group_impl.h"

/* At a tick of a leader: begins to rest, or asks for it, when it may. */
void rest_consider(struct group *group);
/* Is this append, which the leader is about to send, to ask for rest? */
bool rest_asks(const struct group *group, const struct message *append);
/* Follower: may it rest after this append? Before the core sees it. */
bool rest_fits(const struct group *group, const struct message *m);
/* Follower: the core has seen an append that fits. */
void rest_begin(struct group *group);
/* A message of a known replica came; before it is delivered. */
void rest_heard(struct group *group, const struct message *m);
/* Something happened, or is about to. */
void rest_wake(struct group *group);
/* The broker is gone: who relies on it wakes. */
void rest_peer_down(struct group *group, node_id node);
/* Now and then, while it rests: the backstop. */
void rest_look(struct group *group);

#endif
