#include "metadata/decide.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/mem.h"
#include "metadata/record.h"

void decide_init(struct decide *d, const struct image *image,
                 struct prng *random)
{
    memset(d, 0, sizeof *d);
    d->image = image;
    d->random = random;
    d->num_partitions = 1;
    d->replication_factor = 1;
    d->next_replica = image_next_replica(image);
}

void decide_free(struct decide *d)
{
    buffer_free(&d->records);
    change_answer_free(&d->answer);
    mem_free(d->brokers);
    d->brokers = NULL;
}

void decide_refuse(struct metadata_topic_result *result, enum kafka_error error,
                   const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(result->message, sizeof result->message, format, args);
    va_end(args);
    result->error = error;
}

struct buffer *decide_records(struct decide *d)
{
    if (d->records.size == 0) {
        record_batch_begin(&d->records);
    }
    return &d->records;
}

void decide_cluster(struct decide *d, const struct uuid *cluster)
{
    record_put_cluster(decide_records(d), cluster);
}

static void make_results(struct decide *d, int n)
{
    d->answer.n_results = n;
    d->answer.results =
        n == 0 ? NULL : mem_zalloc((size_t)n * sizeof *d->answer.results);
}

void decide_change(struct decide *d, const struct change *change)
{
    make_results(d, change->n);
    switch (change->kind) {
        case CHANGE_CREATE_TOPICS:
            decide_create_topics(d, change);
            break;
        case CHANGE_DELETE_TOPICS:
            decide_delete_topics(d, change);
            break;
        case CHANGE_CREATE_PARTITIONS:
            decide_create_partitions(d, change);
            break;
        case CHANGE_ALTER_CONFIGS:
            decide_alter_configs(d, change);
            break;
        case CHANGE_PRODUCER_IDS:
            decide_producer_ids(d, change);
            break;
        case CHANGE_REGISTER:
            decide_register(d, change);
            break;
        case CHANGE_UNREGISTER:
            decide_unregister(d, change);
            break;
        case CHANGE_SYNC:
            UNREACHABLE("decides nothing");
    }
}
