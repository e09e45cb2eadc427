/* Inside of the checker: the history as arrays, keys and values as small
 * numbers. */
#ifndef JEPSEN_CHECKER_IMPL_H
#define JEPSEN_CHECKER_IMPL_H

#include "jepsen/checker.h"

#define CHECK_NONE UINT32_MAX

struct check__mop {
    uint8_t kind;   /* enum check_mop_kind */
    uint32_t key;   /* number of the key */
    uint32_t value; /* number of the value; of AT: of the commit */
    int64_t offset;
};

struct check__op {
    int64_t index;
    int64_t time_ns;
    uint32_t process; /* number of the process */
    uint8_t type;
    uint8_t f;
    bool seek;
    uint32_t invoke; /* of a completion: the operation it completes */
    size_t mops_at;
    uint32_t n_mops;
    uint32_t n_keys;
    uint32_t n_rebalanced;
    size_t keys_at; /* into `lists`; the rebalanced ones follow */
};

enum {
    WRITE_OK = 1,
    WRITE_INFO = 2,
    WRITE_FAIL = 4,
    READ_OK = 8,
    READ_ANY = 16,
    ACKED = 32,
    COMMITTED_WRITE = 64, /* its send is proven to have taken effect */
    MOVED_TOLD = 128,
};

struct check__value {
    int64_t value;
    uint32_t key;
    uint32_t writer; /* completion of its send */
    uint32_t reader; /* first completion that read it */
    uint32_t more;   /* further offsets, a chain */
    int64_t offset;  /* where it was seen first; -1 */
    int64_t acked_at;
    int64_t position; /* dense place in the log, -1: none */
    int64_t position_first;
    int64_t position_last;
    uint32_t flags;
};

struct check__more {
    int64_t offset;
    uint32_t value;
    uint32_t next;
};

struct check__commit {
    int64_t offset;
    uint32_t invoked;
    uint32_t done;    /* CHECK_NONE: not known to have taken effect */
    uint32_t removed; /* CHECK_NONE: may still be what is read */
    uint32_t next;
};

struct check__key {
    int64_t key;
    int64_t max_read; /* largest offset that an OK poll read */
    int64_t end;      /* offsets below exist for certain */
    uint32_t commits;
    uint32_t open_reads;
    /* Scratch of the passes: what is valid only while the stamp is the
     * pass's own. */
    uint64_t stamp_op;
    uint64_t stamp_process;
    uint32_t last;     /* value seen last in this operation */
    uint32_t state;    /* value of the process before */
    uint32_t state_op; /* the operation that set it */
};

struct check__process {
    int64_t process;
    uint32_t open; /* operation under way */
    bool subscribed;
};

/* One value at one offset; all of them sorted are the logs. */
struct check__entry {
    uint32_t key;
    uint32_t value;
    int64_t offset;
};

struct check__table { /* open addressing; holds numbers of keys, values, ... */
    uint32_t *slots;
    size_t mask;
    size_t n;
};

struct checker {
    struct check_config config;
    struct check__op *ops;
    size_t n_ops, cap_ops;
    struct check__mop *mops;
    size_t n_mops, cap_mops;
    uint32_t *lists;
    size_t n_lists, cap_lists;
    struct check__key *keys;
    size_t n_keys, cap_keys;
    struct check__value *values;
    size_t n_values, cap_values;
    struct check__process *processes;
    size_t n_processes, cap_processes;
    struct check__more *more;
    size_t n_more, cap_more;
    struct check__commit *commits;
    size_t n_commits, cap_commits;
    struct check__table table_keys, table_values, table_processes;
    /* the logs, sorted by key and offset; where each key begins */
    struct check__entry *log;
    size_t n_log, cap_log;
    size_t *log_at; /* n_keys + 1 */
    /* the operations of each process, in order */
    uint32_t *by_process;
    size_t *process_at; /* n_processes + 1 */
    struct check_result result;
    size_t cap_findings;
};

/* Makes room for one more element. */
void *check__room(void *p, size_t *cap, size_t n, size_t size);
/* Counts a finding and keeps it while there is room for its kind. */
void check__found(struct checker *c, struct check_finding f);
struct check_finding check__finding(enum check_anomaly a,
                                    const struct checker *c, uint32_t key);
static inline int64_t check__index(const struct checker *c, uint32_t op)
{
    return op == CHECK_NONE ? -1 : c->ops[op].index;
}

/* The passes, in this order. */
void check__log_build(struct checker *c);    /* places of values */
void check__log_judge(struct checker *c);    /* one log by itself */
void check__values_judge(struct checker *c); /* each value by itself */
void check__polls_judge(struct checker *c);  /* order of reads */
void check__sends_judge(struct checker *c);  /* order of sends */
void check__ends_judge(struct checker *c);   /* latest, committed */

#endif
