#include "net/frame.h"

#include "base/kafka_error.h"
#include "schema/api_versions.h"
#include "schema/apis.h"
#include "schema/header.h"

enum err frame_parse(struct request *rq, const uint8_t *frame, size_t size)
{
    struct wire_reader r;
    wire_reader_init(&r, frame, size);
    rq->api_key = wire_read_i16(&r);
    rq->api_version = wire_read_i16(&r);
    rq->correlation_id = wire_read_i32(&r);
    rq->client_id = WIRE_NULL_STR;
    rq->body = frame + size;
    rq->body_size = 0;
    const struct codec_api *api = codec_api_find(rq->api_key);
    if (r.err != ERR_OK || !codec_api_served(api, rq->api_version)) {
        return r.err;
    }
    struct request_header h;
    wire_reader_init(&r, frame, size);
    request_header_decode(&r, codec_request_header(api, rq->api_version),
                          &rq->arena, &h);
    if (r.err != ERR_OK) {
        return r.err;
    }
    rq->client_id = h.client_id;
    rq->body = r.p;
    rq->body_size = wire_left(&r);
    return ERR_OK;
}

/* In the format of version 0 with this API alone, so that the client learns
 * which versions it can ask in. */
static void answer_api_versions_v0(struct request *rq,
                                   const struct codec_api *api)
{
    struct api_versions_response_api_key key = {
        .api_key = api->key,
        .min_version = api->offer_min,
        .max_version = api->offer_max,
    };
    struct api_versions_response answer;
    api_versions_response_init(&answer);
    answer.error_code = KAFKA_UNSUPPORTED_VERSION;
    answer.api_keys = &key;
    answer.n_api_keys = 1;
    rq->api_version = 0;
    request_respond(rq, &api_versions_response_message, &answer);
}

bool frame_check(struct request *rq, bool (*has_handler)(int16_t api_key))
{
    const struct codec_api *api = codec_api_find(rq->api_key);
    if (api == NULL || !api->now || !has_handler(rq->api_key)) {
        request_close(rq, "an API that is not offered");
        return false;
    }
    if (codec_api_served(api, rq->api_version)) {
        return true;
    }
    if (rq->api_key == API_API_VERSIONS) {
        answer_api_versions_v0(rq, api);
        return false;
    }
    request_close(rq, "a version that is not served");
    return false;
}
