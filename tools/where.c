#include "tools/where.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/client.h"

#define AGE_MAX 1000000000 /* days are far from overflowing then */

static bool parse_number(const char *text, int64_t *out)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    *out = v;
    return end != text && *end == '\0' && errno == 0;
}

/* "90m", behind the minus: so long ago. */
static bool parse_age(const char *text, int64_t *ms)
{
    static const char units[] = "smhd";
    static const int64_t unit_ms[] = {1000, 60000, 3600000, 86400000};
    char *end;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    const char *unit = *end != '\0' ? strchr(units, *end) : NULL;
    if (end == text || errno != 0 || n < 0 || unit == NULL || end[1] != '\0' ||
        n > AGE_MAX) {
        return false;
    }
    *ms = (int64_t)time(NULL) * 1000 - n * unit_ms[unit - units];
    *ms = *ms < 0 ? 0 : *ms;
    return true;
}

/* "2026-11-21T13:30:00Z" and shorter, always UTC. */
static bool parse_date(const char *text, int64_t *ms)
{
    static const char *const forms[] = {"%Y-%m-%d", "%Y-%m-%dT%H:%M",
                                        "%Y-%m-%dT%H:%M:%S"};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct tm tm = {0};
        const char *end = strptime(text, forms[i], &tm);
        if (end != NULL && (*end == '\0' || (i > 0 && strcmp(end, "Z") == 0))) {
            *ms = (int64_t)timegm(&tm) * 1000;
            return *ms >= 0;
        }
    }
    return false;
}

static bool parse_time(const char *text, int64_t *ms)
{
    return text[0] == '-' ? parse_age(text + 1, ms)
                          : parse_number(text, ms) || parse_date(text, ms);
}

struct where where_option(const struct cli *cli, const char *option,
                          const char *otherwise)
{
    const char *text = cli_value(cli, option, otherwise);
    int64_t n = 0;
    if (strcmp(text, "beginning") == 0 || strcmp(text, "start") == 0 ||
        strcmp(text, "earliest") == 0) {
        return (struct where){.kind = WHERE_BEGINNING};
    }
    if (strcmp(text, "end") == 0 || strcmp(text, "latest") == 0) {
        return (struct where){.kind = WHERE_END};
    }
    if (text[0] == '@' && parse_time(text + 1, &n)) {
        return (struct where){.kind = WHERE_TIME, .n = n};
    }
    if (!parse_number(text, &n)) {
        cli_usage(cli, "--%s %s: expected " WHERE_WORDS ".", option, text);
    }
    return n < 0 ? (struct where){.kind = WHERE_LAST, .n = -n}
                 : (struct where){.kind = WHERE_AT, .n = n};
}

int64_t where_logical(struct where where)
{
    switch (where.kind) {
        case WHERE_END:
            return RD_KAFKA_OFFSET_END;
        case WHERE_AT:
            return where.n;
        case WHERE_LAST:
            return RD_KAFKA_OFFSET_TAIL(where.n);
        case WHERE_BEGINNING:
        case WHERE_TIME:
            break;
    }
    return RD_KAFKA_OFFSET_BEGINNING;
}

static int64_t between(int64_t n, int64_t low, int64_t high)
{
    return n < low ? low : n > high ? high : n;
}

static int64_t place(struct where where, int64_t at_time, int64_t low,
                     int64_t high)
{
    switch (where.kind) {
        case WHERE_BEGINNING:
            return low;
        case WHERE_END:
            return high;
        case WHERE_AT:
            return between(where.n, low, high);
        case WHERE_LAST:
            return between(high - where.n, low, high);
        case WHERE_TIME:
            return at_time < 0 ? high : between(at_time, low, high);
    }
    return low;
}

int where_resolve(const struct cli *cli, rd_kafka_t *rk, struct where where,
                  rd_kafka_topic_partition_list_t *list)
{
    rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR_NO_ERROR;
    if (where.kind == WHERE_TIME) {
        for (int i = 0; i < list->cnt; i++) {
            list->elems[i].offset = where.n;
        }
        err = rd_kafka_offsets_for_times(rk, list, client_timeout_ms(cli));
        if (err != RD_KAFKA_RESP_ERR_NO_ERROR) {
            return client_fail(cli, err, "The time cannot be looked up", NULL);
        }
    }
    for (int i = 0; i < list->cnt; i++) {
        rd_kafka_topic_partition_t *p = &list->elems[i];
        int64_t low = 0;
        int64_t high = 0;
        err = rd_kafka_query_watermark_offsets(rk, p->topic, p->partition, &low,
                                               &high, client_timeout_ms(cli));
        if (err != RD_KAFKA_RESP_ERR_NO_ERROR) {
            return client_fail(cli, err, "A partition's ends are not known",
                               NULL);
        }
        p->offset = place(where, p->offset, low, high);
    }
    return EXIT_DONE;
}

rd_kafka_topic_partition_list_t *where_partitions(const struct cli *cli,
                                                  rd_kafka_t *rk,
                                                  const char *topic,
                                                  int *status)
{
    const struct rd_kafka_metadata *m = client_metadata(cli, rk, status);
    if (m == NULL) {
        return NULL;
    }
    const struct rd_kafka_metadata_topic *t = client_find_topic(m, topic);
    rd_kafka_topic_partition_list_t *list = NULL;
    if (t == NULL) {
        *status = client_no_topic(cli, topic);
    } else {
        list = rd_kafka_topic_partition_list_new(t->partition_cnt);
    }
    const char *text;
    int i = 0;
    for (; list != NULL && (text = cli_value_at(cli, "partition", i)) != NULL;
         i++) {
        int64_t n;
        if (!parse_number(text, &n) || n < 0 || n >= t->partition_cnt) {
            cli_usage(cli, "--partition %s: %s has partitions 0 to %d.", text,
                      topic, t->partition_cnt - 1);
        }
        rd_kafka_topic_partition_list_add(list, topic, (int32_t)n);
    }
    for (int k = 0; list != NULL && i == 0 && k < t->partition_cnt; k++) {
        rd_kafka_topic_partition_list_add(list, topic, t->partitions[k].id);
    }
    rd_kafka_metadata_destroy(m);
    return list;
}
