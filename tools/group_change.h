/* `group reset-offsets` and `group delete`. */
#ifndef TOOLS_GROUP_CHANGE_H
#define TOOLS_GROUP_CHANGE_H

#include "tools/cli.h"

extern const struct cli_option group_reset_offsets_options[];
extern const struct cli_option group_delete_options[];
extern const char group_reset_offsets_more[];
int group_reset_offsets_run(struct cli *cli);
int group_delete_run(struct cli *cli);

#endif
