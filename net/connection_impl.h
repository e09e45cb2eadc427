/* Private to net/connection*.c. */
#ifndef NET_CONNECTION_IMPL_H
#define NET_CONNECTION_IMPL_H

#include "base/limits.h"
#include "net/connection.h"

enum slot_state {
    SLOT_WAITING,  /* read, not begun */
    SLOT_BEGUN,    /* with its handler */
    SLOT_ANSWERED, /* `out` is to be written */
    SLOT_SILENT,   /* nothing is to be written */
    SLOT_CLOSING,  /* when it is its turn the connection is closed: `why` */
};

/* What a connection waits for. */
enum want {
    WANT_READ,   /* memory to read to */
    WANT_ANSWER, /* memory of answers */
    WANT_TURN,   /* enough was answered in this turn of the loop */
};

/* One request from its frame to the end of its answer's writing. */
struct slot {
    struct request rq;
    struct connection *c;
    struct slot *prev, *next; /* in order of arrival */
    enum slot_state state;
    const char *why;
    uint8_t *frame;
    size_t charged; /* bytes counted for it */
    struct wire_writer out;
    struct iovec *iov; /* pieces of `out`, when they need several writes */
    int n_iov, n_sent;
};

struct connection {
    struct connections *all;
    struct connection *prev, *next;
    struct connection *starved_prev, *starved_next;
    struct env_stream *stream;
    const char *listener;
    char client_host[64];
    uint64_t active_ms; /* last byte in or out */

    /* the frame being read */
    uint8_t head[4];
    size_t n_head;
    uint8_t *frame; /* NULL: between frames */
    size_t frame_size, frame_have, frame_room;
    bool direct;          /* bytes are being read straight into it */
    uint64_t progress_ms; /* when LIMIT_FRAME_PROGRESS of it had come again */
    size_t progress_have;

    struct slot *slots;   /* in order, answers not yet handed to a write */
    struct slot *waiting; /* first of them not begun */
    struct slot *sent;    /* their answers are being written */
    unsigned n_slots;     /* in `slots` and `sent` */
    unsigned n_begun;     /* of these, with a handler */
    size_t out_bytes;     /* of answers not yet written */
    uint64_t taken_bytes; /* of answers, up to now */
    struct env_write write;
    bool writing;
    /* when LIMIT_FRAME_PROGRESS of the answers had been taken again, and how
     * much was left then */
    uint64_t output_ms;
    size_t unsent;
    struct env_deferred turn;
    bool turn_pending;

    bool paused; /* at a bound of its own: not read */
    bool muted;  /* its client has to wait: nothing of it is read or begun */
    uint64_t muted_until_ms;
    struct env_timer unmute;
    bool starved;    /* waits for memory: not read */
    uint64_t ticket; /* its number among those that waited */
    enum want want;  /* what it waits for */
    size_t want_bytes;
    bool doomed;  /* nothing more is read */
    bool no_more; /* nothing more is begun */
    bool ended;   /* the stream is being closed */
    bool ending;  /* ... right now */
    bool stream_gone;
};

struct connections {
    struct connections_options options;
    struct env *env;
    struct connection *list;
    unsigned n;
    size_t memory;
    size_t answers;             /* of it, answers not yet written */
    struct connection *starved; /* in order of waiting */
    unsigned n_short;           /* of them, for memory */
    uint64_t tickets;           /* given out */
    uint64_t woken_before;      /* tickets before it are being woken */
    uint64_t turn_ms;           /* the turn of the loop, and */
    size_t turn_bytes;          /* how much was answered in it */
    struct connection *holder;  /* may read its frame to the end beyond the
                                 * limit, so that somebody gets on */
    struct env_deferred wake;
    struct env_timer next_turn;
    struct env_timer tick;
    struct env_timer stop_timer;
    struct env_deferred finish;
    void (*closed)(void *arg);
    void *closed_arg;
    bool stopping;
    uint64_t log_from_ms;
    unsigned log_lines, log_left_out;
    uint8_t piece[LIMIT_READ_PIECE];
};

/* connection.c */
/* Closes now; requests with handlers are abandoned. Twice is fine. */
void connection_end(struct connection *c);
/* Lets go of the memory when nothing refers to it any more. */
void connection_maybe_free(struct connection *c);
/* Whether the first request of `c` that waits may be begun, as far as answers
 * go that others have to take, or that were made in this turn of the loop;
 * else `c` waits. */
bool connection_may_answer(struct connection *c);
/* So many bytes of an answer were made. */
void connections_answered(struct connections *all, size_t size);
void connections_return_answer(struct connections *all, size_t size);
/* Reads again when a bound of the connection's own held it up. */
void connection_maybe_resume(struct connection *c);
/* Reads and begins nothing for so long, but for the rest of the frame that it
 * is in the middle of, whose memory others may need. */
void connection_mute(struct connection *c, uint32_t ms);
void connections_return_memory(struct connections *all, size_t size);
/* One line about a client's mistake, with the request if it has to do with
 * one (else NULL); bounded in rate. */
void connection_complain(struct connection *c, const struct request *rq,
                         const char *why);

/* connection_out.c */
/* A whole frame of `size` bytes (owned from here on, `charged` for). */
void connection_add_request(struct connection *c, uint8_t *frame, size_t size,
                            size_t charged);
/* Closes when everything before it is answered. */
void connection_add_close(struct connection *c, const char *why);
void connection_begin_requests(struct connection *c);
void connection_turn_soon(struct connection *c);
void connection_turn(struct env_deferred *d);
/* Drops what nobody waits for any more; the stream is closed. */
void connection_drop_requests(struct connection *c);

#endif
