/* Part of sim_main alone: unit tests that bring a false raft/group.h are linked
 * with the rest of this folder. */
#include "tests/sim/raft_cluster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/mem.h"
#include "raft/catchup.h"
#include "raft/group_impl.h"
#include "raft/guard.h"

/* Between two looks at what leaders believe. */
#define WATCH_NS (2 * SIM_MS)

#define DIR "/data/raft"

/* ---- what the oracle knows; its memory belongs to no node ---------------- */

struct seen_entry {
    uint64_t term;
    uint64_t print; /* of type and payload */
    struct seen_entry *next;
};

struct oracle_group {
    uint64_t *applied; /* fingerprint by index; 0: not applied anywhere yet */
    uint64_t *applied_term;
    struct seen_entry **seen; /* by index: what was in somebody's log */
    uint64_t size;
    uint64_t newest;       /* index applied by anybody */
    uint64_t acknowledged; /* newest index acknowledged */
    int *leader_of;        /* by term: node + 1 */
    uint64_t n_terms;
};

struct machine;

struct cluster_node {
    struct cluster *cluster;
    int at;
    struct sim_node *sim_node;
    struct transport *transport; /* of the running incarnation */
    struct raft_host *host;
    struct machine *machines[CLUSTER_GROUPS_MAX];
    struct env_timer work;
    bool may_fail; /* a disk fault was planted */
    bool stopping;
};

struct cluster {
    struct cluster_options options;
    struct sim *sim;
    struct prng prng;
    struct cluster_node nodes[CLUSTER_NODES_MAX];
    struct oracle_group groups[CLUSTER_GROUPS_MAX];
    struct cluster_result result;
    uint64_t next_payload;
    bool healing;
};

static uint64_t mix(uint64_t h, uint64_t v)
{
    h ^= v + UINT64_C(0x9e3779b97f4a7c15) + (h << 6) + (h >> 2);
    return h * UINT64_C(0xff51afd7ed558ccd);
}

static uint64_t print_of(const struct group_entry *e)
{
    return mix(mix(e->size, e->crc), (uint64_t)e->type) | 1;
}

static void oracle_grow(struct oracle_group *o, uint64_t index)
{
    uint64_t size = o->size == 0 ? 1024 : o->size;

    while (size <= index)
        size *= 2;
    if (size == o->size)
        return;
    o->applied = realloc(o->applied, size * sizeof *o->applied);
    o->applied_term = realloc(o->applied_term, size * sizeof *o->applied_term);
    o->seen = realloc(o->seen, size * sizeof(struct seen_entry *));
    for (uint64_t i = o->size; i < size; i++) {
        o->applied[i] = o->applied_term[i] = 0;
        o->seen[i] = NULL;
    }
    o->size = size;
}

/* Log matching: the same index and term, the same entry. */
static void oracle_appended(struct cluster *c, int group, int node,
                            const struct group_entry *e)
{
    struct oracle_group *o = &c->groups[group];
    struct seen_entry *s;

    oracle_grow(o, e->index.v);
    for (s = o->seen[e->index.v]; s != NULL; s = s->next) {
        if (s->term != e->term.v)
            continue;
        if (s->print != print_of(e))
            sim_fail(c->sim, "log matching: group %d index %llu node %d", group,
                     (unsigned long long)e->index.v, node);
        return;
    }
    s = malloc(sizeof *s);
    s->term = e->term.v;
    s->print = print_of(e);
    s->next = o->seen[e->index.v];
    o->seen[e->index.v] = s;
}

/* State machine safety. */
static void oracle_applied(struct cluster *c, int group, int node,
                           const struct group_entry *e)
{
    struct oracle_group *o = &c->groups[group];

    oracle_grow(o, e->index.v);
    if (o->applied[e->index.v] == 0) {
        o->applied[e->index.v] = print_of(e);
        o->applied_term[e->index.v] = e->term.v;
        c->result.applied++;
    } else if (o->applied[e->index.v] != print_of(e) ||
               o->applied_term[e->index.v] != e->term.v) {
        sim_fail(c->sim, "state machine safety: group %d index %llu node %d",
                 group, (unsigned long long)e->index.v, node);
    }
    if (e->index.v > o->newest)
        o->newest = e->index.v;
}

/* Election safety. */
static void oracle_leads(struct cluster *c, int group, int node, uint64_t term)
{
    struct oracle_group *o = &c->groups[group];

    while (o->n_terms <= term) {
        uint64_t n = o->n_terms == 0 ? 64 : o->n_terms * 2;

        o->leader_of = realloc(o->leader_of, n * sizeof *o->leader_of);
        memset(o->leader_of + o->n_terms, 0,
               (n - o->n_terms) * sizeof *o->leader_of);
        o->n_terms = n;
    }
    if (o->leader_of[term] != 0 && o->leader_of[term] != node + 1)
        sim_fail(c->sim, "election safety: group %d term %llu nodes %d and %d",
                 group, (unsigned long long)term, o->leader_of[term] - 1, node);
    if (o->leader_of[term] == 0)
        c->result.elections++;
    o->leader_of[term] = node + 1;
}

/* ---- the state machine: a file of fingerprints --------------------------- */

struct record {
    uint64_t index, term, print;
};

/* What the checkpoint keeps: also the bytes of the file's last, partly filled
 * sector, for an interrupted write behind them may spoil it. */
#define SECTOR 512
struct machine_blob {
    uint64_t size, chain, generation;
    uint8_t tail[SECTOR + sizeof(struct record)];
    uint64_t n_tail;
};

struct machine {
    struct cluster_node *node;
    int at;
    struct group *group;
    uint64_t applied, appended, durable;
    uint64_t chain;         /* over all that is applied */
    struct record *records; /* applied, not settled */
    uint32_t n_records, records_size;
    uint64_t file_size;  /* settled */
    uint64_t generation; /* of the file: a transfer makes another */
    struct machine_blob blob;
    struct env_file *file;
    struct { /* being received */
        bool active;
        uint64_t size, asked, written;
        struct machine_blob blob;
        struct env_file *file;
    } rx;
    struct finish *finish;
    struct group_role role;
    uint64_t proposed_term; /* of what waits below */
    struct {
        uint64_t index;
    } waiting[64]; /* proposals of this leadership, in order */
    uint32_t n_waiting;
    bool closed;
};

static void machine_path(const struct machine *m, uint64_t generation,
                         char out[64])
{
    snprintf(out, 64, "/data/g%d.%llu", m->at, (unsigned long long)generation);
}

static enum err machine_file(const struct machine *m, uint64_t generation,
                             struct env_file **out)
{
    char path[64];

    machine_path(m, generation, path);
    return env_file_open(m->node->host->env, path,
                         ENV_FILE_READ | ENV_FILE_WRITE | ENV_FILE_CREATE, out);
}

static void chain_add(uint64_t *chain, const struct record *r)
{
    *chain = mix(mix(mix(*chain, r->index), r->term), r->print);
}

static void blob_add(struct machine_blob *b, const struct record *r)
{
    uint64_t whole;

    chain_add(&b->chain, r);
    memcpy(b->tail + b->n_tail, r, sizeof *r);
    b->n_tail += sizeof *r;
    b->size += sizeof *r;
    whole = b->n_tail / SECTOR * SECTOR;
    b->n_tail -= whole;
    memmove(b->tail, b->tail + whole, b->n_tail);
}

static enum err write_tail(struct env_file *file, const struct machine_blob *b)
{
    struct iovec iov = {(void *)(uintptr_t)b->tail, b->n_tail};

    return b->n_tail == 0
               ? ERR_OK
               : env_file_pwritev(file, &iov, 1, b->size - b->n_tail, false);
}

static void check_file(struct machine *m, uint64_t size, uint64_t settled,
                       uint64_t chain)
{
    struct cluster *c = m->node->cluster;
    struct record *records = mem_alloc(size);
    size_t got = 0;
    uint64_t h = 0;

    if (env_file_pread(m->file, records, size, 0, &got) != ERR_OK ||
        got != size)
        sim_fail(c->sim, "settled bytes are gone: node %d group %d",
                 m->node->at, m->at);
    for (size_t i = 0; i < size / sizeof *records; i++) {
        chain_add(&h, &records[i]);
        if (records[i].index != i + 2)
            sim_fail(c->sim,
                     "settled file out of order: node %d group %d "
                     "generation %llu record %zu of %zu has index %llu",
                     m->node->at, m->at, (unsigned long long)m->generation, i,
                     (size_t)(size / sizeof *records),
                     (unsigned long long)records[i].index);
    }
    if (h != chain || settled != size / sizeof *records + 1)
        sim_fail(c->sim,
                 "settled file differs from checkpoint: node %d group "
                 "%d",
                 m->node->at, m->at);
    mem_free(records);
}

static enum err m_restore(void *sm, log_index settled, raft_term_t term,
                          const uint8_t *blob, uint32_t blob_size)
{
    struct machine *m = sm;
    struct machine_blob state = {0};

    (void)term;
    if (blob_size == sizeof state)
        memcpy(&state, blob, sizeof state);
    if (m->file != NULL)
        env_file_close(m->file);
    m->file = NULL;
    m->n_records = 0;
    if (machine_file(m, state.generation, &m->file) != ERR_OK ||
        write_tail(m->file, &state) != ERR_OK)
        return ERR_IO;
    m->file_size = state.size;
    m->chain = state.chain;
    m->generation = state.generation;
    m->blob = state;
    m->applied = m->appended = m->durable = settled.v;
    check_file(m, state.size, settled.v, state.chain);
    sim_note(m->node->cluster->sim, "b%d group %d restored at %llu, file %llu",
             m->node->at, m->at, (unsigned long long)settled.v,
             (unsigned long long)state.generation);
    return ERR_OK;
}

static void m_appended(void *sm, const struct group_entry *e)
{
    struct machine *m = sm;

    if (e->index.v != ++m->appended)
        sim_fail(m->node->cluster->sim, "appended out of order");
    if (crc32c(0, e->payload, e->size) != e->crc)
        sim_fail(m->node->cluster->sim, "an entry's bytes changed");
    oracle_appended(m->node->cluster, m->at, m->node->at, e);
}

static void m_truncated(void *sm, log_index first)
{
    struct machine *m = sm;

    if (first.v <= m->applied)
        sim_fail(m->node->cluster->sim, "an applied entry was truncated");
    if (m->role.is_leader && m->group->raft.state == RAFT_LEADER)
        sim_fail(m->node->cluster->sim, "a leader truncated its log");
    m->appended = first.v - 1;
}

/* A proposal of this leadership is committed and applied: acknowledged. */
static void acknowledge(struct machine *m, const struct group_entry *e)
{
    struct oracle_group *o = &m->node->cluster->groups[m->at];
    uint32_t n = 0;

    if (m->n_waiting == 0 || m->waiting[0].index != e->index.v)
        return;
    while (++n < m->n_waiting)
        m->waiting[n - 1] = m->waiting[n];
    m->n_waiting--;
    if (e->term.v != m->proposed_term)
        return;
    m->node->cluster->result.acknowledged++;
    if (e->index.v > o->acknowledged)
        o->acknowledged = e->index.v;
}

static void m_applied(void *sm, const struct group_entry *e)
{
    struct machine *m = sm;
    struct record r = {e->index.v, e->term.v, print_of(e)};

    if (e->index.v != ++m->applied || m->applied > m->appended)
        sim_fail(m->node->cluster->sim, "applied out of order");
    if (e->index.v > group_durable_index(m->group).v)
        sim_fail(m->node->cluster->sim, "applied before it was durable");
    oracle_applied(m->node->cluster, m->at, m->node->at, e);
    if (m->n_records == m->records_size) {
        m->records_size = m->records_size == 0 ? 64 : m->records_size * 2;
        m->records =
            mem_realloc(m->records, m->records_size * sizeof *m->records);
    }
    m->records[m->n_records++] = r;
    acknowledge(m, e);
}

static void m_durable(void *sm, log_index upto)
{
    struct machine *m = sm;

    m->durable = upto.v;
}

static void m_role(void *sm, const struct group_role *role)
{
    struct machine *m = sm;

    if (role->term.v < m->role.term.v)
        sim_fail(m->node->cluster->sim, "the term went back");
    if (!role->is_leader || role->term.v != m->proposed_term)
        m->n_waiting = 0;
    m->role = *role;
    if (role->is_leader)
        oracle_leads(m->node->cluster, m->at, m->node->at, role->term.v);
    /* leader completeness: a ready leader has applied what anybody had when
     * it was elected; state machine safety and reads show it */
}

static void m_evicted(void *sm, log_index upto)
{
    struct machine *m = sm;

    if (upto.v > group_settled_index(m->group).v)
        sim_fail(m->node->cluster->sim, "evicted before it was settled");
}

struct machine_job {
    struct machine *machine; /* not touched by the worker */
    struct env_file *file;
    struct record *records;
    uint32_t n;
    uint64_t at;
};

static enum err job_run(struct settle_job *job)
{
    struct machine_job *j = job->arg;
    struct iovec iov = {j->records, j->n * sizeof *j->records};
    enum err e = env_file_pwritev(j->file, &iov, 1, j->at, false);

    job->files[0] = j->file;
    job->n_files = 1;
    job->dirs[0] = "/data";
    job->n_dirs = 1;
    return e;
}

static bool m_settle_begin(void *sm, struct settle_job *job)
{
    struct machine *m = sm;
    struct machine_job *j;
    struct machine_blob state = m->blob;

    if (m->rx.active)
        sim_fail(m->node->cluster->sim, "settles while files are received");
    if (m->n_records == 0)
        return false;
    if (job->upto.v != m->applied)
        sim_fail(m->node->cluster->sim, "settling something else");
    j = mem_alloc(sizeof *j);
    j->machine = m;
    j->file = m->file;
    j->n = m->n_records;
    j->at = m->file_size;
    j->records = mem_alloc(j->n * sizeof *j->records);
    memcpy(j->records, m->records, j->n * sizeof *j->records);
    for (uint32_t i = 0; i < j->n; i++)
        blob_add(&state, &j->records[i]);
    memcpy(job->blob, &state, sizeof state);
    job->blob_size = sizeof state;
    job->run = job_run;
    job->arg = j;
    return true;
}

static void m_settled(void *sm, struct settle_job *job)
{
    struct machine *m = sm;
    struct machine_job *j = job->arg;
    if (job->status == ERR_OK) {
        memcpy(&m->blob, job->blob, sizeof m->blob);
        m->file_size = m->blob.size;
        m->chain = m->blob.chain;
        m->n_records -= j->n;
        memmove(m->records, m->records + j->n,
                m->n_records * sizeof *m->records);
    }
    mem_free(j->records);
    mem_free(j);
}

static void m_closed(void *sm)
{
    struct machine *m = sm;

    m->node->machines[m->at] = NULL;
    env_file_close(m->file);
    m->closed = true;
}

/* ---- catch-up of the state machine: its file is the whole state ---------- */

#define RANGE 8192

static enum err c_manifest(void *sm, log_index settled, struct buffer *out)
{
    struct machine *m = sm;
    if (settled.v != m->file_size / sizeof(struct record) + 1)
        sim_fail(m->node->cluster->sim, "a manifest of something else");
    buffer_append(out, &m->blob, sizeof m->blob);
    return ERR_OK;
}

static enum err range_read(struct catchup_job *job)
{
    size_t got = 0;
    enum err e = env_file_pread(job->arg, job->data, job->range.size,
                                job->range.offset, &got);

    return e == ERR_OK && got != job->range.size ? ERR_NOT_FOUND : e;
}

static enum err c_read_begin(void *sm, struct catchup_job *job)
{
    struct machine *m = sm;

    if (job->range.offset + job->range.size > m->file_size)
        return ERR_NOT_FOUND;
    job->arg = m->file;
    job->run = range_read;
    return ERR_OK;
}

static void c_read_end(void *sm, struct catchup_job *job)
{
    (void)sm, (void)job;
}

static enum err c_receive_begin(void *sm, log_index index, raft_term_t term,
                                const uint8_t *manifest, size_t size)
{
    struct machine *m = sm;
    struct machine_blob state;

    (void)term;
    if (size != sizeof state)
        return ERR_INVALID;
    memcpy(&state, manifest, sizeof state);
    if (index.v != state.size / sizeof(struct record) + 1)
        return ERR_INVALID;
    /* never a file of an earlier incarnation: a sync of it may have failed */
    state.generation = m->rx.file != NULL ? m->rx.blob.generation
                                          : env_now_ms(m->node->host->env);
    if (m->rx.file == NULL &&
        machine_file(m, state.generation, &m->rx.file) != ERR_OK)
        return ERR_IO;
    m->rx.active = true;
    m->rx.size = state.size;
    m->rx.blob = state;
    m->rx.asked = m->rx.written = 0;
    return ERR_OK;
}

static bool c_receive_next(void *sm, struct catchup_range *out)
{
    struct machine *m = sm;
    uint64_t left = m->rx.size - m->rx.asked;

    if (left == 0)
        return false;
    out->file = 0;
    out->offset = m->rx.asked;
    out->size = left < RANGE ? (uint32_t)left : RANGE;
    m->rx.asked += out->size;
    return true;
}

static void c_progress(const void *sm, uint64_t *left, uint64_t *all)
{
    const struct machine *m = sm;

    *all = m->rx.size;
    *left = m->rx.size - m->rx.written;
}

static enum err range_write(struct catchup_job *job)
{
    struct iovec iov = {job->data, job->range.size};

    return env_file_pwritev(job->arg, &iov, 1, job->range.offset, false);
}

static enum err c_write_begin(void *sm, struct catchup_job *job)
{
    struct machine *m = sm;

    job->arg = m->rx.file;
    job->run = range_write;
    return ERR_OK;
}

static void c_write_end(void *sm, struct catchup_job *job)
{
    struct machine *m = sm;

    if (m != NULL && job->status == ERR_OK)
        m->rx.written += job->range.size;
}

struct finish {
    struct env_file *file;
    uint64_t size, chain;
};

static enum err finish_run(struct settle_job *job)
{
    struct finish *f = job->arg;
    struct record *records = mem_alloc(f->size + 1);
    size_t got = 0;
    uint64_t h = 0;
    enum err e = env_file_pread(f->file, records, f->size, 0, &got);

    for (size_t i = 0; i < got / sizeof *records; i++)
        chain_add(&h, &records[i]);
    mem_free(records);
    job->files[0] = f->file;
    job->n_files = 1;
    job->dirs[0] = "/data";
    job->n_dirs = 1;
    if (e == ERR_OK && (got != f->size || h != f->chain))
        e = ERR_CORRUPT;
    return e;
}

static void c_receive_finish(void *sm, struct settle_job *job)
{
    struct machine *m = sm;
    struct finish *f = mem_alloc(sizeof *f);

    *f = (struct finish){m->rx.file, m->rx.size, m->rx.blob.chain};
    job->arg = f;
    job->run = finish_run;
    job->upto.v = m->rx.size / sizeof(struct record) + 1;
    memcpy(job->blob, &m->rx.blob, sizeof m->rx.blob);
    job->blob_size = sizeof m->rx.blob;
    m->finish = f;
}

static void c_receive_end(void *sm, bool switched)
{
    struct machine *m = sm;

    if (switched)
        m->node->cluster->result.transfers++;
    if (m->rx.file != NULL)
        env_file_close(m->rx.file);
    memset(&m->rx, 0, sizeof m->rx);
    mem_free(m->finish);
    m->finish = NULL;
}

static const struct catchup_ops machine_catchup = {
    .manifest_make = c_manifest,
    .read_begin = c_read_begin,
    .read_end = c_read_end,
    .receive_begin = c_receive_begin,
    .receive_next = c_receive_next,
    .receive_progress = c_progress,
    .write_begin = c_write_begin,
    .write_end = c_write_end,
    .receive_finish = c_receive_finish,
    .receive_end = c_receive_end,
};

static const struct group_ops machine_ops = {
    .restore = m_restore,
    .appended = m_appended,
    .truncated = m_truncated,
    .applied = m_applied,
    .durable = m_durable,
    .role_changed = m_role,
    .evicted = m_evicted,
    .settle_begin = m_settle_begin,
    .settled = m_settled,
    .catchup = &machine_catchup,
    .closed = m_closed,
};

/* ---- brokers ------------------------------------------------------------- */

static struct group_creation creation_of(const struct cluster *c, int group,
                                         int node)
{
    struct group_creation out = {.n_replicas = c->options.n_nodes};

    out.id.topic.b[0] = 1;
    out.id.partition = group;
    out.directory.b[0] = (uint8_t)(node + 1);
    for (int i = 0; i < out.n_replicas; i++) {
        int n = (group + i) % c->options.n_nodes;

        out.replicas[i].node = n;
        out.replicas[i].id = (replica_id)(100 * (group + 1) + n);
        if (n == node)
            out.self = out.replicas[i].id;
    }
    return out;
}

static enum err on_admit(void *arg, const struct uuid *cluster, node_id node,
                         const struct uuid *directory, char *why,
                         size_t why_size)
{
    (void)arg, (void)cluster, (void)node, (void)directory;
    (void)why, (void)why_size;
    return ERR_OK;
}

static void on_peer_up(void *arg, node_id node)
{
    struct cluster_node *n = arg;

    if (n->host != NULL)
        raft_host_peer_up(n->host, node);
}

static void on_peer_down(void *arg, node_id node)
{
    struct cluster_node *n = arg;

    if (n->host != NULL)
        raft_host_peer_down(n->host, node);
}

static const struct transport_ops transport_calls = {on_admit, on_peer_up,
                                                     on_peer_down};

static void boot_transport(struct cluster_node *n, struct env *env)
{
    struct transport_options options = {
        .env = env,
        .n_shards = 1,
        .node = n->at,
        .directory = {{(uint8_t)(n->at + 1)}},
        .queue_bytes_max = 4 << 20,
    };
    struct uuid cluster = {{9}};
    char address[32];

    n->transport = transport_new(&options, &transport_calls, n);
    transport_set_cluster(n->transport, &cluster);
    transport_set_shards(n->transport, &n->transport, 1);
    for (int i = 0; i < n->cluster->options.n_nodes; i++) {
        snprintf(address, sizeof address, "b%d:9000", i);
        if (i != n->at)
            transport_set_peer(n->transport, i, address);
    }
    snprintf(address, sizeof address, "b%d:9000", n->at);
    if (transport_listen(n->transport, address) != ERR_OK)
        sim_fail(n->cluster->sim, "cannot listen");
}

static uint64_t or_else(uint64_t value, uint64_t otherwise)
{
    return value != 0 ? value : otherwise;
}

static enum err boot_host(struct cluster_node *n, struct env *env)
{
    const struct cluster_options *o = &n->cluster->options;
    struct raft_host_options options = {
        .env = env,
        .dir = DIR,
        .node = n->at,
        .directory = {{(uint8_t)(n->at + 1)}},
        .transport = n->transport,
        .tick_ms = 50,
        .heartbeat_ms = 500,
        .rest_ms = o->seed % 4 == 3 ? 200 : 3000, /* some hardly wait */
        .election_ms = 2500,
        .log_buffer_bytes = or_else(o->log_buffer_bytes, 512 << 10),
        .wal_file_bytes = or_else(o->wal_file_bytes, 256 << 10),
        .wal_bytes_max = or_else(o->wal_bytes_max, 1 << 20),
        .settle_ms = 500,
        .settle_bytes = 16 << 10,
    };
    enum err e = raft_host_new(&options, &n->host);

    if (e == ERR_OK)
        guard_set_mask(n->host, o->guards);
    return e;
}

static void boot_group(struct cluster_node *n, int at)
{
    struct machine *m = mem_zalloc(sizeof *m);
    struct group_creation creation = creation_of(n->cluster, at, n->at);
    enum err e;

    m->node = n;
    m->at = at;
    n->machines[at] = m;
    e = raft_host_find(n->host, &creation.id) != NULL
            ? raft_host_open(n->host, &creation.id, &machine_ops, m, &m->group)
            : raft_host_create(n->host, &creation, &machine_ops, m, &m->group);
    if (e == ERR_NOSPACE)
        n->may_fail = true;
    if (e != ERR_OK && n->may_fail)
        env_fatal(n->host->env, "cannot open a group: %s", err_text(e));
    if (e != ERR_OK)
        sim_fail(n->cluster->sim, "node %d cannot open group %d: %s", n->at, at,
                 err_name(e));
}

static void work(struct env_timer *timer);

static void boot(struct env *env, void *arg)
{
    struct cluster_node *n = arg;
    enum err e;

    n->host = NULL;
    n->stopping = false;
    memset(n->machines, 0, sizeof n->machines);
    if (env_dir_make(env, "/data") != ERR_OK)
        env_fatal(env, "cannot make the directory");
    boot_transport(n, env);
    e = boot_host(n, env);
    if (e == ERR_NOSPACE)
        n->may_fail = true; /* a full disk is told, and tried again */
    if (e != ERR_OK && n->may_fail)
        env_fatal(env, "cannot start: %s", err_text(e));
    if (e != ERR_OK)
        sim_fail(n->cluster->sim, "node %d cannot start: %s", n->at,
                 err_name(e));
    for (int i = 0; i < n->cluster->options.n_groups; i++)
        boot_group(n, i);
    env_timer_init(env, &n->work, work, n);
    env_timer_start(&n->work, 10);
}

/* ---- workload ------------------------------------------------------------ */

struct cluster_read {
    struct group_read read;
    struct machine *machine;
    uint64_t need; /* what was acknowledged when it was asked */
};

static void read_done(struct group_read *read, enum err status)
{
    struct cluster_read *r = read->arg;
    struct cluster *c = r->machine->node->cluster;

    if (status == ERR_OK) {
        c->result.reads++;
        if (r->machine->applied < r->need)
            sim_fail(c->sim, "a read missed an acknowledged entry");
    }
    mem_free(r);
}

static void ask_read(struct machine *m)
{
    struct cluster_read *r = mem_zalloc(sizeof *r);

    r->machine = m;
    r->need = m->node->cluster->groups[m->at].acknowledged;
    r->read.cb = read_done;
    r->read.arg = r;
    group_read_barrier(m->group, &r->read);
}

static void propose(struct machine *m)
{
    struct cluster *c = m->node->cluster;
    uint32_t size = (uint32_t)prng_between(&c->prng, 8, c->options.payload_max);
    uint8_t *payload;
    struct iovec iov;
    log_index index;

    if (prng_chance(&c->prng, 3, 4))
        size = size % 200 + 8;
    if (m->n_waiting == sizeof m->waiting / sizeof m->waiting[0])
        return;
    payload = mem_alloc(size);
    c->next_payload++;
    for (uint32_t i = 0; i < size; i++)
        payload[i] = (uint8_t)(c->next_payload >> (8 * (i % 8)));
    iov = (struct iovec){payload, size};
    if (group_propose(m->group, ENTRY_DATA, &iov, 1, &index) == ERR_OK) {
        m->proposed_term = m->role.term.v;
        m->waiting[m->n_waiting++].index = index.v;
    }
    mem_free(payload);
}

static void work(struct env_timer *timer)
{
    struct cluster_node *n = timer->arg;
    struct cluster *c = n->cluster;

    for (int i = 0; i < c->options.n_groups; i++) {
        struct machine *m = n->machines[i];

        if (m == NULL || !m->role.is_leader)
            continue;
        if (!c->healing && prng_chance(&c->prng, 1, 3))
            for (uint64_t k = prng_below(&c->prng, 4); k > 0; k--)
                propose(m);
        if (prng_chance(&c->prng, 1, 10))
            ask_read(m);
    }
    env_timer_start(timer, prng_between(&c->prng, 2, 30));
}

/* ---- nemesis ------------------------------------------------------------- */

static struct cluster_node *any_node(struct cluster *c)
{
    return &c->nodes[prng_below(&c->prng, (uint64_t)c->options.n_nodes)];
}

static void restart_later(struct cluster *c, struct cluster_node *n);

static void crash(struct cluster *c, struct cluster_node *n)
{
    static const enum sim_crash kinds[] = {SIM_KILL, SIM_DROP_ALL, SIM_KEEP_ALL,
                                           SIM_RANDOM, SIM_TORN};

    if (!sim_node_up(n->sim_node))
        return;
    sim_note(c->sim, "nemesis: crash %d", n->at);
    sim_node_crash(n->sim_node, kinds[prng_below(&c->prng, 5)]);
    restart_later(c, n);
}

static void restart(void *arg)
{
    struct cluster_node *n = arg;

    if (sim_node_up(n->sim_node))
        return;
    sim_disk_fail_nth(n->sim_node, 15, 0);
    sim_disk_capacity(n->sim_node, 0);
    n->may_fail = false;
    n->host = NULL; /* of the incarnation that is gone */
    memset(n->machines, 0, sizeof n->machines);
    n->cluster->result.restarts++;
    sim_node_restart(n->sim_node);
}

static void restart_later(struct cluster *c, struct cluster_node *n)
{
    sim_at(c->sim,
           sim_now_ns(c->sim) + prng_between(&c->prng, 10, 4000) * SIM_MS,
           restart, n);
}

/* env_fatal is right after a planted fault, and wrong otherwise. */
static void on_fatal(void *arg, struct sim_node *node, const char *line)
{
    struct cluster *c = arg;

    for (int i = 0; i < c->options.n_nodes; i++) {
        if (c->nodes[i].sim_node != node)
            continue;
        if (!c->nodes[i].may_fail)
            sim_fail(c->sim, "node %d ended itself: %s", i, line);
        restart_later(c, &c->nodes[i]);
    }
}

static void do_transfer(struct env *env, void *arg)
{
    struct cluster_node *n = arg;
    struct cluster *c = n->cluster;
    uint64_t at = prng_below(&c->prng, (uint64_t)c->options.n_groups);

    (void)env;
    if (n->machines[at] != NULL &&
        group_transfer(n->machines[at]->group, -1) == ERR_OK)
        sim_note(c->sim, "nemesis: transfer");
}

/* The process ends as SIGTERM ends it: what is settled by then is settled. */
static void host_stopped(void *arg)
{
    struct cluster_node *n = arg;

    sim_note(n->cluster->sim, "stopped");
    n->host = NULL;
    sim_node_crash(n->sim_node, SIM_KILL);
    restart_later(n->cluster, n);
}

static void do_stop(struct env *env, void *arg)
{
    struct cluster_node *n = arg;
    struct raft_host *host = n->host;

    (void)env;
    if (host == NULL || n->stopping)
        return;
    sim_note(n->cluster->sim, "nemesis: stop %d", n->at);
    n->stopping = true;
    env_timer_stop(&n->work);
    raft_host_stop(host, (uint32_t)prng_between(&n->cluster->prng, 1, 500),
                   host_stopped, n);
}

static uint64_t disk_bytes;

static void add_file(void *arg, const char *path, uint64_t size)
{
    (void)arg, (void)path;
    disk_bytes += size;
}

static void more_space(void *arg)
{
    struct cluster_node *n = arg;

    sim_disk_capacity(n->sim_node, 0);
}

/* The disk is full for a while. */
static void fill_disk(struct cluster *c, struct cluster_node *n)
{
    disk_bytes = 0;
    sim_disk_list(n->sim_node, add_file, NULL);
    sim_note(c->sim, "nemesis: disk of %d is full", n->at);
    sim_disk_capacity(n->sim_node,
                      disk_bytes + prng_below(&c->prng, 3) * 4096 + 1);
    sim_at(c->sim,
           sim_now_ns(c->sim) + prng_between(&c->prng, 100, 5000) * SIM_MS,
           more_space, n);
}

static void strike(struct cluster *c)
{
    struct cluster_node *a = any_node(c), *b = any_node(c);
    uint64_t now = sim_now_ns(c->sim);
    uint64_t ms = prng_between(&c->prng, 50, 4000);

    switch (prng_below(&c->prng, 17)) {
        case 0:
        case 1:
            crash(c, a);
            break;
        case 2:
            crash(c, a);
            crash(c, b);
            break;
        case 3: /* the power of the whole room */
            if (prng_chance(&c->prng, 1, 3))
                for (int i = 0; i < c->options.n_nodes; i++)
                    crash(c, &c->nodes[i]);
            break;
        case 4:
        case 5:
            if (a != b)
                sim_net_cut_both(c->sim, a->sim_node, b->sim_node);
            break;
        case 6:
            if (a != b)
                sim_net_cut(c->sim, a->sim_node, b->sim_node);
            break;
        case 7:
            if (a != b)
                sim_net_reset(c->sim, a->sim_node, b->sim_node);
            break;
        case 8:
            if (sim_node_up(a->sim_node))
                sim_node_pause(a->sim_node, now + ms * SIM_MS);
            break;
        case 9:
            sim_disk_stall(a->sim_node, now + ms / 4 * SIM_MS);
            break;
        case 10:
            if (sim_node_up(a->sim_node)) {
                a->may_fail = true;
                sim_disk_fail_nth(a->sim_node, SIM_DISK_WRITE | SIM_DISK_SYNC,
                                  prng_between(&c->prng, 1, 50));
            }
            break;
        case 11:
            if (sim_node_up(a->sim_node))
                sim_node_call(a->sim_node, 0, do_transfer, a);
            break;
        case 12:
            if (sim_node_up(a->sim_node))
                sim_node_call(a->sim_node, 0, do_stop, a);
            break;
        case 13:
            if (sim_node_up(a->sim_node))
                fill_disk(c, a);
            break;
        default:
            sim_net_heal_all(c->sim);
            break;
    }
}

/* In every third seed a minority has disks so slow, and all are so far from
 * each other, that elections overtake writes. */
static void slow_world(struct cluster *c)
{
    int n = (c->options.n_nodes - 1) / 2;

    if (c->options.seed % 3 != 0 || c->options.no_nemesis)
        return;
    for (int i = 0; i < n; i++)
        sim_disk_latency(any_node(c)->sim_node, 0,
                         prng_between(&c->prng, 50, 800) * SIM_MS,
                         prng_between(&c->prng, 1, 50) * SIM_MS);
    sim_net_delay(c->sim, NULL, NULL, SIM_MS,
                  prng_between(&c->prng, 2, 150) * SIM_MS);
}

/* ---- checks -------------------------------------------------------------- */

static void check_store(struct cluster *c)
{
    for (int i = 0; i < c->options.n_nodes; i++) {
        struct cluster_node *n = &c->nodes[i];

        for (int k = 0; k < c->options.n_groups; k++) {
            const struct machine *m = n->machines[k];

            if (!sim_node_up(n->sim_node) || m == NULL || m->group == NULL)
                continue;
            if (m->applied < group_settled_index(m->group).v ||
                group_durable_index(m->group).v < m->applied ||
                m->appended < group_durable_index(m->group).v ||
                group_commit_index(m->group).v < m->applied)
                sim_fail(c->sim, "rules of the store: node %d group %d", i, k);
        }
    }
}

/* What a leader counts is there: a follower of the same term has durably, up
 * to where the leader believes it, the leader's own entries. */
static void check_matches(struct cluster *c)
{
    for (int i = 0; i < c->options.n_nodes * c->options.n_groups; i++) {
        int k = i % c->options.n_groups;
        struct cluster_node *n = &c->nodes[i / c->options.n_groups];
        const struct group *g =
            sim_node_up(n->sim_node) && n->machines[k] != NULL
                ? n->machines[k]->group
                : NULL;

        if (g != NULL && g->raft.state == RAFT_CANDIDATE &&
            group_durable_index(n->machines[k]->group).v <
                raft_last_index((struct raft *)(uintptr_t)&g->raft))
            sim_fail(c->sim,
                     "group %d: candidate %d advertises entries that are not "
                     "durable",
                     k, n->at);
        for (int p = 0;
             g != NULL && g->raft.state == RAFT_LEADER && p < g->n_peers; p++) {
            const struct group_peer *peer = &g->peers[p];
            struct cluster_node *f = &c->nodes[peer->node];
            const struct machine *m =
                sim_node_up(f->sim_node) ? f->machines[k] : NULL;
            const struct entry_slot *ours, *theirs;

            if (m == NULL || m->group == NULL ||
                m->group->raft.current_term != g->raft.current_term)
                continue;
            ours = entry_table_at(&g->table, peer->match);
            theirs = entry_table_at(&m->group->table, peer->match);
            if (group_durable_index(m->group).v < peer->match ||
                (ours != NULL && theirs != NULL && ours->term != theirs->term))
                sim_fail(c->sim,
                         "group %d: leader %d counts index %llu on node %d, "
                         "which has other entries or less than that durable",
                         k, n->at, (unsigned long long)peer->match, f->at);
        }
    }
}

/* Often: what is wrong here is right again a little later. */
static void run_watched(struct cluster *c, uint64_t duration_ns)
{
    uint64_t until = sim_now_ns(c->sim) + duration_ns;

    while (sim_now_ns(c->sim) < until) {
        sim_run_for(c->sim, WATCH_NS);
        check_matches(c);
    }
}

static bool all_agree(void *arg)
{
    struct cluster *c = arg;

    for (int i = 0; i < c->options.n_nodes; i++) {
        struct cluster_node *n = &c->nodes[i];

        if (!sim_node_up(n->sim_node) || n->host == NULL)
            return false;
        for (int k = 0; k < c->options.n_groups; k++) {
            const struct machine *m = n->machines[k];

            if (m == NULL || m->applied < c->groups[k].newest ||
                m->appended != m->applied ||
                c->groups[k].newest < c->groups[k].acknowledged)
                return false;
        }
    }
    return true;
}

static void say_state(struct cluster *c)
{
    for (int k = 0; k < c->options.n_groups; k++) {
        fprintf(stderr, "group %d newest %llu acknowledged %llu\n", k,
                (unsigned long long)c->groups[k].newest,
                (unsigned long long)c->groups[k].acknowledged);
        for (int i = 0; i < c->options.n_nodes; i++) {
            const struct machine *m = c->nodes[i].machines[k];

            if (m == NULL || m->group == NULL)
                continue;
            fprintf(stderr,
                    "  node %d term %llu leader %d ready %d last %llu applied "
                    "%llu settled %llu first %llu\n",
                    i, (unsigned long long)m->role.term.v, m->role.is_leader,
                    m->role.ready, (unsigned long long)m->appended,
                    (unsigned long long)m->applied,
                    (unsigned long long)group_settled_index(m->group).v,
                    (unsigned long long)m->group->table.first);
        }
    }
}

static void heal(struct cluster *c)
{
    c->healing = true;
    sim_note(c->sim, "healing");
    sim_net_heal_all(c->sim);
    for (int i = 0; i < c->options.n_nodes; i++) {
        struct cluster_node *n = &c->nodes[i];

        sim_disk_fail_nth(n->sim_node, 15, 0);
        sim_disk_capacity(n->sim_node, 0);
        if (!sim_node_up(n->sim_node))
            restart(n);
    }
    sim_run_for(c->sim, 10 * SIM_S);
    if (!sim_run_while_not(c->sim, all_agree, c, 60 * SIM_S)) {
        say_state(c);
        sim_fail(c->sim, "no agreement 70 s after healing");
    }
    check_store(c);
}

static void free_oracle(struct cluster *c)
{
    for (int k = 0; k < c->options.n_groups; k++) {
        struct oracle_group *o = &c->groups[k];

        for (uint64_t i = 0; i < o->size; i++) {
            while (o->seen[i] != NULL) {
                struct seen_entry *next = o->seen[i]->next;

                free(o->seen[i]);
                o->seen[i] = next;
            }
        }
        free(o->seen);
        free(o->applied);
        free(o->applied_term);
        free(o->leader_of);
    }
}

struct cluster_result cluster_run(const struct cluster_options *options)
{
    struct cluster *c = calloc(1, sizeof *c);
    struct cluster_result result;
    uint64_t until;
    char name[8];

    c->options = *options;
    c->sim = sim_new(options->seed);
    prng_seed(&c->prng, options->seed * 7919 + 17);
    sim_set_verbose(c->sim, options->verbose);
    sim_on_fatal(c->sim, on_fatal, c);
    for (int i = 0; i < options->n_nodes; i++) {
        struct cluster_node *n = &c->nodes[i];

        n->cluster = c;
        n->at = i;
        snprintf(name, sizeof name, "b%d", i);
        n->sim_node = sim_node_add(c->sim, name, 1);
        sim_node_start(n->sim_node, boot, n);
    }
    slow_world(c);
    sim_run_for(c->sim, 2 * SIM_S);
    until = sim_now_ns(c->sim) + options->chaos_ns;
    while (sim_now_ns(c->sim) < until) {
        run_watched(c, prng_between(&c->prng, 20, 900) * SIM_MS);
        check_store(c);
        if (!options->no_nemesis)
            strike(c);
    }
    heal(c);
    c->result.hash = sim_hash(c->sim);
    c->result.events = sim_events(c->sim);
    result = c->result;
    sim_free(c->sim);
    free_oracle(c);
    free(c);
    return result;
}
