#include "tools/output.h"

#include <libsmartcols/libsmartcols.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

/* Text of one cell; cut when a list is very long. */
static void cell_text(const json_t *value, char *out, size_t size)
{
    size_t used = 0;
    size_t i;
    json_t *item;
    switch (value == NULL ? JSON_NULL : json_typeof(value)) {
        case JSON_STRING:
            snprintf(out, size, "%s", json_string_value(value));
            return;
        case JSON_INTEGER:
            snprintf(out, size, "%lld", (long long)json_integer_value(value));
            return;
        case JSON_REAL:
            snprintf(out, size, "%.3g", json_real_value(value));
            return;
        case JSON_TRUE:
        case JSON_FALSE:
            snprintf(out, size, "%s", json_is_true(value) ? "yes" : "no");
            return;
        case JSON_ARRAY:
            out[0] = '\0';
            json_array_foreach(value, i, item)
            {
                if (used + 24 >= size) {
                    break;
                }
                out[used] = ',';
                used += i > 0;
                cell_text(item, out + used, size - used);
                used += strlen(out + used);
            }
            return;
        case JSON_OBJECT:
        case JSON_NULL:
            snprintf(out, size, "-");
            return;
    }
}

void output_table(const struct cli *cli, json_t *rows,
                  const struct output_column *columns)
{
    bool wide = cli_output(cli) == OUTPUT_WIDE;
    struct libscols_table *table = scols_new_table();
    scols_table_enable_noencoding(table, 1);
    for (const struct output_column *c = columns; c->header != NULL; c++) {
        if (!c->wide || wide) {
            scols_table_new_column(table, c->header, 0,
                                   c->number ? SCOLS_FL_RIGHT : 0);
        }
    }
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        struct libscols_line *line = scols_table_new_line(table, NULL);
        size_t at = 0;
        for (const struct output_column *c = columns; c->header != NULL; c++) {
            char text[4096];
            if (!c->wide || wide) {
                cell_text(json_object_get(row, c->key), text, sizeof text);
                scols_line_set_data(line, at++, text);
            }
        }
    }
    scols_table_set_termforce(table, SCOLS_TERMFORCE_NEVER);
    scols_print_table(table);
    scols_unref_table(table);
}

void output_json(json_t *value)
{
    json_dumpf(value, stdout,
               isatty(STDOUT_FILENO) ? JSON_INDENT(2) : JSON_COMPACT);
    putchar('\n');
}

static json_t *base64(const uint8_t *p, size_t n)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    static const char prefix[] = "base64:";
    char *out = mem_alloc(sizeof prefix + 4 * (n / 3 + 1));
    size_t at = sizeof prefix - 1;
    memcpy(out, prefix, at);
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16;
        v |= i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0;
        v |= i + 2 < n ? p[i + 2] : 0;
        out[at++] = digits[v >> 18];
        out[at++] = digits[v >> 12 & 63];
        out[at++] = i + 1 < n ? digits[v >> 6 & 63] : '=';
        out[at++] = i + 2 < n ? digits[v & 63] : '=';
    }
    json_t *json = json_stringn(out, at);
    mem_free(out);
    return json;
}

json_t *output_bytes(const void *data, size_t size)
{
    if (data == NULL) {
        return json_null();
    }
    json_t *text = json_stringn(data, size);
    return text != NULL ? text : base64(data, size);
}
