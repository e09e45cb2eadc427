/* Reads operations from a history in Jepsen's EDN: one map a line. What the
 * checker has no use for is skipped. */
#ifndef JEPSEN_EDN_H
#define JEPSEN_EDN_H

#include "jepsen/checker.h"

/* Memory of the operation read last; begin with zeroes. */
struct edn_ops {
    struct check_mop *mops;
    size_t n_mops, cap_mops;
    int64_t *keys;
    size_t n_keys, cap_keys;
    int64_t *rebalanced;
    size_t n_rebalanced, cap_rebalanced;
};

/* One line to `op`, which lives in `ops` until the next call. False: the line
 * is no operation. Operations of the nemesis get process -1. */
bool edn_op_read(struct edn_ops *ops, const char *line, size_t n,
                 struct check_op *op);
void edn_ops_free(struct edn_ops *ops);

#endif
