#include "net/orphans.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "partition/partition.h"

struct orphan {
    struct orphan *next;
    bool stray;
    char name[]; /* of the directory */
};

struct orphans {
    char *dir;
    struct env *env;
    struct broker_shard *first;
    unsigned at; /* the shard being asked */
    struct env_post post;
    struct env_work work;
    struct orphan *list;
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
    mem_free(all->dir);
    mem_free(all);
}

static void note_name(void *arg, const char *name)
{
    struct orphans *all = arg;
    struct uuid topic;
    if (partition_dir_topic(name, &topic)) {
        size_t n = strlen(name) + 1;
        struct orphan *o = mem_zalloc(sizeof *o + n);
        memcpy(o->name, name, n);
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

static void remove_run(struct env_work *work)
{
    struct orphans *all = work->arg;
    for (struct orphan *o = all->list; o != NULL; o = o->next) {
        char path[LIMIT_PATH];
        int n = snprintf(path, sizeof path, "%s/%s", all->dir, o->name);
        if (n < 0 || n >= (int)sizeof path) {
            continue;
        }
        if (is_stray(all->env, o, path)) {
            log_warn("broker",
                     "stray: %s is of a topic that this cluster's metadata has "
                     "never known; it is kept and not served. If the metadata "
                     "was restored from an older copy, restore the newest one; "
                     "else remove the directory when nobody needs it",
                     path);
            continue;
        }
        enum err e = env_dir_remove(all->env, path);
        log_info("broker", "files of a deleted topic were left: removed %s%s%s",
                 path, e == ERR_OK ? "" : ": ", e == ERR_OK ? "" : err_text(e));
    }
}

static bool has_replica(const struct image_topic *topic, replica_id id)
{
    for (int32_t p = 0; p < topic->n_partitions; p++) {
        const struct image_partition *at = &topic->partitions[p];
        for (int i = 0; i < at->n_replicas; i++) {
            if (at->replicas[i].id == id) {
                return true;
            }
        }
    }
    return false;
}

/* Replica ids are never used twice: one of a deleted topic was given out, and
 * no other topic has it. Anything else is not what this metadata deleted. */
static bool was_deleted(const struct image *image, replica_id id)
{
    const struct image_topic *const *topics = NULL;
    int n = image_topics(image, &topics);
    if (id == 0 || id >= image_next_replica(image)) {
        return false;
    }
    for (int i = 0; i < n; i++) {
        if (has_replica(topics[i], id)) {
            return false;
        }
    }
    return true;
}

static void remove_done(struct env_work *work)
{
    orphans_free(work->arg);
}

/* The group whose topic is gone, of this shard. */
static void delete_group(void *arg, const struct group_creation *creation)
{
    struct broker_shard *s = arg;
    struct group *g = raft_host_find(s->host, &creation->id);
    char topic[UUID_TEXT_SIZE];
    if (g == NULL || image_topic_by_id(s->image, &creation->id.topic) != NULL ||
        shard_find_partition(s, &creation->id) != NULL) {
        return; /* in use, or about to be deleted with its partition */
    }
    uuid_format(&creation->id.topic, topic);
    if (!was_deleted(s->image, creation->self)) {
        log_warn("broker",
                 "stray: the log has a replica of topic %s, partition %d, that "
                 "this cluster's metadata has never known; it is kept and not "
                 "served",
                 topic, (int)creation->id.partition);
        return;
    }
    log_info("broker", "replica of a deleted topic was left: %s-%d", topic,
             (int)creation->id.partition);
    (void)!raft_host_delete(s->host, g); /* stopping: at the next start */
}

/* On each shard's thread: keeps in the list what no topic has. */
static void shard_look(struct orphans *all, struct broker_shard *s)
{
    for (struct orphan **at = &all->list; *at != NULL;) {
        struct uuid topic;
        if (!partition_dir_topic((*at)->name, &topic) ||
            image_topic_by_id(s->image, &topic) != NULL ||
            partition_shard_has_dir(s->partitions_of, (*at)->name)) {
            drop(at); /* in use, or its owner removes it */
        } else {
            const char *id = strrchr((*at)->name, '.') + 1;
            (*at)->stray = !was_deleted(s->image, strtoull(id, NULL, 10));
            at = &(*at)->next;
        }
    }
    raft_host_recovered(s->host, delete_group, s);
}

static void shard_asked(struct env_post *post)
{
    struct orphans *all = post->arg;
    struct broker *b = all->first->broker;
    struct broker_shard *s = broker_shard(b, all->at);
    if (s->host == NULL) { /* the broker stops: at the next start */
        orphans_free(all);
        return;
    }
    shard_look(all, s);
    all->at++;
    if (all->at < broker_n_shards(b)) {
        env_post(broker_shard(b, all->at)->env, &all->post);
    } else if (all->list != NULL) {
        all->env = s->env;
        all->work = (struct env_work){.run = remove_run,
                                      .done = remove_done,
                                      .arg = all,
                                      .env = all->env};
        env_work_submit(all->env, ENV_POOL_IO, &all->work);
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
