/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPS_COMMON_TOKENS_H
#define APPS_COMMON_TOKENS_H

#include <stddef.h>

#include "common/text.h"

/*
 * Adds the tokens of a file, one on each line; blanks around them, empty lines and lines that begin
 * with # do not count. NULL or a line in line[] that says what is wrong.
 */
const char *read_token_file(text_list *tokens, const char *path, char *line, size_t size);

#endif
