/* The disk of a node: for every file what is durable and what a reader sees,
 * and between them a journal of operations that were not synced.
 *
 * Happy path: an operation changes what readers see at once and is put at the
 * end of the journal; a sync takes the operations it covers out of the journal
 * and applies them to the durable side. Operations of a work that is still
 * running are not settled: its syncs stand in the journal and take effect when
 * the work is done. When the node loses power, a point is drawn among the
 * operations of each running work: what lies behind it never happened, the
 * operation at it happened without being acknowledged; then each operation
 * that was not synced is kept, dropped or torn as the policy says. Names
 * (create, rename, unlink) are kept up to a point in their order, as a
 * file system's own journal does. A sector (512 bytes) whose write was
 * interrupted is old, new or garbage.
 *
 * Failure modes on demand: the n-th operation fails, no space, slow, stalled,
 * bits flipped. */
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "tests/sim/sim_image.h"
#include "tests/sim/sim_impl.h"

#define SECTOR 512

/* A file apart from its names. */
struct inode {
    uint64_t id;
    struct sim_image seen, durable;
    uint32_t refs;           /* of names and of the journal */
    uint32_t opens;          /* of handles; gone with the process */
    struct op *first, *last; /* of the journal, in its order */
    struct inode *prev, *next;
};

/* Names and what they stand for, sorted by path. */
struct name {
    char *path;
    struct inode *inode; /* NULL: a directory */
};
struct names {
    struct name *all;
    size_t size, capacity;
};

enum op_kind {
    OP_WRITE,
    OP_TRUNCATE,
    OP_LINK, /* create */
    OP_RENAME,
    OP_UNLINK,
    OP_SYNC_FILE,
    OP_SYNC_DIR,
    OP_SYNC_ALL,
};

struct op {
    enum op_kind kind;
    struct inode *inode;
    uint64_t offset, size;
    uint8_t *data; /* NULL: zeros */
    char *path, *to;
    bool durable;        /* a write that is its own sync */
    bool lost;           /* a sync of it failed: no later one covers it */
    struct sim_job *job; /* running; NULL: done */
    unsigned index;      /* in the job, from 1 */
    struct op *prev, *next;
    struct op *inode_prev, *inode_next; /* of the same file */
};

struct sim_disk {
    struct sim_node *node;
    struct names seen, durable;
    struct op *first, *last; /* the journal */
    struct inode *inodes;    /* newest first */
    uint64_t n_inodes;
    uint64_t read_ns, write_ns, sync_ns;
    uint64_t stalled_until_ns;
    uint64_t capacity;
    uint64_t counts[4]; /* operations by kind */
    int fail_kinds;
    uint64_t fail_in;           /* 0: not */
    uint64_t rot_inode, rot_in; /* the n-th read of this file; 0: none */
    uint64_t n_rotten;
    bool any_lost; /* a sync failed */
    char **locks;
    size_t n_locks;
    void (*on_op)(void *arg, enum sim_disk_kind kind);
    void *on_op_arg;
    struct sim_crash_point point; /* of SIM_SUBSET */
    uint64_t n_fates;             /* drawn of its bits */
};

struct sim_file {
    struct env_file base;
    struct inode *inode;
    int flags;
};

static struct sim_disk *disk_of(const struct env *env)
{
    return sim_env_of(env)->node->disk;
}

/* ---- inodes -------------------------------------------------------------- */
static struct inode *inode_new(struct sim_disk *disk)
{
    struct inode *inode = sim_zalloc(sizeof *inode);
    inode->id = ++disk->n_inodes;
    inode->next = disk->inodes;
    if (inode->next != NULL) {
        inode->next->prev = inode;
    }
    disk->inodes = inode;
    return inode;
}

static void inode_free_if_unused(struct sim_disk *disk, struct inode *inode)
{
    if (inode->refs > 0 || inode->opens > 0) {
        return;
    }
    *(inode->prev == NULL ? &disk->inodes : &inode->prev->next) = inode->next;
    if (inode->next != NULL) {
        inode->next->prev = inode->prev;
    }
    sim_image_free(&inode->seen);
    sim_image_free(&inode->durable);
    mem_free(inode);
}

static void inode_unref(struct sim_disk *disk, struct inode *inode)
{
    if (inode != NULL) {
        ASSERT(inode->refs > 0);
        inode->refs--;
        inode_free_if_unused(disk, inode);
    }
}

/* ---- names --------------------------------------------------------------- */
/* Where `path` is, or would be. */
static size_t names_at(const struct names *names, const char *path)
{
    size_t low = 0, high = names->size;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (strcmp(names->all[middle].path, path) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static struct name *names_find(const struct names *names, const char *path)
{
    size_t at = names_at(names, path);
    return at < names->size && strcmp(names->all[at].path, path) == 0
               ? &names->all[at]
               : NULL;
}

static void names_remove(struct sim_disk *disk, struct names *names,
                         const char *path)
{
    struct name *name = names_find(names, path);
    if (name == NULL) {
        return;
    }
    struct inode *inode = name->inode;
    mem_free(name->path);
    size_t at = (size_t)(name - names->all);
    memmove(name, name + 1, (names->size - at - 1) * sizeof *name);
    names->size--;
    inode_unref(disk, inode);
}

static void names_set(struct sim_disk *disk, struct names *names,
                      const char *path, struct inode *inode)
{
    if (inode != NULL) {
        inode->refs++;
    }
    names_remove(disk, names, path);
    if (names->size == names->capacity) {
        names->capacity = names->capacity * 2 + 16;
        names->all =
            sim_realloc(names->all, names->capacity * sizeof names->all[0]);
    }
    size_t at = names_at(names, path);
    memmove(names->all + at + 1, names->all + at,
            (names->size - at) * sizeof names->all[0]);
    names->all[at] = (struct name){sim_strdup(path), inode};
    names->size++;
}

static void names_clear(struct sim_disk *disk, struct names *names)
{
    while (names->size > 0) {
        struct name *name = &names->all[--names->size];
        mem_free(name->path);
        inode_unref(disk, name->inode);
    }
}

static void names_copy(struct sim_disk *disk, struct names *to,
                       const struct names *from)
{
    for (size_t i = 0; i < from->size; i++) {
        names_set(disk, to, from->all[i].path, from->all[i].inode);
    }
}

/* One spelling of each path: no double slashes, none at the end, no "./". */
static void path_clean(const char *path, char clean[LIMIT_PATH])
{
    size_t n = 0;
    while (path[0] == '.' && path[1] == '/') {
        path += 2;
    }
    for (; *path != '\0'; path++) {
        if (*path == '/' && n > 0 && clean[n - 1] == '/') {
            continue;
        }
        ASSERT(n + 1 < LIMIT_PATH);
        clean[n++] = *path;
    }
    while (n > 1 && clean[n - 1] == '/') {
        n--;
    }
    clean[n] = '\0';
}

static bool path_is_root(const char *path)
{
    return path[0] == '\0' || strcmp(path, "/") == 0 || strcmp(path, ".") == 0;
}

static bool dir_exists(const struct sim_disk *disk, const char *path)
{
    struct name *name = names_find(&disk->seen, path);
    return path_is_root(path) || (name != NULL && name->inode == NULL);
}

static bool parent_exists(const struct sim_disk *disk, const char *path)
{
    char parent[LIMIT_PATH];
    env_path_parent(path, parent);
    return dir_exists(disk, parent);
}

static bool is_child_of(const char *path, const char *dir)
{
    char parent[LIMIT_PATH];
    size_t n = strlen(dir);
    if (n > 1 && dir[n - 1] != '/') { /* the usual case, fast */
        return strncmp(path, dir, n) == 0 && path[n] == '/' &&
               path[n + 1] != '\0' && strchr(path + n + 1, '/') == NULL;
    }
    env_path_parent(path, parent);
    return strcmp(parent, dir) == 0 ||
           (path_is_root(dir) && path_is_root(parent));
}

/* ---- the journal --------------------------------------------------------- */
/* Puts it behind `before` (NULL: at the beginning). */
static void op_link(struct sim_disk *disk, struct op *op, struct op *before)
{
    op->prev = before;
    op->next = before == NULL ? disk->first : before->next;
    *(op->prev == NULL ? &disk->first : &op->prev->next) = op;
    *(op->next == NULL ? &disk->last : &op->next->prev) = op;
}

/* The same in the list of its file. */
static void op_link_inode(struct op *op, struct op *before)
{
    struct inode *inode = op->inode;
    op->inode_prev = before;
    op->inode_next = before == NULL ? inode->first : before->inode_next;
    *(before == NULL ? &inode->first : &before->inode_next) = op;
    *(op->inode_next == NULL ? &inode->last : &op->inode_next->inode_prev) = op;
}

static void op_unlink(struct sim_disk *disk, struct op *op)
{
    struct inode *inode = op->inode;
    *(op->prev == NULL ? &disk->first : &op->prev->next) = op->next;
    *(op->next == NULL ? &disk->last : &op->next->prev) = op->prev;
    if (inode != NULL) {
        *(op->inode_prev == NULL ? &inode->first
                                 : &op->inode_prev->inode_next) =
            op->inode_next;
        *(op->inode_next == NULL ? &inode->last : &op->inode_next->inode_prev) =
            op->inode_prev;
    }
}

static void op_free(struct sim_disk *disk, struct op *op)
{
    op_unlink(disk, op);
    if (op->job != NULL) {
        op->job->n_open--;
    }
    inode_unref(disk, op->inode);
    mem_free(op->data);
    mem_free(op->path);
    mem_free(op->to);
    mem_free(op);
}

static struct op *op_new(struct sim_disk *disk, enum op_kind kind,
                         struct inode *inode)
{
    struct sim_job *job = disk->node->sim->job;
    struct op *op = sim_zalloc(sizeof *op);
    op->kind = kind;
    op->inode = inode;
    if (inode != NULL) {
        inode->refs++;
    }
    if (job != NULL) {
        op->job = job;
        op->index = ++job->n_ops;
        job->n_open++;
    }
    op_link(disk, op, disk->last);
    if (inode != NULL) {
        op_link_inode(op, inode->last);
    }
    return op;
}

/* Does to one side (what is seen, or what is durable) what the operation
 * says. */
static void op_apply(struct sim_disk *disk, const struct op *op, bool durable)
{
    struct names *names = durable ? &disk->durable : &disk->seen;
    struct sim_image *image = op->inode == NULL ? NULL
                              : durable         ? &op->inode->durable
                                                : &op->inode->seen;
    switch (op->kind) {
        case OP_WRITE:
            sim_image_write(image, op->offset, op->data, op->size);
            break;
        case OP_TRUNCATE:
            sim_image_truncate(image, op->size);
            break;
        case OP_LINK:
            names_set(disk, names, op->path, op->inode);
            break;
        case OP_RENAME:
            names_remove(disk, names, op->path);
            names_set(disk, names, op->to, op->inode);
            break;
        case OP_UNLINK:
            names_remove(disk, names, op->path);
            break;
        case OP_SYNC_FILE:
        case OP_SYNC_DIR:
        case OP_SYNC_ALL:
            break;
    }
}

static bool op_is_sync(const struct op *op)
{
    return op->kind == OP_SYNC_FILE || op->kind == OP_SYNC_DIR ||
           op->kind == OP_SYNC_ALL;
}

static bool op_is_name(const struct op *op)
{
    return op->kind == OP_LINK || op->kind == OP_RENAME ||
           op->kind == OP_UNLINK;
}

static bool sync_covers(const struct op *sync, const struct op *op)
{
    bool all = sync->kind == OP_SYNC_ALL;
    if (op->lost || op_is_sync(op)) {
        return false;
    }
    if (!op_is_name(op)) {
        return all || (sync->kind == OP_SYNC_FILE && op->inode == sync->inode);
    }
    return all || (sync->kind == OP_SYNC_DIR &&
                   (is_child_of(op->path, sync->path) ||
                    (op->to != NULL && is_child_of(op->to, sync->path))));
}

/* Takes the bytes low..high out of an earlier write of the same file: they
 * are on the disk in a newer form. */
static void write_clip(struct sim_disk *disk, struct op *op, uint64_t low,
                       uint64_t high)
{
    uint64_t end = op->offset + op->size;
    if (high <= op->offset || low >= end) {
        return;
    }
    if (high < end) { /* what is behind goes on as an operation of its own */
        struct op *rest = sim_zalloc(sizeof *rest);
        *rest = *op;
        rest->offset = high;
        rest->size = end - high;
        rest->inode->refs++;
        if (op->data != NULL) {
            rest->data = memcpy(sim_alloc(rest->size),
                                op->data + (high - op->offset), rest->size);
        }
        op_link(disk, rest, op);
        op_link_inode(rest, op);
        if (rest->job != NULL) {
            rest->job->n_open++;
        }
    }
    op->size = low > op->offset ? low - op->offset : 0;
}

/* The same for all earlier writes of the file. */
static void clip_before(struct sim_disk *disk, struct op *op, uint64_t low,
                        uint64_t high)
{
    for (struct op *o = op->inode->first; o != op; o = o->inode_next) {
        if (o->kind == OP_WRITE) {
            write_clip(disk, o, low, high);
        }
    }
}

/* Earlier truncations of the file go to the disk with a later size. */
static void truncations_settle(struct sim_disk *disk, struct op *op)
{
    for (struct op *o = op->inode->first; o != op;) {
        struct op *next = o->inode_next;
        if (o->kind == OP_TRUNCATE) {
            op_apply(disk, o, true);
            clip_before(disk, o, o->size, UINT64_MAX);
            op_free(disk, o);
        }
        o = next;
    }
}

/* A write that is its own sync: its sectors go to the disk as they are seen. */
static void write_settle(struct sim_disk *disk, struct op *op)
{
    uint8_t sector[SECTOR];
    struct inode *inode = op->inode;
    uint64_t low = op->offset / SECTOR * SECTOR;
    uint64_t high = (op->offset + op->size + SECTOR - 1) / SECTOR * SECTOR;
    truncations_settle(disk, op);
    op_apply(disk, op, true);
    for (uint64_t at = low; at < high; at += SECTOR) {
        uint64_t size = sim_image_read(&inode->seen, at, sector, SECTOR);
        if (size > inode->durable.size - at) {
            size = inode->durable.size - at; /* a later size is not synced */
        }
        sim_image_write(&inode->durable, at, sector, size);
    }
    clip_before(disk, op, low, high);
    op_free(disk, op);
}

/* Makes durable what the sync covers and ends it. */
static void sync_settle(struct sim_disk *disk, struct op *sync)
{
    bool file = sync->kind == OP_SYNC_FILE;
    for (struct op *op = file ? sync->inode->first : disk->first; op != sync;) {
        struct op *next = file ? op->inode_next : op->next;
        if (sync_covers(sync, op)) {
            op_apply(disk, op, true);
            if (disk->any_lost && op->kind == OP_WRITE) {
                clip_before(disk, op, op->offset, op->offset + op->size);
            }
            if (disk->any_lost && op->kind == OP_TRUNCATE) {
                clip_before(disk, op, op->size, UINT64_MAX);
            }
            op_free(disk, op);
        }
        op = next;
    }
    op_free(disk, sync);
}

/* The first operation of a job that is in the journal still. */
static struct op *job_first(struct sim_disk *disk, const struct sim_job *job)
{
    struct op *first = NULL;
    unsigned n = job->n_open;
    for (struct op *op = disk->last; op != NULL && n > 0; op = op->prev) {
        if (op->job == job) {
            first = op;
            n--;
        }
    }
    return first;
}

/* The operations of a job (NULL: of none) have happened for good. */
static void job_settle(struct sim_disk *disk, struct sim_job *job)
{
    struct op *op = job == NULL ? disk->first : job_first(disk, job);
    while (op != NULL && (job == NULL || job->n_open > 0)) {
        struct op *next = op->next;
        if (op->job == job) {
            op->job = NULL;
            if (job != NULL) {
                job->n_open--;
            }
            if (op_is_sync(op)) {
                sync_settle(disk, op);
            } else if (op->kind == OP_WRITE && op->durable) {
                write_settle(disk, op);
            }
        }
        op = next;
    }
}

void sim_disk_settle(struct sim_disk *disk, struct sim_job *job)
{
    job_settle(disk, job);
}

/* After an operation outside of any job: it is done now. */
static void settle_if_direct(struct sim_disk *disk, struct op *op)
{
    if (op->job != NULL) {
        return;
    }
    if (op_is_sync(op)) {
        sync_settle(disk, op);
    } else if (op->kind == OP_WRITE && op->durable) {
        write_settle(disk, op);
    }
}

/* ---- the end of the node ------------------------------------------------- */
/* Draws how much of a running job happened, unless it was said. */
static void job_cut(struct sim_disk *disk, const struct sim_job *job)
{
    struct prng *prng = &disk->node->sim->disk_prng;
    unsigned done = (unsigned)prng_below(prng, job->n_ops + UINT64_C(1));
    if (job->is_cut) {
        done = job->cut;
    }
    for (struct op *op = disk->first; op != NULL;) {
        struct op *next = op->next;
        if (op->job == job && op->index == done + 1 && !op_is_sync(op)) {
            op->durable = false; /* under way, told to nobody */
        } else if (op->job == job && op->index > done) {
            op_free(disk, op);
        }
        op = next;
    }
}

/* Each sector of the write becomes old, new or garbage. */
static void write_tear(struct sim_disk *disk, const struct op *op)
{
    struct prng *prng = &disk->node->sim->disk_prng;
    struct sim_image *image = &op->inode->durable;
    uint64_t end = op->offset + op->size;
    if (op->size == 0) {
        return; /* later writes have replaced all of it */
    }
    for (uint64_t at = op->offset / SECTOR * SECTOR; at < end; at += SECTOR) {
        uint64_t low = at > op->offset ? at : op->offset;
        uint64_t high = at + SECTOR < end ? at + SECTOR : end;
        uint64_t fate = prng_below(prng, 5);
        if (fate < 2) {
            continue; /* old */
        }
        sim_image_write(image, low,
                        op->data == NULL ? NULL : op->data + (low - op->offset),
                        high - low);
        if (fate == 4) { /* garbage, also around the bytes written */
            uint8_t garbage[SECTOR];
            for (size_t i = 0; i < SECTOR; i++) {
                garbage[i] = (uint8_t)prng_next(prng);
            }
            uint64_t size = image->size - at;
            sim_image_write(image, at, garbage, size < SECTOR ? size : SECTOR);
        }
    }
}

/* What an un-synced write or truncation left on the disk. */
static void data_op_fate(struct sim_disk *disk, const struct op *op,
                         enum sim_crash how)
{
    struct prng *prng = &disk->node->sim->disk_prng;
    uint64_t fate = how == SIM_DROP_ALL   ? 0
                    : how == SIM_KEEP_ALL ? 1
                    : how == SIM_TORN     ? 2
                    : how == SIM_SUBSET
                        ? disk->point.keep >> (disk->n_fates++ % 64) & 1
                        : prng_below(prng, 3);
    if (op->lost && fate != 0) {
        fate = 2;
    }
    if (fate == 1 || (fate == 2 && op->kind == OP_TRUNCATE)) {
        op_apply(disk, op, true);
    } else if (fate == 2) {
        write_tear(disk, op);
    } else if (how == SIM_RANDOM && op->kind == OP_WRITE &&
               op->offset + op->size > op->inode->durable.size &&
               prng_chance(prng, 1, 4)) {
        /* The size reached the disk, the bytes did not. */
        sim_image_truncate(&op->inode->durable, op->offset + op->size);
    }
}

/* How many of the names' operations, in their order, reached the disk. */
static uint64_t names_kept(struct sim_disk *disk, enum sim_crash how)
{
    uint64_t n = 0;
    for (struct op *op = disk->first; op != NULL; op = op->next) {
        n += op_is_name(op);
    }
    if (how == SIM_DROP_ALL) {
        return 0;
    }
    if (how == SIM_SUBSET) {
        return disk->point.names < n ? disk->point.names : n;
    }
    return how == SIM_KEEP_ALL ? n
                               : prng_below(&disk->node->sim->disk_prng, n + 1);
}

static void power_loss(struct sim_disk *disk, enum sim_crash how)
{
    uint64_t names = names_kept(disk, how);
    while (disk->first != NULL) {
        struct op *op = disk->first;
        if (!op_is_name(op)) {
            data_op_fate(disk, op, how);
        } else if (names > 0) {
            op_apply(disk, op, true);
            names--;
        }
        op_free(disk, op);
    }
}

/* A name that survived in a removed directory brings the directory back. */
static void dirs_restore(struct sim_disk *disk)
{
    char parent[LIMIT_PATH];
    for (size_t i = 0; i < disk->seen.size; i++) {
        env_path_parent(disk->seen.all[i].path, parent);
        if (!dir_exists(disk, parent)) {
            names_set(disk, &disk->seen, parent, NULL);
            names_set(disk, &disk->durable, parent, NULL);
            i = (size_t)-1; /* from the start: its parents too */
        }
    }
}

/* What is seen is what is durable and the journal on top of it. */
static void seen_rebuild(struct sim_disk *disk)
{
    for (struct inode *i = disk->inodes; i != NULL; i = i->next) {
        sim_image_copy(&i->seen, &i->durable);
    }
    names_clear(disk, &disk->seen);
    names_copy(disk, &disk->seen, &disk->durable);
    for (struct op *op = disk->first; op != NULL; op = op->next) {
        op_apply(disk, op, false);
    }
    dirs_restore(disk);
}

static void locks_release(struct sim_disk *disk)
{
    while (disk->n_locks > 0) {
        mem_free(disk->locks[--disk->n_locks]);
    }
}

void sim_disk_crash(struct sim_disk *disk, enum sim_crash how)
{
    struct inode *next;
    /* An inode that only handles held stays until here, so that nothing is
     * freed while the journal is worked on. */
    for (struct inode *i = disk->inodes; i != NULL; i = i->next) {
        i->refs++;
        i->opens = 0;
    }
    for (struct sim_job *j = disk->node->jobs; j != NULL; j = j->running) {
        job_cut(disk, j);
    }
    seen_rebuild(disk); /* without what never happened */
    for (struct sim_job *j = disk->node->jobs; j != NULL; j = j->running) {
        job_settle(disk, j);
    }
    if (how != SIM_KILL) {
        power_loss(disk, how);
    }
    seen_rebuild(disk);
    for (struct inode *i = disk->inodes; i != NULL; i = next) {
        next = i->next;
        inode_unref(disk, i);
    }
    locks_release(disk);
}

/* ---- crashes at chosen operations ---------------------------------------- */
void sim_disk_on_op(struct sim_node *node,
                    void (*cb)(void *arg, enum sim_disk_kind kind), void *arg)
{
    node->disk->on_op = cb;
    node->disk->on_op_arg = arg;
}

/* Does an operation after `op` that is over make it durable? */
static bool op_is_safe(const struct sim_disk *disk, const struct op *op)
{
    const struct sim_job *job = disk->node->sim->job;
    for (const struct op *s = op; s != NULL; s = s->next) {
        bool over = s->job == NULL || s->job == job;
        if (over && ((s == op && s->durable) ||
                     (op_is_sync(s) && sync_covers(s, op)))) {
            return true;
        }
    }
    return false;
}

void sim_disk_journal(const struct sim_node *node, uint64_t *data,
                      uint64_t *names, bool *newest_durable)
{
    const struct sim_disk *disk = node->disk;
    *data = *names = 0;
    *newest_durable = disk->last != NULL && disk->last->durable;
    for (const struct op *o = disk->first; o != NULL; o = o->next) {
        bool open = !op_is_sync(o) && !op_is_safe(disk, o);
        *names += open && op_is_name(o);
        *data += open && !op_is_name(o);
    }
}

void sim_disk_cut(struct sim_disk *disk, const struct sim_crash_point *point)
{
    struct op *op = disk->last;
    struct sim_job *job = disk->node->sim->job;
    disk->on_op = NULL;
    disk->point = *point;
    disk->n_fates = 0;
    prng_seed(&disk->node->sim->disk_prng, point->seed);
    if (job != NULL) {
        job->is_cut = true;
        job->cut = job->n_ops - (point->under_way && job->n_ops > 0);
    } else if (op != NULL && op->job == NULL && point->under_way) {
        op->durable = false;
        if (op_is_sync(op)) {
            op_free(disk, op);
        }
    }
    job_settle(disk, NULL);
}

static void op_done(struct sim_disk *disk, enum sim_disk_kind kind)
{
    if (disk->on_op != NULL) {
        disk->on_op(disk->on_op_arg, kind);
    }
}

static uint32_t image_digest(const struct sim_image *image, uint32_t crc)
{
    uint8_t page[SIM_PAGE];
    for (uint64_t at = 0; at < image->size; at += SIM_PAGE) {
        size_t k = (size_t)(at / SIM_PAGE);
        if (k < image->n_pages && image->pages[k] != NULL) {
            size_t n = sim_image_read(image, at, page, SIM_PAGE);
            crc = crc32c(crc ^ (uint32_t)k, page, n);
        }
    }
    return crc;
}

uint64_t sim_disk_digest(const struct sim_node *node)
{
    const struct names *names = &node->disk->durable;
    uint64_t digest = names->size;
    for (size_t i = 0; i < names->size; i++) {
        const struct name *n = &names->all[i];
        digest =
            digest * 0x9e3779b97f4a7c15u + crc32c(0, n->path, strlen(n->path));
        if (n->inode != NULL) {
            digest = digest * 0x9e3779b97f4a7c15u +
                     image_digest(&n->inode->durable,
                                  (uint32_t)n->inode->durable.size);
        }
    }
    return digest ^ digest >> 29;
}

/* ---- the disk ------------------------------------------------------------ */
struct sim_disk *sim_disk_new(struct sim_node *node)
{
    struct sim_disk *disk = sim_zalloc(sizeof *disk);
    disk->node = node;
    disk->read_ns = 50 * SIM_US;
    disk->write_ns = 30 * SIM_US;
    disk->sync_ns = 300 * SIM_US;
    return disk;
}

static void disk_clear(struct sim_disk *disk)
{
    struct inode *next;
    while (disk->first != NULL) {
        op_free(disk, disk->first);
    }
    names_clear(disk, &disk->seen);
    names_clear(disk, &disk->durable);
    for (struct inode *i = disk->inodes; i != NULL; i = next) {
        next = i->next;
        i->opens = 0;
        inode_free_if_unused(disk, i);
    }
    locks_release(disk);
}

void sim_disk_free(struct sim_disk *disk)
{
    disk_clear(disk);
    mem_free(disk->seen.all);
    mem_free(disk->durable.all);
    mem_free(disk->locks);
    mem_free(disk);
}

void sim_disk_wipe(struct sim_node *node)
{
    ASSERT(!node->up);
    disk_clear(node->disk);
}

void sim_disk_latency(struct sim_node *node, uint64_t read_ns,
                      uint64_t write_ns, uint64_t sync_ns)
{
    struct sim_disk *disk = node->disk;
    disk->read_ns = read_ns == 0 ? disk->read_ns : read_ns;
    disk->write_ns = write_ns == 0 ? disk->write_ns : write_ns;
    disk->sync_ns = sync_ns == 0 ? disk->sync_ns : sync_ns;
}

void sim_disk_stall(struct sim_node *node, uint64_t until_ns)
{
    node->disk->stalled_until_ns = until_ns;
}

uint64_t sim_disk_stalled_until(const struct sim_disk *disk)
{
    return disk->stalled_until_ns;
}

void sim_disk_capacity(struct sim_node *node, uint64_t bytes)
{
    node->disk->capacity = bytes;
}

void sim_disk_fail_nth(struct sim_node *node, int kinds, uint64_t n)
{
    node->disk->fail_kinds = kinds;
    node->disk->fail_in = n;
}

uint64_t sim_disk_ops(const struct sim_node *node, int kinds)
{
    uint64_t n = 0;
    for (int i = 0; i < 4; i++) {
        n += (kinds & (1 << i)) != 0 ? node->disk->counts[i] : 0;
    }
    return n;
}

uint64_t sim_disk_unsynced(const struct sim_node *node)
{
    uint64_t n = 0;
    for (struct op *op = node->disk->first; op != NULL; op = op->next) {
        n += !op_is_sync(op);
    }
    return n;
}

bool sim_disk_flip(struct sim_node *node, const char *path, uint64_t offset,
                   unsigned bit)
{
    char clean[LIMIT_PATH];
    path_clean(path, clean);
    struct name *name = names_find(&node->disk->seen, clean);
    if (name == NULL || name->inode == NULL) {
        return false;
    }
    struct sim_image *images[2] = {&name->inode->seen, &name->inode->durable};
    bool flipped = false;
    for (int i = 0; i < 2; i++) {
        uint8_t byte;
        if (sim_image_read(images[i], offset, &byte, 1) == 1) {
            byte ^= (uint8_t)(1U << bit);
            sim_image_write(images[i], offset, &byte, 1);
            flipped = true;
        }
    }
    return flipped;
}

bool sim_disk_rot_read(struct sim_node *node, const char *path, uint64_t n)
{
    char clean[LIMIT_PATH];
    path_clean(path, clean);
    struct name *name = names_find(&node->disk->seen, clean);
    if (name == NULL || name->inode == NULL) {
        return false;
    }
    node->disk->rot_inode = name->inode->id;
    node->disk->rot_in = n;
    return true;
}

void sim_disk_rot_end(struct sim_node *node)
{
    node->disk->rot_in = 0;
}

uint64_t sim_disk_rotten(const struct sim_node *node)
{
    return node->disk->n_rotten;
}

bool sim_disk_zero(struct sim_node *node, const char *path, uint64_t offset,
                   size_t size)
{
    static const uint8_t zeros[4096];
    uint8_t bytes[4096];
    char clean[LIMIT_PATH];
    path_clean(path, clean);
    struct name *name = names_find(&node->disk->seen, clean);
    ASSERT(size <= sizeof zeros);
    if (name == NULL || name->inode == NULL) {
        return false;
    }
    struct sim_image *images[2] = {&name->inode->seen, &name->inode->durable};
    bool changed = false;
    for (int i = 0; i < 2; i++) {
        size_t got = sim_image_read(images[i], offset, bytes, size);
        if (got > 0) {
            changed = changed || memcmp(bytes, zeros, got) != 0;
            sim_image_write(images[i], offset, zeros, got);
        }
    }
    return changed;
}

int64_t sim_disk_durable(struct sim_node *node, const char *path, void **data)
{
    char clean[LIMIT_PATH];
    path_clean(path, clean);
    struct name *name = names_find(&node->disk->durable, clean);
    if (data != NULL) {
        *data = NULL;
    }
    if (name == NULL || name->inode == NULL) {
        return -1;
    }
    const struct sim_image *image = &name->inode->durable;
    if (data != NULL) {
        *data = sim_alloc((size_t)image->size);
        sim_image_read(image, 0, *data, (size_t)image->size);
    }
    return (int64_t)image->size;
}

void sim_disk_list(struct sim_node *node,
                   void (*each)(void *arg, const char *path, uint64_t size),
                   void *arg)
{
    const struct names *seen = &node->disk->seen;
    for (size_t i = 0; i < seen->size; i++) {
        if (seen->all[i].inode != NULL) {
            each(arg, seen->all[i].path, seen->all[i].inode->seen.size);
        }
    }
}

/* ---- operations of env --------------------------------------------------- */
/* Counts an operation, adds its cost to the running job, and says whether it
 * shall fail. */
static enum err op_begin(struct sim_disk *disk, enum sim_disk_kind kind,
                         uint64_t mean_ns, uint64_t size)
{
    struct sim *sim = disk->node->sim;
    disk->counts[__builtin_ctz((unsigned)kind)]++;
    if (sim->job != NULL) {
        sim->job->cost_ns +=
            sim_random_ns(&sim->disk_prng, mean_ns) + size; /* 1 GB/s */
    }
    if (disk->fail_in > 0 && (disk->fail_kinds & (int)kind) != 0 &&
        --disk->fail_in == 0) {
        sim_note(sim, "disk: an operation fails");
        return ERR_IO;
    }
    return ERR_OK;
}

static enum err name_op_begin(struct sim_disk *disk)
{
    return op_begin(disk, SIM_DISK_NAME, disk->write_ns, 0);
}

static struct sim_file *sim_file_of(struct env_file *file)
{
    return (struct sim_file *)file;
}

static enum err inode_create(struct sim_disk *disk, const char *path,
                             struct inode **out)
{
    if (!parent_exists(disk, path)) {
        return ERR_NOT_FOUND;
    }
    enum err e = name_op_begin(disk);
    if (e != ERR_OK) {
        return e;
    }
    struct inode *inode = inode_new(disk);
    struct op *op = op_new(disk, OP_LINK, inode);
    op->path = sim_strdup(path);
    op_apply(disk, op, false);
    op_done(disk, SIM_DISK_NAME);
    *out = inode;
    return ERR_OK;
}

enum err sim_file_open(struct env *env, const char *path, int flags,
                       struct env_file **out)
{
    struct sim_disk *disk = disk_of(env);
    char clean[LIMIT_PATH];
    struct inode *inode;
    path_clean(path, clean);
    struct name *name = names_find(&disk->seen, clean);
    if (name != NULL) {
        if ((flags & ENV_FILE_EXCLUSIVE) != 0) {
            return ERR_EXISTS;
        }
        if (name->inode == NULL) {
            return ERR_IO; /* a directory */
        }
        inode = name->inode;
    } else {
        if ((flags & ENV_FILE_CREATE) == 0) {
            return ERR_NOT_FOUND;
        }
        enum err e = inode_create(disk, clean, &inode);
        if (e != ERR_OK) {
            return e;
        }
    }
    struct sim_file *file = mem_zalloc(sizeof *file);
    file->base.env = env;
    file->inode = inode;
    file->flags = flags;
    inode->opens++;
    *out = &file->base;
    return ERR_OK;
}

void sim_file_close(struct env_file *base)
{
    struct sim_file *file = sim_file_of(base);
    ASSERT(file->inode->opens > 0);
    file->inode->opens--;
    inode_free_if_unused(disk_of(base->env), file->inode);
    mem_free(file);
}

static void check_direct(const struct sim_file *file, const void *memory,
                         uint64_t offset, size_t size)
{
    if ((file->flags & ENV_FILE_DIRECT) != 0) {
        ASSERT((uintptr_t)memory % ENV_BLOCK_SIZE == 0);
        ASSERT(offset % ENV_BLOCK_SIZE == 0);
        ASSERT(size % ENV_BLOCK_SIZE == 0);
    }
}

/* The read that was chosen comes back with one bit flipped. */
static void read_rot(struct sim_disk *disk, const struct inode *inode,
                     uint8_t *bytes, size_t size)
{
    struct prng *prng = &disk->node->sim->disk_prng;
    if (disk->rot_in == 0 || inode->id != disk->rot_inode || size == 0 ||
        --disk->rot_in > 0) {
        return;
    }
    size_t at = prng_below(prng, size);
    bytes[at] ^= (uint8_t)(1U << prng_below(prng, 8));
    disk->n_rotten++;
    sim_note(disk->node->sim, "a read of %zu bytes is wrong at %zu", size, at);
}

enum err sim_file_pread(struct env_file *base, void *buf, size_t size,
                        uint64_t offset, size_t *got)
{
    struct sim_file *file = sim_file_of(base);
    struct sim_disk *disk = disk_of(base->env);
    ASSERT((file->flags & ENV_FILE_READ) != 0);
    check_direct(file, buf, offset, size);
    *got = 0;
    enum err e = op_begin(disk, SIM_DISK_READ, disk->read_ns, size);
    if (e == ERR_OK) {
        *got = sim_image_read(&file->inode->seen, offset, buf, size);
        read_rot(disk, file->inode, buf, *got);
    }
    return e;
}

static uint64_t disk_used(const struct sim_disk *disk)
{
    uint64_t used = 0;
    for (const struct inode *i = disk->inodes; i != NULL; i = i->next) {
        used += i->seen.size;
    }
    return used;
}

static bool has_space(const struct sim_disk *disk, const struct inode *inode,
                      uint64_t size)
{
    return disk->capacity == 0 || size <= inode->seen.size ||
           disk_used(disk) + (size - inode->seen.size) <= disk->capacity;
}

static uint64_t iov_size(const struct sim_file *file, const struct iovec *iov,
                         int n_iov)
{
    uint64_t size = 0;
    for (int i = 0; i < n_iov; i++) {
        check_direct(file, iov[i].iov_base, 0, iov[i].iov_len);
        size += iov[i].iov_len;
    }
    return size;
}

/* The pieces in one; NULL when they are all zeros. */
static uint8_t *iov_gather(const struct iovec *iov, int n_iov, uint64_t size)
{
    uint8_t *data = sim_alloc((size_t)size);
    size_t at = 0;
    for (int i = 0; i < n_iov; i++) {
        memcpy(data + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    if (data[0] == 0 && memcmp(data, data + 1, (size_t)size - 1) == 0) {
        mem_free(data);
        return NULL;
    }
    return data;
}

enum err sim_file_pwritev(struct env_file *base, const struct iovec *iov,
                          int n_iov, uint64_t offset, bool durable)
{
    struct sim_file *file = sim_file_of(base);
    struct sim_disk *disk = disk_of(base->env);
    uint64_t size = iov_size(file, iov, n_iov);
    ASSERT((file->flags & ENV_FILE_WRITE) != 0);
    check_direct(file, NULL, offset, 0);
    enum err e = op_begin(disk, SIM_DISK_WRITE, disk->write_ns, size);
    if (e == ERR_OK && durable) {
        e = op_begin(disk, SIM_DISK_SYNC, disk->sync_ns, 0);
    }
    if (e != ERR_OK || size == 0) {
        return e;
    }
    if (!has_space(disk, file->inode, offset + size)) {
        return ERR_NOSPACE;
    }
    struct op *op = op_new(disk, OP_WRITE, file->inode);
    op->offset = offset;
    op->size = size;
    op->data = iov_gather(iov, n_iov, size);
    op->durable = durable;
    sim_hash_add(disk->node->sim, crc32c((uint32_t)offset, op->data,
                                         op->data == NULL ? 0 : (size_t)size));
    op_apply(disk, op, false);
    op_done(disk, SIM_DISK_WRITE);
    settle_if_direct(disk, op);
    return ERR_OK;
}

/* After a failed sync: what it covered is clean in the page cache and not on
 * the disk. */
static void mark_lost(struct sim_disk *disk, struct op *sync)
{
    for (struct op *op = disk->first; op != sync; op = op->next) {
        /* names are the journal's: it tries again or the file system ends */
        op->lost = op->lost || (!op_is_name(op) && sync_covers(sync, op));
    }
    disk->any_lost = true;
    op_free(disk, sync);
}

/* A sync; `path` of a directory, or NULL. */
static enum err sync_op(struct sim_disk *disk, enum op_kind kind,
                        struct inode *inode, const char *path)
{
    enum err e = op_begin(disk, SIM_DISK_SYNC, disk->sync_ns, 0);
    struct op *op = op_new(disk, kind, inode);
    op->path = path == NULL ? NULL : sim_strdup(path);
    if (e != ERR_OK) {
        mark_lost(disk, op);
    } else {
        op_done(disk, SIM_DISK_SYNC);
        settle_if_direct(disk, op);
    }
    return e;
}

enum err sim_file_sync(struct env_file *base)
{
    return sync_op(disk_of(base->env), OP_SYNC_FILE, sim_file_of(base)->inode,
                   NULL);
}

enum err sim_file_size(struct env_file *base, uint64_t *size)
{
    *size = sim_file_of(base)->inode->seen.size;
    return ERR_OK;
}

enum err sim_file_truncate(struct env_file *base, uint64_t size)
{
    struct sim_file *file = sim_file_of(base);
    struct sim_disk *disk = disk_of(base->env);
    ASSERT((file->flags & ENV_FILE_WRITE) != 0);
    enum err e = op_begin(disk, SIM_DISK_WRITE, disk->write_ns, 0);
    if (e != ERR_OK || size == file->inode->seen.size) {
        return e;
    }
    if (!has_space(disk, file->inode, size)) {
        return ERR_NOSPACE;
    }
    struct op *op = op_new(disk, OP_TRUNCATE, file->inode);
    op->size = size;
    op_apply(disk, op, false);
    op_done(disk, SIM_DISK_WRITE);
    return ERR_OK;
}

enum err sim_file_rename(struct env *env, const char *from, const char *to)
{
    struct sim_disk *disk = disk_of(env);
    char clean_from[LIMIT_PATH], clean_to[LIMIT_PATH];
    path_clean(from, clean_from);
    path_clean(to, clean_to);
    struct name *name = names_find(&disk->seen, clean_from);
    if (name == NULL || !parent_exists(disk, clean_to)) {
        return ERR_NOT_FOUND;
    }
    if (name->inode == NULL || dir_exists(disk, clean_to)) {
        return ERR_UNSUPPORTED; /* directories are not renamed here */
    }
    enum err e = name_op_begin(disk);
    if (e != ERR_OK || strcmp(clean_from, clean_to) == 0) {
        return e;
    }
    struct op *op = op_new(disk, OP_RENAME, name->inode);
    op->path = sim_strdup(clean_from);
    op->to = sim_strdup(clean_to);
    op_apply(disk, op, false);
    op_done(disk, SIM_DISK_NAME);
    return ERR_OK;
}

static void unlink_name(struct sim_disk *disk, const struct name *name)
{
    struct op *op = op_new(disk, OP_UNLINK, name->inode);
    op->path = sim_strdup(name->path);
    op_apply(disk, op, false);
    op_done(disk, SIM_DISK_NAME);
}

enum err sim_file_unlink(struct env *env, const char *path)
{
    struct sim_disk *disk = disk_of(env);
    char clean[LIMIT_PATH];
    path_clean(path, clean);
    struct name *name = names_find(&disk->seen, clean);
    if (name == NULL) {
        return ERR_NOT_FOUND;
    }
    enum err e = name->inode == NULL ? ERR_IO : name_op_begin(disk);
    if (e == ERR_OK) {
        unlink_name(disk, name);
    }
    return e;
}

enum err sim_dir_make_one(struct env *env, const char *path)
{
    struct sim_disk *disk = disk_of(env);
    char clean[LIMIT_PATH];
    path_clean(path, clean);
    if (path_is_root(clean) || names_find(&disk->seen, clean) != NULL) {
        return ERR_EXISTS;
    }
    if (!parent_exists(disk, clean)) {
        return ERR_NOT_FOUND;
    }
    enum err e = name_op_begin(disk);
    if (e == ERR_OK) { /* env_dir_make syncs it at once */
        names_set(disk, &disk->seen, clean, NULL);
        names_set(disk, &disk->durable, clean, NULL);
    }
    return e;
}

enum err sim_dir_sync(struct env *env, const char *path)
{
    struct sim_disk *disk = disk_of(env);
    char clean[LIMIT_PATH];
    path_clean(path, clean);
    if (!dir_exists(disk, clean)) {
        return ERR_NOT_FOUND;
    }
    return sync_op(disk, OP_SYNC_DIR, NULL, clean);
}

enum err sim_fs_sync(struct env *env, const char *path)
{
    (void)path;
    return sync_op(disk_of(env), OP_SYNC_ALL, NULL, NULL);
}

static bool is_below(const char *path, const char *dir)
{
    size_t n = strlen(dir);
    return strncmp(path, dir, n) == 0 && path[n] == '/';
}

enum err sim_dir_remove(struct env *env, const char *path)
{
    struct sim_disk *disk = disk_of(env);
    char clean[LIMIT_PATH];
    path_clean(path, clean);
    if (!dir_exists(disk, clean) || path_is_root(clean)) {
        return ERR_NOT_FOUND;
    }
    enum err e = name_op_begin(disk);
    for (size_t i = 0; i < disk->seen.size && e == ERR_OK;) {
        struct name *name = &disk->seen.all[i];
        bool itself = strcmp(name->path, clean) == 0;
        if (!itself && !is_below(name->path, clean)) {
            i++;
        } else if (name->inode != NULL) {
            unlink_name(disk, name);
        } else { /* directories go at once, and come back with their files */
            char *gone = sim_strdup(name->path);
            names_remove(disk, &disk->seen, gone);
            names_remove(disk, &disk->durable, gone);
            mem_free(gone);
        }
    }
    return e;
}

enum err sim_dir_list(struct env *env, const char *path,
                      void (*each)(void *arg, const char *name), void *arg)
{
    struct sim_disk *disk = disk_of(env);
    char clean[LIMIT_PATH];
    path_clean(path, clean);
    if (!dir_exists(disk, clean)) {
        return ERR_NOT_FOUND;
    }
    /* all names first: each may change the directory */
    char **names = mem_alloc((disk->seen.size + 1) * sizeof *names);
    size_t n = 0;
    for (size_t i = 0; i < disk->seen.size; i++) {
        const char *child = disk->seen.all[i].path;
        if (is_child_of(child, clean) && !path_is_root(child)) {
            const char *slash = strrchr(child, '/');
            names[n++] = sim_strdup(slash == NULL ? child : slash + 1);
        }
    }
    for (size_t i = 0; i < n; i++) {
        each(arg, names[i]);
        mem_free(names[i]);
    }
    mem_free(names);
    return ERR_OK;
}

enum err sim_fs_space(struct env *env, const char *path, uint64_t *total,
                      uint64_t *available)
{
    struct sim_disk *disk = disk_of(env);
    uint64_t used = disk_used(disk);
    (void)path;
    *total = disk->capacity == 0 ? UINT64_C(1) << 40 : disk->capacity;
    *available = used < *total ? *total - used : 0;
    return ERR_OK;
}

enum err sim_dir_lock(struct env *env, const char *path)
{
    struct sim_disk *disk = disk_of(env);
    char clean[LIMIT_PATH];
    path_clean(path, clean);
    if (!dir_exists(disk, clean)) {
        return ERR_NOT_FOUND;
    }
    for (size_t i = 0; i < disk->n_locks; i++) {
        if (strcmp(disk->locks[i], clean) == 0) {
            return ERR_BUSY;
        }
    }
    disk->locks =
        sim_realloc(disk->locks, (disk->n_locks + 1) * sizeof disk->locks[0]);
    disk->locks[disk->n_locks++] = sim_strdup(clean);
    return ERR_OK;
}
