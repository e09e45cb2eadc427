/* The one list of errors inside Flotilla. libuv (< 0), libraft (> 0) and Kafka
 * codes are converted once, at the edge where they appear. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#define ERR_MAP(X)                                    \
    X(OK, "ok")                                       \
    X(NOMEM, "out of memory")                         \
    X(IO, "input/output error")                       \
    X(NOSPACE, "no space left on device")             \
    X(CORRUPT, "damaged data")                        \
    X(CANCELED, "canceled")                           \
    X(CLOSED, "closed")                               \
    X(TIMEOUT, "timed out")                           \
    X(INVALID, "invalid argument or malformed input") \
    X(EXISTS, "already exists")                       \
    X(NOT_FOUND, "not found")                         \
    X(BUSY, "no room now, try again later")           \
    X(TOO_LARGE, "larger than its limit")             \
    X(REFUSED, "refused")                             \
    X(UNREACHABLE, "peer cannot be reached")          \
    X(NOT_LEADER, "not the leader")                   \
    X(NOT_READY, "not ready yet")                     \
    X(FENCED, "stale epoch")                          \
    X(OUT_OF_ORDER, "sequence out of order")          \
    X(DUPLICATE, "duplicate")                         \
    X(UNSUPPORTED, "unsupported")                     \
    X(LOST, "state lost")

enum err {
#define X(name, text) ERR_##name,
    ERR_MAP(X)
#undef X
        ERR_COUNT
};

#define MUST_USE __attribute__((warn_unused_result))

/* Name of an error ("ERR_IO") and its text ("input/output error"); static. */
const char *err_name(enum err e);
const char *err_text(enum err e);

#endif
