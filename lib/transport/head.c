/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/head.h"

#include <string.h>
#include <strings.h>

size_t tnl_head_length(const char *p, size_t n)
{
    const char *end = n ? memmem(p, n, "\r\n\r\n", 4) : NULL;
    return end ? (size_t)(end - p) + 4 : 0;
}

/* Takes the next line, without CRLF, off *rest; false at the end of the head. */
static bool next_line(tnl_str *rest, tnl_str *line)
{
    const char *end = rest->n ? memmem(rest->p, rest->n, "\r\n", 2) : NULL;
    if (!end || end == rest->p)
        return false;
    *line = (tnl_str){rest->p, (size_t)(end - rest->p)};
    rest->p = end + 2;
    rest->n -= line->n + 2;
    return true;
}

static tnl_str trim(tnl_str s)
{
    while (s.n && (s.p[0] == ' ' || s.p[0] == '\t')) {
        s.p++;
        s.n--;
    }
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

tnl_str tnl_head_start(tnl_str head)
{
    tnl_str line = {NULL, 0};
    next_line(&head, &line);
    return line;
}

bool tnl_head_is(tnl_str text, const char *word)
{
    return text.n == strlen(word) && strncasecmp(text.p, word, text.n) == 0;
}

bool tnl_head_find(tnl_str head, const char *name, tnl_str *value)
{
    size_t n = strlen(name);
    tnl_str line;
    if (!next_line(&head, &line))
        return false;
    while (next_line(&head, &line)) {
        if (line.n <= n || line.p[n] != ':' || strncasecmp(line.p, name, n) != 0)
            continue;
        *value = trim((tnl_str){line.p + n + 1, line.n - n - 1});
        return true;
    }
    return false;
}

bool tnl_head_has_token(tnl_str list, const char *token)
{
    while (list.n) {
        const char *comma = memchr(list.p, ',', list.n);
        size_t n = comma ? (size_t)(comma - list.p) : list.n;
        if (tnl_head_is(trim((tnl_str){list.p, n}), token))
            return true;
        n += comma ? 1 : 0;
        list.p += n;
        list.n -= n;
    }
    return false;
}

bool tnl_head_clean(const char *text)
{
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < 0x20 || c == 0x7f)
            return false;
    }
    return true;
}
