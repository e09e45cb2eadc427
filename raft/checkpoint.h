/* A shard's checkpoint: for each group what is settled, and a second copy of
 * its creation, term and vote. One file a shard, written whole and atomically;
 * the newest two are kept (checkpoint-<seq>).
 *
 * The log says which checkpoint its recycling relied on (wal_checkpointed). So
 * when the newest file is damaged the older one serves exactly as long as no
 * log file was given up because of the newest: wal_open refuses otherwise.
 *
 * File, little-endian:
 *    0  u32  magic "FLCP"     4  u16  version, 1     6  u16  zero
 *    8  u64  seq             16  u64  log id        24  u64  position
 *   32  u32  groups          36  u32  zero
 *   40  groups, each:
 *        16B topic, i32 partition, u32 bytes of creation (highest bit: the
 *        replica cannot prove its log, proof.h), u32 of configuration, u32 of
 * blob, u64 settled, u64 its term, u64 index of the configuration, u64 term,
 * u64 vote; creation (wal_format.h), configuration, blob at the end  u32
 * CRC-32C of everything before */
#ifndef RAFT_CHECKPOINT_H
#define RAFT_CHECKPOINT_H

#include "raft/group.h"

struct checkpoint_group {
    struct group_creation creation;
    log_index settled;
    raft_term_t settled_term;
    log_index config_index; /* newest configuration at or below settled; 0: the
                             * one of the creation */
    const uint8_t *config;
    uint32_t config_size;
    raft_term_t term; /* copies; the log's are newer or equal */
    replica_id vote;
    const uint8_t *blob;
    uint32_t blob_size;
    bool unproven;
};

struct checkpoint {
    uint64_t seq;      /* 1, 2, ... */
    uint64_t log_id;   /* wal_log_id */
    uint64_t position; /* wal_durable_position when it was made */
    uint32_t n_groups;
    struct checkpoint_group *groups;
    void *bytes; /* of a loaded one: what config and blob point into */
    /* Set by checkpoint_load, whatever it returns: the highest number that a
     * file has; and whether that file cannot be read. */
    uint64_t newest_seq;
    bool newest_lost;
};

/* It has a group that cannot prove its log. */
bool checkpoint_has_unproven(const struct checkpoint *checkpoint);
/* The bytes of a checkpoint; mem_free(result) is the caller's. Pure. */
void *checkpoint_encode(const struct checkpoint *checkpoint, size_t *size);
/* Takes `bytes` over when it succeeds. ERR_CORRUPT; ERR_UNSUPPORTED: a newer
 * version. Pure. */
MUST_USE enum err checkpoint_decode(void *bytes, size_t size,
                                    struct checkpoint *out);
/* Frees what a loaded checkpoint holds. */
void checkpoint_free(struct checkpoint *checkpoint);

/* Writes checkpoint-<seq> in `dir` durably and removes those before the one
 * before it. `bytes` from checkpoint_encode. Blocking: on a worker, or before
 * serving. ERR_NOSPACE: nothing happened; ERR_IO. */
MUST_USE enum err checkpoint_save(struct env *env, const char *dir,
                                  uint64_t seq, const void *bytes, size_t size);
/* The newest readable checkpoint in `dir`; a damaged newer one is logged.
 * ERR_NOT_FOUND: there is none; ERR_CORRUPT: none can be read. */
MUST_USE enum err checkpoint_load(struct env *env, const char *dir,
                                  struct checkpoint *out);
/* By group, or NULL. */
const struct checkpoint_group *checkpoint_find(
    const struct checkpoint *checkpoint, const struct group_id *id);

#endif
