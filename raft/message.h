/* Raft messages as they travel between replicas of one group: the body of the
 * transport's group messages. Byte by byte, little-endian:
 *
 *   0 version u8   1 type u8   2 flags u8   3 zero u8   4 n u32 (entries)
 *   8 from u64 (replica)   16 to u64 (replica)   24 term u64
 *   append       32 prev_index 40 prev_term 48 commit 56 round,
 *                64 n times {term u64, size u32, crc u32, type u8, zero u8[7]},
 *                then the payloads one after the other
 *   append result 32 rejected 40 last_index 48 round
 *   vote          32 last_index 40 last_term
 *   vote result   -
 *   timeout now   32 last_index 40 last_term
 *   offer         32 last_index 40 last_term (catch-up: what is settled)
 */
#ifndef RAFT_MESSAGE_H
#define RAFT_MESSAGE_H

#include "base/err.h"
#include "raft/group.h"

#define MESSAGE_VERSION 1

enum message_type {
    MESSAGE_APPEND = 1,
    MESSAGE_APPEND_RESULT = 2,
    MESSAGE_VOTE = 3,
    MESSAGE_VOTE_RESULT = 4,
    MESSAGE_TIMEOUT_NOW = 5,
    MESSAGE_OFFER = 6 /* not for the core: see catchup.h */
};

enum message_flag {
    MESSAGE_PRE_VOTE = 1, /* vote and its result: a straw poll */
    MESSAGE_DISRUPT = 2,  /* vote: told to by the leader itself */
    MESSAGE_GRANTED = 4,  /* vote result */
    MESSAGE_QUIET = 8,    /* append: success needs no result */
    MESSAGE_REST = 16     /* append: rest; its result: it does (rest.h) */
};

/* One entry of an append; the payload lies in the received body. */
struct message_entry {
    uint64_t term;
    uint32_t size;
    uint32_t crc;
    uint8_t type; /* enum entry_type */
    const uint8_t *payload;
};

struct message {
    enum message_type type;
    uint8_t flags;
    replica_id from, to;
    uint64_t term;
    uint64_t prev_index, prev_term; /* append */
    uint64_t commit;                /* append: the leader's commit index */
    uint64_t round;                 /* append and result: read round */
    uint64_t rejected;              /* result: 0, or the refused prev_index */
    uint64_t last_index, last_term; /* result (index), vote, timeout now */
    uint32_t n_entries;             /* append */
};

#define MESSAGE_HEAD_MAX 64
#define MESSAGE_ENTRY_SIZE 24

/* Writes the fixed part (without entries) into `out`; gives its size. */
size_t message_encode(const struct message *message,
                      uint8_t out[MESSAGE_HEAD_MAX]);
/* Writes one entry's head, MESSAGE_ENTRY_SIZE bytes. */
void message_encode_entry(const struct message_entry *entry, uint8_t *out);

/* Reads the fixed part and checks every length against `size` before it is
 * used. ERR_INVALID for anything malformed. */
MUST_USE enum err message_decode(const uint8_t *body, size_t size,
                                 struct message *out);
/* Reads the entries of an append that message_decode accepted from the same
 * body into `out` (n_entries of them) and checks sizes, types, and that terms
 * are sane and in order; the payload CRCs are checked too. ERR_INVALID. */
MUST_USE enum err message_decode_entries(const uint8_t *body, size_t size,
                                         const struct message *message,
                                         struct message_entry *out);

#endif
