/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tunnel/version.h>

enum { HELP_COLUMN = 32, HELP_WIDTH = 100 };

int fail_with(const command_line *c, int code, const char *text)
{
    fprintf(stderr, "%s: ", c->program);
    /* One line, whatever the values it quotes hold. */
    for (; *text; text++)
        fputc((unsigned char)*text < ' ' || *text == 127 ? '?' : *text, stderr);
    fputc('\n', stderr);
    return code;
}

static void print_help_lines(const char *text, const char *variable)
{
    size_t column = HELP_COLUMN;
    while (*text) {
        size_t n = strcspn(text, "\n");
        printf("%.*s", (int)n, text);
        text += n;
        column = HELP_COLUMN + n;
        if (*text == '\n') {
            printf("\n%*s", HELP_COLUMN, "");
            text++;
        }
    }
    if (variable && column + strlen(variable) + 3 > HELP_WIDTH)
        printf("\n%*s[%s]\n", HELP_COLUMN, "", variable);
    else if (variable)
        printf(" [%s]\n", variable);
    else
        printf("\n");
}

static void print_help(const command_line *c)
{
    printf(
        "Usage: %s %s\n\nOptions, and in brackets the environment variable of each (options win):\n",
        c->program, c->usage);
    for (size_t i = 0; i < c->row_count; i++) {
        const option_row *r = &c->rows[i];
        int n = printf("  --%s%s%s%s", r->name, r->value ? " " : "", r->value ? r->value : "",
                       r->repeatable ? " ..." : "");
        if (n >= HELP_COLUMN - 1)
            printf("\n%*s", HELP_COLUMN, "");
        else
            printf("%*s", HELP_COLUMN - n, "");
        print_help_lines(r->help, r->variable);
    }
    printf("  %-*s%s\n", HELP_COLUMN - 2, "--help", "This text.");
    printf("  %-*s%s\n\n%s", HELP_COLUMN - 2, "--version", "The version.", c->examples);
}

static int apply(const command_line *c, const option_row *r, const char *value, const char *source)
{
    char text[1024];
    const char *error = r->set(c->user, value);
    if (!error)
        return -1;
    snprintf(text, sizeof(text), "%s: %s", source, error);
    return fail_with(c, EXIT_USAGE, text);
}

static int apply_variable(const command_line *c, const option_row *r)
{
    const char *value = r->variable ? getenv(r->variable) : NULL;
    int rc = -1;
    if (!value || !*value)
        return -1;
    if (!r->value &&
        (strcmp(value, "0") == 0 || strcmp(value, "false") == 0 || strcmp(value, "no") == 0))
        return -1;
    if (!r->repeatable)
        return apply(c, r, value, r->variable);
    char *copy = strdup(value);
    if (!copy)
        return fail_with(c, 1, "out of memory");
    char *rest = copy;
    for (char *part; rc < 0 && (part = strsep(&rest, ","));)
        if (*part)
            rc = apply(c, r, part, r->variable);
    free(copy);
    return rc;
}

static const option_row *find(const command_line *c, const char *name, size_t n)
{
    for (size_t i = 0; i < c->row_count; i++)
        if (strlen(c->rows[i].name) == n && memcmp(c->rows[i].name, name, n) == 0)
            return &c->rows[i];
    return NULL;
}

static int usage_error(const command_line *c, const char *format, const char *what)
{
    char text[512];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(text, sizeof(text), format, what);
#pragma GCC diagnostic pop
    return fail_with(c, EXIT_USAGE, text);
}

/* One "--name[=value]"; *i moves over a value that is an argument of its own. */
static int read_option(const command_line *c, int argc, char **argv, int *i, bool *given)
{
    const char *name = argv[*i] + 2;
    size_t n = strcspn(name, "=");
    char shown[80], source[80];
    snprintf(shown, sizeof(shown), "%.*s", (int)n, name);
    const option_row *r = find(c, name, n);
    if (!r)
        return usage_error(c, "unknown option '--%s' (see --help)", shown);
    const char *value = name[n] == '=' ? name + n + 1 : NULL;
    if (!r->value && value)
        return usage_error(c, "--%s takes no value", shown);
    if (r->value && !value) {
        if (*i + 1 >= argc)
            return usage_error(c, "--%s needs a value (see --help)", shown);
        value = argv[++*i];
    }
    size_t row = (size_t)(r - c->rows);
    if (given[row] && !r->repeatable)
        return usage_error(c, "--%s is given twice", shown);
    given[row] = true;
    snprintf(source, sizeof(source), "--%.70s", shown);
    return apply(c, r, value ? value : "1", source);
}

int read_command_line(command_line *c, int argc, char **argv)
{
    bool given[OPTIONS_MAX] = {false};
    bool only_arguments = false;
    int rc = -1;
    for (int i = 1; i < argc && rc < 0; i++) {
        if (!only_arguments && strcmp(argv[i], "--") == 0) {
            only_arguments = true;
        } else if (!only_arguments &&
                   (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)) {
            print_help(c);
            return 0;
        } else if (!only_arguments && strcmp(argv[i], "--version") == 0) {
            printf("%s %s\n", c->program, tunnel_version());
            return 0;
        } else if (!only_arguments && strncmp(argv[i], "--", 2) == 0) {
            rc = read_option(c, argc, argv, &i, given);
        } else if (!only_arguments && argv[i][0] == '-' && argv[i][1]) {
            rc = usage_error(c, "unknown option '%.60s' (see --help)", argv[i]);
        } else if (c->argument_count == ARGUMENTS_MAX) {
            rc = usage_error(c, "too many arguments: '%.60s' (see --help)", argv[i]);
        } else {
            c->arguments[c->argument_count++] = argv[i];
        }
    }
    for (size_t r = 0; r < c->row_count && rc < 0; r++)
        if (!given[r])
            rc = apply_variable(c, &c->rows[r]);
    return rc;
}
