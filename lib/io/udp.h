/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_IO_UDP_H
#define TNL_IO_UDP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/conn.h"

/*
 * Datagram sockets. What arrives is read in batches, at most 64 datagrams or 128 KiB of a socket in
 * a turn of the loop; what is sent is gathered until the end of the turn or until the batch is
 * full, and goes out at once. Nothing waits beyond that: what the kernel does not take is dropped
 * and counted, as the network does it. All sockets of a loop share one batch each way, so that an
 * idle one costs little.
 */
typedef struct tnl_udp tnl_udp;

enum { TNL_UDP_MAX = 65507 };

/* Who sent a datagram and where to, or who is to get one. Zeros where nothing else is said, so that
 * it can be compared byte by byte. An IPv4 address that came to an IPv6 socket is an IPv4 one here.
 */
typedef struct tnl_udp_address {
    uint8_t address[16]; /* 4 or 16 bytes */
    uint8_t local[16];   /* the address of ours, on a socket of all addresses; else zeros */
    uint32_t scope;      /* the interface of a link-local IPv6 address */
    uint16_t port;
    uint8_t family; /* 4, 6 */
    uint8_t user;   /* the user's */
} tnl_udp_address;

typedef struct tnl_udp_events {
    /* A datagram of 0 to TNL_UDP_MAX bytes, good during the call. from: the other end, also of a
     * connected socket. May call everything, also tnl_udp_free(). */
    void (*datagram)(void *user, const tnl_udp_address *from, const uint8_t *p, size_t n);
    /* Connected sockets: the host there says that nobody listens. It may all the same answer later.
     * Never from inside a call of the user. Optional. */
    void (*refused)(void *user);
} tnl_udp_events;

/*
 * A socket bound to an address as listeners have it ("127.0.0.1:0", "[::]:5353"). detail (may be
 * NULL) gets the reason in words on failure: TUNNEL_E_INVALID, ADDR_IN_USE, ACCESS, LIMIT, IO,
 * NOMEM. Replies leave from the address of ours that the datagram came to.
 */
int tnl_udp_new(tnl_udp **out, tnl_loop *l, const char *address, const tnl_udp_events *ev,
                void *user, char *detail, size_t detail_size);

/* A socket that sends to that address only and hears nobody else. TUNNEL_E_UNREACHABLE, ACCESS,
 * LIMIT, NOMEM, IO. */
int tnl_udp_connect(tnl_udp **out, tnl_loop *l, const tnl_udp_address *to, const tnl_udp_events *ev,
                    void *user);

/* The address it is bound to, with the real port. */
tnl_address tnl_udp_bound(const tnl_udp *u);

/* Sends a datagram with the end of this turn at the latest; to: NULL for a connected socket. Too
 * long ones are dropped. */
void tnl_udp_send(tnl_udp *u, const tnl_udp_address *to, const void *p, size_t n);

/* How many datagrams were dropped in sending so far. */
uint64_t tnl_udp_dropped(const tnl_udp *u);

/* Sends what was given, and closes; no event comes any more. The port is free at once. NULL is
 * fine. */
void tnl_udp_free(tnl_udp *u);

/* The address in numbers. */
tnl_address tnl_udp_text(const tnl_udp_address *a);

/*
 * What a name stands for, to be sent to: a numeric address, "localhost" (127.0.0.1 and ::1), or
 * what a resolver says, in its order. The callback comes exactly once, never before this returns,
 * unless canceled: with 1 to TNL_UDP_ADDRESSES addresses, or an error (TUNNEL_E_RESOLVE, TIMEOUT,
 * NOMEM) and a line. 0 or TUNNEL_E_NOMEM, INVALID.
 */
enum { TNL_UDP_ADDRESSES = 4 };
typedef struct tnl_udp_lookup tnl_udp_lookup;
typedef void (*tnl_udp_lookup_cb)(void *user, int error, const char *detail,
                                  const tnl_udp_address *list, size_t n);
int tnl_udp_lookup_start(tnl_udp_lookup **out, tnl_loop *l, const char *host, uint16_t port,
                         tnl_udp_lookup_cb cb, void *user);
void tnl_udp_lookup_cancel(tnl_udp_lookup *r);

#endif
