/* What the commands print: rows are JSON objects, a table is a view of them,
 * so that both forms always say the same. */
#ifndef TOOLS_OUTPUT_H
#define TOOLS_OUTPUT_H

#include <jansson.h>

#include "tools/cli.h"

struct output_column {
    const char *header; /* "PARTITIONS"; NULL ends the list */
    const char *key;    /* of the row's object */
    bool number;        /* aligned to the right */
    bool wide;          /* only with -o wide */
};

/* Prints an array of objects as an aligned table without borders. Lists are
 * shown as "1,2,3", null as "-". */
void output_table(const struct cli *cli, json_t *rows,
                  const struct output_column *columns);
/* Adds what was deleted, or (done is false) would be, to `rows`; then prints
 * all of them: a line each, or the list as JSON. `kind` is "topic", "group". */
void output_deleted(json_t *rows, const char *kind, const char *name,
                    bool done);
void output_deletions(const struct cli *cli, json_t *rows, const char *kind);
/* One value, pretty on a terminal. */
void output_json(json_t *value);
/* A JSON string of bytes: as text when they are UTF-8 (and do not begin with
 * "base64:"), else "base64:..."; NULL gives null. */
json_t *output_bytes(const void *data, size_t size);
/* The way back: null gives NULL, what is no string its JSON text. free(*data)
 * is the caller's. False: "base64:" with something else behind it. */
bool output_bytes_read(const json_t *value, void **data, size_t *size);

#endif
