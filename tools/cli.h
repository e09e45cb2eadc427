/* The command line: one table of commands drives dispatch, parsing and help.
 * A command names its options; what the user gave is asked for by name. */
#ifndef TOOLS_CLI_H
#define TOOLS_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdnoreturn.h>

enum exit_status {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_NOT_FOUND = 3,
    EXIT_REFUSED = 4, /* unsafe */
    EXIT_PARTLY = 5,
    EXIT_TIMED_OUT = 124
};

struct cli_option {
    const char *name; /* "partitions"; NULL ends the list */
    char letter;      /* 'p', 0: none */
    const char *arg;  /* what to show for its value; NULL: a flag */
    const char *help;
};

/* Options that several commands share. */
#define CLI_CLIENT_OPTIONS                                             \
    {"bootstrap-server", 'b', "HOST:PORT[,...]",                       \
     "brokers to ask first (default localhost:9092, or "               \
     "FLOTILLA_BOOTSTRAP_SERVER)"},                                    \
    {                                                                  \
        "property", 'X', "KEY=VALUE", "property of the client library" \
    }
#define CLI_OUTPUT_OPTION                                      \
    {                                                          \
        "output", 'o', "table|wide|json", "form of the output" \
    }
#define CLI_CONFIRM_OPTIONS                               \
    {"yes", 'y', NULL, "do not ask"},                     \
    {                                                     \
        "dry-run", 0, NULL, "only say what would be done" \
    }
#define CLI_WAIT_OPTION                                              \
    {                                                                \
        "wait", 0, "SECONDS", "give up after this time (default 30)" \
    }

#define CLI_SOME (-1) /* one argument or more */
#define CLI_ANY (-2)

struct cli;
struct command {
    const char *name;      /* "topic create", "server" */
    const char *arguments; /* "NAME", "" */
    int n_arguments;       /* exactly; CLI_SOME, CLI_ANY */
    const char *summary;   /* one line */
    const char *more;      /* below the options; NULL: nothing */
    const struct cli_option *options;
    int (*run)(struct cli *cli); /* gives the exit status */
};

struct cli_status {
    enum exit_status status;
    const char *text; /* NULL ends the list */
};
extern const struct cli_status cli_statuses[];

/* Parses and runs `commands` (ended by name NULL) on main's arguments. */
int cli_main(const struct command *commands, int argc, char **argv);

/* ---- for the commands ---------------------------------------------------- */
const struct command *cli_commands(const struct cli *cli); /* all of them */
int cli_n_arguments(const struct cli *cli);
const char *cli_argument(const struct cli *cli, int i);
bool cli_has(const struct cli *cli, const char *option);
/* The last value given, or `otherwise`. */
const char *cli_value(const struct cli *cli, const char *option,
                      const char *otherwise);
/* The `i`th value of an option that may be repeated; NULL: no more. */
const char *cli_value_at(const struct cli *cli, const char *option, int i);
/* A whole number in [min, max]; ends the process with EXIT_USAGE else. */
int64_t cli_number(const struct cli *cli, const char *option, int64_t otherwise,
                   int64_t min, int64_t max);
/* Splits "key=value" (in the option's value) in two; the key is copied to
 * `key`. Ends the process with EXIT_USAGE when there is no `=`. */
const char *cli_key_value(const struct cli *cli, const char *option,
                          const char *text, char *key, size_t key_size);

enum cli_output { OUTPUT_TABLE, OUTPUT_WIDE, OUTPUT_JSON };
/* -o, or table; ends the process with EXIT_USAGE for another word. */
enum cli_output cli_output(const struct cli *cli);

/* Whether to go on with what cannot be undone: --yes or --dry-run say so, else
 * the question ("Delete 2 topics?") is asked on a terminal. False: exit with
 * EXIT_REFUSED, a sentence was printed. */
bool cli_confirmed(const struct cli *cli, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Ends the process with EXIT_USAGE when an argument is there twice. */
void cli_distinct(const struct cli *cli);

/* "flotilla topic create: sentence" on stderr. Gives `status`. */
int cli_fail(const struct cli *cli, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same with the hint at --help, and the end. */
noreturn void cli_usage(const struct cli *cli, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Writes out what was printed so far. True: that cannot be written; the
 * command ends then, and how is told behind its end (a pipe whose reader is
 * gone is no error, it ends by SIGPIPE as others do). */
bool cli_output_fails(void);

#endif
