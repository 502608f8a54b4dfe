/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_LINK_LINK_H
#define TNL_LINK_LINK_H

#include "io/loop.h"
#include "link/session.h"
#include "transport/transport.h"
#include "wire/frame.h"

/*
 * A link: one transport with its frame decoder, the handshake that comes before a session is bound
 * to it, and the keepalive. Any received byte is a sign of life; a PING goes only into silence.
 *
 * Made in three steps: tnl_link_new(), then a transport made with tnl_link_transport_events() and
 * the link as its user, then tnl_link_set_transport(). The link frees itself after closed().
 */
typedef struct tnl_link tnl_link;

typedef struct tnl_link_events {
    /* The transport is usable: the client sends its HELLO. Optional. */
    void (*opened)(void *user, tnl_link *l);
    /* A link-scope frame before a session is bound: HELLO, ATTACH, WELCOME, ATTACHED. Return 0, or
     * a TUNNEL_E_ code: the peer gets CLOSE with it and the link ends. tnl_link_bind() may be
     * called inside. */
    int (*handshake)(void *user, tnl_link *l, const tnl_frame *f);
    /* A PONG came: the round trip in microseconds. Optional. */
    void (*round_trip)(void *user, tnl_link *l, uint64_t us);
    /* The link is gone, and with it the pointer. Once. error 0: closed by this end. When the peer
     * sent CLOSE, error is its code and detail its text. detail holds no control characters.
     * http_status: see tnl_transport_events.closed. A session that was bound has lost its link by
     * now; its own closed() may come before or after this one. */
    void (*closed)(void *user, tnl_link *l, int error, int http_status, const char *detail);
} tnl_link_events;

typedef struct tnl_link_config {
    uint32_t handshake_ms; /* for transport and handshake together, whatever is heard meanwhile,
                              1000 to 60000 */
    uint32_t silence_ms; /* a link that brought nothing for so long is dead; a PING goes after half
                          * of it, and has as long for its answer */
    uint32_t max_data;   /* greatest DATA payload this end accepts */
    size_t inflight;     /* most unacknowledged bytes on the link */
    bool fallback;       /* carries streams only while no other link does */
    bool unproven;       /* carries streams only for want of any other until a PONG has come: what
                            is in between may take bytes and lose them */
} tnl_link_config;

int tnl_link_new(tnl_link **out, tnl_loop *loop, const tnl_link_config *config,
                 const tnl_link_events *ev, void *user);
const tnl_transport_events *tnl_link_transport_events(void);
void tnl_link_set_transport(tnl_link *l, tnl_transport *t);
/* For a link that never got a transport. No closed(). */
void tnl_link_discard(tnl_link *l);

/* Another owner takes the link over, from inside handshake() too. */
void tnl_link_set_events(tnl_link *l, const tnl_link_events *ev, void *user);

/* From here on stream frames go to the session, and its frames come out here. 0; TUNNEL_E_NOMEM,
 * GONE (the session is closing): then the session has no link, and closing it is up to the caller.
 */
int tnl_link_bind(tnl_link *l, tnl_session *s);

/* Queues a link-scope frame. 0 or TUNNEL_E_LIMIT. */
int tnl_link_send(tnl_link *l, const tnl_frame *f);

/* Ends the link; with a code (a TUNNEL_E_ code, not 0) the peer is told by CLOSE. closed() follows
 * with error 0. */
void tnl_link_close(tnl_link *l, int code, const char *text);

/* The same for a link that is known to be dead: nothing is sent, and closed() follows at once. A
 * polite end takes up to 2 s, in which the session's streams do not move to another link. */
void tnl_link_give_up(tnl_link *l);

/* Asks for a PONG now; the peer is silent if none comes (tnl_link_last_heard() tells). */
void tnl_link_ping(tnl_link *l);

/* The same with little patience, for whoever has reason to doubt that the peer is there: with no
 * sign of life within patience_ms the link is lost. */
void tnl_link_check(tnl_link *l, uint32_t patience_ms);

/* Inside closed(): how long the server that refused wants to be left alone, in seconds; 0: it did
 * not say. */
uint32_t tnl_link_retry_after(const tnl_link *l);

/* The loop's time at the last sign of life, and the last round trip in ms (UINT32_MAX: none
 * measured). */
uint64_t tnl_link_last_heard(const tnl_link *l);
uint32_t tnl_link_rtt(const tnl_link *l);

/* --- for session.c ---------------------------------------------------------------------------- */

void tnl_link_wake(tnl_link *l);
/* The session is gone: closes the link too. */
void tnl_link_unbind(tnl_link *l);

#endif
