/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_FORWARD_STREAM_CONN_H
#define TNL_FORWARD_STREAM_CONN_H

#include "io/conn.h"
#include "mux/mux.h"

/*
 * A mux stream as a byte connection, so that what works on connections (TLS, a splice, HTTP) works
 * on a visitor's stream too. All promises of io/conn.h hold:
 *
 * - What is written goes into the stream's send ring; what that has no room for waits in the
 *   connection's queue, at most TNL_CONN_MAX_PENDING. tnl_conn_pending() counts the queue alone.
 * - Only what data() brought gives the peer new credit.
 * - tnl_conn_shutdown() is FIN, after the queue. tnl_conn_reset() is RESET.
 * - tnl_conn_close() drops the queue, but what the stream has taken arrives, with the FIN if there
 *   was one. As with a socket, a RESET (TUNNEL_E_CANCELED) follows it without a FIN, so that a cut
 *   answer is not taken for a whole one, and when the peer has sent or sends something more; until
 *   the peer's end comes the stream stays by itself.
 * - The peer's RESET, and the end of the session, are closed() with its code as a negative
 *   TUNNEL_E_ code (TUNNEL_E_RESET for a code that is none) and its text.
 */

/*
 * Takes the stream: sets its events, releases it in the end. peer: what tnl_conn_peer() shall say;
 * NULL: an empty address. The connection is born paused. 0; TUNNEL_E_NOMEM (the stream is not
 * taken).
 */
int tnl_stream_conn(tnl_conn **out, tnl_loop *loop, tnl_stream *s, const tnl_address *peer,
                    const tnl_conn_events *ev, void *user);

#endif
