/* sim_main SEED [COUNT] [CUT...]: runs seeds of whole brokers
 * (tests/sim/whole), cut down in what they do: chaos=SECONDS clients=NUMBER
 * groups=0 admins=0 keys=0 without=FAULT,... sim_main raft SEED [COUNT
 * [WITHOUT]]: of Raft groups alone, which is faster; WITHOUT one of the guards
 * of raft/guard.h when it is named by its number. sim_main lab SEED [COUNT
 * [WITHOUT]]: one group over the laboratory, record by record: three replicas,
 * or five where the seed is odd.
 *
 * One seed prints its event hash in the end; many print a line of totals. Ends
 * non-zero on the first violation, with the trace that led to it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raft/guard.h"
#include "tests/sim/raft_cluster.h"
#include "tests/sim/raft_random_impl.h"
#include "tests/sim/whole/whole.h"

/* ---- Raft groups --------------------------------------------------------- */
/* What a seed decides about the shape of the cluster. */
static struct cluster_options options_of(uint64_t seed)
{
    static const int nodes[] = {3, 3, 3, 3, 3, 5, 1};
    struct cluster_options o = {
        .seed = seed,
        .n_nodes = nodes[seed % 7],
        .n_groups = (int)(1 + seed % 5 + (seed % 11 == 0 ? 20 : 0)),
        .chaos_ns = 30 * SIM_S,
        .guards = GUARD_ALL,
        .payload_max = seed % 3 == 0 ? 40000 : 4000,
    };

    return o;
}

static void print_result(uint64_t seed, const struct cluster_result *r)
{
    printf(
        "seed %llu: %llu events, %llu acknowledged, %llu applied, "
        "%llu elections, %llu restarts, %llu reads, %llu transfers\n",
        (unsigned long long)seed, (unsigned long long)r->events,
        (unsigned long long)r->acknowledged, (unsigned long long)r->applied,
        (unsigned long long)r->elections, (unsigned long long)r->restarts,
        (unsigned long long)r->reads, (unsigned long long)r->transfers);
}

static int run_raft(int argc, char **argv)
{
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    uint64_t count = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    uint64_t acknowledged = 0, restarts = 0;
    struct cluster_result r = {0};

    for (uint64_t i = 0; i < count; i++) {
        struct cluster_options o = options_of(seed + i);

        if (argc > 4)
            o.guards &= ~GUARD_BIT(strtoul(argv[4], NULL, 10));
        if (getenv("SIM_VERBOSE") != NULL)
            o.verbose = true;
        r = cluster_run(&o);
        acknowledged += r.acknowledged;
        restarts += r.restarts;
        if (count == 1)
            print_result(seed, &r);
    }
    if (count == 1)
        printf("hash %016llx\n", (unsigned long long)r.hash);
    else
        printf("%llu seeds, %llu acknowledged, %llu restarts, no violation\n",
               (unsigned long long)count, (unsigned long long)acknowledged,
               (unsigned long long)restarts);
    return 0;
}

/* ---- random schedules ---------------------------------------------------- */
#define LAB_STEPS 6000

static int run_lab(int argc, char **argv)
{
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    uint64_t count = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    uint64_t committed = 0;
    uint32_t guards = GUARD_ALL;

    if (argc > 4)
        guards &= ~GUARD_BIT(strtoul(argv[4], NULL, 10));
    for (uint64_t s = seed; s < seed + count; s++) {
        struct raft_random_result r =
            raft_random_play(s, s % 2 == 1 ? 5 : 3, LAB_STEPS, guards);

        if (r.violation != NULL) {
            printf("seed %llu: %s\n", (unsigned long long)s, r.violation);
            return 1;
        }
        committed += r.committed;
    }
    printf("%llu seeds, %llu committed, no violation\n",
           (unsigned long long)count, (unsigned long long)committed);
    return 0;
}

/* ---- whole brokers ------------------------------------------------------- */
static void add(struct whole_result *sum, const struct whole_result *r)
{
    sum->events += r->events;
    sum->sim_ns += r->sim_ns;
    sum->acknowledged += r->acknowledged;
    sum->read += r->read;
    sum->faults += r->faults;
    sum->restarts += r->restarts;
    sum->requests += r->requests;
    sum->commits += r->commits;
    sum->rebalances += r->rebalances;
    sum->admin_changes += r->admin_changes;
    sum->elections += r->elections;
    sum->rot += r->rot;
    sum->everywhere += r->everywhere;
    sum->checked += r->checked;
    sum->compacted += r->compacted;
    sum->passes += r->passes;
    if (r->broker_bytes_max > sum->broker_bytes_max)
        sum->broker_bytes_max = r->broker_bytes_max;
}

static void print_whole(const struct whole_result *r)
{
    printf(
        "%llu events, %.3f simulated hours, %llu acknowledged, %llu read, "
        "%llu faults, %llu restarts, %llu elections, %llu requests, "
        "%llu commits, %llu rebalances, %llu admin changes, %llu rotten bytes, "
        "%llu everywhere, "
        "%llu judged, %llu compacted, %llu passes, "
        "%llu KiB at most in a broker\n",
        (unsigned long long)r->events, (double)r->sim_ns / 3.6e12,
        (unsigned long long)r->acknowledged, (unsigned long long)r->read,
        (unsigned long long)r->faults, (unsigned long long)r->restarts,
        (unsigned long long)r->elections, (unsigned long long)r->requests,
        (unsigned long long)r->commits, (unsigned long long)r->rebalances,
        (unsigned long long)r->admin_changes, (unsigned long long)r->rot,
        (unsigned long long)r->everywhere, (unsigned long long)r->checked,
        (unsigned long long)r->compacted, (unsigned long long)r->passes,
        (unsigned long long)r->broker_bytes_max / 1024);
}

/* Kinds of faults, with commas between. */
static uint32_t faults_named(const char *names)
{
    uint32_t mask = 0;

    while (*names != '\0') {
        size_t size = strcspn(names, ",");
        int kind = whole_fault_find(names, size);

        if (kind < 0) {
            fprintf(stderr, "no such kind of fault: %s\n", names);
            exit(2);
        }
        mask |= UINT32_C(1) << kind;
        names += size;
        names += *names == ',';
    }
    return mask;
}

/* What cuts a seed down: chaos=SECONDS clients=NUMBER without=FAULT,... */
static void cut_down(struct whole_options *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "chaos=", 6) == 0)
            o->chaos_s_max = strtoull(argv[i] + 6, NULL, 10);
        else if (strncmp(argv[i], "clients=", 8) == 0)
            o->clients_max = (int)strtol(argv[i] + 8, NULL, 10);
        else if (strcmp(argv[i], "groups=0") == 0)
            o->no_groups = true;
        else if (strcmp(argv[i], "admins=0") == 0)
            o->no_admins = true;
        else if (strcmp(argv[i], "keys=0") == 0)
            o->no_keys = true;
        else if (strncmp(argv[i], "without=", 8) == 0)
            o->faults_off = faults_named(argv[i] + 8);
    }
}

static int run_whole(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    struct whole_result sum = {0}, r = {0};

    if (count == 0) /* no number: an option */
        count = 1;

    for (uint64_t i = 0; i < count; i++) {
        struct whole_options o = {
            .seed = seed + i,
            .verbose = getenv("SIM_VERBOSE") != NULL,
            .print_plan = count == 1,
        };

        cut_down(&o, argc, argv);
        r = whole_run(&o);
        add(&sum, &r);
    }
    if (count > 1)
        printf("%llu seeds, no violation: ", (unsigned long long)count);
    print_whole(&sum);
    if (count == 1)
        printf("hash %016llx\n", (unsigned long long)r.hash);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "raft") == 0)
        return run_raft(argc, argv);
    if (argc > 1 && strcmp(argv[1], "lab") == 0)
        return run_lab(argc, argv);
    return run_whole(argc, argv);
}
