/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPS_COMMON_MISTAKES_H
#define APPS_COMMON_MISTAKES_H

#include <stddef.h>

/* What is wrong with a configuration file; the first MISTAKES_MAX of them are kept. */
enum { MISTAKES_MAX = 100 };

typedef struct mistakes {
    const char *path; /* borrowed: the file, as people called it */
    size_t count;
    size_t kept;
    struct mistake {
        size_t line; /* 0: the file as a whole */
        char *text;  /* "FILE:LINE: KEY: what is wrong" */
    } items[MISTAKES_MAX];
} mistakes;

__attribute__((format(printf, 3, 4))) void add_mistake(mistakes *m, size_t line, const char *format,
                                                       ...);
/* Puts them in the order of their lines and says each; the last one, with count above kept, says
 * how many there are more. */
void tell_mistakes(mistakes *m, void (*say)(void *user, const char *text), void *user);
void clear_mistakes(mistakes *m);

#endif
