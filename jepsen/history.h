/* Writes a thread's part of the history: each thread has a file, times are
 * CLOCK_MONOTONIC, and `run.py` merges the parts by time. All processes share
 * one kernel, so the order across files is that of real time. */
#ifndef JEPSEN_HISTORY_H
#define JEPSEN_HISTORY_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buffer.h"

struct history {
    FILE *file;
    struct buffer text; /* the value of the operation being built */
};

int64_t now_ns(void);

/* False: the file cannot be made (errno). */
bool history_open(struct history *h, const char *dir, const char *name);
void history_close(struct history *h);

/* Building the value: history_begin, then pieces of text. */
void history_begin(struct history *h);
void history_put(struct history *h, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* One send of a value; offset -1: it is not known. */
void history_put_send(struct history *h, int64_t key, int64_t value,
                      int64_t offset);
/* Writes the operation with the value built, stamped now. `more` is text like
 * ", :error :x"; "" when there is none. */
void history_op(struct history *h, int64_t process, const char *type,
                const char *f, const char *more);

#endif
