/* SPDX-License-Identifier: Apache-2.0 */
#include "common/help.h"

#include <stdio.h>
#include <string.h>

enum { HELP_COLUMN = 32, COMMAND_COLUMN = 23, HELP_WIDTH = 100 };

static void print_lines(const char *text, const char *variable)
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

static void print_option(const option_row *r)
{
    int n = printf("  --%s%s%s%s", r->name, r->value ? " " : "", r->value ? r->value : "",
                   r->repeatable ? " ..." : "");
    if (n >= HELP_COLUMN - 1)
        printf("\n%*s", HELP_COLUMN, "");
    else
        printf("%*s", HELP_COLUMN - n, "");
    print_lines(r->help, r->variable);
}

/* "(http, tls)" on a line of its own. */
static void print_commands_of(const command_line *c, const option_row *r)
{
    const char *separator = "(";
    printf("%*s", HELP_COLUMN, "");
    for (size_t i = 0; i < c->command_count; i++)
        if (option_goes_with(c, r, &c->commands[i])) {
            printf("%s%s", separator, c->commands[i].name);
            separator = ", ";
        }
    printf(")\n");
}

static void print_commands(const command_line *c)
{
    printf("\nCommands; each tells more with --help:\n");
    for (size_t i = 0; i < c->command_count; i++) {
        const command_row *k = &c->commands[i];
        int n = printf("  %s%s%s", k->name, *k->arguments ? " " : "", k->arguments);
        printf("%*s%s\n", n < COMMAND_COLUMN ? COMMAND_COLUMN - n : 1, "", k->help);
    }
}

void print_help(const command_line *c)
{
    const command_row *k = c->command;
    if (k)
        printf("Usage: %s %s%s%s [OPTIONS]\n\n%s\n%s%s", c->program, k->name,
               *k->arguments ? " " : "", k->arguments, k->help, k->details ? k->details : "",
               k->details ? "\n" : "");
    else
        printf("Usage: %s %s\n", c->program, c->usage);
    if (!k && c->command_count)
        print_commands(c);
    printf("\nOptions, and in brackets the environment variable of each (options win):\n");
    for (size_t i = 0; i < c->row_count; i++) {
        const option_row *r = &c->rows[i];
        if (k && !option_goes_with(c, r, k))
            continue;
        print_option(r);
        if (!k && r->commands)
            print_commands_of(c, r);
    }
    printf("  %-*s%s\n", HELP_COLUMN - 2, "--help", "This text.");
    printf("  %-*s%s\n", HELP_COLUMN - 2, "--version", "The version.");
    if (!k)
        printf("\n%s", c->examples);
}
