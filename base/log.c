#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/limits.h"

static void log_to_stderr(void *arg, enum log_level level,
                          const char *component, const char *line)
{
    static const char *const names[] = {"DEBUG", "INFO", "WARN", "ERROR"};
    (void)arg;
    fprintf(stderr, "%s %s %s\n", names[level], component, line);
}

static log_sink sink_now = log_to_stderr;
static void *sink_arg;
static enum log_level least_now = LOG_INFO;

void log_set_sink(log_sink sink, void *arg)
{
    sink_now = sink == NULL ? log_to_stderr : sink;
    sink_arg = arg;
}

void log_set_level(enum log_level least)
{
    least_now = least;
}

void log_write(enum log_level level, const char *component, const char *format,
               ...)
{
    char line[LIMIT_LOG_LINE];
    va_list args;
    if (level < least_now) {
        return;
    }
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args); /* longer lines are cut */
    va_end(args);
    sink_now(sink_arg, level, component, line);
}
