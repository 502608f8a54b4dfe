/* SPDX-License-Identifier: Apache-2.0 */
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <uv.h>

#include "io/conn.h"
#include "io/loop_internal.h"
#include "io/socket.h"
#include "tunnel/error.h"

int tnl_io_error(int uv_error)
{
    switch (uv_error) {
    case 0:
        return 0;
    case UV_ENOMEM:
    case UV_ENOBUFS:
        return TUNNEL_E_NOMEM;
    case UV_EINVAL:
    case UV_ENAMETOOLONG:
        return TUNNEL_E_INVALID;
    case UV_EMFILE:
    case UV_ENFILE:
        return TUNNEL_E_LIMIT;
    case UV_EOF:
        return TUNNEL_E_EOF;
    case UV_ECONNRESET:
    case UV_ECONNABORTED:
    case UV_EPIPE:
        return TUNNEL_E_RESET;
    case UV_ECONNREFUSED:
        return TUNNEL_E_REFUSED;
    case UV_ETIMEDOUT:
        return TUNNEL_E_TIMEOUT;
    case UV_EHOSTUNREACH:
    case UV_ENETUNREACH:
    case UV_ENETDOWN:
    case UV_EADDRNOTAVAIL:
    case UV_EAFNOSUPPORT:
        return TUNNEL_E_UNREACHABLE;
    case UV_EADDRINUSE:
        return TUNNEL_E_ADDR_IN_USE;
    case UV_EACCES:
    case UV_EPERM:
        return TUNNEL_E_ACCESS;
    case UV_ENOENT:
        return TUNNEL_E_NOT_FOUND;
    case UV_ECANCELED:
        return TUNNEL_E_CANCELED;
    default:
        return TUNNEL_E_IO;
    }
}

const char *tnl_io_error_text(int uv_error)
{
    switch (uv_error) {
    case UV_EMFILE:
    case UV_ENFILE:
        return "too many open files";
    case UV_EADDRNOTAVAIL:
        return "no such address on this machine";
    case UV_EHOSTUNREACH:
        return "no route to the host";
    case UV_ENETUNREACH:
    case UV_ENETDOWN:
        return "network unreachable";
    case UV_EAFNOSUPPORT:
        return "this machine has no such kind of address (IPv6 switched off?)";
    case UV_ENOTSOCK:
        return "not a socket";
    default:
        return tunnel_strerror(tnl_io_error(uv_error));
    }
}

tnl_address tnl_address_of(const struct sockaddr *sa)
{
    tnl_address a = {.host = ""};
    if (sa->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)sa;
        uv_ip4_name(in, a.host, sizeof(a.host));
        a.port = ntohs(in->sin_port);
    } else if (sa->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)sa;
        a.port = ntohs(in6->sin6_port);
        if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
            uv_inet_ntop(AF_INET, &in6->sin6_addr.s6_addr[12], a.host, sizeof(a.host));
        } else {
            uv_ip6_name(in6, a.host, sizeof(a.host));
            a.ipv6 = true;
        }
    }
    return a;
}

void tnl_address_text(char *out, size_t size, const char *host, uint16_t port)
{
    snprintf(out, size, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, (unsigned)port);
}

int tnl_address_parse(struct sockaddr_storage *out, const char *host, uint16_t port)
{
    memset(out, 0, sizeof(*out));
    if (uv_ip4_addr(host, port, (struct sockaddr_in *)(void *)out) == 0)
        return 0;
    memset(out, 0, sizeof(*out));
    if (strchr(host, ':') && uv_ip6_addr(host, port, (struct sockaddr_in6 *)(void *)out) == 0)
        return 0;
    return TUNNEL_E_INVALID;
}

socklen_t tnl_address_size(const struct sockaddr_storage *sa)
{
    return sa->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

socklen_t tnl_address_unix(struct sockaddr_un *out, const char *path)
{
    size_t n = strlen(path);
    memset(out, 0, sizeof(*out));
    out->sun_family = AF_UNIX;
    if (n == 0 || n >= sizeof(out->sun_path))
        return 0;
    memcpy(out->sun_path, path, n);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
}

int tnl_address_split(const char *text, char *host, size_t host_size, uint16_t *port)
{
    const char *begin = text, *end, *digits;
    if (*text == '[') {
        begin = text + 1;
        end = strchr(begin, ']');
        if (!end || end[1] != ':' || !memchr(begin, ':', (size_t)(end - begin)))
            return TUNNEL_E_INVALID;
        digits = end + 2;
    } else {
        end = strchr(text, ':');
        if (!end || strchr(end + 1, ':'))
            return TUNNEL_E_INVALID;
        digits = end + 1;
    }
    size_t n = (size_t)(end - begin), len = strlen(digits);
    if (n == 0 || n >= host_size || len == 0 || len > 5)
        return TUNNEL_E_INVALID;
    unsigned long value = 0;
    for (size_t i = 0; i < len; i++) {
        if (digits[i] < '0' || digits[i] > '9')
            return TUNNEL_E_INVALID;
        value = value * 10 + (unsigned long)(digits[i] - '0');
    }
    if (value > UINT16_MAX)
        return TUNNEL_E_INVALID;
    memcpy(host, begin, n);
    host[n] = '\0';
    *port = (uint16_t)value;
    return 0;
}
