/* A group of one replica for tests of partition/: raft/group.h as the state
 * machine sees it, with a log file and a checkpoint of its own, and handles to
 * lose leadership, truncate, refuse, settle and evict when the test wants it.
 * Included by one test program; its symbols take the place of the real
 * host's. */
#ifndef TESTS_FAKE_GROUP_H
#define TESTS_FAKE_GROUP_H

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/buffer.h"
#include "base/crc32c.h"
#include "base/limits.h"
#include "base/mem.h"
#include "raft/catchup.h"
#include "raft/group.h"

#define FAKE_ENTRIES 100000

struct fake_entry {
    struct group_entry entry;
    uint8_t *bytes; /* NULL: evicted */
};

struct group {
    struct raft_host *host;
    struct group_creation creation;
    const struct group_ops *ops;
    void *sm;
    struct fake_entry *entries; /* [index - 1] */
    log_index last, durable, written, commit, settled, evicted;
    raft_term_t settled_term, settle_term; /* of the job */
    struct group_role role;
    struct settle_job job;
    struct env_work settle_work;
    bool settling, deleting;
};

struct raft_host {
    struct env *env;
    char dir[LIMIT_PATH];
    struct group *group;
    bool busy;        /* propose answers ERR_BUSY */
    bool hold_commit; /* durable, but not committed */
    bool hold_flush;  /* not even durable */
    int n_reachable;
    bool deposed;           /* a majority follows another leader already */
    enum err settle_status; /* what the next settle's run gives, if not OK */
    struct group_room_wait *room;
    struct env_deferred flush;
    struct env_work write;
    bool writing;
    struct buffer pending, in_flight;
    uint64_t wal_size;
    log_index in_flight_upto;
    struct group_read *reads;
    struct env_deferred read_turn;
    uint32_t settled_jobs;
    bool hold_settled; /* the state machine is not told yet that it settled */
};

/* ---- log file ------------------------------------------------------------ */
struct fake_record {
    uint64_t index, term; /* type 0: truncation from index on */
    uint32_t type, size, crc, unused;
};

/* Fills the last block of a write, as no block that holds durable bytes may be
 * written again: a crash may leave anything in it. */
#define FAKE_PADDING UINT32_MAX

static void fake_pad(struct buffer *b)
{
    size_t rest = b->size % ENV_BLOCK_SIZE;
    size_t pad = rest == 0 ? 0 : ENV_BLOCK_SIZE - rest;
    struct fake_record r = {.type = FAKE_PADDING};
    if (pad == 0) {
        return;
    }
    if (pad < sizeof r) {
        pad += ENV_BLOCK_SIZE;
    }
    uint8_t *zeros = mem_zalloc(pad);
    r.size = (uint32_t)(pad - sizeof r);
    r.crc = crc32c(0, zeros, r.size);
    buffer_append(b, &r, sizeof r);
    buffer_append(b, zeros, r.size);
    mem_free(zeros);
}

static void fake_path(const struct raft_host *h, const char *name, char *path)
{
    ASSERT(snprintf(path, LIMIT_PATH, "%s/%s", h->dir, name) < LIMIT_PATH);
}

static void fake_flush_run(struct env_work *work)
{
    struct raft_host *h = work->arg;
    char path[LIMIT_PATH];
    struct env_file *file;
    struct iovec iov = {h->in_flight.data, h->in_flight.size};
    fake_path(h, "wal", path);
    ASSERT(env_file_open(h->env, path, ENV_FILE_WRITE | ENV_FILE_CREATE,
                         &file) == ERR_OK);
    ASSERT(env_file_pwritev(file, &iov, 1, h->wal_size, true) == ERR_OK);
    env_file_close(file);
}

static void fake_commit(struct group *g)
{
    while (g->commit.v < g->durable.v && !g->host->hold_commit &&
           g->role.is_leader) {
        g->commit.v++;
        struct group_entry e = g->entries[g->commit.v - 1].entry;
        g->ops->applied(g->sm, &e);
        if (e.type == ENTRY_NOOP && e.term.v == g->role.term.v) {
            g->role.ready = true;
            g->role.noop = e.index;
            g->ops->role_changed(g->sm, &g->role);
        }
    }
}

static void fake_flush_done(struct env_work *work)
{
    struct raft_host *h = work->arg;
    struct group *g = h->group;
    h->wal_size += h->in_flight.size;
    buffer_clear(&h->in_flight);
    h->writing = false;
    if (g == NULL) {
        return;
    }
    if (h->in_flight_upto.v > g->durable.v &&
        h->in_flight_upto.v <= g->last.v) {
        g->durable = h->in_flight_upto;
        g->ops->durable(g->sm, g->durable);
    }
    fake_commit(g);
    if (h->pending.size > 0) {
        env_defer(h->env, &h->flush);
    }
}

static void fake_flush(struct env_deferred *d)
{
    struct raft_host *h = d->arg;
    if (h->writing || h->hold_flush || h->pending.size == 0) {
        return;
    }
    struct buffer b = h->in_flight;
    h->in_flight = h->pending;
    h->pending = b;
    h->in_flight_upto = h->group->last;
    fake_pad(&h->in_flight);
    h->writing = true;
    h->write.run = fake_flush_run;
    h->write.done = fake_flush_done;
    h->write.arg = h;
    env_work_submit(h->env, ENV_POOL_LOG, &h->write);
}

static void fake_log(struct raft_host *h, const struct group_entry *e)
{
    struct fake_record r = {e->index.v, e->term.v, (uint32_t)e->type,
                            e->size,    e->crc,    0};
    buffer_append(&h->pending, &r, sizeof r);
    buffer_append(&h->pending, e->payload, e->size);
    env_defer(h->env, &h->flush);
}

/* ---- entries ------------------------------------------------------------- */
static log_index fake_append(struct group *g, raft_term_t term,
                             enum entry_type type, const struct iovec *iov,
                             int n, bool log)
{
    struct fake_entry *f = &g->entries[g->last.v];
    uint32_t size = 0;
    ASSERT(g->last.v < FAKE_ENTRIES);
    for (int i = 0; i < n; i++) {
        size += (uint32_t)iov[i].iov_len;
    }
    f->bytes = mem_alloc(size);
    size = 0;
    for (int i = 0; i < n; i++) {
        memcpy(f->bytes + size, iov[i].iov_base, iov[i].iov_len);
        size += (uint32_t)iov[i].iov_len;
    }
    g->last.v++;
    f->entry = (struct group_entry){.index = g->last,
                                    .term = term,
                                    .type = type,
                                    .payload = f->bytes,
                                    .size = size,
                                    .crc = crc32c(0, f->bytes, size)};
    if (log) {
        fake_log(g->host, &f->entry);
    }
    g->ops->appended(g->sm, &f->entry);
    return g->last;
}

/* Leadership of a new term, with its no-op; or a follower. */
static void fake_lead(struct raft_host *h, bool leader)
{
    struct group *g = h->group;
    g->role.term.v++;
    g->role.is_leader = leader;
    g->role.ready = false;
    g->role.leader = leader ? 1 : 2;
    g->ops->role_changed(g->sm, &g->role);
    if (leader) {
        (void)fake_append(g, g->role.term, ENTRY_NOOP, NULL, 0, true);
    }
}

/* Another leader's log begins at `first`: ours from there on is gone. */
static inline void fake_truncate(struct raft_host *h, log_index first)
{
    struct group *g = h->group;
    struct fake_record r = {first.v, 0, 0, 0, 0, 0};
    ASSERT(first.v > g->commit.v);
    buffer_append(&h->pending, &r, sizeof r);
    for (; g->last.v >= first.v; g->last.v--) {
        mem_free(g->entries[g->last.v - 1].bytes);
        g->entries[g->last.v - 1].bytes = NULL;
    }
    if (g->durable.v > g->last.v) {
        g->durable = g->last;
    }
    g->ops->truncated(g->sm, first);
    env_defer(h->env, &h->flush);
}

static inline void fake_release(struct raft_host *h)
{
    h->hold_commit = h->hold_flush = false;
    env_defer(h->env, &h->flush);
    fake_commit(h->group);
}

static inline void fake_give_room(struct raft_host *h)
{
    struct group_room_wait *list = h->room;
    h->busy = false;
    h->room = NULL;
    while (list != NULL) {
        struct group_room_wait *wait = list;
        list = wait->next;
        wait->queued = false;
        wait->room(wait);
    }
}

/* ---- settling ------------------------------------------------------------ */
static void fake_settle_run(struct env_work *work)
{
    struct raft_host *h = work->arg;
    struct group *g = h->group;
    struct settle_job *job = &g->job;
    struct buffer b = {0};
    uint64_t head[3] = {job->upto.v, 0, g->settle_term.v};
    char path[LIMIT_PATH];
    job->scratch = mem_alloc_aligned(ENV_BLOCK_SIZE, SETTLE_SCRATCH);
    job->status = job->run(job);
    mem_free_aligned(job->scratch);
    if (job->status == ERR_OK && h->settle_status != ERR_OK) {
        job->status = h->settle_status;
    }
    if (job->status != ERR_OK) {
        return;
    }
    for (int i = 0; i < job->n_files; i++) {
        ASSERT(env_file_sync(job->files[i]) == ERR_OK);
    }
    for (int i = 0; i < job->n_dirs; i++) {
        ASSERT(env_dir_sync(h->env, job->dirs[i]) == ERR_OK);
    }
    head[1] = job->blob_size;
    buffer_append(&b, head, sizeof head);
    buffer_append(&b, job->blob, job->blob_size);
    fake_path(h, "checkpoint", path);
    ASSERT(env_file_write_whole(h->env, path, b.data, b.size) == ERR_OK);
    buffer_free(&b);
}

static void fake_settle_done(struct env_work *work)
{
    struct raft_host *h = work->arg;
    struct group *g = h->group;
    if (h->hold_settled) {
        return; /* the test calls this again */
    }
    g->settling = false;
    if (g->job.status == ERR_OK) {
        g->settled = g->job.upto;
        g->settled_term = g->settle_term;
    }
    h->settled_jobs++;
    h->settle_status = ERR_OK;
    g->ops->settled(g->sm, &g->job);
}

static raft_term_t fake_term_at(const struct group *g, log_index index)
{
    return index.v > g->settled.v ? g->entries[index.v - 1].entry.term
                                  : g->settled_term;
}

static bool fake_settle(struct raft_host *h)
{
    struct group *g = h->group;
    if (g->settling) {
        return false;
    }
    memset(&g->job, 0, sizeof g->job);
    g->job.upto = g->commit;
    if (!g->ops->settle_begin(g->sm, &g->job)) {
        return false;
    }
    g->settling = true;
    g->settle_term = fake_term_at(g, g->job.upto);
    g->settle_work.run = fake_settle_run;
    g->settle_work.done = fake_settle_done;
    g->settle_work.arg = h;
    env_work_submit(h->env, ENV_POOL_IO, &g->settle_work);
    return true;
}

static void fake_evict(struct raft_host *h, log_index upto)
{
    struct group *g = h->group;
    if (upto.v > g->settled.v) {
        upto = g->settled;
    }
    if (upto.v <= g->evicted.v) {
        return;
    }
    for (; g->evicted.v < upto.v; g->evicted.v++) {
        mem_free(g->entries[g->evicted.v].bytes);
        g->entries[g->evicted.v].bytes = NULL;
    }
    g->ops->evicted(g->sm, upto);
}

/* ---- raft/group.h -------------------------------------------------------- */
enum err raft_host_new(const struct raft_host_options *options,
                       struct raft_host **out)
{
    struct raft_host *h = mem_zalloc(sizeof *h);
    h->env = options->env;
    snprintf(h->dir, sizeof h->dir, "%s", options->dir);
    h->flush.cb = fake_flush;
    h->flush.arg = h;
    h->n_reachable = 1;
    *out = h;
    return env_dir_make(h->env, h->dir);
}

static struct group *fake_new(struct raft_host *h,
                              const struct group_creation *creation,
                              const struct group_ops *ops, void *sm)
{
    struct group *g = mem_zalloc(sizeof *g);
    g->host = h;
    g->creation = *creation;
    g->ops = ops;
    g->sm = sm;
    g->entries = mem_zalloc(FAKE_ENTRIES * sizeof *g->entries);
    g->role.leader = -1;
    g->last.v = g->durable.v = g->commit.v = g->settled.v = g->evicted.v = 1;
    h->group = g;
    return g;
}

enum err raft_host_create(struct raft_host *h,
                          const struct group_creation *creation,
                          const struct group_ops *ops, void *sm,
                          struct group **out)
{
    void *data;
    size_t size;
    char path[LIMIT_PATH];
    fake_path(h, "wal", path);
    if (env_file_read_whole(h->env, path, (size_t)1 << 30, &data, &size) ==
        ERR_OK) {
        mem_free(data);
        return ERR_EXISTS;
    }
    ASSERT(env_file_write_whole(h->env, path, "", 0) == ERR_OK);
    struct group *g = fake_new(h, creation, ops, sm);
    enum err status = ops->restore(sm, g->settled, (raft_term_t){0}, NULL, 0);
    *out = g;
    return status;
}

/* The end of what is whole: a write that a crash tore was the last one, and
 * nobody was told of it. */
static size_t fake_whole(const uint8_t *data, size_t size)
{
    struct fake_record r;
    size_t at = 0;
    size_t whole = 0;
    while (at + sizeof r <= size) {
        memcpy(&r, data + at, sizeof r);
        if ((r.index == 0 && r.type != FAKE_PADDING) ||
            r.size > size - at - sizeof r ||
            (r.type != 0 && crc32c(0, data + at + sizeof r, r.size) != r.crc)) {
            break;
        }
        at += sizeof r + r.size;
        if (at % ENV_BLOCK_SIZE == 0) {
            whole = at; /* writes are whole blocks */
        }
    }
    return whole;
}

static void fake_recover(struct group *g, const uint8_t *data, size_t size)
{
    struct fake_record r;
    for (size_t at = 0; at < size; at += r.size) {
        memcpy(&r, data + at, sizeof r);
        at += sizeof r;
        if (r.type == FAKE_PADDING) {
            continue;
        }
        if (r.type == 0) {
            if (r.index <= g->last.v) {
                g->last.v = r.index - 1;
                g->ops->truncated(g->sm, (log_index){r.index});
            }
            continue;
        }
        if (r.term > g->role.term.v) {
            g->role.term.v = r.term;
        }
        if (r.index <= g->settled.v) {
            continue;
        }
        ASSERT(r.index == g->last.v + 1);
        ASSERT(crc32c(0, data + at, r.size) == r.crc);
        struct iovec iov = {(void *)(uintptr_t)(data + at), r.size};
        (void)fake_append(g, (raft_term_t){r.term}, (enum entry_type)r.type,
                          &iov, 1, false);
    }
    g->durable = g->last;
}

enum err raft_host_open(struct raft_host *h, const struct group_id *id,
                        const struct group_ops *ops, void *sm,
                        struct group **out)
{
    struct group_creation creation = {.id = *id};
    struct group *g = fake_new(h, &creation, ops, sm);
    void *data;
    size_t size;
    char path[LIMIT_PATH];
    uint64_t head[3] = {1, 0, 0};
    const uint8_t *blob = NULL;
    fake_path(h, "checkpoint", path);
    enum err status =
        env_file_read_whole(h->env, path, (size_t)1 << 20, &data, &size);
    if (status == ERR_OK) {
        memcpy(head, data, sizeof head);
        blob = (const uint8_t *)data + sizeof head;
        g->last.v = g->durable.v = g->commit.v = g->settled.v = g->evicted.v =
            head[0];
        g->role.term.v = g->settled_term.v = head[2];
    }
    enum err restored =
        ops->restore(sm, g->settled, g->settled_term, blob, (uint32_t)head[1]);
    if (status == ERR_OK) {
        mem_free(data);
    }
    if (restored != ERR_OK) {
        return restored;
    }
    fake_path(h, "wal", path);
    ASSERT(env_file_read_whole(h->env, path, (size_t)1 << 30, &data, &size) ==
           ERR_OK);
    h->wal_size = fake_whole(data, size);
    /* what was read may be in the page cache only */
    struct env_file *file;
    ASSERT(env_file_open(h->env, path, ENV_FILE_WRITE, &file) == ERR_OK);
    ASSERT(h->wal_size == size ||
           env_file_truncate(file, h->wal_size) == ERR_OK);
    ASSERT(env_file_sync(file) == ERR_OK);
    env_file_close(file);
    fake_recover(g, data, h->wal_size);
    mem_free(data);
    *out = g;
    return ERR_OK;
}

bool group_entry_at(const struct group *g, log_index index,
                    struct group_entry *out)
{
    if (index.v == 0 || index.v > g->last.v ||
        (g->entries[index.v - 1].bytes == NULL &&
         g->entries[index.v - 1].entry.size > 0)) {
        return false;
    }
    *out = g->entries[index.v - 1].entry;
    return true;
}

enum err raft_host_delete(struct raft_host *h, struct group *g)
{
    h->group = NULL;
    g->ops->closed(g->sm);
    return ERR_OK;
}

void raft_host_on_room(struct raft_host *h, struct group_room_wait *wait)
{
    ASSERT(!wait->queued);
    wait->queued = true;
    wait->next = h->room;
    h->room = wait;
}

enum err group_propose(struct group *g, enum entry_type type,
                       const struct iovec *payload, int n, log_index *out)
{
    if (!g->role.is_leader) {
        return ERR_NOT_LEADER;
    }
    if (!g->role.ready) {
        return ERR_NOT_READY;
    }
    if (g->host->busy) {
        return ERR_BUSY;
    }
    *out = fake_append(g, g->role.term, type, payload, n, true);
    return ERR_OK;
}

static void fake_read_turn(struct env_deferred *d)
{
    struct raft_host *h = d->arg;
    while (h->reads != NULL) {
        struct group_read *read = h->reads;
        h->reads = read->next;
        bool leads =
            h->group != NULL && h->group->role.is_leader && !h->deposed;
        read->cb(read, leads ? ERR_OK : ERR_NOT_LEADER);
    }
}

void group_read_barrier(struct group *g, struct group_read *read)
{
    struct raft_host *h = g->host;
    read->next = h->reads;
    h->reads = read;
    h->read_turn.cb = fake_read_turn;
    h->read_turn.arg = h;
    env_defer(h->env, &h->read_turn);
}

struct group_role group_role(const struct group *g)
{
    return g->role;
}

log_index group_durable_index(const struct group *g)
{
    return g->durable;
}

int group_replicas(const struct group *g,
                   struct group_replica_state out[GROUP_REPLICAS_MAX])
{
    for (int i = 0; i < 3; i++) {
        out[i] = (struct group_replica_state){
            .id = (replica_id)i + 1,
            .node = i + 1,
            .reachable = i < g->host->n_reachable,
        };
    }
    return 3;
}

bool group_fetch(struct group *group, struct group_fetch *fetch)
{
    (void)group, (void)fetch;
    return false; /* it is alone */
}

void group_fetch_cancel(struct group_fetch *fetch)
{
    (void)fetch;
}

#endif
