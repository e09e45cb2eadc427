/* What is true of consumer groups: which plan each generation has, which
 * offsets may be committed now, how far the members have read together.
 *
 * A commit whose end nobody knows may become true late, as long as its
 * generation lasts: a question then may be answered with it or with a newer
 * one. What a commit has certainly overwritten must never be told again. */
#include <stdio.h>
#include <string.h>

#include "tests/sim/whole/impl.h"

/* Longer than anybody waits for an answer. */
#define FORGET_NS (200 * SIM_S)

struct commit_seen {
    struct commit_seen *next;
    uint64_t id;
    int64_t offset;
    int32_t generation;
    uint64_t sent_ns;
    uint64_t done_ns; /* certainly true since then; 0: not known */
    uint64_t dead_ns; /* certainly overwritten since then; 0: not */
};

struct commits_seen {
    struct commit_seen *all;
    uint64_t acked_ns; /* of the first one acknowledged; 0: none */
    int64_t acked;     /* the highest offset acknowledged */
    int64_t read_end;  /* everything before was read by members */
};

struct generation_seen {
    uint64_t plan;      /* its number; 0: nobody was given it */
    uint64_t synced_ns; /* when the first member was */
};

struct group_seen {
    struct group_plan *plans;
    uint64_t n_plans, plans_size;
    struct generation_seen *generations;
    int32_t n_generations, newest; /* newest that was given to a member */
    uint64_t n_commits;
    struct commits_seen parts[PARTS_MAX];
};

static struct group_seen *group_of(struct world *w, int group)
{
    if (w->groups[group] == NULL) {
        w->groups[group] = calloc(1, sizeof *w->groups[group]);
        w->groups[group]->newest = -1;
    }
    return w->groups[group];
}

/* ---- generations --------------------------------------------------------- */
uint64_t group_planned(struct world *w, int group, const struct group_plan *p)
{
    struct group_seen *g = group_of(w, group);
    if (g->n_plans == g->plans_size) {
        g->plans_size = g->plans_size == 0 ? 16 : g->plans_size * 2;
        g->plans = realloc(g->plans, g->plans_size * sizeof *g->plans);
    }
    g->plans[g->n_plans++] = *p;
    return g->n_plans;
}

static struct generation_seen *generation_of(struct group_seen *g, int32_t n)
{
    while (g->n_generations <= n) {
        int32_t size = g->n_generations == 0 ? 64 : g->n_generations * 2;
        g->generations =
            realloc(g->generations, (size_t)size * sizeof *g->generations);
        memset(g->generations + g->n_generations, 0,
               (size_t)(size - g->n_generations) * sizeof *g->generations);
        g->n_generations = size;
    }
    return &g->generations[n];
}

/* A generation newer than this one was in force at that time. */
static bool is_fenced(const struct group_seen *g, int32_t generation,
                      uint64_t ns)
{
    for (int32_t n = g->newest; n > generation; n--) {
        uint64_t synced_ns = g->generations[n].synced_ns;
        if (synced_ns != 0 && synced_ns < ns) {
            return true;
        }
    }
    return false;
}

void group_synced(struct world *w, int group, int32_t generation, uint64_t plan,
                  int64_t key, const bool given[PARTS_MAX])
{
    struct group_seen *g = group_of(w, group);
    if (generation < 1 || generation > 1 << 20 || plan == 0 ||
        plan > g->n_plans || g->plans[plan - 1].generation != generation) {
        sim_fail(w->sim, "g%d: generation %d by plan %llu, which is another's",
                 group, generation, (unsigned long long)plan);
    }
    struct generation_seen *seen = generation_of(g, generation);
    if (seen->plan == 0) {
        seen->plan = plan;
        seen->synced_ns = sim_now_ns(w->sim);
        w->result.rebalances++;
    }
    if (seen->plan != plan) {
        sim_fail(w->sim, "g%d: generation %d has plan %llu and plan %llu",
                 group, generation, (unsigned long long)seen->plan,
                 (unsigned long long)plan);
    }
    for (int i = 0; i < PARTS_MAX; i++) {
        if (given[i] != (g->plans[plan - 1].owner[i] == key)) {
            sim_fail(w->sim,
                     "g%d: generation %d: member %lld has t%d-%d: %d, the plan "
                     "gave it to %lld",
                     group, generation, (long long)key, part_topic(i),
                     part_index(i), given[i],
                     (long long)g->plans[plan - 1].owner[i]);
        }
    }
    if (generation > g->newest) {
        g->newest = generation;
    }
}

/* ---- commits ------------------------------------------------------------- */
uint64_t group_commit_id(struct world *w, int group)
{
    return ++group_of(w, group)->n_commits;
}

void group_commit_sent(struct world *w, int group, int part, uint64_t id,
                       int32_t generation, int64_t offset)
{
    struct commits_seen *p = &group_of(w, group)->parts[part];
    struct commit_seen *c = calloc(1, sizeof *c);
    *c = (struct commit_seen){.next = p->all,
                              .id = id,
                              .offset = offset,
                              .generation = generation,
                              .sent_ns = sim_now_ns(w->sim)};
    p->all = c;
}

static struct commit_seen *commit_find(struct commits_seen *p, uint64_t id)
{
    for (struct commit_seen *c = p->all; c != NULL; c = c->next) {
        if (c->id == id) {
            return c;
        }
    }
    return NULL;
}

static void commit_drop(struct commits_seen *p, const struct commit_seen *c)
{
    struct commit_seen **at = &p->all;
    while (*at != c) {
        at = &(*at)->next;
    }
    *at = c->next;
    free((void *)(uintptr_t)c);
}

/* This one is true: what was true before it was sent is overwritten, and what
 * could only have become true before. */
static void commit_holds(struct world *w, const struct group_seen *g,
                         struct commits_seen *p, struct commit_seen *now)
{
    uint64_t ns = sim_now_ns(w->sim);
    if (now->done_ns == 0) {
        now->done_ns = ns;
    }
    struct commit_seen *next = NULL;
    for (struct commit_seen *c = p->all; c != NULL; c = next) {
        next = c->next;
        if (c == now) {
            continue;
        }
        if (c->dead_ns == 0 &&
            ((c->done_ns != 0 && c->done_ns < now->sent_ns) ||
             is_fenced(g, c->generation, now->sent_ns))) {
            c->dead_ns = ns;
        }
        if (c->dead_ns != 0 && c->dead_ns + FORGET_NS < ns) {
            commit_drop(p, c);
        }
    }
}

void group_commit_done(struct world *w, int group, int part, uint64_t id,
                       enum commit_end end)
{
    struct group_seen *g = group_of(w, group);
    struct commits_seen *p = &g->parts[part];
    struct commit_seen *c = commit_find(p, id);
    switch (end) {
        case COMMIT_UNKNOWN:
            return;
        case COMMIT_REFUSED:
            if (c->done_ns != 0) {
                sim_fail(w->sim, "g%d t%d-%d: commit %llu was refused, but is",
                         group, part_topic(part), part_index(part),
                         (unsigned long long)id);
            }
            commit_drop(p, c);
            return;
        case COMMIT_ACKED:
            break;
    }
    if (is_fenced(g, c->generation, c->sent_ns)) {
        sim_fail(w->sim,
                 "g%d t%d-%d: a commit of generation %d was taken after %d",
                 group, part_topic(part), part_index(part), c->generation,
                 g->newest);
    }
    w->result.commits++;
    if (p->acked_ns == 0) {
        p->acked_ns = sim_now_ns(w->sim);
    }
    if (p->acked < c->offset) {
        p->acked = c->offset;
    }
    commit_holds(w, g, p, c);
}

void group_fetched(struct world *w, int group, int part, uint64_t asked_ns,
                   int64_t offset, uint64_t id)
{
    struct group_seen *g = group_of(w, group);
    struct commits_seen *p = &g->parts[part];
    if (id == 0) {
        if (p->acked_ns != 0 && p->acked_ns < asked_ns) {
            sim_fail(w->sim,
                     "g%d t%d-%d: no committed offset any more, it "
                     "was %lld",
                     group, part_topic(part), part_index(part),
                     (long long)p->acked);
        }
        return;
    }
    struct commit_seen *c = commit_find(p, id);
    if (c == NULL || c->offset != offset ||
        (c->dead_ns != 0 && c->dead_ns < asked_ns)) {
        sim_fail(w->sim,
                 "g%d t%d-%d: committed offset %lld by commit %llu (%s), "
                 "%lld was acknowledged",
                 group, part_topic(part), part_index(part), (long long)offset,
                 (unsigned long long)id,
                 c == NULL             ? "refused or long gone"
                 : c->offset != offset ? "another offset"
                                       : "overwritten",
                 (long long)p->acked);
    }
    /* as good as acknowledged, though the answer to the commit was lost */
    if (p->acked < offset) {
        p->acked = offset;
    }
    commit_holds(w, g, p, c);
}

/* ---- reading ------------------------------------------------------------- */
void group_read(struct world *w, int group, int part, int64_t offset)
{
    struct commits_seen *p = &group_of(w, group)->parts[part];
    if (offset > p->read_end) {
        sim_fail(w->sim, "g%d t%d-%d: offset %lld is read, nobody read %lld",
                 group, part_topic(part), part_index(part), (long long)offset,
                 (long long)p->read_end);
    }
    if (offset == p->read_end) {
        p->read_end++;
    }
}

/* ---- the end ------------------------------------------------------------- */
bool group_done(struct world *w, int group)
{
    const struct group_seen *g = group_of(w, group);
    int32_t generation = -1, other = -1;
    for (int i = 0; i < PARTS_MAX; i++) {
        int64_t end = (int64_t)w->oracle.parts[i].seen_end;
        if (g->parts[i].read_end < end || g->parts[i].acked < end) {
            return false;
        }
    }
    for (int i = group; i < w->n_members; i += w->plan.n_groups) {
        if (!member_settled(w->members[i], &generation) ||
            (other >= 0 && generation != other)) {
            return false;
        }
        other = generation;
    }
    return true;
}

void group_print(struct world *w, int group)
{
    const struct group_seen *g = group_of(w, group);
    for (int i = 0; i < PARTS_MAX; i++) {
        int64_t end = (int64_t)w->oracle.parts[i].seen_end;
        if (g->parts[i].read_end < end || g->parts[i].acked < end) {
            fprintf(stderr, "g%d t%d-%d: read %lld, committed %lld of %lld\n",
                    group, part_topic(i), part_index(i),
                    (long long)g->parts[i].read_end,
                    (long long)g->parts[i].acked, (long long)end);
        }
    }
}

void groups_free(struct world *w)
{
    for (int i = 0; i < GROUPS_MAX; i++) {
        struct group_seen *g = w->groups[i];
        if (g == NULL) {
            continue;
        }
        for (int k = 0; k < PARTS_MAX; k++) {
            while (g->parts[k].all != NULL) {
                commit_drop(&g->parts[k], g->parts[k].all);
            }
        }
        free(g->plans);
        free(g->generations);
        free(g);
    }
}
