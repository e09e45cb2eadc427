/* The classic group protocol: the states of a group, its rebalances, and what
 * of it is written to the log.
 *
 *   Empty --join--> PreparingRebalance --all joined or time up-->
 *   CompletingRebalance --leader's plan committed--> Stable
 *
 * any change of members in CompletingRebalance or Stable goes back to
 * PreparingRebalance; without members a group is Empty. A generation counts the
 * completed rebalances. Only the leader's plan, a static member's new id and
 * the fact that a group became empty are written to the log.
 * Source: PROTOCOL.md 3.6. */
#include "base/assert.h"
#include "base/log.h"
#include "coordinator/impl.h"

struct env *classic_group_env(const struct classic_group *g)
{
    return g->owner->c->options.env;
}

const char *classic_group_state(const struct classic_group *g)
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
    g->state_since_ms = env_wall_ms(classic_group_env(g));
}

void classic_group_drop(struct classic_group *g, enum kafka_error why)
{
    env_timer_stop(&g->timer);
    while (g->members != NULL) {
        group_member_dismiss(g->members, why);
        group_member_free(g->members);
    }
    while (g->pending != NULL) {
        pending_member_free(g->pending);
    }
}

void classic_group_forget_unused(struct classic_group *g)
{
    if (g->state == GROUP_EMPTY && g->generation == 0 && g->members == NULL &&
        g->pending == NULL && g->offsets == NULL) {
        classic_group_free(g);
    }
}

/* ---- the log ------------------------------------------------------------- */
void classic_group_record(struct classic_group *g, struct batch_builder *b)
{
    struct arena a;
    arena_init(&a, 0);
    size_t n = HASH_COUNT(g->members);
    struct group_record_member *members = arena_array(&a, n, sizeof *members);
    int i = 0;
    for (struct group_member *m = g->members; m != NULL; m = m->hh.next) {
        struct text sub = group_member_subscription(m, &g->protocol);
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
    records_add_group(b, env_wall_ms(classic_group_env(g)), &r, false);
    arena_free(&a);
}

void classic_group_write(struct classic_group *g,
                         void (*done)(struct group_write *w,
                                      enum kafka_error error),
                         void *arg)
{
    struct group_write *w = group_write_new(g->owner);
    w->done = done;
    w->arg = arg;
    w->generation = g->generation;
    classic_group_record(g, &w->batch);
    group_write_submit(w);
}

static void restore_member(struct classic_group *g,
                           const struct group_record *r,
                           const struct group_record_member *in)
{
    if (in->member_id.n <= 0 || group_member_find(g, in->member_id) != NULL) {
        return;
    }
    int32_t most = (int32_t)g->owner->c->options.session_timeout_max_ms;
    int32_t session = in->session_timeout_ms;
    session = session <= 0 || session > most ? most : session;
    struct coordinator_protocol protocol = {.name = r->protocol,
                                            .metadata = in->subscription};
    struct coordinator_join as = {
        .client_id = in->client_id,
        .client_host = in->client_host,
        .session_timeout_ms = session,
        .rebalance_timeout_ms =
            in->rebalance_timeout_ms < 0 ? session : in->rebalance_timeout_ms,
        .n_protocols = 1,
        .protocols = &protocol,
    };
    struct group_member *m =
        group_member_add(g, in->member_id, in->instance_id);
    group_member_update(m, &as);
    bytes_set(&m->assignment, in->assignment.p,
              in->assignment.n < 0 ? 0 : in->assignment.n);
    m->synced = true;
}

void classic_group_restore(struct classic_group *g,
                           const struct group_record *r)
{
    classic_group_drop(g, KAFKA_UNKNOWN_MEMBER_ID);
    bytes_set(&g->protocol_type, r->protocol_type.p,
              r->protocol_type.n < 0 ? 0 : r->protocol_type.n);
    bytes_set(&g->protocol, r->protocol.p, r->protocol.n);
    bytes_set(&g->leader, r->leader.p, r->leader.n);
    g->generation = r->generation < 0 ? 0 : r->generation;
    for (int i = 0; i < r->n_members; i++) {
        restore_member(g, r, &r->members[i]);
    }
    g->state = g->members == NULL ? GROUP_EMPTY : GROUP_STABLE;
    g->state_since_ms = r->timestamp_ms;
}

/* ---- the plan ------------------------------------------------------------ */
/* Committed, or not. The group may have moved on, or be another one. */
static void plan_written(struct group_write *w, enum kafka_error error)
{
    struct group_partition *gp = w->gp;
    struct bytes *id = w->arg;
    struct classic_group *g =
        gp->live ? classic_group_find(gp, bytes_text(id)) : NULL;
    bytes_free(id);
    mem_free(id);
    if (g == NULL || g->state != GROUP_COMPLETING ||
        g->generation != w->generation) {
        return; /* what was parked has been answered */
    }
    if (error == KAFKA_INVALID_COMMIT_OFFSET_SIZE) {
        error = KAFKA_UNKNOWN_SERVER_ERROR; /* larger than the log takes */
    }
    if (error == KAFKA_NONE) {
        set_state(g, GROUP_STABLE);
    }
    for (struct group_member *m = g->members; m != NULL; m = m->hh.next) {
        if (error != KAFKA_NONE) {
            bytes_set(&m->assignment, "", 0);
        }
        struct coordinator_sync *sync = m->sync;
        m->sync = NULL;
        if (sync == NULL) {
            continue;
        }
        group_member_touch(m);
        if (error == KAFKA_NONE) {
            sync_ok(m, sync);
        } else {
            sync_error(gp->c, sync, error);
        }
    }
    if (error != KAFKA_NONE) {
        classic_group_prepare(g);
    }
}

void classic_group_plan(struct classic_group *g,
                        const struct coordinator_sync *req)
{
    ASSERT(g->state == GROUP_COMPLETING);
    if (g->plan_generation == g->generation) {
        return; /* it is being written */
    }
    g->plan_generation = g->generation;
    for (struct group_member *m = g->members; m != NULL; m = m->hh.next) {
        bytes_set(&m->assignment, "", 0);
    }
    for (int i = 0; i < req->n_assignments; i++) {
        struct group_member *m =
            group_member_find(g, req->assignments[i].member_id);
        const struct blob *b = &req->assignments[i].assignment;
        if (m != NULL) {
            bytes_set(&m->assignment, b->p, b->n < 0 ? 0 : b->n);
        }
    }
    struct bytes *id = mem_zalloc(sizeof *id);
    bytes_set(id, g->id.p, g->id.n);
    classic_group_write(g, plan_written, id);
}

/* ---- rebalancing --------------------------------------------------------- */
static int32_t rebalance_timeout(const struct classic_group *g)
{
    int32_t most = 0;
    for (struct group_member *m = g->members; m != NULL; m = m->hh.next) {
        most = m->rebalance_timeout_ms > most ? m->rebalance_timeout_ms : most;
    }
    return most;
}

static void empty_written(struct group_write *w, enum kafka_error error)
{
    (void)w; /* lost: the group comes back with members that then expire */
    (void)error;
}

static void count_generation(struct classic_group *g)
{
    g->generation = g->generation == INT32_MAX ? 1 : g->generation + 1;
}

static void become_empty(struct classic_group *g)
{
    count_generation(g);
    bytes_set(&g->protocol, NULL, -1);
    bytes_set(&g->leader, NULL, -1);
    set_state(g, GROUP_EMPTY);
    classic_group_write(g, empty_written, NULL);
    log_info("coordinator", "group is empty group=%s generation=%d", g->id.p,
             (int)g->generation);
}

/* The leader stays if it joined again, else the first that did follows. */
static void elect_leader(struct classic_group *g)
{
    struct group_member *first = NULL;
    for (struct group_member *m = g->members; m != NULL; m = m->hh.next) {
        if (m->join == NULL) {
            continue;
        }
        if (group_member_leads(m)) {
            return;
        }
        if (first == NULL) {
            first = m;
        }
    }
    if (first == NULL) {
        UNREACHABLE("a generation of nobody");
    }
    bytes_set(&g->leader, first->id.p, first->id.n);
}

static void next_generation(struct classic_group *g)
{
    count_generation(g);
    const struct bytes *protocol = classic_group_vote(g);
    ASSERT(protocol != NULL); /* nobody came in without a common one */
    bytes_set(&g->protocol, protocol->p, protocol->n);
    elect_leader(g);
    set_state(g, GROUP_COMPLETING);
    for (struct group_member *m = g->members; m != NULL; m = m->hh.next) {
        struct coordinator_join *req = group_member_unpark(m);
        bytes_set(&m->assignment, "", 0);
        m->synced = req == NULL; /* away: nothing is awaited from it */
        if (req != NULL) {
            join_ok(m, req);
            group_member_touch(m);
        }
    }
    ASSERT(g->n_joined == 0);
    env_timer_start(&g->timer, (uint64_t)rebalance_timeout(g));
    log_info("coordinator",
             "rebalanced group=%s generation=%d members=%u protocol=%s",
             g->id.p, (int)g->generation, HASH_COUNT(g->members),
             g->protocol.p);
}

static void complete_join(struct classic_group *g)
{
    struct group_member *m = NULL;
    struct group_member *next = NULL;
    env_timer_stop(&g->timer);
    g->initial_delay = false;
    HASH_ITER(hh, g->members, m, next)
    {
        if (m->join == NULL && m->instance_id.p == NULL) {
            group_member_free(m); /* dynamic and silent */
        }
    }
    if (g->members == NULL) {
        become_empty(g);
    } else if (g->n_joined == 0) {
        /* static members that are away: their sessions decide */
        env_timer_start(&g->timer, (uint64_t)rebalance_timeout(g));
    } else {
        next_generation(g);
    }
}

void classic_group_maybe_complete(struct classic_group *g)
{
    if (g->state == GROUP_PREPARING && !g->initial_delay &&
        g->pending == NULL && g->n_joined == HASH_COUNT(g->members)) {
        complete_join(g);
    }
}

/* Who got its generation and never asked for its assignment is gone. */
static void sync_time_up(struct classic_group *g)
{
    struct group_member *m = NULL;
    struct group_member *next = NULL;
    bool gone = false;
    HASH_ITER(hh, g->members, m, next)
    {
        if (!m->synced) {
            group_member_free(m);
            gone = true;
        }
    }
    if (gone) {
        classic_group_prepare(g);
    }
}

static void time_up(struct env_timer *timer)
{
    struct classic_group *g = timer->arg;
    if (g->state != GROUP_PREPARING) {
        sync_time_up(g);
        return;
    }
    uint64_t now = env_now_ms(classic_group_env(g));
    uint64_t delay = g->owner->c->options.initial_rebalance_delay_ms;
    if (g->initial_delay && g->new_joiner && now < g->join_deadline_ms) {
        uint64_t left = g->join_deadline_ms - now;
        g->new_joiner = false;
        env_timer_start(&g->timer, delay < left ? delay : left);
        return;
    }
    complete_join(g);
}

void classic_group_timer_init(struct classic_group *g)
{
    env_timer_init(classic_group_env(g), &g->timer, time_up, g);
}

void classic_group_prepare(struct classic_group *g)
{
    struct coordinator *c = g->owner->c;
    ASSERT(g->state != GROUP_PREPARING);
    g->initial_delay = g->state == GROUP_EMPTY;
    set_state(g, GROUP_PREPARING);
    for (struct group_member *m = g->members; m != NULL; m = m->hh.next) {
        if (m->sync != NULL) {
            sync_error(c, m->sync, KAFKA_REBALANCE_IN_PROGRESS);
            m->sync = NULL;
            group_member_touch(m);
        }
    }
    uint64_t timeout = (uint64_t)rebalance_timeout(g);
    if (g->initial_delay) { /* others may be about to come: one rebalance */
        g->new_joiner = false;
        g->join_deadline_ms = env_now_ms(classic_group_env(g)) + timeout;
        env_timer_start(&g->timer, c->options.initial_rebalance_delay_ms);
        return;
    }
    env_timer_start(&g->timer, timeout);
    classic_group_maybe_complete(g);
}

void classic_group_rebalance(struct classic_group *g)
{
    if (g->state == GROUP_PREPARING) {
        g->new_joiner = true;
        classic_group_maybe_complete(g);
    } else {
        classic_group_prepare(g);
    }
}

void classic_group_remove(struct classic_group *g, struct group_member *m)
{
    group_member_dismiss(m, KAFKA_UNKNOWN_MEMBER_ID);
    group_member_free(m);
    switch (g->state) {
        case GROUP_EMPTY:
            UNREACHABLE("a member of an empty group");
        case GROUP_PREPARING:
            classic_group_maybe_complete(g);
            break;
        case GROUP_COMPLETING:
        case GROUP_STABLE:
            classic_group_prepare(g);
            break;
    }
}
