/* The flotilla binary: its commands. */
#include <stddef.h>

#include "tools/cli.h"
#include "tools/dev.h"
#include "tools/server.h"

static const struct command commands[] = {
    {"server", "", 0, "Run one broker in the foreground.",
     NULL, server_options, server_run},
    {"dev", "", 0, "Run a local cluster, a process for each broker.",
     dev_more, dev_options, dev_run},
    {NULL, NULL, 0, NULL, NULL, NULL, NULL},
};

int main(int argc, char **argv)
{
    return cli_main(commands, argc, argv);
}
