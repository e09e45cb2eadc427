/* One request of a client on its way through the handlers. Made by a
 * connection (or by net/route for a forwarded one), answered exactly once.
 * Everything happens on the shard of the connection. */
#ifndef NET_REQUEST_H
#define NET_REQUEST_H

#include "base/arena.h"
#include "base/codec.h"
#include "base/wire.h"

struct broker_shard;

struct request {
    struct broker_shard *shard;
    struct arena arena; /* decoded structs and the answer's parts; lives
                         * until the response is written */
    int16_t api_key;
    int16_t api_version;
    int32_t correlation_id;
    struct wire_str client_id; /* views into the frame, like the body */
    const uint8_t *body;       /* without header */
    size_t body_size;
    const char *client_host; /* "ip" of the client, for DescribeGroups */
    const char *listener;    /* name of the listener it came by */

    /* What quotas need (net/throttle.h). */
    uint64_t begun_ns;    /* since its handler runs; 0: it has returned */
    uint64_t spent_ns;    /* what handlers and answering took */
    uint32_t throttle_ms; /* the client is to wait: its connection is not read
                           * for as long once it is answered; set before
                           * `deliver` */
    bool counted;         /* quotas know of it */

    /* Set by the handler before it answers; called once when the bytes of the
     * response are written or dropped (pins of fetched data). May be NULL. */
    void (*release)(struct request *rq);
    void *handler_data; /* the handler's */
    /* Called when the connection is gone before the answer: the handler may
     * give up waiting, but must still answer (it is thrown away). May be
     * NULL. */
    void (*abandoned)(struct request *rq);

    /* Set by who made the request (a connection, net/route): takes the frame
     * (NULL: nothing is answered), or closes the connection because of `why`;
     * then calls `release` when the bytes are gone, and frees the request. */
    void (*deliver)(struct request *rq, struct wire_writer *frame,
                    const char *why);
    void *origin;         /* of the maker */
    struct request *next; /* of the maker */
};

/* Reads the body into a struct of the generated codec (`fetch_request_message`
 * and so on). False when it is malformed: the request was then closed. */
bool request_decode(struct request *rq, const struct codec_message *message,
                    void *out);
/* Answers with a struct of the generated codec: frame, header, body. Nothing
 * of rq may be touched afterwards. */
void request_respond(struct request *rq, const struct codec_message *message,
                     const void *in);
/* Answers with nothing (acks=0). */
void request_no_response(struct request *rq);
/* The request cannot be understood or must not be answered: closes the
 * connection; `why` (static) is logged. */
void request_close(struct request *rq, const char *why);

/* Hands the request to the handler of its API (net/dispatch.c has the table).
 * Key and version were checked against what we offer and serve. */
void request_dispatch(struct request *rq);
/* Whether an API has a handler: only those are offered. */
bool request_has_handler(int16_t api_key);

#endif
