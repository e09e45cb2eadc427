/* The inside of a group and of its host: for raft/'s own files and for tests
 * that look into the core. Nobody else includes this. */
#ifndef RAFT_GROUP_IMPL_H
#define RAFT_GROUP_IMPL_H

#include <raft.h>

#include "base/hash.h"
#include "base/limits.h"
#include "base/mem.h"

#include "raft/group.h"
#include "raft/group_index.h"
#include "raft/handle.h"
#include "raft/message.h"
#include "raft/transport.h"
#include "raft/wal.h"

/* Internals of libraft 0.15.0 that are called: it is linked statically, and
 * guard_library_ok refuses another one. */
void logSnapshot(struct raft_log *log, raft_index last_index,
                 unsigned trailing);
raft_term logTermOf(struct raft_log *log, raft_index index);
int replicationProgress(struct raft *r, unsigned i);
int replicationApply(struct raft *r);
bool electionTimerExpired(struct raft *r);
extern struct raft_tracer NoopTracer;
/* Values of raft_progress.state. */
enum { PROGRESS_PROBE = 0, PROGRESS_PIPELINE = 1, PROGRESS_SNAPSHOT = 2 };

/* What a host needs of log and transport: the real ones (host.c), or a test's.
 */
struct raft_backend {
    bool (*reserve)(void *arg, uint64_t bytes, uint32_t records);
    void (*unreserve)(void *arg, uint64_t bytes, uint32_t records);
    uint64_t (*append_entry)(void *arg, const struct group_id *group,
                             log_index index, raft_term_t term,
                             enum entry_type type, const struct iovec *payload,
                             int n_payload, struct wal_place *out);
    uint64_t (*append_truncate)(void *arg, const struct group_id *group,
                                log_index first);
    uint64_t (*append_term)(void *arg, const struct group_id *group,
                            raft_term_t term, replica_id vote);
    uint64_t (*append_create)(void *arg, const struct group_creation *creation);
    uint64_t (*append_delete)(void *arg, const struct group_id *group);
    uint64_t (*durable)(void *arg);
    bool (*send)(void *arg, node_id node, const struct group_id *group,
                 const struct transport_piece *pieces, int n_pieces);
};

/* An append the core waits for; completed strictly in order. */
struct append_wait {
    struct raft_io_append *req;
    raft_io_append_cb cb;
    uint64_t position; /* in the write-ahead log */
};

/* A first-in-first-out queue of append_waits. */
struct append_queue {
    struct append_wait *items;
    uint32_t size, head, count; /* size: power of two, or 0 */
};

/* A message kept: one that may not reach the core yet (guards), or one that
 * may not leave before the term and vote it depends on are durable. */
struct kept_message {
    struct kept_message *next;
    node_id node;
    size_t size;
    uint8_t body[];
};
struct kept_queue {
    struct kept_message *head, *tail;
    uint32_t count;
    size_t bytes;
};

/* A send the core wants called back, once it is not on the stack any more. */
struct send_done {
    struct raft_io_send *req;
    raft_io_send_cb cb;
};

/* What is known of another replica of the group, beyond libraft's progress.
 * Indexes of the leader's term only; cleared when a leadership begins. */
struct group_peer {
    replica_id id;
    node_id node;
    uint64_t parked_next;  /* flow control: where to go on; 0: not parked */
    uint64_t sent_commit;  /* the commit index it was told */
    uint64_t ack_round;    /* read round it confirmed */
    uint64_t match;        /* as the core has it, kept for the state above */
    uint64_t target;       /* of being in sync: the end of the log then */
    uint64_t heard_ms;     /* 0: never in this term */
    uint64_t caught_up_ms; /* 0: never in this term */
    uint64_t sent_ms;
    uint64_t rest_round; /* it said that it rests, in this round */
    bool behind;         /* it lacks entries from before the window */
    uint64_t since_ms;   /* in this term, or not behind any more */
    uint64_t hold_index, hold_until_ms; /* promised: entries from behind it */
};

enum group_life {
    GROUP_FOUND, /* known by recovery, nobody opened it yet */
    GROUP_OPEN,
    GROUP_CLOSING /* no event reaches it any more */
};

/* A configuration as the log holds it. */
struct group_config {
    uint64_t index;
    uint64_t term;
    uint8_t *data;
    uint32_t size;
};

/* See proof.h. */
struct group_proof {
    bool missing; /* the log must reach (term, index) before it votes */
    bool unknown; /* the leader must say where that is */
    bool asking;
    uint64_t term, index;
    uint64_t own_term; /* when the group was found */
    uint64_t again_ms;
    struct rpc_call ask;
};

struct group {
    struct raft raft;
    struct raft_io io;
    struct raft_fsm fsm;
    raft_io_tick_cb core_tick;
    raft_io_recv_cb core_recv;
    struct raft_host *host;
    struct group_creation creation;
    char address[24];
    const struct group_ops *ops;
    void *sm;
    uint32_t slot; /* in host->groups */
    enum group_life life;
    bool deleting; /* closing for good */
    int in_core;   /* the core is on the stack */
    bool running, again;

    /* the log */
    uint8_t *genesis; /* entry 1: the configuration of the creation record */
    uint32_t genesis_size;
    struct entry_table table;
    uint64_t term, vote; /* as logged */
    uint64_t vote_position;
    uint64_t appended;  /* told to the state machine */
    uint64_t truncated; /* to be told; 0: nothing */
    uint64_t applied;   /* told to the state machine */
    uint64_t durable;
    struct append_queue appends;
    struct kept_queue held, gated;
    struct send_done *sends;
    uint32_t n_sends, sends_size;
    struct raft_io_snapshot_get *snapshot_get;
    raft_io_snapshot_get_cb snapshot_get_cb;

    /* what io->append copies from, set around the core's call */
    const struct iovec *propose_iov;
    int propose_n;
    const struct message_entry *staged;
    uint64_t staged_first;
    uint32_t staged_n;
    bool unreserved; /* what is staged needs no reservation */
    uint64_t reserved_bytes;
    uint32_t reserved_records;

    /* around the delivery of an append */
    bool in_append, quiet, rests;
    uint64_t append_end; /* prev_index + n_entries */
    int flipped_role;    /* own role while a vote is asked; -1 */

    /* leadership */
    struct raft_barrier barrier;
    uint64_t barrier_term; /* whose no-op was submitted */
    uint64_t noop;         /* its index */
    uint64_t leader_term;  /* of the newest leadership of this replica */
    uint64_t leader_since_ms;
    uint64_t told_commit;
    bool untold;          /* in host->untold */
    uint64_t uncommitted; /* bytes beyond the commit index */
    struct group_peer peers[GROUP_REPLICAS_MAX];
    int n_peers;
    uint64_t round;                     /* newest read round begun */
    uint64_t seen_term, seen_round;     /* as follower */
    uint64_t commit_term, commit_heard; /* as follower */
    struct group_read *reads, **reads_tail;
    struct group_role role;
    replica_id transfer_to; /* 0: none under way */
    uint64_t transfer_until_ms, transfer_sent_ms;
    uint64_t preferred_since_ms; /* its first replica is fit to lead; 0: not */

    /* time */
    uint64_t active_until_ms; /* ticked at every tick until then */
    uint64_t urgent_until_ms; /* short election time-outs until then */
    bool active, turn_queued;
    bool resting;           /* rest.h */
    uint64_t rest_since_ms; /* as leader: idle since, at this index */
    uint64_t rest_index;
    uint64_t rest_round; /* all are asked to rest in this round; 0: not */
    struct group *turn_next;

    /* settling */
    uint64_t settled, settled_term;
    struct group_config config; /* newest at or below settled */
    uint8_t *blob;
    uint32_t blob_size;
    uint64_t dirty_ms; /* since when something applied is not settled; 0 */
    bool dirty;        /* in host->dirty */
    bool settling, wanted, due;
    uint32_t settle_at; /* in the round's items, while settling */

    /* catch-up (catchup_impl.h) */
    struct transfer *transfer; /* receiving; NULL: none */
    uint64_t catchup_again_ms; /* no new one before */
    uint64_t cut_position;     /* of a log cut before the switch */
    uint64_t lease_until_ms;   /* as leader: somebody reads */
    bool leased;
    bool serving;  /* in host->serving */
    uint32_t jobs; /* of catch-up, with workers */

    struct group_proof proof;

    uint64_t woken;          /* by the log, at this position */
    struct group *next_dead; /* closed, to be freed */
};

/* A message for a group that is not here yet: its creation is on its way to
 * this broker, and the one who heard of it first already campaigns. */
struct early_message {
    struct early_message *next;
    struct group_id group;
    node_id node;
    uint64_t since_ms;
    size_t size;
    uint8_t body[];
};

/* How often a group is ticked: in every lap, in every other, not at all. */
enum group_pace { PACE_ALL, PACE_HALF, PACE_RESTING };

struct raft_wakeup {
    uint64_t position;
    struct group *group;
};

struct settle_round;
struct recovery;

/* Jobs of a settle round that run at a time: the log's writes come between
 * theirs. */
#define SETTLE_RUNNING_MAX 4

struct raft_host {
    struct raft_host_options options;
    char *dir;
    struct env *env;
    struct raft_backend backend;
    void *backend_arg;
    struct wal *wal;
    uint32_t guard_mask;
    struct group_index by_id;
    struct group **groups;
    uint32_t n_groups, groups_size;
    uint8_t *pace; /* enum group_pace of groups[i] */
    uint32_t pace_size;
    struct group **active; /* ticked at every tick */
    uint32_t n_active, active_size;
    struct group *dead;          /* closed; freed at the end of a turn */
    struct early_message *early; /* oldest first */
    uint32_t n_early;
    /* who waits for the log, in the order of positions */
    struct raft_wakeup *wakeups;
    uint32_t wakeups_size, wakeups_head, wakeups_count;
    uint64_t durable;
    uint32_t entry_bytes_max; /* payload of one entry that the log takes */
    struct group *turn_head, **turn_tail;
    struct env_deferred turn;
    /* leaders whose followers are to hear of a commit */
    struct group **untold;
    uint32_t n_untold, untold_size;
    struct env_timer tell_timer;
    uint64_t tell_next_ms; /* not before */
    bool told;             /* in this turn */
    struct env_timer ticker;
    uint32_t phase, lap; /* of ticks: a lap is all phases */
    struct group_room_wait *room_head, **room_tail;
    uint64_t uncommitted, uncommitted_max; /* bytes, of all groups */
    uint32_t transfers;                    /* under way to preferred replicas */
    bool recovered_whole;
    node_id *down; /* peers that are certainly gone */
    uint32_t n_down, down_size;
    /* catch-up */
    struct transfer *receiving;
    uint32_t n_receiving, n_fetching, catchup_reads;
    bool room_due;          /* room may have been made */
    struct group **serving; /* a follower behind, or a reader (not all are) */
    uint32_t n_serving, serving_size;
    uint64_t catchup_tokens, catchup_tokens_ms, catchup_offer_ms;
    /* settling */
    struct settle_round *settle;
    bool settle_nospace, settle_wanted; /* a group has `wanted` */
    uint32_t settle_ticks;
    uint64_t settle_next_ms; /* no round begins before */
    uint8_t *settle_scratch; /* SETTLE_RUNNING_MAX pieces of SETTLE_SCRATCH */
    bool settle_scratch_used[SETTLE_RUNNING_MAX];
    struct group **due; /* enough is unsettled, or the log wants it */
    uint32_t n_due, due_size;
    struct group **dirty; /* those with anything unsettled, and a few others */
    uint32_t n_dirty, dirty_size;
    uint64_t checkpoint_seq;
    struct unmade_group *unmade; /* their creation is damaged */
    uint32_t n_unmade;
    struct group_id *deleted; /* since the newest checkpoint */
    uint32_t n_deleted, deleted_size;
    uint64_t deleted_position; /* of the newest deletion's record */
    /* stopping */
    bool stopping, stop_due, closing, freeing;
    struct env_timer stop_timer;
    const struct recovery *recovery; /* while the log is opened */
    void (*stopped)(void *arg);
    void *stopped_arg;
    /* scratch, used within one call */
    struct message_entry entries[LIMIT_RAFT_APPEND_ENTRIES];
    struct transport_piece pieces[1 + LIMIT_RAFT_APPEND_ENTRIES];
    uint8_t
        head[MESSAGE_HEAD_MAX + LIMIT_RAFT_APPEND_ENTRIES * MESSAGE_ENTRY_SIZE];
};

/* ---- group.c ------------------------------------------------------------- */
/* Makes a group; life GROUP_FOUND. */
struct group *group_new(struct raft_host *host,
                        const struct group_creation *creation);
/* What storage knows of a group that was found; bytes are copied. */
struct group_found {
    uint64_t term, vote;
    uint64_t settled, settled_term; /* settled <= 1: nothing */
    struct group_config config;     /* at settled, a checked one */
    const uint8_t *blob;
    uint32_t blob_size;
};
void group_recover(struct group *group, const struct group_found *found);
/* The entries after `settled`, in order; takes over the place. False: it does
 * not fit what is there. */
bool group_recover_entry(struct group *group, uint64_t index, uint64_t term,
                         enum entry_type type, const struct wal_place *place);
/* Frees what group_new made; the core must be closed. */
void group_free(struct group *group);
/* Forgets what is settled and the entries: as it was created, but for term and
 * vote. Before it starts. */
void group_forget(struct group *group);
/* Starts the core from the recovered state. */
void group_start(struct group *group);
/* Drops the log's entries from `first` on, which contradict what is committed,
 * and starts the core again without them. No append may be under way. Gives the
 * position of the record. */
uint64_t group_cut(struct group *group, uint64_t first);
/* Closes the core at once. */
void group_stop(struct group *group);
struct group_peer *group_peer(struct group *group, replica_id id);
node_id group_node_of(const struct group *group, replica_id id);
/* Position in the list of replicas; n_replicas when unknown. */
int group_rank(const struct group *group, replica_id id);
/* Index of the newest entry. */
uint64_t group_last(const struct group *group);
uint64_t group_term_at(const struct group *group, uint64_t index);
bool group_is_voter(const struct raft_configuration *config, replica_id id);
void group_view(const struct group *group, uint64_t index,
                struct group_entry *out);
/* The newest configuration at or below `index`, from window or settled. */
void group_config_at(const struct group *group, uint64_t index,
                     struct group_config *out);
uint64_t group_now(const struct group *group);

/* ---- group_run.c --------------------------------------------------------- */
/* Everything that can go on, goes on: to be called after each event. */
void group_run(struct group *group);
/* At the end of a loop turn in which group_want_turn was called. */
void group_turn_end(struct group *group);
/* Tells the state machine what is new in the log, and what was cut off it. */
void group_notify_log(struct group *group);

/* ---- group_receive.c ----------------------------------------------------- */
void group_receive(struct group *group, node_id from, const uint8_t *body,
                   size_t size);
/* What was held and may reach the core now does; true when anything did. */
bool group_receive_held(struct group *group);

/* ---- group_propose.c ----------------------------------------------------- */
/* Counts again what is not known to be committed, after something changed. */
void group_note_uncommitted(struct group *group);

/* ---- group_read.c -------------------------------------------------------- */
/* Answers the reads that a majority has confirmed. */
void group_answer_reads(struct group *group);
/* Answers all reads with `status`. */
void group_fail_reads(struct group *group, enum err status);
/* As leader: asks the others to confirm the reads that came since the newest
 * round. */
void group_begin_round(struct group *group);

/* ---- group_lead.c -------------------------------------------------------- */
/* A leader this young greets replicas that have not answered it yet. */
#define GROUP_GREET_MS 3000
/* A follower heard within this time is alive. */
#define GROUP_ALIVE_MS 2000
void group_tick(struct group *group);
/* Something is under way that needs quick ticks: an election, a hand-over,
 * replicas that a young leader has not heard yet. */
bool group_is_restless(const struct group *group);
/* Without a leader, campaigns after `ms` (and a little more for replicas that
 * are less preferred), and again soon when that fails. */
void group_campaign_in(struct group *group, uint64_t ms);
/* The leader's broker is gone: elect soon, by preference. */
void group_leader_gone(struct group *group);
/* A broker is there again: where its vote was missing, elect soon. */
void group_peer_back(struct group *group, node_id node);

/* ---- group_window.c ------------------------------------------------------ */
/* As leader: a follower still reads entries up to `upto`, one that keeps up or
 * just switched to what it received. Others get a transfer. */
bool group_is_held(const struct group *group, uint64_t upto);
/* Drops settled entries up to `upto` from memory. */
void group_evict(struct group *group, uint64_t upto);
/* Keeps the window small: what is settled and not wanted by a follower that
 * keeps up leaves memory. */
void group_shrink_window(struct group *group);

/* ---- host.c -------------------------------------------------------------- */
/* A host over another backend than log and transport: for tests. */
struct raft_host *raft_host_new_over(const struct raft_host_options *options,
                                     const struct raft_backend *backend,
                                     void *arg);
/* Not while work for the end of the turn is queued. */
void raft_host_free(struct raft_host *host);
/* The log is durable up to this position. */
void raft_host_durable(struct raft_host *host, uint64_t position);
void raft_host_receive(struct raft_host *host, node_id from,
                       const struct group_id *id, const uint8_t *body,
                       size_t size);
void raft_host_tick(struct raft_host *host);
/* Calls group_run when the log is durable up to `position`. */
void raft_host_wake_at(struct raft_host *host, struct group *group,
                       uint64_t position);
/* May `g`, a leader, tell its followers of a commit now? If not, it gets a turn
 * when it may. */
bool raft_host_may_tell(struct raft_host *host, struct group *g);
bool raft_host_is_down(const struct raft_host *host, node_id node);
/* Calls back who waits for room. */
void raft_host_room(struct raft_host *host);
/* Work for the end of this turn. */
void raft_host_want_turn(struct raft_host *host);
void group_want_turn(struct group *group);
/* Ticked at every tick for `ms` from now, as long as it is restless. */
void group_activate(struct group *group, uint64_t ms);

void raft_host_add(struct raft_host *host, struct group *group);
/* Takes it out; it is freed at the end of a turn. */
void raft_host_remove(struct raft_host *host, struct group *group);

/* ---- settle.c ------------------------------------------------------------ */
/* Something of the group was applied. */
void settle_mark(struct group *group);
/* Begins a round when one is due. */
void settle_poll(struct raft_host *host);
/* Every tick: who became due by time. */
void settle_tick(struct raft_host *host);
/* The log became durable further: goes on with a round that waits for it. */
void settle_durable(struct raft_host *host);
/* Is the group due? Called now and then for each. */
void settle_check(struct group *group);
/* True while a round is under way. */
bool settle_busy(const struct raft_host *host);
/* Writes the checkpoint that was read again (blocking, before serving): the one
 * read may be in the page cache only, left by a process whose sync failed. */
MUST_USE enum err settle_checkpoint_again(struct raft_host *host);
/* Begins a round now, whatever is due. */
void settle_now(struct raft_host *host);

#endif
