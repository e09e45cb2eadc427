/* Every bound of the program, each with its reason. A room adds its own under
 * a heading; a queue or buffer without a line here is a mistake. */
#ifndef BASE_LIMITS_H
#define BASE_LIMITS_H

/* ---- base ---------------------------------------------------------------- */
/* Bytes of a log line; what is longer is cut. A line is for people. */
#define LIMIT_LOG_LINE 1024
/* Bytes of a path in a data directory, with the terminating NUL: PATH_MAX. */
#define LIMIT_PATH 4096
/* Bytes of "host:port" of a listener or peer: a DNS name has at most 253. */
#define LIMIT_ADDRESS 280
/* Connections the kernel holds before they are accepted: clients of a broker
 * that just restarted come all at once. */
#define LIMIT_LISTEN_BACKLOG 1024

/* ---- partition ----------------------------------------------------------- */
/* Plain bytes that the records of one batch may decompress to where a broker
 * must look at them (keys of compacted topics, timestamps): 64 times
 * the default size of a batch. */
#define LIMIT_BATCH_PLAIN ((size_t)64 << 20)

#endif
