/* Every configuration key Flotilla knows, in one table: Kafka's names, types,
 * defaults and documentation for topics and brokers, and our own keys. Used to
 * read server.properties and the environment, to validate topic overrides, and
 * to answer DescribeConfigs. */
#ifndef METADATA_CONFIG_KEYS_H
#define METADATA_CONFIG_KEYS_H

#include "metadata/image.h"

enum config_type { /* numbers of DescribeConfigs */
                   CONFIG_BOOLEAN = 1,
                   CONFIG_STRING = 2,
                   CONFIG_INT = 3,
                   CONFIG_SHORT = 4,
                   CONFIG_LONG = 5,
                   CONFIG_DOUBLE = 6,
                   CONFIG_LIST = 7,
                   CONFIG_CLASS = 8,
                   CONFIG_PASSWORD = 9
};

struct config_key {
    const char *name;
    enum config_scope scope;
    enum config_type type;
    const char *default_value; /* NULL: null */
    const char *synonym; /* of topics, groups: the broker key that gives its
                          * default */
    bool no_op;          /* accepted, means nothing here */
    bool read_only;      /* broker keys that need a restart */
    int64_t min, max;    /* of numbers */
    const char *values;  /* "a|b|c*" allowed, NULL: any */
    const char *doc;
};
/* Longest name of a key and longest value that is taken, with NUL: Kafka's own
 * longest name has 57 bytes; values are lists of addresses at most. */
#define CONFIG_NAME_MAX 128
#define CONFIG_VALUE_MAX 16384
const struct config_key *config_key_find(enum config_scope scope,
                                         const char *name);
int config_keys(enum config_scope scope,
                const struct config_key **out); /* sorted by name */
/* What people call something of this scope: "topic", "broker", ... */
const char *config_scope_name(enum config_scope scope);
/* A topic key that Kafka 4 knows no more: taken from older tools, told of only
 * where it is set. */
bool config_key_is_gone(const struct config_key *key);
/* The nearest known name, for "did you mean"; NULL when nothing is near. */
const char *config_key_nearest(enum config_scope scope, const char *name);
/* ERR_OK, or ERR_INVALID with a sentence: what is wrong and what is allowed. */
MUST_USE enum err config_value_check(const struct config_key *key,
                                     const char *value, char *why,
                                     size_t why_size);

/* The key of an environment variable after its prefix, as Kafka's image maps
 * it: lower case, `_` is `.`, `__` is `_`, `___` is `-`. False: too long, empty
 * or not a configuration key (the image's own HEAP_OPTS, LOG4J_… and such). */
bool config_key_from_env(const char *rest, char *key, size_t key_size);

/* The broker's static configuration: server.properties, environment, -D. */
struct broker_config;
struct broker_config *broker_config_new(void);
void broker_config_free(struct broker_config *c);
struct config_problem_fn {
    void (*warn)(void *arg, const char *sentence);
    void *arg;
};
/* Text of a properties file (Kafka's syntax: `key=value`, `key: value`, # and !
 * comments, backslash continuations). */
MUST_USE enum err broker_config_parse(struct broker_config *c, const char *text,
                                      size_t size, const char *source,
                                      const struct config_problem_fn *warn,
                                      char *why, size_t why_size);
/* One key (source "-D", "environment"); last wins. */
MUST_USE enum err broker_config_set(struct broker_config *c, const char *key,
                                    const char *value, const char *source,
                                    const struct config_problem_fn *warn,
                                    char *why, size_t why_size);
void broker_config_strict(struct broker_config *c,
                          bool strict); /* unknown keys refuse */
/* Effective value: set or default; NULL: null. `node.id` and `log.dirs` answer
 * for `broker.id` and `log.dir` as well, `log.retention.ms` and `log.roll.ms`
 * for the coarser keys beside them, and `peer.listener` follows `listeners`
 * until it is set. ASSERTs that the key is in the table. */
const char *broker_config_get(const struct broker_config *c, const char *key);
bool broker_config_is_set(const struct broker_config *c, const char *key);
/* What the effective value came from: "default", or the source given to parse
 * or set. */
const char *broker_config_source(const struct broker_config *c,
                                 const char *key);
/* Rules between keys, once all of them are set: ERR_INVALID with a sentence. */
MUST_USE enum err broker_config_validate(const struct broker_config *c,
                                         char *why, size_t why_size);
/* Names that were set and mean nothing here, separated by ", ", cut at `size`;
 * returns how many. */
int broker_config_ignored(const struct broker_config *c, char *names,
                          size_t size);
int64_t broker_config_int(const struct broker_config *c, const char *key);
bool broker_config_bool(const struct broker_config *c, const char *key);
/* Effective value of a topic key: topic override, dynamic broker, static
 * broker, default; `source` is DescribeConfigs' number (1, 2, 3, 4, 5). */
const char *config_topic_effective(const struct image *image,
                                   const struct image_topic *topic,
                                   const struct broker_config *broker,
                                   node_id node, const struct config_key *key,
                                   int *source);

#endif
