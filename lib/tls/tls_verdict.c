/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "tls/tls_internal.h"
#include "tunnel/error.h"

enum { MAX_NAME = 255 };

static void say(tnl_tls_verdict *v, const mbedtls_x509_crt *cert, uint32_t flags)
{
    char text[TNL_TLS_DETAIL], names[128];
    tnl_tls_cert_names(cert, names, sizeof(names));
    if (flags & MBEDTLS_X509_BADCERT_EXPIRED)
        snprintf(text, sizeof(text), "the certificate of %s expired on %04d-%02d-%02d", names,
                 cert->valid_to.year, cert->valid_to.mon, cert->valid_to.day);
    else if (flags & MBEDTLS_X509_BADCERT_FUTURE)
        snprintf(text, sizeof(text),
                 "the certificate of %s is valid only from %04d-%02d-%02d; is the clock right?",
                 names, cert->valid_from.year, cert->valid_from.mon, cert->valid_from.day);
    else if (flags & MBEDTLS_X509_BADCERT_CN_MISMATCH)
        snprintf(text, sizeof(text), "the certificate is for another name (%s)", names);
    else if (flags & MBEDTLS_X509_BADCERT_NOT_TRUSTED)
        snprintf(text, sizeof(text),
                 "the certificate of %s is not signed by an authority trusted here", names);
    else
        snprintf(text, sizeof(text), "the certificate of %s is too weak or not meant for this use",
                 names);
    tnl_free(v->detail);
    v->detail = tnl_strdup(text);
}

/* Called for each certificate of a chain, the server's own last and at depth 0. */
static int on_verify(void *user, mbedtls_x509_crt *cert, int depth, uint32_t *flags)
{
    tnl_tls_verdict *v = user;
    if (depth == 0 && v->address && !tnl_tls_cert_has_address(cert, v->address))
        *flags |= MBEDTLS_X509_BADCERT_CN_MISMATCH;
    if (*flags)
        say(v, cert, *flags);
    return 0;
}

int tnl_tls_verdict_expect(tnl_tls_verdict *v, mbedtls_ssl_context *ssl, const char *server_name)
{
    char name[MAX_NAME + 1];
    size_t n = strlen(server_name);
    if (n && server_name[n - 1] == '.')
        n--;
    if (n == 0 || n > MAX_NAME)
        return TUNNEL_E_INVALID;
    memcpy(name, server_name, n);
    name[n] = '\0';
    bool address = tnl_tls_is_address(name);
    if (address) {
        v->address = tnl_strdup(name);
        if (!v->address)
            return TUNNEL_E_NOMEM;
    }
    mbedtls_ssl_set_verify(ssl, on_verify, v);
    /* A host name is sent as SNI, which must not hold an address (RFC 6066 section 3). */
    return mbedtls_ssl_set_hostname(ssl, address ? NULL : name) ? TUNNEL_E_NOMEM : 0;
}

void tnl_tls_verdict_free(tnl_tls_verdict *v)
{
    tnl_free(v->address);
    tnl_free(v->detail);
}
