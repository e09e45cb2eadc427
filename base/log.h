/* Log lines: one event a line, `LEVEL component message key=value`, on stderr
 * (or to the simulator's trace). Rate is bounded by the caller. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* Where lines go; set once by env_uv or the simulator, default stderr without
 * time. `line` has no newline. */
typedef void (*log_sink)(void *arg, enum log_level level, const char *component,
                         const char *line);
void log_set_sink(log_sink sink, void *arg);
void log_set_level(enum log_level least);
void log_write(enum log_level level, const char *component, const char *format,
               ...) __attribute__((format(printf, 3, 4)));

#define log_debug(component, ...) log_write(LOG_DEBUG, component, __VA_ARGS__)
#define log_info(component, ...) log_write(LOG_INFO, component, __VA_ARGS__)
#define log_warn(component, ...) log_write(LOG_WARN, component, __VA_ARGS__)
#define log_error(component, ...) log_write(LOG_ERROR, component, __VA_ARGS__)

#endif
