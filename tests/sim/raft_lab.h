/* A laboratory for Raft groups: up to five hosts with one group each over a
 * network and logs that do nothing by themselves. Every delivery, every sync,
 * every tick is a step of the test, so that any schedule can be played. A crash
 * loses what was not synced. The lab checks at each step that applied entries
 * are the same everywhere and that a term has one leader. */
#ifndef TESTS_RAFT_LAB_H
#define TESTS_RAFT_LAB_H

#include "base/env_impl.h"
#include "raft/group_impl.h"
#include "raft/guard.h"

#define LAB_MAX 5
#define LAB_TEXT 24

struct lab_message {
    struct lab_message *next;
    int from, to;
    size_t size;
    uint8_t body[];
};

enum lab_kind { LAB_ENTRY, LAB_TRUNCATE, LAB_TERM };
struct lab_record {
    enum lab_kind kind;
    uint64_t position, index, term, vote;
    enum entry_type type;
    uint8_t *payload;
    uint32_t size;
};

struct lab;
struct lab_node {
    struct lab *lab;
    int at;
    struct raft_host *host; /* NULL: down */
    struct group *group;
    struct lab_record *log;
    uint32_t n_log, log_size;
    uint64_t position, durable;
    uint64_t applied, appended, told_durable;
    bool full; /* reserve says no */
    struct group_role role;
    uint64_t roles;
};

struct lab {
    struct env env; /* first */
    uint64_t now;
    int n;
    uint32_t guards;
    struct lab_node nodes[LAB_MAX];
    struct lab_message *messages, **tail;
    bool cut[LAB_MAX][LAB_MAX];
    /* what was applied, by index; and who led, by term */
    char (*applied)[LAB_TEXT];
    uint64_t n_applied, newest_applied;
    int *leader_of;
    uint64_t n_terms;
    const char *violation; /* NULL: none yet */
    bool quick_payload;
    uint64_t largest_append; /* bytes of the largest message */
    uint64_t n_messages;
};

struct lab *lab_new(int n, uint64_t seed, uint32_t guards);
void lab_free(struct lab *lab);
void lab_up(struct lab *lab, int at);
/* The first `keep` of the records not synced survive. */
void lab_crash(struct lab *lab, int at, uint32_t keep);

/* Time passes for everybody; nobody is ticked. */
void lab_pass(struct lab *lab, uint64_t ms);
void lab_tick(struct lab *lab, int at);
/* The turn's end: deferred work. */
void lab_turn(struct lab *lab);
void lab_sync(struct lab *lab, int at);     /* all of it */
bool lab_sync_one(struct lab *lab, int at); /* one record */
/* Delivers (drops) the first message of that kind; -1, 0: any. */
bool lab_deliver(struct lab *lab, int from, int to, int type);
bool lab_drop(struct lab *lab, int from, int to, int type);
void lab_drop_all(struct lab *lab, int from, int to, int type);
/* The same message again, without removing it; the first of that kind. */
struct lab_message *lab_find(struct lab *lab, int from, int to, int type);
void lab_hand(struct lab *lab, struct lab_message *message); /* and frees */
/* Delivers and syncs until nothing is left. */
void lab_settle(struct lab *lab);
/* Makes `at` campaign now and win if it can. */
void lab_elect(struct lab *lab, int at);
/* Time passes with ticks and everything delivered. */
void lab_run(struct lab *lab, uint64_t ms);

enum err lab_propose(struct lab *lab, int at, const char *text);
enum err lab_propose_bytes(struct lab *lab, int at, size_t size);
struct raft *lab_raft(struct lab *lab, int at);
/* The one that leads with the newest term; -1. */
int lab_leader(struct lab *lab);
/* A message as if another replica had sent it. */
void lab_forge(struct lab *lab, int from, int to, const struct message *m,
               const struct message_entry *entries);
void lab_check(struct lab *lab);

#endif
