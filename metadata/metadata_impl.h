/* The inside of the metadata room's leader and member, shared by its files:
 * metadata.c (state machine of the group, API), call.c (changes on their way
 * to the leader), controller.c (what only the leader does), heartbeat.c
 * (registration and heartbeats of this broker), formation.c (first start). */
#ifndef METADATA_METADATA_IMPL_H
#define METADATA_METADATA_IMPL_H

#include "base/limits.h"
#include "base/prng.h"
#include "metadata/change.h"
#include "metadata/identity.h"
#include "metadata/leadership.h"
#include "metadata/metadata.h"
#include "metadata/snapshot.h"

/* A change on its way: to the leader, again when it is lost, until its
 * deadline; then until its effect is applied here. */
enum call_state { CALL_SENDING, CALL_PAUSED, CALL_APPLYING, CALL_DONE };
struct call {
    struct call *prev, *next;
    struct metadata *m;
    struct metadata_call *user;      /* NULL: the broker's own registration */
    void (*done)(struct call *call); /* instead of user's */
    struct buffer body;
    uint64_t deadline_ms;
    enum call_state state;
    node_id asked; /* to whom it was sent, -1: nobody */
    struct rpc_call rpc;
    struct env_timer timer;
    struct change_answer answer;
};

/* What the leader knows of a broker that heartbeats to it. */
struct session {
    node_id node;
    uint64_t heard_ms;
    log_index applied;
    uint64_t proposed_ms; /* a change of its liveness, 0: none lately */
};

enum work_state { WORK_QUEUED, WORK_PROPOSED, WORK_CONFIRMING, WORK_WAITING };
struct work;

struct controller {
    bool active; /* leader, ready */
    raft_term_t term;
    struct work *works;    /* in order of arrival */
    struct work *proposed; /* the one change that is in the log, not applied */
    int n_works;
    struct session *sessions;
    int n_sessions;
    uint64_t ticked_ms;
    struct env_timer tick;
    struct buffer reports; /* batch of leadership and liveness records */
};

struct formation;
struct finishing;
struct catchup_ops;

struct metadata {
    struct env *env;
    struct metadata_options options; /* texts are copies */
    const struct metadata_ops *ops;
    void *arg;
    struct identity identity;
    struct image *image;
    struct group *group;
    struct group_role role;
    log_index applied;
    struct prng random;
    bool refused;
    struct formation *formation; /* NULL: formed */
    char waiting_for[512];

    /* work at the end of the turn */
    struct env_deferred turn;
    bool turn_queued, dead;
    int n_works_out; /* env_works under way */
    bool beat_wanted, check_wanted;

    /* calls.c */
    struct call *calls;
    int n_calls;
    bool calls_stopped;
    uint64_t next_request;

    /* heartbeat.c */
    struct uuid registration; /* request id */
    struct call *registering;
    log_index registered; /* index of our registration; 0: none yet */
    uint64_t begun_ms;    /* heartbeat_start */
    bool ready_told;
    struct env_timer heartbeat;
    struct rpc_call beat;
    bool beating, beat_again;
    node_id beat_to;
    struct leadership *leadership;

    struct controller controller;

    /* settling: the newest snapshots */
    struct snapshot_ref snapshot, snapshot_before;

    /* catchup.c: the snapshot being received */
    struct snapshot_ref receiving;
    uint64_t received, receive_next;
    struct finishing *finishing;
    bool leased; /* somebody reads our snapshots */
};

extern const struct catchup_ops metadata_catchup_ops;

/* metadata.c */
void metadata_turn_later(struct metadata *m);
/* Not more than once; the process is to end. */
void metadata_refuse(struct metadata *m, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
bool metadata_is_ready_leader(const struct metadata *m);
/* A worker's `done` begins and ends with these: false, m is gone. */
void metadata_work_begin(struct metadata *m);
bool metadata_work_end(struct metadata *m);
/* The identity names a cluster and is durable: makes the group. */
void metadata_formed(struct metadata *m);

/* call.c: `change` without request id and time-out is encoded at once. */
struct call *call_new(struct metadata *m, const struct change *change,
                      const struct uuid *request, uint32_t timeout_ms);
void calls_free(struct metadata *m);
/* Something that calls wait for happened: a leader, an entry applied. */
void calls_kick(struct metadata *m);
void calls_applied(struct metadata *m);
void calls_finish(struct metadata *m); /* at the end of the turn */
void call_drop(struct call *call);

/* heartbeat.c */
void heartbeat_start(struct metadata *m);
void heartbeat_stop(struct metadata *m);
void heartbeat_role_changed(struct metadata *m);
void heartbeat_applied(struct metadata *m);
void heartbeat_now(struct metadata *m); /* at the end of the turn */
enum heartbeat_code {
    HEARTBEAT_OK,
    HEARTBEAT_UNKNOWN, /* not registered */
    HEARTBEAT_REFUSED  /* another directory has this node id */
};

/* controller.c */
void controller_init(struct metadata *m);
void controller_free(struct metadata *m);
void controller_role_changed(struct metadata *m);
void controller_applied(struct metadata *m, const struct group_entry *entry);
void controller_check(struct metadata *m); /* waiting changes; end of turn */
void controller_serve(void *arg, struct rpc_request *request, node_id from,
                      const uint8_t *body, size_t size);
void controller_serve_heartbeat(void *arg, struct rpc_request *request,
                                node_id from, const uint8_t *body, size_t size);

/* formation.c */
/* Splits and checks options.seeds; ERR_INVALID with a sentence. */
#define SEEDS_TEXT_MAX (LIMIT_SEEDS * LIMIT_ADDRESS)
MUST_USE enum err formation_new(struct metadata *m, char *why, size_t why_size);
/* Asks nobody any more. */
void formation_stop(struct metadata *m);
void formation_free(struct metadata *m);
/* Connects to the seeds of the options, formed or not. */
void formation_add_seeds(struct metadata *m);
/* What is known of the seeds other than this broker. `foreign`: one of those
 * that belong to another cluster. */
struct seeds_heard {
    int n, n_ours, n_foreign;
    int n_silent; /* nothing was heard yet, not even that nobody is there */
    char foreign[LIMIT_ADDRESS];
};
void formation_hear_seeds(const struct metadata *m, struct seeds_heard *out);
/* True: nobody else is named. */
bool formation_is_alone(const struct metadata *m);
void formation_serve(void *arg, struct rpc_request *request, node_id from,
                     const uint8_t *body, size_t size);

#endif
