/* What both environments share, and the dispatch to either. Happy path: each
 * call of env.h goes straight to the implementation's table. */
#include "base/env.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/env_impl.h"
#include "base/log.h"
#include "base/mem.h"

void env_base_init(struct env *env, const struct env_ops *ops, uint64_t seed)
{
    memset(env, 0, sizeof *env);
    env->ops = ops;
    prng_seed(&env->prng, seed);
}

void env_base_free(struct env *env)
{
    mem_free(env->timers);
    env->timers = NULL;
    env->n_timers = env->timers_capacity = 0;
}

uint64_t env_now_ms(const struct env *env)
{
    return env->ops->now_ms(env);
}

uint64_t env_now_ns(const struct env *env)
{
    return env->ops->now_ns(env);
}

int64_t env_wall_ms(const struct env *env)
{
    return env->ops->wall_ms(env);
}

uint64_t env_random(struct env *env)
{
    return prng_next(&env->prng);
}

void env_fatal(struct env *env, const char *format, ...)
{
    char line[LIMIT_LOG_LINE];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    log_error("fatal", "%s", line);
    env->ops->fatal(env, line);
    UNREACHABLE("an environment came back from its end");
}

/* ---- timers: a binary heap ----------------------------------------------- */
static bool timer_before(const struct env_timer *a, const struct env_timer *b)
{
    return a->due_ms != b->due_ms ? a->due_ms < b->due_ms : a->order < b->order;
}

static void heap_put(struct env *env, int32_t at, struct env_timer *timer)
{
    env->timers[at] = timer;
    timer->heap_at = at;
}

/* Moves `timer` from the hole at `at` towards the top. */
static void heap_up(struct env *env, int32_t at, struct env_timer *timer)
{
    while (at > 0) {
        int32_t parent = (at - 1) / 2;
        if (!timer_before(timer, env->timers[parent])) {
            break;
        }
        heap_put(env, at, env->timers[parent]);
        at = parent;
    }
    heap_put(env, at, timer);
}

/* Moves `timer` from the hole at `at` towards the bottom. */
static void heap_down(struct env *env, int32_t at, struct env_timer *timer)
{
    int32_t n = (int32_t)env->n_timers;
    for (;;) {
        int32_t child = 2 * at + 1;
        if (child + 1 < n &&
            timer_before(env->timers[child + 1], env->timers[child])) {
            child++;
        }
        if (child >= n || !timer_before(env->timers[child], timer)) {
            break;
        }
        heap_put(env, at, env->timers[child]);
        at = child;
    }
    heap_put(env, at, timer);
}

static void heap_remove(struct env *env, struct env_timer *timer)
{
    int32_t at = timer->heap_at;
    ASSERT(at >= 0 && at < (int32_t)env->n_timers);
    ASSERT(env->timers[at] == timer);
    struct env_timer *last = env->timers[--env->n_timers];
    if (last != timer) {
        heap_down(env, at, last);
        heap_up(env, last->heap_at, last);
    }
    timer->heap_at = -1;
}

static void heap_add(struct env *env, struct env_timer *timer)
{
    if (env->n_timers == env->timers_capacity) {
        uint32_t capacity = env->timers_capacity * 2 + 16;
        env->timers =
            mem_realloc(env->timers, capacity * sizeof env->timers[0]);
        env->timers_capacity = capacity;
    }
    env->n_timers++;
    heap_up(env, (int32_t)env->n_timers - 1, timer);
}

void env_timer_init(struct env *env, struct env_timer *timer, env_timer_cb cb,
                    void *arg)
{
    memset(timer, 0, sizeof *timer);
    timer->env = env;
    timer->cb = cb;
    timer->arg = arg;
    timer->heap_at = -1;
}

static void timers_changed(struct env *env)
{
    if (env->ops->timers_changed != NULL) {
        env->ops->timers_changed(env);
    }
}

void env_timer_start(struct env_timer *timer, uint64_t delay_ms)
{
    struct env *env = timer->env;
    uint64_t now_ms = env_now_ms(env);
    if (timer->heap_at >= 0) {
        heap_remove(env, timer);
    }
    timer->due_ms =
        delay_ms < UINT64_MAX - now_ms ? now_ms + delay_ms : UINT64_MAX;
    timer->order = ++env->timer_order;
    heap_add(env, timer);
    timers_changed(env);
}

void env_timer_stop(struct env_timer *timer)
{
    if (timer->heap_at >= 0) {
        heap_remove(timer->env, timer);
        timers_changed(timer->env);
    }
}

bool env_timer_running(const struct env_timer *timer)
{
    return timer->heap_at >= 0;
}

bool env_timers_due(const struct env *env, uint64_t *due_ms)
{
    if (env->n_timers == 0) {
        return false;
    }
    *due_ms = env->timers[0]->due_ms;
    return true;
}

void env_timers_fire(struct env *env)
{
    /* What is started by these callbacks waits for the next turn, or a timer
     * restarted with delay 0 would hold the loop for ever. They are due now
     * at the earliest, hence behind all that was due before. */
    uint64_t newest = env->timer_order;
    uint64_t now_ms = env_now_ms(env);
    while (env->n_timers > 0 && env->timers[0]->due_ms <= now_ms &&
           env->timers[0]->order <= newest) {
        struct env_timer *timer = env->timers[0];
        heap_remove(env, timer);
        timer->cb(timer);
    }
}

/* ---- end of the turn ----------------------------------------------------- */
void env_defer(struct env *env, struct env_deferred *d)
{
    if (d->queued) {
        return;
    }
    d->queued = true;
    d->next = NULL;
    if (env->deferred_first == NULL) {
        env->deferred_first = d;
    } else {
        env->deferred_last->next = d;
    }
    env->deferred_last = d;
    if (env->ops->deferred != NULL) {
        env->ops->deferred(env);
    }
}

void env_turn_end(struct env *env)
{
    while (env->deferred_first != NULL) {
        struct env_deferred *d = env->deferred_first;
        env->deferred_first = d->next;
        d->queued = false;
        d->cb(d);
    }
}

/* ---- posts and works ----------------------------------------------------- */
void env_post(struct env *to, struct env_post *msg)
{
    to->ops->post(to, msg);
}

void env_work_submit(struct env *env, enum env_pool pool, struct env_work *work)
{
    work->env = env;
    work->next = NULL;
    env->ops->work_submit(env, pool, work);
}

/* ---- files --------------------------------------------------------------- */
enum err env_file_open(struct env *env, const char *path, int flags,
                       struct env_file **out)
{
    return env->ops->file_open(env, path, flags, out);
}

void env_file_close(struct env_file *file)
{
    if (file != NULL) {
        file->env->ops->file_close(file);
    }
}

enum err env_file_pread(struct env_file *file, void *buf, size_t size,
                        uint64_t offset, size_t *got)
{
    return file->env->ops->file_pread(file, buf, size, offset, got);
}

enum err env_file_pwritev(struct env_file *file, const struct iovec *iov,
                          int n_iov, uint64_t offset, bool durable)
{
    return file->env->ops->file_pwritev(file, iov, n_iov, offset, durable);
}

enum err env_file_sync(struct env_file *file)
{
    return file->env->ops->file_sync(file);
}

enum err env_file_size(struct env_file *file, uint64_t *size)
{
    return file->env->ops->file_size(file, size);
}

enum err env_file_truncate(struct env_file *file, uint64_t size)
{
    return file->env->ops->file_truncate(file, size);
}

enum err env_file_rename(struct env *env, const char *from, const char *to)
{
    return env->ops->file_rename(env, from, to);
}

enum err env_file_unlink(struct env *env, const char *path)
{
    return env->ops->file_unlink(env, path);
}

void env_path_parent(const char *path, char parent[LIMIT_PATH])
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        memcpy(parent, ".", 2);
        return;
    }
    size_t size = slash == path ? 1 : (size_t)(slash - path);
    ASSERT(size < LIMIT_PATH);
    memcpy(parent, path, size);
    parent[size] = '\0';
}

static enum err file_fill(struct env *env, const char *path, const void *data,
                          size_t size)
{
    struct env_file *file;
    struct iovec iov = {(void *)(uintptr_t)data, size};
    enum err e =
        env_file_open(env, path, ENV_FILE_WRITE | ENV_FILE_CREATE, &file);
    if (e != ERR_OK) {
        return e;
    }
    e = env_file_truncate(file, 0);
    if (e == ERR_OK && size > 0) {
        e = env_file_pwritev(file, &iov, 1, 0, false);
    }
    if (e == ERR_OK) {
        e = env_file_sync(file);
    }
    env_file_close(file);
    return e;
}

enum err env_file_write_whole(struct env *env, const char *path,
                              const void *data, size_t size)
{
    char beside[LIMIT_PATH];
    char parent[LIMIT_PATH];
    int length = snprintf(beside, sizeof beside, "%s.tmp", path);
    if (length < 0 || length >= LIMIT_PATH) {
        return ERR_TOO_LARGE;
    }
    enum err e = file_fill(env, beside, data, size);
    if (e == ERR_OK) {
        e = env_file_rename(env, beside, path);
    }
    if (e == ERR_OK) {
        env_path_parent(path, parent);
        e = env_dir_sync(env, parent);
    }
    return e;
}

enum err env_file_read_whole(struct env *env, const char *path, size_t limit,
                             void **data, size_t *size)
{
    struct env_file *file;
    uint64_t file_size;
    *data = NULL;
    *size = 0;
    enum err e = env_file_open(env, path, ENV_FILE_READ, &file);
    if (e != ERR_OK) {
        return e;
    }
    e = env_file_size(file, &file_size);
    if (e == ERR_OK && file_size > limit) {
        e = ERR_TOO_LARGE;
    }
    if (e == ERR_OK) {
        *data = mem_alloc((size_t)file_size);
        e = env_file_pread(file, *data, (size_t)file_size, 0, size);
    }
    if (e != ERR_OK) {
        mem_free(*data);
        *data = NULL;
        *size = 0;
    }
    env_file_close(file);
    return e;
}

/* Makes one directory whose parent exists, durably. */
static enum err dir_make_durable(struct env *env, const char *path)
{
    char parent[LIMIT_PATH];
    enum err e = env->ops->dir_make_one(env, path);
    if (e == ERR_EXISTS) {
        return ERR_OK;
    }
    if (e != ERR_OK) {
        return e;
    }
    env_path_parent(path, parent);
    return env_dir_sync(env, parent);
}

enum err env_dir_make(struct env *env, const char *path)
{
    char part[LIMIT_PATH];
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof part) {
        return ERR_INVALID;
    }
    memcpy(part, path, length + 1);
    while (length > 1 && part[length - 1] == '/') {
        part[--length] = '\0';
    }
    for (size_t i = 1; i < length; i++) {
        if (part[i] != '/' || part[i - 1] == '/') {
            continue;
        }
        part[i] = '\0';
        enum err e = dir_make_durable(env, part);
        part[i] = '/';
        if (e != ERR_OK) {
            return e;
        }
    }
    return dir_make_durable(env, part);
}

enum err env_dir_sync(struct env *env, const char *path)
{
    return env->ops->dir_sync(env, path);
}

enum err env_fs_sync(struct env *env, const char *path)
{
    return env->ops->fs_sync(env, path);
}

enum err env_dir_remove(struct env *env, const char *path)
{
    return env->ops->dir_remove(env, path);
}

enum err env_dir_list(struct env *env, const char *path,
                      void (*each)(void *arg, const char *name), void *arg)
{
    return env->ops->dir_list(env, path, each, arg);
}

enum err env_fs_space(struct env *env, const char *path, uint64_t *total,
                      uint64_t *available)
{
    return env->ops->fs_space(env, path, total, available);
}

enum err env_dir_lock(struct env *env, const char *path)
{
    return env->ops->dir_lock(env, path);
}

/* ---- streams ------------------------------------------------------------- */
bool env_address_split(const char *address, char host[LIMIT_ADDRESS],
                       uint16_t *port)
{
    const char *colon = strrchr(address, ':');
    uint32_t value = 0;
    if (colon == NULL || colon[1] == '\0' || strlen(colon + 1) > 5) {
        return false;
    }
    for (const char *p = colon + 1; *p != '\0'; p++) {
        if (*p < '0' || *p > '9') {
            return false;
        }
        value = value * 10 + (uint32_t)(*p - '0');
    }
    size_t size = (size_t)(colon - address);
    if (size >= 2 && address[0] == '[' && address[size - 1] == ']') {
        address++;
        size -= 2;
    }
    if (value > UINT16_MAX || size >= LIMIT_ADDRESS) {
        return false;
    }
    memcpy(host, address, size);
    host[size] = '\0';
    *port = (uint16_t)value;
    return true;
}

struct env_stream *env_stream_connect(struct env *env, const char *address,
                                      const struct env_stream_ops *ops,
                                      void *arg)
{
    return env->ops->stream_connect(env, address, ops, arg);
}

void *env_stream_arg(const struct env_stream *stream)
{
    return stream->arg;
}

void env_stream_start(struct env_stream *stream,
                      const struct env_stream_ops *ops, void *arg)
{
    ASSERT(stream->ops == NULL);
    stream->ops = ops;
    stream->arg = arg;
    stream->env->ops->stream_start(stream);
}

void env_stream_resume(struct env_stream *stream)
{
    stream->env->ops->stream_resume(stream);
}

size_t env_stream_unsent(const struct env_stream *stream)
{
    return stream->env->ops->stream_unsent(stream);
}

void env_stream_write(struct env_stream *stream, struct env_write *req,
                      const struct iovec *iov, int n_iov)
{
    ASSERT(n_iov >= 0 && n_iov <= ENV_IOV_MAX);
    stream->env->ops->stream_write(stream, req, iov, n_iov);
}

void env_stream_close(struct env_stream *stream)
{
    stream->env->ops->stream_close(stream);
}

const char *env_stream_peer(const struct env_stream *stream)
{
    return stream->peer;
}

enum err env_listen(struct env *env, const char *address, env_accept_cb accept,
                    void *arg, struct env_listener **out)
{
    return env->ops->listen(env, address, accept, arg, out);
}

const char *env_listener_address(const struct env_listener *listener)
{
    return listener->address;
}

void env_listener_close(struct env_listener *listener)
{
    listener->env->ops->listener_close(listener);
}

void env_stream_move(struct env_stream *stream, struct env *to,
                     env_accept_cb accept, void *arg)
{
    stream->env->ops->stream_move(stream, to, accept, arg);
}
