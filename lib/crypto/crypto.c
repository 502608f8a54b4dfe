/* SPDX-License-Identifier: Apache-2.0 */
#include "crypto/crypto.h"

#include <errno.h>
#include <mbedtls/md.h>
#include <sys/random.h>

#include "tunnel/error.h"

int tnl_random(void *out, size_t n)
{
    uint8_t *p = out;
    while (n) {
        ssize_t got = getrandom(p, n, 0);
        if (got < 0) {
            if (errno == EINTR)
                continue;
            return TUNNEL_E_IO;
        }
        p += got;
        n -= (size_t)got;
    }
    return 0;
}

int tnl_sha256(uint8_t out[TNL_SHA256_SIZE], const void *p, size_t n)
{
    return mbedtls_md(mbedtls_md_info_from_type(MBEDTLS_MD_SHA256), p, n, out) ? TUNNEL_E_NOMEM : 0;
}

int tnl_hmac_sha256(uint8_t out[TNL_SHA256_SIZE], const void *key, size_t key_len, const void *p,
                    size_t n)
{
    const mbedtls_md_info_t *md = mbedtls_md_info_from_type(MBEDTLS_MD_SHA256);
    return mbedtls_md_hmac(md, key, key_len, p, n, out) ? TUNNEL_E_NOMEM : 0;
}

bool tnl_equal_ct(const void *a, const void *b, size_t n)
{
    const volatile uint8_t *x = a;
    const volatile uint8_t *y = b;
    uint8_t difference = 0;
    for (size_t i = 0; i < n; i++)
        difference |= (uint8_t)(x[i] ^ y[i]);
    return difference == 0;
}

void tnl_hex(char *out, const void *p, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *bytes = p;
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * n] = '\0';
}

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int tnl_unhex(void *out, size_t n, const char *text, size_t text_len)
{
    uint8_t *bytes = out;
    if (text_len != 2 * n)
        return TUNNEL_E_INVALID;
    for (size_t i = 0; i < n; i++) {
        int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return TUNNEL_E_INVALID;
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    return 0;
}
