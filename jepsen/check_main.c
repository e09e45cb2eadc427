/* jepsen-check [--jepsen] [--partial] HISTORY.edn
 *
 * Judges a history and shows the lines that prove what is wrong.
 *   --jepsen   Jepsen's own rules: offsets may have holes, and a known offset
 *              of an :info send is no acknowledgement (transactions)
 *   --partial  not everything was read at last, so nothing can be unseen
 * Ends with 0 when all is well, 1 with anomalies, 2 when it cannot read. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "jepsen/checker.h"
#include "jepsen/edn.h"

struct lines { /* where the line with an index begins in the file */
    off_t *at;
    size_t n, cap;
};

static void lines_note(struct lines *l, int64_t index, off_t at)
{
    if (index < 0 || index > INT32_MAX)
        return;
    while (l->cap <= (size_t)index) {
        l->cap = l->cap == 0 ? 4096 : l->cap * 2;
        l->at = mem_realloc(l->at, l->cap * sizeof *l->at);
    }
    while (l->n <= (size_t)index)
        l->at[l->n++] = -1;
    l->at[index] = at;
}

/* Prints a history line, shortened: operations can have many records. */
static void line_show(FILE *f, const struct lines *l, int64_t index)
{
    char text[1000];
    size_t n;

    if (index < 0 || (size_t)index >= l->n || l->at[index] < 0 ||
        fseeko(f, l->at[index], SEEK_SET) != 0 ||
        fgets(text, sizeof text, f) == NULL)
        return;
    n = strcspn(text, "\n");
    printf("      %.*s%s\n", n > 400 ? 400 : (int)n, text,
           n > 400 ? " ..." : "");
}

static void finding_show(FILE *file, const struct lines *l,
                         const struct check_finding *f)
{
    printf("    %s: key %lld", check_anomaly_name(f->anomaly),
           (long long)f->key);
    if (f->value >= 0)
        printf(", value %lld", (long long)f->value);
    if (f->value_other >= 0)
        printf(" and %lld", (long long)f->value_other);
    if (f->offset >= 0)
        printf(", offset %lld", (long long)f->offset);
    if (f->offset_other >= 0)
        printf(" and %lld", (long long)f->offset_other);
    if (f->delta != -1)
        printf(", delta %lld", (long long)f->delta);
    printf("%s\n", f->allowed ? " (allowed)" : "");
    line_show(file, l, f->ops[0]);
    line_show(file, l, f->ops[1]);
}

static void result_show(FILE *file, const struct lines *l,
                        const struct check_result *r, double seconds)
{
    printf("operations    %llu\n", (unsigned long long)r->ops);
    printf("keys          %llu\n", (unsigned long long)r->keys);
    printf("sent          %llu\n", (unsigned long long)r->sent);
    printf("acknowledged  %llu\n", (unsigned long long)r->acknowledged);
    printf("read          %llu (%llu readings)\n", (unsigned long long)r->read,
           (unsigned long long)r->records_read);
    printf("checked in    %.1f s\n", seconds);
    for (enum check_anomaly a = 0; a < CHECK_ANOMALY_COUNT; a++) {
        if (r->counts[a] == 0)
            continue;
        printf("  %s: %llu", check_anomaly_name(a),
               (unsigned long long)r->counts[a]);
        if (r->allowed[a] > 0)
            printf(" (%llu allowed)", (unsigned long long)r->allowed[a]);
        printf(" - %s\n", check_anomaly_text(a));
        if (r->counts[a] == r->allowed[a])
            continue;
        for (size_t i = 0, shown = 0; i < r->n_findings && shown < 8; i++) {
            if (r->findings[i].anomaly != a || r->findings[i].allowed)
                continue;
            finding_show(file, l, &r->findings[i]);
            shown++;
        }
    }
    printf("%s\n", r->valid ? "valid" : "INVALID");
}

static double seconds_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Feeds all lines; gives the number of lines that could not be read. */
static int feed(FILE *file, struct checker *c, struct lines *l)
{
    struct edn_ops ops = {0};
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    int bad = 0;
    off_t at = 0;

    for (; (n = getline(&line, &cap, file)) >= 0; at += n) {
        struct check_op op;

        if (n <= 1)
            continue;
        if (!edn_op_read(&ops, line, (size_t)n, &op)) {
            if (bad++ < 5)
                fprintf(stderr, "not an operation: %.200s\n", line);
            continue;
        }
        lines_note(l, op.index, at);
        checker_add(c, &op);
    }
    free(line);
    edn_ops_free(&ops);
    return bad;
}

static int check(const char *path, const struct check_config *config)
{
    FILE *file = fopen(path, "r");
    struct lines l = {0};
    struct checker *c;
    const struct check_result *r;
    double begun = seconds_now();
    int bad, status;

    if (file == NULL) {
        fprintf(stderr, "cannot read %s: %s\n", path, strerror(errno));
        return 2;
    }
    c = checker_new(config);
    bad = feed(file, c, &l);
    r = checker_finish(c);
    result_show(file, &l, r, seconds_now() - begun);
    status = bad > 0 ? 2 : r->valid ? 0 : 1;
    checker_free(c);
    mem_free(l.at);
    fclose(file);
    return status;
}

int main(int argc, char **argv)
{
    struct check_config config = {true, true, true};
    int i = 1;

    for (; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "--jepsen") == 0)
            config.offsets_are_acks = config.gapless = false;
        else if (strcmp(argv[i], "--partial") == 0)
            config.drained = false;
        else
            break;
    }
    if (i + 1 != argc) {
        fprintf(stderr,
                "usage: jepsen-check [--jepsen] [--partial] HISTORY.edn\n");
        return 2;
    }
    return check(argv[i], &config);
}
