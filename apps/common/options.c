/* SPDX-License-Identifier: Apache-2.0 */
#include "common/options.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tunnel/version.h>

#include "common/help.h"
#include "common/text.h"

int fail_with(const command_line *c, int code, const char *text)
{
    fprintf(stderr, "%s: ", c->program);
    /* One line, whatever the values it quotes hold. */
    for (; *text; text++)
        fputc((unsigned char)*text < ' ' || *text == 127 ? '?' : *text, stderr);
    fputc('\n', stderr);
    return code;
}

__attribute__((format(printf, 2, 3))) static int usage_error(const command_line *c,
                                                             const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return fail_with(c, EXIT_USAGE, text);
}

long milliseconds(const char *value)
{
    char *end;
    size_t n = strlen(value);
    if (n == 0 || strspn(value, "0123456789.") != n)
        return -1;
    double seconds = strtod(value, &end);
    if (*end || !(seconds >= 0 && seconds <= 86400))
        return -1;
    return (long)(seconds * 1000 + 0.5);
}

/* --- finding ---------------------------------------------------------------------------------- */

static const option_row *find(const command_line *c, const char *name, size_t n)
{
    for (size_t i = 0; i < c->row_count; i++)
        if (strlen(c->rows[i].name) == n && memcmp(c->rows[i].name, name, n) == 0)
            return &c->rows[i];
    return NULL;
}

const option_row *find_option(const command_line *c, const char *name)
{
    return find(c, name, strlen(name));
}

const command_row *find_command(const command_line *c, const char *name)
{
    for (size_t i = 0; i < c->command_count; i++)
        if (strcmp(c->commands[i].name, name) == 0)
            return &c->commands[i];
    return NULL;
}

unsigned command_bit(const command_line *c, const command_row *command)
{
    return 1U << (command - c->commands);
}

bool option_goes_with(const command_line *c, const option_row *row, const command_row *command)
{
    return !row->commands || (command && (row->commands & command_bit(c, command)));
}

/* --- arguments -------------------------------------------------------------------------------- */

static bool given_before(const command_line *c, const option_row *row)
{
    for (size_t i = 0; i < c->given_count; i++)
        if (c->given[i].row == row)
            return true;
    return false;
}

static const char *nearest_option(const command_line *c, const char *name, size_t n)
{
    char word[40];
    const char *names[OPTIONS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < c->row_count && count < OPTIONS_MAX; i++)
        names[count++] = c->rows[i].name;
    snprintf(word, sizeof(word), "%.*s", (int)(n < sizeof(word) ? n : sizeof(word) - 1), name);
    return nearest_name(word, names, count);
}

/* One "--name[=value]"; *i moves over a value that is an argument of its own. */
static int read_option(command_line *c, int argc, char **argv, int *i)
{
    const char *name = argv[*i] + 2;
    size_t n = strcspn(name, "=");
    int shown = n < 80 ? (int)n : 80;
    const option_row *r = find(c, name, n);
    if (!r) {
        const char *nearest = nearest_option(c, name, n);
        return usage_error(c, "unknown option '--%.*s'%s%s%s (see --help)", shown, name,
                           nearest ? "; did you mean '--" : "", nearest ? nearest : "",
                           nearest ? "'?" : "");
    }
    const char *value = name[n] == '=' ? name + n + 1 : NULL;
    if (!r->value && value)
        return usage_error(c, "--%s takes no value", r->name);
    if (r->value && !value) {
        if (*i + 1 >= argc)
            return usage_error(c, "--%s needs a value (see --help)", r->name);
        value = argv[++*i];
    }
    if (given_before(c, r) && !r->repeatable)
        return usage_error(c, "--%s is given twice", r->name);
    c->given[c->given_count].row = r;
    c->given[c->given_count++].value = value ? value : "1";
    return -1;
}

static int read_argument(command_line *c, const char *argument)
{
    if (c->command_count && !c->command && c->argument_count == 0) {
        c->command = find_command(c, argument);
        if (c->command)
            return -1;
        bool port = *argument && strspn(argument, "0123456789") == strlen(argument);
        if (c->command_required && port)
            return usage_error(c, "write 'http' or 'tcp' before the address: %s http %.60s",
                               c->program, argument);
        if (c->command_required)
            return usage_error(c, "unknown command '%.60s': %s (see --help)", argument,
                               c->no_command);
        return usage_error(c, "'%.60s' is not expected here (see --help)", argument);
    }
    if (c->argument_count == (c->command ? c->command->most : ARGUMENTS_MAX)) {
        if (c->command && c->command->most == 1)
            return usage_error(c, "'%s' takes one %s: '%.60s' is one too many (see --help)",
                               c->command->name, c->command->arguments, argument);
        if (c->command && c->command->most == 0)
            return usage_error(c,
                               "'%s' takes no arguments, but options: '%.60s' (see %s %s --help)",
                               c->command->name, argument, c->program, c->command->name);
        return usage_error(c, "too many arguments: '%.60s' (see --help)", argument);
    }
    c->arguments[c->argument_count++] = argument;
    return -1;
}

static int check_command(const command_line *c)
{
    if (!c->command && c->command_required)
        return usage_error(
            c, "what shall be published? Try: %s http 3000 --server URL (see --help)", c->program);
    if (c->command && c->command->needs && c->argument_count == 0)
        return usage_error(c, "'%s' needs %s (see --help)", c->command->name, c->command->needs);
    for (size_t i = 0; i < c->given_count; i++) {
        const option_row *r = c->given[i].row;
        if (r && c->command && !option_goes_with(c, r, c->command))
            return usage_error(c, "--%s does not go with '%s' (see %s %s --help)", r->name,
                               c->command->name, c->program, c->command->name);
    }
    return -1;
}

int read_command_line(command_line *c, int argc, char **argv)
{
    bool only_arguments = false, help = false;
    int rc = -1;
    c->given = calloc((size_t)argc + 1, sizeof(*c->given));
    if (!c->given)
        return fail_with(c, 1, "out of memory");
    for (int i = 1; i < argc && rc < 0; i++) {
        const char *a = argv[i];
        if (!only_arguments && strcmp(a, "--") == 0) {
            only_arguments = true;
        } else if (!only_arguments && (strcmp(a, "--help") == 0 || strcmp(a, "-h") == 0)) {
            help = true;
            break;
        } else if (!only_arguments && strcmp(a, "--version") == 0) {
            printf("%s %s\n", c->program, tunnel_version());
            return 0;
        } else if (!only_arguments && strncmp(a, "--", 2) == 0) {
            rc = read_option(c, argc, argv, &i);
        } else if (!only_arguments && a[0] == '-' && a[1]) {
            rc = usage_error(c, "unknown option '%.60s' (see --help)", a);
        } else {
            rc = read_argument(c, a);
        }
    }
    if (help) {
        print_help(c);
        return 0;
    }
    return rc < 0 ? check_command(c) : rc;
}

void free_command_line(command_line *c)
{
    free(c->given);
    c->given = NULL;
    c->given_count = 0;
}

/* --- values ----------------------------------------------------------------------------------- */

static const char *variable_of(const option_row *r)
{
    const char *value = r->variable ? getenv(r->variable) : NULL;
    return value && *value ? value : NULL;
}

static bool same_group(const option_row *a, const option_row *b)
{
    return a == b || (a->group && a->group == b->group);
}

static bool given_by_flag(const command_line *c, const option_row *row)
{
    for (size_t i = 0; i < c->given_count; i++)
        if (same_group(c->given[i].row, row))
            return true;
    return false;
}

bool option_is_given(const command_line *c, const option_row *row)
{
    for (size_t i = 0; i < c->row_count; i++)
        if (same_group(&c->rows[i], row) && variable_of(&c->rows[i]) &&
            option_goes_with(c, &c->rows[i], c->command))
            return true;
    return given_by_flag(c, row);
}

const char *option_value(const command_line *c, const char *name)
{
    const option_row *r = find_option(c, name);
    for (size_t i = 0; i < c->given_count; i++)
        if (c->given[i].row == r)
            return c->given[i].value;
    return r ? variable_of(r) : NULL;
}

static int apply(const command_line *c, const option_row *r, void *user, const char *value,
                 const char *dashes, const char *source)
{
    char text[1024];
    const char *error = r->set(user, value);
    if (!error)
        return -1;
    snprintf(text, sizeof(text), "%s%s: %s", dashes, source, error);
    return fail_with(c, EXIT_USAGE, text);
}

static int apply_variable(const command_line *c, const option_row *r, void *user)
{
    const char *value = variable_of(r);
    int rc = -1;
    if (!value)
        return -1;
    if (!r->value &&
        (strcmp(value, "0") == 0 || strcmp(value, "false") == 0 || strcmp(value, "no") == 0))
        return -1;
    if (!r->repeatable)
        return apply(c, r, user, value, "", r->variable);
    char *copy = strdup(value);
    if (!copy)
        return fail_with(c, 1, "out of memory");
    char *rest = copy;
    for (char *part; rc < 0 && (part = strsep(&rest, ","));)
        if (*part)
            rc = apply(c, r, user, part, "", r->variable);
    free(copy);
    return rc;
}

int apply_options(const command_line *c, void *user)
{
    int rc = -1;
    for (size_t i = 0; i < c->given_count && rc < 0; i++)
        rc = apply(c, c->given[i].row, user, c->given[i].value, "--", c->given[i].row->name);
    for (size_t i = 0; i < c->row_count && rc < 0; i++)
        if (option_goes_with(c, &c->rows[i], c->command) && !given_by_flag(c, &c->rows[i]))
            rc = apply_variable(c, &c->rows[i], user);
    return rc;
}
