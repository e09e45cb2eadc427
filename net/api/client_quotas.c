/* Client quotas, of users and client ids; kept in the metadata as
 * metadata/quota.h names them, and checked as Kafka checks them. Quotas of
 * addresses (how many connections they open) do not exist here. */
#include <stdio.h>
#include <stdlib.h>

#include "metadata/quota.h"
#include "net/api/api.h"
#include "schema/alter_client_quotas.h"
#include "schema/describe_client_quotas.h"

enum { MATCH_EXACT = 0, MATCH_DEFAULT = 1, MATCH_ANY = 2 };

static bool entity_is(struct wire_str type, const char *name)
{
    return wire_str_is(type, name);
}

static bool entity_known(struct wire_str type)
{
    return entity_is(type, "user") || entity_is(type, "client-id") ||
           entity_is(type, "ip");
}

/* ---- describe ------------------------------------------------------------ */
static enum kafka_error filter_error(
    struct request *rq, const struct describe_client_quotas_request *in,
    const char **message)
{
    char why[96];
    bool ip = false, other = false;
    for (int i = 0; i < in->n_components; i++) {
        const struct describe_client_quotas_request_component *c =
            &in->components[i];
        int shown = c->entity_type.n > 32 ? 32 : c->entity_type.n;
        for (int k = 0; k < i; k++) {
            if (wire_str_equal(in->components[k].entity_type, c->entity_type)) {
                snprintf(why, sizeof why,
                         "Entity type %.*s cannot appear more than once in "
                         "the filter.",
                         shown, c->entity_type.p);
                *message = arena_strdup(&rq->arena, why);
                return KAFKA_INVALID_REQUEST;
            }
        }
        if (c->match_type < MATCH_EXACT || c->match_type > MATCH_ANY) {
            snprintf(why, sizeof why, "Unknown match type %d", c->match_type);
            *message = arena_strdup(&rq->arena, why);
            return KAFKA_INVALID_REQUEST;
        }
        if ((c->match_type == MATCH_EXACT) != (c->match.n >= 0)) {
            *message = "A name is given with an exact match, and only then.";
            return KAFKA_INVALID_REQUEST;
        }
        if (!entity_known(c->entity_type)) {
            snprintf(why, sizeof why, "Unsupported entity type %.*s", shown,
                     c->entity_type.p);
            *message = arena_strdup(&rq->arena, why);
            return c->entity_type.n == 0 ? KAFKA_INVALID_REQUEST
                                         : KAFKA_UNSUPPORTED_VERSION;
        }
        ip = ip || entity_is(c->entity_type, "ip");
        other = other || !entity_is(c->entity_type, "ip");
    }
    if (ip && other) {
        *message =
            "Invalid entity filter component combination. IP filter "
            "component should not be used with user or clientId filter "
            "component.";
        return KAFKA_INVALID_REQUEST;
    }
    return KAFKA_NONE;
}

/* One part of an entity against the filter's word on it. */
static bool part_matches(const struct describe_client_quotas_request *in,
                         const char *type, bool has, struct wire_str name)
{
    for (int i = 0; i < in->n_components; i++) {
        const struct describe_client_quotas_request_component *c =
            &in->components[i];
        if (!entity_is(c->entity_type, type)) {
            continue;
        }
        return has && (c->match_type == MATCH_ANY ||
                       (c->match_type == MATCH_DEFAULT && name.n == 0) ||
                       (c->match_type == MATCH_EXACT && name.n > 0 &&
                        wire_str_equal(c->match, name)));
    }
    /* not asked for: fine, unless just what is asked for is wanted */
    return !has || !in->strict;
}

static bool entity_matches(const struct describe_client_quotas_request *in,
                           const struct quota_entity *e)
{
    return part_matches(in, "user", e->has_user, e->user) &&
           part_matches(in, "client-id", e->has_client, e->client) &&
           part_matches(in, "ip", false, WIRE_NULL_STR);
}

static void add_part(struct describe_client_quotas_response_entry *to,
                     const char *type, struct wire_str name)
{
    to->entity[to->n_entity++] =
        (struct describe_client_quotas_response_entity){
            .entity_type = wire_str_of(type),
            .entity_name = name.n == 0 ? WIRE_NULL_STR : name,
        };
}

static void add_entry(struct request *rq, const struct image_resource *r,
                      const struct quota_entity *e,
                      struct describe_client_quotas_response *out)
{
    struct describe_client_quotas_response_entry *to =
        &out->entries[out->n_entries++];
    to->entity = api_alloc(rq, 2, sizeof *to->entity);
    if (e->has_user) {
        add_part(to, "user", e->user);
    }
    if (e->has_client) {
        add_part(to, "client-id", e->client);
    }
    to->values = api_alloc(rq, (size_t)r->n_configs, sizeof *to->values);
    for (int i = 0; i < r->n_configs; i++) {
        to->values[to->n_values++] =
            (struct describe_client_quotas_response_value){
                .key = api_copy(rq, r->configs[i].name),
                .value = strtod(r->configs[i].value, NULL),
            };
    }
}

static void add_entries(struct request *rq,
                        const struct describe_client_quotas_request *in,
                        struct describe_client_quotas_response *out)
{
    const struct image_resource *all = NULL;
    int n = image_resources(rq->shard->image, CONFIG_CLIENT, &all);
    out->entries = api_alloc(rq, (size_t)n, sizeof *out->entries);
    out->n_entries = 0;
    for (int i = 0; i < n; i++) {
        struct quota_entity e;
        char *names = api_alloc(rq, 1, strlen(all[i].name) + 1);
        if (quota_entity_read(all[i].name, &e, names) &&
            entity_matches(in, &e)) {
            add_entry(rq, &all[i], &e, out);
        }
    }
}

void api_describe_client_quotas(struct request *rq)
{
    struct describe_client_quotas_request in;
    struct describe_client_quotas_response out;
    const char *message = "";
    if (!request_decode(rq, &describe_client_quotas_request_message, &in)) {
        return;
    }
    describe_client_quotas_response_init(&out);
    out.error_code = (int16_t)filter_error(rq, &in, &message);
    out.error_message = wire_str_of(message);
    out.n_entries = -1;
    if (out.error_code == KAFKA_NONE) {
        add_entries(rq, &in, &out);
    }
    request_respond(rq, &describe_client_quotas_response_message, &out);
}

/* ---- alter --------------------------------------------------------------- */
struct alter_call {
    struct request *rq;
    struct api_metadata_step step;
    struct alter_client_quotas_request in;
    struct alter_one {
        enum kafka_error error; /* decided here */
        const char *message;
        int sent; /* place among the changes, -1 */
    } * each;
    struct metadata_config_change *changes;
    int n_changes;
};

/* What an entry is about; names that are null are the default. */
static enum kafka_error entity_of(
    const struct alter_client_quotas_request_entry *in,
    struct quota_entity *out, bool *ip, const char **message)
{
    memset(out, 0, sizeof *out);
    *ip = false;
    if (in->n_entity == 0) {
        *message = "Invalid empty client quota entity";
        return KAFKA_INVALID_REQUEST;
    }
    for (int i = 0; i < in->n_entity; i++) {
        struct wire_str type = in->entity[i].entity_type;
        struct wire_str name = in->entity[i].entity_name;
        if (!entity_known(type)) {
            *message = "Unhandled client quota entity type";
            return KAFKA_INVALID_REQUEST;
        }
        if (name.n == 0) {
            *message = "Empty client quota entity name";
            return KAFKA_INVALID_REQUEST;
        }
        if (entity_is(type, "ip")) {
            *ip = true;
        } else if (entity_is(type, "user")) {
            out->has_user = true;
            out->user = name;
        } else {
            out->has_client = true;
            out->client = name;
        }
    }
    if (*ip && (out->has_user || out->has_client)) {
        *message = "Invalid client quota entity combination";
        return KAFKA_INVALID_REQUEST;
    }
    return KAFKA_NONE;
}

static bool key_known(const char *key, bool of_ip)
{
    return of_ip ? strcmp(key, "connection_creation_rate") == 0
                 : config_key_find(CONFIG_CLIENT, key) != NULL;
}

/* One value as the metadata takes it; NULL with a sentence when it cannot be.
 */
static char *value_text(struct request *rq, const char *key, double value,
                        const char **message)
{
    const struct config_key *k = config_key_find(CONFIG_CLIENT, key);
    char text[64];
    if (!(value > 0) || value > 1e300) {
        snprintf(text, sizeof text, "Quota %s must be greater than 0", key);
        *message = arena_strdup(&rq->arena, text);
        return NULL;
    }
    if (k == NULL || k->type != CONFIG_LONG) {
        snprintf(text, sizeof text, "%.17g", value);
        return arena_strdup(&rq->arena, text);
    }
    if (value >= 9223372036854775807.0 || value != (double)(int64_t)value) {
        snprintf(text, sizeof text,
                 value >= 9223372036854775807.0
                     ? "%s is too big for a LONG."
                     : "%s cannot be a fractional value.",
                 key);
        *message = arena_strdup(&rq->arena, text);
        return NULL;
    }
    snprintf(text, sizeof text, "%lld", (long long)value);
    return arena_strdup(&rq->arena, text);
}

static enum kafka_error configs_of(
    struct request *rq, const struct alter_client_quotas_request_entry *in,
    bool of_ip, struct image_config *out, bool *sets, const char **message)
{
    *sets = false;
    for (int i = 0; i < in->n_ops; i++) {
        out[i].name = api_cstr(rq, in->ops[i].key);
        out[i].value = NULL;
        if (in->ops[i].remove) {
            continue;
        }
        *sets = true;
        if (!key_known(out[i].name, of_ip)) {
            *message = "Invalid configuration key";
            return KAFKA_INVALID_REQUEST;
        }
        out[i].value = value_text(rq, out[i].name, in->ops[i].value, message);
        if (out[i].value == NULL) {
            return KAFKA_INVALID_REQUEST;
        }
    }
    return KAFKA_NONE;
}

static void alter_one(struct alter_call *call,
                      const struct alter_client_quotas_request_entry *in,
                      struct alter_one *a)
{
    struct request *rq = call->rq;
    struct quota_entity entity;
    bool ip, sets;
    struct image_config *configs =
        api_alloc(rq, (size_t)in->n_ops, sizeof *configs);
    char name[QUOTA_ENTITY_TEXT];
    a->sent = -1;
    a->error = entity_of(in, &entity, &ip, &a->message);
    if (a->error == KAFKA_NONE) {
        a->error = configs_of(rq, in, ip, configs, &sets, &a->message);
    }
    if (a->error != KAFKA_NONE) {
        return;
    }
    if (ip && sets) {
        a->error = KAFKA_INVALID_REQUEST;
        a->message = "Connections are not limited by address here.";
    } else if (!ip && !quota_entity_write(&entity, name)) {
        a->error = KAFKA_INVALID_REQUEST;
        a->message = "The name is longer than 1024 bytes.";
    } else if (!ip && in->n_ops > 0) {
        a->sent = call->n_changes;
        call->changes[call->n_changes++] = (struct metadata_config_change){
            .resource = arena_strdup(&rq->arena, name),
            .scope = CONFIG_CLIENT,
            .n_configs = in->n_ops,
            .configs = configs};
    }
}

static void answer_entity(struct request *rq,
                          const struct alter_client_quotas_request_entry *in,
                          struct alter_client_quotas_response_entry *out)
{
    out->entity = api_alloc(rq, (size_t)in->n_entity, sizeof *out->entity);
    out->n_entity = in->n_entity;
    for (int i = 0; i < in->n_entity; i++) {
        out->entity[i].entity_type = in->entity[i].entity_type;
        out->entity[i].entity_name = in->entity[i].entity_name;
    }
}

static void answer_one(const struct alter_call *call, const struct alter_one *a,
                       struct alter_client_quotas_response_entry *out)
{
    out->error_code = (int16_t)a->error;
    out->error_message = wire_str_of(a->message);
    if (a->sent >= 0) {
        out->error_code =
            api_metadata_result(&call->step, a->sent, &out->error_message);
    }
}

static void alter_respond(struct alter_call *call)
{
    struct request *rq = call->rq;
    struct alter_client_quotas_response out;
    alter_client_quotas_response_init(&out);
    out.n_entries = call->in.n_entries;
    out.entries = api_alloc(rq, (size_t)out.n_entries, sizeof *out.entries);
    for (int i = 0; i < out.n_entries; i++) {
        answer_one(call, &call->each[i], &out.entries[i]);
        answer_entity(rq, &call->in.entries[i], &out.entries[i]);
    }
    request_respond(rq, &alter_client_quotas_response_message, &out);
}

static void alter_back(struct api_metadata_step *step)
{
    alter_respond(step->rq->handler_data);
}

static void alter_start(struct api_metadata_step *step, struct metadata *m)
{
    struct alter_call *call = step->rq->handler_data;
    metadata_alter_configs(m, call->changes, call->n_changes,
                           call->in.validate_only, 30000, &step->call);
}

void api_alter_client_quotas(struct request *rq)
{
    struct alter_call *call = api_alloc(rq, 1, sizeof *call);
    call->rq = rq;
    rq->handler_data = call;
    if (!request_decode(rq, &alter_client_quotas_request_message, &call->in)) {
        return;
    }
    size_t n = call->in.n_entries < 0 ? 0 : (size_t)call->in.n_entries;
    call->each = api_alloc(rq, n, sizeof *call->each);
    call->changes = api_alloc(rq, n, sizeof *call->changes);
    for (size_t i = 0; i < n; i++) {
        alter_one(call, &call->in.entries[i], &call->each[i]);
    }
    if (call->n_changes == 0) {
        alter_respond(call);
        return;
    }
    call->step.then = alter_start;
    call->step.back = alter_back;
    api_metadata_begin(rq, &call->step);
}
