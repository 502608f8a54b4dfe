/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_FORWARD_PROXY_HEADER_H
#define TNL_FORWARD_PROXY_HEADER_H

#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

/*
 * The header of HAProxy's PROXY protocol (proxy-protocol.txt, sections 2.1 and 2.2), with which a
 * connection to an upstream begins so that it learns who the visitor is.
 */
enum { TNL_PROXY_HEADER_MAX = 108 };

typedef struct tnl_proxy_ends {
    tnl_str visitor; /* numeric; an IPv4 address mapped into IPv6 counts as IPv4 */
    uint16_t port;
    tnl_str server; /* the address that the visitor came to */
    uint16_t server_port;
} tnl_proxy_ends;

/*
 * version: 1 or 2. Returns the length. What is no pair of addresses of one family is told as
 * unknown, which readers accept: "PROXY UNKNOWN", or the family AF_UNSPEC.
 */
size_t tnl_proxy_header(uint8_t out[TNL_PROXY_HEADER_MAX], unsigned version,
                        const tnl_proxy_ends *ends);

#endif
