/* DescribeUserScramCredentials: nobody has any, as there is no SASL here;
 * Kafka's tool asks for them beside the quotas of users. */
#include <stdio.h>
#include <stdlib.h>

#include "net/api/api.h"
#include "schema/describe_user_scram_credentials.h"

static int by_name(const void *a, const void *b)
{
    const struct wire_str *x = a, *y = b;
    int32_t n = x->n < y->n ? x->n : y->n;
    int r = n > 0 ? memcmp(x->p, y->p, (size_t)n) : 0;
    return r != 0 ? r : (x->n > y->n) - (x->n < y->n);
}

static void answer_one(
    struct request *rq, struct wire_str user, bool twice,
    struct describe_user_scram_credentials_response_result *to)
{
    char why[160];
    snprintf(why, sizeof why,
             twice
                 ? "Cannot describe SCRAM credentials for the same user twice "
                   "in a single request: %.*s"
                 : "Attempt to describe a user credential that does not "
                   "exist: %.*s",
             user.n > 64 ? 64 : (int)user.n, user.n > 0 ? user.p : "");
    to->user = user;
    to->error_code =
        twice ? KAFKA_DUPLICATE_RESOURCE : KAFKA_RESOURCE_NOT_FOUND;
    to->error_message = api_copy(rq, why);
}

void api_describe_user_scram_credentials(struct request *rq)
{
    struct describe_user_scram_credentials_request in;
    struct describe_user_scram_credentials_response out;
    if (!request_decode(rq, &describe_user_scram_credentials_request_message,
                        &in)) {
        return;
    }
    describe_user_scram_credentials_response_init(&out);
    out.error_message = WIRE_NULL_STR;
    size_t n = in.n_users < 0 ? 0 : (size_t)in.n_users;
    struct wire_str *names = api_alloc(rq, n, sizeof *names);
    out.results = api_alloc(rq, n, sizeof *out.results);
    for (size_t i = 0; i < n; i++) {
        names[i] = in.users[i].name;
    }
    qsort(names, n, sizeof *names, by_name);
    for (size_t i = 0; i < n; i++) {
        bool first = i == 0 || !wire_str_equal(names[i - 1], names[i]);
        bool twice = i + 1 < n && wire_str_equal(names[i], names[i + 1]);
        if (first) {
            answer_one(rq, names[i], twice, &out.results[out.n_results++]);
        }
    }
    request_respond(rq, &describe_user_scram_credentials_response_message,
                    &out);
}
