#include "metadata/change.h"

#include <stdio.h>

#include "base/limits.h"
#include "base/mem.h"

/* ---- writing ------------------------------------------------------------- */
static void put_assignments(struct buffer *b, int n,
                            const struct metadata_assignment *assignments)
{
    codec_put_i32(b, n);
    for (int i = 0; i < n; i++) {
        codec_put_i32(b, assignments[i].partition);
        codec_put_i32(b, assignments[i].n_nodes);
        for (int k = 0; k < assignments[i].n_nodes; k++) {
            codec_put_i32(b, assignments[i].nodes[k]);
        }
    }
}

static void put_configs(struct buffer *b, int n,
                        const struct image_config *configs)
{
    codec_put_i32(b, n);
    for (int i = 0; i < n; i++) {
        codec_put_text(b, configs[i].name);
        codec_put_text(b, configs[i].value);
    }
}

static void put_create(struct buffer *b, const struct metadata_new_topic *t)
{
    codec_put_text(b, t->name);
    codec_put_i32(b, t->n_partitions);
    codec_put_i32(b, t->replication_factor);
    codec_put_bool(b, t->internal);
    put_assignments(b, t->n_assignments, t->assignments);
    put_configs(b, t->n_configs, t->configs);
}

static void put_items(struct buffer *b, const struct change *c)
{
    for (int i = 0; i < c->n; i++) {
        switch (c->kind) {
            case CHANGE_CREATE_TOPICS:
                put_create(b, &c->u.create[i]);
                break;
            case CHANGE_DELETE_TOPICS:
                codec_put_text(b, c->u.delete[i].name);
                codec_put_uuid(b, &c->u.delete[i].id);
                break;
            case CHANGE_CREATE_PARTITIONS:
                codec_put_text(b, c->u.more[i].name);
                codec_put_i32(b, c->u.more[i].count);
                put_assignments(b, c->u.more[i].n_assignments,
                                c->u.more[i].assignments);
                break;
            case CHANGE_ALTER_CONFIGS:
                codec_put_text(b, c->u.configs[i].topic);
                codec_put_text(b, c->u.configs[i].resource);
                codec_put_u8(b, (uint8_t)c->u.configs[i].scope);
                codec_put_i32(b, c->u.configs[i].node);
                put_configs(b, c->u.configs[i].n_configs,
                            c->u.configs[i].configs);
                break;
            case CHANGE_PRODUCER_IDS:
            case CHANGE_REGISTER:
            case CHANGE_SYNC:
            case CHANGE_UNREGISTER:
                UNREACHABLE("these have no items");
        }
    }
}

void change_encode(struct buffer *b, const struct change *c)
{
    codec_put_u8(b, CHANGE_FORMAT);
    codec_put_u8(b, (uint8_t)c->kind);
    codec_put_uuid(b, &c->request);
    codec_put_u32(b, c->timeout_ms);
    codec_put_bool(b, c->validate_only);
    codec_put_u32(b, (uint32_t)c->n);
    put_items(b, c);
    if (c->kind == CHANGE_PRODUCER_IDS) {
        codec_put_u64(b, (uint64_t)c->u.producer_ids);
    }
    if (c->kind == CHANGE_REGISTER) {
        codec_put_i32(b, c->u.broker.node);
        codec_put_uuid(b, &c->u.broker.directory);
        codec_put_text(b, c->u.broker.host);
        codec_put_i32(b, c->u.broker.port);
        codec_put_text(b, c->u.broker.peer_address);
        codec_put_text(b, c->u.broker.rack);
        codec_put_text(b, c->u.broker.listeners);
    }
    if (c->kind == CHANGE_UNREGISTER) {
        codec_put_i32(b, c->u.unregister);
    }
}

/* ---- reading ------------------------------------------------------------- */
static struct metadata_assignment *get_assignments(struct reader *r, int *n)
{
    uint32_t count = codec_get_count(r, 8, LIMIT_TOPIC_PARTITIONS);
    if (count == 0) {
        *n = 0;
        return NULL;
    }
    struct metadata_assignment *out = mem_zalloc(count * sizeof *out);
    for (uint32_t i = 0; i < count; i++) {
        out[i].partition = codec_get_i32(r);
        uint32_t n_nodes = codec_get_count(r, 4, LIMIT_METADATA_ITEMS);
        node_id *nodes = mem_alloc(n_nodes * sizeof *nodes);
        for (uint32_t k = 0; k < n_nodes; k++) {
            nodes[k] = codec_get_i32(r);
        }
        out[i].n_nodes = (int)n_nodes;
        out[i].nodes = nodes;
    }
    *n = (int)count;
    return out;
}

static struct image_config *get_configs(struct reader *r, int *n)
{
    uint32_t count = codec_get_count(r, 4, LIMIT_METADATA_ITEMS);
    if (count == 0) {
        *n = 0;
        return NULL;
    }
    struct image_config *out = mem_zalloc(count * sizeof *out);
    for (uint32_t i = 0; i < count; i++) {
        out[i].name = text_copy(codec_get_text(r));
        out[i].value = text_copy(codec_get_text_or_null(r));
    }
    *n = (int)count;
    return out;
}

static void get_create(struct reader *r, struct metadata_new_topic *t)
{
    t->name = text_copy(codec_get_text(r));
    t->n_partitions = codec_get_i32(r);
    int32_t factor = codec_get_i32(r);
    if (factor < INT16_MIN || factor > INT16_MAX) {
        r->bad = true;
    }
    t->replication_factor = (int16_t)factor;
    t->internal = codec_get_bool(r);
    t->assignments = get_assignments(r, &t->n_assignments);
    t->configs = get_configs(r, &t->n_configs);
}

/* Bytes an item takes at least and in memory, by kind; 0: has no items. */
static size_t item_bytes_min(enum change_kind kind)
{
    switch (kind) {
        case CHANGE_CREATE_TOPICS:
            return 19;
        case CHANGE_DELETE_TOPICS:
            return 18;
        case CHANGE_CREATE_PARTITIONS:
            return 10;
        case CHANGE_ALTER_CONFIGS:
            return 13;
        case CHANGE_PRODUCER_IDS:
        case CHANGE_REGISTER:
        case CHANGE_SYNC:
        case CHANGE_UNREGISTER:
            break;
    }
    return 0;
}

static enum config_scope get_scope(struct reader *r)
{
    uint8_t scope = codec_get_u8(r);
    if (scope > CONFIG_CLIENT) {
        r->bad = true;
        scope = CONFIG_TOPIC;
    }
    return (enum config_scope)scope;
}

static void get_items(struct reader *r, struct change *c)
{
    size_t n = (size_t)c->n;
    switch (c->kind) {
        case CHANGE_CREATE_TOPICS: {
            struct metadata_new_topic *items = mem_zalloc(n * sizeof *items);
            for (size_t i = 0; i < n; i++) {
                get_create(r, &items[i]);
            }
            c->u.create = items;
            break;
        }
        case CHANGE_DELETE_TOPICS: {
            struct metadata_topic_ref *items = mem_zalloc(n * sizeof *items);
            for (size_t i = 0; i < n; i++) {
                items[i].name = text_copy(codec_get_text_or_null(r));
                items[i].id = codec_get_uuid(r);
            }
            c->u.delete = items;
            break;
        }
        case CHANGE_CREATE_PARTITIONS: {
            struct metadata_more_partitions *items =
                mem_zalloc(n * sizeof *items);
            for (size_t i = 0; i < n; i++) {
                items[i].name = text_copy(codec_get_text(r));
                items[i].count = codec_get_i32(r);
                items[i].assignments =
                    get_assignments(r, &items[i].n_assignments);
            }
            c->u.more = items;
            break;
        }
        case CHANGE_ALTER_CONFIGS: {
            struct metadata_config_change *items =
                mem_zalloc(n * sizeof *items);
            for (size_t i = 0; i < n; i++) {
                items[i].topic = text_copy(codec_get_text_or_null(r));
                items[i].resource = text_copy(codec_get_text_or_null(r));
                items[i].scope = get_scope(r);
                items[i].node = codec_get_i32(r);
                items[i].configs = get_configs(r, &items[i].n_configs);
            }
            c->u.configs = items;
            break;
        }
        case CHANGE_PRODUCER_IDS:
        case CHANGE_REGISTER:
        case CHANGE_SYNC:
        case CHANGE_UNREGISTER:
            break;
    }
}

static void get_broker(struct reader *r, struct image_broker *b)
{
    b->node = codec_get_i32(r);
    b->directory = codec_get_uuid(r);
    b->host = text_copy(codec_get_text(r));
    b->port = codec_get_i32(r);
    b->peer_address = text_copy(codec_get_text(r));
    b->rack = text_copy(codec_get_text_or_null(r));
    b->listeners = text_copy(codec_get_text_or_null(r));
    if (b->node < 0 || b->port < 0 || b->port > 65535) {
        r->bad = true;
    }
}

static void get_tail(struct reader *r, struct change *c)
{
    if (c->kind == CHANGE_PRODUCER_IDS) {
        c->u.producer_ids = (int64_t)codec_get_u64(r);
        if (c->u.producer_ids < 1 || c->u.producer_ids > INT32_MAX) {
            r->bad = true;
        }
    } else if (c->kind == CHANGE_REGISTER) {
        get_broker(r, &c->u.broker);
    } else if (c->kind == CHANGE_UNREGISTER) {
        c->u.unregister = codec_get_i32(r);
    }
}

enum err change_decode(const uint8_t *body, size_t size, struct change *out)
{
    memset(out, 0, sizeof *out);
    struct reader r = codec_reader(body, size);
    uint8_t format = codec_get_u8(&r);
    uint8_t kind = codec_get_u8(&r);
    out->request = codec_get_uuid(&r);
    out->timeout_ms = codec_get_u32(&r);
    out->validate_only = codec_get_bool(&r);
    if (!codec_ok(&r) || format != CHANGE_FORMAT ||
        kind < CHANGE_CREATE_TOPICS || kind > CHANGE_UNREGISTER) {
        return ERR_INVALID;
    }
    out->kind = (enum change_kind)kind;
    size_t least = item_bytes_min(out->kind);
    out->n = (int)codec_get_count(&r, least == 0 ? SIZE_MAX : least,
                                  LIMIT_METADATA_ITEMS);
    get_items(&r, out);
    get_tail(&r, out);
    if (!codec_done(&r)) {
        change_free(out);
        return ERR_INVALID;
    }
    return ERR_OK;
}

/* What is owned is const to those who decide; here it ends. */
static void drop(const void *p)
{
    union {
        const void *const_p;
        void *p;
    } owned = {.const_p = p};
    mem_free(owned.p);
}

static void drop_assignments(int n,
                             const struct metadata_assignment *assignments)
{
    for (int i = 0; i < n; i++) {
        drop(assignments[i].nodes);
    }
    drop(assignments);
}

static void drop_configs(int n, const struct image_config *configs)
{
    for (int i = 0; i < n; i++) {
        mem_free(configs[i].name);
        mem_free(configs[i].value);
    }
    drop(configs);
}

void change_free(struct change *c)
{
    for (int i = 0; i < c->n; i++) {
        switch (c->kind) {
            case CHANGE_CREATE_TOPICS:
                drop(c->u.create[i].name);
                drop_assignments(c->u.create[i].n_assignments,
                                 c->u.create[i].assignments);
                drop_configs(c->u.create[i].n_configs, c->u.create[i].configs);
                break;
            case CHANGE_DELETE_TOPICS:
                drop(c->u.delete[i].name);
                break;
            case CHANGE_CREATE_PARTITIONS:
                drop(c->u.more[i].name);
                drop_assignments(c->u.more[i].n_assignments,
                                 c->u.more[i].assignments);
                break;
            case CHANGE_ALTER_CONFIGS:
                drop(c->u.configs[i].topic);
                drop(c->u.configs[i].resource);
                drop_configs(c->u.configs[i].n_configs,
                             c->u.configs[i].configs);
                break;
            case CHANGE_PRODUCER_IDS:
            case CHANGE_REGISTER:
            case CHANGE_SYNC:
            case CHANGE_UNREGISTER:
                break;
        }
    }
    if (item_bytes_min(c->kind) > 0) {
        drop(c->u.create); /* the item arrays share their place */
    } else if (c->kind == CHANGE_REGISTER) {
        mem_free(c->u.broker.host);
        mem_free(c->u.broker.peer_address);
        mem_free(c->u.broker.rack);
        mem_free(c->u.broker.listeners);
    }
    memset(c, 0, sizeof *c);
}

/* ---- answers ------------------------------------------------------------- */
#define VOTER_BYTES 44 /* of one voter, at least and at most */

static void put_quorum(struct buffer *b, const struct metadata_quorum *q)
{
    codec_put_i32(b, q->leader);
    codec_put_i32(b, q->epoch);
    codec_put_u64(b, q->committed.v);
    codec_put_u32(b, (uint32_t)q->n_voters);
    for (int i = 0; i < q->n_voters; i++) {
        codec_put_i32(b, q->voters[i].node);
        codec_put_uuid(b, &q->voters[i].directory);
        codec_put_u64(b, q->voters[i].end.v);
        codec_put_u64(b, (uint64_t)q->voters[i].heard_ms);
        codec_put_u64(b, (uint64_t)q->voters[i].caught_up_ms);
    }
}

static void get_quorum(struct reader *r, struct metadata_quorum *q)
{
    q->leader = codec_get_i32(r);
    q->epoch = codec_get_i32(r);
    q->committed.v = codec_get_u64(r);
    q->n_voters = (int)codec_get_count(r, VOTER_BYTES, GROUP_REPLICAS_MAX);
    for (int i = 0; i < q->n_voters; i++) {
        q->voters[i].node = codec_get_i32(r);
        q->voters[i].directory = codec_get_uuid(r);
        q->voters[i].end.v = codec_get_u64(r);
        q->voters[i].heard_ms = (int64_t)codec_get_u64(r);
        q->voters[i].caught_up_ms = (int64_t)codec_get_u64(r);
    }
}

void change_answer_encode(struct buffer *b, const struct change_answer *a)
{
    codec_put_u8(b, CHANGE_FORMAT);
    codec_put_u64(b, a->index.v);
    codec_put_u16(b, (uint16_t)a->error);
    codec_put_text(b, a->sentence);
    codec_put_u64(b, (uint64_t)a->first_id);
    codec_put_u32(b, (uint32_t)a->n_results);
    for (int i = 0; i < a->n_results; i++) {
        const struct metadata_topic_result *r = &a->results[i];
        codec_put_u16(b, (uint16_t)r->error);
        codec_put_text(b, r->message);
        codec_put_uuid(b, &r->id);
        codec_put_i32(b, r->n_partitions);
        codec_put_u16(b, (uint16_t)r->replication_factor);
    }
    if (a->quorum.n_voters > 0) {
        put_quorum(b, &a->quorum);
    }
}

static void get_sentence(struct reader *r, char *out, size_t size)
{
    struct text t = codec_get_text(r);
    snprintf(out, size, "%.*s", (int)t.size, t.s == NULL ? "" : t.s);
}

enum err change_answer_decode(const uint8_t *body, size_t size,
                              struct change_answer *out)
{
    memset(out, 0, sizeof *out);
    struct reader r = codec_reader(body, size);
    uint8_t format = codec_get_u8(&r);
    out->index.v = codec_get_u64(&r);
    out->error = (enum kafka_error)(int16_t)codec_get_u16(&r);
    get_sentence(&r, out->sentence, sizeof out->sentence);
    out->first_id = (int64_t)codec_get_u64(&r);
    uint32_t n = codec_get_count(&r, 26, LIMIT_METADATA_ITEMS);
    out->results = n == 0 ? NULL : mem_zalloc(n * sizeof *out->results);
    out->n_results = (int)n;
    for (uint32_t i = 0; i < n; i++) {
        struct metadata_topic_result *result = &out->results[i];
        result->error = (enum kafka_error)(int16_t)codec_get_u16(&r);
        get_sentence(&r, result->message, sizeof result->message);
        result->id = codec_get_uuid(&r);
        result->n_partitions = codec_get_i32(&r);
        result->replication_factor = (int16_t)codec_get_u16(&r);
    }
    if (codec_ok(&r) && r.left > 0) {
        get_quorum(&r, &out->quorum);
    }
    if (!codec_done(&r) || format != CHANGE_FORMAT) {
        change_answer_free(out);
        return ERR_INVALID;
    }
    return ERR_OK;
}

void change_answer_free(struct change_answer *answer)
{
    mem_free(answer->results);
    memset(answer, 0, sizeof *answer);
}
