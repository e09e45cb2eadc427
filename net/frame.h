/* A request's frame: the header apart from the body, and what can be refused
 * without asking a handler. */
#ifndef NET_FRAME_H
#define NET_FRAME_H

#include "base/codec.h"
#include "net/request.h"

#define FRAME_SIZE_BYTES 4
/* api key, version, correlation id: nothing valid is shorter. */
#define FRAME_MIN 8

/* Reads the header from a whole frame (without its size) and sets api_key,
 * api_version, correlation_id, client_id, body and body_size of `rq`, as views
 * into the frame. For an API or version that is not served only the first
 * three are set and the body is empty, as nobody can say where it begins.
 * ERR_INVALID: malformed. */
MUST_USE enum err frame_parse(struct request *rq, const uint8_t *frame,
                              size_t size);

/* True: the request may go to its handler. Otherwise it is dealt with here and
 * must not be touched again: an ApiVersions in an unknown version is
 * answered as clients of any age can read it; any other API or version closes
 * the connection, as Kafka does. */
bool frame_check(struct request *rq, bool (*has_handler)(int16_t api_key));

#endif
