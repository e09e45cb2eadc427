/* Groups by id: found as long as they are in, whatever else comes and goes. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/prng.h"
#include "raft/group_impl.h"
#include "raft/group_index.h"

#define IDS 3000

static struct group *group_make(uint32_t n)
{
    struct group *g = mem_zalloc(sizeof *g);
    /* topics of a few partitions, ids that differ in one byte only */
    g->creation.id.topic.b[3] = (uint8_t)(n / 300);
    g->creation.id.partition = (int32_t)(n % 300);
    return g;
}

START_TEST(comes_and_goes)
{
    struct prng prng;
    struct group_index index = {0};
    struct group *groups[IDS];
    bool in[IDS] = {false};
    uint32_t count = 0;

    prng_seed(&prng, 7);
    for (uint32_t i = 0; i < IDS; i++)
        groups[i] = group_make(i);
    ck_assert_ptr_null(group_index_find(&index, &groups[0]->creation.id));
    for (int step = 0; step < 20000; step++) {
        uint32_t i = (uint32_t)prng_below(&prng, IDS);

        ck_assert_ptr_eq(group_index_find(&index, &groups[i]->creation.id),
                         in[i] ? groups[i] : NULL);
        if (in[i])
            group_index_remove(&index, groups[i]);
        else
            group_index_add(&index, groups[i]);
        in[i] = !in[i];
        count += in[i] ? 1u : UINT32_MAX;
        ck_assert_uint_eq(index.count, count);
        ck_assert(index.size >= 2 * count);
    }
    for (uint32_t i = 0; i < IDS; i++)
        ck_assert_ptr_eq(group_index_find(&index, &groups[i]->creation.id),
                         in[i] ? groups[i] : NULL);
    for (uint32_t i = 0; i < IDS; i++)
        mem_free(groups[i]);
    group_index_free(&index);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("group_index");
    TCase *tc = tcase_create("group_index");
    tcase_add_test(tc, comes_and_goes);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
