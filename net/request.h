/* One request of a client on its way through the handlers. Made by a
 * connection (or by net/route for a forwarded one), answered exactly once.
 * Everything happens on the shard of the connection. */
#ifndef NET_REQUEST_H
#define NET_REQUEST_H

#include "base/arena.h"
#include "net/wire.h"

struct broker_shard;

struct request {
    struct broker_shard *shard;
    struct arena arena;        /* decoded structs and the answer's parts; lives
                                * until the response is written */
    int16_t api_key;
    int16_t api_version;
    int32_t correlation_id;
    struct wire_str client_id; /* views into the frame, like the body */
    const uint8_t *body;       /* without header */
    size_t body_size;
    const char *client_host;   /* "ip" of the client, for DescribeGroups */
    const char *listener;      /* name of the listener it came by */

    /* Set by the handler before it answers; called once when the bytes of the
     * response are written or dropped (pins of fetched data). May be NULL. */
    void (*release)(struct request *rq);
    void *handler_data;        /* the handler's */
    /* Called when the connection is gone before the answer: the handler may
     * give up waiting, but must still answer (it is thrown away). May be
     * NULL. */
    void (*abandoned)(struct request *rq);

    /* private: how the answer travels; see request_frame_send */
    void (*deliver)(struct request *rq, struct wire_writer *frame);
    void *origin;
    struct request *next;
};

/* Begins the frame of the answer: size (patched on sending) and response
 * header of the right version. */
void request_frame_begin(struct request *rq, struct wire_writer *w);
/* Sends the frame; takes over the writer and, in time, frees request, arena
 * and the frame it came in. Nothing of rq may be touched afterwards. */
void request_frame_send(struct request *rq, struct wire_writer *w);
/* Answers with nothing (acks=0). */
void request_no_response(struct request *rq);
/* The request cannot be understood or must not be answered: closes the
 * connection; `why` is logged. */
void request_close(struct request *rq, const char *why);

#endif
