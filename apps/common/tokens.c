/* SPDX-License-Identifier: Apache-2.0 */
#include "common/tokens.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { LINE_MAX_BYTES = 5000, TOKENS_MAX = 1025 };

const char *read_token_file(text_list *tokens, const char *path, char *line, size_t size)
{
    char text[LINE_MAX_BYTES];
    const char *error = NULL;
    FILE *file = fopen(path, "re");
    for (bool more = file != NULL; more && !error && (more = fgets(text, sizeof(text), file));) {
        const char *token = text + strspn(text, " \t");
        size_t n = strcspn(token, "\r\n");
        if (!strchr(text, '\n') && !feof(file))
            error = "a line is too long";
        while (n && (token[n - 1] == ' ' || token[n - 1] == '\t'))
            n--;
        text[(size_t)(token - text) + n] = '\0';
        if (n == 0 || *token == '#' || error)
            continue;
        if (tokens->count == TOKENS_MAX)
            error = "there are too many tokens";
        else if (!text_add(tokens, token))
            error = "out of memory";
    }
    if (!error && (!file || ferror(file)))
        error = strerror(errno);
    if (error) {
        snprintf(line, size, "'%.200s' cannot be read: %s", path, error);
        error = line;
    }
    explicit_bzero(text, sizeof(text));
    if (file)
        fclose(file);
    return error;
}
