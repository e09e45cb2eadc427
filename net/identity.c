#include "net/identity.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"

#define IDENTITY_FILE "broker.properties"
#define IDENTITY_BYTES_MAX 4096

static enum err identity_make(struct env *env, const char *path, node_id node,
                              struct identity *out, char *why, size_t why_size)
{
    out->node = node;
    for (size_t i = 0; i < sizeof out->directory.b; i += 8) {
        uint64_t r = env_random(env);
        memcpy(out->directory.b + i, &r, 8);
    }
    char id[UUID_TEXT_SIZE];
    uuid_format(&out->directory, id);
    char text[256];
    int n = snprintf(text, sizeof text,
                     "# Made by Flotilla at the first start. Do not edit or "
                     "copy.\nversion=1\nnode.id=%d\ndirectory.id=%s\n",
                     (int)node, id);
    enum err e = env_file_write_whole(env, path, text, (size_t)n);
    if (e != ERR_OK) {
        snprintf(why, why_size, "cannot write %s: %s", path, err_text(e));
    }
    return e;
}

static enum err identity_read(const char *text, struct identity *out)
{
    const char *node = strstr(text, "\nnode.id=");
    const char *dir = strstr(text, "\ndirectory.id=");
    if (node == NULL || dir == NULL || strstr(text, "\nversion=1\n") == NULL) {
        return ERR_CORRUPT;
    }
    out->node = (node_id)strtol(node + 9, NULL, 10);
    char id[UUID_TEXT_SIZE] = {0};
    snprintf(id, sizeof id, "%.22s", dir + 14);
    return uuid_parse(id, &out->directory) ? ERR_OK : ERR_CORRUPT;
}

enum err identity_open(struct env *env, const char *dir, node_id node,
                       struct identity *out, char *why, size_t why_size)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/" IDENTITY_FILE, dir);
    void *data = NULL;
    size_t size = 0;
    enum err e =
        env_file_read_whole(env, path, IDENTITY_BYTES_MAX, &data, &size);
    if (e == ERR_NOT_FOUND) {
        return identity_make(env, path, node, out, why, why_size);
    }
    if (e != ERR_OK) {
        snprintf(why, why_size, "cannot read %s: %s", path, err_text(e));
        return e;
    }
    char *text = mem_alloc(size + 2);
    text[0] = '\n'; /* so that every line begins after a newline */
    memcpy(text + 1, data, size);
    text[size + 1] = '\0';
    mem_free(data);
    e = identity_read(text, out);
    mem_free(text);
    if (e != ERR_OK) {
        snprintf(why, why_size,
                 "%s is damaged; restore it from a copy, or give this broker "
                 "an empty directory and a new node.id",
                 path);
        return ERR_REFUSED;
    }
    if (out->node != node) {
        snprintf(why, why_size,
                 "the data directory %s belongs to node.id %d, but this broker "
                 "is configured as node.id %d; correct node.id or log.dirs",
                 dir, (int)out->node, (int)node);
        return ERR_REFUSED;
    }
    return ERR_OK;
}
