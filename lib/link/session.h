/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_LINK_SESSION_H
#define TNL_LINK_SESSION_H

#include "io/loop.h"
#include "mux/mux.h"

/*
 * A session on a loop: a mux, the links bound to it and its timer. The same at both ends. It ends
 * when tnl_session_close() is called, the peer sent CLOSE, the peer broke the protocol, or its last
 * link is gone. With a grace it is parked then: its streams wait for a new link until the grace is
 * over.
 */
typedef struct tnl_session tnl_session;
struct tnl_link;

typedef struct tnl_session_events {
    void (*open)(void *user, tnl_stream *s, const uint8_t *map, size_t n);
    int (*control)(void *user, uint8_t type, const uint8_t *p, size_t n);
    void (*event)(void *user, const uint8_t *map, size_t n); /* optional */
    void (*datagram)(void *user, const tnl_datagram *d);     /* optional */
    void (*dropped)(void *user, uint64_t count); /* optional; datagrams, see tnl_mux_events */
    void (*retired)(void *user);                 /* optional; a stream slot is free again */
    /* The last link is gone, and the grace has begun; why. Optional. */
    void (*parked)(void *user, int error, const char *detail);
    /* Over; once, also after tnl_session_close(). Its streams have been told reset() before. The
     * pointer is valid until the callback returns. error: 0 closed by this end, a TUNNEL_E_ code
     * else; detail is a line without control characters, or "". */
    void (*closed)(void *user, int error, const char *detail);
} tnl_session_events;

int tnl_session_new(tnl_session **out, tnl_loop *loop, const tnl_mux_config *config,
                    const tnl_session_events *ev, void *user);

/* The mux, for opening streams and sending control messages; NULL once the session is closing. */
tnl_mux *tnl_session_mux(tnl_session *s);

/* tnl_mux_datagram() for a session: use this, as it keeps the time. TUNNEL_E_GONE also when it is
 * closing. */
int tnl_session_datagram(tnl_session *s, const tnl_datagram *d);

/* Ends the session: links get CLOSE with the code (a TUNNEL_E_ code; 0: a plain end) and close,
 * streams are reset. closed() comes at the end of this loop turn. Again: no-op. */
void tnl_session_close(tnl_session *s, int code, const char *text);

/* How long it may be without a link; 0, as it is made: not at all. A parked one is not affected. */
void tnl_session_set_grace(tnl_session *s, uint32_t ms);
/* Whether it waits for a link. */
bool tnl_session_parked(const tnl_session *s);

/* Sends PINGs now. */
void tnl_session_ping(tnl_session *s);
/* Asks all links for a sign of life within patience_ms, else they are lost. */
void tnl_session_check(tnl_session *s, uint32_t patience_ms);
/* Loop time of the last sign of life on any link. */
uint64_t tnl_session_last_heard(const tnl_session *s);

/* --- for link.c ------------------------------------------------------------------------------- */

typedef struct tnl_session_link {
    tnl_list node;
    tnl_mux_link *mux_link;
    struct tnl_link *link;
} tnl_session_link;

/* fallback and unproven: see tnl_link_config. */
int tnl_session_attach(tnl_session *s, tnl_session_link *l, struct tnl_link *link, size_t inflight,
                       bool fallback, bool unproven);
/* The link's path is known to bring what is sent, both ways. */
void tnl_session_proven(tnl_session *s, tnl_session_link *l);
void tnl_session_frame(tnl_session *s, tnl_session_link *l, const tnl_frame *f);
size_t tnl_session_pull(tnl_session *s, tnl_session_link *l, uint8_t *out, size_t cap);
/* A link has measured its round trip. */
void tnl_session_rtt(tnl_session *s, tnl_session_link *l, uint32_t ms);
/* The link is gone; why. */
void tnl_session_detach(tnl_session *s, tnl_session_link *l, int error, const char *detail);
/* The peer sent CLOSE; or it broke the protocol (it is told by CLOSE on every link). */
void tnl_session_peer_closed(tnl_session *s, int error, const char *detail);
void tnl_session_broken(tnl_session *s, int error);

#endif
