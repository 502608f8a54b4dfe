/* SPDX-License-Identifier: Apache-2.0 */
#include "base/url.h"

#include <arpa/inet.h>
#include <string.h>

#include "tunnel/error.h"

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool printable(const char *s)
{
    for (; *s; s++)
        if (*s <= ' ' || *s > '~')
            return false;
    return true;
}

static bool alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* Copies [p, end) in lower case. */
static int copy_lower(char *out, size_t size, const char *p, const char *end)
{
    size_t n = (size_t)(end - p);
    if (n == 0 || n >= size)
        return TUNNEL_E_INVALID;
    for (size_t i = 0; i < n; i++)
        out[i] = lower(p[i]);
    out[n] = '\0';
    return 0;
}

static int hex_value(char c)
{
    c = lower(c);
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int decode_userinfo(char *out, size_t size, const char *p, const char *end)
{
    size_t n = 0;
    while (p < end) {
        int c = (unsigned char)*p++;
        if (c == '%') {
            int high = p < end ? hex_value(p[0]) : -1;
            int low = high >= 0 && p + 1 < end ? hex_value(p[1]) : -1;
            if (low < 0)
                return TUNNEL_E_INVALID;
            c = high << 4 | low;
            p += 2;
        }
        if (c < ' ' || c == 127 || n + 1 >= size)
            return TUNNEL_E_INVALID;
        out[n++] = (char)c;
    }
    out[n] = '\0';
    return 0;
}

static int parse_port(uint16_t *port, const char *p, const char *end)
{
    unsigned value = 0;
    if (p == end)
        return TUNNEL_E_INVALID;
    for (; p < end; p++) {
        if (*p < '0' || *p > '9' || value > 6553)
            return TUNNEL_E_INVALID;
        value = value * 10 + (unsigned)(*p - '0');
    }
    if (value == 0 || value > 65535)
        return TUNNEL_E_INVALID;
    *port = (uint16_t)value;
    return 0;
}

static bool is_host(const char *host, bool ipv6)
{
    struct in6_addr address;
    if (ipv6)
        return inet_pton(AF_INET6, host, &address) == 1;
    for (; *host; host++)
        if (!alnum(*host) && *host != '.' && *host != '-' && *host != '_')
            return false;
    return true;
}

static int parse_host_port(tnl_url *u, const char *p, const char *end)
{
    const char *host_end;
    const char *rest;
    u->ipv6 = *p == '[';
    if (u->ipv6) {
        p++;
        host_end = memchr(p, ']', (size_t)(end - p));
        if (!host_end)
            return TUNNEL_E_INVALID;
        rest = host_end + 1;
    } else {
        host_end = memchr(p, ':', (size_t)(end - p));
        if (!host_end)
            host_end = end;
        rest = host_end;
    }
    if (copy_lower(u->host, sizeof(u->host), p, host_end) || !is_host(u->host, u->ipv6))
        return TUNNEL_E_INVALID;
    if (rest == end)
        return 0;
    return *rest == ':' ? parse_port(&u->port, rest + 1, end) : TUNNEL_E_INVALID;
}

int tnl_url_parse(tnl_url *u, const char *text)
{
    *u = (tnl_url){.port = 0};
    const char *colon = strstr(text, "://");
    if (!colon || !printable(text) || copy_lower(u->scheme, sizeof(u->scheme), text, colon))
        return TUNNEL_E_INVALID;
    const char *authority = colon + 3;
    const char *end = authority + strcspn(authority, "/?#");
    const char *at = memrchr(authority, '@', (size_t)(end - authority));
    if (at) {
        if (decode_userinfo(u->userinfo, sizeof(u->userinfo), authority, at))
            return TUNNEL_E_INVALID;
        authority = at + 1;
    }
    if (authority == end || strlen(end) >= sizeof(u->path))
        return TUNNEL_E_INVALID;
    memcpy(u->path, end, strlen(end) + 1);
    return parse_host_port(u, authority, end);
}

bool tnl_host_is_loopback(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    size_t n = strlen(host);
    if (strcmp(host, "localhost") == 0 || (n > 10 && strcmp(host + n - 10, ".localhost") == 0))
        return true;
    if (inet_pton(AF_INET, host, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

bool tnl_is_label(const char *text)
{
    size_t n = strlen(text);
    if (n == 0 || n > 63 || text[0] == '-' || text[n - 1] == '-')
        return false;
    for (size_t i = 0; i < n; i++)
        if (!alnum(text[i]) && text[i] != '-')
            return false;
    return true;
}

bool tnl_is_domain(const char *text)
{
    size_t n = strlen(text);
    if (n == 0 || n > 253)
        return false;
    for (;;) {
        char label[64];
        size_t len = strcspn(text, ".");
        if (len >= sizeof(label))
            return false;
        memcpy(label, text, len);
        label[len] = '\0';
        if (!tnl_is_label(label))
            return false;
        if (text[len] == '\0')
            return true;
        text += len + 1;
    }
}
