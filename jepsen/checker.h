/* Judges a history of sends and polls: what Jepsen's kafka workload looks for
 * where no transactions run, and what it does not (phantom, torn, differing
 * acknowledgements, gaps, stale ends of logs, committed offsets that go back).
 *
 * Pure: operations go in, findings come out. The history format is Jepsen's
 * (jepsen/README.md has it); jepsen/edn.h reads it from text. Keys are
 * partitions, values are unique numbers per key. Kept small enough that
 * 1,000,000 operations take seconds. */
#ifndef JEPSEN_CHECKER_H
#define JEPSEN_CHECKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum check_type {
    CHECK_INVOKE,
    CHECK_OK,
    CHECK_FAIL, /* certainly without effect */
    CHECK_INFO, /* who knows */
};

enum check_f {
    CHECK_SEND,
    CHECK_POLL,
    CHECK_TXN, /* sends and polls mixed */
    CHECK_ASSIGN,
    CHECK_SUBSCRIBE,
    CHECK_COMMIT,    /* offsets of the group: written */
    CHECK_COMMITTED, /* ... and read; -1: nothing committed */
    CHECK_LATEST,    /* ends of logs, by ListOffsets */
    CHECK_OTHER,     /* crash and the like: ends nothing by itself */
};

enum check_mop_kind {
    CHECK_MOP_SEND,
    CHECK_MOP_POLL, /* one record of a poll */
    CHECK_MOP_AT,   /* key and offset of COMMIT, COMMITTED, LATEST */
    CHECK_MOP_TORN, /* a record at key and offset whose content is damaged */
};

struct check_mop {
    enum check_mop_kind kind;
    int64_t key;
    int64_t value;
    int64_t offset; /* -1: not known */
};

/* One line of the history. Memory is the caller's and may go after the call. */
struct check_op {
    int64_t index;   /* of the line; findings name it */
    int64_t time_ns; /* since the start */
    int64_t process; /* clients from 0; below 0: nemesis, ignored */
    enum check_type type;
    enum check_f f;
    const struct check_mop *mops;
    size_t n_mops;
    const int64_t *keys; /* of ASSIGN and SUBSCRIBE */
    size_t n_keys;
    bool seek; /* ASSIGN: to the beginning; all positions are new */
    const int64_t *rebalanced; /* keys whose position may jump within the op */
    size_t n_rebalanced;
};

#define CHECK_ANOMALIES(X)                                                  \
    X(INCONSISTENT_OFFSETS, "inconsistent-offsets",                         \
      "two values at one offset")                                           \
    X(DUPLICATE, "duplicate", "one value at two offsets")                   \
    X(LOST_WRITE, "lost-write",                                             \
      "acknowledged, never read, though later records were")                \
    X(UNSEEN, "unseen", "acknowledged, and nobody ever read it")            \
    X(G1A, "G1a", "read although its send failed for certain")              \
    X(PRECOMMITTED_READ, "precommitted-read",                               \
      "an operation read what it sent itself")                              \
    X(POLL_SKIP, "poll-skip", "a consumer jumped over records")             \
    X(NONMONOTONIC_POLL, "nonmonotonic-poll", "a consumer went back")       \
    X(INT_POLL_SKIP, "int-poll-skip", "records missing inside of one poll") \
    X(INT_NONMONOTONIC_POLL, "int-nonmonotonic-poll", "one poll went back") \
    X(INT_SEND_SKIP, "int-send-skip", "others' records within one send")    \
    X(INT_NONMONOTONIC_SEND, "int-nonmonotonic-send",                       \
      "records of one send in another order")                               \
    X(NONMONOTONIC_SEND, "nonmonotonic-send",                               \
      "a later send of a producer before its earlier one")                  \
    X(PHANTOM, "phantom", "read, but nobody sent it")                       \
    X(TORN, "torn", "the content of a record is damaged")                   \
    X(ACK_OFFSET_DIFFERS, "ack-offset-differs",                             \
      "acknowledged at one offset, read at another")                        \
    X(GAP, "gap", "an offset below others that nobody could read")          \
    X(STALE_LATEST, "stale-latest",                                         \
      "the end of the log below records known before")                      \
    X(COMMITTED_BACK, "committed-back",                                     \
      "a committed offset that was overwritten, or never committed")        \
    X(MALFORMED, "malformed", "no proper history")                          \
    X(EMPTY, "empty", "nothing was acknowledged or nothing was read")

enum check_anomaly {
#define X(name, text, what) CHECK_##name,
    CHECK_ANOMALIES(X)
#undef X
        CHECK_ANOMALY_COUNT
};

/* "lost-write", and a short sentence of what it means; static. */
const char *check_anomaly_name(enum check_anomaly a);
const char *check_anomaly_text(enum check_anomaly a);

/* One case. What does not apply is -1. */
struct check_finding {
    enum check_anomaly anomaly;
    int64_t key;
    int64_t value;
    int64_t value_other;
    int64_t offset;
    int64_t offset_other;
    int64_t delta;  /* of dense positions in the log */
    int64_t ops[2]; /* indexes of history lines that show it */
    bool allowed;   /* happens without a defect, so it is only told */
};

struct check_config {
    /* A known offset in an INFO send is an acknowledgement of that record:
     * true where no transactions run. */
    bool offsets_are_acks;
    /* Offsets have no holes: no transactions, no compaction, no expiry. */
    bool gapless;
    /* UNSEEN is a finding: everything was read to its end at last. */
    bool drained;
};

/* At most so many cases are kept of each anomaly; all are counted. */
#define CHECK_CASES_MAX 32

struct check_result {
    bool valid;
    uint64_t counts[CHECK_ANOMALY_COUNT];  /* allowed ones included */
    uint64_t allowed[CHECK_ANOMALY_COUNT]; /* of these, only told */
    struct check_finding *findings;        /* the checker's */
    size_t n_findings;
    /* figures */
    uint64_t ops;          /* completed */
    uint64_t sent;         /* values of which a send was tried */
    uint64_t acknowledged; /* values */
    uint64_t read;         /* different values read by OK polls */
    uint64_t records_read; /* every reading counted */
    uint64_t keys;
};

struct checker;
struct checker *checker_new(const struct check_config *config);
/* Operations in the order of the history, which is that of real time. */
void checker_add(struct checker *c, const struct check_op *op);
/* Once, after the last operation. Valid until checker_free. */
const struct check_result *checker_finish(struct checker *c);
void checker_free(struct checker *c);

#endif
