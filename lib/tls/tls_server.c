/* SPDX-License-Identifier: Apache-2.0 */
#include <mbedtls/ssl_ticket.h>
#include <string.h>

#include "base/mem.h"
#include "tls/tls_internal.h"
#include "tunnel/error.h"

enum {
    MAX_CERTIFICATES = 1024,
    MAX_NAME = 255,
    TICKET_SECONDS = 24 * 3600,
};

typedef struct certificate {
    mbedtls_x509_crt chain;
    mbedtls_pk_context key;
} certificate;

struct tnl_tls_server {
    tnl_tls_ctx ctx; /* first */
    mbedtls_ssl_ticket_context tickets;
    certificate **certificates; /* by pointer: mbedTLS keeps the addresses */
    size_t count;
};

static void free_certificate(certificate *c)
{
    mbedtls_x509_crt_free(&c->chain);
    mbedtls_pk_free(&c->key);
    tnl_free(c);
}

static void destroy(tnl_tls_ctx *ctx)
{
    tnl_tls_server *s = (tnl_tls_server *)ctx;
    mbedtls_ssl_ticket_free(&s->tickets);
    tnl_tls_ctx_free(ctx);
    for (size_t i = 0; i < s->count; i++)
        free_certificate(s->certificates[i]);
    tnl_free(s->certificates);
    tnl_free(s);
}

/* What is no host name is treated as if it had not been sent. */
static bool normalise(char *out, const unsigned char *name, size_t n)
{
    if (n && name[n - 1] == '.')
        n--;
    if (n == 0 || n > MAX_NAME)
        return false;
    for (size_t i = 0; i < n; i++) {
        unsigned char ch = name[i];
        if (ch >= 'A' && ch <= 'Z')
            ch = (unsigned char)(ch + ('a' - 'A'));
        if (!((ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9') || strchr("-_.", ch)) || ch == 0)
            return false;
        out[i] = (char)ch;
    }
    out[n] = '\0';
    return true;
}

/* All certificates that fit equally well are offered, so that a client without ECDSA finds the RSA
 * one. */
static int on_server_name(void *user, mbedtls_ssl_context *ssl, const unsigned char *p, size_t n)
{
    tnl_tls_server *s = user;
    char name[MAX_NAME + 1];
    int best = 0;
    if (!normalise(name, p, n))
        return 0;
    if (tnl_tls_conn_set_server_name(mbedtls_ssl_get_user_data_p(ssl), name))
        return MBEDTLS_ERR_SSL_ALLOC_FAILED;
    for (size_t i = 0; i < s->count; i++) {
        int f = tnl_tls_cert_fits(&s->certificates[i]->chain, name);
        if (f > best)
            best = f;
    }
    for (size_t i = 0; best && i < s->count; i++) {
        certificate *c = s->certificates[i];
        if (tnl_tls_cert_fits(&c->chain, name) != best)
            continue;
        int rc = mbedtls_ssl_set_hs_own_cert(ssl, &c->chain, &c->key);
        if (rc)
            return rc;
    }
    return 0;
}

bool tnl_tls_server_covers(const tnl_tls_server *s, const char *name)
{
    for (size_t i = 0; i < s->count; i++)
        if (tnl_tls_cert_fits(&s->certificates[i]->chain, name))
            return true;
    return false;
}

static int make(tnl_tls_server **out, bool http)
{
    *out = NULL;
    tnl_tls_server *s = tnl_calloc(1, sizeof(*s));
    if (!s)
        return TUNNEL_E_NOMEM;
    mbedtls_ssl_ticket_init(&s->tickets);
    int rc = tnl_tls_ctx_init(&s->ctx, MBEDTLS_SSL_IS_SERVER, destroy);
    if (rc == 0 && http)
        rc = tnl_tls_ctx_http(&s->ctx);
    if (rc == 0 && mbedtls_ssl_ticket_setup(&s->tickets, mbedtls_ctr_drbg_random, &s->ctx.drbg,
                                            MBEDTLS_CIPHER_AES_256_GCM, TICKET_SECONDS))
        rc = TUNNEL_E_NOMEM;
    if (rc) {
        destroy(&s->ctx);
        return rc;
    }
    mbedtls_ssl_conf_session_tickets_cb(&s->ctx.conf, mbedtls_ssl_ticket_write,
                                        mbedtls_ssl_ticket_parse, &s->tickets);
    mbedtls_ssl_conf_sni(&s->ctx.conf, on_server_name, s);
    *out = s;
    return 0;
}

int tnl_tls_server_new(tnl_tls_server **out)
{
    return make(out, true);
}

int tnl_tls_server_new_any(tnl_tls_server **out)
{
    return make(out, false);
}

static int load(tnl_tls_server *s, certificate *c, const char *cert_file, const char *key_file,
                char *detail, size_t size)
{
    int rc = tnl_tls_load_chain(&c->chain, cert_file, true, detail, size);
    if (rc == 0)
        rc = tnl_tls_load_key(&c->key, key_file, &s->ctx, detail, size);
    if (rc)
        return rc;
    if (mbedtls_pk_check_pair(&c->chain.pk, &c->key, mbedtls_ctr_drbg_random, &s->ctx.drbg))
        return tnl_tls_say(detail, size, TUNNEL_E_CERTIFICATE,
                           "%s is not the key of the first certificate in %s", key_file, cert_file);
    return 0;
}

int tnl_tls_server_add(tnl_tls_server *s, const char *cert_file, const char *key_file, char *detail,
                       size_t size)
{
    if (s->count == MAX_CERTIFICATES)
        return tnl_tls_say(detail, size, TUNNEL_E_LIMIT, "%s: more than %d certificates", cert_file,
                           MAX_CERTIFICATES);
    certificate *c = tnl_calloc(1, sizeof(*c));
    if (!c)
        return tnl_tls_say(detail, size, TUNNEL_E_NOMEM, "%s: out of memory", cert_file);
    mbedtls_x509_crt_init(&c->chain);
    mbedtls_pk_init(&c->key);
    int rc = load(s, c, cert_file, key_file, detail, size);
    if (rc)
        goto fail;
    certificate **more = tnl_realloc(s->certificates, (s->count + 1) * sizeof(*more));
    if (more)
        s->certificates = more;
    if (!more || (s->count == 0 && mbedtls_ssl_conf_own_cert(&s->ctx.conf, &c->chain, &c->key))) {
        rc = tnl_tls_say(detail, size, TUNNEL_E_NOMEM, "%s: out of memory", cert_file);
        goto fail;
    }
    s->certificates[s->count++] = c;
    return 0;

fail:
    free_certificate(c);
    return rc;
}

void tnl_tls_server_ref(tnl_tls_server *s)
{
    s->ctx.refs++;
}

void tnl_tls_server_unref(tnl_tls_server *s)
{
    if (s)
        tnl_tls_ctx_unref(&s->ctx);
}
