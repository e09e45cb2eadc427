/* What the simulated disk keeps and loses. */
#include <check.h>
#include <string.h>

#include "base/mem.h"
#include "tests/sim/sim_env.h"

static struct sim *sim;
static struct sim_node *node;
static struct env *env;

static void begin(uint64_t seed)
{
    sim = sim_new(seed);
    node = sim_node_add(sim, "one", 1);
    sim_node_start(node, NULL, NULL);
    env = sim_env(node, 0);
    ck_assert_int_eq(env_dir_make(env, "/d"), ERR_OK);
}

static void setup(void)
{
    begin(7);
}

static void teardown(void)
{
    sim_free(sim);
}

static void crash(enum sim_crash how)
{
    sim_node_crash(node, how);
    sim_node_restart(node);
    env = sim_env(node, 0);
}

static struct env_file *open_file(const char *path)
{
    struct env_file *file;
    ck_assert_int_eq(
        env_file_open(env, path,
                      ENV_FILE_READ | ENV_FILE_WRITE | ENV_FILE_CREATE, &file),
        ERR_OK);
    return file;
}

static enum err write_at(struct env_file *file, const void *data, size_t size,
                         uint64_t offset, bool durable)
{
    struct iovec iov = {(void *)(uintptr_t)data, size};
    return env_file_pwritev(file, &iov, 1, offset, durable);
}

static void put(struct env_file *file, const char *text, uint64_t offset,
                bool durable)
{
    ck_assert_int_eq(write_at(file, text, strlen(text), offset, durable),
                     ERR_OK);
}

/* Whether the file holds exactly this text; "-" for a missing file. */
static bool holds(const char *path, const char *text)
{
    void *data;
    size_t size;
    enum err e = env_file_read_whole(env, path, 1 << 20, &data, &size);
    if (e == ERR_NOT_FOUND) {
        return strcmp(text, "-") == 0;
    }
    ck_assert_int_eq(e, ERR_OK);
    bool same = size == strlen(text) && memcmp(data, text, size) == 0;
    mem_free(data);
    return same;
}

START_TEST(test_disk__synced_survives_unsynced_is_lost)
{
    struct env_file *f = open_file("/d/a");
    put(f, "synced", 0, false);
    ck_assert_int_eq(env_file_sync(f), ERR_OK);
    ck_assert_int_eq(env_dir_sync(env, "/d"), ERR_OK);
    ck_assert_uint_eq(sim_disk_unsynced(node), 0);
    put(f, "UNSYNC", 0, false);
    put(f, "more", 6, false);
    ck_assert(holds("/d/a", "UNSYNCmore"));
    ck_assert_int_eq(sim_disk_durable(node, "/d/a", NULL), 6);
    crash(SIM_DROP_ALL);
    ck_assert(holds("/d/a", "synced"));
}
END_TEST

START_TEST(test_disk__keep_all_and_kill)
{
    struct env_file *f = open_file("/d/a");
    put(f, "one", 0, false);
    crash(SIM_KILL);
    ck_assert(holds("/d/a", "one")); /* in the page cache ... */
    ck_assert_int_eq(sim_disk_durable(node, "/d/a", NULL), -1);
    f = open_file("/d/a");
    put(f, "two", 3, false);
    crash(SIM_KEEP_ALL);
    ck_assert(holds("/d/a", "onetwo")); /* ... and on the disk */
    ck_assert_int_eq(sim_disk_durable(node, "/d/a", NULL), 6);
    crash(SIM_DROP_ALL);
    ck_assert(holds("/d/a", "onetwo"));
}
END_TEST

START_TEST(test_disk__durable_write_syncs_itself_only)
{
    struct env_file *f = open_file("/d/a");
    char page[8192];
    memset(page, 'p', sizeof page);
    ck_assert_int_eq(env_dir_sync(env, "/d"), ERR_OK);
    ck_assert_int_eq(write_at(f, page, 8192, 0, false), ERR_OK);
    put(f, "durable", 4096, true);
    crash(SIM_DROP_ALL);
    void *data;
    int64_t size = sim_disk_durable(node, "/d/a", &data);
    ck_assert_int_ge(size, 4103);
    ck_assert_mem_eq((char *)data + 4096, "durable", 7);
    ck_assert_mem_ne(data, page, 100); /* the rest was not synced */
    mem_free(data);
}
END_TEST

START_TEST(test_disk__earlier_unsynced_write_never_undoes_a_durable_one)
{
    for (uint64_t seed = 0; seed < 200; seed++) {
        char page[4096];
        void *data;
        teardown();
        begin(seed);
        struct env_file *f = open_file("/d/a");
        ck_assert_int_eq(env_dir_sync(env, "/d"), ERR_OK);
        memset(page, 'p', sizeof page);
        ck_assert_int_eq(write_at(f, page, sizeof page, 0, false), ERR_OK);
        if (seed % 5 != 0) {
            ck_assert_int_eq(env_file_truncate(f, 100), ERR_OK);
        }
        put(f, "durable", 1000, true);
        if (seed % 2 == 0) {
            ck_assert_int_eq(env_file_sync(f), ERR_OK);
        }
        crash(seed % 3 == 0 ? SIM_TORN : SIM_RANDOM);
        int64_t size = sim_disk_durable(node, "/d/a", &data);
        ck_assert_int_ge(size, 1007);
        ck_assert_mem_eq((char *)data + 1000, "durable", 7);
        mem_free(data);
    }
}
END_TEST

/* Over many seeds every fate of a sector is seen, and no other. */
START_TEST(test_disk__unsynced_is_kept_dropped_or_torn)
{
    int old = 0, new = 0, garbage = 0, mixed = 0;
    for (uint64_t seed = 0; seed < 300; seed++) {
        char page[4096], before[4096];
        void *data;
        teardown();
        begin(seed);
        struct env_file *f = open_file("/d/a");
        memset(before, 'o', sizeof before);
        memset(page, 'n', sizeof page);
        ck_assert_int_eq(write_at(f, before, 4096, 0, false), ERR_OK);
        ck_assert_int_eq(write_at(f, before, 4096, 4096, false), ERR_OK);
        ck_assert_int_eq(env_fs_sync(env, "/d"), ERR_OK);
        ck_assert_int_eq(write_at(f, page, 4096, 0, false), ERR_OK);
        crash(SIM_RANDOM);
        ck_assert_int_eq(sim_disk_durable(node, "/d/a", &data), 8192);
        int kinds = 0;
        for (int i = 0; i < 8; i++) {
            char *sector = (char *)data + i * 512;
            bool is_old = memcmp(sector, before, 512) == 0;
            bool is_new = memcmp(sector, page, 512) == 0;
            old += is_old;
            new += is_new;
            garbage += !is_old && !is_new;
            kinds |= is_old ? 1 : is_new ? 2 : 4;
        }
        mixed += kinds != 1 && kinds != 2;
        ck_assert_mem_eq((char *)data + 4096, before, 4096);
        mem_free(data);
    }
    ck_assert_int_gt(old, 300);
    ck_assert_int_gt(new, 300);
    ck_assert_int_gt(garbage, 50);
    ck_assert_int_gt(mixed, 50);
}
END_TEST

START_TEST(test_disk__names_need_a_directory_sync)
{
    ck_assert_int_eq(env_file_write_whole(env, "/d/a", "1", 1), ERR_OK);
    struct env_file *f = open_file("/d/b");
    put(f, "22", 0, false);
    ck_assert_int_eq(env_file_sync(f), ERR_OK);
    crash(SIM_DROP_ALL);
    ck_assert(holds("/d/a", "1"));
    ck_assert(holds("/d/b", "-")); /* created, not synced */
    f = open_file("/d/b");
    put(f, "22", 0, false);
    ck_assert_int_eq(env_fs_sync(env, "/d"), ERR_OK);
    ck_assert_int_eq(env_file_rename(env, "/d/b", "/d/a"), ERR_OK);
    ck_assert(holds("/d/a", "22"));
    crash(SIM_DROP_ALL);
    ck_assert(holds("/d/a", "1")); /* renamed, not synced */
    ck_assert(holds("/d/b", "22"));
    ck_assert_int_eq(env_file_rename(env, "/d/b", "/d/a"), ERR_OK);
    ck_assert_int_eq(env_dir_sync(env, "/d"), ERR_OK);
    ck_assert_int_eq(env_file_unlink(env, "/d/a"), ERR_OK);
    ck_assert(holds("/d/a", "-"));
    crash(SIM_DROP_ALL);
    ck_assert(holds("/d/a", "22")); /* unlinked, not synced */
    ck_assert(holds("/d/b", "-"));
}
END_TEST

static void count_name(void *arg, const char *name)
{
    ck_assert_ptr_nonnull(name);
    ++*(int *)arg;
}

START_TEST(test_disk__directories)
{
    int n = 0;
    ck_assert_int_eq(env_dir_make(env, "/d/e//f/"), ERR_OK);
    ck_assert_int_eq(env_file_write_whole(env, "/d/e/x", "1", 1), ERR_OK);
    ck_assert_int_eq(env_file_write_whole(env, "/d/e/f/y", "1", 1), ERR_OK);
    ck_assert_int_eq(env_dir_list(env, "/d/e", count_name, &n), ERR_OK);
    ck_assert_int_eq(n, 2);
    ck_assert_int_eq(env_dir_remove(env, "/d/e"), ERR_OK);
    ck_assert_int_eq(env_dir_list(env, "/d/e", count_name, &n), ERR_NOT_FOUND);
    crash(SIM_DROP_ALL);
    ck_assert(holds("/d/e/f/y", "1")); /* not synced: back again */
    ck_assert_int_eq(env_dir_remove(env, "/d/e"), ERR_OK);
    ck_assert_int_eq(env_fs_sync(env, "/d"), ERR_OK);
    crash(SIM_DROP_ALL);
    ck_assert_int_eq(env_dir_list(env, "/d/e/f", count_name, &n),
                     ERR_NOT_FOUND);
    ck_assert_int_eq(env_dir_lock(env, "/d"), ERR_OK);
    ck_assert_int_eq(env_dir_lock(env, "/d"), ERR_BUSY);
    crash(SIM_KILL);
    ck_assert_int_eq(env_dir_lock(env, "/d"), ERR_OK);
    ck_assert_int_eq(env_file_write_whole(env, "/no/such", "1", 1),
                     ERR_NOT_FOUND);
}
END_TEST

/* The strongest check of the model: an atomic replacement is atomic at every
 * point of time and under every policy. */
static void replace(struct env_work *work)
{
    static int number;
    char text[64];
    memset(text, '0' + number++ % 10, sizeof text);
    ck_assert_int_eq(env_file_write_whole(work->env, "/d/w", text, sizeof text),
                     ERR_OK);
}

static struct env_work again;
static int replaced;
static void replace_again(struct env_work *work)
{
    replaced++;
    env_work_submit(work->env, ENV_POOL_LOG, work);
}

START_TEST(test_disk__write_whole_is_atomic)
{
    static const enum sim_crash hows[] = {SIM_KILL, SIM_DROP_ALL, SIM_KEEP_ALL,
                                          SIM_RANDOM, SIM_TORN};
    void *data;
    replaced = 0;
    ck_assert_int_eq(env_file_write_whole(env, "/d/w", "a", 1), ERR_OK);
    for (int i = 0; i < 500; i++) {
        again = (struct env_work){.run = replace, .done = replace_again};
        env_work_submit(env, ENV_POOL_LOG, &again);
        sim_run_for(sim, prng_below(sim_prng(sim), 3 * SIM_MS));
        crash(hows[i % 5]);
        size_t size;
        ck_assert_int_eq(env_file_read_whole(env, "/d/w", 64, &data, &size),
                         ERR_OK);
        ck_assert(size == 64 || (size == 1 && replaced == 0));
        for (size_t k = 1; k < size; k++) {
            ck_assert_int_eq(((char *)data)[k], ((char *)data)[0]);
        }
        mem_free(data);
    }
    ck_assert_int_gt(replaced, 100);
}
END_TEST

/* A work of ten durable writes that dies on the way leaves a beginning of
 * them. */
static void ten_writes(struct env_work *work)
{
    struct env_file *f = work->arg;
    for (uint64_t i = 0; i < 10; i++) {
        put(f, "w", i * 512, true);
    }
}

static void never(struct env_work *work)
{
    (void)work;
    ck_abort_msg("done after the crash");
}

START_TEST(test_disk__crash_cuts_a_running_work)
{
    int seen[12] = {0};
    for (uint64_t seed = 0; seed < 200; seed++) {
        void *data;
        teardown();
        begin(seed);
        struct env_file *f = open_file("/d/a");
        ck_assert_int_eq(env_dir_sync(env, "/d"), ERR_OK);
        struct env_work work = {.run = ten_writes, .done = never, .arg = f};
        env_work_submit(env, ENV_POOL_LOG, &work);
        sim_run_for(sim, 50 * SIM_US);
        ck_assert_int_eq(sim_disk_durable(node, "/d/a", NULL), 0);
        crash(SIM_DROP_ALL);
        int64_t size = sim_disk_durable(node, "/d/a", &data);
        int n = 0;
        while (n * 512 < size && ((char *)data)[n * 512] == 'w') {
            n++;
        }
        ck_assert_int_eq(n == 0 ? 0 : n * 512 - 511, size);
        seen[n]++;
        mem_free(data);
    }
    for (int n = 0; n <= 10; n++) {
        ck_assert_int_gt(seen[n], 0);
    }
}
END_TEST

/* ---- faults -------------------------------------------------------------- */
START_TEST(test_disk__failed_sync_loses_what_it_covered)
{
    struct env_file *f = open_file("/d/a");
    ck_assert_int_eq(env_dir_sync(env, "/d"), ERR_OK);
    put(f, "lost", 0, false);
    sim_disk_fail_nth(node, SIM_DISK_SYNC, 1);
    ck_assert_int_eq(env_file_sync(f), ERR_IO);
    ck_assert_int_eq(env_file_sync(f), ERR_OK); /* and lies */
    crash(SIM_DROP_ALL);
    ck_assert(holds("/d/a", ""));
}
END_TEST

START_TEST(test_disk__nth_operation_fails)
{
    struct env_file *f = open_file("/d/a");
    sim_disk_fail_nth(node, SIM_DISK_WRITE | SIM_DISK_READ, 3);
    put(f, "1", 0, false);
    put(f, "2", 0, false);
    ck_assert_int_eq(write_at(f, "3", 1, 0, false), ERR_IO);
    put(f, "4", 0, false);
    ck_assert_uint_eq(sim_disk_ops(node, SIM_DISK_WRITE), 4);
    sim_disk_fail_nth(node, SIM_DISK_NAME, 1);
    ck_assert_int_eq(env_file_rename(env, "/d/a", "/d/b"), ERR_IO);
    ck_assert(holds("/d/a", "4"));
}
END_TEST

START_TEST(test_disk__no_space)
{
    struct env_file *f = open_file("/d/a");
    uint64_t total, bytes;
    char page[4096] = "x";
    sim_disk_capacity(node, 10000);
    ck_assert_int_eq(write_at(f, page, 4096, 0, false), ERR_OK);
    ck_assert_int_eq(write_at(f, page, 4096, 4096, false), ERR_OK);
    ck_assert_int_eq(write_at(f, page, 4096, 8192, false), ERR_NOSPACE);
    ck_assert_int_eq(write_at(f, page, 4096, 0, false), ERR_OK);
    ck_assert_int_eq(env_fs_space(env, "/d", &total, &bytes), ERR_OK);
    ck_assert_uint_eq(bytes, 10000 - 8192);
    ck_assert_uint_eq(total, 10000);
    env_file_close(f);
    ck_assert_int_eq(env_file_unlink(env, "/d/a"), ERR_OK);
    ck_assert_int_eq(env_fs_sync(env, "/d"), ERR_OK);
    ck_assert_int_eq(env_fs_space(env, "/d", &total, &bytes), ERR_OK);
    ck_assert_uint_eq(bytes, 10000);
}
END_TEST

START_TEST(test_disk__flip_and_wipe)
{
    ck_assert_int_eq(env_file_write_whole(env, "/d/a", "abc", 3), ERR_OK);
    ck_assert(sim_disk_flip(node, "/d/a", 1, 0));
    ck_assert(!sim_disk_flip(node, "/d/a", 3, 0));
    ck_assert(!sim_disk_flip(node, "/d/b", 0, 0));
    ck_assert(holds("/d/a", "acc"));
    crash(SIM_DROP_ALL);
    ck_assert(holds("/d/a", "acc"));
    sim_node_crash(node, SIM_KILL);
    sim_disk_wipe(node);
    sim_node_restart(node);
    env = sim_env(node, 0);
    ck_assert(holds("/d/a", "-"));
}
END_TEST

START_TEST(test_disk__one_read_is_wrong)
{
    struct env_file *f;
    char got[3][4] = {"", "", ""};
    size_t n = 0;
    int bits = 0;
    ck_assert_int_eq(env_file_write_whole(env, "/d/a", "abc", 3), ERR_OK);
    ck_assert(!sim_disk_rot_read(node, "/d/b", 1));
    ck_assert(sim_disk_rot_read(node, "/d/a", 2));
    ck_assert_int_eq(env_file_open(env, "/d/a", ENV_FILE_READ, &f), ERR_OK);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(env_file_pread(f, got[i], 3, 0, &n), ERR_OK);
        ck_assert_uint_eq(n, 3);
        ck_assert_uint_eq(sim_disk_rotten(node), i > 0);
    }
    env_file_close(f);
    ck_assert_str_eq(got[0], "abc");
    ck_assert_str_eq(got[2], "abc");
    for (int i = 0; i < 3; i++) {
        bits += __builtin_popcount((unsigned)(got[1][i] ^ "abc"[i]));
    }
    ck_assert_int_eq(bits, 1);
    ck_assert(holds("/d/a", "abc"));
}
END_TEST

START_TEST(test_disk__direct_needs_alignment)
{
    struct env_file *f;
    ck_assert_int_eq(
        env_file_open(env, "/d/a",
                      ENV_FILE_WRITE | ENV_FILE_CREATE | ENV_FILE_DIRECT, &f),
        ERR_OK);
    put(f, "unaligned", 0, false);
}
END_TEST

static bool stalled_done;
static void set_done(struct env_work *work)
{
    (void)work;
    stalled_done = true;
}

START_TEST(test_disk__stall_and_latency)
{
    struct env_file *f = open_file("/d/a");
    struct env_work work = {.run = ten_writes, .done = set_done, .arg = f};
    stalled_done = false;
    sim_disk_stall(node, sim_now_ns(sim) + 10 * SIM_S);
    env_work_submit(env, ENV_POOL_IO, &work);
    sim_run_for(sim, 9999 * SIM_MS);
    ck_assert(!stalled_done);
    sim_run_for(sim, 2 * SIM_MS);
    ck_assert(stalled_done);
    stalled_done = false;
    sim_disk_latency(node, 0, 0, SIM_S);
    env_work_submit(env, ENV_POOL_IO, &work);
    sim_run_for(sim, SIM_S);
    ck_assert(!stalled_done);
    sim_run_for(sim, 60 * SIM_S);
    ck_assert(stalled_done);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sim_disk");
    TCase *tc = tcase_create("sim_disk");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_disk__synced_survives_unsynced_is_lost);
    tcase_add_test(tc, test_disk__keep_all_and_kill);
    tcase_add_test(tc, test_disk__durable_write_syncs_itself_only);
    tcase_add_test(
        tc, test_disk__earlier_unsynced_write_never_undoes_a_durable_one);
    tcase_add_test(tc, test_disk__unsynced_is_kept_dropped_or_torn);
    tcase_add_test(tc, test_disk__names_need_a_directory_sync);
    tcase_add_test(tc, test_disk__directories);
    tcase_add_test(tc, test_disk__write_whole_is_atomic);
    tcase_add_test(tc, test_disk__crash_cuts_a_running_work);
    tcase_add_test(tc, test_disk__failed_sync_loses_what_it_covered);
    tcase_add_test(tc, test_disk__nth_operation_fails);
    tcase_add_test(tc, test_disk__no_space);
    tcase_add_test(tc, test_disk__flip_and_wipe);
    tcase_add_test(tc, test_disk__one_read_is_wrong);
    tcase_add_exit_test(tc, test_disk__direct_needs_alignment, 1);
    tcase_add_test(tc, test_disk__stall_and_latency);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
