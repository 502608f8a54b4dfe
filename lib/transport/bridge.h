/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_TRANSPORT_BRIDGE_H
#define TNL_TRANSPORT_BRIDGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/conn.h"
#include "io/loop.h"

/*
 * Pumps bytes between a connection (outer) and a local socket end that libwebsockets has the other
 * end of (inner). The bridge owns both and is the only one who closes them. At most one chunk (64
 * KiB) waits in it per direction: an end whose queue is not empty stops the reading of the other
 * one. An end of the local side ends the connection politely; an end or failure of the connection
 * ends the local side.
 */
typedef struct tnl_bridge tnl_bridge;

typedef struct tnl_bridge_events {
    /*
     * If set: n bytes came from the connection, and are not passed on; tnl_bridge_inject() does
     * that with what shall be.
     */
    void (*inspect)(void *user, const uint8_t *p, size_t n);
    /* The connection ended while it was inspected. The bridge goes on closing. */
    void (*inspect_end)(void *user);
    /* Both ends are closed; error and detail are the connection's (0: it ended politely or was
     * closed by us). The pointer is invalid afterwards. Never from inside a tnl_bridge_ function.
     */
    void (*closed)(void *user, int error, const char *detail);
} tnl_bridge_events;

/* Takes the connection over (also on failure). buffer: TNL_BRIDGE_CHUNK bytes shared with others on
 * the loop. */
enum { TNL_BRIDGE_CHUNK = 64 * 1024 };
int tnl_bridge_new(tnl_bridge **out, tnl_conn *outer, uint8_t *buffer, const tnl_bridge_events *ev,
                   void *user);

/* Takes the local end over (also on failure). */
int tnl_bridge_attach(tnl_bridge *b, int fd);

/* Starts reading on both ends. */
void tnl_bridge_start(tnl_bridge *b);

/* Writes to the local end. */
int tnl_bridge_inject(tnl_bridge *b, const void *p, size_t n);

/* Closes both ends at once. closed() follows. */
void tnl_bridge_close(tnl_bridge *b);

/* The same, the connection with a reset. */
void tnl_bridge_reset(tnl_bridge *b);

/* Closes a connection that nobody wants any more. */
void tnl_bridge_discard(tnl_conn *c);

/* The same, politely: what was written to it still arrives. */
void tnl_bridge_dismiss(tnl_conn *c);

#endif
