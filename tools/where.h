/* Places in a partition as people name them: "beginning" (or "start"), "end",
 * N, -N (the last N) and @TIME (the first record at or after that time). */
#ifndef TOOLS_WHERE_H
#define TOOLS_WHERE_H

#include <librdkafka/rdkafka.h>

#include "tools/cli.h"

#define WHERE_WORDS "beginning, end, N, -N (the last N) or @TIME"
#define WHERE_TIMES                                                          \
    "TIME is in milliseconds since 1970, or 2026-11-21 or 2026-11-21T13:30 " \
    "(with\nseconds or without, in UTC), or so long ago: @-90m, with s, m, " \
    "h or d.\n"

struct where {
    enum { WHERE_BEGINNING, WHERE_END, WHERE_AT, WHERE_LAST, WHERE_TIME } kind;
    int64_t n; /* offset, count or milliseconds */
};

/* The value of an option; ends the process with EXIT_USAGE for another word. */
struct where where_option(const struct cli *cli, const char *option,
                          const char *otherwise);
/* As the client library takes it when it begins to read; WHERE_TIME has to be
 * resolved first. */
int64_t where_logical(struct where where);
/* Sets the offset of every partition in the list to the place, between the
 * partition's ends. Gives an exit status; a sentence was printed then. */
int where_resolve(const struct cli *cli, rd_kafka_t *rk, struct where where,
                  rd_kafka_topic_partition_list_t *list);
/* All partitions of a topic, or those of the repeated option --partition.
 * NULL: *status, a sentence was printed. */
rd_kafka_topic_partition_list_t *where_partitions(const struct cli *cli,
                                                  rd_kafka_t *rk,
                                                  const char *topic,
                                                  int *status);

#endif
