/* The write-ahead log on a real disk: what was durable is there when the
 * process ended without a word. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/env_uv.h"
#include "base/mem.h"
#include "raft/wal.h"

#define ENTRIES 500

static struct env *env;
static struct wal *wal;
static char dir[64];
static uint64_t last;

static void on_durable(void *arg, uint64_t position)
{
    (void)arg;
    if (position >= last) {
        env_uv_stop(env);
    }
}
static void on_file_begins(void *arg)
{
    (void)arg;
}
static void on_wants(void *arg, const struct group_id *group, log_index upto)
{
    (void)arg, (void)group, (void)upto;
}
static bool on_evict(void *arg, const struct group_id *group, log_index upto)
{
    (void)arg, (void)group, (void)upto;
    return false;
}
static void on_room(void *arg)
{
    (void)arg;
}

static void open_log(void)
{
    static const struct wal_ops ops = {on_durable, on_file_begins, on_wants,
                                       on_evict,   on_room,        NULL};
    env = env_uv_new(NULL);
    struct wal_options options = {.env = env,
                                  .dir = dir,
                                  .file_bytes = 2 << 20,
                                  .bytes_max = 8 << 20,
                                  .buffer_bytes_max = 1 << 20};
    ck_assert_int_eq(wal_open(&options, &ops, NULL, NULL, &wal), ERR_OK);
}

static struct env_timer begin;
static void on_begin(struct env_timer *timer)
{
    struct group_creation creation = {.id = {.partition = 4},
                                      .self = 7,
                                      .n_replicas = 1,
                                      .replicas = {{.id = 7, .node = 1}}};
    struct group_id id = creation.id;
    (void)timer;
    wal_append_create(wal, &creation);
    for (uint64_t k = 2; k <= ENTRIES; k++) { /* 1 is the creation */
        char text[32];
        int n =
            snprintf(text, sizeof text, "entry %llu", (unsigned long long)k);
        struct iovec iov = {text, (size_t)n};
        last = wal_append_entry(wal, &id, (log_index){k}, (raft_term_t){2},
                                ENTRY_DATA, &iov, 1, NULL);
    }
}

START_TEST(test_wal_uv__durable_without_closing)
{
    snprintf(dir, sizeof dir, "/tmp/test_wal_uv.%d", (int)getpid());
    open_log();
    ck_assert(wal_is_new(wal));
    uint64_t id = wal_log_id(wal);
    last = UINT64_MAX;
    env_timer_init(env, &begin, on_begin, NULL);
    env_timer_start(&begin, 1);
    env_uv_run(env);
    env_uv_free(env); /* the log is not closed */
    open_log();
    ck_assert(!wal_is_new(wal));
    ck_assert_uint_eq(wal_log_id(wal), id);
    size_t n;
    struct wal_recovered_group *groups = wal_recovered(wal, &n);
    ck_assert_uint_eq(n, 1);
    ck_assert(groups[0].created && groups[0].creation.self == 7);
    ck_assert_uint_eq(groups[0].n_entries, ENTRIES - 1);
    ck_assert_uint_eq(groups[0].first.v, 2);
    ck_assert_uint_eq(groups[0].entries[ENTRIES - 2].place.size, 9);
    ck_assert_mem_eq(groups[0].entries[ENTRIES - 2].place.payload, "entry 500",
                     9);
    wal_recovered_free(groups, n);
    ck_assert_int_eq(env_dir_remove(env, dir), ERR_OK);
    env_uv_free(env);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wal_uv");
    TCase *tcase = tcase_create("wal_uv");
    tcase_add_test(tcase, test_wal_uv__durable_without_closing);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
