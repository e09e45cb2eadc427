/* A model of what a write-ahead log must hold, beside a real one on a
 * simulated disk: every record appended is also applied to the model, and
 * after a crash what recovery found must be the model's state at one position
 * between the last one reported durable and the last one appended. */
#ifndef TESTS_UNIT_WAL_MODEL_H
#define TESTS_UNIT_WAL_MODEL_H

#include "raft/wal.h"
#include "tests/sim/sim_env.h"

#define MODEL_GROUPS 6
#define MODEL_ENTRIES 40000
#define MODEL_OPS 100000
#define MODEL_PLACES 8

struct model_group {
    bool exists, deleted;
    replica_id self;
    uint64_t term, vote, last;
    uint32_t terms[MODEL_ENTRIES];
};
struct model_state {
    struct model_group groups[MODEL_GROUPS];
};

enum model_op_kind { OP_ENTRY, OP_TRUNCATE, OP_TERM, OP_CREATE, OP_DELETE };
struct model_op {
    uint64_t position;
    enum model_op_kind kind;
    int group;
    uint64_t a, b;
};

struct model {
    struct sim *sim;
    struct sim_node *node;
    struct prng prng;
    struct wal *wal;
    struct wal_options options;
    struct model_state now, base;
    uint64_t durable, appended;
    struct model_op ops[MODEL_OPS]; /* appended and not durable */
    uint32_t n_ops;
    /* the checkpoint */
    uint64_t seq, log_id, checkpoint_position;
    uint64_t settled[MODEL_GROUPS];
    replica_id settled_self[MODEL_GROUPS];
    replica_id next_self;
    bool stuck[MODEL_GROUPS]; /* is not settled */
    bool wait_room;
    bool calm; /* holds no places, always lets go */
    bool closed;
    size_t idle_bytes; /* of the node without a log */
    struct wal_place places[MODEL_PLACES];
    int place_group[MODEL_PLACES];
    uint64_t place_index[MODEL_PLACES], place_term[MODEL_PLACES];
    replica_id place_self[MODEL_PLACES];
    uint64_t rooms, refusals, begins, evictions, files_begun, relogged, moved;
};

void model_begin(struct model *m, uint64_t seed);
void model_end(struct model *m);
struct group_id model_group_id(int group);
/* Opens the log in the running node; what it recovers must fit the model. */
enum err model_open(struct model *m);
/* The same after damage to what is durable: what is recovered must be the
 * model's state, or less of it, and then known to be less. The model is of no
 * use afterwards. */
enum model_verdict { MODEL_WHOLE, MODEL_LACKS, MODEL_REFUSED, MODEL_WRONG };
enum model_verdict model_open_damaged(struct model *m);
/* Crashes and starts the node; the log must be opened again. */
void model_crash(struct model *m, enum sim_crash how);
/* Closes cleanly, and starts anew. */
void model_restart(struct model *m);
void model_run_us(struct model *m, uint64_t us);
/* Some random work. */
void model_work(struct model *m);

/* Single steps, inside the node or not. */
void model_create(struct model *m, int group);
void model_entry(struct model *m, int group, uint32_t size);
void model_truncate(struct model *m, int group, uint64_t first);
void model_term(struct model *m, int group, uint64_t term, uint64_t vote);
void model_delete(struct model *m, int group);
/* Settles all that is durable of the group. */
void model_settle(struct model *m, int group);
/* Size 0: what the random work would take. */
uint32_t model_size(int group, replica_id self, uint64_t index, uint64_t term);

#endif
