#include "tools/dev.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/mem.h"
#include "metadata/config_keys.h"
#include "tools/config_load.h"
#include "tools/probe.h"

#define TELL_WAITING_S 10
#define BROKERS_MAX LIMIT_SEEDS /* all of them form the cluster */
/* Between two looks at the brokers: while they start, and later. */
#define POLL_STARTING_MS 10
#define POLL_MS 500
/* A broker that does not stop in this time is killed. */
#define STOP_MS 30000
#define PROBE_MS 1000

const struct cli_option dev_options[] = {
    {"brokers", 'n', "COUNT", "how many brokers (default 3)"},
    {"port", 0, "PORT", "of the first broker (default 9092)"},
    {"data", 0, "DIR", "where everything lies (default ./flotilla-data)"},
    {"ephemeral", 0, NULL, "use a temporary directory, removed at the end"},
    {"define", 'D', "KEY=VALUE", "a key of every broker's configuration"},
    {0}};

const char dev_more[] =
    "Broker N listens on PORT+N-1 and keeps data, server.properties, pid and\n"
    "broker.log in DIR/broker-N. A line \"ready: HOST:PORT,...\" is printed "
    "when\nall accept requests. A broker that died is reported;\n"
    "`flotilla server --config DIR/broker-N/server.properties` starts it "
    "again.\n`{n}` in a VALUE of -D is the number of the broker, as in\n"
    "-D broker.rack=rack-{n}. Ctrl-C stops all.\n";

struct dev_broker {
    int number;
    pid_t child;  /* 0: it ended */
    long adopted; /* process that was started by hand; 0: none */
    bool by_hand; /* it was, once */
    bool dead;    /* reported as such */
    int status;   /* of the child, once it ended */
    long log_was; /* size of broker.log when the child was started */
    char dir[LIMIT_PATH - 64];
};

struct dev {
    const struct cli *cli;
    int n, port;
    bool ready;
    char dir[LIMIT_PATH - 128];
    struct dev_broker brokers[BROKERS_MAX];
    sigset_t signals;
};

/* ---- server.properties --------------------------------------------------- */

/* `{n}` in a value stands for the broker's number. */
static void put(FILE *f, const char *key, const char *value, int number)
{
    fprintf(f, "%s=", key);
    for (; *value != '\0'; value++) {
        if (strncmp(value, "{n}", 3) == 0) {
            fprintf(f, "%d", number);
            value += 2;
        } else if (*value == '\n') {
            fputs("\\n", f);
        } else {
            fprintf(f, *value == '\\' ? "\\%c" : "%c", *value);
        }
    }
    fputc('\n', f);
}

static void put_number(FILE *f, const char *key, int value)
{
    fprintf(f, "%s=%d\n", key, value);
}

static void put_properties(FILE *f, const struct dev *dev,
                           const struct dev_broker *b)
{
    int replicas = dev->n < 3 ? dev->n : 3;
    fputs("# Written by `flotilla dev` at every start.\n", f);
    put_number(f, "node.id", b->number);
    fprintf(f, "listeners=PLAINTEXT://127.0.0.1:%d\n",
            dev->port + b->number - 1);
    fprintf(f, "peer.listener=127.0.0.1:%d\n",
            dev->port + dev->n + b->number - 1);
    fputs("seeds=", f);
    for (int i = 0; dev->n > 1 && i < dev->n; i++) {
        fprintf(f, "%s127.0.0.1:%d", i > 0 ? "," : "", dev->port + dev->n + i);
    }
    fputs("\nlog.dirs=", f);
    char data[LIMIT_PATH];
    snprintf(data, sizeof data, "%s/data", b->dir);
    for (const char *p = data; *p != '\0'; p++) {
        fprintf(f, *p == '\\' ? "\\%c" : "%c", *p);
    }
    fputs("\nauto.create.topics.enable=true\nshards=1\n", f);
    put_number(f, "default.replication.factor", replicas);
    put_number(f, "offsets.topic.replication.factor", replicas);
    put_number(f, "transaction.state.log.replication.factor", replicas);
    put_number(f, "transaction.state.log.min.isr", replicas < 2 ? 1 : 2);
    const char *text;
    for (int i = 0; (text = cli_value_at(dev->cli, "define", i)) != NULL; i++) {
        char key[CONFIG_NAME_MAX];
        const char *value =
            cli_key_value(dev->cli, "define", text, key, sizeof key);
        put(f, key, value, b->number);
    }
}

static bool write_properties(const struct dev *dev, const struct dev_broker *b)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (f == NULL) {
        return false;
    }
    put_properties(f, dev, b);
    char path[LIMIT_PATH];
    snprintf(path, sizeof path, "%s/server.properties", b->dir);
    bool ok = fclose(f) == 0 && file_write_atomic(path, text);
    free(text);
    return ok;
}

/* ---- processes ----------------------------------------------------------- */

/* In the child: becomes the broker. It dies with us whatever happens to us;
 * its own process group keeps Ctrl-C for us alone. */
static _Noreturn void become_broker(const struct dev *dev,
                                    const struct dev_broker *b, pid_t parent)
{
    char config[LIMIT_PATH], log[LIMIT_PATH];
    snprintf(config, sizeof config, "%s/server.properties", b->dir);
    snprintf(log, sizeof log, "%s/broker.log", b->dir);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(EXIT_FAILED);
    }
    int in = open("/dev/null", O_RDONLY);
    int out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (in < 0 || out < 0) {
        _exit(cli_fail(dev->cli, EXIT_FAILED, "Cannot write %s: %s.", log,
                       strerror(errno)));
    }
    dup2(in, 0);
    dup2(out, 1);
    dup2(out, 2);
    sigprocmask(SIG_UNBLOCK, &dev->signals, NULL);
    execl("/proc/self/exe", "flotilla", "server", "--config", config,
          (char *)NULL);
    _exit(EXIT_FAILED);
}

static bool start_broker(struct dev *dev, struct dev_broker *b)
{
    if (!path_make_directory(b->dir) || !write_properties(dev, b)) {
        cli_fail(dev->cli, EXIT_FAILED, "Cannot write into %s: %s.", b->dir,
                 strerror(errno));
        return false;
    }
    char log[LIMIT_PATH];
    struct stat st;
    snprintf(log, sizeof log, "%s/broker.log", b->dir);
    b->log_was = stat(log, &st) == 0 ? (long)st.st_size : 0;
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        become_broker(dev, b, parent);
    }
    if (pid < 0) {
        cli_fail(dev->cli, EXIT_FAILED, "Cannot start a process: %s.",
                 strerror(errno));
        return false;
    }
    b->child = pid;
    return true;
}

/* Whether one of a process' arguments is this broker's server.properties. */
static bool has_config(long pid, const struct dev_broker *b)
{
    char path[LIMIT_PATH], args[LIMIT_PATH], cwd[LIMIT_PATH];
    char wanted[PATH_MAX], found[PATH_MAX], named[2 * LIMIT_PATH];
    snprintf(path, sizeof path, "%s/server.properties", b->dir);
    if (realpath(path, wanted) == NULL) {
        return false;
    }
    snprintf(path, sizeof path, "/proc/%ld/cwd", pid);
    ssize_t n_cwd = readlink(path, cwd, sizeof cwd - 1);
    cwd[n_cwd < 0 ? 0 : n_cwd] = '\0';
    snprintf(path, sizeof path, "/proc/%ld/cmdline", pid);
    FILE *f = fopen(path, "r");
    if (f == NULL) {
        return false;
    }
    size_t n = fread(args, 1, sizeof args - 1, f);
    args[n] = '\0';
    fclose(f);
    for (const char *arg = args; arg < args + n; arg += strlen(arg) + 1) {
        const char *value = strncmp(arg, "--config=", 9) == 0 ? arg + 9 : arg;
        snprintf(named, sizeof named, "%s%s%s", *value == '/' ? "" : cwd,
                 *value == '/' ? "" : "/", value);
        if (realpath(named, found) != NULL && strcmp(found, wanted) == 0) {
            return true;
        }
    }
    return false;
}

/* A process that was started by hand for this broker; 0: none. The pid file
 * may be stale and its number another's, so the command line is looked at. */
static long process_by_hand(const struct dev_broker *b)
{
    char path[LIMIT_PATH];
    snprintf(path, sizeof path, "%s/pid", b->dir);
    long pid = pid_file_read(path);
    if (pid == 0 || pid == (long)b->child || kill((pid_t)pid, 0) != 0) {
        return 0;
    }
    return has_config(pid, b) ? pid : 0;
}

/* The last line a broker wrote, usually why it ended. */
static void last_line(const struct dev_broker *b, char *out, size_t size)
{
    char path[LIMIT_PATH], tail[1024];
    out[0] = '\0';
    snprintf(path, sizeof path, "%s/broker.log", b->dir);
    FILE *f = fopen(path, "r");
    if (f == NULL) {
        return;
    }
    if (fseek(f, -(long)(sizeof tail - 1), SEEK_END) != 0) {
        rewind(f);
    }
    size_t n = fread(tail, 1, sizeof tail - 1, f);
    fclose(f);
    while (n > 0 && tail[n - 1] == '\n') {
        n--;
    }
    tail[n] = '\0';
    const char *line = strrchr(tail, '\n');
    snprintf(out, size, "%s", line != NULL ? line + 1 : tail);
}

static void report_death(struct dev *dev, struct dev_broker *b)
{
    char how[64] = "", line[1024];
    if (b->by_hand) {
        /* no child: how it ended is not ours to know */
        snprintf(how, sizeof how, "again");
        b->status = 0;
    } else if (WIFSIGNALED(b->status)) {
        snprintf(how, sizeof how, "by signal %d", WTERMSIG(b->status));
    } else {
        snprintf(how, sizeof how, "with status %d", WEXITSTATUS(b->status));
    }
    cli_fail(dev->cli, EXIT_FAILED, "Broker %d ended %s.", b->number, how);
    last_line(b, line, sizeof line);
    if (WIFEXITED(b->status) && b->status != 0 && line[0] != '\0') {
        fprintf(stderr, "  %s/broker.log: %s\n", b->dir, line);
    }
    if (dev->ready) {
        fprintf(stderr,
                "  To start it again: flotilla server --config "
                "%s/server.properties\n",
                b->dir);
    }
}

static void reap(struct dev *dev)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (int i = 0; i < dev->n; i++) {
            if (dev->brokers[i].child == pid) {
                dev->brokers[i].child = 0;
                dev->brokers[i].status = status;
            }
        }
    }
}

/* Looks at every broker, tells what changed. Gives how many run. */
static int look(struct dev *dev)
{
    int running = 0;
    reap(dev);
    for (int i = 0; i < dev->n; i++) {
        struct dev_broker *b = &dev->brokers[i];
        b->adopted = b->child == 0 ? process_by_hand(b) : 0;
        bool runs = b->child != 0 || b->adopted != 0;
        b->by_hand = b->by_hand || b->adopted != 0;
        if (!runs && !b->dead) {
            report_death(dev, b);
        } else if (runs && b->dead) {
            fprintf(stderr, "Broker %d runs again, as process %ld.\n",
                    b->number, b->adopted);
        }
        b->dead = !runs;
        running += runs;
    }
    return running;
}

/* The broker that we started says that it listens: on its port another's may
 * answer. */
static bool says_ready(const struct dev_broker *b)
{
    char path[LIMIT_PATH], line[1024];
    bool ready = false;
    snprintf(path, sizeof path, "%s/broker.log", b->dir);
    FILE *f = fopen(path, "r");
    if (f == NULL) {
        return false;
    }
    (void)fseek(f, b->log_was, SEEK_SET);
    while (!ready && fgets(line, sizeof line, f) != NULL) {
        ready = strncmp(line, "ready: ", 7) == 0;
    }
    fclose(f);
    return ready;
}

/* ---- the whole ----------------------------------------------------------- */

static bool all_ready(const struct dev *dev)
{
    for (int i = 0; i < dev->n; i++) {
        struct probe p;
        char address[32], why[256];
        snprintf(address, sizeof address, "127.0.0.1:%d", dev->port + i);
        if (!says_ready(&dev->brokers[i]) ||
            !probe_broker(address, PROBE_MS, &p, why, sizeof why) ||
            p.n_brokers != dev->n || p.controller < 0) {
            return false;
        }
    }
    return true;
}

static void print_ready(const struct dev *dev)
{
    printf("ready: ");
    for (int i = 0; i < dev->n; i++) {
        printf("%s127.0.0.1:%d", i > 0 ? "," : "", dev->port + i);
    }
    printf("\n");
    fflush(stdout);
}

/* Waits for a signal; 0: none came. */
static int wait_signal(const struct dev *dev, long ms)
{
    struct timespec limit = {ms / 1000, ms % 1000 * 1000000};
    int signo = sigtimedwait(&dev->signals, NULL, &limit);
    return signo < 0 ? 0 : signo;
}

static void signal_all(const struct dev *dev, int signo)
{
    for (int i = 0; i < dev->n; i++) {
        const struct dev_broker *b = &dev->brokers[i];
        if (b->child != 0) {
            kill(b->child, signo);
        } else if (b->adopted != 0) {
            kill((pid_t)b->adopted, signo);
        }
    }
}

static int n_running(struct dev *dev)
{
    int running = 0;
    reap(dev);
    for (int i = 0; i < dev->n; i++) {
        struct dev_broker *b = &dev->brokers[i];
        if (b->adopted != 0 && kill((pid_t)b->adopted, 0) != 0) {
            b->adopted = 0;
        }
        running += b->child != 0 || b->adopted != 0;
    }
    return running;
}

static void stop_all(struct dev *dev)
{
    signal_all(dev, SIGTERM);
    for (long waited = 0; n_running(dev) > 0; waited += 20) {
        int signo = wait_signal(dev, 20);
        if (signo == SIGINT || signo == SIGTERM) {
            signal_all(dev, SIGTERM); /* the second one hurries */
        }
        if (waited >= STOP_MS) {
            signal_all(dev, SIGKILL);
        }
    }
}

/* Once, when it takes long: what the brokers say. */
static void tell_waiting(const struct dev *dev)
{
    fprintf(stderr, "flotilla dev: Not ready yet. What the brokers say:\n");
    for (int i = 0; i < dev->n; i++) {
        const struct dev_broker *b = &dev->brokers[i];
        char line[1024];
        last_line(b, line, sizeof line);
        fprintf(stderr, "  %s/broker.log: %s\n", b->dir, line);
    }
}

/* Until a signal or the end of all brokers. */
static int attend(struct dev *dev)
{
    time_t begun = time(NULL);
    bool told = false;
    for (;;) {
        int signo = wait_signal(dev, dev->ready ? POLL_MS : POLL_STARTING_MS);
        if (!dev->ready && !told && time(NULL) - begun > TELL_WAITING_S) {
            told = true;
            tell_waiting(dev);
        }
        if (signo == SIGINT || signo == SIGTERM || signo == SIGHUP) {
            return EXIT_DONE;
        }
        int running = look(dev);
        if (running == 0) {
            return cli_fail(dev->cli, EXIT_FAILED, "All brokers are dead.");
        }
        if (!dev->ready && running < dev->n) {
            return cli_fail(dev->cli, EXIT_FAILED,
                            "Not all brokers could start; the others are "
                            "stopped.");
        }
        if (!dev->ready && all_ready(dev)) {
            dev->ready = true;
            print_ready(dev);
        }
    }
}

static int remove_one(const char *path, const struct stat *st, int type,
                      struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static bool choose_directory(struct dev *dev, bool ephemeral)
{
    if (ephemeral) {
        const char *tmp = getenv("TMPDIR");
        snprintf(dev->dir, sizeof dev->dir, "%s/flotilla-XXXXXX",
                 tmp != NULL && tmp[0] == '/' ? tmp : "/tmp");
        if (mkdtemp(dev->dir) == NULL) {
            cli_fail(dev->cli, EXIT_FAILED, "Cannot make %s: %s.", dev->dir,
                     strerror(errno));
            return false;
        }
        return true;
    }
    char *path = path_absolute(cli_value(dev->cli, "data", "flotilla-data"));
    bool fits = strlen(path) < sizeof dev->dir - 64;
    snprintf(dev->dir, sizeof dev->dir, "%s", path);
    mem_free(path);
    if (!fits) {
        cli_fail(dev->cli, EXIT_FAILED, "--data: the path is too long.");
    }
    return fits;
}

static void warn_define(void *arg, const char *sentence)
{
    (void)arg;
    fprintf(stderr, "flotilla dev: %s\n", sentence);
}

/* A wrong -D is told here, once, rather than by every broker's log. */
static bool check_defines(const struct cli *cli)
{
    const struct config_problem_fn warn = {warn_define, NULL};
    struct broker_config *c = broker_config_new();
    bool ok = true;
    const char *text;
    for (int i = 0; ok && (text = cli_value_at(cli, "define", i)) != NULL;
         i++) {
        char key[CONFIG_NAME_MAX], why[1024];
        const char *value = cli_key_value(cli, "define", text, key, sizeof key);
        if (broker_config_set(c, key, value, "-D", &warn, why, sizeof why) !=
            ERR_OK) {
            cli_fail(cli, EXIT_FAILED, "%s", why);
            ok = false;
        }
    }
    broker_config_free(c);
    return ok;
}

/* Names the brokers. False: one runs already, and is not ours to stop. */
static bool name_brokers(struct dev *dev)
{
    for (int i = 0; i < dev->n; i++) {
        struct dev_broker *b = &dev->brokers[i];
        b->number = i + 1;
        snprintf(b->dir, sizeof b->dir, "%s/broker-%d", dev->dir, b->number);
        long pid = process_by_hand(b);
        if (pid != 0) {
            cli_fail(dev->cli, EXIT_FAILED,
                     "%s is in use: broker %d runs already, as process %ld. "
                     "Stop it first, or choose another --data and --port.",
                     dev->dir, b->number, pid);
            return false;
        }
    }
    return true;
}

/* Brokers keep their numbers and, when there are several, the addresses of each
 * other: another -n or --port would wait for ever. */
static bool same_cluster(const struct dev *dev)
{
    char path[LIMIT_PATH], line[512];
    int n = 0;
    int first_port = 0;
    bool same = true;
    snprintf(path, sizeof path, "%s/broker-1/data/meta.properties", dev->dir);
    FILE *f = fopen(path, "r");
    if (f == NULL) {
        return true; /* a new one */
    }
    while (fgets(line, sizeof line, f) != NULL) {
        const char *colon = strrchr(line, ':');
        if (strncmp(line, "member=", 7) != 0 || colon == NULL) {
            continue;
        }
        int port = atoi(colon + 1);
        same = same && port == dev->port + dev->n + n;
        first_port = n++ == 0 ? port : first_port;
    }
    fclose(f);
    if (n == 0 || (n == dev->n && (same || n == 1))) {
        return true;
    }
    cli_fail(dev->cli, EXIT_FAILED,
             "%s has the data of %d broker%s that `flotilla dev -n %d --port "
             "%d` began. Start %s so again, or choose another --data.",
             dev->dir, n, n == 1 ? "" : "s", n, first_port - n,
             n == 1 ? "it" : "them");
    return false;
}

static void catch_signals(struct dev *dev)
{
    static const int wanted[] = {SIGINT, SIGTERM, SIGHUP, SIGCHLD};
    sigemptyset(&dev->signals);
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        sigaddset(&dev->signals, wanted[i]);
    }
    sigprocmask(SIG_BLOCK, &dev->signals, NULL);
}

int dev_run(struct cli *cli)
{
    struct dev *dev = mem_zalloc(sizeof *dev);
    dev->cli = cli;
    dev->n = (int)cli_number(cli, "brokers", 3, 1, BROKERS_MAX);
    dev->port = (int)cli_number(cli, "port", 9092, 1, 65536 - 2 * BROKERS_MAX);
    bool ephemeral = cli_has(cli, "ephemeral");
    int status = EXIT_FAILED;
    if (check_defines(cli) && choose_directory(dev, ephemeral) &&
        name_brokers(dev) && same_cluster(dev)) {
        catch_signals(dev);
        bool started = true;
        for (int i = 0; started && i < dev->n; i++) {
            started = start_broker(dev, &dev->brokers[i]);
        }
        status = started ? attend(dev) : EXIT_FAILED;
        stop_all(dev);
        if (ephemeral) {
            nftw(dev->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
        }
    }
    mem_free(dev);
    return status;
}
