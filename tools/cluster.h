/* flotilla cluster status, cluster health. */
#ifndef TOOLS_CLUSTER_H
#define TOOLS_CLUSTER_H

#include "tools/cli.h"

extern const struct cli_option cluster_status_options[];
int cluster_status_run(struct cli *cli);
extern const struct cli_option cluster_health_options[];
extern const char cluster_health_more[];
int cluster_health_run(struct cli *cli);

#endif
