/* Another number of shards: nothing is lost or invented, wherever the move is
 * cut off; a log that is missing is noticed. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "net/layout.h"
#include "raft/checkpoint.h"
#include "raft/wal.h"
#include "tests/sim/sim_env.h"

#define GROUPS 9
#define FROM 3
#define DIR "/data"

static struct sim *sim;
static struct sim_node *node;

/* Group k: settled 10 k when k is odd (known to the checkpoint), else new;
 * k entries behind that; the last group is deleted. */
static struct group_id id_of(unsigned k)
{
    struct group_id id = {.partition = (int32_t)k};
    id.topic.b[3] = (uint8_t)(k * 37);
    return id;
}

static struct group_creation creation_of(unsigned k)
{
    return (struct group_creation){.id = id_of(k),
                                   .self = 7 + k,
                                   .n_replicas = 1,
                                   .replicas = {{.id = 7 + k, .node = 1}}};
}

static uint64_t settled_of_group(unsigned k)
{
    return k % 2 == 1 ? 10 * k : 1;
}

/* ---- one log ------------------------------------------------------------- */
struct open_log {
    struct wal *wal;
    struct checkpoint checkpoint;
    bool has_checkpoint, closed;
};

static void on_durable(void *arg, uint64_t position)
{
    (void)arg, (void)position;
}

static void nothing(void *arg)
{
    (void)arg;
}

static void on_wants(void *arg, const struct group_id *id, log_index upto)
{
    (void)arg, (void)id, (void)upto;
}

static bool on_evict(void *arg, const struct group_id *id, log_index upto)
{
    (void)arg, (void)id, (void)upto;
    return false;
}

static log_index settled_in(void *arg, const struct group_id *id,
                            replica_id *self)
{
    struct open_log *log = arg;
    const struct checkpoint_group *c =
        log->has_checkpoint ? checkpoint_find(&log->checkpoint, id) : NULL;
    *self = c == NULL ? 0 : c->creation.self;
    return c == NULL ? (log_index){0} : c->settled;
}

static void on_closed(void *arg)
{
    ((struct open_log *)arg)->closed = true;
}

static enum err log_open(struct open_log *log, struct env *env, const char *dir,
                         bool must_exist)
{
    static const struct wal_ops ops = {.durable = on_durable,
                                       .file_begins = nothing,
                                       .wants_settled = on_wants,
                                       .evict = on_evict,
                                       .room = nothing};
    struct wal_options options = {.env = env,
                                  .dir = dir,
                                  .must_exist = must_exist,
                                  .file_bytes = 1 << 20,
                                  .bytes_max = 8 << 20,
                                  .buffer_bytes_max = 4 << 20};
    *log = (struct open_log){0};
    enum err e = checkpoint_load(env, dir, &log->checkpoint);
    log->has_checkpoint = e == ERR_OK;
    if (e != ERR_OK && e != ERR_NOT_FOUND) {
        return e;
    }
    if (log->has_checkpoint) {
        options.expect.log_id = log->checkpoint.log_id;
        options.expect.checkpoint_seq = log->checkpoint.seq;
        options.expect.position = log->checkpoint.position;
    }
    return wal_open(&options, &ops, log, settled_in, &log->wal);
}

static void log_checkpoint(struct open_log *log, struct env *env,
                           const char *dir, unsigned shard, unsigned n)
{
    struct checkpoint_group groups[GROUPS];
    struct checkpoint c = {
        .seq = 4, .log_id = wal_log_id(log->wal), .groups = groups};
    memset(groups, 0, sizeof groups);
    for (unsigned k = 1; k < GROUPS - 1; k += 2) {
        struct group_id id = id_of(k);
        if (group_id_shard(&id, n) == shard) {
            struct checkpoint_group *g = &groups[c.n_groups++];
            g->creation = creation_of(k);
            g->settled.v = settled_of_group(k);
            g->settled_term.v = 2;
            g->term.v = 2;
            g->blob = (const uint8_t *)"blob";
            g->blob_size = 4;
        }
    }
    size_t size;
    void *bytes = checkpoint_encode(&c, &size);
    ck_assert_int_eq(checkpoint_save(env, dir, c.seq, bytes, size), ERR_OK);
    mem_free(bytes);
}

/* The directory that all runs begin with. */
static void make_old(struct env *env, void *arg)
{
    struct open_log *logs = arg;
    struct layout layout = {.n_shards = FROM};
    for (unsigned s = 0; s < FROM; s++) {
        char dir[LAYOUT_PATH_MAX];
        layout_shard_dir(&layout, DIR, s, dir);
        ck_assert_int_eq(log_open(&logs[s], env, dir, false), ERR_OK);
        log_checkpoint(&logs[s], env, dir, s, FROM);
        struct wal *wal = logs[s].wal;
        for (unsigned k = 0; k < GROUPS; k++) {
            struct group_id id = id_of(k);
            if (group_id_shard(&id, FROM) != s) {
                continue;
            }
            struct group_creation creation = creation_of(k);
            wal_append_create(wal, &creation);
            for (uint64_t i = 1; i <= k; i++) {
                uint64_t index = settled_of_group(k) + i;
                char text[32];
                int n = snprintf(text, sizeof text, "%u:%llu", k,
                                 (unsigned long long)index);
                struct iovec iov = {text, (size_t)n};
                ck_assert(wal_reserve(wal, (uint64_t)n, 1));
                wal_append_entry(wal, &id, (log_index){index}, (raft_term_t){3},
                                 ENTRY_DATA, &iov, 1, NULL);
            }
            wal_append_term(wal, &id, (raft_term_t){3 + k}, 7 + k);
            if (k == GROUPS - 1) {
                wal_append_delete(wal, &id);
            }
        }
        wal_close(wal, on_closed, &logs[s]);
    }
    ck_assert_int_eq(layout_record(env, DIR, &layout), ERR_OK);
}

/* ---- what a directory holds ---------------------------------------------- */
struct audit {
    unsigned n_shards; /* that the layout named */
    unsigned seen[GROUPS];
};

static unsigned group_number(const struct group_id *id)
{
    ck_assert_int_ge(id->partition, 0);
    ck_assert_int_lt(id->partition, GROUPS);
    struct group_id same = id_of((unsigned)id->partition);
    ck_assert(group_id_equal(id, &same));
    return (unsigned)id->partition;
}

static void audit_group(struct audit *audit, const struct open_log *log,
                        const struct wal_recovered_group *w)
{
    unsigned k = group_number(&w->id);
    audit->seen[k]++;
    ck_assert_int_eq(w->deleted, k == GROUPS - 1);
    if (w->deleted) {
        return;
    }
    const struct checkpoint_group *c =
        log->has_checkpoint ? checkpoint_find(&log->checkpoint, &w->id) : NULL;
    uint64_t settled = c == NULL ? 1 : c->settled.v;
    ck_assert_uint_eq(settled, settled_of_group(k));
    if (k % 2 == 1) {
        ck_assert_uint_eq(c->blob_size, 4);
        ck_assert_uint_eq(c->settled_term.v, 2);
    }
    ck_assert(w->created);
    ck_assert_uint_eq(w->creation.self, 7 + k);
    ck_assert_uint_eq(w->term.v, 3 + k);
    ck_assert_uint_eq(w->vote, 7 + k);
    ck_assert_uint_eq(w->n_entries, k);
    for (uint64_t i = 0; i < w->n_entries; i++) {
        char text[32];
        const struct wal_recovered_entry *e = &w->entries[i];
        ck_assert_uint_eq(e->index.v, settled + 1 + i);
        ck_assert_uint_eq(e->term.v, 3);
        int n = snprintf(text, sizeof text, "%u:%llu", k,
                         (unsigned long long)e->index.v);
        ck_assert_uint_eq(e->place.size, (unsigned)n);
        ck_assert_mem_eq(e->place.payload, text, (size_t)n);
    }
}

static void audit_boot(struct env *env, void *arg)
{
    struct audit *audit = arg;
    struct layout layout;
    ck_assert_int_eq(layout_read(env, DIR, &layout), ERR_OK);
    ck_assert(layout.recorded);
    audit->n_shards = layout.n_shards;
    for (unsigned s = 0; s < layout.n_shards; s++) {
        char dir[LAYOUT_PATH_MAX];
        struct open_log *log = mem_zalloc(sizeof *log);
        layout_shard_dir(&layout, DIR, s, dir);
        ck_assert_int_eq(log_open(log, env, dir, true), ERR_OK);
        size_t n;
        struct wal_recovered_group *groups = wal_recovered(log->wal, &n);
        for (size_t i = 0; i < n; i++) {
            ck_assert_uint_eq(group_id_shard(&groups[i].id, layout.n_shards),
                              s);
            audit_group(audit, log, &groups[i]);
        }
        wal_recovered_free(groups, n);
        wal_close(log->wal, on_closed, log);
    }
}

static unsigned audit_disk(void)
{
    struct audit audit = {0};
    if (sim_node_up(node)) {
        sim_node_crash(node, SIM_KILL);
    }
    sim_node_start(node, audit_boot, &audit);
    sim_run_for(sim, SIM_S);
    for (unsigned k = 0; k < GROUPS; k++) {
        ck_assert_uint_eq(audit.seen[k], 1);
    }
    return audit.n_shards;
}

/* ---- moving -------------------------------------------------------------- */
struct move {
    unsigned n_shards;
    bool done, ok;
    char sentence[1024];
};

static void on_adopted(void *arg, const struct layout *layout,
                       const char *sentence)
{
    struct move *move = arg;
    move->done = true;
    move->ok = layout != NULL;
    if (!move->ok) {
        snprintf(move->sentence, sizeof move->sentence, "%s", sentence);
    }
}

static void move_boot(struct env *env, void *arg)
{
    struct move *move = arg;
    struct layout_options options = {.env = env,
                                     .dir = DIR,
                                     .n_shards = move->n_shards,
                                     .log_buffer_bytes = 4 << 20,
                                     .wal_file_bytes = 1 << 20,
                                     .wal_bytes_max = 8 << 20};
    layout_adopt(&options, on_adopted, move);
}

static void begin(uint64_t seed)
{
    struct open_log *logs = mem_zalloc(FROM * sizeof *logs);
    sim = sim_new(seed);
    node = sim_node_add(sim, "one", 1);
    sim_node_start(node, make_old, logs);
    sim_run_for(sim, SIM_S);
    for (unsigned s = 0; s < FROM; s++) {
        ck_assert(logs[s].closed);
    }
    mem_free(logs);
    sim_node_crash(node, SIM_DROP_ALL);
}

static bool is_done(void *arg)
{
    return ((struct move *)arg)->done;
}

static const unsigned numbers[] = {1, 2, 3, 5};

START_TEST(test_layout__moves_to_more_and_fewer_shards)
{
    struct move move = {.n_shards = numbers[_i]};
    begin(1);
    sim_node_start(node, move_boot, &move);
    ck_assert(sim_run_while_not(sim, is_done, &move, 60 * SIM_S));
    ck_assert_msg(move.ok, "%s", move.sentence);
    sim_node_crash(node, SIM_DROP_ALL);
    ck_assert_uint_eq(audit_disk(), numbers[_i]);
    sim_free(sim);
}
END_TEST

/* Crashed after each event of the move, at whatever the disk kept. */
START_TEST(test_layout__a_crash_leaves_the_old_or_the_new)
{
    unsigned n_old = 0, n_new = 0;
    bool over = false;
    for (unsigned steps = 1; !over; steps++) {
        struct move move = {.n_shards = numbers[_i]};
        begin(100 + steps);
        sim_node_start(node, move_boot, &move);
        for (unsigned i = 0; i < steps && !move.done; i++) {
            ck_assert(sim_step(sim));
        }
        over = move.done;
        sim_node_crash(node, SIM_RANDOM);
        unsigned found = audit_disk();
        n_old += found == FROM;
        n_new += found == numbers[_i];
        ck_assert(found == FROM || found == numbers[_i]);
        ck_assert(!over || found == numbers[_i]);
        /* and what was begun is no hindrance */
        move.done = false;
        sim_node_crash(node, SIM_KILL);
        sim_node_start(node, move_boot, &move);
        ck_assert(sim_run_while_not(sim, is_done, &move, 60 * SIM_S));
        ck_assert_msg(move.ok, "%s", move.sentence);
        ck_assert_uint_eq(audit_disk(), numbers[_i]);
        sim_free(sim);
    }
    ck_assert_uint_gt(n_new, 0);
    ck_assert(numbers[_i] == FROM || n_old > 1);
}
END_TEST

/* Every file operation fails once: a sentence, or the end of the process; the
 * old logs count then, or the new ones. */
static void on_fatal(void *arg, struct sim_node *fallen, const char *line)
{
    (void)fallen, (void)line;
    *(bool *)arg = true;
}

START_TEST(test_layout__a_failing_disk_loses_nothing)
{
    static const int kinds = SIM_DISK_WRITE | SIM_DISK_SYNC | SIM_DISK_NAME;
    unsigned n_failed = 0;
    bool over = false;
    for (uint64_t nth = 1; !over; nth++) {
        struct move move = {.n_shards = 2};
        bool fatal = false;
        begin(500 + nth);
        sim_on_fatal(sim, on_fatal, &fatal);
        uint64_t before = sim_disk_ops(node, kinds);
        sim_disk_fail_nth(node, kinds, nth);
        sim_node_start(node, move_boot, &move);
        for (unsigned i = 0; i < 100000 && !move.done && !fatal; i++) {
            ck_assert(sim_step(sim));
        }
        ck_assert(move.done || fatal);
        over = sim_disk_ops(node, kinds) - before < nth;
        n_failed += fatal || !move.ok;
        ck_assert(!over || move.ok);
        sim_disk_fail_nth(node, kinds, 0);
        if (sim_node_up(node)) {
            sim_node_crash(node, SIM_KILL);
        }
        unsigned found = audit_disk();
        ck_assert(found == FROM || found == 2);
        ck_assert(!over || found == 2);
        sim_free(sim);
    }
    ck_assert_uint_gt(n_failed, 10);
}
END_TEST

static void lose_boot(struct env *env, void *arg)
{
    ck_assert_int_eq(env_dir_remove(env, arg), ERR_OK);
    ck_assert_int_eq(env_dir_sync(env, DIR), ERR_OK);
}

START_TEST(test_layout__a_missing_log_is_not_replaced)
{
    struct move move = {.n_shards = 2};
    begin(9);
    sim_node_start(node, lose_boot, (void *)(uintptr_t)(DIR "/shard-1"));
    sim_run_for(sim, SIM_S);
    sim_node_crash(node, SIM_KILL);
    sim_node_start(node, move_boot, &move);
    ck_assert(sim_run_while_not(sim, is_done, &move, 60 * SIM_S));
    ck_assert(!move.ok);
    ck_assert_ptr_nonnull(strstr(move.sentence, "shards=3"));
    sim_free(sim);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("layout");
    TCase *tcase = tcase_create("layout");
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, test_layout__moves_to_more_and_fewer_shards, 0,
                        4);
    tcase_add_loop_test(tcase, test_layout__a_crash_leaves_the_old_or_the_new,
                        0, 4);
    tcase_add_test(tcase, test_layout__a_failing_disk_loses_nothing);
    tcase_add_test(tcase, test_layout__a_missing_log_is_not_replaced);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
