/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_FORWARD_DATAGRAM_H
#define TNL_FORWARD_DATAGRAM_H

#include "io/udp.h"
#include "wire/datagram.h"

/*
 * The flows of a udp tunnel at the client: each visitor has a socket of its own that is connected
 * to the upstream, so that only the upstream can answer, and only to that visitor; or they go to
 * callbacks. A flow ends when nothing came either way for the idle time, or when there are too many
 * and it was idle for the longest.
 */
typedef struct tnl_flows tnl_flows;

typedef struct tnl_flow_end {
    uint64_t flow;
    const tnl_address *visitor; /* host "" when it is not known */
    uint64_t duration_us;       /* from the first datagram to the last */
    uint64_t bytes_in;          /* from the visitor */
    uint64_t bytes_out;         /* to the visitor */
    int error;                  /* why, when it did not end by itself, or was never answered */
    const char *text;           /* a line, "" with error 0 */
} tnl_flow_end;

/* Callbacks may call everything here, also tnl_flows_free(). */
typedef struct tnl_flows_events {
    /* A datagram for the visitor of a flow. */
    void (*send)(void *user, uint64_t flow, const uint8_t *p, size_t n);
    /* Without an upstream: a datagram of a flow's visitor. */
    void (*datagram)(void *user, uint64_t flow, const uint8_t *p, size_t n);
    /* A flow is over. Optional. */
    void (*over)(void *user, const tnl_flow_end *end);
    /* The upstream is not there (error, detail), or answers (0). May come often. Optional. */
    void (*upstream)(void *user, int error, const char *detail);
    /* Whether datagrams may be sent there; false: no. Asked before each socket is opened. Optional.
     */
    bool (*allowed)(void *user, const tnl_udp_address *upstream);
    /* The visitor of a new flow is one of these sockets: datagrams go round in circles. The flow is
     * not begun. Optional. */
    void (*cycle)(void *user);
} tnl_flows_events;

typedef struct tnl_flows_config {
    const char *host; /* of the upstream, copied; NULL: none */
    uint16_t port;
    uint32_t idle_ms; /* that of the server, 0: 60 s; flows here live a little longer */
    size_t max;       /* flows at once; 0: TNL_FLOWS_MAX */
} tnl_flows_config;

enum { TNL_FLOWS_MAX = 1024 };

int tnl_flows_new(tnl_flows **out, tnl_loop *loop, const tnl_flows_config *config,
                  const tnl_flows_events *events, void *user);

/* A datagram of a visitor, from the server. */
void tnl_flows_receive(tnl_flows *f, const tnl_datagram *d);

/* Without an upstream: answers the visitor of a flow. 0, TUNNEL_E_NOT_FOUND, LIMIT (too long). */
int tnl_flows_send(tnl_flows *f, uint64_t id, const void *p, size_t n);

/* 0 or TUNNEL_E_NOT_FOUND. */
int tnl_flows_visitor(const tnl_flows *f, uint64_t id, tnl_address *out);

size_t tnl_flows_count(const tnl_flows *f);

/* Ends all flows, as when the session is lost: their ids mean nothing any more. */
void tnl_flows_end_all(tnl_flows *f, int error, const char *text);

/* Ends all flows and frees. No callback comes after it. NULL is fine. */
void tnl_flows_free(tnl_flows *f);

#endif
