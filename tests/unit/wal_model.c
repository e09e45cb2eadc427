#include "tests/unit/wal_model.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/mem.h"

/* ---- payloads ------------------------------------------------------------ */
static uint64_t mix(int group, replica_id self, uint64_t index, uint64_t term)
{
    uint64_t h = (uint64_t)group * 0x9e3779b97f4a7c15u + self;
    h = (h ^ (h >> 29)) * 0xbf58476d1ce4e5b9u + index;
    h = (h ^ (h >> 32)) * 0x94d049bb133111ebu + term;
    return h ^ (h >> 31);
}

uint32_t model_size(int group, replica_id self, uint64_t index, uint64_t term)
{
    uint64_t h = mix(group, self, index, term);
    if (h % 20 == 0) {
        return (uint32_t)(h >> 8) % 7000;
    }
    return (uint32_t)(h >> 8) % 400;
}

static void fill(uint8_t *out, uint32_t size, uint64_t h)
{
    for (uint32_t k = 0; k < size; k++) {
        h = h * 6364136223846793005u + 1442695040888963407u;
        out[k] = (uint8_t)(h >> 56);
    }
}

static bool filled(const uint8_t *data, uint32_t size, uint64_t h)
{
    for (uint32_t k = 0; k < size; k++) {
        h = h * 6364136223846793005u + 1442695040888963407u;
        if (data[k] != (uint8_t)(h >> 56)) {
            return false;
        }
    }
    return true;
}

/* ---- the state ----------------------------------------------------------- */
struct group_id model_group_id(int group)
{
    struct group_id id = {.partition = group};
    id.topic.b[3] = 7;
    return id;
}

static void apply(struct model_state *s, const struct model_op *op)
{
    struct model_group *g = &s->groups[op->group];
    switch (op->kind) {
        case OP_ENTRY:
            ck_assert_uint_eq(op->a, g->last + 1);
            g->last = op->a;
            g->terms[op->a] = (uint32_t)op->b;
            break;
        case OP_TRUNCATE:
            g->last = op->a - 1;
            break;
        case OP_TERM:
            g->term = op->a;
            g->vote = op->b;
            break;
        case OP_CREATE:
            g->exists = true;
            g->deleted = false;
            g->self = op->a;
            g->term = g->vote = 0;
            g->last = 1;
            break;
        case OP_DELETE:
            g->exists = false;
            g->deleted = true;
            break;
    }
}

static void note(struct model *m, enum model_op_kind kind, int group,
                 uint64_t a, uint64_t b, uint64_t position)
{
    struct model_op op = {position, kind, group, a, b};
    ck_assert_uint_lt(m->n_ops, MODEL_OPS);
    m->ops[m->n_ops++] = op;
    ck_assert_uint_gt(position, m->appended);
    m->appended = position;
    apply(&m->now, &op);
}

static uint64_t settled_of(const struct model *m, int group, replica_id self)
{
    return m->settled_self[group] == self && m->settled[group] > 0
               ? m->settled[group]
               : 1;
}

/* ---- what the log asks --------------------------------------------------- */
static void on_durable(void *arg, uint64_t position)
{
    struct model *m = arg;
    uint32_t n = 0;
    ck_assert_uint_gt(position, m->durable);
    m->durable = position;
    for (; n < m->n_ops && m->ops[n].position <= position; n++) {
        const struct model_op *op = &m->ops[n];
        apply(&m->base, op);
        if (op->kind == OP_DELETE) {
            m->settled[op->group] = 0; /* a checkpoint without it */
            m->settled_self[op->group] = 0;
        }
    }
    m->n_ops -= n;
    memmove(m->ops, m->ops + n, m->n_ops * sizeof m->ops[0]);
}

static void append_create(struct model *m, int group, replica_id self,
                          uint64_t *position)
{
    struct group_creation creation = {
        .id = model_group_id(group), .self = self, .n_replicas = 3};
    for (int k = 0; k < 3; k++) {
        creation.replicas[k].id = self + (uint64_t)k;
        creation.replicas[k].node = k + 1;
    }
    *position = wal_append_create(m->wal, &creation);
}

static void on_file_begins(void *arg)
{
    struct model *m = arg;
    uint64_t position;
    m->begins++;
    for (int k = 0; k < MODEL_GROUPS; k++) {
        const struct model_group *g = &m->now.groups[k];
        struct group_id id = model_group_id(k);
        if (g->exists) {
            append_create(m, k, g->self, &position);
            wal_append_term(m->wal, &id, (raft_term_t){g->term}, g->vote);
            wal_append_config(m->wal, &id, (log_index){g->last},
                              (raft_term_t){g->term}, "cfg", 3);
        } else if (g->deleted) {
            wal_append_delete(m->wal, &id);
        }
    }
}

static void on_wants_settled(void *arg, const struct group_id *id,
                             log_index upto)
{
    struct model *m = arg;
    int group = id->partition;
    ck_assert_uint_le(upto.v, m->now.groups[group].last);
    if (!m->stuck[group]) {
        model_settle(m, group);
    }
}

static bool on_evict(void *arg, const struct group_id *id, log_index upto)
{
    struct model *m = arg;
    int group = id->partition;
    ck_assert(m->now.groups[group].exists);
    ck_assert_uint_le(upto.v, settled_of(m, group, m->now.groups[group].self));
    m->evictions++;
    return m->calm || prng_below(&m->prng, 8) != 0;
}

static void on_room(void *arg)
{
    struct model *m = arg;
    m->rooms++;
    m->wait_room = false;
}

static void on_moved(void *arg, const struct group_id *id, log_index index,
                     const struct wal_place *place)
{
    struct model *m = arg;
    int group = id->partition;
    const struct model_group *g = &m->now.groups[group];
    struct wal_place own = *place;
    if (!g->exists || index.v > g->last ||
        index.v <= settled_of(m, group, g->self)) {
        sim_fail(m->sim, "moved what is not alive: %d %llu of %llu..%llu",
                 group, (unsigned long long)index.v,
                 (unsigned long long)settled_of(m, group, g->self),
                 (unsigned long long)g->last);
    }
    ck_assert(filled(place->payload, place->size,
                     mix(group, g->self, index.v, g->terms[index.v])));
    for (int k = 0; k < MODEL_PLACES; k++) {
        if (m->places[k].chunk != NULL && m->place_group[k] == group &&
            m->place_index[k] == index.v && m->place_self[k] == g->self &&
            m->place_term[k] == g->terms[index.v]) {
            wal_place_drop(&m->places[k]);
            log_chunk_ref(own.chunk);
            m->places[k] = own;
        }
    }
    wal_place_drop(&own);
    m->moved++;
}

static log_index on_settled(void *arg, const struct group_id *id,
                            replica_id *self)
{
    struct model *m = arg;
    *self = m->settled_self[id->partition];
    return (log_index){m->settled[id->partition]};
}

/* ---- inside the node ----------------------------------------------------- */
void model_create(struct model *m, int group)
{
    uint64_t position;
    m->next_self += 10;
    append_create(m, group, m->next_self, &position);
    note(m, OP_CREATE, group, m->next_self, 0, position);
}

void model_entry(struct model *m, int group, uint32_t size)
{
    static uint8_t bytes[1 << 20];
    struct model_group *g = &m->now.groups[group];
    struct group_id id = model_group_id(group);
    if (g->term == 0) {
        model_term(m, group, 1, 0);
    }
    uint64_t index = g->last + 1, term = g->term;
    uint64_t h = mix(group, g->self, index, term);
    size = size > 0 ? size : model_size(group, g->self, index, term);
    ck_assert_uint_lt(index, MODEL_ENTRIES);
    fill(bytes, size, h);
    if (!wal_reserve(m->wal, size, 1)) {
        m->refusals++;
        m->wait_room = true;
        return;
    }
    struct iovec iov[2] = {{bytes, size / 3},
                           {bytes + size / 3, size - size / 3}};
    struct wal_place place;
    uint64_t position =
        wal_append_entry(m->wal, &id, (log_index){index}, (raft_term_t){term},
                         ENTRY_DATA, iov, 2, &place);
    note(m, OP_ENTRY, group, index, term, position);
    ck_assert_uint_eq(place.position, position);
    ck_assert_uint_eq(place.crc, crc32c(0, bytes, size));
    if (m->calm) {
        wal_place_drop(&place);
        return;
    }
    int slot = (int)prng_below(&m->prng, MODEL_PLACES);
    wal_place_drop(&m->places[slot]);
    m->places[slot] = place;
    m->place_group[slot] = group;
    m->place_index[slot] = index;
    m->place_term[slot] = term;
    m->place_self[slot] = g->self;
}

void model_truncate(struct model *m, int group, uint64_t first)
{
    struct group_id id = model_group_id(group);
    note(m, OP_TRUNCATE, group, first, 0,
         wal_append_truncate(m->wal, &id, (log_index){first}));
}

void model_term(struct model *m, int group, uint64_t term, uint64_t vote)
{
    struct group_id id = model_group_id(group);
    struct model_group *g = &m->now.groups[group];
    g->term = term; /* a file may begin inside the append */
    g->vote = vote;
    note(m, OP_TERM, group, term, vote,
         wal_append_term(m->wal, &id, (raft_term_t){term}, vote));
}

void model_delete(struct model *m, int group)
{
    struct group_id id = model_group_id(group);
    note(m, OP_DELETE, group, 0, 0, wal_append_delete(m->wal, &id));
}

void model_settle(struct model *m, int group)
{
    const struct model_group *now = &m->now.groups[group];
    const struct model_group *base = &m->base.groups[group];
    struct group_id id = model_group_id(group);
    if (!now->exists || !base->exists || now->self != base->self) {
        return;
    }
    uint64_t upto = now->last < base->last ? now->last : base->last;
    while (upto > 1 && now->terms[upto] != base->terms[upto]) {
        upto--;
    }
    if (upto <= settled_of(m, group, now->self)) {
        return;
    }
    m->settled[group] = upto;
    m->settled_self[group] = now->self;
    m->checkpoint_position = m->durable;
    wal_checkpointed(m->wal, ++m->seq);
    wal_settled(m->wal, &id, (log_index){upto});
}

/* References keep bytes whatever happens to the buffer. */
static void check_places(struct model *m)
{
    for (int k = 0; k < MODEL_PLACES; k++) {
        const struct wal_place *p = &m->places[k];
        if (p->chunk != NULL) {
            ck_assert(filled(p->payload, p->size,
                             mix(m->place_group[k], m->place_self[k],
                                 m->place_index[k], m->place_term[k])));
        }
    }
}

static void work_once(struct model *m)
{
    int group = (int)prng_below(&m->prng, MODEL_GROUPS);
    struct model_group *g = &m->now.groups[group];
    uint64_t dice = prng_below(&m->prng, 100);
    uint64_t settled = settled_of(m, group, g->self);
    if (!g->exists) {
        if (dice < 30) {
            model_create(m, group);
        }
    } else if (dice < 80) {
        if (!m->wait_room && (!m->stuck[group] || g->last < settled + 8)) {
            model_entry(m, group, 0);
        }
    } else if (dice < 84) {
        model_term(m, group, g->term + 1, prng_below(&m->prng, 3));
    } else if (dice < 88 && g->last > settled) {
        uint64_t first = settled + 1 + prng_below(&m->prng, g->last - settled);
        model_truncate(m, group, first);
        model_term(m, group, g->term + 1, 0);
    } else if (dice < 97) {
        if (!m->stuck[group]) {
            model_settle(m, group);
        }
    } else if (dice < 98) {
        model_delete(m, group);
        m->stuck[group] = false;
    } else {
        int slot = (int)prng_below(&m->prng, MODEL_PLACES);
        wal_place_drop(&m->places[slot]);
    }
}

/* Much at once, so that files end and begin within one turn. */
static void burst(struct model *m)
{
    int group = (int)prng_below(&m->prng, MODEL_GROUPS);
    uint64_t n = prng_below(&m->prng, 12);
    for (int k = 0; k < MODEL_GROUPS && prng_below(&m->prng, 2) == 0; k++) {
        if (!m->stuck[k]) {
            model_settle(m, k);
        }
    }
    const struct model_group *g = &m->now.groups[group];
    for (uint64_t k = 0; k < n; k++) {
        bool few = g->last < settled_of(m, group, g->self) + 5;
        if (g->exists && (!m->stuck[group] || few) && !m->wait_room) {
            model_entry(m, group, 1 + (uint32_t)prng_below(&m->prng, 8000));
        }
    }
}

static void work(struct env *env, void *arg)
{
    struct model *m = arg;
    uint64_t n = 1 + prng_below(&m->prng, 12);
    (void)env;
    check_places(m);
    for (uint64_t k = 0; k < n; k++) {
        work_once(m);
    }
    if (prng_below(&m->prng, 6) == 0) {
        burst(m);
    }
}

void model_work(struct model *m)
{
    struct wal_stats stats;
    sim_node_call(m->node, 0, work, m);
    wal_stats(m->wal, &stats);
    m->files_begun = stats.files_begun;
    m->relogged = stats.bytes_relogged;
}

/* ---- recovery ------------------------------------------------------------ */
static const struct wal_recovered_group *found(
    const struct wal_recovered_group *v, size_t n, int group)
{
    struct group_id id = model_group_id(group);
    for (size_t k = 0; k < n; k++) {
        if (memcmp(&v[k].id, &id, sizeof id) == 0) {
            return &v[k];
        }
    }
    return NULL;
}

static bool group_fits(const struct model *m, int group,
                       const struct model_group *g,
                       const struct wal_recovered_group *r)
{
    if (!g->exists) {
        return r == NULL || r->deleted;
    }
    uint64_t settled = settled_of(m, group, g->self);
    if (r == NULL || !r->created || r->deleted || r->creation.self != g->self ||
        r->creation.n_replicas != 3 || r->term.v != g->term ||
        r->vote != g->vote || r->first.v != settled + 1 ||
        r->n_entries != g->last - settled) {
        return false;
    }
    for (uint64_t k = 0; k < r->n_entries; k++) {
        const struct wal_recovered_entry *e = &r->entries[k];
        uint64_t index = settled + 1 + k;
        if (e->index.v != index || e->term.v != g->terms[index] ||
            e->type != ENTRY_DATA ||
            !filled(e->place.payload, e->place.size,
                    mix(group, g->self, index, e->term.v)) ||
            e->place.crc != crc32c(0, e->place.payload, e->place.size)) {
            return false;
        }
    }
    return true;
}

static bool state_fits(const struct model *m, const struct model_state *s,
                       const struct wal_recovered_group *v, size_t n)
{
    for (int k = 0; k < MODEL_GROUPS; k++) {
        if (!group_fits(m, k, &s->groups[k], found(v, n, k))) {
            return false;
        }
    }
    return true;
}

/* Of a damaged log: no other term and vote, nothing that was not there, and if
 * something is missing, how far the log reached is not understated. */
static enum model_verdict damaged_fits(const struct model *m, int group,
                                       const struct wal_recovered_group *r)
{
    const struct model_group *g = &m->base.groups[group];
    if (!g->exists) {
        return r == NULL || r->deleted ? MODEL_WHOLE : MODEL_WRONG;
    }
    uint64_t settled = settled_of(m, group, g->self);
    if ((r == NULL || (!r->created && !r->unmade)) && !wal_was_whole(m->wal)) {
        return MODEL_LACKS; /* nobody will open it */
    }
    /* who opens one without its creation knows that */
    if (r == NULL || r->deleted || r->created == r->unmade ||
        (r->created && r->creation.self != g->self) || r->term.v != g->term ||
        r->vote != g->vote || r->first.v != settled + 1 ||
        r->n_entries > g->last - settled) {
        return MODEL_WRONG;
    }
    for (uint64_t k = 0; k < r->n_entries; k++) {
        const struct wal_recovered_entry *e = &r->entries[k];
        uint64_t index = settled + 1 + k;
        if (e->index.v != index || e->term.v != g->terms[index] ||
            !filled(e->place.payload, e->place.size,
                    mix(group, g->self, index, e->term.v))) {
            return MODEL_WRONG;
        }
    }
    if (r->n_entries == g->last - settled) {
        return r->lost_index == 0 ? MODEL_WHOLE : MODEL_LACKS;
    }
    uint64_t term = g->terms[g->last];
    return r->lost_index != 0 &&
                   (r->lost_term.v > term ||
                    (r->lost_term.v == term && r->lost_index >= g->last))
               ? MODEL_LACKS
               : MODEL_WRONG;
}

struct opening {
    struct model *m;
    enum err status;
    bool damaged;
    enum model_verdict verdict;
};

static void open_inside(struct env *env, void *arg)
{
    static const struct wal_ops ops = {on_durable,       on_file_begins,
                                       on_wants_settled, on_evict,
                                       on_room,          on_moved};
    struct opening *o = arg;
    struct model *m = o->m;
    m->options.env = env;
    m->options.expect = (struct wal_expect){.log_id = m->log_id,
                                            .checkpoint_seq = m->seq,
                                            .position = m->checkpoint_position};
    if (m->seq == 0) {
        m->options.expect = (struct wal_expect){0};
    }
    o->status = wal_open(&m->options, &ops, m, on_settled, &m->wal);
    if (o->status != ERR_OK) {
        return;
    }
    size_t n;
    struct wal_recovered_group *v = wal_recovered(m->wal, &n);
    for (int k = 0; k < MODEL_GROUPS && o->damaged; k++) {
        enum model_verdict verdict = damaged_fits(m, k, found(v, n, k));
        o->verdict = verdict > o->verdict ? verdict : o->verdict;
    }
    if (o->damaged) {
        wal_recovered_free(v, n);
        return;
    }
    uint32_t next = 0;
    while (!state_fits(m, &m->base, v, n)) {
        if (next == m->n_ops) {
            sim_fail(m->sim,
                     "what was recovered is no state the log had "
                     "(durable %llu, appended %llu)",
                     (unsigned long long)m->durable,
                     (unsigned long long)m->appended);
        }
        apply(&m->base, &m->ops[next++]);
    }
    m->n_ops = 0;
    memcpy(&m->now, &m->base, sizeof m->now);
    ck_assert_uint_ge(wal_durable_position(m->wal), m->appended);
    m->durable = m->appended = wal_durable_position(m->wal);
    m->log_id = wal_log_id(m->wal);
    m->wait_room = false;
    wal_recovered_free(v, n);
}

enum model_verdict model_open_damaged(struct model *m)
{
    struct opening o = {.m = m, .damaged = true};
    memset(m->places, 0, sizeof m->places);
    sim_node_call(m->node, 0, open_inside, &o);
    return o.status == ERR_OK ? o.verdict : MODEL_REFUSED;
}

enum err model_open(struct model *m)
{
    struct opening o = {.m = m};
    memset(m->places, 0, sizeof m->places);
    m->idle_bytes = sim_node_bytes(m->node);
    sim_node_call(m->node, 0, open_inside, &o);
    return o.status;
}

void model_crash(struct model *m, enum sim_crash how)
{
    sim_node_crash(m->node, how);
    m->wal = NULL;
    sim_node_restart(m->node);
}

static void on_closed(void *arg)
{
    struct model *m = arg;
    m->closed = true;
}

static void close_inside(struct env *env, void *arg)
{
    struct model *m = arg;
    (void)env;
    for (int k = 0; k < MODEL_PLACES; k++) {
        wal_place_drop(&m->places[k]);
    }
    m->closed = false;
    wal_close(m->wal, on_closed, m);
}

void model_restart(struct model *m)
{
    sim_node_call(m->node, 0, close_inside, m);
    sim_run_for(m->sim, 2 * SIM_S);
    ck_assert(m->closed);
    ck_assert_uint_eq(m->n_ops, 0);
    /* The env keeps its list of timers. */
    ck_assert_uint_le(sim_node_bytes(m->node), m->idle_bytes + 128);
    model_crash(m, SIM_DROP_ALL);
}

void model_run_us(struct model *m, uint64_t us)
{
    sim_run_for(m->sim, us * SIM_US);
}

void model_begin(struct model *m, uint64_t seed)
{
    memset(m, 0, sizeof *m);
    m->sim = sim_new(seed);
    prng_seed(&m->prng, seed * 77);
    m->node = sim_node_add(m->sim, "one", 1);
    m->options = (struct wal_options){.dir = "/data/log",
                                      .file_bytes = 64 << 10,
                                      .bytes_max = 4 * 64 << 10,
                                      .buffer_bytes_max = 32 << 10};
    sim_node_start(m->node, NULL, NULL);
}

void model_end(struct model *m)
{
    sim_free(m->sim);
}
