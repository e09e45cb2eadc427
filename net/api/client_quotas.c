/* Client quotas: checked as Kafka checks them, but there are none: clients are
 * not throttled here, so setting one is refused with a sentence. */
#include <stdio.h>

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

static bool str_equal(struct wire_str a, struct wire_str b)
{
    return a.n == b.n && (a.n <= 0 || memcmp(a.p, b.p, (size_t)a.n) == 0);
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
            if (str_equal(in->components[k].entity_type, c->entity_type)) {
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
    out.n_entries = out.error_code == KAFKA_NONE ? 0 : -1;
    request_respond(rq, &describe_client_quotas_response_message, &out);
}

/* ---- alter --------------------------------------------------------------- */
static enum kafka_error entity_error(
    const struct alter_client_quotas_request_entry *in, const char **message)
{
    bool ip = false, other = false;
    if (in->n_entity == 0) {
        *message = "Invalid empty client quota entity";
        return KAFKA_INVALID_REQUEST;
    }
    for (int i = 0; i < in->n_entity; i++) {
        struct wire_str type = in->entity[i].entity_type;
        if (!entity_known(type)) {
            *message = "Unhandled client quota entity type";
            return KAFKA_INVALID_REQUEST;
        }
        if (in->entity[i].entity_name.n == 0) {
            *message = "Empty client quota entity name";
            return KAFKA_INVALID_REQUEST;
        }
        ip = ip || entity_is(type, "ip");
        other = other || !entity_is(type, "ip");
    }
    if (ip && other) {
        *message = "Invalid client quota entity combination";
        return KAFKA_INVALID_REQUEST;
    }
    return KAFKA_NONE;
}

static bool key_known(struct wire_str key, bool of_ip)
{
    if (of_ip) {
        return wire_str_is(key, "connection_creation_rate");
    }
    return wire_str_is(key, "producer_byte_rate") ||
           wire_str_is(key, "consumer_byte_rate") ||
           wire_str_is(key, "request_percentage") ||
           wire_str_is(key, "controller_mutation_rate");
}

static enum kafka_error entry_error(
    const struct alter_client_quotas_request_entry *in, const char **message)
{
    enum kafka_error e = entity_error(in, message);
    bool sets = false;
    for (int i = 0; i < in->n_ops && e == KAFKA_NONE; i++) {
        bool of_ip = entity_is(in->entity[0].entity_type, "ip");
        if (!in->ops[i].remove && !key_known(in->ops[i].key, of_ip)) {
            *message = "Invalid configuration key";
            e = KAFKA_INVALID_REQUEST;
        } else if (!in->ops[i].remove && !(in->ops[i].value > 0)) {
            *message = "A quota must be greater than 0";
            e = KAFKA_INVALID_REQUEST;
        }
        sets = sets || !in->ops[i].remove;
    }
    if (e == KAFKA_NONE && sets) {
        *message = "Client quotas do not exist here: no client is throttled.";
        e = KAFKA_INVALID_REQUEST;
    }
    return e;
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

void api_alter_client_quotas(struct request *rq)
{
    struct alter_client_quotas_request in;
    struct alter_client_quotas_response out;
    if (!request_decode(rq, &alter_client_quotas_request_message, &in)) {
        return;
    }
    alter_client_quotas_response_init(&out);
    out.entries = api_alloc(rq, (size_t)in.n_entries, sizeof *out.entries);
    out.n_entries = in.n_entries;
    for (int i = 0; i < in.n_entries; i++) {
        const char *message = NULL;
        out.entries[i].error_code =
            (int16_t)entry_error(&in.entries[i], &message);
        out.entries[i].error_message = wire_str_of(message);
        answer_entity(rq, &in.entries[i], &out.entries[i]);
    }
    request_respond(rq, &alter_client_quotas_response_message, &out);
}
