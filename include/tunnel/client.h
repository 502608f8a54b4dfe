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

/* --- tunnels ---------------------------------------------------------------------------------- */

/* Options of one tunnel. The same rules for setters as above; the error line is
 * tunnel_options_error(). */
typedef struct tunnel_options tunnel_options;

TUNNEL_EXPORT int tunnel_options_new(tunnel_options **out);
TUNNEL_EXPORT void tunnel_options_free(tunnel_options *options);
TUNNEL_EXPORT const char *tunnel_options_error(const tunnel_options *options);
/* Replaces the Host header toward the local service (at most 255 bytes, a valid Host value). */
TUNNEL_EXPORT int tunnel_options_set_host_header(tunnel_options *options, const char *value);
/* A PEM file to verify an https upstream against. */
TUNNEL_EXPORT int tunnel_options_set_upstream_ca_file(tunnel_options *options, const char *path);

/* --- client ----------------------------------------------------------------------------------- */

typedef struct tunnel_client tunnel_client;

/*
 * Makes a client on a loop; it does nothing before tunnel_client_start(). The configuration is
 * copied. Returns 0, TUNNEL_E_NOMEM, or TUNNEL_E_INVALID, NOT_FOUND, CERTIFICATE with a line in
 * detail (may be NULL): no server set, plain ws to a host that is not loopback, an unreadable CA
 * file.
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
 * Publishes a name and forwards its visitors to an address. what: "http://NAME" (a DNS label),
 * "http://@" (the root domain), "http://" (a name of the server's choice, kept across reconnects).
 * upstream: "3000", "host:3000", "unix:/path", "https://host:3000". options may be NULL; they are
 * copied. *tunnel (may be NULL) gets the tunnel's id, from 1. May be called before and after start.
 * Returns 0, TUNNEL_E_NOMEM, LIMIT (64 tunnels), or INVALID, NAME_INVALID, NOT_FOUND, CERTIFICATE
 * with a line in detail (may be NULL).
 */
TUNNEL_EXPORT int tunnel_client_forward(tunnel_client *client, const char *what,
                                        const char *upstream, const tunnel_options *options,
                                        uint64_t *tunnel, char *detail, size_t detail_size);

/* Ends one tunnel: unpublishes it, its streams end. 0 or TUNNEL_E_NOT_FOUND (a stale id is fine).
 */
TUNNEL_EXPORT int tunnel_client_unpublish(tunnel_client *client, uint64_t tunnel);

/* Connects, and reconnects for ever unless something is final. 0 or TUNNEL_E_STATE (started or
 * closed already). */
TUNNEL_EXPORT int tunnel_client_start(tunnel_client *client);

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
