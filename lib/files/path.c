/* SPDX-License-Identifier: Apache-2.0 */
#include "files/path.h"

#include <string.h>

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool tnl_files_is_hidden(const char *name)
{
    return name[0] == '.';
}

/* The byte at raw[*i], decoded; moves *i behind it. -1: not an encoding, or a NUL. */
static int decoded(tnl_http_span raw, size_t *i)
{
    char c = raw.p[(*i)++];
    if (c != '%')
        return (unsigned char)c;
    if (raw.n - *i < 2)
        return -1;
    int high = hex(raw.p[*i]), low = hex(raw.p[*i + 1]);
    *i += 2;
    return high < 0 || low < 0 || high + low == 0 ? -1 : high * 16 + low;
}

/* Puts one name behind those that are there. 0 or a status. */
static int add_name(tnl_files_path *path, tnl_http_span raw)
{
    bool first = path->n == 0, slash = false;
    size_t begin = path->n + !first;

    if (!first)
        path->text[path->n++] = '/';
    for (size_t i = 0; i < raw.n;) {
        int c = decoded(raw, &i);
        if (c < 0)
            return 400;
        slash = slash || c == '/';
        path->text[path->n++] = (char)c;
    }
    path->text[path->n] = '\0';
    if (slash)
        return 404;
    if (tnl_files_is_hidden(path->text + begin) &&
        !(first && strcmp(path->text, ".well-known") == 0))
        return 404;
    return 0;
}

int tnl_files_path_parse(tnl_files_path *path, tnl_http_span target)
{
    const char *mark = target.n ? memchr(target.p, '?', target.n) : NULL;
    size_t n = mark ? (size_t)(mark - target.p) : target.n;
    int worst = 0;

    path->n = 0;
    path->text[0] = '\0';
    path->query = (tnl_http_span){target.p + n, target.n - n};
    if (n == 0 || target.p[0] != '/')
        return 400;
    /* Decoding only makes it shorter. */
    if (n >= sizeof(path->text))
        return 414;
    path->folder = target.p[n - 1] == '/';
    for (size_t at = 0; at < n;) {
        const char *slash = memchr(target.p + at, '/', n - at);
        size_t end = slash ? (size_t)(slash - target.p) : n;
        int status = end > at ? add_name(path, (tnl_http_span){target.p + at, end - at}) : 0;
        if (status == 400)
            return status;
        worst = status ? status : worst;
        at = end + 1;
    }
    return worst;
}

const char *tnl_files_path_last(const tnl_files_path *path)
{
    const char *slash = strrchr(path->text, '/');
    return slash ? slash + 1 : path->text;
}

int tnl_files_encode(tnl_buf *out, const char *p, size_t n)
{
    static const char digits[] = "0123456789ABCDEF";
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        char text[3] = {'%', digits[c >> 4], digits[c & 15]};
        bool as_is = c && strchr(plain, c);
        int rc = tnl_buf_add(out, as_is ? &p[i] : text, as_is ? 1 : sizeof(text));
        if (rc)
            return rc;
    }
    return 0;
}
