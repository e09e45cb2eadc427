/* Client quotas: how clients are named in the image, and whose quota counts. */
#include <check.h>

#include "base/buffer.h"
#include "metadata/quota.h"
#include "metadata/record.h"

static struct wire_str text(const char *s)
{
    return wire_str_of(s);
}

START_TEST(test_entity__there_and_back)
{
    const struct {
        const char *user, *client, *text;
    } cases[] = {
        {NULL, "c1", "client-id=c1"},
        {NULL, "", "client-id="},
        {"u", NULL, "user=u"},
        {"u,=1", "c 2", "user=u%2C%3D1,client-id=c%202"},
        {"", "\xc3\xa4%", "user=,client-id=%C3%A4%25"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct quota_entity e = {.has_user = cases[i].user != NULL,
                                 .has_client = cases[i].client != NULL,
                                 .user = text(cases[i].user),
                                 .client = text(cases[i].client)};
        char out[QUOTA_ENTITY_TEXT], names[QUOTA_ENTITY_TEXT];
        struct quota_entity back;
        ck_assert(quota_entity_write(&e, out));
        ck_assert_str_eq(out, cases[i].text);
        ck_assert(quota_entity_read(out, &back, names));
        ck_assert(back.has_user == e.has_user);
        ck_assert(back.has_client == e.has_client);
        ck_assert(!e.has_user || wire_str_equal(back.user, e.user));
        ck_assert(!e.has_client || wire_str_equal(back.client, e.client));
    }
}
END_TEST

START_TEST(test_entity__refused)
{
    char out[QUOTA_ENTITY_TEXT], names[QUOTA_ENTITY_TEXT];
    char longest[QUOTA_NAME_MAX + 1];
    memset(longest, '\n', sizeof longest);
    struct quota_entity e = {.has_user = true,
                             .has_client = true,
                             .user = {longest, QUOTA_NAME_MAX},
                             .client = {longest, QUOTA_NAME_MAX}};
    ck_assert(quota_entity_write(&e, out));
    ck_assert(quota_entity_read(out, &e, names));
    ck_assert_int_eq(e.client.n, QUOTA_NAME_MAX);
    e.client = (struct wire_str){longest, QUOTA_NAME_MAX + 1};
    ck_assert(!quota_entity_write(&e, out));
    const char *const bad[] = {
        "",           "user",        "client-id=a,user=b",
        "user=%4",    "user=%4g",    "user=a b",
        "user=a,",    "user=a,ip=b", "client-id=a,x",
        "user=%4a,%", "ip=1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_msg(!quota_entity_read(bad[i], &e, names), "%s", bad[i]);
    }
}
END_TEST

static struct image *image;
static uint64_t version;

static void set(const char *entity, const char *key, const char *value)
{
    struct buffer b = {0};
    record_batch_begin(&b);
    record_put_config(&b, CONFIG_CLIENT, entity, key, value);
    ck_assert_int_eq(
        image_apply(image, (log_index){++version}, b.data, b.size, NULL, NULL),
        ERR_OK);
    buffer_free(&b);
}

static double limit(const char *user, const char *client)
{
    struct quota_match m = {0};
    return quota_find(image, text(user), text(client), QUOTA_PRODUCE, &m)
               ? m.limit
               : -1;
}

/* From the least special on: each that is added counts before the others. */
START_TEST(test_find__nearest_first)
{
    static const struct {
        const char *entity;
        bool by_user, by_client;
    } order[] = {
        {"client-id=", false, true},
        {"client-id=c", false, true},
        {"user=", true, false},
        {"user=,client-id=", true, true},
        {"user=,client-id=c", true, true},
        {"user=u", true, false},
        {"user=u,client-id=", true, true},
        {"user=u,client-id=c", true, true},
    };
    image = image_new();
    ck_assert(limit("u", "c") < 0);
    for (int i = 0; i < 8; i++) {
        char value[] = "1";
        value[0] = (char)('1' + i);
        set(order[i].entity, "producer_byte_rate", value);
        struct quota_match m;
        ck_assert(quota_find(image, text("u"), text("c"), QUOTA_PRODUCE, &m));
        ck_assert_msg((int)m.limit == i + 1, "%s", order[i].entity);
        ck_assert(m.by_user == order[i].by_user);
        ck_assert(m.by_client == order[i].by_client);
        ck_assert(!quota_find(image, text("u"), text("c"), QUOTA_FETCH, &m));
    }
    ck_assert_int_eq((int)limit("u", "other"), 7);
    ck_assert_int_eq((int)limit("other", "c"), 5);
    ck_assert_int_eq((int)limit("other", NULL), 4);
    set("user=u,client-id=c", "producer_byte_rate", NULL);
    ck_assert_int_eq((int)limit("u", "c"), 7);
    image_free(image);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("quota");
    TCase *c = tcase_create("quota");
    tcase_add_test(c, test_entity__there_and_back);
    tcase_add_test(c, test_entity__refused);
    tcase_add_test(c, test_find__nearest_first);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
