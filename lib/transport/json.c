/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/json.h"

#include <stdint.h>
#include <string.h>

static int peek(tnl_str s)
{
    return s.n ? (unsigned char)s.p[0] : -1;
}

static void skip(tnl_str *s)
{
    s->p++;
    s->n--;
}

static void blanks(tnl_str *s)
{
    while (s->n && strchr(" \t\r\n", s->p[0]) && s->p[0])
        skip(s);
}

static int hex(int c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The character an escape stands for (after the backslash); -1: malformed. */
static int escaped(tnl_str *s)
{
    int c = peek(*s);
    if (c < 0)
        return -1;
    skip(s);
    if (c != 'u')
        return strchr("\"\\/", c) ? c : strchr("bfnrt", c) ? ' ' : -1;
    int v = 0;
    for (int i = 0; i < 4; i++) {
        int d = hex(peek(*s));
        if (d < 0)
            return -1;
        v = v * 16 + d;
        skip(s);
    }
    return v < 0x20 ? ' ' : v < 0x7f ? v : '?';
}

/* Reads a string into out (cut to size); size 0: only skips it. */
static bool string(tnl_str *s, char *out, size_t size)
{
    size_t n = 0;
    if (peek(*s) != '"')
        return false;
    skip(s);
    for (;;) {
        int c = peek(*s);
        if (c < 0)
            return false;
        skip(s);
        if (c == '"')
            break;
        if (c == '\\')
            c = escaped(s);
        if (c < 0)
            return false;
        if (n + 1 < size)
            out[n++] = (char)(c < 0x20 || c == 0x7f ? ' ' : c);
    }
    if (size)
        out[n] = '\0';
    return true;
}

/* Skips any value, without looking closely: brackets are counted, not matched. */
static bool value(tnl_str *s)
{
    unsigned depth = 0;
    for (;;) {
        int c = peek(*s);
        if (c < 0)
            return false;
        if (c == '"') {
            if (!string(s, NULL, 0))
                return false;
            continue;
        }
        if (!depth && (c == ',' || c == '}'))
            return true;
        if (c == '{' || c == '[')
            depth++;
        else if ((c == '}' || c == ']') && depth)
            depth--;
        skip(s);
    }
}

bool tnl_json_member(tnl_str text, const char *name, char *out, size_t size)
{
    char key[32];
    tnl_str s = text;
    blanks(&s);
    if (peek(s) != '{')
        return false;
    do {
        skip(&s);
        blanks(&s);
        if (!string(&s, key, sizeof(key)))
            return false;
        blanks(&s);
        if (peek(s) != ':')
            return false;
        skip(&s);
        blanks(&s);
        if (strcmp(key, name) == 0)
            return string(&s, out, size);
        if (!value(&s))
            return false;
    } while (peek(s) == ',');
    return false;
}
