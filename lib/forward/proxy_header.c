/* SPDX-License-Identifier: Apache-2.0 */
#include "forward/proxy_header.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

static const uint8_t signature[12] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
                                      0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};

/* The members of section 2.2 as they stand on the wire. */
enum { VERSION_2_PROXY = 0x21, UNSPEC = 0x00, STREAM_4 = 0x11, STREAM_6 = 0x21 };

/* The 4 or 16 bytes of a numeric address; 0 for what is none. */
static size_t parse(tnl_str text, uint8_t out[16])
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    char host[INET6_ADDRSTRLEN];
    if (text.n >= sizeof(host))
        return 0;
    snprintf(host, sizeof(host), "%.*s", (int)text.n, text.n ? text.p : "");
    if (inet_pton(AF_INET, host, out) == 1)
        return 4;
    if (inet_pton(AF_INET6, host, out) != 1)
        return 0;
    if (memcmp(out, mapped, sizeof(mapped)) != 0)
        return 16;
    memmove(out, out + 12, 4);
    return 4;
}

static size_t version_1(uint8_t *out, const uint8_t *from, const uint8_t *to, size_t size,
                        const tnl_proxy_ends *e)
{
    char a[INET6_ADDRSTRLEN], b[INET6_ADDRSTRLEN];
    int family = size == 4 ? AF_INET : AF_INET6;
    if (!size || !inet_ntop(family, from, a, sizeof(a)) || !inet_ntop(family, to, b, sizeof(b)))
        return (size_t)snprintf((char *)out, TNL_PROXY_HEADER_MAX, "PROXY UNKNOWN\r\n");
    return (size_t)snprintf((char *)out, TNL_PROXY_HEADER_MAX, "PROXY TCP%c %s %s %u %u\r\n",
                            size == 4 ? '4' : '6', a, b, e->port, e->server_port);
}

static size_t version_2(uint8_t *out, const uint8_t *from, const uint8_t *to, size_t size,
                        const tnl_proxy_ends *e)
{
    size_t length = size ? 2 * size + 4 : 0;
    uint8_t *p = out;
    memcpy(p, signature, sizeof(signature));
    p += sizeof(signature);
    *p++ = VERSION_2_PROXY;
    *p++ = size == 0 ? UNSPEC : size == 4 ? STREAM_4 : STREAM_6;
    *p++ = 0;
    *p++ = (uint8_t)length;
    if (size) {
        memcpy(p, from, size);
        memcpy(p + size, to, size);
        p += 2 * size;
        *p++ = (uint8_t)(e->port >> 8);
        *p++ = (uint8_t)e->port;
        *p++ = (uint8_t)(e->server_port >> 8);
        *p++ = (uint8_t)e->server_port;
    }
    return (size_t)(p - out);
}

size_t tnl_proxy_header(uint8_t out[TNL_PROXY_HEADER_MAX], unsigned version,
                        const tnl_proxy_ends *ends)
{
    uint8_t from[16], to[16];
    size_t size = parse(ends->visitor, from);
    if (size != parse(ends->server, to))
        size = 0;
    return version == 1 ? version_1(out, from, to, size, ends)
                        : version_2(out, from, to, size, ends);
}
