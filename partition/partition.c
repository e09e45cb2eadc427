/* Opening, closing and describing a partition; the shard they share. */
#include "partition/partition.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "partition/partition_impl.h"

/* How often retention and expiry are looked at: well below any time a user
 * would set, and cheap (no file is touched). */
#define MAINTENANCE_MS 5000
/* A directory's name begins with this much of the partition's. */
#define DIR_NAME_PART 180

/* ---- lists --------------------------------------------------------------- */
void list_move(struct partition_link *to, struct partition_link *from)
{
    if (!list_empty(from)) {
        from->next->prev = to->prev;
        to->prev->next = from->next;
        from->prev->next = to;
        to->prev = from->prev;
        link_init(from);
    }
}

#define REMOVAL_AGAIN_MS 1000
#define SCRUB_MS 250 /* as repair.c counts its rate */

static void scrub_tick(struct env_timer *timer)
{
    repair_scrub(timer->arg);
    env_timer_start(timer, SCRUB_MS);
}

/* ---- shard --------------------------------------------------------------- */
struct partition_shard *partition_shard_new(
    const struct partition_shard_options *options)
{
    struct partition_shard *shard = mem_zalloc(sizeof *shard);
    shard->options = *options;
    shard->dir = mem_strdup(options->dir);
    shard->files = file_cache_new(options->env, options->open_files_max);
    link_init(&shard->partitions);
    link_init(&shard->reads);
    link_init(&shard->aheads);
    if (shard->options.lent_bytes_max == 0) {
        shard->options.lent_bytes_max = options->read_bytes_max;
    }
    env_timer_init(options->env, &shard->maintenance, retention_run, shard);
    env_timer_start(&shard->maintenance, MAINTENANCE_MS);
    env_timer_init(options->env, &shard->scrub, scrub_tick, shard);
    env_timer_start(&shard->scrub, SCRUB_MS);
    return shard;
}

void partition_shard_free(struct partition_shard *shard)
{
    ASSERT(list_empty(&shard->partitions) && list_empty(&shard->reads));
    ASSERT(shard->read_bytes == 0);
    env_timer_stop(&shard->maintenance);
    env_timer_stop(&shard->scrub);
    file_cache_free(shard->files);
    mem_free(shard->dir);
    mem_free(shard);
}

static void removals_leave(struct partition_shard *shard);

static void shard_emptied(struct partition_shard *shard)
{
    void (*emptied)(void *arg) = shard->emptied;
    if (emptied != NULL && list_empty(&shard->partitions)) {
        shard->emptied = NULL;
        emptied(shard->emptied_arg);
    }
}

void partition_shard_when_empty(struct partition_shard *shard,
                                void (*cb)(void *arg), void *arg)
{
    ASSERT(shard->emptied == NULL);
    removals_leave(shard);
    shard->emptied = cb;
    shard->emptied_arg = arg;
    shard_emptied(shard);
}

void partition_work(struct env *env, struct env_work *work,
                    void (*run)(struct env_work *work),
                    void (*done)(struct env_work *work), void *arg)
{
    *work = (struct env_work){.run = run, .done = done, .arg = arg};
    env_work_submit(env, ENV_POOL_IO, work);
}

/* ---- open and close ------------------------------------------------------ */
static char *dir_of(const struct partition_shard *shard,
                    const struct group_creation *creation, const char *name)
{
    char path[LIMIT_PATH], topic[UUID_TEXT_SIZE];
    uuid_format(&creation->id.topic, topic);
    /* The replica's number tells it from an earlier replica of the same
     * partition whose files are still being removed. */
    int n = snprintf(path, sizeof path, "%s/%.*s.%s.%llu", shard->dir,
                     DIR_NAME_PART, name, topic,
                     (unsigned long long)creation->self);
    ASSERT(n > 0 && n < LIMIT_PATH);
    return mem_strdup(path);
}

bool partition_dir_read(const char *name, struct uuid *topic,
                        replica_id *replica)
{
    char text[UUID_TEXT_SIZE];
    const char *number = strrchr(name, '.');
    if (number == NULL || number[1] == '\0' ||
        strspn(number + 1, "0123456789") != strlen(number + 1) ||
        number - name < UUID_TEXT_SIZE) {
        return false;
    }
    const char *id = number - (UUID_TEXT_SIZE - 1);
    memcpy(text, id, UUID_TEXT_SIZE - 1);
    text[UUID_TEXT_SIZE - 1] = '\0';
    *replica = strtoull(number + 1, NULL, 10);
    return id[-1] == '.' && uuid_parse(text, topic);
}

bool partition_shard_has_dir(const struct partition_shard *shard,
                             const char *name)
{
    struct uuid topic;
    replica_id replica;
    struct partition *p = NULL;
    if (partition_dir_read(name, &topic, &replica)) {
        HASH_FIND(hh, shard->by_replica, &replica, sizeof replica, p);
    }
    return p != NULL && strcmp(strrchr(p->dir, '/') + 1, name) == 0;
}

static void partition_turn(struct env_deferred *d);

static struct partition *partition_new(struct partition_shard *shard,
                                       const struct group_creation *creation,
                                       const char *name)
{
    struct partition *p = mem_zalloc(sizeof *p);
    p->shard = shard;
    p->env = shard->options.env;
    p->number = shard->next_number++;
    p->id = creation->id;
    p->replica = creation->self;
    p->name = mem_strdup(name);
    p->dir = dir_of(shard, creation, name);
    p->producers = producers_new();
    p->leader_epoch = -1;
    p->next_generation = 1;
    p->era = 1;
    p->refs = 1;
    link_init(&p->wait_commit);
    link_init(&p->wait_durable);
    link_init(&p->wait_room);
    link_init(&p->done);
    link_init(&p->deletes);
    link_init(&p->deletes_done);
    link_init(&p->offsets_done);
    link_init(&p->waiters);
    env_timer_init(p->env, &p->leaderless, partition_leaderless, p);
    p->turn.cb = partition_turn;
    p->turn.arg = p;
    link_add(&shard->partitions, &p->link);
    HASH_ADD(hh, shard->by_replica, replica, sizeof p->replica, p);
    return p;
}

static void partition_free(struct partition *p)
{
    struct partition_shard *shard = p->shard;
    repair_forget(p);
    link_remove(&p->link);
    HASH_DELETE(hh, shard->by_replica, p);
    file_cache_forget(p->shard->files, p->number, -1);
    epochs_free(&p->epochs);
    producers_free(p->producers);
    ASSERT(p->compaction == NULL);
    mem_free(p->closed_segments);
    mem_free(p->retired);
    mem_free(p->ring.entries);
    mem_free(p->name);
    mem_free(p->dir);
    mem_free(p);
    shard_emptied(shard);
}

enum err partition_open(struct partition_shard *shard,
                        const struct group_creation *creation, const char *name,
                        const struct partition_config *config,
                        const struct partition_ops *ops, void *arg,
                        struct partition **out)
{
    struct partition *p = partition_new(shard, creation, name);
    struct group *group = NULL;
    p->config = *config;
    p->ops = *ops;
    p->arg = arg;
    p->opening = true;
    enum err status = raft_host_create(shard->options.host, creation,
                                       &partition_group_ops, p, &group);
    if (status == ERR_EXISTS) {
        status = raft_host_open(shard->options.host, &creation->id,
                                &partition_group_ops, p, &group);
    }
    p->opening = false;
    if (status != ERR_OK) {
        ASSERT(!p->turn_queued);
        partition_free(p);
        return status;
    }
    p->group = group;
    *out = p;
    return ERR_OK;
}

void partition_configure(struct partition *p,
                         const struct partition_config *config)
{
    p->config = *config;
}

void partition_delete(struct partition *p)
{
    if (p->deleting || p->group == NULL) {
        return;
    }
    p->deleting = true;
    if (raft_host_delete(p->shard->options.host, p->group) != ERR_OK) {
        p->deleting = false; /* its files stay with the group */
    }
}

static void partition_gone(struct partition *p)
{
    void (*closed)(void *arg, struct partition *partition) = p->ops.closed;
    if (closed != NULL) {
        closed(p->arg, p);
    }
    partition_free(p);
}

static void removal_run(struct env_work *work)
{
    struct partition *p = work->arg;
    p->removal_status = env_dir_remove(p->env, p->dir);
    if (p->removal_status == ERR_NOT_FOUND) {
        p->removal_status = ERR_OK;
    }
}

static void removal_again(struct env_timer *timer);

/* What could not be removed is tried again, told once; who stops leaves it to
 * the next start. */
static void removal_done(struct env_work *work)
{
    struct partition *p = work->arg;
    bool failed = p->removal_status != ERR_OK;
    if (failed && !p->removal_told) {
        log_warn("partition",
                 "%s: files of the deleted replica stay in %s until they can "
                 "be removed: %s",
                 p->name, p->dir, err_text(p->removal_status));
    } else if (!failed && p->removal_told) {
        log_info("partition", "%s: files of the deleted replica are removed",
                 p->name);
    }
    p->removal_told |= failed;
    if (!failed || p->shard->emptied != NULL) {
        partition_gone(p);
        return;
    }
    p->removal_waits = true;
    env_timer_init(p->env, &p->removal_timer, removal_again, p);
    env_timer_start(&p->removal_timer, REMOVAL_AGAIN_MS);
}

static void removal_again(struct env_timer *timer)
{
    struct partition *p = timer->arg;
    p->removal_waits = false;
    partition_work(p->env, &p->removal, removal_run, removal_done, p);
}

/* Nobody waits for a removal to be tried again. */
static void removals_leave(struct partition_shard *shard)
{
    struct partition_link *l, *next;
    for (l = shard->partitions.next; l != &shard->partitions; l = next) {
        struct partition *p = LINK_OF(struct partition, link, l);
        next = l->next;
        if (p->removal_waits) {
            env_timer_stop(&p->removal_timer);
            partition_gone(p);
        }
    }
}

void partition_ref(struct partition *p)
{
    ASSERT(p->refs > 0);
    p->refs++;
}

void partition_unref(struct partition *p)
{
    ASSERT(p->refs > 0);
    if (--p->refs > 0) {
        return;
    }
    ASSERT(p->closed);
    if (!p->deleting) {
        partition_gone(p);
        return;
    }
    file_cache_forget(p->shard->files, p->number, -1);
    partition_work(p->env, &p->removal, removal_run, removal_done, p);
}

/* ---- the end of a turn --------------------------------------------------- */
static void wake_waiters(struct partition *p)
{
    struct partition_link woken;
    link_init(&woken);
    list_move(&woken, &p->waiters);
    while (!list_empty(&woken)) {
        struct partition_waiter *w =
            LINK_OF(struct partition_waiter, link, woken.next);
        link_remove(&w->link);
        w->wake(w);
    }
}

static void partition_turn(struct env_deferred *d)
{
    struct partition *p = d->arg;
    p->turn_queued = false;
    produce_finish_turn(p);
    delete_records_turn(p);
    list_offset_turn(p);
    if (p->wake) {
        p->wake = false;
        wake_waiters(p);
    }
    partition_unref(p);
}

void partition_turn_later(struct partition *p)
{
    if (!p->turn_queued) {
        p->turn_queued = true;
        partition_ref(p);
        env_defer(p->env, &p->turn);
    }
}

void partition_wait(struct partition *p, struct partition_waiter *waiter)
{
    link_remove(&waiter->link);
    link_add(&p->waiters, &waiter->link);
    if (p->closed) {
        p->wake = true;
        partition_turn_later(p);
    }
}

void partition_unwait(struct partition_waiter *waiter)
{
    link_remove(&waiter->link);
}

/* ---- what it is ---------------------------------------------------------- */
struct group *partition_group(struct partition *p)
{
    return p->group;
}

const char *partition_name(const struct partition *p)
{
    return p->name;
}

void *partition_arg(const struct partition *p)
{
    return p->arg;
}

struct group_role partition_role(const struct partition *p)
{
    struct group_role none = {.leader = -1};
    return p->group == NULL ? none : group_role(p->group);
}

int32_t partition_leader_epoch(const struct partition *p)
{
    return p->leader_epoch;
}

kafka_offset partition_log_start(const struct partition *p)
{
    return p->log_start;
}

kafka_offset partition_high_watermark(const struct partition *p)
{
    return p->high_watermark;
}

kafka_offset partition_last_stable(const struct partition *p)
{
    return p->high_watermark; /* there are no transactions yet */
}

kafka_offset partition_end(const struct partition *p)
{
    return p->end;
}

kafka_offset partition_limit(const struct partition *p, int8_t isolation)
{
    return isolation == 0 ? partition_high_watermark(p)
                          : partition_last_stable(p);
}

int64_t partition_size_bytes(const struct partition *p)
{
    uint64_t bytes = p->end_bytes - p->settled.bytes + p->settled.position;
    for (size_t i = 0; i < p->n_closed_segments; i++) {
        bytes += p->closed_segments[i].bytes;
    }
    return (int64_t)bytes;
}

void partition_each_producer(const struct partition *p,
                             void (*each)(void *arg, int64_t producer_id,
                                          int16_t epoch,
                                          const struct producer_batch *last),
                             void *arg)
{
    producers_each(p->producers, each, arg);
}

enum kafka_error partition_check_epoch(const struct partition *p,
                                       int32_t current_leader_epoch)
{
    if (current_leader_epoch == -1 || p->leader_epoch < 0 ||
        current_leader_epoch == p->leader_epoch) {
        return KAFKA_NONE;
    }
    return current_leader_epoch < p->leader_epoch ? KAFKA_FENCED_LEADER_EPOCH
                                                  : KAFKA_UNKNOWN_LEADER_EPOCH;
}

enum kafka_error partition_offset_for_epoch(const struct partition *p,
                                            int32_t current_leader_epoch,
                                            int32_t epoch, int32_t *found_epoch,
                                            kafka_offset *end)
{
    *found_epoch = -1;
    end->v = -1;
    enum kafka_error error = partition_check_epoch(p, current_leader_epoch);
    if (error != KAFKA_NONE) {
        return error;
    }
    if (!partition_role(p).is_leader) {
        return KAFKA_NOT_LEADER_OR_FOLLOWER;
    }
    (void)epochs_end(&p->epochs, epoch, p->end, found_epoch, end);
    return KAFKA_NONE;
}

/* ---- segments ------------------------------------------------------------ */
size_t partition_segment_count(const struct partition *p)
{
    return p->n_closed_segments + (p->settled.slots > 0 ? 1 : 0);
}

struct segment partition_segment_at(const struct partition *p, size_t i)
{
    ASSERT(i < partition_segment_count(p));
    if (i < p->n_closed_segments) {
        return p->closed_segments[i];
    }
    return (struct segment){.base = p->settled.base,
                            .end = p->settled.next,
                            .bytes = p->settled.position,
                            .slots = p->settled.slots,
                            .max_timestamp = p->settled.running_max};
}

size_t partition_segment_find(const struct partition *p, kafka_offset offset)
{
    size_t i = partition_segment_count(p);
    while (i > 1 && partition_segment_at(p, i - 1).base.v > offset.v) {
        i--;
    }
    return i - 1;
}

static void view_take(struct partition *p, size_t i, bool past_cache,
                      struct segment_view *view)
{
    view->env = p->env;
    view->dir = p->dir;
    view->segment = partition_segment_at(p, i);
    view->era = p->era;
    view->past_cache = past_cache;
    p->views++;
    struct file_key key = {p->number, view->segment.base.v,
                           past_cache ? FILE_LOG_DIRECT : FILE_LOG,
                           view->segment.generation};
    file_cache_take(p->shard->files, &key, &view->log);
    key.kind = FILE_SIDE;
    file_cache_take(p->shard->files, &key, &view->side);
}

void partition_view_take(struct partition *p, size_t i,
                         struct segment_view *view)
{
    view_take(p, i, false, view);
}

void partition_view_take_direct(struct partition *p, size_t i,
                                struct segment_view *view)
{
    view_take(p, i, true, view);
}

void partition_view_give(struct partition *p, struct segment_view *view)
{
    file_cache_give(p->shard->files, &view->log);
    file_cache_give(p->shard->files, &view->side);
    if (view->era == 0) {
        return; /* was not taken */
    }
    uint32_t *views = view->era == p->era ? &p->views : &p->views_before;
    ASSERT(*views > 0);
    (*views)--;
    view->era = 0;
    retired_remove(p);
}

void segments_retire(struct partition *p, struct segment *segments, size_t n)
{
    ASSERT(p->n_retired == 0 && p->views_before == 0);
    p->retired = segments;
    p->n_retired = n;
    p->views_before = p->views;
    p->views = 0;
    p->era = p->era + 1 == 0 ? 1 : p->era + 1;
    retired_remove(p);
}

void retired_remove(struct partition *p)
{
    if (p->n_retired > 0 && p->views_before == 0) {
        segments_remove(p, p->retired, p->n_retired);
        mem_free(p->retired);
        p->retired = NULL;
        p->n_retired = 0;
    }
}

void partition_tell_damage(struct partition *p, kafka_offset offset)
{
    if (!p->damage_told) {
        p->damage_told = true;
        log_error("partition",
                  "%s: damaged bytes in a segment at offset %lld; they are "
                  "not served (directory %s)",
                  p->name, (long long)offset.v, p->dir);
    }
    repair_found(p, offset);
}
