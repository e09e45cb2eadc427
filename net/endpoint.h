/* Listener texts of the configuration: "NAME://host:port,…". */
#ifndef NET_ENDPOINT_H
#define NET_ENDPOINT_H

#include <stddef.h>

#include "base/err.h"

struct endpoint {
    char name[64];  /* "PLAINTEXT" */
    char host[256]; /* "" is every address */
    int port;       /* 0..65535; 0: any */
};
/* Reads the first endpoint of the list `text`. ERR_INVALID with a sentence. */
MUST_USE enum err endpoint_parse(const char *text, struct endpoint *out,
                                 char *why, size_t why_size);
/* "host:port", brackets around IPv6; an empty host gives "0.0.0.0". */
void endpoint_address(const struct endpoint *e, char *out, size_t size);
/* Whether clients could reach it: not empty, not 0.0.0.0, not ::. */
int endpoint_is_advertisable(const struct endpoint *e);

#endif
