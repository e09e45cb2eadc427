#include "tools/completion.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "tools/version.h"

const struct cli_option completion_options[] = {{0}};
const char completion_more[] =
    "Examples:\n"
    "  flotilla completion bash > /etc/bash_completion.d/flotilla\n"
    "  flotilla completion zsh > \"${fpath[1]}/_flotilla\"\n"
    "  flotilla completion fish > ~/.config/fish/completions/flotilla.fish\n";

/* ---- the table, word by word --------------------------------------------- */
static size_t noun_size(const struct command *c)
{
    return strcspn(c->name, " ");
}

static const char *verb_of(const struct command *c) /* "": none */
{
    const char *name = c->name + noun_size(c);
    return *name == ' ' ? name + 1 : name;
}

static bool noun_is_new(const struct command *all, const struct command *c)
{
    for (const struct command *k = all; k != c; k++) {
        if (noun_size(k) == noun_size(c) &&
            memcmp(k->name, c->name, noun_size(c)) == 0) {
            return false;
        }
    }
    return true;
}

static void print_nouns(const struct command *all)
{
    const char *gap = "";
    for (const struct command *c = all; c->name != NULL; c++) {
        if (noun_is_new(all, c)) {
            printf("%s%.*s", gap, (int)noun_size(c), c->name);
            gap = " ";
        }
    }
}

static void print_verbs_of(const struct command *all, const struct command *of)
{
    const char *gap = "";
    for (const struct command *c = all; c->name != NULL; c++) {
        if (noun_size(c) == noun_size(of) &&
            memcmp(c->name, of->name, noun_size(of)) == 0) {
            printf("%s%s", gap, verb_of(c));
            gap = " ";
        }
    }
}

static void print_options_of(const struct command *c)
{
    for (const struct cli_option *o = c->options; o->name != NULL; o++) {
        printf("--%s ", o->name);
    }
    printf("--help");
}

/* "table|wide|json" is a choice of words; NUMBER, NAME are not. */
static bool is_choice(const struct cli_option *o)
{
    return o->arg != NULL && strchr(o->arg, '|') != NULL;
}

static bool is_path(const struct cli_option *o)
{
    return o->arg != NULL &&
           (strcmp(o->arg, "FILE") == 0 || strcmp(o->arg, "DIR") == 0);
}

static void print_choice(const char *arg)
{
    for (; *arg != '\0'; arg++) {
        putchar(*arg == '|' ? ' ' : *arg);
    }
}

/* ---- shells -------------------------------------------------------------- */
/* What stands for the value of an option that is right before the cursor. */
static void bash_value(const struct command *c, const struct cli_option *o,
                       const char *dashes, const char *name, int name_size)
{
    printf("    '%s%s%s%.*s') ", c->name, verb_of(c)[0] == '\0' ? " '*' " : " ",
           dashes, name_size, name);
    if (is_choice(o)) {
        printf("words='");
        print_choice(o->arg);
        printf("' ;;\n");
    } else {
        printf(is_path(o) ? "files=1 ;;\n" : "return ;;\n");
    }
}

static void bash_values(const struct command *all)
{
    printf("    case \"${COMP_WORDS[1]} ${COMP_WORDS[2]} $prev\" in\n");
    for (const struct command *c = all; c->name != NULL; c++) {
        for (const struct cli_option *o = c->options; o->name != NULL; o++) {
            if (o->arg != NULL && o->letter != 0) {
                bash_value(c, o, "-", &o->letter, 1);
            }
            if (o->arg != NULL) {
                bash_value(c, o, "--", o->name, (int)strlen(o->name));
            }
        }
    }
    printf("    esac\n");
}

static void bash(const struct command *all)
{
    printf(
        "_flotilla() {\n"
        "    local cur=${COMP_WORDS[COMP_CWORD]} words= files=\n"
        "    local prev=${COMP_WORDS[COMP_CWORD-1]}\n"
        "    COMPREPLY=()\n");
    bash_values(all);
    printf(
        "    if [ -n \"$words$files\" ]; then\n        :\n"
        "    elif [ \"$COMP_CWORD\" -eq 1 ]; then\n        words='");
    print_nouns(all);
    printf(
        " --help --version'\n"
        "    else\n        case \"${COMP_WORDS[1]} ${COMP_WORDS[2]}\" in\n");
    for (const struct command *c = all; c->name != NULL; c++) {
        bool plain = verb_of(c)[0] == '\0';
        printf("        '%s%s'*) words='", c->name, plain ? " " : "");
        print_options_of(c);
        printf("' ;;\n");
    }
    printf(
        "        esac\n"
        "        if [ \"$COMP_CWORD\" -eq 2 ]; then\n"
        "            case \"${COMP_WORDS[1]}\" in\n");
    for (const struct command *c = all; c->name != NULL; c++) {
        if (verb_of(c)[0] != '\0' && noun_is_new(all, c)) {
            printf("            %.*s) words='", (int)noun_size(c), c->name);
            print_verbs_of(all, c);
            printf("' ;;\n");
        }
    }
    printf(
        "            esac\n        fi\n    fi\n"
        "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
        "    [ ${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- "
        "\"$cur\"))\n"
        "}\n"
        "complete -F _flotilla flotilla\n");
}

static void zsh(const struct command *all)
{
    printf(
        "#compdef flotilla\n"
        "autoload -U +X bashcompinit && bashcompinit\n");
    bash(all);
}

/* In single quotes of fish. */
static void print_quoted(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'' || *text == '\\') {
            putchar('\\');
        }
        putchar(*text);
    }
}

static void fish_command(const struct command *all, const struct command *c)
{
    int n = (int)noun_size(c);
    bool plain = verb_of(c)[0] == '\0';
    if (noun_is_new(all, c)) {
        printf("complete -c flotilla -n __fish_use_subcommand -f -a %.*s", n,
               c->name);
        if (plain) {
            printf(" -d '");
            print_quoted(c->summary);
            putchar('\'');
        }
        putchar('\n');
    }
    if (!plain) {
        printf(
            "complete -c flotilla -n '__fish_seen_subcommand_from %.*s; and "
            "not __fish_seen_subcommand_from ",
            n, c->name);
        print_verbs_of(all, c);
        printf("' -f -a %s -d '", verb_of(c));
        print_quoted(c->summary);
        printf("'\n");
    }
    for (const struct cli_option *o = c->options; o->name != NULL; o++) {
        printf("complete -c flotilla -n '__fish_seen_subcommand_from %.*s", n,
               c->name);
        if (!plain) {
            printf("; and __fish_seen_subcommand_from %s", verb_of(c));
        }
        printf("' -l %s", o->name);
        if (o->letter != 0) {
            printf(" -s %c", o->letter);
        }
        if (is_choice(o)) {
            printf(" -x -a '");
            print_choice(o->arg);
            putchar('\'');
        } else if (o->arg != NULL) {
            printf(is_path(o) ? " -r -F" : " -x");
        }
        printf(" -d '");
        print_quoted(o->help);
        printf("'\n");
    }
}

int completion_run(struct cli *cli)
{
    const struct command *all = cli_commands(cli);
    const char *shell = cli_argument(cli, 0);
    if (strcmp(shell, "bash") == 0) {
        bash(all);
    } else if (strcmp(shell, "zsh") == 0) {
        zsh(all);
    } else if (strcmp(shell, "fish") == 0) {
        for (const struct command *c = all; c->name != NULL; c++) {
            fish_command(all, c);
        }
    } else {
        cli_usage(cli, "%s: expected bash, zsh or fish.", shell);
    }
    return EXIT_DONE;
}

/* ---- the manual page ----------------------------------------------------- */
/* Text of roff: a backslash, and a dot or quote that begins a line, are
 * commands there; a hyphen stays one. */
static void print_roff(const char *text)
{
    bool begin = true;
    for (; *text != '\0'; text++) {
        if (begin && (*text == '.' || *text == '\'')) {
            printf("\\&");
        }
        if (*text == '\\') {
            printf("\\e");
        } else if (*text == '-') {
            printf("\\-");
        } else {
            putchar(*text);
        }
        begin = *text == '\n';
    }
}

static void man_option(const struct cli_option *o)
{
    printf(".TP\n");
    if (o->letter != 0) {
        printf("\\fB\\-%c\\fR, ", o->letter);
    }
    printf("\\fB\\-\\-");
    print_roff(o->name);
    printf("\\fR");
    if (o->arg != NULL) {
        printf(" \\fI");
        print_roff(o->arg);
        printf("\\fR");
    }
    putchar('\n');
    print_roff(o->help);
    putchar('\n');
}

static void man_command(const struct command *c)
{
    printf(".SS \"flotilla ");
    print_roff(c->name);
    if (c->arguments[0] != '\0') {
        putchar(' ');
        print_roff(c->arguments);
    }
    printf("\"\n");
    print_roff(c->summary);
    putchar('\n');
    for (const struct cli_option *o = c->options; o->name != NULL; o++) {
        man_option(o);
    }
    if (c->more != NULL) {
        printf(".PP\n.nf\n");
        print_roff(c->more);
        printf(".fi\n");
    }
}

int man_run(struct cli *cli)
{
    printf(".TH FLOTILLA 1 \"\" \"flotilla " FLOTILLA_VERSION
           "\" \"User Commands\"\n"
           ".SH NAME\nflotilla \\- a Kafka\\-compatible event\\-streaming "
           "cluster\n"
           ".SH SYNOPSIS\n\\fBflotilla\\fR \\fICOMMAND\\fR [\\fIoptions\\fR]\n"
           ".SH COMMANDS\n");
    for (const struct command *c = cli_commands(cli); c->name != NULL; c++) {
        man_command(c);
    }
    printf(".SH EXIT STATUS\n");
    for (const struct cli_status *s = cli_statuses; s->text != NULL; s++) {
        printf(".TP\n%d\n%s\n", s->status, s->text);
    }
    printf(
        ".SH ENVIRONMENT\n.TP\nFLOTILLA_BOOTSTRAP_SERVER\nbrokers to ask "
        "first, where \\-b is not given\n"
        ".TP\nFLOTILLA_\\fIKEY\\fR, KAFKA_\\fIKEY\\fR\nkeys of the broker's "
        "configuration, over those of its file: a dot becomes one underscore, "
        "an underscore two, a hyphen three\n"
        ".SH FILES\n.TP\nserver.properties\nconfiguration of a broker, Kafka's "
        "format and names\n"
        ".TP\n\\fIlog.dirs\\fR/../pid\nprocess id of a broker while it runs\n"
        ".SH SIGNALS\n.TP\nSIGTERM, SIGINT\nend a broker in order: its "
        "leaderships are handed over first; a second one ends it at once\n"
        ".TP\nSIGHUP, SIGUSR1, SIGUSR2\nchange nothing\n");
    return EXIT_DONE;
}
