/* The classic group protocol: JoinGroup, SyncGroup, Heartbeat, LeaveGroup.
 *
 *   Empty --join--> PreparingRebalance --all joined or time up-->
 *   CompletingRebalance --leader's plan committed--> Stable
 *
 * any change of members in CompletingRebalance or Stable goes back to
 * PreparingRebalance; without members a group is Empty. A generation counts the
 * completed rebalances. Only the leader's plan (and the fact that a group
 * became empty) is written to the log. Source: PROTOCOL.md 3.6; KIP-345,
 * KIP-394. */
#include <inttypes.h>
#include <stdio.h>

#include "base/assert.h"
#include "coordinator/impl.h"

static void prepare_rebalance(struct classic_group *g);
static void maybe_complete_join(struct classic_group *g);
static void remove_member(struct classic_group *g, struct group_member *m);

static struct env *env_of(const struct classic_group *g)
{
    return g->owner->c->options.env;
}

const char *group_state_name(const struct classic_group *g)
{
    switch (g->state) {
    case GROUP_EMPTY:
        return "Empty";
    case GROUP_PREPARING:
        return "PreparingRebalance";
    case GROUP_COMPLETING:
        return "CompletingRebalance";
    case GROUP_STABLE:
        return "Stable";
    }
    UNREACHABLE("a state of a group");
}

static void set_state(struct classic_group *g, enum group_state state)
{
    g->state = state;
    g->state_since_ms = env_wall_ms(env_of(g));
}

/* ---- members ----------------------------------------------------------------- */
static struct group_member *member_find(struct classic_group *g, struct text id)
{
    struct group_member *m = NULL;
    if (id.n > 0) {
        HASH_FIND(hh, g->members, id.p, (size_t)id.n, m);
    }
    return m;
}

static struct group_member *member_by_instance(struct classic_group *g,
                                               struct text instance)
{
    struct group_member *m = NULL;
    if (instance.n < 0) {
        return NULL;
    }
    for (m = g->members; m != NULL; m = m->hh.next) {
        if (bytes_is(&m->instance_id, instance)) {
            return m;
        }
    }
    return NULL;
}

static bool is_leader(const struct group_member *m)
{
    return m->group->leader.p != NULL &&
           bytes_is(&m->group->leader, bytes_text(&m->id));
}

static void protocols_free(struct group_member *m)
{
    for (int i = 0; i < m->n_protocols; i++) {
        bytes_free(&m->protocols[i].name);
        bytes_free(&m->protocols[i].metadata);
    }
    mem_free(m->protocols);
    m->protocols = NULL;
    m->n_protocols = 0;
}

static void protocols_set(struct group_member *m,
                          const struct coordinator_join *req)
{
    protocols_free(m);
    m->protocols =
        mem_zalloc((size_t)req->n_protocols * sizeof *m->protocols + 1);
    m->n_protocols = req->n_protocols;
    for (int i = 0; i < req->n_protocols; i++) {
        bytes_set(&m->protocols[i].name, req->protocols[i].name.p,
                  req->protocols[i].name.n);
        const struct blob *b = &req->protocols[i].metadata;
        bytes_set(&m->protocols[i].metadata, b->p, b->n < 0 ? 0 : b->n);
    }
}

static bool protocols_equal(const struct group_member *m,
                            const struct coordinator_join *req)
{
    if (m->n_protocols != req->n_protocols) {
        return false;
    }
    for (int i = 0; i < m->n_protocols; i++) {
        const struct blob *b = &req->protocols[i].metadata;
        struct text theirs = {.p = (const char *)b->p, .n = b->n < 0 ? 0 : b->n};
        if (!bytes_is(&m->protocols[i].name, req->protocols[i].name) ||
            !bytes_is(&m->protocols[i].metadata, theirs)) {
            return false;
        }
    }
    return true;
}

struct text member_subscription_of(const struct group_member *m,
                                   const struct bytes *protocol)
{
    for (int i = 0; i < m->n_protocols; i++) {
        if (protocol->p != NULL &&
            bytes_is(&m->protocols[i].name, bytes_text(protocol))) {
            return bytes_text(&m->protocols[i].metadata);
        }
    }
    return TEXT("");
}

static void session_expired(struct env_timer *timer)
{
    struct group_member *m = timer->arg;
    struct classic_group *g = m->group;
    if (m->join != NULL || m->sync != NULL) {
        group_member_touch(m); /* who waits for us is alive */
        return;
    }
    remove_member(g, m);
}

void group_member_touch(struct group_member *m)
{
    env_timer_start(&m->session, (uint64_t)m->session_timeout_ms);
}

static struct group_member *member_add(struct classic_group *g, struct text id,
                                       struct text instance)
{
    struct group_member *m = mem_zalloc(sizeof *m);
    m->group = g;
    bytes_set(&m->id, id.p, id.n);
    bytes_set(&m->instance_id, instance.p, instance.n);
    bytes_set(&m->assignment, "", 0);
    env_timer_init(env_of(g), &m->session, session_expired, m);
    HASH_ADD_KEYPTR(hh, g->members, m->id.p, (size_t)m->id.n, m);
    return m;
}

void group_member_free(struct group_member *m)
{
    env_timer_stop(&m->session);
    HASH_DEL(m->group->members, m);
    protocols_free(m);
    bytes_free(&m->id);
    bytes_free(&m->instance_id);
    bytes_free(&m->client_id);
    bytes_free(&m->client_host);
    bytes_free(&m->assignment);
    mem_free(m);
}

/* ---- pending members ----------------------------------------------------------- */
static void pending_free(struct pending_member *p)
{
    env_timer_stop(&p->expiry);
    HASH_DEL(p->group->pending, p);
    bytes_free(&p->id);
    mem_free(p);
}

static void pending_expired(struct env_timer *timer)
{
    struct pending_member *p = timer->arg;
    struct classic_group *g = p->group;
    pending_free(p);
    if (g->state == GROUP_PREPARING) {
        maybe_complete_join(g);
    }
}

static void pending_add(struct classic_group *g, struct text id,
                        int32_t timeout_ms)
{
    struct pending_member *p = mem_zalloc(sizeof *p);
    p->group = g;
    bytes_set(&p->id, id.p, id.n);
    env_timer_init(env_of(g), &p->expiry, pending_expired, p);
    env_timer_start(&p->expiry, (uint64_t)timeout_ms);
    HASH_ADD_KEYPTR(hh, g->pending, p->id.p, (size_t)p->id.n, p);
}

static struct pending_member *pending_find(struct classic_group *g,
                                           struct text id)
{
    struct pending_member *p = NULL;
    if (id.n > 0) {
        HASH_FIND(hh, g->pending, id.p, (size_t)id.n, p);
    }
    return p;
}

/* ---- answers ------------------------------------------------------------------- */
static void join_fire(struct answer *a)
{
    struct coordinator_join *req = a->req;
    req->cb(req);
}

static void join_error(struct coordinator *c, struct coordinator_join *req,
                       enum kafka_error error, struct text member_id)
{
    struct answer *a = answer_new(c, req, join_fire);
    req->error = error;
    req->generation_id = -1;
    req->out_protocol_type = (struct text){.p = NULL, .n = -1};
    req->protocol_name = (struct text){.p = NULL, .n = -1};
    req->leader = TEXT("");
    req->out_member_id = answer_text(a, member_id);
    req->n_members = 0;
    answer_send(c, a);
}

static void answer_members(struct answer *a, struct classic_group *g,
                           struct coordinator_join *req)
{
    size_t n = HASH_COUNT(g->members);
    struct coordinator_member *out = arena_array(&a->arena, n, sizeof *out);
    int i = 0;
    for (struct group_member *m = g->members; m != NULL; m = m->hh.next) {
        struct text sub = member_subscription_of(m, &g->protocol);
        out[i].member_id = answer_text(a, bytes_text(&m->id));
        out[i].instance_id = answer_text(a, bytes_text(&m->instance_id));
        out[i].metadata = answer_blob(
            a, (struct blob){.p = (const uint8_t *)sub.p, .n = sub.n});
        i++;
    }
    req->members = out;
    req->n_members = i;
}

/* The outcome of this generation, for one member. */
static void join_ok(struct group_member *m, struct coordinator_join *req,
                    bool with_members)
{
    struct classic_group *g = m->group;
    struct answer *a = answer_new(g->owner->c, req, join_fire);
    req->error = KAFKA_NONE;
    req->generation_id = g->generation;
    req->out_protocol_type = answer_text(a, bytes_text(&g->protocol_type));
    req->protocol_name = answer_text(a, bytes_text(&g->protocol));
    req->leader = answer_text(a, bytes_text(&g->leader));
    req->out_member_id = answer_text(a, bytes_text(&m->id));
    req->n_members = 0;
    if (with_members) {
        answer_members(a, g, req);
    }
    answer_send(g->owner->c, a);
}

static void sync_fire(struct answer *a)
{
    struct coordinator_sync *req = a->req;
    req->cb(req);
}

static void sync_error(struct coordinator *c, struct coordinator_sync *req,
                       enum kafka_error error)
{
    struct answer *a = answer_new(c, req, sync_fire);
    req->error = error;
    req->out_protocol_type = (struct text){.p = NULL, .n = -1};
    req->out_protocol_name = (struct text){.p = NULL, .n = -1};
    req->assignment = (struct blob){.p = NULL, .n = 0};
    answer_send(c, a);
}

static void sync_ok(struct group_member *m, struct coordinator_sync *req)
{
    struct classic_group *g = m->group;
    struct answer *a = answer_new(g->owner->c, req, sync_fire);
    req->error = KAFKA_NONE;
    req->out_protocol_type = answer_text(a, bytes_text(&g->protocol_type));
    req->out_protocol_name = answer_text(a, bytes_text(&g->protocol));
    req->assignment = answer_blob(a, bytes_blob(&m->assignment));
    answer_send(g->owner->c, a);
}

static void park_join(struct group_member *m, struct coordinator_join *req)
{
    if (m->join != NULL) { /* it asked twice: only the newer one counts */
        join_error(m->group->owner->c, m->join, KAFKA_UNKNOWN_MEMBER_ID,
                   bytes_text(&m->id));
    }
    m->join = req;
}

/* Answers everything parked of a member that goes. */
static void member_dismiss(struct group_member *m, enum kafka_error why)
{
    struct coordinator *c = m->group->owner->c;
    if (m->join != NULL) {
        join_error(c, m->join, why, bytes_text(&m->id));
        m->join = NULL;
    }
    if (m->sync != NULL) {
        sync_error(c, m->sync, why);
        m->sync = NULL;
    }
}

void group_drop_members(struct classic_group *g, enum kafka_error why)
{
    env_timer_stop(&g->timer);
    while (g->members != NULL) {
        member_dismiss(g->members, why);
        group_member_free(g->members);
    }
    while (g->pending != NULL) {
        pending_free(g->pending);
    }
}

/* ---- the log ------------------------------------------------------------------- */
void group_write_record(struct classic_group *g, struct batch_builder *b,
                        int64_t now_ms)
{
    struct arena a;
    arena_init(&a, 0);
    size_t n = HASH_COUNT(g->members);
    struct group_record_member *members =
        arena_array(&a, n, sizeof *members);
    int i = 0;
    for (struct group_member *m = g->members; m != NULL; m = m->hh.next) {
        struct text sub = member_subscription_of(m, &g->protocol);
        members[i++] = (struct group_record_member){
            .member_id = bytes_text(&m->id),
            .instance_id = bytes_text(&m->instance_id),
            .client_id = bytes_text(&m->client_id),
            .client_host = bytes_text(&m->client_host),
            .session_timeout_ms = m->session_timeout_ms,
            .rebalance_timeout_ms = m->rebalance_timeout_ms,
            .subscription = {.p = (const uint8_t *)sub.p, .n = sub.n},
            .assignment = bytes_blob(&m->assignment),
        };
    }
    struct group_record r = {
        .group_id = bytes_text(&g->id),
        .protocol_type = bytes_text(&g->protocol_type),
        .protocol = bytes_text(&g->protocol),
        .leader = bytes_text(&g->leader),
        .generation = g->generation,
        .timestamp_ms = g->state_since_ms,
        .n_members = i,
        .members = members,
    };
    records_add_group(b, now_ms, &r, false);
    arena_free(&a);
}

void group_restore(struct classic_group *g, const struct group_record *r)
{
    group_drop_members(g, KAFKA_UNKNOWN_MEMBER_ID);
    bytes_set(&g->protocol_type, r->protocol_type.p, r->protocol_type.n);
    bytes_set(&g->protocol, r->protocol.p, r->protocol.n);
    bytes_set(&g->leader, r->leader.p, r->leader.n);
    g->generation = r->generation;
    g->state = r->n_members == 0 ? GROUP_EMPTY : GROUP_STABLE;
    g->state_since_ms = r->timestamp_ms;
    for (int i = 0; i < r->n_members; i++) {
        const struct group_record_member *in = &r->members[i];
        if (member_find(g, in->member_id) != NULL || in->member_id.n <= 0) {
            continue;
        }
        struct group_member *m = member_add(g, in->member_id, in->instance_id);
        bytes_set(&m->client_id, in->client_id.p, in->client_id.n);
        bytes_set(&m->client_host, in->client_host.p, in->client_host.n);
        bytes_set(&m->assignment, in->assignment.p, in->assignment.n);
        m->session_timeout_ms = in->session_timeout_ms;
        m->rebalance_timeout_ms = in->rebalance_timeout_ms < 0
                                      ? in->session_timeout_ms
                                      : in->rebalance_timeout_ms;
        struct coordinator_protocol p = {.name = r->protocol,
                                         .metadata = in->subscription};
        struct coordinator_join as = {.n_protocols = 1, .protocols = &p};
        protocols_set(m, &as);
        m->synced = true;
    }
}

static void group_written(struct group_write *w, enum kafka_error error)
{
    (void)w; /* lost: the group comes back with members that then expire */
    (void)error;
}

static void write_group(struct classic_group *g)
{
    struct group_write *w = group_write_new(g->owner);
    w->done = group_written;
    group_write_record(g, &w->batch, env_wall_ms(env_of(g)));
    group_write_submit(w);
}

/* The leader's plan is committed, or not. The group may have moved on. */
static void plan_written(struct group_write *w, enum kafka_error error)
{
    struct group_partition *gp = w->gp;
    struct bytes *id = w->arg;
    struct classic_group *g =
        gp->live ? group_find(gp, bytes_text(id)) : NULL;
    bytes_free(id);
    mem_free(id);
    if (g == NULL) {
        return; /* leadership is gone, and the groups with it */
    }
    g->writing = false;
    if (g->state != GROUP_COMPLETING || g->generation != w->generation) {
        return;
    }
    for (struct group_member *m = g->members; m != NULL; m = m->hh.next) {
        if (error != KAFKA_NONE) {
            bytes_set(&m->assignment, "", 0);
        }
        if (m->sync == NULL) {
            continue;
        }
        if (error == KAFKA_NONE) {
            sync_ok(m, m->sync);
        } else {
            sync_error(gp->c, m->sync, error);
        }
        m->sync = NULL;
        group_member_touch(m);
    }
    if (error == KAFKA_NONE) {
        set_state(g, GROUP_STABLE);
    } else {
        prepare_rebalance(g);
    }
}

static void write_plan(struct classic_group *g)
{
    struct group_write *w = group_write_new(g->owner);
    struct bytes *id = mem_zalloc(sizeof *id);
    bytes_set(id, g->id.p, g->id.n);
    w->done = plan_written;
    w->arg = id;
    w->generation = g->generation;
    g->writing = true;
    group_write_record(g, &w->batch, env_wall_ms(env_of(g)));
    group_write_submit(w);
}

/* ---- rebalancing --------------------------------------------------------------- */
static int32_t rebalance_timeout(const struct classic_group *g)
{
    int32_t most = 0;
    for (struct group_member *m = g->members; m != NULL; m = m->hh.next) {
        most = m->rebalance_timeout_ms > most ? m->rebalance_timeout_ms : most;
    }
    return most;
}

static bool member_knows(const struct group_member *m, struct text name)
{
    for (int i = 0; i < m->n_protocols; i++) {
        if (bytes_is(&m->protocols[i].name, name)) {
            return true;
        }
    }
    return false;
}

static bool all_know(struct classic_group *g, struct text name,
                     const struct group_member *except)
{
    for (struct group_member *m = g->members; m != NULL; m = m->hh.next) {
        if (m != except && !member_knows(m, name)) {
            return false;
        }
    }
    return true;
}

/* Each member votes for the first of its protocols that all members know; the
 * one with most votes wins. NULL when nothing is common. */
static const struct bytes *vote(struct classic_group *g)
{
    const struct group_member *first = g->members;
    const struct bytes *best = NULL;
    int best_votes = -1;
    for (int i = 0; i < first->n_protocols; i++) {
        struct text name = bytes_text(&first->protocols[i].name);
        if (!all_know(g, name, NULL)) {
            continue;
        }
        int votes = 0;
        for (struct group_member *m = g->members; m != NULL; m = m->hh.next) {
            int k = 0;
            while (!all_know(g, bytes_text(&m->protocols[k].name), NULL)) {
                k++; /* ends: `name` is common */
            }
            votes += bytes_is(&m->protocols[k].name, name);
        }
        if (votes > best_votes) {
            best_votes = votes;
            best = &first->protocols[i].name;
        }
    }
    return best;
}

static bool protocol_supported(struct classic_group *g,
                               const struct coordinator_join *req,
                               const struct group_member *except)
{
    for (int i = 0; i < req->n_protocols; i++) {
        if (all_know(g, req->protocols[i].name, except)) {
            return true;
        }
    }
    return false;
}

static void sync_time_up(struct classic_group *g)
{
    struct group_member *m = NULL;
    struct group_member *next = NULL;
    bool gone = false;
    HASH_ITER(hh, g->members, m, next)
    {
        if (!m->synced && m->sync == NULL) {
            member_dismiss(m, KAFKA_UNKNOWN_MEMBER_ID);
            group_member_free(m);
            gone = true;
        }
    }
    if (gone || g->state == GROUP_COMPLETING) {
        prepare_rebalance(g);
    }
}

static void become_empty(struct classic_group *g)
{
    g->generation++;
    bytes_set(&g->protocol, NULL, -1);
    bytes_set(&g->leader, NULL, -1);
    set_state(g, GROUP_EMPTY);
    write_group(g);
}

static void elect_leader(struct classic_group *g)
{
    struct group_member *first = NULL;
    for (struct group_member *m = g->members; m != NULL; m = m->hh.next) {
        if (m->join == NULL) {
            continue;
        }
        if (is_leader(m)) {
            return;
        }
        first = first == NULL ? m : first;
    }
    bytes_set(&g->leader, first->id.p, first->id.n);
}

static void complete_join(struct classic_group *g)
{
    struct group_member *m = NULL;
    struct group_member *next = NULL;
    bool any_joined = false;
    env_timer_stop(&g->timer);
    g->initial_delay = false;
    HASH_ITER(hh, g->members, m, next)
    {
        if (m->join == NULL && m->instance_id.p == NULL) {
            group_member_free(m); /* dynamic and silent */
        } else {
            any_joined = any_joined || m->join != NULL;
        }
    }
    if (g->members == NULL) {
        become_empty(g);
        return;
    }
    if (!any_joined) { /* static members that are away: their sessions decide */
        env_timer_start(&g->timer, (uint64_t)rebalance_timeout(g));
        return;
    }
    g->generation++;
    const struct bytes *protocol = vote(g);
    ASSERT(protocol != NULL);
    bytes_set(&g->protocol, protocol->p, protocol->n);
    elect_leader(g);
    set_state(g, GROUP_COMPLETING);
    HASH_ITER(hh, g->members, m, next)
    {
        m->synced = false;
        bytes_set(&m->assignment, "", 0);
        if (m->join != NULL) {
            struct coordinator_join *req = m->join;
            m->join = NULL;
            join_ok(m, req, is_leader(m));
            group_member_touch(m);
        } else {
            m->synced = true; /* away; nothing is awaited from it */
        }
    }
    env_timer_start(&g->timer, (uint64_t)rebalance_timeout(g));
}

static void maybe_complete_join(struct classic_group *g)
{
    if (g->state != GROUP_PREPARING || g->initial_delay || g->pending != NULL) {
        return;
    }
    for (struct group_member *m = g->members; m != NULL; m = m->hh.next) {
        if (m->join == NULL) {
            return;
        }
    }
    complete_join(g);
}

static void group_time_up(struct env_timer *timer)
{
    struct classic_group *g = timer->arg;
    if (g->state == GROUP_COMPLETING || g->state == GROUP_STABLE) {
        sync_time_up(g);
        return;
    }
    uint64_t now = env_now_ms(env_of(g));
    uint64_t delay = g->owner->c->options.initial_rebalance_delay_ms;
    if (g->initial_delay && g->new_joiner && now < g->join_deadline_ms) {
        g->new_joiner = false;
        uint64_t left = g->join_deadline_ms - now;
        env_timer_start(&g->timer, delay < left ? delay : left);
        return;
    }
    g->initial_delay = false;
    complete_join(g);
}

void group_timer_init(struct classic_group *g)
{
    env_timer_init(env_of(g), &g->timer, group_time_up, g);
}

static void prepare_rebalance(struct classic_group *g)
{
    struct coordinator *c = g->owner->c;
    bool was_empty = g->state == GROUP_EMPTY;
    for (struct group_member *m = g->members; m != NULL; m = m->hh.next) {
        if (m->sync != NULL) {
            sync_error(c, m->sync, KAFKA_REBALANCE_IN_PROGRESS);
            m->sync = NULL;
            group_member_touch(m);
        }
    }
    set_state(g, GROUP_PREPARING);
    uint32_t delay = c->options.initial_rebalance_delay_ms;
    if (was_empty && delay > 0) {
        g->initial_delay = true;
        g->new_joiner = false;
        g->join_deadline_ms =
            env_now_ms(env_of(g)) + (uint64_t)rebalance_timeout(g);
        env_timer_start(&g->timer, delay);
        return;
    }
    g->initial_delay = false;
    env_timer_start(&g->timer, (uint64_t)rebalance_timeout(g));
    maybe_complete_join(g);
}

static void maybe_rebalance(struct classic_group *g)
{
    if (g->state == GROUP_PREPARING) {
        g->new_joiner = true;
        maybe_complete_join(g);
    } else {
        prepare_rebalance(g);
    }
}

static void remove_member(struct classic_group *g, struct group_member *m)
{
    member_dismiss(m, KAFKA_UNKNOWN_MEMBER_ID);
    group_member_free(m);
    switch (g->state) {
    case GROUP_EMPTY:
        break;
    case GROUP_PREPARING:
        maybe_complete_join(g);
        break;
    case GROUP_COMPLETING:
    case GROUP_STABLE:
        prepare_rebalance(g);
        break;
    }
}

/* ---- JoinGroup ------------------------------------------------------------------ */
static void member_update(struct group_member *m,
                          const struct coordinator_join *req)
{
    protocols_set(m, req);
    m->session_timeout_ms = req->session_timeout_ms;
    m->rebalance_timeout_ms = req->rebalance_timeout_ms;
    bytes_set(&m->client_id, req->client_id.p,
              req->client_id.n < 0 ? 0 : req->client_id.n);
    bytes_set(&m->client_host, req->client_host.p,
              req->client_host.n < 0 ? 0 : req->client_host.n);
}

static void member_id_make(struct coordinator *c,
                           const struct coordinator_join *req, char *out,
                           size_t size)
{
    uint64_t a = env_random(c->options.env);
    uint64_t b = env_random(c->options.env);
    struct text name =
        req->instance_id.n >= 0 ? req->instance_id : req->client_id;
    int n = name.n < 0 ? 0 : name.n > 200 ? 200 : name.n;
    snprintf(out, size,
             "%.*s-%08" PRIx64 "-%04" PRIx64 "-%04" PRIx64 "-%04" PRIx64
             "-%012" PRIx64,
             n, n > 0 ? name.p : "", a >> 32, (a >> 16) & 0xffff,
             (a & 0x0fff) | 0x4000, ((b >> 48) & 0x3fff) | 0x8000,
             b & 0xffffffffffff);
}

static void add_and_rebalance(struct classic_group *g, struct text id,
                              struct coordinator_join *req)
{
    struct group_member *m = member_add(g, id, req->instance_id);
    member_update(m, req);
    if (g->protocol_type.n == 0 || g->state == GROUP_EMPTY) {
        bytes_set(&g->protocol_type, req->protocol_type.p,
                  req->protocol_type.n);
    }
    park_join(m, req);
    group_member_touch(m);
    maybe_rebalance(g);
}

/* A static member comes back without its id: the new id takes the place. */
static void static_rejoin(struct classic_group *g, struct group_member *old,
                          struct text id, struct coordinator_join *req)
{
    bool was_leader = is_leader(old);
    bool same = protocols_equal(old, req);
    member_dismiss(old, KAFKA_FENCED_INSTANCE_ID);
    struct group_member *m = member_add(g, id, req->instance_id);
    bytes_set(&m->assignment, old->assignment.p, old->assignment.n);
    m->synced = old->synced;
    group_member_free(old);
    member_update(m, req);
    if (was_leader) {
        bytes_set(&g->leader, id.p, id.n);
    }
    group_member_touch(m);
    if (g->state == GROUP_STABLE && same) {
        bool skip = was_leader && req->api_version >= 9;
        req->skip_assignment = skip;
        join_ok(m, req, skip);
        write_group(g); /* the new id, for whoever loads the group */
        return;
    }
    park_join(m, req);
    if (g->state == GROUP_PREPARING) {
        maybe_complete_join(g);
    } else {
        prepare_rebalance(g);
    }
}

static void join_without_id(struct classic_group *g,
                            struct coordinator_join *req)
{
    struct coordinator *c = g->owner->c;
    char made[320];
    member_id_make(c, req, made, sizeof made);
    struct text id = {.p = made, .n = (int32_t)strlen(made)};
    struct group_member *old = member_by_instance(g, req->instance_id);
    if (old != NULL) {
        static_rejoin(g, old, id, req);
        return;
    }
    if (req->instance_id.n < 0 && req->api_version >= 4) {
        pending_add(g, id, req->session_timeout_ms);
        join_error(c, req, KAFKA_MEMBER_ID_REQUIRED, id);
        return;
    }
    add_and_rebalance(g, id, req);
}

static void rejoin(struct classic_group *g, struct group_member *m,
                   struct coordinator_join *req)
{
    bool same = protocols_equal(m, req);
    group_member_touch(m);
    switch (g->state) {
    case GROUP_PREPARING:
        member_update(m, req);
        park_join(m, req);
        maybe_complete_join(g);
        return;
    case GROUP_COMPLETING:
        if (same) { /* its answer was lost */
            join_ok(m, req, is_leader(m));
            return;
        }
        break;
    case GROUP_STABLE:
        if (same && !is_leader(m)) {
            join_ok(m, req, false);
            return;
        }
        break;
    case GROUP_EMPTY:
        break;
    }
    member_update(m, req);
    park_join(m, req);
    prepare_rebalance(g);
}

static void join_with_id(struct classic_group *g, struct coordinator_join *req)
{
    struct coordinator *c = g->owner->c;
    struct pending_member *pending = pending_find(g, req->member_id);
    if (pending != NULL) {
        pending_free(pending);
        add_and_rebalance(g, req->member_id, req);
        return;
    }
    struct group_member *by_instance =
        member_by_instance(g, req->instance_id);
    struct group_member *m = member_find(g, req->member_id);
    if (by_instance != NULL && by_instance != m) {
        join_error(c, req, KAFKA_FENCED_INSTANCE_ID, req->member_id);
        return;
    }
    if (m == NULL || (req->instance_id.n >= 0 && by_instance == NULL)) {
        join_error(c, req, KAFKA_UNKNOWN_MEMBER_ID, req->member_id);
        return;
    }
    rejoin(g, m, req);
}

static enum kafka_error join_check(struct coordinator *c,
                                   const struct coordinator_join *req)
{
    if (req->group_id.n <= 0) {
        return KAFKA_INVALID_GROUP_ID;
    }
    if (req->session_timeout_ms < (int64_t)c->options.session_timeout_min_ms ||
        req->session_timeout_ms > (int64_t)c->options.session_timeout_max_ms) {
        return KAFKA_INVALID_SESSION_TIMEOUT;
    }
    if (req->protocol_type.n <= 0 || req->n_protocols <= 0) {
        return KAFKA_INCONSISTENT_GROUP_PROTOCOL;
    }
    return KAFKA_NONE;
}

void coordinator_join(struct coordinator *c, struct coordinator_join *req)
{
    struct group_partition *gp = NULL;
    enum kafka_error e = join_check(c, req);
    if (e == KAFKA_NONE) {
        e = partition_live(c, req->index, &gp);
    }
    if (e != KAFKA_NONE) {
        join_error(c, req, e, req->member_id);
        return;
    }
    struct classic_group *g = group_find(gp, req->group_id);
    if (g == NULL && req->member_id.n > 0) {
        join_error(c, req, KAFKA_UNKNOWN_MEMBER_ID, req->member_id);
        return;
    }
    g = g == NULL ? group_make(gp, req->group_id) : g;
    struct group_member *known = member_find(g, req->member_id);
    if (known == NULL) {
        known = member_by_instance(g, req->instance_id);
    }
    if (g->members != NULL &&
        (!bytes_is(&g->protocol_type, req->protocol_type) ||
         !protocol_supported(g, req, known))) {
        join_error(c, req, KAFKA_INCONSISTENT_GROUP_PROTOCOL, req->member_id);
        return;
    }
    if (known == NULL &&
        HASH_COUNT(g->members) + HASH_COUNT(g->pending) >=
            c->options.group_size_max) {
        join_error(c, req, KAFKA_GROUP_MAX_SIZE_REACHED, req->member_id);
        return;
    }
    if (req->member_id.n <= 0) {
        join_without_id(g, req);
    } else {
        join_with_id(g, req);
    }
}

/* ---- SyncGroup, Heartbeat, LeaveGroup -------------------------------------------- */
static enum kafka_error member_check(struct classic_group *g, struct text id,
                                     struct text instance,
                                     struct group_member **out)
{
    struct group_member *m = g == NULL ? NULL : member_find(g, id);
    if (g != NULL && instance.n >= 0) {
        struct group_member *by_instance = member_by_instance(g, instance);
        if (by_instance != NULL && by_instance != m) {
            return KAFKA_FENCED_INSTANCE_ID;
        }
        if (by_instance == NULL) {
            return KAFKA_UNKNOWN_MEMBER_ID;
        }
    }
    *out = m;
    return m == NULL ? KAFKA_UNKNOWN_MEMBER_ID : KAFKA_NONE;
}

static void take_plan(struct classic_group *g,
                      const struct coordinator_sync *req)
{
    for (struct group_member *m = g->members; m != NULL; m = m->hh.next) {
        bytes_set(&m->assignment, "", 0);
    }
    for (int i = 0; i < req->n_assignments; i++) {
        struct group_member *m = member_find(g, req->assignments[i].member_id);
        const struct blob *b = &req->assignments[i].assignment;
        if (m != NULL) {
            bytes_set(&m->assignment, b->p, b->n < 0 ? 0 : b->n);
        }
    }
}

static enum kafka_error sync_check(struct classic_group *g,
                                   const struct coordinator_sync *req,
                                   struct group_member **m)
{
    enum kafka_error e = member_check(g, req->member_id, req->instance_id, m);
    if (e != KAFKA_NONE) {
        return e;
    }
    if (req->generation_id != g->generation) {
        return KAFKA_ILLEGAL_GENERATION;
    }
    if ((req->protocol_type.n >= 0 &&
         !bytes_is(&g->protocol_type, req->protocol_type)) ||
        (req->protocol_name.n >= 0 &&
         !bytes_is(&g->protocol, req->protocol_name))) {
        return KAFKA_INCONSISTENT_GROUP_PROTOCOL;
    }
    return KAFKA_NONE;
}

void coordinator_sync(struct coordinator *c, struct coordinator_sync *req)
{
    struct group_partition *gp = NULL;
    struct group_member *m = NULL;
    enum kafka_error e = req->group_id.n <= 0
                             ? KAFKA_INVALID_GROUP_ID
                             : partition_live(c, req->index, &gp);
    struct classic_group *g =
        e == KAFKA_NONE ? group_find(gp, req->group_id) : NULL;
    if (e == KAFKA_NONE) {
        e = sync_check(g, req, &m);
    }
    if (e != KAFKA_NONE) {
        sync_error(c, req, e);
        return;
    }
    switch (g->state) {
    case GROUP_EMPTY:
        sync_error(c, req, KAFKA_UNKNOWN_MEMBER_ID);
        return;
    case GROUP_PREPARING:
        sync_error(c, req, KAFKA_REBALANCE_IN_PROGRESS);
        return;
    case GROUP_STABLE:
        group_member_touch(m);
        m->synced = true;
        sync_ok(m, req);
        return;
    case GROUP_COMPLETING:
        break;
    }
    if (m->sync != NULL) {
        sync_error(c, m->sync, KAFKA_UNKNOWN_MEMBER_ID);
    }
    m->sync = req;
    m->synced = true;
    if (is_leader(m) && !g->writing) {
        take_plan(g, req);
        write_plan(g);
    }
}

enum kafka_error coordinator_heartbeat(struct coordinator *c, int32_t index,
                                       struct text group_id,
                                       struct text member_id,
                                       struct text instance_id,
                                       int32_t generation_id)
{
    struct group_partition *gp = NULL;
    struct group_member *m = NULL;
    if (group_id.n <= 0) {
        return KAFKA_INVALID_GROUP_ID;
    }
    enum kafka_error e = partition_live(c, index, &gp);
    if (e != KAFKA_NONE) {
        return e == KAFKA_COORDINATOR_LOAD_IN_PROGRESS ? KAFKA_NONE : e;
    }
    struct classic_group *g = group_find(gp, group_id);
    e = member_check(g, member_id, instance_id, &m);
    if (e != KAFKA_NONE) {
        return e;
    }
    if (generation_id != g->generation) {
        return KAFKA_ILLEGAL_GENERATION;
    }
    group_member_touch(m);
    switch (g->state) {
    case GROUP_EMPTY:
        return KAFKA_UNKNOWN_MEMBER_ID;
    case GROUP_PREPARING:
        return KAFKA_REBALANCE_IN_PROGRESS;
    case GROUP_COMPLETING:
    case GROUP_STABLE:
        return KAFKA_NONE;
    }
    UNREACHABLE("a state of a group");
}

static void leave_fire(struct answer *a)
{
    struct coordinator_leave *req = a->req;
    req->cb(req);
}

static enum kafka_error leave_one(struct classic_group *g,
                                  const struct coordinator_leaving *who)
{
    struct group_member *m = member_by_instance(g, who->instance_id);
    if (who->instance_id.n >= 0) {
        if (m == NULL) {
            return KAFKA_UNKNOWN_MEMBER_ID;
        }
        if (who->member_id.n > 0 && !bytes_is(&m->id, who->member_id)) {
            return KAFKA_FENCED_INSTANCE_ID;
        }
    } else {
        struct pending_member *pending = pending_find(g, who->member_id);
        if (pending != NULL) {
            pending_free(pending);
            if (g->state == GROUP_PREPARING) {
                maybe_complete_join(g);
            }
            return KAFKA_NONE;
        }
        m = member_find(g, who->member_id);
        if (m == NULL) {
            return KAFKA_UNKNOWN_MEMBER_ID;
        }
    }
    remove_member(g, m);
    return KAFKA_NONE;
}

void coordinator_leave(struct coordinator *c, struct coordinator_leave *req)
{
    struct group_partition *gp = NULL;
    req->error = req->group_id.n <= 0 ? KAFKA_INVALID_GROUP_ID
                                      : partition_live(c, req->index, &gp);
    struct classic_group *g =
        req->error == KAFKA_NONE ? group_find(gp, req->group_id) : NULL;
    for (int i = 0; i < req->n_members && req->error == KAFKA_NONE; i++) {
        req->member_errors[i] = g == NULL ? KAFKA_UNKNOWN_MEMBER_ID
                                          : leave_one(g, &req->members[i]);
    }
    answer_send(c, answer_new(c, req, leave_fire));
}

enum kafka_error group_check_member(struct classic_group *g, struct text member,
                                    struct text instance, int32_t generation)
{
    struct group_member *m = NULL;
    if (generation < 0 && member.n <= 0) { /* a simple commit, or an admin's */
        return g == NULL || g->members == NULL ? KAFKA_NONE
                                               : KAFKA_UNKNOWN_MEMBER_ID;
    }
    if (g == NULL) {
        return KAFKA_ILLEGAL_GENERATION;
    }
    if (generation < 0 && g->state == GROUP_EMPTY) {
        return KAFKA_NONE;
    }
    enum kafka_error e = member_check(g, member, instance, &m);
    if (e != KAFKA_NONE) {
        return e;
    }
    if (generation != g->generation) {
        return KAFKA_ILLEGAL_GENERATION;
    }
    if (g->state == GROUP_COMPLETING) {
        return KAFKA_REBALANCE_IN_PROGRESS;
    }
    group_member_touch(m);
    return KAFKA_NONE;
}
