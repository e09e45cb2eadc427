/* libraft's raft_io over the shared write-ahead log and the transport. */
#ifndef RAFT_IO_H
#define RAFT_IO_H

#include "raft/group_impl.h"

/* Points the group's core at this implementation. */
void io_init(struct group *group);
/* Is this replica the only voter of its newest configuration? */
bool io_is_only_voter(const struct group *group);

/* Builds a configuration entry's bytes from a creation record: what libraft
 * itself would encode, with the padding zeroed so that all replicas hold the
 * same bytes. mem_free is the caller's. */
uint8_t *io_config_encode(const struct group_creation *creation,
                          uint32_t *size);
/* Reads such bytes strictly; false when malformed. The result is closed by
 * raft_configuration_close. */
bool io_config_decode(const uint8_t *data, size_t size,
                      struct raft_configuration *out);

/* Sends an append without entries that stands at what was last sent to the
 * peer: tells it commit index and read round. `quiet`: no answer needed. */
void io_send_empty(struct group *group, struct group_peer *peer, bool quiet);
/* Tells a replica to campaign now. */
void io_send_timeout_now(struct group *group, struct group_peer *peer);

/* Offers settled state to a replica that is behind the window (catchup.h). */
void io_send_offer(struct group *group, struct group_peer *peer, uint64_t index,
                   uint64_t term);
/* Answers such an offer: the log is the leader's up to `index`, durably. */
void io_send_matched(struct group *group, replica_id to, uint64_t index);

/* Messages whose term and vote have become durable leave. */
void io_open_gate(struct group *group);
/* Calls back what the core is owed: sends and snapshot requests. */
bool io_complete_sends(struct group *group);
/* The oldest append is durable and the core may know. */
bool io_append_ready(const struct group *group);
void io_complete_append(struct group *group);

/* Adds a message to the end; the queue owns it. */
void kept_link(struct kept_queue *queue, struct kept_message *kept);
/* Adds a copy of a body. */
void kept_push(struct kept_queue *queue, node_id node, const uint8_t *body,
               size_t size);
struct kept_message *kept_pop(struct kept_queue *queue);
void kept_clear(struct kept_queue *queue);

#endif
