/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mem.h"
#include "tls/tls_internal.h"
#include "tunnel/error.h"

struct tnl_tls_client {
    tnl_tls_ctx ctx; /* first */
    mbedtls_x509_crt authorities;
};

/* Debian and Alpine, Fedora, RHEL, openSUSE, OpenSSL's default, FreeBSD. */
static const char *const stores[] = {
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
};

static void destroy(tnl_tls_ctx *ctx)
{
    tnl_tls_client *c = (tnl_tls_client *)ctx;
    tnl_tls_ctx_free(ctx);
    mbedtls_x509_crt_free(&c->authorities);
    tnl_free(c);
}

static int load_authorities(tnl_tls_client *c, const char *ca_file, char *detail, size_t size)
{
    if (ca_file)
        return tnl_tls_load_chain(&c->authorities, ca_file, true, detail, size);
    for (size_t i = 0; i < sizeof(stores) / sizeof(stores[0]); i++) {
        /* Single certificates of a system's store that mbedTLS does not know are left out. */
        int rc = tnl_tls_load_chain(&c->authorities, stores[i], false, detail, size);
        if (rc != TUNNEL_E_NOT_FOUND)
            return rc;
    }
    return tnl_tls_say(detail, size, TUNNEL_E_NOT_FOUND,
                       "this system has no store of certificate authorities; install "
                       "ca-certificates, or name a CA file");
}

int tnl_tls_client_new(tnl_tls_client **out, const char *ca_file, bool verify, char *detail,
                       size_t size)
{
    *out = NULL;
    tnl_tls_client *c = tnl_calloc(1, sizeof(*c));
    if (!c)
        return tnl_tls_say(detail, size, TUNNEL_E_NOMEM, "out of memory");
    mbedtls_x509_crt_init(&c->authorities);
    int rc = tnl_tls_ctx_init(&c->ctx, MBEDTLS_SSL_IS_CLIENT, destroy);
    if (rc == 0)
        rc = tnl_tls_ctx_http(&c->ctx);
    if (rc)
        tnl_tls_say(detail, size, rc, "%s", tunnel_strerror(rc));
    if (rc == 0 && verify)
        rc = load_authorities(c, ca_file, detail, size);
    if (rc) {
        destroy(&c->ctx);
        return rc;
    }
    mbedtls_ssl_conf_authmode(&c->ctx.conf,
                              verify ? MBEDTLS_SSL_VERIFY_REQUIRED : MBEDTLS_SSL_VERIFY_NONE);
    mbedtls_ssl_conf_ca_chain(&c->ctx.conf, &c->authorities, NULL);
    /* Without sessions to resume, tickets would only be asked for and dropped. */
    mbedtls_ssl_conf_session_tickets(&c->ctx.conf, MBEDTLS_SSL_SESSION_TICKETS_DISABLED);
    *out = c;
    return 0;
}

void tnl_tls_client_ref(tnl_tls_client *c)
{
    c->ctx.refs++;
}

void tnl_tls_client_unref(tnl_tls_client *c)
{
    if (c)
        tnl_tls_ctx_unref(&c->ctx);
}
