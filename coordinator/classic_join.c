/* JoinGroup: who may come in, under which id, and what that sets going.
 * Source: PROTOCOL.md 3.6; KIP-345 (static members), KIP-394 (ids first),
 * KIP-814 (skip_assignment). */
#include <inttypes.h>
#include <stdio.h>

#include "base/limits.h"
#include "coordinator/impl.h"

/* Bytes of a client's name in a member id, and of the id with its UUID. */
#define MEMBER_NAME_MAX 200
#define MEMBER_ID_MAX (MEMBER_NAME_MAX + 48)

static void member_id_make(struct coordinator *c,
                           const struct coordinator_join *req, char *out,
                           size_t size)
{
    uint64_t a = env_random(c->options.env);
    uint64_t b = env_random(c->options.env);
    struct text name =
        req->instance_id.n >= 0 ? req->instance_id : req->client_id;
    int n = name.n < 0                 ? 0
            : name.n > MEMBER_NAME_MAX ? MEMBER_NAME_MAX
                                       : name.n;
    snprintf(out, size,
             "%.*s-%08" PRIx64 "-%04" PRIx64 "-%04" PRIx64 "-%04" PRIx64
             "-%012" PRIx64,
             n, n > 0 ? name.p : "", a >> 32, (a >> 16) & 0xffff,
             (a & 0x0fff) | 0x4000, ((b >> 48) & 0x3fff) | 0x8000,
             b & 0xffffffffffff);
}

static void add_member(struct classic_group *g, struct text id,
                       struct coordinator_join *req)
{
    if (g->members == NULL) {
        bytes_set(&g->protocol_type, req->protocol_type.p,
                  req->protocol_type.n);
    }
    struct group_member *m = group_member_add(g, id, req->instance_id);
    group_member_update(m, req);
    group_member_park(m, req);
    group_member_touch(m);
    classic_group_rebalance(g);
}

/* The new id of a static member is committed, or not. */
static void static_id_written(struct group_write *w, enum kafka_error error)
{
    struct answer *a = w->arg;
    if (error != KAFKA_NONE) { /* it comes again, for another id */
        join_fill_error(a, error, TEXT(""));
    }
    answer_now(a);
}

/* The generation goes on with the new id in the place of the old one. Before
 * version 9 the old id is shown as the leader's, so that the client does not
 * make a plan that nobody will take. */
static void static_go_on(struct group_member *m, struct text leader,
                         struct coordinator_join *req)
{
    bool leads = group_member_leads(m);
    bool skip = leads && req->api_version >= 9;
    struct answer *a = join_answer(m, req, skip);
    req->skip_assignment = skip;
    if (leads && !skip) {
        req->leader = answer_text(a, leader);
    }
    classic_group_write(m->group, static_id_written, a);
}

/* A static member comes back without its id: the new id takes the place. */
static void static_rejoin(struct classic_group *g, struct group_member *old,
                          struct text id, struct coordinator_join *req)
{
    struct bytes leader = {0};
    bytes_set(&leader, g->leader.p, g->leader.p == NULL ? -1 : g->leader.n);
    if (group_member_leads(old)) {
        bytes_set(&g->leader, id.p, id.n);
    }
    group_member_dismiss(old, KAFKA_FENCED_INSTANCE_ID);
    struct group_member *m = group_member_add(g, id, req->instance_id);
    bytes_set(&m->assignment, old->assignment.p, old->assignment.n);
    m->synced = old->synced;
    group_member_free(old);
    group_member_update(m, req);
    group_member_touch(m);
    const struct bytes *next = classic_group_vote(g);
    if (g->state == GROUP_STABLE && next != NULL &&
        bytes_is(&g->protocol, bytes_text(next))) {
        static_go_on(m, bytes_text(&leader), req);
    } else {
        group_member_park(m, req);
        classic_group_rebalance(g);
    }
    bytes_free(&leader);
}

static void join_without_id(struct classic_group *g,
                            struct coordinator_join *req)
{
    struct coordinator *c = g->owner->c;
    char made[MEMBER_ID_MAX];
    member_id_make(c, req, made, sizeof made);
    struct text id = {.p = made, .n = (int32_t)strlen(made)};
    struct group_member *old = group_member_by_instance(g, req->instance_id);
    if (old != NULL) {
        static_rejoin(g, old, id, req);
    } else if (req->instance_id.n < 0 && req->api_version >= 4) {
        pending_member_add(g, id, req->session_timeout_ms);
        join_error(c, req, KAFKA_MEMBER_ID_REQUIRED, id);
    } else {
        add_member(g, id, req);
    }
}

static void rejoin(struct classic_group *g, struct group_member *m,
                   struct coordinator_join *req)
{
    bool same = group_member_matches(m, req);
    if ((g->state == GROUP_COMPLETING && same) || /* its answer was lost */
        (g->state == GROUP_STABLE && same && !group_member_leads(m))) {
        group_member_touch(m);
        join_ok(m, req);
        return;
    }
    group_member_update(m, req);
    group_member_touch(m);
    group_member_park(m, req);
    if (g->state == GROUP_PREPARING) {
        classic_group_maybe_complete(g);
    } else {
        classic_group_prepare(g);
    }
}

static void join_with_id(struct classic_group *g, struct coordinator_join *req)
{
    struct coordinator *c = g->owner->c;
    struct pending_member *pending = pending_member_find(g, req->member_id);
    if (pending != NULL && req->instance_id.n < 0) {
        pending_member_free(pending);
        add_member(g, req->member_id, req);
        return;
    }
    struct group_member *m = NULL;
    enum kafka_error e =
        group_member_check(g, req->member_id, req->instance_id, &m);
    if (e != KAFKA_NONE) {
        join_error(c, req, e, req->member_id);
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

/* While a group rebalances, whoever comes first has the places. */
static bool has_room(const struct classic_group *g,
                     const struct coordinator_join *req,
                     const struct group_member *known)
{
    uint32_t max = g->owner->c->options.group_size_max;
    max = max < LIMIT_GROUP_MEMBERS ? max : LIMIT_GROUP_MEMBERS;
    if (req->member_id.n <= 0 && known == NULL &&
        HASH_COUNT(g->pending) >= LIMIT_GROUP_MEMBERS) {
        return false;
    }
    switch (g->state) {
        case GROUP_EMPTY:
            return true;
        case GROUP_PREPARING:
            return g->n_joined < max || (known != NULL && known->join != NULL);
        case GROUP_COMPLETING:
        case GROUP_STABLE:
            return HASH_COUNT(g->members) < max || known != NULL;
    }
    return false;
}

/* Decides; `g` may be gone afterwards. */
static void join_group(struct classic_group *g, struct coordinator_join *req)
{
    struct coordinator *c = g->owner->c;
    struct group_member *known = group_member_find(g, req->member_id);
    if (known == NULL) {
        known = group_member_by_instance(g, req->instance_id);
    }
    if (!has_room(g, req, known)) {
        join_error(c, req, KAFKA_GROUP_MAX_SIZE_REACHED, TEXT(""));
        if (known != NULL) {
            classic_group_remove(g, known);
        }
    } else if (g->members != NULL &&
               (!bytes_is(&g->protocol_type, req->protocol_type) ||
                !classic_group_supports(g, req, known))) {
        join_error(c, req, KAFKA_INCONSISTENT_GROUP_PROTOCOL, req->member_id);
    } else if (req->member_id.n <= 0) {
        join_without_id(g, req);
    } else {
        join_with_id(g, req);
    }
    classic_group_forget_unused(g);
}

void coordinator_join(struct coordinator *c, struct coordinator_join *req)
{
    struct group_partition *gp = NULL;
    enum kafka_error e = join_check(c, req);
    if (e == KAFKA_NONE) {
        e = partition_live(c, req->index, &gp);
    }
    struct classic_group *g =
        e == KAFKA_NONE ? classic_group_find(gp, req->group_id) : NULL;
    if (e == KAFKA_NONE && g == NULL) {
        if (req->member_id.n > 0) {
            e = KAFKA_UNKNOWN_MEMBER_ID;
        } else {
            g = classic_group_make(gp, req->group_id);
        }
    }
    if (e != KAFKA_NONE) {
        join_error(c, req, e, req->member_id);
        return;
    }
    join_group(g, req);
}
