/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_SERVER_ARRIVAL_H
#define TNL_SERVER_ARRIVAL_H

#include "server/internal.h"

/*
 * A connection that a listener has just accepted: its first bytes tell whose it is. On every
 * listener a TLS ClientHello with the name of a tls tunnel goes to that tunnel untouched; another
 * one is for the server's own TLS, if the name is one that it answers for, and else gets an alert.
 * What is no TLS is a plain visitor, or gets a page that says https where the listener is for TLS.
 *
 * The first bytes are bounded (TNL_TLS_HELLO_MAX) and have TNL_HEAD_TIMEOUT_MS.
 */

/* Takes over the connection. tls: the listener is for TLS. */
void tnl_arrival_accept(tnl_server *s, tnl_conn *c, bool tls);

/* The turn of one has come that waits for its TLS. */
void tnl_arrival_turn(tnl_list *node);

/* Closes those that have said nothing. */
void tnl_arrival_close_silent(tnl_server *s);

/* Closes all that are undecided. */
void tnl_arrival_close_all(tnl_server *s);

#endif
