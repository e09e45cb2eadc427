/* What other programs want of the command table: shell completion and the
 * manual page. */
#ifndef TOOLS_COMPLETION_H
#define TOOLS_COMPLETION_H

#include "tools/cli.h"

extern const struct cli_option completion_options[];
extern const char completion_more[];
int completion_run(struct cli *cli); /* completion bash|zsh|fish */
int man_run(struct cli *cli);        /* the page, in roff, on stdout */

#endif
