/* Reading and changing configuration: `config get|set`, `topic alter`. */
#ifndef TOOLS_CONFIG_VERBS_H
#define TOOLS_CONFIG_VERBS_H

#include "tools/cli.h"

extern const struct cli_option config_get_options[];
extern const struct cli_option config_set_options[];
extern const struct cli_option topic_alter_options[];
extern const char config_get_more[];
extern const char config_set_more[];
/* Where a value comes from, for people, by Kafka's number of it; static. */
const char *config_source_name(int source);
int config_get_run(struct cli *cli);
int config_set_run(struct cli *cli);
int topic_alter_run(struct cli *cli);

#endif
