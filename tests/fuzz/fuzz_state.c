/* Small files and blobs of state. Input: u8 flags (1: checksum made right),
 * u8 what the bytes are: 0 checkpoint, 1 metadata entry, 2 metadata snapshot,
 * 3 producers, 4 meta.properties, 5 wal.meta; then the bytes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/mem.h"
#include "metadata/identity.h"
#include "metadata/record.h"
#include "metadata/snapshot.h"
#include "partition/producer_state.h"
#include "raft/checkpoint.h"
#include "raft/wal_format.h"
#include "tests/fuzz/fuzz.h"

static void read_checkpoint(const uint8_t *data, size_t size)
{
    struct checkpoint c;
    void *bytes = mem_alloc(size);
    memcpy(bytes, data, size);
    if (checkpoint_decode(bytes, size, &c) != ERR_OK) {
        mem_free(bytes);
        return;
    }
    size_t n;
    void *again = checkpoint_encode(&c, &n);
    /* (what is reserved is not read, and the checksum covers it) */
    FUZZ_CHECK(n == size && memcmp(again, data, 6) == 0 &&
               memcmp((char *)again + 8, data + 8, 28) == 0 &&
               memcmp((char *)again + 40, data + 40, n - 44) == 0);
    for (uint32_t i = 0; i < c.n_groups; i++) {
        (void)checkpoint_find(&c, &c.groups[i].creation.id);
    }
    mem_free(again);
    checkpoint_free(&c);
}

/* ---- the metadata -------------------------------------------------------- */
struct dump {
    struct image *to;
    struct buffer bytes;
};

static void dump_batch(void *arg, const uint8_t *record, size_t size)
{
    struct dump *d = arg;
    buffer_append(&d->bytes, record, size);
    FUZZ_CHECK(d->to == NULL || image_apply(d->to, image_version(d->to), record,
                                            size, NULL, NULL) == ERR_OK);
}

/* What is dumped must make the same image. */
static void check_image(struct image *image)
{
    struct dump first = {.to = image_new()}, second = {0};
    struct uuid none = {{0}};
    image_dump(image, dump_batch, &first);
    image_dump(first.to, dump_batch, &second);
    FUZZ_CHECK(
        first.bytes.size == second.bytes.size &&
        (first.bytes.size == 0 ||
         memcmp(first.bytes.data, second.bytes.data, first.bytes.size) == 0));
    (void)image_topic(image, "lines", 5);
    (void)image_topic_by_id(image, &none);
    image_free(first.to);
    buffer_free(&first.bytes);
    buffer_free(&second.bytes);
}

static void read_entry(const uint8_t *data, size_t size)
{
    struct image *image = image_new();
    /* a few entries, each behind its size */
    struct fuzz_in in = {data, size};
    for (uint64_t index = 2; in.left > 0; index++) {
        size_t got, n = (size_t)fuzz_uint(&in, 2);
        const uint8_t *at = fuzz_bytes(&in, n, &got);
        uint8_t *entry = fuzz_copy(at, got);
        (void)!image_apply(image, (log_index){index}, entry, got, NULL, NULL);
        free(entry);
    }
    check_image(image);
    image_free(image);
}

static enum err apply_batch(void *arg, const uint8_t *batch, size_t size)
{
    return image_apply(arg, (log_index){5}, batch, size, NULL, NULL);
}

static void read_snapshot(const uint8_t *data, size_t size)
{
    struct image *image = image_new();
    struct snapshot_ref ref = {{5}, size < 32 ? 0 : size - 32, 0};
    if (size >= 32) {
        ref.index.v = 0;
        for (int i = 0; i < 8; i++) {
            ref.index.v = ref.index.v << 8 | data[8 + i];
        }
        ref.crc = crc32c(0, data + 32, size - 32);
    }
    if (snapshot_parse(data, size, &ref, apply_batch, image) == ERR_OK) {
        check_image(image);
    }
    image_free(image);
}

static void read_producers(const uint8_t *data, size_t size)
{
    struct producers *ps = producers_new();
    struct buffer b = {0};
    if (producers_load(ps, data, size, 5) == ERR_OK) {
        producers_save(ps, &b);
        /* (what is reserved is not read, and the checksum covers it) */
        FUZZ_CHECK(b.size == size &&
                   memcmp(b.data + 4, data + 4, size - 8) == 0);
    } else {
        FUZZ_CHECK(producers_count(ps) == 0);
    }
    buffer_free(&b);
    producers_free(ps);
}

/* ---- meta.properties ----------------------------------------------------- */
struct file {
    const uint8_t *data;
    size_t size;
};

static void boot_identity(struct env *env, void *arg)
{
    const struct file *f = arg;
    struct identity id, again;
    char why[256];
    FUZZ_CHECK(env_dir_make(env, "/d") == ERR_OK);
    FUZZ_CHECK(env_file_write_whole(env, "/d/meta.properties", f->data,
                                    f->size) == ERR_OK);
    if (identity_load(env, "/d", 1, NULL, &id, why, sizeof why) == ERR_OK) {
        FUZZ_CHECK(identity_save(env, "/d", &id) == ERR_OK);
        FUZZ_CHECK(identity_load(env, "/d", 1, NULL, &again, why, sizeof why) ==
                   ERR_OK);
        FUZZ_CHECK(id.state == again.state && id.n_members == again.n_members &&
                   uuid_equal(&id.cluster, &again.cluster));
    }
}

static void read_identity(const uint8_t *data, size_t size)
{
    struct file f = {data, size};
    struct sim *sim = sim_new(1);
    sim_node_start(sim_node_add(sim, "a", 1), boot_identity, &f);
    sim_run_for(sim, SIM_MS);
    sim_free(sim);
}

static void read_wal_meta(const uint8_t *data, size_t size)
{
    uint64_t bytes[WAL_FILES_MAX];
    struct wal_meta meta;
    if (wal_meta_decode(data, size, &meta, bytes)) {
        FUZZ_CHECK(wal_meta_bytes(meta.n_files) == size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, size};
    uint64_t flags = fuzz_uint(&in, 1), what = fuzz_uint(&in, 1) % 6;
    uint8_t *bytes = fuzz_copy(in.p, in.left);
    if (flags & 1) {
        switch (what) {
            case 0:
            case 5:
                fuzz_repair_end_le(bytes, in.left);
                break;
            case 2:
                fuzz_repair_snapshot(bytes, in.left);
                break;
            case 3:
                fuzz_repair_end_be(bytes, in.left);
                break;
            default:
                break;
        }
    }
    static void (*const read[])(const uint8_t *, size_t) = {
        read_checkpoint, read_entry,    read_snapshot,
        read_producers,  read_identity, read_wal_meta};
    read[what](bytes, in.left);
    free(bytes);
    return 0;
}

/* ---- samples ------------------------------------------------------------- */
static void seed(const char *name, uint8_t what, const void *bytes, size_t n)
{
    struct buffer b = {0};
    uint8_t head[2] = {1, what};
    buffer_append(&b, head, 2);
    buffer_append(&b, bytes, n);
    fuzz_seed(name, b.data, b.size);
    buffer_free(&b);
}

static void seed_checkpoint(void)
{
    struct checkpoint_group groups[2] = {
        {.creation = {.id = {{{7}}, 0},
                      .self = 4,
                      .n_replicas = 1,
                      .replicas = {{4, 1}}},
         .settled = {9},
         .settled_term = {2},
         .term = {3},
         .vote = 4,
         .blob = (const uint8_t *)"blob",
         .blob_size = 4},
        {.creation = {.id = {{{7}}, 1}, .self = 5},
         .settled = {1},
         .config_index = {1},
         .config = (const uint8_t *)"conf",
         .config_size = 4}};
    struct checkpoint c = {.seq = 3,
                           .log_id = 77,
                           .position = 100,
                           .n_groups = 2,
                           .groups = groups};
    size_t size;
    void *bytes = checkpoint_encode(&c, &size);
    seed("checkpoint", 0, bytes, size);
    mem_free(bytes);
}

static void put_entry(struct buffer *all, struct buffer *b)
{
    uint8_t size[2] = {(uint8_t)b->size, (uint8_t)(b->size >> 8)};
    buffer_append(all, size, 2);
    buffer_append(all, b->data, b->size);
    buffer_clear(b);
}

static void seed_metadata(void)
{
    struct image_partition parts[2] = {
        {.n_replicas = 1, .replicas = {{4, 1}}, .leader = 1, .leader_epoch = 2},
        {.n_replicas = 2, .replicas = {{5, 1}, {6, 2}}, .leader = -1}};
    struct image_config config = {(char[]){"retention.ms"}, (char[]){"1000"}};
    struct image_topic topic = {.id = {{9}},
                                .name = (char[]){"lines"},
                                .n_partitions = 2,
                                .partitions = parts,
                                .n_configs = 1,
                                .configs = &config};
    struct image_broker broker = {.node = 1,
                                  .directory = {{1}},
                                  .host = (char[]){"b1"},
                                  .port = 9092,
                                  .peer_address = (char[]){"b1:9093"},
                                  .live = true};
    struct buffer b = {0}, all = {0};
    struct uuid cluster = {{3}}, request = {{8}};
    record_batch_begin(&b);
    record_put_cluster(&b, &cluster);
    record_put_broker(&b, &broker);
    record_put_counters(&b, 7, 1000);
    put_entry(&all, &b);
    record_batch_begin(&b);
    record_put_topic(&b, &topic);
    record_put_leader(&b, &topic.id, 1, 1, 3);
    record_put_request(&b, &request, 0, "answer", 6);
    put_entry(&all, &b);
    record_batch_begin(&b);
    record_put_partitions(&b, &topic.id, 2, 1, parts);
    record_put_topic_config(&b, &topic.id, "cleanup.policy", "compact");
    record_put_topic_config(&b, &topic.id, "retention.ms", NULL);
    record_put_broker_config(&b, -1, "log.retention.ms", "5");
    record_put_broker_live(&b, 1, 2, false);
    put_entry(&all, &b);
    seed("entries", 1, all.data, all.size);

    struct image *image = image_new();
    struct fuzz_in in = {all.data, all.size};
    for (uint64_t index = 2; in.left > 0; index++) {
        size_t got, n = (size_t)fuzz_uint(&in, 2);
        const uint8_t *at = fuzz_bytes(&in, n, &got);
        FUZZ_CHECK(image_apply(image, (log_index){index}, at, got, NULL,
                               NULL) == ERR_OK);
    }
    struct snapshot_ref ref;
    struct buffer file = {0};
    snapshot_make(image, &file, &ref);
    seed("snapshot", 2, file.data, file.size);
    record_batch_begin(&b);
    record_put_topic_deleted(&b, &topic.id);
    put_entry(&all, &b);
    seed("deleted", 1, all.data, all.size);
    image_free(image);
    buffer_free(&file);
    buffer_free(&b);
    buffer_free(&all);
}

static void seed_producers(void)
{
    struct producers *ps = producers_new();
    struct buffer b = {0};
    producers_save(ps, &b);
    seed("producers-0", 3, b.data, b.size);
    for (int i = 0; i < 9; i++) {
        struct batch_header h = {.base_offset = {10 * i},
                                 .last_offset_delta = 9,
                                 .producer_id = 1000 + i % 2,
                                 .base_sequence = 10 * (i / 2),
                                 .record_count = 10,
                                 .max_timestamp = 1700000000000};
        producers_append(ps, &h);
        producers_apply(ps, &h, 5);
    }
    buffer_clear(&b);
    producers_save(ps, &b);
    seed("producers-2", 3, b.data, b.size);
    buffer_free(&b);
    producers_free(ps);
}

static void boot_seed_identity(struct env *env, void *arg)
{
    struct identity id = {
        .node = 1,
        .directory = {{4}},
        .state = IDENTITY_FORMED,
        .n_members = 2,
        .members = {{1, {{4}}, "b1:9093"}, {2, {{5}}, "b2:9093"}}};
    (void)arg;
    id.cluster = identity_cluster_of(id.members, 2);
    FUZZ_CHECK(env_dir_make(env, "/d") == ERR_OK);
    FUZZ_CHECK(identity_save(env, "/d", &id) == ERR_OK);
}

void fuzz_seeds(void)
{
    seed_checkpoint();
    seed_metadata();
    seed_producers();
    struct sim *sim = sim_new(1);
    struct sim_node *node = sim_node_add(sim, "a", 1);
    sim_node_start(node, boot_seed_identity, NULL);
    sim_run_for(sim, SIM_MS);
    void *data;
    int64_t size = sim_disk_durable(node, "/d/meta.properties", &data);
    FUZZ_CHECK(size > 0);
    seed("identity", 4, data, (size_t)size);
    mem_free(data);
    sim_free(sim);
    uint64_t bytes[2] = {65536, 131072};
    struct wal_meta meta = {
        .log_id = 5, .made_ms = 3, .n_files = 2, .bytes = bytes};
    uint8_t out[256];
    wal_meta_encode(&meta, out);
    seed("wal-meta", 5, out, wal_meta_bytes(2));
}
