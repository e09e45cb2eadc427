/* OffsetFetch: up to version 7 one group, from 8 on several; each group is
 * asked at its coordinator's shard. */
#include "net/api/group_api.h"
#include "schema/offset_fetch.h"

struct fetch_call;

struct fetch_group {
    struct group_step step;
    struct fetch_call *call;
    struct coordinator_fetch fetch;
    struct coordinator_fetched_offset *kept; /* of an `all` fetch */
    int n_kept;
    const struct offset_fetch_request_group *in; /* version 8 and later */
};

struct fetch_call {
    struct request *rq;
    struct offset_fetch_request in;
    struct fetch_group *groups;
    int n_groups;
    int next; /* group to be asked, version 8 and later */
};

static bool same_topic(const struct coordinator_fetched_offset *a,
                       const struct coordinator_fetched_offset *b)
{
    return wire_str_equal(api_wire(a->topic), api_wire(b->topic));
}

static struct uuid topic_id_of(struct request *rq, struct text name)
{
    const struct image_topic *topic = NULL;
    api_find_topic(rq->shard, api_wire(name), NULL, &topic);
    return topic == NULL ? (struct uuid){{0}} : topic->id;
}

static const struct coordinator_fetched_offset *offsets_of(
    const struct fetch_group *g, int *n)
{
    if (g->fetch.error != KAFKA_NONE) {
        *n = 0;
        return NULL;
    }
    *n = g->fetch.all ? g->n_kept : g->fetch.n_offsets;
    return g->fetch.all ? g->kept : g->fetch.offsets;
}

/* Before version 2 there is no room for an error of the whole but in each
 * partition: a client that finds none takes it that nothing was committed. */
static void spread_error(struct fetch_group *g)
{
    for (int i = 0; i < g->fetch.n_offsets; i++) {
        struct coordinator_fetched_offset *o = &g->fetch.offsets[i];
        o->offset.v = -1;
        o->leader_epoch = -1;
        o->metadata = (struct text){.p = "", .n = 0};
        o->error = g->fetch.error;
    }
    g->fetch.error = KAFKA_NONE;
}

static void respond_old(struct fetch_call *call)
{
    struct request *rq = call->rq;
    struct fetch_group *g = &call->groups[0];
    struct offset_fetch_response out;
    offset_fetch_response_init(&out);
    if (rq->api_version < 2 && g->fetch.error != KAFKA_NONE) {
        spread_error(g);
    }
    int n = 0;
    const struct coordinator_fetched_offset *o = offsets_of(g, &n);
    out.error_code = (int16_t)g->fetch.error;
    out.topics = api_alloc(rq, (size_t)n, sizeof *out.topics);
    for (int i = 0; i < n;) {
        struct offset_fetch_response_topic *t = &out.topics[out.n_topics++];
        int m = 0;
        while (i + m < n && same_topic(&o[i], &o[i + m])) {
            m++;
        }
        t->name = api_wire(o[i].topic);
        t->partitions = api_alloc(rq, (size_t)m, sizeof *t->partitions);
        t->n_partitions = m;
        for (int k = 0; k < m; k++, i++) {
            t->partitions[k].partition_index = o[i].partition;
            t->partitions[k].committed_offset = o[i].offset.v;
            t->partitions[k].committed_leader_epoch = o[i].leader_epoch;
            t->partitions[k].metadata = api_wire(o[i].metadata);
            t->partitions[k].error_code = (int16_t)o[i].error;
        }
    }
    request_respond(rq, &offset_fetch_response_message, &out);
}

static void answer_group(struct request *rq, const struct fetch_group *g,
                         struct offset_fetch_response_group *out)
{
    int n = 0;
    const struct coordinator_fetched_offset *o = offsets_of(g, &n);
    out->group_id = g->in->group_id;
    out->error_code = (int16_t)g->fetch.error;
    out->topics = api_alloc(rq, (size_t)n, sizeof *out->topics);
    for (int i = 0; i < n;) {
        struct uuid id = topic_id_of(rq, o[i].topic);
        int m = 0;
        while (i + m < n && same_topic(&o[i], &o[i + m])) {
            m++;
        }
        if (rq->api_version >= 10 && uuid_is_zero(&id)) {
            i += m; /* deleted: there is no id to tell it by */
            continue;
        }
        struct offset_fetch_response_group_topic *t =
            &out->topics[out->n_topics++];
        t->name = api_wire(o[i].topic);
        t->topic_id = id;
        t->partitions = api_alloc(rq, (size_t)m, sizeof *t->partitions);
        t->n_partitions = m;
        for (int k = 0; k < m; k++, i++) {
            t->partitions[k].partition_index = o[i].partition;
            t->partitions[k].committed_offset = o[i].offset.v;
            t->partitions[k].committed_leader_epoch = o[i].leader_epoch;
            t->partitions[k].metadata = api_wire(o[i].metadata);
            t->partitions[k].error_code = (int16_t)o[i].error;
        }
    }
}

static void answer_unknown_ids(struct request *rq, const struct fetch_group *g,
                               struct offset_fetch_response_group *out)
{
    if (g->fetch.error != KAFKA_NONE || g->in->n_topics <= 0) {
        return;
    }
    struct offset_fetch_response_group_topic *all =
        api_alloc(rq, (size_t)(out->n_topics + g->in->n_topics), sizeof *all);
    for (int t = 0; t < out->n_topics; t++) {
        all[t] = out->topics[t];
    }
    out->topics = all;
    for (int t = 0; t < g->in->n_topics; t++) {
        const struct offset_fetch_request_group_topic *ti = &g->in->topics[t];
        const struct image_topic *topic = NULL;
        if (api_find_topic(rq->shard, ti->name, &ti->topic_id, &topic) !=
            KAFKA_UNKNOWN_TOPIC_ID) {
            continue;
        }
        struct offset_fetch_response_group_topic *to = &all[out->n_topics++];
        to->topic_id = ti->topic_id;
        to->partitions = api_alloc(rq, (size_t)ti->n_partition_indexes,
                                   sizeof *to->partitions);
        to->n_partitions = ti->n_partition_indexes;
        for (int p = 0; p < ti->n_partition_indexes; p++) {
            to->partitions[p].partition_index = ti->partition_indexes[p];
            to->partitions[p].committed_offset = -1;
            to->partitions[p].committed_leader_epoch = -1;
            to->partitions[p].metadata = WIRE_STR("");
            to->partitions[p].error_code = KAFKA_UNKNOWN_TOPIC_ID;
        }
    }
}

static void respond(struct fetch_call *call)
{
    struct request *rq = call->rq;
    if (rq->api_version < 8) {
        respond_old(call);
        return;
    }
    struct offset_fetch_response out;
    offset_fetch_response_init(&out);
    out.groups = api_alloc(rq, (size_t)call->n_groups, sizeof *out.groups);
    out.n_groups = call->n_groups;
    for (int i = 0; i < call->n_groups; i++) {
        answer_group(rq, &call->groups[i], &out.groups[i]);
        if (rq->api_version >= 10) {
            answer_unknown_ids(rq, &call->groups[i], &out.groups[i]);
        }
    }
    request_respond(rq, &offset_fetch_response_message, &out);
}

static void call_go_on(struct fetch_call *call);

static struct text keep(struct group_step *step, struct text t)
{
    if (t.n > 0) {
        t.p = arena_copy(&step->arena, t.p, (size_t)t.n);
    }
    return t;
}

static void fetched(struct coordinator_fetch *fetch)
{
    struct fetch_group *g = fetch->arg;
    struct group_step *step = &g->step;
    if (fetch->all && fetch->error == KAFKA_NONE) {
        g->n_kept = fetch->n_offsets;
        g->kept =
            group_api_alloc(step, (size_t)fetch->n_offsets, sizeof *g->kept);
        for (int i = 0; i < fetch->n_offsets; i++) {
            g->kept[i] = fetch->offsets[i];
            g->kept[i].topic = keep(step, fetch->offsets[i].topic);
            g->kept[i].metadata = keep(step, fetch->offsets[i].metadata);
        }
    } else if (fetch->error == KAFKA_NONE) {
        for (int i = 0; i < fetch->n_offsets; i++) {
            fetch->offsets[i].metadata = keep(step, fetch->offsets[i].metadata);
        }
    }
    shard_task_end(&g->step.task);
}

static void fetch_start(struct group_step *step, struct coordinator *c)
{
    struct fetch_group *g = (struct fetch_group *)step;
    coordinator_fetch(c, &g->fetch);
}

static void fetch_back(struct group_step *step)
{
    struct fetch_group *g = (struct fetch_group *)step;
    call_go_on(g->call);
}

/* False: decided without asking the coordinator. */
static bool group_begin(struct fetch_group *g, struct wire_str group)
{
    struct request *rq = g->call->rq;
    struct broker_shard *owner = NULL;
    g->fetch.api_version = rq->api_version;
    g->fetch.group_id = api_text(group);
    g->fetch.require_stable = g->call->in.require_stable;
    g->fetch.cb = fetched;
    g->fetch.arg = g;
    g->fetch.error = group_api_locate(rq, group, &g->fetch.index, &owner);
    if (g->fetch.error != KAFKA_NONE) {
        return false;
    }
    g->step.start = fetch_start;
    g->step.back = fetch_back;
    group_api_begin(rq, &g->step, owner);
    return true;
}

static void ask(struct coordinator_fetched_offset *o, struct wire_str topic,
                int32_t partition)
{
    o->topic = api_text(topic);
    o->partition = partition;
    o->offset.v = -1;
    o->leader_epoch = -1;
    o->metadata = (struct text){.p = "", .n = 0};
}

static bool begin_old(struct fetch_call *call)
{
    struct request *rq = call->rq;
    const struct offset_fetch_request *in = &call->in;
    struct fetch_group *g = &call->groups[0];
    g->call = call;
    g->fetch.member_epoch = -1;
    g->fetch.member_id = (struct text){.p = NULL, .n = -1};
    g->fetch.all = in->n_topics < 0;
    size_t n = 0;
    for (int t = 0; t < in->n_topics; t++) {
        n += (size_t)in->topics[t].n_partition_indexes;
    }
    struct coordinator_fetched_offset *o = api_alloc(rq, n, sizeof *o);
    g->fetch.offsets = o;
    g->fetch.n_offsets = (int)n;
    for (int t = 0; t < in->n_topics; t++) {
        for (int p = 0; p < in->topics[t].n_partition_indexes; p++) {
            ask(o++, in->topics[t].name, in->topics[t].partition_indexes[p]);
        }
    }
    return group_begin(g, in->group_id);
}

static bool begin_group(struct fetch_call *call, int i)
{
    struct request *rq = call->rq;
    const struct offset_fetch_request_group *in = &call->in.groups[i];
    struct fetch_group *g = &call->groups[i];
    g->call = call;
    g->in = in;
    g->fetch.member_id = api_text(in->member_id);
    g->fetch.member_epoch = in->member_epoch;
    g->fetch.all = in->n_topics < 0;
    size_t n = 0;
    for (int t = 0; t < in->n_topics; t++) {
        n += (size_t)in->topics[t].n_partition_indexes;
    }
    struct coordinator_fetched_offset *o = api_alloc(rq, n, sizeof *o);
    g->fetch.offsets = o;
    for (int t = 0; t < in->n_topics; t++) {
        const struct offset_fetch_request_group_topic *ti = &in->topics[t];
        struct wire_str name = ti->name;
        if (!uuid_is_zero(&ti->topic_id)) {
            const struct image_topic *topic =
                image_topic_by_id(rq->shard->image, &ti->topic_id);
            if (topic == NULL) {
                continue; /* told by answer_unknown_ids */
            }
            name = api_copy(rq, topic->name);
        }
        for (int p = 0; p < ti->n_partition_indexes; p++) {
            ask(&o[g->fetch.n_offsets++], name, ti->partition_indexes[p]);
        }
    }
    return group_begin(g, in->group_id);
}

/* One group after the other. */
static void call_go_on(struct fetch_call *call)
{
    while (call->next < call->n_groups) {
        int i = call->next++;
        bool asked =
            call->rq->api_version < 8 ? begin_old(call) : begin_group(call, i);
        if (asked) {
            return;
        }
    }
    respond(call);
}

void api_offset_fetch(struct request *rq)
{
    struct fetch_call *call = api_alloc(rq, 1, sizeof *call);
    call->rq = rq;
    if (!request_decode(rq, &offset_fetch_request_message, &call->in)) {
        return;
    }
    call->n_groups = rq->api_version < 8 ? 1 : call->in.n_groups;
    call->groups = api_alloc(rq, (size_t)call->n_groups, sizeof *call->groups);
    call_go_on(call);
}
