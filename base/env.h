/* The only door to clock, randomness, timers, files, streams and threads.
 * One `struct env` belongs to one shard (one event loop, one thread); every
 * call is made on that thread unless its contract says otherwise. Two
 * implementations: env_uv (libuv) and the simulator (tests/sim), which gives
 * the same code a virtual clock, disk and network driven by one seed.
 *
 * Rules: a callback never fires inside the call that asks for it; requests are
 * caller-owned and must live until their callback; an error is a value, never
 * an assert. */
#ifndef BASE_ENV_H
#define BASE_ENV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h> /* struct iovec */

#include "base/err.h"

struct env;

/* ---- clock and randomness ------------------------------------------------ */
/* Monotonic; ms is sampled once per loop turn, ns is read afresh. */
uint64_t env_now_ms(const struct env *env);
uint64_t env_now_ns(const struct env *env);
/* Wall clock, milliseconds since 1970; may jump. For record timestamps only. */
int64_t env_wall_ms(const struct env *env);
uint64_t env_random(struct env *env);

/* ---- end of the process -------------------------------------------------- */
/* The state can no longer be trusted (a failed write or sync, a broken
 * invariant of the disk): logs the sentence and ends the process at once
 * without answering anybody. In the simulator it crashes the node. */
_Noreturn void env_fatal(struct env *env, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- timers -------------------------------------------------------------- */
struct env_timer;
typedef void (*env_timer_cb)(struct env_timer *timer);
struct env_timer {
    void *arg;
    /* private */
    env_timer_cb cb;
    uint64_t due_ms;
    uint64_t order;
    struct env *env;
    int32_t heap_at; /* -1: not running */
};
void env_timer_init(struct env *env, struct env_timer *timer, env_timer_cb cb,
                    void *arg);
/* (Re)starts: fires once, `delay_ms` from now or later. */
void env_timer_start(struct env_timer *timer, uint64_t delay_ms);
void env_timer_stop(struct env_timer *timer); /* stopping twice is fine */
bool env_timer_running(const struct env_timer *timer);

/* ---- end of the loop turn ------------------------------------------------ */
/* Work to be done once at the end of this loop turn, after the callbacks of
 * the turn and before the loop waits again (flush, send, answer). Deferring
 * what is already deferred does nothing. Runs in the order of deferring;
 * deferring from such a callback runs in the same turn end. */
struct env_deferred {
    void (*cb)(struct env_deferred *d);
    void *arg;
    /* private */
    struct env_deferred *next;
    bool queued;
};
void env_defer(struct env *env, struct env_deferred *d);

/* ---- other shards -------------------------------------------------------- */
/* Runs msg->cb on `to`'s thread. Callable from any shard's thread, never from
 * a worker. Messages from one shard to another arrive in order. */
struct env_post {
    void (*cb)(struct env_post *msg);
    void *arg;
    /* private */
    struct env_post *next;
};
void env_post(struct env *to, struct env_post *msg);

/* ---- blocking work ------------------------------------------------------- */
/* `run` is called on a worker thread with input that nobody changes meanwhile;
 * it may call the env_file_*, env_dir_* and mem_* functions and nothing else.
 * `done` is called afterwards on the shard's thread. ENV_POOL_LOG is one thread
 * of the shard's own, for the write-ahead log, in order; ENV_POOL_IO is shared
 * and unordered. */
enum env_pool { ENV_POOL_LOG, ENV_POOL_IO };
struct env_work {
    void (*run)(struct env_work *work);
    void (*done)(struct env_work *work);
    void *arg;
    struct env *env; /* set by env_work_submit */
    /* private */
    struct env_work *next;
};
void env_work_submit(struct env *env, enum env_pool pool,
                     struct env_work *work);

/* ---- files --------------------------------------------------------------- */
/* Blocking; called from `run` of a work, or on the shard's thread while the
 * broker starts (before it serves). Paths are plain strings. */
struct env_file;
enum env_file_flags {
    ENV_FILE_READ = 1,
    ENV_FILE_WRITE = 2,
    ENV_FILE_CREATE = 4,
    ENV_FILE_EXCLUSIVE = 8, /* with CREATE: ERR_EXISTS when it is there */
    ENV_FILE_DIRECT = 16,   /* O_DIRECT: memory, offset and size in blocks of
                             * ENV_BLOCK_SIZE; where it is refused (tmpfs) the
                             * file is opened buffered */
};
#define ENV_BLOCK_SIZE 4096

MUST_USE enum err env_file_open(struct env *env, const char *path, int flags,
                                struct env_file **out);
void env_file_close(struct env_file *file);
/* Reads up to `size` bytes; *got < size only at the end of the file. */
MUST_USE enum err env_file_pread(struct env_file *file, void *buf, size_t size,
                                 uint64_t offset, size_t *got);
/* Writes all or fails. `durable`: on stable storage when it returns (data, and
 * size if it grew). */
MUST_USE enum err env_file_pwritev(struct env_file *file,
                                   const struct iovec *iov, int n_iov,
                                   uint64_t offset, bool durable);
MUST_USE enum err env_file_sync(struct env_file *file); /* fdatasync */
MUST_USE enum err env_file_size(struct env_file *file, uint64_t *size);
MUST_USE enum err env_file_truncate(struct env_file *file, uint64_t size);

/* Replaces `path` by these bytes atomically and durably: a temporary file
 * beside it, sync, rename, sync of the directory. */
MUST_USE enum err env_file_write_whole(struct env *env, const char *path,
                                       const void *data, size_t size);
/* Reads a whole file of at most `limit` bytes; mem_free(*data) is the
 * caller's. ERR_NOT_FOUND, ERR_TOO_LARGE, ERR_IO. */
MUST_USE enum err env_file_read_whole(struct env *env, const char *path,
                                      size_t limit, void **data, size_t *size);
MUST_USE enum err env_file_rename(struct env *env, const char *from,
                                  const char *to); /* not synced */
MUST_USE enum err env_file_unlink(struct env *env, const char *path);

/* Makes the directory and its parents, each durable on return; existing ones
 * are fine. */
MUST_USE enum err env_dir_make(struct env *env, const char *path);
/* Makes names created, renamed or unlinked in the directory durable. */
MUST_USE enum err env_dir_sync(struct env *env, const char *path);
/* Syncs everything un-synced of the file system that holds `path`. */
MUST_USE enum err env_fs_sync(struct env *env, const char *path);
/* Removes the directory with all in it; not synced. ERR_NOT_FOUND. */
MUST_USE enum err env_dir_remove(struct env *env, const char *path);
/* Calls `each` for every name in the directory, sorted by bytes. */
MUST_USE enum err env_dir_list(struct env *env, const char *path,
                               void (*each)(void *arg, const char *name),
                               void *arg);
/* Size of the file system of `path`, and how much may still be written. */
MUST_USE enum err env_fs_space(struct env *env, const char *path,
                               uint64_t *total, uint64_t *available);
/* Takes an exclusive lock on `path`/lock, held until the process ends.
 * ERR_BUSY: another process has it. */
MUST_USE enum err env_dir_lock(struct env *env, const char *path);

/* ---- streams (TCP) ------------------------------------------------------- */
struct env_stream;
struct env_listener;

struct env_stream_ops {
    /* Outgoing only: connected, or failed (then closed comes next). */
    void (*connected)(struct env_stream *stream, enum err status);
    /* Where the next bytes shall go: memory of at least one byte, owned by the
     * callee, valid until the read that follows; no other callback comes
     * between the two, so streams may share it. Size 0 pauses reading. */
    struct iovec (*alloc)(struct env_stream *stream);
    /* `size` > 0 bytes were put where alloc said. status: ERR_OK; ERR_CLOSED
     * (peer closed) or ERR_IO (reset): the owner then closes it. */
    void (*read)(struct env_stream *stream, size_t size, enum err status);
    /* After env_stream_close: all writes were called back, the stream is
     * freed when this returns. */
    void (*closed)(struct env_stream *stream);
};

struct env_write {
    /* status ERR_OK: handed to the kernel; the memory may be reused. */
    void (*cb)(struct env_write *req, enum err status);
    void *arg;
    /* private */
    void *impl[4];
};

/* `address` is "host:port" (IPv4, [IPv6] or a name). The stream exists from
 * the return on; connected is called later. */
struct env_stream *env_stream_connect(struct env *env, const char *address,
                                      const struct env_stream_ops *ops,
                                      void *arg);
void *env_stream_arg(const struct env_stream *stream);
/* Begins reading with these ops on a stream given by a listener. */
void env_stream_start(struct env_stream *stream,
                      const struct env_stream_ops *ops, void *arg);
/* After alloc paused reading: ask it again. */
void env_stream_resume(struct env_stream *stream);
/* Writes all of it in order, or calls back an error. The iovec array is
 * copied; the memory it names stays the caller's and must stay unchanged until
 * the callback. At most ENV_IOV_MAX pieces. */
#define ENV_IOV_MAX 1024
void env_stream_write(struct env_stream *stream, struct env_write *req,
                      const struct iovec *iov, int n_iov);
/* Bytes of writes that the other side's host has not taken, as far as this one
 * knows: whether a slow reader gets on at all. */
size_t env_stream_unsent(const struct env_stream *stream);
void env_stream_close(struct env_stream *stream); /* twice is fine */
/* "host:port" of the other side; "" when unknown. Lives with the stream. */
const char *env_stream_peer(const struct env_stream *stream);

/* `accept` is called on `env`'s thread with a new stream; it must call
 * env_stream_start or env_stream_close on it, at once or later. port 0 in the
 * address: any; env_listener_address says which. */
typedef void (*env_accept_cb)(void *arg, struct env_stream *stream);
MUST_USE enum err env_listen(struct env *env, const char *address,
                             env_accept_cb accept, void *arg,
                             struct env_listener **out);
const char *env_listener_address(const struct env_listener *listener);
/* Stops accepting; the listener is freed later. */
void env_listener_close(struct env_listener *listener);
/* Moves an accepted stream on which nothing is being written to another shard
 * of the same process: `accept` is called there. Bytes already read stay with
 * the reader. If it was started, `closed` is called here (the owner must not
 * touch the stream in between). */
void env_stream_move(struct env_stream *stream, struct env *to,
                     env_accept_cb accept, void *arg);

#endif
