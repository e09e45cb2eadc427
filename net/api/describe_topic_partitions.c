/* DescribeTopicPartitions: topics by name, so many partitions at a time; where
 * the answer ends, a cursor says where to go on. */
#include <stdlib.h>

#include "net/api/api.h"
#include "schema/describe_topic_partitions.h"

/* Kafka's max.request.partition.size.limit. */
#define PARTITIONS_MAX 2000

struct pages {
    struct request *rq;
    const struct describe_topic_partitions_request *in;
    struct describe_topic_partitions_response out;
    int left; /* partitions the answer may still hold */
    bool full;
};

static int name_compare(struct wire_str a, struct wire_str b)
{
    int32_t n = a.n < b.n ? a.n : b.n;
    int r = n > 0 ? memcmp(a.p, b.p, (size_t)n) : 0;
    return r != 0 ? r : (a.n > b.n) - (a.n < b.n);
}

static int by_name(const void *a, const void *b)
{
    return name_compare(*(const struct wire_str *)a,
                        *(const struct wire_str *)b);
}

static void page_end(struct pages *pages, struct wire_str topic, int32_t index)
{
    struct describe_topic_partitions_response_next_cursor *next =
        api_alloc(pages->rq, 1, sizeof *next);
    next->topic_name = topic;
    next->partition_index = index;
    pages->out.next_cursor = next;
    pages->full = true;
}

static void add_partition(
    struct request *rq, const struct image_topic *topic, int32_t index,
    struct describe_topic_partitions_response_partition *out)
{
    struct api_partition_state state;
    static int32_t none;
    api_partition_state(rq, topic, index, &state);
    *out = (struct describe_topic_partitions_response_partition){
        .error_code = (int16_t)state.error,
        .partition_index = index,
        .leader_id = state.leader,
        .leader_epoch = state.leader_epoch,
        .replica_nodes = state.replicas,
        .n_replica_nodes = state.n_replicas,
        .isr_nodes = state.isr,
        .n_isr_nodes = state.n_isr,
        .eligible_leader_replicas = &none,
        .last_known_elr = &none,
        .offline_replicas = state.offline,
        .n_offline_replicas = state.n_offline,
    };
}

static void add_topic(struct pages *pages, struct wire_str name,
                      const struct image_topic *topic, int32_t first)
{
    struct request *rq = pages->rq;
    struct describe_topic_partitions_response_topic *to =
        &pages->out.topics[pages->out.n_topics++];
    to->name = name;
    to->topic_authorized_operations = API_TOPIC_OPERATIONS;
    if (topic == NULL) {
        to->error_code = (int16_t)(api_topic_name_valid(name)
                                       ? KAFKA_UNKNOWN_TOPIC_OR_PARTITION
                                       : KAFKA_INVALID_TOPIC_EXCEPTION);
        return;
    }
    to->topic_id = topic->id;
    to->is_internal = topic->internal;
    int32_t n = first < topic->n_partitions ? topic->n_partitions - first : 0;
    n = n < pages->left ? n : pages->left;
    to->partitions = api_alloc(rq, (size_t)n, sizeof *to->partitions);
    to->n_partitions = n;
    for (int32_t i = 0; i < n; i++) {
        add_partition(rq, topic, first + i, &to->partitions[i]);
    }
    pages->left -= n;
    if (first + n < topic->n_partitions) {
        page_end(pages, name, first + n);
    }
}

/* `name` in its turn; topics before the cursor's were told before. */
static void visit(struct pages *pages, struct wire_str name,
                  const struct image_topic *topic)
{
    const struct describe_topic_partitions_request_cursor *cursor =
        pages->in->cursor;
    int32_t first = 0;
    if (cursor != NULL) {
        int order = name_compare(name, cursor->topic_name);
        if (order < 0) {
            return;
        }
        first = order == 0 ? cursor->partition_index : 0;
    }
    if (pages->left == 0) {
        page_end(pages, name, first);
        return;
    }
    add_topic(pages, name, topic, first);
}

static void visit_all(struct pages *pages)
{
    const struct image_topic *const *topics = NULL;
    struct request *rq = pages->rq;
    int n = image_topics(rq->shard->image, &topics);
    pages->out.topics = api_alloc(rq, (size_t)n, sizeof *pages->out.topics);
    for (int i = 0; i < n && !pages->full; i++) {
        visit(pages, wire_str_of(topics[i]->name), topics[i]);
    }
}

static void visit_named(struct pages *pages)
{
    struct request *rq = pages->rq;
    size_t n = (size_t)pages->in->n_topics;
    struct wire_str *names = api_alloc(rq, n, sizeof *names);
    for (size_t i = 0; i < n; i++) {
        names[i] = pages->in->topics[i].name;
    }
    qsort(names, n, sizeof *names, by_name);
    pages->out.topics = api_alloc(rq, n, sizeof *pages->out.topics);
    for (size_t i = 0; i < n && !pages->full; i++) {
        const struct image_topic *topic = NULL;
        if (i > 0 && by_name(&names[i], &names[i - 1]) == 0) {
            continue;
        }
        (void)api_find_topic(rq->shard, names[i], NULL, &topic);
        visit(pages, names[i], topic);
    }
}

/* A cursor must point at one of the topics asked for. */
static bool cursor_is_good(const struct describe_topic_partitions_request *in)
{
    bool named = in->n_topics == 0;
    if (in->cursor == NULL) {
        return true;
    }
    for (int i = 0; i < in->n_topics && !named; i++) {
        named = name_compare(in->topics[i].name, in->cursor->topic_name) == 0;
    }
    return named && in->cursor->partition_index >= 0;
}

static void refuse_all(struct pages *pages)
{
    const struct describe_topic_partitions_request *in = pages->in;
    pages->out.topics =
        api_alloc(pages->rq, (size_t)in->n_topics, sizeof *pages->out.topics);
    pages->out.n_topics = in->n_topics;
    for (int i = 0; i < in->n_topics; i++) {
        pages->out.topics[i].name = in->topics[i].name;
        pages->out.topics[i].error_code = KAFKA_INVALID_REQUEST;
        pages->out.topics[i].topic_authorized_operations = INT32_MIN;
    }
}

void api_describe_topic_partitions(struct request *rq)
{
    struct describe_topic_partitions_request in;
    struct pages pages = {.rq = rq, .in = &in};
    if (!request_decode(rq, &describe_topic_partitions_request_message, &in)) {
        return;
    }
    describe_topic_partitions_response_init(&pages.out);
    pages.left = in.response_partition_limit;
    pages.left = pages.left > PARTITIONS_MAX ? PARTITIONS_MAX : pages.left;
    pages.left = pages.left < 1 ? 1 : pages.left;
    if (!cursor_is_good(&in)) {
        refuse_all(&pages);
    } else if (in.n_topics == 0) {
        visit_all(&pages);
    } else {
        visit_named(&pages);
    }
    request_respond(rq, &describe_topic_partitions_response_message,
                    &pages.out);
}
