/* How far a long command has come, on stderr: a bar on a terminal, or with
 * -o json one object a second. Nothing when stderr is something else. */
#ifndef TOOLS_PROGRESS_H
#define TOOLS_PROGRESS_H

#include "tools/cli.h"

struct progress {
    bool bar, json;
    bool drawn;
    int64_t total; /* of what step counts; -1: not known */
    double begun_s, shown_s;
};

/* `terminal`: a bar may be drawn (records printed on the same terminal would
 * be torn by it). `json`: the command was called with -o json. */
void progress_begin(struct progress *p, int64_t total, bool terminal,
                    bool json);
/* `done` of the total, and how many records that are. Cheap; shows something
 * twice a second at most. */
void progress_step(struct progress *p, int64_t done, int64_t records);
/* Takes the bar away: what is printed then stands alone. */
void progress_end(struct progress *p);

#endif
