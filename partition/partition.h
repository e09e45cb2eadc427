/* One replica of one partition: the event log on top of a Raft group. All
 * calls on the partition's shard's thread. Kafka's error codes are the answers.
 *
 * Offsets: log_start <= high_watermark <= end. Consumers see below the high
 * watermark only (the offset after the last committed batch). */
#ifndef PARTITION_PARTITION_H
#define PARTITION_PARTITION_H

#include "base/kafka_error.h"
#include "partition/batch.h"
#include "partition/producer_state.h"
#include "raft/group.h"

/* A member of one of a partition's lists; private. */
struct partition_link {
    struct partition_link *next, *prev;
};

enum partition_timestamp_type { TIMESTAMP_CREATE = 0, TIMESTAMP_APPEND = 1 };

/* Effective topic configuration as the partition needs it. */
struct partition_config {
    bool cleanup_delete, cleanup_compact;
    int64_t retention_ms;    /* -1: no limit */
    int64_t retention_bytes; /* -1: no limit */
    int32_t segment_bytes;
    int64_t segment_ms;
    int64_t segment_jitter_ms; /* segments end up to so much earlier */
    int32_t index_interval_bytes;
    int32_t max_message_bytes; /* of one batch with its 12 header bytes */
    enum partition_timestamp_type timestamp_type;
    int64_t timestamp_before_max_ms, timestamp_after_max_ms;
    int32_t min_insync_replicas;
    int64_t producer_id_expiration_ms;
    /* compaction, where cleanup_compact */
    bool compaction_off; /* this broker does not compact */
    double min_cleanable_dirty_ratio;
    int64_t delete_retention_ms;
    int64_t min_compaction_lag_ms, max_compaction_lag_ms;
};

/* What the partitions of one shard share: directory, bounded cache of open
 * files, read buffers. */
struct partition_shard;
struct partition_shard_options {
    struct env *env;
    struct raft_host *host;
    const char *dir;            /* partitions' directories lie here */
    uint32_t open_files_max;    /* bound of the file cache */
    uint64_t read_bytes_max;    /* memory of file reads, until released */
    uint64_t scrub_bytes_per_s; /* of settled segments, looked through for
                                 * damage in the background; 0: none */
    uint64_t lent_bytes_max;    /* of the log buffer, lent to fetches; beyond it
                                 * they get copies. 0: as read_bytes_max */
    size_t compaction_bytes;    /* memory of a compaction's keys; 0: as usual */
};
struct partition_shard *partition_shard_new(
    const struct partition_shard_options *options);
/* Fetches wait, or get less than there is, because of memory that answers hold
 * which nobody takes. Callable from any thread. */
bool partition_shard_is_short(const struct partition_shard *shard);
/* Calls `cb`, once, when there is no partition (any more), at once if there is
 * none: what workers are at lives longer than its ops->closed. */
void partition_shard_when_empty(struct partition_shard *shard,
                                void (*cb)(void *arg), void *arg);
/* When it is empty, and after every fetch's release. */
void partition_shard_free(struct partition_shard *shard);

struct partition;

/* Told to the owner. */
struct partition_ops {
    /* Leader, term or readiness changed (to be reported to the metadata). */
    void (*role_changed)(void *arg, struct partition *partition,
                         const struct group_role *role);
    /* A committed batch was applied, in order, on every replica, also when
     * replayed after a restart: coordinators build their state from it. May be
     * NULL. `batch` is valid during the call. */
    void (*applied)(void *arg, struct partition *partition,
                    kafka_offset base_offset, const uint8_t *batch,
                    uint32_t size);
    /* The last word: the partition was deleted or the broker stops. Its memory
     * is gone when this returns. */
    void (*closed)(void *arg, struct partition *partition);
};

/* Opens a replica: from its creation record when the host does not know the
 * group, else what the host recovered (`creation` as raft_host_recovered gave
 * it). `name` is for people (directory names, logs): "orders-3"; the same at
 * every start. Blocks on files when there is something settled. ERR_LOST,
 * ERR_CORRUPT. */
MUST_USE enum err partition_open(struct partition_shard *shard,
                                 const struct group_creation *creation,
                                 const char *name,
                                 const struct partition_config *config,
                                 const struct partition_ops *ops, void *arg,
                                 struct partition **out);
void partition_configure(struct partition *p,
                         const struct partition_config *config);
/* The topic was deleted: closes the group, then removes the files. Where the
 * host is being closed nothing happens: group and files are there at the next
 * start, and go then. */
void partition_delete(struct partition *p);

struct group *partition_group(struct partition *p);
const char *partition_name(const struct partition *p);
void *partition_arg(const struct partition *p);
struct group_role partition_role(const struct partition *p);
int32_t partition_leader_epoch(
    const struct partition *p); /* the term; -1 none */
kafka_offset partition_log_start(const struct partition *p);
kafka_offset partition_high_watermark(const struct partition *p);
kafka_offset partition_last_stable(const struct partition *p);
kafka_offset partition_end(const struct partition *p);
int64_t partition_size_bytes(const struct partition *p);
/* Calls `each` for every producer whose batches are committed, with its newest
 * batch, which may be NULL. */
void partition_each_producer(const struct partition *p,
                             void (*each)(void *arg, int64_t producer_id,
                                          int16_t epoch,
                                          const struct producer_batch *last),
                             void *arg);

/* ---- produce --------------------------------------------------------------*/
/* One record batch (magic 2) as it came on the wire; not changed. The answer
 * comes by `cb`, never inside the call: acks 1 when durable here, acks -1 when
 * committed, acks 0 as acks 1 (nobody waits). Duplicates of an idempotent
 * producer get the original's offsets, once it is committed. When room is
 * short the request waits in a bounded queue. */
struct partition_produce {
    const uint8_t *batch; /* must live until the call returns, or cb when
                           * `keeps` was set by the call */
    uint32_t size;
    int16_t acks;
    int16_t api_version;
    void (*cb)(struct partition_produce *req);
    void *arg;
    /* out */
    bool keeps;
    enum kafka_error error;
    const char *message;        /* static, or NULL */
    int32_t bad_record;         /* index within the batch, -1 none */
    struct batch_limits limits; /* for batch_bad_records, then */
    kafka_offset base_offset;   /* -1 on error */
    int64_t log_append_time_ms; /* -1 with CreateTime */
    kafka_offset log_start;
    /* private */
    struct partition_link link;
    log_index index;
    int64_t max_timestamp;
    struct partition *partition;
    struct produce_doubt *doubt;
};
void partition_produce(struct partition *p, struct partition_produce *req);
/* The client gave up (time-out, connection gone): cb will not come. The batch
 * may still commit. */
void partition_produce_cancel(struct partition_produce *req);

/* ---- fetch ----------------------------------------------------------------*/
/* Reads whole batches from `offset` on, below the high watermark (isolation
 * 1: below the last stable offset). If `at_least_one`, the first batch is
 * given even when larger than max_bytes. */
struct partition_fetch {
    kafka_offset offset;
    int32_t max_bytes;
    bool at_least_one;
    int8_t isolation;
    int32_t current_leader_epoch; /* -1: not checked */
    int32_t last_fetched_epoch;   /* -1: not checked */
    bool from_follower_ok;        /* rack-aware read from a follower */
    void (*cb)(struct partition_fetch *req); /* only when the call gave false */
    void *arg;
    /* out */
    enum kafka_error error;
    kafka_offset high_watermark, last_stable, log_start;
    int32_t diverging_epoch; /* -1: none */
    kafka_offset diverging_end;
    struct iovec *iov; /* the batches, in order */
    int n_iov;
    int32_t bytes;
    /* private: pins of chunks and read buffers */
    struct fetch_pins *pins;
    struct partition *partition;
    struct group_read barrier;
};
/* True: answered at once. False: file reads are under way, or a leader has to
 * be confirmed; cb comes later. */
bool partition_fetch(struct partition *p, struct partition_fetch *req);
/* Gives back what iov refers to; after the response was written. */
void partition_fetch_release(struct partition_fetch *req);
/* Bytes of batches between `offset` and the limit of the isolation level, at
 * most `max`; cheap, for min_bytes. */
int64_t partition_available(const struct partition *p, kafka_offset offset,
                            int8_t isolation, int64_t max);
/* A waiting fetch: `wake` is called once (then it must be added again) when
 * the high watermark moves, the role changes or the partition is closed. */
struct partition_waiter {
    void (*wake)(struct partition_waiter *waiter);
    void *arg;
    /* private; all zero before the first use */
    struct partition_link link;
};
void partition_wait(struct partition *p, struct partition_waiter *waiter);
void partition_unwait(struct partition_waiter *waiter); /* twice is fine */

/* ---- offsets --------------------------------------------------------------*/
/* ListOffsets for one partition; timestamps -1 latest (linearizable: a read
 * barrier comes first), -2 earliest, -3 maximum timestamp, -4 earliest local,
 * -5 last tiered, -6 earliest pending upload, >= 0 first record at or after. */
struct partition_list_offset {
    int64_t timestamp;
    int8_t isolation;
    int32_t current_leader_epoch;
    int16_t api_version;
    void (*cb)(struct partition_list_offset *req); /* never inside the call */
    void *arg;
    /* out */
    enum kafka_error error;
    int64_t found_timestamp;
    kafka_offset offset; /* -1: none */
    int32_t leader_epoch;
    /* private */
    struct partition_link link;
    struct group_read barrier;
    struct env_work work;
    struct partition *partition;
    struct offset_search *search;
};
void partition_list_offset(struct partition *p,
                           struct partition_list_offset *req);

/* End offset of `epoch`: the largest epoch <= it and the start of the next; for
 * the current epoch the log end. (-1, -1) when unknown. */
enum kafka_error partition_offset_for_epoch(const struct partition *p,
                                            int32_t current_leader_epoch,
                                            int32_t epoch, int32_t *found_epoch,
                                            kafka_offset *end);

/* Moves the log start (DeleteRecords); -1: to the high watermark. cb when
 * committed, with the new log start. An offset beyond the high watermark is
 * refused only once a majority has confirmed the leader: one that was cut off
 * does not know what others have acknowledged since. */
struct partition_delete_records {
    kafka_offset before;
    void (*cb)(struct partition_delete_records *req);
    void *arg;
    enum kafka_error error;
    kafka_offset low_watermark;
    /* private */
    struct partition *partition;
    struct partition_link link;
    struct group_read barrier;
    log_index index;
};
void partition_delete_records(struct partition *p,
                              struct partition_delete_records *req);

/* Topic and number of a replica by the name of its directory; false: it is
 * none's. */
bool partition_dir_read(const char *name, struct uuid *topic,
                        replica_id *replica);
/* Does a replica of this shard have that directory, also one whose files are
 * being removed? */
bool partition_shard_has_dir(const struct partition_shard *shard,
                             const char *name);

#endif
