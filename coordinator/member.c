/* Members of a classic group, the ids given out that nobody uses yet, and the
 * choice of the protocol. */
#include "base/assert.h"
#include "base/log.h"
#include "coordinator/impl.h"

/* ---- members ------------------------------------------------------------- */
struct group_member *group_member_find(struct classic_group *g, struct text id)
{
    struct group_member *m = NULL;
    if (id.n > 0) {
        HASH_FIND(hh, g->members, id.p, (size_t)id.n, m);
    }
    return m;
}

struct group_member *group_member_by_instance(struct classic_group *g,
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

bool group_member_leads(const struct group_member *m)
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

bool group_member_matches(const struct group_member *m,
                          const struct coordinator_join *req)
{
    if (m->n_protocols != req->n_protocols) {
        return false;
    }
    for (int i = 0; i < m->n_protocols; i++) {
        const struct blob *b = &req->protocols[i].metadata;
        struct text theirs = {.p = (const char *)b->p,
                              .n = b->n < 0 ? 0 : b->n};
        if (!bytes_is(&m->protocols[i].name, req->protocols[i].name) ||
            !bytes_is(&m->protocols[i].metadata, theirs)) {
            return false;
        }
    }
    return true;
}

struct text group_member_subscription(const struct group_member *m,
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

void group_member_update(struct group_member *m,
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

static void session_expired(struct env_timer *timer)
{
    struct group_member *m = timer->arg;
    if (m->join != NULL || m->sync != NULL) {
        group_member_touch(m); /* who waits for us is alive */
        return;
    }
    log_info("coordinator", "member is silent and removed group=%s member=%s",
             m->group->id.p, m->id.p);
    classic_group_remove(m->group, m);
}

void group_member_touch(struct group_member *m)
{
    env_timer_start(&m->session, (uint64_t)m->session_timeout_ms);
}

struct group_member *group_member_add(struct classic_group *g, struct text id,
                                      struct text instance)
{
    struct group_member *m = mem_zalloc(sizeof *m);
    m->group = g;
    bytes_set(&m->id, id.p, id.n);
    bytes_set(&m->instance_id, instance.p, instance.n);
    bytes_set(&m->assignment, "", 0);
    env_timer_init(classic_group_env(g), &m->session, session_expired, m);
    HASH_ADD_KEYPTR(hh, g->members, m->id.p, (size_t)m->id.n, m);
    return m;
}

void group_member_free(struct group_member *m)
{
    ASSERT(m->join == NULL && m->sync == NULL);
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

void group_member_park(struct group_member *m, struct coordinator_join *req)
{
    struct coordinator_join *older = group_member_unpark(m);
    if (older != NULL) { /* it asked twice: only the newer one counts */
        join_error(m->group->owner->c, older, KAFKA_REBALANCE_IN_PROGRESS,
                   bytes_text(&m->id));
    }
    m->join = req;
    m->group->n_joined++;
}

struct coordinator_join *group_member_unpark(struct group_member *m)
{
    struct coordinator_join *req = m->join;
    if (req != NULL) {
        ASSERT(m->group->n_joined > 0);
        m->group->n_joined--;
        m->join = NULL;
    }
    return req;
}

void group_member_dismiss(struct group_member *m, enum kafka_error why)
{
    struct coordinator *c = m->group->owner->c;
    struct coordinator_join *join = group_member_unpark(m);
    if (join != NULL) {
        join_error(c, join, why, bytes_text(&m->id));
    }
    if (m->sync != NULL) {
        sync_error(c, m->sync, why);
        m->sync = NULL;
    }
}

/* ---- pending members ----------------------------------------------------- */
void pending_member_free(struct pending_member *p)
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
    pending_member_free(p);
    classic_group_maybe_complete(g);
    classic_group_forget_unused(g);
}

void pending_member_add(struct classic_group *g, struct text id,
                        int32_t timeout_ms)
{
    struct pending_member *p = mem_zalloc(sizeof *p);
    p->group = g;
    bytes_set(&p->id, id.p, id.n);
    env_timer_init(classic_group_env(g), &p->expiry, pending_expired, p);
    env_timer_start(&p->expiry, (uint64_t)timeout_ms);
    HASH_ADD_KEYPTR(hh, g->pending, p->id.p, (size_t)p->id.n, p);
}

struct pending_member *pending_member_find(struct classic_group *g,
                                           struct text id)
{
    struct pending_member *p = NULL;
    if (id.n > 0) {
        HASH_FIND(hh, g->pending, id.p, (size_t)id.n, p);
    }
    return p;
}

/* ---- the protocol -------------------------------------------------------- */
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

const struct bytes *classic_group_vote(struct classic_group *g)
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

bool classic_group_supports(struct classic_group *g,
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
