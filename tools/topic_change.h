/* `topic add-partitions` and `topic trim`. */
#ifndef TOOLS_TOPIC_CHANGE_H
#define TOOLS_TOPIC_CHANGE_H

#include "tools/cli.h"

extern const struct cli_option topic_add_partitions_options[];
extern const struct cli_option topic_trim_options[];
extern const char topic_add_partitions_more[];
extern const char topic_trim_more[];
int topic_add_partitions_run(struct cli *cli);
int topic_trim_run(struct cli *cli);

#endif
