/* From files, environment and command line to the broker's configuration. */
#ifndef TOOLS_CONFIG_LOAD_H
#define TOOLS_CONFIG_LOAD_H

#include "metadata/config_keys.h"
#include "tools/cli.h"

/* Reads --config, then KAFKA_… and FLOTILLA_… variables, then --seeds and -D
 * (later ones win), and checks it. What only the machine knows is filled in:
 * its name where listeners have no host. NULL: a sentence was printed. */
struct broker_config *config_load(const struct cli *cli);

/* `path` made absolute; mem_free is the caller's. */
char *path_absolute(const char *path);
/* The directory of `path`; mem_free is the caller's. */
char *path_parent(const char *path);
/* mkdir -p; false: errno says why. */
bool path_make_directory(const char *path);
/* False: errno says why not. */
bool path_is_directory(const char *path);
/* Replaces a small file atomically; false: errno says why. */
bool file_write_atomic(const char *path, const char *text);
/* The number in a pid file; 0: none. */
long pid_file_read(const char *path);

#endif
