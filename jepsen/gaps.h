/* How long a key went without an acknowledgement, within given windows of
 * time (those in which a majority of its replicas lived). */
#ifndef JEPSEN_GAPS_H
#define JEPSEN_GAPS_H

#include "jepsen/checker.h"

struct gaps;
/* Of keys from `keys_from` on. */
struct gaps *gaps_new(int64_t keys_from);
/* Lines "FROM TO" in ns, ascending. False: errno says why. */
bool gaps_windows_read(struct gaps *g, const char *path);
void gaps_add(struct gaps *g, const struct check_op *op);
/* Prints the longest of each key, and of all. */
void gaps_show(const struct gaps *g);
void gaps_free(struct gaps *g);

#endif
