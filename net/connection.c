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
#include "schema/apis.h"

/* From this many missing bytes on, a frame is read straight to its place;
 * below, copying costs less than one more read for the frames behind it. */
#define DIRECT_MIN ((size_t)16 << 10)
#define TICK_MS 1000

/* ---- memory ------------------------------------------------------------- */
static void wake_soon(struct connections *all)
{
    if (all->starved != NULL) {
        all->woken_before = all->tickets;
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

static void starve(struct connection *c, enum want want, size_t bytes)
{
    if (!c->starved) {
        c->starved = true;
        c->ticket = c->all->tickets++;
        c->want = want;
        c->want_bytes = bytes;
        c->all->n_short += want != WANT_TURN;
        DL_APPEND2(c->all->starved, c, starved_prev, starved_next);
    }
}

static void unstarve(struct connection *c)
{
    if (c->starved) {
        DL_DELETE2(c->all->starved, c, starved_prev, starved_next);
        c->all->n_short -= c->want != WANT_TURN;
        c->starved = false;
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

/* Answers about as long as their requests, whatever there is in the cluster.
 * (What a Fetch answers with has bounds of its own.) */
static bool is_answered_shortly(const struct request *rq)
{
    switch (rq->api_key) {
        case API_PRODUCE:
        case API_FETCH:
        case API_LIST_OFFSETS:
        case API_OFFSET_COMMIT:
        case API_FIND_COORDINATOR:
        case API_HEARTBEAT:
        case API_LEAVE_GROUP:
        case API_API_VERSIONS:
        case API_INIT_PRODUCER_ID:
        case API_OFFSET_FOR_LEADER_EPOCH:
            return true;
        default:
            return false;
    }
}

/* Has it shown that it takes what it asks for, and has no answer to take? */
static bool is_taker(const struct connection *c)
{
    return c->out_bytes == 0 && c->taken_bytes >= LIMIT_TAKER_BYTES;
}

/* Bytes of answers that are not taken, from which on `c` has to wait: half of
 * all memory, and a sixteenth more where the answer is short. Where it may be
 * long, that is less for connections with answers of their own among them, and
 * for those of which nobody knows that they take what they ask for: clients
 * that take nothing wait for each other, and the others pass them. */
static size_t answers_max(const struct connection *c)
{
    size_t half = c->all->options.memory_max / 2;
    if (is_answered_shortly(&c->waiting->rq)) {
        return half + half / 8;
    }
    return is_taker(c) ? half : c->out_bytes > 0 ? half / 2 : half - half / 4;
}

/* Whether there is memory for the next answer. */
static bool is_answer_room(const struct connection *c)
{
    const struct connections *all = c->all;
    if (all->answers >= answers_max(c)) {
        return false;
    }
    if (is_answered_shortly(&c->waiting->rq)) {
        return true;
    }
    /* the last eighth is left to takers; a sixteenth is always for answers,
     * or waiting requests that hold the rest would never get on */
    return all->memory <
               (is_taker(c) ? all->options.memory_max : middle_max(all)) ||
           all->answers < all->options.memory_max / 16;
}

/* Whether there is time for it: what may be long waits for the next turn when
 * much was answered in this one, or else many that ask for much at once would
 * stop the loop for everybody. */
static bool is_turn_room(const struct connection *c)
{
    const struct connections *all = c->all;
    return all->turn_bytes < LIMIT_TURN_ANSWERS ||
           all->turn_ms != env_now_ms(all->env) ||
           is_answered_shortly(&c->waiting->rq);
}

bool connection_may_answer(struct connection *c)
{
    if (!is_answer_room(c)) {
        starve(c, WANT_ANSWER, 0);
        return false;
    }
    if (!is_turn_room(c)) {
        starve(c, WANT_TURN, 0);
        env_timer_start(&c->all->next_turn, 0);
        return false;
    }
    return true;
}

void connections_answered(struct connections *all, size_t size)
{
    uint64_t now = env_now_ms(all->env);
    if (now != all->turn_ms) {
        all->turn_ms = now;
        all->turn_bytes = 0;
    }
    all->turn_bytes += size;
    all->answers += size;
}

void connections_return_answer(struct connections *all, size_t size)
{
    ASSERT(all->answers >= size);
    all->answers -= size;
    if (size > 0) {
        wake_soon(all);
    }
}

/* Enough of the frame came to keep its memory while others wait. */
static void frame_progressed(struct connection *c)
{
    c->progress_ms = env_now_ms(c->all->env);
    c->progress_have = c->frame_have;
}

/* Is there so much, for one that is, or is not, in the middle of a frame? Nor
 * does the last eighth serve those whose requests hold some already. */
static bool is_room(const struct connection *c, size_t size)
{
    const struct connections *all = c->all;
    size_t most = c->frame != NULL || c->n_slots > 0 ? middle_max(all)
                                                     : all->options.memory_max;
    return size <= most && all->memory <= most - size;
}

static bool may_hold(const struct connection *c)
{
    return c->frame != NULL && (c->all->holder == NULL || c->all->holder == c);
}

/* Whether `c` may take memory; otherwise it waits until there is some. Of those
 * in the middle of a frame one may go on beyond the limit, or else halves of
 * frames could hold all memory with none able to get whole. */
static bool may_take(struct connection *c, size_t size)
{
    if (is_room(c, size)) {
        return true;
    }
    if (may_hold(c)) {
        c->all->holder = c;
        return true;
    }
    starve(c, WANT_READ, size);
    return false;
}

/* Might one that waits get on now? */
static bool is_worth_waking(const struct connection *c)
{
    if (c->want == WANT_READ && (may_hold(c) || is_room(c, c->want_bytes))) {
        return true;
    }
    return c->waiting != NULL && is_answer_room(c) && is_turn_room(c);
}

/* Those that wait ask again, in the order of waiting, as far as there is
 * something for them. */
static void wake(struct env_deferred *d)
{
    struct connections *all = d->arg;
    struct connection *c = NULL, *next = NULL;
    DL_FOREACH_SAFE2(all->starved, c, next, starved_next)
    {
        if (c->ticket >= all->woken_before) {
            return; /* it asked after this began */
        }
        if (is_worth_waking(c)) {
            unstarve(c);
            frame_progressed(c);
            connection_turn_soon(c);
            env_stream_resume(c->stream);
        }
    }
}

static void next_turn(struct env_timer *timer)
{
    struct connections *all = timer->arg;
    all->turn_bytes = 0;
    wake_soon(all);
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

/* What stands where a size should: mostly a client that is set up wrongly. */
static const char *too_large(const uint8_t head[4])
{
    static const char http[][5] = {"GET ", "HEAD", "POST", "PUT ", "OPTI"};
    if (head[0] == 0x16 && head[1] == 0x03) { /* a handshake, version 3.x */
        return "a TLS handshake; this listener is PLAINTEXT "
               "(security.protocol of the client)";
    }
    for (size_t i = 0; i < sizeof http / sizeof http[0]; i++) {
        if (memcmp(head, http[i], 4) == 0) {
            return "an HTTP request; this port speaks Kafka's protocol";
        }
    }
    return "a request larger than socket.request.max.bytes";
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
                                                 : too_large(c->head));
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

static bool is_muted(const struct connection *c)
{
    return c->muted && c->frame == NULL;
}

void connection_maybe_resume(struct connection *c)
{
    if (c->paused && !c->doomed && has_room(c) && !is_muted(c)) {
        c->paused = false;
        env_stream_resume(c->stream);
    }
}

void connection_mute(struct connection *c, uint32_t ms)
{
    uint64_t until = env_now_ms(c->all->env) + ms;
    if (c->ended || (c->muted && c->muted_until_ms >= until)) {
        return;
    }
    c->muted = true;
    c->muted_until_ms = until;
    env_timer_start(&c->unmute, ms);
}

static void unmute(struct env_timer *timer)
{
    struct connection *c = timer->arg;
    c->muted = false;
    c->active_ms = env_now_ms(c->all->env);
    connection_turn_soon(c);
}

static struct iovec on_alloc(struct env_stream *stream)
{
    static const struct iovec not_now = {NULL, 0};
    struct connection *c = env_stream_arg(stream);
    c->direct = false;
    if (c->doomed || !has_room(c) || is_muted(c)) {
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
    env_timer_stop(&c->unmute);
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
    env_timer_init(all->env, &c->unmute, unmute, c);
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
    return c->all->n_short > 0 && c->frame != NULL && !c->starved &&
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
    return most > 0 && c->n_begun == 0 && !c->muted &&
           now - c->active_ms >= most;
}

static void tick(struct env_timer *timer)
{
    struct connections *all = timer->arg;
    uint64_t now = env_now_ms(all->env);
    struct connection *c, *tmp;
    /* Without connections other shards may not even be open. */
    bool wanted =
        all->list != NULL &&
        (all->n_short > 0 || (all->options.is_short != NULL &&
                              all->options.is_short(all->options.shard)));
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
    env_timer_init(all->env, &all->next_turn, next_turn, all);
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
    env_timer_stop(&all->next_turn);
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
