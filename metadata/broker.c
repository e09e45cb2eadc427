/* Brokers: who is registered, and the blocks of producer ids they take. */
#include <stdio.h>

#include "metadata/decide.h"
#include "metadata/record.h"

void decide_register(struct decide *d, const struct change *change)
{
    const struct image_broker *known =
        image_broker(d->image, change->u.broker.node);
    if (known != NULL &&
        !uuid_equal(&known->directory, &change->u.broker.directory)) {
        char directory[UUID_TEXT_SIZE];
        uuid_format(&known->directory, directory);
        snprintf(d->answer.sentence, sizeof d->answer.sentence,
                 "node id %d belongs to another data directory (%s): start "
                 "this broker with that directory, or give it a node id of "
                 "its own",
                 known->node, directory);
        d->answer.error = KAFKA_INVALID_REQUEST;
        return;
    }
    struct image_broker broker = change->u.broker;
    broker.live = true;
    broker.epoch = 0; /* the entry's index */
    record_put_broker(decide_records(d), &broker);
    if (broker.listeners != NULL) {
        record_put_broker_listeners(decide_records(d), &broker);
    }
}

void decide_unregister(struct decide *d, const struct change *change)
{
    node_id node = change->u.unregister;
    const struct image_broker *known = image_broker(d->image, node);
    if (known == NULL) {
        snprintf(d->answer.sentence, sizeof d->answer.sentence,
                 "Broker ID %d is not currently registered", node);
        d->answer.error = KAFKA_BROKER_ID_NOT_REGISTERED;
    } else if (known->live) {
        snprintf(d->answer.sentence, sizeof d->answer.sentence,
                 "Broker %d is running: stop it first", node);
        d->answer.error = KAFKA_INVALID_REQUEST;
    } else {
        record_put_broker_gone(decide_records(d), node, known->epoch);
    }
}

void decide_producer_ids(struct decide *d, const struct change *change)
{
    int64_t first = image_next_producer_id(d->image);
    if (first > INT64_MAX - change->u.producer_ids) {
        d->answer.error = KAFKA_UNKNOWN_SERVER_ERROR;
        return;
    }
    d->answer.first_id = first;
    record_put_counters(decide_records(d), 0,
                        (uint64_t)(first + change->u.producer_ids));
}
