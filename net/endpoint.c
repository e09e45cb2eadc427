#include "net/endpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum err refuse(const char *text, const char *what, char *why,
                       size_t why_size)
{
    snprintf(why, why_size,
             "listener \"%s\" %s; write NAME://host:port, for example "
             "PLAINTEXT://127.0.0.1:9092",
             text, what);
    return ERR_INVALID;
}

enum err endpoint_parse(const char *text, struct endpoint *out, char *why,
                        size_t why_size)
{
    memset(out, 0, sizeof *out);
    while (*text == ' ') {
        text++;
    }
    const char *rest = strstr(text, "://");
    if (rest == NULL) {
        snprintf(out->name, sizeof out->name, "PLAINTEXT");
        rest = text;
    } else {
        size_t n = (size_t)(rest - text);
        if (n == 0 || n >= sizeof out->name) {
            return refuse(text, "has no usable name", why, why_size);
        }
        memcpy(out->name, text, n);
        rest += 3;
    }
    size_t n = strcspn(rest, ", ");
    const char *colon = NULL;
    for (const char *p = rest; p < rest + n; p++) {
        if (*p == ':') {
            colon = p;
        }
    }
    if (colon == NULL) {
        return refuse(text, "has no port", why, why_size);
    }
    const char *host = rest;
    size_t host_n = (size_t)(colon - rest);
    if (host_n >= 2 && host[0] == '[' && host[host_n - 1] == ']') {
        host++;
        host_n -= 2;
    }
    if (host_n >= sizeof out->host) {
        return refuse(text, "has too long a host name", why, why_size);
    }
    memcpy(out->host, host, host_n);
    char *end = NULL;
    long port = strtol(colon + 1, &end, 10);
    if (end != rest + n || colon + 1 == end || port < 0 || port > 65535) {
        return refuse(text, "has a wrong port (0 to 65535)", why, why_size);
    }
    out->port = (int)port;
    return ERR_OK;
}

void endpoint_address(const struct endpoint *e, char *out, size_t size)
{
    const char *host = e->host[0] == '\0' ? "0.0.0.0" : e->host;
    snprintf(out, size, strchr(host, ':') != NULL ? "[%s]:%d" : "%s:%d", host,
             e->port);
}

int endpoint_is_advertisable(const struct endpoint *e)
{
    return e->host[0] != '\0' && strcmp(e->host, "0.0.0.0") != 0 &&
           strcmp(e->host, "::") != 0;
}
