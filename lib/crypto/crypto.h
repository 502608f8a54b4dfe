/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_CRYPTO_CRYPTO_H
#define TNL_CRYPTO_CRYPTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TNL_SHA256_SIZE = 32 };

/* n bytes from the kernel's random source. 0, or TUNNEL_E_IO when it cannot be read. */
int tnl_random(void *out, size_t n);

/* 0, or TUNNEL_E_NOMEM. */
int tnl_sha256(uint8_t out[TNL_SHA256_SIZE], const void *p, size_t n);
int tnl_hmac_sha256(uint8_t out[TNL_SHA256_SIZE], const void *key, size_t key_len, const void *p,
                    size_t n);

/* Compares in a time that depends on n only. */
bool tnl_equal_ct(const void *a, const void *b, size_t n);

/* Lower-case hex with a NUL: out holds 2 * n + 1 bytes. */
void tnl_hex(char *out, const void *p, size_t n);

/* Parses exactly 2 * n hex digits (text_len says how many there are). 0 or TUNNEL_E_INVALID. */
int tnl_unhex(void *out, size_t n, const char *text, size_t text_len);

#endif
