/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPS_COMMON_HELP_H
#define APPS_COMMON_HELP_H

#include "common/options.h"

/* Prints how to call the program; after a command, how to call that. */
void print_help(const command_line *c);

#endif
