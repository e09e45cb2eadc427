/* Configuration: overrides of topics, groups and clients, of one broker, of all
 * brokers. */
#include "base/limits.h"
#include "base/mem.h"
#include "metadata/config_keys.h"
#include "metadata/decide.h"
#include "metadata/record.h"

/* Long enough for every list of host names; the record's text has a 16-bit
 * length. */
#define CONFIG_VALUE_MAX 16384

static enum err refuse_unknown(enum config_scope scope, const char *name,
                               struct metadata_topic_result *result)
{
    const char *near = config_key_nearest(scope, name);
    decide_refuse(result, KAFKA_INVALID_CONFIG,
                  near == NULL ? "Unknown %s config name: %.100s%s"
                               : "Unknown %s config name: %.100s; did you "
                                 "mean %s?",
                  config_scope_name(scope), name, near == NULL ? "" : near);
    return ERR_INVALID;
}

/* One override; a NULL value removes it. */
static enum err check_one(enum config_scope scope,
                          const struct image_config *config,
                          struct metadata_topic_result *result)
{
    char why[384] = "";
    const struct config_key *key = config_key_find(scope, config->name);
    if (config->value == NULL) {
        return ERR_OK; /* also of a name that nobody knows */
    }
    if (key == NULL) {
        return refuse_unknown(scope, config->name, result);
    }
    if (strlen(config->value) > CONFIG_VALUE_MAX) {
        decide_refuse(result, KAFKA_INVALID_CONFIG,
                      "The value of %s is longer than %d bytes.", key->name,
                      CONFIG_VALUE_MAX);
        return ERR_INVALID;
    }
    if (config_value_check(key, config->value, why, sizeof why) != ERR_OK) {
        /* key and value are said already */
        const char *must = strstr(why, "it must be");
        decide_refuse(result,
                      scope == CONFIG_TOPIC || scope == CONFIG_GROUP
                          ? KAFKA_INVALID_CONFIG
                          : KAFKA_INVALID_REQUEST,
                      "Invalid value %.40s for configuration %s: %s",
                      config->value, key->name, must != NULL ? must : why);
        return ERR_INVALID;
    }
    return ERR_OK;
}

enum err decide_check_topic_configs(const struct image_config *configs, int n,
                                    struct metadata_topic_result *result)
{
    if (n > LIMIT_TOPIC_CONFIGS) {
        decide_refuse(result, KAFKA_INVALID_CONFIG,
                      "More than %d configurations.", LIMIT_TOPIC_CONFIGS);
        return ERR_INVALID;
    }
    for (int i = 0; i < n; i++) {
        if (configs[i].value == NULL) {
            decide_refuse(result, KAFKA_INVALID_CONFIG,
                          "Null value not supported for topic configs: %.100s",
                          configs[i].name);
            return ERR_INVALID;
        }
        if (check_one(CONFIG_TOPIC, &configs[i], result) != ERR_OK) {
            return ERR_INVALID;
        }
    }
    return ERR_OK;
}

static enum config_scope scope_of(const struct metadata_config_change *c)
{
    return c->topic != NULL      ? CONFIG_TOPIC
           : c->resource != NULL ? c->scope
                                 : CONFIG_BROKER;
}

/* How many groups and clients something is set for. */
static int resources_known(const struct image *image)
{
    const struct image_resource *all;
    return image_resources(image, CONFIG_GROUP, &all) +
           image_resources(image, CONFIG_CLIENT, &all);
}

static enum err check_resource(struct decide *d,
                               const struct metadata_config_change *c,
                               const struct image_topic *topic,
                               struct metadata_topic_result *result)
{
    if (c->topic != NULL && topic == NULL) {
        decide_refuse(result, KAFKA_UNKNOWN_TOPIC_OR_PARTITION,
                      "The topic '%.200s' does not exist.", c->topic);
        return ERR_INVALID;
    }
    if (c->resource != NULL && c->topic == NULL) {
        if ((c->scope != CONFIG_GROUP && c->scope != CONFIG_CLIENT) ||
            c->resource[0] == '\0') {
            decide_refuse(result, KAFKA_INVALID_REQUEST,
                          "The resource needs a name.");
            return ERR_INVALID;
        }
        if (image_resource(d->image, c->scope, c->resource) == NULL &&
            d->n_new_resources++ + resources_known(d->image) >=
                LIMIT_CONFIG_RESOURCES) {
            decide_refuse(result, KAFKA_POLICY_VIOLATION,
                          "More than %d groups and clients have settings.",
                          LIMIT_CONFIG_RESOURCES);
            return ERR_INVALID;
        }
    } else if (c->topic == NULL && c->node != -1 &&
               image_broker(d->image, c->node) == NULL) {
        decide_refuse(result, KAFKA_INVALID_REQUEST,
                      "No broker with id %d is registered.", c->node);
        return ERR_INVALID;
    }
    if (c->n_configs > LIMIT_TOPIC_CONFIGS) {
        decide_refuse(result, KAFKA_INVALID_CONFIG,
                      "More than %d configurations.", LIMIT_TOPIC_CONFIGS);
        return ERR_INVALID;
    }
    return ERR_OK;
}

static enum err check_all(const struct metadata_config_change *c,
                          struct metadata_topic_result *result)
{
    enum config_scope scope = scope_of(c);
    for (int i = 0; i < c->n_configs; i++) {
        const struct image_config *config = &c->configs[i];
        if (check_one(scope, config, result) != ERR_OK) {
            return ERR_INVALID;
        }
        if (scope == CONFIG_BROKER && config->value != NULL &&
            config_key_find(scope, config->name)->read_only) {
            decide_refuse(result, KAFKA_INVALID_REQUEST,
                          "Cannot update these configs dynamically: %s; set "
                          "it in server.properties and restart the broker.",
                          config->name);
            return ERR_INVALID;
        }
    }
    return ERR_OK;
}

static bool is_known(const struct metadata_config_change *c,
                     const struct image_config *config)
{
    return config_key_find(scope_of(c), config->name) != NULL;
}

void decide_alter_configs(struct decide *d, const struct change *change)
{
    for (int i = 0; i < change->n; i++) {
        const struct metadata_config_change *c = &change->u.configs[i];
        struct metadata_topic_result *result = &d->answer.results[i];
        const struct image_topic *topic =
            c->topic == NULL
                ? NULL
                : image_topic(d->image, c->topic, strlen(c->topic));
        if (check_resource(d, c, topic, result) != ERR_OK ||
            check_all(c, result) != ERR_OK || change->validate_only) {
            continue;
        }
        for (int k = 0; k < c->n_configs; k++) {
            const struct image_config *config = &c->configs[k];
            if (!is_known(c, config)) {
                continue;
            }
            if (topic != NULL) {
                record_put_topic_config(decide_records(d), &topic->id,
                                        config->name, config->value);
            } else if (c->resource != NULL) {
                record_put_config(decide_records(d), c->scope, c->resource,
                                  config->name, config->value);
            } else {
                record_put_broker_config(decide_records(d), c->node,
                                         config->name, config->value);
            }
        }
    }
}
