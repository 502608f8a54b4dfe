/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_CLIENT_CLIENT_H
#define TNL_CLIENT_CLIENT_H

#include "base/event.h"
#include "base/ports.h"
#include "base/url.h"
#include "forward/forward.h"
#include "io/loop.h"
#include "wire/message.h"

/*
 * The agent: keeps a session with a server, publishes tunnels in it and forwards their streams.
 *
 *   IDLE -> DIALING -> HANDSHAKE -> LIVE -> BACKOFF -> DIALING ...
 *                                      any -> FAILED (final) and any -> CLOSED
 */
typedef struct tnl_client tnl_client;

enum { TNL_CLIENT_MAX_TUNNELS = 64, TNL_CLIENT_MAX_SERVERS = 8 };

/* Complete and checked; copied by tnl_client_new(). */
typedef struct tnl_client_config {
    tnl_url servers[TNL_CLIENT_MAX_SERVERS]; /* scheme ws or wss, port set; in their order */
    size_t server_count;                     /* 0 counts as 1 */
    char token[4097];
    char ca_file[512]; /* "": the system's store */
    bool has_proxy;
    tnl_url proxy;
    uint8_t instance[TNL_ID_SIZE];
    bool force;
    uint32_t silence_ms;
    uint32_t lanes; /* most of them, 0 to 8 */
} tnl_client_config;

typedef struct tnl_files tnl_files;

/* Where a tunnel's visitors go. */
typedef enum tnl_far_end {
    TNL_FAR_ADDRESS, /* to an address */
    TNL_FAR_PORTS,   /* to a port of this host that the visitor names, if it is one of a set */
    TNL_FAR_FILES,   /* to a folder */
    TNL_FAR_LISTEN,  /* to callbacks of the app */
} tnl_far_end;

/* What to publish, complete and checked. */
typedef struct tnl_tunnel_spec {
    tnl_kind kind;
    char name[66];     /* http, tls: "" any, "@", a label, "*.label" */
    char domain[254];  /* instead of a name */
    char path_id[129]; /* instead of both */
    uint16_t port;     /* tcp, udp: 0 any */
    tnl_far_end far_end;
    tnl_upstream upstream;                        /* ADDRESS */
    tnl_ports ports;                              /* PORTS */
    tnl_files *files;                             /* FILES; owned */
    tnl_tls_server *tls;                          /* tls: terminated here; NULL: passed on. Owned */
    char host_header[256];                        /* http */
    unsigned proxy_protocol;                      /* 1, 2; 0 none */
    uint32_t idle_ms;                             /* udp; 0: the default */
    char pool[16];                                /* "round-robin", "least-loaded"; "" none */
    void (*visitor)(void *user, uint64_t stream); /* LISTEN */
    void (*datagram)(void *user, uint64_t tunnel, uint64_t flow, const void *p, size_t n);
    void *user; /* of both */
} tnl_tunnel_spec;

/* Frees what a spec owns. */
void tnl_tunnel_spec_clear(tnl_tunnel_spec *spec);

typedef void (*tnl_client_event_cb)(void *user, const tunnel_event *e);

int tnl_client_new(tnl_client **out, tnl_loop *loop, const tnl_client_config *config, char *detail,
                   size_t size);
tnl_loop *tnl_client_loop(const tnl_client *c);
void tnl_client_on_event(tnl_client *c, tnl_client_event_cb cb, void *user);

/* Takes over what the spec owns, on success. */
int tnl_client_publish(tnl_client *c, const tnl_tunnel_spec *spec, uint64_t *tunnel);
/* No new streams; those that are open go on to their ends. */
int tnl_client_unpublish(tnl_client *c, uint64_t tunnel);
/* See tunnel_datagram_send() and tunnel_datagram_visitor(). */
int tnl_client_datagram_send(tnl_client *c, uint64_t tunnel, uint64_t flow, const void *p,
                             size_t n);
int tnl_client_datagram_visitor(tnl_client *c, uint64_t tunnel, uint64_t flow, tnl_address *out);
int tnl_client_start(tnl_client *c);
/* See tunnel_client_drain(). */
void tnl_client_drain(tnl_client *c, uint32_t timeout_ms, void (*closed)(void *user), void *user);
void tnl_client_close(tnl_client *c, void (*closed)(void *user), void *user);

#endif
