/* jepsen-worker: clients that write down what they did.
 *
 *   jepsen-worker --bootstrap LIST --dir DIR --start NS --seed N
 *     [--wire THREADS] [--rdkafka 1: assigns, 2: subscribes]
 *     [--steady PARTITIONS --rate N] [--steady-keys PARTITIONS: only read]
 *     [--probe PARTITIONS: a thread for each of `steady`, nothing else]
 *     [--retire SECONDS] [--crash SECONDS] [--process BASE]
 *   jepsen-worker ... --ends FILE    reads all keys to their ends, once by
 *                                    each client; lines "KEY END"
 *   jepsen-worker ... --ask FILE     prints such lines for the keys in FILE
 *
 * SIGTERM stops it after the operations under way. Ends with 0, or with 1 when
 * the last reading did not reach the ends. */
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "jepsen/history.h"
#include "jepsen/load.h"

#define THREADS_MAX 64

enum kind {
    KIND_WIRE,
    KIND_ASSIGN,
    KIND_SUBSCRIBE,
    KIND_STEADY_PRODUCE,
    KIND_STEADY_ASSIGN,
    KIND_STEADY_SUBSCRIBE,
    KIND_WIRE_FINAL,
    KIND_RDKAFKA_FINAL,
    KIND_ASK,
    KIND_PROBE,
};

struct thread {
    pthread_t id;
    struct worker worker;
    enum kind kind;
    bool ok;
};

static struct load load;

static void on_signal(int number)
{
    (void)number;
    atomic_store(&load.stop, true);
}

static void *thread_run(void *arg)
{
    struct thread *t = arg;
    struct worker *w = &t->worker;

    switch (t->kind) {
        case KIND_WIRE:
            t->ok = wire_run(w);
            break;
        case KIND_ASSIGN:
            t->ok = rdkafka_run(w, false);
            break;
        case KIND_SUBSCRIBE:
            t->ok = rdkafka_run(w, true);
            break;
        case KIND_STEADY_PRODUCE:
            t->ok = rdkafka_steady_produce(w);
            break;
        case KIND_STEADY_ASSIGN:
            t->ok = rdkafka_steady_consume(w, false);
            break;
        case KIND_STEADY_SUBSCRIBE:
            t->ok = rdkafka_steady_consume(w, true);
            break;
        case KIND_WIRE_FINAL:
            t->ok = wire_final(w);
            break;
        case KIND_RDKAFKA_FINAL:
            t->ok = rdkafka_final(w);
            break;
        case KIND_ASK:
            t->ok = wire_ask(w);
            break;
        case KIND_PROBE:
            t->ok = wire_probe(w);
            break;
    }
    return NULL;
}

static struct thread threads[THREADS_MAX];
static int n_threads, n_processes;

static void thread_add(enum kind kind, int processes)
{
    if (n_threads == THREADS_MAX) {
        fprintf(stderr, "too many threads\n");
        exit(2);
    }
    worker_init(&threads[n_threads].worker, &load, n_processes);
    threads[n_threads++].kind = kind;
    n_processes += processes;
}

static void options(int argc, char **argv, int *wire, int *rdkafka, int *probe)
{
    static const struct option known[] = {
        {"bootstrap", 1, NULL, 'b'}, {"dir", 1, NULL, 'd'},
        {"start", 1, NULL, 't'},     {"seed", 1, NULL, 's'},
        {"wire", 1, NULL, 'w'},      {"rdkafka", 1, NULL, 'r'},
        {"steady", 1, NULL, 'y'},    {"rate", 1, NULL, 'a'},
        {"retire", 1, NULL, 'e'},    {"crash", 1, NULL, 'c'},
        {"process", 1, NULL, 'p'},   {"ends", 1, NULL, 'n'},
        {"ask", 1, NULL, 'k'},       {"steady-keys", 1, NULL, 'Y'},
        {"probe", 1, NULL, 'P'},     {NULL, 0, NULL, 0},
    };
    int o;

    while ((o = getopt_long(argc, argv, "", known, NULL)) != -1) {
        int64_t n = optarg == NULL ? 0 : strtoll(optarg, NULL, 10);

        if (o == 'b')
            load.bootstrap = optarg;
        else if (o == 'd')
            load.dir = optarg;
        else if (o == 't')
            load.start_ns = n;
        else if (o == 's')
            load.seed = (uint64_t)n;
        else if (o == 'w')
            *wire = (int)n;
        else if (o == 'r')
            *rdkafka = (int)n;
        else if (o == 'P')
            *probe = (int)n;
        else if (o == 'y')
            load.steady = (int)n;
        else if (o == 'Y')
            load.steady = (int)n, load.steady_only_read = true;
        else if (o == 'a')
            load.steady_rate = (int)n;
        else if (o == 'e')
            load.retire_ns = n * 1000000000;
        else if (o == 'c')
            load.crash_ns = n * 1000000000;
        else if (o == 'p')
            load.process_base = n;
        else if (o == 'n')
            load.ends = optarg;
        else if (o == 'k')
            load.ends = optarg, load.ask = true;
        else
            exit(2);
    }
    if (load.bootstrap == NULL || load.dir == NULL || load.retire_ns <= 0 ||
        load.steady > OP_KEYS_MAX) {
        fprintf(stderr, "usage: see the head of jepsen/worker_main.c\n");
        exit(2);
    }
}

int main(int argc, char **argv)
{
    int wire = 0, rdkafka = 0, probe = 0, status = 0;

    load = (struct load){.retire_ns = 6000000000, .crash_ns = 20000000000};
    load.start_ns = now_ns();
    options(argc, argv, &wire, &rdkafka, &probe);
    load.threads = wire;
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < probe; i++)
        thread_add(KIND_PROBE, 1);
    for (int i = 0; load.ends == NULL && i < wire; i++)
        thread_add(KIND_WIRE, 1);
    if (load.ends == NULL && rdkafka > 0)
        thread_add(rdkafka == 1 ? KIND_ASSIGN : KIND_SUBSCRIBE, 1);
    if (load.ask) {
        thread_add(KIND_ASK, 1);
    } else if (load.ends != NULL) {
        thread_add(KIND_WIRE_FINAL, 1);
        thread_add(KIND_RDKAFKA_FINAL, 1);
    } else if (load.steady > 0 && !load.steady_only_read) {
        thread_add(KIND_STEADY_PRODUCE, load.steady);
        thread_add(KIND_STEADY_ASSIGN, 1);
        thread_add(KIND_STEADY_SUBSCRIBE, 1);
        thread_add(KIND_STEADY_SUBSCRIBE, 1);
    }
    for (int i = 0; i < n_threads; i++)
        pthread_create(&threads[i].id, NULL, thread_run, &threads[i]);
    for (int i = 0; i < n_threads; i++) {
        pthread_join(threads[i].id, NULL);
        if (!threads[i].ok)
            status = 1;
    }
    return status;
}
