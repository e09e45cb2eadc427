#include "net/throttle.h"

#include "base/assert.h"
#include "base/mem.h"
#include "metadata/config_keys.h"
#include "net/api/api.h"
#include "schema/apis.h"

/* Who is not authenticated. */
static const struct wire_str ANONYMOUS = {"ANONYMOUS", 9};

struct throttle {
    struct quotas *quotas; /* used by shard 0 alone */
    struct quota_windows rates;
};

/* A request on its way to shard 0 and back. */
struct ask {
    struct shard_task task;
    struct request *rq;
    struct quota_use uses[QUOTA_KINDS];
    void (*done)(struct ask *ask);
    /* of an answer */
    bool silent;
    struct wire_writer frame;
    ptrdiff_t place; /* of the time to wait in it; -1: it has none */
    /* of a fetch */
    void (*fetch_done)(struct request *rq);
    /* of a mutation */
    struct api_metadata_step *step;
};

static struct quota_windows windows(const struct broker_config *config,
                                    const char *n, const char *seconds)
{
    return (struct quota_windows){
        .n = (uint32_t)broker_config_int(config, n),
        .ms = (uint32_t)broker_config_int(config, seconds) * 1000};
}

struct throttle *throttle_new(const struct broker_config *config)
{
    struct throttle *t = mem_zalloc(sizeof *t);
    t->rates = windows(config, "quota.window.num", "quota.window.size.seconds");
    t->quotas =
        quotas_new(t->rates, windows(config, "controller.quota.window.num",
                                     "controller.quota.window.size.seconds"));
    return t;
}

void throttle_free(struct throttle *t)
{
    if (t != NULL) {
        quotas_free(t->quotas);
        mem_free(t);
    }
}

static bool any_quota(const struct request *rq)
{
    const struct image_resource *all;
    return rq->shard != NULL && rq->shard->image != NULL &&
           image_resources(rq->shard->image, CONFIG_CLIENT, &all) > 0;
}

bool throttle_concerns(const struct request *rq)
{
    struct quota_match match;
    const struct image *image = any_quota(rq) ? rq->shard->image : NULL;
    return image != NULL && (quota_find(image, ANONYMOUS, rq->client_id,
                                        QUOTA_REQUEST, &match) ||
                             (rq->api_key == API_PRODUCE &&
                              quota_find(image, ANONYMOUS, rq->client_id,
                                         QUOTA_PRODUCE, &match)));
}

void throttle_begin(struct request *rq)
{
    if (any_quota(rq)) {
        rq->begun_ns = env_now_ns(rq->shard->env);
    }
}

void throttle_end(struct request *rq)
{
    if (rq->begun_ns != 0) {
        rq->spent_ns += env_now_ns(rq->shard->env) - rq->begun_ns;
        rq->begun_ns = 0;
    }
}

/* ---- asking -------------------------------------------------------------- */
/* True: the client has a quota of this kind. */
static bool want(struct ask *ask, enum quota_kind kind, double amount)
{
    const struct request *rq = ask->rq;
    struct quota_use *use = &ask->uses[kind];
    use->amount = amount;
    use->on = any_quota(rq) && quota_find(rq->shard->image, ANONYMOUS,
                                          rq->client_id, kind, &use->match);
    return use->on;
}

static bool want_time(struct ask *ask)
{
    throttle_end(ask->rq);
    return want(ask, QUOTA_REQUEST, (double)ask->rq->spent_ns);
}

static void ask_start(struct shard_task *task)
{
    struct ask *ask = task->arg;
    struct throttle *t = broker_throttle(task->to->broker);
    uint64_t now = env_now_ms(task->to->env);
    for (int kind = 0; kind < QUOTA_KINDS; kind++) {
        if (ask->uses[kind].on) {
            quotas_use(t->quotas, (enum quota_kind)kind, ask->rq->client_id,
                       now, &ask->uses[kind]);
        }
    }
    shard_task_end(task);
}

static void ask_finish(struct shard_task *task)
{
    struct ask *ask = task->arg;
    struct request *rq = ask->rq;
    for (int kind = 0; kind < QUOTA_KINDS; kind++) {
        if (ask->uses[kind].throttle_ms > rq->throttle_ms) {
            rq->throttle_ms = ask->uses[kind].throttle_ms;
        }
    }
    ask->done(ask);
}

static struct ask *ask_new(struct request *rq, void (*done)(struct ask *ask))
{
    struct ask *ask = api_alloc(rq, 1, sizeof *ask);
    ask->rq = rq;
    ask->done = done;
    return ask;
}

static void ask_begin(struct ask *ask)
{
    struct broker_shard *home = ask->rq->shard;
    ask->task = (struct shard_task){
        .start = ask_start, .finish = ask_finish, .arg = ask};
    shard_task_begin(&ask->task, home, broker_shard(home->broker, 0));
}

/* ---- answers ------------------------------------------------------------- */
/* Says how long to wait in an answer that is encoded already. */
static void answer_done(struct ask *ask)
{
    struct request *rq = ask->rq;
    if (rq->throttle_ms > 0 && ask->place >= 0) {
        wire_patch_i32(&ask->frame, (size_t)ask->place,
                       (int32_t)rq->throttle_ms);
    }
    rq->deliver(rq, ask->silent ? NULL : &ask->frame, NULL);
}

bool throttle_answer(struct request *rq, const struct codec_message *message,
                     const void *in, struct wire_writer *frame)
{
    bool later = rq->throttle_ms > 0; /* a mutation's */
    if (rq->counted || (!later && !any_quota(rq))) {
        return false;
    }
    rq->counted = true;
    struct ask *ask = ask_new(rq, answer_done);
    bool time = want_time(ask);
    bool bytes = rq->api_key == API_PRODUCE &&
                 want(ask, QUOTA_PRODUCE, (double)rq->body_size);
    if (!time && !bytes && !later) {
        return false;
    }
    ask->place = -1;
    ask->silent = frame == NULL;
    if (frame != NULL) {
        ptrdiff_t place =
            codec_field_place(message, in, rq->api_version, "throttle_time_ms");
        size_t body = codec_size(message, in, rq->api_version);
        ask->place = place < 0 ? -1 : (ptrdiff_t)(frame->size - body) + place;
        ask->frame = *frame;
        *frame = (struct wire_writer){0};
    }
    rq->abandoned = NULL; /* the handler has done its part */
    if (time || bytes) {
        ask_begin(ask);
    } else {
        answer_done(ask);
    }
    return true;
}

/* ---- fetches ------------------------------------------------------------- */
static void fetch_done(struct ask *ask)
{
    ask->fetch_done(ask->rq);
}

bool throttle_fetch(struct request *rq, int64_t bytes,
                    void (*done)(struct request *rq))
{
    if (rq->counted || !any_quota(rq)) {
        return false;
    }
    rq->counted = true;
    struct ask *ask = ask_new(rq, fetch_done);
    bool time = want_time(ask);
    bool much = want(ask, QUOTA_FETCH, (double)bytes);
    if (!time && !much) {
        return false;
    }
    ask->uses[QUOTA_FETCH].take_back = true;
    ask->fetch_done = done;
    ask_begin(ask);
    return true;
}

int32_t throttle_fetch_max(const struct request *rq, int32_t most)
{
    struct quota_match match;
    if (!any_quota(rq) || !quota_find(rq->shard->image, ANONYMOUS,
                                      rq->client_id, QUOTA_FETCH, &match)) {
        return most;
    }
    const struct throttle *t = broker_throttle(rq->shard->broker);
    double burst = quota_burst(t->rates, match.limit);
    return burst < most ? (int32_t)burst : most;
}

/* ---- mutations ----------------------------------------------------------- */
static void mutation_done(struct ask *ask)
{
    struct api_metadata_step *step = ask->step;
    if (!ask->uses[QUOTA_MUTATION].refused) {
        api_metadata_begin(ask->rq, step);
        return;
    }
    step->rq = ask->rq;
    step->call.error = KAFKA_THROTTLING_QUOTA_EXCEEDED;
    step->n_results = 0;
    step->back(step);
}

void throttle_mutation(struct request *rq, struct api_metadata_step *step,
                       int64_t partitions, int16_t strict)
{
    struct ask *ask = any_quota(rq) ? ask_new(rq, mutation_done) : NULL;
    if (ask == NULL || !want(ask, QUOTA_MUTATION, (double)partitions)) {
        api_metadata_begin(rq, step);
        return;
    }
    ask->uses[QUOTA_MUTATION].strict = rq->api_version >= strict;
    ask->step = step;
    ask_begin(ask);
}
