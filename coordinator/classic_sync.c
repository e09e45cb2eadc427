/* What the members of a classic group ask once they joined: SyncGroup,
 * Heartbeat, LeaveGroup, and whether a commit is theirs. */
#include "base/assert.h"
#include "coordinator/impl.h"

enum kafka_error group_member_check(struct classic_group *g, struct text id,
                                    struct text instance,
                                    struct group_member **out)
{
    struct group_member *m = g == NULL ? NULL : group_member_find(g, id);
    if (g != NULL && instance.n >= 0) {
        struct group_member *by_instance =
            group_member_by_instance(g, instance);
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

static enum kafka_error sync_check(struct classic_group *g,
                                   const struct coordinator_sync *req,
                                   struct group_member **m)
{
    enum kafka_error e =
        group_member_check(g, req->member_id, req->instance_id, m);
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
        e == KAFKA_NONE ? classic_group_find(gp, req->group_id) : NULL;
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
    if (m->sync != NULL) { /* it asked twice: only the newer one counts */
        sync_error(c, m->sync, KAFKA_REBALANCE_IN_PROGRESS);
    }
    m->sync = req;
    m->synced = true;
    if (group_member_leads(m)) {
        classic_group_plan(g, req);
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
    struct classic_group *g = classic_group_find(gp, group_id);
    e = group_member_check(g, member_id, instance_id, &m);
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
    struct pending_member *pending = pending_member_find(g, who->member_id);
    if (pending != NULL) {
        pending_member_free(pending);
        classic_group_maybe_complete(g);
        return KAFKA_NONE;
    }
    struct group_member *m = NULL;
    enum kafka_error e = KAFKA_NONE;
    if (who->member_id.n > 0) {
        e = group_member_check(g, who->member_id, who->instance_id, &m);
    } else { /* an administrator names the instance only */
        m = group_member_by_instance(g, who->instance_id);
        e = m == NULL ? KAFKA_UNKNOWN_MEMBER_ID : KAFKA_NONE;
    }
    if (e == KAFKA_NONE) {
        classic_group_remove(g, m);
    }
    return e;
}

void coordinator_leave(struct coordinator *c, struct coordinator_leave *req)
{
    struct group_partition *gp = NULL;
    req->error = req->group_id.n <= 0 ? KAFKA_INVALID_GROUP_ID
                                      : partition_live(c, req->index, &gp);
    struct classic_group *g =
        req->error == KAFKA_NONE ? classic_group_find(gp, req->group_id) : NULL;
    for (int i = 0; i < req->n_members && req->error == KAFKA_NONE; i++) {
        req->member_errors[i] = g == NULL ? KAFKA_UNKNOWN_MEMBER_ID
                                          : leave_one(g, &req->members[i]);
    }
    if (g != NULL) {
        classic_group_forget_unused(g);
    }
    answer_send(c, answer_new(c, req, leave_fire));
}

enum kafka_error classic_group_check_commit(
    struct classic_group *g, const struct coordinator_commit *req)
{
    struct group_member *m = NULL;
    bool managed = req->generation_id >= 0 || req->member_id.n > 0 ||
                   req->instance_id.n >= 0;
    if (req->generation_id < 0 && (g == NULL || g->state == GROUP_EMPTY)) {
        return KAFKA_NONE; /* a consumer without a group, or an administrator */
    }
    if (g == NULL) {
        return req->api_version >= 9 ? KAFKA_GROUP_ID_NOT_FOUND
                                     : KAFKA_ILLEGAL_GENERATION;
    }
    if (!managed) {
        return KAFKA_UNKNOWN_MEMBER_ID;
    }
    enum kafka_error e =
        group_member_check(g, req->member_id, req->instance_id, &m);
    if (e != KAFKA_NONE) {
        return e;
    }
    if (req->generation_id != g->generation) {
        return KAFKA_ILLEGAL_GENERATION;
    }
    if (g->state == GROUP_COMPLETING) {
        return KAFKA_REBALANCE_IN_PROGRESS;
    }
    group_member_touch(m); /* as good as a heartbeat */
    return KAFKA_NONE;
}
