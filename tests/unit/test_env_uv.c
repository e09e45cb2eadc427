/* The libuv environment: timers, turn ends, posts, works, files, streams, log,
 * all for real on loopback and a directory of its own. */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/env.h"
#include "base/env_uv.h"
#include "base/limits.h"
#include "base/mem.h"

static struct env *env;
static char dir[] = "/tmp/flotilla-test-XXXXXX";

static void setup(void)
{
    memcpy(dir + sizeof dir - 7, "XXXXXX", 6);
    ck_assert_ptr_nonnull(mkdtemp(dir));
    env = env_uv_new(NULL);
}

static void teardown(void)
{
    ck_assert_int_eq(env_dir_remove(env, dir), ERR_OK);
    env_uv_free(env);
}

static const char *path_of(const char *name)
{
    static char paths[4][256];
    static unsigned int at;
    char *path = paths[at++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

/* ---- timers and turns ---------------------------------------------------- */
static char trace[256];

static void note(const char *what)
{
    strncat(trace, what, sizeof trace - strlen(trace) - 1);
}

static void note_timer(struct env_timer *timer)
{
    note(timer->arg);
}

static void note_deferred(struct env_deferred *d)
{
    note(d->arg);
}

static void stop_timer(struct env_timer *timer)
{
    (void)timer;
    env_uv_stop(env);
}

static struct env_deferred late = {.cb = note_deferred, .arg = "D"};

static void defer_timer(struct env_timer *timer)
{
    note(timer->arg);
    env_defer(env, &late);
    env_defer(env, &late);
}

START_TEST(test_timers__fire_in_order_of_due_then_start)
{
    struct env_timer t[6];
    static char names[6][2] = {"a", "b", "c", "d", "e", "z"};
    trace[0] = '\0';
    for (int i = 0; i < 6; i++) {
        env_timer_init(env, &t[i], i == 1 ? defer_timer : note_timer, names[i]);
    }
    env_timer_start(&t[2], 30);
    env_timer_start(&t[0], 5);
    env_timer_start(&t[1], 5);
    env_timer_start(&t[3], 30);
    env_timer_start(&t[4], 1);
    env_timer_start(&t[4], 40); /* again: later */
    env_timer_start(&t[5], 2);
    env_timer_stop(&t[5]);
    env_timer_stop(&t[5]);
    ck_assert(env_timer_running(&t[0]));
    ck_assert(!env_timer_running(&t[5]));
    struct env_timer stop;
    env_timer_init(env, &stop, stop_timer, NULL);
    env_timer_start(&stop, 60);
    uint64_t from = env_now_ns(env);
    env_uv_run(env);
    /* on a machine that is late c and d are due in the turn of a and b */
    ck_assert_msg(strcmp(trace, "abDcde") == 0 ||
                      strcmp(trace, "abcdDe") == 0 ||
                      strcmp(trace, "abcdeD") == 0,
                  "%s", trace);
    ck_assert_uint_ge(env_now_ns(env) - from, 55000000);
    ck_assert(!env_timer_running(&t[0]));
}
END_TEST

static int restarts, turns;
static void count_turn(struct env_deferred *d)
{
    (void)d;
    turns++;
}

static struct env_deferred turn_counter = {.cb = count_turn};

static void restart_timer(struct env_timer *timer)
{
    env_defer(env, &turn_counter);
    if (++restarts < 100) {
        env_timer_start(timer, 0);
    } else {
        env_uv_stop(env);
    }
}

START_TEST(test_timers__zero_delay_restart_lets_the_loop_turn)
{
    struct env_timer timer;
    restarts = turns = 0;
    env_timer_init(env, &timer, restart_timer, NULL);
    env_timer_start(&timer, 0);
    env_uv_run(env);
    ck_assert_int_eq(restarts, 100);
    ck_assert_int_ge(turns, 99);
}
END_TEST

START_TEST(test_timers__heap_keeps_order_under_random_changes)
{
    enum { N = 500 };
    static struct env_timer t[N];
    trace[0] = '\0';
    for (int i = 0; i < N; i++) {
        env_timer_init(env, &t[i], note_timer, "");
    }
    for (int i = 0; i < 20 * N; i++) {
        struct env_timer *timer = &t[env_random(env) % N];
        if (env_random(env) % 3 == 0) {
            env_timer_stop(timer);
        } else {
            env_timer_start(timer, env_random(env) % 1000000);
        }
    }
    for (int i = 0; i < N; i++) {
        env_timer_stop(&t[i]);
        ck_assert(!env_timer_running(&t[i]));
    }
}
END_TEST

START_TEST(test_timers__a_long_start_is_not_counted)
{
    struct env_timer timer;
    usleep(100000); /* the loop does not run yet */
    env_timer_init(env, &timer, stop_timer, NULL);
    uint64_t from = env_now_ns(env);
    env_timer_start(&timer, 50);
    env_uv_run(env);
    ck_assert_uint_ge(env_now_ns(env) - from, 49000000);
}
END_TEST

START_TEST(test_random__differs)
{
    ck_assert_uint_ne(env_random(env), env_random(env));
    ck_assert_int_gt(env_wall_ms(env), 1600000000000);
}
END_TEST

/* ---- posts --------------------------------------------------------------- */
enum { N_POSTS = 20000 };
static struct {
    struct env_post post;
    int number;
} posts[N_POSTS];
static int next_post;
static struct env *other;

static void on_post(struct env_post *post)
{
    ck_assert_ptr_eq(post->arg, &posts[next_post]);
    if (++next_post == N_POSTS) {
        env_uv_stop(env);
    }
}

static void send_posts(struct env_timer *timer)
{
    (void)timer;
    for (int i = 0; i < N_POSTS; i++) {
        posts[i].post.cb = on_post;
        posts[i].post.arg = &posts[i];
        env_post(env, &posts[i].post);
    }
}

START_TEST(test_post__arrives_in_order_from_another_thread)
{
    struct env_timer timer;
    next_post = 0;
    other = env_uv_new(NULL);
    env_timer_init(other, &timer, send_posts, NULL);
    env_timer_start(&timer, 1);
    env_uv_thread_start(other);
    env_uv_run(env);
    env_uv_stop(other);
    env_uv_thread_join(other);
    env_uv_free(other);
    ck_assert_int_eq(next_post, N_POSTS);
}
END_TEST

/* ---- works --------------------------------------------------------------- */
static int runs, dones, log_order;
static void on_run(struct env_work *work)
{
    if (work->arg != NULL) { /* the log's own thread: one after another */
        ck_assert_int_eq(log_order, *(int *)work->arg);
        log_order++;
    }
    __atomic_add_fetch(&runs, 1, __ATOMIC_SEQ_CST);
}

static void on_done(struct env_work *work)
{
    ck_assert_ptr_eq(work->env, env);
    if (++dones == 200) {
        env_uv_stop(env);
    }
}

START_TEST(test_work__both_pools)
{
    static struct env_work works[200];
    static int order[100];
    runs = dones = log_order = 0;
    for (int i = 0; i < 200; i++) {
        works[i] = (struct env_work){.run = on_run, .done = on_done};
        if (i % 2 == 0) {
            order[i / 2] = i / 2;
            works[i].arg = &order[i / 2];
        }
        env_work_submit(env, i % 2 == 0 ? ENV_POOL_LOG : ENV_POOL_IO,
                        &works[i]);
    }
    ck_assert_int_eq(dones, 0);
    env_uv_run(env);
    ck_assert_int_eq(runs, 200);
    ck_assert_int_eq(dones, 200);
}
END_TEST

/* ---- files --------------------------------------------------------------- */
START_TEST(test_file__open_read_write)
{
    struct env_file *f;
    uint64_t size;
    size_t got;
    char text[32];
    const char *path = path_of("a");
    ck_assert_int_eq(env_file_open(env, path, ENV_FILE_READ, &f),
                     ERR_NOT_FOUND);
    int flags =
        ENV_FILE_READ | ENV_FILE_WRITE | ENV_FILE_CREATE | ENV_FILE_EXCLUSIVE;
    ck_assert_int_eq(env_file_open(env, path, flags, &f), ERR_OK);
    struct iovec iov[3] = {{"hello ", 6}, {"", 0}, {"world", 5}};
    ck_assert_int_eq(env_file_pwritev(f, iov, 3, 2, true), ERR_OK);
    ck_assert_int_eq(env_file_sync(f), ERR_OK);
    ck_assert_int_eq(env_file_size(f, &size), ERR_OK);
    ck_assert_uint_eq(size, 13);
    ck_assert_int_eq(env_file_pread(f, text, sizeof text, 0, &got), ERR_OK);
    ck_assert_uint_eq(got, 13);
    ck_assert_mem_eq(text, "\0\0hello world", 13);
    ck_assert_int_eq(env_file_truncate(f, 4), ERR_OK);
    ck_assert_int_eq(env_file_pread(f, text, sizeof text, 3, &got), ERR_OK);
    ck_assert_uint_eq(got, 1);
    env_file_close(f);
    ck_assert_int_eq(env_file_open(env, path, flags, &f), ERR_EXISTS);
}
END_TEST

START_TEST(test_file__many_pieces)
{
    enum { N = 3000 };
    static struct iovec iov[N];
    static uint32_t words[N], back[N];
    struct env_file *f;
    size_t got;
    for (uint32_t i = 0; i < N; i++) {
        words[i] = i * 2654435761U;
        iov[i] = (struct iovec){&words[i], sizeof words[i]};
    }
    ck_assert_int_eq(
        env_file_open(env, path_of("many"),
                      ENV_FILE_READ | ENV_FILE_WRITE | ENV_FILE_CREATE, &f),
        ERR_OK);
    ck_assert_int_eq(env_file_pwritev(f, iov, N, 0, false), ERR_OK);
    ck_assert_int_eq(env_file_pread(f, back, sizeof back, 0, &got), ERR_OK);
    ck_assert_uint_eq(got, sizeof back);
    ck_assert_mem_eq(words, back, sizeof back);
    env_file_close(f);
}
END_TEST

START_TEST(test_file__direct)
{
    struct env_file *f;
    size_t got;
    uint8_t *block = mem_alloc_aligned(ENV_BLOCK_SIZE, 2 * ENV_BLOCK_SIZE);
    memset(block, 0x5a, 2 * ENV_BLOCK_SIZE);
    int flags = ENV_FILE_READ | ENV_FILE_WRITE | ENV_FILE_CREATE |
                ENV_FILE_EXCLUSIVE | ENV_FILE_DIRECT;
    ck_assert_int_eq(env_file_open(env, path_of("direct"), flags, &f), ERR_OK);
    struct iovec iov = {block, 2 * ENV_BLOCK_SIZE};
    ck_assert_int_eq(env_file_pwritev(f, &iov, 1, ENV_BLOCK_SIZE, true),
                     ERR_OK);
    ck_assert_int_eq(
        env_file_pread(f, block, 2 * ENV_BLOCK_SIZE, 2 * ENV_BLOCK_SIZE, &got),
        ERR_OK);
    ck_assert_uint_eq(got, ENV_BLOCK_SIZE);
    env_file_close(f);
    ck_assert_int_eq(env_file_open(env, path_of("direct"), flags, &f),
                     ERR_EXISTS);
    mem_free_aligned(block);
}
END_TEST

START_TEST(test_file__write_whole_and_read_whole)
{
    void *data;
    size_t size;
    const char *path = path_of("whole");
    ck_assert_int_eq(env_file_read_whole(env, path, 10, &data, &size),
                     ERR_NOT_FOUND);
    ck_assert_int_eq(env_file_write_whole(env, path, "12345678", 8), ERR_OK);
    ck_assert_int_eq(env_file_write_whole(env, path, "123456", 6), ERR_OK);
    ck_assert_int_eq(env_file_read_whole(env, path, 5, &data, &size),
                     ERR_TOO_LARGE);
    ck_assert_int_eq(env_file_read_whole(env, path, 6, &data, &size), ERR_OK);
    ck_assert_uint_eq(size, 6);
    ck_assert_mem_eq(data, "123456", 6);
    mem_free(data);
    ck_assert_int_eq(env_file_write_whole(env, path, "", 0), ERR_OK);
    ck_assert_int_eq(env_file_read_whole(env, path, 6, &data, &size), ERR_OK);
    ck_assert_uint_eq(size, 0);
    mem_free(data);
}
END_TEST

static void note_name(void *arg, const char *name)
{
    (void)arg;
    note(name);
    note(" ");
}

START_TEST(test_dir__make_list_remove_lock)
{
    uint64_t total, bytes;
    trace[0] = '\0';
    ck_assert_int_eq(env_dir_make(env, path_of("x/y//z/")), ERR_OK);
    ck_assert_int_eq(env_dir_make(env, path_of("x/y/z")), ERR_OK);
    ck_assert_int_eq(env_file_write_whole(env, path_of("x/y/b"), "1", 1),
                     ERR_OK);
    ck_assert_int_eq(env_file_write_whole(env, path_of("x/y/B"), "1", 1),
                     ERR_OK);
    ck_assert_int_eq(env_dir_list(env, path_of("x/y"), note_name, NULL),
                     ERR_OK);
    ck_assert_str_eq(trace, "B b z ");
    ck_assert_int_eq(env_dir_list(env, path_of("no"), note_name, NULL),
                     ERR_NOT_FOUND);
    ck_assert_int_eq(env_file_rename(env, path_of("x/y/b"), path_of("x/c")),
                     ERR_OK);
    ck_assert_int_eq(env_file_unlink(env, path_of("x/c")), ERR_OK);
    ck_assert_int_eq(env_file_unlink(env, path_of("x/c")), ERR_NOT_FOUND);
    ck_assert_int_eq(env_dir_lock(env, path_of("x")), ERR_OK);
    other = env_uv_new(NULL);
    ck_assert_int_eq(env_dir_lock(other, path_of("x")), ERR_BUSY);
    env_uv_free(other);
    ck_assert_int_eq(env_fs_sync(env, dir), ERR_OK);
    ck_assert_int_eq(env_fs_space(env, dir, &total, &bytes), ERR_OK);
    ck_assert_uint_ge(total, bytes);
    ck_assert_uint_gt(bytes, 0);
    ck_assert_int_eq(env_dir_remove(env, path_of("x")), ERR_OK);
    ck_assert_int_eq(env_dir_remove(env, path_of("x")), ERR_NOT_FOUND);
}
END_TEST

/* ---- streams ------------------------------------------------------------- */
enum { BULK = 10 << 20 };

/* One side of a connection, keeping what it received. */
struct side {
    struct env_stream *stream;
    uint8_t *bytes;
    size_t size, want; /* stops the loop at `want` bytes */
    size_t room;       /* of one read */
    bool echo, paused;
    bool closed, connected;
    enum err connect_status, read_status;
    int writes_ok, writes_failed, in_call;
};

static void side_connected(struct env_stream *stream, enum err status)
{
    struct side *side = env_stream_arg(stream);
    ck_assert_int_eq(side->in_call, 0);
    side->connected = true;
    side->connect_status = status;
}

static struct iovec side_alloc(struct env_stream *stream)
{
    struct side *side = env_stream_arg(stream);
    size_t room = side->paused ? 0 : side->room;
    return (struct iovec){side->bytes + side->size, room};
}

static void side_written(struct env_write *req, enum err status)
{
    struct side *side = req->arg;
    ck_assert_int_eq(side->in_call, 0);
    if (status == ERR_OK) {
        side->writes_ok++;
    } else {
        side->writes_failed++;
    }
    mem_free(req);
}

static void side_write(struct side *side, const void *data, size_t size)
{
    struct env_write *req = mem_zalloc(sizeof *req);
    size_t half = size / 2;
    struct iovec iov[2] = {{(void *)(uintptr_t)data, half},
                           {(uint8_t *)(uintptr_t)data + half, size - half}};
    req->cb = side_written;
    req->arg = side;
    side->in_call++;
    env_stream_write(side->stream, req, iov, 2);
    side->in_call--;
}

static void side_read(struct env_stream *stream, size_t size, enum err status)
{
    struct side *side = env_stream_arg(stream);
    if (status != ERR_OK) {
        ck_assert_uint_eq(size, 0);
        side->read_status = status;
        env_stream_close(stream);
        env_stream_close(stream);
        return;
    }
    if (side->echo) {
        side_write(side, side->bytes + side->size, size);
    }
    side->size += size;
    if (side->size == side->want) {
        env_uv_stop(env);
    }
}

static void side_closed(struct env_stream *stream)
{
    struct side *side = env_stream_arg(stream);
    ck_assert(!side->closed);
    side->closed = true;
    env_uv_stop(env);
}

static const struct env_stream_ops side_ops = {
    .connected = side_connected,
    .alloc = side_alloc,
    .read = side_read,
    .closed = side_closed,
};

static struct side server, client;

static void side_accept(void *arg, struct env_stream *stream)
{
    struct side *side = arg;
    side->stream = stream;
    ck_assert_uint_gt(strlen(env_stream_peer(stream)), 8);
    env_stream_start(stream, &side_ops, side);
}

static void side_init(struct side *side)
{
    memset(side, 0, sizeof *side);
    side->bytes = mem_alloc(BULK + 65536);
    side->room = 65536;
}

static struct env_listener *listen_here(void)
{
    struct env_listener *listener;
    side_init(&server);
    side_init(&client);
    ck_assert_int_eq(
        env_listen(env, "127.0.0.1:0", side_accept, &server, &listener),
        ERR_OK);
    return listener;
}

static void sides_free(void)
{
    mem_free(server.bytes);
    mem_free(client.bytes);
}

static uint8_t *bulk_new(void)
{
    uint8_t *bulk = mem_alloc(BULK);
    for (size_t i = 0; i < BULK; i++) {
        bulk[i] = (uint8_t)(i * 31 + (i >> 10));
    }
    return bulk;
}

START_TEST(test_stream__ten_megabytes_there_and_back)
{
    struct env_listener *listener = listen_here();
    uint8_t *bulk = bulk_new();
    server.echo = true;
    client.stream = env_stream_connect(env, env_listener_address(listener),
                                       &side_ops, &client);
    client.want = BULK;
    for (size_t at = 0; at < BULK; at += BULK / 8) { /* before connected */
        side_write(&client, bulk + at, BULK / 8);
    }
    ck_assert(!client.connected);
    env_uv_run(env);
    ck_assert(client.connected);
    ck_assert_int_eq(client.connect_status, ERR_OK);
    ck_assert_uint_eq(client.size, BULK);
    ck_assert_mem_eq(client.bytes, bulk, BULK);
    ck_assert_int_eq(client.writes_ok, 8);
    env_stream_close(client.stream);
    env_uv_run(env); /* client closed */
    if (!server.closed) {
        env_uv_run(env);
    }
    ck_assert(client.closed && server.closed);
    ck_assert_int_eq(server.read_status, ERR_CLOSED);
    ck_assert_int_eq(server.writes_failed, 0);
    env_listener_close(listener);
    mem_free(bulk);
    sides_free();
}
END_TEST

static void resume_reading(struct env_timer *timer)
{
    (void)timer;
    ck_assert_uint_eq(client.size, 0);
    client.paused = false;
    env_stream_resume(client.stream);
    env_stream_resume(client.stream);
    ck_assert_uint_eq(client.size, 0);
}

static void accept_and_greet(void *arg, struct env_stream *stream)
{
    side_accept(arg, stream);
    side_write(arg, "hello", 5);
}

START_TEST(test_stream__pause_and_resume)
{
    struct env_listener *listener;
    struct env_timer timer;
    side_init(&server);
    side_init(&client);
    ck_assert_int_eq(
        env_listen(env, "127.0.0.1:0", accept_and_greet, &server, &listener),
        ERR_OK);
    client.paused = true;
    client.want = 5;
    client.stream = env_stream_connect(env, env_listener_address(listener),
                                       &side_ops, &client);
    env_timer_init(env, &timer, resume_reading, NULL);
    env_timer_start(&timer, 50);
    env_uv_run(env);
    ck_assert_mem_eq(client.bytes, "hello", 5);
    env_listener_close(listener);
    env_uv_free(env); /* with open streams: nothing is called back */
    env = env_uv_new(NULL);
    ck_assert(!client.closed);
    sides_free();
}
END_TEST

START_TEST(test_stream__refused_and_malformed)
{
    struct env_listener *listener = listen_here();
    char address[64];
    snprintf(address, sizeof address, "%s", env_listener_address(listener));
    env_listener_close(listener);
    client.stream = env_stream_connect(env, address, &side_ops, &client);
    side_write(&client, "lost", 4);
    ck_assert(!client.connected);
    env_uv_run(env);
    ck_assert_int_eq(client.connect_status, ERR_REFUSED);
    ck_assert_int_eq(client.writes_failed, 1);
    ck_assert(client.closed);
    const char *bad[] = {"nonsense", ":1", "127.0.0.1:65536", "host:"};
    for (int i = 0; i < 4; i++) {
        client.closed = client.connected = false;
        client.stream = env_stream_connect(env, bad[i], &side_ops, &client);
        env_uv_run(env);
        ck_assert_int_eq(client.connect_status, ERR_INVALID);
        ck_assert(client.closed);
    }
    sides_free();
}
END_TEST

START_TEST(test_stream__name_is_looked_up)
{
    struct env_listener *listener = listen_here();
    char address[64];
    snprintf(address, sizeof address, "localhost%s",
             strrchr(env_listener_address(listener), ':'));
    client.stream = env_stream_connect(env, address, &side_ops, &client);
    server.want = 2;
    side_write(&client, "hi", 2);
    env_uv_run(env);
    ck_assert_mem_eq(server.bytes, "hi", 2);
    env_stream_close(client.stream);
    /* Closed while its name is looked up: only `closed` comes. */
    struct side third;
    side_init(&third);
    third.stream = env_stream_connect(env, address, &side_ops, &third);
    env_stream_close(third.stream);
    while (!third.closed) {
        env_uv_run(env);
    }
    ck_assert(!third.connected);
    env_listener_close(listener);
    mem_free(third.bytes);
    sides_free();
}
END_TEST

static void accept_and_reset(void *arg, struct env_stream *stream)
{
    (void)arg; /* closing with unread bytes resets */
    struct env_timer *timer = arg;
    timer->arg = stream;
    env_timer_start(timer, 30);
}

static void reset_late(struct env_timer *timer)
{
    env_stream_close(timer->arg);
}

START_TEST(test_stream__reset)
{
    struct env_listener *listener;
    struct env_timer timer;
    uint8_t *bulk = bulk_new();
    side_init(&client);
    env_timer_init(env, &timer, reset_late, NULL);
    ck_assert_int_eq(
        env_listen(env, "127.0.0.1:0", accept_and_reset, &timer, &listener),
        ERR_OK);
    client.stream = env_stream_connect(env, env_listener_address(listener),
                                       &side_ops, &client);
    side_write(&client, bulk, BULK);
    side_write(&client, bulk, BULK);
    env_uv_run(env);
    ck_assert_int_eq(client.read_status, ERR_IO);
    ck_assert_int_eq(client.writes_failed, 2);
    ck_assert(client.closed);
    env_listener_close(listener);
    mem_free(bulk);
    mem_free(client.bytes);
}
END_TEST

START_TEST(test_listen__errors)
{
    struct env_listener *listener = listen_here();
    struct env_listener *second;
    ck_assert_int_eq(env_listen(env, env_listener_address(listener),
                                side_accept, &server, &second),
                     ERR_BUSY);
    ck_assert_int_eq(env_listen(env, "x", side_accept, &server, &second),
                     ERR_INVALID);
    ck_assert_int_eq(
        env_listen(env, "localhost:0", side_accept, &server, &second), ERR_OK);
    env_listener_close(second);
    env_listener_close(listener);
    sides_free();
}
END_TEST

static struct env *accepted_on;
static void accept_moved(void *arg, struct env_stream *stream)
{
    accepted_on = other;
    side_accept(arg, stream);
}

static void accept_to_move(void *arg, struct env_stream *stream)
{
    env_stream_move(stream, other, accept_moved, arg);
}

START_TEST(test_stream__moves_to_another_shard)
{
    struct env_listener *listener;
    side_init(&server);
    side_init(&client);
    accepted_on = NULL;
    other = env_uv_new(NULL);
    env_uv_thread_start(other);
    ck_assert_int_eq(
        env_listen(env, "127.0.0.1:0", accept_to_move, &server, &listener),
        ERR_OK);
    server.echo = true;
    client.want = 9;
    client.stream = env_stream_connect(env, env_listener_address(listener),
                                       &side_ops, &client);
    side_write(&client, "over ther", 9);
    env_uv_run(env);
    ck_assert_mem_eq(client.bytes, "over ther", 9);
    ck_assert_ptr_eq(accepted_on, other);
    env_uv_stop(other);
    env_uv_thread_join(other);
    env_uv_free(other);
    env_listener_close(listener);
    sides_free();
}
END_TEST

/* ---- signals ------------------------------------------------------------- */
static void on_signal(void *arg, int signo)
{
    *(int *)arg = signo;
    env_uv_stop(env);
}

START_TEST(test_signal__is_called_back)
{
    int seen = 0;
    env_uv_free(env);
    struct env_uv_options options = {.on_signal = on_signal, .arg = &seen};
    env = env_uv_new(&options);
    kill(getpid(), SIGTERM);
    env_uv_run(env);
    ck_assert_int_eq(seen, SIGTERM);
}
END_TEST

START_TEST(test_fatal__ends_the_process)
{
    env_fatal(env, "the disk said %s", "no");
}
END_TEST

/* ---- log ----------------------------------------------------------------- */
/* What the sink writes to standard error for a line. */
static const char *logged(const char *line)
{
    static char text[4096];
    int ends[2], was = dup(STDERR_FILENO);
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_ge(dup2(ends[1], STDERR_FILENO), 0);
    env_uv_log_sink(NULL, LOG_WARN, "test", line);
    ck_assert_int_ge(dup2(was, STDERR_FILENO), 0);
    ssize_t n = read(ends[0], text, sizeof text - 1);
    ck_assert_int_gt(n, 0);
    text[n] = '\0';
    close(ends[0]);
    close(ends[1]);
    close(was);
    return strstr(text, " level=");
}

START_TEST(test_log__words_are_quoted)
{
    char line[LIMIT_LOG_LINE];
    ck_assert_str_eq(logged("it is so node=7 why=\"x\""),
                     " level=warn component=test msg=\"it is so\" node=7 "
                     "why=\"x\"\n");
    ck_assert_str_eq(logged("unknown key \"a\\b\""),
                     " level=warn component=test "
                     "msg=\"unknown key \\\"a\\\\b\\\"\"\n");
    ck_assert_str_eq(logged("two\nlines id=a\nb"),
                     " level=warn component=test msg=\"two?lines\" id=a?b\n");
    memset(line, '"', sizeof line - 1);
    line[sizeof line - 1] = '\0';
    const char *text = logged(line);
    ck_assert_uint_gt(strlen(text), 2 * (sizeof line - 1));
    ck_assert_str_eq(text + strlen(text) - 4, "\\\"\"\n");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("env_uv");
    TCase *tc = tcase_create("env_uv");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 20);
    tcase_add_test(tc, test_timers__fire_in_order_of_due_then_start);
    tcase_add_test(tc, test_timers__zero_delay_restart_lets_the_loop_turn);
    tcase_add_test(tc, test_timers__heap_keeps_order_under_random_changes);
    tcase_add_test(tc, test_timers__a_long_start_is_not_counted);
    tcase_add_test(tc, test_random__differs);
    tcase_add_test(tc, test_post__arrives_in_order_from_another_thread);
    tcase_add_test(tc, test_work__both_pools);
    tcase_add_test(tc, test_file__open_read_write);
    tcase_add_test(tc, test_file__many_pieces);
    tcase_add_test(tc, test_file__direct);
    tcase_add_test(tc, test_file__write_whole_and_read_whole);
    tcase_add_test(tc, test_dir__make_list_remove_lock);
    tcase_add_test(tc, test_stream__ten_megabytes_there_and_back);
    tcase_add_test(tc, test_stream__pause_and_resume);
    tcase_add_test(tc, test_stream__refused_and_malformed);
    tcase_add_test(tc, test_stream__name_is_looked_up);
    tcase_add_test(tc, test_stream__reset);
    tcase_add_test(tc, test_listen__errors);
    tcase_add_test(tc, test_stream__moves_to_another_shard);
    tcase_add_test(tc, test_signal__is_called_back);
    tcase_add_test(tc, test_log__words_are_quoted);
    tcase_add_exit_test(tc, test_fatal__ends_the_process, 70);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
