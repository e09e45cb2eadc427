/* flotilla produce TOPIC: a record for each line. */
#ifndef TOOLS_PRODUCE_H
#define TOOLS_PRODUCE_H

#include "tools/cli.h"

extern const struct cli_option produce_options[];
extern const char produce_more[];
int produce_run(struct cli *cli);

#endif
