#include "tools/config_load.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "metadata/config_listeners.h"

extern char **environ;

/* ---- paths and small files ----------------------------------------------- */

char *path_absolute(const char *path)
{
    char cwd[LIMIT_PATH];
    if (path[0] == '/' || getcwd(cwd, sizeof cwd) == NULL) {
        return mem_strdup(path);
    }
    while (strncmp(path, "./", 2) == 0) {
        path += 2;
    }
    size_t n = strlen(cwd) + 1 + strlen(path) + 1;
    char *out = mem_alloc(n);
    snprintf(out, n, "%s/%s", cwd, path);
    return out;
}

char *path_parent(const char *path)
{
    char *out = mem_strdup(path);
    size_t n = strlen(out);
    while (n > 1 && out[n - 1] == '/') {
        out[--n] = '\0';
    }
    char *slash = strrchr(out, '/');
    if (slash == NULL) {
        snprintf(out, n + 1, ".");
    } else {
        slash[slash == out] = '\0';
    }
    return out;
}

bool path_make_directory(const char *path)
{
    char *copy = mem_strdup(path);
    bool ok = true;
    for (char *p = copy + 1; ok && *p != '\0'; p++) {
        if (*p == '/') {
            *p = '\0';
            ok = mkdir(copy, 0777) == 0 || errno == EEXIST;
            *p = '/';
        }
    }
    ok = ok && (mkdir(copy, 0777) == 0 || errno == EEXIST);
    mem_free(copy);
    return ok;
}

bool path_is_directory(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        return false;
    }
    errno = S_ISDIR(st.st_mode) ? 0 : ENOTDIR;
    return errno == 0;
}

bool file_write_atomic(const char *path, const char *text)
{
    char temporary[LIMIT_PATH];
    snprintf(temporary, sizeof temporary, "%s.%ld.new", path, (long)getpid());
    FILE *f = fopen(temporary, "w");
    if (f == NULL) {
        return false;
    }
    bool ok = fputs(text, f) >= 0;
    ok = fclose(f) == 0 && ok;
    if (!ok || rename(temporary, path) != 0) {
        int saved = errno;
        unlink(temporary);
        errno = saved;
        return false;
    }
    return true;
}

long pid_file_read(const char *path)
{
    char text[32] = "";
    FILE *f = fopen(path, "r");
    if (f == NULL) {
        return 0;
    }
    if (fgets(text, sizeof text, f) == NULL) {
        text[0] = '\0';
    }
    fclose(f);
    long pid = strtol(text, NULL, 10);
    return pid > 1 ? pid : 0;
}

/* ---- configuration ------------------------------------------------------- */

static void warn(void *arg, const char *sentence)
{
    (void)arg;
    log_warn("config", "%s", sentence);
}
static const struct config_problem_fn on_problem = {warn, NULL};

struct load {
    const struct cli *cli;
    struct broker_config *config;
    char why[1024];
};

static bool refuse(const struct load *load)
{
    cli_fail(load->cli, EXIT_FAILED, "%s", load->why);
    return false;
}

static bool read_file(struct load *load, const char *path)
{
    FILE *f = fopen(path, "r");
    if (f == NULL) {
        cli_fail(load->cli, EXIT_FAILED,
                 "Cannot read the configuration %s: %s.", path,
                 strerror(errno));
        return false;
    }
    char *text = mem_alloc(LIMIT_CONFIG_FILE + 1);
    size_t n = fread(text, 1, LIMIT_CONFIG_FILE + 1, f);
    bool ok = ferror(f) == 0;
    if (!ok) {
        snprintf(load->why, sizeof load->why,
                 "Cannot read the configuration %s: %s.", path,
                 strerror(errno));
    }
    fclose(f);
    ok = ok && broker_config_parse(load->config, text, n, path, &on_problem,
                                   load->why, sizeof load->why) == ERR_OK;
    mem_free(text);
    return ok || refuse(load);
}

/* Containers are full of variables, so an unknown one only warns. */
static bool read_environment(struct load *load, const char *prefix)
{
    size_t n = strlen(prefix);
    for (char **e = environ; *e != NULL; e++) {
        const char *equals = strchr(*e, '=');
        char name[CONFIG_NAME_MAX], key[CONFIG_NAME_MAX];
        if (strncmp(*e, prefix, n) != 0 || equals == NULL ||
            (size_t)(equals - *e) >= sizeof name) {
            continue;
        }
        snprintf(name, sizeof name, "%.*s", (int)(equals - *e), *e);
        if (!config_key_from_env(name + n, key, sizeof key)) {
            continue;
        }
        if (broker_config_set(load->config, key, equals + 1, name, &on_problem,
                              load->why, sizeof load->why) != ERR_OK) {
            return refuse(load);
        }
    }
    return true;
}

static bool read_arguments(struct load *load)
{
    const char *text = cli_value(load->cli, "seeds", NULL);
    if (text != NULL &&
        broker_config_set(load->config, "seeds", text, "--seeds", &on_problem,
                          load->why, sizeof load->why) != ERR_OK) {
        return refuse(load);
    }
    for (int i = 0; (text = cli_value_at(load->cli, "define", i)) != NULL;
         i++) {
        char key[CONFIG_NAME_MAX];
        const char *value =
            cli_key_value(load->cli, "define", text, key, sizeof key);
        if (broker_config_set(load->config, key, value, "-D", &on_problem,
                              load->why, sizeof load->why) != ERR_OK) {
            return refuse(load);
        }
    }
    return true;
}

/* The name others find this machine by; "localhost" when it has none that
 * resolves. */
static void machine_name(char *out, size_t size)
{
    struct addrinfo *found = NULL;
    if (gethostname(out, size) != 0 || out[0] == '\0' ||
        memchr(out, '\0', size) == NULL ||
        getaddrinfo(out, NULL, NULL, &found) != 0) {
        snprintf(out, size, "localhost");
    }
    if (found != NULL) {
        freeaddrinfo(found);
    }
}

static bool fill_in(struct load *load, const char *key, const char *value)
{
    return broker_config_set(load->config, key, value, "the machine's name",
                             NULL, load->why, sizeof load->why) == ERR_OK ||
           refuse(load);
}

/* Writes out what follows from other keys, so that nobody guesses twice. */
static bool complete_listeners(struct load *load)
{
    struct config_listeners l;
    if (config_listeners_read(load->config, &l, load->why, sizeof load->why) !=
        ERR_OK) {
        return refuse(load);
    }
    char name[256], text[CONFIG_LISTENERS_MAX * 400] = "";
    machine_name(name, sizeof name);
    for (int i = 0; i < l.n; i++) {
        const struct config_listener *a = &l.advertised[i];
        const char *host = a->host[0] != '\0' ? a->host : name;
        bool v6 = strchr(host, ':') != NULL;
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "%s%s://%s%s%s:%d",
                 i > 0 ? "," : "", a->name, v6 ? "[" : "", host, v6 ? "]" : "",
                 (int)a->port);
    }
    char peer[2 * LIMIT_ADDRESS];
    snprintf(peer, sizeof peer, "%s%s", l.peer_advertised[0] == ':' ? name : "",
             l.peer_advertised);
    return fill_in(load, "advertised.listeners", text) &&
           fill_in(load, "peer.listener", l.peer_listen) &&
           fill_in(load, "advertised.peer.listener", peer);
}

/* Kafka would guard something by it. */
static bool asks_for_security(const struct broker_config *config,
                              const char *key)
{
    static const struct {
        const char *key, *harmless; /* its value that asks for nothing */
    } known[] = {{"authorizer.class.name", ""},
                 {"delegation.token.secret.key", ""},
                 {"sasl.enabled.mechanisms", ""},
                 {"security.inter.broker.protocol", "PLAINTEXT"},
                 {"ssl.client.auth", "none"},
                 {"super.users", ""}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(key, known[i].key) == 0) {
            const char *value = broker_config_get(config, key);
            return value != NULL && strcmp(value, known[i].harmless) != 0;
        }
    }
    return strncmp(key, "ssl.", 4) == 0 || strncmp(key, "sasl.", 5) == 0 ||
           strstr(key, ".ssl.") != NULL || strstr(key, ".sasl.") != NULL;
}

/* Nobody shall believe in a lock that is not there: --strict-config refuses. */
static bool check_security(struct load *load, char *names)
{
    char asking[LIMIT_LOG_LINE / 4] = "";
    char *rest;
    for (char *key = strtok_r(names, ", ", &rest); key != NULL;
         key = strtok_r(NULL, ", ", &rest)) {
        size_t used = strlen(asking);
        if (asks_for_security(load->config, key)) {
            snprintf(asking + used, sizeof asking - used, "%s%s",
                     used > 0 ? ", " : "", key);
        }
    }
    if (asking[0] == '\0') {
        return true;
    }
    snprintf(load->why, sizeof load->why,
             "There is no TLS, SASL or ACL here yet, which these keys ask for: "
             "%.700s. Everybody who reaches the listeners may do everything",
             asking);
    if (cli_has(load->cli, "strict-config")) {
        return refuse(load);
    }
    log_warn("config", "%s; run this in a network you trust", load->why);
    return true;
}

static bool report_ignored(struct load *load)
{
    char names[LIMIT_LOG_LINE / 2];
    if (broker_config_ignored(load->config, names, sizeof names) > 0) {
        log_info("config", "keys that mean nothing here: %s", names);
    }
    return check_security(load, names);
}

struct broker_config *config_load(const struct cli *cli)
{
    struct load load = {.cli = cli, .config = broker_config_new()};
    const char *path = cli_value(cli, "config", NULL);
    bool strict = cli_has(cli, "strict-config");
    broker_config_strict(load.config, strict);
    bool ok = path == NULL || read_file(&load, path);
    broker_config_strict(load.config, false);
    ok = ok && read_environment(&load, "KAFKA_") &&
         read_environment(&load, "FLOTILLA_");
    broker_config_strict(load.config, strict);
    ok = ok && read_arguments(&load);
    if (ok && broker_config_validate(load.config, load.why, sizeof load.why) !=
                  ERR_OK) {
        ok = refuse(&load);
    }
    ok = ok && complete_listeners(&load) && report_ignored(&load);
    if (!ok) {
        broker_config_free(load.config);
        return NULL;
    }
    return load.config;
}
