/* The client side of the commands, on librdkafka. */
#ifndef TOOLS_CLIENT_H
#define TOOLS_CLIENT_H

#include <librdkafka/rdkafka.h>

#include "tools/cli.h"
#include "tools/output.h"

/* A configuration with the addresses; what a command sets in it, -X changes in
 * client_new. client_set ends the process with EXIT_USAGE for a property that
 * librdkafka does not take. */
rd_kafka_conf_t *client_conf(const struct cli *cli);
void client_set(const struct cli *cli, rd_kafka_conf_t *conf,
                const char *property, const char *value);
/* --acks; a producer whose records count as written when all have them is
 * idempotent. Ends the process with EXIT_USAGE for another word. */
void client_set_acks(const struct cli *cli, rd_kafka_conf_t *conf);
/* Applies -X and consumes `conf`. NULL: a sentence was printed. */
rd_kafka_t *client_new(const struct cli *cli, rd_kafka_type_t type,
                       rd_kafka_conf_t *conf);
/* A client for asking and changing; creates no topics. */
rd_kafka_t *client_admin(const struct cli *cli);
/* The addresses asked: -b, the environment, the default. */
const char *client_addresses(const struct cli *cli);
int client_timeout_ms(const struct cli *cli); /* --wait */

/* Everything the cluster tells about itself; NULL: *status is the exit status
 * and a sentence was printed. Freed by rd_kafka_metadata_destroy. */
const struct rd_kafka_metadata *client_metadata(const struct cli *cli,
                                                rd_kafka_t *rk, int *status);
/* Whether any broker answers; false: *status, and a sentence was printed. */
bool client_reach(const struct cli *cli, rd_kafka_t *rk, int *status);
/* Deletes what the arguments name, or with --dry-run says what would be: gives
 * the exit status. Either adds its rows by output_deleted; `kind` as there. */
typedef int (*client_deleting)(const struct cli *cli, rd_kafka_t *rk,
                               json_t *rows);
int client_delete(struct cli *cli, const char *kind, client_deleting dry,
                  client_deleting really);
/* NULL: there is no such topic (nothing printed). */
const struct rd_kafka_metadata_topic *client_find_topic(
    const struct rd_kafka_metadata *metadata, const char *name);
int client_no_topic(const struct cli *cli, const char *name);
int client_no_group(const struct cli *cli, const char *name);

/* Prints what failed, with Kafka's name and number of the error; gives the
 * exit status that fits it. */
int client_fail(const struct cli *cli, rd_kafka_resp_err_t err,
                const char *what, const char *detail);

/* One admin call: make it with `queue`, then wait for its event; NULL: *status
 * is the exit status and a sentence was printed. */
struct client_call {
    rd_kafka_queue_t *queue;
    rd_kafka_AdminOptions_t *options;
    rd_kafka_event_t *event;
};
void client_call_begin(const struct cli *cli, rd_kafka_t *rk,
                       rd_kafka_admin_op_t op, struct client_call *call);
rd_kafka_event_t *client_call_wait(const struct cli *cli,
                                   struct client_call *call, int *status);
void client_call_end(struct client_call *call);

#endif
