/* What the implementations of env share: the table of operations, timers, the
 * deferred queue. Included by base/env*.c and the simulator only. */
#ifndef BASE_ENV_IMPL_H
#define BASE_ENV_IMPL_H

#include "base/env.h"
#include "base/limits.h"
#include "base/prng.h"

/* One function for each call of env.h that depends on the implementation; the
 * contracts are there. */
struct env_ops {
    uint64_t (*now_ms)(const struct env *env);
    uint64_t (*now_ns)(const struct env *env);
    int64_t (*wall_ms)(const struct env *env);
    void (*fatal)(struct env *env, const char *line); /* does not return */
    /* The earliest timer may have changed, or something was deferred: see to
     * it that env_turn_end runs and timers fire. May be NULL. */
    void (*timers_changed)(struct env *env);
    void (*deferred)(struct env *env);

    void (*post)(struct env *to, struct env_post *msg);
    void (*work_submit)(struct env *env, enum env_pool pool,
                        struct env_work *work);

    enum err (*file_open)(struct env *env, const char *path, int flags,
                          struct env_file **out);
    void (*file_close)(struct env_file *file);
    enum err (*file_pread)(struct env_file *file, void *buf, size_t size,
                           uint64_t offset, size_t *got);
    enum err (*file_pwritev)(struct env_file *file, const struct iovec *iov,
                             int n_iov, uint64_t offset, bool durable);
    enum err (*file_sync)(struct env_file *file);
    enum err (*file_size)(struct env_file *file, uint64_t *size);
    enum err (*file_truncate)(struct env_file *file, uint64_t size);
    enum err (*file_rename)(struct env *env, const char *from, const char *to);
    enum err (*file_unlink)(struct env *env, const char *path);
    enum err (*dir_make_one)(struct env *env, const char *path);
    enum err (*dir_sync)(struct env *env, const char *path);
    enum err (*fs_sync)(struct env *env, const char *path);
    enum err (*dir_remove)(struct env *env, const char *path);
    enum err (*dir_list)(struct env *env, const char *path,
                         void (*each)(void *arg, const char *name), void *arg);
    enum err (*fs_space)(struct env *env, const char *path, uint64_t *total,
                         uint64_t *available);
    enum err (*dir_lock)(struct env *env, const char *path);

    struct env_stream *(*stream_connect)(struct env *env, const char *address,
                                         const struct env_stream_ops *ops,
                                         void *arg);
    void (*stream_start)(struct env_stream *stream);
    void (*stream_resume)(struct env_stream *stream);
    size_t (*stream_unsent)(const struct env_stream *stream);
    void (*stream_write)(struct env_stream *stream, struct env_write *req,
                         const struct iovec *iov, int n_iov);
    void (*stream_close)(struct env_stream *stream);
    enum err (*listen)(struct env *env, const char *address,
                       env_accept_cb accept, void *arg,
                       struct env_listener **out);
    void (*listener_close)(struct env_listener *listener);
    void (*stream_move)(struct env_stream *stream, struct env *to,
                        env_accept_cb accept, void *arg);
};

/* Implementations put these first in their own structs. */
struct env {
    const struct env_ops *ops;
    struct prng prng;
    struct env_timer **timers; /* binary heap by (due_ms, order) */
    uint32_t n_timers, timers_capacity;
    uint64_t timer_order; /* of the newest start */
    struct env_deferred *deferred_first, *deferred_last;
};
struct env_file {
    struct env *env;
};
struct env_stream {
    struct env *env;
    const struct env_stream_ops *ops; /* NULL: not started */
    void *arg;
    char peer[LIMIT_ADDRESS];
};
struct env_listener {
    struct env *env;
    char address[LIMIT_ADDRESS];
};

void env_base_init(struct env *env, const struct env_ops *ops, uint64_t seed);
void env_base_free(struct env *env);

/* When the earliest timer is due; false when none runs. */
bool env_timers_due(const struct env *env, uint64_t *due_ms);
/* Fires, in the order (due, start), the timers that are due and were started
 * before this call. */
void env_timers_fire(struct env *env);
/* Runs the deferred queue until it is empty. */
void env_turn_end(struct env *env);

/* Splits "host:port"; the host loses its brackets. false when it is not of
 * that form. */
bool env_address_split(const char *address, char host[LIMIT_ADDRESS],
                       uint16_t *port);
/* The directory that holds `path`, without a slash at its end. */
void env_path_parent(const char *path, char parent[LIMIT_PATH]);

#endif
