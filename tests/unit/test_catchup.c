/* Catch-up by transfer, with hosts, logs and transports of three brokers in the
 * simulator. The state machine is a tape: the bytes of all entries one after
 * the other, settled into one file. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/mem.h"
#include "raft/catchup.h"
#include "raft/transport.h"
#include "raft/wal_format.h"
#include "tests/sim/sim_env.h"

#define N 3
#define ENTRY 4000
#define BLOCK 50000 /* bytes of a range */
#define BLOCKS 4000
#define MANIFEST 16 /* generation u32, crc u32, size u64 */

static struct sim *sim;

/* ---- the tape ------------------------------------------------------------ */

struct received {
    bool active;
    uint32_t generation; /* of the file here */
    uint64_t from_generation;
    uint64_t size, written;
    uint32_t crc;
    struct env_file *file;
    uint32_t have[BLOCKS]; /* bytes of each block */
    bool asked[BLOCKS];
};

struct tape {
    struct node *node;
    struct group *group;
    struct env *env;
    uint32_t generation; /* of the file */
    uint64_t size;       /* settled */
    uint32_t crc;
    struct env_file *file;
    struct buffer pending; /* applied, not settled */
    uint64_t applied;
    bool settling;
    struct received rx;
};

struct node {
    struct sim_node *sim_node;
    int id;
    struct raft_host *host;
    struct transport *transport;
    struct tape *tape;
    struct env_timer *producer;
    uint64_t produce; /* entries still to be proposed here when leader */
    int begins, switches, given_up, restores;
    uint64_t bytes_written; /* by transfers */
    bool finishing;         /* a worker is to look at what came, or does */
    bool closed;
};

static struct node nodes[N];

static void tape_path(uint32_t generation, char out[32])
{
    snprintf(out, 32, "tape/%u", (unsigned)generation);
}

static enum err tape_open(struct tape *t, uint32_t generation,
                          struct env_file **out)
{
    char path[32];
    tape_path(generation, path);
    enum err e = env_dir_make(t->env, "tape");
    if (e != ERR_OK)
        return e;
    return env_file_open(t->env, path,
                         ENV_FILE_READ | ENV_FILE_WRITE | ENV_FILE_CREATE, out);
}

static void tape_blob(const struct tape *t, struct settle_job *job,
                      uint32_t generation, uint64_t size, uint32_t crc)
{
    (void)t;
    le_put32(job->blob, generation);
    le_put32(job->blob + 4, crc);
    le_put64(job->blob + 8, size);
    job->blob_size = MANIFEST;
}

static enum err tape_restore(void *sm, log_index settled, raft_term_t term,
                             const uint8_t *blob, uint32_t blob_size)
{
    struct tape *t = sm;
    (void)term;
    t->node->restores++;
    buffer_clear(&t->pending);
    t->applied = settled.v;
    t->generation = t->crc = 0;
    t->size = 0;
    if (blob_size == MANIFEST) {
        t->generation = le_get32(blob);
        t->crc = le_get32(blob + 4);
        t->size = le_get64(blob + 8);
    }
    if (t->file != NULL)
        env_file_close(t->file);
    return tape_open(t, t->generation, &t->file);
}

static void tape_appended(void *sm, const struct group_entry *entry)
{
    (void)sm;
    (void)entry;
}

static void tape_index(void *sm, log_index index)
{
    (void)sm;
    (void)index;
}

static void tape_applied(void *sm, const struct group_entry *entry)
{
    struct tape *t = sm;
    ck_assert_uint_eq(entry->index.v, t->applied + 1);
    t->applied = entry->index.v;
    if (entry->type == ENTRY_DATA)
        buffer_append(&t->pending, entry->payload, entry->size);
}

static void tape_role(void *sm, const struct group_role *role)
{
    (void)sm;
    (void)role;
}

struct tape_write {
    struct env_file *file;
    uint64_t at;
    uint8_t *data;
    size_t size;
    struct node *node;
};

static enum err tape_write_run(struct tape_write *w)
{
    struct iovec iov = {w->data, w->size};
    return w->size == 0 ? ERR_OK
                        : env_file_pwritev(w->file, &iov, 1, w->at, false);
}

static enum err tape_settle_run(struct settle_job *job)
{
    return tape_write_run(job->arg);
}

static bool tape_settle_begin(void *sm, struct settle_job *job)
{
    struct tape *t = sm;
    struct tape_write *w = mem_zalloc(sizeof *w);
    ck_assert(!t->rx.active);
    t->settling = true;
    w->file = t->file;
    w->at = t->size;
    w->size = t->pending.size;
    w->data = mem_alloc(w->size);
    if (w->size > 0)
        memcpy(w->data, t->pending.data, w->size);
    job->upto.v = t->applied;
    job->run = tape_settle_run;
    job->arg = w;
    job->files[job->n_files++] = t->file;
    job->dirs[job->n_dirs++] = "tape";
    tape_blob(t, job, t->generation, t->size + w->size,
              crc32c(t->crc, w->data, w->size));
    return true;
}

static void tape_settled(void *sm, struct settle_job *job)
{
    struct tape *t = sm;
    struct tape_write *w = job->arg;
    t->settling = false;
    if (job->status == ERR_OK) {
        t->crc = crc32c(t->crc, w->data, w->size);
        t->size += w->size;
        buffer_consume(&t->pending, w->size);
    }
    mem_free(w->data);
    mem_free(w);
}

static void tape_closed(void *sm)
{
    ((struct tape *)sm)->node->closed = true;
}

/* ---- its catch-up -------------------------------------------------------- */

static enum err tape_manifest(void *sm, log_index settled, struct buffer *out)
{
    struct tape *t = sm;
    struct settle_job job;
    (void)settled;
    tape_blob(t, &job, t->generation, t->size, t->crc);
    buffer_append(out, job.blob, MANIFEST);
    return ERR_OK;
}

static enum err tape_read_run(struct catchup_job *job)
{
    struct tape_write *w = job->arg;
    size_t got;
    enum err e = env_file_pread(w->file, job->data, job->range.size,
                                job->range.offset, &got);
    return e == ERR_OK && got < job->range.size ? ERR_CORRUPT : e;
}

static enum err tape_read_begin(void *sm, struct catchup_job *job)
{
    struct tape *t = sm;
    if (job->range.file != t->generation ||
        job->range.offset + job->range.size > t->size)
        return ERR_NOT_FOUND;
    struct tape_write *w = mem_zalloc(sizeof *w);
    w->file = t->file;
    job->arg = w;
    job->run = tape_read_run;
    return ERR_OK;
}

static void tape_read_end(void *sm, struct catchup_job *job)
{
    (void)sm;
    mem_free(job->arg);
}

static enum err tape_receive_begin(void *sm, log_index index, raft_term_t term,
                                   const uint8_t *manifest, size_t size)
{
    struct tape *t = sm;
    struct received *rx = &t->rx;
    (void)index;
    (void)term;
    if (size != MANIFEST)
        return ERR_INVALID;
    t->node->begins++;
    ck_assert(!t->settling);
    if (!rx->active) {
        *rx =
            (struct received){.active = true, .generation = t->generation + 1};
        enum err e = tape_open(t, rx->generation, &rx->file);
        if (e != ERR_OK)
            return e;
    }
    /* what was asked before and did not come is asked again */
    memset(rx->asked, 0, sizeof rx->asked);
    rx->from_generation = le_get32(manifest);
    rx->crc = le_get32(manifest + 4);
    rx->size = le_get64(manifest + 8);
    return rx->size <= (uint64_t)BLOCK * BLOCKS ? ERR_OK : ERR_INVALID;
}

static bool tape_receive_next(void *sm, struct catchup_range *out)
{
    struct received *rx = &((struct tape *)sm)->rx;
    for (uint64_t i = 0; i * BLOCK < rx->size; i++) {
        uint64_t left = rx->size - i * BLOCK;
        uint32_t size = left > BLOCK ? BLOCK : (uint32_t)left;
        if (rx->asked[i] || rx->have[i] == size)
            continue;
        rx->asked[i] = true;
        *out = (struct catchup_range){rx->from_generation, i * BLOCK, size};
        return true;
    }
    return false;
}

static void tape_progress(const void *sm, uint64_t *left, uint64_t *all)
{
    const struct received *rx = &((const struct tape *)sm)->rx;
    *left = rx->size - rx->written;
    *all = rx->size;
}

static enum err tape_range_run(struct catchup_job *job)
{
    struct tape_write *w = job->arg;
    return tape_write_run(w);
}

static enum err tape_write_begin(void *sm, struct catchup_job *job)
{
    struct tape *t = sm;
    struct tape_write *w = mem_zalloc(sizeof *w);
    *w = (struct tape_write){t->rx.file, job->range.offset, job->data,
                             job->range.size, t->node};
    job->arg = w;
    job->run = tape_range_run;
    return ERR_OK;
}

static void tape_write_end(void *sm, struct catchup_job *job)
{
    struct tape *t = sm;
    if (job->status == ERR_OK) {
        uint64_t i = job->range.offset / BLOCK;
        t->node->bytes_written += job->range.size;
        t->rx.written += job->range.size - t->rx.have[i];
        t->rx.have[i] = job->range.size;
    }
    mem_free(job->arg);
}

static enum err tape_finish_run(struct settle_job *job)
{
    struct tape_write *w = job->arg;
    uint32_t crc = 0;
    uint8_t *bytes = mem_alloc(65536);
    enum err e = ERR_OK;
    for (uint64_t at = 0; at < w->at && e == ERR_OK;) {
        size_t got, n = w->at - at < 65536 ? (size_t)(w->at - at) : 65536;
        e = env_file_pread(w->file, bytes, n, at, &got);
        if (e == ERR_OK && got < n)
            e = ERR_CORRUPT;
        crc = crc32c(crc, bytes, n);
        at += n;
    }
    mem_free(bytes);
    w->node->finishing = false;
    return e == ERR_OK && crc != (uint32_t)w->size ? ERR_CORRUPT : e;
}

static void tape_receive_finish(void *sm, struct settle_job *job)
{
    struct tape *t = sm;
    struct tape_write *w = mem_zalloc(sizeof *w);
    w->file = t->rx.file;
    w->at = t->rx.size;
    w->size = t->rx.crc;
    w->node = t->node;
    t->node->finishing = true;
    job->run = tape_finish_run;
    job->arg = w;
    job->files[job->n_files++] = t->rx.file;
    job->dirs[job->n_dirs++] = "tape";
    tape_blob(t, job, t->rx.generation, t->rx.size, t->rx.crc);
}

static void tape_receive_end(void *sm, bool switched)
{
    struct tape *t = sm;
    char path[32];
    ck_assert(!t->node->finishing);
    if (switched)
        t->node->switches++;
    else
        t->node->given_up++;
    env_file_close(t->rx.file);
    tape_path(switched ? t->generation : t->rx.generation, path);
    t->rx = (struct received){.active = false};
    ck_assert_int_eq(env_file_unlink(t->env, path), ERR_OK);
}

static const struct catchup_ops tape_catchup = {
    .manifest_make = tape_manifest,
    .read_begin = tape_read_begin,
    .read_end = tape_read_end,
    .receive_begin = tape_receive_begin,
    .receive_next = tape_receive_next,
    .receive_progress = tape_progress,
    .write_begin = tape_write_begin,
    .write_end = tape_write_end,
    .receive_finish = tape_receive_finish,
    .receive_end = tape_receive_end,
};

static const struct group_ops tape_ops = {
    .restore = tape_restore,
    .appended = tape_appended,
    .truncated = tape_index,
    .applied = tape_applied,
    .durable = tape_index,
    .role_changed = tape_role,
    .evicted = tape_index,
    .settle_begin = tape_settle_begin,
    .settled = tape_settled,
    .catchup = &tape_catchup,
    .closed = tape_closed,
};

/* ---- a broker ------------------------------------------------------------ */

static const struct group_id THE_GROUP = {{{3}}, 0};

static void on_peer_up(void *arg, node_id node)
{
    struct node *n = arg;
    raft_host_peer_up(n->host, node);
}

static void on_peer_down(void *arg, node_id node)
{
    struct node *n = arg;
    raft_host_peer_down(n->host, node);
}

static const struct transport_ops peer_ops = {.peer_up = on_peer_up,
                                              .peer_down = on_peer_down};

static void produce(struct env_timer *timer)
{
    struct node *n = timer->arg;
    uint8_t body[ENTRY];
    struct iovec iov = {body, sizeof body};
    env_timer_start(timer, 2);
    for (int i = 0; i < 8 && n->produce > 0; i++) {
        uint64_t v = env_random(n->tape->env);
        log_index at;
        for (size_t k = 0; k < sizeof body; k++)
            body[k] = (uint8_t)(v >> (k % 8) * 8);
        if (group_propose(n->tape->group, ENTRY_DATA, &iov, 1, &at) != ERR_OK)
            return;
        n->produce--;
    }
}

static void open_recovered(void *arg, const struct group_creation *creation)
{
    struct node *n = arg;
    ck_assert_int_eq(raft_host_open(n->host, &creation->id, &tape_ops, n->tape,
                                    &n->tape->group),
                     ERR_OK);
}

static struct group_creation creation_of(const struct node *n)
{
    struct group_creation c = {.id = THE_GROUP,
                               .directory = {{(uint8_t)(n->id + 1)}},
                               .self = (replica_id)n->id + 1,
                               .n_replicas = N};
    for (int i = 0; i < N; i++)
        c.replicas[i] = (struct group_replica){(replica_id)i + 1, i};
    return c;
}

static void boot(struct env *env, void *arg)
{
    struct node *n = arg;
    char address[32];
    struct transport_options transport = {
        .env = env,
        .n_shards = 1,
        .node = n->id,
        .directory = {{(uint8_t)(n->id + 1)}},
        .queue_bytes_max = 4 << 20,
    };
    n->transport = transport_new(&transport, &peer_ops, n);
    struct raft_host_options host = {
        .env = env,
        .dir = "raft",
        .node = n->id,
        .directory = transport.directory,
        .transport = n->transport,
        .tick_ms = 50,
        .heartbeat_ms = 500,
        .election_ms = 2500,
        .log_buffer_bytes = 4 << 20,
        .wal_file_bytes = 4 << 20,
        .wal_bytes_max = 32 << 20,
        .settle_ms = 200,
        .settle_bytes = 65536,
    };
    ck_assert_int_eq(raft_host_new(&host, &n->host), ERR_OK);
    n->tape = mem_zalloc(sizeof *n->tape);
    n->tape->env = env;
    n->tape->node = n;
    raft_host_recovered(n->host, open_recovered, n);
    if (n->tape->group == NULL) {
        struct group_creation c = creation_of(n);
        ck_assert_int_eq(
            raft_host_create(n->host, &c, &tape_ops, n->tape, &n->tape->group),
            ERR_OK);
    }
    snprintf(address, sizeof address, "n%d:1", n->id);
    ck_assert_int_eq(transport_listen(n->transport, address), ERR_OK);
    for (int i = 0; i < N; i++) {
        snprintf(address, sizeof address, "n%d:1", i);
        transport_set_peer(n->transport, i, address);
    }
    n->producer = mem_zalloc(sizeof *n->producer);
    env_timer_init(env, n->producer, produce, n);
    env_timer_start(n->producer, 10);
}

static void start(uint64_t seed)
{
    sim = sim_new(seed);
    sim_set_verbose(sim, getenv("SIM_VERBOSE") != NULL);
    for (int i = 0; i < N; i++) {
        char name[8];
        snprintf(name, sizeof name, "n%d", i);
        nodes[i] = (struct node){.id = i};
        nodes[i].sim_node = sim_node_add(sim, name, 1);
        sim_node_start(nodes[i].sim_node, boot, &nodes[i]);
    }
    sim_run_for(sim, 2 * SIM_S);
}

static void restart(struct node *n)
{
    n->tape = NULL;
    n->finishing = false;
    sim_node_restart(n->sim_node);
}

static bool is_alive(const struct node *n)
{
    return sim_node_up(n->sim_node) && n->tape != NULL;
}

static struct node *leader(void)
{
    struct node *found = NULL;
    for (int i = 0; i < N; i++) {
        if (!is_alive(&nodes[i]))
            continue;
        struct group_role role = group_role(nodes[i].tape->group);
        if (role.is_leader && role.ready)
            found = &nodes[i];
    }
    return found;
}

static uint64_t total(const struct node *n)
{
    return n->tape->size + n->tape->pending.size;
}

/* Lets the leader write that many entries more, whoever leads. */
static void write_entries(uint64_t entries)
{
    uint64_t before = 0, want;
    for (int i = 0; i < N; i++)
        if (is_alive(&nodes[i]) && total(&nodes[i]) > before)
            before = total(&nodes[i]);
    want = before + entries * ENTRY;
    for (int turns = 0; turns < 3000; turns++) {
        struct node *l = leader();
        if (l != NULL && total(l) >= want)
            break;
        for (int i = 0; i < N; i++)
            nodes[i].produce = 0;
        if (l != NULL)
            l->produce = (want - total(l) + ENTRY - 1) / ENTRY;
        sim_run_for(sim, 20 * SIM_MS);
    }
    ck_assert_ptr_nonnull(leader());
    ck_assert_uint_ge(total(leader()), want);
}

static bool is_equal(void *arg)
{
    uint64_t size = 0;
    (void)arg;
    for (int i = 0; i < N; i++) {
        const struct tape *t = nodes[i].tape;
        if (!is_alive(&nodes[i]) || t->pending.size > 0)
            return false;
        if (i > 0 && t->size != size)
            return false;
        size = t->size;
    }
    return true;
}

/* All replicas hold the same bytes, durable in their files. */
static void expect_equal(void)
{
    void *first = NULL;
    int64_t size = 0;
    if (!sim_run_while_not(sim, is_equal, NULL, 120 * SIM_S)) {
        for (int i = 0; i < N; i++)
            fprintf(
                stderr,
                "n%d size=%llu applied=%llu last=%llu settled=%llu "
                "switches=%d given_up=%d begins=%d\n",
                i, (unsigned long long)total(&nodes[i]),
                (unsigned long long)nodes[i].tape->applied,
                (unsigned long long)group_last_index(nodes[i].tape->group).v,
                (unsigned long long)group_settled_index(nodes[i].tape->group).v,
                nodes[i].switches, nodes[i].given_up, nodes[i].begins);
        ck_abort_msg("not equal");
    }
    for (int i = 0; i < N; i++) {
        char path[32];
        void *data;
        tape_path(nodes[i].tape->generation, path);
        int64_t n = sim_disk_durable(nodes[i].sim_node, path, &data);
        ck_assert_int_ge(n, (int64_t)nodes[i].tape->size);
        if (i == 0) {
            size = n;
            first = data;
            continue;
        }
        ck_assert_int_eq(n, size);
        ck_assert_int_eq(memcmp(first, data, (size_t)n), 0);
        mem_free(data);
    }
    mem_free(first);
}

static void finish(void)
{
    sim_free(sim);
}

/* The window is at most what the log buffer holds: 4 MiB of entries. */
#define WINDOW ((4 << 20) / ENTRY)

START_TEST(test_catchup__a_follower_far_behind_gets_the_settled_state)
{
    start(1);
    write_entries(100);
    sim_node_crash(nodes[2].sim_node, SIM_KILL);
    write_entries(3 * WINDOW);
    restart(&nodes[2]);
    expect_equal();
    ck_assert_int_eq(nodes[2].switches, 1);
    ck_assert_int_eq(nodes[0].switches + nodes[1].switches, 0);
    write_entries(100);
    expect_equal();
    ck_assert_int_eq(nodes[2].switches, 1);
    /* what was received stays after a restart, and after a power loss */
    sim_node_crash(nodes[2].sim_node, SIM_DROP_ALL);
    write_entries(10);
    restart(&nodes[2]);
    expect_equal();
    ck_assert_int_eq(nodes[2].switches, 1);
    finish();
}
END_TEST

static void call_delete(struct env *env, void *arg)
{
    struct node *n = arg;
    (void)env;
    ck_assert_int_eq(raft_host_delete(n->host, n->tape->group), ERR_OK);
}

static bool is_finishing(void *arg)
{
    return ((struct node *)arg)->finishing;
}

/* The group goes while a worker looks at what came for it. */
START_TEST(test_catchup__deleted_at_the_switch)
{
    start(9);
    write_entries(100);
    sim_node_crash(nodes[2].sim_node, SIM_KILL);
    write_entries(3 * WINDOW);
    restart(&nodes[2]);
    ck_assert(sim_run_while_not(sim, is_finishing, &nodes[2], 60 * SIM_S));
    sim_disk_stall(nodes[2].sim_node, sim_now_ns(sim) + SIM_S);
    sim_node_call(nodes[2].sim_node, 0, call_delete, &nodes[2]);
    sim_run_for(sim, 10 * SIM_S);
    ck_assert(nodes[2].closed && !nodes[2].finishing);
    ck_assert_int_eq(nodes[2].given_up, 1);
    ck_assert_int_eq(nodes[2].switches, 0);
    finish();
}
END_TEST

/* It was paused with something to settle, and settles it when a manifest is
 * there already: not into the files that are received. */
START_TEST(test_catchup__while_it_settles)
{
    start((uint64_t)_i + 20);
    write_entries(100);
    uint64_t until = sim_now_ns(sim) + 40 * SIM_S;
    sim_node_pause(nodes[2].sim_node, until);
    write_entries(3 * WINDOW);
    ck_assert_uint_lt(sim_now_ns(sim), until);
    sim_run_for(sim, until - sim_now_ns(sim));
    sim_disk_stall(nodes[2].sim_node, until + 2 * SIM_S);
    expect_equal();
    ck_assert_int_ge(nodes[2].switches, 1);
    ck_assert_int_eq(nodes[2].given_up, 0);
    finish();
}
END_TEST

START_TEST(test_catchup__under_load)
{
    start(2);
    sim_node_crash(nodes[2].sim_node, SIM_KILL);
    write_entries(3 * WINDOW);
    restart(&nodes[2]);
    write_entries(WINDOW);
    expect_equal();
    ck_assert_int_ge(nodes[2].switches, 1);
    finish();
}
END_TEST

START_TEST(test_catchup__a_stuck_follower_does_not_stop_the_others)
{
    start(4);
    write_entries(100);
    sim_disk_stall(nodes[2].sim_node, sim_now_ns(sim) + 40 * SIM_S);
    uint64_t begin = sim_now_ns(sim);
    write_entries(4 * WINDOW);
    ck_assert_uint_le(sim_now_ns(sim) - begin, 25 * SIM_S);
    expect_equal();
    finish();
}
END_TEST

/* A follower that is slow but keeps up slows the producer instead of falling
 * behind. */
START_TEST(test_catchup__a_slow_follower_in_sync_is_waited_for)
{
    start(5);
    sim_net_delay(sim, nodes[0].sim_node, nodes[2].sim_node, 300 * SIM_MS,
                  310 * SIM_MS);
    write_entries(4 * WINDOW);
    expect_equal();
    ck_assert_int_eq(nodes[2].begins, 0);
    finish();
}
END_TEST

/* The only replica with everything cannot commit without the one that lacks
 * it. */
START_TEST(test_catchup__from_a_leader_that_cannot_commit)
{
    start(6);
    sim_node_crash(nodes[2].sim_node, SIM_KILL);
    write_entries(3 * WINDOW);
    sim_node_crash(nodes[0].sim_node, SIM_DROP_ALL);
    sim_node_crash(nodes[1].sim_node, SIM_DROP_ALL);
    restart(&nodes[0]);
    restart(&nodes[2]);
    sim_run_for(sim, 10 * SIM_S);
    write_entries(10);
    ck_assert_int_eq(nodes[2].switches, 1);
    restart(&nodes[1]);
    expect_equal();
    finish();
}
END_TEST

START_TEST(test_catchup__waits_on_a_full_disk)
{
    start(7);
    sim_node_crash(nodes[2].sim_node, SIM_KILL);
    write_entries(3 * WINDOW);
    sim_disk_capacity(nodes[2].sim_node, 12 << 20);
    restart(&nodes[2]);
    sim_run_for(sim, 20 * SIM_S);
    ck_assert_int_eq(nodes[2].begins, 1);
    ck_assert_int_eq(nodes[2].switches, 0);
    ck_assert_uint_gt(nodes[2].bytes_written, 1 << 20);
    sim_disk_capacity(nodes[2].sim_node, 0);
    expect_equal();
    ck_assert_int_eq(nodes[2].switches, 1);
    ck_assert_int_eq(nodes[2].begins, 1);
    finish();
}
END_TEST

START_TEST(test_catchup__never_takes_what_is_damaged)
{
    char path[32];
    start(8);
    sim_node_crash(nodes[2].sim_node, SIM_KILL);
    write_entries(3 * WINDOW);
    struct node *l = leader();
    tape_path(l->tape->generation, path);
    ck_assert(sim_disk_flip(l->sim_node, path, 777777, 3));
    restart(&nodes[2]);
    sim_run_for(sim, 20 * SIM_S);
    ck_assert_int_gt(nodes[2].given_up, 0);
    ck_assert_int_eq(nodes[2].switches, 0);
    ck_assert(sim_disk_flip(l->sim_node, path, 777777, 3));
    expect_equal();
    ck_assert_int_eq(nodes[2].switches, 1);
    finish();
}
END_TEST

static bool is_receiving(void *arg)
{
    const struct tape *t = nodes[2].tape;
    uint64_t least = *(uint64_t *)arg;
    return is_alive(&nodes[2]) && t->rx.active && t->rx.written > least;
}

START_TEST(test_catchup__survives_crashes_of_both_sides)
{
    start(3 + (uint64_t)_i);
    sim_node_crash(nodes[2].sim_node, SIM_RANDOM);
    write_entries(10 * WINDOW / 4);
    sim_net_bandwidth(sim, 2 << 20);
    restart(&nodes[2]);
    for (uint64_t least = 1 << 20; least < 6 << 20; least += 2 << 20) {
        if (!sim_run_while_not(sim, is_receiving, &least, 60 * SIM_S))
            break;
        struct node *l = leader();
        if (least == 3 << 20 && l != NULL) {
            sim_node_crash(l->sim_node, SIM_RANDOM);
            sim_run_for(sim, 500 * SIM_MS);
            restart(l);
        } else {
            sim_node_crash(nodes[2].sim_node, SIM_RANDOM);
            sim_run_for(sim, 300 * SIM_MS);
            restart(&nodes[2]);
        }
    }
    expect_equal();
    ck_assert_int_ge(nodes[2].switches, 1);
    finish();
}
END_TEST

/* Random crashes, cuts and loads. FLOTILLA_SEEDS says how many runs. */
START_TEST(test_catchup__random)
{
    start(100 + (uint64_t)_i);
    struct prng *prng = sim_prng(sim);
    sim_net_bandwidth(sim, 4 << 20);
    for (int round = 0; round < 8; round++) {
        struct node *victim = &nodes[prng_below(prng, N)];
        sim_node_crash(victim->sim_node,
                       prng_below(prng, 2) == 0 ? SIM_KILL : SIM_RANDOM);
        write_entries(1 + prng_below(prng, WINDOW * 2));
        restart(victim);
        if (prng_below(prng, 3) == 0)
            sim_net_reset(sim, nodes[0].sim_node, nodes[1].sim_node);
        sim_run_for(sim, prng_below(prng, 3000) * SIM_MS);
    }
    expect_equal();
    finish();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("catchup");
    TCase *tc = tcase_create("sim");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc,
                   test_catchup__a_follower_far_behind_gets_the_settled_state);
    tcase_add_test(tc, test_catchup__deleted_at_the_switch);
    tcase_add_loop_test(tc, test_catchup__while_it_settles, 0, 3);
    tcase_add_test(tc, test_catchup__under_load);
    tcase_add_test(tc, test_catchup__a_stuck_follower_does_not_stop_the_others);
    tcase_add_test(tc, test_catchup__a_slow_follower_in_sync_is_waited_for);
    tcase_add_test(tc, test_catchup__from_a_leader_that_cannot_commit);
    tcase_add_test(tc, test_catchup__waits_on_a_full_disk);
    tcase_add_test(tc, test_catchup__never_takes_what_is_damaged);
    tcase_add_loop_test(tc, test_catchup__survives_crashes_of_both_sides, 0,
                        10);
    const char *seeds = getenv("FLOTILLA_SEEDS");
    tcase_add_loop_test(tc, test_catchup__random, 0,
                        seeds != NULL ? atoi(seeds) : 6);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
