/* The laboratory itself; included by the test programs that use it. */
#include "tests/sim/raft_lab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/mem.h"

/* ---- clock --------------------------------------------------------------- */

static uint64_t lab_now_ms(const struct env *env)
{
    return ((const struct lab *)env)->now;
}

static uint64_t lab_now_ns(const struct env *env)
{
    return lab_now_ms(env) * 1000000;
}

static void lab_fatal(struct env *env, const char *line)
{
    fprintf(stderr, "lab: fatal: %s\n", line);
    (void)env;
    abort();
}

static const struct env_ops lab_env = {
    .now_ms = lab_now_ms,
    .now_ns = lab_now_ns,
    .fatal = lab_fatal,
};

/* ---- log ----------------------------------------------------------------- */

static struct lab_record *record_add(struct lab_node *n, enum lab_kind kind)
{
    struct lab_record *r;

    if (n->n_log == n->log_size) {
        n->log_size = n->log_size == 0 ? 64 : n->log_size * 2;
        n->log = mem_realloc(n->log, n->log_size * sizeof *n->log);
    }
    r = &n->log[n->n_log++];
    memset(r, 0, sizeof *r);
    r->kind = kind;
    r->position = ++n->position;
    return r;
}

static bool log_reserve(void *arg, uint64_t bytes, uint32_t records)
{
    struct lab_node *n = arg;

    (void)bytes, (void)records;
    return !n->full;
}

static void log_unreserve(void *arg, uint64_t bytes, uint32_t records)
{
    (void)arg, (void)bytes, (void)records;
}

static uint64_t log_append_entry(void *arg, const struct group_id *group,
                                 log_index index, raft_term_t term,
                                 enum entry_type type,
                                 const struct iovec *payload, int n_payload,
                                 struct wal_place *out)
{
    struct lab_record *r = record_add(arg, LAB_ENTRY);

    (void)group;
    r->index = index.v;
    r->term = term.v;
    r->type = type;
    for (int i = 0; i < n_payload; i++)
        r->size += (uint32_t)payload[i].iov_len;
    r->payload = mem_alloc(r->size);
    for (int i = 0, at = 0; i < n_payload; i++) {
        memcpy(r->payload + at, payload[i].iov_base, payload[i].iov_len);
        at += (int)payload[i].iov_len;
    }
    memset(out, 0, sizeof *out);
    out->payload = r->payload;
    out->size = r->size;
    out->crc = crc32c(0, r->payload, r->size);
    out->position = r->position;
    return r->position;
}

static uint64_t log_append_truncate(void *arg, const struct group_id *group,
                                    log_index first)
{
    struct lab_record *r = record_add(arg, LAB_TRUNCATE);

    (void)group;
    r->index = first.v;
    return r->position;
}

static uint64_t log_append_term(void *arg, const struct group_id *group,
                                raft_term_t term, replica_id vote)
{
    struct lab_record *r = record_add(arg, LAB_TERM);

    (void)group;
    r->term = term.v;
    r->vote = vote;
    return r->position;
}

static uint64_t log_append_create(void *arg, const struct group_creation *c)
{
    (void)c;
    return ((struct lab_node *)arg)->position;
}

static uint64_t log_append_delete(void *arg, const struct group_id *id)
{
    (void)id;
    return ((struct lab_node *)arg)->position;
}

static uint64_t log_durable(void *arg)
{
    return ((struct lab_node *)arg)->durable;
}

/* ---- network
 * ----------------------------------------------------------------- */

static bool net_send(void *arg, node_id node, const struct group_id *group,
                     const struct transport_piece *pieces, int n_pieces)
{
    struct lab_node *n = arg;
    struct lab *lab = n->lab;
    struct lab_message *m;
    size_t size = 0;

    (void)group;
    for (int i = 0; i < n_pieces; i++)
        size += pieces[i].size;
    m = mem_alloc(sizeof *m + size);
    m->next = NULL;
    m->from = n->at;
    m->to = node;
    m->size = size;
    for (size_t i = 0, at = 0; i < (size_t)n_pieces; i++) {
        memcpy(m->body + at, pieces[i].data, pieces[i].size);
        at += pieces[i].size;
    }
    if (size > lab->largest_append)
        lab->largest_append = size;
    lab->n_messages++;
    *lab->tail = m;
    lab->tail = &m->next;
    return true;
}

static const struct raft_backend lab_backend = {
    .reserve = log_reserve,
    .unreserve = log_unreserve,
    .append_entry = log_append_entry,
    .append_truncate = log_append_truncate,
    .append_term = log_append_term,
    .append_create = log_append_create,
    .append_delete = log_append_delete,
    .durable = log_durable,
    .send = net_send,
};

/* ---- state machine
 * -------------------------------------------------------------- */

static void violate(struct lab *lab, const char *what)
{
    if (lab->violation == NULL)
        lab->violation = what;
}

static enum err sm_restore(void *sm, log_index settled, raft_term_t term,
                           const uint8_t *blob, uint32_t blob_size)
{
    struct lab_node *n = sm;

    (void)term, (void)blob, (void)blob_size;
    n->applied = n->appended = n->told_durable = settled.v;
    return ERR_OK;
}

static void sm_appended(void *sm, const struct group_entry *entry)
{
    struct lab_node *n = sm;

    if (entry->index.v != ++n->appended)
        violate(n->lab, "appended out of order");
}

static void sm_truncated(void *sm, log_index first)
{
    struct lab_node *n = sm;

    if (first.v <= n->applied)
        violate(n->lab, "an applied entry was truncated");
    n->appended = first.v - 1;
    if (n->told_durable >= first.v)
        n->told_durable = first.v - 1;
}

static void describe(const struct group_entry *e, char text[LAB_TEXT])
{
    snprintf(text, LAB_TEXT, "%llu:%.*s", (unsigned long long)e->term.v,
             (int)(e->size < 12 ? e->size : 12), (const char *)e->payload);
}

static void sm_applied(void *sm, const struct group_entry *entry)
{
    struct lab_node *n = sm;
    struct lab *lab = n->lab;
    char text[LAB_TEXT];

    if (entry->index.v != ++n->applied || n->applied > n->appended)
        violate(lab, "applied out of order");
    while (lab->n_applied <= entry->index.v) {
        uint64_t was = lab->n_applied;

        lab->n_applied = was == 0 ? 1024 : was * 2;
        lab->applied = mem_realloc(lab->applied, lab->n_applied * LAB_TEXT);
        memset(lab->applied[was], 0, (lab->n_applied - was) * LAB_TEXT);
    }
    describe(entry, text);
    if (lab->applied[entry->index.v][0] == 0)
        memcpy(lab->applied[entry->index.v], text, LAB_TEXT);
    else if (strcmp(lab->applied[entry->index.v], text) != 0)
        violate(lab, "two replicas applied different entries");
    if (entry->index.v > lab->newest_applied)
        lab->newest_applied = entry->index.v;
}

static void sm_durable(void *sm, log_index upto)
{
    ((struct lab_node *)sm)->told_durable = upto.v;
}

static void sm_role(void *sm, const struct group_role *role)
{
    struct lab_node *n = sm;

    n->role = *role;
    n->roles++;
}

static void sm_evicted(void *sm, log_index upto)
{
    (void)sm, (void)upto;
}

static bool sm_settle_begin(void *sm, struct settle_job *job)
{
    (void)sm, (void)job;
    return false;
}

static void sm_settled(void *sm, struct settle_job *job)
{
    (void)sm, (void)job;
}

static void sm_closed(void *sm)
{
    (void)sm;
}

static const struct group_ops lab_ops = {
    .restore = sm_restore,
    .appended = sm_appended,
    .truncated = sm_truncated,
    .applied = sm_applied,
    .durable = sm_durable,
    .role_changed = sm_role,
    .evicted = sm_evicted,
    .settle_begin = sm_settle_begin,
    .settled = sm_settled,
    .closed = sm_closed,
};

/* ---- nodes
 * -------------------------------------------------------------------------- */

static struct group_creation creation_of(const struct lab *lab, int at)
{
    struct group_creation c = {.self = (replica_id)at + 1,
                               .n_replicas = lab->n};

    c.id.topic.b[0] = 7;
    for (int i = 0; i < lab->n; i++)
        c.replicas[i] = (struct group_replica){(replica_id)i + 1, i};
    return c;
}

struct lab *lab_new(int n, uint64_t seed, uint32_t guards)
{
    struct lab *lab = mem_zalloc(sizeof *lab);

    env_base_init(&lab->env, &lab_env, seed);
    lab->n = n;
    lab->guards = guards;
    lab->tail = &lab->messages;
    for (int i = 0; i < n; i++) {
        lab->nodes[i].lab = lab;
        lab->nodes[i].at = i;
        lab_up(lab, i);
    }
    return lab;
}

static void node_stop(struct lab_node *n)
{
    if (n->host == NULL)
        return;
    raft_host_free(n->host);
    n->host = NULL;
    n->group = NULL;
}

void lab_free(struct lab *lab)
{
    for (int i = 0; i < lab->n; i++) {
        struct lab_node *n = &lab->nodes[i];

        node_stop(n);
        for (uint32_t k = 0; k < n->n_log; k++)
            mem_free(n->log[k].payload);
        mem_free(n->log);
    }
    lab_drop_all(lab, -1, -1, 0);
    mem_free(lab->applied);
    mem_free(lab->leader_of);
    env_base_free(&lab->env);
    mem_free(lab);
}

/* The entries that a log's records leave. */
struct lab_tail {
    struct lab_record **v;
    uint64_t n; /* v[i] has index i + 2 */
};

static void replay(struct lab_node *n, struct lab_tail *tail,
                   struct group_found *found)
{
    tail->v = mem_alloc((n->n_log + 1) * sizeof *tail->v);
    tail->n = 0;
    for (uint32_t i = 0; i < n->n_log; i++) {
        struct lab_record *r = &n->log[i];

        if (r->kind == LAB_ENTRY && r->index == tail->n + 2)
            tail->v[tail->n++] = r;
        else if (r->kind == LAB_TRUNCATE)
            tail->n = r->index - 2 < tail->n ? r->index - 2 : tail->n;
        else if (r->kind == LAB_TERM) {
            found->term = r->term;
            found->vote = r->vote;
        }
    }
}

void lab_up(struct lab *lab, int at)
{
    struct lab_node *n = &lab->nodes[at];
    struct group_creation creation = creation_of(lab, at);
    struct raft_host_options options = {
        .env = &lab->env,
        .dir = "lab",
        .node = at,
        .tick_ms = 50,
        .heartbeat_ms = 500,
        .election_ms = 2500,
    };
    struct group_found found = {.term = 1, .settled = 1, .settled_term = 1};
    struct lab_tail tail;

    if (n->host != NULL)
        return;
    n->host = raft_host_new_over(&options, &lab_backend, n);
    ASSERT(n->host != NULL);
    n->host->durable = n->durable;
    guard_set_mask(n->host, lab->guards);
    n->group = group_new(n->host, &creation);
    replay(n, &tail, &found);
    group_recover(n->group, &found);
    for (uint64_t i = 0; i < tail.n; i++) {
        struct wal_place place = {
            .payload = tail.v[i]->payload,
            .size = tail.v[i]->size,
            .crc = crc32c(0, tail.v[i]->payload, tail.v[i]->size),
            .position = tail.v[i]->position,
        };

        if (!group_recover_entry(n->group, i + 2, tail.v[i]->term,
                                 tail.v[i]->type, &place))
            violate(lab, "the log does not fit together");
    }
    mem_free(tail.v);
    raft_host_add(n->host, n->group);
    n->applied = n->appended = n->told_durable = 1;
    n->group->ops = &lab_ops;
    n->group->sm = n;
    group_start(n->group);
    lab_turn(lab);
}

static void messages_unlink(struct lab *lab, struct lab_message **at)
{
    struct lab_message *m = *at;

    *at = m->next;
    if (*at == NULL)
        lab->tail = at;
}

void lab_crash(struct lab *lab, int at, uint32_t keep)
{
    struct lab_node *n = &lab->nodes[at];

    if (n->host == NULL)
        return;
    lab_turn(lab);
    node_stop(n);
    while (n->n_log > 0 && n->log[n->n_log - 1].position > n->durable + keep)
        mem_free(n->log[--n->n_log].payload);
    n->durable = n->n_log > 0 ? n->log[n->n_log - 1].position : 0;
    for (struct lab_message **m = &lab->messages; *m != NULL;) {
        struct lab_message *it = *m;

        if (it->from != at && it->to != at) {
            m = &it->next;
            continue;
        }
        messages_unlink(lab, m);
        mem_free(it);
    }
}

void lab_pass(struct lab *lab, uint64_t ms)
{
    lab->now += ms;
    env_timers_fire(&lab->env);
}

void lab_turn(struct lab *lab)
{
    env_turn_end(&lab->env);
    lab_check(lab);
}

void lab_tick(struct lab *lab, int at)
{
    struct lab_node *n = &lab->nodes[at];

    if (n->host == NULL)
        return;
    group_tick(n->group);
    lab_turn(lab);
}

static void sync_upto(struct lab *lab, struct lab_node *n, uint64_t position)
{
    if (n->host == NULL || position <= n->durable)
        return;
    n->durable = position;
    raft_host_durable(n->host, position);
    lab_turn(lab);
}

void lab_sync(struct lab *lab, int at)
{
    sync_upto(lab, &lab->nodes[at], lab->nodes[at].position);
}

bool lab_sync_one(struct lab *lab, int at)
{
    struct lab_node *n = &lab->nodes[at];

    if (n->host == NULL || n->durable >= n->position)
        return false;
    sync_upto(lab, n, n->durable + 1);
    return true;
}

static struct lab_message **find(struct lab *lab, int from, int to, int type)
{
    struct lab_message **m = &lab->messages;

    while (*m != NULL &&
           !((from < 0 || (*m)->from == from) && (to < 0 || (*m)->to == to) &&
             (type == 0 || (*m)->body[1] == type)))
        m = &(*m)->next;
    return m;
}

struct lab_message *lab_find(struct lab *lab, int from, int to, int type)
{
    return *find(lab, from, to, type);
}

void lab_hand(struct lab *lab, struct lab_message *m)
{
    struct lab_node *n = &lab->nodes[m->to];
    struct group_creation creation = creation_of(lab, m->to);

    if (n->host != NULL && !lab->cut[m->from][m->to])
        raft_host_receive(n->host, m->from, &creation.id, m->body, m->size);
    mem_free(m);
    lab_turn(lab);
}

bool lab_deliver(struct lab *lab, int from, int to, int type)
{
    struct lab_message **at = find(lab, from, to, type);
    struct lab_message *m = *at;

    if (m == NULL)
        return false;
    messages_unlink(lab, at);
    lab_hand(lab, m);
    return true;
}

bool lab_drop(struct lab *lab, int from, int to, int type)
{
    struct lab_message **at = find(lab, from, to, type);
    struct lab_message *m = *at;

    if (m == NULL)
        return false;
    messages_unlink(lab, at);
    mem_free(m);
    return true;
}

void lab_drop_all(struct lab *lab, int from, int to, int type)
{
    while (lab_drop(lab, from, to, type)) {
    }
}

void lab_settle(struct lab *lab)
{
    bool any = true;

    for (int rounds = 0; any && rounds < 100000; rounds++) {
        any = lab_deliver(lab, -1, -1, 0);
        for (int i = 0; i < lab->n; i++)
            if (!any && lab->nodes[i].durable < lab->nodes[i].position &&
                lab->nodes[i].host != NULL) {
                lab_sync(lab, i);
                any = true;
            }
    }
}

void lab_elect(struct lab *lab, int at)
{
    for (int i = 0; i < lab->n; i++) {
        struct lab_node *n = &lab->nodes[i];

        if (n->host == NULL || n->group->raft.state != RAFT_FOLLOWER)
            continue;
        n->group->raft.follower_state.current_leader.id = 0;
        n->group->raft.election_timer_start = i == at ? 0 : group_now(n->group);
    }
    lab_tick(lab, at);
}

void lab_run(struct lab *lab, uint64_t ms)
{
    for (uint64_t t = 0; t < ms; t += 50) {
        lab_pass(lab, 50);
        for (int i = 0; i < lab->n; i++)
            lab_tick(lab, i);
        lab_settle(lab);
    }
}

struct raft *lab_raft(struct lab *lab, int at)
{
    return &lab->nodes[at].group->raft;
}

enum err lab_propose(struct lab *lab, int at, const char *text)
{
    struct iovec iov = {(void *)(uintptr_t)text, strlen(text)};
    log_index index;
    enum err e;

    if (lab->nodes[at].host == NULL)
        return ERR_CLOSED;
    e = group_propose(lab->nodes[at].group, ENTRY_DATA, &iov, 1, &index);
    lab_turn(lab);
    return e;
}

enum err lab_propose_bytes(struct lab *lab, int at, size_t size)
{
    uint8_t *bytes = mem_zalloc(size);
    struct iovec iov = {bytes, size};
    log_index index;
    enum err e =
        group_propose(lab->nodes[at].group, ENTRY_DATA, &iov, 1, &index);

    lab_turn(lab);
    mem_free(bytes);
    return e;
}

int lab_leader(struct lab *lab)
{
    int leader = -1;

    for (int i = 0; i < lab->n; i++)
        if (lab->nodes[i].host != NULL &&
            lab_raft(lab, i)->state == RAFT_LEADER &&
            (leader < 0 || lab_raft(lab, i)->current_term >
                               lab_raft(lab, leader)->current_term))
            leader = i;
    return leader;
}

void lab_forge(struct lab *lab, int from, int to, const struct message *m,
               const struct message_entry *entries)
{
    struct lab_message *out;
    size_t size = 4096;
    static const struct message_entry none;
    size_t at;

    if (entries == NULL)
        entries = &none;
    for (uint32_t i = 0; i < m->n_entries; i++)
        size += entries[i].size;
    out = mem_zalloc(sizeof *out + size);
    out->from = from;
    out->to = to;
    at = message_encode(m, out->body);
    for (uint32_t i = 0; i < m->n_entries; i++, at += MESSAGE_ENTRY_SIZE)
        message_encode_entry(&entries[i], out->body + at);
    for (uint32_t i = 0; i < m->n_entries; i++) {
        memcpy(out->body + at, entries[i].payload, entries[i].size);
        at += entries[i].size;
    }
    out->size = at;
    lab_hand(lab, out);
}

static void note_leader(struct lab *lab, int at, uint64_t term)
{
    while (lab->n_terms <= term) {
        uint64_t was = lab->n_terms;

        lab->n_terms = was == 0 ? 64 : was * 2;
        lab->leader_of =
            mem_realloc(lab->leader_of, lab->n_terms * sizeof(int));
        memset(lab->leader_of + was, 0, (lab->n_terms - was) * sizeof(int));
    }
    if (lab->leader_of[term] != 0 && lab->leader_of[term] != at + 1)
        violate(lab, "two leaders in one term");
    lab->leader_of[term] = at + 1;
}

void lab_check(struct lab *lab)
{
    for (int i = 0; i < lab->n; i++) {
        struct lab_node *n = &lab->nodes[i];

        if (n->host == NULL)
            continue;
        if (n->group->raft.state == RAFT_LEADER)
            note_leader(lab, i, n->group->raft.current_term);
        if (n->applied > n->group->raft.commit_index)
            violate(lab, "applied beyond commit");
    }
}
