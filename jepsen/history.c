#include "jepsen/history.h"

#include <inttypes.h>
#include <stdarg.h>
#include <time.h>

int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

bool history_open(struct history *h, const char *dir, const char *name)
{
    char path[4096];

    snprintf(path, sizeof path, "%s/%s.part", dir, name);
    buffer_init(&h->text);
    h->file = fopen(path, "w");
    return h->file != NULL;
}

void history_close(struct history *h)
{
    fclose(h->file);
    buffer_free(&h->text);
}

void history_begin(struct history *h)
{
    buffer_clear(&h->text);
}

void history_put(struct history *h, const char *format, ...)
{
    va_list args;
    char *to = (char *)buffer_reserve(&h->text, 160);
    int n;

    va_start(args, format);
    n = vsnprintf(to, 160, format, args);
    va_end(args);
    buffer_added(&h->text, (size_t)(n < 160 ? n : 159));
}

void history_put_send(struct history *h, int64_t key, int64_t value,
                      int64_t offset)
{
    if (offset < 0)
        history_put(h, "[:send %" PRId64 " %" PRId64 "]", key, value);
    else
        history_put(h, "[:send %" PRId64 " [%" PRId64 " %" PRId64 "]]", key,
                    offset, value);
}

void history_op(struct history *h, int64_t process, const char *type,
                const char *f, const char *more)
{
    fprintf(h->file,
            "{:time %" PRId64 ", :type :%s, :process %" PRId64
            ", :f :%s, :value %.*s%s}\n",
            now_ns(), type, process, f,
            h->text.size == 0 ? 3 : (int)h->text.size,
            h->text.size == 0 ? "nil" : (const char *)h->text.data, more);
    fflush(h->file);
}
