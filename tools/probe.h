/* Asks one broker, over the Kafka wire, what it knows of its cluster. */
#ifndef TOOLS_PROBE_H
#define TOOLS_PROBE_H

#include <stdbool.h>
#include <stdint.h>

struct probe {
    int n_brokers;      /* registered and live */
    int32_t controller; /* -1: not known */
};
/* Blocks for at most `timeout_ms`. False: no answer. */
bool probe_broker(int port, int timeout_ms, struct probe *out);

#endif
