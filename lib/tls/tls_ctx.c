/* SPDX-License-Identifier: Apache-2.0 */
#include <mbedtls/error.h>
#include <mbedtls/ssl_ciphersuites.h>
#include <psa/crypto.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "tls/tls_internal.h"
#include "tunnel/error.h"

/*
 * Forward secrecy and authenticated encryption only. ChaCha20-Poly1305 comes first as the faster
 * one within mbedTLS; it is the server's choice in TLS 1.2 and the client's in 1.3.
 */
static const int suites[] = {
    MBEDTLS_TLS1_3_CHACHA20_POLY1305_SHA256,
    MBEDTLS_TLS1_3_AES_128_GCM_SHA256,
    MBEDTLS_TLS1_3_AES_256_GCM_SHA384,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    MBEDTLS_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    0,
};

static const uint16_t groups[] = {
    MBEDTLS_SSL_IANA_TLS_GROUP_X25519,    MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1,
    MBEDTLS_SSL_IANA_TLS_GROUP_SECP384R1, MBEDTLS_SSL_IANA_TLS_GROUP_SECP521R1,
    MBEDTLS_SSL_IANA_TLS_GROUP_NONE,
};

int tnl_tls_ctx_init(tnl_tls_ctx *ctx, int endpoint, void (*destroy)(tnl_tls_ctx *ctx))
{
    static const unsigned char label[] = "libtunnel tls";
    ctx->refs = 1;
    ctx->destroy = destroy;
    ctx->handshake_ms = TNL_TLS_HANDSHAKE_MS;
    tnl_buf_init(&ctx->tx, 2 * TNL_TLS_CHUNK);
    mbedtls_entropy_init(&ctx->entropy);
    mbedtls_ctr_drbg_init(&ctx->drbg);
    mbedtls_ssl_config_init(&ctx->conf);
    /* TLS 1.3 needs it; it may be called any number of times and from several threads. */
    if (psa_crypto_init() != PSA_SUCCESS)
        return TUNNEL_E_TLS;
    if (mbedtls_ctr_drbg_seed(&ctx->drbg, mbedtls_entropy_func, &ctx->entropy, label,
                              sizeof(label) - 1))
        return TUNNEL_E_TLS;
    if (mbedtls_ssl_config_defaults(&ctx->conf, endpoint, MBEDTLS_SSL_TRANSPORT_STREAM,
                                    MBEDTLS_SSL_PRESET_DEFAULT))
        return TUNNEL_E_NOMEM;
    mbedtls_ssl_config *conf = &ctx->conf;
    mbedtls_ssl_conf_rng(conf, mbedtls_ctr_drbg_random, &ctx->drbg);
    mbedtls_ssl_conf_min_tls_version(conf, MBEDTLS_SSL_VERSION_TLS1_2);
    mbedtls_ssl_conf_max_tls_version(conf, MBEDTLS_SSL_VERSION_TLS1_3);
    mbedtls_ssl_conf_tls13_key_exchange_modes(
        conf, MBEDTLS_SSL_TLS1_3_KEY_EXCHANGE_MODE_EPHEMERAL |
                  MBEDTLS_SSL_TLS1_3_KEY_EXCHANGE_MODE_PSK_EPHEMERAL);
    mbedtls_ssl_conf_ciphersuites(conf, suites);
    mbedtls_ssl_conf_groups(conf, groups);
    mbedtls_ssl_conf_renegotiation(conf, MBEDTLS_SSL_RENEGOTIATION_DISABLED);
    return 0;
}

int tnl_tls_ctx_http(tnl_tls_ctx *ctx)
{
    static const char *const alpn[] = {"http/1.1", NULL};
    /* mbedTLS only reads the list, though its type does not say so. */
    return mbedtls_ssl_conf_alpn_protocols(&ctx->conf, (const char **)(uintptr_t)alpn)
               ? TUNNEL_E_NOMEM
               : 0;
}

void tnl_tls_ctx_free(tnl_tls_ctx *ctx)
{
    tnl_tls_spares_free(&ctx->spares);
    mbedtls_ssl_config_free(&ctx->conf);
    mbedtls_ctr_drbg_free(&ctx->drbg);
    mbedtls_entropy_free(&ctx->entropy);
    tnl_free(ctx->rx);
    tnl_buf_free(&ctx->tx);
}

void tnl_tls_ctx_unref(tnl_tls_ctx *ctx)
{
    if (ctx && --ctx->refs == 0)
        ctx->destroy(ctx);
}

int tnl_tls_error(int rc, bool handshake, const char **text)
{
    switch (rc) {
    case MBEDTLS_ERR_SSL_ALLOC_FAILED:
    case MBEDTLS_ERR_X509_ALLOC_FAILED:
    case MBEDTLS_ERR_MPI_ALLOC_FAILED:
        *text = tunnel_strerror(TUNNEL_E_NOMEM);
        return TUNNEL_E_NOMEM;
    case MBEDTLS_ERR_SSL_INVALID_RECORD:
    case MBEDTLS_ERR_SSL_UNEXPECTED_MESSAGE:
    case MBEDTLS_ERR_SSL_DECODE_ERROR:
    case MBEDTLS_ERR_SSL_UNEXPECTED_RECORD:
        *text = handshake ? "what came is not a TLS handshake; does the other end speak TLS here?"
                          : "what came is not a TLS record";
        return TUNNEL_E_TLS;
    case MBEDTLS_ERR_SSL_BAD_PROTOCOL_VERSION:
        *text = "the other end speaks neither TLS 1.2 nor TLS 1.3";
        return TUNNEL_E_TLS;
    case MBEDTLS_ERR_SSL_HANDSHAKE_FAILURE:
    case MBEDTLS_ERR_SSL_ILLEGAL_PARAMETER:
        *text = "no TLS settings in common with the other end";
        return TUNNEL_E_TLS;
    case MBEDTLS_ERR_SSL_NO_APPLICATION_PROTOCOL:
        *text = "the other end does not speak HTTP/1.1 (ALPN)";
        return TUNNEL_E_TLS;
    case MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE:
        *text = handshake ? "the other end refused the TLS handshake; most often it has no "
                            "certificate for this name, or does not trust the one it got"
                          : "the other end broke off with a TLS alert";
        return TUNNEL_E_TLS;
    case MBEDTLS_ERR_SSL_INVALID_MAC:
        *text = "a TLS record was damaged or forged on its way";
        return TUNNEL_E_TLS;
    case MBEDTLS_ERR_SSL_BAD_CERTIFICATE:
    case MBEDTLS_ERR_X509_CERT_VERIFY_FAILED:
        *text = "the certificate was not accepted";
        return TUNNEL_E_CERTIFICATE;
    default:
        *text = mbedtls_high_level_strerr(rc);
        if (!*text)
            *text = mbedtls_low_level_strerr(rc);
        if (!*text)
            *text = tunnel_strerror(TUNNEL_E_TLS);
        return TUNNEL_E_TLS;
    }
}

int tnl_tls_say(char *detail, size_t size, int error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (detail && size)
        vsnprintf(detail, size, format, args);
    va_end(args);
    return error;
}
