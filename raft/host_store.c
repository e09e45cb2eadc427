#include "raft/host_store.h"

#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "raft/catchup_impl.h"
#include "raft/io.h"
#include "raft/proof.h"

/* ---- the log and the transport as the groups see them -------------------- */

static bool log_reserve(void *arg, uint64_t bytes, uint32_t records)
{
    return wal_reserve(((struct raft_host *)arg)->wal, bytes, records);
}

static void log_unreserve(void *arg, uint64_t bytes, uint32_t records)
{
    wal_unreserve(((struct raft_host *)arg)->wal, bytes, records);
}

static uint64_t log_append_entry(void *arg, const struct group_id *group,
                                 log_index index, raft_term_t term,
                                 enum entry_type type,
                                 const struct iovec *payload, int n_payload,
                                 struct wal_place *out)
{
    return wal_append_entry(((struct raft_host *)arg)->wal, group, index, term,
                            type, payload, n_payload, out);
}

static uint64_t log_append_truncate(void *arg, const struct group_id *group,
                                    log_index first)
{
    return wal_append_truncate(((struct raft_host *)arg)->wal, group, first);
}

static uint64_t log_append_term(void *arg, const struct group_id *group,
                                raft_term_t term, replica_id vote)
{
    return wal_append_term(((struct raft_host *)arg)->wal, group, term, vote);
}

static uint64_t log_append_create(void *arg,
                                  const struct group_creation *creation)
{
    return wal_append_create(((struct raft_host *)arg)->wal, creation);
}

static uint64_t log_append_delete(void *arg, const struct group_id *group)
{
    return wal_append_delete(((struct raft_host *)arg)->wal, group);
}

static uint64_t log_durable(void *arg)
{
    return wal_durable_position(((struct raft_host *)arg)->wal);
}

static bool net_send(void *arg, node_id node, const struct group_id *group,
                     const struct transport_piece *pieces, int n_pieces)
{
    return transport_send_raft(((struct raft_host *)arg)->options.transport,
                               node, group, pieces, n_pieces);
}

static const struct raft_backend real_backend = {
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

/* ---- what the log asks --------------------------------------------------- */

static void on_durable(void *arg, uint64_t position)
{
    raft_host_durable(arg, position);
    settle_durable(arg);
}

/* A group whose creation is damaged. */
struct unmade_group {
    struct wal_recovered_group logged;
    bool checkpoint_lost; /* which may have known it */
};

/* The beginning of a file says all that older files said of a group apart from
 * its entries. */
static void on_file_begins(void *arg)
{
    struct raft_host *host = arg;

    for (uint32_t i = 0; i < host->n_deleted; i++)
        if (raft_host_find(host, &host->deleted[i]) == NULL)
            wal_append_delete(host->wal, &host->deleted[i]);
    for (uint32_t i = 0; i < host->n_unmade; i++) {
        const struct wal_recovered_group *w = &host->unmade[i].logged;

        wal_append_term(host->wal, &w->id, w->term, w->vote);
    }
    for (uint32_t i = 0; i < host->n_groups; i++) {
        const struct group *g = host->groups[i];
        struct group_config config;

        wal_append_create(host->wal, &g->creation);
        wal_append_term(host->wal, &g->creation.id, (raft_term_t){g->term},
                        g->vote);
        group_config_at(g, UINT64_MAX, &config);
        if (config.index > 1)
            wal_append_config(
                host->wal, &g->creation.id, (log_index){config.index},
                (raft_term_t){config.term}, config.data, config.size);
    }
}

static void on_wants_settled(void *arg, const struct group_id *id,
                             log_index upto)
{
    struct group *g = raft_host_find(arg, id);

    (void)upto;
    if (g == NULL)
        return;
    g->wanted = true;
    settle_check(g);
}

static bool on_evict(void *arg, const struct group_id *id, log_index upto)
{
    struct group *g = raft_host_find(arg, id);

    if (g == NULL || upto.v < g->table.first)
        return true;
    if (g->in_core > 0 || upto.v > g->settled || group_is_held(g, upto.v))
        return false;
    if (g->life == GROUP_OPEN)
        group_evict(g, upto.v);
    else
        entry_table_evict(&g->table, upto.v);
    return true;
}

static void on_room(void *arg)
{
    raft_host_room(arg);
}

static void on_moved(void *arg, const struct group_id *id, log_index index,
                     const struct wal_place *place)
{
    struct group *g = raft_host_find(arg, id);
    struct entry_slot *slot =
        g == NULL ? NULL : entry_table_at(&g->table, index.v);
    struct wal_place moved = *place;

    if (slot == NULL) {
        wal_place_drop(&moved);
        return;
    }
    moved.position = slot->place.position;
    wal_place_drop(&slot->place);
    slot->place = moved;
}

static const struct wal_ops log_ops = {
    .durable = on_durable,
    .file_begins = on_file_begins,
    .wants_settled = on_wants_settled,
    .evict = on_evict,
    .room = on_room,
    .moved = on_moved,
};

static void on_message(void *arg, node_id from, const struct group_id *group,
                       const uint8_t *body, size_t size)
{
    raft_host_receive(arg, from, group, body, size);
}

/* ---- recovery ------------------------------------------------------------ */

struct recovery {
    struct checkpoint checkpoint;
    bool has_checkpoint;
    bool checkpoint_lost; /* the newest one cannot be read */
    struct wal_recovered_group *groups;
    size_t n_groups;
};

/* wal_open asks this before the host knows any group; it is given the host,
 * which carries the recovery under way. */
static log_index settled_of(void *arg, const struct group_id *id,
                            replica_id *self)
{
    const struct recovery *r = ((struct raft_host *)arg)->recovery;
    const struct checkpoint_group *c =
        r->has_checkpoint ? checkpoint_find(&r->checkpoint, id) : NULL;

    if (c == NULL)
        return (log_index){0};
    *self = c->creation.self;
    return c->settled;
}

static void say_lost(const struct group_id *id, const char *why)
{
    char topic[UUID_TEXT_SIZE];

    uuid_format(&id->topic, topic);
    log_error("raft", "cannot recover group=%s-%d: %s", topic,
              (int)id->partition, why);
}

/* The configuration at settled: the checkpoint's, else the creation's. */
static enum err found_config(const struct checkpoint_group *c,
                             struct group_found *found)
{
    struct raft_configuration config;

    if (c->config_size == 0)
        return ERR_OK;
    if (!io_config_decode(c->config, c->config_size, &config))
        return ERR_CORRUPT;
    raft_configuration_close(&config);
    found->config.index = c->config_index.v;
    found->config.data = (uint8_t *)(uintptr_t)c->config;
    found->config.size = c->config_size;
    return ERR_OK;
}

static enum err recover_entries(struct group *g, struct wal_recovered_group *w)
{
    for (uint64_t i = 0; i < w->n_entries; i++) {
        struct wal_recovered_entry *e = &w->entries[i];

        if (!group_recover_entry(g, e->index.v, e->term.v, e->type, &e->place))
            return ERR_CORRUPT;
        e->place.chunk = NULL; /* the group's now */
    }
    return ERR_OK;
}

/* The metadata know its peers, and with them its creation. */
static void keep_unmade(struct raft_host *host, bool checkpoint_lost,
                        struct wal_recovered_group *w)
{
    size_t n = host->n_unmade + 1;

    say_lost(&w->id,
             "the record of its creation is damaged; it is made again "
             "from what the metadata know");
    host->unmade = mem_realloc(host->unmade, n * sizeof *host->unmade);
    host->unmade[host->n_unmade++] = (struct unmade_group){*w, checkpoint_lost};
    w->entries = NULL; /* ours now */
    w->n_entries = 0;
    w->config = NULL;
}

/* One group from what the checkpoint (may be NULL) and the log (may be NULL)
 * say of it. */
static enum err recover_group(struct raft_host *host, bool checkpoint_lost,
                              const struct checkpoint_group *c,
                              struct wal_recovered_group *w)
{
    struct group_found found = {.term = 1, .settled = 1, .settled_term = 1};
    const struct group_creation *creation = w != NULL && w->created
                                                ? &w->creation
                                            : c != NULL ? &c->creation
                                                        : NULL;
    struct group *g;

    if (creation == NULL && w->unmade) {
        keep_unmade(host, checkpoint_lost, w);
        return ERR_OK;
    }
    if (creation == NULL) {
        say_lost(&w->id, "no record of its creation");
        /* with damage its record may be gone; raft_host_create refuses it */
        return wal_was_whole(host->wal) ? ERR_CORRUPT : ERR_OK;
    }
    if (c != NULL && c->creation.self != creation->self)
        c = NULL; /* of an earlier replica */
    if (c != NULL) {
        found.term = c->term.v;
        found.vote = c->vote;
        found.blob = c->blob;
        found.blob_size = c->blob_size;
        if (c->settled.v > 1) {
            found.settled = c->settled.v;
            found.settled_term = c->settled_term.v;
        }
        if (found_config(c, &found) != ERR_OK) {
            say_lost(&creation->id, "damaged configuration");
            return ERR_CORRUPT;
        }
    }
    if (w != NULL && w->term.v >= found.term) {
        found.term = w->term.v;
        found.vote = w->vote;
    }
    g = group_new(host, creation);
    group_recover(g, &found);
    raft_host_add(host, g);
    if (w != NULL && recover_entries(g, w) != ERR_OK) {
        say_lost(&creation->id, "its entries do not follow what is settled");
        return ERR_CORRUPT;
    }
    if (w != NULL && w->lost_index > 0)
        proof_withhold(g, w->lost_term.v, w->lost_index);
    if (checkpoint_lost || (c != NULL && c->unproven))
        proof_withhold(g, g->term, PROOF_UNKNOWN);
    return ERR_OK;
}

static struct wal_recovered_group *recovered_find(struct recovery *r,
                                                  const struct group_id *id)
{
    for (size_t i = 0; i < r->n_groups; i++)
        if (group_id_equal(&r->groups[i].id, id))
            return &r->groups[i];
    return NULL;
}

/* Groups in the order of the log, then those only the checkpoint knows. */
static enum err recover_groups(struct raft_host *host, struct recovery *r)
{
    enum err e = ERR_OK;

    for (size_t i = 0; i < r->n_groups && e == ERR_OK; i++) {
        struct wal_recovered_group *w = &r->groups[i];

        if (w->deleted)
            host_store_deleted(host, &w->id);
        else
            e = recover_group(host, r->checkpoint_lost,
                              r->has_checkpoint
                                  ? checkpoint_find(&r->checkpoint, &w->id)
                                  : NULL,
                              w);
    }
    for (uint32_t i = 0;
         r->has_checkpoint && e == ERR_OK && i < r->checkpoint.n_groups; i++) {
        const struct checkpoint_group *c = &r->checkpoint.groups[i];

        if (recovered_find(r, &c->creation.id) == NULL)
            e = recover_group(host, r->checkpoint_lost, c, NULL);
    }
    return e;
}

static enum err open_log(struct raft_host *host, struct recovery *r)
{
    struct wal_options options = {
        .env = host->env,
        .dir = host->dir,
        .must_exist = host->options.log_must_exist,
        .file_bytes = host->options.wal_file_bytes,
        .bytes_max = host->options.wal_bytes_max,
        .buffer_bytes_max = host->options.log_buffer_bytes,
    };
    enum err e = checkpoint_load(host->env, host->dir, &r->checkpoint);

    if (e != ERR_OK && e != ERR_NOT_FOUND && e != ERR_CORRUPT)
        return e;
    r->has_checkpoint = e == ERR_OK;
    r->checkpoint_lost = r->checkpoint.newest_lost;
    options.expect.lost = r->checkpoint_lost;
    if (r->checkpoint_lost)
        log_error("raft",
                  "the newest checkpoint in %s cannot be read: what is settled "
                  "is taken from %s and fetched from peers",
                  host->dir, r->has_checkpoint ? "an older one" : "the log");
    if (r->has_checkpoint) {
        options.expect.log_id = r->checkpoint.log_id;
        options.expect.checkpoint_seq = r->checkpoint.seq;
        options.expect.position = r->checkpoint.position;
        options.expect.unproven = checkpoint_has_unproven(&r->checkpoint);
        host->checkpoint_seq = r->checkpoint.seq;
    }
    if (r->checkpoint.newest_seq > host->checkpoint_seq)
        host->checkpoint_seq = r->checkpoint.newest_seq;
    host->recovery = r;
    e = wal_open(&options, &log_ops, host, settled_of, &host->wal);
    host->recovery = NULL;
    if (e != ERR_OK)
        return e;
    r->groups = wal_recovered(host->wal, &r->n_groups);
    host->durable = wal_durable_position(host->wal);
    host->recovered_whole = wal_was_whole(host->wal);
    host->uncommitted_max = wal_buffer_bytes_max(host->wal) / 4;
    if (host->entry_bytes_max > wal_entry_bytes_max(host->wal))
        host->entry_bytes_max = wal_entry_bytes_max(host->wal);
    return ERR_OK;
}

static void failed_closed(void *arg)
{
    raft_host_free(arg);
}

enum err raft_host_new(const struct raft_host_options *options,
                       struct raft_host **out)
{
    struct raft_host *host = raft_host_new_over(options, &real_backend, NULL);
    struct recovery r = {0};
    enum err e;

    if (host == NULL)
        return ERR_UNSUPPORTED;
    host->backend_arg = host;
    e = env_dir_make(host->env, host->dir);
    if (e == ERR_OK)
        e = open_log(host, &r);
    if (e == ERR_OK)
        e = recover_groups(host, &r);
    if (e == ERR_OK && r.has_checkpoint)
        e = settle_checkpoint_again(host);
    wal_recovered_free(r.groups, r.n_groups);
    if (r.has_checkpoint)
        checkpoint_free(&r.checkpoint);
    if (e != ERR_OK) {
        struct wal *wal = host->wal;

        host->wal = NULL;
        if (wal != NULL)
            wal_close(wal, failed_closed, host);
        else
            raft_host_free(host);
        return e;
    }
    for (uint32_t i = 0; i < host->n_groups; i++)
        wal_settled(host->wal, &host->groups[i]->creation.id,
                    (log_index){host->groups[i]->settled});
    transport_set_raft_handler(options->transport, on_message, host);
    catchup_serve_begin(host);
    raft_host_begin(host);
    *out = host;
    return ERR_OK;
}

/* ---- deleted groups ------------------------------------------------------ */

void host_store_deleted(struct raft_host *host, const struct group_id *id)
{
    if (host->n_deleted == host->deleted_size) {
        host->deleted_size =
            host->deleted_size == 0 ? 16 : host->deleted_size * 2;
        host->deleted = mem_realloc(host->deleted,
                                    host->deleted_size * sizeof *host->deleted);
    }
    host->deleted[host->n_deleted++] = *id;
    host->deleted_position = host->wal == NULL ? 0 : wal_position(host->wal);
}

void host_store_forget_deleted(struct raft_host *host, uint32_t n)
{
    host->n_deleted -= n;
    if (host->n_deleted == 0)
        return; /* there may never have been a list */
    memmove(host->deleted, host->deleted + n,
            host->n_deleted * sizeof *host->deleted);
}

/* ---- groups without a creation ------------------------------------------- */

static struct unmade_group *find_unmade(const struct raft_host *host,
                                        const struct group_id *id)
{
    for (uint32_t i = 0; i < host->n_unmade; i++)
        if (group_id_equal(&host->unmade[i].logged.id, id))
            return &host->unmade[i];
    return NULL;
}

bool host_store_is_unmade(const struct raft_host *host,
                          const struct group_id *id)
{
    return find_unmade(host, id) != NULL;
}

static void drop_unmade(struct raft_host *host, struct unmade_group *u)
{
    struct wal_recovered_group *w = mem_alloc(sizeof *w);

    *w = u->logged;
    *u = host->unmade[--host->n_unmade];
    wal_recovered_free(w, 1);
}

enum err host_store_remake(struct raft_host *host,
                           const struct group_creation *creation)
{
    struct unmade_group *u = find_unmade(host, &creation->id);
    enum err e;

    ASSERT(u != NULL);
    u->logged.created = true;
    u->logged.creation = *creation;
    e = recover_group(host, u->checkpoint_lost, NULL, &u->logged);
    if (e == ERR_OK) {
        wal_append_create(host->wal, creation);
        wal_settled(host->wal, &creation->id, (log_index){1});
    } else if (raft_host_find(host, &creation->id) != NULL) {
        /* nobody is to open what was found in part */
        raft_host_remove(host, raft_host_find(host, &creation->id));
    }
    drop_unmade(host, u);
    return e;
}

void host_store_unmade_free(struct raft_host *host)
{
    while (host->n_unmade > 0)
        drop_unmade(host, host->unmade);
    mem_free(host->unmade);
    host->unmade = NULL;
}

/* ---- stopping ------------------------------------------------------------ */

static void stop_closed(void *arg)
{
    struct raft_host *host = arg;
    void (*stopped)(void *arg) = host->stopped;
    void *stopped_arg = host->stopped_arg;

    raft_host_free(host);
    stopped(stopped_arg);
}

/* All that was to be settled is, or the time is over. */
static void stop_close(struct raft_host *host)
{
    if (host->closing)
        return;
    host->closing = true;
    env_timer_stop(&host->ticker);
    env_timer_stop(&host->stop_timer);
    transport_set_raft_handler(host->options.transport, NULL, NULL);
    transport_serve(host->options.transport, RPC_CATCHUP, NULL, NULL);
    raft_host_close_all(host);
    raft_host_want_turn(host);
}

static void stop_due(struct env_timer *timer)
{
    struct raft_host *host = timer->arg;

    host->stop_due = true;
    if (!settle_busy(host))
        stop_close(host);
}

void raft_host_stop(struct raft_host *host, uint32_t ms,
                    void (*stopped)(void *arg), void *arg)
{
    ASSERT(!host->stopping);
    host->stopping = true;
    host->stopped = stopped;
    host->stopped_arg = arg;
    env_timer_init(host->env, &host->stop_timer, stop_due, host);
    env_timer_start(&host->stop_timer, ms);
    settle_now(host);
    if (!settle_busy(host))
        stop_close(host);
}

void host_store_round_over(struct raft_host *host)
{
    if (host->stopping && !host->closing)
        stop_close(host);
}

void host_store_turn(struct raft_host *host)
{
    struct wal *wal = host->wal;

    settle_poll(host);
    if (!host->closing || wal == NULL || host->dead != NULL ||
        settle_busy(host))
        return;
    host->wal = NULL;
    wal_close(wal, stop_closed, host);
}
