/* The first start of a cluster of several brokers.
 *
 * Every broker asks every address in its list of seeds, again and again: who
 * are you, do you belong to a cluster, and whom do your own seeds turn out to
 * be? Lists may be in any order and call a broker by any of its names; what
 * counts is the set of (node id, directory id) that answered: the claim.
 *
 *   all seeds answer, all are empty, and all claim the same set, which holds
 *   this broker       -> the cluster is that set. Its id, the order of members
 *                        and their replica ids follow from the set alone, so
 *                        each member comes to the same result by itself.
 *   one has formed and names this broker, with this directory -> adopt that.
 *   one has formed and does not, or names another directory   -> refused.
 *
 * Why no two clusters come of it: a set forms only after each of its members
 * claimed exactly that set while it was empty. If another set is ever claimed
 * by one of them again (a member lost its directory and came back empty with
 * another), it holds all others of the first set who would have to claim it
 * too, and whoever has formed does not claim but names what it formed.
 *
 * The result is written durably to meta.properties before the group is made,
 * and answered to others only then. */
#include <stdarg.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "metadata/metadata_impl.h"

#define FORMATION_FORMAT 1
#define ASK_MS 50
#define ASK_TIMEOUT_MS 500
#define SAY_MS 5000
#define REFUSED_MS 1000

/* What a seed answered. */
struct answer {
    bool known;
    struct identity_member who;
    bool formed;
    bool complete; /* its claim holds all its seeds */
    struct uuid cluster;
    int n_claim;
    struct identity_member claim[LIMIT_SEEDS];
};

struct seed {
    struct formation *f;
    char address[LIMIT_ADDRESS];
    bool self; /* our own address, as we call it */
    bool asking;
    struct rpc_call rpc;
    struct answer answer;
};

struct formation {
    struct metadata *m;
    int n_seeds;
    struct seed seeds[LIMIT_SEEDS];
    struct env_timer timer;
    uint64_t said_ms;
    uint64_t refused_ms; /* since when a seed refuses us; 0: none does */
    bool saving;
    struct identity decided;
    struct env_work work;
    enum err saved;
};

/* ---- seeds --------------------------------------------------------------- */
/* Calls `each` for every address of the list, without blanks; false: a fault,
 * or `each` said so. */
static bool seeds_each(const char *list,
                       bool (*each)(void *arg, const char *address), void *arg)
{
    while (list != NULL && *list != '\0') {
        char address[LIMIT_ADDRESS];
        size_t n = strcspn(list, ",");
        const char *begin = list;
        list += n + (list[n] == ',');
        while (n > 0 && *begin == ' ') {
            begin++;
            n--;
        }
        while (n > 0 && begin[n - 1] == ' ') {
            n--;
        }
        if (n >= sizeof address) {
            return false;
        }
        memcpy(address, begin, n);
        address[n] = '\0';
        if (n > 0 && !each(arg, address)) {
            return false;
        }
    }
    return true;
}

struct alone {
    const char *self;
    bool others;
};
static bool is_other(void *arg, const char *address)
{
    struct alone *a = arg;
    a->others = a->others || strcmp(address, a->self) != 0;
    return true;
}

bool formation_is_alone(const struct metadata *m)
{
    struct alone a = {m->options.peer_address, false};
    return seeds_each(m->options.seeds, is_other, &a) && !a.others;
}

static bool add_transport_seed(void *arg, const char *address)
{
    struct metadata *m = arg;
    if (strcmp(address, m->options.peer_address) != 0) {
        transport_add_seed(m->options.transport, address);
    }
    return true;
}

void formation_add_seeds(struct metadata *m)
{
    (void)seeds_each(m->options.seeds, add_transport_seed, m);
}

struct hearing {
    const struct metadata *m;
    struct seeds_heard *out;
};
static bool hear_seed(void *arg, const char *address)
{
    struct hearing *h = arg;
    const struct transport *t = h->m->options.transport;
    node_id node = transport_seed_node(t, address);
    if (strcmp(address, h->m->options.peer_address) == 0 ||
        node == h->m->options.node) {
        return true;
    }
    h->out->n++;
    if (node >= 0) {
        h->out->n_ours++;
    } else if (transport_seed_is_foreign(t, address)) {
        h->out->n_foreign++;
        snprintf(h->out->foreign, sizeof h->out->foreign, "%s", address);
    } else if (transport_seed_refusal(t, address)[0] == '\0') {
        h->out->n_silent++;
    }
    return true;
}

void formation_hear_seeds(const struct metadata *m, struct seeds_heard *out)
{
    struct hearing h = {m, out};
    memset(out, 0, sizeof *out);
    (void)seeds_each(m->options.seeds, hear_seed, &h);
}

/* ---- answering others ---------------------------------------------------- */
static void put_member(struct buffer *b, const struct identity_member *member)
{
    codec_put_i32(b, member->node);
    codec_put_uuid(b, &member->directory);
    codec_put_text(b, member->address);
}

static bool same_member(const struct identity_member *a,
                        const struct identity_member *b)
{
    return a->node == b->node && uuid_equal(&a->directory, &b->directory);
}

static struct identity_member self_of(const struct metadata *m)
{
    struct identity_member self = {.node = m->options.node,
                                   .directory = m->options.directory};
    snprintf(self.address, sizeof self.address, "%s", m->options.peer_address);
    return self;
}

/* Adds in the order of node ids what is not there yet. */
static int claim_add(struct identity_member *claim, int n,
                     const struct identity_member *member)
{
    int at = 0;
    for (int i = 0; i < n; i++) {
        if (same_member(&claim[i], member)) {
            return n;
        }
    }
    while (at < n && claim[at].node <= member->node) {
        at++;
    }
    memmove(&claim[at + 1], &claim[at], (size_t)(n - at) * sizeof *claim);
    claim[at] = *member;
    return n + 1;
}

/* Whom our seeds turned out to be; true when all have answered. */
static bool claim_of(const struct formation *f,
                     struct identity_member claim[LIMIT_SEEDS], int *n)
{
    bool complete = true;
    *n = 0;
    for (int i = 0; i < f->n_seeds; i++) {
        const struct seed *seed = &f->seeds[i];
        struct identity_member self = self_of(f->m);
        if (!seed->self && !seed->answer.known) {
            complete = false;
            continue;
        }
        *n = claim_add(claim, *n, seed->self ? &self : &seed->answer.who);
    }
    return complete;
}

void formation_serve(void *arg, struct rpc_request *request, node_id from,
                     const uint8_t *body, size_t size)
{
    struct metadata *m = arg;
    struct identity_member claim[LIMIT_SEEDS];
    struct identity_member self = self_of(m);
    struct buffer b = {0};
    int n = 0;
    bool formed = m->formation == NULL;
    bool complete = formed || claim_of(m->formation, claim, &n);
    (void)from;
    if (size != 1 || body[0] != FORMATION_FORMAT || m->refused) {
        rpc_respond(request, m->refused ? ERR_NOT_READY : ERR_INVALID, NULL, 0);
        return;
    }
    if (formed) {
        n = m->identity.n_members;
        memcpy(claim, m->identity.members, sizeof claim);
    }
    codec_put_u8(&b, FORMATION_FORMAT);
    put_member(&b, &self);
    codec_put_bool(&b, formed);
    codec_put_bool(&b, complete);
    codec_put_uuid(&b, &m->identity.cluster);
    codec_put_u32(&b, (uint32_t)n);
    for (int i = 0; i < n; i++) {
        put_member(&b, &claim[i]);
    }
    rpc_respond(request, ERR_OK, b.data, b.size);
    buffer_free(&b);
}

/* ---- asking -------------------------------------------------------------- */
static void get_member(struct reader *r, struct identity_member *member)
{
    member->node = codec_get_i32(r);
    member->directory = codec_get_uuid(r);
    struct text address = codec_get_text(r);
    if (!codec_ok(r) || member->node < 0 ||
        address.size >= sizeof member->address) {
        r->bad = true;
        return;
    }
    memcpy(member->address, address.s, address.size);
    member->address[address.size] = '\0';
}

static bool read_answer(const uint8_t *body, size_t size, struct answer *out)
{
    struct reader r = codec_reader(body, size);
    memset(out, 0, sizeof *out);
    if (codec_get_u8(&r) != FORMATION_FORMAT) {
        return false;
    }
    get_member(&r, &out->who);
    out->formed = codec_get_bool(&r);
    out->complete = codec_get_bool(&r);
    out->cluster = codec_get_uuid(&r);
    out->n_claim = (int)codec_get_count(&r, 22, LIMIT_SEEDS);
    for (int i = 0; i < out->n_claim; i++) {
        get_member(&r, &out->claim[i]);
        if (i > 0 && out->claim[i].node < out->claim[i - 1].node) {
            r.bad = true;
        }
    }
    out->known = codec_done(&r) && (!out->formed || out->n_claim > 0);
    return out->known;
}

static void judge(struct formation *f);

static void seed_answered(struct rpc_call *rpc, enum err status,
                          const uint8_t *body, size_t size)
{
    struct seed *seed = rpc->arg;
    struct answer answer;
    seed->asking = false;
    /* No answer says nothing new: it is what the seed said last that may not
     * be relied on any longer. */
    memset(&seed->answer, 0, sizeof seed->answer);
    if (status == ERR_OK && read_answer(body, size, &answer)) {
        seed->answer = answer;
    }
    judge(seed->f);
}

static void ask(struct env_timer *timer)
{
    struct formation *f = timer->arg;
    static const uint8_t body[] = {FORMATION_FORMAT};
    env_timer_start(timer, ASK_MS);
    for (int i = 0; i < f->n_seeds; i++) {
        struct seed *seed = &f->seeds[i];
        if (!seed->self && !seed->asking) {
            seed->asking = true;
            transport_call_seed(f->m->options.transport, seed->address,
                                RPC_FORMATION, body, sizeof body,
                                ASK_TIMEOUT_MS, &seed->rpc);
        }
    }
}

/* ---- the result ---------------------------------------------------------- */
static void save(struct env_work *work)
{
    struct formation *f = work->arg;
    f->saved = identity_save(f->m->env, f->m->options.dir, &f->decided);
}

static void saved(struct env_work *work)
{
    struct formation *f = work->arg;
    struct metadata *m = f->m;
    if (!metadata_work_end(m)) {
        return;
    }
    if (f->saved != ERR_OK) {
        metadata_refuse(m, "cannot write meta.properties in %s: %s",
                        m->options.dir, err_text(f->saved));
        return;
    }
    m->identity = f->decided;
    formation_free(m);
    metadata_formed(m);
}

static void decide(struct formation *f, const struct identity_member *members,
                   int n, const struct uuid *cluster)
{
    struct metadata *m = f->m;
    f->decided = m->identity;
    f->decided.state = IDENTITY_FORMING;
    f->decided.cluster = *cluster;
    f->decided.n_members = n;
    memcpy(f->decided.members, members, (size_t)n * sizeof *members);
    f->saving = true;
    env_timer_stop(&f->timer);
    f->work.run = save;
    f->work.done = saved;
    f->work.arg = f;
    metadata_work_begin(m);
    env_work_submit(m->env, ENV_POOL_IO, &f->work);
}

/* Formed without us, or with our former self. */
static void refuse_outsider(struct formation *f, const struct answer *a)
{
    struct metadata *m = f->m;
    char nodes[80] = "";
    size_t used = 0;
    for (int i = 0; i < a->n_claim; i++) {
        if (a->claim[i].node == m->options.node) {
            char text[UUID_TEXT_SIZE];
            uuid_format(&a->claim[i].directory, text);
            metadata_refuse(m,
                            "node id %d belongs to another data directory "
                            "(%s): start this broker with that directory; an "
                            "empty one cannot take its place",
                            m->options.node, text);
            return;
        }
        used += (size_t)snprintf(nodes + used, sizeof nodes - used, "%s%d",
                                 i == 0 ? "" : ", ", a->claim[i].node);
    }
    metadata_refuse(m,
                    "the cluster was formed of the nodes %s without node %d; "
                    "adding brokers to a cluster is not supported yet",
                    nodes, m->options.node);
}

static bool adopt(struct formation *f, const struct answer *a)
{
    struct identity_member self = self_of(f->m);
    for (int i = 0; i < a->n_claim; i++) {
        if (same_member(&a->claim[i], &self)) {
            decide(f, a->claim, a->n_claim, &a->cluster);
            return true;
        }
    }
    refuse_outsider(f, a);
    return true;
}

static void say(struct formation *f, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void say(struct formation *f, const char *format, ...)
{
    struct metadata *m = f->m;
    va_list args;
    va_start(args, format);
    vsnprintf(m->waiting_for, sizeof m->waiting_for, format, args);
    va_end(args);
    uint64_t now = env_now_ms(m->env);
    if (f->said_ms == 0) {
        f->said_ms = now; /* the first words after a moment's patience */
    } else if (now - f->said_ms >= SAY_MS) {
        f->said_ms = now;
        log_info("metadata", "waiting for %s", m->waiting_for);
    }
}

/* A broker of a cluster does not even listen to us: our node id is another
 * directory's, or what we speak is not its version. Nothing of that passes by
 * itself; a moment's patience is for one that is just being replaced. */
static bool judge_refusals(struct formation *f)
{
    uint64_t now = env_now_ms(f->m->env);
    for (int i = 0; i < f->n_seeds; i++) {
        const struct transport *t = f->m->options.transport;
        const struct seed *seed = &f->seeds[i];
        if (!seed->self && transport_seed_refuses(t, seed->address)) {
            if (f->refused_ms == 0) {
                f->refused_ms = now;
            } else if (now - f->refused_ms >= REFUSED_MS) {
                metadata_refuse(f->m, "a seed refuses this broker, %s",
                                transport_seed_refusal(t, seed->address));
            }
            return f->m->refused;
        }
    }
    f->refused_ms = 0;
    return false;
}

static void say_missing(struct formation *f)
{
    char missing[400] = "";
    size_t used = 0;
    for (int i = 0; i < f->n_seeds; i++) {
        const struct seed *seed = &f->seeds[i];
        if (!seed->self && !seed->answer.known && used < sizeof missing) {
            const char *why =
                transport_seed_refusal(f->m->options.transport, seed->address);
            size_t n = strlen(seed->address);
            if (strncmp(why, seed->address, n) == 0 &&
                strncmp(why + n, ": ", 2) == 0) {
                why += n + 2; /* it stands before it already */
            }
            used += (size_t)snprintf(missing + used, sizeof missing - used,
                                     "%s%s%s%.80s%s", used == 0 ? "" : ", ",
                                     seed->address, *why == '\0' ? "" : " (",
                                     why, *why == '\0' ? "" : ")");
        }
    }
    say(f, "seeds %s", missing);
}

/* All have answered, none has formed. */
static void judge_claims(struct formation *f,
                         const struct identity_member *claim, int n)
{
    bool self = false;
    for (int i = 0; i < n; i++) {
        self = self || claim[i].node == f->m->options.node;
        if (i > 0 && claim[i].node == claim[i - 1].node) {
            say(f,
                "two brokers with node id %d, at %s and %s: give them "
                "different ids",
                claim[i].node, claim[i - 1].address, claim[i].address);
            return;
        }
    }
    if (!self) {
        metadata_refuse(f->m,
                        "none of the seeds is this broker (node %d at %s): "
                        "name all brokers of the new cluster, this one too",
                        f->m->options.node, f->m->options.peer_address);
        return;
    }
    for (int i = 0; i < f->n_seeds; i++) {
        const struct answer *a = &f->seeds[i].answer;
        bool same = f->seeds[i].self || (a->complete && a->n_claim == n);
        for (int k = 0; k < n && same && !f->seeds[i].self; k++) {
            same = same_member(&a->claim[k], &claim[k]);
        }
        if (!same) {
            say(f,
                a->complete ? "node %d at %s to name the same seeds"
                            : "node %d at %s to find all its seeds",
                a->who.node, f->seeds[i].address);
            return;
        }
    }
    struct uuid cluster = identity_cluster_of(claim, n);
    decide(f, claim, n, &cluster);
}

static void judge(struct formation *f)
{
    struct identity_member claim[LIMIT_SEEDS];
    int n;
    if (f->saving || f->m->refused) {
        return;
    }
    for (int i = 0; i < f->n_seeds; i++) {
        if (f->seeds[i].answer.known && f->seeds[i].answer.formed &&
            adopt(f, &f->seeds[i].answer)) {
            return;
        }
    }
    if (claim_of(f, claim, &n)) {
        judge_claims(f, claim, n);
    } else if (!judge_refusals(f)) {
        say_missing(f);
    }
}

/* ---- beginning and end --------------------------------------------------- */
static bool add_seed(void *arg, const char *address)
{
    struct formation *f = arg;
    for (int i = 0; i < f->n_seeds; i++) {
        if (strcmp(f->seeds[i].address, address) == 0) {
            return true;
        }
    }
    if (f->n_seeds == LIMIT_SEEDS) {
        return false;
    }
    struct seed *seed = &f->seeds[f->n_seeds++];
    seed->f = f;
    snprintf(seed->address, sizeof seed->address, "%s", address);
    seed->self = strcmp(address, f->m->options.peer_address) == 0;
    seed->rpc.cb = seed_answered;
    seed->rpc.arg = seed;
    return true;
}

enum err formation_new(struct metadata *m, char *why, size_t why_size)
{
    struct formation *f = mem_zalloc(sizeof *f);
    f->m = m;
    m->formation = f;
    env_timer_init(m->env, &f->timer, ask, f);
    if (!seeds_each(m->options.seeds, add_seed, f)) {
        snprintf(why, why_size,
                 "seeds: at most %d addresses of at most %d characters",
                 LIMIT_SEEDS, LIMIT_ADDRESS - 1);
        return ERR_INVALID;
    }
    snprintf(m->waiting_for, sizeof m->waiting_for, "its seeds");
    env_timer_start(&f->timer, 0);
    return ERR_OK;
}

void formation_stop(struct metadata *m)
{
    struct formation *f = m->formation;
    if (f == NULL) {
        return;
    }
    env_timer_stop(&f->timer);
    for (int i = 0; i < f->n_seeds; i++) {
        if (f->seeds[i].asking) {
            transport_cancel(m->options.transport, &f->seeds[i].rpc);
            f->seeds[i].asking = false;
        }
    }
}

void formation_free(struct metadata *m)
{
    formation_stop(m);
    mem_free(m->formation);
    m->formation = NULL;
    m->waiting_for[0] = '\0';
}
