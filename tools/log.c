#include "tools/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/env_uv.h"
#include "partition/dump.h"
#include "tools/config_load.h"
#include "tools/output.h"

const struct cli_option log_dump_options[] = {
    {"json", 0, NULL, "one JSON object a line"}, CLI_OUTPUT_OPTION, {0}};
const struct cli_option log_verify_options[] = {CLI_OUTPUT_OPTION, {0}};

const char log_more[] =
    "PATH is the directory of a partition "
    "(DIR/broker-N/data/partitions/TOPIC-N.*)\nor one of its .log files. Only "
    "what has settled in segments is seen, not what\nis still in the "
    "write-ahead log. Nothing is changed; a running broker is not\ndisturbed. "
    "The exit status is 1 when something is damaged.\n";

struct dumping {
    const struct cli *cli;
    bool json;
    bool quiet; /* verify: damage only */
    bool any;
};

static const char *codec_name(int attributes)
{
    static const char *const names[] = {"none", "gzip", "snappy", "lz4",
                                        "zstd", "?",    "?",      "?"};
    return names[attributes & BATCH_CODEC_MASK];
}

static void print_batch_json(const struct dump_batch *b)
{
    const struct batch_header *h = &b->header;
    char digest[17];
    snprintf(digest, sizeof digest, "%016" PRIx64, b->digest);
    json_t *row = json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:i, s:I, s:i, s:s, s:I, s:I, s:i, s:i, "
        "s:s, s:b, s:b}",
        "file", b->file, "position", (json_int_t)b->position, "base_offset",
        (json_int_t)h->base_offset.v, "last_offset",
        (json_int_t)(h->base_offset.v + h->last_offset_delta), "index",
        (json_int_t)b->index.v, "leader_epoch", (int)h->leader_epoch, "bytes",
        (json_int_t)b->size, "records", (int)h->record_count, "codec",
        codec_name(h->attributes), "max_timestamp",
        (json_int_t)h->max_timestamp, "producer_id", (json_int_t)h->producer_id,
        "producer_epoch", (int)h->producer_epoch, "sequence",
        (int)h->base_sequence, "digest", digest, "crc_ok", (int)b->crc_ok,
        "side_ok", (int)b->side_ok);
    json_dumpf(row, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(row);
}

/* verify: where the damage is; a running broker mends it from its peers. */
static void tell_damage(const struct dumping *d, const struct dump_batch *b)
{
    if (b->crc_ok && b->side_ok) {
        return;
    }
    cli_fail(d->cli, EXIT_FAILED,
             "%s: the batch at byte %" PRIu64 " (%" PRIu32
             " bytes, offset %" PRId64 " on) %s.",
             b->file, b->position, b->size, b->header.base_offset.v,
             !b->crc_ok ? "has a wrong CRC" : "differs from its side file");
}

static void on_batch(void *arg, const struct dump_batch *b)
{
    struct dumping *d = arg;
    const struct batch_header *h = &b->header;
    if (d->quiet) {
        tell_damage(d, b);
        return;
    }
    if (d->json) {
        print_batch_json(b);
        return;
    }
    if (!d->any) {
        d->any = true;
        printf("%12s %12s %8s %6s %7s %8s %-6s %-16s %s\n", "FIRST", "LAST",
               "INDEX", "EPOCH", "RECORDS", "BYTES", "CODEC", "DIGEST",
               "STATE");
    }
    printf("%12" PRId64 " %12" PRId64 " %8" PRIu64 " %6d %7d %8" PRIu32
           " %-6s %016" PRIx64 " %s\n",
           h->base_offset.v, h->base_offset.v + h->last_offset_delta,
           b->index.v, (int)h->leader_epoch, (int)h->record_count, b->size,
           codec_name(h->attributes), b->digest,
           !b->crc_ok    ? "wrong CRC"
           : !b->side_ok ? "side file differs"
                         : "ok");
}

static void on_damage(void *arg, const char *file, const char *sentence)
{
    const struct dumping *d = arg;
    cli_fail(d->cli, EXIT_FAILED, "%s: %s", file, sentence);
}

static void print_summary(const struct cli *cli, const struct dump_summary *s)
{
    if (cli_output(cli) == OUTPUT_JSON) {
        char chain[17];
        snprintf(chain, sizeof chain, "%016" PRIx64, s->chain);
        json_t *row = json_pack(
            "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "segments",
            (json_int_t)s->segments, "batches", (json_int_t)s->batches,
            "records", (json_int_t)s->records, "bytes", (json_int_t)s->bytes,
            "first", (json_int_t)s->first.v, "end", (json_int_t)s->end.v,
            "last_index", (json_int_t)s->last.v, "damaged",
            (json_int_t)s->damaged, "compacted_away", (json_int_t)s->gone,
            "chain", chain);
        output_json(row);
        json_decref(row);
        return;
    }
    printf("%" PRIu64 " segments, %" PRIu64 " batches, %" PRIu64
           " records, %" PRIu64 " bytes; offsets %" PRId64 " to %" PRId64
           ", last index %" PRIu64 ", chain %016" PRIx64 "; %" PRIu64
           " compacted away, %" PRIu64 " damaged%s\n",
           s->segments, s->batches, s->records, s->bytes, s->first.v, s->end.v,
           s->last.v, s->chain, s->gone, s->damaged,
           s->tail_left ? "; bytes of a settling that was cut off follow" : "");
}

static int walk(struct cli *cli, bool quiet)
{
    static const struct dump_ops ops = {.batch = on_batch, .damage = on_damage};
    struct dumping d = {
        .cli = cli,
        .quiet = quiet,
        .json = cli_has(cli, "json") || cli_output(cli) == OUTPUT_JSON};
    struct dump_summary summary;
    const char *path = cli_argument(cli, 0);
    size_t n = strlen(path);
    bool segment = n > 4 && strcmp(path + n - 4, ".log") == 0;
    struct env *env = env_uv_new(NULL);
    /* another file is no segment, whatever is in it */
    enum err e = segment || path_is_directory(path)
                     ? partition_dump(env, path, &ops, &d, &summary)
                     : ERR_NOT_FOUND;
    env_uv_free(env);
    if (e == ERR_NOT_FOUND) {
        return cli_fail(cli, EXIT_NOT_FOUND,
                        "There is no segment at %s; name the directory of a "
                        "partition or a .log file.",
                        path);
    }
    if (e != ERR_OK) {
        return cli_fail(cli, EXIT_FAILED, "Cannot read %s: %s.", path,
                        err_text(e));
    }
    if (quiet) {
        print_summary(cli, &summary);
    }
    return summary.damaged > 0 ? EXIT_FAILED : EXIT_DONE;
}

int log_dump_run(struct cli *cli)
{
    return walk(cli, false);
}

int log_verify_run(struct cli *cli)
{
    return walk(cli, true);
}
