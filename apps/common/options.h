/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPS_COMMON_OPTIONS_H
#define APPS_COMMON_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Command lines by table: a command if the program has some, and long options ("--name VALUE",
 * "--name=VALUE"), each also an environment variable; flags win over the environment, both over a
 * configuration file, and a repeatable option counts as a whole. Its variable holds several values
 * separated by commas.
 */
enum { OPTIONS_MAX = 64, ARGUMENTS_MAX = 64, EXIT_USAGE = 2 };

/* Where an option may stand in a configuration file. */
typedef enum option_place {
    IN_FILE,   /* as a key at the top level */
    IN_TUNNEL, /* as a key of a tunnel */
    NOT_IN_FILE,
} option_place;

typedef struct option_row {
    const char *name;     /* without the dashes */
    const char *value;    /* what --help calls its value; NULL: a switch */
    const char *variable; /* the environment variable */
    bool repeatable;
    bool path;         /* relative to the folder of the file it stands in; "" and "-" are not */
    bool secret;       /* must not be read by others */
    char group;        /* options of a group are overridden together; 0: it is alone */
    unsigned commands; /* bits of the commands that it goes with; 0: all */
    option_place place;
    const char *help; /* lines separated by \n */
    /* Called for each value (a switch: "1"). Returns NULL, or the line that says what is wrong with
     * it. The value need not live on. */
    const char *(*set)(void *user, const char *value);
} option_row;

typedef struct command_row {
    const char *name;
    const char *arguments; /* what --help calls them */
    size_t most;           /* of arguments */
    const char *needs;     /* the line when there is no argument; NULL: there need not be one */
    const char *help;      /* a sentence */
    const char *details;   /* more of them, lines separated by \n; may be NULL */
} command_row;

typedef struct command_line {
    const char *program;
    const char *usage; /* what follows the program's name, and a description */
    const char *examples;
    const option_row *rows;
    size_t row_count;
    const command_row *commands;
    size_t command_count;
    bool command_required;
    const char *no_command; /* the line when it is missing, or when one is unknown: its ending */

    /* what was given */
    const command_row *command; /* NULL: none */
    const char *arguments[ARGUMENTS_MAX];
    size_t argument_count;
    struct given_value {
        const option_row *row;
        const char *value; /* of argv */
    } * given;
    size_t given_count;
} command_line;

/*
 * Reads the arguments; nothing is set yet. Returns -1 to go on, or an exit code: 0 after --help or
 * --version, EXIT_USAGE after a mistake, which one line on standard error has told.
 */
int read_command_line(command_line *c, int argc, char **argv);
void free_command_line(command_line *c);

/*
 * Calls the setters of what was given by flags, then of what the environment gives and flags do
 * not. Variables of options that do not go with the command are ignored. Returns -1 to go on or an
 * exit code. May be called again, for another user.
 */
int apply_options(const command_line *c, void *user);

/* Whether an option, or another of its group, was given by a flag or in the environment. */
bool option_is_given(const command_line *c, const option_row *row);
/* The value of a flag, else of its variable, else NULL. For options that are not repeatable. */
const char *option_value(const command_line *c, const char *name);

const option_row *find_option(const command_line *c, const char *name);
const command_row *find_command(const command_line *c, const char *name);
/* Its bit for option_row.commands. */
unsigned command_bit(const command_line *c, const command_row *command);
/* Whether an option goes with a command. */
bool option_goes_with(const command_line *c, const option_row *row, const command_row *command);

/* "PROGRAM: text" on standard error; returns code. */
int fail_with(const command_line *c, int code, const char *text);

/* Seconds, with a fraction if need be, as milliseconds; -1 when it is not a number from 0 to 86400.
 */
long milliseconds(const char *value);

#endif
