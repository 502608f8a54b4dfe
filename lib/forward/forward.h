/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_FORWARD_FORWARD_H
#define TNL_FORWARD_FORWARD_H

#include "link/dial.h"
#include "mux/mux.h"

/*
 * Streams pumped to an address: each stream gets a connection of its own, bytes go both ways with
 * backpressure, half-close and reset are passed on. What the connection brings is read straight
 * into the stream's send ring.
 */
typedef struct tnl_upstream {
    char host[TNL_URL_HOST]; /* "" with unix_path */
    uint16_t port;
    char unix_path[108];
    tnl_tls_client *tls; /* NULL: plain. Owned. */
} tnl_upstream;

/*
 * Parses what people write: "3000", "host:3000", "[::1]:3000", "unix:/path", "http://host:port",
 * "https://host:port". https makes a TLS context: verified against ca_file or the system's store,
 * but not for a loopback host, whose certificate is self-signed more often than not. 0, or
 * TUNNEL_E_INVALID etc. with a line in detail.
 */
int tnl_upstream_parse(tnl_upstream *u, const char *text, const char *ca_file, char *detail,
                       size_t size);
void tnl_upstream_clear(tnl_upstream *u);

/* All the streams that one owner forwards. */
typedef struct tnl_forwarder tnl_forwarder;

int tnl_forwarder_new(tnl_forwarder **out, tnl_loop *loop);

/* Takes the stream (sets its events, releases it in the end). When the upstream cannot be reached
 * the stream is reset with TUNNEL_E_REFUSED, TIMEOUT, TLS, ... and the reason. u is used during the
 * call only. 0 or TUNNEL_E_NOMEM, INVALID (then the stream is not taken).
 *
 * The upstream's end of its direction is passed on and the stream lives until the visitor's side
 * has ended, too. Any other end of the connection resets the stream; what the upstream said until
 * then arrives first. */
int tnl_forward_start(tnl_forwarder *f, tnl_stream *s, const tnl_upstream *u);

size_t tnl_forwarder_count(const tnl_forwarder *f);

/* Ends everything at once; streams are released (reset), connections closed. gone() (may be NULL)
 * comes later, when the last connection is closed and the forwarder is freed. */
void tnl_forwarder_free(tnl_forwarder *f, void (*gone)(void *user), void *user);

#endif
