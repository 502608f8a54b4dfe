/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_TLS_TLS_INTERNAL_H
#define TNL_TLS_TLS_INTERNAL_H

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/pk.h>
#include <mbedtls/ssl.h>
#include <mbedtls/x509_crt.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "tls/tls.h"
#include "tls/tls_spare.h"

enum {
    TNL_TLS_DETAIL = 256,
    /* Read from the lower connection at once, and records collected before they are written. */
    TNL_TLS_CHUNK = 64 * 1024,
    TNL_TLS_HANDSHAKE_MS = 10000,
};

/*
 * What both kinds of contexts have in common: the first member of each. The two buffers serve all
 * connections of the context in turn, so that an idle one owns none: `rx` holds what was just read
 * while it is decrypted, `tx` is lent to the connection that writes. So are mbedTLS's own,
 * `spares`.
 */
typedef struct tnl_tls_ctx {
    size_t refs;
    void (*destroy)(struct tnl_tls_ctx *ctx);
    mbedtls_entropy_context entropy;
    mbedtls_ctr_drbg_context drbg;
    mbedtls_ssl_config conf;
    uint64_t handshake_ms;
    uint8_t *rx;
    bool rx_busy;
    tnl_buf tx;
    tnl_tls_spares spares;
} tnl_tls_ctx;

/* 0 or a TUNNEL_E_ code; tnl_tls_ctx_free() is due in either case. endpoint: MBEDTLS_SSL_IS_... */
int tnl_tls_ctx_init(tnl_tls_ctx *ctx, int endpoint, void (*destroy)(tnl_tls_ctx *ctx));
/* ALPN "http/1.1". 0 or TUNNEL_E_NOMEM. */
int tnl_tls_ctx_http(tnl_tls_ctx *ctx);
void tnl_tls_ctx_free(tnl_tls_ctx *ctx);
void tnl_tls_ctx_unref(tnl_tls_ctx *ctx);

/* The TUNNEL_E_ code of an mbedTLS error during or after a handshake, and what to tell of it
 * (static text). */
int tnl_tls_error(int rc, bool handshake, const char **text);

/* Formats into detail (may be NULL) and returns error. */
int tnl_tls_say(char *detail, size_t size, int error, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Reads PEM files; one line in detail on failure. *chain and *key are initialised by the caller. */
int tnl_tls_load_chain(mbedtls_x509_crt *chain, const char *file, bool strict, char *detail,
                       size_t size);
int tnl_tls_load_key(mbedtls_pk_context *key, const char *file, tnl_tls_ctx *ctx, char *detail,
                     size_t size);

/* How well a certificate fits a DNS name in lower case: 2 by name, 1 by wildcard, 0 not. */
int tnl_tls_cert_fits(const mbedtls_x509_crt *cert, const char *name);
/* Whether it names the numeric address. */
bool tnl_tls_cert_has_address(const mbedtls_x509_crt *cert, const char *address);
bool tnl_tls_is_address(const char *host);
/* Its names, as many as fit: "a.example, b.example, ...". */
void tnl_tls_cert_names(const mbedtls_x509_crt *cert, char *out, size_t size);

/* What a client wants of the server's certificate, and in words what is wrong with it. */
typedef struct tnl_tls_verdict {
    char *address; /* the numeric address that it must name; NULL: mbedTLS checks the name */
    char *detail;  /* NULL: nothing wrong so far, or out of memory */
} tnl_tls_verdict;

/* Makes ssl check the certificate for server_name and tell *v. 0, TUNNEL_E_NOMEM or
 * TUNNEL_E_INVALID. */
int tnl_tls_verdict_expect(tnl_tls_verdict *v, mbedtls_ssl_context *ssl, const char *server_name);
void tnl_tls_verdict_free(tnl_tls_verdict *v);

/* The connection of an SSL context learns the SNI name. 0 or TUNNEL_E_NOMEM. */
int tnl_tls_conn_set_server_name(void *conn, const char *name);

#endif
