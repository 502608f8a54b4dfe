/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "http/http.h"

static char folded(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

bool tnl_http_is(tnl_http_span s, const char *text)
{
    size_t i = 0;
    while (i < s.n && text[i] && folded(s.p[i]) == folded(text[i]))
        i++;
    return i == s.n && !text[i];
}

bool tnl_http_same(tnl_http_span a, tnl_http_span b)
{
    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++)
        if (folded(a.p[i]) != folded(b.p[i]))
            return false;
    return true;
}

bool tnl_http_looks_like(tnl_http_span name, const char *canonical)
{
    size_t i = 0;
    while (i < name.n && canonical[i]) {
        char c = name.p[i] == '_' ? '-' : folded(name.p[i]);
        if (c != folded(canonical[i]))
            break;
        i++;
    }
    return i == name.n && !canonical[i];
}

const tnl_http_field *tnl_http_find(const tnl_http_head *h, const char *name)
{
    for (size_t i = 0; i < h->field_count; i++)
        if (tnl_http_is(h->fields[i].name, name))
            return &h->fields[i];
    return NULL;
}

static tnl_http_span trimmed(tnl_http_span s)
{
    while (s.n && (s.p[0] == ' ' || s.p[0] == '\t')) {
        s.p++;
        s.n--;
    }
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

bool tnl_http_list_next(tnl_http_span *list, tnl_http_span *element)
{
    if (!list->p)
        return false;
    const char *comma = list->n ? memchr(list->p, ',', list->n) : NULL;
    size_t n = comma ? (size_t)(comma - list->p) : list->n;
    *element = trimmed((tnl_http_span){list->p, n});
    *list = comma ? (tnl_http_span){comma + 1, list->n - n - 1} : (tnl_http_span){NULL, 0};
    return true;
}

static bool list_has(const tnl_http_head *h, const char *name, tnl_http_span token)
{
    for (size_t i = 0; i < h->field_count; i++) {
        tnl_http_span list = h->fields[i].value, element;
        if (!tnl_http_is(h->fields[i].name, name))
            continue;
        while (tnl_http_list_next(&list, &element))
            if (tnl_http_same(element, token))
                return true;
    }
    return false;
}

bool tnl_http_has_token(const tnl_http_head *h, const char *name, const char *token)
{
    return list_has(h, name, (tnl_http_span){token, strlen(token)});
}

bool tnl_http_is_hop_by_hop_name(tnl_http_span name)
{
    static const char *const always[] = {
        "Connection",
        "Keep-Alive",
        "Proxy-Authenticate",
        "Proxy-Authentication-Info",
        "Proxy-Authorization",
        "Proxy-Connection",
        "TE",
        "Transfer-Encoding",
        "Upgrade",
        "HTTP2-Settings",
    };
    for (size_t i = 0; i < sizeof always / sizeof *always; i++)
        if (tnl_http_looks_like(name, always[i]))
            return true;
    return false;
}

bool tnl_http_is_hop_by_hop(const tnl_http_head *h, tnl_http_span name)
{
    return tnl_http_is_hop_by_hop_name(name) || list_has(h, "Connection", name);
}

const char *tnl_http_reason(int status)
{
    static const struct {
        int status;
        const char *reason;
    } known[] = {
        {100, "Continue"},
        {101, "Switching Protocols"},
        {103, "Early Hints"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {206, "Partial Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"},
        {417, "Expectation Failed"},
        {421, "Misdirected Request"},
        {426, "Upgrade Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {451, "Unavailable For Legal Reasons"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {508, "Loop Detected"},
        {511, "Network Authentication Required"},
    };
    static const char *const classes[] = {"Informational", "Success", "Redirection", "Client Error",
                                          "Server Error"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].status == status)
            return known[i].reason;
    return status >= 100 && status < 600 ? classes[status / 100 - 1] : "Unknown";
}
