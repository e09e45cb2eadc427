/* Catch-up inside raft/: what host, group and settling call. catchup_serve.c is
 * the leader's side, catchup.c the follower's. See catchup.h for the whole. */
#ifndef RAFT_CATCHUP_IMPL_H
#define RAFT_CATCHUP_IMPL_H

#include "raft/catchup.h"
#include "raft/group_impl.h"

/* A request is the group's 20 bytes (as RPC_CATCHUP has them), one byte of
 * operation, then little-endian:
 *   MANIFEST  u64 index that the follower has all of, 0: nothing
 *   READ      u64 file, u64 offset, u32 size
 *   LAST      nothing
 * Answers:
 *   MANIFEST  u64 index, u64 term, u64 index of the newest configuration at or
 *             below, u64 its term, u32 its size, its bytes, then the state
 *             machine's manifest; nothing after the first 16 bytes: the leader
 *             can go on with entries from behind the asked index, no need of
 *             another manifest
 *   READ      the bytes
 *   LAST      u64 term of the leader, u64 term and u64 index of its last entry
 *             (proof.c) */
enum catchup_operation {
    CATCHUP_MANIFEST = 1,
    CATCHUP_READ = 2,
    CATCHUP_LAST = 3,
};
#define CATCHUP_REQUEST_HEAD 21
#define CATCHUP_ANSWER_GO 16
#define CATCHUP_ANSWER_HEAD 36

/* At every tick of the host; nothing happens without a transport. */
void catchup_tick(struct raft_host *host);
/* The group will not be there any more. Jobs that are with a worker keep
 * group->jobs above 0; closed must not be called before it is 0. */
void catchup_group_closing(struct group *group);

/* ---- leader -------------------------------------------------------------- */
/* Serves RPC_CATCHUP from now on. */
void catchup_serve_begin(struct raft_host *host);
/* A follower of this group is behind, or somebody reads: it is looked at by
 * catchup_serve_tick until that is over. */
void serve_watch(struct group *group);
/* Offers to followers whose next entry has left memory; ends leases nobody has
 * used for a while. */
void catchup_serve_tick(struct raft_host *host);

/* ---- follower ------------------------------------------------------------ */
/* A leader offers its settled state. */
void catchup_offered(struct group *group, const struct message *offer);
/* New entries must not be taken: the transfer is about to switch. */
bool catchup_blocks_entries(const struct group *group);
/* Everything is received: the next settle round must take this group, with
 * this job in place of settle_begin's. */
bool catchup_ready(const struct group *group);
void catchup_settle_begin(struct group *group, struct settle_job *job);
/* What is being received is written where settling would write, too: the group
 * settles nothing of its own meanwhile. */
bool catchup_holds_files(const struct group *group);
/* What the checkpoint says of the group when such a job is done: the term of
 * job->upto, and the configuration. */
void catchup_settle_state(const struct group *group, uint64_t *term,
                          struct group_config *config);
/* The checkpoint is durable: switches. */
void catchup_switch(struct group *group, struct settle_job *job);
/* run of the job failed, or the disk was full, or the group was closed. */
void catchup_settle_failed(struct group *group, struct settle_job *job);
/* A round that settled the group is over, whatever it settled: what was ended
 * meanwhile can be taken away. */
void catchup_round_over(struct group *group);

#endif
