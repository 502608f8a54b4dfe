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
