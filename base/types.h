/* Identifiers and counters with a type of their own: what clients count
 * (records) and what Raft counts (entries) must not mix. */
#ifndef BASE_TYPES_H
#define BASE_TYPES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Position of a record in a partition, as Kafka's clients see it; >= 0, or -1
 * for "none". */
typedef struct {
    int64_t v;
} kafka_offset;

/* Position of an entry in a Raft log; the first entry has 1, 0 is "none". */
typedef struct {
    uint64_t v;
} log_index;

/* Raft term; 0 is "none". To clients the leader epoch is the term as int32. */
typedef struct {
    uint64_t v;
} raft_term_t;

/* A broker, `node.id`: 0 .. 2^31-1; -1 is "none". */
typedef int32_t node_id;

/* One replica of one group, given out by the metadata group and never used
 * twice within a group; 0 is "none". It is libraft's id and address. */
typedef uint64_t replica_id;

/* 16 raw bytes; all zero is "none". Printed as 22 characters of base64url. */
struct uuid {
    uint8_t b[16];
};

#define UUID_TEXT_SIZE 23 /* with the terminating NUL */

static inline bool uuid_equal(const struct uuid *a, const struct uuid *b)
{
    return memcmp(a->b, b->b, sizeof a->b) == 0;
}
static inline bool uuid_is_zero(const struct uuid *a)
{
    static const struct uuid zero;
    return uuid_equal(a, &zero);
}

/* Writes the base64url text (no padding) of `id`, NUL-terminated. */
void uuid_format(const struct uuid *id, char text[UUID_TEXT_SIZE]);
/* Reads 22 characters of base64url; false when `text` is anything else. */
bool uuid_parse(const char *text, struct uuid *id);

#endif
