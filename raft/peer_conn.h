/* One connection between two brokers: frames in, frames out. Who dialled, what
 * a frame means and what a loss is followed by is the transport's business.
 *
 * Out: what a loop turn queues goes out as one gathered write at its end, or
 * together with the next when a write is still in flight. Copied bytes lie in
 * blocks, large payloads stay where they are with their chunk pinned until the
 * write is done.
 * In: one buffer, grown to the frame that is arriving; frames are handed on in
 * place. A damaged frame ends the connection with a sentence. */
#ifndef RAFT_PEER_CONN_H
#define RAFT_PEER_CONN_H

#include "raft/peer_frame.h"

struct peer_conn;

struct peer_conn_ops {
    /* Dialled connections only: it is open. */
    void (*opened)(struct peer_conn *conn, void *arg);
    /* A whole and intact frame; `body` is valid until this returns. */
    void (*frame)(struct peer_conn *conn, void *arg,
                  const struct peer_frame *frame, const uint8_t *body);
    /* The connection failed, ended or was damaged; no callback follows, and
     * `conn` may be asked for its numbers until this returns, then must not be
     * used any more. `refused`: it never was open. */
    void (*lost)(struct peer_conn *conn, void *arg, bool refused,
                 const char *why);
};

struct peer_conn *peer_conn_dial(struct env *env, const char *address,
                                 const struct peer_conn_ops *ops, void *arg);
/* Takes over an accepted stream. Until peer_conn_admit it reads nothing beyond
 * the first frame, which may be no larger than a hello: a stranger gets no
 * memory and the stream can be given away whole. */
struct peer_conn *peer_conn_accept(struct env *env, struct env_stream *stream,
                                   const struct peer_conn_ops *ops, void *arg);
void peer_conn_admit(struct peer_conn *conn);
/* Takes the stream out, to be moved to another shard; from within `frame`,
 * before peer_conn_admit. The connection is gone. */
struct env_stream *peer_conn_detach(struct peer_conn *conn);

/* Queues a frame whose body is the pieces one after the other (the header's
 * size and CRC are filled in here). Pieces with a chunk are not copied. */
void peer_conn_send(struct peer_conn *conn, enum peer_kind kind, uint64_t id,
                    uint16_t code, const struct transport_piece *pieces,
                    int n_pieces);
/* Bytes queued or in flight. */
uint64_t peer_conn_queued(const struct peer_conn *conn);
uint64_t peer_conn_bytes_sent(const struct peer_conn *conn);
uint64_t peer_conn_bytes_received(const struct peer_conn *conn);
/* When bytes last arrived (env_now_ms); the time it was made before that. */
uint64_t peer_conn_heard_ms(const struct peer_conn *conn);

/* Closes; no callback follows, `conn` must not be used any more. What is
 * queued is dropped, or with `flush` written first (as long as that takes, but
 * no longer than the peer keeps the connection). */
void peer_conn_close(struct peer_conn *conn, bool flush);

#endif
