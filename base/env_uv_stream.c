/* Streams of the libuv environment.
 *
 * Happy path of a write: what the kernel takes at once is written at once, the
 * rest is libuv's; either way the request goes to the stream's list of ended
 * writes, which the end of the turn calls back in order. Failure modes: a name
 * that does not resolve and a refused connection are told by `connected`; a
 * reset is told by `read` and by every write that was waiting. Closing cancels
 * what waits, calls it back, then calls `closed` and frees the stream. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "base/assert.h"
#include "base/env_uv_impl.h"
#include "base/mem.h"

/* What is not yet written of a request; its pieces are copied here. */
struct tcp_write {
    uv_write_t req;
    struct env_write *user;
    struct tcp_stream *stream;
    struct tcp_write *next;
    unsigned int n;
    uv_buf_t bufs[];
};

struct tcp_stream {
    struct env_stream base;
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_getaddrinfo_t resolve;
    struct env_deferred turn;                 /* ends of writes, failure, end */
    struct env_write *ended, **ended_end;     /* writes to call back */
    struct tcp_write *waiting, **waiting_end; /* until connected */
    enum err failure;                         /* of connecting, to be told */
    bool connected;
    bool resolving;
    bool reading; /* libuv reads */
    bool read_ended;
    bool closing;
    bool handle_closed;
    struct tcp_stream *prev, *next;
};

struct tcp_listener {
    struct env_listener base;
    uv_tcp_t tcp;
    env_accept_cb accept;
    void *arg;
    struct tcp_listener *prev, *next;
};

static struct tcp_stream *tcp_stream_of(struct env_stream *stream)
{
    return (struct tcp_stream *)stream;
}

static struct uv_env *env_of(const struct tcp_stream *s)
{
    return uv_env_of(s->base.env);
}

/* ---- the ends of writes -------------------------------------------------- */
/* env_write's private words. */
static struct env_write **write_next(struct env_write *req)
{
    return (struct env_write **)&req->impl[0];
}

static void write_ended(struct tcp_stream *s, struct env_write *req,
                        enum err status)
{
    if (env_of(s)->dying) {
        return; /* nobody waits any more */
    }
    *write_next(req) = NULL;
    req->impl[1] = (void *)(uintptr_t)status;
    *s->ended_end = req;
    s->ended_end = write_next(req);
    env_defer(s->base.env, &s->turn);
}

static void call_ended_writes(struct tcp_stream *s)
{
    while (s->ended != NULL) {
        struct env_write *req = s->ended;
        s->ended = *write_next(req);
        if (s->ended == NULL) {
            s->ended_end = &s->ended;
        }
        req->cb(req, (enum err)(uintptr_t)req->impl[1]);
    }
}

static void stream_destroy(struct tcp_stream *s)
{
    DL_DELETE(env_of(s)->streams, s);
    mem_free(s);
}

/* At the end of a turn in which something ended. */
static void stream_turn(struct env_deferred *d)
{
    struct tcp_stream *s = d->arg;
    enum err failure = s->failure;
    if (failure != ERR_OK) {
        s->failure = ERR_OK;
        if (!s->closing) {
            s->base.ops->connected(&s->base, failure);
            uv_stream_close(&s->base);
        }
    }
    call_ended_writes(s);
    if (!s->handle_closed || s->resolving || s->turn.queued) {
        return;
    }
    if (s->base.ops != NULL) {
        s->base.ops->closed(&s->base);
    }
    stream_destroy(s);
}

static struct tcp_stream *stream_new(struct uv_env *env)
{
    struct tcp_stream *s = mem_zalloc(sizeof *s);
    s->base.env = &env->base;
    s->turn.cb = stream_turn;
    s->turn.arg = s;
    s->ended_end = &s->ended;
    s->waiting_end = &s->waiting;
    int status = uv_tcp_init(&env->loop, &s->tcp);
    ASSERT(status == 0); /* opens no socket yet */
    s->tcp.data = s;
    DL_APPEND(env->streams, s);
    return s;
}

/* ---- addresses ----------------------------------------------------------- */
static void address_format(const struct sockaddr *sa, char text[LIMIT_ADDRESS])
{
    char host[64] = "";
    if (sa->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)sa;
        uv_ip6_name(in6, host, sizeof host);
        snprintf(text, LIMIT_ADDRESS, "[%s]:%u", host, ntohs(in6->sin6_port));
    } else if (sa->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)sa;
        uv_ip4_name(in, host, sizeof host);
        snprintf(text, LIMIT_ADDRESS, "%s:%u", host, ntohs(in->sin_port));
    } else {
        text[0] = '\0';
    }
}

static void peer_learn(struct tcp_stream *s)
{
    struct sockaddr_storage sa = {0};
    int size = sizeof sa;
    if (uv_tcp_getpeername(&s->tcp, (struct sockaddr *)&sa, &size) == 0) {
        address_format((struct sockaddr *)&sa, s->base.peer);
    }
}

static bool address_literal(const char *host, uint16_t port,
                            struct sockaddr_storage *sa)
{
    memset(sa, 0, sizeof *sa);
    return uv_ip4_addr(host, port, (struct sockaddr_in *)sa) == 0 ||
           uv_ip6_addr(host, port, (struct sockaddr_in6 *)sa) == 0;
}

/* The first IPv4 address of the list, or its first: servers that listen on
 * "localhost" are bound to 127.0.0.1. */
static const struct addrinfo *address_choose(const struct addrinfo *list)
{
    for (const struct addrinfo *a = list; a != NULL; a = a->ai_next) {
        if (a->ai_family == AF_INET) {
            return a;
        }
    }
    return list;
}

/* ---- connecting ---------------------------------------------------------- */
static void connect_failed(struct tcp_stream *s, enum err failure)
{
    s->failure = failure;
    env_defer(s->base.env, &s->turn);
}

static void stream_write_now(struct tcp_stream *s, struct env_write *req,
                             uv_buf_t *bufs, unsigned int n);

static void write_waiting(struct tcp_stream *s)
{
    while (s->waiting != NULL && !s->closing) {
        struct tcp_write *w = s->waiting;
        s->waiting = w->next;
        if (s->waiting == NULL) {
            s->waiting_end = &s->waiting;
        }
        stream_write_now(s, w->user, w->bufs, w->n);
        mem_free(w);
    }
}

static void cancel_waiting(struct tcp_stream *s)
{
    while (s->waiting != NULL) {
        struct tcp_write *w = s->waiting;
        s->waiting = w->next;
        write_ended(s, w->user, ERR_CANCELED);
        mem_free(w);
    }
    s->waiting_end = &s->waiting;
}

static void on_connect(uv_connect_t *req, int status)
{
    struct tcp_stream *s = req->data;
    if (s->closing) {
        return;
    }
    if (status != 0) {
        connect_failed(s, err_from_uv(status));
        return;
    }
    uv_tcp_nodelay(&s->tcp, 1);
    peer_learn(s);
    s->connected = true;
    s->base.ops->connected(&s->base, ERR_OK);
    write_waiting(s);
    if (!s->closing) {
        uv_stream_start(&s->base);
    }
}

static void connect_to(struct tcp_stream *s, const struct sockaddr *sa)
{
    s->connect.data = s;
    int status = uv_tcp_connect(&s->connect, &s->tcp, sa, on_connect);
    if (status != 0) {
        connect_failed(s, err_from_uv(status));
    }
}

/* After one of the two things that libuv held: the handle, the look-up. */
static void released(struct tcp_stream *s)
{
    if (!env_of(s)->dying) {
        env_defer(s->base.env, &s->turn);
    } else if (s->handle_closed && !s->resolving) {
        stream_destroy(s);
    }
}

static void on_resolved(uv_getaddrinfo_t *req, int status,
                        struct addrinfo *list)
{
    struct tcp_stream *s = req->data;
    s->resolving = false;
    if (s->closing) {
        released(s);
    } else if (status != 0 || list == NULL) {
        connect_failed(s, ERR_UNREACHABLE);
    } else {
        connect_to(s, address_choose(list)->ai_addr);
    }
    uv_freeaddrinfo(list);
}

static void resolve(struct tcp_stream *s, const char *host, uint16_t port)
{
    char service[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICSERV};
    snprintf(service, sizeof service, "%u", port);
    s->resolve.data = s;
    int status = uv_getaddrinfo(&env_of(s)->loop, &s->resolve, on_resolved,
                                host, service, &hints);
    if (status != 0) {
        connect_failed(s, ERR_UNREACHABLE);
    } else {
        s->resolving = true;
    }
}

struct env_stream *uv_stream_connect(struct env *env, const char *address,
                                     const struct env_stream_ops *ops,
                                     void *arg)
{
    struct tcp_stream *s = stream_new(uv_env_of(env));
    struct sockaddr_storage sa;
    char host[LIMIT_ADDRESS];
    uint16_t port;
    s->base.ops = ops;
    s->base.arg = arg;
    snprintf(s->base.peer, sizeof s->base.peer, "%s", address);
    if (!env_address_split(address, host, &port) || host[0] == '\0') {
        connect_failed(s, ERR_INVALID);
    } else if (address_literal(host, port, &sa)) {
        connect_to(s, (struct sockaddr *)&sa);
    } else {
        resolve(s, host, port);
    }
    return &s->base;
}

/* ---- reading ------------------------------------------------------------- */
static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct tcp_stream *s = handle->data;
    struct iovec room = s->base.ops->alloc(&s->base);
    (void)suggested;
    buf->base = room.iov_base;
    buf->len = room.iov_len;
}

static void reading_stop(struct tcp_stream *s)
{
    uv_read_stop((uv_stream_t *)&s->tcp);
    s->reading = false;
}

static void on_read(uv_stream_t *handle, ssize_t n, const uv_buf_t *buf)
{
    struct tcp_stream *s = handle->data;
    (void)buf;
    if (s->closing || n == 0) {
        return;
    }
    if (n > 0) {
        s->base.ops->read(&s->base, (size_t)n, ERR_OK);
        return;
    }
    reading_stop(s);
    if (n != UV_ENOBUFS) { /* which is alloc's pause */
        s->read_ended = true;
        s->base.ops->read(&s->base, 0, n == UV_EOF ? ERR_CLOSED : ERR_IO);
    }
}

void uv_stream_start(struct env_stream *base)
{
    struct tcp_stream *s = tcp_stream_of(base);
    if (!s->connected || s->reading || s->read_ended || s->closing) {
        return;
    }
    s->reading = true;
    int status = uv_read_start((uv_stream_t *)&s->tcp, on_alloc, on_read);
    ASSERT(status == 0);
}

void uv_stream_resume(struct env_stream *base)
{
    if (base->ops != NULL) {
        uv_stream_start(base);
    }
}

/* ---- writing ------------------------------------------------------------- */
static void on_write(uv_write_t *req, int status)
{
    struct tcp_write *w = req->data;
    write_ended(w->stream, w->user, err_from_uv(status));
    mem_free(w);
}

static struct tcp_write *write_copy(struct tcp_stream *s,
                                    struct env_write *user,
                                    const uv_buf_t *bufs, unsigned int n)
{
    struct tcp_write *w = mem_alloc(sizeof *w + n * sizeof w->bufs[0]);
    w->req.data = w;
    w->user = user;
    w->stream = s;
    w->next = NULL;
    w->n = n;
    memcpy(w->bufs, bufs, n * sizeof bufs[0]);
    return w;
}

/* Drops the first `size` bytes of the pieces; gives the first that is left. */
static unsigned int bufs_skip(uv_buf_t *bufs, unsigned int n, size_t size)
{
    unsigned int i = 0;
    while (i < n && size >= bufs[i].len) {
        size -= bufs[i].len;
        i++;
    }
    if (i < n) {
        bufs[i].base += size;
        bufs[i].len -= size;
    }
    return i;
}

static void stream_write_now(struct tcp_stream *s, struct env_write *req,
                             uv_buf_t *bufs, unsigned int n)
{
    int written = uv_try_write((uv_stream_t *)&s->tcp, bufs, n);
    if (written < 0 && written != UV_EAGAIN) {
        write_ended(s, req, err_from_uv(written));
        return;
    }
    unsigned int at = bufs_skip(bufs, n, written < 0 ? 0 : (size_t)written);
    if (at == n) {
        write_ended(s, req, ERR_OK);
        return;
    }
    struct tcp_write *w = write_copy(s, req, bufs + at, 0);
    int status =
        uv_write(&w->req, (uv_stream_t *)&s->tcp, bufs + at, n - at, on_write);
    if (status != 0) {
        mem_free(w);
        write_ended(s, req, err_from_uv(status));
    }
}

size_t uv_stream_unsent(const struct env_stream *base)
{
    const struct tcp_stream *s = (const struct tcp_stream *)base;
    return uv_stream_get_write_queue_size((const uv_stream_t *)&s->tcp);
}

void uv_stream_write(struct env_stream *base, struct env_write *req,
                     const struct iovec *iov, int n_iov)
{
    struct tcp_stream *s = tcp_stream_of(base);
    uv_buf_t bufs[ENV_IOV_MAX];
    unsigned int n = 0;
    for (int i = 0; i < n_iov; i++) {
        if (iov[i].iov_len > 0) {
            bufs[n++] = uv_buf_init(iov[i].iov_base, 0);
            bufs[n - 1].len = iov[i].iov_len;
        }
    }
    if (s->closing || s->failure != ERR_OK) {
        write_ended(s, req, ERR_CANCELED);
    } else if (n == 0) {
        write_ended(s, req, ERR_OK);
    } else if (s->connected) {
        stream_write_now(s, req, bufs, n);
    } else {
        struct tcp_write *w = write_copy(s, req, bufs, n);
        *s->waiting_end = w;
        s->waiting_end = &w->next;
    }
}

/* ---- closing ------------------------------------------------------------- */
static void on_stream_closed(uv_handle_t *handle)
{
    struct tcp_stream *s = handle->data;
    s->handle_closed = true;
    released(s);
}

void uv_stream_close(struct env_stream *base)
{
    struct tcp_stream *s = tcp_stream_of(base);
    if (s->closing) {
        return;
    }
    s->closing = true;
    s->reading = false;
    cancel_waiting(s);
    if (s->resolving) {
        uv_cancel((uv_req_t *)&s->resolve); /* its callback comes anyway */
    }
    uv_close((uv_handle_t *)&s->tcp, on_stream_closed);
}

/* ---- listening ----------------------------------------------------------- */
static void on_connection(uv_stream_t *server, int status)
{
    struct tcp_listener *l = server->data;
    if (status != 0) {
        return; /* the kernel gave none; libuv asks again */
    }
    struct tcp_stream *s = stream_new(uv_env_of(l->base.env));
    if (uv_accept(server, (uv_stream_t *)&s->tcp) != 0) {
        uv_stream_close(&s->base);
        return;
    }
    uv_tcp_nodelay(&s->tcp, 1);
    peer_learn(s);
    s->connected = true;
    l->accept(l->arg, &s->base);
}

static void on_listener_closed(uv_handle_t *handle)
{
    struct tcp_listener *l = handle->data;
    mem_free(l);
}

void uv_listener_close(struct env_listener *base)
{
    struct tcp_listener *l = (struct tcp_listener *)base;
    DL_DELETE(uv_env_of(base->env)->listeners, l);
    uv_close((uv_handle_t *)&l->tcp, on_listener_closed);
}

/* Finds the address to bind; a name is looked up here and now, at start. */
static enum err listen_address(struct uv_env *env, const char *address,
                               struct sockaddr_storage *sa)
{
    char host[LIMIT_ADDRESS];
    char service[8];
    uint16_t port;
    uv_getaddrinfo_t req;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    if (!env_address_split(address, host, &port)) {
        return ERR_INVALID;
    }
    if (address_literal(host[0] == '\0' ? "0.0.0.0" : host, port, sa)) {
        return ERR_OK;
    }
    snprintf(service, sizeof service, "%u", port);
    if (uv_getaddrinfo(&env->loop, &req, NULL, host, service, &hints) != 0) {
        return ERR_UNREACHABLE;
    }
    const struct addrinfo *found = address_choose(req.addrinfo);
    memcpy(sa, found->ai_addr, found->ai_addrlen);
    uv_freeaddrinfo(req.addrinfo);
    return ERR_OK;
}

enum err uv_listen_on(struct env *base, const char *address,
                      env_accept_cb accept, void *arg,
                      struct env_listener **out)
{
    struct uv_env *env = uv_env_of(base);
    struct sockaddr_storage sa;
    int size = sizeof sa;
    enum err e = listen_address(env, address, &sa);
    if (e != ERR_OK) {
        return e;
    }
    struct tcp_listener *l = mem_zalloc(sizeof *l);
    l->base.env = base;
    l->accept = accept;
    l->arg = arg;
    uv_tcp_init(&env->loop, &l->tcp);
    l->tcp.data = l;
    DL_APPEND(env->listeners, l);
    /* libuv binds with SO_REUSEADDR. */
    int status = uv_tcp_bind(&l->tcp, (struct sockaddr *)&sa, 0);
    if (status == 0) {
        status = uv_listen((uv_stream_t *)&l->tcp, LIMIT_LISTEN_BACKLOG,
                           on_connection);
    }
    if (status == 0) {
        status = uv_tcp_getsockname(&l->tcp, (struct sockaddr *)&sa, &size);
    }
    if (status != 0) {
        uv_listener_close(&l->base);
        return err_from_uv(status);
    }
    address_format((struct sockaddr *)&sa, l->base.address);
    *out = &l->base;
    return ERR_OK;
}

/* ---- moving to another shard --------------------------------------------- */
struct stream_arrival {
    struct env_post post;
    struct env *to;
    int fd;
    env_accept_cb accept;
    void *arg;
};

static void on_arrival(struct env_post *post)
{
    struct stream_arrival *arrival = post->arg;
    struct tcp_stream *s = stream_new(uv_env_of(arrival->to));
    if (uv_tcp_open(&s->tcp, arrival->fd) != 0) {
        close(arrival->fd);
        uv_stream_close(&s->base);
    } else {
        peer_learn(s);
        s->connected = true;
        arrival->accept(arrival->arg, &s->base);
    }
    mem_free(arrival);
}

void uv_stream_move(struct env_stream *stream, struct env *to,
                    env_accept_cb accept, void *arg)
{
    struct tcp_stream *s = tcp_stream_of(stream);
    int fd = -1;
    /* A loop never gives up a descriptor, so the other gets a copy of it. */
    if (uv_fileno((uv_handle_t *)&s->tcp, &fd) == 0) {
        fd = dup(fd);
    }
    if (fd >= 0) {
        struct stream_arrival *arrival = mem_zalloc(sizeof *arrival);
        arrival->post.cb = on_arrival;
        arrival->post.arg = arrival;
        arrival->to = to;
        arrival->fd = fd;
        arrival->accept = accept;
        arrival->arg = arg;
        env_post(to, &arrival->post);
    } /* else no descriptor was left: the peer sees it closed */
    uv_stream_close(stream);
}

void uv_streams_end(struct uv_env *env)
{
    struct tcp_stream *s, *next;
    while (env->listeners != NULL) {
        uv_listener_close(&env->listeners->base);
    }
    DL_FOREACH_SAFE(env->streams, s, next)
    {
        s->base.ops = NULL;
        if (s->handle_closed && !s->resolving) {
            stream_destroy(s);
        } else {
            uv_stream_close(&s->base);
        }
    }
}
