#include "net/api/group_api.h"
#include "schema/offset_commit.h"

struct commit_call {
    struct group_step step;
    struct offset_commit_request in;
    struct coordinator_commit commit;
};

static void respond(struct group_step *step)
{
    struct commit_call *call = (struct commit_call *)step;
    struct request *rq = step->rq;
    const struct coordinator_commit *commit = &call->commit;
    struct offset_commit_response out;
    offset_commit_response_init(&out);
    out.topics = api_alloc(rq, (size_t)call->in.n_topics, sizeof *out.topics);
    out.n_topics = call->in.n_topics;
    int k = 0;
    for (int t = 0; t < call->in.n_topics; t++) {
        const struct offset_commit_request_topic *ti = &call->in.topics[t];
        struct offset_commit_response_topic *to = &out.topics[t];
        to->name = ti->name;
        to->topic_id = ti->topic_id;
        to->partitions =
            api_alloc(rq, (size_t)ti->n_partitions, sizeof *to->partitions);
        to->n_partitions = ti->n_partitions;
        for (int p = 0; p < ti->n_partitions; p++, k++) {
            to->partitions[p].partition_index =
                ti->partitions[p].partition_index;
            to->partitions[p].error_code =
                (int16_t)(commit->error != KAFKA_NONE
                              ? commit->error
                              : commit->offsets[k].error);
        }
    }
    request_respond(rq, &offset_commit_response_message, &out);
}

static void committed(struct coordinator_commit *commit)
{
    struct commit_call *call = commit->arg;
    shard_task_end(&call->step.task);
}

static void commit_start(struct group_step *step, struct coordinator *c)
{
    struct commit_call *call = (struct commit_call *)step;
    coordinator_commit(c, &call->commit);
}

static void fill_offsets(struct commit_call *call, struct request *rq)
{
    const struct offset_commit_request *in = &call->in;
    size_t n = 0;
    for (int t = 0; t < in->n_topics; t++) {
        n += (size_t)in->topics[t].n_partitions;
    }
    struct coordinator_commit_offset *o = api_alloc(rq, n, sizeof *o);
    call->commit.offsets = o;
    call->commit.n_offsets = (int)n;
    for (int t = 0; t < in->n_topics; t++) {
        const struct offset_commit_request_topic *ti = &in->topics[t];
        for (int p = 0; p < ti->n_partitions; p++, o++) {
            const struct offset_commit_request_partition *pi =
                &ti->partitions[p];
            const struct image_topic *topic = NULL;
            o->error = api_find_partition(rq->shard, ti->name, &ti->topic_id,
                                          pi->partition_index, &topic);
            o->topic = api_text(ti->name);
            o->topic_id = ti->topic_id;
            if (topic != NULL) { /* the image may change meanwhile */
                o->topic = api_text(api_copy(rq, topic->name));
                o->topic_id = topic->id;
            }
            o->partition = pi->partition_index;
            o->offset.v = pi->committed_offset;
            o->leader_epoch = pi->committed_leader_epoch;
            o->metadata = api_text(pi->committed_metadata);
        }
    }
}

void api_offset_commit(struct request *rq)
{
    struct commit_call *call = api_alloc(rq, 1, sizeof *call);
    if (!request_decode(rq, &offset_commit_request_message, &call->in)) {
        return;
    }
    const struct offset_commit_request *in = &call->in;
    call->commit = (struct coordinator_commit){
        .api_version = rq->api_version,
        .group_id = api_text(in->group_id),
        .member_id = api_text(in->member_id),
        .instance_id = api_text(in->group_instance_id),
        .generation_id = in->generation_id_or_member_epoch,
        .cb = committed,
        .arg = call,
    };
    fill_offsets(call, rq);
    call->step.start = commit_start;
    call->step.back = respond;
    group_api_run(rq, &call->step, in->group_id, &call->commit.index,
                  &call->commit.error);
}
