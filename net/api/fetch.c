/* Fetch: one round reads every partition on the shard that owns it, the shards
 * side by side; when too little came and nothing went wrong, the request waits
 * in its partitions' lists until something moves or its time is up, then reads
 * once more.
 *
 * The partitions come from the request or from its session (fetch_session.h),
 * in that order; so do the answers, of a session only what is new. A consumer
 * that says which rack it is in, where replica.selector.class is set, is sent
 * to a replica in that rack by the leader and served by that (KIP-392). */
#include "base/assert.h"
#include "base/mem.h"
#include "net/api/api.h"
#include "net/fetch_session.h"
#include "net/throttle.h"
#include "schema/fetch.h"

struct fetch_call;

struct fetch_part {
    struct fetch_call *call;
    struct group_id id;
    struct wire_str topic; /* as the request or the session named it */
    struct uuid topic_id;
    struct fetch_response_partition out;
    struct partition_fetch fetch;
    struct fetch_session_part *known; /* true while the session's epoch is the
                                       * request's */
    node_id elsewhere; /* where the leader sends the consumer; -1 nowhere */
    struct partition_waiter waiter;
    enum kafka_error preset; /* decided without asking a partition */
    bool pinned;             /* fetch holds memory */
    struct fetch_lane *lane;
    int32_t lent; /* of the lane's budget, while it is read from a file */
};

/* What one shard does for a call. */
struct fetch_lane {
    struct fetch_call *call;
    struct shard_task task;
    struct broker_shard *shard;
    struct fetch_part **parts;
    int n_parts;
    int next; /* part to be read next */
    int n_reading;
    int32_t budget; /* without what parts were lent that are being read */
    bool has_some;  /* a part has records */
    bool beginning; /* a part asks its partition; it may be answered at once */
    bool woken;     /* on the lane's shard: told home since waiting began */
    struct env_post wake_post;
};

struct fetch_call {
    struct request *rq;
    struct fetch_request in;
    struct fetch_response out;
    struct fetch_context context;
    bool by_rack; /* the consumer may read from a replica in its rack */
    struct fetch_part *parts;
    int n_parts;
    struct fetch_lane *lanes;
    int n_lanes;
    int lanes_busy;
    struct env_timer timer;
    struct env_deferred wake; /* one way out of waiting, at the turn's end */
    uint64_t deadline_ms;
    bool timer_on, waiting, wake_pending, gone, answer_later;
};

static void round_begin(struct fetch_call *call);

/* ---- giving memory back -------------------------------------------------- */
/* Pins belong to the shard that took them; the request's memory may be gone
 * when another shard gives them back, so they travel in a copy. */
struct pins_return {
    struct env_post post;
    struct partition_fetch fetch;
};

static void pins_returned(struct env_post *post)
{
    struct pins_return *r = post->arg;
    partition_fetch_release(&r->fetch);
    mem_free(r);
}

static void part_release(struct fetch_part *part)
{
    if (!part->pinned) {
        return;
    }
    part->pinned = false;
    struct broker_shard *home = part->call->rq->shard;
    struct broker_shard *owner = shard_owner(home, &part->id);
    if (owner == home) {
        partition_fetch_release(&part->fetch);
        return;
    }
    struct pins_return *r = mem_zalloc(sizeof *r);
    r->fetch = part->fetch;
    r->post = (struct env_post){.cb = pins_returned, .arg = r};
    env_post(owner->env, &r->post);
}

static void call_release(struct request *rq)
{
    struct fetch_call *call = rq->handler_data;
    for (int i = 0; i < call->n_parts; i++) {
        part_release(&call->parts[i]);
    }
}

/* The request is answered and written, or abandoned. */
static void call_over(struct request *rq)
{
    struct fetch_call *call = rq->handler_data;
    call_release(rq);
    fetch_context_end(&call->context);
}

/* ---- the answer ---------------------------------------------------------- */
static void hint_leader(struct fetch_call *call, struct fetch_part *part)
{
    struct api_leader to;
    if (!api_leader_hint(call->rq->shard, &part->id, &to)) {
        return;
    }
    part->out.current_leader.leader_id = to.node;
    part->out.current_leader.leader_epoch = to.epoch;
    struct fetch_response *out = &call->out;
    for (int i = 0; i < out->n_node_endpoints; i++) {
        if (out->node_endpoints[i].node_id == to.node) {
            return;
        }
    }
    if (out->node_endpoints == NULL) {
        out->node_endpoints = api_alloc(call->rq, (size_t)call->n_parts,
                                        sizeof *out->node_endpoints);
    }
    struct api_address address = api_address_of(call->rq, to.broker);
    out->node_endpoints[out->n_node_endpoints++] =
        (struct fetch_response_node_endpoint){
            .node_id = to.node,
            .host = address.host,
            .port = address.port,
            .rack = api_copy(call->rq, to.broker->rack),
        };
}

static void part_answer(struct fetch_call *call, struct fetch_part *part)
{
    struct fetch_response_partition *out = &part->out;
    const struct partition_fetch *f = &part->fetch;
    enum kafka_error error =
        part->preset != KAFKA_NONE ? part->preset : f->error;
    out->error_code = (int16_t)error;
    out->high_watermark = -1;
    out->last_stable_offset = -1;
    out->log_start_offset = -1;
    out->preferred_read_replica = -1;
    out->n_aborted_transactions = call->in.isolation_level == 1 ? 0 : -1;
    out->diverging_epoch.epoch = -1;
    out->diverging_epoch.end_offset = -1;
    out->current_leader.leader_id = -1;
    out->current_leader.leader_epoch = -1;
    out->snapshot_id.end_offset = -1;
    out->snapshot_id.epoch = -1;
    out->records = (struct wire_records){.n = 0};
    if (error != KAFKA_NONE) {
        if (error == KAFKA_NOT_LEADER_OR_FOLLOWER ||
            error == KAFKA_FENCED_LEADER_EPOCH) {
            hint_leader(call, part);
        }
        return;
    }
    out->high_watermark = f->high_watermark.v;
    out->last_stable_offset = f->last_stable.v;
    out->log_start_offset = f->log_start.v;
    out->preferred_read_replica = part->elsewhere;
    if (f->diverging_epoch >= 0) {
        out->diverging_epoch.epoch = f->diverging_epoch;
        out->diverging_epoch.end_offset = f->diverging_end.v;
        return;
    }
    out->records =
        (struct wire_records){.n = f->bytes, .n_iov = f->n_iov, .iov = f->iov};
}

/* Whether the answer names the partition; a session remembers what it told. */
static bool part_listed(struct fetch_call *call, struct fetch_part *part)
{
    struct fetch_session *s = call->context.session;
    if (s == NULL) {
        return true;
    }
    struct fetch_session_part *known = part->known;
    if (known == NULL) { /* the session is new */
        known = fetch_session_find(s, &part->topic, &part->topic_id,
                                   part->out.partition_index);
    }
    bool news = known == NULL || fetch_session_told(s, known, &part->out);
    return news || call->context.kind == FETCH_FULL;
}

/* The answer's topics: neighbours of one topic under one name. */
static void call_list(struct fetch_call *call)
{
    struct request *rq = call->rq;
    struct fetch_response *out = &call->out;
    size_t n = (size_t)call->n_parts;
    struct fetch_response_partition *flat = api_alloc(rq, n, sizeof *flat);
    struct fetch_response_topic *topic = NULL;
    out->responses = api_alloc(rq, n, sizeof *out->responses);
    out->n_responses = 0;
    for (int i = 0; i < call->n_parts; i++) {
        struct fetch_part *part = &call->parts[i];
        if (!part_listed(call, part)) {
            continue;
        }
        if (topic == NULL || topic->topic.n != part->topic.n ||
            (part->topic.n > 0 && memcmp(topic->topic.p, part->topic.p,
                                         (size_t)part->topic.n) != 0) ||
            memcmp(&topic->topic_id, &part->topic_id, sizeof part->topic_id) !=
                0) {
            topic = &out->responses[out->n_responses++];
            topic->topic = part->topic;
            topic->topic_id = part->topic_id;
            topic->partitions = flat;
        }
        topic->partitions[topic->n_partitions++] = part->out;
        flat++;
    }
}

/* The session that the request continues or begins; false: it was used by
 * another one meanwhile, and this one is answered with the error alone. */
static bool call_session(struct fetch_call *call)
{
    struct fetch_context *context = &call->context;
    if (context->kind == FETCH_FULL) {
        call->out.session_id =
            fetch_context_open(call->rq->shard->fetch_sessions, &call->in,
                               call->rq->api_version, context);
    } else if (context->kind == FETCH_INCREMENTAL) {
        call->out.session_id = context->session->id;
        if (context->session->epoch != context->epoch) {
            call->out.error_code = KAFKA_INVALID_FETCH_SESSION_EPOCH;
            return false;
        }
    }
    return true;
}

/* Shards read side by side: what is too much together goes back. What is left,
 * in bytes. */
static int64_t give_back(struct fetch_call *call)
{
    int64_t sum = 0;
    for (int i = 0; i < call->n_parts; i++) {
        struct fetch_part *part = &call->parts[i];
        if (part->pinned && sum > 0 &&
            part->fetch.bytes > call->in.max_bytes - sum) {
            part_release(part);
            part->fetch.bytes = 0;
            part->fetch.n_iov = 0;
        }
        sum += part->fetch.bytes;
    }
    return sum;
}

/* The client has to wait: it gets nothing but the time (KIP-219), and asks for
 * the same again. */
static void answer_nothing(struct fetch_call *call)
{
    struct fetch_response *out = &call->out;
    struct fetch_session *session = call->context.session;
    call_release(call->rq);
    out->throttle_time_ms = (int32_t)call->rq->throttle_ms;
    if (call->context.kind == FETCH_INCREMENTAL) {
        out->session_id = session->id;
        if (session->epoch != call->context.epoch) {
            out->error_code = KAFKA_INVALID_FETCH_SESSION_EPOCH;
        }
    }
    request_respond(call->rq, &fetch_response_message, out);
}

static void call_answer(struct fetch_call *call);

static void call_counted(struct request *rq)
{
    call_answer(rq->handler_data);
}

static void call_answer(struct fetch_call *call)
{
    struct request *rq = call->rq;
    if (call->timer_on) {
        env_timer_stop(&call->timer);
        call->timer_on = false;
    }
    if (call->wake.queued) {
        call->answer_later = true; /* its callback may not find us gone */
        return;
    }
    if (throttle_fetch(rq, give_back(call), call_counted)) {
        return;
    }
    if (rq->throttle_ms > 0) {
        answer_nothing(call);
        return;
    }
    for (int i = 0; i < call->n_parts; i++) {
        part_answer(call, &call->parts[i]);
    }
    if (call_session(call)) {
        call_list(call);
    }
    request_respond(rq, &fetch_response_message, &call->out);
}

/* ---- waiting ------------------------------------------------------------- */
static void unwait_start(struct shard_task *task)
{
    struct fetch_lane *lane = task->arg;
    for (int i = 0; i < lane->n_parts; i++) {
        partition_unwait(&lane->parts[i]->waiter);
    }
    shard_task_end(task);
}

static void lane_idle(struct shard_task *task)
{
    struct fetch_lane *lane = task->arg;
    struct fetch_call *call = lane->call;
    if (--call->lanes_busy == 0) {
        round_begin(call);
    }
}

static void wait_is_over(struct fetch_call *call)
{
    if (!call->waiting) {
        call->wake_pending = true;
        return;
    }
    call->waiting = false;
    call->wake_pending = false;
    call->lanes_busy = call->n_lanes;
    for (int i = 0; i < call->n_lanes; i++) {
        struct fetch_lane *lane = &call->lanes[i];
        lane->task = (struct shard_task){
            .start = unwait_start, .finish = lane_idle, .arg = lane};
        shard_task_begin(&lane->task, call->rq->shard, lane->shard);
    }
}

static void call_woken(struct env_deferred *d)
{
    struct fetch_call *call = d->arg;
    if (call->answer_later) {
        call_answer(call);
        return;
    }
    wait_is_over(call);
}

/* A lane's wake always arrives before the end of its next task, as posts of
 * one shard keep their order: the call is still there. */
static void wake_arrived(struct env_post *post)
{
    struct fetch_lane *lane = post->arg;
    env_defer(lane->call->rq->shard->env, &lane->call->wake);
}

static bool may_read(const struct fetch_call *call, struct partition *p)
{
    struct group_role role = partition_role(p);
    return role.is_leader || (call->by_rack && role.leader >= 0);
}

/* Enough for min_bytes, as far as this shard can tell? */
static bool lane_has_enough(const struct fetch_lane *lane)
{
    const struct fetch_call *call = lane->call;
    int64_t sum = 0;
    for (int i = 0; i < lane->n_parts; i++) {
        const struct fetch_part *part = lane->parts[i];
        struct partition *p = shard_find_partition(lane->shard, &part->id);
        if (p == NULL || !may_read(call, p)) {
            return true; /* an error to be told */
        }
        sum +=
            partition_available(p, part->fetch.offset, call->in.isolation_level,
                                part->fetch.max_bytes);
    }
    return call->n_lanes > 1 ? sum > 0 : sum >= call->in.min_bytes;
}

static void part_woken(struct partition_waiter *waiter)
{
    struct fetch_part *part = waiter->arg;
    struct fetch_call *call = part->call;
    struct fetch_lane *lane = NULL;
    for (int i = 0; i < call->n_lanes && lane == NULL; i++) {
        for (int k = 0; k < call->lanes[i].n_parts; k++) {
            if (call->lanes[i].parts[k] == part) {
                lane = &call->lanes[i];
                break;
            }
        }
    }
    if (lane == NULL) {
        UNREACHABLE("a part in no lane");
    }
    if (lane->woken) {
        return;
    }
    if (!lane_has_enough(lane)) {
        struct partition *p = shard_find_partition(lane->shard, &part->id);
        partition_wait(p, waiter);
        return;
    }
    lane->woken = true;
    if (lane->shard == call->rq->shard) {
        env_defer(lane->shard->env, &call->wake);
        return;
    }
    lane->wake_post = (struct env_post){.cb = wake_arrived, .arg = lane};
    env_post(call->rq->shard->env, &lane->wake_post);
}

static void wait_start(struct shard_task *task)
{
    struct fetch_lane *lane = task->arg;
    lane->woken = false;
    for (int i = 0; i < lane->n_parts; i++) {
        struct fetch_part *part = lane->parts[i];
        struct partition *p = shard_find_partition(lane->shard, &part->id);
        if (p == NULL) {
            continue;
        }
        part->waiter.wake = part_woken;
        part->waiter.arg = part;
        partition_wait(p, &part->waiter);
    }
    shard_task_end(task);
}

static void wait_begun(struct shard_task *task)
{
    struct fetch_lane *lane = task->arg;
    struct fetch_call *call = lane->call;
    if (--call->lanes_busy > 0) {
        return;
    }
    call->waiting = true;
    if (call->wake_pending || call->gone ||
        env_now_ms(call->rq->shard->env) >= call->deadline_ms) {
        wait_is_over(call);
    }
}

static void call_wait(struct fetch_call *call)
{
    call->lanes_busy = call->n_lanes;
    for (int i = 0; i < call->n_lanes; i++) {
        struct fetch_lane *lane = &call->lanes[i];
        lane->task = (struct shard_task){
            .start = wait_start, .finish = wait_begun, .arg = lane};
        shard_task_begin(&lane->task, call->rq->shard, lane->shard);
    }
}

static void call_deadline(struct env_timer *timer)
{
    struct fetch_call *call = timer->arg;
    env_defer(call->rq->shard->env, &call->wake);
}

static void call_abandoned(struct request *rq)
{
    struct fetch_call *call = rq->handler_data;
    call->gone = true;
    env_defer(rq->shard->env, &call->wake);
}

/* ---- one round ----------------------------------------------------------- */
static void round_ended(struct fetch_call *call)
{
    int64_t bytes = 0;
    bool now = call->n_parts == 0 || call->gone;
    for (int i = 0; i < call->n_parts; i++) {
        const struct fetch_part *part = &call->parts[i];
        bytes += part->fetch.bytes;
        now = now || part->preset != KAFKA_NONE ||
              part->fetch.error != KAFKA_NONE || part->elsewhere >= 0 ||
              part->fetch.diverging_epoch >= 0;
    }
    uint64_t time = env_now_ms(call->rq->shard->env);
    if (now || bytes >= call->in.min_bytes || time >= call->deadline_ms ||
        call->n_lanes == 0) {
        call_answer(call);
        return;
    }
    call_release(call->rq);
    call_wait(call);
}

static void lane_read_on(struct fetch_lane *lane);

static void part_account(struct fetch_lane *lane, struct fetch_part *part)
{
    part->pinned = part->fetch.n_iov > 0 || part->fetch.pins != NULL;
    if (part->fetch.error != KAFKA_NONE) {
        part->fetch.bytes = 0;
    }
    lane->budget -= part->fetch.bytes;
    lane->has_some |= part->fetch.bytes > 0;
}

/* It is not being read any more: what it was lent can be used again. */
static void part_take_back(struct fetch_lane *lane, struct fetch_part *part)
{
    lane->budget += part->lent;
    part->lent = 0;
    lane->n_reading--;
}

static void part_was_read(struct partition_fetch *fetch)
{
    struct fetch_part *part = fetch->arg;
    struct fetch_lane *lane = part->lane;
    part_take_back(lane, part);
    part_account(lane, part);
    if (!lane->beginning) {
        lane_read_on(lane);
    }
}

static bool same_rack(const char *rack, const struct wire_str *of)
{
    return rack != NULL && of->n > 0 && strlen(rack) == (size_t)of->n &&
           memcmp(rack, of->p, (size_t)of->n) == 0;
}

/* The replica in the consumer's rack that it is sent to: one in sync that can
 * be reached; -1: it stays here, with the leader. Of several always the same
 * one for a partition. */
static node_id rack_replica(const struct fetch_lane *lane, struct partition *p)
{
    const struct wire_str *rack = &lane->call->in.rack_id;
    const struct image *image = lane->shard->image;
    struct group_replica_state replicas[GROUP_REPLICAS_MAX];
    int n = group_replicas(partition_group(p), replicas);
    node_id self = broker_node(lane->shard->broker), found = -1;
    for (int i = 0; i < n; i++) {
        const struct image_broker *b = image_broker(image, replicas[i].node);
        if (b == NULL || !same_rack(b->rack, rack)) {
            continue;
        }
        if (replicas[i].node == self) {
            return -1;
        }
        if (found < 0 && b->live && replicas[i].caught_up &&
            replicas[i].reachable) {
            found = replicas[i].node;
        }
    }
    return found;
}

/* True: the consumer is sent elsewhere, if its request is in order at all. */
static bool part_elsewhere(struct fetch_lane *lane, struct fetch_part *part,
                           struct partition *p)
{
    struct partition_fetch *f = &part->fetch;
    part->elsewhere = -1;
    if (!lane->call->by_rack || !partition_role(p).is_leader) {
        return false;
    }
    node_id to = rack_replica(lane, p);
    if (to < 0 || f->offset.v > partition_high_watermark(p).v) {
        return false;
    }
    int32_t wanted = f->max_bytes;
    f->max_bytes = 0;
    f->at_least_one = false;
    bool done = partition_fetch(p, f); /* reads nothing, checks everything */
    ASSERT(done);
    f->max_bytes = wanted;
    if (f->error == KAFKA_NONE && f->diverging_epoch < 0) {
        part->elsewhere = to;
    }
    return true;
}

/* Whether a part is read beside those that are being read: only if none of them
 * has to be the one that gives at least a batch, and it need not get less than
 * it asks for on account of what they may leave over. */
static bool may_begin(const struct fetch_lane *lane,
                      const struct fetch_part *part)
{
    return lane->n_reading == 0 ||
           (lane->has_some && lane->budget >= part->fetch.max_bytes);
}

/* True: the part is done with; false: it is being read from a file. */
static bool part_read(struct fetch_lane *lane, struct fetch_part *part)
{
    struct partition_fetch *f = &part->fetch;
    struct partition *p = shard_find_partition(lane->shard, &part->id);
    f->error = KAFKA_NONE;
    f->bytes = 0;
    f->n_iov = 0;
    f->pins = NULL;
    f->diverging_epoch = -1;
    if (p == NULL) {
        f->error = KAFKA_NOT_LEADER_OR_FOLLOWER;
        return true;
    }
    if (part_elsewhere(lane, part, p)) {
        return true;
    }
    f->from_follower_ok = may_read(lane->call, p);
    int32_t wanted = f->max_bytes;
    if (lane->budget < wanted) {
        f->max_bytes = lane->budget < 0 ? 0 : lane->budget;
    }
    f->at_least_one = !lane->has_some;
    part->lent = f->max_bytes;
    lane->budget -= part->lent;
    lane->n_reading++;
    lane->beginning = true;
    bool done = partition_fetch(p, f);
    lane->beginning = false;
    f->max_bytes = wanted;
    if (done) {
        part_take_back(lane, part);
    }
    return done;
}

static void lane_read_on(struct fetch_lane *lane)
{
    while (lane->next < lane->n_parts &&
           may_begin(lane, lane->parts[lane->next])) {
        struct fetch_part *part = lane->parts[lane->next++];
        if (part_read(lane, part)) {
            part_account(lane, part);
        }
    }
    if (lane->n_reading == 0) {
        shard_task_end(&lane->task);
    }
}

static void lane_start(struct shard_task *task)
{
    struct fetch_lane *lane = task->arg;
    lane->next = lane->n_reading = 0;
    lane->budget = lane->call->in.max_bytes;
    lane->has_some = false;
    lane_read_on(lane);
}

static void lane_ended(struct shard_task *task)
{
    struct fetch_lane *lane = task->arg;
    if (--lane->call->lanes_busy == 0) {
        round_ended(lane->call);
    }
}

static void round_begin(struct fetch_call *call)
{
    call->wake_pending = false;
    call->lanes_busy = call->n_lanes + 1;
    for (int i = 0; i < call->n_lanes; i++) {
        struct fetch_lane *lane = &call->lanes[i];
        lane->task = (struct shard_task){
            .start = lane_start, .finish = lane_ended, .arg = lane};
        shard_task_begin(&lane->task, call->rq->shard, lane->shard);
    }
    if (--call->lanes_busy == 0) {
        round_ended(call);
    }
}

/* ---- taking the request apart -------------------------------------------- */
static void part_prepare(struct fetch_call *call,
                         const struct image_topic *topic,
                         enum kafka_error error, struct wire_str name,
                         const struct uuid *topic_id,
                         const struct fetch_request_partition *in)
{
    struct fetch_part *part = &call->parts[call->n_parts++];
    part->call = call;
    part->topic = name;
    part->topic_id = *topic_id;
    part->elsewhere = -1;
    part->out.partition_index = in->partition;
    if (error == KAFKA_NONE &&
        (in->partition < 0 || in->partition >= topic->n_partitions)) {
        error = KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
    }
    part->preset = error;
    part->fetch.diverging_epoch = -1;
    if (error != KAFKA_NONE) {
        return;
    }
    part->id =
        (struct group_id){.topic = topic->id, .partition = in->partition};
    part->fetch = (struct partition_fetch){
        .offset = {in->fetch_offset},
        .max_bytes = in->partition_max_bytes,
        .isolation = call->in.isolation_level,
        .current_leader_epoch = in->current_leader_epoch,
        .last_fetched_epoch = in->last_fetched_epoch,
        .cb = part_was_read,
        .arg = part,
        .diverging_epoch = -1,
    };
    struct broker_shard *owner = shard_owner(call->rq->shard, &part->id);
    struct fetch_lane *lane = NULL;
    for (int i = 0; i < call->n_lanes; i++) {
        if (call->lanes[i].shard == owner) {
            lane = &call->lanes[i];
        }
    }
    if (lane == NULL) {
        lane = &call->lanes[call->n_lanes++];
        lane->call = call;
        lane->shard = owner;
    }
    lane->n_parts++;
}

static void lanes_fill(struct fetch_call *call)
{
    for (int i = 0; i < call->n_lanes; i++) {
        struct fetch_lane *lane = &call->lanes[i];
        lane->parts = api_alloc(call->rq, (size_t)lane->n_parts,
                                sizeof(struct fetch_part *));
        lane->n_parts = 0;
        for (int k = 0; k < call->n_parts; k++) {
            struct fetch_part *part = &call->parts[k];
            if (part->preset == KAFKA_NONE &&
                shard_owner(call->rq->shard, &part->id) == lane->shard) {
                part->lane = lane;
                lane->parts[lane->n_parts++] = part;
            }
        }
    }
}

static const struct image_topic *topic_find(const struct fetch_call *call,
                                            struct wire_str name,
                                            const struct uuid *id,
                                            enum kafka_error *error)
{
    const struct image_topic *topic = NULL;
    *error = api_find_topic(call->rq->shard, name, id, &topic);
    if (call->rq->api_version >= 13 && *error != KAFKA_NONE) {
        *error = KAFKA_UNKNOWN_TOPIC_ID;
    }
    return topic;
}

static void parts_of_request(struct fetch_call *call)
{
    const struct fetch_request *in = &call->in;
    size_t n = 0;
    for (int t = 0; t < in->n_topics; t++) {
        n += (size_t)in->topics[t].n_partitions;
    }
    call->parts = api_alloc(call->rq, n, sizeof *call->parts);
    for (int t = 0; t < in->n_topics; t++) {
        const struct fetch_request_topic *ti = &in->topics[t];
        enum kafka_error error = KAFKA_NONE;
        const struct image_topic *topic =
            topic_find(call, ti->topic, &ti->topic_id, &error);
        for (int p = 0; p < ti->n_partitions; p++) {
            part_prepare(call, topic, error, ti->topic, &ti->topic_id,
                         &ti->partitions[p]);
        }
    }
}

/* Copies: the session may change before the answer. */
static void parts_of_session(struct fetch_call *call)
{
    struct fetch_session_part *first = call->context.session->parts;
    const struct image_topic *topic = NULL;
    enum kafka_error error = KAFKA_NONE;
    const struct fetch_part *last = NULL;
    call->parts = api_alloc(call->rq, HASH_COUNT(first), sizeof *call->parts);
    for (struct fetch_session_part *p = first; p != NULL; p = p->hh.next) {
        struct wire_str name = p->topic;
        bool same =
            last != NULL && last->topic.n == name.n &&
            (name.n <= 0 ||
             memcmp(last->topic.p, name.p, (size_t)name.n) == 0) &&
            memcmp(&last->topic_id, &p->topic_id, sizeof p->topic_id) == 0;
        if (same) {
            name = last->topic;
        } else {
            topic = topic_find(call, name, &p->topic_id, &error);
            if (name.n > 0) {
                char *copy = api_alloc(call->rq, (size_t)name.n, 1);
                memcpy(copy, name.p, (size_t)name.n);
                name.p = copy;
            }
        }
        last = &call->parts[call->n_parts];
        part_prepare(call, topic, error, name, &p->topic_id, &p->in);
        call->parts[call->n_parts - 1].known = p;
    }
}

static void call_prepare(struct fetch_call *call)
{
    struct request *rq = call->rq;
    call->lanes =
        api_alloc(rq, broker_n_shards(rq->shard->broker), sizeof *call->lanes);
    if (call->context.kind == FETCH_INCREMENTAL) {
        parts_of_session(call);
    } else {
        parts_of_request(call);
    }
    lanes_fill(call);
}

/* Consumers that tell their rack may read from followers, as Kafka has it where
 * the selector is set; which of them knows racks is the only one there is. */
static bool reads_by_rack(const struct request *rq,
                          const struct fetch_request *in)
{
    const char *selector = broker_config_get(
        broker_static_config(rq->shard->broker), "replica.selector.class");
    return in->replica_id < 0 && in->rack_id.n > 0 && selector != NULL &&
           strstr(selector, "RackAwareReplicaSelector") != NULL;
}

void api_fetch(struct request *rq)
{
    struct fetch_call *call = api_alloc(rq, 1, sizeof *call);
    call->rq = rq;
    if (!request_decode(rq, &fetch_request_message, &call->in)) {
        return;
    }
    struct fetch_request *in = &call->in;
    fetch_response_init(&call->out);
    fetch_context_begin(rq->shard->fetch_sessions, in, rq->api_version,
                        &call->context);
    if (call->context.kind == FETCH_REFUSED) {
        call->out.error_code = (int16_t)call->context.error;
        request_respond(rq, &fetch_response_message, &call->out);
        return;
    }
    const int64_t most = broker_config_int(
        broker_static_config(rq->shard->broker), "fetch.max.bytes");
    if (in->max_bytes < 0 || in->max_bytes > most) {
        in->max_bytes = (int32_t)most;
    }
    in->max_bytes = throttle_fetch_max(rq, in->max_bytes);
    if (in->min_bytes > in->max_bytes) {
        in->min_bytes = in->max_bytes;
    }
    call->by_rack = reads_by_rack(rq, in);
    call_prepare(call);
    call->wake = (struct env_deferred){.cb = call_woken, .arg = call};
    rq->handler_data = call;
    rq->release = call_over;
    rq->abandoned = call_abandoned;
    uint64_t wait = in->max_wait_ms < 0 ? 0 : (uint64_t)in->max_wait_ms;
    call->deadline_ms = env_now_ms(rq->shard->env) + wait;
    if (wait > 0 && in->min_bytes > 0 && call->n_lanes > 0) {
        /* one more, as now was a part of a millisecond ago: the whole time,
         * as Kafka waits; clients set time-outs of their own by it */
        call->deadline_ms++;
        env_timer_init(rq->shard->env, &call->timer, call_deadline, call);
        env_timer_start(&call->timer, wait + 1);
        call->timer_on = true;
    }
    round_begin(call);
}
