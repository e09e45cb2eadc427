/* Which of the places where a topic's key can be set decides. */
#include <string.h>

#include "metadata/config_keys.h"

const char *config_topic_effective(const struct image *image,
                                   const struct image_topic *topic,
                                   const struct broker_config *broker,
                                   node_id node, const struct config_key *key,
                                   int *source)
{
    const char *value =
        topic != NULL ? image_topic_config(topic, key->name) : NULL;
    *source = 1;
    const char *synonym = key->synonym;
    if (value == NULL && synonym != NULL && image != NULL) {
        *source = 2;
        value = image_broker_config(image, node, synonym);
        if (value == NULL) {
            *source = 3;
            value = image_broker_config(image, -1, synonym);
        }
    }
    const struct config_key *known =
        synonym != NULL ? config_key_find(CONFIG_BROKER, synonym) : NULL;
    if (value == NULL && known != NULL && broker != NULL &&
        strcmp(broker_config_source(broker, synonym), "default") != 0) {
        *source = 4;
        value = broker_config_get(broker, synonym);
    }
    if (value == NULL) {
        *source = 5;
        value = key->default_value;
    }
    return value;
}
