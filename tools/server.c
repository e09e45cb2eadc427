#include "tools/server.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/env_uv.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/broker.h"
#include "net/layout.h"
#include "tools/config_load.h"

/* People want to know what a start waits for, soon and then now and then. */
#define WAIT_FIRST_MS 2000
#define WAIT_AGAIN_MS 10000

const struct cli_option server_options[] = {
    {"config", 0, "FILE", "Kafka's server.properties"},
    {"seeds", 0, "HOST:PORT,...",
     "peer addresses of the brokers that form the cluster"},
    {"define", 'D', "KEY=VALUE", "a key of the configuration; the last wins"},
    {"strict-config", 0, NULL, "refuse unknown keys"},
    {0}};

struct server {
    const struct cli *cli;
    struct broker_config *config;
    struct broker *broker;
    unsigned n_shards;
    struct env *envs[BROKER_SHARDS_MAX];
    struct env_deferred started;
    struct env_timer waiting;
    bool ready;
    int n_signals;
    char pid_path[LIMIT_PATH];
};

/* ---- what the broker tells ----------------------------------------------- */

static void on_ready(void *arg, struct broker *broker)
{
    struct server *s = arg;
    s->ready = true;
    env_timer_stop(&s->waiting);
    /* tools that start Kafka in containers wait for this wording */
    log_info("server", "Transitioning from RECOVERY to RUNNING");
    log_info("server",
             "ready, what is acknowledged to all is synced on a majority "
             "address=%s",
             broker_address(broker));
    printf("ready: %s\n", broker_address(broker));
    fflush(stdout);
    clearerr(stdout); /* nobody need listen */
}

/* Other threads may run, so nothing is torn down: the log is made for that. */
static void on_failed(void *arg, const char *sentence)
{
    struct server *s = arg;
    _exit(cli_fail(s->cli, EXIT_FAILED, "%s", sentence));
}

static void on_stopped(void *arg)
{
    struct server *s = arg;
    for (unsigned i = 0; i < s->n_shards; i++) {
        env_uv_stop(s->envs[i]);
    }
}

static void on_waiting(struct env_timer *timer)
{
    struct server *s = timer->arg;
    const char *what = broker_waiting_for(s->broker);
    log_info("server", "not ready yet: %s",
             what[0] != '\0' ? what
                             : "most of the brokers that formed the cluster "
                               "are waited for; they must be up, at the "
                               "addresses they had");
    env_timer_start(timer, WAIT_AGAIN_MS);
}

/* After the broker's first step: the data directory is ours. */
static void on_started(struct env_deferred *d)
{
    struct server *s = d->arg;
    char text[32];
    snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (!file_write_atomic(s->pid_path, text)) {
        log_warn("server", "cannot write %s: %s", s->pid_path, strerror(errno));
    }
}

static void on_signal(void *arg, int signo)
{
    struct server *s = arg;
    if (signo == SIGHUP) {
        log_info("server", "SIGHUP: there is nothing to read again as yet");
        return;
    }
    s->n_signals++;
    log_info("server", s->n_signals == 1 ? "stopping" : "stopping now");
    if (s->n_signals > 2) {
        _exit(EXIT_FAILED);
    }
    env_timer_stop(&s->waiting);
    broker_stop(s->broker);
}

/* ---- running ------------------------------------------------------------- */

/* As configured; else as many as the data has; else half the cores. A layout
 * that cannot be read is for the broker to complain about. */
static unsigned shards_wanted(struct env *env,
                              const struct broker_config *config)
{
    struct layout layout = {0};
    int64_t n = broker_config_int(config, "shards");
    if (n == 0 && layout_read(env, broker_config_get(config, "log.dirs"),
                              &layout) == ERR_OK) {
        n = layout.n_shards;
    }
    if (n == 0) {
        n = sysconf(_SC_NPROCESSORS_ONLN) / 2;
    }
    n = n < 1 ? 1 : n;
    return (unsigned)(n > BROKER_SHARDS_MAX ? BROKER_SHARDS_MAX : n);
}

/* The first of them is used. */
static char *data_directory(const struct broker_config *config)
{
    char *data = mem_strdup(broker_config_get(config, "log.dirs"));
    data[strcspn(data, ",")] = '\0';
    return data;
}

/* What the system says here, the broker can no longer tell. */
static bool prepare_directory(struct server *s)
{
    char *data = data_directory(s->config);
    char *parent = path_parent(data);
    const char *used = parent;
    bool ok = path_make_directory(parent);
    if (ok) {
        used = data;
        ok = path_make_directory(data) && path_is_directory(data) &&
             access(data, R_OK | W_OK | X_OK) == 0;
    }
    if (!ok) {
        cli_fail(s->cli, EXIT_FAILED,
                 "The data directory %s cannot be used: %s. Give this user "
                 "(%ld) a directory of its own there, or change log.dirs.",
                 used, strerror(errno), (long)geteuid());
    }
    mem_free(data);
    snprintf(s->pid_path, sizeof s->pid_path, "%s/pid", parent);
    mem_free(parent);
    return ok;
}

static void serve(struct server *s)
{
    struct env_uv_options shard0 = {.on_signal = on_signal, .arg = s};
    s->envs[0] = env_uv_new(&shard0);
    s->n_shards = shards_wanted(s->envs[0], s->config);
    struct broker_options options = {.n_shards = s->n_shards,
                                     .config = s->config,
                                     .ready = on_ready,
                                     .failed = on_failed,
                                     .stopped = on_stopped,
                                     .arg = s};
    for (unsigned i = 0; i < s->n_shards; i++) {
        s->envs[i] = i == 0 ? s->envs[0] : env_uv_new(NULL);
        options.envs[i] = s->envs[i];
    }
    s->broker = broker_start(&options);
    s->started = (struct env_deferred){.cb = on_started, .arg = s};
    env_defer(s->envs[0], &s->started);
    env_timer_init(s->envs[0], &s->waiting, on_waiting, s);
    env_timer_start(&s->waiting, WAIT_FIRST_MS);
    for (unsigned i = 1; i < s->n_shards; i++) {
        env_uv_thread_start(s->envs[i]);
    }
    env_uv_run(s->envs[0]);
    for (unsigned i = 1; i < s->n_shards; i++) {
        env_uv_thread_join(s->envs[i]);
    }
    env_timer_stop(&s->waiting);
    broker_free(s->broker);
    for (unsigned i = 0; i < s->n_shards; i++) {
        env_uv_free(s->envs[i]);
    }
}

int server_run(struct cli *cli)
{
    struct server s = {.cli = cli};
    log_set_sink(env_uv_log_sink, NULL);
    /* tools that turn logs over send them; they shall not end a broker */
    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR2, SIG_IGN);
    s.config = config_load(cli);
    if (s.config == NULL) {
        return EXIT_FAILED;
    }
    if (prepare_directory(&s)) {
        serve(&s);
        if (pid_file_read(s.pid_path) == (long)getpid()) {
            unlink(s.pid_path);
        }
        log_info("server", "stopped");
    }
    broker_config_free(s.config);
    return s.n_signals > 0 ? EXIT_DONE : EXIT_FAILED;
}
