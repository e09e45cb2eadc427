/* DescribeQuorum: the Raft group of the metadata, under the name that Kafka's
 * tools ask for, as its leader sees it. */
#include <stdio.h>
#include <stdlib.h>

#include "metadata/config_listeners.h"
#include "net/api/api.h"
#include "schema/describe_quorum.h"

#define QUORUM_TOPIC "__cluster_metadata"
#define QUORUM_WAIT_MS 5000

struct quorum_call {
    struct describe_quorum_request in;
    struct api_metadata_step step;
};

static void answer_nodes(struct request *rq, const struct metadata_quorum *q,
                         struct describe_quorum_response *out)
{
    out->nodes = api_alloc(rq, (size_t)q->n_voters, sizeof *out->nodes);
    for (int i = 0; i < q->n_voters; i++) {
        const struct image_broker *broker =
            image_broker(rq->shard->image, q->voters[i].node);
        char host[LIMIT_ADDRESS];
        int32_t port = 0;
        if (broker == NULL || !config_address_split(broker->peer_address, host,
                                                    sizeof host, &port)) {
            continue;
        }
        struct describe_quorum_response_listener *l =
            api_alloc(rq, 1, sizeof *l);
        l->name = WIRE_STR("CONTROLLER");
        l->host = api_copy(rq, host);
        l->port = (uint16_t)port;
        out->nodes[out->n_nodes++] = (struct describe_quorum_response_node){
            .node_id = broker->node, .listeners = l, .n_listeners = 1};
    }
}

static void answer_voters(struct request *rq, const struct metadata_quorum *q,
                          struct describe_quorum_response_partition *out)
{
    struct describe_quorum_response_replica_state *voters =
        api_alloc(rq, (size_t)q->n_voters, sizeof *voters);
    for (int i = 0; i < q->n_voters; i++) {
        voters[i] = (struct describe_quorum_response_replica_state){
            .replica_id = q->voters[i].node,
            .replica_directory_id = q->voters[i].directory,
            .log_end_offset = (int64_t)q->voters[i].end.v + 1,
            .last_fetch_timestamp = q->voters[i].heard_ms,
            .last_caught_up_timestamp = q->voters[i].caught_up_ms,
        };
    }
    out->leader_id = q->leader;
    out->leader_epoch = q->epoch;
    out->high_watermark = (int64_t)q->committed.v + 1;
    out->current_voters = voters;
    out->n_current_voters = q->n_voters;
    out->error_message = WIRE_STR("");
}

static bool asks_for_quorum(const struct describe_quorum_request *in)
{
    return in->n_topics == 1 && in->topics[0].n_partitions == 1 &&
           wire_str_is(in->topics[0].topic_name, QUORUM_TOPIC) &&
           in->topics[0].partitions[0].partition_index == 0;
}

/* Each partition that was named, unknown. */
static void answer_unknown(struct request *rq,
                           const struct describe_quorum_request *in,
                           struct describe_quorum_response *out)
{
    out->topics = api_alloc(rq, (size_t)in->n_topics, sizeof *out->topics);
    out->n_topics = in->n_topics;
    for (int t = 0; t < in->n_topics; t++) {
        int n = in->topics[t].n_partitions;
        struct describe_quorum_response_topic *to = &out->topics[t];
        to->topic_name = in->topics[t].topic_name;
        to->partitions = api_alloc(rq, (size_t)n, sizeof *to->partitions);
        to->n_partitions = n;
        for (int p = 0; p < n; p++) {
            to->partitions[p].partition_index =
                in->topics[t].partitions[p].partition_index;
            to->partitions[p].error_code = KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
            to->partitions[p].error_message =
                WIRE_STR("This server does not host this topic-partition.");
        }
    }
}

static void quorum_back(struct api_metadata_step *step)
{
    struct request *rq = step->rq;
    struct quorum_call *call = rq->handler_data;
    const struct metadata_quorum *q = &step->call.quorum;
    struct describe_quorum_response out;
    describe_quorum_response_init(&out);
    out.error_message = WIRE_STR("");
    out.error_code = (int16_t)step->call.error;
    if (step->call.error == KAFKA_NONE) {
        struct describe_quorum_response_topic *to =
            api_alloc(rq, 1, sizeof *to);
        to->topic_name = call->in.topics[0].topic_name;
        to->partitions = api_alloc(rq, 1, sizeof *to->partitions);
        to->n_partitions = 1;
        answer_voters(rq, q, &to->partitions[0]);
        answer_nodes(rq, q, &out);
        out.topics = to;
        out.n_topics = 1;
    }
    request_respond(rq, &describe_quorum_response_message, &out);
}

static void quorum_start(struct api_metadata_step *step, struct metadata *m)
{
    metadata_sync(m, QUORUM_WAIT_MS, &step->call);
}

void api_describe_quorum(struct request *rq)
{
    struct quorum_call *call = api_alloc(rq, 1, sizeof *call);
    rq->handler_data = call;
    if (!request_decode(rq, &describe_quorum_request_message, &call->in)) {
        return;
    }
    if (!asks_for_quorum(&call->in)) {
        struct describe_quorum_response out;
        describe_quorum_response_init(&out);
        out.error_message = WIRE_STR("");
        answer_unknown(rq, &call->in, &out);
        request_respond(rq, &describe_quorum_response_message, &out);
        return;
    }
    call->step.then = quorum_start;
    call->step.back = quorum_back;
    api_metadata_begin(rq, &call->step);
}
