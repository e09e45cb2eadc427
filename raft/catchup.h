/* Catch-up by transfer: a replica that is behind the leader's window gets the
 * leader's settled state over the network instead of entries (rule of the
 * store 7).
 *
 * Happy path. The leader sees that an entry the follower needs has left memory
 * and offers (MESSAGE_OFFER) S, the index of what it has settled. This takes
 * the place of libraft's InstallSnapshot, which the core never gets to see, nor
 * the bugs around it (LIBRAFT S6, S8, S9, L8). The follower asks the leader
 * (RPC_CATCHUP) for the manifest of S, which the state machine makes; then its
 * own state machine says which ranges of which files it needs, and they are
 * fetched, a few at a time, and written to new files by workers. All the while
 * the replica votes and answers by its old log. When all is there, the state
 * machine's files are synced and the shard's checkpoint is written with settled
 * = S and the state machine's new blob: that is the switch, atomic with one
 * durable write. Then the replica's log is empty and begins at S + 1, the core
 * is started again from there exactly as after a restart, the state machine
 * gets `restore` (again), and the next offer is answered with the result of an
 * append that ends at S: the leader goes on with entries from S + 1.
 *
 * Failures. A lost call is repeated; with another leader, or when a range is
 * gone there (retention), a new manifest is asked for and the state machine
 * keeps what still fits. If the leader has settled more before the switch and
 * S + 1 has left its memory, the transfer is extended by another manifest
 * before switching. When entries arrive after all so that S is in the
 * replica's log, the transfer is given up. A crash before the switch leaves the
 * old state; files received so far may be used again by the next
 * receive_begin. A full disk pauses the transfer and is tried again.
 *
 * What a state machine implements is struct catchup_ops, in group_ops.catchup.
 * All calls are made on the shard's thread; only `run` of a job is called on a
 * worker, with input nobody changes. */
#ifndef RAFT_CATCHUP_H
#define RAFT_CATCHUP_H

#include "base/buffer.h"
#include "raft/group.h"
#include "raft/transport.h"

/* Bytes of a manifest: some ten thousand segments at 40 bytes. */
#define CATCHUP_MANIFEST_MAX (1u << 20)
/* Bytes of one range: one message on the bulk lane. */
#define CATCHUP_RANGE_MAX (1u << 20)

/* A range of a file. What the number means is between the state machine that
 * made the manifest and the one that reads it; it must stay the same in later
 * manifests of the same replica (say: a segment's base offset). */
struct catchup_range {
    uint64_t file;
    uint64_t offset;
    uint32_t size; /* 1 .. CATCHUP_RANGE_MAX */
};

/* A range on its way: read by the leader, written by the follower. */
struct catchup_job {
    struct catchup_range range;
    /* Set by read_begin / write_begin; called on a worker. */
    enum err (*run)(struct catchup_job *job);
    void *arg; /* the state machine's */
    /* Leader: room for range.size bytes, to be filled by run with all of them.
     * Follower: the bytes, as the leader sent them (CRC checked). */
    uint8_t *data;
    enum err status; /* of run */
};

struct catchup_ops {
    /* ---- on the leader ---- */
    /* Appends to `out` the manifest of the state at `settled`, which is the
     * index of the newest ops->settled (or restore): the files and their sizes,
     * and all of the state machine that is not in the files (what its
     * checkpoint blob says, in a form another broker can use). At most
     * CATCHUP_MANIFEST_MAX bytes; keep a version in it. The files named are
     * not deleted while they are leased (see `lease`), and bytes at a position
     * never change. ERR_NOT_READY: not now, the follower asks again. */
    enum err (*manifest_make)(void *sm, log_index settled, struct buffer *out);
    /* Some follower reads (true), or none has for a while (false): retention
     * should spare what manifests named. May be NULL: then a range may be gone
     * and the follower begins anew. */
    void (*lease)(void *sm, bool held);
    /* Prepares reading a range of the manifest: takes what `run` needs (an open
     * file) into job->arg, sets job->run. ERR_NOT_FOUND: it is not there any
     * more, or was never. The manifest may be an older one, or another
     * leader's: check range.file and bounds, they come from the network. */
    enum err (*read_begin)(void *sm, struct catchup_job *job);
    /* After run (status is set); also when the group was closed meanwhile
     * (then sm is NULL). Frees job->arg. */
    void (*read_end)(void *sm, struct catchup_job *job);

    /* ---- on the follower ---- */
    /* A manifest arrived: decide what is needed. Bytes from the network: check
     * everything. Local files whose bytes are the same may be used; files
     * received for an earlier manifest (of this or an earlier incarnation),
     * too; nothing the running replica uses may be changed. Called again
     * without receive_end in between when a newer manifest replaces the former:
     * what was received for it stays valid as far as it still fits. From here
     * to receive_end nothing else settles, nor does anything at this call.
     * ERR_CORRUPT, ERR_INVALID: not usable (logged; asked for again later). */
    enum err (*receive_begin)(void *sm, log_index index, raft_term_t term,
                              const uint8_t *manifest, size_t size);
    /* The next range to fetch, each once; false: all were given out. */
    bool (*receive_next)(void *sm, struct catchup_range *out);
    /* Bytes still to be fetched and bytes in all, for progress. */
    void (*receive_progress)(const void *sm, uint64_t *left, uint64_t *all);
    /* The bytes of a range are here: prepares writing them (sets run and arg).
     */
    enum err (*write_begin)(void *sm, struct catchup_job *job);
    /* After run; sm NULL when the group was closed meanwhile. Frees job->arg.
     * Status ERR_NOSPACE: the host gives the same range to write_begin again
     * later. Any other error: the transfer is given up by receive_end(false)
     * and begun anew later. */
    void (*write_end)(void *sm, struct catchup_job *job);
    /* All ranges are written. Fills a settle job as settle_begin does: run
     * verifies what was received as a whole (ERR_CORRUPT: the transfer is given
     * up and its files are of no use) and brings it into its place; files and
     * dirs are then synced, and the blob is what `restore` will get. The files
     * the running replica uses stay as they are: a crash before the checkpoint
     * goes back to them. job->upto is set to the manifest's index. After
     * ERR_NOSPACE it is called again. */
    void (*receive_finish)(void *sm, struct settle_job *job);
    /* The transfer is over. switched: the checkpoint with the blob is durable
     * and `restore` follows at once: close everything of the old state, its
     * files that are not part of the new may be deleted. Else: forget it. The
     * settle job's arg is to be freed here too. */
    void (*receive_end)(void *sm, bool switched);
};

/* Bytes of one range from another replica, whoever leads: for what is damaged
 * here. The peers are asked one after the other (their read_begin answers)
 * until `check` takes what came. Owned by the caller until `cb`. */
struct group_fetch {
    struct catchup_range range;
    /* Are these (range.size) bytes what is wanted? */
    bool (*check)(struct group_fetch *fetch, const uint8_t *bytes);
    /* ERR_OK, `bytes` valid during the call; ERR_NOT_FOUND: no peer that can
     * be reached has them. Never inside group_fetch. */
    void (*cb)(struct group_fetch *fetch, enum err status,
               const uint8_t *bytes);
    void *arg;
    /* 0: any peer. Else this one only, counted from 1, in an order that stays
     * the same while the group is open: for several ranges that belong
     * together. */
    int only;
    /* private */
    struct group *group;
    int peer;
    struct rpc_call call;
    bool calling;
};
/* False: there are no peers, or not so many. */
bool group_fetch(struct group *group, struct group_fetch *fetch);
void group_fetch_cancel(struct group_fetch *fetch); /* twice is fine */

/* Is this replica receiving? And how many bytes of how many are missing (0 of
 * 0: not known yet). */
bool group_catchup_progress(const struct group *group, uint64_t *left,
                            uint64_t *all);

#endif
