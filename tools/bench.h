/* `flotilla bench produce|consume`: load from one client, with rates and
 * percentiles. */
#ifndef TOOLS_BENCH_H
#define TOOLS_BENCH_H

#include <librdkafka/rdkafka.h>

#include "tools/cli.h"

extern const struct cli_option bench_produce_options[];
extern const struct cli_option bench_consume_options[];
extern const char bench_produce_more[];
extern const struct cli_option bench_latency_options[];
extern const char bench_latency_more[];
int bench_produce_run(struct cli *cli);
int bench_latency_run(struct cli *cli);
int bench_consume_run(struct cli *cli);

/* ---- shared by the measurements ------------------------------------------ */
int64_t bench_now_ns(void);
/* Microseconds, ascending. */
void bench_sort(uint32_t *latencies, int64_t n);
/* In milliseconds; `sorted` has at least one. */
double bench_percentile(const uint32_t *sorted, int64_t n, double p);
/* `size` bytes that no disk can guess; free() is the caller's. */
char *bench_value(size_t size);
/* Assigns every partition of the topic from this offset on. Gives an exit
 * status; a sentence was printed then. */
int bench_assign(const struct cli *cli, rd_kafka_t *rk, int64_t offset);

#endif
