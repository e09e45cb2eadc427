/* The composition root. Start, in order: identity of the data directory;
 * every shard recovers its log on its own thread; the peer listener opens;
 * the metadata group forms or is found; partitions are opened as the metadata
 * image names them; registered, the client listener opens and the broker is
 * ready. Any failure before that is one sentence through options->failed. */
#include "net/broker.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/broker_impl.h"
#include "net/listener.h"
#include "net/memory.h"
#include "net/orphans.h"
#include "net/throttle.h"

unsigned broker_n_shards(const struct broker *b)
{
    return b->options.n_shards;
}

struct broker_shard *broker_shard(const struct broker *b, unsigned index)
{
    ASSERT(index < b->options.n_shards);
    return b->shards[index];
}

const struct broker_config *broker_static_config(const struct broker *b)
{
    return b->config;
}

struct metadata *broker_metadata(const struct broker *b)
{
    return b->metadata;
}

struct throttle *broker_throttle(const struct broker *b)
{
    return b->throttle;
}

node_id broker_node(const struct broker *b)
{
    return b->identity.node;
}

node_id broker_controller(const struct broker *b)
{
    return atomic_load_explicit(&b->controller, memory_order_relaxed);
}

const char *broker_data_dir(const struct broker *b)
{
    return b->dir;
}

const char *broker_address(const struct broker *b)
{
    return b->address;
}

const char *broker_waiting_for(const struct broker *b)
{
    return b->metadata == NULL ? b->waiting : metadata_waiting_for(b->metadata);
}

void broker_fail(struct broker *b, const char *format, ...)
{
    if (b->failed) {
        return;
    }
    b->failed = true;
    char sentence[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    b->options.failed(b->options.arg, sentence);
}

/* ---- clients are let in -------------------------------------------------- */
static void address_of(const char *host, int32_t port, char *out, size_t size)
{
    snprintf(out, size, strchr(host, ':') != NULL ? "[%s]:%d" : "%s:%d", host,
             (int)port);
}

/* Why it cannot be listened on an address, and what then helps. */
static const char *listen_why(enum err e)
{
    switch ((int)e) {
        case ERR_BUSY:
            return "the port is in use; stop what uses it";
        case ERR_UNREACHABLE:
            return "this machine has no such address; name one of its own";
        default:
            return err_text(e);
    }
}

static bool client_listen_one(struct broker *b, int i)
{
    const struct config_listener *l = &b->addresses.listen[i];
    char address[LIMIT_ADDRESS + 16];
    address_of(l->host[0] == '\0' ? "0.0.0.0" : l->host, l->port, address,
               sizeof address);
    enum err e =
        listener_open(b->shards[0], address, l->name, &b->listeners[i]);
    if (e != ERR_OK) {
        broker_fail(b, "Cannot listen on %s: %s, or change `listeners`.",
                    address, listen_why(e));
        return false;
    }
    return true;
}

void broker_partitions_dir(const struct broker *b, char out[BROKER_PATH_SIZE])
{
    snprintf(out, BROKER_PATH_SIZE, "%s/partitions", b->dir);
}

static void client_listen(struct broker *b)
{
    for (int i = 0; i < b->addresses.n; i++) {
        if (!client_listen_one(b, i)) {
            return;
        }
    }
    const struct config_listener *a = &b->addresses.advertised[0];
    address_of(a->host, a->port, b->address, sizeof b->address);
    b->ready = true;
    b->options.ready(b->options.arg, b);
}

static void metadata_ready(void *arg)
{
    struct broker *b = arg;
    atomic_store(&b->controller, metadata_leader(b->metadata));
    if (!b->ready && !b->failed && !b->stopping) {
        char partitions[BROKER_PATH_SIZE];
        broker_partitions_dir(b, partitions);
        orphans_sweep(b->shards[0], partitions);
        client_listen(b);
    }
}

static void metadata_refused(void *arg, const char *sentence)
{
    broker_fail(arg, "%s", sentence);
}

static bool metadata_local_leader(void *arg, const struct group_id *group,
                                  node_id *leader, int32_t *epoch)
{
    struct broker *b = arg;
    const struct shard_leader *known = shard_leader_find(b->shards[0], group);
    if (known == NULL || known->leader < 0) {
        return false;
    }
    *leader = known->leader;
    *epoch = known->epoch;
    return true;
}

static const struct metadata_ops metadata_callbacks = {
    .applied = broker_image_apply,
    .ready = metadata_ready,
    .refused = metadata_refused,
    .local_leader = metadata_local_leader,
};

#define LISTENER_TEXT (CONFIG_LISTENER_NAME_MAX + LIMIT_ADDRESS + 16)

/* Every advertised address with the name of its listener. */
static const char *listeners_text(const struct broker *b, char *out,
                                  size_t size)
{
    size_t n = 0;
    out[0] = '\0';
    for (int i = 0; i < b->addresses.n; i++) {
        char address[LIMIT_ADDRESS + 16];
        const struct config_listener *a = &b->addresses.advertised[i];
        address_of(a->host, a->port, address, sizeof address);
        n += (size_t)snprintf(out + n, size - n, "%s%s://%s", i > 0 ? "," : "",
                              b->addresses.listen[i].name, address);
        ASSERT(n < size);
    }
    return out;
}

static void start_metadata(struct broker *b)
{
    struct broker_shard *s = b->shards[0];
    const struct broker_config *c = b->config;
    enum err e = transport_listen(s->transport, b->addresses.peer_listen);
    if (e != ERR_OK) {
        broker_fail(b,
                    "cannot listen for other brokers on %s: %s, or change "
                    "`peer.listener`",
                    b->addresses.peer_listen, listen_why(e));
        return;
    }
    char listeners[CONFIG_LISTENERS_MAX * LISTENER_TEXT];
    struct metadata_options options = {
        .listeners = b->addresses.n < 2
                         ? NULL
                         : listeners_text(b, listeners, sizeof listeners),
        .env = b->env,
        .host = s->host,
        .transport = s->transport,
        .dir = b->dir,
        .node = b->identity.node,
        .directory = b->identity.directory,
        .seeds = broker_config_get(c, "seeds"),
        .peer_address = b->addresses.peer_advertised,
        .advertised_host = b->addresses.advertised[0].host,
        .advertised_port = b->addresses.advertised[0].port,
        .rack = broker_config_get(c, "broker.rack"),
        .heartbeat_ms = 200,
        .session_ms = 3000,
        .num_partitions = (int32_t)broker_config_int(c, "num.partitions"),
        .default_replication_factor =
            (int16_t)broker_config_int(c, "default.replication.factor"),
        .producer_id_block = 1000,
    };
    e = metadata_new(&options, &metadata_callbacks, b, &b->metadata);
    if (e != ERR_OK) {
        broker_fail(b, "the cluster's metadata in %s cannot be used: %s",
                    b->dir, err_text(e));
    }
}

struct shard_start {
    struct env_post post;
    struct broker_shard *shard;
    enum err status;
};

static void shard_is_up(struct env_post *post)
{
    struct shard_start *start = post->arg;
    struct broker *b = start->shard->broker;
    enum err e = start->status;
    mem_free(start);
    if (e == ERR_NOSPACE) {
        broker_fail(b,
                    "the disk of the data in %s is full: %s. A start writes "
                    "some blocks before anything can be served. Nothing is "
                    "lost: make room there (remove what is not the broker's, "
                    "or enlarge the disk) and start again",
                    b->dir, err_text(e));
        return;
    }
    if (e != ERR_OK) {
        broker_fail(
            b,
            "the data in %s cannot be used: %s (the lines above say where); "
            "nothing was changed",
            b->dir, err_text(e));
        return;
    }
    if (++b->n_up == b->options.n_shards) {
        e = b->layout.recorded ? ERR_OK
                               : layout_record(b->env, b->dir, &b->layout);
        if (e != ERR_OK) {
            broker_fail(b, "the data directory %s cannot be written: %s",
                        b->dir, err_text(e));
            return;
        }
        for (unsigned i = 0; i < b->n_up; i++) {
            b->transports[i] = b->shards[i]->transport;
        }
        for (unsigned i = 0; i < b->n_up; i++) {
            transport_set_shards(b->transports[i], b->transports, b->n_up);
        }
        start_metadata(b);
    }
}

static void shard_begin(struct env_post *post)
{
    struct shard_start *start = post->arg;
    struct broker_shard *s = start->shard;
    start->status = shard_open(s);
    start->post = (struct env_post){.cb = shard_is_up, .arg = start};
    env_post(s->broker->env, &start->post);
}

/* Reads the listeners. Who starts the broker wrote the machine's name where one
 * is told to others; without it (tests) it is localhost. False after fail. */
static bool read_listeners(struct broker *b)
{
    struct config_listeners *l = &b->addresses;
    char why[512];
    if (config_listeners_read(b->config, l, why, sizeof why) != ERR_OK) {
        broker_fail(b, "%s", why);
        return false;
    }
    for (int i = 0; i < l->n; i++) {
        if (l->advertised[i].host[0] == '\0') {
            snprintf(l->advertised[i].host, sizeof l->advertised[i].host,
                     "localhost");
        }
    }
    if (l->peer_advertised[0] == ':') {
        char port[16];
        snprintf(port, sizeof port, "%.15s", l->peer_advertised);
        snprintf(l->peer_advertised, sizeof l->peer_advertised, "localhost%s",
                 port);
    }
    return true;
}

/* The first directory of log.dirs (log.dir); one is used. */
static bool open_data_dir(struct broker *b)
{
    const char *dirs = broker_config_get(b->config, "log.dirs");
    if (dirs == NULL || dirs[0] == '\0') {
        dirs = broker_config_get(b->config, "log.dir");
    }
    size_t n = strcspn(dirs, ",");
    if (n >= sizeof b->dir) {
        broker_fail(b, "`log.dirs` is too long a path");
        return false;
    }
    memcpy(b->dir, dirs, n);
    b->dir[n] = '\0';
    enum err e = env_dir_make(b->env, b->dir);
    if (e != ERR_OK) {
        broker_fail(b, "the data directory %s cannot be made: %s", b->dir,
                    err_text(e));
        return false;
    }
    e = env_dir_lock(b->env, b->dir);
    if (e != ERR_OK) {
        broker_fail(b,
                    e == ERR_BUSY
                        ? "the data directory %s is in use by another "
                          "running broker; stop that one or change log.dirs"
                        : "the data directory %s cannot be locked",
                    b->dir);
        return false;
    }
    char why[1024];
    node_id node = (node_id)broker_config_int(b->config, "node.id");
    e = identity_load(b->env, b->dir, node, NULL, &b->identity, why,
                      sizeof why);
    if (e != ERR_OK) {
        broker_fail(b, "%s", why);
        return false;
    }
    return true;
}

/* The shards' directories are known: each begins on its own thread. */
static void layout_known(void *arg, const struct layout *layout,
                         const char *sentence)
{
    struct broker *b = arg;
    if (layout == NULL) {
        broker_fail(b, "%s", sentence);
        return;
    }
    b->layout = *layout;
    if (!layout->recorded && b->identity.state == IDENTITY_FORMED) {
        broker_fail(
            b,
            "The data directory %s has lost its file `shards`, and perhaps "
            "more; restore it from a copy, since an empty directory cannot "
            "take its place.",
            b->dir);
        return;
    }
    for (unsigned i = 0; i < b->options.n_shards; i++) {
        struct broker_shard *s = mem_zalloc(sizeof *s);
        s->broker = b;
        s->index = i;
        s->env = b->options.envs[i];
        s->own_image = image_new();
        s->image = s->own_image;
        b->shards[i] = s;
    }
    for (unsigned i = 0; i < b->options.n_shards; i++) {
        struct shard_start *start = mem_zalloc(sizeof *start);
        start->shard = b->shards[i];
        start->post = (struct env_post){.cb = shard_begin, .arg = start};
        env_post(b->shards[i]->env, &start->post);
    }
}

static void begin(struct env_deferred *d)
{
    struct broker *b = d->arg;
    const struct broker_config *c = b->config;
    if (!read_listeners(b) || !open_data_dir(b)) {
        return;
    }
    struct layout_options options = {
        .env = b->env,
        .dir = b->dir,
        .n_shards = b->options.n_shards,
        .log_buffer_bytes = (uint64_t)broker_config_int(c, "log.buffer.bytes"),
        .wal_file_bytes = (uint64_t)broker_config_int(c, "wal.file.bytes"),
        .wal_bytes_max = (uint64_t)broker_config_int(c, "wal.bytes.max"),
    };
    layout_adopt(&options, layout_known, b);
}

/* For people who size a machine, and for the test of it. */
static void tell_memory(const struct broker *b)
{
    char seed[LIMIT_ADDRESS];
    int n = 0;
    while (config_seed(b->config, n, seed)) {
        n++;
    }
    log_info(
        "net",
        "memory is bounded bytes_max=%llu bytes_for_each_connection=%llu "
        "bytes_for_each_partition=%llu",
        (unsigned long long)memory_bound(b->config, b->options.n_shards,
                                         n > 1 ? (unsigned)n - 1 : 0, 0, 0),
        (unsigned long long)MEMORY_CONNECTION,
        (unsigned long long)MEMORY_PARTITION);
}

struct broker *broker_start(const struct broker_options *options)
{
    ASSERT(options->n_shards >= 1 && options->n_shards <= BROKER_SHARDS_MAX);
    struct broker *b = mem_zalloc(sizeof *b);
    b->options = *options;
    b->config = options->config;
    b->throttle = throttle_new(b->config);
    b->env = options->envs[0];
    atomic_init(&b->controller, -1);
    atomic_init(&b->hurry, false);
    snprintf(b->waiting, sizeof b->waiting, "recovers its log");
    tell_memory(b);
    b->begin = (struct env_deferred){.cb = begin, .arg = b};
    env_defer(b->env, &b->begin);
    return b;
}

void broker_free(struct broker *b)
{
    if (b->metadata != NULL) {
        metadata_free(b->metadata);
    }
    for (unsigned i = 0; i < b->options.n_shards; i++) {
        if (b->shards[i] != NULL) {
            shard_free(b->shards[i]);
        }
    }
    throttle_free(b->throttle);
    mem_free(b);
}
