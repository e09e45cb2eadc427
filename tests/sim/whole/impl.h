/* Shared by the files of this folder. All of it is memory of the test, outside
 * of every node, unless said. */
#ifndef TESTS_SIM_WHOLE_IMPL_H
#define TESTS_SIM_WHOLE_IMPL_H

#include <stdlib.h>

#include "base/kafka_error.h"
#include "base/types.h"
#include "schema/apis.h"
#include "tests/sim/sim_env.h"
#include "tests/sim/whole/whole.h"

#define BROKERS_MAX 7
#define TOPICS_MAX 4
#define TOPIC_PARTITIONS_MAX 12
#define PARTS_MAX (TOPICS_MAX * TOPIC_PARTITIONS_MAX)
#define PRODUCERS_MAX 6
#define CONSUMERS_MAX 4
#define GROUPS_MAX 2
#define GROUP_MEMBERS_MAX 4
#define ADMINS_MAX 2
/* The compacted topic is the one that consumers and members never have. */
#define KEYED_TOPIC (TOPICS_MAX - 1)
#define KEYED_PARTITIONS_MAX 3
#define KEY_READERS_MAX 2
#define KEYS_MAX 120
#define API_KEYS 128

enum fault_kind {
    FAULT_CRASH,      /* one broker: kill or power loss */
    FAULT_CRASH_ALL,  /* all brokers at once */
    FAULT_CUT_ONE,    /* one direction between two nodes */
    FAULT_CUT_BOTH,   /* both directions */
    FAULT_ISOLATE,    /* a broker from all other brokers */
    FAULT_RESET,      /* connections between two nodes */
    FAULT_DELAY,      /* slow network for a while */
    FAULT_PAUSE,      /* a broker stands still */
    FAULT_STALL,      /* its disk does */
    FAULT_SLOW_DISK,  /* its disk is slow */
    FAULT_DISK_FULL,  /* no room for a while */
    FAULT_DISK_ERROR, /* a write or sync fails: the process ends */
    FAULT_CLOCK,      /* the wall clock jumps */
    FAULT_STOP,       /* a broker is stopped as SIGTERM does, and started */
    FAULT_HEAL,       /* all cuts end */
    FAULT_RESHARD,    /* a broker comes back with another number of shards */
    FAULT_ROT,        /* bytes of the rotten broker's disk read wrong */
    FAULT_KINDS
};

/* The compacted topic of a seed. */
struct keyed_plan {
    int n_partitions; /* 0: there is none */
    int replication, n_writers, n_readers, n_keys;
    bool deletes;         /* compact,delete */
    int64_t retention_ms; /* then */
    int64_t tombstone_ms; /* delete.retention.ms */
    int64_t lag_ms;       /* min.compaction.lag.ms */
    int64_t segment_bytes, segment_ms;
    const char *dirty_ratio;
};

/* What a seed decides before anything runs. */
struct plan {
    int n_brokers, n_seeds_named;
    unsigned n_shards;
    int n_topics, n_partitions[TOPICS_MAX];
    int replication[TOPICS_MAX];
    int n_idempotent, n_plain, n_consumers, n_groups, n_members, n_admins;
    struct keyed_plan keyed;
    int rotten;      /* the one broker whose disk may rot, with FAULT_ROT */
    uint32_t faults; /* mask of fault_kind */
    uint64_t fault_ms_min, fault_ms_max; /* between two */
    uint64_t chaos_ns;
    uint64_t stop_ns; /* of it; the same, unless cut short */
    /* Faults come in storms, with calm between them. */
    int n_storms, storm_faults; /* of each */
    bool heals_after;           /* cuts end with their storm */
    uint64_t n_records;         /* producers make so many in storms, at most */
    bool drizzle;               /* and a few in calm */
    int records_max;            /* in one batch */
    int value_max;              /* bytes of one */
    uint64_t produce_ms;        /* a producer's pace, at most */
    int in_flight;              /* of idempotent producers */
    uint64_t fetch_ms;          /* consumers wait for records, at most */
    uint64_t delay_ns;          /* of the network, mean */
    uint32_t request_ms;        /* clients wait for an answer */
    uint64_t memory_max;        /* bytes that a broker may hold */
    char properties[2048];      /* of every broker */
};
void plan_make(struct plan *plan, const struct whole_options *options);
void plan_print(const struct plan *plan);

/* ---- brokers: broker.c --------------------------------------------------- */
struct world;
struct broker;
struct whole_broker {
    struct world *world;
    int at; /* node.id is at + 1 */
    struct sim_node *node;
    struct broker *broker; /* of the running incarnation; NULL: none */
    struct broker_config *config;
    bool ready, stopping;
    unsigned n_shards; /* of the next start */
    bool may_fail;     /* a disk fault was planted: it may end itself */
    unsigned doubted; /* the newest start that may read a rotten log; 0: none */
};
void broker_add(struct world *w, int at);
void broker_crash(struct whole_broker *b, enum sim_crash how);
void broker_restart_later(struct whole_broker *b, uint64_t ns);
void broker_restart_now(struct whole_broker *b);
/* False: it is not up, or stopping already. */
bool broker_stop_cleanly(struct whole_broker *b);
void broker_on_fatal(void *arg, struct sim_node *node, const char *line);
bool brokers_ready(void *world);

/* ---- what is true: oracle.c ---------------------------------------------- */
/* Records are numbered: producer, partition, r-th record of both. */
typedef uint64_t record_id; /* 0: none */
record_id record_make(int producer, int part, uint64_t r);
int record_producer(record_id id);
int record_part(record_id id);
uint64_t record_r(record_id id);
/* The bytes of a record's value follow from its number and size. */
void record_value(record_id id, uint8_t *value, int32_t size);
#define RECORD_VALUE_MIN 16

struct oracle_part {
    record_id *log; /* by offset: acknowledged or read */
    uint64_t size;
    uint64_t acked_end; /* newest acknowledged offset + 1 */
    uint64_t seen_end;  /* newest known offset + 1 */
};
struct oracle_stream { /* one producer's records in one partition */
    uint64_t n_made, n_acked, size;
    uint64_t *offset; /* of r: + 1; 0 not known */
    uint8_t *acked;
    uint32_t *attempts; /* plain producers: sent so often */
    uint32_t *copies;   /* offsets at which it was seen */
};
struct oracle {
    struct oracle_part parts[PARTS_MAX];
    struct oracle_stream streams[PRODUCERS_MAX][PARTS_MAX];
};
/* A record is about to be sent (once more). */
void oracle_sent(struct world *w, record_id first, int n);
/* The records from `first` on were acknowledged at these offsets. */
void oracle_acked(struct world *w, record_id first, int n, int64_t base);
/* Somebody read this record there. */
void oracle_read(struct world *w, int part, int64_t offset, record_id id);
/* Everything that was acknowledged was read by all who read everything. */
void oracle_finish(struct world *w);
void oracle_free(struct world *w);

/* ---- what is true of the compacted topic: keys.c ------------------------- */
struct batch_record;
struct batch_header;
/* Records are numbered as others are, and their number is a header of theirs. A
 * record is made: its key, what is in it. */
struct key_record {
    int key;
    bool tombstone;
    int64_t timestamp_ms;
    uint64_t made_ns; /* then */
    int64_t offset;   /* -1: not known */
    uint64_t sent_ns; /* for the first time; 0: not yet */
    bool acked;
};
void keys_made(struct world *w, record_id id, const struct key_record *record);
void keys_sent(struct world *w, record_id first, int n);
void keys_acked(struct world *w, record_id first, int n, int64_t base);
#define KEY_BYTES_MAX 32
/* The bytes of a key; how many. */
int key_bytes(int key, char out[KEY_BYTES_MAX]);
/* One that is drawn; some are written much more often than others. */
int key_draw(const struct world *w, struct prng *rng);
/* The end of what is known of a partition, and where it may begin. */
int64_t keys_end(const struct world *w, int index);
int64_t keys_low(const struct world *w, int index);
/* A broker says that it begins there. */
void keys_begin_at(struct world *w, int index, int64_t low);
/* Everything was acknowledged. */
void keys_finish(struct world *w);
void keys_free(struct world *w);

/* One reading of a partition from its beginning to its end. */
struct key_pass;
/* `replica`: from one broker all the time, else from whoever leads. */
struct key_pass *key_pass_new(struct world *w, int index, bool replica);
int64_t key_pass_position(const struct key_pass *p);
/* An answer with batches; true: it is at the end, and was judged. */
bool key_pass_take(struct key_pass *p, int broker, int64_t watermark,
                   int64_t log_start, const uint8_t *batches, size_t size);
/* At its end: of no key there was less than what is newest. */
bool key_pass_is_clean(const struct key_pass *p);
void key_pass_free(struct key_pass *p);

/* ---- the history: history.c ---------------------------------------------- */
/* A batch is sent for the first time, and acknowledged for the first time. */
void history_sent(struct world *w, record_id first, int n);
void history_acked(struct world *w, record_id first, int n, int64_t base);
/* One answer with records of one reader, who is a process. */
void history_poll_begin(struct world *w);
void history_read(struct world *w, int part, int64_t offset, record_id id);
void history_poll_end(struct world *w, int process);
/* Its positions are new. */
void history_seek(struct world *w, int process);
/* Fails the run when the checker finds an anomaly. */
void history_check(struct world *w);
void history_free(struct world *w);

/* ---- a client: client.c -------------------------------------------------- */
enum fate {
    FATE_ANSWERED,
    FATE_UNKNOWN,  /* sent, perhaps in part; no answer */
    FATE_NOT_SENT, /* never left */
};
struct answer {
    enum fate fate;
    int16_t api_key;
    int version;
    int broker;      /* who was asked */
    unsigned starts; /* its incarnation when asked */
    uint64_t asked_ns;
    const void *response; /* FATE_ANSWERED; valid during the call */
};
typedef void (*answer_cb)(void *arg, const struct answer *answer);

struct client_conn;
struct client_part {
    int leader; /* broker; -1: not known */
    int32_t epoch;
};
struct client {
    struct world *world;
    struct sim_node *node;
    struct env *env;
    struct prng prng;
    char name[16];
    int version[API_KEYS];
    struct client_conn *conns[BROKERS_MAX];
    int32_t next_correlation;
    uint32_t request_ms;
    /* metadata */
    bool refreshing, refresh_again;
    struct client_part parts[PARTS_MAX];
    struct uuid topic_ids[TOPICS_MAX]; /* zero: not known */
    int controller;
    struct env_timer refresh_timer;
    void (*refreshed)(struct client *c); /* may be NULL */
    void *actor;
    int n_pending; /* requests not answered */
    struct client_boot *boot;
};
/* A node of its own with one client; `boot` is called in it. */
void client_add(struct world *w, struct client *c, const char *name,
                sim_boot boot, void *actor);
void client_drop(struct client *c); /* after the world's end */
/* Connections of its own beside the owner's, in the same node; called there.
 * Nothing of it needs to be dropped. */
void client_share(struct client *c, const struct client *owner);
/* Asks a broker. `request` is encoded at once; `cb` comes later, once. */
void client_ask(struct client *c, int broker, int16_t api_key,
                const void *request, answer_cb cb, void *arg);
/* Asks for metadata soon; many calls are one. */
void client_refresh(struct client *c);
/* An error of a fetch that passes: its client tries again. */
bool fetch_again_later(enum kafka_error e);
int client_any_broker(struct client *c);
bool client_has_ids(const struct client *c);
/* Topic of a part, part of a topic's partition. */
int part_topic(int part);
int part_index(int part);
int part_of(int topic, int index);
void topic_name(int topic, char out[16]);
/* -1: none of ours. */
int topic_find(struct wire_str name);
int topic_find_id(const struct client *c, const struct uuid *id);

/* ---- actors -------------------------------------------------------------- */
struct producer;
enum producer_kind { PRODUCER_IDEMPOTENT, PRODUCER_PLAIN, PRODUCER_KEYED };
/* A keyed one writes to the compacted topic, and is idempotent. */
void producer_add(struct world *w, int at, enum producer_kind kind);
struct sim_node *producer_node(const struct producer *p);
bool producer_is_idempotent(const struct world *w, int at);
bool producer_done(const struct producer *p);
void producer_free(struct producer *p);
void producer_print(const struct producer *p);

struct key_reader;
void key_reader_add(struct world *w, int at);
struct sim_node *key_reader_node(const struct key_reader *r);
/* Every replica was read to its end after all was written, and was right. */
bool key_reader_done(const struct key_reader *r);
void key_reader_print(const struct key_reader *r);
void key_reader_free(struct key_reader *r);

struct consumer;
/* Who says what a consumer reads, and is told each record. */
struct reader {
    sim_boot boot; /* in the consumer's node, after its own */
    void (*read)(void *actor, int part, int64_t offset);
};
void consumer_add(struct world *w, int at);
/* One that reads what it is assigned. */
struct consumer *consumer_new(struct world *w, const char *name,
                              const struct reader *reader, void *actor);
void consumer_assign(struct consumer *c, int part, int64_t position);
void consumer_revoke(struct consumer *c, int part);
int64_t consumer_position(const struct consumer *c, int part);
struct client *consumer_client(struct consumer *c);
struct sim_node *consumer_node(const struct consumer *c);
bool consumer_done(const struct consumer *c);
void consumer_free(struct consumer *c);
void consumer_print(const struct consumer *c);

struct member;
void member_add(struct world *w, int at, int group);
struct sim_node *member_node(const struct member *m);
/* It is in its group as long as nothing happens; *generation of it. */
bool member_settled(const struct member *m, int32_t *generation);
void member_free(struct member *m);
void member_print(const struct member *m);

struct admin;
void admin_add(struct world *w, int at);
struct sim_node *admin_node(const struct admin *a);
/* No change of it has an end that is not known. */
bool admin_sure(const struct admin *a);
/* All is well: from here on every broker must show everything as it is. */
void admin_finale(struct admin *a);
bool admin_done(struct admin *a);
/* Somebody asked for the deletion of this topic. */
bool admins_delete(const struct world *w, const struct uuid *topic);
void admin_print(const struct admin *a);
void admin_free(struct admin *a);

/* ---- what is true of a group: group.c ------------------------------------ */
struct group_plan {
    int32_t generation;
    int64_t owner[PARTS_MAX]; /* key of a member; -1: nobody */
};
/* A leader is about to ask for this plan: its number, from 1. */
uint64_t group_planned(struct world *w, int group, const struct group_plan *p);
/* A member was given these partitions in a generation, by plan number `plan`.
 */
void group_synced(struct world *w, int group, int32_t generation, uint64_t plan,
                  int64_t key, const bool given[PARTS_MAX]);
/* The number of a commit that is about to be sent. */
uint64_t group_commit_id(struct world *w, int group);
void group_commit_sent(struct world *w, int group, int part, uint64_t id,
                       int32_t generation, int64_t offset);
enum commit_end { COMMIT_ACKED, COMMIT_REFUSED, COMMIT_UNKNOWN };
void group_commit_done(struct world *w, int group, int part, uint64_t id,
                       enum commit_end end);
/* A committed offset was told by an answer to what was asked then; id 0: it
 * was told that nothing is committed. */
void group_fetched(struct world *w, int group, int part, uint64_t asked_ns,
                   int64_t offset, uint64_t id);
void group_read(struct world *w, int group, int part, int64_t offset);
/* All its members are in one generation, everything was read and committed. */
bool group_done(struct world *w, int group);
void group_print(struct world *w, int group);
void groups_free(struct world *w);

/* ---- faults: nemesis.c --------------------------------------------------- */
/* Its disk may rot. */
bool nemesis_rots(const struct world *w, int broker);
/* How many clients there are, and the node of the n-th. */
int actors(const struct world *w);
struct sim_node *actor_node(const struct world *w, int n);
void nemesis_start(struct world *w);
void nemesis_heal(struct world *w);
/* After each event of a broker: it is hit while it compacts. */
void nemesis_ambush(struct world *w, struct sim_node *node);
/* Nothing has been wrong for so long that all brokers are live. */
bool nemesis_calm(struct world *w);
/* Whether producers are to work: a storm blows, or ended just now and did not
 * have its share of records. */
bool nemesis_load(const struct world *w);

/* ---- looking inside: probe.c --------------------------------------------- */
struct probe;
/* The highest watermark that any replica ever had; -1: no such group. */
int64_t probe_watermark(const struct world *w, const struct uuid *topic,
                        int partition);
/* The newest term that anybody led, and the broker that did; 0: none yet. -1
 * for the broker while it does not know yet all that was committed before. */
uint64_t probe_leader(const struct world *w, const struct uuid *topic,
                      int partition, int *leader);
/* The brokers that have a replica; how many, 0: no such group was seen yet. */
int probe_replicas(const struct world *w, const struct uuid *topic,
                   int partition, int out[BROKERS_MAX]);
/* One of its shards compacts, or takes over what a peer has compacted. */
bool probe_compacts(const struct whole_broker *b);
struct probe *probe_new(struct world *w);
void probe_free(struct probe *p);
/* After an event of this node. */
void probe_event(void *world, struct sim_node *node);
/* Each broker must have the topic, with so many partitions that all have
 * leaders: its creation returned, and all are live. */
void probe_topic_everywhere(struct world *w, const char *topic, int partitions);
/* All replicas of everything have applied the same. */
bool probe_converged(struct world *w, char *why, size_t why_size);

/* ---- the world ----------------------------------------------------------- */
enum phase { PHASE_START, PHASE_CHAOS, PHASE_LIVENESS };
struct world {
    struct whole_options options;
    struct plan plan;
    struct sim *sim;
    struct prng prng; /* of the nemesis */
    enum phase phase;
    struct whole_broker brokers[BROKERS_MAX];
    int n_parts_of[TOPICS_MAX]; /* partitions that exist for certain */
    struct oracle oracle;
    struct history *history;
    int n_readers; /* processes of the history */
    struct probe *probe;
    struct producer *producers[PRODUCERS_MAX];
    int n_producers;
    struct consumer *consumers[CONSUMERS_MAX];
    int n_consumers;
    struct storm {
        int n, faults_left;       /* begun; of this one */
        uint64_t began_ns, to_ns; /* of chaos; load goes on until then */
        uint64_t n_records;       /* made so far */
        uint64_t struck_ns;       /* the newest fault, or the end of a storm */
        bool ambush;              /* whoever compacts next is to crash */
    } storm;
    struct member *members[GROUPS_MAX * GROUP_MEMBERS_MAX];
    int n_members; /* of all groups */
    struct group_seen *groups[GROUPS_MAX];
    struct admin *admins[ADMINS_MAX];
    int n_admins;
    struct keys *keys;
    struct key_reader *key_readers[KEY_READERS_MAX];
    int n_key_readers;
    bool finale; /* all is well and at rest: admins look at everything */
    struct client setup;
    int n_created; /* topics */
    struct whole_result result;
};

#endif
