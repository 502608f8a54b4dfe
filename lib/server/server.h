/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_SERVER_SERVER_H
#define TNL_SERVER_SERVER_H

#include "auth/token.h"
#include "base/event.h"
#include "base/ports.h"
#include "base/url.h"
#include "io/conn.h"
#include "io/loop.h"

/*
 * The server: listeners, visitors, clients' sessions and the names they publish, on one loop.
 */
typedef struct tnl_server tnl_server;

enum { TNL_SERVER_MAX_LISTEN = 32, TNL_SERVER_MAX_CERTS = 256 };

typedef struct tnl_server_listen {
    char address[160];
    bool tls;
} tnl_server_listen;

typedef struct tnl_server_cert {
    char *cert_file;
    char *key_file;
} tnl_server_cert;

/* Who may publish which domain that is not the server's own. */
typedef struct tnl_server_allowed {
    char account[TNL_ACCOUNT_SIZE]; /* "": every one */
    char pattern[256];              /* "app.example.org", "*.example.org", "*" */
} tnl_server_allowed;

/* Complete and checked; strings are copied by tnl_server_new(). */
typedef struct tnl_server_config {
    tnl_server_listen listen[TNL_SERVER_MAX_LISTEN];
    size_t listen_count;
    tnl_server_cert certs[TNL_SERVER_MAX_CERTS];
    size_t cert_count;
    char domain[254];
    bool has_public_url;
    tnl_url public_url;
    tnl_tokens *tokens; /* owned by the server once tnl_server_new() succeeded */
    uint32_t silence_ms;
    uint32_t answer_timeout_ms;
    uint32_t grace_ms;    /* how long a session lives without a link */
    uint32_t hold_ms;     /* how long names are kept for an account after that */
    char state_file[512]; /* "": none */
    bool access_events;
    bool path_routing;
    tnl_ports tcp_ports;
    tnl_ports udp_ports;
    uint32_t udp_flows;            /* of a tunnel */
    uint32_t udp_flows_per_source; /* of an IPv4 address or an IPv6 /64 in it */
    tnl_server_allowed *allowed;   /* owned by the server once tnl_server_new() succeeded */
    size_t allowed_count;
} tnl_server_config;

typedef void (*tnl_server_event_cb)(void *user, const tunnel_event *e);

int tnl_server_new(tnl_server **out, tnl_loop *loop, const tnl_server_config *config, char *detail,
                   size_t size);
void tnl_server_on_event(tnl_server *s, tnl_server_event_cb cb, void *user);
int tnl_server_start(tnl_server *s, char *detail, size_t size);
int tnl_server_reload_certificates(tnl_server *s, char *detail, size_t size);
/* Takes over what may change; see tunnel_server_reload(). The server owns config's tokens and
 * allowed domains then: after 0 and TUNNEL_E_STATE. */
int tnl_server_reload(tnl_server *s, const tnl_server_config *config, char *detail, size_t size);
/* Counters for what goes wrong or matters; only ever grow. */
typedef struct tnl_server_stats {
    uint64_t visitors;
    uint64_t bad_handshakes;
    uint64_t requests;
    uint64_t bad_requests;
    uint64_t refused_links; /* not authenticated, or not a proper upgrade */
    uint64_t broken_links;  /* ended by a violation of the protocol */
    uint64_t sessions;
    uint64_t connections; /* of tcp and tls tunnels */
    uint64_t flows;       /* of udp tunnels */
    uint64_t datagrams_dropped;
    uint64_t refused_attaches;
    uint64_t retried; /* requests, with another member of a pool */
} tnl_server_stats;

const tnl_server_stats *tnl_server_get_stats(const tnl_server *s);

/* See tunnel_server_drain(). */
void tnl_server_drain(tnl_server *s, uint32_t delay_ms, uint32_t timeout_ms,
                      void (*closed)(void *user), void *user);
void tnl_server_close(tnl_server *s, void (*closed)(void *user), void *user);

#endif
