/* Peers: dialling them, accepting their connections, hellos, and who is up. */
#include "raft/transport_impl.h"

#include <stdio.h>

#include "base/assert.h"
#include "base/log.h"

#define DIAL_MS 1000     /* connect and hello */
#define STRANGER_MS 3000 /* an accepted connection without hello */
#define STALE_MS 5000    /* a connection on which nothing comes */
#define BACKOFF_FIRST_MS 50
#define BACKOFF_MAX_MS 1000
#define FORGET_MS 10000    /* nobody named it, and it is gone for so long */
#define LOG_AGAIN_MS 10000 /* the same sentence about the same peer */

static void link_dial(struct link *link);
static void link_dial_later(struct link *link);

/* ---- hello --------------------------------------------------------------- */

static void hello_of_self(const struct transport *t, enum peer_lane lane,
                          struct peer_hello *out)
{
    *out = (struct peer_hello){
        .version = PEER_VERSION,
        .lane = lane,
        .accepted = true,
        .shard = t->options.shard,
        .n_shards = t->options.n_shards,
        .node = t->options.node,
        .cluster = t->cluster,
        .directory = t->options.directory,
        .incarnation = t->incarnation,
    };
    snprintf(out->address, sizeof out->address, "%s", t->address);
}

static void hello_send(struct peer_conn *conn, enum peer_kind kind,
                       const struct peer_hello *hello)
{
    uint8_t body[PEER_HELLO_MAX];
    struct transport_piece piece = {.data = body,
                                    .size = peer_hello_write(hello, body)};
    peer_conn_send(conn, kind, 0, 0, &piece, 1);
}

static bool hello_is_self(const struct transport *t,
                          const struct peer_hello *hello)
{
    return hello->node == t->options.node &&
           uuid_equal(&hello->directory, &t->options.directory);
}

static bool clusters_differ(const struct transport *t,
                            const struct peer_hello *hello)
{
    return !uuid_is_zero(&hello->cluster) && !uuid_is_zero(&t->cluster) &&
           !uuid_equal(&hello->cluster, &t->cluster);
}

/* Whether we talk to who says this; `expected`: who it should be, or -1. */
static enum err hello_judge(const struct transport *t,
                            const struct peer_hello *hello, node_id expected,
                            char *why, size_t why_size)
{
    if (hello->version != PEER_VERSION) {
        snprintf(why, why_size,
                 "broker %d speaks version %u of the peer protocol, broker %d "
                 "version %d",
                 hello->node, hello->version, t->options.node, PEER_VERSION);
        return ERR_UNSUPPORTED;
    }
    if (clusters_differ(t, hello)) {
        char theirs[UUID_TEXT_SIZE], ours[UUID_TEXT_SIZE];
        uuid_format(&hello->cluster, theirs);
        uuid_format(&t->cluster, ours);
        snprintf(why, why_size,
                 "broker %d belongs to cluster %s, broker %d to cluster %s",
                 hello->node, theirs, t->options.node, ours);
        return ERR_REFUSED;
    }
    if (expected >= 0 && hello->node != expected) {
        snprintf(why, why_size, "broker %d answers where broker %d should be",
                 hello->node, expected);
        return ERR_REFUSED;
    }
    if (hello_is_self(t, hello))
        return ERR_OK;
    if (hello->node == t->options.node) {
        snprintf(why, why_size,
                 "another broker with node.id %d is running with another data "
                 "directory",
                 hello->node);
        return ERR_REFUSED;
    }
    if (t->ops == NULL || t->ops->admit == NULL)
        return ERR_OK;
    snprintf(why, why_size, "broker %d is not admitted", hello->node);
    return t->ops->admit(t->arg, &hello->cluster, hello->node,
                         &hello->directory, why, why_size);
}

/* ---- who is up ----------------------------------------------------------- */

static void event_add(struct peer *peer, bool up)
{
    struct peer_event *event = mem_zalloc(sizeof *event);
    event->node = peer->node;
    event->up = up;
    DL_APPEND(peer->t->events, event);
    transport_defer(peer->t);
}

void peers_tell(struct transport *t)
{
    while (t->events != NULL) {
        struct peer_event event = *t->events;
        struct peer_event *first = t->events;
        DL_DELETE(t->events, first);
        mem_free(first);
        if (t->ops == NULL)
            continue;
        if (event.up && t->ops->peer_up != NULL)
            t->ops->peer_up(t->arg, event.node);
        if (!event.up && t->ops->peer_down != NULL)
            t->ops->peer_down(t->arg, event.node);
    }
}

static void peer_lose(struct peer *peer, const char *why)
{
    if (!peer->up)
        return;
    peer->up = false;
    log_warn("transport", "peer down node=%d address=%s reason=\"%s\"",
             peer->node, peer->address, why);
    event_add(peer, false);
}

/* The peer's shard q dials our shard q modulo our number of shards. */
static bool incoming_expected(const struct peer *peer)
{
    return peer->t->options.shard < peer->n_shards;
}

static uint64_t silence_of(const struct peer *peer)
{
    uint64_t from =
        peer->heard_ms > peer->t->awake_ms ? peer->heard_ms : peer->t->awake_ms;
    return env_now_ms(peer->t->env) - from;
}

static void peer_check_up(struct peer *peer)
{
    if (peer->up || peer->node < 0 ||
        (incoming_expected(peer) && peer->n_incoming == 0) ||
        silence_of(peer) >= peer->t->options.silence_ms)
        return;
    for (int i = 0; i < LANE_COUNT; i++)
        if (peer->links[i].state != LINK_UP)
            return;
    peer->up = true;
    log_info("transport", "peer up node=%d address=%s", peer->node,
             peer->address);
    event_add(peer, true);
}

/* ---- dialling ------------------------------------------------------------ */

static void peer_note(struct peer *peer, const char *why)
{
    uint64_t now = env_now_ms(peer->t->env);
    char text[sizeof peer->why];
    snprintf(text, sizeof text, "%s: %s", peer->address, why);
    bool same = strcmp(text, peer->why) == 0;
    memcpy(peer->why, text, sizeof text);
    peer->refused = false;
    if (same && peer->logged_ms != 0 && now - peer->logged_ms < LOG_AGAIN_MS)
        return;
    peer->logged_ms = now == 0 ? 1 : now;
    log_warn("transport", "not connected node=%d address=%s reason=\"%s\"",
             peer->node, peer->address, why);
}

static void link_count(struct link *link)
{
    struct transport_peer_stats *stats = &link->peer->stats;
    stats->bytes_sent += peer_conn_bytes_sent(link->conn);
    stats->bytes_received += peer_conn_bytes_received(link->conn);
}

/* Without a connection from here on; dialled again later. */
static void link_down(struct link *link, const char *why)
{
    bool was_up = link->state == LINK_UP;
    link->conn = NULL;
    link->state = LINK_IDLE;
    link->ping_sent = false;
    env_timer_stop(&link->timer);
    peer_note(link->peer, why);
    if (was_up)
        link->backoff_ms = 0;
    rpc_link_lost(link);
    link_dial_later(link);
}

static void link_close(struct link *link, const char *why)
{
    link_count(link);
    peer_conn_close(link->conn, false);
    link_down(link, why);
}

/* The other side has given a clear no. */
static void link_refused(struct link *link, const char *why)
{
    struct peer *peer = link->peer;
    link_close(link, why);
    peer_lose(peer, why);
}

static void link_lost(struct peer_conn *conn, void *arg, bool refused,
                      const char *why)
{
    struct link *link = arg;
    struct peer *peer = link->peer;
    ASSERT(link->conn == conn);
    link_count(link);
    link_down(link, why);
    if (refused)
        peer_lose(peer, why);
}

static void link_opened(struct peer_conn *conn, void *arg)
{
    struct link *link = arg;
    struct peer_hello hello;
    hello_of_self(link->peer->t, link->lane, &hello);
    hello_send(conn, PEER_HELLO, &hello);
}

/* It lives: no need to wait for the end of a long backoff. */
static void peer_hurry(struct peer *peer)
{
    for (int i = 0; i < LANE_COUNT; i++) {
        struct link *link = &peer->links[i];
        if (link->state != LINK_WAITING || link->backoff_ms <= BACKOFF_FIRST_MS)
            continue;
        link->backoff_ms = 0;
        link_dial_later(link);
    }
}

/* Who a seed is has become known. False: the peer is gone, it is another's. */
static bool seed_known(struct peer *peer, node_id node)
{
    struct transport *t = peer->t;
    struct seed *seed;
    DL_FOREACH(t->seeds, seed)
    {
        if (seed->peer == peer) {
            seed->peer = NULL;
            seed->node = node;
        }
    }
    struct peer *other = peer_find(t, node);
    if (node == t->options.node || other != NULL) {
        if (other != NULL && !other->told &&
            other->links[LANE_MAIN].state != LINK_UP)
            peer_set_address(other, peer->address);
        peer_free(peer);
        return false;
    }
    peer->node = node;
    peer->stats.node = node;
    HASH_ADD(hh, t->known, node, sizeof peer->node, peer);
    return true;
}

static void link_accepted(struct link *link, const struct peer_hello *hello)
{
    struct peer *peer = link->peer;
    if (peer->node < 0 && !seed_known(peer, hello->node))
        return;
    bool restarted =
        link->incarnation != 0 && link->incarnation != hello->incarnation;
    link->state = LINK_UP;
    link->incarnation = hello->incarnation;
    link->backoff_ms = 0;
    link->up_ms = env_now_ms(peer->t->env);
    env_timer_stop(&link->timer);
    peer->n_shards = hello->n_shards;
    peer->stats.connects++;
    peer->why[0] = 0;
    peer->refused = false;
    if (restarted)
        peer_lose(peer, "it was restarted");
    for (int i = 0; i < LANE_COUNT; i++)
        if (peer->links[i].state == LINK_IDLE)
            link_dial(&peer->links[i]);
    peer_hurry(peer);
    peer_check_up(peer);
}

static void link_answered(struct link *link, const struct peer_frame *frame,
                          const uint8_t *body)
{
    struct peer *peer = link->peer;
    struct peer_hello hello;
    char why[PEER_WHY_SIZE + 64];
    if (peer_hello_read(body, frame->size, &hello) != ERR_OK) {
        link_close(link, "the answer to our hello makes no sense");
        return;
    }
    peer->foreign = clusters_differ(peer->t, &hello);
    if (!hello.accepted) {
        snprintf(why, sizeof why, "refused: %s", hello.why);
        link_refused(link, why);
        peer->refused = true;
        return;
    }
    if (hello_judge(peer->t, &hello, peer->node, why, sizeof why) != ERR_OK)
        link_refused(link, why);
    else
        link_accepted(link, &hello);
}

static void link_ponged(struct link *link, uint64_t sent_ns)
{
    uint64_t now = env_now_ns(link->peer->t->env);
    link->ping_sent = false;
    if (sent_ns <= now)
        link->peer->stats.rtt_us = (uint32_t)((now - sent_ns) / 1000);
}

static void link_frame(struct peer_conn *conn, void *arg,
                       const struct peer_frame *frame, const uint8_t *body)
{
    struct link *link = arg;
    link->peer->heard_ms = peer_conn_heard_ms(conn);
    bool up = link->state == LINK_UP;
    if (frame->kind == PEER_HELLO_ACK && !up)
        link_answered(link, frame, body);
    else if (frame->kind == PEER_PONG && up)
        link_ponged(link, frame->id);
    else if (frame->kind == PEER_RPC_RESPONSE && up)
        rpc_response_received(link, frame, body);
    else
        link_close(link, "a frame of a kind that must not come this way");
}

static const struct peer_conn_ops link_ops = {
    .opened = link_opened,
    .frame = link_frame,
    .lost = link_lost,
};

static void link_dial(struct link *link)
{
    struct peer *peer = link->peer;
    ASSERT(link->conn == NULL);
    link->state = LINK_DIALLING;
    env_timer_start(&link->timer, DIAL_MS);
    link->conn = peer_conn_dial(peer->t->env, peer->address, &link_ops, link);
}

static void link_dial_later(struct link *link)
{
    struct transport *t = link->peer->t;
    uint64_t delay = link->backoff_ms;
    if (delay == 0) {
        delay = env_random(t->env) % 10;
        link->backoff_ms = BACKOFF_FIRST_MS;
    } else {
        delay += env_random(t->env) % (delay / 2);
        link->backoff_ms *= 2;
        if (link->backoff_ms > BACKOFF_MAX_MS)
            link->backoff_ms = BACKOFF_MAX_MS;
    }
    link->state = LINK_WAITING;
    env_timer_start(&link->timer, delay);
}

static void link_timer(struct env_timer *timer)
{
    struct link *link = timer->arg;
    if (link->state == LINK_WAITING)
        link_dial(link);
    else if (link->state == LINK_DIALLING)
        link_close(link, "no answer");
}

/* ---- peers --------------------------------------------------------------- */

struct peer *peer_find(const struct transport *t, node_id node)
{
    struct peer *peer;
    HASH_FIND(hh, t->known, &node, sizeof node, peer);
    return peer;
}

struct seed *seed_find(const struct transport *t, const char *address)
{
    struct seed *seed;
    DL_FOREACH(t->seeds, seed)
    if (strcmp(seed->address, address) == 0)
        return seed;
    return NULL;
}

struct peer *peer_new(struct transport *t, node_id node, const char *address)
{
    struct peer *peer = mem_zalloc(sizeof *peer);
    peer->t = t;
    peer->node = node;
    peer->stats.node = node;
    snprintf(peer->address, sizeof peer->address, "%s", address);
    peer->heard_ms = peer->incoming_ms = env_now_ms(t->env);
    for (int i = 0; i < LANE_COUNT; i++) {
        struct link *link = &peer->links[i];
        link->peer = peer;
        link->lane = (enum peer_lane)i;
        env_timer_init(t->env, &link->timer, link_timer, link);
    }
    DL_APPEND(t->peers, peer);
    t->n_peers++;
    if (node >= 0)
        HASH_ADD(hh, t->known, node, sizeof peer->node, peer);
    if (address[0] != 0)                          /* else when it is known */
        link_dial_later(&peer->links[LANE_MAIN]); /* bulk follows */
    return peer;
}

void peer_set_address(struct peer *peer, const char *address)
{
    if (strcmp(peer->address, address) == 0)
        return;
    snprintf(peer->address, sizeof peer->address, "%s", address);
    for (int i = 0; i < LANE_COUNT; i++) {
        struct link *link = &peer->links[i];
        if (link->conn != NULL) {
            link->backoff_ms = 0;
            link_close(link, "the address changed");
        } else if (link->state == LINK_WAITING || i == LANE_MAIN) {
            link->backoff_ms = 0;
            link_dial_later(link);
        }
    }
}

static void incoming_free(struct incoming *in)
{
    struct transport *t = in->t;
    if (in->peer != NULL) {
        in->peer->stats.bytes_sent += peer_conn_bytes_sent(in->conn);
        in->peer->stats.bytes_received += peer_conn_bytes_received(in->conn);
        if (in->lane == LANE_MAIN)
            in->peer->n_incoming--;
    }
    HASH_DEL(t->incoming, in);
    mem_free(in);
}

static void incoming_close(struct incoming *in, bool flush)
{
    struct peer_conn *conn = in->conn;
    incoming_free(in);
    peer_conn_close(conn, flush);
}

void peer_free(struct peer *peer)
{
    struct transport *t = peer->t;
    for (int i = 0; i < LANE_COUNT; i++) {
        struct link *link = &peer->links[i];
        env_timer_stop(&link->timer);
        if (link->conn != NULL)
            peer_conn_close(link->conn, false);
        rpc_link_lost(link);
    }
    struct incoming *in, *next;
    HASH_ITER(hh, t->incoming, in, next)
    if (in->peer == peer)
        incoming_close(in, false);
    struct seed *seed;
    DL_FOREACH(t->seeds, seed)
    if (seed->peer == peer)
        seed->peer = NULL;
    if (peer->node >= 0)
        HASH_DEL(t->known, peer);
    DL_DELETE(t->peers, peer);
    t->n_peers--;
    mem_free(peer);
}

void peers_free(struct transport *t)
{
    while (t->peers != NULL)
        peer_free(t->peers);
    while (t->incoming != NULL)
        incoming_close(t->incoming, false);
    while (t->seeds != NULL) {
        struct seed *seed = t->seeds;
        DL_DELETE(t->seeds, seed);
        mem_free(seed);
    }
    while (t->events != NULL) {
        struct peer_event *event = t->events;
        DL_DELETE(t->events, event);
        mem_free(event);
    }
}

/* ---- accepted connections ------------------------------------------------ */

static const struct peer_conn_ops incoming_ops;

static struct incoming *incoming_new(struct transport *t,
                                     struct env_stream *stream)
{
    struct incoming *in = mem_zalloc(sizeof *in);
    in->t = t;
    in->serial = ++t->next_serial;
    in->since_ms = env_now_ms(t->env);
    in->conn = peer_conn_accept(t->env, stream, &incoming_ops, in);
    HASH_ADD(hh, t->incoming, serial, sizeof in->serial, in);
    return in;
}

void incoming_accept(void *arg, struct env_stream *stream)
{
    struct transport *t = arg;
    if (HASH_COUNT(t->incoming) >= LIMIT_PEER_INCOMING) {
        env_stream_close(stream);
        return;
    }
    incoming_new(t, stream);
}

/* Nothing came for some pings: a newer connection takes its place. (One that is
 * in use may be there for a moment beside that of a seed, before the peer finds
 * that they lead to the same broker, and closes one of them.) */
static bool is_quiet(const struct incoming *in)
{
    return env_now_ms(in->t->env) - peer_conn_heard_ms(in->conn) >
           2 * (uint64_t)in->t->options.ping_ms;
}

/* The hello was accepted: this is the peer's, on its final shard. */
static void incoming_adopt(struct incoming *in, const struct peer_hello *hello)
{
    struct transport *t = in->t;
    struct incoming *old, *next;
    struct peer *peer = peer_find(t, hello->node);
    if (peer == NULL)
        peer = peer_new(t, hello->node, hello->address);
    else if (!peer->told && hello->address[0] != 0 &&
             peer->links[LANE_MAIN].state != LINK_UP)
        peer_set_address(peer, hello->address);
    HASH_ITER(hh, t->incoming, old, next)
    {
        if (old->peer == peer && old->lane == hello->lane &&
            old->shard == hello->shard && is_quiet(old))
            incoming_close(old, false);
    }
    in->peer = peer;
    in->lane = hello->lane;
    in->shard = hello->shard;
    if (in->lane == LANE_MAIN)
        peer->n_incoming++;
    peer->n_shards = hello->n_shards;
    peer->heard_ms = peer->incoming_ms = env_now_ms(t->env);
    peer_conn_admit(in->conn);
    struct peer_hello answer;
    hello_of_self(t, hello->lane, &answer);
    hello_send(in->conn, PEER_HELLO_ACK, &answer);
    peer_hurry(peer);
    peer_check_up(peer);
}

/* A connection on its way to the shard that it is for. */
struct handing_on {
    struct transport *to;
    struct peer_hello hello;
};

static void incoming_handed_on(void *arg, struct env_stream *stream)
{
    struct handing_on *h = arg;
    if (h->to->freed)
        env_stream_close(stream);
    else
        incoming_adopt(incoming_new(h->to, stream), &h->hello);
    mem_free(h);
}

static void incoming_hand_on(struct incoming *in, struct transport *to,
                             const struct peer_hello *hello)
{
    struct handing_on *h = mem_alloc(sizeof *h);
    h->to = to;
    h->hello = *hello;
    struct peer_conn *conn = in->conn;
    incoming_free(in);
    env_stream_move(peer_conn_detach(conn), to->env, incoming_handed_on, h);
}

static void incoming_refuse(struct incoming *in, enum peer_lane lane,
                            const char *why)
{
    struct peer_hello answer;
    hello_of_self(in->t, lane, &answer);
    answer.accepted = false;
    snprintf(answer.why, sizeof answer.why, "%s", why);
    hello_send(in->conn, PEER_HELLO_ACK, &answer);
    incoming_close(in, true);
}

static void incoming_hello(struct incoming *in, const struct peer_frame *frame,
                           const uint8_t *body)
{
    struct transport *t = in->t;
    struct peer_hello hello;
    char why[PEER_WHY_SIZE];
    if (peer_hello_read(body, frame->size, &hello) != ERR_OK) {
        incoming_close(in, false);
        return;
    }
    if (hello_judge(t, &hello, -1, why, sizeof why) != ERR_OK) {
        log_info("transport", "connection refused node=%d reason=\"%s\"",
                 hello.node, why);
        incoming_refuse(in, hello.lane, why);
        return;
    }
    if (hello_is_self(t, &hello)) { /* a seed that is ourselves */
        struct peer_hello answer;
        hello_of_self(t, hello.lane, &answer);
        hello_send(in->conn, PEER_HELLO_ACK, &answer);
        return;
    }
    if (peer_find(t, hello.node) == NULL && t->n_peers >= LIMIT_PEERS) {
        incoming_refuse(in, hello.lane, "no room for one more peer");
        return;
    }
    struct transport *to =
        t->n_shards > 1 ? t->shards[hello.shard % t->n_shards] : t;
    if (to == t)
        incoming_adopt(in, &hello);
    else
        incoming_hand_on(in, to, &hello);
}

static void incoming_ping(struct incoming *in, uint64_t id)
{
    struct peer *peer = in->peer;
    peer_conn_send(in->conn, PEER_PONG, id, 0, NULL, 0);
    peer_check_up(peer);
}

static void incoming_frame(struct peer_conn *conn, void *arg,
                           const struct peer_frame *frame, const uint8_t *body)
{
    struct incoming *in = arg;
    if (in->peer == NULL) {
        if (frame->kind == PEER_HELLO)
            incoming_hello(in, frame, body);
        else
            incoming_close(in, false);
        return;
    }
    in->peer->heard_ms = peer_conn_heard_ms(conn);
    if (frame->kind == PEER_PING) {
        incoming_ping(in, frame->id);
    } else if (frame->kind == PEER_RAFT) {
        in->peer->stats.raft_received++;
        raft_received(in->t, in->peer->node, body, frame->size);
    } else if (frame->kind == PEER_RPC_REQUEST) {
        rpc_request_received(in, frame, body);
    } else {
        log_warn("transport", "unexpected frame node=%d kind=%d",
                 in->peer->node, (int)frame->kind);
        incoming_close(in, false);
    }
}

static void incoming_lost(struct peer_conn *conn, void *arg, bool refused,
                          const char *why)
{
    struct incoming *in = arg;
    (void)conn;
    (void)refused;
    if (in->peer == NULL)
        log_info("transport", "connection without hello ended reason=\"%s\"",
                 why);
    else
        log_debug("transport", "connection ended node=%d reason=\"%s\"",
                  in->peer->node, why);
    incoming_free(in);
}

static const struct peer_conn_ops incoming_ops = {
    .frame = incoming_frame,
    .lost = incoming_lost,
};

/* ---- the tick ------------------------------------------------------------ */

static void incoming_tick(struct transport *t, uint64_t now)
{
    struct incoming *in, *next;
    HASH_ITER(hh, t->incoming, in, next)
    {
        uint64_t heard = peer_conn_heard_ms(in->conn);
        if (in->peer != NULL && heard > in->peer->heard_ms)
            in->peer->heard_ms = heard;
        uint64_t from = heard > t->awake_ms ? heard : t->awake_ms;
        if (in->peer == NULL ? now - in->since_ms > STRANGER_MS
                             : now - from > STALE_MS)
            incoming_close(in, false);
    }
}

/* Nothing came back on this connection for long, though the peer may live:
 * pongs queue behind what we send, so this is no matter of milliseconds. */
static bool link_is_dead(struct link *link, uint64_t now, uint64_t heard)
{
    uint64_t sent = peer_conn_bytes_sent(link->conn);
    if (sent != link->sent) {
        link->sent = sent;
        link->sent_ms = now;
    }
    uint64_t from = link->peer->t->awake_ms;
    if (heard > from)
        from = heard;
    if (link->sent_ms > from)
        from = link->sent_ms;
    return now - from > STALE_MS;
}

static void link_tick(struct link *link, uint64_t now)
{
    struct transport *t = link->peer->t;
    uint64_t heard = peer_conn_heard_ms(link->conn);
    link->up_ms = now;
    if (heard > link->peer->heard_ms)
        link->peer->heard_ms = heard;
    if (!link->ping_sent) {
        link->ping_sent = true;
        peer_conn_send(link->conn, PEER_PING, env_now_ns(t->env), 0, NULL, 0);
    } else if (link_is_dead(link, now, heard)) {
        link_close(link, "the connection is dead");
    }
}

static void peer_tick(struct peer *peer, uint64_t now)
{
    struct transport *t = peer->t;
    uint64_t limit = t->options.silence_ms;
    char why[80];
    for (int i = 0; i < LANE_COUNT; i++)
        if (peer->links[i].state == LINK_UP)
            link_tick(&peer->links[i], now);
    if (peer->n_incoming > 0)
        peer->incoming_ms = now;
    if (silence_of(peer) >= limit) {
        snprintf(why, sizeof why, "nothing heard for %llu ms",
                 (unsigned long long)silence_of(peer));
        peer_lose(peer, why);
        for (int i = 0; i < LANE_COUNT; i++)
            if (peer->links[i].state == LINK_UP)
                link_close(&peer->links[i], why);
    }
    if (!peer->up) {
        peer_check_up(peer);
        return;
    }
    if (incoming_expected(peer) && now - peer->incoming_ms >= limit)
        peer_lose(peer, "it does not connect to us");
    for (int i = 0; i < LANE_COUNT; i++)
        if (now - peer->links[i].up_ms >= 2 * limit)
            peer_lose(peer, "it cannot be connected to");
}

static bool is_seed(const struct peer *peer)
{
    const struct seed *seed;
    DL_FOREACH(peer->t->seeds, seed)
    if (seed->peer == peer || (seed->node >= 0 && seed->node == peer->node))
        return true;
    return false;
}

/* It came by itself, or is a member no more, and it is gone: dialled for ever
 * it would cost connections, and a place among the peers. */
static bool is_to_be_forgotten(const struct peer *peer, uint64_t now)
{
    if (peer->up || peer->told || (!peer->unwanted && is_seed(peer)))
        return false;
    uint64_t there = peer->incoming_ms;
    for (int i = 0; i < LANE_COUNT; i++)
        if (peer->links[i].up_ms > there)
            there = peer->links[i].up_ms;
    if (there < peer->t->awake_ms)
        there = peer->t->awake_ms;
    return now - there >= FORGET_MS;
}

void peers_tick(struct transport *t)
{
    uint64_t now = env_now_ms(t->env);
    if (now - t->ticked_ms > 2 * (uint64_t)t->options.ping_ms)
        t->awake_ms = now;
    t->ticked_ms = now;
    incoming_tick(t, now);
    struct peer *peer, *next;
    DL_FOREACH_SAFE(t->peers, peer, next)
    {
        peer_tick(peer, now);
        if (is_to_be_forgotten(peer, now))
            peer_free(peer);
    }
}
