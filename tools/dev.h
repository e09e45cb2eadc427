/* A local cluster: n brokers on loopback, a process each. */
#ifndef TOOLS_DEV_H
#define TOOLS_DEV_H

#include "tools/cli.h"

extern const struct cli_option dev_options[];
extern const char dev_more[];
int dev_run(struct cli *cli);

#endif
