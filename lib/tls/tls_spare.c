/* SPDX-License-Identifier: Apache-2.0 */
#define MBEDTLS_ALLOW_PRIVATE_ACCESS
#include "tls/tls_spare.h"

#include <mbedtls/version.h>
#include <string.h>

#include "tunnel/error.h"

#if MBEDTLS_VERSION_NUMBER >= 0x03060000 && MBEDTLS_VERSION_NUMBER < 0x03070000 &&                 \
    !defined(MBEDTLS_SSL_VARIABLE_BUFFER_LENGTH)

enum { HEADER_AT = 8 }; /* where a record's header is: behind the counter */

/* mbedTLS alone knows how large they are: it allocates and frees them, as those of a connection
 * that is never used. */
static int pair_new(tnl_tls_pair *p, const mbedtls_ssl_config *conf)
{
    mbedtls_ssl_context donor;
    mbedtls_ssl_init(&donor);
    int rc = mbedtls_ssl_setup(&donor, conf);
    if (rc == 0) {
        *p = (tnl_tls_pair){donor.in_buf, donor.out_buf};
        donor.in_buf = donor.out_buf = NULL;
    }
    mbedtls_ssl_free(&donor);
    return rc ? TUNNEL_E_NOMEM : 0;
}

static void pair_free(tnl_tls_pair p)
{
    mbedtls_ssl_context heir;
    mbedtls_ssl_init(&heir);
    heir.in_buf = p.in;
    heir.out_buf = p.out;
    mbedtls_ssl_free(&heir);
}

static void move(unsigned char **p, uintptr_t from, unsigned char *to)
{
    if (*p)
        *p = to + ((uintptr_t)*p - from);
}

static bool is_idle(const mbedtls_ssl_context *ssl)
{
    return ssl->in_buf && ssl->out_buf && ssl->state == MBEDTLS_SSL_HANDSHAKE_OVER &&
           ssl->in_left == 0 && !ssl->in_offt && ssl->in_hslen == 0 &&
           ssl->keep_current_message == 0 && ssl->out_left == 0 &&
           ssl->in_hdr == ssl->in_buf + HEADER_AT;
}

void tnl_tls_lend(tnl_tls_lent *l, mbedtls_ssl_context *ssl, tnl_tls_spares *s)
{
    if (l->is || !is_idle(ssl))
        return;
    tnl_tls_pair p = {ssl->in_buf, ssl->out_buf};
    memcpy(l->in_head, p.in, TNL_TLS_KEEP);
    memcpy(l->out_head, p.out, TNL_TLS_KEEP);
    l->in = (uintptr_t)p.in;
    l->out = (uintptr_t)p.out;
    l->is = true;
    ssl->in_buf = ssl->out_buf = NULL;
    if (s->count < TNL_TLS_SPARES)
        s->pairs[s->count++] = p;
    else
        pair_free(p);
}

int tnl_tls_regain(tnl_tls_lent *l, mbedtls_ssl_context *ssl, tnl_tls_spares *s,
                   const mbedtls_ssl_config *conf)
{
    tnl_tls_pair p;
    if (!l->is)
        return 0;
    if (s->count)
        p = s->pairs[--s->count];
    else if (pair_new(&p, conf))
        return TUNNEL_E_NOMEM;
    memcpy(p.in, l->in_head, TNL_TLS_KEEP);
    memcpy(p.out, l->out_head, TNL_TLS_KEEP);
    move(&ssl->in_ctr, l->in, p.in);
    move(&ssl->in_hdr, l->in, p.in);
    move(&ssl->in_len, l->in, p.in);
    move(&ssl->in_iv, l->in, p.in);
    move(&ssl->in_msg, l->in, p.in);
    move(&ssl->out_ctr, l->out, p.out);
    move(&ssl->out_hdr, l->out, p.out);
    move(&ssl->out_len, l->out, p.out);
    move(&ssl->out_iv, l->out, p.out);
    move(&ssl->out_msg, l->out, p.out);
#if defined(MBEDTLS_SSL_DTLS_CONNECTION_ID)
    move(&ssl->in_cid, l->in, p.in);
    move(&ssl->out_cid, l->out, p.out);
#endif
    ssl->in_buf = p.in;
    ssl->out_buf = p.out;
    l->is = false;
    return 0;
}

void tnl_tls_spares_free(tnl_tls_spares *s)
{
    while (s->count)
        pair_free(s->pairs[--s->count]);
}

bool tnl_tls_lends(void)
{
    return true;
}

#else

bool tnl_tls_lends(void)
{
    return false;
}

void tnl_tls_lend(tnl_tls_lent *l, mbedtls_ssl_context *ssl, tnl_tls_spares *s)
{
    (void)l;
    (void)ssl;
    (void)s;
}

int tnl_tls_regain(tnl_tls_lent *l, mbedtls_ssl_context *ssl, tnl_tls_spares *s,
                   const mbedtls_ssl_config *conf)
{
    (void)l;
    (void)ssl;
    (void)s;
    (void)conf;
    return 0;
}

void tnl_tls_spares_free(tnl_tls_spares *s)
{
    (void)s;
}

#endif
