/* Looks into the brokers after each of their events: Raft's safety properties,
 * the rules of the store, watermarks. It only reads. For each group it keeps
 * what was ever committed, who led which term, and for each replica what it
 * claimed to be durable, so that a crash shows whether that was true.
 *
 * An entry is known by its term and its print (type, size, CRC). By the
 * induction of log matching it is enough to look at entries that are new since
 * the last event of the broker. */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "net/shard.h"
#include "partition/partition_impl.h"
#include "raft/group_impl.h"
#include "tests/sim/whole/impl.h"

#define SHARDS_MAX 4

/* A replica as it was seen last; survives its broker's crashes. */
struct seen_replica {
    unsigned starts; /* of the broker, when it was seen last; 0: never */
    const struct group *group;
    uint64_t term, last, last_term, commit, applied;
    uint64_t durable, durable_term; /* claimed, and its entry's term */
    uint64_t checked;               /* commits compared up to here */
    uint64_t led_term;              /* as leader: of this term */
    uint64_t voted_term, voted;     /* newest durable vote */
    bool ready;
    int64_t watermark;
};

struct seen_entry {
    uint64_t term, print;
};

/* What is in the log of anybody: by index, a list of (term, print). */
struct log_entry_seen {
    uint64_t term, before, print; /* before: term of the entry before it */
    struct log_entry_seen *next;
};

struct seen_group {
    struct group_id id;
    UT_hash_handle hh;
    int n_replicas, replicas[GROUP_REPLICAS_MAX]; /* brokers */
    uint64_t committed;                           /* by anybody */
    struct seen_entry *entries;                   /* committed, by index */
    struct log_entry_seen **logs;
    uint64_t size;
    int *leaders;                  /* by term: broker + 1 */
    uint64_t n_terms, newest_term; /* newest: that anybody led */
    int64_t watermark;             /* the highest of any replica, ever */
    struct seen_replica seen[BROKERS_MAX];
};

struct probe {
    struct world *world;
    struct seen_group *groups;
    /* by slot of the host: what was found there last */
    struct seen_group **cache[BROKERS_MAX][SHARDS_MAX];
    uint32_t cache_size[BROKERS_MAX][SHARDS_MAX];
    uint64_t written[BROKERS_MAX][SHARDS_MAX]; /* the log's last position */
};

/* Of a topic that is being deleted nothing needs to hold: a broker that ends
 * while it deletes may find it in an older image again, and begins it empty. */
static void fail(struct probe *p, const struct seen_group *g, int b,
                 const char *format, ...) __attribute__((format(printf, 4, 5)));
static void fail(struct probe *p, const struct seen_group *g, int b,
                 const char *format, ...)
{
    char text[512], id[UUID_TEXT_SIZE];
    va_list args;
    if (admins_delete(p->world, &g->id.topic)) {
        return;
    }
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    uuid_format(&g->id.topic, id);
    sim_fail(p->world->sim, "b%d group %s-%d: %s", b, id, g->id.partition,
             text);
}

/* ---- finding ------------------------------------------------------------- */
static struct seen_group *group_make(struct probe *p, const struct group *group)
{
    struct seen_group *g = NULL;
    HASH_FIND(hh, p->groups, &group->creation.id, sizeof g->id, g);
    if (g != NULL) {
        return g;
    }
    g = calloc(1, sizeof *g);
    g->id = group->creation.id;
    g->n_replicas = group->creation.n_replicas;
    for (int i = 0; i < g->n_replicas; i++) {
        g->replicas[i] = group->creation.replicas[i].node - 1;
    }
    HASH_ADD(hh, p->groups, id, sizeof g->id, g);
    return g;
}

static void *grown(void *p, size_t size)
{
    p = realloc(p, size);
    ASSERT(p != NULL);
    return p;
}

static struct seen_group *group_seen(struct probe *p, int b, unsigned shard,
                                     uint32_t slot, const struct group *group)
{
    uint32_t *size = &p->cache_size[b][shard];
    struct seen_group ***cache = &p->cache[b][shard];
    if (slot >= *size) {
        uint32_t n = slot + 32;
        *cache = grown(*cache, n * sizeof **cache);
        memset(*cache + *size, 0, (n - *size) * sizeof **cache);
        *size = n;
    }
    struct seen_group *g = (*cache)[slot];
    if (g == NULL || memcmp(&g->id, &group->creation.id, sizeof g->id) != 0) {
        g = (*cache)[slot] = group_make(p, group);
    }
    return g;
}

static void group_grow(struct seen_group *g, uint64_t index)
{
    uint64_t size = g->size == 0 ? 256 : g->size;
    while (size <= index) {
        size *= 2;
    }
    if (size == g->size) {
        return;
    }
    g->entries = grown(g->entries, size * sizeof *g->entries);
    g->logs = grown(g->logs, size * sizeof(struct log_entry_seen *));
    memset(g->entries + g->size, 0, (size - g->size) * sizeof *g->entries);
    memset(g->logs + g->size, 0,
           (size - g->size) * sizeof(struct log_entry_seen *));
    g->size = size;
}

static uint64_t print_of(const struct group_entry *e)
{
    return ((uint64_t)e->crc << 32 | e->size) * 8 + (uint64_t)e->type + 1;
}

/* ---- log matching -------------------------------------------------------- */
/* True: this entry was seen before, so what is before it was looked at. */
static bool log_entry_check(struct probe *p, struct seen_group *g, int b,
                            const struct group_entry *e, uint64_t before)
{
    group_grow(g, e->index.v);
    for (struct log_entry_seen *s = g->logs[e->index.v]; s != NULL;
         s = s->next) {
        if (s->term != e->term.v) {
            continue;
        }
        if (s->print != print_of(e) ||
            (before != 0 && s->before != 0 && s->before != before)) {
            fail(p, g, b, "log matching: index %llu term %llu",
                 (unsigned long long)e->index.v, (unsigned long long)s->term);
        }
        return true;
    }
    struct log_entry_seen *s = malloc(sizeof *s);
    *s = (struct log_entry_seen){e->term.v, before, print_of(e),
                                 g->logs[e->index.v]};
    g->logs[e->index.v] = s;
    return false;
}

/* Back from the last entry to the one that was the last before. */
static void check_log(struct probe *p, struct seen_group *g, int b,
                      const struct group *group, uint64_t last, uint64_t known)
{
    struct group_entry e;
    for (uint64_t i = last; i > 0 && group_entry_at(group, (log_index){i}, &e);
         i--) {
        bool seen = log_entry_check(p, g, b, &e, group_term_at(group, i - 1));
        if (seen && i <= known) {
            break;
        }
    }
}

/* ---- elections ----------------------------------------------------------- */
static void check_leader(struct probe *p, struct seen_group *g, int b,
                         const struct group *group, struct seen_replica *s)
{
    uint64_t term = group->raft.current_term;
    if (s->led_term == term) {
        return;
    }
    s->led_term = term;
    while (g->n_terms <= term) {
        uint64_t n = g->n_terms == 0 ? 32 : g->n_terms * 2;
        g->leaders = grown(g->leaders, n * sizeof *g->leaders);
        memset(g->leaders + g->n_terms, 0,
               (n - g->n_terms) * sizeof *g->leaders);
        g->n_terms = n;
    }
    if (g->leaders[term] != 0 && g->leaders[term] != b + 1) {
        fail(p, g, b, "election safety: b%d led term %llu too",
             g->leaders[term] - 1, (unsigned long long)term);
    }
    if (term > g->newest_term) {
        g->newest_term = term;
    }
    if (g->leaders[term] == 0) {
        p->world->result.elections++;
    }
    g->leaders[term] = b + 1;
    if (term < g->newest_term) {
        return; /* elected, but told late: newer leaders committed meanwhile */
    }
    uint64_t at = g->committed;
    if (at > 0 && group_last_index(group).v < at) {
        fail(p, g, b, "leader completeness: committed %llu, last %llu",
             (unsigned long long)at,
             (unsigned long long)group_last_index(group).v);
    }
    if (at >= group->table.first && g->entries[at].term != 0 &&
        group_term_at(group, at) != g->entries[at].term) {
        fail(p, g, b, "leader completeness: index %llu of term %llu, not %llu",
             (unsigned long long)at,
             (unsigned long long)group_term_at(group, at),
             (unsigned long long)g->entries[at].term);
    }
}

static void check_vote(struct probe *p, struct seen_group *g, int b,
                       const struct group *group, struct seen_replica *s)
{
    if (group->vote_position > group->host->durable || group->vote == 0) {
        return; /* nobody was told yet */
    }
    if (group->term == s->voted_term && group->vote != s->voted) {
        fail(p, g, b, "two votes in term %llu",
             (unsigned long long)group->term);
    }
    s->voted_term = group->term;
    s->voted = group->vote;
}

/* ---- commits ------------------------------------------------------------- */
/* How many replicas say that they have this entry on disk. */
static int claimed_durable(const struct seen_group *g, uint64_t index)
{
    int n = 0;
    for (int i = 0; i < g->n_replicas; i++) {
        n += g->seen[g->replicas[i]].durable >= index;
    }
    return n;
}

static void check_commit(struct probe *p, struct seen_group *g, int b,
                         const struct group *group, struct seen_replica *s,
                         uint64_t commit)
{
    struct group_entry e;
    for (uint64_t i = s->checked + 1; i <= commit; i++) {
        if (!group_entry_at(group, (log_index){i}, &e)) {
            continue; /* it came settled */
        }
        struct seen_entry now = {e.term.v, print_of(&e)};
        group_grow(g, i);
        if (g->entries[i].term == 0) {
            g->entries[i] = now;
        } else if (g->entries[i].term != now.term ||
                   g->entries[i].print != now.print) {
            fail(p, g, b,
                 "state machine safety: index %llu of term %llu, not %llu",
                 (unsigned long long)i, (unsigned long long)now.term,
                 (unsigned long long)g->entries[i].term);
        }
    }
    s->checked = commit;
    if (commit > g->committed) {
        /* entry 1 is everybody's, by the creation record */
        if (commit > 1 && claimed_durable(g, commit) < g->n_replicas / 2 + 1) {
            fail(p, g, b, "index %llu is committed, but durable on %d of %d",
                 (unsigned long long)commit, claimed_durable(g, commit),
                 g->n_replicas);
        }
        g->committed = commit;
    }
}

static void check_watermark(struct probe *p, struct seen_group *g, int b,
                            const struct group *group, struct seen_replica *s)
{
    if (group_id_equal(&g->id, &GROUP_METADATA) || group->sm == NULL) {
        return;
    }
    const struct partition *partition = group->sm;
    int64_t watermark = partition_high_watermark(partition).v;
    if (watermark < s->watermark) {
        fail(p, g, b, "high watermark %lld after %lld", (long long)watermark,
             (long long)s->watermark);
    }
    s->watermark = watermark;
    /* One that was deposed meanwhile may hear late that it was ready. */
    if (group->role.ready && !s->ready && s->led_term == g->newest_term &&
        watermark < g->watermark) {
        fail(p, g, b, "a leader is ready at high watermark %lld of %lld",
             (long long)watermark, (long long)g->watermark);
    }
    s->ready = group->role.ready;
    if (watermark > g->watermark) {
        g->watermark = watermark;
    }
}

/* ---- one replica --------------------------------------------------------- */
/* In its last event before it was closed a replica may have taken what a leader
 * of a later term has there: what it had was not committed. */
static bool was_replaced(const struct seen_group *g, const struct group *group,
                         const struct seen_replica *s)
{
    uint64_t at = s->durable;
    if (at <= g->committed && at < g->size && g->entries[at].term != 0) {
        return g->entries[at].term != s->durable_term;
    }
    return group_term_at(group, group_last_index(group).v) > s->durable_term;
}

/* The first look after a start: what was durable is there, or rot took it and
 * the replica knows. */
static void check_recovered(struct probe *p, struct seen_group *g, int b,
                            const struct group *group, struct seen_replica *s)
{
    bool withholds = nemesis_rots(p->world, b) && group->proof.missing;
    if (s->starts != 0 && !withholds) {
        uint64_t last = group_last_index(group).v;
        uint64_t at = s->durable;
        bool gone = last < at || (at >= group->table.first &&
                                  group_term_at(group, at) != s->durable_term);
        if (gone && !was_replaced(g, group, s)) {
            fail(p, g, b,
                 "what was durable is gone: index %llu term %llu, last %llu",
                 (unsigned long long)at, (unsigned long long)s->durable_term,
                 (unsigned long long)last);
        }
        if (group->term < s->voted_term ||
            (group->term == s->voted_term && group->vote != s->voted)) {
            fail(p, g, b, "the vote of term %llu is gone",
                 (unsigned long long)s->voted_term);
        }
    }
    s->starts = sim_node_starts(p->world->brokers[b].node);
    s->group = group;
    s->term = s->last = s->last_term = s->commit = s->applied = 0;
    s->led_term = 0;
    s->ready = false;
    s->watermark = 0;
    s->checked = group->settled;
}

static void check_rules(struct probe *p, struct seen_group *g, int b,
                        const struct group *group, uint64_t last,
                        uint64_t commit)
{
    uint64_t durable = group->durable;
    if (last < durable || durable < commit || commit < group->applied ||
        group->applied < group->settled) {
        fail(p, g, b,
             "rules of the store: last %llu durable %llu commit %llu "
             "applied %llu settled %llu",
             (unsigned long long)last, (unsigned long long)durable,
             (unsigned long long)commit, (unsigned long long)group->applied,
             (unsigned long long)group->settled);
    }
}

/* `written`: the shard's log has new records. Without any no group's entries
 * are others than before; looking them up costs most of all of this. */
static void check_replica(struct probe *p, struct seen_group *g, int b,
                          const struct group *group, bool written)
{
    struct seen_replica *s = &g->seen[b];
    unsigned starts = sim_node_starts(p->world->brokers[b].node);
    if (s->starts != starts || s->group != group) {
        check_recovered(p, g, b, group, s);
    }
    uint64_t last = group_last_index(group).v;
    uint64_t last_term =
        written || last != s->last ? group_term_at(group, last) : s->last_term;
    if (last != s->last || last_term != s->last_term) {
        check_log(p, g, b, group, last, s->last);
        s->last = last;
        s->last_term = last_term;
    }
    uint64_t commit = group_commit_index(group).v;
    check_rules(p, g, b, group, last, commit);
    if (group->durable != s->durable) {
        s->durable = group->durable;
        s->durable_term = group_term_at(group, s->durable);
    }
    if (group->term < s->term || commit < s->commit ||
        group->applied < s->applied) {
        fail(p, g, b, "term, commit or applied went back");
    }
    s->term = group->term;
    s->applied = group->applied;
    check_vote(p, g, b, group, s);
    if (group->raft.state == RAFT_LEADER) {
        check_leader(p, g, b, group, s);
    }
    if (commit != s->commit) {
        s->commit = commit;
        check_commit(p, g, b, group, s, commit);
    }
    check_watermark(p, g, b, group, s);
}

/* ---- one broker ---------------------------------------------------------- */
static void check_memory(struct probe *p, struct whole_broker *b)
{
    size_t bytes = sim_node_bytes(b->node);
    if (bytes > p->world->result.broker_bytes_max) {
        p->world->result.broker_bytes_max = bytes;
    }
    if (bytes > p->world->plan.memory_max) {
        sim_fail(p->world->sim, "b%d holds %zu bytes", b->at, bytes);
    }
}

void probe_event(void *world, struct sim_node *node)
{
    struct world *w = world;
    struct whole_broker *b = NULL;
    for (int i = 0; i < w->plan.n_brokers; i++) {
        if (w->brokers[i].node == node) {
            b = &w->brokers[i];
        }
    }
    if (b == NULL || b->broker == NULL || !sim_node_up(node)) {
        return;
    }
    for (unsigned k = 0; k < broker_n_shards(b->broker); k++) {
        const struct broker_shard *shard = broker_shard(b->broker, k);
        if (shard == NULL || shard->host == NULL || shard->host->wal == NULL) {
            continue; /* not begun yet, or all its groups are closed */
        }
        uint64_t position = wal_position(shard->host->wal);
        bool written = position != w->probe->written[b->at][k];
        w->probe->written[b->at][k] = position;
        for (uint32_t i = 0; i < shard->host->n_groups; i++) {
            const struct group *group = shard->host->groups[i];
            if (group->life == GROUP_OPEN) { /* else its core does not run */
                check_replica(w->probe,
                              group_seen(w->probe, b->at, k, i, group), b->at,
                              group, written);
            }
        }
    }
    check_memory(w->probe, b);
}

/* ---- the end ------------------------------------------------------------- */
static const struct group *find_replica(struct world *w, int b,
                                        const struct group_id *id)
{
    struct broker *broker = w->brokers[b].broker;
    for (unsigned k = 0; broker != NULL && k < broker_n_shards(broker); k++) {
        const struct broker_shard *shard = broker_shard(broker, k);
        struct group *group = shard == NULL || shard->host == NULL
                                  ? NULL
                                  : raft_host_find(shard->host, id);
        if (group != NULL) {
            return group;
        }
    }
    return NULL;
}

static bool group_converged(struct world *w, const struct seen_group *g,
                            char *why, size_t why_size)
{
    int there = 0;
    for (int i = 0; i < g->n_replicas; i++) {
        int b = g->replicas[i];
        const struct group *group = find_replica(w, b, &g->id);
        if (group == NULL) {
            continue;
        }
        there++;
        if (group->life != GROUP_OPEN || group->applied < g->committed ||
            group_last_index(group).v != group->applied) {
            char id[UUID_TEXT_SIZE];
            uuid_format(&g->id.topic, id);
            snprintf(why, why_size,
                     "b%d %s-%d: term %llu last %llu applied %llu of %llu "
                     "settled %llu leader %d",
                     b, id, g->id.partition, (unsigned long long)group->term,
                     (unsigned long long)group_last_index(group).v,
                     (unsigned long long)group->applied,
                     (unsigned long long)g->committed,
                     (unsigned long long)group->settled,
                     (int)group->role.leader);
            return false;
        }
    }
    if (there != 0 && there != g->n_replicas) { /* 0: its topic is gone */
        snprintf(why, why_size, "%d of %d replicas", there, g->n_replicas);
        return false;
    }
    return true;
}

/* How many partitions with leaders it has in this image. */
static int partitions_led(const struct image *image, const char *name,
                          struct uuid *id)
{
    const struct image_topic *t = image_topic(image, name, strlen(name));
    int n = t == NULL ? 0 : t->n_partitions;
    for (int i = 0; i < n; i++) {
        n = t->partitions[i].leader < 0 ? i : n;
    }
    *id = t == NULL ? (struct uuid){{0}} : t->id;
    return n;
}

void probe_topic_everywhere(struct world *w, const char *topic, int partitions)
{
    struct uuid first = {{0}};
    struct uuid id;
    for (int b = 0; b < w->plan.n_brokers; b++) {
        const struct broker *broker = w->brokers[b].broker;
        for (unsigned k = 0; k < broker_n_shards(broker); k++) {
            int n = partitions_led(broker_shard(broker, k)->image, topic, &id);
            first = b == 0 && k == 0 ? id : first;
            if (n != partitions || !uuid_equal(&id, &first)) {
                sim_fail(w->sim,
                         "%s was made, but shard %u of b%d has %d of %d "
                         "partitions with leaders, or another topic",
                         topic, k, b, n, partitions);
            }
        }
    }
    w->result.everywhere++;
}

bool probe_converged(struct world *w, char *why, size_t why_size)
{
    struct seen_group *g = NULL;
    struct seen_group *next = NULL;
    HASH_ITER(hh, w->probe->groups, g, next)
    {
        if (!group_converged(w, g, why, why_size)) {
            return false;
        }
    }
    return true;
}

int64_t probe_watermark(const struct world *w, const struct uuid *topic,
                        int partition)
{
    struct group_id id = {.topic = *topic, .partition = partition};
    struct seen_group *g = NULL;
    HASH_FIND(hh, w->probe->groups, &id, sizeof id, g);
    return g == NULL ? -1 : g->watermark;
}

uint64_t probe_leader(const struct world *w, const struct uuid *topic,
                      int partition, int *leader)
{
    struct group_id id = {.topic = *topic, .partition = partition};
    struct seen_group *g = NULL;
    HASH_FIND(hh, w->probe->groups, &id, sizeof id, g);
    *leader =
        g == NULL || g->newest_term == 0 ? -1 : g->leaders[g->newest_term] - 1;
    if (*leader >= 0 && !(g->seen[*leader].ready &&
                          g->seen[*leader].led_term == g->newest_term)) {
        *leader = -1;
    }
    return g == NULL ? 0 : g->newest_term;
}

int probe_replicas(const struct world *w, const struct uuid *topic,
                   int partition, int out[BROKERS_MAX])
{
    struct group_id id = {.topic = *topic, .partition = partition};
    struct seen_group *g = NULL;
    HASH_FIND(hh, w->probe->groups, &id, sizeof id, g);
    for (int i = 0; g != NULL && i < g->n_replicas; i++) {
        out[i] = g->replicas[i];
    }
    return g == NULL ? 0 : g->n_replicas;
}

bool probe_compacts(const struct whole_broker *b)
{
    for (unsigned k = 0; b->broker != NULL && k < broker_n_shards(b->broker);
         k++) {
        const struct broker_shard *shard = broker_shard(b->broker, k);
        const struct partition_shard *of =
            shard == NULL ? NULL : shard->partitions_of;
        if (of != NULL && (of->compacting != NULL || of->refetching != NULL)) {
            return true;
        }
    }
    return false;
}

struct probe *probe_new(struct world *w)
{
    struct probe *p = calloc(1, sizeof *p);
    p->world = w;
    return p;
}

static void group_free_seen(struct seen_group *g)
{
    for (uint64_t i = 0; i < g->size; i++) {
        while (g->logs[i] != NULL) {
            struct log_entry_seen *next = g->logs[i]->next;
            free(g->logs[i]);
            g->logs[i] = next;
        }
    }
    free(g->entries);
    free(g->logs);
    free(g->leaders);
    free(g);
}

void probe_free(struct probe *p)
{
    struct seen_group *g = NULL;
    struct seen_group *next = NULL;
    HASH_ITER(hh, p->groups, g, next)
    {
        HASH_DEL(p->groups, g);
        group_free_seen(g);
    }
    for (int b = 0; b < BROKERS_MAX; b++) {
        for (int k = 0; k < SHARDS_MAX; k++) {
            free(p->cache[b][k]);
        }
    }
    free(p);
}
