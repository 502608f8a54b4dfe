/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_TLS_TLS_SPARE_H
#define TNL_TLS_TLS_SPARE_H

#include <mbedtls/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * mbedTLS gives every connection two buffers of a record each, 33 KiB, for as long as it lives. One
 * that waits for its peer with no record begun has nothing in them but a counter: so it lends them
 * to those that are at work. All of a context's connections share a few.
 *
 * This reaches into mbedTLS's structure, whose members are private: it is written for 3.6 alone,
 * and elsewhere does nothing.
 */
enum { TNL_TLS_SPARES = 16, TNL_TLS_KEEP = 32 };

typedef struct tnl_tls_pair {
    unsigned char *in;
    unsigned char *out;
} tnl_tls_pair;

/* A context's. All zeros: none. */
typedef struct tnl_tls_spares {
    tnl_tls_pair pairs[TNL_TLS_SPARES];
    size_t count;
} tnl_tls_spares;

/* What a connection without buffers knows of them. */
typedef struct tnl_tls_lent {
    bool is; /* lent: nothing but freeing may be done with the connection */
    uintptr_t in;
    uintptr_t out;
    unsigned char in_head[TNL_TLS_KEEP];
    unsigned char out_head[TNL_TLS_KEEP];
} tnl_tls_lent;

/* Takes the connection's buffers away, if there is nothing in them and its handshake is over. */
void tnl_tls_lend(tnl_tls_lent *l, mbedtls_ssl_context *ssl, tnl_tls_spares *s);
/* Gives it some. 0 or TUNNEL_E_NOMEM; again: no-op. */
int tnl_tls_regain(tnl_tls_lent *l, mbedtls_ssl_context *ssl, tnl_tls_spares *s,
                   const mbedtls_ssl_config *conf);
/* Whether this is a library that it is written for. */
bool tnl_tls_lends(void);
/* Frees all that are there. */
void tnl_tls_spares_free(tnl_tls_spares *s);

#endif
