/* ApiVersions: what we offer. A version that we do not know never reaches
 * this: the connection answers it in the form of version 0. */
#include "net/api/api.h"
#include "schema/api_versions.h"

void api_api_versions(struct request *rq)
{
    struct api_versions_request in;
    if (!request_decode(rq, &api_versions_request_message, &in)) {
        return;
    }
    struct api_versions_response out;
    api_versions_response_init(&out);
    if (rq->api_version >= 5 && in.node_id >= 0 &&
        in.node_id != broker_node(rq->shard->broker)) {
        out.error_code = KAFKA_REBOOTSTRAP_REQUIRED;
    }
    out.api_keys = api_alloc(rq, (size_t)codec_n_apis, sizeof *out.api_keys);
    for (int i = 0; i < codec_n_apis; i++) {
        const struct codec_api *api = &codec_apis[i];
        if (api->offer_min < 0 || !api->now || !request_has_handler(api->key)) {
            continue;
        }
        out.api_keys[out.n_api_keys++] = (struct api_versions_response_api_key){
            .api_key = api->key,
            .min_version = api->offer_min,
            .max_version = api->offer_max,
        };
    }
    request_respond(rq, &api_versions_response_message, &out);
}
