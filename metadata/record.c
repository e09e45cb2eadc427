#include "metadata/record.h"

#include "base/assert.h"
#include "base/limits.h"
#include "base/mem.h"

char *text_copy(struct text t)
{
    if (t.s == NULL) {
        return NULL;
    }
    char *copy = mem_alloc((size_t)t.size + 1);
    memcpy(copy, t.s, t.size);
    copy[t.size] = '\0';
    return copy;
}

bool text_is(struct text t, const char *s)
{
    return t.s != NULL && strlen(s) == t.size && memcmp(t.s, s, t.size) == 0;
}

bool topic_name_is_valid(const char *name, size_t size)
{
    if (size == 0 || size > TOPIC_NAME_MAX) {
        return false;
    }
    if (name[0] == '.' && (size == 1 || (size == 2 && name[1] == '.'))) {
        return false;
    }
    for (size_t i = 0; i < size; i++) {
        char c = name[i];
        bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                    (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
        if (!fine) {
            return false;
        }
    }
    return true;
}

/* ---- writing ------------------------------------------------------------- */
void record_batch_begin(struct buffer *b)
{
    ASSERT(b->size == 0);
    codec_put_u8(b, RECORD_FORMAT);
}

/* Writes the type and room for the size; gives the place of the body. */
static size_t record_begin(struct buffer *b, enum record_type type)
{
    ASSERT(b->size > 0);
    codec_put_u8(b, (uint8_t)type);
    codec_put_u32(b, 0);
    return b->size;
}

static void record_end(struct buffer *b, size_t body)
{
    size_t size = b->size - body;
    ASSERT(size <= UINT32_MAX);
    for (size_t i = 0; i < 4; i++) {
        b->data[body - 4 + i] = (uint8_t)(size >> (8 * (3 - i)));
    }
}

void record_put_cluster(struct buffer *b, const struct uuid *cluster)
{
    size_t body = record_begin(b, RECORD_CLUSTER);
    codec_put_uuid(b, cluster);
    record_end(b, body);
}

void record_put_broker(struct buffer *b, const struct image_broker *broker)
{
    size_t body = record_begin(b, RECORD_BROKER);
    codec_put_i32(b, broker->node);
    codec_put_uuid(b, &broker->directory);
    codec_put_text(b, broker->host);
    codec_put_i32(b, broker->port);
    codec_put_text(b, broker->peer_address);
    codec_put_text(b, broker->rack);
    codec_put_bool(b, broker->live);
    codec_put_u64(b, broker->epoch);
    record_end(b, body);
}

void record_put_broker_live(struct buffer *b, node_id node, uint64_t epoch,
                            bool live)
{
    size_t body = record_begin(b, RECORD_BROKER_LIVE);
    codec_put_i32(b, node);
    codec_put_u64(b, epoch);
    codec_put_bool(b, live);
    record_end(b, body);
}

void record_put_broker_listeners(struct buffer *b,
                                 const struct image_broker *broker)
{
    size_t body = record_begin(b, RECORD_BROKER_LISTENERS);
    codec_put_i32(b, broker->node);
    codec_put_text(b, broker->listeners);
    record_end(b, body);
}

void record_put_broker_gone(struct buffer *b, node_id node, uint64_t epoch)
{
    size_t body = record_begin(b, RECORD_BROKER_GONE);
    codec_put_i32(b, node);
    codec_put_u64(b, epoch);
    record_end(b, body);
}

static void put_partitions(struct buffer *b, int32_t n,
                           const struct image_partition *partitions)
{
    codec_put_u32(b, (uint32_t)n);
    for (int32_t i = 0; i < n; i++) {
        const struct image_partition *p = &partitions[i];
        ASSERT(p->n_replicas > 0 && p->n_replicas <= GROUP_REPLICAS_MAX);
        codec_put_u8(b, (uint8_t)p->n_replicas);
        for (int k = 0; k < p->n_replicas; k++) {
            codec_put_u64(b, p->replicas[k].id);
            codec_put_i32(b, p->replicas[k].node);
        }
        codec_put_i32(b, p->leader);
        codec_put_i32(b, p->leader_epoch);
    }
}

void record_put_topic(struct buffer *b, const struct image_topic *topic)
{
    size_t body = record_begin(b, RECORD_TOPIC);
    codec_put_uuid(b, &topic->id);
    codec_put_text(b, topic->name);
    codec_put_bool(b, topic->internal);
    put_partitions(b, topic->n_partitions, topic->partitions);
    codec_put_u32(b, (uint32_t)topic->n_configs);
    for (int i = 0; i < topic->n_configs; i++) {
        codec_put_text(b, topic->configs[i].name);
        codec_put_text(b, topic->configs[i].value);
    }
    record_end(b, body);
}

void record_put_topic_deleted(struct buffer *b, const struct uuid *id)
{
    size_t body = record_begin(b, RECORD_TOPIC_DELETED);
    codec_put_uuid(b, id);
    record_end(b, body);
}

void record_put_partitions(struct buffer *b, const struct uuid *id,
                           int32_t first, int32_t n,
                           const struct image_partition *partitions)
{
    size_t body = record_begin(b, RECORD_PARTITIONS);
    codec_put_uuid(b, id);
    codec_put_i32(b, first);
    put_partitions(b, n, partitions);
    record_end(b, body);
}

void record_put_topic_config(struct buffer *b, const struct uuid *id,
                             const char *name, const char *value)
{
    size_t body = record_begin(b, RECORD_TOPIC_CONFIG);
    codec_put_uuid(b, id);
    codec_put_text(b, name);
    codec_put_text(b, value);
    record_end(b, body);
}

void record_put_broker_config(struct buffer *b, node_id node, const char *name,
                              const char *value)
{
    size_t body = record_begin(b, RECORD_BROKER_CONFIG);
    codec_put_i32(b, node);
    codec_put_text(b, name);
    codec_put_text(b, value);
    record_end(b, body);
}

void record_put_config(struct buffer *b, enum config_scope scope,
                       const char *resource, const char *name,
                       const char *value)
{
    size_t body = record_begin(b, RECORD_CONFIG);
    codec_put_u8(b, (uint8_t)scope);
    codec_put_text(b, resource);
    codec_put_text(b, name);
    codec_put_text(b, value);
    record_end(b, body);
}

void record_put_leader(struct buffer *b, const struct uuid *topic,
                       int32_t partition, node_id leader, int32_t epoch)
{
    size_t body = record_begin(b, RECORD_LEADER);
    codec_put_uuid(b, topic);
    codec_put_i32(b, partition);
    codec_put_i32(b, leader);
    codec_put_i32(b, epoch);
    record_end(b, body);
}

void record_put_counters(struct buffer *b, uint64_t next_replica,
                         uint64_t next_producer)
{
    size_t body = record_begin(b, RECORD_COUNTERS);
    codec_put_u64(b, next_replica);
    codec_put_u64(b, next_producer);
    record_end(b, body);
}

void record_put_request(struct buffer *b, const struct uuid *id, uint64_t index,
                        const void *answer, uint32_t size)
{
    ASSERT(size <= LIMIT_METADATA_ANSWER);
    size_t body = record_begin(b, RECORD_REQUEST);
    codec_put_uuid(b, id);
    codec_put_u64(b, index);
    codec_put_blob(b, answer, size);
    record_end(b, body);
}

void record_put_dump_begin(struct buffer *b)
{
    record_end(b, record_begin(b, RECORD_DUMP_BEGIN));
}

void record_put_dump_end(struct buffer *b)
{
    record_end(b, record_begin(b, RECORD_DUMP_END));
}

/* ---- reading ------------------------------------------------------------- */
enum err record_batch_open(struct reader *r, const uint8_t *batch, size_t size)
{
    *r = codec_reader(batch, size);
    return codec_get_u8(r) == RECORD_FORMAT && codec_ok(r) ? ERR_OK
                                                           : ERR_CORRUPT;
}

static void get_broker(struct reader *r, struct record *out)
{
    out->u.broker.node = codec_get_i32(r);
    out->u.broker.directory = codec_get_uuid(r);
    out->u.broker.host = codec_get_text(r);
    out->u.broker.port = codec_get_i32(r);
    out->u.broker.peer_address = codec_get_text(r);
    out->u.broker.rack = codec_get_text_or_null(r);
    out->u.broker.live = codec_get_bool(r);
    out->u.broker.epoch = codec_get_u64(r);
    if (out->u.broker.node < 0 || out->u.broker.port < 0 ||
        out->u.broker.port > 65535) {
        r->bad = true;
    }
}

static void get_partition(struct reader *r, struct image_partition *p)
{
    memset(p, 0, sizeof *p);
    p->n_replicas = codec_get_u8(r);
    if (p->n_replicas < 1 || p->n_replicas > GROUP_REPLICAS_MAX) {
        p->n_replicas = 0;
        r->bad = true;
        return;
    }
    for (int i = 0; i < p->n_replicas; i++) {
        p->replicas[i].id = codec_get_u64(r);
        p->replicas[i].node = codec_get_i32(r);
        if (p->replicas[i].id == 0 || p->replicas[i].node < 0) {
            r->bad = true;
        }
        for (int k = 0; k < i; k++) {
            if (p->replicas[k].node == p->replicas[i].node ||
                p->replicas[k].id == p->replicas[i].id) {
                r->bad = true;
            }
        }
    }
    p->leader = codec_get_i32(r);
    p->leader_epoch = codec_get_i32(r);
    if (p->leader < -1 || p->leader_epoch < 0) {
        r->bad = true;
    }
}

/* Least bytes of a partition: one replica, leader and epoch. */
#define PARTITION_BYTES_MIN 21

static void get_partitions(struct reader *r, struct record *out)
{
    uint32_t n =
        codec_get_count(r, PARTITION_BYTES_MIN, LIMIT_TOPIC_PARTITIONS);
    if (n == 0) {
        r->bad = true;
        return;
    }
    out->u.topic.partitions = mem_zalloc(n * sizeof *out->u.topic.partitions);
    out->u.topic.n_partitions = (int32_t)n;
    for (uint32_t i = 0; i < n && !r->bad; i++) {
        get_partition(r, &out->u.topic.partitions[i]);
    }
}

static void get_configs(struct reader *r, struct record *out)
{
    uint32_t n = codec_get_count(r, 4, LIMIT_TOPIC_CONFIGS);
    if (n == 0) {
        return;
    }
    out->u.topic.configs = mem_zalloc(n * sizeof *out->u.topic.configs);
    out->u.topic.n_configs = (int)n;
    for (uint32_t i = 0; i < n && !r->bad; i++) {
        out->u.topic.configs[i].name = codec_get_text(r);
        out->u.topic.configs[i].value = codec_get_text(r);
    }
}

static void get_topic(struct reader *r, struct record *out)
{
    out->u.topic.id = codec_get_uuid(r);
    out->u.topic.name = codec_get_text(r);
    out->u.topic.internal = codec_get_bool(r);
    if (r->bad || uuid_is_zero(&out->u.topic.id) ||
        !topic_name_is_valid(out->u.topic.name.s, out->u.topic.name.size)) {
        r->bad = true;
        return;
    }
    get_partitions(r, out);
    get_configs(r, out);
}

static void get_leader(struct reader *r, struct record *out)
{
    out->u.leader.topic = codec_get_uuid(r);
    out->u.leader.partition = codec_get_i32(r);
    out->u.leader.leader = codec_get_i32(r);
    out->u.leader.epoch = codec_get_i32(r);
    if (out->u.leader.partition < 0 || out->u.leader.leader < -1 ||
        out->u.leader.epoch < 0) {
        r->bad = true;
    }
}

static void get_config(struct reader *r, struct record *out)
{
    uint8_t scope = codec_get_u8(r);
    out->u.config.scope = (enum config_scope)scope;
    out->u.config.resource = codec_get_text(r);
    out->u.config.name = codec_get_text(r);
    out->u.config.value = codec_get_text_or_null(r);
    if (scope != CONFIG_GROUP && scope != CONFIG_CLIENT) {
        r->bad = true;
    }
}

static void get_body(struct reader *r, struct record *out)
{
    switch (out->type) {
        case RECORD_CLUSTER:
            out->u.cluster = codec_get_uuid(r);
            break;
        case RECORD_BROKER:
            get_broker(r, out);
            break;
        case RECORD_BROKER_LIVE:
            out->u.broker.node = codec_get_i32(r);
            out->u.broker.epoch = codec_get_u64(r);
            out->u.broker.live = codec_get_bool(r);
            break;
        case RECORD_BROKER_LISTENERS:
            out->u.listeners.node = codec_get_i32(r);
            out->u.listeners.listeners = codec_get_text(r);
            break;
        case RECORD_BROKER_GONE:
            out->u.broker.node = codec_get_i32(r);
            out->u.broker.epoch = codec_get_u64(r);
            break;
        case RECORD_TOPIC:
            get_topic(r, out);
            break;
        case RECORD_TOPIC_DELETED:
            out->u.topic.id = codec_get_uuid(r);
            break;
        case RECORD_PARTITIONS:
            out->u.topic.id = codec_get_uuid(r);
            out->u.topic.first = codec_get_i32(r);
            r->bad = r->bad || out->u.topic.first < 0;
            get_partitions(r, out);
            break;
        case RECORD_TOPIC_CONFIG:
            out->u.config.topic = codec_get_uuid(r);
            out->u.config.name = codec_get_text(r);
            out->u.config.value = codec_get_text_or_null(r);
            break;
        case RECORD_BROKER_CONFIG:
            out->u.config.node = codec_get_i32(r);
            r->bad = r->bad || out->u.config.node < -1;
            out->u.config.name = codec_get_text(r);
            out->u.config.value = codec_get_text_or_null(r);
            break;
        case RECORD_CONFIG:
            get_config(r, out);
            break;
        case RECORD_LEADER:
            get_leader(r, out);
            break;
        case RECORD_COUNTERS:
            out->u.counters.next_replica = codec_get_u64(r);
            out->u.counters.next_producer = codec_get_u64(r);
            r->bad = r->bad || out->u.counters.next_producer > INT64_MAX;
            break;
        case RECORD_REQUEST:
            out->u.request.id = codec_get_uuid(r);
            out->u.request.index = codec_get_u64(r);
            out->u.request.answer = codec_get_blob(r, &out->u.request.size);
            r->bad = r->bad || out->u.request.size > LIMIT_METADATA_ANSWER;
            break;
        case RECORD_DUMP_BEGIN:
        case RECORD_DUMP_END:
            break;
        default:
            r->bad = true;
            break;
    }
}

enum err record_next(struct reader *r, struct record *out)
{
    memset(out, 0, sizeof *out);
    uint8_t type = codec_get_u8(r);
    uint32_t size = codec_get_u32(r);
    const uint8_t *body = codec_take(r, size);
    if (body == NULL) {
        return ERR_CORRUPT;
    }
    out->type = (enum record_type)type;
    struct reader in = codec_reader(body, size);
    get_body(&in, out);
    if (!codec_done(&in)) {
        record_free(out);
        r->bad = true;
        return ERR_CORRUPT;
    }
    return ERR_OK;
}

void record_free(struct record *record)
{
    if (record->type == RECORD_TOPIC || record->type == RECORD_PARTITIONS) {
        mem_free(record->u.topic.partitions);
        mem_free(record->u.topic.configs);
        record->u.topic.partitions = NULL;
        record->u.topic.configs = NULL;
    }
}
