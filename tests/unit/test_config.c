/* Configuration: the table of keys, values, the properties syntax, the
 * environment, addresses. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "metadata/config_keys.h"
#include "metadata/config_listeners.h"

static struct broker_config *config;
static char why[1024];
static char warnings[2048];

static void note(void *arg, const char *sentence)
{
    (void)arg;
    strncat(warnings, sentence, sizeof warnings - strlen(warnings) - 1);
    strncat(warnings, "\n", sizeof warnings - strlen(warnings) - 1);
}
static const struct config_problem_fn on_warn = {note, NULL};

static void setup(void)
{
    config = broker_config_new();
    why[0] = warnings[0] = '\0';
}
static void teardown(void)
{
    broker_config_free(config);
}

static enum err set(const char *key, const char *value)
{
    return broker_config_set(config, key, value, "-D", &on_warn, why,
                             sizeof why);
}
static enum err parse(const char *text)
{
    return broker_config_parse(config, text, strlen(text), "file", &on_warn,
                               why, sizeof why);
}
static const char *get(const char *key)
{
    return broker_config_get(config, key);
}

static void check_table(enum config_scope scope, int least)
{
    const struct config_key *keys;
    int n = config_keys(scope, &keys);
    ck_assert_int_ge(n, least);
    for (int i = 0; i < n; i++) {
        const struct config_key *k = &keys[i];
        ck_assert_msg(i == 0 || strcmp(keys[i - 1].name, k->name) < 0,
                      "%s is out of order", k->name);
        ck_assert_ptr_eq(config_key_find(scope, k->name), k);
        ck_assert(k->scope == scope && k->doc != NULL);
        ck_assert_uint_lt(strlen(k->name), CONFIG_NAME_MAX);
        if (k->default_value != NULL && k->default_value[0] != '\0') {
            ck_assert_msg(config_value_check(k, k->default_value, why,
                                             sizeof why) == ERR_OK,
                          "%s", why);
        }
    }
}

START_TEST(test_table__sorted_and_defaults_are_valid)
{
    check_table(CONFIG_TOPIC, 31);
    check_table(CONFIG_BROKER, 31);
    check_table(CONFIG_GROUP, 17);
    check_table(CONFIG_CLIENT, 4);
}
END_TEST

START_TEST(test_table__synonyms_agree_with_topic_defaults)
{
    const struct config_key *keys;
    int n = config_keys(CONFIG_TOPIC, &keys);
    for (int i = 0; i < n; i++) {
        if (keys[i].synonym == NULL) {
            continue;
        }
        const struct config_key *k =
            config_key_find(CONFIG_BROKER, keys[i].synonym);
        ck_assert_msg(k != NULL, "%s has no synonym", keys[i].name);
        ck_assert_int_eq(k->type, keys[i].type);
        const char *value = get(keys[i].synonym);
        if (value != NULL) {
            ck_assert_str_eq(value, keys[i].default_value);
        }
    }
}
END_TEST

START_TEST(test_keys__nearest)
{
    ck_assert_str_eq(config_key_nearest(CONFIG_BROKER, "num.partition"),
                     "num.partitions");
    ck_assert_str_eq(config_key_nearest(CONFIG_TOPIC, "retention.mss"),
                     "retention.ms");
    ck_assert_ptr_null(config_key_nearest(CONFIG_BROKER, "purple.elephants"));
    ck_assert_ptr_null(config_key_nearest(CONFIG_BROKER, ""));
    char *longer = mem_zalloc(5000);
    memset(longer, 'x', 4999);
    ck_assert_ptr_null(config_key_nearest(CONFIG_BROKER, longer));
    mem_free(longer);
}
END_TEST

static bool accepts(enum config_scope scope, const char *key, const char *value)
{
    why[0] = '\0';
    enum err e =
        config_value_check(config_key_find(scope, key), value, why, sizeof why);
    ck_assert((e == ERR_OK) == (why[0] == '\0'));
    return e == ERR_OK;
}

START_TEST(test_value__types_and_ranges)
{
    const char reset[] = "share.auto.offset.reset";
    ck_assert(accepts(CONFIG_GROUP, reset, "earliest"));
    ck_assert(accepts(CONFIG_GROUP, reset, "by_duration:PT1H"));
    ck_assert(!accepts(CONFIG_GROUP, reset, "by_duration:"));
    ck_assert(!accepts(CONFIG_GROUP, reset, "earliest1"));
    ck_assert(accepts(CONFIG_CLIENT, "request_percentage", "0.5"));
    ck_assert(!accepts(CONFIG_CLIENT, "request_percentage", "0"));
    ck_assert(!accepts(CONFIG_CLIENT, "producer_byte_rate", "1.5"));
    ck_assert(accepts(CONFIG_BROKER, "delete.topic.enable", "FALSE"));
    ck_assert(!accepts(CONFIG_BROKER, "delete.topic.enable", "yes"));
    ck_assert(accepts(CONFIG_BROKER, "num.partitions", "12"));
    ck_assert(!accepts(CONFIG_BROKER, "num.partitions", "0"));
    ck_assert(!accepts(CONFIG_BROKER, "num.partitions", "12 "));
    ck_assert(!accepts(CONFIG_BROKER, "num.partitions", "twelve"));
    ck_assert_str_eq(why,
                     "Invalid value \"twelve\" for num.partitions: it must be "
                     "a whole number from 1 to 100000.");
    ck_assert(!accepts(CONFIG_BROKER, "node.id", "2147483648"));
    ck_assert(!accepts(CONFIG_TOPIC, "retention.ms", "9223372036854775808"));
    ck_assert(accepts(CONFIG_TOPIC, "retention.ms", "-1"));
    ck_assert(!accepts(CONFIG_TOPIC, "retention.ms", "-2"));
    ck_assert(
        !accepts(CONFIG_BROKER, "offsets.topic.replication.factor", "32768"));
    ck_assert(accepts(CONFIG_TOPIC, "min.cleanable.dirty.ratio", "0.25"));
    ck_assert(!accepts(CONFIG_TOPIC, "min.cleanable.dirty.ratio", "1.5"));
    ck_assert(!accepts(CONFIG_TOPIC, "min.cleanable.dirty.ratio", "nan"));
    ck_assert(accepts(CONFIG_TOPIC, "cleanup.policy", "compact, delete"));
    ck_assert(!accepts(CONFIG_TOPIC, "cleanup.policy", "compact,shred"));
    ck_assert(accepts(CONFIG_TOPIC, "compression.type", "zstd"));
    ck_assert(!accepts(CONFIG_TOPIC, "compression.type", "zst"));
    ck_assert(!accepts(CONFIG_TOPIC, "compression.type", "zstd|lz4"));
}
END_TEST

START_TEST(test_parse__syntax_of_java_properties)
{
    ck_assert_int_eq(parse("# comment\n! another\n\n"
                           "node.id=7\r\n"
                           "  num.partitions : 12\n"
                           "broker.rack\tr\\u00e9\\tck\n"
                           "log.dirs=/a\\\n"
                           "    /b;c#d\n"
                           "super.users=User\\:x\\=y\\\\\n"
                           "message.max.bytes=1\n"
                           "message.max.bytes=2097152"),
                     ERR_OK);
    ck_assert_str_eq(get("node.id"), "7");
    ck_assert_str_eq(get("broker.id"), "7");
    ck_assert_int_eq(broker_config_int(config, "num.partitions"), 12);
    ck_assert_str_eq(get("broker.rack"), "r\xc3\xa9\tck");
    ck_assert_str_eq(get("log.dirs"), "/a/b;c#d");
    ck_assert_str_eq(get("super.users"), "User:x=y\\");
    ck_assert_str_eq(get("message.max.bytes"), "2097152");
    ck_assert_str_eq(broker_config_source(config, "node.id"), "file line 4");
    ck_assert_str_eq(broker_config_source(config, "message.max.bytes"),
                     "file line 11");
    ck_assert_str_eq(warnings, "");
}
END_TEST

START_TEST(test_parse__bad_text_is_an_error)
{
    ck_assert_int_eq(parse("broker.rack=\\u12"), ERR_INVALID);
    ck_assert_int_eq(parse("broker.rack=\\uzzzz"), ERR_INVALID);
    ck_assert_int_eq(parse("broker.rack=\\u0000"), ERR_INVALID);
    ck_assert_int_eq(
        broker_config_parse(config, "a=b\0c", 5, "file", NULL, why, sizeof why),
        ERR_INVALID);
    ck_assert_int_eq(parse("\\"), ERR_OK);
    ck_assert_int_eq(parse("broker.rack=x\\"), ERR_OK);
    ck_assert_str_eq(get("broker.rack"), "x");
    ck_assert_int_eq(parse("\n\nnum.partitions=-3\n"), ERR_INVALID);
    ck_assert_str_eq(why,
                     "Invalid value \"-3\" for num.partitions: it must be a "
                     "whole number from 1 to 100000. (In file line 3.)");
}
END_TEST

START_TEST(test_set__unknown_keys_warn_or_refuse)
{
    ck_assert_int_eq(set("num.partition", "3"), ERR_OK);
    ck_assert_str_eq(warnings,
                     "Unknown key \"num.partition\" in -D: did you mean "
                     "num.partitions?\n");
    warnings[0] = '\0';
    ck_assert_int_eq(set("retention.ms", "3"), ERR_OK);
    ck_assert_ptr_nonnull(strstr(warnings, "log.retention.ms?"));
    broker_config_strict(config, true);
    ck_assert_int_eq(set("purple.elephants", "3"), ERR_INVALID);
    ck_assert_str_eq(why, "Unknown key \"purple.elephants\" in -D.");
    ck_assert_int_eq(set("listener.name.x.ssl.key", "3"), ERR_OK);
}
END_TEST

START_TEST(test_set__what_means_nothing_is_listed)
{
    char names[56];
    ck_assert_int_eq(set("num.io.threads", "16"), ERR_OK);
    ck_assert_int_eq(set("background.threads", "16"), ERR_OK);
    ck_assert_int_eq(set("num.partitions", "16"), ERR_OK);
    ck_assert_int_eq(broker_config_ignored(config, names, sizeof names), 2);
    ck_assert_str_eq(names, "background.threads, num.io.threads");
    ck_assert_int_eq(broker_config_ignored(config, names, 8), 2);
    ck_assert_str_eq(names, "backgro");
    ck_assert_int_eq(set("ssl.keystore.location", "/a"), ERR_OK);
    ck_assert_int_eq(set("sasl.x", "y"), ERR_OK);
    ck_assert_int_eq(set("ssl.keystore.location", "/b"), ERR_OK);
    ck_assert_int_eq(broker_config_ignored(config, names, sizeof names), 4);
    ck_assert_str_eq(names,
                     "background.threads, num.io.threads, "
                     "ssl.keystore.locati");
}
END_TEST

START_TEST(test_get__coarser_keys)
{
    ck_assert_str_eq(get("log.retention.ms"), "604800000");
    ck_assert_int_eq(set("log.retention.hours", "1"), ERR_OK);
    ck_assert_str_eq(get("log.retention.ms"), "3600000");
    ck_assert_int_eq(set("log.retention.minutes", "2"), ERR_OK);
    ck_assert_str_eq(get("log.retention.ms"), "120000");
    ck_assert_int_eq(set("log.retention.minutes", "-1"), ERR_OK);
    ck_assert_str_eq(get("log.retention.ms"), "-1");
    ck_assert_int_eq(set("log.retention.ms", "3"), ERR_OK);
    ck_assert_str_eq(get("log.retention.ms"), "3");
    ck_assert_int_eq(set("log.roll.hours", "2"), ERR_OK);
    ck_assert_str_eq(get("log.roll.ms"), "7200000");
    ck_assert_int_eq(set("log.dir", "/x"), ERR_OK);
    ck_assert_str_eq(get("log.dirs"), "/x");
    ck_assert_int_eq(set("log.dirs", "/y"), ERR_OK);
    ck_assert_str_eq(get("log.dir"), "/y");
    ck_assert_int_eq(set("broker.id", "9"), ERR_OK);
    ck_assert_int_eq(broker_config_int(config, "node.id"), 9);
    ck_assert(!broker_config_is_set(config, "node.id"));
}
END_TEST

START_TEST(test_validate__rules_between_keys)
{
    ck_assert_int_eq(broker_config_validate(config, why, sizeof why), ERR_OK);
    ck_assert_int_eq(set("raft.heartbeat.interval.ms", "2000"), ERR_OK);
    ck_assert_int_eq(broker_config_validate(config, why, sizeof why),
                     ERR_INVALID);
    ck_assert_str_eq(why,
                     "raft.election.timeout.ms=2500 must be at least 2 times "
                     "raft.heartbeat.interval.ms=2000.");
    ck_assert_int_eq(set("raft.heartbeat.interval.ms", "200"), ERR_OK);
    ck_assert_int_eq(set("node.id", "1"), ERR_OK);
    ck_assert_int_eq(set("broker.id", "2"), ERR_OK);
    ck_assert_int_eq(broker_config_validate(config, why, sizeof why),
                     ERR_INVALID);
    ck_assert_int_eq(set("broker.id", "1"), ERR_OK);
    ck_assert_int_eq(broker_config_validate(config, why, sizeof why), ERR_OK);
    ck_assert_int_eq(set("log.dirs", "/a,/b"), ERR_OK);
    ck_assert_int_eq(broker_config_validate(config, why, sizeof why),
                     ERR_INVALID);
}
END_TEST

START_TEST(test_validate__seeds_need_a_node_id)
{
    ck_assert_int_eq(set("seeds", "a:1,b:2"), ERR_OK);
    ck_assert_int_eq(broker_config_validate(config, why, sizeof why),
                     ERR_INVALID);
    ck_assert_int_eq(set("node.id", "3"), ERR_OK);
    ck_assert_int_eq(broker_config_validate(config, why, sizeof why), ERR_OK);
    char seed[LIMIT_ADDRESS];
    ck_assert(config_seed(config, 1, seed));
    ck_assert_str_eq(seed, "b:2");
    ck_assert(!config_seed(config, 2, seed));
    ck_assert_int_eq(set("seeds", "a:1,b"), ERR_OK);
    ck_assert_int_eq(broker_config_validate(config, why, sizeof why),
                     ERR_INVALID);
}
END_TEST

START_TEST(test_env__mapping)
{
    char key[CONFIG_NAME_MAX];
    ck_assert(config_key_from_env("NODE_ID", key, sizeof key));
    ck_assert_str_eq(key, "node.id");
    ck_assert(config_key_from_env("A__B___C_D", key, sizeof key));
    ck_assert_str_eq(key, "a_b-c.d");
    ck_assert(!config_key_from_env("HEAP_OPTS", key, sizeof key));
    ck_assert(!config_key_from_env("SERVICE_HOST", key, sizeof key));
    ck_assert(!config_key_from_env("BOOTSTRAP_SERVER", key, sizeof key));
    ck_assert(!config_key_from_env("", key, sizeof key));
    ck_assert(!config_key_from_env("NODE_ID", key, 7));
    ck_assert(config_key_from_env("NODE_ID", key, 8));
}
END_TEST

static struct config_listeners listeners;
static enum err read_listeners(void)
{
    why[0] = '\0';
    return config_listeners_read(config, &listeners, why, sizeof why);
}

START_TEST(test_listeners__defaults)
{
    ck_assert_int_eq(read_listeners(), ERR_OK);
    ck_assert_int_eq(listeners.n, 1);
    ck_assert_str_eq(listeners.listen[0].host, "");
    ck_assert_int_eq(listeners.listen[0].port, 9092);
    ck_assert_str_eq(listeners.advertised[0].host, "");
    ck_assert_str_eq(listeners.peer_listen, ":9093");
    ck_assert_str_eq(listeners.peer_advertised, ":9093");
    ck_assert_str_eq(get("peer.listener"), ":9093");
    ck_assert_int_eq(set("listeners", "PLAINTEXT://b1:9"), ERR_OK);
    ck_assert_str_eq(get("peer.listener"), "b1:9093");
    ck_assert_int_eq(set("peer.listener", "b2:8"), ERR_OK);
    ck_assert_str_eq(get("peer.listener"), "b2:8");
}
END_TEST

START_TEST(test_listeners__advertised_and_peer)
{
    ck_assert_int_eq(
        parse("listeners=PLAINTEXT://0.0.0.0:9092, "
              "OUT://[::1]:9099,CTL://:9193\n"
              "listener.security.protocol.map="
              "PLAINTEXT:PLAINTEXT,OUT:PLAINTEXT,CTL:SSL\n"
              "controller.listener.names=CTL\n"
              "advertised.listeners=PLAINTEXT://k1.example:9092\n"),
        ERR_OK);
    ck_assert_msg(read_listeners() == ERR_OK, "%s", why);
    ck_assert_int_eq(listeners.n, 2);
    ck_assert_str_eq(listeners.advertised[0].host, "k1.example");
    ck_assert_str_eq(listeners.advertised[1].host, "::1");
    ck_assert_str_eq(listeners.peer_listen, ":9193");
    ck_assert_int_eq(set("peer.listener", "0.0.0.0:1234"), ERR_OK);
    ck_assert_int_eq(read_listeners(), ERR_OK);
    ck_assert_str_eq(listeners.peer_listen, "0.0.0.0:1234");
    ck_assert_str_eq(listeners.peer_advertised, "k1.example:1234");
    ck_assert_int_eq(set("advertised.peer.listener", "[::1]:5"), ERR_OK);
    ck_assert_int_eq(read_listeners(), ERR_OK);
    ck_assert_str_eq(listeners.peer_advertised, "[::1]:5");
}
END_TEST

START_TEST(test_listeners__refused)
{
    static const char *const bad[] = {
        "PLAINTEXT://0.0.0.0:9092", "SSL://h:9092",     "h:9092",
        "PLAINTEXT://h:99999",      "PLAINTEXT://h",    "://h:1",
        "PLAINTEXT://::1:9092",     "PLAINTEXT://h:1x", "PLAINTEXT://[::]:1",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_int_eq(set("listeners", bad[i]), ERR_OK);
        ck_assert_msg(read_listeners() == ERR_INVALID, "%s", bad[i]);
        ck_assert_str_ne(why, "");
    }
    ck_assert_int_eq(set("listeners", "PLAINTEXT://h:1"), ERR_OK);
    ck_assert_int_eq(set("advertised.listeners", "OTHER://h:1"), ERR_OK);
    ck_assert_int_eq(set("listener.security.protocol.map",
                         "OTHER:PLAINTEXT,"
                         "PLAINTEXT:PLAINTEXT"),
                     ERR_OK);
    ck_assert_int_eq(read_listeners(), ERR_INVALID);
    ck_assert_str_eq(why,
                     "advertised.listeners names OTHER, which listeners "
                     "does not have.");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("config");
    TCase *t = tcase_create("config");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, test_table__sorted_and_defaults_are_valid);
    tcase_add_test(t, test_table__synonyms_agree_with_topic_defaults);
    tcase_add_test(t, test_keys__nearest);
    tcase_add_test(t, test_value__types_and_ranges);
    tcase_add_test(t, test_parse__syntax_of_java_properties);
    tcase_add_test(t, test_parse__bad_text_is_an_error);
    tcase_add_test(t, test_set__unknown_keys_warn_or_refuse);
    tcase_add_test(t, test_set__what_means_nothing_is_listed);
    tcase_add_test(t, test_get__coarser_keys);
    tcase_add_test(t, test_validate__rules_between_keys);
    tcase_add_test(t, test_validate__seeds_need_a_node_id);
    tcase_add_test(t, test_env__mapping);
    tcase_add_test(t, test_listeners__defaults);
    tcase_add_test(t, test_listeners__advertised_and_peer);
    tcase_add_test(t, test_listeners__refused);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
