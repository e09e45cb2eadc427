/* This broker as seen by the metadata leader: it registers once after every
 * start (and when it was unregistered), then heartbeats: regularly, and at once
 * when it has applied something that others may wait for or has leaderships to
 * report. */
#include "base/assert.h"
#include "base/log.h"
#include "metadata/metadata_impl.h"

#define REGISTER_TIMEOUT_MS 5000
#define BEAT_TIMEOUT_MS 1000
#define BEAT_FORMAT 1
/* How long a start waits to hear whether its seeds are of its cluster. */
#define SEEDS_MS 500

static void registered(struct call *call);

static void register_begin(struct metadata *m)
{
    if (m->registered.v != 0 || m->registering != NULL || m->refused) {
        return;
    }
    struct change change = {.kind = CHANGE_REGISTER};
    union { /* encoding does not change them */
        const char *in;
        char *out;
    } host = {.in = m->options.advertised_host},
      peer = {.in = m->options.peer_address}, rack = {.in = m->options.rack},
      listeners = {.in = m->options.listeners};
    change.u.broker = (struct image_broker){.node = m->options.node,
                                            .directory = m->options.directory,
                                            .host = host.out,
                                            .port = m->options.advertised_port,
                                            .peer_address = peer.out,
                                            .rack = rack.out,
                                            .listeners = listeners.out};
    m->registering =
        call_new(m, &change, &m->registration, REGISTER_TIMEOUT_MS);
    m->registering->done = registered;
}

static void registered(struct call *call)
{
    struct metadata *m = call->m;
    m->registering = NULL;
    if (call->answer.error == KAFKA_REQUEST_TIMED_OUT) {
        log_info("metadata", "not registered yet: leader=%d", m->role.leader);
        register_begin(m);
    } else if (call->answer.error != KAFKA_NONE) {
        metadata_refuse(m, "%s",
                        call->answer.sentence[0] != '\0'
                            ? call->answer.sentence
                            : "the cluster refused to register this "
                              "broker");
    } else {
        m->registered = call->answer.index;
        heartbeat_applied(m);
        m->beat_wanted = true;
        metadata_turn_later(m);
    }
}

/* Another request than those before: what came of them is remembered. */
static void registration_begin_anew(struct metadata *m)
{
    uint64_t r[2] = {env_random(m->env), env_random(m->env)};
    memcpy(m->registration.b, r, sizeof m->registration.b);
    m->registered.v = 0;
    register_begin(m);
}

/* False: not known yet, or refused. With a directory of another cluster this
 * broker would serve what that has, while whoever started it takes it for one
 * of the cluster that the seeds name. A single address that went over to
 * another cluster is no reason to stay away. */
static bool seeds_are_ours(struct metadata *m)
{
    struct seeds_heard heard;
    formation_hear_seeds(m, &heard);
    if (heard.n_ours == 0 && heard.n_foreign * 2 > heard.n) {
        char cluster[UUID_TEXT_SIZE];
        uuid_format(&m->identity.cluster, cluster);
        metadata_refuse(m,
                        "the data directory %s belongs to cluster %s, but the "
                        "seed %s to another cluster: start with that "
                        "cluster's directory, or change `seeds`",
                        m->options.dir, cluster, heard.foreign);
        return false;
    }
    return heard.n_silent == 0 || env_now_ms(m->env) - m->begun_ms >= SEEDS_MS;
}

void heartbeat_applied(struct metadata *m)
{
    if (m->ready_told || m->registered.v == 0 ||
        m->applied.v < m->registered.v || m->refused || !seeds_are_ours(m)) {
        return;
    }
    m->ready_told = true;
    log_info("metadata", "registered node=%d leader=%d", m->options.node,
             m->role.leader);
    m->ops->ready(m->arg);
}

static void beat_answered(struct rpc_call *rpc, enum err status,
                          const uint8_t *body, size_t size)
{
    struct metadata *m = rpc->arg;
    struct reader r = codec_reader(body, size);
    m->beating = false;
    if (status == ERR_OK && codec_get_u8(&r) == BEAT_FORMAT) {
        uint8_t code = codec_get_u8(&r);
        struct text why = codec_get_text(&r);
        if (codec_done(&r) && code == HEARTBEAT_REFUSED) {
            metadata_refuse(m, "%.*s", (int)why.size, why.s);
        } else if (codec_done(&r) && code == HEARTBEAT_UNKNOWN &&
                   m->registered.v != 0) {
            log_warn("metadata",
                     "this broker was unregistered while it could not be "
                     "reached: it registers anew");
            registration_begin_anew(m);
        }
    } else {
        leadership_repeat(m->leadership);
    }
    if (m->beat_again && status == ERR_OK) {
        m->beat_again = false;
        m->beat_wanted = true;
        metadata_turn_later(m);
    }
}

void heartbeat_now(struct metadata *m)
{
    struct buffer b = {0};
    if (m->registered.v == 0 || m->role.leader < 0 || m->refused) {
        return;
    }
    if (m->beating) {
        m->beat_again = true;
        return;
    }
    codec_put_u8(&b, BEAT_FORMAT);
    codec_put_i32(&b, m->options.node);
    codec_put_uuid(&b, &m->options.directory);
    codec_put_u64(&b, m->applied.v);
    leadership_write(m->leadership, m->image, env_now_ms(m->env), &b);
    m->beating = true;
    m->beat_to = m->role.leader;
    m->beat_again = false;
    transport_call(m->options.transport, m->role.leader, RPC_BROKER_HEARTBEAT,
                   b.data, b.size, BEAT_TIMEOUT_MS, &m->beat);
    buffer_free(&b);
}

static void heartbeat_timer(struct env_timer *timer)
{
    struct metadata *m = timer->arg;
    env_timer_start(timer, m->options.heartbeat_ms);
    if (!m->ready_told && !m->refused && seeds_are_ours(m)) {
        heartbeat_applied(m);
    }
    register_begin(m);
    heartbeat_now(m);
}

void heartbeat_start(struct metadata *m)
{
    m->beat.cb = beat_answered;
    m->beat.arg = m;
    m->begun_ms = env_now_ms(m->env);
    env_timer_init(m->env, &m->heartbeat, heartbeat_timer, m);
    env_timer_start(&m->heartbeat, m->options.heartbeat_ms);
    registration_begin_anew(m);
}

void heartbeat_stop(struct metadata *m)
{
    env_timer_stop(&m->heartbeat);
    if (m->beating) {
        transport_cancel(m->options.transport, &m->beat);
        m->beating = false;
    }
}

void heartbeat_role_changed(struct metadata *m)
{
    if (m->beating && m->beat_to != m->role.leader) {
        transport_cancel(m->options.transport, &m->beat);
        m->beating = false;
    }
    leadership_repeat(m->leadership);
    m->beat_wanted = true;
    metadata_turn_later(m);
}

void metadata_report_leader(struct metadata *m, const struct group_id *group,
                            node_id leader, int32_t epoch)
{
    const struct leadership_report report = {*group, leader, epoch};
    if (leadership_add(m->leadership, m->image, &report)) {
        m->beat_wanted = true;
        metadata_turn_later(m);
    }
}
