/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_LINK_DIAL_H
#define TNL_LINK_DIAL_H

#include "base/url.h"
#include "io/conn.h"
#include "tls/tls.h"

/*
 * The one dialer: a name or an address or an AF_UNIX path, straight or through an HTTP proxy
 * (CONNECT, RFC 9110 section 9.3.6), plain or TLS.
 */
typedef struct tnl_dial tnl_dial;

typedef struct tnl_dial_target {
    const char *host; /* NULL with unix_path */
    uint16_t port;
    const char *unix_path;
    tnl_tls_client *tls;  /* NULL: plain; else verified against host, or "localhost" for AF_UNIX */
    const tnl_url *proxy; /* NULL: straight */
    uint32_t timeout_ms;  /* for all of it, 1 to 600000 */
    bool insists;         /* see tnl_connect_insist() */
} tnl_dial_target;

/* error 0: a ready, paused connection, without events: set them at once. Else a TUNNEL_E_ code and
 * a line that says what failed. */
typedef void (*tnl_dial_cb)(void *user, int error, const char *detail, tnl_conn *c);

/* The callback comes exactly once, never before this returns, unless canceled. 0, TUNNEL_E_NOMEM,
 * TUNNEL_E_INVALID. What target points to is copied or referenced. */
int tnl_dial_start(tnl_dial **out, tnl_loop *loop, const tnl_dial_target *target, tnl_dial_cb cb,
                   void *user);
void tnl_dial_cancel(tnl_dial *d);

#endif
