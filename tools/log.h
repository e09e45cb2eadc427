/* flotilla log dump|verify PATH: the files of a partition, offline. */
#ifndef TOOLS_LOG_H
#define TOOLS_LOG_H

#include "tools/cli.h"

extern const struct cli_option log_dump_options[];
extern const struct cli_option log_verify_options[];
extern const char log_more[];
int log_dump_run(struct cli *cli);
int log_verify_run(struct cli *cli);

#endif
