/* SPDX-License-Identifier: Apache-2.0 */
#include "common/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool text_add(text_list *list, const char *text)
{
    char **more = realloc(list->items, (list->count + 1) * sizeof(*more));
    if (!more)
        return false;
    list->items = more;
    more[list->count] = strdup(text);
    return more[list->count] && ++list->count;
}

void text_clear(text_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        text_free(list->items[i]);
    free(list->items);
    *list = (text_list){.count = 0};
}

bool text_has(const text_list *list, const char *text)
{
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->items[i], text) == 0)
            return true;
    return false;
}

bool text_set(char **slot, const char *text)
{
    char *copy = strdup(text);
    if (!copy)
        return false;
    text_free(*slot);
    *slot = copy;
    return true;
}

void text_free(char *text)
{
    if (text)
        explicit_bzero(text, strlen(text));
    free(text);
}

bool text_equal(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

char *path_in(const char *folder, const char *path)
{
    char *current = NULL, *out = NULL;
    if (path[0] == '/' || (folder && strcmp(folder, ".") == 0))
        return strdup(path);
    if (!folder)
        folder = current = getcwd(NULL, 0);
    if (folder && asprintf(&out, "%s%s%s", folder, strcmp(folder, "/") == 0 ? "" : "/", path) < 0)
        out = NULL;
    free(current);
    return out;
}

/* --- names that are near ---------------------------------------------------------------------- */

/* How many letters must be changed, added, taken away or exchanged with the next; both at most
 * NEAR_MAX long. */
enum { NEAR_MAX = 32 };

static size_t distance(const char *a, const char *b)
{
    size_t rows[3][NEAR_MAX + 1], n = strlen(b);
    size_t *before = rows[0], *last = rows[1], *row = rows[2];
    for (size_t j = 0; j <= n; j++)
        before[j] = last[j] = j;
    for (size_t i = 0; a[i]; i++) {
        row[0] = i + 1;
        for (size_t j = 0; j < n; j++) {
            size_t best = last[j] + (a[i] != b[j]);
            if (last[j + 1] + 1 < best)
                best = last[j + 1] + 1;
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (i && j && a[i] == b[j - 1] && a[i - 1] == b[j] && before[j - 1] + 1 < best)
                best = before[j - 1] + 1;
            row[j + 1] = best;
        }
        size_t *oldest = before;
        before = last;
        last = row;
        row = oldest;
    }
    return last[n];
}

const char *nearest_name(const char *name, const char *const *names, size_t n)
{
    const char *nearest = NULL;
    size_t length = strlen(name), best = length / 3 < 3 ? length / 3 + 1 : 4;
    if (length > NEAR_MAX)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        size_t d = strlen(names[i]) <= NEAR_MAX ? distance(name, names[i]) : best;
        if (d < best) {
            best = d;
            nearest = names[i];
        }
    }
    return nearest;
}
