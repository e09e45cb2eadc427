/* Replicas that cannot prove their log: a part of what was durable is damaged
 * (a hole in the write-ahead log, an unreadable checkpoint, settled files that
 * cannot be used). Such a replica takes entries and transfers and acknowledges
 * them, but neither votes nor campaigns (guard G12), like a voter that is down,
 * until its log is known to reach as far as it ever did.
 *
 * How far that is, is known where later records or the settled index survived.
 * Else the leader is asked (RPC_CATCHUP) where its log ends now: a leader of a
 * term that is not below ours has every entry that counts and that we may have
 * acknowledged (Leader Completeness for earlier terms, and its own for its
 * own), whatever of our acknowledgements is still under way. */
#ifndef RAFT_PROOF_H
#define RAFT_PROOF_H

#include "raft/group_impl.h"

#define PROOF_UNKNOWN UINT64_MAX

/* The log must reach (term, index), or more; PROOF_UNKNOWN: as the leader says.
 * Said twice, both hold. Before the group starts. */
void proof_withhold(struct group *group, uint64_t term, uint64_t index);
/* Ends the withholding when the durable log reaches far enough. */
void proof_check(struct group *group);
/* Asks the leader, if that is what is missing. Called at every tick. */
void proof_tick(struct group *group);
/* The group is closing: nothing may be called back any more. */
void proof_cancel(struct group *group);
/* Answers such a question; the leader's side. */
struct rpc_request;
void proof_serve(struct group *group, struct rpc_request *request);
/* Gives up everything that is settled, and the log: what is there cannot be
 * used. The term and the vote stay. The replica gets all from the leader.
 * False: it has no peers to get it from; nothing is changed then. */
bool proof_reset(struct group *group);

#endif
