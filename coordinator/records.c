#include "coordinator/records.h"

#include "base/arena.h"
#include "base/limits.h"
#include "schema/consumer_offsets.h"

#define OFFSET_VALUE_VERSION 3
#define GROUP_VALUE_VERSION 3
#define OFFSET_KEY_VERSION OFFSET_COMMIT_KEY_TYPE

static struct wire_str wire(struct text t)
{
    return (struct wire_str){.p = t.p, .n = t.n};
}

static struct text text(struct wire_str s)
{
    return (struct text){.p = s.p, .n = s.n};
}

static uint8_t *flat(struct arena *a, struct wire_writer *w, int32_t *size)
{
    uint8_t *out = arena_alloc(a, w->size);
    wire_writer_copy(w, out);
    *size = (int32_t)w->size;
    wire_writer_free(w);
    return out;
}

static void add(struct batch_builder *b, int64_t now_ms,
                struct wire_writer *key, struct wire_writer *value)
{
    struct arena a;
    arena_init(&a, 0);
    int32_t key_size = 0;
    int32_t value_size = -1;
    const uint8_t *k = flat(&a, key, &key_size);
    const uint8_t *v = value == NULL ? NULL : flat(&a, value, &value_size);
    batch_builder_add(b, now_ms, k, key_size, v, value_size, NULL, 0);
    arena_free(&a);
}

void records_add_offset(struct batch_builder *b, int64_t now_ms,
                        const struct offset_record *o, bool tombstone)
{
    struct wire_writer key, value;
    struct offset_commit_key k = {.group = wire(o->group_id),
                                  .topic = wire(o->topic),
                                  .partition = o->partition};
    wire_writer_init(&key, 0);
    wire_write_i16(&key, OFFSET_KEY_VERSION);
    offset_commit_key_encode(&key, &k, offset_commit_key_message.first);
    if (tombstone) {
        add(b, now_ms, &key, NULL);
        return;
    }
    struct offset_commit_value v;
    offset_commit_value_init(&v);
    v.offset = o->offset.v;
    v.leader_epoch = o->leader_epoch;
    v.metadata = wire(o->metadata);
    v.commit_timestamp = o->commit_timestamp_ms;
    wire_writer_init(&value, 0);
    wire_write_i16(&value, OFFSET_VALUE_VERSION);
    offset_commit_value_encode(&value, &v, OFFSET_VALUE_VERSION);
    add(b, now_ms, &key, &value);
}

void records_add_group(struct batch_builder *b, int64_t now_ms,
                       const struct group_record *g, bool tombstone)
{
    struct wire_writer key, value;
    struct group_metadata_key k = {.group = wire(g->group_id)};
    wire_writer_init(&key, 0);
    wire_write_i16(&key, GROUP_METADATA_KEY_TYPE);
    group_metadata_key_encode(&key, &k, group_metadata_key_message.first);
    if (tombstone) {
        add(b, now_ms, &key, NULL);
        return;
    }
    struct arena a;
    arena_init(&a, 0);
    struct group_metadata_value v;
    group_metadata_value_init(&v);
    v.protocol_type = wire(g->protocol_type);
    v.generation = g->generation;
    v.protocol = wire(g->protocol);
    v.leader = wire(g->leader);
    v.current_state_timestamp = g->timestamp_ms;
    v.members = arena_array(&a, (size_t)g->n_members, sizeof *v.members);
    v.n_members = g->n_members;
    for (int i = 0; i < g->n_members; i++) {
        const struct group_record_member *m = &g->members[i];
        v.members[i] = (struct group_metadata_value_member_metadata){
            .member_id = wire(m->member_id),
            .group_instance_id = wire(m->instance_id),
            .client_id = wire(m->client_id),
            .client_host = wire(m->client_host),
            .rebalance_timeout = m->rebalance_timeout_ms,
            .session_timeout = m->session_timeout_ms,
            .subscription = {.p = m->subscription.p, .n = m->subscription.n},
            .assignment = {.p = m->assignment.p, .n = m->assignment.n},
        };
    }
    wire_writer_init(&value, 0);
    wire_write_i16(&value, GROUP_VALUE_VERSION);
    group_metadata_value_encode(&value, &v, GROUP_VALUE_VERSION);
    add(b, now_ms, &key, &value);
    arena_free(&a);
}

/* A value's version that we know how to read, or the newest: newer ones only
 * add tagged fields. */
static int value_version(int16_t v, const struct codec_message *m)
{
    return v < m->first ? -1 : v > m->last ? m->last : v;
}

static enum err read_offset(struct wire_reader *key,
                            const struct batch_record *rec, struct arena *a,
                            const struct records_reader *reader)
{
    struct offset_commit_key k;
    offset_commit_key_decode(key, offset_commit_key_message.first, a, &k);
    if (key->err != ERR_OK) {
        return ERR_CORRUPT;
    }
    struct offset_record o = {.group_id = text(k.group),
                              .topic = text(k.topic),
                              .partition = k.partition};
    if (rec->value == NULL) {
        reader->offset(reader->arg, &o, true);
        return ERR_OK;
    }
    struct wire_reader r;
    wire_reader_init(&r, rec->value, (size_t)rec->value_size);
    int version =
        value_version(wire_read_i16(&r), &offset_commit_value_message);
    struct offset_commit_value v;
    if (version < 0) {
        return ERR_CORRUPT;
    }
    offset_commit_value_decode(&r, version, a, &v);
    if (r.err != ERR_OK) {
        return ERR_CORRUPT;
    }
    o.offset.v = v.offset;
    o.leader_epoch = v.leader_epoch;
    o.metadata = text(v.metadata);
    o.commit_timestamp_ms = v.commit_timestamp;
    reader->offset(reader->arg, &o, false);
    return ERR_OK;
}

static enum err read_group(struct wire_reader *key,
                           const struct batch_record *rec, struct arena *a,
                           const struct records_reader *reader)
{
    struct group_metadata_key k;
    group_metadata_key_decode(key, group_metadata_key_message.first, a, &k);
    if (key->err != ERR_OK) {
        return ERR_CORRUPT;
    }
    struct group_record g = {.group_id = text(k.group)};
    if (rec->value == NULL) {
        reader->group(reader->arg, &g, true);
        return ERR_OK;
    }
    struct wire_reader r;
    wire_reader_init(&r, rec->value, (size_t)rec->value_size);
    int version =
        value_version(wire_read_i16(&r), &group_metadata_value_message);
    struct group_metadata_value v;
    if (version < 0) {
        return ERR_CORRUPT;
    }
    group_metadata_value_decode(&r, version, a, &v);
    if (r.err != ERR_OK) {
        return ERR_CORRUPT;
    }
    struct group_record_member *members =
        arena_array(a, (size_t)v.n_members, sizeof *members);
    for (int i = 0; i < v.n_members; i++) {
        const struct group_metadata_value_member_metadata *m = &v.members[i];
        members[i] = (struct group_record_member){
            .member_id = text(m->member_id),
            .instance_id = text(m->group_instance_id),
            .client_id = text(m->client_id),
            .client_host = text(m->client_host),
            .session_timeout_ms = m->session_timeout,
            .rebalance_timeout_ms = m->rebalance_timeout,
            .subscription = {.p = m->subscription.p, .n = m->subscription.n},
            .assignment = {.p = m->assignment.p, .n = m->assignment.n},
        };
    }
    g.protocol_type = text(v.protocol_type);
    g.protocol = text(v.protocol);
    g.leader = text(v.leader);
    g.generation = v.generation;
    g.timestamp_ms = v.current_state_timestamp;
    g.n_members = v.n_members;
    g.members = members;
    reader->group(reader->arg, &g, false);
    return ERR_OK;
}

static enum err read_record(const struct batch_record *rec,
                            const struct records_reader *reader)
{
    if (rec->key == NULL) {
        return ERR_OK;
    }
    struct wire_reader key;
    wire_reader_init(&key, rec->key, (size_t)rec->key_size);
    int16_t type = wire_read_i16(&key);
    struct arena a;
    arena_init(&a, LIMIT_REQUEST_DECODED);
    enum err e = ERR_OK;
    if (key.err == ERR_OK && (type == LEGACY_OFFSET_COMMIT_KEY_TYPE ||
                              type == OFFSET_COMMIT_KEY_TYPE)) {
        e = read_offset(&key, rec, &a, reader);
    } else if (key.err == ERR_OK && type == GROUP_METADATA_KEY_TYPE) {
        e = read_group(&key, rec, &a, reader);
    }
    arena_free(&a);
    return e;
}

enum err records_read(const uint8_t *batch, size_t size,
                      const struct records_reader *reader)
{
    struct batch_records records;
    enum err e =
        batch_records_open(&records, batch, size, LIMIT_REQUEST_DECODED);
    struct batch_record rec;
    while (batch_records_next(&records, &rec)) {
        if (read_record(&rec, reader) != ERR_OK) {
            e = ERR_CORRUPT; /* the next ones may be fine */
        }
    }
    if (records.status != ERR_OK) {
        e = ERR_CORRUPT;
    }
    batch_records_close(&records);
    return e == ERR_OK ? ERR_OK : ERR_CORRUPT;
}
