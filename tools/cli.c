#include "tools/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <popt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "tools/version.h"
#include "tools/commit.h"

/* Options of one call: more than that many values is a slip. */
#define VALUES_MAX 256

struct cli_given {
    const struct cli_option *option;
    char *value; /* NULL: a flag */
};

struct cli {
    const struct command *all;
    const struct command *command;
    poptContext popt;
    int n_given;
    struct cli_given given[VALUES_MAX];
    int n_arguments;
    const char **arguments;
};

/* ---- what was given ------------------------------------------------------ */

const struct command *cli_commands(const struct cli *cli)
{
    return cli->all;
}

int cli_n_arguments(const struct cli *cli)
{
    return cli->n_arguments;
}

const char *cli_argument(const struct cli *cli, int i)
{
    return i < cli->n_arguments ? cli->arguments[i] : NULL;
}

const char *cli_value_at(const struct cli *cli, const char *option, int i)
{
    for (int k = 0; k < cli->n_given; k++) {
        if (strcmp(cli->given[k].option->name, option) == 0 && i-- == 0) {
            return cli->given[k].value != NULL ? cli->given[k].value : "";
        }
    }
    return NULL;
}

bool cli_has(const struct cli *cli, const char *option)
{
    return cli_value_at(cli, option, 0) != NULL;
}

const char *cli_value(const struct cli *cli, const char *option,
                      const char *otherwise)
{
    const char *value;
    for (int i = 0; (value = cli_value_at(cli, option, i)) != NULL; i++) {
        otherwise = value;
    }
    return otherwise;
}

int64_t cli_number(const struct cli *cli, const char *option, int64_t otherwise,
                   int64_t min, int64_t max)
{
    const char *text = cli_value(cli, option, NULL);
    if (text == NULL) {
        return otherwise;
    }
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || v < min || v > max) {
        cli_usage(cli,
                  "--%s %s: expected a whole number from %" PRId64
                  " to %" PRId64 ".",
                  option, text, min, max);
    }
    return v;
}

const char *cli_key_value(const struct cli *cli, const char *option,
                          const char *text, char *key, size_t key_size)
{
    const char *equals = strchr(text, '=');
    size_t n = equals != NULL ? (size_t)(equals - text) : 0;
    if (n == 0 || n >= key_size) {
        const struct cli_option *o = cli->command->options;
        while (o->name != NULL && strcmp(o->name, option) != 0) {
            o++;
        }
        cli_usage(cli, "--%s %s: expected %s.", option, text,
                  o->arg != NULL ? o->arg : "KEY=VALUE");
    }
    memcpy(key, text, n);
    key[n] = '\0';
    return equals + 1;
}

enum cli_output cli_output(const struct cli *cli)
{
    const char *text = cli_value(cli, "output", "table");
    if (strcmp(text, "json") == 0) {
        return OUTPUT_JSON;
    }
    if (strcmp(text, "wide") == 0) {
        return OUTPUT_WIDE;
    }
    if (strcmp(text, "table") != 0) {
        cli_usage(cli, "--output %s: expected table, wide or json.", text);
    }
    return OUTPUT_TABLE;
}

/* ---- errors -------------------------------------------------------------- */

__attribute__((format(printf, 2, 0))) static void complain(
    const struct cli *cli, const char *format, va_list args)
{
    fflush(stdout);
    fprintf(stderr, "flotilla %s: ", cli->command->name);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
}

int cli_fail(const struct cli *cli, int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    complain(cli, format, args);
    va_end(args);
    return status;
}

noreturn void cli_usage(const struct cli *cli, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    complain(cli, format, args);
    va_end(args);
    fprintf(stderr, "`flotilla %s --help` shows how it is used.\n",
            cli->command->name);
    exit(EXIT_USAGE);
}

void cli_distinct(const struct cli *cli)
{
    for (int i = 0; i < cli->n_arguments; i++) {
        for (int k = 0; k < i; k++) {
            if (strcmp(cli->arguments[i], cli->arguments[k]) == 0) {
                cli_usage(cli, "%s is named twice.", cli->arguments[i]);
            }
        }
    }
}

bool cli_confirmed(const struct cli *cli, const char *format, ...)
{
    char answer[16] = "";
    va_list args;
    if (cli_has(cli, "yes") || cli_has(cli, "dry-run")) {
        return true;
    }
    if (!isatty(STDIN_FILENO)) {
        cli_fail(cli, EXIT_REFUSED,
                 "This cannot be undone and nobody can be asked; add --yes, or "
                 "--dry-run to see what would be done.");
        return false;
    }
    /* beside the output, which may be a file or a pipe */
    fflush(stdout);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, " [y/N] ");
    bool yes = fgets(answer, sizeof answer, stdin) != NULL &&
               (answer[0] == 'y' || answer[0] == 'Y');
    if (!yes) {
        cli_fail(cli, EXIT_REFUSED, "Nothing was done.");
    }
    return yes;
}

/* Why standard output could not be written; the command's, as stdout is. */
static int output_errno;

bool cli_output_fails(void)
{
    int before = ferror(stdout) != 0 ? errno : 0; /* of what failed just now */
    errno = 0;
    if (fflush(stdout) == 0 && ferror(stdout) == 0) {
        return false;
    }
    if (output_errno == 0) {
        output_errno = errno != 0 ? errno : before;
    }
    return true;
}

static bool reader_is_gone(void)
{
    struct pollfd fd = {.fd = STDOUT_FILENO, .events = POLLOUT};
    return output_errno == EPIPE ||
           (poll(&fd, 1, 0) == 1 && (fd.revents & POLLERR) != 0);
}

static int output_status(int status)
{
    if (!cli_output_fails()) {
        return status;
    }
    if (reader_is_gone()) { /* `| head` has enough: end as others do */
        signal(SIGPIPE, SIG_DFL);
        raise(SIGPIPE);
    }
    fprintf(stderr, "flotilla: What is printed cannot be written%s%s.\n",
            output_errno != 0 ? ": " : "",
            output_errno != 0 ? strerror(output_errno) : "");
    return EXIT_FAILED;
}

const struct cli_status cli_statuses[] = {
    {EXIT_DONE, "done"},           {EXIT_FAILED, "failed"},
    {EXIT_USAGE, "usage"},         {EXIT_NOT_FOUND, "not found"},
    {EXIT_REFUSED, "refused"},     {EXIT_PARTLY, "partly done"},
    {EXIT_TIMED_OUT, "timed out"}, {0, NULL}};

/* ---- help ---------------------------------------------------------------- */

#define WIDTH 80
#define HELP_COLUMN 39 /* where an option's text begins */

/* Goes on in the next line at HELP_COLUMN when the text is too long. */
static void print_option_help(const char *text)
{
    while (strlen(text) > WIDTH - HELP_COLUMN) {
        size_t n = WIDTH - HELP_COLUMN;
        while (n > 0 && text[n] != ' ') {
            n--;
        }
        if (n == 0) {
            break; /* one long word */
        }
        printf("%.*s\n%*s", (int)n, text, HELP_COLUMN, "");
        text += n + 1;
    }
    printf("%s\n", text);
}

static void print_command_help(const struct command *c)
{
    printf("Usage: flotilla %s%s%s [options]\n\n%s\n\nOptions:\n", c->name,
           c->arguments[0] != '\0' ? " " : "", c->arguments, c->summary);
    for (const struct cli_option *o = c->options; o->name != NULL; o++) {
        char left[64];
        char letter[4] = "   ";
        if (o->letter != 0) {
            snprintf(letter, sizeof letter, "-%c,", o->letter);
        }
        snprintf(left, sizeof left, "%s --%s%s%s", letter, o->name,
                 o->arg != NULL ? " " : "", o->arg != NULL ? o->arg : "");
        if (strlen(left) > 36) {
            printf("  %s\n%*s", left, HELP_COLUMN, "");
        } else {
            printf("  %-36s ", left);
        }
        print_option_help(o->help);
    }
    printf("  -h, --help                           this text\n");
    if (c->more != NULL) {
        printf("\n%s", c->more);
    }
}

static void print_help(const struct command *commands)
{
    printf(
        "Usage: flotilla COMMAND [options]\n\n"
        "A Kafka-compatible event-streaming cluster.\n\nCommands:\n");
    for (const struct command *c = commands; c->name != NULL; c++) {
        char left[64];
        snprintf(left, sizeof left, "%s %s", c->name, c->arguments);
        printf("  %-29s %s\n", left, c->summary);
    }
    printf(
        "\n`flotilla COMMAND --help` says more; `flotilla --version` which one "
        "this is.\nExit status:");
    int at = 12;
    for (const struct cli_status *s = cli_statuses; s->text != NULL; s++) {
        char text[40];
        int n = snprintf(text, sizeof text, " %d %s%s", s->status, s->text,
                         s[1].text != NULL ? "," : ".");
        if (at + n >= WIDTH) {
            printf("\n ");
            at = 1;
        }
        printf("%s", text);
        at += n;
    }
    putchar('\n');
}

/* ---- parsing ------------------------------------------------------------- */

static int n_options(const struct command *c)
{
    int n = 0;
    while (c->options[n].name != NULL) {
        n++;
    }
    return n;
}

/* popt's values: the option's number plus one; beyond them, --help. */
static void parse(struct cli *cli, int argc, const char **argv)
{
    const struct cli_option *options = cli->command->options;
    int n = n_options(cli->command);
    struct poptOption *table = mem_zalloc((size_t)(n + 2) * sizeof *table);
    for (int i = 0; i < n; i++) {
        table[i] = (struct poptOption){
            .longName = options[i].name,
            .shortName = options[i].letter,
            .argInfo = options[i].arg != NULL ? POPT_ARG_STRING : POPT_ARG_NONE,
            .val = i + 1};
    }
    table[n] =
        (struct poptOption){.longName = "help", .shortName = 'h', .val = n + 1};
    cli->popt = poptGetContext("flotilla", argc, argv, table, 0);
    int code;
    while ((code = poptGetNextOpt(cli->popt)) > 0) {
        if (code == n + 1) {
            print_command_help(cli->command);
            exit(EXIT_DONE);
        }
        if (cli->n_given == VALUES_MAX) {
            cli_usage(cli, "More than %d options.", VALUES_MAX);
        }
        cli->given[cli->n_given++] =
            (struct cli_given){&options[code - 1], poptGetOptArg(cli->popt)};
    }
    if (code < -1) {
        cli_usage(cli, "%s: %s.", poptBadOption(cli->popt, 0),
                  poptStrerror(code));
    }
    cli->arguments = poptGetArgs(cli->popt);
    while (cli->arguments != NULL && cli->arguments[cli->n_arguments]) {
        cli->n_arguments++;
    }
    int wanted = cli->command->n_arguments;
    if (wanted == CLI_SOME ? cli->n_arguments == 0
                           : wanted >= 0 && cli->n_arguments != wanted) {
        cli_usage(cli, "Expected %s, %d given.",
                  wanted == 0 ? "no arguments" : cli->command->arguments,
                  cli->n_arguments);
    }
    mem_free(table);
}

static int run(const struct command *all, const struct command *command,
               int argc, char **argv)
{
    struct cli *cli = mem_zalloc(sizeof *cli);
    cli->all = all;
    cli->command = command;
    /* popt takes argv as it is, const or not */
    parse(cli, argc, (const char **)(uintptr_t)argv);
    int status = command->run(cli);
    for (int i = 0; i < cli->n_given; i++) {
        free(cli->given[i].value); /* popt's */
    }
    poptFreeContext(cli->popt);
    mem_free(cli);
    return output_status(status);
}

/* How many words of argv name the command; 0: another command. */
static int words_match(const char *name, int argc, char **argv)
{
    int words = 0;
    while (*name != '\0') {
        size_t n = strcspn(name, " ");
        if (1 + words >= argc || strlen(argv[1 + words]) != n ||
            memcmp(argv[1 + words], name, n) != 0) {
            return 0;
        }
        words++;
        name += n + (name[n] == ' ');
    }
    return words;
}

/* Prints the commands that begin with the word; false: there is none. */
static bool print_verbs(const struct command *commands, const char *noun,
                        FILE *to)
{
    bool any = false;
    size_t n = strlen(noun);
    for (const struct command *c = commands; c->name != NULL; c++) {
        if (strncmp(c->name, noun, n) == 0 && c->name[n] == ' ') {
            fprintf(to, "%sflotilla %s%s%s\n",
                    any ? "       " : "Usage: ", c->name,
                    c->arguments[0] != '\0' ? " " : "", c->arguments);
            any = true;
        }
    }
    return any;
}

static int help_about(const struct command *commands, int argc, char **argv)
{
    for (const struct command *c = commands; c->name != NULL; c++) {
        if (words_match(c->name, argc, argv) > 0) {
            print_command_help(c);
            return EXIT_DONE;
        }
    }
    if (print_verbs(commands, argv[1], stdout)) {
        return EXIT_DONE;
    }
    fprintf(stderr,
            "flotilla: there is no command \"%s\".\n`flotilla --help` lists "
            "them.\n",
            argv[1]);
    return EXIT_USAGE;
}

int cli_main(const struct command *commands, int argc, char **argv)
{
    const char *first = argc > 1 ? argv[1] : "--help";
    bool about = strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0 ||
                 strcmp(first, "help") == 0;
    if (about && argc > 2) {
        return help_about(commands, argc - 1, argv + 1);
    }
    if (about) {
        print_help(commands);
        return argc > 1 ? EXIT_DONE : EXIT_USAGE;
    }
    if (strcmp(first, "--version") == 0 || strcmp(first, "version") == 0) {
        printf("flotilla %s, commit %s\n", FLOTILLA_VERSION, FLOTILLA_COMMIT);
        return EXIT_DONE;
    }
    for (const struct command *c = commands; c->name != NULL; c++) {
        int words = words_match(c->name, argc, argv);
        if (words > 0) {
            argv[words] = argv[0]; /* popt skips its first word */
            return run(commands, c, argc - words, argv + words);
        }
    }
    if (first[0] == '-') {
        fprintf(stderr,
                "flotilla: %s comes before the command; options follow it: "
                "flotilla COMMAND %s ...\n`flotilla --help` lists the "
                "commands.\n",
                first, first);
        return EXIT_USAGE;
    }
    bool help = argc > 2 &&
                (strcmp(argv[2], "--help") == 0 || strcmp(argv[2], "-h") == 0);
    if (argc > 2 && !help) {
        fprintf(stderr, "flotilla: there is no command \"%s %s\".\n", first,
                argv[2]);
    }
    if (print_verbs(commands, first, help ? stdout : stderr)) {
        return help ? EXIT_DONE : EXIT_USAGE;
    }
    if (argc <= 2 || help) {
        fprintf(stderr, "flotilla: there is no command \"%s\".\n", first);
    }
    fputs("`flotilla --help` lists them.\n", stderr);
    return EXIT_USAGE;
}
