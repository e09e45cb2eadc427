/* The metadata group's state machine on this broker, and how the room's parts
 * are put together. */
#include "metadata/metadata.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "metadata/metadata_impl.h"

static const struct group_ops metadata_group_ops;

/* ---- the end of a turn --------------------------------------------------- */
static void metadata_destroy(struct metadata *m);

static void turn(struct env_deferred *d)
{
    struct metadata *m = d->arg;
    m->turn_queued = false;
    if (m->dead) {
        metadata_destroy(m);
        return;
    }
    if (m->check_wanted) {
        m->check_wanted = false;
        controller_check(m);
    }
    if (m->beat_wanted) {
        m->beat_wanted = false;
        heartbeat_now(m);
    }
    calls_finish(m);
}

void metadata_turn_later(struct metadata *m)
{
    if (!m->turn_queued) {
        m->turn_queued = true;
        env_defer(m->env, &m->turn);
    }
}

void metadata_work_begin(struct metadata *m)
{
    m->n_works_out++;
}

bool metadata_work_end(struct metadata *m)
{
    m->n_works_out--;
    if (m->dead) {
        metadata_destroy(m);
        return false;
    }
    return true;
}

void metadata_refuse(struct metadata *m, const char *format, ...)
{
    char sentence[512];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    if (!m->refused) {
        m->refused = true;
        log_error("metadata", "%s", sentence);
        m->ops->refused(m->arg, sentence);
    }
}

/* ---- the state machine --------------------------------------------------- */
/* A peer is dialled by what it registered, unless the seeds found it: those
 * are what the operator says now, the registration may be of before. */
static void learn_address(struct metadata *m, const struct image_broker *b)
{
    if (b->node != m->options.node && formation_is_alone(m) &&
        !transport_peer_is_up(m->options.transport, b->node)) {
        transport_set_peer(m->options.transport, b->node, b->peer_address);
    }
}

static void tell_change(void *arg, const struct image_change *change)
{
    struct metadata *m = arg;
    if (change->kind == IMAGE_BROKER && change->broker != NULL) {
        learn_address(m, change->broker);
    }
    if (m->ops->changed != NULL) {
        m->ops->changed(m->arg, change);
    }
}

static enum err apply_batch(struct metadata *m, log_index index,
                            const uint8_t *batch, size_t size)
{
    enum err e = image_apply(m->image, index, batch, size, tell_change, m);
    if (e == ERR_OK && m->ops->applied != NULL) {
        m->ops->applied(m->arg, index, batch, size);
    }
    return e;
}

static enum err load_batch(void *arg, const uint8_t *batch, size_t size)
{
    struct metadata *m = arg;
    return apply_batch(m, m->snapshot.index, batch, size);
}

static enum err sm_restore(void *sm, log_index settled, raft_term_t term,
                           const uint8_t *blob, uint32_t blob_size)
{
    struct metadata *m = sm;
    (void)term;
    m->applied = settled;
    m->beat_wanted = true;
    metadata_turn_later(m);
    if (blob_size == 0) {
        return ERR_OK;
    }
    enum err e = snapshot_blob_read(blob, blob_size, &m->snapshot);
    if (e == ERR_OK && m->snapshot.index.v == 0) {
        return ERR_OK; /* nothing was written yet */
    }
    if (e == ERR_OK && (m->snapshot.index.v > settled.v ||
                        m->snapshot.index.v < image_version(m->image).v)) {
        e = ERR_CORRUPT;
    }
    if (e == ERR_OK) {
        e = snapshot_read(m->env, m->options.dir, &m->snapshot, load_batch, m);
    }
    m->snapshot_before = m->snapshot;
    if (e != ERR_OK) {
        log_error("metadata", "snapshot lost index=%llu: %s",
                  (unsigned long long)m->snapshot.index.v, err_text(e));
        return ERR_CORRUPT;
    }
    calls_applied(m); /* after a transfer: much was applied at once */
    heartbeat_applied(m);
    return ERR_OK;
}

static void sm_appended(void *sm, const struct group_entry *entry)
{
    (void)sm;
    (void)entry;
}

static void sm_truncated(void *sm, log_index first)
{
    (void)sm;
    (void)first;
}

/* The log has been durable: from now on it must be there at every start. */
struct formed_work {
    struct env_work work;
    struct metadata *m;
    struct identity identity;
    char *dir;
    enum err saved;
};

static void save_formed(struct env_work *work)
{
    struct formed_work *f = work->arg;
    f->saved = identity_save(work->env, f->dir, &f->identity);
}

static void saved_formed(struct env_work *work)
{
    struct formed_work *f = work->arg;
    if (f->saved != ERR_OK) {
        log_warn("metadata", "meta.properties not written: %s",
                 err_text(f->saved));
    }
    (void)metadata_work_end(f->m);
    mem_free(f->dir);
    mem_free(f);
}

static void note_formed(struct metadata *m)
{
    m->identity.state = IDENTITY_FORMED;
    struct formed_work *f = mem_zalloc(sizeof *f);
    f->m = m;
    f->identity = m->identity;
    f->dir = mem_strdup(m->options.dir);
    f->work.run = save_formed;
    f->work.done = saved_formed;
    f->work.arg = f;
    metadata_work_begin(m);
    env_work_submit(m->env, ENV_POOL_IO, &f->work);
}

static void sm_applied(void *sm, const struct group_entry *entry)
{
    struct metadata *m = sm;
    if (m->identity.state == IDENTITY_FORMING) {
        note_formed(m);
    }
    if (entry->type == ENTRY_DATA && entry->index.v > m->applied.v) {
        if (apply_batch(m, entry->index, entry->payload, entry->size) !=
            ERR_OK) {
            env_fatal(m->env,
                      "metadata: entry %llu of the metadata log makes no "
                      "sense: it is damaged, or of a newer version",
                      (unsigned long long)entry->index.v);
        }
        m->beat_wanted = true; /* somebody may wait for it */
        metadata_turn_later(m);
    }
    m->applied = entry->index;
    calls_applied(m);
    heartbeat_applied(m);
    controller_applied(m, entry);
}

static void sm_durable(void *sm, log_index upto)
{
    (void)sm;
    (void)upto;
}

static void sm_role_changed(void *sm, const struct group_role *role)
{
    struct metadata *m = sm;
    m->role = *role;
    controller_role_changed(m);
    heartbeat_role_changed(m);
    calls_kick(m);
}

static void sm_evicted(void *sm, log_index upto)
{
    (void)sm;
    (void)upto;
}

static void sm_closed(void *sm)
{
    struct metadata *m = sm;
    m->group = NULL;
    m->role = (struct group_role){.leader = -1};
    controller_role_changed(m);
}

/* ---- settling ------------------------------------------------------------ */
struct settling {
    struct env *env;
    char *dir;
    struct buffer bytes; /* empty: the newest snapshot still holds */
    struct snapshot_ref ref;
    log_index keep[2];
    bool keep_all; /* while a peer reads snapshots */
};

static enum err settle_run(struct settle_job *job)
{
    struct settling *s = job->arg;
    if (s->bytes.size == 0) {
        return ERR_OK;
    }
    enum err e = snapshot_write(s->env, s->dir, &s->bytes, &s->ref,
                                s->keep_all ? NULL : s->keep, &job->files[0]);
    job->n_files = e == ERR_OK ? 1 : 0;
    return e;
}

static bool sm_settle_begin(void *sm, struct settle_job *job)
{
    struct metadata *m = sm;
    struct settling *s = mem_zalloc(sizeof *s);
    s->env = m->env;
    s->dir = mem_strdup(m->options.dir);
    s->ref = m->snapshot;
    s->keep[0] = m->snapshot.index;
    s->keep[1] = m->snapshot_before.index;
    s->keep_all = m->leased;
    if (image_version(m->image).v != m->snapshot.index.v) {
        snapshot_make(m->image, &s->bytes, &s->ref);
        job->dirs[0] = s->dir;
        job->n_dirs = 1;
    }
    snapshot_blob_write(&s->ref, job->blob);
    job->blob_size = SNAPSHOT_BLOB;
    job->run = settle_run;
    job->arg = s;
    return true;
}

static void sm_settled(void *sm, struct settle_job *job)
{
    struct metadata *m = sm;
    struct settling *s = job->arg;
    if (job->n_files == 1) {
        env_file_close(job->files[0]);
        job->n_files = 0;
    }
    if (job->status == ERR_OK && s->bytes.size > 0) {
        m->snapshot_before = m->snapshot;
        m->snapshot = s->ref;
    }
    buffer_free(&s->bytes);
    mem_free(s->dir);
    mem_free(s);
}

static const struct group_ops metadata_group_ops = {
    .restore = sm_restore,
    .appended = sm_appended,
    .truncated = sm_truncated,
    .applied = sm_applied,
    .durable = sm_durable,
    .role_changed = sm_role_changed,
    .evicted = sm_evicted,
    .settle_begin = sm_settle_begin,
    .settled = sm_settled,
    .catchup = &metadata_catchup_ops,
    .closed = sm_closed,
};

/* ---- beginning ----------------------------------------------------------- */
struct finding {
    bool found;
    struct uuid directory;
};

static void find_group(void *arg, const struct group_creation *creation)
{
    struct finding *f = arg;
    if (group_id_equal(&creation->id, &GROUP_METADATA)) {
        f->found = true;
        f->directory = creation->directory;
    }
}

static enum err create_group(struct metadata *m)
{
    struct group_creation creation = {.id = GROUP_METADATA,
                                      .directory = m->identity.directory,
                                      .n_replicas = m->identity.n_members};
    for (int i = 0; i < m->identity.n_members; i++) {
        creation.replicas[i].id = (replica_id)(i + 1);
        creation.replicas[i].node = m->identity.members[i].node;
        if (creation.replicas[i].node == m->options.node) {
            creation.self = creation.replicas[i].id;
        }
    }
    ASSERT(creation.self != 0);
    return raft_host_create(m->options.host, &creation, &metadata_group_ops, m,
                            &m->group);
}

/* What every start with a known cluster does once the group is there. */
static void begin_life(struct metadata *m)
{
    transport_set_cluster(m->options.transport, &m->identity.cluster);
    if (formation_is_alone(m)) { /* no seeds: by what was known last */
        for (int i = 0; i < m->identity.n_members; i++) {
            const struct identity_member *member = &m->identity.members[i];
            if (member->node != m->options.node &&
                image_broker(m->image, member->node) == NULL) {
                transport_set_peer(m->options.transport, member->node,
                                   member->address);
            }
        }
    }
    const struct group_role role = group_role(m->group);
    m->role = role;
    heartbeat_start(m);
    controller_role_changed(m);
    calls_kick(m);
}

void metadata_formed(struct metadata *m)
{
    char text[UUID_TEXT_SIZE];
    uuid_format(&m->identity.cluster, text);
    log_info("metadata", "cluster formed id=%s brokers=%d", text,
             m->identity.n_members);
    enum err e = create_group(m);
    if (e != ERR_OK) {
        metadata_refuse(m, "the metadata log cannot be begun: %s", err_text(e));
        return;
    }
    begin_life(m);
}

static enum err open_known(struct metadata *m)
{
    struct finding finding = {0};
    enum err e;
    raft_host_recovered(m->options.host, find_group, &finding);
    if (finding.found &&
        !uuid_equal(&finding.directory, &m->identity.directory)) {
        metadata_refuse(m,
                        "the metadata log in %s was not written in this data "
                        "directory",
                        m->options.dir);
        return ERR_REFUSED;
    }
    if (finding.found) {
        e = raft_host_open(m->options.host, &GROUP_METADATA,
                           &metadata_group_ops, m, &m->group);
    } else if (m->identity.state == IDENTITY_FORMING) {
        e = create_group(m); /* decided, but its beginning was not durable */
    } else {
        e = ERR_LOST;
    }
    if (e != ERR_OK) {
        metadata_refuse(m,
                        "the metadata log of the data directory %s is gone or "
                        "damaged (%s): this broker may not vote with it",
                        m->options.dir, err_text(e));
        return e;
    }
    begin_life(m);
    return ERR_OK;
}

/* No others named: the cluster is this broker. */
static enum err form_alone(struct metadata *m)
{
    struct identity_member *self = &m->identity.members[0];
    m->identity.n_members = 1;
    self->node = m->options.node;
    self->directory = m->options.directory;
    snprintf(self->address, sizeof self->address, "%s",
             m->options.peer_address);
    m->identity.cluster = identity_cluster_of(self, 1);
    m->identity.state = IDENTITY_FORMING;
    enum err e = identity_save(m->env, m->options.dir, &m->identity);
    if (e != ERR_OK) {
        metadata_refuse(m, "cannot write meta.properties in %s: %s",
                        m->options.dir, err_text(e));
        return e;
    }
    metadata_formed(m);
    return m->refused ? ERR_REFUSED : ERR_OK;
}

static enum err begin(struct metadata *m)
{
    char why[400];
    struct finding finding = {0};
    enum err e =
        identity_load(m->env, m->options.dir, m->options.node,
                      &m->options.directory, &m->identity, why, sizeof why);
    if (e == ERR_OK &&
        !uuid_equal(&m->identity.directory, &m->options.directory)) {
        snprintf(why, sizeof why,
                 "meta.properties in %s is of another data "
                 "directory",
                 m->options.dir);
        e = ERR_REFUSED;
    }
    if (e == ERR_OK && m->identity.state == IDENTITY_EMPTY) {
        raft_host_recovered(m->options.host, find_group, &finding);
    }
    if (finding.found) {
        snprintf(why, sizeof why,
                 "%s has a metadata log but meta.properties "
                 "knows no cluster: it was replaced",
                 m->options.dir);
        e = ERR_REFUSED;
    }
    if (e == ERR_OK && m->identity.state == IDENTITY_EMPTY &&
        !formation_is_alone(m)) {
        e = formation_new(m, why, sizeof why);
    }
    if (e != ERR_OK) {
        metadata_refuse(m, "%s", why);
        return e;
    }
    formation_add_seeds(m);
    if (m->formation != NULL) {
        return ERR_OK;
    }
    return m->identity.state == IDENTITY_EMPTY ? form_alone(m) : open_known(m);
}

static char *copy(const char *s)
{
    return s == NULL ? NULL : mem_strdup(s);
}

enum err metadata_new(const struct metadata_options *options,
                      const struct metadata_ops *ops, void *arg,
                      struct metadata **out)
{
    struct metadata *m = mem_zalloc(sizeof *m);
    *out = m;
    m->env = options->env;
    m->options = *options;
    m->options.dir = copy(options->dir);
    m->options.seeds = copy(options->seeds);
    m->options.peer_address = copy(options->peer_address);
    m->options.advertised_host = copy(options->advertised_host);
    m->options.rack = copy(options->rack);
    m->options.listeners = copy(options->listeners);
    m->ops = ops;
    m->arg = arg;
    m->role.leader = -1;
    m->image = image_new();
    m->leadership = leadership_new();
    m->turn.cb = turn;
    m->turn.arg = m;
    prng_seed(&m->random, env_random(m->env));
    env_timer_init(m->env, &m->heartbeat, NULL, m);
    controller_init(m);
    struct transport *t = m->options.transport;
    transport_serve(t, RPC_FORMATION, formation_serve, m);
    transport_serve(t, RPC_METADATA_PROPOSE, controller_serve, m);
    transport_serve(t, RPC_BROKER_HEARTBEAT, controller_serve_heartbeat, m);
    enum err e = begin(m);
    if (e != ERR_OK) {
        metadata_free(m);
        *out = NULL;
    }
    return e;
}

static void metadata_destroy(struct metadata *m)
{
    union {
        const char *in;
        char *out;
    } texts[] = {{m->options.dir},          {m->options.seeds},
                 {m->options.peer_address}, {m->options.advertised_host},
                 {m->options.rack},         {m->options.listeners}};
    if (m->turn_queued || m->n_works_out > 0) {
        return; /* comes again from there */
    }
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        mem_free(texts[i].out);
    }
    mem_free(m->formation);
    mem_free(m);
}

void metadata_free(struct metadata *m)
{
    if (m == NULL) {
        return;
    }
    struct transport *t = m->options.transport;
    transport_serve(t, RPC_FORMATION, NULL, NULL);
    transport_serve(t, RPC_METADATA_PROPOSE, NULL, NULL);
    transport_serve(t, RPC_BROKER_HEARTBEAT, NULL, NULL);
    heartbeat_stop(m);
    controller_free(m);
    calls_free(m);
    formation_stop(m); /* a worker may still write what it decided */
    leadership_free(m->leadership);
    image_free(m->image);
    m->dead = true;
    metadata_destroy(m);
}

/* ---- what others see ----------------------------------------------------- */
const struct image *metadata_image(const struct metadata *m)
{
    return m->image;
}

node_id metadata_leader(const struct metadata *m)
{
    return m->role.leader;
}

bool metadata_is_leader(const struct metadata *m)
{
    return m->role.is_leader;
}

bool metadata_is_ready_leader(const struct metadata *m)
{
    return m->group != NULL && m->role.is_leader && m->role.ready;
}

const char *metadata_waiting_for(const struct metadata *m)
{
    return m->waiting_for;
}

struct group *metadata_group(const struct metadata *m)
{
    return m->group;
}

const struct uuid *metadata_cluster_id(const struct metadata *m)
{
    return &m->identity.cluster;
}

void metadata_peer_changed(struct metadata *m, node_id node)
{
    (void)node;
    if (m->controller.active) {
        m->check_wanted = true;
        metadata_turn_later(m);
    }
}

enum err metadata_admit(const struct metadata *m, const struct uuid *cluster,
                        node_id node, const struct uuid *directory, char *why,
                        size_t why_size)
{
    const struct image_broker *broker = image_broker(m->image, node);
    const struct identity_member *member =
        identity_member_find(&m->identity, node);
    const struct uuid *known = broker != NULL   ? &broker->directory
                               : member != NULL ? &member->directory
                                                : NULL;
    if (!uuid_is_zero(cluster) && known != NULL &&
        !uuid_equal(known, directory)) {
        snprintf(why, why_size, "node id %d belongs to another data directory",
                 node);
        return ERR_REFUSED;
    }
    return ERR_OK;
}
