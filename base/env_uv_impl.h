/* Shared by the files of the libuv environment. */
#ifndef BASE_ENV_UV_IMPL_H
#define BASE_ENV_UV_IMPL_H

#include <stdatomic.h>
#include <uv.h>

#include "base/env_impl.h"
#include "base/env_uv.h"

struct tcp_stream;
struct tcp_listener;
struct dir_lock;

/* Works of the log's own thread, in order. */
struct log_worker {
    uv_thread_t thread;
    uv_mutex_t mutex;
    uv_sem_t wake;
    struct env_work *first, *last; /* under the mutex */
    bool started;
};

struct uv_env {
    struct env base;
    uv_loop_t loop;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_timer_t timer;
    uv_poll_t wake; /* of wake_fd, an eventfd */
    int wake_fd;
    uv_signal_t signals[3];
    struct env_uv_options options;
    uv_thread_t thread;
    _Atomic(struct env_post *) posts;     /* newest first */
    _Atomic(struct env_work *) log_dones; /* newest first */
    atomic_bool stop;
    bool running;
    bool dying; /* no callbacks any more */
    struct log_worker log;
    struct tcp_stream *streams;     /* list, oldest first */
    struct tcp_listener *listeners; /* list, oldest first */
    struct dir_lock *locks;
};

static inline struct uv_env *uv_env_of(struct env *env)
{
    return (struct uv_env *)env;
}

/* libuv's codes (negative errno) and errno; anything not named is ERR_IO. */
enum err err_from_uv(int status);
enum err err_from_errno(int number);

extern const struct env_ops env_uv_ops;

/* env_uv_file.c */
enum err uv_file_open(struct env *env, const char *path, int flags,
                      struct env_file **out);
void uv_file_close(struct env_file *file);
enum err uv_file_pread(struct env_file *file, void *buf, size_t size,
                       uint64_t offset, size_t *got);
enum err uv_file_pwritev(struct env_file *file, const struct iovec *iov,
                         int n_iov, uint64_t offset, bool durable);
enum err uv_file_sync(struct env_file *file);
enum err uv_file_size(struct env_file *file, uint64_t *size);
enum err uv_file_truncate(struct env_file *file, uint64_t size);
enum err uv_file_rename(struct env *env, const char *from, const char *to);
enum err uv_file_unlink(struct env *env, const char *path);
enum err uv_dir_make_one(struct env *env, const char *path);
enum err uv_dir_sync(struct env *env, const char *path);
enum err uv_fs_sync_all(struct env *env, const char *path);
enum err uv_dir_remove(struct env *env, const char *path);
enum err uv_dir_list(struct env *env, const char *path,
                     void (*each)(void *arg, const char *name), void *arg);
enum err uv_fs_space(struct env *env, const char *path, uint64_t *total,
                     uint64_t *available);
enum err uv_dir_lock(struct env *env, const char *path);
void uv_dir_locks_release(struct uv_env *env);

/* env_uv_stream.c */
struct env_stream *uv_stream_connect(struct env *env, const char *address,
                                     const struct env_stream_ops *ops,
                                     void *arg);
void uv_stream_start(struct env_stream *stream);
void uv_stream_resume(struct env_stream *stream);
size_t uv_stream_unsent(const struct env_stream *stream);
void uv_stream_write(struct env_stream *stream, struct env_write *req,
                     const struct iovec *iov, int n_iov);
void uv_stream_close(struct env_stream *stream);
enum err uv_listen_on(struct env *env, const char *address,
                      env_accept_cb accept, void *arg,
                      struct env_listener **out);
void uv_listener_close(struct env_listener *listener);
void uv_stream_move(struct env_stream *stream, struct env *to,
                    env_accept_cb accept, void *arg);
/* Closes every stream and listener; no callbacks follow. */
void uv_streams_end(struct uv_env *env);

#endif
