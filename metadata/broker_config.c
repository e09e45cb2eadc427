/* The broker's static configuration: which keys were set, by whom, and the
 * parser of Java's properties syntax.
 *
 * The parser is our own because the packaged INI reader knows another syntax:
 * it takes `;` for a comment inside values (JAAS lines end with it), `[` for a
 * section, cuts lines at 200 bytes, and knows neither `\` continuations and
 * escapes nor `!` comments nor a blank between key and value. */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/mem.h"
#include "metadata/config_keys.h"
#include "metadata/config_listeners.h"

struct setting {
    char *value; /* NULL: not set */
    char *source;
};

#define FAMILIES_BYTES 2048 /* dozens of names; more are not listed */

struct broker_config {
    bool strict;
    int n_keys;
    const struct config_key *keys;
    struct setting *settings; /* one per key, in the order of the table */
    /* values that follow from other keys, "" when they do not */
    char retention_ms[24], roll_ms[24];
    char peer_listener[LIMIT_ADDRESS];
    /* names set of families that mean nothing here, each ended by \0, then ""
     */
    char families[FAMILIES_BYTES];
};

static void derive(struct broker_config *c);

struct broker_config *broker_config_new(void)
{
    struct broker_config *c = mem_zalloc(sizeof *c);
    c->n_keys = config_keys(CONFIG_BROKER, &c->keys);
    c->settings = mem_zalloc((size_t)c->n_keys * sizeof *c->settings);
    derive(c);
    return c;
}

void broker_config_free(struct broker_config *c)
{
    if (c == NULL) {
        return;
    }
    for (int i = 0; i < c->n_keys; i++) {
        mem_free(c->settings[i].value);
        mem_free(c->settings[i].source);
    }
    mem_free(c->settings);
    mem_free(c);
}

void broker_config_strict(struct broker_config *c, bool strict)
{
    c->strict = strict;
}

static struct setting *setting_of(const struct broker_config *c,
                                  const char *name)
{
    const struct config_key *key = config_key_find(CONFIG_BROKER, name);
    return key == NULL ? NULL : &c->settings[key - c->keys];
}

/* ---- reading values ------------------------------------------------------ */

/* The key whose setting decides about `name`: itself or its other name. */
static const char *deciding_key(const struct broker_config *c, const char *name)
{
    /* the key asked for, then those that may answer, the strongest first */
    static const char *const families[][4] = {
        {"node.id", "node.id", "broker.id"},
        {"broker.id", "node.id", "broker.id"},
        {"log.dirs", "log.dirs", "log.dir"},
        {"log.dir", "log.dirs", "log.dir"},
        {"log.retention.ms", "log.retention.ms", "log.retention.minutes",
         "log.retention.hours"},
        {"log.roll.ms", "log.roll.ms", "log.roll.hours"},
    };
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        if (strcmp(families[i][0], name) != 0) {
            continue;
        }
        for (int j = 1; j < 4 && families[i][j] != NULL; j++) {
            if (setting_of(c, families[i][j])->value != NULL) {
                return families[i][j];
            }
        }
    }
    return name;
}

static const char *default_of(const char *name)
{
    if (strcmp(name, "broker.id") == 0) {
        name = "node.id";
    } else if (strcmp(name, "log.dirs") == 0) {
        name = "log.dir";
    } else if (strcmp(name, "log.retention.ms") == 0) {
        return "604800000"; /* 168 hours */
    } else if (strcmp(name, "log.roll.ms") == 0) {
        return "604800000";
    }
    return config_key_find(CONFIG_BROKER, name)->default_value;
}

const char *broker_config_get(const struct broker_config *c, const char *key)
{
    ASSERT(config_key_find(CONFIG_BROKER, key) != NULL);
    const char *from = deciding_key(c, key);
    const char *value = setting_of(c, from)->value;
    if (value == NULL && strcmp(key, "peer.listener") == 0) {
        return c->peer_listener;
    }
    if (value == NULL) {
        return default_of(key);
    }
    if (strcmp(from, key) != 0 && strcmp(key, "log.retention.ms") == 0) {
        return c->retention_ms;
    }
    if (strcmp(from, key) != 0 && strcmp(key, "log.roll.ms") == 0) {
        return c->roll_ms;
    }
    return value;
}

bool broker_config_is_set(const struct broker_config *c, const char *key)
{
    const struct setting *s = setting_of(c, key);
    return s != NULL && s->value != NULL;
}

const char *broker_config_source(const struct broker_config *c, const char *key)
{
    ASSERT(config_key_find(CONFIG_BROKER, key) != NULL);
    const struct setting *s = setting_of(c, deciding_key(c, key));
    return s->value == NULL ? "default" : s->source;
}

int64_t broker_config_int(const struct broker_config *c, const char *key)
{
    const char *value = broker_config_get(c, key);
    ASSERT(value != NULL);
    return strtoll(value, NULL, 10); /* was checked when it was set */
}

bool broker_config_bool(const struct broker_config *c, const char *key)
{
    const char *value = broker_config_get(c, key);
    ASSERT(value != NULL);
    return strcasecmp(value, "true") == 0;
}

int broker_config_ignored(const struct broker_config *c, char *names,
                          size_t size)
{
    int n = 0;
    size_t used = 0;
    if (size > 0) {
        names[0] = '\0';
    }
    for (int i = 0; i < c->n_keys; i++) {
        if (c->settings[i].value == NULL || !c->keys[i].no_op) {
            continue;
        }
        int w = snprintf(names + used, size - used, "%s%s", n > 0 ? ", " : "",
                         c->keys[i].name);
        used = used + (size_t)w < size ? used + (size_t)w : size - 1;
        n++;
    }
    for (const char *at = c->families; *at != '\0'; at += strlen(at) + 1) {
        int w =
            snprintf(names + used, size - used, "%s%s", n > 0 ? ", " : "", at);
        used = used + (size_t)w < size ? used + (size_t)w : size - 1;
        n++;
    }
    return n;
}

/* ---- setting one key ----------------------------------------------------- */

static void warn_sentence(const struct config_problem_fn *warn,
                          const char *sentence)
{
    if (warn != NULL && warn->warn != NULL) {
        warn->warn(warn->arg, sentence);
    }
}

/* Families of Kafka's keys with names of their own making: of one listener,
 * of security (later), of parts that do not exist here. */
static bool is_ignored_family(const char *name)
{
    static const char *const prefixes[] = {
        "confluent.", "group.share.", "group.streams.", "listener.name.",
        "log4j.",     "remote.log.",  "rlmm.",          "rsm.",
        "sasl.",      "share.",       "ssl.",           "zookeeper.",
    };
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0) {
            return true;
        }
    }
    return false;
}

/* Keeps the name, to be listed; those beyond what there is room for are not. */
static void note_family(struct broker_config *c, const char *name)
{
    char *at = c->families;
    size_t n = strlen(name);
    while (*at != '\0' && strcmp(at, name) != 0) {
        at += strlen(at) + 1;
    }
    size_t left = sizeof c->families - (size_t)(at - c->families);
    if (*at == '\0' && n + 2 <= left) {
        memcpy(at, name, n + 1);
        at[n + 1] = '\0'; /* the list's end */
    }
}

static enum err unknown_key(const struct broker_config *c, const char *name,
                            const char *source,
                            const struct config_problem_fn *warn, char *why,
                            size_t why_size)
{
    char sentence[512];
    const struct config_key *topic = config_key_find(CONFIG_TOPIC, name);
    const char *near = topic != NULL && topic->synonym != NULL
                           ? topic->synonym
                           : config_key_nearest(CONFIG_BROKER, name);
    snprintf(sentence, sizeof sentence,
             "Unknown key \"%.128s\" in %.128s%s%s%s", name, source,
             near != NULL ? ": did you mean " : "", near != NULL ? near : "",
             near != NULL ? "?" : ".");
    if (c->strict) {
        snprintf(why, why_size, "%s", sentence);
        return ERR_INVALID;
    }
    warn_sentence(warn, sentence);
    return ERR_OK;
}

/* Writes the milliseconds of a coarser key, saturating; negative: no limit. */
static void scale(char out[24], const char *value, int64_t factor)
{
    int64_t v = strtoll(value, NULL, 10);
    v = v < 0 ? -1 : v > INT64_MAX / factor ? INT64_MAX : v * factor;
    snprintf(out, 24, "%" PRId64, v);
}

static void derive(struct broker_config *c)
{
    const struct setting *hours = setting_of(c, "log.retention.hours");
    const struct setting *minutes = setting_of(c, "log.retention.minutes");
    const struct setting *roll = setting_of(c, "log.roll.hours");
    if (minutes->value != NULL) {
        scale(c->retention_ms, minutes->value, 60000);
    } else if (hours->value != NULL) {
        scale(c->retention_ms, hours->value, 3600000);
    }
    if (roll->value != NULL) {
        scale(c->roll_ms, roll->value, 3600000);
    }
    struct config_listeners l;
    char why[256]; /* told by broker_config_validate, when all is set */
    c->peer_listener[0] = '\0';
    if (config_listeners_read(c, &l, why, sizeof why) == ERR_OK) {
        memcpy(c->peer_listener, l.peer_listen, sizeof c->peer_listener);
    }
}

/* `value` without blanks at its ends, in `out`; false: too long. */
static bool trimmed(char *out, size_t size, const char *value)
{
    while (isspace((unsigned char)*value)) {
        value++;
    }
    size_t n = strlen(value);
    while (n > 0 && isspace((unsigned char)value[n - 1])) {
        n--;
    }
    if (n >= size) {
        return false;
    }
    memcpy(out, value, n);
    out[n] = '\0';
    return true;
}

enum err broker_config_set(struct broker_config *c, const char *key,
                           const char *value, const char *source,
                           const struct config_problem_fn *warn, char *why,
                           size_t why_size)
{
    const struct config_key *known = config_key_find(CONFIG_BROKER, key);
    if (known == NULL && is_ignored_family(key)) {
        note_family(c, key);
        return ERR_OK;
    }
    if (known == NULL) {
        return unknown_key(c, key, source, warn, why, why_size);
    }
    char *text = mem_alloc(CONFIG_VALUE_MAX);
    char problem[384];
    enum err e = ERR_OK;
    struct setting *s = &c->settings[known - c->keys];
    if (!trimmed(text, CONFIG_VALUE_MAX, value)) {
        snprintf(problem, sizeof problem, "The value of %s is too long.", key);
        e = ERR_INVALID;
    } else if (text[0] == '\0' && known->default_value == NULL) {
        mem_free(s->value); /* `key=` of a key without default: as if unset */
        s->value = NULL;
    } else {
        e = config_value_check(known, text, problem, sizeof problem);
    }
    if (e != ERR_OK) {
        snprintf(why, why_size, "%s (In %.128s.)", problem, source);
    } else if (text[0] != '\0' || known->default_value != NULL) {
        mem_free(s->value);
        mem_free(s->source);
        s->value = mem_strdup(text);
        s->source = mem_strdup(source);
    }
    derive(c);
    mem_free(text);
    return e;
}

/* ---- the properties syntax ----------------------------------------------- */

/* One logical line: continuations joined, comments and blank lines skipped;
 * escapes still in place. */
struct reader {
    const char *text;
    size_t size, at;
    int line; /* of the logical line's first line */
    int next_line;
    char *logical;
    size_t n;
};

static bool reader_next(struct reader *r)
{
    r->n = 0;
    bool continued = false;
    while (r->at < r->size) {
        const char *begin = r->text + r->at;
        size_t rest = r->size - r->at;
        const char *newline = memchr(begin, '\n', rest);
        size_t n = newline != NULL ? (size_t)(newline - begin) : rest;
        r->at += n + (newline != NULL);
        r->line = continued ? r->line : r->next_line;
        r->next_line++;
        if (n > 0 && begin[n - 1] == '\r') {
            n--;
        }
        while (n > 0 && isspace((unsigned char)*begin)) {
            begin++;
            n--;
        }
        if (!continued && (n == 0 || *begin == '#' || *begin == '!')) {
            continue;
        }
        size_t slashes = 0;
        while (slashes < n && begin[n - 1 - slashes] == '\\') {
            slashes++;
        }
        continued = slashes % 2 == 1;
        n -= continued;
        memcpy(r->logical + r->n, begin, n);
        r->n += n;
        if (!continued) {
            return true;
        }
    }
    return continued && r->n > 0;
}

static int hex_digit(char ch)
{
    return ch >= '0' && ch <= '9'   ? ch - '0'
           : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10
           : ch >= 'A' && ch <= 'F' ? ch - 'A' + 10
                                    : -1;
}

static size_t utf8_put(char *out, unsigned code)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    out[0] = (char)(0xe0 | code >> 12);
    out[1] = (char)(0x80 | (code >> 6 & 0x3f));
    out[2] = (char)(0x80 | (code & 0x3f));
    return 3;
}

/* Takes escapes out of [from, from + n), in place (the result is never
 * longer), and ends it with NUL. False: a malformed \uXXXX or a NUL byte. */
static bool unescape(char *from, size_t n)
{
    size_t w = 0;
    for (size_t i = 0; i < n; i++) {
        char ch = from[i];
        if (ch == '\0') {
            return false;
        }
        if (ch != '\\' || i + 1 == n) {
            from[w++] = ch;
            continue;
        }
        ch = from[++i];
        if (ch == 'u') {
            unsigned code = 0;
            for (int k = 1; k <= 4; k++) {
                int digit = i + 4 < n ? hex_digit(from[i + (size_t)k]) : -1;
                if (digit < 0) {
                    return false;
                }
                code = code << 4 | (unsigned)digit;
            }
            if (code == 0) {
                return false;
            }
            i += 4;
            w += utf8_put(from + w, code);
            continue;
        }
        from[w++] = (char)(ch == 't'   ? '\t'
                           : ch == 'n' ? '\n'
                           : ch == 'r' ? '\r'
                           : ch == 'f' ? '\f'
                                       : ch);
    }
    from[w] = '\0';
    return true;
}

/* Splits a logical line at the first unescaped `=`, `:` or blank. */
static void split(char *line, size_t n, size_t *key_n, size_t *value_at)
{
    size_t i = 0;
    while (i < n && strchr("=: \t\f", line[i]) == NULL) {
        i += line[i] == '\\' && i + 1 < n ? 2 : 1;
    }
    *key_n = i;
    while (i < n && isspace((unsigned char)line[i])) {
        i++;
    }
    if (i < n && (line[i] == '=' || line[i] == ':')) {
        i++;
    }
    while (i < n && isspace((unsigned char)line[i])) {
        i++;
    }
    *value_at = i;
}

enum err broker_config_parse(struct broker_config *c, const char *text,
                             size_t size, const char *source,
                             const struct config_problem_fn *warn, char *why,
                             size_t why_size)
{
    if (size > LIMIT_CONFIG_FILE) {
        snprintf(why, why_size, "%s is larger than %d bytes.", source,
                 LIMIT_CONFIG_FILE);
        return ERR_TOO_LARGE;
    }
    struct reader r = {.text = text, .size = size, .next_line = 1};
    r.logical = mem_alloc(size + 1);
    char *key = mem_alloc(size + 1), *value = mem_alloc(size + 1);
    enum err e = ERR_OK;
    while (e == ERR_OK && reader_next(&r)) {
        size_t key_n, value_at;
        split(r.logical, r.n, &key_n, &value_at);
        memcpy(key, r.logical, key_n);
        memcpy(value, r.logical + value_at, r.n - value_at);
        char where[256];
        snprintf(where, sizeof where, "%.200s line %d", source, r.line);
        if (!unescape(key, key_n) || !unescape(value, r.n - value_at)) {
            snprintf(why, why_size, "Malformed escape in %s.", where);
            e = ERR_INVALID;
        } else {
            e = broker_config_set(c, key, value, where, warn, why, why_size);
        }
    }
    mem_free(value);
    mem_free(key);
    mem_free(r.logical);
    return e;
}

/* ---- rules between keys -------------------------------------------------- */

static bool differs(const struct broker_config *c, const char *a, const char *b)
{
    const char *x = setting_of(c, a)->value, *y = setting_of(c, b)->value;
    return x != NULL && y != NULL && strcmp(x, y) != 0;
}

static enum err smaller(const struct broker_config *c, const char *small,
                        const char *large, int64_t times, char *why,
                        size_t why_size)
{
    if (broker_config_int(c, small) <= broker_config_int(c, large) / times) {
        return ERR_OK;
    }
    if (times == 1) {
        snprintf(why, why_size, "%s=%s must not be above %s=%s.", small,
                 broker_config_get(c, small), large,
                 broker_config_get(c, large));
    } else {
        snprintf(why, why_size,
                 "%s=%s must be at least %" PRId64 " times %s=%s.", large,
                 broker_config_get(c, large), times, small,
                 broker_config_get(c, small));
    }
    return ERR_INVALID;
}

static const struct {
    const char *small, *large;
    int64_t times;
} orders[] = {
    {"raft.tick.interval.ms", "raft.heartbeat.interval.ms", 2},
    {"raft.heartbeat.interval.ms", "raft.election.timeout.ms", 2},
    {"peer.ping.interval.ms", "peer.silence.ms", 2},
    {"group.min.session.timeout.ms", "group.max.session.timeout.ms", 1},
    {"wal.file.bytes", "wal.bytes.max", 2},
    /* a batch must fit into a request, the log buffer and the log */
    {"message.max.bytes", "socket.request.max.bytes", 1},
    {"message.max.bytes", "log.buffer.bytes", 2},
};

enum err broker_config_validate(const struct broker_config *c, char *why,
                                size_t why_size)
{
    if (differs(c, "node.id", "broker.id")) {
        snprintf(why, why_size,
                 "node.id=%s and broker.id=%s are two names of one key: set "
                 "one of them.",
                 setting_of(c, "node.id")->value,
                 setting_of(c, "broker.id")->value);
        return ERR_INVALID;
    }
    if (strchr(broker_config_get(c, "log.dirs"), ',') != NULL) {
        snprintf(why, why_size,
                 "log.dirs=%s names several directories; one is supported.",
                 broker_config_get(c, "log.dirs"));
        return ERR_INVALID;
    }
    if (broker_config_get(c, "seeds")[0] != '\0' &&
        !broker_config_is_set(c, "node.id") &&
        !broker_config_is_set(c, "broker.id")) {
        snprintf(why, why_size,
                 "node.id is not set: with seeds, every broker needs a number "
                 "of its own.");
        return ERR_INVALID;
    }
    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
        enum err e = smaller(c, orders[i].small, orders[i].large,
                             orders[i].times, why, why_size);
        if (e != ERR_OK) {
            return e;
        }
    }
    struct config_listeners listeners;
    return config_listeners_read(c, &listeners, why, why_size);
}
