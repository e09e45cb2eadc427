#include "raft/reshard.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "raft/checkpoint.h"
#include "raft/wal.h"

/* A new log makes its files in the background: if there is no room after so
 * many milliseconds, there is none. */
#define ROOM_WAIT_MS 10000

struct reshard;

/* One old shard. */
struct source {
    struct reshard *job;
    struct wal *wal;
    struct checkpoint checkpoint;
    bool has_checkpoint;
    struct wal_recovered_group *groups;
    size_t n_groups;
};

/* One group on its way. What it points into belongs to its source. */
struct moving {
    struct group_id id;
    bool deleted;
    struct checkpoint_group state;         /* for the new checkpoint */
    const struct wal_recovered_group *log; /* NULL: no records */
    UT_hash_handle hh;                     /* by id */
};

struct reshard {
    struct env *env;
    struct reshard_options options;
    char **names; /* of the old directories, then of the new ones */
    struct source *sources;
    struct moving *groups; /* in the order of the old logs */
    size_t n_groups;
    struct moving *by_id;
    void (*done)(void *arg, enum err status);
    void *arg;

    enum err status;
    unsigned n_closed; /* old logs */
    unsigned to;       /* the new shard being written */
    size_t group;      /* of groups, the one being logged */
    uint64_t entry;    /* of its entries, the next one */
    struct wal *wal;   /* of `to` */
    bool all_logged;
    struct env_timer patience;
};

static void next_shard(struct reshard *job);
static void close_sources(struct reshard *job);

/* ---- what both kinds of log ask ------------------------------------------ */
static void say_group(struct wal *wal, const struct moving *m)
{
    if (m->deleted) {
        wal_append_delete(wal, &m->id);
        return;
    }
    const struct checkpoint_group *s = &m->state;
    wal_append_create(wal, &s->creation);
    wal_append_term(wal, &m->id, s->term, s->vote);
    if (s->config_size > 0) {
        wal_append_config(wal, &m->id, s->config_index, s->settled_term,
                          s->config, s->config_size);
    }
}

static bool belongs(const struct reshard *job, const struct moving *m)
{
    return group_id_shard(&m->id, job->options.n_to) == job->to;
}

static void on_wants_settled(void *arg, const struct group_id *group,
                             log_index upto)
{
    (void)arg, (void)group, (void)upto; /* nothing settles here */
}

static bool on_evict(void *arg, const struct group_id *group, log_index upto)
{
    (void)arg, (void)group, (void)upto;
    return false;
}

static void ignore(void *arg)
{
    (void)arg;
}

static void ignore_durable(void *arg, uint64_t position)
{
    (void)arg, (void)position;
}

/* ---- reading the old logs ------------------------------------------------ */
static log_index settled_of(void *arg, const struct group_id *id,
                            replica_id *self)
{
    const struct source *from = arg;
    const struct checkpoint_group *c =
        from->has_checkpoint ? checkpoint_find(&from->checkpoint, id) : NULL;
    if (c == NULL) {
        return (log_index){0};
    }
    *self = c->creation.self;
    return c->settled;
}

/* Old logs are only read; should one begin a file all the same (its end is
 * attested again when it closes), that file says what every file says. */
static void source_file_begins(void *arg)
{
    const struct source *from = arg;
    for (size_t i = 0; i < from->job->n_groups; i++) {
        const struct moving *m = &from->job->groups[i];
        if (group_id_shard(&m->id, from->job->options.n_from) ==
            (unsigned)(from - from->job->sources)) {
            say_group(from->wal, m);
        }
    }
}

static const struct wal_ops source_ops = {
    .durable = ignore_durable,
    .file_begins = source_file_begins,
    .wants_settled = on_wants_settled,
    .evict = on_evict,
    .room = ignore,
};

static struct wal_options log_options(const struct reshard *job,
                                      const char *dir)
{
    return (struct wal_options){
        .env = job->env,
        .dir = dir,
        .file_bytes = job->options.wal_file_bytes,
        .bytes_max = job->options.wal_bytes_max,
        .buffer_bytes_max = job->options.log_buffer_bytes,
    };
}

static enum err source_open(struct source *from, const char *dir)
{
    struct wal_options options = log_options(from->job, dir);
    options.must_exist = true;
    enum err e = checkpoint_load(from->job->env, dir, &from->checkpoint);
    from->has_checkpoint = e == ERR_OK;
    if (e != ERR_OK && e != ERR_NOT_FOUND) {
        return e;
    }
    if (from->has_checkpoint) {
        options.expect.log_id = from->checkpoint.log_id;
        options.expect.checkpoint_seq = from->checkpoint.seq;
        options.expect.position = from->checkpoint.position;
        options.expect.unproven = checkpoint_has_unproven(&from->checkpoint);
    }
    e = wal_open(&options, &source_ops, from, settled_of, &from->wal);
    if (e == ERR_OK) {
        from->groups = wal_recovered(from->wal, &from->n_groups);
    }
    return e;
}

static struct moving *find_moving(const struct reshard *job,
                                  const struct group_id *id)
{
    struct moving *found = NULL;
    HASH_FIND(hh, job->by_id, id, sizeof *id, found);
    return found;
}

static struct moving *add_moving(struct reshard *job, const struct group_id *id)
{
    struct moving *m = &job->groups[job->n_groups++];
    m->id = *id;
    HASH_ADD(hh, job->by_id, id, sizeof m->id, m);
    return m;
}

/* As at any start: the log's word counts where it has one, the checkpoint's
 * for what is settled, unless that is of an earlier replica. */
static enum err move_logged(struct reshard *job, const struct source *from,
                            const struct wal_recovered_group *w)
{
    if (find_moving(job, &w->id) != NULL) {
        log_error("raft", "the logs of two shards know the same group");
        return ERR_CORRUPT;
    }
    struct moving *m = add_moving(job, &w->id);
    m->deleted = w->deleted;
    m->log = w;
    if (w->deleted) {
        return ERR_OK;
    }
    const struct checkpoint_group *c =
        from->has_checkpoint ? checkpoint_find(&from->checkpoint, &w->id)
                             : NULL;
    if (c == NULL && !w->created) {
        log_error("raft", "a group without a record of its creation");
        return ERR_CORRUPT;
    }
    if (c != NULL && w->created && c->creation.self != w->creation.self) {
        c = NULL;
    }
    m->state = c != NULL
                   ? *c
                   : (struct checkpoint_group){
                         .settled = {1}, .settled_term = {1}, .term = {1}};
    if (w->created) {
        m->state.creation = w->creation;
    }
    if (m->state.settled.v <= 1) {
        m->state.settled.v = 1;
        m->state.settled_term.v = 1;
    }
    /* Part of its log is lost: it must not vote in its new place either. */
    m->state.unproven = m->state.unproven || w->lost_index > 0;
    if (w->term.v >= m->state.term.v) {
        m->state.term = w->term;
        m->state.vote = w->vote;
    }
    return ERR_OK;
}

static enum err gather(struct reshard *job)
{
    size_t n = 0;
    for (unsigned i = 0; i < job->options.n_from; i++) {
        const struct source *from = &job->sources[i];
        n += from->n_groups +
             (from->has_checkpoint ? from->checkpoint.n_groups : 0);
    }
    job->groups = mem_zalloc((n + 1) * sizeof *job->groups);
    for (unsigned i = 0; i < job->options.n_from; i++) {
        const struct source *from = &job->sources[i];
        for (size_t k = 0; k < from->n_groups; k++) {
            enum err e = move_logged(job, from, &from->groups[k]);
            if (e != ERR_OK) {
                return e;
            }
        }
        for (uint32_t k = 0;
             from->has_checkpoint && k < from->checkpoint.n_groups; k++) {
            const struct checkpoint_group *c = &from->checkpoint.groups[k];
            if (find_moving(job, &c->creation.id) == NULL) {
                add_moving(job, &c->creation.id)->state = *c;
            }
        }
    }
    return ERR_OK;
}

/* ---- writing a new one --------------------------------------------------- */
static void fail(struct reshard *job, enum err e)
{
    job->status = e;
    close_sources(job);
}

static void new_closed(void *arg)
{
    struct reshard *job = arg;
    job->wal = NULL;
    if (job->status != ERR_OK) {
        close_sources(job);
        return;
    }
    job->to++;
    next_shard(job);
}

static void log_entries(struct reshard *job)
{
    for (; job->group < job->n_groups; job->group++, job->entry = 0) {
        const struct moving *m = &job->groups[job->group];
        if (!belongs(job, m) || m->deleted || m->log == NULL) {
            continue;
        }
        for (; job->entry < m->log->n_entries; job->entry++) {
            const struct wal_recovered_entry *e = &m->log->entries[job->entry];
            struct iovec iov = {(void *)(uintptr_t)e->place.payload,
                                e->place.size};
            if (!wal_reserve(job->wal, e->place.size, 1)) {
                if (!env_timer_running(&job->patience)) {
                    env_timer_start(&job->patience, ROOM_WAIT_MS);
                }
                return;
            }
            wal_append_entry(job->wal, &m->id, e->index, e->term, e->type, &iov,
                             1, NULL);
        }
    }
    env_timer_stop(&job->patience);
    job->all_logged = true;
    wal_flush(job->wal);
}

static void close_when_durable(struct reshard *job)
{
    if (job->all_logged &&
        wal_durable_position(job->wal) >= wal_position(job->wal)) {
        job->all_logged = false;
        wal_close(job->wal, new_closed, job);
    }
}

static void on_durable(void *arg, uint64_t position)
{
    (void)position;
    close_when_durable(arg);
}

static void on_file_begins(void *arg)
{
    struct reshard *job = arg;
    for (size_t i = 0; i < job->n_groups; i++) {
        if (belongs(job, &job->groups[i])) {
            say_group(job->wal, &job->groups[i]);
        }
    }
}

static void on_room(void *arg)
{
    struct reshard *job = arg;
    env_timer_stop(&job->patience);
    log_entries(job);
}

static void patience_over(struct env_timer *timer)
{
    struct reshard *job = timer->arg;
    log_error("raft", "%s cannot hold all that is not settled yet",
              job->names[job->options.n_from + job->to]);
    job->status = ERR_NOSPACE;
    wal_close(job->wal, new_closed, job);
}

static const struct wal_ops target_ops = {
    .durable = on_durable,
    .file_begins = on_file_begins,
    .wants_settled = on_wants_settled,
    .evict = on_evict,
    .room = on_room,
};

static log_index nothing_settled(void *arg, const struct group_id *id,
                                 replica_id *self)
{
    (void)arg, (void)id, (void)self;
    return (log_index){0};
}

/* The first checkpoint of the new place. */
static enum err save_settled(struct reshard *job, const char *dir)
{
    struct checkpoint c = {.seq = 1, .log_id = wal_log_id(job->wal)};
    c.groups = mem_zalloc((job->n_groups + 1) * sizeof *c.groups);
    for (size_t i = 0; i < job->n_groups; i++) {
        const struct moving *m = &job->groups[i];
        if (belongs(job, m) && !m->deleted) {
            c.groups[c.n_groups++] = m->state;
        }
    }
    size_t size;
    void *bytes = checkpoint_encode(&c, &size);
    enum err e = checkpoint_save(job->env, dir, c.seq, bytes, size);
    mem_free(bytes);
    mem_free(c.groups);
    return e;
}

static void next_shard(struct reshard *job)
{
    if (job->to == job->options.n_to) {
        close_sources(job);
        return;
    }
    const char *dir = job->names[job->options.n_from + job->to];
    struct wal_options options = log_options(job, dir);
    enum err e = env_dir_make(job->env, dir);
    if (e == ERR_OK) {
        e = wal_open(&options, &target_ops, job, nothing_settled, &job->wal);
    }
    if (e != ERR_OK) {
        fail(job, e);
        return;
    }
    ASSERT(wal_is_new(job->wal));
    size_t n = 0;
    wal_recovered_free(wal_recovered(job->wal, &n), n);
    e = save_settled(job, dir);
    if (e != ERR_OK) {
        job->status = e;
        wal_close(job->wal, new_closed, job);
        return;
    }
    wal_relies_on(job->wal, 1);
    job->group = 0;
    job->entry = 0;
    on_file_begins(job);
    log_entries(job);
    close_when_durable(job); /* without a group there is nothing to wait for */
}

/* ---- the whole ----------------------------------------------------------- */
static void job_end(struct reshard *job)
{
    enum err status = job->status;
    void (*done)(void *arg, enum err status) = job->done;
    void *arg = job->arg;
    env_timer_stop(&job->patience);
    for (unsigned i = 0; i < job->options.n_from; i++) {
        if (job->sources[i].has_checkpoint) {
            checkpoint_free(&job->sources[i].checkpoint);
        }
    }
    for (unsigned i = 0; i < job->options.n_from + job->options.n_to; i++) {
        mem_free(job->names[i]);
    }
    mem_free(job->names);
    mem_free(job->sources);
    HASH_CLEAR(hh, job->by_id);
    mem_free(job->groups);
    mem_free(job);
    done(arg, status);
}

static void source_closed(void *arg)
{
    struct source *from = arg;
    from->wal = NULL;
    close_sources(from->job);
}

/* One after the other. */
static void close_sources(struct reshard *job)
{
    while (job->n_closed < job->options.n_from) {
        struct source *from = &job->sources[job->n_closed++];
        wal_recovered_free(from->groups, from->n_groups);
        from->groups = NULL;
        if (from->wal != NULL) {
            wal_close(from->wal, source_closed, from);
            return;
        }
    }
    job_end(job);
}

void reshard_start(const struct reshard_options *options,
                   void (*done)(void *arg, enum err status), void *arg)
{
    struct reshard *job = mem_zalloc(sizeof *job);
    unsigned n = options->n_from + options->n_to;
    job->env = options->env;
    job->options = *options;
    job->done = done;
    job->arg = arg;
    job->names = mem_zalloc(n * sizeof *job->names);
    for (unsigned i = 0; i < n; i++) {
        job->names[i] =
            mem_strdup(i < options->n_from ? options->from[i]
                                           : options->to[i - options->n_from]);
    }
    job->sources = mem_zalloc(options->n_from * sizeof *job->sources);
    env_timer_init(job->env, &job->patience, patience_over, job);
    enum err e = ERR_OK;
    for (unsigned i = 0; i < options->n_from && e == ERR_OK; i++) {
        job->sources[i].job = job;
        e = source_open(&job->sources[i], job->names[i]);
    }
    if (e == ERR_OK) {
        e = gather(job);
    }
    if (e != ERR_OK) {
        fail(job, e);
        return;
    }
    next_shard(job);
}
