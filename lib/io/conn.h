/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_IO_CONN_H
#define TNL_IO_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/loop.h"

/*
 * A byte connection: one interface over TCP, AF_UNIX, TLS and whatever else carries bytes both
 * ways. Reading is pushed into memory that the user names; writing accepts everything up to a bound
 * and tells when the queue is empty again, so that a user who stops feeding while
 * tnl_conn_pending() is not 0 never holds more than one chunk in it.
 */
typedef struct tnl_conn tnl_conn;

typedef struct tnl_conn_events {
    /*
     * Where the next bytes shall go: sets *p and returns how many fit (a multiple of KiB reads
     * best). 0: no room; reading pauses until tnl_conn_resume(). Always followed by data() with
     * bytes in that very place, by eof(), by closed(), or by another space().
     */
    size_t (*space)(void *user, uint8_t **p);
    /* n > 0 bytes arrived at p (what space() gave). */
    void (*data)(void *user, uint8_t *p, size_t n);
    /* The peer has ended its direction (FIN, or TLS close_notify). At most once; no data() after
     * it. Optional. */
    void (*eof)(void *user);
    /* The write queue, which was not empty, is empty now. Optional. */
    void (*drained)(void *user);
    /*
     * A TLS handshake is complete (TLS connections only; nothing may be written earlier than this).
     * Optional.
     */
    void (*ready)(void *user);
    /*
     * The connection is gone; the pointer is invalid from here on. Exactly once, whether the user
     * closed it (error 0) or it failed (a TUNNEL_E_ code). Never called from inside a tnl_conn_
     * function. `detail` is a short text or "".
     */
    void (*closed)(void *user, int error, const char *detail);
} tnl_conn_events;

typedef struct tnl_iov {
    const void *p;
    size_t n;
} tnl_iov;

/* The most bytes that wait in a connection's write queue. */
enum { TNL_CONN_MAX_PENDING = 256 * 1024 };

/* An address of a socket as text. host is numeric, without brackets; an IPv4 one mapped into IPv6
 * is shown as IPv4. */
typedef struct tnl_address {
    char host[64]; /* "" for AF_UNIX */
    uint16_t port;
    bool ipv6;
} tnl_address;

/* What a kind of connection implements; users call the functions below. */
typedef struct tnl_conn_ops {
    int (*write)(tnl_conn *c, const tnl_iov *v, size_t n);
    size_t (*pending)(const tnl_conn *c);
    void (*resume)(tnl_conn *c);
    void (*pause)(tnl_conn *c);
    void (*shutdown)(tnl_conn *c);
    void (*close)(tnl_conn *c, bool reset);
    /* A dup of the plaintext socket (CLOEXEC), or TUNNEL_E_UNSUPPORTED where there is none (TLS).
     */
    int (*dup)(tnl_conn *c);
    /* The addresses of the other end and of this one; NULL where there are none. */
    tnl_address (*peer)(const tnl_conn *c);
    tnl_address (*local)(const tnl_conn *c);
    /* Little waits in the kernel unsent; NULL where that cannot be said. */
    void (*keep_little)(tnl_conn *c);
} tnl_conn_ops;

/*
 * First member of every kind of connection. `events` may be exchanged between callbacks (a new
 * owner takes over), but not after tnl_conn_finish(). The kind sets `ended` when it gives eof().
 */
struct tnl_conn {
    const tnl_conn_ops *ops;
    const tnl_conn_events *events;
    void *user;
    tnl_loop *loop;
    bool ended;
};

/* Takes no notice of anything: what a connection has before its first events, or when nobody
 * wants to hear of it any more (it is closed with them, and closed() goes nowhere). */
extern const tnl_conn_events tnl_conn_no_events;

static inline void tnl_conn_set_events(tnl_conn *c, const tnl_conn_events *events, void *user)
{
    c->events = events;
    c->user = user;
}

/*
 * Writes all of v[0..n): straight to the socket what it takes, the rest is copied to the queue. 0;
 * TUNNEL_E_LIMIT when the queue would exceed TNL_CONN_MAX_PENDING, or TUNNEL_E_NOMEM (nothing more
 * was queued, the connection is then closing with that error); TUNNEL_E_STATE after shutdown or
 * close. To a peer that has gone it writes into the void and returns 0: what that peer still sent
 * is read first, its end included, then closed() tells.
 */
int tnl_conn_write(tnl_conn *c, const tnl_iov *v, size_t n);

/* Bytes in the write queue (the kernel's not counted). */
size_t tnl_conn_pending(const tnl_conn *c);

/* Starts or restarts reading. Connections are born paused. Reading may begin before the call
 * returns only for TLS. */
void tnl_conn_resume(tnl_conn *c);
void tnl_conn_pause(tnl_conn *c);

/* Ends our direction after what is queued; reading goes on. */
void tnl_conn_shutdown(tnl_conn *c);

/* Closes at once; what is queued is dropped. closed() follows. Calling it again is a no-op until
 * closed() came. */
void tnl_conn_close(tnl_conn *c);

/* Closes at once with a TCP reset where the transport has one. */
void tnl_conn_reset(tnl_conn *c);

/*
 * Ends politely without losing what was written: sends the queue (giving up after 10 seconds
 * without progress), ends our direction, then reads and drops what still comes until the peer's end
 * or for 2 seconds, but no more than 256 KiB, and closes. The user gets no further event but
 * closed(). (A plain close with unread input makes TCP reset the connection and the peer lose our
 * last answer, RFC 9112 section 9.6.)
 */
void tnl_conn_finish(tnl_conn *c);

int tnl_conn_dup(tnl_conn *c);

/* Wraps a connected stream socket (takes the descriptor, also on failure). TCP_NODELAY is set on
 * TCP. */
int tnl_conn_from_fd(tnl_conn **out, tnl_loop *l, int fd, const tnl_conn_events *ev, void *user);

/* The peer's address: the socket's, also under TLS; empty for AF_UNIX and once the peer is gone. */
tnl_address tnl_conn_peer(const tnl_conn *c);
/* This end's address, likewise. */
tnl_address tnl_conn_local(const tnl_conn *c);

/*
 * For connections that carry links. From here on the kernel takes no more while it has
 * TNL_CONN_UNSENT bytes or more that it cannot send yet (it would take megabytes), so that what is
 * written next, being more urgent, does not wait behind those. And it sends again what was lost at
 * least once a second (from Linux 6.15 on; before, ever more rarely, up to every two minutes), so
 * that a network that is back is noticed. TCP, also under TLS; else nothing happens.
 */
enum { TNL_CONN_UNSENT = 64 * 1024 };
void tnl_conn_keep_little(tnl_conn *c);

/*
 * Connecting. Tries the addresses in turn, IPv6 and IPv4 interleaved, starting the next after 250
 * ms or a failure (RFC 8305), within timeout_ms in all.
 */
typedef struct tnl_connect tnl_connect;
typedef void (*tnl_connect_cb)(void *user, int error, const char *detail, tnl_conn *c);

/*
 * host: a name, a numeric address, "localhost" (127.0.0.1 and ::1, both tried without a resolver);
 * or unix_path, with host NULL. The callback comes exactly once and never before this returns,
 * unless canceled: with a paused connection without events (set them at once), or an error and a
 * text saying what failed ("connect to 127.0.0.1:3000: connection refused"). 0 or TUNNEL_E_NOMEM,
 * TUNNEL_E_INVALID.
 */
int tnl_connect_start(tnl_connect **out, tnl_loop *l, const char *host, uint16_t port,
                      const char *unix_path, uint64_t timeout_ms, tnl_connect_cb cb, void *user);
/*
 * Right after tnl_connect_start(): asks again twice a second while nobody answers, with connections
 * of their own, of which the first that comes to be is taken. A system asks ever more rarely, which
 * would keep a network that is back waiting.
 */
void tnl_connect_insist(tnl_connect *c);
/* Forgets it: no callback will come. Not to be called once the callback has begun. */
void tnl_connect_cancel(tnl_connect *c);

/*
 * Listening. address: "127.0.0.1:8080", "[::1]:8080", "0.0.0.0:0" (port 0: any free one),
 * "unix:/path" (a stale socket file is replaced, and removed at the end). At most 64 connections
 * are accepted per turn of the loop.
 */
typedef struct tnl_listener tnl_listener;
typedef void (*tnl_accept_cb)(void *user, tnl_conn *c);

/* detail (may be NULL) gets the reason in words on failure: TUNNEL_E_INVALID, ADDR_IN_USE, ACCESS,
 * IO, NOMEM. */
int tnl_listener_new(tnl_listener **out, tnl_loop *l, const char *address, tnl_accept_cb cb,
                     void *user, char *detail, size_t detail_size);
/* The address it is bound to, with the real port. */
tnl_address tnl_listener_address(const tnl_listener *l);
void tnl_listener_free(tnl_listener *l);

/* Whether three quarters of the descriptors that the process may have are in use, roughly: what can
 * do without one more leaves the rest to visitors and links. */
bool tnl_descriptors_scarce(void);

/* Splits "host:port", "[v6]:port". 0 or TUNNEL_E_INVALID. host_size >= 64. */
int tnl_address_split(const char *text, char *host, size_t host_size, uint16_t *port);

#endif
