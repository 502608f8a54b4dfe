/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPS_COMMON_TERMINAL_H
#define APPS_COMMON_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Whether colours are wanted there: a terminal that knows them, and NO_COLOR is not set. */
bool has_colours(FILE *out);

/* The control sequence for an HTTP status and the one that ends it; "" without colours. */
const char *colour_of_status(bool colours, int status);
const char *colour_end(bool colours);

/* "14:02:11", local time. */
void clock_text(char out[16]);

/* Whether the process has a terminal to be controlled from. */
bool has_terminal(void);

#endif
