#include "partition/dump.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/limits.h"
#include "base/mem.h"
#include "partition/bytes.h"
#include "partition/segment.h"

struct dump {
    struct env *env;
    const char *dir;
    const struct dump_ops *ops;
    void *arg;
    struct dump_summary *sum;
    struct segment *files; /* by base; generation and base count */
    size_t n_files, capacity;
    char name[64]; /* of the file being read */
    bool broken;   /* a segment ended by damage: offsets jump behind it */
};

uint64_t dump_digest(const uint8_t *bytes, size_t size)
{
    uint64_t d = size;
    while (size > 0) {
        uint8_t word[8] = {0};
        size_t n = size < sizeof word ? size : sizeof word;
        memcpy(word, bytes, n);
        d ^= get_u64(word);
        d *= 0x9e3779b97f4a7c15u;
        d ^= d >> 29;
        bytes += n;
        size -= n;
    }
    return d * 0xbf58476d1ce4e5b9u;
}

static void tell(struct dump *d, const char *sentence)
{
    d->sum->damaged++;
    if (d->ops->damage != NULL) {
        d->ops->damage(d->arg, d->name, sentence);
    }
}

static void count_batch(struct dump *d, const struct dump_batch *b)
{
    struct dump_summary *s = d->sum;
    if (s->first.v < 0) {
        s->first = b->header.base_offset;
    }
    s->end.v = batch_last_offset(&b->header).v + 1;
    s->batches++;
    s->records += (uint64_t)b->header.record_count;
    s->bytes += b->size;
    if (!b->crc_ok || !b->side_ok) {
        s->damaged++;
    }
    d->ops->batch(d->arg, b);
}

/* ---- with side file ------------------------------------------------------ */
static bool batch_fits(const struct dump_batch *b, const struct side_entry *e)
{
    return crc32c(0, b->bytes, BATCH_CRC_FROM) == e->head_crc &&
           crc32c(0, b->bytes, b->size) == e->payload_crc &&
           batch_size(&b->header) == e->size &&
           b->header.base_offset.v == e->base_offset.v &&
           b->header.last_offset_delta == e->last_offset_delta;
}

/* False: the .log ends before the batch does. */
static bool dump_entry_batch(struct dump *d, struct env_file *log,
                             const struct side_entry *e, uint8_t **buffer)
{
    struct dump_batch b = {.file = d->name,
                           .position = e->position,
                           .size = e->size,
                           .index = e->index,
                           .term = e->term};
    size_t got = 0;
    *buffer = mem_realloc(*buffer, e->size + 1u);
    if (env_file_pread(log, *buffer, e->size, e->position, &got) != ERR_OK) {
        got = 0;
    }
    if (got < e->size || e->size < BATCH_HEADER_SIZE) {
        return false;
    }
    b.bytes = *buffer;
    b.crc_ok = batch_is_whole(*buffer, e->size);
    (void)!batch_header_read(*buffer, e->size, &b.header);
    b.side_ok = batch_fits(&b, e);
    b.digest = dump_digest(*buffer, e->size);
    if (!b.side_ok) {
        side_entry_header(e, &b.header); /* the side file is the authority */
    }
    count_batch(d, &b);
    return true;
}

/* Batches above this size are no batches: refused before memory is taken. */
#define DUMP_BATCH_MAX ((uint32_t)1 << 30)

static void dump_entries(struct dump *d, struct segment_view *v, bool last)
{
    struct side_cursor c = {0};
    struct side_entry e;
    uint8_t *buffer = NULL;
    enum err status;
    while ((status = side_cursor_next(v, &c, &e)) == ERR_OK) {
        if (e.size > DUMP_BATCH_MAX ||
            (!d->broken && d->sum->last.v != 0 &&
             !side_follows(&e, d->sum->last, d->sum->chain))) {
            status = ERR_CORRUPT;
            break;
        }
        if (e.type == ENTRY_DATA) {
            if (!dump_entry_batch(d, v->log.file, &e, &buffer)) {
                status = ERR_CORRUPT;
                break;
            }
        } else if (e.gone > 0) {
            d->sum->gone += e.gone;
        } else {
            d->sum->others++;
            if (d->ops->entry != NULL) {
                d->ops->entry(d->arg, &e);
            }
        }
        d->broken = false;
        d->sum->last = e.index;
        d->sum->chain = e.chain;
    }
    if (status != ERR_NOT_FOUND && last) {
        d->sum->tail_left = true;
    } else if (status != ERR_NOT_FOUND) {
        d->broken = true;
        tell(d, "the side file or the batches end before the segment does");
    }
    side_cursor_free(&c);
    mem_free(buffer);
}

static bool check_head(struct dump *d, struct segment_view *v)
{
    uint8_t slot[SIDE_SLOT];
    struct side_head head;
    size_t got = 0;
    if (env_file_pread(v->side.file, slot, SIDE_SLOT, 0, &got) != ERR_OK ||
        got < SIDE_SLOT || side_head_read(slot, &head) != ERR_OK ||
        head.base.v != v->segment.base.v) {
        return false;
    }
    if (d->sum->last.v == 0) {
        d->sum->chain = head.chain;
        d->sum->last.v = head.first.v - 1;
    }
    return true;
}

/* ---- without side file --------------------------------------------------- */
static enum err dump_log(struct dump *d, struct env_file *log)
{
    uint64_t size, at = 0;
    uint8_t *buffer = NULL;
    size_t got;
    enum err status = env_file_size(log, &size);
    while (status == ERR_OK && at < size) {
        uint8_t head[BATCH_HEADER_SIZE];
        struct dump_batch b = {.file = d->name, .position = at};
        status = env_file_pread(log, head, sizeof head, at, &got);
        if (status != ERR_OK ||
            batch_header_read(head, got, &b.header) != ERR_OK ||
            batch_size(&b.header) > size - at) {
            d->sum->tail_left = true;
            break;
        }
        b.size = (uint32_t)batch_size(&b.header);
        buffer = mem_realloc(buffer, b.size);
        status = env_file_pread(log, buffer, b.size, at, &got);
        b.bytes = buffer;
        b.crc_ok = status == ERR_OK && batch_is_whole(buffer, got);
        b.side_ok = true;
        b.digest = dump_digest(buffer, got);
        count_batch(d, &b);
        at += b.size;
    }
    mem_free(buffer);
    return status;
}

/* ---- segments ------------------------------------------------------------ */
/* The directory's last segment, without (the head of) its side file: was the
 * settling that makes it cut off? Then no batch of it counts, and it has
 * neither a whole first one nor a slot behind the head. What cannot be read is
 * not known to be so. */
static bool was_being_made(struct segment_view *v)
{
    uint8_t head[BATCH_HEADER_SIZE], *buffer;
    struct side_cursor cursor = {0};
    struct side_entry entry;
    struct batch_header h;
    uint64_t bytes;
    size_t got = 0;
    if (v->side.file != NULL) {
        bool any = side_cursor_next(v, &cursor, &entry) == ERR_OK;
        side_cursor_free(&cursor);
        if (any) {
            return false;
        }
    }
    if (env_file_size(v->log.file, &bytes) != ERR_OK ||
        env_file_pread(v->log.file, head, sizeof head, 0, &got) != ERR_OK) {
        return false;
    }
    if (batch_header_read(head, got, &h) != ERR_OK || batch_size(&h) > bytes) {
        return true;
    }
    buffer = mem_alloc(batch_size(&h));
    bool made = env_file_pread(v->log.file, buffer, batch_size(&h), 0, &got) !=
                    ERR_OK ||
                batch_is_whole(buffer, got);
    mem_free(buffer);
    return !made;
}

static enum err dump_segment(struct dump *d, const struct segment *segment,
                             bool last, bool alone)
{
    struct segment_view v = {.env = d->env, .dir = d->dir, .segment = *segment};
    char path[LIMIT_PATH];
    uint64_t size;
    enum err status;
    bool may_be_new = last && !alone && segment->generation == 0;
    segment_file(path, d->dir, segment, "log");
    snprintf(d->name, sizeof d->name, "%s", strrchr(path, '/') + 1);
    status = env_file_open(d->env, path, ENV_FILE_READ, &v.log.file);
    if (status != ERR_OK) {
        return status;
    }
    d->sum->segments++;
    v.segment.bytes = UINT64_MAX;
    segment_file(path, d->dir, segment, "side");
    status = env_file_open(d->env, path, ENV_FILE_READ, &v.side.file);
    if (status == ERR_OK) {
        status = env_file_size(v.side.file, &size);
        v.segment.slots = side_slots_in(size);
        if (check_head(d, &v)) {
            dump_entries(d, &v, last);
        } else if (may_be_new && was_being_made(&v)) {
            d->sum->tail_left = true;
        } else {
            tell(d, "the side file's head is damaged");
            d->broken = true;
            dump_entries(d, &v, last);
        }
        env_file_close(v.side.file);
    } else if (status == ERR_NOT_FOUND && may_be_new && was_being_made(&v)) {
        d->sum->tail_left = true;
        status = ERR_OK;
    } else {
        tell(d, "there is no side file");
        status = dump_log(d, v.log.file);
    }
    env_file_close(v.log.file);
    return status;
}

static void add_file(struct dump *d, const struct segment *segment)
{
    if (d->n_files == d->capacity) {
        d->capacity = d->capacity == 0 ? 8 : d->capacity * 2;
        d->files = mem_realloc(d->files, d->capacity * sizeof *d->files);
    }
    d->files[d->n_files++] = *segment;
}

static void add_name(void *arg, const char *name)
{
    struct dump *d = arg;
    struct segment s = {0};
    char suffix[SEGMENT_SUFFIX_MAX];
    if (segment_name_parse(name, &s.base.v, &s.generation, suffix) &&
        strcmp(suffix, "log") == 0) {
        add_file(d, &s);
    }
}

static int by_base(const void *a, const void *b)
{
    const struct segment *x = a, *y = b;
    if (x->base.v != y->base.v) {
        return x->base.v < y->base.v ? -1 : 1;
    }
    return (x->generation > y->generation) - (x->generation < y->generation);
}

/* What a compaction has replaced or not brought to its end is left out: the
 * list of closed segments knows, and behind it all are as they were settled.
 * Where a segment that was never compacted ends, its file says: the list may
 * have been written before a settling that did not come to its end. */
static void leave_out_leftovers(struct dump *d)
{
    struct segment *listed = NULL;
    size_t n = 0, kept = 0, at = 0;
    if (manifest_read(d->env, d->dir, &listed, &n) != ERR_OK) {
        n = 0;
    }
    kafka_offset behind = {0};
    if (n > 0) {
        behind.v = listed[n - 1].compaction != 0 ? listed[n - 1].end.v
                                                 : listed[n - 1].base.v + 1;
    }
    if (d->n_files > 1) {
        qsort(d->files, d->n_files, sizeof *d->files, by_base);
    }
    for (size_t i = 0; i < d->n_files; i++) {
        struct segment *s = &d->files[i];
        while (at < n && listed[at].base.v < s->base.v) {
            at++;
        }
        if (at < n && listed[at].base.v == s->base.v &&
            listed[at].generation == s->generation) {
            d->files[kept++] = *s;
        } else if (s->generation == 0 && s->base.v >= behind.v) {
            d->files[kept++] = *s;
        }
    }
    d->n_files = kept;
    mem_free(listed);
}

enum err partition_dump(struct env *env, const char *path,
                        const struct dump_ops *ops, void *arg,
                        struct dump_summary *out)
{
    struct dump d = {.env = env, .ops = ops, .arg = arg, .sum = out};
    char *dir = mem_strdup(path), *slash = strrchr(dir, '/');
    size_t n = strlen(path);
    enum err status = ERR_OK;
    memset(out, 0, sizeof *out);
    out->first.v = out->end.v = -1;
    bool one = n > 4 && strcmp(path + n - 4, ".log") == 0;
    if (one) {
        add_name(&d, slash == NULL ? path : path + (slash + 1 - dir));
        if (slash == NULL) {
            strcpy(dir, ".");
        } else {
            *slash = '\0';
        }
    } else {
        status = env_dir_list(env, path, add_name, &d);
    }
    d.dir = dir;
    if (status == ERR_OK && !one) {
        leave_out_leftovers(&d);
    }
    if (status == ERR_OK && d.n_files == 0) {
        status = ERR_NOT_FOUND;
    }
    for (size_t i = 0; i < d.n_files && status == ERR_OK; i++) {
        status = dump_segment(&d, &d.files[i], i + 1 == d.n_files, one);
    }
    mem_free(d.files);
    mem_free(dir);
    return status;
}
