/* Leadership reports of this broker on their way to the metadata leader: kept
 * until the image has recorded them, or something newer. */
#ifndef METADATA_LEADERSHIP_H
#define METADATA_LEADERSHIP_H

#include "base/buffer.h"
#include "metadata/codec.h"
#include "metadata/image.h"

struct leadership_report {
    struct group_id group;
    node_id leader;
    int32_t epoch;
};

struct leadership;
struct leadership *leadership_new(void);
void leadership_free(struct leadership *l);
/* True when it has to be sent: newer than recorded and than reported. */
bool leadership_add(struct leadership *l, const struct image *image,
                    const struct leadership_report *report);
/* Appends a count and the reports that are due (never sent, or sent before
 * `now_ms` - 1000 and still not recorded), at most LIMIT_LEADER_REPORTS;
 * forgets what is recorded. */
void leadership_write(struct leadership *l, const struct image *image,
                      uint64_t now_ms, struct buffer *out);
/* Another metadata leader: all are due again. */
void leadership_repeat(struct leadership *l);

/* The other side: reads them, calling `each` for one that is newer than what
 * the image has recorded. False: malformed. */
bool leadership_read(struct reader *r, const struct image *image,
                     void (*each)(void *arg,
                                  const struct leadership_report *report),
                     void *arg);

#endif
