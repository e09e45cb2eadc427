#include "jepsen/load.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/mem.h"
#include "jepsen/history.h"

/* Values of a worker lie in a range of their own. */
#define VALUES_EACH 10000000000

void worker_init(struct worker *w, struct load *load, int number)
{
    *w = (struct worker){
        .load = load,
        .number = number,
        .process = load->process_base + number,
    };
    prng_seed(&w->prng,
              load->seed * 1000003 + (uint64_t)w->process * 7919 + 17);
    w->crash_at_ns =
        now_ns() + (int64_t)prng_below(&w->prng, (uint64_t)load->crash_ns * 2);
}

int64_t worker_value(struct worker *w)
{
    return (w->load->process_base + w->number + 1) * VALUES_EACH + w->values++;
}

static int64_t window_begin(const struct worker *w)
{
    return (now_ns() - w->load->start_ns) / w->load->retire_ns;
}

int64_t worker_key(struct worker *w)
{
    int64_t rank = 0;

    while (rank < KEYS_ACTIVE - 1 && prng_chance(&w->prng, 1, 2))
        rank++;
    return window_begin(w) + rank;
}

size_t worker_keys(struct worker *w, int64_t *keys, size_t max)
{
    size_t n = 1 + prng_below(&w->prng, max), got = 0;
    bool old = prng_chance(&w->prng, 1, 4);

    for (size_t i = 0; i < n; i++) {
        int64_t key = worker_key(w);
        bool known = false;

        if (old)
            key = (int64_t)prng_below(&w->prng, (uint64_t)key + 1);
        for (size_t j = 0; j < got; j++)
            known |= keys[j] == key;
        if (!known)
            keys[got++] = key;
    }
    return got;
}

bool worker_crashes(struct worker *w)
{
    int64_t now = now_ns();

    if (now < w->crash_at_ns)
        return false;
    w->crash_at_ns =
        now + (int64_t)prng_below(&w->prng, (uint64_t)w->load->crash_ns * 2);
    return true;
}

void key_topic(int64_t key, char topic[TOPIC_MAX], int32_t *partition)
{
    if (key >= KEY_STEADY) {
        snprintf(topic, TOPIC_MAX, "steady");
        *partition = (int32_t)(key - KEY_STEADY);
        return;
    }
    snprintf(topic, TOPIC_MAX, "t%" PRId64, key / 2);
    *partition = (int32_t)(key % 2);
}

int64_t key_of_topic(const char *topic, size_t n, int32_t partition)
{
    int64_t number = 0;

    if (n == 6 && memcmp(topic, "steady", 6) == 0)
        return KEY_STEADY + partition;
    if (n < 2 || n > 8 || topic[0] != 't')
        return -1;
    for (size_t i = 1; i < n; i++) {
        if (topic[i] < '0' || topic[i] > '9')
            return -1;
        number = number * 10 + topic[i] - '0';
    }
    return number * 2 + partition;
}

/* Filler that tells where it belongs, so that mixed up pieces are noticed. */
static uint8_t filler(int64_t value, size_t i)
{
    return (uint8_t)('a' + ((uint64_t)value + i * 7) % 26);
}

size_t record_write(uint8_t *out, int64_t key, int64_t value)
{
    size_t size = RECORD_MIN + (size_t)((uint64_t)value * 37 % 200);
    uint32_t crc, length = (uint32_t)size;

    if (value % 50 == 0)
        size = RECORD_MAX;
    length = (uint32_t)size;
    memcpy(out, &key, 8);
    memcpy(out + 8, &value, 8);
    memcpy(out + 16, &length, 4);
    for (size_t i = 20; i < size - 4; i++)
        out[i] = filler(value, i);
    crc = crc32c(0, out, size - 4);
    memcpy(out + size - 4, &crc, 4);
    return size;
}

bool record_read(const uint8_t *data, size_t size, int64_t key, int64_t *value)
{
    int64_t its_key;
    uint32_t crc, length;

    if (size < RECORD_MIN || size > RECORD_MAX)
        return false;
    memcpy(&its_key, data, 8);
    memcpy(value, data + 8, 8);
    memcpy(&length, data + 16, 4);
    memcpy(&crc, data + size - 4, 4);
    return its_key == key && length == size && crc32c(0, data, size - 4) == crc;
}

bool ends_read(const char *path, struct ends *e)
{
    FILE *f = fopen(path, "r");
    int64_t key, end;
    size_t cap = 0;

    *e = (struct ends){0};
    if (f == NULL)
        return false;
    while (fscanf(f, "%" SCNd64 " %" SCNd64, &key, &end) == 2) {
        if (e->n == cap) {
            cap = cap * 2 + 256;
            e->keys = mem_realloc(e->keys, cap * sizeof *e->keys);
            e->ends = mem_realloc(e->ends, cap * sizeof *e->ends);
        }
        e->keys[e->n] = key;
        e->ends[e->n++] = end;
    }
    fclose(f);
    return e->n > 0;
}

void ends_free(struct ends *e)
{
    mem_free(e->keys);
    mem_free(e->ends);
}
