/* Damage on one of three brokers that is down: it starts, repairs itself from
 * its peers, and has what they have; and it does not vote before. */
#include "tests/unit/cluster_world.h"

#include "raft/group_impl.h"
#include "raft/guard.h"
#include "raft/wal_format.h"
#include "tests/unit/in_child.h"

struct files {
    char paths[200][200];
    uint64_t sizes[200];
    int n;
};
static struct files files;

static void note_file(void *arg, const char *path, uint64_t size)
{
    const char *part = arg;
    bool segment = strcmp(part, ".log") == 0;
    if (strstr(path, part) != NULL && size > 0 &&
        (!segment || strstr(path, "topics/") != NULL)) {
        ck_assert_int_lt(files.n, 200);
        snprintf(files.paths[files.n], 200, "%s", path);
        files.sizes[files.n++] = size;
    }
}

/* Two bytes in every file whose path contains `part`. */
static int flip_two(struct node *n, const char *part, struct prng *prng)
{
    files.n = 0;
    sim_disk_list(n->sim_node, note_file, (void *)(uintptr_t)part);
    for (int i = 0; i < files.n; i++) {
        /* of side files the slots: what is in front is mostly unused */
        bool side = strstr(files.paths[i], ".side") != NULL;
        uint64_t from =
            side && files.sizes[i] > SIDE_SLOTS_AT && prng_chance(prng, 7, 8)
                ? SIDE_SLOTS_AT
                : 0;
        for (int k = 0; k < 2; k++) {
            uint64_t at = from + prng_below(prng, files.sizes[i] - from);
            ck_assert(sim_disk_flip(n->sim_node, files.paths[i], at,
                                    (unsigned)prng_below(prng, 8)));
        }
    }
    return files.n;
}

static bool proven(void *arg)
{
    struct node *n = arg;
    return n->p != NULL && !partition_group(n->p)->proof.missing;
}

/* Begins with so many records, settled; then one of the nodes is down, with
 * damage in these files. */
static struct node *begin_with_damage(const char *part, int records,
                                      size_t record_bytes)
{
    struct prng *prng = sim_prng(sim);
    producer_begin(record_bytes);
    world_start();
    ck_assert(produce_until(records, 60));
    sim_run_for(sim, 3 * SIM_S);
    struct node *victim = &nodes[prng_below(prng, N)];
    crash(victim, SIM_DROP_ALL);
    ck_assert_int_gt(flip_two(victim, part, prng), 0);
    return victim;
}

static void run_damage(uint64_t seed, const char *part, bool unproven)
{
    world_begin(seed);
    struct node *victim = begin_with_damage(part, 600, 1000);
    sim_node_restart(victim->sim_node);
    sim_run_for(sim, 3 * SIM_MS);
    ck_assert(victim->p != NULL);
    if (unproven) {
        ck_assert(!proven(victim));
    }
    ck_assert(produce_until(producer.n + 100, 60));
    check_replicas();
    ck_assert(sim_run_while_not(sim, proven, victim, 30 * SIM_S));
    /* It counts again: with it and one other the log goes on. */
    for (int i = 0; i < N; i++) {
        if (&nodes[i] != victim) {
            crash(&nodes[i], SIM_DROP_ALL);
            break;
        }
    }
    ck_assert(produce_until(producer.n + 100, 60));
    for (int i = 0; i < N; i++) {
        if (!sim_node_up(nodes[i].sim_node)) {
            sim_node_restart(nodes[i].sim_node);
        }
    }
    check_replicas();
    producer_end();
    sim_free(sim);
}

START_TEST(test_repair__checkpoints)
{
    run_damage((uint64_t)_i + 1, "checkpoint-", true);
}
END_TEST

START_TEST(test_repair__producers)
{
    run_damage((uint64_t)_i + 1, ".producers", false);
}
END_TEST

START_TEST(test_repair__segment_lists)
{
    run_damage((uint64_t)_i + 1, "/segments", false);
}
END_TEST

START_TEST(test_repair__side_files)
{
    run_damage((uint64_t)_i + 1, ".side", false);
}
END_TEST

START_TEST(test_repair__segments)
{
    run_damage((uint64_t)_i + 1, ".log", false);
}
END_TEST

/* Batches of more than a message holds. */
START_TEST(test_repair__large_batches)
{
    world_begin((uint64_t)_i + 1);
    config.max_message_bytes = LIMIT_ENTRY_BYTES;
    config.segment_bytes = 16 << 20;
    struct node *victim =
        begin_with_damage(".log", 24, ((size_t)1 << 20) + 77777);
    sim_node_restart(victim->sim_node);
    ck_assert(produce_until(producer.n + 3, 60));
    check_replicas();
    producer_end();
    sim_free(sim);
}
END_TEST

START_TEST(test_repair__log_files)
{
    run_damage((uint64_t)_i + 1, "raft/wal-", false);
}
END_TEST

START_TEST(test_repair__list_of_log_files)
{
    run_damage((uint64_t)_i + 1, "raft/wal.meta", false);
}
END_TEST

/* What was settled cannot be used: it begins anew, and ends again before it has
 * all. What its log holds of before does not follow what it has then. */
START_TEST(test_repair__ends_before_it_has_all)
{
    world_begin((uint64_t)_i + 1);
    struct node *victim = begin_with_damage(".producers", 600, 1000);
    for (int i = 0; i < N; i++) {
        if (_i % 3 == 0 && &nodes[i] != victim) {
            sim_net_cut_both(sim, victim->sim_node, nodes[i].sim_node);
        }
    }
    for (int k = 0; k < 3; k++) {
        sim_node_restart(victim->sim_node);
        sim_run_for(sim, 3 * SIM_MS);
        ck_assert(victim->p != NULL);
        ck_assert(k > 0 || !proven(victim));
        sim_run_for(sim, (uint64_t)_i * 30 * SIM_MS);
        ck_assert(_i % 3 != 0 || !proven(victim));
        crash(victim, _i % 2 == 0 ? SIM_KILL : SIM_DROP_ALL);
    }
    sim_net_heal_all(sim);
    sim_node_restart(victim->sim_node);
    ck_assert(produce_until(producer.n + 100, 60));
    check_replicas();
    ck_assert(sim_run_while_not(sim, proven, victim, 30 * SIM_S));
    producer_end();
    sim_free(sim);
}
END_TEST

static bool somebody_leads(void *arg)
{
    (void)arg;
    return leader() != NULL;
}

/* Acknowledged by two: the leader, which is down now, and one that lost all it
 * had. With the third, which never had it, it must not elect anybody. */
static bool elects_without_proof(bool guarded)
{
    world_begin(7);
    producer_begin(1000);
    world_start();
    ck_assert(produce_until(300, 60));
    sim_run_for(sim, 3 * SIM_S);
    struct node *first = leader();
    ck_assert(first != NULL);
    struct node *lost = &nodes[(first->id + 1) % N];
    struct node *late = &nodes[(first->id + 2) % N];
    crash(late, SIM_DROP_ALL);
    ck_assert(produce_until(producer.n + 100, 60));
    sim_run_for(sim, 3 * SIM_S);
    crash(lost, SIM_DROP_ALL);
    crash(first, SIM_DROP_ALL);
    files.n = 0;
    sim_disk_list(lost->sim_node, note_file, (void *)(uintptr_t) ".side");
    for (int i = 0; i < files.n; i++) { /* the heads */
        ck_assert(sim_disk_flip(lost->sim_node, files.paths[i], 9, 1));
    }
    sim_node_restart(lost->sim_node);
    sim_node_restart(late->sim_node);
    sim_run_for(sim, SIM_MS);
    ck_assert(!proven(lost));
    if (!guarded) {
        guard_set_mask(lost->host, GUARD_ALL & ~GUARD_BIT(GUARD_PROOF));
    }
    bool elected = sim_run_while_not(sim, somebody_leads, NULL, 20 * SIM_S);
    if (guarded) {
        sim_node_restart(first->sim_node);
        ck_assert(produce_until(producer.n + 20, 60));
        check_replicas();
        ck_assert(sim_run_while_not(sim, proven, lost, 30 * SIM_S));
    }
    producer_end();
    sim_free(sim);
    return elected;
}

START_TEST(test_repair__no_vote_without_proof)
{
    ck_assert(!elects_without_proof(true));
    ck_assert(elects_without_proof(false)); /* that is what the rule is for */
}
END_TEST

static const char *wal_path = "raft/wal-00000001.log";
static char wal_found[200];

static void note_wal(void *arg, const char *path, uint64_t size)
{
    (void)arg, (void)size;
    if (strstr(path, wal_path) != NULL) {
        snprintf(wal_found, sizeof wal_found, "%s", path);
    }
}

/* Where the log's first file has creations: the next one from *at on. False:
 * there is none any more. */
static bool find_creation(const uint8_t *file, uint64_t size, uint64_t *at)
{
    struct wal_flush_header header;
    uint64_t from = *at;
    for (uint64_t flush = 0;
         flush < size && wal_flush_read(file + flush, &header);
         flush += header.length) {
        uint64_t frame_at = flush + WAL_FLUSH_HEADER;
        for (uint32_t k = 0; k < header.n_frames; k++) {
            struct wal_frame frame;
            uint64_t bytes = wal_frame_peek(file + frame_at, &frame);
            if (frame.type == WAL_FRAME_CREATE && frame_at >= from) {
                *at = frame_at + WAL_FRAME_HEADER;
                return true;
            }
            frame_at += bytes;
        }
    }
    return false;
}

/* All that its log has of creations is damaged, once more. */
static void flip_creations(struct node *n, int times)
{
    void *data;
    uint64_t at = 0;
    int found = 0;
    sim_disk_list(n->sim_node, note_wal, NULL);
    int64_t size = sim_disk_durable(n->sim_node, wal_found, &data);
    ck_assert_int_gt(size, 0);
    while (find_creation(data, (uint64_t)size, &at)) {
        ck_assert(
            sim_disk_flip(n->sim_node, wal_found, at + 3 + (uint64_t)times, 1));
        found++;
    }
    mem_free(data);
    ck_assert_int_gt(found, 0);
}

/* The record of its creation is damaged, in no checkpoint: who opens it knows
 * its peers, and it has all else. It keeps its vote, and counts: the one peer
 * that is up never had the newest records. */
START_TEST(test_repair__creation)
{
    world_begin((uint64_t)_i + 71);
    settles_late = true;
    producer_begin(1000);
    world_start();
    ck_assert(produce_until(20, 60));
    sim_run_for(sim, SIM_S);
    struct node *first = leader();
    ck_assert_ptr_nonnull(first);
    struct node *lost = &nodes[(first->id + 1) % N];
    struct node *late = &nodes[(first->id + 2) % N];
    crash(late, SIM_DROP_ALL);
    ck_assert(produce_until(producer.n + 20, 60));
    sim_run_for(sim, SIM_S);
    uint64_t term = partition_group(lost->p)->term;
    uint64_t vote = partition_group(lost->p)->vote;
    int64_t end = partition_end(lost->p).v;
    crash(lost, SIM_DROP_ALL);
    crash(first, SIM_DROP_ALL);
    for (int k = 0; k <= _i % 2; k++) { /* also twice */
        flip_creations(lost, k);
        sim_node_restart(lost->sim_node);
        sim_run_for(sim, 3 * SIM_MS);
        ck_assert(proven(lost));
        ck_assert_uint_eq(partition_group(lost->p)->term, term);
        ck_assert_uint_eq(partition_group(lost->p)->vote, vote);
        ck_assert_int_eq(partition_end(lost->p).v, end);
        if (k < _i % 2) {
            crash(lost, SIM_KILL);
        }
    }
    sim_node_restart(late->sim_node);
    ck_assert(produce_until(producer.n + 20, 60));
    sim_node_restart(first->sim_node);
    ck_assert(produce_until(producer.n + 20, 60));
    check_replicas();
    producer_end();
    sim_free(sim);
}
END_TEST

/* ---- found by nobody's reads --------------------------------------------- */
static void ignore_batch(void *arg, const struct dump_batch *batch)
{
    (void)arg, (void)batch;
}

/* What `flotilla log verify` says of a node's settled files. */
static uint64_t damage_in(struct node *n)
{
    static const struct dump_ops ops = {.batch = ignore_batch};
    struct dump_summary summary;
    enum err e = partition_dump(sim_env(n->sim_node, 0), n->p->dir, &ops, NULL,
                                &summary);
    if (e == ERR_NOT_FOUND && n->p->settled.slots == 0) {
        return 0;
    }
    ck_assert_int_eq(e, ERR_OK);
    return summary.damaged;
}

static bool is_whole(void *arg)
{
    return damage_in(arg) == 0;
}

static void scrub_alone(bool scrubs)
{
    world_begin(21);
    scrub = scrubs ? 1 << 20 : 0;
    producer_begin(1000);
    world_start();
    ck_assert(produce_until(600, 60));
    sim_run_for(sim, 3 * SIM_S);
    struct node *victim = leader() == &nodes[0] ? &nodes[1] : &nodes[0];
    ck_assert_int_gt(flip_two(victim, ".log", sim_prng(sim)), 0);
    ck_assert(!is_whole(victim));
    ck_assert_int_eq(sim_run_while_not(sim, is_whole, victim, 60 * SIM_S),
                     scrubs);
    producer_end();
    sim_free(sim);
}

START_TEST(test_repair__scrub_alone_finds_what_nobody_reads)
{
    scrub_alone(true);
    scrub_alone(false);
}
END_TEST

/* Batches of a compacted segment, from peers that compacted to the same. */
START_TEST(test_repair__compacted_batches)
{
    world_begin((uint64_t)_i + 31);
    keyed = true;
    scrub = 1 << 20;
    config.cleanup_delete = false;
    config.cleanup_compact = true;
    config.min_cleanable_dirty_ratio = 0.1;
    config.delete_retention_ms = 4000;
    config.segment_bytes = 30000;
    producer_begin(1000);
    world_start();
    ck_assert(produce_until(600, 60));
    sim_run_for(sim, 120 * SIM_S); /* all have compacted */
    struct node *victim = leader() == &nodes[0] ? &nodes[1] : &nodes[0];
    ck_assert_uint_gt(victim->p->n_closed_segments, 0);
    ck_assert_uint_ne(victim->p->closed_segments[0].compaction, 0);
    ck_assert_int_gt(flip_two(victim, ".log", sim_prng(sim)), 0);
    ck_assert(!is_whole(victim));
    ck_assert(sim_run_while_not(sim, is_whole, victim, 60 * SIM_S));
    producer_end();
    sim_free(sim);
}
END_TEST

/* ---- compacted, and not to the same bytes -------------------------------- */
static void compacts(struct node *victim, bool it, bool peers)
{
    for (int i = 0; i < N; i++) {
        bool on = &nodes[i] == victim ? it : peers;
        nodes[i].p->config.compaction_off = !on;
    }
}

/* Who compacts first, and who then. */
static const struct {
    bool victim, peers, victim_then, peers_then;
} apart[] = {{true, false, true, false},
             {false, true, false, true},
             {true, true, false, true},
             {true, true, true, false},
             {true, false, false, true}};
static const char *const apart_parts[] = {".log", ".side", NULL};

/* One closed segment only, the first or the last: it must not be replaced alone
 * where records would come back by that. */
static void damage_one(struct node *n, bool first)
{
    char path[LIMIT_PATH];
    ck_assert_uint_gt(n->p->n_closed_segments, 0);
    const struct segment *s =
        &n->p->closed_segments[first ? 0 : n->p->n_closed_segments - 1];
    segment_file(path, n->p->dir, s, "log");
    for (uint64_t at = 100; at < s->bytes; at += 700) {
        ck_assert(sim_disk_flip(n->sim_node, path, at, 3));
    }
}

static bool is_well(void *arg)
{
    struct node *n = arg;
    return proven(n) && n->p->repair == NULL && n->p->refetch == NULL &&
           is_whole(n);
}

/* Replicas have compacted differently far; every file of one is damaged, while
 * it runs or while it is down. It gets whole again, tells the same table, and
 * still does when all have compacted on. */
START_TEST(test_repair__compacted_apart)
{
    int how = _i % 5, part = _i / 5 % 5;
    bool down = part == 2;
    world_begin((uint64_t)_i + 131);
    keyed = true;
    scrub = 4 << 20;
    config.cleanup_delete = false;
    config.cleanup_compact = true;
    config.min_cleanable_dirty_ratio = 0.01;
    config.delete_retention_ms = 4000;
    config.segment_bytes = part > 2 || _i % 2 == 0 ? 30000 : 200000;
    producer_begin(1000);
    world_start();
    ck_assert(produce_until(1, 20));
    struct node *victim = &nodes[prng_below(sim_prng(sim), N)];
    compacts(victim, apart[how].victim, apart[how].peers);
    ck_assert(produce_until(500, 60));
    sim_run_for(sim, 60 * SIM_S);
    compacts(victim, apart[how].victim_then, apart[how].peers_then);
    ck_assert(produce_until(800, 60));
    sim_run_for(sim, 60 * SIM_S);
    compacts(victim, false, false);
    sim_run_for(sim, 40 * SIM_S); /* what was begun is over */
    check_tables();
    if (down) {
        config.compaction_off = true;
        crash(victim, SIM_DROP_ALL);
        ck_assert_int_gt(flip_two(victim, "topics/", sim_prng(sim)), 0);
        sim_node_restart(victim->sim_node);
        sim_run_for(sim, 3 * SIM_MS);
    } else if (part > 2) {
        damage_one(victim, part == 3);
    } else {
        ck_assert_int_gt(flip_two(victim, apart_parts[part], sim_prng(sim)), 0);
        ck_assert(!is_whole(victim) || apart_parts[part][1] == 's');
    }
    ck_assert(sim_run_while_not(sim, is_well, victim, 120 * SIM_S));
    config.compaction_off = true;
    crash(victim, SIM_DROP_ALL); /* what is read comes from its files */
    sim_node_restart(victim->sim_node);
    sim_run_for(sim, SIM_S);
    check_tables();
    compacts(victim, true, true);
    ck_assert(produce_until(1000, 60));
    sim_run_for(sim, 60 * SIM_S);
    check_tables();
    producer_end();
    sim_free(sim);
}
END_TEST

/* Where the last flush of the log begins, and whether it is an attestation. */
static uint64_t last_flush(struct node *n, bool *attested)
{
    void *data;
    uint64_t at = 0, last = 0;
    struct wal_flush_header header;
    sim_disk_list(n->sim_node, note_wal, NULL);
    int64_t size = sim_disk_durable(n->sim_node, wal_found, &data);
    for (; at < (uint64_t)size && wal_flush_read((uint8_t *)data + at, &header);
         at += header.length) {
        struct wal_frame frame;
        wal_frame_peek((uint8_t *)data + at + WAL_FLUSH_HEADER, &frame);
        *attested = frame.type == WAL_FRAME_ATTEST;
        last = at;
    }
    mem_free(data);
    return last;
}

/* ---- every byte -----------------------------------------------------------
 */
/* One broker of three is down; every byte of one of its files is flipped, one
 * at a time, then every sector of 512 and of 4096 bytes reads as zeros. Each
 * time, in a process of its own, it is started: it must become whole again from
 * its peers, by its scrub alone, and serve nothing else than they have; or it
 * may refuse to start where it cannot prove a vote. SWEEP_EVERY=1 takes every
 * byte (`make flips`), SWEEP_ONLY one kind of file. */
enum sweep_verdict { SWEPT_WHOLE, SWEPT_REFUSED, SWEPT_ENDED, SWEPT_BAD };

static struct node *sweep_victim;
static bool sweep_ended;

static void sweep_fatal(void *arg, struct sim_node *n, const char *line)
{
    (void)arg, (void)line;
    ck_assert_ptr_eq(n, sweep_victim->sim_node);
    sweep_ended = true;
    sweep_victim->p = NULL;
}

static bool has_repaired(void *arg)
{
    struct node *n = arg;
    return n->refused || sweep_ended ||
           (proven(n) && partition_end(n->p).v == producer.value &&
            n->p->repair == NULL && is_whole(n));
}

static enum sweep_verdict sweep_judge(struct node *n)
{
    may_refuse = true;
    sweep_victim = n;
    sim_on_fatal(sim, sweep_fatal, NULL);
    sim_node_restart(n->sim_node);
    if (!sim_run_while_not(sim, has_repaired, n, 120 * SIM_S)) {
        sim_fail(sim, "it is not whole again");
    }
    if (n->refused || sweep_ended) {
        return n->refused ? SWEPT_REFUSED : SWEPT_ENDED;
    }
    ck_assert(produce_until(producer.n + 2, 60));
    check_replicas();
    return SWEPT_WHOLE;
}

struct sweep_damage {
    const char *path;
    uint64_t at;
    size_t zeros; /* or one bit */
};

static int sweep_damaged(void *arg)
{
    const struct sweep_damage *d = arg;
    struct sim_node *n = sweep_victim->sim_node;
    bool changed = d->zeros > 0
                       ? sim_disk_zero(n, d->path, d->at, d->zeros)
                       : sim_disk_flip(n, d->path, d->at, d->at * 5 % 8);
    return changed ? (int)sweep_judge(sweep_victim) : SWEPT_WHOLE;
}

static void sweep_one(const char *path, uint64_t at, size_t zeros,
                      uint64_t counts[4])
{
    struct sweep_damage d = {path, at, zeros};
    int verdict = in_child(sweep_damaged, &d);
    if (verdict < SWEPT_WHOLE || verdict > SWEPT_ENDED) {
        verdict = SWEPT_BAD;
        printf("BAD: %s: %zu zeros, or a flip, at byte %llu\n", path, zeros,
               (unsigned long long)at);
    }
    counts[verdict]++;
}

/* Long runs of zeros are padding, room not used yet or the inside of values: no
 * format has a field as long. What decodes the file looks at them through a
 * checksum, which sees a flipped bit wherever it is, or not at all; so within
 * them every 16th byte stands for the others. */
#define ZEROS_RUN 64
#define ZEROS_EDGE 16

static uint64_t zeros_before(const uint8_t *bytes, uint64_t at)
{
    uint64_t n = 0;
    while (n < at && n < ZEROS_RUN && bytes[at - 1 - n] == 0) {
        n++;
    }
    return n;
}

static uint64_t zeros_from(const uint8_t *bytes, uint64_t size, uint64_t at)
{
    uint64_t n = 0;
    while (at + n < size && n < ZEROS_RUN && bytes[at + n] == 0) {
        n++;
    }
    return n;
}

static bool stands_for_itself(const uint8_t *bytes, uint64_t size, uint64_t at)
{
    uint64_t before = zeros_before(bytes, at);
    uint64_t behind = zeros_from(bytes, size, at);
    return at % 16 == 0 || before < ZEROS_EDGE || behind < ZEROS_EDGE ||
           before + behind < ZEROS_RUN;
}

/* Bytes, each or some, always those of the beginning; zeros everywhere. */
static void sweep_file(const char *path, uint64_t size)
{
    static const size_t sectors[] = {512, 4096};
    const char *every = getenv("SWEEP_EVERY");
    uint64_t step = every != NULL ? strtoull(every, NULL, 10) : size / 12 + 1;
    uint64_t counts[4] = {0}, flips = 0;
    void *bytes;
    int64_t got = sim_disk_durable(sweep_victim->sim_node, path, &bytes);
    ck_assert_int_ge(got, (int64_t)size);
    for (uint64_t at = 0; at < size; at += step) {
        if (step > 1 || stands_for_itself(bytes, size, at)) {
            sweep_one(path, at, 0, counts);
            flips++;
        }
    }
    mem_free(bytes);
    for (int k = 0; k < 2; k++) {
        uint64_t n = (size + sectors[k] - 1) / sectors[k];
        uint64_t skip = every != NULL && step == 1 ? 1 : n / 4 + 1;
        for (uint64_t i = 0; i < n; i += skip) {
            sweep_one(path, i * sectors[k], sectors[k], counts);
        }
    }
    printf(
        "%s, %llu bytes, %llu of them flipped, and sectors zeroed: %llu times "
        "whole again, %llu refused to start, %llu ended itself\n",
        strrchr(path, '/') + 1, (unsigned long long)size,
        (unsigned long long)flips, (unsigned long long)counts[0],
        (unsigned long long)counts[1], (unsigned long long)counts[2]);
    ck_assert_uint_eq(counts[SWEPT_BAD], 0);
    if (strstr(path, "raft/wal-") == NULL) {
        ck_assert_uint_eq(counts[1] + counts[2], 0);
    }
}

static const struct {
    const char *part;
    bool logged; /* nothing is settled */
} swept[] = {{".log", false},           {".side", false},
             {".producers", false},     {"/segments", false},
             {"checkpoint-", false},    {"wal.meta", false},
             {"wal-00000001.log", true}};

START_TEST(test_repair__every_byte)
{
    const char *only = getenv("SWEEP_ONLY");
    if (only != NULL && strcmp(only, swept[_i].part) != 0) {
        return;
    }
    world_begin((uint64_t)_i + 61);
    settles_late = swept[_i].logged;
    scrub = 64 << 20;
    config.segment_bytes = 4000;
    producer_begin(100);
    world_start();
    ck_assert(produce_until(40, 60));
    sim_run_for(sim, 3 * SIM_S);
    sweep_victim = leader() == &nodes[0] ? &nodes[1] : &nodes[0];
    crash(sweep_victim, SIM_DROP_ALL);
    files.n = 0;
    sim_disk_list(sweep_victim->sim_node, note_file,
                  (void *)(uintptr_t)swept[_i].part);
    if (swept[_i].logged) {
        sim_disk_list(sweep_victim->sim_node, note_wal, NULL);
        snprintf(files.paths[0], 200, "%s", wal_found);
        bool attested;
        files.sizes[0] = last_flush(sweep_victim, &attested);
        files.n = 1;
        ck_assert(attested);
    }
    ck_assert_int_gt(files.n, 0);
    /* the newest, the oldest */
    sweep_file(files.paths[files.n - 1], files.sizes[files.n - 1]);
    if (files.n > 1) {
        sweep_file(files.paths[0], files.sizes[0]);
    }
    producer_end();
    sim_free(sim);
}
END_TEST

/* ---- damage in the write-ahead log of a majority ------------------------- */
/* Where the log's first file has the record with this value; the whole file is
 * the caller's. */
static uint64_t find_value(struct node *n, int64_t value, uint8_t **file,
                           size_t *size)
{
    uint8_t *v = calloc(1, producer.size);
    void *data;
    put_i64(v, value);
    sim_disk_list(n->sim_node, note_wal, NULL);
    int64_t got = sim_disk_durable(n->sim_node, wal_found, &data);
    ck_assert_int_gt(got, 0);
    *file = data;
    *size = (size_t)got;
    const uint8_t *at = memmem(*file, *size, v, producer.size);
    free(v);
    ck_assert_ptr_nonnull(at);
    return (uint64_t)(at - *file);
}

static bool other_ready(void *arg)
{
    (void)arg;
    for (int i = 0; i < N; i++) {
        if (sim_node_up(nodes[i].sim_node) && nodes[i].other != NULL &&
            partition_role(nodes[i].other).ready) {
            return true;
        }
    }
    return false;
}

/* Two of three have the same acknowledged record damaged, and the third never
 * had it: nobody leads, nothing is cut; the other partition on the same logs
 * serves; with one of the two made whole all is there. */
START_TEST(test_repair__majority_damaged_at_one_place)
{
    world_begin(41);
    settles_late = with_other = true;
    producer_begin(1000);
    world_start();
    ck_assert(produce_until(20, 60));
    sim_run_for(sim, SIM_S);
    struct node *first = leader();
    ck_assert_ptr_nonnull(first);
    struct node *lost[2] = {first, &nodes[(first->id + 1) % N]};
    struct node *late = &nodes[(first->id + 2) % N];
    crash(late, SIM_DROP_ALL);
    int64_t value = producer.value;
    ck_assert(produce_until(producer.n + 20, 60));
    sim_run_for(sim, SIM_S);
    uint8_t *before[2];
    size_t size[2];
    uint64_t at[2];
    for (int i = 0; i < 2; i++) {
        crash(lost[i], SIM_DROP_ALL);
        at[i] = find_value(lost[i], value, &before[i], &size[i]);
        mem_free(before[i]);
        ck_assert(sim_disk_flip(lost[i]->sim_node, wal_found, at[i] + 500, 1));
        ck_assert_uint_eq(
            find_value(lost[i], value - 1, &before[i], &size[i]) < at[i], 1);
    }
    for (int i = 0; i < N; i++) {
        sim_node_restart(nodes[i].sim_node);
    }
    ck_assert(sim_run_while_not(sim, other_ready, NULL, 20 * SIM_S));
    ck_assert(!sim_run_while_not(sim, somebody_leads, NULL, 30 * SIM_S));
    for (int i = 0; i < 2; i++) {
        void *after;
        ck_assert(!proven(lost[i]));
        sim_disk_list(lost[i]->sim_node, note_wal, NULL);
        ck_assert_int_ge(sim_disk_durable(lost[i]->sim_node, wal_found, &after),
                         (int64_t)size[i]);
        /* up to and beyond the damage all is as it was */
        ck_assert_int_eq(memcmp(after, before[i], at[i] + producer.size), 0);
        mem_free(after);
        mem_free(before[i]);
    }
    crash(lost[0], SIM_DROP_ALL);
    sim_disk_list(lost[0]->sim_node, note_wal, NULL);
    ck_assert(sim_disk_flip(lost[0]->sim_node, wal_found, at[0] + 500, 1));
    sim_node_restart(lost[0]->sim_node);
    ck_assert(produce_until(producer.n + 20, 60));
    check_replicas();
    ck_assert(sim_run_while_not(sim, proven, lost[1], 30 * SIM_S));
    producer_end();
    sim_free(sim);
}
END_TEST

/* Damage in a last flush that nothing attests yet is taken for a torn write and
 * cut; what it held is on the peers. */
START_TEST(test_repair__last_flush_not_attested)
{
    bool attested = true;
    uint64_t at = 0;
    struct node *victim = NULL;
    world_begin((uint64_t)_i + 51);
    settles_late = true;
    producer_begin(1000);
    world_start();
    for (int k = 0; k < 50 && attested; k++) {
        ck_assert(produce_until(producer.n + 5, 60));
        victim = &nodes[(leader()->id + 1) % N];
        sim_run_for(sim, prng_below(sim_prng(sim), 2000) * SIM_US);
        (void)last_flush(victim, &attested);
        if (attested) {
            continue;
        }
        crash(victim, SIM_DROP_ALL);
        /* one that was under way may be there, too */
        at = last_flush(victim, &attested);
        if (attested) {
            sim_node_restart(victim->sim_node);
        }
    }
    ck_assert(!attested);
    ck_assert(sim_disk_flip(victim->sim_node, wal_found, at + 300, 2));
    sim_node_restart(victim->sim_node);
    sim_run_for(sim, SIM_MS);
    ck_assert(proven(victim)); /* it saw a torn write */
    sim_run_for(sim, 5 * SIM_S);
    check_replicas();
    /* and counts again */
    crash(&nodes[(victim->id + 1) % N], SIM_DROP_ALL);
    ck_assert(produce_until(producer.n + 20, 60));
    sim_node_restart(nodes[(victim->id + 1) % N].sim_node);
    check_replicas();
    producer_end();
    sim_free(sim);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("repair");
    TCase *tc = tcase_create("repair");
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, test_repair__checkpoints, 0, 6);
    tcase_add_loop_test(tc, test_repair__producers, 0, 4);
    tcase_add_loop_test(tc, test_repair__segment_lists, 0, 4);
    tcase_add_loop_test(tc, test_repair__side_files, 0, 6);
    tcase_add_loop_test(tc, test_repair__segments, 0, 6);
    tcase_add_loop_test(tc, test_repair__large_batches, 0, 2);
    tcase_add_loop_test(tc, test_repair__log_files, 0, 4);
    tcase_add_loop_test(tc, test_repair__list_of_log_files, 0, 4);
    tcase_add_loop_test(tc, test_repair__ends_before_it_has_all, 0, 12);
    tcase_add_test(tc, test_repair__no_vote_without_proof);
    tcase_add_loop_test(tc, test_repair__creation, 0, 4);
    tcase_add_test(tc, test_repair__scrub_alone_finds_what_nobody_reads);
    tcase_add_loop_test(tc, test_repair__compacted_batches, 0, 3);
    tcase_add_test(tc, test_repair__majority_damaged_at_one_place);
    tcase_add_loop_test(tc, test_repair__last_flush_not_attested, 0, 4);
    suite_add_tcase(suite, tc);
    TCase *compacted = tcase_create("compacted");
    tcase_set_timeout(compacted, 300);
    tcase_add_loop_test(compacted, test_repair__compacted_apart, 0, 25);
    suite_add_tcase(suite, compacted);
    TCase *bytes = tcase_create("every_byte");
    tcase_set_timeout(bytes, 36000);
    tcase_add_loop_test(bytes, test_repair__every_byte, 0,
                        sizeof swept / sizeof swept[0]);
    suite_add_tcase(suite, bytes);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
