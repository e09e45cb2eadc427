#include "net/api/api.h"
#include "schema/describe_cluster.h"

#define CLUSTER_OPERATIONS 8096 /* everything the cluster resource supports */

void api_describe_cluster(struct request *rq)
{
    struct describe_cluster_request in;
    if (!request_decode(rq, &describe_cluster_request_message, &in)) {
        return;
    }
    struct broker_shard *s = rq->shard;
    struct describe_cluster_response out;
    describe_cluster_response_init(&out);
    if (rq->api_version >= 1 && in.endpoint_type != 1) {
        out.error_code = in.endpoint_type == 2
                             ? KAFKA_MISMATCHED_ENDPOINT_TYPE
                             : KAFKA_UNSUPPORTED_ENDPOINT_TYPE;
        out.error_message = WIRE_STR("This listener serves brokers.");
        request_respond(rq, &describe_cluster_response_message, &out);
        return;
    }
    char id[UUID_TEXT_SIZE];
    uuid_format(image_cluster_id(s->image), id);
    out.cluster_id = api_copy(rq, id);
    out.controller_id = broker_controller(s->broker);
    const struct image_broker *const *brokers = NULL;
    int n = image_brokers(s->image, &brokers);
    out.brokers = api_alloc(rq, (size_t)n, sizeof *out.brokers);
    for (int i = 0; i < n; i++) {
        if (!brokers[i]->live && !in.include_fenced_brokers) {
            continue;
        }
        struct api_address address = api_address_of(rq, brokers[i]);
        out.brokers[out.n_brokers++] =
            (struct describe_cluster_response_broker){
                .broker_id = brokers[i]->node,
                .host = address.host,
                .port = address.port,
                .rack = wire_str_of(brokers[i]->rack),
                .is_fenced = !brokers[i]->live,
            };
    }
    if (in.include_cluster_authorized_operations) {
        out.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    request_respond(rq, &describe_cluster_response_message, &out);
}
