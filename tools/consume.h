/* flotilla consume TOPIC: prints records. */
#ifndef TOOLS_CONSUME_H
#define TOOLS_CONSUME_H

#include "tools/cli.h"

extern const struct cli_option consume_options[];
extern const char consume_more[];
int consume_run(struct cli *cli);

#endif
