/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_SERVER_RAW_H
#define TNL_SERVER_RAW_H

#include "server/internal.h"

/*
 * Takes a visitor's connection whose bytes pass as they are, both ways, through a stream of its own
 * to a member of the name; it outlives the tunnel, but not the tunnel's session. early[0..n) was
 * read from it (at most TNL_FORWARD_EARLY bytes). target: the port behind the client, or 0. name:
 * what the visitor asked for, told in the ACCESS event; NULL: the tunnel's port.
 *
 * The connection is paused and counts among the server's visitors from here on. 0; TUNNEL_E_GONE
 * (there is no session any more), LIMIT, NOMEM, INVALID: then it was reset.
 */
int tnl_raw_accept(tnl_name *to, tnl_conn *c, const uint8_t *early, size_t n, uint16_t target,
                   const char *name);

/* A name without a member keeps its connections (TNL_RAW_WAITING of them) for the one to come, who
 * is here now; or will not come. */
void tnl_raw_admit(tnl_name *n);
void tnl_raw_turn_away(tnl_name *n);

/* The tunnel is about to go: its connections go on without it. */
void tnl_raw_forget(tnl_tunnel *t);

/* Makes what raw connections need; and resets all of them. The server is not closed before the last
 * one is, and none is accepted any more. */
int tnl_raw_start(tnl_server *s);
void tnl_raw_stop(tnl_server *s);

#endif
