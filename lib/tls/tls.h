/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_TLS_TLS_H
#define TNL_TLS_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/conn.h"

/*
 * TLS 1.2 and 1.3 as a byte connection over a byte connection (mbedTLS). Contexts are reference
 * counted: connections made from one keep it alive, so that a reload can drop the old one at once.
 * A context and its connections belong to one loop.
 */

/* Server side: certificates by SNI, session tickets, ALPN "http/1.1". */
typedef struct tnl_tls_server tnl_tls_server;

int tnl_tls_server_new(tnl_tls_server **out);
/* The same for one that does not know which protocol is spoken within: ALPN is left unanswered (RFC
 * 7301 section 3.2), so that clients go on with what they speak without it instead of failing. */
int tnl_tls_server_new_any(tnl_tls_server **out);
/*
 * Adds a certificate chain and its key (PEM files). The names it answers for are its subjectAltName
 * DNS names (wildcards one label deep, RFC 6125 section 6.4.3), else its CN. The first one added is
 * the default when no SNI matches. Errors NOT_FOUND, ACCESS, CERTIFICATE (unreadable, or the key
 * does not belong to it), NOMEM with one line in detail that names the file and says how to mend
 * it.
 */
int tnl_tls_server_add(tnl_tls_server *s, const char *cert_file, const char *key_file, char *detail,
                       size_t size);
/* Whether one of its certificates is for that DNS name (lower case). */
bool tnl_tls_server_covers(const tnl_tls_server *s, const char *name);
void tnl_tls_server_ref(tnl_tls_server *s);
void tnl_tls_server_unref(tnl_tls_server *s);

/*
 * Client side: verification against ca_file (PEM) or, when NULL, the system's store; verify false:
 * no verification. Errors NOT_FOUND, ACCESS, CERTIFICATE, NOMEM with one line in detail.
 */
typedef struct tnl_tls_client tnl_tls_client;

int tnl_tls_client_new(tnl_tls_client **out, const char *ca_file, bool verify, char *detail,
                       size_t size);
void tnl_tls_client_ref(tnl_tls_client *c);
void tnl_tls_client_unref(tnl_tls_client *c);

enum { TNL_TLS_MAX_EARLY = 64 * 1024 };

/*
 * Starts TLS on `lower`, which is taken over (also on failure, when it is closed). `early`: bytes
 * already read from it, at most TNL_TLS_MAX_EARLY, copied. events->ready() comes when the handshake
 * is done; a failure is closed() with TUNNEL_E_TLS or TUNNEL_E_CERTIFICATE and a detail such as
 * "the certificate expired on 2024-05-01"; one that lies in the network is told as such
 * (TUNNEL_E_EOF, RESET, TIMEOUT). The handshake starts at the end of this turn and has 10 s; whole
 * flights are written at once. Reading starts with tnl_conn_resume() as ever; the handshake itself
 * needs none.
 *
 * eof() is the peer's close_notify, and tnl_conn_shutdown() sends ours and then ends the lower
 * connection's direction. The lower connection's end without close_notify may be an attacker's
 * truncation: closed() with TUNNEL_E_RESET. tnl_conn_close() sends no close_notify, so that a cut
 * answer is not taken for a whole one. tnl_conn_pending() counts what waits in the lower queue, a
 * little more than was written.
 */
int tnl_tls_accept(tnl_conn **out, tnl_tls_server *s, tnl_conn *lower, const uint8_t *early,
                   size_t n, const tnl_conn_events *ev, void *user);
/* server_name: for SNI and verification (a numeric address is verified as such and sent no SNI). */
int tnl_tls_connect(tnl_conn **out, tnl_tls_client *c, tnl_conn *lower, const char *server_name,
                    const tnl_conn_events *ev, void *user);

/* The SNI name of an accepted connection, lower case; "" without. Valid as long as the connection.
 */
const char *tnl_tls_server_name(const tnl_conn *c);

#endif
