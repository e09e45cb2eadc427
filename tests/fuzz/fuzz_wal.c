/* Recovery of the write-ahead log from any files. Input: u8 flags (1: checksums
 * made right, 2: as if a checkpoint named the log), then a directory (fuzz.h).
 * What was recovered once must be recovered again, the same. */
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/mem.h"
#include "raft/wal.h"
#include "tests/fuzz/fuzz.h"

static const char *const paths[] = {
    "/data/wal.meta",         "/data/wal-00000001.log",
    "/data/wal-00000002.log", "/data/wal-00000003.log",
    "/data/wal-00000004.log", NULL};

struct recovered {
    enum err status;
    uint64_t log_id;
    bool is_new;
    uint64_t digest; /* of all groups */
};

struct run {
    const struct fuzz_disk *disk; /* NULL: as it lies */
    struct wal *wal;
    struct recovered found;
};

static void on_durable(void *arg, uint64_t position)
{
    (void)arg, (void)position;
}
static void on_file_begins(void *arg)
{
    (void)arg;
}
static void on_wants_settled(void *arg, const struct group_id *group,
                             log_index upto)
{
    (void)arg, (void)group, (void)upto;
}
static bool on_evict(void *arg, const struct group_id *group, log_index upto)
{
    (void)arg, (void)group, (void)upto;
    return true;
}
static void on_room(void *arg)
{
    (void)arg;
}
static const struct wal_ops ops = {on_durable, on_file_begins, on_wants_settled,
                                   on_evict,   on_room,        NULL};

static log_index settled(void *arg, const struct group_id *group,
                         replica_id *self)
{
    (void)arg, (void)self;
    return (log_index){group->partition == 1 ? 3 : 0};
}

static void mix(uint64_t *digest, const void *data, size_t size)
{
    *digest = *digest * 0x9e3779b97f4a7c15u + crc32c(0, data, size) + size;
}

static void mix_group(uint64_t *digest, const struct wal_recovered_group *g)
{
    mix(digest, &g->id, sizeof g->id);
    mix(digest, &g->term, sizeof g->term);
    mix(digest, &g->vote, sizeof g->vote);
    mix(digest, &g->first, sizeof g->first);
    mix(digest, &g->created, sizeof g->created);
    mix(digest, &g->deleted, sizeof g->deleted);
    mix(digest, g->config, g->config_size);
    uint64_t index = g->first.v;
    for (uint64_t i = 0; i < g->n_entries; i++) {
        const struct wal_recovered_entry *e = &g->entries[i];
        FUZZ_CHECK(e->index.v == index++);
        FUZZ_CHECK(i == 0 || e->term.v >= e[-1].term.v);
        FUZZ_CHECK(crc32c(0, e->place.payload, e->place.size) == e->place.crc);
        mix(digest, &e->term, sizeof e->term);
        mix(digest, e->place.payload, e->place.size);
    }
}

static void boot(struct env *env, void *arg)
{
    struct run *run = arg;
    struct wal_options options = {.env = env,
                                  .dir = "/data",
                                  .file_bytes = 32 << 10,
                                  .bytes_max = 4 * 32 << 10,
                                  .buffer_bytes_max = 32 << 10};
    if (run->disk != NULL) {
        fuzz_disk_store(run->disk, env);
    }
    run->found.digest = 0;
    run->found.status = wal_open(&options, &ops, run, settled, &run->wal);
    if (run->found.status != ERR_OK) {
        return;
    }
    size_t n;
    struct wal_recovered_group *groups = wal_recovered(run->wal, &n);
    for (size_t i = 0; i < n; i++) {
        mix_group(&run->found.digest, &groups[i]);
    }
    wal_recovered_free(groups, n);
    run->found.log_id = wal_log_id(run->wal);
    run->found.is_new = wal_is_new(run->wal);
}

static void repair(struct fuzz_disk *disk)
{
    uint64_t position = 0;
    uint32_t crc = 0;
    struct fuzz_file *f = fuzz_disk_file(disk, paths[0]);
    if (f != NULL) {
        fuzz_repair_wal_meta(f->data, f->size);
    }
    for (int i = 1; paths[i] != NULL; i++) {
        f = fuzz_disk_file(disk, paths[i]);
        if (f != NULL) {
            fuzz_repair_wal(f->data, f->size, &position, &crc);
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
    struct run run = {.disk = &disk};
    struct sim *sim = sim_new(1);
    struct sim_node *node = sim_node_add(sim, "a", 1);
    sim_node_start(node, boot, &run);
    sim_run_for(sim, 30 * SIM_MS);
    if (run.found.status == ERR_OK && !run.found.is_new) {
        struct recovered first = run.found;
        run.disk = NULL;
        sim_node_crash(node, SIM_DROP_ALL);
        sim_node_restart(node);
        sim_run_for(sim, 30 * SIM_MS);
        FUZZ_CHECK(run.found.status == ERR_OK);
        FUZZ_CHECK(run.found.log_id == first.log_id);
        FUZZ_CHECK(run.found.digest == first.digest);
    }
    sim_free(sim);
    fuzz_disk_free(&disk);
    return 0;
}

/* ---- samples ------------------------------------------------------------- */
struct sample {
    struct wal *wal;
    uint64_t last[2];
    bool gone;
};
static struct sample sample;

static void sample_group(int group)
{
    struct group_creation creation = {.id = {{{7}}, group},
                                      .self = 4,
                                      .n_replicas = 2,
                                      .replicas = {{4, 1}, {5, 2}}};
    wal_append_create(sample.wal, &creation);
    wal_append_term(sample.wal, &creation.id, (raft_term_t){2}, 4);
}
static void sample_file_begins(void *arg)
{
    (void)arg;
    sample_group(0);
    if (!sample.gone) {
        sample_group(1);
    }
}
static const struct wal_ops sample_ops = {
    on_durable, sample_file_begins, on_wants_settled, on_evict, on_room, NULL};

static void sample_entry(int group, uint32_t size)
{
    static uint8_t payload[4096] = "payload";
    struct group_id id = {{{7}}, group};
    struct iovec iov = {payload, size};
    struct wal_place place;
    if (wal_reserve(sample.wal, size, 1)) {
        wal_append_entry(sample.wal, &id, (log_index){++sample.last[group]},
                         (raft_term_t){2}, ENTRY_DATA, &iov, 1, &place);
        wal_place_drop(&place);
    }
}

static void boot_sample(struct env *env, void *arg)
{
    struct wal_options options = {.env = env,
                                  .dir = "/data",
                                  .file_bytes = 32 << 10,
                                  .bytes_max = 4 * 32 << 10,
                                  .buffer_bytes_max = 32 << 10};
    size_t n;
    FUZZ_CHECK(wal_open(&options, arg == NULL ? &sample_ops : arg, NULL,
                        settled, &sample.wal) == ERR_OK);
    struct wal_recovered_group *groups = wal_recovered(sample.wal, &n);
    wal_recovered_free(groups, n);
}

static void begin(struct env *env, void *arg)
{
    (void)env, (void)arg;
    sample.last[0] = sample.last[1] = 1;
    sample_group(0);
    sample_group(1);
    for (int k = 0; k < 5; k++) {
        sample_entry(k % 2, 60);
    }
}
static void more(struct env *env, void *arg)
{
    struct group_id id = {{{7}}, 0}, other = {{{7}}, 1};
    (void)env, (void)arg;
    wal_append_truncate(sample.wal, &id, (log_index){sample.last[0]--});
    wal_append_term(sample.wal, &id, (raft_term_t){3}, 5);
    sample_entry(0, 20);
    wal_append_delete(sample.wal, &other);
    sample.gone = true;
}
static void much(struct env *env, void *arg)
{
    struct group_id id = {{{7}}, 0};
    (void)env, (void)arg;
    wal_settled(sample.wal, &id, (log_index){sample.last[0]});
    for (int k = 0; k < 3; k++) {
        sample_entry(0, 400);
    }
}

static void seed(struct sim_node *node, const char *name)
{
    struct buffer b = {0};
    uint8_t flags = 1;
    buffer_append(&b, &flags, 1);
    fuzz_disk_write(&b, node, paths);
    fuzz_seed(name, b.data, b.size);
    buffer_free(&b);
}

void fuzz_seeds(void)
{
    struct sim *sim = sim_new(1);
    struct sim_node *node = sim_node_add(sim, "a", 1);
    sim_node_start(node, boot_sample, NULL);
    sim_run_for(sim, SIM_MS);
    seed(node, "new");
    sim_node_call(node, 0, begin, NULL);
    sim_run_for(sim, SIM_MS);
    seed(node, "not-attested");
    sim_run_for(sim, 20 * SIM_MS);
    seed(node, "entries");
    sim_node_call(node, 0, more, NULL);
    sim_run_for(sim, 20 * SIM_MS);
    seed(node, "truncated");
    sim_node_crash(node, SIM_KEEP_ALL);
    sim_node_restart(node);
    sim_run_for(sim, 20 * SIM_MS);
    seed(node, "restarted");
    for (int k = 0; k < 40; k++) {
        sim_node_call(node, 0, much, NULL);
        sim_run_for(sim, SIM_MS);
    }
    seed(node, "recycled");
    sim_free(sim);
}
