/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <mbedtls/oid.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "tls/tls_internal.h"
#include "tunnel/error.h"

enum { MAX_FILE = 8 * 1024 * 1024 };

/* --- files ------------------------------------------------------------------------------------ */

static int explain_errno(const char *file, int number, char *detail, size_t size)
{
    switch (number) {
    case ENOENT:
    case ENOTDIR:
        return tnl_tls_say(detail, size, TUNNEL_E_NOT_FOUND, "%s: no such file", file);
    case EACCES:
    case EPERM:
        return tnl_tls_say(detail, size, TUNNEL_E_ACCESS,
                           "%s: not readable for this user; check its permissions", file);
    case EISDIR:
        return tnl_tls_say(detail, size, TUNNEL_E_CERTIFICATE, "%s: a directory, not a PEM file",
                           file);
    case ENOMEM:
        return tnl_tls_say(detail, size, TUNNEL_E_NOMEM, "%s: out of memory", file);
    default:
        return tnl_tls_say(detail, size, TUNNEL_E_CERTIFICATE, "%s: cannot be read", file);
    }
}

/* The whole file with a NUL at its end, which mbedTLS's PEM parser wants; *n counts it. */
static int read_file(const char *file, uint8_t **out, size_t *n, char *detail, size_t size)
{
    tnl_buf b;
    tnl_buf_init(&b, MAX_FILE);
    *out = NULL;
    FILE *f = fopen(file, "rbe");
    if (!f)
        return explain_errno(file, errno, detail, size);
    int rc = 0;
    for (;;) {
        uint8_t *p = tnl_buf_reserve(&b, 4096);
        if (!p) {
            rc = tnl_tls_say(detail, size, TUNNEL_E_CERTIFICATE, "%s: too big for a PEM file",
                             file);
            break;
        }
        size_t got = fread(p, 1, 4096, f);
        tnl_buf_commit(&b, got);
        if (got == 4096)
            continue;
        if (ferror(f))
            rc = explain_errno(file, errno, detail, size);
        else if (tnl_buf_add(&b, "", 1))
            rc = explain_errno(file, ENOMEM, detail, size);
        break;
    }
    fclose(f);
    if (rc) {
        tnl_buf_free(&b);
        return rc;
    }
    *out = b.data;
    *n = tnl_buf_len(&b);
    return 0;
}

static void free_file(uint8_t *data, size_t n)
{
    if (data)
        tnl_wipe(data, n);
    tnl_free(data);
}

int tnl_tls_load_chain(mbedtls_x509_crt *chain, const char *file, bool strict, char *detail,
                       size_t size)
{
    uint8_t *data;
    size_t n = 0;
    int rc = read_file(file, &data, &n, detail, size);
    if (!data)
        return rc;
    int bad = mbedtls_x509_crt_parse(chain, data, n);
    if (bad == MBEDTLS_ERR_X509_ALLOC_FAILED)
        rc = tnl_tls_say(detail, size, TUNNEL_E_NOMEM, "%s: out of memory", file);
    else if (bad < 0 && strstr((const char *)data, "PRIVATE KEY-----"))
        rc = tnl_tls_say(detail, size, TUNNEL_E_CERTIFICATE,
                         "%s: a private key, not a certificate; are the two files exchanged?",
                         file);
    else if (bad < 0)
        rc = tnl_tls_say(detail, size, TUNNEL_E_CERTIFICATE, "%s: not a certificate in PEM form",
                         file);
    else if (bad > 0 && strict)
        rc = tnl_tls_say(detail, size, TUNNEL_E_CERTIFICATE,
                         "%s: %d of its certificates cannot be read", file, bad);
    free_file(data, n);
    return rc;
}

int tnl_tls_load_key(mbedtls_pk_context *key, const char *file, tnl_tls_ctx *ctx, char *detail,
                     size_t size)
{
    uint8_t *data;
    size_t n = 0;
    int rc = read_file(file, &data, &n, detail, size);
    if (!data)
        return rc;
    int bad = mbedtls_pk_parse_key(key, data, n, NULL, 0, mbedtls_ctr_drbg_random, &ctx->drbg);
    if (bad == MBEDTLS_ERR_PK_PASSWORD_REQUIRED || bad == MBEDTLS_ERR_PK_PASSWORD_MISMATCH)
        rc = tnl_tls_say(detail, size, TUNNEL_E_CERTIFICATE,
                         "%s: the key has a pass phrase; remove it with `openssl pkey`", file);
    else if (bad && strstr((const char *)data, "BEGIN CERTIFICATE"))
        rc = tnl_tls_say(detail, size, TUNNEL_E_CERTIFICATE,
                         "%s: a certificate, not a private key; are the two files exchanged?",
                         file);
    else if (bad)
        rc = tnl_tls_say(detail, size, TUNNEL_E_CERTIFICATE, "%s: not a private key in PEM form",
                         file);
    free_file(data, n);
    return rc;
}

/* --- names ------------------------------------------------------------------------------------ */

/* 2, 1 or 0 as tnl_tls_cert_fits(), for one name of a certificate. */
static int fits(const char *pattern, size_t n, const char *name)
{
    size_t len = strlen(name);
    if (n == len && strncasecmp(pattern, name, n) == 0)
        return 2;
    if (n < 3 || pattern[0] != '*' || pattern[1] != '.')
        return 0;
    const char *rest = strchr(name, '.');
    if (!rest || rest == name)
        return 0;
    return strlen(rest) == n - 1 && strncasecmp(pattern + 1, rest, n - 1) == 0;
}

static bool is_kind(const mbedtls_x509_sequence *san, int kind)
{
    return (san->buf.tag & MBEDTLS_ASN1_TAG_VALUE_MASK) == kind && san->buf.p;
}

int tnl_tls_cert_fits(const mbedtls_x509_crt *cert, const char *name)
{
    int best = 0;
    bool has_names = false;
    for (const mbedtls_x509_sequence *san = &cert->subject_alt_names; san; san = san->next) {
        if (!is_kind(san, MBEDTLS_X509_SAN_DNS_NAME))
            continue;
        has_names = true;
        int f = fits((const char *)san->buf.p, san->buf.len, name);
        if (f > best)
            best = f;
    }
    if (has_names)
        return best;
    for (const mbedtls_x509_name *n = &cert->subject; n; n = n->next) {
        if (n->oid.p && MBEDTLS_OID_CMP(MBEDTLS_OID_AT_CN, &n->oid) == 0)
            best = fits((const char *)n->val.p, n->val.len, name);
    }
    return best;
}

bool tnl_tls_is_address(const char *host)
{
    uint32_t bytes[4];
    return mbedtls_x509_crt_parse_cn_inet_pton(host, bytes) != 0;
}

bool tnl_tls_cert_has_address(const mbedtls_x509_crt *cert, const char *address)
{
    uint32_t bytes[4];
    size_t n = mbedtls_x509_crt_parse_cn_inet_pton(address, bytes);
    for (const mbedtls_x509_sequence *san = &cert->subject_alt_names; n && san; san = san->next) {
        if (is_kind(san, MBEDTLS_X509_SAN_IP_ADDRESS) && san->buf.len == n &&
            memcmp(san->buf.p, bytes, n) == 0)
            return true;
    }
    return false;
}

/* Appends a name of the certificate; what is not plain ASCII is shown as '?', since it goes to a
 * terminal. */
static void add_name(char *out, size_t size, const unsigned char *p, size_t n)
{
    size_t len = strlen(out);
    const char *comma = len ? ", " : "";
    if (len + strlen(comma) + n + 6 > size) {
        if (len + 6 <= size && (len < 3 || strcmp(out + len - 3, "...") != 0))
            snprintf(out + len, size - len, "%s...", comma);
        return;
    }
    len += (size_t)snprintf(out + len, size - len, "%s", comma);
    for (size_t i = 0; i < n; i++)
        out[len++] = (char)(p[i] > ' ' && p[i] < 0x7f ? p[i] : '?');
    out[len] = '\0';
}

void tnl_tls_cert_names(const mbedtls_x509_crt *cert, char *out, size_t size)
{
    out[0] = '\0';
    for (const mbedtls_x509_sequence *san = &cert->subject_alt_names; san; san = san->next) {
        char text[48];
        const unsigned char *p = san->buf.p;
        if (is_kind(san, MBEDTLS_X509_SAN_DNS_NAME)) {
            add_name(out, size, p, san->buf.len);
        } else if (is_kind(san, MBEDTLS_X509_SAN_IP_ADDRESS) && san->buf.len == 4) {
            inet_ntop(AF_INET, p, text, sizeof(text));
            add_name(out, size, (const unsigned char *)text, strlen(text));
        } else if (is_kind(san, MBEDTLS_X509_SAN_IP_ADDRESS) && san->buf.len == 16) {
            inet_ntop(AF_INET6, p, text, sizeof(text));
            add_name(out, size, (const unsigned char *)text, strlen(text));
        }
    }
    if (out[0])
        return;
    for (const mbedtls_x509_name *n = &cert->subject; n; n = n->next) {
        if (n->oid.p && MBEDTLS_OID_CMP(MBEDTLS_OID_AT_CN, &n->oid) == 0)
            add_name(out, size, n->val.p, n->val.len);
    }
    if (!out[0])
        snprintf(out, size, "no name");
}
