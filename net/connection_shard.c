/* Connections as a broker's shard has them. */
#include "base/limits.h"
#include "metadata/config_keys.h"
#include "net/connection.h"
#include "net/shard.h"
#include "net/throttle.h"

static uint32_t config_u32(const struct broker_config *c, const char *key)
{
    int64_t v = broker_config_int(c, key);
    return v < 0 ? 0 : v > INT32_MAX ? INT32_MAX : (uint32_t)v;
}

struct connections *connections_new(struct broker_shard *shard)
{
    const struct broker_config *c = broker_static_config(shard->broker);
    struct connections_options o = {
        .shard = shard,
        .env = shard->env,
        .dispatch = request_dispatch,
        .has_handler = request_has_handler,
        .is_costly = throttle_concerns,
        .request_max_bytes = config_u32(c, "socket.request.max.bytes"),
        .idle_max_ms = config_u32(c, "connections.max.idle.ms"),
        .connections_max = LIMIT_CONNECTIONS,
        .memory_max = (size_t)broker_config_int(c, "request.memory.bytes"),
        .is_short = shard_is_short,
    };
    return connections_new_with(&o);
}
