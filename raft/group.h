/* One Raft group and the host that runs many of them on a shard: all that the
 * rest of the house may see of consensus. Nothing here names libraft; the core
 * can be exchanged without touching anything above.
 *
 * A group replicates entries. An entry's payload is opaque bytes; it lies in
 * the shard's log buffer (memory that is the image of the write-ahead log's
 * tail) until it is settled by the state machine and the buffer is recycled.
 *
 * Threads: everything of a host happens on its shard's thread. Callbacks to the
 * state machine are made after the core has returned, never from inside it;
 * they may call group_propose, group_read_barrier and the const functions. */
#ifndef RAFT_GROUP_H
#define RAFT_GROUP_H

#include "base/env.h"
#include "base/err.h"
#include "base/types.h"

/* A partition of a topic is a group; the metadata group has the fixed id
 * GROUP_METADATA (partition 0 of the reserved topic id ...01). */
struct group_id {
    struct uuid topic;
    int32_t partition;
};
extern const struct group_id GROUP_METADATA;
bool group_id_equal(const struct group_id *a, const struct group_id *b);
/* Which of n shards a group lives on; the metadata group: shard 0. Stable. */
unsigned group_id_shard(const struct group_id *id, unsigned n_shards);

enum entry_type {
    ENTRY_NOOP = 1,   /* first entry of a leader's term; no payload */
    ENTRY_CONFIG = 2, /* membership; raft's own */
    ENTRY_DATA = 3,   /* partition: one record batch; metadata: records */
    ENTRY_CONTROL = 4 /* state machine's own, takes no Kafka offset */
};

/* A view of an entry that lies in the log buffer. Valid until control returns
 * to the loop, longer with log_chunk_ref(chunk). */
struct log_chunk;
struct group_entry {
    log_index index;
    raft_term_t term;
    enum entry_type type;
    const uint8_t *payload;
    uint32_t size; /* bytes of payload */
    uint32_t crc;  /* crc32c of payload */
    struct log_chunk *chunk;
};
void log_chunk_ref(struct log_chunk *chunk);
void log_chunk_unref(struct log_chunk *chunk);
/* A reference for somebody who may be slow (a client), counted apart: a chunk
 * counts against the bound of the log buffer as long as it is lent. */
void log_chunk_lend(struct log_chunk *chunk);
void log_chunk_return(struct log_chunk *chunk);
bool log_chunk_is_lent(const struct log_chunk *chunk);
/* Bytes of all lent chunks of its log buffer. */
uint64_t log_chunk_lent_bytes(const struct log_chunk *chunk);

#define GROUP_REPLICAS_MAX 9

struct group_replica {
    replica_id id; /* never used twice within the group */
    node_id node;
};

/* What the metadata says when a replica is created on this broker. The first
 * replica in the list is the preferred leader and campaigns at once. */
struct group_creation {
    struct group_id id;
    struct uuid directory; /* of the broker this replica was created for */
    replica_id self;
    int n_replicas;
    struct group_replica replicas[GROUP_REPLICAS_MAX];
};

struct group_role {
    raft_term_t term;
    node_id leader; /* -1: none known */
    bool is_leader;
    bool ready;     /* leader, and its own-term no-op is applied */
    log_index noop; /* of this term, when ready */
};

/* One state machine's settling of applied entries into its own files. Made by
 * ops->settle_begin on the shard; `run` is called on a worker with input that
 * nobody changes; the host then syncs `files`, writes the shard's checkpoint
 * with `blob`, and calls ops->settled on the shard. */
#define SETTLE_FILES_MAX 8
#define SETTLE_BLOB_MAX 4096
#define SETTLE_SCRATCH ((size_t)256 << 10)
struct settle_job {
    log_index upto; /* = applied when begun */
    enum err (*run)(struct settle_job *job);
    void *arg;       /* the state machine's */
    enum err status; /* of run: ERR_OK, ERR_NOSPACE (tried again
                      * later, nothing is lost), else fatal */
    struct env_file *files[SETTLE_FILES_MAX]; /* to be synced, set by run */
    int n_files;
    const char *dirs[SETTLE_FILES_MAX]; /* directories to be synced */
    int n_dirs;
    uint8_t blob[SETTLE_BLOB_MAX]; /* state at `upto`, kept in the checkpoint */
    uint32_t blob_size;
    /* For `run`, until it returns: SETTLE_SCRATCH bytes aligned to blocks, for
     * direct writes. The host's, used again and again. */
    uint8_t *scratch;
};

/* What a group asks of the state machine above it. `sm` is the pointer given
 * at open. All are required unless said. */
struct group_ops {
    /* Before anything else after a restart: the state at `settled`, as the
     * newest durable checkpoint has it (size 0 and index 1 for a new group).
     * ERR_CORRUPT: the replica is lost. */
    enum err (*restore)(void *sm, log_index settled, raft_term_t term,
                        const uint8_t *blob, uint32_t blob_size);
    /* An entry is now in this replica's log (not durable, not committed). In
     * index order. On the leader: before group_propose returns. After a
     * restart: for each entry of the recovered tail. */
    void (*appended)(void *sm, const struct group_entry *entry);
    /* Entries from `first` on are gone. */
    void (*truncated)(void *sm, log_index first);
    /* Committed, in index order, each once per incarnation, for all entry
     * types (no-ops and configurations too). */
    void (*applied)(void *sm, const struct group_entry *entry);
    /* The local log is durable up to here (acks=1). */
    void (*durable)(void *sm, log_index upto);
    /* Term, leader or readiness changed. */
    void (*role_changed)(void *sm, const struct group_role *role);
    /* Entries up to here leave memory (they are settled): drop references. */
    void (*evicted)(void *sm, log_index upto);
    /* Settling: false when there is nothing to do. */
    bool (*settle_begin)(void *sm, struct settle_job *job);
    /* After each settle_begin that gave a job; also when the group was closed
     * meanwhile (before `closed`). status ERR_OK: settled up to job->upto.
     * ERR_NOSPACE: nothing is settled, it will begin again. */
    void (*settled)(void *sm, struct settle_job *job);
    /* Transfer of settled state to a replica that is behind the window: see
     * raft/catchup.h. May be NULL until the state machine supports it. */
    const struct catchup_ops *catchup;
    /* The group is closed (deleted or the broker stops); last call. */
    void (*closed)(void *sm);
};

struct raft_host;
struct group;
struct transport;

struct raft_host_options {
    struct env *env;
    const char *dir;     /* of this shard: log files, checkpoints */
    bool log_must_exist; /* it was made before: ERR_LOST when it is missing */
    unsigned shard;
    node_id node;
    struct uuid directory;
    struct transport *transport;
    uint32_t tick_ms;          /* 50 */
    uint32_t heartbeat_ms;     /* 500 */
    uint32_t rest_ms;          /* groups idle so long rest; 0: never */
    uint32_t election_ms;      /* 2500 */
    uint64_t log_buffer_bytes; /* bound of the log buffer */
    uint64_t wal_file_bytes;   /* of one log file */
    uint64_t wal_bytes_max;    /* of all of them */
    uint32_t settle_ms;        /* oldest unsettled entry, 2000 */
    uint32_t settle_bytes;     /* at most; 1 MiB */
};

/* Recovers the shard's log and checkpoint (blocking; before serving). Then
 * raft_host_recovered lists every group found; the owner opens each with
 * raft_host_open or deletes it, also while it is told of it. ERR_CORRUPT with a
 * log line that says where; ERR_LOST: there is no log where one must be. */
MUST_USE enum err raft_host_new(const struct raft_host_options *options,
                                struct raft_host **out);
void raft_host_recovered(struct raft_host *host,
                         void (*each)(void *arg,
                                      const struct group_creation *creation),
                         void *arg);
/* Opens a group found by recovery. The state machine gets restore, appended
 * for the tail, then lives. */
MUST_USE enum err raft_host_open(struct raft_host *host,
                                 const struct group_id *id,
                                 const struct group_ops *ops, void *sm,
                                 struct group **out);
/* A new replica from its creation record; or one of which the log lost nothing
 * but this record: that is opened as raft_host_open does, with all it has, and
 * may be ERR_CORRUPT like there. ERR_EXISTS when the group is known;
 * ERR_LOST when the local log cannot prove that it never knew the group,
 * ERR_CLOSED when the host is being closed. */
MUST_USE enum err raft_host_create(struct raft_host *host,
                                   const struct group_creation *creation,
                                   const struct group_ops *ops, void *sm,
                                   struct group **out);
struct group *raft_host_find(struct raft_host *host, const struct group_id *id);
/* Closes and forgets a group durably; ops->closed comes later. ERR_CLOSED when
 * the host is being closed: nothing is done, the group is closed anyway and is
 * there after the next start. */
MUST_USE enum err raft_host_delete(struct raft_host *host, struct group *group);
/* Stops cleanly: flushes, settles what it can within `ms`, closes all groups,
 * then calls back. Leaders should have been transferred before. */
void raft_host_stop(struct raft_host *host, uint32_t ms,
                    void (*stopped)(void *arg), void *arg);
/* A peer broker is reachable / certainly gone: expires the followers of the
 * groups it leads (called by the transport's failure detection). */
void raft_host_peer_down(struct raft_host *host, node_id node);
void raft_host_peer_up(struct raft_host *host, node_id node);

/* Appends an entry to the leader's log. The payload is copied (once, into the
 * log buffer) before the call returns. ERR_NOT_LEADER; ERR_NOT_READY (no
 * own-term commit yet); ERR_BUSY (no room in log buffer or log: the caller
 * waits for raft_host_on_room or answers a retriable error); ERR_TOO_LARGE. */
MUST_USE enum err group_propose(struct group *group, enum entry_type type,
                                const struct iovec *payload, int n_payload,
                                log_index *out);
/* Calls `room` once when a refused propose may succeed. */
struct group_room_wait {
    void (*room)(struct group_room_wait *wait);
    void *arg;
    struct group_room_wait *next;
    bool queued;
};
void raft_host_on_room(struct raft_host *host, struct group_room_wait *wait);

/* Linearizable read: `cb` with ERR_OK once a majority has confirmed, in the
 * same term, a round that started after this call, and everything committed
 * before the call is applied; ERR_NOT_LEADER when leadership is lost first.
 * Batched per loop turn. */
struct group_read {
    void (*cb)(struct group_read *read, enum err status);
    void *arg;
    /* private */
    struct group_read *next;
    uint64_t round;
    log_index need;
};
void group_read_barrier(struct group *group, struct group_read *read);

const struct group_id *group_id(const struct group *group);
const struct group_creation *group_creation(const struct group *group);
struct group_role group_role(const struct group *group);
log_index group_commit_index(const struct group *group);
log_index group_last_index(const struct group *group);
log_index group_settled_index(const struct group *group);
log_index group_durable_index(const struct group *group);
/* False when the entry is not in memory. */
bool group_entry_at(const struct group *group, log_index index,
                    struct group_entry *out);
/* Replicas of the current configuration with what the leader knows of them;
 * on a follower only its own state is filled. Returns how many. */
struct group_replica_state {
    replica_id id;
    node_id node;
    log_index match; /* 0: unknown */
    bool caught_up;  /* in sync as Kafka means it (ISR) */
    bool reachable;
};
int group_replicas(const struct group *group,
                   struct group_replica_state out[GROUP_REPLICAS_MAX]);
/* Hands leadership to a replica on `target` (-1: the best one). Asynchronous;
 * role_changed tells. ERR_NOT_LEADER, ERR_BUSY (one is under way). */
MUST_USE enum err group_transfer(struct group *group, node_id target);
/* Whether a transfer is under way. */
bool group_is_handing_over(const struct group *group);

#endif
