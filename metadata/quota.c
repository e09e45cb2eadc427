#include "metadata/quota.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

static const char digits[] = "0123456789ABCDEF";

static bool is_plain(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

/* Appends "KIND=NAME"; gives where it ends. */
static char *part_write(char *out, const char *kind, struct wire_str name)
{
    size_t n = strlen(kind);
    memcpy(out, kind, n);
    out += n;
    *out++ = '=';
    for (int32_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        if (is_plain(c)) {
            *out++ = c;
        } else {
            *out++ = '%';
            *out++ = digits[((unsigned char)c) >> 4];
            *out++ = digits[((unsigned char)c) & 15];
        }
    }
    *out = '\0';
    return out;
}

bool quota_entity_write(const struct quota_entity *e,
                        char out[QUOTA_ENTITY_TEXT])
{
    if ((!e->has_user && !e->has_client) ||
        (e->has_user && e->user.n > QUOTA_NAME_MAX) ||
        (e->has_client && e->client.n > QUOTA_NAME_MAX)) {
        return false;
    }
    if (e->has_user) {
        out = part_write(out, "user", e->user);
    }
    if (e->has_user && e->has_client) {
        *out++ = ',';
    }
    if (e->has_client) {
        part_write(out, "client-id", e->client);
    }
    return true;
}

static int digit_of(char c)
{
    const char *at = c == '\0' ? NULL : strchr(digits, c);
    return at == NULL ? -1 : (int)(at - digits);
}

/* Takes "KIND=NAME" from *at; the name goes to *names. */
static bool part_read(const char **at, const char *kind, char **names,
                      struct wire_str *out)
{
    size_t n = strlen(kind);
    if (strncmp(*at, kind, n) != 0 || (*at)[n] != '=') {
        return false;
    }
    const char *p = *at + n + 1;
    char *to = *names;
    while (*p != '\0' && *p != ',') {
        if (*p == '%') {
            int high = digit_of(p[1]);
            int low = high < 0 ? -1 : digit_of(p[2]);
            if (low < 0) {
                return false;
            }
            *to++ = (char)(high * 16 + low);
            p += 3;
        } else if (is_plain(*p)) {
            *to++ = *p++;
        } else {
            return false;
        }
    }
    *out = (struct wire_str){.p = *names, .n = (int32_t)(to - *names)};
    *names = to;
    *at = p;
    return true;
}

bool quota_entity_read(const char *text, struct quota_entity *out, char *names)
{
    memset(out, 0, sizeof *out);
    if (strlen(text) >= QUOTA_ENTITY_TEXT) {
        return false;
    }
    out->has_user = part_read(&text, "user", &names, &out->user);
    if (out->has_user && *text == ',') {
        text++;
        out->has_client = part_read(&text, "client-id", &names, &out->client);
        return out->has_client && *text == '\0';
    }
    if (!out->has_user) {
        out->has_client = part_read(&text, "client-id", &names, &out->client);
    }
    return (out->has_user || out->has_client) && *text == '\0';
}

const char *quota_key(enum quota_kind kind)
{
    static const char *const keys[QUOTA_KINDS] = {
        [QUOTA_PRODUCE] = "producer_byte_rate",
        [QUOTA_FETCH] = "consumer_byte_rate",
        [QUOTA_REQUEST] = "request_percentage",
        [QUOTA_MUTATION] = "controller_mutation_rate",
    };
    return keys[kind];
}

enum { NOBODY, DEFAULT, NAMED };

/* One step of the order; a name that is empty is nobody's own. */
static bool matches(const struct image *image, int user, int client,
                    struct wire_str user_name, struct wire_str client_name,
                    const char *key, struct quota_match *out)
{
    const struct wire_str empty = {.p = "", .n = 0};
    if ((user == NAMED && user_name.n <= 0) ||
        (client == NAMED && client_name.n <= 0)) {
        return false;
    }
    const struct quota_entity entity = {
        .has_user = user != NOBODY,
        .has_client = client != NOBODY,
        .user = user == NAMED ? user_name : empty,
        .client = client == NAMED ? client_name : empty,
    };
    char name[QUOTA_ENTITY_TEXT];
    if (!quota_entity_write(&entity, name)) {
        return false; /* so long a name has no quota of its own */
    }
    const char *value = image_resource_config(image, CONFIG_CLIENT, name, key);
    if (value == NULL) {
        return false;
    }
    *out = (struct quota_match){
        .limit = strtod(value, NULL),
        .by_user = user != NOBODY,
        .by_client = client != NOBODY,
    };
    return out->limit > 0;
}

bool quota_find(const struct image *image, struct wire_str user,
                struct wire_str client, enum quota_kind kind,
                struct quota_match *out)
{
    static const struct {
        int user, client;
    } order[] = {
        {NAMED, NAMED},   {NAMED, DEFAULT},   {NAMED, NOBODY},
        {DEFAULT, NAMED}, {DEFAULT, DEFAULT}, {DEFAULT, NOBODY},
        {NOBODY, NAMED},  {NOBODY, DEFAULT},
    };
    const struct image_resource *all;
    if (image_resources(image, CONFIG_CLIENT, &all) == 0) {
        return false;
    }
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        if (matches(image, order[i].user, order[i].client, user, client,
                    quota_key(kind), out)) {
            return true;
        }
    }
    return false;
}
