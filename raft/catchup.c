/* The follower's side of catch-up: one transfer for each group that is behind,
 * a few of them at a time.
 *
 *   ASK      the manifest is asked for
 *   FETCH    ranges are called for and written
 *   CONFIRM  all is written; the leader is asked whether that is enough
 *   READY    it is: no more entries are taken, the next settle round syncs the
 *            files and writes the checkpoint, then the replica switches
 *   END      given up; waits for the workers */
#include "raft/catchup_impl.h"

#include <utlist.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "raft/io.h"
#include "raft/peer_frame.h"
#include "raft/wal_format.h"

#define OFFER_MS 500    /* a leader repeats its offers */
#define FORGET_MS 60000 /* no offer for so long: not wanted any more */
#define AGAIN_MS 500    /* a call that failed is repeated */
#define ANEW_MS 5000    /* after a transfer was given up */
#define ASK_TIMEOUT_MS 5000
#define READ_TIMEOUT_MS 20000
#define ROUNDS_MAX 8 /* manifests of one transfer before it switches anyway */
#define FETCHES 4    /* ranges of one transfer under way, at most */

enum transfer_state { T_ASK, T_FETCH, T_CONFIRM, T_READY, T_END };

enum fetch_state { F_IDLE, F_CALLING, F_WRITING, F_AGAIN };

struct transfer;

struct fetch {
    struct transfer *t;
    enum fetch_state state;
    bool have_bytes; /* AGAIN: write them again (the disk was full) */
    struct rpc_call call;
    struct env_work work;
    struct catchup_job job;
    uint64_t again_ms;
};

struct transfer {
    struct transfer *prev, *next;
    struct group *g;
    enum transfer_state state;
    node_id from;          /* the leader that offers */
    node_id manifest_from; /* who made the manifest */
    uint64_t offered_ms, again_ms, begun_ms;
    uint64_t index, term; /* of the manifest */
    struct group_config config;
    bool asking, began, given_out;
    int rounds;
    struct rpc_call ask;
    struct fetch fetches[FETCHES];
};

static void transfer_step(struct transfer *t);

static const struct catchup_ops *ops_of(const struct transfer *t)
{
    return t->g->ops->catchup;
}

/* The replica's log says the same as the state at this index. */
static bool contains(const struct group *g, uint64_t index, uint64_t term)
{
    if (index <= g->settled)
        return true;
    return index < entry_table_next(&g->table) &&
           group_term_at(g, index) == term;
}

/* ---- end ----------------------------------------------------------------- */

static bool is_working(const struct transfer *t)
{
    for (int i = 0; i < FETCHES; i++)
        if (t->fetches[i].state == F_WRITING)
            return true;
    return false;
}

static void fetch_finish(struct fetch *f)
{
    f->t->g->host->n_fetching--;
    mem_free(f->job.data);
    f->job.data = NULL;
    f->state = F_IDLE;
}

static void transfer_cancel(struct transfer *t)
{
    struct transport *transport = t->g->host->options.transport;

    if (t->asking)
        transport_cancel(transport, &t->ask);
    t->asking = false;
    for (int i = 0; i < FETCHES; i++) {
        struct fetch *f = &t->fetches[i];

        if (f->state == F_CALLING)
            transport_cancel(transport, &f->call);
        if (f->state == F_WRITING)
            continue; /* it ends by itself */
        if (f->state != F_IDLE)
            fetch_finish(f);
    }
}

static void transfer_free(struct transfer *t)
{
    struct raft_host *host = t->g->host;

    DL_DELETE(host->receiving, t);
    host->n_receiving--;
    t->g->transfer = NULL;
    mem_free(t->config.data);
    mem_free(t);
}

static void transfer_say(const struct transfer *t, const char *what,
                         const char *why)
{
    char topic[UUID_TEXT_SIZE];

    uuid_format(&t->g->creation.id.topic, topic);
    log_info("catchup",
             "%s topic=%s partition=%d from=%d index=%llu ms=%llu "
             "reason=\"%s\"",
             what, topic, t->g->creation.id.partition, t->from,
             (unsigned long long)t->index,
             (unsigned long long)(group_now(t->g) - t->begun_ms), why);
}

/* Without success. The state machine is told when no worker is at it. */
static void transfer_end(struct transfer *t, const char *why)
{
    struct group *g = t->g;

    if (t->state != T_END)
        transfer_say(t, "given up", why);
    t->state = T_END;
    transfer_cancel(t);
    if (is_working(t) || g->settling)
        return; /* catchup_round_over, or the last write */
    if (t->began)
        ops_of(t)->receive_end(g->sm, false);
    g->catchup_again_ms = group_now(g) + ANEW_MS;
    transfer_free(t);
    settle_check(g); /* it did not while files were received */
}

void catchup_group_closing(struct group *g)
{
    struct transfer *t = g->transfer;

    if (t == NULL)
        return;
    transfer_end(t, "the group is closed");
}

void catchup_round_over(struct group *g)
{
    struct transfer *t = g->transfer;

    if (t != NULL && t->state == T_END)
        transfer_end(t, "");
    else if (t != NULL && t->state == T_ASK)
        t->again_ms = 0; /* a manifest that came too early */
}

bool catchup_holds_files(const struct group *g)
{
    return g->transfer != NULL && g->transfer->began;
}

/* ---- ranges -------------------------------------------------------------- */

/* Room for one more range under way, and the allowed rate not used up: a bucket
 * that fills up to a quarter of a second. */
static bool may_fetch(struct raft_host *host)
{
    uint64_t now = env_now_ms(host->env);
    uint64_t rate = LIMIT_CATCHUP_BYTES_PER_S;
    uint64_t passed = now - host->catchup_tokens_ms;

    host->catchup_tokens += (passed > 1000 ? 1000 : passed) * (rate / 1000);
    if (host->catchup_tokens > rate / 4)
        host->catchup_tokens = rate / 4;
    host->catchup_tokens_ms = now;
    return host->catchup_tokens >= CATCHUP_RANGE_MAX &&
           host->n_fetching < LIMIT_CATCHUP_FETCHES;
}

static void take_tokens(struct raft_host *host, uint32_t size)
{
    host->catchup_tokens -= size;
}

static void fetch_again(struct fetch *f, bool have_bytes)
{
    f->state = F_AGAIN;
    f->have_bytes = have_bytes;
    f->again_ms = group_now(f->t->g) + AGAIN_MS;
}

static void fetch_run(struct env_work *work)
{
    struct fetch *f = work->arg;

    f->job.status = f->job.run(&f->job);
}

static void fetch_written(struct env_work *work)
{
    struct fetch *f = work->arg;
    struct transfer *t = f->t;
    struct group *g = t->g;
    enum err status = f->job.status;

    ops_of(t)->write_end(g->sm, &f->job);
    g->jobs--;
    if (status == ERR_NOSPACE && t->state != T_END) {
        fetch_again(f, true);
        return;
    }
    fetch_finish(f);
    if (status != ERR_OK || t->state == T_END) {
        bool closing = g->life == GROUP_CLOSING;
        struct raft_host *host = g->host;

        transfer_end(t, err_text(status));
        if (closing)
            raft_host_want_turn(host);
        return;
    }
    transfer_step(t);
}

static void fetch_write(struct fetch *f)
{
    struct transfer *t = f->t;
    enum err e = ops_of(t)->write_begin(t->g->sm, &f->job);

    if (e == ERR_NOSPACE) {
        fetch_again(f, true);
        return;
    }
    if (e != ERR_OK) {
        fetch_finish(f);
        transfer_end(t, err_text(e));
        return;
    }
    f->state = F_WRITING;
    t->g->jobs++;
    f->work =
        (struct env_work){.run = fetch_run, .done = fetch_written, .arg = f};
    env_work_submit(t->g->host->env, ENV_POOL_IO, &f->work);
}

static void fetch_answered(struct rpc_call *call, enum err status,
                           const uint8_t *body, size_t size)
{
    struct fetch *f = call->arg;
    struct transfer *t = f->t;

    if (status == ERR_OK && size != f->job.range.size)
        status = ERR_CORRUPT;
    if (status == ERR_OK) {
        f->job.data = mem_alloc(size);
        memcpy(f->job.data, body, size);
        fetch_write(f);
    } else if (status == ERR_UNREACHABLE || status == ERR_TIMEOUT ||
               status == ERR_BUSY || status == ERR_NOT_READY) {
        fetch_again(f, false);
    } else {
        /* the range is gone there, or the group: another manifest */
        fetch_finish(f);
        if (t->state == T_FETCH) {
            t->state = T_ASK;
            t->again_ms = group_now(t->g) + AGAIN_MS;
        }
        transfer_step(t);
    }
}

static void request_head(const struct transfer *t, enum catchup_operation op,
                         uint8_t *out)
{
    peer_group_id_write(&t->g->creation.id, out);
    out[20] = (uint8_t)op;
}

static void fetch_call(struct fetch *f)
{
    struct transfer *t = f->t;
    uint8_t body[CATCHUP_REQUEST_HEAD + 20];

    request_head(t, CATCHUP_READ, body);
    le_put64(body + 21, f->job.range.file);
    le_put64(body + 29, f->job.range.offset);
    le_put32(body + 37, f->job.range.size);
    f->state = F_CALLING;
    f->call = (struct rpc_call){.cb = fetch_answered, .arg = f};
    transport_call(t->g->host->options.transport, t->manifest_from, RPC_CATCHUP,
                   body, sizeof body, READ_TIMEOUT_MS, &f->call);
}

/* Repeats what failed; false: the transfer may have ended. */
static bool fetch_retry(struct fetch *f)
{
    if (group_now(f->t->g) < f->again_ms)
        return true;
    if (!f->have_bytes) {
        fetch_call(f);
        return true;
    }
    fetch_write(f);
    return f->state == F_WRITING;
}

static bool is_range_sane(const struct catchup_range *range)
{
    return range->size > 0 && range->size <= CATCHUP_RANGE_MAX;
}

/* Gives every idle fetch a range; true when all is fetched and written. */
static bool fetch_more(struct transfer *t)
{
    bool busy = false;

    for (int i = 0; i < FETCHES; i++) {
        struct fetch *f = &t->fetches[i];

        if (f->state == F_AGAIN && !fetch_retry(f))
            return false;
        if (f->state == F_IDLE && !t->given_out && may_fetch(t->g->host)) {
            if (ops_of(t)->receive_next(t->g->sm, &f->job.range)) {
                ASSERT(is_range_sane(&f->job.range));
                t->g->host->n_fetching++;
                take_tokens(t->g->host, f->job.range.size);
                fetch_call(f);
            } else {
                t->given_out = true;
            }
        }
        busy = busy || f->state != F_IDLE;
    }
    return t->given_out && !busy;
}

/* ---- the manifest -------------------------------------------------------- */

static bool is_idle(const struct transfer *t)
{
    for (int i = 0; i < FETCHES; i++)
        if (t->fetches[i].state != F_IDLE)
            return false;
    return true;
}

static bool config_take(struct transfer *t, const uint8_t *body, size_t size)
{
    struct raft_configuration config;
    uint32_t n = le_get32(body + 32);

    if (n > size - CATCHUP_ANSWER_HEAD ||
        !io_config_decode(body + CATCHUP_ANSWER_HEAD, n, &config))
        return false;
    raft_configuration_close(&config);
    mem_free(t->config.data);
    t->config.index = le_get64(body + 16);
    t->config.term = le_get64(body + 24);
    t->config.size = n;
    t->config.data = mem_alloc(n);
    memcpy(t->config.data, body + CATCHUP_ANSWER_HEAD, n);
    return true;
}

static void transfer_ready(struct transfer *t)
{
    struct group *g = t->g;

    if (contains(g, t->index, t->term)) {
        transfer_end(t, "the log has it");
        return;
    }
    t->state = T_READY;
    kept_clear(&g->held);
    transfer_step(t);
}

/* Entries that contradict the state to come, which is committed, never were;
 * without them, and with nothing under way, it can be settled. */
static void transfer_settle(struct transfer *t)
{
    struct group *g = t->g;

    if (g->appends.count == 0 && entry_table_next(&g->table) > t->index)
        g->cut_position = group_cut(g, t->index);
    settle_check(g);
    settle_poll(g->host);
}

static void manifest_arrived(struct transfer *t, const uint8_t *body,
                             size_t size)
{
    struct group *g = t->g;
    uint64_t index = le_get64(body), term = le_get64(body + 8);
    uint32_t n;

    if (contains(g, index, term)) {
        transfer_end(t, "the log has it");
        return;
    }
    if (!config_take(t, body, size)) {
        transfer_end(t, "the configuration makes no sense");
        return;
    }
    if (g->settling)
        return; /* asked again when that is over */
    n = le_get32(body + 32);
    t->index = index;
    t->term = term;
    t->manifest_from = t->from;
    t->given_out = false;
    t->began = true;
    t->rounds++;
    enum err e = ops_of(t)->receive_begin(
        g->sm, (log_index){index}, (raft_term_t){term},
        body + CATCHUP_ANSWER_HEAD + n, size - CATCHUP_ANSWER_HEAD - n);
    if (e != ERR_OK) {
        transfer_end(t, err_text(e));
        return;
    }
    t->state = T_FETCH;
    transfer_step(t);
}

static void ask_answered(struct rpc_call *call, enum err status,
                         const uint8_t *body, size_t size)
{
    struct transfer *t = call->arg;

    t->asking = false;
    t->again_ms = group_now(t->g) + AGAIN_MS;
    if (status != ERR_OK)
        return; /* asked again */
    if (t->state == T_CONFIRM && size == CATCHUP_ANSWER_GO &&
        le_get64(body) == t->index)
        transfer_ready(t);
    else if (size >= CATCHUP_ANSWER_HEAD &&
             (t->state == T_ASK || t->state == T_CONFIRM))
        manifest_arrived(t, body, size);
}

static void transfer_ask(struct transfer *t)
{
    uint8_t body[CATCHUP_REQUEST_HEAD + 8];

    if (t->asking || group_now(t->g) < t->again_ms)
        return;
    request_head(t, CATCHUP_MANIFEST, body);
    le_put64(body + CATCHUP_REQUEST_HEAD, t->state == T_CONFIRM ? t->index : 0);
    t->asking = true;
    t->ask = (struct rpc_call){.cb = ask_answered, .arg = t};
    transport_call(t->g->host->options.transport, t->from, RPC_CATCHUP, body,
                   sizeof body, ASK_TIMEOUT_MS, &t->ask);
}

/* ---- steps --------------------------------------------------------------- */

static void transfer_step(struct transfer *t)
{
    struct group *g = t->g;

    if (t->state == T_END) {
        transfer_end(t, "");
        return;
    }
    if (t->state == T_READY) {
        if (!g->settling)
            transfer_settle(t);
        return;
    }
    if (t->began && contains(g, t->index, t->term)) {
        transfer_end(t, "the log has it");
        return;
    }
    if (group_now(g) - t->offered_ms > FORGET_MS) {
        transfer_end(t, "nobody offers it any more");
        return;
    }
    if (t->state == T_FETCH && t->from != t->manifest_from)
        t->state = T_ASK; /* another leader: its own manifest */
    if (t->state == T_FETCH && fetch_more(t)) {
        t->state = T_CONFIRM;
        t->again_ms = 0;
        if (t->rounds >= ROUNDS_MAX) {
            transfer_ready(t);
            return;
        }
    }
    if ((t->state == T_ASK || t->state == T_CONFIRM) && is_idle(t))
        transfer_ask(t);
}

/* While another manifest is waited for, ranges of the old one that failed are
 * not repeated. */
static void drop_failed(struct transfer *t)
{
    if (t->state != T_ASK)
        return;
    for (int i = 0; i < FETCHES; i++)
        if (t->fetches[i].state == F_AGAIN)
            fetch_finish(&t->fetches[i]);
}

void catchup_tick(struct raft_host *host)
{
    struct transfer *t, *next;
    uint64_t now = env_now_ms(host->env);

    if (host->options.transport == NULL)
        return;
    DL_FOREACH_SAFE(host->receiving, t, next)
    {
        struct group *g = t->g;

        drop_failed(t);
        transfer_step(t); /* which may end it */
        settle_check(g);
    }
    if (now < host->catchup_offer_ms)
        return;
    host->catchup_offer_ms = now + OFFER_MS;
    catchup_serve_tick(host);
}

static void transfer_begin(struct group *g, node_id from)
{
    struct raft_host *host = g->host;
    struct transfer *t = mem_zalloc(sizeof *t);

    t->g = g;
    t->from = from;
    t->offered_ms = t->begun_ms = group_now(g);
    for (int i = 0; i < FETCHES; i++)
        t->fetches[i].t = t;
    g->transfer = t;
    transfer_say(t, "begun", "behind the leader's memory");
    DL_APPEND(host->receiving, t);
    host->n_receiving++;
    transfer_step(t);
}

void catchup_offered(struct group *g, const struct message *offer)
{
    node_id from = group_node_of(g, offer->from);
    struct transfer *t = g->transfer;

    if (g->life != GROUP_OPEN || offer->term != g->raft.current_term ||
        g->raft.state != RAFT_FOLLOWER || from < 0)
        return;
    if (contains(g, offer->last_index, offer->last_term)) {
        if (g->durable >= offer->last_index)
            io_send_matched(g, offer->from, offer->last_index);
        return;
    }
    if (t != NULL) {
        t->from = from;
        t->offered_ms = group_now(g);
    } else if (g->ops->catchup != NULL && g->host->options.transport != NULL &&
               g->host->n_receiving < LIMIT_CATCHUP_TRANSFERS &&
               group_now(g) >= g->catchup_again_ms) {
        transfer_begin(g, from);
    }
}

bool group_catchup_progress(const struct group *g, uint64_t *left,
                            uint64_t *all)
{
    *left = *all = 0;
    if (g->transfer == NULL)
        return false;
    if (g->transfer->began)
        ops_of(g->transfer)->receive_progress(g->sm, left, all);
    return true;
}

/* ---- the switch ---------------------------------------------------------- */

bool catchup_blocks_entries(const struct group *g)
{
    return g->transfer != NULL && g->transfer->state == T_READY;
}

bool catchup_ready(const struct group *g)
{
    const struct transfer *t = g->transfer;

    /* what was cut must be durable before the checkpoint relies on it */
    return t != NULL && t->state == T_READY && g->appends.count == 0 &&
           entry_table_next(&g->table) <= t->index &&
           group_now(g) >= t->again_ms && g->cut_position <= g->host->durable;
}

void catchup_settle_begin(struct group *g, struct settle_job *job)
{
    job->upto.v = g->transfer->index;
    ops_of(g->transfer)->receive_finish(g->sm, job);
    ASSERT(job->upto.v == g->transfer->index);
}

void catchup_settle_state(const struct group *g, uint64_t *term,
                          struct group_config *config)
{
    *term = g->transfer->term;
    *config = g->transfer->config;
}

void catchup_settle_failed(struct group *g, struct settle_job *job)
{
    if (job->status == ERR_NOSPACE && g->life == GROUP_OPEN)
        g->transfer->again_ms = group_now(g) + 10 * AGAIN_MS;
    else
        transfer_end(g->transfer, err_text(job->status));
}

void catchup_switch(struct group *g, struct settle_job *job)
{
    struct transfer *t = g->transfer;
    node_id from = t->from;
    uint64_t index = t->index;

    ASSERT(t->state == T_READY && job->upto.v == index);
    ASSERT(entry_table_next(&g->table) <= index);
    struct group_found found = {.term = g->term,
                                .vote = g->vote,
                                .settled = index,
                                .settled_term = t->term,
                                .config = t->config,
                                .blob = job->blob,
                                .blob_size = job->blob_size};
    group_stop(g);
    group_recover(g, &found);
    g->truncated = 0;
    ops_of(t)->receive_end(g->sm, true);
    transfer_say(t, "switched", "done");
    transfer_free(t);
    enum err e =
        g->ops->restore(g->sm, (log_index){g->settled},
                        (raft_term_t){g->settled_term}, g->blob, g->blob_size);
    if (e != ERR_OK)
        env_fatal(g->host->env, "group %d: what was received is not usable: %s",
                  g->creation.id.partition, err_text(e));
    group_start(g);
    for (int i = 0; i < g->n_peers; i++)
        if (g->peers[i].node == from)
            io_send_matched(g, g->peers[i].id, index);
}
