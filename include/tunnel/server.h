/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TUNNEL_SERVER_H
#define TUNNEL_SERVER_H

#include <stddef.h>
#include <stdint.h>
#include <tunnel/event.h>
#include <tunnel/export.h>
#include <tunnel/loop.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- configuration ---------------------------------------------------------------------------- */

/*
 * What a server needs to know. Setters copy what they are given and return 0, TUNNEL_E_NOMEM,
 * TUNNEL_E_LIMIT (too many of a kind), or TUNNEL_E_INVALID with tunnel_server_config_error() saying
 * in one line what is wrong and how to mend it. One thread at a time.
 */
typedef struct tunnel_server_config tunnel_server_config;

TUNNEL_EXPORT int tunnel_server_config_new(tunnel_server_config **out);
/* Wipes secrets; NULL is fine. Servers made from it are not affected. */
TUNNEL_EXPORT void tunnel_server_config_free(tunnel_server_config *config);
/* The line about the last setter that failed, or "". Valid until the next setter. */
TUNNEL_EXPORT const char *tunnel_server_config_error(const tunnel_server_config *config);

/* Adds a plain (HTTP, ws) or a TLS (HTTPS, wss) listener: "127.0.0.1:8080", "[::1]:8080"; port 0:
 * any. At most 32. */
TUNNEL_EXPORT int tunnel_server_config_add_listen(tunnel_server_config *config,
                                                  const char *address);
TUNNEL_EXPORT int tunnel_server_config_add_tls_listen(tunnel_server_config *config,
                                                      const char *address);
/* Adds a certificate chain and its key, PEM files, chosen by SNI; the first is the default. With
 * one, TLS is answered on plain listeners too, where the first bytes tell. At most 256. */
TUNNEL_EXPORT int tunnel_server_config_add_certificate(tunnel_server_config *config,
                                                       const char *cert_file, const char *key_file);
/* Required: the domain under which names are given out ("tunnel.example.com", "localhost"). */
TUNNEL_EXPORT int tunnel_server_config_set_domain(tunnel_server_config *config, const char *domain);
/* Adds a token that clients may present: printable ASCII without spaces, 1 to 4096 bytes. At most
 * 1024. */
TUNNEL_EXPORT int tunnel_server_config_add_token(tunnel_server_config *config, const char *token);
/* How visitors reach the server when a proxy stands in front: "https://tunnel.example.com[:port]";
 * names go before its host. Default: the first TLS listener, else the first listener, with the
 * domain for its host. */
TUNNEL_EXPORT int tunnel_server_config_set_public_url(tunnel_server_config *config,
                                                      const char *url);
/* How long nothing may be heard from a client before its link counts as dead, in ms, 1000 to
 * 600000. Default 5000. */
TUNNEL_EXPORT int tunnel_server_config_set_silence(tunnel_server_config *config, uint32_t ms);
/* How long a client that lost its connection may take to come back, in ms, 0 (its streams are lost
 * at once) to 3600000. Default 30000. */
TUNNEL_EXPORT int tunnel_server_config_set_grace(tunnel_server_config *config, uint32_t ms);
/* How long names and ports are kept for the account that had them, once the session is over that
 * published them, in ms, 0 to 86400000. Default 300000. */
TUNNEL_EXPORT int tunnel_server_config_set_hold(tunnel_server_config *config, uint32_t ms);
/* A file in which the server writes down which names and ports belong to whom, so that they are
 * kept for their owners over a restart; it is made if it is not there, readable by its owner alone.
 * One for each server: tunnel_server_start gives TUNNEL_E_ADDR_IN_USE while another one has it.
 * "", the default: none. */
TUNNEL_EXPORT int tunnel_server_config_set_state_file(tunnel_server_config *config,
                                                      const char *path);
/* How long an upstream may take for the head of its answer, in ms, 100 to 86400000. Default 60000.
 */
TUNNEL_EXPORT int tunnel_server_config_set_answer_timeout(tunnel_server_config *config,
                                                          uint32_t ms);
/* Ports that clients may publish with tcp and udp tunnels: "20000-29999", "25565,30000-30099", or
 * "none". They are bound on the hosts of the listeners. Defaults 20000-29999 and 30000-39999. */
TUNNEL_EXPORT int tunnel_server_config_set_tcp_ports(tunnel_server_config *config,
                                                     const char *ports);
TUNNEL_EXPORT int tunnel_server_config_set_udp_ports(tunnel_server_config *config,
                                                     const char *ports);
/* Flows at once of a udp tunnel, 1 to 65536, and of one visitor's host (an IPv4 address, an IPv6
 * /64) in it. Defaults 1024 and 512. */
TUNNEL_EXPORT int tunnel_server_config_set_udp_flows(tunnel_server_config *config, uint32_t tunnel,
                                                     uint32_t source);
/* 1: http://DOMAIN/ID/... reaches the tunnel with that id (its name, or what it asked for), for
 * hosts without wildcard DNS; clients are told such URLs. Default 0. */
TUNNEL_EXPORT int tunnel_server_config_set_path_routing(tunnel_server_config *config, int on);
/* Lets clients publish domains that are not under the server's own: "app.example.org" that one,
 * "*.example.org" all below it, "*" any. token: for that token alone, NULL for all. At most 1024.
 */
TUNNEL_EXPORT int tunnel_server_config_allow_domain(tunnel_server_config *config, const char *token,
                                                    const char *pattern);
/* 1: ACCESS events are made. Default 0. */
TUNNEL_EXPORT int tunnel_server_config_set_access_events(tunnel_server_config *config, int on);

/* Makes a random token, 32 characters and a NUL. 0 or TUNNEL_E_IO. Any thread. */
TUNNEL_EXPORT int tunnel_make_token(char out[33]);

/* --- server ----------------------------------------------------------------------------------- */

typedef struct tunnel_server tunnel_server;

/*
 * Makes a server on a loop; it listens from tunnel_server_start() on. The configuration is copied.
 * Returns 0, TUNNEL_E_NOMEM, or TUNNEL_E_INVALID (no listener, no domain, no token, a TLS listener
 * without a certificate), NOT_FOUND, ACCESS, CERTIFICATE with a line in detail (may be NULL) that
 * says what and how to mend it.
 */
TUNNEL_EXPORT int tunnel_server_new(tunnel_server **out, tunnel_loop *loop,
                                    const tunnel_server_config *config, char *detail,
                                    size_t detail_size);

/* Every event of the server goes to this callback (NULL: none). It may call any function of the
 * server. */
TUNNEL_EXPORT void tunnel_server_on_event(tunnel_server *server,
                                          void (*event)(void *user, const tunnel_event *event),
                                          void *user);

/* Binds all listeners; LISTENING events come from inside the call. 0, or TUNNEL_E_ADDR_IN_USE,
 * ACCESS, INVALID, IO, NOMEM with a line in detail (may be NULL); then nothing listens and the
 * server should be closed. */
TUNNEL_EXPORT int tunnel_server_start(tunnel_server *server, char *detail, size_t detail_size);

/* Reads the certificate files again. On any error the old ones stay: NOT_FOUND, ACCESS, CERTIFICATE
 * with a line in detail. Connections that exist go on with theirs. */
TUNNEL_EXPORT int tunnel_server_reload_certificates(tunnel_server *server, char *detail,
                                                    size_t detail_size);

/*
 * Takes over from another configuration what can change while the server runs: tokens, allowed
 * domains, certificates, port ranges, flow limits, timeouts, access events. Tunnels that exist
 * stay, but sessions whose token is gone end. What cannot change (listeners, domain, public URL,
 * path routing) is compared: TUNNEL_E_STATE with a line that names what needs a restart; the rest
 * was applied. On other errors (NOT_FOUND, ACCESS, CERTIFICATE, INVALID, NOMEM) nothing was.
 */
TUNNEL_EXPORT int tunnel_server_reload(tunnel_server *server, const tunnel_server_config *config,
                                       char *detail, size_t detail_size);

/*
 * What the server has counted since it was made; numbers only grow. Peers that misbehave show here:
 * each is refused or cut off by itself.
 */
typedef enum tunnel_counter {
    TUNNEL_COUNTER_VISITORS = 0,       /* connections accepted, of visitors and clients */
    TUNNEL_COUNTER_BAD_HANDSHAKES = 1, /* TLS handshakes that failed */
    TUNNEL_COUNTER_REQUESTS = 2,       /* request heads that were well-formed */
    TUNNEL_COUNTER_BAD_REQUESTS = 3,   /* requests refused as malformed, ambiguous or too large */
    TUNNEL_COUNTER_REFUSED_LINKS =
        4, /* clients refused before they had a link: no valid token, no proper upgrade */
    TUNNEL_COUNTER_BROKEN_LINKS = 5, /* links and sessions ended for a violation of the protocol */
    TUNNEL_COUNTER_SESSIONS = 6,     /* sessions opened by clients */
    TUNNEL_COUNTER_CONNECTIONS = 7,  /* visitors' connections of tcp and tls tunnels */
    TUNNEL_COUNTER_FLOWS = 8,        /* flows of udp tunnels */
    TUNNEL_COUNTER_DATAGRAMS_DROPPED = 9, /* under pressure, too old, or beyond a limit of flows */
    TUNNEL_COUNTER_REFUSED_ATTACHES =
        10, /* links that wanted to join a session and had no right to, or came too late */
    TUNNEL_COUNTER_RETRIED = 11, /* requests that went to another member of a pool */
} tunnel_counter;

/* One counter; 0 for a number that is none. On the loop's thread. */
TUNNEL_EXPORT uint64_t tunnel_server_counter(const tunnel_server *server, tunnel_counter which);

/*
 * Stops politely, in two steps. For delay_ms (0 to 3600000) all goes on, but
 * /__tunnel__/health/ready says 503, for whoever balances load, and clients are told to move to
 * another server. Then it listens no more and opens no streams; what is under way goes on to its
 * end, for timeout_ms (0 to 86400000) at most, and the end is as after tunnel_server_close(), which
 * may still be called to make it short (its own callback is ignored then). A server with nothing to
 * do and nobody to tell ends at once. A second call is a no-op.
 */
TUNNEL_EXPORT void tunnel_server_drain(tunnel_server *server, uint32_t delay_ms,
                                       uint32_t timeout_ms, void (*closed)(void *user), void *user);

/* Ends everything and frees the server: `closed` comes exactly once, later, on the loop; the
 * pointer is invalid then. NULL server is fine (no callback). A second call is a no-op. */
TUNNEL_EXPORT void tunnel_server_close(tunnel_server *server, void (*closed)(void *user),
                                       void *user);

#ifdef __cplusplus
}
#endif

#endif
