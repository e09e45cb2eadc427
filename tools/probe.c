#include "tools/probe.h"

#include "base/mem.h"
#include "schema/apis.h"
#include "schema/metadata.h"
#include "tools/wire_call.h"

#define PROBE_VERSION 12

bool probe_broker(const char *address, int timeout_ms, struct probe *out,
                  char *why, size_t why_size)
{
    void *frame;
    struct arena arena;
    struct metadata_request request;
    struct metadata_response response;
    struct wire_call call = {.addresses = address,
                             .timeout_ms = timeout_ms,
                             .api = API_METADATA,
                             .version = PROBE_VERSION};
    metadata_request_init(&request); /* no topics */
    request.allow_auto_topic_creation = false;
    arena_init(&arena, 1 << 20);
    bool ok =
        wire_call(&call, &request, &arena, &response, &frame, why, why_size);
    if (ok) {
        out->n_brokers = response.n_brokers;
        out->controller = response.controller_id;
    }
    mem_free(frame);
    arena_free(&arena);
    return ok;
}
