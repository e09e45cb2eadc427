/* What brokers say to each other, byte by byte. A connection is a sequence of
 * frames; a frame is a header of PEER_FRAME_HEADER bytes and a body. Integers
 * are little-endian.
 *
 *   at  size  header
 *    0     2  magic "FL"
 *    2     1  version of frame and hello, PEER_VERSION
 *    3     1  kind (enum peer_kind)
 *    4     4  size of the body in bytes
 *    8     8  id: of a call (RPC_*); of the sender's own choice, echoed (PING,
 *             PONG); else 0
 *   16     2  code: rpc_kind (RPC_REQUEST), enum err (RPC_RESPONSE), else 0
 *   18     2  reserved, 0
 *   20     4  CRC-32C of the body
 *   24     4  CRC-32C of the 24 bytes before
 *
 * The header's own CRC makes the size trustworthy before the body is there;
 * because it covers the body's CRC, it speaks for the whole frame.
 *
 *   RAFT body: 16 topic id, 4 partition, then the group's message.
 *   RPC_CATCHUP requests begin with the same 20 bytes.
 *   HELLO, HELLO_ACK body:
 *    0     2  protocol version of the sender
 *    2     1  lane (enum peer_lane)
 *    3     1  accepted (HELLO_ACK): 1, or 0 and `why` says the reason
 *    4     4  shard of the sender that dials (HELLO) or answers (HELLO_ACK)
 *    8     4  number of shards of the sender
 *   12     4  node id
 *   16    16  cluster id, zero while the cluster forms
 *   32    16  directory id
 *   48     8  incarnation: another one after a restart
 *   56     2  length of the address, then the address ("host:port") where the
 *             sender is to be dialled; may be empty
 *    .     2  length of `why`, then the sentence
 * Later versions may append to a hello; a reader ignores what it does not
 * know.
 *
 * Values of enum err travel, so that list is only ever appended to. */
#ifndef RAFT_PEER_FRAME_H
#define RAFT_PEER_FRAME_H

#include <stddef.h>

#include "base/err.h"
#include "base/types.h"
#include "raft/transport.h"

#define PEER_VERSION 1
#define PEER_FRAME_HEADER 28
/* A hello with the longest address and sentence; all that is read from a
 * stranger. */
#define PEER_HELLO_MAX 1024
#define PEER_ADDRESS_SIZE 280 /* host name of 255, ':' and port, NUL */
#define PEER_WHY_SIZE 256
/* A group message: a batch of the largest configurable size (Kafka's
 * message.max.bytes, bounded like an RPC) and its message's head. */
#define PEER_RAFT_SIZE_MAX (RPC_SIZE_MAX + 4096u)
#define PEER_GROUP_ID_SIZE 20
#define PEER_BODY_MAX (PEER_RAFT_SIZE_MAX + PEER_GROUP_ID_SIZE)

enum peer_kind {
    PEER_HELLO = 1,
    PEER_HELLO_ACK,
    PEER_PING,
    PEER_PONG,
    PEER_RAFT,
    PEER_RPC_REQUEST,
    PEER_RPC_RESPONSE,
    PEER_KIND_END
};

/* What a connection is for: bulk never delays the rest. */
enum peer_lane { LANE_MAIN, LANE_BULK, LANE_COUNT };

struct peer_frame {
    enum peer_kind kind;
    uint32_t size;
    uint64_t id;
    uint16_t code;
    uint32_t body_crc;
};

void peer_frame_write(const struct peer_frame *frame,
                      uint8_t out[PEER_FRAME_HEADER]);
/* ERR_CORRUPT or ERR_UNSUPPORTED (a foreign version) or ERR_TOO_LARGE (the
 * body is larger than its kind may be) with a static sentence in *why. */
MUST_USE enum err peer_frame_read(const uint8_t in[PEER_FRAME_HEADER],
                                  struct peer_frame *out, const char **why);
bool peer_frame_body_intact(const struct peer_frame *frame,
                            const uint8_t *body);

void peer_group_id_write(const struct group_id *id,
                         uint8_t out[PEER_GROUP_ID_SIZE]);
void peer_group_id_read(const uint8_t in[PEER_GROUP_ID_SIZE],
                        struct group_id *out);

struct peer_hello {
    uint16_t version;
    enum peer_lane lane;
    bool accepted;
    uint32_t shard, n_shards;
    node_id node;
    struct uuid cluster, directory;
    uint64_t incarnation;
    char address[PEER_ADDRESS_SIZE];
    char why[PEER_WHY_SIZE];
};
/* Returns the size written, at most PEER_HELLO_MAX. */
size_t peer_hello_write(const struct peer_hello *hello,
                        uint8_t out[PEER_HELLO_MAX]);
/* ERR_INVALID when it is no hello. */
MUST_USE enum err peer_hello_read(const uint8_t *in, size_t size,
                                  struct peer_hello *out);

#endif
