/* The real environment, on libuv. One env, one loop, one thread. */
#ifndef BASE_ENV_UV_H
#define BASE_ENV_UV_H

#include "base/env.h"
#include "base/log.h"

struct env_uv_options {
    /* Called on the loop for SIGTERM, SIGINT and SIGHUP; NULL leaves signals
     * alone. For one env of a process (shard 0). */
    void (*on_signal)(void *arg, int signo);
    void *arg;
};

/* NULL options are all zero. Ignores SIGPIPE for the process. Never NULL. */
struct env *env_uv_new(const struct env_uv_options *options);
/* Runs the loop on the calling thread until env_uv_stop. */
void env_uv_run(struct env *env);
/* Ends env_uv_run at its next turn. From any thread, also before it runs. */
void env_uv_stop(struct env *env);
/* Runs the env on a thread of its own; join waits for its end. */
void env_uv_thread_start(struct env *env);
void env_uv_thread_join(struct env *env);
/* After the loop ended, on any thread: works that were submitted are finished
 * (their `done` is not called), streams and listeners are closed and freed
 * without callbacks, locks are given up. */
void env_uv_free(struct env *env);

/* A log sink for log_set_sink: logfmt with UTC time on stderr, one write a
 * line. */
void env_uv_log_sink(void *arg, enum log_level level, const char *component,
                     const char *line);

#endif
