#include "partition/tail.h"

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/mem.h"
#include "partition/bytes.h"

#define TAIL_MAGIC 0x46544149u
#define TAIL_HEAD 40
#define TAIL_MAX (TAIL_HEAD + 2 * ENV_BLOCK_SIZE)
_Static_assert(TAIL_MAX <= SIDE_TAIL_BYTES, "both tails fit their place");
_Static_assert(SIDE_TAILS_AT % ENV_BLOCK_SIZE == 0 &&
                   SIDE_TAIL_BYTES % ENV_BLOCK_SIZE == 0,
               "places share no block with anything");

static uint64_t place_of(const struct log_state *state)
{
    return SIDE_TAILS_AT + (state->tail_area ? SIDE_TAIL_BYTES : 0);
}

static uint32_t rest_of(uint64_t end)
{
    return (uint32_t)(end % ENV_BLOCK_SIZE);
}

static enum err read_exactly(struct env_file *file, void *to, size_t size,
                             uint64_t at)
{
    size_t got;
    enum err status = env_file_pread(file, to, size, at, &got);
    return status == ERR_OK && got < size ? ERR_CORRUPT : status;
}

static uint32_t tail_crc(const uint8_t *copy, size_t size)
{
    return crc32c(0, copy + 8, size - 8);
}

enum err tail_save(struct env_file *side, const struct log_state *state,
                   const uint8_t *log_tail)
{
    uint64_t side_end = side_offset(state->slots);
    uint32_t log_bytes = rest_of(state->position);
    uint32_t side_bytes = rest_of(side_end);
    size_t size = TAIL_HEAD + log_bytes + side_bytes;
    uint8_t *copy = mem_zalloc(size);
    put_u32(copy, TAIL_MAGIC);
    put_u64(copy + 8, state->index.v);
    put_u64(copy + 16, state->position);
    put_u32(copy + 24, log_bytes);
    put_u64(copy + 28, state->slots);
    put_u32(copy + 36, side_bytes);
    memcpy(copy + TAIL_HEAD, log_tail, log_bytes);
    enum err status = read_exactly(side, copy + TAIL_HEAD + log_bytes,
                                   side_bytes, side_end - side_bytes);
    if (status == ERR_OK) {
        struct iovec iov = {copy, size};
        put_u32(copy + 4, tail_crc(copy, size));
        status = env_file_pwritev(side, &iov, 1, place_of(state), false);
    }
    mem_free(copy);
    return status;
}

/* True when it is the copy of this state. */
static bool copy_fits(const uint8_t *copy, size_t got,
                      const struct log_state *state)
{
    if (got < TAIL_HEAD || get_u32(copy) != TAIL_MAGIC ||
        get_u64(copy + 8) != state->index.v ||
        get_u64(copy + 16) != state->position ||
        get_u32(copy + 24) != rest_of(state->position) ||
        get_u64(copy + 28) != state->slots ||
        get_u32(copy + 36) != rest_of(side_offset(state->slots))) {
        return false;
    }
    size_t size = TAIL_HEAD + get_u32(copy + 24) + get_u32(copy + 36);
    return size <= got && get_u32(copy + 4) == tail_crc(copy, size);
}

enum err tail_load(struct env_file *log, struct env_file *side,
                   const struct log_state *state, uint8_t *block)
{
    uint32_t size = rest_of(state->position);
    uint8_t *copy = mem_alloc(TAIL_MAX);
    size_t got = 0;
    enum err status =
        size == 0 ? ERR_OK
                  : env_file_pread(side, copy, TAIL_MAX, place_of(state), &got);
    if (status == ERR_OK && size > 0 && copy_fits(copy, got, state)) {
        memcpy(block, copy + TAIL_HEAD, size);
    } else if (status == ERR_OK && size > 0) {
        status = env_file_pread(log, block, ENV_BLOCK_SIZE,
                                state->position - size, &got);
        if (status == ERR_OK && got < size) {
            status = ERR_CORRUPT;
        }
    }
    mem_free(copy);
    return status;
}

static enum err put_back(struct env_file *file, const uint8_t *bytes,
                         uint32_t size, uint64_t end, const char *name)
{
    uint8_t now[ENV_BLOCK_SIZE];
    struct iovec iov = {(void *)(uintptr_t)bytes, size};
    enum err status = read_exactly(file, now, size, end - size);
    if (status != ERR_OK || memcmp(now, bytes, size) == 0) {
        return status;
    }
    log_info("partition",
             "%s: the last block of a segment was cut off while it was "
             "written; its %u bytes are put back",
             name, size);
    return env_file_pwritev(file, &iov, 1, end - size, true);
}

enum err tail_repair(struct env_file *log, struct env_file *side,
                     const struct log_state *state, const char *name)
{
    uint8_t *copy = mem_alloc(TAIL_MAX);
    size_t got = 0;
    enum err status =
        env_file_pread(side, copy, TAIL_MAX, place_of(state), &got);
    if (status == ERR_OK && !copy_fits(copy, got, state)) {
        log_warn("partition", "%s: the copy of a segment's tail is damaged",
                 name);
    } else if (status == ERR_OK) {
        uint32_t log_bytes = get_u32(copy + 24);
        status =
            put_back(log, copy + TAIL_HEAD, log_bytes, state->position, name);
        if (status == ERR_OK) {
            status =
                put_back(side, copy + TAIL_HEAD + log_bytes, get_u32(copy + 36),
                         side_offset(state->slots), name);
        }
    }
    mem_free(copy);
    return status;
}
