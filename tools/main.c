/* The flotilla binary: its commands. */
#include <stddef.h>

#include "tools/bench.h"
#include "tools/cli.h"
#include "tools/cluster.h"
#include "tools/completion.h"
#include "tools/config_verbs.h"
#include "tools/consume.h"
#include "tools/dev.h"
#include "tools/group_change.h"
#include "tools/group_verbs.h"
#include "tools/log.h"
#include "tools/produce.h"
#include "tools/server.h"
#include "tools/topic.h"
#include "tools/topic_change.h"

/* clang-format off */
static const struct command commands[] = {
    {"server", "", 0, "Run one broker in the foreground.",
     NULL, server_options, server_run},
    {"dev", "", 0, "Run a local cluster, a process for each broker.",
     dev_more, dev_options, dev_run},
    {"topic create", "NAME", 1, "Create a topic.",
     NULL, topic_create_options, topic_create_run},
    {"topic list", "", 0, "List the topics.",
     NULL, topic_list_options, topic_list_run},
    {"topic describe", "NAME", 1, "Show partitions and configuration.",
     NULL, topic_describe_options, topic_describe_run},
    {"topic alter", "NAME", 1, "Change a topic's configuration.",
     NULL, topic_alter_options, topic_alter_run},
    {"topic add-partitions", "NAME", 1, "Give a topic more partitions.",
     topic_add_partitions_more, topic_add_partitions_options,
     topic_add_partitions_run},
    {"topic trim", "NAME", 1, "Delete a topic's oldest records.",
     topic_trim_more, topic_trim_options, topic_trim_run},
    {"topic delete", "NAME...", CLI_SOME,
     "Delete topics with all their records.",
     NULL, topic_delete_options, topic_delete_run},
    {"produce", "TOPIC", 1, "Write a record for each line read.",
     produce_more, produce_options, produce_run},
    {"consume", "TOPIC", 1, "Print records.",
     consume_more, consume_options, consume_run},
    {"group list", "", 0, "List the consumer groups.",
     NULL, group_list_options, group_list_run},
    {"group describe", "GROUP", 1, "Show members, offsets and lag.",
     NULL, group_describe_options, group_describe_run},
    {"group reset-offsets", "GROUP", 1, "Change where a group goes on.",
     group_reset_offsets_more, group_reset_offsets_options,
     group_reset_offsets_run},
    {"group delete", "GROUP...", CLI_SOME, "Delete groups and their offsets.",
     NULL, group_delete_options, group_delete_run},
    {"cluster status", "", 0, "Show brokers and the state of partitions.",
     NULL, cluster_status_options, cluster_status_run},
    {"cluster health", "", 0, "Say whether all is well; by exit status, too.",
     cluster_health_more, cluster_health_options, cluster_health_run},
    {"config get", "[KEY...]", CLI_ANY, "Show configuration.",
     config_get_more, config_get_options, config_get_run},
    {"config set", "[KEY=VALUE...]", CLI_ANY, "Change configuration.",
     config_set_more, config_set_options, config_set_run},
    {"bench produce", "TOPIC", 1, "Measure producing.", bench_produce_more,
     bench_produce_options, bench_produce_run},
    {"bench consume", "TOPIC", 1, "Measure reading from the beginning.", NULL,
     bench_consume_options, bench_consume_run},
    {"bench latency", "TOPIC", 1,
     "Measure the time from producing to consuming.", bench_latency_more,
     bench_latency_options, bench_latency_run},
    {"log dump", "PATH", 1, "Show the batches of a partition's files.",
     log_more, log_dump_options, log_dump_run},
    {"log verify", "PATH", 1, "Check a partition's files.",
     log_more, log_verify_options, log_verify_run},
    {"completion", "bash|zsh|fish", 1, "Print a shell's completion script.",
     completion_more, completion_options, completion_run},
    {"man", "", 0, "Print the manual page.", NULL, completion_options,
     man_run},
    {NULL, NULL, 0, NULL, NULL, NULL, NULL},
};
/* clang-format on */

int main(int argc, char **argv)
{
    return cli_main(commands, argc, argv);
}
