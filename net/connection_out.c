/* Requests of a connection in their order: begun, answered, written. */
#include <utlist.h>

#include "base/assert.h"
#include "base/mem.h"
#include "net/connection_impl.h"
#include "net/frame.h"
#include "schema/apis.h"

static void slot_deliver(struct request *rq, struct wire_writer *frame,
                         const char *why);

static struct slot *slot_new(struct connection *c)
{
    struct slot *s = mem_zalloc(sizeof *s);
    s->c = c;
    s->charged = sizeof *s;
    c->all->memory += s->charged;
    arena_init(&s->rq.arena, LIMIT_REQUEST_DECODED);
    s->rq.shard = c->all->options.shard;
    s->rq.client_host = c->client_host;
    s->rq.listener = c->listener;
    s->rq.deliver = slot_deliver;
    s->rq.origin = s;
    return s;
}

/* The slot is in no list any more. */
static void slot_free(struct slot *s)
{
    struct connection *c = s->c;
    if (s->rq.release != NULL) {
        s->rq.release(&s->rq);
    }
    c->out_bytes -= s->out.size;
    connections_return_answer(c->all, s->out.cap_own);
    c->n_slots--;
    wire_writer_free(&s->out);
    mem_free(s->iov);
    arena_free(&s->rq.arena);
    mem_free(s->frame);
    connections_return_memory(c->all, s->charged);
    mem_free(s);
}

static void slot_append(struct slot *s)
{
    struct connection *c = s->c;
    DL_APPEND(c->slots, s);
    c->n_slots++;
    if (c->waiting == NULL && s->state == SLOT_WAITING) {
        c->waiting = s;
    }
}

void connection_add_close(struct connection *c, const char *why)
{
    struct slot *s = slot_new(c);
    s->state = SLOT_CLOSING;
    s->why = why;
    c->doomed = true;
    slot_append(s);
    connection_turn_soon(c);
}

void connection_add_request(struct connection *c, uint8_t *frame, size_t size,
                            size_t charged)
{
    struct slot *s = slot_new(c);
    s->frame = frame;
    s->charged += charged;
    if (frame_parse(&s->rq, frame, size) != ERR_OK) {
        s->state = SLOT_CLOSING;
        s->why = "a malformed request header";
        c->doomed = true;
        connection_turn_soon(c);
    }
    slot_append(s);
}

/* ---- beginning ---------------------------------------------------------- */
static bool may_answer_with_much(const struct request *rq)
{
    return rq->api_key == API_FETCH || rq->api_key == API_SHARE_FETCH;
}

static bool may_begin(const struct connection *c, const struct slot *s)
{
    if (c->no_more || c->muted || c->n_begun >= LIMIT_REQUESTS_IN_FLIGHT ||
        c->out_bytes >= LIMIT_CONNECTION_OUTPUT ||
        (c->n_begun > 0 && c->all->options.is_costly != NULL &&
         c->all->options.is_costly(&s->rq))) {
        return false;
    }
    return !may_answer_with_much(&s->rq) || (s == c->slots && !c->writing);
}

void connection_begin_requests(struct connection *c)
{
    struct connections *all = c->all;
    while (c->waiting != NULL && may_begin(c, c->waiting)) {
        struct slot *s = c->waiting;
        /* nobody can say how long an answer will be */
        if (!connection_may_answer(c)) {
            return;
        }
        /* only such that wait for their turn can follow one that waits */
        c->waiting =
            s->next != NULL && s->next->state == SLOT_WAITING ? s->next : NULL;
        s->state = SLOT_BEGUN;
        c->n_begun++;
        if (frame_check(&s->rq, all->options.has_handler)) {
            all->options.dispatch(&s->rq);
        }
        /* answered or not, it is freed at the end of the turn at the
         * earliest; what it decoded counts as its memory */
        s->charged += s->rq.arena.used;
        all->memory += s->rq.arena.used;
    }
}

/* ---- answering ---------------------------------------------------------- */
static void slot_deliver(struct request *rq, struct wire_writer *frame,
                         const char *why)
{
    struct slot *s = rq->origin;
    struct connection *c = s->c;
    ASSERT(s->state == SLOT_BEGUN);
    c->n_begun--;
    if (rq->throttle_ms > 0) {
        connection_mute(c, rq->throttle_ms);
    }
    if (why != NULL) {
        s->state = SLOT_CLOSING;
        s->why = why;
        c->doomed = true;
        c->no_more = true;
    } else if (frame == NULL) {
        s->state = SLOT_SILENT;
    } else {
        s->state = SLOT_ANSWERED;
        s->out = *frame;
        *frame = (struct wire_writer){0};
        c->out_bytes += s->out.size;
        s->charged += s->out.cap_own;
        c->all->memory += s->out.cap_own;
        connections_answered(c->all, s->out.cap_own);
    }
    if (c->ended) {
        if (!c->ending) {
            connection_turn_soon(c); /* dropped there */
        }
    } else {
        connection_turn_soon(c);
    }
}

void connection_drop_requests(struct connection *c)
{
    ASSERT(c->ended);
    struct slot *s, *tmp;
    DL_FOREACH_SAFE(c->slots, s, tmp)
    {
        if (s->state == SLOT_BEGUN) {
            continue;
        }
        DL_DELETE(c->slots, s);
        if (c->writing && s->n_sent > 0) {
            DL_APPEND(c->sent, s); /* some of it is being written */
        } else {
            slot_free(s);
        }
    }
    c->waiting = NULL;
}

/* ---- writing ------------------------------------------------------------ */
/* An answer without references needs nothing any more of what it was made
 * from: until it is taken it holds its own bytes alone. */
static void slot_shrink(struct slot *s)
{
    if (s->state != SLOT_ANSWERED || s->rq.release != NULL ||
        s->out.n_refs > 0 || s->frame == NULL) {
        return;
    }
    size_t keeps = sizeof *s + s->out.cap_own;
    arena_free(&s->rq.arena);
    mem_free(s->frame);
    s->frame = NULL;
    s->rq.body = NULL;
    s->rq.client_id = (struct wire_str){0};
    connections_return_memory(s->c->all, s->charged - keeps);
    s->charged = keeps;
}

static void free_sent(struct connection *c)
{
    struct slot *s, *tmp;
    DL_FOREACH_SAFE(c->sent, s, tmp)
    {
        DL_DELETE(c->sent, s);
        c->taken_bytes += s->out.size;
        slot_free(s);
    }
}

static void on_written(struct env_write *req, enum err status)
{
    struct connection *c = req->arg;
    c->writing = false;
    c->output_ms = env_now_ms(c->all->env);
    free_sent(c);
    if (c->ended) {
        connection_turn_soon(c);
    } else if (status != ERR_OK) {
        connection_end(c);
    } else {
        c->active_ms = env_now_ms(c->all->env);
        connection_turn_soon(c);
    }
}

/* Puts as many pieces of the answer as fit into `iov`; true when all did, then
 * or in earlier writes. */
static bool gather(struct slot *s, struct iovec *iov, int *n)
{
    int room = ENV_IOV_MAX - *n;
    int most = 2 * s->out.n_refs + 1;
    if (s->iov == NULL && most <= room) {
        *n += wire_writer_iov(&s->out, iov + *n, room);
        return true;
    }
    if (s->iov == NULL) {
        if (*n > 0) {
            return false; /* it gets a write of its own */
        }
        s->iov = mem_alloc((size_t)most * sizeof *s->iov);
        s->n_iov = wire_writer_iov(&s->out, s->iov, most);
    }
    while (s->n_sent < s->n_iov && *n < ENV_IOV_MAX) {
        iov[(*n)++] = s->iov[s->n_sent++];
    }
    return s->n_sent == s->n_iov;
}

/* Gathers answers from the front of the queue; gives the number of pieces. */
static int gather_answers(struct connection *c, struct iovec *iov)
{
    int n = 0;
    while (c->slots != NULL && n < ENV_IOV_MAX) {
        struct slot *s = c->slots;
        if (s->state == SLOT_SILENT) {
            DL_DELETE(c->slots, s);
            slot_free(s);
            continue;
        }
        if (s->state != SLOT_ANSWERED || !gather(s, iov, &n)) {
            break;
        }
        DL_DELETE(c->slots, s);
        DL_APPEND(c->sent, s);
    }
    return n;
}

/* While the broker stops: nothing is left that was begun. */
static bool is_done(const struct connection *c)
{
    return c->all->stopping &&
           (c->slots == NULL || c->slots->state == SLOT_WAITING);
}

static void flush(struct connection *c)
{
    struct iovec iov[ENV_IOV_MAX];
    int n = gather_answers(c, iov);
    if (n > 0) {
        c->writing = true;
        c->write = (struct env_write){.cb = on_written, .arg = c};
        env_stream_write(c->stream, &c->write, iov, n);
    } else if (c->slots != NULL && c->slots->state == SLOT_CLOSING) {
        connection_complain(c, &c->slots->rq, c->slots->why);
        connection_end(c);
    } else if (is_done(c)) {
        connection_end(c);
    }
}

void connection_turn_soon(struct connection *c)
{
    c->turn_pending = true;
    env_defer(c->all->env, &c->turn);
}

/* Once at the end of a turn in which something was answered or written. */
void connection_turn(struct env_deferred *d)
{
    struct connection *c = d->arg;
    c->turn_pending = false;
    if (c->ended) {
        connection_drop_requests(c);
        connection_maybe_free(c);
        return;
    }
    if (!c->writing) {
        flush(c);
    }
    struct slot *s;
    DL_FOREACH(c->slots, s)
    {
        slot_shrink(s);
    }
    DL_FOREACH(c->sent, s)
    {
        slot_shrink(s);
    }
    if (!c->ended) {
        connection_begin_requests(c);
        connection_maybe_resume(c);
    }
}
