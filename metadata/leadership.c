#include "metadata/leadership.h"

#include "base/hash.h"
#include "base/limits.h"
#include "base/mem.h"

/* A report sent is repeated after this long; it may have been lost with the
 * metadata leader it went to. */
#define REPEAT_MS 1000
#define REPORT_BYTES 28

struct pending {
    struct group_id group; /* key: 20 bytes without padding */
    node_id leader;
    int32_t epoch;
    uint64_t sent_ms;
    bool sent;
    UT_hash_handle hh;
};

struct leadership {
    struct pending *pending;
};

_Static_assert(sizeof(struct group_id) == 20, "hashed as bytes");

struct leadership *leadership_new(void)
{
    return mem_zalloc(sizeof(struct leadership));
}

void leadership_free(struct leadership *l)
{
    struct pending *p, *next;
    HASH_ITER(hh, l->pending, p, next)
    {
        HASH_DEL(l->pending, p);
        mem_free(p);
    }
    mem_free(l);
}

/* Newer than what the image says. A group the image does not know was
 * deleted. */
static bool is_news(const struct image *image, const struct group_id *group,
                    node_id leader, int32_t epoch)
{
    const struct image_topic *topic = image_topic_by_id(image, &group->topic);
    if (leader < 0 || topic == NULL || group->partition < 0 ||
        group->partition >= topic->n_partitions) {
        return false;
    }
    const struct image_partition *p = &topic->partitions[group->partition];
    return epoch > p->leader_epoch ||
           (epoch == p->leader_epoch && p->leader < 0);
}

bool leadership_add(struct leadership *l, const struct image *image,
                    const struct leadership_report *report)
{
    struct pending *p;
    if (!is_news(image, &report->group, report->leader, report->epoch)) {
        return false;
    }
    HASH_FIND(hh, l->pending, &report->group, sizeof report->group, p);
    if (p != NULL && p->epoch >= report->epoch) {
        return false;
    }
    if (p == NULL) {
        p = mem_zalloc(sizeof *p);
        p->group = report->group;
        HASH_ADD(hh, l->pending, group, sizeof p->group, p);
    }
    p->leader = report->leader;
    p->epoch = report->epoch;
    p->sent = false;
    return true;
}

void leadership_write(struct leadership *l, const struct image *image,
                      uint64_t now_ms, struct buffer *out)
{
    struct pending *p, *next;
    uint32_t n = 0;
    size_t count_at = out->size;
    codec_put_u32(out, 0);
    HASH_ITER(hh, l->pending, p, next)
    {
        if (!is_news(image, &p->group, p->leader, p->epoch)) {
            HASH_DEL(l->pending, p);
            mem_free(p);
            continue;
        }
        bool due = !p->sent || now_ms - p->sent_ms >= REPEAT_MS;
        if (due && n < LIMIT_LEADER_REPORTS) {
            codec_put_uuid(out, &p->group.topic);
            codec_put_i32(out, p->group.partition);
            codec_put_i32(out, p->leader);
            codec_put_i32(out, p->epoch);
            p->sent = true;
            p->sent_ms = now_ms;
            n++;
        }
    }
    for (size_t i = 0; i < 4; i++) {
        out->data[count_at + i] = (uint8_t)(n >> (8 * (3 - i)));
    }
}

void leadership_repeat(struct leadership *l)
{
    struct pending *p, *next;
    HASH_ITER(hh, l->pending, p, next)
    {
        p->sent = false;
    }
}

bool leadership_read(struct reader *r, const struct image *image,
                     void (*each)(void *arg,
                                  const struct leadership_report *report),
                     void *arg)
{
    uint32_t n = codec_get_count(r, REPORT_BYTES, LIMIT_LEADER_REPORTS);
    for (uint32_t i = 0; i < n; i++) {
        struct leadership_report report;
        report.group.topic = codec_get_uuid(r);
        report.group.partition = codec_get_i32(r);
        report.leader = codec_get_i32(r);
        report.epoch = codec_get_i32(r);
        if (codec_ok(r) &&
            is_news(image, &report.group, report.leader, report.epoch)) {
            each(arg, &report);
        }
    }
    return codec_ok(r);
}
