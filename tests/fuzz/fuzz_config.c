/* Configuration. Input: u8 what: 0 a properties file, 1 lines `key=value` as -D
 * gives them, 2 lines of environment variables, 3 addresses; u8 flags (1:
 * strict); then text. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "metadata/config_listeners.h"
#include "tests/fuzz/fuzz.h"

static char why[1024];
static size_t heard;

static void note(void *arg, const char *sentence)
{
    (void)arg;
    heard += strlen(sentence);
}
static const struct config_problem_fn on_warn = {note, NULL};

/* Everything a broker asks of it. */
static void use(const struct broker_config *c)
{
    const struct config_key *keys;
    struct config_listeners listeners;
    char names[256], seed[LIMIT_ADDRESS];
    int n = config_keys(CONFIG_BROKER, &keys);
    for (int i = 0; i < n; i++) {
        const char *v = broker_config_get(c, keys[i].name);
        char text[1024];
        FUZZ_CHECK(v == NULL || v[0] == '\0' ||
                   config_value_check(&keys[i], v, text, sizeof text) ==
                       ERR_OK);
        heard += strlen(broker_config_source(c, keys[i].name));
        if (v != NULL &&
            (keys[i].type == CONFIG_INT || keys[i].type == CONFIG_LONG)) {
            (void)broker_config_int(c, keys[i].name);
        }
    }
    (void)broker_config_ignored(c, names, sizeof names);
    if (broker_config_validate(c, why, sizeof why) == ERR_OK) {
        (void)!config_listeners_read(c, &listeners, why, sizeof why);
        for (int i = 0; config_seed(c, i, seed); i++) {
            heard += strlen(seed);
        }
    }
}

static void set(struct broker_config *c, const char *key, const char *value)
{
    (void)!broker_config_set(c, key, value, "-D", &on_warn, why, sizeof why);
}

/* Calls once a line, cut at `=`. */
static void lines(struct broker_config *c, char *text, bool environment)
{
    char key[CONFIG_NAME_MAX];
    for (char *at = text, *next; at != NULL; at = next) {
        next = strchr(at, '\n');
        if (next != NULL) {
            *next++ = '\0';
        }
        char *value = strchr(at, '=');
        if (value == NULL) {
            continue;
        }
        *value++ = '\0';
        if (!environment) {
            set(c, at, value);
        } else if (config_key_from_env(at, key, sizeof key)) {
            set(c, key, value);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, size};
    uint64_t what = fuzz_uint(&in, 1) % 4, flags = fuzz_uint(&in, 1);
    struct broker_config *c = broker_config_new();
    char *text = malloc(in.left + 1), host[64];
    int32_t port;
    FUZZ_CHECK(text != NULL);
    memcpy(text, in.p, in.left);
    text[in.left] = '\0';
    broker_config_strict(c, flags & 1);
    switch (what) {
        case 0: {
            uint8_t *exact = fuzz_copy(in.p, in.left);
            (void)!broker_config_parse(c, (const char *)exact, in.left, "file",
                                       &on_warn, why, sizeof why);
            free(exact);
            break;
        }
        case 1:
            lines(c, text, false);
            break;
        case 2:
            lines(c, text, true);
            break;
        default:
            (void)config_address_split(text, host, sizeof host, &port);
            break;
    }
    use(c);
    broker_config_free(c);
    free(text);
    return 0;
}

static void seed(const char *name, uint8_t what, const char *text)
{
    struct buffer b = {0};
    uint8_t head[2] = {what, 0};
    buffer_append(&b, head, 2);
    buffer_append(&b, text, strlen(text));
    fuzz_seed(name, b.data, b.size);
    buffer_free(&b);
}

void fuzz_seeds(void)
{
    seed("file", 0,
         "# comment\n! another\n\nnode.id=7\r\n  num.partitions : 12\n"
         "broker.rack\tr\\u00e9\\tck\nlog.dirs=/a\\\n    /b;c#d\n"
         "listeners=PLAINTEXT://0.0.0.0:9092\n"
         "advertised.listeners=PLAINTEXT://b1:9092\n"
         "seeds=b1:9093,[::1]:9094\nlog.retention.hours=1\n"
         "message.max.bytes=2097152");
    seed("option", 1,
         "peer.listener=b1:9093\nlisteners=PLAINTEXT://[::1]:9092\nunknown=3\n"
         "delete.topic.enable=FALSE\nmin.insync.replicas=2\n"
         "log.segment.bytes=1048576\n");
    seed("environment", 2,
         "NUM_PARTITIONS=12\nNODE_ID=3\nLOG_DIRS=/d\nHEAP_OPTS=-Xmx\n"
         "SEEDS=b1:9093\nA__B___C=1\n");
    seed("address", 3, "[fe80::1]:9092");
}
