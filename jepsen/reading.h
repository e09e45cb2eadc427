/* What all consumers share: the partitions that a client reads and how far it
 * is in each, what a poll brought, and the last reading, which goes on until
 * every partition's end. One thread's. */
#ifndef JEPSEN_READING_H
#define JEPSEN_READING_H

#include "jepsen/history.h"
#include "jepsen/load.h"

struct place { /* a partition that is read */
    int64_t key;
    int64_t next;   /* offset to read next */
    int64_t end;    /* last reading: where it ends */
    int32_t leader; /* -1: not known */
};

struct polled {
    int64_t key, offset, value;
};

struct reading {
    struct worker *w;
    struct history *h;
    struct place places[2 * OP_KEYS_MAX]; /* assigned */
    size_t n_places;
    struct buffer polled; /* struct polled, since the poll began */
    struct buffer torn;   /* text: "[key offset] ..." of what is damaged */
};

void reading_init(struct reading *r, struct worker *w, struct history *h);
void reading_free(struct reading *r);

/* Reads these keys from now on (at most OP_KEYS_MAX); those it read before go
 * on where they are. */
void reading_assign(struct reading *r, const int64_t *keys, size_t n);
/* NULL: it is not read. */
struct place *reading_place(struct reading *r, int64_t key);
/* The keys as an operation's value. */
void reading_put_keys(struct reading *r);

/* A poll: its invocation, records, its completion. `more` is further text of
 * the completion. Gives the number of records. */
void reading_poll_begin(struct reading *r);
void reading_record(struct reading *r, int64_t key, int64_t offset,
                    int64_t value);
void reading_torn(struct reading *r, int64_t key, int64_t offset);
size_t reading_poll_end(struct reading *r, const char *more);

/* The client drops what it has and goes on as another process: both ends of
 * :crash are written, the rest is the caller's. */
void reading_crash(struct reading *r);

/* The last reading: every key of load->ends from the beginning to its end. */
struct reading_ops {
    void (*assign)(void *arg, const int64_t *keys, size_t n);
    void (*poll)(void *arg);
    void (*next)(void *arg); /* another process, positions begin anew */
};
/* False: not all was read; what is missing is printed. */
bool reading_to_ends(struct reading *r, const struct reading_ops *ops,
                     void *arg);

#endif
