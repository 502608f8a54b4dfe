/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TUNNEL_CLIENT_H
#define TUNNEL_CLIENT_H

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
 * What a client needs to know. Setters copy what they are given and return 0, TUNNEL_E_NOMEM, or
 * TUNNEL_E_INVALID with tunnel_client_config_error() saying in one line what is wrong and how to
 * mend it. One thread at a time.
 */
typedef struct tunnel_client_config tunnel_client_config;

TUNNEL_EXPORT int tunnel_client_config_new(tunnel_client_config **out);
/* Wipes secrets; NULL is fine. Clients made from it are not affected. */
TUNNEL_EXPORT void tunnel_client_config_free(tunnel_client_config *config);
/* The line about the last setter that failed, or "". Valid until the next setter. */
TUNNEL_EXPORT const char *tunnel_client_config_error(const tunnel_client_config *config);

/* Required: "ws://host[:port]", "wss://...", or the same with http and https. Path and query must
 * be empty. */
TUNNEL_EXPORT int tunnel_client_config_set_server(tunnel_client_config *config, const char *url);
/*
 * Adds a server to the one that was set, or to those that were added: at most 8 (TUNNEL_E_LIMIT).
 * They are tried in order, the one that worked last first. A client whose connection is lost goes
 * back to the server that knows its streams, as long as that one can be reached, else it begins a
 * new session at the next; of a server that is about to stop it takes leave without losing a
 * stream. One that refuses the client for good (token, version, limit, certificate) is left out
 * until there was a session with another; when all of them do, the client has failed.
 */
TUNNEL_EXPORT int tunnel_client_config_add_server(tunnel_client_config *config, const char *url);
/* The credential: printable ASCII, 1 to 4096 bytes. */
TUNNEL_EXPORT int tunnel_client_config_set_token(tunnel_client_config *config, const char *token);
/* A PEM file to verify the server's certificate against, instead of the system's store. */
TUNNEL_EXPORT int tunnel_client_config_set_ca_file(tunnel_client_config *config, const char *path);
/* 1: allow plain ws to hosts other than loopback (everything, the token too, is then readable on
 * the way). Default 0. */
TUNNEL_EXPORT int tunnel_client_config_set_insecure(tunnel_client_config *config, int insecure);
/* An outbound HTTP proxy, "http://[user:password@]host[:port]" (port 80 by default); "" for none.
 */
TUNNEL_EXPORT int tunnel_client_config_set_proxy(tunnel_client_config *config, const char *url);
/* The instance id, 32 hex digits: a client with the same id and token takes over from an older one
 * at once. Default: random for each client. */
TUNNEL_EXPORT int tunnel_client_config_set_instance(tunnel_client_config *config, const char *hex);
/* 1: take names from another live client of the same account. Default 0. */
TUNNEL_EXPORT int tunnel_client_config_set_force(tunnel_client_config *config, int force);
/* How long nothing may be heard before a link counts as dead, in ms, 1000 to 600000. Default 5000.
 */
TUNNEL_EXPORT int tunnel_client_config_set_silence(tunnel_client_config *config, uint32_t ms);

/* How many further connections may be opened to the server while there is traffic, 0 to 8. They
 * carry the bytes faster; where the path does not allow them all goes through the first one.
 * Default 2. */
TUNNEL_EXPORT int tunnel_client_config_set_lanes(tunnel_client_config *config, uint32_t most);

/* --- tunnels ---------------------------------------------------------------------------------- */

/* Options of one tunnel. The same rules for setters as above; the error line is
 * tunnel_options_error(). Each says what it goes with: with anything else tunnel_client_forward()
 * or tunnel_client_listen() answers TUNNEL_E_INVALID. */
typedef struct tunnel_options tunnel_options;

TUNNEL_EXPORT int tunnel_options_new(tunnel_options **out);
TUNNEL_EXPORT void tunnel_options_free(tunnel_options *options);
TUNNEL_EXPORT const char *tunnel_options_error(const tunnel_options *options);
/* http, but not with a folder. Replaces the Host header toward the local service (at most 255
 * bytes, a valid Host value). */
TUNNEL_EXPORT int tunnel_options_set_host_header(tunnel_options *options, const char *value);
/* https upstreams. A PEM file to verify them against. Default: the system's store; on loopback,
 * where certificates are self-signed more often than not, no verification. */
TUNNEL_EXPORT int tunnel_options_set_upstream_ca_file(tunnel_options *options, const char *path);
/* http. The id under which a server with routing by path offers the tunnel, instead of its name: 1
 * to 128 of a-z A-Z 0-9 _ ~ . % -, not "." or "..". */
TUNNEL_EXPORT int tunnel_options_set_path_id(tunnel_options *options, const char *id);
/* tcp, tls, http; forwarding to addresses without https. 1 or 2: each connection to the upstream
 * begins with a header of the PROXY protocol of that version, which tells the visitor's address. 0,
 * the default: none. */
TUNNEL_EXPORT int tunnel_options_set_proxy_protocol(tunnel_options *options, int version);
/* tls. The client terminates TLS with this certificate chain and key (PEM files), so that the
 * upstream gets plain bytes and the server never sees any. Default: passed on as they are. */
TUNNEL_EXPORT int tunnel_options_set_certificate(tunnel_options *options, const char *cert_file,
                                                 const char *key_file);
/* udp. How long a flow may be idle before it ends, in ms, 1000 to 3600000. Default 60000. */
TUNNEL_EXPORT int tunnel_options_set_idle_timeout(tunnel_options *options, uint32_t ms);
/* http, tls, tcp. Several clients of one account, each with this option, serve the name or port
 * together, up to 100: visitors are spread over them. balance: "round-robin", or "least-loaded"
 * (where the fewest streams are open); what the newest of them says counts. "": none, the default.
 */
TUNNEL_EXPORT int tunnel_options_set_pool(tunnel_options *options, const char *balance);

/* --- client ----------------------------------------------------------------------------------- */

typedef struct tunnel_client tunnel_client;

/*
 * Makes a client on a loop; it does nothing before tunnel_client_start(). The configuration is
 * copied. Returns 0, TUNNEL_E_NOMEM, or TUNNEL_E_INVALID, NOT_FOUND, CERTIFICATE with a line in
 * detail (may be NULL): no server set, plain ws to a host that is not loopback, a CA file that is
 * unreadable or of no use with plain ws.
 */
TUNNEL_EXPORT int tunnel_client_new(tunnel_client **out, tunnel_loop *loop,
                                    const tunnel_client_config *config, char *detail,
                                    size_t detail_size);

/*
 * Every event of the client goes to this callback (NULL: none). It may call any function of the
 * client. After a FAILED event with tunnel 0 the client does nothing more: close it.
 */
TUNNEL_EXPORT void tunnel_client_on_event(tunnel_client *client,
                                          void (*event)(void *user, const tunnel_event *event),
                                          void *user);

/*
 * The two verbs: publish something and forward its visitors to an address, or publish it and
 * listen, that is, answer the visitors in the app itself.
 *
 * what:
 *   "http://NAME", "tls://NAME"  a name under the server's domain (a DNS label in lower case); "@"
 *                      the domain itself; "" a name of the server's choice, kept across reconnects;
 *                      "*.NAME" every name below NAME. tls is told by the name in the ClientHello
 *                      (RFC 6066 section 3), and its bytes pass untouched.
 *   "http://app.example.org", "tls://..."  a domain of one's own (with a dot; "*.example.org" all
 *                      below it), if the credential may
 *   "tcp://:PORT", "udp://:PORT"  a port of the server; PORT empty or 0: one of the server's
 *                      choice, kept across reconnects
 * options may be NULL; they are copied. *tunnel (may be NULL) gets the tunnel's id, from 1. May be
 * called before and after start.
 *
 * upstream:
 *   "3000", "host:3000", "unix:/path"  an address (udp: no unix); for http and tcp also
 *                      "https://host:3000" (TLS). It need not be there yet: a WARNING tells when
 * the first visitor finds it missing, and again after it was there in between. "ports:22,8000-8100"
 * http and tls: the name pPORT.NAME reaches that port of this host, for the ports given here and no
 * others "files:/folder"    http: answers from a folder, which must be there
 *
 * Both return 0, TUNNEL_E_NOMEM, LIMIT (64 tunnels), STATE (closed), or INVALID, NAME_INVALID,
 * NOT_FOUND, ACCESS, CERTIFICATE with a line in detail (may be NULL).
 */
TUNNEL_EXPORT int tunnel_client_forward(tunnel_client *client, const char *what,
                                        const char *upstream, const tunnel_options *options,
                                        uint64_t *tunnel, char *detail, size_t detail_size);

/* http, tls and tcp. Each visitor's connection (http: each connection that the server uses for
 * requests, as RFC 9112 tells) is a stream: visitor() brings its id, see tunnel/stream.h. A stream
 * that has no tunnel_stream_on_data() when visitor() returns is reset. */
TUNNEL_EXPORT int tunnel_client_listen(tunnel_client *client, const char *what,
                                       const tunnel_options *options,
                                       void (*visitor)(void *user, uint64_t stream), void *user,
                                       uint64_t *tunnel, char *detail, size_t detail_size);

/* udp. Each visitor's address is a flow; datagram() brings what it sent (n: 0 to 65507 bytes, good
 * during the call). Answer with tunnel_datagram_send(). */
TUNNEL_EXPORT int tunnel_client_listen_datagrams(
    tunnel_client *client, const char *what, const tunnel_options *options,
    void (*datagram)(void *user, uint64_t tunnel, uint64_t flow, const void *p, size_t n),
    void *user, uint64_t *tunnel, char *detail, size_t detail_size);

/* Ends one tunnel: no visitor comes any more. Streams that are open go on to their ends, the flows
 * of a udp tunnel are gone at once. 0 or TUNNEL_E_NOT_FOUND (a stale id is fine). */
TUNNEL_EXPORT int tunnel_client_unpublish(tunnel_client *client, uint64_t tunnel);

/* Connects, and reconnects for ever unless something is final. 0 or TUNNEL_E_STATE (started or
 * closed already). */
TUNNEL_EXPORT int tunnel_client_start(tunnel_client *client);

/*
 * Leaves politely: no new visitors come, what is under way goes on to its end, for timeout_ms at
 * most (0 to 86400000), then it is as after tunnel_client_close(), which may still be called to
 * make it short (its own callback is ignored then). A client without streams leaves at once. A
 * second call is a no-op.
 */
TUNNEL_EXPORT void tunnel_client_drain(tunnel_client *client, uint32_t timeout_ms,
                                       void (*closed)(void *user), void *user);

/*
 * Ends everything and frees the client: `closed` comes exactly once, later, on the loop; the
 * pointer is invalid then. NULL client is fine (no callback). A second call is a no-op.
 */
TUNNEL_EXPORT void tunnel_client_close(tunnel_client *client, void (*closed)(void *user),
                                       void *user);

#ifdef __cplusplus
}
#endif

#endif
