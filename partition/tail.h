/* Copies of a segment's tail. Appending to a file writes its last block again,
 * and a block whose write is interrupted may hold anything afterwards: also
 * what was durable in it before. So with each settling the bytes of the last,
 * not yet full block of .log and side file are written a second time, into one
 * of two places of the side file, in turn, and become durable with the rest;
 * the checkpoint says which place is true. A start puts the copy back where the
 * blocks differ.
 *
 * A place, big-endian: u32 magic "FTAI", u32 CRC-32C of what follows, u64 log
 * index, u64 position in the .log and u32 bytes of its tail, u64 slots and u32
 * bytes of the side file's tail, then both tails. */
#ifndef PARTITION_TAIL_H
#define PARTITION_TAIL_H

#include "partition/segment.h"

/* Writes the copy for `state` into its state->tail_area; not synced. `log_tail`
 * has the last bytes of the .log that fill no block; the side file's are read
 * back from it. */
MUST_USE enum err tail_save(struct env_file *side,
                            const struct log_state *state,
                            const uint8_t *log_tail);
/* The last bytes of the .log that fill no block, from the copy, or from `log`
 * (opened for direct or ordinary reading) where that is damaged. `block` is
 * ENV_BLOCK_SIZE bytes, aligned to it. ERR_CORRUPT: the file is too short. */
MUST_USE enum err tail_load(struct env_file *log, struct env_file *side,
                            const struct log_state *state, uint8_t *block);
/* Puts the tails back if they are not as the copy has them; durable then.
 * ERR_CORRUPT: the files are too short. A copy that is not whole is no error:
 * then the tails were never written again. */
MUST_USE enum err tail_repair(struct env_file *log, struct env_file *side,
                              const struct log_state *state, const char *name);

#endif
