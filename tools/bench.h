/* `flotilla bench produce|consume`: load from one client, with rates and
 * percentiles. */
#ifndef TOOLS_BENCH_H
#define TOOLS_BENCH_H

#include "tools/cli.h"

extern const struct cli_option bench_produce_options[];
extern const struct cli_option bench_consume_options[];
extern const char bench_produce_more[];
int bench_produce_run(struct cli *cli);
int bench_consume_run(struct cli *cli);

#endif
