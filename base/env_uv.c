/* The libuv environment: loop, timers, posts, works, signals.
 *
 * Happy path of a turn: libuv's timer fires ours; prepare ends the turn (runs
 * what was deferred) and arms libuv's timer; the loop waits; what came in is
 * called back; check ends the turn again. So nothing deferred waits while the
 * loop blocks. Failure modes: libuv cannot give a loop or a thread; then there
 * is nothing to run on and the process ends. */
#include "base/env_uv.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/env_uv_impl.h"
#include "base/mem.h"

#define FATAL_EXIT 70 /* EX_SOFTWARE of sysexits.h */

enum err err_from_errno(int number)
{
    switch (number) {
        case 0:
            return ERR_OK;
        case ENOENT:
            return ERR_NOT_FOUND;
        case EEXIST:
            return ERR_EXISTS;
        case ENOSPC:
        case EDQUOT:
            return ERR_NOSPACE;
        case ECANCELED:
            return ERR_CANCELED;
        case ECONNREFUSED:
            return ERR_REFUSED;
        case ETIMEDOUT:
            return ERR_TIMEOUT;
        case EHOSTUNREACH:
        case ENETUNREACH:
        case EADDRNOTAVAIL:
            return ERR_UNREACHABLE;
        case EADDRINUSE:
            return ERR_BUSY;
        case EPIPE:
            return ERR_CLOSED;
        default:
            return ERR_IO;
    }
}

enum err err_from_uv(int status)
{
    return status == UV_EOF ? ERR_CLOSED : err_from_errno(-status);
}

/* ---- clock --------------------------------------------------------------- */
static uint64_t uv_env_now_ms(const struct env *base)
{
    struct uv_env *env = (struct uv_env *)(uintptr_t)base;
    if (!env->running) { /* no turns yet that would sample it */
        uv_update_time(&env->loop);
    }
    return uv_now(&env->loop);
}

static uint64_t uv_env_now_ns(const struct env *env)
{
    (void)env;
    return uv_hrtime();
}

static int64_t uv_env_wall_ms(const struct env *env)
{
    struct timespec now;
    (void)env;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void uv_env_fatal(struct env *env, const char *line)
{
    (void)env;
    (void)line;
    _exit(FATAL_EXIT);
}

/* ---- the turn ------------------------------------------------------------ */
static void on_timer(uv_timer_t *handle)
{
    struct uv_env *env = handle->data;
    env_timers_fire(&env->base);
}

/* Arms libuv's timer for the earliest of ours. */
static void arm_timer(struct uv_env *env)
{
    uint64_t due_ms;
    uint64_t now_ms = uv_now(&env->loop);
    if (!env_timers_due(&env->base, &due_ms)) {
        uv_timer_stop(&env->timer);
        return;
    }
    uv_timer_start(&env->timer, on_timer, due_ms > now_ms ? due_ms - now_ms : 0,
                   0);
}

static void on_prepare(uv_prepare_t *handle)
{
    struct uv_env *env = handle->data;
    if (!env->dying) {
        env_turn_end(&env->base);
        arm_timer(env);
    }
}

static void on_check(uv_check_t *handle)
{
    struct uv_env *env = handle->data;
    if (!env->dying) {
        env_turn_end(&env->base);
    }
}

/* ---- posts and works ----------------------------------------------------- */
/* An event descriptor of our own: uv_async_t makes a loop that is woken while
 * the waker is still in its system call spin until that has returned. */
static void wake_loop(struct uv_env *env)
{
    uint64_t one = 1;
    ssize_t written;
    do {
        written = write(env->wake_fd, &one, sizeof one);
    } while (written < 0 && errno == EINTR);
    /* EAGAIN: the counter is full, so the loop will wake */
}

static void uv_env_post(struct env *to, struct env_post *msg)
{
    struct uv_env *env = uv_env_of(to);
    struct env_post *newest = atomic_load(&env->posts);
    do {
        msg->next = newest;
    } while (!atomic_compare_exchange_weak(&env->posts, &newest, msg));
    if (newest == NULL) {
        wake_loop(env);
    }
}

static void run_posts(struct uv_env *env)
{
    struct env_post *newest = atomic_exchange(&env->posts, NULL);
    struct env_post *oldest = NULL;
    while (newest != NULL) {
        struct env_post *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest != NULL) {
        struct env_post *msg = oldest;
        oldest = msg->next;
        msg->cb(msg);
    }
}

static void run_log_dones(struct uv_env *env)
{
    struct env_work *newest = atomic_exchange(&env->log_dones, NULL);
    struct env_work *oldest = NULL;
    while (newest != NULL) {
        struct env_work *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest != NULL) {
        struct env_work *work = oldest;
        oldest = work->next;
        work->done(work);
    }
}

static void on_wake(uv_poll_t *handle, int status, int events)
{
    struct uv_env *env = handle->data;
    uint64_t count;
    ASSERT(status == 0);
    (void)events;
    if (env->dying) {
        return;
    }
    /* Before the lists are taken: who pushes on an empty one wakes again. */
    ssize_t got = read(env->wake_fd, &count, sizeof count);
    (void)got;
    run_log_dones(env);
    run_posts(env);
    if (atomic_exchange(&env->stop, false)) {
        uv_stop(&env->loop);
    }
}

static void log_work_done(struct uv_env *env, struct env_work *work)
{
    struct env_work *newest = atomic_load(&env->log_dones);
    do {
        work->next = newest;
    } while (!atomic_compare_exchange_weak(&env->log_dones, &newest, work));
    if (newest == NULL) {
        wake_loop(env);
    }
}

/* Waits for the next work; NULL when the worker shall end. The semaphore
 * counts the works and, after them, the end. */
static struct env_work *log_worker_next(struct log_worker *log)
{
    uv_sem_wait(&log->wake);
    uv_mutex_lock(&log->mutex);
    struct env_work *work = log->first;
    if (work != NULL) {
        log->first = work->next;
    }
    uv_mutex_unlock(&log->mutex);
    return work;
}

static void log_worker_main(void *arg)
{
    struct uv_env *env = arg;
    struct env_work *work;
    while ((work = log_worker_next(&env->log)) != NULL) {
        work->run(work);
        log_work_done(env, work);
    }
}

static void log_worker_start(struct uv_env *env)
{
    int status = uv_mutex_init(&env->log.mutex);
    ASSERT(status == 0);
    status = uv_sem_init(&env->log.wake, 0);
    ASSERT(status == 0);
    status = uv_thread_create(&env->log.thread, log_worker_main, env);
    ASSERT(status == 0);
    env->log.started = true;
}

static void log_worker_end(struct uv_env *env)
{
    if (!env->log.started) {
        return;
    }
    uv_sem_post(&env->log.wake);
    uv_thread_join(&env->log.thread);
    uv_sem_destroy(&env->log.wake);
    uv_mutex_destroy(&env->log.mutex);
}

static void log_work_submit(struct uv_env *env, struct env_work *work)
{
    if (!env->log.started) {
        log_worker_start(env);
    }
    uv_mutex_lock(&env->log.mutex);
    if (env->log.first == NULL) {
        env->log.first = work;
    } else {
        env->log.last->next = work;
    }
    env->log.last = work;
    uv_mutex_unlock(&env->log.mutex);
    uv_sem_post(&env->log.wake); /* who wakes shall not wait for the mutex */
}

/* A work in libuv's pool. */
struct io_work {
    uv_work_t req;
    struct env_work *work;
};

static void on_io_run(uv_work_t *req)
{
    struct io_work *io = req->data;
    io->work->run(io->work);
}

static void on_io_done(uv_work_t *req, int status)
{
    struct io_work *io = req->data;
    struct env_work *work = io->work;
    struct uv_env *env = uv_env_of(work->env);
    ASSERT(status == 0); /* never cancelled */
    mem_free(io);
    if (!env->dying) {
        work->done(work);
    }
}

static void uv_env_work_submit(struct env *base, enum env_pool pool,
                               struct env_work *work)
{
    struct uv_env *env = uv_env_of(base);
    if (pool == ENV_POOL_LOG) {
        log_work_submit(env, work);
        return;
    }
    struct io_work *io = mem_zalloc(sizeof *io);
    io->req.data = io;
    io->work = work;
    int status = uv_queue_work(&env->loop, &io->req, on_io_run, on_io_done);
    ASSERT(status == 0);
}

/* ---- begin and end ------------------------------------------------------- */
static void on_uv_signal(uv_signal_t *handle, int signo)
{
    struct uv_env *env = handle->data;
    if (!env->dying) {
        env->options.on_signal(env->options.arg, signo);
    }
}

static void signals_start(struct uv_env *env)
{
    static const int wanted[3] = {SIGTERM, SIGINT, SIGHUP};
    for (int i = 0; i < 3; i++) {
        uv_signal_init(&env->loop, &env->signals[i]);
        env->signals[i].data = env;
        int status = uv_signal_start(&env->signals[i], on_uv_signal, wanted[i]);
        ASSERT(status == 0);
    }
}

static uint64_t kernel_seed(void)
{
    uint64_t seed;
    ssize_t got = getrandom(&seed, sizeof seed, 0);
    ASSERT(got == (ssize_t)sizeof seed); /* never short below 256 bytes */
    return seed;
}

struct env *env_uv_new(const struct env_uv_options *options)
{
    struct uv_env *env = mem_zalloc(sizeof *env);
    env_base_init(&env->base, &env_uv_ops, kernel_seed());
    if (options != NULL) {
        env->options = *options;
    }
    signal(SIGPIPE, SIG_IGN);
    int status = uv_loop_init(&env->loop);
    ASSERT(status == 0);
    uv_prepare_init(&env->loop, &env->prepare);
    uv_check_init(&env->loop, &env->check);
    uv_timer_init(&env->loop, &env->timer);
    env->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    ASSERT(env->wake_fd >= 0);
    status = uv_poll_init(&env->loop, &env->wake, env->wake_fd);
    ASSERT(status == 0);
    status = uv_poll_start(&env->wake, UV_READABLE, on_wake);
    ASSERT(status == 0);
    env->prepare.data = env->check.data = env->timer.data = env->wake.data =
        env;
    uv_prepare_start(&env->prepare, on_prepare);
    uv_check_start(&env->check, on_check);
    if (env->options.on_signal != NULL) {
        signals_start(env);
    }
    return &env->base;
}

void env_uv_run(struct env *base)
{
    struct uv_env *env = uv_env_of(base);
    env->running = true;
    uv_run(&env->loop, UV_RUN_DEFAULT);
    env->running = false;
}

void env_uv_stop(struct env *base)
{
    struct uv_env *env = uv_env_of(base);
    atomic_store(&env->stop, true);
    wake_loop(env);
}

static void env_thread_main(void *arg)
{
    env_uv_run(arg);
}

void env_uv_thread_start(struct env *env)
{
    int status =
        uv_thread_create(&uv_env_of(env)->thread, env_thread_main, env);
    ASSERT(status == 0);
}

void env_uv_thread_join(struct env *env)
{
    uv_thread_join(&uv_env_of(env)->thread);
}

void env_uv_free(struct env *base)
{
    struct uv_env *env = uv_env_of(base);
    env->dying = true;
    log_worker_end(env);
    uv_streams_end(env);
    uv_close((uv_handle_t *)&env->prepare, NULL);
    uv_close((uv_handle_t *)&env->check, NULL);
    uv_close((uv_handle_t *)&env->timer, NULL);
    uv_close((uv_handle_t *)&env->wake, NULL);
    for (int i = 0; env->options.on_signal != NULL && i < 3; i++) {
        uv_close((uv_handle_t *)&env->signals[i], NULL);
    }
    uv_run(&env->loop, UV_RUN_DEFAULT);
    int status = uv_loop_close(&env->loop);
    ASSERT(status == 0);
    close(env->wake_fd);
    uv_dir_locks_release(env);
    env_base_free(&env->base);
    mem_free(env);
}

/* ---- log ----------------------------------------------------------------- */
/* Length of the words before the first key=value of `line`. */
static size_t message_length(const char *line)
{
    const char *equals = strchr(line, '=');
    if (equals == NULL) {
        return strlen(line);
    }
    while (equals > line && equals[-1] != ' ') {
        equals--;
    }
    return (size_t)(equals - line);
}

/* The words as they stand between quotes: what would end them is another's. */
static void quote(const char *words, size_t n, char *out)
{
    for (size_t i = 0; i < n; i++) {
        if (words[i] == '"' || words[i] == '\\') {
            *out++ = '\\';
        }
        *out++ = words[i];
    }
    *out = '\0';
}

/* One event is one line, whatever it tells of. */
static void keep_one_line(char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        text[i] = (unsigned char)text[i] < ' ' ? '?' : text[i];
    }
}

void env_uv_log_sink(void *arg, enum log_level level, const char *component,
                     const char *line)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    char text[2 * LIMIT_LOG_LINE + 128];
    char message[2 * LIMIT_LOG_LINE];
    char stamp[32];
    struct timespec now;
    struct tm utc;
    (void)arg;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
    size_t length = message_length(line);
    const char *rest = line + length;
    while (length > 0 && line[length - 1] == ' ') {
        length--;
    }
    ASSERT(length < LIMIT_LOG_LINE); /* log_write cuts it */
    quote(line, length, message);
    int size = snprintf(text, sizeof text,
                        "ts=%s.%03ldZ level=%s component=%s msg=\"%s\"%s%s\n",
                        stamp, now.tv_nsec / 1000000, names[level], component,
                        message, *rest == '\0' ? "" : " ", rest);
    if (size >= (int)sizeof text) {
        size = (int)sizeof text - 1;
        text[size - 1] = '\n';
    }
    keep_one_line(text, (size_t)size - 1);
    ssize_t written = write(STDERR_FILENO, text, (size_t)size);
    (void)written; /* nowhere to report it */
}

const struct env_ops env_uv_ops = {
    .now_ms = uv_env_now_ms,
    .now_ns = uv_env_now_ns,
    .wall_ms = uv_env_wall_ms,
    .fatal = uv_env_fatal,
    .post = uv_env_post,
    .work_submit = uv_env_work_submit,
    .file_open = uv_file_open,
    .file_close = uv_file_close,
    .file_pread = uv_file_pread,
    .file_pwritev = uv_file_pwritev,
    .file_sync = uv_file_sync,
    .file_size = uv_file_size,
    .file_truncate = uv_file_truncate,
    .file_rename = uv_file_rename,
    .file_unlink = uv_file_unlink,
    .dir_make_one = uv_dir_make_one,
    .dir_sync = uv_dir_sync,
    .fs_sync = uv_fs_sync_all,
    .dir_remove = uv_dir_remove,
    .dir_list = uv_dir_list,
    .fs_space = uv_fs_space,
    .dir_lock = uv_dir_lock,
    .stream_connect = uv_stream_connect,
    .stream_start = uv_stream_start,
    .stream_resume = uv_stream_resume,
    .stream_unsent = uv_stream_unsent,
    .stream_write = uv_stream_write,
    .stream_close = uv_stream_close,
    .listen = uv_listen_on,
    .listener_close = uv_listener_close,
    .stream_move = uv_stream_move,
};
