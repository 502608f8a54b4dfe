/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TUNNEL_LOOP_H
#define TUNNEL_LOOP_H

#include <tunnel/export.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The loop that clients and servers run on: one thread, one loop. Everything that hangs off a loop
 * may only be used on the thread that runs it.
 */
typedef struct tunnel_loop tunnel_loop;

/*
 * Makes a loop of its own (uv_loop NULL) or one that lives on the host's loop (uv_loop: an
 * initialized uv_loop_t *, which must outlive it). Returns 0 and *out, or TUNNEL_E_NOMEM. The
 * caller owns it: tunnel_loop_free().
 */
TUNNEL_EXPORT int tunnel_loop_new(tunnel_loop **out, void *uv_loop);

/*
 * Runs until tunnel_loop_stop() or until nothing is open on the loop. For a loop of its own; a
 * host's loop is run by the host. Returns 0.
 */
TUNNEL_EXPORT int tunnel_loop_run(tunnel_loop *loop);

/* Makes tunnel_loop_run() return at the end of this turn. On the loop's thread. */
TUNNEL_EXPORT void tunnel_loop_stop(tunnel_loop *loop);

/*
 * Frees a loop; NULL is fine. Every client and server on it must be closed before (their closed
 * callbacks have come).
 */
TUNNEL_EXPORT void tunnel_loop_free(tunnel_loop *loop);

/*
 * Calls `caught` on the loop's thread whenever the process gets the signal (one callback a signal
 * number; NULL takes it away). Returns 0, TUNNEL_E_INVALID (no such signal, or one that cannot be
 * caught), TUNNEL_E_NOMEM.
 */
TUNNEL_EXPORT int tunnel_loop_on_signal(tunnel_loop *loop, int signum,
                                        void (*caught)(void *user, int signum), void *user);

#ifdef __cplusplus
}
#endif

#endif
