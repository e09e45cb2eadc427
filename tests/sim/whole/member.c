/* A member of a classic group: finds its coordinator, joins, syncs, asks where
 * the group stands, reads, commits, beats. Now and then it leaves, forgets who
 * it is, or falls silent and comes back as if nothing had happened. What the
 * coordinator says is compared with what the group knows (group.c). */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "schema/find_coordinator.h"
#include "schema/heartbeat.h"
#include "schema/join_group.h"
#include "schema/leave_group.h"
#include "schema/offset_commit.h"
#include "schema/offset_fetch.h"
#include "schema/sync_group.h"
#include "tests/sim/whole/impl.h"

#define ID_MAX 120
#define PROTOCOL "range"
#define TYPE "consumer"

enum member_state {
    MEMBER_JOINS,
    MEMBER_SYNCS,
    MEMBER_ASKS, /* where the group stands */
    MEMBER_READS,
    MEMBER_AWAY, /* until back_ns */
};

struct member {
    struct consumer *consumer;
    struct client *client; /* the consumer's */
    struct client coord;   /* connections to coordinators */
    int at, group;
    bool is_static;
    char group_id[16], instance[16], id[ID_MAX];
    int64_t incarnations; /* ids that were asked for */
    enum member_state state;
    bool asking;     /* one request at a time */
    bool late;       /* a commit of the generation before is to be sent */
    int coordinator; /* broker; -1: not known */
    int32_t generation;
    uint32_t session_ms, rebalance_ms;
    uint64_t back_ns, beat_ns, commit_ns, mood_ns;
    uint64_t plan; /* as leader: number of the plan to be sent, 0: none */
    struct group_plan planned;
    int64_t keys[GROUPS_MAX * GROUP_MEMBERS_MAX * 8];
    char ids[GROUPS_MAX * GROUP_MEMBERS_MAX * 8][ID_MAX];
    int n_ids;
    bool mine[PARTS_MAX];
    int64_t committed[PARTS_MAX];
    struct env_timer timer;
};

static uint64_t now_ns(const struct member *m)
{
    return sim_now_ns(m->coord.world->sim);
}

static void step_soon(struct member *m, uint64_t ms)
{
    env_timer_start(&m->timer, ms);
}

static struct wire_str instance_of(const struct member *m)
{
    return m->is_static ? wire_str_of(m->instance) : WIRE_NULL_STR;
}

/* Who it is for the plan: each id that a coordinator may have made counts. */
static int64_t key_of(const struct member *m)
{
    return (int64_t)m->at * 1000000 + (m->is_static ? 0 : m->incarnations);
}

/* ---- in and out ---------------------------------------------------------- */
static void drop_parts(struct member *m)
{
    for (int i = 0; i < PARTS_MAX; i++) {
        if (m->mine[i]) {
            m->mine[i] = false;
            consumer_revoke(m->consumer, i);
        }
    }
}

static void rejoin(struct member *m, bool forget_id)
{
    drop_parts(m);
    if (forget_id) {
        m->id[0] = '\0';
    }
    m->plan = 0;
    m->state = MEMBER_JOINS;
}

/* What any answer may say; false: it is nothing to go on after. */
static bool take_error(struct member *m, enum kafka_error e)
{
    if (e == KAFKA_NONE) {
        return true;
    }
    if (e == KAFKA_NOT_COORDINATOR || e == KAFKA_COORDINATOR_NOT_AVAILABLE ||
        e == KAFKA_REQUEST_TIMED_OUT) {
        m->coordinator = -1;
    } else if (e == KAFKA_REBALANCE_IN_PROGRESS) {
        rejoin(m, false);
    } else if (e == KAFKA_ILLEGAL_GENERATION) {
        rejoin(m, prng_chance(&m->coord.prng, 1, 2));
    } else if (e == KAFKA_UNKNOWN_MEMBER_ID || e == KAFKA_FENCED_INSTANCE_ID ||
               e == KAFKA_GROUP_ID_NOT_FOUND) {
        rejoin(m, true);
    } else if (e != KAFKA_COORDINATOR_LOAD_IN_PROGRESS) {
        sim_fail(m->coord.world->sim, "%s in state %d: %s", m->coord.name,
                 (int)m->state, kafka_error_name((int16_t)e));
    }
    return false;
}

/* The request came to an end; true: with an answer. */
static bool answered(struct member *m, const struct answer *a)
{
    m->asking = false;
    step_soon(m, prng_between(&m->coord.prng, 1, 100));
    if (a->fate != FATE_ANSWERED) {
        m->coordinator = -1;
        return false;
    }
    return true;
}

static void ask(struct member *m, int16_t api, const void *q, answer_cb cb)
{
    m->asking = true;
    client_ask(&m->coord, m->coordinator, api, q, cb, m);
}

/* ---- FindCoordinator ----------------------------------------------------- */
static void find_done(void *arg, const struct answer *a)
{
    struct member *m = arg;
    if (!answered(m, a)) {
        return;
    }
    const struct find_coordinator_response *in = a->response;
    int16_t e = in->error_code;
    int32_t node = in->node_id;
    if (a->version >= 4) {
        if (in->n_coordinators != 1 ||
            !wire_str_is(in->coordinators[0].key, m->group_id)) {
            sim_fail(m->coord.world->sim, "%s: another coordinator's answer",
                     m->coord.name);
        }
        e = in->coordinators[0].error_code;
        node = in->coordinators[0].node_id;
    }
    if (take_error(m, (enum kafka_error)e)) {
        if (node < 1 || node > m->coord.world->plan.n_brokers) {
            sim_fail(m->coord.world->sim, "%s: coordinator %d", m->coord.name,
                     node);
        }
        m->coordinator = node - 1;
    }
}

static void find(struct member *m)
{
    struct find_coordinator_request q;
    struct wire_str key = wire_str_of(m->group_id);
    find_coordinator_request_init(&q);
    q.key = key;
    q.coordinator_keys = &key;
    q.n_coordinator_keys = 1;
    m->coordinator = client_any_broker(&m->coord);
    ask(m, API_FIND_COORDINATOR, &q, find_done);
    m->coordinator = -1;
}

/* ---- JoinGroup ----------------------------------------------------------- */
/* Kafka's form of a subscription; its user data is the member's key. */
static size_t subscription(const struct member *m, uint8_t *out)
{
    struct wire_writer w;
    const struct plan *plan = &m->coord.world->plan;
    char name[16];
    wire_writer_init(&w, 0);
    wire_write_i16(&w, 0);
    wire_write_i32(&w, plan->n_topics);
    for (int t = 0; t < plan->n_topics; t++) {
        topic_name(t, name);
        wire_write_string(&w, wire_str_of(name), false, false);
    }
    wire_write_i32(&w, 8);
    wire_write_i64(&w, key_of(m));
    size_t n = w.size;
    wire_writer_copy(&w, out);
    wire_writer_free(&w);
    return n;
}

static int64_t subscription_key(struct member *m, struct wire_bytes in)
{
    struct wire_reader r;
    char name[16];
    wire_reader_init(&r, in.p, in.n < 0 ? 0 : (size_t)in.n);
    wire_read_i16(&r);
    int32_t n = wire_read_i32(&r);
    for (int32_t t = 0; t < n && r.err == ERR_OK; t++) {
        topic_name(t, name);
        if (!wire_str_is(wire_read_string(&r, false, false), name)) {
            wire_fail(&r, ERR_CORRUPT);
        }
    }
    int32_t size = wire_read_i32(&r);
    int64_t key = wire_read_i64(&r);
    if (r.err != ERR_OK || size != 8 || wire_left(&r) != 0) {
        sim_fail(m->coord.world->sim, "%s: a subscription changed",
                 m->coord.name);
    }
    return key;
}

/* As the leader: who is to read what. */
static void make_plan(struct member *m, const struct join_group_response *in)
{
    const struct world *w = m->coord.world;
    bool me = false;
    if (in->n_members < 1 ||
        in->n_members > (int)(sizeof m->keys / sizeof m->keys[0])) {
        sim_fail(w->sim, "%s leads %d members", m->coord.name, in->n_members);
    }
    m->n_ids = in->n_members;
    for (int i = 0; i < in->n_members; i++) {
        m->keys[i] = subscription_key(m, in->members[i].metadata);
        snprintf(m->ids[i], ID_MAX, "%.*s", (int)in->members[i].member_id.n,
                 in->members[i].member_id.p);
        me |= m->keys[i] == key_of(m) && strcmp(m->ids[i], m->id) == 0;
        for (int k = 0; k < i; k++) {
            if (m->keys[i] == m->keys[k] || !strcmp(m->ids[i], m->ids[k])) {
                sim_fail(w->sim, "%s: member %s is there twice", m->coord.name,
                         m->ids[i]);
            }
        }
    }
    if (!me) {
        sim_fail(w->sim, "%s leads, but is no member", m->coord.name);
    }
    m->planned.generation = in->generation_id;
    for (int i = 0; i < PARTS_MAX; i++) {
        m->planned.owner[i] = -1;
        if (part_topic(i) < w->plan.n_topics &&
            part_index(i) < w->n_parts_of[part_topic(i)]) {
            m->planned.owner[i] =
                m->keys[prng_below(&m->coord.prng, (uint64_t)m->n_ids)];
        }
    }
    m->plan = group_planned(m->coord.world, m->group, &m->planned);
}

static void join_done(void *arg, const struct answer *a)
{
    struct member *m = arg;
    if (!answered(m, a)) {
        return;
    }
    const struct join_group_response *in = a->response;
    enum kafka_error e = (enum kafka_error)in->error_code;
    if (e == KAFKA_NONE || e == KAFKA_MEMBER_ID_REQUIRED) {
        if (in->member_id.n <= 0 || in->member_id.n >= ID_MAX) {
            sim_fail(m->coord.world->sim, "%s: a member id of %d bytes",
                     m->coord.name, in->member_id.n);
        }
        snprintf(m->id, ID_MAX, "%.*s", (int)in->member_id.n, in->member_id.p);
    }
    if (e == KAFKA_MEMBER_ID_REQUIRED || !take_error(m, e)) {
        return;
    }
    if (in->generation_id < 1 || !wire_str_is(in->protocol_name, PROTOCOL)) {
        sim_fail(m->coord.world->sim, "%s joined generation %d", m->coord.name,
                 in->generation_id);
    }
    m->generation = in->generation_id;
    m->plan = 0;
    m->n_ids = 0;
    if (wire_str_is(in->leader, m->id) && !in->skip_assignment) {
        make_plan(m, in);
    } else if (in->n_members != 0 && !wire_str_is(in->leader, m->id)) {
        sim_fail(m->coord.world->sim, "%s follows, but sees %d members",
                 m->coord.name, in->n_members);
    }
    m->state = MEMBER_SYNCS;
}

static void join(struct member *m)
{
    struct join_group_request q;
    struct join_group_request_protocol protocol;
    uint8_t bytes[256];
    if (m->id[0] == '\0') {
        m->incarnations++;
    }
    join_group_request_init(&q);
    q.group_id = wire_str_of(m->group_id);
    q.session_timeout_ms = (int32_t)m->session_ms;
    q.rebalance_timeout_ms = (int32_t)m->rebalance_ms;
    q.member_id = wire_str_of(m->id);
    q.group_instance_id = instance_of(m);
    q.protocol_type = WIRE_STR(TYPE);
    protocol.name = WIRE_STR(PROTOCOL);
    protocol.metadata.p = bytes;
    protocol.metadata.n = (int32_t)subscription(m, bytes);
    q.protocols = &protocol;
    q.n_protocols = 1;
    ask(m, API_JOIN_GROUP, &q, join_done);
}

/* ---- SyncGroup ----------------------------------------------------------- */
static void assignment(struct member *m, int64_t key, struct wire_writer *w)
{
    const struct plan *plan = &m->coord.world->plan;
    char name[16];
    wire_write_i16(w, 0);
    wire_write_i32(w, plan->n_topics);
    for (int t = 0; t < plan->n_topics; t++) {
        int32_t n = 0;
        for (int k = 0; k < TOPIC_PARTITIONS_MAX; k++) {
            n += m->planned.owner[part_of(t, k)] == key;
        }
        topic_name(t, name);
        wire_write_string(w, wire_str_of(name), false, false);
        wire_write_i32(w, n);
        for (int k = 0; k < TOPIC_PARTITIONS_MAX; k++) {
            if (m->planned.owner[part_of(t, k)] == key) {
                wire_write_i32(w, k);
            }
        }
    }
    wire_write_i32(w, 8);
    wire_write_i64(w, (int64_t)m->plan);
}

static void take_assignment(struct member *m, struct wire_bytes in)
{
    struct wire_reader r;
    struct world *w = m->coord.world;
    bool given[PARTS_MAX] = {false};
    wire_reader_init(&r, in.p, in.n < 0 ? 0 : (size_t)in.n);
    wire_read_i16(&r);
    int32_t topics = wire_read_i32(&r);
    for (int32_t t = 0; t < topics && r.err == ERR_OK; t++) {
        int topic = topic_find(wire_read_string(&r, false, false));
        int32_t n = wire_read_i32(&r);
        for (int32_t k = 0; k < n && r.err == ERR_OK; k++) {
            int32_t index = wire_read_i32(&r);
            if (topic < 0 || index < 0 || index >= TOPIC_PARTITIONS_MAX) {
                wire_fail(&r, ERR_CORRUPT);
                break;
            }
            given[part_of(topic, index)] = true;
        }
    }
    wire_read_i32(&r);
    uint64_t plan = (uint64_t)wire_read_i64(&r);
    if (r.err != ERR_OK || wire_left(&r) != 0) {
        sim_fail(w->sim, "%s: an assignment of %d bytes that nobody made",
                 m->coord.name, in.n);
    }
    group_synced(w, m->group, m->generation, plan, key_of(m), given);
    memcpy(m->mine, given, sizeof given);
}

static void sync_done(void *arg, const struct answer *a)
{
    struct member *m = arg;
    if (!answered(m, a)) {
        return;
    }
    const struct sync_group_response *in = a->response;
    if (take_error(m, (enum kafka_error)in->error_code)) {
        take_assignment(m, in->assignment);
        m->state = MEMBER_ASKS;
    }
}

static void sync(struct member *m)
{
    struct sync_group_request q;
    struct sync_group_request_assignment all[64];
    struct wire_writer w[64];
    sync_group_request_init(&q);
    q.group_id = wire_str_of(m->group_id);
    q.generation_id = m->generation;
    q.member_id = wire_str_of(m->id);
    q.group_instance_id = instance_of(m);
    q.protocol_type = WIRE_STR(TYPE);
    q.protocol_name = WIRE_STR(PROTOCOL);
    q.assignments = all;
    q.n_assignments = m->plan == 0 ? 0 : m->n_ids;
    for (int i = 0; i < q.n_assignments; i++) {
        wire_writer_init(&w[i], 0);
        assignment(m, m->keys[i], &w[i]);
        uint8_t *bytes = mem_alloc(w[i].size);
        wire_writer_copy(&w[i], bytes);
        all[i].member_id = wire_str_of(m->ids[i]);
        all[i].assignment.p = bytes;
        all[i].assignment.n = (int32_t)w[i].size;
        wire_writer_free(&w[i]);
    }
    ask(m, API_SYNC_GROUP, &q, sync_done);
    for (int i = 0; i < q.n_assignments; i++) {
        mem_free((void *)(uintptr_t)all[i].assignment.p);
    }
}

/* ---- OffsetFetch --------------------------------------------------------- */
static void take_offset(struct member *m, int part, int64_t offset,
                        struct wire_str metadata, const struct answer *a)
{
    uint64_t id = 0;
    for (int32_t i = 0; i < metadata.n; i++) {
        id = id * 10 + (uint64_t)(metadata.p[i] - '0');
    }
    group_fetched(m->coord.world, m->group, part, a->asked_ns, offset, id);
    if (m->mine[part]) {
        m->committed[part] = offset < 0 ? 0 : offset;
        consumer_assign(m->consumer, part, m->committed[part]);
    }
}

static void take_offsets_8(struct member *m, const struct answer *a,
                           const struct offset_fetch_response_group *g)
{
    for (int t = 0; t < g->n_topics; t++) {
        int topic = a->version >= 10
                        ? topic_find_id(m->client, &g->topics[t].topic_id)
                        : topic_find(g->topics[t].name);
        for (int k = 0; topic >= 0 && k < g->topics[t].n_partitions; k++) {
            const struct offset_fetch_response_group_topic_partition *p =
                &g->topics[t].partitions[k];
            if (take_error(m, (enum kafka_error)p->error_code)) {
                take_offset(m, part_of(topic, p->partition_index),
                            p->committed_offset, p->metadata, a);
            }
        }
    }
}

static void take_offsets_1(struct member *m, const struct answer *a,
                           const struct offset_fetch_response *in)
{
    for (int t = 0; t < in->n_topics; t++) {
        int topic = topic_find(in->topics[t].name);
        for (int k = 0; topic >= 0 && k < in->topics[t].n_partitions; k++) {
            const struct offset_fetch_response_partition *p =
                &in->topics[t].partitions[k];
            if (p->error_code != KAFKA_NONE) {
                take_error(m, (enum kafka_error)p->error_code);
                return;
            }
            take_offset(m, part_of(topic, p->partition_index),
                        p->committed_offset, p->metadata, a);
        }
    }
}

static void fetch_done(void *arg, const struct answer *a)
{
    struct member *m = arg;
    if (!answered(m, a)) {
        return;
    }
    const struct offset_fetch_response *in = a->response;
    enum kafka_error e = (enum kafka_error)(
        a->version >= 8 ? in->groups[0].error_code : in->error_code);
    m->state = MEMBER_READS; /* an error takes it elsewhere */
    if (!take_error(m, e)) {
        m->state = m->state == MEMBER_READS ? MEMBER_ASKS : m->state;
        return;
    }
    for (int i = 0; i < PARTS_MAX; i++) {
        m->committed[i] = -1;
    }
    if (a->version >= 8) {
        take_offsets_8(m, a, &in->groups[0]);
    } else {
        take_offsets_1(m, a, in);
    }
    for (int i = 0; i < PARTS_MAX && m->state == MEMBER_READS; i++) {
        if (m->mine[i] && m->committed[i] < 0) {
            m->state = MEMBER_ASKS;
        }
    }
    m->beat_ns = m->commit_ns = now_ns(m);
    m->late = m->generation > 1 && prng_chance(&m->coord.prng, 1, 6);
}

static void ask_offsets(struct member *m)
{
    struct offset_fetch_request q;
    struct offset_fetch_request_topic topics[TOPICS_MAX];
    struct offset_fetch_request_group_topic topics8[TOPICS_MAX];
    struct offset_fetch_request_group group;
    int32_t parts[PARTS_MAX];
    char names[TOPICS_MAX][16];
    const struct world *w = m->coord.world;
    offset_fetch_request_init(&q);
    memset(&group, 0, sizeof group);
    for (int t = 0; t < w->plan.n_topics; t++) {
        int n = 0;
        for (int k = 0; k < w->n_parts_of[t]; k++) {
            if (m->mine[part_of(t, k)]) {
                parts[part_of(t, n++)] = k;
            }
        }
        topic_name(t, names[t]);
        if (n != 0) {
            topics[q.n_topics++] = (struct offset_fetch_request_topic){
                wire_str_of(names[t]), &parts[part_of(t, 0)], n};
            topics8[group.n_topics++] =
                (struct offset_fetch_request_group_topic){
                    wire_str_of(names[t]), m->client->topic_ids[t],
                    &parts[part_of(t, 0)], n};
        }
    }
    group.group_id = q.group_id = wire_str_of(m->group_id);
    group.member_id = WIRE_NULL_STR;
    group.member_epoch = -1;
    group.topics = topics8;
    q.topics = topics;
    q.groups = &group;
    q.n_groups = 1;
    ask(m, API_OFFSET_FETCH, &q, fetch_done);
}

/* ---- OffsetCommit -------------------------------------------------------- */
struct commit_request {
    struct member *member;
    uint64_t id;
    bool late; /* of an older generation */
    bool sent[PARTS_MAX];
    int64_t offsets[PARTS_MAX];
};

/* Errors after which the commit certainly never is. */
static bool is_refusal(enum kafka_error e)
{
    return e == KAFKA_ILLEGAL_GENERATION || e == KAFKA_UNKNOWN_MEMBER_ID ||
           e == KAFKA_REBALANCE_IN_PROGRESS || e == KAFKA_FENCED_INSTANCE_ID ||
           e == KAFKA_GROUP_ID_NOT_FOUND ||
           e == KAFKA_COORDINATOR_LOAD_IN_PROGRESS;
}

static void commit_part(struct commit_request *c, int part, enum kafka_error e)
{
    struct member *m = c->member;
    if (!c->sent[part]) {
        sim_fail(m->coord.world->sim, "%s: t%d-%d was not committed",
                 m->coord.name, part_topic(part), part_index(part));
    }
    c->sent[part] = false;
    group_commit_done(m->coord.world, m->group, part, c->id,
                      e == KAFKA_NONE ? COMMIT_ACKED
                      : is_refusal(e) ? COMMIT_REFUSED
                                      : COMMIT_UNKNOWN);
    if (e == KAFKA_NONE && !c->late) {
        m->committed[part] = c->offsets[part];
    }
}

static void commit_done(void *arg, const struct answer *a)
{
    struct commit_request *c = arg;
    struct member *m = c->member;
    enum kafka_error e = KAFKA_NONE;
    if (answered(m, a)) {
        const struct offset_commit_response *in = a->response;
        for (int t = 0; t < in->n_topics; t++) {
            int topic = a->version >= 10
                            ? topic_find_id(m->client, &in->topics[t].topic_id)
                            : topic_find(in->topics[t].name);
            for (int k = 0; k < in->topics[t].n_partitions; k++) {
                e = (enum kafka_error)in->topics[t].partitions[k].error_code;
                commit_part(
                    c,
                    part_of(topic, in->topics[t].partitions[k].partition_index),
                    e);
            }
        }
        for (int i = 0; i < PARTS_MAX; i++) {
            if (c->sent[i]) {
                sim_fail(m->coord.world->sim, "%s: t%d-%d is not answered",
                         m->coord.name, part_topic(i), part_index(i));
            }
        }
        if (!c->late) {
            take_error(m, e);
        }
    }
    mem_free(c);
}

/* False: there is nothing to commit. What belongs to an older generation is
 * committed though nothing is new. */
static bool commit_in(struct member *m, int32_t generation)
{
    struct offset_commit_request q;
    struct offset_commit_request_topic topics[TOPICS_MAX];
    struct offset_commit_request_partition parts[PARTS_MAX];
    char names[TOPICS_MAX][16], metadata[24];
    const struct world *w = m->coord.world;
    struct commit_request *c = mem_zalloc(sizeof *c);
    c->member = m;
    c->late = generation != m->generation;
    c->id = group_commit_id(m->coord.world, m->group);
    snprintf(metadata, sizeof metadata, "%llu", (unsigned long long)c->id);
    offset_commit_request_init(&q);
    for (int t = 0; t < w->plan.n_topics; t++) {
        int n = 0;
        for (int k = 0; k < w->n_parts_of[t]; k++) {
            int part = part_of(t, k);
            int64_t position =
                m->mine[part] ? consumer_position(m->consumer, part) : 0;
            if (!m->mine[part] ||
                (position == m->committed[part] && !c->late)) {
                continue;
            }
            parts[part_of(t, n++)] = (struct offset_commit_request_partition){
                k, position, -1, wire_str_of(metadata)};
            c->sent[part] = true;
            c->offsets[part] = position;
            group_commit_sent(m->coord.world, m->group, part, c->id, generation,
                              position);
        }
        topic_name(t, names[t]);
        if (n != 0) {
            topics[q.n_topics++] = (struct offset_commit_request_topic){
                wire_str_of(names[t]), m->client->topic_ids[t],
                &parts[part_of(t, 0)], n};
        }
    }
    if (q.n_topics == 0) {
        mem_free(c);
        return false;
    }
    q.group_id = wire_str_of(m->group_id);
    q.generation_id_or_member_epoch = generation;
    q.member_id = wire_str_of(m->id);
    q.group_instance_id = instance_of(m);
    q.topics = topics;
    m->asking = true;
    client_ask(&m->coord, m->coordinator, API_OFFSET_COMMIT, &q, commit_done,
               c);
    return true;
}

static bool commit(struct member *m)
{
    return commit_in(m, m->generation);
}

/* ---- Heartbeat and LeaveGroup -------------------------------------------- */
static void beat_done(void *arg, const struct answer *a)
{
    struct member *m = arg;
    if (!answered(m, a)) {
        return;
    }
    const struct heartbeat_response *in = a->response;
    enum kafka_error e = (enum kafka_error)in->error_code;
    /* before it goes, it commits what it has read */
    if (e == KAFKA_REBALANCE_IN_PROGRESS && m->state == MEMBER_READS &&
        prng_chance(&m->coord.prng, 1, 2) && commit(m)) {
        return;
    }
    take_error(m, e);
}

static void beat(struct member *m)
{
    struct heartbeat_request q;
    heartbeat_request_init(&q);
    q.group_id = wire_str_of(m->group_id);
    q.generation_id = m->generation;
    q.member_id = wire_str_of(m->id);
    q.group_instance_id = instance_of(m);
    ask(m, API_HEARTBEAT, &q, beat_done);
}

static void leave_done(void *arg, const struct answer *a)
{
    struct member *m = arg;
    answered(m, a);
    rejoin(m, true);
    m->state = MEMBER_AWAY;
}

static void leave(struct member *m)
{
    struct leave_group_request q;
    struct leave_group_request_member who = {wire_str_of(m->id), instance_of(m),
                                             WIRE_NULL_STR};
    leave_group_request_init(&q);
    q.group_id = wire_str_of(m->group_id);
    q.member_id = wire_str_of(m->id);
    q.members = &who;
    q.n_members = 1;
    ask(m, API_LEAVE_GROUP, &q, leave_done);
}

/* ---- what it does next --------------------------------------------------- */
static void change_mind(struct member *m)
{
    struct prng *rng = &m->coord.prng;
    m->mood_ns = now_ns(m) + prng_between(rng, 5000, 60000) * SIM_MS;
    m->back_ns = now_ns(m) + prng_between(rng, 100, 20000) * SIM_MS;
    switch (prng_below(rng, 4)) {
        case 0:
            leave(m);
            break;
        case 1: /* its process was started anew */
            rejoin(m, true);
            break;
        case 2: /* silent; it goes on reading, and thinks that it is there */
            m->state = MEMBER_AWAY;
            break;
        default:
            break;
    }
}

static void come_back(struct member *m)
{
    if (m->id[0] == '\0' || !commit(m)) {
        rejoin(m, false);
    } else {
        m->state = MEMBER_READS; /* the answer will tell it */
    }
}

static void read_on(struct member *m)
{
    struct prng *rng = &m->coord.prng;
    uint64_t now = now_ns(m);
    if (m->coord.world->phase == PHASE_CHAOS && now >= m->mood_ns) {
        change_mind(m);
    }
    if (m->asking || m->state != MEMBER_READS) {
        return;
    }
    if (m->late) { /* a thread of it had still to commit */
        m->late = false;
        if (commit_in(m, m->generation - 1)) {
            return;
        }
    }
    if (now >= m->commit_ns) {
        m->commit_ns = now + prng_between(rng, 100, 3000) * SIM_MS;
        if (commit(m)) {
            return;
        }
    }
    if (now >= m->beat_ns) {
        m->beat_ns = now + m->session_ms / 5 * SIM_MS;
        beat(m);
    }
}

static bool is_back(const struct member *m)
{
    return now_ns(m) >= m->back_ns || m->coord.world->phase == PHASE_LIVENESS;
}

static void step(struct env_timer *timer)
{
    struct member *m = timer->arg;
    bool ids = m->coord.version[API_OFFSET_COMMIT] < 10 &&
               m->coord.version[API_OFFSET_FETCH] < 10;
    step_soon(m, m->state == MEMBER_READS
                     ? prng_between(&m->coord.prng, 100, 500)
                     : prng_between(&m->coord.prng, 50, 150));
    if (m->asking || (m->state == MEMBER_AWAY && !is_back(m))) {
        return;
    }
    if (!ids && !client_has_ids(m->client)) {
        client_refresh(m->client);
        return;
    }
    if (m->coordinator < 0) {
        find(m);
        return;
    }
    switch (m->state) {
        case MEMBER_JOINS:
            join(m);
            break;
        case MEMBER_SYNCS:
            sync(m);
            break;
        case MEMBER_ASKS:
            ask_offsets(m);
            break;
        case MEMBER_READS:
            read_on(m);
            break;
        case MEMBER_AWAY:
            come_back(m);
            break;
    }
}

/* ---- making one ---------------------------------------------------------- */
static void boot(struct env *env, void *arg)
{
    struct member *m = arg;
    m->client = consumer_client(m->consumer);
    client_share(&m->coord, m->client);
    m->coord.request_ms = m->rebalance_ms + 5000;
    m->mood_ns = now_ns(m) + prng_between(&m->coord.prng, 5000, 60000) * SIM_MS;
    env_timer_init(env, &m->timer, step, m);
    step_soon(m, prng_between(&m->coord.prng, 1, 2000));
}

static void was_read(void *actor, int part, int64_t offset)
{
    struct member *m = actor;
    group_read(m->coord.world, m->group, part, offset);
}

static const struct reader reader = {boot, was_read};

void member_add(struct world *w, int at, int group)
{
    static const uint32_t sessions[] = {3000, 6000, 10000};
    struct member *m = calloc(1, sizeof *m);
    struct prng *rng = sim_prng(w->sim);
    char name[16];
    m->at = at;
    m->group = group;
    m->coordinator = -1;
    m->is_static = prng_chance(rng, 1, 4);
    m->session_ms = sessions[prng_below(rng, 3)];
    m->rebalance_ms = prng_chance(rng, 1, 2) ? 2000 : 5000;
    snprintf(name, sizeof name, "m%d", at);
    snprintf(m->instance, sizeof m->instance, "i%d", at);
    snprintf(m->group_id, sizeof m->group_id, "group-%d", group);
    w->members[at] = m;
    w->n_members = at + 1;
    m->consumer = consumer_new(w, name, &reader, m);
    m->client = consumer_client(m->consumer);
    if (m->is_static && (m->client->version[API_JOIN_GROUP] < 5 ||
                         m->client->version[API_SYNC_GROUP] < 3 ||
                         m->client->version[API_HEARTBEAT] < 3 ||
                         m->client->version[API_LEAVE_GROUP] < 3 ||
                         m->client->version[API_OFFSET_COMMIT] < 7)) {
        m->is_static = false; /* nothing of it there yet */
    }
}

struct sim_node *member_node(const struct member *m)
{
    return consumer_node(m->consumer);
}

bool member_settled(const struct member *m, int32_t *generation)
{
    *generation = m->generation;
    return m->state == MEMBER_READS;
}

void member_print(const struct member *m)
{
    fprintf(stderr,
            "m%d of group-%d: state %d, generation %d, coordinator b%d%s\n",
            m->at, m->group, (int)m->state, m->generation, m->coordinator,
            m->asking ? ", asking" : "");
    for (int i = 0; i < PARTS_MAX; i++) {
        if (m->mine[i]) {
            fprintf(stderr, "  t%d-%d: at %lld, committed %lld\n",
                    part_topic(i), part_index(i),
                    (long long)consumer_position(m->consumer, i),
                    (long long)m->committed[i]);
        }
    }
    consumer_print(m->consumer);
}

void member_free(struct member *m)
{
    consumer_free(m->consumer);
    free(m);
}
