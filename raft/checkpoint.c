#include "raft/checkpoint.h"

#include <stdio.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "raft/wal_format.h"

#define MAGIC 0x50434c46u /* "FLCP" */
#define VERSION 1
#define HEADER 40
#define GROUP_HEADER 72
#define UNPROVEN 0x80000000u /* in the bytes of the creation */

/* ---- bytes --------------------------------------------------------------- */
static size_t group_bytes_max(const struct checkpoint_group *g)
{
    return GROUP_HEADER + WAL_CREATE_BYTES_MAX + (size_t)g->config_size +
           g->blob_size;
}

static uint8_t *group_encode(const struct checkpoint_group *g, uint8_t *p)
{
    uint8_t *creation = p + GROUP_HEADER;
    uint32_t n = wal_create_encode(&g->creation, creation);
    memcpy(p, g->creation.id.topic.b, 16);
    le_put32(p + 16, (uint32_t)g->creation.id.partition);
    le_put32(p + 20, n | (g->unproven ? UNPROVEN : 0));
    le_put32(p + 24, g->config_size);
    le_put32(p + 28, g->blob_size);
    le_put64(p + 32, g->settled.v);
    le_put64(p + 40, g->settled_term.v);
    le_put64(p + 48, g->config_index.v);
    le_put64(p + 56, g->term.v);
    le_put64(p + 64, g->vote);
    p = creation + n;
    if (g->config_size > 0) {
        memcpy(p, g->config, g->config_size);
    }
    p += g->config_size;
    if (g->blob_size > 0) {
        memcpy(p, g->blob, g->blob_size);
    }
    return p + g->blob_size;
}

bool checkpoint_has_unproven(const struct checkpoint *checkpoint)
{
    for (uint32_t i = 0; i < checkpoint->n_groups; i++)
        if (checkpoint->groups[i].unproven)
            return true;
    return false;
}

void *checkpoint_encode(const struct checkpoint *checkpoint, size_t *size)
{
    size_t most = HEADER + 4;
    for (uint32_t k = 0; k < checkpoint->n_groups; k++) {
        most += group_bytes_max(&checkpoint->groups[k]);
    }
    uint8_t *out = mem_alloc(most), *p = out + HEADER;
    le_put32(out, MAGIC);
    le_put16(out + 4, VERSION);
    le_put16(out + 6, 0);
    le_put64(out + 8, checkpoint->seq);
    le_put64(out + 16, checkpoint->log_id);
    le_put64(out + 24, checkpoint->position);
    le_put32(out + 32, checkpoint->n_groups);
    le_put32(out + 36, 0);
    for (uint32_t k = 0; k < checkpoint->n_groups; k++) {
        p = group_encode(&checkpoint->groups[k], p);
    }
    le_put32(p, crc32c(0, out, (size_t)(p - out)));
    *size = (size_t)(p - out) + 4;
    ASSERT(*size <= most);
    return out;
}

/* Gives the bytes used, 0 when they are no group. */
static size_t group_decode(const uint8_t *p, size_t size,
                           struct checkpoint_group *g)
{
    if (size < GROUP_HEADER) {
        return 0;
    }
    uint64_t n_creation = le_get32(p + 20) & ~UNPROVEN;
    g->unproven = (le_get32(p + 20) & UNPROVEN) != 0;
    g->config_size = le_get32(p + 24);
    g->blob_size = le_get32(p + 28);
    uint64_t length = GROUP_HEADER + n_creation + g->config_size + g->blob_size;
    if (length > size) {
        return 0;
    }
    memcpy(g->creation.id.topic.b, p, 16);
    g->creation.id.partition = (int32_t)le_get32(p + 16);
    g->settled.v = le_get64(p + 32);
    g->settled_term.v = le_get64(p + 40);
    g->config_index.v = le_get64(p + 48);
    g->term.v = le_get64(p + 56);
    g->vote = le_get64(p + 64);
    p += GROUP_HEADER;
    if (!wal_create_decode(p, (uint32_t)n_creation, &g->creation)) {
        return 0;
    }
    g->config = p + n_creation;
    g->blob = g->config + g->config_size;
    return (size_t)length;
}

enum err checkpoint_decode(void *bytes, size_t size, struct checkpoint *out)
{
    const uint8_t *p = bytes;
    if (size < HEADER + 4 || le_get32(p) != MAGIC ||
        crc32c(0, p, size - 4) != le_get32(p + size - 4)) {
        return ERR_CORRUPT;
    }
    if (le_get16(p + 4) != VERSION) {
        return ERR_UNSUPPORTED;
    }
    struct checkpoint c = {.seq = le_get64(p + 8),
                           .log_id = le_get64(p + 16),
                           .position = le_get64(p + 24),
                           .n_groups = le_get32(p + 32)};
    size_t at = HEADER, end = size - 4;
    if (c.n_groups > (end - at) / GROUP_HEADER) {
        return ERR_CORRUPT;
    }
    c.groups = mem_zalloc(c.n_groups * sizeof *c.groups);
    for (uint32_t k = 0; k < c.n_groups; k++) {
        size_t used = group_decode(p + at, end - at, &c.groups[k]);
        if (used == 0) {
            mem_free(c.groups);
            return ERR_CORRUPT;
        }
        at += used;
    }
    if (at != end) {
        mem_free(c.groups);
        return ERR_CORRUPT;
    }
    c.bytes = bytes;
    *out = c;
    return ERR_OK;
}

void checkpoint_free(struct checkpoint *checkpoint)
{
    mem_free(checkpoint->groups);
    mem_free(checkpoint->bytes);
    memset(checkpoint, 0, sizeof *checkpoint);
}

const struct checkpoint_group *checkpoint_find(
    const struct checkpoint *checkpoint, const struct group_id *id)
{
    for (uint32_t k = 0; k < checkpoint->n_groups; k++) {
        if (memcmp(&checkpoint->groups[k].creation.id, id, sizeof *id) == 0) {
            return &checkpoint->groups[k];
        }
    }
    return NULL;
}

/* ---- files --------------------------------------------------------------- */
#define SEQS_MAX 64

/* Sequence numbers of the files found, the highest ones. */
struct seqs {
    uint64_t v[SEQS_MAX]; /* falling */
    int n;
};

static void checkpoint_path(const char *dir, uint64_t seq, char out[LIMIT_PATH])
{
    snprintf(out, LIMIT_PATH, "%s/checkpoint-%020llu", dir,
             (unsigned long long)seq);
}

static bool name_seq(const char *name, uint64_t *seq)
{
    static const char prefix[] = "checkpoint-";
    size_t n = sizeof prefix - 1;
    if (strncmp(name, prefix, n) != 0 || strlen(name) != n + 20) {
        return false;
    }
    *seq = 0;
    for (const char *c = name + n; *c != '\0'; c++) {
        if (*c < '0' || *c > '9') {
            return false;
        }
        *seq = *seq * 10 + (uint64_t)(*c - '0');
    }
    return true;
}

static void note_name(void *arg, const char *name)
{
    struct seqs *seqs = arg;
    uint64_t seq;
    if (!name_seq(name, &seq)) {
        return;
    }
    int at = seqs->n < SEQS_MAX ? seqs->n++ : SEQS_MAX - 1;
    for (; at > 0 && seqs->v[at - 1] < seq; at--) {
        seqs->v[at] = seqs->v[at - 1];
    }
    if (at < seqs->n) {
        seqs->v[at] = seq;
    }
}

enum err checkpoint_save(struct env *env, const char *dir, uint64_t seq,
                         const void *bytes, size_t size)
{
    char path[LIMIT_PATH];
    struct seqs seqs = {.n = 0};
    checkpoint_path(dir, seq, path);
    enum err e = env_file_write_whole(env, path, bytes, size);
    if (e == ERR_OK) {
        e = env_dir_list(env, dir, note_name, &seqs);
    }
    for (int k = 0; k < seqs.n && e == ERR_OK; k++) {
        if (seqs.v[k] + 1 < seq) {
            checkpoint_path(dir, seqs.v[k], path);
            e = env_file_unlink(env, path);
        }
    }
    return e;
}

static enum err load_one(struct env *env, const char *dir, uint64_t seq,
                         struct checkpoint *out)
{
    char path[LIMIT_PATH];
    void *bytes = NULL;
    size_t size = 0;
    checkpoint_path(dir, seq, path);
    enum err e =
        env_file_read_whole(env, path, LIMIT_CHECKPOINT_BYTES, &bytes, &size);
    if (e != ERR_OK) {
        log_error("wal", "cannot read %s: %s", path, err_text(e));
        return e == ERR_TOO_LARGE ? ERR_CORRUPT : e;
    }
    e = checkpoint_decode(bytes, size, out);
    if (e == ERR_OK && out->seq != seq) {
        checkpoint_free(out);
        log_error("wal", "damaged: %s names another number", path);
        return ERR_CORRUPT;
    }
    if (e != ERR_OK) {
        mem_free(bytes);
        log_error(
            "wal", "%s: %s", path,
            e == ERR_UNSUPPORTED ? "written by a newer version" : "damaged");
    }
    return e;
}

enum err checkpoint_load(struct env *env, const char *dir,
                         struct checkpoint *out)
{
    struct seqs seqs = {.n = 0};
    enum err e = env_dir_list(env, dir, note_name, &seqs);
    if (e != ERR_OK) {
        return e;
    }
    e = ERR_NOT_FOUND;
    bool lost = false;
    for (int k = 0; k < seqs.n; k++) {
        e = load_one(env, dir, seqs.v[k], out);
        if (e != ERR_CORRUPT) {
            break;
        }
        lost = true;
    }
    out->newest_seq = seqs.n > 0 ? seqs.v[0] : 0;
    out->newest_lost = lost;
    if (e == ERR_OK) {
        /* Its name may not be durable yet if only the process died. */
        e = env_dir_sync(env, dir);
        if (e != ERR_OK) {
            checkpoint_free(out);
        }
    }
    return e;
}
