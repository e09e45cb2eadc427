/* A coordinator over one partition over a group of one replica in the simulated
 * environment, and clients that ask it. Included by one test program each.
 *
 * Requests live outside of the node; each is checked to be answered once and
 * never inside the call. Texts of an answer are copied. */
#ifndef TESTS_COORDINATOR_WORLD_H
#define TESTS_COORDINATOR_WORLD_H

#include <check.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/impl.h"
#include "tests/sim/sim_env.h"
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include "tests/unit/fake_group.h"
#pragma GCC diagnostic pop

#define INDEX 3
#define NAME_MAX_BYTES 128
#define MEMBERS_MAX 16
#define SESSION_MS 10000
#define REBALANCE_MS 20000

struct world {
    struct sim *sim;
    struct sim_node *node;
    struct coordinator_options options;
    bool stay_follower; /* at the next boot */
    int32_t segment_bytes;
    /* of the running incarnation */
    struct raft_host *host;
    struct partition_shard *shard;
    struct partition *p;
    struct coordinator *c;
};
static struct world w;
static int32_t segment_bytes; /* of worlds begun from now on; 0: large */
static int n_answers;         /* of all requests */

static inline struct text txt(const char *s)
{
    return s == NULL ? (struct text){.p = NULL, .n = -1}
                     : (struct text){.p = s, .n = (int32_t)strlen(s)};
}

static inline void told_role(void *arg, struct partition *p,
                             const struct group_role *role)
{
    (void)arg;
    coordinator_role_changed(w.c, p, INDEX, role);
}

static inline void told_applied(void *arg, struct partition *p,
                                kafka_offset base, const uint8_t *batch,
                                uint32_t size)
{
    (void)arg;
    coordinator_applied(w.c, p, INDEX, base, batch, size);
}

static inline void told_closed(void *arg, struct partition *p)
{
    (void)arg;
    if (w.c != NULL) {
        coordinator_partition_closed(w.c, p, INDEX);
    }
    w.p = NULL;
}

static inline void boot(struct env *env, void *arg)
{
    struct raft_host_options raft = {.env = env, .dir = "/data/raft"};
    struct partition_shard_options options = {.env = env,
                                              .dir = "/data/topics",
                                              .open_files_max = 8,
                                              .read_bytes_max = 1 << 20};
    struct group_creation creation = {.id = {{{7}}, INDEX}, .self = 5};
    struct partition_ops ops = {.role_changed = told_role,
                                .applied = told_applied,
                                .closed = told_closed};
    struct partition_config config = {
        .cleanup_compact = true,
        .retention_ms = -1,
        .retention_bytes = -1,
        .segment_bytes = w.segment_bytes,
        .min_cleanable_dirty_ratio = 0.5,
        .delete_retention_ms = 5000,
        .segment_ms = INT64_MAX,
        .max_message_bytes = 1 << 20,
        .timestamp_before_max_ms = INT64_MAX,
        .timestamp_after_max_ms = INT64_MAX,
        .min_insync_replicas = 1,
        .producer_id_expiration_ms = 86400000,
    };
    (void)arg;
    ck_assert_int_eq(raft_host_new(&raft, &w.host), ERR_OK);
    options.host = w.host;
    w.options.env = env;
    w.c = coordinator_new(&w.options);
    w.shard = partition_shard_new(&options);
    ck_assert_int_eq(partition_open(w.shard, &creation, "__consumer_offsets-3",
                                    &config, &ops, NULL, &w.p),
                     ERR_OK);
    if (!w.stay_follower) {
        fake_lead(w.host, true);
    }
}

static inline void run_ms(uint64_t ms)
{
    sim_run_for(w.sim, ms * SIM_MS);
}

static inline void world_begin(uint64_t seed, uint32_t delay_ms)
{
    memset(&w, 0, sizeof w);
    n_answers = 0;
    w.sim = sim_new(seed);
    w.node = sim_node_add(w.sim, "a", 1);
    w.options = (struct coordinator_options){
        .initial_rebalance_delay_ms = delay_ms,
        .session_timeout_min_ms = 1000,
        .session_timeout_max_ms = 1800000,
        .group_size_max = INT32_MAX,
        .offsets_retention_ms = INT64_C(7) * 86400000,
        .offset_metadata_bytes_max = 4096,
    };
    w.segment_bytes = segment_bytes == 0 ? 1 << 20 : segment_bytes;
    sim_node_start(w.node, boot, NULL);
    run_ms(100);
}

static inline void call_stop(struct env *env, void *arg)
{
    (void)env;
    (void)arg;
    coordinator_free(w.c);
    w.c = NULL;
}

/* Frees the coordinator first: everything parked must be answered by that. */
static inline void world_end(void)
{
    if (sim_node_up(w.node)) {
        sim_node_call(w.node, 0, call_stop, NULL);
        run_ms(100);
    }
    sim_free(w.sim);
}

static inline void call_lead(struct env *env, void *arg)
{
    (void)env;
    fake_lead(w.host, arg != NULL);
}

static inline void lose_leadership(void)
{
    sim_node_call(w.node, 0, call_lead, NULL);
}

static inline void gain_leadership(void)
{
    sim_node_call(w.node, 0, call_lead, &w);
}

static inline void call_settle_evict(struct env *env, void *arg)
{
    (void)env;
    if (arg == NULL) {
        (void)fake_settle(w.host);
    } else {
        fake_evict(w.host, (log_index){UINT64_MAX});
    }
}

/* The log is read from files from now on. */
static inline void settle_and_evict(void)
{
    sim_node_call(w.node, 0, call_settle_evict, NULL);
    run_ms(100);
    sim_node_call(w.node, 0, call_settle_evict, &w);
}

static inline void call_release(struct env *env, void *arg)
{
    (void)env;
    (void)arg;
    fake_release(w.host);
}

static inline void hold_commit(bool hold)
{
    if (hold) {
        w.host->hold_commit = true;
    } else {
        sim_node_call(w.node, 0, call_release, NULL);
    }
}

static inline void restart(enum sim_crash how)
{
    sim_node_crash(w.node, how);
    sim_node_restart(w.node);
    run_ms(200);
}

/* ---- one request --------------------------------------------------------- */
enum kind { JOIN, SYNC, LEAVE, COMMIT, FETCH, DESCRIBE, DELETE, OFFSET_DELETE };

struct ask_member {
    char id[NAME_MAX_BYTES], instance[NAME_MAX_BYTES], metadata[64];
    char assignment[64];
};

struct ask {
    enum kind kind;
    bool in_call;
    int done;
    unsigned starts; /* of the node, when it was asked */
    char group[64], member[NAME_MAX_BYTES], instance[64], text[64];
    union {
        struct coordinator_join join;
        struct coordinator_sync sync;
        struct coordinator_leave leave;
        struct coordinator_commit commit;
        struct coordinator_fetch fetch;
        struct coordinator_describe describe;
        struct coordinator_delete delete;
        struct coordinator_offset_delete offset_delete;
    };
    struct coordinator_protocol protocols[4];
    char names[4][16];
    struct coordinator_assignment assignments[MEMBERS_MAX];
    struct ask_member to[MEMBERS_MAX];
    struct coordinator_leaving leaving[MEMBERS_MAX];
    enum kafka_error member_errors[MEMBERS_MAX];
    struct coordinator_commit_offset commits[8];
    struct coordinator_fetched_offset fetches[8];
    struct coordinator_deleted_offset deleted[4];
    /* out */
    enum kafka_error error;
    int generation;
    char out_member[NAME_MAX_BYTES], leader[NAME_MAX_BYTES];
    char protocol[64], protocol_type[64], state[64];
    char assignment[64];
    bool skip;
    int n_members;
    struct ask_member members[MEMBERS_MAX];
    int n_fetched;
    struct {
        char topic[64], metadata[64];
        int32_t partition;
        int64_t offset;
    } fetched[64];
};

static inline void keep(char *out, size_t size, const void *p, int32_t n)
{
    ck_assert(n < (int32_t)size);
    if (n > 0) {
        memcpy(out, p, (size_t)n);
    }
    out[n < 0 ? 0 : n] = '\0';
}

#define KEEP(field, from) keep((field), sizeof(field), (from).p, (from).n)

static inline void answered(struct ask *a)
{
    ck_assert_msg(!a->in_call, "answered inside the call");
    ck_assert_msg(a->done == 0, "answered twice");
    a->done++;
    n_answers++;
}

static inline void keep_members(struct ask *a, int n,
                                const struct coordinator_member *m)
{
    ck_assert_int_le(n, MEMBERS_MAX);
    a->n_members = n;
    for (int i = 0; i < n; i++) {
        KEEP(a->members[i].id, m[i].member_id);
        KEEP(a->members[i].instance, m[i].instance_id);
        KEEP(a->members[i].metadata, m[i].metadata);
        KEEP(a->members[i].assignment, m[i].assignment);
    }
}

static inline void join_cb(struct coordinator_join *req)
{
    struct ask *a = req->arg;
    answered(a);
    a->error = req->error;
    a->generation = req->generation_id;
    a->skip = req->skip_assignment;
    KEEP(a->out_member, req->out_member_id);
    KEEP(a->leader, req->leader);
    KEEP(a->protocol, req->protocol_name);
    KEEP(a->protocol_type, req->out_protocol_type);
    keep_members(a, req->n_members, req->members);
}

static inline void sync_cb(struct coordinator_sync *req)
{
    struct ask *a = req->arg;
    answered(a);
    a->error = req->error;
    KEEP(a->protocol, req->out_protocol_name);
    KEEP(a->protocol_type, req->out_protocol_type);
    KEEP(a->assignment, req->assignment);
}

static inline void leave_cb(struct coordinator_leave *req)
{
    struct ask *a = req->arg;
    answered(a);
    a->error = req->error;
}

static inline void commit_cb(struct coordinator_commit *req)
{
    struct ask *a = req->arg;
    answered(a);
    a->error = req->error != KAFKA_NONE ? req->error : req->offsets[0].error;
}

static inline void fetch_cb(struct coordinator_fetch *req)
{
    struct ask *a = req->arg;
    answered(a);
    a->error = req->error;
    a->n_fetched = req->error == KAFKA_NONE ? req->n_offsets : 0;
    ck_assert_int_le(a->n_fetched, 64);
    for (int i = 0; i < a->n_fetched; i++) {
        KEEP(a->fetched[i].topic, req->offsets[i].topic);
        KEEP(a->fetched[i].metadata, req->offsets[i].metadata);
        a->fetched[i].partition = req->offsets[i].partition;
        a->fetched[i].offset = req->offsets[i].offset.v;
    }
}

static inline void describe_cb(struct coordinator_describe *req)
{
    struct ask *a = req->arg;
    answered(a);
    a->error = req->view.error;
    if (a->error == KAFKA_NONE) {
        KEEP(a->state, req->view.state);
        KEEP(a->protocol, req->view.protocol);
        KEEP(a->protocol_type, req->view.protocol_type);
        keep_members(a, req->view.n_members, req->view.members);
    }
}

static inline void delete_cb(struct coordinator_delete *req)
{
    struct ask *a = req->arg;
    answered(a);
    a->error = req->error;
}

static inline void offset_delete_cb(struct coordinator_offset_delete *req)
{
    struct ask *a = req->arg;
    answered(a);
    a->error = req->error;
}

static inline void call_ask(struct env *env, void *arg)
{
    struct ask *a = arg;
    (void)env;
    a->in_call = true;
    a->starts = sim_node_starts(w.node);
    switch (a->kind) {
        case JOIN:
            coordinator_join(w.c, &a->join);
            break;
        case SYNC:
            coordinator_sync(w.c, &a->sync);
            break;
        case LEAVE:
            coordinator_leave(w.c, &a->leave);
            break;
        case COMMIT:
            coordinator_commit(w.c, &a->commit);
            break;
        case FETCH:
            coordinator_fetch(w.c, &a->fetch);
            break;
        case DESCRIBE:
            coordinator_describe(w.c, &a->describe);
            break;
        case DELETE:
            coordinator_delete(w.c, &a->delete);
            break;
        case OFFSET_DELETE:
            coordinator_offset_delete(w.c, &a->offset_delete);
            break;
    }
    a->in_call = false;
}

static inline void set(char *out, size_t size, const char *s)
{
    ck_assert_int_lt((int)snprintf(out, size, "%s", s), (int)size);
}

static inline struct ask *ask_new(enum kind kind, const char *group)
{
    struct ask *a = calloc(1, sizeof *a);
    a->kind = kind;
    set(a->group, sizeof a->group, group);
    return a;
}

static inline void ask_send(struct ask *a)
{
    sim_node_call(w.node, 0, call_ask, a);
}

/* ---- JoinGroup ----------------------------------------------------------- */
/* `protocols` as "range,sticky"; metadata is the same for all of them. */
static inline struct ask *join_new(const char *group, const char *member,
                                   const char *instance, int version,
                                   const char *protocols, const char *metadata)
{
    struct ask *a = ask_new(JOIN, group);
    set(a->member, sizeof a->member, member);
    set(a->text, sizeof a->text, metadata);
    if (instance != NULL) {
        set(a->instance, sizeof a->instance, instance);
    }
    int n = 0;
    for (const char *at = protocols; *at != '\0'; n++) {
        size_t len = strcspn(at, ",");
        keep(a->names[n], sizeof a->names[n], at, (int32_t)len);
        a->protocols[n].name = txt(a->names[n]);
        a->protocols[n].metadata = (struct blob){.p = (const uint8_t *)a->text,
                                                 .n = (int32_t)strlen(a->text)};
        at += len + (at[len] == ',');
    }
    a->join = (struct coordinator_join){
        .index = INDEX,
        .api_version = (int16_t)version,
        .group_id = txt(a->group),
        .member_id = txt(a->member),
        .instance_id = txt(instance == NULL ? NULL : a->instance),
        .protocol_type = txt("consumer"),
        .client_id = txt("client"),
        .client_host = txt("/1.2.3.4"),
        .session_timeout_ms = SESSION_MS,
        .rebalance_timeout_ms = REBALANCE_MS,
        .n_protocols = n,
        .protocols = a->protocols,
        .cb = join_cb,
        .arg = a,
    };
    return a;
}

static inline struct ask *join_as(const char *group, const char *member,
                                  const char *instance, int version)
{
    struct ask *a =
        join_new(group, member, instance, version, "range", "topics");
    ask_send(a);
    return a;
}

/* A dynamic member of a version that needs no id first. */
static inline struct ask *join(const char *group, const char *member)
{
    return join_as(group, member, NULL, 3);
}

/* ---- SyncGroup and the others -------------------------------------------- */
static inline struct ask *sync_new(const struct ask *joined)
{
    struct ask *a = ask_new(SYNC, joined->group);
    set(a->member, sizeof a->member, joined->out_member);
    set(a->instance, sizeof a->instance, joined->instance);
    a->sync = (struct coordinator_sync){
        .index = INDEX,
        .api_version = 5,
        .group_id = txt(a->group),
        .member_id = txt(a->member),
        .instance_id = txt(a->instance[0] == '\0' ? NULL : a->instance),
        .protocol_type = txt(NULL),
        .protocol_name = txt(NULL),
        .generation_id = joined->generation,
        .assignments = a->assignments,
        .cb = sync_cb,
        .arg = a,
    };
    return a;
}

/* The leader's plan: member k of its list gets "<generation>/<member>". */
static inline struct ask *sync_as(const struct ask *joined)
{
    struct ask *a = sync_new(joined);
    for (int i = 0; i < joined->n_members && !joined->skip; i++) {
        set(a->to[i].id, sizeof a->to[i].id, joined->members[i].id);
        snprintf(a->to[i].assignment, sizeof a->to[i].assignment, "%d/%.50s",
                 joined->generation, joined->members[i].id);
        a->assignments[i].member_id = txt(a->to[i].id);
        a->assignments[i].assignment =
            (struct blob){.p = (const uint8_t *)a->to[i].assignment,
                          .n = (int32_t)strlen(a->to[i].assignment)};
        a->sync.n_assignments++;
    }
    ask_send(a);
    return a;
}

struct beat {
    const struct ask *joined;
    enum kafka_error error;
};

static inline void call_beat(struct env *env, void *arg)
{
    struct beat *b = arg;
    const struct ask *j = b->joined;
    (void)env;
    b->error = coordinator_heartbeat(
        w.c, INDEX, txt(j->group), txt(j->out_member),
        txt(j->instance[0] == '\0' ? NULL : j->instance), j->generation);
}

static inline enum kafka_error heartbeat(const struct ask *joined)
{
    struct beat b = {.joined = joined};
    sim_node_call(w.node, 0, call_beat, &b);
    return b.error;
}

static inline struct ask *leave_as(const char *group, const char *member,
                                   const char *instance)
{
    struct ask *a = ask_new(LEAVE, group);
    set(a->member, sizeof a->member, member);
    if (instance != NULL) {
        set(a->instance, sizeof a->instance, instance);
    }
    a->leaving[0] = (struct coordinator_leaving){
        .member_id = txt(a->member),
        .instance_id = txt(instance == NULL ? NULL : a->instance),
        .reason = txt(NULL)};
    a->leave = (struct coordinator_leave){
        .index = INDEX,
        .api_version = 5,
        .group_id = txt(a->group),
        .n_members = 1,
        .members = a->leaving,
        .member_errors = a->member_errors,
        .cb = leave_cb,
        .arg = a,
    };
    ask_send(a);
    return a;
}

static inline struct ask *commit_new(const char *group, const char *member,
                                     int generation, const char *topic,
                                     int32_t partition, int64_t offset)
{
    struct ask *a = ask_new(COMMIT, group);
    set(a->member, sizeof a->member, member);
    set(a->text, sizeof a->text, topic);
    a->commits[0] = (struct coordinator_commit_offset){
        .topic = txt(a->text),
        .partition = partition,
        .offset = {offset},
        .leader_epoch = 4,
        .metadata = txt("note"),
    };
    a->commit = (struct coordinator_commit){
        .index = INDEX,
        .api_version = 8,
        .group_id = txt(a->group),
        .member_id = txt(a->member),
        .instance_id = txt(NULL),
        .generation_id = generation,
        .n_offsets = 1,
        .offsets = a->commits,
        .cb = commit_cb,
        .arg = a,
    };
    return a;
}

static inline struct ask *commit(const char *group, const char *member,
                                 int generation, const char *topic,
                                 int32_t partition, int64_t offset)
{
    struct ask *a =
        commit_new(group, member, generation, topic, partition, offset);
    ask_send(a);
    return a;
}

/* `topic` NULL: all. */
static inline struct ask *fetch(const char *group, const char *topic,
                                int32_t partition)
{
    struct ask *a = ask_new(FETCH, group);
    if (topic != NULL) {
        set(a->text, sizeof a->text, topic);
        a->fetches[0].topic = txt(a->text);
        a->fetches[0].partition = partition;
    }
    a->fetch = (struct coordinator_fetch){
        .index = INDEX,
        .api_version = 8,
        .group_id = txt(a->group),
        .member_id = txt(NULL),
        .member_epoch = -1,
        .all = topic == NULL,
        .n_offsets = topic == NULL ? 0 : 1,
        .offsets = topic == NULL ? NULL : a->fetches,
        .cb = fetch_cb,
        .arg = a,
    };
    ask_send(a);
    return a;
}

static inline struct ask *describe(const char *group)
{
    struct ask *a = ask_new(DESCRIBE, group);
    a->describe = (struct coordinator_describe){
        .index = INDEX,
        .api_version = 6,
        .group_id = txt(a->group),
        .cb = describe_cb,
        .arg = a,
    };
    ask_send(a);
    return a;
}

static inline struct ask *delete_group(const char *group)
{
    struct ask *a = ask_new(DELETE, group);
    a->delete = (struct coordinator_delete){
        .index = INDEX,
        .group_id = txt(a->group),
        .cb = delete_cb,
        .arg = a,
    };
    ask_send(a);
    return a;
}

/* Of one partition; its own error is in a->deleted[0]. */
static inline struct ask *offset_delete(const char *group, const char *topic,
                                        int32_t partition)
{
    struct ask *a = ask_new(OFFSET_DELETE, group);
    set(a->text, sizeof a->text, topic);
    a->deleted[0].topic = txt(a->text);
    a->deleted[0].partition = partition;
    a->offset_delete = (struct coordinator_offset_delete){
        .index = INDEX,
        .group_id = txt(a->group),
        .n_offsets = 1,
        .offsets = a->deleted,
        .cb = offset_delete_cb,
        .arg = a,
    };
    ask_send(a);
    return a;
}

/* Answered, and how; frees it. */
static inline enum kafka_error outcome(struct ask *a)
{
    run_ms(20);
    ck_assert_int_eq(a->done, 1);
    enum kafka_error e = a->error;
    if (a->kind == LEAVE && e == KAFKA_NONE) {
        e = a->member_errors[0];
    }
    if (a->kind == OFFSET_DELETE && e == KAFKA_NONE) {
        e = a->deleted[0].error;
    }
    free(a);
    return e;
}

static inline int64_t committed(const char *group, const char *topic,
                                int32_t partition)
{
    struct ask *a = fetch(group, topic, partition);
    run_ms(20);
    ck_assert_int_eq(a->done, 1);
    ck_assert_int_eq(a->error, KAFKA_NONE);
    int64_t offset = a->fetched[0].offset;
    free(a);
    return offset;
}

/* "Stable", or "" when there is no such group. */
static inline const char *state_of(const char *group)
{
    static char state[64];
    struct ask *a = describe(group);
    run_ms(20);
    ck_assert_int_eq(a->done, 1);
    set(state, sizeof state, a->state);
    free(a);
    return state;
}

/* ---- the whole state as text --------------------------------------------- */
__attribute__((format(printf, 3, 4))) static inline void dump_add(
    char *out, size_t size, const char *format, ...)
{
    size_t n = strlen(out);
    va_list args;
    va_start(args, format);
    vsnprintf(out + n, size - n, format, args);
    va_end(args);
    ck_assert_uint_lt(strlen(out), size - 1);
}

static inline void call_dump(struct env *env, void *arg)
{
    char *out = arg;
    size_t size = 65536;
    struct group_partition *gp = NULL;
    (void)env;
    ck_assert_int_eq(partition_live(w.c, INDEX, &gp), KAFKA_NONE);
    for (struct classic_group *g = gp->groups; g != NULL; g = g->hh.next) {
        dump_add(out, size, "%s %s gen %d type %s protocol %s leader %s\n",
                 g->id.p, classic_group_state(g), (int)g->generation,
                 g->protocol_type.p,
                 g->protocol.p == NULL ? "-" : g->protocol.p,
                 g->leader.p == NULL ? "-" : g->leader.p);
        for (struct group_member *m = g->members; m != NULL; m = m->hh.next) {
            struct text sub = group_member_subscription(m, &g->protocol);
            dump_add(out, size, " %s/%s %s %s %d %d %.*s %.*s\n", m->id.p,
                     m->instance_id.p == NULL ? "-" : m->instance_id.p,
                     m->client_id.p, m->client_host.p,
                     (int)m->session_timeout_ms, (int)m->rebalance_timeout_ms,
                     (int)sub.n, sub.p, (int)m->assignment.n, m->assignment.p);
        }
        for (struct committed_offset *o = g->offsets; o != NULL;
             o = o->hh.next) {
            dump_add(out, size, " %s-%d: %lld %d %s %lld\n", o->topic.p,
                     (int)o->partition, (long long)o->offset.v,
                     (int)o->leader_epoch, o->metadata.p,
                     (long long)o->commit_timestamp_ms);
        }
    }
}

static inline char *dump(void)
{
    char *out = calloc(1, 65536);
    sim_node_call(w.node, 0, call_dump, out);
    return out;
}

#endif
