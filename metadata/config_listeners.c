#include "metadata/config_listeners.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PEER_PORT 9093

bool config_address_split(const char *address, char *host, size_t host_size,
                          int32_t *port)
{
    const char *colon = strrchr(address, ':');
    if (colon == NULL || colon[1] == '\0' || strlen(colon + 1) > 5 ||
        strspn(colon + 1, "0123456789") != strlen(colon + 1)) {
        return false;
    }
    size_t n = (size_t)(colon - address);
    if (n >= 2 && address[0] == '[' && address[n - 1] == ']') {
        address++;
        n -= 2;
    } else if (memchr(address, ':', n) != NULL) {
        return false; /* IPv6 needs its brackets */
    }
    long value = strtol(colon + 1, NULL, 10);
    if (n >= host_size || value > 65535) {
        return false;
    }
    memcpy(host, address, n);
    host[n] = '\0';
    *port = (int32_t)value;
    return strpbrk(host, " \t/,") == NULL;
}

/* Item `i` of a comma-separated list, without blanks; false: no such item. */
static bool list_item(const char *list, int i, char *out, size_t size)
{
    for (;;) {
        list += strspn(list, ", \t");
        size_t n = strcspn(list, ", \t");
        if (n == 0) {
            return false;
        }
        if (i-- == 0) {
            if (n >= size) {
                n = size - 1; /* will not parse as an address */
            }
            memcpy(out, list, n);
            out[n] = '\0';
            return true;
        }
        list += n;
    }
}

bool config_seed(const struct broker_config *c, int i, char out[LIMIT_ADDRESS])
{
    return list_item(broker_config_get(c, "seeds"), i, out, LIMIT_ADDRESS);
}

/* "NAME://HOST:PORT" */
static bool listener_parse(const char *text, struct config_listener *l)
{
    const char *sep = strstr(text, "://");
    if (sep == NULL || sep == text ||
        (size_t)(sep - text) >= CONFIG_LISTENER_NAME_MAX) {
        return false;
    }
    memcpy(l->name, text, (size_t)(sep - text));
    l->name[sep - text] = '\0';
    return config_address_split(sep + 3, l->host, sizeof l->host, &l->port);
}

static bool is_any_address(const char *host)
{
    return strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

/* Whether `name` is one of the listeners of Kafka's controllers. */
static bool is_controller(const struct broker_config *c, const char *name)
{
    const char *names = broker_config_get(c, "controller.listener.names");
    char item[CONFIG_LISTENER_NAME_MAX];
    for (int i = 0; names != NULL && list_item(names, i, item, sizeof item);
         i++) {
        if (strcmp(item, name) == 0) {
            return true;
        }
    }
    return false;
}

/* The protocol of a listener name: by the map, else the name itself. */
static bool is_plaintext(const struct broker_config *c, const char *name)
{
    const char *map = broker_config_get(c, "listener.security.protocol.map");
    char item[2 * CONFIG_LISTENER_NAME_MAX];
    size_t n = strlen(name);
    for (int i = 0; map != NULL && list_item(map, i, item, sizeof item); i++) {
        if (strncmp(item, name, n) == 0 && item[n] == ':') {
            return strcmp(item + n + 1, "PLAINTEXT") == 0;
        }
    }
    return strcmp(name, "PLAINTEXT") == 0;
}

/* Reads a list of listeners; those of controllers go to *controller. */
static enum err listeners_parse(const struct broker_config *c, const char *key,
                                struct config_listener *out, int *n,
                                struct config_listener *controller, char *why,
                                size_t why_size)
{
    const char *list = broker_config_get(c, key);
    char item[LIMIT_ADDRESS + CONFIG_LISTENER_NAME_MAX];
    *n = 0;
    for (int i = 0; list_item(list, i, item, sizeof item); i++) {
        struct config_listener l = {.port = 0};
        if (!listener_parse(item, &l)) {
            snprintf(why, why_size,
                     "Cannot read \"%.120s\" in %s: write NAME://HOST:PORT, "
                     "such as PLAINTEXT://localhost:9092.",
                     item, key);
            return ERR_INVALID;
        }
        if (is_controller(c, l.name)) {
            *controller = controller->name[0] == '\0' ? l : *controller;
            continue;
        }
        if (!is_plaintext(c, l.name)) {
            snprintf(why, why_size,
                     "Listener %s in %s is not PLAINTEXT, the only protocol "
                     "there is as yet.",
                     l.name, key);
            return ERR_INVALID;
        }
        if (*n == CONFIG_LISTENERS_MAX) {
            snprintf(why, why_size, "%s has more than %d listeners.", key,
                     CONFIG_LISTENERS_MAX);
            return ERR_INVALID;
        }
        out[(*n)++] = l;
    }
    return ERR_OK;
}

static struct config_listener *listener_named(struct config_listener *list,
                                              int n, const char *name)
{
    for (int i = 0; i < n; i++) {
        if (strcmp(list[i].name, name) == 0) {
            return &list[i];
        }
    }
    return NULL;
}

static enum err advertised_read(const struct broker_config *c,
                                struct config_listeners *out,
                                struct config_listener *controller, char *why,
                                size_t why_size)
{
    struct config_listener said[CONFIG_LISTENERS_MAX];
    int n_said = 0;
    bool given = broker_config_get(c, "advertised.listeners") != NULL;
    if (given) {
        enum err e = listeners_parse(c, "advertised.listeners", said, &n_said,
                                     controller, why, why_size);
        if (e != ERR_OK) {
            return e;
        }
    }
    for (int i = 0; i < n_said; i++) {
        if (listener_named(out->listen, out->n, said[i].name) == NULL) {
            snprintf(why, why_size,
                     "advertised.listeners names %s, which listeners does "
                     "not have.",
                     said[i].name);
            return ERR_INVALID;
        }
    }
    for (int i = 0; i < out->n; i++) {
        const struct config_listener *l =
            listener_named(said, n_said, out->listen[i].name);
        out->advertised[i] = l != NULL ? *l : out->listen[i];
        if (is_any_address(out->advertised[i].host)) {
            snprintf(why, why_size,
                     "%s://%s:%d can be listened on but clients cannot be "
                     "sent there: set advertised.listeners to an address they "
                     "reach.",
                     out->advertised[i].name, out->advertised[i].host,
                     (int)out->advertised[i].port);
            return ERR_INVALID;
        }
    }
    return ERR_OK;
}

static void address_join(char out[LIMIT_ADDRESS], const char *host,
                         int32_t port)
{
    bool v6 = strchr(host, ':') != NULL;
    snprintf(out, LIMIT_ADDRESS, "%s%.250s%s:%d", v6 ? "[" : "", host,
             v6 ? "]" : "", (int)port);
}

static enum err peer_read(const struct broker_config *c,
                          struct config_listeners *out,
                          const struct config_listener *controller, char *why,
                          size_t why_size)
{
    static const char *const keys[] = {"peer.listener",
                                       "advertised.peer.listener"};
    char *const places[] = {out->peer_listen, out->peer_advertised};
    struct config_listener peer = {.port = PEER_PORT};
    if (controller->name[0] != '\0') {
        peer = *controller;
    } else {
        snprintf(peer.host, sizeof peer.host, "%s", out->listen[0].host);
    }
    for (int i = 0; i < 2; i++) {
        const char *address = broker_config_is_set(c, keys[i])
                                  ? broker_config_get(c, keys[i])
                                  : NULL; /* get would ask us in turn */
        if (address != NULL &&
            !config_address_split(address, peer.host, sizeof peer.host,
                                  &peer.port)) {
            snprintf(why, why_size, "Cannot read %s=%.120s: write HOST:PORT.",
                     keys[i], address);
            return ERR_INVALID;
        }
        if (i == 1 && is_any_address(peer.host)) {
            /* other brokers find us where clients do */
            snprintf(peer.host, sizeof peer.host, "%s",
                     out->advertised[0].host);
        }
        address_join(places[i], peer.host, peer.port);
    }
    return ERR_OK;
}

static enum err seeds_check(const struct broker_config *c, char *why,
                            size_t why_size)
{
    char seed[LIMIT_ADDRESS], host[LIMIT_ADDRESS];
    int32_t port;
    for (int i = 0; config_seed(c, i, seed); i++) {
        if (!config_address_split(seed, host, sizeof host, &port) ||
            host[0] == '\0' || port == 0) {
            snprintf(why, why_size,
                     "Cannot read \"%.120s\" in seeds: write HOST:PORT of the "
                     "brokers' peer listeners.",
                     seed);
            return ERR_INVALID;
        }
    }
    return ERR_OK;
}

enum err config_listeners_read(const struct broker_config *c,
                               struct config_listeners *out, char *why,
                               size_t why_size)
{
    struct config_listener controller = {.port = 0};
    memset(out, 0, sizeof *out);
    enum err e = listeners_parse(c, "listeners", out->listen, &out->n,
                                 &controller, why, why_size);
    if (e == ERR_OK && out->n == 0) {
        snprintf(why, why_size, "listeners names no address for clients.");
        e = ERR_INVALID;
    }
    if (e == ERR_OK) {
        struct config_listener unused = {.port = 0};
        e = advertised_read(c, out, &unused, why, why_size);
    }
    if (e == ERR_OK) {
        e = peer_read(c, out, &controller, why, why_size);
    }
    return e == ERR_OK ? seeds_check(c, why, why_size) : e;
}
