/* What only the leader of the metadata group does: it decides changes one at a
 * time against what is applied, waits until a change is usable everywhere,
 * watches who is alive, and records leaderships.
 *
 * A change: QUEUED until the one before is applied; decided (decide.h) and
 * PROPOSED, or, when nothing is to be written, CONFIRMING that we still lead;
 * then WAITING until every live broker has applied it, and the partitions it
 * made have leaders that every live broker knows. A broker that is fenced or
 * cannot be reached now is not waited for. */
#include <stdio.h>
#include <utlist.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "metadata/decide.h"
#include "metadata/metadata_impl.h"
#include "metadata/record.h"

#define TICK_MS 100
#define BEAT_FORMAT 1
/* A liveness record proposed and not seen applied is proposed again. */
#define REPEAT_MS 1000

struct work {
    struct work *prev, *next;
    struct metadata *m;
    struct rpc_request *request; /* NULL: answered */
    struct change change;
    enum work_state state;
    struct env_timer timer;
    struct change_answer answer;
    log_index index; /* of its entry */
    log_index need;  /* WAITING: applied by all; 0: leaders missing */
    int at_result;   /* up to here all partitions have leaders */
    int32_t at_partition;
    struct group_read read;
};

/* ---- answering ----------------------------------------------------------- */
static void work_free(struct work *w)
{
    struct controller *c = &w->m->controller;
    ASSERT(w->request == NULL && w != c->proposed);
    env_timer_stop(&w->timer);
    DL_DELETE(c->works, w);
    c->n_works--;
    change_free(&w->change);
    change_answer_free(&w->answer);
    mem_free(w);
}

/* Frees the change too, unless something under way still points to it. */
static void work_answer(struct work *w, enum err status)
{
    struct buffer b = {0};
    if (w->request != NULL) {
        change_answer_encode(&b, &w->answer);
        rpc_respond(w->request, status, status == ERR_OK ? b.data : NULL,
                    status == ERR_OK ? b.size : 0);
        w->request = NULL;
        buffer_free(&b);
    }
    if (w->state != WORK_CONFIRMING && w != w->m->controller.proposed) {
        work_free(w);
    }
}

static bool creates(const struct work *w)
{
    return w->change.kind == CHANGE_CREATE_TOPICS ||
           w->change.kind == CHANGE_CREATE_PARTITIONS;
}

static void work_deadline(struct env_timer *timer)
{
    struct work *w = timer->arg;
    if (w->state == WORK_WAITING) {
        for (int i = 0; creates(w) && i < w->answer.n_results; i++) {
            if (w->answer.results[i].error == KAFKA_NONE) {
                decide_refuse(&w->answer.results[i], KAFKA_REQUEST_TIMED_OUT,
                              "Created, but not usable on every broker in "
                              "time; it may still become so.");
            }
        }
    } else {
        change_answer_free(&w->answer);
        w->answer.error = KAFKA_REQUEST_TIMED_OUT;
    }
    work_answer(w, ERR_OK);
}

/* ---- waiting ------------------------------------------------------------- */
static struct session *session_of(struct metadata *m, node_id node)
{
    struct controller *c = &m->controller;
    for (int i = 0; i < c->n_sessions; i++) {
        if (c->sessions[i].node == node) {
            return &c->sessions[i];
        }
    }
    c->sessions = mem_realloc(
        c->sessions, (size_t)(c->n_sessions + 1) * sizeof *c->sessions);
    c->sessions[c->n_sessions] =
        (struct session){.node = node, .heard_ms = env_now_ms(m->env)};
    return &c->sessions[c->n_sessions++];
}

static bool broker_usable(void *arg, const struct image_broker *broker)
{
    const struct metadata *m = arg;
    return broker->live &&
           transport_peer_is_up(m->options.transport, broker->node);
}

static log_index applied_by_all(struct metadata *m)
{
    const struct image_broker *const *brokers;
    log_index least = m->applied;
    int n = image_brokers(m->image, &brokers);
    for (int i = 0; i < n; i++) {
        if (brokers[i]->node == m->options.node ||
            !broker_usable(m, brokers[i])) {
            continue;
        }
        log_index applied = session_of(m, brokers[i]->node)->applied;
        if (applied.v < least.v) {
            least = applied;
        }
    }
    return least;
}

/* A partition most of whose replicas are down cannot have a leader now. */
static bool leader_can_be(struct metadata *m, const struct image_partition *p)
{
    int n = 0;
    for (int k = 0; k < p->n_replicas; k++) {
        const struct image_broker *broker =
            image_broker(m->image, p->replicas[k].node);
        n += broker != NULL && broker_usable(m, broker);
    }
    return n > p->n_replicas / 2;
}

/* Have all partitions made by this change leaders? Goes on from where it was
 * left, for a partition never loses its recorded leader. */
static bool leaders_known(struct work *w)
{
    struct metadata *m = w->m;
    for (; w->at_result < w->answer.n_results; w->at_result++) {
        const struct metadata_topic_result *r =
            &w->answer.results[w->at_result];
        const struct image_topic *topic =
            r->error == KAFKA_NONE ? image_topic_by_id(m->image, &r->id) : NULL;
        while (topic != NULL && w->at_partition < topic->n_partitions) {
            const struct image_partition *p =
                &topic->partitions[w->at_partition];
            if (p->leader < 0 && leader_can_be(m, p)) {
                return false;
            }
            w->at_partition++;
        }
        w->at_partition = 0;
    }
    return true;
}

static bool is_done(struct work *w, log_index all)
{
    struct metadata *m = w->m;
    switch (w->change.kind) {
        case CHANGE_REGISTER:
        case CHANGE_PRODUCER_IDS:
        case CHANGE_SYNC:
            return true;
        case CHANGE_CREATE_TOPICS:
        case CHANGE_CREATE_PARTITIONS:
            if (w->need.v == 0 && leaders_known(w)) {
                w->need = m->applied; /* the records of all these leaders */
            }
            break;
        case CHANGE_DELETE_TOPICS:
        case CHANGE_ALTER_CONFIGS:
        case CHANGE_UNREGISTER:
            w->need = w->index;
            break;
    }
    return w->need.v != 0 && all.v >= w->need.v;
}

static void check_waiting(struct metadata *m)
{
    struct work *w, *next;
    if (m->controller.works == NULL) {
        return;
    }
    log_index all = applied_by_all(m);
    DL_FOREACH_SAFE(m->controller.works, w, next)
    {
        if (w->state == WORK_WAITING && is_done(w, all)) {
            work_answer(w, ERR_OK);
        }
    }
}

/* ---- the quorum ---------------------------------------------------------- */
static void fill_voter(struct metadata *m,
                       const struct group_replica_state *state,
                       struct metadata_voter *out)
{
    int64_t wall = env_wall_ms(m->env);
    const struct image_broker *broker = image_broker(m->image, state->node);
    bool self = state->node == m->options.node;
    const struct session *session = session_of(m, state->node);
    out->node = state->node;
    if (broker != NULL) {
        out->directory = broker->directory;
    }
    out->end = self ? group_last_index(m->group) : state->match;
    out->heard_ms =
        self ? wall : wall - (int64_t)(env_now_ms(m->env) - session->heard_ms);
    out->caught_up_ms = self || state->caught_up ? out->heard_ms : -1;
}

static void fill_quorum(struct metadata *m, struct metadata_quorum *out)
{
    struct group_replica_state states[GROUP_REPLICAS_MAX];
    int n = group_replicas(m->group, states);
    out->leader = m->options.node;
    out->epoch = (int32_t)m->role.term.v;
    out->committed = group_commit_index(m->group);
    out->n_voters = n;
    for (int i = 0; i < n; i++) {
        fill_voter(m, &states[i], &out->voters[i]);
    }
}

/* ---- deciding ------------------------------------------------------------ */
static void confirmed(struct group_read *read, enum err status)
{
    struct work *w = read->arg;
    struct metadata *m = w->m;
    w->state = WORK_WAITING; /* nothing points to it any more */
    if (status == ERR_OK) {
        w->answer.index = m->applied;
        if (w->change.kind == CHANGE_SYNC) {
            fill_quorum(m, &w->answer.quorum);
        }
    }
    work_answer(w, status == ERR_OK ? ERR_OK : ERR_NOT_LEADER);
}

static void work_confirm(struct work *w)
{
    w->state = WORK_CONFIRMING;
    w->read.cb = confirmed;
    w->read.arg = w;
    group_read_barrier(w->m->group, &w->read);
}

static void work_wait(struct work *w)
{
    w->state = WORK_WAITING;
    w->answer.index = w->index;
    metadata_turn_later(w->m);
    w->m->check_wanted = true;
}

static enum err propose(struct metadata *m, const struct buffer *b,
                        log_index *index)
{
    struct iovec iov = {b->data, b->size};
    if (b->size > LIMIT_METADATA_ENTRY) {
        return ERR_TOO_LARGE;
    }
    return group_propose(m->group, ENTRY_DATA, &iov, 1, index);
}

static void refuse_all(struct work *w, const char *why)
{
    for (int i = 0; i < w->answer.n_results; i++) {
        if (w->answer.results[i].error == KAFKA_NONE) {
            decide_refuse(&w->answer.results[i], KAFKA_INVALID_REQUEST, "%s",
                          why);
        }
    }
}

/* Takes what was decided over and proposes it. False: try again later. */
static bool work_propose(struct work *w, struct decide *d)
{
    struct metadata *m = w->m;
    struct buffer answer = {0};
    change_answer_encode(&answer, &d->answer);
    if (answer.size <= LIMIT_METADATA_ANSWER) {
        record_put_request(&d->records, &w->change.request, 0, answer.data,
                           (uint32_t)answer.size);
    }
    buffer_free(&answer);
    enum err e = propose(m, &d->records, &w->index);
    if (e == ERR_BUSY || e == ERR_NOT_LEADER || e == ERR_NOT_READY) {
        return false;
    }
    change_answer_free(&w->answer);
    w->answer = d->answer;
    memset(&d->answer, 0, sizeof d->answer);
    if (e != ERR_OK) {
        refuse_all(w, "The request asks for too much at once: divide it.");
        work_confirm(w);
        return true;
    }
    w->state = WORK_PROPOSED;
    m->controller.proposed = w;
    return true;
}

/* Done before, by a leader whose answer was lost? */
static bool work_known(struct work *w)
{
    const uint8_t *bytes;
    uint32_t size;
    log_index index =
        image_request(w->m->image, &w->change.request, &bytes, &size);
    if (index.v == 0 ||
        change_answer_decode(bytes, size, &w->answer) != ERR_OK) {
        return false;
    }
    w->index = index;
    work_wait(w);
    return true;
}

/* False: it has to wait. */
static bool work_decide(struct work *w)
{
    struct metadata *m = w->m;
    struct decide d;
    if (work_known(w)) {
        return true;
    }
    decide_init(&d, m->image, &m->random);
    d.num_partitions = m->options.num_partitions;
    d.replication_factor = m->options.default_replication_factor;
    d.usable = broker_usable;
    d.usable_arg = m;
    decide_change(&d, &w->change);
    bool done = true;
    if (d.records.size == 0) {
        w->answer = d.answer;
        memset(&d.answer, 0, sizeof d.answer);
        work_confirm(w);
    } else {
        done = work_propose(w, &d);
    }
    decide_free(&d);
    return done;
}

/* Decides what is queued, in order, until something is in the log. */
static void pump(struct metadata *m)
{
    struct controller *c = &m->controller;
    struct work *w, *next;
    DL_FOREACH_SAFE(c->works, w, next)
    {
        if (c->proposed != NULL) {
            return;
        }
        if (w->state == WORK_QUEUED && !work_decide(w)) {
            return; /* no room: the next tick tries again */
        }
    }
}

/* ---- what is reported ---------------------------------------------------- */
static struct buffer *reports(struct controller *c)
{
    if (c->reports.size == 0) {
        record_batch_begin(&c->reports);
    }
    return &c->reports;
}

static void flush_reports(struct metadata *m)
{
    struct controller *c = &m->controller;
    log_index index;
    if (c->reports.size == 0) {
        return;
    }
    enum err e = propose(m, &c->reports, &index);
    if (e != ERR_BUSY && e != ERR_NOT_READY) {
        buffer_clear(&c->reports); /* what is lost is reported again */
    }
}

void controller_check(struct metadata *m)
{
    if (!m->controller.active) {
        return;
    }
    flush_reports(m);
    pump(m);
    check_waiting(m);
}

static void wake(struct metadata *m)
{
    m->check_wanted = true;
    metadata_turn_later(m);
}

static void add_report(void *arg, const struct leadership_report *report)
{
    struct metadata *m = arg;
    if (m->controller.reports.size < LIMIT_METADATA_ENTRY / 2) {
        record_put_leader(reports(&m->controller), &report->group.topic,
                          report->group.partition, report->leader,
                          report->epoch);
        wake(m);
    }
}

static void beat_respond(struct rpc_request *request, enum heartbeat_code code,
                         const char *why)
{
    struct buffer b = {0};
    codec_put_u8(&b, BEAT_FORMAT);
    codec_put_u8(&b, (uint8_t)code);
    codec_put_text(&b, why);
    rpc_respond(request, ERR_OK, b.data, b.size);
    buffer_free(&b);
}

static void set_live(struct metadata *m, const struct image_broker *broker,
                     bool live)
{
    struct session *session = session_of(m, broker->node);
    uint64_t now = env_now_ms(m->env);
    if (session->proposed_ms != 0 && now - session->proposed_ms < REPEAT_MS) {
        return;
    }
    log_info("metadata", "broker %s node=%d", live ? "back" : "fenced",
             broker->node);
    session->proposed_ms = now;
    record_put_broker_live(reports(&m->controller), broker->node, broker->epoch,
                           live);
    wake(m);
}

void controller_serve_heartbeat(void *arg, struct rpc_request *request,
                                node_id from, const uint8_t *body, size_t size)
{
    struct metadata *m = arg;
    struct reader r = codec_reader(body, size);
    if (!m->controller.active) {
        rpc_respond(request, ERR_NOT_LEADER, NULL, 0);
        return;
    }
    uint8_t format = codec_get_u8(&r);
    node_id node = codec_get_i32(&r);
    struct uuid directory = codec_get_uuid(&r);
    log_index applied = {codec_get_u64(&r)};
    if (!codec_ok(&r) || format != BEAT_FORMAT || node != from) {
        rpc_respond(request, ERR_INVALID, NULL, 0);
        return;
    }
    const struct image_broker *broker = image_broker(m->image, node);
    if (broker == NULL) {
        beat_respond(request, HEARTBEAT_UNKNOWN, "");
        return;
    }
    if (!uuid_equal(&broker->directory, &directory)) {
        char why[96];
        snprintf(why, sizeof why,
                 "node id %d belongs to another data directory", node);
        beat_respond(request, HEARTBEAT_REFUSED, why);
        return;
    }
    struct session *session = session_of(m, node);
    session->heard_ms = env_now_ms(m->env);
    session->applied = applied;
    if (broker->live) {
        session->proposed_ms = 0;
    } else {
        set_live(m, broker, true);
    }
    if (!leadership_read(&r, m->image, add_report, m)) {
        rpc_respond(request, ERR_INVALID, NULL, 0);
        return;
    }
    beat_respond(request, HEARTBEAT_OK, "");
    if (m->controller.works != NULL) {
        wake(m);
    }
}

/* ---- changes arrive ------------------------------------------------------ */
void controller_serve(void *arg, struct rpc_request *request, node_id from,
                      const uint8_t *body, size_t size)
{
    struct metadata *m = arg;
    struct controller *c = &m->controller;
    struct change change;
    enum err e = ERR_OK;
    if (!c->active) {
        e = m->role.is_leader ? ERR_NOT_READY : ERR_NOT_LEADER;
    } else if (c->n_works >= LIMIT_METADATA_CALLS) {
        e = ERR_BUSY;
    } else {
        e = change_decode(body, size, &change);
    }
    if (e == ERR_OK && change.kind == CHANGE_REGISTER &&
        change.u.broker.node != from) {
        change_free(&change);
        e = ERR_INVALID;
    }
    if (e != ERR_OK) {
        rpc_respond(request, e, NULL, 0);
        return;
    }
    struct work *w = mem_zalloc(sizeof *w);
    w->m = m;
    w->request = request;
    w->change = change;
    env_timer_init(m->env, &w->timer, work_deadline, w);
    env_timer_start(&w->timer, change.timeout_ms);
    DL_APPEND(c->works, w);
    c->n_works++;
    if (change.kind == CHANGE_SYNC) {
        work_confirm(w);
    } else {
        w->state = WORK_QUEUED;
        wake(m);
    }
}

/* ---- events of the group ------------------------------------------------- */
void controller_applied(struct metadata *m, const struct group_entry *entry)
{
    struct controller *c = &m->controller;
    struct work *w = c->proposed;
    if (w != NULL && entry->index.v >= w->index.v) {
        bool ours = entry->index.v == w->index.v && entry->term.v == c->term.v;
        c->proposed = NULL;
        if (w->request == NULL) {
            work_free(w); /* its deadline passed */
        } else if (ours) {
            work_wait(w);
        } else {
            work_answer(w, ERR_NOT_LEADER);
        }
    }
    if (c->active) {
        wake(m);
    }
}

static void deactivate(struct metadata *m)
{
    struct controller *c = &m->controller;
    struct work *w, *next;
    c->active = false;
    c->proposed = NULL;
    buffer_clear(&c->reports);
    env_timer_stop(&c->tick);
    mem_free(c->sessions);
    c->sessions = NULL;
    c->n_sessions = 0;
    DL_FOREACH_SAFE(c->works, w, next)
    {
        work_answer(w, ERR_NOT_LEADER);
    }
}

static void activate(struct metadata *m)
{
    struct controller *c = &m->controller;
    c->active = true;
    c->term = m->role.term;
    c->ticked_ms = env_now_ms(m->env);
    env_timer_start(&c->tick, TICK_MS);
    log_info("metadata", "leads the metadata term=%llu",
             (unsigned long long)c->term.v);
    if (uuid_is_zero(image_cluster_id(m->image))) {
        record_put_cluster(reports(c), &m->identity.cluster);
    }
    wake(m);
}

void controller_role_changed(struct metadata *m)
{
    struct controller *c = &m->controller;
    bool lead = metadata_is_ready_leader(m);
    if (c->active && (!lead || m->role.term.v != c->term.v)) {
        deactivate(m);
    }
    if (lead && !c->active) {
        activate(m);
    }
}

/* ---- time ---------------------------------------------------------------- */
static void tick(struct env_timer *timer)
{
    struct metadata *m = timer->arg;
    struct controller *c = &m->controller;
    const struct image_broker *const *brokers;
    uint64_t now = env_now_ms(m->env);
    uint64_t gap = now - c->ticked_ms;
    int n = image_brokers(m->image, &brokers);
    for (int i = 0; i < n; i++) {
        struct session *session = session_of(m, brokers[i]->node);
        if (gap > 5 * TICK_MS) {
            /* We were stopped, and heard nobody for that reason. */
            session->heard_ms += gap;
        }
        if (brokers[i]->live &&
            now > session->heard_ms + m->options.session_ms) {
            set_live(m, brokers[i], false);
        }
    }
    c->ticked_ms = now;
    env_timer_start(timer, TICK_MS);
    wake(m);
}

void controller_init(struct metadata *m)
{
    env_timer_init(m->env, &m->controller.tick, tick, m);
}

void controller_free(struct metadata *m)
{
    struct controller *c = &m->controller;
    struct work *w, *next;
    deactivate(m);
    DL_FOREACH_SAFE(c->works, w, next)
    {
        w->state = WORK_WAITING; /* the group is closed: no call back */
        work_free(w);
    }
    buffer_free(&c->reports);
}
