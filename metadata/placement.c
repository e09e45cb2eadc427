#include "metadata/placement.h"

#include "base/assert.h"

static int broker_at(const struct placement_broker *brokers, int n_brokers,
                     node_id node)
{
    for (int i = 0; i < n_brokers; i++) {
        if (brokers[i].node == node) {
            return i;
        }
    }
    return -1;
}

void placement_count(struct placement_broker *brokers, int n_brokers,
                     const struct image_partition *partition)
{
    for (int k = 0; k < partition->n_replicas; k++) {
        int at = broker_at(brokers, n_brokers, partition->replicas[k].node);
        if (at >= 0) {
            brokers[at].replicas++;
            brokers[at].leaders += k == 0;
        }
    }
}

static bool same_rack(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool holds(const struct image_partition *p, node_id node)
{
    for (int k = 0; k < p->n_replicas; k++) {
        if (p->replicas[k].node == node) {
            return true;
        }
    }
    return false;
}

/* Replicas of the partition in the rack of this broker. */
static int64_t rack_load(const struct placement_broker *brokers, int n_brokers,
                         const struct image_partition *p, int of)
{
    int64_t n = 0;
    for (int k = 0; k < p->n_replicas; k++) {
        int at = broker_at(brokers, n_brokers, p->replicas[k].node);
        n += same_rack(brokers[at].rack, brokers[of].rack);
    }
    return n;
}

#define N_KEYS 6

/* True when `a` comes before `b`: the smaller number in the first key that
 * differs. */
static bool before(const int64_t a[N_KEYS], const int64_t b[N_KEYS])
{
    for (int i = 0; i < N_KEYS; i++) {
        if (a[i] != b[i]) {
            return a[i] < b[i];
        }
    }
    return false;
}

static int choose_leader(const struct placement_broker *brokers, int n_brokers)
{
    int best = -1;
    int64_t best_keys[N_KEYS] = {0};
    for (int i = 0; i < n_brokers; i++) {
        const int64_t keys[N_KEYS] = {
            brokers[i].topic_leaders, brokers[i].leaders,
            brokers[i].topic_replicas, brokers[i].replicas};
        if (brokers[i].usable && (best < 0 || before(keys, best_keys))) {
            best = i;
            memcpy(best_keys, keys, sizeof keys);
        }
    }
    return best;
}

/* Distance of a broker from the leader around the ring of all others, begun
 * one further with each partition the leader leads: so its followers, and with
 * them who takes over when it dies, differ from one of its partitions to the
 * next. */
static int64_t ring_place(int n_brokers, int leader, int64_t turn, int of)
{
    int64_t others = n_brokers - 1;
    int64_t distance = (of - leader - 1 + n_brokers) % n_brokers;
    return (distance + others - turn % others) % others;
}

static int choose_follower(const struct placement_broker *brokers,
                           int n_brokers, const struct image_partition *p,
                           int leader)
{
    int best = -1;
    int64_t best_keys[N_KEYS] = {0};
    int64_t turn = brokers[leader].topic_leaders - 1;
    for (int i = 0; i < n_brokers; i++) {
        if (holds(p, brokers[i].node)) {
            continue;
        }
        const int64_t keys[N_KEYS] = {
            rack_load(brokers, n_brokers, p, i), brokers[i].usable ? 0 : 1,
            brokers[i].topic_replicas, brokers[i].replicas,
            ring_place(n_brokers, leader, turn, i)};
        if (best < 0 || before(keys, best_keys)) {
            best = i;
            memcpy(best_keys, keys, sizeof keys);
        }
    }
    return best;
}

static void give(struct placement_broker *broker, struct image_partition *p)
{
    bool leads = p->n_replicas == 0;
    p->replicas[p->n_replicas++].node = broker->node;
    broker->replicas++;
    broker->topic_replicas++;
    broker->leaders += leads;
    broker->topic_leaders += leads;
}

static void topic_begin(struct placement_broker *brokers, int n_brokers,
                        const struct image_partition *held, int32_t n_held)
{
    for (int i = 0; i < n_brokers; i++) {
        brokers[i].topic_leaders = 0;
        brokers[i].topic_replicas = 0;
    }
    for (int32_t i = 0; i < n_held; i++) {
        for (int k = 0; k < held[i].n_replicas; k++) {
            int at = broker_at(brokers, n_brokers, held[i].replicas[k].node);
            if (at >= 0) {
                brokers[at].topic_replicas++;
                brokers[at].topic_leaders += k == 0;
            }
        }
    }
}

enum err placement_make(struct placement_broker *brokers, int n_brokers,
                        const struct image_partition *held, int32_t n_held,
                        int n_replicas, int32_t n, struct image_partition *out)
{
    ASSERT(n_replicas > 0 && n_replicas <= GROUP_REPLICAS_MAX);
    topic_begin(brokers, n_brokers, held, n_held);
    if (n_replicas > n_brokers || choose_leader(brokers, n_brokers) < 0) {
        return ERR_REFUSED;
    }
    for (int32_t i = 0; i < n; i++) {
        struct image_partition *p = &out[i];
        memset(p, 0, sizeof *p);
        p->leader = -1;
        int leader = choose_leader(brokers, n_brokers);
        give(&brokers[leader], p);
        while (p->n_replicas < n_replicas) {
            int follower = choose_follower(brokers, n_brokers, p, leader);
            give(&brokers[follower], p);
        }
    }
    return ERR_OK;
}
