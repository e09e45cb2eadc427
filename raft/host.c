#include "raft/group.h"

#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "raft/catchup_impl.h"
#include "raft/guard.h"
#include "raft/host_store.h"
#include "raft/io.h"
#include "raft/proof.h"
#include "raft/rest.h"
#include "raft/wal.h"

/* Every group is ticked once in this many ticks; those that are electing or
 * handing over, at every tick. */
#define TICK_PHASES 5u
/* Resting groups are looked at once in this many laps: half a minute. */
#define REST_LAPS 128u

/* ---- vectors ------------------------------------------------------------- */

static void groups_push(struct group ***v, uint32_t *n, uint32_t *size,
                        struct group *g)
{
    if (*n == *size) {
        *size = *size == 0 ? 16 : *size * 2;
        *v = mem_realloc(*v, *size * sizeof **v);
    }
    (*v)[(*n)++] = g;
}

static void groups_drop(struct group **v, uint32_t *n, const struct group *g)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < *n; i++)
        if (v[i] != g)
            v[kept++] = v[i];
    *n = kept;
}

/* ---- libraft's memory ---------------------------------------------------- */

static void *heap_malloc(void *data, size_t size)
{
    (void)data;
    return mem_zalloc(size); /* what is not set is at least the same */
}

static void heap_free(void *data, void *p)
{
    (void)data;
    mem_free(p);
}

static void *heap_calloc(void *data, size_t n, size_t size)
{
    (void)data;
    ASSERT(size == 0 || n <= SIZE_MAX / size);
    return mem_zalloc(n * size);
}

static void *heap_realloc(void *data, void *p, size_t size)
{
    (void)data;
    return mem_realloc(p, size);
}

static void *heap_aligned_alloc(void *data, size_t align, size_t size)
{
    (void)data;
    return mem_alloc_aligned(align, size);
}

static void heap_aligned_free(void *data, size_t align, void *p)
{
    (void)data, (void)align;
    mem_free_aligned(p);
}

static struct raft_heap heap = {
    .malloc = heap_malloc,
    .free = heap_free,
    .calloc = heap_calloc,
    .realloc = heap_realloc,
    .aligned_alloc = heap_aligned_alloc,
    .aligned_free = heap_aligned_free,
};

/* ---- waiting for the log ------------------------------------------------- */

void raft_host_wake_at(struct raft_host *host, struct group *g,
                       uint64_t position)
{
    if (host->wakeups_count == host->wakeups_size) {
        uint32_t size = host->wakeups_size == 0 ? 64 : host->wakeups_size * 2;
        struct raft_wakeup *w = mem_alloc(size * sizeof *w);

        for (uint32_t i = 0; i < host->wakeups_count; i++)
            w[i] = host->wakeups[(host->wakeups_head + i) &
                                 (host->wakeups_size - 1)];
        mem_free(host->wakeups);
        host->wakeups = w;
        host->wakeups_size = size;
        host->wakeups_head = 0;
    }
    host->wakeups[(host->wakeups_head + host->wakeups_count++) &
                  (host->wakeups_size - 1)] = (struct raft_wakeup){position, g};
}

static void forget_wakeups(struct raft_host *host, const struct group *g)
{
    for (uint32_t i = 0; i < host->wakeups_count; i++) {
        struct raft_wakeup *w =
            &host->wakeups[(host->wakeups_head + i) & (host->wakeups_size - 1)];

        if (w->group == g)
            w->group = NULL;
    }
}

void raft_host_durable(struct raft_host *host, uint64_t position)
{
    host->durable = position;
    while (host->wakeups_count > 0 &&
           host->wakeups[host->wakeups_head].position <= position) {
        struct group *g = host->wakeups[host->wakeups_head].group;

        host->wakeups_head =
            (host->wakeups_head + 1) & (host->wakeups_size - 1);
        host->wakeups_count--;
        if (g == NULL || g->woken == position)
            continue;
        g->woken = position;
        group_run(g);
    }
}

/* ---- turns --------------------------------------------------------------- */

void raft_host_want_turn(struct raft_host *host)
{
    if (!host->freeing)
        env_defer(host->env, &host->turn);
}

void group_want_turn(struct group *g)
{
    struct raft_host *host = g->host;

    if (g->turn_queued || g->life != GROUP_OPEN)
        return;
    g->turn_queued = true;
    g->turn_next = NULL;
    *host->turn_tail = g;
    host->turn_tail = &g->turn_next;
    raft_host_want_turn(host);
}

static void bury_dead(struct raft_host *host)
{
    struct group **at = &host->dead;

    while (*at != NULL) {
        struct group *g = *at;

        if (g->running || g->settling || g->turn_queued || g->jobs > 0 ||
            g->transfer != NULL) {
            at = &g->next_dead;
            continue;
        }
        *at = g->next_dead;
        if (g->ops != NULL)
            g->ops->closed(g->sm);
        group_free(g);
    }
}

/* ---- telling followers of commits ---------------------------------------- */

bool raft_host_may_tell(struct raft_host *host, struct group *g)
{
    uint64_t now = env_now_ms(host->env);

    if (now >= host->tell_next_ms) {
        host->told = true;
        return true;
    }
    g->untold = true;
    groups_push(&host->untold, &host->n_untold, &host->untold_size, g);
    if (!env_timer_running(&host->tell_timer))
        env_timer_start(&host->tell_timer, host->tell_next_ms - now);
    return false;
}

static void tell_due(struct env_timer *timer)
{
    struct raft_host *host = timer->arg;

    for (uint32_t i = 0; i < host->n_untold; i++) {
        host->untold[i]->untold = false;
        group_want_turn(host->untold[i]);
    }
    host->n_untold = 0;
}

static void host_turn(struct env_deferred *d)
{
    struct raft_host *host = d->arg;

    while (host->turn_head != NULL) {
        struct group *g = host->turn_head;

        host->turn_head = g->turn_next;
        if (host->turn_head == NULL)
            host->turn_tail = &host->turn_head;
        g->turn_queued = false;
        group_turn_end(g);
    }
    if (host->told) {
        host->told = false;
        host->tell_next_ms = env_now_ms(host->env) + LIMIT_RAFT_TELL_MS;
    }
    if (host->room_due)
        raft_host_room(host);
    bury_dead(host);
    host_store_turn(host);
}

/* ---- time ---------------------------------------------------------------- */

void group_activate(struct group *g, uint64_t ms)
{
    struct raft_host *host = g->host;
    uint64_t until = group_now(g) + ms;

    rest_wake(g);
    if (until > g->active_until_ms)
        g->active_until_ms = until;
    if (g->active)
        return;
    g->active = true;
    groups_push(&host->active, &host->n_active, &host->active_size, g);
}

/* The lap is this group's: half of the slow ones, and few of those that rest,
 * without a look at the others. */
static void tick_slot(struct raft_host *host, uint32_t i)
{
    uint32_t turn = i / TICK_PHASES + host->lap;

    if (host->pace[i] == PACE_RESTING) {
        if (turn % REST_LAPS == 0)
            rest_look(host->groups[i]);
        return;
    }
    if (host->pace[i] == PACE_HALF && turn % 2 == 0)
        return;
    if (!host->groups[i]->active)
        group_tick(host->groups[i]);
}

/* Without a place to log terms and votes the groups stand still, like those of
 * a process that is paused: elections that go on would fill the memory. */
static bool stands_still(const struct raft_host *host)
{
    return host->wal != NULL && wal_waits_for_space(host->wal);
}

static void groups_tick(struct raft_host *host)
{
    uint32_t kept = 0, n = host->n_active;

    for (uint32_t i = 0; i < n && i < host->n_active; i++)
        group_tick(host->active[i]);
    for (uint32_t i = 0; i < host->n_active; i++) {
        struct group *g = host->active[i];

        if (group_now(g) < g->active_until_ms && group_is_restless(g)) {
            host->active[kept++] = g;
            continue;
        }
        g->active = false;
        g->active_until_ms = 0;
    }
    host->n_active = kept;
    for (uint32_t i = host->phase; i < host->n_groups; i += TICK_PHASES)
        tick_slot(host, i);
    host->phase = (host->phase + 1) % TICK_PHASES;
    host->lap += host->phase == 0;
}

void raft_host_tick(struct raft_host *host)
{
    if (!stands_still(host))
        groups_tick(host);
    catchup_tick(host);
    if (host->room_head != NULL) { /* who was waited for may be given up */
        host->room_due = true;
        raft_host_want_turn(host);
    }
    settle_tick(host);
    settle_poll(host);
}

static void ticker_fired(struct env_timer *timer)
{
    struct raft_host *host = timer->arg;

    env_timer_start(timer, host->options.tick_ms);
    raft_host_tick(host);
}

/* ---- peers --------------------------------------------------------------- */

bool raft_host_is_down(const struct raft_host *host, node_id node)
{
    for (uint32_t i = 0; i < host->n_down; i++)
        if (host->down[i] == node)
            return true;
    return false;
}

void raft_host_peer_up(struct raft_host *host, node_id node)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < host->n_down; i++)
        if (host->down[i] != node)
            host->down[kept++] = host->down[i];
    host->n_down = kept;
    for (uint32_t i = 0; i < host->n_groups; i++)
        group_peer_back(host->groups[i], node);
}

/* Led by that broker, or never led and to be led by it first. */
static bool follows(const struct group *g, node_id node)
{
    return g->role.leader == node ||
           (g->role.leader < 0 && g->creation.replicas[0].node == node);
}

void raft_host_peer_down(struct raft_host *host, node_id node)
{
    if (raft_host_is_down(host, node))
        return;
    if (host->n_down == host->down_size) {
        host->down_size = host->down_size == 0 ? 8 : host->down_size * 2;
        host->down =
            mem_realloc(host->down, host->down_size * sizeof *host->down);
    }
    host->down[host->n_down++] = node;
    for (uint32_t i = 0; i < host->n_groups; i++) {
        rest_peer_down(host->groups[i], node);
        if (follows(host->groups[i], node))
            group_leader_gone(host->groups[i]);
    }
}

/* ---- messages for groups to come ----------------------------------------- */

static void early_drop_oldest(struct raft_host *host)
{
    struct early_message *oldest = host->early;

    host->early = oldest->next;
    host->n_early--;
    mem_free(oldest);
}

static void early_keep(struct raft_host *host, node_id from,
                       const struct group_id *id, const uint8_t *body,
                       size_t size)
{
    uint64_t now = env_now_ms(host->env);
    struct early_message **at = &host->early;
    struct early_message *m;

    while (host->early != NULL &&
           now - host->early->since_ms > LIMIT_RAFT_EARLY_MS)
        early_drop_oldest(host);
    if (size > LIMIT_RAFT_EARLY_BYTES || host->n_early == LIMIT_RAFT_EARLY)
        return;
    m = mem_zalloc(sizeof *m + size);
    m->group = *id;
    m->node = from;
    m->since_ms = now;
    m->size = size;
    memcpy(m->body, body, size);
    while (*at != NULL)
        at = &(*at)->next;
    *at = m;
    host->n_early++;
}

static void early_deliver(struct raft_host *host, struct group *g)
{
    struct early_message **at = &host->early;

    while (*at != NULL) {
        struct early_message *m = *at;

        if (!group_id_equal(&m->group, &g->creation.id)) {
            at = &m->next;
            continue;
        }
        *at = m->next;
        host->n_early--;
        if (env_now_ms(host->env) - m->since_ms <= LIMIT_RAFT_EARLY_MS)
            group_receive(g, m->node, m->body, m->size);
        mem_free(m);
    }
}

void raft_host_receive(struct raft_host *host, node_id from,
                       const struct group_id *id, const uint8_t *body,
                       size_t size)
{
    struct group *g = raft_host_find(host, id);

    if (stands_still(host))
        return;
    if (g != NULL)
        group_receive(g, from, body, size);
    else
        early_keep(host, from, id, body, size);
}

/* ---- room ---------------------------------------------------------------- */

void raft_host_on_room(struct raft_host *host, struct group_room_wait *wait)
{
    if (wait->queued)
        return;
    wait->queued = true;
    wait->next = NULL;
    *host->room_tail = wait;
    host->room_tail = &wait->next;
}

void raft_host_room(struct raft_host *host)
{
    struct group_room_wait *wait = host->room_head;

    host->room_due = false;
    host->room_head = NULL;
    host->room_tail = &host->room_head;
    while (wait != NULL) {
        struct group_room_wait *next = wait->next;

        wait->queued = false;
        wait->room(wait);
        wait = next;
    }
}

/* ---- groups -------------------------------------------------------------- */

struct group *raft_host_find(struct raft_host *host, const struct group_id *id)
{
    return group_index_find(&host->by_id, id);
}

void raft_host_add(struct raft_host *host, struct group *g)
{
    group_index_add(&host->by_id, g);
    g->slot = host->n_groups;
    groups_push(&host->groups, &host->n_groups, &host->groups_size, g);
    if (host->pace_size < host->groups_size) {
        host->pace_size = host->groups_size;
        host->pace =
            mem_realloc(host->pace, host->pace_size * sizeof *host->pace);
    }
    host->pace[g->slot] = PACE_ALL;
}

void raft_host_remove(struct raft_host *host, struct group *g)
{
    struct group *last = host->groups[host->n_groups - 1];

    group_index_remove(&host->by_id, g);
    host->groups[g->slot] = last;
    last->slot = g->slot;
    host->pace[g->slot] = host->pace[host->n_groups - 1];
    host->n_groups--;
    groups_drop(host->active, &host->n_active, g);
    groups_drop(host->untold, &host->n_untold, g);
    groups_drop(host->due, &host->n_due, g);
    groups_drop(host->dirty, &host->n_dirty, g);
    groups_drop(host->serving, &host->n_serving, g);
    forget_wakeups(host, g);
    g->next_dead = host->dead;
    host->dead = g;
    raft_host_want_turn(host);
}

/* Closes a group and takes it out; it is freed at the end of a turn. */
static void close_group(struct raft_host *host, struct group *g)
{
    group_stop(g);
    g->life = GROUP_CLOSING;
    catchup_group_closing(g);
    raft_host_remove(host, g);
}

void raft_host_recovered(struct raft_host *host,
                         void (*each)(void *arg,
                                      const struct group_creation *creation),
                         void *arg)
{
    /* from the end: the last one takes the place of one that is deleted */
    for (uint32_t i = host->n_groups; i-- > 0;)
        if (i < host->n_groups && host->groups[i]->life == GROUP_FOUND)
            each(arg, &host->groups[i]->creation);
}

enum err raft_host_open(struct raft_host *host, const struct group_id *id,
                        const struct group_ops *ops, void *sm,
                        struct group **out)
{
    struct group *g = raft_host_find(host, id);
    enum err e;

    if (g == NULL)
        return ERR_NOT_FOUND;
    if (g->life != GROUP_FOUND)
        return ERR_EXISTS;
    if (g->proof.missing && (io_is_only_voter(g) || g->n_peers == 0))
        return ERR_CORRUPT; /* nobody can make it whole; nothing is cut */
    e = ops->restore(sm, (log_index){g->settled},
                     (raft_term_t){g->settled_term}, g->blob, g->blob_size);
    if (e == ERR_CORRUPT && ops->catchup != NULL && proof_reset(g))
        e = ops->restore(sm, (log_index){1}, (raft_term_t){1}, NULL, 0);
    if (e != ERR_OK)
        return e;
    g->ops = ops;
    g->sm = sm;
    *out = g;
    group_start(g);
    if (!g->proof.missing)
        group_campaign_in(g, 1000);
    return ERR_OK;
}

static bool creation_valid(const struct raft_host *host,
                           const struct group_creation *c)
{
    bool self = false;

    if (c->n_replicas < 1 || c->n_replicas > GROUP_REPLICAS_MAX || c->self == 0)
        return false;
    for (int i = 0; i < c->n_replicas; i++) {
        self = self || (c->replicas[i].id == c->self &&
                        c->replicas[i].node == host->options.node);
        if (c->replicas[i].id == 0)
            return false;
        for (int j = 0; j < i; j++)
            if (c->replicas[j].id == c->replicas[i].id)
                return false;
    }
    return self;
}

enum err raft_host_create(struct raft_host *host,
                          const struct group_creation *creation,
                          const struct group_ops *ops, void *sm,
                          struct group **out)
{
    struct group *g;
    enum err e;

    if (!creation_valid(host, creation))
        return ERR_INVALID;
    if (host->closing)
        return ERR_CLOSED; /* there may be no log any more */
    if (raft_host_find(host, &creation->id) != NULL)
        return ERR_EXISTS;
    if (!uuid_equal(&creation->directory, &host->options.directory))
        return ERR_LOST;
    if (host_store_is_unmade(host, &creation->id)) {
        e = host_store_remake(host, creation);
        return e == ERR_OK ? raft_host_open(host, &creation->id, ops, sm, out)
                           : e;
    }
    if (!host->recovered_whole)
        return ERR_LOST;
    e = ops->restore(sm, (log_index){1}, (raft_term_t){1}, NULL, 0);
    if (e != ERR_OK)
        return e;
    g = group_new(host, creation);
    host->backend.append_create(host->backend_arg, creation);
    raft_host_add(host, g);
    g->ops = ops;
    g->sm = sm;
    *out = g;
    group_start(g);
    if (creation->replicas[0].id == creation->self)
        group_campaign_in(g, 0);
    else if (raft_host_is_down(host, creation->replicas[0].node))
        group_leader_gone(g);
    early_deliver(host, g);
    return ERR_OK;
}

enum err raft_host_delete(struct raft_host *host, struct group *g)
{
    struct group_id id = g->creation.id;

    if (host->closing)
        return ERR_CLOSED; /* the group is closed, there may be no log */
    close_group(host, g);
    host->backend.append_delete(host->backend_arg, &id);
    host_store_deleted(host, &id);
    return ERR_OK;
}

/* ---- beginning and end --------------------------------------------------- */

struct raft_host *raft_host_new_over(const struct raft_host_options *options,
                                     const struct raft_backend *backend,
                                     void *arg)
{
    struct raft_host *host;

    raft_heap_set(&heap);
    if (!guard_library_ok())
        return NULL;
    host = mem_zalloc(sizeof *host);
    host->options = *options;
    host->dir = mem_strdup(options->dir);
    host->options.dir = host->dir;
    host->env = options->env;
    host->backend = *backend;
    host->backend_arg = arg;
    host->guard_mask = GUARD_ALL;
    host->turn_tail = &host->turn_head;
    host->room_tail = &host->room_head;
    host->turn = (struct env_deferred){.cb = host_turn, .arg = host};
    host->recovered_whole = true;
    host->entry_bytes_max = LIMIT_ENTRY_BYTES;
    host->uncommitted_max = UINT64_MAX;
    env_timer_init(host->env, &host->ticker, ticker_fired, host);
    env_timer_init(host->env, &host->tell_timer, tell_due, host);
    return host;
}

void raft_host_begin(struct raft_host *host)
{
    env_timer_start(&host->ticker, host->options.tick_ms);
}

void raft_host_free(struct raft_host *host)
{
    ASSERT(!host->turn.queued);
    host->freeing = true;
    env_timer_stop(&host->ticker);
    env_timer_stop(&host->tell_timer);
    raft_host_close_all(host);
    for (struct group *g = host->turn_head; g != NULL; g = g->turn_next)
        g->turn_queued = false;
    bury_dead(host);
    ASSERT(host->dead == NULL);
    mem_free(host->wakeups);
    mem_free(host->groups);
    mem_free(host->pace);
    group_index_free(&host->by_id);
    mem_free(host->active);
    mem_free(host->untold);
    mem_free(host->due);
    mem_free(host->dirty);
    mem_free(host->serving);
    mem_free_aligned(host->settle_scratch);
    while (host->early != NULL)
        early_drop_oldest(host);
    mem_free(host->down);
    mem_free(host->deleted);
    mem_free(host->dir);
    mem_free(host);
}

void raft_host_close_all(struct raft_host *host)
{
    while (host->n_groups > 0)
        close_group(host, host->groups[0]);
    host_store_unmade_free(host);
}
