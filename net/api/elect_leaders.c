/* ElectLeaders. Leaderships return to a partition's preferred replica by
 * themselves once it is fit to lead: the request waits until that is so.
 * Unclean elections do not exist here. */
#include <stdio.h>

#include "net/api/api.h"
#include "schema/elect_leaders.h"

#define POLL_MS 50

enum { ELECT_PREFERRED = 0, ELECT_UNCLEAN = 1 };

struct elect_call {
    struct request *rq;
    struct elect_leaders_request in;
    struct elect_leaders_response out;
    struct env_timer timer;
    uint64_t deadline_ms;
    bool all; /* told only what was elected */
    int n_waiting;
    struct elect_wait {
        struct group_id id;
        struct elect_leaders_response_partition_result *out;
    } * waits;
};

static void result_is(struct elect_leaders_response_partition_result *out,
                      enum kafka_error error, const char *message)
{
    out->error_code = (int16_t)error;
    out->error_message = wire_str_of(message);
}

/* NONE: must be waited for. */
static enum kafka_error election_state(struct elect_call *call,
                                       const struct image_topic *topic,
                                       int32_t index, const char **message)
{
    struct broker_shard *s = call->rq->shard;
    node_id leader = -1, preferred = topic->partitions[index].replicas[0].node;
    int32_t epoch = -1;
    const struct image_broker *broker = image_broker(s->image, preferred);
    shard_leader_of(s, topic, index, &leader, &epoch);
    if (call->in.election_type == ELECT_UNCLEAN && leader < 0) {
        *message =
            "No replica may lead: most of them are away, and one that "
            "lacks acknowledged records never leads here.";
        return KAFKA_ELIGIBLE_LEADERS_NOT_AVAILABLE;
    }
    if (call->in.election_type == ELECT_UNCLEAN || leader == preferred) {
        *message = "Leader election not needed for topic partition.";
        return KAFKA_ELECTION_NOT_NEEDED;
    }
    if (broker == NULL || !broker->live) {
        *message = "The preferred leader was not available.";
        return KAFKA_PREFERRED_LEADER_NOT_AVAILABLE;
    }
    return KAFKA_NONE;
}

static void respond(struct elect_call *call)
{
    env_timer_stop(&call->timer);
    request_respond(call->rq, &elect_leaders_response_message, &call->out);
}

/* True: nothing more is to be waited for about it. */
static bool wait_is_over(struct elect_call *call, const struct elect_wait *w,
                         bool late)
{
    const struct image_topic *topic =
        image_topic_by_id(call->rq->shard->image, &w->id.topic);
    const char *message = NULL;
    if (topic == NULL) {
        result_is(w->out, KAFKA_UNKNOWN_TOPIC_OR_PARTITION, NULL);
        return true;
    }
    enum kafka_error e = election_state(call, topic, w->id.partition, &message);
    if (e == KAFKA_ELECTION_NOT_NEEDED) {
        result_is(w->out, KAFKA_NONE, NULL); /* it was when we began */
        return true;
    }
    if (e == KAFKA_NONE && !late) {
        return false;
    }
    result_is(w->out, e == KAFKA_NONE ? KAFKA_REQUEST_TIMED_OUT : e, message);
    return true;
}

static void poll(struct env_timer *timer)
{
    struct elect_call *call = timer->arg;
    bool late = env_now_ms(call->rq->shard->env) >= call->deadline_ms;
    int kept = 0;
    for (int i = 0; i < call->n_waiting; i++) {
        if (!wait_is_over(call, &call->waits[i], late)) {
            call->waits[kept++] = call->waits[i];
        }
    }
    call->n_waiting = kept;
    if (kept == 0) {
        respond(call);
        return;
    }
    env_timer_start(timer, POLL_MS);
}

/* Nobody waits for the answer any more. */
static void abandoned(struct request *rq)
{
    struct elect_call *call = rq->handler_data;
    call->deadline_ms = 0;
    env_timer_start(&call->timer, 0);
}

static void want_partition(
    struct elect_call *call, struct wire_str name,
    const struct image_topic *topic, int32_t index,
    struct elect_leaders_response_replica_election_result *to)
{
    struct request *rq = call->rq;
    char why[TOPIC_NAME_MAX + 64];
    const char *message = NULL;
    struct elect_leaders_response_partition_result *out =
        &to->partition_result[to->n_partition_result];
    out->partition_id = index;
    out->error_message = WIRE_NULL_STR;
    int shown = name.n > TOPIC_NAME_MAX ? TOPIC_NAME_MAX : name.n;
    if (topic == NULL) {
        snprintf(why, sizeof why, "No such topic as %.*s", shown, name.p);
        result_is(out, KAFKA_UNKNOWN_TOPIC_OR_PARTITION,
                  arena_strdup(&rq->arena, why));
    } else if (index < 0 || index >= topic->n_partitions) {
        snprintf(why, sizeof why, "No such partition as %.*s-%d", shown, name.p,
                 index);
        result_is(out, KAFKA_UNKNOWN_TOPIC_OR_PARTITION,
                  arena_strdup(&rq->arena, why));
    } else {
        enum kafka_error e = election_state(call, topic, index, &message);
        if (call->all && e == KAFKA_ELECTION_NOT_NEEDED) {
            return;
        }
        result_is(out, e, message);
        if (e == KAFKA_NONE) {
            call->waits[call->n_waiting++] = (struct elect_wait){
                .id = {.topic = topic->id, .partition = index}, .out = out};
        }
    }
    to->n_partition_result++;
}

static void want_all(struct elect_call *call)
{
    struct request *rq = call->rq;
    const struct image_topic *const *topics = NULL;
    int n = image_topics(rq->shard->image, &topics);
    size_t total = 0;
    for (int i = 0; i < n; i++) {
        total += (size_t)topics[i]->n_partitions;
    }
    call->all = true;
    call->waits = api_alloc(rq, total, sizeof *call->waits);
    call->out.replica_election_results =
        api_alloc(rq, (size_t)n, sizeof *call->out.replica_election_results);
    call->out.n_replica_election_results = n;
    for (int i = 0; i < n; i++) {
        struct elect_leaders_response_replica_election_result *to =
            &call->out.replica_election_results[i];
        to->topic = api_copy(rq, topics[i]->name);
        to->partition_result = api_alloc(rq, (size_t)topics[i]->n_partitions,
                                         sizeof *to->partition_result);
        for (int32_t p = 0; p < topics[i]->n_partitions; p++) {
            want_partition(call, to->topic, topics[i], p, to);
        }
    }
}

static void want_named(struct elect_call *call)
{
    struct request *rq = call->rq;
    const struct elect_leaders_request *in = &call->in;
    size_t total = 0;
    for (int i = 0; i < in->n_topic_partitions; i++) {
        total += (size_t)in->topic_partitions[i].n_partitions;
    }
    call->waits = api_alloc(rq, total, sizeof *call->waits);
    call->out.replica_election_results =
        api_alloc(rq, (size_t)in->n_topic_partitions,
                  sizeof *call->out.replica_election_results);
    call->out.n_replica_election_results = in->n_topic_partitions;
    for (int i = 0; i < in->n_topic_partitions; i++) {
        const struct elect_leaders_request_topic_partition *ti =
            &in->topic_partitions[i];
        struct elect_leaders_response_replica_election_result *to =
            &call->out.replica_election_results[i];
        const struct image_topic *topic = NULL;
        (void)api_find_topic(rq->shard, ti->topic, NULL, &topic);
        to->topic = ti->topic;
        to->partition_result = api_alloc(rq, (size_t)ti->n_partitions,
                                         sizeof *to->partition_result);
        for (int p = 0; p < ti->n_partitions; p++) {
            want_partition(call, ti->topic, topic, ti->partitions[p], to);
        }
    }
}

/* The same error for everything named. */
static void refuse_all(struct elect_call *call, enum kafka_error error,
                       const char *why)
{
    struct request *rq = call->rq;
    struct elect_leaders_response *out = &call->out;
    out->error_code = (int16_t)error;
    for (int i = 0; i < out->n_replica_election_results; i++) {
        struct elect_leaders_response_replica_election_result *to =
            &out->replica_election_results[i];
        for (int p = 0; p < to->n_partition_result; p++) {
            result_is(&to->partition_result[p], error,
                      why == NULL ? NULL : arena_strdup(&rq->arena, why));
        }
    }
    call->n_waiting = 0;
}

void api_elect_leaders(struct request *rq)
{
    struct elect_call *call = api_alloc(rq, 1, sizeof *call);
    call->rq = rq;
    rq->handler_data = call;
    if (!request_decode(rq, &elect_leaders_request_message, &call->in)) {
        return;
    }
    elect_leaders_response_init(&call->out);
    env_timer_init(rq->shard->env, &call->timer, poll, call);
    call->deadline_ms =
        env_now_ms(rq->shard->env) + api_timeout_ms(call->in.timeout_ms);
    if (call->in.n_topic_partitions < 0) {
        want_all(call);
    } else {
        want_named(call);
    }
    if (call->in.election_type != ELECT_PREFERRED &&
        call->in.election_type != ELECT_UNCLEAN) {
        char why[64];
        snprintf(why, sizeof why, "Unknown election type %d",
                 call->in.election_type);
        refuse_all(call, KAFKA_INVALID_REQUEST, why);
    } else if (call->in.timeout_ms <= 0) {
        refuse_all(call, KAFKA_REQUEST_TIMED_OUT, NULL);
    }
    if (call->n_waiting == 0) {
        respond(call);
        return;
    }
    rq->abandoned = abandoned;
    env_timer_start(&call->timer, POLL_MS);
}
