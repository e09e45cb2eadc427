/* A topic's settings as its partitions use them here. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/limits.h"
#include "net/broker_impl.h"

static const char *effective(struct broker_shard *s,
                             const struct image_topic *topic, const char *name)
{
    int source = 0;
    const struct config_key *key = config_key_find(CONFIG_TOPIC, name);
    ASSERT(key != NULL);
    return config_topic_effective(s->image, topic, s->broker->config,
                                  broker_node(s->broker), key, &source);
}

static int64_t effective_int(struct broker_shard *s,
                             const struct image_topic *topic, const char *name)
{
    const char *v = effective(s, topic, name);
    return v == NULL ? -1 : strtoll(v, NULL, 10);
}

static double effective_double(struct broker_shard *s,
                               const struct image_topic *topic,
                               const char *name)
{
    const char *v = effective(s, topic, name);
    return v == NULL ? 0 : strtod(v, NULL);
}

static int32_t effective_i32(struct broker_shard *s,
                             const struct image_topic *topic, const char *name)
{
    int64_t v = effective_int(s, topic, name);
    return v > INT32_MAX ? INT32_MAX : v < -1 ? -1 : (int32_t)v;
}

struct partition_config shard_topic_settings(struct broker_shard *s,
                                             const struct image_topic *t)
{
    const char *policy = effective(s, t, "cleanup.policy");
    const char *stamp = effective(s, t, "message.timestamp.type");
    struct partition_config c = {
        .cleanup_delete = policy != NULL && strstr(policy, "delete") != NULL,
        .cleanup_compact = policy != NULL && strstr(policy, "compact") != NULL,
        .retention_ms = effective_int(s, t, "retention.ms"),
        .retention_bytes = effective_int(s, t, "retention.bytes"),
        .segment_bytes = effective_i32(s, t, "segment.bytes"),
        .segment_ms = effective_int(s, t, "segment.ms"),
        .segment_jitter_ms = effective_int(s, t, "segment.jitter.ms"),
        .index_interval_bytes = effective_i32(s, t, "index.interval.bytes"),
        .max_message_bytes = effective_i32(s, t, "max.message.bytes"),
        .timestamp_type = stamp != NULL && strcmp(stamp, "LogAppendTime") == 0
                              ? TIMESTAMP_APPEND
                              : TIMESTAMP_CREATE,
        .timestamp_before_max_ms =
            effective_int(s, t, "message.timestamp.before.max.ms"),
        .timestamp_after_max_ms =
            effective_int(s, t, "message.timestamp.after.max.ms"),
        .min_insync_replicas = effective_i32(s, t, "min.insync.replicas"),
        .producer_id_expiration_ms =
            broker_config_int(s->broker->config, "producer.id.expiration.ms"),
        .compaction_off =
            !broker_config_bool(s->broker->config, "log.cleaner.enable"),
        .min_cleanable_dirty_ratio =
            effective_double(s, t, "min.cleanable.dirty.ratio"),
        .delete_retention_ms = effective_int(s, t, "delete.retention.ms"),
        .min_compaction_lag_ms = effective_int(s, t, "min.compaction.lag.ms"),
        .max_compaction_lag_ms = effective_int(s, t, "max.compaction.lag.ms"),
    };
    if (strcmp(t->name, OFFSETS_TOPIC) == 0 &&
        c.segment_bytes > LIMIT_OFFSETS_SEGMENT) {
        c.segment_bytes = LIMIT_OFFSETS_SEGMENT;
    }
    return c;
}
