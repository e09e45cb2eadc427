/* ApiVersions: what we offer. A version that we do not know never reaches
 * this: the connection answers it in the form of version 0. */
#include "net/api/api.h"
#include "schema/api_versions.h"

/* What Kafka 4.3 calls the level of its metadata, for tools that ask: fixed
 * here. Features that a client would rely on are not told of. */
#define METADATA_VERSION_MIN 7
#define METADATA_VERSION 30

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c >= '0' && c <= '9');
}

/* Words with dots and dashes inside, as the name and version of a client's
 * software must be. */
static bool software_valid(struct wire_str s)
{
    for (int32_t i = 0; i < s.n; i++) {
        bool inside = i > 0 && i < s.n - 1;
        if (!is_word(s.p[i]) && !(inside && (s.p[i] == '.' || s.p[i] == '-'))) {
            return false;
        }
    }
    return s.n > 0;
}

/* The client believes that it talks to another broker or cluster. */
static bool is_another(const struct request *rq,
                       const struct api_versions_request *in)
{
    char cluster[UUID_TEXT_SIZE];
    uuid_format(image_cluster_id(rq->shard->image), cluster);
    return (in->node_id >= 0 &&
            in->node_id != broker_node(rq->shard->broker)) ||
           (in->cluster_id.n >= 0 && !wire_str_is(in->cluster_id, cluster));
}

void api_api_versions(struct request *rq)
{
    struct api_versions_request in;
    if (!request_decode(rq, &api_versions_request_message, &in)) {
        return;
    }
    struct api_versions_response out;
    api_versions_response_init(&out);
    if (rq->api_version >= 5 && is_another(rq, &in)) {
        out.error_code = KAFKA_REBOOTSTRAP_REQUIRED;
    }
    if (rq->api_version >= 3 && !(software_valid(in.client_software_name) &&
                                  software_valid(in.client_software_version))) {
        out.error_code = KAFKA_INVALID_REQUEST;
        request_respond(rq, &api_versions_response_message, &out);
        return;
    }
    out.supported_features = api_alloc(rq, 1, sizeof *out.supported_features);
    out.supported_features[out.n_supported_features++] =
        (struct api_versions_response_supported_feature){
            .name = WIRE_STR("metadata.version"),
            .min_version = METADATA_VERSION_MIN,
            .max_version = METADATA_VERSION,
        };
    out.finalized_features_epoch = 1;
    out.finalized_features = api_alloc(rq, 1, sizeof *out.finalized_features);
    out.finalized_features[out.n_finalized_features++] =
        (struct api_versions_response_finalized_feature){
            .name = WIRE_STR("metadata.version"),
            .max_version_level = METADATA_VERSION,
            .min_version_level = METADATA_VERSION,
        };
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
