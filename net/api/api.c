#include "net/api/api.h"

#include "base/mem.h"

void *api_alloc(struct request *rq, size_t count, size_t size)
{
    return arena_array(&rq->arena, count, size);
}

char *api_cstr(struct request *rq, struct wire_str s)
{
    size_t n = s.n < 0 ? 0 : (size_t)s.n;
    char *out = arena_alloc(&rq->arena, n + 1);
    memcpy(out, n == 0 ? "" : s.p, n);
    out[n] = '\0';
    return out;
}

struct wire_str api_copy(struct request *rq, const char *s)
{
    return wire_str_of(s == NULL ? NULL : arena_strdup(&rq->arena, s));
}

enum kafka_error api_find_topic(const struct broker_shard *s,
                                struct wire_str name, const struct uuid *id,
                                const struct image_topic **topic)
{
    if (id != NULL && !uuid_is_zero(id)) {
        *topic = image_topic_by_id(s->image, id);
        return *topic == NULL ? KAFKA_UNKNOWN_TOPIC_ID : KAFKA_NONE;
    }
    *topic = name.n <= 0 ? NULL : image_topic(s->image, name.p, (size_t)name.n);
    return *topic == NULL ? KAFKA_UNKNOWN_TOPIC_OR_PARTITION : KAFKA_NONE;
}

enum kafka_error api_find_partition(const struct broker_shard *s,
                                    struct wire_str name, const struct uuid *id,
                                    int32_t partition,
                                    const struct image_topic **topic)
{
    enum kafka_error e = api_find_topic(s, name, id, topic);
    bool beyond = e == KAFKA_NONE &&
                  (partition < 0 || partition >= (*topic)->n_partitions);
    return beyond ? KAFKA_UNKNOWN_TOPIC_OR_PARTITION : e;
}

bool api_topic_name_valid(struct wire_str name)
{
    return name.n > 0 && topic_name_is_valid(name.p, (size_t)name.n);
}

enum kafka_error api_topic_resource(const struct broker_shard *s,
                                    struct wire_str name)
{
    const struct image_topic *topic = NULL;
    if (!api_topic_name_valid(name)) {
        return KAFKA_INVALID_TOPIC_EXCEPTION;
    }
    return api_find_topic(s, name, NULL, &topic);
}

void api_partition_state(struct request *rq, const struct image_topic *topic,
                         int32_t index, struct api_partition_state *out)
{
    const struct image_partition *ip = &topic->partitions[index];
    size_t n = (size_t)ip->n_replicas;
    memset(out, 0, sizeof *out);
    shard_leader_of(rq->shard, topic, index, &out->leader, &out->leader_epoch);
    out->error = out->leader < 0 ? KAFKA_LEADER_NOT_AVAILABLE : KAFKA_NONE;
    out->replicas = api_alloc(rq, n, sizeof(int32_t));
    out->isr = api_alloc(rq, n, sizeof(int32_t));
    out->offline = api_alloc(rq, n, sizeof(int32_t));
    for (int i = 0; i < ip->n_replicas; i++) {
        node_id node = ip->replicas[i].node;
        const struct image_broker *b = image_broker(rq->shard->image, node);
        out->replicas[out->n_replicas++] = node;
        if (b != NULL && b->live) {
            out->isr[out->n_isr++] = node;
        } else {
            out->offline[out->n_offline++] = node;
        }
    }
}

struct api_address api_address_of(struct request *rq,
                                  const struct image_broker *broker)
{
    const char *host = NULL;
    int32_t n = 0;
    struct api_address out;
    image_broker_address(broker, rq->listener, &host, &n, &out.port);
    out.host =
        (struct wire_str){.p = arena_copy(&rq->arena, host, (size_t)n), .n = n};
    return out;
}

bool api_endpoint(const struct broker_shard *s, node_id node,
                  const struct image_broker **out)
{
    *out = image_broker(s->image, node);
    return *out != NULL;
}

bool api_leader_hint(const struct broker_shard *s, const struct group_id *id,
                     struct api_leader *out)
{
    const struct image_topic *topic = image_topic_by_id(s->image, &id->topic);
    *out = (struct api_leader){.node = -1, .epoch = -1};
    if (topic == NULL || id->partition >= topic->n_partitions) {
        return false;
    }
    shard_leader_of(s, topic, id->partition, &out->node, &out->epoch);
    return out->node >= 0 && api_endpoint(s, out->node, &out->broker);
}

uint32_t api_timeout_ms(int32_t given)
{
    return given < 0 ? 0 : (uint32_t)given;
}

static void step_start(struct shard_task *task)
{
    struct api_metadata_step *step = task->arg;
    step->call.cb = api_metadata_done;
    step->call.arg = step;
    step->then(step, broker_metadata(task->to->broker));
}

static void step_finish(struct shard_task *task)
{
    struct api_metadata_step *step = task->arg;
    arena_move(&step->rq->arena, &step->arena);
    step->back(step);
    /* the request, and with it the step's memory, is gone from here on */
}

void api_metadata_done(struct metadata_call *call)
{
    struct api_metadata_step *step = call->arg;
    step->n_results = call->n_results;
    if (call->n_results > 0) {
        size_t bytes = (size_t)call->n_results * sizeof *call->results;
        step->results = arena_copy(&step->arena, call->results, bytes);
    }
    shard_task_end(&step->task);
}

void api_metadata_begin(struct request *rq, struct api_metadata_step *step)
{
    step->rq = rq;
    arena_init(&step->arena, 0);
    step->task.start = step_start;
    step->task.finish = step_finish;
    step->task.arg = step;
    shard_task_begin(&step->task, rq->shard,
                     broker_shard(rq->shard->broker, 0));
}

int16_t api_metadata_result(const struct api_metadata_step *step, int i,
                            struct wire_str *message)
{
    *message = WIRE_NULL_STR;
    if (i >= step->n_results) {
        return (int16_t)(step->call.error != KAFKA_NONE
                             ? step->call.error
                             : KAFKA_REQUEST_TIMED_OUT);
    }
    const struct metadata_topic_result *r = &step->results[i];
    if (r->message[0] != '\0') {
        *message = api_copy(step->rq, r->message);
    }
    return (int16_t)r->error;
}
