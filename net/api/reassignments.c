/* AlterPartitionReassignments and ListPartitionReassignments. Replicas cannot
 * be moved as yet: what changes nothing is done, everything else is refused
 * with a sentence, and nothing is ever under way. */
#include <stdio.h>

#include "net/api/api.h"
#include "schema/alter_partition_reassignments.h"
#include "schema/list_partition_reassignments.h"

void api_list_partition_reassignments(struct request *rq)
{
    struct list_partition_reassignments_request in;
    struct list_partition_reassignments_response out;
    if (!request_decode(rq, &list_partition_reassignments_request_message,
                        &in)) {
        return;
    }
    list_partition_reassignments_response_init(&out);
    out.error_message = WIRE_NULL_STR;
    request_respond(rq, &list_partition_reassignments_response_message, &out);
}

static bool same_replicas(const struct image_partition *p, const int32_t *nodes,
                          int n)
{
    for (int i = 0; i < n && n == p->n_replicas; i++) {
        if (p->replicas[i].node != nodes[i]) {
            return false;
        }
    }
    return n == p->n_replicas;
}

/* What is wrong with the brokers named; NULL when nothing is. */
static const char *bad_replicas(struct request *rq, const int32_t *nodes, int n)
{
    char why[160];
    if (n == 0) {
        return "The manual partition assignment includes an empty replica "
               "list.";
    }
    for (int i = 0; i < n; i++) {
        if (image_broker(rq->shard->image, nodes[i]) == NULL) {
            snprintf(why, sizeof why,
                     "The manual partition assignment includes broker %d, but "
                     "no such broker is registered.",
                     nodes[i]);
            return arena_strdup(&rq->arena, why);
        }
        for (int k = 0; k < i; k++) {
            if (nodes[k] == nodes[i]) {
                snprintf(why, sizeof why,
                         "The manual partition assignment includes the broker "
                         "%d more than once.",
                         nodes[i]);
                return arena_strdup(&rq->arena, why);
            }
        }
    }
    return NULL;
}

static void move_one(
    struct request *rq, const struct image_topic *topic,
    const struct alter_partition_reassignments_request_partition *in,
    struct alter_partition_reassignments_response_partition *out)
{
    enum kafka_error error = KAFKA_NONE;
    const char *message = NULL;
    out->partition_index = in->partition_index;
    if (topic == NULL || in->partition_index < 0 ||
        in->partition_index >= topic->n_partitions) {
        error = KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
        message = "No such partition.";
    } else if (in->n_replicas < 0) {
        error = KAFKA_NO_REASSIGNMENT_IN_PROGRESS;
    } else {
        message = bad_replicas(rq, in->replicas, in->n_replicas);
        if (message != NULL) {
            error = KAFKA_INVALID_REPLICA_ASSIGNMENT;
        } else if (!same_replicas(&topic->partitions[in->partition_index],
                                  in->replicas, in->n_replicas)) {
            error = KAFKA_INVALID_REQUEST;
            message = "Replicas of a partition cannot be moved yet.";
        }
    }
    out->error_code = (int16_t)error;
    out->error_message = wire_str_of(message);
}

void api_alter_partition_reassignments(struct request *rq)
{
    struct alter_partition_reassignments_request in;
    struct alter_partition_reassignments_response out;
    if (!request_decode(rq, &alter_partition_reassignments_request_message,
                        &in)) {
        return;
    }
    alter_partition_reassignments_response_init(&out);
    out.error_message = WIRE_NULL_STR;
    out.allow_replication_factor_change = in.allow_replication_factor_change;
    out.responses = api_alloc(rq, (size_t)in.n_topics, sizeof *out.responses);
    out.n_responses = in.n_topics;
    for (int t = 0; t < in.n_topics; t++) {
        const struct image_topic *topic = NULL;
        int n = in.topics[t].n_partitions;
        (void)api_find_topic(rq->shard, in.topics[t].name, NULL, &topic);
        out.responses[t].name = in.topics[t].name;
        out.responses[t].partitions =
            api_alloc(rq, (size_t)n, sizeof *out.responses[t].partitions);
        out.responses[t].n_partitions = n;
        for (int p = 0; p < n; p++) {
            move_one(rq, topic, &in.topics[t].partitions[p],
                     &out.responses[t].partitions[p]);
        }
    }
    request_respond(rq, &alter_partition_reassignments_response_message, &out);
}
