/* A change on its way from any broker to the metadata leader and back. It
 * carries a request id and is sent again, after whatever loss, until its
 * deadline: the leader does it once and remembers the answer. */
#include <utlist.h>

#include "base/assert.h"
#include "base/mem.h"
#include "metadata/metadata_impl.h"

/* Between two attempts, when nothing tells that the next may succeed. */
#define RETRY_MS 20
/* How much later than its deadline the leader may answer: with what became of
 * each item. */
#define GRACE_MS 250
/* Place of the time left in the body: format, kind, request. */
#define TIMEOUT_AT 18

static void call_send(struct call *call);

static void call_finish(struct call *call, enum kafka_error error)
{
    if (call->state == CALL_SENDING && call->asked >= 0) {
        transport_cancel(call->m->options.transport, &call->rpc);
    }
    env_timer_stop(&call->timer);
    call->state = CALL_DONE;
    if (error != KAFKA_NONE) {
        change_answer_free(&call->answer);
        call->answer.error = error;
    }
    metadata_turn_later(call->m);
}

static uint64_t time_left(const struct call *call)
{
    uint64_t now = env_now_ms(call->m->env);
    return now >= call->deadline_ms ? 0 : call->deadline_ms - now;
}

/* Waits a little, or for what calls_kick is called for. */
static void call_pause(struct call *call)
{
    uint64_t left = time_left(call);
    call->asked = -1;
    if (left == 0) {
        call_finish(call, KAFKA_REQUEST_TIMED_OUT);
        return;
    }
    call->state = CALL_PAUSED;
    env_timer_start(&call->timer, left < RETRY_MS ? left : RETRY_MS);
}

static void call_apply(struct call *call)
{
    if (call->m->applied.v >= call->answer.index.v) {
        call_finish(call, KAFKA_NONE);
        return;
    }
    call->state = CALL_APPLYING;
    env_timer_start(&call->timer, time_left(call) + GRACE_MS);
}

static void call_answered(struct rpc_call *rpc, enum err status,
                          const uint8_t *body, size_t size)
{
    struct call *call = rpc->arg;
    ASSERT(call->state == CALL_SENDING);
    call->asked = -1;
    if (status == ERR_OK) {
        status = change_answer_decode(body, size, &call->answer);
    }
    if (status == ERR_INVALID || status == ERR_TOO_LARGE) {
        call_finish(call, KAFKA_INVALID_REQUEST);
    } else if (status != ERR_OK) {
        call_pause(call);
    } else {
        call_apply(call);
    }
}

static void call_timer(struct env_timer *timer)
{
    struct call *call = timer->arg;
    if (call->state == CALL_PAUSED) {
        call_send(call);
    } else {
        call_finish(call, KAFKA_REQUEST_TIMED_OUT);
    }
}

static void call_send(struct call *call)
{
    struct metadata *m = call->m;
    uint64_t left = time_left(call);
    if (left == 0 || m->role.leader < 0) {
        call_pause(call);
        return;
    }
    for (size_t i = 0; i < 4; i++) {
        call->body.data[TIMEOUT_AT + i] = (uint8_t)(left >> (8 * (3 - i)));
    }
    env_timer_stop(&call->timer);
    call->state = CALL_SENDING;
    call->asked = m->role.leader;
    transport_call(m->options.transport, call->asked, RPC_METADATA_PROPOSE,
                   call->body.data, call->body.size, (uint32_t)left + GRACE_MS,
                   &call->rpc);
}

struct call *call_new(struct metadata *m, const struct change *change,
                      const struct uuid *request, uint32_t timeout_ms)
{
    struct call *call = mem_zalloc(sizeof *call);
    struct change full = *change;
    call->m = m;
    call->deadline_ms = env_now_ms(m->env) + timeout_ms;
    call->asked = -1;
    call->rpc.cb = call_answered;
    call->rpc.arg = call;
    env_timer_init(m->env, &call->timer, call_timer, call);
    full.request = *request;
    full.timeout_ms = timeout_ms;
    change_encode(&call->body, &full);
    DL_APPEND(m->calls, call);
    m->n_calls++;
    if (timeout_ms == 0) {
        call_finish(call, KAFKA_REQUEST_TIMED_OUT);
    } else {
        call_send(call);
    }
    return call;
}

void call_drop(struct call *call)
{
    struct metadata *m = call->m;
    if (call->state == CALL_SENDING && call->asked >= 0) {
        transport_cancel(m->options.transport, &call->rpc);
    }
    env_timer_stop(&call->timer);
    DL_DELETE(m->calls, call);
    m->n_calls--;
    buffer_free(&call->body);
    change_answer_free(&call->answer);
    mem_free(call);
}

void calls_free(struct metadata *m)
{
    while (m->calls != NULL) {
        call_drop(m->calls);
    }
}

void calls_kick(struct metadata *m)
{
    struct call *call;
    DL_FOREACH(m->calls, call)
    {
        if (call->state == CALL_SENDING && call->asked != m->role.leader) {
            /* The one asked leads no more; asking twice does no harm. */
            transport_cancel(m->options.transport, &call->rpc);
            call_pause(call);
        }
        if (call->state == CALL_PAUSED && m->role.leader >= 0) {
            call_send(call);
        }
    }
}

void calls_applied(struct metadata *m)
{
    struct call *call;
    DL_FOREACH(m->calls, call)
    {
        if (call->state == CALL_APPLYING &&
            m->applied.v >= call->answer.index.v) {
            call_finish(call, KAFKA_NONE);
        }
    }
}

static void call_tell(struct call *call)
{
    struct metadata_call *user = call->user;
    if (user == NULL) {
        call->done(call);
        return;
    }
    user->error = call->answer.error;
    user->n_results = call->answer.n_results;
    user->results = call->answer.results;
    user->first_id = call->answer.first_id;
    user->quorum = call->answer.quorum;
    memcpy(user->sentence, call->answer.sentence, sizeof user->sentence);
    user->cb(user);
}

void calls_finish(struct metadata *m)
{
    struct call *done = NULL;
    struct call *call, *next;
    DL_FOREACH_SAFE(m->calls, call, next)
    {
        if (call->state == CALL_DONE) {
            DL_DELETE(m->calls, call);
            m->n_calls--;
            DL_APPEND(done, call);
        }
    }
    DL_FOREACH_SAFE(done, call, next)
    {
        call_tell(call);
        buffer_free(&call->body);
        change_answer_free(&call->answer);
        mem_free(call);
    }
}

void metadata_stop_calls(struct metadata *m)
{
    struct call *call;
    m->calls_stopped = true;
    DL_FOREACH(m->calls, call)
    {
        if (call->user != NULL && call->state != CALL_DONE) {
            call_finish(call, KAFKA_REQUEST_TIMED_OUT);
        }
    }
}

/* ---- the API ------------------------------------------------------------- */
/* A text of a record has two bytes of length. */
static bool text_fits(const char *s)
{
    return s == NULL || strlen(s) < CODEC_TEXT_NULL;
}

static bool configs_fit(const struct image_config *configs, int n)
{
    for (int i = 0; i < n; i++) {
        if (!text_fits(configs[i].name) || !text_fits(configs[i].value)) {
            return false;
        }
    }
    return true;
}

static bool assignments_fit(const struct metadata_assignment *a, int n)
{
    if (n > LIMIT_TOPIC_PARTITIONS) {
        return false;
    }
    for (int i = 0; i < n; i++) {
        if (a[i].n_nodes > LIMIT_METADATA_ITEMS) {
            return false;
        }
    }
    return true;
}

/* What a client sent may be longer than any of our bounds. */
static bool change_fits(const struct change *c)
{
    if (c->n > LIMIT_METADATA_ITEMS) {
        return false;
    }
    for (int i = 0; i < c->n; i++) {
        bool fits = true;
        switch (c->kind) {
            case CHANGE_CREATE_TOPICS:
                fits = text_fits(c->u.create[i].name) &&
                       c->u.create[i].n_configs <= LIMIT_METADATA_ITEMS &&
                       assignments_fit(c->u.create[i].assignments,
                                       c->u.create[i].n_assignments) &&
                       configs_fit(c->u.create[i].configs,
                                   c->u.create[i].n_configs);
                break;
            case CHANGE_DELETE_TOPICS:
                fits = text_fits(c->u.delete[i].name);
                break;
            case CHANGE_CREATE_PARTITIONS:
                fits = text_fits(c->u.more[i].name) &&
                       assignments_fit(c->u.more[i].assignments,
                                       c->u.more[i].n_assignments);
                break;
            case CHANGE_ALTER_CONFIGS:
                fits = text_fits(c->u.configs[i].topic) &&
                       text_fits(c->u.configs[i].resource) &&
                       c->u.configs[i].n_configs <= LIMIT_METADATA_ITEMS &&
                       configs_fit(c->u.configs[i].configs,
                                   c->u.configs[i].n_configs);
                break;
            case CHANGE_PRODUCER_IDS:
            case CHANGE_REGISTER:
            case CHANGE_SYNC:
            case CHANGE_UNREGISTER:
                break;
        }
        if (!fits) {
            return false;
        }
    }
    return true;
}

static struct uuid request_id(struct metadata *m)
{
    struct uuid id;
    uint64_t random = prng_next(&m->random);
    uint64_t n = ++m->next_request;
    memcpy(&id.b[0], &random, 8);
    for (int i = 0; i < 8; i++) {
        id.b[8 + i] = (uint8_t)(n >> (56 - 8 * i));
    }
    return id;
}

static void start(struct metadata *m, struct change *change,
                  uint32_t timeout_ms, struct metadata_call *user)
{
    const struct uuid id = request_id(m);
    enum kafka_error refused = KAFKA_NONE;
    if (!change_fits(change)) {
        refused = KAFKA_INVALID_REQUEST;
    } else if (m->n_calls >= LIMIT_METADATA_CALLS || m->calls_stopped) {
        refused = KAFKA_REQUEST_TIMED_OUT; /* which is tried again */
    }
    if (refused != KAFKA_NONE) {
        *change = (struct change){.kind = CHANGE_SYNC};
    }
    user->error = KAFKA_NONE;
    user->n_results = 0;
    user->results = NULL;
    user->first_id = -1;
    memset(&user->quorum, 0, sizeof user->quorum);
    user->quorum.leader = -1;
    user->sentence[0] = '\0';
    struct call *call = call_new(m, change, &id, timeout_ms);
    call->user = user;
    if (refused != KAFKA_NONE) {
        call_finish(call, refused);
    }
}

void metadata_create_topics(struct metadata *m,
                            const struct metadata_new_topic *topics, int n,
                            bool validate_only, uint32_t timeout_ms,
                            struct metadata_call *call)
{
    struct change change = {.kind = CHANGE_CREATE_TOPICS,
                            .validate_only = validate_only,
                            .n = n,
                            .u.create = topics};
    start(m, &change, timeout_ms, call);
}

void metadata_delete_topics(struct metadata *m,
                            const struct metadata_topic_ref *topics, int n,
                            uint32_t timeout_ms, struct metadata_call *call)
{
    struct change change = {
        .kind = CHANGE_DELETE_TOPICS, .n = n, .u.delete = topics};
    start(m, &change, timeout_ms, call);
}

void metadata_create_partitions(struct metadata *m,
                                const struct metadata_more_partitions *topics,
                                int n, bool validate_only, uint32_t timeout_ms,
                                struct metadata_call *call)
{
    struct change change = {.kind = CHANGE_CREATE_PARTITIONS,
                            .validate_only = validate_only,
                            .n = n,
                            .u.more = topics};
    start(m, &change, timeout_ms, call);
}

void metadata_alter_configs(struct metadata *m,
                            const struct metadata_config_change *changes, int n,
                            bool validate_only, uint32_t timeout_ms,
                            struct metadata_call *call)
{
    struct change change = {.kind = CHANGE_ALTER_CONFIGS,
                            .validate_only = validate_only,
                            .n = n,
                            .u.configs = changes};
    start(m, &change, timeout_ms, call);
}

void metadata_allocate_producer_ids(struct metadata *m, uint32_t timeout_ms,
                                    struct metadata_call *call)
{
    struct change change = {.kind = CHANGE_PRODUCER_IDS,
                            .u.producer_ids = m->options.producer_id_block};
    start(m, &change, timeout_ms, call);
}

void metadata_unregister(struct metadata *m, node_id node, uint32_t timeout_ms,
                         struct metadata_call *call)
{
    struct change change = {.kind = CHANGE_UNREGISTER, .u.unregister = node};
    start(m, &change, timeout_ms, call);
}

void metadata_sync(struct metadata *m, uint32_t timeout_ms,
                   struct metadata_call *call)
{
    struct change change = {.kind = CHANGE_SYNC};
    start(m, &change, timeout_ms, call);
}
