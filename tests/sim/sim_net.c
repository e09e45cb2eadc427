/* The network: connections as two pipes of bytes with a delay each.
 *
 * Happy path: connect sends a SYN over the link; a listener found at the other
 * end makes a stream there and the answer comes back. A write puts its bytes
 * into the pipe with the time of their arrival; on arrival they are given to
 * the reader in pieces of random size. Failure modes: nobody listens (refused
 * when the host is up, silence and a time-out when it is not); a cut link
 * holds back what is under way until it is healed or the sender gives up; a
 * side that is gone answers bytes with a reset; a reset loses what is under
 * way. */
#include <string.h>
#include <utlist.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "tests/sim/sim_impl.h"

/* What a pipe holds before its writers wait, as socket buffers do. */
#define PIPE_WINDOW (256 << 10)
#define FIRST_FREE_PORT 40000

struct sim_stream {
    struct env_stream base;
    struct sim_conn *conn; /* NULL: none (malformed address), or gone */
    int side;
    struct env_deferred turn;
    struct env_write *ended, **ended_end;     /* to call back */
    struct env_write *blocked, **blocked_end; /* wait for room in the pipe */
    bool connected;
    bool read_ended;
    bool deliver_scheduled;
    bool closing;
};

/* Bytes under way, or the end of them. */
struct segment {
    uint64_t arrives_ns;
    uint8_t *data;
    size_t size, taken;
    bool end; /* the writer closed */
    struct segment *next;
};

struct pipe {
    struct segment *first, **last;
    size_t unread; /* bytes */
    uint64_t last_arrival_ns;
    bool held;      /* by a cut link */
    uint64_t holds; /* counted, to know a stale time-out */
};

struct end {
    struct sim_node *node;
    unsigned incarnation;
    struct sim_stream *stream; /* NULL: not yet, or gone */
    bool gone;                 /* closed, crashed, or given up */
    struct pipe out;           /* written by this end */
};

/* Side 0 connected, side 1 accepted. */
struct sim_conn {
    struct sim *sim;
    uint64_t id;
    unsigned refs; /* events; and 1 for each end that is not gone */
    bool accepted;
    uint16_t port;
    struct end ends[2];
    struct sim_conn *prev, *next;
};

struct sim_listener {
    struct env_listener base;
    struct sim_node *node;
    uint16_t port;
    env_accept_cb accept;
    void *arg;
    struct sim_listener *prev, *next;
};

static struct sim_stream *sim_stream_of(struct env_stream *stream)
{
    return (struct sim_stream *)stream;
}

static struct sim *sim_of(const struct sim_stream *s)
{
    return sim_env_of(s->base.env)->node->sim;
}

/* ---- connections and their events ---------------------------------------- */
static void pipe_clear(struct pipe *pipe)
{
    while (pipe->first != NULL) {
        struct segment *segment = pipe->first;
        pipe->first = segment->next;
        mem_free(segment->data);
        mem_free(segment);
    }
    pipe->last = &pipe->first;
    pipe->unread = 0;
    pipe->held = false;
    pipe->holds++;
}

static void conn_unref(struct sim_conn *conn)
{
    ASSERT(conn->refs > 0);
    if (--conn->refs > 0) {
        return;
    }
    pipe_clear(&conn->ends[0].out);
    pipe_clear(&conn->ends[1].out);
    DL_DELETE(conn->sim->conns, conn);
    mem_free(conn);
}

static void drop_conn_event(struct sim_event *event)
{
    conn_unref(event->arg);
}

/* An event about side `side` of a connection; runs that side's code. */
static struct sim_event *conn_event(struct sim_conn *conn, int side,
                                    uint64_t at_ns, enum sim_event_kind kind,
                                    void (*fire)(struct sim_event *event))
{
    struct sim_event *event =
        sim_event_add(conn->sim, at_ns, kind, fire, conn->ends[side].node);
    event->incarnation = 0; /* the network outlives nodes */
    event->arg = conn;
    event->value = (uint64_t)side;
    event->drop = drop_conn_event;
    conn->refs++;
    return event;
}

static struct sim_link *link_of(const struct sim_conn *conn, int from)
{
    return &conn->sim->links[conn->ends[from].node->id]
                            [conn->ends[1 - from].node->id];
}

static uint64_t link_delay(struct sim_conn *conn, int from)
{
    struct sim_link *link = link_of(conn, from);
    if (conn->ends[0].node == conn->ends[1].node) {
        return 10 * SIM_US; /* loopback */
    }
    return link->min_ns + sim_random_ns(&conn->sim->net_prng, link->mean_ns);
}

static bool link_cut(const struct sim_conn *conn, int from)
{
    return conn->ends[0].node != conn->ends[1].node && link_of(conn, from)->cut;
}

/* Whether the process that had this end still runs. */
static bool end_alive(const struct end *end)
{
    return end->node->up && end->node->incarnation == end->incarnation;
}

static void end_gone(struct sim_conn *conn, int side)
{
    struct end *end = &conn->ends[side];
    if (end->stream != NULL) {
        end->stream->conn = NULL;
        end->stream = NULL;
    }
    if (!end->gone) {
        end->gone = true;
        conn_unref(conn);
    }
}

/* ---- the ends of writes -------------------------------------------------- */
static struct env_write **write_next(struct env_write *req)
{
    return (struct env_write **)&req->impl[0];
}

static void write_ended(struct sim_stream *s, struct env_write *req,
                        enum err status)
{
    *write_next(req) = NULL;
    req->impl[1] = (void *)(uintptr_t)status;
    *s->ended_end = req;
    s->ended_end = write_next(req);
    env_defer(s->base.env, &s->turn);
}

static void blocked_end(struct sim_stream *s, enum err status)
{
    while (s->blocked != NULL) {
        struct env_write *req = s->blocked;
        s->blocked = *write_next(req);
        write_ended(s, req, status);
    }
    s->blocked_end = &s->blocked;
}

static void stream_turn(struct env_deferred *d)
{
    struct sim_stream *s = d->arg;
    while (s->ended != NULL) {
        struct env_write *req = s->ended;
        s->ended = *write_next(req);
        if (s->ended == NULL) {
            s->ended_end = &s->ended;
        }
        req->cb(req, (enum err)(uintptr_t)req->impl[1]);
    }
}

static struct sim_stream *stream_new(struct env *env, struct sim_conn *conn,
                                     int side, const char *peer)
{
    struct sim_stream *s = mem_zalloc(sizeof *s);
    s->base.env = env;
    s->conn = conn;
    s->side = side;
    s->turn.cb = stream_turn;
    s->turn.arg = s;
    s->ended_end = &s->ended;
    s->blocked_end = &s->blocked;
    snprintf(s->base.peer, sizeof s->base.peer, "%s", peer);
    if (conn != NULL) {
        conn->ends[side].stream = s;
    }
    return s;
}

/* ---- bytes --------------------------------------------------------------- */
static void fire_deliver(struct sim_event *event);
static void fire_reset(struct sim_event *event);
static void fire_tcp_timeout(struct sim_event *event);

/* The link is cut: what is at the pipe's head waits, and the writer's patience
 * runs out some day. */
static void pipe_hold(struct sim_conn *conn, int from)
{
    struct pipe *pipe = &conn->ends[from].out;
    if (pipe->held) {
        return;
    }
    pipe->held = true;
    pipe->holds++;
    struct sim_event *event =
        conn_event(conn, from, conn->sim->now_ns + SIM_TCP_TIMEOUT_NS,
                   SIM_EVENT_TCP_TIMEOUT, fire_tcp_timeout);
    event->arg2 = (void *)(uintptr_t)pipe->holds;
}

/* A reset sent by side `from`; arrives, unless the link is cut. */
static void reset_send(struct sim_conn *conn, int from)
{
    if (!link_cut(conn, from) && !conn->ends[1 - from].gone) {
        conn_event(conn, 1 - from, conn->sim->now_ns + link_delay(conn, from),
                   SIM_EVENT_RESET, fire_reset);
    }
}

/* Puts a segment into the pipe of side `from`. */
static void pipe_put(struct sim_conn *conn, int from, uint8_t *data,
                     size_t size, bool end)
{
    struct sim *sim = conn->sim;
    struct pipe *pipe = &conn->ends[from].out;
    struct segment *segment = sim_zalloc(sizeof *segment);
    uint64_t at = sim->now_ns + link_delay(conn, from);
    if (sim->bandwidth > 0) {
        uint64_t starts = pipe->last_arrival_ns > sim->now_ns
                              ? pipe->last_arrival_ns
                              : sim->now_ns;
        uint64_t ends = starts + size * SIM_S / sim->bandwidth;
        at = ends > at ? ends : at;
    }
    at = at > pipe->last_arrival_ns ? at : pipe->last_arrival_ns;
    pipe->last_arrival_ns = at;
    segment->arrives_ns = at;
    segment->data = data;
    segment->size = size;
    segment->end = end;
    *pipe->last = segment;
    pipe->last = &segment->next;
    pipe->unread += size;
    conn_event(conn, 1 - from, at, SIM_EVENT_DELIVER, fire_deliver);
}

/* Writers whose bytes have room go on, in order. */
static void blocked_flush(struct sim_conn *conn, int from)
{
    struct pipe *pipe = &conn->ends[from].out;
    struct sim_stream *writer = conn->ends[from].stream;
    while (writer != NULL && writer->connected && writer->blocked != NULL &&
           pipe->unread <= PIPE_WINDOW) {
        struct env_write *req = writer->blocked;
        writer->blocked = *write_next(req);
        if (writer->blocked == NULL) {
            writer->blocked_end = &writer->blocked;
        }
        write_ended(writer, req, ERR_OK);
    }
}

static void segment_drop(struct pipe *pipe)
{
    struct segment *segment = pipe->first;
    pipe->first = segment->next;
    if (pipe->first == NULL) {
        pipe->last = &pipe->first;
    }
    mem_free(segment->data);
    mem_free(segment);
}

/* One read, in the reader's node. */
struct delivery {
    struct sim_conn *conn;
    int side; /* the reader's */
    bool more;
};

static void call_read_end(struct sim_stream *s, enum err status)
{
    s->read_ended = true;
    s->base.ops->read(&s->base, 0, status);
}

/* A random part of what has come: mostly all of it. */
static size_t read_size(struct sim *sim, size_t size)
{
    return prng_chance(&sim->net_prng, 3, 4)
               ? size
               : (size_t)prng_between(&sim->net_prng, 1, size);
}

/* Copies from arrived segments; gives the bytes. */
static size_t segments_take(struct sim_conn *conn, int from, uint8_t *to,
                            size_t size)
{
    struct pipe *pipe = &conn->ends[from].out;
    size_t got = 0;
    while (got < size && pipe->first != NULL && !pipe->first->end &&
           pipe->first->arrives_ns <= conn->sim->now_ns) {
        struct segment *segment = pipe->first;
        size_t step = segment->size - segment->taken;
        step = step < size - got ? step : size - got;
        memcpy(to + got, segment->data + segment->taken, step);
        segment->taken += step;
        got += step;
        if (segment->taken == segment->size) {
            segment_drop(pipe);
        }
    }
    return got;
}

static size_t segments_arrived(const struct sim_conn *conn, int from)
{
    const struct segment *segment = conn->ends[from].out.first;
    size_t size = 0;
    while (segment != NULL && !segment->end &&
           segment->arrives_ns <= conn->sim->now_ns) {
        size += segment->size - segment->taken;
        segment = segment->next;
    }
    return size;
}

static void call_deliver(void *ctx)
{
    struct delivery *d = ctx;
    struct sim_conn *conn = d->conn;
    struct sim_stream *s = conn->ends[d->side].stream;
    struct pipe *pipe = &conn->ends[1 - d->side].out;
    if (pipe->first->end) {
        segment_drop(pipe);
        call_read_end(s, ERR_CLOSED);
        return;
    }
    struct iovec room = s->base.ops->alloc(&s->base);
    /* alloc may have closed the stream */
    if (room.iov_len == 0 || conn->ends[d->side].stream != s) {
        return; /* paused; resume looks again */
    }
    size_t size = segments_arrived(conn, 1 - d->side);
    size = read_size(conn->sim, size < room.iov_len ? size : room.iov_len);
    size = segments_take(conn, 1 - d->side, room.iov_base, size);
    sim_hash_add(conn->sim, crc32c((uint32_t)conn->id, room.iov_base, size));
    conn->ends[1 - d->side].out.unread -= size;
    blocked_flush(conn, 1 - d->side);
    s->base.ops->read(&s->base, size, ERR_OK);
    d->more =
        pipe->first != NULL && pipe->first->arrives_ns <= conn->sim->now_ns;
}

/* Looks again soon whether there is something to read. */
static void deliver_soon(struct sim_conn *conn, int side)
{
    struct sim_stream *s = conn->ends[side].stream;
    if (s != NULL && !s->deliver_scheduled) {
        s->deliver_scheduled = true;
        conn_event(conn, side, conn->sim->now_ns + SIM_US, SIM_EVENT_DELIVER,
                   fire_deliver);
    }
}

/* Bytes came to an end that nobody has: the host answers with a reset, or,
 * when it is down, nobody does. */
static void deliver_to_nobody(struct sim_conn *conn, int side)
{
    struct sim_node *node = conn->ends[side].node;
    if (node->up || node->host_up) {
        pipe_clear(&conn->ends[1 - side].out);
        reset_send(conn, side);
    } else {
        pipe_hold(conn, 1 - side);
    }
}

static void fire_deliver(struct sim_event *event)
{
    struct sim_conn *conn = event->arg;
    int side = (int)event->value;
    struct end *end = &conn->ends[side];
    struct pipe *pipe = &conn->ends[1 - side].out;
    struct sim_stream *s = end->stream;
    struct delivery d = {conn, side, false};
    if (s != NULL) {
        s->deliver_scheduled = false;
    }
    if (pipe->first == NULL || pipe->first->arrives_ns > conn->sim->now_ns) {
        /* taken or lost already */
    } else if (link_cut(conn, 1 - side)) {
        pipe_hold(conn, 1 - side);
    } else if (end->gone) {
        deliver_to_nobody(conn, side);
    } else if (s != NULL && s->connected && !s->read_ended && !s->closing &&
               s->base.ops != NULL) {
        if (sim_run_in(sim_env_of(s->base.env), call_deliver, &d, true) &&
            d.more) {
            deliver_soon(conn, side);
        }
    } /* else start or the connection's answer will look again */
    conn_unref(conn);
}

/* ---- resets and time-outs ------------------------------------------------ */
struct ending {
    struct sim_stream *stream;
    enum err status;
};

static void call_reset(void *ctx)
{
    struct ending *ending = ctx;
    struct sim_stream *s = ending->stream;
    blocked_end(s, ERR_IO);
    if (!s->connected) {
        s->base.ops->connected(&s->base, ERR_REFUSED);
        sim_stream_close(&s->base);
    } else if (s->base.ops != NULL && !s->read_ended && !s->closing) {
        call_read_end(s, ERR_IO);
    }
}

/* The side learns that the connection is no more. */
static void end_reset(struct sim_conn *conn, int side)
{
    struct sim_stream *s = conn->ends[side].stream;
    struct ending ending = {s, ERR_IO};
    pipe_clear(&conn->ends[0].out);
    pipe_clear(&conn->ends[1].out);
    if (s == NULL) {
        end_gone(conn, side);
        return;
    }
    struct env *env = s->base.env;
    end_gone(conn, side);
    if (s->base.ops == NULL) { /* accepted, not yet started: start tells */
        s->read_ended = true;
        return;
    }
    sim_run_in(sim_env_of(env), call_reset, &ending, true);
}

static void fire_reset(struct sim_event *event)
{
    struct sim_conn *conn = event->arg;
    int side = (int)event->value;
    if (!conn->ends[side].gone) {
        end_reset(conn, side);
    }
    conn_unref(conn);
}

static void fire_tcp_timeout(struct sim_event *event)
{
    struct sim_conn *conn = event->arg;
    int side = (int)event->value;
    struct pipe *pipe = &conn->ends[side].out;
    if (pipe->held && pipe->holds == (uintptr_t)event->arg2) {
        if (conn->ends[side].gone) {
            pipe_clear(pipe);
        } else {
            end_reset(conn, side);
        }
    }
    conn_unref(conn);
}

/* ---- connecting ---------------------------------------------------------- */
static struct sim_node *node_find(const struct sim_env *env, const char *host)
{
    static const char *const own[] = {"", "localhost", "127.0.0.1", "0.0.0.0",
                                      "::"};
    struct sim *sim = env->node->sim;
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        if (strcmp(host, own[i]) == 0) {
            return env->node;
        }
    }
    for (unsigned i = 0; i < sim->n_nodes; i++) {
        if (strcmp(sim->nodes[i]->name, host) == 0) {
            return sim->nodes[i];
        }
    }
    return NULL;
}

static struct sim_listener *listener_find(const struct sim_node *node,
                                          uint16_t port)
{
    struct sim_listener *l;
    DL_FOREACH(node->sim->listeners, l)
    {
        if (l->node == node && l->port == port) {
            return l;
        }
    }
    return NULL;
}

struct connect_result {
    struct sim_stream *stream;
    enum err status;
};

static void call_connected(void *ctx)
{
    struct connect_result *result = ctx;
    struct sim_stream *s = result->stream;
    if (s->closing) {
        return;
    }
    if (result->status != ERR_OK) {
        blocked_end(s, ERR_CANCELED);
        if (s->conn != NULL) {
            end_gone(s->conn, s->side);
        }
    }
    s->connected = result->status == ERR_OK;
    s->base.ops->connected(&s->base, result->status);
    if (result->status != ERR_OK) {
        sim_stream_close(&s->base);
    }
}

static void fire_connected(struct sim_event *event)
{
    struct sim_conn *conn = event->arg;
    struct sim_stream *s = conn->ends[0].stream;
    struct connect_result result = {s, (enum err)(uintptr_t)event->arg2};
    if (s != NULL && !s->connected && end_alive(&conn->ends[0]) &&
        sim_run_in(sim_env_of(s->base.env), call_connected, &result, true)) {
        blocked_flush(conn, 0);
        deliver_soon(conn, 0);
    }
    conn_unref(conn);
}

/* The answer to side 0's SYN, `delay_ns` from now. */
static void connect_answer(struct sim_conn *conn, uint64_t delay_ns,
                           enum err status)
{
    struct sim_event *event = conn_event(conn, 0, conn->sim->now_ns + delay_ns,
                                         SIM_EVENT_CONNECTED, fire_connected);
    event->arg2 = (void *)(uintptr_t)status;
}

struct arrival {
    struct sim_conn *conn;
    struct sim_listener *listener;
};

static void call_accept(void *ctx)
{
    struct arrival *arrival = ctx;
    struct sim_conn *conn = arrival->conn;
    struct sim_listener *l = arrival->listener;
    char peer[LIMIT_ADDRESS];
    snprintf(peer, sizeof peer, "%s:%u", conn->ends[0].node->name,
             (unsigned)(FIRST_FREE_PORT + conn->id % 20000));
    struct sim_stream *s = stream_new(l->base.env, conn, 1, peer);
    s->connected = true;
    l->accept(l->arg, &s->base);
}

static void fire_syn(struct sim_event *event)
{
    struct sim_conn *conn = event->arg;
    struct end *client = &conn->ends[0], *server = &conn->ends[1];
    struct sim_node *node = server->node;
    struct sim_listener *l = node->up ? listener_find(node, conn->port) : NULL;
    bool cut = link_cut(conn, 0) || link_cut(conn, 1);
    if (client->gone) {
        end_gone(conn, 1); /* nobody wants it any more */
    } else if (cut || (!node->up && !node->host_up)) {
        connect_answer(conn, SIM_CONNECT_TIMEOUT_NS, ERR_TIMEOUT);
        end_gone(conn, 1);
    } else if (l == NULL) {
        connect_answer(conn, link_delay(conn, 1), ERR_REFUSED);
        end_gone(conn, 1);
    } else {
        struct arrival arrival = {conn, l};
        uint64_t back = link_delay(conn, 1);
        conn->accepted = true;
        server->incarnation = node->incarnation;
        server->out.last_arrival_ns = conn->sim->now_ns + back;
        connect_answer(conn, back, ERR_OK);
        sim_run_in(sim_env_of(l->base.env), call_accept, &arrival, true);
    }
    conn_unref(conn);
}

static struct sim_conn *conn_new(struct sim_env *from, struct sim_node *to,
                                 uint16_t port)
{
    struct sim *sim = from->node->sim;
    struct sim_conn *conn = sim_zalloc(sizeof *conn);
    conn->sim = sim;
    conn->id = ++sim->n_conns;
    conn->refs = 2;
    conn->port = port;
    conn->ends[0].node = from->node;
    conn->ends[0].incarnation = from->node->incarnation;
    conn->ends[1].node = to;
    conn->ends[0].out.last = &conn->ends[0].out.first;
    conn->ends[1].out.last = &conn->ends[1].out.first;
    DL_APPEND(sim->conns, conn);
    return conn;
}

static void fire_malformed(struct sim_event *event)
{
    struct connect_result result = {event->arg,
                                    (enum err)(uintptr_t)event->arg2};
    sim_run_in(sim_env_of(result.stream->base.env), call_connected, &result,
               true);
}

struct env_stream *sim_stream_connect(struct env *base, const char *address,
                                      const struct env_stream_ops *ops,
                                      void *arg)
{
    struct sim_env *env = sim_env_of(base);
    struct sim *sim = env->node->sim;
    char host[LIMIT_ADDRESS];
    uint16_t port;
    ASSERT(sim->job == NULL);
    bool ok = env_address_split(address, host, &port) && host[0] != '\0';
    struct sim_node *to = ok ? node_find(env, host) : NULL;
    struct sim_conn *conn = to == NULL ? NULL : conn_new(env, to, port);
    struct sim_stream *s = stream_new(base, conn, 0, address);
    s->base.ops = ops;
    s->base.arg = arg;
    if (conn != NULL) {
        conn_event(conn, 1, sim->now_ns + link_delay(conn, 0), SIM_EVENT_SYN,
                   fire_syn);
    } else {
        struct sim_event *event =
            sim_event_add(sim, sim->now_ns + SIM_US, SIM_EVENT_CONNECT_FAILED,
                          fire_malformed, env->node);
        event->arg = s;
        event->arg2 = (void *)(uintptr_t)(ok ? ERR_UNREACHABLE : ERR_INVALID);
    }
    return &s->base;
}

/* ---- reading and writing ------------------------------------------------- */
static void fire_late_end(struct sim_event *event)
{
    struct sim_stream *s = event->arg;
    struct ending ending = {s, ERR_IO};
    s->read_ended = false;
    sim_run_in(sim_env_of(s->base.env), call_reset, &ending, true);
}

void sim_stream_start(struct env_stream *base)
{
    struct sim_stream *s = sim_stream_of(base);
    if (s->conn == NULL) { /* reset before it was started */
        sim_event_add(sim_of(s), sim_of(s)->now_ns + SIM_US, SIM_EVENT_RESET,
                      fire_late_end, sim_env_of(base->env)->node)
            ->arg = s;
        return;
    }
    deliver_soon(s->conn, s->side);
}

void sim_stream_resume(struct env_stream *base)
{
    struct sim_stream *s = sim_stream_of(base);
    if (base->ops != NULL && s->connected && !s->read_ended &&
        s->conn != NULL) {
        deliver_soon(s->conn, s->side);
    }
}

size_t sim_stream_unsent(const struct env_stream *base)
{
    const struct sim_stream *s = (const struct sim_stream *)base;
    return s->conn == NULL ? 0 : s->conn->ends[s->side].out.unread;
}

void sim_stream_write(struct env_stream *base, struct env_write *req,
                      const struct iovec *iov, int n_iov)
{
    struct sim_stream *s = sim_stream_of(base);
    size_t size = 0;
    ASSERT(sim_of(s)->job == NULL);
    for (int i = 0; i < n_iov; i++) {
        size += iov[i].iov_len;
    }
    if (s->conn == NULL) {
        write_ended(s, req, ERR_CANCELED);
        return;
    }
    struct pipe *pipe = &s->conn->ends[s->side].out;
    if (size > 0) {
        uint8_t *data = sim_alloc(size);
        size_t at = 0;
        for (int i = 0; i < n_iov; i++) {
            memcpy(data + at, iov[i].iov_base, iov[i].iov_len);
            at += iov[i].iov_len;
        }
        pipe_put(s->conn, s->side, data, size, false);
    }
    if (pipe->unread <= PIPE_WINDOW && s->blocked == NULL && s->connected) {
        write_ended(s, req, ERR_OK);
    } else {
        *write_next(req) = NULL;
        *s->blocked_end = req;
        s->blocked_end = write_next(req);
    }
}

/* ---- closing ------------------------------------------------------------- */
static void call_closed(void *ctx)
{
    struct sim_stream *s = ctx;
    stream_turn(&s->turn);
    if (s->base.ops != NULL) {
        s->base.ops->closed(&s->base);
    }
    ASSERT(!s->turn.queued);
    mem_free(s);
}

static void fire_closed(struct sim_event *event)
{
    struct sim_stream *s = event->arg;
    sim_run_in(sim_env_of(s->base.env), call_closed, s, true);
}

void sim_stream_close(struct env_stream *base)
{
    struct sim_stream *s = sim_stream_of(base);
    struct sim *sim = sim_of(s);
    if (s->closing) {
        return;
    }
    s->closing = true;
    blocked_end(s, ERR_CANCELED);
    struct sim_conn *conn = s->conn;
    if (conn != NULL) {
        /* Bytes that nobody will read make it a reset. */
        bool unread = conn->ends[1 - s->side].out.first != NULL &&
                      segments_arrived(conn, 1 - s->side) > 0;
        if (unread) {
            pipe_clear(&conn->ends[1 - s->side].out);
            reset_send(conn, s->side);
        } else if (!conn->ends[1 - s->side].gone) {
            pipe_put(conn, s->side, NULL, 0, true);
        }
        end_gone(conn, s->side);
    }
    sim_event_add(
        sim, sim->now_ns + prng_between(&sim->net_prng, 1, 50) * SIM_US,
        SIM_EVENT_STREAM_CLOSED, fire_closed, sim_env_of(base->env)->node)
        ->arg = s;
}

/* ---- listening and moving ------------------------------------------------ */
enum err sim_listen(struct env *env, const char *address, env_accept_cb accept,
                    void *arg, struct env_listener **out)
{
    struct sim_node *node = sim_env_of(env)->node;
    char host[LIMIT_ADDRESS];
    uint16_t port;
    if (!env_address_split(address, host, &port)) {
        return ERR_INVALID;
    }
    if (node_find(sim_env_of(env), host) != node) {
        return ERR_UNREACHABLE;
    }
    if (port != 0 && listener_find(node, port) != NULL) {
        return ERR_BUSY;
    }
    while (port == 0) {
        uint16_t next = (uint16_t)(FIRST_FREE_PORT + node->next_port++ % 20000);
        port = listener_find(node, next) == NULL ? next : 0;
    }
    struct sim_listener *l = sim_zalloc(sizeof *l);
    l->base.env = env;
    l->node = node;
    l->port = port;
    l->accept = accept;
    l->arg = arg;
    snprintf(l->base.address, sizeof l->base.address, "%s:%u", node->name,
             port);
    DL_APPEND(node->sim->listeners, l);
    *out = &l->base;
    return ERR_OK;
}

void sim_listener_close(struct env_listener *base)
{
    struct sim_listener *l = (struct sim_listener *)base;
    DL_DELETE(l->node->sim->listeners, l);
    mem_free(l);
}

struct move {
    struct sim_conn *conn;
    int side;
    struct sim_env *to;
    env_accept_cb accept;
    void *arg;
    char peer[LIMIT_ADDRESS];
};

static void call_moved(void *ctx)
{
    struct move *move = ctx;
    struct sim_stream *s =
        stream_new(&move->to->base, move->conn, move->side, move->peer);
    s->connected = true;
    if (s->conn == NULL || s->conn->ends[move->side].gone) {
        s->read_ended = true; /* reset on the way */
    }
    if (s->conn != NULL && s->read_ended) {
        end_gone(move->conn, move->side);
    }
    move->accept(move->arg, &s->base);
}

static void drop_move(struct sim_event *event)
{
    struct move *move = event->arg;
    if (move->conn != NULL) {
        conn_unref(move->conn);
    }
    mem_free(move);
}

static void fire_move(struct sim_event *event)
{
    struct move *move = event->arg;
    sim_run_in(move->to, call_moved, move, true);
    drop_move(event);
}

void sim_stream_move(struct env_stream *base, struct env *to,
                     env_accept_cb accept, void *arg)
{
    struct sim_stream *s = sim_stream_of(base);
    struct sim *sim = sim_of(s);
    struct sim_env *target = sim_env_of(to);
    struct move *move = sim_zalloc(sizeof *move);
    ASSERT(target->node == sim_env_of(base->env)->node);
    move->conn = s->conn;
    move->side = s->side;
    move->to = target;
    move->accept = accept;
    move->arg = arg;
    memcpy(move->peer, s->base.peer, sizeof move->peer);
    if (s->conn != NULL) {
        s->conn->refs++;
        s->conn->ends[s->side].stream = NULL;
        s->conn = NULL;
    }
    sim_stream_close(base); /* the old object; the connection goes on */
    struct sim_event *event = sim_event_add(
        sim, sim->now_ns + 5 * SIM_US, SIM_EVENT_MOVE, fire_move, target->node);
    event->arg = move;
    event->drop = drop_move;
}

/* ---- faults -------------------------------------------------------------- */
void sim_net_node_gone(struct sim_node *node)
{
    struct sim *sim = node->sim;
    struct sim_listener *l, *next_l;
    struct sim_conn *conn, *next;
    DL_FOREACH_SAFE(sim->listeners, l, next_l)
    {
        if (l->node == node) {
            DL_DELETE(sim->listeners, l);
            mem_free(l);
        }
    }
    DL_FOREACH_SAFE(sim->conns, conn, next)
    {
        conn->refs++;
        for (int side = 0; side < 2; side++) {
            struct end *end = &conn->ends[side];
            bool was = side == 0 || conn->accepted;
            if (end->node != node || end->gone || !was) {
                continue;
            }
            if (node->host_up) {
                reset_send(conn, side);
            } else {
                pipe_clear(&end->out); /* what it had not sent yet */
            }
            end_gone(conn, side);
        }
        conn_unref(conn);
    }
}

void sim_net_free(struct sim *sim)
{
    struct sim_conn *conn, *next;
    DL_FOREACH_SAFE(sim->conns, conn, next)
    {
        conn->refs = 1;
        conn_unref(conn);
    }
}

typedef void (*link_fn)(struct sim *sim, struct sim_link *link, uint64_t a,
                        uint64_t b);

/* Does `fn` for the links meant; NULL is all nodes. */
static void links_each(struct sim *sim, struct sim_node *from,
                       struct sim_node *to, link_fn fn, uint64_t a, uint64_t b)
{
    for (unsigned i = 0; i < SIM_NODES_MAX; i++) {
        for (unsigned k = 0; k < SIM_NODES_MAX; k++) {
            if ((from == NULL || from->id == i) &&
                (to == NULL || to->id == k)) {
                fn(sim, &sim->links[i][k], a, b);
            }
        }
    }
}

static void link_set_delay(struct sim *sim, struct sim_link *link,
                           uint64_t min_ns, uint64_t mean_ns)
{
    (void)sim;
    link->min_ns = min_ns;
    link->mean_ns = mean_ns;
}

void sim_net_delay(struct sim *sim, struct sim_node *from, struct sim_node *to,
                   uint64_t min_ns, uint64_t mean_ns)
{
    links_each(sim, from, to, link_set_delay, min_ns, mean_ns);
}

void sim_net_bandwidth(struct sim *sim, uint64_t bytes_per_s)
{
    sim->bandwidth = bytes_per_s;
}

static void link_set_cut(struct sim *sim, struct sim_link *link, uint64_t cut,
                         uint64_t unused)
{
    (void)sim;
    (void)unused;
    link->cut = cut != 0;
}

void sim_net_cut(struct sim *sim, struct sim_node *from, struct sim_node *to)
{
    links_each(sim, from, to, link_set_cut, true, 0);
}

void sim_net_retry(struct sim *sim)
{
    struct sim_conn *conn;
    DL_FOREACH(sim->conns, conn)
    {
        for (int from = 0; from < 2; from++) {
            struct pipe *pipe = &conn->ends[from].out;
            if (pipe->held && !link_cut(conn, from)) {
                pipe->held = false;
                conn_event(
                    conn, 1 - from,
                    sim->now_ns + sim_random_ns(&sim->net_prng, 200 * SIM_MS),
                    SIM_EVENT_DELIVER, fire_deliver);
            }
        }
    }
}

void sim_net_heal(struct sim *sim, struct sim_node *from, struct sim_node *to)
{
    links_each(sim, from, to, link_set_cut, false, 0);
    sim_net_retry(sim);
}

void sim_net_cut_both(struct sim *sim, struct sim_node *a, struct sim_node *b)
{
    sim_net_cut(sim, a, b);
    sim_net_cut(sim, b, a);
}

void sim_net_heal_all(struct sim *sim)
{
    sim_net_heal(sim, NULL, NULL);
}

static bool conn_between(const struct sim_conn *conn, const struct sim_node *a,
                         const struct sim_node *b)
{
    const struct sim_node *x = conn->ends[0].node, *y = conn->ends[1].node;
    return conn->accepted && !conn->ends[0].gone && !conn->ends[1].gone &&
           ((x == a && y == b) || (x == b && y == a));
}

void sim_net_reset(struct sim *sim, struct sim_node *a, struct sim_node *b)
{
    struct sim_conn *conn;
    DL_FOREACH(sim->conns, conn)
    {
        if (conn_between(conn, a, b)) {
            for (int side = 0; side < 2; side++) {
                conn_event(conn, side, sim->now_ns, SIM_EVENT_RESET,
                           fire_reset);
            }
        }
    }
}

unsigned sim_net_connections(const struct sim *sim, const struct sim_node *a,
                             const struct sim_node *b)
{
    struct sim_conn *conn;
    unsigned n = 0;
    DL_FOREACH(sim->conns, conn)
    {
        n += conn_between(conn, a, b);
    }
    return n;
}
