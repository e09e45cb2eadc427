/* AlterReplicaLogDirs: a broker has one data directory, so a replica is where
 * it can be, or is asked to go where there is nothing. */
#include "net/api/api.h"
#include "schema/alter_replica_log_dirs.h"

static enum kafka_error move_error(
    struct request *rq, const struct alter_replica_log_dirs_request_dir *dir,
    const struct image_topic *topic, int32_t index)
{
    const char *here = broker_data_dir(rq->shard->broker);
    node_id self = broker_node(rq->shard->broker);
    if (!wire_str_is(dir->path, here)) {
        return KAFKA_LOG_DIR_NOT_FOUND;
    }
    if (topic == NULL || index < 0 || index >= topic->n_partitions) {
        return KAFKA_REPLICA_NOT_AVAILABLE;
    }
    const struct image_partition *p = &topic->partitions[index];
    for (int i = 0; i < p->n_replicas; i++) {
        if (p->replicas[i].node == self) {
            return KAFKA_NONE;
        }
    }
    return KAFKA_REPLICA_NOT_AVAILABLE;
}

static void move_topic(struct request *rq,
                       const struct alter_replica_log_dirs_request_dir *dir,
                       const struct alter_replica_log_dirs_request_topic *in,
                       struct alter_replica_log_dirs_response_result *out)
{
    const struct image_topic *topic = NULL;
    (void)api_find_topic(rq->shard, in->name, NULL, &topic);
    out->topic_name = in->name;
    out->partitions =
        api_alloc(rq, (size_t)in->n_partitions, sizeof *out->partitions);
    out->n_partitions = in->n_partitions;
    for (int i = 0; i < in->n_partitions; i++) {
        out->partitions[i].partition_index = in->partitions[i];
        out->partitions[i].error_code =
            (int16_t)move_error(rq, dir, topic, in->partitions[i]);
    }
}

void api_alter_replica_log_dirs(struct request *rq)
{
    struct alter_replica_log_dirs_request in;
    struct alter_replica_log_dirs_response out;
    size_t n = 0;
    if (!request_decode(rq, &alter_replica_log_dirs_request_message, &in)) {
        return;
    }
    for (int d = 0; d < in.n_dirs; d++) {
        n += (size_t)in.dirs[d].n_topics;
    }
    alter_replica_log_dirs_response_init(&out);
    out.results = api_alloc(rq, n, sizeof *out.results);
    for (int d = 0; d < in.n_dirs; d++) {
        for (int t = 0; t < in.dirs[d].n_topics; t++) {
            move_topic(rq, &in.dirs[d], &in.dirs[d].topics[t],
                       &out.results[out.n_results++]);
        }
    }
    request_respond(rq, &alter_replica_log_dirs_response_message, &out);
}
