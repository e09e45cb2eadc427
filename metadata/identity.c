#include "metadata/identity.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/crc32c.h"
#include "base/log.h"
#include "base/mem.h"

#define FILE_NAME "meta.properties"
#define COPY_NAME "meta.properties.copy" /* read when the first is damaged */
#define FILE_MAX 8192

static const char *const state_names[] = {"empty", "forming", "formed"};

struct uuid identity_cluster_of(const struct identity_member *members, int n)
{
    /* Two FNV-1a sums with their own beginnings, mixed at the end: the random
     * ids of the directories make it unique, not the hash. */
    struct uuid id;
    for (int half = 0; half < 2; half++) {
        uint64_t h = half == 0 ? 0xcbf29ce484222325u : 0x9e3779b97f4a7c15u;
        for (int i = 0; i < n; i++) {
            uint8_t bytes[20];
            for (int k = 0; k < 4; k++) {
                bytes[k] = (uint8_t)((uint32_t)members[i].node >> (24 - 8 * k));
            }
            memcpy(&bytes[4], members[i].directory.b, 16);
            for (size_t k = 0; k < sizeof bytes; k++) {
                h = (h ^ bytes[k]) * 0x100000001b3u;
            }
        }
        h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u;
        h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
        h ^= h >> 31;
        for (int k = 0; k < 8; k++) {
            id.b[8 * half + k] = (uint8_t)(h >> (56 - 8 * k));
        }
    }
    /* Tools take a text that begins with '-' for an option. */
    id.b[0] = (uint8_t)(id.b[0] >> 1) | 1;
    return id;
}

const struct identity_member *identity_member_find(
    const struct identity *identity, node_id node)
{
    for (int i = 0; i < identity->n_members; i++) {
        if (identity->members[i].node == node) {
            return &identity->members[i];
        }
    }
    return NULL;
}

/* The last line; of all bytes before it. */
#define CRC_KEY "crc32c="
#define CRC_LINE (sizeof CRC_KEY - 1 + 8 + 1)

/* ---- writing ------------------------------------------------------------- */
static void path_of(const char *dir, const char *name, char path[LIMIT_PATH])
{
    snprintf(path, LIMIT_PATH, "%s/%s", dir, name);
}

enum err identity_save(struct env *env, const char *dir,
                       const struct identity *identity)
{
    char text[FILE_MAX], path[LIMIT_PATH];
    char directory[UUID_TEXT_SIZE], cluster[UUID_TEXT_SIZE];
    uuid_format(&identity->directory, directory);
    uuid_format(&identity->cluster, cluster);
    int n = snprintf(text, sizeof text,
                     "# Written by flotilla. This directory is worthless to "
                     "any other node id.\n"
                     "version=1\nnode.id=%d\ndirectory.id=%s\nstate=%s\n",
                     identity->node, directory, state_names[identity->state]);
    if (identity->state != IDENTITY_EMPTY) {
        n += snprintf(text + n, sizeof text - (size_t)n, "cluster.id=%s\n",
                      cluster);
    }
    for (int i = 0; i < identity->n_members; i++) {
        const struct identity_member *m = &identity->members[i];
        uuid_format(&m->directory, directory);
        n += snprintf(text + n, sizeof text - (size_t)n, "member=%d %s %s\n",
                      m->node, directory, m->address);
    }
    n += snprintf(text + n, sizeof text - (size_t)n, "%s%08x\n", CRC_KEY,
                  crc32c(0, text, (size_t)n));
    path_of(dir, COPY_NAME, path);
    enum err e = env_file_write_whole(env, path, text, (size_t)n);
    if (e == ERR_OK) {
        path_of(dir, FILE_NAME, path);
        e = env_file_write_whole(env, path, text, (size_t)n);
    }
    return e;
}

/* ---- reading ------------------------------------------------------------- */
static bool read_node(const char *text, node_id *out)
{
    char *end;
    long v = strtol(text, &end, 10);
    if (end == text || *end != '\0' || v < 0 || v > INT32_MAX) {
        return false;
    }
    *out = (node_id)v;
    return true;
}

static bool read_member(char *text, struct identity *out)
{
    if (out->n_members == LIMIT_SEEDS) {
        return false;
    }
    struct identity_member *m = &out->members[out->n_members++];
    char *directory = strchr(text, ' ');
    char *address = directory == NULL ? NULL : strchr(directory + 1, ' ');
    if (address == NULL || strlen(address + 1) >= sizeof m->address) {
        return false;
    }
    *directory++ = '\0';
    *address++ = '\0';
    memcpy(m->address, address, strlen(address) + 1);
    return read_node(text, &m->node) && uuid_parse(directory, &m->directory);
}

static bool read_state(const char *text, struct identity *out)
{
    for (int i = 0; i < 3; i++) {
        if (strcmp(text, state_names[i]) == 0) {
            out->state = (enum identity_state)i;
            return true;
        }
    }
    return false;
}

/* One line; unknown keys are a fault: a newer version wrote them. */
static bool read_line(char *line, struct identity *out)
{
    if (line[0] == '\0' || line[0] == '#') {
        return true;
    }
    char *value = strchr(line, '=');
    if (value == NULL) {
        return false;
    }
    *value++ = '\0';
    if (strcmp(line, "version") == 0) {
        return strcmp(value, "1") == 0;
    }
    if (strcmp(line, "node.id") == 0) {
        return read_node(value, &out->node);
    }
    if (strcmp(line, "directory.id") == 0) {
        return uuid_parse(value, &out->directory);
    }
    if (strcmp(line, "cluster.id") == 0) {
        return uuid_parse(value, &out->cluster);
    }
    if (strcmp(line, "state") == 0) {
        return read_state(value, out);
    }
    if (strcmp(line, "crc32c") == 0) {
        return true; /* checked before */
    }
    if (strcmp(line, "member") == 0) {
        return read_member(value, out);
    }
    return false;
}

static bool is_whole(const struct identity *i)
{
    bool known = i->state != IDENTITY_EMPTY;
    return i->node >= 0 && !uuid_is_zero(&i->directory) &&
           uuid_is_zero(&i->cluster) == !known && (i->n_members > 0) == known;
}

static bool read_text(char *text, struct identity *out)
{
    memset(out, 0, sizeof *out);
    out->node = -1;
    while (text != NULL) {
        char *next = strchr(text, '\n');
        if (next != NULL) {
            *next++ = '\0';
        }
        if (!read_line(text, out)) {
            return false;
        }
        text = next;
    }
    return is_whole(out);
}

static enum err begin(struct env *env, const char *dir, node_id node,
                      const struct uuid *directory, struct identity *out)
{
    memset(out, 0, sizeof *out);
    out->node = node;
    if (directory != NULL) {
        out->directory = *directory;
    }
    while (uuid_is_zero(&out->directory)) {
        uint64_t r[2] = {env_random(env), env_random(env)};
        memcpy(out->directory.b, r, sizeof out->directory.b);
    }
    enum err e = env_dir_make(env, dir);
    return e != ERR_OK ? e : identity_save(env, dir, out);
}

static bool crc_fits(const char *text, size_t size)
{
    char line[CRC_LINE + 1];
    if (size < CRC_LINE) {
        return false;
    }
    snprintf(line, sizeof line, "%s%08x\n", CRC_KEY,
             crc32c(0, text, size - CRC_LINE));
    return memcmp(text + size - CRC_LINE, line, CRC_LINE) == 0;
}

static bool read_bytes(const uint8_t *bytes, size_t size, struct identity *out)
{
    char *text = mem_zalloc(size + 1);
    memcpy(text, bytes, size);
    bool fine = memchr(bytes, '\0', size) == NULL && crc_fits(text, size) &&
                read_text(text, out);
    mem_free(text);
    return fine;
}

/* Where both copies are damaged, at different bytes: of the bytes in which they
 * differ one each is right, and the checksum says which. */
#define DIFFER_MAX 12

static bool merge(const uint8_t *a, const uint8_t *b, size_t size,
                  struct identity *out)
{
    size_t at[DIFFER_MAX];
    unsigned n = 0;
    for (size_t i = 0; i < size; i++) {
        if (a[i] != b[i] && n == DIFFER_MAX) {
            return false;
        }
        if (a[i] != b[i]) {
            at[n++] = i;
        }
    }
    uint8_t *bytes = mem_alloc(size);
    bool fine = false;
    for (unsigned choice = 0; choice < 1U << n && !fine; choice++) {
        memcpy(bytes, a, size);
        for (unsigned k = 0; k < n; k++) {
            bytes[at[k]] = (choice >> k & 1) != 0 ? b[at[k]] : a[at[k]];
        }
        fine = read_bytes(bytes, size, out);
    }
    mem_free(bytes);
    return fine;
}

static enum err merge_files(struct env *env, const char *path, const char *copy,
                            struct identity *out)
{
    void *a = NULL, *b = NULL;
    size_t a_size = 0, b_size = 0;
    enum err e = env_file_read_whole(env, path, FILE_MAX, &a, &a_size);
    if (e == ERR_OK) {
        e = env_file_read_whole(env, copy, FILE_MAX, &b, &b_size);
    }
    if (e == ERR_OK &&
        (a_size != b_size || a_size == 0 || !merge(a, b, a_size, out))) {
        e = ERR_CORRUPT;
    }
    mem_free(a);
    mem_free(b);
    return e;
}

/* ERR_CORRUPT when it makes no sense. */
static enum err read_file(struct env *env, const char *path,
                          struct identity *out)
{
    void *data = NULL;
    size_t size = 0;
    enum err e = env_file_read_whole(env, path, FILE_MAX, &data, &size);
    if (e != ERR_OK) {
        return e == ERR_TOO_LARGE ? ERR_CORRUPT : e;
    }
    bool fine = read_bytes(data, size, out);
    mem_free(data);
    return fine ? ERR_OK : ERR_CORRUPT;
}

/* Of the two copies the first that is whole; the other one is mended. */
static enum err read_either(struct env *env, const char *dir,
                            struct identity *out)
{
    char path[LIMIT_PATH], copy[LIMIT_PATH];
    path_of(dir, FILE_NAME, path);
    path_of(dir, COPY_NAME, copy);
    struct identity other;
    enum err e = read_file(env, path, out);
    enum err e2 = read_file(env, copy, &other);
    if (e == ERR_OK && e2 != ERR_OK) {
        log_warn("metadata", "%s: %s; written again", copy, err_text(e2));
        return identity_save(env, dir, out);
    }
    if (e != ERR_OK && e2 == ERR_OK) {
        log_warn("metadata", "%s: %s; its copy is used", path, err_text(e));
        *out = other;
        return identity_save(env, dir, out);
    }
    if (e == ERR_CORRUPT && e2 == ERR_CORRUPT &&
        merge_files(env, path, copy, out) == ERR_OK) {
        log_warn("metadata",
                 "%s and its copy are damaged; made whole from "
                 "both",
                 path);
        return identity_save(env, dir, out);
    }
    return e;
}

enum err identity_load(struct env *env, const char *dir, node_id node,
                       const struct uuid *directory, struct identity *out,
                       char *why, size_t why_size)
{
    char path[LIMIT_PATH];
    path_of(dir, FILE_NAME, path);
    enum err e = read_either(env, dir, out);
    if (e == ERR_NOT_FOUND) {
        e = begin(env, dir, node, directory, out);
        if (e != ERR_OK) {
            snprintf(why, why_size, "cannot write %s: %s", path, err_text(e));
        }
        return e;
    }
    if (e == ERR_CORRUPT) {
        snprintf(why, why_size,
                 "%s and its copy make no sense: they are damaged at the same "
                 "place, or of a newer version; without them it is not known "
                 "whose votes this broker has given",
                 path);
        return e;
    }
    if (e != ERR_OK) {
        snprintf(why, why_size, "cannot read %s: %s", path, err_text(e));
        return e;
    }
    if (out->node != node) {
        snprintf(why, why_size,
                 "the data directory %s belongs to node id %d, not %d", dir,
                 out->node, node);
        return ERR_REFUSED;
    }
    return ERR_OK;
}
