/* A partition opened over any files of its own: blob of the checkpoint,
 * segments, side files, list of segments, producers; read, searched, appended
 * to and settled; dumped offline. Input: u8 flags (1: checksums made right),
 * then a directory (fuzz.h). */
#include <stdlib.h>
#include <string.h>

#include "partition/dump.h"
#include "partition/partition.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/fake_group.h"

#define DIR "/data/topics/orders-3.BwAAAAAAAAAAAAAAAAAAAA.5"
static const char *const paths[] = {"/data/raft/checkpoint",
                                    DIR "/00000000000000000000.log",
                                    DIR "/00000000000000000000.side",
                                    DIR "/00000000000000000028.log",
                                    DIR "/00000000000000000028.side",
                                    DIR "/segments",
                                    DIR "/00000000000000000014.producers",
                                    DIR "/00000000000000000022.producers",
                                    NULL};

struct world {
    struct sim *sim;
    struct sim_node *node;
    struct fuzz_disk *disk;
    struct raft_host *host;
    struct partition_shard *shard;
    struct partition *p;
    enum err status;
    struct partition_fetch fetch;
    struct partition_list_offset list;
    struct partition_produce produce;
    bool fetched;
};

static void on_closed(void *arg, struct partition *p)
{
    struct world *w = arg;
    (void)p;
    w->p = NULL;
}

static void boot(struct env *env, void *arg)
{
    struct world *w = arg;
    struct raft_host_options raft = {.env = env, .dir = "/data/raft"};
    struct partition_shard_options options = {.env = env,
                                              .dir = "/data/topics",
                                              .open_files_max = 8,
                                              .read_bytes_max = 1 << 20};
    struct group_creation creation = {.id = {{{7}}, 3}, .self = 5};
    struct partition_ops ops = {.closed = on_closed};
    const struct partition_config config = {
        .cleanup_delete = true,
        .retention_ms = -1,
        .retention_bytes = -1,
        .segment_bytes = 2000,
        .segment_ms = INT64_MAX,
        .max_message_bytes = 1 << 20,
        .timestamp_before_max_ms = INT64_MAX,
        .timestamp_after_max_ms = INT64_MAX,
        .min_insync_replicas = 1,
        .producer_id_expiration_ms = 86400000,
    };
    if (w->disk != NULL) {
        fuzz_disk_store(w->disk, env);
        FUZZ_CHECK(env_file_write_whole(env, "/data/raft/wal", "", 0) ==
                   ERR_OK);
    }
    FUZZ_CHECK(raft_host_new(&raft, &w->host) == ERR_OK);
    options.host = w->host;
    w->shard = partition_shard_new(&options);
    w->status = partition_open(w->shard, &creation, "orders-3", &config, &ops,
                               w, &w->p);
    if (w->status == ERR_OK) {
        fake_lead(w->host, true);
    }
}

/* ---- what is asked of it ------------------------------------------------- */
static void check_fetched(struct world *w)
{
    struct partition_fetch *f = &w->fetch;
    int64_t last = -1;
    for (int i = 0; i < f->n_iov; i++) {
        const uint8_t *at = f->iov[i].iov_base;
        struct batch_header h;
        for (size_t left = f->iov[i].iov_len; left > 0;) {
            FUZZ_CHECK(batch_header_read(at, left, &h) == ERR_OK);
            FUZZ_CHECK(batch_size(&h) <= left);
            FUZZ_CHECK(batch_is_whole(at, batch_size(&h)));
            last = batch_last_offset(&h).v;
            left -= batch_size(&h);
            at += batch_size(&h);
        }
    }
    FUZZ_CHECK(f->n_iov == 0 || last < f->high_watermark.v);
    partition_fetch_release(f);
    w->fetched = true;
}
static void on_fetched(struct partition_fetch *f)
{
    check_fetched(f->arg);
}

static void call_fetch(struct env *env, void *arg)
{
    struct world *w = arg;
    (void)env;
    w->fetched = false;
    w->fetch.cb = on_fetched;
    w->fetch.arg = w;
    if (partition_fetch(w->p, &w->fetch)) {
        check_fetched(w);
    }
}

static void fetch_at(struct world *w, int64_t offset)
{
    w->fetch = (struct partition_fetch){.offset = {offset},
                                        .max_bytes = 5000,
                                        .at_least_one = true,
                                        .current_leader_epoch = -1,
                                        .last_fetched_epoch = -1};
    sim_node_call(w->node, 0, call_fetch, w);
    sim_run_for(w->sim, 50 * SIM_MS);
    FUZZ_CHECK(w->fetched);
}

static void on_listed(struct partition_list_offset *req)
{
    req->arg = NULL;
}
static void call_list(struct env *env, void *arg)
{
    struct world *w = arg;
    (void)env;
    partition_list_offset(w->p, &w->list);
}
static void list_at(struct world *w, int64_t timestamp)
{
    w->list = (struct partition_list_offset){.timestamp = timestamp,
                                             .current_leader_epoch = -1,
                                             .api_version = 8,
                                             .cb = on_listed,
                                             .arg = w};
    sim_node_call(w->node, 0, call_list, w);
    sim_run_for(w->sim, 50 * SIM_MS);
    FUZZ_CHECK(w->list.arg == NULL);
}

static void on_produced(struct partition_produce *req)
{
    req->arg = NULL;
}
static void call_produce(struct env *env, void *arg)
{
    struct world *w = arg;
    (void)env;
    partition_produce(w->p, &w->produce);
}
static void produce(struct world *w, int n, int64_t pid, int32_t sequence)
{
    struct batch_builder b;
    size_t size;
    batch_builder_init(&b, n % 2 ? CODEC_NONE : CODEC_LZ4);
    b.producer_id = pid;
    b.producer_epoch = pid < 0 ? -1 : 1;
    b.base_sequence = sequence;
    for (int i = 0; i < n; i++) {
        batch_builder_add(&b, 1000 + 10 * i, "key", 3, "a value of a record",
                          19, NULL, 0);
    }
    w->produce = (struct partition_produce){
        .acks = -1, .api_version = 11, .cb = on_produced, .arg = w};
    FUZZ_CHECK(batch_builder_finish(&b, &w->produce.batch, &size) == ERR_OK);
    w->produce.size = (uint32_t)size;
    sim_node_call(w->node, 0, call_produce, w);
    sim_run_for(w->sim, 50 * SIM_MS);
    FUZZ_CHECK(w->produce.arg == NULL);
    batch_builder_free(&b);
}

static void call_settle(struct env *env, void *arg)
{
    struct world *w = arg;
    (void)env;
    (void)fake_settle(w->host);
}
static void settle(struct world *w)
{
    /* what else the fake can do */
    (void)fake_truncate, (void)fake_release, (void)fake_give_room;
    (void)fake_evict;
    sim_node_call(w->node, 0, call_settle, w);
    sim_run_for(w->sim, 100 * SIM_MS);
}

static void on_batch(void *arg, const struct dump_batch *batch)
{
    uint64_t *digest = arg;
    *digest += batch->digest;
}
static void call_dump(struct env *env, void *arg)
{
    const struct dump_ops ops = {.batch = on_batch};
    struct dump_summary summary;
    uint64_t digest = 0;
    (void)arg;
    (void)!partition_dump(env, DIR, &ops, &digest, &summary);
    (void)!partition_dump(env, DIR "/00000000000000000000.log", &ops, &digest,
                          &summary);
}

static void use(struct world *w)
{
    int64_t start = partition_log_start(w->p).v, end = partition_end(w->p).v;
    FUZZ_CHECK(start >= 0 && start <= partition_high_watermark(w->p).v &&
               partition_high_watermark(w->p).v <= end);
    fetch_at(w, start);
    fetch_at(w, start + (end - start) / 2);
    fetch_at(w, end - 1);
    for (int64_t timestamp = -3; timestamp < 3; timestamp++) {
        list_at(w, timestamp < 0 ? timestamp : 1000 * timestamp + 15);
    }
    produce(w, 3, 1000, 7);
    produce(w, 20, -1, -1);
    if (w->p != NULL) {
        settle(w);
    }
    if (w->p != NULL) {
        fetch_at(w, end);
    }
}

/* Terms as small as those of real logs; samples may have none. */
#define TERM_MAX 1000

/* The fake host believes its checkpoint: 24 bytes of index, size and term, a
 * blob. */
static bool plausible(struct fuzz_disk *disk)
{
    struct fuzz_file *f = fuzz_disk_file(disk, paths[0]);
    uint64_t head[3];
    if (f == NULL || f->size < sizeof head) {
        return false;
    }
    memcpy(head, f->data, sizeof head);
    head[1] = f->size - sizeof head;
    head[2] = head[2] == 0 ? TERM_MAX : head[2] % TERM_MAX;
    memcpy(f->data, head, sizeof head);
    return head[0] > 0 && head[0] < 1000 && head[1] <= SETTLE_BLOB_MAX;
}

static void repair(struct fuzz_disk *disk)
{
    for (int i = 0; i < FUZZ_FILES_MAX; i++) {
        struct fuzz_file *f = &disk->files[i];
        if (f->data == NULL) {
            continue;
        }
        if (strstr(f->path, ".log") != NULL) {
            fuzz_repair_batches(f->data, f->size, false);
        } else if (strstr(f->path, ".side") != NULL) {
            fuzz_repair_side(f->data, f->size);
        } else if (f->path != paths[0]) {
            fuzz_repair_end_be(f->data, f->size);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, size};
    struct fuzz_disk disk;
    uint64_t flags = fuzz_uint(&in, 1);
    fuzz_disk_read(&disk, &in, paths);
    if (flags & 1) {
        repair(&disk);
    }
    if (plausible(&disk)) {
        struct world w = {.disk = &disk};
        w.sim = sim_new(1);
        w.node = sim_node_add(w.sim, "a", 1);
        sim_node_start(w.node, boot, &w);
        sim_run_for(w.sim, 50 * SIM_MS);
        sim_node_call(w.node, 0, call_dump, &w);
        if (w.status == ERR_OK) {
            use(&w);
        }
        sim_node_call(w.node, 0, call_dump, &w);
        sim_free(w.sim);
    }
    fuzz_disk_free(&disk);
    return 0;
}

/* ---- samples ------------------------------------------------------------- */
static void seed(struct world *w, const char *name)
{
    struct buffer b = {0};
    uint8_t flags = 1;
    buffer_append(&b, &flags, 1);
    fuzz_disk_write(&b, w->node, paths);
    fuzz_seed(name, b.data, b.size);
    buffer_free(&b);
}

static void note(void *arg, const char *path, uint64_t size)
{
    (void)arg;
    if (getenv("FUZZ_TRACE") != NULL) {
        fprintf(stderr, "%s %llu\n", path, (unsigned long long)size);
    }
}

void fuzz_seeds(void)
{
    struct world w = {0};
    w.sim = sim_new(1);
    w.node = sim_node_add(w.sim, "a", 1);
    sim_node_start(w.node, boot, &w);
    sim_run_for(w.sim, 100 * SIM_MS);
    FUZZ_CHECK(w.status == ERR_OK);
    produce(&w, 3, 1000, 0);
    produce(&w, 5, -1, -1);
    settle(&w);
    seed(&w, "two-batches");
    for (int k = 0; k < 12; k++) {
        produce(&w, 1, 1000, 3 + k);
    }
    settle(&w);
    seed(&w, "many-batches");
    sim_disk_list(w.node, note, NULL);
    for (int k = 0; k < 20; k++) {
        produce(&w, 2, 1001, 2 * k);
        if (k % 5 == 0) {
            settle(&w);
        }
    }
    settle(&w);
    seed(&w, "segments");
    sim_disk_list(w.node, note, NULL);
    sim_free(w.sim);
}
