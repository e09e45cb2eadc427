/* flotilla group list|describe. */
#ifndef TOOLS_GROUP_VERBS_H
#define TOOLS_GROUP_VERBS_H

#include "tools/cli.h"

extern const struct cli_option group_list_options[];
extern const struct cli_option group_describe_options[];
int group_list_run(struct cli *cli);
int group_describe_run(struct cli *cli);

#endif
