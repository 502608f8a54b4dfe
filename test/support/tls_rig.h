/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_SUPPORT_TLS_RIG_H
#define TEST_SUPPORT_TLS_RIG_H

#include "support/certs.h"
#include "support/peer.h"
#include "tls/tls_internal.h"

/*
 * Made once for all tests of a program (group set-up and tear-down): an authority "ca", what it
 * signed ("a", "b" with RSA, "wild", "cn", "old", "future"), and what it did not ("stranger",
 * "exact-stranger").
 */
extern test_certs tls_rig_certs;
int tls_rig_make_certs(void **state);
int tls_rig_remove_certs(void **state);
/* The path of BASE END, as test_certs_path(). */
const char *tls_rig_path(const char *base, const char *end);
void tls_rig_add(tnl_tls_server *s, const char *base);

/* A client and a server over two connected sockets. */
typedef struct tls_rig {
    test_loop l;
    tnl_tls_server *server;
    tnl_tls_client *client;
    test_peer c, s;
    test_peer lower_c, lower_s;
} tls_rig;

/* cert: the server's, or NULL for none yet; ca: what the client trusts, or NULL not to verify. */
void tls_rig_open(tls_rig *r, const char *cert, const char *ca);
void tls_rig_connect(tls_rig *r, const char *name);
void tls_rig_close(tls_rig *r);

tnl_tls_ctx *tls_rig_ctx(void *context);
/* Lets the server speak that version alone. */
void tls_rig_only(tls_rig *r, mbedtls_ssl_protocol_version version);
extern const mbedtls_ssl_protocol_version tls_rig_versions[2];

/* On the heap, with "a" and its handshake done; tls_rig_free() closes it too. */
tls_rig *tls_rig_ready(mbedtls_ssl_protocol_version version);
void tls_rig_free(tls_rig *r);

#endif
