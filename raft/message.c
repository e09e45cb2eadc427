#include "raft/message.h"

#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/limits.h"

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static void put64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
           (uint32_t)p[3] << 24;
}

static uint64_t get64(const uint8_t *p)
{
    return (uint64_t)get32(p) | (uint64_t)get32(p + 4) << 32;
}

/* Size of the fixed part; 0 for an unknown type. */
static size_t head_size(unsigned type)
{
    switch (type) {
        case MESSAGE_APPEND:
            return 64;
        case MESSAGE_APPEND_RESULT:
            return 56;
        case MESSAGE_VOTE:
        case MESSAGE_TIMEOUT_NOW:
        case MESSAGE_OFFER:
            return 48;
        case MESSAGE_VOTE_RESULT:
            return 32;
        default:
            return 0;
    }
}

size_t message_encode(const struct message *m, uint8_t out[MESSAGE_HEAD_MAX])
{
    size_t size = head_size(m->type);

    ASSERT(size != 0);
    out[0] = MESSAGE_VERSION;
    out[1] = (uint8_t)m->type;
    out[2] = m->flags;
    out[3] = 0;
    put32(out + 4, m->n_entries);
    put64(out + 8, m->from);
    put64(out + 16, m->to);
    put64(out + 24, m->term);
    switch (m->type) {
        case MESSAGE_APPEND:
            put64(out + 32, m->prev_index);
            put64(out + 40, m->prev_term);
            put64(out + 48, m->commit);
            put64(out + 56, m->round);
            break;
        case MESSAGE_APPEND_RESULT:
            put64(out + 32, m->rejected);
            put64(out + 40, m->last_index);
            put64(out + 48, m->round);
            break;
        case MESSAGE_VOTE:
        case MESSAGE_TIMEOUT_NOW:
        case MESSAGE_OFFER:
            put64(out + 32, m->last_index);
            put64(out + 40, m->last_term);
            break;
        case MESSAGE_VOTE_RESULT:
            break;
    }
    return size;
}

void message_encode_entry(const struct message_entry *entry, uint8_t *out)
{
    put64(out, entry->term);
    put32(out + 8, entry->size);
    put32(out + 12, entry->crc);
    out[16] = entry->type;
    memset(out + 17, 0, 7);
}

enum err message_decode(const uint8_t *body, size_t size, struct message *out)
{
    size_t head;

    memset(out, 0, sizeof *out);
    if (size < 32 || body[0] != MESSAGE_VERSION)
        return ERR_INVALID;
    head = head_size(body[1]);
    if (head == 0 || size < head)
        return ERR_INVALID;
    out->type = (enum message_type)body[1];
    out->flags = body[2];
    out->n_entries = get32(body + 4);
    out->from = get64(body + 8);
    out->to = get64(body + 16);
    out->term = get64(body + 24);
    if (out->from == 0 || out->to == 0 || out->from == out->to)
        return ERR_INVALID;
    switch (out->type) {
        case MESSAGE_APPEND:
            out->prev_index = get64(body + 32);
            out->prev_term = get64(body + 40);
            out->commit = get64(body + 48);
            out->round = get64(body + 56);
            if (out->n_entries > LIMIT_RAFT_APPEND_ENTRIES)
                return ERR_INVALID;
            head += (size_t)out->n_entries * MESSAGE_ENTRY_SIZE;
            return size >= head ? ERR_OK : ERR_INVALID;
        case MESSAGE_APPEND_RESULT:
            out->rejected = get64(body + 32);
            out->last_index = get64(body + 40);
            out->round = get64(body + 48);
            break;
        case MESSAGE_VOTE:
        case MESSAGE_TIMEOUT_NOW:
        case MESSAGE_OFFER:
            out->last_index = get64(body + 32);
            out->last_term = get64(body + 40);
            break;
        case MESSAGE_VOTE_RESULT:
            break;
    }
    return out->n_entries == 0 && size == head ? ERR_OK : ERR_INVALID;
}

static bool entry_type_known(uint8_t type)
{
    return type == ENTRY_NOOP || type == ENTRY_CONFIG || type == ENTRY_DATA ||
           type == ENTRY_CONTROL;
}

enum err message_decode_entries(const uint8_t *body, size_t size,
                                const struct message *m,
                                struct message_entry *out)
{
    const uint8_t *head = body + 64;
    size_t left = size - 64 - (size_t)m->n_entries * MESSAGE_ENTRY_SIZE;
    const uint8_t *payload = body + (size - left);
    uint64_t term = m->prev_term;

    for (uint32_t i = 0; i < m->n_entries; i++, head += MESSAGE_ENTRY_SIZE) {
        struct message_entry *e = &out[i];

        e->term = get64(head);
        e->size = get32(head + 8);
        e->crc = get32(head + 12);
        e->type = head[16];
        e->payload = payload;
        if (e->term == 0 || e->term < term || e->term > m->term ||
            !entry_type_known(e->type) || e->size > left)
            return ERR_INVALID;
        if (crc32c(0, payload, e->size) != e->crc)
            return ERR_INVALID;
        term = e->term;
        payload += e->size;
        left -= e->size;
    }
    return left == 0 ? ERR_OK : ERR_INVALID;
}
