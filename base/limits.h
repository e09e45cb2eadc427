/* Every bound of the program, each with its reason. A room adds its own under
 * a heading; a queue or buffer without a line here is a mistake. */
#ifndef BASE_LIMITS_H
#define BASE_LIMITS_H

/* ---- base ---------------------------------------------------------------- */
/* Bytes of a log line; what is longer is cut. A line is for people. */
#define LIMIT_LOG_LINE 1024
/* Bytes of a path in a data directory, with the terminating NUL: PATH_MAX. */
#define LIMIT_PATH 4096
/* Bytes of "host:port" of a listener or peer: a DNS name has at most 253. */
#define LIMIT_ADDRESS 280
/* Connections the kernel holds before they are accepted: clients of a broker
 * that just restarted come all at once. */
#define LIMIT_LISTEN_BACKLOG 1024

/* ---- partition ----------------------------------------------------------- */
/* Plain bytes that the records of one batch may decompress to where a broker
 * must look at them (keys of compacted topics, timestamps): 64 times
 * the default size of a batch. */
#define LIMIT_BATCH_PLAIN ((size_t)64 << 20)
/* Changes of leader epoch that a partition remembers; they travel in its
 * checkpoint (20 bytes each). Clients ask about the last few only. */
#define LIMIT_EPOCHS 128
/* Bytes of a partition's list of closed segments, 64 a segment: one million
 * segments are more than a file system likes in one directory. */
#define LIMIT_MANIFEST_BYTES ((size_t)64 << 20)
/* Bytes of a snapshot of producer state: 300,000 producers of 5 batches. */
#define LIMIT_PRODUCERS_BYTES ((size_t)64 << 20)
/* Producers remembered by a partition; beyond it the leader has the longest
 * silent ones forgotten. 0.5 KiB each. */
#define LIMIT_PRODUCERS 100000
/* Produce requests that wait for room in the log, of one partition; more are
 * answered REQUEST_TIMED_OUT, which clients try again. Their bytes are bounded
 * by the memory of requests. */
#define LIMIT_PRODUCE_WAITING 256
/* For so long after a produce request was turned away, those of the same client
 * that were under way behind it are too: as long as clients take to find a new
 * leader and to send again. */
#define LIMIT_PRODUCE_GAP_MS 5000
/* Records that the answer to one Produce names as refused, 100 bytes each:
 * as many as a client puts into a batch at its defaults. */
#define LIMIT_RECORD_ERRORS 10000
/* Batches in one answer to a fetch of one partition from memory: pieces of a
 * gathered write. */
#define LIMIT_FETCH_PIECES 512
/* Bytes that one fetch of one partition reads from a file at once; the next
 * one goes on. Larger reads are no faster. */
#define LIMIT_FETCH_READ ((int32_t)4 << 20)
/* Reads from this size on go past the page cache, if they are the first ones
 * there; smaller ones gain by what the kernel reads ahead. */
#define LIMIT_FETCH_READ_CACHED ((size_t)256 << 10)
/* A reader that comes back within this time for what comes next has it read
 * ahead; so long it is kept. */
#define LIMIT_FETCH_AHEAD_MS 1000
/* And when the memory of reads is used up: consumers that do not take
 * their answers slow the others down but do not stop them. */
#define LIMIT_FETCH_READ_SHORT ((size_t)64 << 10)
/* Memory of the map of keys of a compaction, one a shard at a time: 1.4 million
 * keys; a log with more of them takes several runs. */
#define LIMIT_COMPACTION_MAP ((size_t)32 << 20)
/* Bytes of a segment of __consumer_offsets, whatever its segment.bytes says:
 * the one being written is not compacted, and a new coordinator reads all of
 * it. */
#define LIMIT_OFFSETS_SEGMENT ((int32_t)8 << 20)
/* Segments that one compacted one takes the place of: so much is there twice
 * until it does. */
#define LIMIT_COMPACTION_SEGMENTS 64
/* Side slots that a restart reads again to know the producers: 3.4 MB. */
#define LIMIT_PRODUCER_SLOTS 32768

/* ---- metadata ------------------------------------------------------------ */
/* Bytes of a server.properties: Kafka's own, with all its comments, has 6 KB.
 */
#define LIMIT_CONFIG_FILE 1048576

/* ---- metadata ------------------------------------------------------------ */
/* Partitions of one topic: its record stays far below what the log takes in
 * one entry (Kafka's own advice ends at about 4000 a broker). */
#define LIMIT_TOPIC_PARTITIONS 10000
/* Configuration overrides of one topic: there are fewer keys than that. */
#define LIMIT_TOPIC_CONFIGS 256
/* Groups and clients that something is set for: each broker holds a few
 * hundred bytes of each, and clients of one kind share what is set for the
 * default one. */
#define LIMIT_CONFIG_RESOURCES 20000
/* Topics, partitions or resources named by one admin request. */
#define LIMIT_METADATA_ITEMS 10000
/* Answers of changes remembered so that a change repeated after a lost answer
 * is not done twice: number, bytes of one, bytes of all. A client repeats
 * within seconds, and not many admin requests fall into that time. */
#define LIMIT_METADATA_REQUESTS 512
#define LIMIT_METADATA_ANSWER (256u << 10)
#define LIMIT_METADATA_ANSWERS (4u << 20)
/* Bytes of one entry of the metadata log: what a request may decide at once. */
#define LIMIT_METADATA_ENTRY (4u << 20)
/* Bytes of a snapshot of the metadata: some million partitions. */
#define LIMIT_METADATA_SNAPSHOT (1u << 30)
/* Changes waiting at the metadata leader, and calls waiting at a broker. */
#define LIMIT_METADATA_CALLS 1024
/* Leadership reports in one heartbeat, and in one entry. */
#define LIMIT_LEADER_REPORTS 4096
/* Seeds that a first start may name: voters of the metadata group. With more
 * of them a change of the metadata waits for four brokers and more. */
#define LIMIT_SEEDS 7

/* ---- coordinator --------------------------------------------------------- */
/* Members of one consumer group, and ids given out to those that may come.
 * What a rebalance says about all of them must fit into one record of 1 MiB:
 * 100 bytes of subscription and assignment each. */
#define LIMIT_GROUP_MEMBERS 10000

/* ---- raft: write-ahead log ----------------------------------------------- */
/* Payload of one entry. Kafka's default batch limit is 1 MiB; a flush holding
 * the largest entry must still be read back into one buffer. */
#define LIMIT_WAL_ENTRY_BYTES ((uint32_t)16 << 20)
/* Bytes of one chunk of the log buffer, hence of an ordinary flush: larger
 * writes are no faster, and a group's next record waits for this one. */
#define LIMIT_LOG_CHUNK_BYTES ((uint32_t)1 << 20)
/* Free chunks kept for the next use; more go back to the system slowly. */
#define LIMIT_LOG_CHUNKS_FREE 4
/* Bytes of the log buffer that stay filled, as the cache for peers and fetches
 * at the tail; beyond it only what is not settled lies there. */
#define LIMIT_LOG_BUFFER_LOW ((uint64_t)16 << 20)
/* Bytes of the first log file, filled with zeros before the broker serves. */
#define LIMIT_WAL_FIRST_FILE_BYTES ((uint64_t)4 << 20)
/* A shard's leaders tell followers of commits by messages of their own at most
 * this often; under load appends tell them anyway, and each such message costs
 * a system call here and a wake-up there. */
#define LIMIT_RAFT_TELL_MS 5
/* The log falls idle: its last flush is attested this many ms later. */
#define LIMIT_WAL_ATTEST_MS 4
/* A checkpoint file: about 300 bytes for each of 100,000 groups, and blobs. */
#define LIMIT_CHECKPOINT_BYTES ((size_t)256 << 20)
/* ---- raft: transport ----------------------------------------------------- */
/* Bytes of one block of copied bytes queued for a peer: some hundred small
 * messages, the usual turn. */
#define LIMIT_PEER_BLOCK 16384
/* Receive buffer of a peer connection: at first, and what it grows to by
 * doubling while reads fill it. A frame that is larger gets its size. */
#define LIMIT_PEER_BUFFER_FIRST 16384
#define LIMIT_PEER_BUFFER (256 << 10)
/* Peers a broker knows, seeds included: larger clusters are not planned. */
#define LIMIT_PEERS 512
/* Incoming peer connections: of so many peers, two lanes each, from a few
 * shards, and strangers. */
#define LIMIT_PEER_INCOMING 4096
/* Requests of one connection that wait for their answer: beyond it they are
 * answered ERR_BUSY at once. */
#define LIMIT_RPC_PENDING 1024

/* ---- raft: catch-up ------------------------------------------------------ */
/* Groups of a shard that receive at a time: many small ones are quickly done,
 * and settled in one round. */
#define LIMIT_CATCHUP_TRANSFERS 64
/* Ranges of 1 MiB that a shard has under way for them, and that it reads at a
 * time for others: memory. */
#define LIMIT_CATCHUP_FETCHES 16
#define LIMIT_CATCHUP_READS 32
/* Received by a shard: leaves the disks and the network of a busy cluster room
 * for what is being written. */
#define LIMIT_CATCHUP_BYTES_PER_S ((uint64_t)128 << 20)

/* ---- net ----------------------------------------------------------------- */
/* Bytes read from a client at once; one piece of memory for all connections of
 * a shard. What 10 Gbit/s brings in 50 us. */
#define LIMIT_READ_PIECE ((size_t)64 << 10)
/* First memory for a request of which only the beginning has arrived; it grows
 * fourfold as bytes come, so that clients that announce much and send little
 * hold little: ten thousand of them 160 MiB. */
#define LIMIT_FRAME_FIRST ((size_t)16 << 10)
/* The same, and what is read at once, when memory is scarce: a heartbeat, a
 * fetch and a small produce request fit. */
#define LIMIT_FRAME_SCARCE ((size_t)4 << 10)
/* Structs decoded from one request, beside its frame: a hundred thousand
 * topics in a Metadata request take 4 MiB. */
#define LIMIT_REQUEST_DECODED ((size_t)64 << 20)
/* Requests of one connection that are worked on at a time; clients keep 5 to
 * 100 in flight. */
#define LIMIT_REQUESTS_IN_FLIGHT 128
/* Bytes of answers that a connection has not taken yet, beyond which no
 * further request of it is begun. One answer may be longer. */
#define LIMIT_CONNECTION_OUTPUT ((size_t)1 << 20)
/* While others wait for memory, a request of which less than so much came for
 * so long, or an answer of which less than so much was taken, loses its
 * connection: 256 kbit/s is what every client can do. */
#define LIMIT_FRAME_PROGRESS ((size_t)64 << 10)
#define LIMIT_FRAME_STALL_MS 2000
/* A connection that has taken so much of its answers reads them: it is more
 * than the kernel's buffers hold for one that does not. */
#define LIMIT_TAKER_BYTES ((uint64_t)4 << 20)
/* Bytes answered in one turn of the loop, beyond which requests that may be
 * answered with much wait for the next: some 10 ms of work. */
#define LIMIT_TURN_ANSWERS ((size_t)1 << 20)
/* Connections of one shard; beyond it new ones are closed at once. Each costs
 * about 1 KiB here and as much in the loop. */
#define LIMIT_CONNECTIONS 100000
/* Log lines about clients' mistakes, a second and shard; others are counted. */
#define LIMIT_CLIENT_LOG_LINES 5
/* Clients with quotas whose rates a broker knows, some 400 bytes each at the
 * usual windows; beyond it the longest silent ones are forgotten. */
#define LIMIT_QUOTA_CLIENTS 20000
/* Partitions in all fetch sessions of one shard, some 200 bytes each: a hundred
 * consumers of ten thousand partitions. Beyond it consumers get no session and
 * name their partitions each time. */
#define LIMIT_FETCH_SESSION_PARTITIONS ((size_t)1000000)

/* ---- raft ---------------------------------------------------------------- */
/* Bytes of one entry's payload: a batch may be as large as Kafka clients can
 * be told to make them, and must fit a few times into one log file. */
#define LIMIT_ENTRY_BYTES ((uint32_t)8 << 20)
/* Entries and bytes of payload in one append message (one entry may be larger
 * than the latter): what a peer must keep while it writes, and the grain of
 * flow control. */
#define LIMIT_RAFT_APPEND_ENTRIES 256
#define LIMIT_RAFT_APPEND_BYTES ((uint64_t)1 << 20)
/* Sent to one follower of one group and not acknowledged: covers bandwidth
 * times delay of a local network; a slow follower gets no more. */
#define LIMIT_RAFT_WINDOW_BYTES ((uint64_t)4 << 20)
#define LIMIT_RAFT_WINDOW_ENTRIES 2048
/* Entries of one group in memory: libraft's arrays never shrink. Appending
 * waits for settling when that many are not settled. */
#define LIMIT_RAFT_ENTRIES 8192
/* Payload of one group that its leader has not committed: a follower must be
 * able to take it whatever else it follows. */
#define LIMIT_RAFT_UNCOMMITTED_BYTES ((uint64_t)1 << 20)
/* Messages of a group held back by a guard, and their bytes: enough for every
 * peer to have a window on the way; beyond it they are dropped. */
#define LIMIT_RAFT_HELD 256
#define LIMIT_RAFT_HELD_BYTES ((size_t)4 << 20)
/* Messages of a group that wait for its term and vote to be durable. */
#define LIMIT_RAFT_GATED 64
/* Messages kept for groups that are about to be made here: their number, bytes
 * of one (a vote's request is small) and how long. */
#define LIMIT_RAFT_EARLY 4096
#define LIMIT_RAFT_EARLY_BYTES 256
#define LIMIT_RAFT_EARLY_MS 1000
/* Leaderships on the way back to preferred replicas at a time, per shard, and
 * so in each tick: each refuses appends for as long as an election takes, some
 * milliseconds, and the elections of a turn share their syncs. */
#define LIMIT_RAFT_TRANSFERS 32

#endif
