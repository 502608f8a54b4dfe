/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPS_COMMON_OPTIONS_H
#define APPS_COMMON_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Command lines by table: long options ("--name VALUE", "--name=VALUE"), each also an environment
 * variable; flags win over the environment, and a repeatable option's variable holds several values
 * separated by commas.
 */
enum { OPTIONS_MAX = 40, ARGUMENTS_MAX = 8, EXIT_USAGE = 2 };

typedef struct option_row {
    const char *name;     /* without the dashes */
    const char *value;    /* what --help calls its value; NULL: a switch */
    const char *variable; /* the environment variable */
    bool repeatable;
    const char *help; /* lines separated by \n */
    /* Called for each value (a switch: "1"). Returns NULL, or the line that says what is wrong with
     * it. */
    const char *(*set)(void *user, const char *value);
} option_row;

typedef struct command_line {
    const char *program;
    const char *usage; /* what follows the program's name, and a description */
    const char *examples;
    const option_row *rows;
    size_t row_count;
    void *user;
    const char *arguments[ARGUMENTS_MAX];
    size_t argument_count;
} command_line;

/*
 * Reads arguments and environment. Returns -1 to go on, or an exit code: 0 after --help or
 * --version, EXIT_USAGE after a mistake, which one line on standard error has told.
 */
int read_command_line(command_line *c, int argc, char **argv);

/* "PROGRAM: text" on standard error; returns code. */
int fail_with(const command_line *c, int code, const char *text);

#endif
