#include "net/request.h"

#include "net/throttle.h"

void request_respond(struct request *rq, const struct codec_message *message,
                     const void *in)
{
    const struct codec_api *api = codec_api_find(rq->api_key);
    struct wire_writer w;
    wire_writer_init(&w, 0);
    wire_write_i32(&w, 0); /* size, known at the end */
    wire_write_i32(&w, rq->correlation_id);
    if (codec_response_header(api, rq->api_version) == 1) {
        wire_write_uvarint(&w, 0); /* no tagged fields */
    }
    codec_encode(message, &w, in, rq->api_version);
    wire_patch_i32(&w, 0, (int32_t)(w.size - 4));
    if (!throttle_answer(rq, message, in, &w)) {
        rq->deliver(rq, &w, NULL);
    }
}

bool request_decode(struct request *rq, const struct codec_message *message,
                    void *out)
{
    struct wire_reader r;
    wire_reader_init(&r, rq->body, rq->body_size);
    codec_decode(message, &r, rq->api_version, &rq->arena, out);
    if (r.err != ERR_OK) {
        request_close(rq, "malformed request body");
        return false;
    }
    return true;
}

void request_no_response(struct request *rq)
{
    if (!throttle_answer(rq, NULL, NULL, NULL)) {
        rq->deliver(rq, NULL, NULL);
    }
}

void request_close(struct request *rq, const char *why)
{
    rq->deliver(rq, NULL, why);
}
