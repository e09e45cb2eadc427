#include "tools/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define BAR_AGAIN_S 0.5
#define JSON_AGAIN_S 1.0
#define BAR_MAX 40
#define TEXT_WIDTH 60 /* of what stands behind the bar, at most */

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void progress_begin(struct progress *p, int64_t total, bool terminal, bool json)
{
    *p = (struct progress){.bar = !json && terminal && isatty(STDERR_FILENO),
                           .json = json,
                           .total = total,
                           .begun_s = now_s()};
    p->shown_s = p->begun_s;
}

static int bar_width(void)
{
    struct winsize size = {0};
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) {
        size.ws_col = 80;
    }
    int width = size.ws_col - TEXT_WIDTH - 10;
    return width < 0 ? 0 : width > BAR_MAX ? BAR_MAX : width;
}

/* "1:02:03", "2:03" */
static void span_text(double seconds, char *out, size_t size)
{
    int64_t s = (int64_t)(seconds + 0.5);
    if (s >= 3600) {
        snprintf(out, size, "%lld:%02d:%02d", (long long)(s / 3600),
                 (int)(s / 60 % 60), (int)(s % 60));
    } else {
        snprintf(out, size, "%d:%02d", (int)(s / 60), (int)(s % 60));
    }
}

static void draw(const struct progress *p, double part, double left_s,
                 int64_t records, double rate)
{
    char left[32] = "";
    if (p->total <= 0) {
        fprintf(stderr, "\r%lld records, %.0f a second\033[K",
                (long long)records, rate);
        return;
    }
    int width = bar_width();
    int full = (int)(part * width);
    span_text(left_s, left, sizeof left);
    fprintf(stderr, "\r%3d%% [", (int)(part * 100));
    for (int i = 0; i < width; i++) {
        fputc(i < full ? '#' : '.', stderr);
    }
    fprintf(stderr, "] %lld records, %.0f a second, %s left\033[K",
            (long long)records, rate, left);
}

static void print_json(const struct progress *p, int64_t done, double left_s,
                       int64_t records, double rate)
{
    fprintf(stderr, "{\"records\":%lld,\"records_per_second\":%.0f",
            (long long)records, rate);
    if (p->total > 0) {
        fprintf(stderr, ",\"done\":%lld,\"total\":%lld,\"seconds_left\":%.1f",
                (long long)done, (long long)p->total, left_s);
    }
    fputs("}\n", stderr);
}

void progress_step(struct progress *p, int64_t done, int64_t records)
{
    if (!p->bar && !p->json) {
        return;
    }
    double now = now_s();
    if (now < p->shown_s + (p->bar ? BAR_AGAIN_S : JSON_AGAIN_S)) {
        return;
    }
    double part = p->total > 0 ? (double)done / (double)p->total : 0;
    part = part > 1 ? 1 : part;
    double passed = now - p->begun_s;
    double left_s = part > 0 ? passed / part - passed : 0;
    double rate = (double)records / passed;
    p->shown_s = now;
    p->drawn = true;
    if (p->bar) {
        draw(p, part, left_s, records, rate);
    } else {
        print_json(p, done, left_s, records, rate);
    }
}

void progress_end(struct progress *p)
{
    if (p->bar && p->drawn) {
        fputs("\r\033[K", stderr);
    }
    p->bar = p->json = false;
}
