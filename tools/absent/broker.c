/* Stands in for net/broker.c until it is there: a server says so. */
#include "net/broker.h"

#include <stddef.h>

struct broker *broker_start(const struct broker_options *options)
{
    options->failed(options->arg, "This build has no broker yet.");
    return NULL;
}
void broker_stop(struct broker *broker)
{
    (void)broker;
}
void broker_free(struct broker *broker)
{
    (void)broker;
}
const char *broker_waiting_for(const struct broker *broker)
{
    (void)broker;
    return "";
}
const char *broker_address(const struct broker *broker)
{
    (void)broker;
    return "";
}
