/* A small client of our own on the wire's codec. It tries nothing twice and
 * hides nothing: every call tells whether the request was sent, and the code
 * that came back. One thread's. */
#ifndef JEPSEN_WIRE_CLIENT_H
#define JEPSEN_WIRE_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/wire.h"

#define WIRE_BROKERS_MAX 16
/* How long an answer is waited for, unless a client says otherwise. */
#define WIRE_TIMEOUT_MS 3000
#define WIRE_CONNECT_MS 1000

enum wire_outcome {
    WIRE_ANSWERED,
    WIRE_UNSENT, /* nothing of it can have reached a broker */
    WIRE_UNKNOWN,
};

struct wire_broker {
    int32_t id; /* -1: one of the bootstrap list */
    char host[64];
    int port;
    int fd; /* -1: not connected */
};

struct wire_client {
    struct wire_broker brokers[WIRE_BROKERS_MAX];
    int n_brokers;
    struct wire_broker bootstrap[WIRE_BROKERS_MAX];
    int n_bootstrap;
    int32_t correlation;
    int timeout_ms, connect_ms;
};

void wire_client_init(struct wire_client *c, const char *bootstrap);
/* Closes all connections. */
void wire_client_close(struct wire_client *c);
struct wire_broker *wire_client_broker(struct wire_client *c, int32_t id);
/* Learns where a broker is; connections to brokers that moved are closed. */
void wire_client_learn(struct wire_client *c, int32_t id, struct wire_str host,
                       int32_t port);

/* Sends a request and decodes the answer to `response` (a struct of that
 * API), whose arrays are the arena's and whose views are of the frame, which
 * the arena holds too. A broker that did not answer is disconnected. */
enum wire_outcome wire_call(struct wire_client *c, struct wire_broker *b,
                            int16_t api, int version, const void *request,
                            struct arena *a, void *response);

#endif
