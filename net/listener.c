#include "net/listener.h"

#include "base/mem.h"
#include "net/connection.h"
#include "net/shard.h"

struct listener {
    struct env *env;
    struct env_listener *listening;
    struct broker *broker;
    const char *name;
    unsigned next; /* shard of the next connection */
};

/* A stream on its way to another shard; the listener may be gone when it
 * arrives. */
struct move {
    struct broker_shard *to;
    const char *name;
};

static void adopt(struct broker_shard *to, struct env_stream *stream,
                  const char *name)
{
    if (to->connections == NULL) {
        env_stream_close(stream); /* that shard has stopped */
    } else {
        connections_adopt(to->connections, stream, name);
    }
}

/* On the shard that it was moved to. */
static void moved(void *arg, struct env_stream *stream)
{
    struct move *m = arg;
    adopt(m->to, stream, m->name);
    mem_free(m);
}

static void listener_accept(void *arg, struct env_stream *stream)
{
    struct listener *l = arg;
    struct broker_shard *to = broker_shard(l->broker, l->next);
    l->next = (l->next + 1) % broker_n_shards(l->broker);
    if (to->env == l->env) {
        adopt(to, stream, l->name);
        return;
    }
    struct move *m = mem_alloc(sizeof *m);
    *m = (struct move){to, l->name};
    env_stream_move(stream, to->env, moved, m);
}

enum err listener_open(struct broker_shard *first, const char *address,
                       const char *name, struct listener **out)
{
    struct listener *l = mem_zalloc(sizeof *l);
    l->env = first->env;
    l->broker = first->broker;
    l->name = name;
    enum err e = env_listen(l->env, address, listener_accept, l, &l->listening);
    if (e != ERR_OK) {
        mem_free(l);
        return e;
    }
    *out = l;
    return ERR_OK;
}

const char *listener_address(const struct listener *l)
{
    return env_listener_address(l->listening);
}

void listener_close(struct listener *l)
{
    env_listener_close(l->listening);
    mem_free(l);
}
