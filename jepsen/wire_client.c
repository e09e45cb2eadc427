#include "jepsen/wire_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/codec.h"
#include "base/mem.h"
#include "jepsen/history.h"
#include "schema/header.h"

#define ANSWER_MAX (16 << 20)

void wire_client_init(struct wire_client *c, const char *bootstrap)
{
    *c = (struct wire_client){.timeout_ms = WIRE_TIMEOUT_MS,
                              .connect_ms = WIRE_CONNECT_MS};
    while (*bootstrap != '\0' && c->n_bootstrap < WIRE_BROKERS_MAX) {
        struct wire_broker *b = &c->bootstrap[c->n_bootstrap];
        size_t n = strcspn(bootstrap, ",");

        *b = (struct wire_broker){.id = -1, .fd = -1};
        if (sscanf(bootstrap, "%63[^:]:%d", b->host, &b->port) == 2)
            c->n_bootstrap++;
        bootstrap += n + (bootstrap[n] == ',');
    }
}

static void disconnect(struct wire_broker *b)
{
    if (b->fd >= 0)
        close(b->fd);
    b->fd = -1;
}

void wire_client_close(struct wire_client *c)
{
    for (int i = 0; i < c->n_brokers; i++)
        disconnect(&c->brokers[i]);
    for (int i = 0; i < c->n_bootstrap; i++)
        disconnect(&c->bootstrap[i]);
}

struct wire_broker *wire_client_broker(struct wire_client *c, int32_t id)
{
    for (int i = 0; i < c->n_brokers; i++) {
        if (c->brokers[i].id == id)
            return &c->brokers[i];
    }
    return NULL;
}

void wire_client_learn(struct wire_client *c, int32_t id, struct wire_str host,
                       int32_t port)
{
    struct wire_broker *b = wire_client_broker(c, id);
    char name[64];

    snprintf(name, sizeof name, "%.*s", (int)host.n, host.p);
    if (b != NULL && strcmp(b->host, name) == 0 && b->port == port)
        return;
    if (b == NULL) {
        if (c->n_brokers == WIRE_BROKERS_MAX)
            return;
        b = &c->brokers[c->n_brokers++];
        *b = (struct wire_broker){.id = id, .fd = -1};
    }
    disconnect(b);
    snprintf(b->host, sizeof b->host, "%s", name);
    b->port = port;
}

/* Waits for the socket; false when time is over. */
static bool ready(int fd, short events, int64_t until_ns)
{
    struct pollfd p = {.fd = fd, .events = events};
    int64_t left = (until_ns - now_ns()) / 1000000;

    return left > 0 && poll(&p, 1, (int)left) == 1;
}

static bool broker_connect(struct wire_broker *b, int connect_ms)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)b->port)};
    int one = 1, error = 0;
    socklen_t n = sizeof error;

    if (b->fd >= 0)
        return true;
    if (inet_pton(AF_INET, b->host, &to.sin_addr) != 1)
        return false;
    b->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (b->fd < 0)
        return false;
    setsockopt(b->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(b->fd, (struct sockaddr *)&to, sizeof to) != 0 &&
        (errno != EINPROGRESS ||
         !ready(b->fd, POLLOUT, now_ns() + (int64_t)connect_ms * 1000000) ||
         getsockopt(b->fd, SOL_SOCKET, SO_ERROR, &error, &n) != 0 ||
         error != 0)) {
        disconnect(b);
        return false;
    }
    return true;
}

static bool send_all(int fd, const uint8_t *p, size_t n, int64_t until_ns)
{
    while (n > 0) {
        ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);

        if (sent < 0 && errno == EAGAIN && ready(fd, POLLOUT, until_ns))
            continue;
        if (sent <= 0)
            return false;
        p += sent;
        n -= (size_t)sent;
    }
    return true;
}

static bool receive_all(int fd, uint8_t *p, size_t n, int64_t until_ns)
{
    while (n > 0) {
        ssize_t got = recv(fd, p, n, 0);

        if (got < 0 && errno == EAGAIN && ready(fd, POLLIN, until_ns))
            continue;
        if (got <= 0)
            return false;
        p += got;
        n -= (size_t)got;
    }
    return true;
}

/* The whole request in one piece of the arena. */
static uint8_t *frame_of(int32_t correlation, const struct codec_api *api,
                         int version, const void *request, struct arena *a,
                         size_t *size)
{
    struct request_header header = {
        .request_api_key = api->key,
        .request_api_version = (int16_t)version,
        .correlation_id = correlation,
        .client_id = WIRE_STR("jepsen"),
    };
    struct wire_writer w;
    uint8_t *bytes;

    wire_writer_init(&w, 256);
    wire_write_i32(&w, 0);
    request_header_encode(&w, &header, codec_request_header(api, version));
    codec_encode(api->request, &w, request, version);
    wire_patch_i32(&w, 0, (int32_t)w.size - 4);
    *size = w.size;
    bytes = arena_alloc(a, w.size);
    wire_writer_copy(&w, bytes);
    wire_writer_free(&w);
    return bytes;
}

static bool answer_read(int fd, int32_t correlation,
                        const struct codec_api *api, int version,
                        struct arena *a, void *response, int64_t until_ns)
{
    struct response_header header;
    struct wire_reader r;
    uint32_t size;
    uint8_t *bytes;

    if (!receive_all(fd, (uint8_t *)&size, sizeof size, until_ns))
        return false;
    size = ntohl(size);
    if (size > ANSWER_MAX)
        return false;
    bytes = arena_alloc(a, size);
    if (!receive_all(fd, bytes, size, until_ns))
        return false;
    wire_reader_init(&r, bytes, size);
    response_header_decode(&r, codec_response_header(api, version), a, &header);
    if (header.correlation_id != correlation) {
        fprintf(stderr, "SUSPECT %s: answer %d to request %d\n", api->name,
                header.correlation_id, correlation);
        return false;
    }
    codec_decode(api->response, &r, version, a, response);
    if (r.err != ERR_OK || wire_left(&r) != 0) {
        fprintf(stderr, "SUSPECT %s v%d: answer cannot be decoded\n", api->name,
                version);
        return false;
    }
    return true;
}

enum wire_outcome wire_call(struct wire_client *c, struct wire_broker *b,
                            int16_t key, int version, const void *request,
                            struct arena *a, void *response)
{
    const struct codec_api *api = codec_api_find(key);
    int64_t until_ns = now_ns() + (int64_t)c->timeout_ms * 1000000;
    int32_t correlation = ++c->correlation;
    size_t size;
    uint8_t *frame = frame_of(correlation, api, version, request, a, &size);

    if (!broker_connect(b, c->connect_ms))
        return WIRE_UNSENT;
    if (!send_all(b->fd, frame, size, until_ns) ||
        !answer_read(b->fd, correlation, api, version, a, response, until_ns)) {
        disconnect(b);
        return WIRE_UNKNOWN;
    }
    return WIRE_ANSWERED;
}
