/* A host's storage: its log and checkpoint, recovery, stopping. */
#ifndef RAFT_HOST_STORE_H
#define RAFT_HOST_STORE_H

#include "raft/checkpoint.h"
#include "raft/group_impl.h"

/* At the end of each turn of the host. */
void host_store_turn(struct raft_host *host);
/* A group was deleted: remembered until a checkpoint without it is durable. */
void host_store_deleted(struct raft_host *host, const struct group_id *id);
/* The log has all of this group but the record of its creation? */
bool host_store_is_unmade(const struct raft_host *host,
                          const struct group_id *id);
/* Who knows its peers has its creation: from here on it is a group that was
 * found, and the creation is logged again. ERR_CORRUPT: what was found does not
 * fit together. */
MUST_USE enum err host_store_remake(struct raft_host *host,
                                    const struct group_creation *creation);
void host_store_unmade_free(struct raft_host *host);
/* A checkpoint that does not name the first `n` of them is durable. */
void host_store_forget_deleted(struct raft_host *host, uint32_t n);
/* A settling round ended. */
void host_store_round_over(struct raft_host *host);

/* host.c, for storage. */
void raft_host_begin(struct raft_host *host); /* starts ticking */
void raft_host_close_all(struct raft_host *host);

#endif
