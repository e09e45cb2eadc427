/* DescribeLogDirs: the one data directory of this broker, what its replicas
 * take there, and the room of its file system. */
#include "net/api/group_api.h"
#include "schema/describe_log_dirs.h"

struct dirs_call;

/* One shard's part: sizes of the replicas it has, by place in `call->topics`.
 */
struct dirs_lane {
    struct group_step step;
    struct dirs_call *call;
};

struct dirs_topic {
    const char *name;
    struct uuid id;
    int n;
    struct dirs_partition {
        int32_t index;
        int64_t bytes; /* -1: no replica here */
    } * partitions;
};

struct dirs_call {
    struct request *rq;
    struct describe_log_dirs_request in;
    struct dirs_topic *topics;
    int n_topics;
    struct dirs_lane *lanes;
    unsigned n_lanes;
};

static void sizes_of(struct broker_shard *s, struct dirs_topic *t)
{
    for (int i = 0; i < t->n; i++) {
        struct group_id id = {.topic = t->id,
                              .partition = t->partitions[i].index};
        if (shard_owner(s, &id) != s) {
            continue;
        }
        struct partition *p = shard_find_partition(s, &id);
        if (p != NULL) {
            t->partitions[i].bytes = partition_size_bytes(p);
        }
    }
}

static void lane_start(struct group_step *step, struct coordinator *c)
{
    struct dirs_lane *lane = (struct dirs_lane *)step;
    (void)c;
    for (int i = 0; i < lane->call->n_topics; i++) {
        sizes_of(step->task.to, &lane->call->topics[i]);
    }
    shard_task_end(&step->task);
}

static void answer_topic(struct request *rq, const struct dirs_topic *t,
                         struct describe_log_dirs_response_result *out)
{
    struct describe_log_dirs_response_topic *to = &out->topics[out->n_topics];
    to->name = api_copy(rq, t->name);
    to->partitions = api_alloc(rq, (size_t)t->n, sizeof *to->partitions);
    for (int i = 0; i < t->n; i++) {
        if (t->partitions[i].bytes >= 0) {
            to->partitions[to->n_partitions++] =
                (struct describe_log_dirs_response_partition){
                    .partition_index = t->partitions[i].index,
                    .partition_size = t->partitions[i].bytes};
        }
    }
    out->n_topics += to->n_partitions > 0;
}

static void respond(struct dirs_call *call)
{
    struct request *rq = call->rq;
    const char *dir = broker_data_dir(rq->shard->broker);
    struct describe_log_dirs_response out;
    struct describe_log_dirs_response_result one = {
        .log_dir = api_copy(rq, dir), .total_bytes = -1, .usable_bytes = -1};
    uint64_t total, available;
    if (env_fs_space(rq->shard->env, dir, &total, &available) == ERR_OK) {
        one.total_bytes = (int64_t)total;
        one.usable_bytes = (int64_t)available;
    }
    one.topics = api_alloc(rq, (size_t)call->n_topics, sizeof *one.topics);
    for (int i = 0; i < call->n_topics; i++) {
        answer_topic(rq, &call->topics[i], &one);
    }
    describe_log_dirs_response_init(&out);
    out.results = &one;
    out.n_results = 1;
    request_respond(rq, &describe_log_dirs_response_message, &out);
}

static void lane_begin(struct dirs_call *call, unsigned i)
{
    group_api_begin(call->rq, &call->lanes[i].step,
                    broker_shard(call->rq->shard->broker, i));
}

/* One shard after the other. */
static void lane_back(struct group_step *step)
{
    struct dirs_lane *lane = (struct dirs_lane *)step;
    struct dirs_call *call = lane->call;
    unsigned next = (unsigned)(lane - call->lanes) + 1;
    if (next == call->n_lanes) {
        respond(call);
        return;
    }
    lane_begin(call, next);
}

/* `indexes` NULL: all partitions. */
static void want_topic(struct dirs_call *call, const struct image_topic *topic,
                       const int32_t *indexes, int n)
{
    struct request *rq = call->rq;
    struct dirs_topic *t = &call->topics[call->n_topics++];
    int count = indexes == NULL ? topic->n_partitions : n;
    t->name = arena_strdup(&rq->arena, topic->name);
    t->id = topic->id;
    t->partitions = api_alloc(rq, (size_t)count, sizeof *t->partitions);
    for (int i = 0; i < count; i++) {
        int32_t index = indexes == NULL ? i : indexes[i];
        if (index >= 0 && index < topic->n_partitions) {
            t->partitions[t->n++] =
                (struct dirs_partition){.index = index, .bytes = -1};
        }
    }
}

static void want_topics(struct dirs_call *call)
{
    struct request *rq = call->rq;
    const struct describe_log_dirs_request *in = &call->in;
    if (in->n_topics < 0) {
        const struct image_topic *const *topics = NULL;
        int n = image_topics(rq->shard->image, &topics);
        call->topics = api_alloc(rq, (size_t)n, sizeof *call->topics);
        for (int i = 0; i < n; i++) {
            want_topic(call, topics[i], NULL, 0);
        }
        return;
    }
    call->topics = api_alloc(rq, (size_t)in->n_topics, sizeof *call->topics);
    for (int i = 0; i < in->n_topics; i++) {
        const struct image_topic *topic = NULL;
        static const int32_t none;
        const int32_t *indexes =
            in->topics[i].n_partitions > 0 ? in->topics[i].partitions : &none;
        if (api_find_topic(rq->shard, in->topics[i].topic, NULL, &topic) ==
            KAFKA_NONE) {
            want_topic(call, topic, indexes, in->topics[i].n_partitions);
        }
    }
}

void api_describe_log_dirs(struct request *rq)
{
    struct dirs_call *call = api_alloc(rq, 1, sizeof *call);
    call->rq = rq;
    if (!request_decode(rq, &describe_log_dirs_request_message, &call->in)) {
        return;
    }
    want_topics(call);
    call->n_lanes = broker_n_shards(rq->shard->broker);
    call->lanes = api_alloc(rq, call->n_lanes, sizeof *call->lanes);
    for (unsigned i = 0; i < call->n_lanes; i++) {
        call->lanes[i].call = call;
        call->lanes[i].step.start = lane_start;
        call->lanes[i].step.back = lane_back;
    }
    lane_begin(call, 0);
}
