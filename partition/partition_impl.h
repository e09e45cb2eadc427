/* The inside of one partition, shared by the files of this folder. */
#ifndef PARTITION_PARTITION_IMPL_H
#define PARTITION_PARTITION_IMPL_H

#include "base/hash.h"
#include "partition/epoch.h"
#include "partition/partition.h"
#include "partition/producer_state.h"
#include "partition/segment.h"

/* ---- lists: circular, with a head that is a member ----------------------- */
static inline void link_init(struct partition_link *head)
{
    head->next = head->prev = head;
}
static inline bool list_empty(const struct partition_link *head)
{
    return head->next == head;
}
static inline void link_add(struct partition_link *before,
                            struct partition_link *link)
{
    link->next = before;
    link->prev = before->prev;
    link->prev->next = link;
    before->prev = link;
}
/* Twice is fine, and so is a link that is all zero. */
static inline void link_remove(struct partition_link *link)
{
    if (link->next != NULL) {
        link->next->prev = link->prev;
        link->prev->next = link->next;
        link->next = link->prev = NULL;
    }
}
/* Moves all of `from` to the end of `to`. */
void list_move(struct partition_link *to, struct partition_link *from);
#define LINK_OF(type, member, ptr) \
    ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* ---- entries in memory --------------------------------------------------- */
/* An entry in the log buffer: from the first not yet evicted to the last
 * appended. Where its payload lies is asked of the group when it is needed
 * (ring_view): the log may move entries while the loop turns. */
struct log_entry {
    raft_term_t term;
    enum entry_type type;
    uint32_t size, crc;
    kafka_offset base_offset; /* not a batch: the next offset */
    int32_t last_delta;       /* not a batch: -1 */
    int64_t max_timestamp;    /* not a batch: -1 */
    uint64_t bytes;           /* of all batches before this entry */
};

struct log_ring {
    struct log_entry *entries;
    uint32_t capacity; /* a power of two, or 0 */
    uint32_t head;     /* place of the first */
    uint32_t count;
    log_index first; /* of the first, if there is one */
};
struct log_entry *ring_at(const struct log_ring *ring, uint32_t i);
struct partition;
/* The entry at place `i` with its payload, valid as group_entry says. */
struct group_entry ring_view(const struct partition *p, uint32_t i);
struct log_entry *ring_push(struct log_ring *ring, log_index index);
void ring_pop_front(struct log_ring *ring);
void ring_pop_back(struct log_ring *ring);
/* Place of the entry with this index; `count` when it is not held. */
uint32_t ring_find(const struct log_ring *ring, log_index index);
/* Place of the first batch that ends at `offset` or later; `count` if none. */
uint32_t ring_find_offset(const struct log_ring *ring, kafka_offset offset);

/* ---- workers ------------------------------------------------------------- */
/* Gives a worker for files something to do. */
void partition_work(struct env *env, struct env_work *work,
                    void (*run)(struct env_work *work),
                    void (*done)(struct env_work *work), void *arg);

/* ---- shard --------------------------------------------------------------- */
struct partition_shard {
    struct partition_shard_options options;
    char *dir;
    struct file_cache *files;
    struct partition_link partitions; /* in order of opening */
    struct partition *by_replica;     /* uthash: the same */
    uint64_t next_number;
    struct env_timer maintenance;
    struct env_timer scrub;
    struct partition_link *scrub_at; /* whose turn it is; NULL: the first's */
    struct partition *scrubbing;     /* one at a time; NULL: none */
    uint32_t repairs_wanted;         /* partitions with repair_wanted */
    uint64_t scrub_debt;          /* bytes read beyond what the rate allows */
    struct partition *compacting; /* one at a time; NULL: none */
    struct partition *refetching; /* the same */
    void (*emptied)(void *arg);   /* waits for the last partition; or NULL */
    void *emptied_arg;
    uint64_t read_bytes;          /* in use */
    struct partition_link reads;  /* waiting for read_bytes */
    struct partition_link aheads; /* read ahead, waiting to be asked for */
    _Atomic bool is_short;        /* the memory of fetches is used up */
};

/* ---- partition ----------------------------------------------------------- */
struct partition {
    struct partition_shard *shard;
    struct partition_link link; /* in shard->partitions */
    UT_hash_handle hh;          /* in shard->by_replica */
    uint64_t number;            /* owner in the file cache */
    struct env *env;
    struct group *group; /* NULL: closed, or being opened */
    struct group_id id;
    replica_id replica; /* key in shard->by_replica */
    char *name, *dir;
    struct partition_config config;
    struct partition_ops ops;
    void *arg;
    uint32_t refs; /* open group, jobs, turn */
    bool deleting, closed, opening;
    struct env_work removal;        /* of the files of a deleted replica */
    struct env_timer removal_timer; /* until it is tried again */
    enum err removal_status;
    bool removal_told, removal_waits;

    /* the log */
    struct log_ring ring;
    log_index last, applied;
    kafka_offset end, high_watermark, log_start;
    uint64_t end_bytes, applied_bytes; /* of all batches ever, up to there */
    struct epochs epochs;
    struct producers *producers;
    int32_t leader_epoch;        /* newest term with a known leader, -1 */
    raft_term_t led_term;        /* term that waiting requests belong to */
    struct env_timer leaderless; /* they wait for the next leader's name */

    /* settled */
    struct log_state settled;
    kafka_offset settled_log_start;
    struct segment *closed_segments; /* oldest first */
    size_t n_closed_segments;
    kafka_offset compacted; /* up to here one record of a key at most */
    kafka_offset read_from, read_to; /* last read past the page cache (fetch) */
    uint64_t read_ms;                /* when that was answered */
    struct fetch_read *ahead;        /* what comes next there, or NULL */
    uint32_t next_generation;        /* for files that replace others */
    struct compaction *compaction;   /* under way, or NULL */
    uint64_t compact_again_ms;       /* not before */
    /* Segments whose place was taken: their files go when nobody who began to
     * read before that (in an earlier era) reads any more. */
    struct segment *retired;
    size_t n_retired;
    uint32_t era, views, views_before;
    uint32_t removals; /* of files, under way */
    bool settling, dir_made;
    bool switching; /* the list of closed segments is being replaced */
    bool leased;    /* a replica reads our segments: none is removed */
    struct partition_transfer *transfer; /* being received, or NULL */
    kafka_offset told;       /* ops->applied was called up to here */
    bool damage_told;        /* the log line about it was written */
    struct repair *repair;   /* under way, or NULL */
    struct refetch *refetch; /* under way, or NULL */
    uint64_t repair_at_ms;   /* not before: something could not be fetched */
    uint32_t repairs_failed; /* one after the other */
    bool repair_wanted;      /* of what is at repair_offset */
    kafka_offset repair_offset;
    kafka_offset scrub_next; /* the segment that holds it is next */

    /* who waits */
    struct partition_link wait_commit, wait_durable; /* by index */
    struct partition_link wait_room;
    uint32_t n_wait_room;
    bool turned_away; /* a request its client repeats, then: */
    uint64_t turned_away_ms;
    struct partition_link done;    /* produce: to be called back */
    struct partition_link deletes; /* by index */
    struct partition_link deletes_done;
    struct partition_link offsets_done;
    struct partition_link waiters;
    bool wake;
    struct produce_room *room; /* asked for; NULL: not waiting for room */
    struct env_deferred turn;
    bool turn_queued;
};

void partition_ref(struct partition *p);
void partition_unref(struct partition *p);
/* Calls back at the end of the loop turn what is ready then. */
void partition_turn_later(struct partition *p);
/* Nobody leads for too long: who waits is told so. */
void partition_leaderless(struct env_timer *timer);
/* The offset below which an isolation level may read. */
kafka_offset partition_limit(const struct partition *p, int8_t isolation);
/* Answers all produce requests and deletions that wait with `error`. */
void partition_fail_waiting(struct partition *p, enum kafka_error error);
/* The check of a client's leader epoch; KAFKA_NONE when it is not to be made
 * (-1) or fits. */
enum kafka_error partition_check_epoch(const struct partition *p,
                                       int32_t current_leader_epoch);
/* A view of the closed segment i, or of the active one (i = n_closed), whose
 * files are taken from the cache: partition_view_give. */
void partition_view_take(struct partition *p, size_t i,
                         struct segment_view *view);
/* For segment_read_direct. */
void partition_view_take_direct(struct partition *p, size_t i,
                                struct segment_view *view);
void partition_view_give(struct partition *p, struct segment_view *view);
/* These segments are in no list any more: their files go when nobody reads
 * them. Takes the memory over. Only when nothing is retired already. */
void segments_retire(struct partition *p, struct segment *segments, size_t n);
void retired_remove(struct partition *p);
size_t partition_segment_count(const struct partition *p);
struct segment partition_segment_at(const struct partition *p, size_t i);
/* Number of the segment that may hold `offset`. */
size_t partition_segment_find(const struct partition *p, kafka_offset offset);
/* A damaged batch was found in a file: told once. */
void partition_tell_damage(struct partition *p, kafka_offset offset);

/* append.c */
void produce_fail(struct partition_produce *req, enum kafka_error error,
                  const char *message);
/* The same for what its client sends again, and notes when. */
void produce_turn_away(struct partition_produce *req, enum kafka_error error,
                       const char *message);
void produce_succeed(struct partition_produce *req);
/* A partition in the host's queue for room; outlives it if it must. */
struct produce_room {
    struct group_room_wait wait;
    struct partition *partition; /* NULL: closed meanwhile */
};
void produce_finish_turn(struct partition *p);

/* commit.c */
extern const struct group_ops partition_group_ops;

/* settling.c */
enum err settled_restore(void *sm, log_index settled, raft_term_t term,
                         const uint8_t *blob, uint32_t size);
bool settle_begin(void *sm, struct settle_job *job);
void settle_end(void *sm, struct settle_job *job);
/* Encodes the state for a checkpoint: the size. */
uint32_t settled_encode(const struct log_state *state, kafka_offset log_start,
                        const struct epochs *epochs,
                        uint8_t blob[SETTLE_BLOB_MAX]);
/* Reads it, of a log that ends at state->index with `term`; ERR_CORRUPT when it
 * cannot be of that one (what is out may be half filled then). */
MUST_USE enum err settled_decode(const uint8_t *blob, uint32_t size,
                                 raft_term_t term, struct log_state *state,
                                 kafka_offset *log_start,
                                 struct epochs *epochs);

/* retention.c */
void control_apply(struct partition *p, const uint8_t *payload, uint32_t size);
void retention_run(struct env_timer *timer);
/* Forgets closed segments below the settled log start and removes their
 * files. */
void retention_remove(struct partition *p);
/* Removes the files of segments that are in no list any more. */
void segments_remove(struct partition *p, const struct segment *segments,
                     size_t n);
/* Forgets the oldest n. */
void closed_segments_drop(struct partition *p, size_t n);
void delete_records_turn(struct partition *p);

/* compaction.c */
struct compaction;
/* Begins one where it is most needed, if none is under way on the shard. */
void compaction_consider(struct partition_shard *shard);
/* Something it may have waited for has ended. */
void compaction_poll(struct partition *p);
/* A worker wrote the list of closed segments: ends `switching`. A full disk is
 * left to the caller; any other error ends the process. */
void segments_written(struct partition *p, enum err status);
/* What was written counts from now on; takes the list. */
void segments_adopt(struct partition *p, struct segment *list, size_t n,
                    kafka_offset compacted);
/* Number of this segment, as it was, in the list of closed ones; their count:
 * it is there no more. */
size_t segments_listed_at(const struct partition *p, const struct segment *s);
/* The partition is closed. */
void compaction_closed(struct partition *p);

/* fetch.c */
void fetch_next_waiting(struct partition_shard *shard);
/* The partition is closed. */
void fetch_closed(struct partition *p);

/* repair.c */
struct catchup_job;
/* Damage was found at or near `offset`: the segment is looked through and what
 * is damaged is fetched from peers and written in its place. */
void repair_found(struct partition *p, kafka_offset offset);
/* The group is closed, or another state is being restored. */
void repair_stop(struct partition *p);
/* What is damaged at `offset` could not be repaired: later. */
void repair_again(struct partition *p, kafka_offset offset);
void repair_succeeded(struct partition *p);
/* Looks at a bit more of what is settled; `bytes` are read at most. True when
 * something was read. */
void repair_scrub(struct partition_shard *shard);
/* The partition is about to leave the shard's list. */
void repair_forget(struct partition *p);
/* A peer asks for one entry. */
#define REPAIR_SLOT_AT (UINT64_C(1) << 40)
MUST_USE enum err repair_serve_begin(struct partition *p,
                                     struct catchup_job *job);
void repair_serve_end(struct catchup_job *job);

/* refetch.c */
struct refetch;
/* Takes over from a peer what this segment holds, or more; false: not now, or
 * it is not closed. repair_again or repair_succeeded tell the end. */
bool refetch_begin(struct partition *p, const struct segment *damaged);
/* Something it may have waited for has ended. */
void refetch_poll(struct partition *p);
/* The group is closed, or another state is being restored. */
void refetch_stop(struct partition *p);
/* A peer asks for the segment that holds an offset: i64 base, i64 end, u64
 * bytes, u64 slots, u64 id of its compaction, i64 offset up to which the log is
 * compacted. */
#define REFETCH_SEGMENT_AT (UINT64_C(1) << 41)
#define REFETCH_SEGMENT_SIZE 48
MUST_USE enum err refetch_serve_begin(struct partition *p,
                                      struct catchup_job *job);
void refetch_serve_end(struct catchup_job *job);

/* catchup.c */
struct catchup_ops;
extern const struct catchup_ops partition_catchup_ops;

/* list_offset.c */
void list_offset_turn(struct partition *p);

#endif
