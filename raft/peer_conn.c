#include "raft/peer_conn.h"

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/limits.h"
#include "base/mem.h"

/* Copied bytes of a write. */
struct block {
    struct block *next;
    size_t used, size;
    uint8_t data[];
};

/* What one gathered write sends. */
struct batch {
    struct batch *next;
    struct env_write req;
    struct peer_conn *conn;
    struct block *blocks; /* newest first */
    uint64_t bytes;
    int n, capacity;
    struct iovec *iov;
    struct log_chunk **chunks; /* pinned by the piece, or NULL */
};

struct peer_conn {
    struct env *env;
    const struct peer_conn_ops *ops; /* NULL: the owner has let go */
    void *arg;
    struct env_stream *stream;
    struct env_deferred flush;
    bool open, admitted, stream_gone, flushing, reading;
    bool close_when_sent;

    struct batch *first, *last; /* waiting to be written */
    struct batch *writing;      /* in flight */
    struct block *spare;        /* one kept for the next turn */
    uint64_t queued, sent, received, heard_ms;

    uint8_t *in;
    size_t in_size;  /* of the memory */
    size_t in_begin; /* of the first frame that is not handed on */
    size_t in_end;   /* of what was read */
    size_t in_want;  /* bytes from in_begin on that the next step needs */
    size_t in_next_size;
};

/* ---- out ----------------------------------------------------------------- */

static void batch_free(struct peer_conn *conn, struct batch *batch)
{
    for (int i = 0; i < batch->n; i++)
        if (batch->chunks[i] != NULL)
            log_chunk_unref(batch->chunks[i]);
    while (batch->blocks != NULL) {
        struct block *block = batch->blocks;
        batch->blocks = block->next;
        if (conn->spare == NULL && block->size == LIMIT_PEER_BLOCK)
            conn->spare = block;
        else
            mem_free(block);
    }
    mem_free(batch->iov);
    mem_free(batch->chunks);
    mem_free(batch);
}

static struct batch *batch_with_room(struct peer_conn *conn, int pieces)
{
    struct batch *batch = conn->last;
    if (batch == NULL || batch->n + pieces > ENV_IOV_MAX) {
        batch = mem_zalloc(sizeof *batch);
        batch->conn = conn;
        if (conn->last != NULL)
            conn->last->next = batch;
        else
            conn->first = batch;
        conn->last = batch;
    }
    if (batch->n + pieces > batch->capacity) {
        int capacity = batch->capacity == 0 ? 16 : batch->capacity * 2;
        while (capacity < batch->n + pieces)
            capacity *= 2;
        size_t n = (size_t)capacity;
        batch->iov = mem_realloc(batch->iov, n * sizeof batch->iov[0]);
        batch->chunks = mem_realloc(batch->chunks, n * sizeof(void *));
        batch->capacity = capacity;
    }
    return batch;
}

/* Room for `size` bytes in one piece within the batch. */
static uint8_t *batch_copy_room(struct peer_conn *conn, struct batch *batch,
                                size_t size)
{
    struct block *block = batch->blocks;
    if (block == NULL || block->size - block->used < size) {
        if (conn->spare != NULL && size <= LIMIT_PEER_BLOCK) {
            block = conn->spare;
            conn->spare = NULL;
        } else {
            size_t n = size > LIMIT_PEER_BLOCK ? size : LIMIT_PEER_BLOCK;
            block = mem_alloc(sizeof *block + n);
            block->size = n;
        }
        block->used = 0;
        block->next = batch->blocks;
        batch->blocks = block;
    }
    uint8_t *p = block->data + block->used;
    block->used += size;
    struct iovec *last = batch->n > 0 ? &batch->iov[batch->n - 1] : NULL;
    if (last != NULL && (uint8_t *)last->iov_base + last->iov_len == p &&
        batch->chunks[batch->n - 1] == NULL) {
        last->iov_len += size;
    } else {
        batch->iov[batch->n] = (struct iovec){p, size};
        batch->chunks[batch->n] = NULL;
        batch->n++;
    }
    batch->bytes += size;
    return p;
}

static void batch_pin(struct batch *batch, const struct transport_piece *piece)
{
    /* writev does not change what it sends */
    union {
        const uint8_t *in;
        uint8_t *out;
    } data = {.in = piece->data};
    log_chunk_ref(piece->chunk);
    batch->iov[batch->n] = (struct iovec){data.out, piece->size};
    batch->chunks[batch->n] = piece->chunk;
    batch->n++;
    batch->bytes += piece->size;
}

static void conn_done(struct peer_conn *conn);
static void conn_lose(struct peer_conn *conn, bool refused, const char *why);

static void conn_written(struct env_write *req, enum err status)
{
    struct batch *batch = req->arg;
    struct peer_conn *conn = batch->conn;
    ASSERT(conn->writing == batch);
    conn->writing = NULL;
    conn->queued -= batch->bytes;
    if (status == ERR_OK)
        conn->sent += batch->bytes;
    batch_free(conn, batch);
    if (conn->ops != NULL && status != ERR_OK) {
        conn_lose(conn, false, "writing to the connection failed");
    } else if (conn->first != NULL && status == ERR_OK) {
        if (!conn->flushing) {
            conn->flushing = true;
            env_defer(conn->env, &conn->flush);
        }
    } else if (conn->close_when_sent) {
        env_stream_close(conn->stream);
    }
}

static void conn_flush(struct env_deferred *d)
{
    struct peer_conn *conn = d->arg;
    conn->flushing = false;
    if (conn->stream_gone) {
        conn_done(conn);
        return;
    }
    if (!conn->open || conn->writing != NULL || conn->first == NULL ||
        (conn->ops == NULL && !conn->close_when_sent))
        return;
    struct batch *batch = conn->first;
    conn->first = batch->next;
    if (conn->first == NULL)
        conn->last = NULL;
    conn->writing = batch;
    batch->req = (struct env_write){.cb = conn_written, .arg = batch};
    env_stream_write(conn->stream, &batch->req, batch->iov, batch->n);
}

static void conn_flush_later(struct peer_conn *conn)
{
    if (conn->flushing || conn->writing != NULL)
        return;
    conn->flushing = true;
    env_defer(conn->env, &conn->flush);
}

/* Below this a payload is copied: cheaper than a piece of its own. */
#define PIN_MIN 512

static bool is_pinned(const struct transport_piece *piece)
{
    return piece->chunk != NULL && piece->size >= PIN_MIN;
}

void peer_conn_send(struct peer_conn *conn, enum peer_kind kind, uint64_t id,
                    uint16_t code, const struct transport_piece *pieces,
                    int n_pieces)
{
    ASSERT(conn->ops != NULL);
    ASSERT(n_pieces < ENV_IOV_MAX / 2);
    size_t size = 0;
    uint32_t crc = 0;
    for (int i = 0; i < n_pieces; i++) {
        crc = crc32c(crc, pieces[i].data, pieces[i].size);
        size += pieces[i].size;
    }
    ASSERT(size <= PEER_BODY_MAX);
    struct batch *batch = batch_with_room(conn, n_pieces + 1);
    struct peer_frame frame = {kind, (uint32_t)size, id, code, crc};
    peer_frame_write(&frame, batch_copy_room(conn, batch, PEER_FRAME_HEADER));
    for (int i = 0; i < n_pieces; i++) {
        if (is_pinned(&pieces[i]))
            batch_pin(batch, &pieces[i]);
        else if (pieces[i].size > 0)
            memcpy(batch_copy_room(conn, batch, pieces[i].size), pieces[i].data,
                   pieces[i].size);
    }
    conn->queued += PEER_FRAME_HEADER + size;
    conn_flush_later(conn);
}

uint64_t peer_conn_queued(const struct peer_conn *conn)
{
    return conn->queued;
}

uint64_t peer_conn_bytes_sent(const struct peer_conn *conn)
{
    return conn->sent;
}

/* ---- end ----------------------------------------------------------------- */

static void drop_queue(struct peer_conn *conn)
{
    while (conn->first != NULL) {
        struct batch *batch = conn->first;
        conn->first = batch->next;
        conn->queued -= batch->bytes;
        batch_free(conn, batch);
    }
    conn->last = NULL;
}

/* Frees it when nothing refers to it any more. */
static void conn_done(struct peer_conn *conn)
{
    if (!conn->stream_gone || conn->flushing || conn->reading)
        return;
    ASSERT(conn->writing == NULL);
    drop_queue(conn);
    mem_free(conn->spare);
    mem_free(conn->in);
    mem_free(conn);
}

static void conn_closed(struct env_stream *stream)
{
    struct peer_conn *conn = env_stream_arg(stream);
    conn->stream_gone = true;
    conn_done(conn);
}

void peer_conn_close(struct peer_conn *conn, bool flush)
{
    ASSERT(conn->ops != NULL);
    conn->ops = NULL;
    if (flush && conn->open && conn->queued > 0) {
        conn->close_when_sent = true;
        return;
    }
    drop_queue(conn);
    env_stream_close(conn->stream);
}

/* Tells the owner and closes. */
static void conn_lose(struct peer_conn *conn, bool refused, const char *why)
{
    const struct peer_conn_ops *ops = conn->ops;
    conn->ops = NULL;
    drop_queue(conn);
    env_stream_close(conn->stream);
    if (ops != NULL)
        ops->lost(conn, conn->arg, refused, why);
}

/* ---- in ------------------------------------------------------------------ */

static void in_resize(struct peer_conn *conn, size_t size)
{
    size_t held = conn->in_end - conn->in_begin;
    uint8_t *in = mem_alloc(size);
    if (held > 0)
        memcpy(in, conn->in + conn->in_begin, held);
    mem_free(conn->in);
    conn->in = in;
    conn->in_size = size;
    conn->in_begin = 0;
    conn->in_end = held;
}

/* Where the next bytes go. Sizes were checked when the header was. */
static struct iovec conn_alloc(struct env_stream *stream)
{
    struct peer_conn *conn = env_stream_arg(stream);
    if (conn->ops == NULL && !conn->close_when_sent)
        return (struct iovec){NULL, 0};
    size_t held = conn->in_end - conn->in_begin;
    if (held == 0) {
        conn->in_begin = conn->in_end = 0;
        /* what one large frame needed is given back */
        if (conn->in_size != conn->in_next_size)
            in_resize(conn, conn->in_next_size);
    }
    size_t want =
        conn->in_want > conn->in_next_size ? conn->in_want : conn->in_next_size;
    if (conn->in_size < want)
        in_resize(conn, want);
    if (conn->in_begin + conn->in_want > conn->in_size ||
        conn->in_end == conn->in_size) {
        memmove(conn->in, conn->in + conn->in_begin, held);
        conn->in_begin = 0;
        conn->in_end = held;
    }
    size_t room = conn->in_size - conn->in_end;
    if (!conn->admitted)
        room = conn->in_want > held ? conn->in_want - held : 0;
    return (struct iovec){conn->in + conn->in_end, room};
}

/* Hands on one frame; false when there is no whole one (in_want says what is
 * missing) or the connection is gone. */
static bool conn_take_frame(struct peer_conn *conn)
{
    size_t held = conn->in_end - conn->in_begin;
    const uint8_t *p = conn->in + conn->in_begin;
    conn->in_want = PEER_FRAME_HEADER;
    if (held < PEER_FRAME_HEADER)
        return false;
    struct peer_frame frame;
    const char *why;
    if (peer_frame_read(p, &frame, &why) != ERR_OK) {
        conn_lose(conn, false, why);
        return false;
    }
    if (!conn->admitted && frame.size > PEER_HELLO_MAX) {
        conn_lose(conn, false, "a stranger's first frame is too large");
        return false;
    }
    conn->in_want += frame.size;
    if (held < conn->in_want)
        return false;
    if (!peer_frame_body_intact(&frame, p + PEER_FRAME_HEADER)) {
        conn_lose(conn, false, "a frame's body is damaged");
        return false;
    }
    conn->in_begin += conn->in_want;
    conn->in_want = PEER_FRAME_HEADER;
    conn->ops->frame(conn, conn->arg, &frame, p + PEER_FRAME_HEADER);
    return conn->ops != NULL;
}

static const char *read_sentence(enum err status)
{
    return status == ERR_CLOSED ? "the peer closed the connection"
                                : "the connection was reset";
}

static void conn_read(struct env_stream *stream, size_t size, enum err status)
{
    struct peer_conn *conn = env_stream_arg(stream);
    if (status != ERR_OK) {
        conn_lose(conn, false, read_sentence(status));
        return;
    }
    if (conn->ops == NULL) /* only what is queued is still written */
        return;
    bool full = conn->in_end + size == conn->in_size;
    conn->in_end += size;
    ASSERT(conn->in_end <= conn->in_size);
    conn->received += size;
    conn->heard_ms = env_now_ms(conn->env);
    /* a busy connection gets a larger buffer: fewer reads */
    if (full && conn->admitted && conn->in_next_size < LIMIT_PEER_BUFFER)
        conn->in_next_size *= 2;
    conn->reading = true;
    while (conn->ops != NULL && conn_take_frame(conn))
        ;
    conn->reading = false;
}

uint64_t peer_conn_bytes_received(const struct peer_conn *conn)
{
    return conn->received;
}

uint64_t peer_conn_heard_ms(const struct peer_conn *conn)
{
    return conn->heard_ms;
}

/* ---- begin --------------------------------------------------------------- */

static void conn_connected(struct env_stream *stream, enum err status)
{
    struct peer_conn *conn = env_stream_arg(stream);
    if (conn->ops == NULL)
        return;
    if (status != ERR_OK) {
        conn_lose(conn, true, "the connection was refused");
        return;
    }
    conn->open = true;
    conn->heard_ms = env_now_ms(conn->env);
    if (conn->first != NULL)
        conn_flush_later(conn);
    conn->ops->opened(conn, conn->arg);
}

static const struct env_stream_ops stream_ops = {
    .connected = conn_connected,
    .alloc = conn_alloc,
    .read = conn_read,
    .closed = conn_closed,
};

static struct peer_conn *conn_new(struct env *env,
                                  const struct peer_conn_ops *ops, void *arg)
{
    struct peer_conn *conn = mem_zalloc(sizeof *conn);
    conn->env = env;
    conn->ops = ops;
    conn->arg = arg;
    conn->flush = (struct env_deferred){.cb = conn_flush, .arg = conn};
    conn->heard_ms = env_now_ms(env);
    conn->in_want = PEER_FRAME_HEADER;
    conn->in_next_size = LIMIT_PEER_BUFFER_FIRST;
    return conn;
}

struct peer_conn *peer_conn_dial(struct env *env, const char *address,
                                 const struct peer_conn_ops *ops, void *arg)
{
    struct peer_conn *conn = conn_new(env, ops, arg);
    conn->admitted = true;
    conn->stream = env_stream_connect(env, address, &stream_ops, conn);
    return conn;
}

struct peer_conn *peer_conn_accept(struct env *env, struct env_stream *stream,
                                   const struct peer_conn_ops *ops, void *arg)
{
    struct peer_conn *conn = conn_new(env, ops, arg);
    conn->open = true;
    conn->stream = stream;
    env_stream_start(stream, &stream_ops, conn);
    return conn;
}

void peer_conn_admit(struct peer_conn *conn)
{
    conn->admitted = true;
}

struct env_stream *peer_conn_detach(struct peer_conn *conn)
{
    ASSERT(conn->reading && !conn->admitted);
    ASSERT(conn->queued == 0 && conn->in_begin == conn->in_end);
    conn->ops = NULL; /* freed when the stream is closed here */
    return conn->stream;
}
