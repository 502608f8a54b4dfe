/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_TRANSPORT_TRANSPORT_H
#define TNL_TRANSPORT_TRANSPORT_H

#include <stddef.h>
#include <stdint.h>

#include "io/conn.h"
#include "io/loop.h"

/*
 * A transport carries a byte stream of frames between two ends, in batches. It knows nothing of
 * frames: what pull() gave at one end arrives in order, cut anywhere, at data() of the other.
 */
typedef struct tnl_transport tnl_transport;

typedef struct tnl_transport_events {
    /* Both directions are usable. Client side: after the server's 101. */
    void (*opened)(void *user);
    /* n bytes arrived; used up before returning. */
    void (*data)(void *user, const uint8_t *p, size_t n);
    /* Fill out[0..cap) with what is ready to go; returns how much (0: nothing). Called after
     * tnl_transport_wake() when the transport can write, and again as long as it returned
     * something. */
    size_t (*pull)(void *user, uint8_t *out, size_t cap);
    /* Client side, before closed(): the server refuses, and wants nobody to come again before so
     * many seconds (RFC 9110 section 10.2.3), 1 to TNL_RETRY_AFTER_MAX. Optional. */
    void (*retry_after)(void *user, uint32_t seconds);
    /* Gone; exactly once, also for a connect that failed; the pointer is invalid afterwards. Never
     * from inside a call of the user into the transport. error 0: closed by tnl_transport_close().
     * http_status: what the server answered instead of 101 (0: none); detail: one line, e.g. the
     * reason the server's error body gave. */
    void (*closed)(void *user, int error, int http_status, const char *detail);
} tnl_transport_events;

typedef struct tnl_transport_ops {
    void (*wake)(tnl_transport *t);
    void (*close)(tnl_transport *t);
    void (*abort)(tnl_transport *t);
} tnl_transport_ops;

struct tnl_transport {
    const tnl_transport_ops *ops;
    const tnl_transport_events *events;
    void *user;
};

/* There is something to send. Cheap; may be called any number of times. */
static inline void tnl_transport_wake(tnl_transport *t)
{
    t->ops->wake(t);
}

/*
 * Sends what pull() gives right now (one batch, still in this turn if there is room), closes
 * politely; closed() follows soon (bounded by 2 s). data() does not come any more.
 */
static inline void tnl_transport_close(tnl_transport *t)
{
    t->ops->close(t);
}

/*
 * Gives up a connection whose other end is silent: nothing more is sent, nothing is awaited, and
 * the kernel keeps nothing of it (a TCP reset where it is plain). closed() follows at once, with
 * error 0.
 */
static inline void tnl_transport_abort(tnl_transport *t)
{
    t->ops->abort(t);
}

/* The biggest batch a transport pulls: also the greatest WebSocket message either end sends or
 * accepts. */
enum { TNL_TRANSPORT_BATCH = 64 * 1024 };

/* Who asks for more patience than that gets this much. */
enum { TNL_RETRY_AFTER_MAX = 300 };

/* --- WebSocket (RFC 6455), binary messages ---------------------------------------------------- */

/* The WebSocket engine of one loop: every WebSocket transport of that loop hangs off it. */
typedef struct tnl_ws tnl_ws;
typedef void (*tnl_ws_log)(void *user, const char *line);

int tnl_ws_new(tnl_ws **out, tnl_loop *l, tnl_ws_log log, void *user);
/* All transports must have been closed. Asynchronous inside: the loop must run on afterwards
 * (tnl_loop_free does). */
void tnl_ws_free(tnl_ws *w);

/*
 * Server: takes over `c` (also on failure), on which the bytes head[0..n) have been read: a
 * complete, well-formed WebSocket upgrade request (the caller has checked method, Upgrade,
 * Connection, Sec-WebSocket-Key and -Version) and anything that followed it. A text message, or a
 * message greater than TNL_TRANSPORT_BATCH, closes the transport with TUNNEL_E_PROTOCOL (WebSocket
 * close codes 1003 and 1009). Errors: TUNNEL_E_VERSION when the sub-protocol tunnel.v1 is not
 * offered (the client was answered 400), PROTOCOL for a head without a key, NOMEM, IO.
 */
int tnl_ws_accept(tnl_transport **out, tnl_ws *w, tnl_conn *c, const uint8_t *head, size_t n,
                  const tnl_transport_events *ev, void *user);

/*
 * Client: takes over `c` (also on failure), a ready connection to the server, and upgrades it: GET
 * path with Host: host and Authorization: authorization (NULL: none). The server's answer is read
 * by us: anything but 101 ends in closed() with its status and, for a JSON body with "error" and
 * "message" members (at most 4 KiB), the detail "ERROR: message". 10 s for the answer. The error
 * given is the one the body names ("AUTH_FAILED" and so on), else what the status stands for: 401
 * AUTH_FAILED, 403 DENIED, 407 PROXY, 426 VERSION, 408, 429 and 5xx REFUSED, others NOT_TUNNEL.
 * Errors: TUNNEL_E_INVALID for control characters in the arguments, NOMEM.
 */
int tnl_ws_connect(tnl_transport **out, tnl_ws *w, tnl_conn *c, const char *host, const char *path,
                   const char *authorization, const tnl_transport_events *ev, void *user);

/* --- lane: the frames as they are, behind an HTTP/1.1 upgrade (RFC 9110 section 7.8) -----------
 */

/* What both ends name in Upgrade. */
#define TNL_LANE_PROTOCOL "tunnel-lane.v1"

/*
 * Server: takes over `c` (also on failure), which was sent the 101 and on which the bytes
 * early[0..n) were read behind the request's head. opened() comes at the end of this turn. 0 or
 * NOMEM.
 */
int tnl_lane_accept(tnl_transport **out, tnl_conn *c, const uint8_t *early, size_t n,
                    const tnl_transport_events *ev, void *user);

/* Client: takes over `c` (also on failure), a ready connection to the server, and upgrades it. As
 * tnl_ws_connect() for arguments, answers and errors. */
int tnl_lane_connect(tnl_transport **out, tnl_conn *c, const char *host, const char *path,
                     const char *authorization, const tnl_transport_events *ev, void *user);

/* --- an in-memory pair, for tests ------------------------------------------------------------- */

int tnl_pair_new(tnl_transport **a, const tnl_transport_events *ev_a, void *user_a,
                 tnl_transport **b, const tnl_transport_events *ev_b, void *user_b, tnl_loop *l);

#endif
