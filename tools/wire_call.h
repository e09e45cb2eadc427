/* One request of the Kafka wire and its answer, blocking: for what the client
 * library does not speak. */
#ifndef TOOLS_WIRE_CALL_H
#define TOOLS_WIRE_CALL_H

#include <stdint.h>

#include "base/codec.h"

#define WIRE_CALL_ANSWER_MAX (64 << 20)

struct wire_call {
    const char *addresses; /* "host:port,..." asked in turn until one answers */
    int timeout_ms;        /* for each */
    int16_t api;
    int version;
};
/* Sends `request` and decodes the answer into `response`, whose arrays are
 * taken from `arena` and whose text points into `*frame`: mem_free(*frame) is
 * the caller's, also after an error (NULL then). False: `why` is a phrase. */
bool wire_call(const struct wire_call *call, const void *request,
               struct arena *arena, void *response, void **frame, char *why,
               size_t why_size);

#endif
