#include "tools/wire_call.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/mem.h"
#include "schema/apis.h"
#include "schema/header.h"

static int connect_to(const char *address, int timeout_ms, char *why,
                      size_t why_size)
{
    char host[LIMIT_ADDRESS];
    const char *begin = address;
    const char *colon = strrchr(address, ':');
    size_t n = colon == NULL ? strlen(address) : (size_t)(colon - address);
    if (n > 2 && address[0] == '[' && address[n - 1] == ']') { /* IPv6 */
        begin++;
        n -= 2;
    }
    if (n == 0 || n >= sizeof host) {
        snprintf(why, why_size, "%s is no address", address);
        return -1;
    }
    memcpy(host, begin, n);
    host[n] = '\0';
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    int e =
        getaddrinfo(host, colon == NULL ? "9092" : colon + 1, &hints, &list);
    if (e != 0) {
        snprintf(why, why_size, "%s: %s", address,
                 e == EAI_SYSTEM ? strerror(errno) : gai_strerror(e));
        return -1;
    }
    int fd = -1;
    struct timeval tv = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
    for (struct addrinfo *a = list; a != NULL && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, 0);
        if (fd < 0) {
            continue;
        }
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
        if (connect(fd, a->ai_addr, a->ai_addrlen) != 0) {
            /* what a connect that took too long is called here */
            snprintf(why, why_size, "%s: %s", address,
                     strerror(errno == EINPROGRESS ? ETIMEDOUT : errno));
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    return fd;
}

static bool send_request(int fd, const struct wire_call *call,
                         const struct codec_api *api, const void *request)
{
    struct wire_writer w;
    struct request_header header = {
        .request_api_key = api->key,
        .request_api_version = (int16_t)call->version,
        .correlation_id = 1,
        .client_id = WIRE_STR("flotilla")};
    wire_writer_init(&w, 256);
    wire_write_i32(&w, 0);
    request_header_encode(&w, &header,
                          codec_request_header(api, call->version));
    codec_encode(api->request, &w, request, call->version);
    wire_patch_i32(&w, 0, (int32_t)w.size - 4);
    uint8_t *bytes = mem_alloc(w.size);
    wire_writer_copy(&w, bytes);
    size_t sent = 0;
    while (sent < w.size) {
        ssize_t n = send(fd, bytes + sent, w.size - sent, MSG_NOSIGNAL);
        if (n <= 0) {
            break;
        }
        sent += (size_t)n;
    }
    bool ok = sent == w.size;
    mem_free(bytes);
    wire_writer_free(&w);
    return ok;
}

static bool receive(int fd, void *to, size_t size)
{
    return recv(fd, to, size, MSG_WAITALL) == (ssize_t)size;
}

static bool exchange(int fd, const struct wire_call *call,
                     const struct codec_api *api, const void *request,
                     void **frame, size_t *size, const char **why)
{
    uint32_t size_be;
    *why = "the connection was closed, or no answer came in time";
    if (!send_request(fd, call, api, request) ||
        !receive(fd, &size_be, sizeof size_be)) {
        return false;
    }
    *size = ntohl(size_be);
    if (*size > WIRE_CALL_ANSWER_MAX) {
        *why = "the answer is too large; is it a Kafka port?";
        return false;
    }
    *frame = mem_alloc(*size + 1);
    return receive(fd, *frame, *size);
}

static bool decode(const struct wire_call *call, const struct codec_api *api,
                   const void *frame, size_t size, struct arena *arena,
                   void *response)
{
    struct wire_reader r;
    struct response_header header;
    wire_reader_init(&r, frame, size);
    response_header_decode(&r, codec_response_header(api, call->version), arena,
                           &header);
    codec_decode(api->response, &r, call->version, arena, response);
    return r.err == ERR_OK && header.correlation_id == 1;
}

static bool call_one(const struct wire_call *call, const char *address,
                     const void *request, struct arena *arena, void *response,
                     void **frame, char *why, size_t why_size)
{
    const struct codec_api *api = codec_api_find(call->api);
    const char *reason;
    size_t size = 0;
    int fd = connect_to(address, call->timeout_ms, why, why_size);
    if (fd < 0) {
        return false;
    }
    bool ok = exchange(fd, call, api, request, frame, &size, &reason);
    close(fd);
    if (ok && !decode(call, api, *frame, size, arena, response)) {
        reason = "the answer cannot be read; is it a Kafka port?";
        ok = false;
    }
    if (!ok) {
        snprintf(why, why_size, "%s: %s", address, reason);
        mem_free(*frame);
        *frame = NULL;
    }
    return ok;
}

bool wire_call(const struct wire_call *call, const void *request,
               struct arena *arena, void *response, void **frame, char *why,
               size_t why_size)
{
    *frame = NULL;
    snprintf(why, why_size, "no address");
    for (const char *at = call->addresses; *at != '\0';) {
        char address[LIMIT_ADDRESS + 16];
        size_t n = strcspn(at, ",");
        snprintf(address, sizeof address, "%.*s", (int)n, at);
        if (n > 0 && call_one(call, address, request, arena, response, frame,
                              why, why_size)) {
            return true;
        }
        at += n + (at[n] == ',');
    }
    return false;
}
