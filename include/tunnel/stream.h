/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TUNNEL_STREAM_H
#define TUNNEL_STREAM_H

#include <stddef.h>
#include <stdint.h>
#include <tunnel/client.h>
#include <tunnel/export.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Streams of listening tunnels: a visitor's bytes in both directions, on the client's loop. A
 * stream is known by its id, unique for its client and never used again; a stale id is
 * TUNNEL_E_NOT_FOUND, and nothing worse. All functions: on the loop's thread, from callbacks too.
 * Callbacks are best set in visitor(): data waits for its callback, anything else that happened
 * before is not told any more.
 */

/*
 * The visitor sent p[0..n), n > 0, in order. The callback returns how many bytes it used up; the
 * rest is kept and comes again, with what has arrived meanwhile, after tunnel_stream_resume(). Only
 * what is used up lets the visitor send more: at most 256 KiB wait.
 * Also resumes, so that it may be set late; set from inside a data callback, it gets what that one
 * leaves. data NULL: what comes waits. Returns 0 or TUNNEL_E_NOT_FOUND.
 */
TUNNEL_EXPORT int tunnel_stream_on_data(tunnel_client *client, uint64_t stream,
                                        size_t (*data)(void *user, uint64_t stream, const void *p,
                                                       size_t n),
                                        void *user);
/* The visitor has ended its direction, and all of it was used up. Once. Optional. */
TUNNEL_EXPORT int tunnel_stream_on_end(tunnel_client *client, uint64_t stream,
                                       void (*end)(void *user, uint64_t stream), void *user);
/* There is room again after a write that took less than all. Optional. */
TUNNEL_EXPORT int tunnel_stream_on_room(tunnel_client *client, uint64_t stream,
                                        void (*room)(void *user, uint64_t stream), void *user);
/*
 * The stream is over and its id stale: both directions have ended (error 0), or it was aborted by
 * the visitor, by the loss of the session, by tunnel_stream_reset() or by tunnel_client_close()
 * (TUNNEL_E_CANCELED): a TUNNEL_E_ code; text: why, valid during the call. Exactly once, and last,
 * never from inside a call. Optional.
 */
TUNNEL_EXPORT int tunnel_stream_on_closed(tunnel_client *client, uint64_t stream,
                                          void (*closed)(void *user, uint64_t stream, int error,
                                                         const char *text),
                                          void *user);

/* Takes up to n bytes for the visitor. Returns how many (less than n: no room, room() will tell),
 * or TUNNEL_E_NOT_FOUND, STATE (ended by tunnel_stream_end() or aborted). */
TUNNEL_EXPORT int64_t tunnel_stream_write(tunnel_client *client, uint64_t stream, const void *p,
                                          size_t n);
/* How many bytes tunnel_stream_write() would take now, or TUNNEL_E_NOT_FOUND. */
TUNNEL_EXPORT int64_t tunnel_stream_room(tunnel_client *client, uint64_t stream);
/* Ends our direction after what was written; again is a no-op. 0 or TUNNEL_E_NOT_FOUND. */
TUNNEL_EXPORT int tunnel_stream_end(tunnel_client *client, uint64_t stream);
/* Aborts both directions: the visitor sees a reset. error: a TUNNEL_E_ code, for the other end's
 * logs; text may be NULL. TUNNEL_E_REFUSED, UNREACHABLE, RESOLVE, NOT_FOUND, ACCESS and DENIED say
 * that nothing was done with what came: in a pool another client may be asked then. closed() comes
 * later, at the end of this turn. Again is a no-op. 0 or TUNNEL_E_NOT_FOUND. */
TUNNEL_EXPORT int tunnel_stream_reset(tunnel_client *client, uint64_t stream, int error,
                                      const char *text);
/* Offers again what the data callback has left, and goes on. Not from inside that very callback
 * (it is a no-op there). 0 or TUNNEL_E_NOT_FOUND. */
TUNNEL_EXPORT int tunnel_stream_resume(tunnel_client *client, uint64_t stream);
/* The visitor's address, numeric ("192.0.2.1", "2001:db8::1"; for http that of the first request);
 * 64 bytes suffice for host. port may be NULL. 0, TUNNEL_E_NOT_FOUND, LIMIT (cut). */
TUNNEL_EXPORT int tunnel_stream_visitor(tunnel_client *client, uint64_t stream, char *host,
                                        size_t host_size, uint16_t *port);
/* The tunnel it came through. 0 or TUNNEL_E_NOT_FOUND. */
TUNNEL_EXPORT int tunnel_stream_tunnel(tunnel_client *client, uint64_t stream, uint64_t *tunnel);

/* Sends a datagram of at most 65507 bytes to the visitor of a flow; like all datagrams it may be
 * lost. 0; TUNNEL_E_NOT_FOUND (no such tunnel or flow), LIMIT (too long), GONE (no session now). */
TUNNEL_EXPORT int tunnel_datagram_send(tunnel_client *client, uint64_t tunnel, uint64_t flow,
                                       const void *p, size_t n);
/* The address of a flow's visitor, as tunnel_stream_visitor(). */
TUNNEL_EXPORT int tunnel_datagram_visitor(tunnel_client *client, uint64_t tunnel, uint64_t flow,
                                          char *host, size_t host_size, uint16_t *port);

#ifdef __cplusplus
}
#endif

#endif
