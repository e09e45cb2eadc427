/* flotilla topic create|list|describe|delete. */
#ifndef TOOLS_TOPIC_H
#define TOOLS_TOPIC_H

#include "tools/cli.h"

extern const struct cli_option topic_create_options[];
extern const struct cli_option topic_list_options[];
extern const struct cli_option topic_describe_options[];
extern const struct cli_option topic_delete_options[];
int topic_create_run(struct cli *cli);
int topic_list_run(struct cli *cli);
int topic_describe_run(struct cli *cli);
int topic_delete_run(struct cli *cli);

#endif
