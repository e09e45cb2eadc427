/* ACLs: there is no authorizer; told as Kafka tells it. */
#include "net/api/api.h"
#include "schema/create_acls.h"
#include "schema/delete_acls.h"
#include "schema/describe_acls.h"

#define NO_AUTHORIZER WIRE_STR("No Authorizer is configured.")

void api_describe_acls(struct request *rq)
{
    struct describe_acls_request in;
    struct describe_acls_response out;
    if (!request_decode(rq, &describe_acls_request_message, &in)) {
        return;
    }
    if (in.resource_type_filter == 0 || in.pattern_type_filter == 0 ||
        in.operation == 0 || in.permission_type == 0) {
        request_close(rq, "a filter of ACLs with unknown parts");
        return;
    }
    describe_acls_response_init(&out);
    out.error_code = KAFKA_SECURITY_DISABLED;
    out.error_message = WIRE_STR("No Authorizer is configured on the broker");
    request_respond(rq, &describe_acls_response_message, &out);
}

void api_create_acls(struct request *rq)
{
    struct create_acls_request in;
    struct create_acls_response out;
    if (!request_decode(rq, &create_acls_request_message, &in)) {
        return;
    }
    create_acls_response_init(&out);
    out.results = api_alloc(rq, (size_t)in.n_creations, sizeof *out.results);
    out.n_results = in.n_creations;
    for (int i = 0; i < in.n_creations; i++) {
        out.results[i].error_code = KAFKA_SECURITY_DISABLED;
        out.results[i].error_message = NO_AUTHORIZER;
    }
    request_respond(rq, &create_acls_response_message, &out);
}

void api_delete_acls(struct request *rq)
{
    struct delete_acls_request in;
    struct delete_acls_response out;
    if (!request_decode(rq, &delete_acls_request_message, &in)) {
        return;
    }
    delete_acls_response_init(&out);
    out.filter_results =
        api_alloc(rq, (size_t)in.n_filters, sizeof *out.filter_results);
    out.n_filter_results = in.n_filters;
    for (int i = 0; i < in.n_filters; i++) {
        out.filter_results[i].error_code = KAFKA_SECURITY_DISABLED;
        out.filter_results[i].error_message = NO_AUTHORIZER;
    }
    request_respond(rq, &delete_acls_response_message, &out);
}
