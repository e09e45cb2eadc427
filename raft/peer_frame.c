#include "raft/peer_frame.h"

#include "base/assert.h"
#include "base/crc32c.h"

static void put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static void put32(uint8_t *p, uint32_t v)
{
    put16(p, (uint16_t)v);
    put16(p + 2, (uint16_t)(v >> 16));
}

static void put64(uint8_t *p, uint64_t v)
{
    put32(p, (uint32_t)v);
    put32(p + 4, (uint32_t)(v >> 32));
}

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) | (uint32_t)get16(p + 2) << 16;
}

static uint64_t get64(const uint8_t *p)
{
    return (uint64_t)get32(p) | (uint64_t)get32(p + 4) << 32;
}

void peer_frame_write(const struct peer_frame *frame,
                      uint8_t out[PEER_FRAME_HEADER])
{
    out[0] = 'F';
    out[1] = 'L';
    out[2] = PEER_VERSION;
    out[3] = (uint8_t)frame->kind;
    put32(out + 4, frame->size);
    put64(out + 8, frame->id);
    put16(out + 16, frame->code);
    put16(out + 18, 0);
    put32(out + 20, frame->body_crc);
    put32(out + 24, crc32c(0, out, 24));
}

static uint32_t body_max(enum peer_kind kind)
{
    switch (kind) {
        case PEER_HELLO:
        case PEER_HELLO_ACK:
            return PEER_HELLO_MAX;
        case PEER_PING:
        case PEER_PONG:
        case PEER_KIND_END:
            return 0;
        case PEER_RAFT:
            return PEER_BODY_MAX;
        case PEER_RPC_REQUEST:
        case PEER_RPC_RESPONSE:
            return RPC_SIZE_MAX;
    }
    return 0;
}

enum err peer_frame_read(const uint8_t in[PEER_FRAME_HEADER],
                         struct peer_frame *out, const char **why)
{
    if (in[0] != 'F' || in[1] != 'L') {
        *why = "what arrived is no frame of a broker";
        return ERR_CORRUPT;
    }
    if (get32(in + 24) != crc32c(0, in, 24)) {
        *why = "a frame's header is damaged";
        return ERR_CORRUPT;
    }
    if (in[2] != PEER_VERSION) {
        *why = "the peer speaks another version of the protocol";
        return ERR_UNSUPPORTED;
    }
    if (in[3] == 0 || in[3] >= PEER_KIND_END) {
        *why = "a frame is of an unknown kind";
        return ERR_UNSUPPORTED;
    }
    out->kind = (enum peer_kind)in[3];
    out->size = get32(in + 4);
    out->id = get64(in + 8);
    out->code = get16(in + 16);
    out->body_crc = get32(in + 20);
    if (out->size > body_max(out->kind)) {
        *why = "a frame is larger than its kind may be";
        return ERR_TOO_LARGE;
    }
    return ERR_OK;
}

bool peer_frame_body_intact(const struct peer_frame *frame, const uint8_t *body)
{
    return crc32c(0, body, frame->size) == frame->body_crc;
}

void peer_group_id_write(const struct group_id *id,
                         uint8_t out[PEER_GROUP_ID_SIZE])
{
    memcpy(out, id->topic.b, sizeof id->topic.b);
    put32(out + 16, (uint32_t)id->partition);
}

void peer_group_id_read(const uint8_t in[PEER_GROUP_ID_SIZE],
                        struct group_id *out)
{
    memcpy(out->topic.b, in, sizeof out->topic.b);
    out->partition = (int32_t)get32(in + 16);
}

static uint8_t *put_text(uint8_t *p, const char *text)
{
    size_t n = strlen(text);
    put16(p, (uint16_t)n);
    memcpy(p + 2, text, n);
    return p + 2 + n;
}

#define HELLO_FIXED 56

size_t peer_hello_write(const struct peer_hello *hello,
                        uint8_t out[PEER_HELLO_MAX])
{
    put16(out, hello->version);
    out[2] = (uint8_t)hello->lane;
    out[3] = hello->accepted;
    put32(out + 4, hello->shard);
    put32(out + 8, hello->n_shards);
    put32(out + 12, (uint32_t)hello->node);
    memcpy(out + 16, hello->cluster.b, 16);
    memcpy(out + 32, hello->directory.b, 16);
    put64(out + 48, hello->incarnation);
    uint8_t *p = put_text(out + HELLO_FIXED, hello->address);
    p = put_text(p, hello->why);
    ASSERT(p <= out + PEER_HELLO_MAX);
    return (size_t)(p - out);
}

/* Reads a counted text without NUL bytes into text[size]; the rest of the
 * input, or NULL. */
static const uint8_t *get_text(const uint8_t *p, const uint8_t *end, char *text,
                               size_t size)
{
    if (end - p < 2)
        return NULL;
    size_t n = get16(p);
    p += 2;
    if ((size_t)(end - p) < n || n >= size || memchr(p, 0, n) != NULL)
        return NULL;
    memcpy(text, p, n);
    text[n] = 0;
    return p + n;
}

enum err peer_hello_read(const uint8_t *in, size_t size, struct peer_hello *out)
{
    memset(out, 0, sizeof *out);
    if (size < HELLO_FIXED || in[2] >= LANE_COUNT)
        return ERR_INVALID;
    out->version = get16(in);
    out->lane = (enum peer_lane)in[2];
    out->accepted = in[3] != 0;
    out->shard = get32(in + 4);
    out->n_shards = get32(in + 8);
    out->node = (node_id)get32(in + 12);
    memcpy(out->cluster.b, in + 16, 16);
    memcpy(out->directory.b, in + 32, 16);
    out->incarnation = get64(in + 48);
    if (out->node < 0 || out->n_shards == 0 || out->shard >= out->n_shards)
        return ERR_INVALID;
    const uint8_t *end = in + size;
    const uint8_t *p =
        get_text(in + HELLO_FIXED, end, out->address, sizeof out->address);
    if (p == NULL || get_text(p, end, out->why, sizeof out->why) == NULL)
        return ERR_INVALID;
    return ERR_OK;
}
