/* Which handler serves which API. What has no handler is not offered. */
#include "net/api/api.h"
#include "net/request.h"
#include "net/throttle.h"
#include "schema/apis.h"

static const struct {
    int16_t key;
    void (*handle)(struct request *rq);
} handlers[] = {
    {API_PRODUCE, api_produce},
    {API_FETCH, api_fetch},
    {API_LIST_OFFSETS, api_list_offsets},
    {API_METADATA, api_metadata},
    {API_OFFSET_COMMIT, api_offset_commit},
    {API_OFFSET_FETCH, api_offset_fetch},
    {API_FIND_COORDINATOR, api_find_coordinator},
    {API_JOIN_GROUP, api_join_group},
    {API_HEARTBEAT, api_heartbeat},
    {API_LEAVE_GROUP, api_leave_group},
    {API_SYNC_GROUP, api_sync_group},
    {API_DESCRIBE_GROUPS, api_describe_groups},
    {API_LIST_GROUPS, api_list_groups},
    {API_API_VERSIONS, api_api_versions},
    {API_CREATE_TOPICS, api_create_topics},
    {API_DELETE_TOPICS, api_delete_topics},
    {API_INIT_PRODUCER_ID, api_init_producer_id},
    {API_OFFSET_FOR_LEADER_EPOCH, api_offset_for_leader_epoch},
    {API_DESCRIBE_CONFIGS, api_describe_configs},
    {API_ALTER_CONFIGS, api_alter_configs},
    {API_CREATE_PARTITIONS, api_create_partitions},
    {API_DELETE_GROUPS, api_delete_groups},
    {API_INCREMENTAL_ALTER_CONFIGS, api_incremental_alter_configs},
    {API_DESCRIBE_CLUSTER, api_describe_cluster},
    {API_DELETE_RECORDS, api_delete_records},
    {API_DESCRIBE_PRODUCERS, api_describe_producers},
    {API_DESCRIBE_LOG_DIRS, api_describe_log_dirs},
    {API_ALTER_REPLICA_LOG_DIRS, api_alter_replica_log_dirs},
    {API_DESCRIBE_TOPIC_PARTITIONS, api_describe_topic_partitions},
    {API_LIST_CONFIG_RESOURCES, api_list_config_resources},
    {API_DESCRIBE_ACLS, api_describe_acls},
    {API_CREATE_ACLS, api_create_acls},
    {API_DELETE_ACLS, api_delete_acls},
    {API_DESCRIBE_QUORUM, api_describe_quorum},
    {API_ELECT_LEADERS, api_elect_leaders},
    {API_ALTER_PARTITION_REASSIGNMENTS, api_alter_partition_reassignments},
    {API_LIST_PARTITION_REASSIGNMENTS, api_list_partition_reassignments},
    {API_DESCRIBE_CLIENT_QUOTAS, api_describe_client_quotas},
    {API_ALTER_CLIENT_QUOTAS, api_alter_client_quotas},
    {API_OFFSET_DELETE, api_offset_delete},
    {API_DESCRIBE_USER_SCRAM_CREDENTIALS, api_describe_user_scram_credentials},
    {API_UNREGISTER_BROKER, api_unregister_broker},
};

#define N_HANDLERS (sizeof handlers / sizeof handlers[0])

bool request_has_handler(int16_t api_key)
{
    for (size_t i = 0; i < N_HANDLERS; i++) {
        if (handlers[i].key == api_key) {
            return true;
        }
    }
    return false;
}

void request_dispatch(struct request *rq)
{
    for (size_t i = 0; i < N_HANDLERS; i++) {
        if (handlers[i].key == rq->api_key) {
            throttle_begin(rq);
            handlers[i].handle(rq);
            throttle_end(rq);
            return;
        }
    }
    request_close(rq, "an API that is not offered");
}
