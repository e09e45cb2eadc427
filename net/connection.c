/* Life of a connection, and reading.
 *
 * Happy path: adopted, read, its requests begun as their frames are whole;
 * everything else happens at the ends of turns (connection_out.c). Failure
 * modes: the peer closes or resets, a frame is malformed, a handler asks for
 * the end, nothing moves for connections.max.idle.ms: the stream is closed and
 * what is with a handler is abandoned; the memory goes when the stream is gone
 * and the last handler has answered. */
#include "net/connection.h"

#include <stdio.h>
#include <string.h>
#include <utlist.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/connection_impl.h"
#include "net/frame.h"

/* From this many missing bytes on, a frame is read straight to its place;
 * below, copying costs less than one more read for the frames behind it. */
#define DIRECT_MIN ((size_t)16 << 10)
#define TICK_MS 1000

/* ---- memory ------------------------------------------------------------- */
static void wake_soon(struct connections *all)
{
    if (all->starved != NULL) {
        env_defer(all->env, &all->wake);
    }
}

void connections_return_memory(struct connections *all, size_t size)
{
    ASSERT(all->memory >= size);
    all->memory -= size;
    if (all->memory < all->options.memory_max) {
        wake_soon(all);
    }
}

size_t connections_answers_max(const struct connection *c)
{
    size_t half = c->all->options.memory_max / 2;
    return c->out_bytes > 0 ? half - half / 2 : half;
}

void connections_return_answer(struct connections *all, size_t size)
{
    size_t most = all->options.memory_max / 2;
    ASSERT(all->answers >= size);
    all->answers -= size;
    if (size > 0 && all->answers < most) {
        wake_soon(all);
    }
}

static void unstarve(struct connection *c)
{
    if (c->starved) {
        DL_DELETE2(c->all->starved, c, starved_prev, starved_next);
        c->starved = false;
    }
}

/* Enough of the frame came to keep its memory while others wait. */
static void frame_progressed(struct connection *c)
{
    c->progress_ms = env_now_ms(c->all->env);
    c->progress_have = c->frame_have;
}

/* Everybody who waits asks again, in the order of waiting. */
static void wake(struct env_deferred *d)
{
    struct connections *all = d->arg;
    struct connection *c = all->starved;
    all->starved = NULL;
    while (c != NULL) {
        struct connection *next = c->starved_next;
        c->starved = false;
        frame_progressed(c);
        connection_turn_soon(c);
        env_stream_resume(c->stream);
        c = next;
    }
}

void connection_starve(struct connection *c)
{
    if (!c->starved) {
        c->starved = true;
        DL_APPEND2(c->all->starved, c, starved_prev, starved_next);
    }
}

/* What those in the middle of a frame may take together. The last eighth is
 * left to the beginnings of frames, which are kept small once it is begun:
 * small requests pass when large ones wait. */
static size_t middle_max(const struct connections *all)
{
    return all->options.memory_max - all->options.memory_max / 8;
}

static bool is_scarce(const struct connections *all)
{
    return all->memory >= middle_max(all);
}

/* Whether `c` may take memory; otherwise it waits until there is some. Of those
 * in the middle of a frame one may go on beyond the limit, or else halves of
 * frames could hold all memory with none able to get whole. */
static bool may_take(struct connection *c, size_t size)
{
    struct connections *all = c->all;
    size_t most = c->frame != NULL ? middle_max(all) : all->options.memory_max;
    if (size <= most && all->memory <= most - size) {
        return true;
    }
    if (c->frame != NULL && (all->holder == NULL || all->holder == c)) {
        all->holder = c;
        return true;
    }
    connection_starve(c);
    return false;
}

static void release_holder(struct connection *c)
{
    if (c->all->holder == c) {
        c->all->holder = NULL;
        wake_soon(c->all);
    }
}

/* ---- the frame being read ----------------------------------------------- */
static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Room for `need` bytes, and then some: fourfold each time. */
static size_t frame_next_room(const struct connection *c, size_t need)
{
    size_t first = is_scarce(c->all) ? LIMIT_FRAME_SCARCE : LIMIT_FRAME_FIRST;
    size_t next = c->frame_room == 0 ? first : c->frame_room * 4;
    return least(next > need ? next : need, c->frame_size);
}

static void frame_grow(struct connection *c, size_t room)
{
    ASSERT(room > c->frame_room && room <= c->frame_size);
    c->frame = mem_realloc(c->frame, room);
    c->all->memory += room - c->frame_room;
    c->frame_room = room;
}

/* The four bytes of the size are there. False: it cannot be. */
static bool frame_begin(struct connection *c)
{
    struct wire_reader r;
    wire_reader_init(&r, c->head, sizeof c->head);
    int32_t size = wire_read_i32(&r);
    c->n_head = 0;
    if (size < FRAME_MIN ||
        (uint32_t)size > c->all->options.request_max_bytes) {
        connection_add_close(c, size < FRAME_MIN ? "bytes that are no request"
                                                 : "a request larger than "
                                                   "socket.request.max.bytes");
        return false;
    }
    c->frame_size = (size_t)size;
    c->frame_have = 0;
    c->frame_room = 0;
    frame_progressed(c);
    frame_grow(c, frame_next_room(c, 0));
    return true;
}

static void frame_added(struct connection *c, size_t size)
{
    c->frame_have += size;
    if (c->frame_have - c->progress_have >= LIMIT_FRAME_PROGRESS) {
        frame_progressed(c);
    }
    if (c->frame_have < c->frame_size) {
        return;
    }
    ASSERT(c->frame_have == c->frame_size);
    uint8_t *frame = c->frame;
    c->frame = NULL;
    release_holder(c);
    connection_add_request(c, frame, c->frame_size, c->frame_room);
}

static void frame_drop(struct connection *c)
{
    if (c->frame != NULL) {
        mem_free(c->frame);
        c->frame = NULL;
        connections_return_memory(c->all, c->frame_room);
    }
    release_holder(c);
}

/* Bytes that came into the shared piece. */
static void feed(struct connection *c, const uint8_t *p, size_t n)
{
    while (n > 0 && !c->doomed) {
        size_t take;
        if (c->frame == NULL) {
            take = least(n, sizeof c->head - c->n_head);
            memcpy(c->head + c->n_head, p, take);
            c->n_head += take;
            if (c->n_head == sizeof c->head && !frame_begin(c)) {
                return;
            }
        } else {
            take = least(n, c->frame_size - c->frame_have);
            if (c->frame_room - c->frame_have < take) {
                frame_grow(c, frame_next_room(c, c->frame_have + take));
            }
            memcpy(c->frame + c->frame_have, p, take);
            frame_added(c, take);
        }
        p += take;
        n -= take;
    }
}

/* ---- the stream --------------------------------------------------------- */
static bool has_room(const struct connection *c)
{
    return c->n_slots < LIMIT_REQUESTS_IN_FLIGHT &&
           c->out_bytes < LIMIT_CONNECTION_OUTPUT;
}

void connection_maybe_resume(struct connection *c)
{
    if (c->paused && !c->doomed && has_room(c)) {
        c->paused = false;
        env_stream_resume(c->stream);
    }
}

static struct iovec on_alloc(struct env_stream *stream)
{
    static const struct iovec not_now = {NULL, 0};
    struct connection *c = env_stream_arg(stream);
    c->direct = false;
    if (c->doomed || !has_room(c)) {
        c->paused = true;
        return not_now;
    }
    if (c->frame == NULL) {
        if (!may_take(c, 1)) {
            return not_now;
        }
        if (is_scarce(c->all)) {
            return (struct iovec){c->all->piece, LIMIT_FRAME_SCARCE};
        }
    } else {
        if (c->frame_have == c->frame_room) {
            size_t room = frame_next_room(c, 0);
            if (!may_take(c, room - c->frame_room)) {
                return not_now;
            }
            frame_grow(c, room);
        }
        if (c->frame_size - c->frame_have >= DIRECT_MIN) {
            c->direct = true;
            return (struct iovec){c->frame + c->frame_have,
                                  c->frame_room - c->frame_have};
        }
    }
    return (struct iovec){c->all->piece, sizeof c->all->piece};
}

static void on_read(struct env_stream *stream, size_t size, enum err status)
{
    struct connection *c = env_stream_arg(stream);
    if (c->ended) {
        return;
    }
    if (status != ERR_OK) {
        connection_end(c);
        return;
    }
    c->active_ms = env_now_ms(c->all->env);
    if (c->direct) {
        frame_added(c, size);
    } else {
        feed(c, c->all->piece, size);
    }
    connection_begin_requests(c);
}

static void on_closed(struct env_stream *stream)
{
    struct connection *c = env_stream_arg(stream);
    c->stream_gone = true;
    connection_maybe_free(c);
}

static const struct env_stream_ops stream_ops = {
    .alloc = on_alloc,
    .read = on_read,
    .closed = on_closed,
};

/* ---- life --------------------------------------------------------------- */
/* Lines of the last second are counted; false: this one is left out. */
static bool may_complain(struct connections *all)
{
    uint64_t now = env_now_ms(all->env);
    if (now - all->log_from_ms >= 1000) {
        if (all->log_left_out > 0) {
            log_warn("net", "more lines about connections left_out=%u",
                     all->log_left_out);
        }
        all->log_from_ms = now;
        all->log_lines = 0;
        all->log_left_out = 0;
    }
    if (all->log_lines >= LIMIT_CLIENT_LOG_LINES) {
        all->log_left_out++;
        return false;
    }
    all->log_lines++;
    return true;
}

void connection_complain(struct connection *c, const struct request *rq,
                         const char *why)
{
    if (!may_complain(c->all)) {
        return;
    }
    if (rq == NULL || rq->body == NULL) {
        log_warn("net", "connection closed: %s client=%s", why, c->client_host);
        return;
    }
    /* what a client calls itself is printed as far as it is plain text */
    char id[65];
    int n = 0;
    while (n < 64 && n < rq->client_id.n) {
        char byte = rq->client_id.p[n];
        id[n++] = byte > ' ' && byte <= '~' && byte != '"' ? byte : '?';
    }
    id[n] = '\0';
    log_warn("net",
             "connection closed: %s client=%s client_id=%s api_key=%d "
             "api_version=%d",
             why, c->client_host, id, rq->api_key, rq->api_version);
}

void connection_end(struct connection *c)
{
    if (c->ended) {
        return;
    }
    c->ended = true;
    c->doomed = true;
    c->no_more = true;
    unstarve(c);
    frame_drop(c);
    env_stream_close(c->stream);
    c->ending = true;
    for (struct slot *s = c->slots; s != NULL; s = s->next) {
        if (s->state == SLOT_BEGUN && s->rq.abandoned != NULL) {
            s->rq.abandoned(&s->rq);
        }
    }
    c->ending = false;
    /* the caller may be in the middle of something: free at the turn's end */
    connection_turn_soon(c);
}

static void finish_when_empty(struct connections *all)
{
    if (all->stopping && all->list == NULL) {
        env_timer_stop(&all->stop_timer);
        env_defer(all->env, &all->finish);
    }
}

void connection_maybe_free(struct connection *c)
{
    struct connections *all = c->all;
    if (!c->stream_gone || c->turn_pending || c->n_slots > 0) {
        return;
    }
    ASSERT(c->ended && c->frame == NULL && !c->writing);
    DL_DELETE(all->list, c);
    all->n--;
    mem_free(c);
    finish_when_empty(all);
}

/* "10.0.0.1:5" and "[::1]:5" without port and brackets. */
static void host_of(const char *peer, char *host, size_t size)
{
    const char *colon = strrchr(peer, ':');
    size_t n = colon == NULL ? strlen(peer) : (size_t)(colon - peer);
    if (n >= 2 && peer[0] == '[' && peer[n - 1] == ']') {
        peer++;
        n -= 2;
    }
    snprintf(host, size, "%.*s", (int)least(n, size - 1), peer);
}

void connections_adopt(struct connections *all, struct env_stream *stream,
                       const char *listener)
{
    if (all->stopping || all->n >= all->options.connections_max) {
        env_stream_close(stream);
        return;
    }
    struct connection *c = mem_zalloc(sizeof *c);
    c->all = all;
    c->stream = stream;
    c->listener = listener;
    c->active_ms = env_now_ms(all->env);
    c->turn = (struct env_deferred){.cb = connection_turn, .arg = c};
    host_of(env_stream_peer(stream), c->client_host, sizeof c->client_host);
    DL_APPEND(all->list, c);
    all->n++;
    env_stream_start(stream, &stream_ops, c);
}

/* ---- all of them -------------------------------------------------------- */
/* A frame of which nothing, or next to nothing, comes any more must not hold
 * what others wait for. */
static bool has_stalled(const struct connection *c, uint64_t now)
{
    return c->all->starved != NULL && c->frame != NULL && !c->starved &&
           now - c->progress_ms >= LIMIT_FRAME_STALL_MS;
}

/* Nor must an answer of which next to nothing is taken, or answers behind one
 * that is not there yet. */
static bool is_not_taking(struct connection *c, uint64_t now, bool wanted)
{
    size_t unsent = c->out_bytes > 0 ? env_stream_unsent(c->stream) : 0;
    if (c->out_bytes == 0 || unsent + LIMIT_FRAME_PROGRESS <= c->unsent ||
        unsent > c->unsent) {
        c->unsent = unsent;
        c->output_ms = now;
    }
    return wanted && now - c->output_ms >= LIMIT_FRAME_STALL_MS;
}

static bool is_idle(const struct connection *c, uint64_t now)
{
    uint32_t most = c->all->options.idle_max_ms;
    return most > 0 && c->n_begun == 0 && now - c->active_ms >= most;
}

static void tick(struct env_timer *timer)
{
    struct connections *all = timer->arg;
    uint64_t now = env_now_ms(all->env);
    struct connection *c, *tmp;
    bool wanted =
        all->starved != NULL || (all->options.is_short != NULL &&
                                 all->options.is_short(all->options.shard));
    DL_FOREACH_SAFE(all->list, c, tmp)
    {
        if (c->ended) {
            continue;
        }
        if (has_stalled(c, now)) {
            connection_complain(c, NULL,
                                "half a request, and others wait for "
                                "its memory");
            connection_end(c);
        } else if (is_not_taking(c, now, wanted)) {
            connection_complain(c, NULL,
                                "it does not take its answer, and others "
                                "wait for its memory");
            connection_end(c);
        } else if (is_idle(c, now)) {
            connection_end(c);
        }
    }
    uint32_t quarter = all->options.idle_max_ms / 4;
    env_timer_start(timer,
                    quarter > 0 && quarter < TICK_MS ? quarter : TICK_MS);
}

static void stop_now(struct env_timer *timer)
{
    struct connections *all = timer->arg;
    struct connection *c, *tmp;
    DL_FOREACH_SAFE(all->list, c, tmp)
    {
        connection_end(c);
    }
}

static void finish(struct env_deferred *d)
{
    struct connections *all = d->arg;
    void (*closed)(void *arg) = all->closed;
    all->closed = NULL;
    if (closed != NULL) {
        closed(all->closed_arg); /* may free `all` */
    }
}

struct connections *connections_new_with(
    const struct connections_options *options)
{
    struct connections *all = mem_zalloc(sizeof *all);
    all->options = *options;
    all->env = options->env;
    all->wake = (struct env_deferred){.cb = wake, .arg = all};
    all->finish = (struct env_deferred){.cb = finish, .arg = all};
    env_timer_init(all->env, &all->stop_timer, stop_now, all);
    env_timer_init(all->env, &all->tick, tick, all);
    env_timer_start(&all->tick, 1);
    return all;
}

void connections_close(struct connections *all, uint32_t ms,
                       void (*closed)(void *arg), void *arg)
{
    ASSERT(!all->stopping);
    all->stopping = true;
    all->closed = closed;
    all->closed_arg = arg;
    env_timer_stop(&all->tick);
    struct connection *c;
    DL_FOREACH(all->list, c)
    {
        c->doomed = true;
        c->no_more = true;
        connection_turn_soon(c);
    }
    env_timer_start(&all->stop_timer, ms);
    finish_when_empty(all);
}

void connections_free(struct connections *all)
{
    ASSERT(all->list == NULL && all->memory == 0);
    env_timer_stop(&all->tick);
    env_timer_stop(&all->stop_timer);
    mem_free(all);
}

unsigned connections_count(const struct connections *all)
{
    return all->n;
}

size_t connections_memory(const struct connections *all)
{
    return all->memory;
}
