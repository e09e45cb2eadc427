/* One broker in the foreground. */
#ifndef TOOLS_SERVER_H
#define TOOLS_SERVER_H

#include "tools/cli.h"

extern const struct cli_option server_options[];
int server_run(struct cli *cli);

#endif
