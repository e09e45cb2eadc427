/* The write-ahead log: its bytes, what it recovers, what it refuses. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <stdio.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/mem.h"
#include "raft/wal_format.h"
#include "tests/unit/wal_model.h"

static struct model m;

/* ---- bytes --------------------------------------------------------------- */
START_TEST(test_format__frame_is_bound_to_its_place)
{
    uint8_t bytes[128] = {0};
    struct wal_frame in = {.type = WAL_FRAME_ENTRY,
                           .entry_type = ENTRY_DATA,
                           .group = model_group_id(-3),
                           .size = 5,
                           .index = 7,
                           .term = UINT64_MAX,
                           .payload_crc = crc32c(0, "hello", 5)};
    struct wal_frame out;
    memcpy(bytes + WAL_FRAME_HEADER, "hello", 5);
    wal_frame_write(bytes, &in, 3, 99);
    ck_assert_uint_eq(wal_frame_read(bytes, 64, 3, 99, &out), 64);
    ck_assert_int_eq(out.type, WAL_FRAME_ENTRY);
    ck_assert_uint_eq(out.index, 7);
    ck_assert_uint_eq(out.term, UINT64_MAX);
    ck_assert_int_eq(out.group.partition, -3);
    ck_assert_mem_eq(out.payload, "hello", 5);
    ck_assert_uint_eq(wal_frame_read(bytes, 64, 4, 99, &out), 0);
    ck_assert_uint_eq(wal_frame_read(bytes, 64, 3, 98, &out), 0);
    ck_assert_uint_eq(wal_frame_read(bytes, 63, 3, 99, &out), 0);
    ck_assert_uint_eq(wal_frame_read(bytes, 20, 3, 99, &out), 0);
    bytes[WAL_FRAME_HEADER] ^= 1;
    ck_assert_uint_eq(wal_frame_read(bytes, 64, 3, 99, &out), 0);
}
END_TEST

START_TEST(test_format__every_byte_of_a_flush_counts)
{
    static uint8_t flush[WAL_BLOCK];
    struct wal_flush_header in = {.log_id = 1,
                                  .generation = 2,
                                  .oldest = 2,
                                  .checkpoint = 4,
                                  .position = 5,
                                  .prev_position = 4,
                                  .prev_crc = 6,
                                  .n_frames = 1,
                                  .length = WAL_BLOCK};
    struct wal_flush_header out;
    memset(flush, 0, sizeof flush);
    uint32_t crc = wal_flush_seal(flush, &in);
    ck_assert(wal_flush_read(flush, &out) && wal_flush_check(flush, &out));
    ck_assert_uint_eq(out.crc, crc);
    in.crc = crc;
    ck_assert_mem_eq(&in, &out, sizeof in);
    for (size_t k = 0; k < sizeof flush; k++) {
        flush[k] ^= 4;
        ck_assert(!wal_flush_read(flush, &out) || out.length != WAL_BLOCK ||
                  !wal_flush_check(flush, &out));
        flush[k] ^= 4;
    }
}
END_TEST

START_TEST(test_format__creation_and_meta)
{
    uint8_t bytes[WAL_CREATE_BYTES_MAX];
    struct group_creation in = {.self = 12, .n_replicas = 2}, out = {.self = 0};
    in.directory.b[4] = 9;
    in.replicas[1] = (struct group_replica){13, 3};
    uint32_t size = wal_create_encode(&in, bytes);
    ck_assert(wal_create_decode(bytes, size, &out));
    ck_assert_mem_eq(&in, &out, sizeof in);
    ck_assert(!wal_create_decode(bytes, size - 1, &out));
    bytes[24] = 200;
    ck_assert(!wal_create_decode(bytes, size, &out));

    uint64_t sizes[3] = {4096, 8192, 4096};
    static uint64_t read[WAL_FILES_MAX];
    struct wal_meta meta = {.log_id = 5, .n_files = 3, .bytes = sizes}, got;
    uint8_t raw[256];
    wal_meta_encode(&meta, raw);
    ck_assert(wal_meta_decode(raw, wal_meta_bytes(3), &got, read));
    ck_assert_uint_eq(read[1], 8192);
    for (size_t k = 0; k < wal_meta_bytes(3); k++) {
        raw[k] ^= 0x20;
        ck_assert(!wal_meta_decode(raw, wal_meta_bytes(3), &got, read));
        raw[k] ^= 0x20;
    }
}
END_TEST

/* ---- a log --------------------------------------------------------------- */
static void setup(void)
{
    model_begin(&m, 11);
    m.calm = true;
    m.options.file_bytes = 128 << 10;
    m.options.bytes_max = 8 * 128 << 10;
    m.options.buffer_bytes_max = 48 << 10;
    ck_assert_int_eq(model_open(&m), ERR_OK);
}

static void teardown(void)
{
    model_end(&m);
}

static void in_node(void (*fn)(struct env *env, void *arg), void *arg)
{
    sim_node_call(m.node, 0, fn, arg);
}

static void write_some(struct env *env, void *arg)
{
    (void)env, (void)arg;
    for (int g = 0; g < 3; g++) {
        if (!m.now.groups[g].exists) {
            model_create(&m, g);
            model_term(&m, g, 1, 1);
        }
        for (int k = 0; k < 3; k++) {
            model_entry(&m, g, 0);
        }
    }
}

static enum err reopen(void)
{
    model_crash(&m, SIM_DROP_ALL);
    return model_open(&m);
}

START_TEST(test_wal__recovers_what_was_written)
{
    in_node(write_some, NULL);
    ck_assert_uint_eq(m.n_ops, 15); /* nothing is durable before its time */
    model_run_us(&m, 3000);
    ck_assert_uint_eq(m.n_ops, 0);
    ck_assert_int_eq(reopen(), ERR_OK);
    ck_assert_uint_eq(m.base.groups[2].last, 4);
    in_node(write_some, NULL);
    model_restart(&m);
    ck_assert_int_eq(model_open(&m), ERR_OK);
    ck_assert_uint_eq(m.base.groups[2].last, 7);
}
END_TEST

START_TEST(test_wal__is_attested_once_when_idle)
{
    struct wal_stats stats;
    in_node(write_some, NULL);
    model_run_us(&m, 3000);
    wal_stats(m.wal, &stats);
    uint64_t flushes = stats.flushes, position = wal_position(m.wal);
    model_run_us(&m, 8000);
    wal_stats(m.wal, &stats);
    ck_assert_uint_eq(stats.flushes, flushes + 1);
    ck_assert_uint_eq(wal_position(m.wal), position + 1);
    model_run_us(&m, 10000000);
    wal_stats(m.wal, &stats);
    ck_assert_uint_eq(stats.flushes, flushes + 1);
}
END_TEST

static void wide_entries(struct env *env, void *arg)
{
    (void)env, (void)arg;
    model_entry(&m, 0, wal_entry_bytes_max(m.wal));
    model_entry(&m, 0, 4096);
    model_entry(&m, 0, wal_entry_bytes_max(m.wal));
    model_entry(&m, 0, 1);
}

START_TEST(test_wal__largest_entries)
{
    in_node(write_some, NULL);
    for (int k = 0; k < 20; k++) {
        in_node(wide_entries, NULL);
        model_run_us(&m, 5000);
        model_settle(&m, 0);
        model_run_us(&m, 50000);
        ck_assert_int_eq(m.wait_room, false);
    }
    ck_assert_uint_gt(m.now.groups[0].last, 50);
    ck_assert_int_eq(reopen(), ERR_OK);
}
END_TEST

/* ---- backpressure -------------------------------------------------------- */
static void fill_up(struct env *env, void *arg)
{
    (void)env, (void)arg;
    while (!m.wait_room) {
        model_entry(&m, 0, 3000);
    }
}

static void settle_all(struct env *env, void *arg)
{
    (void)env, (void)arg;
    m.stuck[0] = false;
    model_settle(&m, 0);
}

static void terms_only(struct env *env, void *arg)
{
    (void)env, (void)arg;
    for (int k = 0; k < 20; k++) {
        model_term(&m, 1, m.now.groups[1].term + 1, 0);
    }
}

START_TEST(test_wal__refuses_until_settled_but_terms_always_go)
{
    struct wal_stats stats;
    in_node(write_some, NULL);
    m.stuck[0] = true;
    for (int k = 0; k < 50; k++) {
        in_node(fill_up, NULL);
        model_run_us(&m, 5000);
    }
    ck_assert_uint_gt(m.refusals, 0);
    wal_stats(m.wal, &stats);
    ck_assert_uint_le(stats.bytes_buffered, m.options.buffer_bytes_max);
    uint64_t files = stats.files, begun = stats.files_begun;
    for (int k = 0; k < 600; k++) {
        in_node(terms_only, NULL);
        model_run_us(&m, 2000);
    }
    wal_stats(m.wal, &stats);
    ck_assert_uint_le(stats.bytes_buffered, m.options.buffer_bytes_max + 16384);
    ck_assert_uint_gt(stats.files_begun, begun + 10); /* several laps ... */
    ck_assert_uint_le(stats.file_bytes, m.options.bytes_max + 131072);
    ck_assert_uint_gt(stats.bytes_relogged, 0); /* ... past a stuck group */
    ck_assert_uint_ge(stats.files, files);
    uint64_t last = m.now.groups[0].last;
    in_node(fill_up, NULL);
    ck_assert_uint_le(m.now.groups[0].last, last + 1);
    in_node(settle_all, NULL);
    model_run_us(&m, 1000);
    ck_assert_int_eq(m.wait_room, false);
    in_node(write_some, NULL);
    model_run_us(&m, 3000);
    ck_assert_int_eq(reopen(), ERR_OK);
}
END_TEST

START_TEST(test_wal__no_space_for_files_is_no_error)
{
    sim_disk_capacity(m.node, 280 << 10); /* two files */
    in_node(write_some, NULL);
    for (int k = 0; k < 300; k++) {
        in_node(fill_up, NULL);
        model_run_us(&m, 3000);
        in_node(settle_all, NULL);
        model_run_us(&m, 3000);
    }
    ck_assert_uint_gt(m.now.groups[0].last, 1000);
    ck_assert_int_eq(reopen(), ERR_OK);
    sim_disk_capacity(m.node, 0);
    for (int k = 0; k < 100; k++) {
        in_node(fill_up, NULL);
        model_run_us(&m, 50000);
        in_node(settle_all, NULL);
    }
    struct wal_stats stats;
    wal_stats(m.wal, &stats);
    ck_assert_uint_gt(stats.files, 2);
}
END_TEST

static void arg_closed(void *arg)
{
    *(bool *)arg = true;
}

static void close_wal(struct env *env, void *arg)
{
    (void)env;
    wal_close(m.wal, arg_closed, arg);
    m.wal = NULL;
}

/* Elections go on while the disk is full and nothing settles: the reserve for
 * terms runs out. The log stands still, refuses, and goes on with space. */
static void no_space_for_terms(bool close_it)
{
    sim_disk_capacity(m.node, 100 << 10); /* one file */
    model_create(&m, 1);
    in_node(write_some, NULL);
    in_node(fill_up, NULL);
    for (int k = 0; k < 200 && !wal_waits_for_space(m.wal); k++) {
        in_node(terms_only, NULL);
        model_run_us(&m, 2000);
        in_node(fill_up, NULL);
    }
    ck_assert(wal_waits_for_space(m.wal));
    uint64_t durable = m.durable;
    in_node(terms_only, NULL);
    model_run_us(&m, 5000000);
    ck_assert_uint_eq(m.durable, durable);
    ck_assert(!wal_reserve(m.wal, 1, 1));
    if (close_it) {
        bool closed = false;
        in_node(close_wal, &closed);
        model_run_us(&m, 10000);
        ck_assert(closed);
        model_crash(&m, SIM_DROP_ALL);
        sim_disk_capacity(m.node, 0);
        ck_assert_int_eq(model_open(&m), ERR_OK);
        return;
    }
    sim_disk_capacity(m.node, 0);
    model_run_us(&m, 300000);
    ck_assert(!wal_waits_for_space(m.wal));
    ck_assert_uint_eq(m.durable, wal_position(m.wal));
    for (int k = 0; k < 100; k++) {
        in_node(fill_up, NULL);
        model_run_us(&m, 50000);
        in_node(settle_all, NULL);
    }
    ck_assert_uint_gt(m.now.groups[0].last, 500);
    ck_assert_int_eq(reopen(), ERR_OK);
}

START_TEST(test_wal__no_space_for_terms)
{
    no_space_for_terms(false);
}
END_TEST

START_TEST(test_wal__closes_without_space)
{
    no_space_for_terms(true);
}
END_TEST

static int fatals;
static void on_fatal(void *arg, struct sim_node *node, const char *line)
{
    (void)arg, (void)node, (void)line;
    fatals++;
}

START_TEST(test_wal__failed_write_ends_the_process)
{
    fatals = 0;
    sim_on_fatal(m.sim, on_fatal, NULL);
    in_node(write_some, NULL);
    model_run_us(&m, 3000);
    sim_disk_fail_nth(m.node, SIM_DISK_WRITE | SIM_DISK_SYNC, 1);
    uint64_t durable = m.durable;
    in_node(write_some, NULL);
    model_run_us(&m, 10000);
    ck_assert_int_eq(fatals, 1);
    ck_assert_uint_eq(m.durable, durable);
    sim_node_restart(m.node);
    ck_assert_int_eq(model_open(&m), ERR_OK);
}
END_TEST

/* ---- damage -------------------------------------------------------------- */
#define FILE1 "/data/log/wal-00000001.log"
#define FILE2 "/data/log/wal-00000002.log"

static void *file_bytes(size_t *size)
{
    void *data;
    int64_t n = sim_disk_durable(m.node, FILE1, &data);
    ck_assert_int_gt(n, 0);
    *size = (size_t)n;
    return data;
}

/* End of the log in the first file, and where its last flush begins. */
static uint64_t log_end(uint64_t *last)
{
    size_t size;
    uint8_t *data = file_bytes(&size);
    uint64_t at = 0;
    struct wal_flush_header header;
    while (at < size && wal_flush_read(data + at, &header)) {
        *last = at;
        at += header.length;
    }
    mem_free(data);
    return at;
}

static void flip(const char *path, uint64_t offset, unsigned bit)
{
    ck_assert_msg(sim_disk_flip(m.node, path, offset, bit), "%s %llu", path,
                  (unsigned long long)offset);
}

/* In a process of its own, since opening writes. */
static enum model_verdict open_damaged(void)
{
    int status = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        _exit((int)model_open_damaged(&m));
    }
    ck_assert(waitpid(child, &status, 0) == child);
    ck_assert(WIFEXITED(status));
    return (enum model_verdict)WEXITSTATUS(status);
}

/* Every byte of the log: what is behind its payloads' checksums is missed, all
 * else is there, or the log is refused. Attested, it is never cut. */
START_TEST(test_wal__every_flipped_byte_is_noticed)
{
    uint64_t last = 0, counts[4] = {0};
    in_node(write_some, NULL);
    model_run_us(&m, 3000);
    in_node(write_some, NULL);
    model_run_us(&m, 3000);
    in_node(write_some, NULL);
    model_run_us(&m, 20000);
    model_crash(&m, SIM_DROP_ALL);
    uint64_t end = log_end(&last);
    ck_assert_uint_eq(end, last + WAL_BLOCK);  /* the attestation */
    const char *every = getenv("FLIPS_EVERY"); /* byte; 1 in `make flips` */
    uint64_t step = every != NULL ? strtoull(every, NULL, 10) : 23;
    for (uint64_t at = 0; at < last; at += step) {
        unsigned bit = (unsigned)(at * 5 % 8);
        flip(FILE1, at, bit);
        enum model_verdict verdict = open_damaged();
        ck_assert_msg(verdict != MODEL_WRONG, "byte %llu",
                      (unsigned long long)at);
        counts[verdict]++;
        flip(FILE1, at, bit);
    }
    printf(
        "%llu bytes of a log, every %lluth flipped: %llu whole by other "
        "copies, %llu "
        "known to lack entries, %llu refused\n",
        (unsigned long long)last, (unsigned long long)step,
        (unsigned long long)counts[MODEL_WHOLE],
        (unsigned long long)counts[MODEL_LACKS],
        (unsigned long long)counts[MODEL_REFUSED]);
    ck_assert_uint_gt(counts[MODEL_LACKS], 0);
    for (uint64_t k = 0; k < 16; k++) {
        /* The attestation itself, or nothing: all else is there. */
        flip(FILE1, last + k * 1397 % (2 * WAL_BLOCK), 3);
        ck_assert_int_eq(model_open(&m), ERR_OK);
        model_crash(&m, SIM_DROP_ALL);
        ck_assert_uint_eq(log_end(&last), last + WAL_BLOCK);
    }
}
END_TEST

/* Where frames of this type lie in the first file; how many. */
static int frames_find(enum wal_frame_type type, uint64_t *at, int max)
{
    size_t size;
    int n = 0;
    uint8_t *data = file_bytes(&size);
    struct wal_flush_header header;
    for (uint64_t flush = 0;
         flush < size && wal_flush_read(data + flush, &header);
         flush += header.length) {
        uint64_t from = flush + WAL_FLUSH_HEADER;
        for (uint32_t k = 0; k < header.n_frames; k++) {
            struct wal_frame frame;
            uint64_t bytes = wal_frame_peek(data + from, &frame);
            if (frame.type == type && n < max) {
                at[n++] = from;
            }
            from += bytes;
        }
    }
    mem_free(data);
    return n;
}

/* A group can do without its creation, unless a vote of it may be gone too. */
START_TEST(test_wal__creation_is_damaged)
{
    uint64_t creations[4], terms[40];
    int unmade = 0;
    for (int i = 0; i < 3; i++) {
        in_node(write_some, NULL);
        model_run_us(&m, i < 2 ? 3000 : 20000);
    }
    model_run_us(&m, 20000);
    model_crash(&m, SIM_DROP_ALL);
    int n = frames_find(WAL_FRAME_CREATE, creations, 4);
    int n_terms = frames_find(WAL_FRAME_TERM, terms, 40);
    ck_assert_int_gt(n, 0);
    ck_assert_int_gt(n_terms, 0);
    for (int i = 0; i < n; i++) {
        flip(FILE1, creations[i] + WAL_FRAME_HEADER + 2, 1);
        enum model_verdict alone = open_damaged();
        ck_assert_int_ne(alone, MODEL_WRONG);
        unmade += alone == MODEL_WHOLE;
        for (int k = 0; k < n_terms; k++) {
            flip(FILE1, terms[k] + 5, 2);
            ck_assert_msg(open_damaged() != MODEL_WRONG, "creation %d, term %d",
                          i, k);
            flip(FILE1, terms[k] + 5, 2);
        }
        flip(FILE1, creations[i] + WAL_FRAME_HEADER + 2, 1);
    }
    ck_assert_int_gt(unmade, 0);
}
END_TEST

START_TEST(test_wal__last_flush_without_attestation_is_torn)
{
    uint64_t last = 0;
    in_node(write_some, NULL);
    model_run_us(&m, 2000);
    uint64_t held = m.base.groups[0].last;
    struct model_state *kept = mem_alloc(sizeof *kept);
    memcpy(kept, &m.base, sizeof *kept);
    in_node(write_some, NULL);
    model_run_us(&m, 1500);
    ck_assert_uint_eq(m.n_ops, 0);
    model_crash(&m, SIM_DROP_ALL);
    log_end(&last);
    flip(FILE1, last + 200, 0);
    memcpy(&m.base, kept, sizeof *kept); /* the model knows no damage */
    mem_free(kept);
    ck_assert_int_eq(model_open(&m), ERR_OK);
    ck_assert_uint_eq(m.now.groups[0].last, held);
}
END_TEST

static void copy_block(uint64_t from, uint64_t to)
{
    struct env *env = sim_env(m.node, 0);
    struct env_file *file;
    size_t got;
    void *block = mem_alloc_aligned(WAL_BLOCK, WAL_BLOCK);
    struct iovec iov = {block, WAL_BLOCK};
    ck_assert_int_eq(
        env_file_open(env, FILE1, ENV_FILE_READ | ENV_FILE_WRITE, &file),
        ERR_OK);
    ck_assert_int_eq(env_file_pread(file, block, WAL_BLOCK, from, &got),
                     ERR_OK);
    ck_assert_int_eq(env_file_pwritev(file, &iov, 1, to, true), ERR_OK);
    env_file_close(file);
    mem_free_aligned(block);
}

START_TEST(test_wal__flush_in_the_wrong_place)
{
    uint64_t last = 0;
    for (int k = 0; k < 4; k++) { /* all of one block */
        model_create(&m, k);
        model_run_us(&m, 20000);
    }
    model_crash(&m, SIM_DROP_ALL);
    uint64_t end = log_end(&last);
    ck_assert_uint_eq(end, 9 * WAL_BLOCK);
    copy_block(2 * WAL_BLOCK, end); /* valid, and of this file and lap */
    ck_assert_int_eq(model_open(&m), ERR_CORRUPT);
    copy_block(end + WAL_BLOCK, end);
    for (uint64_t at = 3 * WAL_BLOCK; at < end; at += WAL_BLOCK) {
        copy_block(at + WAL_BLOCK, at); /* one is missing */
    }
    ck_assert_int_eq(model_open(&m), ERR_CORRUPT);
}
END_TEST

/* Entry 2 again, of another term, as if a truncation had been forgotten. */
static void append_twice(struct env *env, void *arg)
{
    struct group_id id = model_group_id(0);
    struct iovec iov = {(char[]){"other"}, 5};
    struct wal_place place;
    (void)env, (void)arg;
    ck_assert(wal_reserve(m.wal, iov.iov_len, 1));
    wal_append_term(m.wal, &id, (raft_term_t){9}, 1);
    wal_append_entry(m.wal, &id, (log_index){2}, (raft_term_t){9}, ENTRY_DATA,
                     &iov, 1, &place);
    wal_place_drop(&place);
}

START_TEST(test_wal__two_terms_at_an_index)
{
    in_node(write_some, NULL);
    model_run_us(&m, 20000);
    ck_assert_int_eq(reopen(), ERR_OK);
    in_node(append_twice, NULL);
    model_run_us(&m, 20000);
    ck_assert_int_eq(reopen(), ERR_CORRUPT);
}
END_TEST

static void begin_anew(struct env *env, void *arg)
{
    struct group_id id = model_group_id(0);
    wal_unsettled(m.wal, &id);
    append_twice(env, arg);
}

static log_index none_settled(void *arg, const struct group_id *id,
                              replica_id *self)
{
    (void)arg, (void)id, (void)self;
    return (log_index){0};
}

static void no_durable(void *arg, uint64_t position)
{
    (void)arg, (void)position;
}

static void no_event(void *arg)
{
    (void)arg;
}

static void no_wish(void *arg, const struct group_id *id, log_index upto)
{
    (void)arg, (void)id, (void)upto;
}

static bool no_evict(void *arg, const struct group_id *id, log_index upto)
{
    (void)arg, (void)id, (void)upto;
    return false;
}

/* Recovers by itself; *arg: how far the checkpoint knows the log. */
static void look_anew(struct env *env, void *arg)
{
    static const struct wal_ops ops = {.durable = no_durable,
                                       .file_begins = no_event,
                                       .wants_settled = no_wish,
                                       .evict = no_evict,
                                       .room = no_event};
    uint64_t known = *(uint64_t *)arg;
    struct group_id id = model_group_id(0);
    struct wal_options options = m.options;
    struct wal *wal;
    size_t n;
    options.env = env;
    options.expect.position = known;
    ck_assert_int_eq(wal_open(&options, &ops, NULL, none_settled, &wal),
                     ERR_OK);
    struct wal_recovered_group *groups = wal_recovered(wal, &n);
    size_t at = 0;
    while (at < n && !group_id_equal(&groups[at].id, &id)) {
        at++;
    }
    ck_assert_uint_lt(at, n);
    ck_assert_uint_eq(groups[at].n_entries, 1);
    ck_assert_uint_eq(groups[at].entries[0].term.v, 9);
    ck_assert_uint_eq(groups[at].lost_index, known > 0 ? 0 : UINT64_MAX);
    wal_recovered_free(groups, n);
}

/* A group that began anew: what the log held of before counts no more, and it
 * is told that something is lost until a checkpoint knows. */
START_TEST(test_wal__begun_anew)
{
    for (int i = 0; i < 2; i++) {
        in_node(write_some, NULL);
        model_run_us(&m, 20000);
        in_node(begin_anew, NULL);
        model_run_us(&m, 20000);
        uint64_t known = i == 0 ? 0 : wal_durable_position(m.wal);
        model_crash(&m, SIM_DROP_ALL);
        in_node(look_anew, &known);
        model_end(&m);
        model_begin(&m, 13);
        ck_assert_int_eq(model_open(&m), ERR_OK);
    }
}
END_TEST

static uint64_t most_names; /* un-synced at one time */

static void note_names(void *arg, enum sim_disk_kind kind)
{
    uint64_t data, names;
    bool durable;
    (void)arg, (void)kind;
    sim_disk_journal(m.node, &data, &names, &durable);
    most_names = names > most_names ? names : most_names;
}

/* The name of a log file is durable before wal.meta tells of it: wal.meta is
 * made aside and renamed, and no other name is open then. */
START_TEST(test_wal__names_are_durable_before_meta)
{
    model_end(&m);
    model_begin(&m, 12);
    m.calm = true;
    most_names = 0;
    sim_disk_on_op(m.node, note_names, NULL);
    ck_assert_int_eq(model_open(&m), ERR_OK);
    sim_disk_on_op(m.node, NULL, NULL);
    ck_assert_uint_eq(most_names, 2);
}
END_TEST

START_TEST(test_wal__damaged_meta_or_lost_files)
{
    static const char *const lost[] = {"/data/log/wal.meta", FILE1, FILE2};
    in_node(write_some, NULL);
    for (int k = 0; k < 100; k++) {
        in_node(fill_up, NULL);
        model_run_us(&m, 3000);
    }
    ck_assert_int_eq(reopen(), ERR_OK);
    model_crash(&m, SIM_DROP_ALL);
    for (int k = 0; k < 3; k++) {
        struct env *env = sim_env(m.node, 0);
        ck_assert_int_eq(env_file_rename(env, lost[k], "/data/aside"), ERR_OK);
        ck_assert_int_eq(model_open(&m), ERR_CORRUPT);
        ck_assert_int_eq(env_file_rename(env, "/data/aside", lost[k]), ERR_OK);
    }
    for (uint64_t at = 0; at < 48; at++) {
        flip(lost[0], at, 1);
        ck_assert_int_eq(open_damaged(), MODEL_WHOLE);
        flip(lost[0], at, 1);
    }
    ck_assert_int_eq(model_open(&m), ERR_OK);
}
END_TEST

static void copy_file(const char *from, const char *to)
{
    struct env *env = sim_env(m.node, 0);
    void *data;
    size_t size;
    ck_assert_int_eq(
        env_file_read_whole(env, from, (size_t)1 << 30, &data, &size), ERR_OK);
    ck_assert_int_eq(env_file_write_whole(env, to, data, size), ERR_OK);
    mem_free(data);
}

/* wal.meta as it was before the second file was made: the log is whole with the
 * files that are there. */
START_TEST(test_wal__meta_older_than_the_log)
{
    copy_file("/data/log/wal.meta", "/data/aside");
    in_node(write_some, NULL);
    for (int k = 0; k < 100 || m.begins == 0; k++) {
        in_node(fill_up, NULL);
        model_run_us(&m, 3000);
        in_node(settle_all, NULL);
        model_run_us(&m, 3000);
    }
    in_node(write_some, NULL);
    model_run_us(&m, 20000);
    model_crash(&m, SIM_DROP_ALL);
    copy_file("/data/aside", "/data/log/wal.meta");
    ck_assert_int_eq(model_open(&m), ERR_OK);
    model_crash(&m, SIM_DROP_ALL);
    ck_assert_int_eq(model_open(&m), ERR_OK);
}
END_TEST

static void empty_meta(struct env *env, void *arg)
{
    (void)arg;
    ck_assert_int_eq(env_file_write_whole(env, "/data/log/wal.meta", "", 0),
                     ERR_OK);
}

/* Whenever a crash comes while files are made, wal.meta is not empty; and were
 * it, by whatever means, it is made again from the files and nothing is lost.
 */
START_TEST(test_wal__empty_meta)
{
    static const enum sim_crash how[] = {SIM_KILL, SIM_DROP_ALL, SIM_KEEP_ALL,
                                         SIM_RANDOM, SIM_TORN};
    /* A log that never held anything, and nobody knows its id. */
    static const uint8_t zeros[16 * WAL_BLOCK];
    model_end(&m);
    model_begin(&m, 13);
    struct env *env = sim_env(m.node, 0);
    ck_assert_int_eq(env_dir_make(env, "/data/log"), ERR_OK);
    ck_assert_int_eq(env_file_write_whole(env, FILE1, zeros, sizeof zeros),
                     ERR_OK);
    empty_meta(env, NULL);
    ck_assert_int_eq(model_open(&m), ERR_OK);
    in_node(write_some, NULL);
    model_run_us(&m, 20000);
    for (int i = 0; i < 30; i++) {
        in_node(fill_up, NULL);
        model_run_us(&m, 100 + (uint64_t)i * 37 % 3000);
        model_crash(&m, how[i % 5]);
        ck_assert_int_ne(sim_disk_durable(m.node, "/data/log/wal.meta", NULL),
                         0);
        if (i % 3 == 0) {
            empty_meta(sim_env(m.node, 0), NULL);
        }
        ck_assert_int_eq(model_open(&m), ERR_OK);
        in_node(settle_all, NULL);
        model_run_us(&m, 20000);
    }
}
END_TEST

/* A file that wal.meta does not name, longer than files are, with flushes of
 * another log in it: it is made anew, and none of them ever counts. */
START_TEST(test_wal__file_that_was_there_before)
{
    model_create(&m, 0);
    model_run_us(&m, 20000);
    model_crash(&m, SIM_DROP_ALL);
    struct env *env = sim_env(m.node, 0);
    void *data;
    size_t size;
    ck_assert_int_eq(
        env_file_read_whole(env, FILE1, (size_t)1 << 30, &data, &size), ERR_OK);
    size_t at = m.options.file_bytes * 2, all = at + size;
    uint8_t *other = mem_zalloc(all);
    memcpy(other + at, data, size);
    uint64_t position = 0;
    for (uint8_t *p = other + at; p < other + all; p += WAL_BLOCK) {
        struct wal_flush_header header;
        if (wal_flush_read(p, &header)) {
            header.log_id++; /* what it held is not this log's */
            wal_flush_seal(p, &header);
            position = header.position;
        }
    }
    ck_assert_uint_gt(position, 0);
    ck_assert_int_eq(env_file_write_whole(env, FILE2, other, all), ERR_OK);
    mem_free(other);
    mem_free(data);
    ck_assert_int_eq(model_open(&m), ERR_OK);
    for (int k = 0; k < 100 || m.begins == 0; k++) {
        in_node(fill_up, NULL);
        model_run_us(&m, 3000);
        in_node(settle_all, NULL);
        model_run_us(&m, 3000);
    }
    model_crash(&m, SIM_DROP_ALL);
    int64_t made = sim_disk_durable(m.node, FILE2, &data);
    ck_assert_int_eq(made, (int64_t)m.options.file_bytes);
    mem_free(data);
    ck_assert_int_eq(model_open(&m), ERR_OK);
}
END_TEST

START_TEST(test_wal__knows_what_checkpoint_it_needs)
{
    in_node(write_some, NULL);
    for (int k = 0; k < 100; k++) {
        in_node(fill_up, NULL);
        model_run_us(&m, 3000);
        in_node(settle_all, NULL);
        model_run_us(&m, 3000);
    }
    ck_assert_uint_gt(m.seq, 10);
    model_crash(&m, SIM_DROP_ALL);
    uint64_t seq = m.seq, id = m.log_id, position = m.checkpoint_position;
    m.seq = 1;
    ck_assert_int_eq(model_open(&m), ERR_CORRUPT);
    m.seq = 0; /* no checkpoint at all */
    ck_assert_int_eq(model_open(&m), ERR_CORRUPT);
    m.seq = seq;
    m.log_id = id + 1;
    ck_assert_int_eq(model_open(&m), ERR_CORRUPT);
    m.log_id = id;
    m.checkpoint_position = m.durable + WAL_POSITION_STEP;
    ck_assert_int_eq(model_open(&m), ERR_CORRUPT);
    m.checkpoint_position = position;
    ck_assert_int_eq(model_open(&m), ERR_OK);
}
END_TEST

START_TEST(test_wal__damage_between_files)
{
    in_node(write_some, NULL);
    while (m.begins == 0) {
        in_node(fill_up, NULL);
        model_run_us(&m, 30000);
        if (m.begins == 0) {
            in_node(settle_all, NULL);
        }
        model_run_us(&m, 30000);
    }
    in_node(write_some, NULL);
    model_run_us(&m, 20000);
    model_crash(&m, SIM_DROP_ALL);
    uint64_t last = 0;
    log_end(&last);
    flip(FILE2, 8, 0); /* the first flush of the newest file */
    ck_assert_int_ne(open_damaged(), MODEL_WRONG);
    flip(FILE2, 8, 0);
    flip(FILE1, last, 0); /* what the next file follows */
    ck_assert_int_ne(open_damaged(), MODEL_WRONG);
    flip(FILE1, last, 0);
    flip(FILE1, 8, 0); /* the first flush of a file */
    ck_assert_int_ne(open_damaged(), MODEL_WRONG);
    flip(FILE1, 8, 0);
    ck_assert_int_eq(model_open(&m), ERR_OK);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wal");
    TCase *format = tcase_create("format");
    tcase_add_test(format, test_format__frame_is_bound_to_its_place);
    tcase_add_test(format, test_format__every_byte_of_a_flush_counts);
    tcase_add_test(format, test_format__creation_and_meta);
    suite_add_tcase(suite, format);
    TCase *tcase = tcase_create("wal");
    tcase_set_timeout(tcase, 900);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_wal__recovers_what_was_written);
    tcase_add_test(tcase, test_wal__is_attested_once_when_idle);
    tcase_add_test(tcase, test_wal__largest_entries);
    tcase_add_test(tcase, test_wal__refuses_until_settled_but_terms_always_go);
    tcase_add_test(tcase, test_wal__begun_anew);
    tcase_add_test(tcase, test_wal__no_space_for_files_is_no_error);
    tcase_add_test(tcase, test_wal__no_space_for_terms);
    tcase_add_test(tcase, test_wal__closes_without_space);
    tcase_add_test(tcase, test_wal__failed_write_ends_the_process);
    tcase_add_test(tcase, test_wal__every_flipped_byte_is_noticed);
    tcase_add_test(tcase, test_wal__creation_is_damaged);
    tcase_add_test(tcase, test_wal__last_flush_without_attestation_is_torn);
    tcase_add_test(tcase, test_wal__flush_in_the_wrong_place);
    tcase_add_test(tcase, test_wal__two_terms_at_an_index);
    tcase_add_test(tcase, test_wal__names_are_durable_before_meta);
    tcase_add_test(tcase, test_wal__damaged_meta_or_lost_files);
    tcase_add_test(tcase, test_wal__empty_meta);
    tcase_add_test(tcase, test_wal__meta_older_than_the_log);
    tcase_add_test(tcase, test_wal__file_that_was_there_before);
    tcase_add_test(tcase, test_wal__knows_what_checkpoint_it_needs);
    tcase_add_test(tcase, test_wal__damage_between_files);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
