/* What all workers share: keys and their topics, the content of records, the
 * options of a run. Key k below KEY_STEADY is partition k % 2 of topic
 * t<k / 2>; keys come into use and go out of it as time passes, so topics are
 * made all the time. Keys from KEY_STEADY on are the partitions of one topic
 * that is written all the time. */
#ifndef JEPSEN_LOAD_H
#define JEPSEN_LOAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/prng.h"

#define KEY_STEADY 1000000
#define KEYS_ACTIVE 10
/* After :info a thread goes on as process + PROCESS_STRIDE. */
#define PROCESS_STRIDE 100000
#define TOPIC_MAX 32
/* A record's content: key, value, length, filler, CRC-32C. */
#define RECORD_MIN 24
#define RECORD_MAX 1024
/* Values of an operation. */
#define OP_SENDS_MAX 64
#define OP_KEYS_MAX 64

struct load {
    const char *bootstrap; /* HOST:PORT,... */
    const char *dir;       /* where the parts of the history go */
    int64_t start_ns;
    int64_t retire_ns; /* a key leaves the window after that long */
    int64_t crash_ns;  /* between two crashes of one thread's clients */
    uint64_t seed;
    int threads;
    int steady;            /* partitions of the steady topic; 0: none */
    bool steady_only_read; /* another process writes it */
    int steady_rate;       /* records per second on all of them */
    const char *ends;      /* file of "KEY END" lines: last reading */
    bool ask;              /* only asks for the ends of the keys in `ends` */
    int64_t process_base;
    atomic_bool stop;
};

/* One thread of a worker. */
struct worker {
    struct load *load;
    int number;
    int64_t process;
    int64_t values; /* given out so far */
    int64_t crash_at_ns;
    struct prng prng;
};

void worker_init(struct worker *w, struct load *load, int number);
/* A value nobody else uses, of this worker. */
int64_t worker_value(struct worker *w);
/* One of the keys in use now; the older the likelier. */
int64_t worker_key(struct worker *w);
/* 1 to `max` different keys to read: in use now, or at times older. */
size_t worker_keys(struct worker *w, int64_t *keys, size_t max);
/* Is it time that this thread's clients crash? */
bool worker_crashes(struct worker *w);

void key_topic(int64_t key, char topic[TOPIC_MAX], int32_t *partition);
/* -1: none of ours. */
int64_t key_of_topic(const char *topic, size_t n, int32_t partition);

/* Content of a record for (key, value), at most RECORD_MAX bytes; its length
 * depends on the value. */
size_t record_write(uint8_t *out, int64_t key, int64_t value);
/* False: damaged, or another key's. */
bool record_read(const uint8_t *data, size_t size, int64_t key, int64_t *value);

/* The lines "KEY END" of a file. */
struct ends {
    int64_t *keys, *ends;
    size_t n;
};
/* False: there are none. To be freed either way. */
bool ends_read(const char *path, struct ends *e);
void ends_free(struct ends *e);

/* The kinds of workers. Each returns when load->stop is set, or when all is
 * read (`ends`); false when it was not. */
bool wire_run(struct worker *w);
bool wire_final(struct worker *w);
/* Sends to the partition of `steady` that has its number. */
bool wire_probe(struct worker *w);
/* Prints "KEY END" of each key that `ends` has. */
bool wire_ask(struct worker *w);
bool rdkafka_run(struct worker *w, bool subscribes);
bool rdkafka_steady_produce(struct worker *w);
bool rdkafka_steady_consume(struct worker *w, bool subscribes);
bool rdkafka_final(struct worker *w);

#endif
