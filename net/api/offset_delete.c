#include "net/api/group_api.h"
#include "schema/offset_delete.h"

struct delete_call {
    struct group_step step;
    struct offset_delete_request in;
    struct coordinator_offset_delete delete;
};

static void respond(struct group_step *step)
{
    struct delete_call *call = (struct delete_call *)step;
    struct request *rq = step->rq;
    const struct offset_delete_request *in = &call->in;
    struct offset_delete_response out;
    offset_delete_response_init(&out);
    out.error_code = (int16_t)call->delete.error;
    if (call->delete.error == KAFKA_NONE) {
        out.topics = api_alloc(rq, (size_t)in->n_topics, sizeof *out.topics);
        out.n_topics = in->n_topics;
    }
    int k = 0;
    for (int t = 0; t < out.n_topics; t++) {
        const struct offset_delete_request_topic *ti = &in->topics[t];
        struct offset_delete_response_topic *to = &out.topics[t];
        to->name = ti->name;
        to->partitions =
            api_alloc(rq, (size_t)ti->n_partitions, sizeof *to->partitions);
        to->n_partitions = ti->n_partitions;
        for (int p = 0; p < ti->n_partitions; p++, k++) {
            to->partitions[p].partition_index =
                ti->partitions[p].partition_index;
            to->partitions[p].error_code =
                (int16_t)call->delete.offsets[k].error;
        }
    }
    request_respond(rq, &offset_delete_response_message, &out);
}

static void deleted(struct coordinator_offset_delete *delete)
{
    struct delete_call *call = delete->arg;
    shard_task_end(&call->step.task);
}

static void delete_start(struct group_step *step, struct coordinator *c)
{
    struct delete_call *call = (struct delete_call *)step;
    coordinator_offset_delete(c, &call->delete);
}

static void fill_offsets(struct delete_call *call, struct request *rq)
{
    const struct offset_delete_request *in = &call->in;
    size_t n = 0;
    for (int t = 0; t < in->n_topics; t++) {
        n += (size_t)in->topics[t].n_partitions;
    }
    struct coordinator_deleted_offset *o = api_alloc(rq, n, sizeof *o);
    call->delete.offsets = o;
    call->delete.n_offsets = (int)n;
    for (int t = 0; t < in->n_topics; t++) {
        for (int p = 0; p < in->topics[t].n_partitions; p++, o++) {
            o->topic = api_text(in->topics[t].name);
            o->partition = in->topics[t].partitions[p].partition_index;
            const struct image_topic *topic = NULL;
            o->error = api_find_partition(rq->shard, in->topics[t].name, NULL,
                                          o->partition, &topic);
        }
    }
}

void api_offset_delete(struct request *rq)
{
    struct delete_call *call = api_alloc(rq, 1, sizeof *call);
    if (!request_decode(rq, &offset_delete_request_message, &call->in)) {
        return;
    }
    call->delete = (struct coordinator_offset_delete){
        .group_id = api_text(call->in.group_id), .cb = deleted, .arg = call};
    fill_offsets(call, rq);
    call->step.start = delete_start;
    call->step.back = respond;
    group_api_run(rq, &call->step, call->in.group_id, &call->delete.index,
                  &call->delete.error);
}
