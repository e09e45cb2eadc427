/* Asks one broker, over the Kafka wire, what it knows of its cluster. */
#ifndef TOOLS_PROBE_H
#define TOOLS_PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct probe {
    int n_brokers;      /* registered and live */
    int32_t controller; /* -1: not known */
};
/* Asks the broker at "host:port"; blocks for at most `timeout_ms`. False: no
 * answer, `why` is a phrase. */
bool probe_broker(const char *address, int timeout_ms, struct probe *out,
                  char *why, size_t why_size);

#endif
