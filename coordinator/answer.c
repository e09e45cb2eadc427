/* Answers to JoinGroup and SyncGroup: what they say is copied at the moment of
 * the decision, the caller hears of it later. */
#include "coordinator/impl.h"

static void join_fire(struct answer *a)
{
    struct coordinator_join *req = a->req;
    req->cb(req);
}

void join_fill_error(struct answer *a, enum kafka_error error,
                     struct text member_id)
{
    struct coordinator_join *req = a->req;
    req->error = error;
    req->generation_id = -1;
    req->out_protocol_type = (struct text){.p = NULL, .n = -1};
    req->protocol_name = (struct text){.p = NULL, .n = -1};
    req->leader = TEXT("");
    req->out_member_id = answer_text(a, member_id);
    req->skip_assignment = false;
    req->n_members = 0;
}

void join_error(struct coordinator *c, struct coordinator_join *req,
                enum kafka_error error, struct text member_id)
{
    struct answer *a = answer_new(c, req, join_fire);
    join_fill_error(a, error, member_id);
    answer_send(c, a);
}

static void answer_members(struct answer *a, struct classic_group *g,
                           struct coordinator_join *req)
{
    size_t n = HASH_COUNT(g->members);
    struct coordinator_member *out = arena_array(&a->arena, n, sizeof *out);
    int i = 0;
    for (struct group_member *m = g->members; m != NULL; m = m->hh.next) {
        struct text sub = group_member_subscription(m, &g->protocol);
        out[i].member_id = answer_text(a, bytes_text(&m->id));
        out[i].instance_id = answer_text(a, bytes_text(&m->instance_id));
        out[i].metadata = answer_blob(
            a, (struct blob){.p = (const uint8_t *)sub.p, .n = sub.n});
        i++;
    }
    req->members = out;
    req->n_members = i;
}

struct answer *join_answer(struct group_member *m, struct coordinator_join *req,
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
    req->skip_assignment = false;
    req->n_members = 0;
    if (with_members) {
        answer_members(a, g, req);
    }
    return a;
}

void join_ok(struct group_member *m, struct coordinator_join *req)
{
    answer_send(m->group->owner->c, join_answer(m, req, group_member_leads(m)));
}

static void sync_fire(struct answer *a)
{
    struct coordinator_sync *req = a->req;
    req->cb(req);
}

void sync_error(struct coordinator *c, struct coordinator_sync *req,
                enum kafka_error error)
{
    struct answer *a = answer_new(c, req, sync_fire);
    req->error = error;
    req->out_protocol_type = (struct text){.p = NULL, .n = -1};
    req->out_protocol_name = (struct text){.p = NULL, .n = -1};
    req->assignment = (struct blob){.p = NULL, .n = 0};
    answer_send(c, a);
}

void sync_ok(struct group_member *m, struct coordinator_sync *req)
{
    struct classic_group *g = m->group;
    struct answer *a = answer_new(g->owner->c, req, sync_fire);
    req->error = KAFKA_NONE;
    req->out_protocol_type = answer_text(a, bytes_text(&g->protocol_type));
    req->out_protocol_name = answer_text(a, bytes_text(&g->protocol));
    req->assignment = answer_blob(a, bytes_blob(&m->assignment));
    answer_send(g->owner->c, a);
}
