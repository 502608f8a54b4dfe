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

/* How a pump went. */
typedef struct tnl_forward_end {
    uint64_t to_conn; /* bytes of the stream that were written to the connection */
    uint64_t to_stream;
    uint64_t duration_us;
    int error;        /* 0: both directions have ended by themselves; else a TUNNEL_E_ code */
    const char *text; /* why, escaped for printing; "" with error 0 */
} tnl_forward_end;

/* All optional. They may call anything but tnl_forwarder_free(), and that too from over(). */
typedef struct tnl_forward_events {
    /* start only. The connection is there (error 0; c is to look at, not to keep), or could not be
     * made; once, unless the stream has ended before. What it returns is 0, or a TUNNEL_E_ code
     * that the stream is reset with and the connection closed. */
    int (*connected)(void *user, int error, const char *detail, tnl_conn *c);
    /* Stream and connection are both gone. Exactly once for each stream that was taken, and last.
     */
    void (*over)(void *user, const tnl_forward_end *end);
} tnl_forward_events;

enum { TNL_FORWARD_HEAD = 256, TNL_FORWARD_EARLY = 64 * 1024 };

typedef struct tnl_forward_options {
    const uint8_t *head; /* written to the connection before anything else; copied, not counted */
    size_t head_n;       /* at most TNL_FORWARD_HEAD */
    /* When both directions have ended and bytes still wait for the connection: a reader who takes
     * none is waited for as long as the connection lives, not just for 10 s. */
    bool patient;
    const tnl_forward_events *events;
    void *user;
} tnl_forward_options;

/* All the streams that one owner forwards. */
typedef struct tnl_forwarder tnl_forwarder;

int tnl_forwarder_new(tnl_forwarder **out, tnl_loop *loop);

/* Takes the stream (sets its events, releases it in the end). When the upstream cannot be reached
 * the stream is reset with TUNNEL_E_REFUSED, TIMEOUT, TLS, ... and the reason. u and o (NULL: none)
 * are used during the call only. 0 or TUNNEL_E_NOMEM, INVALID (then the stream is not taken).
 *
 * The connection's end of its direction is passed on, and so is the stream's; the stream lives
 * until both have ended. Any other end of the one resets the other, after what was read from it has
 * been sent, if that takes no longer than a second. */
int tnl_forward_start(tnl_forwarder *f, tnl_stream *s, const tnl_upstream *u,
                      const tnl_forward_options *o);

/* The same with a connection that is there already, paused and ready; early[0..n) was read from it,
 * at most TNL_FORWARD_EARLY bytes, and goes first. 0 or TUNNEL_E_NOMEM, INVALID: then neither
 * stream nor connection is taken. */
int tnl_forward_join(tnl_forwarder *f, tnl_stream *s, tnl_conn *c, const uint8_t *early, size_t n,
                     const tnl_forward_options *o);

size_t tnl_forwarder_count(const tnl_forwarder *f);

/* Ends everything at once; streams are released (reset), connections reset; over() tells
 * TUNNEL_E_GONE, for some from inside this call. gone() (may be NULL) comes later, when the last
 * connection is closed and the forwarder is freed. */
void tnl_forwarder_free(tnl_forwarder *f, void (*gone)(void *user), void *user);

#endif
