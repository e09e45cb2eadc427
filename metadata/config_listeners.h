/* The addresses of a broker, read from `listeners`, `advertised.listeners`,
 * `peer.listener` and `seeds`. */
#ifndef METADATA_CONFIG_LISTENERS_H
#define METADATA_CONFIG_LISTENERS_H

#include "base/limits.h"
#include "metadata/config_keys.h"

#define CONFIG_LISTENERS_MAX 8
#define CONFIG_LISTENER_NAME_MAX 64

struct config_listener {
    char name[CONFIG_LISTENER_NAME_MAX]; /* "PLAINTEXT" */
    char host[LIMIT_ADDRESS];            /* listen: "" is every interface */
    int32_t port;                        /* listen: 0 is any free one */
};

struct config_listeners {
    int n;
    struct config_listener listen[CONFIG_LISTENERS_MAX];
    /* what clients of listen[i] are told; never an address that only means
     * "every interface". host "" : the machine's name (the caller knows it) */
    struct config_listener advertised[CONFIG_LISTENERS_MAX];
    char peer_listen[LIMIT_ADDRESS];     /* "host:port" */
    char peer_advertised[LIMIT_ADDRESS]; /* "host:port"; ":port" as above */
};

/* Reads and checks them. ERR_INVALID with a sentence: malformed, a protocol
 * other than PLAINTEXT, 0.0.0.0 that would be advertised, an advertised name
 * that is not listened on, a malformed seed. */
MUST_USE enum err config_listeners_read(const struct broker_config *c,
                                        struct config_listeners *out, char *why,
                                        size_t why_size);

/* Splits "host:port", "[v6]:port" (brackets are taken off); false when it is
 * malformed. An empty host is allowed. */
bool config_address_split(const char *address, char *host, size_t host_size,
                          int32_t *port);
/* The `i`th of `seeds`, "host:port", in `out`; false when there are fewer. */
bool config_seed(const struct broker_config *c, int i, char out[LIMIT_ADDRESS]);

#endif
