/* SPDX-License-Identifier: Apache-2.0 */
#include "common/mistakes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 1200 };

/* What a file holds can be anything; a line for people is printable, and one line. */
static void make_printable(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 127)
            *text = '?';
}

void add_mistake(mistakes *m, size_t line, const char *format, ...)
{
    char text[LINE];
    va_list args;
    m->count++;
    if (m->kept == MISTAKES_MAX)
        return;
    int n = line ? snprintf(text, sizeof(text), "%.300s:%zu: ", m->path, line)
                 : snprintf(text, sizeof(text), "%.300s: ", m->path);
    va_start(args, format);
    vsnprintf(text + n, sizeof(text) - (size_t)n, format, args);
    va_end(args);
    make_printable(text);
    char *copy = strdup(text);
    if (!copy)
        return;
    size_t i = m->kept++;
    for (; i > 0 && m->items[i - 1].line > line; i--)
        m->items[i] = m->items[i - 1];
    m->items[i] = (struct mistake){.line = line, .text = copy};
}

void tell_mistakes(mistakes *m, void (*say)(void *user, const char *text), void *user)
{
    char text[LINE];
    for (size_t i = 0; i < m->kept; i++)
        say(user, m->items[i].text);
    if (m->count == m->kept)
        return;
    snprintf(text, sizeof(text), "%.300s: and %zu more", m->path, m->count - m->kept);
    say(user, text);
}

void clear_mistakes(mistakes *m)
{
    for (size_t i = 0; i < m->kept; i++)
        free(m->items[i].text);
    m->kept = m->count = 0;
}
