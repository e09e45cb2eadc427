#include "tools/probe.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/mem.h"
#include "schema/apis.h"
#include "schema/header.h"
#include "schema/metadata.h"

#define PROBE_VERSION 12
/* An answer without topics is small. */
#define PROBE_ANSWER_MAX 65536

static int connect_local(int port, int timeout_ms)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    struct timeval tv = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool send_request(int fd)
{
    struct wire_writer w;
    wire_writer_init(&w, 256);
    const struct codec_api *api = codec_api_find(API_METADATA);
    struct request_header header = {.request_api_key = api->key,
                                    .request_api_version = PROBE_VERSION,
                                    .correlation_id = 1,
                                    .client_id = WIRE_STR("flotilla-dev")};
    struct metadata_request request;
    metadata_request_init(&request); /* no topics */
    request.allow_auto_topic_creation = false;
    wire_write_i32(&w, 0);
    request_header_encode(&w, &header,
                          codec_request_header(api, PROBE_VERSION));
    metadata_request_encode(&w, &request, PROBE_VERSION);
    wire_patch_i32(&w, 0, (int32_t)w.size - 4);
    uint8_t *bytes = mem_alloc(w.size);
    wire_writer_copy(&w, bytes);
    bool ok = send(fd, bytes, w.size, MSG_NOSIGNAL) == (ssize_t)w.size;
    mem_free(bytes);
    wire_writer_free(&w);
    return ok;
}

static bool receive(int fd, void *to, size_t size)
{
    return recv(fd, to, size, MSG_WAITALL) == (ssize_t)size;
}

static bool decode(const uint8_t *bytes, size_t size, struct probe *out)
{
    struct wire_reader r;
    struct arena arena;
    struct response_header header;
    struct metadata_response response;
    const struct codec_api *api = codec_api_find(API_METADATA);
    arena_init(&arena, 1 << 20);
    wire_reader_init(&r, bytes, size);
    response_header_decode(&r, codec_response_header(api, PROBE_VERSION),
                           &arena, &header);
    metadata_response_decode(&r, PROBE_VERSION, &arena, &response);
    bool ok = r.err == ERR_OK;
    if (ok) {
        out->n_brokers = response.n_brokers;
        out->controller = response.controller_id;
    }
    arena_free(&arena);
    return ok;
}

bool probe_broker(int port, int timeout_ms, struct probe *out)
{
    int fd = connect_local(port, timeout_ms);
    if (fd < 0) {
        return false;
    }
    uint32_t size_be;
    bool ok = send_request(fd) && receive(fd, &size_be, sizeof size_be);
    uint32_t size = ok ? ntohl(size_be) : 0;
    if (ok && size <= PROBE_ANSWER_MAX) {
        uint8_t *bytes = mem_alloc(size);
        ok = receive(fd, bytes, size) && decode(bytes, size, out);
        mem_free(bytes);
    } else {
        ok = false;
    }
    close(fd);
    return ok;
}
