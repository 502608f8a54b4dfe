/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FUZZ_CONFIG_COMMON_H
#define FUZZ_CONFIG_COMMON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/document.h"
#include "common/json.h"
#include "common/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
    if (!ok)
        abort();
}

/* Files that a configuration names are opened: none of these, which could wait for ever. */
static inline bool names_other_files(const uint8_t *data, size_t size)
{
    return memmem(data, size, "token-file", 10) != NULL;
}

/* Whatever it holds, what is said about it is one line of printable bytes, and valid as JSON. */
static void look_at(void *user, const char *text)
{
    char *out = NULL;
    size_t n = 0;
    json_line j;
    (*(size_t *)user)++;
    for (const char *p = text; *p; p++)
        must((unsigned char)*p >= ' ' && *p != 127);
    FILE *file = open_memstream(&out, &n);
    must(file != NULL);
    json_begin(&j, file, "mistake");
    json_text(&j, "text", text);
    json_end(&j);
    fclose(file);
    must(n > 2 && out[0] == '{' && strcmp(out + n - 2, "}\n") == 0);
    bool quoted = false;
    for (size_t i = 0; i + 1 < n;) {
        size_t used = utf8_length(out + i, n - i);
        must(used > 0 && (unsigned char)out[i] >= ' ');
        if (quoted && out[i] == '\\')
            used = out[i + 1] == 'u' ? 6 : 2;
        else if (out[i] == '"')
            quoted = !quoted;
        i += used;
    }
    must(!quoted);
    free(out);
}

#endif
