#include "metadata/config_keys.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/assert.h"
#include "metadata/config_table.h"

int config_keys(enum config_scope scope, const struct config_key **out)
{
    switch (scope) {
        case CONFIG_TOPIC:
            *out = config_topic_table;
            return config_topic_table_size;
        case CONFIG_BROKER:
            *out = config_broker_table;
            return config_broker_table_size;
        case CONFIG_GROUP:
            *out = config_group_table;
            return config_group_table_size;
        case CONFIG_CLIENT:
            *out = config_client_table;
            return config_client_table_size;
    }
    UNREACHABLE("scope of a configuration");
}

const char *config_scope_name(enum config_scope scope)
{
    switch (scope) {
        case CONFIG_TOPIC:
            return "topic";
        case CONFIG_BROKER:
            return "broker";
        case CONFIG_GROUP:
            return "group";
        case CONFIG_CLIENT:
            return "client";
    }
    UNREACHABLE("scope of a configuration");
}

static int key_compare(const void *name, const void *key)
{
    return strcmp(name, ((const struct config_key *)key)->name);
}

const struct config_key *config_key_find(enum config_scope scope,
                                         const char *name)
{
    const struct config_key *keys;
    int n = config_keys(scope, &keys);
    return bsearch(name, keys, (size_t)n, sizeof *keys, key_compare);
}

bool config_key_is_gone(const struct config_key *key)
{
    static const char *const gone[] = {"message.downconversion.enable",
                                       "message.format.version",
                                       "message.timestamp.difference.max.ms"};
    for (size_t i = 0; i < sizeof gone / sizeof gone[0]; i++) {
        if (key->scope == CONFIG_TOPIC && strcmp(key->name, gone[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* Levenshtein's distance, row by row; what exceeds CONFIG_NAME_MAX is far. */
static unsigned edit_distance(const char *a, const char *b)
{
    unsigned row[CONFIG_NAME_MAX];
    size_t n_a = strlen(a), n_b = strlen(b);
    if (n_a >= CONFIG_NAME_MAX || n_b >= CONFIG_NAME_MAX) {
        return CONFIG_NAME_MAX;
    }
    for (unsigned j = 0; j <= n_b; j++) {
        row[j] = j;
    }
    for (unsigned i = 1; i <= n_a; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= n_b; j++) {
            unsigned best = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            best = row[j] + 1 < best ? row[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            row[j] = best;
        }
    }
    return row[n_b];
}

const char *config_key_nearest(enum config_scope scope, const char *name)
{
    const struct config_key *keys;
    int n = config_keys(scope, &keys);
    const char *nearest = NULL;
    /* A third of the letters wrong is another word, not a slip. */
    unsigned best = (unsigned)(strnlen(name, CONFIG_NAME_MAX) / 3) + 1;
    for (int i = 0; i < n; i++) {
        unsigned distance = edit_distance(name, keys[i].name);
        if (distance < best) {
            best = distance;
            nearest = keys[i].name;
        }
    }
    return nearest;
}

/* ---- values -------------------------------------------------------------- */

static bool value_is_one_of(const char *value, size_t n, const char *values)
{
    while (*values != '\0') {
        size_t len = strcspn(values, "|");
        /* "*" at an end: with anything behind it */
        bool open = len > 0 && values[len - 1] == '*';
        size_t fixed = open ? len - 1 : len;
        if ((open ? n > fixed : n == fixed) &&
            memcmp(values, value, fixed) == 0) {
            return true;
        }
        values += len + (values[len] == '|');
    }
    return false;
}

static bool list_is_of(const char *value, const char *values)
{
    while (*value != '\0') {
        value += strspn(value, " ,");
        size_t len = strcspn(value, " ,");
        if (len > 0 && !value_is_one_of(value, len, values)) {
            return false;
        }
        value += len;
    }
    return true;
}

static enum err say(char *why, size_t why_size, const char *name,
                    const char *value, const char *expected)
{
    snprintf(why, why_size, "Invalid value \"%.200s\" for %s: it must be %s.",
             value, name, expected);
    return ERR_INVALID;
}

static void type_range(enum config_type type, int64_t *min, int64_t *max)
{
    int64_t low = type == CONFIG_SHORT ? INT16_MIN : INT32_MIN;
    int64_t high = type == CONFIG_SHORT ? INT16_MAX : INT32_MAX;
    if (type != CONFIG_LONG) {
        *min = *min < low ? low : *min;
        *max = *max > high ? high : *max;
    }
}

static enum err number_check(const struct config_key *key, const char *value,
                             char *why, size_t why_size)
{
    int64_t min = key->min, max = key->max;
    type_range(key->type, &min, &max);
    char *end;
    errno = 0;
    long long v = strtoll(value, &end, 10);
    if (end != value && *end == '\0' && errno == 0 && !isspace(*value) &&
        v >= min && v <= max) {
        return ERR_OK;
    }
    char expected[96];
    if (max == INT64_MAX || max == INT32_MAX) {
        snprintf(expected, sizeof expected,
                 "a whole number of at least %" PRId64, min);
    } else {
        snprintf(expected, sizeof expected,
                 "a whole number from %" PRId64 " to %" PRId64, min, max);
    }
    return say(why, why_size, key->name, value, expected);
}

static enum err double_check(const struct config_key *key, const char *value,
                             char *why, size_t why_size)
{
    char *end;
    errno = 0;
    double v = strtod(value, &end);
    if (end == value || *end != '\0' || errno != 0 || v != v) {
        return say(why, why_size, key->name, value, "a number");
    }
    if (key->scope == CONFIG_CLIENT && !(v > 0)) {
        return say(why, why_size, key->name, value, "greater than 0");
    }
    if (key->max != INT64_MAX &&
        (v < (double)key->min || v > (double)key->max)) {
        char expected[96];
        snprintf(expected, sizeof expected,
                 "a number from %" PRId64 " to %" PRId64, key->min, key->max);
        return say(why, why_size, key->name, value, expected);
    }
    return ERR_OK;
}

static enum err words_check(const struct config_key *key, const char *value,
                            char *why, size_t why_size)
{
    if (key->values == NULL) {
        return ERR_OK;
    }
    bool list = key->type == CONFIG_LIST;
    if (list ? list_is_of(value, key->values)
             : value_is_one_of(value, strlen(value), key->values)) {
        return ERR_OK;
    }
    char expected[160];
    snprintf(expected, sizeof expected, "%s %s", list ? "a list of" : "one of",
             key->values);
    return say(why, why_size, key->name, value, expected);
}

enum err config_value_check(const struct config_key *key, const char *value,
                            char *why, size_t why_size)
{
    if (strlen(value) >= CONFIG_VALUE_MAX) {
        return say(why, why_size, key->name, value, "shorter than 16 KiB");
    }
    switch (key->type) {
        case CONFIG_BOOLEAN:
            if (strcasecmp(value, "true") == 0 ||
                strcasecmp(value, "false") == 0) {
                return ERR_OK;
            }
            return say(why, why_size, key->name, value, "true or false");
        case CONFIG_INT:
        case CONFIG_SHORT:
        case CONFIG_LONG:
            return number_check(key, value, why, why_size);
        case CONFIG_DOUBLE:
            return double_check(key, value, why, why_size);
        case CONFIG_STRING:
        case CONFIG_LIST:
        case CONFIG_CLASS:
        case CONFIG_PASSWORD:
            return words_check(key, value, why, why_size);
    }
    UNREACHABLE("type of a configuration key");
}

/* ---- environment --------------------------------------------------------- */

/* Variables of the image and of the command line, and those that container
 * platforms make for a service named kafka; none is a key. */
static const char *const not_keys[] = {
    "BOOTSTRAP_SERVER", "CLUSTER_ID", "DEBUG", "GC_LOG_OPTS",
    "HEAP_OPTS",        "HOME",       "JMX_",  "JVM_",
    "LOG4J_",           "OPTS",       "PORT",  "SERVICE_",
    "TOOLS_",           "VERSION",
};

bool config_key_from_env(const char *rest, char *key, size_t key_size)
{
    for (size_t i = 0; i < sizeof not_keys / sizeof not_keys[0]; i++) {
        if (strncmp(rest, not_keys[i], strlen(not_keys[i])) == 0) {
            return false;
        }
    }
    size_t n = 0;
    while (*rest != '\0' && n + 1 < key_size) {
        size_t run = strspn(rest, "_");
        if (run == 0) {
            key[n++] = (char)tolower((unsigned char)*rest++);
            continue;
        }
        run = run > 3 ? 3 : run;
        key[n++] = "._-"[run - 1];
        rest += run;
    }
    key[n] = '\0';
    return n > 0 && *rest == '\0';
}
