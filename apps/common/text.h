/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPS_COMMON_TEXT_H
#define APPS_COMMON_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Copies of texts, in the order in which they came. {0} is empty. */
typedef struct text_list {
    char **items;
    size_t count;
} text_list;

/* false: out of memory. */
bool text_add(text_list *list, const char *text);
/* Wipes and frees all; the list is empty then. */
void text_clear(text_list *list);
bool text_has(const text_list *list, const char *text);

/* Replaces *slot, which is NULL or from here, by a copy. false: out of memory. */
bool text_set(char **slot, const char *text);
/* Wipes and frees; NULL is fine. */
void text_free(char *text);
/* Both NULL, or the same. */
bool text_equal(const char *a, const char *b);

/*
 * A new text: path, put behind folder if it is relative (folder NULL: the current one). NULL: out
 * of memory.
 */
char *path_in(const char *folder, const char *path);

/* The nearest of n names, if it is near; else NULL. */
const char *nearest_name(const char *name, const char *const *names, size_t n);

#endif
