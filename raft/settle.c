/* Settling (rules of the store 1, 5 and 8): applied entries go into the state
 * machines' own files, in rounds over many groups. A round:
 *
 *   begin       each due group's ops->settle_begin gives a job
 *   run         the jobs run on workers, a few at a time
 *   sync        their files, when all are written, so that the first sync
 *               commits the file system's journal for all: each by itself when
 *               they are few, else the whole file system at once
 *   checkpoint  one file for the whole shard, durable
 *   over        settled moves, the log may be recycled, ops->settled
 *
 * A full disk is no failure: the round is over without effect and is tried
 * again; any other error ends the process. */
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "raft/catchup_impl.h"
#include "raft/host_store.h"
#include "raft/io.h"

/* Rounds follow each other at this distance at least, so that they gather. */
#define ROUND_GAP_MS 50
#define ROUND_GROUPS_MAX 256
/* A checkpoint names all groups: where they are many, so are a round's. */
#define ROUND_PART 4
/* Up to so many files are synced one by one. */
#define SYNC_EACH_MAX 16
#define NOSPACE_RETRY_MS 1000
/* Rounds of up to so many bytes in a few groups, as a moderate load makes them,
 * run one job after the other if nobody waits for them: several at once gain
 * little time, and the log's writes, which clients do wait for, queue behind
 * them. */
#define ROUND_GENTLE_BYTES ((uint64_t)16 << 20)

struct settle_item {
    struct settle_round *round;
    struct group *group;
    struct settle_job job;
    struct env_work work;
    enum err status;
    bool transferred; /* a finished transfer, not settle_begin's */
    uint32_t slot;    /* which piece of scratch it has, while it runs */
    /* of the group at job.upto, taken when the job began */
    uint64_t term;
    struct group_config config;
};

struct settle_round {
    struct raft_host *host;
    struct settle_item *items;
    uint32_t n, next, running;
    uint32_t width; /* jobs that run side by side */
    bool syncing;   /* all jobs have run */
    struct env_work work;
    bool whole_fs;
    bool waits; /* for deletions to be durable */
    enum err status;
    uint64_t seq;
    void *bytes;
    size_t size;
    uint32_t n_deleted; /* not in this checkpoint */
    uint64_t begun_ms;
};

bool settle_busy(const struct raft_host *host)
{
    return host->settle != NULL;
}

/* ---- what is due --------------------------------------------------------- */

/* Groups wait for more bytes the longer the fewer they are: what waits is held
 * in the log buffer. */
#define UNSETTLED_BYTES ((uint64_t)32 << 20)
#define UNSETTLED_LEAST ((uint64_t)64 << 10)
/* With this many more the time is doubled, tripled, up to the most. */
#define MANY_DIRTY 512
#define SETTLE_MS_MANY 30000
#define MANY_TICKS 5

static uint64_t due_bytes(const struct raft_host *host)
{
    uint64_t most = host->options.settle_bytes;
    uint64_t share = UNSETTLED_BYTES / (host->n_dirty + 1u);

    share = share < UNSETTLED_LEAST ? UNSETTLED_LEAST : share;
    return share < most ? share : most;
}

/* And longer: a partition costs a round the same for one record or a thousand.
 */
static uint64_t due_ms(const struct raft_host *host)
{
    uint64_t ms = host->options.settle_ms;
    uint64_t more = ms * host->n_dirty / MANY_DIRTY;
    uint64_t most = ms > SETTLE_MS_MANY ? ms : SETTLE_MS_MANY;

    return ms + more < most ? ms + more : most;
}

static uint64_t unsettled_bytes(const struct group *g)
{
    return entry_table_bytes(&g->table, g->settled, g->applied);
}

/* Entries without content (no-ops of elections) are worth no file: they settle
 * with what follows them, or when the log wants its file back. */
static bool has_content(const struct group *g)
{
    return unsettled_bytes(g) > 0;
}

static void list_push(struct group ***list, uint32_t *n, uint32_t *size,
                      struct group *g)
{
    if (*n == *size) {
        *size = *size == 0 ? 16 : *size * 2;
        *list = mem_realloc(*list, *size * sizeof **list);
    }
    (*list)[(*n)++] = g;
}

static void due_push(struct group *g)
{
    struct raft_host *host = g->host;

    if (g->due || g->settling || g->life != GROUP_OPEN)
        return;
    g->due = true;
    list_push(&host->due, &host->n_due, &host->due_size, g);
}

static void dirty_since(struct group *g, uint64_t ms)
{
    struct raft_host *host = g->host;

    g->dirty_ms = ms;
    if (!g->dirty && g->life == GROUP_OPEN) {
        g->dirty = true;
        list_push(&host->dirty, &host->n_dirty, &host->dirty_size, g);
    }
}

void settle_check(struct group *g)
{
    if (catchup_ready(g)) {
        due_push(g);
        return;
    }
    if (g->applied <= g->settled || catchup_holds_files(g))
        return;
    if (g->wanted || unsettled_bytes(g) >= due_bytes(g->host) ||
        g->applied - g->settled >= LIMIT_RAFT_ENTRIES / 8 ||
        (has_content(g) && g->dirty_ms != 0 &&
         group_now(g) - g->dirty_ms >= due_ms(g->host)))
        due_push(g);
}

void settle_mark(struct group *g)
{
    if (g->dirty_ms == 0 && has_content(g))
        dirty_since(g, group_now(g));
    settle_check(g);
}

void settle_tick(struct raft_host *host)
{
    uint32_t kept = 0;

    /* Time passes slowly for many; who wants to be settled does not wait. */
    if (host->n_dirty > MANY_DIRTY && !host->settle_wanted &&
        ++host->settle_ticks % MANY_TICKS != 0)
        return;
    host->settle_wanted = false;
    for (uint32_t i = 0; i < host->n_dirty; i++) {
        struct group *g = host->dirty[i];

        if (g->dirty_ms == 0) {
            g->dirty = false;
            continue;
        }
        host->dirty[kept++] = g;
        settle_check(g);
    }
    host->n_dirty = kept;
}

/* A round takes along who would soon be due: fewer rounds. */
static void gather_due(struct raft_host *host)
{
    uint64_t bytes = due_bytes(host) / 4;
    uint64_t half = due_ms(host) / 2;

    for (uint32_t i = 0; i < host->n_dirty; i++) {
        struct group *g = host->dirty[i];

        if (g->applied > g->settled && !catchup_holds_files(g) &&
            (unsettled_bytes(g) >= bytes ||
             (has_content(g) && g->dirty_ms != 0 &&
              group_now(g) - g->dirty_ms >= half)))
            due_push(g);
    }
}

/* ---- the round ----------------------------------------------------------- */

static void item_run(struct env_work *work)
{
    struct settle_item *item = work->arg;
    struct settle_job *job = &item->job;

    job->status = job->run != NULL ? job->run(job) : ERR_OK;
    item->status = job->status;
}

static void item_sync(struct env_work *work)
{
    struct settle_item *item = work->arg;
    struct settle_job *job = &item->job;
    enum err e = ERR_OK;

    for (int i = 0; i < job->n_files && e == ERR_OK; i++)
        e = env_file_sync(job->files[i]);
    for (int i = 0; i < job->n_dirs && e == ERR_OK; i++)
        e = env_dir_sync(item->round->host->env, job->dirs[i]);
    item->status = e;
}

static void round_next(struct settle_round *round);

static void item_done(struct env_work *work)
{
    struct settle_item *item = work->arg;

    item->round->running--;
    item->round->host->settle_scratch_used[item->slot] = false;
    if (item->status != ERR_OK && item->status != ERR_NOSPACE &&
        !(item->transferred && item->status == item->job.status))
        env_fatal(item->round->host->env, "settling failed: %s",
                  err_text(item->status));
    round_next(item->round);
}

static void transferred_over(struct settle_item *item, bool durable)
{
    struct group *g = item->group;

    mem_free(item->config.data);
    if (!durable && item->job.status == ERR_OK)
        item->job.status = ERR_NOSPACE;
    if (durable && g->life == GROUP_OPEN) {
        catchup_switch(g, &item->job);
        wal_settled(g->host->wal, &g->creation.id, item->job.upto);
        g->wanted = false;
        g->dirty_ms = 0;
    } else {
        catchup_settle_failed(g, &item->job);
    }
}

static void item_over(struct settle_item *item, bool durable)
{
    struct group *g = item->group;

    g->settling = false;
    if (item->transferred) {
        transferred_over(item, durable);
        return;
    }
    if (!durable && item->job.status == ERR_OK)
        item->job.status = ERR_NOSPACE;
    if (durable) {
        g->settled = item->job.upto.v;
        g->settled_term = item->term;
        mem_free(g->config.data);
        g->config = item->config;
        item->config.data = NULL;
        mem_free(g->blob);
        g->blob_size = item->job.blob_size;
        g->blob = mem_alloc(g->blob_size);
        memcpy(g->blob, item->job.blob, g->blob_size);
        g->wanted = false;
        g->dirty_ms = 0;
        if (g->applied > g->settled)
            dirty_since(g, group_now(g));
        if (g->life == GROUP_OPEN)
            wal_settled(g->host->wal, &g->creation.id, item->job.upto);
    }
    mem_free(item->config.data);
    g->ops->settled(g->sm, &item->job);
    catchup_round_over(g);
    if (g->life == GROUP_OPEN)
        settle_check(g);
}

static void round_over(struct settle_round *round, bool durable)
{
    struct raft_host *host = round->host;
    bool nospace = !durable;

    if (durable) {
        host->checkpoint_seq = round->seq;
        wal_checkpointed(host->wal, round->seq);
        host_store_forget_deleted(host, round->n_deleted);
    }
    host->settle = NULL;
    for (uint32_t i = 0; i < round->n; i++) {
        struct settle_item *item = &round->items[i];

        nospace = nospace || item->status == ERR_NOSPACE;
        item_over(item, durable && item->status == ERR_OK);
    }
    if (nospace && !host->settle_nospace)
        log_warn("raft", "no space left: settling waits dir=%s", host->dir);
    if (!nospace && host->settle_nospace)
        log_info("raft", "settling goes on dir=%s", host->dir);
    host->settle_nospace = nospace;
    host->settle_next_ms =
        env_now_ms(host->env) + (nospace ? NOSPACE_RETRY_MS : ROUND_GAP_MS);
    mem_free(round->bytes);
    mem_free(round->items);
    mem_free(round);
    raft_host_room(host);
    raft_host_want_turn(host); /* groups closed meanwhile */
    host_store_round_over(host);
}

static void checkpoint_run(struct env_work *work)
{
    struct settle_round *round = work->arg;

    round->status = checkpoint_save(round->host->env, round->host->dir,
                                    round->seq, round->bytes, round->size);
}

static void checkpoint_done(struct env_work *work)
{
    struct settle_round *round = work->arg;

    if (round->status != ERR_OK && round->status != ERR_NOSPACE)
        env_fatal(round->host->env, "cannot write the checkpoint in %s: %s",
                  round->host->dir, err_text(round->status));
    round_over(round, round->status == ERR_OK);
}

static struct settle_item *item_of(struct settle_round *round,
                                   const struct group *g)
{
    if (round == NULL || !g->settling)
        return NULL;
    ASSERT(g->settle_at < round->n && round->items[g->settle_at].group == g);
    return &round->items[g->settle_at];
}

static void checkpoint_fill(struct settle_round *round, const struct group *g,
                            struct checkpoint_group *out)
{
    const struct settle_item *item = item_of(round, g);
    const struct group_config *config = &g->config;

    out->creation = g->creation;
    out->term.v = g->term;
    out->vote = g->vote;
    out->settled.v = g->settled;
    out->settled_term.v = g->settled_term;
    out->blob = g->blob;
    out->blob_size = g->blob_size;
    out->unproven = g->proof.missing;
    if (item != NULL && item->status == ERR_OK) {
        out->settled = item->job.upto;
        out->settled_term.v = item->term;
        out->blob = item->job.blob;
        out->blob_size = item->job.blob_size;
        config = &item->config;
    }
    out->config_index.v = config->index;
    out->config = config->data;
    out->config_size = config->size;
}

/* The bytes of the next checkpoint; `round` may be NULL. */
static void *checkpoint_bytes(struct raft_host *host,
                              struct settle_round *round, size_t *size)
{
    struct checkpoint c = {
        .seq = host->checkpoint_seq + 1,
        .log_id = wal_log_id(host->wal),
        .position = wal_durable_position(host->wal),
        .n_groups = host->n_groups,
    };
    void *bytes;

    c.groups = mem_zalloc(c.n_groups * sizeof *c.groups);
    for (uint32_t i = 0; i < host->n_groups; i++)
        checkpoint_fill(round, host->groups[i], &c.groups[i]);
    bytes = checkpoint_encode(&c, size);
    mem_free(c.groups);
    return bytes;
}

enum err settle_checkpoint_again(struct raft_host *host)
{
    size_t size;
    void *bytes = checkpoint_bytes(host, NULL, &size);
    enum err e = checkpoint_save(host->env, host->dir, host->checkpoint_seq + 1,
                                 bytes, size);

    mem_free(bytes);
    if (e == ERR_NOSPACE)
        return ERR_OK; /* the one that was read is there */
    if (e == ERR_OK)
        wal_checkpointed(host->wal, ++host->checkpoint_seq);
    return e;
}

static void checkpoint_begin(struct settle_round *round)
{
    struct raft_host *host = round->host;

    round->seq = host->checkpoint_seq + 1;
    round->n_deleted = host->n_deleted;
    round->bytes = checkpoint_bytes(host, round, &round->size);
    round->work = (struct env_work){
        .run = checkpoint_run, .done = checkpoint_done, .arg = round};
    env_work_submit(host->env, ENV_POOL_IO, &round->work);
}

/* A checkpoint without a group must not be durable before the record of its
 * deletion: the log would then show a group whose older entries are gone. */
static void round_checkpoint(struct settle_round *round)
{
    struct raft_host *host = round->host;

    round->waits = wal_durable_position(host->wal) < host->deleted_position;
    if (!round->waits)
        checkpoint_begin(round);
}

static void fs_run(struct env_work *work)
{
    struct settle_round *round = work->arg;

    round->status = env_fs_sync(round->host->env, round->host->dir);
}

static void fs_done(struct env_work *work)
{
    struct settle_round *round = work->arg;

    if (round->status == ERR_NOSPACE) {
        for (uint32_t i = 0; i < round->n; i++)
            round->items[i].status = ERR_NOSPACE;
    } else if (round->status != ERR_OK) {
        env_fatal(round->host->env, "cannot sync %s: %s", round->host->dir,
                  err_text(round->status));
    }
    round_checkpoint(round);
}

/* Gives the item one of the pieces of scratch and sends it to a worker. */
static void item_submit(struct raft_host *host, struct settle_item *item)
{
    uint32_t slot = 0;

    while (host->settle_scratch_used[slot])
        slot++;
    ASSERT(slot < SETTLE_RUNNING_MAX);
    host->settle_scratch_used[slot] = true;
    item->slot = slot;
    item->job.scratch = host->settle_scratch + slot * SETTLE_SCRATCH;
    item->work.run = item->round->syncing ? item_sync : item_run;
    env_work_submit(host->env, ENV_POOL_IO, &item->work);
}

static void round_next(struct settle_round *round)
{
    struct raft_host *host = round->host;

    while (round->next < round->n && round->running < round->width) {
        struct settle_item *item = &round->items[round->next++];

        if (round->syncing && item->status != ERR_OK)
            continue;
        round->running++;
        item_submit(host, item);
    }
    if (round->running > 0)
        return;
    if (!round->whole_fs && !round->syncing) {
        round->syncing = true;
        round->next = 0;
        round_next(round);
        return;
    }
    if (!round->whole_fs) {
        round_checkpoint(round);
        return;
    }
    round->work =
        (struct env_work){.run = fs_run, .done = fs_done, .arg = round};
    env_work_submit(host->env, ENV_POOL_IO, &round->work);
}

static void item_config(struct settle_item *item,
                        const struct group_config *config)
{
    item->config = *config;
    item->config.data = mem_alloc(config->size);
    memcpy(item->config.data, config->data, config->size);
}

static void item_init(struct settle_round *round, struct settle_item *item,
                      struct group *g)
{
    struct group_config config;

    item->round = round;
    item->group = g;
    item->status = ERR_OK;
    item->work = (struct env_work){.done = item_done, .arg = item};
    if (item->transferred) {
        catchup_settle_state(g, &item->term, &config);
    } else {
        item->term = group_term_at(g, item->job.upto.v);
        group_config_at(g, item->job.upto.v, &config);
    }
    item_config(item, &config);
    g->settling = true;
    g->settle_at = (uint32_t)(item - round->items);
}

static void round_begin(struct raft_host *host)
{
    struct settle_round *round = mem_zalloc(sizeof *round);
    uint32_t taken = 0, max;
    uint64_t bytes = 0;
    bool waited_for = false;

    gather_due(host);
    max = host->n_groups / ROUND_PART;
    max = max > ROUND_GROUPS_MAX ? max : ROUND_GROUPS_MAX;
    max = host->n_due < max ? host->n_due : max;
    round->host = host;
    round->items = mem_zalloc((max + (size_t)1) * sizeof *round->items);
    while (taken < host->n_due && round->n < max) {
        struct group *g = host->due[taken++];
        struct settle_item *item = &round->items[round->n];

        g->due = false;
        item->job.upto.v = g->applied;
        if (catchup_ready(g)) {
            item->transferred = true;
            catchup_settle_begin(g, &item->job);
        } else if (catchup_holds_files(g)) {
            continue; /* when the transfer is over */
        } else if (g->applied <= g->settled ||
                   !g->ops->settle_begin(g->sm, &item->job)) {
            g->wanted = false;
            g->dirty_ms = 0;
            continue;
        }
        bytes += unsettled_bytes(g);
        waited_for = waited_for || item->transferred || g->wanted;
        item_init(round, item, g);
        round->n++;
    }
    host->n_due -= taken;
    if (host->n_due > 0)
        memmove(host->due, host->due + taken, host->n_due * sizeof *host->due);
    if (round->n == 0 && host->n_deleted == 0) {
        mem_free(round->items);
        mem_free(round);
        return;
    }
    round->whole_fs = round->n > SYNC_EACH_MAX;
    round->width = waited_for || round->whole_fs || bytes > ROUND_GENTLE_BYTES
                       ? SETTLE_RUNNING_MAX
                       : 1;
    if (host->settle_scratch == NULL)
        host->settle_scratch = mem_alloc_aligned(
            ENV_BLOCK_SIZE, SETTLE_RUNNING_MAX * SETTLE_SCRATCH);
    host->settle = round;
    round_next(round);
}

void settle_durable(struct raft_host *host)
{
    if (host->settle != NULL && host->settle->waits)
        round_checkpoint(host->settle);
}

void settle_poll(struct raft_host *host)
{
    if (host->settle != NULL || host->n_due == 0 || host->wal == NULL ||
        host->closing || env_now_ms(host->env) < host->settle_next_ms)
        return;
    round_begin(host);
}

void settle_now(struct raft_host *host)
{
    for (uint32_t i = 0; i < host->n_groups; i++)
        if (has_content(host->groups[i]))
            due_push(host->groups[i]);
    if (host->settle == NULL && host->wal != NULL &&
        (host->n_due > 0 || host->n_deleted > 0))
        round_begin(host);
}
