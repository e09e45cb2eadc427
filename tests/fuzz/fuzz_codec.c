/* Every message of the wire and of internal topics, at every version.
 * Input: u8 API (or message beyond the APIs), u8 version, u8 1: response;
 * then the bytes of the body. What can be read is written again, and must then
 * read the same. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "schema/consumer_offsets.h"
#include "schema/consumer_protocol.h"
#include "schema/control_records.h"
#include "schema/share_group_state.h"
#include "schema/transaction_state.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/codec_random.h"

/* Numbers of the corpus: only append. */
static const struct codec_message *const others[] = {
    &consumer_group_current_member_assignment_key_message,
    &consumer_group_current_member_assignment_value_message,
    &consumer_group_member_metadata_key_message,
    &consumer_group_member_metadata_value_message,
    &consumer_group_metadata_key_message,
    &consumer_group_metadata_value_message,
    &consumer_group_partition_metadata_key_message,
    &consumer_group_partition_metadata_value_message,
    &consumer_group_regular_expression_key_message,
    &consumer_group_regular_expression_value_message,
    &consumer_group_target_assignment_member_key_message,
    &consumer_group_target_assignment_member_value_message,
    &consumer_group_target_assignment_metadata_key_message,
    &consumer_group_target_assignment_metadata_value_message,
    &group_metadata_key_message,
    &group_metadata_value_message,
    &legacy_offset_commit_key_message,
    &legacy_offset_commit_value_message,
    &offset_commit_key_message,
    &offset_commit_value_message,
    &share_group_current_member_assignment_key_message,
    &share_group_current_member_assignment_value_message,
    &share_group_member_metadata_key_message,
    &share_group_member_metadata_value_message,
    &share_group_metadata_key_message,
    &share_group_metadata_value_message,
    &share_group_state_partition_metadata_key_message,
    &share_group_state_partition_metadata_value_message,
    &share_group_target_assignment_member_key_message,
    &share_group_target_assignment_member_value_message,
    &share_group_target_assignment_metadata_key_message,
    &share_group_target_assignment_metadata_value_message,
    &streams_group_current_member_assignment_key_message,
    &streams_group_current_member_assignment_value_message,
    &streams_group_member_metadata_key_message,
    &streams_group_member_metadata_value_message,
    &streams_group_metadata_key_message,
    &streams_group_metadata_value_message,
    &streams_group_target_assignment_member_key_message,
    &streams_group_target_assignment_member_value_message,
    &streams_group_target_assignment_metadata_key_message,
    &streams_group_target_assignment_metadata_value_message,
    &streams_group_topology_key_message,
    &streams_group_topology_value_message,
    &consumer_protocol_subscription_message,
    &consumer_protocol_assignment_message,
    &share_snapshot_key_message,
    &share_snapshot_value_message,
    &share_update_key_message,
    &share_update_value_message,
    &transaction_log_key_message,
    &transaction_log_value_message,
    &default_principal_data_message,
    &leader_change_message_message,
    &snapshot_header_record_message,
    &snapshot_footer_record_message,
    &kraft_version_record_message,
    &voters_record_message,
    &aborted_txn_message,
    &control_record_type_schema_message,
    &end_txn_marker_message,
};
#define N_OTHERS ((int)(sizeof others / sizeof others[0]))

static const struct codec_message *message_of(uint64_t n, bool response)
{
    n %= (uint64_t)(codec_n_apis + N_OTHERS);
    if (n >= (uint64_t)codec_n_apis) {
        return others[n - (uint64_t)codec_n_apis];
    }
    return response ? codec_apis[n].response : codec_apis[n].request;
}

static void write_again(const struct codec_message *m, const void *in,
                        int version)
{
    struct wire_writer w, again;
    struct wire_reader r;
    struct arena a;
    arena_init(&a, 1 << 26);
    wire_writer_init(&w, 0);
    codec_encode(m, &w, in, version);
    FUZZ_CHECK(w.size == codec_size(m, in, version));
    uint8_t *bytes = mem_alloc(w.size), *twice;
    wire_writer_copy(&w, bytes);
    void *out = mem_alloc(m->body->size);
    wire_reader_init(&r, bytes, w.size);
    codec_decode(m, &r, version, &a, out);
    FUZZ_CHECK(r.err == ERR_OK && wire_left(&r) == 0);
    wire_writer_init(&again, 0);
    codec_encode(m, &again, out, version);
    twice = mem_alloc(again.size);
    wire_writer_copy(&again, twice);
    FUZZ_CHECK(again.size == w.size && memcmp(bytes, twice, w.size) == 0);
    mem_free(twice);
    mem_free(out);
    mem_free(bytes);
    wire_writer_free(&again);
    wire_writer_free(&w);
    arena_free(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, size};
    uint64_t n = fuzz_uint(&in, 1), v = fuzz_uint(&in, 1);
    const struct codec_message *m = message_of(n, fuzz_uint(&in, 1) & 1);
    if (m == NULL) {
        return 0;
    }
    int version = m->first + (int)(v % (uint64_t)(m->last - m->first + 1));
    uint8_t *bytes = fuzz_copy(in.p, in.left);
    struct wire_reader r;
    struct arena a;
    char text[300];
    void *out = mem_alloc(m->body->size);
    arena_init(&a, 1 << 22);
    wire_reader_init(&r, bytes, in.left);
    codec_decode(m, &r, version, &a, out);
    codec_print(m, out, version, text, sizeof text);
    if (r.err == ERR_OK) {
        write_again(m, out, version);
    }
    mem_free(out);
    arena_free(&a);
    free(bytes);
    return 0;
}

static void seed(int n, bool response, int version, struct prng *rng)
{
    const struct codec_message *m = message_of((uint64_t)n, response);
    struct wire_writer w;
    struct arena a;
    char name[64];
    arena_init(&a, 0);
    void *in = arena_alloc(&a, m->body->size);
    wire_writer_init(&w, 0);
    for (int round = 0; round < 20 && (w.size < 8 || w.size > 250); round++) {
        wire_writer_free(&w);
        wire_writer_init(&w, 0);
        codec_random(m, version, rng, &a, in);
        codec_encode(m, &w, in, version);
    }
    if (w.size <= 400) {
        uint8_t bytes[403] = {(uint8_t)n, (uint8_t)(version - m->first),
                              response};
        wire_writer_copy(&w, bytes + 3);
        snprintf(name, sizeof name, "%03d-%d-%d", n, response, version);
        fuzz_seed(name, bytes, w.size + 3);
    }
    wire_writer_free(&w);
    arena_free(&a);
}

void fuzz_seeds(void)
{
    struct prng rng;
    prng_seed(&rng, 1);
    for (int n = 0; n < codec_n_apis + N_OTHERS; n++) {
        for (int response = 0; response < 2; response++) {
            const struct codec_message *m = message_of((uint64_t)n, response);
            if (m != NULL) {
                seed(n, response, m->first, &rng);
                seed(n, response, m->last, &rng);
            }
        }
    }
}
