/* What is asked of the metadata leader (body of RPC_METADATA_PROPOSE) and what
 * it answers: the structs and their bytes. Both sides are brokers of one
 * cluster, yet nothing of a body is trusted before it is checked. */
#ifndef METADATA_CHANGE_H
#define METADATA_CHANGE_H

#include "base/buffer.h"
#include "metadata/codec.h"
#include "metadata/metadata.h"

#define CHANGE_FORMAT 2

enum change_kind {
    CHANGE_CREATE_TOPICS = 1,
    CHANGE_DELETE_TOPICS,
    CHANGE_CREATE_PARTITIONS,
    CHANGE_ALTER_CONFIGS,
    CHANGE_PRODUCER_IDS, /* also an item each: none */
    CHANGE_REGISTER,
    CHANGE_SYNC,      /* changes nothing: how far must one have applied */
    CHANGE_UNREGISTER /* a broker that is gone for good */
};

/* One change; texts and arrays are owned when decoded (change_free), the
 * caller's when it is made for encoding. */
struct change {
    enum change_kind kind;
    struct uuid request; /* the same when it is repeated */
    uint32_t timeout_ms; /* left */
    bool validate_only;
    int n; /* items; 0 for the last four kinds */
    union {
        const struct metadata_new_topic *create;
        const struct metadata_topic_ref *delete;
        const struct metadata_more_partitions *more;
        const struct metadata_config_change *configs;
        int64_t producer_ids;       /* how many */
        struct image_broker broker; /* live, epoch: not sent */
        node_id unregister;
    } u;
};

struct change_answer {
    log_index index; /* applied from here on; 0: nothing was changed */
    enum kafka_error error;
    char sentence[256]; /* why a registration was refused; "" */
    int64_t first_id;
    struct metadata_quorum quorum; /* of CHANGE_SYNC; else no voters */
    int n_results;
    struct metadata_topic_result *results; /* owned */
};

void change_encode(struct buffer *b, const struct change *change);
/* ERR_INVALID; nothing to free then. */
MUST_USE enum err change_decode(const uint8_t *body, size_t size,
                                struct change *out);
void change_free(struct change *change);

void change_answer_encode(struct buffer *b, const struct change_answer *answer);
MUST_USE enum err change_answer_decode(const uint8_t *body, size_t size,
                                       struct change_answer *out);
void change_answer_free(struct change_answer *answer);

#endif
