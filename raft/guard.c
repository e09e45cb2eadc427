#include "raft/guard.h"

#include <stddef.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "raft/catchup_impl.h"
#include "raft/io.h"

/* The build of libraft this layer was written for: its fields are poked. */
_Static_assert(sizeof(struct raft) == 656, "libraft 0.15.0");
_Static_assert(sizeof(struct raft_entry) == 40, "libraft 0.15.0");
_Static_assert(sizeof(struct raft_entry_ref) == 32, "libraft 0.15.0");
_Static_assert(sizeof(struct raft_progress) == 56, "libraft 0.15.0");
_Static_assert(sizeof(struct raft_log) == 72, "libraft 0.15.0");
_Static_assert(offsetof(struct raft, current_term) == 48, "libraft 0.15.0");
_Static_assert(offsetof(struct raft, log) == 64, "libraft 0.15.0");
_Static_assert(offsetof(struct raft, configuration) == 136, "libraft 0.15.0");
_Static_assert(offsetof(struct raft, commit_index) == 184, "libraft 0.15.0");
_Static_assert(offsetof(struct raft, state) == 208, "libraft 0.15.0");
_Static_assert(offsetof(struct raft, pre_vote) == 640, "libraft 0.15.0");

/* One rule. Every hook may be NULL. */
struct guard_rule {
    enum guard_id id;
    const char *name;
    const char *bugs; /* of libraft 0.15.0, as numbered in README.md */
    const char *reason;
    enum guard_verdict (*recv)(struct group *g, const struct message *m);
    bool (*deliver)(struct group *g, struct message *m,
                    struct message_entry **entries);
    void (*delivered)(struct group *g);
    bool (*send)(struct group *g, struct message *m);
    bool (*tick)(struct group *g);
    bool (*complete)(struct group *g);
    bool (*after)(struct group *g);
};

/* ---- helpers ------------------------------------------------------------- */

static uint64_t min64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t max64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static bool is_pre_vote(const struct message *m)
{
    return (m->type == MESSAGE_VOTE || m->type == MESSAGE_VOTE_RESULT) &&
           (m->flags & MESSAGE_PRE_VOTE) != 0;
}

static struct raft_server *server_of(struct group *g, replica_id id)
{
    struct raft_configuration *c = &g->raft.configuration;

    for (unsigned i = 0; i < c->n; i++)
        if (c->servers[i].id == id)
            return &c->servers[i];
    return NULL;
}

/* The leader's progress of a replica; NULL when there is none. */
static struct raft_progress *progress_of(struct group *g, replica_id id,
                                         unsigned *at)
{
    struct raft_server *server = server_of(g, id);

    if (g->raft.state != RAFT_LEADER || server == NULL)
        return NULL;
    *at = (unsigned)(server - g->raft.configuration.servers);
    return &g->raft.leader_state.progress[*at];
}

static bool own_term_stored(struct group *g)
{
    struct raft *r = &g->raft;

    return r->last_stored > 0 &&
           group_term_at(g, r->last_stored) == r->current_term;
}

/* ---- G1 ------------------------------------------------------------------ */

static enum guard_verdict noop_recv(struct group *g, const struct message *m)
{
    struct raft *r = &g->raft;

    if (r->state == RAFT_LEADER && m->type == MESSAGE_APPEND_RESULT &&
        m->term == r->current_term && !own_term_stored(g))
        return GUARD_HOLD;
    return GUARD_PASS;
}

static void barrier_done(struct raft_barrier *req, int status)
{
    (void)req, (void)status; /* commit and role are watched, not requests */
}

static bool noop_after(struct group *g)
{
    struct raft *r = &g->raft;

    if (r->state != RAFT_LEADER || g->barrier_term == r->current_term)
        return false;
    g->barrier_term = r->current_term;
    g->noop = entry_table_next(&g->table);
    g->in_core++;
    if (raft_barrier(r, &g->barrier, barrier_done) != 0)
        UNREACHABLE("a leader without transfer takes a barrier");
    g->in_core--;
    return true;
}

/* ---- G2 ------------------------------------------------------------------ */

static bool ack_send(struct group *g, struct message *m)
{
    if (m->type == MESSAGE_APPEND_RESULT && m->rejected == 0 && g->in_append)
        m->last_index = min64(m->last_index, g->append_end);
    return true;
}

/* ---- G3 ------------------------------------------------------------------ */

static enum guard_verdict drain_recv(struct group *g, const struct message *m)
{
    if (g->appends.count > 0 && m->term > g->raft.current_term &&
        !is_pre_vote(m))
        return GUARD_HOLD;
    return GUARD_PASS;
}

/* A message of a higher term waits for the appends in flight. */
static bool drain_pending(const struct group *g)
{
    for (const struct kept_message *k = g->held.head; k != NULL; k = k->next) {
        struct message m;

        if (message_decode(k->body, k->size, &m) == ERR_OK &&
            m.term > g->raft.current_term && !is_pre_vote(&m))
            return true;
    }
    return false;
}

/* ---- G4 ------------------------------------------------------------------ */

static enum guard_verdict campaign_recv(struct group *g,
                                        const struct message *m)
{
    if (m->type == MESSAGE_TIMEOUT_NOW && g->appends.count > 0)
        return GUARD_HOLD;
    return GUARD_PASS;
}

static bool campaign_tick(struct group *g)
{
    if (g->raft.state != RAFT_FOLLOWER || g->appends.count == 0)
        return true;
    g->raft.election_timer_start = group_now(g);
    return false;
}

/* ---- G5 ------------------------------------------------------------------ */

static enum guard_verdict vote_recv(struct group *g, const struct message *m)
{
    struct raft *r = &g->raft;

    if (m->type == MESSAGE_VOTE && !is_pre_vote(m) &&
        m->term == r->current_term && r->voted_for != 0 &&
        r->voted_for != m->from)
        return GUARD_DROP;
    return GUARD_PASS;
}

/* ---- G6 ------------------------------------------------------------------ */

static bool pacing_complete(struct group *g)
{
    struct raft *r = &g->raft;

    return r->state != RAFT_LEADER || !own_term_stored(g) ||
           r->commit_index >= r->last_stored || drain_pending(g);
}

/* ---- G7 ------------------------------------------------------------------ */

static bool sender_known(struct group *g, replica_id from)
{
    return server_of(g, from) != NULL ||
           group_rank(g, from) < g->creation.n_replicas;
}

static enum guard_verdict input_recv(struct group *g, const struct message *m)
{
    struct raft *r = &g->raft;

    if (m->term == 0 || !sender_known(g, m->from))
        return GUARD_DROP;
    if (m->type == MESSAGE_APPEND_RESULT && server_of(g, m->from) == NULL)
        return GUARD_DROP;
    if (m->type != MESSAGE_APPEND)
        return GUARD_PASS;
    if (r->state == RAFT_LEADER && m->term == r->current_term)
        return GUARD_DROP;
    if ((m->prev_index == 0) != (m->prev_term == 0) || m->prev_term > m->term)
        return GUARD_DROP;
    return GUARD_PASS;
}

static bool input_config_ok(const struct message *m,
                            const struct message_entry *entries)
{
    for (uint32_t i = 0; i < m->n_entries; i++) {
        struct raft_configuration config;
        const struct message_entry *e = &entries[i];

        if (e->type == ENTRY_NOOP && e->size != 0)
            return false;
        if (e->type != ENTRY_CONFIG)
            continue;
        if (!io_config_decode(e->payload, e->size, &config))
            return false;
        raft_configuration_close(&config);
    }
    return true;
}

/* Entries below our window are committed and identical: an append that begins
 * there is made to begin at the window (C3). */
static bool input_deliver(struct group *g, struct message *m,
                          struct message_entry **entries)
{
    struct raft_log *log = &g->raft.log;
    uint64_t cut;

    if (m->type != MESSAGE_APPEND)
        return true;
    if (!input_config_ok(m, *entries))
        return false;
    if (m->prev_index >= log->offset || log->snapshot.last_index == 0 ||
        m->prev_index >= log->snapshot.last_index)
        return true;
    cut = min64(log->snapshot.last_index - m->prev_index, m->n_entries);
    *entries += cut;
    m->n_entries -= (uint32_t)cut;
    m->prev_index = log->snapshot.last_index;
    m->prev_term = log->snapshot.last_term;
    return true;
}

/* ---- G9 ------------------------------------------------------------------ */

static bool asked_by_leader(const struct raft *r, const struct message *m)
{
    return m->from == r->follower_state.current_leader.id &&
           m->term > r->current_term;
}

/* L6: a follower's leader that was silent for an election time-out, whose
 * broker is gone, or who asks for votes itself, is no leader. L7: whoever is
 * asked for a vote answers, also when the configuration it has does not know
 * yet that it votes. */
static bool pre_vote_deliver(struct group *g, struct message *m,
                             struct message_entry **entries)
{
    struct raft *r = &g->raft;
    struct raft_server *self = server_of(g, r->id);
    uint64_t silent = group_now(g) - r->election_timer_start;

    (void)entries;
    if (m->type != MESSAGE_VOTE)
        return true;
    if (r->state == RAFT_FOLLOWER &&
        (silent >= r->election_timeout || asked_by_leader(r, m) ||
         raft_host_is_down(
             g->host, group_node_of(g, r->follower_state.current_leader.id))))
        r->follower_state.current_leader.id = 0;
    if (self != NULL && self->role != RAFT_VOTER) {
        g->flipped_role = self->role;
        self->role = RAFT_VOTER;
    }
    return true;
}

static void pre_vote_delivered(struct group *g)
{
    struct raft_server *self = server_of(g, g->raft.id);

    if (g->flipped_role >= 0 && self != NULL)
        self->role = g->flipped_role;
    g->flipped_role = -1;
}

static bool pre_vote_send(struct group *g, struct message *m)
{
    if (m->type == MESSAGE_VOTE_RESULT && is_pre_vote(m) &&
        (m->flags & MESSAGE_GRANTED) == 0)
        m->term = max64(m->term, g->raft.current_term);
    return true;
}

static bool pre_vote_tick(struct group *g)
{
    struct raft *r = &g->raft;

    if (r->state == RAFT_CANDIDATE && r->pre_vote &&
        !r->candidate_state.disrupt_leader && electionTimerExpired(r))
        r->candidate_state.in_pre_vote = true;
    return true;
}

/* ---- G10 ----------------------------------------------------------------- */

/* What this append of the core becomes for a peer that is parked: at most a
 * heartbeat where the peer stands. */
static bool clip_parked(struct group *g, struct group_peer *peer,
                        struct message *m)
{
    uint64_t at = peer->parked_next - 1;
    bool due = group_now(g) - peer->sent_ms >= g->host->options.heartbeat_ms;

    if ((m->n_entries > 0 && !due) || group_term_at(g, at) == 0)
        return false;
    m->prev_index = at;
    m->prev_term = group_term_at(g, at);
    m->n_entries = 0;
    m->commit = min64(m->commit, at);
    return true;
}

static bool window_full(const struct group *g,
                        const struct raft_progress *progress, uint64_t next)
{
    uint64_t match = progress->match_index;

    return next > match + LIMIT_RAFT_WINDOW_ENTRIES ||
           entry_table_bytes(&g->table, match, next - 1) >=
               LIMIT_RAFT_WINDOW_BYTES;
}

static bool clip_send(struct group *g, struct message *m)
{
    unsigned at;
    struct raft_progress *progress;
    struct group_peer *peer;
    uint64_t bytes = 0;
    uint32_t n = 0;

    if (m->type != MESSAGE_APPEND)
        return true;
    peer = group_peer(g, m->to);
    progress = progress_of(g, m->to, &at);
    if (peer == NULL || progress == NULL)
        return true;
    if (peer->behind) { /* it gets a transfer; this is for its timer only */
        m->n_entries = 0;
        m->commit = min64(m->commit, m->prev_index);
        return true;
    }
    if (peer->parked_next != 0)
        return clip_parked(g, peer, m);
    if (m->n_entries > 0 && progress->state == PROGRESS_PIPELINE &&
        window_full(g, progress, m->prev_index + 1)) {
        peer->parked_next = m->prev_index + 1;
        return clip_parked(g, peer, m);
    }
    while (n < m->n_entries && n < LIMIT_RAFT_APPEND_ENTRIES) {
        const struct entry_slot *slot =
            entry_table_at(&g->table, m->prev_index + 1 + n);

        bytes += slot->place.size;
        if (n > 0 && bytes > LIMIT_RAFT_APPEND_BYTES)
            break;
        n++;
    }
    if (n < m->n_entries && progress->state == PROGRESS_PIPELINE)
        peer->parked_next = m->prev_index + n + 1;
    m->n_entries = n;
    m->commit = min64(m->commit, m->prev_index + n);
    return true;
}

/* Lets the core believe what was really sent, and goes on while the window
 * allows. */
static bool clip_resume(struct group *g, struct group_peer *peer)
{
    unsigned at;
    struct raft_progress *progress = progress_of(g, peer->id, &at);
    bool any = false;

    while (peer->parked_next != 0) {
        uint64_t next = peer->parked_next;

        if (progress == NULL || progress->state != PROGRESS_PIPELINE) {
            peer->parked_next = 0;
            return any;
        }
        next = max64(next, progress->match_index + 1);
        if (window_full(g, progress, next))
            return any;
        peer->parked_next = 0;
        progress->next_index = min64(next, entry_table_next(&g->table));
        g->in_core++;
        replicationProgress(&g->raft, at);
        g->in_core--;
        any = true;
    }
    return any;
}

static bool clip_after(struct group *g)
{
    bool any = false;

    if (g->raft.state != RAFT_LEADER)
        return false;
    for (int i = 0; i < g->n_peers; i++)
        if (g->peers[i].parked_next != 0)
            any |= clip_resume(g, &g->peers[i]);
    return any;
}

/* ---- G11 ----------------------------------------------------------------- */

/* The next probe comes at once, where the hint says, and not below the window
 * while a probe at its beginning may still do: the core would fall back to what
 * was acknowledged and offer a snapshot to one who needs none. */
static bool reject_deliver(struct group *g, struct message *m,
                           struct message_entry **entries)
{
    unsigned at;
    struct raft_progress *progress;
    uint64_t offset = g->raft.log.offset;

    (void)entries;
    if (m->type != MESSAGE_APPEND_RESULT || m->rejected == 0 ||
        m->term != g->raft.current_term)
        return true;
    progress = progress_of(g, m->from, &at);
    if (progress == NULL)
        return true;
    if (m->rejected <= progress->match_index) {
        /* It lost what it had acknowledged (proof.h); the core would never
         * look there again. Less than it has is always safe to believe. */
        progress->match_index = m->rejected - 1;
        progress->state = PROGRESS_PROBE;
        progress->next_index = m->rejected + 1;
    }
    if (m->rejected <= offset && group_peer(g, m->from) != NULL) {
        group_peer(g, m->from)->behind = true;
        serve_watch(g);
    } else {
        progress->last_send = 0;
    }
    if (progress->state == PROGRESS_PIPELINE &&
        m->rejected > progress->match_index) {
        progress->state = PROGRESS_PROBE;
        progress->next_index =
            min64(m->rejected + 1, entry_table_next(&g->table));
    }
    m->last_index = max64(m->last_index, progress->match_index);
    if (m->rejected > offset)
        m->last_index = max64(m->last_index, offset);
    return true;
}

/* The window moved on over a follower's position. */
static bool reject_after(struct group *g)
{
    struct raft *r = &g->raft;

    if (r->state != RAFT_LEADER)
        return false;
    for (unsigned i = 0; i < r->configuration.n; i++) {
        struct raft_progress *progress = &r->leader_state.progress[i];

        struct group_peer *peer = group_peer(g, r->configuration.servers[i].id);

        if (peer != NULL && peer->parked_next != 0 &&
            peer->parked_next <= r->log.offset) {
            peer->parked_next = 0;
            progress->state = PROGRESS_PROBE;
            progress->next_index = r->log.offset + 1;
        }
        if (progress->state != PROGRESS_SNAPSHOT &&
            progress->next_index <= r->log.offset) {
            progress->state = PROGRESS_PROBE;
            progress->next_index = r->log.offset + 1;
        }
    }
    return false;
}

/* Where the leader may try next: below our run of the conflicting term. Any
 * value is safe, it only picks the next probe. */
static bool reject_send(struct group *g, struct message *m)
{
    uint64_t term, index = m->rejected;

    if (m->type != MESSAGE_APPEND_RESULT || m->rejected == 0 ||
        m->term != g->raft.current_term)
        return true;
    term = group_term_at(g, index);
    if (term == 0)
        return true;
    while (index > g->raft.commit_index + 1 &&
           group_term_at(g, index - 1) == term)
        index--;
    m->last_index = min64(m->last_index, index - 1);
    return true;
}

/* ---- G12 ----------------------------------------------------------------- */

static enum guard_verdict proof_recv(struct group *g, const struct message *m)
{
    bool elects = m->type == MESSAGE_VOTE || m->type == MESSAGE_TIMEOUT_NOW;

    return g->proof.missing && elects ? GUARD_DROP : GUARD_PASS;
}

static bool proof_send(struct group *g, struct message *m)
{
    return !g->proof.missing || m->type != MESSAGE_VOTE;
}

static bool proof_ticks(struct group *g)
{
    return !g->proof.missing;
}

/* ---- the table ----------------------------------------------------------- */

static const struct guard_rule rules[] = {
    {.id = GUARD_NOOP,
     .name = "G1 own-term no-op",
     .bugs = "S1",
     .reason = "the core counts replicas of old terms' entries: nothing may "
               "be counted before an entry of the own term is stored",
     .recv = noop_recv,
     .after = noop_after},
    {.id = GUARD_ACK,
     .name = "G2 honest acknowledgement",
     .bugs = "S2",
     .reason = "the core acknowledges its whole log where only prev + n "
               "entries were compared",
     .send = ack_send},
    {.id = GUARD_DRAIN,
     .name = "G3 drain",
     .bugs = "S3",
     .reason = "an append that completes after the term changed is "
               "acknowledged to the wrong leader: a higher term waits for "
               "the appends in flight",
     .recv = drain_recv},
    {.id = GUARD_CAMPAIGN,
     .name = "G4 no campaign with writes in flight",
     .bugs = "S7 S8",
     .reason = "a candidate would advertise entries that are not durable",
     .recv = campaign_recv,
     .tick = campaign_tick},
    {.id = GUARD_VOTE,
     .name = "G5 one vote a term",
     .bugs = "S4",
     .reason = "during a transfer the core votes a second time",
     .recv = vote_recv},
    {.id = GUARD_PACING,
     .name = "G6 commit pacing",
     .bugs = "L1",
     .reason = "the core asks for a quorum at its newest stored entry only: "
               "under load nothing would commit",
     .complete = pacing_complete},
    {.id = GUARD_INPUT,
     .name = "G7 input",
     .bugs = "C3 C9 L12",
     .reason = "the core trusts what it is sent",
     .recv = input_recv,
     .deliver = input_deliver},
    {.id = GUARD_STORAGE,
     .name = "G8 storage never fails",
     .bugs = "S5 C4",
     .reason = "a failed append leaves the core wrong: errors end the "
               "process (wal.c), closing completes as success (io.c)"},
    {.id = GUARD_PRE_VOTE,
     .name = "G9 pre-vote",
     .bugs = "L4 L5 L6 L7",
     .reason = "terms in refusals, a straw poll before every attempt, no "
               "stale leaders, votes of those not yet promoted",
     .deliver = pre_vote_deliver,
     .delivered = pre_vote_delivered,
     .send = pre_vote_send,
     .tick = pre_vote_tick},
    {.id = GUARD_CLIP,
     .name = "G10 clip and window",
     .bugs = "L3 S13",
     .reason = "the core sends everything it has, at once and again; what is "
               "cut must not carry a commit index beyond its end",
     .send = clip_send,
     .after = clip_after},
    {.id = GUARD_REJECT,
     .name = "G11 quick probing",
     .bugs = "L2",
     .reason = "the core steps back one entry a heartbeat",
     .deliver = reject_deliver,
     .send = reject_send,
     .after = reject_after},
    {.id = GUARD_PROOF,
     .name = "G12 no vote without proof",
     .bugs = "none: damage",
     .reason = "a replica that lost entries it acknowledged would elect a "
               "leader without them",
     .recv = proof_recv,
     .send = proof_send,
     .tick = proof_ticks},
};
#define N_RULES (sizeof rules / sizeof rules[0])

#define RULE_ACTIVE(rule, hook, g) \
    ((rule)->hook != NULL && guard_on(g, (rule)->id))

enum guard_verdict guard_recv(struct group *g, const struct message *m)
{
    enum guard_verdict verdict = GUARD_PASS;

    for (size_t i = 0; i < N_RULES; i++) {
        enum guard_verdict v = GUARD_PASS;

        if (RULE_ACTIVE(&rules[i], recv, g))
            v = rules[i].recv(g, m);
        if (v > verdict)
            verdict = v;
    }
    return verdict;
}

bool guard_deliver(struct group *g, struct message *m,
                   struct message_entry **entries)
{
    for (size_t i = 0; i < N_RULES; i++)
        if (RULE_ACTIVE(&rules[i], deliver, g) &&
            !rules[i].deliver(g, m, entries))
            return false;
    return true;
}

void guard_delivered(struct group *g)
{
    for (size_t i = 0; i < N_RULES; i++)
        if (RULE_ACTIVE(&rules[i], delivered, g))
            rules[i].delivered(g);
}

bool guard_send(struct group *g, struct message *m)
{
    for (size_t i = 0; i < N_RULES; i++)
        if (RULE_ACTIVE(&rules[i], send, g) && !rules[i].send(g, m))
            return false;
    return true;
}

bool guard_tick(struct group *g)
{
    for (size_t i = 0; i < N_RULES; i++)
        if (RULE_ACTIVE(&rules[i], tick, g) && !rules[i].tick(g))
            return false;
    return true;
}

bool guard_complete(struct group *g)
{
    for (size_t i = 0; i < N_RULES; i++)
        if (RULE_ACTIVE(&rules[i], complete, g) && !rules[i].complete(g))
            return false;
    return true;
}

bool guard_after(struct group *g)
{
    bool any = false;

    for (size_t i = 0; i < N_RULES; i++)
        if (RULE_ACTIVE(&rules[i], after, g))
            any |= rules[i].after(g);
    return any;
}

void guard_set_mask(struct raft_host *host, uint32_t mask)
{
    host->guard_mask = mask;
}

/* ---- the library --------------------------------------------------------- */

static int check_init(struct raft_io *io, raft_id id, const char *address)
{
    (void)io, (void)id, (void)address;
    return 0;
}

static void check_close(struct raft_io *io, raft_io_close_cb cb)
{
    cb(io);
}

static void check_closed(struct raft *r)
{
    (void)r;
}

/* Every build of libraft lays struct raft out as its own header says: the
 * defaults that raft_init leaves must be where 0.15.0 has them, and nothing
 * may be written behind the end. */
bool guard_library_ok(void)
{
    struct {
        struct raft raft;
        uint8_t beyond[256];
    } probe;
    struct raft_io io = {
        .version = 1, .init = check_init, .close = check_close};
    struct raft_fsm fsm = {.version = 1};
    bool ok;

    memset(&probe, 0xa5, sizeof probe);
    if (raft_init(&probe.raft, &io, &fsm, 7, "7") != 0)
        return false;
    ok = probe.raft.id == 7 && probe.raft.election_timeout == 1000 &&
         probe.raft.heartbeat_timeout == 100 &&
         probe.raft.install_snapshot_timeout == 30000 &&
         probe.raft.snapshot.threshold == 1024 &&
         probe.raft.snapshot.trailing == 2048 && !probe.raft.pre_vote &&
         probe.raft.max_catch_up_rounds == 10 &&
         probe.raft.max_catch_up_round_duration == 5000 &&
         probe.raft.state == RAFT_UNAVAILABLE;
    for (size_t i = 0; i < sizeof probe.beyond; i++)
        ok = ok && probe.beyond[i] == 0xa5;
    raft_close(&probe.raft, check_closed);
    if (!ok)
        log_error("raft", "this libraft is not 0.15.0: refusing to start");
    return ok;
}
