#include "net/orphans.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/broker_impl.h"
#include "partition/partition.h"

#define REMOVE_AGAIN_MS 1000
/* Of what is looked at, and of groups that are deleted, in one turn of a loop:
 * thousands at once would keep it from its peers. */
#define LOOKS_AT_ONCE 1024
#define DELETES_AT_ONCE 64

struct orphan {
    struct orphan *next;
    replica_id replica;
    bool stray;
    bool done, told;
    char name[]; /* of the directory */
};

/* A group that the log has and no topic. */
struct left_group {
    struct group_id id;
    replica_id replica;
};

enum step { STEP_OPENING, STEP_DIRS, STEP_GROUPS };

struct orphans {
    char *dir;
    struct env *env;
    struct broker_shard *first;
    struct broker_shard *remover; /* whose workers remove them */
    unsigned at;                  /* the shard being asked */
    enum step step;
    struct env_post post;
    struct env_work work;
    struct env_timer again;
    struct orphan *list;
    struct orphan **look; /* at the next one; at NULL: all were looked at */
    struct left_group *groups;
    size_t n_groups, groups_size;
};

static void drop(struct orphan **at)
{
    struct orphan *o = *at;
    *at = o->next;
    mem_free(o);
}

static void orphans_free(struct orphans *all)
{
    while (all->list != NULL) {
        drop(&all->list);
    }
    mem_free(all->groups);
    mem_free(all->dir);
    mem_free(all);
}

static void note_name(void *arg, const char *name)
{
    struct orphans *all = arg;
    struct uuid topic;
    replica_id replica;
    if (partition_dir_read(name, &topic, &replica)) {
        size_t n = strlen(name) + 1;
        struct orphan *o = mem_zalloc(sizeof *o + n);
        memcpy(o->name, name, n);
        o->replica = replica;
        o->next = all->list;
        all->list = o;
    }
}

static void list_run(struct env_work *work)
{
    struct orphans *all = work->arg;
    (void)!env_dir_list(all->env, all->dir, note_name, all);
}

/* Marks a stray: the number of its replica may be given out later. */
#define STRAY_FILE "stray"
static const char stray_text[] =
    "The cluster's metadata did not know this replica when a broker was started"
    " here.\nIt is neither served nor removed; when nobody needs it, remove the"
    " directory.\n";

/* Is it a stray, or was it one? Marks it then. */
static bool is_stray(struct env *env, const struct orphan *o, const char *path)
{
    char mark[LIMIT_PATH];
    struct env_file *file;
    int n = snprintf(mark, sizeof mark, "%s/" STRAY_FILE, path);
    if (n < 0 || n >= (int)sizeof mark) {
        return true;
    }
    enum err e = env_file_open(env, mark, ENV_FILE_READ, &file);
    if (e == ERR_OK) {
        env_file_close(file);
    } else if (o->stray) {
        (void)!env_file_write_whole(env, mark, stray_text,
                                    sizeof stray_text - 1);
    }
    return o->stray || e != ERR_NOT_FOUND;
}

static void remove_one(struct orphans *all, struct orphan *o, const char *path)
{
    o->done = true;
    if (is_stray(all->env, o, path)) {
        log_warn("broker",
                 "stray: %s is of a topic that this cluster's metadata has "
                 "never known; it is kept and not served. If the metadata "
                 "was restored from an older copy, restore the newest one; "
                 "else remove the directory when nobody needs it",
                 path);
        return;
    }
    enum err e = env_dir_remove(all->env, path);
    if (e == ERR_OK || e == ERR_NOT_FOUND) {
        log_info("broker", "files of a deleted topic were left: removed %s",
                 path);
        return;
    }
    o->done = false;
    if (!o->told) {
        log_warn("broker",
                 "files of a deleted topic stay in %s until they can be "
                 "removed: %s",
                 path, err_text(e));
    }
    o->told = true;
}

static void remove_run(struct env_work *work)
{
    struct orphans *all = work->arg;
    for (struct orphan *o = all->list; o != NULL; o = o->next) {
        char path[LIMIT_PATH];
        int n = snprintf(path, sizeof path, "%s/%s", all->dir, o->name);
        if (n < 0 || n >= (int)sizeof path) {
            o->done = true;
        } else {
            remove_one(all, o, path);
        }
    }
}

/* ---- was it deleted? ----------------------------------------------------- */
/* Numbers of replicas, and which of them topics have. */
struct numbers {
    replica_id *list; /* sorted */
    bool *held;
    size_t n;
    replica_id next; /* those below were given out */
};

static int by_number(const void *a, const void *b)
{
    const replica_id *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static size_t number_place(const struct numbers *all, replica_id id)
{
    const replica_id *found =
        all->n == 0 ? NULL
                    : bsearch(&id, all->list, all->n, sizeof id, by_number);
    return found == NULL ? all->n : (size_t)(found - all->list);
}

static void topic_mark(struct numbers *all, const struct image_topic *topic)
{
    for (int32_t p = 0; p < topic->n_partitions; p++) {
        const struct image_partition *at = &topic->partitions[p];
        for (int i = 0; i < at->n_replicas; i++) {
            size_t place = number_place(all, at->replicas[i].id);
            if (place < all->n) {
                all->held[place] = true;
            }
        }
    }
}

/* Sorts them, and goes through the image once. */
static void numbers_look_up(struct numbers *all, const struct image *image)
{
    const struct image_topic *const *topics = NULL;
    int n_topics = image_topics(image, &topics);
    size_t n = 0;
    if (all->n > 0) {
        qsort(all->list, all->n, sizeof *all->list, by_number);
    }
    for (size_t i = 0; i < all->n; i++) {
        if (i == 0 || all->list[i] != all->list[n - 1]) {
            all->list[n++] = all->list[i];
        }
    }
    all->n = n;
    all->held = mem_zalloc((n + 1) * sizeof *all->held);
    all->next = image_next_replica(image);
    for (int i = 0; i < n_topics && n > 0; i++) {
        topic_mark(all, topics[i]);
    }
}

static void numbers_free(struct numbers *all)
{
    mem_free(all->list);
    mem_free(all->held);
}

/* Replica ids are never used twice: one of a deleted topic was given out, and
 * no other topic has it. Anything else is not what this metadata deleted. */
static bool was_deleted(const struct numbers *all, replica_id id)
{
    size_t place = number_place(all, id);
    return id != 0 && id < all->next && !(place < all->n && all->held[place]);
}

/* ---- directories --------------------------------------------------------- */
/* On each shard's thread: keeps in the list what no topic has. False: more is
 * to be looked at. */
static bool look_at_dirs(struct orphans *all, struct broker_shard *s)
{
    for (int i = 0; i < LOOKS_AT_ONCE && *all->look != NULL; i++) {
        struct orphan *o = *all->look;
        struct uuid topic;
        replica_id replica;
        if (!partition_dir_read(o->name, &topic, &replica) ||
            image_topic_by_id(s->image, &topic) != NULL ||
            partition_shard_has_dir(s->partitions_of, o->name)) {
            drop(all->look); /* in use, or its owner removes it */
        } else {
            all->look = &o->next;
        }
    }
    return *all->look == NULL;
}

/* Those that nobody has: deleted, or never known? */
static void dirs_judge(struct orphans *all, const struct image *image)
{
    struct numbers numbers = {0};
    size_t n = 0;
    for (const struct orphan *o = all->list; o != NULL; o = o->next) {
        n++;
    }
    numbers.list = mem_alloc((n + 1) * sizeof *numbers.list);
    for (const struct orphan *o = all->list; o != NULL; o = o->next) {
        numbers.list[numbers.n++] = o->replica;
    }
    numbers_look_up(&numbers, image);
    for (struct orphan *o = all->list; o != NULL; o = o->next) {
        o->stray = !was_deleted(&numbers, o->replica);
    }
    numbers_free(&numbers);
}

static void remove_begin(struct orphans *all);

static void remove_again(struct env_timer *timer)
{
    struct orphans *all = timer->arg;
    all->remover->orphans = NULL;
    remove_begin(all);
}

/* What could not be removed is tried again; who stops leaves it to the next
 * start. */
static void remove_done(struct env_work *work)
{
    struct orphans *all = work->arg;
    for (struct orphan **at = &all->list; *at != NULL;) {
        if ((*at)->done) {
            drop(at);
        } else {
            at = &(*at)->next;
        }
    }
    if (all->list == NULL || all->remover->closing ||
        all->remover->orphans != NULL) {
        orphans_free(all);
        return;
    }
    all->remover->orphans = all;
    env_timer_init(all->env, &all->again, remove_again, all);
    env_timer_start(&all->again, REMOVE_AGAIN_MS);
}

static void remove_begin(struct orphans *all)
{
    all->work = (struct env_work){
        .run = remove_run, .done = remove_done, .arg = all, .env = all->env};
    env_work_submit(all->env, ENV_POOL_IO, &all->work);
}

static void dirs_remove(struct orphans *all, struct broker_shard *s)
{
    dirs_judge(all, s->image);
    all->env = s->env;
    all->remover = s;
    remove_begin(all);
}

void orphans_leave(struct broker_shard *s)
{
    struct orphans *all = s->orphans;
    s->orphans = NULL;
    if (all != NULL) {
        env_timer_stop(&all->again);
        orphans_free(all);
    }
}

/* ---- groups -------------------------------------------------------------- */
/* No topic has it, nor a partition that is about to be deleted with it. */
static bool is_left(struct broker_shard *s, const struct group_id *id)
{
    return image_topic_by_id(s->image, &id->topic) == NULL &&
           shard_find_partition(s, id) == NULL;
}

static void note_group(void *arg, const struct group_creation *creation)
{
    struct orphans *all = arg;
    struct broker_shard *s = broker_shard(all->first->broker, all->at);
    if (!is_left(s, &creation->id)) {
        return;
    }
    if (all->n_groups == all->groups_size) {
        all->groups_size = all->groups_size == 0 ? 64 : all->groups_size * 2;
        all->groups =
            mem_realloc(all->groups, all->groups_size * sizeof *all->groups);
    }
    all->groups[all->n_groups++] =
        (struct left_group){creation->id, creation->self};
}

static void tell_stray(const struct left_group *left)
{
    char topic[UUID_TEXT_SIZE];
    uuid_format(&left->id.topic, topic);
    log_warn("broker",
             "stray: the log has a replica of topic %s, partition %d, that "
             "this cluster's metadata has never known; it is kept and not "
             "served",
             topic, (int)left->id.partition);
}

/* The groups that recovery found here and no topic has, without strays. */
static void groups_begin(struct orphans *all, struct broker_shard *s)
{
    struct numbers numbers = {0};
    size_t kept = 0;
    all->n_groups = 0;
    raft_host_recovered(s->host, note_group, all);
    numbers.n = all->n_groups;
    numbers.list = mem_alloc((numbers.n + 1) * sizeof *numbers.list);
    for (size_t i = 0; i < all->n_groups; i++) {
        numbers.list[i] = all->groups[i].replica;
    }
    numbers_look_up(&numbers, s->image);
    for (size_t i = 0; i < all->n_groups; i++) {
        if (was_deleted(&numbers, all->groups[i].replica)) {
            all->groups[kept++] = all->groups[i];
        } else {
            tell_stray(&all->groups[i]);
        }
    }
    all->n_groups = kept;
    numbers_free(&numbers);
}

/* The last ones of them; false: there are more. */
static bool groups_delete(struct orphans *all, struct broker_shard *s)
{
    for (int i = 0; i < DELETES_AT_ONCE && all->n_groups > 0; i++) {
        const struct left_group *left = &all->groups[--all->n_groups];
        struct group *g = raft_host_find(s->host, &left->id);
        char topic[UUID_TEXT_SIZE];
        if (g == NULL || !is_left(s, &left->id)) {
            continue;
        }
        uuid_format(&left->id.topic, topic);
        log_info("broker", "replica of a deleted topic was left: %s-%d", topic,
                 (int)left->id.partition);
        (void)!raft_host_delete(s->host, g); /* stopping: at the next start */
    }
    return all->n_groups == 0;
}

/* ---- the way through all shards ------------------------------------------ */
static void shard_asked(struct env_post *post);

/* One piece of the work on this shard; true: that was the last one. */
static bool shard_step(struct orphans *all, struct broker_shard *s)
{
    switch (all->step) {
        case STEP_OPENING:
            all->look = &all->list;
            all->step = STEP_DIRS;
            shard_partitions_when_open(s, &all->post);
            return false;
        case STEP_DIRS:
            if (look_at_dirs(all, s)) {
                groups_begin(all, s);
                all->step = STEP_GROUPS;
            }
            break;
        case STEP_GROUPS:
            if (groups_delete(all, s)) {
                all->step = STEP_OPENING;
                return true;
            }
            break;
    }
    env_post(s->env, &all->post);
    return false;
}

static void shard_asked(struct env_post *post)
{
    struct orphans *all = post->arg;
    struct broker *b = all->first->broker;
    struct broker_shard *s = broker_shard(b, all->at);
    if (s->host == NULL || s->closing) { /* at the next start */
        orphans_free(all);
    } else if (!shard_step(all, s)) {
        return; /* posted again */
    } else if (++all->at < broker_n_shards(b)) {
        env_post(broker_shard(b, all->at)->env, &all->post);
    } else if (all->list != NULL) {
        dirs_remove(all, s);
    } else {
        orphans_free(all);
    }
}

static void list_done(struct env_work *work)
{
    struct orphans *all = work->arg;
    shard_asked(&all->post);
}

void orphans_sweep(struct broker_shard *first, const char *partitions)
{
    struct orphans *all = mem_zalloc(sizeof *all);
    all->dir = mem_strdup(partitions);
    all->env = first->env;
    all->first = first;
    all->post = (struct env_post){.cb = shard_asked, .arg = all};
    all->work = (struct env_work){
        .run = list_run, .done = list_done, .arg = all, .env = first->env};
    env_work_submit(first->env, ENV_POOL_IO, &all->work);
}
