/* The rows behind metadata/config_keys.h; only config_keys.c reads them. */
#ifndef METADATA_CONFIG_TABLE_H
#define METADATA_CONFIG_TABLE_H

#include "metadata/config_keys.h"

/* Each sorted by name (strcmp). */
extern const struct config_key config_topic_table[];
extern const int config_topic_table_size;
extern const struct config_key config_group_table[];
extern const int config_group_table_size;
extern const struct config_key config_client_table[];
extern const int config_client_table_size;
extern const struct config_key config_broker_table[];
extern const int config_broker_table_size;

#endif
