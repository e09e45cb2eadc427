/* Record batches: validation, records, headers, what coordinators read.
 * Input: u8 flags (1: checksum made right, 2: length too, 4: keys needed,
 * 8: append time), u8 codec that is forced (5: as it is) or, from 8 on, only
 * the codec is run; then the bytes of the batch. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "coordinator/records.h"
#include "partition/batch.h"
#include "partition/bytes.h"
#include "partition/producer_state.h"
#include "tests/fuzz/fuzz.h"

static void validate(const uint8_t *batch, size_t size, uint64_t flags)
{
    struct batch_limits limits = {
        .max_message_bytes = 1 << 20,
        .segment_bytes = 1 << 30,
        .needs_keys = (flags & 4) != 0,
        .append_time = (flags & 8) != 0,
        .timestamp_before_max_ms = 1000000,
        .timestamp_after_max_ms = 1000,
        .now_ms = 1700000000000,
        .api_version = (flags & 16) != 0 ? 6 : 11,
    };
    struct batch_verdict verdict;
    uint8_t header[BATCH_HEADER_SIZE];
    batch_validate(batch, size, &limits, &verdict);
    if (verdict.error != KAFKA_NONE) {
        FUZZ_CHECK(verdict.message != NULL);
        return;
    }
    FUZZ_CHECK(batch_is_whole(batch, size));
    batch_stamp(batch, size, (kafka_offset){77}, 3,
                limits.append_time ? limits.now_ms : -1, verdict.max_timestamp,
                header);
    struct producers *ps = producers_new();
    struct producer_batch original;
    struct batch_header h = verdict.header;
    h.base_offset.v = 77;
    if (h.producer_id >= 0 &&
        producers_check(ps, &h, &original) == KAFKA_NONE) {
        producers_append(ps, &h);
        producers_apply(ps, &h, 5);
        FUZZ_CHECK(producers_check(ps, &h, &original) != KAFKA_NONE);
    }
    producers_free(ps);
}

static uint32_t sum;

static void touch(const void *p, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        sum += ((const uint8_t *)p)[i];
    }
}

static void walk(const uint8_t *batch, size_t size)
{
    struct batch_records r;
    struct batch_record record;
    struct record_header header;
    int32_t n = 0;
    if (batch_records_open(&r, batch, size, 1 << 20) == ERR_OK) {
        while (batch_records_next(&r, &record)) {
            const uint8_t *at = record.headers;
            int32_t n_headers = 0;
            touch(record.key, record.key_size);
            touch(record.value, record.value_size);
            while (batch_record_header(&record, &at, &header)) {
                touch(header.key, header.key_size);
                touch(header.value, header.value_size);
                n_headers++;
            }
            FUZZ_CHECK(n_headers == record.n_headers);
            n++;
        }
        FUZZ_CHECK(r.status != ERR_OK || n == r.header.record_count);
    }
    batch_records_close(&r);
}

static void on_group(void *arg, const struct group_record *g, bool tombstone)
{
    (void)arg;
    touch(g->group_id.p, g->group_id.n);
    for (int i = 0; i < g->n_members && !tombstone; i++) {
        touch(g->members[i].member_id.p, g->members[i].member_id.n);
        touch(g->members[i].assignment.p, g->members[i].assignment.n);
    }
}
static void on_offset(void *arg, const struct offset_record *o, bool tombstone)
{
    (void)arg, (void)tombstone;
    touch(o->group_id.p, o->group_id.n);
    touch(o->topic.p, o->topic.n);
    touch(o->metadata.p, o->metadata.n);
}

static void unpack(uint64_t codec, const uint8_t *data, size_t size)
{
    struct buffer out = {0}, packed = {0}, plain = {0};
    (void)!compress_unpack((enum batch_codec)(codec % 8), data, size, 1 << 20,
                           &out);
    if (compress_pack((enum batch_codec)(codec % 8), data, size, &packed) ==
        ERR_OK) {
        FUZZ_CHECK(compress_unpack((enum batch_codec)(codec % 8), packed.data,
                                   packed.size, size, &plain) == ERR_OK);
        FUZZ_CHECK(plain.size == size &&
                   (size == 0 || memcmp(plain.data, data, size) == 0));
    }
    buffer_free(&out);
    buffer_free(&packed);
    buffer_free(&plain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, size};
    uint64_t flags = fuzz_uint(&in, 1), codec = fuzz_uint(&in, 1);
    const struct records_reader reader = {NULL, on_group, on_offset};
    uint8_t *batch = fuzz_copy(in.p, in.left);
    if (codec >= 8) {
        unpack(codec, batch, in.left);
        free(batch);
        return 0;
    }
    if (codec < 5 && in.left >= BATCH_HEADER_SIZE) {
        batch[22] = (uint8_t)((batch[22] & ~BATCH_CODEC_MASK) | (int)codec);
    }
    if (flags & 1) {
        fuzz_repair_batches(batch, in.left, (flags & 2) != 0);
    }
    validate(batch, in.left, flags);
    if (batch_is_whole(batch, in.left)) {
        walk(batch, in.left);
        (void)!records_read(batch, in.left, &reader);
    }
    free(batch);
    return 0;
}

static void add(struct batch_builder *b, int i)
{
    char key[16], value[64];
    struct record_header headers[2] = {
        {(const uint8_t *)"trace", 5, (const uint8_t *)"abc", 3},
        {(const uint8_t *)"n", 1, NULL, -1}};
    int k = snprintf(key, sizeof key, "key-%d", i % 3);
    int v = snprintf(value, sizeof value, "value %d of something longer", i);
    batch_builder_add(b, 1700000000000 + i, i % 5 == 0 ? NULL : key,
                      i % 5 == 0 ? -1 : k, i % 4 == 3 ? NULL : value,
                      i % 4 == 3 ? -1 : v, headers, i % 3);
}

static void finish(struct batch_builder *b, const char *name, uint8_t flags)
{
    const uint8_t *batch;
    size_t size;
    struct buffer out = {0};
    FUZZ_CHECK(batch_builder_finish(b, &batch, &size) == ERR_OK);
    uint8_t head[2] = {flags, 5};
    buffer_append(&out, head, 2);
    buffer_append(&out, batch, size);
    fuzz_seed(name, out.data, out.size);
    /* the codec alone */
    if (b->codec != CODEC_NONE) {
        char alone[80];
        snprintf(alone, sizeof alone, "%s-codec", name);
        buffer_clear(&out);
        head[1] = (uint8_t)(8 + b->codec);
        buffer_append(&out, head, 2);
        buffer_append(&out, batch + BATCH_HEADER_SIZE,
                      size - BATCH_HEADER_SIZE);
        fuzz_seed(alone, out.data, out.size);
    }
    buffer_free(&out);
    batch_builder_free(b);
}

#define TEXT(literal)                  \
    {                                  \
        (literal), sizeof(literal) - 1 \
    }
static void seed_group(bool tombstone)
{
    static const struct group_record_member member = {
        .member_id = TEXT("consumer-1-aaaa"),
        .instance_id = {NULL, -1},
        .client_id = TEXT("consumer-1"),
        .client_host = TEXT("/127.0.0.1"),
        .session_timeout_ms = 45000,
        .rebalance_timeout_ms = 300000,
        .subscription = {(const uint8_t *)"\0\1\0\0", 4},
        .assignment = {(const uint8_t *)"\0\1\0\0", 4}};
    struct group_record group = {.group_id = TEXT("readers"),
                                 .protocol_type = TEXT("consumer"),
                                 .protocol = TEXT("range"),
                                 .leader = TEXT("consumer-1-aaaa"),
                                 .generation = 3,
                                 .timestamp_ms = 1700000000000,
                                 .n_members = 1,
                                 .members = &member};
    struct offset_record offset = {.group_id = TEXT("readers"),
                                   .topic = TEXT("lines"),
                                   .partition = 2,
                                   .offset = {99},
                                   .leader_epoch = 4,
                                   .metadata = TEXT("note"),
                                   .commit_timestamp_ms = 1700000000000};
    struct batch_builder b;
    batch_builder_init(&b, CODEC_NONE);
    records_add_group(&b, 1700000000000, &group, tombstone);
    records_add_offset(&b, 1700000000000, &offset, tombstone);
    finish(&b, tombstone ? "tombstones" : "group", 1);
}

void fuzz_seeds(void)
{
    for (int codec = 0; codec <= 4; codec++) {
        for (int n = 1; n <= 30; n += 29) {
            struct batch_builder b;
            char name[64];
            batch_builder_init(&b, (enum batch_codec)codec);
            if (n > 1) {
                b.producer_id = 1000;
                b.producer_epoch = 2;
                b.base_sequence = 40;
            }
            for (int i = 0; i < n; i++) {
                add(&b, i);
            }
            snprintf(name, sizeof name, "%s-%d", compress_name(codec), n);
            finish(&b, name, n > 1 ? 1 : 4 | 1);
        }
    }
    seed_group(false);
    seed_group(true);
}
