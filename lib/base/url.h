/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_BASE_URL_H
#define TNL_BASE_URL_H

#include <stdbool.h>
#include <stdint.h>

/*
 * "scheme://[user[:password]@]host[:port][/path]" (RFC 3986, the part that servers, proxies and
 * upstreams need).
 */
enum { TNL_URL_HOST = 256, TNL_URL_USERINFO = 512, TNL_URL_PATH = 512 };

typedef struct tnl_url {
    char scheme[16];                 /* lower case */
    char userinfo[TNL_URL_USERINFO]; /* percent-decoded, "" when there is none */
    char host[TNL_URL_HOST];         /* lower case, without the brackets of an IPv6 address */
    uint16_t port;                   /* 0: none given */
    char path[TNL_URL_PATH];         /* with what follows it, "" when there is none */
    bool ipv6;
} tnl_url;

/* 0 or TUNNEL_E_INVALID: a missing part, a bad port or character, a part too long. */
int tnl_url_parse(tnl_url *u, const char *text);

/* Whether a host is this machine's loopback: "localhost", "*.localhost", 127.0.0.0/8, ::1. */
bool tnl_host_is_loopback(const char *host);

/* Whether text is a DNS label: 1 to 63 of a-z, 0-9, '-' (not first or last), lower case. */
bool tnl_is_label(const char *text);

/* Whether text is a DNS name: labels joined by dots, at most 253 bytes, lower case, no trailing
 * dot. */
bool tnl_is_domain(const char *text);

#endif
