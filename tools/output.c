#include "tools/output.h"

#include <libsmartcols/libsmartcols.h>
#include <stdio.h>
#include <stdlib.h>
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

void output_deleted(json_t *rows, const char *kind, const char *name, bool done)
{
    json_array_append_new(
        rows, json_pack("{s:s, s:b}", kind, name, "deleted", (int)done));
}

void output_deletions(const struct cli *cli, json_t *rows, const char *kind)
{
    size_t i;
    json_t *row;
    if (cli_output(cli) == OUTPUT_JSON) {
        output_json(rows);
        return;
    }
    json_array_foreach(rows, i, row)
    {
        printf("%s %s\n", json_string_value(json_object_get(row, kind)),
               json_is_true(json_object_get(row, "deleted"))
                   ? "deleted"
                   : "would be deleted");
    }
}

#define BASE64 "base64:"
static const char digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static json_t *base64(const uint8_t *p, size_t n)
{
    char *out = mem_alloc(sizeof BASE64 + 4 * (n / 3 + 1));
    size_t at = sizeof BASE64 - 1;
    memcpy(out, BASE64, at);
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
    size_t n = sizeof BASE64 - 1;
    if (data == NULL) {
        return json_null();
    }
    bool marked = size >= n && memcmp(data, BASE64, n) == 0;
    json_t *text = marked ? NULL : json_stringn(data, size);
    return text != NULL ? text : base64(data, size);
}

static bool base64_read(const char *text, size_t n, uint8_t *out, size_t *size)
{
    uint32_t v = 0;
    unsigned bits = 0;
    *size = 0;
    if (n % 4 != 0) {
        return false;
    }
    while (n > 0 && text[n - 1] == '=') {
        n--;
    }
    for (size_t i = 0; i < n; i++) {
        const char *digit = text[i] == '\0' ? NULL : strchr(digits, text[i]);
        if (digit == NULL) {
            return false;
        }
        v = (v << 6 | (uint32_t)(digit - digits)) & 0xffffff;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            out[(*size)++] = (uint8_t)(v >> bits);
        }
    }
    return true;
}

bool output_bytes_read(const json_t *value, void **data, size_t *size)
{
    *data = NULL;
    *size = 0;
    if (json_is_null(value)) {
        return true;
    }
    if (!json_is_string(value)) {
        char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        *data = text;
        *size = strlen(text);
        return true;
    }
    size_t n = json_string_length(value);
    const char *text = json_string_value(value);
    uint8_t *out = malloc(n + 1);
    *data = out;
    *size = n;
    if (strncmp(text, BASE64, sizeof BASE64 - 1) == 0) {
        text += sizeof BASE64 - 1;
        return base64_read(text, n - (sizeof BASE64 - 1), out, size);
    }
    memcpy(out, text, n);
    return true;
}
