/* A shard's parts made, on its own thread, and freed. */
#include "base/assert.h"
#include "base/mem.h"
#include "net/broker_impl.h"
#include "net/connection.h"
#include "net/fetch_session.h"
#include "net/memory.h"

enum err shard_open(struct broker_shard *s)
{
    struct broker *b = s->broker;
    const struct broker_config *c = b->config;
    char dir[BROKER_PATH_SIZE], partitions[BROKER_PATH_SIZE];
    layout_shard_dir(&b->layout, b->dir, s->index, dir);
    broker_partitions_dir(b, partitions);
    enum err e = env_dir_make(s->env, dir);
    if (e == ERR_OK) {
        e = env_dir_make(s->env, partitions);
    }
    if (e != ERR_OK) {
        return e;
    }
    struct transport_options to = {
        .env = s->env,
        .shard = s->index,
        .n_shards = b->options.n_shards,
        .node = b->identity.node,
        .directory = b->identity.directory,
        .ping_ms = (uint32_t)broker_config_int(c, "peer.ping.interval.ms"),
        .silence_ms = (uint32_t)broker_config_int(c, "peer.silence.ms"),
        .queue_bytes_max = (uint64_t)broker_config_int(c, "peer.queue.bytes"),
        .address = b->addresses.peer_advertised,
    };
    s->transport = transport_new(&to, &broker_transport_ops, s);
    struct raft_host_options ho = {
        .env = s->env,
        .dir = dir,
        .log_must_exist = b->layout.recorded,
        .shard = s->index,
        .node = b->identity.node,
        .directory = b->identity.directory,
        .transport = s->transport,
        .tick_ms = 50,
        .heartbeat_ms =
            (uint32_t)broker_config_int(c, "raft.heartbeat.interval.ms"),
        .rest_ms = (uint32_t)broker_config_int(c, "raft.rest.after.ms"),
        .election_ms =
            (uint32_t)broker_config_int(c, "raft.election.timeout.ms"),
        .log_buffer_bytes = (uint64_t)broker_config_int(c, "log.buffer.bytes"),
        .wal_file_bytes = (uint64_t)broker_config_int(c, "wal.file.bytes"),
        .wal_bytes_max = (uint64_t)broker_config_int(c, "wal.bytes.max"),
        .settle_ms = (uint32_t)broker_config_int(c, "settle.interval.ms"),
        .settle_bytes = (uint32_t)broker_config_int(c, "settle.bytes"),
    };
    shard_partitions_init(s);
    e = raft_host_new(&ho, &s->host);
    if (e != ERR_OK) {
        return e;
    }
    struct partition_shard_options po = {
        .env = s->env,
        .host = s->host,
        .dir = partitions,
        .open_files_max = (uint32_t)broker_config_int(c, "open.files.max"),
        .read_bytes_max = (uint64_t)broker_config_int(c, "read.memory.bytes"),
        .lent_bytes_max = memory_lent_max(c),
        .scrub_bytes_per_s =
            (uint64_t)broker_config_int(c, "log.scrub.max.bytes.per.second"),
    };
    s->partitions_of = partition_shard_new(&po);
    struct coordinator_options co = {
        .env = s->env,
        .image = s->image,
        .initial_rebalance_delay_ms =
            (uint32_t)broker_config_int(c, "group.initial.rebalance.delay.ms"),
        .session_timeout_min_ms =
            (uint32_t)broker_config_int(c, "group.min.session.timeout.ms"),
        .session_timeout_max_ms =
            (uint32_t)broker_config_int(c, "group.max.session.timeout.ms"),
        .group_size_max = (uint32_t)broker_config_int(c, "group.max.size"),
        .offsets_retention_ms =
            broker_config_int(c, "offsets.retention.minutes") * 60000,
        .offset_metadata_bytes_max =
            (int32_t)broker_config_int(c, "offset.metadata.max.bytes"),
    };
    s->coordinator = coordinator_new(&co);
    s->connections = connections_new(s);
    uint32_t slots = (uint32_t)broker_config_int(
        c, "max.incremental.fetch.session.cache.slots");
    s->fetch_sessions =
        fetch_sessions_new(s->env, (slots + s->broker->options.n_shards - 1) /
                                       s->broker->options.n_shards);
    s->up = true;
    return ERR_OK;
}

void shard_free(struct broker_shard *s)
{
    ASSERT(s->opening == NULL); /* shard_partitions_stop */
    shard_leaders_free(s);
    if (s->connections != NULL) {
        connections_free(s->connections);
    }
    fetch_sessions_free(s->fetch_sessions);
    if (s->coordinator != NULL) {
        coordinator_free(s->coordinator);
    }
    if (s->partitions_of != NULL) {
        partition_shard_free(s->partitions_of);
    }
    if (s->transport != NULL) {
        transport_free(s->transport);
    }
    image_free(s->own_image);
    mem_free(s);
}
